"""The settings of Gibbs sweeps."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import ClassVar

from ...errors import SettingsError
from ..follow import Following, Rule, Values, chain
from ..setting import POSITIVE, SHARE_BELOW_ONE, When, at_least, setting

_ORDERED = When(
    lambda gibbs, case: case.latent_utilities,
    "likelihood is ordered-probit",
    (("likelihood", "ordered-probit"),),
)
_PLAIN = When(
    lambda gibbs, case: (
        case.latent_utilities and (gibbs.chains > 1 or not case.settings.method.hands_on_state)
    ),
    "likelihood is ordered-probit, and no method before the sweeps has found cut points for every chain",
    (("likelihood", "ordered-probit"),),
)
_IMPLICIT = When(lambda gibbs, case: case.implicit, "implicit is true", (("implicit", True),))
_FROM_THE_PRIOR = When(
    lambda gibbs, case: gibbs is case.settings.method or gibbs.chains > 1,
    "sweeps start from the prior, as all but the first of several chains do, and not after a guide",
    (("method", "gibbs"),),
)


#: Training ratings from which on the usual number of sweeps is done, and with many rows, whose draws take
#: gigabytes.
_MANY_RATINGS, _MANY_OF_MANY_ROWS, _MANY_ROWS = 1_500_000, 1_000_000, 50_000
#: A chain so many times as long keeps every second sweep (with many rows: twice as long), but not of so few
#: training ratings: its draws take a few megabytes.
_THINNED, _THINNED_OF_MANY_ROWS, _FEW_RATINGS = 3, 2, 10_000
#: Sweeps, burn-in and kept draws where a guide has found the state that sweeps go on from.
AFTER_STATE = (140, 40, 100)
#: Where ratings leave time for several chains: how many there are of few ratings, and how long each is.
_CHAINS_OF_FEW, _LENGTH = 8, (200, 100, 100)
#: Of chains whose every sweep after the burn-in is kept.
_OVERRELAXATION = 0.8


def drawn_anew(v: Values, given: Collection[str]) -> Values:
    """Draw rows anew where not every sweep is kept: overrelaxed twice, a row is on its old side again."""
    thinned = v["sweeps"] - v["burn_in"] >= 2 * v["kept_draws"]
    return {"overrelaxation": 0.0 if thinned else _OVERRELAXATION}


@dataclass(frozen=True)
class Gibbs(Following):
    """Gibbs sweeps from the prior, or after a guide's fit, whose kept draws become the posterior.

    What is not given follows: of 40 sweeps a third are burnt in, and the rest are kept. Where neither sweeps
    nor burn-in nor kept draws are given, there are more of them the fewer the ratings are, and, where nobody
    says how many, more chains (`lengthened`).
    Rows are overrelaxed where every sweep after the burn-in is kept, and drawn anew elsewhere.

    Attributes
    ----------
    sweeps : int
        Number of sweeps.
    burn_in : int
        Sweeps, at least, before the first draw is kept.
    kept_draws : int
        Draws that each chain keeps, evenly spaced over the rest.
    plain_sweeps : int
        Sweeps, of those burnt in, in which an ordered likelihood takes ratings for utilities.
    solver_tolerance : float
        Relative residual at which a draw of the implicit weights is taken for solved.
    start_scale : float
        Standard deviation of rows that start from nothing.
    chains : int
        Chains of so many sweeps each, one after the other, of which each keeps `kept_draws`. The first goes
        on from a guide's state where there is one; every other starts from nothing, with rows, noise and cut
        points of its own that are farther apart than where chains end, so that R-hat over all of them sees
        what one chain cannot tell: that another start would have ended elsewhere. Where nobody says how many,
        nor how long they are, and ratings are few there are more (`lengthened`).
    scale_moves : bool
        Whether shift and scale of an ordered likelihood's utilities are drawn in each sweep: cut points,
        noise and the spread of the predictors then settle sooner.
    overrelaxation : float
        Share a of what a row is apart from its conditional mean that the next draw has on the other side of
        the mean, beside sqrt(1 - a^2) of a new draw: the posterior stays as it is, errors of averages over
        draws partly cancel, and a chain walks less at random. 0 draws rows anew, which is better where every
        second sweep is kept: a row is then on its old side again, at about the distance from its mean that
        it had. Adler (1981), doi 10.1103/PhysRevD.23.2901.
    """

    word: ClassVar[str] = "gibbs"
    title: ClassVar[str] = "Gibbs sweeps"
    checkpointed: ClassVar[bool] = True
    conjugate: ClassVar[bool] = True
    validated: ClassVar[bool] = False
    hands_on_state: ClassVar[bool] = False
    rules: ClassVar[tuple[Rule, ...]] = (chain, drawn_anew)

    sweeps: int = setting(150, "Number of sweeps.", "--sweeps", metavar="N", limits=at_least(1), common=True)
    burn_in: int = setting(50, "Sweeps before a draw is kept.", "--burn-in", metavar="N", limits=at_least(0))
    kept_draws: int = setting(
        100, "Draws that each chain keeps.", "--kept-draws", metavar="N", limits=at_least(1)
    )
    plain_sweeps: int = setting(
        15, "First sweeps, which take ratings for utilities.", limits=at_least(0), when=_PLAIN
    )
    solver_tolerance: float = setting(
        1e-3, "Relative residual of a draw of implicit weights.", limits=POSITIVE, when=_IMPLICIT
    )
    start_scale: float = setting(
        0.1, "Standard deviation of rows at the start.", limits=POSITIVE, when=_FROM_THE_PRIOR
    )
    chains: int = setting(
        1,
        "Chains of so many sweeps each, each from its own start: more than one where ratings are few and "
        "neither sweeps, burn-in nor kept draws are given.",
        "--chains",
        metavar="N",
        limits=at_least(1),
    )
    scale_moves: bool = setting(True, "Shift and scale of utilities are drawn in each sweep.", when=_ORDERED)
    overrelaxation: float = setting(
        _OVERRELAXATION,
        "Share of a row's distance from its mean that a draw reverses; 0 where not every sweep is kept.",
        limits=SHARE_BELOW_ONE,
    )

    @property
    def all_sweeps(self) -> int:
        """Number of sweeps of all chains."""
        return self.chains * self.sweeps

    @property
    def all_draws(self) -> int:
        """Number of draws that all chains keep."""
        return self.chains * self.kept_draws

    def lengthened(self, n_ratings: int, n_rows: int, *, anew: bool = True) -> Gibbs:
        """Return the settings with more sweeps where ratings are few and sweeps cheap.

        Up to four times as many, in proportion to the root of how many ratings there are fewer than a
        million and a half: in several chains where these can be long enough, and of ten thousand ratings or
        fewer in eight. Otherwise one chain is longer; from three times on every second sweep of it is kept,
        as predictions take time, and a saved posterior memory, in proportion to the draws. With more than
        50,000 users and items, whose draws take gigabytes, there is one chain, twice as long or more below
        444,444 ratings, and no more draws are kept than of the usual chain before three times its length.
        Settings of any other length than the usual ones, from the prior or from a guide's state, stay as
        they are.

        Parameters
        ----------
        n_ratings, n_rows : int
            Training ratings; users and items together.
        anew : bool
            Whether there may be more chains; there are as many as now where these were asked for.
        """
        usual = ((Gibbs.sweeps, Gibbs.burn_in, Gibbs.kept_draws), AFTER_STATE)
        large = n_rows > _MANY_ROWS
        many = _MANY_OF_MANY_ROWS if large else _MANY_RATINGS
        times = min(4.0, max(1.0, math.sqrt(many / max(n_ratings, 1))))
        if times == 1.0 or (self.sweeps, self.burn_in, self.kept_draws) not in usual:
            return self
        if anew and self.chains > 1:
            return self  # they have been made as many before
        if anew and not large:
            sweeps, burn_in, kept = _LENGTH
            chains = _CHAINS_OF_FEW if n_ratings <= _FEW_RATINGS else round(times * Gibbs.sweeps / sweeps)
            if chains > 1:
                return replace(self, sweeps=sweeps, burn_in=burn_in, kept_draws=kept, chains=chains)
        if large or times >= 1.5:
            times = round(times)
        thinned = times >= (_THINNED_OF_MANY_ROWS if large else _THINNED)
        every = 2 if thinned and n_ratings > _FEW_RATINGS else 1
        sweeps, burn_in = round(times * self.sweeps), round(times * self.burn_in)
        return replace(self, sweeps=sweeps, burn_in=burn_in, kept_draws=(sweeps - burn_in) // every)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sweeps - self.burn_in < self.kept_draws:
            raise SettingsError(
                f"sweeps is {self.sweeps}, burn_in {self.burn_in} and kept_draws {self.kept_draws}: there "
                "must be at least as many sweeps after the burn-in as draws are kept. Give more sweeps, "
                "or fewer of the others."
            )
        if self.plain_sweeps > self.burn_in:
            raise SettingsError(
                f"plain_sweeps is {self.plain_sweeps} and burn_in {self.burn_in}: sweeps with another "
                "likelihood must all be burnt in. Give fewer plain_sweeps, or a longer burn_in."
            )
