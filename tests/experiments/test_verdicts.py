"""What is said of the paper's claims, and which figure is in bold, of figures that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.reports import Report, Section, markdown_table, mean_and_se, with_se
from pyro_bmf.experiments.verdicts import verdicts

SIX = ("ncf", "cnn-cf", "u-rec", "i-rec", "dae-cf", "vae-cf")


@dataclass(frozen=True)
class Known:
    """A row with two seeds of RMSE, and one figure for all that ranks."""

    name: str
    rmse: tuple[float, float]
    rank: float | None = 0.5

    def values(self, metric: str, protocol: str, users: str) -> list[float]:
        if metric == "RMSE":
            return list(self.rmse)
        return [] if self.rank is None else [self.rank, self.rank]


def told(rows: list[Known], name: str = "films") -> Mapping[str, tuple[str, str]]:
    data = DataSet(name, name, "synthetic")
    found = verdicts([(data, rows)], ("paper",))
    return {line["claim"].partition(" (")[0]: (line["verdict"], line["difference"]) for line in found}


def test_the_papers_order() -> None:
    rows = [Known(name, (0.90, 0.92)) for name in SIX if name != "i-rec"] + [Known("i-rec", (0.88, 0.89))]
    found = told([*rows, Known("paper", (0.85, 0.87))])
    assert found["paper has a lower RMSE than all six"] == ("holds", "against i-rec: -0.0250 ± 0.0050")
    assert found["i-rec has the lowest RMSE of the six"][0] == "holds"
    assert found["paper is no worse in ranking"] == ("holds", "–")


def test_another_order() -> None:
    rows = [Known(name, (0.90, 0.92), 0.6 if name == "ncf" else 0.5) for name in SIX]
    found = told([*rows, Known("paper", (0.91, 0.91))])
    verdict, difference = found["paper has a lower RMSE than all six"]
    assert verdict == "does not hold"
    assert "not below" in difference
    assert all(name in difference for name in SIX)  # a tie is not lower
    assert found["i-rec has the lowest RMSE of the six"][0] == "does not hold: place 6 of 6"
    verdict, difference = found["paper is no worse in ranking"]
    assert verdict == "does not hold in 4 of 24"
    assert "NDCG@20 of ncf (-0.1000 ± 0.0000)" in difference
    assert "ncf has the lowest RMSE of the six" in told(rows, "amazon-pet")


def test_what_was_not_measured_is_not_judged() -> None:
    found = told([Known("i-rec", (0.9, 0.9)), Known("paper", (0.8, 0.8), None)])
    assert found["paper has a lower RMSE than all six"][0] == "holds for those measured"
    assert (
        "not measured: ncf, cnn-cf, u-rec, dae-cf, vae-cf" in found["paper has a lower RMSE than all six"][1]
    )
    assert found["paper is no worse in ranking"][0] == "cannot be judged"
    assert found["i-rec has the lowest RMSE of the six"][0] == "cannot be judged"
    assert told([])["i-rec has the lowest RMSE of the six"][0] == "cannot be judged"
    missing = DataSet("ml10m", "ML-10M", "ml10m", {"data_dir": "/nowhere"})
    assert missing.missing is not None
    assert not verdicts([(missing, [])], ("paper",))


def test_means_and_errors() -> None:
    assert mean_and_se([1.0, 2.0, 6.0]) == (3.0, pytest.approx(1.5275252))
    assert mean_and_se([1.5]) == (1.5, None)
    assert with_se(0.84215, 0.00114) == "0.8421 ± 0.0011"
    assert with_se(0.5, None) == "0.5000"


def test_markdown() -> None:
    text = markdown_table([{"a": "x|y", "b": "1"}, {"b": "2", "c": "3"}])
    assert text.splitlines() == ["| a | b | c |", "| --- | --- | --- |", "| x\\|y | 1 |  |", "|  | 2 | 3 |"]
    report = Report("r", "Title", [Section("One", [{"a": "1"}], "Words."), Section("Two")], [])
    assert report.markdown() == "# Title\n\n## One\n\nWords.\n\n| a |\n| --- |\n| 1 |\n\n## Two\n"
