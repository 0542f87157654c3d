"""Folding in a row with noise of its own, against quadrature over the row and its multiplier."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_bmf.methods.gibbs.guide import ChainGuide
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.likelihoods.normal import NormalLikelihood
from pyro_bmf.model.likelihoods.ordered_probit import OrderedProbitLikelihood
from pyro_bmf.model.row_draws import RowDraws

N_DRAWS, N_OTHER, SHAPE, NOISE, CENTRE = 5_000, 9, 2.5, 1.7, 3.1
LOCATION, PRECISION = np.array([0.2, -0.3]), np.array([1.4, 2.2])
#: Edges of the levels 1 to 4 of an ordered likelihood, apart from halfway.
CUTS = np.array([1.9, 2.4, 3.6])


def other_rows() -> tuple[np.ndarray, np.ndarray]:
    """Rows [v, c] of the other side, and what multiplies their noise's standard deviation."""
    rng = np.random.default_rng(4)
    return rng.normal(size=(N_OTHER, 2)) * [1.0, 0.4], np.exp(rng.normal(size=N_OTHER) * 0.9)


def weights() -> np.ndarray:
    """Implicit weights of the other side's rows, (N_OTHER, 2)."""
    return np.random.default_rng(5).normal(size=(N_OTHER, 2)) * 0.3


def chain(side: str, *, ordered: bool) -> ChainGuide:
    """Return draws of a chain that are all alike, so that a new row's are independent of each other."""
    rows, spread = other_rows()
    users, items = (3, N_OTHER) if side == "user" else (N_OTHER, 3)
    guide = ChainGuide(
        users,
        items,
        1,
        N_DRAWS,
        biases=True,
        n_cuts=3 if ordered else 0,
        row_noise=("user", "item"),
        steps=15,
    )
    own_side = guide.of(side)
    own_side.location[:] = torch.tensor(LOCATION)
    own_side.precision[:] = torch.diag(torch.tensor(PRECISION)).float()
    own_side.weights[:] = torch.tensor(weights())
    own_side.row_precision_shape[:] = SHAPE
    guide.noise_precision[:] = NOISE
    guide.centre.fill_(CENTRE)
    if ordered:
        guide.cuts[:] = torch.tensor(CUTS)

    def drawn(values: np.ndarray, noise: np.ndarray | None) -> RowDraws:
        stacked = torch.tensor(values).float().unsqueeze(1).expand(-1, N_DRAWS, -1).contiguous()
        return RowDraws(
            stacked, stacked, torch.tensor(True), None if noise is None else torch.tensor(noise).float()
        )

    others, own = drawn(rows, spread), drawn(np.zeros((3, 2)), np.ones(3))
    likelihood = OrderedProbitLikelihood([1.0, 2.0, 3.0, 4.0]) if ordered else NormalLikelihood()
    guide.attach(*((own, others) if side == "user" else (others, own)), likelihood)
    return guide


def quadrature(columns: np.ndarray, ratings: np.ndarray, *, ordered: bool) -> dict[str, np.ndarray]:
    """Moments of a new row [u, b] and of its noise by sums over a grid of u, b and the log multiplier."""
    rows, spread = other_rows()
    mean = LOCATION + weights()[columns].sum(0) / math.sqrt(len(columns))
    u, b, t = np.meshgrid(
        mean[0] + np.linspace(-4.5, 4.5, 61) / np.sqrt(PRECISION[0]),
        mean[1] + np.linspace(-4.5, 4.5, 61) / np.sqrt(PRECISION[1]),
        np.linspace(-6.0, 2.2, 72),
        indexing="ij",
    )
    height = stats.norm.logpdf(u, mean[0], PRECISION[0] ** -0.5)
    height += stats.norm.logpdf(b, mean[1], PRECISION[1] ** -0.5)
    height += SHAPE * t - SHAPE * np.exp(t)
    edges = np.concatenate([[-np.inf], CUTS, [np.inf]])
    for j, rating in zip(columns, ratings, strict=True):
        eta = CENTRE + u * rows[j, 0] + b + rows[j, 1]
        sd = spread[j] * np.exp(-0.5 * t) / math.sqrt(NOISE)
        if ordered:
            place = int(rating) - 1
            # By the nearer tail, which keeps its digits.
            low, high = (edges[place] - eta) / sd, (edges[place + 1] - eta) / sd
            flip = np.where(low > 0, -1.0, 1.0)
            share = np.abs(stats.norm.cdf(flip * high) - stats.norm.cdf(flip * low))
            height += np.log(np.maximum(share, 1e-300))
        else:
            height += stats.norm.logpdf(rating, eta, sd)
    weight = np.exp(height - height.max())
    weight /= weight.sum()
    values = {"u": u, "b": b, "noise": np.exp(-0.5 * t)}
    found = {}
    for name, value in values.items():
        first = (weight * value).sum()
        found[name] = np.array([first, math.sqrt((weight * (value - first) ** 2).sum())])
    return found


@pytest.mark.parametrize("ordered", [False, True], ids=["normal", "ordered"])
@pytest.mark.parametrize("side", ["user", "item"])
def test_a_new_row_with_noise_of_its_own(side: str, ordered: bool) -> None:
    given = [
        (np.array([0, 2, 3, 5, 6, 7, 8]), np.array([1.0, 4.0, 1.0, 4.0, 2.0, 4.0, 1.0])),
        (np.array([1, 4]), np.array([3.0, 4.0])),
    ]
    columns = np.concatenate([one for one, _ in given])
    ratings = np.concatenate([one for _, one in given])
    at = np.repeat([0, 1], [len(one) for one, _ in given])
    feedback = Feedback.from_coo(
        torch.tensor(at), torch.tensor(columns), torch.tensor(ratings - CENTRE).float(), 2, N_OTHER
    )
    guide = chain(side, ordered=ordered)
    found = guide.encode_side(side, feedback)  # type: ignore[arg-type]
    assert found.noise_factor is not None
    for row, (own_columns, own_ratings) in enumerate(given):
        exact = quadrature(own_columns, own_ratings, ordered=ordered)
        drawn = found.draws[row].double().numpy()
        for name, values in (("u", drawn[:, 0]), ("b", drawn[:, 1])):
            mean, sd = exact[name]
            assert values.mean() == pytest.approx(mean, abs=4.0 * sd / math.sqrt(N_DRAWS)), (row, name)
            assert values.std() == pytest.approx(sd, rel=4.0 / math.sqrt(N_DRAWS)), (row, name)
        mean, sd = exact["noise"]
        assert float(found.noise_factor[row]) == pytest.approx(mean, abs=4.0 * sd / math.sqrt(N_DRAWS)), row
