"""Writing a file so that a crash or a full disk leaves either the old one or the new one, never half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from hfnet_edge.errors import OutputError


@contextmanager
def atomic_write(path: Path | str) -> Iterator[BinaryIO]:
    """Yields a binary file, open for reading too; on success it is synced and renamed to ``path``, on error removed.

    Raises:
        OutputError: the folder is missing or cannot be written, or the disk is full.
    """
    path = Path(path).resolve()  # through a link to the file that it names
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}", "check the folder, permissions, free space") from e
    finally:
        temporary.unlink(missing_ok=True) if path.parent.is_dir() else None


def check_writable(path: Path | str, *others: Path | str | None) -> None:
    """Fails early, before hours of work, where ``path`` could not be written later, or is one of ``others``: the
    inputs, which it would destroy, and the other outputs. Raises OutputError."""
    path = Path(path)
    if not path.parent.is_dir():
        why = f"{path.parent} is a file" if path.parent.exists() else f"there is no folder {path.parent}"
        raise OutputError(f"cannot write {path}: {why}", "name a folder that is there")
    if path.exists() and not path.is_file():
        raise OutputError(f"cannot write {path}: it is a folder or a device", "give a file name")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: {path.parent} is not writable", "choose another folder")
    if any(other is not None and Path(other).resolve() == path.resolve() for other in others):
        raise OutputError(f"cannot write {path}: another option names the same file", "choose another name")
