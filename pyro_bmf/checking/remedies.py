"""What to do about rows whose posterior cannot be trusted, and about a fit that still moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from .row_diagnosis import LARGE_GAP, RowDiagnosis

#: Each remedy's short name, which stands beside a row, and what it means.
REMEDIES = {
    "residual, or longer": "the encoder misses the best q of its family: give rows residuals (--set "
    "residual=true), or train longer.",
    "longer, calmer": "the encoder misses the best q of its family, and rows have residuals: train longer "
    "(--iterations), with a smaller --learning-rate, without input dropout (--set input_dropout=0).",
    "covariance": "factors are correlated given the ratings: --set covariance=full, preset conjugate or "
    "default.",
    "sweeps": "the best Normal q has the wrong tails: draw them by sweeps (preset default).",
}
#: Share of a side's flagged rows that is worth a word.
MANY_FLAGGED = 0.1
#: Change of the objective in an iteration, over its whole fall, below which it rests.
_REST = 1e-3


def remedy(line: Mapping[Any, Any], found: RowDiagnosis, *, residuals: bool) -> str:
    """Return the short name of what to do about one row of a diagnosis; ``nothing`` of a good one.

    Parameters
    ----------
    line : mapping
        The row's line of ``found.table``.
    found : RowDiagnosis
    residuals : bool
        Whether training rows have residuals already.
    """
    encoder, family = line["amortization_gap"], line["approximation_gap"]
    if not line["flagged"]:
        return "nothing"
    if encoder == encoder and encoder > max(LARGE_GAP, family):
        return "longer, calmer" if residuals else "residual, or longer"
    if family == family and family > LARGE_GAP and found.family != "full":
        return "covariance"
    return "sweeps"


@dataclass(frozen=True)
class Blame:
    """Which part has the larger share in a side's flagged rows.

    Attributes
    ----------
    share : float
        Of the rows that are flagged.
    part : {"encoder", "family of q"}
    larger, smaller : float
        Mean gaps of that part and of the other, nats.
    """

    share: float
    part: str
    larger: float
    smaller: float


def blame(found: RowDiagnosis) -> Blame | None:
    """Return which part is at fault where many rows are flagged, else None."""
    summary = found.summary()
    share = summary["share_flagged"]
    if share <= MANY_FLAGGED:
        return None
    gaps = {"encoder": summary["mean_amortization_gap"], "family of q": summary["mean_approximation_gap"]}
    part = max(gaps, key=lambda name: gaps[name])
    return Blame(share, part, max(gaps.values()), min(gaps.values()))


@dataclass(frozen=True)
class ObjectiveTrace:
    """How the objective ended.

    Attributes
    ----------
    iterations : int
    last : float
        Nats a rating.
    change_an_iteration : float
        By which it fell in an iteration at the end.
    at_rest : bool
        Whether that is little beside its whole fall.
    """

    iterations: int
    last: float
    change_an_iteration: float
    at_rest: bool

    @classmethod
    def of(cls, history: pd.DataFrame) -> ObjectiveTrace | None:
        """Read a fit's history; None where it has no objective, or too few iterations to tell."""
        if "loss_per_rating" not in history or len(history) < 4:
            return None
        loss = history["loss_per_rating"].to_numpy(dtype=np.float64)
        tail = loss[-max(3, len(loss) // 5) :]
        change = float(tail[0] - tail[-1]) / max(len(tail) - 1, 1)
        whole = float(loss.max() - loss.min())
        return cls(len(loss), float(loss[-1]), change, abs(change) < _REST * max(whole, 1e-12))

    def words(self) -> str:
        """Return it in a sentence."""
        moving = "it still moves: more iterations (--iterations) would help"
        return (
            f"Objective: {self.last:.4f} nats a rating after {self.iterations} iterations, falling by "
            f"{self.change_an_iteration:.2g} an iteration at the end; "
            f"{'it has come to rest' if self.at_rest else moving}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values, with the sentence."""
        return {**asdict(self), "words": self.words()}
