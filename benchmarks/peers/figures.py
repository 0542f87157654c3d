"""Figures of single cells, and means over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_bmf.evaluation import Evaluation

LEVEL = 0.9
#: What a decile's coverage may be off by, beside its sampling error, in the wider of the two checks.
ALLOWANCE = 0.03


def figures_of(evaluation: Evaluation, about: dict[str, Any]) -> dict[str, Any]:
    """Return one cell's figures, plain and without single ratings."""
    calibration = evaluation.calibration
    place = calibration.levels.index(LEVEL)
    groups = [calibration.overall, *calibration.deciles]
    coverage = [
        {"by": g.by, "decile": g.decile, "n": g.n_ratings, "coverage": g.pit_coverage[place]} for g in groups
    ]
    found: dict[str, Any] = {"n_test": evaluation.n_ratings}
    for name in ("rmse", "rmse_se", "mae", "nll", "rps", "n_impossible"):
        found[name] = getattr(evaluation, name)
    correlation = calibration.sd_error_correlation
    found["sd_error_correlation"] = correlation if np.isfinite(correlation) else None
    found["ranking"] = {
        f"{kind}@{ranking.n}": getattr(ranking, kind)
        for ranking in evaluation.ranking
        for kind in ("recall", "ndcg", "catalogue_share")
    }
    found["coverage"] = checked(coverage)
    for name in ("valid_rmse", "fit_seconds", "fit_cpu_seconds", "predict_seconds", "score_seconds"):
        found[name] = about[name]
    found |= {name: about[name] for name in ("fit_memory_gb", "peak_memory_gb")}
    found |= {"own_distribution": about["own_distribution"], "versions": about["versions"]}
    found["settings"] = about["request"]["settings"]
    found |= {name: about[name] for name in ("preset", "iterations", "trace") if name in about}
    return found


def checked(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Judge groups' coverage by two binomial standard errors, and by those and the allowance."""
    result: dict[str, Any] = {}
    for by in ("all", "user", "item"):
        own = [group for group in groups if group["by"] == by]
        if not own:
            continue
        off = np.array([abs(group["coverage"] - LEVEL) for group in own])
        two_se = 2 * np.sqrt(LEVEL * (1 - LEVEL) / np.array([group["n"] for group in own]))
        result[by] = {
            "coverage": [round(group["coverage"], 5) for group in own],
            "n": [group["n"] for group in own],
            "within_2se": int((off <= two_se + 1e-12).sum()),
            "within_2se_and_allowance": int((off <= two_se + ALLOWANCE + 1e-12).sum()),
            "groups": len(own),
        }
    return result


def pooled(by_seed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return means over seeds, with the standard deviation between seeds of the main figures.

    A decile's coverage is pooled over the seeds' test ratings in it, and judged by the errors of so many.
    """
    cells = list(by_seed.values())
    found: dict[str, Any] = {"seeds": sorted(int(seed) for seed in by_seed)}
    names = ("rmse", "mae", "nll", "rps", "valid_rmse", "sd_error_correlation", "fit_seconds")
    names += ("fit_cpu_seconds", "predict_seconds", "peak_memory_gb")
    for name in names:
        values = [cell[name] for cell in cells if cell[name] is not None]
        found[name] = float(np.mean(values)) if values else None
        if name in ("rmse", "nll", "rps") and len(values) > 1:
            found[f"{name}_sd"] = float(np.std(values, ddof=1))
    shared = set.intersection(*(set(cell["ranking"]) for cell in cells))
    found["ranking"] = {
        name: float(np.mean([cell["ranking"][name] for cell in cells]))
        for name in cells[0]["ranking"]
        if name in shared
    }
    groups = []
    for by, first in cells[0]["coverage"].items():
        for place in range(first["groups"]):
            sizes = np.array([cell["coverage"][by]["n"][place] for cell in cells])
            shares = np.array([cell["coverage"][by]["coverage"][place] for cell in cells])
            groups.append({"by": by, "n": int(sizes.sum()), "coverage": float(shares @ sizes / sizes.sum())})
    found["coverage"] = checked(groups)
    found["own_distribution"] = all(cell["own_distribution"] for cell in cells)
    return found


def seconds_to(trace: list[list[float]], target: float) -> float | None:
    """Return the seconds after which a trace of (seconds, validation RMSE) first reached `target`."""
    return next((seconds for seconds, rmse in trace if rmse <= target), None)
