"""How every command ends when what it prints cannot be printed, and what it says while it works."""

import subprocess
import sys

import pytest

from hfnet_edge.shell import console

COMMAND = """
import sys
import typer
from rich.console import Console
from rich.table import Table
from hfnet_edge.shell.console import reports_errors, run
from hfnet_edge.errors import InputError
app = typer.Typer(add_completion=False)

@app.command()
@reports_errors
def main(how: str):
    if how == "no-pose":
        raise typer.Exit(1)
    if how == "bad":
        raise InputError("bad", "mend it")
    if how == "stop":
        raise KeyboardInterrupt
    if how == "open":
        file = open(sys.argv[0] if sys.argv[0] != "-c" else "/proc/self/comm")
        raise typer.Exit(10 + (file.fileno() > 2))
    table = Table()
    for i in range(1500 if how != "short" else 1):
        print(f"{i}" * 20) if how != "table" else table.add_row(f"{i}" * 20)
    Console().print(table)

run(app)
"""


def ends(how, redirections, unbuffered=""):
    """Exit code and stderr of the command in a shell."""
    line = f'"$0" -c "$1" {how} {redirections}'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}", sys.executable, COMMAND], capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("how", "unbuffered"), [("lines", ""), ("lines", "1"), ("table", ""), ("short", ""), ("short", "1"), ("--help", "")]
)
def test_an_output_that_cannot_be_written_is_an_error(how, unbuffered):
    full = ends(how, ">/dev/full", unbuffered)
    assert full == (2, "error: cannot write to the standard output: No space left on device; send it elsewhere\n")
    if how == "short":
        assert ends(how, ">/dev/full 2>/dev/full", unbuffered) == (2, "")
    if how in ("lines", "table"):  # more than a pipe holds
        broken = ends(how, "| true", unbuffered)
        assert broken == (2, "error: cannot write to the standard output: Broken pipe; send it elsewhere\n")


@pytest.mark.parametrize(
    ("how", "code", "said"), [("no-pose", 1, ""), ("bad", 2, "error: bad; mend it\n"), ("stop", 130, "stopped\n")]
)
def test_a_commands_own_answer_stays(how, code, said):
    assert ends(how, ">/dev/full") == ends(how, ">&-") == (code, said)
    assert ends(how, "2>/dev/full")[0] == code


def test_a_file_is_not_opened_where_prints_go():
    """With stdout closed the first file that is opened would be stdout."""
    assert ends("open", ">&-") == ends("open", "<&- >&- 2>&-") == (11, "")


def test_progress_in_a_pipe_is_a_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(console, "EVERY", 10.0)
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with console.progress() as report:
        for done in range(601):  # of a tenth of a second each
            report("localizing", done, 600, "a note" if done > 450 else "")
            now[0] += 0.1
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 5, lines
    first, *_, last = (int(line.split()[1].split("/")[0]) for line in lines)
    assert 99 <= first <= 102 and 499 <= last <= 510
    assert lines[-1] == f"localizing {last}/600 a note"
    with console.progress() as report:
        report("localizing", 0, 1)
    assert capsys.readouterr().err == "", "a short run is quiet"
