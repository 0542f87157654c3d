"""Fixtures that every test may use, and what holds for all of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# A busy machine is no bug: examples are counted, not timed, and are the same in every run.
# Tables are as wide as they are, whatever width the test runner gives its workers. No fixture: those that
# last for a whole run print too.
os.environ.pop("COLUMNS", None)

hypothesis.settings.register_profile("pyro-bmf", deadline=None, derandomize=True)
hypothesis.settings.load_profile("pyro-bmf")


#: The device that is not there.
PRETEND = "pretend"
#: Names the device of a test run, where `--device` does not.
TEST_DEVICE = "PYRO_BMF_TEST_DEVICE"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a test run choose its device."""
    parser.addoption(
        "--device",
        default=os.environ.get(TEST_DEVICE, "cpu"),
        help="device that tests compute on, cpu, cuda, or pretend, a card that is not there "
        f"(tests/pretend_card.py) [default: ${TEST_DEVICE}, else cpu]",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make it what `auto` stands for, here and in processes that tests start, which pretend nothing."""
    name = config.getoption("--device")
    os.environ["PYRO_BMF_DEVICE"] = "cpu" if name == PRETEND else name


@pytest.fixture(scope="session", autouse=True)
def _pretended(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the whole test run have the card that it asked to be pretended."""
    if request.config.getoption("--device") != PRETEND:
        yield
        return
    from unittest import mock

    from pretend_card import pretend_card

    here = "PYRO_BMF_PRETENDED_DEVICE"
    with pretend_card() as card, mock.patch("pyro_bmf.process.ENVIRONMENT", here):
        os.environ[here] = str(card)
        yield
        del os.environ[here]


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest, _pretended: None) -> Any:
    """The torch device of this test run."""
    from pyro_bmf.process import pick_device

    name = request.config.getoption("--device")
    return pick_device("auto" if name == PRETEND else name)


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder with real ratings, or a skip that says how to have one."""
    value = os.environ.get("PYRO_BMF_DATA_DIR")
    if not value or not Path(value).is_dir():
        pytest.skip("real ratings: set PYRO_BMF_DATA_DIR to a folder that holds them")
    return Path(value)
