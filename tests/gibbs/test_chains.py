"""Several chains: starts far apart, draws that know whose they are, and R-hat over all of them."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from recorders import StopsAt

from pyro_bmf.checking.chain_diagnosis import diagnose_chain
from pyro_bmf.checking.loo import psis_loo
from pyro_bmf.data import Split, random_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.errors import SettingsError
from pyro_bmf.export.arviz import arviz_module, chain_diagnostics, halves, to_arviz
from pyro_bmf.export.files import export_netcdf, export_parquet
from pyro_bmf.fit_result import FitResult
from pyro_bmf.fitting import fit
from pyro_bmf.methods.gibbs import chain as chain_module
from pyro_bmf.methods.gibbs.chain_state import ChainState, start_precision
from pyro_bmf.methods.kernel import Entries
from pyro_bmf.methods.settings import Settings, preset
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.row_draws import DrawnPairs, RowDraws
from pyro_bmf.model.sampling import ChainDraws
from pyro_bmf.numerics.convergence import split_r_hat
from pyro_bmf.numerics.keyed_draws import Stream
from pyro_bmf.posterior import Posterior
from pyro_bmf.posterior.settling import check_settling

CHAINS = 3
SMALL = preset().replace(
    n_factors=2, implicit=True, max_iterations=4, plain_iterations=2, sweeps=40, burn_in=20, kept_draws=10
)


@pytest.fixture(scope="module")
def stars() -> Split:
    rng = np.random.default_rng(4)
    users, items = np.nonzero(rng.random((60, 40)) < 0.5)
    u, v = rng.normal(size=(60, 2)), rng.normal(size=(40, 2))
    utility = 3.0 + 0.8 * (u[users] * v[items]).sum(1) + 0.7 * rng.normal(size=len(users))
    ratings = np.clip(np.round(utility), 1, 5)
    return random_split(ratings_from_arrays(users, items, ratings, scale="1:5:1"), seed=0)


def run(split: Split, settings: Settings, **how: Any) -> FitResult:
    return fit(split, settings, threads=1, **{"progress": False, **how})


@pytest.fixture(scope="module")
def one(stars: Split) -> Posterior:
    return run(stars, SMALL).posterior


@pytest.fixture(scope="module")
def fitted(stars: Split) -> FitResult:
    return run(stars, SMALL.replace(chains=CHAINS))


@pytest.fixture(scope="module")
def several(fitted: FitResult) -> Posterior:
    return fitted.posterior


def draws_of(posterior: Posterior, side: str = "user") -> RowDraws:
    rows = getattr(posterior, f"{side}_rows")
    assert isinstance(rows, RowDraws)
    return rows


def test_the_first_chain_is_the_only_one_and_the_others_are_of_their_own(stars: Split) -> None:
    """From the prior, as after a guide the first of several has its factors reopened."""
    settings = preset("gibbs").replace(n_factors=2, implicit=True, sweeps=40, burn_in=20, kept_draws=10)
    one, fitted = run(stars, settings).posterior, run(stars, settings.replace(chains=CHAINS))
    several = fitted.posterior
    for side in ("user", "item"):
        alone, all_draws = draws_of(one, side), draws_of(several, side)
        assert all_draws.n_draws == CHAINS * alone.n_draws
        assert torch.equal(all_draws.draws[:, ::CHAINS], alone.draws)
        assert torch.equal(all_draws.means[:, ::CHAINS], alone.means)
    cuts: Any = several.guide.cuts  # type: ignore[attr-defined]
    assert torch.equal(cuts[::CHAINS], one.guide.cuts)  # type: ignore[attr-defined]
    assert not torch.equal(cuts[1::CHAINS], cuts[2::CHAINS])
    assert [record["sweep"] for record in fitted.history if "sweep" in record] == list(range(1, 121))


def test_all_chains_end_in_the_same_posterior(several: Posterior) -> None:
    """Their predictors agree as far as thirty draws tell, though they started far apart."""
    train = several.train
    draws = np.arange(30)
    eta = several.pairs.draw_eta(train.users, train.items, draws, 0).T.double().numpy()
    means = several.sampling.by_chain(eta).mean(2)
    assert means.shape == (len(train), CHAINS)
    assert np.corrcoef(means.T).min() > 0.93


def test_later_chains_start_far_apart(stars: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows, noise and cut points of every start: apart by more than the posterior is wide."""
    starts: list[tuple[float, float]] = []
    cuts: list[torch.Tensor] = []
    anew, spread = chain_module.Chain._start_anew, chain_module.Chain._spread_cuts

    def noted(self: Any, noise: float) -> ChainState:
        state = anew(self, noise)
        starts.append((float(state.user.rows.std()), float(state.noise_precision.rsqrt())))
        return state

    def spread_noted(self: Any, state: ChainState) -> None:
        spread(self, state)
        cuts.append(state.cuts)

    monkeypatch.setattr(chain_module.Chain, "_start_anew", noted)
    monkeypatch.setattr(chain_module.Chain, "_spread_cuts", spread_noted)
    posterior = run(stars, SMALL.replace(chains=6)).posterior
    rows, noise = np.array(starts).T
    assert len(rows) == len(cuts) == 5
    assert rows.max() / rows.min() > 1.5
    assert noise.max() / noise.min() > 1.2
    lengths = torch.stack([one[-1] - one[0] for one in cuts])
    kept: Any = posterior.guide.cuts  # type: ignore[attr-defined]
    assert float(lengths.std() / (kept[:, -1] - kept[:, 0]).std()) > 1.5
    assert all(bool((one.diff() > 0).all()) for one in cuts)


@pytest.mark.parametrize(
    ("size", "n_factors", "strength", "low", "high"),
    [((120, 80), 8, 0.0, 0.0, 0.06), ((60, 40), 2, 0.9, 0.7, 0.9)],
)
def test_chains_from_nothing_soon_explain_what_there_is(
    size: tuple[int, int], n_factors: int, strength: float, low: float, high: float
) -> None:
    """Of noise next to nothing, whatever factors there are; and products, which have not died out."""
    rng = np.random.default_rng(0)
    users, items = np.nonzero(rng.random(size) < 0.55)
    u, v = (rng.normal(size=(2, n)) for n in size)
    values = rng.normal(3.0 + strength * (u[:, users] * v[:, items]).sum(0), 1.0)
    ratings = ratings_from_arrays(users, items, values, scale="-20:20")
    split = random_split(ratings, seed=0)
    settings = preset("gibbs").replace(
        n_factors=n_factors, implicit=False, row_noise="none", likelihood="normal", chains=8, sweeps=40
    )
    posterior = run(split, settings.replace(burn_in=20, kept_draws=20)).posterior
    of_users, of_items = (draws_of(posterior, side).draws[:, :, :n_factors] for side in ("user", "item"))
    spreads = torch.einsum("ndk,mdk->dnm", of_users, of_items).std((1, 2)).numpy()
    sampling = posterior.sampling
    assert isinstance(sampling, ChainDraws)
    soon = sampling.by_chain(spreads[None])[0, :, :10].mean(1)
    assert low < soon.min()
    assert soon.max() < high


@pytest.mark.parametrize("noise_sd", [0.4, 20.0])
def test_a_product_as_strong_as_the_noise_grows_sixfold_a_pass(noise_sd: float) -> None:
    """While it is weak: users that are regressed on items in its direction, and items on such users."""
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(900, generator=generator).sign(), torch.randn(600, generator=generator).sign()
    users, items = (torch.rand(900, 600, generator=generator) < 0.05).nonzero(as_tuple=True)
    feedback = Feedback.from_coo(users, items, torch.ones(len(users)).double(), 900, 600)
    precision = start_precision(noise_sd, Entries.of(feedback, torch.float32), 3, math.inf)
    assert torch.equal(precision, precision[0, 0] * torch.eye(3, dtype=torch.float64))
    product, weak = noise_sd * u[users] * v[items], 1e-4 * v
    for one, other, rows, shape in ((users, items, u, 900), (items, users, v, 600)):
        x = weak[other].double()
        squares = torch.zeros(shape).double().index_add_(0, one, x * x) / noise_sd**2
        sums = torch.zeros(shape).double().index_add_(0, one, x * product) / noise_sd**2
        weak = sums / (squares + precision[0, 0])
        strength = float((weak * rows).mean())
    assert math.sqrt(strength / 1e-4) == pytest.approx(6.0, rel=0.02)


def test_the_widest_start_is_that_of_few_ratings() -> None:
    feedback = Feedback.from_coo(torch.arange(20), torch.arange(20), torch.ones(20).double(), 20, 20)
    precision = start_precision(1.0, Entries.of(feedback, torch.float32), 2, 0.1)
    assert torch.allclose(precision, torch.eye(2, dtype=torch.float64) / 0.36)


def test_a_chain_after_a_guide_finds_the_factors_that_this_has_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Products of 120 x 100 rows: with many factors the guide loses what three of them explain."""
    rng = np.random.default_rng(0)
    users, items = np.divmod(rng.choice(12_000, size=4_000, replace=False), 100)
    u, v = rng.normal(size=(3, 120)), rng.normal(size=(3, 100))
    effects = 0.4 * (rng.normal(size=120)[users] + rng.normal(size=100)[items])
    values = 3.5 + effects + 0.35 * (u[:, users] * v[:, items]).sum(0) + 0.7 * rng.normal(size=4_000)
    stars = ratings_from_arrays(users, items, np.clip(np.round(values), 1, 5), scale="1:5:1")
    split = random_split(stars, seed=0)
    settings = preset().replace(chains=2, sweeps=40, burn_in=30, kept_draws=10)

    def spreads() -> list[float]:
        posterior = run(split, settings).posterior
        of_users, of_items = (draws_of(posterior, side).draws[:, :, :24] for side in ("user", "item"))
        found = torch.einsum("ndk,mdk->dnm", of_users, of_items).std((1, 2)).numpy()
        sampling = posterior.sampling
        assert isinstance(sampling, ChainDraws)
        return list(sampling.by_chain(found[None])[0].mean(1))

    first, second = spreads()
    assert second > 0.5
    assert first > 0.8 * second
    monkeypatch.setattr(chain_module.Chain, "_reopen", lambda self, state: None)
    assert spreads()[0] < 0.7 * second


@pytest.mark.parametrize("stop", [19, 44, 61, 82, 118])
def test_resumed_chains_repeat_the_bits(tmp_path: Path, stars: Split, several: Posterior, stop: int) -> None:
    """In the first chain, before and after a later one has cut points, and among kept draws."""
    file, settings = tmp_path / "chain.safetensors", SMALL.replace(chains=CHAINS)
    with pytest.raises(KeyboardInterrupt):
        run(stars, settings, progress=StopsAt(stop), checkpoint=file, checkpoint_every=3)
    resumed = run(stars, settings, checkpoint=file, checkpoint_every=3, resume=True).posterior
    for side in ("user", "item"):
        assert torch.equal(draws_of(resumed, side).draws, draws_of(several, side).draws)
        assert torch.equal(draws_of(resumed, side).means, draws_of(several, side).means)
    assert torch.equal(resumed.guide.cuts, several.guide.cuts)  # type: ignore[attr-defined]


def test_draws_are_given_by_chain() -> None:
    chains = np.arange(24.0).reshape(2, 3, 4)  # two quantities, three chains, four draws
    alternate = chains.swapaxes(1, 2).reshape(2, 12)
    np.testing.assert_array_equal(ChainDraws(12, 3).by_chain(alternate), chains)
    np.testing.assert_array_equal(ChainDraws(12, 3).by_chain(alternate[:, :11]), chains[:, :, :3])
    np.testing.assert_array_equal(ChainDraws(12).by_chain(alternate), alternate[:, None])
    twice = np.repeat(alternate, 2, axis=1)
    np.testing.assert_array_equal(ChainDraws(12, 3).by_chain(twice, 2), np.repeat(chains, 2, axis=2))


def moved(posterior: Posterior, by: float) -> Posterior:
    """Return a posterior of which one chain has users' biases somewhere else."""
    rows = draws_of(posterior)
    draws = rows.draws.clone()
    spread = torch.linspace(-1.0, 1.0, len(draws)).unsqueeze(1)
    draws[:, 1::CHAINS, -1] += by * spread
    # Its own guide, to which its rows are attached.
    return replace(copy.deepcopy(posterior), user_rows=replace(rows, draws=draws))


def test_a_chain_that_ended_elsewhere_is_told(several: Posterior) -> None:
    """Which no chain alone can know: the halves of each agree."""
    train = several.train
    elsewhere = moved(several, 4.0)
    found = check_settling(elsewhere, (train.users, train.items), sweeps=40, burn_in=20)
    told = {one.name: one.r_hat for one in found.quantities}
    assert told["sd of user effects"] > 1.5
    assert found.chains == CHAINS
    sentence = found.sentence()
    assert sentence is not None
    assert sentence.startswith("The 3 chains have not settled: ")
    alone = replace(elsewhere, user_rows=replace(draws_of(elsewhere), chains=None))
    mixed = check_settling(alone, (train.users, train.items), sweeps=40, burn_in=20)
    assert {one.name: one.r_hat for one in mixed.quantities}["sd of user effects"] < 1.2
    diagnosis = diagnose_chain(elsewhere)
    assert (diagnosis.n_draws, diagnosis.chains) == (30, CHAINS)
    rows = diagnosis.rows["user"]
    assert rows["r_hat"].iloc[[0, -1]].min() > 1.5


def test_few_draws_of_each_chain_tell_nothing(stars: Split) -> None:
    posterior = run(stars, SMALL.replace(chains=2, kept_draws=6)).posterior
    words = check_settling(posterior, (stars.train.users, stars.train.items), sweeps=40, burn_in=20).words()
    assert words == "12 draws of 2 chains are too few to tell whether they have settled"


def test_arviz_sees_the_chains(several: Posterior, tmp_path: Path) -> None:
    """In memory and in a file, whose R-hat over them is ours."""
    tree = to_arviz(several, user_ids=[0, 1, 2], seed=1)
    assert tree["posterior"].sizes["chain"] == CHAINS
    assert tree["posterior"].sizes["draw"] == 10
    assert tree.attrs["n_chains"] == CHAINS
    assert tree.attrs["sampling"].startswith("draws of Gibbs chains, in each chain's order")
    assert tree.attrs["started_from"].endswith(" (the first chain), random starts (the others)")
    cuts: Any = several.guide.cuts  # type: ignore[attr-defined]
    by_chain = cuts.reshape(10, CHAINS, -1).transpose(0, 1).numpy()
    units = several.model.units
    np.testing.assert_allclose(tree["posterior"]["cuts"], by_chain * units.scale + units.shift)
    file = export_netcdf(several, tmp_path / "draws.nc", user_ids=[0, 1, 2], seed=1)
    with xr.open_datatree(file, engine="h5netcdf") as saved:
        for group in ("posterior", "posterior_predictive", "log_likelihood"):
            assert saved[group].sizes["chain"] == CHAINS
            for name, values in saved[group].data_vars.items():
                np.testing.assert_array_equal(tree[group][str(name)], values)
    assert halves(tree)["posterior"].sizes["chain"] == 2 * CHAINS
    rhat = arviz_module().rhat(tree, var_names=["cuts"])
    ours = split_r_hat(by_chain.transpose(2, 0, 1).astype(float))
    # Of an even number of draws the two about the median are as far from it but for rounding: half a rank.
    np.testing.assert_allclose(rhat.to_dataset()["cuts"].values, ours, rtol=0.02)
    table = pd.read_parquet(export_parquet(several, tmp_path / "tables") / "chain.parquet")
    assert table["chain"].tolist()[:4] == [0, 1, 2, 0]
    assert table["draw"].tolist()[:4] == [0, 0, 0, 1]
    assert len(chain_diagnostics(several, n_pairs=20)) == 20


def test_what_several_chains_started_from_is_told() -> None:
    """A guide puts the first in its place alone."""
    for chains, after, told in (
        (1, 15, "a guide fitted in 15 iterations"),
        (3, 15, "a guide fitted in 15 iterations (the first chain), random starts (the others)"),
        (3, 0, "a random start"),
    ):
        assert ChainDraws(12, chains).attributes({"iterations": after})["started_from"] == told


def test_as_many_draws_are_exported_of_each_chain(several: Posterior) -> None:
    some = to_arviz(several, user_ids=[0], num_samples=6)
    assert dict(some["posterior"].sizes)["draw"] == 2
    for asked in (7, 8, 9):
        assert dict(to_arviz(several, user_ids=[0], num_samples=asked)["posterior"].sizes)["draw"] == 3


def test_chains_are_saved_and_folded_in_with(several: Posterior, tmp_path: Path) -> None:
    several.save(tmp_path / "posterior")
    again = Posterior.load(tmp_path / "posterior")
    assert again.sampling == ChainDraws(30, CHAINS)
    assert torch.equal(draws_of(again).draws, draws_of(several).draws)


def test_new_rows_join_all_chains(one: Posterior, several: Posterior) -> None:
    """Whose factors are turned to each other: predictions are as sure as beside one chain."""
    rng = np.random.default_rng(5)
    ids = rng.permutation(40)[:15]
    new = pd.DataFrame({"user_id": 999, "item_id": ids, "rating": rng.integers(1, 6, 15).astype(float)})
    alone, joined = (
        posterior.fold_in_users(new).predict(np.full(40, 999), np.arange(40)) for posterior in (one, several)
    )
    assert np.corrcoef(alone["mean"], joined["mean"])[0, 1] > 0.95
    assert float((joined["sd"] / alone["sd"]).median()) == pytest.approx(1.0, abs=0.1)
    assert float((joined["mean_sd"] / alone["mean_sd"]).median()) == pytest.approx(1.0, abs=0.35)


def test_ratings_are_left_out_of_all_chains(one: Posterior, several: Posterior) -> None:
    alone, together = psis_loo(one, subset=200), psis_loo(several, subset=200)
    assert together.n_draws % (10 * CHAINS) == 0
    assert 0.0 < together.efficiency <= 1.5
    assert np.corrcoef(alone.elpd, together.elpd)[0, 1] > 0.85
    assert together.elpd.mean() == pytest.approx(alone.elpd.mean(), abs=0.03)


def test_rankings_are_screened_by_draws_of_one_chain_each() -> None:
    """Factors stand anywhere in another chain: their average over chains would say nothing of products."""
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(n, 3, generator=generator) for n in (7, 5))
    turns = [torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q for _ in range(CHAINS)]
    rows = [torch.stack([side @ turn for turn in turns * 4], 1) for side in (u, v)]  # alternately
    known = [RowDraws(one, one, torch.tensor(False), chains=torch.tensor(CHAINS)) for one in rows]
    streams = Stream.USERS, Stream.ITEMS
    left, right = DrawnPairs(known[0], known[1], torch.zeros(()), streams).screen_features(CHAINS)
    torch.testing.assert_close(left @ right.T, u @ v.T)
    unknown = [replace(one, chains=None) for one in known]
    left, right = DrawnPairs(unknown[0], unknown[1], torch.zeros(()), streams).screen_features(CHAINS)
    assert float((left @ right.T - u @ v.T).abs().max()) > 0.5


def test_chains_are_asked_for_by_a_whole_number() -> None:
    with pytest.raises(SettingsError, match="chains"):
        SMALL.replace(chains=0)
    asked = preset("gibbs").replace(chains=4, sweeps=60, burn_in=20, kept_draws=40).gibbs
    assert asked is not None
    assert (asked.all_sweeps, asked.all_draws) == (240, 160)
