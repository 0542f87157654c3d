r"""Diagnostics of every row: can its posterior be trusted, and if not, whose fault it is.

Against the row's target (`row_target`), with :math:`t` for its normalised density and :math:`Z` for its
constant:

- **k-hat** of the importance ratios from q to the target: above `good_k`, draws of q do not stand for it;
  beside it, k-hat against the target at :math:`\beta = 1`, the untempered one.
- **amortization gap**: what the encoder's q is worse than the best q of its own family,
  :math:`\mathrm{KL}(q \| t) - \min_{q'} \mathrm{KL}(q' \| t)`;
- **approximation gap**: what that best q lacks, :math:`\min_{q'} \mathrm{KL}(q' \| t)`; in nats both
  (Cremer, Li and Duvenaud 2018, arXiv 1801.03558).

Under Normal priors and Normal noise the target is Normal and both gaps are exact. Elsewhere the best q is
searched for by stochastic gradients, and :math:`Z` estimated by smoothed importance sampling
from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.fitted import Side
from ..model.rows import RowPosterior, log_density
from ..numerics.chunks import chunks
from ..numerics.psis import good_k, smooth_tail
from ..posterior.posterior import Posterior
from ..posterior.predictive import Indices
from ..systems.raw_ids import check_count
from .point_rows import refuse_points
from .row_target import RowTargets

Floats = NDArray[np.float64]
#: Of a gap that is worth a word, in nats.
LARGE_GAP = 1.0
_NUMBERS = 3_000_000  # of a chunk's drawn rows
_SEARCH_STEPS, _SEARCH_DRAWS = 120, 12
_CHECK_DRAWS = 1_000


@dataclass(frozen=True, eq=False)
class RowDiagnosis:
    """Diagnostics of the rows of one side.

    Attributes
    ----------
    side : {"user", "item"}
    table : DataFrame
        One line a row: ``row`` (index), ``id``, ``n_ratings``, ``k_hat``, ``k_hat_beta_1``,
        ``amortization_gap``, ``approximation_gap`` (nats; NaN where the row was not searched), ``flagged``.
    n_draws : int
    good_k : float
        Above it a row is flagged.
    beta : float
        Weight of the side's KL: what the target was tempered with.
    exact_gaps : bool
        Whether gaps are closed forms.
    family : {"diagonal", "block", "full", "log-normal"}
        Of q.
    encoded : bool
        Whether q is an encoder's. Where it is not, the first gap is what the fit has left to do.
    """

    side: str
    table: pd.DataFrame
    n_draws: int
    good_k: float
    beta: float
    exact_gaps: bool
    family: str
    encoded: bool = True

    def summary(self) -> dict[str, Any]:
        """Return counts, shares and medians."""
        table = self.table
        gaps = table[["amortization_gap", "approximation_gap"]]
        return {
            "side": self.side,
            "rows": len(table),
            "flagged": int(table["flagged"].sum()),
            "share_flagged": float(table["flagged"].mean()),
            "flagged_at_beta_1": int((table["k_hat_beta_1"] > self.good_k).sum()),
            "median_k": float(table["k_hat"].median()),
            "rows_searched": int(gaps.notna().all(axis=1).sum()),
            "median_amortization_gap": float(gaps["amortization_gap"].median()),
            "mean_amortization_gap": float(gaps["amortization_gap"].mean()),
            "median_approximation_gap": float(gaps["approximation_gap"].median()),
            "mean_approximation_gap": float(gaps["approximation_gap"].mean()),
            "good_k": self.good_k,
            "beta": self.beta,
            "family": self.family,
            "exact_gaps": self.exact_gaps,
        }


def diagnose_rows(
    posterior: Posterior,
    side: Side,
    *,
    num_samples: int = 400,
    seed: int = 0,
    searched: int = 100,
    advance: Callable[[int], None] | None = None,
) -> RowDiagnosis:
    """Measure every row of one side.

    Parameters
    ----------
    posterior : Posterior
        Variational.
    side : {"user", "item"}
    num_samples, seed : int
        Draws of q a row.
    searched : int
        Rows whose gaps are searched for where they are no closed forms: those with the highest k-hat, half
        of the number, and as many at random.
    advance : callable, optional
        Called with rows done, every row twice: k-hats, then gaps (a search reports all rows in equal parts).

    Raises
    ------
    SettingsError
        For a chain, rows that are points, rows whose prior means come from which pairs were rated, or too few
        draws.
    """
    refuse_points(posterior, "q whose draws could stand for a target, or whose gap to it could be measured")
    check_count("num_samples", num_samples)
    report = advance if advance is not None else _nothing
    targets = RowTargets(posterior, side, seed)
    n = len(targets.rows)
    k_hat, k_hat_1 = np.empty(n), np.empty(n)
    with torch.no_grad():
        for part in chunks(n, max(1, _NUMBERS // (num_samples * targets.width))):
            rows = np.arange(part.start, part.stop)
            x = targets.draw(rows, num_samples)
            log_q = log_density(targets.rows.select(torch.from_numpy(rows).to(x.device)), x)
            prior, likelihood = targets.log_prior(x), targets.log_likelihood(rows, x)
            for beta, result in ((targets.beta, k_hat), (1.0, k_hat_1)):
                ratios = (prior + likelihood / beta - log_q).T.contiguous()
                result[part] = smooth_tail(ratios).k_hat.cpu().numpy()
            report(part.stop - part.start)
    # A constant ratio, q being the target itself, has no tail.
    k_hat, k_hat_1 = (np.where(np.isnan(k), -np.inf, k) for k in (k_hat, k_hat_1))
    exact = targets.gaussian_likelihood and targets.gaussian_prior is not None
    amortization, approximation = np.full(n, np.nan), np.full(n, np.nan)
    if exact:
        with torch.no_grad():
            for part in chunks(n, max(1, _NUMBERS // (targets.width**2 * 4))):
                rows = np.arange(part.start, part.stop)
                amortization[part], approximation[part] = _exact_gaps(targets, rows)
                report(part.stop - part.start)
    elif searched:
        order = np.argsort(-k_hat, kind="stable")
        others = np.random.default_rng([seed, 0xD1A]).permutation(order[searched // 2 :])
        rows = np.sort(np.concatenate([order[: searched // 2], others[: searched - searched // 2]]))
        amortization[rows], approximation[rows] = _searched_gaps(
            targets, rows, lambda step: report(n * (step + 1) // _SEARCH_STEPS - n * step // _SEARCH_STEPS)
        )
    else:
        report(n)
    limit = good_k(num_samples)
    vocabulary = posterior.user_vocabulary if side == "user" else posterior.item_vocabulary
    table = pd.DataFrame(
        {
            "row": np.arange(n),
            "id": vocabulary.raw(np.arange(n)),
            "n_ratings": targets.counts,
            "k_hat": k_hat,
            "k_hat_beta_1": k_hat_1,
            "amortization_gap": amortization,
            "approximation_gap": approximation,
            "flagged": k_hat > limit,
        }
    )
    return RowDiagnosis(side, table, num_samples, limit, targets.beta, exact, family_of(targets),
                        posterior.guide.has_gradients)  # fmt: skip


def family_of(targets: RowTargets) -> str:
    """Return the family of the rows' q."""
    if targets.rows.positive is not None:
        return "log-normal"
    if targets.rows.tril is None:
        return "diagonal"
    return "full" if targets.posterior.guide.joint_bias else "block"


def _exact_gaps(targets: RowTargets, rows: Indices) -> tuple[Floats, Floats]:
    """Return amortization and approximation gaps of rows whose target is Normal."""
    assert targets.gaussian_prior is not None
    prior_precision, prior_linear = targets.gaussian_prior
    information, linear, _ = targets.information(rows)
    precision = prior_precision + information / targets.beta
    target_linear = prior_linear + linear / targets.beta
    tril = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve(target_linear.unsqueeze(-1), tril).squeeze(-1)
    log_det = 2.0 * tril.diagonal(dim1=1, dim2=2).log().sum(-1)
    q = targets.rows.select(torch.tensor(rows, device=precision.device))
    covariance = q.covariance()
    loc = q.loc if q.bias_loc is None else torch.cat([q.loc, q.bias_loc[:, None]], 1)
    trace = (precision * covariance).sum((1, 2))
    gap = loc - mean
    square = (gap.unsqueeze(1) @ precision @ gap.unsqueeze(-1)).flatten()
    width = precision.shape[-1]
    total = 0.5 * (trace - width - torch.logdet(covariance) - log_det + square)
    family, k = family_of(targets), targets.rows.n_factors
    if family == "full":
        best = torch.zeros_like(total)
    elif family == "diagonal":
        best = 0.5 * (precision.diagonal(dim1=1, dim2=2).log().sum(-1) - log_det)
    else:
        blocks = torch.logdet(precision[:, :k, :k])
        if width > k:
            blocks = blocks + precision[:, k, k].log()
        best = 0.5 * (blocks - log_det)
    return (total - best).cpu().numpy(), best.cpu().numpy()


def _steps(start: RowPosterior, family: str) -> tuple[dict[str, Tensor], Callable[[], RowPosterior]]:
    """Return free parameters, zero where rows are as they start, and what makes rows of them.

    Means move in units of each row's own spread, so that one step size suits all rows.
    """
    k = start.n_factors
    biased = start.bias_loc is not None
    joint = family == "full" and biased
    loc, unit = start.logarithms() if start.positive is not None else (start.loc, start.scale)
    if joint:
        assert start.bias_loc is not None
        assert start.bias_scale is not None
        loc = torch.cat([loc, start.bias_loc[:, None]], 1)
        unit = torch.cat([unit, start.bias_scale[:, None]], 1)
    free = {"loc": torch.zeros_like(loc), "scale": torch.zeros_like(unit)}
    if biased and not joint:
        free |= {name: torch.zeros_like(loc[:, 0]) for name in ("bias", "bias_scale")}
    root: Tensor | None = None
    if family in ("block", "full"):
        assert start.tril is not None
        root = start.tril if family == "full" else start.tril[:, :k, :k]
        free["lower"] = torch.zeros_like(root)
    free = {name: one.requires_grad_() for name, one in free.items()}

    def rows() -> RowPosterior:
        moved = loc + unit * free["loc"]
        more: dict[str, Tensor] = {} if start.noise_factor is None else {"noise_factor": start.noise_factor}
        if biased and not joint:
            assert start.bias_loc is not None
            assert start.bias_scale is not None
            more["bias_loc"] = start.bias_loc + start.bias_scale * free["bias"]
            more["bias_scale"] = start.bias_scale * free["bias_scale"].exp()
        if family == "log-normal":
            return RowPosterior.log_normal(moved, unit * free["scale"].exp(), **more)
        if root is None:
            return RowPosterior(moved, unit * free["scale"].exp(), **more)
        diagonal = root.diagonal(dim1=1, dim2=2) * free["scale"].exp()
        tril = torch.tril(root + unit.unsqueeze(-1) * free["lower"], -1) + torch.diag_embed(diagonal)
        scale = tril.square().sum(-1).sqrt()
        if joint:
            more |= {"bias_loc": moved[:, k], "bias_scale": scale[:, k]}
            return RowPosterior(moved[:, :k], scale[:, :k], tril=tril, **more)
        if biased:
            side = torch.zeros_like(tril[:, :, :1])
            last = torch.cat([side.mT, more["bias_scale"][:, None, None]], 2)
            tril = torch.cat([torch.cat([tril, side], 2), last], 1)
        return RowPosterior(moved, scale, tril=tril, **more)

    return free, rows


def _nothing(_: int) -> None:
    """Report to nobody."""


def _searched_gaps(
    targets: RowTargets, rows: Indices, advance: Callable[[int], None] = _nothing
) -> tuple[Floats, Floats]:
    """Return both gaps of some rows, whose best q is searched for from the encoder's.

    `advance` is called with the number of each step that was taken.
    """
    at = torch.tensor(rows, device=targets.rows.device)
    encoded = targets.rows.select(at)
    free, rows_of_steps = _steps(encoded, family_of(targets))
    generator = torch.Generator().manual_seed(targets.seed + 77)
    biased = encoded.bias_loc is not None

    def noise(n_draws: int) -> tuple[Tensor, Tensor | None]:
        half = torch.randn(n_draws // 2, len(rows), targets.width, generator=generator, dtype=torch.float64)
        both = torch.cat([half, -half]).to(at.device)
        return both[..., : encoded.n_factors], both[..., -1] if biased else None

    def bound(q: RowPosterior, base: tuple[Tensor, Tensor | None]) -> Tensor:
        factors, bias = q.place(*base)
        x = factors if bias is None else torch.cat([factors, bias.unsqueeze(-1)], -1)
        return targets.log_prior(x) + targets.log_likelihood(rows, x) / targets.beta - log_density(q, x)

    optimizer = torch.optim.Adam(free.values(), lr=0.15)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _SEARCH_STEPS, eta_min=0.005)
    for step in range(_SEARCH_STEPS):
        # New draws each time: a dozen that stay would be fitted themselves.
        loss = -bound(rows_of_steps(), noise(_SEARCH_DRAWS)).mean(0).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        advance(step)
    with torch.no_grad():
        best = rows_of_steps()
        fresh = noise(_CHECK_DRAWS)
        own, found = bound(encoded, fresh), bound(best, fresh)
        # A search that ended where it was worse than its start has found nothing better.
        better = found.mean(0) > own.mean(0)
        found = torch.where(better, found, own)
        smooth = smooth_tail(found.T.contiguous())
        evidence = smooth.largest + (smooth.rest + smooth.tail.exp().sum(1)).log() - np.log(_CHECK_DRAWS)
        amortization = found.mean(0) - own.mean(0)
        approximation = (evidence - found.mean(0)).clamp_min(0.0)
    return amortization.cpu().numpy(), approximation.cpu().numpy()
