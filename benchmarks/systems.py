"""The systems of section 2 on MovieLens 100K, as they stand: one split, test ratings scored once.

    python benchmarks/systems.py --system bpmf

A system is one of the presets pmf, bpmf, robust and poisson, or a baseline: cdae, ngcf, lightgcn, and the
collaborative VAE, which reads genres and titles from `u.item`. Fits go on from `--state` when they were
interrupted. Validation ratings decide when to stop. Each result is added to benchmarks/results/systems.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from pyro_bmf import fit, preset
from pyro_bmf.baselines import RANKING_BASELINES, BiasOnly, CollaborativeVAE, ItemContent, Popularity
from pyro_bmf.data import Split, load_ratings, random_split
from pyro_bmf.data.located import is_here
from pyro_bmf.data.sources import SOURCES
from pyro_bmf.evaluation import evaluate
from pyro_bmf.files import write_json

PRESETS = ("pmf", "bpmf", "robust", "poisson")
SIMPLE = {one.name: one for one in (BiasOnly, Popularity)}
RANKERS = {one.name: one for one in RANKING_BASELINES}


def fitted(name: str, split: Split, state: Path) -> tuple[Any, float, int]:
    """Fit a system; return it, the seconds of its iterations, and their number."""
    checkpoint = state / f"{name}.ckpt"
    if name in PRESETS:
        settings = preset(name)
        kept = {"checkpoint": checkpoint, "checkpoint_every": 5, "resume": checkpoint.exists()}
        result = fit(split, settings, threads=1, **(kept if settings.checkpointed else {}))  # type: ignore[arg-type]
        return result.posterior, sum(one["seconds"] for one in result.history), len(result.history)
    if name in SIMPLE:
        started = time.perf_counter()
        return SIMPLE[name]().fit(split), time.perf_counter() - started, 1
    how: dict[str, Any] = {"threads": 1, "progress": True, "checkpoint": checkpoint}
    if name == CollaborativeVAE.name:
        found = is_here(SOURCES["ml100k"], None)
        assert found is not None
        path = next(found.parent.rglob("u.item"), None)
        if path is None:
            raise SystemExit(
                f"There is no u.item beside {found}: extract the whole archive of ml-100k there."
            )
        how["content"] = ItemContent.read(path, split.ratings.item_vocabulary)
        system: Any = CollaborativeVAE(**how).fit(split)
    else:
        system = RANKERS[name](**how).fit(split)
    return system, system.info["seconds"], system.info["iterations"]


def measured(name: str, split: Split, state: Path) -> dict[str, Any]:
    """Fit a system and score its test part."""
    system, seconds, iterations = fitted(name, split, state)
    found = evaluate(system, split, n=(20,), protocols=("full",)).to_dict()
    (lists,) = found["ranking"]
    return {
        "split": "random 70/15/15, seed 0",
        "rates": name not in {*RANKERS, Popularity.name},
        "rmse": found["rmse"],
        "nll": found["nll"],
        "ndcg@20": lists["ndcg"],
        "recall@20": lists["recall"],
        "iterations": iterations,
        "seconds": seconds,
    }


def main() -> None:
    """Run one system."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = (*SIMPLE, *PRESETS, *RANKERS, CollaborativeVAE.name)
    parser.add_argument("--system", choices=names, required=True)
    parser.add_argument("--state", type=Path, default=Path("systems-state"), help="folder of checkpoints")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "systems.json")
    given = parser.parse_args()
    given.state.mkdir(parents=True, exist_ok=True)
    split = random_split(load_ratings("ml100k"), seed=0)
    row = measured(given.system, split, given.state)
    results = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    write_json(given.out, results | {given.system: row})
    print(given.system, row)


if __name__ == "__main__":
    main()
