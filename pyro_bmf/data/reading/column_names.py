"""Names by which the columns of ratings are known."""

from __future__ import annotations

import re
from collections.abc import Sequence

ROLES = ("user", "item", "rating", "timestamp")
# Known names, best first, compared without case and punctuation; what follows a colon is recbole's type.
_NAMES = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid", "memberid", "useridx", "username"),
    "item": (
        "itemid", "item", "iid", "movieid", "movie", "asin", "parentasin", "productid", "product", "bookid",
        "book", "isbn", "businessid", "artistid", "trackid", "songid", "animeid", "gameid", "title",
    ),
    "rating": ("rating", "ratings", "overall", "score", "stars", "bookrating", "value"),
    "timestamp": (
        "timestamp", "unixreviewtime", "time", "ts", "unixtime", "ratingtime", "datetime", "date",
        "createdat",
    ),
}  # fmt: skip
#: Keys of times as JSON spells them as a rule: what is not in the first line may come later.
TIME_KEYS = (
    "timestamp", "Timestamp", "time", "Time", "ts", "date", "Date", "datetime", "unixReviewTime", "unixTime",
    "unix_time", "ratingTime", "rating_time", "createdAt", "created_at",
)  # fmt: skip

Columns = str | Sequence[str | int]


def known_columns(names: Sequence[str]) -> dict[str, int]:
    """Find the columns with known names: role -> position."""
    plain = [re.sub(r"[^a-z0-9]", "", name.split(":")[0].lower()) for name in names]
    return {
        role: plain.index(next(known for known in _NAMES[role] if known in plain))
        for role in ROLES
        if any(known in plain for known in _NAMES[role])
    }
