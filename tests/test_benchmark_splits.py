"""The benchmark of published splits: it reads given files, goes on with its file, and sums up."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "splits.py"


def test_folds_that_are_missing_are_cut_from_the_whole_in_its_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pairs = rng.permutation(30 * 20)[:100]
    lines = [f"{1 + p // 20}\t{1 + p % 20}\t{1 + p % 5}\t{900 + n}\n" for n, p in enumerate(pairs)]
    (tmp_path / "u.data").write_text("".join(lines))
    cut = runpy.run_path(str(SCRIPT), run_name="splits")["cut"]
    tests = []
    for number in range(1, 6):
        base, test = cut(tmp_path / "u.data", number, tmp_path)
        fold = lines[20 * (number - 1) : 20 * number]
        for file, rows in ((test, fold), (base, [line for line in lines if line not in fold])):
            found = file.read_text().splitlines(keepends=True)
            assert sorted(found) == sorted(rows)
            keys = [tuple(map(int, line.split("\t")[:2])) for line in found]
            assert keys == sorted(keys)  # by number, as `sort -k 1,1n -k 2,2n` does: 9 before 10
        tests += test.read_text().splitlines(keepends=True)
    assert sorted(tests) == sorted(lines)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_given_splits_are_scored_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.permutation(40 * 30)[:800]
    lines = [f"{1 + p // 30}\t{1 + p % 30}\t{rng.integers(1, 6)}\t{900 + p}\n" for p in pairs]
    for number in (1, 2):
        lines = lines[200:] + lines[:200]
        (tmp_path / f"u{number}.base").write_text("".join(lines[200:]))
        (tmp_path / f"u{number}.test").write_text("".join(lines[:200]))
    out = tmp_path / "splits.json"
    asked = ("--data", "ml100k", "--folder", str(tmp_path), "--out", str(out), "--threads", "1")
    run(monkeypatch, *asked, "--preset", "conjugate", "--splits", "1")
    first = json.loads(out.read_text())
    assert first["rmse_se"] is None
    assert first["splits"]["1"]["n_test"] == 200
    run(monkeypatch, *asked, "--preset", "conjugate", "--splits", "1", "2")
    both = json.loads(out.read_text())
    assert both["splits"]["1"] == first["splits"]["1"]
    values = [both["splits"][number]["rmse"] for number in "12"]
    assert both["rmse"] == pytest.approx(np.mean(values))
    assert both["rmse_se"] == pytest.approx(abs(values[0] - values[1]) / 2)
    said = capsys.readouterr().out
    assert "conjugate, 2 splits: RMSE" in said
    assert "GLocal-K: 0.8889, selected: the epoch on the test part" in said
    assert "AutoRec" not in said  # which has no figure of this set
    with pytest.raises(SystemExit):
        run(monkeypatch, *asked, "--preset", "amortized", "--splits", "1")
    assert "settings differ" in capsys.readouterr().err
