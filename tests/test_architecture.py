"""The house keeps its plan: layers, no circles, one interface instead of questions about classes.

Everything is read off the syntax trees, nothing is imported. Bounds are numbers that stand at the top, each
with what it counts.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pyro_bmf", "cli")

#: Lines that ask of which class a guide, rows, a prior or a likelihood is.
MOST_CLASS_QUESTIONS = 4
#: Names of attributes that are made of text.
MOST_MADE_NAMES = 8
#: Files longer than `LONG` lines, and files in one folder.
LONG, MOST_LONG, MOST_IN_FOLDER = 400, 1, 22
#: Lines of the one way in to every fit, which only passes on.
LONGEST_WAY_IN = 120

#: Classes of which an object may be; what a fit gives and what it is built of.
KINDS = ("Guide", "Rows", "RowDraws", "RowPosterior", "Prior", "Likelihood", "Conditional", "Predictive")
#: The same, by endings that `KINDS` does not have.
KIND_NAMES = ("Normal", "CorrelatedNormal", "LevelProbabilities", "IndependentDraws", "ChainDraws")

#: Layers from the ground up; what stands beside each other may import each other. Whatever is not named
#: (`estimator`, `conformance`, ...) is above them all, and the command line above that.
LAYERS = (
    ("errors", "files"),
    ("tensor_files",),
    ("checkpoint", "estimate", "process", "progress"),
    ("data",),
    ("numerics",),
    ("model",),
    ("systems",),
    ("methods",),
    ("posterior",),
    ("selection",),
    ("evaluation", "baselines", "in_units"),
    ("fit_result", "prepared", "fitting", "refitting"),
    ("checking", "export"),
)
#: Where guides, rows, priors and likelihoods are used.
AFTER_THE_DATA = (
    *("pyro_bmf.model", "pyro_bmf.methods", "pyro_bmf.posterior", "pyro_bmf.checking", "pyro_bmf.export"),
    *("pyro_bmf.fitting", "cli"),
)
#: Of `posterior`, what may know `methods`: the one list of the kinds of saved guides.
KNOWS_METHODS = ("pyro_bmf.posterior.saved",)


def sources() -> Iterator[tuple[str, Path]]:
    """Give every module's name and file."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in sources()}
PATHS = dict(sources())


def imported(name: str, *, typing_too: bool = False) -> Iterator[tuple[str, int]]:
    """Give the project's modules that a module imports, anywhere in it, with the line.

    Imports for annotations alone (under ``TYPE_CHECKING``) are left out unless they are asked for.
    """
    package = name if PATHS[name].name == "__init__.py" else name.rpartition(".")[0]
    skipped = {
        id(inner)
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not typing_too
        for inner in ast.walk(node)
    }
    for node in ast.walk(TREES[name]):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            # A name may be a module of the package.
            targets = [
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in TREES else base for alias in node.names
            ]
        else:
            continue
        for target in dict.fromkeys(targets):
            if target in TREES and target != name:
                yield target, node.lineno


def layer(name: str) -> int:
    """Return how high a module stands."""
    package, _, rest = name.partition(".")
    if package == "cli":
        return len(LAYERS) + 1
    room = rest.partition(".")[0]
    return next((height for height, rooms in enumerate(LAYERS) if room in rooms), len(LAYERS))


def test_imports_go_downward() -> None:
    upward = {
        (name, target): line
        for name in TREES
        if name != "pyro_bmf"
        for target, line in imported(name, typing_too=True)
        if target != "pyro_bmf" and layer(target) > layer(name)
    }
    assert not upward, "\n".join(
        f"{name} line {line} imports {target}, which is above it" for (name, target), line in upward.items()
    )


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = {name: {target for target, _ in imported(name)} for name in TREES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "a circle: " + " -> ".join([*path[path.index(name) :], name])
        if name in done:
            return
        for target in sorted(edges[name]):
            # A package's __init__ gathers names of its modules, which may name the package's others.
            if not name.startswith(f"{target}."):
                visit(target, (*path, name))
        done.add(name)

    for name in sorted(TREES):
        visit(name, ())


def test_the_posterior_knows_no_method() -> None:
    knowing = {
        name
        for name in TREES
        if name.startswith("pyro_bmf.posterior")
        for target, _ in imported(name, typing_too=True)
        if target.startswith("pyro_bmf.methods")
    }
    assert knowing <= set(KNOWS_METHODS), f"methods are known to {sorted(knowing - set(KNOWS_METHODS))}"


@pytest.mark.parametrize("package", ["data", "evaluation"])
def test_some_rooms_use_no_torch(package: str) -> None:
    for name, tree in TREES.items():
        if not name.startswith(f"pyro_bmf.{package}"):
            continue
        for node in ast.walk(tree):
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not [one for one in found if one.split(".")[0] in ("torch", "pyro")], name


def test_data_loads_no_torch() -> None:
    code = "import sys, pyro_bmf.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def calls(function: str) -> Iterator[tuple[str, ast.Call]]:
    """Give every call of a function by its bare name, with the module."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                yield name, node


def is_kind(node: ast.expr) -> bool:
    """Return whether an expression names a class of guides, rows, priors, likelihoods or draws."""
    named = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    named |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
    return any(one.endswith(KINDS) or one in KIND_NAMES for one in named)


def test_few_questions_about_classes() -> None:
    """``isinstance``, ``type(x) is`` and ``case Class():`` on guides, rows, priors and likelihoods."""
    found = [
        f"{name}:{call.lineno}"
        for function in ("isinstance", "issubclass")
        for name, call in calls(function)
        if is_kind(call.args[1])
    ]
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and any(map(is_kind, node.comparators)):
                if any(
                    isinstance(one, ast.Call) and ast.unparse(one.func) == "type" for one in ast.walk(node)
                ):
                    found.append(f"{name}:{node.lineno}")
            elif isinstance(node, ast.MatchClass) and is_kind(node.cls):
                found.append(f"{name}:{node.lineno}")
    assert len(found) <= MOST_CLASS_QUESTIONS, f"{len(found)}: " + ", ".join(found)


def test_nothing_stands_in_for_them() -> None:
    """No ``n_draws is None``, no ``hasattr`` and no ``.kind ==`` on what a fit gives."""
    found = []
    for name, tree in TREES.items():
        if not name.startswith(AFTER_THE_DATA):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                sides = [ast.unparse(one) for one in (node.left, *node.comparators)]
                ends = tuple(one.rpartition(".")[2] for one in sides)
                absent = isinstance(node.ops[0], ast.Is | ast.IsNot) and "None" in sides
                if (absent and "n_draws" in ends) or (
                    isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In)
                    and any(one.endswith(".kind") and "dtype" not in one for one in sides)
                ):
                    found.append(f"{name}:{node.lineno} {ast.unparse(node)}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "hasattr":
                found.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    assert not found, "\n".join(found)


def test_few_names_are_made_of_text() -> None:
    found = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            function = ast.unparse(node.func).rpartition(".")[2]
            if function in ("getattr", "setattr", "delattr", "register_buffer", "register_parameter") and any(
                isinstance(one, ast.JoinedStr) for one in node.args[:2]
            ):
                found.append(f"{name}:{node.lineno}")
    assert len(found) <= MOST_MADE_NAMES, f"{len(found)}: " + ", ".join(found)


def test_files_are_short_and_folders_small() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in PATHS.items()}
    long = {name: length for name, length in lengths.items() if length > LONG}
    assert len(long) <= MOST_LONG, f"{len(long)} files over {LONG} lines: {long}"
    folders = Counter(path.parent for path in PATHS.values())
    full = {str(folder.relative_to(ROOT)): n for folder, n in folders.items() if n > MOST_IN_FOLDER}
    assert not full, f"folders with more than {MOST_IN_FOLDER} files: {full}"


def test_the_way_in_to_a_fit_stays_a_list_of_stages() -> None:
    lines = (ROOT / "pyro_bmf" / "fitting.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_WAY_IN
