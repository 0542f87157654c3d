"""Rows of the paper's Figure 3: Table 3's models, each tuned anew on small random shares of the ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pyro_bmf.data import Ratings, Split
from pyro_bmf.data.splits import subsample_split
from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.contender import Contender
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.table4_rows import PARTS
from pyro_bmf.experiments.table3_rows import Choices, Derived, Table3Rows

#: The paper's shares of the ratings that are trained on, in percent.
PERCENTS: tuple[float, ...] = (1, 2, 3, 5, 10)
#: The paper's method with either scope of its attention, with the settings that were chosen for it.
SCOPES = ("paper-local-attention-untuned", "paper-global-attention-untuned")


@dataclass(frozen=True, eq=False)
class Subsample(DataSet):
    """A share of a data set to train on; the rest is halved into validation and test.

    Attributes
    ----------
    whole : DataSet
    percent : float
    """

    whole: DataSet = field(default_factory=lambda: DataSet("", "", ""))
    percent: float = 10.0

    @classmethod
    def of(cls, whole: DataSet, percent: float) -> Subsample:
        """Return so many percent of a set."""
        told = f"{percent:g}%"
        return cls(
            f"{whole.name}-{told}",
            f"{whole.title}, {told}",
            whole.source,
            whole.reading,
            whole=whole,
            percent=percent,
        )

    @property
    def base(self) -> str:
        """The name of the whole set."""
        return self.whole.name

    @cached_property
    def ratings(self) -> Ratings:
        """All ratings of the set."""
        return self.whole.ratings

    def _split(self, seed: int) -> Split:
        return subsample_split(self.ratings, self.percent, seed)


class SparsityRows(Table3Rows):
    """Models by shares of data sets.

    Parameters
    ----------
    models : sequence of str or Contender
        Rows; with ``paper`` among them it has two more, one for each scope of its attention.
    sets : sequence of DataSet
        Whole sets.
    percents : mapping of str to sequence of float
        Shares that are trained on, in percent, by the name of a set; ``*`` is any that is not named.
    seeds, choices, device, threads
        As of `Table3Rows`. What is chosen for a row on a whole set is for all its shares.

    Raises
    ------
    SettingsError
        For a share that is not between 0 and 100 percent, and for shares of a set that is not among them.
    """

    def __init__(
        self,
        models: Sequence[str | Contender],
        sets: Sequence[DataSet],
        percents: Mapping[str, Sequence[float]] | None = None,
        seeds: int = 3,
        choices: Choices | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.whole = tuple(sets)
        self.percents = _shares_of(self.whole, percents or {})
        shares = [Subsample.of(data, percent) for data in sets for percent in self.percents[data.name]]
        scopes = [replace(PARTS[name], title=f"ours, paper: {PARTS[name].title}") for name in SCOPES]
        super().__init__(
            models,
            shares,
            seeds,
            _on_every_share(choices or Choices(), shares),
            device=device,
            threads=threads,
            derived=[Derived(one.variant(), "paper") for one in scopes] if "paper" in models else (),
        )


def _shares_of(sets: Sequence[DataSet], given: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """Return the shares of each set in ascending order, by its name."""
    names = [data.name for data in sets]
    for name, percents in given.items():
        if name not in (*names, "*"):
            raise SettingsError(f"Shares of {name} are given, and the sets are {', '.join(names)}.")
        wrong = [percent for percent in percents if not 0 < percent < 100]
        if wrong or not percents:
            told = f"{wrong[0]:g} %" if wrong else "none"
            raise SettingsError(f"Shares to train on are {told}: give some between 0 and 100 percent.")
    every = given.get("*", PERCENTS)
    return {name: tuple(sorted(set(given.get(name, every)))) for name in names}


def _on_every_share(choices: Choices, shares: Sequence[Subsample]) -> Choices:
    """Return choices in which those of a whole set are those of each of its shares."""

    def spread(given: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(given)
        for name, value in given.items():
            model, _, column = name.partition("@")
            own = [f"{model}@{share.name}" for share in shares if share.base == column]
            if own:
                del found[name]
            found |= {one: value for one in own if one not in given}
        return found

    chosen = dict(choices.chosen)
    for share in shares:
        if share.base in chosen and share.name not in chosen:
            chosen[share.name] = chosen[share.base]
    return replace(
        choices,
        trials=spread(choices.trials),
        iterations=spread(choices.iterations),
        cuts=spread(choices.cuts),
        chosen=chosen,
    )
