r"""Autoencoders of one side's rows: a sparse first layer, outputs at observed entries alone.

A row's ratings :math:`x_r` go through hidden layers to :math:`h_r`, and column c is predicted as
:math:`g(h_r \cdot w_c + b_c)`. In training, only observed cells are computed; afterwards the :math:`h_r` of
all rows are kept, so that a prediction is one product.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyro_bmf.baselines.neural.network_baseline import NetworkBaseline
from pyro_bmf.baselines.neural.pair_dots import pair_dots
from pyro_bmf.baselines.neural.settings import Activation, NetworkSettings, Output
from pyro_bmf.baselines.new_users import NewUserAnswers
from pyro_bmf.data import Ratings
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.feedback_sums import feedback_sum
from pyro_bmf.numerics.chunks import CELLS, chunks

S = TypeVar("S", bound=NetworkSettings)


_ACTIVATIONS: Mapping[Activation, type[nn.Module]] = MappingProxyType(
    {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "identity": nn.Identity}
)


def activation(kind: Activation) -> nn.Module:
    """Return the layer of an activation."""
    return _ACTIVATIONS[kind]()


def linear(before: int, after: int) -> nn.Linear:
    """Return a linear layer at its start: Glorot's uniform weights, no biases."""
    layer = nn.Linear(before, after)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class RatingOutput(nn.Module):
    """The mean rating of a linear output: itself, or a sigmoid stretched over the scale.

    Parameters
    ----------
    kind : {"sigmoid", "identity"}
    low, high : float
        Ends of the scale.
    mean : float
        Of the training ratings.
    """

    def __init__(self, kind: Output, low: float, high: float, mean: float) -> None:
        super().__init__()
        self.kind, self.low, self.high = kind, low, high
        share = (mean - low) / (high - low)
        share = min(max(share, 0.01), 0.99)
        #: The linear output at which the mean rating is predicted (1 % inside the scale at least).
        self.start = mean if kind == "identity" else math.log(share / (1.0 - share))

    def forward(self, eta: Tensor) -> Tensor:
        """Return ratings."""
        if self.kind == "identity":
            return eta
        return self.low + (self.high - self.low) * torch.sigmoid(eta)


class Layers(nn.Sequential):
    """Linear layers of given widths, each followed by an activation.

    Parameters
    ----------
    widths : tuple of int
        Of the input and of every layer: one number makes no layer at all.
    hidden : str
        The activation.
    """

    def __init__(self, widths: tuple[int, ...], hidden: Activation) -> None:
        parts: list[nn.Module] = []
        for before, after in pairwise(widths):
            parts += [linear(before, after), activation(hidden)]
        super().__init__(*parts)


class SparseInput(nn.Module):
    """A linear layer that reads sparse rows of ratings.

    Parameters
    ----------
    n_columns, width : int
    """

    def __init__(self, n_columns: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_columns, width))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, rows: Feedback) -> Tensor:
        """Return (n_rows, width) sums over each row's ratings."""
        return feedback_sum(rows, self.weight, by_rating=True) + self.bias


class PairOutput(nn.Module):
    """The last layer: a weight vector and a level for each column.

    Parameters
    ----------
    rated : Tensor, shape (n_columns,), bool
        Columns with training ratings; the others have weights 0 and so are predicted at the start.
    width : int
    mean : RatingOutput
        Turns the linear output into ratings.
    """

    def __init__(self, rated: Tensor, width: int, mean: RatingOutput) -> None:
        super().__init__()
        weight = torch.empty(len(rated), width)
        nn.init.xavier_uniform_(weight)
        self.weight = nn.Parameter(weight * rated.unsqueeze(1))
        self.bias = nn.Parameter(torch.full((len(rated),), mean.start))
        self.mean = mean

    def at(self, hidden: Tensor, entries: Feedback) -> Tensor:
        """Return the (nnz,) ratings of the entries of rows with these hidden vectors."""
        ratings: Tensor = self.mean(pair_dots(hidden, self.weight, entries) + self.bias[entries.indices])
        return ratings

    def of_pairs(self, hidden: Tensor, columns: Tensor) -> Tensor:
        """Return the (n,) ratings of one column for each hidden vector."""
        ratings: Tensor = self.mean(torch.linalg.vecdot(hidden, self.weight[columns]) + self.bias[columns])
        return ratings

    def of_columns(self, hidden: Tensor, columns: Tensor | None = None) -> Tensor:
        """Return the (n, len(columns)) ratings of columns, of all where None is given."""
        weight = self.weight if columns is None else self.weight[columns]
        bias = self.bias if columns is None else self.bias[columns]
        ratings: Tensor = self.mean(hidden @ weight.T + bias)
        return ratings


def at_norm_one(rows: Feedback) -> Feedback:
    """Return rows divided by their Euclidean norms."""
    squares = torch.segment_reduce(
        rows.values**2, "sum", lengths=rows.indptr.diff().long(), unsafe=True, initial=0.0
    )
    return replace(rows, values=rows.values / squares.sqrt().clamp_min(1e-12)[rows.row_of_entry])


def hide_some(rows: Feedback, share: float) -> Feedback:
    """Return rows with a random share of entries hidden and the rest scaled up, as dropout does."""
    kept = (torch.rand_like(rows.values) >= share).to(rows.values.dtype)
    return rows.hide(kept / (1.0 - share))


def corrupted(rows: Feedback, share: float, *, normalize: bool) -> Feedback:
    """Return rows as an encoder reads them: at norm one where asked, then with a share of them hidden."""
    read = at_norm_one(rows) if normalize else rows
    return hide_some(read, share) if share else read


def widths_of(n_factors: int, n_layers: int, n_units: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the widths from the first hidden layer to the embedding, and from it to the last one."""
    outer = (n_units,) * n_layers
    return (*outer, n_factors), (n_factors, *outer)


class RowNetwork(nn.Module):
    """Hidden vectors of sparse rows, and an output for each column."""

    output: PairOutput

    def encode(self, rows: Feedback) -> tuple[Tensor, Tensor | None]:
        """Return (n_rows, width) hidden vectors, and the KL of each row where the network has one."""
        raise NotImplementedError


class RowAutoencoder(NetworkBaseline[S]):
    """An autoencoder of the rows of users, or of the columns of items."""

    #: Whose rating vectors are rows.
    side: ClassVar[Literal["user", "item"]] = "user"
    network: RowNetwork

    @abstractmethod
    def make(self, rated: Tensor, mean: RatingOutput) -> RowNetwork:
        """Return the network over columns of which some were `rated`."""

    @property
    def output(self) -> Output:
        """How the linear output becomes a rating."""
        return "identity"

    def kl_weight(self, progress: float) -> float:
        """Return the weight of the KL after `progress` iterations."""
        del progress
        return 0.0

    def build(self, train: Ratings) -> nn.Module:
        """Return the network at its start."""
        counts = train.item_counts if self.side == "user" else train.user_counts
        scale = train.scale
        mean = RatingOutput(self.output, scale.low, scale.high, float(train.ratings.mean()))
        return self.make(torch.from_numpy(counts > 0), mean)

    def read(self, train: Ratings) -> Tensor:
        """Compress the rows; return those with ratings."""
        users, items = self.index(train.users), self.index(train.items)
        values, n_users, n_items = self.values(train.ratings), train.n_users, train.n_items
        if self.side == "user":
            self._rows = Feedback.from_coo(users, items, values, n_users, n_items)
        else:
            self._rows = Feedback.from_coo(items, users, values, n_items, n_users)
        widest = max(p.shape[1] for p in self.network.parameters() if p.dim() > 1)
        parts = list(chunks(self._rows.n_rows, CELLS // widest))
        # Cut once: every validation encodes them again.
        self._parts = [self._rows]
        if len(parts) > 1:
            self._parts = [self._rows.select(self.index(np.arange(one.start, one.stop))) for one in parts]
        return self._rows.indptr.diff().nonzero().squeeze(1)

    def batch(self, cases: Tensor) -> Feedback:
        """Return the rows that a step reads."""
        return self._rows.select(cases)

    def batch_loss(self, cases: Tensor, progress: float) -> tuple[Tensor, int]:
        """Return the rows' mean squared error at their own ratings, with KL and norms of the weights."""
        rows = self.batch(cases)
        hidden, kl = self.network.encode(rows)
        loss = ((self.network.output.at(hidden, rows) - rows.values) ** 2).mean()
        if kl is not None:
            loss = loss + self.kl_weight(progress) * kl.mean()
        return loss + self.penalty(), rows.nnz

    def refresh(self) -> None:
        """Encode all rows, some at a time."""
        self._hidden = torch.cat([self.network.encode(part)[0] for part in self._parts])

    @property
    def cells_per_pair(self) -> int:
        """Numbers that a pair's product holds."""
        return 2 * self.network.output.weight.shape[1]

    @property
    def cells_per_score(self) -> int:
        """One: scores of all items are a product of matrices."""
        return 1

    def pair_means(self, users: Tensor, items: Tensor) -> Tensor:
        """Return one product a pair."""
        rows, columns = (users, items) if self.side == "user" else (items, users)
        return self.network.output.of_pairs(self._hidden[rows], columns)

    def item_means(self, users: Tensor) -> Tensor:
        """Return all products of these users."""
        if self.side == "user":
            return self.network.output.of_columns(self._hidden[users])
        return self.network.output.of_columns(self._hidden, users).T

    def new_user(self, items: NDArray[np.int64], ratings: NDArray[np.float64]) -> NewUserAnswers:
        """Encode the user's ratings, where rows are users."""
        if self.side == "item":
            return super().new_user(items, ratings)
        values = self.values(ratings)
        columns = self.index(items)
        with torch.no_grad():
            row = Feedback.from_coo(torch.zeros_like(columns), columns, values, 1, self.train.n_items)
            mean = self.network.output.of_columns(self.network.encode(row)[0])[0].double().cpu().numpy()
        return NewUserAnswers(mean, np.full(mean.size, self.noise_variance), mean)
