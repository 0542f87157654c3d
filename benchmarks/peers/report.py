"""Measure all finished cells of a data set on its test ratings, and compare ours with each peer.

    python benchmarks/peers/report.py --data ml1m
    python benchmarks/peers/report.py --data ml100k --ours pyro-bmf pyro-bmf-amortized --seeds 0 1 2
    python benchmarks/peers/report.py --data ml1m --ours pyro-bmf --out /tmp/report

Writes DATA.json, DATA.md and DATA.png. Cells that are missing are left out and named. This is the only step
that reads test ratings to score them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cells
import systems
from figures import figures_of, pooled, seconds_to
from pairs import over_seeds, per_seed
from plot import plot
from run import CACHE, HERE, tuned
from saved import evaluate_cell
from tables import markdown

from pyro_bmf.data import Split, read_split
from pyro_bmf.evaluation import Evaluation
from pyro_bmf.files import atomic_write, write_json


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--systems", nargs="+", help="all that have a cell when not given")
    parser.add_argument("--ours", nargs="+", default=["pyro-bmf"], help="systems compared with each peer")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap behind an RMSE's error")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the three files")
    options = parser.parse_args()
    report = make_report(options)
    if not report["systems"]:
        parser.error(f"no finished cell of {options.data} in {options.cache}: run run.py first")
    thin_traces(report)
    write_json(options.out / f"{options.data}.json", report)
    text = markdown(report)
    with atomic_write(options.out / f"{options.data}.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    plot(report, options.out / f"{options.data}.png")
    print(text)


def make_report(options: argparse.Namespace) -> dict[str, Any]:
    """Return the whole report, plain and without single ratings."""
    splits: dict[int, Split] = {}
    evaluations: dict[str, dict[int, Evaluation]] = {}
    figures: dict[str, dict[str, Any]] = {}
    for system, seed in finished(options):
        if seed not in splits:
            splits[seed] = read_split(options.cache / "splits" / f"{options.data}-{seed}")
        print(f"measuring {options.data} {system} seed {seed}", flush=True)
        folder = cells.folder_of(options.cache, options.data, system, seed)
        found = evaluate_cell(folder, splits[seed], draws=options.draws)
        evaluations.setdefault(system, {})[seed] = found
        figures.setdefault(system, {})[str(seed)] = figures_of(found, cells.about(folder) or {})
    users = {seed: split.train.n_users for seed, split in splits.items()}
    return {
        "data": options.data,
        "seeds": sorted(splits),
        "split_hashes": {str(seed): split.hash for seed, split in sorted(splits.items())},
        "systems": {name: {"pooled": pooled(own), "seeds": own} for name, own in figures.items()},
        "paired": {
            ours: against(ours, evaluations, max(users.values()))
            for ours in options.ours
            if ours in evaluations
        },
        "seconds_to": race(figures),
    }


def finished(options: argparse.Namespace) -> list[tuple[str, int]]:
    """Return system and seed of the cells in this format; name those missing or of outdated settings."""
    top = options.cache / "cells" / options.data
    names = sorted({folder.name.rpartition("-")[0] for folder in top.glob("*-*")} if top.exists() else ())
    found = []
    for system in options.systems or names:
        for seed in options.seeds:
            about = cells.about(cells.folder_of(options.cache, options.data, system, seed))
            if about is None or about.get("request", {}).get("format") != cells.FORMAT:
                print(f"missing: {options.data} {system} seed {seed}", flush=True)
                continue
            if system in systems.PEERS:
                wanted = systems.settings_of(system, tuned(options.data, system), {})
                if about["request"]["settings"] != wanted:
                    print(f"of other settings than now: {options.data} {system} seed {seed}", flush=True)
            found.append((system, seed))
    return found


def against(ours: str, evaluations: dict[str, dict[int, Evaluation]], n_users: int) -> dict[str, Any]:
    """Compare one of ours with every other system, on the seeds that both have."""
    found = {}
    for peer, own in evaluations.items():
        seeds = sorted(set(own) & set(evaluations[ours]))
        if peer == ours or not seeds:
            continue
        pairs = [(evaluations[ours][seed], own[seed]) for seed in seeds]
        found[peer] = {
            "seeds": seeds,
            "by_seed": {str(seed): per_seed(*pair) for seed, pair in zip(seeds, pairs, strict=True)},
            "pooled": over_seeds([(a.per_rating, b.per_rating) for a, b in pairs], n_users),
        }
    return found


def thin_traces(report: dict[str, Any], points: int = 30) -> None:
    """Leave some points of each trace, the last among them: the results stay small."""
    for entry in report["systems"].values():
        for cell in entry["seeds"].values():
            if "trace" in cell:
                trace = cell["trace"]
                cell["trace"] = trace[:: -max(1, -(-len(trace) // points))][::-1]


def race(figures: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return after how many seconds ours had the validation RMSE at which each of myFM's ends."""
    rows = []
    for ours in (name for name in figures if systems.is_ours(name)):
        for peer in (name for name in figures if name.startswith("myfm")):
            for seed in sorted(set(figures[ours]) & set(figures[peer])):
                target = figures[peer][seed]["valid_rmse"]
                row = {"ours": ours, "peer": peer, "seed": int(seed), "target": target}
                row["seconds"] = seconds_to(figures[ours][seed].get("trace", []), target)
                rows.append(row | {"peer_seconds": figures[peer][seed]["fit_seconds"]})
    return rows


if __name__ == "__main__":
    main()
