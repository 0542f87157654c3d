r"""The paper's guide: amortized posteriors of users and items that read each other's embeddings.

:math:`q(u_i \mid X_i, V_i)` and :math:`q(v_j \mid X_j, U_j)` are independent Normals whose parameters come
from the two sides' encoders. The embeddings U and V that they read are those sampled at the end of the
previous iteration: constants, kept here as buffers and saved with the weights, since they are part of what
defines q.

Variants, each a setting: correlated factors (`covariance`), free residuals of the training rows
(`residual`), Normal weights of the first layers (`first_layer`).
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn

from ...errors import SettingsError
from ...model.blocks import Block
from ...model.feedback import Feedback
from ...model.fitted import NormalRowsGuide
from ...model.rows import RowPosterior
from ...model.sides import SIDES, Side, Sides
from ..setting import values_of
from .covariance import CorrelatedNormal, IndependentRows, row_tril
from .encoder import Encoder
from .rating_histogram import StyleEncoder
from .residual import Residual
from .settings import EncoderSettings

#: Bounds of the mean and of the standard deviation of a positive factor's logarithm.
_FAR, _WIDE = 20.0, 3.0
#: Of the encoders' outputs on those logarithms: at the start, ratings are products of exponentials of them.
_GAIN = 0.25


class CrossFeedbackGuide(NormalRowsGuide, nn.Module):
    """Both sides' encoders and the embeddings that are fed back to them.

    Parameters
    ----------
    settings : EncoderSettings
    n_users, n_items, n_factors : int
    biases : bool
        Whether rows have a bias beside their factors.
    user_scales, item_scales : tuple of (float, float)
        Standard deviation of the prior of a side's factors and of its bias: the posterior's scale is at
        most that, as the sigmoid is at most one.
    origins : tuple of (float, float)
        Mean of the prior of users' and of items' factors: where their q's means, and the first embeddings,
        start around.
    mean_counts : tuple of (float, float)
        Mean number of ratings a user and an item; scales the starting weights.
    positive : tuple of (bool, bool)
        Whether users' and items' factors are positive: their q is then log-normal, scales are those of
        logarithms, and the encoders' means are of logarithms about `start`.
    start : float
        Logarithm of what positive factors start from.
    row_noise : tuple of (bool, bool)
        Whether users and items have noise of their own, whose multiplier has a log-normal q.
    n_cuts : int
        Shifts of the cut points of each user; 0 where cuts are shared.
    n_style_edges : int
        Edges of the histograms that noise and cut points are read from (see `StyleEncoder`).

    Raises
    ------
    SettingsError
        If factors are positive and the settings are for Normal rows.
    """

    has_gradients = True
    user_factors: Tensor
    item_factors: Tensor
    user_scales: Tensor
    item_scales: Tensor
    start: Tensor

    def __init__(
        self,
        settings: EncoderSettings,
        n_users: int,
        n_items: int,
        n_factors: int,
        *,
        biases: bool,
        user_scales: tuple[float, float] = (1.0, 1.0),
        item_scales: tuple[float, float] = (1.0, 1.0),
        origins: tuple[float, float] = (0.0, 0.0),
        mean_counts: tuple[float, float] = (1.0, 1.0),
        positive: tuple[bool, bool] = (False, False),
        start: float = 0.0,
        row_noise: tuple[bool, bool] = (False, False),
        n_cuts: int = 0,
        n_style_edges: int = 0,
    ) -> None:
        super().__init__()
        if any(positive) and settings.covariance != "diagonal":
            raise SettingsError(
                f"covariance is {settings.covariance!r} and factors are positive: log-normal rows are "
                "independent here. Set covariance to 'diagonal'."
            )
        self.guide_settings, self.positive = settings, tuple(positive)
        self.n_users, self.n_items, self.n_factors, self.biases = n_users, n_items, n_factors, biases
        self.user_encoder = Encoder(settings, n_items, n_factors, bias=biases, mean_count=mean_counts[0])
        self.item_encoder = Encoder(settings, n_users, n_factors, bias=biases, mean_count=mean_counts[1])
        self.register_buffer("user_scales", torch.tensor(user_scales))
        self.register_buffer("item_scales", torch.tensor(item_scales))
        # Algorithm 1, line 2: the first feedback is drawn from the prior.
        self.register_buffer("user_factors", origins[0] + torch.randn(n_users, n_factors) * user_scales[0])
        self.register_buffer("item_factors", origins[1] + torch.randn(n_items, n_factors) * item_scales[0])
        for encoder, loc, scale in (
            (self.user_encoder, origins[0], user_scales[0]),
            (self.item_encoder, origins[1], item_scales[0]),
        ):
            if loc:
                encoder.start_about(loc, scale)
        if any(positive):
            # The mean of a log-normal is above its median by what it spreads, here at the start.
            spread = (settings.initial_scale * max(user_scales[0], item_scales[0])) ** 2 + _GAIN**2
            self.register_buffer("start", torch.tensor(float(start) - spread / 2))
            for table, is_positive in ((self.user_factors, positive[0]), (self.item_factors, positive[1])):
                if is_positive:
                    table.mul_(settings.initial_scale).add_(self.start).exp_()
        self.row_noise, self.n_cuts = tuple(row_noise), n_cuts
        widths = (int(row_noise[0]) + n_cuts, int(row_noise[1]))
        self.user_style, self.item_style = (
            StyleEncoder(n_style_edges, n_columns, width) if width else None
            for n_columns, width in zip((n_items, n_users), widths, strict=True)
        )
        self.user_residual = Residual(n_users, n_factors + biases) if settings.residual else None
        self.item_residual = Residual(n_items, n_factors + biases) if settings.residual else None

    @property
    def encoders(self) -> Sides[Encoder]:
        """Both sides' encoders."""
        return Sides(self.user_encoder, self.item_encoder)

    @property
    def embeddings(self) -> Sides[Tensor]:
        """The embeddings that are fed back, (n, n_factors)."""
        return Sides(self.user_factors, self.item_factors)

    @property
    def residuals(self) -> Sides[Residual | None]:
        """Both sides' residuals; None without."""
        return Sides(self.user_residual, self.item_residual)

    @property
    def styles(self) -> Sides[StyleEncoder | None]:
        """What gives noise and cut points to the rows that have their own."""
        return Sides(self.user_style, self.item_style)

    def move_only(self, moved: Side) -> None:
        """Let gradients reach what gives one side's rows, and not what gives the other's."""
        for side in SIDES:
            for part in (self.encoders.of(side), self.residuals.of(side), self.styles.of(side)):
                if part is not None:
                    part.requires_grad_(side == moved)

    def settings(self) -> dict[str, Any]:
        """Return what rebuilds this guide's shape by `from_settings`, as plain values."""
        return {
            "kind": "cross-feedback",
            "encoder": dict(values_of(self.guide_settings)),
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_factors": self.n_factors,
            "biases": self.biases,
            **({"positive": list(self.positive)} if any(self.positive) else {}),
            **self._style_settings(),
        }

    def _style_settings(self) -> dict[str, Any]:
        styles = [one for one in (self.user_style, self.item_style) if one is not None]
        if not styles:
            return {}
        return {
            "row_noise": list(self.row_noise),
            "n_cuts": self.n_cuts,
            "n_style_edges": len(styles[0].edges),
        }

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> CrossFeedbackGuide:
        """Build a guide of a saved shape; its weights, scales and embeddings are to be loaded into it."""
        return cls(
            EncoderSettings(**settings["encoder"]),
            settings["n_users"],
            settings["n_items"],
            settings["n_factors"],
            biases=settings["biases"],
            positive=tuple(settings.get("positive", (False, False))),
            row_noise=tuple(settings.get("row_noise", (False, False))),
            n_cuts=settings.get("n_cuts", 0),
            n_style_edges=settings.get("n_style_edges", 0),
        )

    def encode_rows(
        self,
        side: Side,
        feedback: Feedback,
        other_factors: Tensor | None = None,
        *,
        rows: Tensor | None = None,
        sample: bool = False,
    ) -> RowPosterior:
        """Return q of the rows of one side; the only builder of its parameters.

        Parameters
        ----------
        side : {"user", "item"}
        feedback : Feedback
            The rows' entries over all rows of the other side. New rows are welcome: without residuals
            nothing here depends on which row it is, only on what it has rated.
        other_factors : Tensor, shape (n_other, n_factors), optional
            The other side's embeddings; the kept ones when not given.
        rows : Tensor, shape (n_rows,), optional
            Which training rows these are, where they are such: they have residuals of their own. New rows
            have the spread of those residuals in their variance.
        sample : bool
            Whether Bayesian first-layer weights are drawn, as in training, or integrated over.
        """
        user = side == "user"
        if other_factors is None:
            other_factors = self.embeddings.opposite(side)
        encoder, residual = self.encoders.of(side), self.residuals.of(side)
        scales = self.user_scales if user else self.item_scales
        k = self.n_factors
        prior = torch.cat([scales[:1].expand(k), scales[1 : 1 + self.biases]])
        loc, relative_scale, correlation, extra = encoder.encode(feedback, other_factors, sample=sample)
        encoder_scale = scale = prior * relative_scale
        if residual is not None:
            if rows is None:
                variance = residual.spread
            else:
                shift, variance = residual(rows)
                loc = loc + prior * shift
            variance = (prior**2 * variance).expand_as(loc)
            extra = variance if extra is None else extra + variance
        if extra is not None:
            scale = (encoder_scale**2 + extra).sqrt()
        tril = None if correlation is None else row_tril(encoder_scale, correlation, extra, k)
        more = self._style(user, feedback)
        if self.biases:
            more |= {"bias_loc": loc[:, k], "bias_scale": scale[:, k]}
        if self.positive[0 if user else 1]:
            # Far beyond any factor that fits ratings; an exponential of more is no number.
            return RowPosterior.log_normal(
                (self.start + _GAIN * loc[:, :k]).clamp(-_FAR, _FAR), scale[:, :k].clamp_max(_WIDE), **more
            )
        return RowPosterior(loc[:, :k], scale[:, :k], tril=tril, **more)

    def _style(self, user: bool, feedback: Feedback) -> dict[str, Tensor]:
        """Return q of the rows' noise and cut points, by the names of `RowPosterior`."""
        style = self.user_style if user else self.item_style
        if style is None:
            return {}
        loc, scale = style(feedback)
        found: dict[str, Tensor] = {}
        noise = self.row_noise[0 if user else 1]
        if noise:
            found |= {"noise_factor": loc[:, 0].exp(), "noise_factor_log_sd": scale[:, 0]}
        if user and self.n_cuts:
            found |= {"cuts": loc[:, int(noise) :], "cuts_scale": scale[:, int(noise) :]}
        return found

    def encode_side(
        self, side: Side, feedback: Feedback, *, known: bool = False, chunk: int = 8192
    ) -> RowPosterior:
        """Return q of all rows of one side, without gradients, a chunk of rows at a time.

        Parameters
        ----------
        side : {"user", "item"}
        feedback : Feedback
        known : bool
            Whether these are *the* training rows, all of them in their order, with their training ratings.
            What new rows get of the residuals is then taken anew.
        chunk : int
        """
        residual = self.residuals.of(side)
        if known and residual is not None:
            residual.refresh(feedback.counts)
        # Without residuals rows have no identity.
        known = known and residual is not None
        rows = torch.arange(feedback.n_rows, device=feedback.indptr.device)
        with torch.no_grad():
            if feedback.n_rows <= chunk:
                return self.encode_rows(side, feedback, rows=rows if known else None)
            return RowPosterior.concatenate(
                [
                    self.encode_rows(side, feedback.select(part), rows=part if known else None)
                    for part in rows.split(chunk)  # type: ignore[no-untyped-call]
                ]
            )

    def training_rows(self, side: Side, feedback: Feedback) -> RowPosterior:
        """Return q of the training rows, with their residuals."""
        return self.encode_side(side, feedback, known=True)

    @property
    def has_residuals(self) -> bool:
        """Whether training rows have free residuals."""
        return self.guide_settings.residual

    def weights_kl(self) -> Tensor | None:
        """Return KL(q || p) of the Bayesian first-layer weights of both sides, in nats; None for none."""
        parts = [encoder.weights_kl() for encoder in (self.user_encoder, self.item_encoder)]
        given = [part for part in parts if part is not None]
        return torch.stack(given).sum() if given else None

    def forward(self, block: Block, *, beta: tuple[float, float]) -> None:
        """Sample both sides' rows of a block from q, in the order of the model.

        Parameters
        ----------
        block : Block
            The rows' feedback and the weights of their KL.
        beta : tuple of float
            Weights of the users' and the items' KL (Eq. 7).
        """
        for side, plate, ids, feedback, weight in (
            ("user", "users", block.users, block.user_feedback, beta[0] * block.user_weight),
            ("item", "items", block.items, block.item_feedback, beta[1] * block.item_weight),
        ):
            rows = self.encode_rows(side, feedback, rows=ids, sample=True)  # type: ignore[arg-type]
            with pyro.plate(plate, len(rows)), poutine.scale(scale=weight):
                if rows.positive is not None:
                    factors = IndependentRows(dist.LogNormal(*rows.logarithms()), 1)  # type: ignore[no-untyped-call]
                elif rows.tril is None:
                    factors = IndependentRows(dist.Normal(rows.loc, rows.scale), 1)
                else:
                    # The bias is independent of the factors, so that the KL of either site stays analytic.
                    k = self.n_factors
                    factors = CorrelatedNormal(rows.loc, scale_tril=rows.tril[:, :k, :k])
                pyro.sample(f"{side}_factors", factors)
                if rows.bias_loc is not None and rows.bias_scale is not None:
                    pyro.sample(f"{side}_bias", dist.Normal(rows.bias_loc, rows.bias_scale))
                if rows.noise_factor is not None and rows.noise_factor_log_sd is not None:
                    # The model's site is the precision's multiplier: the noise's to the power of -2.
                    q = dist.LogNormal(-2.0 * rows.noise_factor.log(), 2.0 * rows.noise_factor_log_sd)  # type: ignore[no-untyped-call]
                    pyro.sample(f"{side}_noise", q)
                if rows.cuts is not None and rows.cuts_scale is not None:
                    shifts: Any = dist.Normal(rows.cuts, rows.cuts_scale)
                    pyro.sample(f"{side}_cuts", shifts.to_event(1))

    @torch.no_grad()
    def resample_feedback(self, users: RowPosterior, items: RowPosterior) -> None:
        """Draw the embeddings that the next iteration reads (Algorithm 1, line 15), users first."""
        self.user_factors.copy_(users.sample()[0])
        self.item_factors.copy_(items.sample()[0])
