"""Figure 4 on a tiny set: every variant, what it reached, verdicts, and that an interrupted one goes on."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import call

from pyro_bmf.baselines import BiasOnly
from pyro_bmf.experiments.cells import CellStore
from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.papers.convergence import Convergence
from pyro_bmf.experiments.papers.convergence_cells import VARIANTS, variant_settings
from pyro_bmf.experiments.papers.convergence_claims import claims
from pyro_bmf.progress import Silent


def figures(folder: Path) -> list[dict[str, str]]:
    with open(folder / "convergence.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_variant_of_the_figure(here: Path) -> None:
    outcome = call(
        *("experiment", "convergence", "--data", "ml100k", "--seeds", 1, "--iterations", 2),
        *("--literal-iterations", 1, "--threads", 1, "--quiet", "--out", "figure"),
    )
    assert outcome.code == 0, outcome.err
    rows = figures(here / "figure")
    assert [(row["variant"], row["blocks"], row["iteration"]) for row in rows] == [
        *((name, "paper", str(number)) for name in VARIANTS for number in (1, 2)),
        *((name, "100", "1") for name in "CD"),
    ]
    assert all(float(row["test_rmse"]) > 0 and row["state"] == "measured" for row in rows)
    seconds = [float(row["seconds"]) for row in rows]
    assert all(first < second for first, second in zip(seconds[0:10:2], seconds[1:10:2], strict=True))
    # Another part of the model is another curve.
    assert len({row["valid_rmse"] for row in rows if row["iteration"] == "2"}) == len(VARIANTS)
    keys = [one["key"] for one in json.loads((here / "figure/convergence-claims.json").read_text())]
    assert keys == [
        *("b-below-a", "d-below-c", "e-below-d"),
        *("b-faster-than-a", "b-faster-than-a-seconds", "d-faster-than-c", "d-faster-than-c-seconds"),
        *("e-faster-than-d", "e-faster-than-d-seconds"),
        *("b-smoother-than-a", "attention-slower-early", "e-steady-after-20"),
    ]
    reached = json.loads((here / "figure/convergence-reached.json").read_text())
    assert [(one["variant"], one["blocks"]) for one in reached] == [
        *((name, "paper") for name in VARIANTS),
        *(("C", "100"), ("D", "100")),
    ]
    for name in ("convergence.md", "convergence.png", "convergence.svg"):
        assert (here / "figure" / name).stat().st_size > 100


def test_blocks_of_one_kind_alone(here: Path) -> None:
    command = ("experiment", "convergence", "--data", "ml100k", "--variants", "none", "--seeds", 1)
    more = ("--literal-iterations", 1, "--threads", 1, "--quiet", "--out", "literal")
    outcome = call(*command, "--literal-variants", "C", *more)
    assert outcome.code == 0, outcome.err
    assert [(row["variant"], row["blocks"]) for row in figures(here / "literal")] == [("C", "100")]
    outcome = call(*command, "--literal-variants", "none", *more)
    assert outcome.code == 2
    assert "--variants none --literal-variants none" in outcome.err


def test_a_curve_of_one_seed_is_shown_and_not_judged(here: Path) -> None:
    command = ("experiment", "convergence", "--data", "ml100k", "--variants", "A,B", "--iterations", 2)
    more = ("--literal-variants", "none", "--threads", 1, "--quiet", "--out", "part")
    assert call(*command, "--seeds", 1, *more).code == 0
    assert call(*command, "--seeds", 2, "--timeout", 0, *more).code == 0
    report = (here / "part/convergence.md").read_text()
    for name in ("A: no feedback, L' = 0", "B: feedback, L' = 0"):
        assert re.search(
            rf"\| {name} \(1 of 2 seeds\) \| the preset's \| 2 \| \d\.\d{{4}} \| \d\.\d{{4}} \|", report
        )
    assert (here / "part/convergence.png").stat().st_size > 20_000  # both curves are drawn
    verdicts = json.loads((here / "part/convergence-claims.json").read_text())
    assert all(one["verdict"] != "holds" and one["verdict"] != "does not hold" for one in verdicts)


def test_the_variants_are_those_of_the_paper() -> None:
    """§ 4.6: A and C without feedback, B and D with it, L' = 0, 0, 1, 1, E = D with attention, L = 0."""
    told = {
        name: variant_settings(name, "paper", 100, 0).method.encoder  # type: ignore[union-attr]
        for name in VARIANTS
    }
    found = {
        name: (one.feedback, one.n_tower_layers, one.attention != "none", one.n_head_layers)
        for name, one in told.items()
    }
    assert found == {
        "A": (False, 0, False, 0),
        "B": (True, 0, False, 0),
        "C": (False, 1, False, 0),
        "D": (True, 1, False, 0),
        "E": (True, 1, True, 0),
    }
    blocks = variant_settings("C", "100", 20, 0).values()
    assert (blocks["user_batch_size"], blocks["item_batch_size"]) == (100, 100)
    rates = {(one.values()["learning_rate"], one.values()["final_learning_rate"]) for one in (
        variant_settings(name, "paper", 100, 0) for name in VARIANTS)}  # fmt: skip
    assert len(rates) == 1


@pytest.fixture
def tiny(small_data: Path) -> DataSet:
    return DataSet("tiny", "Tiny", str(small_data.parent / "my.csv"), {"scale": "1:5:1"})


class Killed(BaseException):
    """Ends a process's work where it stands."""


def test_a_curve_that_was_cut_off_goes_on_to_the_same_curve(
    tiny: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Convergence((tiny,), 1, variants=("D",), iterations=7, literal_variants=(), threads=1)
    ((curve,),) = (one.cells for one in experiment.curves(tiny))
    whole, cut = CellStore(tmp_path / "whole"), CellStore(tmp_path / "cut")
    whole.run(curve)
    count = []

    def iteration(self: Silent, record: dict[str, Any]) -> None:
        count.append(record["iteration"])
        if count == [1, 2, 3, 4, 5, 6]:
            raise Killed

    monkeypatch.setattr(Silent, "iteration", iteration)
    with pytest.raises(Killed):
        cut.run(curve)
    assert not cut.has(curve)
    cut.run(curve)
    assert count == [1, 2, 3, 4, 5, 6, 6, 7], "it went on from the checkpoint after the fifth"
    first, second = whole.result(curve), cut.result(curve)
    assert first is not None
    assert second is not None
    for a, b in zip(first["curve"], second["curve"], strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


def test_the_target_is_the_bias_only_validation_rmse(tiny: DataSet, tmp_path: Path) -> None:
    experiment = Convergence((tiny,), 2, variants=(), literal_variants=(), threads=1)
    store = CellStore(tmp_path)
    for seed, cell in enumerate(experiment.targets(tiny)):
        store.run(cell)
        result = store.result(cell)
        valid = tiny.split(seed).valid
        errors = BiasOnly().fit(tiny.split(seed)).predict_mean(valid.users, valid.items) - valid.ratings
        assert result is not None
        assert result["valid_rmse"] == pytest.approx(float(np.sqrt(np.mean(errors**2))))
    assert experiment.n_cells() == len(experiment.cells(store)) == 2


class Drawn:
    """Curves that were written down."""

    state = "measured"

    def __init__(self, variant: str, rows: Any, reached: list[int | None]) -> None:
        self._rows, self._reached = np.asarray(rows, dtype=float), reached
        self.curve = type("C", (), {"variant": variant, "blocks": "paper", "iterations": len(rows[0])})

    def values(self, name: str) -> Any:
        n_seeds, n = self._rows.shape
        return np.tile(np.arange(1.0, n + 1) * 2, (n_seeds, 1)) if name == "seconds" else self._rows

    def reached(self) -> list[tuple[int | None, float | None]]:
        return [(None, None) if at is None else (at, 2.0 * at) for at in self._reached]


def test_verdicts_of_curves(tiny: DataSet) -> None:
    c = Drawn("C", [[1.2, 1.1, 1.0, 1.0], [1.2, 1.1, 1.0, 1.01]], [None, 4])
    d = Drawn("D", [[1.3, 1.0, 0.9, 0.9], [1.3, 1.0, 0.9, 0.91]], [2, 2])
    told = {one.key: one for one in claims(tiny, [c, d])}
    assert told["d-below-c"].verdict == "holds"
    assert told["d-below-c"].difference == pytest.approx(0.1)
    assert "75% of the iterations" in told["d-below-c"].told
    # C never gets there with the first seed: five iterations stand for more than four.
    assert told["d-faster-than-c"].difference == pytest.approx(((5 - 2) + (4 - 2)) / 2)
    assert told["d-faster-than-c-seconds"].difference == pytest.approx(((10 - 4) + (8 - 4)) / 2)
    assert "C never with 1 of its seeds" in told["d-faster-than-c"].told
    assert told["b-below-a"].verdict == "cannot be judged"
    assert told["b-below-a"].told == "B: not among the variants, A: not among the variants"
    assert told["e-steady-after-20"].verdict == "cannot be judged"
    nobody = {
        one.key: one
        for one in claims(tiny, [Drawn("C", [[1.0, 1.0]], [None]), Drawn("D", [[0.9, 0.9]], [None])])
    }
    assert nobody["d-faster-than-c"].told == "neither is below it in 2 iterations"


def test_refusals(here: Path) -> None:
    outcome = call("experiment", "convergence", "--data", "ml100k", "--variants", "A,F")
    assert outcome.code == 1
    assert "There is no variant 'F': choose from A, B, C, D, E" in outcome.err
