"""What to do about rows whose posterior cannot be trusted, and about a fit that still moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..methods.exact_head.settings import ExactHead
from .row_diagnosis import LARGE_GAP, RowDiagnosis

#: Each remedy's short name, which stands beside a row, and what it means.
REMEDIES = {
    "residual, or longer": "the encoder misses the best q of its family: give rows residuals (--set "
    "residual=true), or train longer.",
    "longer, calmer": "the encoder misses the best q of its family, and rows have residuals: train longer "
    "(--iterations), with a smaller --learning-rate, without input dropout (--set input_dropout=0).",
    "longer": "rows are not at the best q of their family, and no encoder stands between: fit them for "
    "longer (--iterations, and --patience where that ended the fit).",
    "covariance": "factors are correlated given the ratings: --set covariance=full, preset conjugate or "
    "default.",
    "sweeps": "the best Normal q has the wrong tails: draw them by sweeps (preset default).",
}
#: Share of a side's flagged rows that is worth a word.
MANY_FLAGGED = 0.1
#: Change of the objective in an iteration, over its whole fall, below which it rests.
_REST = 1e-3
#: Validation RMSE that is lower by less is no improvement.
_GAIN = 1e-5


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
        if not found.encoded:
            return "longer"
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
    part : {"encoder", "distance to the best q", "family of q"}
        The second in the place of the first where no encoder gives rows their q.
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
    first = "encoder" if found.encoded else "distance to the best q"
    gaps = {first: summary["mean_amortization_gap"], "family of q": summary["mean_approximation_gap"]}
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
        By which it fell in an iteration at the end; negative where it rose.
    at_rest : bool
        Whether that is little beside its whole fall.
    advice : str
        What to do where it is not at rest, as the history allows to say it.
    """

    iterations: int
    last: float
    change_an_iteration: float
    at_rest: bool
    advice: str

    @classmethod
    def of(cls, history: pd.DataFrame) -> ObjectiveTrace | None:
        """Read a fit's history; None where it has no objective, or too few iterations to tell."""
        if "loss_per_rating" not in history or len(history) < 4:
            return None
        loss = history["loss_per_rating"].to_numpy(dtype=np.float64)
        n_tail = max(3, len(loss) // 5)
        tail = loss[-n_tail:]
        change = float(tail[0] - tail[-1]) / max(len(tail) - 1, 1)
        whole = float(loss.max() - loss.min())
        at_rest = abs(change) < _REST * max(whole, 1e-12)
        if at_rest:
            advice = ""
        elif change < 0.0:
            advice = _of_a_rise(history.iloc[-n_tail:])
        else:
            advice = _of_a_fall(history)
        return cls(len(loss), float(loss[-1]), change, at_rest, advice)

    def words(self) -> str:
        """Return it in a sentence."""
        return (
            f"Objective: {self.last:.4f} nats a rating after {self.iterations} iterations, "
            f"{'rising' if self.change_an_iteration < 0.0 else 'falling'} by "
            f"{abs(self.change_an_iteration):.2g} an iteration at the end; "
            f"{'it has come to rest' if self.at_rest else self.advice}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content as plain values, with the sentence."""
        return {**asdict(self), "words": self.words()}


def _of_a_rise(tail: pd.DataFrame) -> str:
    """Return what to say of an objective that rises; its encoders' histories have weights and rates."""
    weights = [name for name in ("beta_user", "beta_item") if name in tail]
    if any(tail[name].iloc[-1] > tail[name].iloc[0] for name in weights):
        return "it rises with the weight of the KL, which still grew (--warmup)"
    if "learning_rate" in tail:
        return "it rises: more iterations alone would not lower it, a smaller --learning-rate may"
    return "it rises: more iterations would not lower it"


def _of_a_fall(history: pd.DataFrame) -> str:
    """Return what to say of an objective that still falls: validation ratings may have ended the fit."""
    found = history["valid_rmse"].to_numpy(dtype=np.float64) if "valid_rmse" in history else np.zeros(0)
    known = np.flatnonzero(np.isfinite(found))
    if not len(known):
        return "it still moves: more iterations (--iterations) would help"
    best = int(known[np.flatnonzero(found[known] <= found[known].min() + _GAIN)[0]])
    if best == known[-1]:
        return "it still moves: more iterations (--iterations) would help"
    number = int(history["iteration"].iloc[best]) if "iteration" in history else best + 1
    seen = f"it still moves, but validation RMSE has not improved since iteration {number}"
    if "stage" in history and history["stage"].iloc[-1] == ExactHead.word:
        return f"{seen}: nothing says that more iterations would help"
    return (
        f"{seen}: where patience ended the fit, more iterations take more of it (--patience), and "
        "predictions may gain nothing"
    )
