"""Keeps what TensorFlow, absl and LiteRT print away from the user, from Python and from C++."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

KEPT = 2000  # characters of the output that go with an exception


@contextmanager
def quiet() -> Iterator[None]:
    """Sends stdout and stderr to a temporary file. An exception carries the end of it as a note.

    `sys.stderr` stays the object that it is: loggers made meanwhile keep it, and use it later.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as e:
            sys.stdout.flush()
            sys.stderr.flush()
            log.seek(0)
            if said := log.read().strip():
                e.add_note(said[-KEPT:])
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])
