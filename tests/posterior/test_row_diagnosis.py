"""Rows' diagnostics: exact where the target is Normal, red for a broken guide, quiet for a right one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from posteriors import planted

from pyro_bmf.checking.row_diagnosis import _exact_gaps, _searched_gaps, diagnose_rows
from pyro_bmf.checking.row_target import RowTargets
from pyro_bmf.checking.sensitivity import cjs_sensitivity, power_scale_users
from pyro_bmf.data import random_split
from pyro_bmf.errors import SettingsError
from pyro_bmf.export.arviz import arviz_module
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.model.fitted import Side
from pyro_bmf.model.rows import log_density
from pyro_bmf.numerics.convergence import bulk_ess, split_r_hat
from pyro_bmf.posterior import Posterior
from pyro_bmf.progress import Silent


@pytest.fixture(scope="module")
def conjugate() -> Posterior:
    """Coordinate ascent: each row's q is its target."""
    settings = preset("conjugate").replace(n_factors=2, likelihood="normal", max_iterations=200)
    return fit(random_split(planted(), seed=0), settings, threads=1, progress=False).posterior


def test_a_right_guide_is_quiet(conjugate: Posterior) -> None:
    for side in ("user", "item"):
        found = diagnose_rows(conjugate, side, seed=1)
        assert found.exact_gaps
        assert not found.table["flagged"].any()
        assert found.table["amortization_gap"].abs().max() < 0.05
        assert found.table["approximation_gap"].abs().max() < 1e-9


def test_a_broken_guide_is_flagged_where_it_is_broken(conjugate: Posterior) -> None:
    broken = np.arange(0, conjugate.n_users, 7)
    rows = conjugate.user_rows
    tensors = {name: tensor.clone() for name, tensor in rows.tensors().items()}
    tensors["tril"][broken] *= 0.25
    for name in ("scale", "bias_scale"):
        tensors[name][broken] *= 0.25
    posterior = dataclasses.replace(conjugate, user_rows=type(rows)(**tensors))
    table = diagnose_rows(posterior, "user", seed=1).table
    assert table["flagged"].to_numpy()[broken].mean() > 0.9
    assert table["flagged"].drop(index=broken).mean() < 0.05
    assert (table["amortization_gap"].to_numpy()[broken] > 1.0).all()


def test_points_and_rows_with_means_of_their_own_are_refused_with_what_to_do() -> None:
    split = random_split(planted(), seed=0)
    points = fit(
        split, preset("pmf").replace(n_factors=2, max_iterations=3), threads=1, progress=False
    ).posterior
    for ask in (lambda p: diagnose_rows(p, "user"), lambda p: power_scale_users(p, n=3)):
        with pytest.raises(SettingsError, match=r"points.*--preset conjugate"):
            ask(points)
    settings = preset("guide").replace(n_factors=2, max_iterations=3)
    guide = fit(split, settings, threads=1, progress=False).posterior
    for ask in (lambda p: diagnose_rows(p, "user"), lambda p: power_scale_users(p, n=3)):
        with pytest.raises(SettingsError, match=r"--no-implicit.*--preset default"):
            ask(guide)
    # What is advised is not refused, and no encoder is blamed where there is none.
    plain = fit(split, settings.replace(implicit=False), threads=1, progress=False).posterior
    assert not diagnose_rows(plain, "user", num_samples=100, searched=0).encoded
    assert len(power_scale_users(plain, n=3, num_samples=50).table) == plain.n_users


def test_the_information_is_the_expected_log_likelihood(conjugate: Posterior) -> None:
    """The closed form against draws of the other side."""
    targets = RowTargets(conjugate, "user")
    rows = np.array([0, 3])
    x = targets.draw(rows, 5)
    found = targets.log_likelihood(rows, x)
    train, model = conjugate.train, conjugate.model
    others = targets.others
    f, b = others.sample(40_000, generator=torch.Generator(others.loc.device).manual_seed(0))
    assert b is not None
    for place, row in enumerate(rows):
        at = train.users == row
        v, c = f[:, train.items[at]], b[:, train.items[at]]
        for draw in range(5):
            eta = model.predictor_centre + v @ x[draw, place, :2] + x[draw, place, 2] + c
            values = model.likelihood(eta).log_prob(eta.new_tensor(train.ratings[at])).sum(1)
            assert float(found[draw, place]) == pytest.approx(
                float(values.mean()), abs=5 * float(values.std()) / 200
            )


def test_log_density_is_torchs(conjugate: Posterior) -> None:
    targets = RowTargets(conjugate, "item")
    q = targets.rows.select(torch.arange(4))
    assert q.tril is not None
    assert q.bias_loc is not None
    x = targets.draw(np.arange(4), 6)
    joint = torch.distributions.MultivariateNormal(
        torch.cat([q.loc, q.bias_loc[:, None]], 1), scale_tril=q.tril
    )
    torch.testing.assert_close(log_density(q, x), joint.log_prob(x))


def test_r_hat_and_ess_are_arvizs() -> None:
    pytest.importorskip("arviz_stats")
    from arviz_stats.base import array_stats

    rng = np.random.default_rng(0)
    draws = rng.normal(size=(12, 2, 150))
    for t in range(1, 150):
        draws[:, :, t] += np.linspace(0, 0.9, 12)[:, None] * draws[:, :, t - 1]
    expected = [float(array_stats.rhat(one, chain_axis=0, draw_axis=1)) for one in draws]
    np.testing.assert_allclose(split_r_hat(draws), expected, rtol=1e-8)
    sizes = [float(array_stats.ess(one, chain_axis=0, draw_axis=1)) for one in draws]
    np.testing.assert_allclose(bulk_ess(draws), sizes, rtol=1e-9)


def test_sensitivity_is_arvizs() -> None:
    az = arviz_module()
    rng = np.random.default_rng(2)
    u = rng.normal(size=4000)
    log_prior = -0.5 * u**2
    tree = az.from_dict({"posterior": {"u": u[None]}, "log_prior": {"u": log_prior[None]}})
    found = cjs_sensitivity(u[None, None], log_prior[None])[0, 0]
    expected = float(az.psense(tree, group="prior")["u"])
    assert found == pytest.approx(expected, rel=0.05)


class CountsBlocks(Silent):
    """Remembers how many blocks an iteration has."""

    n_blocks = 0

    def start(self, n_iterations: int, n_blocks: int, done: int) -> None:
        self.n_blocks = n_blocks


@pytest.mark.parametrize("size", [None, 7])
@pytest.mark.parametrize("side", ["user", "item"])
def test_a_kl_of_every_block_weighs_as_often_as_the_fit_had_blocks(side: Side, size: int | None) -> None:
    """All of this side's rows in one batch: each row is in all of the blocks that the fit tells of."""
    split = random_split(planted(), seed=0)
    own_rows = split.ratings.n_users if side == "user" else split.ratings.n_items
    other = "item" if side == "user" else "user"
    settings = preset("paper").replace(
        n_factors=2,
        max_iterations=1,
        beta_user=0.02,
        beta_item=0.03,
        **{f"{side}_batch_size": own_rows, f"{other}_batch_size": size},
    )
    blocks = CountsBlocks()
    posterior = fit(split, settings, threads=1, progress=blocks).posterior
    assert blocks.n_blocks >= 3
    weight = 0.02 if side == "user" else 0.03
    assert RowTargets(posterior, side).beta == pytest.approx(weight * blocks.n_blocks)
    # The other side's rows are in one block each.
    assert RowTargets(posterior, other).beta == pytest.approx(0.05 - weight)
    once = fit(split, settings.replace(kl_counting="once"), threads=1, progress=False).posterior
    assert RowTargets(once, side).beta == pytest.approx(weight)


def test_the_search_finds_the_closed_forms_gaps(conjugate: Posterior) -> None:
    """From a q that is too narrow and has no correlations: both gaps, within the search's own noise."""
    rows = conjugate.user_rows
    tensors = {name: tensor.clone() for name, tensor in rows.tensors().items() if name != "tril"}
    tensors["scale"] *= 0.5
    targets = RowTargets(dataclasses.replace(conjugate, user_rows=type(rows)(**tensors)), "user")
    some = np.arange(12)
    with torch.no_grad():
        exact = _exact_gaps(targets, some)
    found = _searched_gaps(targets, some)
    assert exact[0].min() > 0.3
    np.testing.assert_allclose(found[0], exact[0], atol=0.15)
    np.testing.assert_allclose(found[1], exact[1], atol=0.15)
