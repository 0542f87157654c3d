"""How a fit tells how it goes: a bar with loss, validation RMSE and time left, or nothing."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter(Protocol):
    """What `fit` tells while it runs."""

    def note(self, text: str) -> None:
        """Take a line that the user should read."""

    def start(self, n_iterations: int, n_blocks: int, done: int) -> None:
        """Be told how long the fit will be, and how many iterations are done already."""

    def block(self) -> None:
        """Be told that a block is done."""

    def iteration(self, record: dict[str, Any]) -> None:
        """Take an iteration's record of the history."""

    def close(self) -> None:
        """Be told that nothing more will come."""


def reporter_of(progress: bool | Reporter) -> Reporter:
    """Return a bar or nothing, as a flag asks; a reporter is returned as it is."""
    if isinstance(progress, bool):
        return Bar() if progress else Silent()
    return progress


class Silent:
    """Tells nothing."""

    def note(self, text: str) -> None:
        """Ignore a line."""

    def start(self, n_iterations: int, n_blocks: int, done: int) -> None:
        """Ignore the start."""

    def block(self) -> None:
        """Ignore a block."""

    def iteration(self, record: dict[str, Any]) -> None:
        """Ignore a record."""

    def close(self) -> None:
        """Ignore the end."""


class Bar:
    """A progress bar on standard error; where that is no terminal, a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress: Progress | None = None
        self._n_iterations = self._n_blocks = 0

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def start(self, n_iterations: int, n_blocks: int, done: int) -> None:
        """Show the bar."""
        self._n_iterations, self._n_blocks = n_iterations, n_blocks
        if not self._console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("[bold]fit"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("iterations"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=False,
        )
        self._task = self._progress.add_task("fit", total=n_iterations, completed=done, figures="")
        self._progress.start()

    def block(self) -> None:
        """Move the bar by one block."""
        if self._progress is not None:
            self._progress.advance(self._task, 1.0 / self._n_blocks)

    def iteration(self, record: dict[str, Any]) -> None:
        """Show an iteration's figures."""
        figures = f"loss {record['loss_per_rating']:.4f}" if "loss_per_rating" in record else "Gibbs sweep"
        if record.get("valid_rmse") is not None:
            figures += f"  valid RMSE {record['valid_rmse']:.4f}"
        if record.get("valid_ndcg") is not None:
            figures += f"  valid NDCG {record['valid_ndcg']:.4f}"
        done = record["iteration"]
        if self._progress is not None:
            self._progress.update(self._task, completed=done, figures=figures)
            return
        every = max(1, self._n_iterations // 10)
        if done % every == 0 or done in (1, self._n_iterations):
            left = (self._n_iterations - done) * record["seconds"]
            self.note(f"iteration {done}/{self._n_iterations}  {figures}  about {left:.0f} s left")

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
