"""RMSE on the splits that published tables use: random 90/10 ones of MovieLens 1M, u1 to u5 of 100K.

    python benchmarks/splits.py --data ml1m --splits 0 1 2 3 4 5 6 7 8 9
    python benchmarks/splits.py --data ml100k --splits 1 2 3 4 5 --folder ml-100k

The test part is scored once, by the last state of a fit with the settings of the preset: nothing is chosen
on it. There is no validation part, so a preset that stops by validation runs for all of its iterations. Each
split is added to the file when it is done, and skipped when it is there; a file of other settings is refused.
Split s of MovieLens 1M is `random_split(..., seed=s, fractions=(0.9, 0, 0.1))`, and s seeds its fit too.
That of MovieLens 100K is us.base and us.test of the set's own archive, fitted with seed 0. Where
these are missing they are cut from u.data as mku.sh of the archive does: us.test is the s-th 20,000 lines.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pyro_bmf.data import Split, given_split, load_ratings, random_split
from pyro_bmf.errors import SettingsError
from pyro_bmf.evaluation import evaluate
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.reading import Case
from pyro_bmf.methods.settings import Settings, preset

#: RMSE in the papers of systems that read neither dates nor side information, and how each was selected.
PUBLISHED: tuple[dict[str, Any], ...] = (
    {"system": "GLocal-K", "ml1m": 0.8227, "ml100k": 0.8889, "selected": "the epoch on the test part"},
    {"system": "SparseFC", "ml1m": 0.823, "ml100k": None, "selected": "not checked"},
    {"system": "CF-NADE", "ml1m": 0.829, "ml100k": None, "selected": "not checked"},
    {"system": "I-AutoRec", "ml1m": 0.831, "ml100k": None, "selected": "not checked"},
    {"system": "GC-MC", "ml1m": 0.832, "ml100k": 0.905, "selected": "not checked"},
)


def split_of(data: str, number: int, folder: Path) -> Split:
    """Return one of the published splits."""
    if data == "ml1m":
        return random_split(load_ratings("ml1m"), seed=number, fractions=(0.9, 0.0, 0.1))
    files = folder / f"u{number}.base", folder / f"u{number}.test"
    if all(file.exists() for file in files):
        return given_split(files[0], None, files[1], scale="1:5:1")
    with tempfile.TemporaryDirectory() as made:
        files = cut(folder / "u.data", number, Path(made))
        return given_split(files[0], None, files[1], scale="1:5:1")


def cut(whole: Path, number: int, into: Path) -> tuple[Path, Path]:
    """Write training and test part of fold ``number`` of MovieLens 100K, byte for byte as its mku.sh does.

    The archive's README has the folds made "from u.data by mku.sh": a fifth of the lines, in the file's
    order, is the test part, the others train, and both are sorted by user and item.
    """
    lines = whole.read_text(encoding="ascii").splitlines(keepends=True)
    fifth = len(lines) // 5
    test = slice((number - 1) * fifth, number * fifth)
    parts = {"base": lines[: test.start] + lines[test.stop :], "test": lines[test]}
    for name, rows in parts.items():
        rows.sort(key=lambda row: tuple(int(field) for field in row.split()[:2]))
        (into / f"u{number}.{name}").write_text("".join(rows), encoding="ascii")
    return into / f"u{number}.base", into / f"u{number}.test"


def cell(split: Split, settings: Settings, threads: int | None, device: str) -> dict[str, Any]:
    """Fit and score one split."""
    started = time.perf_counter()
    posterior = fit(split, settings, threads=threads, device=device).posterior
    seconds = time.perf_counter() - started
    found = evaluate(posterior, split, protocols=(), name="pyro-bmf")
    figures = {name: value for name, value in found.figures.items() if value is not None}
    return {"split_hash": split.hash, "n_test": found.n_ratings, "seconds": round(seconds, 1), **figures}


def summary(cells: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the mean RMSE over splits, and its standard error as of independent splits."""
    values = np.array([one["rmse"] for one in cells.values()])
    se = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"n_splits": len(values), "rmse": float(values.mean()), "rmse_se": se}


def main() -> None:
    """Fit the splits that are missing, and print them beside what is published."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=("ml1m", "ml100k"), default="ml1m")
    parser.add_argument("--splits", type=int, nargs="+", help="[default: 0 to 9, or 1 to 5]")
    parser.add_argument(
        "--folder", type=Path, default=Path("ml-100k"), help="where u1.base and the like are, or u.data"
    )
    parser.add_argument("--preset", default="default")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="[default: benchmarks/results/splits_DATA_PRESET.json]")
    options = parser.parse_args()
    numbers = options.splits or list(range(10) if options.data == "ml1m" else range(1, 6))
    out = options.out or Path("benchmarks/results") / f"splits_{options.data}_{options.preset}.json"
    try:
        settings = preset(options.preset)
        if "patience" in settings.values():
            settings = settings.replace(patience=None)
        Case.of(settings, ratings_known=False).check()
    except SettingsError as error:
        parser.error(str(error))
    identity = {"data": options.data, "settings": json.loads(json.dumps(settings.to_dict()))}
    content: dict[str, Any] = {**identity, "splits": {}}
    if out.exists():
        content = json.loads(out.read_text(encoding="utf-8"))
        differing = [name for name, value in identity.items() if content.get(name) != value]
        if differing:
            parser.error(f"{out} holds other splits ({', '.join(differing)} differ): give another --out.")
    cells = content["splits"]
    for number in numbers:
        if str(number) in cells:
            continue
        own = settings.replace(seed=number) if options.data == "ml1m" else settings
        cells[str(number)] = cell(
            split_of(options.data, number, options.folder), own, options.threads, options.device
        )
        environment = {"torch": torch.__version__, "threads": options.threads or torch.get_num_threads()}
        write_json(out, content | summary(cells) | environment | {"published": list(PUBLISHED)})
    for number, one in cells.items():
        print(f"split {number}: RMSE {one['rmse']:.4f}, {one['seconds']:.0f} s")
    every = summary(cells)
    spread = "" if every["rmse_se"] is None else f" ± {every['rmse_se']:.4f} (standard error)"
    print(f"{options.preset}, {every['n_splits']} splits: RMSE {every['rmse']:.4f}{spread}")
    for one in PUBLISHED:
        if one[options.data] is not None:
            print(f"{one['system']}: {one[options.data]:g}, selected: {one['selected']}")


if __name__ == "__main__":
    main()
