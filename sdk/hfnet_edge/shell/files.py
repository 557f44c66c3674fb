"""The files of a command: reading what a user named, writing so that nothing is lost, and keeping the two apart.

A crash, a full disk or a second writer leaves either the old file or a new one, never half of one. Temporary files of
runs that were killed go with the next write into their folder: a writer holds a lock on its own, and what nobody holds
is left over.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from hfnet_edge.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: no locks, and nothing is cleaned up
    fcntl = None  # type: ignore[assignment]

MAX_TEXT = 1 << 30  # bytes of a list; bounds what a wrong name can make a reader ask for
MAX_SETTINGS = 1 << 24  # bytes of a JSON or TOML file
NAME_MAX = 255  # bytes of a file's name
TEMPORARY = ".hfnet-tmp"
OURS = re.compile(r"\..*\.[0-9a-f]{16}" + re.escape(TEMPORARY), re.DOTALL)
PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
CHECK = "check the folder, permissions, free space"


# --- reading


def open_input(path: Path | str, limit: int | None = None) -> BinaryIO:
    """Opens a file that the user named for reading. Pipes, devices and sockets, which could keep a reader waiting or
    have no end, are refused.

    Args:
        limit: bytes; a larger file is refused.

    Raises:
        OSError: missing, no plain file, too large, or of a name that no file has; ``strerror`` says it.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except ValueError as e:  # a zero byte, or half a character
        raise OSError(errno.EINVAL, "no file has such a name", str(path)) from e
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file", str(path))
        if limit is not None and status.st_size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path | str, limit: int | None = None) -> bytes:
    """All of a file that `open_input` opens. Raises OSError."""
    with open_input(path, limit) as file:
        return file.read()


def read_text(path: Path | str, limit: int = MAX_TEXT) -> str:
    """All of a text file in UTF-8, without the mark that Windows editors put before it. Raises OSError, and
    UnicodeDecodeError where it is not text."""
    return read_bytes(path, limit).decode("utf-8-sig")


def parse_json(content: bytes | str) -> Any:
    """What a JSON text says. Raises ValueError."""
    try:
        return json.loads(content)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e


def parse_toml(content: str) -> dict[str, Any]:
    """What a TOML text says. Raises ValueError."""
    try:
        return tomllib.loads(content)
    except RecursionError as e:
        raise ValueError("it is nested too deeply") from e


# --- writing


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Yields a binary file, open for reading too; on success it is synced and renamed to ``path``, on any error it is
    removed. Of several writers at once the last one wins.

    Raises:
        OutputError: the folder is missing or cannot be written, or the disk is full.
    """
    path = _resolved(path)  # through a link to the file that it names
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
    path = _resolved(path)
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
    path = _resolved(path)
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
    return path.with_name(f"{_cut(path.name, NAME_MAX - len('.part'))}.part")


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
        temporary = path.with_name(f".{_cut(path.name, 100)}.{secrets.token_hex(8)}{TEMPORARY}")
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


def _cut(name: str, size: int) -> str:
    """The first ``size`` bytes of a name, without half a character."""
    return os.fsencode(name)[:size].decode(errors="ignore")


def _resolved(path: Path | str) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises RuntimeError on a circle of links


# --- keeping them apart


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


class CommandFiles:
    """What one command reads and writes: no output is an input, whatever links lead to it, and no two are one file.

    Args:
        inputs: files, as `reads` takes them.
    """

    def __init__(self, *inputs: Path | str | None):
        self._taken: dict[object, str] = {}  # identities to how the file is called in a message
        self.reads(*inputs)

    def reads(self, *paths: Path | str | None) -> None:
        """Adds inputs; None is none, and one that is missing is its reader's to refuse."""
        for path in paths:
            if path is not None:
                self._take(path, f"the input {path}")

    def reads_pictures(self, folder: Path | str | None) -> None:
        """Adds every picture below a folder."""
        if folder is not None:
            for at, _, names in os.walk(folder):
                self.reads(*(Path(at, name) for name in names if Path(name).suffix.lower() in PICTURES))

    def writes(self, path: Path | str, streamed: bool = False, picture: bool = False) -> None:
        """Adds an output; ``streamed`` by `streamed_write`.

        Raises:
            OutputError: it cannot be written, is taken, or is no picture and would replace one, of which a folder of
                photos has more than those that a list names.
        """
        check_writable(path)
        names = (path, part_of(path)) if streamed else (path,)
        for name in names:
            self._check(name)
        if not picture and Path(path).suffix.lower() in PICTURES and os.path.exists(path):
            raise OutputError(f"cannot write {path}: it is a picture that is there already", "choose another name")
        for name in names:
            self._take(name, f"the output {name}")

    def writes_below(self, folder: Path, path: Path) -> None:
        """Adds an output that links must not lead out of a folder, as `writes`. Folders between need not be there."""
        if _resolved(folder) not in _resolved(path).parents:
            raise OutputError(f"cannot write {path}: a link leads out of {folder}", "name a new folder")
        self._check(path)
        self._take(path, f"the output {path}")

    def _check(self, path: Path | str) -> None:
        for identity in _identities(path):
            if identity in self._taken:
                raise OutputError(
                    f"cannot write {path}: another option names the same file ({self._taken[identity]})",
                    "choose another name",
                )

    def _take(self, path: Path | str, what: str) -> None:
        for identity in _identities(path):
            self._taken.setdefault(identity, what)


def _identities(path: Path | str) -> Iterator[object]:
    """By which a file is recognised: where links lead, and, if it is there, its number on the disk."""
    yield os.path.realpath(path)
    with suppress(OSError, ValueError):
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            yield status.st_dev, status.st_ino


def names_below(names: Iterable[str], endings: tuple[str, ...], ending: str) -> dict[str, PurePosixPath]:
    """A relative path for each name, without roots and steps upwards, whatever the names say. No two are the same, also
    on file systems that do not tell a from A; a name that needs no change has none.

    Args:
        endings: that a name may have; others get ``ending`` in addition.
    """
    paths = {}
    for name in names:
        parts = [part for part in re.split(r"[/\\\0]", name) if part not in ("", ".", "..")]
        path = PurePosixPath(*[_cut(part, 200).replace(":", "_") for part in parts] or ["_"])
        paths[name] = path if path.suffix.lower() in endings else path.with_name(f"{path.name}{ending}")
    used: dict[str, int] = {}  # to the number of the next of the same name
    for name in sorted(paths, key=lambda name: str(paths[name]) != name):  # the others make way
        path = paths[name]
        while (key := str(paths[name]).casefold()) in used:
            used[str(path).casefold()] += 1
            paths[name] = path.with_stem(f"{path.stem}-{used[str(path).casefold()]}")
        used[key] = 1
    return paths
