"""The posterior of a chain: prediction by brute force, folding in, saving, similarity."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_bmf.data import Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.export.files import export_parquet
from pyro_bmf.fit_result import FitResult
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.posterior import Posterior

PLAIN = preset().replace(
    n_factors=2, sweeps=50, burn_in=20, kept_draws=30, likelihood="normal", row_noise="none"
)
FULL = preset().replace(n_factors=2, sweeps=50, burn_in=20, kept_draws=30)


@pytest.fixture(scope="module")
def stars() -> Split:
    rng = np.random.default_rng(7)
    u, v = rng.normal(size=(70, 2)), rng.normal(size=(50, 2))
    users, items = np.nonzero(rng.random((70, 50)) < 0.5)
    utility = 3.2 + 0.7 * (u[users] * v[items]).sum(1) + 0.5 * rng.normal(size=len(users))
    ratings = np.clip(np.round(utility), 1, 5)
    return random_split(ratings_from_arrays(users, items, ratings, scale="1:5:1"), seed=0)


@pytest.fixture(scope="module", params=["plain", "full"])
def fitted(request: Any, stars: Split) -> FitResult:
    return fit(stars, PLAIN if request.param == "plain" else FULL, threads=1, progress=False)


def test_moments_by_brute_force(fitted: FitResult, stars: Split) -> None:
    posterior = fitted.posterior
    users, items = stars.test.users[:40], stars.test.items[:40]
    mean, variance = posterior.pairs.eta_moments(users, items)
    u, v = posterior.user_rows, posterior.item_rows
    for n, (i, j) in enumerate(zip(users, items, strict=True)):
        drawn, smooth = [], []
        for s in range(30):
            a, b = u.draws[i, s].double(), v.draws[j, s].double()  # type: ignore[union-attr]
            ea, eb = u.means[i, s].double(), v.means[j, s].double()  # type: ignore[union-attr]

            def eta(x: torch.Tensor, y: torch.Tensor) -> float:
                return float(x[:2] @ y[:2] + x[2] + y[2] + posterior.model.centre)

            drawn.append(eta(a, b))
            smooth.append(0.5 * (eta(ea, b) + eta(a, eb)))
        assert float(mean[n]) == pytest.approx(np.mean(smooth), abs=1e-4)
        assert float(variance[n]) == pytest.approx(np.var(drawn, ddof=1), rel=1e-3, abs=1e-5)


def test_conditional_means_average_to_the_draws(fitted: FitResult) -> None:
    """Rao-Blackwell: both averages are of one expectation, and the smooth one moves less."""
    for rows in (fitted.posterior.user_rows, fitted.posterior.item_rows):
        bias, smooth = rows.draws[..., -1], rows.means[..., -1]  # type: ignore[union-attr]
        error = bias.std() / math.sqrt(bias.numel() / 5)
        assert float(bias.mean() - smooth.mean()) == pytest.approx(0.0, abs=5 * float(error))
        assert float(smooth.var(1).mean()) < float(bias.var(1).mean())


def test_scores_are_predictions(fitted: FitResult) -> None:
    posterior = fitted.posterior
    scores = posterior.score_items(np.arange(posterior.n_users))
    users, items = (grid.ravel() for grid in np.indices(scores.shape))
    np.testing.assert_allclose(scores.ravel(), posterior.predict_mean(users, items), atol=2e-4)


def test_probabilities_and_intervals(fitted: FitResult, stars: Split) -> None:
    posterior, test = fitted.posterior, stars.test
    pmf = posterior.predict_pmf(test.users, test.items, stars.ratings.scale.levels)
    np.testing.assert_allclose(pmf.sum(1), 1.0, atol=1e-9)
    ids = posterior.user_vocabulary.raw(test.users[:5]), posterior.item_vocabulary.raw(test.items[:5])
    table = posterior.predict(*ids)
    assert bool((table["lower"] <= table["mean"]).all())
    assert bool((table["mean"] <= table["upper"]).all())
    assert bool((table["mean_sd"] < table["sd"]).all())
    drawn = posterior.sample(*ids, num_samples=30, seed=0)
    assert drawn.shape == (30, 5)
    eta = posterior.sample(*ids, num_samples=30, seed=0, kind="eta")
    units = posterior.model.units
    moments = posterior.pairs.eta_moments(test.users[:5], test.items[:5])
    np.testing.assert_allclose(eta.mean(0), moments[0].cpu() * units.scale + units.shift, atol=0.35)


def test_saving_keeps_every_bit(fitted: FitResult, tmp_path: Path, stars: Split) -> None:
    posterior = fitted.posterior
    again = Posterior.load(posterior.save(tmp_path / "one.safetensors"))
    again.save(tmp_path / "two.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    posterior, test = posterior.to("cpu"), stars.test  # where files are read
    levels = stars.ratings.scale.levels
    np.testing.assert_array_equal(
        posterior.predict_pmf(test.users, test.items, levels),
        again.predict_pmf(test.users, test.items, levels),
    )
    few = {int(posterior.item_vocabulary.ids[0]): 5, int(posterior.item_vocabulary.ids[3]): 2}
    one, two = posterior.fold_in(few), again.fold_in(few)
    np.testing.assert_array_equal(one.recommend(n=5)["mean"], two.recommend(n=5)["mean"])


def ratings_of(posterior: Posterior, user: int) -> dict[int, float]:
    train = posterior.train
    at = train.users == user
    items = posterior.item_vocabulary.raw(train.items[at])
    return dict(zip(items.tolist(), train.ratings[at].tolist(), strict=True))


def test_folding_in_a_known_user_gives_that_user(fitted: FitResult) -> None:
    posterior = fitted.posterior
    everything = np.arange(posterior.n_items)
    differences, sds = [], []
    for user in range(0, 40, 4):
        known, _ = posterior.pairs.eta_moments(np.full(len(everything), user), everything)
        row = posterior.fold_in(ratings_of(posterior, user))
        new, variance = row.all_rows.pairs.eta_moments(np.zeros(len(everything), dtype=int), everything)
        differences.append((new - known).abs().mean())
        sds.append(variance.sqrt().mean())
    # The items' draws know this user's ratings too, so the two are close, not equal.
    assert float(torch.stack(differences).mean()) < 0.6 * float(torch.stack(sds).mean())


def test_more_ratings_make_surer(fitted: FitResult) -> None:
    posterior = fitted.posterior
    ratings = ratings_of(posterior, 1)
    spread = []
    for n in (0, 4, len(ratings)):
        row = posterior.fold_in(dict(list(ratings.items())[:n]))
        _, variance = row.all_rows.pairs.eta_moments(np.zeros(50, dtype=int), np.arange(50))
        spread.append(float(variance.mean()))
    assert spread[0] > spread[1] > spread[2]


def test_folded_row_is_the_exact_conditional_of_each_draw(stars: Split) -> None:
    posterior = fit(stars, PLAIN, threads=1, progress=False).posterior.to("cpu")
    ratings = ratings_of(posterior, 2)
    items = posterior.item_vocabulary.index(list(ratings))
    found = posterior.fold_in(ratings).posterior
    guide: Any = posterior.guide
    x = torch.from_numpy(posterior.model.units.standard(list(ratings.values())))
    x = x - posterior.model.centre.double()
    for s in (0, 11, 29):
        v = posterior.item_rows.draws[items, s].double()  # type: ignore[union-attr]
        feature = torch.cat([v[:, :2], torch.ones(len(v), 1).double()], 1)
        mean = guide.user.location[s].double() + guide.user.weights[s][items].double().sum(0) / math.sqrt(
            len(v)
        )
        prior = guide.user.precision[s].double()
        precision = prior + guide.noise_precision[s] * feature.T @ feature
        linear = prior @ mean + guide.noise_precision[s] * feature.T @ (x - v[:, 2])
        torch.testing.assert_close(
            found.means[0, s].double(), torch.linalg.solve(precision, linear), rtol=1e-3, atol=1e-3
        )


def test_new_users_are_calibrated(stars: Split) -> None:
    """Held-out users, folded in with half their ratings, predict the other half as surely as they say."""
    train = stars.ratings
    new = train.users >= 60
    rest = ratings_from_arrays(train.users[~new], train.items[~new], train.ratings[~new], scale=train.scale)
    split = random_split(rest, seed=1, fractions=(0.96, 0.02, 0.02))
    posterior = fit(split, FULL, threads=1, progress=False).posterior
    rng = np.random.default_rng(0)
    hits, n = 0, 0
    for user in range(60, 70):
        at = np.flatnonzero(train.users == user)
        rng.shuffle(at)
        half = len(at) // 2
        known = posterior.item_vocabulary.ids
        given = {int(train.items[e]): float(train.ratings[e]) for e in at[:half] if train.items[e] in known}
        asked = [int(train.items[e]) for e in at[half:] if train.items[e] in known]
        truth = [float(train.ratings[e]) for e in at[half:] if train.items[e] in known]
        row = posterior.fold_in(given)
        index = posterior.item_vocabulary.index(asked)
        pmf = row.all_rows.pairs.pmf(np.zeros(len(index), dtype=int), index, np.arange(1.0, 6.0))
        below = np.cumsum(pmf, 1)
        place = np.array(truth).astype(int) - 1
        high = below[np.arange(len(place)), place]
        pit = high - pmf[np.arange(len(place)), place] * rng.random(len(place))
        hits += int(((pit > 0.05) & (pit < 0.95)).sum())
        n += len(place)
    assert n > 100
    assert hits / n == pytest.approx(0.9, abs=0.03 + 2 * math.sqrt(0.09 / n))


def test_similar_items_and_parquet(fitted: FitResult, tmp_path: Path) -> None:
    posterior = fitted.posterior
    table = posterior.similar_items(int(posterior.item_vocabulary.ids[0]), n=5)
    assert len(table) == 5
    assert bool((table["similarity"].diff().dropna() <= 0).all())
    assert bool(table["similarity"].abs().le(1.0).all())
    assert bool((table["lower"] <= table["upper"]).all())
    folder = export_parquet(posterior, tmp_path / "tables")
    assert (folder / "users.parquet").is_file()
