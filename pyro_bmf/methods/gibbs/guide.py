r"""The posterior as draws of a chain, and how a new row joins it: draw by draw, from its exact conditional.

A new row i is given, for each draw s of everything else, a draw of :math:`u_i \mid V^{(s)}, \mu^{(s)},
\Lambda^{(s)}, y^{(s)}, \ldots` and its own ratings, and so has as many draws as the model's rows, in step
with them. Where the conditional is Normal that is one exact draw; with an ordered likelihood or noise of its
own the row has utilities and a noise multiplier too, and takes a few Gibbs steps of its own. Nothing else
moves: a folded-in row is no part of what the chain has seen.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...errors import SettingsError
from ...model.feedback import Feedback
from ...model.fitted import Hyperparameter, RowPriors
from ...model.implicit_feedback import feedback_means
from ...model.row_draws import RowDraws, working_dtype
from ...numerics.normal_cells import Cells
from ...numerics.truncated_normal import draw_in_cells
from ..kernel import Conditional, Entries, outer_products

Side = Literal["user", "item"]

#: Numbers in the tables of one chunk of draws.
_CELLS = 8_000_000


class ChainGuide(nn.Module):
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
    {side}_location : Tensor, shape (n_draws, D)
    {side}_precision : Tensor, shape (n_draws, D, D)
    {side}_weights : Tensor, shape (n_draws, n_other, D), or empty
    {side}_noise_shape : Tensor, shape (n_draws,)
    noise : Tensor, shape (n_draws,)
        Precision of a rating or utility.
    cuts : Tensor, shape (n_draws, n_cuts)
    middles : Tensor, shape (n_cuts,)
        Halfway between the scale's levels: which level a rating is.
    centre : Tensor, shape ()
        What feedback's values lack of ratings.
    """

    user_weights: Tensor
    item_weights: Tensor
    noise: Tensor
    cuts: Tensor
    middles: Tensor
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
        for side, n_other in (("user", n_items), ("item", n_users)):
            self.register_buffer(f"{side}_location", torch.zeros(n_draws, width))
            self.register_buffer(f"{side}_precision", torch.zeros(n_draws, width, width))
            n_weights = n_other if implicit else 0
            self.register_buffer(
                f"{side}_weights", torch.zeros(n_draws, n_weights, width, dtype=weights_dtype)
            )
            self.register_buffer(f"{side}_noise_shape", torch.ones(n_draws, dtype=torch.float64))
        self.register_buffer("noise", torch.ones(n_draws, dtype=torch.float64))
        self.register_buffer("cuts", torch.zeros(n_draws, n_cuts, dtype=torch.float64))
        self.register_buffer("middles", torch.zeros(n_cuts, dtype=torch.float64))
        self.register_buffer("centre", torch.zeros((), dtype=torch.float64))
        self._rows: dict[str, RowDraws] = {}

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
        return ("user_weights", "item_weights") if self.implicit else ()

    def training_rows(self, side: Side, feedback: Feedback) -> RowDraws:
        """Return the rows that the draws go with."""
        del feedback
        return self._attached(side)

    def row_priors(self, side: Side, feedback: Feedback) -> RowPriors:
        """Return the Normal prior of rows at each draw; with implicit feedback, of what they have rated."""
        location, precision, weights = (
            getattr(self, f"{side}_{name}") for name in ("location", "precision", "weights")
        )

        def at(draw: int) -> tuple[Tensor, Tensor]:
            mean = location[draw].double().expand(feedback.n_rows, -1)
            if self.implicit:
                mean = mean + feedback_means(feedback, weights[draw]).double()
            return precision[draw].double(), mean

        return RowPriors(at, shared=not self.implicit)

    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Return the draws of noise, cut points and the rows' priors; see `fitted.Guide`."""
        k = self.n_factors
        found = {"noise": Hyperparameter((), self.noise.double() ** -0.5)}
        if self.n_cuts:
            found["cuts"] = Hyperparameter(("cut",), self.cuts)
        for side in ("user", "item"):
            location = getattr(self, f"{side}_location").double()
            precision = getattr(self, f"{side}_precision").double()
            if self.biases:
                found[f"{side}_bias_location"] = Hyperparameter((), location[:, k])
                found[f"{side}_bias_scale"] = Hyperparameter((), precision[:, k, k] ** -0.5)
            found[f"{side}_factors_location"] = Hyperparameter(("factor",), location[:, :k])
            found[f"{side}_factors_precision"] = Hyperparameter(
                ("factor", "factor_other"), precision[:, :k, :k]
            )
            if side in self.row_noise:
                shape = getattr(self, f"{side}_noise_shape")
                found[f"{side}_noise_shape"] = Hyperparameter((), shape)
        return found

    def attach(self, users: RowDraws, items: RowDraws) -> None:
        """Put the rows that the draws go with in place; they are saved apart."""
        self._rows = {"user": users, "item": items}

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
        self._attached(side)
        with torch.no_grad(), torch.random.fork_rng(devices=_devices(feedback.values)):
            # One fixed stream: folding the same rows in again gives the same draws.
            torch.manual_seed(0x5EED)
            return self._encode(side, feedback)

    def _attached(self, side: Side) -> RowDraws:
        if not self._rows:
            raise SettingsError("The chain's rows are not attached: load or make the posterior as a whole.")
        return self._rows[side]

    def _encode(self, side: Side, feedback: Feedback) -> RowDraws:
        other = self._rows["item" if side == "user" else "user"]
        columns, places = torch.unique(feedback.indices.long(), return_inverse=True)
        width = self.n_factors + self.biases
        n, m, nnz = feedback.n_rows, len(columns), feedback.nnz
        per_draw = m * width * (width + 3) + n * width * (3 * width + 4) + nnz * 8
        size = max(1, _CELLS // max(per_draw, 1))
        parts = [
            self._encode_draws(side, feedback, other, columns, places, torch.arange(start, stop))
            for start, stop in (
                (start, min(start + size, self.n_draws)) for start in range(0, self.n_draws, size)
            )
        ]
        noise = None
        if other.noise is not None or side in self.row_noise:
            noise = torch.stack([part[2] for part in parts]).sum(0) / self.n_draws
        draws, means = (torch.cat([part[place] for part in parts], 1) for place in (0, 1))
        return RowDraws(draws, means, other.biased, noise)

    def _encode_draws(
        self, side: str, feedback: Feedback, other: RowDraws, columns: Tensor, places: Tensor, draws: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return draws (n, s, D), means (n, s, D) and summed noise (n,) for some of the chain's draws.

        Rows of all the draws stand below each other: row i of draw s is row s * n + i.
        """
        draws = draws.to(other.device)
        n, m, s = feedback.n_rows, len(columns), len(draws)
        width = self.n_factors + self.biases
        dtype = working_dtype(other.draws)
        drawn = other.draws[columns][:, draws].to(dtype).transpose(0, 1).reshape(s * m, width)
        entries, values = _stacked(feedback, places, m, s, dtype)
        features, offset = drawn, torch.zeros(s * m, dtype=dtype, device=drawn.device)
        if self.biases:
            features, offset = drawn.clone(), drawn[:, -1]
            features[:, -1] = 1.0
        weight = torch.ones(s * m, dtype=dtype, device=drawn.device)
        if other.noise is not None:
            weight = (other.noise[columns] ** -2).to(dtype).repeat(s)
        location = getattr(self, f"{side}_location")[draws].to(dtype)
        precision = getattr(self, f"{side}_precision")[draws].to(dtype)
        prior_mean = location.repeat_interleave(n, 0)
        if self.implicit:
            table = getattr(self, f"{side}_weights")
            weights = table[draws.unsqueeze(1), columns].reshape(s * m, width).to(dtype)
            prior_mean = prior_mean + entries.means(weights)
        prior = precision.repeat_interleave(n, 0)
        level = self.noise[draws].to(dtype).repeat_interleave(n)
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

        spread_free = self.n_cuts == 0 and side not in self.row_noise
        utilities = values
        found, mean = conditional(utilities)
        rows = mean + found.spread(torch.randn_like(mean))
        for _ in range(0 if spread_free else self.steps):
            eta = (features[at] * rows[entries.rows]).sum(-1) + offset[at]
            if self.n_cuts:
                scale = (level[entries.rows] * own[entries.rows] * weight[at]).rsqrt()
                cuts = self.cuts[draws].repeat_interleave(feedback.nnz, 0)
                place = torch.searchsorted(self.middles - self.centre, values.double())
                cells = Cells.of(eta.double(), scale.double(), cuts - self.centre, place)
                utilities = draw_in_cells(eta.double(), scale.double(), cells).to(eta.dtype)
            if side in self.row_noise:
                squares = (utilities - eta) ** 2 * level[entries.rows] * weight[at]
                total = torch.zeros_like(own).index_add_(0, entries.rows, squares).double()
                shape = getattr(self, f"{side}_noise_shape")[draws].repeat_interleave(n)
                counts = entries.indptr.diff().double()
                drawn_noise = torch._standard_gamma(shape + 0.5 * counts) / (shape + 0.5 * total)
                own = drawn_noise.to(dtype)
            found, mean = conditional(utilities)
            rows = mean + found.spread(torch.randn_like(mean))
        noise = own.rsqrt().view(s, n).sum(0)
        return rows.view(s, n, -1).transpose(0, 1), mean.view(s, n, -1).transpose(0, 1), noise


def _stacked(
    feedback: Feedback, places: Tensor, m: int, s: int, dtype: torch.dtype
) -> tuple[Entries, Tensor]:
    """Repeat rows for each of s draws, each over its own m columns."""
    n, nnz = feedback.n_rows, feedback.nnz
    device = feedback.values.device
    shift = torch.arange(s, device=device).repeat_interleave(nnz)
    indices = (places.repeat(s) + shift * m).int()
    starts = feedback.indptr[:-1].long().repeat(s) + torch.arange(s, device=device).repeat_interleave(n) * nnz
    indptr = torch.cat([starts, starts.new_tensor([s * nnz])]).int()
    nothing = torch.zeros(s * m + 1, dtype=torch.int32, device=device)
    entries = Entries.build(indptr, indices, nothing, indices[:0], dtype)
    return entries, feedback.values.to(dtype).repeat(s)


def _devices(tensor: Tensor) -> list[torch.device]:
    return [tensor.device] if tensor.device.type == "cuda" else []
