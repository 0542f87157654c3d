"""The worked examples of contributing are true: each applies to the tree, and its tests pass there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.patch"))


def apply(patch: Path, tree: Path, *options: str) -> None:
    """Apply a patch to a tree that is no repository."""
    done = subprocess.run(
        ["git", "apply", *options, str(patch)], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{patch.name} does not apply any more: {done.stderr}"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its tests, with every example applied."""
    folder = tmp_path_factory.mktemp("tree")
    for name in ("pyro_bmf", "cli", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "fixtures"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "pyro_bmf" / "cli").symlink_to("../cli")
    for patch in EXAMPLES:
        apply(patch, folder, "--check")  # alone
    for patch in EXAMPLES:
        apply(patch, folder)
    return folder


def added(patch: Path) -> list[str]:
    """Return the tests that an example adds."""
    return re.findall(r"^\+\+\+ b/(tests/.*/test_\w+\.py)$", patch.read_text(encoding="utf-8"), re.M)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_examples_apply_and_their_tests_pass(tree: Path) -> None:
    tests = [name for patch in EXAMPLES for name in added(patch)]
    assert len(tests) >= len(EXAMPLES) > 0
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *tests],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert re.search(r"^(\d+) passed", done.stdout, re.M), done.stdout


def test_the_page_shows_every_example() -> None:
    page = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    assert re.findall(r"^\[\[diff of ([\w-]+)\]\]$", page, re.M)
    assert set(re.findall(r"\[\[diff of ([\w-]+)\]\]", page)) == {patch.stem for patch in EXAMPLES}
