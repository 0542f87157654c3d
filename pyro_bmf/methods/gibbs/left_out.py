r"""Training ratings left out of a chain, each with its own rows integrated out.

A draw s of everything, rows and all else (:math:`\theta_s`), has seen the rating :math:`x_{ij}`. Its weight
:math:`1 / p(x_{ij} \mid u_i^{(s)}, v_j^{(s)}, \theta_s)` takes the rating away again, but such weights are
wild: both rows have followed the rating. A row given the other side is Normal, though (its sweeps draw it so:
`pyro_bmf.methods.kernel`), and can be integrated out. Without :math:`x_{ij}` its two rows no longer meet:
given all *other* rows, and the utilities :math:`z_{-ij}` of all other ratings, they are independent Normals.
So a draw's weight is

.. math:: \frac{1}{p(x_{ij} \mid U_{-i}^{(s)}, V_{-j}^{(s)}, z_{-ij}^{(s)}, \theta_s)}

(integrated importance sampling: Vehtari, Mononen, Tolvanen, Sivula and Winther 2016, JMLR 17(103)). No row is
factorised without one of its ratings. With :math:`u_i \mid z_i, V \sim N(\hat u, P^{-1})`,
:math:`t = \tau w_i w'_j`, :math:`f_j = (v_j, 1)`, :math:`\bar z` the utility less all that is not the row's,
:math:`a = P^{-1} f_j` and the leverage :math:`h = t f_j^T a`, the row without the rating is

.. math::

   u_i \mid z_{i,-j}, V_{-j} \sim N\left(\hat u + \frac{t}{1 - h} (f_j^T \hat u - \bar z) a, \;
   P^{-1} + \frac{t}{1 - h} a a^T\right),

and likewise the other row. The predictor is the product of the two, whose mean and variance are exact,

.. math:: \mathrm{var}(u \cdot v) = \hat v^T C_u \hat v + \hat u^T C_v \hat u + \mathrm{tr}(C_u C_v);

it is taken for Normal, and the utility has :math:`1 / t` more variance.

A chain keeps rows, hyperparameters and cut points. The utilities, and the rows' multipliers w of the noise's
precision, are drawn anew given these: by some Gibbs steps, from where those at the draw before ended. What is
left of the weights' spread is mostly theirs, so each draw of the chain is taken several times, with further
draws of them: that they depend on each other shows in their efficiency, as of any chain's draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...model import FactorizationModel
from ...model.feedback import Feedback
from ...model.row_draws import RowDraws, working_dtype
from ...model.sides import SIDES, Side, Sides
from ...model.standard_units import standardised
from ...numerics.chunks import chunks
from ...numerics.generators import own_generator
from ...numerics.normal_cells import midway
from ...numerics.segment_sums import segment_sum
from .chain_state import ChainState, SideState
from .hyper_draws import draw_row_noise
from .sweeps import Sweeps

#: How often each draw of the chain is taken at least, and how many draws that is to come to at least.
REPEATS, LEAST_DRAWS = 5, 600
#: Gibbs steps of utilities and multipliers at the chain's first draw, at each draw after it, and in between.
FIRST_STEPS, STEPS, REPEAT_STEPS = 12, 4, 2
#: Ratings whose rows' covariances are gathered at once.
_RATINGS = 4_000
#: Beyond this leverage a rating is all that a row knows in its direction; what is left has no digits.
_MOST_LEVERAGE = 1.0 - 1e-7


class SideHyper(Protocol):
    """What a chain kept of the prior of one side's rows, by draw: see `guide.ChainSide`."""

    location: Tensor
    precision: Tensor
    weights: Tensor
    row_precision_shape: Tensor


class ChainHyper(Protocol):
    """What a chain kept beside its rows, by draw: see `guide.ChainGuide`."""

    noise_precision: Tensor
    cuts: Tensor

    def of(self, side: Side) -> SideHyper:
        """Return a side's own."""


class ChainLeftOut:
    """Chances of a chain's training ratings without themselves: a `fitted.LeftOut`.

    Parameters
    ----------
    model : FactorizationModel
    rows : Sides of RowDraws
        All that the chain kept.
    hyper : ChainHyper
    feedback : Feedback
        Users' training ratings; values less the model's centre.
    levels : Tensor or None, shape (n_levels,)
        Of a discrete scale, in the unit of the ratings.
    n_draws : int
        How many of the draws to take.
    seed : int
    """

    def __init__(
        self,
        model: FactorizationModel,
        rows: Sides[RowDraws],
        hyper: ChainHyper,
        feedback: Feedback,
        levels: Tensor | None,
        *,
        n_draws: int,
        seed: int,
    ) -> None:
        self.model, self.rows, self.hyper = model, rows, hyper
        self.n_draws, self.seed = n_draws, seed
        self.repeats = max(REPEATS, -(-LEAST_DRAWS // n_draws))
        ratings = feedback.values + model.centre.to(feedback.values)
        dtype = working_dtype(rows.user.draws)
        self.sweeps = Sweeps(model, feedback, ratings, dtype=dtype)
        self.centre = self.sweeps.centre
        self.levels: Tensor | None = None
        if levels is not None and not self.sweeps.utilities.latent:
            # Ratings are Normal to the chain, while what is scored is the probability of a level.
            self.levels = levels.double()
            middles = midway(standardised(self.levels, model.units))
            self.places = torch.searchsorted(middles, ratings.double())

    @property
    def width(self) -> int:
        """Number of draws that chances are of."""
        return self.n_draws * self.repeats

    @torch.no_grad()
    def log_chances(
        self, ratings: Tensor, advance: Callable[[int], None] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return what each draw of the rest says of some training ratings; see `fitted.LeftOut`."""
        device = self.sweeps.ratings.device
        n, total = len(ratings), self.width
        found = torch.empty(total, n, dtype=self.sweeps.dtype, device=device)
        scored = None if self.levels is None else torch.empty_like(found)
        noise = self._mean_multipliers()
        with own_generator(device) as reseed:
            for draw in range(total):
                s, again = divmod(draw, self.repeats)
                if not again:
                    reseed(int(np.random.SeedSequence([self.seed, 0x100, s]).generate_state(1)[0]))
                state = self._state(s, noise)
                z = self._settle(state, REPEAT_STEPS if again else STEPS if s else FIRST_STEPS)
                noise = Sides(state.user.row_precision, state.item.row_precision)
                chances, levels = self._at(state, z, ratings)
                found[draw] = chances.to(found.dtype)
                if scored is not None and levels is not None:
                    scored[draw] = levels.to(found.dtype)
                if advance is not None:
                    advance((draw + 1) * n // total - draw * n // total)
        return found.T, None if scored is None else scored.T

    # ---------------------------------------------------------------- a draw's whole state

    def _mean_multipliers(self) -> Sides[Tensor]:
        """Return multipliers of the noise's precision to begin with: of the posterior means' of its root."""

        def of(rows: RowDraws) -> Tensor:
            if rows.noise_factor is None:
                return torch.ones(len(rows), dtype=self.sweeps.dtype, device=rows.device)
            return rows.noise_factor.to(self.sweeps.dtype) ** -2

        return Sides(of(self.rows.user), of(self.rows.item))

    def _state(self, s: int, noise: Sides[Tensor]) -> ChainState:
        """Return the chain's state at a draw, but for the multipliers, which are given."""
        dtype = self.sweeps.dtype

        def side_state(side: Side) -> SideState:
            own, drawn = self.hyper.of(side), self.rows.of(side).draws[:, s].to(dtype)
            return SideState(
                rows=drawn,
                location=own.location[s].to(dtype),
                precision=own.precision[s].to(dtype),
                weights=own.weights[s].to(dtype),
                weights_precision=torch.ones_like(drawn[0]),  # of which no conditional of a row knows
                row_precision=noise.of(side),
                row_precision_shape=own.row_precision_shape[s].double(),
            )

        cuts = self.hyper.cuts[s].double()
        return ChainState(
            side_state("user"), side_state("item"), self.hyper.noise_precision[s].double(), cuts
        )

    def _settle(self, state: ChainState, steps: int) -> Tensor:
        """Draw utilities and multipliers given all else, in turn; return the utilities."""
        sweeps, pairs = self.sweeps, self.sweeps.pairs
        noisy = self.model.noisy_sides
        eta, z = sweeps.predictors(state).double(), sweeps.ratings
        # Without multipliers utilities are drawn from their conditional, at once.
        for _ in range(steps if noisy else 1):
            if sweeps.utilities.latent:
                sd = (state.noise_precision * self._pair_multipliers(state)).rsqrt()
                cuts = state.cuts - self.centre
                drawn = sweeps.utilities.draw_given(cuts, eta - self.centre, sd, sweeps.observed)
                z = (drawn + self.centre).to(sweeps.dtype)
            squares = (z.double() - eta).square() * state.noise_precision
            for side in noisy:
                own = state.of(side)
                others = state.opposite(side).row_precision.double().index_select(0, pairs.opposite(side))
                totals = segment_sum(squares * others, sweeps.segments.of(side))
                counts = sweeps.entries.of(side).indptr.diff().double()
                own.row_precision = draw_row_noise(counts, totals, own.row_precision_shape).to(sweeps.dtype)
        return z

    def _pair_multipliers(self, state: ChainState) -> Tensor:
        """Return w_i w'_j of every rating, float64."""
        return self.sweeps.pair_noise_factor(state, self.sweeps.pairs) ** -2

    # ---------------------------------------------------------------- rows integrated out

    def _at(self, state: ChainState, z: Tensor, ratings: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the log-chances of some ratings at a state, their rows integrated out."""
        sweeps = self.sweeps
        rows = Sides(*(_Rows.of(sweeps, side, state, z) for side in SIDES))
        found = torch.empty(len(ratings), dtype=torch.float64, device=z.device)
        scored = None if self.levels is None else torch.empty_like(found)
        k, cuts = self.model.n_factors, state.cuts - self.centre
        for part in chunks(len(ratings), _RATINGS):
            at = ratings[part]
            pairs = Sides(sweeps.pairs.user[at], sweeps.pairs.item[at])
            precision = state.user.row_precision[pairs.user].double() * state.noise_precision
            precision *= state.item.row_precision[pairs.item].double()
            utility = z[at].double() - self.centre
            user = rows.user.without(pairs.user, pairs.item, precision, utility)
            item = rows.item.without(pairs.item, pairs.user, precision, utility)
            eta = (user.mean[:, :k] * item.mean[:, :k]).sum(-1)
            eta += (user.mean[:, k:] + item.mean[:, k:]).sum(-1)
            variance = user.form(item.features(k)) + item.form(user.features(k)) + _trace(user, item, k)
            sd = (variance + 1.0 / precision).sqrt()
            observed = sweeps.observed[at]
            if not sweeps.utilities.latent:
                observed = observed.double() - self.centre
            found[part] = sweeps.utilities.expect(cuts, eta, sd, observed)[1]
            if scored is not None and self.levels is not None:
                scored[part] = self._levels(eta + self.centre, sd, at)
        return found, scored

    def _levels(self, eta: Tensor, sd: Tensor, ratings: Tensor) -> Tensor:
        """Return the log-probability of the level of ratings that are Normal with these moments."""
        noise_sd, levels = self.model.likelihood.noise_sd, self.levels
        assert noise_sd is not None, "ratings that are their own utilities are Normal"
        assert levels is not None
        relative = sd / noise_sd.double()
        return self.model.likelihood.log_prob_observed(eta, self.places[ratings], levels, relative)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The conditionals of one side's rows given the other side, at a state.

    Attributes
    ----------
    means : Tensor, shape (n, D)
    covariances : Tensor, shape (n, D, D)
    features : Tensor, shape (n_other, D)
        Of the other side.
    offsets : Tensor, shape (n_other,)
        Biases of the other side.
    """

    means: Tensor
    covariances: Tensor
    features: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, sweeps: Sweeps, side: Side, state: ChainState, z: Tensor) -> _Rows:
        """Make them of the sweeps' own."""
        conditional = sweeps.given_other(side, state, z).conditional
        other = state.opposite(side).rows
        offsets = other[:, -1] if sweeps.model.biases else torch.zeros_like(other[:, 0])
        means = conditional.mean(sweeps.prior_mean(side, state))
        return cls(means, conditional.covariance(), sweeps.features(side, state), offsets)

    def without(self, rows: Tensor, columns: Tensor, precision: Tensor, utility: Tensor) -> _Without:
        """Return each rating's row without that rating."""
        f, mean, covariance = self.features[columns], self.means[rows].double(), self.covariances[rows]
        a = (covariance @ f.unsqueeze(-1)).squeeze(-1).double()
        leverage = (precision * (f * a).sum(-1)).clamp_max(_MOST_LEVERAGE)
        back = precision / (1.0 - leverage)
        gap = (f * mean).sum(-1) - (utility - self.offsets[columns].double())
        return _Without(mean + (back * gap).unsqueeze(-1) * a, covariance, a, back)


@dataclass(frozen=True, eq=False)
class _Without:
    """One row of each of some ratings, without the rating: Normals.

    Attributes
    ----------
    mean : Tensor, shape (n, D), float64
    covariance : Tensor, shape (n, D, D)
        C, with the rating.
    a : Tensor, shape (n, D), float64
    back : Tensor, shape (n,), float64
        Without it the covariance is C + back a a^T.
    """

    mean: Tensor
    covariance: Tensor
    a: Tensor
    back: Tensor

    def features(self, n_factors: int) -> Tensor:
        """Return the mean with a one in the place of the bias."""
        found = self.mean.clone()
        found[:, n_factors:] = 1.0
        return found

    def form(self, x: Tensor) -> Tensor:
        """Return x^T (C + back a a^T) x for (n, D): (n,), float64."""
        own = x.to(self.covariance.dtype)
        known = ((self.covariance @ own.unsqueeze(-1)).squeeze(-1) * own).sum(-1)
        return known.double() + self.back * (self.a * x).sum(-1).square()


def _trace(user: _Without, item: _Without, n_factors: int) -> Tensor:
    """Return tr(C_u C_v) over the factors of rows without their rating: (n,), float64."""
    k = n_factors
    known = (user.covariance[:, :k, :k] * item.covariance[:, :k, :k]).sum((1, 2)).double()
    for one, other in ((user, item), (item, user)):
        a = one.a[:, :k].to(other.covariance.dtype)
        form = ((other.covariance[:, :k, :k] @ a.unsqueeze(-1)).squeeze(-1) * a).sum(-1)
        known = known + one.back * form.double()
    both = (user.a[:, :k] * item.a[:, :k]).sum(-1).square()
    return known + user.back * item.back * both
