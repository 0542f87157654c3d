"""The settings of the cross-feedback encoders: every ablation of the paper is one of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import SettingsError

Attention = Literal["none", "sum", "softmax"]
Scope = Literal["local", "global"]
Merge = Literal["concat", "add"]


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

    def __post_init__(self) -> None:
        for name, low in (
            ("n_tower_layers", 0),
            ("n_head_layers", 0),
            ("n_units", 1),
            ("n_tower_outputs", 1),
        ):
            if getattr(self, name) < low:
                raise SettingsError(f"{name} is {getattr(self, name)}: give {low} or more.")
        for name, allowed in (
            ("attention", ("none", "sum", "softmax")),
            ("attention_scope", ("local", "global")),
            ("attention_merge", ("concat", "add")),
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

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)
