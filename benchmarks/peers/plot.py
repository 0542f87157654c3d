"""Test RMSE over seconds of the fit, one point a system, and how ours got there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyro_bmf.files import atomic_write


def plot(report: dict[str, Any], file: Path) -> None:
    """Draw a report's systems: means over seeds; of ours also validation RMSE over seconds (first seed)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    rmses = []
    for name, entry in report["systems"].items():
        ours = name in report["paired"]
        own = entry["pooled"]
        rmses.append(own["rmse"])
        (points,) = axes.plot(own["fit_seconds"], own["rmse"], "s" if ours else "o", ms=7 if ours else 5)
        axes.annotate(
            name, (own["fit_seconds"], own["rmse"]), xytext=(6, 3), textcoords="offset points", fontsize=8
        )
        trace = next((cell["trace"] for cell in entry["seeds"].values() if "trace" in cell), None)
        if trace:
            axes.plot(*zip(*trace, strict=True), "-", lw=1, alpha=0.6, color=points.get_color())
    if rmses:
        room = max(max(rmses) - min(rmses), 0.01)
        axes.set_ylim(min(rmses) - 0.1 * room, max(rmses) + 0.1 * room)
    axes.margins(x=0.18)
    axes.set_xlabel("seconds of the fit, one core (log scale)")
    axes.set_ylabel("test RMSE, mean over seeds")
    axes.set_title(f"{report['data']}: accuracy over time (line: validation RMSE of ours)", fontsize=10)
    axes.grid(alpha=0.3)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
