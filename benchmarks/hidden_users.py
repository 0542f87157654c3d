r"""Rankings for users who came after the fit: half of their ratings is given, the other half is wanted.

    python benchmarks/hidden_users.py --data ml100k --seeds 0 1 2 --write hidden
    python benchmarks/peers/hidden_lists.py --folder hidden --seeds 0 1 2
    python benchmarks/hidden_users.py --data ml100k --seeds 0 1 2 \
        --peer 'implicit ALS=hidden/als-{what}-{seed}.npz' --out benchmarks/results/hidden_users_ml100k.json

A tenth of the users is hidden for the test, another tenth for what peers choose by, and all systems are
fitted to the ratings of the rest. Of each hidden user half of the ratings, drawn at random, is given; all
other items are candidates, and wanted are those of the other half that were rated above 3. NDCG and Recall at
20 are means over hidden users with at least one wanted item. Ours are the lists of `fold_in_users`: by liked,
chosen and rating. EASE takes the new row of what was given times its weights, its ridge chosen by NDCG@20 of
the users hidden for that; popularity counts. Peers by other libraries give files of lists, made from what
`--write` leaves in a folder, in which the test users' other halves are not. Intervals of differences are by a
bootstrap over the hidden users, once for all seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from pyro_bmf.data import Ratings, Split, load_ratings
from pyro_bmf.evaluation.metrics import ndcg_at, recall_at
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.numerics.top_n import top_n
from pyro_bmf.selection import Recommender, fit_selection
from pyro_bmf.selection.item_regression import ItemRegression
from pyro_bmf.selection.rated_sets import RatedSets

N, ABOVE = 20, 3.0
RIDGES = (50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
INPUTS = ("rated", "above 3", "graded")
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Hidden:
    """Users who are hidden.

    Attributes
    ----------
    users : ndarray
        Their indices, ascending.
    given, wanted : ndarray
        Rows of the ratings: the half that is given, and the other one.
    """

    users: Indices
    given: Indices
    wanted: Indices


def hide(ratings: Ratings, seed: int) -> tuple[Indices, Hidden, Hidden]:
    """Return the rows that are fitted to, and the users hidden for choosing and for the test."""
    rng = np.random.default_rng([seed, 0x41D])
    users = rng.permutation(ratings.n_users)
    tenth = round(0.1 * ratings.n_users)
    part = np.zeros(ratings.n_users, dtype=np.int64)
    part[users[:tenth]], part[users[tenth : 2 * tenth]] = 2, 1
    of = part[ratings.users]
    first = rng.random(len(ratings))
    found = []
    for which in (1, 2):
        own = np.flatnonzero(of == which)
        own = own[np.lexsort((first[own], ratings.users[own]))]
        counts = np.bincount(ratings.users[own], minlength=ratings.n_users)
        starts = np.concatenate([[0], np.cumsum(counts)])
        place = np.arange(len(own)) - starts[ratings.users[own]]
        given = place < counts[ratings.users[own]] // 2
        found.append(Hidden(np.flatnonzero(part == which), np.sort(own[given]), np.sort(own[~given])))
    return np.flatnonzero(of == 0), found[0], found[1]


def matrix_of(ratings: Ratings, rows: Indices, what: str = "rated") -> Any:
    """Return (n_users, n_items) weights of some ratings."""
    values = ratings.ratings[rows]
    keep = values > ABOVE if what == "above 3" else np.ones(len(rows), dtype=bool)
    weights = values if what == "graded" else np.ones(len(rows))
    pairs = ratings.users[rows][keep], ratings.items[rows][keep]
    return sparse.csr_matrix((weights[keep], pairs), shape=(ratings.n_users, ratings.n_items))


def figures(lists: Indices, ratings: Ratings, hidden: Hidden) -> tuple[np.ndarray, np.ndarray]:
    """Return NDCG@20 and Recall@20 of each hidden user, NaN where nothing is wanted."""
    wanted = matrix_of(ratings, hidden.wanted, "above 3")[hidden.users].toarray() > 0
    totals = wanted.sum(1)
    hits = np.take_along_axis(wanted, np.maximum(lists, 0), 1) & (lists >= 0)
    some = totals > 0
    ndcg, recall = np.full(len(totals), np.nan), np.full(len(totals), np.nan)
    ndcg[some], recall[some] = ndcg_at(hits[some], totals[some], N), recall_at(hits[some], totals[some], N)
    return ndcg, recall


def best(scores: np.ndarray, ratings: Ratings, hidden: Hidden) -> Indices:
    """Return the best 20 items of hidden users that were not given."""
    own = np.array(scores, dtype=np.float64)
    entries = matrix_of(ratings, hidden.given)[hidden.users].tocoo()
    own[entries.row, entries.col] = -np.inf
    return top_n(own, N)


def ease(ratings: Ratings, fitted: Indices, chosen_by: Hidden, test: Hidden, what: str) -> dict[str, Any]:
    """Return the test users' lists by EASE, its ridge chosen by the users hidden for that."""
    matrix = matrix_of(ratings, fitted, what)
    visible = np.unique(ratings.users[fitted])
    tried: list[tuple[float, float, Any]] = []
    for ridge in RIDGES:
        own = ridge * (float((ratings.ratings[fitted] ** 2).mean()) if what == "graded" else 1.0)
        head = ItemRegression.fit(RatedSets(matrix[visible], np.arange(len(visible))), own)

        def scores(hidden: Hidden, head: ItemRegression = head) -> np.ndarray:
            given = matrix_of(ratings, hidden.given, what)[hidden.users]
            return -np.asarray(given @ head.inverse) / head.diagonal

        ndcg, _ = figures(best(scores(chosen_by), ratings, chosen_by), ratings, chosen_by)
        tried.append((float(np.nanmean(ndcg)), own, scores(test)))
    value, ridge, scored = max(tried, key=lambda one: one[0])
    return {"lists": best(scored, ratings, test), "ridge": ridge, "valid_ndcg": value}


def ours(ratings: Ratings, fitted: Indices, test: Hidden, name: str, seed: int) -> dict[str, Indices]:
    """Return the hidden users' lists by `fold_in_users`, by what ranks them."""
    nothing = np.zeros(0, dtype=np.int64)
    split = Split(ratings, fitted, nothing, test.wanted, "hidden users", {"seed": seed})
    posterior = fit(split, preset(name).replace(seed=seed), threads=1, progress=False).posterior
    recommender = Recommender(posterior, fit_selection(split, seed=seed, posterior=posterior), ABOVE)
    vocabulary = ratings.user_vocabulary.raw(np.arange(ratings.n_users))
    items = ratings.item_vocabulary.raw(np.arange(ratings.n_items))
    given: dict[Any, dict[Any, float]] = {vocabulary[user]: {} for user in test.users}
    for row in test.given:
        given[vocabulary[ratings.users[row]]][items[ratings.items[row]]] = float(ratings.ratings[row])
    new = recommender.fold_in_users(given)
    place = {user: at for at, user in enumerate(vocabulary[test.users])}
    found = {}
    for by in ("liked", "chosen", "rating"):
        table = new.recommend(n=N, by=by)
        lists = np.full((len(test.users), N), -1, dtype=np.int64)
        rows = table["user_id"].map(place).to_numpy()
        lists[rows, table["rank"].to_numpy() - 1] = ratings.item_vocabulary.index(table["item_id"])
        found[by] = lists
    return found


def write_parts(folder: Path, ratings: Ratings, seed: int) -> None:
    """Write what a peer may know: fitted pairs, both halves of the choosing users, one of the test users."""
    fitted, chosen_by, test = hide(ratings, seed)
    content: dict[str, Any] = {"shape": np.array([ratings.n_users, ratings.n_items])}
    rows = {"fitted": fitted, "given": chosen_by.given, "wanted": chosen_by.wanted, "test": test.given}
    for name, own in rows.items():
        content |= {
            f"{name}_users": ratings.users[own],
            f"{name}_items": ratings.items[own],
            f"{name}_ratings": ratings.ratings[own],
        }
    content |= {"chosen_by": chosen_by.users, "test": test.users}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"parts-{seed}.npz", **content)


def summary(by_seed: dict[int, dict[str, np.ndarray]], users: dict[int, Indices]) -> dict[str, Any]:
    """Return means over seeds, and each less ours by liked with its interval."""
    rng, draws = np.random.default_rng(0), 2000
    n_users = max(int(own.max()) for own in users.values()) + 1
    weights = np.stack(
        [np.bincount(rng.integers(n_users, size=n_users), minlength=n_users) for _ in range(draws)]
    )
    found: dict[str, Any] = {}
    for name in next(iter(by_seed.values())):
        drawn, means, less = np.zeros(draws), [], []
        for seed, cells in by_seed.items():
            own, reference = cells[name], cells["ours by liked"]
            some = np.isfinite(own)
            gap, weight = own[some] - reference[some], weights[:, users[seed][some]]
            drawn += weight @ gap / weight.sum(1) / len(by_seed)
            means.append(float(own[some].mean()))
            less.append(float(gap.mean()))
        found[name] = {
            "ndcg": float(np.mean(means)),
            "by_seed": means,
            "less_ours": float(np.mean(less)),
            "interval": [float(np.quantile(drawn, q)) for q in (0.025, 0.975)],
            "upper_95": float(np.quantile(drawn, 0.95)),
        }
    return found


def main() -> None:
    """Write the peers' parts, or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--preset", default="guide", help="Of the posterior.")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="Write what peers may know, and end.")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME=FILE", help="Lists; {what} and {seed} in FILE."
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ratings = load_ratings(options.data)
    if options.write is not None:
        for seed in options.seeds:
            write_parts(options.write, ratings, seed)
        return
    if options.out is None:
        parser.error("give --out FILE, or --write FOLDER for peers.")
    torch.set_num_threads(1)
    cells: dict[int, dict[str, np.ndarray]] = {}
    recalls: dict[int, dict[str, float]] = {}
    users, notes = {}, {}
    for seed in options.seeds:
        fitted, chosen_by, test = hide(ratings, seed)
        started = time.perf_counter()
        lists = {
            f"ours by {by}": one for by, one in ours(ratings, fitted, test, options.preset, seed).items()
        }
        notes[seed] = {"ours_seconds": time.perf_counter() - started}
        counts = np.bincount(ratings.items[fitted], minlength=ratings.n_items).astype(float)
        lists["popularity"] = best(np.tile(counts, (len(test.users), 1)), ratings, test)
        for what in INPUTS:
            found = ease(ratings, fitted, chosen_by, test, what)
            lists[f"EASE on {what}"] = found.pop("lists")
            notes[seed][f"EASE on {what}"] = found
        for peer in options.peer:
            name, _, file = peer.partition("=")
            for what in INPUTS:
                path = Path(file.format(what=what.replace(" ", "-"), seed=seed))
                with np.load(path, allow_pickle=False) as content:
                    lists[f"{name} on {what}"] = content["lists"]
                    notes[seed][f"{name} on {what}"] = json.loads(str(content["chosen"]))
        measured = {name: figures(own, ratings, test) for name, own in lists.items()}
        cells[seed] = {name: ndcg for name, (ndcg, _) in measured.items()}
        recalls[seed] = {name: float(np.nanmean(recall)) for name, (_, recall) in measured.items()}
        users[seed] = test.users
        print(seed, {name: round(float(np.nanmean(own)), 4) for name, own in cells[seed].items()}, flush=True)
    content = {
        "data": options.data,
        "preset": options.preset,
        "seeds": options.seeds,
        "summary": summary(cells, users),
        "recall": {name: float(np.mean([one[name] for one in recalls.values()])) for name in recalls[seed]},
        "notes": {str(seed): note for seed, note in notes.items()},
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
    }
    write_json(options.out, content)
    for name, row in sorted(content["summary"].items(), key=lambda item: -item[1]["ndcg"]):
        print(f"{name:26s} NDCG@20 {row['ndcg']:.4f}  less ours {row['less_ours']:+.4f} {row['interval']}")


if __name__ == "__main__":
    main()
