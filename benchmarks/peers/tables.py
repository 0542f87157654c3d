"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NOTES = """\
RMSE, MAE unclipped; NLL in nats of the discrete rating; RPS summed over the levels. Coverage: 90 % intervals
by randomised PIT, overall, and how many deciles of the user's and the item's train count lie within two
binomial standard errors (in brackets: within those and 0.03 more). Ranking: protocol `full`, relevant is a
rating above 3. Seconds of the fit on one core, without loading and start; memory is the process's peak.
A star: no distribution of its own; a Normal as wide as its validation errors stands in, cut midway.
"""
PAIR_NOTES = """\
Ours less the peer: below zero, ours is better. Per seed: a bootstrap of users, paired. Pooled: the mean over
seeds, each draw resampling the users once for all seeds; "upper 95 %" is one-sided.
"""


def markdown(report: dict[str, Any]) -> str:
    """Return the whole report."""
    parts = [f"# Peers on {report['data']}\n", NOTES]
    pooled = {name: entry["pooled"] for name, entry in report["systems"].items()}
    parts += ["## Means over seeds\n", _systems(pooled, seeds=True)]
    for seed in report["seeds"]:
        own = {
            name: entry["seeds"][str(seed)]
            for name, entry in report["systems"].items()
            if str(seed) in entry["seeds"]
        }
        parts += [f"## Seed {seed}\n", _systems(own, seeds=False)]
    for ours, peers in report["paired"].items():
        parts += [f"## {ours} against each peer\n", PAIR_NOTES, _pooled_pairs(peers), _seed_pairs(peers)]
    if report["seconds_to"]:
        parts += ["## Seconds of ours to a peer's final validation RMSE\n", _seconds_to(report["seconds_to"])]
    return "\n".join(parts)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, the first column to the left."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _systems(entries: dict[str, dict[str, Any]], *, seeds: bool) -> str:
    header = [
        "system",
        *(["seeds"] if seeds else []),
        "RMSE",
        "MAE",
        "NLL",
        "RPS",
        "coverage",
        "user deciles",
    ]
    header += [
        "item deciles",
        "recall@20",
        "NDCG@20",
        "NDCG@50",
        "valid RMSE",
        "fit s",
        "CPU s",
        "predict s",
        "GB",
    ]
    rows = []
    for name, entry in sorted(entries.items(), key=lambda pair: pair[1]["rmse"]):
        star = "" if entry["own_distribution"] else " *"
        row = [name, *([" ".join(map(str, entry["seeds"]))] if seeds else [])]
        row += [_number(entry["rmse"]), _number(entry["mae"]), _number(entry["nll"]) + star]
        row += [_number(entry["rps"]) + star, _number(entry["coverage"]["all"]["coverage"][0], 3)]
        for by in ("user", "item"):
            own = entry["coverage"][by]
            row.append(f"{own['within_2se']} ({own['within_2se_and_allowance']}) of {own['groups']}")
        row += [_number(entry["ranking"].get(key)) for key in ("recall@20", "ndcg@20", "ndcg@50")]
        row += [_number(entry["valid_rmse"]), _number(entry["fit_seconds"], 1)]
        row += [_number(entry["fit_cpu_seconds"], 1), _number(entry["predict_seconds"], 1)]
        rows.append([*row, _number(entry["peak_memory_gb"], 2)])
    return table(header, rows)


def _pooled_pairs(peers: dict[str, Any]) -> str:
    rows = []
    for name, entry in peers.items():
        row = [name, " ".join(map(str, entry["seeds"]))]
        for one in entry["pooled"].values():
            row.append(f"{one['difference']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]")
            row.append(f"{one['upper_95']:+.4f}")
        rows.append(row)
    header = ["pooled: peer", "seeds"]
    for metric in ("RMSE", "NLL", "RPS"):
        header += [f"{metric} [95 %]", "upper 95 %"]
    return table(header, rows)


def _seed_pairs(peers: dict[str, Any]) -> str:
    rows = []
    for name, entry in peers.items():
        for seed, metrics in entry["by_seed"].items():
            cells = [f"{m['difference']:+.4f} [{m['low']:+.4f}, {m['high']:+.4f}]" for m in metrics.values()]
            rows.append([name, seed, *cells])
    return table(["peer", "seed", "RMSE [95 %]", "NLL [95 %]", "RPS [95 %]"], rows)


def _seconds_to(rows: list[dict[str, Any]]) -> str:
    cells = [
        [
            *(row["ours"], row["peer"], str(row["seed"]), _number(row["target"]), _number(row["seconds"], 1)),
            *(_number(row["peer_seconds"], 1),),
        ]
        for row in rows
    ]
    return table(
        ["ours", "peer", "seed", "its valid RMSE", "seconds of ours", "seconds of the peer's fit"], cells
    )
