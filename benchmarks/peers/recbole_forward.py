r"""What RecBole's networks give from given weights, for `tests/baselines/test_rankers_of_recbole.py`.

    python recbole_forward.py --out ../../tests/fixtures/recbole_forward.json

Eight users and ten items, some of them in no pair. The file gets the pairs with their ratings, and of each
network its weights, the scores of all pairs without dropout, and of the two graph networks the loss of three
triples.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole_fits import Made, build, scores_of
from split_arrays import Part, SplitArrays

N_USERS, N_ITEMS, WIDTH, UNITS = 8, 10, 3, 4
USERS, ITEMS = [0, 0, 0, 1, 1, 2, 3, 3, 3, 4], [0, 2, 5, 1, 2, 0, 3, 4, 5, 1]
RATINGS = [5.0, 3.0, 1.0, 4.0, 2.0, 5.0, 3.0, 4.0, 1.0, 2.0]
#: (user, item that is above, item that is below).
TRIPLES = [[0, 2, 4], [3, 3, 1], [4, 1, 0]]
GRAPH = {"n_factors": WIDTH, "n_layers": 2, "l2": 0.1, "learning_rate": 0.01, "batch_size": 4}
ROWS = {"n_factors": WIDTH, "n_layers": 1, "n_units": UNITS, "dropout": 0.5} | {
    "learning_rate": 0.01, "batch_size": 4,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "LightGCN": GRAPH,
    # Its L2 term is of what pairs are scored by, not of their embeddings: another one than ours.
    "NGCF": GRAPH | {"l2": 0.0},
    "NGCF without norms": GRAPH | {"l2": 0.0},
    "CDAE": {"n_factors": WIDTH, "dropout": 0.5, "l2": 0.0, "learning_rate": 0.01, "batch_size": 4},
    "MultiVAE": ROWS | {"beta": 0.01, "anneal_iterations": 5},
    "MultiDAE": ROWS,
    "NeuMF": {"n_factors": WIDTH, "n_layers": 2, "n_units": UNITS, "learning_rate": 0.01, "batch_size": 4},
}


def set_weights(made: Made) -> dict[str, Any]:
    """Give a network weights that follow from their names' order; return them by our users and items."""
    weights = {}
    for number, (name, weight) in enumerate(made.model.named_parameters()):
        values = 0.6 * np.sin(np.arange(weight.numel()) * (0.7 + 0.13 * number) + number)
        # Biases of NGCF's layers, which ours has not.
        values = np.zeros_like(values) if name.startswith("GNNlayers") and name.endswith("bias") else values
        with torch.no_grad():
            weight.copy_(torch.as_tensor(values, dtype=weight.dtype).view(weight.shape))
        own = weight.detach()
        # The library's first user and item stand for none.
        for axis, size in enumerate(own.shape):
            places = {N_USERS + 1: made.users, N_ITEMS + 1: made.items}.get(size)
            own = own if places is None else own.index_select(axis, places)
        weights[name] = own.tolist()
    return weights


def case(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what a network gives."""
    part = Part(np.array(USERS), np.array(ITEMS), np.array(RATINGS))
    split = SplitArrays("tiny", "", N_USERS, N_ITEMS, np.arange(1.0, 6.0), part, part, part)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        made = build(name, split, settings, 1, folder)
        found: dict[str, Any] = {"settings": settings, "weights": set_weights(made)}
        made.model.eval()
        found["scores"] = scores_of(made).tolist()
        if settings.keys() == GRAPH.keys():
            users, above, below = (torch.tensor(column) for column in zip(*TRIPLES, strict=True))
            names = made.model.USER_ID, made.model.ITEM_ID, made.model.NEG_ITEM_ID
            sides = made.users[users], made.items[above], made.items[below]
            found["loss"] = made.model.calculate_loss(dict(zip(names, sides, strict=True))).item()
    return found


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out = options.out.absolute()
    torch.set_default_dtype(torch.float32)
    content: dict[str, Any] = {
        "recbole": version("recbole"),
        "users": USERS,
        "items": ITEMS,
        "ratings": RATINGS,
    }
    content |= {"n_users": N_USERS, "n_items": N_ITEMS, "triples": TRIPLES}
    content["cases"] = {name: case(name, settings) for name, settings in CASES.items()}
    out.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
