r"""Blocked Gibbs sweeps: every row of a side at once, implicit weights with the rows integrated out.

One sweep draws, each from its exact conditional given all else,

1. shifts and scales that no rating sees (`translations`, `scalings`);
2. noise, cuts and utilities (`utilities`, `hyper_draws`);
3. for users, then for items: the prior's precision; its location and the implicit weights together, **with
   the rows integrated out**; then the rows given those (`pyro_bmf.methods.kernel`).

The collapsed draw of step 3 is what lets the chain mix: location and weights given rows barely move, as a
row's prior mean and its residual explain each other. It is a Normal with precision :math:`A^T G A +
\mathrm{diag}(\lambda)`, A the scaled mask beside a column of ones and G block-diagonal, drawn by solving one
perturbed system (Papandreou and Yuille 2010) by conjugate gradients, to `tolerance`: nothing is ever
factorised that is larger than D x D.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...estimate import DENSE_CELLS
from ...model import FactorizationModel
from ...model.feedback import Feedback
from ...model.likelihoods.normal import NormalLikelihood
from ...model.likelihoods.ordered_probit import OrderedProbitLikelihood
from ...model.priors.normal_wishart import NormalWishartPrior
from ...numerics.normal_cells import midway
from ..few_entries import FewConditional, RowPlan, slices
from ..kernel import Conditional, Entries, conjugate_gradient, outer_products
from .chain_state import ChainState, SideState, block_precision
from .coarse_level import CoarseLevel
from .hyper_draws import (
    draw_gamma,
    draw_noise_shape,
    draw_normal_gamma,
    draw_normal_wishart,
    draw_row_noise,
    draw_weights_precision,
)
from .information import ColumnPlan, DenseInformation, FewInformation, Information
from .ordered_draws import draw_cuts_and_utilities, fit_cuts
from .scalings import rescale_utilities
from .translations import shift_biases, shift_factors

#: Of the prior of a learned Normal noise's precision: Gamma(shape, rate).
NOISE_PRIOR = (1.0, 1.0)
#: Pairs whose predictors are made at once.
_PAIRS = 1_000_000


class Sweeps:
    """Gibbs sweeps of one model over one set of training ratings.

    Parameters
    ----------
    model : FactorizationModel
        With Normal-Wishart priors and a Normal or an ordered probit likelihood; started.
    feedback : Feedback
        Users' training ratings, raw minus nothing: `ratings` are given apart.
    ratings : Tensor, shape (nnz,)
        Raw ratings in the order of `feedback`.
    dtype : torch.dtype
        Of the rows; hyperparameters and utilities are float64.
    tolerance, max_steps
        Of the conjugate gradients.
    scale_moves : bool
        Whether the scale of an ordered likelihood's utilities is drawn in each sweep (`scalings`).
    dense_cells : int
        Rows of the larger side times D squared above which rows with few ratings are of low rank
        (`pyro_bmf.methods.few_entries`).
    """

    def __init__(
        self,
        model: FactorizationModel,
        feedback: Feedback,
        ratings: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        tolerance: float = 1e-3,
        max_steps: int = 100,
        scale_moves: bool = False,
        dense_cells: int = DENSE_CELLS,
    ) -> None:
        self.model, self.dtype, self.scale_moves = model, dtype, scale_moves
        self.tolerance, self.max_steps = tolerance, max_steps
        self.user = Entries.build(
            feedback.indptr, feedback.indices, feedback.t_indptr, feedback.t_indices, dtype
        )
        self.item = Entries.build(
            feedback.t_indptr, feedback.t_indices, feedback.indptr, feedback.indices, dtype
        )
        self.coarse = {"user": CoarseLevel.build(self.user), "item": CoarseLevel.build(self.item)}
        width = model.n_factors + model.biases
        self.plans: dict[str, tuple[RowPlan, ColumnPlan]] = {}
        if max(self.user.n_rows, self.item.n_rows) * width**2 > dense_cells:
            for side, entries in (("user", self.user), ("item", self.item)):
                plan = RowPlan.build(entries, width)
                self.plans[side] = plan, ColumnPlan.build(plan)
        # Utilities are kept in the users' order; items read them in their own.
        self.item_order = feedback.t_order.long()
        self.users, self.items = self.user.rows, self.user.indices.long()
        self.ratings = ratings.to(dtype)
        self.centre = float(model.centre)
        self.steps = 0
        self.drawing_cuts = False
        likelihood = model.likelihood
        self.place: Tensor | None = None
        if isinstance(likelihood, OrderedProbitLikelihood):
            middle = midway(likelihood.levels)
            self.place = torch.searchsorted(middle.to(ratings.device), ratings.double())
        self.learned_noise = isinstance(likelihood, NormalLikelihood) and likelihood.learned

    # ---------------------------------------------------------------- start

    def start(self, user_rows: Tensor, item_rows: Tensor, noise: float) -> ChainState:
        """Return a state at given rows (n, D), with hyperparameters at the priors' guesses."""
        sides = []
        for side, rows in (("user", user_rows), ("item", item_rows)):
            other = self.item.n_rows if side == "user" else self.user.n_rows
            factors, bias = self._priors(side)
            width = rows.shape[1]
            k = self.model.n_factors
            precision = torch.eye(k, dtype=torch.float64) / factors.scale**2
            bias_precision = None if bias is None else torch.tensor(1.0 / bias.scale**2, dtype=torch.float64)
            scale = 1.0 if self.model.implicit is None else self.model.implicit.scale
            sides.append(
                SideState(
                    rows=rows.to(self.dtype).clone(),
                    location=torch.zeros(width, dtype=self.dtype, device=rows.device),
                    precision=block_precision(precision, bias_precision).to(rows.device, self.dtype),
                    weights=torch.zeros(other, width, dtype=self.dtype, device=rows.device),
                    weights_precision=torch.full((width,), scale**-2, dtype=self.dtype, device=rows.device),
                    noise=torch.ones(len(rows), dtype=self.dtype, device=rows.device),
                    noise_shape=torch.tensor(10.0, dtype=torch.float64, device=rows.device),
                )
            )
        likelihood = self.model.likelihood
        cuts = torch.empty(0, dtype=torch.float64, device=user_rows.device)
        if isinstance(likelihood, OrderedProbitLikelihood):
            cuts = likelihood.cuts.detach().double().to(user_rows.device).clone()
        precision = torch.tensor(noise**-2, dtype=torch.float64, device=user_rows.device)
        return ChainState(sides[0], sides[1], precision, cuts)

    def to_probit(self, state: ChainState) -> None:
        """Put cuts at their most likely place for the state's predictors, before the first utilities."""
        assert self.place is not None
        eta = self.predictors(state).double()
        state.cuts = fit_cuts(state.cuts, eta, self._spread(state), self.place)
        self.drawing_cuts = True

    # ---------------------------------------------------------------- one sweep

    def sweep(self, state: ChainState, *, ordered: bool = True, weights_precision: bool = True) -> Tensor:
        """Do one sweep, in place, and return its utilities (the ratings, of a Normal likelihood).

        Parameters
        ----------
        state : ChainState
        ordered : bool
            Whether an ordered likelihood's cuts and utilities are drawn; a chain that starts far away begins
            with ratings as utilities (and a noise that is learned), which settles faster.
        weights_precision : bool
            Whether the precisions of implicit weights are drawn: not in the first sweeps, when the weights
            still stand at zero and their precision would run off.
        """
        if self.model.biases:
            self._translate(state)
        if self.scale_moves and ordered and self.place is not None:
            rescale_utilities(state, self.model, float(self.centre))
        utilities = self._utilities(state, ordered=ordered and self.place is not None)
        for side in ("user", "item"):
            self._draw_prior(side, state, weights_precision=weights_precision)
            self._draw_rows(side, state, utilities)
        return utilities

    def predictors(self, state: ChainState) -> Tensor:
        """Return eta of every training rating, in the order of the users."""
        return self.pair_predictors(state.user.rows, state.item.rows, self.users, self.items)

    def pair_predictors(self, user_rows: Tensor, item_rows: Tensor, users: Tensor, items: Tensor) -> Tensor:
        """Return eta of pairs for rows (n, D) of both sides."""
        k = self.model.n_factors
        found = user_rows.new_empty(len(users))
        for part in slices(len(users), _PAIRS):
            u, v = user_rows.index_select(0, users[part]), item_rows.index_select(0, items[part])
            eta = (u[:, :k] * v[:, :k]).sum(-1) + self.centre
            found[part] = eta + u[:, k] + v[:, k] if self.model.biases else eta
        return found

    def conditional_means(self, state: ChainState, utilities: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[users | items] and E[items | users] at the state, both (n, D)."""
        return (
            self._conditional("user", state, utilities).mean(self._prior_mean("user", state)),
            self._conditional("item", state, utilities).mean(self._prior_mean("item", state)),
        )

    # ---------------------------------------------------------------- the parts

    def _utilities(self, state: ChainState, *, ordered: bool) -> Tensor:
        eta = self.predictors(state)
        if ordered:
            assert self.place is not None
            state.cuts, drawn = draw_cuts_and_utilities(
                state.cuts, eta.double(), self._spread(state), self.place
            )
            utilities = drawn.to(self.dtype)
        else:
            utilities = self.ratings
        squares = (utilities - eta).double() ** 2
        if self.model.row_noise is not None:
            for side in self.model.row_noise.sides:
                self._draw_row_noise(side, state, squares)
        if self.learned_noise or not (ordered or self.place is None):
            shape = torch.tensor(
                NOISE_PRIOR[0] + 0.5 * len(squares), dtype=torch.float64, device=squares.device
            )
            total = (squares * self._multipliers(state)).sum()
            state.noise = draw_gamma(shape, NOISE_PRIOR[1] + 0.5 * total)
        return utilities

    def _draw_row_noise(self, side: str, state: ChainState, squares: Tensor) -> None:
        own, other = (state.user, state.item) if side == "user" else (state.item, state.user)
        rows, others = (self.users, self.items) if side == "user" else (self.items, self.users)
        entries = self.user if side == "user" else self.item
        weighted = squares * other.noise.double()[others] * state.noise
        totals = torch.zeros(len(own.rows), dtype=torch.float64, device=squares.device)
        totals.index_add_(0, rows, weighted)
        counts = entries.indptr.diff().double()
        own.noise_shape = draw_noise_shape(own.noise.double(), own.noise_shape)
        own.noise = draw_row_noise(counts, totals, own.noise_shape).to(self.dtype)

    def _multipliers(self, state: ChainState) -> Tensor:
        return state.user.noise.double()[self.users] * state.item.noise.double()[self.items]

    def _spread(self, state: ChainState) -> Tensor:
        """Return each utility's standard deviation, float64."""
        return (state.noise * self._multipliers(state)).rsqrt()

    def _priors(self, side: str) -> tuple[NormalWishartPrior, NormalWishartPrior | None]:
        model = self.model
        factors, bias = (
            (model.user_prior, model.user_bias_prior)
            if side == "user"
            else (model.item_prior, model.item_bias_prior)
        )
        assert isinstance(factors, NormalWishartPrior)
        assert bias is None or isinstance(bias, NormalWishartPrior)
        return factors, bias

    def _implicit_means(self, side: str, state: ChainState) -> Tensor:
        own, entries = (state.user, self.user) if side == "user" else (state.item, self.item)
        return torch.zeros_like(own.rows) if self.model.implicit is None else entries.means(own.weights)

    def _prior_mean(self, side: str, state: ChainState) -> Tensor:
        own = state.user if side == "user" else state.item
        return self._implicit_means(side, state) + own.location

    def _translate(self, state: ChainState) -> None:
        (user, user_bias), (item, item_bias) = self._priors("user"), self._priors("item")
        assert user_bias is not None
        assert item_bias is not None
        shift_biases(state, (user_bias.kappa, item_bias.kappa))
        shift_factors(state.item, state.user, item.kappa, self._prior_mean("user", state)[:, -1])
        shift_factors(state.user, state.item, user.kappa, self._prior_mean("item", state)[:, -1])

    def _draw_prior(self, side: str, state: ChainState, *, weights_precision: bool) -> None:
        # The location is drawn here only for the precision's sake, and anew with the rows integrated out.
        own = state.user if side == "user" else state.item
        about = (own.rows - self._implicit_means(side, state)).double()
        factors, bias = self._priors(side)
        k = self.model.n_factors
        location, precision = draw_normal_wishart(about[:, :k], factors.scale, factors.kappa)
        bias_precision = None
        if bias is not None:
            bias_location, bias_precision = draw_normal_gamma(about[:, k], bias.scale, bias.kappa)
            location = torch.cat([location, bias_location.reshape(1)])
        own.location = location.to(self.dtype)
        own.precision = block_precision(precision, bias_precision).to(self.dtype)
        if self.model.implicit is not None and weights_precision:
            drawn = draw_weights_precision(own.weights.double(), self.model.implicit.scale)
            own.weights_precision = drawn.to(self.dtype)

    def _features(self, side: str, state: ChainState) -> Tensor:
        """Return the other side's f = [v, 1], (n_other, D)."""
        other = state.item if side == "user" else state.user
        if not self.model.biases:
            return other.rows
        features = other.rows.clone()
        features[:, -1] = 1.0
        return features

    def _conditional(self, side: str, state: ChainState, utilities: Tensor) -> Conditional | FewConditional:
        own, other = (state.user, state.item) if side == "user" else (state.item, state.user)
        entries = self.user if side == "user" else self.item
        if side == "item":
            utilities = utilities[self.item_order]
        features = self._features(side, state)
        weighted = features * other.noise.unsqueeze(-1)
        offset = entries.indices.long()
        target = utilities - self.centre
        if self.model.biases:
            target = target - other.rows[:, -1][offset]
        level = (own.noise * state.noise.to(self.dtype)).unsqueeze(-1)
        width = features.shape[1]
        linear = entries.sum(weighted, target) * level
        if self.plans:
            return self.plans[side][0].conditional(own.precision, features, other.noise, level, linear)
        products = outer_products(features) * other.noise.unsqueeze(-1)
        information = (entries.sum(products) * level).view(-1, width, width)
        return Conditional.of(own.precision, information, linear)

    def _draw_rows(self, side: str, state: ChainState, utilities: Tensor) -> None:
        own = state.user if side == "user" else state.item
        conditional = self._conditional(side, state, utilities)
        self._draw_means(side, state, conditional)
        mean = conditional.mean(self._prior_mean(side, state))
        own.rows = mean + conditional.spread(torch.randn_like(mean))

    def _location_precision(self, side: str, precision: Tensor) -> Tensor:
        """Return the prior precision of a side's location, (D, D)."""
        factors, bias = self._priors(side)
        kappas = torch.full((len(precision),), factors.kappa, dtype=self.dtype, device=precision.device)
        if bias is not None:
            kappas[-1] = bias.kappa
        return precision * kappas  # block-diagonal, so that rows and columns have the same kappa

    def _information(self, side: str, conditional: Conditional | FewConditional) -> Information:
        """Return what each row's ratings say of its prior mean."""
        if isinstance(conditional, FewConditional):
            return FewInformation.of(self.plans[side][1], conditional)
        return DenseInformation.of(self.user if side == "user" else self.item, conditional)

    def _draw_means(self, side: str, state: ChainState, conditional: Conditional | FewConditional) -> None:
        """Draw location and implicit weights given utilities and the other side, rows integrated out.

        The location is the weight of one more column that every row has, scaled by the root of the number
        of rows as popular columns are.
        """
        own, other = (state.user, state.item) if side == "user" else (state.item, state.user)
        entries = self.user if side == "user" else self.item
        prior = own.precision
        information = self._information(side, conditional)
        # Noise with covariance G, from noise of the prior (a) and of the ratings (c), without factorising G:
        # a - Lambda P^-1 (a + c) has it, as Lambda P^-1 S = G.
        a = torch.randn_like(own.rows) @ torch.linalg.cholesky(prior).mT
        level = (own.noise * state.noise.to(self.dtype)).sqrt().unsqueeze(-1)
        features = self._features(side, state) * other.noise.sqrt().unsqueeze(-1)
        epsilon = torch.randn(len(entries.rows), dtype=self.dtype, device=prior.device)
        c = entries.sum(features, epsilon) * level
        said = conditional.solve(conditional.linear - a - c) @ prior + a
        n = len(own.rows)
        location_prior = self._location_precision(side, prior) / n
        location_noise = torch.linalg.cholesky(location_prior) @ torch.randn_like(own.location)
        location_block = information.total() / n + location_prior

        def back(rows: Tensor) -> Tensor:
            return rows.sum(0, keepdim=True) / math.sqrt(n)

        if self.model.implicit is None:
            solved = torch.linalg.solve(location_block, back(said)[0] + location_noise)
            own.location = solved / math.sqrt(n)
            return

        weights_noise = own.weights_precision.sqrt() * torch.randn_like(own.weights)
        target = torch.cat([entries.means_back(said) + weights_noise, back(said) + location_noise])

        def operator(joined: Tensor) -> Tensor:
            weights, location = joined[:-1], joined[-1:]
            means = entries.means(weights) + location / math.sqrt(n)
            image = information.apply(means)
            return torch.cat(
                [
                    entries.means_back(image) + own.weights_precision * weights,
                    back(image) + location @ location_prior,
                ]
            )

        blocks = information.block_solver(own.weights_precision, location_block)
        coarse = self.coarse[side]
        coarse_root = coarse.factor(information, own.weights_precision, location_prior)

        def precondition(left: Tensor) -> Tensor:
            return blocks(left) + coarse.solve(left, coarse_root)

        joined, steps, _ = conjugate_gradient(
            operator,
            precondition,
            target,
            torch.cat([own.weights, own.location.unsqueeze(0) * math.sqrt(n)]),
            tolerance=self.tolerance,
            max_steps=self.max_steps,
        )
        own.weights, own.location = joined[:-1].contiguous(), joined[-1] / math.sqrt(n)
        self.steps += steps


def seed_of(seed: int, sweep: int) -> int:
    """Return the seed of a sweep's generator: everything random in it follows from these two numbers."""
    return int(np.random.SeedSequence([seed, 0x61BB5, sweep]).generate_state(1)[0])
