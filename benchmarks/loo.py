"""PSIS-LOO at the shape of MovieLens 1M: 700,000 ratings, 400 draws, ten factors, draws in hand.

    python benchmarks/loo.py --require 60

measures the processor's and the wall clock's seconds, and the peak of the process's memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np
import torch

from pyro_bmf.checking.loo import psis_loo
from pyro_bmf.data import Ratings, RatingScale, Vocabulary
from pyro_bmf.data.synthetic import generated_pairs
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.rows import RowPosterior
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.pair_draws import PairDraws

N_USERS, N_ITEMS, N_FACTORS = 6040, 3706, 10


def posterior_of(n_ratings: int, seed: int) -> Posterior:
    """Return a posterior of ML-1M's shape, its ratings drawn from it."""
    generator = torch.Generator().manual_seed(seed)

    def rows(n: int) -> RowPosterior:
        loc = 0.3 * torch.randn(n, N_FACTORS, generator=generator)
        bias = 0.3 * torch.randn(n, generator=generator)
        return RowPosterior(loc, torch.full_like(loc, 0.15), bias, torch.full_like(bias, 0.1))

    users, items = rows(N_USERS), rows(N_ITEMS)
    model = FactorizationModel(N_FACTORS, likelihood=NormalLikelihood(0.9))
    model.centre.fill_(3.6)
    rng = np.random.default_rng(seed)
    i, j = generated_pairs(N_USERS, N_ITEMS, n_ratings, seed=seed)
    mean = 3.6 + (users.loc[i] * items.loc[j]).sum(-1) + users.bias_loc[i] + items.bias_loc[j]
    stars = np.clip(np.round(mean.numpy() + 0.9 * rng.normal(size=len(i))), 1, 5)
    train = Ratings(
        i,
        j,
        stars,
        None,
        Vocabulary(np.arange(N_USERS), "user"),
        Vocabulary(np.arange(N_ITEMS), "item"),
        RatingScale.parse("1:5:1"),
    )
    guide = CrossFeedbackGuide(
        EncoderSettings(n_units=4, n_tower_outputs=4), N_USERS, N_ITEMS, N_FACTORS, biases=True
    )
    return Posterior(model, guide, users, items, train, {})


def main() -> int:
    """Measure, print one line of JSON, and say by the exit code whether the bounds are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=int, default=700_000)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--require", type=float, help="Seconds of the processor that it may take.")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    posterior = posterior_of(arguments.ratings, 0)
    train = posterior.train
    start = time.perf_counter()
    draws = PairDraws.draw(posterior.pairs, train.users, train.items, arguments.draws, 0)
    drawn = time.perf_counter() - start
    start, processor = time.perf_counter(), time.process_time()
    result = psis_loo(posterior, draws=draws)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        json.dumps(
            {
                "ratings": len(train),
                "draws": arguments.draws,
                "threads": arguments.threads,
                "seconds": round(seconds, 1),
                "processor_seconds": round(processor, 1),
                "seconds_drawing": round(drawn, 1),
                "peak_gb_of_process": round(peak, 2),
                "elpd": result.to_dict()["elpd"],
                "n_high_k": result.n_high_k,
            }
        )
    )
    return int(arguments.require is not None and processor > arguments.require) or int(peak > 2.0)


if __name__ == "__main__":
    sys.exit(main())
