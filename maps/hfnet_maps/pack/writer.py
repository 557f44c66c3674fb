"""Lays a map out as the sections of a file, says how large they get, and writes them. The format: maps/SPEC.md."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, TypeVar

import flatbuffers
import numpy as np

from hfnet_edge.errors import InputError, MapFormatError
from hfnet_edge.map.codecs import CENTROIDS
from hfnet_edge.map.container import BLOCK, ENTRY, HEADER, MAGIC, Section, aligned, head_checksum, version_of
from hfnet_edge.map.map_file import (
    COUNT_BITS,
    MAX_ORIGIN,
    TILE,
    LocalizationMap,
    check_description,
    check_image_names,
    check_image_poses,
)
from hfnet_edge.map.observation_list import TILE_SIZE
from hfnet_edge.schema.description_generated import MapDescriptionT
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.writing import atomic_write
from hfnet_maps.build.trees import tree_sections
from hfnet_maps.content import BuiltMap, DescribedMap, MapContent, PackedMap, ReferenceKeypoints, Structure, content_of
from hfnet_maps.pack.observation_list import encode as encode_list
from hfnet_maps.pack.settings import Settings

FAR = 20
POSE = np.dtype(("<f8", 7))
OFFSET = np.dtype("<u4")
POSITION = np.dtype(("<u2", 3))  # steps of a tile
LIST_BITS, LIST_HEAD = 5.5, 7  # of OBSERVATION_LISTS, as they are in maps of photos: an observation; bytes an image
REST = 896  # bytes of header, table, META, CHECKSUMS, THRESHOLDS, CALIBRATION and padding, about

Sections = Mapping[Section, np.ndarray | bytes]
"""What a map file holds, without CHECKSUMS. Arrays are written as they are: little-endian, C order."""


Ordered = TypeVar("Ordered", bound=Structure)


def in_file_order(source: Ordered) -> Ordered:
    """Renumbers the landmarks so that neighbours share a tile. Every subset that keeps this order keeps that too."""
    return source.take(spatial_order(source.positions))


def full_sections(source: MapContent) -> Sections:
    """Everything as it is; a `BuiltMap`, which is uncompacted, can be packed later."""
    return _full_sections(in_file_order(source))


def built_sections(source: BuiltMap | DescribedMap, progress: Report = silent) -> Sections:
    """`full_sections`, and random trees where a patch network describes the landmarks."""
    source = in_file_order(source)
    sections = dict(_full_sections(source))
    if source.networks.of_patches:
        sections |= trees_of(source, progress)
    return sections


def added_sections(source: BuiltMap, before: LocalizationMap, progress: Report = silent) -> Sections:
    """`built_sections` of a map whose first landmarks are all those of ``before``, in its order, and the others in
    `added_order`. Those of whole tiles keep their positions bit for bit; see `added_order` for the last ones."""
    sections = dict(_full_sections(source, before))
    if source.networks.of_patches:
        sections |= trees_of(source, progress)
    return sections


def added_order(before: LocalizationMap, positions: np.ndarray) -> np.ndarray:
    """An order for landmarks that are added to a map: those that its last tile has room for, nearest to it first, then
    the others so that neighbours share a tile.

    Where so many do not lie in that tile it has to grow, and its old landmarks move by half a step of it at most.

    Args:
        positions: (L, 3) world.
    """
    rows = np.arange(len(positions))
    room = -before.landmark_count % TILE_SIZE
    if room:
        tile = _tiles_of(before)[-1]
        low = tile["origin"].astype(np.float64)
        outside = positions - before.origin - low
        outside = np.maximum(np.maximum(-outside, outside - 65535 * np.float64(tile["step"])), 0)
        rows = np.argsort(np.linalg.norm(outside, axis=1), kind="stable")
    rest = np.sort(rows[room:])
    return np.concatenate([rows[:room], rest[spatial_order(positions[rest])]])


def steps_of(map_: LocalizationMap) -> np.ndarray:
    """(L,) resolution of the landmarks' positions, in the map's unit."""
    return np.repeat(_tiles_of(map_)["step"].astype(np.float64), TILE_SIZE)[: map_.landmark_count]


def _tiles_of(map_: LocalizationMap) -> np.ndarray:
    return map_.file.array(Section.TILES, TILE, -(-map_.landmark_count // TILE_SIZE))


def _full_sections(source: MapContent, before: LocalizationMap | None = None) -> Sections:
    """`full_sections` of a source that is `in_file_order`."""
    sections = dict(lay_out(source, before))
    if isinstance(source, BuiltMap):
        sections |= _keypoint_sections(source.keypoints)
    return sections


def trees_of(source: BuiltMap | DescribedMap, progress: Report = silent) -> Sections:
    """The sections of random trees over a source `in_file_order`, from all its descriptors."""
    landmarks = len(source.positions)
    return tree_sections(
        source.descriptors, source.described, landmarks, source.networks.weights_hash, progress=progress
    )


def lay_out(content: MapContent, before: LocalizationMap | None = None) -> Sections:
    """The sections that localization needs; not those for packing again.

    Args:
        content: its landmarks `in_file_order`.
        before: a map that they were added to, see `added_sections`.

    Raises:
        InputError: the parts do not fit together.
    """
    source = content.encoded()
    _check(source)
    poses = np.array([[*p.quaternion, *p.translation] for p in source.poses], POSE.base).reshape(-1, *POSE.shape)
    kept = np.zeros(0, TILE)
    if before is not None and before.landmark_count:
        origin, kept = before.origin, _tiles_of(before)
    else:
        origin = source.positions.mean(axis=0) if len(source.positions) else np.zeros(3)
    tiles, positions = _positions(source, origin, kept)
    bits, counts = _counts(source.described, len(source.positions))
    codec = source.codec
    lists = [encode_list(source.landmarks[source.observed(image)]) for image in range(len(source.names))]
    if sum(map(len, lists)) >= 1 << 32:
        raise InputError(f"{len(source.images)} observations are too many for one map", "split it")

    n, d = source.networks, MapDescriptionT()
    d.generator = f"hfnet-edge {version('hfnet-edge')}"
    d.architecture, d.weightsHash, d.precision = n.architecture, n.weights_hash, n.precision
    d.globalWeightsHash, d.localRole = n.global_weights_hash or None, n.local_role or None
    d.localDim, d.extractorGlobalDim, d.globalDim = n.local_dim, n.global_dim, source.global_descriptors.shape[1]
    d.imageCount, d.landmarkCount, d.observationCount = len(source.names), len(source.positions), len(source.images)
    d.originX, d.originY, d.originZ = (float(v) for v in origin)
    d.codec, d.codeDim, d.subspaces = str(codec.name), codec.dim, 0 if codec.codebook is None else len(codec.codebook)
    d.countBits, d.descriptorCount = bits, len(source.codes)
    if (h := source.hypercolumns) is not None:
        d.hypercolumnDim, d.hypercolumnCodec, d.hypercolumnCodeDim = h.dim, str(h.codec.name), h.codec.dim
        d.hypercolumnSubspaces = 0 if h.codec.codebook is None else len(h.codec.codebook)
    try:  # what readers refuse, before hours of work
        check_description(d)
        check_image_names(source.names)
        check_image_poses(poses)
    except ValueError as e:
        raise _refused(e) from e
    builder = flatbuffers.Builder(1024)
    builder.Finish(d.Pack(builder))

    sections: dict[Section, np.ndarray | bytes | None] = {
        Section.META: bytes(builder.Output()),
        Section.IMAGE_NAMES: _names(source.names),
        Section.IMAGE_POSES: poses,
        Section.GLOBAL_PROJECTION: source.global_projection,
        Section.GLOBAL_DESCRIPTORS: source.global_descriptors,
        Section.OBSERVATION_OFFSETS: np.cumsum([0, *map(len, lists)]).astype(OFFSET),
        Section.OBSERVATION_LISTS: b"".join(lists),
        Section.TILES: tiles,
        Section.LANDMARK_POSITIONS: positions,
        Section.DESCRIPTOR_COUNTS: counts if bits else None,
        Section.PROJECTION: codec.projection,
        Section.THRESHOLDS: codec.thresholds,
        Section.CODEBOOK: codec.codebook,
        Section.DESCRIPTORS: source.codes,
        Section.CALIBRATION: None if source.calibration is None else source.calibration.to_bytes(),
        Section.HYPERCOLUMN_PROJECTION: None if h is None else h.codec.projection,
        Section.HYPERCOLUMN_THRESHOLDS: None if h is None else h.codec.thresholds,
        Section.HYPERCOLUMN_CODEBOOK: None if h is None else h.codec.codebook,
        Section.HYPERCOLUMNS: None if h is None else h.codes,
    }
    scene = {} if source.scene is None else source.scene.sections(len(source.positions))
    earth = {} if source.earth is None else source.earth.sections()
    return {kind: part for kind, part in sections.items() if part is not None} | scene | earth


@dataclass(frozen=True)
class Counts:
    """How much N maps of the same images hold.

    Attributes:
        names: of the images.
        landmarks, observations, descriptors: (N,) numbers.
        local_dim, global_dim: of the networks. hypercolumn_dim: likewise; 0: there are none.
        scene_leaves: of a scene network's tree.
    """

    names: Sequence[str]
    landmarks: np.ndarray
    observations: np.ndarray
    descriptors: np.ndarray
    local_dim: int
    global_dim: int
    hypercolumn_dim: int = 0
    scene_leaves: int = 0


def expected_lengths(counts: Counts, settings: Settings) -> dict[Section, float | np.ndarray]:
    """Bytes of the sections that `lay_out` will make, without making them; not of META and THRESHOLDS.

    They are exact, but for OBSERVATION_LISTS, whose lengths depend on which landmarks an image sees; for TILES and
    DESCRIPTOR_COUNTS, which are not rounded up; and for the width of counts, where no landmark has as many descriptors
    as the settings allow.
    """
    c, s, images = counts, settings, len(counts.names)
    h, dim = s.of_hypercolumns(c.hypercolumn_dim), c.hypercolumn_dim
    return {
        Section.IMAGE_NAMES: len(_names(c.names)),
        Section.IMAGE_POSES: images * POSE.itemsize,
        Section.GLOBAL_PROJECTION: s.global_dim * c.global_dim * (s.global_dim < c.global_dim),
        Section.GLOBAL_DESCRIPTORS: images * s.global_dim,
        Section.OBSERVATION_OFFSETS: (images + 1) * OFFSET.itemsize,
        Section.OBSERVATION_LISTS: images * LIST_HEAD + c.observations * LIST_BITS / 8,
        Section.TILES: c.landmarks * TILE.itemsize / TILE_SIZE,
        Section.LANDMARK_POSITIONS: c.landmarks * POSITION.itemsize,
        Section.DESCRIPTOR_COUNTS: c.landmarks * _count_bits(s.per_landmark) / 8,
        Section.PROJECTION: s.dim * c.local_dim * s.projects(c.local_dim),
        Section.CODEBOOK: s.dim * CENTROIDS * bool(s.subspaces),
        Section.DESCRIPTORS: c.descriptors * s.row_bytes,
        Section.HYPERCOLUMN_PROJECTION: h.dim * dim * h.projects(dim),
        Section.HYPERCOLUMN_CODEBOOK: h.dim * CENTROIDS * bool(h.subspaces),
        Section.HYPERCOLUMNS: c.landmarks * h.row_bytes,
        Section.SCENE_LANDMARKS: 4 * c.scene_leaves,
    }


def expected_size(counts: Counts, settings: Settings) -> np.ndarray:
    """(N,) bytes of the file that `lay_out` and `write_map` will make: but for what `expected_lengths` does not know
    exactly, within 700 bytes."""
    size = np.full(len(counts.landmarks), float(REST))
    for length in expected_lengths(counts, settings).values():
        size += length
    return size


def write_map(sections: Sections, path: Path | str) -> int:
    """Writes a map file atomically and returns its size in bytes.

    Raises:
        OutputError: it cannot be written.
        InputError: no reader would accept it, SOURCE sections included. Nothing is left of it.
    """
    with atomic_write(path) as file:
        return write_into(sections, file)


def write_into(sections: Sections, file: BinaryIO) -> int:
    """Writes a map into an empty file, open for reading too; its size in bytes. Raises InputError: see `write_map`."""
    size = _write(sections, file)
    file.flush()
    try:
        content_of(LocalizationMap.read(mmap(file.fileno(), 0, access=ACCESS_READ)))
    except MapFormatError as e:
        raise _refused(e.problem.removeprefix("the map: ")) from e
    return size


def _refused(why: object) -> InputError:
    return InputError(f"no reader would open the map: {why}", "correct it where the map comes from")


def to_map(sections: Sections) -> LocalizationMap:
    """The map without a file, exactly as if it had been written and opened."""
    from io import BytesIO

    file = BytesIO()
    _write(sections, file)
    return LocalizationMap.read(file.getvalue())


def size_of(sections: Sections) -> int:
    """Bytes of the file."""
    return _table(sections)[2]


def spatial_order(positions: np.ndarray) -> np.ndarray:
    """An order of landmarks in which every 256 form a box: halves along the longest side, again and again.

    Landmarks `FAR` times as far out as half of them come last, by distance: a tile's resolution is that of its farthest
    landmark.

    Args:
        positions: (L, 3).
    """
    distance = np.linalg.norm(positions - np.median(positions, axis=0), axis=1) if len(positions) else np.zeros(0)
    order = np.argsort(distance, kind="stable")
    near = int(np.searchsorted(distance[order], FAR * np.median(distance), side="right")) if len(order) else 0
    near = near if near == len(order) else near // TILE_SIZE * TILE_SIZE
    order[:near] = np.sort(order[:near])
    parts = [(0, near)]
    while parts:
        start, stop = parts.pop()
        tiles = -(-(stop - start) // TILE_SIZE)
        if tiles < 2:
            continue
        part = order[start:stop]
        at = positions[part]
        axis = int(np.argmax(np.percentile(at, 95, axis=0) - np.percentile(at, 5, axis=0)))
        half = tiles // 2 * TILE_SIZE
        order[start:stop] = part[np.argsort(at[:, axis], kind="stable")]
        parts += [(start, start + half), (start + half, stop)]
    return order


def _positions(source: PackedMap, origin: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """TILES and LANDMARK_POSITIONS.

    Args:
        kept: (K,) of the first tiles, used where they hold all their landmarks.
    """
    local = source.positions - origin
    first_descriptor = np.searchsorted(source.described, np.arange(0, len(local), TILE_SIZE))
    tiles = np.zeros(-(-len(local) // TILE_SIZE), TILE)
    steps = np.zeros(len(local), POSITION)
    for i in range(len(tiles)):
        rows = slice(i * TILE_SIZE, (i + 1) * TILE_SIZE)
        if i < len(kept):
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # a tile may be a point
                at = np.rint((local[rows] - kept[i]["origin"].astype(np.float64)) / np.float64(kept[i]["step"]))
            if ((at >= 0) & (at <= 65535)).all():
                tiles[i] = kept[i]["origin"], kept[i]["step"], first_descriptor[i]
                steps[rows] = at
                continue
        low = local[rows].min(axis=0).astype(np.float32)
        low = np.where(low > local[rows].min(axis=0), np.nextafter(low, np.float32(-np.inf)), low)
        size = float((local[rows].max(axis=0) - low).max())
        step = np.nextafter(np.float32(size / 65535), np.float32(np.inf))
        tiles[i] = low, step, first_descriptor[i]
        steps[rows] = np.minimum(np.rint((local[rows] - low.astype(np.float64)) / np.float64(step)), 65535)
    return tiles, steps


def _count_bits(most: int) -> int:
    """META's count_bits, where no landmark has more than so many descriptors. Raises InputError."""
    for bits in COUNT_BITS:
        if most <= 1 << bits:
            return bits
    raise InputError(f"a landmark has {most} descriptors, a map file holds {1 << COUNT_BITS[-1]}", "leave images out")


def _counts(described: np.ndarray, landmarks: int) -> tuple[int, np.ndarray]:
    """META's count_bits and DESCRIPTOR_COUNTS."""
    counts = np.bincount(described, minlength=landmarks) - 1
    bits = _count_bits(int(counts.max(initial=0)) + 1)
    if bits == 2:
        padded = np.pad(counts, (0, -len(counts) % 4)).reshape(-1, 4).astype(np.uint8)
        return bits, (padded << np.arange(0, 8, 2, dtype=np.uint8)).sum(axis=1).astype(np.uint8)
    return bits, counts.astype("<u2").view(np.uint8)


def _keypoint_sections(keypoints: ReferenceKeypoints) -> dict[Section, np.ndarray | bytes]:
    k = keypoints
    if not ((k.other_offsets >= 0) & (k.other_offsets < 1 << 32)).all():
        raise _refused("SOURCE_OTHER_OFFSETS are not numbers of 32 bits")
    lines = [f"{pixel!r} {camera}\n" for pixel, camera in zip(k.pixels.tolist(), k.cameras, strict=True)]
    return {
        Section.SOURCE_IMAGES: "".join(lines).encode(),
        Section.SOURCE_OBSERVED: k.observed.astype("<f4"),
        Section.SOURCE_OTHER_OFFSETS: k.other_offsets.astype("<u4"),
        Section.SOURCE_OTHER_KEYPOINTS: k.others.astype("<f4"),
        Section.SOURCE_OTHER_DESCRIPTORS: k.other_descriptors,
    }


def _names(names: Sequence[str]) -> bytes:
    """IMAGE_NAMES."""
    return "".join(f"{name}\n" for name in names).encode()


def _check(source: Structure) -> None:
    """What has to be so before sections can be laid out; the rest is for the reader's own checks."""
    if not (np.abs(source.positions) < MAX_ORIGIN).all():
        raise InputError(
            f"the position of a landmark is not finite, or {MAX_ORIGIN:g} units or more from the origin",
            "check the reference's poses",
        )


def _table(sections: Sections) -> tuple[list[tuple[Section, int, int]], int, int]:
    """Kind, offset and length of every section, where the data begins, and the size of the file."""
    lengths = {kind: part.nbytes if isinstance(part, np.ndarray) else len(part) for kind, part in sections.items()}
    after_table = aligned(HEADER.size + (len(sections) + 1) * ENTRY.size)
    offset = 0  # from where the data begins
    rows = []
    for kind in sorted(sections):
        offset = aligned(offset)
        rows.append((kind, offset, lengths[kind]))
        offset += lengths[kind]
    checksums = 4 * -(-offset // BLOCK)
    start = aligned(after_table + checksums)
    table = [(Section.CHECKSUMS, after_table, checksums), *((kind, start + at, length) for kind, at, length in rows)]
    return table, start, start + offset


def _write(sections: Sections, file: BinaryIO) -> int:
    """Header and table first, then the data block by block, then the checksums in their place."""
    table, start, size = _table(sections)
    head = bytearray(start)
    for i, row in enumerate(table):
        ENTRY.pack_into(head, HEADER.size + i * ENTRY.size, *row)
    file.write(head)
    checksums: list[int] = []
    pending = bytearray()  # data of the block that is not full yet

    def put(data: memoryview | bytes) -> None:
        view = memoryview(data)
        while len(view):
            taken = view[: BLOCK - len(pending)]
            pending.extend(taken)
            view = view[len(taken) :]
            if len(pending) == BLOCK:
                flush()

    def flush() -> None:
        checksums.append(zlib.crc32(pending))
        file.write(pending)
        pending.clear()

    at = start
    for (_, offset, length), kind in zip(table[1:], sorted(sections), strict=True):
        put(bytes(offset - at))
        part = sections[kind]
        put(memoryview(np.ascontiguousarray(part)).cast("B") if isinstance(part, np.ndarray) and part.size else b"")
        put(part if isinstance(part, bytes) else b"")
        at = offset + length
    if pending:
        flush()
    where = table[0][1]
    head[where : where + table[0][2]] = np.array(checksums, "<u4").tobytes()
    HEADER.pack_into(head, 0, MAGIC, *version_of(sections), len(table), size, 0)
    HEADER.pack_into(head, 0, MAGIC, *version_of(sections), len(table), size, head_checksum(head))
    file.seek(0)
    file.write(head)
    return size
