"""Puts a worked example where a page has ``[[diff of NAME]]``: the patch ``docs/examples/NAME.patch``.

The tests apply every patch to a copy of the tree and run the tests that it adds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "examples"
MARK = re.compile(r"^\[\[diff of (?P<name>[\w-]+)\]\]$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the marks of a page."""
    return MARK.sub(lambda found: f"```diff\n{diff(found['name'])}```", markdown)


def diff(name: str) -> str:
    """Return an example's patch, without the lines that only git reads."""
    lines = (FOLDER / f"{name}.patch").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if not re.match(r"index |new file mode |diff --git ", line))
