"""The tutorial of the checks does what it says: runs, flags what is wrong, and ends with a better model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from run_page import BLOCK, run_page

PAGE = Path(__file__).parent.parent / "docs/better-model.md"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the page's blocks; figures go to a folder of their own."""
    return run_page(PAGE, tmp_path_factory.mktemp("figures"))[0]


def test_each_check_says_what_the_page_says(names: dict[str, Any]) -> None:
    flagged = {one.name for one in names["check_normal"].flagged}
    assert "sd of user sds" in flagged
    assert len(flagged) > 1
    assert [one.name for one in names["check_ordered"].flagged] == ["sd of user sds"]
    assert names["check_own"].flagged == ()
    assert names["check_residual"].flagged == ()


def test_each_step_is_clearly_better(names: dict[str, Any]) -> None:
    ranking = names["ranking"]
    assert [row.name for row in ranking] == ["and residuals", "own cuts", "ordered", "normal"]
    assert [row.clear for row in ranking] == [False, True, True, True]


def test_the_encoder_s_gap_is_closed_by_residuals(names: dict[str, Any]) -> None:
    before, after = names["users_own"], names["users_residual"]
    assert after["mean_amortization_gap"] < 0.5 * before["mean_amortization_gap"]


def test_figures_are_made_and_committed(names: dict[str, Any]) -> None:
    for name in ("better_model_normal.png", "better_model_last.png"):
        assert (names["folder"] / name).read_bytes().startswith(b"\x89PNG")
        assert (PAGE.parent / "assets" / name).exists()


def test_every_block_that_prints_has_its_output() -> None:
    printing = [found for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8")) if found.group(2)]
    assert len(printing) == 8
