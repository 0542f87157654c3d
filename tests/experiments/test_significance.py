"""Friedman's and Nemenyi's tests on the printed table, against formulas written out here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import call
from scipy import stats

from pyro_bmf.errors import SettingsError
from pyro_bmf.experiments.printed import SETS, TABLE3
from pyro_bmf.experiments.significance import Significance, compare, top_models

pytest.importorskip("scikit_posthocs", reason="the experiments extra is not installed")

RMSE = pd.DataFrame(dict(TABLE3["RMSE"]), index=list(SETS))


def test_the_ranks_in_rmse_are_not_those_of_the_papers_text() -> None:
    four = ["ours", "ncf", "i-rec", "cnn-cf"]
    assert top_models("RMSE", RMSE, 4) == [
        ["ncf", "i-rec", "ours", "cnn-cf"],
        ["ncf", "i-rec", "ours", "vae-cf"],
    ]
    found = compare("RMSE", RMSE[four])
    assert found.models == ("ours", "ncf", "i-rec", "cnn-cf")
    assert list(found.ranks) == pytest.approx([1.0, 2.6, 2.8, 3.6])


def test_both_tests_are_their_formulas() -> None:
    """Demšar 2006: chi square of mean ranks; z of a rank difference against the studentised range."""
    figures = RMSE[["ours", "ncf", "i-rec", "cnn-cf"]]
    found = compare("RMSE", figures)
    n, k = figures.shape
    mean = figures.rank(axis=1).mean()
    chi = 12 * n / (k * (k + 1)) * (float((mean**2).sum()) - k * (k + 1) ** 2 / 4)
    assert found.statistic == pytest.approx(chi)
    assert found.p == pytest.approx(stats.chi2.sf(chi, k - 1))
    q = abs(mean["ours"] - mean["cnn-cf"]) / np.sqrt(k * (k + 1) / (6 * n)) * np.sqrt(2)
    expected = stats.studentized_range.sf(q, k, np.inf)
    assert found.nemenyi.loc["ours", "cnn-cf"] == pytest.approx(expected, rel=1e-3)
    assert found.different(0.1) == [("ours", "cnn-cf")]
    assert found.different(0.001) == []


def test_higher_is_better_in_ranking() -> None:
    figures = pd.DataFrame(dict(TABLE3["NDCG@20"]), index=list(SETS))
    assert compare("NDCG@20", figures).models[0] == "ours"
    assert compare("NDCG@20", figures).models[-1] == "i-rec"


def test_the_command_writes_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call("experiment", "significance")
    assert outcome.code == 0, outcome.err
    folder = tmp_path / "experiments/significance"
    text = (folder / "significance.md").read_text(encoding="utf-8")
    assert "ours 1.0, ncf 2.6, i-rec 2.8, cnn-cf 3.6" in text
    for name in ("significance.png", "significance.svg", "significance.csv"):
        assert (folder / name).stat().st_size > 500
    with pytest.raises(SettingsError, match="compare at least 3"):
        Significance(2)
    with pytest.raises(SettingsError, match="alpha is 1"):
        Significance(4, 1.0)
