r"""Damage copies of a small run folder in every way there is, and see what the commands make of them.

    python tests/fixtures/make_runs.py new-runs
    python benchmarks/fuzz_runs.py new-runs --count 500 --seed 1

Each copy gets one damage: flipped or cut bytes, JSON of other types, deleted files, files of another run,
safetensors files made by hand with a right checksum. Then `evaluate`, `predict`, `recommend` and
`fit --resume` are called in this process. Right are exit codes 0, 1 and 2, errors of our own in one line,
and, where a command succeeds, the very predictions of the undamaged run. The exception is a changed setting
of a run that has neither model nor checkpoint: config.json is then all that says what to fit.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from pyro_bmf import tensor_files
from pyro_bmf.cli.main import root, run

#: Values of other types, or out of any range.
ODD: tuple[object, ...] = (
    None, True, -1, 0, 10**30, 0.5, -1e308, "", "x" * 300, "\u202e\x1b[31m", "../..", [], [1], {}, {"a": 1},
    [[[[[]]]]], "NaN", 2**63,
)  # fmt: skip
Rng = np.random.Generator


def call(*arguments: object) -> tuple[int, str, str]:
    """Call the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = run(root, [str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


# --- damages ------------------------------------------------------------------------------------------------


def flip(folder: Path, rng: Rng) -> str:
    """Flip one bit of one file."""
    file = pick(folder, rng)
    content = bytearray(file.read_bytes())
    place = int(rng.integers(len(content)))
    content[place] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)
    return f"flip {file.name} at {place}"


def scramble(folder: Path, rng: Rng) -> str:
    """Write random bytes over a stretch."""
    file = pick(folder, rng)
    content = bytearray(file.read_bytes())
    start, size = int(rng.integers(len(content))), int(rng.integers(1, 40))
    content[start : start + size] = rng.bytes(size)
    file.write_bytes(content)
    return f"scramble {file.name} at {start}"


def cut(folder: Path, rng: Rng) -> str:
    """Cut a file short, or add to it."""
    file = pick(folder, rng)
    content = file.read_bytes()
    size = int(rng.integers(len(content) + 1))
    file.write_bytes(content[:size] if rng.random() < 0.8 else content + rng.bytes(8))
    return f"cut {file.name} to {size}"


def delete(folder: Path, rng: Rng) -> str:
    """Delete one file, or put a folder in its place."""
    file = pick(folder, rng)
    file.unlink()
    if rng.random() < 0.3:
        file.mkdir()
    return f"delete {file.name}"


def retype(folder: Path, rng: Rng) -> str:
    """Put an odd value somewhere into a JSON file, or take an entry out."""
    file = pick(folder, rng, ".json")
    content = json.loads(file.read_text(encoding="utf-8"))
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        entries = (
            node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        )
        for key, value in entries:
            places.append((node, key))
            walk(value)

    walk(content)
    node, key = places[int(rng.integers(len(places)))]
    if rng.random() < 0.15:
        del node[key]
        what = "gone"
    else:
        node[key] = ODD[int(rng.integers(len(ODD)))]
        what = repr(node[key])[:30]
    file.write_text(json.dumps(content), encoding="utf-8")
    return f"retype {file.name}: {key} {what}"


def swap(folder: Path, rng: Rng) -> str:
    """Put another run's file in the place of one."""
    file = pick(folder, rng)
    others = [p for p in sorted(folder.parent.glob(f"*/{file.name}")) if p.parent.name != folder.name]
    if not others:
        return delete(folder, rng)
    other = others[int(rng.integers(len(others)))]
    shutil.copy(other, file)
    return f"swap {file.name} from {other.parent.name}"


def craft(folder: Path, rng: Rng) -> str:
    """Write the model or the checkpoint again with other tensors or description and a right checksum."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return retype(folder, rng)
    file = files[int(rng.integers(len(files)))]
    with safe_open(file, "pt") as opened:
        metadata, names = opened.metadata(), sorted(opened.keys())
        tensors = {name: opened.get_tensor(name).clone() for name in names}
    format_name, text = next(iter(metadata.items()))
    if "\n" not in text:  # of an older format, without a checksum
        return flip(folder, rng)
    head, _, document_text = text.partition("\n")
    version, _, digest = head.partition(" ")
    document = json.loads(document_text)
    name = names[int(rng.integers(len(names)))]
    tensor = tensors[name]
    changes: dict[str, Callable[[], torch.Tensor]] = {
        "half": lambda: tensor.half(),
        "double": lambda: tensor.double(),
        "long": lambda: tensor.long(),
        "huge": lambda: torch.full_like(tensor.float(), 1e38),
        "nan": lambda: torch.full_like(tensor.float(), float("nan")),
        "empty": lambda: tensor.reshape(-1)[:0],
        "flat": lambda: tensor.reshape(-1),
        "more": lambda: torch.cat((tensor.reshape(-1), tensor.reshape(-1))),
    }
    kind = [*changes, "gone", "version", "describe"][int(rng.integers(len(changes) + 3))]
    if kind == "gone":
        del tensors[name]
    elif kind == "version":
        version = ["-1", "0", "9" * 6000, "x", "", "1e3", "99"][int(rng.integers(7))]
    elif kind == "describe":
        keys = sorted(document)
        name = keys[int(rng.integers(len(keys)))]
        document[name] = ODD[int(rng.integers(len(ODD)))]
    else:
        tensors[name] = changes[kind]().contiguous()
    new = json.dumps(document)
    digest = tensor_files.digest(format_name, version, new, tensors)
    save_file(tensors, file, {format_name: f"{version} {digest}\n{new}"})
    return f"craft {file.name}: {name} {kind}"


DAMAGES = (flip, scramble, cut, delete, retype, retype, swap, craft)


def pick(folder: Path, rng: Rng, suffix: str = "") -> Path:
    """Choose a file that is not empty."""
    files = sorted(
        p for p in folder.iterdir() if p.is_file() and p.name.endswith(suffix) and p.stat().st_size
    )
    return files[int(rng.integers(len(files)))]


# --- what the commands make of them -----------------------------------------------------------------------


def problems(folder: Path, right: str) -> list[str]:
    """Call the commands on a damaged copy, and say what is not as it should be."""
    found = []
    free = not list(folder.glob("*.safetensors"))
    asked = ("predict", folder.name, "--user", "u1", "--item", "i1", "--json")
    for command in (
        ("evaluate", folder.name, "--json"),
        asked,
        ("recommend", folder.name, "--user", "u1", "--json"),
        ("fit", "--resume", folder.name, "--quiet", "--json"),
        asked,
    ):
        code, out, err = call(*command)
        lines = [line for line in err.splitlines() if not line.startswith("Note: ")]
        if code not in (0, 1, 2):
            found.append(f"{command[0]}: exit {code}: {err[-300:]}")
        elif code and (not lines or not lines[-1].startswith("Error: ")):
            found.append(f"{command[0]}: no line of our own: {err[-300:]}")
        elif code == 0 and command is asked and out != right and not free:
            found.append(f"{command[0]}: another answer: {out[:200]}")
    return found


def fuzz(runs: Path, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Damage `count` copies of the runs below `runs`; return how often each damage was done, and problems."""
    rng = np.random.default_rng(seed)
    done: Counter[str] = Counter()
    bad: list[str] = []
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        shutil.copy(runs / "ratings.csv", place)
        names = [p.parent.name for p in sorted(runs.glob("*/config.json"))]
        for name in names:
            shutil.copytree(runs / name, name, ignore=shutil.ignore_patterns("expected.safetensors"))
        right: dict[str, str] = {}
        for name in names:
            whole = name
            if not Path(name, "model.safetensors").exists():
                # What it comes to when nothing is damaged; the finished run where it cannot go on at all.
                shutil.copytree(name, "undamaged")
                gone_on = call("fit", "--resume", "undamaged", "--quiet", "--json")[0] == 0
                whole = "undamaged" if gone_on else whole_of(name, names)
            right[name] = call("predict", whole, "--user", "u1", "--item", "i1", "--json")[1]
            shutil.rmtree("undamaged", ignore_errors=True)
        for number in range(count):
            name = names[int(rng.integers(len(names)))]
            folder = Path("damaged")
            shutil.copytree(name, folder)
            damage = DAMAGES[int(rng.integers(len(DAMAGES)))]
            what = damage(folder, rng)
            done[what.split()[0]] += 1
            bad += [
                f"seed {seed}, {number}: {name}: {what}: {line}" for line in problems(folder, right[name])
            ]
            shutil.rmtree(folder)
    return done, bad


def whole_of(name: str, names: list[str]) -> str:
    """Return the finished run that an unfinished one comes to."""
    return max((n for n in names if name.startswith(f"{n}-") and n != name and "-after-" not in n), key=len)


def main() -> None:
    """Fuzz and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    done, bad = fuzz(options.runs.resolve(), options.count, options.seed)
    print(f"{sum(done.values())} damaged run folders: {dict(done)}; {len(bad)} problems")
    print("\n".join(bad))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
