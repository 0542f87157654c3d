"""What of the held-out ratings a fit cannot know: their user, or their item, has no training rating.

Some of that is in the nature of a split; nearly all of it is a slip, as a rule ids that are written in two
ways, ``1`` beside ``1.0``. Then every figure is that of the mean, so it is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .notices import warn

if TYPE_CHECKING:
    from .ratings import Ratings
    from .splits import Split
    from .vocabulary import Vocabulary

#: Above this share of a part's ratings a warning is given.
ALARM = 0.5
#: Ids compared with all others: enough to meet a way of writing that was used throughout.
_LOOKED_AT = 1000
#: Fewer ratings than this in a part say nothing by their share.
_FEW = 10
_NAMED = re.compile(r"\A[^0-9]*?0*([0-9]+)[^0-9]*\Z", re.ASCII)
#: Blanks, and characters that show nothing.
_UNSEEN = re.compile("[\\s\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]+")
_DECIMAL = r"[0-9]+(\.[0-9]+)?e[+-]?[0-9]+"
_NUMBER = re.compile(r"\A([+-]?)0*([0-9]+?)(?:\.0*)?\Z", re.ASCII)
#: Splits that hold users out on purpose.
_COLD_USERS = ("users",)


@dataclass(frozen=True)
class Unknown:
    """The ratings of one part whose user, or item, has no training rating.

    Attributes
    ----------
    part
        ``"valid"`` or ``"test"``.
    kind
        ``"user"`` or ``"item"``.
    count, total
        Such ratings, and all of the part.
    intended
        Whether the split holds this side out on purpose.
    alike
        An unknown id and one of training that look alike, in another spelling; None where none was found.
    """

    part: str
    kind: str
    count: int
    total: int
    intended: bool
    alike: tuple[str, str] | None

    @property
    def share(self) -> float:
        """Share of the part's ratings."""
        return self.count / self.total

    def alarming(self, scheme: str) -> bool:
        """Tell whether it deserves a warning in a split of this scheme."""
        if self.alike is not None and scheme == "given":
            return True
        return not self.intended and self.share > ALARM and self.total >= _FEW

    def __str__(self) -> str:
        """Say it in a sentence without its end."""
        part = "validation" if self.part == "valid" else self.part
        text = (
            f"{self.count:,} of {self.total:,} {part} ratings ({100 * self.share:.3g} %) are of "
            f"{self.kind}s without a training rating"
        )
        if self.intended:
            return f"{text}: this split holds them out on purpose"
        if self.alike is not None:
            text += (
                f": {self.alike[0]!r} is not in training, which has {self.alike[1]!r}; write ids in one way "
                "in all files"
            )
        return text


def unknown_ratings(split: Split, *, train: Ratings | None = None) -> tuple[Unknown, ...]:
    """Count the held-out ratings of users, and of items, that training does not hold.

    Parameters
    ----------
    split
        Whose validation and test parts are looked at.
    train
        What was trained on; the split's train part when None.

    Returns
    -------
    tuple of Unknown
        One for each part and side where there are any.
    """
    known = split.train if train is None else train
    found = []
    for part in ("valid", "test"):
        held_out = split.valid if part == "valid" else split.test
        if len(held_out) == 0 or (part == "valid" and train is not None):
            continue
        for kind, counts, codes, vocabulary in (
            ("user", known.user_counts, held_out.users, split.ratings.user_vocabulary),
            ("item", known.item_counts, held_out.items, split.ratings.item_vocabulary),
        ):
            strange = counts[codes] == 0
            if not bool(strange.any()):
                continue
            intended = kind == "user" and split.scheme in _COLD_USERS
            alike = None
            if not intended and (split.scheme == "given" or strange.mean() > ALARM):
                missing, present = np.unique(codes[strange]), np.flatnonzero(counts > 0)
                alike = _look_alike(vocabulary, missing, present, spellings, spellings)
                if alike is None and strange.mean() > ALARM:
                    # A way of writing that was used throughout: u17, user_17, 1.7e+01.
                    for ways in ((numbers_in, spellings), (spellings, numbers_in)):
                        alike = alike or _look_alike(vocabulary, missing, present, *ways)
            found.append(Unknown(part, kind, int(strange.sum()), len(held_out), intended, alike))
    return tuple(found)


def warn_of_unknown(split: Split) -> None:
    """Warn where most of a part is unknown in training though the split does not mean that.

    Files given by hand are also warned of where an unknown id looks like a known one, however few there are.
    """
    for unknown in split.unknown:
        if not unknown.alarming(split.scheme):
            continue
        rest = "" if unknown.alike is not None else _remedy(unknown)
        mean = "; what is predicted for them is hardly more than the mean" if unknown.share > ALARM else ""
        warn(f"{split.ratings.name}: {unknown}{mean}{rest}")


def _remedy(unknown: Unknown) -> str:
    side = unknown.kind
    return f"; check that the {side} column is the right one and its ids are written alike in all parts"


def spellings(raw_ids: NDArray[Any]) -> pd.Series[str]:
    """Return what ids have in common that differ in case, blanks, Unicode form or a number's spelling."""
    text = pd.Series(raw_ids, dtype=object).astype(str).str.normalize("NFKC").str.casefold()
    text = text.str.replace(_UNSEEN, "", regex=True).str.strip("\"'")
    return text.str.replace(_NUMBER, r"\1\2", regex=True).str.removeprefix("+")


def numbers_in(raw_ids: NDArray[Any]) -> pd.Series[str]:
    """Return the number that an id holds beside a name for what it is, as ``17`` in ``user_17``; else ""."""
    text = spellings(raw_ids)
    decimal = text.str.fullmatch(_DECIMAL)
    whole = pd.to_numeric(text.where(decimal, ""), errors="coerce")
    plain = text.str.replace(_NAMED, r"\1", regex=True)
    plain = plain.where(plain.str.fullmatch("[0-9]+"), "")
    exact = whole.notna() & (whole.abs() < 2**53) & (whole == whole.round())
    return plain.where(~exact, whole.where(exact, 0).astype("int64").astype(str))


def _look_alike(
    vocabulary: Vocabulary,
    unknown: NDArray[np.int64],
    known: NDArray[np.int64],
    of_unknown: Callable[[NDArray[Any]], pd.Series[str]],
    of_known: Callable[[NDArray[Any]], pd.Series[str]],
) -> tuple[str, str] | None:
    """Return an unknown id and a known one in another spelling, if the first unknown ones have any."""
    if vocabulary.is_integer or not len(known):
        return None  # an integer is written in one way
    strange, familiar = vocabulary.raw(unknown[:_LOOKED_AT]), vocabulary.raw(known)
    there = of_known(familiar)
    alike = of_unknown(strange)
    matched = np.flatnonzero(alike.isin(there) & (alike != ""))
    if not len(matched):
        return None
    return str(strange[matched[0]]), str(familiar[int(np.argmax(there == alike[matched[0]]))])
