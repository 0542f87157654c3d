r"""Which rows of one side are alike under the posterior.

The similarity of rows a and b is

.. math:: \frac{E[a]^T M\, E[b]}{\sqrt{E[a^T M a]\; E[b^T M b]}}, \qquad
          E[a^T M a] = E[a]^T M\, E[a] + \mathrm{tr}(M\, \mathrm{cov}[a]),

so a row about which little is known is like nothing, rather than like everything its noise points at. With
M the covariance of the *other* side's factors (``correlation``) it is the correlation, over the other side's
rows and the posterior, of what is predicted for the two beyond biases: it does not change when factors are
rotated or rescaled. With M the identity (``cosine``) it is the cosine of the factors.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import SettingsError
from ..model.rows import RowDraws, RowPosterior
from .predictive import PairPredictive

_DRAWS = 400


@torch.no_grad()
def similar_rows(
    pairs: PairPredictive, side: str, row: int, n: int, *, measure: str, interval: float, seed: int
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Return the `n` rows most similar to `row`, best first, and their similarity, sd, lower and upper.

    The interval is of the same ratio at joint draws of the factors, without the posterior's spread in it.
    """
    own, other = (pairs.users, pairs.items) if side == "user" else (pairs.items, pairs.users)
    if isinstance(own, RowDraws) and isinstance(other, RowDraws):
        return _similar_draws(own, other, row, n, measure, interval)
    assert isinstance(own, RowPosterior)
    assert isinstance(other, RowPosterior)
    metric = _metric(other, measure)
    loc, variance = own.loc.double(), own.scale.double() ** 2
    norms = ((loc @ metric) * loc).sum(-1) + variance @ metric.diagonal()
    similarity = (loc @ (metric @ loc[row])) / (norms * norms[row]).clamp_min(1e-300).sqrt()
    values = similarity.cpu().numpy()
    values[row] = -np.inf
    order = np.lexsort((np.arange(len(values)), -values))[: min(n, len(values) - 1)]
    anchor_and_found = np.concatenate(([row], order))
    factors, _ = pairs.draw_rows(side, anchor_and_found, np.arange(_DRAWS), seed)
    drawn = _drawn_similarity(factors.double(), metric)
    tail = (1.0 - interval) / 2.0
    lower, upper = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    table = pd.DataFrame(
        {"similarity": values[order], "sd": drawn.std(axis=0), "lower": lower, "upper": upper}
    )
    return order.astype(np.int64), table


def _similar_draws(
    own: RowDraws, other: RowDraws, row: int, n: int, measure: str, interval: float
) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Do the same for draws of a chain, with each draw's own metric: factors may turn from draw to draw."""
    _check(measure)
    k = own.n_factors
    inner = torch.zeros(len(own), dtype=torch.float64, device=own.device)
    norms = torch.zeros_like(inner)
    metrics = []
    for s in range(own.n_draws):
        factors, others = own.draws[:, s, :k].double(), other.draws[:, s, :k].double()
        centred = others - others.mean(0)
        metric = centred.T @ centred / len(others) if measure == "correlation" else torch.eye(k).to(factors)
        metrics.append(metric)
        turned = factors @ metric
        inner += turned @ factors[row]
        norms += (turned * factors).sum(-1)
    similarity = inner / (norms * norms[row]).clamp_min(1e-300).sqrt()
    values = similarity.cpu().numpy()
    values[row] = -np.inf
    order = np.lexsort((np.arange(len(values)), -values))[: min(n, len(values) - 1)]
    at = torch.tensor(np.concatenate(([row], order)), device=own.device)
    found = own.draws[at, :, :k].double().transpose(0, 1)
    drawn = np.concatenate([_drawn_similarity(found[s : s + 1], m) for s, m in enumerate(metrics)])
    tail = (1.0 - interval) / 2.0
    lower, upper = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    table = pd.DataFrame(
        {"similarity": values[order], "sd": drawn.std(axis=0), "lower": lower, "upper": upper}
    )
    return order.astype(np.int64), table


def _check(measure: str) -> None:
    if measure not in ("correlation", "cosine"):
        raise SettingsError(f"measure is {measure!r}: it may be 'correlation' or 'cosine'.")


def _metric(other: RowPosterior, measure: str) -> Tensor:
    loc = other.loc.double()
    if measure == "cosine":
        return torch.eye(loc.shape[1], dtype=loc.dtype, device=loc.device)
    if measure == "correlation":
        centred = loc - loc.mean(0)
        return centred.T @ centred / len(loc) + torch.diag((other.scale.double() ** 2).mean(0))
    _check(measure)
    raise AssertionError(measure)


def _drawn_similarity(factors: Tensor, metric: Tensor) -> NDArray[np.float64]:
    """Similarity of the first row to each other one in every draw, shape (n_draws, n_rows - 1)."""
    turned = factors @ metric
    norms = (turned * factors).sum(-1)
    products = (turned[:, :1] * factors[:, 1:]).sum(-1)
    drawn: NDArray[np.float64] = (
        (products / (norms[:, :1] * norms[:, 1:]).clamp_min(1e-300).sqrt()).cpu().numpy()
    )
    return drawn
