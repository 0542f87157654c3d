"""Small problems, draws that can be played again, and Eq. 7 written out: for the tests of the objective."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_bmf.methods.cross_feedback.guide import CrossFeedbackGuide
from pyro_bmf.methods.cross_feedback.objective import Objective
from pyro_bmf.methods.cross_feedback.settings import EncoderSettings
from pyro_bmf.model import FactorizationModel
from pyro_bmf.model.blocks import Block, TrainingBlocks
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.priors.normal import NormalPrior
from pyro_bmf.model.rows import RowPosterior

N_USERS, N_ITEMS, K = 7, 5, 2
PRIORS = {
    "user_factors": (0.3, 0.8),
    "user_bias": (0.1, 0.4),
    "item_factors": (-0.2, 0.6),
    "item_bias": (0.0, 0.5),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """Ratings of a few users on a few items; user 0 and item 4 have none."""

    users: Tensor
    items: Tensor
    ratings: Tensor

    @classmethod
    def draw(cls, seed: int = 0) -> Problem:
        rng = np.random.default_rng(seed)
        seen = rng.random((N_USERS, N_ITEMS)) < 0.7
        seen[0] = seen[:, 4] = False
        users, items = (torch.from_numpy(x) for x in np.nonzero(seen))
        return cls(users, items, torch.from_numpy(rng.integers(1, 6, len(users)).astype(float)))

    def blocks(self, user_batch_size: int = 100, item_batch_size: int = 100, **more: Any) -> TrainingBlocks:
        centred = self.ratings - 3.0
        return TrainingBlocks.build(
            Feedback.from_coo(self.users, self.items, centred, N_USERS, N_ITEMS),
            Feedback.from_coo(self.items, self.users, centred, N_ITEMS, N_USERS),
            self.users,
            self.items,
            self.ratings,
            user_batch_size=user_batch_size,
            item_batch_size=item_batch_size,
            **more,
        )


def make_model(*, biases: bool = True, noise: float | str = "learned") -> FactorizationModel:
    """A model whose four priors differ, so that none can stand in for another."""
    model = FactorizationModel(
        K,
        user_prior=NormalPrior(*PRIORS["user_factors"]),
        item_prior=NormalPrior(*PRIORS["item_factors"]),
        user_bias_prior=NormalPrior(*PRIORS["user_bias"]) if biases else None,
        item_bias_prior=NormalPrior(*PRIORS["item_bias"]) if biases else None,
        likelihood=NormalLikelihood(noise),
        biases=biases,
    )
    model.start(Problem.draw().ratings.numpy())
    return model


class TappedGuide(CrossFeedbackGuide):
    """The guide itself, with a zero added to each row's parameters: its gradient is that row's share."""

    def __init__(self, settings: EncoderSettings, *, biases: bool) -> None:
        super().__init__(
            settings,
            N_USERS,
            N_ITEMS,
            K,
            biases=biases,
            user_scales=(0.8, 0.4),
            item_scales=(0.6, 0.5),
            mean_counts=(3.0, 4.0),
        )
        width = K + biases
        self.taps = {
            side: tuple(torch.zeros(n, width, requires_grad=True) for _ in range(2))
            for side, n in (("user", N_USERS), ("item", N_ITEMS))
        }
        self.rows: dict[str, Tensor] = {}

    def forward(self, block: Block, *, beta: tuple[float, float]) -> None:
        self.rows = {"user": block.users, "item": block.items}
        super().forward(block, beta=beta)

    def encode_rows(
        self, side: Any, feedback: Feedback, other_factors: Tensor | None = None, **more: Any
    ) -> RowPosterior:
        q = super().encode_rows(side, feedback, other_factors, **more)
        if side not in self.rows:
            return q
        loc, log_scale = (tap[self.rows[side]] for tap in self.taps[side])
        factors = q.loc + loc[:, :K], q.scale * log_scale[:, :K].exp()
        if q.bias_loc is None or q.bias_scale is None:
            return RowPosterior(*factors)
        return RowPosterior(*factors, q.bias_loc + loc[:, K], q.bias_scale * log_scale[:, K].exp())


def make_objective(
    *, elbo: Any = "mean-field", biases: bool = True, num_particles: int = 1, seed: int = 0, **settings: Any
) -> Objective:
    torch.manual_seed(seed)
    guide = TappedGuide(EncoderSettings(**{"n_units": 4, "n_tower_outputs": 4, **settings}), biases=biases)
    return Objective(make_model(biases=biases), guide, elbo=elbo, num_particles=num_particles)


class FixedDraws(Messenger):
    """Draws of a row that are the same in whatever block, and at whatever step, the row is seen.

    ``noise[site]`` has shape (n_particles, n_rows, …): standard Normals. A site of the guide takes its
    location plus its scale times that as its value; the model replays it.
    """

    def __init__(self, noise: dict[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise
        self.block: Block | None = None
        self.particle = -1
        self.seen: dict[str, Any] = {}

    @classmethod
    def standard(cls, n_particles: int = 1, *, biases: bool = True, seed: int = 0) -> FixedDraws:
        generator = torch.Generator().manual_seed(seed)
        shapes = {"user_factors": (N_USERS, K), "item_factors": (N_ITEMS, K)}
        if biases:
            shapes |= {"user_bias": (N_USERS,), "item_bias": (N_ITEMS,)}
        return cls({n: torch.randn(n_particles, *s, generator=generator) for n, s in shapes.items()})

    @contextmanager
    def at(self, block: Block) -> Iterator[None]:
        """Play the draws of this block's rows, from the first particle on."""
        self.block, self.particle = block, -1
        with self:
            yield

    def _pyro_sample(self, msg: Any) -> None:
        name = msg["name"]
        if msg["done"] or msg["is_observed"] or name not in self.noise:
            return
        assert self.block is not None
        self.particle += name == "user_factors"
        rows = self.block.users if name.startswith("user") else self.block.items
        msg["value"] = msg["fn"].mean + msg["fn"].stddev * self.noise[name][self.particle, rows]
        msg["done"] = True
        self.seen[name] = msg["fn"]


def log_normal(x: Tensor, loc: Tensor | float, scale: Tensor | float) -> Tensor:
    """The Normal's log-density, written out."""
    scale = torch.as_tensor(scale)
    return -0.5 * ((x - loc) / scale) ** 2 - torch.log(scale) - 0.5 * math.log(2 * math.pi)


def kl_normal(loc: Tensor, scale: Tensor, prior: tuple[float, float]) -> Tensor:
    """KL(N(loc, scale^2) || N(prior)), written out."""
    m, s = prior
    return math.log(s) - torch.log(scale) + (scale**2 + (loc - m) ** 2) / (2 * s**2) - 0.5


@dataclass(frozen=True, eq=False)
class Parts:
    """The terms of Eq. 7 row by row: everything of one particle set, averaged over the particles."""

    log_likelihood: Tensor  # (n_ratings,)
    kl: dict[str, Tensor]  # site -> (n_rows,)

    def loss(self, beta: tuple[float, float]) -> Tensor:
        total = -self.log_likelihood.sum()
        for name, value in self.kl.items():
            total = total + beta[0 if name.startswith("user") else 1] * value.sum()
        return total


def eq_7(objective: Objective, problem: Problem, draws: FixedDraws, *, analytic: bool) -> Parts:
    """Eq. 7 over all users, items and ratings at once, from q's own numbers, without Pyro."""
    guide = objective.guide
    guide.rows = {"user": torch.arange(N_USERS), "item": torch.arange(N_ITEMS)}
    centred = problem.ratings - 3.0
    q = {
        "user": guide.encode_rows(
            "user", Feedback.from_coo(problem.users, problem.items, centred, N_USERS, N_ITEMS)
        ),
        "item": guide.encode_rows(
            "item", Feedback.from_coo(problem.items, problem.users, centred, N_ITEMS, N_USERS)
        ),
    }
    located = {}
    for side, rows in q.items():
        located[f"{side}_factors"] = (rows.loc, rows.scale)
        if rows.bias_loc is not None:
            located[f"{side}_bias"] = (rows.bias_loc, rows.bias_scale)
    n_particles = len(draws.noise["user_factors"])
    likelihood, kl = [], {name: [] for name in located}
    for particle in range(n_particles):
        values = {n: loc + scale * draws.noise[n][particle] for n, (loc, scale) in located.items()}
        u, v = values["user_factors"][problem.users], values["item_factors"][problem.items]
        eta = (u * v).sum(1) + problem.ratings.mean()
        if "user_bias" in values:
            eta = eta + values["user_bias"][problem.users] + values["item_bias"][problem.items]
        likelihood.append(log_normal(problem.ratings, eta, objective.model.likelihood.noise_sd))
        for name, (loc, scale) in located.items():
            if analytic:
                each = kl_normal(loc, scale, PRIORS[name])
            else:
                each = log_normal(values[name], loc, scale) - log_normal(values[name], *PRIORS[name])
            kl[name].append(each.reshape(len(each), -1).sum(1))
    return Parts(
        torch.stack(likelihood).mean(0), {name: torch.stack(each).mean(0) for name, each in kl.items()}
    )
