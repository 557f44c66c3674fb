"""What others wrote cannot steer the terminal that it is printed on."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.table import Table
from rich.text import Text

from hfnet_edge.errors import InputError
from hfnet_edge.shell.console import LONGEST, progress, reports_errors, wrote
from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.tables import PrintableConsole, show

HOSTILE = "\x1b[2J\x1b]0;title\x07\r\x08\x9b31m\u202egpj.\u2066\ud800 [red]a[/] [/] :smile:"
SHOWN = r"\x1b[2J\x1b]0;title\x07\x0d\x08\x9b31m\u202egpj.\u2066\ud800 [red]a[/] [/] :smile:"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("text", ["straße.jpg", "日本/図.png", "نَقش\u200c.jpg", "👩‍🚀", "a b\u00a0c", "", "\\x1b"])
def test_letters_of_all_languages_stay(text):
    assert printable(text) == text


def test_what_steers_a_terminal_is_shown():
    assert printable(HOSTILE) == SHOWN == printable(SHOWN)
    assert printable("a\nb\tc") == r"a\x0ab\x09c"
    assert printable("a\nb\tc", "\n") == "a\nb" + r"\x09c"
    every = "".join(map(chr, range(0x3000))) + "\ud800\udfff"
    assert not re.search("[\0-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]", printable(every))


def test_a_command_prints_what_it_prints_and_nothing_else(capsys):
    before = sys.stdout, sys.stderr

    @reports_errors
    def talk():
        print(HOSTILE, "two", sep="\n")
        print("\x1b[1mthree\x1b[0m", file=sys.stderr)

    talk()
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert out == f"{SHOWN}\ntwo\n" and err == r"\x1b[1mthree\x1b[0m" + "\n"


def test_an_error_is_one_line_of_bounded_length(capsys):
    @reports_errors
    def fail():
        raise InputError(f"{HOSTILE}\nerror: forged {'a' * 1_000_000}", "remedy")

    with pytest.raises(SystemExit):
        fail()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: " + SHOWN.replace(r"\x0d", " ")) and len(line) < LONGEST + 200


def test_a_file_is_named_on_one_line(tmp_path, capsys):
    path = tmp_path / "a\x1b[2J\nnext: rm -r"
    path.write_text("x")
    wrote(path, "next\x07 command")
    first, second = capsys.readouterr().out.splitlines()
    assert r"a\x1b[2J\x0anext: rm -r (1 B)" in first and second == r"next: next\x07 command"


def test_a_terminal_that_has_not_all_letters_gets_them_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))

    @reports_errors
    def talk():
        print("größe")

    talk()
    sys.stdout.flush()
    assert raw.getvalue() == rb"gr\xf6\xdfe" + b"\n"


@pytest.mark.parametrize("make", [str, Text])
@pytest.mark.parametrize("terminal", [Terminal, io.StringIO])
def test_tables_show_markup_and_codes_as_they_are(terminal, make):
    file = terminal()
    table = Table(title=make(HOSTILE), caption=make("caption\x07"))
    table.add_column(make("head\x1b[1m"))
    table.add_column("styled", style="bold")
    table.add_row(make(HOSTILE), make("own"))
    console = PrintableConsole(file=file, width=200)
    console.print(table)
    console.print(make("[/]\x1b[2J"))
    text = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())  # the table's own styles
    assert ("\x1b" in file.getvalue()) == (terminal is Terminal)
    title = SHOWN if make is str else r"\x1b[2J\x1b]0;title\x9b31m\u202egpj."  # rich's own text drops a few codes
    assert text.count(title) == 2 and r"head\x1b[1m" in text and "caption" in text and r"[/]\x1b[2J" in text
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", text)
    if make is str:  # laid out after it was made printable
        assert len({len(line) for line in text.splitlines() if line[:1] in "┏┃┡│└"}) == 1


def test_tables_of_a_command_keep_their_styles(monkeypatch):
    file = Terminal()
    monkeypatch.setattr(sys, "stdout", file)

    @reports_errors
    def talk():
        show(Text("styled", "bold"))
        print("\x1b[1mnot styled")

    talk()
    assert "\x1b[1mstyled" in file.getvalue() and r"\x1b[1mnot styled" in file.getvalue()


def test_progress_and_its_notes_are_text(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    file = Terminal()
    monkeypatch.setattr(sys, "stderr", file)

    @reports_errors
    def work():
        with progress() as report:
            report(f"[/]{HOSTILE}", 1, 2, note=f"[/]{HOSTILE}")

    work()
    assert r"\x1b]0;title" in file.getvalue() and "[red]a[/] [/] :smile:" in file.getvalue()
    assert "\x1b[2J" not in file.getvalue() and "\x1b]" not in file.getvalue() and "\x9b" not in file.getvalue()
