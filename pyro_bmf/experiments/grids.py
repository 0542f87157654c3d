"""Grids of settings under constraints: the combinations that exist, and a way through them for a sampler.

A combination is chosen one setting after another, and each choice is among the values that some combination
goes on with. A sampler therefore never proposes what could not be built.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Protocol

from pyro_bmf.errors import SettingsError

#: A combination: a value for each setting, in the order of the grid's names. None: it is not read.
Cell = tuple[Any, ...]


class Chooser(Protocol):
    """Who chooses values: an Optuna trial, whose sampler does."""

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        """Choose a whole number between two, both among them."""

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """Choose one of some values."""


@dataclass(frozen=True)
class Grid:
    """Values by setting, and every combination of them that exists.

    Attributes
    ----------
    axes : mapping
        By the setting's name, its values: ascending where they are numbers.
    cells : tuple of tuple
        The combinations, each once.
    """

    axes: Mapping[str, tuple[Any, ...]]
    cells: tuple[Cell, ...]

    @classmethod
    def of(
        cls,
        axes: Mapping[str, Sequence[Any]],
        settle: Callable[[dict[str, Any]], Mapping[str, Any] | None] = lambda values: values,
    ) -> Grid:
        """Return the grid of all combinations that a rule lets through.

        Parameters
        ----------
        axes
            Values by setting.
        settle
            Of a combination: the same with None for the settings that it does not read, or None where there
            is no such combination.
        """
        kept = {name: tuple(values) for name, values in axes.items()}
        found: dict[Cell, None] = {}
        for values in product(*kept.values()):
            settled = settle(dict(zip(kept, values, strict=True)))
            if settled is not None:
                found[tuple(settled[name] for name in kept)] = None
        return cls(kept, tuple(found))

    def __len__(self) -> int:
        """Return how many combinations there are."""
        return len(self.cells)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The settings, in the order in which they are chosen."""
        return tuple(self.axes)

    def cut(self, cuts: Mapping[str, Sequence[Any]]) -> Grid:
        """Return the part of the grid whose settings have some of their values alone.

        Raises
        ------
        SettingsError
            If a setting, or a value of one, is not of the grid, or nothing is left.
        """
        if not cuts:
            return self
        axes = dict(self.axes)
        for name, values in cuts.items():
            if name not in axes:
                known = ", ".join(axes) or "nothing"
                raise SettingsError(f"{name} is not tuned here: the grid is over {known}.")
            values = ["none" if value is None and "none" in axes[name] else value for value in values]
            missing = [value for value in values if value not in axes[name]]
            if missing:
                told = ", ".join(map(str, axes[name]))
                raise SettingsError(f"{name}={missing[0]} is not of the grid: choose from {told}.")
            axes[name] = tuple(value for value in axes[name] if value in values)
        places = [(self.names.index(name), {*axes[name], None}) for name in cuts]  # None: not read
        cells = tuple(cell for cell in self.cells if all(cell[at] in allowed for at, allowed in places))
        if not cells:
            told = ", ".join(f"{name} {tuple(values)}" for name, values in cuts.items())
            raise SettingsError(f"No combination of the grid has {told}: give more values.")
        return Grid(axes, cells)

    def values(self, cell: Cell) -> dict[str, Any]:
        """Return a combination by name, without the settings that it does not read."""
        return {name: value for name, value in zip(self.names, cell, strict=True) if value is not None}

    def cell(self, values: Mapping[str, Any]) -> Cell:
        """Return what `values` gave back as a combination."""
        return tuple(values.get(name) for name in self.names)

    def suggest(self, trial: Chooser) -> Cell:
        """Let a trial choose a combination.

        Neighbouring numbers of a setting are neighbours to the sampler: it chooses places on the axis.
        """
        left: Iterable[Cell] = self.cells
        chosen: list[Any] = []
        for at, (name, axis) in enumerate(self.axes.items()):
            left = list(left)
            present = {cell[at] for cell in left}
            value = present.pop() if len(present) == 1 else self._ask(trial, name, axis, present)
            chosen.append(value)
            left = [cell for cell in left if cell[at] == value]
        return tuple(chosen)

    def parameters(self, cell: Cell) -> dict[str, Any]:
        """Return what a trial that is told to try a combination answers `suggest` with."""
        recorder = _Recorder(dict(zip(self.names, cell, strict=True)), self.axes)
        self.suggest(recorder)
        return recorder.parameters

    def on_edge(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the settings whose value is the least or the greatest number of several on its axis.

        A least value of 0 is not counted: below it there is nothing to try.
        """
        return tuple(
            name
            for name, axis in self.axes.items()
            if len(axis) > 1
            and all(_is_number(value) for value in axis)
            and (values.get(name) == axis[-1] or (values.get(name) == axis[0] and axis[0] != 0))
        )

    @staticmethod
    def _ask(trial: Chooser, name: str, axis: tuple[Any, ...], present: set[Any]) -> Any:
        places = [place for place, value in enumerate(axis) if value in present]
        contiguous = len(places) == len(present) == places[-1] - places[0] + 1
        if contiguous and all(_is_number(value) for value in axis):
            return axis[trial.suggest_int(name, places[0], places[-1])]
        choices = [value for value in (*axis, None) if value in present]
        # A name of its own for each set of choices: a sampler wants a parameter's choices to stay the same.
        whole = len(choices) == len(axis)
        told = name if whole else f"{name} of {', '.join(map(str, choices))}"
        return trial.suggest_categorical(told, choices)


class _Recorder:
    """Stands in for a trial whose choices are known, and notes what it is asked."""

    def __init__(self, values: Mapping[str, Any], axes: Mapping[str, tuple[Any, ...]]) -> None:
        self._values, self._axes = values, axes
        self.parameters: dict[str, Any] = {}

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        """Answer with the place of the value."""
        del low, high
        self.parameters[name] = self._axes[name].index(self._values[name])
        return int(self.parameters[name])

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        """Answer with the value."""
        del choices
        self.parameters[name] = self._values[name.partition(" of ")[0]]
        return self.parameters[name]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
