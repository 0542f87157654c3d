"""Distributions of a rating over the levels of a discrete scale, given the probability of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from ...numerics.normal_cells import midway


class LevelProbabilities(TorchDistribution):
    """A rating that is one of `levels`, with given log-probabilities.

    Parameters
    ----------
    log_probabilities : Tensor, shape (*batch, n_levels)
        Normalised, in nats.
    levels : Tensor, shape (n_levels,)
        Ascending, rating units.
    """

    has_enumerate_support = False
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch's own class attribute)

    def __init__(self, log_probabilities: Tensor, levels: Tensor) -> None:
        self.log_probabilities, self.levels = log_probabilities, levels
        super().__init__(log_probabilities.shape[:-1], torch.Size(), validate_args=False)

    @property
    def support(self) -> Any:
        """Real numbers: a rating off the levels is refused when the model is started."""
        return constraints.real

    def probabilities(self) -> Tensor:
        """Return P(level), shape (*batch, n_levels)."""
        return self.log_probabilities.exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability of ratings, of the batch's shape or broadcast against it."""
        middle = midway(self.levels)
        place = torch.searchsorted(middle.contiguous(), value.to(middle).contiguous())
        shape = torch.broadcast_shapes(place.shape, self.batch_shape)  # type: ignore[no-untyped-call]
        table = self.log_probabilities.expand(*shape, len(self.levels))
        return table.gather(-1, place.expand(shape).unsqueeze(-1)).squeeze(-1)

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draw ratings."""
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            below = self.log_probabilities.exp().cumsum(-1)[..., :-1]
            uniform = torch.rand(*shape, 1, dtype=below.dtype, device=below.device)
            return self.levels.to(below)[(uniform > below).sum(-1)]

    @property
    def mean(self) -> Tensor:
        """Mean rating."""
        return (self.probabilities() * self.levels.to(self.log_probabilities)).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance of a rating."""
        levels = self.levels.to(self.log_probabilities)
        return (self.probabilities() * (levels - self.mean.unsqueeze(-1)) ** 2).sum(-1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> LevelProbabilities:
        """Return the same distribution over a larger batch."""
        del _instance
        shape = (*torch.Size(batch_shape), len(self.levels))
        return LevelProbabilities(self.log_probabilities.expand(shape), self.levels)
