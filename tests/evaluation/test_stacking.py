"""Stacking: weights against other optimisers and in closed form, figures, refusals, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp, softmax

from pyro_bmf.baselines import BiasOnly, GlobalMean
from pyro_bmf.cli.checks.stack import command
from pyro_bmf.cli.fit import command as fit_command
from pyro_bmf.data import Split, random_split, synthetic_ratings
from pyro_bmf.errors import DataError, FitError, SettingsError
from pyro_bmf.evaluation import StackedPredictor, evaluate, stack, stacking_weights


def test_two_weights_are_those_of_a_search_along_the_line() -> None:
    rng = np.random.default_rng(0)
    for shift in (0.0, 0.4, 3.0):
        values = rng.normal(-1.2, 0.8, (300, 2)) - np.array([0.0, shift])
        found = stacking_weights(values)

        def worth(w: float, values: np.ndarray = values) -> float:
            return -float(logsumexp(values, axis=1, b=[w, 1 - w]).mean())

        best = minimize_scalar(worth, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
        assert worth(found.weights[0]) <= best.fun + 1e-7
        assert found.weights[0] == pytest.approx(best.x, abs=2e-3)


def test_weights_are_those_of_an_unconstrained_search_by_softmax() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(-1.2, 1.0, (400, 4)) - np.array([0.0, 0.1, -0.05, 0.2])
    found = stacking_weights(values)
    best = minimize(
        lambda z: -logsumexp(values + np.log(softmax(z)), axis=1).mean(),
        rng.normal(size=4),
        method="BFGS",
        options={"gtol": 1e-9},
    )
    np.testing.assert_allclose(found.weights, softmax(best.x), atol=2e-4)
    assert found.weights.sum() == pytest.approx(1.0)
    assert found.gap <= 1e-7


def test_known_answers() -> None:
    # Each system is certain of its own ratings: the weight of a system is its share of them.
    values = np.log(np.where(np.arange(10)[:, None] < 3, [[0.9, 1e-12]], [[1e-12, 0.9]]))
    np.testing.assert_allclose(stacking_weights(values).weights, [0.3, 0.7], atol=1e-4)
    # One that is better at every rating takes all.
    np.testing.assert_allclose(
        stacking_weights(np.array([[-1.0, -2.0, -3.0]] * 5)).weights, [1, 0, 0], atol=1e-6
    )
    # Far below what an exponential holds, only differences count.
    found = stacking_weights(np.array([[-2000.0, -2001.0], [-3001.0, -3000.0]]))
    np.testing.assert_allclose(found.weights, [0.5, 0.5], atol=1e-4)


def test_numbers_that_say_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="two or more"):
        stacking_weights(np.zeros((4, 1)))
    with pytest.raises(SettingsError, match="not finite"):
        stacking_weights(np.array([[-1.0, -np.inf]]))
    monkeypatch.setattr("pyro_bmf.evaluation.stacking._STEPS", 1)
    monkeypatch.setattr("pyro_bmf.evaluation.stacking.TOLERANCE", -1.0)
    with pytest.raises(FitError, match="predict alike"):
        stacking_weights(np.random.default_rng(0).normal(size=(20, 2)))


@pytest.fixture(scope="module", params=["1:5:1", None])
def split(request: pytest.FixtureRequest) -> Split:
    ratings = synthetic_ratings(60, 50, 1_500, n_factors=2, seed=1, scale=request.param).ratings
    return random_split(ratings, seed=0)


def test_the_mixture_is_scored_as_evaluate_scores_it(split: Split) -> None:
    systems = {"bias": BiasOnly().fit(split), "mean": GlobalMean().fit(split)}
    found = stack(systems, split)
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["bias", "mean", "stack"]
    assert sum(found.weights.values()) == pytest.approx(1.0)
    discrete = split.ratings.scale.levels is not None
    for name, system in [*systems.items(), ("stack", found.predictor)]:
        for part, nll, rmse in (
            ("valid", rows[name].valid_nll, rows[name].valid_rmse),
            ("test", rows[name].test_nll, rows[name].test_rmse),
        ):
            measured = evaluate(system, split, part=part, protocols=(), name=name)
            assert rmse == pytest.approx(measured.rmse)
            if discrete:
                assert nll == pytest.approx(measured.nll)
            elif name != "stack":  # whose density is a mixture of Normals, and not the Normal of its moments
                assert nll == pytest.approx(measured.density_nll)
    assert rows["stack"].valid_nll <= min(rows["bias"].valid_nll, rows["mean"].valid_nll) + 1e-6
    gain = rows["bias"].test_nll - rows["stack"].test_nll
    assert rows["bias"].test_gain == pytest.approx(gain)
    assert rows["stack"].test_gain is None
    again = json.loads(json.dumps(found.to_dict()))
    assert again["weights"] == found.weights


def test_moments_of_a_mixture_are_those_of_its_probabilities() -> None:
    ratings = synthetic_ratings(60, 50, 1_500, n_factors=2, seed=1, scale="1:5:1").ratings
    split = random_split(ratings, seed=0)
    systems = [BiasOnly().fit(split), GlobalMean().fit(split)]
    both = StackedPredictor(systems, np.array([0.25, 0.75]))
    users, items, levels = split.test.users[:20], split.test.items[:20], ratings.scale.levels
    assert levels is not None
    means = [one.predict_mean(users, items) for one in systems]
    sds = [one.predict_sd(users, items) for one in systems]
    np.testing.assert_allclose(both.predict_mean(users, items), 0.25 * means[0] + 0.75 * means[1])
    rng = np.random.default_rng(0)
    chosen = rng.random((200_000, 1)) < 0.25
    drawn = np.where(chosen, means[0][:3], means[1][:3]) + rng.normal(size=(200_000, 3)) * np.where(
        chosen, sds[0][:3], sds[1][:3]
    )
    np.testing.assert_allclose(both.predict_sd(users[:3], items[:3]), drawn.std(0), rtol=0.01)
    pmf = 0.25 * systems[0].predict_pmf(users, items, levels) + 0.75 * systems[1].predict_pmf(
        users, items, levels
    )
    np.testing.assert_allclose(both.predict_pmf(users, items, levels), pmf)


def test_systems_that_cannot_be_mixed_are_refused(split: Split) -> None:
    bias, mean = BiasOnly().fit(split), GlobalMean().fit(split)
    with pytest.raises(SettingsError, match=r"'bias': give two systems or more"):
        stack({"bias": bias}, split)
    with pytest.raises(SettingsError, match="none of them called 'stack'"):
        stack({"bias": bias, "stack": mean}, split)
    with pytest.raises(SettingsError, match="both was fitted to the validation ratings too"):
        stack({"bias": bias, "both": GlobalMean().fit(split, refit=True)}, split)
    with pytest.raises(SettingsError, match="other was fitted to another split"):
        stack({"bias": bias, "other": GlobalMean().fit(random_split(split.ratings, seed=1))}, split)
    bare = random_split(split.ratings, seed=0, fractions=(0.9, 0.0, 0.1))
    with pytest.raises(DataError, match="no validation ratings"):
        stack({"bias": BiasOnly().fit(bare), "mean": GlobalMean().fit(bare)}, bare)


def test_the_command_writes_weights_and_names_runs_of_other_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["--data", "synthetic", "--preset", "conjugate", "--threads", "1", "--iterations", "5"]
    for name, more in (
        ("small", ["--factors", "1"]),
        ("large", ["--factors", "4"]),
        ("other", ["--factors", "1", "--split-seed", "3"]),
    ):
        CliRunner().invoke(fit_command, [*asked, "--out", name, *more], catch_exceptions=False)
    found = CliRunner().invoke(command, ["small", "large", "--out", "stack.json"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert "gain of the stack" in found.output
    content = json.loads(Path("stack.json").read_text())
    assert set(content["weights"]) == {"small", "large"}
    assert sum(content["weights"].values()) == pytest.approx(1.0)
    assert content["gap"] <= 1e-7
    with pytest.raises(SettingsError, match="small and other have different splits"):
        CliRunner().invoke(command, ["small", "other"], catch_exceptions=False)
    assert "Give two runs" in CliRunner().invoke(command, ["small"]).output
