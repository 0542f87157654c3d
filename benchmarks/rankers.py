r"""Our networks beside another library's, with the same settings on one split of MovieLens 100K.

    pyro-bmf data split ml100k --seed 0 --out splits/ml100k-0
    ~/.cache/pyro-bmf-peers/venv-recbole/bin/python benchmarks/peers/recbole_scores.py \
        --split splits/ml100k-0 --out scores
    python benchmarks/rankers.py --scores scores

Settings are those of `benchmarks/peers/ranker_settings.py`. Both sides are trained for all its epochs, and
keep the one that is best on validation by the same figure. The library's scores of all pairs are measured as
our own are: protocol `full`, lists of 20, and RMSE where scores are ratings. Differences are ours less
theirs, with 95 % intervals by a bootstrap over users. Each system is added to
benchmarks/results/rankers.json.

How much fits differ by their seed alone is seen on validation, with `recbole_scores.py --seed 1` and

    python benchmarks/rankers.py --scores scores --system dae-cf --other-seeds 1 2 3 4
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyro_bmf import baselines
from pyro_bmf.baselines import Baseline
from pyro_bmf.data import Split, load_ratings, random_split
from pyro_bmf.evaluation import Evaluation, evaluate, paired_difference
from pyro_bmf.files import write_json
from pyro_bmf.numerics.cell_arrays import normal_pmf
from pyro_bmf.systems.contract import BasePredictor

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))

from ranker_settings import EPOCHS, RATING, SETTINGS  # noqa: E402

KINDS: dict[str, Any] = {
    kind.name: kind for kind in (*baselines.NEURAL_BASELINES, *baselines.RANKING_BASELINES)
}
FIGURES = ("ndcg@20", "recall@20")


class ByScores(BasePredictor):
    """What ranks by scores of all pairs that another library gave; as ratings they are taken to be Normal."""

    def __init__(self, name: str, scores: NDArray[np.float32]) -> None:
        self.name, self._scores = name, scores

    def predict_mean(self, users: Any, items: Any) -> NDArray[Any]:
        """Return the scores."""
        return self._scores[users, items].astype(np.float64)

    def predict_sd(self, users: Any, items: Any) -> NDArray[Any]:
        """Return ones: the library says nothing of them, and no figure here reads them."""
        return np.ones(len(users))

    def predict_pmf(self, users: Any, items: Any, levels: Any) -> NDArray[Any]:
        """Return the cells of that Normal."""
        return normal_pmf(self.predict_mean(users, items), self.predict_sd(users, items), levels)

    def score_items(self, users: Any) -> NDArray[Any]:
        """Return the scores."""
        return self._scores[users]


def ours(name: str, split: Split, state: Path, **changes: Any) -> Baseline:
    """Fit a system of ours for all epochs, going on from its checkpoint where there is one."""
    given = SETTINGS[name] | {"max_iterations": EPOCHS, "patience": None} | changes
    kind, seed = KINDS[name], changes.get("seed", 0)
    state.mkdir(parents=True, exist_ok=True)
    how: dict[str, Any] = {"threads": 1, "progress": True, "checkpoint": state / f"{name}-{seed}.ckpt"}
    fitted: Baseline = kind(kind.settings_class(**given), **how).fit(split)
    return fitted


def theirs(file: Path, split: Split) -> tuple[ByScores, dict[str, Any]]:
    """Read a peer's scores, made from this split with these settings."""
    with np.load(file, allow_pickle=False) as content:
        about: dict[str, Any] = json.loads(str(content["about"]))
        scores = content["scores"]
    for what, wanted in (
        ("split_hash", split.hash),
        ("settings", SETTINGS[about["ours"]]),
        ("epochs", EPOCHS),
    ):
        if about[what] != wanted:
            raise SystemExit(
                f"{file} was made with {what} {about[what]}, and this wants {wanted}: make it anew."
            )
    return ByScores(about["peer"], scores), about


def both_parts(system: Any, split: Split) -> dict[str, Evaluation]:
    """Measure validation and test part."""
    return {
        part: evaluate(system, split, part=part, n=(20,), protocols=("full",)) for part in ("valid", "test")
    }


def figures(found: dict[str, Evaluation], rates: bool) -> dict[str, Any]:
    """Return what the table shows of both parts."""
    rows = {}
    for part, one in found.items():
        (lists,) = one.to_dict()["ranking"]
        rows[part] = {"ndcg@20": lists["ndcg"], "recall@20": lists["recall"]}
        if rates:
            rows[part]["rmse"] = one.to_dict()["rmse"]
    return rows


def difference(one: dict[str, Evaluation], other: dict[str, Evaluation], rates: bool) -> dict[str, Any]:
    """Return ours less theirs on the test part, with intervals."""
    names = {name: f"full:{name}" for name in FIGURES} | ({"rmse": "rmse"} if rates else {})
    found = {}
    for name, metric in names.items():
        gap = paired_difference(metric, one["test"], other["test"])
        found[name] = {"difference": gap.difference, "low": gap.low, "high": gap.high}
    return found


def compare(name: str, system: Baseline, files: list[Path], split: Split) -> dict[str, Any]:
    """Return the row of one system of ours beside its peers."""
    rates = name in RATING
    own = both_parts(system, split)
    info = system.info
    row: dict[str, Any] = {
        "split": "random 70/15/15, seed 0",
        "split_hash": split.hash,
        "settings": SETTINGS[name],
        "ours": figures(own, rates)
        | {"epoch": info["kept_iteration"], "epochs": info["iterations"], "seconds": info["seconds"]},
        "peers": {},
    }
    for file in files:
        peer, about = theirs(file, split)
        found = both_parts(peer, split)
        row["peers"][peer.name] = figures(found, rates) | {
            "epoch": about["epoch"],
            "epochs": about["epochs"],
            "seconds": about["seconds"],
            "versions": about["versions"],
            "words": about["recbole"],
            "ours less theirs": difference(own, found, rates),
        }
    return row


def of_system(name: str, folder: Path, seed: int = 0) -> list[Path]:
    """Return the files of scores by peers of a system of ours, fitted with a seed."""
    found = []
    for file in sorted(folder.glob("*.npz")):
        with np.load(file, allow_pickle=False) as content:
            about = json.loads(str(content["about"]))
        if about["ours"] == name and about["seed"] == seed:
            found.append(file)
    if not found:
        raise SystemExit(
            f"{folder} holds no scores by a peer of {name} with seed {seed}: run "
            "benchmarks/peers/recbole_scores.py."
        )
    return found


def best_of(system: Baseline) -> float:
    """Return the validation figure of the epoch that was kept."""
    return float(system.info["history"][system.info["kept_iteration"] - 1][KINDS[system.name].figure])


def other_fit(system: Baseline, files: list[Path], split: Split) -> dict[str, float]:
    """Return the best validation figures of fits with one seed, ours and the peers'."""
    told = [theirs(file, split)[1] for file in files]
    return {"ours": best_of(system)} | {about["peer"]: abs(max(about["curve"])) for about in told}


def main() -> None:
    """Compare the systems that were named, in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--scores", type=Path, required=True, help="folder of the library's scores")
    parser.add_argument("--state", type=Path, default=Path("rankers-state"), help="folder of checkpoints")
    parser.add_argument(
        "--valid", action="store_true", help="fit ours, print its curve, and read no test rating"
    )
    parser.add_argument("--other-seeds", type=int, nargs="+", default=[], help="of fits, on validation only")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "rankers.json")
    given = parser.parse_args()
    split = random_split(load_ratings("ml100k"), seed=0)
    for name in given.system:
        if given.other_seeds:
            results = json.loads(given.out.read_text(encoding="utf-8"))
            for seed in given.other_seeds:
                system = ours(name, split, given.state, seed=seed)
                found = other_fit(system, of_system(name, given.scores, seed), split)
                results[name].setdefault("other fits", {})[str(seed)] = found
                print(name, seed, found)
            write_json(given.out, results)
            continue
        files = of_system(name, given.scores)
        system = ours(name, split, given.state)
        if given.valid:
            curve = [record[KINDS[name].figure] for record in system.info["history"]]
            print(name, system.info["kept_iteration"], " ".join(f"{value:.4f}" for value in curve))
            continue
        row = compare(name, system, files, split)
        results = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
        write_json(given.out, results | {name: row})
        print(json.dumps({name: row}, indent=1))


if __name__ == "__main__":
    main()
