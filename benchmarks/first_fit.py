"""Run what `make fit` runs, put its output into README.md, and keep its figures.

    python benchmarks/first_fit.py
    python benchmarks/first_fit.py --run runs/ml100k --output fit.txt   # of a fit that was run before

Writes the block below the mark ``<!-- excerpt: what make fit printed -->`` and
``benchmarks/results/first_fit.json``. `benchmarks/write_figures.py` then takes the figures to where the pages
name them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pyro_bmf.files import atomic_write, write_json
from pyro_bmf.posterior.posterior import Posterior

ROOT = Path(__file__).resolve().parent.parent
COMMAND = ("fit", "--data", "ml100k", "--recommend-for", "196")
BLOCK = re.compile(r"(<!-- excerpt: what make fit printed -->\n```text\n).*?(```\n)", re.S)


def run(folder: Path) -> tuple[Path, str]:
    """Fit in a folder; return the run's folder and what was printed."""
    done = subprocess.run(
        [sys.executable, "-c", "from pyro_bmf.cli.main import main; main()", *COMMAND],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return folder / "runs/ml100k", done.stdout


def figures(run_folder: Path, printed: str) -> dict[str, float | str]:
    """Return a run's figures, unrounded where its files have them."""
    metrics = json.loads((run_folder / "metrics.json").read_text(encoding="utf-8"))
    own = metrics["evaluations"][0]
    overall = own["calibration"]["overall"]
    place = own["calibration"]["levels"].index(0.9)
    valid = re.search(r"validation RMSE (\d\.\d+)\)", printed)
    if valid is None:
        raise SystemExit("The output has no validation RMSE.")
    chain = Posterior.load(run_folder / "model.safetensors").info["chain"]
    return {
        "command": "pyro-bmf " + " ".join(COMMAND),
        "what": "MovieLens 100K, seed 0, preset default",
        "split_hash": own["split_hash"],
        "valid_rmse": float(valid[1]),
        "settled": chain["settled"],
        "worst_rhat": max(one["r_hat"] for one in chain["quantities"]),
        "pit_coverage_90": overall["pit_coverage"][place],
        "interval_coverage_90": overall["interval_coverage"][place],
        **{name: own[name] for name in ("rmse", "mae", "nll", "rps")},
    }


def shortened(printed: str) -> str:
    """Leave out what progress said between its first line and its last."""
    lines = printed.splitlines(keepends=True)
    progress = [n for n, line in enumerate(lines) if line.startswith("iteration ")]
    if len(progress) > 2:
        lines[progress[0] + 1 : progress[-1]] = ["…\n"]
    return "".join(lines)


def main() -> None:
    """Run, or take a run that was made, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="folder of a run that was made before")
    parser.add_argument("--output", type=Path, help="what it printed, standard output and error together")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.run is None:
            run_folder, printed = run(Path(folder))
        else:
            run_folder, printed = options.run, options.output.read_text(encoding="utf-8")
        write_json(ROOT / "benchmarks/results/first_fit.json", figures(run_folder, printed))
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    page, found = BLOCK.subn(lambda block: block[1] + shortened(printed) + block[2], page)
    if found != 1:
        raise SystemExit(f"README.md has {found} blocks marked 'excerpt: what make fit printed'.")
    with atomic_write(ROOT / "README.md") as temporary:
        temporary.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
