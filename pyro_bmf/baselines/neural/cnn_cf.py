"""Convolutions over the outer product of two embeddings (He et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_bmf.baselines.neural.embeddings import EmbeddingBaseline, PairNetwork, embedding
from pyro_bmf.baselines.neural.row_autoencoder import linear
from pyro_bmf.baselines.neural.settings import CNNCFSettings
from pyro_bmf.numerics.chunks import CELLS, chunks

#: Standard deviation of the embeddings at the start.
_SCALE = 0.3

#: Numbers of maps in a part of a batch on a CPU: what one layer writes, the next finds in the cache.
_PART = 2 * CELLS


def cells_of_a_pair(settings: CNNCFSettings) -> int:
    """Return how many numbers a pair's first maps hold."""
    return (settings.n_factors // 2) ** 2 * (4 + settings.n_channels)


class CNNNetwork(PairNetwork):
    """u vᵀ → convolutions of 2 × 2 kernels with stride 2 under ReLU → linear → rating.

    Kernels do not overlap, so that each layer is one matrix product over the map's 2 × 2 patches. The first
    reads an outer product, whose patches are of rank 1: there v meets the kernels once for each row of a
    patch, and u their products, so that u vᵀ and its many gradients of 4 numbers are never written.
    On a CPU a batch goes through the layers some pairs at a time; pairs do not meet, so that only the sums
    of the weights' gradients are taken in another order.
    """

    def __init__(
        self, settings: CNNCFSettings, rated_users: Tensor, rated_items: Tensor, mean: float
    ) -> None:
        super().__init__()
        self.users = embedding(rated_users, settings.n_factors, _SCALE)
        self.items = embedding(rated_items, settings.n_factors, _SCALE)
        channels = settings.n_channels
        self.kernels = nn.ModuleList(
            linear(4 * before, channels) for before in (1, *(channels,) * (settings.n_layers - 1))
        )
        left = settings.n_factors // 2**settings.n_layers
        self.output = linear(channels * left**2, 1)
        self.mean = mean
        self._part = _PART // cells_of_a_pair(settings)

    def of_embeddings(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the network's values about the mean rating."""
        if users.device.type != "cpu" or len(users) <= self._part:
            return self._of_part(users, items)
        return torch.cat([self._of_part(users[part], items[part]) for part in chunks(len(users), self._part)])

    def _of_part(self, users: Tensor, items: Tensor) -> Tensor:
        n, half = len(users), users.shape[1] // 2
        weight, bias = self.kernels.get_parameter("0.weight"), self.kernels.get_parameter("0.bias")
        # (channels, rows, columns) of a patch to columns × (rows, channels).
        of_columns = weight.view(-1, 2, 2).permute(2, 1, 0).reshape(2, -1)
        columns = (items.reshape(n * half, 2) @ of_columns).view(n, half, 2, -1)
        of_rows = columns.transpose(1, 2).reshape(n, 2, -1)
        pairs = torch.baddbmm(bias.repeat(half), users.view(n, half, 2), of_rows)
        maps = torch.relu(pairs.view(n, half, half, -1))
        for kernel in self.kernels[1:]:
            half //= 2
            patches = maps.view(n, half, 2, half, 2, -1).transpose(2, 3)
            maps = patches.reshape(n, half, half, -1)
            maps = torch.relu(kernel(maps))
        values: Tensor = self.output(maps.reshape(n, -1)).squeeze(1)
        return values + self.mean


class CNNCF(EmbeddingBaseline[CNNCFSettings]):
    """A convolutional network over the outer product of user and item embedding, on squared errors."""

    name = "cnn-cf"
    settings_class = CNNCFSettings

    def make(self, rated_users: Tensor, rated_items: Tensor, mean: float) -> PairNetwork:
        """Return the network."""
        return CNNNetwork(self.options, rated_users, rated_items, mean)

    @property
    def cells_per_pair(self) -> int:
        """Numbers of a pair's first maps."""
        return cells_of_a_pair(self.options)
