"""What both sides of `benchmarks/rankers.py` are fitted with, by the name of our system; imports nothing."""

from __future__ import annotations

from typing import Any

#: Epochs of every fit; the one with the best validation figure is kept, on both sides.
EPOCHS = 60

#: In our settings' words.
SETTINGS: dict[str, dict[str, Any]] = {
    "lightgcn": {"n_factors": 64, "n_layers": 3, "l2": 1e-4, "learning_rate": 0.01, "batch_size": 2048},
    "ngcf": {
        "n_factors": 64, "n_layers": 2, "dropout": 0.1, "l2": 0.0, "learning_rate": 2e-3, "batch_size": 2048,
    },
    "cdae": {
        "n_factors": 64, "dropout": 0.2, "n_negatives": 5, "l2": 0.0, "learning_rate": 0.01, "batch_size": 25,
    },
    "vae-cf": {
        "n_factors": 50, "n_layers": 1, "n_units": 200, "dropout": 0.5, "beta": 0.01, "anneal_iterations": 20,
        "learning_rate": 1e-3, "batch_size": 50,
    },
    "dae-cf": {
        "n_factors": 50, "n_layers": 1, "n_units": 200, "dropout": 0.5, "l2": 0.0,
        "learning_rate": 1e-3, "batch_size": 50,
    },
    "ncf": {
        "n_factors": 25, "n_layers": 2, "n_units": 50, "l2": 0.0, "learning_rate": 1e-3, "batch_size": 1000,
    },
}  # fmt: skip

#: Those that predict ratings: validation RMSE chooses their epoch, and NDCG@20 that of the others.
RATING = ("vae-cf", "dae-cf", "ncf")
