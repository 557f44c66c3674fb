"""Reading what a user named: plain files alone, and of a size that fits in memory."""

from __future__ import annotations

import errno
import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO

MAX_TEXT = 1 << 30  # bytes of a list; bounds what a wrong name can make a reader ask for
MAX_SETTINGS = 1 << 24  # bytes of a JSON or TOML file


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
