r"""Selection factors: implicit-feedback factorization whose zeros all count, through the Gram matrix.

Whether user i rated item j is :math:`s_{ij} \sim N(u_i \cdot v_j, 1 / \alpha_{ij})`, with the precision
:math:`\alpha_1` where it is one and :math:`\alpha_0` where it is zero (Hu, Koren and Volinsky 2008, doi
10.1109/ICDM.2008.22), rows :math:`N(0, \lambda^{-1} I)`. A row given the other side is Normal with

.. math:: P_i = \lambda I + \alpha_0 V^T V + (\alpha_1 - \alpha_0) \sum_{j \in N(i)} v_j v_j^T, \qquad
          h_i = \alpha_1 \sum_{j \in N(i)} v_j,

the kernel of the ratings' own rows (`pyro_bmf.methods.kernel`) with :math:`\alpha_0 V^T V` added to the
prior's precision. Sides alternate at their conditional means. A user's posterior given the items is exact,
for known and new users; what is unknown of the items is left out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..methods.kernel import Conditional, Entries, outer_products
from ..numerics.chunks import chunks
from ..numerics.keyed_draws import row_noise
from ..numerics.segment_sums import bag_sum
from .contract import Scorer, Scores
from .rated_sets import Indices, RatedSets

_CELLS = 8_000_000


@dataclass(frozen=True)
class FactorSettings:
    """What selection factors are fitted with.

    Attributes
    ----------
    n_factors : int
    zero_precision, one_precision : float
        alpha_0 and alpha_1.
    ridge : float
        The rows' prior precision.
    sweeps : int
        Of both sides.
    seed : int
        Of the start.
    """

    n_factors: int = 32
    zero_precision: float = 1.0
    one_precision: float = 10.0
    ridge: float = 50.0
    sweeps: int = 8
    seed: int = 0


@dataclass(frozen=True, eq=False)
class SelectionFactors:
    """Item factors, from which any user's posterior follows.

    Attributes
    ----------
    items : Tensor, shape (J, K), float32
    fitted_with : FactorSettings
    """

    items: Tensor
    fitted_with: FactorSettings
    word: ClassVar[str] = "factors"

    @classmethod
    def fit(cls, rated: RatedSets, settings: FactorSettings | None = None) -> SelectionFactors:
        """Fit by alternating conditional means, from a start that the seed decides."""
        how = FactorSettings() if settings is None else settings
        matrix = rated.matrix.tocsr()
        by_user, by_item = _entries(matrix), _entries(matrix.T.tocsr())
        noise = row_noise(
            how.seed, rated.stream, np.arange(matrix.shape[1]), np.zeros(1, np.int64), how.n_factors
        )
        items = torch.from_numpy(noise[0]).float() * 0.1
        for _ in range(how.sweeps):
            users = _means(by_user, items, how)
            items = _means(by_item, users, how)
        return cls(items, how)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.items)

    def scores(self, rated: RatedSets) -> Scores:
        """Return u_i . v_j at the users' conditional means, (n_users, J), float32."""
        users = self._conditional(rated).mean(torch.zeros(self.items.shape[1]))
        found: Scores = (users @ self.items.T).numpy()
        return found

    def draw_scores(self, rated: RatedSets, columns: Indices, draws: Indices, seed: int) -> NDArray[Any]:
        """Draw scores through draws of the users' rows, which are common to a user's items."""
        width = self.items.shape[1]
        conditional = self._conditional(rated)
        mean = conditional.mean(torch.zeros(width))
        noise = torch.from_numpy(row_noise(seed, rated.stream, rated.keys, draws, width)).float()
        own = self.items[torch.from_numpy(columns)]
        found = np.empty((len(draws), *columns.shape), dtype=np.float32)
        for place in range(len(draws)):
            users = mean + conditional.spread(noise[place])
            found[place] = torch.einsum("nk,nmk->nm", users, own).numpy()
        return found

    def influence(self, items: Indices, item: int) -> NDArray[np.float64]:
        r"""Return :math:`\alpha_1 v_j^T P_i^{-1} v_k` of the rated items k: the score is their sum."""
        pairs = np.zeros(len(items), dtype=np.int64), items
        conditional = self._conditional(RatedSets.of_pairs(*pairs, (1, self.n_items)))
        toward = conditional.solve(self.items[item].unsqueeze(0))[0]
        found: NDArray[np.float64] = (
            (self.items[torch.from_numpy(items)] @ toward).double() * self.fitted_with.one_precision
        ).numpy()
        return found

    def refitted(self, rated: RatedSets) -> SelectionFactors:
        """Fit factors with the same settings to other sets."""
        return SelectionFactors.fit(rated, self.fitted_with)

    def left_out(self, rated: RatedSets, users: Indices) -> Scorer:
        """Fit again to the other users."""
        others = np.setdiff1d(np.arange(len(rated)), users)
        return SelectionFactors.fit(rated.take(others), self.fitted_with).scores

    def settings(self) -> dict[str, Any]:
        """Return what it was fitted with."""
        return vars(self.fitted_with).copy()

    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """Return the item factors."""
        return {"items": self.items.numpy()}

    @classmethod
    def from_saved(cls, settings: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> SelectionFactors:
        """Take the factors back."""
        items, fitted_with = tensors["items"], FactorSettings(**settings)
        if items.ndim != 2 or items.shape[1] != fitted_with.n_factors:
            raise ValueError(f"items have the shape {items.shape} with {fitted_with.n_factors} factors")
        for name in ("zero_precision", "one_precision", "ridge"):
            value = settings.get(name, 1.0)
            if not (isinstance(value, (int, float)) and 0.0 < value < float("inf")):
                raise ValueError(f"{name} is {value!r}")
        return cls(torch.from_numpy(items), fitted_with)

    def _conditional(self, rated: RatedSets) -> Conditional:
        return _conditional(
            _entries(rated.matrix.tocsr()), self.items, self.fitted_with, slice(0, len(rated))
        )


def _entries(matrix: Any) -> Entries:
    """Return the observed pairs from the rows' side."""
    other = matrix.tocsc()
    indptr, indices, t_indptr, t_indices = (
        torch.from_numpy(np.asarray(part, dtype=np.int64))
        for part in (matrix.indptr, matrix.indices, other.indptr, other.indices)
    )
    return Entries.build(indptr, indices, t_indptr, t_indices, torch.float32)


def _conditional(entries: Entries, other: Tensor, how: FactorSettings, part: slice) -> Conditional:
    """Return the conditionals of some rows given the other side."""
    width = other.shape[1]
    own = entries.indptr[part.start : part.stop + 1]
    inside = entries.indices[int(own[0]) : int(own[-1])]
    distinct, place = torch.unique(inside, return_inverse=True)
    table = other[distinct]
    starts = own - own[0]
    products = bag_sum(outer_products(table), place, starts, None).reshape(-1, width, width)
    sums = bag_sum(table, place, starts, None)
    prior = how.ridge * torch.eye(width) + how.zero_precision * (other.T @ other)
    more = (how.one_precision - how.zero_precision) * products
    return Conditional.of(prior, more, how.one_precision * sums)


def _means(entries: Entries, other: Tensor, how: FactorSettings) -> Tensor:
    """Return all rows' conditional means."""
    width = other.shape[1]
    zero = torch.zeros(width)
    size = max(1, _CELLS // (width * width))
    found = [_conditional(entries, other, how, part).mean(zero) for part in chunks(entries.n_rows, size)]
    return torch.cat(found) if found else other.new_zeros(0, width)
