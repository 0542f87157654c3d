"""Networks that read the embeddings of a user and an item: minibatches of ratings."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import torch
from torch import Tensor, nn

from pyro_bmf.baselines.neural.network_baseline import NetworkBaseline
from pyro_bmf.baselines.neural.settings import NetworkSettings
from pyro_bmf.data import Ratings

S = TypeVar("S", bound=NetworkSettings)


def embedding(rated: Tensor, n_factors: int, scale: float) -> nn.Embedding:
    """Return a table of embeddings: Normal with sd `scale`, 0 for rows of which none is `rated`."""
    table = nn.Embedding(len(rated), n_factors)
    with torch.no_grad():
        table.weight.normal_(std=scale).mul_(rated.unsqueeze(1))
    return table


class PairNetwork(nn.Module):
    """A function of two embeddings.

    Attributes
    ----------
    users, items : torch.nn.Embedding
    """

    users: nn.Embedding
    items: nn.Embedding

    @abstractmethod
    def of_embeddings(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the (n,) mean ratings of pairs of embeddings."""

    def layer_weights(self) -> list[Tensor]:
        """Return the weights of the layers: all but embeddings and biases."""
        tables = (self.users.weight, self.items.weight)
        return [p for p in self.parameters() if p.dim() > 1 and all(p is not table for table in tables)]


class EmbeddingBaseline(NetworkBaseline[S]):
    """A network over embeddings.

    A user or item without training ratings has the embedding 0. New users cannot be folded in: an embedding
    is what training gives.
    """

    network: PairNetwork

    @abstractmethod
    def make(self, rated_users: Tensor, rated_items: Tensor, mean: float) -> PairNetwork:
        """Return the network at its start."""

    def build(self, train: Ratings) -> nn.Module:
        """Return the network at its start, about the mean rating."""
        users, items = (torch.from_numpy(counts > 0) for counts in (train.user_counts, train.item_counts))
        return self.make(users, items, float(train.ratings.mean()))

    def read(self, train: Ratings) -> Tensor:
        """Move the ratings; each of them is a case."""
        self._users, self._items = self.index(train.users), self.index(train.items)
        self._observed = self.values(train.ratings)
        return torch.arange(len(train), device=self.device)

    def penalized(self) -> list[Tensor]:
        """Return the weights of the layers: embeddings are penalised rating by rating."""
        return self.network.layer_weights()

    def batch_loss(self, cases: Tensor, progress: float) -> tuple[Tensor, int]:
        """Return the mean squared error, with norms of the ratings' embeddings and of the weights."""
        del progress
        users, items = self.network.users(self._users[cases]), self.network.items(self._items[cases])
        error = self.network.of_embeddings(users, items) - self._observed[cases]
        loss = (error**2).mean()
        if self.options.l2:
            norms = (users**2).sum(1).mean() + (items**2).sum(1).mean()
            loss = loss + 0.5 * self.options.l2 * norms
        return loss + self.penalty(), len(cases)

    def pair_means(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the network's values."""
        return self.network.of_embeddings(self.network.users(users), self.network.items(items))

    def item_means(self, users: Tensor) -> Tensor:
        """Return the network's values at every item."""
        n_items = self.network.items.num_embeddings
        items = torch.arange(n_items, device=users.device).repeat(len(users))
        return self.pair_means(users.repeat_interleave(n_items), items).view(len(users), n_items)
