"""What a fitted method gives: the one interface that everything after a fit asks.

A method ends with two things. Its *rows* (`Rows`, one object a side) are the posterior of all users and of
all items: Normals (`rows.RowPosterior`) or the draws that a chain kept (`row_draws.RowDraws`). Two sides
together (`RowPairs`) give the moments and the draws of predictors. Its *guide* (`Guide`) gives new rows
their posterior, and says what else the method learned: priors of rows, hyperparameters.

Nobody after a fit asks which method it was: `posterior`, `checking`, `export` and the command line know these
three protocols, and what draws are (`sampling.Sampling`). A guide whose rows are independent Normals inherits
`NormalRowsGuide`, which answers all but two of the questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..numerics.keyed_draws import Stream
from .factorization import FactorizationModel
from .feedback import Feedback
from .likelihoods.normal import Likelihood
from .sampling import Sampling
from .sides import Side as Side

Indices = NDArray[np.int64]


class Rows(Protocol):
    """The posterior of the `n` rows of one side."""

    def __len__(self) -> int:
        """Return the number of rows."""

    @property
    def n_factors(self) -> int:
        """Number of factors."""

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""

    @property
    def sampling(self) -> Sampling:
        """What draws of the rows are."""

    @property
    def noise_factor(self) -> Tensor | None:
        """What each row multiplies the likelihood's standard deviation by, (n,); None for ones."""

    @property
    def noise_factor_log_sd(self) -> Tensor | None:
        """Standard deviation of the logarithm of `noise_factor`, (n,); None where it stands at one value."""

    @property
    def noise_spread(self) -> Tensor | None:
        """Standard deviation of the logarithm of `noise_factor`, (n,), over which predictions average.

        `noise_factor` is then its mean. None where predictions take `noise_factor` as it stands.
        """

    @property
    def cuts(self) -> Tensor | None:
        """Means of the shifts of a user's cut points, (n, n_shifts); None where cuts are shared."""

    @property
    def cuts_scale(self) -> Tensor | None:
        """Standard deviations of those shifts, (n, n_shifts)."""

    def pairs_with(self, items: Any, centre: Tensor, streams: tuple[Stream, Stream]) -> RowPairs:
        """Return these rows, users, together with items of the same posterior.

        Parameters
        ----------
        items : Rows
        centre : Tensor, shape ()
            What every predictor starts from.
        streams : tuple of Stream
            Which random numbers make the draws of users and of items: those of folded-in rows differ.
        """

    def factor_moments(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give means and variances of the factors, (n, n_factors) each, float64, for each setting of them.

        Settings are alternatives that are averaged over: one, of Normals; one a draw, without variance, of a
        chain, whose factors may turn from draw to draw.
        """

    def normals(self, refusal: str) -> Any:
        """Return the rows as Normals, each with its own q (`rows.RowPosterior`).

        Raises
        ------
        SettingsError
            With `refusal`, where they are draws of a chain.
        """

    def bias_draws(self) -> Tensor | None:
        """Return the draws of the rows' biases that were kept, (n, n_draws); None where none were."""

    def summaries(self) -> dict[str, Tensor]:
        """Return what a table tells of each row, by column.

        ``bias_loc``, ``bias_scale``, (n,), and ``loc``, ``scale``, (n, n_factors), of factors that have an
        identity.
        """

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors to save, by name, those that there are."""

    def select(self, rows: Tensor) -> Rows:
        """Return the given rows, in the given order."""

    def to(self, device: torch.device | str) -> Rows:
        """Return the same rows on another device."""

    def with_each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        """Return the rows with each tensor changed."""


class UserGivenItems(NamedTuple):
    """A user's posterior, the items being given, in T settings of these: draws of a chain, or one.

    Attributes
    ----------
    covariance : Tensor, shape (T, D, D)
        Of the user's row.
    features : Tensor, shape (T, m, D)
        Of the candidates: factors and, last, a one where rows have biases.
    mean : Tensor, shape (T, m)
        Of the candidates' predictors.
    other : Tensor, shape (T, m)
        The items' share of the predictors' variance.
    spread : Tensor or None, shape (T, m, n_factors, n_factors)
        The items' covariance over factors; None where items are given exactly.
    """

    covariance: Tensor
    features: Tensor
    mean: Tensor
    other: Tensor
    spread: Tensor | None


class RowPairs(Protocol):
    """Users and items of one posterior together: moments and draws of predictors."""

    def moments(self, users: Indices, items: Indices) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the predictor of each pair, float64, shape (n,)."""

    def table(self, users: Indices, items: Indices) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Give mean and variance of the predictor of every user with every item, a block at a time.

        Yields
        ------
        users, items : slice
            The block's places.
        mean, variance : Tensor, shape (n_users, n_items) of the block
        """

    def draw(self, side: Side, rows: Indices, draws: Indices, seed: int) -> tuple[Tensor, Tensor | None]:
        """Draw rows of one side: factors (n_draws, n_rows, K) and biases (n_draws, n_rows) or None.

        The same row, draw and seed give the same numbers in any request.
        """

    def user_given_items(
        self, user: int, candidates: Indices, rated: Indices, hyper: ChainHyper | None
    ) -> UserGivenItems:
        """Return one user's posterior given the items.

        Parameters
        ----------
        user : int
        candidates : ndarray, shape (m,)
            Items whose predictors are asked for.
        rated : ndarray
            Items that the user has rated.
        hyper : ChainHyper or None
            What each draw of a chain goes with.
        """

    @property
    def screened(self) -> bool:
        """Whether the exact means of many pairs are so dear that short features should choose among them."""

    def screen_features(self, groups: int) -> tuple[Tensor, Tensor] | None:
        """Return short features of all users and all items whose products are about the predictors' means.

        None where they are not `screened`.
        """

    def variances(self, users: Indices, items: Indices) -> Tensor:
        """Return the variance of the predictor of every user with every item, (n_users, n_items), float32."""


class RowPriors:
    """The Normal prior of some rows of one side, at each draw of its hyperparameters.

    Parameters
    ----------
    at : callable
        Gives precision (D, D) and means (n, D), float64, of a draw: over factors and, last, the bias.
    shared : bool
        Whether all rows have the same mean.
    """

    def __init__(self, at: Callable[[int], tuple[Tensor, Tensor]], *, shared: bool) -> None:
        self.at, self.shared = at, shared

    def log_density(self, x: Tensor, draw: int) -> Tensor:
        """Return log p of rows (..., n, D) at a draw: (..., n), nats; differentiable."""
        precision, mean = self.at(draw)
        gap = x - mean
        square = ((gap @ precision) * gap).sum(-1)
        constant = torch.logdet(precision) - x.shape[-1] * float(np.log(2.0 * np.pi))
        result: Tensor = 0.5 * (constant - square)
        return result


class Hyperparameter(NamedTuple):
    """Draws of a hyperparameter that a method kept beside its rows.

    Attributes
    ----------
    dims : tuple of str
        Names of the dimensions after the draw.
    values : Tensor, shape (n_draws, ...)
    """

    dims: tuple[str, ...]
    values: Tensor


@dataclass(frozen=True, eq=False)
class ChainHyper:
    """What conditionals of a user's row rest on, by draw of a chain.

    Attributes
    ----------
    prior : RowPriors
        Of that row.
    noise_precision : Tensor, shape (n_draws,)
        Of a rating or utility about its predictor.
    """

    prior: RowPriors
    noise_precision: Tensor


class LeftOut(Protocol):
    """What draws of all else say of training ratings whose own rows are integrated out."""

    @property
    def width(self) -> int:
        """Number of draws, m."""

    def log_chances(
        self, ratings: Tensor, advance: Callable[[int], None] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        r"""Return :math:`\log p(x_{ij} \mid \theta_s)` of some ratings, with neither the row nor x in it.

        Parameters
        ----------
        ratings : Tensor, shape (n,), int64
            Their places among the users' training feedback.
        advance : callable, optional
            Called with numbers of ratings that add up to n.

        Returns
        -------
        fitted : Tensor, shape (n, m)
            Of the likelihood that was fitted, nats: weights of draws are one over it. Draws of the rest may
            be taken several times, with more draws of what they do not hold: m is then a multiple of theirs.
        scored : Tensor or None, shape (n, m)
            Of the rating's level, where that is something else.
        """


class Guide(Protocol):
    """What a method has learned beside the rows themselves (a `torch.nn.Module`, saved by its state)."""

    @property
    def half_tensors(self) -> tuple[str, ...]:
        """Names of the tensors of its state that may stand in half precision."""

    @property
    def joint_bias(self) -> bool:
        """Whether a row's bias is correlated with its factors under q."""

    @property
    def has_residuals(self) -> bool:
        """Whether training rows have free parameters beside what an encoder says of them."""

    @property
    def has_gradients(self) -> bool:
        """Whether it was fitted by gradients, whose noise can be measured."""

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds its shape by ``from_settings``, as plain values, its ``kind`` among them."""

    def attach(self, users: Any, items: Any, likelihood: Likelihood) -> None:
        """Be told of the rows (`Rows`) that a posterior holds beside it, which are saved apart."""

    def training_rows(self, side: Side, feedback: Feedback) -> Rows:
        """Return the rows that were trained, all of them in their order, given their ratings."""

    def encode_side(self, side: Side, feedback: Feedback) -> Rows:
        """Return the posterior of new rows of one side from their ratings alone, without gradients."""

    def row_priors(self, side: Side, feedback: Feedback) -> RowPriors | None:
        """Return the prior of the rows with this feedback as the method learned it.

        None where it is the model's own.
        """

    def left_out(
        self, model: FactorizationModel, feedback: Feedback, levels: Tensor | None, n_draws: int, seed: int
    ) -> LeftOut | None:
        """Return what gives training ratings' chances with their own rows integrated out.

        None where the method has no conditional of rows, or draws nothing that it could rest on.

        Parameters
        ----------
        model : FactorizationModel
        feedback : Feedback
            All training ratings, by user; values less the model's centre.
        levels : Tensor or None, shape (n_levels,)
            Of a discrete scale, in the unit of the ratings.
        n_draws, seed : int
        """

    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """Return the draws of hyperparameters by name; none where none were kept.

        ``noise``
            Standard deviation of a rating about its predictor (of a utility, under an ordered likelihood,
            where the model may hold it fixed); rows' own multipliers come on top.
        ``cuts``
            Cut points of an ordered likelihood, along ``cut``.
        ``{side}_bias_location``, ``{side}_bias_scale``
            Mean and standard deviation of the biases' prior.
        ``{side}_factors_location``, ``{side}_factors_precision``
            Of the factors' prior, which turns with the factors from draw to draw.
        ``{side}_noise_shape``
            Shape of the prior of rows' noise multipliers.
        """


class NormalRowsGuide:
    """Answers of a guide whose rows are independent Normals.

    A subclass gives `encode_side` and ``settings``, and overrides what is otherwise with it.
    """

    half_tensors: tuple[str, ...] = ()
    joint_bias: bool = False
    has_gradients: bool = False

    @property
    def has_residuals(self) -> bool:
        """False: rows are what an encoder says of them."""
        return False

    def attach(self, users: Any, items: Any, likelihood: Likelihood) -> None:
        """Keep nothing: new rows do not depend on the posterior's rows, but on what it holds itself."""

    def encode_side(self, side: Side, feedback: Feedback) -> Rows:
        """Return q of the rows of one side; a subclass gives it."""
        raise TypeError(f"{type(self).__name__} is a guide without encode_side: give it that method.")

    def training_rows(self, side: Side, feedback: Feedback) -> Rows:
        """Return what is said of new rows with the same ratings."""
        return self.encode_side(side, feedback)

    def row_priors(self, side: Side, feedback: Feedback) -> RowPriors | None:
        """Return None: the priors are the model's."""
        del side, feedback
        return None

    def left_out(
        self, model: FactorizationModel, feedback: Feedback, levels: Tensor | None, n_draws: int, seed: int
    ) -> LeftOut | None:
        """Return None: draws of q are no draws of rows given the other side."""
        del model, feedback, levels, n_draws, seed
        return None

    def hyperparameters(self) -> Mapping[str, Hyperparameter]:
        """Return none: there are no draws of any."""
        return {}
