r"""Blocked Gibbs sweeps: every row of a side at once, implicit weights with the rows integrated out.

The model, in the symbols of `docs/mathematics.md`, with the utilities z that `Utilities` has:

.. math::

   z_{ij} \sim N\left(u_i \cdot v_j + \mu + b_i + c_j, \frac{1}{\tau w_i w'_j}\right), \qquad
   u_i \sim N(m_i, \Lambda^{-1}), \qquad m_i = \mu_u + n_i^{-1/2} \sum_j y_j,

and the same for the items. `Sweeps.sweep` is the list of the updates, each exact given all else: shifts and
scales that no rating sees, utilities, amplitudes and noise, then for either side the prior's precision, its
location and implicit weights together **with the rows integrated out** (`collapsed_means`), and the rows
(`pyro_bmf.methods.kernel`), overrelaxed: what a row is apart from its conditional mean does not depend on
location and weights, so that it may be kept in part, with the other sign, whatever these were.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...estimate import DENSE_CELLS
from ...model import FactorizationModel
from ...model.feedback import Feedback
from ...model.sides import SIDES, Side, Sides
from ...numerics import factorise, room
from ...numerics.chunks import chunks
from ...numerics.conjugate_draws import draw_gamma
from ...numerics.room import cells_on
from ...numerics.segment_sums import segment_sum
from ..kernel import Entries
from ..recorded_utilities import UtilityDraws
from ..recording import NOT_RECORDED, Looks, Recording
from .chain_state import START_WIDTH, ChainState, SideState, block_precision, start_precision
from .collapsed_means import MeansSystem, Solver
from .hyper_draws import draw_multipliers, draw_noise_spreads, look_at_shapes, shift_noise
from .known_parts import conjugate_priors, latent_utilities
from .mean_information import DenseRows, FewRows, GivenOther, RowsOfSide
from .moves import scale_moves
from .moves.amplitude_moves import draw_amplitudes
from .moves.shift_moves import rescale_factors, shift_biases, shift_factors, with_cuts_at
from .side_draws import BegunSide, SideDraws
from .weights_scale import rescale_weights

#: Of the prior of a learned noise's precision: Gamma(shape, rate).
NOISE_PRIOR = (1.0, 1.0)
#: Priors of implicit weights begin so many times as wide as their guess.
WEIGHTS_START_WIDTH = 1.5
#: Numbers of pairs' rows that are read at once where predictors are made.
_CELLS = 800_000


class Sweeps:
    """Gibbs sweeps of one model over one set of training ratings.

    Parameters
    ----------
    model : FactorizationModel
        Whose priors are conjugate and whose likelihood has utilities (`check_gibbs`); started.
    feedback : Feedback
        Users' training ratings, raw minus nothing: `ratings` are given apart.
    ratings : Tensor, shape (nnz,)
        Raw ratings in the order of `feedback`.
    dtype : torch.dtype
        Of the rows; hyperparameters and utilities are float64.
    solver : Solver, optional
        Tolerance and steps of the conjugate gradients.
    scale_moves : bool
        Whether shift and scale of latent utilities are drawn in each sweep (`scale_moves`).
    dense_cells : int
        Rows of the larger side times D squared above which rows with few ratings are of low rank
        (`pyro_bmf.methods.few_entries`); they never are with a `mask`.
    mask : Feedback, optional
        Users' pairs of the implicit feedback, where these are not the rated ones.
    recording : Recording
        Of what is done again in every sweep.
    """

    def __init__(
        self,
        model: FactorizationModel,
        feedback: Feedback,
        ratings: Tensor,
        *,
        dtype: torch.dtype = torch.float32,
        solver: Solver | None = None,
        scale_moves: bool = True,
        dense_cells: int = DENSE_CELLS,
        mask: Feedback | None = None,
        recording: Recording = NOT_RECORDED,
    ) -> None:
        self.model, self.dtype, self.scale_moves = model, dtype, scale_moves
        self.priors, self.utilities = conjugate_priors(model), latent_utilities(model)
        users, items = Entries.of(feedback, dtype), Entries.of_transpose(feedback, dtype)
        self.entries = self.mask = Sides(users, items)
        if mask is not None:
            self.mask = Sides(Entries.of(mask, dtype), Entries.of_transpose(mask, dtype))
        width = model.n_factors + model.biases
        few = mask is None and max(users.n_rows, items.n_rows) * width**2 > dense_cells
        self.rows_of: Sides[RowsOfSide] = (
            Sides(FewRows.build(users, width), FewRows.build(items, width))
            if few
            else Sides(DenseRows(users, self.mask.user), DenseRows(items, self.mask.item))
        )
        self.means = Sides(*(MeansSystem(own, solver, recording) for _, own in self.mask.by_side()))
        self.side_draws = Sides(*(SideDraws(own, model, recording, few) for _, own in self.priors.by_side()))
        # Utilities are kept in the users' order; items read them in their own.
        self.item_order = feedback.t_order
        self.pairs = Sides(users.rows, users.indices)
        self.segments = Sides(users.segments, feedback.column_segments)
        self.ratings = ratings.to(dtype)
        self.observed = self.utilities.observe(ratings)
        self.draws, self.looks = UtilityDraws(self.utilities, recording), Looks(recording)
        self.centre = float(model.centre)
        self.start_cuts = self.utilities.start_cuts().to(ratings.device)
        self.drawing_cuts = False

    # ---------------------------------------------------------------- start

    def start(self, users: Tensor, items: Tensor, noise_sd: float, about: float | None = None) -> ChainState:
        """Return a state at given rows (n, D), with factors' priors by this noise, or by one `about` it."""
        device, rows, k = users.device, Sides(users, items), self.model.n_factors
        implicit = 1.0 if self.model.implicit is None else self.model.implicit.scale

        def side_state(side: Side) -> SideState:
            own, priors, width = rows.of(side), self.priors.of(side), users.shape[1]
            like: dict[str, Any] = {"dtype": self.dtype, "device": device}
            guess = priors.factors.guess(k)
            precision = start_precision(about or noise_sd, self.entries.user, k, guess)
            bias = None
            if priors.bias is not None:
                bias = torch.tensor((START_WIDTH * priors.bias.guess(None)) ** -2, dtype=torch.float64)
            return SideState(
                rows=own.to(self.dtype).clone(),
                location=torch.zeros(width, **like),
                precision=block_precision(precision, bias).to(device, self.dtype),
                weights=torch.zeros(len(rows.opposite(side)), width, **like),
                weights_precision=torch.full((width,), (WEIGHTS_START_WIDTH * implicit) ** -2, **like),
                row_precision=torch.ones(len(own), **like),
                row_precision_shape=torch.tensor(10.0, dtype=torch.float64, device=device),
            )

        noise_precision = torch.tensor(noise_sd**-2, dtype=torch.float64, device=device)
        return ChainState(side_state("user"), side_state("item"), noise_precision, self.start_cuts)

    def begin_cuts(self, state: ChainState) -> None:
        """Begin with latent utilities: at the likelihood's own spread, with cuts at their most likely."""
        self.at_own_spread(state)
        eta = self.predictors(state).double() - self.centre
        start = self.start_cuts.to(eta) - self.centre
        cuts = self.utilities.fit_cuts(start, eta, self._noise_sd(state), self.observed)
        state.cuts = cuts + self.centre
        self.drawing_cuts = True

    def at_own_spread(self, state: ChainState) -> None:
        """Bring latent utilities of any spread to the likelihood's own, with all that predicts them."""
        spread = torch.as_tensor(self.utilities.noise_sd).to(state.noise_precision)
        scale_moves.scale_by(state, self.model, spread * state.noise_precision.sqrt(), self.centre)
        state.noise_precision = spread**-2

    # ---------------------------------------------------------------- one sweep

    def sweep(
        self, state: ChainState, *, latent: bool = True, precisions: bool = True, overrelaxation: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Do one sweep, in place, and return its utilities, and E[items | users] (n, D) where it ends.

        Parameters
        ----------
        state : ChainState
        latent : bool
            Whether utilities that are latent are drawn; a chain that starts far away begins with ratings as
            utilities (and a noise that is learned), which settles faster.
        precisions : bool
            Whether the precisions of rows and of implicit weights are drawn: not in the first sweeps of a
            chain that starts with small rows and no weights, which such precisions would keep small.
        overrelaxation : float
            Share, below 1, of what rows were apart from their conditional means that they will be on the
            other side of them: `Gibbs.overrelaxation`.
        """
        latent = latent and self.utilities.latent
        self._draw_shifts(state, scales=precisions)  # b against c; V against b; U against c; U against V
        self._draw_scale(state, latent=latent)  # d, g | mu, Lambda, lambda, w, cuts
        eta = self.predictors(state)
        z, eta = self._draw_utilities(state, eta, latent=latent)  # a, w; cuts, g | U, V; z | cuts, U, V, x
        z, eta = self._draw_stretch(state, z, eta, latent=latent)  # g | z - eta, Lambda, lambda, cuts
        if precisions:
            eta = self._draw_amplitudes(state, z, eta)  # b, c, each factor; Lambda / g^2 | z
        self._draw_noise(state, z - eta, latent=latent)  # a, w | z, U, V; a', w' | z, U, V; tau | z, U, V
        for side in SIDES:
            implicit, of_side = self.implicit_means(side, state), self.side_draws.of(side)
            if precisions:
                of_side.draw_priors(state.of(side), implicit)  # mu, Lambda | U, Y; lambda | Y
            given = state, z, implicit if overrelaxation or room.waits(z.device) else None
            begun = of_side.begin(partial(self.begin_side, side), *given)  # p(U | V, z)
            self._draw_means(side, state, begun, rescaled=precisions)  # mu, Y; lambda, Y | V, z
            mean = self._draw_rows(side, state, begun, overrelaxation)  # U | mu, Y, V, z
            del begun  # the other side's takes as much memory
        return z, mean

    def predictors(self, state: ChainState) -> Tensor:
        """Return eta of every training rating, in the order of the users."""
        return self.pair_predictors(Sides(state.user.rows, state.item.rows), self.pairs)

    def pair_predictors(self, rows: Sides[Tensor], pairs: Sides[Tensor]) -> Tensor:
        """Return eta of pairs, (n,), for rows (n_rows, D) of both sides."""
        k = self.model.n_factors
        found = rows.user.new_empty(len(pairs.user))
        for part in chunks(len(found), cells_on(found.device, _CELLS) // rows.user.shape[1]):
            u = rows.user.index_select(0, pairs.user[part])
            v = rows.item.index_select(0, pairs.item[part])
            eta = (u[:, :k] * v[:, :k]).sum(-1) + self.centre
            found[part] = eta + u[:, k] + v[:, k] if self.model.biases else eta
        return found

    def conditional_mean(self, side: Side, state: ChainState, utilities: Tensor) -> Tensor:
        """Return E[users | items], or E[items | users], at the state, (n, D)."""
        return self.given_other(side, state, utilities).conditional.mean(self.prior_mean(side, state))

    def anchored(self, state: ChainState, means: Sides[Tensor]) -> tuple[ChainState, Sides[Tensor]]:
        """Return a state and its conditional means with the cuts' mean where it started.

        Cuts and users' biases rise and fall together, of which no rating says anything (`shift_cuts`): draws
        that are kept all stand at one place of it, so that their averages are of one and the same cuts.
        """
        if not (self.utilities.n_cuts and self.drawing_cuts and self.model.biases):
            return state, means
        return with_cuts_at(state, means, self.start_cuts.mean())

    def given_other(self, side: Side, state: ChainState, utilities: Tensor) -> GivenOther:
        """Return the conditional of one side's rows given the other side and the utilities."""
        own, other, entries = state.of(side), state.opposite(side), self.entries.of(side)
        target = self._in_order(side, utilities) - self.centre
        if self.model.biases:
            target = target - other.rows[:, -1].index_select(0, entries.indices)
        features, precision = self.features(side, state), self._row_precision(side, state)
        linear = entries.sum(features * other.row_precision.unsqueeze(-1), target) * precision
        return self.rows_of.of(side).given(own.precision, features, other.row_precision, precision, linear)

    def prior_mean(self, side: Side, state: ChainState) -> Tensor:
        """Return m_i of every row of a side, (n, D)."""
        return self.implicit_means(side, state) + state.of(side).location

    def implicit_means(self, side: Side, state: ChainState) -> Tensor:
        """Return what implicit feedback adds to the prior mean of every row, (n, D)."""
        own = state.of(side)
        if self.model.implicit is None:
            return torch.zeros_like(own.rows)
        return self.mask.of(side).means(own.weights)

    def features(self, side: Side, state: ChainState) -> Tensor:
        """Return the other side's f = [v, 1], (n_other, D)."""
        other = state.opposite(side)
        if not self.model.biases:
            return other.rows
        features = other.rows.clone()
        features[:, -1].fill_(1.0)
        return features

    # ---------------------------------------------------------------- the updates

    def _draw_shifts(self, state: ChainState, *, scales: bool) -> None:
        """Draw the shifts along which no predictor changes, and, it may be, `scales` (`shift_moves`)."""
        user, item, k = self.priors.user, self.priors.item, self.model.n_factors
        if scales:
            rescale_factors(state, k, Sides(user.factors, item.factors), self.model.implicit)
        if user.bias is None or item.bias is None:
            return
        shift_biases(state, (user.bias.kappa, item.bias.kappa))
        shift_factors(state.item, state.user, item.factors.kappa, self.prior_mean("user", state)[:, -1])
        shift_factors(state.user, state.item, user.factors.kappa, self.prior_mean("item", state)[:, -1])

    def _draw_scale(self, state: ChainState, *, latent: bool) -> None:
        """Draw shift and scale of latent utilities, along which no probability changes (`scale_moves`)."""
        if self.scale_moves and latent:
            bias = self.priors.user.bias
            if bias is not None:
                scale_moves.shift_cuts(state, bias.kappa, self.centre, self.utilities.cut_density)
            scale_moves.rescale_noise(state, self.model, self.centre, self.utilities.cut_density, self.looks)

    def _draw_utilities(self, state: ChainState, eta: Tensor, *, latent: bool) -> tuple[Tensor, Tensor]:
        """Draw noise's spreads, then cuts and the scale of eta, without utilities; then these: z, eta."""
        if not latent:
            return self.ratings, eta
        about = state.cuts - self.centre, eta.double() - self.centre
        if self.scale_moves:
            of = self.model.noisy_sides, self.pairs, self.draws.draw_spreads
            draw_noise_spreads(state, *of, *about, self._noise_sd(state), self.observed)
        stretch = scale_moves.stretch_of(state, self.model) if self.scale_moves else None
        cuts, drawn, factor = self.draws.draw(*about, self._noise_sd(state), self.observed, stretch)
        state.cuts = cuts + self.centre
        scale_moves.scale_predictors(state, self.model, factor)
        return (drawn + self.centre).to(self.dtype), self.centre + factor.to(eta) * (eta - self.centre)

    def _draw_stretch(
        self, state: ChainState, z: Tensor, eta: Tensor, *, latent: bool
    ) -> tuple[Tensor, Tensor]:
        """Draw the scale of latent utilities with what predicts them (`scale_moves`); return both anew."""
        if not (self.scale_moves and latent):
            return z, eta
        squares = self._pair_precision(state).mul_((z - eta).double().square_()).sum() * state.noise_precision
        of = self.model, self.centre, self.utilities.cut_density, squares, len(z), self.looks
        factor = scale_moves.rescale_utilities(state, *of).to(z)
        return self.centre + factor * (z - self.centre), self.centre + factor * (eta - self.centre)

    def _draw_amplitudes(self, state: ChainState, z: Tensor, eta: Tensor) -> Tensor:
        """Draw how large factors and biases are, with their priors (`amplitude_moves`); return eta anew."""
        precision = self._pair_precision(state).mul_(state.noise_precision)
        of = self.priors, self.model.implicit, self.pairs
        draw_amplitudes(state, *of, (z - eta).double(), precision, self.looks)
        return self.predictors(state)

    def _draw_noise(self, state: ChainState, residuals: Tensor, *, latent: bool) -> None:
        """Draw the rows' multipliers of the noise's precision, and the precision where it is unknown."""
        squares = residuals.double().square()
        for side in self.model.noisy_sides:
            others = state.opposite(side).row_precision.double().index_select(0, self.pairs.opposite(side))
            totals = segment_sum(others.mul_(squares).mul_(state.noise_precision), self.segments.of(side))
            look = partial(self.looks, f"Densities of {side}s' noise", look_at_shapes)
            draw_multipliers(state.of(side), self.entries.of(side).indptr.diff().double(), totals, look)
        # Latent utilities have a fixed spread, but not while ratings stand in for them.
        if self.utilities.learned_noise or (self.utilities.latent and not latent):
            shape = squares.new_full((), NOISE_PRIOR[0] + 0.5 * len(squares))
            total = self._pair_precision(state).mul_(squares).sum()
            state.noise_precision = draw_gamma(shape, NOISE_PRIOR[1] + 0.5 * total)
            for side in self.model.noisy_sides:
                shift_noise(state, state.of(side), NOISE_PRIOR)

    def begin_side(
        self, side: Side, state: ChainState, utilities: Tensor, implicit: Tensor | None = None
    ) -> BegunSide:
        """Return the conditional of rows, the system of their means, and, given `implicit_means`, `apart`."""
        own, entries, prior = state.of(side), self.entries.of(side), state.of(side).precision
        given = self.given_other(side, state, utilities)
        begun = BegunSide(given.conditional)
        if implicit is not None:
            begun.apart = own.rows - begun.conditional.mean(implicit + own.location)
        # Noise with covariance G, from that of the prior (a) and of the ratings (c), without factorising G:
        # a - Lambda P^-1 (a + c) has it, as Lambda P^-1 S = G.
        a = torch.randn_like(own.rows) @ factorise.cholesky(prior).mT
        features = self.features(side, state) * state.opposite(side).row_precision.sqrt().unsqueeze(-1)
        epsilon = torch.randn(len(entries.rows), dtype=self.dtype, device=prior.device)
        c = entries.sum(features, epsilon) * self._row_precision(side, state).sqrt()
        said = given.conditional.solve(given.conditional.linear - a - c) @ prior + a
        begun.information, means = given.information(), self.means.of(side)
        asked = own, begun.information, said, self.priors.of(side).location_precision(prior)
        if self.model.implicit is not None:
            return replace(begun, system=means.begin(*asked))
        return replace(begun, location=means.draw_location(*asked))

    def _draw_means(self, side: Side, state: ChainState, begun: BegunSide, *, rescaled: bool) -> None:
        """Draw location and implicit weights, then the scales of these, rows integrated out."""
        own, system, information = state.of(side), begun.system, begun.information
        begun.system = begun.information = None
        if begun.location is not None:
            own.location = begun.location.clone()
        if system is None or information is None:
            return
        self.means.of(side).finish(own, system)
        if rescaled:
            said = begun.conditional.solve(begun.conditional.linear) @ own.precision
            tables = self.side_draws.of(side).scale_tables
            rescale_weights(own, tables(own, self.implicit_means(side, state), said, information))

    def _draw_rows(self, side: Side, state: ChainState, begun: BegunSide, share: float) -> Tensor:
        """Draw a side's rows given all else, or, overrelaxed, what they were apart; return their means."""
        mean = begun.conditional.mean(self.prior_mean(side, state))
        drawn = begun.conditional.spread(torch.randn_like(mean))
        if begun.apart is not None:
            drawn = (1.0 - share**2) ** 0.5 * drawn - share * begun.apart
        state.of(side).rows = mean + drawn
        return mean

    # ---------------------------------------------------------------- what they share

    def _in_order(self, side: Side, utilities: Tensor) -> Tensor:
        """Return utilities in the order of a side's entries."""
        return utilities if side == "user" else utilities.index_select(0, self.item_order)

    def _row_precision(self, side: Side, state: ChainState) -> Tensor:
        """Return tau w_i, (n, 1)."""
        return (state.of(side).row_precision * state.noise_precision.to(self.dtype)).unsqueeze(-1)

    def _pair_precision(self, state: ChainState, pairs: Sides[Tensor] | None = None) -> Tensor:
        """Return w_i w'_j of pairs, of every rating when not given, float64."""
        at = self.pairs if pairs is None else pairs
        user, item = state.user.row_precision.double(), state.item.row_precision.double()
        return user.index_select(0, at.user).mul_(item.index_select(0, at.item))

    def pair_noise_factor(self, state: ChainState, pairs: Sides[Tensor]) -> Tensor:
        """Return what the rows of pairs multiply the noise's standard deviation by, (n,), float64."""
        return self._pair_precision(state, pairs).rsqrt_()

    def _noise_sd(self, state: ChainState) -> Tensor:
        """Return the standard deviation of each utility, float64."""
        return self._pair_precision(state).mul_(state.noise_precision).rsqrt_()
