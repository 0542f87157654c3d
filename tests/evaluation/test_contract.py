"""One contract: the posterior and every baseline are fitted, asked, saved and loaded by the same words."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_bmf.baselines import (
    BASELINES,
    NEURAL_BASELINES,
    RANKING_BASELINES,
    Baseline,
    BiasOnly,
    CollaborativeVAE,
    GlobalMean,
    Popularity,
    RankingOnly,
)
from pyro_bmf.data import Ratings, Split, random_split, ratings_from_arrays
from pyro_bmf.errors import DataError, SavedFileError, SettingsError, UnknownIdError
from pyro_bmf.estimator import MatrixFactorization
from pyro_bmf.evaluation import evaluate
from pyro_bmf.methods.settings import preset
from pyro_bmf.numerics.ranked_lists import Exclusion
from pyro_bmf.posterior import Posterior
from pyro_bmf.systems.contract import Estimator, Predictor, System

N_USERS, N_ITEMS = 14, 9


def _split(seed: int = 0) -> Split:
    """Ratings under text ids, with titles; item i8 and user u13 have one rating each."""
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((N_USERS - 1, N_ITEMS - 1)) < 0.7)
    users, items = np.append(users, [N_USERS - 1, 0]), np.append(items, [0, N_ITEMS - 1])
    ratings = np.clip(np.round(3 + rng.normal(size=users.size) + 0.5 * (items % 3)), 1, 5)
    made = ratings_from_arrays(
        [f"u{user}" for user in users],
        [f"i{item}" for item in items],
        ratings,
        scale="1:5:1",
        item_titles={f"i{item}": f"Title {item}" for item in range(N_ITEMS)},
    )
    return random_split(made, seed=seed)


def _model() -> MatrixFactorization:
    return MatrixFactorization(preset("conjugate").replace(n_factors=2, max_iterations=3))


def _network(kind: Any) -> Any:
    return lambda: kind(kind.settings_class(max_iterations=3))


ESTIMATORS: dict[str, Any] = {
    "pyro-bmf": _model,
    **{one.name: one for one in BASELINES},
    **{one.name: _network(one) for one in (*NEURAL_BASELINES, *RANKING_BASELINES, CollaborativeVAE)},
}
SYSTEMS: dict[str, type[System]] = {
    "pyro-bmf": Posterior,
    **{one.name: one for one in (*BASELINES, *NEURAL_BASELINES, *RANKING_BASELINES, CollaborativeVAE)},
}
#: What has parameters for each user that only a fit gives.
WITHOUT_NEW_USERS = ("i-rec", "ncf", "cnn-cf", "cdae", "ngcf", "lightgcn", "collaborative-vae")


@pytest.fixture(scope="module")
def split() -> Split:
    return _split()


@pytest.fixture(scope="module", params=list(ESTIMATORS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def system(name: str, split: Split) -> System:
    estimator: Estimator = ESTIMATORS[name]()
    return estimator.fit(split)


def test_it_is_a_system_with_its_name(system: System, name: str, split: Split) -> None:
    assert isinstance(system, System)
    assert isinstance(system, Predictor)
    assert system.name == ESTIMATORS[name]().name == name
    assert system.train.data_hash == split.train.data_hash
    assert system.info["split_hash"] == split.hash
    assert system.info["data_hash"] == split.ratings.data_hash
    assert system.info["trained_on"] == "train"


@pytest.mark.parametrize("method", ["predict", "recommend", "fold_in", "save", "load"])
def test_signatures_are_those_of_the_contract(name: str, method: str) -> None:
    wanted = inspect.signature(getattr(System, method)).parameters
    found = inspect.signature(getattr(SYSTEMS[name], method)).parameters
    assert [one for one in found if one in wanted] == list(wanted)
    for parameter, one in wanted.items():
        assert (found[parameter].kind, found[parameter].default) == (one.kind, one.default), parameter
    for parameter in found.keys() - wanted.keys():  # a system may offer more, if nobody has to give it
        assert found[parameter].default is not inspect.Parameter.empty, parameter


def test_it_predicts_every_pair_in_raw_ids_as_in_indices(system: System, split: Split) -> None:
    users, items = (side.ravel() for side in np.indices((N_USERS, N_ITEMS)))
    table = system.predict(system.user_vocabulary.raw(users), system.item_vocabulary.raw(items))
    columns = ["user_id", "item_id", "mean", "sd", "lower", "upper", "smallest_set", "set_probability"]
    assert list(table.columns)[: len(columns)] == columns
    assert table["mean"].tolist() == system.predict_mean(users, items).tolist()
    assert table["sd"].tolist() == system.predict_sd(users, items).tolist()
    assert (table["sd"] > 0).all()
    levels = split.ratings.scale.levels
    assert levels is not None
    said = system.predict_pairs(users, items, levels)
    assert said.pmf is not None
    assert said.pmf.tolist() == system.predict_pmf(users, items, levels).tolist()
    np.testing.assert_allclose(said.pmf.sum(axis=1), 1.0, atol=1e-6)
    low, high = said.interval(0.9)
    np.testing.assert_allclose(table[["lower", "upper"]], np.column_stack([low, high]), atol=1e-9)
    clipped = system.predict("u0", ["i0", "i1"], clip=True)
    assert clipped[["mean", "lower", "upper"]].to_numpy().min() >= 1
    assert system.score_items(np.arange(3)).shape == (3, N_ITEMS)


def test_unknown_ids_are_refused_by_name(system: System) -> None:
    with pytest.raises(UnknownIdError, match="unknown user id 'nobody'"):
        system.predict("nobody", "i0")
    with pytest.raises(UnknownIdError, match="unknown item id 'nothing'"):
        system.predict("u0", ["i0", "nothing"])
    with pytest.raises(UnknownIdError, match="unknown user id 'nobody'"):
        system.recommend(["nobody"])
    with pytest.raises(UnknownIdError, match="unknown item id 'nothing'"):
        system.recommend(["u0"], candidates=["nothing"])
    with pytest.raises(SettingsError, match="n is 0"):
        system.recommend(["u0"], 0)
    with pytest.raises(SettingsError, match="interval is 2"):
        system.predict("u0", "i0", interval=2)


def test_lists_leave_out_what_they_are_told_to(system: System, split: Split) -> None:
    everything = system.recommend(n=N_ITEMS, exclude_seen=False)
    assert len(everything) == N_USERS * N_ITEMS
    assert list(everything.columns)[:4] == ["user_id", "rank", "item_id", "title"]
    assert (everything["title"] == "Title " + everything["item_id"].str[1:]).all()
    unseen = system.recommend(n=N_ITEMS)
    pairs = set(zip(unseen["user_id"], unseen["item_id"], strict=True))
    train = split.train
    seen = set(
        zip(train.user_vocabulary.raw(train.users), train.item_vocabulary.raw(train.items), strict=True)
    )
    assert not pairs & seen
    assert len(pairs | seen) == N_USERS * N_ITEMS
    fewer = system.recommend(n=N_ITEMS, exclude=split.valid)
    assert len(fewer) == N_USERS * N_ITEMS - len(split.train) - len(split.valid)
    one = pd.DataFrame({"user_id": ["u0"], "item_id": ["i3"]})
    left = system.recommend("u0", N_ITEMS, exclude_seen=False, exclude=one)["item_id"].tolist()
    assert sorted(left) == sorted(set(system.item_vocabulary.ids) - {"i3"})
    some = system.recommend(["u2", "u1"], 5, exclude_seen=False, candidates=["i5", "i2"])
    assert some["user_id"].tolist() == ["u2", "u2", "u1", "u1"]
    assert set(some["item_id"]) == {"i2", "i5"}
    assert some["rank"].tolist() == [1, 2, 1, 2]


def test_equal_scores_are_in_the_order_of_the_items(system: System) -> None:
    users = np.arange(N_USERS)
    scores = np.asarray(system.score_items(users))
    lists = system.best_items(users, N_ITEMS, None)
    for own, items in zip(scores, lists, strict=True):
        assert items.tolist() == np.lexsort((np.arange(N_ITEMS), -own)).tolist()
    table = system.recommend(n=3, exclude_seen=False)
    assert table["item_id"].tolist() == system.item_vocabulary.raw(lists[:, :3].ravel()).tolist()
    pairs = Exclusion.of_pairs(np.zeros(N_ITEMS - 1, np.int64), np.arange(1, N_ITEMS), N_USERS)
    assert system.best_items(np.array([0]), 3, pairs).tolist() == [[0, -1, -1]]


def test_a_new_user_is_predicted_and_keeps_the_rest_as_it_is(system: System, name: str) -> None:
    if name in WITHOUT_NEW_USERS:
        with pytest.raises(SettingsError, match=f"{name} predicts the users that it was fitted to alone"):
            system.fold_in({"i0": 5.0})
        return
    before = system.predict("u0", "i0")
    new = system.fold_in({"i0": 5.0, "i1": 1.0})
    table = new.predict(["i2", "i3"])
    assert table["item_id"].tolist() == ["i2", "i3"]
    assert {"mean", "sd", "lower", "upper"} <= set(table.columns)
    listed = new.recommend(N_ITEMS)
    assert set(listed["item_id"]) == set(system.item_vocabulary.ids) - {"i0", "i1"}
    assert len(new.recommend(N_ITEMS, exclude_seen=False)) == N_ITEMS
    assert new.recommend(5, candidates=["i4", "i0"])["item_id"].tolist() == ["i4"]
    pd.testing.assert_frame_equal(before, system.predict("u0", "i0"))
    with pytest.raises(UnknownIdError, match="'nothing'"):
        system.fold_in({"nothing": 3.0})
    with pytest.raises(DataError, match="not on the rating scale"):
        system.fold_in({"i0": 7.0})


@pytest.mark.parametrize("target", ["folder", "one.safetensors"])
def test_it_is_the_same_to_the_bit_after_saving(
    system: System, name: str, split: Split, tmp_path: Path, target: str
) -> None:
    path = system.save(tmp_path / target)
    assert path.suffix == ".safetensors"
    again = SYSTEMS[name].load(tmp_path / target)
    if isinstance(system, Posterior):
        system = system.to("cpu")  # where files are read
    pd.testing.assert_frame_equal(
        again.predict("u3", again.item_vocabulary.ids), system.predict("u3", system.item_vocabulary.ids)
    )
    pd.testing.assert_frame_equal(again.recommend(n=4), system.recommend(n=4))
    if name not in WITHOUT_NEW_USERS:
        pd.testing.assert_frame_equal(
            again.fold_in({"i0": 4.0}).recommend(3), system.fold_in({"i0": 4.0}).recommend(3)
        )
    assert dict(again.info) == dict(system.info)
    assert (
        evaluate(again, split, n=(3,), draws=5).to_dict()
        == evaluate(system, split, n=(3,), draws=5).to_dict()
    )
    second = again.save(tmp_path / "second.safetensors")
    assert second.read_bytes() == path.read_bytes()


def test_a_system_of_another_split_is_not_measured(system: System, name: str) -> None:
    with pytest.raises(SettingsError, match="was fitted to another split"):
        evaluate(system, _split(1), protocols=())


@pytest.mark.parametrize("one", BASELINES)
def test_damaged_and_foreign_files_are_refused(one: type[Baseline], split: Split, tmp_path: Path) -> None:
    path = one().fit(split).save(tmp_path / "a.safetensors")
    with pytest.raises(SavedFileError, match="there is no such file"):
        one.load(tmp_path / "b.safetensors")
    other = Popularity if one is GlobalMean else GlobalMean
    with pytest.raises(SavedFileError, match=f"holds the system '{one.name}', not '{other.name}'"):
        other.load(path)
    with pytest.raises(SavedFileError):
        Posterior.load(path)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(SavedFileError, match="does not match its checksum"):
        one.load(path)


def test_a_refit_learns_from_validation_too(split: Split) -> None:
    for one in BASELINES:
        fitted = one().fit(split, refit=True)
        assert fitted.info["trained_on"] == "train+valid"
        assert len(fitted.train) == len(split.train) + len(split.valid)
        with pytest.raises(SettingsError, match="measure it on test"):
            evaluate(fitted, split, part="valid", protocols=())


def test_a_new_user_of_biases_is_the_dense_posterior(split: Split) -> None:
    fitted = BiasOnly().fit(split)
    e = fitted.effects
    items, values = np.array([0, 3, 4]), np.array([5.0, 4.0, 5.0])
    ids = fitted.item_vocabulary.raw(items)
    table = fitted.fold_in(dict(zip(ids.tolist(), values.tolist(), strict=True))).predict(ids)
    precision = 1 / e.user_prior_variance + 3 / e.noise_variance
    effect = (values - e.centre - e.item_loc[items]).sum() / e.noise_variance / precision
    np.testing.assert_allclose(table["mean"], e.centre + effect + e.item_loc[items])
    np.testing.assert_allclose(table["sd"] ** 2, e.noise_variance + 1 / precision + e.item_variance[items])


def test_a_baseline_without_fold_in_says_so(split: Split) -> None:
    class Plain(GlobalMean):
        new_user = Baseline.new_user

    with pytest.raises(SettingsError, match="predicts the users that it was fitted to alone: fit it again"):
        Plain().fit(split).fold_in({"i0": 3.0})


def test_a_baseline_that_is_not_fitted_says_so() -> None:
    for one in BASELINES:
        assert one().fitted_to is None
        with pytest.raises(SettingsError, match="is not fitted yet: call fit"):
            one().predict("u0", "i0")


class Smoothed(Baseline):
    """What a new file would hold: settings, a choice by validation ratings, a distribution of its own."""

    name = "smoothed"

    def __init__(self, strengths: list[float]) -> None:
        self.strengths = strengths

    def settings(self) -> dict[str, Any]:
        return {"strengths": self.strengths}

    def learn(self, train: Ratings, valid: Ratings | None) -> None:
        assert train.scale.levels is not None
        place = np.searchsorted(train.scale.levels, train.ratings)
        counts = np.zeros((train.n_items, len(train.scale.levels)))
        np.add.at(counts, (train.items, place), 1.0)
        overall = counts.sum(axis=0) / counts.sum()
        tables = []
        for strength in self.strengths:
            table = counts + strength * overall
            tables.append(table / table.sum(axis=1, keepdims=True))
        at = 0 if valid is None else self._best(tables, valid)
        self.chosen, self.table = self.strengths[at], tables[at]

    def _best(self, tables: list[Any], valid: Ratings) -> int:
        assert valid.scale.levels is not None
        place = np.searchsorted(valid.scale.levels, valid.ratings)
        return int(np.argmax([np.log(table[valid.items, place]).sum() for table in tables]))

    def moments(self, users: Any, items: Any) -> tuple[Any, Any]:
        levels = self.scale.levels
        assert levels is not None
        mean = self.table[items] @ levels
        return mean, self.table[items] @ levels**2 - mean**2

    def predict_pmf(self, users: Any, items: Any, levels: Any) -> Any:
        return self.table[self._pairs(users, items)[1]]

    def scores(self, users: Any) -> Any:
        mean = self.moments(users, np.arange(self.n_items))[0].astype(np.float32)
        return np.broadcast_to(mean, (len(users), self.n_items))

    def state(self) -> dict[str, Any]:
        return {"table": self.table, "chosen": np.array(self.chosen)}

    def restore(self, state: Any) -> None:
        self.table, self.chosen = state["table"], float(state["chosen"])


def test_a_new_baseline_is_one_class(split: Split, tmp_path: Path) -> None:
    fitted = Smoothed([0.01, 2.0, 50.0]).fit(split)
    assert isinstance(fitted, System)
    alone = [Smoothed([one]).fit(split) for one in (0.01, 2.0, 50.0)]
    losses = [evaluate(one, split, part="valid", protocols=()).nll for one in alone]
    assert fitted.chosen == [0.01, 2.0, 50.0][int(np.argmin(losses))]
    found = evaluate(fitted, split, n=(3,))
    again = Smoothed.load(fitted.save(tmp_path / "s.safetensors"))
    assert again.strengths == fitted.strengths
    assert evaluate(again, split, n=(3,)).to_dict() == found.to_dict()
    assert set(fitted.recommend("u0", 3)["item_id"]) <= set(fitted.item_vocabulary.ids)
    table = fitted.predict("u0", "i0")
    assert table["set_probability"].item() >= 0.9

    class Later(Smoothed):
        version = 2

    with pytest.raises(SavedFileError, match="was written by version 1 of smoothed, this is version 2"):
        Later.load(tmp_path / "s.safetensors")


def test_what_only_ranks_has_no_new_users_unless_it_says_how(split: Split) -> None:
    class Plain(Popularity):
        new_user_scores = RankingOnly.new_user_scores

    with pytest.raises(SettingsError, match="predicts the users that it was fitted to alone"):
        Plain().fit(split).fold_in({"i0": 3.0})
