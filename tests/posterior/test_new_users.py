"""The new user: integrals against the dense Normal, good questions, intervals that shrink."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from posteriors import planted

from pyro_bmf.data import random_split, users_split
from pyro_bmf.errors import DataError
from pyro_bmf.inference import fit, preset
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.elicitation import elicit
from pyro_bmf.posterior.new_users import _Priors, _RowIntegral, fold_in_half


def fitted(split: object) -> Posterior:
    settings = preset("conjugate").replace(n_factors=2, likelihood="normal", max_iterations=60)
    return fit(split, settings, threads=1, progress=False).posterior  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    """A small fit by coordinate ascent."""
    return fitted(random_split(planted(), seed=0))


def test_the_integral_over_a_row_is_the_dense_normals(posterior: Posterior) -> None:
    train, user = posterior.train, 4
    at = np.flatnonzero(train.users == user)
    items = posterior.item_rows.loc.double()  # type: ignore[union-attr]
    bias = posterior.item_rows.bias_loc.double()  # type: ignore[union-attr]
    drawn = torch.cat([items, bias[:, None]], 1)
    integral = _RowIntegral(
        posterior,
        train.ratings[at],
        torch.zeros(len(at), dtype=torch.long),
        torch.tensor(train.items[at]),
        (),
        1,
        4000,
    )
    prior = _Priors(posterior, np.array([user]), 0)
    # The density of ratings on a continuous scale: the integrand is Normal, and so its mode is exact.
    likelihood = posterior.model.likelihood
    object.__setattr__(
        integral,
        "_log_prob",
        lambda eta: likelihood(eta).log_prob(torch.tensor(train.ratings[at])),
    )
    with torch.no_grad():
        found, error = integral(drawn, prior, 0, 0)
    precision, mean = prior.normal(0)
    f = torch.cat([items[train.items[at]], torch.ones(len(at), 1, dtype=torch.float64)], 1)
    noise = likelihood.noise.double() ** 2  # type: ignore[union-attr, operator]
    covariance = f @ torch.linalg.inv(precision) @ f.T + noise * torch.eye(len(at), dtype=torch.float64)
    centre = posterior.model.predictor_centre.double() + bias[train.items[at]] + f @ mean[0]
    dense = torch.distributions.MultivariateNormal(centre, covariance)
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
