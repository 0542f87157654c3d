r"""Rankers over the graph of users and items: LightGCN and NGCF.

A positive pair (i, j) is an edge of weight :math:`c_{ij} = 1 / \sqrt{n_i n_j}`, with the ends' numbers of
edges. One step to the neighbours is :math:`\bar u_i = \sum_j c_{ij} v_j` and
:math:`\bar v_j = \sum_i c_{ij} u_i`: two embedding bags over the stored pairs, and never a matrix of users
times items. A pair's score is the product of what the layers make of the two embeddings, and training
minimises the BPR loss of positive pairs against drawn ones.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, leaky_relu

from pyro_bmf.baselines.neural.embeddings import embedding
from pyro_bmf.baselines.neural.network_ranker import Negatives, NetworkRanker, bpr_loss
from pyro_bmf.baselines.neural.ranking_settings import LightGCNSettings, NGCFSettings, RankerSettings
from pyro_bmf.data import Ratings
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.feedback_sums import feedback_sum

S = TypeVar("S", bound=RankerSettings)

#: Standard deviation of LightGCN's embeddings at the start, as in its authors' program.
_SCALE = 0.1
#: Slope of NGCF's LeakyReLU below zero, as in its authors' program.
_SLOPE = 0.2


@dataclass(frozen=True, eq=False)
class PairGraph:
    """Positive pairs with their weights, from either side.

    Attributes
    ----------
    by_user, by_item : Feedback
        Rows of users over items, and of items over users.
    """

    by_user: Feedback
    by_item: Feedback

    @classmethod
    def of_pairs(cls, users: Tensor, items: Tensor, n_users: int, n_items: int) -> PairGraph:
        """Weigh the pairs by the roots of their ends' numbers of pairs."""
        per_user, per_item = (
            torch.bincount(rows, minlength=n).to(torch.get_default_dtype())
            for rows, n in ((users, n_users), (items, n_items))
        )
        weights = (per_user[users] * per_item[items]).rsqrt()
        return cls(
            Feedback.from_coo(users, items, weights, n_users, n_items),
            Feedback.from_coo(items, users, weights, n_items, n_users),
        )

    def spread(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return what users get of their items' embeddings, and items of their users'."""
        return (
            feedback_sum(self.by_user, items, by_rating=True),
            feedback_sum(self.by_item, users, by_rating=True),
        )


class GraphNetwork(nn.Module):
    """Embeddings, and layers that spread them over the graph.

    Attributes
    ----------
    users, items : torch.nn.Embedding
        Those of users and items without positive pairs are 0.
    """

    def __init__(self, rated_users: Tensor, rated_items: Tensor, n_factors: int) -> None:
        super().__init__()
        self.users, self.items = (
            embedding(rated, n_factors, self.start_sd(len(rated), n_factors))
            for rated in (rated_users, rated_items)
        )

    def start_sd(self, n_rows: int, n_factors: int) -> float:
        """Return the standard deviation of the embeddings at the start."""
        del n_rows, n_factors
        return _SCALE

    @abstractmethod
    def spread(self, graph: PairGraph) -> tuple[Tensor, Tensor]:
        """Return what pairs are scored by, of all users and of all items."""


class GraphRanker(NetworkRanker[S]):
    """A ranker whose scores are products of embeddings that were spread over the graph of positive pairs.

    New users cannot be ranked for: an embedding is what training gives.
    """

    network: GraphNetwork

    @abstractmethod
    def make(self, rated_users: Tensor, rated_items: Tensor) -> GraphNetwork:
        """Return the network at its start."""

    def build(self, train: Ratings) -> nn.Module:
        """Return the network at its start."""
        users, items = self.pairs(train)
        per_user = torch.bincount(users, minlength=train.n_users)
        per_item = torch.bincount(items, minlength=train.n_items)
        return self.make(per_user.cpu() > 0, per_item.cpu() > 0)

    def read(self, train: Ratings) -> Tensor:
        """Build the graph; each positive pair is a case."""
        self._users, self._items = self.pairs(train)
        self._graph = PairGraph.of_pairs(self._users, self._items, train.n_users, train.n_items)
        self._negatives = Negatives(self._users, self._items, train.n_items)
        return torch.arange(len(self._users), device=self.device)

    def penalized(self) -> list[Tensor]:
        """Return the weights of the layers: embeddings are penalised pair by pair."""
        tables = (self.network.users.weight, self.network.items.weight)
        return [p for p in self.network.parameters() if all(p is not table for table in tables)]

    def penalty(self) -> Tensor | float:
        """Return half of the layers' squared norms, weighted; nothing where there are no layers."""
        return super().penalty() if self.penalized() else 0.0

    def batch_loss(self, cases: Tensor, progress: float) -> tuple[Tensor, int]:
        """Return the BPR loss, with norms of the pairs' own embeddings and of the layers."""
        del progress
        users, liked = self._users[cases], self._items[cases]
        other, counted = self._negatives.draw(users)
        u, v = self.network.spread(self._graph)
        loss = bpr_loss(u[users], v[liked], v[other], counted)
        if self.options.l2:
            tables = ((self.network.users, users), (self.network.items, liked), (self.network.items, other))
            norms = torch.stack([(table(rows) ** 2).sum(1).mean() for table, rows in tables])
            loss = loss + 0.5 * self.options.l2 * norms.sum()
        return loss + self.penalty(), len(cases)

    def refresh(self) -> None:
        """Spread the embeddings of all users and items."""
        self._spread = self.network.spread(self._graph)

    def user_scores(self, users: Tensor) -> Tensor:
        """Return the products with every item."""
        of_users, of_items = self._spread
        return of_users[users] @ of_items.T

    @property
    def _n_items(self) -> int:
        return self.network.items.num_embeddings


class LightGCNNetwork(GraphNetwork):
    """The mean of the embeddings after 0, 1, ... steps to the neighbours, without weights of its own."""

    def __init__(self, settings: LightGCNSettings, rated_users: Tensor, rated_items: Tensor) -> None:
        super().__init__(rated_users, rated_items, settings.n_factors)
        self.n_layers = settings.n_layers

    def spread(self, graph: PairGraph) -> tuple[Tensor, Tensor]:
        """Return the means over the layers."""
        u, v = self.users.weight, self.items.weight
        of_users, of_items = u, v
        for _ in range(self.n_layers):
            u, v = graph.spread(u, v)
            of_users, of_items = of_users + u, of_items + v
        return of_users / (self.n_layers + 1), of_items / (self.n_layers + 1)


class LightGCN(GraphRanker[LightGCNSettings]):
    """LightGCN (He et al. 2020, arXiv 2002.02126)."""

    name = "lightgcn"
    settings_class = LightGCNSettings

    def make(self, rated_users: Tensor, rated_items: Tensor) -> GraphNetwork:
        """Return the network."""
        return LightGCNNetwork(self.options, rated_users, rated_items)


def over_norms(rows: Tensor) -> Tensor:
    """Return rows divided by their norms; rows of zeros stay so, and their gradients finite."""
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(norms > 0, norms, 1.0)


class NGCFNetwork(GraphNetwork):
    r"""Layers of messages; what pairs are scored by are the embeddings of all layers side by side.

    .. math:: u'_i = \mathrm{LeakyReLU}\left(W_1 (u_i + \bar u_i) + W_2 (u_i \odot \bar u_i)\right)

    With `normalize_layers`, a layer is divided by its norm before it goes on.
    """

    def __init__(self, settings: NGCFSettings, rated_users: Tensor, rated_items: Tensor) -> None:
        super().__init__(rated_users, rated_items, settings.n_factors)
        self.dropout, self.normalize_layers = settings.dropout, settings.normalize_layers
        shape = settings.n_factors, settings.n_factors
        self.of_sums, self.of_products = (
            nn.ParameterList(nn.init.xavier_uniform_(torch.empty(shape)) for _ in range(settings.n_layers))
            for _ in range(2)
        )

    def start_sd(self, n_rows: int, n_factors: int) -> float:
        """Return Glorot's."""
        return math.sqrt(2.0 / (n_rows + n_factors))

    def spread(self, graph: PairGraph) -> tuple[Tensor, Tensor]:
        """Return the layers' embeddings, (n_layers + 1) n_factors wide."""
        u, v = self.users.weight, self.items.weight
        of_users, of_items = [u], [v]
        for first, second in zip(self.of_sums, self.of_products, strict=True):
            near_u, near_v = graph.spread(u, v)
            u, v = (
                dropout(
                    leaky_relu((own + near) @ first + (own * near) @ second, _SLOPE),
                    self.dropout,
                    self.training,
                )
                for own, near in ((u, near_u), (v, near_v))
            )
            if self.normalize_layers:
                u, v = over_norms(u), over_norms(v)
            of_users.append(u)
            of_items.append(v)
        return torch.cat(of_users, 1), torch.cat(of_items, 1)


class NGCF(GraphRanker[NGCFSettings]):
    """Neural graph collaborative filtering (Wang et al. 2019, arXiv 1905.08108)."""

    name = "ngcf"
    #: 2: layers are divided by their norms, unless a setting says otherwise.
    version = 2
    settings_class = NGCFSettings

    def make(self, rated_users: Tensor, rated_items: Tensor) -> GraphNetwork:
        """Return the network."""
        return NGCFNetwork(self.options, rated_users, rated_items)
