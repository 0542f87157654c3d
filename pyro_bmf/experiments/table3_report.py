"""Table 3 as it came out: figures with standard errors, the best in bold, and what the paper says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyro_bmf.experiments.cells import CellStore, software
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.printed import printed
from pyro_bmf.experiments.reports import Report, Section, mean_and_se, with_se
from pyro_bmf.experiments.scoring import USERS
from pyro_bmf.experiments.table3_rows import Row, Table3Rows
from pyro_bmf.experiments.verdicts import verdicts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = ("RMSE", "Recall@20", "Recall@50", "NDCG@20", "NDCG@50")
#: The headline, and what is nearest to the levels that the paper prints.
HEADLINE, NEAREST = ("full", USERS[0]), ("rated-precision", USERS[1])
_OURS = ("literal", "paper", "default")


@dataclass(frozen=True)
class Scored:
    """A row with the results of its finished finals, by seed."""

    row: Row
    results: Mapping[int, Mapping[str, Any]]
    n_seeds: int

    @property
    def name(self) -> str:
        """Of the model."""
        return self.row.model.name

    @property
    def failed(self) -> str | None:
        """Why a fit failed, if one did."""
        return next((str(one["failed"]) for one in self.results.values() if "failed" in one), None)

    @property
    def complete(self) -> bool:
        """Whether every seed is measured."""
        return len(self.results) == self.n_seeds and self.failed is None

    @property
    def state(self) -> str:
        """Why there are no figures, in words."""
        if self.row.not_run is not None:
            return "not run"
        if self.failed is not None:
            return "failed"
        return "not finished"

    def values(self, metric: str, protocol: str, users: str) -> list[float]:
        """Return a metric of every seed; empty unless all have it."""
        if not self.complete:
            return []
        found = [figure(result, metric, protocol, users) for result in self.results.values()]
        return [value for value in found if value is not None] if None not in found else []


def figure(result: Mapping[str, Any], metric: str, protocol: str, users: str) -> float | None:
    """Return one figure of a final cell; None where it is undefined."""
    if metric == "RMSE":
        value = result["figures"]["rmse"]
        return None if value is None else float(value)
    name, _, length = metric.partition("@")
    for one in result["ranking"]:
        if (one["protocol"], one["users"], one["n"]) == (protocol, users, int(length)):
            value = one[name.lower()]
            return None if value is None else float(value)
    return None


def report_table3(experiment: Table3Rows, store: CellStore, command: str) -> Report:
    """Return the report of what is finished; what is not is said to be so, never left blank."""
    scored = [scored_row(row, store, experiment.seeds) for row in experiment.rows(store)]
    by_set = [(data, [one for one in scored if one.row.data is data]) for data in experiment.sets]
    sections = [Section("How it was run", text=lead(experiment, command))]
    for data, rows in by_set:
        mark = "" if data.papers else " (not one of the paper's sets)"
        if data.missing is not None:
            sections.append(Section(f"{data.title}: not run", text=f"Not run: {data.missing}."))
            continue
        sections.append(
            Section(
                f"{data.title}{mark}",
                table_of(rows, *HEADLINE),
                "Test ratings; ranking under the protocol `full` (the whole catalogue), for users with two "
                "test ratings or more.",
            )
        )
        sections.append(
            Section(
                f"{data.title}: the paper's users and protocol, as near as its text lets one come",
                _beside_printed(rows),
                "Ranking under `rated-precision`, for users with two rated items or more. In brackets what "
                "the paper prints, on its own split.",
            )
        )
    sections.append(Section("Settings, chosen on validation ratings of seed 0", settings_table(scored)))
    sections.append(Section("What was not run", text=left_out(scored)))
    sections.append(Section("Whether the paper's order holds", verdicts(by_set, _OURS)))
    return Report(
        "table3",
        "Table 3 of Jin et al. (arXiv 2002.09145), run again",
        sections,
        list(records(scored)),
        _figures(by_set),
        {"chosen": chosen_by_set(scored)},
    )


def scored_row(row: Row, store: CellStore, n_seeds: int) -> Scored:
    """Return a row with what is finished of it."""
    found = {seed: store.result(cell) for seed, cell in enumerate(row.finals)}
    return Scored(row, {seed: result for seed, result in found.items() if result is not None}, n_seeds)


def lead(experiment: Table3Rows, command: str) -> str:
    """Return how it was run, as markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in software().items())
    seeds = f"{experiment.seeds} seeds" if experiment.seeds > 1 else "one seed"
    return (
        f"`{command}`\n\n"
        f"Random splits of 70 % train, 15 % validation and 15 % test ratings, {seeds}: each has its own "
        "split and fit. Settings were chosen by validation RMSE on seed 0; test parts were scored once, by "
        "the finals. ± is the standard error over seeds. The best of a column is in bold. "
        f"{versions}."
    )


def table_of(rows: Sequence[Scored], protocol: str, users: str) -> list[dict[str, str]]:
    """Return rows with their figures under a protocol, the best in bold."""
    best = {metric: _best(rows, metric, protocol, users) for metric in METRICS}
    lines = []
    for one in rows:
        line = {"model": one.row.model.title}
        for metric in METRICS:
            values = one.values(metric, protocol, users)
            text = with_se(*mean_and_se(values)) if values else one.state
            line[metric] = f"**{text}**" if one.name == best[metric] else text
        lines.append(line)
    return lines


def _best(rows: Sequence[Scored], metric: str, protocol: str, users: str) -> str | None:
    means = {
        one.name: sum(values) / len(values) for one in rows if (values := one.values(metric, protocol, users))
    }
    if not means:
        return None
    return min(means, key=means.__getitem__) if metric == "RMSE" else max(means, key=means.__getitem__)


def _beside_printed(rows: Sequence[Scored]) -> list[dict[str, str]]:
    lines = table_of(rows, *NEAREST)
    for line, one in zip(lines, rows, strict=True):
        title = one.row.data.papers or ""
        model = "ours" if one.name in _OURS else one.name
        for metric in METRICS:
            value = printed(metric, model, title)
            line[metric] += "" if value is None else f" ({value:.3f})"
    return lines


def settings_table(scored: Sequence[Scored]) -> list[dict[str, str]]:
    """Return what each row was fitted with, and how it was found."""
    lines = []
    for one in scored:
        tuned = one.row.tuned or {}
        done = [result for result in one.results.values() if "seconds" in result]
        lengths = [n for result in done if (n := result.get("iterations", len(result["curve"])))]
        lines.append(
            {
                "set": one.row.data.title,
                "model": one.row.model.title,
                "settings": told_settings(one.row),
                "trials": str(len(tuned["trials"])) if tuned.get("trials") else "–",
                "of combinations": str(tuned.get("n_combinations", "–")),
                "validation RMSE": f"{tuned['value']:.4f}" if tuned.get("value") is not None else "–",
                "iterations a fit": ", ".join(map(str, lengths)) or "–",
                "seconds to tune": f"{tuned['seconds']:.0f}" if "seconds" in tuned else "–",
                "seconds a fit": ", ".join(f"{result['seconds']:.1f}" for result in done) or "–",
            }
        )
    return lines


def told_settings(row: Row) -> str:
    """Return what a row's fits have set, with edges marked."""
    if row.not_run is not None:
        return "not run"
    if row.source is not None:
        changes = row.model.for_data(row.data.base)
        return f"those of {row.source}, with " + ", ".join(
            f"{name} {value}" for name, value in changes.items()
        )
    if row.tuning is None:
        set_so = ", ".join(f"{name} {value}" for name, value in row.values.items())
        return f"as they stand, with {set_so}" if set_so else "as they stand"
    if row.tuned is None:
        return "not chosen yet"
    edges = set(row.tuned["on_edge"])
    return ", ".join(
        f"{name} {value}{' (edge)' if name in edges else ''}" for name, value in row.tuned["chosen"].items()
    )


def left_out(scored: Sequence[Scored]) -> str:
    """Return what was not run, and why, as markdown."""
    lines = [f"- {data.title}: not run, {data.missing}." for data in _missing(scored)]
    for one in scored:
        where = f"{one.row.model.title} on {one.row.data.title}"
        if one.row.data.missing is None and one.row.not_run is not None:
            lines.append(f"- {where}: not run, {one.row.not_run}")
        elif one.failed is not None:
            lines.append(f"- {where}: failed, {one.failed}")
        elif one.row.data.missing is None and not one.complete:
            lines.append(f"- {where}: not finished, {len(one.results)} of {one.n_seeds} seeds.")
        axes = one.row.model.grid().axes
        for name, values in one.row.cuts.items():
            left = [value for value in axes[name] if value not in values]
            if left:
                kept = ", ".join(map(str, values))
                lines.append(f"- {where}: {name} {', '.join(map(str, left))} not run, {kept} alone.")
    return "\n".join(lines) or "Nothing."


def _missing(scored: Sequence[Scored]) -> list[DataSet]:
    return list(
        {id(one.row.data): one.row.data for one in scored if one.row.data.missing is not None}.values()
    )


def chosen_by_set(scored: Sequence[Scored]) -> dict[str, dict[str, Any]]:
    """Return the chosen settings by set and row."""
    found: dict[str, dict[str, Any]] = {}
    for one in scored:
        if one.row.tuned is not None and one.row.tuned.get("chosen") is not None:
            found.setdefault(one.row.data.name, {})[one.name] = one.row.tuned["chosen"]
    return found


def records(scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """Give every figure of every seed."""
    for one in scored:
        head = {"set": one.row.data.name, "papers_set": one.row.data.papers or "", "model": one.name}
        if not one.results:
            yield {**head, "metric": "", "value": None, "state": one.row.not_run or one.state}
        for seed, result in one.results.items():
            if "failed" in result:
                yield {
                    **head,
                    "seed": seed,
                    "metric": "",
                    "value": None,
                    "state": f"failed: {result['failed']}",
                }
                continue
            for name, value in result["figures"].items():
                yield {**head, "seed": seed, "metric": name, "value": value, "state": "measured"}
            for ranking in result["ranking"]:
                for name in ("recall", "ndcg"):
                    yield {
                        **head,
                        "seed": seed,
                        "metric": f"{name}@{ranking['n']}",
                        "protocol": ranking["protocol"],
                        "users": ranking["users"],
                        "n_users": ranking["n_users"],
                        "value": ranking[name],
                        "se_over_users": ranking[f"{name}_se"],
                        "state": "measured",
                    }
            yield {**head, "seed": seed, "metric": "seconds", "value": result["seconds"], "state": "measured"}


def _figures(by_set: Sequence[tuple[DataSet, Sequence[Scored]]]) -> dict[str, Figure]:
    from matplotlib.figure import Figure

    shown = [(data, rows) for data, rows in by_set if any(one.complete for one in rows)]
    if not shown:
        return {}
    n_rows = max(len(rows) for _, rows in shown)
    dots = Figure(figsize=(15, (0.32 * n_rows + 1.0) * len(shown)), layout="constrained")
    every = dots.subplots(len(shown), len(METRICS), squeeze=False)
    for line, (data, rows) in zip(every, shown, strict=True):
        for axes, metric in zip(line, METRICS, strict=True):
            _dots(axes, data, rows, metric)
    dots.suptitle(
        "Test ratings: RMSE (lower is better); Recall and NDCG of the whole catalogue (higher is better). "
        "Bars: one standard error over seeds. ◇: printed in the paper, its own split",
        fontsize=9,
    )
    curves = Figure(figsize=(5.2 * len(shown), 3.6), layout="constrained")
    for axes, (data, rows) in zip(curves.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for one in rows:
            curve = one.results.get(0, {}).get("curve", [])
            if curve:
                axes.plot(range(1, len(curve) + 1), curve, lw=1.2, label=one.row.model.title)
        axes.set_xlabel("iteration (a pass over the ratings, or a sweep)")
        axes.set_ylabel("validation RMSE (rating units)")
        axes.set_title(f"{data.title}, seed 0", fontsize=10)
        if axes.lines:
            axes.legend(fontsize=7)
    return {"": dots, "curves": curves}


def _dots(axes: Any, data: DataSet, rows: Sequence[Scored], metric: str) -> None:
    for place, one in enumerate(rows):
        values = one.values(metric, *HEADLINE)
        if not values:
            axes.text(0.02, place, one.state, transform=axes.get_yaxis_transform(), fontsize=7, va="center")
            continue
        mean, se = mean_and_se(values)
        colour = "tab:red" if one.name in _OURS else "tab:blue"
        axes.errorbar(mean, place, xerr=se, fmt="o", ms=4, capsize=2, color=colour)
        told = printed(metric, "ours" if one.name in _OURS else one.name, data.papers or "")
        if told is not None and metric == "RMSE":
            axes.plot(told, place, "D", ms=4, mfc="none", color="0.4")
    axes.set_yticks(range(len(rows)), [one.row.model.title for one in rows], fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(f"{data.title}: {metric}", fontsize=9)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", alpha=0.3)
