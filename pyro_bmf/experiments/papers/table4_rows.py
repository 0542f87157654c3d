"""Rows of the paper's Table 4: its model without one part, tuned anew and untuned.

Beside it: the variants that its text speaks of without figures, and our own presets without a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.contenders import PAPER_AXES, Contender, OurPreset, contender, papers_rule
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.table3_rows import Choices, Derived, Table3Rows


@dataclass(frozen=True)
class Part:
    """A row: a preset with one part changed.

    Attributes
    ----------
    base : str
        The preset.
    part : str
        What is changed; ``full`` for nothing.
    title : str
        In tables.
    changes : mapping
        The settings that change it.
    tuned : bool
        Whether it is tuned anew, or has the full model's settings.
    """

    base: str
    part: str
    title: str
    changes: Mapping[str, Any]
    tuned: bool

    @property
    def name(self) -> str:
        """Of the row."""
        ending = "-untuned" if self.base == "paper" and not self.tuned else ""
        return (self.base if self.part == "full" else f"{self.base}-{self.part}") + ending

    def model(self) -> Contender:
        """Return what is fitted."""
        if self.part == "full":
            return contender("paper") if self.base == "paper" else OurPreset(self.base, {})
        return self.variant()

    def variant(self) -> OurPreset:
        """Return the preset with the part changed."""
        axes = PAPER_AXES if self.base == "paper" else {}
        rule = papers_rule if self.base == "paper" else dict
        return OurPreset(self.base, axes, rule, fixed=self.changes, name=self.name, title=self.title)


_ENCODERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "no-data-input": ("no data input", {"data_input": False}),
    "no-feedback": ("no cross feedback", {"feedback": False}),
    "no-attention": ("no attention", {"attention": "none"}),
}
_TEXT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "average-input": ("average instead of concatenation", {"latent_input": "average"}),
    "sequential": ("sequential iteration", {"iteration_order": "sequential"}),
}
_SCOPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "local-attention": ("local attention", {"attention_scope": "local"}),
    "global-attention": ("global attention", {"attention_scope": "global"}),
}


def _parts() -> tuple[Part, ...]:
    tuned = [Part("paper", part, *what, True) for part, what in {**_ENCODERS, **_TEXT}.items()]
    untuned = [Part("paper", part, *what, False) for part, what in {**_ENCODERS, **_TEXT, **_SCOPES}.items()]
    ours = [Part("amortized", part, *what, False) for part, what in _ENCODERS.items()]
    return (
        Part("paper", "full", "full model", {}, True),
        *tuned,
        *untuned,
        Part("guide", "full", "guide", {}, False),
        Part("guide", "no-mask-encoder", "no mask encoder", {"implicit": False}, False),
        Part("amortized", "full", "amortized", {}, False),
        *ours,
    )


#: Every row, by name.
PARTS: Mapping[str, Part] = {one.name: one for one in _parts()}


def with_full(rows: Sequence[str]) -> tuple[str, ...]:
    """Return rows with the full model before them, where some of them have its settings."""
    follows = any(name.endswith("-untuned") for name in rows)
    return (*(["paper"] if follows and "paper" not in rows else []), *rows)


class Table4Rows(Table3Rows):
    """Ablations: rows tuned anew, rows with the full model's settings, presets as they stand.

    Parameters
    ----------
    rows : sequence of str
        Of `PARTS`; those that are untuned bring the full model along.
    sets, seeds, choices, device, threads
        As of `Table3Rows`; what is chosen for ``paper`` is for every part of it that is tuned.

    Raises
    ------
    SettingsError
        For a row that is unknown.
    """

    def __init__(
        self,
        rows: Sequence[str],
        sets: Sequence[DataSet],
        seeds: int = 3,
        choices: Choices | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        rows = with_full(rows)
        unknown = [name for name in rows if name not in PARTS]
        if unknown:
            raise SettingsError(f"{unknown[0]} is not a row of Table 4: choose from {', '.join(PARTS)}.")
        wanted = [PARTS[name] for name in rows]
        following = [one for one in wanted if one.name.endswith("-untuned")]
        models = [one.model() for one in wanted if one not in following]
        derived = [Derived(one.variant(), "paper") for one in following]
        self.parts = (*(one for one in wanted if one not in following), *following)
        super().__init__(
            models,
            sets,
            seeds,
            for_every_part(choices or Choices(), models),
            device=device,
            threads=threads,
            derived=derived,
        )


def for_every_part(choices: Choices, models: Sequence[Contender]) -> Choices:
    """Return choices in which what is chosen for a preset is for all its variants that are not named."""

    def spread(given: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(given)
        for model in models:
            for name, value in given.items():
                base, at, column = name.partition("@")
                own = f"{model.name}{at}{column}"
                if base == model.base and own not in given and model.name not in given:
                    found[own] = value
        return found

    cuts = {
        name: {axis: values for axis, values in given.items() if axis in _axes(models, name, given)}
        for name, given in spread(choices.cuts).items()
    }
    return replace(choices, trials=spread(choices.trials), iterations=spread(choices.iterations), cuts=cuts)


def _axes(models: Sequence[Contender], name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the axes of a variant's grid; of what is named itself every axis, so that an error is told."""
    row = name.partition("@")[0]
    for model in models:
        if model.name == row and model.base != row:
            return model.grid().axes
    return given
