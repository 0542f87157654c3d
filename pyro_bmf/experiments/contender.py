"""What a row of a table is: something with a grid of settings that can be fitted to a split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyro_bmf.data import Split
from pyro_bmf.experiments.grids import Grid
from pyro_bmf.progress import Reporter
from pyro_bmf.systems.contract import System

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Running:
    """How a fit runs, beside what decides its result.

    Attributes
    ----------
    reporter : Reporter
        Told of every iteration; what it raises ends the fit.
    device : str
    threads : int or None
    checkpoint : Path or None
        Where the fit keeps its state, and from where it goes on if it was interrupted.
    """

    reporter: Reporter
    device: str = "auto"
    threads: int | None = None
    checkpoint: Path | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a contender's fit gave.

    Attributes
    ----------
    system : System
    settings : dict
        Everything that decided the fit, JSON-ready.
    history : list of dict
        A record an iteration, ``valid_rmse`` in it where there are validation ratings.
    seconds : float
        Of the fit, on the wall.
    """

    system: System
    settings: dict[str, Any]
    history: list[dict[str, Any]]
    seconds: float


class Contender(ABC):
    """A row of a table.

    Attributes
    ----------
    name : str
        On the command line and in files.
    title : str
        In tables.
    """

    name: str
    title: str

    @property
    def base(self) -> str:
        """The name of what it is a variant of, else its own: equal settings of one base are one fit."""
        return self.name

    @abstractmethod
    def grid(self, fixed: Values = MappingProxyType({})) -> Grid:
        """Return what is tuned; a grid without axes has one combination, and nothing is tuned.

        Parameters
        ----------
        fixed
            Settings that every fit will have: what is not read beside them is not tuned.
        """

    @abstractmethod
    def settings(self, values: Values, seed: int) -> dict[str, Any]:
        """Return all settings of a fit with some of them given, JSON-ready.

        Raises
        ------
        SettingsError
            If a name or a value is not one of this contender's.
        """

    @abstractmethod
    def fit(self, split: Split, values: Values, *, seed: int, running: Running) -> Fitted:
        """Fit to the train part of a split; validation ratings may choose what is kept."""

    def iterations(self, values: Values) -> int:
        """Return the iterations of a fit with these settings at most; 0 where it has none to set."""
        del values
        return 0

    def suited(self, values: Values, n_ratings: int, n_rows: int) -> dict[str, Any]:
        """Return what of the model follows the number of ratings, as nobody asked for it.

        Parameters
        ----------
        values
            Those that were given.
        n_ratings, n_rows : int
            Training ratings; users and items.
        """
        del values, n_ratings, n_rows
        return {}

    def for_data(self, name: str) -> Values:
        """Return settings that go with a data set."""
        del name
        return {}
