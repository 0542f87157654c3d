"""Every page of the documentation is true: its code runs, its output is what is printed, its names exist."""

from __future__ import annotations

import contextlib
import inspect
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from command_line import call as call_cli
from page_blocks import blocks, inline_code, unaccounted, words_of
from run_page import ROOT, parse_ours, run_page
from small_place import make_runs, write_ratings

from pyro_bmf.cli.main import root
from pyro_bmf.methods.setting import settings_of
from pyro_bmf.methods.settings import PRESETS, preset
from pyro_bmf.process import ENVIRONMENT

PAGES = {path.stem: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
#: Pages whose code is run by a test of their own.
ELSEWHERE = ("better-model",)
#: Pages whose code takes longer than ten seconds.
SLOW = ("arviz", "checking", "calibration", "priors-and-likelihoods")
#: Pages that tell of the past: names in them need not exist any more.
HISTORY = ("decisions",)


def quicker(words: Sequence[str]) -> Sequence[str]:
    """Give a command with few iterations, refits and draws, where it names none."""
    more: list[str] = []
    if words[0] == "fit" and "--resume" not in words:
        iterated = {"amortized", "paper", "literal", "pmf", "robust", "poisson"} & set(words)
        iterated = iterated or "student-t" in " ".join(words)
        iterated = iterated or any(word.startswith("ordered-logistic") for word in words)
        more = ["--iterations", "2"] if iterated else ["--sweeps", "12", "--burn-in", "4"]
        more += ["--threads", "1", "--quiet"]
    return [*words, *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with small data, to which the runs that pages need are added once."""
    folder = tmp_path_factory.mktemp("place")
    write_ratings(folder)
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # threads of several processes on few cores wait for each other
    yield folder
    torch.set_num_threads(before)


@pytest.fixture
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Path]:
    """Make a working folder for a page: data, and the runs that it names and does not make itself."""

    def make(page: Path) -> Path:
        monkeypatch.setenv(ENVIRONMENT, "cpu")  # which is what drew the pages' numbers
        code = [block for block in blocks(page.read_text(encoding="utf-8")) if block.language != "text"]
        named, made = set(), set()
        for block in code:
            named |= set(re.findall(r"\bruns/(\w+)", block.text))
            made |= set(re.findall(r"--out runs/(\w+)", block.text)) if not block.mark else set()
        needed = named - made
        make_runs(call_cli, place, [name for name in sorted(needed) if not (place / "runs" / name).exists()])
        folder = tmp_path / "here"
        shutil.copytree(
            place,
            folder,
            ignore=lambda path, names: set(names) - needed if Path(path).name == "runs" else set(),
        )
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PYRO_BMF_DATA_DIR", str(folder / "data"))
        monkeypatch.setenv("MPLBACKEND", "Agg")
        return folder

    return make


def call(words: Sequence[str]) -> str:
    """Call the command line; it must succeed."""
    outcome = call_cli(*words)
    assert outcome.code == 0, f"pyro-bmf {' '.join(words)}: {outcome.err}"
    return outcome.out


@pytest.mark.parametrize("name", PAGES)
def test_every_block_of_a_page_is_accounted_for(name: str) -> None:
    assert not unaccounted(PAGES[name])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
        for name in PAGES
        if name not in ELSEWHERE
    ],
)
def test_the_code_of_a_page_runs_and_prints_what_it_says(name: str, here: Callable[[Path], Path]) -> None:
    page = PAGES[name]
    found = blocks(page.read_text(encoding="utf-8"))
    if not any(block.language in ("python", "sh") for block in found):
        return
    printed = run_page(page, here(page), call, quicker).printed
    for place, block in enumerate(found):
        if block.is_output:
            assert words_of(block.text) == words_of(printed[place - 1]), f"{page.name}:{block.line}"


def options(command: click.Command = root) -> set[str]:
    """Return all options of a command and of those below it."""
    found = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= options(below)
    return found | {"--help", "--version", "--debug"}


OPTIONS = options()
_PATH = re.compile(r"(?:\.?[\w-]+/)+[\w.*-]+\.(?:py|md|json|png|sh|toml|txt|patch|svg)")
_SETTING = re.compile(r"[a-z]\w*=[\w\"'.(),:-]*")
_MODULE = re.compile(r"pyro_bmf(?:\.\w+)+")


def arguments() -> set[str]:
    """Return the names that may stand before ``=`` in a page: settings, and arguments of public names."""
    found = {
        one.name for name in PRESETS for part in preset(name).parts for one in settings_of(part.__class__)
    }
    for package in (
        "pyro_bmf",
        "pyro_bmf.data",
        "pyro_bmf.model",
        "pyro_bmf.baselines",
        "pyro_bmf.export.arviz",
    ):
        home = import_module(package)
        for name in getattr(home, "__all__", dir(home)):
            value = getattr(home, name)
            if callable(value):
                with contextlib.suppress(TypeError, ValueError):
                    found |= set(inspect.signature(value).parameters)
    return found


ARGUMENTS = arguments() | {"write_page_checksum"}  # Arrow's


def wrong_with(code: str) -> str:
    """Return what an inline code names and the project has not got; empty where nothing is wrong."""
    words = code.split()
    if code.startswith(("pyro-bmf ", ".venv/bin/pyro-bmf ")):
        try:
            parse_ours([word.strip("[]…") for word in words[1:]], code)
        except AssertionError as error:
            return str(error)
    elif code.startswith("--") and words[0].partition("=")[0] not in OPTIONS:
        return f"{code}: no command has this option"
    elif _SETTING.fullmatch(code) and code.partition("=")[0] not in ARGUMENTS:
        return f"{code}: there is no setting or argument of this name"
    elif _PATH.fullmatch(code) and code.split("/")[0] not in ("runs", "ml-100k"):
        places = [ROOT, ROOT / "pyro_bmf", ROOT / "docs"]
        if not any(list(place.glob(code)) for place in places):
            return f"{code}: there is no such file"
    elif _MODULE.match(code):
        home, rest = _importable(_MODULE.match(code)[0].split("."))  # type: ignore[index]
        for name in rest:
            if not hasattr(home, name):
                return f"{code}: there is no {name}"
            home = getattr(home, name)
    return ""


def _importable(parts: list[str]) -> tuple[Any, list[str]]:
    """Import as many parts of a dotted name as are modules; return the last, and the parts left."""
    for n in range(len(parts), 0, -1):
        try:
            return import_module(".".join(parts[:n])), parts[n:]
        except ModuleNotFoundError:
            continue
    raise AssertionError(parts)


@pytest.mark.parametrize("name", [name for name in PAGES if name not in HISTORY])
def test_what_the_prose_of_a_page_names_exists(name: str) -> None:
    text = PAGES[name].read_text(encoding="utf-8")
    assert [fault for code in inline_code(text) if (fault := wrong_with(code))] == []


def test_a_name_that_does_not_exist_is_seen() -> None:
    assert wrong_with("pyro-bmf fit --sweep 3") != ""
    assert wrong_with("pyro-bmf fitt") != ""
    assert wrong_with("--no-such-option") != ""
    assert wrong_with("posterior/nowhere.py") != ""
    assert wrong_with("no_such_setting=3") != ""
    assert wrong_with("pyro_bmf.nowhere") != ""
    assert wrong_with("pyro_bmf.posterior.Nobody") != ""
    assert wrong_with("pyro-bmf fit --resume RUN") == wrong_with("pyro_bmf.fit(split)") == ""


def test_a_block_that_nothing_accounts_for_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nprint(1)\n```\n\n```text\n1\n```\n\nprose\n\n```text\nwhence?\n```\n\n"
        "```json\n{}\n```\n\n<!-- parsed: for no reason -->\n```python\nprint(2)\n```\n",
        encoding="utf-8",
    )
    assert [fault.split(":")[1] for fault in unaccounted(page)] == ["11", "15", "20"]
    assert words_of("joint p 0.002,  2 of 58\n\n ml100k") == ["joint p #, # of #", "ml100k"]


#: Lines of what `make fit` prints that depend on the data, beside its numbers: a chain may settle, all
#: test ratings may be known, films have titles, little data are fitted at once, and there is little to say
#: of memory.
OF_THE_DATA = (
    "The # chains have not settled",
    "Note: # of",
    "Note: Which items get rated was fitted in #",
    "# #",
    "…",
    "iteration #/#",
    "ml100k: # test ratings",
)


def test_readme_quotes_what_a_fit_prints(here: Callable[[Path], Path]) -> None:
    readme = PAGES["README"].read_text(encoding="utf-8")
    (quoted,) = [block.text for block in blocks(readme) if block.mark == "excerpt"]
    here(PAGES["README"])
    asked = ("--data", "ml100k", "--recommend-for", 196, "--chains", 3, "--sweeps", 30, "--threads", 1)
    outcome = call_cli("fit", *asked)
    assert outcome.code == 0, outcome.err

    def lines(text: str) -> list[str]:
        named = re.sub(r"runs/[\w/-]+", "runs/RUN", re.sub(r"ml100k", "SET", text))
        return [re.sub(r"\(no line skipped\)|─+", "", line).strip() for line in words_of(named)]

    printed = set(lines(outcome.out) + lines(outcome.err))
    of_the_data = tuple(start.replace("ml100k", "SET") for start in OF_THE_DATA)
    missing = [line for line in lines(quoted) if line not in printed and not line.startswith(of_the_data)]
    assert missing == []
    assert len(lines(quoted)) > 30
