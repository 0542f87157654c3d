"""Settings of the networks that rank: what was rated, or liked, against what was not. This loads no torch."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_bmf.baselines.neural.settings import NetworkSettings
from pyro_bmf.methods.setting import NOT_NEGATIVE, POSITIVE, SHARE_BELOW_ONE, at_least, setting


@dataclass(frozen=True)
class RankerSettings(NetworkSettings):
    r"""What the training of every ranker reads.

    `patience` counts passes without a better validation NDCG@20, and the state with the highest is kept.

    Attributes
    ----------
    positives_above : float or None
        A rating above it is a positive pair; all that was rated is where it is None.
    """

    max_iterations: int = setting(200, "Passes over the positive pairs at most.", limits=at_least(1))
    patience: int | None = setting(
        15, "Stop after so many without a better validation NDCG.", limits=at_least(1)
    )
    positives_above: float | None = setting(None, "Rating above which a pair is positive; none: any rating.")


@dataclass(frozen=True)
class LightGCNSettings(RankerSettings):
    r"""LightGCN (He et al. 2020).

    Attributes
    ----------
    n_factors : int
        Width of an embedding.
    n_layers : int
        Times that embeddings are averaged over neighbours; 0 is matrix factorization by BPR.
    """

    batch_size: int = setting(2048, "Positive pairs a step.", limits=at_least(1))
    learning_rate: float = setting(1e-2, "Adam's.", limits=POSITIVE)
    l2: float = setting(1e-4, "Weight of the embeddings' squared norms.", limits=NOT_NEGATIVE)
    n_factors: int = setting(64, "Width of an embedding.", limits=at_least(1))
    n_layers: int = setting(3, "Times that embeddings spread to neighbours.", limits=at_least(0))


@dataclass(frozen=True)
class NGCFSettings(RankerSettings):
    r"""Neural graph collaborative filtering (Wang et al. 2019).

    Attributes
    ----------
    n_factors : int
        Width of an embedding, and of every layer.
    n_layers : int
        Layers of messages; 0 is matrix factorization by BPR.
    dropout : float
        Share of a layer's numbers that each step hides, the rest being scaled up.
    normalize_layers : bool
        Whether a user's and an item's numbers of each layer are divided by their norm.
    """

    batch_size: int = setting(2048, "Positive pairs a step.", limits=at_least(1))
    learning_rate: float = setting(2e-3, "Adam's.", limits=POSITIVE)
    l2: float = setting(1e-4, "Weight of the squared norms.", limits=NOT_NEGATIVE)
    n_factors: int = setting(64, "Width of an embedding.", limits=at_least(1))
    n_layers: int = setting(2, "Layers of messages.", limits=at_least(0))
    dropout: float = setting(0.1, "Share of a layer hidden in each step.", limits=SHARE_BELOW_ONE)
    normalize_layers: bool = setting(True, "Layers are divided by their norms.")


@dataclass(frozen=True)
class CDAESettings(RankerSettings):
    r"""The collaborative denoising autoencoder (Wu et al. 2016).

    Attributes
    ----------
    n_factors : int
        Width of the hidden layer.
    dropout : float
        Share of a user's positives that each step hides from the encoder, the rest being scaled up.
    n_negatives : int
        Pairs that are not positive, drawn anew in each step, for each one that is.
    """

    batch_size: int = setting(25, "Users a step.", limits=at_least(1))
    learning_rate: float = setting(1e-2, "Adam's.", limits=POSITIVE)
    l2: float = setting(1e-5, "Weight of the squared norms.", limits=NOT_NEGATIVE)
    n_factors: int = setting(50, "Width of the hidden layer.", limits=at_least(1))
    dropout: float = setting(0.2, "Share of a user's positives hidden in each step.", limits=SHARE_BELOW_ONE)
    n_negatives: int = setting(5, "Negative pairs for each positive one.", limits=at_least(1))
