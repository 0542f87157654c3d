r"""Scores of all pairs by RecBole's networks, for `benchmarks/rankers.py`; runs in the environment `recbole`.

    python recbole_scores.py --split splits/ml100k-0 --peer LightGCN --out scores

Each is trained for all epochs of `ranker_settings.py` with the settings there. The epoch is kept which has
the best RMSE on validation, of networks that predict ratings, or else the best NDCG@20 of what was rated
there over all items that are not in train; our own networks keep theirs by the same figures. Test ratings are
not read.

NAME-SEED.npz gets `scores` (n_users, n_items), and `about`: JSON of settings, curve, epoch, seconds and
versions.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import ranking_lists
import split_arrays
import torch
from ranker_settings import EPOCHS, RATING, SETTINGS
from recbole_fits import PEERS, fit


def higher_is_better(split: split_arrays.SplitArrays, rates: bool) -> Any:
    """Return how scores are measured on validation."""
    known, valid = ranking_lists.known_of(split, "valid"), split.valid

    def rmse(scores: Any) -> float:
        return -float(np.sqrt(np.mean((scores[valid.users, valid.items] - valid.ratings) ** 2)))

    def ndcg(scores: Any) -> float:
        return ranking_lists.valid_ndcg(
            ranking_lists.lists_of(scores, known), split, above=-np.inf, at_least=1
        )

    return rmse if rates else ndcg


def main() -> None:
    """Fit the peers that were named, in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--split", type=Path, required=True, help="A folder by `pyro-bmf data split`.")
    parser.add_argument("--peer", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seed", type=int, default=0, help="Of the fit.")
    parser.add_argument("--out", type=Path, required=True, help="Folder of the scores.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    split = split_arrays.read(options.split)
    for name in options.peer:
        ours = PEERS[name][0]
        found = fit(
            name, split, SETTINGS[ours], EPOCHS, higher_is_better(split, ours in RATING), options.seed
        )
        scores = found.pop("scores")
        about = found | {"peer": name, "ours": ours, "seed": options.seed}
        about |= {"settings": SETTINGS[ours], "epochs": EPOCHS, "split_hash": split.hash}
        about["versions"] = {package: version(package) for package in ("recbole", "torch")}
        file = options.out / f"{name}-{options.seed}.npz".replace(" ", "-")
        np.savez(file, scores=scores.astype(np.float32), about=json.dumps(about))
        print(
            f"{name}: epoch {found['epoch']}, {max(found['curve']):.4f}, {found['seconds']:.0f} s", flush=True
        )


if __name__ == "__main__":
    main()
