"""Simulation-based calibration: truths come from the model, and ranks say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from scipy import stats

from pyro_bmf import fit
from pyro_bmf.checking import calibration
from pyro_bmf.checking.calibration import (
    Refit,
    Truth,
    refit_ranks,
    refit_ranks_from,
    simulate,
    simulate_from,
    subsample,
)
from pyro_bmf.checking.calibration.from_posterior import _eta, _row_precisions, _truth, new_pairs
from pyro_bmf.checking.calibration.from_prior import rank
from pyro_bmf.checking.simulated_ranks import RankCheck, check_ranks
from pyro_bmf.cli.checks.calibrate import command
from pyro_bmf.cli.fit import command as fit_command
from pyro_bmf.data import Ratings, Split, random_split, synthetic_ratings
from pyro_bmf.errors import DataError, FitError, SettingsError
from pyro_bmf.methods.build_model import build_model
from pyro_bmf.methods.settings import Settings, preset


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(synthetic_ratings(30, 25, 400, n_factors=2, seed=1).ratings, seed=0)


# ---------------------------------------------------------------- truths and ratings


def test_simulated_ratings_are_of_the_same_pairs_in_the_same_parts(split: Split) -> None:
    settings = preset("default").replace(n_factors=2, likelihood="normal", row_noise="none")
    model = build_model(settings.model, gibbs=True)
    simulated, truth = simulate(model, split, centre=3.5, noise_prior=True, seed=4)
    np.testing.assert_array_equal(simulated.ratings.users, split.ratings.users)
    np.testing.assert_array_equal(simulated.test_rows, split.test_rows)
    # The ratings are the predictors of the truth and noise of the truth's size: implicit feedback is in u.
    u, v = truth.values["user_factors"], truth.values["item_factors"]
    users, items = torch.tensor(split.ratings.users), torch.tensor(split.ratings.items)
    eta = 3.5 + (u[users] * v[items]).sum(-1)
    eta = eta + truth.values["user_bias"][users] + truth.values["item_bias"][items]
    assert truth.noise is not None
    standard = (simulated.ratings.ratings - eta.double().numpy()) / truth.noise
    assert stats.kstest(standard, "norm").pvalue > 1e-3
    again, _ = simulate(model, split, centre=3.5, noise_prior=True, seed=4)
    assert again.hash == simulated.hash
    other, _ = simulate(model, split, centre=3.5, noise_prior=True, seed=5)
    assert other.hash != simulated.hash


def test_an_ordered_likelihood_simulates_levels(split: Split) -> None:
    settings = preset("conjugate").replace(n_factors=2, likelihood="ordered-probit")
    levels = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    stars = random_split(synthetic_ratings(30, 25, 400, n_factors=2, seed=1, scale="1:5:1").ratings, seed=0)
    simulated, truth = simulate(
        build_model(settings.model, levels), stars, centre=3.5, noise_prior=False, seed=0
    )
    assert set(simulated.ratings.ratings) <= set(levels)
    assert simulated.ratings.scale == stars.ratings.scale
    assert truth.noise is None


def test_subsample_keeps_ratings_among_the_rows_it_draws(split: Split) -> None:
    part = subsample(split, 20, 15, seed=3)
    assert part.ratings.n_users <= 20
    assert part.ratings.n_items <= 15
    assert len(part.ratings) < len(split.ratings)
    assert subsample(split, None, None, seed=3) is split
    with pytest.raises(DataError, match="take more"):
        subsample(split, 3, 3, seed=0)


# ---------------------------------------------------------------- what ranks say (more in test_rank_rule)


def test_one_refit_judges_nothing() -> None:
    with pytest.raises(DataError, match="two at least"):
        check_ranks({"uv": [[0.5]]}, {"uv": [[0.0]]})
    with pytest.raises(DataError, match="nothing to judge"):
        check_ranks({}, {})


# ---------------------------------------------------------------- configurations


@pytest.mark.slow
def test_a_chain_stays_quiet_and_a_wrong_beta_does_not(split: Split) -> None:
    chain = preset("default").replace(
        n_factors=2, likelihood="normal", row_noise="none", sweeps=600, burn_in=200, kept_draws=100
    )
    tempered = preset("amortized").replace(
        n_factors=2, n_tower_outputs=8, beta_user=0.05, beta_item=0.05, max_iterations=60, patience=None
    )
    found = {}
    for name, settings in (("chain", chain), ("tempered", tempered)):
        refits = [refit_ranks(split, settings, seed, threads=1) for seed in range(16)]
        kinds = refits[0].ranks
        found[name] = check_ranks(
            {kind: [refit.ranks[kind] for refit in refits] for kind in kinds},
            {kind: [refit.errors[kind] for refit in refits] for kind in kinds},
        ).summaries
    assert not any(summary.flagged for summary in found["chain"])
    assert any(summary.flagged for summary in found["tempered"])
    assert found["tempered"][0].spread > 1.5 > found["chain"][0].spread


def test_the_command_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "check.json"
    asked = ["--data", "synthetic", "--users", "50", "--items", "40", "--preset", "conjugate"]
    asked += ["--likelihood", "normal", "--factors", "2", "--iterations", "8", "--threads", "1"]
    first = CliRunner().invoke(command, [*asked, "--refits", "2", "--out", str(out)], catch_exceptions=False)
    assert "coverage of 90 %" in first.output
    before = json.loads(out.read_text())
    assert out.with_suffix(".png").stat().st_size > 5_000
    second = CliRunner().invoke(
        command, [*asked, "--refits", "3", "--out", str(out), "--json"], catch_exceptions=False
    )
    after = json.loads(out.read_text())
    assert list(after["refits"]) == ["0", "1", "2"]
    assert {name: after["refits"][name] for name in "01"} == before["refits"]
    table = json.loads(second.stdout.splitlines()[0])
    assert [row["kind"] for row in table["rows"]] == ["uv", "user bias", "item bias"]
    # Three fits see little, and say so.
    assert after["check"]["n_fits"] == 3
    assert 0.0 <= after["check"]["false_alarms"] <= 0.06
    assert "would be seen with probability" in second.stderr
    assert "takes more fits" in second.stderr
    of_before = {name: value for name, value in after.items() if name != "centre"}
    (tmp_path / "before.json").write_text(json.dumps(of_before), encoding="utf-8")
    with pytest.raises(DataError, match=r"another check \(centre differ"):
        CliRunner().invoke(
            command, [*asked, "--refits", "3", "--out", str(tmp_path / "before.json")], catch_exceptions=False
        )
    with pytest.raises(DataError, match="another check"):
        CliRunner().invoke(
            command,
            [*asked, "--refits", "3", "--out", str(out), "--simulation-seed", "3"],
            catch_exceptions=False,
        )


def test_the_command_says_which_fit_failed_and_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fits = iter([None, FitError("The chain diverged in sweep 9.")])

    def refit_ranks(part: Split, settings: Settings, seed: int, **how: object) -> Refit:
        if (failed := next(fits)) is not None:
            raise failed
        return Refit({"uv": [0.5]}, {"uv": [0.0]}, 1.0)

    monkeypatch.setattr(calibration, "refit_ranks", refit_ranks)
    with pytest.raises(FitError, match=r"fit 1 of 0 to 4 failed.* c.json keeps .* diverged in sweep 9"):
        CliRunner().invoke(
            command, ["--data", "synthetic", "--refits", "5", "--out", "c.json"], catch_exceptions=False
        )
    assert list(json.loads(Path("c.json").read_text())["refits"]) == ["0"]


# ---------------------------------------------------------------- truths of a posterior


def chain_settings(**changes: Any) -> Settings:
    return preset("default").replace(
        **{"n_factors": 2, "sweeps": 60, "burn_in": 20, "kept_draws": 40} | changes
    )


def test_new_pairs_are_new_and_as_frequent_as_the_old_ones(split: Split) -> None:
    ratings = split.ratings
    users, items = new_pairs(split, 200, np.random.default_rng(0))
    assert len(users) == 200
    keys, old = users * ratings.n_items + items, ratings.users * ratings.n_items + ratings.items
    assert len(np.unique(keys)) == 200
    assert not set(keys) & set(old)
    assert len(new_pairs(split, None, np.random.default_rng(0))[0]) == min(
        len(split.train), (30 * 25 - len(ratings)) // 2
    )
    sparse = random_split(synthetic_ratings(200, 150, 1_500, n_factors=2, seed=1).ratings, seed=0)
    users, _ = new_pairs(sparse, 1_000, np.random.default_rng(0))
    assert np.corrcoef(np.bincount(users, minlength=200), sparse.train.user_counts)[0, 1] > 0.5
    with pytest.raises(DataError, match=r"no room for 900 new ratings.*--new-ratings"):
        new_pairs(split, 900, np.random.default_rng(0))


def test_new_ratings_are_of_one_joint_draw_of_the_posterior(split: Split) -> None:
    """Their residuals about that draw's predictors are Normal with that draw's noise, in rating units."""
    settings = chain_settings(likelihood="normal", row_noise="none")
    posterior = fit(split, settings, progress=False, threads=1).posterior.to("cpu")
    pairs = new_pairs(split, 300, np.random.default_rng(0))
    drawn, truth = simulate_from(posterior, pairs, 5)
    u, v = (posterior.user_rows.draws, posterior.item_rows.draws)
    own = [s for s in range(40) if torch.equal(u[:, s, :2].double(), truth.values["user_factors"])]
    assert len(own) == 1
    noise = float(posterior.guide.hyperparameters()["noise"].values[own[0]])
    assert truth.noise == pytest.approx(noise)
    i, j = (torch.tensor(at) for at in pairs)
    s, units = own[0], posterior.model.units
    eta = (u[i, s, :2] * v[j, s, :2]).sum(-1) + u[i, s, 2] + v[j, s, 2] + float(posterior.model.centre)
    standard = ((drawn - units.shift) / units.scale - eta.double().numpy()) / noise
    assert stats.kstest(standard, "norm").pvalue > 1e-3
    np.testing.assert_array_equal(simulate_from(posterior, pairs, 5)[0], drawn)
    assert not np.array_equal(simulate_from(posterior, pairs, 6)[0], drawn)


def test_noise_of_rows_is_drawn_from_its_conditional() -> None:
    """With Normal ratings and noise by user alone it is a Gamma, whose mean and variance are known."""
    ratings = synthetic_ratings(30, 25, 400, n_factors=2, seed=1).ratings
    split = random_split(ratings, seed=0)
    settings = chain_settings(likelihood="normal", row_noise="user")
    posterior = fit(split, settings, progress=False, threads=1).posterior.to("cpu")
    truth, hyper = _truth(posterior, np.array([7]), 0)
    likelihood = posterior.model.likelihood
    torch.manual_seed(0)
    drawn = []
    for _ in range(300):
        found = _row_precisions(posterior, truth, hyper, likelihood)
        assert found is not None
        assert bool((found.item == 1.0).all())
        drawn.append(found.user)
    train, units = split.train, posterior.model.units
    eta = _eta(posterior, truth, train.users, train.items).numpy()
    squares = ((units.standard(train.ratings) - eta) / float(hyper["noise"])) ** 2
    shape = float(hyper["user_noise_shape"])
    a = shape + 0.5 * train.user_counts
    b = shape + 0.5 * np.bincount(train.users, squares, minlength=30)
    standard = (torch.stack(drawn).mean(0).numpy() - a / b) / (np.sqrt(a) / b / np.sqrt(300))
    assert np.abs(standard).max() < 4.5


@pytest.mark.parametrize("method", ["sweeps", "exact head"])
def test_implicit_feedback_stays_that_of_the_run(split: Split, method: str) -> None:
    """A fit given its own training pairs is the fit without; other pairs give another posterior."""
    settings = chain_settings(likelihood="normal", row_noise="none", sweeps=12, burn_in=4, kept_draws=8)
    if method == "exact head":
        settings = preset("guide").replace(n_factors=2, likelihood="normal", max_iterations=3)

    def rows(implicit: Ratings | None) -> torch.Tensor:
        fitted = fit(split, settings, progress=False, threads=1, implicit=implicit)
        return fitted.posterior.user_rows.tensors()["draws" if method == "sweeps" else "loc"]

    torch.testing.assert_close(rows(split.train), rows(None), rtol=0, atol=0)
    assert not torch.equal(rows(split.ratings), rows(None))
    with pytest.raises(SettingsError, match="does not read"):
        fit(split, settings.replace(implicit=False), progress=False, implicit=split.train)
    few = random_split(synthetic_ratings(20, 25, 300, n_factors=2, seed=1).ratings, seed=0)
    with pytest.raises(SettingsError, match=r"20 users and 25 items, the split 30 and 25"):
        fit(split, settings, progress=False, implicit=few.train)


def test_a_posterior_of_the_validation_ratings_is_refused(split: Split) -> None:
    settings = preset("conjugate").replace(n_factors=2, likelihood="normal")
    posterior = fit(split, settings, progress=False, threads=1, refit=True).posterior
    with pytest.raises(SettingsError, match="without refit"):
        refit_ranks_from(posterior, split, settings, 0)


def ranked_from(split: Split, settings: Settings, refits: int) -> RankCheck:
    posterior = fit(split, settings, progress=False, threads=1).posterior
    found = [refit_ranks_from(posterior, split, settings, seed, threads=1) for seed in range(refits)]
    return check_ranks(
        {kind: [one.ranks[kind] for one in found] for kind in found[0].ranks},
        {kind: [one.errors[kind] for one in found] for kind in found[0].ranks},
    )


@pytest.mark.slow
def test_about_a_posterior_a_chain_stays_quiet_and_independent_sides_do_not(split: Split) -> None:
    chain = chain_settings(likelihood="normal", row_noise="none", sweeps=600, burn_in=200, kept_draws=100)
    found = ranked_from(split, chain, 20)
    assert [one.kind for one in found.summaries] == ["uv", "user bias", "item bias", "noise"]
    assert not any(one.flagged for one in found.summaries)
    ascent = preset("conjugate").replace(n_factors=2, likelihood="normal")
    wrong = ranked_from(split, ascent, 80).summaries
    assert [one.kind for one in wrong if one.flagged] == ["uv"]
    assert wrong[0].coverage_90 + 2 * wrong[0].coverage_90_se < 0.9


def test_the_command_checks_a_run_by_its_own_posterior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["--data", "synthetic", "--factors", "2", "--preset", "conjugate", "--likelihood", "normal"]
    asked += ["--iterations", "8", "--threads", "1"]
    for name, more in (("run", []), ("both", ["--refit"])):
        CliRunner().invoke(fit_command, [*asked, "--out", name, *more], catch_exceptions=False)

    def check(*words: str) -> Result:
        return CliRunner().invoke(command, [*words, "--threads", "1"], catch_exceptions=False)

    found = check("--from", "run", "--refits", "2")
    assert "about the posterior of run" in found.output
    before = json.loads(Path("run/calibration-from.json").read_text())
    assert check("--from", "run", "--refits", "3").exit_code == 0
    after = json.loads(Path("run/calibration-from.json").read_text())
    assert {name: after["refits"][name] for name in "01"} == before["refits"]
    assert Path("run/calibration-from.png").stat().st_size > 5_000
    with pytest.raises(DataError, match=r"another check \(new_ratings differ\)"):
        check("--from", "run", "--refits", "3", "--new-ratings", "40")
    with pytest.raises(SettingsError, match=r"both was fitted to train and validation together \(--refit\)"):
        check("--from", "both")
    assert "leave out --users" in check("--from", "run", "--users", "20").output
    assert "give --from RUN" in check("run", "--new-ratings", "20").output


def test_truths_of_an_exact_head_are_of_its_own_model(split: Split) -> None:
    """Its priors are those of sweeps: noise has one too, and implicit feedback is in the rows."""
    settings = preset("guide").replace(n_factors=2, likelihood="normal", max_iterations=4)
    seen = []

    def remember(model: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append((model, kwargs["noise_prior"]))
        return simulate(model, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_bmf.checking.calibration.from_prior.simulate", remember)
        found = refit_ranks(split, settings, 0, threads=1)
    ((model, noise_prior),) = seen
    assert model.implicit is not None
    assert model.user_prior.conjugate is not None
    assert noise_prior
    assert list(found.ranks) == ["uv", "user bias", "item bias"]
    posterior = fit(split, settings, progress=False, threads=1).posterior
    assert list(refit_ranks_from(posterior, split, settings, 0, threads=1).ranks) == list(found.ranks)


def test_how_much_rows_differ_in_their_noise_is_ranked(split: Split) -> None:
    settings = chain_settings(likelihood="normal", sweeps=20, burn_in=10, kept_draws=10)
    kinds = [*("uv", "user bias", "item bias"), "user noise spread", "item noise spread", "noise"]
    assert list(refit_ranks(split, settings, 0, threads=1).ranks) == kinds
    posterior = fit(split, settings, progress=False, threads=1).posterior
    truth = simulate_from(posterior, new_pairs(split, 5, np.random.default_rng(0)), 3)[1].values
    drawn = posterior.guide.hyperparameters()["user_noise_shape"].values
    assert bool((truth["user_noise_shape"] == drawn).any())
    ranks, errors = rank(posterior, split, Truth(truth, None), 0)
    place = int((drawn == truth["user_noise_shape"]).nonzero()[0])
    spreads = drawn.double().cpu().numpy() ** -0.5
    expected = (spreads[place] - spreads.mean()) / spreads.std()
    assert errors["user noise spread"] == [pytest.approx(expected)]
    below = (spreads < spreads[place]).sum()
    assert below / 11 <= ranks["user noise spread"][0] <= (below + 1) / 11
    assert "noise" not in ranks  # of which the truth tells nothing here
