r"""One side's encoder: the towers of Eq. 8 over ratings and fed-back embeddings, the head, attention.

Eq. 8's first layer, which is sparse, is `Encoder.first_layer`; its other layers, and the head, are `network`.
Eq. 9-10 are `attention`.

Means and variances come from *separate* networks of one form. Their first layers read the same sparse rows,
so those two weight tables are stored side by side and applied in one pass; every later layer is apart.

The first layer is linear in its weights, so with Normal posteriors of these (`bayesian_input`) its outputs
are Normal with known moments: see `first_layer`.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ...model.feedback import Feedback
from ...model.feedback_sums import feedback_sum, row_tables, squared
from .covariance import correlation_tril, n_correlations
from .first_layer import PreActivation, TablePosterior, basis_tables, rectified_moments
from .network import Network, first_width, soften
from .settings import EncoderSettings

#: Posterior standard deviation of a Bayesian first-layer weight at the start, by the weights' own spread.
WEIGHT_START = 0.1


class Encoded(NamedTuple):
    """What an encoder says of its rows.

    Attributes
    ----------
    loc : Tensor, shape (n_rows, D)
        Means; D is K, or K + 1 with a bias.
    relative_scale : Tensor, shape (n_rows, D)
        Standard deviations as a share of the prior's, in (0, 1).
    correlation : Tensor or None, shape (n_rows, K, K)
        Cholesky factor of the factors' correlations; None for none.
    variance : Tensor or None, shape (n_rows, D)
        What the unknown first-layer weights add to the variance, in the units of `loc` squared.
    """

    loc: Tensor
    relative_scale: Tensor
    correlation: Tensor | None = None
    variance: Tensor | None = None


class Encoder(nn.Module):
    """Amortized posterior parameters of the rows of one side.

    Parameters
    ----------
    settings : EncoderSettings
    n_other : int
        Number of rows of the other side: the columns that this side's feedback has.
    n_factors : int
        K.
    bias : bool
        Whether each row also has a bias, the (K + 1)-th output.
    mean_count : float
        Mean number of ratings a row, which scales the first layer's starting weights.
    """

    def __init__(
        self, settings: EncoderSettings, n_other: int, n_factors: int, *, bias: bool, mean_count: float = 1.0
    ) -> None:
        super().__init__()
        self.settings = settings
        self.n_factors = n_factors
        self.bias = bias
        n_outputs = n_factors + bias
        width = first_width(settings)
        spread = 1.0 / math.sqrt(max(mean_count, 1.0))
        # Columns [:width] belong to the network of the means, the rest to that of the variances.
        self.data_weight: nn.Parameter | None = None
        self.latent_weight: nn.Parameter | None = None
        self.latent_coefficients: nn.Parameter | None = None
        self.latent_matrix: nn.Parameter | None = None
        if settings.data_input:
            self.data_weight = nn.Parameter(torch.randn(n_other, 2 * width) * spread)
            self.data_bias = nn.Parameter(torch.zeros(2 * width))
        if settings.feedback:
            start = spread / math.sqrt(n_factors)
            if settings.latent_input == "average":
                # Of a mean, whose size a row's number of ratings does not make.
                self.latent_matrix = nn.Parameter(torch.randn(n_factors, 2 * width) / math.sqrt(n_factors))
            elif settings.n_bases is None:
                self.latent_weight = nn.Parameter(torch.randn(n_other, n_factors, 2 * width) * start)
            else:
                # Phi_j = sum_b s_jb B_b, with coefficients of their own for either network.
                share = 1.0 / math.sqrt(settings.n_bases)
                self.latent_coefficients = nn.Parameter(torch.randn(n_other, 2, settings.n_bases) * share)
                self.latent_bases = nn.Parameter(torch.randn(settings.n_bases, n_factors, 2 * width) * start)
            self.latent_bias = nn.Parameter(torch.zeros(2 * width))
        self.posteriors = nn.ModuleDict()
        if settings.bayesian_input:
            self._start_posteriors(spread, n_factors)
        self.log_mean_count: Tensor
        self.register_buffer("log_mean_count", torch.tensor(math.log1p(mean_count)))
        self.mean = Network(settings, n_factors, n_outputs)
        n_more = n_correlations(n_factors, settings.covariance, settings.covariance_rank)
        self.variance = Network(settings, n_factors, n_outputs + n_more)
        share = settings.initial_scale**2
        soften(self.mean, 0.0, n_outputs)
        soften(self.variance, math.log(share / (1.0 - share)), n_outputs)

    @torch.no_grad()
    def start_about(self, loc: float, scale: float) -> None:
        """Start the factors' means about a prior's mean instead of zero, and as near to it as its scale says.

        A deviation is multiplied by the other side's mean in the products that predict ratings: with means
        of the prior the starting spread is that of the prior's scale, not of torch's weights alone.
        """
        last = cast(nn.Linear, self.mean.head[-1])
        last.bias[: self.n_factors] = loc
        last.weight[: self.n_factors].mul_(min(scale, 1.0))

    def _start_posteriors(self, spread: float, n_factors: int) -> None:
        """Give each Bayesian table the scale of its prior and the log-scales of its posterior."""
        settings = self.settings
        scales = {"data_weight": spread, "latent_weight": spread / math.sqrt(n_factors)}
        if settings.n_bases is not None:
            scales["latent_coefficients"] = 1.0 / math.sqrt(settings.n_bases)
        for name, table in self.tables().items():
            prior = settings.input_prior_scale * scales[name]
            self.posteriors[name] = TablePosterior(table, start=WEIGHT_START * scales[name], prior=prior)

    def tables(self) -> dict[str, nn.Parameter]:
        """Return the first layer's tables by name: those with one row for each row of the other side."""
        named = {
            "data_weight": self.data_weight,
            "latent_weight": self.latent_weight,
            "latent_coefficients": self.latent_coefficients,
        }
        return {name: table for name, table in named.items() if table is not None}

    def forward(self, feedback: Feedback, other_factors: Tensor) -> tuple[Tensor, Tensor]:
        """Encode the rows of `feedback`.

        Parameters
        ----------
        feedback : Feedback
            The rows' own entries over the other side's rows.
        other_factors : Tensor, shape (n_other, n_factors)
            The other side's fed-back embeddings: constants.

        Returns
        -------
        loc : Tensor, shape (n_rows, n_factors [+ 1])
            Means, linear.
        relative_scale : Tensor, shape (n_rows, n_factors [+ 1])
            Standard deviations as a share of the prior's: the root of the sigmoid, in (0, 1).
        """
        encoded = self.encode(feedback, other_factors)
        return encoded.loc, encoded.relative_scale

    def encode(self, feedback: Feedback, other_factors: Tensor, *, sample: bool = False) -> Encoded:
        """Encode the rows of `feedback`, with everything that is known of them.

        Parameters
        ----------
        feedback : Feedback
        other_factors : Tensor, shape (n_other, n_factors)
        sample : bool
            Whether Bayesian first-layer weights are drawn (anew for each row: what matters is the
            distribution of one row's outputs) or integrated over.
        """
        width = first_width(self.settings)
        log_counts = None
        first = self.first_layer(feedback, other_factors, sample=sample)
        data, latent = (None if part is None else part.mean for part in first)
        spreads: list[Tensor] = []
        if self.settings.bayesian_input:
            if sample:
                data, latent = (None if part is None else part.sample() for part in first)
            else:
                # Means of the rectified units: non-negative, so the towers' own ReLU leaves them alone.
                moments = [None if part is None else rectified_moments(part) for part in first]
                data, latent = (None if part is None else part[0] for part in moments)
                spreads = [part[1] for part in moments if part is not None]
        if self.settings.count_input:
            log_counts = (torch.log1p(feedback.counts) - self.log_mean_count).unsqueeze(-1)

        def run(network: Network, columns: slice) -> Tensor:
            return cast(
                Tensor,
                network(
                    None if data is None else data[:, columns],
                    None if latent is None else latent[:, columns],
                    log_counts,
                    feedback,
                    other_factors,
                ),
            )

        loc = run(self.mean, slice(None, width))
        logit = run(self.variance, slice(width, None))
        correlation = None
        if self.settings.covariance != "diagonal":
            n_outputs = loc.shape[-1]
            correlation = correlation_tril(logit[:, n_outputs:], self.n_factors, self.settings.covariance)
            logit = logit[:, :n_outputs]
        return Encoded(
            loc,
            torch.exp(0.5 * nn.functional.logsigmoid(logit.clamp_min(LOWEST_LOGIT))),
            correlation,
            self.mean.linear_variance([part[:, :width] for part in spreads]) if spreads else None,
        )

    def first_layer(
        self, feedback: Feedback, other_factors: Tensor, *, sample: bool = False
    ) -> tuple[PreActivation | None, PreActivation | None]:
        """Return what the observed and the latent tower's first ReLU is applied to, None for no tower.

        Parameters
        ----------
        sample : bool
            Whether Bayesian coefficients of bases are drawn: they are common to all units of a row, which
            would not be independent given their moments.
        """
        data = latent = None
        if self.data_weight is not None:
            data = PreActivation(feedback_sum(feedback, self.data_weight, by_rating=True))
            scale = self._posterior_scale("data_weight")
            if scale is not None:
                variance = feedback_sum(squared(feedback), scale**2, by_rating=True)
                data = data._replace(variance=variance)
        if self.latent_weight is not None:
            latent = PreActivation(feedback_sum(feedback, row_tables(self.latent_weight, other_factors)))
            scale = self._posterior_scale("latent_weight")
            if scale is not None:
                table = row_tables(scale**2, other_factors**2)
                latent = latent._replace(variance=feedback_sum(squared(feedback), table))
        if self.latent_coefficients is not None:
            coefficients: Tensor = self.latent_coefficients
            scale = self._posterior_scale("latent_coefficients")
            if scale is not None and sample:
                coefficients = coefficients + scale * torch.randn_like(scale)
            means, variances = basis_tables(
                coefficients, self.latent_bases, other_factors, None if sample else scale
            )
            latent = PreActivation(feedback_sum(feedback, means))
            if variances is not None:
                latent = latent._replace(variance=feedback_sum(squared(feedback), variances))
        if self.latent_matrix is not None:
            # A mean is no sum that a row's number of ratings has to divide.
            count = feedback.counts.clamp_min(1.0).unsqueeze(-1)
            mean = feedback_sum(feedback, other_factors.detach()) / count
            latent = PreActivation(mean @ self.latent_matrix)
        shrink = None
        if self.settings.input_power:
            relative = (1.0 + feedback.counts) / self.log_mean_count.exp()
            shrink = relative.pow(-self.settings.input_power).unsqueeze(-1)
        return (
            None if data is None else data.finish(shrink, self.data_bias),
            None
            if latent is None
            else latent.finish(None if self.latent_matrix is not None else shrink, self.latent_bias),
        )

    def dense_latent_weight(self) -> Tensor | None:
        """Return Phi_0 of shape (n_other, K, 2 width), built from its bases where it has some."""
        if self.latent_coefficients is None:
            return self.latent_weight
        width = first_width(self.settings)
        parts = [
            torch.einsum("jb,bkm->jkm", self.latent_coefficients[:, network], part)
            for network, part in enumerate(self.latent_bases.split(width, dim=-1))  # type: ignore[no-untyped-call]
        ]
        return torch.cat(parts, dim=-1)

    def weights_kl(self) -> Tensor | None:
        """Return KL(q || p) of all Bayesian first-layer weights, a scalar in nats; None where none are."""
        if not self.settings.bayesian_input:
            return None
        total = self.log_mean_count.new_zeros(())
        for name, table in self.tables().items():
            total = total + self._posterior(name).kl(table)
        return total

    def _posterior_scale(self, name: str) -> Tensor | None:
        """Return the posterior's standard deviations of a first-layer table, None where it has none."""
        if not self.settings.bayesian_input:
            return None
        return self._posterior(name).scale()

    def _posterior(self, name: str) -> TablePosterior:
        return cast(TablePosterior, self.posteriors[name])


#: Keeps a scale above 1e-15 of the prior's: a row of thousands of raw ratings, summed, would else reach zero
#: in single precision when the KL weighs little, and its KL infinity.
LOWEST_LOGIT = 2.0 * math.log(1e-15)
