"""Text as a stream of clean lines: UTF-8, one record a line, whatever encoding, line ends and quotes it has.

A quoted field may hold delimiters and line ends. Within quotes both are replaced by bytes that no UTF-8 text
holds, so what comes out can be cut at line ends and delimiters by a parser that knows nothing of quotes, and
every line of the file is accounted for. All is done on whole blocks; nothing loops over lines.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from .dialect import (
    INNER_DELIMITER,
    INNER_END,
    INNER_RETURN,
    Dialect,
    LineCounts,
    MarkTakenError,
    NotUtf8Error,
    encoding_of,
)

_BLOCK = (1 << 22) - (1 << 16)  # with what waits from the block before, still one block of the parser
_QUOTE, _END, _SPACE, _TAB, _RETURN = b'"\n \t\r'
# Bytes of a plain number (1), digits among them (2); a blank is none: text has one after a comma.
_KINDS = np.zeros(256, np.uint8)
_KINDS[np.frombuffer(b'+-.,eE"', np.uint8)] = 1
_KINDS[ord("0") : ord("9") + 1] = 2
_BLANK_LINES = re.compile(rb"^[ \t]+$", re.MULTILINE)


class TextSource:
    """The clean lines of a file, as a stream of bytes that Arrow's readers take.

    Parameters
    ----------
    opener
        Opens the file's (unpacked) bytes.
    name
        What to call the file in messages.
    dialect
        How fields are told apart.
    encoding
        Its encoding; None tells it from the first bytes.
    skip
        Records at the beginning that `read` leaves out: the header, for one.
    shape
        Number of fields in a line, position of the rating; to see when a quote swallows ratings.
    """

    def __init__(
        self,
        opener: Callable[[], IO[bytes]],
        name: str,
        dialect: Dialect,
        *,
        encoding: str | None = None,
        skip: int = 0,
        shape: tuple[int, int] | None = None,
    ) -> None:
        self.opener, self.name, self.dialect, self.encoding = opener, name, dialect, encoding
        self.skip, self.shape = skip, shape
        self.counts = LineCounts()
        self.closed = False
        self._stream: Iterator[bytes] | None = None
        self._waiting = b""

    # --- what Arrow asks of a file ---

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def writable(self) -> bool:
        """Tell that it cannot be written."""
        return False

    def seekable(self) -> bool:
        """Tell that it is read once, from front to end."""
        return False

    def close(self) -> None:
        """Do nothing: the file is closed when its end is read."""
        self.closed = True

    def flush(self) -> None:
        """Do nothing."""

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes of clean text, b"" at the end."""
        if self._stream is None:
            self._stream = self._data()
        if size is None or size < 0:
            return self._waiting + b"".join(self._stream)
        while not self._waiting:
            block = next(self._stream, None)
            if block is None:
                return b""
            self._waiting = block
        taken, self._waiting = self._waiting[:size], self._waiting[size:]
        return taken

    # --- lines ---

    def _data(self) -> Iterator[bytes]:
        """Give the blocks without the records to skip."""
        left = self.skip
        for block in self.blocks():
            start = 0
            while left and start < len(block):
                end = block.index(b"\n", start)
                left -= end > start
                start = end + 1
            if start < len(block):
                yield block[start:] if start else block

    def place(self, row: int) -> str:
        """Tell the line of a row, as ``line 17 of r.csv``; it walks the file, so only an error calls it."""
        for first, lines, _, _ in self._records():
            if row + self.skip < first + len(lines):
                return f"line {int(lines[row + self.skip - first])} of {self.name}"
        return f"line ? of {self.name}"

    def other_shape(self, n_columns: int) -> tuple[int, int, bool] | None:
        """Return line and number of fields of the first record that has not `n_columns`; None if all have.

        And whether quotes stand in that line.
        """
        for first, lines, fields, quotes in self._records():
            wrong = np.flatnonzero(fields != n_columns)
            wrong = wrong[wrong + first >= self.skip]
            if len(wrong):
                return int(lines[wrong[0]]), int(fields[wrong[0]]), bool(quotes[wrong[0]])
        return None

    def _records(self) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
        """Give, block by block, the first record's number; each record's line, fields, whether quoted."""
        again = TextSource(self.opener, self.name, self.dialect, encoding=self.encoding)
        first, base = 0, 1
        for block in again.blocks():
            data = np.frombuffer(block, np.uint8)
            ends = np.flatnonzero(data == _END)
            starts = np.concatenate(([0], ends[:-1] + 1))
            breaks = np.flatnonzero((data == _END) | (data == INNER_END if self.dialect.quoting else False))
            lines = base + np.searchsorted(breaks, starts)
            delimiter = self.dialect.byte
            cuts = np.flatnonzero(data == ord(delimiter)) if delimiter else np.zeros(0, np.int64)
            fields = np.searchsorted(cuts, ends) - np.searchsorted(cuts, starts) + 1
            filled = ends > starts
            marks = np.flatnonzero(data == _QUOTE)
            quotes = np.searchsorted(marks, ends) > np.searchsorted(marks, starts)
            yield first, lines[filled], fields[filled], quotes[filled]
            first += int(filled.sum())
            base += len(breaks)

    def blocks(self) -> Iterator[bytes]:
        """Give clean text, block by block, each of whole records.

        Raises
        ------
        DataError
            For NULs in a row, and for what RFC 4180 (of quotes) or the encoding does not allow.
        NotUtf8Error, MarkTakenError
            See there.
        """
        self.counts = counts = LineCounts()
        opened, opening_line, pending = 0, 0, b""
        for chunk, last in self._chunks():
            # Line ends of Windows and of old Macs; a carriage return at the end waits for what follows.
            data = pending + chunk
            cut = len(data) if last else len(data) - data.endswith(b"\r")
            data, pending = data[:cut], data[cut:]
            if self.dialect.returns and b"\r" in data:
                data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if last:
                if data and not data.endswith(b"\n"):
                    data += b"\n"
            else:
                cut = data.rfind(b"\n") + 1
                data, pending = data[:cut], data[cut:] + pending
            if not data:
                continue
            nul = data.find(b"\0\0") if b"\0" in data else -1
            if nul >= 0:
                line = counts.lines + data.count(b"\n", 0, nul) + 1
                raise DataError(
                    f"line {line} of {self.name} holds a row of NUL bytes: it is damaged, or no text; "
                    "write it again as UTF-8"
                )
            # A line that begins with a blank (or a line end) may hold nothing else.
            array = np.frombuffer(data, np.uint8)
            odd_start = int(array[0]) <= _SPACE or bool(((array[:-1] == _END) & (array[1:] <= _SPACE)).any())
            if odd_start:
                data = _BLANK_LINES.sub(b"", data)
            if len(self.dialect.delimiter) > 1:
                if self.dialect.byte.encode() in data:
                    raise MarkTakenError
                data = data.replace(self.dialect.delimiter.encode(), self.dialect.byte.encode())
            lines = data.count(b"\n")
            if self.dialect.quoting and (opened or b'"' in data):
                data, opened, opening_line = self.within_quotes(data, opened, opening_line)
                counts.quoted += lines - data.count(b"\n")
            counts.lines += lines
            blank = 0
            if odd_start:
                array = np.frombuffer(data, np.uint8)
                blank = int(((array[1:] == _END) & (array[:-1] == _END)).sum()) + int(array[0] == _END)
            counts.blank += blank
            counts.records += data.count(b"\n") - blank
            yield data
        if opened:
            raise DataError(
                f"a quote opens in line {opening_line} of {self.name} and never closes: close it, or say "
                "quoting none (--quoting none) if quotes are characters there"
            )

    def _chunks(self) -> Iterator[tuple[bytes, bool]]:
        """Give the file as UTF-8, without a byte order mark, and whether a chunk is the last."""
        with self.opener() as file:
            data = file.read(_BLOCK)
            encoding, mark = encoding_of(data)
            if self.encoding is not None:
                encoding = self.encoding
            decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)("strict")
            data, done = data[mark:], 0
            while True:
                following = file.read(_BLOCK)
                if decoder is not None:
                    try:
                        data = decoder.decode(data, final=not following).encode("utf-8")
                    except UnicodeError as error:
                        if isinstance(error, UnicodeDecodeError):
                            before = error.object[: error.start].decode(encoding, "ignore")
                            done += before.count("\n") or before.count("\r")
                        raise DataError(
                            f"{self.name} is {encoding.upper()} by its first bytes, and not so in line "
                            f"{done + 1} ({error.reason if isinstance(error, UnicodeDecodeError) else error})"
                            ": it is damaged; write it again as UTF-8"
                        ) from None
                done += data.count(b"\n")
                yield data, not following
                if not following:
                    return
                data = following

    def within_quotes(self, data: bytes, opened: int, opening_line: int) -> tuple[bytes, int, int]:
        """Replace delimiters and line ends within quotes; `data` begins with a line (in a field if opened).

        Quotes are looked at in runs. In an unquoted field they are characters. A run of odd length at a
        field's start opens it; within a quoted field a run of odd length closes it, and one of even length is
        quotes of the text. So the state after a run is the parity of the runs of odd length at a start since
        the last one of odd length elsewhere, which closes in any case.
        """
        array = np.frombuffer(data, np.uint8).copy()
        if len(array) and int(array.max()) >= INNER_RETURN:
            raise NotUtf8Error
        base = self.counts.lines + 1
        is_end, is_cut = array == _END, array == ord(self.dialect.byte)
        quotes = np.flatnonzero(array == _QUOTE)
        first = np.flatnonzero(np.diff(quotes, prepend=-2) != 1)
        starts = quotes[first]
        lengths = np.diff(first, append=len(quotes))
        stops = starts + lengths
        odd = (lengths & 1).astype(bool)
        begins, closes = self._at_edges(array, starts, stops)
        elsewhere = odd & ~begins
        toggles = np.cumsum(odd & begins, dtype=np.int32)
        resets = np.maximum.accumulate(np.where(elsewhere, toggles, -1))  # how many there were until then
        after = ((toggles - np.where(resets >= 0, resets, -opened)) & 1).astype(bool)
        before = np.concatenate(([bool(opened)], after[:-1])) if len(after) else after
        wrong = ~closes & ((before & odd) | (begins & ~before & ~odd))
        if bool(wrong.any()):
            line = base + int(np.count_nonzero(is_end[: stops[np.argmax(wrong)]]))
            raise DataError(
                f"line {line} of {self.name} has text after a closing quote: double the quotes within a "
                "quoted field, or say quoting none (--quoting none) if quotes are characters there"
            )
        openings = starts[after & ~before]
        turns = starts[after != before]  # a field opens, then it closes, and so on
        stretches = np.diff(np.concatenate(([0], turns, [len(array)])))
        within = np.repeat((np.arange(len(stretches)) + opened) % 2 == 1, stretches)
        inner = is_end & within
        if bool(inner.any()):
            ends = np.flatnonzero(is_end)
            self._refuse_swallowed(
                array, ends, np.flatnonzero(is_cut), inner[ends], base, opening_line if opened else None
            )
            array[inner] = INNER_END
        np.putmask(array, is_cut & within, INNER_DELIMITER)
        if not self.dialect.returns:
            np.putmask(array, (array == _RETURN) & within, INNER_RETURN)
        still = bool(after[-1]) if len(after) else bool(opened)
        if still and len(openings):
            opening_line = base + int(np.count_nonzero(is_end[: openings[-1]]))
        return array.tobytes(), int(still), opening_line

    def _at_edges(
        self, array: NDArray[np.uint8], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Tell which runs of quotes stand at the start of a field, and which at its end."""
        delimiter = ord(self.dialect.byte)
        previous, following = starts - 1, stops
        if self.dialect.padded:
            previous = _past_blanks(array, previous, -1, delimiter)
            following = _past_blanks(array, following, 1, delimiter)
        before = np.where(previous >= 0, array[previous], _END)
        behind = array[following]
        begins = (before == delimiter) | (before == _END)
        closes = (behind == delimiter) | (behind == _END)
        return begins, closes

    def _refuse_swallowed(
        self,
        array: NDArray[np.uint8],
        ends: NDArray[np.int64],
        cuts: NDArray[np.int64],
        inner: NDArray[np.bool_],
        base: int,
        opening_line: int | None,
    ) -> None:
        """Refuse a quoted field most of whose lines are ratings by their looks: its quote was a character."""
        if self.shape is None:
            return
        n_columns, position = self.shape
        line_starts = np.concatenate(([0], ends[:-1] + 1))
        within = np.concatenate(
            ([opening_line is not None], inner[:-1])
        )  # lines that begin in a quoted field
        record = np.cumsum(~within)  # a number for each record, also for one that began in the block before
        first_cut = np.searchsorted(cuts, line_starts)
        whole = np.searchsorted(cuts, ends) - first_cut >= n_columns - 1
        bounds = np.concatenate(([-1], cuts, ends[-1:]))  # where the fields of a whole line lie
        begin = np.where(whole, bounds[np.where(whole, first_cut + position, 0)] + 1, 0)
        if position == 0:
            begin = np.where(whole, line_starts, 0)
        stop = np.where(whole, np.minimum(bounds[np.where(whole, first_cut + position + 1, 0)], ends), 0)
        kinds = _KINDS[array]
        if bool((array[begin[whole & ~within]] == _SPACE).any()):
            kinds[array == _SPACE] = 1  # this file has blanks after its delimiters
        numeric, digit = (np.concatenate(([0], np.cumsum(kinds >= kind))) for kind in (1, 2))
        number = whole & (digit[stop] > digit[begin])
        number &= numeric[stop] - numeric[begin] == stop - begin
        # A quote that is a character stands in a line that is a rating itself, unlike text that comes first.
        opens = np.flatnonzero(np.diff(record, prepend=record[0] - 1))
        number &= (number | within)[opens][record - record[0]]
        filled = ends > line_starts
        counts = np.bincount(record, weights=within & filled)
        alike = np.bincount(record, weights=within & number)
        self.counts.doubtful += int(alike.sum())
        bad = np.flatnonzero((alike > 0) & (alike > 0.5 * counts))
        if len(bad):
            start = int(np.argmax(record == bad[0]))
            line = opening_line if within[start] and opening_line else base + start
            raise DataError(
                f"a quoted field that begins in line {line} of {self.name} holds the following "
                f"{int(counts[bad[0]]):,} line(s), of which {int(alike[bad[0]]):,} look like ratings: close "
                "the quote, or say quoting none (--quoting none) if quotes are characters there"
            )


def _past_blanks(
    array: NDArray[np.uint8], positions: NDArray[np.int64], step: int, delimiter: int
) -> NDArray[np.int64]:
    """Move positions that stand on a blank to the next byte that is none; -1 is before the first."""
    moved = positions
    for _ in range(8):
        found = array[moved]
        blank = ((found == _SPACE) | (found == _TAB)) & (found != delimiter) & (moved >= 0)
        if not bool(blank.any()):
            return moved
        moved = np.where(blank, moved + step, moved)
    # Many blanks: look them all up.
    solid = np.flatnonzero(((array != _SPACE) & (array != _TAB)) | (array == delimiter))
    if step > 0:
        return np.asarray(solid[np.searchsorted(solid, moved)])
    index = np.searchsorted(solid, moved, side="right") - 1
    return np.where(index >= 0, solid[index], -1)
