"""The peers' benchmark: cells are written whole, known again, and measured and compared by the report."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pyro_bmf.data import Split, random_split, write_split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.evaluation import normal_pmf, paired_difference

FOLDER = Path(__file__).parents[1] / "benchmarks" / "peers"
NAMES = (
    *("prediction", "cells", "systems", "split_arrays", "peer_myfm", "peer_sgd_als", "peer_bivae", "run"),
    *("saved", "figures", "pairs", "tables", "plot", "report", "worker"),
)
LEVELS = np.arange(1.0, 6.0)
TRACE = [[1.0, 1.3], [2.0, 0.7], [3.0, 0.5]]


@pytest.fixture(scope="module")
def peers() -> Any:
    """The folder's modules, imported as its scripts do and taken out of the way afterwards."""
    before = dict(sys.modules)
    sys.path.insert(0, str(FOLDER))
    try:
        yield argparse.Namespace(**{name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)
        sys.modules.update({name: before[name] for name in NAMES if name in before})


def make_split(seed: int) -> Split:
    """A split of ratings that have an effect of users and of items."""
    rng = np.random.default_rng(5)
    pairs = rng.permutation(40 * 30)[:800]
    users, items = pairs // 30, pairs % 30
    level = 3 + rng.normal(size=40)[users] + rng.normal(size=30)[items] * 0.5 + 0.5 * rng.normal(size=800)
    values = np.clip(np.round(level), 1, 5)
    return random_split(ratings_from_arrays(users, items, values, scale="1:5:1"), seed=seed)


def make_cell(peers: Any, cache: Path, split: Split, system: str, seed: int, sd: float, scores: bool) -> None:
    """Write a cell of predictions that are off by Normal errors."""
    rng = np.random.default_rng([seed, int(100 * sd)])
    arrays: dict[str, Any] = {}
    for name, part in (("valid", split.valid), ("test", split.test)):
        mean = part.ratings + sd * rng.normal(size=len(part))
        said = peers.prediction.Prediction(mean, None, None)
        arrays |= peers.worker.part_arrays(name, said, part, sd, LEVELS)
    about = {
        "request": peers.cells.request(system, "toy", split.hash, seed, {"k": 1}),
        "own_distribution": False,
        "valid_rmse": sd,
        "versions": {"python": "3"},
    }
    about |= dict.fromkeys(("fit_seconds", "fit_cpu_seconds", "predict_seconds", "score_seconds"), 2.5)
    about |= dict.fromkeys(("fit_memory_gb", "peak_memory_gb"), 0.5)
    if peers.systems.is_ours(system):
        about["trace"] = TRACE
    shape = (split.train.n_users, split.train.n_items)
    everything = rng.normal(size=shape) if scores else None
    peers.cells.write(peers.cells.folder_of(cache, "toy", system, seed), about, arrays, everything)


@pytest.fixture(scope="module")
def measured(peers: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    cache = tmp_path_factory.mktemp("peers")
    for seed in (0, 1):
        split = make_split(seed)
        write_split(split, cache / "splits" / f"toy-{seed}")
        make_cell(peers, cache, split, "pyro-bmf", seed, 0.5, True)
        make_cell(peers, cache, split, "myfm-bmf-10", seed, 0.7, True)
        if seed == 0:
            make_cell(peers, cache, split, "cornac-mf", seed, 0.9, False)
    options = {"data": "toy", "seeds": [0, 1, 2], "systems": None, "ours": ["pyro-bmf"], "draws": 50}
    report: dict[str, Any] = peers.report.make_report(argparse.Namespace(cache=cache, **options))
    return cache, report


def test_report_measures_every_finished_cell(measured: tuple[Path, dict[str, Any]]) -> None:
    _, report = measured
    assert report["seeds"] == [0, 1]
    assert {name: sorted(entry["seeds"]) for name, entry in report["systems"].items()} == {
        "pyro-bmf": ["0", "1"],
        "myfm-bmf-10": ["0", "1"],
        "cornac-mf": ["0"],
    }
    ours = report["systems"]["pyro-bmf"]
    cells = ours["seeds"].values()
    assert ours["pooled"]["rmse"] == pytest.approx(np.mean([cell["rmse"] for cell in cells]))
    assert all(0.4 < cell["rmse"] < 0.6 for cell in cells)
    assert set(ours["seeds"]["0"]["ranking"]) >= {"recall@20", "ndcg@20", "ndcg@50"}
    assert report["systems"]["cornac-mf"]["seeds"]["0"]["ranking"] == {}
    assert ours["pooled"]["coverage"]["user"]["groups"] == 10
    json.dumps(report, allow_nan=False)


def test_report_pairs_ours_with_each_peer(peers: Any, measured: tuple[Path, dict[str, Any]]) -> None:
    cache, report = measured
    assert set(report["paired"]["pyro-bmf"]) == {"myfm-bmf-10", "cornac-mf"}
    entry = report["paired"]["pyro-bmf"]["myfm-bmf-10"]
    for metric in ("rmse", "nll", "rps"):
        one = entry["pooled"][metric]
        by_seed = [entry["by_seed"][seed][metric]["difference"] for seed in ("0", "1")]
        assert one["by_seed"] == pytest.approx(by_seed)
        assert one["difference"] == pytest.approx(np.mean(by_seed))
        assert one["low"] < one["difference"] < one["high"]
        assert one["low"] < one["upper_95"] < one["high"]
    assert entry["pooled"]["rmse"]["upper_95"] < 0  # 0.5 against 0.7
    # Over one seed the joint bootstrap is the evaluation's own, drawn otherwise.
    split = make_split(0)
    pair = [
        peers.saved.evaluate_cell(peers.cells.folder_of(cache, "toy", name, 0), split, draws=50)
        for name in ("pyro-bmf", "myfm-bmf-10")
    ]
    alone = peers.pairs.over_seeds([(pair[0].per_rating, pair[1].per_rating)], split.train.n_users)
    own = paired_difference("rmse", *pair, draws=2000)
    assert alone["rmse"]["difference"] == pytest.approx(own.difference)
    assert alone["rmse"]["se"] == pytest.approx(own.se, rel=0.15)


def test_report_tells_the_seconds_to_a_peers_validation_error(measured: tuple[Path, dict[str, Any]]) -> None:
    rows = measured[1]["seconds_to"]
    assert {(row["peer"], row["seed"]) for row in rows} == {("myfm-bmf-10", 0), ("myfm-bmf-10", 1)}
    assert all(row["seconds"] == 2.0 and row["target"] == 0.7 for row in rows)


def test_report_is_written_as_a_table_and_a_plot(
    peers: Any, measured: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    text = peers.tables.markdown(measured[1])
    assert "## pyro-bmf against each peer" in text
    assert "| cornac-mf | 0 |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.count("|") > 3 for row in rows)
    peers.plot.plot(measured[1], tmp_path / "toy.png")
    assert (tmp_path / "toy.png").read_bytes().startswith(b"\x89PNG")


def test_predictions_are_found_by_pair_and_other_splits_refused(
    peers: Any, measured: tuple[Path, dict[str, Any]]
) -> None:
    cache, _ = measured
    split = make_split(0)
    folder = peers.cells.folder_of(cache, "toy", "pyro-bmf", 0)
    arrays = peers.cells.read_predictions(folder)
    predictor = peers.saved.SavedPredictor("x", arrays, "test", split.train.n_items, None)
    shuffled = np.random.default_rng(0).permutation(len(split.test))
    users, items = split.test.users[shuffled], split.test.items[shuffled]
    np.testing.assert_array_equal(predictor.predict_mean(users, items), arrays["test_mean"][shuffled])
    with pytest.raises(ValueError, match="another split"):
        predictor.predict_mean(split.train.users, split.train.items)
    with pytest.raises(ValueError, match="another split"):
        peers.saved.evaluate_cell(folder, make_split(1))


def test_decile_checks_count_what_is_within(peers: Any) -> None:
    groups = [
        {"by": "user", "decile": number, "n": 900, "coverage": coverage}
        for number, coverage in enumerate((0.9, 0.915, 0.93, 0.96))  # two errors are 0.02
    ]
    found = peers.figures.checked(groups)["user"]
    assert (found["within_2se"], found["within_2se_and_allowance"], found["groups"]) == (2, 3, 4)


def test_a_cell_is_known_by_what_was_asked(
    peers: Any, measured: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = measured
    started: list[list[str]] = []

    class Done:
        returncode = 1

    def launch(command: list[str], **_: Any) -> Done:
        started.append(command)
        return Done()

    monkeypatch.setattr(peers.run.subprocess, "run", launch)
    options = argparse.Namespace(cache=cache, core=0, settings="{}", redo=False, no_scores=False)
    assert not peers.run.run_cell(options, "toy", "pyro-bmf", 0)  # the cell has other settings
    assert len(started) == 1
    file = peers.cells.folder_of(cache, "toy", "pyro-bmf", 0) / "cell.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    about["request"]["settings"] = {"preset": "default"}
    file.write_text(json.dumps(about), encoding="utf-8")
    assert peers.run.run_cell(options, "toy", "pyro-bmf", 0)
    assert len(started) == 1


def test_normal_cells_are_the_evaluations_own(peers: Any) -> None:
    mean = np.array([0.2, 2.4, 3.0, 5.7])
    expected = normal_pmf(mean, np.full(4, 0.8), LEVELS)
    np.testing.assert_allclose(peers.prediction.normal_cells(mean, 0.8, LEVELS), expected, atol=1e-12)


def test_a_draws_sides_give_the_machines_sum(peers: Any) -> None:
    """Biases and factors of the two sides add up to the sum over all pairs of features."""
    rng = np.random.default_rng(2)
    part = argparse.Namespace(users=np.array([0, 0, 1, 2]), items=np.array([0, 1, 1, 0]))
    split = argparse.Namespace(n_users=3, n_items=2, train=part)
    users, items, sizes = peers.peer_myfm.features(split, True)
    assert sizes == [3, 2, 2, 3]
    np.testing.assert_allclose(np.asarray(users.todense())[0], [1, 0, 0, 0.5**0.5, 0.5**0.5])
    draw = argparse.Namespace(V=rng.normal(size=(10, 4)), w=rng.normal(size=10))
    bias_u, a, bias_i, b = peers.peer_myfm.sides(draw, users, items)
    for u in range(3):
        for i in range(2):
            x = np.concatenate([users[[u]].toarray()[0], items[[i]].toarray()[0]])
            gram = np.outer(x, x) * (draw.V @ draw.V.T)
            expected = x @ draw.w + np.triu(gram, 1).sum()
            assert bias_u[u] + bias_i[i] + a[u] @ b[i] == pytest.approx(expected)


def test_scripts_say_how_they_are_called(peers: Any) -> None:
    for name in ("run", "report", "worker"):
        module: ModuleType = getattr(peers, name)
        assert f"{name}.py --" in (module.__doc__ or "")


def test_traces_are_thinned_to_their_end(peers: Any) -> None:
    trace = [[float(number), 1.0 / number] for number in range(1, 101)]
    report = {"systems": {"pyro-bmf": {"seeds": {"0": {"trace": trace}, "1": {"trace": trace[:3]}, "2": {}}}}}
    peers.report.thin_traces(report)
    cells = report["systems"]["pyro-bmf"]["seeds"]
    assert cells["0"]["trace"][-1] == trace[-1]
    assert 20 < len(cells["0"]["trace"]) <= 30
    assert cells["1"]["trace"] == trace[:3]
