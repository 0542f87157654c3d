"""Posteriors to test: small ones trained by the package's own objective, and handmade ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints

from pyro_bmf.data import Ratings, RatingScale, Vocabulary
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.objective import Objective
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.blocks import TrainingBlocks
from pyro_bmf.model.likelihoods.normal import Likelihood, NormalLikelihood
from pyro_bmf.model.rows import RowPosterior
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.encoding import side_feedback


def train_posterior(
    train: Ratings,
    *,
    n_factors: int = 3,
    iterations: int = 30,
    learning_rate: float = 1e-2,
    biases: bool = True,
    beta: float = 1.0,
    batch_size: int = 50,
    likelihood: Likelihood | None = None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **settings: object,
) -> Posterior:
    """Fit by Algorithm 1's steps, without the comforts of the package's own loop."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = FactorizationModel(n_factors, biases=biases, likelihood=likelihood or NormalLikelihood()).to(
            dtype
        )
        model.start(train.ratings)
        guide = CrossFeedbackGuide(
            EncoderSettings(n_units=16, n_tower_outputs=16, **settings),  # type: ignore[arg-type]
            train.n_users,
            train.n_items,
            n_factors,
            biases=biases,
            mean_counts=(len(train) / train.n_users, len(train) / train.n_items),
        ).to(dtype)
        users, items = side_feedback(train, model, "user"), side_feedback(train, model, "item")
        blocks = TrainingBlocks.build(
            users,
            items,
            torch.tensor(train.users),
            torch.tensor(train.items),
            torch.tensor(train.ratings, dtype=dtype),
            user_batch_size=batch_size,
            item_batch_size=batch_size,
        )
        objective = Objective(model, guide)
        optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=learning_rate)
        step = 0
        for _ in range(iterations):
            for block in blocks:
                step += 1
                weight = beta * min(1.0, step / (0.2 * iterations * len(blocks) + 1))
                loss, _ = objective(block, beta=(weight, weight))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            guide.resample_feedback(guide.encode_side("user", users), guide.encode_side("item", items))
        info = {
            "beta_user": beta,
            "beta_item": beta,
            "settings": {"iterations": iterations},
            "data_hash": train.data_hash,
        }
        return Posterior.from_fit(model, guide, train, info=info)


def planted(
    n_users: int = 60, n_items: int = 45, n_ratings: int = 900, *, text_ids: bool = False, seed: int = 3
) -> Ratings:
    """Half-star ratings from planted factors, with ids that are not indices."""
    rng = np.random.default_rng(seed)
    cells = rng.permutation(n_users * n_items)[:n_ratings]
    users, items = cells // n_items, cells % n_items
    u, v = rng.normal(0, 0.8, (n_users, 2)), rng.normal(0, 0.8, (n_items, 2))
    eta = 3.4 + rng.normal(0, 0.4, n_users)[users] + (u[users] * v[items]).sum(-1)
    stars = np.clip(np.round(2 * (eta + rng.normal(0, 0.4, n_ratings))) / 2, 0.5, 5.0)
    item_ids = 1000 + 7 * items
    titles = {int(i): f"Título {i} 映画" for i in np.unique(item_ids)[::2]}
    if text_ids:
        return ratings_from_arrays(
            [f"u:{user}" for user in users],
            [f"é{item}" for item in items],
            stars,
            scale="0.5:5:0.5",
            name="planted",
        )
    return ratings_from_arrays(
        5 + 3 * users, item_ids, stars, scale="0.5:5:0.5", item_titles=titles, name="planted"
    )


def handmade(
    users: RowPosterior,
    items: RowPosterior,
    *,
    centre: float = 0.0,
    likelihood: Likelihood | None = None,
    train: Ratings | None = None,
    scale: str = "0.5:5:0.5",
) -> Posterior:
    """Give rows of your own choosing as a posterior; ids are 0, 1, … and the guide is an untrained one."""
    n_users, n_items, n_factors = len(users), len(items), users.n_factors
    biases = users.bias_loc is not None
    model = FactorizationModel(n_factors, biases=biases, likelihood=likelihood or NormalLikelihood(0.5))
    model.centre.fill_(centre)
    guide = CrossFeedbackGuide(
        EncoderSettings(n_units=4, n_tower_outputs=4), n_users, n_items, n_factors, biases=biases
    )
    if train is None:
        train = Ratings(
            np.zeros(1, dtype=np.int64),
            np.zeros(1, dtype=np.int64),
            np.ones(1),
            None,
            Vocabulary(np.arange(n_users), "user"),
            Vocabulary(np.arange(n_items), "item"),
            RatingScale.parse(scale),
        )
    return Posterior(model, guide, users, items, train, {})


def random_rows(
    n: int, n_factors: int, *, biases: bool = True, spread: float = 0.5, seed: int = 0
) -> RowPosterior:
    """Draw the parameters of some rows."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def positive(*shape: int) -> torch.Tensor:
        return spread * (0.2 + torch.rand(*shape, generator=generator))

    return RowPosterior(
        normal(n, n_factors),
        positive(n, n_factors),
        0.3 * normal(n) if biases else None,
        positive(n) if biases else None,
    )


class PoissonLikelihood(Likelihood):
    """A likelihood whose mean is not its predictor: Poisson counts with an exponential link."""

    support = constraints.nonnegative_integer

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, eta: torch.Tensor) -> TorchDistribution:
        return dist.Poisson(torch.exp(eta + self.shift))

    def log_prob_rating(self, eta: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        return self(eta.unsqueeze(-1)).log_prob(levels)

    def settings(self) -> dict[str, Any]:
        return {"kind": "my-poisson", "shift": self.shift}


class LogNormalLikelihood(Likelihood):
    """Positive continuous ratings."""

    support = constraints.positive

    def forward(self, eta: torch.Tensor) -> TorchDistribution:
        return dist.LogNormal(eta, 0.3)

    def settings(self) -> dict[str, Any]:
        return {"kind": "my-log-normal"}


def load_benchmark(name: str) -> ModuleType:
    """Import a script of the folder benchmarks, which is no package."""
    path = Path(__file__).parents[2] / f"benchmarks/{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
