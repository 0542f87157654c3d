r"""Split R-hat and effective sample sizes of many quantities at once.

The rank-normalised forms of Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021, doi 10.1214/20-BA1221):
the chain is cut into halves, and R-hat is the larger of the bulk's and of the folded draws'. The numbers are
ArviZ's, which goes through quantities one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft
from scipy.special import ndtri
from scipy.stats import rankdata

from ..errors import SettingsError

Floats = NDArray[np.float64]
#: R-hat above which two halves of a chain disagree: by draws, as few of them give a larger one by chance.
R_HATS = ((400, 1.05), (0, 1.1))


def r_hat_limit(n_draws: int) -> float:
    """Return the largest split R-hat that chance alone explains, of so many draws."""
    return next(r_hat for draws, r_hat in R_HATS if n_draws >= draws)


def split_r_hat(draws: Floats) -> Floats:
    """Return rank-normalised split R-hat of n quantities.

    Parameters
    ----------
    draws : ndarray, shape (n, S) or (n, chains, S)
        In the order of the chain.

    Raises
    ------
    SettingsError
        If there are fewer than eight draws.
    """
    halves = _halves(draws)
    folded = np.abs(halves - np.median(halves, axis=(1, 2), keepdims=True))
    return np.maximum(_r_hat(_normal_scores(halves)), _r_hat(_normal_scores(folded)))


def bulk_ess(draws: Floats) -> Floats:
    """Return the bulk effective sample size of n quantities, (n,), from draws (n, S) or (n, chains, S)."""
    return _ess(_normal_scores(_halves(draws)))


def relative_efficiency(draws: Floats) -> Floats:
    """Return the effective sample size of the *mean* over the number of draws, (n,).

    Not of ranks: of the values themselves, as it is their mean that importance sampling is after. `draws` are
    (n, S) or (n, chains, S).
    """
    halves = _halves(draws)
    result: Floats = _ess(halves) / (halves.shape[1] * halves.shape[2])
    return result


def _halves(draws: Floats) -> Floats:
    chains = draws[:, None] if draws.ndim == 2 else draws
    s = chains.shape[2]
    if s < 8:
        raise SettingsError(
            f"R-hat of {s} draws: eight or more are needed. Fit again with more draws kept (kept_draws, "
            "--kept-draws)."
        )
    half = s // 2
    return np.concatenate([chains[:, :, :half], chains[:, :, s - half :]], axis=1)


def _normal_scores(halves: Floats) -> Floats:
    n = halves.shape[0]
    flat = halves.reshape(n, -1)
    ranks = rankdata(flat, axis=1)
    scores: Floats = ndtri((ranks - 0.375) / (flat.shape[1] + 0.25)).reshape(halves.shape)
    return scores


def _r_hat(chains: Floats) -> Floats:
    """Return R-hat of (n, chains, draws)."""
    m = chains.shape[2]
    within = chains.var(axis=2, ddof=1).mean(axis=1)
    between = m * chains.mean(axis=2).var(axis=1, ddof=1)
    still = within <= 0
    ratio = np.where(still, 1.0, between / np.where(still, 1.0, within))
    result: Floats = np.sqrt((ratio + m - 1) / m)
    return result


def _ess(chains: Floats) -> Floats:
    """Return the effective sample size of (n, chains, draws), by Geyer's initial monotone sequence."""
    _n, n_chains, m = chains.shape
    size = next_fast_len(2 * m)
    centred = chains - chains.mean(axis=2, keepdims=True)
    spectrum = rfft(centred, n=size, axis=2)
    covariance = irfft(np.abs(spectrum) ** 2, n=size, axis=2)[:, :, :m] / m
    mean_variance = covariance[:, :, 0].mean(axis=1) * m / (m - 1)
    total = mean_variance * (m - 1) / m
    if n_chains > 1:
        total = total + chains.mean(axis=2).var(axis=1, ddof=1)
    still = total <= 0
    safe = np.where(still, 1.0, total)[:, None]
    rho = 1.0 - (mean_variance[:, None] - covariance.mean(axis=1)) / safe
    rho[:, 0] = 1.0
    # Sums of neighbouring lags, positive and falling until they end.
    n_pairs = (m - 1) // 2
    even, odd = rho[:, 0 : 2 * n_pairs : 2], rho[:, 1 : 2 * n_pairs : 2]
    sums = even + odd
    ended = np.cumsum(sums <= 0, axis=1) > 0
    # The pair at which the sequence ends, or the last there is, adds its even lag alone; where the sequence
    # ends, if it is positive.
    stops = ended.any(axis=1)
    last = np.where(stops, ended.argmax(axis=1), n_pairs - 1)
    monotone = np.minimum.accumulate(np.where(ended, np.inf, sums), axis=1)
    kept = np.where(np.arange(n_pairs) < last[:, None], monotone, 0.0).sum(axis=1)
    tail = np.take_along_axis(even, last[:, None], axis=1)[:, 0]
    tau = -1.0 + 2.0 * kept + np.where(stops, np.maximum(tail, 0.0), tail)
    tau = np.maximum(tau, 1.0 / np.log10(n_chains * m))
    result: Floats = np.where(still, float(n_chains * m), n_chains * m / tau)
    return result
