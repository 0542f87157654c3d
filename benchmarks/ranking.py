r"""What rankings of the whole catalogue are worth: by liked, chosen and rating, beside popularity and EASE.

    python benchmarks/ranking.py --data ml100k
    python benchmarks/ranking.py --data ml1m --seeds 0 --preset guide

Protocol `full` on the test part, lists of 20, one thread. The posterior is fitted by the preset, the
selection model to the same split; EASE is fitted to what was rated, to ratings above 3, and to ratings
as they are (graded), its ridge by NDCG@20 on validation; each is also ranked by its score times our
P(rating > 3). Differences, the peer's less ours, are means over users and seeds, with an interval by a
bootstrap that resamples users once for all seeds. A finished cell is kept in the cache, so that an
interrupted run goes on (a peer's as long as its file is the same); `--cells` names some of them.

Peers by other libraries have environments of their own: `--peer NAME=FILE` takes files of lists, one .npz a
seed with `lists` (n_users, 20), `{seed}` in its name, made from the same split by
`benchmarks/peers/ranking_lists.py`. Where the file has `scores` (n_users, n_items), they are ranked times our
P(rating > 3) too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse

from pyro_bmf.data import Split, load_ratings, random_split
from pyro_bmf.evaluation.liked_calibration import liked_calibration
from pyro_bmf.evaluation.metrics import ndcg_at, recall_at
from pyro_bmf.evaluation.protocols import evaluated_users
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.numerics.ranked_lists import Exclusion
from pyro_bmf.numerics.top_n import top_n
from pyro_bmf.posterior import Posterior
from pyro_bmf.selection import Horizon, ProductRanker, Recommender, Selection, fit_selection
from pyro_bmf.selection.item_regression import ItemRegression
from pyro_bmf.selection.rated_sets import RatedSets
from pyro_bmf.selection.search import best_bounded

N, ABOVE = 20, 3.0
RIDGES = (100.0, 200.0, 400.0, 800.0, 1600.0)
CELLS = (
    "popularity",
    "ours by liked",
    "ours by chosen",
    "ours by rating",
    "calibration",
    "ease rated",
    "ease above 3",
    "ease graded",
)
RESULTS = Path(__file__).parent / "results"
Lists = np.ndarray


def known_in(split: Split, part: str) -> Exclusion:
    """Return the pairs that are no candidates when a part is measured."""
    known = split.train_valid if part == "test" else split.train
    return Exclusion.of_pairs(known.users, known.items, known.n_users)


def by_score(score: Callable[[np.ndarray], np.ndarray], split: Split, part: str, users: np.ndarray) -> Lists:
    """Return the lists of users by a score of all items."""
    known = split.train_valid if part == "test" else split.train
    matrix = RatedSets.of(known).matrix
    lists = np.empty((len(users), N), dtype=np.int64)
    for start in range(0, len(users), 500):
        own = users[start : start + 500]
        scores = np.array(score(own), dtype=np.float64)
        entries = matrix[own].tocoo()
        scores[entries.row, entries.col] = -np.inf
        lists[start : start + 500] = top_n(scores, N)
    return lists


def figures(lists: Lists, split: Split, part: str, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return NDCG@20 and Recall@20 of each user."""
    held_out = split.test if part == "test" else split.valid
    above = held_out.ratings > ABOVE
    shape = held_out.n_users, held_out.n_items
    wanted = (
        RatedSets.of_pairs(held_out.users[above], held_out.items[above], shape).matrix[users].toarray() > 0
    )
    hits = np.take_along_axis(wanted, np.maximum(lists, 0), axis=1) & (lists >= 0)
    totals = wanted.sum(axis=1)
    return ndcg_at(hits, totals, N), recall_at(hits, totals, N)


def users_of(split: Split, part: str) -> np.ndarray:
    """Return the users that are measured."""
    return evaluated_users(split.test if part == "test" else split.valid, ABOVE)


def posterior_of(data: str, split: Split, name: str, seed: int, cache: Path) -> tuple[Posterior, float]:
    """Fit the posterior, or take the one that an earlier call kept."""
    path, started = cache / f"{data}-{name}-{seed}.safetensors", time.perf_counter()
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        fit(split, preset(name).replace(seed=seed), threads=1, progress=False).posterior.save(path)
    return Posterior.load(path), time.perf_counter() - started


def recommender_of(
    data: str, split: Split, posterior: Posterior, name: str, seed: int, cache: Path, own: dict[str, Any]
) -> Recommender:
    """Fit the selection model, or take the one that an earlier call kept; tell in `own` how it was chosen."""
    path = cache / f"{data}-{name}-{seed}-selection.safetensors"
    if not path.is_file():
        started = time.perf_counter()
        selection = fit_selection(split, seed=seed, posterior=posterior)
        selection.save(path)
        seconds = time.perf_counter() - started
        own["selection"] = {"seconds": seconds, "head": selection.head.word, "tried": selection.info["tried"]}
    return Recommender(posterior, Selection.load(path, posterior.train), ABOVE)


def horizon_of(split: Split) -> Horizon:
    """Return what is chosen in the test part, of what is known when it is measured."""
    n = len(split.ratings)
    return Horizon((n - len(split.test_rows)) / n, len(split.test_rows) / n, "test")


def ours(split: Split, recommender: Recommender, by: str) -> dict[str, Any]:
    """Return what one of our rankings is worth."""
    users, known = users_of(split, "test"), known_in(split, "test")
    own = recommender.posterior if by == "rating" else ProductRanker(recommender, by, horizon_of(split))
    started = time.perf_counter()
    lists = own.best_items(users, N, known)
    return {"alone": cell_of(*figures(lists, split, "test", users), time.perf_counter() - started)}


def cell_of(ndcg: np.ndarray, recall: np.ndarray, seconds: float) -> dict[str, Any]:
    """Return the figures of one ranking."""
    return {
        "ndcg": float(ndcg.mean()),
        "recall": float(recall.mean()),
        "seconds": seconds,
        "user_ndcg": np.round(ndcg, 6).tolist(),
    }


def ease(split: Split, what: str, posterior: Posterior) -> dict[str, Any]:
    """Return what EASE is worth alone, and times our P(rating > 3); its ridge is chosen on validation."""
    train = split.train
    values = np.ones(len(train), dtype=np.float32)
    keep = np.ones(len(train), dtype=bool)
    if what == "above 3":
        keep = train.ratings > ABOVE
    elif what == "graded":
        values = train.ratings.astype(np.float32)
    shape = train.n_users, train.n_items
    matrix = sparse.csr_matrix((values[keep], (train.users[keep], train.items[keep])), shape=shape)
    rated = RatedSets(matrix, np.arange(shape[0]))
    started = time.perf_counter()
    best: tuple[float, float, ItemRegression] | None = None
    users = users_of(split, "valid")
    for ridge in RIDGES:
        # Graded input has squares of ratings where the others have ones.
        own = ridge * (float((values**2).mean()) if what == "graded" else 1.0)
        head = ItemRegression.fit(rated, own)
        lists = by_score(lambda some, head=head: scores_of(head, matrix, some), split, "valid", users)
        value = float(figures(lists, split, "valid", users)[0].mean())
        if best is None or value > best[0]:
            best = value, own, head
    assert best is not None
    _, ridge, head = best
    users = users_of(split, "test")
    lists = by_score(lambda some: scores_of(head, matrix, some), split, "test", users)
    found: dict[str, Any] = {"ridge": ridge, "valid_ndcg": best[0]}
    found["alone"] = cell_of(*figures(lists, split, "test", users), time.perf_counter() - started)
    started = time.perf_counter()
    lists = times_liking(lambda some: scores_of(head, matrix, some), split, posterior, users)
    found["times liking"] = cell_of(*figures(lists, split, "test", users), time.perf_counter() - started)
    return found


def scores_of(head: ItemRegression, matrix: Any, users: np.ndarray) -> np.ndarray:
    """Return EASE's scores, but for rated items, which are no candidates."""
    return -np.asarray(matrix[users] @ head.inverse) / head.diagonal


def times_liking(
    score: Callable[[np.ndarray], np.ndarray], split: Split, posterior: Posterior, users: np.ndarray
) -> Lists:
    """Return lists by a score, at least 1e-6, times our P(rating > 3)."""
    levels = np.asarray(posterior.scale.levels)
    known = RatedSets.of(split.train_valid).matrix
    lists = np.empty((len(users), N), dtype=np.int64)
    for start in range(0, len(users), 64):
        own = users[start : start + 64]
        bounds = np.maximum(np.array(score(own), dtype=np.float64), 1e-6)
        entries = known[own].tocoo()
        bounds[entries.row, entries.col] = -np.inf

        def product(
            rows: np.ndarray, items: np.ndarray, own: np.ndarray = own, bounds: np.ndarray = bounds
        ) -> np.ndarray:
            liking = posterior.predict_pmf(own[rows], items, levels)[:, levels > ABOVE].sum(axis=1)
            return bounds[rows, items] * np.clip(liking, 0.0, 1.0)

        lists[start : start + 64] = best_bounded(bounds, product, N)[0]
    return lists


def popularity(split: Split) -> dict[str, Any]:
    """Return what popularity is worth."""
    users, started = users_of(split, "test"), time.perf_counter()
    counts = split.train.item_counts.astype(float)
    lists = by_score(lambda own: np.tile(counts, (len(own), 1)), split, "test", users)
    return {"alone": cell_of(*figures(lists, split, "test", users), time.perf_counter() - started)}


def of_peer(file: Path, split: Split, posterior: Posterior) -> dict[str, Any]:
    """Return what a peer's lists are worth, and its scores times our P(rating > 3) where they are kept."""
    users = users_of(split, "test")
    with np.load(file, allow_pickle=False) as content:
        lists = content["lists"][users]
        scores = content.get("scores")
    found = {"alone": cell_of(*figures(lists, split, "test", users), 0.0)}
    if scores is not None:
        started = time.perf_counter()
        lists = times_liking(lambda own: scores[own], split, posterior, users)
        seconds = time.perf_counter() - started
        found["times liking"] = cell_of(*figures(lists, split, "test", users), seconds)
    return found


def rankings(cells: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the rankings of one seed by name."""
    ways = ("alone", "times liking")
    return {
        name if how == "alone" else f"{name}, {how}": cell[how]
        for name, cell in cells.items()
        for how in ways
        if how in cell
    }


def summary(by_seed: dict[str, Any], draws: int = 2000) -> dict[str, Any]:
    """Return means over seeds, and ours by liked less each other, bootstrapped by user across seeds."""
    seeds = {seed: (rankings(one["cells"]), np.array(one["users"])) for seed, one in by_seed.items()}
    names = [name for name in next(iter(seeds.values()))[0] if all(name in one for one, _ in seeds.values())]
    n_users = max(int(users.max()) for _, users in seeds.values()) + 1
    rng = np.random.default_rng(0)
    weights = np.stack(
        [np.bincount(rng.integers(n_users, size=n_users), minlength=n_users) for _ in range(draws)]
    )
    result: dict[str, Any] = {}
    for name in names:
        means = {k: float(np.mean([one[name][k] for one, _ in seeds.values()])) for k in ("ndcg", "recall")}
        row: dict[str, Any] = means | {"by_seed": {s: one[name]["ndcg"] for s, (one, _) in seeds.items()}}
        if name != "ours by liked" and "ours by liked" in names:
            drawn, plain = np.zeros(draws), 0.0
            for one, users in seeds.values():
                gap = np.array(one[name]["user_ndcg"]) - np.array(one["ours by liked"]["user_ndcg"])
                own = weights[:, users]
                drawn += own @ gap / own.sum(axis=1) / len(seeds)
                plain += gap.mean() / len(seeds)
            row["less ours"] = {
                "difference": float(plain),
                "upper_95": float(np.quantile(drawn, 0.95)),
                "low": float(np.quantile(drawn, 0.025)),
                "high": float(np.quantile(drawn, 0.975)),
            }
        result[name] = row
    return result


def without_users(content: Any) -> Any:
    """Return results without the values of single users, which stay in the cache."""
    if isinstance(content, dict):
        return {k: without_users(v) for k, v in content.items() if k not in ("user_ndcg", "users", "sha256")}
    return content


def main() -> None:
    """Run the cells that are missing, and print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="default", help="Of the posterior.")
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=FILE", help="Lists of another system."
    )
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "pyro-bmf-ranking")
    parser.add_argument("--out", type=Path, help="[default: benchmarks/results/ranking_DATA_PRESET.json]")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.out or RESULTS / f"ranking_{options.data}_{options.preset}.json"
    kept = options.cache / f"ranking-{options.data}-{options.preset}.json"
    content: dict[str, Any] = {"data": options.data, "preset": options.preset, "seeds": {}}
    if kept.exists():
        content = json.loads(kept.read_text(encoding="utf-8"))
    ratings = load_ratings(options.data)
    for seed in options.seeds:
        split = random_split(ratings, seed=seed)
        users = users_of(split, "test")
        own = content["seeds"].setdefault(
            str(seed), {"split_hash": split.hash, "users": users.tolist(), "cells": {}}
        )
        cells = own["cells"]
        for name in options.cells:
            if name in cells:
                continue
            print(options.data, seed, name, flush=True)
            if name == "popularity":
                cells[name] = popularity(split)
            else:
                posterior, seconds = posterior_of(options.data, split, options.preset, seed, options.cache)
                own.setdefault("posterior_seconds", seconds)
                if name == "calibration" or name.startswith("ours"):
                    where = (options.preset, seed, options.cache, own)
                    recommender = recommender_of(options.data, split, posterior, *where)
                    if name == "calibration":
                        product = recommender.product(horizon=horizon_of(split))
                        cells[name] = liked_calibration(product, split).to_dict()
                    else:
                        cells[name] = ours(split, recommender, name.removeprefix("ours by "))
                else:
                    cells[name] = ease(split, name.removeprefix("ease "), posterior)
            options.cache.mkdir(parents=True, exist_ok=True)
            write_json(kept, content)
        for peer in options.peer:
            name, _, file = peer.partition("=")
            path = Path(file.format(seed=seed))
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if cells.get(name, {}).get("sha256") != digest:
                print(options.data, seed, name, flush=True)
                posterior, _ = posterior_of(options.data, split, options.preset, seed, options.cache)
                cells[name] = of_peer(path, split, posterior) | {"sha256": digest}
                write_json(kept, content)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, one thread"
    content |= {"torch": torch.__version__, "machine": machine, "summary": summary(content["seeds"])}
    write_json(out, without_users(content))
    for name, row in content["summary"].items():
        less = row.get("less ours")
        gap = (
            ""
            if less is None
            else f"  less ours {less['difference']:+.4f} (upper 95 % {less['upper_95']:+.4f})"
        )
        print(f"{name:32s} NDCG@20 {row['ndcg']:.4f}  Recall@20 {row['recall']:.4f}{gap}")


if __name__ == "__main__":
    main()
