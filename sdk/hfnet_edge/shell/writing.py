"""Writing so that nothing is lost.

A crash, a full disk or a second writer leaves either the old file or a new one, never half of one. Temporary files of
runs that were killed go with the next write into their folder: a writer holds a lock on its own, and what nobody holds
is left over.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from hfnet_edge.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: no locks, and nothing is cleaned up
    fcntl = None  # type: ignore[assignment]

NAME_MAX = 255  # bytes of a file's name
TEMPORARY = ".hfnet-tmp"
OURS = re.compile(r"\..*\.[0-9a-f]{16}" + re.escape(TEMPORARY), re.DOTALL)
CHECK = "check the folder, permissions, free space"


def check_writable(path: Path | str, folder: bool = False) -> None:
    """Fails early, before hours of work, where ``path`` could not be written later, as a file or as a folder.
    Raises OutputError."""
    path = Path(path)
    if not os.path.isdir(path.parent):  # os.path, because Path's raises on names that are too long
        why = f"{path.parent} is a file" if os.path.exists(path.parent) else f"there is no folder {path.parent}"
        raise OutputError(f"cannot write {path}: {why}", "name a folder that is there")
    try:
        os.stat(path)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as e:  # too long, or a circle of links
        reason = e.strerror if isinstance(e, OSError) else "no file has such a name"
        raise OutputError(f"cannot write {path}: {reason}", "give another name") from e
    if folder and os.path.exists(path) and not os.path.isdir(path):
        raise OutputError(f"cannot write {path}: it is no folder", "name a folder")
    if not folder and os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"cannot write {path}: it is a folder or a device", "give a file name")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: {path.parent} is not writable", "choose another folder")


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Yields a binary file, open for reading too; on success it is synced and renamed to ``path``, on any error it is
    removed. Of several writers at once the last one wins.

    Raises:
        OutputError: the folder is missing or cannot be written, or the disk is full.
    """
    path = resolved(path)  # through a link to the file that it names
    try:
        with _temporary(path, _new_file) as temporary:
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}", CHECK) from e


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yields a new folder; on success it is renamed to ``path``, which must then be absent or an empty folder, on any
    error it is removed. Raises OutputError as `atomic_write` does."""
    path = resolved(path)
    try:
        with _temporary(path, os.mkdir) as temporary:
            yield temporary
            os.replace(temporary, path)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}", CHECK) from e


@contextmanager
def streamed_write(path: Path | str) -> Iterator[Callable[..., None]]:
    """Yields a function that writes lines, any number of them. They are in `part_of` the path at once, and take its
    name at the end: also where an exception or an interruption is the end, so that no line is lost; not where the
    function was never called. What a kill or a full disk leaves is the part.

    Raises:
        OutputError: it cannot be written, or another run is writing it.
    """
    path = resolved(path)
    part = part_of(path)
    try:
        descriptor = _open_part(part)
    except OSError as e:
        raise OutputError(f"cannot write {part}: {e.strerror or e}", CHECK) from e
    file, called, failed = os.fdopen(descriptor, "wb"), False, False

    def write(*lines: str) -> None:
        nonlocal called, failed
        called = True
        try:
            file.write("".join(f"{line}\n" for line in lines).encode())
            file.flush()
        except OSError as e:
            failed = True
            raise OutputError(f"cannot write {path}: {e.strerror}", f"what was done until then is in {part}") from e

    try:
        yield write
    finally:
        try:
            if not failed:
                file.flush()  # of a line that was interrupted
                os.fsync(descriptor)
                os.replace(part, path) if called else part.unlink()
        except OSError as e:
            raise OutputError(f"cannot write {path}: {e.strerror}", f"the lines are in {part}") from e
        finally:
            with suppress(OSError):  # a full disk says so again
                file.close()


def part_of(path: Path | str) -> Path:
    """Where the lines of `streamed_write` are until its end."""
    path = Path(path)
    return path.with_name(f"{shortened(path.name, NAME_MAX - len('.part'))}.part")


def _open_part(part: Path) -> int:
    """Makes the file anew, or empties what a killed run left. Raises OSError."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(part, flags, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is not a plain file")
            if not _lock(descriptor, wait=False, unknown=True):
                raise OSError(errno.EBUSY, "another run is writing it")
            if _names(part, descriptor):
                os.ftruncate(descriptor, 0)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another run has just finished, and renamed it


@contextmanager
def _temporary(path: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """Yields a new file or folder beside ``path`` of a name that nobody else has, locked; at the end it is removed, if
    it has not been renamed. Raises OSError."""
    _remove_leftovers(path.parent)
    held = None
    while held is None:
        temporary = path.with_name(f".{shortened(path.name, 100)}.{secrets.token_hex(8)}{TEMPORARY}")
        with suppress(FileExistsError):
            make(temporary)
            held = _hold(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        held()


def _new_file(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def _hold(temporary: Path) -> Callable[[], None] | None:
    """Locks a temporary; returns what lets go, or None where it was taken for a leftover before it was locked."""
    if fcntl is None:
        return lambda: None
    try:
        descriptor = os.open(temporary, os.O_RDONLY)
    except FileNotFoundError:
        return None
    _lock(descriptor, wait=True, unknown=True)
    if _names(temporary, descriptor):
        return lambda: os.close(descriptor)
    os.close(descriptor)
    return None


def _remove_leftovers(folder: Path) -> None:
    """Removes temporaries of killed runs."""
    if fcntl is None:
        return
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(folder)
    for left in (folder / name for name in names if OURS.fullmatch(name)):
        with suppress(OSError):
            descriptor = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                if _lock(descriptor, wait=False, unknown=False) and _names(left, descriptor):
                    _remove(left)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _lock(descriptor: int, wait: bool, unknown: bool) -> bool:
    """Locks an open file. False where somebody else holds it; ``unknown`` where the file system has no locks."""
    if fcntl is None:
        return unknown
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return unknown
    return True


def _names(path: Path, descriptor: int) -> bool:
    """The open file is the one of this name."""
    with suppress(OSError):
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    return False


def shortened(name: str, size: int) -> str:
    """The first ``size`` bytes of a name, without half a character."""
    return os.fsencode(name)[:size].decode(errors="ignore")


def resolved(path: Path | str) -> Path:
    """Where a path leads, through all links."""
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError on a circle of links
