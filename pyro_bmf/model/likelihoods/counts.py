r"""Ratings as counts: Poisson and negative binomial.

.. math:: x_{ij} \sim \mathrm{Poisson}(\lambda_{ij}), \qquad \lambda_{ij} = f(\eta_{ij}) > 0,

with f softplus (nearly :math:`\eta` itself for ratings of some units), exp, or nothing where factors are
positive and there are no biases. Gopalan, Hofman and Blei (2015), arXiv 1311.1704. The negative binomial has
variance :math:`\lambda + \lambda^2 / r` instead of :math:`\lambda`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor, nn
from torch.nn.functional import softplus

from ...errors import SettingsError
from .normal import Likelihood, refuse_noise
from .rating_levels import cells_of_counts

LINKS = ("softplus", "exp", "identity")
#: Keeps a rate away from zero, where a count has no log-probability.
_LEAST = 1e-6


class PoissonLikelihood(Likelihood):
    """A Poisson rating.

    Parameters
    ----------
    link : {"softplus", "exp", "identity"}
        From predictor to rate.

    Raises
    ------
    SettingsError
        If the link is something else.
    """

    support = constraints.nonnegative_integer
    density = "Poisson(x; link(eta))"
    called = "Poisson"
    takes = "whole numbers from 0 on"
    instead = "normal or ordered-probit take half stars; student-t takes anything"
    kind = "poisson"

    def __init__(self, link: str = "softplus") -> None:
        super().__init__()
        if link not in LINKS:
            raise SettingsError(f"link is {link!r}: it may be {', '.join(LINKS)}.")
        self.link = link
        # Without a link, only positive factors make rates positive.
        self.needs_positive_predictor = link == "identity"

    def rate(self, eta: Tensor) -> Tensor:
        """Return the mean count."""
        if self.link == "softplus":
            return softplus(eta) + _LEAST
        return (eta.clamp_max(20.0).exp() if self.link == "exp" else eta.clamp_min(0.0)) + _LEAST

    def predictor_centre(self, centre: Tensor) -> Tensor:
        """Return the link of the mean count."""
        if self.link == "softplus":
            return torch.log(torch.expm1(centre.clamp_min(1e-3)))
        return centre.clamp_min(1e-3).log() if self.link == "exp" else centre

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        """Return the distribution of ratings; a count has no noise to be relative to."""
        refuse_noise(relative, self)
        return dist.Poisson(self.rate(eta))  # type: ignore[no-untyped-call]

    def log_prob_rating(self, eta: Tensor, levels: Tensor, relative: Tensor | None = None) -> Tensor:
        """Return the log-probability of each level's cell: counts beyond the scale go to its ends."""
        refuse_noise(relative, self)
        counts = torch.arange(int(levels[-1]) + 2, dtype=torch.float64, device=eta.device)
        return cells_of_counts(self(eta.double().unsqueeze(-1)).log_prob(counts), levels.double())

    def settings(self) -> dict[str, Any]:
        """Return the kind and the link."""
        return {"kind": self.kind, "link": self.link}


class NegativeBinomialLikelihood(PoissonLikelihood):
    """A negative binomial rating: a Poisson one whose rate varies by a Gamma of shape r.

    Parameters
    ----------
    link : {"softplus", "exp", "identity"}
    dispersion : float or "learned"
        r: large is nearly Poisson.

    Raises
    ------
    SettingsError
        If either is out of its range.
    """

    density = "NegativeBinomial(x; mean link(eta), variance mean + mean^2 / r)"
    called = "negative binomial"
    kind = "negative-binomial"
    _log_dispersion: Tensor

    def __init__(self, link: str = "softplus", dispersion: float | str = "learned") -> None:
        super().__init__(link)
        self.learned = dispersion == "learned"
        start = 10.0
        if not self.learned:
            try:
                start = float(dispersion)
            except (TypeError, ValueError):
                start = -1.0
            if not 0.0 < start < float("inf"):
                raise SettingsError(f"dispersion is {dispersion!r}: give a positive number, or 'learned'.")
            self._fixed = start
        value = torch.tensor(float(np.log(start)), dtype=torch.float64)
        if self.learned:
            self._log_dispersion = nn.Parameter(value)
        else:
            self.register_buffer("_log_dispersion", value)

    def forward(self, eta: Tensor, relative: Tensor | None = None) -> TorchDistribution:
        """Return the distribution of ratings."""
        refuse_noise(relative, self)
        # Beyond this a negative binomial is a Poisson to every digit, and its own formula loses them.
        shape = self._log_dispersion.exp().clamp_max(1e5).to(eta.dtype)
        return dist.GammaPoisson(shape, shape / self.rate(eta))  # type: ignore[no-untyped-call]

    def settings(self) -> dict[str, Any]:
        """Return the kind, the link and r."""
        return {**super().settings(), "dispersion": "learned" if self.learned else self._fixed}
