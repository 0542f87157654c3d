"""The pictures of the documentation are those of the code as it is."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs" / "hooks"))

pictures = pytest.importorskip("pictures")
pytest.importorskip("graphviz", reason="the docs extra is not installed")


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_a_picture_is_current(name: str) -> None:
    source = pictures.PICTURES[name]()
    committed = (pictures.ASSETS / f"{name}.dot").read_text(encoding="utf-8")
    assert source == committed, "run python docs/hooks/pictures.py"
    drawn = (pictures.ASSETS / f"{name}.svg").read_text(encoding="utf-8")
    nodes = set(re.findall(r"^\s*\"?(\w+)\"? \[label", source, re.M))
    assert nodes == set(re.findall(r'class="node">\s*<title>(\w+)</title>', drawn))
    edges = set(re.findall(r"^\s*\"?(\w+)\"? -> \"?(\w+)", source, re.M))
    assert edges == set(re.findall(r"<title>(\w+)&#45;&gt;(\w+)</title>", drawn))


def test_the_model_has_its_sites_and_plates() -> None:
    source = pictures.model_source()
    for site in ("user_factors", "item_factors", "user_bias", "item_bias", "rating"):
        assert f"\t{site} [" in source
    for plate in ("users", "items", "ratings"):
        assert f"cluster_{plate}" in source
    assert source.count("fillcolor=gray") == 1  # the rating alone is observed


def test_every_room_is_in_the_picture() -> None:
    folders = {path.parent.name for path in (ROOT / "pyro_bmf").glob("*/__init__.py")}
    assert folders | {"ground", "top", "cli"} == set(pictures.ORDER)


def test_edges_that_follow_from_others_are_left_out() -> None:
    assert pictures.reduced({("a", "b"), ("b", "c"), ("a", "c")}) == {("a", "b"), ("b", "c")}
