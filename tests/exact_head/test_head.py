"""The head against one row at a time, and the moments of predictors against sums over draws."""

from __future__ import annotations

import pytest
import torch
from small_head import Small, make
from torch import Tensor

from pyro_bmf.methods.exact_head.head import Head, Moments, head_of, predictor_variances
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.numerics.packed_symmetric import pack, unpack


def joint_moments(loc: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of (f, c) of one row of the other side: factors, a one, and the bias."""
    k = len(loc) - 1
    select = torch.zeros(k + 2, k + 1, dtype=loc.dtype)
    select[:k, :k] = torch.eye(k, dtype=loc.dtype)
    select[k + 1, k] = 1.0
    mean = select @ loc
    mean[k] = 1.0
    return mean, select @ covariance @ select.mT


def state(small: Small, side: str) -> tuple[Head, Moments, Tensor, Tensor, Tensor]:
    """Return a side's head for a made-up target and share, and these with the rows' precision."""
    updates = small.updates
    own, entries = updates.guide.of(side), updates.entries.of(side)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(5)
    target = torch.randn(len(entries.rows), generator=generator, dtype=torch.float64)
    share = 0.3 + 0.5 * torch.rand(len(entries.rows), generator=generator, dtype=torch.float64)
    other = updates.guide.moments(side)  # type: ignore[arg-type]
    row_precision = 1.7 * own.row_precision
    head = head_of(other, entries, target, share, own.precision, row_precision)
    return head, other, target, share, row_precision


@pytest.mark.parametrize("side", ["user", "item"])
def test_rows_are_those_of_one_row_at_a_time(side: str) -> None:
    small = make()
    head, _, target, share, row_precision = state(small, side)
    guide, entries = small.updates.guide, small.updates.entries.of(side)  # type: ignore[arg-type]
    own, others = guide.of(side), guide.opposite(side)  # type: ignore[arg-type]
    prior_mean, variance = (part.detach() for part in guide.encode_means(side, entries))  # type: ignore[arg-type]
    mean, covariance = (part.detach() for part in guide.rows(side, head, entries))  # type: ignore[arg-type]
    squares = torch.zeros_like(own.precision)
    total = torch.zeros_like(own.precision)
    diagonals, found_total = head.mean_precision()
    for i in range(entries.n_rows):
        at = (entries.rows == i).nonzero().flatten()
        precision, linear = own.precision.clone(), torch.zeros(3, dtype=torch.float64)
        weights = torch.zeros(3, dtype=torch.float64)
        weight_variance = torch.zeros(3, dtype=torch.float64)
        for e in at:
            j = int(entries.indices[e])
            m, c = joint_moments(others.loc[j], others.covariance[j])
            tau = row_precision[i] * others.row_precision[j] * share[e]
            second = c + torch.outer(m, m)
            precision = precision + tau * second[:3, :3]
            linear = linear + tau * (m[:3] * target[e] - second[:3, 3])
            weights = weights + own.weights[j].detach()
            weight_variance = weight_variance + own.weights_sd[j] ** 2
        count = max(len(at), 1)
        m_i = own.location + weights / count**0.5
        inverse = torch.linalg.inv(precision)
        gain = inverse @ own.precision
        spread = torch.diag(weight_variance / count) + own.location_covariance
        off = torch.eye(3, dtype=torch.float64) - gain
        torch.testing.assert_close(prior_mean[i], m_i, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(variance[i], weight_variance / count, rtol=1e-10, atol=1e-10)
        w_i = inverse @ (linear + own.precision @ m_i)
        torch.testing.assert_close(mean[i], w_i, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(covariance[i], inverse + gain @ spread @ gain.mT, rtol=1e-10, atol=1e-10)
        said = own.precision - own.precision @ inverse @ own.precision
        torch.testing.assert_close(diagonals[i], said.diagonal(), rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(head.pull(m_i.expand_as(mean))[i], own.precision @ (w_i - m_i))
        total, squares = total + said, squares + torch.outer(w_i - m_i, w_i - m_i) + inverse
        squares = squares + off @ spread @ off.mT
    torch.testing.assert_close(found_total, total)
    found = head.squares_about_prior(prior_mean, variance, own.location_covariance)
    torch.testing.assert_close(found, squares, rtol=1e-10, atol=1e-10)


def test_a_row_without_ratings_is_its_prior() -> None:
    small = make()
    guide = small.updates.guide
    nothing = torch.zeros(0, dtype=torch.int64)
    feedback = Feedback.from_coo(nothing, nothing, torch.zeros(0, dtype=torch.float64), 2, 7)
    rows = guide.encode_side("user", feedback)
    own = guide.user
    expected = torch.linalg.inv(own.precision) + own.location_covariance
    torch.testing.assert_close(rows.loc[0], own.location[:2])
    torch.testing.assert_close(rows.covariance()[1], expected)


@pytest.mark.parametrize("weighted", [True, False])
def test_sums_of_predictors_variances_are_those_of_each_pair(weighted: bool) -> None:
    small = make()
    _, other, _, share, _ = state(small, "user")
    guide, entries = small.updates.guide, small.updates.entries.user
    loc, covariance = guide.user.loc, guide.user.covariance
    eta = other.predictors(loc, entries)
    expected = torch.zeros(len(loc), dtype=torch.float64)
    for e, (i, j) in enumerate(zip(entries.rows.tolist(), entries.indices.tolist(), strict=True)):
        m, c = joint_moments(guide.item.loc[j], guide.item.covariance[j])
        left, spread = torch.zeros(4, dtype=torch.float64), torch.zeros(4, 4, dtype=torch.float64)
        left[:3], left[3], spread[:3, :3] = loc[i], 1.0, covariance[i]
        torch.testing.assert_close(eta[e], left @ m, rtol=1e-12, atol=1e-12)
        pair = m @ spread @ m + left @ c @ left + (spread * c).sum()
        expected[i] += pair * guide.item.row_precision[j] * (share[e] if weighted else 1.0)
    found = predictor_variances(other, entries, share if weighted else None, loc, covariance, eta)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_single_precision_keeps_the_rows() -> None:
    """What ships works in float32: rows agree with float64's to a few of its digits."""
    double, single = make(), make(dtype=torch.float32)
    for side in ("user", "item"):
        own = single.updates.guide.of(side)  # type: ignore[arg-type]
        source = double.updates.guide.of(side)  # type: ignore[arg-type]
        for name, tensor in source.named_buffers():
            setattr(own, name, tensor.to(getattr(own, name).dtype).clone())
        with torch.no_grad():
            own.weights.copy_(source.weights)
    double.updates.iteration()
    single.updates.iteration()
    for side in ("user", "item"):
        exact, shipped = double.updates.guide.of(side), single.updates.guide.of(side)  # type: ignore[arg-type]
        torch.testing.assert_close(shipped.loc.double(), exact.loc, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(shipped.covariance.double(), exact.covariance, rtol=1e-3, atol=1e-4)


def test_packing_keeps_symmetric_matrices() -> None:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(4, 5, 5, generator=generator)
    matrices = matrices + matrices.mT
    packed = pack(matrices)
    assert packed.shape == (4, 15)
    assert torch.equal(unpack(packed, 5), matrices)
