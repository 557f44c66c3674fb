"""This module keeps what LiteRT, TensorFlow and absl print away from the user of a command, from Python and from C++.

That takes the file descriptors of the whole process, so it is for programs that own the process: the commands. A
library does not touch its host's: until `own_process` is called `quiet` does nothing, and LiteRT's one line on loading
goes where stderr goes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import BinaryIO

KEPT = 2000  # characters of the output that go with an exception

_lock = RLock()  # one thread at a time: the descriptors are the process's
_owned = False


def own_process() -> None:
    """Lets `quiet` work: for the main program of a command, at its start.

    What was closed before goes to the null device: else the next file that is opened would get its number, and what is
    printed.
    """
    global _owned
    _owned = True
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


@contextmanager
def quiet() -> Iterator[None]:
    """Sends stdout and stderr to a temporary file. An exception carries the end of it as a note.

    `sys.stderr` stays the object that it is: loggers made meanwhile keep it, and use it later. What other threads print
    meanwhile is lost. Where no temporary file can be made, nothing is kept.
    """
    if not _owned:
        yield
        return
    with _lock, _log() as log:
        _flush()
        saved = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
        for descriptor in saved:
            os.dup2(log.fileno(), descriptor)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as e:
            _flush()
            with suppress(OSError):  # the null device
                log.seek(0)
                if said := log.read().decode(errors="replace").strip():
                    e.add_note(said[-KEPT:])
            raise
        finally:
            _flush()
            for descriptor, copy in saved.items():
                os.dup2(copy, descriptor)
                os.close(copy)


def _log() -> BinaryIO:
    """A file for what is printed."""
    try:
        return tempfile.TemporaryFile()
    except OSError:  # a disk that is full or read-only
        return open(os.devnull, "r+b")


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # full, closed, or none at all
            stream.flush()
