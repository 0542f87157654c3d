r"""Simulation-based calibration of a whole configuration: model, guide and inference together.

Truths are drawn from the model's own prior, ratings from the truths at pairs that were really rated, and
the configuration is fitted to them as it would be to real ratings. If its posterior is right, a truth ranks
uniformly among the posterior's draws (Talts et al. 2018, arXiv 1804.06788). Ranked is what has an identity:
u.v of pairs, biases less their mean (their level trades with the centre), noise, how much rows differ in
theirs, and drawn cut points less their mean, where these have draws. Raw factors are never ranked, as they
may rotate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyro.poutine as poutine
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data import Ratings, RatingScale, Split, random_split
from ...data.units import AS_GIVEN
from ...data.validation import ratings_from_arrays
from ...errors import DataError
from ...fitting import fit
from ...in_units import settings_in, units_of
from ...methods.build_model import build_model
from ...methods.gibbs.sweeps import NOISE_PRIOR
from ...methods.settings import Settings
from ...model import FactorizationModel
from ...model.blocks import Block
from ...model.feedback import Feedback
from ...model.fitted import Indices, Side
from ...model.sides import SIDES
from ...posterior import Posterior
from ...posterior.hyperparameters import hyperparameter_draws

#: Draws of a posterior that has no draws of its own.
NUM_SAMPLES = 200
#: Pairs, and rows of each side, whose truths are ranked in a refit.
PAIRS, ROWS = 20, 6


@dataclass(frozen=True, eq=False)
class Truth:
    """What a set of simulated ratings was drawn from.

    Attributes
    ----------
    values : dict
        The model's latent sites by name.
    noise : float or None
        Standard deviation of a rating about its predictor, of a Normal likelihood.
    """

    values: dict[str, Tensor]
    noise: float | None


@dataclass(frozen=True)
class Refit:
    """Ranks and standardised errors of one refit, by kind of quantity.

    Attributes
    ----------
    ranks : dict
        Of each truth among the posterior's draws, in (0, 1), ties and places broken at random.
    errors : dict
        (truth - posterior mean) / posterior standard deviation.
    seconds : float
    """

    ranks: dict[str, list[float]]
    errors: dict[str, list[float]]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain containers, rounded to what matters."""
        return {
            "ranks": {kind: [round(value, 4) for value in found] for kind, found in self.ranks.items()},
            "errors": {kind: [round(value, 4) for value in found] for kind, found in self.errors.items()},
            "seconds": round(self.seconds, 2),
        }


def subsample(split: Split, n_users: int | None, n_items: int | None, seed: int) -> Split:
    """Return a split of the ratings among some users and items, drawn at random; the split whole without.

    Raises
    ------
    DataError
        If there are too few ratings among them to split.
    """
    if n_users is None and n_items is None:
        return split
    ratings = split.ratings
    rng = np.random.default_rng([seed, 0xCA1])

    def some(n: int | None, size: int) -> NDArray[np.bool_]:
        mask = np.ones(size, dtype=bool)
        if n is not None and n < size:
            mask[rng.permutation(size)[n:]] = False
        return mask

    users, items = some(n_users, ratings.n_users), some(n_items, ratings.n_items)
    rows = np.flatnonzero(users[ratings.users] & items[ratings.items])
    if len(rows) < 50:
        raise DataError(
            f"Among {int(users.sum())} users and {int(items.sum())} items there are only {len(rows)} "
            "ratings: take more of them."
        )
    part = ratings_from_arrays(
        ratings.user_vocabulary.raw(ratings.users[rows]),
        ratings.item_vocabulary.raw(ratings.items[rows]),
        ratings.ratings[rows],
        scale=ratings.scale,
        name=ratings.name,
    )
    return random_split(part, seed=seed)


def simulate(
    model: FactorizationModel, split: Split, *, centre: float, noise_prior: bool, seed: int
) -> tuple[Split, Truth]:
    """Draw truths from the prior, and ratings of all the split's pairs given them.

    Parameters
    ----------
    model : FactorizationModel
        Its learned parameters are taken as they stand.
    split : Split
        Which pairs are rated; implicit feedback is that of its train part.
    centre : float
        Added to every predictor of a centred model, rating units.
    noise_prior : bool
        Whether a learned Normal noise is drawn from the prior that Gibbs sweeps have for it; otherwise it
        is taken as it stands, as guides that learn a point of it have no prior.
    seed : int

    Returns
    -------
    split : Split
        The same pairs in the same parts, with simulated ratings.
    truth : Truth
    """
    ratings, train = split.ratings, split.train
    users, items = torch.tensor(ratings.users), torch.tensor(ratings.items)
    i, j = torch.tensor(train.users), torch.tensor(train.items)
    ones = torch.ones(len(train))
    block = Block(
        users=torch.arange(ratings.n_users),
        items=torch.arange(ratings.n_items),
        rating_users=users,
        rating_items=items,
        ratings=torch.ones(len(ratings)),
        user_feedback=Feedback.from_coo(i, j, ones, ratings.n_users, ratings.n_items),
        item_feedback=Feedback.from_coo(j, i, ones, ratings.n_items, ratings.n_users),
        user_weight=1.0,
        item_weight=1.0,
        global_weight=1.0,
    )
    model.centre.fill_(centre if model.centred else 0.0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        if noise_prior:
            model.likelihood.draw_learned_noise(*NOISE_PRIOR)
        noise = model.likelihood.normal_noise_sd
        trace = poutine.trace(poutine.uncondition(model)).get_trace(block, beta=(1.0, 1.0))
    values: dict[str, Any] = {
        name: site["value"] for name, site in trace.nodes.items() if site["type"] == "sample"
    }
    drawn = values.pop("rating").double().numpy()
    scale = ratings.scale
    nearest = scale.nearest_level(drawn)
    if scale.step is not None and np.abs(drawn - nearest).max() < 1e-4 * scale.step:
        drawn = nearest  # levels, but for single precision
    else:
        scale = RatingScale.infer(drawn)
    simulated = Ratings(
        ratings.users,
        ratings.items,
        drawn,
        None,
        ratings.user_vocabulary,
        ratings.item_vocabulary,
        scale,
        None,
        f"simulated {ratings.name}",
    )
    parts = (split.train_rows, split.valid_rows, split.test_rows)
    again = Split(simulated, *parts, split.scheme, split.settings)
    return again, Truth(values, None if noise is None else float(noise))


def refit_ranks(
    split: Split, settings: Settings, seed: int, *, threads: int | None = None, device: str = "auto"
) -> Refit:
    """Simulate ratings on the split's pairs, fit the configuration to them, and rank the truths.

    Parameters
    ----------
    split : Split
        Of real ratings: which pairs are rated, and which part they are in.
    settings : Settings
    seed : int
        Of the truth, of the fit, and of what is ranked.
    threads, device
        As of `fit`.
    """
    started = time.perf_counter()
    simulated, settings, truth = simulate_like(split, settings, seed)
    fitted = fit(
        simulated,
        settings.replace(seed=seed_of(seed, 1)),
        threads=threads,
        device=device,
        progress=False,
        units=AS_GIVEN,
    )
    ranks, errors = rank(fitted.posterior, simulated, truth, seed)
    return Refit(ranks, errors, time.perf_counter() - started)


def simulate_like(split: Split, settings: Settings, seed: int) -> tuple[Split, Settings, Truth]:
    """Draw truths and ratings of the split's pairs from the prior of a configuration.

    Parameters
    ----------
    split : Split
        Of real ratings.
    settings : Settings
    seed : int

    Returns
    -------
    split : Split
        The same pairs with simulated ratings, in the real ratings' standard units.
    settings : Settings
        For a fit to them as they are (``units=AS_GIVEN``).
    truth : Truth
    """
    settings = settings.suited(len(split.train), split.train.n_users + split.train.n_items)
    conjugate = settings.conjugate
    # Truths and fits are in the real ratings' standard units: those of simulated ones would be others.
    units = units_of(settings.model, split.train)
    settings = replace(settings, model=settings_in(settings.model, units))
    parts = (split.train_rows, split.valid_rows, split.test_rows)
    split = Split(units.of_ratings(split.ratings), *parts, split.scheme, split.settings)
    model = build_model(
        settings.model,
        split.ratings.scale.levels,
        gibbs=conjugate,
        ends=(split.ratings.scale.low, split.ratings.scale.high),
        mean_rating=float(split.train.ratings.mean()),
    )
    if settings.model.prior_mean == "ratings" and not conjugate:
        # The fit is of the prior that truths are drawn from, whatever the simulated ratings' mean.
        settings = settings.replace(prior_mean=model.user_prior.origin)
    real = split.train.ratings
    model.start(real)
    model.likelihood.set_learned_noise_sd(0.8 * max(float(real.std()), 1e-3))
    simulated, truth = simulate(
        model, split, centre=float(real.mean()), noise_prior=conjugate, seed=seed_of(seed, 0)
    )
    return simulated, settings, truth


def rank(
    posterior: Posterior, split: Split, truth: Truth, seed: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return the ranks of a truth among a posterior's draws, and its standardised errors, by kind.

    Parameters
    ----------
    posterior : Posterior
    split : Split
        That it was fitted to: rows with training ratings are ranked.
    truth : Truth
    seed : int
        Of the pairs and rows that are ranked, and of the posterior's draws where it makes them.
    """
    rng = np.random.default_rng([seed, 2])
    train = split.train
    draws = np.arange(posterior.number_of_draws(None, usual=NUM_SAMPLES))
    known_users, known_items = np.flatnonzero(train.user_counts), np.flatnonzero(train.item_counts)
    pick_u, pick_i = rng.choice(known_users, PAIRS), rng.choice(known_items, PAIRS)
    u, _ = posterior.pairs.draw_rows("user", pick_u, draws, seed)
    v, _ = posterior.pairs.draw_rows("item", pick_i, draws, seed)
    values = truth.values
    true = (values["user_factors"][pick_u] * values["item_factors"][pick_i]).sum(-1)
    found: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {
        "uv": ((u * v).sum(-1).double().cpu().numpy(), true.double().numpy())
    }
    sides: tuple[tuple[Side, Indices], ...] = (("user", known_users), ("item", known_items))
    for side, known in sides:
        if f"{side}_bias" not in values:
            continue
        _, bias = posterior.pairs.draw_rows(side, known, draws, seed)
        assert bias is not None
        at = rng.choice(len(known), min(ROWS, len(known)), replace=False)
        true_bias = values[f"{side}_bias"][known].double()
        true_bias = true_bias - true_bias.mean()
        bias = bias.double() - bias.double().mean(1, keepdim=True)
        found[f"{side} bias"] = (bias[:, at].cpu().numpy(), true_bias[at].numpy())
    hyper = hyperparameter_draws(posterior, draws)
    for side in SIDES:
        shape = f"{side}_noise_shape"
        if shape in hyper and shape in values:
            # Of the Gamma that rows' precisions are from: their relative spread.
            spreads = hyper[shape][:, None] ** -0.5, values[shape].double().numpy()[None] ** -0.5
            found[f"{side} noise spread"] = spreads
    drawn_noise = hyper.get("noise")
    if drawn_noise is not None and truth.noise is not None and drawn_noise.std() > 0:
        found["noise"] = (drawn_noise[:, None], np.array([truth.noise]))
    if "cuts" in hyper and "cuts" in values:
        about = hyper["cuts"] - hyper["cuts"].mean(1, keepdims=True)
        found["cuts"] = (about, (values["cuts"] - values["cuts"].mean()).double().numpy())
    ranks, errors = {}, {}
    for kind, (drawn, value) in found.items():
        below = (drawn < value).sum(0)
        ranks[kind] = ((below + rng.random(len(value))) / (len(drawn) + 1)).tolist()
        spread = drawn.std(0)
        errors[kind] = ((value - drawn.mean(0)) / np.where(spread > 0, spread, np.inf)).tolist()
    return ranks, errors


def seed_of(seed: int, stream: int) -> int:
    """Return the seed of one of the things that are random in a refit."""
    return int(np.random.SeedSequence([seed, 0x5BC, stream]).generate_state(1)[0]) >> 1
