"""What a study measures, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_bmf.baselines import IRec
from pyro_bmf.data import Split
from pyro_bmf.errors import FitError, SettingsError
from pyro_bmf.evaluation import evaluate
from pyro_bmf.experiments.contenders import Contender, Fitted, Running, contender
from pyro_bmf.experiments.grids import Grid
from pyro_bmf.experiments.tuning import Plan, Tuning, measure
from pyro_bmf.experiments.tuning_pictures import plot_study

SHORT = {"max_iterations": 4, "batch_size": 20}


def tuned(folder: Path, split: Split, trials: int, name: str = "i-rec", **plan: Any) -> Tuning:
    tuning = Tuning(folder, contender(name), split, Plan(**{"fixed": SHORT, **plan}))
    tuning.run(trials, threads=1)
    return tuning


def told(tuning: Tuning) -> list[Any]:
    return [{**row, "seconds": None} for row in tuning.rows()]


def test_the_value_is_the_validation_rmse_of_the_fit(tmp_path: Path, small_split: Split) -> None:
    tuning = tuned(tmp_path, small_split, 3, prune=False)
    best = tuning.best
    assert best is not None
    assert best.value == min(trial.value for trial in tuning.shared.trials)
    system = IRec(IRec.settings_class(**{**tuning.chosen(), "seed": 0})).fit(small_split)
    assert measure(system, small_split, "rmse") == pytest.approx(best.value, rel=1e-6)
    assert evaluate(system, small_split, part="valid").rmse == pytest.approx(best.value, rel=1e-6)
    assert min(best.user_attrs["curve"]) == pytest.approx(best.value, rel=1e-6)


@pytest.mark.parametrize("objective", ["nll", "ndcg"])
def test_other_objectives_are_those_of_the_evaluation(
    objective: str, tmp_path: Path, small_split: Split
) -> None:
    tuning = tuned(tmp_path, small_split, 2, objective=objective, prune=False)
    best = tuning.best
    assert best is not None
    values = [trial.value for trial in tuning.shared.trials]
    assert best.value == (max(values) if objective == "ndcg" else min(values))
    system = IRec(IRec.settings_class(**{**tuning.chosen(), "seed": 0})).fit(small_split)
    found = evaluate(system, small_split, part="valid", n=(20,), protocols=("full",))
    expected = found.nll if objective == "nll" else found.ranking[0].ndcg
    assert best.value == pytest.approx(expected, rel=1e-6)


def test_test_ratings_are_never_read(tmp_path: Path, small_split: Split) -> None:
    ratings = small_split.ratings
    flipped = np.array(ratings.ratings)
    flipped[small_split.test_rows] = 6.0 - flipped[small_split.test_rows]
    other = replace(small_split, ratings=replace(ratings, ratings=flipped))
    assert not np.array_equal(other.test.ratings, small_split.test.ratings)
    for name, fixed in (("i-rec", SHORT), ("paper", {"max_iterations": 1})):
        some = tuned(tmp_path / f"{name}-1", small_split, 3, name, fixed=fixed)
        others = tuned(tmp_path / f"{name}-2", other, 3, name, fixed=fixed)
        assert told(some) == told(others)


def test_a_variant_is_tuned_as_the_whole_is(tmp_path: Path, small_split: Split) -> None:
    fixed = {"max_iterations": 1, "attention": None}
    tuning = tuned(tmp_path, small_split, 2, "paper", fixed=fixed)
    assert [row["state"] for row in tuning.rows()] == ["complete"] * 2
    assert "attention_scope" not in tuning.chosen()


def test_bad_trials_are_pruned_by_the_median(tmp_path: Path, small_split: Split) -> None:
    class Stub(Contender):
        """Reports a curve that its setting decides: 9 of 10 are worse than the first."""

        name = title = "stub"

        def grid(self, fixed: Any = None) -> Grid:
            return Grid.of({"height": tuple(range(10))})

        def settings(self, values: Any, seed: int) -> dict[str, Any]:
            return dict(values)

        def fit(self, split: Split, values: Any, *, seed: int, running: Running) -> Fitted:
            for iteration in range(1, 11):
                running.reporter.iteration({"iteration": iteration, "valid_rmse": 1.0 + values["height"]})
            return Fitted(IRec().fit(split), {}, [], 0.0)

    tuning = Tuning(tmp_path, Stub(), small_split, Plan(sampler="grid"))
    tuning.run(10)
    rows = {row["height"]: row for row in tuning.rows()}
    done = [row["trial"] for row in rows.values() if row["state"] == "complete"]
    assert {0, 1, 2, 3} <= set(done)  # nothing to compare with before
    assert "pruned" in {row["state"] for row in rows.values()}
    pruned = [row for row in rows.values() if row["state"] == "pruned"]
    assert all(3 <= row["iterations"] < 10 and row["valid_rmse"] is None for row in pruned)
    assert rows[0]["state"] == "complete"


def test_a_fit_that_diverges_is_a_trial_without_a_value(tmp_path: Path, small_split: Split) -> None:
    fixed = {**SHORT, "learning_rate": 1e30, "output": "identity"}
    tuning = tuned(tmp_path, small_split, 2, fixed=fixed)
    assert tuning.best is None
    assert ["diverged" in row["state"] for row in tuning.rows()] == [True, True]
    with pytest.raises(FitError, match=r"No trial of i-rec was completed \(.*diverged"):
        tuning.chosen()


def test_the_report_tells_all_trials_and_edges(tmp_path: Path, small_split: Split) -> None:
    tuning = tuned(tmp_path, small_split, 6, cuts={"n_factors": (5, 10), "l2": (0.01,)}, prune=False)
    report = json.loads(json.dumps(tuning.report()))
    assert len(report["trials"]) == 6
    assert all(len(one["curve"]) == 4 for one in report["trials"])
    assert report["chosen"] == tuning.chosen()
    assert "n_factors" in report["on_edge"]
    assert "l2" not in report["on_edge"]
    assert report["seconds"] == pytest.approx(sum(one["seconds"] for one in report["trials"]))
    files = plot_study(tuning)
    assert sorted(file.name for file in files) == [
        *("importances.png", "importances.svg", "slices.png", "slices.svg")
    ]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    # Of the settings that were tuned, as text: pictures keep their labels as such.
    assert all("n_units" in file.read_text(encoding="utf-8") for file in files if file.suffix == ".svg")


def test_another_study_in_the_folder_is_refused(tmp_path: Path, small_split: Split) -> None:
    tuned(tmp_path, small_split, 1)
    with pytest.raises(SettingsError, match=r"holds a study whose seed is 0, and 1 is asked for"):
        tuned(tmp_path, small_split, 1, seed=1)
    with pytest.raises(SettingsError, match=r"whose model is 'i-rec', and 'u-rec' is asked for"):
        tuned(tmp_path, small_split, 1, "u-rec")


def test_what_cannot_be_tuned_is_refused(tmp_path: Path, small_split: Split) -> None:
    with pytest.raises(SettingsError, match="bias-only has nothing to tune"):
        tuned(tmp_path / "a", small_split, 1, "bias-only", fixed={})
    with pytest.raises(SettingsError, match="'colour' is not a setting of i-rec"):
        tuned(tmp_path / "b", small_split, 1, fixed={"colour": 1})
    with pytest.raises(SettingsError, match="prune goes with the objective 'rmse' alone"):
        Plan(objective="nll")
    with pytest.raises(SettingsError, match="n_layers is set and given a grid"):
        tuned(tmp_path / "c", small_split, 1, fixed={"n_layers": 0}, cuts={"n_layers": (0, 1)})
    rows = np.arange(len(small_split.ratings))
    without = replace(small_split, valid_rows=rows[:0])
    with pytest.raises(SettingsError, match="validation ratings, and the split has none"):
        tuned(tmp_path / "d", without, 1)
    assert not list(tmp_path.iterdir())
