"""The posterior of the rows of one side: what a guide gives and everything downstream reads."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowPosterior:
    """Normals over the factors, and the bias where there is one, of `n` rows that are independent.

    Attributes
    ----------
    loc, scale : Tensor, shape (n, n_factors)
        Mean and standard deviation of each factor.
    bias_loc, bias_scale : Tensor or None, shape (n,)
        Mean and standard deviation of each row's bias, in rating units.
    tril : Tensor or None, shape (n, D, D)
        Lower Cholesky factor of each row's covariance over its factors and, last, its bias where there is
        one; `scale` and `bias_scale` are then its marginals. None for a diagonal covariance.
    noise : Tensor or None, shape (n,)
        What each row multiplies the likelihood's standard deviation by; None for ones. Of a guide, the median
        of its log-normal q.
    noise_scale : Tensor or None, shape (n,)
        Standard deviation of the logarithm of `noise` under q, where a guide gave it.
    cuts, cuts_scale : Tensor or None, shape (n, n_shifts)
        Mean and standard deviation of the shifts of a user's cut points; None where cuts are shared.
    positive : Tensor or None, shape (n,), bool
        True where factors are log-normal, with mean `loc` and standard deviation `scale`: for all rows of a
        posterior or for none. Biases are Normal all the same. None for Normal factors.
    """

    loc: Tensor
    scale: Tensor
    bias_loc: Tensor | None = None
    bias_scale: Tensor | None = None
    tril: Tensor | None = None
    noise: Tensor | None = None
    positive: Tensor | None = None
    noise_scale: Tensor | None = None
    cuts: Tensor | None = None
    cuts_scale: Tensor | None = None

    @classmethod
    def log_normal(cls, log_loc: Tensor, log_scale: Tensor, **more: Tensor | None) -> RowPosterior:
        """Return log-normal rows, given mean and standard deviation of the factors' logarithms, (n, K)."""
        loc = (log_loc + log_scale**2 / 2).exp()
        scale = loc * torch.expm1(log_scale**2).sqrt()
        yes = torch.ones(len(loc), dtype=torch.bool, device=loc.device)
        return cls(loc, scale, positive=yes, **more)

    def logarithms(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the logarithms of positive factors, each (n, K)."""
        variance = torch.log1p((self.scale / self.loc) ** 2)
        return self.loc.log() - variance / 2, variance.sqrt()

    def __len__(self) -> int:
        return len(self.loc)

    @property
    def n_factors(self) -> int:
        """Number of factors."""
        return self.loc.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.loc.device

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, those that there are."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def select(self, rows: Tensor) -> RowPosterior:
        """Return the posterior of the given rows, in the given order."""
        return RowPosterior(**{name: tensor[rows] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str) -> RowPosterior:
        """Return the same posterior on another device."""
        return RowPosterior(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def double(self) -> RowPosterior:
        """Return the same posterior in float64."""
        return RowPosterior(
            **{
                name: tensor if tensor.dtype == torch.bool else tensor.double()
                for name, tensor in self.tensors().items()
            }
        )

    def detach(self) -> RowPosterior:
        """Return the same numbers without a gradient."""
        return RowPosterior(**{name: tensor.detach() for name, tensor in self.tensors().items()})

    def covariance(self) -> Tensor:
        """Return each row's covariance over factors and, last, the bias: shape (n, D, D)."""
        if self.tril is not None:
            return self.tril @ self.tril.mT
        scale = (
            self.scale if self.bias_scale is None else torch.cat([self.scale, self.bias_scale[:, None]], 1)
        )
        return torch.diag_embed(scale**2)

    @staticmethod
    def concatenate(parts: list[RowPosterior]) -> RowPosterior:
        """Stack the rows of several posteriors of one kind."""
        tensors = [part.tensors() for part in parts]
        return RowPosterior(**{name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})

    def sample(
        self, num_samples: int | None = None, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Draw factors (…, n, n_factors) and biases (…, n); `num_samples` adds a leading axis of draws."""
        shape = () if num_samples is None else (num_samples,)

        def noise(loc: Tensor) -> Tensor:
            return torch.randn((*shape, *loc.shape), dtype=loc.dtype, device=loc.device, generator=generator)

        factors = noise(self.loc)
        bias = None if self.bias_loc is None else noise(self.bias_loc)
        return self.place(factors, bias)

    def place(self, factors: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Turn standard Normal noise (…, n, n_factors) and (…, n) into draws of factors and biases."""
        if self.tril is None:
            if self.positive is None:
                factors = self.loc + self.scale * factors
            else:
                log_loc, log_scale = self.logarithms()
                factors = (log_loc + log_scale * factors).exp()
            if bias is not None and self.bias_loc is not None and self.bias_scale is not None:
                bias = self.bias_loc + self.bias_scale * bias
            return factors, bias
        joined = factors if bias is None else torch.cat([factors, bias.unsqueeze(-1)], -1)
        moved = (self.tril @ joined.unsqueeze(-1)).squeeze(-1)
        factors = self.loc + moved[..., : self.n_factors]
        if bias is None or self.bias_loc is None:
            return factors, None
        return factors, self.bias_loc + moved[..., -1]


@dataclass(frozen=True, eq=False)
class RowDraws:
    """Draws of a chain for the `n` rows of one side, in step with those of the other side.

    Single factors of a chain have no identity (they may rotate from draw to draw), so no moments of factors
    are offered: only what joins draw s of one side with draw s of the other means anything.

    Draws and means may stand in half precision: `draws_of` and `means_of` give them in single.

    Attributes
    ----------
    draws : Tensor, shape (n, n_draws, D)
        Factors and, last, the bias where there is one.
    means : Tensor, shape (n, n_draws, D)
        Mean of each row given draw s of the *other* side: its average over draws has less Monte Carlo error.
    biased : Tensor, shape (), bool
        Whether the last column is a bias.
    noise : Tensor or None, shape (n,)
        Posterior mean of what each row multiplies the likelihood's standard deviation by.
    """

    draws: Tensor
    means: Tensor
    biased: Tensor
    noise: Tensor | None = None

    def __len__(self) -> int:
        return len(self.draws)

    @property
    def bias(self) -> bool:
        """Whether rows have a bias."""
        return bool(self.biased)

    @property
    def n_draws(self) -> int:
        """Number of draws of the chain."""
        return self.draws.shape[1]

    @property
    def n_factors(self) -> int:
        """Number of factors."""
        return self.draws.shape[-1] - self.bias

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.draws.device

    def draws_of(self, rows: Tensor) -> Tensor:
        """Return the draws of some rows, (n_chosen, n_draws, D), in single precision at least."""
        return self.draws[rows].to(working_dtype(self.draws))

    def means_of(self, rows: Tensor) -> Tensor:
        """Return the means of some rows, (n_chosen, n_draws, D), in single precision at least."""
        return self.means[rows].to(working_dtype(self.means))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, those that there are."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def select(self, rows: Tensor) -> RowDraws:
        """Return the draws of the given rows, in the given order."""
        noise = None if self.noise is None else self.noise[rows]
        return RowDraws(self.draws[rows], self.means[rows], self.biased, noise)

    def to(self, device: torch.device | str) -> RowDraws:
        """Return the same draws on another device."""
        return RowDraws(**{name: tensor.to(device) for name, tensor in self.tensors().items()})


def working_dtype(stored: Tensor) -> torch.dtype:
    """Return the dtype in which numbers stored like this are computed with: single precision at least."""
    return torch.float32 if stored.dtype == torch.float16 else stored.dtype


#: What a guide says of the rows of one side.
Rows: TypeAlias = RowPosterior | RowDraws
