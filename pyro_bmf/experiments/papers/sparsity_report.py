"""Figure 3 as it came out: every metric by share of the ratings, and what the paper says of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyro_bmf.experiments.cells import CellStore, software
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.judging import Verdict, judge, paired
from pyro_bmf.experiments.papers.sparsity_rows import SCOPES, SparsityRows, Subsample
from pyro_bmf.experiments.reports import Report, Section, mean_and_se, with_se
from pyro_bmf.experiments.table3_report import (
    HEADLINE,
    METRICS,
    Scored,
    chosen_by_set,
    left_out,
    records,
    scored_row,
    settings_table,
)
from pyro_bmf.experiments.verdicts import BASELINES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: By share, its rows by the models' names.
Shares = Sequence[tuple[Subsample, Mapping[str, Scored]]]


#: Times the highest baseline's RMSE from which on a row is left to run out of the picture.
_FAR = 1.2
#: The smallest margin in RMSE that the text speaks of (on Amazon-Pet, 3 % trained on).
_MARGIN = 0.005


def report_sparsity(experiment: SparsityRows, store: CellStore, command: str) -> Report:
    """Return the report of what is finished; what is not is said to be so."""
    scored = [scored_row(row, store, experiment.seeds) for row in experiment.rows(store)]
    by_set = [(data, _shares(experiment, scored, data)) for data in experiment.whole if data.missing is None]
    judged = list[Verdict]()
    for data, shares in by_set:
        judged += [one for share, rows in shares for one in _verdicts(share, rows)]
        judged.append(_smallest_margin(data, shares))
    sections = [Section("How it was run", text=_lead(experiment, command))]
    for data in experiment.whole:
        if data.missing is not None:
            sections.append(Section(f"{data.title}: not run", text=f"Not run: {data.missing}."))
    for data, shares in by_set:
        sections += [
            Section(f"{data.title}: {metric}", _table(shares, metric), _RANKED if "@" in metric else "")
            for metric in METRICS
        ]
    sections += [
        Section("Whether the paper's claims hold", [one.row() for one in judged], _RULE),
        Section("Settings, chosen on validation ratings of seed 0", settings_table(scored)),
        Section("What was not run", text=left_out(scored)),
    ]
    return Report(
        "sparsity",
        "Figure 3 of Jin et al. (arXiv 2002.09145), run again",
        sections,
        list(_records(experiment, scored)),
        _figures(by_set),
        {"claims": [one.to_dict() for one in judged], "chosen": chosen_by_set(scored)},
    )


_RANKED = "Ranking under `full`, for users with two test ratings or more."
_RULE = (
    "Differences are paired by seed; in brackets Student's 95 % interval over seeds. A claim holds where the "
    "whole interval agrees, does not hold where the whole interval disagrees, and cannot be judged between."
)


def _lead(experiment: SparsityRows, command: str) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in software().items())
    seeds = f"{experiment.seeds} seeds" if experiment.seeds > 1 else "one seed"
    by_set = {data.title: _listed(experiment.percents[data.name]) for data in experiment.whole}
    titles: dict[str, list[str]] = {}
    for title, listed in by_set.items():
        titles.setdefault(listed, []).append(title)
    shares = [
        f"{listed} % of the ratings" if len(titles) == 1 else f"{listed} % of {' and '.join(one)}"
        for listed, one in titles.items()
    ]
    return (
        f"`{command}`\n\n"
        f"Trained on random {', '.join(shares)}, {seeds}: the rest is halved into validation and "
        "test ratings. Each model is tuned anew at each share, by validation RMSE on seed 0; test parts were "
        f"scored once. ± is the standard error over seeds. The best of a column is in bold. {versions}."
    )


def _listed(percents: Sequence[float]) -> str:
    *most, last = [f"{one:g}" for one in percents]
    return f"{', '.join(most)} and {last}" if most else last


def _shares(experiment: SparsityRows, scored: Sequence[Scored], data: DataSet) -> Shares:
    return [
        (share, {one.name: one for one in scored if one.row.data is share})
        for share in experiment.sets
        if isinstance(share, Subsample) and share.whole is data
    ]


def _table(shares: Shares, metric: str) -> list[dict[str, str]]:
    sign = 1.0 if metric == "RMSE" else -1.0
    best: dict[str, str] = {}
    for share, rows in shares:
        means = {
            name: sign * mean_and_se(values)[0]
            for name, one in rows.items()
            if (values := one.values(metric, *HEADLINE))
        }
        if means:
            best[share.name] = min(means, key=means.__getitem__)
    lines = []
    for name, first in shares[0][1].items():
        line = {"model": first.row.model.title}
        for share, rows in shares:
            values = rows[name].values(metric, *HEADLINE)
            text = with_se(*mean_and_se(values)) if values else rows[name].state
            line[f"{share.percent:g} %"] = f"**{text}**" if best.get(share.name) == name else text
        lines.append(line)
    return lines


def _verdicts(share: Subsample, rows: Mapping[str, Scored]) -> Iterator[Verdict]:
    """Judge the claims of § 4.4 (and § 3.4's on attention) at one share."""

    def verdict(key: str, claim: str, differences: Sequence[float], told: str, missing: str) -> Verdict:
        one = judge(share.whole, key, claim, differences, told=told, missing=missing, percent=share.percent)
        return one

    for name in ("paper", "default"):
        key = "lowest-rmse" if name == "paper" else f"lowest-rmse-{name}"
        ahead = _ahead(rows, name, "RMSE", min, sign=-1.0)
        yield verdict(key, f"{name} has a lower RMSE than all six", *ahead)
    ahead = _ahead(rows, "ncf", "RMSE", min, sign=-1.0)
    yield verdict("ncf-second", "NCF has the lowest RMSE of the six", *ahead)
    ahead = _ahead(rows, "vae-cf", "NDCG@20", max, sign=1.0)
    yield verdict("vae-cf-second-ranking", "VAE-CF has the highest NDCG@20 of the six", *ahead)
    ahead = _ahead(rows, "i-rec", "NDCG@20", min, sign=-1.0)
    yield verdict("i-rec-suffers-most", "I-Rec has the lowest NDCG@20 of the six", *ahead)
    local, wide = (rows[scope].values("RMSE", *HEADLINE) if scope in rows else [] for scope in SCOPES)
    yield verdict(
        "local-or-global",
        "global attention has a lower RMSE than local where data are sparse",
        paired(local, wide),
        "with the settings that were chosen for paper",
        "not measured",
    )


def _ahead(
    rows: Mapping[str, Scored], name: str, metric: str, pick: Callable[..., str], *, sign: float
) -> tuple[list[float], str, str]:
    """Return by seed how far a row is ahead of the picked baseline, which that is, and what is missing."""
    others = {
        one: values
        for one in BASELINES
        if one in rows and one != name and (values := rows[one].values(metric, *HEADLINE))
    }
    own = rows[name].values(metric, *HEADLINE) if name in rows else []
    absent = [one for one in (name, *BASELINES) if one != name and one not in others]
    missing = f"not measured: {', '.join(absent)}" if own else f"not measured: {name}"
    if not own or not others:
        return [], "", missing
    means = {one: sum(values) / len(values) for one, values in others.items()}
    rival = pick(means, key=means.__getitem__)
    told = f"against {rival}" + (f"; {missing}" if absent else "")
    return [sign * gap for gap in paired(own, others[rival])], told, missing


def _smallest_margin(data: DataSet, shares: Shares) -> Verdict:
    """Judge the text's smallest margin of a lowest RMSE by the smallest over a set's shares."""
    margins = [
        (sum(gaps) / len(gaps), gaps, f"{share.percent:g} %, {told}")
        for share, rows in shares
        for gaps, told, _ in [_ahead(rows, "paper", "RMSE", min, sign=-1.0)]
        if gaps
    ]
    claim = f"paper's RMSE is {_MARGIN} or more below that of each of the six at every share"
    if not margins:
        return judge(data, "smallest-margin", claim, [], missing="not measured: paper")
    mean, gaps, where = min(margins)
    told = f"the margin less {_MARGIN}; the smallest margin is {mean:+.4f}, at {where}"
    return judge(data, "smallest-margin", claim, [gap - _MARGIN for gap in gaps], told=told)


def _records(experiment: SparsityRows, scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    shares = {share.name: share for share in experiment.sets if isinstance(share, Subsample)}
    for one in records(scored):
        share = shares[one.pop("set")]
        one.pop("papers_set")
        yield {"set": share.base, "percent": share.percent, **one}


def _figures(by_set: Sequence[tuple[DataSet, Shares]]) -> dict[str, Figure]:
    from matplotlib.figure import Figure

    shown = [
        (data, shares)
        for data, shares in by_set
        if any(one.complete for _, rows in shares for one in rows.values())
    ]
    if not shown:
        return {}
    figure = Figure(figsize=(20, 3.9 * len(shown)), layout="constrained")
    every = figure.subplots(len(shown), len(METRICS), squeeze=False)
    for line, (data, shares) in zip(every, shown, strict=True):
        for axes, metric in zip(line, METRICS, strict=True):
            _lines(axes, shares, metric)
            axes.set_title(f"{data.title}: {metric}", fontsize=10)
            axes.set_xlabel("ratings that were trained on (%)")
            axes.set_ylabel("test RMSE (rating units)" if metric == "RMSE" else f"{metric}, whole catalogue")
    named = {title: mark for mark, title in zip(*_legend(every[:, 0]), strict=True)}
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=6, fontsize=8)
    figure.suptitle(
        "Means over seeds; bars: one standard error. RMSE: lower is better; others: higher", fontsize=10
    )
    return {"": figure}


def _lines(axes: Any, shares: Shares, metric: str) -> None:
    drawn = dict[str, tuple[float, ...]]()
    for place, (name, first) in enumerate(shares[0][1].items()):
        found = [
            (share.percent, *mean_and_se(values))
            for share, rows in shares
            if (values := rows[name].values(metric, *HEADLINE))
        ]
        if not found:
            continue
        x, means, errors = zip(*found, strict=True)
        drawn[name] = means
        ours = name not in BASELINES
        axes.errorbar(
            x,
            means,
            yerr=[error or 0.0 for error in errors],
            fmt="o-" if ours else "s--",
            ms=3.5,
            lw=1.2,
            capsize=2,
            color=f"C{place % 10}",
            label=first.row.model.title,
        )
    axes.set_xticks([share.percent for share, _ in shares])
    axes.grid(alpha=0.3)
    top = _end(drawn) if metric == "RMSE" else None
    if top is not None:
        axes.set_ylim(top=top)
        axes.text(
            0.02, 0.98, "some lines go on above the axis", transform=axes.transAxes, va="top", fontsize=6
        )


def _legend(panels: Iterable[Any]) -> tuple[list[Any], list[str]]:
    """Return the marks and titles of all rows of some panels."""
    found = [axes.get_legend_handles_labels() for axes in panels]
    return [mark for marks, _ in found for mark in marks], [title for _, titles in found for title in titles]


def _end(drawn: Mapping[str, Sequence[float]]) -> float | None:
    """Return where an axis of RMSE ends that one row far above the baselines would flatten all others on."""
    baselines = [max(means) for name, means in drawn.items() if name in BASELINES]
    if not baselines or max(map(max, drawn.values())) < _FAR * max(baselines):
        return None
    lowest = min(map(min, drawn.values()))
    return max(baselines) + 0.3 * (max(baselines) - lowest)
