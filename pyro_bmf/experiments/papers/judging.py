"""Claims, and whether differences between seeds bear them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from pyro_bmf.experiments.datasets import DataSet
from pyro_bmf.experiments.reports import mean_and_se

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be judged"
LEVEL = 0.95


@dataclass(frozen=True)
class Verdict:
    """What became of a claim on one set.

    Attributes
    ----------
    set, title : str
        Of the data.
    key : str
        Of the claim, for whoever reads the file.
    claim : str
    verdict : {"holds", "does not hold", "cannot be judged"}
    difference, se : float or None
        In the claim's direction where it is positive, with its standard error over seeds.
    told : str
    percent : float or None
        Of the ratings that were trained on, where that is a choice.
    """

    set: str
    title: str
    key: str
    claim: str
    verdict: str
    difference: float | None = None
    se: float | None = None
    told: str = ""
    percent: float | None = None

    def row(self) -> dict[str, str]:
        """Return it as a line of a table."""
        share = {} if self.percent is None else {"trained on": f"{self.percent:g} %"}
        return {
            "set": self.title,
            **share,
            "claim": self.claim,
            "verdict": self.verdict,
            "by": self.told or "–",
        }

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return asdict(self)


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return Student's 95 % interval of a mean over seeds; None of a single one."""
    mean, se = mean_and_se(values)
    if se is None:
        return None
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1)) * se
    return mean - half, mean + half


def signed(values: Sequence[float], decimals: int = 4) -> str:
    """Return a mean with its sign and, over several seeds, its interval."""
    mean, ends = float(np.mean(values)), interval(values)
    text = f"{mean:+.{decimals}f}"
    return text if ends is None else f"{text} [{ends[0]:+.{decimals}f}, {ends[1]:+.{decimals}f}]"


def judge(
    data: DataSet,
    key: str,
    claim: str,
    differences: Sequence[float],
    *,
    told: str = "",
    missing: str = "",
    percent: float | None = None,
    decimals: int = 4,
) -> Verdict:
    """Judge a claim by differences of paired seeds, each positive where its seed agrees.

    It holds where their mean is positive and Student's 95 % interval has no zero in it, does not hold where
    both are on the other side, and cannot be judged between, nor by a single seed.

    Parameters
    ----------
    missing
        Why there are none.
    """

    def verdict(word: str, difference: float | None, se: float | None, by: str) -> Verdict:
        return Verdict(data.base, data.title, key, claim, word, difference, se, by, percent)

    if not differences:
        return verdict(OPEN, None, None, missing or "not measured")
    mean, se = mean_and_se(differences)
    ends = interval(differences)
    text = signed(differences, decimals) + (f"; {told}" if told else "")
    if ends is None:
        return verdict(OPEN, mean, se, f"{text}; one seed")
    if ends[0] > 0:
        return verdict(HOLDS, mean, se, text)
    if ends[1] < 0:
        return verdict(FAILS, mean, se, text)
    return verdict(OPEN, mean, se, f"{text}: within what {len(differences)} seeds tell apart")


def paired(left: Sequence[float], right: Sequence[float]) -> list[float]:
    """Return left less right by seed; empty where either was not measured, or one not on all of the seeds."""
    if not left or len(left) != len(right):
        return []
    return [a - b for a, b in zip(left, right, strict=True)]
