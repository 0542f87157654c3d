"""Run the cells that are missing: data set x system x seed, one process on one core at a time.

    python benchmarks/peers/run.py --data ml100k --systems surprise-svd cornac-mf lenskit-als
    python benchmarks/peers/run.py --data ml1m --systems myfm-svdpp-32 pyro-bmf --seeds 0 1 2
    python benchmarks/peers/run.py --data ml1m --systems pyro-bmf-k32 --settings '{"n_factors": 32}'
    python benchmarks/peers/run.py --data ml1m --systems pyro-bmf-paper --core 1

Each cell is a folder under --cache, complete once it holds cell.json. A finished cell is skipped, an
interrupted one run anew, and so is one whose settings, split or format are not those asked for now. The
settings of ours are a preset's name ("preset") and what changes in it; after a change to the code itself ask
with --redo. Peers run in the environments that make_environment.sh makes, systems that begin with pyro-bmf in
that of this script. Several of these on one core take turns, cell by cell.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cells
import systems

HERE = Path(__file__).resolve().parent
CACHE = Path.home() / ".cache" / "pyro-bmf-peers"
_THREADS = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA", "RAYON")


def split_folder(cache: Path, data: str, seed: int) -> Path:
    """Return the folder of an exported split, made by the command line if it is missing."""
    folder = cache / "splits" / f"{data}-{seed}"
    if not (folder / "split.json").exists():
        program = shutil.which("pyro-bmf", path=str(Path(sys.executable).parent)) or "pyro-bmf"
        subprocess.run(
            [program, "data", "split", data, "--seed", str(seed), "--out", str(folder)], check=True
        )
    return folder


def peer_python(cache: Path, system: str) -> str:
    """Return the interpreter of a peer's environment."""
    return str(cache / ("venv-myfm" if system.startswith("myfm") else "venv-others") / "bin" / "python")


@contextmanager
def core_alone(cache: Path, core: int) -> Iterator[None]:
    """Wait for a core: cells, tuning and other queues on the same core take turns, so that times hold."""
    with (cache / f"core-{core}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def one_thread() -> dict[str, str]:
    """Return the environment of a worker: one thread, whatever library it uses."""
    return {**os.environ, **{f"{name}_NUM_THREADS": "1" for name in _THREADS}}


def tuned(data: str, system: str) -> dict[str, Any]:
    """Return the settings that validation chose for a system on a data set; none when it was not tuned."""
    file = HERE / "tuning.json"
    ledger: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    chosen: dict[str, Any] = ledger.get(data, {}).get(system, {}).get("chosen", {})
    return chosen


def run_cell(options: argparse.Namespace, data: str, system: str, seed: int) -> bool:
    """Run one cell in a process of its own, unless it is there; tell whether it is there now."""
    split = split_folder(options.cache, data, seed)
    split_hash = json.loads((split / "split.json").read_text(encoding="utf-8"))["hash"]
    out = cells.folder_of(options.cache, data, system, seed)

    def asked() -> dict[str, Any]:
        settings = systems.settings_of(system, tuned(data, system), json.loads(options.settings))
        return cells.request(system, data, split_hash, seed, settings)

    def stands() -> bool:
        return not options.redo and (cells.about(out) or {}).get("request") == asked()

    if not stands():
        with core_alone(options.cache, options.core):
            # Another queue may have made the cell, or tuning changed its settings, while this one waited.
            return stands() or launch(options, split, asked(), out)
    print(f"{data} {system} seed {seed}: done before", flush=True)
    return True


def launch(options: argparse.Namespace, split: Path, asked: dict[str, Any], out: Path) -> bool:
    """Start a cell's process on its core and wait for it; tell whether it succeeded."""
    data, system, seed = asked["data"], asked["system"], asked["seed"]
    ours = systems.is_ours(system)
    command = [sys.executable if ours else peer_python(options.cache, system)]
    command += [str(HERE / ("ours.py" if ours else "worker.py")), "--split", str(split), "--data", data]
    command += ["--system", system, "--settings", json.dumps(asked["settings"])]
    command += ["--seed", str(seed), "--out", str(out)]
    command += ["--no-scores"] if options.no_scores else []
    log = options.cache / "logs" / f"{data}-{system}-{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    again = ", again" if cells.about(out) else ""
    print(f"{time.strftime('%H:%M:%S')} {data} {system} seed {seed}{again}", flush=True)
    with log.open("w") as file:
        done = subprocess.run(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=one_thread(),
            preexec_fn=lambda: os.sched_setaffinity(0, {options.core}),
            check=False,
        )
    if done.returncode:
        print(f"  failed, see {log}", flush=True)
        return False
    about = cells.about(out) or {}
    print(f"  valid RMSE {about['valid_rmse']:.4f}, fit {about['fit_seconds']:.1f} s", flush=True)
    return True


def main() -> None:
    """Run every cell that was asked for and is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["ml100k"])
    parser.add_argument(
        "--systems", nargs="+", required=True, help=f"of {', '.join(systems.PEERS)}, pyro-bmf, pyro-bmf-..."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of split and fit")
    parser.add_argument("--core", type=int, default=0, help="the processor that cells are pinned to")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="changes to the systems' settings")
    parser.add_argument("--no-scores", action="store_true", help="no scores of every pair, so no ranking")
    parser.add_argument("--redo", action="store_true", help="run finished cells again")
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    for system in options.systems:
        if system not in systems.PEERS and not systems.is_ours(system):
            parser.error(f"there is no system {system}: choose from {', '.join(systems.PEERS)}, pyro-bmf...")
    done = [
        run_cell(options, data, system, seed)
        for seed in options.seeds
        for data in options.data
        for system in options.systems
    ]
    if not all(done):
        sys.exit(1)


if __name__ == "__main__":
    main()
