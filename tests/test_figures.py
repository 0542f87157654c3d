"""A measured figure stands in one place, the file of results: pages that quote it hold what the file says."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import write_figures  # noqa: E402

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in write_figures.pages()}


@pytest.mark.parametrize("name", PAGES)
def test_figures_and_tables_of_a_page_are_those_that_were_measured(name: str) -> None:
    assert write_figures.written(PAGES[name]) == PAGES[name], "run python benchmarks/write_figures.py"


@pytest.mark.parametrize("name", PAGES)
def test_every_mark_of_a_figure_is_complete_and_inside_a_line(name: str) -> None:
    text = PAGES[name]
    assert text.count("<!--=") == len(write_figures.FIGURE.findall(text)) == text.count("<!--/-->")
    assert text.count("<!-- table:") == len(write_figures.TABLE.findall(text))
    # A line that begins with a comment is a block of HTML to Markdown, and is shown as it stands.
    assert not re.search(r"^\s*<!--=", text, re.M)


def test_every_figure_and_table_is_quoted() -> None:
    text = "".join(PAGES.values())
    assert set(write_figures.FIGURES) == {found["name"] for found in write_figures.FIGURE.finditer(text)}
    assert set(write_figures.TABLES) == {found["name"] for found in write_figures.TABLE.finditer(text)}


def test_a_figure_that_was_changed_by_hand_is_seen() -> None:
    name = "first fit test rmse"
    page = f"It has <!--={name}-->0.1234<!--/-->."
    assert write_figures.written(page) != page
    with pytest.raises(KeyError, match="no such figure"):
        write_figures.written("It has <!--=no such figure-->1<!--/-->.")


def by_hand(page: str) -> set[str]:
    """Return the measured figures of a page that nothing writes: those of three digits and more."""
    prose = re.sub(r"^```.*?^```", "", page, flags=re.M | re.S)
    prose = write_figures.TABLE.sub("", write_figures.FIGURE.sub("", prose))
    return set(re.findall(r"(?<![\d.\w])(?:0\.[1-9]\d{2,3}|-\d{5,6}(?:\.\d+)?)(?![\d.]\d)", prose))


def test_no_figure_stands_on_two_pages_by_hand() -> None:
    found: dict[str, list[str]] = {}
    for name, text in PAGES.items():
        # What was measured when a choice was made, and what the ledger writes as a whole.
        if name not in ("decisions", "reproduction"):
            if name == "results":  # single trials, whose figures are like others by chance
                text = re.sub(r"^\|.*$", "", text, flags=re.M)
            for figure in by_hand(text):
                found.setdefault(figure, []).append(name)
    assert {figure: names for figure, names in found.items() if len(names) > 1} == {}
    assert by_hand("RMSE 0.8775, not 0.05, -18765 <!--=x-->0.1234<!--/-->") == {"0.8775", "-18765"}
