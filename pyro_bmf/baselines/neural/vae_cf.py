"""The variational autoencoder of Liang et al. (2018), for ratings."""

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
    corrupted,
    linear,
    widths_of,
)
from pyro_bmf.baselines.neural.settings import VAECFSettings
from pyro_bmf.model.feedback import Feedback


class VAENetwork(RowNetwork):
    """Dropout → input → M, ..., M → mean and log variance of K → M, ..., M → output.

    Training draws the embedding; afterwards it is its mean, as in the published network.
    """

    def __init__(self, settings: VAECFSettings, rated: Tensor, mean: RatingOutput) -> None:
        super().__init__()
        self.settings = settings
        before, after = widths_of(settings.n_factors, settings.n_layers, settings.n_units)
        before = (*before[:-1], 2 * settings.n_factors)
        self.input = SparseInput(len(rated), before[0])
        self.encoder = nn.Sequential()
        if settings.n_layers:
            self.encoder = nn.Sequential(
                activation(settings.hidden),
                Layers(before[:-1], settings.hidden),
                linear(before[-2], before[-1]),
            )
        self.decoder = Layers(after, settings.hidden)
        self.output = PairOutput(rated, after[-1], mean)

    def encode(self, rows: Feedback) -> tuple[Tensor, Tensor]:
        """Return the last hidden layer and each row's KL from N(0, I)."""
        share = self.settings.dropout if self.training else 0.0
        read = corrupted(rows, share, normalize=self.settings.normalize_input)
        loc, log_variance = self.encoder(self.input(read)).chunk(2, dim=1)
        kl = 0.5 * (log_variance.exp() + loc**2 - 1.0 - log_variance).sum(1)
        drawn = loc
        if self.training:
            drawn = loc + (0.5 * log_variance).exp() * torch.randn_like(loc)
        return self.decoder(drawn), kl


class VAECF(RowAutoencoder[VAECFSettings]):
    """A variational autoencoder of users' ratings, trained on squared errors in place of the multinomial.

    A new user is encoded as any other. An item without training ratings is predicted at the mean rating. The
    predictive variance is that of `NetworkBaseline`, not one of the embedding's.
    """

    name = "vae-cf"
    settings_class = VAECFSettings

    def make(self, rated: Tensor, mean: RatingOutput) -> RowNetwork:
        """Return the network."""
        return VAENetwork(self.options, rated, mean)

    def kl_weight(self, progress: float) -> float:
        """Return beta, annealed."""
        return self.options.beta_at(progress)
