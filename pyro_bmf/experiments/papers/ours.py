"""The figures of a Table 3 that was run: by set and model, and paired by user, which has power on one set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pyro_bmf.errors import SavedFileError, SettingsError
from pyro_bmf.evaluation import bootstrap_by_user, evaluate_ranking
from pyro_bmf.evaluation.protocols import default_threshold
from pyro_bmf.experiments.cells import Cell, CellStore
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.refitting import Final, finals, refit
from pyro_bmf.experiments.reports import Section
from pyro_bmf.experiments.scoring import USERS
from pyro_bmf.files import atomic_write, make_folder

METRICS = ("RMSE", "NDCG@20", "NDCG@50", "Recall@20", "Recall@50")
_DRAWS = 1000
_TABLE = "table3.csv"


#: Data sets with every model from which on those that lack some are left out.
_ENOUGH_SETS = 3


@dataclass(frozen=True)
class Ours:
    """A finished Table 3 in a folder.

    Parameters
    ----------
    folder : Path
    sets : mapping
        Data sets by name, for the fits that pairs need; those that are not here are left out.
    n : int
        Models that are compared in pairs: those of the best RMSE on a set, and ``paper`` and ``default``.
    paired : bool
        Whether pairs are compared at all: every model has to be fitted again, as a table keeps no errors.
    device, threads

    Raises
    ------
    SettingsError
        If the folder holds no table, or one without figures.
    """

    folder: Path
    sets: Mapping[str, DataSet]
    n: int = 4
    paired: bool = True
    device: str = "auto"
    threads: int | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every measured figure of every seed that is tested here, one a line."""
        file = self.folder / _TABLE
        if not file.is_file():
            raise SettingsError(
                f"{self.folder} has no {_TABLE}: give the folder of a Table 3 ('pyro-bmf experiment table3')."
            )
        try:
            found = pd.read_csv(file)
            head = (found["protocol"] == "full") & (found["users"] == USERS[0])
            kept = found[(found["state"] == "measured") & (head | (found["metric"] == "rmse"))]
        except (ValueError, KeyError) as error:
            raise SavedFileError(f"{file} is damaged ({error}): run the table again.") from error
        names = {name.lower(): name for name in METRICS}
        kept = kept.assign(metric=kept["metric"].map(names)).dropna(subset=["metric", "value"])
        if kept.empty:
            raise SettingsError(f"{file} has no figure that was measured yet: let the table go on first.")
        return kept

    @property
    def names(self) -> list[str]:
        """The data sets, in the table's order."""
        return [str(name) for name in dict.fromkeys(self.table["set"])]

    def figures(self) -> dict[str, pd.DataFrame]:
        """Return by metric the means over seeds, sets by models that were measured on each of them.

        Sets on which models are missing are left out where enough others have all: a set with a few models
        would else leave these alone to be compared.
        """
        found = {}
        for metric in METRICS:
            part = self.table[self.table["metric"] == metric]
            means = part.pivot_table(index="set", columns="model", values="value", aggfunc="mean", sort=False)
            whole = means.dropna(axis="index")
            found[metric] = means.dropna(axis="columns") if len(whole) < _ENOUGH_SETS else whole
        return found

    def left_out(self) -> list[str]:
        """Return the data sets that `figures` leaves out."""
        kept = set(map(str, self.figures()["RMSE"].index))
        return [name for name in self.names if name not in kept]

    def compared(self, name: str) -> list[str]:
        """Return the models that are compared in pairs on a set, the best RMSE first."""
        part = self.table[(self.table["metric"] == "RMSE") & (self.table["set"] == name)]
        means = part.groupby("model")["value"].mean().sort_values(kind="stable")
        order = [str(model) for model in means.index]
        return [model for place, model in enumerate(order) if place < self.n or model in ("paper", "default")]

    def cells(self, store: CellStore) -> list[Cell]:
        """Return a cell a set: its models, fitted again and compared in pairs."""
        del store
        if not self.paired:
            return []
        return [cell for name in self.names if (cell := self._cell(name)) is not None]

    def missing(self, name: str) -> str | None:
        """Return why pairs cannot be compared on a set; None where they can."""
        if name not in self.sets:
            return "the set is not known here (describe it with --sets)"
        return self.sets[name].missing

    def _cell(self, name: str) -> Cell | None:
        if self.missing(name) is not None:
            return None
        data, models = self.sets[name], self.compared(name)
        wanted = {model: self._finals(name, model) for model in models}

        def run(work: Path) -> dict[str, Any]:
            make_folder(work)
            errors: dict[str, list[dict[str, np.ndarray]]] = {}
            gap = 0.0
            for model, cells in wanted.items():
                errors[model] = []
                for final in cells:
                    kept = self._errors(final, data, work / f"{final.key[:32]}.npz")
                    errors[model].append(kept)
                    gap = max(gap, abs(float(np.sqrt(kept["squares"].mean())) - final.rmse))
            return {"pairs": list(_pairs(errors)), "largest_gap_of_rmse": gap}

        identity = {
            "data": name,
            "data_hash": data.ratings.data_hash,
            "finals": {model: [final.key for final in cells] for model, cells in wanted.items()},
            "draws": _DRAWS,
        }
        return Cell("paired", name, identity, run)

    def _finals(self, name: str, model: str) -> list[Final]:
        """Return the cells that a row of the table is of, by seed: those whose RMSE it has."""
        part = self.table[
            (self.table["metric"] == "RMSE") & (self.table["set"] == name) & (self.table["model"] == model)
        ]
        found = []
        for seed, rmse in sorted(zip(part["seed"].astype(int), part["value"], strict=True)):
            cell = next(
                (
                    one
                    for one in self._every
                    if (one.model, one.data, one.seed) == (model, name, seed) and abs(one.rmse - rmse) < 1e-12
                ),
                None,
            )
            if cell is None:
                raise SavedFileError(
                    f"{self.folder} has no cell of {model} on {name} with seed {seed} that gives its table's "
                    "RMSE: run the table again, or leave pairs out (--no-paired)."
                )
            found.append(cell)
        return found

    @cached_property
    def _every(self) -> list[Final]:
        return list(finals(self.folder))

    def _errors(self, final: Final, data: DataSet, file: Path) -> dict[str, np.ndarray]:
        """Return a fit's squared errors by rating and NDCG by user, each with its users; kept in a file."""
        if not file.is_file():
            fitted = refit(final, data, device=self.device, threads=self.threads)
            split = data.split(final.seed)
            test = split.test
            mean = np.asarray(fitted.system.predict_mean(test.users, test.items), dtype=np.float64)
            (ranking,) = evaluate_ranking(
                fitted.system,
                split,
                n=(20,),
                threshold=default_threshold(split.ratings.scale),
                protocols=("full",),
            )
            with atomic_write(file) as temporary, open(temporary, "wb") as stream:
                np.savez(
                    stream,
                    users=test.users,
                    squares=(mean - test.ratings) ** 2,
                    ranked=ranking.users,
                    ndcg=ranking.user_values["ndcg"],
                )
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}

    def sections(self, store: CellStore) -> Iterator[Section]:
        """Give the tables of pairs."""
        if not self.paired:
            return
        for name in self.names:
            title = f"Pairs on {name}, by user"
            reason = self.missing(name)
            cell = None if reason is not None else self._cell(name)
            result = None if cell is None else store.result(cell)
            if result is None or "failed" in result:
                told = reason or ("not finished" if result is None else f"failed, {result['failed']}")
                yield Section(title, text=f"Not compared: {told}.")
                continue
            gap = result["largest_gap_of_rmse"]
            yield Section(title, [_line(pair) for pair in result["pairs"]], _PAIRS.format(gap=gap))

    def pairs(self, store: CellStore) -> list[dict[str, Any]]:
        """Return every comparison of a pair that is finished."""
        found = []
        for cell in self.cells(store):
            result = store.result(cell)
            if result is not None and "failed" not in result:
                found += [{"set": cell.label, **pair} for pair in result["pairs"]]
        return found


_PAIRS = (
    "Differences of the first less the second, over all seeds; in brackets the 95 % interval of a bootstrap "
    "over users (1,000 draws), each with all of its test ratings of every seed. Every model was fitted again "
    "from the settings of its cells: RMSE differed from theirs by {gap:.1g} at most. RMSE: a negative "
    "difference is in favour of the first; NDCG@20 (`full`): a positive one."
)


def _pairs(errors: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> Iterator[dict[str, Any]]:
    """Give the comparison of every two models by each metric."""
    models = list(errors)
    for metric, users, values, root in (
        ("RMSE", "users", "squares", True),
        ("NDCG@20", "ranked", "ndcg", False),
    ):
        clusters = [np.concatenate([kept[users] for kept in errors[model]]) for model in models]
        if any(not np.array_equal(clusters[0], other) for other in clusters[1:]):
            raise SettingsError(f"{metric} of {', '.join(models)} was measured on different users.")
        table = np.column_stack(
            [np.concatenate([kept[values] for kept in errors[model]]) for model in models]
        )
        drawn = bootstrap_by_user(table, clusters[0], root=root, draws=_DRAWS)
        whole = np.sqrt(table.mean(axis=0)) if root else table.mean(axis=0)
        for a, b in combinations(range(len(models)), 2):
            gaps = drawn[:, a] - drawn[:, b]
            low, high = np.quantile(gaps, [0.025, 0.975])
            yield {
                "metric": metric,
                "a": models[a],
                "b": models[b],
                "difference": float(whole[a] - whole[b]),
                "se": float(gaps.std(ddof=1)),
                "low": float(low),
                "high": float(high),
                "n_users": len(np.unique(clusters[0])),
                "seeds": len(errors[models[a]]),
            }


def _line(pair: Mapping[str, Any]) -> dict[str, str]:
    apart = pair["low"] > 0 or pair["high"] < 0
    return {
        "metric": pair["metric"],
        "first": pair["a"],
        "second": pair["b"],
        "difference": f"{pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]",
        "differ": "yes" if apart else "no",
        "users": str(pair["n_users"]),
    }
