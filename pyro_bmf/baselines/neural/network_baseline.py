"""What the neural baselines share: training, a Normal predictive, a device, their file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pyro_bmf.baselines.base import Baseline
from pyro_bmf.baselines.effects import variance_floor
from pyro_bmf.baselines.neural.settings import NetworkSettings
from pyro_bmf.baselines.neural.training import Course, train_network
from pyro_bmf.checkpoint import same_kinds
from pyro_bmf.data import Ratings, Split
from pyro_bmf.methods.setting import check_class
from pyro_bmf.numerics.chunks import CELLS, chunks
from pyro_bmf.process import computing, pick_device
from pyro_bmf.progress import Reporter, reporter_of

S = TypeVar("S", bound=NetworkSettings)
Indices = NDArray[np.int64]
Floats = NDArray[np.float64]

_NOISE, _NETWORK = "noise_variance", "network."


class NetworkBaseline(Baseline, Generic[S]):
    """A network that gives the mean rating of a pair; the predictive is a Normal around it.

    The variance of that Normal is one number: the mean squared error on the validation ratings at the kept
    state, and on the training ratings where there are no validation ratings (`info` says which, as
    ``noise_from``). On a discrete scale probabilities are those of the levels' cells.

    Parameters
    ----------
    settings : optional
        An object of `settings_class`; its defaults when not given.
    device : str
        ``"auto"`` is CUDA where there is one.
    threads : int, optional
        Of torch while it fits; as many as it has when not given.
    progress : bool or Reporter
        A bar, or who is told of every iteration (``valid_rmse`` among its figures). What the reporter raises
        ends the fit.
    checkpoint : Path or str, optional
        A file for the state between two iterations: where it exists, a fit of the same ratings and settings
        goes on from it to the bits of one that was never interrupted.

    Attributes
    ----------
    options : NetworkSettings
        The settings.
    network : torch.nn.Module
        What was trained.
    noise_variance : float
        Of the predictive, rating units squared.
    """

    settings_class: ClassVar[type[NetworkSettings]]
    options: S
    network: nn.Module
    noise_variance: float

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

    @abstractmethod
    def pair_means(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the (n,) mean ratings of pairs."""

    @abstractmethod
    def item_means(self, users: Tensor) -> Tensor:
        """Return the (len(users), n_items) mean ratings of every item."""

    @property
    def cells_per_pair(self) -> int:
        """Numbers that a predicted pair takes on its way through the network: bounds the memory of many."""
        return 1

    @property
    def cells_per_score(self) -> int:
        """The same, where all items are scored at once."""
        return self.cells_per_pair

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

    def learn(self, train: Ratings, valid: Ratings | None) -> None:
        """Train; validation ratings decide when to stop, which state is kept and how wide predictions are."""
        device = self.device
        with computing(device, threads=self._threads, deterministic=False):
            torch.manual_seed(self.options.seed)
            self.network = self.build(train).to(device)
            cases = self.read(train)
            self._valid = valid
            identity = {
                "system": self.name,
                "version": self.version,
                "settings": self.settings(),
                "data_hash": train.data_hash,
                "valid_hash": None if valid is None else valid.data_hash,
            }
            course = Course(reporter_of(self._progress), self._checkpoint, identity)
            state = train_network(self, cases, self.options, course)
            del self._valid
            self._ready()
            errors = self._errors(train if valid is None else valid)
        self.noise_variance = max(float(np.mean(errors**2)), variance_floor(train))
        self._fit_info = {
            "settings": self.settings(),
            "history": state.history,
            "iterations": state.iteration,
            "kept_iteration": state.best_iteration,
            "stopped": "max-iterations" if state.iteration == self.options.max_iterations else "patience",
            "seconds": sum(record["seconds"] for record in state.history),
            "noise_from": "train" if valid is None else "valid",
            "n_parameters": sum(p.numel() for p in self.network.parameters()),
        }

    def valid_rmse(self) -> float | None:
        """Return the validation RMSE of the network as it is; None without validation ratings."""
        if self._valid is None:
            return None
        with torch.no_grad():
            self.refresh()
        return float(np.sqrt(np.mean(self._errors(self._valid) ** 2)))

    def _errors(self, ratings: Ratings) -> Floats:
        return ratings.ratings - self._means(ratings.users, ratings.items)

    def _ready(self) -> None:
        self.network.eval().requires_grad_(False)
        with torch.no_grad():
            self.refresh()

    # ---------------------------------------------------------------- predicting

    @torch.no_grad()
    def _means(self, users: Indices, items: Indices) -> Floats:
        means = np.empty(users.size)
        for part in chunks(users.size, CELLS // self.cells_per_pair):
            found = self.pair_means(self.index(users[part]), self.index(items[part]))
            means[part] = found.double().cpu().numpy()
        return means

    def index(self, indices: Indices) -> Tensor:
        """Return indices on the network's device."""
        return torch.from_numpy(np.array(indices, dtype=np.int64)).to(self.device)

    def values(self, ratings: Floats) -> Tensor:
        """Return ratings on the network's device, in torch's default type."""
        return torch.from_numpy(np.array(ratings)).to(self.device, torch.get_default_dtype())

    def moments(self, users: Indices, items: Indices) -> tuple[Floats, Floats]:
        """Return the network's means, and one variance."""
        return self._means(users, items), np.full(users.size, self.noise_variance)

    @torch.no_grad()
    def scores(self, users: Indices) -> NDArray[np.float32]:
        """Return the mean rating of every item, some users at a time."""
        scores = np.empty((users.size, self.train.n_items), dtype=np.float32)
        for part in chunks(users.size, CELLS // (self.cells_per_score * self.train.n_items)):
            scores[part] = self.item_means(self.index(users[part])).cpu().numpy()
        return scores

    # ---------------------------------------------------------------- its file

    def settings(self) -> dict[str, Any]:
        """Return the settings by name."""
        return self.options.to_dict()

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any]) -> Self:
        """Return a baseline with settings by name, as `settings` gives them."""
        made: Any = cls.settings_class(**settings)
        return cls(made)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return weights and predictive variance."""
        weights = self.network.state_dict().items()
        state = {f"{_NETWORK}{name}": value.cpu().numpy() for name, value in weights}
        return state | {_NOISE: np.array(self.noise_variance)}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take both back."""
        with computing(self.device, threads=None, deterministic=False):
            network = self.build(self.train)
            weights = {
                name.removeprefix(_NETWORK): torch.from_numpy(np.array(value))
                for name, value in state.items()
                if name != _NOISE
            }
            same_kinds(weights, network.state_dict(), "network")
            network.load_state_dict(weights)
            self.network = network.to(self.device)
            self.read(self.train)
            self._ready()
        self.noise_variance = float(state[_NOISE])
