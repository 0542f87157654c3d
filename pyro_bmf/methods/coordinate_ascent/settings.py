"""The settings of exact coordinate ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..follow import Following, Rule, length
from ..setting import at_least, check_stop, setting


@dataclass(frozen=True)
class CoordinateAscent(Following):
    """Full-covariance rows, each updated exactly given the others: no sampling noise, Normal priors.

    Attributes
    ----------
    max_iterations : int
        Number of iterations at most.
    patience : int or None
        Stop when validation RMSE (without validation ratings, the bound) has not improved for so many
        iterations; None never does.
    stop_after : int or None
        Stop after so many iterations: those that an earlier fit chose on validation.
    point : bool
        Whether rows are at their most likely values given the ratings (MAP), without a covariance:
        alternating least squares. The priors' scales then stay as they are; their best would be zero.
    """

    word: ClassVar[str] = "coordinate-ascent"
    title: ClassVar[str] = "coordinate ascent"
    checkpointed: ClassVar[bool] = False
    conjugate: ClassVar[bool] = False
    validated: ClassVar[bool] = True
    hands_on_state: ClassVar[bool] = False
    rules: ClassVar[tuple[Rule, ...]] = (length,)

    max_iterations: int = setting(60, "Iterations at most.", "--iterations", metavar="N", limits=at_least(1))
    patience: int | None = setting(
        5,
        "Stop after N iterations without a better validation RMSE, or bound.",
        "--patience",
        metavar="N",
        limits=at_least(1),
    )
    stop_after: int | None = setting(None, "Stop after so many iterations.", limits=at_least(1))
    point: bool = setting(False, "Rows at their mode, without a covariance: alternating least squares.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stop(self.stop_after, self.max_iterations)

    @property
    def last_iteration(self) -> int:
        """Number of iterations that are run at most."""
        return self.max_iterations if self.stop_after is None else self.stop_after
