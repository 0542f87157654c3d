"""What lies outside: full disks, closed and odd outputs, damaged JSON, text that steers terminals."""

from __future__ import annotations

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyro_bmf.cli.printing.output import TableWriter, note, show_table
from pyro_bmf.cli.printing.text import guarded, json_shown, shell_word, shown

Run = Any
RUNS = Path(__file__).parents[1] / "fixtures" / "runs"
COMMAND = "import sys; from pyro_bmf.cli.main import main; main(sys.argv[1:])"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, in a folder that may be written to, beside its ratings."""
    shutil.copy(RUNS / "ratings.csv", tmp_path)
    shutil.copytree(RUNS / "conjugate", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return Path("run")


def process(*arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *map(str, arguments)],
        text=True,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
        **how,
    )


# --- standard output ------------------------------------------------------------------------------------


def test_standard_output_that_is_full_or_closed() -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        outcome = process("priors", stdout=full)
    assert outcome.returncode == 1
    assert outcome.stderr == (
        "Error: standard output cannot be written: No space left on device. Make room on the disk, or give "
        "another place.\n"
    )
    outcome = process("priors", preexec_fn=lambda: os.close(1))
    assert outcome.returncode == 1
    assert outcome.stderr == "Error: standard output is closed: send it to a file, or to /dev/null.\n"
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "likelihoods"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b""
    assert command.returncode == 1


def test_csv_to_standard_output_takes_the_place_of_tables(run: Path) -> None:
    outcome = process(
        "recommend",
        run,
        "--user",
        "u1",
        "--n",
        3,
        "--by",
        "rating",
        "--csv",
        "/dev/stdout",
        stdout=subprocess.PIPE,
    )
    assert outcome.returncode == 0, outcome.stderr
    rows = list(csv.DictReader(outcome.stdout.splitlines()))
    assert [row["rank"] for row in rows] == ["1", "2", "3"]


def test_csv_to_a_pipe_and_to_a_device(cli: Run, run: Path) -> None:
    os.mkfifo("pipe")
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(Path("pipe").read_text(encoding="utf-8")))
    reader.start()
    outcome = cli("evaluate", run, "--detail", "--csv", "pipe")
    reader.join(timeout=60)
    assert outcome.code == 0, outcome.err
    assert "pyro-bmf" in outcome.out
    assert found[0].count("\n\n") >= 4  # all the tables
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)
    assert cli("priors", "--csv", "/dev/null").code == 0
    outcome = cli("priors", "--csv", "/dev/full")
    assert outcome.code == 1
    assert "Error: /dev/full cannot be written: No space left on device." in outcome.err


# --- files that must not be replaced --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "run", "--csv", "run/config.json"), "--csv run/config.json: that is a file of the run"),
        (("evaluate", "run", "--csv", "run/model.safetensors"), "is a file of the run"),
        (("evaluate", "run", "--csv", "link"), "is a file of the run"),
        (("sensitivity", "run", "--out", "run/history.json"), "run/history.csv: that is a file of"),
        (("evaluate", "run", "--csv", "ratings.csv"), "--csv ratings.csv: the command reads that file"),
        (("fit", "--data", "ratings.csv", "--csv", "ratings.csv"), "the command reads that file"),
        (("recommend", "run", "--users", "ratings.csv", "--out", "ratings.csv"), "reads that file"),
        (("recommend", "run", "--user", "u1", "--out", "a.csv", "--csv", "a.csv"), "both write a.csv"),
        (("ppc", "run", "--out", "/dev/null"), "further files are put beside it"),
        (("evaluate", "run", "--csv", "x" * 300), "File name too long"),
        (("evaluate", "run", "--csv", "ratings.csv/a"), "Not a directory"),
        (("recommend", "run", "--user", "u1", "--by", "rating", "--out", "run"), "run"),
    ],
)  # fmt: skip
def test_outputs_that_are_refused(cli: Run, run: Path, arguments: tuple[str, ...], words: str) -> None:
    Path("link").symlink_to("run/split-hash.json")
    before = {path: path.read_bytes() for path in (*run.iterdir(), Path("ratings.csv"))}
    outcome = cli(*arguments)
    assert outcome.code in (1, 2), outcome.err
    assert words in outcome.err
    for path, content in before.items():
        if path.name != "metrics.json":
            assert path.read_bytes() == content


def test_a_full_disk_is_one_line_in_every_command(run: Path) -> None:
    resource = pytest.importorskip("resource")

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

    for command in (
        ("fit", "--data", "ratings.csv", "--preset", "conjugate", "--iterations", 1, "--out", "new"),
        ("recommend", "run", "--by", "rating", "--all", "--out", "all.csv"),
        ("recommend", "run", "--by", "rating", "--all", "--out", "all.parquet"),
        ("export", "run", "--format", "netcdf", "--draws", 3, "--out", "a.nc"),
        ("similar", "run", "--item", "i1", "--csv", "similar.csv"),
    ):
        outcome = process(*command, stdout=subprocess.DEVNULL, preexec_fn=little)
        assert outcome.returncode == 1, outcome.stderr
        assert "cannot be written: File too large." in outcome.stderr.splitlines()[-1], command
    assert sorted(path.name for path in Path().iterdir()) == ["ratings.csv", "run"]


# --- JSON of a run ----------------------------------------------------------------------------------------


def damage(file: str, change: Callable[[Any], object]) -> None:
    path = Path("run") / file
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "change", "place"),
    [
        ("config.json", lambda c: c.update(data=3), "$.data"),
        ("config.json", lambda c: c.update(format_version="1"), "$.format_version"),
        ("config.json", lambda c: c.update(format_version=-1), "$.format_version"),
        ("config.json", lambda c: c.pop("reading"), "reading"),
        ("config.json", lambda c: c["reading"].update(columns=[1]), "$.reading.columns"),
        ("config.json", lambda c: c["splitting"].update(fractions=[1, "a", 2]), "$.splitting.fractions[1]"),
        ("config.json", lambda c: c["splitting"].update(seed=-4), "seed"),
        ("config.json", lambda c: c.update(refit="no"), "$.refit"),
        ("config.json", lambda c: c["running"].update(threads=None), "$.running.threads"),
        ("config.json", lambda c: c["settings"].update(model=[]), "config.json"),
        ("config.json", lambda c: c["settings"].update(seed="x"), "$.seed"),
        ("config.json", lambda c: c["settings"]["model"].update(n_factors=0), "config.json"),
        ("split-hash.json", lambda c: c.update(hash=5), "$.hash"),
        ("split-hash.json", lambda c: c.update(hash="0" * 63), "$.hash"),
        ("split-hash.json", lambda c: c.update(n_test_seen_by_warm_start="x"), "$.n_test_seen_by_warm_start"),
    ],
)  # fmt: skip
def test_wrong_types_are_told_with_their_place(
    cli: Run, run: Path, file: str, change: Callable[[Any], object], place: str
) -> None:
    damage(file, change)
    for command in (("evaluate", run), ("fit", "--resume", run)):
        outcome = cli(*command)
        assert outcome.code == 1, outcome.err
        assert outcome.err.splitlines()[-1].startswith("Error: ")
        assert place in outcome.err.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "[]", "{", "NaN", '{"hash": Infinity}', "[" * 100_000, "\ud800"])
def test_files_that_are_no_json(cli: Run, run: Path, text: str) -> None:
    for file in ("config.json", "split-hash.json"):
        kept = (run / file).read_bytes()
        (run / file).write_text(text, encoding="utf-8", errors="surrogatepass")
        outcome = cli("evaluate", run)
        assert outcome.code == 1
        assert f"run/{file}" in outcome.err
        (run / file).write_bytes(kept)


def test_a_data_file_whose_name_is_no_text(cli: Run, run: Path) -> None:
    name = os.fsdecode(b"r\xff.csv")
    Path("ratings.csv").rename(name)
    outcome = cli(
        "fit", "--data", name, "--preset", "conjugate", "--iterations", 1, "--quiet", "--out", "new"
    )
    assert outcome.code == 0, outcome.err
    assert cli("evaluate", "new").code == 0


# --- text that steers ---------------------------------------------------------------------------------------

_EVIL = "a\x1b[31m\u202eb\x07\x9b2J"


def test_steering_characters_are_escaped() -> None:
    assert shown(_EVIL) == "a\\x1b[31m\\u202eb\\x07\\x9b2J"
    assert shown("a\nb", keep="\n") == "a\nb"
    assert shown("Amélie 日本 👩\u200d👧 نامه\u200cای") == "Amélie 日本 👩\u200d👧 نامه\u200cای"
    assert shown("\ud800\U000e0041\u2028") == "\\ud800\\U000e0041\\u2028"
    document = json.dumps({"id": _EVIL + "\ud800\U000e0041"}, ensure_ascii=False)
    assert json.loads(json_shown(document)) == {"id": _EVIL + "\ud800\U000e0041"}
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or c == "\u202e" for c in json_shown(document))


def test_a_hint_can_be_copied_into_a_shell() -> None:
    for text in ("plain", "two words", "it's", "a'b\\c\x1b[0m", "line\nend\u202e"):
        word = shell_word(text)
        assert shown(word) == word
        done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, text=True, check=True)
        assert done.stdout == text


def test_tables_notes_and_json_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"user": _EVIL, _EVIL: 1}]
    show_table(_EVIL, rows)
    note(_EVIL)
    tables = TableWriter()
    tables.say(f"Next: {_EVIL}\n")
    show_table(_EVIL, rows, json=True)
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert not any(c in text for c in "\x1b\x07\x9b\u202e")
    assert json.loads(captured.out.splitlines()[-1])["rows"] == rows


def test_the_whole_of_a_fit_is_harmless(cli: Run, tmp_path: Path) -> None:
    lines = ["user,item,rating"]
    lines += [f"u\x1b[3{u}m,i\u202e{i},{1 + (u * i) % 5}" for u in range(8) for i in range(12)]
    Path("evil.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    arguments = ("--preset", "conjugate", "--iterations", 1, "--factors", 2, "--quiet", "--out", "new")
    outcome = cli("fit", "--data", "evil.csv", *arguments, "--recommend-for", "u\x1b[31m")
    assert outcome.code == 0, outcome.err
    outcomes = [outcome, cli("predict", "new", "--user", "u\x1b[31m", "--item", "nothing\x1b[2J")]
    outcomes += [cli("recommend", "new", "--user", "u\x1b[31m"), cli("similar", "new", "--item", "i\u202e1")]
    for one in outcomes:
        assert "\x1b" not in one.out + one.err
        assert "\u202e" not in one.out + one.err
    assert (
        "recommend new --user $'u\\x1b[30m'" in outcome.out
        or "recommend new --user $'u\\x1b[31m'" in outcome.out
    )


def test_formulas_are_guarded_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": text, "n": -1.5} for text in ("=1+1", "+1", "-1", "@x", "\tx", "\rx", "x=1", "")]
    for safe in (False, True):
        TableWriter(csv=tmp_path / "a.csv", csv_safe=safe).show("t", rows)
        with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
            found = list(csv.DictReader(file))
        assert [row["id"] for row in found] == [
            f"'{r['id']}" if safe and n < 6 else r["id"] for n, r in enumerate(rows)
        ]
        assert {row["n"] for row in found} == {"-1.5"}
    assert guarded(-3) == -3


def test_csv_safe_needs_csv(cli: Run) -> None:
    outcome = cli("priors", "--csv-safe")
    assert outcome.code == 2
    assert "--csv-safe is about CSV files" in outcome.err


@pytest.mark.parametrize("columns", ["0", "1", "-5", "abc", "", "9" * 30])
def test_a_width_that_is_none_is_left_aside(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    show_table("A title", [{"name": "value", "n": 1}])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "A title"
    assert lines[1].split() == ["name", "n"]
    assert lines[3].split() == ["value", "1"]


def test_a_width_that_only_looks_like_a_number() -> None:
    outcome = process("priors", stdout=subprocess.PIPE, env={**os.environ, "COLUMNS": "²"})
    assert outcome.returncode == 0, outcome.stderr
    assert "normal" in outcome.stdout
