"""Settings of the network that reads items' content. This loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_bmf.baselines.neural.settings import NetworkSettings
from pyro_bmf.methods.setting import NOT_NEGATIVE, POSITIVE, at_least, setting


@dataclass(frozen=True)
class CollaborativeVAESettings(NetworkSettings):
    r"""The collaborative variational autoencoder of Li and She (2017), for ratings.

    Attributes
    ----------
    n_factors, n_units : int
        Width of the factors, and of the hidden layers between content and factors and back.
    l2 : float
        :math:`\lambda`, of users' factors and of the layers' weights.
    offset_l2 : float
        :math:`\lambda_d`, of what ratings ask of an item beyond its content.
    content_weight : float
        w: of the content's evidence lower bound.
    """

    max_iterations: int = setting(60, "Passes over the ratings at most.", limits=at_least(1))
    patience: int | None = setting(
        6, "Stop after so many without a better validation RMSE.", limits=at_least(1)
    )
    batch_size: int = setting(1000, "Ratings a step.", limits=at_least(1))
    learning_rate: float = setting(3e-3, "Adam's.", limits=POSITIVE)
    n_factors: int = setting(25, "Width of the factors.", limits=at_least(1))
    n_units: int = setting(50, "Width of hidden layers.", limits=at_least(1))
    l2: float = setting(0.01, "Weight of users' and layers' squared norms.", limits=NOT_NEGATIVE)
    offset_l2: float = setting(0.05, "Weight of the offsets' squared norms.", limits=NOT_NEGATIVE)
    content_weight: float = setting(1e-3, "Weight of the content's bound.", limits=NOT_NEGATIVE)
