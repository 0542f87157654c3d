"""Autoencoders of rating vectors: users' rows (U-Rec) and items' columns (I-Rec)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_bmf.baselines.neural.row_autoencoder import (
    Layers,
    PairOutput,
    RatingOutput,
    RowAutoencoder,
    RowNetwork,
    SparseInput,
    activation,
    widths_of,
)
from pyro_bmf.baselines.neural.settings import AutoRecSettings, Output
from pyro_bmf.model.feedback import Feedback


class AutoRecNetwork(RowNetwork):
    """Input → M, ..., M → K → M, ..., M → output, every hidden layer under one activation."""

    def __init__(self, settings: AutoRecSettings, rated: Tensor, mean: RatingOutput) -> None:
        super().__init__()
        before, after = widths_of(settings.n_factors, settings.n_layers, settings.n_units)
        self.input = SparseInput(len(rated), before[0])
        self.first = activation(settings.hidden)
        self.inner = Layers((*before, *after[1:]), settings.hidden)
        self.output = PairOutput(rated, after[-1], mean)
        if settings.weight_scale is not None:
            self._start_small(settings.weight_scale, rated)

    @torch.no_grad()
    def _start_small(self, scale: float, rated: Tensor) -> None:
        """Draw all weights anew, and put the levels of columns with ratings at 0."""
        for weight in self.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=scale)
        # The others are not trained: they stay at the mean.
        self.output.weight.mul_(rated.unsqueeze(1))
        self.output.bias[rated] = 0.0

    def encode(self, rows: Feedback) -> tuple[Tensor, None]:
        """Return the last hidden layer."""
        return self.inner(self.first(self.input(rows))), None


class AutoRec(RowAutoencoder[AutoRecSettings]):
    """What both sides' autoencoders share."""

    settings_class = AutoRecSettings

    @property
    def output(self) -> Output:
        """As the settings have it."""
        return self.options.output

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Adam, or RProp with the first steps as long as `learning_rate`."""
        if self.options.optimizer == "adam":
            return super().optimizer()
        return torch.optim.Rprop(self.network.parameters(), lr=self.options.learning_rate)

    def batch(self, cases: Tensor) -> Feedback:
        """Return those rows; where a step reads all, as they are, which saves to compress them anew."""
        return super().batch(cases) if self.options.optimizer == "adam" else self._rows

    def make(self, rated: Tensor, mean: RatingOutput) -> RowNetwork:
        """Return the network."""
        return AutoRecNetwork(self.options, rated, mean)


class URec(AutoRec):
    """An autoencoder of users' rating vectors (Sedhain et al. 2015); a new user is encoded as any other.

    An item without training ratings is predicted at the mean rating.
    """

    name = "u-rec"
    side = "user"


class IRec(AutoRec):
    """An autoencoder of items' rating vectors (Sedhain et al. 2015).

    A user without training ratings is predicted at the mean rating, and a new user cannot be folded in: the
    output has weights for each user, which only training gives.
    """

    name = "i-rec"
    side = "item"
