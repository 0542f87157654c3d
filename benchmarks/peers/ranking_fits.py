"""Kept libraries' rankers: each is fitted to a sparse matrix of weights and returns scores of all items.

A fit takes (n_users, n_items) weights of the train part, settings and a seed, and returns a function from an
array of users to their (users, n_items) scores, larger is better. Libraries are imported when they are used.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Score = Callable[[Any], Any]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A ranker: how it is fitted, how settings are drawn, the package, and whether it reads weights."""

    fit: Callable[[Any, Settings, int], Score]
    draw: Callable[[np.random.Generator], Settings]
    package: str
    reads_weights: bool


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a value uniform in its logarithm, of three digits."""
    return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.3g}")


def one_of(rng: np.random.Generator, values: list[Any]) -> Any:
    """Draw one of the values."""
    return values[int(rng.integers(len(values)))]


def draw_als(rng: np.random.Generator) -> Settings:
    """Draw settings of implicit ALS."""
    return {
        "factors": one_of(rng, [16, 32, 64, 96, 128]),
        "penalty": log_uniform(rng, 1.0, 1000.0),
        "alpha": log_uniform(rng, 1.0, 40.0),
        "sweeps": one_of(rng, [10, 20, 30]),
    }


def als_model(weights: Any, settings: Settings, seed: int) -> Any:
    """Fit implicit's ALS, whose confidences are alpha times the weights, and return the library's model."""
    from implicit.cpu.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=settings["factors"],
        regularization=settings["penalty"],
        alpha=settings["alpha"],
        iterations=settings["sweeps"],
        num_threads=1,
        random_state=seed,
    )
    model.fit(weights.astype(np.float32), show_progress=False)
    return model


def fit_als(weights: Any, settings: Settings, seed: int) -> Score:
    """Fit implicit's ALS."""
    model = als_model(weights, settings, seed)
    return lambda users: model.user_factors[users] @ model.item_factors.T


def draw_ease(rng: np.random.Generator) -> Settings:
    """Draw settings of EASE."""
    return {"ridge": log_uniform(rng, 50.0, 3000.0), "positive": one_of(rng, [False, True])}


def fit_ease(weights: Any, settings: Settings, seed: int) -> Score:
    """Fit Cornac's EASE."""
    from cornac.models import EASE

    model = EASE(lamb=settings["ridge"], posB=settings["positive"], seed=seed, verbose=False)
    model.fit(cornac_data(weights, seed))
    return lambda users: weights[users] @ model.B


def draw_slim(rng: np.random.Generator) -> Settings:
    """Draw settings of SLIM."""
    return {"l1": log_uniform(rng, 0.1, 20.0), "l2": log_uniform(rng, 1.0, 500.0)}


def fit_slim(weights: Any, settings: Settings, seed: int) -> Score:
    """Fit LensKit's SLIM, which reads what was rated and no weights; it draws nothing."""
    os.environ |= {f"LK_NUM_{what}": "1" for what in ("PROCS", "THREADS", "BACKEND_THREADS")}
    import pandas as pd
    from lenskit.data import from_interactions_df
    from lenskit.knn.slim import SLIMScorer
    from lenskit.training import TrainingOptions

    entries = weights.tocoo()
    pairs = pd.DataFrame({"user_id": entries.row, "item_id": entries.col})
    model = SLIMScorer(l1_reg=settings["l1"], l2_reg=settings["l2"], max_iters=50)
    model.train(from_interactions_df(pairs), TrainingOptions(rng=seed))
    known = np.asarray(model.items.ids())

    def score(users: Any) -> Any:
        scores = np.zeros((len(users), weights.shape[1]))
        scores[:, known] = ((weights[users][:, known] != 0).astype(np.float64) @ model.weights).toarray()
        return scores

    return score


def draw_mult_vae(rng: np.random.Generator) -> Settings:
    """Draw settings of Mult-VAE."""
    return {
        "factors": one_of(rng, [32, 64, 128]),
        "units": one_of(rng, [100, 200, 400]),
        "beta": float(f"{rng.uniform(0.0, 1.0):.2f}"),
        "rate": one_of(rng, [0.0005, 0.001, 0.002]),
        "epochs": one_of(rng, [20, 40, 80, 120]),
    }


def fit_mult_vae(weights: Any, settings: Settings, seed: int) -> Score:
    """Fit Cornac's VAECF with the multinomial likelihood; it reads what was rated and no weights."""
    import torch
    from cornac.models import VAECF

    torch.set_num_threads(1)
    model = VAECF(
        k=settings["factors"],
        autoencoder_structure=[settings["units"]],
        likelihood="mult",
        n_epochs=settings["epochs"],
        batch_size=100,
        learning_rate=settings["rate"],
        beta=settings["beta"],
        seed=seed,
    )
    model.fit(cornac_data(weights, seed))

    def score(users: Any) -> Any:
        rated = torch.tensor((weights[users] != 0).toarray(), dtype=torch.float32)
        with torch.no_grad():
            return model.vae.decode(model.vae.encode(rated)[0]).numpy()

    return score


def draw_rec_vae(rng: np.random.Generator) -> Settings:
    """Draw settings of RecVAE."""
    return {
        "units": one_of(rng, [100, 200, 400]),
        "factors": one_of(rng, [50, 100, 200]),
        "gamma": log_uniform(rng, 0.001, 0.05),
        "rate": one_of(rng, [0.0005, 0.001, 0.002]),
        "epochs": one_of(rng, [10, 20, 40]),
    }


def fit_rec_vae(weights: Any, settings: Settings, seed: int) -> Score:
    """Fit Cornac's RecVAE, and score without dropout, which its own `score` leaves on."""
    import cornac.eval_methods
    import torch
    from cornac.models import RecVAE

    torch.set_num_threads(1)
    model = RecVAE(
        hidden_dim=settings["units"],
        latent_dim=settings["factors"],
        batch_size=200,
        gamma=settings["gamma"],
        lr=settings["rate"],
        n_epochs=settings["epochs"],
        seed=seed,
        use_gpu=False,
    )
    # After each epoch it ranks the train part, for its progress bar alone, which takes longer than the epoch.
    measured, cornac.eval_methods.ranking_eval = cornac.eval_methods.ranking_eval, lambda **_: ([0.0], None)
    try:
        model.fit(cornac_data(weights, seed))
    finally:
        cornac.eval_methods.ranking_eval = measured
    model.recvae_model.eval()

    def score(users: Any) -> Any:
        own = torch.tensor(weights[users].toarray(), dtype=torch.float32)
        with torch.no_grad():
            return torch.softmax(model.recvae_model(own, calculate_loss=False), dim=1).numpy()

    return score


def cornac_data(weights: Any, seed: int) -> Any:
    """Return weights as Cornac's data set, every row named so that its indices are ours."""
    from cornac.data import Dataset

    entries = weights.tocoo()
    users, items = ({number: number for number in range(size)} for size in weights.shape)
    triples = list(zip(entries.row.tolist(), entries.col.tolist(), entries.data.tolist(), strict=True))
    return Dataset.build(triples, global_uid_map=users, global_iid_map=items, seed=seed)


PEERS = {
    "implicit ALS": Peer(fit_als, draw_als, "implicit", reads_weights=True),
    "Cornac EASE": Peer(fit_ease, draw_ease, "cornac", reads_weights=True),
    "SLIM": Peer(fit_slim, draw_slim, "lenskit", reads_weights=False),
    "Mult-VAE": Peer(fit_mult_vae, draw_mult_vae, "cornac", reads_weights=False),
    "RecVAE": Peer(fit_rec_vae, draw_rec_vae, "cornac", reads_weights=True),
}
