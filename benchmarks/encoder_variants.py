"""Settings of the preset `amortized`, alone and together: validation RMSE by seed.

    python benchmarks/encoder_variants.py --data ml100k --out benchmarks/results/encoder_variants.json

Each variant is fitted on every seed's split, one after another on one thread; test ratings are not read. What
is in the file already is not fitted again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pyro_bmf.data import load_ratings, random_split
from pyro_bmf.files import write_json
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset

_UNTEMPERED: dict[str, Any] = {"beta_user": 1.0, "beta_item": 1.0}
_CLOSED: dict[str, Any] = {"elbo": "closed-form"}
#: What is set of each variant.
VARIANTS: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "as it is": {},
        "expected log-likelihood in closed form": _CLOSED,
        "a residual for each training row": {"residual": True},
        "full covariance": {"covariance": "full"},
        "first layers with a posterior": {"bayesian_input": True},
        "the same, prior of a fifth of the scale": {"bayesian_input": True, "input_prior_scale": 0.2},
        "closed form, full covariance": {**_CLOSED, "covariance": "full"},
        "closed form, untempered": {**_CLOSED, **_UNTEMPERED},
        "closed form, residual, untempered": {**_CLOSED, "residual": True, **_UNTEMPERED},
        "closed form, residual, full covariance, untempered": {
            **_CLOSED,
            "residual": True,
            "covariance": "full",
            **_UNTEMPERED,
        },
        "closed form, residual, first layers with a posterior, untempered": {
            **_CLOSED,
            "residual": True,
            "bayesian_input": True,
            **_UNTEMPERED,
        },
    }
)


def one(data: str, variant: str, seed: int) -> dict[str, Any]:
    """Fit a variant on one split."""
    split = random_split(load_ratings(data), seed=seed)
    settings = preset("amortized").replace(seed=seed, **VARIANTS[variant])
    result = fit(split, settings, threads=1, progress=False)
    best = result.history[result.best_iteration - 1]
    return {"valid_rmse": best["valid_rmse"], "iterations": len(result.history), "seconds": result.seconds}


def main() -> None:
    """Fit what is missing, and print all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="ml100k")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    done: dict[str, dict[str, Any]] = {}
    if options.out.exists():
        done = json.loads(options.out.read_text(encoding="utf-8"))
    for seed in options.seeds:
        for variant in options.variants:
            seeds = done.setdefault(variant, {"settings": VARIANTS[variant], "seeds": {}})["seeds"]
            if str(seed) not in seeds:
                seeds[str(seed)] = one(options.data, variant, seed)
                print(f"{variant}, seed {seed}: {seeds[str(seed)]}", flush=True)
                write_json(options.out, done)


if __name__ == "__main__":
    main()
