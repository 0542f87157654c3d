"""The tutorial of the checks does what it says: runs, flags what is wrong, and ends with a better model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_blocks import blocks, words_of
from run_page import Ran, run_page

from pyro_bmf.process import ENVIRONMENT

PAGE = Path(__file__).parent.parent / "docs/better-model.md"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Run the page's blocks, and parse its commands; figures go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, "cpu")  # which is what drew the page's numbers
        return run_page(PAGE, tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def names(ran: Ran) -> dict[str, Any]:
    """The namespace of the page's blocks."""
    return ran.names


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


def test_every_block_prints_what_stands_below_it(ran: Ran) -> None:
    found = blocks(PAGE.read_text(encoding="utf-8"))
    outputs = [place for place, block in enumerate(found) if block.is_output]
    assert len(outputs) == 8
    for place in outputs:
        # Lines in any order: which of two near ties stands first is a matter of a processor's rounding.
        assert sorted(words_of(found[place].text)) == sorted(words_of(ran.printed[place - 1])), found[
            place
        ].line
    printing = [place for place, text in ran.printed.items() if text]
    assert [place + 1 for place in printing] == outputs
