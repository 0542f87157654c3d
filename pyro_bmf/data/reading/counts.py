"""How the lines of a file, or the rows of a table, were used: none is lost without a word."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce


@dataclass(frozen=True)
class ReadCounts:
    """Where the lines of what was read went: ``header``, ``blank``, ``quoted`` and ``rows`` sum to ``lines``.

    Attributes
    ----------
    lines
        All lines of the file (rows of a table).
    header
        Lines that name columns or the delimiter.
    blank
        Lines without anything.
    quoted
        Line ends within quoted text, which are no ends of rows.
    rows
        Lines of data.
    filtered
        Rows left out since their user or item has too few.
    merged
        Rows left out since another of the same user and item stands for them.
    """

    lines: int
    header: int = 0
    blank: int = 0
    quoted: int = 0
    rows: int = 0
    filtered: int = 0
    merged: int = 0

    def __str__(self) -> str:
        left = [
            f"{count:,} {what}"
            for count, what in (
                (self.header, "of a header"),
                (self.blank, "blank"),
                (self.quoted, "within quoted text"),
                (self.filtered, "left out by the minimum of ratings"),
                (self.merged, "merged with others of their pair"),
            )
            if count
        ]
        return f"{self.rows:,} rows of data in {self.lines:,} lines ({', '.join(left) or 'no line skipped'})"

    @property
    def kept(self) -> int:
        """How many ratings there are in the end."""
        return self.rows - self.filtered - self.merged

    def less(self, *, filtered: int = 0, merged: int = 0) -> ReadCounts:
        """Return the counts after some rows were left out."""
        return replace(self, filtered=self.filtered + filtered, merged=self.merged + merged)

    @classmethod
    def of_rows(cls, n: int) -> ReadCounts:
        """Return the counts of a table of `n` rows."""
        return cls(lines=n, rows=n)

    @classmethod
    def total(cls, several: list[ReadCounts]) -> ReadCounts:
        """Return the sum over several files."""

        def add(one: ReadCounts, other: ReadCounts) -> ReadCounts:
            return cls(*(a + b for a, b in zip(vars(one).values(), vars(other).values(), strict=True)))

        return reduce(add, several)
