"""Neural collaborative filtering (He et al. 2017): a multilayer perceptron over two embeddings."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from pyro_bmf.baselines.neural.embeddings import EmbeddingBaseline, PairNetwork, embedding
from pyro_bmf.baselines.neural.row_autoencoder import linear
from pyro_bmf.baselines.neural.settings import NCFSettings

#: Standard deviation of the embeddings at the start.
_SCALE = 0.1


class NCFNetwork(PairNetwork):
    """[u, v] → M, ..., M under ReLU → rating."""

    def __init__(self, settings: NCFSettings, rated_users: Tensor, rated_items: Tensor, mean: float) -> None:
        super().__init__()
        self.users = embedding(rated_users, settings.n_factors, _SCALE)
        self.items = embedding(rated_items, settings.n_factors, _SCALE)
        widths = (*(settings.n_units,) * settings.n_layers, 1)
        self.joined = linear(2 * settings.n_factors, widths[0])
        rest: list[nn.Module] = []
        for before, after in pairwise(widths):
            rest += [nn.ReLU(), linear(before, after)]
        self.rest = nn.Sequential(*rest)
        self.mean = mean

    def of_embeddings(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the perceptron's values about the mean rating."""
        return self.of_halves(*self.halves(users, items))

    def halves(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each embedding gives to the first layer, so that many pairs share it."""
        of_user, of_item = self.joined.weight.chunk(2, dim=1)
        return users @ of_user.T + self.joined.bias, items @ of_item.T

    def of_halves(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the perceptron's values from the two halves, broadcast against each other."""
        values: Tensor = self.rest(users + items).squeeze(-1)
        return values + self.mean


class NCF(EmbeddingBaseline[NCFSettings]):
    """A multilayer perceptron over the embeddings of user and item, in place of their product."""

    name = "ncf"
    settings_class = NCFSettings
    network: NCFNetwork

    def make(self, rated_users: Tensor, rated_items: Tensor, mean: float) -> PairNetwork:
        """Return the network."""
        return NCFNetwork(self.options, rated_users, rated_items, mean)

    @property
    def cells_per_pair(self) -> int:
        """Numbers of the widest layers of a pair."""
        return 2 * max(self.options.n_factors, self.options.n_units)

    def refresh(self) -> None:
        """Compute the first layer's halves of all users and items."""
        network = self.network
        self._halves = network.halves(network.users.weight, network.items.weight)

    def pair_means(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the perceptron's values from the halves."""
        return self.network.of_halves(self._halves[0][users], self._halves[1][items])

    def item_means(self, users: Tensor) -> Tensor:
        """Return the perceptron's values at every item."""
        return self.network.of_halves(self._halves[0][users].unsqueeze(1), self._halves[1].unsqueeze(0))
