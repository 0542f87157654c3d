"""The command line, called in this process."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from pyro_bmf.cli.main import root, run
from pyro_bmf.data.notices import DataNotice
from pyro_bmf.data.notices import DataWarning as ChecksumWarning


@dataclass(frozen=True)
class Outcome:
    """What a call of the command line gave."""

    code: int
    out: str
    err: str


#: What the fixture `cli` is.
Cli = Callable[..., Outcome]


def call(*arguments: object) -> Outcome:
    """Call the command line; its own notes are allowed, any other warning is an error."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("always", DataNotice)
        warnings.simplefilter("always", ChecksumWarning)
        code = run(root, [str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())
