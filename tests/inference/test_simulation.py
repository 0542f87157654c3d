"""Simulation-based calibration: truths come from the model, and ranks say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats

from pyro_bmf.checking.calibration import refit_ranks, simulate, subsample
from pyro_bmf.checking.simulated_ranks import check_ranks
from pyro_bmf.cli.checks.calibrate import command
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.errors import DataError
from pyro_bmf.methods.build_model import build_model
from pyro_bmf.methods.settings import preset


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
    with pytest.raises(DataError, match="another check"):
        CliRunner().invoke(
            command,
            [*asked, "--refits", "3", "--out", str(out), "--simulation-seed", "3"],
            catch_exceptions=False,
        )
