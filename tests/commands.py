"""Commands as a shell runs them, in this process, which has imported already what they need."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest


def called(main: Callable[[], None], program: str, *arguments: str | Path, code: int = 0, **environment: str):
    """What ``main``, the entry point of a program, says and exits with; that is ``code``."""
    words, out, err = [program, *map(str, arguments)], io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", words)
        for name, value in {"COLUMNS": "80", **environment}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            main()
    done = CompletedProcess(words, end.value.code, out.getvalue(), err.getvalue())
    assert done.returncode == code, done.stdout + done.stderr
    if code == 2:
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        assert ";" in done.stderr, "a remedy follows the problem"
    return done
