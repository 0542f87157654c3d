r"""The collaborative variational autoencoder (Li and She 2017): items' factors from their content.

.. math:: x_{ij} \approx \mu + u_i \cdot v_j, \qquad v_j = z_j + d_j, \qquad
   z_j \sim q(z_j \mid \text{content}_j),

with offsets d that ratings ask for beyond the content, and a decoder of z to the content: a Bernoulli for
each feature. A step minimises

.. math:: \text{MSE} + \tfrac{\lambda}{2} |u|^2 + \tfrac{\lambda_d}{2} |d|^2
   + w \left(KL(q(z_j) \| N(0, I)) - E_q[\log p(\text{content}_j \mid z_j)]\right),

norms as means over its ratings, the last as a mean over its items. An item without ratings has d = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_bmf.baselines.item_content import ItemContent
from pyro_bmf.baselines.neural.content_settings import CollaborativeVAESettings
from pyro_bmf.baselines.neural.embeddings import EmbeddingBaseline, PairNetwork, embedding
from pyro_bmf.baselines.neural.pair_dots import pair_dots
from pyro_bmf.baselines.neural.row_autoencoder import SparseInput, linear
from pyro_bmf.data import Ratings
from pyro_bmf.errors import SettingsError
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.numerics.chunks import CELLS, chunks
from pyro_bmf.progress import Reporter

#: Standard deviation of users' factors, and of offsets, at the start.
_USERS, _OFFSETS = 0.1, 0.01
_CONTENT = "content."


class CollaborativeVAENetwork(PairNetwork):
    """Factors of users, offsets of items, and an autoencoder of content."""

    def __init__(
        self,
        settings: CollaborativeVAESettings,
        rated_users: Tensor,
        rated_items: Tensor,
        mean: float,
        n_features: int,
    ) -> None:
        super().__init__()
        width, n_units = settings.n_factors, settings.n_units
        self.users = embedding(rated_users, width, _USERS)
        self.items = embedding(rated_items, width, _OFFSETS)
        self.input = SparseInput(n_features, n_units)
        self.to_latent = linear(n_units, 2 * width)
        self.from_latent = linear(width, n_units)
        self.output = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_features, n_units)))
        self.levels = nn.Parameter(torch.zeros(n_features))
        self.mean = mean

    def encode(self, content: Feedback) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z) of items with this content, each (n, K)."""
        loc, log_variance = self.to_latent(torch.tanh(self.input(content))).chunk(2, dim=1)
        return loc, log_variance

    def content_loss(self, content: Feedback, z: Tensor, loc: Tensor, log_variance: Tensor) -> Tensor:
        """Return the mean negative evidence lower bound of items' content, at a draw z."""
        hidden = torch.tanh(self.from_latent(z))
        nothing = softplus(hidden @ self.output.T + self.levels).sum()
        there = (pair_dots(hidden, self.output, content) + self.levels[content.indices]).sum()
        kl = 0.5 * (log_variance.exp() + loc**2 - 1.0 - log_variance).sum()
        return (nothing - there + kl) / len(z)

    def of_embeddings(self, users: Tensor, items: Tensor) -> Tensor:
        """Return products about the mean rating."""
        dots: Tensor = torch.linalg.vecdot(users, items)
        return dots + self.mean


class CollaborativeVAE(EmbeddingBaseline[CollaborativeVAESettings]):
    """A factorization whose items' factors come from their content, and from their ratings beyond it.

    An item without training ratings is predicted from its content. New users cannot be folded in.

    Parameters
    ----------
    settings, device, threads, progress, checkpoint
        Those of `TrainedNetwork`.
    content : ItemContent, optional
        Of the items, in the order of the ratings' vocabulary; the words of their titles when not given.
    """

    name = "collaborative-vae"
    settings_class = CollaborativeVAESettings
    network: CollaborativeVAENetwork

    def __init__(
        self,
        settings: CollaborativeVAESettings | None = None,
        *,
        content: ItemContent | None = None,
        device: str = "auto",
        threads: int | None = None,
        progress: bool | Reporter = False,
        checkpoint: Path | str | None = None,
    ) -> None:
        super().__init__(settings, device=device, threads=threads, progress=progress, checkpoint=checkpoint)
        self._given = content

    # ---------------------------------------------------------------- training

    def build(self, train: Ratings) -> nn.Module:
        """Return the network at its start."""
        self.content = ItemContent.of_titles(train) if self._given is None else self._given
        if self.content.n_items != train.n_items:
            raise SettingsError(
                f"content is of {self.content.n_items} items and the ratings of {train.n_items}: give that "
                "of ratings.item_vocabulary, in its order."
            )
        return super().build(train)

    def make(self, rated_users: Tensor, rated_items: Tensor, mean: float) -> PairNetwork:
        """Return the network."""
        return CollaborativeVAENetwork(
            self.options, rated_users, rated_items, mean, len(self.content.features)
        )

    def read(self, train: Ratings) -> Tensor:
        """Move ratings and content; each rating is a case."""
        rows = np.repeat(np.arange(train.n_items), np.diff(self.content.indptr))
        columns = self.index(self.content.indices)
        ones = torch.ones(len(columns), device=self.device, dtype=torch.get_default_dtype())
        n_features = len(self.content.features)
        self._content = Feedback.from_coo(self.index(rows), columns, ones, train.n_items, n_features)
        return super().read(train)

    def identity(self) -> dict[str, Any]:
        """Return the content: a checkpoint with another is of another fit."""
        entries = [self.content.indptr.tolist(), self.content.indices.tolist()]
        return {"content": entries, "features": list(self.content.features)}

    def batch_loss(self, cases: Tensor, progress: float) -> tuple[Tensor, int]:
        """Return the step's loss: see the module."""
        del progress
        network, options = self.network, self.options
        items, place = torch.unique(self._items[cases], return_inverse=True)
        content = self._content.select(items)
        loc, log_variance = network.encode(content)
        z = loc + (0.5 * log_variance).exp() * torch.randn_like(loc)
        users, offsets = network.users(self._users[cases]), network.items(items)
        error = network.of_embeddings(users, (z + offsets)[place]) - self._observed[cases]
        norms = options.l2 * (users**2).sum(1).mean()
        norms = norms + options.offset_l2 * (offsets**2).sum(1)[place].mean()
        loss = (error**2).mean() + 0.5 * norms + self.penalty()
        told = network.content_loss(content, z, loc, log_variance)
        return loss + options.content_weight * told, len(cases)

    # ---------------------------------------------------------------- predicting

    def refresh(self) -> None:
        """Encode the content of all items, some at a time."""
        n_items, widest = self._content.n_rows, max(self.options.n_units, 2 * self.options.n_factors)
        parts = [
            self.network.encode(self._content.select(self.index(np.arange(one.start, one.stop))))[0]
            for one in chunks(n_items, CELLS // widest)
        ]
        self._factors = torch.cat(parts) + self.network.items.weight

    def pair_means(self, users: Tensor, items: Tensor) -> Tensor:
        """Return products of users' factors with items'."""
        return self.network.of_embeddings(self.network.users(users), self._factors[items])

    def item_means(self, users: Tensor) -> Tensor:
        """Return the products with every item."""
        products: Tensor = self.network.users(users) @ self._factors.T
        return products + self.network.mean

    @property
    def cells_per_pair(self) -> int:
        """Numbers of a pair's factors."""
        return 2 * self.options.n_factors

    @property
    def cells_per_score(self) -> int:
        """One: scores of all items are a product of matrices."""
        return 1

    # ---------------------------------------------------------------- its file

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, and the content."""
        names = np.frombuffer("\n".join(self.content.features).encode(), dtype=np.uint8)
        content: dict[str, NDArray[Any]] = {
            f"{_CONTENT}indptr": self.content.indptr,
            f"{_CONTENT}indices": self.content.indices,
            f"{_CONTENT}features": names,
        }
        return super().state() | content

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take both back."""
        indptr, indices, names = (state[f"{_CONTENT}{name}"] for name in ("indptr", "indices", "features"))
        self._given = ItemContent(indptr, indices, tuple(names.tobytes().decode().split("\n")))
        super().restore(state)
