"""Run the Python blocks of a page of the documentation, one after another in one namespace.

    python tests/run_page.py docs/better-model.md

writes what they print into the text blocks below them, and their figures into docs/assets.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path
from typing import Any

BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)


def run_page(page: Path, folder: Path) -> tuple[dict[str, Any], str]:
    """Execute a page's blocks, and return their names and the page with what they print.

    Parameters
    ----------
    page : Path
    folder : Path
        Where figures go: `folder` in the blocks.
    """
    names: dict[str, Any] = {"folder": folder, "__name__": "page"}

    def run(found: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(found.group(1), str(page), "exec"), names)
        whole = f"```python\n{found.group(1)}```\n"
        if found.group(2) is None:
            return whole
        return f"{whole}\n```text\n{printed.getvalue()}```\n"

    return names, BLOCK.sub(run, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(run_page(path, path.parent / "assets")[1], encoding="utf-8")
