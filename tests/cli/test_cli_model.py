"""Models that a method cannot fit, and likelihoods that lack what is asked of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            ("--prior", "student-t"),
            "exact head and Gibbs sweeps do not know the prior student-t: give --prior",
        ),
        (("--likelihood", "poisson"), "give --likelihood normal or ordered-probit, or fit encoders"),
    ],
)
def test_what_an_exact_head_cannot_fit_is_told_with_the_option(
    cli: Any, data_dir: Path, options: tuple[str, ...], told: str
) -> None:
    outcome = cli("fit", "--data", "ml100k", "--data-dir", data_dir, "--quiet", "--preset", "guide", *options)
    assert outcome.code != 0
    assert told in outcome.err


def test_rows_of_a_likelihood_without_noise_have_none_and_pyros_shapes_are_not_told(
    cli: Any, data_dir: Path
) -> None:
    model = ("--likelihood", "negative-binomial", "--row-noise", "both")
    asked = ("--preset", "amortized", "--factors", 2, *model)
    outcome = cli("fit", "--data", "ml100k", "--data-dir", data_dir, "--quiet", *asked)
    assert "The negative binomial likelihood has no noise" in outcome.err
    assert "Trace Shapes" not in outcome.err
