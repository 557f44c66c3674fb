"""What every command shares: errors on one line, a progress bar, and what was written.

A command looks like this:

    @app.command()
    @reports_errors
    def build(...) -> None:
        with progress() as report:
            ...; report("features", 3, 24)
        wrote(path, command("hfnet-map", "inspect", path))
"""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hfnet_edge.errors import HFNetEdgeError
from hfnet_edge.quiet import own_process

EXIT_ERROR = 2

Report = Callable[..., None]  # (what is being done, how many are done, how many there are, note="")

P = ParamSpec("P")
R = TypeVar("R")


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """A `Report` that shows nothing."""


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turns an `HFNetEdgeError` into ``error: problem; remedy`` on stderr and exit code 2. Anything else is a bug
    and keeps its traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except HFNetEdgeError as e:
            print(f"error: {' '.join(str(e).split())}", file=sys.stderr)
            raise SystemExit(EXIT_ERROR) from None

    return wrapped


def run(app: Any) -> None:
    """Runs a typer app: wrong options are one line on stderr too, and an interruption is no traceback."""
    import typer

    own_process()
    usage_error: Any = typer.BadParameter.__mro__[1]  # click's, which typer carries inside from 0.26 on
    try:
        code = app(standalone_mode=False)
    except usage_error as e:
        if type(e).__name__ == "NoArgsIsHelpError":
            e.show()
        else:
            print(f"error: {' '.join(e.format_message().split()).rstrip('.')}; see --help", file=sys.stderr)
        code = EXIT_ERROR
    except typer.Abort:
        print("stopped", file=sys.stderr)
        code = 130
    raise SystemExit(code if isinstance(code, int) else 0)


@contextmanager
def progress() -> Iterator[Report]:
    """Yields a `Report` that draws one bar per ``what`` on stderr where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int, note: str = "") -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, note=note)
            bars.update(tasks[what], completed=done, total=total, note=note)

        yield report


def size_text(size: int) -> str:
    """Bytes for people: ``812 B``, ``24.1 kB``, ``3.42 MB`` (powers of 1000, three digits)."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def command(*words: Path | str) -> str:
    """A command line that a shell takes as printed. What the reader has to fill in is a word in capitals: DIR, LIST."""
    return shlex.join(str(word) for word in words)


def wrote(path: Path | str, then: str = "") -> None:
    """Prints what was written, how big it is (a folder: its files together), and the next command to run."""
    path = Path(path)
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    print(f"wrote {path} ({size_text(sum(f.stat().st_size for f in files))})")
    if then:
        print(f"next: {then}")
