r"""Rows that are independent Normals, and the exact moments of predictors of pairs of them.

Under independent rows with means a, b and standard deviations t, s, the predictor
:math:`\eta = \mu + b_i + c_j + u_i \cdot v_j` has exactly

.. math::

   E[\eta] = \mu + E[b_i] + E[c_j] + a \cdot b, \qquad
   \mathrm{var}[\eta] = \sum_k \left(a_k^2 s_k^2 + b_k^2 t_k^2 + t_k^2 s_k^2\right)
                        + \mathrm{var}[b_i] + \mathrm{var}[c_j].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..numerics.chunks import CELLS, chunks
from ..numerics.keyed_draws import Stream, row_noise
from ..numerics.room import cells_on
from .fitted import ChainHyper, Indices, Side, UserGivenItems
from .sampling import IndependentDraws

#: Numbers of pairs' covariances that are read at once, so that they stay in a cache.
_CELLS = 200_000

_LOG_2PI = math.log(2.0 * math.pi)


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
    noise_factor : Tensor or None, shape (n,)
        What each row multiplies the likelihood's standard deviation by; None for ones. Of a guide, the median
        of its log-normal q.
    noise_factor_log_sd : Tensor or None, shape (n,)
        Standard deviation of the logarithm of `noise_factor` under q, where a guide gave it.
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
    noise_factor: Tensor | None = None
    positive: Tensor | None = None
    noise_factor_log_sd: Tensor | None = None
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
    def noise_spread(self) -> None:
        """None: predictions take noise multipliers at the median of their q."""

    @property
    def n_factors(self) -> int:
        """Number of factors."""
        return self.loc.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.loc.device

    @property
    def sampling(self) -> IndependentDraws:
        """Draws are independent, and there is any number of them."""
        return IndependentDraws()

    def pairs_with(self, items: RowPosterior, centre: Tensor, streams: tuple[Stream, Stream]) -> NormalPairs:
        """Return these rows, users, together with items; see `fitted.Rows`."""
        return NormalPairs(self, items, centre, streams)

    def factor_moments(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give means and variances of the factors, (n, n_factors) each, float64: one setting."""
        yield self.loc.double(), self.scale.double() ** 2

    def normals(self, refusal: str) -> RowPosterior:
        """Return these rows."""
        del refusal
        return self

    def bias_draws(self) -> None:
        """Return None: no draws are kept."""

    def summaries(self) -> dict[str, Tensor]:
        """Return means and standard deviations of biases and of factors."""
        found = {"bias_loc": self.bias_loc, "bias_scale": self.bias_scale}
        named = {name: tensor for name, tensor in found.items() if tensor is not None}
        return {**named, "loc": self.loc, "scale": self.scale}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, those that there are."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def select(self, rows: Tensor) -> RowPosterior:
        """Return the posterior of the given rows, in the given order."""
        return self.with_each(lambda tensor: tensor[rows])

    def with_each(self, change: Callable[[Tensor], Tensor]) -> RowPosterior:
        """Return the posterior with each tensor changed."""
        return RowPosterior(**{name: change(tensor) for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str) -> RowPosterior:
        """Return the same posterior on another device."""
        return self.with_each(lambda tensor: tensor.to(device))

    def double(self) -> RowPosterior:
        """Return the same posterior in float64."""
        return self.with_each(lambda tensor: tensor if tensor.dtype == torch.bool else tensor.double())

    def detach(self) -> RowPosterior:
        """Return the same numbers without a gradient."""
        return self.with_each(Tensor.detach)

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
        """Draw factors (…, n, n_factors) and biases (…, n); `num_samples` adds a leading axis of draws.

        A `generator` is of the rows' device.
        """
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
class NormalPairs:
    """Users and items that are independent Normals: `fitted.RowPairs`.

    Attributes
    ----------
    users, items : RowPosterior
    centre : Tensor, shape ()
        What every predictor starts from.
    streams : tuple of Stream
        Which random numbers make the draws of users and of items.
    """

    users: RowPosterior
    items: RowPosterior
    centre: Tensor
    streams: tuple[Stream, Stream]

    def moments(self, users: Indices, items: Indices) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the predictor of each pair, float64, shape (n,): exact."""
        if self.users.tril is not None or self.items.tril is not None:
            return self._full_moments(users, items)
        u, v = self._chosen(self.users, users).double(), self._chosen(self.items, items).double()
        mean = (u.loc * v.loc).sum(-1) + self.centre.double()
        u2, v2, t2, s2 = u.loc**2, v.loc**2, u.scale**2, v.scale**2
        variance = (u2 * s2 + t2 * (v2 + s2)).sum(-1)
        for row in (u, v):
            if row.bias_loc is not None and row.bias_scale is not None:
                mean = mean + row.bias_loc
                variance = variance + row.bias_scale**2
        return mean, variance

    def _full_moments(self, users: Indices, items: Indices) -> tuple[Tensor, Tensor]:
        """Return mean and variance for full covariances: of [u, b] against [v, 1] and the like.

        Covariances are made once a row, and read by so many pairs at a time as fit a cache.
        """
        (u, cov_u, at_u), (v, cov_v, at_v) = (
            self._distinct(self.users, users),
            self._distinct(self.items, items),
        )
        k = u.n_factors
        mean, variance = (cov_u.new_empty(len(users)) for _ in range(2))
        for part in chunks(len(users), cells_on(cov_u.device, _CELLS) // cov_u.shape[-1] ** 2):
            mine, its = at_u[part], at_v[part]
            left, right = u.loc[mine], v.loc[its]
            mean[part] = (left * right).sum(-1) + self.centre.double()
            if u.bias_loc is not None and v.bias_loc is not None:
                mean[part] += u.bias_loc[mine] + v.bias_loc[its]
                left, right = (torch.cat([rows, torch.ones_like(rows[:, :1])], 1) for rows in (left, right))
            own, other = cov_u[mine], cov_v[its]
            found = ((own @ right.unsqueeze(-1)).squeeze(-1) * right).sum(-1)
            found = found + ((other @ left.unsqueeze(-1)).squeeze(-1) * left).sum(-1)
            variance[part] = found + (own[:, :k, :k] * other[:, :k, :k]).sum((-2, -1))
        return mean, variance

    def _distinct(self, rows: RowPosterior, at: Indices) -> tuple[RowPosterior, Tensor, Tensor]:
        """Return the rows that are asked for, each once, in float64, their covariances, and where each is."""
        distinct, place = np.unique(at, return_inverse=True)
        chosen = self._chosen(rows, distinct).double()
        return chosen, chosen.covariance(), torch.from_numpy(place).to(rows.device)

    def table(self, users: Indices, items: Indices) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Give mean and variance of every user with every item, some users at a time."""
        v = self._chosen(self.items, items)
        v_second = v.loc**2 + v.scale**2
        for part in chunks(len(users), CELLS // max(len(items), 1)):
            u = self._chosen(self.users, users[part])
            mean = u.loc @ v.loc.T + self.centre.to(u.loc.dtype)
            if u.bias_loc is not None and v.bias_loc is not None:
                mean += u.bias_loc[:, None] + v.bias_loc
            yield part, slice(0, len(items)), mean, _variances(u, v, v_second)

    def draw(self, side: Side, rows: Indices, draws: Indices, seed: int) -> tuple[Tensor, Tensor | None]:
        """Draw rows of one side: factors (n_draws, n_rows, K) and biases (n_draws, n_rows) or None.

        Keyed by row (see `row_noise`): the same row, draw and seed give the same numbers in any request.
        """
        posterior, stream = (self.users, self.streams[0]) if side == "user" else (self.items, self.streams[1])
        q = self._chosen(posterior, rows)
        width = q.n_factors + (q.bias_loc is not None)
        noise = torch.from_numpy(row_noise(seed, stream, rows, draws, width)).to(q.loc.device, q.loc.dtype)
        return q.place(noise[..., : q.n_factors], None if q.bias_loc is None else noise[..., -1])

    def user_given_items(
        self, user: int, candidates: Indices, rated: Indices, hyper: ChainHyper | None
    ) -> UserGivenItems:
        """Return one user's q, and the items' in one setting: the ratings are in them."""
        del rated, hyper
        u = self._chosen(self.users, np.array([user])).double()
        v = self._chosen(self.items, candidates).double()
        k, biased = u.n_factors, u.bias_loc is not None
        covariance = v.covariance()
        features = torch.cat([v.loc, torch.ones_like(v.loc[:, :1])], 1) if biased else v.loc
        own = torch.cat([u.loc, torch.ones_like(u.loc[:, :1])], 1)[0] if biased else u.loc[0]
        mean, _ = self.moments(np.full(len(candidates), user), candidates)
        other = (covariance @ own) @ own
        return UserGivenItems(
            u.covariance(), features[None], mean[None], other[None], covariance[None, :, :k, :k]
        )

    @property
    def screened(self) -> bool:
        """False: the exact means are one product of matrices."""
        return False

    def screen_features(self, groups: int) -> None:
        """Return None: there is nothing to screen."""

    def variances(self, users: Indices, items: Indices) -> Tensor:
        """Return the variance of the predictor of every user with every item, float32."""
        return torch.cat([variance for _, _, _, variance in self.table(users, items)]).float()

    def _chosen(self, rows: RowPosterior, at: Indices) -> RowPosterior:
        return rows.select(torch.tensor(at, device=rows.device))


def _variances(u: RowPosterior, v: RowPosterior, v_second: Tensor) -> Tensor:
    """Return the variance of every pair's predictor, shape (n_users, n_items)."""
    if u.tril is None and v.tril is None:
        variance = u.loc**2 @ (v.scale**2).T + u.scale**2 @ v_second.T
        if u.bias_scale is not None and v.bias_scale is not None:
            variance += u.bias_scale[:, None] ** 2 + v.bias_scale**2
        return variance
    left, right = u.loc, v.loc
    if u.bias_loc is not None:
        one = torch.ones_like(left[:, :1])
        left, right = torch.cat([left, one], 1), torch.cat([right, torch.ones_like(right[:, :1])], 1)
    k = u.n_factors
    cov_u, cov_v = u.covariance(), v.covariance()

    def outer(rows: Tensor) -> Tensor:
        return (rows.unsqueeze(2) * rows.unsqueeze(1)).flatten(1)

    # Sums over entries of covariances are products of flattened matrices.
    variance = cov_u.flatten(1) @ outer(right).T + outer(left) @ cov_v.flatten(1).T
    return variance + cov_u[:, :k, :k].flatten(1) @ cov_v[:, :k, :k].flatten(1).T


def join(factors: Tensor, bias: Tensor | None) -> Tensor:
    """Put a bias behind the factors: (..., D)."""
    return factors if bias is None else torch.cat([factors, bias.unsqueeze(-1)], -1)


def log_density(q: RowPosterior, x: Tensor) -> Tensor:
    """Return log q(x), (S, n), of rows (S, n, D) under the posteriors of n rows: differentiable in both."""
    k = q.n_factors
    if q.tril is not None:
        loc = q.loc if q.bias_loc is None else torch.cat([q.loc, q.bias_loc[:, None]], 1)
        white = torch.linalg.solve_triangular(q.tril, (x - loc).permute(1, 2, 0), upper=False)
        log_det = q.tril.diagonal(dim1=1, dim2=2).log().sum(-1)
        joint: Tensor = -0.5 * (white**2).sum(1) - (log_det + 0.5 * x.shape[-1] * _LOG_2PI)[:, None]
        return joint.T
    if q.positive is None:
        total = _normal(x[..., :k], q.loc, q.scale).sum(-1)
    else:
        logs = x[..., :k].clamp_min(1e-300).log()
        total = (_normal(logs, *q.logarithms()) - logs).sum(-1)
    if q.bias_loc is not None and q.bias_scale is not None:
        total = total + _normal(x[..., -1], q.bias_loc, q.bias_scale)
    return total


def _normal(x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((x - loc) / scale) ** 2 - scale.log() - 0.5 * _LOG_2PI
