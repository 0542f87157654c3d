"""The fenced blocks and the inline code of a page of the documentation, and what each is there for.

Every block is accounted for. ``python`` blocks run. ``sh`` blocks run where they call pyro-bmf, and are
parsed where they call anything else, or where the line above says why they cannot run in a test::

    <!-- parsed: takes twenty fits -->

``text`` blocks are what the block above them printed, and are compared with it, unless the line above says
where they come from::

    <!-- excerpt: of a run on MovieLens 100K -->
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^[ ]*<!-- (?P<mark>[a-z]+): (?P<why>[^>]+?) -->\n)?"
    r"^(?P<indent>[ ]*)```(?P<language>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)
_NUMBER = re.compile(r"(?<![A-Za-z_.\d])-?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
MARKS = {"parsed": "sh", "excerpt": "text"}


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes
    ----------
    language, text
        As they stand in the page.
    mark, why
        Of the comment above it; empty without one.
    line
        Where the fence opens, from 1.
    start, end
        Where the text stands in the page.
    follows
        The language of the block directly above, with no prose between the two; empty without one.
    """

    language: str
    text: str
    mark: str
    why: str
    line: int
    start: int
    end: int
    follows: str

    @property
    def is_output(self) -> bool:
        """Whether it is what the block above printed."""
        return self.language == "text" and self.mark == "" and self.follows in ("python", "sh")


def blocks(page: str) -> list[Block]:
    """Return a page's blocks, in their order."""
    found: list[Block] = []
    behind = 0
    for match in _BLOCK.finditer(page):
        directly = found and not page[behind : match.start()].strip()
        found.append(
            Block(
                language=match["language"].strip(),
                text=match["text"],
                mark=match["mark"] or "",
                why=match["why"] or "",
                line=page.count("\n", 0, match.start("indent")) + 1,
                start=match.start("text"),
                end=match.end("text"),
                follows=found[-1].language if directly else "",
            )
        )
        behind = match.end()
    return found


def unaccounted(page: Path) -> list[str]:
    """Return what is wrong with a page's blocks: those that nothing runs, compares or explains."""
    text = page.read_text(encoding="utf-8")
    found = []
    for block in blocks(text):
        where = f"{page.name}:{block.line}"
        if block.language not in ("python", "sh", "text"):
            found.append(f"{where}: nothing runs a block of {block.language or 'no language'}")
        elif block.mark and MARKS.get(block.mark) != block.language:
            found.append(f"{where}: a {block.language} block cannot be marked {block.mark!r}")
        elif block.language == "text" and not block.mark and not block.is_output:
            found.append(f"{where}: no block above printed this text, and it is not marked as an excerpt")
    fences = len(re.findall(r"^ *```", text, re.M))
    if fences != 2 * len(blocks(text)):
        found.append(f"{page.name}: {fences} fences make {len(blocks(text))} blocks")
    return found


def words_of(text: str) -> list[str]:
    """Return a text's lines with numbers masked and blanks narrowed, without empty lines."""
    lines = (" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines())
    return [line for line in lines if line]


def inline_code(page: str) -> list[str]:
    """Return the code within the prose of a page, without the tables that are written from measurements."""
    prose = re.sub(r"<!-- table:.*?<!-- end of table -->", "", _BLOCK.sub("", page), flags=re.S)
    return [found.replace("\n", " ") for found in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
