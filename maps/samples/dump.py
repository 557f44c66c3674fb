"""Prints minimal.hfmap as the annotated hex dump that stands in SPEC.md.

python maps/samples/dump.py
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from make import FIELDS

from hfnet_edge.map.container import CHECKSUM_AT, ENTRY, HEADER, Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.observation_list import parameters
from hfnet_edge.schema.description_generated import MapDescription

Field = tuple[int, int, str]  # first byte, length, note
WIDTH = 16  # bytes of a line


def dump(content: bytes) -> str:
    """All bytes, each once, in lines of offset, bytes and note; a run of zeros is written ``00 x COUNT``."""
    lines: list[str] = []
    end = 0
    for at, length, note in sorted(_fields(content)):
        if at > end:
            lines += _lines(content, end, at - end, "padding")
        lines += _lines(content, at, length, note)
        end = at + length
    return "\n".join(lines)


def _lines(content: bytes, at: int, length: int, note: str) -> Iterator[str]:
    part = content[at : at + length]
    if length > 4 and not any(part):
        yield f"{at:04x}  {f'00 x {length}':<{3 * WIDTH}} {note}"
        return
    for start in range(0, length, WIDTH):
        row = part[start : start + WIDTH].hex(" ")
        yield f"{at + start:04x}  {row:<{3 * WIDTH}} {'' if start else note}".rstrip()


def _fields(content: bytes) -> Iterator[Field]:
    m = LocalizationMap.read(content)
    d, sections = m.description, m.file.sections
    at = {Section(kind): entry.offset for kind, entry in sections.items()}
    _, major, minor, count, size, _ = HEADER.unpack_from(content)
    yield 0, 8, 'magic "HFMAP\\r\\n\\x1a"'
    yield 8, 4, f"version {major}.{minor}"
    yield 12, 4, f"{count} sections"
    yield 16, 8, f"file size {size}"
    yield CHECKSUM_AT, 4, f"CRC-32 of bytes 0-23 and 28-{m.file.start - 1}"
    yield 28, 36, "reserved"
    for i, entry in enumerate(sections.values()):
        yield HEADER.size + i * ENTRY.size, 8, f"{entry.name}"
        yield HEADER.size + i * ENTRY.size + 8, 16, f"  at {entry.offset:#x}, {entry.length} bytes"
    yield at[Section.CHECKSUMS], 4, f"CHECKSUMS: CRC-32 of bytes {m.file.start}-{size - 1}"
    yield from _meta(content, at[Section.META])
    names = at[Section.IMAGE_NAMES]
    for i, name in enumerate(m.image_names):
        yield names, len(name) + 1, f"IMAGE_NAMES: image {i}"
        names += len(name) + 1
    for i in range(d.imageCount):
        for k, note in enumerate(("qw, qx", "qy, qz", "tx, ty")):
            yield (
                at[Section.IMAGE_POSES] + 56 * i + 16 * k,
                16,
                f"{f'IMAGE_POSES: image {i}, ' if not k else '  '}{note}",
            )
        yield at[Section.IMAGE_POSES] + 56 * i + 48, 8, "  tz"
        row = " ".join(str(v) for v in m.global_descriptors[i])
        yield at[Section.GLOBAL_DESCRIPTORS] + d.globalDim * i, d.globalDim, f"GLOBAL_DESCRIPTORS: image {i}: {row}"
    offsets = struct.unpack_from(f"<{d.imageCount + 1}I", content, at[Section.OBSERVATION_OFFSETS])
    yield at[Section.OBSERVATION_OFFSETS], 4 * len(offsets), f"OBSERVATION_OFFSETS: {', '.join(map(str, offsets))}"
    for i, (start, stop) in enumerate(pairwise(offsets)):
        begin, ids = at[Section.OBSERVATION_LISTS] + start, m.observed(i)
        k, high = parameters(len(ids), 1)
        low = (len(ids) * k + 7) // 8
        yield begin, 3, f"OBSERVATION_LISTS: image {i}: {len(ids)} landmarks in 1 tile, tile 0"
        yield begin + 3, low, f"  low parts, {k} bits each: {', '.join(str(v % (1 << k)) for v in ids)}"
        yield begin + 3 + low, stop - start - 3 - low, f"  high parts, {high} bits: all 0"
    origin = content[at[Section.TILES] : at[Section.TILES] + 12]
    x, y, z, step = struct.unpack_from("<4f", content, at[Section.TILES])
    yield at[Section.TILES], len(origin), f"TILES: tile 0: origin {x:.6f}, {y:.6f}, {z:.6f}"
    yield at[Section.TILES] + 12, 4, f"  step {step:.9f}"
    yield at[Section.TILES] + 16, 4, "  first descriptor 0"
    for i in range(d.landmarkCount):
        steps = ", ".join(map(str, struct.unpack_from("<3H", content, at[Section.LANDMARK_POSITIONS] + 6 * i)))
        yield at[Section.LANDMARK_POSITIONS] + 6 * i, 6, f"LANDMARK_POSITIONS: landmark {i}: {steps} steps"
    rows, owners = m.descriptor_rows(np.arange(d.landmarkCount))
    counts = ", ".join(map(str, np.bincount(owners)))
    length = sections[Section.DESCRIPTOR_COUNTS].length
    yield at[Section.DESCRIPTOR_COUNTS], length, f"DESCRIPTOR_COUNTS: {counts}, each less one in 2 bits"
    for row, owner in zip(rows, owners, strict=True):
        values = " ".join(str(v) for v in m.codes[row].view(np.int8))
        yield at[Section.DESCRIPTORS] + d.codeDim * int(row), d.codeDim, f"DESCRIPTORS: landmark {owner}: {values}"


def _meta(content: bytes, base: int) -> Iterator[Field]:
    """META is a FlatBuffers table: the root's offset, the vtable, the table, and strings after it."""
    table = MapDescription.GetRootAs(content, base)._tab
    vtable = table.Pos - struct.unpack_from("<i", content, table.Pos)[0]
    size, table_size = struct.unpack_from("<HH", content, vtable)
    yield base, 4, f"META: the table is at {base:#x} + {table.Pos - base:#x}"
    yield vtable, 4, f"  vtable of {size} bytes, table of {table_size}"
    yield vtable + 4, size - 4, "  where each field is in the table, 0: absent"
    yield table.Pos, 4, f"  the vtable is {table.Pos - vtable:#x} before this"
    d = LocalizationMap.read(content).description
    for slot, (name, camel) in enumerate(FIELDS.items()):
        offset, value = table.Offset(4 + 2 * slot), getattr(d, camel[0].lower() + camel[1:])
        if not offset:
            continue
        if isinstance(value, str):
            text = table.Indirect(table.Pos + offset)
            yield table.Pos + offset, 4, f"  {name} is {text - table.Pos - offset:#x} after this"
            yield text, 4, f"  {name}: {len(value)} bytes"
            yield text + 4, len(value) + 1, f"  {value!r} and a zero"
        else:
            length = 1 if name == "count_bits" else 8 if name.startswith("origin") else 4
            yield table.Pos + offset, length, f"  {name} {value}"


if __name__ == "__main__":
    print(dump((Path(__file__).parent / "minimal.hfmap").read_bytes()))
