"""The posterior as draws of a chain: its hyperparameters, with the rows they go with.

How a new row joins it is in `new_rows`, where it has noise of its own, and in `rows_by_draws`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SettingsError
from ...model import FactorizationModel
from ...model.feedback import Feedback
from ...model.fitted import Hyperparameter, RowPriors
from ...model.implicit_feedback import feedback_means
from ...model.likelihoods.normal import Likelihood
from ...model.likelihoods.normal_utilities import Utilities
from ...model.row_draws import RowDraws
from ...model.sides import Side, Sides, TwoSides
from .common_coordinates import Priors
from .left_out import ChainLeftOut
from .new_rows import draw_new_rows
from .rows_by_draws import draw_by_draws


class ChainSide(nn.Module):
    """Draws of what the prior of one side's rows is made of.

    Attributes
    ----------
    location : Tensor, shape (n_draws, D)
    precision : Tensor, shape (n_draws, D, D)
    weights : Tensor, shape (n_draws, n_other, D), or empty
        Of implicit feedback.
    row_precision_shape : Tensor, shape (n_draws,)
        Of the prior of what rows multiply the noise's precision by.
    """

    location: Tensor
    precision: Tensor
    weights: Tensor
    row_precision_shape: Tensor

    def __init__(self, n_draws: int, width: int, n_weights: int, weights_dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(n_draws, width))
        self.register_buffer("precision", torch.zeros(n_draws, width, width))
        self.register_buffer("weights", torch.zeros(n_draws, n_weights, width, dtype=weights_dtype))
        self.register_buffer("row_precision_shape", torch.ones(n_draws, dtype=torch.float64))


class ChainGuide(TwoSides[ChainSide], nn.Module):
    """Draws of a chain's hyperparameters, and the rows they go with.

    Parameters
    ----------
    n_users, n_items, n_factors, n_draws, n_cuts : int
    biases : bool
    implicit : bool
        Whether rows' prior means come from implicit feedback.
    row_noise : tuple of str
        The sides whose rows have noise of their own.
    steps : int
        Gibbs steps of a new row.
    integrates : bool
        Whether a new row with noise of its own knows how uncertain the other side's draws are (`new_rows`);
        in chains of earlier versions it takes them for known, and goes on to do so (`rows_by_draws`).
    uncertain_means : bool
        Whether such a row also knows how uncertain the implicit weights leave its prior mean; in chains of
        earlier versions it takes those of each draw for known.
    weights_dtype : torch.dtype
        Of the draws of implicit weights, which are most of what there is.

    Attributes
    ----------
    user, item : ChainSide
    noise_precision : Tensor, shape (n_draws,)
        Of a rating or utility.
    cuts : Tensor, shape (n_draws, n_cuts)
    centre : Tensor, shape ()
        What feedback's values lack of ratings.
    """

    noise_precision: Tensor
    cuts: Tensor
    centre: Tensor

    def __init__(
        self,
        n_users: int,
        n_items: int,
        n_factors: int,
        n_draws: int,
        *,
        biases: bool,
        n_cuts: int = 0,
        implicit: bool = True,
        row_noise: tuple[str, ...] = (),
        steps: int = 15,
        integrates: bool = True,
        uncertain_means: bool = True,
        weights_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.n_users, self.n_items, self.n_factors, self.n_draws = n_users, n_items, n_factors, n_draws
        self.biases, self.n_cuts, self.implicit = biases, n_cuts, implicit
        self.row_noise, self.steps = tuple(row_noise), steps
        self.integrates, self.uncertain_means = integrates, uncertain_means
        width = n_factors + biases
        self.user = ChainSide(n_draws, width, n_items if implicit else 0, weights_dtype)
        self.item = ChainSide(n_draws, width, n_users if implicit else 0, weights_dtype)
        self.register_buffer("noise_precision", torch.ones(n_draws, dtype=torch.float64))
        self.register_buffer("cuts", torch.zeros(n_draws, n_cuts, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))
        self._rows: Sides[RowDraws] | None = None
        self._utilities: Utilities | None = None

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this guide's shape by `from_settings`, as plain values."""
        return {
            "kind": "chain",
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_factors": self.n_factors,
            "n_draws": self.n_draws,
            "biases": self.biases,
            "n_cuts": self.n_cuts,
            "implicit": self.implicit,
            "row_noise": list(self.row_noise),
            "steps": self.steps,
            **({"integrates": True} if self.integrates else {}),
            **({"uncertain_means": True} if self.uncertain_means else {}),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ChainGuide:
        """Build a guide of a saved shape; its draws are to be loaded into it, and take no memory before."""
        given = {"integrates": False, "uncertain_means": False, **settings}
        del given["kind"]
        with torch.device("meta"):
            return cls(**{**given, "row_noise": tuple(given["row_noise"])})

    joint_bias = False
    has_residuals = False
    has_gradients = False

    @property
    def half_tensors(self) -> tuple[str, ...]:
        """The draws of implicit weights, where there are any."""
        return ("user.weights", "item.weights") if self.implicit else ()

    def training_rows(self, side: Side, feedback: Feedback) -> RowDraws:
        """Return the rows that the draws go with."""
        del feedback
        return self._attached()[0].of(side)

    def row_priors(self, side: Side, feedback: Feedback) -> RowPriors:
        """Return the Normal prior of rows at each draw; with implicit feedback, of what they have rated."""
        own = self.of(side)

        def at(draw: int) -> tuple[Tensor, Tensor]:
            mean = own.location[draw].double().expand(feedback.n_rows, -1)
            if self.implicit:
                mean = mean + feedback_means(feedback, own.weights[draw]).double()
            return own.precision[draw].double(), mean

        return RowPriors(at, shared=not self.implicit)

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Return the draws of noise, cut points and the rows' priors; see `fitted.Guide`."""
        k = self.n_factors
        found = {"noise": Hyperparameter((), self.noise_precision.double() ** -0.5)}
        if self.n_cuts:
            found["cuts"] = Hyperparameter(("cut",), self.cuts)
        for side, own in self.by_side():
            location, precision = own.location.double(), own.precision.double()
            if self.biases:
                found[f"{side}_bias_location"] = Hyperparameter((), location[:, k])
                found[f"{side}_bias_scale"] = Hyperparameter((), precision[:, k, k] ** -0.5)
            found[f"{side}_factors_location"] = Hyperparameter(("factor",), location[:, :k])
            found[f"{side}_factors_precision"] = Hyperparameter(
                ("factor", "factor_other"), precision[:, :k, :k]
            )
            if side in self.row_noise:
                found[f"{side}_noise_shape"] = Hyperparameter((), own.row_precision_shape)
        return found

    def attach(self, users: RowDraws, items: RowDraws, likelihood: Likelihood) -> None:
        """Put the rows that the draws go with, and the likelihood, in place; they are saved apart."""
        self._rows, self._utilities = Sides(users, items), likelihood.utilities()

    def left_out(
        self, model: FactorizationModel, feedback: Feedback, levels: Tensor | None, n_draws: int, seed: int
    ) -> ChainLeftOut:
        """Return the training ratings' chances with rows integrated out; see `fitted.Guide`."""
        return ChainLeftOut(model, self._attached()[0], self, feedback, levels, n_draws=n_draws, seed=seed)

    def encode_side(self, side: Side, feedback: Feedback) -> RowDraws:
        """Return draws of new rows of one side.

        Parameters
        ----------
        side : {"user", "item"}
        feedback : Feedback
            Their entries over all rows of the other side; values are ratings less the model's centre.

        Raises
        ------
        SettingsError
            If no rows were attached.
        """
        rows, utilities = self._attached()
        with torch.no_grad(), torch.random.fork_rng(devices=_devices(feedback.values)):
            # One fixed stream: folding the same rows in again gives the same draws.
            torch.manual_seed(0x5EED)
            return self._encode(side, feedback, rows, utilities)

    def _attached(self) -> tuple[Sides[RowDraws], Utilities]:
        if self._rows is None or self._utilities is None:
            raise SettingsError("The chain's rows are not attached: load or make the posterior as a whole.")
        return self._rows, self._utilities

    def _encode(
        self, side: Side, feedback: Feedback, rows: Sides[RowDraws], utilities: Utilities
    ) -> RowDraws:
        own, other = self.of(side), rows.opposite(side)
        noisy = side in self.row_noise
        priors = Priors(
            own.location,
            own.precision,
            own.weights if self.implicit else None,
            own.row_precision_shape if noisy else None,
            self.noise_precision,
            self.cuts - self.centre,
        )
        how: dict[str, Any] = {"centre": self.centre, "steps": self.steps}
        if not (self.integrates and noisy):
            return draw_by_draws(feedback, other, priors, utilities, **how)
        how["uncertain_means"] = self.uncertain_means
        how["noise_spread"] = any(one.noise_spread is not None for one in (rows.user, rows.item))
        return draw_new_rows(feedback, other, priors, utilities, **how)


def _devices(tensor: Tensor) -> list[torch.device]:
    return [tensor.device] if tensor.device.type == "cuda" else []
