"""Fitted posteriors that several tests read."""

from __future__ import annotations

import pytest
from posteriors import planted, train_posterior

from pyro_bmf.data import Ratings
from pyro_bmf.posterior import Posterior


@pytest.fixture(scope="session")
def train() -> Ratings:
    return planted()


@pytest.fixture(scope="session")
def posterior(train: Ratings) -> Posterior:
    return train_posterior(train)


@pytest.fixture(scope="session")
def text_posterior() -> Posterior:
    return train_posterior(planted(text_ids=True), iterations=2, biases=False)
