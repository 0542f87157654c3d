"""Choose the peers' settings by validation RMSE on seed 0, and keep what was tried.

    python benchmarks/peers/tune.py --data ml1m --systems surprise-svd cornac-mf lenskit-als
    python benchmarks/peers/tune.py --data ml100k --systems cornac-bivae --core 1

Every point of a grid that is not in tuning.json yet is tried, so grids can grow. Test ratings are never read.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import systems
from run import CACHE, HERE, core_alone, one_thread, peer_python, split_folder

LEDGER = HERE / "tuning.json"
Grid = dict[str, list[Any]]

#: Grids by system; where the best point lay at an edge, another grid goes on from there.
GRIDS: dict[str, list[Grid]] = {
    **{name: [{"grouped": [True, False]}] for name in systems.PEERS if name.startswith("myfm")},
    "surprise-svd": [
        {"factors": [50, 100], "penalty": [0.05, 0.08], "epochs": [30], "rate": [0.007, 0.012]},
        {"factors": [100, 200], "penalty": [0.05, 0.065, 0.08, 0.1], "epochs": [30, 60], "rate": [0.007]},
        {"factors": [200], "penalty": [0.065, 0.08, 0.1], "epochs": [60, 100], "rate": [0.012]},
        {"factors": [100], "penalty": [0.1, 0.12], "epochs": [100], "rate": [0.007]},
    ],
    "cornac-mf": [
        {"factors": [20, 50], "penalty": [0.03, 0.05, 0.08], "epochs": [30, 60], "rate": [0.01]},
        {"factors": [50, 100, 200], "penalty": [0.05, 0.065, 0.08], "epochs": [30, 60, 100], "rate": [0.01]},
        {"factors": [100, 200], "penalty": [0.05, 0.065], "epochs": [60, 100], "rate": [0.005]},
    ],
    "lenskit-als": [
        {"factors": [10, 30], "penalty": [0.05, 0.1, 0.2], "epochs": [20]},
        {"factors": [10, 30, 60], "penalty": [0.08, 0.1, 0.13, 0.16, 0.2, 0.3], "epochs": [20]},
        {"factors": [30, 60], "penalty": [0.1, 0.13, 0.16], "epochs": [10, 40]},
        {"factors": [100], "penalty": [0.1, 0.13], "epochs": [20]},
    ],
    "cornac-bivae": [
        {"factors": [20], "units": [40], "likelihood": ["pois", "bern", "gaus"], "epochs": [30]},
        {"factors": [10, 50], "units": [40], "likelihood": ["pois"], "epochs": [30]},
        {"factors": [20], "units": [40], "likelihood": ["pois"], "epochs": [10, 60]},
    ],
}


def main() -> None:
    """Try every point of a grid that is not in the ledger yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--systems", nargs="+", required=True, choices=list(GRIDS))
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    folder = split_folder(options.cache, options.data, 0)
    for system in options.systems:
        with core_alone(options.cache, options.core):
            tune(options, folder, system)


def tune(options: argparse.Namespace, folder: Path, system: str) -> None:
    """Try what is missing of a system's grids."""
    for grid in GRIDS[system]:
        for values in itertools.product(*grid.values()):
            settings = dict(zip(grid, values, strict=True))
            if any(trial["settings"] == settings for trial in tried(options.data, system)):
                continue
            trial = attempt(options, folder, system, settings)
            print(options.data, system, settings, trial["valid_rmse"] or trial["error"], flush=True)
            record(options.data, system, trial)


def attempt(
    options: argparse.Namespace, folder: Path, system: str, settings: dict[str, Any]
) -> dict[str, Any]:
    """Fit once and return validation RMSE, or the error."""
    started = time.perf_counter()
    command = [peer_python(options.cache, system), str(HERE / "worker.py"), "--split", str(folder)]
    command += ["--system", system, "--only-valid", "--settings", json.dumps(settings)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=one_thread(),
        preexec_fn=lambda: os.sched_setaffinity(0, {options.core}),
        check=False,
    )
    match = re.search(r"valid RMSE ([0-9.]+)", done.stdout)
    trial = {"settings": settings, "valid_rmse": float(match.group(1)) if match else None}
    trial["seconds"] = round(time.perf_counter() - started, 1)
    return trial if match else trial | {"error": done.stderr.strip()[-300:]}


def tried(data: str, system: str) -> list[dict[str, Any]]:
    """Return the trials in the ledger."""
    found: list[dict[str, Any]] = _ledger().get(data, {}).get(system, {}).get("tried", [])
    return found


def record(data: str, system: str, trial: dict[str, Any]) -> None:
    """Add a trial to the ledger and choose the best one anew."""
    ledger = _ledger()
    entry = ledger.setdefault(data, {}).setdefault(system, {"tried": [], "chosen": {}})
    entry["tried"].append(trial)
    good = [one for one in entry["tried"] if one["valid_rmse"] is not None]
    if good:
        entry["chosen"] = min(good, key=lambda one: one["valid_rmse"])["settings"]
    temporary = LEDGER.with_suffix(".tmp")
    temporary.write_text(json.dumps(ledger, indent=1) + "\n", encoding="utf-8")
    temporary.replace(LEDGER)


def _ledger() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(LEDGER.read_text(encoding="utf-8")) if LEDGER.exists() else {}
    return content


if __name__ == "__main__":
    main()
