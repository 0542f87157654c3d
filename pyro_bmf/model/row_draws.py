r"""Rows as draws of a chain, and predictors of pairs of them.

Moments of the predictor are averages over draws s,

.. math::

   E[\eta_{ij}] \approx \mu + \frac{1}{S} \sum_s \frac{1}{2}
   \left(E[u_i \mid V^{(s)}] \cdot v_j^{(s)} + u_i^{(s)} \cdot E[v_j \mid U^{(s)}]\right) + \ldots,

with one side's conditional mean in place of its draw (Rao-Blackwell): the same expectation with less Monte
Carlo error. The variance is that of the joint draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from ..errors import SettingsError
from ..numerics.chunks import CELLS, chunks
from ..numerics.keyed_draws import Stream
from .fitted import ChainHyper, Indices, Side, UserGivenItems
from .sampling import ChainDraws

#: Numbers of draws that stand in single precision together: all of them, of an ordinary catalogue.
_TABLE = 50_000_000
#: Numbers of conditional means that are averaged at once for short features.
_GROUPED = 20_000_000
#: Draws of the items at which a user's conditional is looked at.
_SETTINGS = 40


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
    noise_factor : Tensor or None, shape (n,)
        Posterior mean of what each row multiplies the likelihood's standard deviation by.
    noise_spread : Tensor or None, shape (n,)
        Standard deviation of its logarithm over draws; None in chains of earlier versions.
    chains : Tensor or None, shape (), int64
        Number of chains, whose draws stand alternately; None of one chain.
    """

    draws: Tensor
    means: Tensor
    biased: Tensor
    noise_factor: Tensor | None = None
    noise_spread: Tensor | None = None
    chains: Tensor | None = None

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
    def n_chains(self) -> int:
        """Number of chains."""
        return 1 if self.chains is None else int(self.chains)

    @property
    def n_factors(self) -> int:
        """Number of factors."""
        return self.draws.shape[-1] - self.bias

    @property
    def device(self) -> torch.device:
        """Where the numbers are."""
        return self.draws.device

    @property
    def sampling(self) -> ChainDraws:
        """The draws are those that the chain kept."""
        return ChainDraws(self.n_draws, self.n_chains)

    @property
    def noise_factor_log_sd(self) -> None:
        """None: what a chain knows of how uncertain its noise multipliers are is `noise_spread`."""

    @property
    def cuts(self) -> None:
        """None: cut points are shared."""

    @property
    def cuts_scale(self) -> None:
        """None: cut points are shared."""

    def pairs_with(self, items: RowDraws, centre: Tensor, streams: tuple[Stream, Stream]) -> DrawnPairs:
        """Return these rows, users, together with items; see `fitted.Rows`."""
        return DrawnPairs(self, items, centre, streams)

    def factor_moments(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the factors of one draw after the other, (n, n_factors), float64, and no variance."""
        for draw in range(self.n_draws):
            factors = self.draws[:, draw, : self.n_factors].double()
            yield factors, torch.zeros_like(factors)

    def normals(self, refusal: str) -> NoReturn:
        """Raise SettingsError with `refusal`."""
        raise SettingsError(refusal)

    def bias_draws(self) -> Tensor | None:
        """Return the draws of the biases, (n, n_draws); None where rows have none."""
        return self.draws[..., -1] if self.bias else None

    def summaries(self) -> dict[str, Tensor]:
        """Return means and standard deviations of biases: single factors have no identity."""
        if not self.bias:
            return {}
        bias = self.draws[..., -1].to(working_dtype(self.draws))
        return {"bias_loc": bias.mean(1), "bias_scale": bias.std(1)}

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
        noise = None if self.noise_factor is None else self.noise_factor[rows]
        spread = None if self.noise_spread is None else self.noise_spread[rows]
        return RowDraws(self.draws[rows], self.means[rows], self.biased, noise, spread, self.chains)

    def with_each(self, change: Callable[[Tensor], Tensor]) -> RowDraws:
        """Return the rows with each tensor changed."""
        return RowDraws(**{name: change(tensor) for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str) -> RowDraws:
        """Return the same draws on another device."""
        return self.with_each(lambda tensor: tensor.to(device))


def working_dtype(stored: Tensor) -> torch.dtype:
    """Return the dtype in which numbers stored like this are computed with: single precision at least."""
    return torch.float32 if stored.dtype == torch.float16 else stored.dtype


@dataclass(frozen=True, eq=False)
class DrawnPairs:
    """Users and items that are draws of one chain, in step with each other: `fitted.RowPairs`.

    Attributes
    ----------
    users, items : RowDraws
    centre : Tensor, shape ()
        What every predictor starts from.
    streams : tuple of Stream
        They tell which rows are folded in.
    """

    users: RowDraws
    items: RowDraws
    centre: Tensor
    streams: tuple[Stream, Stream]

    @property
    def _sides(self) -> tuple[bool, bool]:
        """Which side's conditional means are used: a folded-in row's draw rests on the other side's draw."""
        if self.streams[0] == Stream.FOLDED_USERS:
            return True, False
        if self.streams[1] == Stream.FOLDED_ITEMS:
            return False, True
        return True, True

    def moments(self, users: Indices, items: Indices) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the predictor of each pair over the chain, float64, shape (n,)."""
        n_draws = self.users.n_draws
        means, variances = [], []
        for part in chunks(len(users), max(1, CELLS // (4 * n_draws * self.users.draws.shape[-1]))):
            i = torch.tensor(users[part], device=self.users.device)
            j = torch.tensor(items[part], device=self.users.device)
            u, v = self.users.draws_of(i), self.items.draws_of(j)
            drawn = self._eta(u, v).double()
            by_side = []
            use_user, use_item = self._sides
            if use_user:
                by_side.append(self._eta(self.users.means_of(i), v).double().mean(1))
            if use_item:
                by_side.append(self._eta(u, self.items.means_of(j)).double().mean(1))
            means.append(torch.stack(by_side).mean(0))
            variances.append(drawn.var(1, correction=1 if n_draws > 1 else 0))
        if not means:
            nothing = torch.zeros(0, dtype=torch.float64, device=self.users.device)
            return nothing, nothing
        return torch.cat(means), torch.cat(variances)

    def _eta(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the predictor for rows (..., D) of both sides."""
        if not self.users.bias:
            return (u * v).sum(-1) + self.centre
        return (u[..., :-1] * v[..., :-1]).sum(-1) + u[..., -1] + v[..., -1] + self.centre

    def table(self, users: Indices, items: Indices) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
        """Give mean and variance of every user with every item, a block of both at a time.

        One pass a draw over a block of users: products of the draws' factors, their sum and their squares'.
        """
        use_user, use_item = self._sides
        n_draws, device = self.users.n_draws, self.users.device
        for block in chunks(len(items), max(1, _TABLE // self.items.means[0].numel())):
            # The items of a block are those whose draws are held in single precision together.
            j = torch.tensor(items[block], device=device)
            right = _features(self.items.draws_of(j), self.items.bias, ones_first=False)
            right_means = _features(self.items.means_of(j), self.items.bias, ones_first=False)
            for part in chunks(len(users), max(1, CELLS // max(len(j), 1))):
                i = torch.tensor(users[part], device=device)
                left = _features(self.users.draws_of(i), self.users.bias, ones_first=True)
                left_means = _features(self.users.means_of(i), self.users.bias, ones_first=True)
                total = torch.zeros(len(i), len(j), device=device)
                mean, square = torch.zeros_like(total), torch.zeros_like(total)
                for s in range(n_draws):
                    drawn = left[:, s] @ right[:, s].T
                    mean += drawn
                    square += drawn * drawn
                    if use_user:
                        total += left_means[:, s] @ right[:, s].T
                    if use_item:
                        total += left[:, s] @ right_means[:, s].T
                mean /= n_draws
                variance = (square / n_draws - mean * mean).clamp_min(0.0) * (n_draws / max(n_draws - 1, 1))
                total = total / (n_draws * (use_user + use_item)) + self.centre.to(total.dtype)
                yield part, block, total, variance

    def variances(self, users: Indices, items: Indices) -> Tensor:
        """Return the variance of the predictor of every user with every item, (n_users, n_items), float32.

        Over the kept draws; one of the two sides is to be short.
        """
        n_draws = self.users.n_draws
        found = torch.empty(len(users), len(items), device=self.users.device)
        size = max(1, _TABLE // self.items.means[0].numel())
        for rows in chunks(len(users), size):
            i = torch.tensor(users[rows], device=self.users.device)
            left = _features(self.users.draws_of(i), self.users.bias, ones_first=True)
            for columns in chunks(len(items), size):
                j = torch.tensor(items[columns], device=self.users.device)
                right = _features(self.items.draws_of(j), self.items.bias, ones_first=False)
                mean = torch.zeros(len(i), len(j), device=self.users.device)
                square = torch.zeros_like(mean)
                for s in range(n_draws):
                    drawn = left[:, s] @ right[:, s].T
                    mean += drawn
                    square.addcmul_(drawn, drawn)
                mean /= n_draws
                found[rows, columns] = (square / n_draws - mean * mean).clamp_min_(0.0)
        return found

    def draw(self, side: Side, rows: Indices, draws: Indices, seed: int) -> tuple[Tensor, Tensor | None]:
        """Return draws of the chain: factors (n_draws, n_rows, K) and biases (n_draws, n_rows) or None.

        A chain has the draws that were kept; a number beyond them starts over, and `seed` chooses nothing.
        """
        del seed
        chosen = self.users if side == "user" else self.items
        own = torch.tensor(rows, device=chosen.device)
        at = torch.tensor(draws % chosen.n_draws, device=chosen.device)
        drawn = chosen.draws[own.unsqueeze(1), at].to(working_dtype(chosen.draws)).transpose(0, 1)
        if not chosen.bias:
            return drawn, None
        return drawn[..., :-1], drawn[..., -1]

    def user_given_items(
        self, user: int, candidates: Indices, rated: Indices, hyper: ChainHyper | None
    ) -> UserGivenItems:
        """Return the user's conditional (given utilities) at some of the draws of the items."""
        assert hyper is not None, "the draws of a chain go with those of its hyperparameters"
        users, items, biased = self.users, self.items, self.users.bias
        device = users.device
        every = torch.linspace(0, users.n_draws - 1, min(_SETTINGS, users.n_draws)).long().to(device)
        precision = torch.stack([hyper.prior.at(draw)[0] for draw in every.tolist()])
        own_noise = 1.0 if users.noise_factor is None else float(users.noise_factor[user])

        def features(at: Indices) -> tuple[Tensor, Tensor]:
            drawn = items.draws[torch.tensor(at, device=device)][:, every].double().transpose(0, 1)
            if not biased:
                return drawn, torch.zeros_like(drawn[..., 0])
            return torch.cat([drawn[..., :-1], torch.ones_like(drawn[..., :1])], -1), drawn[..., -1]

        seen, _ = features(rated)
        weight = hyper.noise_precision[every].double()[:, None] / own_noise**2
        if items.noise_factor is not None:
            weight = weight * items.noise_factor[torch.tensor(rated, device=device)].double()[None] ** -2
        else:
            weight = weight.expand(-1, len(rated))
        covariance = torch.linalg.inv(precision + (seen * weight.unsqueeze(-1)).mT @ seen)
        f, bias = features(candidates)
        means = users.means[user, every].double()
        mean = (f @ means.unsqueeze(-1)).squeeze(-1) + bias + self.centre.double()
        return UserGivenItems(covariance, f, mean, torch.zeros_like(mean), None)

    @property
    def screened(self) -> bool:
        """True: exact means take three products a draw."""
        return True

    def screen_features(self, groups: int) -> tuple[Tensor, Tensor]:
        """Return conditional means averaged over groups of draws, beside ones, (n, groups * (D + 1))."""
        groups = min(groups, self.users.n_draws)
        return _grouped(self.users, groups, ones_first=True), _grouped(self.items, groups, ones_first=False)


def _features(rows: Tensor, bias: bool, *, ones_first: bool) -> Tensor:
    """Return rows (n, S, D) with a one beside the bias, so that a product of two is the whole predictor."""
    if not bias:
        return rows
    ones = torch.ones_like(rows[..., -1:])
    parts = [rows[..., :-1], rows[..., -1:], ones] if ones_first else [rows[..., :-1], ones, rows[..., -1:]]
    return torch.cat(parts, -1)


def _grouped(rows: RowDraws, groups: int, *, ones_first: bool) -> Tensor:
    """Return rows' conditional means averaged over groups of draws, beside ones, (n, groups * (D + 1))."""
    n, n_draws, width = rows.means.shape
    edges = np.linspace(0, n_draws, groups + 1).astype(np.int64)
    # Factors turn in the course of a chain, and stand anywhere in another: groups are of neighbours in one.
    in_order = torch.arange(n_draws, device=rows.device).reshape(-1, rows.n_chains).mT.flatten()
    found = torch.empty(n, groups, width + int(rows.bias), device=rows.device)
    for part in chunks(n, _GROUPED // (n_draws * width)):
        means = rows.means_of(torch.arange(part.start, part.stop, device=rows.device))
        means = means if rows.chains is None else means[:, in_order]
        for g in range(groups):
            mean = means[:, edges[g] : edges[g + 1]].mean(1)
            if rows.bias:
                ones, factors, bias = torch.ones_like(mean[:, :1]), mean[:, :-1], mean[:, -1:]
                sides = (factors, bias, ones) if ones_first else (factors, ones, bias)
                mean = torch.cat(sides, 1)
            found[part, g] = mean
    if ones_first:
        found *= torch.from_numpy(np.diff(edges) / n_draws).to(found).view(1, -1, 1)
    return found.flatten(1)
