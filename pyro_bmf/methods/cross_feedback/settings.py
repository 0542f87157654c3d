"""The settings of the cross-feedback guide: its encoders, and Algorithm 1 that fits them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ...errors import SettingsError
from ..follow import Following, Rule, encoders, growth, length
from ..setting import (
    INNER_SHARE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SHARE_BELOW_ONE,
    When,
    at_least,
    check_class,
    check_stop,
    setting,
)

Attention = Literal["none", "sum", "softmax"]
Scope = Literal["local", "global"]
Merge = Literal["concat", "add"]
Covariance = Literal["diagonal", "low-rank", "full"]
LatentInput = Literal["concatenation", "average"]

_HIDDEN_LAYERS = When(
    lambda encoder, case: bool(encoder.n_tower_layers or encoder.n_head_layers),
    "n_tower_layers or n_head_layers is 1 or more",
    (("n_tower_layers", 1), ("n_head_layers", 1)),
)
_ATTENTION = When(
    lambda encoder, case: encoder.attention != "none",
    "attention is sum or softmax",
    (("attention", "sum"),),
)
_FEEDBACK = When(lambda encoder, case: encoder.feedback, "feedback is true", (("feedback", True),))
_LOW_RANK = When(
    lambda encoder, case: encoder.covariance == "low-rank",
    "covariance is low-rank",
    (("covariance", "low-rank"),),
)
_BAYESIAN = When(
    lambda encoder, case: encoder.bayesian_input, "bayesian_input is true", (("bayesian_input", True),)
)
_AVERAGED = When(lambda method, case: method.ema_decay > 0.0, "ema_decay is above 0", (("ema_decay", 0.8),))
_PATIENT = When(
    lambda method, case: case.validated or method.patience is None, "there are validation ratings"
)
_KEPT = When(lambda method, case: case.validated or method.keep == "last", "there are validation ratings")


@dataclass(frozen=True)
class EncoderSettings(Following):
    """Architecture of the user- and the item-side encoders (Eq. 8-10); both sides have the same.

    Every ablation of the paper is one of these settings.

    Attributes
    ----------
    n_tower_layers : int
        L': hidden layers of each tower; 0 goes from the input straight to `n_tower_outputs`.
    n_head_layers : int
        L: hidden layers after the towers are joined.
    n_units : int
        M: width of every hidden layer.
    n_tower_outputs : int
        K': width of each tower's last layer.
    attention : {"none", "sum", "softmax"}
        Weights of Eq. 9 to the letter (`sum`, with a guarded denominator), their softmax, or none.
    attention_scope : {"local", "global"}
        Attend to the embeddings of the row's own ratings, or to all.
    attention_merge : {"concat", "add"}
        ``Linear([mu; c])``, the paper's choice, or ``mu + c``.
    data_input, feedback : bool
        Whether the encoders read the ratings, and the other side's embeddings.
    count_input : bool
        Whether the joined layer also reads the logarithm of a row's number of ratings.
    held_out_input : bool
        Whether, in training, an encoder reads everything except the block that it predicts.
    input_dropout : float
        Share of a row's ratings that each training step hides from the encoders at random, the rest being
        scaled up: an encoder then cannot lean on any one rating, its own target least of all.
    input_power : float
        A row's input sums are divided by ((1 + n) / (1 + mean n)) to this power, n its number of ratings: 0
        is the paper's plain sum, 1/2 keeps the size of a sum of independent terms, 1 makes them nearly means.
        The latent tower's mean, where `latent_input` is that, is not divided.
    initial_scale : float
        Posterior standard deviation, as a share of the prior's, that the variance networks start from.
    residual : bool
        Whether each training row has parameters of its own that are added to the encoder's output.
    covariance : {"diagonal", "low-rank", "full"}
        Of a row's factors under q. The variance network then also gives their correlations.
    covariance_rank : int
        Rank of what correlates the factors, when low-rank.
    bayesian_input : bool
        Whether the weights of the first layers (with `n_bases`, the coefficients) have a prior and a
        posterior instead of being point estimates.
    input_prior_scale : float
        Standard deviation of that prior, as a multiple of the spread that the weights start with.
    latent_input : {"concatenation", "average"}
        Whether the latent tower reads the embeddings of what a row has rated one after the other, the paper's
        choice, or their mean: its first layer is then one matrix for all.
    n_bases : int or None
        Number of matrices whose combinations, one a row of the other side, are the latent tower's first
        layer; None gives each row of the other side a matrix of its own.
    """

    rules: ClassVar[tuple[Rule, ...]] = (encoders,)

    n_tower_layers: int = setting(
        1, "Hidden layers of each tower.", "--tower-layers", metavar="L'", limits=at_least(0)
    )
    n_head_layers: int = setting(
        0, "Hidden layers after the towers.", "--head-layers", metavar="L", limits=at_least(0)
    )
    n_units: int = setting(
        50, "Width of hidden layers.", "--units", metavar="M", limits=at_least(1), when=_HIDDEN_LAYERS
    )
    n_tower_outputs: int = setting(
        25, "Width of a tower's last layer.", "--tower-outputs", metavar="K'", limits=at_least(1)
    )
    attention: Attention = setting("sum", "Weights of the attention (Eq. 9).", "--attention")
    attention_scope: Scope = setting(
        "local", "Attend to rated rows, or to all.", "--attention-scope", when=_ATTENTION
    )
    attention_merge: Merge = setting(
        "concat", "How it joins the parameters.", "--attention-merge", when=_ATTENTION
    )
    data_input: bool = setting(True, "Encoders read the ratings.", "--data-input/--no-data-input")
    feedback: bool = setting(True, "Encoders read the other side's factors.", "--feedback/--no-feedback")
    count_input: bool = setting(True, "Encoders read a row's number of ratings.")
    held_out_input: bool = setting(False, "In training, encoders read all but the block they predict.")
    input_dropout: float = setting(
        0.0, "Share of a row's ratings that a step hides from the encoders.", limits=SHARE_BELOW_ONE
    )
    input_power: float = setting(
        0.5, "Power of a row's number of ratings that divides its input sums.", limits=SHARE
    )
    initial_scale: float = setting(
        0.3, "Posterior standard deviation at the start, as a share of the prior's.", limits=INNER_SHARE
    )
    residual: bool = setting(False, "Training rows have own parameters beside the encoders' output.")
    covariance: Covariance = setting("diagonal", "Covariance of a row's factors under q.")
    covariance_rank: int = setting(2, "Rank of a low-rank covariance.", limits=at_least(1), when=_LOW_RANK)
    bayesian_input: bool = setting(False, "First-layer weights have a posterior.")
    input_prior_scale: float = setting(
        1.0, "Prior scale of those weights, over their start's spread.", limits=POSITIVE, when=_BAYESIAN
    )
    latent_input: LatentInput = setting(
        "concatenation", "The embeddings side by side, or their mean.", when=_FEEDBACK
    )
    n_bases: int | None = setting(
        None, "Matrices that the feedback's first layer combines; none for one a row.", limits=at_least(1)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.data_input or self.feedback):
            raise SettingsError("data_input and feedback are both off: an encoder must read one of them.")
        if not self.feedback and self.attention != "none":
            raise SettingsError(
                f"attention is {self.attention!r} but feedback is off: attention looks at the fed-back "
                "embeddings. Set attention to 'none', or feedback on."
            )
        if self.n_bases is not None and self.latent_input == "average":
            raise SettingsError(
                f"n_bases is {self.n_bases} but latent_input is 'average', whose first layer is one matrix: "
                "leave n_bases out, or set latent_input to 'concatenation'."
            )
        if self.bayesian_input and self.latent_input == "average":
            raise SettingsError(
                "bayesian_input is true but latent_input is 'average', whose first layer has no posterior: "
                "set bayesian_input to False, or latent_input to 'concatenation'."
            )
        if self.n_bases is not None and not self.feedback:
            raise SettingsError(
                f"n_bases is {self.n_bases} but feedback is off: bases are those of the fed-back embeddings' "
                "first layer. Leave n_bases out, or set feedback on."
            )


@dataclass(frozen=True)
class CrossFeedback(Following):
    """Encoders with cross feedback, fitted by stochastic variational inference (Algorithm 1).

    Attributes
    ----------
    encoder : EncoderSettings
        Their architecture.
    user_batch_size, item_batch_size : int or None
        Rows a block. Smaller blocks give more steps an iteration. None deals each side into batches of
        about 500, at least 10 and at most 20 of them (`batch_size`).
    kl_counting : {"once", "per_block"}
        Whether an iteration sums to Eq. 7, or counts a row's KL in each of its blocks as Algorithm 1 does.
    shuffle_blocks : bool
        Whether an iteration visits the user batches, and the item batches within them, in a new order.
    iteration_order : {"nested", "sequential"}
        Whether each step is of a user batch and an item batch and moves both sides' encoders, as in
        Algorithm 1, or first all user batches move the users' encoder, each against all items, and then all
        item batches the items'.
    beta_user, beta_item : float
        Weights of the KL (Eq. 7); below one the posterior is tempered.
    warmup_iterations : float
        Iterations over which both betas grow linearly from nothing.
    composite_prior : float
        Weight of a row's posterior after the iteration before in the prior of its factors (RecVAE's composite
        prior); 0 is the model's own prior. The KL is then sampled.
    elbo : {"mean-field", "trace", "closed-form"}
        Analytic or sampled KL, or analytic KL and an expected log-likelihood without draws (Normal
        likelihood).
    num_particles : int
        Draws a step.
    learning_rate, final_learning_rate : float
        Of Adam, at the first and at the last iteration; in between it falls as half a cosine (or rises,
        where both are given so).
    weight_decay : float
        Decoupled (AdamW), a share of the learning rate.
    clip_norm : float or None
        Largest norm of a step's gradient.
    max_iterations : int
        Length of the schedule.
    stop_after : int or None
        Stop after so many iterations of that schedule.
    patience : int or None
        Stop when validation RMSE has not improved for so many iterations; None never does.
    keep : {"best", "last"}
        Which state is the result: the one of best validation RMSE, or the last.
    ema_decay : float
        Weight of the past in the average of encoder weights over late iterations; 0 averages nothing.
    ema_start : float
        Share of the schedule after which averaging starts.
    """

    word: ClassVar[str] = "cross-feedback"
    title: ClassVar[str] = "encoders fitted by SVI"
    checkpointed: ClassVar[bool] = True
    conjugate: ClassVar[bool] = False
    validated: ClassVar[bool] = True
    hands_on_state: ClassVar[bool] = False
    rules: ClassVar[tuple[Rule, ...]] = (growth, length)

    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    max_iterations: int = setting(
        50, "Length of the schedule.", "--iterations", metavar="N", limits=at_least(1)
    )
    patience: int | None = setting(
        10,
        "Stop after N iterations without a better validation RMSE.",
        "--patience",
        metavar="N",
        limits=at_least(1),
        when=_PATIENT,
    )
    stop_after: int | None = setting(None, "Stop after so many iterations of it.", limits=at_least(1))
    keep: Literal["best", "last"] = setting("best", "Which state is the result.", "--keep", when=_KEPT)
    user_batch_size: int | None = setting(
        None, "Users a block.", "--batch-users", metavar="N", limits=at_least(1)
    )
    item_batch_size: int | None = setting(
        None, "Items a block.", "--batch-items", metavar="N", limits=at_least(1)
    )
    kl_counting: Literal["once", "per_block"] = setting("once", "How often an iteration counts a row's KL.")
    shuffle_blocks: bool = setting(True, "Blocks are visited in a new order each time.")
    iteration_order: Literal["nested", "sequential"] = setting(
        "nested", "Both sides' encoders in each step, or one side's batches and then the other's."
    )
    beta_user: float = setting(
        1.0, "Weight of the users' KL (Eq. 7).", "--beta-user", metavar="B", limits=NOT_NEGATIVE
    )
    beta_item: float = setting(
        1.0, "Weight of the items' KL (Eq. 7).", "--beta-item", metavar="B", limits=NOT_NEGATIVE
    )
    warmup_iterations: float = setting(
        5, "Iterations over which the weights of both KLs grow.", "--warmup", metavar="N", limits=NOT_NEGATIVE
    )
    composite_prior: float = setting(
        0.0, "Weight of a row's last posterior in its prior (RecVAE).", limits=SHARE_BELOW_ONE
    )
    elbo: Literal["mean-field", "trace", "closed-form"] = setting(
        "mean-field", "Analytic or sampled KL, or no draws at all."
    )
    num_particles: int = setting(1, "Draws a step.", limits=at_least(1))
    learning_rate: float = setting(
        1e-3, "Adam's, at the start.", "--learning-rate", metavar="R", limits=POSITIVE
    )
    final_learning_rate: float = setting(
        5e-5, "Adam's, at the end.", "--final-learning-rate", metavar="R", limits=POSITIVE
    )
    weight_decay: float = setting(
        0.0, "Decoupled weight decay, a share of the learning rate.", limits=NOT_NEGATIVE
    )
    clip_norm: float | None = setting(
        None, "Largest norm of a gradient.", "--clip-norm", metavar="G", limits=POSITIVE
    )
    ema_decay: float = setting(
        0.8, "Weight of the past in the average of late weights.", limits=SHARE_BELOW_ONE
    )
    ema_start: float = setting(
        0.6, "Share of the schedule after which it starts.", limits=SHARE, when=_AVERAGED
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_class("encoder", self.encoder, EncoderSettings)
        check_stop(self.stop_after, self.max_iterations)
        if self.composite_prior and self.encoder.covariance != "diagonal":
            raise SettingsError(
                f"composite_prior is {self.composite_prior:g} and covariance {self.encoder.covariance!r}: "
                "what it holds on to has a diagonal covariance. Set composite_prior to 0, or covariance to "
                "'diagonal'."
            )

    @staticmethod
    def batch_size(asked: int | None, n_rows: int) -> int:
        """Return the rows a batch of a side with `n_rows` rows."""
        if asked is not None:
            return asked
        n_batches = min(max(10, n_rows // 500), 20)
        return -(-n_rows // n_batches)

    @property
    def last_iteration(self) -> int:
        """Number of iterations that are run at most."""
        return self.max_iterations if self.stop_after is None else self.stop_after

    def beta(self, progress: float) -> tuple[float, float]:
        """Return both KL weights after `progress` iterations."""
        share = 1.0 if self.warmup_iterations == 0 else min(1.0, progress / self.warmup_iterations)
        return self.beta_user * share, self.beta_item * share

    def learning_rate_at(self, progress: float) -> float:
        """Return the learning rate after `progress` iterations of the schedule."""
        height = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress / self.max_iterations)))
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * height
