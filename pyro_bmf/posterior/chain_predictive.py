r"""Predictions of pairs from the draws of a chain.

Moments of the predictor are averages over draws s,

.. math::

   E[\eta_{ij}] \approx \mu + \frac{1}{S} \sum_s \frac{1}{2}
   \left(E[u_i \mid V^{(s)}] \cdot v_j^{(s)} + u_i^{(s)} \cdot E[v_j \mid U^{(s)}]\right) + \ldots,

with one side's conditional mean in place of its draw (Rao-Blackwell): the same expectation with less Monte
Carlo error. The variance is that of the joint draws. Everything a likelihood makes of these moments is
inherited.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.rows import RowDraws, working_dtype
from ..numerics.chunks import chunks
from ..numerics.keyed_draws import Stream
from .predictive import CELLS, Indices, PairPredictive

#: Numbers of draws that stand in single precision together: all of them, of an ordinary catalogue.
_TABLE = 50_000_000


@dataclass(frozen=True, eq=False)
class ChainPredictive(PairPredictive):
    """`PairPredictive` for rows that are draws of a chain, in step with each other."""

    users: RowDraws
    items: RowDraws

    @property
    def _sides(self) -> tuple[bool, bool]:
        """Which side's conditional means are used: a folded-in row's draw rests on the other side's draw."""
        if self.user_stream == Stream.FOLDED_USERS:
            return True, False
        if self.item_stream == Stream.FOLDED_ITEMS:
            return False, True
        return True, True

    @torch.no_grad()
    def eta_moments(self, users: Indices, items: Indices) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the predictor of each pair over the chain, float64, shape (n,)."""
        n_draws = self.users.n_draws
        means, variances = [], []
        for part in chunks(len(users), max(1, CELLS // (4 * n_draws * self.users.draws.shape[-1]))):
            i = torch.tensor(users[part], device=self.device)
            j = torch.tensor(items[part], device=self.device)
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
            nothing = torch.zeros(0, dtype=torch.float64, device=self.device)
            return nothing, nothing
        return torch.cat(means), torch.cat(variances)

    def _eta(self, u: Tensor, v: Tensor) -> Tensor:
        """Return the predictor for rows (..., D) of both sides."""
        if not self.users.bias:
            return (u * v).sum(-1) + self.model.predictor_centre
        return (u[..., :-1] * v[..., :-1]).sum(-1) + u[..., -1] + v[..., -1] + self.model.predictor_centre

    @torch.no_grad()
    def score(self, users: Indices, items: Indices) -> NDArray[np.float32]:
        """Return the posterior-predictive mean of every user with every item, shape (n_users, n_items).

        One pass a draw over a block of users: products of the draws' factors, their sum and their squares'.
        """
        result = np.empty((len(users), len(items)), dtype=np.float32)
        if not result.size:
            return result
        for block in chunks(len(items), max(1, _TABLE // self.items.means[0].numel())):
            self._score_block(users, items[block], result[:, block])
        return result

    def _score_block(self, users: Indices, items: Indices, result: NDArray[np.float32]) -> None:
        """Write the scores of some items, whose draws are held in single precision together."""
        j = torch.tensor(items, device=self.device)
        right = _features(self.items.draws_of(j), self.items.bias, ones_first=False)
        right_means = _features(self.items.means_of(j), self.items.bias, ones_first=False)
        use_user, use_item = self._sides
        n_draws = self.users.n_draws
        for part in chunks(len(users), max(1, CELLS // max(len(items), 1))):
            i = torch.tensor(users[part], device=self.device)
            left = _features(self.users.draws_of(i), self.users.bias, ones_first=True)
            left_means = _features(self.users.means_of(i), self.users.bias, ones_first=True)
            total = torch.zeros(len(i), len(j), device=self.device)
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
            total = total / (n_draws * (use_user + use_item)) + self.model.predictor_centre.to(total.dtype)
            result[part] = self._mean_ratings(total, variance, users[part], items)

    @torch.no_grad()
    def variances(self, users: Indices, items: Indices) -> Tensor:
        """Return the variance of the predictor of every user with every item, (n_users, n_items), float32.

        Over the kept draws; one of the two sides is to be short.
        """
        n_draws = self.users.n_draws
        found = torch.empty(len(users), len(items), device=self.device)
        size = max(1, _TABLE // self.items.means[0].numel())
        for rows in chunks(len(users), size):
            i = torch.tensor(users[rows], device=self.device)
            left = _features(self.users.draws_of(i), self.users.bias, ones_first=True)
            for columns in chunks(len(items), size):
                j = torch.tensor(items[columns], device=self.device)
                right = _features(self.items.draws_of(j), self.items.bias, ones_first=False)
                mean = torch.zeros(len(i), len(j), device=self.device)
                square = torch.zeros_like(mean)
                for s in range(n_draws):
                    drawn = left[:, s] @ right[:, s].T
                    mean += drawn
                    square.addcmul_(drawn, drawn)
                mean /= n_draws
                found[rows, columns] = (square / n_draws - mean * mean).clamp_min_(0.0)
        return found

    @torch.no_grad()
    def draw_rows(self, side: str, rows: Indices, draws: Indices, seed: int) -> tuple[Tensor, Tensor | None]:
        """Return draws of the chain: factors (n_draws, n_rows, K) and biases (n_draws, n_rows) or None.

        A chain has the draws that were kept; a number beyond them starts over, and `seed` chooses nothing.
        """
        del seed
        chosen = self.users if side == "user" else self.items
        own = torch.tensor(rows, device=self.device)
        at = torch.tensor(draws % chosen.n_draws, device=self.device)
        drawn = chosen.draws[own.unsqueeze(1), at].to(working_dtype(chosen.draws)).transpose(0, 1)
        if not chosen.bias:
            return drawn, None
        return drawn[..., :-1], drawn[..., -1]


def _features(rows: Tensor, bias: bool, *, ones_first: bool) -> Tensor:
    """Return rows (n, S, D) with a one beside the bias, so that a product of two is the whole predictor."""
    if not bias:
        return rows
    ones = torch.ones_like(rows[..., -1:])
    parts = [rows[..., :-1], rows[..., -1:], ones] if ones_first else [rows[..., :-1], ones, rows[..., -1:]]
    return torch.cat(parts, -1)
