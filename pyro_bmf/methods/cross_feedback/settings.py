"""The settings of the cross-feedback encoders: every ablation of the paper is one of them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...errors import SettingsError

Attention = Literal["none", "sum", "softmax"]
Scope = Literal["local", "global"]
Merge = Literal["concat", "add"]
Covariance = Literal["diagonal", "low-rank", "full"]


@dataclass(frozen=True)
class GuideSettings:
    """Architecture of the user- and the item-side encoders (Eq. 8-10); both sides have the same.

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
        A row's input sums are divided by (n / mean n) to this power, n its number of ratings: 0 is the
        paper's plain sum, 1/2 keeps the size of a sum of independent terms, 1 makes them means.
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
    n_bases : int or None
        Number of matrices whose combinations, one a row of the other side, are the latent tower's first
        layer; None gives each row of the other side a matrix of its own.
    """

    n_tower_layers: int = 1
    n_head_layers: int = 0
    n_units: int = 50
    n_tower_outputs: int = 25
    attention: Attention = "sum"
    attention_scope: Scope = "local"
    attention_merge: Merge = "concat"
    data_input: bool = True
    feedback: bool = True
    count_input: bool = True
    held_out_input: bool = False
    input_dropout: float = 0.0
    input_power: float = 0.5
    initial_scale: float = 0.3
    residual: bool = False
    covariance: Covariance = "diagonal"
    covariance_rank: int = 2
    bayesian_input: bool = False
    input_prior_scale: float = 1.0
    n_bases: int | None = None

    def __post_init__(self) -> None:
        for name, low in (
            ("n_tower_layers", 0),
            ("n_head_layers", 0),
            ("n_units", 1),
            ("n_tower_outputs", 1),
            ("covariance_rank", 1),
        ):
            if getattr(self, name) < low:
                raise SettingsError(f"{name} is {getattr(self, name)}: give {low} or more.")
        for name, allowed in (
            ("attention", ("none", "sum", "softmax")),
            ("attention_scope", ("local", "global")),
            ("attention_merge", ("concat", "add")),
            ("covariance", ("diagonal", "low-rank", "full")),
        ):
            if getattr(self, name) not in allowed:
                raise SettingsError(
                    f"{name} is {getattr(self, name)!r}: it may be one of {', '.join(allowed)}."
                )
        if not (self.data_input or self.feedback):
            raise SettingsError("data_input and feedback are both off: an encoder must read one of them.")
        if not self.feedback and self.attention != "none":
            raise SettingsError(
                f"attention is {self.attention!r} but feedback is off: attention looks at the fed-back "
                "embeddings. Set attention to 'none', or feedback on."
            )
        if not 0.0 <= self.input_dropout < 1.0:
            raise SettingsError(f"input_dropout is {self.input_dropout}: give a share from 0 up to 1.")
        if not 0.0 <= self.input_power <= 1.0:
            raise SettingsError(f"input_power is {self.input_power}: give a number between 0 and 1.")
        if not 0.0 < self.initial_scale < 1.0:
            raise SettingsError(
                f"initial_scale is {self.initial_scale}: give a share of the prior's scale between 0 and 1."
            )
        if not (math.isfinite(self.input_prior_scale) and self.input_prior_scale > 0.0):
            raise SettingsError(f"input_prior_scale is {self.input_prior_scale}: give a positive number.")
        if self.n_bases is not None and self.n_bases < 1:
            raise SettingsError(f"n_bases is {self.n_bases}: give 1 or more, or None.")
        if self.n_bases is not None and not self.feedback:
            raise SettingsError(
                f"n_bases is {self.n_bases} but feedback is off: bases are those of the fed-back embeddings' "
                "first layer. Leave n_bases out, or set feedback on."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)
