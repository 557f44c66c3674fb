"""Matrix products on one thread: between small ones the other threads of numpy's OpenBLAS only spin, at the cost of as
much CPU time again, and where several threads of ours multiply they stand in each other's way."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np

NAMES = ("scipy_openblas_{}_num_threads64_", "scipy_openblas_{}_num_threads", "openblas_{}_num_threads")


_lock = Lock()
_inside = 0  # of `one_thread`, over all threads
_before = 1  # threads of OpenBLAS outside


@contextmanager
def one_thread() -> Iterator[None]:
    """Holds OpenBLAS to one thread, in the whole process, until the last of those inside leaves. Does nothing where
    numpy came with another library."""
    global _inside, _before
    calls = _threads()
    if calls is None:
        yield
        return
    get, set_ = calls
    with _lock:
        if not _inside:
            _before = get()
            set_(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                set_(_before)


@cache
def _threads() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Reads and sets the number of threads of the OpenBLAS in numpy's wheel."""
    root = Path(np.__file__).parent
    for path in [*root.parent.glob("numpy.libs/*openblas*"), *root.glob(".dylibs/*openblas*")]:
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for name in NAMES:
            if hasattr(library, name.format("set")):
                return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None
