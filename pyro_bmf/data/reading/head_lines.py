"""The first lines of a file, cut into fields leniently: what layouts are told from."""

from __future__ import annotations

import codecs
import io
import re

from ...errors import DataError
from .dialect import BLANKS, Dialect, NotUtf8Error, encoding_of
from .text import TextSource

_NUMBER = re.compile(r"\s*\"?[-+]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][-+]?[0-9]+)?\"?\s*\Z", re.ASCII)


def is_number(text: str) -> bool:
    """Tell whether a field is a plain decimal number, with a point or a comma."""
    return _NUMBER.match(text) is not None


def split_head(head: bytes, dialect: Dialect, whole: bool, limit: int = 100) -> list[list[str]]:
    """Cut the first lines of a file into fields, leniently: what is wrong shows when the file is read.

    Parameters
    ----------
    head
        The first bytes of the file.
    dialect
        How to cut.
    whole
        Whether these are all; else the last line may be cut short and is left out.
    limit
        Of records.
    """
    text = decoded(head)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not whole and len(lines) > 1:
        lines = lines[:-1]
    clean = "\n".join(line for line in lines if line.strip(" \t")) + "\n"
    mark = dialect.byte
    if len(dialect.delimiter) > 1:
        clean = clean.replace(dialect.delimiter, mark)
    records = clean
    if dialect.quoting and '"' in clean:
        source = TextSource(io.BytesIO, "", dialect)
        try:
            block, _, _ = source.within_quotes(clean.encode().replace(b"\0", b""), 0, 0)
            records = block.decode("utf-8", "surrogateescape")
        except (DataError, NotUtf8Error):
            pass
    rows = []
    for record in records.split("\n")[:limit]:
        if record:
            fields = record.split(mark) if mark else [record]
            rows.append([_field(field, dialect) for field in fields])
    return rows


def decoded(head: bytes) -> str:
    """Return the first bytes of a file as text; what cannot be decoded is taken for latin-1."""
    encoding, mark = encoding_of(head)
    try:
        return codecs.getincrementaldecoder(encoding)("strict").decode(head[mark:])
    except UnicodeError:
        return head[mark:].decode("latin-1")


def _field(text: str, dialect: Dialect) -> str:
    stripped = text.strip(" \t") if dialect.padded else text
    if dialect.quoting and len(stripped) > 1 and stripped[0] == stripped[-1] == '"':
        return stripped[1:-1].replace('""', '"').replace("\udcfe", dialect.delimiter).replace("\udcff", "\n")
    return text.strip(BLANKS) if dialect.padded else text
