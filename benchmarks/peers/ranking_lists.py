r"""Lists of 20 by kept libraries' rankers, for `benchmarks/ranking.py`; runs in the environment `ranking`.

    python ranking_lists.py --split 'splits/ml100k-{seed}' --peers "implicit ALS" SLIM --lists FOLDER \
        --results ../results/ranking_peers_ml100k.json

Each peer is fitted to what was rated ("rated"), to ratings above 3 ("above 3") and, where the library reads
weights, to ratings over their mean ("graded"). Settings are drawn at random, the same for all inputs and
seeds, and those with the best NDCG@20 on validation are chosen, under protocol `full`: all items that are not
in train are candidates. The lists for test are of the fit to train with the settings chosen; items of train
and validation are no candidates. What is finished is kept, so that an interrupted run goes on.

The lists go to FOLDER/PEER-INPUT-SEED.npz, spaces as hyphens, as `lists` (n_users, 20), -1 where there are no
more candidates, and `scores` (n_users, n_items). Test ratings are read by `benchmarks/ranking.py` alone.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import split_arrays
from ranking_fits import PEERS, Peer, Score, Settings
from scipy import sparse

N, ABOVE = 20, 3.0
INPUTS = ("rated", "above 3", "graded")
CHUNK = 500


def weights_of(split: split_arrays.SplitArrays, what: str) -> Any:
    """Return what a peer is fitted to: (n_users, n_items) weights of the train part."""
    train = split.train
    keep = train.ratings > ABOVE if what == "above 3" else np.ones(len(train.ratings), dtype=bool)
    values = np.ones(len(train.ratings))
    if what == "graded":
        values = train.ratings / train.ratings.mean()
    shape = split.n_users, split.n_items
    return sparse.csr_matrix((values[keep], (train.users[keep], train.items[keep])), shape=shape)


def known_of(split: split_arrays.SplitArrays, part: str) -> Any:
    """Return the pairs that are no candidates when a part is measured: (n_users, n_items), 1 where known."""
    parts = [split.train, split.valid] if part == "test" else [split.train]
    users, items = (np.concatenate([getattr(one, side) for one in parts]) for side in ("users", "items"))
    return sparse.csr_matrix((np.ones(len(users)), (users, items)), shape=(split.n_users, split.n_items))


def all_scores(score: Score, n_users: int) -> Any:
    """Return (n_users, n_items) scores; what is not finite, of a fit that diverged, is worst."""
    starts = range(0, n_users, CHUNK)
    rows = [np.asarray(score(np.arange(at, min(at + CHUNK, n_users))), dtype=np.float32) for at in starts]
    scores = np.concatenate(rows)
    return np.where(np.isfinite(scores), scores, np.finfo(np.float32).min)


def lists_of(scores: Any, known: Any) -> Any:
    """Return each user's best 20 of the items that are not known, ties by item index, -1 after the last."""
    lists = np.full((len(scores), N), -1, dtype=np.int64)
    for at in range(0, len(scores), CHUNK):
        own = np.array(scores[at : at + CHUNK])
        entries = known[at : at + CHUNK].tocoo()
        own[entries.row, entries.col] = -np.inf
        best = np.argsort(-own, axis=1, kind="stable")[:, :N]
        is_candidate = np.take_along_axis(own, best, axis=1) > -np.inf
        lists[at : at + CHUNK, : best.shape[1]] = np.where(is_candidate, best, -1)
    return lists


def valid_ndcg(lists: Any, split: split_arrays.SplitArrays, above: float = ABOVE, at_least: int = 2) -> float:
    """Return the mean NDCG@20 of users with `at_least` validation ratings, one of them above `above`."""
    valid = split.valid
    wanted_rows = valid.ratings > above
    pairs = valid.users[wanted_rows], valid.items[wanted_rows]
    wanted = sparse.csr_matrix((np.ones(wanted_rows.sum()), pairs), shape=(split.n_users, split.n_items))
    totals = np.bincount(pairs[0], minlength=split.n_users)
    counts = np.bincount(valid.users, minlength=split.n_users)
    users = np.flatnonzero((totals > 0) & (counts >= at_least))
    hits = np.take_along_axis(wanted[users].toarray(), np.maximum(lists[users], 0), axis=1)
    discounts = 1.0 / np.log2(np.arange(2, N + 2))
    best = np.cumsum(discounts)[np.minimum(totals[users], N) - 1]
    return float(np.mean((hits * (lists[users] >= 0)) @ discounts / best))


def draws_of(name: str, peer: Peer, n: int) -> list[Settings]:
    """Return the settings to try: the first of more are the same, whatever the input and the seed."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return [peer.draw(rng) for _ in range(n)]


def run(
    split: split_arrays.SplitArrays, name: str, what: str, seed: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Try what has not been tried, and write the lists of the best settings on validation."""
    peer, content = PEERS[name], read(options.results)
    own = content.setdefault("seeds", {}).setdefault(str(seed), {"split_hash": split.hash, "cells": {}})
    if own["split_hash"] != split.hash:
        raise SystemExit(f"{options.results} has seed {seed} of another split: choose another --results.")
    cell: dict[str, Any] = own["cells"].setdefault(f"{name} on {what}", {"trials": []})
    weights = weights_of(split, what)
    draws = draws_of(name, peer, options.trials)
    if options.chosen_on is not None and seed != options.chosen_on:
        tuned = content["seeds"].get(str(options.chosen_on), {}).get("cells", {}).get(f"{name} on {what}", {})
        if "chosen" not in tuned:
            raise SystemExit(
                f"{name} on {what} has no settings chosen on seed {options.chosen_on}: run it first."
            )
        draws = [tuned["chosen"]]
    for settings in draws:
        if any(trial["settings"] == settings for trial in cell["trials"]):
            continue
        started = time.perf_counter()
        lists = lists_of(
            all_scores(peer.fit(weights, settings, seed), split.n_users), known_of(split, "valid")
        )
        trial = {"settings": settings, "valid_ndcg": round(valid_ndcg(lists, split), 6)}
        trial["seconds"] = round(time.perf_counter() - started, 2)
        cell["trials"].append(trial)
        write(options.results, content)
    tried = [trial for trial in cell["trials"] if trial["settings"] in draws]
    best = max(tried, key=lambda trial: trial["valid_ndcg"])
    file = options.lists / f"{name}-{what}-{seed}.npz".replace(" ", "-")
    if cell.get("chosen") != best["settings"] or not file.exists():
        started = time.perf_counter()
        scores = all_scores(peer.fit(weights, best["settings"], seed), split.n_users)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp.npz")
        np.savez(temporary, lists=lists_of(scores, known_of(split, "test")), scores=scores)
        temporary.replace(file)
        cell |= {"chosen": best["settings"], "valid_ndcg": best["valid_ndcg"], "n_trials": len(tried)}
        cell |= {"fit_seconds": round(time.perf_counter() - started, 2)}
        cell |= {"package": f"{peer.package} {version(peer.package)}"}
    cell["n_trials"] = len(tried)
    write(options.results, content)
    return cell


def read(file: Path) -> dict[str, Any]:
    """Return the results so far."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return content


def write(file: Path, content: dict[str, Any]) -> None:
    """Write the results whole or not at all."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)


def main() -> None:
    """Run peers, inputs and seeds in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--split", required=True, help="A folder by `pyro-bmf data split`, {seed} in its name."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--lists", type=Path, required=True, help="Folder of the lists.")
    parser.add_argument("--results", type=Path, required=True, help="JSON of trials and of what was chosen.")
    parser.add_argument(
        "--chosen-on", type=int, metavar="SEED", help="Take the settings chosen on this seed for the others."
    )
    options = parser.parse_args()
    for seed in options.seeds:
        split = split_arrays.read(Path(options.split.format(seed=seed)))
        for name in options.peers:
            for what in options.inputs:
                if what == "graded" and not PEERS[name].reads_weights:
                    print(f"{name} reads no weights: not run on graded input", flush=True)
                    continue
                cell = run(split, name, what, seed, options)
                print(
                    f"seed {seed}, {name} on {what}: valid NDCG@{N} {cell['valid_ndcg']:.4f} of "
                    f"{cell['n_trials']} trials, {cell['chosen']}, {cell['fit_seconds']} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
