"""A planted data set with both models fitted to it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from plants import confounded_split

from pyro_bmf.data.splits import Split
from pyro_bmf.fitting import fit
from pyro_bmf.methods.settings import preset
from pyro_bmf.selection import Recommender, fit_selection


@pytest.fixture(scope="session")
def split() -> Split:
    return confounded_split()[0]


@pytest.fixture(scope="session")
def recommender(split: Split) -> Recommender:
    settings = preset("conjugate").replace(n_factors=2)
    posterior = fit(split, settings, progress=False).posterior
    return Recommender(posterior, fit_selection(split, posterior=posterior))
