"""A chain given to other programs says that it is one, and holds what it drew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from pyro_bmf.data import Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SettingsError
from pyro_bmf.export.arviz import arviz_module, halves, to_arviz
from pyro_bmf.export.files import export_netcdf, export_parquet
from pyro_bmf.fitting import fit
from pyro_bmf.methods.gibbs.settings import Gibbs
from pyro_bmf.methods.settings import preset
from pyro_bmf.numerics.convergence import split_r_hat
from pyro_bmf.posterior import Posterior


@pytest.fixture(scope="module")
def stars() -> Split:
    rng = np.random.default_rng(3)
    users, items = np.nonzero(rng.random((40, 30)) < 0.5)
    utility = 3.2 + rng.normal(size=(40, 1))[users, 0] * 0.6 + 0.7 * rng.normal(size=len(users))
    ratings = np.clip(np.round(utility), 1, 5)
    return random_split(ratings_from_arrays(users + 100, items + 7, ratings, scale="1:5:1"), seed=0)


@pytest.fixture(scope="module", params=["default", "normal", "after-a-guide"])
def posterior(request: Any, stars: Split) -> Posterior:
    chain = {"n_factors": 2, "sweeps": 60, "burn_in": 17, "kept_draws": 20, "seed": 11}
    settings = {
        "default": preset("gibbs").replace(**chain),
        "normal": preset("gibbs").replace(**chain, likelihood="normal", row_noise="none"),
        "after-a-guide": preset("amortized").replace(
            **{**chain, "plain_sweeps": 5},
            then=Gibbs(),
            max_iterations=2,
            patience=None,
            likelihood="ordered-probit",
        ),
    }[request.param]
    return fit(stars, settings, threads=1, progress=False).posterior


def test_the_tree_is_a_chain(posterior: Posterior) -> None:
    tree = to_arviz(posterior, user_ids=[100, 105], groups=("posterior", "observed_data", "constant_data"))
    attributes = tree.attrs
    assert "Gibbs chain" in attributes["sampling"]
    assert "variational" not in attributes["sampling"]
    # 43 sweeps after the burn-in make 20 draws two sweeps apart, of which three more are burnt.
    assert [attributes[name] for name in ("n_sweeps", "burn_in", "thinning", "kept_draws")] == [60, 20, 2, 20]
    assert attributes["n_chains"] == 1
    assert attributes["chain_seed"] == 11
    followed = posterior.info["iterations"]
    assert attributes["started_from"] == ("a guide fitted in 2 iterations" if followed else "a random start")
    posterior = posterior.to("cpu")
    guide: Any = posterior.guide
    q = tree["posterior"]
    assert q.sizes["chain"] == 1
    assert q["draw"].values.tolist() == list(range(20))
    # The guide's are in standard units: a rating is `unit` of them, and the product of two factors.
    unit, start = posterior.model.units.scale, posterior.model.units.shift

    def assert_is(name: str, standard: Any, factor: float = unit, shift: float = 0.0) -> None:
        np.testing.assert_allclose(q[name].values[0], standard * factor + shift, rtol=1e-6, atol=1e-7)

    assert_is("noise", guide.noise_precision.double().numpy() ** -0.5)
    for side in ("user", "item"):
        precision = guide.of(side).precision.double().numpy()
        assert_is(f"{side}_bias_scale", precision[:, 2, 2] ** -0.5)
        assert_is(f"{side}_factors_precision", precision[:, :2, :2], 1.0 / unit)
        location = guide.of(side).location.double().numpy()
        assert_is(f"{side}_bias_location", location[:, 2])
        assert_is(f"{side}_factors_location", location[:, :2], unit**0.5)
    # In step with the rows: the biases of the same draw.
    own = posterior.user_rows.draws[:, :, 2].double().numpy()  # type: ignore[union-attr]
    assert_is("user_bias", own[[0, 5]].T)
    assert "noise" not in tree["constant_data"]
    if guide.n_cuts:
        assert q["cuts"].dims == ("chain", "draw", "cut")
        assert q["cut"].values.tolist() == [1.5, 2.5, 3.5, 4.5]
        assert_is("cuts", guide.cuts.numpy(), unit, start)
        assert bool((np.diff(q["cuts"].values, axis=-1) > 0).all())
    else:
        assert "cuts" not in q
        assert q["noise"].values.std() > 0
    if guide.row_noise:
        np.testing.assert_array_equal(q["user_noise_shape"].values[0], guide.user.row_precision_shape.numpy())
        rows = posterior.user_rows.noise_factor.double().numpy()  # type: ignore[union-attr]
        np.testing.assert_array_equal(tree["constant_data"]["user_noise_mean"].values, rows[[0, 5]])


def test_arviz_reads_hyperparameters(posterior: Posterior) -> None:
    az = arviz_module()
    tree = to_arviz(posterior, user_ids=[100], groups=("posterior",))
    name = "cuts" if posterior.guide.n_cuts else "noise"  # type: ignore[union-attr]
    values = tree["posterior"][name].values[0].reshape(20, -1).T
    two = values.reshape(len(values), 2, 10)
    within, between = two.var(2, ddof=1).mean(1), two.mean(2).var(1, ddof=1)
    plain = az.rhat(halves(tree), var_names=[name], method="identity").to_dataset()[name].values
    np.testing.assert_allclose(np.ravel(plain), np.sqrt((0.9 * within + between) / within), rtol=1e-6)
    # Rank-normalised, as the package measures it.
    ranked = az.rhat(halves(tree), var_names=[name]).to_dataset()[name].values
    np.testing.assert_allclose(np.ravel(ranked), split_r_hat(two), rtol=1e-6)
    ess = np.ravel(az.ess(tree, var_names=[name]).to_dataset()[name].values)
    assert np.isfinite(ess).all()
    assert (ess > 0).all()
    # Beside rows and pairs: nothing that keeps ArviZ from stacking a group.
    table = az.summary(tree, var_names=[name, "user_bias", "user_bias_scale", "eta"], round_to="none")
    means = [float(mean) for label, mean in zip(table.index, table["mean"], strict=True) if name in label]
    np.testing.assert_allclose(means, values.mean(1), rtol=1e-6)


def test_pairs_tell_their_ids(posterior: Posterior) -> None:
    train = posterior.train
    names = ("observed_data", "posterior_predictive", "log_likelihood", "prior_predictive")
    tree = to_arviz(posterior, user_ids=[100, 105], num_samples=3, groups=names)
    at = np.isin(train.users, [0, 5])
    for group in names:
        assert tree[group]["rating"].dims[-1] == "pair"
        ids = [tree[group]["rating"].coords[f"{side}_id"].values.tolist() for side in ("user", "item")]
        assert ids[0] == posterior.user_vocabulary.raw(train.users[at]).tolist()
        assert ids[1] == posterior.item_vocabulary.raw(train.items[at]).tolist()
    assert tree["observed_data"]["rating"].values.tolist() == train.ratings[at].tolist()


def test_files_hold_the_same(posterior: Posterior, tmp_path: Path) -> None:
    whole = to_arviz(posterior, user_ids=[100, 105], functionals=False)
    path = export_netcdf(posterior, tmp_path / "chain.nc", user_ids=[100, 105])
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        for name in whole.children:
            xr.testing.assert_identical(
                whole[name].to_dataset().drop_attrs(), tree[name].to_dataset().load().drop_attrs()
            )
        assert {k: str(v) for k, v in whole.attrs.items()} == {k: str(v) for k, v in tree.attrs.items()}
    export_parquet(posterior, tmp_path / "tables")
    table = pd.read_parquet(tmp_path / "tables" / "chain.parquet")
    q = whole["posterior"]
    np.testing.assert_array_equal(table["noise"], q["noise"].values[0])
    np.testing.assert_array_equal(table["item_bias_scale"], q["item_bias_scale"].values[0])
    cuts = [name for name in table if name.startswith("cut_")]
    assert len(cuts) == posterior.guide.n_cuts  # type: ignore[union-attr]
    for place, name in enumerate(cuts):
        np.testing.assert_array_equal(table[name], q["cuts"].values[0][:, place])
    described = json.loads((tmp_path / "tables" / "posterior.json").read_text(encoding="utf-8"))
    assert described["n_sweeps"] == 60
    assert "Gibbs chain" in described["sampling"]


def test_fewer_draws_are_the_first(posterior: Posterior) -> None:
    torch.manual_seed(0)
    tree = to_arviz(posterior, user_ids=[100], num_samples=6, groups=("posterior",))
    guide: Any = posterior.to("cpu").guide
    first = guide.noise_precision.numpy()[:6] ** -0.5 * posterior.model.units.scale
    np.testing.assert_allclose(tree["posterior"]["noise"].values[0], first, rtol=1e-12)


def test_draws_of_a_guide_are_no_chain(stars: Split) -> None:
    settings = preset("amortized").replace(max_iterations=1, patience=None, n_factors=2)
    posterior = fit(stars, settings, threads=1, progress=False).posterior
    tree = to_arviz(posterior, user_ids=[100], num_samples=8, groups=("posterior", "constant_data"))
    assert "no Markov chain" in tree.attrs["sampling"]
    assert "n_sweeps" not in tree.attrs
    assert set(tree["posterior"].data_vars) == {
        *("user_factors", "item_factors", "user_bias", "item_bias", "uv", "eta")
    }
    with pytest.raises(SettingsError, match="no Markov chain"):
        halves(tree)
