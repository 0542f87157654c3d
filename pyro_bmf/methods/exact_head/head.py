r"""The exact head: the best q of all rows of one side given the moments of the other, and nothing learned.

With :math:`f_j = [v_j, 1]`, utilities :math:`z_{ij} = f_j \cdot w_i + c_j + \epsilon` of precision
:math:`\tau_{ij}` and the prior :math:`w_i \sim N(m_i, \Lambda^{-1})`,

.. math::

   q(w_i \mid m_i) = N\left(P_i^{-1} (\Lambda m_i + h_i), P_i^{-1}\right), \quad
   P_i = \Lambda + \sum_j \tau_{ij} E[f_j f_j^T], \quad
   h_i = \sum_j \tau_{ij} \left(E[f_j] \hat z_{ij} - E[f_j c_j]\right).

It is what a sweep draws from (`pyro_bmf.methods.kernel`), with second moments in the place of products of
draws. An ordered probit has :math:`\tau_{ij} = \tau w_i w'_j \rho_{ij}` and a target that make this Normal
agree with the probability of the rating at the predictor's mean in value, slope and curvature: a natural
gradient's whole step (Khan and Lin 2017, arXiv 1703.04265).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...numerics import factorise
from ...numerics.chunks import chunks
from ...numerics.packed_symmetric import pack, unpack
from ...numerics.room import cells_on
from ..kernel import Conditional, Entries

#: Numbers in the matrices of one chunk of rows.
_CELLS = 16_000_000
#: Numbers of pairs' rows that are read at once where predictors are made.
PAIR_CELLS = 800_000


@dataclass(frozen=True, eq=False)
class Moments:
    """What one side's rows are told of the other side's.

    Attributes
    ----------
    mean : Tensor, shape (m, D)
        E[f_j].
    products : Tensor, shape (m, D (D + 1) / 2)
        E[f_j f_j^T], packed.
    with_bias : Tensor, shape (m, D)
        E[f_j c_j].
    bias, bias_second : Tensor, shape (m,)
        E[c_j] and E[c_j^2].
    precision : Tensor, shape (m,)
        E[w'_j], by which the other side's rows multiply the noise's precision.
    """

    mean: Tensor
    products: Tensor
    with_bias: Tensor
    bias: Tensor
    bias_second: Tensor
    precision: Tensor

    @classmethod
    def of(cls, loc: Tensor, covariance: Tensor, precision: Tensor, *, biases: bool) -> Moments:
        """Take the moments of rows (m, D) that are Normal: factors and, last, the bias."""
        m, width = loc.shape
        packed = loc.new_empty(m, width * (width + 1) // 2)
        with_bias = torch.zeros_like(loc)
        bias, bias_second = torch.zeros_like(loc[:, 0]), torch.zeros_like(loc[:, 0])
        mean = loc
        if biases:
            mean = loc.clone()
            mean[:, -1].fill_(1.0)
            bias, bias_second = loc[:, -1].clone(), covariance[:, -1, -1] + loc[:, -1] ** 2
            with_bias = covariance[:, :, -1] + loc * bias.unsqueeze(-1)
            with_bias[:, -1] = bias
        for part in chunks(m, cells_on(loc.device, _CELLS) // width**2):
            second = covariance[part] + loc[part].unsqueeze(2) * loc[part].unsqueeze(1)
            if biases:
                second[:, -1, :] = second[:, :, -1] = mean[part]
            packed[part] = pack(second)
        return cls(mean, packed, with_bias, bias, bias_second, precision)

    def predictors(self, loc: Tensor, entries: Entries) -> Tensor:
        """Return E[eta] less the centre of every entry, (nnz,), for rows of these means (n, D)."""
        found = entries.at_columns(self.bias)
        for part, rows, columns in entries.pairs(cells_on(loc.device, PAIR_CELLS) // max(loc.shape[1], 1)):
            found[part] += (self.mean[columns] * loc[rows]).sum(-1)
        return found


@dataclass(frozen=True, eq=False)
class Head:
    """The rows' conditionals given their prior means.

    Attributes
    ----------
    conditional : Conditional
        Of all rows.
    """

    conditional: Conditional

    def mean(self, prior_mean: Tensor) -> Tensor:
        """Return E[w_i | m_i], (n, D)."""
        return self.conditional.mean(prior_mean)

    def marginals(self, prior_mean: Tensor) -> tuple[Tensor, Tensor]:
        """Return means (n, D) and covariances (n, D, D) of rows whose priors are as wide as is known."""
        return self.mean(prior_mean), self.conditional.covariance()

    def pull(self, prior_mean: Tensor) -> Tensor:
        r"""Return :math:`\Lambda (E[w_i] - m_i)`, (n, D): the slope of the evidence in the prior means."""
        return (self.mean(prior_mean) - prior_mean) @ self.conditional.prior_precision

    def _inverses(self) -> Iterator[tuple[slice, Tensor]]:
        """Give P_i^{-1} some rows at a time."""
        tril, inverse = self.conditional.precision_tril, self.conditional.inverse
        for part in chunks(len(tril), cells_on(tril.device, _CELLS) // tril.shape[-1] ** 2):
            yield part, factorise.inverse_of_root(tril[part]) if inverse is None else inverse[part]

    def mean_precision(self) -> tuple[Tensor, Tensor]:
        r"""Return what rows say of their prior means, :math:`C_i = \Lambda - \Lambda P_i^{-1} \Lambda`.

        Returns
        -------
        diagonals : Tensor, shape (n, D)
        total : Tensor, shape (D, D)
        """
        prior = self.conditional.prior_precision
        diagonals, total = torch.zeros_like(self.conditional.linear), torch.zeros_like(prior)
        for part, inverse in self._inverses():
            found = prior - prior @ inverse @ prior
            diagonals[part] = found.diagonal(dim1=1, dim2=2).clamp_min(0.0)
            total += found.sum(0)
        return diagonals, total

    def covariance(self, mean_variance: Tensor, location_covariance: Tensor) -> Tensor:
        r"""Return the rows' covariances (n, D, D), of uncertain prior means.

        Parameters
        ----------
        mean_variance : Tensor, shape (n, D)
            Variances of the prior means, those of the location apart.
        location_covariance : Tensor, shape (D, D)
        """
        prior = self.conditional.prior_precision
        found = torch.empty_like(self.conditional.precision_tril)
        for part, inverse in self._inverses():
            gain = inverse @ prior
            spread = location_covariance + torch.diag_embed(mean_variance[part])
            found[part] = inverse + gain @ spread @ gain.mT
        return found

    def squares_about_prior(
        self, prior_mean: Tensor, mean_variance: Tensor, location_covariance: Tensor
    ) -> Tensor:
        r"""Return :math:`\sum_i E[(w_i - m_i)(w_i - m_i)^T]`, (D, D), float64."""
        prior = self.conditional.prior_precision
        gap = (self.mean(prior_mean) - prior_mean).double()
        total = gap.mT @ gap
        eye = torch.eye(len(prior), dtype=prior.dtype, device=prior.device)
        for part, inverse in self._inverses():
            # w_i - m_i moves with its prior mean by P^{-1} Lambda - I.
            off = eye - inverse @ prior
            spread = location_covariance + torch.diag_embed(mean_variance[part])
            total += (inverse + off @ spread @ off.mT).sum(0).double()
        return total


def head_of(
    other: Moments,
    entries: Entries,
    target: Tensor,
    share: Tensor | None,
    prior_precision: Tensor,
    row_precision: Tensor,
    *,
    checked: bool = True,
) -> Head:
    """Return the rows' conditionals.

    Parameters
    ----------
    other : Moments
    entries : Entries
        Of the rows over the other side.
    target : Tensor, shape (nnz,)
        Utilities less the centre, at their means.
    share : Tensor or None, shape (nnz,)
        rho: what each entry multiplies its precision by; None for ones.
    prior_precision : Tensor, shape (D, D), or (n, D, D)
    row_precision : Tensor, shape (n,)
        The noise's precision times E[w_i].
    checked : bool
        As of `Conditional.of`.
    """
    weight = other.precision.unsqueeze(-1)
    weighted = target if share is None else target * share
    linear = entries.sum(other.mean * weight, weighted) - entries.sum(other.with_bias * weight, share)
    width = other.mean.shape[1]
    products, factor = other.products * weight, torch.linalg.cholesky if checked else factorise.cholesky
    tril = linear.new_empty(entries.n_rows, width, width)
    for part in chunks(entries.n_rows, cells_on(entries.indptr.device, _CELLS) // width**2):
        sums = entries.part_sum(part, products, share) * row_precision[part].unsqueeze(-1)
        own = prior_precision if prior_precision.dim() == 2 else prior_precision[part]
        tril[part] = factor(unpack(sums, width) + own)
    return Head(Conditional.of_root(prior_precision, tril, linear * row_precision.unsqueeze(-1)))


def predictor_variances(
    other: Moments, entries: Entries, weight: Tensor | None, loc: Tensor, covariance: Tensor, eta: Tensor
) -> Tensor:
    r"""Return :math:`\sum_j a_{ij} w'_j \mathrm{var}(\eta_{ij})` of every row, (n,), float64.

    Parameters
    ----------
    weight : Tensor or None, shape (nnz,)
        a; None for ones.
    loc, covariance : Tensor, shape (n, D) and (n, D, D)
        Of the rows.
    eta : Tensor, shape (nnz,)
        E[eta] of the entries.
    """
    width, precision = loc.shape[1], other.precision.unsqueeze(-1)
    per_entry = entries.at_columns(other.precision)
    per_entry = per_entry.double() if weight is None else (per_entry * weight).double()
    # E[eta^2] = f^T E[w w^T] f + 2 w^T E[f c] + E[c^2], and then what the means make of it.
    total = entries.row_sums(per_entry * (entries.at_columns(other.bias_second).double() - eta.double() ** 2))
    total += 2.0 * (loc.double() * entries.sum(other.with_bias * precision, weight).double()).sum(-1)
    products = other.products * precision
    # In double precision, and twice: chunks of a quarter take as much memory as those of the heads.
    for part in chunks(entries.n_rows, cells_on(entries.indptr.device, _CELLS // 4) // width**2):
        sums = unpack(entries.part_sum(part, products, weight), width)
        second = covariance[part] + loc[part].unsqueeze(2) * loc[part].unsqueeze(1)
        total[part] += (sums.double() * second.double()).sum((1, 2))
    return total.clamp_min(0.0)


def with_uncertain_means(precision: Tensor, mean_variance: Tensor, location_covariance: Tensor) -> Tensor:
    r"""Return the precisions (n, D, D) of new rows' priors with q(y) and q(mu) integrated out.

    :math:`w_i \sim N(\hat m_i, \Lambda^{-1} + \mathrm{Var}(m_i))`. Of rows that are trained q(y) has learned,
    and is a factor beside theirs; of new ones it says what was known before.

    Parameters
    ----------
    precision : Tensor, shape (D, D)
        Lambda.
    mean_variance : Tensor, shape (n, D)
        Of the prior means, that of the location apart.
    location_covariance : Tensor, shape (D, D)
    """
    spread = factorise.inverse(precision) + location_covariance
    return factorise.inverse(spread + torch.diag_embed(mean_variance))
