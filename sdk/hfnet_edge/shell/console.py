"""Every command shares what is here: errors on one line, `--version`, progress, an output that may break, and what was
written.

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
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

from hfnet_edge.errors import HFNetEdgeError, OutputError
from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.quiet import own_process

EXIT_ERROR = 2
INTERRUPTED = 130
EVERY = 10.0  # seconds to a line of progress, and between two, where there is no terminal
LONGEST = 4000  # characters of an error's line: what it quotes of a file may have no end

Report = Callable[..., None]  # (what is being done, how many are done, how many there are, note="")

P = ParamSpec("P")
R = TypeVar("R")


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """A `Report` that shows nothing."""


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turns an `HFNetEdgeError` into ``error: problem; remedy`` on stderr and exit code 2, and Ctrl-C into ``stopped``
    and 130. Anything else is a bug and keeps its traceback. What the command prints, others' names in it too, cannot
    steer the terminal."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with printable_output():
                return command(*args, **kwargs)
        except HFNetEdgeError as e:
            say(error_line(e))
            raise SystemExit(EXIT_ERROR) from None
        except KeyboardInterrupt:
            say("stopped")
            raise SystemExit(INTERRUPTED) from None

    return wrapped


def say(line: str) -> None:
    """Prints a line on stderr; where that is closed or full, nowhere."""
    with suppress(OSError):
        print(printable(line), file=sys.stderr, flush=True)


def error_line(error: HFNetEdgeError) -> str:
    """``error: problem; remedy``, without what would steer a terminal."""
    line = " ".join(str(error).split())
    return printable(f"error: {line if len(line) <= LONGEST else line[:LONGEST] + ' ...'}")


class PrintableOutput:
    """stdout or stderr that makes all text `printable`, tabs and ends of lines apart.

    Attributes:
        plain: the file behind it, for rich, which makes its own text printable before it adds styles.
    """

    def __init__(self, file: TextIO):
        self.plain: TextIO = getattr(file, "plain", file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)

    def write(self, text: str) -> int:
        text = printable(text, "\n\t")
        try:
            self.plain.write(text)
        except UnicodeEncodeError:  # of a terminal that has not all letters
            coding = self.plain.encoding or "ascii"
            self.plain.write(text.encode(coding, "backslashreplace").decode(coding))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)


@contextmanager
def printable_output() -> Iterator[None]:
    """All that is printed goes through `PrintableOutput`."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(PrintableOutput(sys.stdout)))  # type: ignore[type-var]
        stack.enter_context(redirect_stderr(PrintableOutput(sys.stderr)))  # type: ignore[type-var]
        yield


def run(app: Any, given: Any = None) -> None:
    """Runs a typer app, with `--version` besides its own options. Wrong options, and an output that is full or closed,
    are one line on stderr too, and an interruption is no traceback. Exits with 0, with the command's own code, with 2
    or with 130.

    Args:
        given: what its commands find in their context, as ``obj``.
    """
    own_process()
    plain = sys.stdout
    sys.stdout = stdout = _CheckedOutput(plain)  # type: ignore[assignment]
    try:
        code = _exit_code(app, given)
        if not stdout.broken:  # else it has been said
            stdout.flush()
    except OutputError as e:
        say(f"error: {e}")
        code = EXIT_ERROR
    finally:
        sys.stdout = plain
        _let_go(plain, 1)
        _let_go(sys.stderr, 2)
    raise SystemExit(code)


def _exit_code(app: Any, given: Any) -> int:
    import typer

    usage_error: Any = typer.BadParameter.__mro__[1]  # click's, which typer carries inside from 0.26 on
    try:
        code = _with_version(app)(standalone_mode=False, obj=given)
    except SystemExit as e:
        code = e.code
    except usage_error as e:
        if type(e).__name__ == "NoArgsIsHelpError":
            e.show()
        else:
            say(f"error: {' '.join(e.format_message().split()).rstrip('.')}; see --help")
        code = EXIT_ERROR
    except (typer.Abort, KeyboardInterrupt):
        say("stopped")
        code = INTERRUPTED
    return code if isinstance(code, int) else 0


def _with_version(app: Any) -> Any:
    """The command of a typer app, which takes `--version` as well. A callback of the app that took it would make a
    group of an app with a single command, so the option is added to the command, as typer adds those of completion."""
    import typer

    def show(asked: bool) -> None:
        if asked:
            from hfnet_edge import __version__

            print(f"hfnet-edge {__version__}")
            raise typer.Exit

    carrier = typer.Typer(add_completion=False)

    @carrier.command()
    def carry(
        version: bool = typer.Option(
            False, "--version", callback=show, is_eager=True, expose_value=False, help="Show the version and exit."
        ),
    ) -> None:
        """Lends its only option."""

    program: Any = typer.main.get_command(app)
    program.params += typer.main.get_command(carrier).params
    return program


class _CheckedOutput:
    """stdout that raises OutputError where it cannot be written. OSError would be click's and rich's, who exit with 1,
    which is a command's own answer."""

    def __init__(self, file: TextIO):
        self._file, self.broken = file, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        return self._checked(self._file.write, text)

    def flush(self) -> None:
        self._checked(self._file.flush)

    def _checked(self, do: Callable[..., R], *args: str) -> R:
        try:
            return do(*args)
        except OSError as e:
            self.broken = True
            raise OutputError(f"cannot write to the standard output: {e.strerror}", "send it elsewhere") from e


def _let_go(file: Any, number: int) -> None:
    """Flushes; where that fails, what is left goes to the null device, so that Python does not fail at its end."""
    try:
        file.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)


@contextmanager
def progress() -> Iterator[Report]:
    """Yields a `Report` that draws one bar per ``what`` on stderr where that is a terminal. Elsewhere it prints a line
    now and then, `localizing 120/400`, and nothing of what takes less than `EVERY`."""
    if not sys.stderr.isatty():
        due = time.monotonic() + EVERY

        def print_line(what: str, done: int, total: int, note: str = "") -> None:
            nonlocal due
            if time.monotonic() >= due:
                say(f"{what} {done}/{total} {note}".rstrip())
                due = time.monotonic() + EVERY

        yield print_line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from hfnet_edge.shell.tables import PrintableConsole

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=PrintableConsole(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int, note: str = "") -> None:
            what, note = printable(what), printable(note)
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
    print(printable(f"wrote {path}"), f"({size_text(sum(f.stat().st_size for f in files))})")
    if then:
        print(printable(f"next: {then}"))
