"""The whole evaluation of a system, its tables, and comparisons in pairs."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from pyro_bmf.baselines import BiasOnly, GlobalMean, Popularity
from pyro_bmf.data import RatingScale
from pyro_bmf.errors import DataError, FitError, SettingsError
from pyro_bmf.evaluation import (
    PairedDifference,
    bootstrap_by_user,
    compare,
    evaluate,
    evaluate_with_references,
    nll,
    normal_pmf,
    paired_difference,
    rps,
)
from pyro_bmf.systems.contract import BasePredictor, Predictor


@dataclasses.dataclass
class Table(BasePredictor):
    """A predictor from tables of means and standard deviations."""

    mean: np.ndarray
    sd: np.ndarray
    name: str = "table"

    def predict_mean(self, users, items):
        return self.mean[users, items]

    def predict_sd(self, users, items):
        return self.sd[users, items]

    def predict_pmf(self, users, items, levels):
        return normal_pmf(self.mean[users, items], self.sd[users, items], levels)

    def score_items(self, users):
        return self.mean[users].astype(np.float32)


@pytest.fixture(scope="module")
def split(make_random_split):
    return make_random_split(11)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(2)
    return Table(rng.normal(3.3, 0.8, (40, 25)), rng.uniform(0.7, 1.2, (40, 25)))


@pytest.fixture(scope="module")
def evaluation(split, table):
    return evaluate(table, split, n=(5, 10))


def test_figures_are_those_of_the_metrics(split, table, evaluation):
    test = split.test
    mean = table.mean[test.users, test.items]
    pmf = normal_pmf(mean, table.sd[test.users, test.items], np.arange(1.0, 6.0))
    positions = test.ratings.astype(int) - 1
    assert evaluation.rmse == pytest.approx(np.sqrt(np.mean((mean - test.ratings) ** 2)))
    assert evaluation.mae == pytest.approx(np.mean(np.abs(mean - test.ratings)))
    assert evaluation.rmse_clipped == pytest.approx(
        np.sqrt(np.mean((np.clip(mean, 1, 5) - test.ratings) ** 2))
    )
    assert evaluation.mae_clipped == pytest.approx(np.mean(np.abs(np.clip(mean, 1, 5) - test.ratings)))
    assert evaluation.nll == pytest.approx(nll(pmf, positions).mean())
    assert evaluation.rps == pytest.approx(rps(pmf, positions).mean())
    assert evaluation.density_nll is None
    assert evaluation.n_impossible == 0
    assert (evaluation.n_ratings, evaluation.n_users) == (len(test), np.unique(test.users).size)
    assert [(one.protocol, one.n) for one in evaluation.ranking] == [
        (protocol, n) for protocol in ("full", "rated", "rated-precision") for n in (5, 10)
    ]


def test_every_result_says_what_it_was_measured_on(split, evaluation):
    content = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert content["split_hash"] == split.hash
    assert content["data_hash"] == split.ratings.data_hash
    assert (content["system"], content["part"], content["split_scheme"]) == ("table", "test", "given")
    assert content["scale"]["step"] == 1.0
    assert content["calibration"]["overall"]["pit_coverage"] == list(
        evaluation.calibration.overall.pit_coverage
    )
    assert "per_rating" not in content


def test_chunks_and_repetition_change_nothing(split, table, evaluation):
    again = evaluate(table, split, n=(5, 10), chunk=7)
    assert again.to_dict() == evaluation.to_dict()
    other = evaluate(table, split, n=(5, 10), seed=1)
    assert other.rmse == evaluation.rmse
    assert other.per_rating.pit.tolist() != evaluation.per_rating.pit.tolist()


def test_tables(evaluation):
    tables = evaluation.tables()
    assert {name: len(frame) for name, frame in tables.items()} == {
        "ratings": 1,
        "ranking": 6,
        "coverage": 84,
        "deciles": 21,
        "pit": 20,
    }
    assert tables["ratings"].loc[0, "rmse"] == evaluation.rmse
    ninety = tables["coverage"].query("by == 'all' and nominal == 0.9")
    assert ninety["pit_coverage"].item() == evaluation.calibration.overall.pit_coverage[2]
    assert tables["pit"]["n_ratings"].sum() == evaluation.n_ratings


def test_the_validation_part(split, table):
    result = evaluate(table, split, part="valid", protocols=())
    mean = table.mean[split.valid.users, split.valid.items]
    assert result.rmse == pytest.approx(np.sqrt(np.mean((mean - split.valid.ratings) ** 2)))
    assert result.ranking == ()
    assert len(result.tables()["ranking"]) == 0


def test_counts_come_from_what_was_fitted(make_split):
    split = make_split([(0, 0, 3), (0, 1, 4)], [(1, 0, 3)], [(0, 2, 3), (1, 1, 5), (2, 0, 1)], 3, 3)
    table = Table(np.full((3, 3), 3.0), np.ones((3, 3)))
    # train knows user 0, items 0 and 1: (0, 2) has a new item, users 1 and 2 are new
    assert evaluate(table, split, protocols=()).n_cold == 3
    assert evaluate(table, split, protocols=(), fitted_on="train+valid").n_cold == 2
    with pytest.raises(SettingsError, match=r"cannot be evaluated on valid"):
        evaluate(table, split, part="valid", fitted_on="train+valid")
    with pytest.raises(SettingsError, match="fitted_on 'test'"):
        evaluate(table, split, fitted_on="test")


def test_a_continuous_scale_has_densities_and_no_probabilities(make_random_split, table):
    split = make_random_split(11, scale=RatingScale(-3.0, 9.0, None, "given"))
    result = evaluate_with_references(table, split, protocols=())
    model, test = result.model, split.test
    density = -stats.norm.logpdf(
        test.ratings, table.mean[test.users, test.items], table.sd[test.users, test.items]
    )
    assert model.density_nll == pytest.approx(density.mean())
    assert model.nll is None
    assert model.rps is None
    # the true model is Normal with noise 1: the biases come out calibrated, the random table does not
    bias = result.evaluations[2]
    assert bias.system == "bias-only"
    assert abs(bias.calibration.overall.pit_coverage[2] - 0.9) < 0.05
    assert bias.calibration.overall.width[2] == pytest.approx(
        2 * 1.644854 * bias.calibration.overall.mean_sd, rel=1e-6
    )
    assert "density_nll" in result.table()
    assert "nll" not in result.table()
    with pytest.raises(SettingsError, match="no 'nll' on this rating scale"):
        paired_difference("nll", model, bias)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("method", "values", "error", "words"),
    [
        ("predict_mean", lambda u, i: np.full(u.size, np.nan), FitError, "not finite: the fit diverged"),
        (
            "predict_mean",
            lambda u, i: np.zeros((u.size, 2)),
            SettingsError,
            "predict_mean gave an array of shape",
        ),
        ("predict_sd", lambda u, i: -np.ones(u.size), FitError, "negative"),
        ("predict_pmf", lambda u, i, s: np.full((u.size, 5), 0.3), FitError, "not distributions"),
        (
            "predict_pmf",
            lambda u, i, s: np.tile([-0.5, 0.5, 0.5, 0.5, 0], (u.size, 1)),
            FitError,
            "not distributions",
        ),
    ],
)
def test_impossible_answers_are_refused(split, table, method, values, error, words):
    broken = Table(table.mean, table.sd)
    setattr(broken, method, values)
    with pytest.raises(error, match=words):
        evaluate(broken, split, protocols=())


def test_single_precision_answers_are_taken(split, table, evaluation):
    single = Table(table.mean.astype(np.float32), table.sd.astype(np.float32))
    single.predict_pmf = lambda u, i, s: normal_pmf(table.mean[u, i], table.sd[u, i], s).astype(np.float32)
    assert evaluate(single, split, n=(5, 10)).nll == pytest.approx(evaluation.nll, abs=1e-6)


def test_predictors_get_arrays_of_their_own(split, table):
    class Greedy(Table):
        def predict_mean(self, users, items):
            result = self.mean[users, items]
            users[:] = 0  # a read-only array would raise here, a shared one would spoil the rest
            return result

    assert evaluate(Greedy(table.mean, table.sd), split, protocols=()).rmse == pytest.approx(
        evaluate(table, split, protocols=()).rmse
    )


def test_nothing_to_evaluate_is_said(make_split):
    split = make_split([(0, 0, 3), (0, 1, 4)], [], [(0, 2, 3)], 1, 3)
    with pytest.raises(DataError, match="valid part holds no ratings"):
        evaluate(Table(np.ones((1, 3)), np.ones((1, 3))), split, part="valid")


def test_a_rating_off_the_scale_is_said(make_split):
    split = make_split([(0, 0, 3), (0, 1, 4)], [], [(0, 2, 3.5)], 1, 3)
    with pytest.raises(DataError, match=r"3\.5 is not on the scale"):
        evaluate(Table(np.ones((1, 3)), np.ones((1, 3))), split)


def test_references_are_always_beside_the_model(split, table):
    result = evaluate_with_references(table, split, n=(5,))
    frame = result.table()
    assert frame.index.tolist() == ["table", "global-mean", "bias-only", "popularity"]
    # the data have user and item effects, the table is noise
    assert frame.loc["bias-only", "rmse"] < frame.loc["popularity", "rmse"] < frame.loc["global-mean", "rmse"]
    assert frame.loc["bias-only", "rmse"] < frame.loc["table", "rmse"]
    # a constant ranks nothing
    assert frame.loc["global-mean"].filter(like=":").isna().all()
    assert frame.loc["popularity"].filter(like=":").drop(["rated:catalogue@5"], errors="ignore").notna().all()
    assert {(one.b, one.metric) for one in result.differences} == {
        (name, metric) for name in frame.index[1:] for metric in ("rmse", "nll", "rps")
    }
    tables = result.tables()
    assert len(tables["systems"]) == 4
    assert len(tables["ratings"]) == 4
    assert tables["ranking"]["system"].unique().tolist() == ["table", "bias-only", "popularity"]
    assert len(tables["coverage"]) == 4 * 84
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert len({one["split_hash"] for one in content["evaluations"]}) == 1


def test_references_are_fitted_to_what_the_model_was(split, table):
    result = evaluate_with_references(table, split, fitted_on="train+valid", protocols=())
    expected = split.train_valid.ratings.mean()
    assert result.evaluations[1].per_rating.mean[0] == pytest.approx(expected)
    assert result.evaluations[1].fitted_on == "train+valid"


def test_a_reference_can_be_the_model(split):
    result = evaluate_with_references(BiasOnly().fit(split), split, protocols=())
    assert [one.system for one in result.evaluations] == ["bias-only", "global-mean", "popularity"]


def test_baselines_are_predictors():
    assert all(isinstance(one, Predictor) for one in (GlobalMean(), BiasOnly(), Popularity()))


def test_bootstrap_equals_a_literal_one():
    rng = np.random.default_rng(0)
    users = rng.integers(0, 15, 200) * 7  # gaps in the indices
    values = rng.random(200) + users / 50
    names = np.unique(users)
    ours = bootstrap_by_user(values, users, draws=300, seed=3)
    same = np.random.default_rng([3, 2]).integers(names.size, size=(300, names.size))
    literal = [np.concatenate([values[users == names[one]] for one in draw]).mean() for draw in same]
    assert ours == pytest.approx(literal)
    assert bootstrap_by_user(values, users, root=True, draws=300, seed=3) == pytest.approx(np.sqrt(literal))


def test_bootstrap_error_of_single_ratings_is_the_textbook_one():
    values = np.random.default_rng(1).normal(size=400)
    drawn = bootstrap_by_user(values, np.arange(400), draws=4000)
    assert drawn.std() == pytest.approx(values.std() / 20, rel=0.05)


def test_bootstrap_by_user_sees_that_a_users_ratings_agree():
    # 40 users, 25 equal ratings each: the error is that of 40 values, five times that of 1000
    values = np.repeat(np.random.default_rng(1).normal(size=40), 25)
    users = np.repeat(np.arange(40), 25)
    by_user = bootstrap_by_user(values, users, draws=2000).std()
    by_rating = bootstrap_by_user(values, np.arange(1000), draws=2000).std()
    assert by_user / by_rating == pytest.approx(5, rel=0.1)
    with pytest.raises(SettingsError, match="at least 2 draws"):
        bootstrap_by_user(values, users, draws=1)


def test_paired_difference(split, table, evaluation):
    assert isinstance(paired_difference("rmse", evaluation, evaluation), PairedDifference)
    same = paired_difference("rmse", evaluation, evaluation)
    assert (same.difference, same.se, same.low, same.high) == (0, 0, 0, 0)
    bias = evaluate(BiasOnly().fit(split), split, n=(5, 10))
    for metric in ("rmse", "mae", "nll", "rps", "full:recall@5", "rated:ndcg@10"):
        one, other = paired_difference(metric, bias, evaluation), paired_difference(metric, evaluation, bias)
        assert one.difference == pytest.approx(one.value_a - one.value_b)
        assert (one.difference, one.low, one.high) == pytest.approx(
            (-other.difference, -other.high, -other.low)
        )
        assert one.low <= one.difference <= one.high
    rmse = paired_difference("rmse", bias, evaluation)
    assert (rmse.value_a, rmse.value_b) == pytest.approx((bias.rmse, evaluation.rmse))
    assert rmse.high < 0
    ranking = paired_difference("full:recall@5", bias, evaluation)
    assert ranking.value_a == pytest.approx(bias.ranking[0].recall)


def test_pairing_removes_what_both_share(split, table, evaluation):
    close = evaluate(Table(table.mean + 0.01, table.sd, "close"), split, n=(5, 10))
    assert paired_difference("rmse", close, evaluation).se < evaluation.rmse_se / 10


def test_only_like_is_compared_with_like(split, make_random_split, table, evaluation):
    other = evaluate(table, make_random_split(12), n=(5, 10))
    with pytest.raises(SettingsError, match="different splits or parts"):
        paired_difference("rmse", evaluation, other)
    with pytest.raises(SettingsError, match="different splits or parts"):
        paired_difference("rmse", evaluation, evaluate(table, split, part="valid"))
    with pytest.raises(SettingsError, match="not evaluated by 'full:recall@7'"):
        paired_difference("full:recall@7", evaluation, evaluation)
    strict = evaluate(table, split, n=(5, 10), threshold=4.0)
    with pytest.raises(SettingsError, match="different users"):
        paired_difference("full:recall@5", evaluation, strict)
    with pytest.raises(SettingsError, match="share a name"):
        compare([evaluation, evaluation])
    with pytest.raises(SettingsError, match="no evaluation"):
        compare([])


def test_evaluation_does_not_load_torch():
    code = "import sys, pyro_bmf.evaluation, pyro_bmf.baselines; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_tables_are_frames(evaluation):
    assert all(isinstance(frame, pd.DataFrame) for frame in evaluation.tables().values())
