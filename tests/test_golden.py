"""Golden figures: a change that moves accuracy, for better or worse, is seen here.

The middle of each band is one measured fit (one seed, one thread, torch 2.13 on x86-64); its width is a
choice, not a measured spread. A change that leaves a band on purpose changes it, and says so in the
changelog.
"""

from __future__ import annotations

import numpy as np
import pytest

from pyro_bmf.data import DataWarning, Split, load_ratings, random_split
from pyro_bmf.errors import DataError
from pyro_bmf.evaluation import evaluate
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset

# Notes about scale and licence are for people.
pytestmark = pytest.mark.filterwarnings(f"ignore::{DataWarning.__module__}.{DataWarning.__name__}")


def figures(split: Split, iterations: int) -> dict[str, float]:
    settings = preset("amortized").replace(max_iterations=iterations)
    result = fit(split, settings, threads=1, progress=False)
    test = split.test
    predicted = result.posterior.predict_mean(test.users, test.items)
    sd = result.posterior.predict_sd(test.users, test.items)
    standardised = (test.ratings - predicted) / sd
    return {
        "rmse": float(np.sqrt(np.mean((test.ratings - predicted) ** 2))),
        "sd_of_standardised_error": float(standardised.std()),
        "noise": result.history[-1]["noise"],
    }


def ml100k() -> Split:
    try:
        return random_split(load_ratings("ml100k", download=False), seed=0)
    except DataError as error:
        pytest.skip(f"real ratings, which `pyro-bmf data fetch ml100k` gets: {error}")


def test_synthetic() -> None:
    found = figures(random_split(load_ratings("synthetic"), seed=0), iterations=5)
    assert found["rmse"] == pytest.approx(GOLDEN["synthetic"]["rmse"], abs=0.01)
    assert found["noise"] == pytest.approx(GOLDEN["synthetic"]["noise"], abs=0.01)
    assert 0.85 < found["sd_of_standardised_error"] < 1.1


def test_ml100k() -> None:
    split = ml100k()
    found = figures(split, iterations=8)
    assert found["rmse"] == pytest.approx(GOLDEN["ml100k"]["rmse"], abs=0.006)
    assert 0.85 < found["sd_of_standardised_error"] < 1.1


def test_ml100k_reaches_its_target() -> None:
    split = ml100k()
    assert figures(split, iterations=preset("amortized").values()["max_iterations"])["rmse"] < 0.920


def test_default_on_ml100k() -> None:
    split = ml100k()
    posterior = fit(
        split, preset().replace(sweeps=60, burn_in=20, kept_draws=40), threads=1, progress=False
    ).posterior
    found = evaluate(posterior, split)
    assert found.rmse == pytest.approx(GOLDEN["default on ml100k"]["rmse"], abs=0.006)
    assert found.nll == pytest.approx(GOLDEN["default on ml100k"]["nll"], abs=0.012)
    assert found.rps == pytest.approx(GOLDEN["default on ml100k"]["rps"], abs=0.005)


GOLDEN = {
    "synthetic": {"rmse": 0.6716, "noise": 0.7047},
    "ml100k": {"rmse": 0.9160},
    "default on ml100k": {"rmse": 0.8781, "nll": 1.1811, "rps": 0.4465},
}
