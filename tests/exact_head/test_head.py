"""The head against one row at a time, and the moments of predictors against sums over draws."""

from __future__ import annotations

import pytest
import torch
from small_head import Small, make
from torch import Tensor

from pyro_bmf.methods.exact_head.head import Head, Moments, head_of, predictor_variances
from pyro_bmf.model.feedback import Feedback
from pyro_bmf.model.rows import join
from pyro_bmf.model.sides import Side
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


@pytest.mark.parametrize("side", ["user", "item"])
def test_a_new_row_is_that_of_the_joint_with_weights_and_location(side: Side) -> None:
    """Rows, weights and location together, of which the row's marginal is taken: all 3 (n + 2) numbers."""
    small = make(noisy=False)
    guide = small.updates.guide
    own, other = guide.of(side), guide.opposite(side)
    rated = torch.tensor([0, 2, 3, 5])
    x = torch.tensor([0.7, -1.1, 0.4, 1.3], dtype=torch.float64)
    new = Feedback.from_coo(torch.zeros(4, dtype=torch.int64), rated, x, 1, len(other.loc))
    found = guide.encode_side(side, new)
    size = 3 * (len(rated) + 2)
    link = torch.zeros(3, size, dtype=torch.float64)  # the row less its prior mean
    link[:, :3], link[:, -3:] = torch.eye(3), -torch.eye(3)
    precision, linear = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for place, (j, value) in enumerate(zip(rated.tolist(), x.tolist(), strict=True)):
        at = slice(3 + 3 * place, 6 + 3 * place)
        link[:, at] = -torch.eye(3) / len(rated) ** 0.5
        known = own.weights_sd[j] ** -2
        precision[at, at] += torch.diag(known)
        linear[at] += known * own.weights[j].detach()
        m, c = joint_moments(other.loc[j], other.covariance[j])
        second = c + torch.outer(m, m)
        precision[:3, :3] += guide.noise_precision * second[:3, :3]
        linear[:3] += guide.noise_precision * (m[:3] * value - second[:3, 3])
    last = torch.linalg.inv(own.location_covariance)
    precision[-3:, -3:] += last
    linear[-3:] += last @ own.location
    precision += link.mT @ own.precision @ link
    joint = torch.linalg.inv(precision)
    torch.testing.assert_close(join(found.loc, found.bias_loc)[0], (joint @ linear)[:3], rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.covariance()[0], joint[:3, :3], rtol=1e-8, atol=1e-8)
    guide.uncertain_means = False
    assert float((guide.encode_side(side, new).loc - found.loc).abs().max()) > 0.01


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
