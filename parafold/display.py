"""What the terminal shows: a live progress bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

if TYPE_CHECKING:
    from parafold.fold import Outcome
    from parafold.msa import Progress as SearchProgress


def complain(message: str) -> None:
    """One line to stderr."""
    typer.echo(f"parafold: {' '.join(message.split())}", err=True)


def warn(console: Console, message: str) -> None:
    """A warning nobody overlooks."""
    if console.is_terminal:
        console.print(Panel(escape(message), title="Warning", border_style="bold red", style="bold"))
    else:
        typer.echo(f"WARNING: {message}")


@contextmanager
def byte_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar over bytes, on a terminal only; yields what to call with bytes done and bytes in all."""
    console = Console()
    columns = (
        TextColumn(escape(what)),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class SearchDisplay:
    """Progress of a search, as a context manager.

    On a terminal a bar for each database and one for all, with the time left. Elsewhere a line for every
    tenth of the work.
    """

    def __init__(self, console: Console):
        self._console = console
        self._last = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "SearchDisplay":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, progress: "SearchProgress") -> None:
        """Show how far it has come."""
        queries = f"{progress.queries_done} of {progress.queries} queries"
        if not self._console.is_terminal:
            line = f"{progress.doing}, {int(progress.fraction * 10)}0%"
            if line != self._last and progress.doing != "merging":
                self._last = line
                left = f", {progress.time_left}" if progress.time_left else ""
                typer.echo(f"{line}{left}")
            return
        for name, fraction in progress.databases.items():
            self._show(name, fraction, "")
        self._show(progress.doing, progress.fraction, f"{queries}  {progress.time_left}", "all")

    def say(self, message: str) -> None:
        """A line that stays."""
        self._console.print(message, markup=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """A line to stderr that stays."""
        complain(message)

    def _show(self, name: str, fraction: float, detail: str, key: str = "") -> None:
        key = key or name
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(name, total=1.0, detail="")
        self._bar.update(self._tasks[key], description=escape(name), completed=fraction, detail=detail)


def in_bytes(count: float) -> str:
    """A number of bytes for people: 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Display:
    """Progress over the targets, as a context manager.

    On a terminal, one bar with the current step. Elsewhere each new step is a line; how far a step has come
    (what stands after its last comma) makes no new line.
    """

    def __init__(self, console: Console, total: int):
        self._console = console
        self._last = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, message: str) -> None:
        """Show the step that now begins or goes on."""
        if self._console.is_terminal:
            self._bar.update(self._task, description=escape(message))
            return
        step = message.rpartition(", ")[0] if message.endswith(("%", "left)")) else message
        if step != self._last:
            self._last = step
            typer.echo(step)

    def finished(self, outcome: "Outcome") -> None:
        """Show how a target ended; failures go to stderr."""
        self._bar.advance(self._task)
        if outcome.status == "failed":
            complain(f"{outcome.name}: {outcome.reason}")
            return
        best = outcome.best
        assert best is not None
        scores = f"mean pLDDT {best.mean_plddt:.1f}"
        for score, value in (("pTM", best.ptm), ("ipTM", best.iptm)):
            if value is not None:
                scores += f", {score} {value:.2f}"
        state = "" if outcome.status == "folded" else " (complete already)"
        self._print(f"{outcome.name}: {scores}, best of {outcome.num_predictions} by {best.label}{state}")
        self._print(f"  {outcome.folder / 'ranked_0.cif'}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)
