"""How text is written: its encoding, its delimiter and quotes, and what stands for them in clean lines."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

#: What stands for a carriage return (that ends no line), a delimiter and a line end within quotes.
INNER_RETURN, INNER_DELIMITER, INNER_END = 0xFD, 0xFE, 0xFF
#: Blanks around fields: white space of Unicode, blanks of no width, and the byte order mark that joined
#: files leave within.
BLANKS = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008"
    "\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff\u200b\u2060\u180e"
)
# Marks that the encodings of Unicode begin with; UTF-32's holds UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"),
)  # fmt: skip


class NotUtf8Error(Exception):
    """Text that was taken for UTF-8 is none; whoever reads it decides what to do."""


class MarkTakenError(Exception):
    """The byte that was to stand for a delimiter of several characters stands in the file itself."""


@dataclass(frozen=True)
class Dialect:
    """How fields of a line are told apart.

    Attributes
    ----------
    delimiter
        What stands between fields; "" where lines are not cut into fields.
    quoting
        Whether ``"`` quotes a field as RFC 4180 says; else it is a character as any other.
    mark
        The one byte that stands for a delimiter of several characters.
    padded
        Whether blanks may stand between a quote and the delimiter.
    returns
        Whether a carriage return ends a line, as it does but in this software's own files.
    """

    delimiter: str
    quoting: bool = False
    mark: str = "\x1f"
    padded: bool = True
    returns: bool = True

    @property
    def byte(self) -> str:
        """The delimiter in the clean stream, one byte."""
        return self.mark if len(self.delimiter) > 1 else self.delimiter


@dataclass
class LineCounts:
    """How the lines of a file were used.

    Attributes
    ----------
    lines
        All lines of the file.
    blank
        Lines that hold nothing but blanks.
    quoted
        Line ends within quoted fields.
    records
        The rest: a header, and lines of data.
    doubtful
        Lines within quoted fields that look like ratings.
    """

    lines: int = 0
    blank: int = 0
    quoted: int = 0
    records: int = 0
    doubtful: int = 0


def encoding_of(head: bytes) -> tuple[str, int]:
    """Tell the encoding of text from its first bytes, and how many of them mark it.

    Without a mark, UTF-16 is told by the NULs that it puts beside every character of ASCII.
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    start = head[:4096]
    even, odd = start[0::2], start[1::2]
    if len(odd) >= 4 and odd.count(0) > 0.6 * len(odd) and even.count(0) < 0.1 * len(even):
        return "utf-16-le", 0
    if len(even) >= 4 and even.count(0) > 0.6 * len(even) and odd.count(0) < 0.1 * len(odd):
        return "utf-16-be", 0
    return "utf-8", 0
