r"""The posterior as draws of a chain, and how a new row joins it: draw by draw, from its exact conditional.

A new row i is given, for each draw s of everything else, a draw of :math:`u_i \mid V^{(s)}, \mu^{(s)},
\Lambda^{(s)}, y^{(s)}, \ldots` and its own ratings, and so has as many draws as the model's rows, in step
with them. Where the conditional is Normal that is one exact draw; with an ordered likelihood or noise of its
own the row has utilities and a noise multiplier too, and takes a few Gibbs steps of its own. Nothing else
moves: a folded-in row is no part of what the chain has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import SettingsError
from ...model.feedback import Feedback
from ...model.fitted import Hyperparameter, RowPriors
from ...model.implicit_feedback import feedback_means
from ...model.likelihoods.normal import Likelihood
from ...model.likelihoods.normal_utilities import Utilities
from ...model.row_draws import RowDraws, working_dtype
from ...model.sides import Side, Sides, TwoSides
from ..kernel import Conditional, Entries, outer_products

#: Numbers in the tables of one chunk of draws.
_CELLS = 8_000_000


@dataclass(frozen=True, eq=False)
class _Stack:
    """New rows, repeated for each of some draws of the other side.

    Attributes
    ----------
    feedback : Feedback
    other : RowDraws
    columns : Tensor, shape (m,)
        The other side's rows that there are entries in.
    places : Tensor, shape (nnz,)
        Which of them each entry is in.
    """

    feedback: Feedback
    other: RowDraws
    columns: Tensor
    places: Tensor

    def entries(self, s: int, dtype: torch.dtype) -> tuple[Entries, Tensor]:
        """Return the rows once for each of s draws, each over its own m columns, and their values."""
        feedback, m = self.feedback, len(self.columns)
        n, nnz, device = feedback.n_rows, feedback.nnz, feedback.values.device
        draw = torch.arange(s, device=device)
        indices = (self.places.repeat(s) + draw.repeat_interleave(nnz) * m).int()
        starts = feedback.indptr[:-1].long().repeat(s) + draw.repeat_interleave(n) * nnz
        indptr = torch.cat([starts, starts.new_tensor([s * nnz])]).int()
        nothing = torch.zeros(s * m + 1, dtype=torch.int32, device=device)
        entries = Entries.build(indptr, indices, nothing, indices[:0], dtype)
        return entries, feedback.values.to(dtype).repeat(s)


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
        Gibbs steps of a new row whose conditional is not Normal.
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
        weights_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.n_users, self.n_items, self.n_factors, self.n_draws = n_users, n_items, n_factors, n_draws
        self.biases, self.n_cuts, self.implicit = biases, n_cuts, implicit
        self.row_noise, self.steps = tuple(row_noise), steps
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
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> ChainGuide:
        """Build a guide of a saved shape; its draws are to be loaded into it, and take no memory before."""
        given = {name: value for name, value in settings.items() if name != "kind"}
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
            return self._encode(side, feedback, rows.opposite(side), utilities)

    def _attached(self) -> tuple[Sides[RowDraws], Utilities]:
        if self._rows is None or self._utilities is None:
            raise SettingsError("The chain's rows are not attached: load or make the posterior as a whole.")
        return self._rows, self._utilities

    def _encode(self, side: Side, feedback: Feedback, other: RowDraws, utilities: Utilities) -> RowDraws:
        columns, places = torch.unique(feedback.indices.long(), return_inverse=True)
        width = self.n_factors + self.biases
        n, m, nnz = feedback.n_rows, len(columns), feedback.nnz
        per_draw = m * width * (width + 3) + n * width * (3 * width + 4) + nnz * 8
        size = max(1, _CELLS // max(per_draw, 1))
        stack = _Stack(feedback, other, columns, places)
        parts = [
            self._encode_draws(side, stack, utilities, torch.arange(start, stop))
            for start, stop in (
                (start, min(start + size, self.n_draws)) for start in range(0, self.n_draws, size)
            )
        ]
        noise = None
        if other.noise_factor is not None or side in self.row_noise:
            noise = torch.stack([part[2] for part in parts]).sum(0) / self.n_draws
        draws, means = (torch.cat([part[place] for part in parts], 1) for place in (0, 1))
        return RowDraws(draws, means, other.biased, noise)

    def _encode_draws(
        self, side: Side, stack: _Stack, likelihood: Utilities, draws: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return draws (n, s, D), means (n, s, D) and summed noise (n,) for some of the chain's draws.

        Rows of all the draws stand below each other: row i of draw s is row s * n + i.
        """
        feedback, other, columns, own_side = stack.feedback, stack.other, stack.columns, self.of(side)
        draws = draws.to(other.device)
        n, m, s = feedback.n_rows, len(columns), len(draws)
        width = self.n_factors + self.biases
        dtype = working_dtype(other.draws)
        drawn = other.draws[columns][:, draws].to(dtype).transpose(0, 1).reshape(s * m, width)
        entries, values = stack.entries(s, dtype)
        features, offset = drawn, torch.zeros(s * m, dtype=dtype, device=drawn.device)
        if self.biases:
            features, offset = drawn.clone(), drawn[:, -1]
            features[:, -1] = 1.0
        weight = torch.ones(s * m, dtype=dtype, device=drawn.device)
        if other.noise_factor is not None:
            weight = (other.noise_factor[columns] ** -2).to(dtype).repeat(s)
        location, precision = own_side.location[draws].to(dtype), own_side.precision[draws].to(dtype)
        prior_mean = location.repeat_interleave(n, 0)
        if self.implicit:
            weights = own_side.weights[draws.unsqueeze(1), columns].reshape(s * m, width).to(dtype)
            prior_mean = prior_mean + entries.means(weights)
        prior = precision.repeat_interleave(n, 0)
        level = self.noise_precision[draws].to(dtype).repeat_interleave(n)
        products = outer_products(features) * weight.unsqueeze(-1)
        information = entries.sum(products).view(s * n, *precision.shape[1:]) * level.view(-1, 1, 1)
        own = torch.ones(s * n, dtype=dtype, device=drawn.device)
        at = entries.indices.long()

        def conditional(utilities: Tensor) -> tuple[Conditional, Tensor]:
            linear = entries.sum(features * weight.unsqueeze(-1), utilities - offset[at])
            linear = linear * (level * own).unsqueeze(-1)
            found = Conditional.of(prior, information * own.view(-1, 1, 1), linear)
            pull = (prior @ prior_mean.unsqueeze(-1)).squeeze(-1)
            return found, found.solve(linear + pull)

        normal = not likelihood.latent and side not in self.row_noise
        observed = likelihood.observe(values + self.centre) if likelihood.latent else values
        cuts = self.cuts[draws].repeat_interleave(feedback.nnz, 0) - self.centre
        utilities = values
        found, mean = conditional(utilities)
        rows = mean + found.spread(torch.randn_like(mean))
        for _ in range(0 if normal else self.steps):
            eta = (features[at] * rows[entries.rows]).sum(-1) + offset[at]
            if likelihood.latent:
                noise_sd = (level[entries.rows] * own[entries.rows] * weight[at]).rsqrt()
                drawn_here = likelihood.draw_given(cuts, eta.double(), noise_sd.double(), observed)
                utilities = drawn_here.to(eta.dtype)
            if side in self.row_noise:
                squares = (utilities - eta) ** 2 * level[entries.rows] * weight[at]
                total = torch.zeros_like(own).index_add_(0, entries.rows, squares).double()
                shape = own_side.row_precision_shape[draws].repeat_interleave(n)
                counts = entries.indptr.diff().double()
                drawn_noise = torch._standard_gamma(shape + 0.5 * counts) / (shape + 0.5 * total)
                own = drawn_noise.to(dtype)
            found, mean = conditional(utilities)
            rows = mean + found.spread(torch.randn_like(mean))
        noise = own.rsqrt().view(s, n).sum(0)
        return rows.view(s, n, -1).transpose(0, 1), mean.view(s, n, -1).transpose(0, 1), noise


def _devices(tensor: Tensor) -> list[torch.device]:
    return [tensor.device] if tensor.device.type == "cuda" else []
