"""What is installed, and that the lock file, the declared dependencies and the version agree."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def project() -> dict[str, dict[str, object]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def environment(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "extra": "",
    }


def pins(python: str) -> dict[str, Version]:
    """Return what the requirement files install on one Python version."""
    found: dict[str, Version] = {}
    for name in ("lock.txt", "torch.txt"):
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
        for line in text.replace("\\\n", " ").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            requirement = Requirement(line.split("--hash")[0])
            if requirement.marker is None or requirement.marker.evaluate(environment(python)):
                [specifier] = requirement.specifier
                assert specifier.operator == "=="
                key = canonicalize_name(requirement.name)
                assert key not in found, f"{key} is pinned twice on Python {python}"
                found[key] = Version(specifier.version)
    return found


# --- the wheel ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Build the wheel from a copy of the tree, without isolation, so without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pyro_bmf", "cli"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)],
        check=True,
        capture_output=True,
    )
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_has_one_top_level_name(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"pyro_bmf"}


def test_wheel_has_every_module(wheel: zipfile.ZipFile) -> None:
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pyro_bmf").rglob("*.py")}
    expected |= {f"pyro_bmf/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "cli").rglob("*.py")}
    assert "pyro_bmf/cli/main.py" in expected
    assert {name for name in wheel.namelist() if name.endswith(".py")} == expected
    assert "pyro_bmf/py.typed" in wheel.namelist()


def test_wheel_metadata(wheel: zipfile.ZipFile) -> None:
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert b"pyro-bmf = pyro_bmf.cli.main:main" in wheel.read(entry_points)
    [metadata] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    assert b"License-Expression: Apache-2.0" in wheel.read(metadata)
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_commands_import_each_other_relatively() -> None:
    for path in (ROOT / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not re.match(r"(pyro_bmf\.)?cli(\.|$)", name), (
                    f"{path.name} imports {name}: import it relatively, as from .output import …"
                )


def test_the_modules_that_are_broken_on_purpose_are_there(project: dict[str, dict[str, object]]) -> None:
    table = project["tool"]["mutmut"]
    assert isinstance(table, dict)
    for pattern in (*table["only_mutate"], *table["also_copy"]):
        assert list(ROOT.glob(pattern)), pattern
    for argument in table["pytest_add_cli_args_test_selection"]:
        assert (ROOT / argument.removeprefix("--ignore=")).exists(), argument


# --- the lock file --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lock.txt", "torch.txt"])
def test_requirement_files_record_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted|@ ", text)


def test_every_pin_of_the_lock_file_has_a_hash() -> None:
    text = (ROOT / "requirements" / "lock.txt").read_text(encoding="utf-8")
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.startswith("#"):
            assert re.fullmatch(r"[a-z0-9.-]+==\S+( ; [^-]+?)?( +--hash=sha256:[0-9a-f]{64})+ *", line), line


@pytest.mark.parametrize("python", PYTHONS)
def test_no_cuda_package_is_locked(python: str) -> None:
    assert not [name for name in pins(python) if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_satisfy_what_is_declared(project: dict[str, dict[str, object]], python: str) -> None:
    table = project["project"]
    extras = table["optional-dependencies"]
    assert isinstance(extras, dict)
    declared = [*table["dependencies"], *extras["test"], *extras["docs"], *extras["dev"]]  # type: ignore[misc]
    declared += project["build-system"]["requires"]  # type: ignore[operator]
    [torch] = project["tool"]["uv"]["dependency-metadata"]  # type: ignore[index]
    declared += torch["requires-dist"]
    found = pins(python)
    for text in declared:
        requirement = Requirement(text)
        if requirement.name == "pyro-bmf":
            continue
        if requirement.marker is None or requirement.marker.evaluate(environment(python)):
            version = found.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is not locked for Python {python}: make lock"
            assert requirement.specifier.contains(version), f"{text} against {version}: make lock"


def test_torch_counts_as_the_version_that_is_pinned(project: dict[str, dict[str, object]]) -> None:
    [torch] = project["tool"]["uv"]["dependency-metadata"]  # type: ignore[index]
    assert Version(torch["version"]) == pins("3.11")["torch"]


def test_arviz_by_python_version() -> None:
    assert pins("3.11")["arviz"] in SpecifierSet(">=0.23.4,<0.24")
    assert pins("3.11")["matplotlib"] in SpecifierSet("<3.11")
    for python in ("3.12", "3.13"):
        assert pins(python)["arviz"] in SpecifierSet(">=1,<2")
    assert Marker("python_version < '3.12'").evaluate(environment("3.11"))


# --- one version ----------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere(project: dict[str, dict[str, object]]) -> None:
    version = project["project"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(rf"^version: {re.escape(str(version))}$", citation, re.MULTILINE)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[(Unreleased|{re.escape(str(version))})\]", changelog, re.MULTILINE)


def test_citation_is_yaml_with_the_paper() -> None:
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == "Apache-2.0"
    [paper] = citation["references"]
    assert paper["doi"] == "10.48550/arXiv.2002.09145"
    assert paper["authors"][0] == {"family-names": "Jin", "given-names": "Yuan"}
