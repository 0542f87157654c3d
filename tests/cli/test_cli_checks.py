"""`ppc`, `diagnose`, `compare`, `sensitivity` and `elicit` on a small run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import Cli


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, which the commands may write into."""
    return Path(shutil.copytree(tiny_run, tmp_path / "own"))


def test_ppc_writes_table_json_and_figure(cli: Cli, run: Path, data_dir: Path) -> None:
    outcome = cli("ppc", run, "--data-dir", data_dir, "--draws", 50, "--prior-draws", 10, "--json")
    assert outcome.code == 0, outcome.err
    first = json.loads(outcome.out.splitlines()[0])
    assert "joint p-value" in first["title"]
    content = json.loads((run / "ppc.json").read_text())
    assert len(content["statistics"]) == len(first["rows"]) == len(content["prior"])
    assert {"50 % by PIT", "90 % by PIT"} < {one["name"] for one in content["statistics"]}
    assert all(0.0 < one["p_value"] <= 1.0 for one in content["statistics"])
    assert (run / "ppc.png").stat().st_size > 10_000
    shown = cli("ppc", run, "--data-dir", data_dir, "--draws", 50, "--prior-draws", 0).out
    assert "90 % by PIT" in shown
    assert "interval holds" not in shown


def test_diagnose_lists_every_row(cli: Cli, run: Path) -> None:
    outcome = cli("diagnose", run, "--draws", 100, "--worst", 2)
    assert outcome.code == 0, outcome.err
    assert "least to be trusted" in outcome.out
    content = json.loads((run / "diagnosis.json").read_text())
    assert [one["side"] for one in content["rows"]] == ["user", "item"]
    assert content["gradient_noise"]["n_blocks"] >= 1
    lines = (run / "diagnosis-users.csv").read_text().splitlines()
    assert len(lines) == 1 + content["rows"][0]["rows"]
    assert (run / "diagnosis.png").exists()


def test_compare_ranks_and_leaves_users_out(cli: Cli, run: Path, tiny_run: Path, data_dir: Path) -> None:
    outcome = cli(
        *("compare", run, tiny_run, "--data-dir", data_dir, "--loo", "--loo-ratings", 50),
        *("--new-users", 5, "--draws", 50, "--out", "all.json"),
    )
    assert outcome.code == 0, outcome.err
    content = json.loads(Path("all.json").read_text())
    # One model twice: no difference, and nothing clear.
    for part in ("held_out", "leave_one_user_out"):
        assert [one["difference"] for one in content[part]] == [0.0, 0.0]
        assert not any(one["clear"] for one in content[part])
    # Fifty draws of so small a fit leave more than 1 % of the k-hats too high, and they are of guides.
    assert [one["ranked"] for one in content["loo"]] == [False, False]
    assert [one["difference"] for one in content["loo"]] == [None, None]
    assert all(one["share_high_k"] > 0.01 and not one["reliable"] for one in content["loo"])
    assert "NOT RANKED" in outcome.out
    assert "Not ranked by PSIS-LOO" in outcome.out
    assert "tempered" in outcome.err
    assert cli("compare", run).code == 2
    assert cli("compare", run, run).code == 2


def test_sensitivity_covers_every_user(cli: Cli, run: Path) -> None:
    outcome = cli("sensitivity", run, "--n", 3, "--draws", 100)
    assert outcome.code == 0, outcome.err
    content = json.loads((run / "sensitivity.json").read_text())
    assert len((run / "sensitivity.csv").read_text().splitlines()) == 1 + content["users"]


def test_elicit_asks_of_old_and_new_users(cli: Cli, run: Path) -> None:
    for who in (("--user", 7), ("--rating", "3=5"), ()):
        outcome = cli("elicit", run, *who, "--n", 2, "--json")
        assert outcome.code == 0, outcome.err
        rows = json.loads(outcome.out)["rows"]
        assert [one["ask"] for one in rows] == [1, 2]
        assert all(one["information"] > 0 for one in rows)
        assert rows[0]["title"].startswith("Film")
    assert cli("elicit", run, "--user", 7, "--rating", "3=5").code == 2
    assert cli("elicit", run, "--user", "nobody").code == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        b'a,"b\n',
        b"iteration,loss_per_rating\n1,x\n",
        b"loss_per_rating\n1\n",
        b"a\n1\n2,3\n",
    ],
)
def test_diagnose_names_a_damaged_history(cli: Cli, run: Path, content: bytes) -> None:
    (run / "history.csv").write_bytes(content)
    outcome = cli("diagnose", run, "--draws", 100)
    assert outcome.code == 1
    assert "history.csv is damaged (" in outcome.err
    assert "take it from a copy, or delete it" in outcome.err
