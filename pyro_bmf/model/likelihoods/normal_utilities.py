r"""What sweeps and coordinate ascent need of a likelihood: ratings as Normal utilities.

.. math:: z_{ij} \sim N\left(\eta_{ij}, \frac{1}{\tau w_i w'_j}\right),

where the rating is all that is known of z: z itself, under a Normal likelihood, or which cell between the
cut points z is in, under an ordered probit. Given z, rows have their exact conditional
(`pyro_bmf.methods.kernel`), whatever the likelihood; given the predictors, these methods give z. A likelihood
with a `Likelihood.utilities` of this interface is fitted by both methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from ...numerics.cuts.density import CutDensity
from ...numerics.cuts.draws import Drawn
from ...numerics.cuts.noise_spread import NoisyRows
from ...numerics.cuts.stretch import Stretch

#: The prior of no cut points.
NO_CUTS = CutDensity([], 1.0)


class Utilities(ABC):
    """Normal utilities of one likelihood, by default the ratings themselves.

    Attributes
    ----------
    latent : bool
        Whether utilities are unknown where ratings are known. Their spread is then a convention that stays
        as it is; a chain begins with ratings as utilities and a spread that is drawn, which settles faster.
    learned_noise : bool
        Whether the precision tau is unknown.
    n_cuts : int
        Number of unknown cut points, which are passed as a tensor (n_cuts,), float64.
    noise_sd : float
        Standard deviation of utilities that are latent.
    cut_density : CutDensity
        The prior of the cut points about the centre.
    """

    latent: bool = False
    learned_noise: bool = False
    n_cuts: int = 0
    noise_sd: float = 1.0
    cut_density: CutDensity = NO_CUTS

    @abstractmethod
    def remember(self, cuts: Tensor, noise_sd: Tensor) -> None:
        """Put what was learned into the likelihood: cut points and the utilities' standard deviation."""

    def observe(self, ratings: Tensor) -> Tensor:
        """Return what ratings (n,), in the predictors' unit, tell of their utilities: themselves here."""
        return ratings

    def start_cuts(self) -> Tensor:
        """Return the cut points to start from, (n_cuts,), float64."""
        return torch.empty(0, dtype=torch.float64)

    def fit_cuts(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor, *, steps: int = 8) -> Tensor:
        """Return the most likely cut points given predictors, both about the centre, by some steps uphill."""
        del eta, sd, observed, steps
        return cuts

    def cuts_ahead(
        self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor, *, steps: int = 8
    ) -> tuple[Tensor, Tensor] | None:
        """Do as `fit_cuts` without reading a number, where a likelihood can.

        Returns
        -------
        cuts : Tensor, shape (n_cuts,)
        found : Tensor, shape (), bool
            Whether they are those that `fit_cuts` gives.
        """
        del cuts, eta, sd, observed, steps
        return None

    def asks_nothing(self, observed: Tensor) -> bool:
        """Whether draws, moments and `cuts_ahead` may be recorded on a card, of known ratings.

        They then ask it for no number, take what is random from its generator, and depend on nothing but
        what they are given. By default they may not.
        """
        del observed
        return False

    def draw_spreads(
        self, rows: Sequence[NoisyRows], cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor
    ) -> Tensor:
        """Draw the powers (m,) that multipliers of m sides are raised to, with utilities integrated out.

        By default they stay as they are: where utilities are known, shapes are drawn by these.
        """
        del cuts, sd, observed
        return eta.new_ones(len(rows))

    def draw(
        self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor, stretch: Stretch | None = None
    ) -> Drawn:
        """Draw cut points given predictors, with utilities integrated out, then utilities given both.

        Parameters
        ----------
        cuts : Tensor, shape (n_cuts,), float64
            About the predictors' centre, where their prior is.
        eta, sd : Tensor, shape (n,), float64
            Predictors about the centre, and the utilities' standard deviations.
        observed : Tensor, shape (n,)
        stretch : Stretch, optional
            The prior of a common factor of all predictors, where it may be drawn too: those of the utilities
            are then as many times as large. By default it stays one.
        """
        del stretch
        return Drawn(cuts, self.draw_given(cuts, eta, sd, observed), eta.new_ones(()))

    def draw_given(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor) -> Tensor:
        """Draw utilities given cut points, (n_cuts,) or (n, n_cuts), and predictors."""
        del cuts, eta, sd
        return observed

    @abstractmethod
    def expect(self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[z | x, eta] and log p(x | eta), nats, each (n,), float64."""

    def moments(
        self, cuts: Tensor, eta: Tensor, sd: Tensor, observed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return E[z | x, eta], var[z | x, eta] and log p(x | eta), nats, each (n,), float64.

        The variance is zero where ratings are utilities; where they are `latent` a likelihood gives its own.
        """
        mean, log_prob = self.expect(cuts, eta, sd, observed)
        return mean, torch.zeros_like(mean), log_prob
