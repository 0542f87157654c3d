r"""Calibration where a run's data put it: truths from its posterior, new ratings beside the observed ones.

Draw :math:`\theta \sim p(\theta \mid x)` from the posterior of a run, then ratings :math:`x'` of pairs that
nobody rated given :math:`\theta`. The posterior of the same model given :math:`x` and :math:`x'` together is
one that :math:`\theta` is a draw of, so that it ranks uniformly among draws of the fit to both, if the run
and the fit are right (Säilynoja et al. 2025, arXiv 2502.03279). Unlike truths of the prior, which a real data
set may be far from, these are where the posterior has its mass.

Both fits must be of one model. What a fit takes from its training ratings therefore stays that of the run:
the standard units, and which pairs are implicit feedback. A posterior that only the old ratings have formed
ranks its own draws uniformly whatever it is; the check sees what new ratings move, so there are as many of
them as old ones where there is room.
"""

from __future__ import annotations

import copy
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data import Ratings, RatingScale, Split
from ...data.units import AS_GIVEN
from ...errors import DataError, SettingsError
from ...fitting import fit
from ...in_units import settings_in
from ...methods.gibbs.hyper_draws import draw_row_noise
from ...methods.settings import Settings
from ...model.fitted import Indices
from ...model.likelihoods.normal import Likelihood
from ...model.pair_terms import pair_terms
from ...model.sides import SIDES, Sides
from ...numerics.generators import own_generator
from ...numerics.segment_sums import Segments, segment_sum
from ...posterior import Posterior
from .from_prior import Refit, Truth, rank, seed_of

#: Draws of latent utilities and of rows' noise in turn, given all else, for noise that a chain did not keep.
_STEPS = 30
#: Rounds of drawing pairs before there is taken to be no room for more.
_ROUNDS = 400
#: Rows as indices: one draw of the posterior.
Floats = NDArray[np.float64]


def refit_ranks_from(
    posterior: Posterior,
    split: Split,
    settings: Settings,
    seed: int,
    *,
    n_new: int | None = None,
    threads: int | None = None,
    device: str = "auto",
) -> Refit:
    """Draw a truth from a posterior and new ratings from it, fit to old and new ones, and rank the truth.

    Parameters
    ----------
    posterior : Posterior
        Of a fit to the train part of `split`.
    split : Split
        Its validation ratings are those of the new fit too; no new rating is of one of its pairs.
    settings : Settings
        Of the posterior's fit.
    seed : int
        Of the truth, of the new pairs and ratings, of the fit, and of what is ranked.
    n_new : int, optional
        New ratings; as many as the posterior was fitted to, and at most half of the pairs that are left.
    threads, device
        As of `fit`.

    Raises
    ------
    SettingsError
        If the posterior was fitted to validation ratings too.
    DataError
        If there is no room for so many new ratings.
    """
    started = time.perf_counter()
    if posterior.fitted_to.trained_on != "train":
        raise SettingsError(
            "The posterior was fitted to train and validation together: give one of the train part alone, "
            "fitted without refit."
        )
    rng = np.random.default_rng([seed_of(seed, 3), 0x9A1])
    pairs = new_pairs(split, n_new, rng)
    drawn, truth = simulate_from(posterior, pairs, seed_of(seed, 4))
    both = _beside(split, posterior, pairs, drawn)
    settings = replace(settings, model=settings_in(settings.model, posterior.model.units))
    conjugate = settings.conjugate
    if settings.model.prior_mean == "ratings" and not conjugate:
        settings = settings.replace(prior_mean=posterior.model.user_prior.origin)
    fitted = fit(
        both,
        settings.replace(seed=seed_of(seed, 1)),
        threads=threads,
        device=device,
        progress=False,
        units=AS_GIVEN,
        implicit=split.train if settings.model.implicit else None,
    )
    ranks, errors = rank(fitted.posterior, both, truth, seed)
    return Refit(ranks, errors, time.perf_counter() - started)


def new_pairs(split: Split, n: int | None, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Draw pairs that no part of a split has, of users and items as frequent as in its train part.

    Returns
    -------
    users, items : ndarray, shape (n,)
        In the order of (user, item).

    Raises
    ------
    DataError
        If there is no room for so many.
    """
    train, n_items = split.train, split.ratings.n_items
    known = int((train.user_counts > 0).sum()) * int((train.item_counts > 0).sum())
    here = (train.user_counts[split.ratings.users] > 0) & (train.item_counts[split.ratings.items] > 0)
    left = known - int(here.sum())
    wanted = min(len(train), left // 2) if n is None else n
    taken = split.ratings.users * n_items + split.ratings.items
    found = np.zeros(0, dtype=np.int64)
    for _ in range(_ROUNDS):
        if len(found) >= wanted:
            break
        users = train.users[rng.integers(len(train), size=2 * wanted + 16)]
        items = train.items[rng.integers(len(train), size=2 * wanted + 16)]
        keys = users * n_items + items
        fresh = keys[~np.isin(keys, taken)]
        every = np.concatenate([found, fresh])
        # In the order in which they came: the first ones are the sample.
        found = every[np.sort(np.unique(every, return_index=True)[1])]
    if not 0 < wanted <= len(found):
        raise DataError(
            f"There is no room for {wanted:,} new ratings: users and items with training ratings have "
            f"{left:,} pairs that nobody rated. Ask for fewer new ratings (--new-ratings)."
        )
    chosen = np.sort(found[:wanted])
    return chosen // n_items, chosen % n_items


def simulate_from(posterior: Posterior, pairs: tuple[Indices, Indices], seed: int) -> tuple[Floats, Truth]:
    """Draw a truth from a posterior, and a rating of each pair given it.

    Parameters
    ----------
    posterior : Posterior
    pairs : tuple of ndarray, shape (n,)
        Users and items.
    seed : int

    Returns
    -------
    ratings : ndarray, shape (n,)
        In the ratings' own unit.
    truth : Truth
        In standard units.
    """
    if posterior.pairs.device.type != "cpu":
        posterior = posterior.to("cpu")  # truths are a row each: less than the copies to and fro
    draw = np.array([posterior.sampling.one(seed)])
    truth, hyper = _truth(posterior, draw, seed)
    likelihood = copy.deepcopy(posterior.model.likelihood)
    utilities = likelihood.utilities()
    if utilities is not None and "noise" in hyper:
        utilities.remember(hyper.get("cuts", utilities.start_cuts()), hyper["noise"])
    noise = likelihood.requires_grad_(False).normal_noise_sd
    users, items = pairs
    with own_generator(posterior.pairs.device) as reseed, torch.no_grad():
        reseed(seed)
        multipliers = _row_precisions(posterior, truth, hyper, likelihood)
        if multipliers is None:
            terms = tuple(one[0] for one in posterior.pairs.draw_terms(users, items, draw, seed))
        else:
            i, j = torch.from_numpy(users), torch.from_numpy(items)
            terms = pair_terms([(multipliers.user[i] * multipliers.item[j]).rsqrt()], None)
        drawn = likelihood(_eta(posterior, truth, users, items), *terms).sample().double().cpu().numpy()
    return drawn, Truth(truth, None if noise is None else float(noise))


def _truth(posterior: Posterior, draw: Indices, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return all rows of one draw, and its hyperparameters, by name."""
    values: dict[str, Tensor] = {}
    for side, rows in zip(SIDES, (posterior.user_rows, posterior.item_rows), strict=True):
        factors, bias = posterior.pairs.draw_rows(side, np.arange(len(rows)), draw, seed)
        values[f"{side}_factors"] = factors[0].double()
        if bias is not None:
            values[f"{side}_bias"] = bias[0].double()
    drawn = posterior.guide.hyperparameters()
    hyper = {name: one.values[int(draw[0])].double() for name, one in drawn.items()}
    shared = [*(f"{side}_noise_shape" for side in SIDES), "cuts"]
    return values | {name: hyper[name] for name in shared if name in hyper}, hyper


def _eta(posterior: Posterior, truth: dict[str, Tensor], users: Indices, items: Indices) -> Tensor:
    i, j = torch.tensor(users), torch.tensor(items)
    user_bias, item_bias = truth.get("user_bias"), truth.get("item_bias")
    return posterior.model.predictor(
        truth["user_factors"][i],
        truth["item_factors"][j],
        None if user_bias is None else user_bias[i],
        None if item_bias is None else item_bias[j],
    )


def _row_precisions(
    posterior: Posterior, truth: dict[str, Tensor], hyper: dict[str, Tensor], likelihood: Likelihood
) -> Sides[Tensor] | None:
    """Draw what rows multiply the noise's precision by, given a draw of a chain that kept means of it alone.

    From its conditional given rows, cut points and noise: latent utilities and multipliers are drawn in turn,
    from the posterior means on. None where rows have none, or the posterior has draws of its own.
    """
    utilities = likelihood.utilities()
    noisy = [side for side in SIDES if f"{side}_noise_shape" in hyper]
    if not noisy or utilities is None:
        return None
    train = posterior.train
    pairs = Sides(
        Segments.of_index(torch.tensor(train.users), train.n_users),
        Segments.of_index(torch.tensor(train.items), train.n_items),
    )
    observed = utilities.observe(torch.tensor(posterior.model.units.standard(train.ratings)))
    eta, noise, cuts = (
        _eta(posterior, truth, train.users, train.items),
        hyper["noise"],
        utilities.start_cuts(),
    )
    found = Sides(
        *(
            torch.ones(len(rows), dtype=torch.float64)
            if rows.noise_factor is None
            else rows.noise_factor.double() ** -2
            for rows in (posterior.user_rows, posterior.item_rows)
        )
    )
    counts = Sides(*(torch.tensor(n, dtype=torch.float64) for n in (train.user_counts, train.item_counts)))
    for _ in range(_STEPS):
        sd = noise * (found.user[pairs.user.index] * found.item[pairs.item.index]).rsqrt()
        squares = ((utilities.draw_given(cuts, eta, sd, observed) - eta) / noise) ** 2
        for side in noisy:
            weighted = squares * found.opposite(side)[pairs.opposite(side).index]
            totals = segment_sum(weighted, pairs.of(side))
            drawn = draw_row_noise(counts.of(side), totals, hyper[f"{side}_noise_shape"])
            found = Sides(drawn, found.item) if side == "user" else Sides(found.user, drawn)
    return found


def _beside(split: Split, posterior: Posterior, pairs: tuple[Indices, Indices], drawn: Floats) -> Split:
    """Return the split with new ratings in its train part, all in the posterior's standard units."""
    ratings, units = split.ratings, posterior.model.units
    scale = ratings.scale
    nearest = scale.nearest_level(drawn)
    new: Any
    if scale.step is not None and np.abs(drawn - nearest).max() < 1e-4 * scale.step:
        new = units.standard(nearest)
    else:
        new = (drawn - units.shift) / units.scale
        scale = RatingScale.infer(np.concatenate([ratings.ratings, drawn]))
    old = units.of_ratings(replace(ratings, timestamps=None))
    values = np.concatenate([old.ratings, new])
    standard = old.scale
    if scale is not ratings.scale:
        standard = RatingScale.infer(values)
    users, items = (
        np.concatenate([one, other]) for one, other in zip((ratings.users, ratings.items), pairs, strict=True)
    )
    order = np.lexsort((items, users))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    n = len(ratings)
    together = Ratings(
        users[order],
        items[order],
        values[order],
        None,
        ratings.user_vocabulary,
        ratings.item_vocabulary,
        standard,
        None,
        f"{ratings.name} and simulated ones",
    )
    train = np.concatenate([place[split.train_rows], place[n:]])
    rows = place[split.valid_rows], place[split.test_rows]
    return Split(together, train, *rows, split.scheme, split.settings)
