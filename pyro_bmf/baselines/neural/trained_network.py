"""What every trained network shares: settings, training on a device, its file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.neural.settings import NetworkSettings
from pyro_bmf.baselines.neural.training import Course, train_network
from pyro_bmf.checkpoint import FitState, same_kinds
from pyro_bmf.data import Ratings, Split
from pyro_bmf.methods.setting import check_class
from pyro_bmf.process import computing, pick_device
from pyro_bmf.progress import Reporter, reporter_of

S = TypeVar("S", bound=NetworkSettings)
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

_NETWORK = "network."


class TrainedNetwork(Baseline, Generic[S]):
    """A network that is trained on ratings; a class says what it predicts, and what validation measures.

    Parameters
    ----------
    settings : optional
        An object of `settings_class`; its defaults when not given.
    device : str
        ``"auto"`` is CUDA where there is one.
    threads : int, optional
        Of torch while it fits; as many as it has when not given.
    progress : bool or Reporter
        A bar, or who is told of every iteration (the validation figure among its figures). What the reporter
        raises ends the fit.
    checkpoint : Path or str, optional
        A file for the state between two iterations: where it exists, a fit of the same ratings and settings
        goes on from it to the bits of one that was never interrupted.

    Attributes
    ----------
    options : NetworkSettings
        The settings.
    network : torch.nn.Module
        What was trained.
    """

    settings_class: ClassVar[type[NetworkSettings]]
    #: What validation measures, as records name it, and which end of it is better.
    figure: ClassVar[str]
    better: ClassVar[Literal["lower", "higher"]]
    options: S
    network: nn.Module
    #: Validation ratings, while it is trained.
    valid: Ratings | None

    def __init__(
        self,
        settings: S | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        progress: bool | Reporter = False,
        checkpoint: Path | str | None = None,
    ) -> None:
        given: Any = self.settings_class() if settings is None else settings
        check_class("settings", given, self.settings_class)
        self.options = given
        self._asked_device, self._threads, self._progress = device, threads, progress
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        self._fit_info: dict[str, Any] = {}

    # ---------------------------------------------------------------- what a class gives

    @abstractmethod
    def build(self, train: Ratings) -> nn.Module:
        """Return the network at its start; torch's generator is seeded."""

    @abstractmethod
    def read(self, train: Ratings) -> Tensor:
        """Move the training ratings to `device`, and return the cases that batches are dealt from."""

    @abstractmethod
    def batch_loss(self, cases: Tensor, progress: float) -> tuple[Tensor, int]:
        """See `training.Task`."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Adam over the weights."""
        return torch.optim.Adam(self.network.parameters(), lr=self.options.learning_rate, fused=True)

    def penalized(self) -> list[Tensor]:
        """Return the weights whose squared norms a step adds to its loss: all but biases."""
        return [p for p in self.network.parameters() if p.dim() > 1]

    def penalty(self) -> Tensor | float:
        """Return half of their squared norms, weighted."""
        if not self.options.l2:
            return 0.0
        flat = [weight.flatten() for weight in self.penalized()]
        norms = torch.stack([weight.dot(weight) for weight in flat])
        return 0.5 * self.options.l2 * norms.sum()

    def refresh(self) -> None:
        """Compute what all predictions share, after the weights have changed."""

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint must agree with beside ratings and settings."""
        return {}

    @abstractmethod
    def validate(self) -> float | None:
        """Measure the network as it is on `valid`; None without validation ratings. See `training.Task`."""

    # ---------------------------------------------------------------- fitting

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return pick_device(self._asked_device)

    def fit(self, split: Split, *, refit: bool = False) -> Self:
        """Fit to a split's train part, or with `refit` to train and validation, for `max_iterations` then."""
        super().fit(split, refit=refit)
        self._info |= self._fit_info
        return self

    def train_on(self, train: Ratings, valid: Ratings | None) -> FitState:
        """Train; validation ratings decide when to stop and which state is kept."""
        torch.manual_seed(self.options.seed)
        self.network = self.build(train).to(self.device)
        cases = self.read(train)
        self.valid = valid
        identity = {
            "system": self.name,
            "version": self.version,
            "settings": self.settings(),
            "data_hash": train.data_hash,
            "valid_hash": None if valid is None else valid.data_hash,
            **self.identity(),
        }
        course = Course(reporter_of(self._progress), self._checkpoint, identity)
        state = train_network(self, cases, self.options, course)
        self.valid = None
        self._ready()
        self._fit_info = {
            "settings": self.settings(),
            "history": state.history,
            "iterations": state.iteration,
            "kept_iteration": state.best_iteration,
            "stopped": "max-iterations" if state.iteration == self.options.max_iterations else "patience",
            "seconds": sum(record["seconds"] for record in state.history),
            "n_parameters": sum(p.numel() for p in self.network.parameters()),
        }
        return state

    def fitting(self) -> Any:
        """Return the context in which torch computes on the device with the threads asked for."""
        return computing(self.device, threads=self._threads, deterministic=False)

    def _ready(self) -> None:
        self.network.eval().requires_grad_(False)
        with torch.no_grad():
            self.refresh()

    def index(self, indices: Indices) -> Tensor:
        """Return indices on the network's device."""
        return torch.from_numpy(np.array(indices, dtype=np.int64)).to(self.device)

    def values(self, ratings: Floats) -> Tensor:
        """Return ratings on the network's device, in torch's default type."""
        return torch.from_numpy(np.array(ratings)).to(self.device, torch.get_default_dtype())

    # ---------------------------------------------------------------- its file

    def settings(self) -> dict[str, Any]:
        """Return the settings by name."""
        return self.options.to_dict()

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return a baseline with settings by name, as `settings` gives them."""
        made: Any = cls.settings_class(**settings)
        return cls(made)

    def network_state(self) -> dict[str, NDArray[Any]]:
        """Return the weights by name."""
        weights = self.network.state_dict().items()
        return {f"{_NETWORK}{name}": value.cpu().numpy() for name, value in weights}

    def restore_network(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take back what `network_state` gave, among other things."""
        with computing(self.device, threads=None, deterministic=False):
            network = self.build(self.train)
            weights = {
                name.removeprefix(_NETWORK): torch.from_numpy(np.array(value))
                for name, value in state.items()
                if name.startswith(_NETWORK)
            }
            same_kinds(weights, network.state_dict(), "network")
            network.load_state_dict(weights)
            self.network = network.to(self.device)
            self.read(self.train)
            self._ready()
