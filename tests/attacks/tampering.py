"""Takes map files apart and puts them together again, with right checksums, as a hostile writer would.

Written from the format's description, not with the writer's code: `assembled(parts(content)) == content` checks one
against the other.
"""

from __future__ import annotations

import signal
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import flatbuffers
import numpy as np

from hfnet_edge.map.container import Section
from hfnet_edge.schema.description_generated import MapDescription, MapDescriptionT

MAGIC = b"HFMAP\r\n\x1a"
HEADER, ENTRY = struct.Struct("<8sHHIQI36x"), struct.Struct("<I4xQQ")
VERSION_AT, COUNT_AT, SIZE_AT, CHECKSUM_AT = 8, 12, 16, 24
BLOCK, ALIGNMENT, MAX_SECTIONS = 16384, 64, 64


def table(content: bytes) -> list[tuple[int, int, int]]:
    """Kind, offset and length of each section; of a damaged file as many as can be there."""
    count = struct.unpack_from("<I", content, COUNT_AT)[0] if len(content) >= HEADER.size else 0
    rows = min(count, MAX_SECTIONS, (len(content) - HEADER.size) // ENTRY.size)
    return [ENTRY.unpack_from(content, HEADER.size + i * ENTRY.size) for i in range(rows)]


def find(content: bytes, kind: int) -> tuple[int, int]:
    """Offset and length of a section."""
    return next((offset, length) for found, offset, length in table(content) if found == kind)


def row_at(content: bytes, kind: int) -> int:
    """Where a section's row of the table lies."""
    return HEADER.size + [row[0] for row in table(content)].index(kind) * ENTRY.size


def parts(content: bytes) -> dict[int, bytes]:
    """All sections but CHECKSUMS."""
    return {kind: content[at : at + length] for kind, at, length in table(content) if kind != Section.CHECKSUMS}


def assembled(sections: dict[int, bytes], version: tuple[int, int] = (2, 0)) -> bytes:
    """A file of these sections, in whatever order they come, whole in every other respect."""
    data, places = b"", []
    for kind, part in sections.items():
        data += bytes(-len(data) % ALIGNMENT)
        places.append((kind, len(data), len(part)))
        data += part
    checksums_at = _aligned(HEADER.size + (1 + len(sections)) * ENTRY.size)
    checksums_length = 4 * -(-len(data) // BLOCK)
    start = _aligned(checksums_at + checksums_length)
    head = bytearray(start)
    HEADER.pack_into(head, 0, MAGIC, *version, 1 + len(sections), start + len(data), 0)
    rows = [(int(Section.CHECKSUMS), checksums_at, checksums_length)]
    rows += [(kind, start + at, length) for kind, at, length in places]
    for i, row in enumerate(rows):
        ENTRY.pack_into(head, HEADER.size + i * ENTRY.size, *row)
    return resealed(bytes(head) + data)


def resealed(content: bytes, size: bool = False) -> bytes:
    """The same bytes with checksums made right, as far as the table makes sense.

    Args:
        size: the header's file size too.
    """
    out = bytearray(content)
    if len(out) < HEADER.size:
        return content
    if size:
        struct.pack_into("<Q", out, SIZE_AT, len(out))
    start = HEADER.size
    for kind, offset, length in table(content)[:1]:
        if kind == Section.CHECKSUMS and offset + length <= len(out):
            start = _aligned(offset + length)
            for i in range(min(length // 4, -(-(len(out) - start) // BLOCK))):
                block = out[start + i * BLOCK : start + (i + 1) * BLOCK]
                struct.pack_into("<I", out, offset + 4 * i, zlib.crc32(block))
    covered = bytes(out[:CHECKSUM_AT]) + bytes(out[CHECKSUM_AT + 4 : start])
    struct.pack_into("<I", out, CHECKSUM_AT, zlib.crc32(covered))
    return bytes(out)


def overwritten(content: bytes, at: int, data: bytes) -> bytes:
    """With other bytes from ``at``; checksums stay as they were."""
    return content[:at] + data + content[at + len(data) :]


def with_entry(content: bytes, kind: int, index: int, value: object, dtype: str) -> bytes:
    """With one number of a section replaced, resealed."""
    raw = np.array(value, dtype).tobytes()
    return resealed(overwritten(content, find(content, kind)[0] + index * len(raw), raw))


def with_row(content: bytes, kind: int, offset: int, length: int) -> bytes:
    """With a section said to lie elsewhere, resealed."""
    return resealed(overwritten(content, row_at(content, kind), ENTRY.pack(kind, offset, length)))


def with_sections(content: bytes, **changed: bytes | None) -> bytes:
    """With sections replaced, added or (None) left out, by name, assembled again."""
    sections = parts(content) | {int(Section[name]): part for name, part in changed.items() if part is not None}
    gone = {int(Section[name]) for name, part in changed.items() if part is None}
    return assembled({kind: sections[kind] for kind in sorted(sections) if kind not in gone})


def with_meta(content: bytes, **fields: object) -> bytes:
    """With fields of META replaced, assembled again."""
    description = MapDescriptionT.InitFromObj(MapDescription.GetRootAs(parts(content)[Section.META], 0))
    for name, value in fields.items():
        assert hasattr(description, name)
        setattr(description, name, value)
    builder = flatbuffers.Builder(1024)
    builder.Finish(description.Pack(builder))
    return with_sections(content, META=bytes(builder.Output()))


def with_list(content: bytes, image: int, data: bytes) -> bytes:
    """With the observations of an image replaced by any bytes, assembled again."""
    sections = parts(content)
    offsets = np.frombuffer(sections[Section.OBSERVATION_OFFSETS], "<u4").astype(np.int64)
    lists = sections[Section.OBSERVATION_LISTS]
    lists = lists[: offsets[image]] + data + lists[offsets[image + 1] :]
    offsets[image + 1 :] += len(data) - (offsets[image + 1] - offsets[image])
    return with_sections(content, OBSERVATION_OFFSETS=offsets.astype("<u4").tobytes(), OBSERVATION_LISTS=lists)


@contextmanager
def at_most(seconds: float, of_cpu: bool = True) -> Iterator[None]:
    """Raises TimeoutError in what takes longer. Processor time does not depend on what else runs; waiting costs none
    of it."""
    which, number = (signal.ITIMER_PROF, signal.SIGPROF) if of_cpu else (signal.ITIMER_REAL, signal.SIGALRM)

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(number, stop)
    signal.setitimer(which, seconds)
    try:
        yield
    finally:
        signal.setitimer(which, 0)
        signal.signal(number, before)


def _aligned(offset: int) -> int:
    return offset + -offset % ALIGNMENT
