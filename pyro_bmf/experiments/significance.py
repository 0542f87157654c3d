"""Which models differ over data sets (the paper's Figure 2): Friedman's test, Nemenyi's, their diagrams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.cells import Cell, CellStore
from pyro_bmf.experiments.papers.ours import Ours
from pyro_bmf.experiments.printed import SETS, TABLE3
from pyro_bmf.experiments.reports import Report, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Without two data sets nothing is ranked twice; Friedman's test is of three models or more.
_FEWEST_SETS, _FEWEST_MODELS = 2, 3
#: What the paper's text says of the mean ranks in RMSE.
_PAPERS_RANKS = "1, 2.58 (NCF) and 2.79 (I-Rec)"


@dataclass(frozen=True, eq=False)
class Ranked:
    """Some models compared over data sets by one metric.

    Attributes
    ----------
    metric : str
    ranks : Series
        Mean rank by model, the best first; equal figures share a rank.
    statistic, p : float
        Of Friedman's test: no model differs from another.
    nemenyi : DataFrame
        Of every pair, Nemenyi's p value.
    """

    metric: str
    ranks: pd.Series
    statistic: float
    p: float
    nemenyi: pd.DataFrame

    @property
    def models(self) -> tuple[str, ...]:
        """By rank."""
        return tuple(map(str, self.ranks.index))

    def different(self, alpha: float) -> list[tuple[str, str]]:
        """Return the pairs whose p value is below a level; none unless Friedman's is."""
        if self.p >= alpha:
            return []
        return [(a, b) for a, b in combinations(self.models, 2) if self.nemenyi.loc[a, b] < alpha]


def compare(metric: str, figures: pd.DataFrame) -> Ranked:
    """Compare models (columns) over data sets (rows) by one metric.

    Raises
    ------
    SettingsError
        If scikit-posthocs is not installed, or there are fewer than three models.
    """
    try:
        from scikit_posthocs import posthoc_nemenyi_friedman
    except ImportError as error:
        raise SettingsError(
            "Nemenyi's test needs scikit-posthocs: pip install 'pyro-bmf[experiments]'."
        ) from error
    if figures.shape[1] < 3:
        raise SettingsError("Friedman's test needs three models or more.")
    worse_is_larger = figures if metric == "RMSE" else -figures
    ranks = worse_is_larger.rank(axis=1).mean().sort_values(kind="stable")
    if (worse_is_larger.nunique(axis=1) == 1).all():
        same = pd.DataFrame(1.0, index=figures.columns, columns=figures.columns)
        return Ranked(metric, ranks, 0.0, 1.0, same)  # nobody differs: the test itself is undefined
    statistic, p = stats.friedmanchisquare(*(worse_is_larger[name] for name in figures.columns))
    return Ranked(metric, ranks, float(statistic), float(p), posthoc_nemenyi_friedman(worse_is_larger))


def top_models(metric: str, figures: pd.DataFrame, n: int) -> list[list[str]]:
    """Return the `n` models of the best mean rank; several choices where the last place is shared."""
    worse_is_larger = figures if metric == "RMSE" else -figures
    ranks = worse_is_larger.rank(axis=1).mean().round(9)
    last = ranks.sort_values().iloc[n - 1]
    sure = [str(name) for name in figures.columns if ranks[name] < last]
    tied = [str(name) for name in figures.columns if ranks[name] == last]
    return [[*sure, *some] for some in combinations(tied, n - len(sure))]


class Significance:
    """The tests on the figures that the paper prints, and on those of a table that was run.

    Parameters
    ----------
    n : int
        Models that are compared: those of the best mean rank. The paper takes four, fewer than its data sets.
    alpha : float
        Of both tests.
    ours : Ours, optional
        A table that was run. Only its pairs have cells.

    Raises
    ------
    SettingsError
        If `n` or `alpha` is out of range.
    """

    name = "significance"

    def __init__(self, n: int = 4, alpha: float = 0.1, ours: Ours | None = None) -> None:
        if not 3 <= n <= len(next(iter(TABLE3.values()))):
            raise SettingsError(f"n is {n}: compare at least 3 models, and as many as the table has at most.")
        if not 0 < alpha < 1:
            raise SettingsError(f"alpha is {alpha}: give a level between 0 and 1.")
        self.n, self.alpha, self.ours = n, alpha, ours

    def cells(self, store: CellStore) -> Sequence[Cell]:
        """Return those of pairs."""
        return () if self.ours is None else self.ours.cells(store)

    def n_cells(self) -> int:
        """Return how many sets have pairs to compare."""
        if self.ours is None or not self.ours.paired:
            return 0
        return sum(self.ours.missing(name) is None for name in self.ours.names)

    def compared(self) -> Iterator[Ranked]:
        """Give the comparison of every printed metric, twice where two models share the last place."""
        for metric, rows in TABLE3.items():
            yield from self._ranked(metric, pd.DataFrame(dict(rows), index=list(SETS)))

    def of_ours(self) -> list[Ranked]:
        """Return the same of the table that was run; nothing where it has too few sets or models."""
        found: list[Ranked] = []
        for metric, figures in {} if self.ours is None else self.ours.figures().items():
            if figures.shape[0] >= _FEWEST_SETS and figures.shape[1] >= _FEWEST_MODELS:
                found += self._ranked(metric, figures)
        return found

    def _ranked(self, metric: str, figures: pd.DataFrame) -> Iterator[Ranked]:
        for models in top_models(metric, figures, min(self.n, figures.shape[1])):
            yield compare(metric, figures[models])

    def report(self, store: CellStore, command: str) -> Report:
        """Return ranks, tests, critical-difference diagrams and pairs."""
        every, own = list(self.compared()), self.of_ours()
        text = (
            f"`{command}`\n\n"
            f"Compared are the {self.n} models of the best mean rank among all; where two share the last "
            f"place, each in turn. Friedman's test comes first, at {self.alpha:g}; pairs are Nemenyi's at "
            "the same level."
        )
        ranks = (
            f"The figures are those that the paper prints, over its {len(SETS)} data sets. "
            f"The paper's text gives mean ranks in RMSE of {_PAPERS_RANKS}. Over five data sets a mean rank "
            "is a multiple of 0.2, or of 0.1 where figures are equal: those cannot come from its table."
        )
        sections = [
            Section("How it was done", text=text),
            Section("Mean ranks and tests", [_line(one, self.alpha) for one in every], ranks),
        ]
        figures = {"": _diagrams(every, self.alpha)}
        documents: dict[str, Any] = {}
        if self.ours is not None:
            sections.append(self._section_of_ours(self.ours, own))
            sections += self.ours.sections(store)
            documents["paired"] = self.ours.pairs(store)
            if own:
                figures["ours"] = _diagrams(own, self.alpha)
        return Report(
            self.name,
            "Figure 2 of Jin et al. (arXiv 2002.09145): which models differ",
            sections,
            [*_records("printed", every), *_records("ours", own)],
            figures,
            documents,
        )

    def _section_of_ours(self, ours: Ours, own: Sequence[Ranked]) -> Section:
        figures = ours.figures()["RMSE"]
        sets = ", ".join(map(str, figures.index))
        told = (
            f"The figures are the means over seeds of the table in {ours.folder.name}, of the models that "
            f"were measured on each of its data sets ({sets}). Ranking under `full`, for users with two test "
            "ratings or more."
        )
        left_out = ours.left_out()
        if left_out:
            told += f" Left out, as not all of its models were measured there: {', '.join(left_out)}."
        if not own:
            told += (
                f" The tests need {_FEWEST_SETS} data sets and {_FEWEST_MODELS} models: they cannot be done. "
                "Pairs by user, below, can."
            )
        return Section(
            "Mean ranks and tests of the table that was run", [_line(one, self.alpha) for one in own], told
        )


def _line(one: Ranked, alpha: float) -> dict[str, str]:
    pairs = one.different(alpha)
    return {
        "metric": one.metric,
        "mean ranks": ", ".join(f"{name} {rank:.1f}" for name, rank in one.ranks.items()),
        "Friedman's p": f"{one.p:.3f}",
        "differ": ", ".join(f"{a} from {b} (p {one.nemenyi.loc[a, b]:.3f})" for a, b in pairs) or "none",
    }


def _records(source: str, every: Sequence[Ranked]) -> Iterator[dict[str, Any]]:
    for one in every:
        head = {"source": source, "metric": one.metric, "models": " ".join(one.models)}
        yield {**head, "what": "Friedman's p", "value": one.p}
        for name, rank in one.ranks.items():
            yield {**head, "what": f"mean rank of {name}", "value": float(rank)}
        for a, b in combinations(one.models, 2):
            yield {**head, "what": f"Nemenyi's p of {a} and {b}", "value": float(one.nemenyi.loc[a, b])}


def _diagrams(every: Sequence[Ranked], alpha: float) -> Figure:
    from matplotlib.figure import Figure
    from scikit_posthocs import critical_difference_diagram

    figure = Figure(figsize=(7.5, 1.9 * len(every)), layout="constrained")
    for axes, one in zip(np.atleast_1d(figure.subplots(len(every))), every, strict=True):
        critical_difference_diagram(
            one.ranks, one.nemenyi, alpha=alpha, ax=axes, label_fmt_left="{label} ({rank:.1f})",
            label_fmt_right="({rank:.1f}) {label}",
        )  # fmt: skip
        axes.set_title(
            f"{one.metric}: mean rank, better to the left; a bar joins models that do not differ at "
            f"{alpha:g} (Friedman's p {one.p:.3f})",
            fontsize=8,
        )
    return figure
