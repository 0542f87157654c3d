import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from pyro_bmf.cli.data import group
from pyro_bmf.cli.main import root
from pyro_bmf.cli.main import run as run_main
from pyro_bmf.cli.options import Reading, Splitting, data_options, split_options
from pyro_bmf.cli.splitting import load, make_split
from pyro_bmf.data import (
    SOURCES,
    Ratings,
    given_split,
    random_split,
    read_split,
    subsample_split,
    write_split,
)

Write = Callable[[str, str | bytes], Path]
CSV = "".join(f"{u},{i},{(u * i) % 5 + 1},{u + 3 * i}\n" for u in range(1, 21) for i in range(1, 11))


# Tests turn warnings into errors; here the command shows them as notes.
TOLD = pytest.mark.filterwarnings("default::pyro_bmf.data.DataWarning")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments], catch_exceptions=False)


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout.splitlines()[0])["rows"]
    return found


def facts(result: Result) -> dict[str, Any]:
    return {row["property"]: row["value"] for row in rows(result)}


def main(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run_main(root, [str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list(tmp_path: Path) -> None:
    table = run("list")
    assert table.exit_code == 0
    assert all(name in table.output for name in SOURCES)
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m/ratings.dat").write_text("x")
    listed = {row["name"]: row for row in rows(run("list", "--data-dir", tmp_path, "--json"))}
    assert list(listed) == list(SOURCES)
    assert listed["ml1m"]["here"] == str(tmp_path / "ml-1m/ratings.dat")
    assert listed["ml20m"]["here"] is None
    assert (listed["ml20m"]["ratings"], listed["ml20m"]["scale"]) == (20_000_263, "0.5:5:0.5")
    written = tmp_path / "list.csv"
    assert run("list", "--csv", written).exit_code == 0
    assert written.read_text().startswith("name,title,users,items,ratings,scale,here\nml100k,")


def test_info_without_the_files() -> None:
    told = facts(run("info", "ml20m", "--json"))
    assert told["address"] == "https://files.grouplens.org/datasets/movielens/ml-20m.zip"
    assert told["here"] == "no: pyro-bmf data fetch ml20m"
    assert "research use" in told["licence"]
    assert "users" not in told
    assert (
        facts(run("info", "amazon-pet", "--json"))["checksum"] == "none known: a download cannot be verified"
    )


@pytest.mark.filterwarnings("ignore::pyro_bmf.data.DataNotice")
def test_info_of_a_file_a_split_and_synthetic(write: Write, tmp_path: Path, small: Ratings) -> None:
    told = facts(run("info", write("r.csv", CSV), "--json"))
    assert (told["users"], told["items"], told["ratings"], told["scale"]) == (20, 10, 200, "1:5:1 (inferred)")
    assert (told["ratings per user"], told["user ids"]) == ("10 least, 10 median, 10 most", "integers")
    assert (told["density"], told["timestamps"], told["titles"]) == (1.0, True, False)
    assert facts(run("info", "synthetic", "--json"))["ratings"] == 30_000
    split = random_split(small)
    folder = write_split(split, tmp_path / "s")
    shown = run("info", folder, "--json")
    assert [row["ratings"] for row in rows(shown)] == [560, 120, 120]
    assert rows(shown)[0]["split hash"] == split.hash
    assert json.loads(shown.stdout.splitlines()[1])["title"].endswith("ratings")


@TOLD
def test_fetch(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "nothing to fetch" in run("fetch", "synthetic").output
    (tmp_path / "Pet_Supplies.csv").write_text("i,u,1.0,5\n")
    code, out, err = main(capsys, "data", "fetch", "amazon-pet", "--data-dir", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["rows"] == [
        {"what": "ratings", "path": str(tmp_path / "Pet_Supplies.csv"), "bytes": 10}
    ]
    assert "Note: licence of Amazon 2018 ratings" in err
    assert "could not be verified" in err
    code, out, err = main(capsys, "data", "fetch", "ml2m")
    assert (code, out) == (1, "")
    assert err.startswith("Error: no data set is called 'ml2m': use one of ml100k")
    assert err.count("\n") == 1


SCHEMES: dict[str, tuple[list[str], dict[str, Any], tuple[int, int, int]]] = {
    "random": (["--seed", "3"], {"seed": 3, "fractions": [0.7, 0.15, 0.15]}, (140, 30, 30)),
    "fractions": (
        ["--fractions", "0.5,0.25,0.25"], {"seed": 0, "fractions": [0.5, 0.25, 0.25]}, (100, 50, 50),
    ),
    "leave-last": (["--scheme", "leave-last", "--n", "2"], {"n": 2}, (120, 40, 40)),
    "time": (["--scheme", "time", "--points", "30,40"], {"points": [30, 40]}, (117, 57, 26)),
    "one fold": (
        ["--scheme", "k-fold", "--k", "4", "--fold", "2", "--valid-fraction", "0.2"],
        {"k": 4, "fold": 2, "seed": 0, "valid_fraction": 0.2}, (120, 30, 50),
    ),
    "subsample": (["--scheme", "subsample", "--percent", "5"], {"percent": 5.0, "seed": 0}, (10, 95, 95)),
}  # fmt: skip


@pytest.mark.parametrize("case", SCHEMES)
def test_split(write: Write, tmp_path: Path, case: str) -> None:
    options, settings, sizes = SCHEMES[case]
    result = run(
        "split", write("r.csv", CSV), "--out", tmp_path / "s", "--scale", "1:5:1", "--json", *options
    )
    assert tuple(row["ratings"] for row in rows(result)) == sizes
    split = read_split(tmp_path / "s")
    assert split.settings == settings
    assert rows(result)[0]["split hash"] == split.hash


def test_split_writes_every_fold(write: Write, tmp_path: Path) -> None:
    result = run(
        "split",
        write("r.csv", CSV),
        "--out",
        tmp_path / "s",
        "--scale",
        "1:5:1",
        "--scheme",
        "k-fold",
        "--k",
        "3",
    )
    assert result.exit_code == 0
    folds = [read_split(tmp_path / "s" / f"fold-{fold}") for fold in range(3)]
    assert np.array_equal(np.sort(np.concatenate([fold.test_rows for fold in folds])), np.arange(200))


def test_split_of_given_files_and_of_synthetic(write: Write, tmp_path: Path) -> None:
    train, test = write("a.csv", "1,1,5\n2,2,3\n"), write("b.csv", "2,1,4\n")
    result = run("split", "--train", train, "--test", test, "--out", tmp_path / "s", "--scale", "1:5:1")
    assert result.exit_code == 0
    assert read_split(tmp_path / "s").hash == given_split(train, None, test, scale="1:5:1").hash
    assert run("split", "synthetic", "--out", tmp_path / "t").exit_code == 0
    assert len(read_split(tmp_path / "t").ratings) == 30_000
    with np.load(tmp_path / "t/truth.npz") as truth:
        assert truth["eta"].shape == (30_000,)


@TOLD
def test_reading_options(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("r.csv", "stars;film;who\n5;a;x\n4;b;x\n4;a;y\n2;a;y\n")
    code, out, err = main(
        capsys,
        "data",
        "info",
        path,
        "--columns",
        "who,film,stars",
        "--duplicates",
        "mean",
        "--scale",
        "1:5",
        "--json",
    )
    assert code == 0
    told = {row["property"]: row["value"] for row in json.loads(out)["rows"]}
    assert (told["ratings"], told["mean rating"], told["scale"]) == (3, 4.0, "1:5 (given)")
    assert err.splitlines() == [
        "Note: r.csv: 1 duplicate (user, item) rows merged into the mean of their pair",
        "Note: r.csv: 4 rows of data in 5 lines (1 of a header, 1 merged with others of their pair)",
    ]
    code, out, err = main(capsys, "data", "info", path, "--columns", "2,1,0", "--scale", "1:5:1")
    assert (code, out) == (1, "")
    assert err.startswith("Error: r.csv holds 1 duplicate")
    code, _, err = main(
        capsys, "data", "info", path, "--columns", "2,1,0", "--format", "tsv", "--scale", "1:5:1"
    )
    assert code == 1
    code, _, err = main(capsys, "data", "info", write("h.csv", CSV), "--header", "--scale", "1:5:1")
    assert code == 1
    assert "header holds 1, 1, 2, 4" in err


def test_names_that_are_nearly_right(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("info", "fetch"):
        assert "did you mean 'ml100k'?" in main(capsys, "data", command, "mll100k")[2]
    assert "did you mean" not in main(capsys, "data", "info", "ratings.csv")[2]


def test_a_header_that_is_said_to_be_none(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("h.csv", "user,item,rating,timestamp\n" + CSV)
    words = ("data", "info", path, "--columns", "0,1,2", "--no-header")
    assert "leave out --no-header (header=False) if that line names" in main(capsys, *words)[2]


def test_counts_of_a_generated_set_are_of_no_file() -> None:
    assert facts(run("info", "synthetic", "--json"))["counts"].endswith("ratings (as generated)")


def test_folds_of_an_earlier_split_do_not_stay(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        "data",
        "split",
        write("r.csv", CSV),
        "--scale",
        "1:5:1",
        "--scheme",
        "k-fold",
        "--out",
        tmp_path,
    )
    assert main(capsys, *words, "--k", 4)[0] == 0
    (tmp_path / "fold-x").mkdir()
    note = tmp_path / "fold-3/note.txt"
    note.touch()
    code, _, err = main(capsys, *words, "--k", 2, "--overwrite")
    assert code == 1
    assert f"{tmp_path}/fold-3 would lie beside the 2 folds, and what is in there was not written" in err
    assert len(list(tmp_path.glob("fold-?"))) == 5
    note.unlink()
    code, _, err = main(capsys, *words, "--k", 2)
    assert code == 1
    assert f"{tmp_path}/fold-2, {tmp_path}/fold-3 would lie beside the 2 folds: give another --out, or" in err
    code, _, err = main(capsys, *words, "--k", 2, "--overwrite")
    assert f"Removed folds of an earlier split: {tmp_path}/fold-2, {tmp_path}/fold-3." in err
    assert sorted(path.name for path in tmp_path.glob("fold-?")) == ["fold-0", "fold-1", "fold-x"]
    assert "(--overwrite, in Python overwrite=True)" in main(capsys, *words, "--k", 2, "--seed", 7)[2]
    one = main(capsys, *words[:-1], tmp_path / "fold-0", "--k", 2, "--overwrite")
    assert "holds a split, and folds would lie inside it" in one[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scheme", "random", "--n", "2"], "--n does not go with the random split (it is for: leave-last)"),
        (["--scheme", "time", "--seed", "2"], "--seed does not go with the time split"),
        (["--scheme", "time", "--fractions", "0.5,0,0.5", "--points", "1,2"], "not both"),
        (["--fractions", "0.5,0.5"], "write 3 numbers"),
        (["--points", "a,b", "--scheme", "time"], "write 2 numbers"),
        (["--scheme", "k-fold", "--k", "3", "--fold", "3"], "Fold 3 does not exist"),
        (["--scheme", "given"], "takes --train FILE and --test FILE"),
        (["--percent", "0", "--scheme", "subsample"], "--percent"),
        (["--fractions", "0.5,0.4,0.4"], "sum to 1"),
        (["--scale", "5:1:1"], "low must be below high"),
        (["--scheme", "leave-last", "--n", "30"], "use more ratings or a lower n (--n)"),
        (["--min-ratings", "500"], "lower that number (--min-ratings, in Python min_ratings=)"),
        (["--seed", "4294967296"], "a seed is a whole number from 0 to 4294967295"),
    ],
)
def test_options_that_do_not_go_together(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    path = write("r.csv", CSV)
    scale = [] if "--scale" in options else ["--scale", "1:5:1"]
    code, out, err = main(capsys, "data", "split", path, "--out", tmp_path / "s", *scale, *options)
    assert code in (1, 2)
    assert out == ""
    assert message in err
    assert err.count("Error: ") == 1
    assert not (tmp_path / "s").exists()


def test_split_does_not_overwrite(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "split", write("r.csv", CSV), "--out", tmp_path / "s", "--scale", "1:5:1"]
    assert main(capsys, *arguments)[0] == 0
    assert main(capsys, *arguments)[0] == 0  # the same again
    code, _, err = main(capsys, *arguments, "--seed", "1")
    assert (code, "holds another split" in err) == (1, True)
    assert main(capsys, *arguments, "--seed", "1", "--overwrite")[0] == 0
    assert read_split(tmp_path / "s").settings["seed"] == 1


def test_shared_options_on_a_command_with_a_seed_of_its_own(
    write: Write, tmp_path: Path, small: Ratings
) -> None:
    seen: dict[str, Any] = {}

    @click.command()
    @click.argument("data")
    @click.option("--seed", type=int, default=7)
    @data_options
    @split_options(seed="--split-seed")
    def command(data: str, seed: int, reading: Reading, splitting: Splitting) -> None:
        seen.update(seed=seed, split=make_split(data, reading, splitting), ratings=reading)

    path = write("r.csv", CSV)
    arguments = [str(path), "--split-seed", "5", "--seed", "1", "--scale", "1:5:1"]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    assert (seen["seed"], seen["split"].settings["seed"]) == (1, 5)
    assert seen["split"].hash == random_split(load(str(path), Reading(scale="1:5:1")), seed=5).hash
    # A written split is data as well.
    split = subsample_split(small, 10)
    folder = str(write_split(split, tmp_path / "s"))
    assert make_split(folder, Reading(), Splitting()).hash == split.hash
    with pytest.raises(click.UsageError, match="takes no options"):
        make_split(folder, Reading(), Splitting(seed=1))
    with pytest.raises(click.UsageError, match="Say which ratings"):
        make_split(None, Reading(), Splitting())
    with pytest.raises(click.UsageError, match="5 folds"):
        make_split(str(path), Reading(scale="1:5:1"), Splitting(scheme="k-fold"))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from pyro_bmf.cli.data import group\n"
        "from click.testing import CliRunner\n"
        "for name in ([], ['list'], ['info'], ['fetch'], ['split']):\n"
        "    result = CliRunner().invoke(group, [*name, '--help'])\n"
        "    assert result.exit_code == 0 and 'Example:\\n    pyro-bmf' in result.output, name\n"
        "print(sorted({'numpy', 'pandas', 'pyarrow', 'torch', 'pooch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
