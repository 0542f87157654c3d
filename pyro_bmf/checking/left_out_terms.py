r"""A left-out user's own noise and cut points: integrated over their prior, not read off its ratings.

What a fit knows of them proposes, together with the prior, and importance weights make draws of the prior of
both:
:math:`\ell = \log r` with :math:`r^{-2} \sim \mathrm{Gamma}(a, a)` for the noise's multiplier r, and
:math:`z \sim N(0, t^2)` for shifts of cut points. Hyperparameters a and t are those of the chain's draw, the
medians of their q, or, with an exact head, the a at which its q of rows' noise is a point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, cast

import torch
from torch import Tensor

from ..methods.exact_head.guide import ExactHeadGuide
from ..model.priors.hierarchical import Hyperparameter
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices

#: Log noise multipliers (n,) and shifts of cut points (n, n_shifts) of users, those that there are.
Terms: TypeAlias = tuple[Tensor | None, Tensor | None]
#: A proposal is wider than what is known: tails of the weights stay light.
_WIDER = 1.3
_LOG_2PI = math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class OwnTerms:
    """Proposals of n users' terms.

    Attributes
    ----------
    log_noise, log_noise_sd : Tensor or None, shape (n,)
    shapes : Tensor or None, shape (n_draws,) or (1,)
        Shape a of the noise's prior, by draw of the chain where there is one.
    shifts, shifts_sd : Tensor or None, shape (n, n_shifts)
    spread : Tensor or None, shape (n_shifts,)
    """

    log_noise: Tensor | None
    log_noise_sd: Tensor | None
    shapes: Tensor | None
    shifts: Tensor | None
    shifts_sd: Tensor | None
    spread: Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, posterior: Posterior, users: Indices) -> OwnTerms | None:
        """Return the proposals of some users; None where users have nothing of their own."""
        model, rows = posterior.model, posterior.user_rows
        at = torch.tensor(users, device=rows.device)
        log_noise = log_noise_sd = shapes = shifts = shifts_sd = spread = None
        if rows.noise_factor is not None and model.row_noise is not None and "user" in model.row_noise.sides:
            log_noise = rows.noise_factor[at].double().log()
            if rows.noise_factor_log_sd is not None:
                log_noise_sd = _WIDER * rows.noise_factor_log_sd[at].double()
                shapes = _guided_shape(posterior).reshape(1)
            else:
                shapes = posterior.guide.hyperparameters()["user_noise_shape"].values.double()
                # Of the logarithm of a Gamma of shape s the variance is about 1 / s.
                counts = torch.tensor(posterior.train.user_counts[users], device=rows.device).double()
                log_noise_sd = _WIDER * 0.5 * (shapes.mean() + 0.5 * counts).rsqrt()
        if rows.cuts is not None and rows.cuts_scale is not None:
            assert model.row_cuts is not None
            shifts, shifts_sd = rows.cuts[at].double(), _WIDER * rows.cuts_scale[at].double()
            spread = _median(model.row_cuts.spread)
        if log_noise is None and shifts is None:
            return None
        return cls(log_noise, log_noise_sd, shapes, shifts, shifts_sd, spread)

    def centre(self) -> Terms:
        """Return the proposals' centres."""
        return self.log_noise, self.shifts

    def sample(self, n_samples: int, draw: int, generator: torch.Generator) -> tuple[list[Terms], Tensor]:
        """Draw terms, and the logarithms of prior over proposal (n_samples, n).

        The first half is drawn from what is known, the second from the prior, and weights are those of the
        mixture: none is above two, however narrow or far off what is known may be.
        """
        some = self.log_noise if self.log_noise is not None else self.shifts
        assert some is not None
        log_p = torch.zeros(n_samples, len(some), dtype=torch.float64, device=some.device)
        log_q = torch.zeros_like(log_p)
        noises: list[Tensor | None] = [None] * n_samples
        shifts: list[Tensor | None] = [None] * n_samples
        n_known = n_samples // 2

        def white(n: int, like: Tensor) -> Tensor:
            return torch.randn(n, *like.shape, generator=generator, dtype=torch.float64).to(like.device)

        if self.log_noise is not None and self.log_noise_sd is not None and self.shapes is not None:
            shape = self.shapes[min(draw, len(self.shapes) - 1)]
            known = self.log_noise + self.log_noise_sd * white(n_known, self.log_noise)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
                wide = shape.cpu().expand(n_samples - n_known, len(some)).contiguous()
                w = torch._standard_gamma(wide).to(some.device) / shape
            drawn = torch.cat([known, -0.5 * w.clamp_min(1e-300).log()])
            log_p = log_p + _log_gamma_of(drawn, shape)
            log_q = log_q + _log_normal(drawn, self.log_noise, self.log_noise_sd)
            noises = list(drawn)
        if self.shifts is not None and self.shifts_sd is not None and self.spread is not None:
            known = self.shifts + self.shifts_sd * white(n_known, self.shifts)
            moved = torch.cat([known, self.spread * white(n_samples - n_known, self.shifts)])
            log_p = log_p + _log_normal(moved, torch.zeros_like(self.spread), self.spread).sum(-1)
            log_q = log_q + _log_normal(moved, self.shifts, self.shifts_sd).sum(-1)
            shifts = list(moved)
        mixed = torch.logaddexp(log_p, log_q) - math.log(2.0)
        return list(zip(noises, shifts, strict=True)), log_p - mixed


def _log_normal(x: Tensor, loc: Tensor, sd: Tensor) -> Tensor:
    return -0.5 * ((x - loc) / sd) ** 2 - sd.log() - 0.5 * _LOG_2PI


def _log_gamma_of(log_multiplier: Tensor, shape: Tensor) -> Tensor:
    """Return the log-density of l where exp(-2 l) is Gamma(shape, shape)."""
    w = (-2.0 * log_multiplier).exp()
    gamma = shape * shape.log() - torch.lgamma(shape) + (shape - 1.0) * w.log() - shape * w
    return gamma + math.log(2.0) + w.log()


def _guided_shape(posterior: Posterior) -> Tensor:
    """Return the shape of the prior of users' noise as a guide knows it, float64."""
    row_noise = posterior.model.row_noise
    assert row_noise is not None
    if row_noise.guided:
        return _median(cast(Hyperparameter, row_noise.shape_q["user"]))
    # Under conjugate priors the shapes are the guide's: points, beside the Gammas of the rows.
    return cast(ExactHeadGuide, posterior.guide).user.row_precision_shape.double()


def _median(of: Hyperparameter) -> Tensor:
    value: Tensor = of.transform(of.loc.detach().double())
    return value
