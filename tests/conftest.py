"""Fixtures that every test may use, and what holds for all of them."""

from __future__ import annotations

import os
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


#: Names the device of a test run, where `--device` does not.
TEST_DEVICE = "PYRO_BMF_TEST_DEVICE"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a test run choose its device."""
    parser.addoption(
        "--device",
        default=os.environ.get(TEST_DEVICE, "cpu"),
        help=f"device that tests compute on, cpu or cuda [default: ${TEST_DEVICE}, else cpu]",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make it what `auto` stands for, in this process and in those that tests start."""
    os.environ["PYRO_BMF_DEVICE"] = config.getoption("--device")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> Any:
    """The torch device of this test run."""
    from pyro_bmf.process import pick_device

    return pick_device(request.config.getoption("--device"))


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder with real ratings, or a skip that says how to have one."""
    value = os.environ.get("PYRO_BMF_DATA_DIR")
    if not value or not Path(value).is_dir():
        pytest.skip("real ratings: set PYRO_BMF_DATA_DIR to a folder that holds them")
    return Path(value)
