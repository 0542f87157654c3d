"""The settings of inference (Algorithm 1), and the presets that bring model, guide and inference together."""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from ..errors import SettingsError
from ..model.catalogue import LIKELIHOODS, PRIORS
from ..model.spelling import parse_word
from .cross_feedback.settings import GuideSettings
from .follow import follow


@dataclass(frozen=True)
class FitSettings:
    """How the objective is optimised.

    Attributes
    ----------
    method : {"svi", "conjugate", "none"}
        How a guide is fitted: the cross-feedback guide by Algorithm 1, full-covariance rows by exact
        coordinate ascent, or not at all, which leaves everything to Gibbs sweeps that start at the prior.
    user_batch_size, item_batch_size : int or None
        Rows a block. Smaller blocks give more steps an iteration. None deals each side into batches of
        about 500, at least 10 and at most 20 of them (`batch_size`).
    kl_counting : {"once", "per_block"}
        Whether an iteration sums to Eq. 7, or counts a row's KL in each of its blocks as Algorithm 1 does.
    shuffle_blocks : bool
        Whether an iteration visits the user batches, and the item batches within them, in a new order.
    beta_user, beta_item : float
        Weights of the KL (Eq. 7); below one the posterior is tempered.
    warmup_iterations : int
        Iterations over which both betas grow linearly from nothing.
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
    seed : int
        Of everything random in a fit. The same seed gives the same result on the same device.
    """

    method: Literal["svi", "conjugate", "none"] = "svi"
    user_batch_size: int | None = None
    item_batch_size: int | None = None
    kl_counting: Literal["once", "per_block"] = "once"
    shuffle_blocks: bool = True
    beta_user: float = 1.0
    beta_item: float = 1.0
    warmup_iterations: float = 5
    elbo: Literal["mean-field", "trace", "closed-form"] = "mean-field"
    num_particles: int = 1
    learning_rate: float = 1e-3
    final_learning_rate: float = 5e-5
    weight_decay: float = 0.0
    clip_norm: float | None = None
    max_iterations: int = 50
    stop_after: int | None = None
    patience: int | None = 10
    keep: Literal["best", "last"] = "best"
    ema_decay: float = 0.8
    ema_start: float = 0.6
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_particles", "max_iterations"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}: give 1 or more.")
        for name in ("user_batch_size", "item_batch_size", "stop_after", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"{name} is {value}: give 1 or more, or None.")
        for name in ("learning_rate", "final_learning_rate"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0.0):
                raise SettingsError(
                    f"{name} is {getattr(self, name)}: give a positive number, such as 0.001."
                )
        if self.stop_after is not None and self.stop_after > self.max_iterations:
            raise SettingsError(
                f"stop_after is {self.stop_after} and max_iterations {self.max_iterations}: a schedule has "
                "no more iterations than that. Give fewer, or a longer schedule."
            )
        for name in ("beta_user", "beta_item", "weight_decay", "warmup_iterations"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0.0):
                raise SettingsError(f"{name} is {getattr(self, name)}: give a number of 0 or more.")
        if self.clip_norm is not None and not self.clip_norm > 0.0:
            raise SettingsError(f"clip_norm is {self.clip_norm}: give a positive number, or None.")
        if not 0.0 <= self.ema_decay < 1.0 or not 0.0 <= self.ema_start <= 1.0:
            raise SettingsError(
                f"ema_decay is {self.ema_decay} and ema_start {self.ema_start}: both are shares of one."
            )
        for name, allowed in (
            ("method", ("svi", "conjugate", "none")),
            ("kl_counting", ("once", "per_block")),
            ("elbo", ("mean-field", "trace", "closed-form")),
            ("keep", ("best", "last")),
        ):
            if getattr(self, name) not in allowed:
                raise SettingsError(f"{name} is {getattr(self, name)!r}: it may be {' or '.join(allowed)}.")
        if self.seed < 0:
            raise SettingsError(f"seed is {self.seed}: give 0 or more.")

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
        return self.max_iterations if self.stop_after is None else min(self.stop_after, self.max_iterations)

    def beta(self, progress: float) -> tuple[float, float]:
        """Return both KL weights after `progress` iterations."""
        share = 1.0 if self.warmup_iterations == 0 else min(1.0, progress / self.warmup_iterations)
        return self.beta_user * share, self.beta_item * share

    def learning_rate_at(self, progress: float) -> float:
        """Return the learning rate after `progress` iterations of the schedule."""
        height = 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress / self.max_iterations)))
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * height

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


#: Settings of the model that have a unit.
UNIT_SETTINGS = ("bias_scale", "noise", "prior_mean", "prior_scale")


@dataclass(frozen=True)
class ModelSettings:
    """A factorization, as plain values; priors and likelihood by a word such as ``student-t:df=4``.

    Attributes
    ----------
    n_factors : int
        K.
    biases, centred : bool
        Whether rows have biases, and whether the mean training rating is part of the predictor.
    prior_scale, bias_scale : float
        Standard deviation of the Normal priors of factors and of biases.
    prior_mean : float or "ratings"
        Mean of a Normal prior of the factors, where the word gives none. ``ratings`` is the one at which the
        product of two means is the mean training rating: its root over K, and zero about a centre.
    noise : float or "learned"
        Standard deviation of a rating around its predictor.
    prior : str
        Of the factors, both sides (`pyro_bmf.model.catalogue.PRIORS`). `prior_scale` is the scale of those of
        the Normal family, where the word gives none.
    likelihood : str
        Of a rating (`pyro_bmf.model.catalogue.LIKELIHOODS`); ``auto`` is an ordered probit where the scale is
        discrete and has 20 levels at most, and Normal otherwise. `noise` is that of a Normal one.
    implicit : bool
        Whether rows' prior means come from which pairs were rated (SVD++ on both sides).
    row_noise : {"none", "user", "item", "both"}
        Which rows have noise of their own.
    standardised : bool
        Whether the fit works in standard units of the ratings, so that their unit decides nothing
        (`pyro_bmf.data.units`). Counts, yes or no and shares are never standardised.
    in_rating_units : tuple of str
        Which of `prior_scale`, `bias_scale`, `prior_mean` and `noise` are in the user's unit, as those are
        that `Preset.replace` is given; the others are in standard units. Numbers in a word are the user's.
        Factors' numbers are in units of the root of a rating, as a product of two is a rating.

    `implicit` needs Gibbs sweeps, whose priors are Normal-Wishart with `prior_scale` and `bias_scale` as
    guesses; `row_noise` needs sweeps or the encoders.
    """

    n_factors: int = 10
    biases: bool = True
    centred: bool = True
    prior_scale: float = 1.0
    bias_scale: float = 0.5
    prior_mean: float | Literal["ratings"] = 0.0
    noise: float | Literal["learned"] = "learned"
    prior: str = "normal"
    likelihood: str = "normal"
    implicit: bool = False
    row_noise: Literal["none", "user", "item", "both"] = "none"
    standardised: bool = True
    in_rating_units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_rating_units", tuple(sorted(self.in_rating_units)))
        unknown = set(self.in_rating_units) - set(UNIT_SETTINGS)
        if unknown:
            raise SettingsError(
                f"in_rating_units names {', '.join(sorted(unknown))}: it may name {', '.join(UNIT_SETTINGS)}."
            )
        if self.row_noise not in ("none", "user", "item", "both"):
            raise SettingsError(f"row_noise is {self.row_noise!r}: it may be one of none, user, item, both.")
        name, _ = parse_word(self.prior, PRIORS, "prior")
        if self.prior_mean != "ratings" and not (
            isinstance(self.prior_mean, (int, float)) and math.isfinite(self.prior_mean)
        ):
            raise SettingsError(f"prior_mean is {self.prior_mean!r}: give a number, or 'ratings'.")
        if self.prior_mean and name != "normal":
            raise SettingsError(
                f"prior_mean is {self.prior_mean!r} and prior {self.prior!r}: it is the mean of a Normal "
                "prior. Set prior to 'normal', or prior_mean to 0."
            )
        if self.likelihood != "auto":
            parse_word(self.likelihood, LIKELIHOODS, "likelihood")

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class GibbsSettings:
    """Gibbs sweeps after the guide's fit (or from the prior), whose kept draws become the posterior.

    Attributes
    ----------
    sweeps : int
        Number of sweeps; 0 leaves the guide's posterior as it is.
    burn_in : int
        Sweeps, at least, before the first draw is kept.
    kept_draws : int
        Draws kept, evenly spaced over the rest.
    plain_sweeps : int
        Sweeps, of those burnt in, in which an ordered likelihood takes ratings for utilities.
    solver_tolerance : float
        Relative residual at which a draw of the implicit weights is taken for solved.
    start_scale : float
        Standard deviation of rows that start from nothing.
    scale_moves : bool
        Whether the scale of an ordered likelihood's utilities is drawn in each sweep, where rows have noise
        of their own: cut points then settle sooner.
    """

    sweeps: int = 0
    burn_in: int = 30
    kept_draws: int = 100
    plain_sweeps: int = 15
    solver_tolerance: float = 1e-3
    start_scale: float = 0.1
    scale_moves: bool = False

    def __post_init__(self) -> None:
        for name, low in (("sweeps", 0), ("burn_in", 0), ("kept_draws", 1), ("plain_sweeps", 0)):
            if getattr(self, name) < low:
                raise SettingsError(f"{name} is {getattr(self, name)}: give {low} or more.")
        for name in ("solver_tolerance", "start_scale"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0.0):
                raise SettingsError(f"{name} is {getattr(self, name)}: give a positive number.")
        if self.sweeps and self.sweeps - self.burn_in < self.kept_draws:
            raise SettingsError(
                f"sweeps is {self.sweeps}, burn_in {self.burn_in} and kept_draws {self.kept_draws}: there "
                "must be at "
                "least as many sweeps after the burn-in as draws are kept."
            )
        if self.sweeps and self.plain_sweeps > self.burn_in:
            raise SettingsError(
                f"plain_sweeps is {self.plain_sweeps} and burn_in {self.burn_in}: sweeps with another "
                "likelihood must "
                "all be burnt in."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Preset:
    """Settings of model, guide and inference that belong together.

    Attributes
    ----------
    name : str
        Of the preset that they are, or started from.
    model, guide, fit, gibbs
        Their parts.
    given : frozenset of str
        Names of the settings that `replace` was asked for: each is read in a fit, or refused.
    settled : frozenset of str
        Names of those that nobody asked for: they followed another, or were read from a file.
    """

    name: str
    model: ModelSettings = field(default_factory=ModelSettings)
    guide: GuideSettings = field(default_factory=GuideSettings)
    fit: FitSettings = field(default_factory=FitSettings)
    gibbs: GibbsSettings = field(default_factory=GibbsSettings)
    given: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    settled: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.gibbs.sweeps:
            if self.model.implicit:
                raise SettingsError(
                    "implicit is True, which needs Gibbs sweeps, and sweeps is 0: set sweeps, or implicit to "
                    "False."
                )
            if self.model.row_noise != "none" and self.fit.method == "conjugate":
                raise SettingsError(
                    f"row_noise is {self.model.row_noise!r}, which coordinate ascent does not know: fit by "
                    "SVI or Gibbs sweeps, or set row_noise to 'none'."
                )
            if self.fit.method == "none":
                raise SettingsError(
                    "method is 'none' and sweeps is 0: nothing would be fitted. Set sweeps, or a method that "
                    "fits a guide (svi, conjugate)."
                )

    def replace(self, **changes: Any) -> Preset:
        """Return the preset with some settings changed, each given by its name alone.

        Settings that were not given, now or before, follow where they would contradict those that were:
        fewer sweeps keep fewer draws, and without feedback there is no attention.

        Raises
        ------
        SettingsError
            If a name is no setting of model, guide or inference, or given settings contradict each other.
        """
        parts = self._parts()
        owners = {name: part for part, settings in parts.items() for name in settings.to_dict()}
        for name in changes:
            if name not in owners:
                near = difflib.get_close_matches(name, owners, n=1)
                hint = f"did you mean {near[0]!r}? There are" if near else "there are"
                raise SettingsError(f"{name!r} is no setting: {hint} {', '.join(sorted(owners))}.")
        given = self.given | changes.keys()
        followed = follow({**self.values(), **changes}, given) if changes else {}
        # One replacement a part: settings that are only valid together may come in any order.
        wanted: dict[str, dict[str, Any]] = {part: {} for part in parts}
        for name, value in {**changes, **followed}.items():
            wanted[owners[name]][name] = value
        # Numbers that a preset brings are in standard units, and those that are given in the user's.
        mine = {name for name in UNIT_SETTINGS if name in changes}
        if mine and "in_rating_units" not in changes:
            wanted["model"]["in_rating_units"] = tuple(mine | set(self.model.in_rating_units))
        return replace(
            self,
            **{part: replace(parts[part], **wanted[part]) for part in parts},
            given=given,
            settled=(self.settled | followed.keys() | {"in_rating_units"}) - given,
        )

    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "guide": self.guide, "fit": self.fit, "gibbs": self.gibbs}

    def values(self) -> dict[str, Any]:
        """Return all settings by their names alone."""
        return {name: value for part in self._parts().values() for name, value in part.to_dict().items()}

    def differs(self, name: str) -> bool:
        """Whether a setting differs from that of the preset of this name, and from its class's default."""
        value = self.values()[name]
        start = PRESETS[self.name]() if self.name in PRESETS else Preset("")
        return all(value != other.values()[name] for other in (start, Preset("")))

    def asked(self) -> set[str]:
        """Return the names of the settings that the user gave, to `replace` or to the classes."""
        return {
            name
            for name in self.values()
            if name in self.given or (name not in self.settled and self.differs(name))
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as plain values."""
        return {
            "preset": self.name,
            "model": self.model.to_dict(),
            "guide": self.guide.to_dict(),
            "fit": self.fit.to_dict(),
            "gibbs": self.gibbs.to_dict(),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Preset:
        """Return the preset whose `to_dict` this is; settings that are not there are those of the preset."""
        name = content["preset"]
        start = PRESETS[name]() if name in PRESETS else cls(name)
        recorded = {part: dict(content.get(part, {})) for part in start._parts()}
        # Written before there were standard units: ratings were taken as they were.
        recorded["model"].setdefault("standardised", False)
        known = {key: value for part in recorded.values() for key, value in part.items()}
        # What was not read is not there, and must not contradict what is.
        followed = follow({**start.values(), **known}, known)
        parts = {}
        for part, settings in start._parts().items():
            own = {key: value for key, value in followed.items() if key in settings.to_dict()}
            parts[part] = replace(settings, **own, **recorded[part])
        return cls(name, **parts, settled=frozenset(start.values()))


def paper_preset() -> Preset:
    """Return the paper's method: to the letter where its text settles it, by validation where it does not.

    See docs/decisions.md.
    """
    return Preset(
        name="paper",
        model=ModelSettings(
            n_factors=10,
            biases=False,
            centred=False,
            prior_mean="ratings",
            prior_scale=0.3,
            noise=1.0,
            standardised=False,
        ),
        guide=GuideSettings(
            n_tower_layers=0,
            n_head_layers=0,
            n_units=50,
            n_tower_outputs=50,
            attention="sum",
            attention_scope="local",
            attention_merge="concat",
            count_input=False,
            input_dropout=0.2,
            input_power=0.0,
            held_out_input=False,
            initial_scale=0.7,
        ),
        fit=FitSettings(
            kl_counting="per_block",
            beta_user=0.015,
            beta_item=0.015,
            warmup_iterations=0,
            # Sums of raw ratings are large: a step of 0.001 in their weights overshoots.
            learning_rate=3e-4,
            final_learning_rate=1.5e-4,
            clip_norm=100.0,
            max_iterations=120,
            patience=15,
            ema_decay=0.95,
            ema_start=0.3,
        ),
    )


def default_preset() -> Preset:
    """Return what measured best for its time: Gibbs sweeps of SVD++ on both sides with an ordered probit."""
    return Preset(
        name="default",
        model=ModelSettings(
            n_factors=24,
            prior_scale=0.3,
            bias_scale=0.5,
            likelihood="auto",
            implicit=True,
            row_noise="both",
        ),
        fit=FitSettings(method="none"),
        gibbs=GibbsSettings(sweeps=150, burn_in=50, kept_draws=100),
    )


def conjugate_preset() -> Preset:
    """Return exact coordinate ascent with full-covariance rows: the fastest that has no sampling noise."""
    return Preset(
        name="conjugate",
        model=ModelSettings(n_factors=10, prior_scale=1.0, bias_scale=0.5, likelihood="auto"),
        fit=FitSettings(method="conjugate", max_iterations=60, patience=5),
    )


def amortized_preset() -> Preset:
    """Return the cross-feedback guide as it measured best for its time, without sweeps."""
    return Preset(
        name="amortized",
        model=ModelSettings(n_factors=10, prior_scale=1.0, bias_scale=0.5, noise="learned"),
        guide=GuideSettings(
            n_tower_layers=0,
            n_head_layers=0,
            n_tower_outputs=50,
            attention="sum",
            input_dropout=0.3,
        ),
        fit=FitSettings(
            beta_user=0.3,
            beta_item=0.3,
            warmup_iterations=5,
            learning_rate=2e-3,
            final_learning_rate=1e-4,
            max_iterations=40,
        ),
    )


#: The presets that a name stands for.
PRESETS = {
    "default": default_preset,
    "conjugate": conjugate_preset,
    "amortized": amortized_preset,
    "paper": paper_preset,
}


def preset(name: str = "default") -> Preset:
    """Return a preset by name.

    Raises
    ------
    SettingsError
        If there is none of that name.
    """
    if name not in PRESETS:
        raise SettingsError(f"There is no preset {name!r}: there are {', '.join(PRESETS)}.")
    return PRESETS[name]()
