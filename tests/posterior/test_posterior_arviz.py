"""The DataTree: its shape, its numbers, ArviZ's functions on it, and the same streamed to disk."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from posteriors import PoissonLikelihood, handmade, planted, random_rows, train_posterior
from scipy import stats

from pyro_bmf.data import random_split
from pyro_bmf.errors import DataError, SavedFileError, SettingsError, UnknownIdError
from pyro_bmf.export import groups
from pyro_bmf.export.arviz import GROUPS, arviz_module, to_arviz
from pyro_bmf.export.files import export_netcdf, export_parquet
from pyro_bmf.posterior import Posterior


@pytest.fixture(scope="module")
def tree(posterior: Posterior) -> xr.DataTree:
    return to_arviz(posterior, user_ids=[5, 8, 11], num_samples=300, seed=4)


def test_groups_dimensions_and_ids(posterior: Posterior, tree: xr.DataTree) -> None:
    assert tuple(tree.children) == GROUPS
    q = tree["posterior"]
    assert q["user_factors"].dims == ("chain", "draw", "user", "factor")
    assert q["item_factors"].dims == ("chain", "draw", "item", "factor")
    assert q["user_bias"].dims == ("chain", "draw", "user")
    assert q["uv"].dims == q["eta"].dims == ("chain", "draw", "pair")
    assert q["user"].values.tolist() == [5, 8, 11]
    own = posterior.train.users < 3
    assert tree["observed_data"]["rating"].values.tolist() == posterior.train.ratings[own].tolist()
    items = posterior.item_vocabulary.raw(posterior.train.items[own])
    assert tree["observed_data"]["item_id"].values.tolist() == items.tolist()
    assert q["item"].values.tolist() == sorted(set(items.tolist()))
    constants = tree["constant_data"]
    noise = float(posterior.model.likelihood.noise_sd.detach())
    assert float(constants["noise"]) == pytest.approx(noise)
    assert constants["user_count"].values.tolist() == posterior.train.user_counts[:3].tolist()


def test_the_draws_are_the_posteriors_own(posterior: Posterior, tree: xr.DataTree) -> None:
    q, observed = tree["posterior"], tree["observed_data"]
    pairs = observed["user_id"].values, observed["item_id"].values
    np.testing.assert_array_equal(q["eta"].values[0], posterior.sample(*pairs, 300, 4, kind="eta"))
    by_hand = (
        q["user_factors"].sel(user=observed["user_id"]).values
        * q["item_factors"].sel(item=observed["item_id"]).values
    ).sum(-1)
    np.testing.assert_allclose(q["uv"].values, by_hand, atol=1e-6)
    shift = (
        q["user_bias"].sel(user=observed["user_id"]).values
        + q["item_bias"].sel(item=observed["item_id"]).values
        + float(posterior.model.centre)
    )
    np.testing.assert_allclose(q["eta"].values, by_hand + shift, atol=1e-5)
    table = posterior.predict(*pairs)
    drawn = tree["posterior_predictive"]["rating"].values[0]
    np.testing.assert_allclose(drawn.mean(0), table["mean"], atol=4.8 * table["sd"].max() / 300**0.5)
    np.testing.assert_allclose(drawn.std(0).mean(), table["sd"].mean(), rtol=0.05)


def test_densities_are_those_of_scipy(posterior: Posterior, tree: xr.DataTree) -> None:
    noise = float(posterior.model.likelihood.noise_sd.detach())
    observed = tree["observed_data"]["rating"].values
    expected = stats.norm.logpdf(observed, tree["posterior"]["eta"].values, noise)
    np.testing.assert_allclose(tree["log_likelihood"]["rating"].values, expected, atol=2e-5)
    q, log_prior = tree["posterior"], tree["log_prior"]
    for side in ("user", "item"):
        factors = stats.norm.logpdf(q[f"{side}_factors"].values).sum(-1)
        np.testing.assert_allclose(log_prior[f"{side}_factors"].values, factors, atol=1e-4)
        bias = stats.norm.logpdf(q[f"{side}_bias"].values)
        np.testing.assert_allclose(log_prior[f"{side}_bias"].values, bias, atol=1e-5)


def test_the_log_probability_of_a_level(posterior: Posterior) -> None:
    tree = to_arviz(
        posterior,
        user_ids=5,
        num_samples=20,
        groups=("posterior", "log_likelihood", "observed_data"),
        rating_probability=True,
    )
    eta, noise = tree["posterior"]["eta"].values, float(posterior.model.likelihood.noise_sd.detach())
    observed = tree["observed_data"]["rating"].values
    low = np.where(observed == 0.5, -np.inf, observed - 0.25)
    high = np.where(observed == 5.0, np.inf, observed + 0.25)
    expected = np.log(stats.norm.cdf(high, eta, noise) - stats.norm.cdf(low, eta, noise))
    np.testing.assert_allclose(tree["log_likelihood"]["rating"].values, expected, atol=1e-4)
    assert tree.attrs["log_likelihood_of"] == "probability of the rating's level"
    continuous = handmade(random_rows(2, 2), random_rows(2, 2), scale="0:5")
    with pytest.raises(SettingsError, match="continuous"):
        to_arviz(continuous, rating_probability=True)


def test_prior_draws_follow_the_prior(posterior: Posterior) -> None:
    tree = to_arviz(posterior, num_samples=200, groups=("prior", "prior_predictive"))
    factors = tree["prior"]["user_factors"].values
    assert stats.kstest(factors.ravel()[::7], "norm").pvalue > 1e-3
    noise = float(posterior.model.likelihood.noise_sd.detach())
    # var = K of u.v, 1 + 1 of the biases, and the noise.
    spread = tree["prior_predictive"]["rating"].values.std()
    assert spread == pytest.approx((3 + 2 + noise**2) ** 0.5, rel=0.1)
    residual = (tree["prior_predictive"]["rating"] - tree["prior"]["eta"]).values / noise
    assert stats.kstest(residual.ravel()[::97], "norm").pvalue > 1e-3


def test_attributes_tell_what_it_is_of() -> None:
    split = random_split(planted(), seed=2)
    posterior = train_posterior(split.train, iterations=1, beta=0.25)
    tree = to_arviz(posterior, split, num_samples=2, user_ids=5)
    assert tree.attrs["split_hash"] == split.hash
    assert tree.attrs["data_hash"] == split.ratings.data_hash
    assert tree.attrs["tempered"] == 1
    assert tree.attrs["beta_user"] == 0.25
    assert json.loads(tree.attrs["settings"]) == {"iterations": 1}
    assert tree.attrs["inference_library"] == "pyro_bmf"
    test = to_arviz(posterior, split, part="test", num_samples=2, user_ids=5)
    first = split.test.users == 0
    assert test["observed_data"]["rating"].values.tolist() == split.test.ratings[first].tolist()
    with pytest.raises(SettingsError, match="give the split"):
        to_arviz(posterior, part="test")
    with pytest.raises(SettingsError, match="'all'"):
        to_arviz(posterior, split, part="all")
    with pytest.raises(SettingsError, match="other users or items"):
        to_arviz(posterior, random_split(planted(n_users=20, n_ratings=400)))


def test_a_subset_is_a_part_of_the_whole(posterior: Posterior) -> None:
    names = ("posterior", "log_likelihood", "observed_data")
    some = to_arviz(posterior, item_ids=[1007, 1000], user_ids=[8, 5], num_samples=10, groups=names)
    whole = to_arviz(posterior, item_ids=posterior.item_vocabulary.ids, num_samples=10, groups=names)
    same = whole["posterior"].sel(user=[5, 8], item=[1000, 1007])
    np.testing.assert_array_equal(some["posterior"]["user_factors"], same["user_factors"])
    np.testing.assert_array_equal(some["posterior"]["item_bias"], same["item_bias"])
    assert whole.posterior.sizes["pair"] == len(posterior.train)


def test_pairs_are_looked_up(posterior: Posterior) -> None:
    train = posterior.train
    rows = np.array([17, 3, 40])
    pairs = pd.DataFrame(
        {
            "user_id": train.user_vocabulary.raw(train.users[rows]),
            "item_id": train.item_vocabulary.raw(train.items[rows]),
        }
    )
    tree = to_arviz(posterior, pairs=pairs, num_samples=3)
    assert tree["observed_data"]["rating"].values.tolist() == train.ratings[rows].tolist()
    assert tree["log_likelihood"]["user_id"].values.tolist() == pairs["user_id"].tolist()
    seen = train.item_vocabulary.raw(train.items[train.users == 0])
    other = np.setdiff1d(train.item_vocabulary.ids, seen)[0]
    with pytest.raises(DataError, match=f"item {other} are not an observed pair"):
        to_arviz(posterior, pairs=pd.DataFrame({"user_id": [5], "item_id": [other]}))
    with pytest.raises(SettingsError, match="either"):
        to_arviz(posterior, pairs=pairs, user_ids=[5])
    with pytest.raises(UnknownIdError, match="user id 6"):
        to_arviz(posterior, user_ids=6)


def test_too_much_for_memory_says_what_to_do(posterior: Posterior) -> None:
    with pytest.raises(SettingsError, match=r"GB\).*export_netcdf"):
        to_arviz(posterior, num_samples=2_000_000)
    with pytest.raises(SettingsError, match="'posteriors'"):
        to_arviz(posterior, groups=("posteriors",))


# ------------------------------------------------------------------ ArviZ


def test_summary_of_a_subset(tree: xr.DataTree, posterior: Posterior) -> None:
    az = arviz_module()
    table = az.summary(tree, var_names=["eta", "user_bias"], round_to="none")
    means = table.loc[[name for name in table.index if name.startswith("eta")], "mean"].astype(float)
    observed = tree["observed_data"]
    expected = posterior.predict(observed["user_id"].values, observed["item_id"].values)["mean"]
    np.testing.assert_allclose(means, expected, atol=0.2)
    assert (table["ess_bulk"].astype(float) > 100).all()


def test_loo_is_the_importance_sampling_estimate(tree: xr.DataTree) -> None:
    az = arviz_module()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Estimated shape parameter", UserWarning)
        result = az.loo(tree, pointwise=True)
    log_likelihood = tree["log_likelihood"]["rating"].values[0].astype(np.float64)
    # Without smoothing: minus the log of the mean of 1 / p.
    raw = -(np.logaddexp.reduce(-log_likelihood, axis=0) - np.log(len(log_likelihood)))
    good = np.asarray(result.pareto_k) < 0.5
    assert good.sum() > 10
    np.testing.assert_allclose(np.asarray(result.elpd_i)[good], raw[good], atol=0.1)


@pytest.mark.parametrize("name", ["plot_ppc_dist", "plot_ppc_tstat", "plot_loo_pit"])
def test_predictive_plots(tree: xr.DataTree, name: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    collection = getattr(arviz_module(), name)(tree, backend="matplotlib")
    assert collection.viz is not None
    plt.close("all")


def test_power_scaling_reads_log_prior(posterior: Posterior) -> None:
    """Of one user's bias, given that user's prior and likelihood alone: the joint one has no use."""
    tree = to_arviz(posterior, user_ids=5, num_samples=500)
    own = tree.copy()
    own["log_prior"] = xr.DataTree(tree["log_prior"].to_dataset()[["user_bias"]])
    table = arviz_module().psense(own, var_names=["user_bias"], group="prior")
    assert np.isfinite(float(np.asarray(table["user_bias"]).ravel()[0]))


def test_one_module_knows_arviz() -> None:
    package = Path(groups.__file__).parents[1]
    knowing = [
        path.name
        for path in package.rglob("*.py")
        if any(
            line.lstrip().startswith(("import arviz", "from arviz")) or 'import_module("arviz' in line
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert knowing == ["arviz.py"]
    code = "import sys, pyro_bmf.posterior; sys.exit('arviz' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------ files


def assert_trees_equal(one: xr.DataTree, other: xr.DataTree) -> None:
    assert tuple(one.children) == tuple(other.children)
    for name in one.children:
        xr.testing.assert_identical(
            one[name].to_dataset().drop_attrs(), other[name].to_dataset().load().drop_attrs()
        )
    assert {k: str(v) for k, v in one.attrs.items()} == {k: str(v) for k, v in other.attrs.items()}


@pytest.mark.parametrize("which", ["posterior", "text_posterior"])
def test_a_streamed_file_is_the_tree(
    which: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    posterior = request.getfixturevalue(which)
    users = posterior.user_vocabulary.ids[:20]
    monkeypatch.setattr(groups, "_PAIR_BLOCK", 97)
    whole = to_arviz(posterior, user_ids=users, num_samples=30, seed=1)
    # Three draws at a time, and 97 pairs: the seams must not show.
    monkeypatch.setattr(groups, "_ROWS", 3 * 20_000)
    path = export_netcdf(
        posterior, tmp_path / "draws.nc", user_ids=users, num_samples=30, seed=1, functionals=True
    )
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert_trees_equal(whole, tree)
    assert [p.name for p in tmp_path.iterdir()] == ["draws.nc"]


def test_blocks_of_pairs_have_noise_of_their_own(
    posterior: Posterior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "_PAIR_BLOCK", 5)
    names = ("posterior", "posterior_predictive", "prior", "prior_predictive")
    tree = to_arviz(posterior, user_ids=[5, 8], num_samples=300, groups=names)
    for group in ("posterior", "prior"):
        noise = (tree[f"{group}_predictive"]["rating"] - tree[group]["eta"]).values[0]
        correlation = np.corrcoef(noise[:, :15].T)
        np.fill_diagonal(correlation, 0.0)
        assert np.abs(correlation).max() < 4.5 / 300**0.5


def test_a_tree_survives_netcdf(tree: xr.DataTree, tmp_path: Path) -> None:
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as again:
        assert_trees_equal(tree, again)
        assert float(arviz_module().hdi(again["posterior"]["user_bias"]).sum()) != 0.0


def test_everything_is_exported_when_nothing_is_named(posterior: Posterior, tmp_path: Path) -> None:
    path = export_netcdf(posterior, tmp_path / "a.nc", num_samples=4, groups=("posterior", "log_likelihood"))
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        assert tree["posterior"].sizes["user"] == 60
        assert "uv" not in tree["posterior"]
        assert tree["log_likelihood"]["rating"].shape == (1, 4, 900)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    posterior = train_posterior(planted(400, 300, 40_000), iterations=0)
    peaks = []
    for num_samples in (122, 488):
        tracemalloc.start()
        path = export_netcdf(
            posterior, tmp_path / f"{num_samples}.nc", num_samples=num_samples, groups=("log_likelihood",)
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert path.stat().st_size > num_samples * 40_000 * 4
    # A larger file of 32 MB more takes the same memory, well below its size.
    assert peaks[1] < 1.1 * peaks[0] + 1e6
    assert peaks[1] < 40e6


def test_a_failed_export_leaves_nothing(
    posterior: Posterior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(groups.GroupPlan, "_fill_posterior", full)
    with pytest.raises(OSError, match="disk full"):
        export_netcdf(posterior, tmp_path / "a.nc", num_samples=3)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_named(
    posterior: Posterior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(SettingsError, match="GB free"):
        export_netcdf(posterior, tmp_path / "a.nc", num_samples=3)


def test_parquet_tables(posterior: Posterior, text_posterior: Posterior, tmp_path: Path) -> None:
    export_parquet(posterior, tmp_path)
    users, items = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("users", "items"))
    assert users["user_id"].tolist() == posterior.user_vocabulary.ids.tolist()
    assert users["n_ratings"].tolist() == posterior.train.user_counts.tolist()
    assert items["title"][0] == "Título 1000 映画"
    np.testing.assert_array_equal(users[["loc_0", "loc_1", "loc_2"]], posterior.user_rows.loc)
    np.testing.assert_array_equal(items["scale_1"], posterior.item_rows.scale[:, 1])
    np.testing.assert_array_equal(items["bias_loc"], posterior.item_rows.bias_loc)
    described = json.loads((tmp_path / "posterior.json").read_text(encoding="utf-8"))
    assert described["scale"]["high"] == 5.0
    export_parquet(text_posterior, tmp_path / "text")
    text = pd.read_parquet(tmp_path / "text" / "users.parquet")
    assert text["user_id"].tolist() == text_posterior.user_vocabulary.ids.tolist()
    assert "bias_loc" not in text


def test_a_likelihood_of_counts_draws_counts(tmp_path: Path) -> None:
    posterior = handmade(random_rows(3, 2), random_rows(3, 2), likelihood=PoissonLikelihood(), scale="0:9:1")
    tree = to_arviz(posterior, num_samples=50)
    drawn = tree["posterior_predictive"]["rating"].values
    assert (drawn == np.round(drawn)).all()
    assert "noise" not in tree["constant_data"]
    assert torch.isfinite(torch.tensor(tree["log_likelihood"]["rating"].values)).all()
    with pytest.raises(SavedFileError):
        Posterior.load(tmp_path)
