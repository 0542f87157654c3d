"""The settings of cross feedback with an exact head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..follow import Following, Rule, plain_start
from ..setting import POSITIVE, When, at_least, setting

_IMPLICIT = When(lambda part, case: case.implicit, "implicit is true", (("implicit", True),))
_ORDERED = When(
    lambda part, case: case.latent_utilities,
    "likelihood is ordered-probit",
    (("likelihood", "ordered-probit"),),
)


@dataclass(frozen=True)
class ExactHead(Following):
    """Variational inference by SVI: an encoder of which pairs were rated, and rows by the best q there is.

    Attributes
    ----------
    max_iterations : int
        Number of iterations; the rate of learning falls along them.
    weight_steps : int
        Gradient steps of each side's encoder in an iteration.
    learning_rate : float
        Of the encoders' weights at the start (Adam).
    plain_iterations : int
        First iterations, in which an ordered likelihood takes ratings for utilities.
    beta_user, beta_item : float
        Weights of the users' and the items' KL (Eq. 7).
    """

    word: ClassVar[str] = "exact-head"
    title: ClassVar[str] = "cross feedback with an exact head"
    checkpointed: ClassVar[bool] = True
    conjugate: ClassVar[bool] = True
    validated: ClassVar[bool] = False
    hands_on_state: ClassVar[bool] = True
    rules: ClassVar[tuple[Rule, ...]] = (plain_start,)

    max_iterations: int = setting(
        30, "Number of iterations.", "--iterations", metavar="N", limits=at_least(1)
    )
    weight_steps: int = setting(
        8, "Gradient steps of each side's encoder in an iteration.", limits=at_least(1), when=_IMPLICIT
    )
    learning_rate: float = setting(
        0.02,
        "Of the encoders' weights at the start.",
        "--learning-rate",
        metavar="R",
        limits=POSITIVE,
        when=_IMPLICIT,
    )
    plain_iterations: int = setting(
        10, "First iterations, which take ratings for utilities.", limits=at_least(0), when=_ORDERED
    )
    beta_user: float = setting(1.0, "Weight of the users' KL.", "--beta-user", metavar="B", limits=POSITIVE)
    beta_item: float = setting(1.0, "Weight of the items' KL.", "--beta-item", metavar="B", limits=POSITIVE)
