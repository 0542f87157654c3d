"""Simulation-based calibration: truths drawn from the prior must be uniform among a posterior's draws.

    python benchmarks/sbc.py --guide gibbs --refits 100 --out benchmarks/results/sbc_gibbs.json
    python benchmarks/sbc.py --guide conjugate --refits 100 --out benchmarks/results/sbc_conjugate.json
    python benchmarks/sbc.py --guide amortized --refits 30 --out benchmarks/results/sbc_amortized.json

Each refit draws factors, biases and ratings from the model (by Pyro), fits the guide to the ratings, and
ranks the true u.v of pairs and the true biases among the posterior's draws: raw factors have no identity.
Reported are, for each kind of quantity, the Kolmogorov-Smirnov distance of the ranks from uniform with its
p-value, and the share of truths inside the central 90 % of the draws. A finished refit is kept in the
file, so an interrupted run goes on. Talts et al. (2018), arXiv 1804.06788.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyro.poutine as poutine
import torch
from scipy import stats

from pyro_bmf.data import Ratings, Split, ratings_from_arrays
from pyro_bmf.data.blocks import Block
from pyro_bmf.data.feedback import Feedback
from pyro_bmf.files import write_json
from pyro_bmf.inference import fit, preset
from pyro_bmf.inference.coordinate_ascent import CoordinateAscent
from pyro_bmf.inference.polish import Chain
from pyro_bmf.inference.progress import Silent
from pyro_bmf.inference.settings import GibbsSettings
from pyro_bmf.model import (
    FactorizationModel,
    ImplicitFeedback,
    NormalLikelihood,
    NormalPrior,
    NormalWishartPrior,
)
from pyro_bmf.posterior import Posterior

USERS, ITEMS, RATED, K, NOISE = 40, 30, 500, 2, 0.7
DRAWS = 60


def make_model(guide: str) -> FactorizationModel:
    """Return the model that truths are drawn from and that is fitted."""
    if guide == "gibbs":
        return FactorizationModel(
            K,
            user_prior=NormalWishartPrior(0.8, kappa=4.0),
            item_prior=NormalWishartPrior(0.8, kappa=4.0),
            user_bias_prior=NormalWishartPrior(0.5, kappa=4.0),
            item_bias_prior=NormalWishartPrior(0.5, kappa=4.0),
            likelihood=NormalLikelihood(NOISE),
            centred=False,
            implicit=ImplicitFeedback(0.3),
        )
    return FactorizationModel(
        K,
        likelihood=NormalLikelihood(NOISE),
        centred=False,
        user_bias_prior=NormalPrior(scale=0.5),
        item_bias_prior=NormalPrior(scale=0.5),
    )


def simulate(model: FactorizationModel, users: Any, items: Any) -> dict[str, torch.Tensor]:
    """Draw everything from the Pyro model for given pairs."""
    i, j, ones = torch.tensor(users), torch.tensor(items), torch.ones(len(users))
    block = Block(
        users=torch.arange(USERS),
        items=torch.arange(ITEMS),
        rating_users=i,
        rating_items=j,
        ratings=ones,
        user_feedback=Feedback.from_coo(i, j, ones, USERS, ITEMS),
        item_feedback=Feedback.from_coo(j, i, ones, ITEMS, USERS),
        user_weight=1.0,
        item_weight=1.0,
        global_weight=1.0,
    )
    trace = poutine.trace(poutine.uncondition(model)).get_trace(block, beta=(1.0, 1.0))
    return {name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"}


def fitted(guide: str, model: FactorizationModel, train: Ratings, seed: int) -> Posterior:
    """Fit a guide to the ratings."""
    cpu = torch.device("cpu")
    if guide == "gibbs":
        settings = GibbsSettings(
            sweeps=100 + 6 * DRAWS, burn_in=100, kept_draws=DRAWS, plain_sweeps=0, solver_tolerance=1e-6
        )
        model.start(train.ratings)
        chain = Chain(model, train, None, settings, seed=seed, device=cpu, reporter=Silent())
        kept = chain.run(None, NOISE, checkpoint=None, every=1, resume=False, identity={}, history=[])
        return Posterior.from_fit(model, kept.guide, train, rows=kept.rows(model))
    if guide == "conjugate":
        model.start(train.ratings)
        ascent = CoordinateAscent(model, train, seed=seed, device=cpu, empirical_bayes=False)
        for _ in range(60):
            ascent.iteration()
        rows = ascent.guide.known_rows("user"), ascent.guide.known_rows("item")
        return Posterior.from_fit(model, ascent.guide, train, rows=rows)
    settings = preset("amortized").replace(
        n_factors=K,
        user_batch_size=20,
        item_batch_size=15,
        n_tower_outputs=16,
        max_iterations=150,
        seed=seed,
        patience=None,
        input_dropout=0.1,
    )
    everything = np.arange(len(train))
    split = Split(train, everything[:-2], everything[-2:-1], everything[-1:], "given")
    return fit(split, settings, model=model, threads=1, progress=False).posterior


def ranks(guide: str, refit: int) -> dict[str, list[float]]:
    """Return the ranks, in (0, 1), of one refit's truths."""
    rng = np.random.default_rng([7, refit])
    cells = rng.permutation(USERS * ITEMS)[:RATED]
    users, items = np.sort(cells) // ITEMS, np.sort(cells) % ITEMS
    torch.manual_seed(refit + 1)
    model = make_model(guide)
    model.requires_grad_(False)
    truth = simulate(model, users, items)
    train = ratings_from_arrays(users, items, truth["rating"].double().numpy())
    posterior = fitted(guide, model, train, refit)
    # Rows that nobody rated are no part of the data.
    rows_u = posterior.user_vocabulary.raw(np.arange(posterior.n_users)).astype(int)
    rows_i = posterior.item_vocabulary.raw(np.arange(posterior.n_items)).astype(int)
    draws = np.arange(DRAWS)
    every_u, every_i = np.arange(posterior.n_users), np.arange(posterior.n_items)
    u, b = posterior.pairs.draw_rows("user", every_u, draws, refit)
    v, c = posterior.pairs.draw_rows("item", every_i, draws, refit)
    assert b is not None
    assert c is not None
    pick_u, pick_i = rng.integers(len(rows_u), size=20), rng.integers(len(rows_i), size=20)
    product = (u[:, pick_u] * v[:, pick_i]).sum(-1).numpy()
    true = (truth["user_factors"][rows_u[pick_u]] * truth["item_factors"][rows_i[pick_i]]).sum(-1).numpy()

    def rank(drawn: Any, value: Any) -> list[float]:
        below = (drawn < value).sum(0)
        found: list[float] = ((below + rng.random(len(value))) / (len(drawn) + 1)).tolist()
        return found

    some_u, some_i = pick_u[:6], pick_i[:6]
    return {
        "uv": rank(product, true),
        "user_bias": rank(b[:, some_u].numpy(), truth["user_bias"][rows_u[some_u]].numpy()),
        "item_bias": rank(c[:, some_i].numpy(), truth["item_bias"][rows_i[some_i]].numpy()),
    }


def summary(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Return what the ranks say, by kind of quantity.

    Ranks of one refit are not independent; the p-value is of one rank a refit.
    """
    result = {}
    for kind in ("uv", "user_bias", "item_bias"):
        everything = np.concatenate([refit[kind] for refit in found.values()])
        first = np.array([refit[kind][0] for refit in found.values()])
        result[kind] = {
            "ks_distance": float(stats.kstest(everything, "uniform").statistic),
            "p_value_one_a_refit": float(stats.kstest(first, "uniform").pvalue),
            "coverage_90": float(np.mean((everything > 0.05) & (everything < 0.95))),
            "mean_rank": float(everything.mean()),
        }
    return result


def main() -> None:
    """Run the refits that are missing and print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--guide", choices=("gibbs", "conjugate", "amortized"), default="gibbs")
    parser.add_argument("--refits", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    content = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"refits": {}}
    started = time.perf_counter()
    for refit in range(options.refits):
        if str(refit) not in content["refits"]:
            found = ranks(options.guide, refit)
            content["refits"][str(refit)] = {k: [round(r, 4) for r in v] for k, v in found.items()}
            if refit % 10 == 9 or refit == options.refits - 1:
                write_json(options.out, content)
                print(f"{refit + 1} refits, {time.perf_counter() - started:.0f} s", flush=True)
    content["guide"], content["summary"] = options.guide, summary(content["refits"])
    write_json(options.out, content)
    for kind, figures in content["summary"].items():
        print(kind, {name: round(value, 3) for name, value in figures.items()})


if __name__ == "__main__":
    main()
