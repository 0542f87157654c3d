r"""Likelihoods of a rating given its linear predictor: objects that a model is given.

Besides the Pyro distribution of a rating, a likelihood says what a *prediction* is when the predictor
:math:`\eta` is itself uncertain. Where no closed form is known, the predictive moments and probabilities are
integrated over :math:`\eta \sim N(m, v)` by Gauss-Hermite quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn

from ...data.units import AS_GIVEN, Units
from ...errors import DataError, SettingsError
from ...numerics.normal_cells import LOG_DENSITY, cell_ends, cell_probabilities, cell_probability, midway
from ...numerics.quadrature import normal_nodes
from ..standard_units import InUnits, standardised
from .normal_utilities import Utilities

_NODES = 32


class Likelihood(nn.Module):
    """What a model asks of a likelihood.

    A subclass gives `forward`, `support`, `log_prob_rating` and `settings`; it may override the predictive
    methods by closed forms.
    """

    support: Any = constraints.real
    #: The density in one line, for listings.
    density: str = ""
    #: Whether the mean rating is the predictor itself.
    identity_mean: bool = False
    #: Whether predictors must be positive.
    needs_positive_predictor: bool = False
    #: Numbers that shift the cut points of each user: 0 where there are none, or all users share them.
    n_shifts: int = 0
    #: Whether ratings may be fitted in standard units.
    standardises: bool = False
    #: What predictors' units are, where those are standard ones.
    units: Units = AS_GIVEN
    #: Whether unknowns that have a prior are drawn from it, as under sweeps, and not learned as parameters.
    drawn: bool = False
    #: The likelihood's name in messages: the ... likelihood.
    called: str = "model's"
    #: The support in words.
    takes: str = "real numbers"
    #: What to take instead when a rating is outside the support.
    instead: str = "normal, student-t or an ordered likelihood"

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        """Return the distribution of ratings whose linear predictors are `eta`, of the same shape.

        `relative`, of the shape of `eta`, multiplies the noise's standard deviation where rows have noise of
        their own; it is given only then, so a likelihood without such noise need not take it.
        """
        raise TypeError(f"{type(self).__name__} is a likelihood without a forward method: give it one.")

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the log-probability of each level of a discrete scale, shape (*eta.shape, n_levels)."""
        raise TypeError(f"{type(self).__name__} gives no probability of a rating: give it log_prob_rating.")

    def log_prob_observed(
        self, eta: Tensor, places: Tensor, levels: Tensor, relative: Tensor | None = None
    ) -> Tensor:
        """Return the log-probability of one level for each predictor, of the shape of `eta`.

        `places` says which of `levels`. By way of all levels here; a likelihood that has one level's
        probability alone may give it at less cost.
        """
        every = (
            self.log_prob_rating(eta, levels)
            if relative is None
            else (self.log_prob_rating(eta, levels, relative))
        )
        return every.gather(-1, places.unsqueeze(-1)).squeeze(-1)

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this likelihood, as plain values."""
        raise TypeError(f"{type(self).__name__} is a likelihood without settings: give it some.")

    def check(self, ratings: np.ndarray) -> None:
        """Raise DataError for the first rating outside the support."""
        inside = self.support.check(torch.tensor(ratings)).numpy()
        if not inside.all():
            bad = ratings[~inside][0]
            raise DataError(
                f"A rating of {bad:g} is outside the support of the {self.called} likelihood "
                f"({self.takes}): choose another likelihood ({self.instead}), or other ratings."
            )

    def start(self, ratings: np.ndarray) -> None:
        """Set learned parameters to a good starting point for these ratings: nothing by default."""

    def sampled(self, centre: Tensor) -> Callable[..., TorchDistribution]:
        """Sample the unknowns that are `drawn`, and return what gives ratings' distributions at them.

        Itself, as here, where there are none. `centre` is what every predictor starts from.
        """
        del centre
        return self

    def utilities(self) -> Utilities | None:
        """Return ratings as Normal utilities, which sweeps and coordinate ascent need; None for none."""
        return None

    @property
    def noise_sd(self) -> Tensor | None:
        """Standard deviation of a rating, or a utility, about its predictor; None where there is none."""
        return None

    @property
    def normal_noise_sd(self) -> Tensor | None:
        """Standard deviation of a rating that is Normal about its predictor; None where ratings are not."""
        return None

    def set_learned_noise_sd(self, noise: float | Tensor) -> None:
        """Put the noise of Normal ratings in place where it is learned: nothing elsewhere, as here."""

    def draw_learned_noise(self, shape: float, rate: float) -> None:
        """Draw the noise of Normal ratings, where it is learned, from a Gamma prior of its precision."""

    def predicts_normals(self) -> bool:
        """Return whether ratings are Normal given their predictor: quantiles are then those of a Normal."""
        at = next((one.device for one in (*self.parameters(), *self.buffers())), None)
        return isinstance(self(torch.zeros(1, device=at)), dist.Normal)

    def log_prob_of(self, ratings: Tensor, eta: Tensor, *relative: Any) -> Tensor:
        """Return the log-density of ratings, which broadcast against predictors, of the shape of `eta`."""
        found: Tensor = self(eta, *relative).log_prob(ratings.expand_as(eta))
        return found

    def sample_levels(self, eta: Tensor, levels: Tensor, *relative: Any) -> Tensor:
        """Draw a level of a discrete scale for each predictor (n,), with the probabilities it gives them."""
        below = self.log_prob_rating(eta, levels, *relative).double().exp().cumsum(-1)
        share = torch.rand(len(eta), 1, dtype=torch.float64, device=eta.device) * below[:, -1:]
        return levels[(share > below[:, :-1]).sum(-1)]

    def screening_mean(self, mean: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
        """Return what orders pairs about as their mean ratings do, cheaply, for predictors (n, m).

        Parameters
        ----------
        mean, variance : Tensor, shape (n, m)
            Of the predictors; their memory may be reused.
        noise : Tensor
            Squares of the pairs' noise multipliers, which broadcast against them.
        """
        del variance, noise
        return mean

    def predictor_centre(self, centre: Tensor) -> Tensor:
        """Return the predictor of a rating whose mean is `centre`, where a centred model begins.

        The mean rating itself where predictors are in rating units, as by default; its link elsewhere.
        """
        return centre

    def finish_in(self, units: Units) -> None:
        """Speak of ratings in their own unit from now on, with predictors in standard units as before.

        Raises
        ------
        SettingsError
            If the likelihood has no standard units, and these are some.
        """
        if not (units.identity or self.standardises):
            raise SettingsError(
                f"The {self.called} likelihood has no standard units: fit ratings as they are."
            )
        self.units = units

    def mean(self, eta: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the mean rating given the predictor, in rating units."""
        result: Tensor = (self(eta) if relative is None else self(eta, relative)).mean
        return result

    def expected_log_prob(self, ratings: Tensor, eta_mean: Tensor, eta_variance: Tensor) -> Tensor | None:
        """Return E[log p(x | eta)], (n,), in nats, of ratings (n,) whose predictors have these moments (n,).

        None, as here, where moments alone do not give it.
        """
        return None

    def predictive_moments(
        self, eta_mean: Tensor, eta_variance: Tensor, relative: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a rating whose predictor is Normal with these moments."""
        eta, weights = normal_nodes(eta_mean, eta_variance, _NODES)
        distribution = self(eta, *_at_nodes(relative))
        mean = (weights * distribution.mean).sum(-1)
        second = (weights * (distribution.variance + distribution.mean**2)).sum(-1)
        plain = second - mean**2
        # Of a small variance that difference has no digits left: it is then the sum of what it is made of.
        about = (distribution.mean - mean.unsqueeze(-1)) ** 2
        exact = (weights * (distribution.variance + about)).sum(-1)
        return mean, torch.where(plain > 1e-6 * second, plain, exact)

    def predictive_pmf(
        self, eta_mean: Tensor, eta_variance: Tensor, levels: Tensor, relative: Tensor | None = None
    ) -> Tensor:
        """Return the probability of each level, shape (*eta_mean.shape, n_levels), summing to one."""
        eta, weights = normal_nodes(eta_mean, eta_variance, _NODES)
        return (weights[:, None] * self.log_prob_rating(eta, levels, *_at_nodes(relative)).exp()).sum(-2)


def _at_nodes(relative: Tensor | None) -> tuple[Tensor, ...]:
    return () if relative is None else (relative.unsqueeze(-1),)


class NormalLikelihood(Likelihood):
    r"""A Normal rating: :math:`x_{ij} \sim N(\eta_{ij}, \sigma^2)`.

    Parameters
    ----------
    noise : float or "learned"
        Standard deviation of a rating around its predictor, in rating units: fixed, or a parameter that is
        learned with the guides (started from the ratings' own spread).

    Raises
    ------
    SettingsError
        If `noise` is a number that is not positive and finite.
    """

    support = constraints.real
    density = "N(x; eta, noise^2)"
    called = "Normal"
    identity_mean = True
    standardises = True
    _log_noise_sd: Tensor

    def __init__(self, noise: float | str = "learned") -> None:
        super().__init__()
        self.learned = noise == "learned"
        if not self.learned:
            value = _as_float(noise)
            if not (math.isfinite(value) and value > 0.0):
                raise SettingsError(f"noise is {noise!r}: give a positive number, or 'learned'.")
            self.register_buffer("_log_noise_sd", torch.tensor(math.log(value), dtype=torch.float64))
            self._fixed = value
        else:
            # In float64 whatever the model's dtype: one number, which every rating pulls at.
            self._log_noise_sd = nn.Parameter(torch.zeros((), dtype=torch.float64))

    @property
    def noise_sd(self) -> Tensor:
        """Standard deviation of a rating around its predictor, in the predictor's unit (`units`)."""
        return self._log_noise_sd.exp()

    @property
    def normal_noise_sd(self) -> Tensor:
        """The same: ratings are Normal."""
        return self.noise_sd

    @torch.no_grad()
    def set_noise_sd(self, noise: float | Tensor) -> None:
        """Put a standard deviation in place."""
        self._log_noise_sd.fill_(math.log(float(noise)))

    def set_learned_noise_sd(self, noise: float | Tensor) -> None:
        """Put a standard deviation in place, where it is learned."""
        if self.learned:
            self.set_noise_sd(noise)

    def draw_learned_noise(self, shape: float, rate: float) -> None:
        """Draw the noise, where it is learned, from a Gamma prior of its precision."""
        if self.learned:
            self.set_noise_sd((torch._standard_gamma(torch.tensor(shape)) / rate).rsqrt())

    def predicts_normals(self) -> bool:
        """Return True."""
        return True

    def sample_levels(self, eta: Tensor, levels: Tensor, *relative: Any) -> Tensor:
        """Draw a level for each predictor: the one in whose cell a Normal rating falls.

        A cell's probability is that of its Normal ratings: the same draw at a fifth of the cost.
        """
        return levels[torch.bucketize(self(eta, *relative).sample().contiguous(), midway(levels))]

    def start(self, ratings: np.ndarray) -> None:
        """Start learned noise at the ratings' own standard deviation."""
        if self.learned:
            with torch.no_grad():
                self._log_noise_sd.fill_(math.log(max(float(ratings.std()), 1e-3)))

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        """Return Normal(eta, noise), the noise times `relative` where that is given."""
        standard = dist.Normal(eta, self._scale(eta, relative))
        return standard if self.units.identity else InUnits(standard, self.units)

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the log-probability of each level's cell: cuts midway, tails to the end levels."""
        scale = self._scale(eta, relative).expand_as(eta)
        return cell_probabilities(eta, scale, self._cuts(levels)).clamp_min(1e-300).log()

    def log_prob_observed(
        self, eta: Tensor, places: Tensor, levels: Tensor, relative: Tensor | None = None
    ) -> Tensor:
        """Return the log-probability of one level's cell for each predictor."""
        ends = cell_ends(eta, self._scale(eta, relative).double(), self._cuts(levels), places)
        return cell_probability(*ends).clamp_min(1e-300).log()

    def expected_log_prob(self, ratings: Tensor, eta_mean: Tensor, eta_variance: Tensor) -> Tensor:
        """Return E[log N(x; eta, noise^2)], whose square is (x - m)^2 + v: exact for any predictor."""
        scale = self._scale(eta_mean, None)
        square = (standardised(ratings, self.units) - eta_mean) ** 2 + eta_variance
        log_unit = math.log(2.0 * math.pi * self.units.scale**2)
        return -0.5 * square / scale**2 - scale.log() - 0.5 * log_unit

    def predictive_moments(
        self, eta_mean: Tensor, eta_variance: Tensor, relative: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return (m, v + noise^2): exact."""
        return in_ratings(eta_mean, eta_variance + self._scale(eta_mean, relative) ** 2, self.units)

    def predictive_pmf(
        self, eta_mean: Tensor, eta_variance: Tensor, levels: Tensor, relative: Tensor | None = None
    ) -> Tensor:
        """Return the cells' probabilities under N(m, v + noise^2): exact for a Normal predictor."""
        variance = eta_variance + self._scale(eta_mean, relative) ** 2
        return cell_probabilities(eta_mean, variance.sqrt(), self._cuts(levels))

    def utilities(self) -> Utilities:
        """Return the ratings themselves."""
        return RatingUtilities(self)

    def _cuts(self, levels: Tensor) -> Tensor:
        return midway(standardised(levels, self.units).double())

    def _scale(self, eta: Tensor, relative: Tensor | None) -> Tensor:
        noise = self.noise_sd.to(eta.dtype)
        return noise if relative is None else noise * relative.to(eta.dtype)

    def settings(self) -> dict[str, Any]:
        """Return the kind and whether noise is learned or which number it is."""
        return {"kind": "normal", "noise": "learned" if self.learned else self._fixed}


class RatingUtilities(Utilities):
    """A Normal rating: it is its own utility."""

    def __init__(self, likelihood: NormalLikelihood) -> None:
        self.likelihood, self.learned_noise = likelihood, likelihood.learned

    def remember(self, cuts: Tensor, noise_sd: Tensor) -> None:
        """Put the noise in place, where it is learned."""
        del cuts
        if self.learned_noise:
            self.likelihood.set_noise_sd(noise_sd)

    def expect(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ratings, and their log-density."""
        del cuts
        z = (observed - eta) / sd
        return observed, LOG_DENSITY - sd.log() - 0.5 * z**2


def in_ratings(mean: Tensor, variance: Tensor, units: Units) -> tuple[Tensor, Tensor]:
    """Return mean and variance of a rating in its own unit."""
    if units.identity:
        return mean, variance
    return mean * units.scale + units.shift, variance * units.scale**2


def refuse_noise(relative: Tensor | None, likelihood: Likelihood) -> None:
    """Raise SettingsError where rows have noise of their own and the likelihood has none to multiply."""
    if relative is not None:
        raise SettingsError(
            f"The {likelihood.called} likelihood has no noise, so rows cannot have theirs: set "
            "row_noise to 'none', or choose the normal, student-t or an ordered likelihood."
        )


def _as_float(value: float | str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
