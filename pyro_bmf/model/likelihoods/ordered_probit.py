r"""The ordered probit: ratings as the cells of a Normal utility.

A rating is level k when a latent utility :math:`z \sim N(\eta, s^2)` falls between the cut points
:math:`c_{k-1}` and :math:`c_k`,

.. math:: P(x = l_k \mid \eta) = \Phi\left(\frac{c_k - \eta}{s}\right) - \Phi\left(\frac{c_{k-1} -
\eta}{s}\right),
          \qquad c_0 = -\infty, \; c_L = \infty.

Utility, predictor and cuts are in rating units: with s fixed, all L - 1 cuts are identified. Albert and Chib
(1993), doi 10.1080/01621459.1993.10476321.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyro
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from ...errors import SettingsError
from ...numerics.cuts.density import CutDensity
from ...numerics.cuts.draws import Drawn, about_rare_levels, draw_cuts_and_utilities, draw_utilities
from ...numerics.cuts.newton import cuts_ahead, fit_cuts
from ...numerics.cuts.noise_spread import NoisyRows, draw_spreads
from ...numerics.cuts.stretch import Stretch
from ...numerics.normal_cells import cell_ends, cell_probabilities, cell_probability, midway
from ...numerics.truncated_normal import truncated_mean, truncated_moments
from ..pair_terms import Relative
from ..standard_units import standardised
from .cut_prior import CutPrior
from .normal_utilities import Utilities
from .ordered import OrderedLikelihood
from .rating_levels import same_levels, variance_of_levels

_TINY = 1e-300
#: Spread of the cuts' prior, in standard deviations of a utility.
CUT_SPREAD = 2.5
#: How far cuts are expected to be from an even spacing, in the same.
CUT_BEND = 0.03


class OrderedProbit(TorchDistribution):
    """Distribution of a rating over `levels`, given its predictor, the cuts and the utility's spread.

    Parameters
    ----------
    eta : Tensor
        Predictors; their shape is the batch shape.
    cuts : Tensor, shape (n_levels - 1,) or (*batch, n_levels - 1)
        Ascending.
    scale : Tensor
        Standard deviation of the utility, broadcast over `eta`.
    levels : Tensor, shape (n_levels,)
        Ascending values of a rating.
    """

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own class attribute)

    def __init__(self, eta: Tensor, cuts: Tensor, scale: Tensor, levels: Tensor) -> None:
        self.eta, self.cuts, self.utility_scale, self.levels = eta, cuts, scale, levels
        super().__init__(eta.shape, torch.Size(), validate_args=False)

    @property
    def support(self) -> Any:
        """Real numbers: a rating off the levels is refused when the model is started."""
        return constraints.real

    def probabilities(self) -> Tensor:
        """Return P(level), shape (*batch, n_levels), float64."""
        return cell_probabilities(self.eta, self.utility_scale.expand_as(self.eta), self.cuts)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of ratings, of the batch's shape (or broadcast against it)."""
        middle = midway(self.levels)
        place = torch.searchsorted(middle.contiguous(), value.to(middle).contiguous())
        ends = cell_ends(self.eta.double(), self.utility_scale.double(), self.cuts.double(), place)
        result: Tensor = cell_probability(*ends).clamp_min(_TINY).log().to(self.eta.dtype)
        return result

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw ratings."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            noise = torch.randn(shape, dtype=self.eta.dtype, device=self.eta.device)
            utility = self.eta + self.utility_scale.to(self.eta) * noise
            place = (utility.unsqueeze(-1) > self.cuts.to(utility)).sum(-1)
            return self.levels.to(utility)[place]

    @property
    def mean(self) -> Tensor:
        """Mean rating."""
        return (self.probabilities() * self.levels.double()).sum(-1).to(self.eta.dtype)

    @property
    def variance(self) -> Tensor:
        """Variance of a rating."""
        share, levels = self.probabilities(), self.levels.double()
        mean = (share * levels).sum(-1)
        return variance_of_levels(share, levels, mean).to(self.eta.dtype)

    def expand(self, batch_shape: Any, _instance: Any = None) -> OrderedProbit:
        """Return the same distribution over a larger batch."""
        del _instance
        shape = torch.Size(batch_shape)
        cuts = self.cuts if self.cuts.dim() == 1 else self.cuts.expand(*shape, self.cuts.shape[-1])
        return OrderedProbit(self.eta.expand(shape), cuts, self.utility_scale, self.levels)


class OrderedProbitLikelihood(OrderedLikelihood):
    """Ratings on a discrete scale by an ordered probit with learned cut points.

    Parameters
    ----------
    levels : sequence of float
        The scale's levels, ascending; at least two.
    noise : float
        Standard deviation of the utility, in rating units: a convention that fixes the unit.
    cuts : {"shared", "user"}
        Whether users have cut points of their own, which shrink towards the shared ones.

    Raises
    ------
    SettingsError
        As `OrderedLikelihood`, or if `noise` is not positive.
    """

    density = "Phi((c_k - eta) / noise) - Phi((c_(k-1) - eta) / noise) for the k-th level"
    called = "ordered probit"
    utility_sd: Tensor

    def __init__(self, levels: Sequence[float], noise: float = 0.8, cuts: str = "shared") -> None:
        super().__init__(levels, cuts)
        if not (math.isfinite(noise) and noise > 0.0):
            raise SettingsError(f"noise is {noise!r}: give a positive number.")
        self.register_buffer("utility_sd", torch.tensor(float(noise), dtype=torch.float64))

    @property
    def noise_sd(self) -> Tensor:
        """Standard deviation of the utility, in rating units."""
        return self.utility_sd

    @torch.no_grad()
    def set_cuts(self, cuts: Tensor, noise: float | Tensor | None = None) -> None:
        """Put learned cuts, and the utility's spread, in place."""
        self.first_cut.copy_(cuts[0])
        self.log_gaps.copy_(cuts.diff().log())
        if noise is not None:
            self.utility_sd.copy_(torch.as_tensor(noise))

    def forward(self, eta: Tensor, relative: Relative | None = None) -> TorchDistribution:
        """Return the distribution of ratings."""
        return OrderedProbit(eta, self.pair_cuts(relative), self._scale(eta, relative), self.levels)

    @property
    def cut_density(self) -> CutDensity:
        """The prior density of the shared cut points about the centre."""
        noise_sd = float(self.utility_sd)
        return CutDensity(midway(self.levels).tolist(), CUT_SPREAD * noise_sd, CUT_BEND * noise_sd)

    def sampled(self, centre: Tensor) -> Callable[..., TorchDistribution]:
        """Sample the shared cut points, where they are `drawn`; otherwise they are parameters."""
        if not self.drawn:
            return self
        prior = CutPrior(self.cut_density, centre.double())
        return partial(self._with_cuts, pyro.sample("cuts", prior))

    def _with_cuts(self, cuts: Tensor, eta: Tensor, relative: Relative | None = None) -> TorchDistribution:
        """Return the distribution of ratings at given shared cut points."""
        return OrderedProbit(eta, cuts, self._scale(eta, relative), self.levels)

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Relative | None = None) -> Tensor:
        """Return the log-probability of each level; the levels must be the likelihood's own."""
        same_levels(levels, self._given, "the ordered probit likelihood")
        cells = cell_probabilities(eta, self._scale(eta, relative), self.pair_cuts(relative))
        return cells.clamp_min(_TINY).log()

    def predictive_pmf(
        self, eta_mean: Tensor, eta_variance: Tensor, levels: Tensor, relative: Relative | None = None
    ) -> Tensor:
        """Return the probability of each level: exact for a Normal predictor."""
        same_levels(levels, self._given, "the ordered probit likelihood")
        spread = (self._scale(eta_mean, relative).double() ** 2 + eta_variance.double()).sqrt()
        return cell_probabilities(eta_mean, spread, self.pair_cuts(relative))

    def predictive_moments(
        self, eta_mean: Tensor, eta_variance: Tensor, relative: Relative | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a rating: exact for a Normal predictor."""
        share = self.predictive_pmf(eta_mean, eta_variance, self.levels, relative)
        mean = (share * self.levels).sum(-1)
        return mean, variance_of_levels(share, self.levels, mean)

    def utilities(self) -> Utilities | None:
        """Return utilities of which the cell is known; none where users have cut points of their own."""
        return None if self.n_shifts else CellUtilities(self)

    def screening_mean(self, mean: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
        """Return the mean levels, of shared cut points."""
        levels, cuts = self.levels.tolist(), self.cuts.detach().tolist()
        inverse = variance.add_(float(self.noise_sd) ** 2 * noise).rsqrt_().mul_(math.sqrt(0.5))
        found = torch.full_like(mean, 0.5 * (levels[0] + levels[-1]))
        for cut, step in zip(cuts, self.levels.diff().tolist(), strict=True):
            found.add_(((mean - cut).mul_(inverse)).erf_(), alpha=0.5 * step)
        return found

    def settings(self) -> dict[str, Any]:
        """Return the kind, the levels, the utility's spread and whose the cuts are."""
        found = {"kind": "ordered-probit", "levels": self._given, "noise": float(self.utility_sd)}
        return found if self.cuts_by == "shared" else {**found, "cuts": self.cuts_by}

    def _scale(self, eta: Tensor, relative: Relative | None) -> Tensor:
        scale, more = self.utility_sd.to(eta.dtype), self.pair_scale(relative)
        return scale.expand_as(eta) if more is None else scale * more.to(eta.dtype)


class CellUtilities(Utilities):
    """The utilities of an ordered probit: what is observed is the cell that each is in."""

    latent = True

    def __init__(self, likelihood: OrderedProbitLikelihood) -> None:
        self.likelihood, self.n_cuts = likelihood, len(likelihood.levels) - 1
        self.middles = midway(standardised(likelihood.levels, likelihood.units))
        self.noise_sd = float(likelihood.utility_sd)
        self.cut_density = likelihood.cut_density
        #: The cells of the last draw, and which cuts are moved by slices: the same in all sweeps.
        self._drawn: tuple[Tensor, list[slice]] | None = None

    def remember(self, cuts: Tensor, noise_sd: Tensor) -> None:
        """Put the cut points and the utilities' spread in place."""
        self.likelihood.set_cuts(cuts, noise_sd)

    def observe(self, ratings: Tensor) -> Tensor:
        """Return which cell each rating is, (n,), int32."""
        return torch.searchsorted(self.middles.to(ratings.device), ratings.double(), out_int32=True)

    def start_cuts(self) -> Tensor:
        """Return the likelihood's own cut points."""
        return self.likelihood.cuts.detach().double().clone()

    def fit_cuts(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor, *, steps: int = 8) -> Tensor:
        """Return the most likely cut points, by Newton steps."""
        return fit_cuts(cuts, eta, sd.expand_as(eta), observed, self.cut_density, steps=steps)

    def cuts_ahead(
        self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor, *, steps: int = 8
    ) -> tuple[Tensor, Tensor]:
        """Take Newton steps, and tell whether none of them would have been taken back."""
        return cuts_ahead(cuts, eta, sd.expand_as(eta), observed, self.cut_density, steps=steps)

    def draw_spreads(
        self, rows: Sequence[NoisyRows], cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor
    ) -> Tensor:
        """Draw the powers by Metropolis-Hastings."""
        return draw_spreads(rows, cuts, eta, sd, observed)

    def draw(
        self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor, stretch: Stretch | None = None
    ) -> Drawn:
        """Draw cuts and the predictors' scale by Metropolis-Hastings, then utilities in their cells."""
        moves = self._moves(observed)
        return draw_cuts_and_utilities(cuts, eta, sd, observed, self.cut_density, moves, stretch)

    def asks_nothing(self, observed: Tensor) -> bool:
        """Whether no level is so rare that cuts about it are moved by slices, which ask for heights."""
        return not self._moves(observed)

    def _moves(self, observed: Tensor) -> list[slice]:
        """Return which cuts are moved by slices."""
        if self._drawn is None or self._drawn[0] is not observed:
            self._drawn = observed, about_rare_levels(observed, self.n_cuts)
        return self._drawn[1]

    def draw_given(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor) -> Tensor:
        """Draw utilities in their cells."""
        return draw_utilities(cuts, eta, sd, observed)

    def expect(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means of truncated Normals, and the cells' log-probabilities."""
        return truncated_mean(eta, sd, cuts, observed)

    def moments(
        self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return means and variances of truncated Normals, and the cells' log-probabilities."""
        return truncated_moments(eta, sd.expand_as(eta), cuts, observed)
