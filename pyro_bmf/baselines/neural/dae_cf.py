"""The denoising autoencoder of Liang et al. (2018), for ratings."""

from __future__ import annotations

from torch import Tensor

from pyro_bmf.baselines.neural.row_autoencoder import (
    Layers,
    PairOutput,
    RatingOutput,
    RowAutoencoder,
    RowNetwork,
    SparseInput,
    activation,
    corrupted,
    widths_of,
)
from pyro_bmf.baselines.neural.settings import DAECFSettings
from pyro_bmf.model.feedback import Feedback


class DAENetwork(RowNetwork):
    """Dropout → input → M, ..., M → K → M, ..., M → output, all but the output under an activation."""

    def __init__(self, settings: DAECFSettings, rated: Tensor, mean: RatingOutput) -> None:
        super().__init__()
        self.settings = settings
        before, after = widths_of(settings.n_factors, settings.n_layers, settings.n_units)
        self.input = SparseInput(len(rated), before[0])
        self.first = activation(settings.hidden)
        self.inner = Layers((*before, *after[1:]), settings.hidden)
        self.output = PairOutput(rated, after[-1], mean)

    def encode(self, rows: Feedback) -> tuple[Tensor, None]:
        """Return the last hidden layer; in training, of rows with ratings hidden."""
        share = self.settings.dropout if self.training else 0.0
        read = corrupted(rows, share, normalize=self.settings.normalize_input)
        return self.inner(self.first(self.input(read))), None


class DAECF(RowAutoencoder[DAECFSettings]):
    """A denoising autoencoder of users' ratings, trained on squared errors in place of the multinomial.

    A new user is encoded as any other. An item without training ratings is predicted at the mean rating.
    """

    name = "dae-cf"
    settings_class = DAECFSettings

    def make(self, rated: Tensor, mean: RatingOutput) -> RowNetwork:
        """Return the network."""
        return DAENetwork(self.options, rated, mean)
