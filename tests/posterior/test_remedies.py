"""What is said about flagged rows and about an objective, by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pyro_bmf.checking.remedies import REMEDIES, ObjectiveTrace, blame, remedy
from pyro_bmf.checking.row_diagnosis import RowDiagnosis
from pyro_bmf.checking.simulated_ranks import check_ranks

NAN = float("nan")


def diagnosis(flagged: list[bool], encoder: list[float], family: list[float], of: str) -> RowDiagnosis:
    n = len(flagged)
    table = pd.DataFrame(
        {
            "row": range(n),
            "id": range(n),
            "n_ratings": [5] * n,
            "k_hat": np.where(flagged, 1.0, 0.0),
            "k_hat_beta_1": [0.0] * n,
            "amortization_gap": encoder,
            "approximation_gap": family,
            "flagged": flagged,
        }
    )
    return RowDiagnosis("user", table, 400, 0.6, 1.0, True, of)


@pytest.mark.parametrize(
    ("flagged", "encoder", "family", "of", "residuals", "expected"),
    [
        (False, 9.0, 9.0, "diagonal", False, "nothing"),
        (True, 3.0, 2.0, "diagonal", False, "residual, or longer"),
        (True, 3.0, 2.0, "diagonal", True, "longer, calmer"),
        (True, 2.0, 3.0, "diagonal", False, "covariance"),
        (True, 2.0, 3.0, "full", False, "sweeps"),
        (True, 0.9, 0.5, "diagonal", False, "sweeps"),
        (True, NAN, NAN, "diagonal", False, "sweeps"),
    ],
)
def test_each_row_has_its_remedy(
    flagged: bool, encoder: float, family: float, of: str, residuals: bool, expected: str
) -> None:
    found = diagnosis([flagged], [encoder], [family], of)
    line = found.table.to_dict("records")[0]
    assert remedy(line, found, residuals=residuals) == expected


def test_rows_without_an_encoder_are_not_told_of_one() -> None:
    found = dataclasses.replace(diagnosis([True], [3.0], [2.0], "full"), encoded=False)
    line = found.table.to_dict("records")[0]
    assert remedy(line, found, residuals=False) == "longer"
    assert "residual" not in REMEDIES["longer"]
    fault = blame(found)
    assert fault is not None
    assert fault.part == "distance to the best q"


def test_the_larger_gap_is_blamed_where_many_are_flagged() -> None:
    assert blame(diagnosis([True] + [False] * 9, [1.0] * 10, [0.0] * 10, "full")) is None
    fault = blame(diagnosis([True, True, False, False], [1.0, 2.0, 1.0, 0.0], [3.0, 1.0, 2.0, 2.0], "full"))
    assert fault is not None
    assert (fault.share, fault.part, fault.larger, fault.smaller) == (0.5, "family of q", 2.0, 1.0)


def test_an_objective_rests_when_it_hardly_falls() -> None:
    falling = 1.0 + 4.0 * 0.5 ** np.arange(20.0)
    rest = ObjectiveTrace.of(pd.DataFrame({"loss_per_rating": falling}))
    moving = ObjectiveTrace.of(pd.DataFrame({"loss_per_rating": falling[:5]}))
    assert rest is not None
    assert moving is not None
    assert (rest.at_rest, moving.at_rest) == (True, False)
    # Of five iterations the last three: 2, 1.5, 1.25.
    assert moving.change_an_iteration == pytest.approx(0.375)
    assert "it still moves" in moving.words()
    assert ObjectiveTrace.of(pd.DataFrame({"loss_per_rating": falling[:3]})) is None
    assert ObjectiveTrace.of(pd.DataFrame({"valid_rmse": falling})) is None


MORE = "more iterations (--iterations) would help"
STILL = {"loss_per_rating": 1.0 + 4.0 * 0.7 ** np.arange(8.0)}
RATE = {"learning_rate": [0.1] * 5}
ROSE = {"valid_rmse": [1.0, 0.9, *[0.95] * 6]}
RISING = {"loss_per_rating": [3.0, 1.0, 1.1, 1.2, 1.3]}


@pytest.mark.parametrize(
    ("columns", "told", "not_told"),
    [
        (STILL, MORE, "patience"),
        (STILL | {"valid_rmse": np.linspace(1.0, 0.9, 8)}, MORE, "patience"),
        (STILL | {"valid_rmse": [None] * 8}, MORE, "patience"),
        (STILL | ROSE, "improved since iteration 2: where patience", "would help"),
        # A fall by less than what patience counts is none.
        (STILL | {"valid_rmse": 0.9 - 1e-7 * np.arange(8)}, "(--patience)", "would help"),
        (
            STILL | ROSE | {"stage": ["exact-head"] * 8},
            "nothing says that more iterations would help",
            "--patience",
        ),
        (RISING, "rising by 0.1 an iteration at the end; it rises: more iterations would not", "--"),
        (RISING | RATE | {"beta_user": [1.0] * 5}, "a smaller --learning-rate", "--iterations"),
        (RISING | RATE | {"beta_user": np.linspace(0, 1, 5)}, "(--warmup)", "--iterations"),
    ],
)
def test_advice_on_an_objective_can_be_followed(columns: dict[str, Any], told: str, not_told: str) -> None:
    n = len(columns["loss_per_rating"])
    found = ObjectiveTrace.of(pd.DataFrame({"iteration": range(1, n + 1), **columns}))
    assert found is not None
    assert told in found.words()
    assert not_told not in found.words()


def test_advice_on_ranks_tells_narrow_from_shifted() -> None:
    rng = np.random.default_rng(0)
    right = rng.uniform(size=(60, 20))
    normal = rng.normal(size=(60, 20))
    for ranks, errors, expected in (
        (right, normal, None),
        (np.where(right < 0.5, 0.01, 0.99), 2.0 * normal, "too narrow"),
        (0.5 + 0.01 * right, 0.1 * normal, "too wide or off their place"),
    ):
        advice = check_ranks({"uv": ranks.tolist()}, {"uv": errors.tolist()}).advice()
        assert advice is None if expected is None else expected in str(advice)
