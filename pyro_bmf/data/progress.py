"""The download's progress bar, in the form that pooch calls."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn


class DownloadBar:
    """A bar on stderr; shows nothing where stderr is no terminal.

    pooch sets `total` and calls `update`, `reset` and `close`.
    """

    def __init__(self, text: str) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(text, total=None)
        self._progress.start()
        self.total: int = 0

    def update(self, n: int) -> None:
        """Count `n` more bytes."""
        self._progress.update(self._task, advance=n, total=self.total or None)

    def reset(self) -> None:
        """Start over (pooch does so once the file is whole)."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()
