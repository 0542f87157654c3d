"""One class a metric: a new one stands in tables, JSON, comparisons and documents, and needs nothing else."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pyro_bmf.baselines import BiasOnly, Popularity
from pyro_bmf.cli.printing import report
from pyro_bmf.cli.printing.output import TableWriter
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation import METRICS, evaluate, evaluate_with_references, paired_difference
from pyro_bmf.evaluation.calibration import Calibration
from pyro_bmf.evaluation.metrics import (
    CalibrationMetric,
    CatalogueMetric,
    Metric,
    RankingMetric,
    RatingMetric,
    Said,
)
from pyro_bmf.evaluation.metrics.reference import metrics_table


class Brier(RatingMetric):
    """A score of probabilities that the package has not."""

    name = "brier"
    label = "Brier score"
    better = "lower"
    needs = "the probability of each level"
    definition = "mean of Σ (p − 1[rated])²"
    source = "Brier 1950"
    compared = True

    def losses(self, said: Said) -> Any:
        if said.pmf is None:
            return None
        hit = np.arange(said.pmf.shape[1]) == said.positions[:, None]  # type: ignore[index]
        return ((said.pmf - hit) ** 2).sum(axis=1)


class ReciprocalRank(RankingMetric):
    """Another value of a list."""

    name = "mrr"
    label = "MRR"
    better = "higher"
    needs = "a score of every item"
    definition = "mean over users of 1 / the place of the first relevant item"

    def values(self, hits: Any, totals: Any, n: int) -> Any:
        first = np.argmax(hits[:, :n], axis=1)
        return np.where(hits[:, :n].any(axis=1), 1 / (first + 1.0), 0.0)


class Gini(CatalogueMetric):
    """Another figure of all lists."""

    name = "gini"
    label = "Gini index of lists"
    better = "lower"
    needs = "a score of every item"
    definition = "inequality of how often items are recommended"

    def figure(self, listed: Any, n: int) -> float:
        counts = np.sort(listed)
        place = np.arange(1, counts.size + 1)
        return float(((2 * place - counts.size - 1) * counts).sum() / (counts.size * counts.sum()))

    def column(self, n: int) -> str:
        return f"gini@{n}"

    def words(self, n: int) -> str:
        return f"Gini index of a top {n}"


class WorstDecile(CalibrationMetric):
    """A number of the calibration that the package does not pick out."""

    name = "worst_decile"
    label = "RMSE of the worst decile"
    better = "lower"
    needs = "a predicted rating"
    definition = "the largest RMSE of a decile of train counts"

    def figure(self, calibration: Calibration) -> float:
        return max(group.rmse for group in calibration.deciles)


NEW: tuple[Metric, ...] = (Brier(), ReciprocalRank(), Gini(), WorstDecile())


@pytest.fixture(scope="module")
def comparison(make_random_split: Any) -> Any:
    split = make_random_split(11)
    return evaluate_with_references(
        BiasOnly().fit(split), split, n=(3, 5), draws=20, metrics=(*METRICS, *NEW)
    )


def test_a_new_metric_stands_in_json(comparison: Any) -> None:
    content = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    model = content["evaluations"][0]
    assert 0 < model["brier"] < 1
    assert model["worst_decile"] == max(one["rmse"] for one in model["calibration"]["deciles"])
    full = model["ranking"][0]
    assert 0 < full["mrr"] <= 1
    assert full["mrr_se"] > 0
    assert 0 <= full["gini"] < 1
    assert model["ranking"][-1]["gini"] is None  # the protocol `full` alone
    assert {one["metric"] for one in content["differences"]} == {"rmse", "nll", "rps", "brier"}


def test_a_new_metric_stands_in_tables(comparison: Any) -> None:
    table = comparison.table()
    assert {"brier", "worst_decile", "full:mrr@3", "full:gini@5"} <= set(table.columns)
    assert table["brier"].notna().all()
    assert np.isnan(table.loc["global-mean", "full:mrr@3"])
    tables = comparison.tables()
    assert {"brier", "worst_decile"} <= set(tables["ratings"])
    assert {"mrr", "mrr_se", "gini"} <= set(tables["ranking"])


def test_a_new_metric_is_shown_to_people(comparison: Any, capsys: pytest.CaptureFixture[str]) -> None:
    report._detail_tables(comparison, TableWriter(json=False, csv=None))
    shown = capsys.readouterr().out
    for words in ("Brier score", "RMSE of the worst decile", "MRR@3", "Gini index of a top 5"):
        assert words in shown
    assert "– " in shown


def test_a_new_metric_stands_in_documents() -> None:
    lines = metrics_table((*METRICS, *NEW)).splitlines()
    assert len(lines) == 2 + len(METRICS) + len(NEW)
    assert any(
        line.startswith("| Brier score | `brier` | lower |") and "(Brier 1950)" in line for line in lines
    )
    assert any("`mrr`; `full:mrr@20`" in line for line in lines)
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines)


def test_two_systems_are_compared_by_a_new_metric(make_random_split: Any) -> None:
    split = make_random_split(3)
    metrics = (*METRICS, *NEW)
    a, b = (evaluate(one().fit(split), split, n=(4,), metrics=metrics) for one in (BiasOnly, Popularity))
    found = paired_difference("brier", a, b, draws=50)
    assert found.difference == pytest.approx(a.figures["brier"] - b.figures["brier"])  # type: ignore[operator]
    assert paired_difference("full:mrr@4", a, b, draws=50).value_a == pytest.approx(
        a.ranking[0].figures["mrr"]
    )
    for alone in ("rmse_se", "n_impossible", "worst_decile", "full:gini@4"):
        with pytest.raises(SettingsError, match=f"not evaluated by '{alone}': choose from rmse, mae"):
            paired_difference(alone, a, b)


def test_names_are_told_apart_and_every_metric_is_described() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert all(metric.label and metric.needs and metric.definition for metric in METRICS)


def test_fewer_metrics_are_measured_alone(make_random_split: Any) -> None:
    split = make_random_split(3)
    found = evaluate(BiasOnly().fit(split), split, n=(4,), metrics=(Brier(), ReciprocalRank()))
    assert set(found.figures) == {"brier"}
    assert set(found.row()) == {"system", "brier", *(f"{one.protocol}:mrr@4" for one in found.ranking)}
    with pytest.raises(SettingsError, match="bias-only was not measured by 'rmse': put it among the metrics"):
        _ = found.rmse
