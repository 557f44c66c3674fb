"""Folders in the user's cache are made once, each named by a hash of what it is made of.

A marker is written last: what a killed run left behind lacks it, and is made again.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hfnet_edge.errors import InstallError

MARKER = "complete"
ROOM = "make 3 GB of room there, or set XDG_CACHE_HOME to another disk"


def cache_path() -> Path:
    """The user's cache of this project."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hfnet-edge"


def kept(name: str, pins: Iterable[str]) -> Path:
    """Where the folder of these pins is, or will be."""
    return cache_path() / f"{name}-{hashlib.sha256(chr(10).join(pins).encode()).hexdigest()[:12]}"


def complete(path: Path) -> bool:
    """The folder was made to the end."""
    return (path / MARKER).is_file()


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Holds a lock file of the cache: a second process waits, and a killed one lets go. Raises OSError."""
    cache_path().mkdir(parents=True, exist_ok=True)
    with (cache_path() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_once(path: Path, make: Callable[[Path], None], usable: Callable[[Path], bool] = complete) -> Path:
    """Lets ``make`` fill the folder, unless it is usable. One process makes it, others wait.

    Args:
        path: from `kept`.
        usable: where more than the marker tells that the folder need not be made again.

    Returns:
        ``path``.

    Raises:
        InstallError: the disk is full, or not writable. And what ``make`` raises; the folder is then removed.
    """
    if usable(path):
        return path
    try:
        with locked(path.name):
            if not usable(path):
                shutil.rmtree(path, ignore_errors=True)  # of a run that was killed
                try:
                    path.mkdir()
                    make(path)
                    (path / MARKER).touch()
                except BaseException:
                    shutil.rmtree(path, ignore_errors=True)
                    raise
    except OSError as e:
        raise InstallError(f"cannot make {path}: {e.strerror or e}", ROOM) from e
    return path
