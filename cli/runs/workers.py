"""Several processes that do one thing: each loads what it needs, and ends with the one that began it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from typing import Any

from pyro_bmf.errors import FitError

_PAUSE = 0.25  # seconds between two looks at what the workers have done


def threads_each(threads: int | None, jobs: int) -> int | None:
    """Return the threads of each of several processes: what was asked for, else a fair share of the cores."""
    if threads is not None or jobs == 1:
        return threads
    return max(1, (os.cpu_count() or 1) // jobs)


def run_workers(function: Callable[[Any], None], argument: Any, jobs: int, look: Callable[[], None]) -> None:
    """Call a function in so many processes at once, and wait for all.

    Parameters
    ----------
    function
        Of a module, so that another process can import it.
    argument
        What it is given; ratings are better loaded by each process than sent.
    jobs
    look
        Called now and then, and at the end.

    Raises
    ------
    Exception
        What one of them raised; the others are then stopped.
    """
    context = get_context("spawn")
    said: Any = context.SimpleQueue()
    processes = [
        context.Process(target=_work, args=(function, argument, said), daemon=True) for _ in range(jobs)
    ]
    try:
        for process in processes:
            process.start()
        left = list(processes)
        while left:
            connection.wait([process.sentinel for process in left], timeout=_PAUSE)
            look()
            if not said.empty():
                raise said.get()
            ended = [process for process in left if not process.is_alive()]
            left = [process for process in left if process not in ended]
            bad = [process.exitcode for process in ended if process.exitcode]
            if bad and said.empty():
                raise FitError(
                    f"A process ended with exit code {bad[0]} (a negative one is the signal that stopped it: "
                    "-9 may mean too little memory). The same command goes on; take fewer --jobs."
                )
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join()
    look()


def _work(function: Callable[[Any], None], argument: Any, said: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # What a worker would say, the process that began it has said already.
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    try:
        function(argument)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        with suppress(Exception):
            said.put(error)
            sys.exit(1)
        said.put(FitError(f"{type(error).__name__}: {error}"))
        sys.exit(1)


def _end_with_parent() -> None:
    """End this process when the one that began it is no more."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
