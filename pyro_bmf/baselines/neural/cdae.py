r"""The collaborative denoising autoencoder (Wu et al. 2016): an autoencoder with a vector for each user.

.. math:: h_i = \sigma\left(\sum_{j \in N(i)} \tilde x_{ij} w_j + a_i + b\right), \qquad
   P(x_{ij} = 1) = \sigma(h_i \cdot w'_j + b'_j),

with :math:`\tilde x` the user's positive pairs, of which each step hides some. The loss is the logistic one
of positive pairs and of drawn ones that are not positive.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_bmf.baselines.neural.network_ranker import Negatives, NetworkRanker
from pyro_bmf.baselines.neural.pair_dots import pair_dots
from pyro_bmf.baselines.neural.ranking_settings import CDAESettings
from pyro_bmf.baselines.neural.row_autoencoder import SparseInput, hide_some
from pyro_bmf.data import Ratings
from pyro_bmf.model.feedback import Feedback


class CDAENetwork(nn.Module):
    """Input and output weights of items, a vector for each user, and levels."""

    def __init__(self, settings: CDAESettings, n_users: int, n_items: int) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.input = SparseInput(n_items, settings.n_factors)
        self.users = nn.Parameter(torch.zeros(n_users, settings.n_factors))
        self.output = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_items, settings.n_factors)))
        self.levels = nn.Parameter(torch.zeros(n_items))

    def encode(self, rows: Feedback, users: Tensor) -> Tensor:
        """Return the hidden layer of users with these positive pairs, some hidden in training."""
        read = hide_some(rows, self.dropout) if self.training and self.dropout else rows
        return torch.sigmoid(self.input(read) + self.users[users])


class CDAE(NetworkRanker[CDAESettings]):
    """A collaborative denoising autoencoder (Wu et al. 2016, doi 10.1145/2835776.2835837).

    New users cannot be ranked for: each user has a vector, which training gives.
    """

    name = "cdae"
    settings_class = CDAESettings
    network: CDAENetwork

    def build(self, train: Ratings) -> nn.Module:
        """Return the network at its start."""
        return CDAENetwork(self.options, train.n_users, train.n_items)

    def read(self, train: Ratings) -> Tensor:
        """Compress the positive pairs; users with any are the cases."""
        users, items = self.pairs(train)
        ones = torch.ones(len(users), device=self.device, dtype=torch.get_default_dtype())
        self._rows = Feedback.from_coo(users, items, ones, train.n_users, train.n_items)
        self._negatives = Negatives(users, items, train.n_items)
        return self._rows.indptr.diff().nonzero().squeeze(1)

    def batch_loss(self, cases: Tensor, progress: float) -> tuple[Tensor, int]:
        """Return the mean logistic loss of positive and of drawn pairs, with norms of the weights."""
        del progress
        rows, network = self._rows.select(cases), self.network
        hidden = network.encode(rows, cases)
        liked = pair_dots(hidden, network.output, rows) + network.levels[rows.indices]
        drawn = rows.row_of_entry.repeat(self.options.n_negatives)
        other, counted = self._negatives.draw(cases[drawn])
        passed = torch.linalg.vecdot(hidden[drawn], network.output[other]) + network.levels[other]
        total = softplus(-liked).sum() + (softplus(passed) * counted).sum()
        return total / (rows.nnz + counted.sum()) + self.penalty(), rows.nnz

    def refresh(self) -> None:
        """Encode all users."""
        users = torch.arange(self._rows.n_rows, device=self.device)
        self._hidden = self.network.encode(self._rows, users)

    def user_scores(self, users: Tensor) -> Tensor:
        """Return the logits of every item."""
        return self._hidden[users] @ self.network.output.T + self.network.levels

    @property
    def _n_items(self) -> int:
        return len(self.network.levels)
