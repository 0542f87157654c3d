"""Table 4 as it came out: each part's worth, with intervals over seeds, and what the paper says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.judging import FAILS, HOLDS, OPEN, Verdict, judge, paired, signed
from pyro_bmf.experiments.papers.table4_rows import PARTS, Part, Table4Rows
from pyro_bmf.experiments.printed import printed_part
from pyro_bmf.experiments.reports import Report, Section, mean_and_se, with_se
from pyro_bmf.experiments.table3_report import (
    HEADLINE,
    METRICS,
    NEAREST,
    Scored,
    chosen_by_set,
    lead,
    left_out,
    records,
    scored_row,
    settings_table,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RANKING = METRICS[1:]
_REMOVED = ("no-data-input", "no-feedback", "no-attention")
#: Groups of rows: title, base, whether tuned anew, and what the table says first.
_GROUPS = (
    ("the paper's method, each row tuned anew", "paper", True, "Each row's settings were chosen anew."),
    (
        "the paper's method, untuned",
        "paper",
        False,
        "Rows have the settings that were chosen for the full model, with the part changed.",
    ),
    (
        "our default's guide, as it stands",
        "guide",
        False,
        "The mask encoder (`implicit`) is all that its encoders are: it has neither latent tower nor "
        "attention to take away. The default's sweeps are left out: they cost minutes a fit and "
        "start from what this guide found.",
    ),
    (
        "our encoders (preset `amortized`), as they stand",
        "amortized",
        False,
        "The preset that has a latent tower and attention.",
    ),
)


def report_table4(experiment: Table4Rows, store: CellStore, command: str) -> Report:
    """Return the report of what is finished; what is not is said to be so."""
    scored = [scored_row(row, store, experiment.seeds) for row in experiment.rows(store)]
    by_set = [
        (data, {one.name: one for one in scored if one.row.data is data})
        for data in experiment.sets
        if data.missing is None
    ]
    judged = [verdict for data, rows in by_set for verdict in _verdicts(data, rows)]
    sections = [Section("How it was run", text=lead(experiment, command))]
    sections += [
        Section(f"{data.title}: not run", text=f"Not run: {data.missing}.")
        for data in experiment.sets
        if data.missing is not None
    ]
    for data, rows in by_set:
        sections += list(_tables(data, rows))
    sections += [
        Section("Whether the paper's claims hold", [one.row() for one in judged], _RULE),
        Section("Settings, chosen on validation ratings of seed 0", settings_table(scored)),
        Section("What was not run", text=left_out(scored)),
    ]
    return Report(
        "table4",
        "Table 4 of Jin et al. (arXiv 2002.09145), run again",
        sections,
        list(_records(scored)),
        _figures(by_set),
        {"claims": [one.to_dict() for one in judged], "chosen": chosen_by_set(scored)},
    )


_RULE = (
    "Differences are paired by seed; in brackets Student's 95 % interval over seeds. A claim holds where the "
    "whole interval agrees, does not hold where the whole interval disagrees, and cannot be judged between."
)


def _members(rows: Mapping[str, Scored], base: str, tuned: bool) -> list[tuple[Part, Scored]]:
    """Return a group's rows; the full model stands in both of its groups."""
    found = []
    for name, one in rows.items():
        part = PARTS[name]
        if part.base == base and (part.tuned == tuned or part.part == "full"):
            found.append((part, one))
    return found


def _tables(data: DataSet, rows: Mapping[str, Scored]) -> Iterator[Section]:
    for title, base, tuned, text in _GROUPS:
        members = _members(rows, base, tuned)
        if len(members) < 2:
            continue
        full = next((one for part, one in members if part.part == "full"), None)
        lines, near = [], []
        for part, one in members:
            line = {"model": part.title}
            for metric in METRICS:
                values = one.values(metric, *HEADLINE)
                line[metric] = with_se(*mean_and_se(values)) if values else one.state
            gap = [] if full is None or full is one else _gap(one, full, "RMSE")
            line["RMSE less the full model's"] = signed(gap) if gap else "–"
            lines.append(line)
            near.append(_near(part, one, data))
        yield Section(
            f"{data.title}: {title}",
            lines,
            f"{text} ± is the standard error over seeds; in brackets Student's 95 % interval of the "
            "difference, paired by seed. Ranking under `full`, for users with two test ratings or more.",
        )
        if base == "paper" and tuned:
            yield Section(
                f"{data.title}: under the protocol nearest to the paper's",
                near,
                "Ranking under `rated-precision`, for users with two rated items or more; in brackets what "
                "the paper prints, on its own split.",
            )


def _near(part: Part, one: Scored, data: DataSet) -> dict[str, str]:
    line = {"model": part.title}
    for metric in METRICS:
        values = one.values(metric, *NEAREST)
        told = printed_part(metric, part.part, data.papers or "")
        text = with_se(*mean_and_se(values)) if values else one.state
        line[metric] = text + ("" if told is None else f" ({told:.3f})")
    return line


def _gap(one: Scored | None, full: Scored | None, metric: str) -> list[float]:
    """Return a row's metric less the full model's, by seed."""
    if one is None or full is None:
        return []
    return paired(one.values(metric, *HEADLINE), full.values(metric, *HEADLINE))


def _verdicts(data: DataSet, rows: Mapping[str, Scored]) -> Iterator[Verdict]:
    full = rows.get("paper")
    gaps = {part: _gap(rows.get(f"paper-{part}"), full, "RMSE") for part in _REMOVED}
    for part, key, what in zip(
        _REMOVED,
        ("data-input", "feedback", "attention"),
        ("data input", "cross feedback", "attention"),
        strict=True,
    ):
        yield judge(
            data, key, f"without {what} RMSE is higher", gaps[part], missing=_why(rows, f"paper-{part}")
        )
    rest = [gap for part, gap in gaps.items() if part != "no-data-input"]
    yield judge(
        data,
        "data-input-largest",
        "taking away the data input costs most",
        _less(gaps["no-data-input"], rest),
        told="against the costlier of the other two",
    )
    least = gaps["no-attention"]
    others = [gap for part, gap in gaps.items() if part != "no-attention"]
    cheapest = [min(values) for values in zip(*others, strict=True)] if all(others) else []
    yield judge(
        data,
        "attention-least",
        "taking away attention costs least",
        paired(cheapest, least),
        told="the cheaper of the other two less attention",
    )
    yield _ranking(data, rows, full)
    for part, what in (
        ("average-input", "an average instead of a concatenation as latent input is worse in RMSE"),
        ("sequential", "the sequential iteration is worse in RMSE than the nested"),
    ):
        anew = _gap(rows.get(f"paper-{part}"), full, "RMSE")
        untuned = _gap(rows.get(f"paper-{part}-untuned"), full, "RMSE")
        told = f"untuned: {signed(untuned)}" if untuned and anew else "" if anew else "untuned"
        yield judge(data, part, what, anew or untuned, told=told, missing=_why(rows, f"paper-{part}"))
    local, wide = (rows.get(f"paper-{scope}-attention-untuned") for scope in ("local", "global"))
    yield judge(
        data,
        "local-attention",
        "local attention is better than global where data are dense",
        _gap(wide, local, "RMSE"),
        told="with the full model's other settings",
        missing="not measured",
    )


def _less(left: Sequence[float], others: Sequence[Sequence[float]]) -> list[float]:
    """Return by seed how far one cost is above the largest of others."""
    if not left or not all(others):
        return []
    return [a - max(rest) for a, *rest in zip(left, *others, strict=True)]


def _ranking(data: DataSet, rows: Mapping[str, Scored], full: Scored | None) -> Verdict:
    claim = "without any of the three, no ranking figure is higher"
    gaps = {
        f"{metric} of {part}": gap
        for part in _REMOVED
        for metric in _RANKING
        if (gap := _gap(rows.get(f"paper-{part}"), full, metric))
    }

    if not gaps:
        return Verdict(data.base, data.title, "full-ranking", claim, OPEN, told="not measured")
    # The figure that gains most by taking something away is the one that the claim hangs on.
    mean, se = mean_and_se([-one for one in max(gaps.values(), key=sum)])

    def verdict(word: str, told: str) -> Verdict:
        return Verdict(data.base, data.title, "full-ranking", claim, word, mean, se, told)

    higher = {name: gap for name, gap in gaps.items() if sum(gap) > 0}
    sure = {name: gap for name, gap in higher.items() if judge(data, "", "", gap).verdict == HOLDS}
    shown = ", ".join(f"{name} {signed(gap)}" for name, gap in (sure or higher).items())
    text = f"higher in {len(higher)} of {len(gaps)}" + (f": {shown}" if shown else "")
    if sure:
        return verdict(FAILS, text)
    if higher:
        return verdict(OPEN, f"{text}; none beyond what seeds tell apart")
    whole = len(gaps) == len(_REMOVED) * len(_RANKING)
    return verdict(HOLDS if whole else OPEN, text + ("" if whole else "; not all three were measured"))


def _why(rows: Mapping[str, Scored], name: str) -> str:
    one = rows.get(name)
    return "not among the rows" if one is None else one.state


def _records(scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    for one in records(scored):
        part = PARTS[one["model"]]
        head = {key: one[key] for key in ("set", "papers_set", "model")}
        yield {**head, "base": part.base, "part": part.part, "tuned": part.tuned, **one}


def _figures(by_set: Sequence[tuple[DataSet, Mapping[str, Scored]]]) -> dict[str, Figure]:
    from matplotlib.figure import Figure

    shown = [(data, rows) for data, rows in by_set if any(one.complete for one in rows.values())]
    if not shown:
        return {}
    n_rows = max(len(rows) for _, rows in shown)
    figure = Figure(figsize=(16, (0.3 * n_rows + 1.2) * len(shown)), layout="constrained")
    every = figure.subplots(len(shown), len(METRICS), squeeze=False)
    for line, (data, rows) in zip(every, shown, strict=True):
        for axes, metric in zip(line, METRICS, strict=True):
            _dots(axes, data, list(rows.values()), metric)
    figure.suptitle(
        "Test ratings: RMSE in rating units (lower is better); Recall and NDCG of the whole catalogue "
        "(higher is better). Bars: one standard error over seeds. Dotted: the full model "
        "of the row's own group. Hollow: untuned, with the full model's settings",
        fontsize=9,
    )
    return {"": figure}


_COLOURS = {"paper": "tab:red", "guide": "tab:blue", "amortized": "tab:green"}
_FAMILIES = {"paper": "the paper's method", "guide": "our guide", "amortized": "our encoders"}


def _dots(axes: Any, data: DataSet, rows: Sequence[Scored], metric: str) -> None:
    for place, one in enumerate(rows):
        part = PARTS[one.name]
        values = one.values(metric, *HEADLINE)
        if not values:
            axes.text(0.02, place, one.state, transform=axes.get_yaxis_transform(), fontsize=7, va="center")
            continue
        mean, se = mean_and_se(values)
        colour = _COLOURS[part.base]
        filled = None if part.tuned or part.base != "paper" else "none"
        axes.errorbar(mean, place, xerr=se, fmt="o", ms=4, capsize=2, color=colour, mfc=filled or colour)
        if part.part == "full":
            axes.axvline(mean, color=colour, lw=0.8, ls=":")
    titles = [_label(one.name) for one in rows]
    axes.set_yticks(range(len(rows)), titles if metric == "RMSE" else [""] * len(rows), fontsize=7)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_title(f"{data.title}: {metric}", fontsize=9)
    axes.locator_params(axis="x", nbins=4)
    axes.tick_params(axis="x", labelsize=7)
    axes.grid(axis="x", alpha=0.3)


def _label(name: str) -> str:
    part = PARTS[name]
    title = "full model" if part.part == "full" else part.title
    return f"{_FAMILIES[part.base]}: {title}{' (untuned)' if name.endswith('-untuned') else ''}"
