"""Text and JSON files whose rows are known, written in many ways and damaged, then read.

    python benchmarks/fuzz_readers.py                        # 10,000 files, a seed from the clock
    python benchmarks/fuzz_readers.py --files 500 --seed 7

The rows are drawn first and written in a dialect (delimiter, quotes, blanks, line ends, encoding). Then the
file is left alone, damaged in a way whose outcome is known, or a few bytes are flipped, cut or put in. What
is read is compared with the rows as they were drawn, never with another parser. Counted: files read, files
refused with the project's own error, foreign exceptions (there must be none), and silent losses (neither): a
row of a line that nothing touched is missing, or a line is not accounted for.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from pyro_bmf.data import DataWarning, load_ratings
from pyro_bmf.errors import DataError

Row = tuple[str, str, float]
DELIMITERS = {"csv": ",", "tsv": "\t", "::": "::", "semicolon": ";", "pipe": "|"}
SUFFIXES = {"csv": "csv", "tsv": "tsv", "::": "dat", "semicolon": "csv", "pipe": "txt", "jsonl": "jsonl"}
LETTERS = "abcXYZ019_-.#'é\u4e2d\U0001f600"
ENCODINGS = {"utf-8": b"", "utf-8-sig": b"", "utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}


@dataclass
class File:
    """A file and what is known of it.

    Attributes
    ----------
    rows
        What each line of data says, in order.
    lines
        The text of each line, without its end; the header and blank lines too.
    row_of
        For each line the row that it holds, None for other lines.
    options
        How to read it.
    must
        ``"read"``, ``"refuse"``, or ``"either"``: read without a loss, or refused.
    named
        The line that a refusal must name, if any.
    """

    format: str
    rows: list[Row]
    lines: list[str]
    row_of: list[int | None]
    end: str
    encoding: str
    options: dict[str, object]
    what: str = "nothing"
    must: str = "read"
    named: int | None = None
    touched: set[int] = field(default_factory=set)
    content: bytes = b""
    commas: bool = False
    extra: bool = False

    @property
    def quoted(self) -> bool:
        """Whether quotes quote."""
        return self.options.get("quoting", "csv" if self.format == "csv" else "none") == "csv"


def draw(rng: random.Random) -> File:
    """Draw rows and write them, in a way that must be read."""
    format = rng.choice(["csv", "csv", "tsv", "::", "semicolon", "pipe", "jsonl"])
    rows = _rows(rng, format)
    if format == "jsonl":
        return _json(rng, rows)
    delimiter = DELIMITERS[format]
    quoting = rng.choice([None, None, "csv", "none"])
    quoted = quoting == "csv" or (quoting is None and format == "csv")
    header = rng.random() < 0.7
    extra = rng.random() < 0.5
    commas = format == "semicolon" and rng.random() < 0.4
    if not quoted:
        rows = [(_plain(u, delimiter), _plain(i, delimiter), r) for u, i, r in rows]
        rows = list({row[:2]: row for row in rows}.values())
    lines, row_of = [], []
    if format == "semicolon" and rng.random() < 0.2:
        lines.append("sep=;")
        row_of.append(None)
    if header:
        lines.append(delimiter.join(["user", "item", "rating", *(["review"] if extra else [])]))
        row_of.append(None)
    pad = rng.random() < 0.3
    ends_inside = extra and quoted and rng.random() < 0.4
    for index, (user, item, rating) in enumerate(rows):
        number = f"{rating:g}".replace(".", "," if commas else ".")
        fields = [_field(rng, text, delimiter, quoted, pad) for text in (user, item)] + [number]
        if quoted and rng.random() < 0.1:
            fields[2] = f'"{number}"'
        if extra:
            text = "".join(rng.choice(LETTERS + " ,;|") for _ in range(rng.randrange(9)))
            if ends_inside and rng.random() < 0.5:
                text = f'"{text}\n\nline "" two, and more"'
            else:
                text = _field(rng, text if quoted else _plain(text, delimiter), delimiter, quoted, False)
            fields.append(text)
        lines.append(delimiter.join(fields))
        row_of.append(index)
    while rng.random() < 0.3:
        place = rng.randrange(len(lines) + 1)
        lines.insert(place, rng.choice(["", "", "  ", "\t" if format != "tsv" else ""]))
        row_of.insert(place, None)
    options: dict[str, object] = {"format": format, "header": header, "scale": "0.5:5:0.5"}
    if not header:
        options["columns"] = (0, 1, 2)
    if quoting is not None:
        options["quoting"] = quoting
    end = rng.choice(["\n", "\n", "\r\n", "\r"])
    return File(
        format, rows, lines, row_of, end, rng.choice(list(ENCODINGS)), options,
        commas=commas, extra=extra,
    )  # fmt: skip


def _rows(rng: random.Random, format: str) -> list[Row]:
    def pool(count: int) -> list[str]:
        kind = rng.choice(["numbers", "plain", "odd"])
        if kind == "numbers":
            return [str(rng.choice([k, 10**18 + k, 10**20 + k, -k - 1])) for k in range(count)]
        texts = set()
        while len(texts) < count:
            letters = LETTERS if kind == "plain" else LETTERS + ' ",;|:'
            text = "".join(rng.choice(letters) for _ in range(rng.randint(1, 7))).strip()
            if text:
                texts.add(text)
        return sorted(texts)

    users, items = pool(rng.randint(2, 8)), pool(rng.randint(2, 8))
    pairs = [(u, i) for u in dict.fromkeys(users) for i in dict.fromkeys(items)]
    rng.shuffle(pairs)
    chosen = pairs[: rng.randint(4, 30)]
    chosen += [pairs[k] for k in range(len(pairs)) if len(chosen) < 2]
    if len({u for u, _ in chosen}) < 2 or len({i for _, i in chosen}) < 2:
        chosen = pairs
    return [(u, i, rng.randint(1, 10) / 2) for u, i in chosen]


def _plain(text: str, delimiter: str) -> str:
    """Return a text that can stand in a line without quotes, whatever stands around it."""
    text = text.replace(delimiter, "_").strip()
    return (text.strip(": ") if delimiter == "::" else text) or "_"


def _field(rng: random.Random, text: str, delimiter: str, quoted: bool, pad: bool) -> str:
    needed = delimiter[0] in text  # of two colons, too: another may stand beside one
    if quoted and (needed or text.startswith('"') or text != text.strip() or rng.random() < 0.2):
        text = '"' + text.replace('"', '""') + '"'
    return f"{rng.choice(['', ' ', '  '])}{text}{rng.choice(['', ' '])}" if pad else text


def _json(rng: random.Random, rows: list[Row]) -> File:
    lines, row_of = [], []
    whole = all(re.fullmatch("-?(0|[1-9][0-9]{0,17})", text) for row in rows for text in row[:2])
    for index, (user, item, rating) in enumerate(rows):
        record: dict[str, object] = {
            "user": int(user) if whole else user,
            "item": int(item) if whole else item,
            "rating": rating,
        }
        if rng.random() < 0.3:
            record["more"] = [{"a": [None, "x" * rng.randrange(5)]}]
        keys = list(record)
        rng.shuffle(keys) if index else None
        lines.append(json.dumps({key: record[key] for key in keys}, ensure_ascii=rng.random() < 0.5))
        row_of.append(index)
    if rng.random() < 0.3:
        place = rng.randrange(len(lines) + 1)
        lines.insert(place, "")
        row_of.insert(place, None)
    options: dict[str, object] = {"scale": "0.5:5:0.5", "columns": ("user", "item", "rating")}
    return File(
        "jsonl", rows, lines, row_of, rng.choice(["\n", "\r\n"]), rng.choice(list(ENCODINGS)), options
    )


# --- damage -------------------------------------------------------------------------------------------------


def damage(rng: random.Random, file: File) -> File:
    """Leave the file alone, or damage it; the content is written here."""
    kind = rng.choice(["nothing", "line", "line", "bytes", "bytes"])
    if kind == "line":
        _damage_line(rng, file)
    text = file.end.join(file.lines) + (file.end if rng.random() < 0.8 else "")
    file.content = ENCODINGS[file.encoding] + text.encode(file.encoding)
    if kind == "bytes":
        _damage_bytes(rng, file)
    return file


def _line_number(file: File, index: int) -> int:
    """Return the line of the file on which a record begins: those before may hold line ends."""
    return 1 + sum(line.count("\n") + 1 for line in file.lines[:index])


def _damage_line(rng: random.Random, file: File) -> None:
    index = rng.choice([k for k, row in enumerate(file.row_of) if row is not None])
    row = file.row_of[index]
    assert row is not None
    line, number = file.lines[index], _line_number(file, index)
    file.touched = {row}
    if file.format == "jsonl":
        file.what = what = rng.choice(["no object", "rating", "cut", "large", "surrogate", "deep"])
        record = json.loads(line)
        file.lines[index] = {
            "no object": "[1, 2]",
            "rating": json.dumps(record | {"rating": "good"}),
            "cut": line[: rng.randrange(1, len(line))],
            "large": json.dumps(record | {"user": 10**30}),
            "surrogate": json.dumps(record | {"item": "x"}).replace('"x"', '"\\ud800"'),
            "deep": json.dumps(record | {"user": 0}).replace(
                '"user": 0', '"user": ' + "[" * 2000 + "]" * 2000
            ),
        }[what]
        file.must, file.named = "refuse", number
        return
    delimiter = DELIMITERS[file.format]
    user, item, rating = file.rows[row]
    fields = [_quote(text) if file.quoted else text for text in (user, item)]
    fields.append(f"{rating:g}".replace(".", "," if file.commas else "."))
    extra = file.extra
    fields += ["text"] * extra
    what = rng.choice(["rating", "fewer", "more", "empty", "stray", "behind", "ended", "open", "stray text"])
    first = row == 0 and not file.options["header"]
    file.what, file.must = what, "refuse"
    # The first line tells how many fields there are: if it is wrong, another is named.
    file.named = None if first and what in ("fewer", "more") else number
    if what == "rating":
        fields[2] = rng.choice(["good", "nan", "1_0", "5 5", "0x4", "--3", ""])
    elif what == "fewer":
        fields.pop()
    elif what == "more":
        fields.append("1")
    elif what == "empty":
        fields[rng.randrange(2)] = rng.choice(["", " "])
    elif what == "stray":
        fields[0] = ('"' + user.replace('"', "").replace(delimiter, "_")).strip()
        if not file.quoted:
            file.must, file.named = "read", None
            file.rows[row] = (fields[0], item, rating)
        else:
            # Quotes further on may close it: then this row is another, and no other row is.
            file.must, file.named = "either", None
    elif what == "stray text" and extra:
        fields[-1] = '"text'
        file.must, file.named = ("either" if file.quoted else "read"), None
    elif file.quoted and what == "behind":
        fields[rng.randrange(2)] = '"a" b'
    elif file.quoted and what == "ended":
        fields[rng.randrange(2)] = '"a\nb"'
    elif file.quoted and what == "open":
        fields[rng.randrange(2)] = '"a'
        file.must, file.named = "either", None
    else:
        file.what, file.must, file.named, file.touched = "nothing", "read", None, set()
        return
    file.lines[index] = delimiter.join(fields)


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _damage_bytes(rng: random.Random, file: File) -> None:
    """Flip, cut out, put in or cut off bytes; lines that they stand in are touched."""
    content = bytearray(file.content)
    file.must = "either"
    width = 2 if file.encoding.startswith("utf-16") else 1
    places = []
    kinds = rng.choice(["flip", "flip", "delete", "insert", "truncate"])
    file.what = kinds
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content))
        if kinds == "flip":
            content[place] ^= 1 << rng.randrange(8)
        elif kinds == "delete":
            del content[place : place + rng.randint(1, 4)]
        elif kinds == "insert":
            content[place:place] = rng.choice(
                [b'"', b",", b"\n", b"\0", b"\xff", b" ", b"\x00\x00", b'""', b";"]
            )
        else:
            del content[place:]
        places.append(place)
        if not content:
            break
    file.content = bytes(content)
    # Whatever row begins within or just before the damage may have changed, or anything behind a cut.
    offset = len(ENCODINGS[file.encoding]) + (3 if file.encoding == "utf-8-sig" else 0)
    end = len(file.end.encode("utf-16-le" if width == 2 else "utf-8"))
    bare = "utf-8" if file.encoding == "utf-8-sig" else file.encoding
    low, high = min(places) - 12, max(places) + 12
    for line, row in zip(file.lines, file.row_of, strict=True):
        size = len(line.encode(bare)) + end
        if row is not None and offset <= high and offset + size >= low:
            file.touched.add(row)
        if row is not None and (kinds == "truncate" and offset + size >= low):
            file.touched.add(row)
        offset += size
    if width == 2 and kinds in ("delete", "insert"):
        # An odd number of bytes shifts all that follows.
        file.touched |= set(range(len(file.rows)))


# --- reading ------------------------------------------------------------------------------------------------


def check(file: File, folder: Path) -> tuple[str, str]:
    """Read the file and compare: ``read``, ``refused``, ``foreign``, ``loss`` or ``wrong``, and why."""
    path = folder / f"r.{SUFFIXES[file.format]}"
    path.write_bytes(file.content)
    options = dict(file.options)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DataWarning)
        try:
            made = load_ratings(path, **options)  # type: ignore[arg-type]
        except DataError as error:
            if file.must == "read":
                return "wrong", f"refused, but there is nothing wrong: {error}"
            if file.named is not None and not re.search(rf"\bline {file.named}\b", str(error)):
                return "wrong", f"the refusal does not name line {file.named}: {error}"
            return "refused", str(error)
        except Exception:
            return "foreign", traceback.format_exc()
    latin = any("latin-1" in str(warning.message) for warning in said)
    counts = made.counts
    assert counts is not None
    if counts.lines != counts.header + counts.blank + counts.quoted + counts.rows:
        return "loss", f"the counts do not add up: {counts}"
    if counts.kept != len(made) or counts.merged or counts.filtered:
        return "loss", f"{len(made)} ratings of {counts}"
    if file.must == "refuse":
        return "loss" if len(made) < len(file.rows) else "wrong", f"read in spite of: {file.what}; {counts}"
    users = [str(raw) for raw in made.user_vocabulary.raw(made.users).tolist()]
    items = [str(raw) for raw in made.item_vocabulary.raw(made.items).tolist()]
    found = set(zip(users, items, made.ratings.tolist(), strict=True))
    for index, (user, item, rating) in enumerate(file.rows):
        if index in file.touched and file.must == "either":
            continue
        if latin:
            user, item = (text.encode().decode("latin-1") for text in (user, item))
            user, item = user.strip(), item.strip()
        if (user, item, rating) not in found:
            return "loss", f"row {index} {(user, item, rating)!r} is missing of {sorted(found)!r}; {counts}"
    if file.must == "read":
        lines = sum(line.count("\n") + 1 for line in file.lines)
        if len(made) != len(file.rows) or counts.lines not in (lines, lines - 1):
            return "loss", f"{len(made)} of {len(file.rows)} rows, {counts.lines} of {lines} lines"
    return "read", ""


def main() -> int:
    """Fuzz, and print the counts as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--keep", type=Path, help="Folder for files that went wrong.")
    arguments = parser.parse_args()
    seed = time.time_ns() % 2**32 if arguments.seed is None else arguments.seed
    found: collections.Counter[str] = collections.Counter(read=0, refused=0, foreign=0, loss=0, wrong=0)
    by_damage: collections.Counter[str] = collections.Counter()
    started = time.perf_counter()
    shown = 0
    with tempfile.TemporaryDirectory() as name:
        for number in range(arguments.files):
            rng = random.Random(f"{seed}:{number}")
            file = damage(rng, draw(rng))
            outcome, why = check(file, Path(name))
            found[outcome] += 1
            by_damage[f"{file.what}: {outcome}"] += 1
            if outcome not in ("read", "refused"):
                if shown < 12:
                    print(
                        f"{seed}:{number} {file.format} {file.encoding} {file.what}: {outcome}: {why[:1500]}"
                    )
                shown += 1
                if arguments.keep is not None:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / f"{number}.{SUFFIXES[file.format]}").write_bytes(file.content)
            if sys.stderr.isatty() and number % 50 == 0:
                print(f"\r{number:,} of {arguments.files:,} files", end="", file=sys.stderr)
    print(
        json.dumps(
            {
                "seed": seed,
                "files": arguments.files,
                "seconds": round(time.perf_counter() - started, 1),
                **found,
                "by damage": dict(sorted(by_damage.items())),
            },
            indent=1,
        )
    )
    return int(found["foreign"] + found["loss"] + found["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
