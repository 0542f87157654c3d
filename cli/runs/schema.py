"""What the JSON files of a run folder hold: types and ranges, checked in one place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from pyro_bmf.errors import SavedFileError
from pyro_bmf.methods.setting import settings_of

from ..options import Reading, Splitting


def read_json(path: Path, schema: Callable[[], Any], remedy: str) -> dict[str, Any]:
    """Read a JSON object and check it whole against a schema.

    Parameters
    ----------
    path
    schema
        One of the functions of this module.
    remedy
        A sentence: what to do about a file that does not fit.

    Raises
    ------
    SavedFileError
        Naming the file and the place in it.
    """
    try:
        # Not by msgspec: a path may hold bytes that are no text, which only this reader lets through.
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise SavedFileError(f"{path} cannot be read ({error.strerror or error}). {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise SavedFileError(f"{path} is not JSON ({error}). {remedy}") from error
    check(content, schema(), str(path), remedy)
    result: dict[str, Any] = content
    return result


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def check(content: object, kind: Any, where: str, remedy: str) -> None:
    """Refuse content that is not of a type.

    Raises
    ------
    SavedFileError
        Naming the place.
    """
    import msgspec

    try:
        msgspec.convert(content, type=kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise SavedFileError(f"{where} is damaged ({error}). {remedy}") from error


@cache
def any_format() -> Any:
    """Return the type of what says which format a file has."""
    from typing import Annotated

    import msgspec

    return msgspec.defstruct(
        "file", [("format", str), ("format_version", Annotated[int, msgspec.Meta(ge=1)], 1)]
    )


@cache
def config() -> Any:
    """Return the type of config.json."""
    from typing import Annotated

    import msgspec

    positive = Annotated[int, msgspec.Meta(ge=1)]
    running = msgspec.defstruct(
        "running",
        [("device", str), ("threads", positive), ("deterministic", bool), ("checkpoint_every", positive)],
    )
    return msgspec.defstruct(
        "config",
        [
            ("format", str),
            ("format_version", positive),
            ("data", str | None),
            ("reading", _options(Reading)),
            ("splitting", _options(Splitting)),
            ("settings", dict[str, Any]),
            ("warm_start", str | None),
            ("refit", bool),
            ("running", running),
        ],
    )


@cache
def split() -> Any:
    """Return the type of split-hash.json."""
    from typing import Annotated

    import msgspec

    count = Annotated[int, msgspec.Meta(ge=0)]
    digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    entries: list[Any] = [
        ("hash", digest),
        ("n_test_seen_by_warm_start", count, 0),
        ("fit", digest | None, None),
    ]
    return msgspec.defstruct("split", entries)


@cache
def selection() -> Any:
    """Return the type of selection.json."""
    from typing import Annotated

    import msgspec

    positive = Annotated[int, msgspec.Meta(ge=1)]
    return msgspec.defstruct("selection", [("iterations", positive), ("history", list[dict[str, Any]])])


@cache
def calibration() -> Any:
    """Return the type of what ``calibrate`` writes, as far as it is gone on with."""
    import msgspec

    numbers = dict[str, list[float]]
    refit: Any = msgspec.defstruct("refit", [("ranks", numbers), ("errors", numbers), ("seconds", float)])
    return msgspec.defstruct("calibration", [("format", str), ("refits", dict[str, refit])])


def check_settings(settings: dict[str, Any], where: str, remedy: str) -> None:
    """Refuse settings of other types than those of the classes.

    Raises
    ------
    SavedFileError
        Naming the place.
    """
    from typing import Annotated

    import msgspec

    from pyro_bmf.methods.cross_feedback.settings import CrossFeedback, EncoderSettings
    from pyro_bmf.methods.gibbs.settings import Gibbs
    from pyro_bmf.methods.model_settings import ModelSettings
    from pyro_bmf.methods.settings import METHODS

    def word(*known: str) -> Any:
        return Annotated[str, msgspec.Meta(pattern=f"^({'|'.join(known)})$")]

    def part(kind: type, *more: Any) -> Any:
        # The values' ranges are the settings' own to check: here are their types.
        hints = get_type_hints(kind)
        entries = [(one.name, hints[one.name], None) for one in settings_of(kind)]
        return msgspec.defstruct(kind.__name__, [*entries, *more])

    # A part of which nothing was read is not there.
    more: dict[Any, list[Any]] = {
        ModelSettings: [("in_rating_units", tuple[str, ...], ())],
        CrossFeedback: [("encoder", part(EncoderSettings), None)],
    }
    sections = {"model": ModelSettings, **METHODS}
    entries: list[Any] = [
        ("preset", str),
        ("method", word(*METHODS)),
        ("then", word(Gibbs.word) | None),
        ("seed", int),
        *((word.replace("-", "_"), part(kind, *more.get(kind, [])), None) for word, kind in sections.items()),
    ]
    known = msgspec.defstruct("settings", entries, rename="kebab")
    check(settings, known, f"{where}: settings", remedy)


def _options(kind: type[Reading] | type[Splitting]) -> Any:
    """Return the type of a dataclass of options as JSON holds it: a path is text."""
    import msgspec

    hints = get_type_hints(kind)
    return msgspec.defstruct(
        kind.__name__,
        [(f.name, str | None if Path in getattr(hints[f.name], "__args__", ()) else hints[f.name], None)
         for f in fields(kind)],
    )  # fmt: skip
