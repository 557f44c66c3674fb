"""A zip that may come from anywhere is read within limits: its directory is checked before any member is unpacked.

A member of a few kilobytes can unfold to gigabytes, claim another size than it has, or lie in the same bytes as a
thousand others. So members may not overlap, are stored or deflated, and together unfold to a limit that the caller
gives and to `MAX_RATIO` times their size in the file; nothing beyond the size in the directory is unpacked.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

MAX_DIRECTORY = 1 << 24  # bytes: of some 200,000 members
MAX_RATIO = 16  # of what deflated members unfold to; a recording's reach 1.2
SMALL = 1 << 26  # bytes that they may unfold to at any ratio: a black image is nothing but zeros
END, END_64, LOCATOR_64 = 22, 56, 20  # bytes of what follows the directory
LOCAL_HEADER = 30  # bytes before a member's name


def add(file: zipfile.ZipFile, name: str, content: bytes, compressed: bool = True) -> None:
    """Adds a member with a fixed date."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    file.writestr(entry, content, compresslevel=1 if compressed else None)


@contextmanager
def open_archive(stream: BinaryIO, most: int) -> Iterator[zipfile.ZipFile]:
    """A zip whose directory has been checked.

    Args:
        most: bytes that its deflated members may unfold to, all together. Stored ones take what they take in the file.

    Raises:
        ValueError, OSError, or what zipfile raises: it is not a zip, is damaged, or is beyond the limits.
    """
    if (length := _directory_bytes(stream)) > MAX_DIRECTORY:
        raise ValueError(f"its directory has {length} bytes, at most {MAX_DIRECTORY} are read")
    with zipfile.ZipFile(stream) as file:
        check_directory(file.infolist(), file.start_dir, most)
        yield file


def _directory_bytes(stream: BinaryIO) -> int:
    """Length of the directory, which zipfile unpacks whole when it opens the file. Raises ValueError."""
    size = stream.seek(0, io.SEEK_END)
    tail = b"\0" * (LOCATOR_64 + END_64)
    stream.seek(max(0, size - END - len(tail)))
    tail = (tail + stream.read())[-END - len(tail) :]
    record, locator, end = tail[:END_64], tail[END_64:-END], tail[-END:]
    if size < END or end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise ValueError("it does not end as a zip without a comment does")
    if locator[:4] == b"PK\6\7":
        if record[:4] != b"PK\6\6":
            raise ValueError("its directory is not where it should be")
        return int.from_bytes(record[40:48], "little")
    return int.from_bytes(end[12:16], "little")


def check_directory(members: list[zipfile.ZipInfo], end: int, most: int) -> None:
    """Members do not repeat or overlap before the byte ``end``, and unfold to at most ``most`` bytes. Raises
    ValueError."""
    if len({m.filename for m in members}) != len(members):
        raise ValueError("two of its members have one name")
    unfolded = packed = 0
    for m in members:
        if m.compress_type == zipfile.ZIP_DEFLATED:
            unfolded, packed = unfolded + m.file_size, packed + m.compress_size
        elif m.compress_type != zipfile.ZIP_STORED or m.compress_size != m.file_size:
            raise ValueError(f"{m.filename} is neither stored nor deflated")
    in_order = sorted(members, key=lambda m: m.header_offset)
    starts = [m.header_offset for m in in_order] + [end]
    for m, (start, next_start) in zip(in_order, itertools.pairwise(starts), strict=True):
        if start < 0 or start + LOCAL_HEADER + m.compress_size > next_start:
            raise ValueError(f"{m.filename} overlaps what follows it")
    allowed = min(most, max(SMALL, MAX_RATIO * packed))
    if unfolded > allowed:
        raise ValueError(f"its members unfold from {packed} to {unfolded} bytes, at most {allowed} are read")


def member(file: zipfile.ZipFile, name: str, most: int) -> bytes:
    """A member of an open archive. Raises KeyError, ValueError or what zipfile raises."""
    size = file.getinfo(name).file_size
    if size > most:
        raise ValueError(f"{name} has {size} bytes, at most {most} are read")
    with file.open(name) as stream:
        content = stream.read(size)  # without a number zipfile would unfold all that there is
    if len(content) != size:
        raise ValueError(f"{name} has {len(content)} bytes, not {size}")
    return content
