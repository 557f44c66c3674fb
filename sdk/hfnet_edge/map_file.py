"""The map file, read in place through mmap.

    ┌────────────────────┐ 0
    │ header, 64 bytes   │  magic, version, section count, file size, checksum of header and table
    ├────────────────────┤ 64
    │ section table      │  32 bytes a section: kind, checksum, offset, length
    ├────────────────────┤ next multiple of 64
    │ META               │  FlatBuffers `MapDescription`
    │ IMAGE_NAMES ...    │  raw little-endian arrays, each at a multiple of 64
    └────────────────────┘

Observations are grouped by reference image: row ``i`` of OBSERVATION_LANDMARKS and OBSERVATION_DESCRIPTORS belong to
image ``m`` with ``offsets[m] <= i < offsets[m + 1]``. So one contiguous read per retrieved image serves both
covisibility and matching, and a query touches nothing else.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from hfnet_edge.errors import MapFormatError, MapVersionError
from hfnet_edge.geometry import Pose
from hfnet_edge.schema.description_generated import MapDescription, MapDescriptionT

MAGIC = b"HFMAP\r\n\x1a"  # a text-mode copy changes it
VERSION = (1, 0)  # a reader refuses a larger major, accepts a larger minor
ALIGNMENT = 64
HEADER = struct.Struct("<8sHHIQI36x")  # magic, major, minor, sections, file size, checksum
ENTRY = struct.Struct("<IIQQ8x")  # kind, checksum, offset, length
MAX_SECTIONS = 64  # bounds what a hostile header can make the reader do
MAX_META = 1 << 20
UNIT = 127  # descriptors are unit vectors times 127, rounded
MAX_LOCAL_DIM = 1040  # 127 * 127 * 1040 < 2**24: float32 sums of products stay exact
MAX_GLOBAL_DIM = 4096  # as wide as HF-Net's; see `hfnet_edge.retrieval` for why sums stay exact


class Section(IntEnum):
    """Kinds of sections and what they hold; M images, L landmarks, O observations."""

    META = 1  # FlatBuffers MapDescription
    IMAGE_NAMES = 2  # UTF-8, each followed by a newline, M times
    IMAGE_POSES = 3  # (M, 7) float64: quaternion wxyz, translation of cam_from_world
    GLOBAL_DESCRIPTORS = 4  # (M, G) int8
    LANDMARK_POSITIONS = 5  # (L, 3) float32, relative to META's origin
    OBSERVATION_OFFSETS = 6  # (M + 1,) uint32, non-decreasing from 0 to O
    OBSERVATION_LANDMARKS = 7  # (O,) uint32 below L, strictly increasing inside an image
    OBSERVATION_DESCRIPTORS = 8  # (O, D) int8


@dataclass(frozen=True)
class LocalizationMap:
    """A place: reference images, landmarks and who observes what. Arrays are views of the file where it was opened.

    Attributes:
        description: what META says (`weights_hash`, `local_dim`, `global_dim`, counts, ...).
        image_names: M names.
        image_poses: (M, 7) float64, quaternion wxyz and translation of cam_from_world.
        global_descriptors: (M, G) int8.
        landmark_positions: (L, 3) float32, metres relative to ``origin``.
        observation_offsets: (M + 1,) uint32.
        observation_landmarks: (O,) uint32.
        observation_descriptors: (O, D) int8.
        origin: (3,) float64, the world position of the landmarks' frame.
        path: where it was read from, or None.
    """

    description: MapDescriptionT
    image_names: tuple[str, ...]
    image_poses: np.ndarray
    global_descriptors: np.ndarray
    landmark_positions: np.ndarray
    observation_offsets: np.ndarray
    observation_landmarks: np.ndarray
    observation_descriptors: np.ndarray
    origin: np.ndarray
    path: Path | None = None

    @classmethod
    def open(cls, path: Path | str) -> LocalizationMap:
        """Maps a file into memory after checking its structure, its checksums and every index in it.

        Raises:
            MapFormatError: missing, truncated, damaged, or not a map. MapVersionError: newer major version.
        """
        return _read(Path(path))

    def pose(self, image: int) -> Pose:
        """cam_from_world of a reference image."""
        row = self.image_poses[image]
        return Pose(row[:4].copy(), row[4:].copy())

    def observations(self, image: int) -> slice:
        """The rows of the observation arrays that belong to a reference image."""
        return slice(int(self.observation_offsets[image]), int(self.observation_offsets[image + 1]))

    def observation_count(self, image: int) -> int:
        """How many landmarks a reference image observes."""
        rows = self.observations(image)
        return rows.stop - rows.start


@dataclass(frozen=True)
class SectionEntry:
    """One row of a file's section table: `kind` (a number that may be newer than `Section`), bytes, checksum."""

    kind: int
    checksum: int
    offset: int
    length: int

    @property
    def name(self) -> str:
        return Section(self.kind).name if self.kind in set(Section) else f"UNKNOWN_{self.kind}"


def read_table(data: memoryview | bytes, where: str = "the map") -> list[SectionEntry]:
    """Reads and checks header and section table: version, sizes, order, no overlaps and no holes, checksums.

    Raises:
        MapFormatError, MapVersionError
    """
    remedy = "copy it again or build it again with `hfnet-map build`"
    if len(data) < HEADER.size:
        raise MapFormatError(f"{where} is {len(data)} bytes long, too short for a map", remedy)
    magic, major, minor, count, size, checksum = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise MapFormatError(f"{where} is not an hfnet-edge map", "build one with `hfnet-map build`")
    if major > VERSION[0]:
        raise MapVersionError(
            f"{where} is a version {major}.{minor} map, this is a version {VERSION[0]}.{VERSION[1]} reader",
            "update hfnet-edge",
        )
    if size != len(data):
        raise MapFormatError(f"{where} should be {size} bytes and is {len(data)}: it is truncated or padded", remedy)
    if not 1 <= count <= MAX_SECTIONS or HEADER.size + count * ENTRY.size > size:
        raise MapFormatError(f"{where} claims {count} sections", remedy)
    table_end = HEADER.size + count * ENTRY.size
    if table_checksum(data[:table_end]) != checksum:
        raise MapFormatError(f"{where} has a damaged header (checksum)", remedy)
    entries = [SectionEntry(*ENTRY.unpack_from(data, HEADER.size + i * ENTRY.size)) for i in range(count)]
    if [e.kind for e in entries] != sorted({e.kind for e in entries}):
        raise MapFormatError(f"{where} has sections that repeat or are out of order", remedy)
    end = table_end
    for entry in entries:
        if entry.offset != aligned(end) or entry.offset + entry.length > size:
            raise MapFormatError(f"{where}: section {entry.name} overlaps, leaves a hole or ends past the file", remedy)
        if any(data[end : entry.offset]):
            raise MapFormatError(f"{where} has bytes between its sections", remedy)
        end = entry.offset + entry.length
    if end != size:
        raise MapFormatError(f"{where} has {size - end} bytes after its last section", remedy)
    for entry in entries:
        if zlib.crc32(data[entry.offset : entry.offset + entry.length]) != entry.checksum:
            raise MapFormatError(f"{where}: section {entry.name} is damaged (checksum)", remedy)
    return entries


def table_checksum(head: memoryview | bytes) -> int:
    """CRC-32 of header and section table without the header's own checksum field (bytes 24 to 27)."""
    return zlib.crc32(head[28:], zlib.crc32(head[:24]))


def aligned(offset: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def map_bytes(path: Path) -> mmap.mmap:
    """The file, memory-mapped read-only. Raises MapFormatError where it is missing, empty or not a file."""
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as e:
        raise MapFormatError(f"there is no map {path}", "build one with `hfnet-map build`") from e
    except (OSError, ValueError) as e:
        raise MapFormatError(f"cannot read the map {path}: {e}", "build one with `hfnet-map build`") from e


def _read(path: Path) -> LocalizationMap:
    data = map_bytes(path)
    entries = {entry.kind: entry for entry in read_table(memoryview(data), str(path))}

    def fail(what: str) -> MapFormatError:
        return MapFormatError(f"{path}: {what}", "build it again with `hfnet-map build`")

    for kind in Section:
        if kind not in entries:
            raise fail(f"section {kind.name} is missing")
    meta = entries[Section.META]
    if meta.length > MAX_META:
        raise fail(f"META has {meta.length} bytes")
    description = read_description(data[meta.offset : meta.offset + meta.length], str(path))
    m, n, o = description.imageCount, description.landmarkCount, description.observationCount
    g, d = description.globalDim, description.localDim
    if not (1 <= d <= MAX_LOCAL_DIM and 1 <= g <= MAX_GLOBAL_DIM):
        raise fail(f"descriptors of {d} and {g} dimensions; at most {MAX_LOCAL_DIM} and {MAX_GLOBAL_DIM} are possible")

    def array(kind: Section, dtype: str, *shape: int) -> np.ndarray:
        entry = entries[kind]
        expected = int(np.dtype(dtype).itemsize * np.prod([int(s) for s in shape], dtype=object))
        if entry.length != expected:
            raise fail(f"section {kind.name} has {entry.length} bytes, META implies {expected}")
        return np.frombuffer(data, dtype, expected // np.dtype(dtype).itemsize, entry.offset).reshape(shape)

    names_entry = entries[Section.IMAGE_NAMES]
    try:
        names = tuple(data[names_entry.offset : names_entry.offset + names_entry.length].decode().split("\n"))
    except UnicodeDecodeError as e:
        raise fail(f"IMAGE_NAMES is not UTF-8: {e}") from e
    if len(names) != m + 1 or names[-1] != "":
        raise fail(f"IMAGE_NAMES holds {len(names) - 1} names, META says {m}")
    result = LocalizationMap(
        description,
        names[:-1],
        array(Section.IMAGE_POSES, "<f8", m, 7),
        array(Section.GLOBAL_DESCRIPTORS, "i1", m, g),
        array(Section.LANDMARK_POSITIONS, "<f4", n, 3),
        array(Section.OBSERVATION_OFFSETS, "<u4", m + 1),
        array(Section.OBSERVATION_LANDMARKS, "<u4", o),
        array(Section.OBSERVATION_DESCRIPTORS, "i1", o, d),
        np.array([description.originX, description.originY, description.originZ]),
        path,
    )
    check_contents(result, fail)
    return result


def check_contents(m: LocalizationMap, fail=lambda what: MapFormatError(what)) -> None:
    """Every index in range, every number finite. Raises what ``fail`` makes of the reason."""
    offsets, landmarks = m.observation_offsets.astype(np.int64), m.observation_landmarks
    if offsets[0] != 0 or offsets[-1] != len(landmarks) or (np.diff(offsets) < 0).any():
        raise fail("OBSERVATION_OFFSETS does not rise from 0 to the number of observations")
    if len(landmarks) and landmarks.max() >= len(m.landmark_positions):
        raise fail("OBSERVATION_LANDMARKS points past the last landmark")
    rises = np.diff(landmarks.astype(np.int64)) > 0
    starts = offsets[1:-1]
    rises[starts[(starts > 0) & (starts < len(landmarks))] - 1] = True  # a new image may start anywhere
    if not rises.all():
        raise fail("OBSERVATION_LANDMARKS is not strictly increasing inside an image")
    if not (
        np.isfinite(m.landmark_positions).all() and np.isfinite(m.image_poses).all() and np.isfinite(m.origin).all()
    ):
        raise fail("a position or a pose is not finite")
    if len(m.image_poses) and np.abs(np.linalg.norm(m.image_poses[:, :4], axis=1) - 1).max() > 1e-6:
        raise fail("a reference image's quaternion is not of unit length")


def read_description(buffer: bytes, where: str) -> MapDescriptionT:
    """Unpacks META. Python's flatbuffers has no verifier, so anything that it trips over becomes a MapFormatError."""
    try:
        description = MapDescriptionT.InitFromObj(MapDescription.GetRootAs(buffer, 0))
        for name in ("generator", "architecture", "weightsHash", "precision"):
            value = getattr(description, name)
            setattr(description, name, (value or b"").decode() if isinstance(value, bytes | None) else str(value))
        return description
    except Exception as e:
        raise MapFormatError(f"{where}: META is damaged ({type(e).__name__})", "build the map again") from e
