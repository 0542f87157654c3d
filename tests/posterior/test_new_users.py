"""The new user: integrals against the dense Normal, good questions, intervals that shrink."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from posteriors import planted
from scipy.special import logsumexp

from pyro_bmf.checking.elicitation import elicit
from pyro_bmf.checking.left_out_terms import OwnTerms
from pyro_bmf.checking.new_users import _item_noise, _Priors, _RowIntegral, fold_in_half
from pyro_bmf.data import random_split, users_split
from pyro_bmf.data.synthetic import synthetic_ratings
from pyro_bmf.errors import DataError
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.numerics.segment_sums import Segments
from pyro_bmf.posterior import Posterior


def fitted(split: object) -> Posterior:
    settings = preset("conjugate").replace(n_factors=2, likelihood="normal", max_iterations=60)
    return fit(split, settings, threads=1, progress=False).posterior  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    """A small fit by coordinate ascent."""
    return fitted(random_split(planted(), seed=0))


def test_the_integral_over_a_row_is_the_dense_normals(posterior: Posterior) -> None:
    posterior = posterior.to("cpu")
    train, user = posterior.train, 4
    at = np.flatnonzero(train.users == user)
    items = posterior.item_rows.loc.double()  # type: ignore[union-attr]
    bias = posterior.item_rows.bias_loc.double()  # type: ignore[union-attr]
    drawn = torch.cat([items, bias[:, None]], 1)
    integral = _RowIntegral(
        posterior,
        train.ratings[at],
        Segments.of_index(torch.zeros(len(at), dtype=torch.long), 1),
        torch.tensor(train.items[at]),
        None,
        None,
        1,
        4000,
    )
    prior = _Priors(posterior, np.array([user]), 0)
    # The density of ratings on a continuous scale: the integrand is Normal, and so its mode is exact.
    likelihood = posterior.model.likelihood
    object.__setattr__(
        integral,
        "_log_prob",
        lambda eta, terms: likelihood(eta).log_prob(torch.tensor(train.ratings[at])),
    )
    with torch.no_grad():
        found, error = integral(drawn, prior, 0, 0)
    precision, mean = prior.normal(0)
    f = torch.cat([items[train.items[at]], torch.ones(len(at), 1, dtype=torch.float64)], 1)
    noise = likelihood.noise_sd.double() ** 2  # type: ignore[union-attr, operator]
    covariance = f @ torch.linalg.inv(precision) @ f.T + noise * torch.eye(len(at), dtype=torch.float64)
    centre = posterior.model.predictor_centre.double() + bias[train.items[at]] + f @ mean[0]
    units = posterior.model.units
    dense = torch.distributions.MultivariateNormal(
        units.scale * centre + units.shift, units.scale**2 * covariance
    )
    expected = dense.log_prob(torch.tensor(train.ratings[at]))
    assert float(found) == pytest.approx(float(expected.detach()), abs=1e-4)
    assert float(error) < 1e-4


def test_questions_tell_more_than_random_ones(posterior: Posterior) -> None:
    new = posterior.fold_in({})
    pairs = new.all_rows.pairs
    every = np.arange(posterior.n_items)
    nothing = np.zeros(0, dtype=np.int64)
    asked = elicit(posterior, 0, every, 5, pairs=pairs, rated=nothing)
    assert (asked.gain <= asked.alone + 1e-9).all()
    assert (np.diff(asked.left) < 0).all()
    rng = np.random.default_rng(0)
    others = [
        elicit(posterior, 0, np.sort(rng.permutation(every)[:5]), 5, pairs=pairs, rated=nothing).gain.sum()
        for _ in range(10)
    ]
    assert asked.gain.sum() > max(others)


def test_intervals_shrink_as_a_new_user_folds_in_more(posterior: Posterior) -> None:
    train = posterior.train
    at = np.flatnonzero(train.users == int(np.argmax(train.user_counts)))
    ids = posterior.item_vocabulary.raw(train.items[at])
    widths = []
    for n in (0, 2, 5, 10):
        row = posterior.fold_in(dict(zip(ids[:n].tolist(), train.ratings[at][:n].tolist(), strict=True)))
        table = row.predict(posterior.item_vocabulary.ids)
        widths.append(float((table["mean_upper"] - table["mean_lower"]).mean()))
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.6 * widths[0]


def test_new_users_are_folded_in_by_half(posterior: Posterior) -> None:
    with pytest.raises(DataError, match="--scheme users"):
        fold_in_half(posterior, random_split(planted(), seed=0))
    split = users_split(planted(), seed=0, fractions=(0.7, 0.1, 0.2))
    assert not set(split.train.users) & set(split.test.users)
    users, values = fold_in_half(fitted(split), split)
    assert 0.4 * len(split.test) < len(values) < 0.6 * len(split.test) + len(set(users.tolist()))
    assert (values < 0).all()
    assert values.mean() > -np.log(10)  # better than a uniform guess among ten levels


@pytest.mark.parametrize("guide", ["encoders", "exact head", "chain"])
def test_own_noise_and_cut_points_are_integrated_over_their_prior(guide: str) -> None:
    """Against plain Monte Carlo over the prior of everything that is the user's."""
    split = random_split(synthetic_ratings(40, 30, 500, n_factors=2, scale="1:5:1", seed=0).ratings, seed=0)
    if guide == "encoders":
        settings = preset("amortized").replace(
            n_factors=2,
            likelihood="ordered-probit:cuts=user",
            row_noise="both",
            max_iterations=15,
            learning_rate=1e-2,
            user_batch_size=40,
            item_batch_size=30,
            n_tower_outputs=6,
        )
    elif guide == "exact head":
        settings = preset("guide").replace(n_factors=2, max_iterations=20)
    else:
        settings = preset("gibbs").replace(n_factors=2, sweeps=20, burn_in=10, kept_draws=10, plain_sweeps=5)
    posterior = fit(split, settings, threads=1, progress=False, device="cpu").posterior
    model, train = posterior.model, posterior.train
    user = int(np.argmin(np.where(train.user_counts >= 3, train.user_counts, 99)))
    at, users, draw = np.flatnonzero(train.users == user), np.array([user]), 4
    items, ratings = train.items[at], train.ratings[at]
    v, c = posterior.pairs.draw_rows("item", items, np.array([draw]), 0)
    assert c is not None
    drawn = torch.cat([v[0], c[0][:, None]], 1).double()
    prior, own = _Priors(posterior, users, 0), OwnTerms.of(posterior, users)
    assert own is not None
    assert (own.shifts is not None) == (guide == "encoders")
    rows = Segments.of_index(torch.zeros(len(at), dtype=torch.long), 1)
    places = torch.arange(len(at))
    integral = _RowIntegral(posterior, ratings, rows, places, _item_noise(posterior, items), own, 1, 4000)
    with torch.no_grad():
        found, error = integral(drawn, prior, draw, 0)
        n = 200_000
        rng = np.random.default_rng(0)
        precision, mean = prior.normal(draw)
        root = np.linalg.inv(np.linalg.cholesky(precision.numpy())).T
        x = mean[0].numpy() + rng.normal(size=(n, 3)) @ root.T
        assert own.shapes is not None
        shape = float(own.shapes[min(draw, len(own.shapes) - 1)])
        if guide == "exact head":
            found_by_fit = posterior.guide.state_dict()["user.row_precision_shape"]  # type: ignore[attr-defined]
            assert shape == float(found_by_fit) != 10.0
        scale = rng.gamma(shape, 1 / shape, n) ** -0.5
        shifts = np.zeros((n, 3))
        if own.spread is not None:
            shifts = rng.normal(size=(n, 3)) * own.spread.numpy()
        cuts = model.likelihood.cuts.detach().numpy()  # type: ignore[union-attr]
        gaps = np.exp(np.log(np.diff(cuts)) + shifts).cumsum(1)
        whole = np.concatenate([np.zeros((n, 1)), gaps], 1)
        whole = whole - whole[:, 1:2] + cuts[1]
        edges = np.concatenate([np.full((n, 1), -1e9), whole, np.full((n, 1), 1e9)], 1)
        total = np.zeros(n)
        sd = float(model.likelihood.noise_sd)  # type: ignore[arg-type]
        item_noise = _item_noise(posterior, items)
        assert item_noise is not None
        centre = float(model.predictor_centre)
        for place, (row, rating) in enumerate(zip(drawn.numpy(), ratings, strict=True)):
            eta = centre + x[:, :2] @ row[:2] + x[:, 2] + row[2]
            unit = sd * scale * float(item_noise[place])
            level = int(rating) - 1
            low, high = (edges[:, level] - eta) / unit, (edges[:, level + 1] - eta) / unit
            cell = torch.special.ndtr(torch.tensor(high)) - torch.special.ndtr(torch.tensor(low))
            total += np.log(np.maximum(cell.numpy(), 1e-300))
    brute = logsumexp(total) - np.log(n)
    spread = np.exp(total - brute).std() / np.sqrt(n)
    assert float(found) == pytest.approx(brute, abs=4 * (spread + float(error)) + 1e-3)


def test_a_user_left_out_keeps_nothing_of_its_own_cut_points() -> None:
    """A user's own cut points, planted in the posterior, propose and no more."""
    split = random_split(synthetic_ratings(40, 30, 500, n_factors=2, scale="1:5:1", seed=0).ratings, seed=0)
    settings = preset("amortized").replace(
        n_factors=2, likelihood="ordered-logistic:cuts=user", max_iterations=3, n_tower_outputs=6
    )
    posterior = fit(split, settings, threads=1, progress=False, device="cpu").posterior
    train, users = posterior.train, np.argsort(posterior.train.user_counts)[10:14]
    at = np.flatnonzero(np.isin(train.users, users))
    place = {user: row for row, user in enumerate(users.tolist())}
    rows = Segments.of_index(torch.tensor([place[user] for user in train.users[at].tolist()]), len(users))
    v, c = posterior.pairs.draw_rows("item", train.items[at], np.array([0]), 0)
    assert c is not None
    drawn, prior = torch.cat([v[0], c[0][:, None]], 1).double(), _Priors(posterior, users, 0)

    def marginal() -> torch.Tensor:
        own = OwnTerms.of(posterior, users)
        integral = _RowIntegral(
            posterior, train.ratings[at], rows, torch.arange(len(at)), None, own, len(users), 4000
        )
        with torch.no_grad():
            return integral(drawn, prior, 0, 0)[0]

    usual = marginal()
    posterior.user_rows.cuts[torch.tensor(users)] += 0.4  # type: ignore[union-attr,index]
    np.testing.assert_allclose(marginal(), usual, atol=0.12)
