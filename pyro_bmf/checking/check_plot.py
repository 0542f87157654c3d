"""Figures of a predictive check: observed beside replicated, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyro_bmf.checking.discrepancy import CheckedStatistic
from pyro_bmf.files import atomic_write

if TYPE_CHECKING:
    from .predictive_check import PredictiveCheck

_OBSERVED, _REPLICATED, _PRIOR, _FLAG = "black", "tab:blue", "tab:orange", "tab:red"


def plot_predictive_check(check: PredictiveCheck, title: str, file: Path) -> None:
    """Draw six panels: histogram, means and sds by decile, PIT, coverage, risk against coverage.

    Bars and bands are the 90 % intervals of replicated data, points the observed data: red where a
    right model would hardly give them.

    Parameters
    ----------
    check : PredictiveCheck
    title : str
    file : Path
        Of the PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.2), layout="constrained")
    axes = figure.subplots(2, 3)
    _first_panel(axes[0, 0], check)
    _deciles(axes[0, 1], check.statistics, "mean", "mean rating")
    _deciles(axes[0, 2], check.statistics, "sd", "standard deviation of ratings")
    _pit(axes[1, 0], check)
    _coverage(axes[1, 1], check)
    _risk(axes[1, 2], check)
    n = len(check.flagged)
    found = "nothing out of place" if n == 0 else f"{n} of {len(check.statistics)} statistics out of place"
    figure.suptitle(f"{title}: {found} (joint p = {check.joint_p:.3f})", fontsize=12)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _of(statistics: Sequence[CheckedStatistic], group: str) -> list[CheckedStatistic]:
    return [one for one in statistics if one.group == group]


def _points(axes: Any, at: Any, found: Sequence[CheckedStatistic], **label: str) -> None:
    axes.errorbar(
        at,
        [one.mean for one in found],
        yerr=[[max(one.mean - one.low, 0) for one in found], [max(one.high - one.mean, 0) for one in found]],
        fmt="none",
        ecolor=_REPLICATED,
        elinewidth=5,
        alpha=0.55,
        label=label.get("replicated"),
    )
    colours = [_FLAG if one.flagged else _OBSERVED for one in found]
    axes.scatter(at, [one.observed for one in found], c=colours, s=16, zorder=3, label=label.get("observed"))


def _first_panel(axes: Any, check: PredictiveCheck) -> None:
    found = _of(check.statistics, "histogram")
    if not found:  # a continuous scale: residuals say more than a histogram
        found = _of(check.statistics, "residuals")
        at = np.arange(len(found))
        scale = [one.mean if one.mean else 1.0 for one in found]
        relative = [one.observed / unit for one, unit in zip(found, scale, strict=True)]
        low = [one.low / unit for one, unit in zip(found, scale, strict=True)]
        high = [one.high / unit for one, unit in zip(found, scale, strict=True)]
        axes.vlines(at, low, high, color=_REPLICATED, lw=5, alpha=0.55)
        axes.scatter(at, relative, c=[_FLAG if one.flagged else _OBSERVED for one in found], zorder=3)
        axes.set_xticks(at, [one.name for one in found], fontsize=8)
        axes.set_title("residuals, relative to replicated data")
        return
    names = [one.name.removeprefix("share of ") for one in found]
    at = np.arange(len(found))
    axes.bar(at, [one.mean for one in found], color=_REPLICATED, alpha=0.25, label="replicated, mean")
    _points(axes, at, found, replicated="replicated, 90 %", observed="observed (red: flagged)")
    prior = _of(check.prior, "histogram")
    if prior:
        axes.plot(at, [one.mean for one in prior], color=_PRIOR, marker="_", ls=":", label="prior, mean")
    crowded = len(names) > 12
    axes.set_xticks(at, names, rotation=90 if crowded else 0, fontsize=6 if crowded else None)
    axes.set_title("share of each rating")
    axes.legend(fontsize=8)


def _deciles(axes: Any, statistics: Sequence[CheckedStatistic], what: str, title: str) -> None:
    at = np.arange(1, 11)
    for shift, by in ((-0.18, "user"), (0.18, "item")):
        found = _of(statistics, f"{by} {what}")
        _points(axes, at + shift, found)
        axes.plot(
            at + shift, [one.mean for one in found], lw=0.8, color=_REPLICATED if by == "user" else "0.5"
        )
    axes.set_xticks(at)
    axes.set_xlabel("decile of training ratings: users left (blue line), items right (grey)", fontsize=8)
    axes.set_title(title)


def _pit(axes: Any, check: PredictiveCheck) -> None:
    bins = len(check.pit_histogram)
    edges = np.arange(bins + 1) / bins
    unit = check.n_ratings / bins
    axes.stairs(check.pit_histogram / unit, edges, color=_OBSERVED, label="observed")
    axes.fill_between(
        edges,
        np.append(check.pit_low, check.pit_low[-1]) / unit,
        np.append(check.pit_high, check.pit_high[-1]) / unit,
        step="post",
        color=_REPLICATED,
        alpha=0.4,
        label="replicated, 90 %",
    )
    axes.set_ylim(0, None)
    axes.set_title("PIT (hump: too wide, valley: too narrow)")
    axes.legend(fontsize=8)


def _coverage(axes: Any, check: PredictiveCheck) -> None:
    calibration = check.calibration
    axes.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    axes.plot(
        calibration.levels, calibration.overall.pit_coverage, "o-", color=_OBSERVED, label="all ratings"
    )
    for by, colour in (("user", _REPLICATED), ("item", "0.5")):
        for level, nominal in enumerate(calibration.levels):
            found = [group.pit_coverage[level] for group in calibration.deciles if group.by == by]
            axes.scatter(
                [nominal] * len(found),
                found,
                s=10,
                color=colour,
                label=f"{by} deciles" if level == 0 else None,
            )
    axes.set_xlim(0.4, 1)
    axes.set_ylim(0.4, 1)
    axes.set_xlabel("nominal")
    axes.set_title("share of ratings inside central intervals")
    axes.legend(fontsize=8)


def _risk(axes: Any, check: PredictiveCheck) -> None:
    risk = check.risk
    axes.plot(risk.coverage, risk.rmse, "o-", color=_OBSERVED, ms=3, label="surest first")
    axes.plot(risk.coverage, risk.best, ":", color="0.5", label="smallest error first (the limit)")
    axes.axhline(risk.random_area, color=_REPLICATED, lw=0.8, label="at random")
    axes.set_xlabel("share of predictions kept")
    axes.set_title(f"RMSE of what is kept (sd against |error|: {check.calibration.sd_error_correlation:.2f})")
    axes.legend(fontsize=8)
