"""The documentation builds without a warning, and the reference in it is that of the commands."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pyro_bmf.cli.main import COMMANDS
from pyro_bmf.methods.setting import settings_of
from pyro_bmf.methods.settings import PRESETS, preset

ROOT = Path(__file__).resolve().parent.parent

pytest.importorskip("mkdocs", reason="the docs extra is not installed")

#: Packages whose names the Python reference has.
REFERENCED = (
    *("pyro_bmf", "pyro_bmf.data", "pyro_bmf.posterior", "pyro_bmf.evaluation", "pyro_bmf.model"),
    *("pyro_bmf.conformance", "pyro_bmf.evaluation.metrics", "pyro_bmf.baselines"),
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, in a process of its own; warnings are errors."""
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr, result.stderr
    return folder


def page(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_formulas_are_mathml_with_the_papers_numbers(site: Path) -> None:
    text = page(site, "mathematics")
    for number in range(5, 11):
        assert f'<span class="number">({number})</span>' in text
    assert text.count("<math ") > 80
    assert "arithmatex" not in text
    assert not re.search(r"\$[^$<]*\\", text)


def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img)\b[^>]*>", text):
            assert not re.search(r"""(src|href)=["']?(https?:)?//""", tag), f"{path.name}: {tag}"


@pytest.mark.parametrize("name", COMMANDS)
def test_reference_shows_every_command_and_option(site: Path, name: str) -> None:
    text = html.unescape(page(site, "cli"))
    assert f"pyro-bmf {name}" in text
    command = COMMANDS[name].load()
    commands = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    for one in commands:
        assert one.hidden or f"Usage: pyro-bmf {name}" in text
        for parameter in one.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert f"  {parameter.opts[0]}" in text or f", {parameter.opts[0]}" in text


def test_the_settings_of_every_preset_are_shown(site: Path) -> None:
    text = html.unescape(page(site, "cli"))
    assert "[[presets]]" not in text
    for name in PRESETS:
        assert f'id="{name}"' in text
        for part in preset(name).parts:
            for one in settings_of(part.__class__):
                assert f"<code>{one.name}</code>" in text


def test_reference_shows_no_raw_marks(site: Path) -> None:
    # click leaves a block alone after a \b character; in a raw docstring it is shown instead of obeyed
    assert "\\b" not in page(site, "cli")


def test_a_formula_with_an_unknown_macro_is_refused() -> None:
    from mkdocs.exceptions import PluginError

    render = load_hook()
    with pytest.raises(PluginError, match=r"page\.md: this formula has a macro"):
        render.to_mathml(r"\nosuchmacro{x}", display="inline", where="page.md")
    with pytest.raises(PluginError, match="well-formed"):
        render.to_mathml(r"\begin{aligned} a &= b \end{aligned}", display="block", where="page.md")


def load_hook(name: str = "render_math"):  # type: ignore[no-untyped-def]
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("package", REFERENCED)
def test_the_python_reference_has_every_public_name(site: Path, package: str) -> None:
    text = page(site, "reference")
    places = load_hook("api_reference").places(package)
    assert len(places) > 1
    for name, place in places.items():
        assert re.search(rf'<h3 id="{re.escape(place)}"[^>]*>\s*{name}', text), name
    assert ":::" not in text
    assert "[[public" not in text
    assert "[[names" not in text
