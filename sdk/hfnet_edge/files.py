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
    """Yields a binary file; on success it is synced and renamed to ``path``, on any error it is removed.

    Raises:
        OutputError: the folder is missing or cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}", "check the folder, permissions, free space") from e
    finally:
        temporary.unlink(missing_ok=True) if path.parent.is_dir() else None


def check_writable(path: Path | str) -> None:
    """Fails early, before hours of work, where ``path`` could not be written later. Raises OutputError."""
    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}", "create it first")
    if path.is_dir():
        raise OutputError(f"cannot write {path}: it is a folder", "give a file name")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"cannot write {path}: {path.parent} is not writable", "choose another folder")
