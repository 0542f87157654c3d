"""The posterior of the rows of one side: what an encoder gives and everything downstream reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowPosterior:
    """Independent Normals over the factors, and the bias where there is one, of `n` rows.

    Attributes
    ----------
    loc, scale : Tensor, shape (n, n_factors)
        Mean and standard deviation of each factor.
    bias_loc, bias_scale : Tensor or None, shape (n,)
        Mean and standard deviation of each row's bias, in rating units.
    """

    loc: Tensor
    scale: Tensor
    bias_loc: Tensor | None = None
    bias_scale: Tensor | None = None

    def __len__(self) -> int:
        return len(self.loc)

    @property
    def n_factors(self) -> int:
        """Number of factors."""
        return self.loc.shape[-1]

    def select(self, rows: Tensor) -> RowPosterior:
        """Return the posterior of the given rows, in the given order."""
        return RowPosterior(*(None if part is None else part[rows] for part in self._parts()))  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> RowPosterior:
        """Return the same posterior on another device."""
        return RowPosterior(*(None if part is None else part.to(device) for part in self._parts()))  # type: ignore[arg-type]

    def detach(self) -> RowPosterior:
        """Return the same numbers without a gradient."""
        return RowPosterior(*(None if part is None else part.detach() for part in self._parts()))  # type: ignore[arg-type]

    @staticmethod
    def concatenate(parts: list[RowPosterior]) -> RowPosterior:
        """Stack the rows of several posteriors of one kind."""
        columns = zip(*(part._parts() for part in parts), strict=True)
        joined = [
            None if column[0] is None else torch.cat([c for c in column if c is not None])
            for column in columns
        ]
        return RowPosterior(*joined)  # type: ignore[arg-type]

    def sample(
        self, num_samples: int | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Draw factors (…, n, n_factors) and biases (…, n); `num_samples` adds a leading axis of draws."""
        shape = () if num_samples is None else (num_samples,)

        def draw(loc: Tensor, scale: Tensor) -> Tensor:
            noise = torch.randn((*shape, *loc.shape), dtype=loc.dtype, device=loc.device, generator=generator)
            return loc + scale * noise

        factors = draw(self.loc, self.scale)
        if self.bias_loc is None or self.bias_scale is None:
            return factors, None
        return factors, draw(self.bias_loc, self.bias_scale)

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.loc, self.scale, self.bias_loc, self.bias_scale
