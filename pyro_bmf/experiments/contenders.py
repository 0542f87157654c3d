"""What a table compares: our own presets and the baselines, each with its grid and how it is fitted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from pyro_bmf.baselines import BASELINES, NEURAL_BASELINES, Baseline
from pyro_bmf.baselines.neural.network_baseline import NetworkBaseline
from pyro_bmf.baselines.neural.settings import NetworkSettings
from pyro_bmf.checkpoint import LATER
from pyro_bmf.data import Split
from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.contender import Contender, Fitted, Running, Values
from pyro_bmf.experiments.grids import Grid
from pyro_bmf.methods.setting import values_of
from pyro_bmf.methods.settings import Settings, preset

Rule = Callable[[dict[str, Any]], Mapping[str, Any] | None]

#: What tables call the networks: the paper's names.
_TITLES: Mapping[str, str] = {
    "ncf": "NCF",
    "cnn-cf": "CNN-CF",
    "u-rec": "U-Rec",
    "i-rec": "I-Rec",
    "vae-cf": "VAE-CF",
    "dae-cf": "DAE-CF",
}

_POWERS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_WIDTHS = (10, 15, 25, 50)
#: § 4.2's grid of the paper's own method, K the factors, K' the outputs of a tower, M the hidden units.
PAPER_AXES: Mapping[str, tuple[Any, ...]] = {
    "n_factors": _WIDTHS,
    "n_tower_outputs": _WIDTHS,
    "n_head_layers": (0, 1, 2),
    "n_tower_layers": (0, 1, 2),
    "n_units": (10, 25, 50, 100),
    "beta_user": _POWERS,
    "beta_item": _POWERS,
    "attention_scope": ("local", "global"),
}

#: What the preset `paper` has beyond that grid, or for the sake of it, is left out of tables and figures.
_WITHIN_GRID: Mapping[str, Any] = MappingProxyType(
    {"n_tower_outputs": 50, "input_dropout": 0.2, "max_iterations": 120, "patience": 15}
)


def start_of(name: str) -> Settings:
    """Return the settings that tables and figures change: a preset's, the paper's within its grid."""
    start = preset(name)
    return start.replace(**_WITHIN_GRID) if name == "paper" else start


def papers_rule(values: dict[str, Any]) -> dict[str, Any] | None:
    """Let through K ≤ K', and K and K' ≤ M at hidden layers; without those M is not read."""
    if values["n_factors"] > values["n_tower_outputs"]:
        return None
    if not values["n_head_layers"] and not values["n_tower_layers"]:
        return {**values, "n_units": None}
    return None if values["n_tower_outputs"] > values["n_units"] else values


@cache
def _grid(axes: tuple[tuple[str, tuple[Any, ...]], ...], rule: Rule) -> Grid:
    """Return a grid, made once: variants of a preset have the same thousands of combinations."""
    return Grid.of(dict(axes), rule)


class OurPreset(Contender):
    """One of our own presets.

    Parameters
    ----------
    start : str
        The preset.
    axes, rule
        Of its grid, see `Grid.of`.
    blocks : mapping, optional
        Rows a block by data set; the key ``""`` stands for all others.
    fixed : mapping, optional
        What makes it a variant of the preset, such as an ablation.
    name, title : str, optional
        Of a variant; those of the preset when not given.
    """

    def __init__(
        self,
        start: str,
        axes: Mapping[str, tuple[Any, ...]],
        rule: Rule = dict,
        blocks: Mapping[str, int] | None = None,
        *,
        fixed: Values = MappingProxyType({}),
        name: str | None = None,
        title: str | None = None,
    ) -> None:
        self.name, self.title = name or start, title or f"ours, {name or start}"
        self._start, self._axes, self._rule, self._blocks = start, axes, rule, blocks
        self.fixed = dict(fixed)

    @property
    def base(self) -> str:
        """The preset."""
        return self._start

    def grid(self, fixed: Values = MappingProxyType({})) -> Grid:
        """Return its grid; without attention, nothing decides what it looks at."""
        axes = dict(self._axes)
        if not self._attends({**self.fixed, **fixed}):
            axes.pop("attention_scope", None)
        return _grid(tuple(axes.items()), self._rule)

    def changed(self, values: Values) -> dict[str, Any]:
        """Return the preset's settings with those of this variant, without what is then not read."""
        found = {**values, **self.fixed}
        if not self._attends(self.fixed):
            found.pop("attention_scope", None)
        return found

    def _attends(self, values: Values) -> bool:
        return self.chosen(values, 0).values().get("attention") != "none"

    def for_data(self, name: str) -> Values:
        """Return what makes it a variant, and the blocks that go with a data set."""
        if self._blocks is None:
            return dict(self.fixed)
        rows = self._blocks.get(name, self._blocks[""])
        return {**self.fixed, "user_batch_size": rows, "item_batch_size": rows}

    def iterations(self, values: Values) -> int:
        """Return those of the method; sweeps are not counted."""
        return int(self.chosen(values, 0).values().get("max_iterations", 0))

    def chosen(self, values: Values, seed: int) -> Settings:
        """Return the preset's settings with some given."""
        start = start_of(self._start)
        words = start.values()
        # The command line's "none" is the word of a setting that has words.
        meant = {
            name: "none" if value is None and isinstance(words.get(name), str) else value
            for name, value in values.items()
        }
        return start.replace(**{**meant, "seed": seed})

    def settings(self, values: Values, seed: int) -> dict[str, Any]:
        """Return the settings as a run's config has them.

        Those that came later and were not given are left out: cells from before them stay known. Of these
        `overrelaxation` alone is in presets another than before; it leaves the posterior as it is.
        """
        later = {one: value for one, value in LATER.items() if one not in values}
        return self.chosen(values, seed).to_dict(lambda name, part: name not in later)

    def suited(self, values: Values, n_ratings: int, n_rows: int) -> dict[str, Any]:
        """Return what of the model is others for so few ratings."""
        asked = self.chosen(values, 0)
        found = values_of(asked.suited(n_ratings, n_rows).model)
        return {name: value for name, value in found if value != getattr(asked.model, name)}

    def fit(self, split: Split, values: Values, *, seed: int, running: Running) -> Fitted:
        """Fit by `pyro_bmf.fit`."""
        from pyro_bmf.fitting import fit

        settings = self.chosen(values, seed)
        file = running.checkpoint if settings.checkpointed else None
        started = time.perf_counter()
        result = fit(
            split,
            settings,
            device=running.device,
            threads=running.threads,
            progress=running.reporter,
            checkpoint=file,
            checkpoint_every=5,
            resume=file is not None and file.exists(),
        )
        # A resumed fit counts its iterations' seconds from before as well.
        seconds = max(result.seconds, time.perf_counter() - started)
        return Fitted(result.posterior, result.settings.to_dict(), result.history, seconds)


class Network(Contender):
    """A neural baseline.

    Parameters
    ----------
    kind : type of NetworkBaseline
    """

    def __init__(self, kind: type[NetworkBaseline[Any]]) -> None:
        self.kind = kind
        self.name, self.title = kind.name, _TITLES[kind.name]

    def grid(self, fixed: Values = MappingProxyType({})) -> Grid:
        """Return that of the paper's Table 2."""
        del fixed
        return Grid.of(self.kind.settings_class.grid(), self._settle)

    def iterations(self, values: Values) -> int:
        """Return the passes over the ratings."""
        return self.chosen(values, 0).max_iterations

    def chosen(self, values: Values, seed: int) -> NetworkSettings:
        """Return the settings with some given.

        Raises
        ------
        SettingsError
            If a name is not one of this network's settings, or a value is none of a setting.
        """
        known = list(self.kind.settings_class().to_dict())
        unknown = [name for name in values if name not in known]
        if unknown:
            raise SettingsError(
                f"{unknown[0]!r} is not a setting of {self.name}: there are {', '.join(known)}."
            )
        return self.kind.settings_class(**{**values, "seed": seed})

    def settings(self, values: Values, seed: int) -> dict[str, Any]:
        """Return the settings by name, without younger ones that were not given: see `LATER`."""
        later = {name for name in LATER if name not in values}
        chosen = self.chosen(values, seed).to_dict()
        return {name: value for name, value in chosen.items() if name not in later}

    def fit(self, split: Split, values: Values, *, seed: int, running: Running) -> Fitted:
        """Train it, with early stopping on validation ratings."""
        settings = self.chosen(values, seed)
        started = time.perf_counter()
        system = self.kind(
            settings,
            device=running.device,
            threads=running.threads,
            progress=running.reporter,
            checkpoint=running.checkpoint,
        ).fit(split)
        seconds = max(float(system.info["seconds"]), time.perf_counter() - started)
        return Fitted(system, settings.to_dict(), list(system.info["history"]), seconds)

    def _settle(self, values: dict[str, Any]) -> dict[str, Any] | None:
        try:
            made = self.kind.settings_class(**values)
        except SettingsError:
            return None
        unread = made.unread()
        return {name: None if name in unread else value for name, value in values.items()}


class Reference(Contender):
    """A baseline without settings."""

    def __init__(self, kind: type[Baseline]) -> None:
        self.kind = kind
        self.name = self.title = kind.name

    def grid(self, fixed: Values = MappingProxyType({})) -> Grid:
        """Return the grid of one combination."""
        del fixed
        return Grid.of({})

    def settings(self, values: Values, seed: int) -> dict[str, Any]:
        """Return nothing, as there is nothing to set."""
        del seed
        if values:
            raise SettingsError(f"{self.name} has no settings: leave out {', '.join(values)}.")
        return {}

    def fit(self, split: Split, values: Values, *, seed: int, running: Running) -> Fitted:
        """Fit it, in one step."""
        del running
        settings = self.settings(values, seed)
        started = time.perf_counter()
        system = self.kind().fit(split)
        return Fitted(system, settings, [], time.perf_counter() - started)


#: The default has no grid in the paper; its size and its length are what a user would try.
_DEFAULT_AXES: Mapping[str, tuple[Any, ...]] = {
    "n_factors": (8, 16, 24, 32),
    "row_noise": ("none", "both"),
}


def contenders() -> dict[str, Contender]:
    """Return every contender by name, in the order of tables."""
    ours = (
        OurPreset("literal", PAPER_AXES, papers_rule, {"ml1m": 100, "": 1000}),
        OurPreset("paper", PAPER_AXES, papers_rule),
        OurPreset("default", _DEFAULT_AXES),
    )
    every: tuple[Contender, ...] = (
        *(Reference(kind) for kind in BASELINES),
        *(Network(kind) for kind in NEURAL_BASELINES),
        *ours,
    )
    return {one.name: one for one in every}


def contender(name: str) -> Contender:
    """Return a contender by name.

    Raises
    ------
    SettingsError
        If there is none of that name.
    """
    known = contenders()
    if name not in known:
        raise SettingsError(f"There is no model {name!r}: choose from {', '.join(known)}.")
    return known[name]


def with_iterations(one: Contender, iterations: int) -> dict[str, Any]:
    """Return the settings that end a contender's fit after so many iterations at most.

    Raises
    ------
    SettingsError
        If it has none.
    """
    if not one.iterations({}):
        raise SettingsError(f"{one.name} has no iterations to choose: leave them out.")
    return {"max_iterations": iterations}


__all__ = [
    "Contender",
    "Fitted",
    "Network",
    "OurPreset",
    "Reference",
    "Running",
    "contender",
    "contenders",
    "start_of",
    "with_iterations",
]
