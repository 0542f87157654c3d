"""Every function of ArviZ that docs/arviz.md lists runs on a tree, and the list is complete."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import xarray as xr
from posteriors import load_benchmark, train_posterior

from pyro_bmf.data.synthetic import synthetic_ratings
from pyro_bmf.export.arviz import arviz_module, to_arviz
from pyro_bmf.model.likelihoods.ordered_logistic import OrderedLogisticLikelihood
from pyro_bmf.posterior import Posterior

ROOT = Path(__file__).parents[2]


LISTED = load_benchmark("arviz_functions")


@pytest.fixture(scope="module")
def stars() -> Posterior:
    made = synthetic_ratings(40, 30, 600, n_factors=2, scale="1:5:1", seed=0)
    return train_posterior(made.ratings, likelihood=OrderedLogisticLikelihood([1, 2, 3, 4, 5]), iterations=5)


@pytest.fixture(scope="module")
def tree(stars: Posterior) -> xr.DataTree:
    ids = stars.user_vocabulary.ids[:3]
    return to_arviz(stars, user_ids=ids, num_samples=100, rating_probability=True)


@pytest.mark.parametrize("name", list(LISTED.CALLS))
def test_it_runs(name: str, tree: xr.DataTree) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    with warnings.catch_warnings():
        # Of few draws; and of ArviZ's own use of pandas and matplotlib.
        warnings.filterwarnings("ignore", "Estimated shape parameter", UserWarning)
        warnings.filterwarnings("ignore", "The inplace keyword")
        warnings.filterwarnings("ignore", module="arviz")
        found = LISTED.CALLS[name](arviz_module(), tree)
    assert found is not None
    if name.startswith("plot_"):
        assert pyplot.get_fignums()
        pyplot.close("all")


def test_the_page_lists_what_is_run() -> None:
    page = (ROOT / "docs/arviz.md").read_text(encoding="utf-8")
    table = page.split("| function |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.M) == list(LISTED.CALLS)


def test_two_chains_are_the_halves(tree: xr.DataTree) -> None:
    eta = LISTED.halves(tree)["posterior"]["eta"].values
    np.testing.assert_array_equal(eta.reshape(-1, eta.shape[-1]), tree["posterior"]["eta"].values[0])


def test_one_user_s_part_is_its_own(tree: xr.DataTree, stars: Posterior) -> None:
    part = LISTED.one_user(tree)
    own = int(stars.train.user_counts[0])
    assert part["log_likelihood"].sizes["pair"] == own
    assert part["log_prior"]["user_bias"].shape == (1, 100, 1)
