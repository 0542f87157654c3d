"""Single options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any

import click

from .printing.option_groups import SEED, option


def threads_option(**keywords: Any) -> Callable[..., Any]:
    """Return the option of a command that fits, where `pyro_bmf.process.pick_threads` has the default."""
    help = "Threads of the CPU. [default: torch's, 1 for fits of a preset to fewer than 20,000 ratings]"
    return option("--threads", type=click.IntRange(1), metavar="N", help=help, **keywords)


_RUNNING = "Running"


@dataclass(frozen=True)
class Running:
    """How a fit runs, which decides nothing but its bits: what a run writes down as ``running``."""

    device: str
    threads: int | None
    deterministic: bool
    checkpoint_every: int


def running_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a click command the options of how a fit runs, and one argument `running`, a `Running`."""

    @option("--device", default="auto", metavar="auto|cpu|cuda", group=_RUNNING, help="Where to compute.")
    @threads_option(group=_RUNNING)
    @option(
        "--deterministic/--fast",
        default=True,
        group=_RUNNING,
        help="On CUDA, give the same bits at every run.",
    )
    @option(
        "--checkpoint-every",
        type=click.IntRange(1),
        default=10,
        metavar="N",
        group=_RUNNING,
        help="Iterations between checkpoints. [default: 10]",
    )
    @wraps(function)
    def with_running(*args: Any, **kwargs: Any) -> Any:
        taken = {field.name: kwargs.pop(field.name) for field in fields(Running)}
        return function(*args, running=Running(**taken), **kwargs)

    return with_running


#: Of everything that a command draws.
seed_option = click.option("--seed", type=SEED, default=0, show_default=True, metavar="S", help="Of draws.")

#: Where a run's ratings are now, of whatever kind.
moved_data_option = click.option(
    "--data",
    metavar="PATH",
    help="Where the run's ratings are now, if they have moved: the file, the written split, or the folder of "
    "given files. They must be the very ratings of the fit.",
)

#: Where a run's named set is now.
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that holds the named set, when it is not where it was during the fit.",
)


def by_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option of what items are ranked by."""
    return click.option(
        "--by",
        type=click.Choice(("liked", "rating", "chosen")),
        default="liked",
        show_default=True,
        help="What decides: chosen and liked, the predicted rating, or chosen alone.",
    )(function)


def threshold_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option of what counts as liked."""
    return click.option(
        "--threshold",
        type=float,
        metavar="R",
        help="Liked is a rating above R. [default: 3 on a scale that ends at 5, else its middle]",
    )(function)
