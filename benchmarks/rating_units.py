"""One set of ratings in other units: RMSE and density in the first unit, beside the spread of five seeds.

    python benchmarks/rating_units.py --out benchmarks/results/rating_units.json

Ratings x become a x + b on a continuous scale before they are read. In their unit a fit's RMSE is a times
that of x, and its negative log density log a more: both are brought back, and compared with five seeds of the
fit of x itself. Multiples by a power of two, and the same levels of a discrete scale, give the same bits
(`tests/inference/test_units.py`); others round.
"""

from __future__ import annotations

import argparse
import json
from math import log
from pathlib import Path

import numpy as np

from pyro_bmf import evaluate, fit, load_ratings, preset, random_split
from pyro_bmf.data import RatingScale, Split
from pyro_bmf.data.validation import ratings_from_arrays
from pyro_bmf.files import write_json
from pyro_bmf.methods.settings import Settings

#: a and b of a x + b.
UNITS = {
    "1 to 5": (1.0, 0.0),
    "x 20": (20.0, 0.0),
    "x 200": (200.0, 0.0),
    "x 1e6": (1e6, 0.0),
    "0 to 1": (0.25, -0.25),
}
FITS = {
    "conjugate": preset("conjugate"),
    "amortized": preset("amortized"),
    "default, 60 sweeps": preset("default").replace(
        likelihood="normal", sweeps=60, burn_in=20, kept_draws=40
    ),
}


def measured(split: Split, settings: Settings, factor: float) -> dict[str, float]:
    """Fit, and return figures of the test part in the unit of a = 1."""
    result = fit(split, settings, threads=1, progress=False)
    found = evaluate(result.posterior, split, protocols=())
    assert found.density_nll is not None
    figures = {"rmse": found.rmse / factor, "nll": found.density_nll - log(factor)}
    return {**figures, "coverage": found.calibration.overall.pit_coverage[2]}


def main() -> None:
    """Fit each unit, and write the figures of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    read = load_ratings(given.data)
    done = (
        json.loads(given.out.read_text("utf-8")) if given.out.exists() else {"data": given.data, "fits": {}}
    )
    for name, settings in FITS.items():
        for unit, (factor, offset) in UNITS.items():
            scale = RatingScale(factor * read.scale.low + offset, factor * read.scale.high + offset, None)
            values = factor * read.ratings + offset
            changed = ratings_from_arrays(read.users, read.items, values, scale=scale)
            for seed in range(given.seeds if unit == "1 to 5" else 1):
                key = f"{name}; {unit}; seed {seed}"
                if key not in done["fits"]:
                    split = random_split(changed, seed=0)
                    done["fits"][key] = measured(split, settings.replace(seed=seed), factor)
                    write_json(given.out, done)
                    print(key, done["fits"][key], flush=True)
    for name in FITS:
        for figure in ("rmse", "nll"):
            of = {key: one[figure] for key, one in done["fits"].items() if key.startswith(name + ";")}
            seeds = [one for key, one in of.items() if "; 1 to 5;" in key]
            away = max(
                max(min(seeds) - one, one - max(seeds), 0.0)
                for key, one in of.items()
                if "; 1 to 5;" not in key
            )
            spread = float(np.ptp(seeds))
            done.setdefault("spread", {})[f"{name}; {figure}"] = {
                "five seeds": spread,
                "furthest outside": away,
            }
            print(f"{name}, {figure}: five seeds span {spread:.5f}; other units at most {away:.5f} outside")
    write_json(given.out, done)


if __name__ == "__main__":
    main()
