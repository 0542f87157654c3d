"""The settings of the model: a factorization as plain values, priors and likelihood by a word."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import SettingsError
from .follow import Following
from .setting import POSITIVE, When, at_least, setting

#: Settings of the model that have a unit.
UNIT_SETTINGS = ("bias_scale", "noise", "prior_mean", "prior_scale")

_BIASES = When(lambda model, case: model.biases, "biases is true", (("biases", True),))
_SCALED = When(
    lambda model, case: case.takes_prior_scale,
    "prior is of the Normal family and gives no scale of its own",
    (("prior", "normal"),),
)
_PRIOR_MEAN = When(
    lambda model, case: case.takes_prior_mean,
    "encoders are fitted, prior is normal and gives no loc of its own, and about a centre it is a number",
    (("method", "cross-feedback"),),
)
_NOISY = When(
    lambda model, case: case.takes_noise,
    "likelihood is normal, or ordered-probit under the method cross-feedback or coordinate-ascent, and gives "
    "no noise of its own",
    (("likelihood", "normal"),),
)


@dataclass(frozen=True)
class ModelSettings(Following):
    """A factorization, as plain values; priors and likelihood by a word such as ``student-t:df=4``.

    Attributes
    ----------
    n_factors : int
        K. Presets whose model has implicit feedback have at most as many as users and items have ratings on
        average, where nobody asked for a number.
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
        discrete and has 20 levels at most, and Normal otherwise. `noise` is that of a Normal one,
        and of an ordered probit where encoders or coordinate ascent fit it; elsewhere it is found.
    implicit : bool
        Whether rows' prior means come from which pairs were rated (SVD++ on both sides). A preset that has it
        goes without where users and items have fewer than 3.5 ratings on average and nobody asked for it.
    row_noise : {"none", "user", "item", "both"}
        Which rows have noise of their own.
    standardised : bool
        Whether the fit works in standard units of the ratings, so that their unit decides nothing
        (`pyro_bmf.data.units`). Counts, yes or no and shares are never standardised.
    in_rating_units : tuple of str
        Which of `prior_scale`, `bias_scale`, `prior_mean` and `noise` are in the user's unit, as those are
        that `Settings.replace` is given; the others are in standard units. Numbers in a word are the user's.
        Factors' numbers are in units of the root of a rating, as a product of two is a rating.

    `implicit` needs the exact head or Gibbs sweeps, under whose priors the standard deviations of factors
    are half-t of the scale `prior_scale`, whatever their number, and of biases of the scale `bias_scale`;
    `row_noise` needs one of them or the encoders.
    """

    n_factors: int = setting(
        10, "Number of factors.", "--factors", metavar="K", limits=at_least(1), common=True
    )
    biases: bool = setting(True, "Users and items have biases.", "--biases/--no-biases")
    centred: bool = setting(True, "Ratings are centred by the train mean.", "--centred/--raw")
    prior_scale: float = setting(
        1.0, "Standard deviation of factors.", "--prior-scale", metavar="S", limits=POSITIVE, when=_SCALED
    )
    bias_scale: float = setting(
        0.5, "Standard deviation of biases.", "--bias-scale", metavar="S", limits=POSITIVE, when=_BIASES
    )
    prior_mean: float | Literal["ratings"] = setting(
        0.0,
        "Mean of factors; 'ratings': products then start at their mean.",
        "--prior-mean",
        metavar="M|ratings",
        when=_PRIOR_MEAN,
    )
    noise: float | Literal["learned"] = setting(
        "learned",
        "Standard deviation of a rating about its predictor.",
        "--noise",
        metavar="S|learned",
        limits=POSITIVE,
        when=_NOISY,
    )
    prior: str = setting(
        "normal",
        "Of factors, as in student-t:df=4 ('pyro-bmf priors').",
        "--prior",
        metavar="WORD",
        common=True,
    )
    likelihood: str = setting(
        "normal",
        "Of a rating: auto, or one of 'pyro-bmf likelihoods'.",
        "--likelihood",
        metavar="WORD",
        common=True,
    )
    implicit: bool = setting(
        False, "Prior means follow from which pairs were rated, as in SVD++.", "--implicit/--no-implicit"
    )
    row_noise: Literal["none", "user", "item", "both"] = setting(
        "none", "Which rows have own noise.", "--row-noise"
    )
    standardised: bool = setting(True, "The fit works in standard units of the ratings.")
    in_rating_units: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        # The catalogue of words needs torch, and the command line lists these settings without it.
        from ..model.catalogue import LIKELIHOODS, PRIORS
        from ..model.spelling import parse_word

        super().__post_init__()
        object.__setattr__(self, "in_rating_units", tuple(sorted(self.in_rating_units)))
        unknown = set(self.in_rating_units) - set(UNIT_SETTINGS)
        if unknown:
            raise SettingsError(
                f"in_rating_units names {', '.join(sorted(unknown))}: it may name {', '.join(UNIT_SETTINGS)}."
            )
        name, _ = parse_word(self.prior, PRIORS, "prior")
        if self.prior_mean and name != "normal":
            raise SettingsError(
                f"prior_mean is {self.prior_mean!r} and prior {self.prior!r}: it is the mean of a Normal "
                "prior. Set prior to 'normal', or prior_mean to 0."
            )
        if self.likelihood != "auto":
            parse_word(self.likelihood, LIKELIHOODS, "likelihood")
