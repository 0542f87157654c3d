"""Settings of the neural baselines, and the grids that the paper's Table 2 tunes them over.

Each class holds what one network reads. `NetworkSettings.grid` gives the values of Table 2 by the name of the
setting; `NetworkSettings.cells` builds every distinct setting of that grid. Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

from pyro_bmf.errors import SettingsError
from pyro_bmf.methods.setting import (
    NOT_NEGATIVE,
    POSITIVE,
    SHARE_BELOW_ONE,
    When,
    at_least,
    check_fields,
    setting,
    settings_of,
)

Activation = Literal["relu", "sigmoid", "tanh", "identity"]
Output = Literal["sigmoid", "identity"]
Optimizer = Literal["adam", "rprop"]
Grid = Mapping[str, tuple[Any, ...]]

_BATCHED = When(lambda part, case: part.optimizer == "adam", "optimizer is 'adam'", (("optimizer", "adam"),))
_HIDDEN = When(lambda part, case: part.n_layers > 0, "n_layers is 1 or more", (("n_layers", 1),))
_L2 = (0.0, 0.01, 0.1, 1.0)
_LAYERS = (0, 1, 2)


@dataclass(frozen=True)
class NetworkSettings:
    r"""What the training of every network reads.

    Attributes
    ----------
    max_iterations : int
        Passes over the training ratings at most; exactly so many where there are no validation ratings.
    patience : int or None
        Stop when validation RMSE has not improved for so many passes; None never does. The state with the
        lowest validation RMSE is kept; without validation ratings, the last one.
    batch_size : int
        Ratings a step, or rows of an autoencoder.
    learning_rate : float
        Of Adam.
    final_learning_rate : float or None
        Where it ends after `max_iterations`, falling as half a cosine; None keeps it constant.
    l2 : float
        :math:`\lambda`: a step minimises the mean squared error over its batch's ratings plus
        :math:`\lambda / 2` times the squared norms of the weights. Biases are free; embeddings of users and
        items count as a mean over those ratings.
    seed : int
        Of the initial weights, the order of the batches, dropout and draws.
    """

    #: Values of Table 2, by setting.
    table2: ClassVar[Grid] = MappingProxyType({})

    max_iterations: int = setting(60, "Passes over the ratings at most.", limits=at_least(1))
    patience: int | None = setting(
        8, "Stop after so many without a better validation RMSE.", limits=at_least(1)
    )
    batch_size: int = setting(100, "Ratings or rows a step.", limits=at_least(1))
    learning_rate: float = setting(1e-3, "Adam's.", limits=POSITIVE)
    final_learning_rate: float | None = setting(None, "Adam's, at the end.", limits=POSITIVE)
    l2: float = setting(0.0, "Weight of the squared norms.", limits=NOT_NEGATIVE)
    seed: int = setting(0, "Of everything random.", limits=at_least(0))

    def __post_init__(self) -> None:
        check_fields(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, JSON-ready."""
        return asdict(self)

    @classmethod
    def grid(cls) -> Grid:
        """Return the values that Table 2 tunes over, by setting, in ascending order."""
        return cls.table2

    @classmethod
    def cells(cls, **fixed: Any) -> Iterator[Self]:
        """Build every distinct setting of the grid.

        Combinations that cannot be built are left out. A setting that a combination does not read (the width
        of hidden layers where there are none) keeps its default, and the combination is given once.

        Parameters
        ----------
        **fixed
            Settings outside the grid, or values that replace a setting's grid.
        """
        grid = {name: values for name, values in cls.grid().items() if name not in fixed}
        seen: set[Self] = set()
        for values in product(*grid.values()):
            try:
                cell = cls(**dict(zip(grid, values, strict=True)), **fixed).plain()
            except SettingsError:
                continue
            if cell not in seen:
                seen.add(cell)
                yield cell

    def step_size(self, n_cases: int) -> int:
        """Return how many of `n_cases` cases a step reads."""
        del n_cases
        return self.batch_size

    def unread(self) -> frozenset[str]:
        """Return the names of settings that this combination does not read."""
        kind: type = self.__class__
        return frozenset(one.name for one in settings_of(kind) if not one.about.when.holds(self, None))

    def plain(self) -> Self:
        """Return these settings with those that are not read at their defaults."""
        unread = self.unread()
        read = {name: value for name, value in self.to_dict().items() if name not in unread}
        return self.__class__(**read)


@dataclass(frozen=True)
class AutoRecSettings(NetworkSettings):
    r"""Autoencoders of rating vectors (Sedhain et al. 2015): `U-Rec` of users, `I-Rec` of items.

    The hidden layers have widths M, ..., M, K, M, ..., M with `n_layers` of M on each side of the embedding.

    Attributes
    ----------
    n_factors : int
        K, width of the embedding: with `n_layers` 0 the only hidden layer.
    n_layers : int
        Layers between the input and the embedding, and as many between it and the output.
    n_units : int
        M, their width.
    hidden : {"relu", "sigmoid", "tanh", "identity"}
        Activation of every hidden layer, the embedding included.
    output : {"sigmoid", "identity"}
        A sigmoid stretched over the rating scale, or the rating itself.
    optimizer : {"adam", "rprop"}
        Adam over batches, or RProp (Riedmiller and Braun 1993) with all rows in one step, so one step an
        iteration. RProp's steps begin at `learning_rate` and adapt, each weight's its own; it reads neither
        `batch_size` nor `final_learning_rate`.
    weight_scale : float or None
        Standard deviation of the Normal that initial weights are drawn from; columns' levels then begin at 0,
        so that the hidden units learn the mean rating too. None draws Glorot's uniform weights and begins
        levels at the mean rating.
    """

    table2: ClassVar[Grid] = MappingProxyType(
        {
            "n_factors": (5, 10, 25, 50, 100),
            "n_layers": _LAYERS,
            "n_units": (10, 25, 50, 100),
            "l2": _L2,
        }
    )

    batch_size: int = setting(100, "Rows a step.", limits=at_least(1), when=_BATCHED)
    final_learning_rate: float | None = setting(None, "Adam's, at the end.", limits=POSITIVE, when=_BATCHED)
    n_factors: int = setting(100, "Width of the embedding.", limits=at_least(1))
    n_layers: int = setting(0, "Hidden layers on each side of it.", limits=at_least(0))
    n_units: int = setting(100, "Width of those layers.", limits=at_least(1), when=_HIDDEN)
    hidden: Activation = setting("relu", "Activation of hidden layers.")
    output: Output = setting("sigmoid", "A sigmoid over the rating scale, or the rating itself.")
    l2: float = setting(0.01, "Weight of the squared norms.", limits=NOT_NEGATIVE)
    optimizer: Optimizer = setting("adam", "Adam over batches, or RProp over all rows at once.")
    weight_scale: float | None = setting(
        None, "Spread of initial weights: Glorot's by default.", limits=POSITIVE
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer == "rprop" and self.final_learning_rate is not None:
            raise SettingsError(
                f"final_learning_rate is {self.final_learning_rate:g} and optimizer 'rprop', whose steps "
                "adapt by themselves: leave final_learning_rate out, or give optimizer 'adam'."
            )

    def step_size(self, n_cases: int) -> int:
        """Return all of them for RProp, which compares the signs of whole gradients."""
        return n_cases if self.optimizer == "rprop" else self.batch_size


@dataclass(frozen=True)
class VAECFSettings(NetworkSettings):
    r"""The variational autoencoder of Liang et al. (2018), squared errors in place of the multinomial.

    Attributes
    ----------
    n_factors : int
        K, width of the embedding.
    n_layers, n_units : int
        Hidden layers between input and embedding, and as many between it and the output; their width M.
    hidden : {"relu", "sigmoid", "tanh", "identity"}
        Activation of hidden layers. Embedding and output are linear.
    dropout : float
        Share of a row's ratings that each step hides from the encoder, the rest being scaled up.
    normalize_input : bool
        Whether the encoder reads a row divided by its Euclidean norm.
    beta : float
        :math:`\beta`: a step minimises the mean squared error over its batch's ratings plus :math:`\beta`
        times the mean over its rows of the embedding's KL from N(0, I). With n ratings a row and noise
        variance s, the evidence lower bound is at 2 s / n.
    anneal_iterations : float
        Passes over which beta grows linearly from 0; after them it stays.
    """

    table2: ClassVar[Grid] = MappingProxyType(
        {
            "n_factors": (10, 25, 50, 100, 200),
            "n_layers": _LAYERS,
            "n_units": (50, 100, 200, 400),
            "beta": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        }
    )

    n_factors: int = setting(50, "Width of the embedding.", limits=at_least(1))
    n_layers: int = setting(1, "Hidden layers on each side of it.", limits=at_least(0))
    n_units: int = setting(200, "Width of those layers.", limits=at_least(1), when=_HIDDEN)
    hidden: Activation = setting("tanh", "Activation of hidden layers.", when=_HIDDEN)
    dropout: float = setting(0.5, "Share of a row hidden in each step.", limits=SHARE_BELOW_ONE)
    normalize_input: bool = setting(True, "Rows are read at norm one.")
    beta: float = setting(0.01, "Weight of the KL.", limits=NOT_NEGATIVE)
    anneal_iterations: float = setting(20, "Passes over which it grows.", limits=NOT_NEGATIVE)

    def beta_at(self, progress: float) -> float:
        """Return the weight of the KL after `progress` passes."""
        if self.anneal_iterations == 0:
            return self.beta
        return self.beta * min(1.0, progress / self.anneal_iterations)


@dataclass(frozen=True)
class DAECFSettings(NetworkSettings):
    r"""The denoising autoencoder of Liang et al. (2018), squared errors in place of the multinomial.

    Attributes
    ----------
    n_factors : int
        K, width of the embedding.
    n_layers, n_units : int
        Hidden layers between input and embedding, and as many between it and the output; their width M.
    hidden : {"relu", "sigmoid", "tanh", "identity"}
        Activation of hidden layers and of the embedding. The output is linear.
    dropout : float
        Share of a row's ratings that each step hides from the encoder, the rest being scaled up.
    normalize_input : bool
        Whether the encoder reads a row divided by its Euclidean norm.
    """

    table2: ClassVar[Grid] = MappingProxyType(
        {
            "n_factors": (10, 25, 50, 100, 200),
            "n_layers": _LAYERS,
            "n_units": (50, 100, 200, 400),
            "l2": _L2,
        }
    )

    n_factors: int = setting(50, "Width of the embedding.", limits=at_least(1))
    n_layers: int = setting(1, "Hidden layers on each side of it.", limits=at_least(0))
    n_units: int = setting(200, "Width of those layers.", limits=at_least(1), when=_HIDDEN)
    hidden: Activation = setting("tanh", "Activation of hidden layers.")
    dropout: float = setting(0.5, "Share of a row hidden in each step.", limits=SHARE_BELOW_ONE)
    normalize_input: bool = setting(True, "Rows are read at norm one.")


@dataclass(frozen=True)
class NCFSettings(NetworkSettings):
    r"""A multilayer perceptron over the embeddings of user and item (He et al. 2017).

    Attributes
    ----------
    n_factors : int
        K, width of an embedding; the network reads both, 2K wide.
    n_layers : int
        ReLU layers between them and the output. With 0 the prediction is linear in the two embeddings, so
        a level for each user plus one for each item.
    n_units : int
        M, their width.
    """

    table2: ClassVar[Grid] = MappingProxyType(
        {
            "n_factors": (5, 10, 25, 50, 100),
            "n_layers": _LAYERS,
            "n_units": (10, 25, 50, 100),
            "l2": _L2,
        }
    )

    max_iterations: int = setting(30, "Passes over the ratings at most.", limits=at_least(1))
    patience: int | None = setting(
        4, "Stop after so many without a better validation RMSE.", limits=at_least(1)
    )
    batch_size: int = setting(1000, "Ratings a step.", limits=at_least(1))
    n_factors: int = setting(25, "Width of an embedding.", limits=at_least(1))
    n_layers: int = setting(2, "Hidden layers.", limits=at_least(0))
    n_units: int = setting(50, "Width of those layers.", limits=at_least(1), when=_HIDDEN)
    l2: float = setting(0.01, "Weight of the squared norms.", limits=NOT_NEGATIVE)


@dataclass(frozen=True)
class CNNCFSettings(NetworkSettings):
    r"""A convolutional network over the outer product of user and item embedding (He et al. 2018).

    Attributes
    ----------
    n_factors : int
        K, width of an embedding: the first map is K × K.
    n_layers : int
        ReLU layers of 2 × 2 kernels with stride 2, each halving the map: :math:`2^{n\_layers}` must divide K.
        A linear layer reads all that the last one leaves.
    n_channels : int
        Channels of every layer.
    """

    table2: ClassVar[Grid] = MappingProxyType(
        {
            "n_factors": (8, 16, 32, 64, 128),
            "n_layers": (1, 2, 3, 4, 5, 6),
            "l2": _L2,
        }
    )

    max_iterations: int = setting(20, "Passes over the ratings at most.", limits=at_least(1))
    patience: int | None = setting(
        3, "Stop after so many without a better validation RMSE.", limits=at_least(1)
    )
    batch_size: int = setting(1000, "Ratings a step.", limits=at_least(1))
    n_factors: int = setting(8, "Width of an embedding.", limits=at_least(2))
    n_layers: int = setting(1, "Convolutions.", limits=at_least(1))
    n_channels: int = setting(32, "Channels of each.", limits=at_least(1))
    l2: float = setting(0.01, "Weight of the squared norms.", limits=NOT_NEGATIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_factors % 2**self.n_layers:
            raise SettingsError(
                f"n_layers is {self.n_layers} and n_factors {self.n_factors}: each layer halves the map, so "
                f"n_factors must be a multiple of {2**self.n_layers}. Give fewer layers, or such a width."
            )
