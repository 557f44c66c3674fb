"""This module reads the outside of a map file: header, section table, checksums. What the sections hold
is `hfnet_edge.map.map_file`'s.

    ┌────────────────────┐ 0
    │ header, 64 bytes   │  magic, version, section count, file size, checksum of all up to the data
    ├────────────────────┤ 64
    │ section table      │  24 bytes a section: kind, offset, length
    ├────────────────────┤ next multiple of 64
    │ CHECKSUMS          │  CRC-32 of each block of 16 KiB of the data
    ├────────────────────┤ next multiple of 64: the data begins
    │ META               │
    │ IMAGE_NAMES ...    │  raw little-endian arrays, each at a multiple of 64
    └────────────────────┘

Opening reads up to the data (1/4096 of the file) and the small tables; a block is checked when it is first touched. So
a large map opens at once, and damage is noticed before it is used. The byte tables stand in maps/SPEC.md.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from hfnet_edge.errors import MapFormatError, MapVersionError

MAGIC = b"HFMAP\r\n\x1a"  # a text-mode copy changes it
VERSION = (2, 6)  # a reader refuses another major, accepts a larger minor
ALIGNMENT = 64
GAP = 2  # blocks that are fetched unasked between two others: asking again takes about as long
BLOCK = 16384  # bytes under one checksum: four pages, so that a query reads little more than it needs
HEADER = struct.Struct("<8sHHIQI36x")  # magic, major, minor, sections, file size, checksum
CHECKSUM_AT = 24  # of the header's own checksum, which it does not cover
ENTRY = struct.Struct("<I4xQQ")  # kind, offset, length
MAX_SECTIONS = 64  # bounds what a hostile header can make the reader do
REMEDY = "copy it again or build it again with `hfnet-map build`"


class Section(IntEnum):
    """Kinds of sections, in the order of the file; kinds from 64 on are for tools, a runtime skips them.

    M images, L landmarks in T tiles of 256, R descriptors of C bytes that decode to K dimensions.
    """

    CHECKSUMS = 1  # (blocks,) uint32
    META = 2  # FlatBuffers MapDescription
    IMAGE_NAMES = 3  # UTF-8, each followed by a newline, M times
    IMAGE_POSES = 4  # (M, 7) float64: quaternion wxyz, translation of cam_from_world
    GLOBAL_PROJECTION = 5  # (G, extractor's G) int8; absent: all dimensions are kept
    GLOBAL_DESCRIPTORS = 6  # (M, G) int8
    OBSERVATION_OFFSETS = 7  # (M + 1,) uint32 bytes into OBSERVATION_LISTS
    OBSERVATION_LISTS = 8  # per image, the landmarks that it observes: `hfnet_edge.map.observation_list`
    TILES = 9  # (T,) of `TILE`: origin, step, first descriptor
    LANDMARK_POSITIONS = 10  # (L, 3) uint16, in steps from the tile's origin
    DESCRIPTOR_COUNTS = 11  # L entries of META.count_bits bits, one less than the number of descriptors
    PROJECTION = 12  # (K, D) int8; absent: K = D
    THRESHOLDS = 13  # (K,) int32, of the codec "binary"
    CODEBOOK = 14  # (subspaces, 256, K / subspaces) int8, of the codec "pq"
    DESCRIPTORS = 15  # (R, C) bytes, by landmark
    RANDOM_TREES = 16  # `hfnet_edge.map.random_trees.TREES`: what sections to TREE_LANDMARKS hold; all or none
    TREE_COSTS = 17  # (2, 256) uint16 cost of bit 0 and of bit 1, by the query's int8 value in the order of its byte
    TREE_ROOTS = 18  # (trees,) uint32 nodes
    TREE_TESTS = 19  # (nodes,) uint8 dimension whose bit leads on
    TREE_CHILDREN = 20  # (nodes,) uint32 second child, or the number of a leaf with the top bit set
    TREE_LEAVES = 21  # (leaves + 1,) uint32 places in TREE_LANDMARKS
    TREE_LANDMARKS = 22  # (entries,) uint32 landmarks by leaf, increasing in each
    CALIBRATION = 23  # `hfnet_edge.map.calibration.SECTION`; absent: the bundled tables as they are
    HYPERCOLUMN_PROJECTION = 24  # as PROJECTION, THRESHOLDS and CODEBOOK, of the hypercolumns
    HYPERCOLUMN_THRESHOLDS = 25
    HYPERCOLUMN_CODEBOOK = 26
    HYPERCOLUMNS = 27  # (L, their codec's bytes), one a landmark; absent: the map has none
    SCENE_TREE = 28  # `hfnet_edge.map.scene_tree.SCENE_TREE`; absent: the map is of no scene network
    SCENE_LANDMARKS = 29  # (leaves,) uint32 landmark of each leaf
    GEOREFERENCE = 30  # `hfnet_edge.map.georeference.EARTH`; absent: the map's place on Earth is not known
    PLACE_TILES = 31  # `hfnet_edge.map.place_index.ROW`s; absent: the map is no index of a place in tiles
    SOURCE_IMAGES = 64  # UTF-8 lines, M times: network pixel, camera
    SOURCE_OBSERVED = 65  # (R, 2) float32 keypoints of the observations, pixels
    SOURCE_OTHER_OFFSETS = 66  # (M + 1,) uint32
    SOURCE_OTHER_KEYPOINTS = 67  # (P, 2) float32 keypoints without a landmark, pixels
    SOURCE_OTHER_DESCRIPTORS = 68  # (P, D) int8


@dataclass(frozen=True)
class SectionEntry:
    """One row of the section table: `kind` (a number that may be newer than `Section`), and where it lies."""

    kind: int
    offset: int
    length: int

    @property
    def name(self) -> str:
        return Section(self.kind).name if self.kind in set(Section) else f"UNKNOWN_{self.kind}"


class MapBytes:
    """A map file whose structure has been checked, and whose blocks are checked as they are read.

    Args:
        data: all bytes of the file. where: its name, for messages.
        fetch: brings the bytes from one place to another into ``data``, where they are not there yet
            (`hfnet_edge.map.remote`); None: all are there.

    Attributes:
        where: see above.
        sections: table rows by kind.

    Raises:
        MapFormatError, MapVersionError: by the constructor and by every read. And what ``fetch`` raises.
    """

    def __init__(
        self,
        data: memoryview | bytes | mmap.mmap,
        where: str = "the map",
        fetch: Callable[[int, int], None] | None = None,
    ):
        self.data, self.where, self._fetch = memoryview(data), where, fetch
        self._turn = threading.Lock()  # of threads that fetch
        if fetch is not None:
            _fetch_head(self.data, fetch)
        self.sections = {entry.kind: entry for entry in _read_table(self.data, where)}
        checksums = self.sections[Section.CHECKSUMS]
        self.start = aligned(checksums.offset + checksums.length)
        self._expected = np.frombuffer(data, "<u4", checksums.length // 4, checksums.offset)
        self._checked = np.zeros(len(self._expected), bool)

    def fail(self, what: str) -> MapFormatError:
        return MapFormatError(f"{self.where}: {what}", REMEDY)

    @property
    def touched(self) -> int:
        """Bytes of the file that have been read: all before the data, and the blocks that have been checked."""
        last = len(self.data) - self.start - BLOCK * (len(self._checked) - 1)
        return self.start + BLOCK * int(self._checked[:-1].sum()) + last * int(self._checked[-1:].sum())

    def check(self, start: int, stop: int) -> None:
        """Checks the blocks under the bytes ``start`` to ``stop`` of the file, those that have not been checked yet."""
        if stop > start:
            self._check_blocks(np.arange((start - self.start) // BLOCK, (stop - 1 - self.start) // BLOCK + 1))

    def _check_blocks(self, blocks: np.ndarray) -> None:
        if self._fetch is not None and not self._checked[blocks].all():
            with self._turn:
                self._fetch_blocks(self._fetch, blocks[~self._checked[blocks]])
        for block in blocks[~self._checked[blocks]]:
            if not self._whole(block):
                begin = self.start + int(block) * BLOCK
                raise self.fail(f"the {BLOCK} bytes at {begin} are damaged (checksum)")
            self._checked[block] = True

    def _whole(self, block: int) -> bool:
        """Whether a block's checksum agrees."""
        begin = self.start + int(block) * BLOCK
        return zlib.crc32(self.data[begin : begin + BLOCK]) == self._expected[block]

    def _fetch_blocks(self, fetch: Callable[[int, int], None], blocks: np.ndarray) -> None:
        """Fetches those of increasing ``blocks`` that are not there, neighbours at once."""
        absent = [int(block) for block in blocks if not self._whole(block)]
        first = 0
        for i in range(1, len(absent) + 1):
            if i == len(absent) or absent[i] - absent[i - 1] > 1 + GAP:
                fetch(self.start + absent[first] * BLOCK, self.start + (absent[i - 1] + 1) * BLOCK)
                first = i

    def check_rows(self, kind: Section, rows: np.ndarray, size: int) -> None:
        """Checks the blocks under some ``rows`` of ``size`` bytes of a section."""
        offset = self.sections[kind].offset - self.start
        begin = offset + np.asarray(rows, np.int64) * size
        first, last = begin // BLOCK, (begin + size - 1) // BLOCK
        longest = int((last - first).max(initial=0))
        touched = np.zeros(len(self._expected), bool)
        for step in range(longest + 1):
            touched[np.minimum(first + step, last)] = True
        self._check_blocks(np.flatnonzero(touched))

    def array(self, kind: Section, dtype: str | np.dtype, *shape: int, checked: bool = True) -> np.ndarray:
        """A section as an array, a view of the file.

        Args:
            shape: that the section must have.
            checked: whether its blocks are checked now. If not, `check_rows` must be asked before rows are used.
        """
        if kind not in self.sections:
            raise self.fail(f"section {kind.name} is missing")
        entry, item = self.sections[kind], np.dtype(dtype).itemsize
        count = 1
        for side in shape:
            count *= int(side)
        if entry.length != count * item:
            raise self.fail(f"section {kind.name} has {entry.length} bytes, META implies {count * item}")
        if checked:
            self.check(entry.offset, entry.offset + entry.length)
        return np.frombuffer(self.data, dtype, count, entry.offset).reshape(shape)

    def bytes(self, kind: Section) -> bytes:
        """A section's bytes, checked."""
        if kind not in self.sections:
            raise self.fail(f"section {kind.name} is missing")
        entry = self.sections[kind]
        self.check(entry.offset, entry.offset + entry.length)
        return bytes(self.data[entry.offset : entry.offset + entry.length])


def _fetch_head(data: memoryview, fetch: Callable[[int, int], None]) -> None:
    """Fetches what comes before the data, where it is not there. What is wrong with it is `_read_table`'s to say."""
    with suppress(MapFormatError):
        _read_table(data, "")
        return
    fetch(0, HEADER.size + MAX_SECTIONS * ENTRY.size)
    if len(data) >= HEADER.size + ENTRY.size:
        _, offset, length = ENTRY.unpack_from(data, HEADER.size)
        fetch(HEADER.size, min(len(data), aligned(offset + length)))


def open_file(path: Path) -> mmap.mmap:
    """The file, memory-mapped read-only. Raises MapFormatError where it is missing, empty or not a plain file."""
    remedy = "build one with `hfnet-map build`"
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as e:
        raise MapFormatError(f"there is no map {path}", remedy) from e
    except OSError as e:
        raise MapFormatError(f"cannot read the map {path}: {e.strerror or e}", remedy) from e
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MapFormatError(f"cannot read the map {path}: it is not a file", remedy)
        if not status.st_size:
            raise MapFormatError(f"the map {path} is empty", REMEDY)
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as e:
        raise MapFormatError(f"cannot read the map {path}: {e}", remedy) from e
    finally:
        os.close(descriptor)


def _read_table(data: memoryview, where: str) -> list[SectionEntry]:
    """Reads and checks all that comes before the data: version, sizes, order, no overlaps, no holes, checksum."""

    def fail(what: str) -> MapFormatError:
        return MapFormatError(f"{where} {what}", REMEDY)

    if len(data) < HEADER.size:
        raise fail(f"is {len(data)} bytes long, too short for a map")
    magic, major, minor, count, size, checksum = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise MapFormatError(f"{where} is not an hfnet-edge map", "build one with `hfnet-map build`")
    if major != VERSION[0]:
        raise MapVersionError(
            f"{where} is a version {major}.{minor} map, this is a version {VERSION[0]}.{VERSION[1]} reader",
            "update hfnet-edge" if major > VERSION[0] else "build it again with `hfnet-map build`",
        )
    if size != len(data):
        raise fail(f"should be {size} bytes and is {len(data)}: it is truncated or padded")
    table_end = HEADER.size + count * ENTRY.size
    if not 2 <= count <= MAX_SECTIONS or table_end > size:
        raise fail(f"claims {count} sections")
    entries = [SectionEntry(*ENTRY.unpack_from(data, HEADER.size + i * ENTRY.size)) for i in range(count)]
    if [e.kind for e in entries] != sorted({e.kind for e in entries}):
        raise fail("has sections that repeat or are out of order")
    end = table_end
    for entry in entries:
        if entry.offset != aligned(end) or entry.length > size - entry.offset:
            raise fail(f"has a section {entry.name} that overlaps, leaves a hole or ends past the file")
        end = entry.offset + entry.length
    if end != size:
        raise fail(f"has {size - end} bytes after its last section")
    checksums = entries[0]
    start = aligned(checksums.offset + checksums.length)
    if checksums.kind != Section.CHECKSUMS or checksums.length != -(-(size - start) // BLOCK) * 4:
        raise fail("has no checksum for each of its blocks")
    if head_checksum(data[:start]) != checksum:
        raise fail("has a damaged header (checksum)")
    end = table_end
    for entry in entries:
        if any(data[end : entry.offset]):
            raise fail("has bytes between its sections")
        end = entry.offset + entry.length
    return entries


def version_of(kinds: Collection[int]) -> tuple[int, int]:
    """The lowest version of the format that has all of these kinds of sections."""
    if Section.PLACE_TILES in kinds:
        return 2, 6
    if Section.GEOREFERENCE in kinds:
        return 2, 5
    if Section.SCENE_TREE in kinds:
        return 2, 4
    if Section.HYPERCOLUMNS in kinds:
        return 2, 3
    if Section.CALIBRATION in kinds:
        return 2, 2
    return (2, 1) if Section.RANDOM_TREES in kinds else (2, 0)


def head_checksum(head: memoryview | bytes | bytearray) -> int:
    """CRC-32 of all that comes before the data, without the checksum's own four bytes."""
    return zlib.crc32(head[CHECKSUM_AT + 4 :], zlib.crc32(head[:CHECKSUM_AT]))


def aligned(offset: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-offset // ALIGNMENT) * ALIGNMENT
