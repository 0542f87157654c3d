"""The ledger: verdicts of figures whose answer is known, what is not run, and the committed page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pyro_bmf.errors import DataError, SavedFileError
from pyro_bmf.experiments.ledger.claims import CLAIMS
from pyro_bmf.experiments.ledger.judgements import NOT_RUN, PRINTED, _closest
from pyro_bmf.experiments.ledger.page import ledger_page
from pyro_bmf.experiments.ledger.printed_cells import Cell, table3_cells, table4_cells
from pyro_bmf.experiments.ledger.runs import Figure, Runs
from pyro_bmf.experiments.papers.judging import FAILS, HOLDS, OPEN, paired
from pyro_bmf.experiments.printed import MODELS, SETS, TABLE3, TABLE4
from pyro_bmf.experiments.scoring import USERS

ROOT = Path(__file__).parents[2]


def table3(folder: Path, rmse: Mapping[str, Sequence[float]], data: str = "ml1m", **more: Any) -> Runs:
    """Write figures by model and seed as `experiment table3` does; each fit took ten seconds a place."""
    rows: list[dict[str, Any]] = []
    for place, (model, values) in enumerate(rmse.items()):
        for seed, value in enumerate(values):
            head = {"set": data, "papers_set": "", "model": model, "seed": seed, "state": "measured"}
            rows.append({**head, "metric": "rmse", "value": value})
            rows.append({**head, "metric": "seconds", "value": 10.0 * (place + 1)})
            for name, shift in (("ndcg@20", 0.0), ("ndcg@50", 0.1), ("recall@20", 0.2), ("recall@50", 0.3)):
                for protocol, users in (("full", USERS[0]), ("rated-precision", USERS[1])):
                    where = {"protocol": protocol, "users": users, "metric": name}
                    rows.append({**head, **where, "value": 1.5 - value + shift})
    (folder / "table3").mkdir(parents=True, exist_ok=True)
    pd.DataFrame([*rows, *more.get("rows", ())]).to_csv(folder / "table3" / "table3.csv", index=False)
    return Runs(folder)


def outcomes(runs: Runs, text: str) -> list[tuple[str, str, str]]:
    (claim,) = [one for one in CLAIMS if one.text == text]
    return [(one.where, one.verdict, one.told) for one in claim.outcomes(runs)]


# -------------------------------------------------------------- what is printed


@pytest.mark.parametrize("metric", list(TABLE3))
def test_the_printed_tables_are_whole_and_agree(metric: str) -> None:
    assert set(TABLE3[metric]) == set(MODELS)
    assert all(len(figures) == len(SETS) for table in (TABLE3, TABLE4) for figures in table[metric].values())
    assert TABLE4[metric]["full"] == TABLE3[metric]["ours"], "the full model is the paper's own row"
    assert sum(len(figures) for figures in TABLE3[metric].values()) == 35
    assert sum(len(figures) for figures in TABLE4[metric].values()) == 20


#: Of the columns of the printed tables, added up from the paper's text: a slip of one digit shows.
SUMS3 = {
    "RMSE": (6.143, 5.881, 5.787, 8.098, 5.274),
    "NDCG@20": (5.531, 5.538, 5.582, 6.292, 6.705),
    "NDCG@50": (5.457, 5.469, 5.536, 6.278, 6.698),
    "Recall@20": (5.392, 5.408, 5.482, 6.267, 6.666),
    "Recall@50": (5.310, 5.325, 5.427, 6.259, 6.660),
}
SUMS4 = {
    "RMSE": (3.475, 3.347, 3.309, 4.512, 2.972),
    "NDCG@20": (3.195, 3.207, 3.228, 3.636, 3.855),
    "NDCG@50": (3.162, 3.175, 3.187, 3.632, 3.853),
    "Recall@20": (3.114, 3.121, 3.153, 3.617, 3.835),
    "Recall@50": (3.069, 3.085, 3.128, 3.615, 3.832),
}


@pytest.mark.parametrize(("table", "sums"), [(TABLE3, SUMS3), (TABLE4, SUMS4)])
def test_the_columns_of_the_printed_tables_add_up(table: Any, sums: Any) -> None:
    for metric, rows in table.items():
        found = [sum(figures[at] for figures in rows.values()) for at in range(len(SETS))]
        assert found == pytest.approx(sums[metric], abs=1e-9)


def test_the_printed_table_is_below_a_baseline_where_the_text_says_equal() -> None:
    (first, *_) = outcomes(Runs(Path("nowhere")), "no ranking figure is below a baseline's")
    assert first[:2] == (PRINTED, FAILS)
    assert "below in Recall@20 on ML-20M cnn-cf;" in first[2]


def test_the_printed_mean_ranks_are_not_those_of_the_text() -> None:
    text = "mean ranks in RMSE: 1, NCF and I-Rec 2.58 and 2.79"
    ((where, verdict, told), *_) = outcomes(Runs(Path("nowhere")), text)
    assert (where, verdict) == (PRINTED, FAILS)
    assert told.startswith("ours 1.0, ncf 2.6, i-rec 2.8, vae-cf 3.6")
    ((_, verdict, told), *_) = outcomes(Runs(Path("nowhere")), "RMSE differs from VAE-CF's")
    assert verdict == HOLDS
    assert told == "Nemenyi, top four: ncf p = 0.203, i-rec p = 0.122, vae-cf p = 0.008"


# -------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("values", "printed", "verdict"),
    [
        ((0.860, 0.862, 0.861), 0.861, "holds"),
        # the interval ends at 0.8605 - 0.0062: what is printed may be rounded by 0.0005
        ((0.858, 0.8605, 0.863), 0.854, "holds"),
        ((0.858, 0.8605, 0.863), 0.853, "worse"),
        ((0.840, 0.841, 0.842), 0.860, "better"),
        ((0.860, 0.861, 0.862), 0.842, "worse"),
        ((0.860,), 0.860, "cannot be judged: one seed"),
        ((), 0.860, "not run"),
        ((0.860, 0.861), None, "–"),
    ],
)
def test_a_cell_is_judged_by_the_interval_over_seeds(
    values: Any, printed: float | None, verdict: str
) -> None:
    assert Cell("ml1m", "RMSE", "ncf", printed, Figure(values, "not run")).verdict == verdict


def test_levels_of_ranking_are_not_judged() -> None:
    cell = Cell("ml1m", "NDCG@20", "ncf", 0.797, Figure((0.79, 0.80, 0.79)))
    assert cell.verdict == "cannot be judged: measure"


def test_every_printed_cell_stands_in_the_ledger(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    cells = [cell for data in runs.sets("table3") for cell in table3_cells(runs, data)]
    assert sum(cell.printed is not None for cell in cells) == 5 * 5 * (6 + 3), "ours in three rows"
    assert {cell.verdict for cell in cells} == {"not run"}
    parts = [cell for data in runs.sets("table4") for cell in table4_cells(runs, data)]
    assert len(parts) == 5 * 5 * 4


FIGURES = {
    "ncf": (0.870, 0.872, 0.871),
    "i-rec": (0.860, 0.861, 0.862),
    "vae-cf": (0.900, 0.902, 0.901),
    "paper": (0.845, 0.847, 0.846),
    "default": (0.861, 0.860, 0.8625),
}


def test_claims_are_judged_by_differences_of_seeds(tmp_path: Path) -> None:
    runs = table3(tmp_path, FIGURES)
    lowest = outcomes(runs, "lower test RMSE than all baselines")
    assert [(where, verdict) for where, verdict, _ in lowest] == [
        (PRINTED, HOLDS), ("ML-1M", HOLDS), ("ML-1M", OPEN),
    ]  # fmt: skip
    assert "paper against i-rec; without cnn-cf, u-rec, dae-cf, not measured" in lowest[1][2]
    second = outcomes(runs, "I-Rec is second on MovieLens, NCF on Amazon")
    assert [one[1] for one in second] == [HOLDS, HOLDS]
    ranking = outcomes(runs, "no ranking figure is below a baseline's")
    assert [one[1] for one in ranking[1:]] == [HOLDS, HOLDS, OPEN, OPEN]
    last = outcomes(runs, "I-Rec ranks worst")
    assert [one[1] for one in last[1:]] == [FAILS, FAILS]
    margin = outcomes(runs, "by 0.017 (ML-1M) to 0.032 (Amazon-Kindle) less than the second")
    assert [one[1] for one in margin] == [HOLDS, OPEN, FAILS]


def test_rows_that_the_paper_has_not_stand_beside_its_parts(tmp_path: Path) -> None:
    rows = [
        {
            "set": "ml1m", "model": "any", "base": base, "part": part, "tuned": tuned, "seed": seed,
            "metric": "rmse", "value": value + 0.001 * seed, "state": "measured",
        }
        for base, part, tuned, value in (
            ("paper", "full", True, 0.842), ("paper", "full", False, 0.9),
            ("guide", "no-mask-encoder", False, 0.8), ("paper", "average-input", True, 0.85),
        )
        for seed in range(3)
    ]  # fmt: skip
    (tmp_path / "table4").mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / "table4" / "table4.csv", index=False)
    cells = [cell for cell in table4_cells(Runs(tmp_path), "ml1m") if cell.metric == "RMSE"]
    assert [(cell.row, cell.printed, cell.verdict) for cell in cells] == [
        ("no data input", 0.917, "not run"),
        ("no cross feedback", 0.864, "not run"),
        ("no attention", 0.852, "not run"),
        ("full model", 0.842, "holds"),
        ("full model, not tuned", None, "–"),
        ("ours: guide, no mask encoder", None, "–"),
        ("ours: paper, average input", None, "–"),
    ]
    assert cells[4].ours.told() == "0.9010"


def test_times_are_ratios_of_seconds(tmp_path: Path) -> None:
    runs = table3(
        tmp_path, {"ncf": (0.9, 0.9), "cnn-cf": (0.9, 0.9), "vae-cf": (0.9, 0.9), "paper": (0.8, 0.8)}
    )
    ((where, verdict, told),) = outcomes(runs, "about as fast as NCF and CNN-CF")
    # 40 seconds against 10 and 20
    assert (where, verdict) == ("ML-1M", FAILS)
    assert told == "paper takes 4.0 times ncf, 2.0 times cnn-cf; 2.8 in the geometric mean"


def test_the_users_autoencoders_are_judged_by_their_places(tmp_path: Path) -> None:
    text = "U-Rec, DAE-CF and VAE-CF fare better in ranking than in RMSE"
    ((where, verdict, told), *_) = outcomes(Runs(tmp_path / "nothing"), text)
    assert (where, verdict) == (PRINTED, HOLDS)
    assert told == "mean ranks: u-rec 4.2 to 3.1, dae-cf 5.2 to 2.8, vae-cf 3.6 to 1.5"
    six = {name: (0.8 + 0.01 * at,) * 2 for at, name in enumerate(MODELS[:-1])}
    found = outcomes(table3(tmp_path, six), text)[1:]
    # ranking figures fall with RMSE here, so that nobody moves
    assert [one[1] for one in found] == [FAILS, FAILS]
    assert found[0][2] == "places by means, full: u-rec 3 to 3, dae-cf 5 to 5, vae-cf 6 to 6"


def test_verdicts_of_other_experiments_are_taken_over(tmp_path: Path) -> None:
    one = {
        "set": "ml100k",
        "title": "MovieLens 100K",
        "key": "lowest-rmse",
        "claim": "lowest",
        "told": "+0.1",
    }
    found = [
        {**one, "verdict": FAILS, "difference": -0.01, "se": 0.001, "percent": 3},
        {**one, "verdict": OPEN, "difference": None, "se": None, "percent": 5},
    ]
    (tmp_path / "sparsity").mkdir()
    (tmp_path / "sparsity" / "sparsity-claims.json").write_text(json.dumps(found), encoding="utf-8")
    assert outcomes(Runs(tmp_path), "on 1 to 10 % of the ratings, the lowest RMSE") == [
        ("MovieLens 100K, 3 % trained on", FAILS, "lowest: +0.1"),
        ("MovieLens 100K, 5 % trained on", NOT_RUN, "lowest: +0.1"),
    ]


def test_what_is_not_measured_says_why(tmp_path: Path) -> None:
    failed = {"set": "ml1m", "model": "dae-cf", "metric": "", "state": "failed: the loss became nan"}
    runs = table3(tmp_path, FIGURES, rows=[failed])
    cells = {(cell.metric, cell.row): cell for cell in table3_cells(runs, "ml1m")}
    assert cells["RMSE", "dae-cf"].verdict == "cannot be judged: failed: the loss became nan"
    assert cells["RMSE", "u-rec"].verdict == "not run"
    assert cells["RMSE", "ours: paper"].verdict == "worse"
    assert cells["RMSE", "ours: paper"].ours.told_interval() == "0.8435 to 0.8485"


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table3").mkdir()
    (tmp_path / "table3" / "table3.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"table3\.csv has no column set"):
        ledger_page(Runs(tmp_path))


def test_two_models_differ_by_users_where_pairs_were_measured_else_by_seeds(tmp_path: Path) -> None:
    runs = table3(tmp_path, FIGURES)
    rmse, ndcg = "RMSE differs from VAE-CF's", "NDCG@50 differs from the other top models'"
    assert outcomes(runs, rmse)[1:] == [
        ("ML-1M", HOLDS, "paper less vae-cf: -0.0550 [-0.0550, -0.0550], by seeds")
    ]
    others = outcomes(runs, ndcg)
    assert [(where, verdict) for where, verdict, _ in others[1:]] == [("ML-1M", HOLDS), ("ML-1M", HOLDS)]
    assert others[1][2].startswith("paper less vae-cf: +0.0550")
    assert others[2][2].startswith("paper less ncf: +0.0250")
    pair = {"set": "ml1m", "metric": "RMSE", "a": "vae-cf", "b": "paper", "difference": 0.01}
    (tmp_path / "significance").mkdir()
    (tmp_path / "significance" / "significance-paired.json").write_text(
        json.dumps([{**pair, "low": -0.01, "high": 0.03}]), encoding="utf-8"
    )
    assert outcomes(Runs(tmp_path), rmse)[1:] == [
        ("ML-1M", OPEN, "vae-cf less paper: +0.0100 [-0.0100, +0.0300], by users")
    ]


def test_the_page_tells_settings_seconds_and_commands(tmp_path: Path) -> None:
    runs = table3(tmp_path, FIGURES)
    folder = tmp_path / "table3"
    (folder / "table3-chosen.json").write_text(
        json.dumps({"ml1m": {"ncf": {"n_factors": 25}}}), encoding="utf-8"
    )
    (folder / "table3.md").write_text(
        "# Table 3\n\n`pyro-bmf experiment table3 --seeds 3`\n", encoding="utf-8"
    )
    page = ledger_page(runs)
    assert "| Table 3 | ML-1M | ncf | n_factors 25 | 10, 10, 10 |" in page
    assert runs.chosen("table4", "ml1m", "guide") == "as they stand"
    assert runs.chosen("table4", "ml1m", "paper-sequential-untuned").startswith("the full model's")
    assert f"pyro-bmf experiment table3 --seeds 3 --out {tmp_path.as_posix()}/table3" in page
    assert f"pyro-bmf experiment table4 --data ml1m --out {tmp_path.as_posix()}/table4" in page


def test_the_committed_page_is_what_the_results_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    page = ledger_page(Runs(Path("benchmarks/results")))
    assert (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8") == page, (
        "write it again: pyro-bmf experiment ledger --results benchmarks/results --out docs/reproduction.md"
    )


def test_rows_of_other_seeds_are_not_paired() -> None:
    """A row that is measured on two seeds of three is left out, not paired with other seeds' figures."""
    others = {"half": [0.9, 0.8], "whole": [0.95, 0.93, 0.94]}
    name, gaps = _closest([0.9, 0.9, 0.9], others, 1.0)
    assert name == "whole"
    assert gaps == pytest.approx([0.05, 0.03, 0.04])
    assert _closest([0.9, 0.9, 0.9], {"half": [0.9, 0.8]}, 1.0) == ("half", [])
    assert paired([], []) == []


@pytest.mark.parametrize(
    "content", ["{", "[" * 100_000, "[1]", '{"a": 3}', "\ufeff\x00", '"word"'], ids=lambda text: text[:8]
)
def test_a_damaged_file_of_an_experiment_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "table3").mkdir()
    for ending in ("chosen", "claims"):
        (tmp_path / "table3" / f"table3-{ending}.json").write_text(content, encoding="utf-8")
    runs = Runs(tmp_path)
    for read in (lambda: runs.chosen("table3", "ml100k", "i-rec"), lambda: runs.claims("table3")):
        with pytest.raises(SavedFileError, match=r"is damaged .*run 'pyro-bmf experiment table3' again"):
            read()


@pytest.mark.parametrize("content", ["", 'set,metric\n"ml100k,rmse\nx,y,z\n1,2,3,4,5\n', "\x00" * 9])
def test_a_damaged_table_of_an_experiment_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "table3").mkdir()
    (tmp_path / "table3" / "table3.csv").write_text(content, encoding="utf-8")
    with pytest.raises((SavedFileError, DataError), match=r"Run that command again|is damaged .*again"):
        _ = Runs(tmp_path).tables
