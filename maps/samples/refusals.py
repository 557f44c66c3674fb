"""What a reader of maps must refuse: changes to a sample, with checksums made right where a case says so."""

from __future__ import annotations

import math
import struct
import zlib

from hfnet_edge.map.container import BLOCK, CHECKSUM_AT, ENTRY, HEADER, Section, aligned, head_checksum
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.schema import description_generated as schema

FIELDS = {
    "generator": "Generator", "architecture": "Architecture", "weights_hash": "WeightsHash", "precision": "Precision",
    "local_dim": "LocalDim", "global_dim": "GlobalDim", "image_count": "ImageCount", "landmark_count": "LandmarkCount",
    "observation_count": "ObservationCount", "origin_x": "OriginX", "origin_y": "OriginY", "origin_z": "OriginZ",
    "extractor_global_dim": "ExtractorGlobalDim", "codec": "Codec", "code_dim": "CodeDim", "subspaces": "Subspaces",
    "count_bits": "CountBits", "descriptor_count": "DescriptorCount",
}  # of version 2.0  # fmt: skip
HYPERCOLUMN_FIELDS = {
    "hypercolumn_dim": "HypercolumnDim",
    "hypercolumn_codec": "HypercolumnCodec",
    "hypercolumn_code_dim": "HypercolumnCodeDim",
    "hypercolumn_subspaces": "HypercolumnSubspaces",
}  # of version 2.3


def sealed(content: bytes | bytearray) -> bytes:
    """With all checksums made right, as a hostile writer would."""
    changed = bytearray(content)
    _, offset, length = ENTRY.unpack_from(changed, HEADER.size)
    start = aligned(offset + length)
    for block in range(length // 4):
        begin = start + block * BLOCK
        struct.pack_into("<I", changed, offset + 4 * block, zlib.crc32(changed[begin : begin + BLOCK]))
    struct.pack_into("<I", changed, CHECKSUM_AT, head_checksum(bytes(changed[:start])))
    return bytes(changed)


def refused(content: bytes) -> list[dict[str, object]]:
    """Changes to a map, checksums made right where it says so, that a reader must refuse."""
    sections = LocalizationMap.read(content).file.sections
    rows: dict[int, int] = {kind: HEADER.size + i * ENTRY.size for i, kind in enumerate(sections)}
    at = {kind.name: sections[kind].offset for kind in Section if kind in sections}
    table = schema.MapDescription.GetRootAs(content, at["META"])._tab
    meta = {name: table.Pos + table.Offset(4 + 2 * slot) for slot, name in enumerate(FIELDS)}
    codec = table.Indirect(meta["codec"]) + 4
    first_list, counts = at["OBSERVATION_LISTS"], at["DESCRIPTOR_COUNTS"]
    names, poses, offsets, tiles = (at[k] for k in ("IMAGE_NAMES", "IMAGE_POSES", "OBSERVATION_OFFSETS", "TILES"))
    entry = rows[Section.LANDMARK_POSITIONS]
    _, offset, length = ENTRY.unpack_from(content, entry)
    nan4, nan8 = struct.pack("<f", math.nan), struct.pack("<d", math.nan)

    def u(width: str, value: int) -> bytes:
        return struct.pack("<" + width, value)

    plain = [
        ("another magic, as a text-mode copy leaves it", 4, b"\n"),
        ("a damaged magic", 0, b"h"),
        ("a damaged checksum of the head", CHECKSUM_AT, u("I", 0)),
        ("a damaged header", 40, b"\1"),
        ("a damaged CHECKSUMS", at["CHECKSUMS"], u("I", 0)),
        ("damaged data, in META", at["META"] + 100, bytes([content[at["META"] + 100] ^ 1])),
        ("damaged data, in the last byte", len(content) - 1, bytes([content[-1] ^ 128])),
    ]
    with_right_checksums = [
        ("major version 1", 8, u("H", 1)),
        ("major version 3", 8, u("H", 3)),
        ("a file size that is one too large", 16, u("Q", len(content) + 1)),
        ("a section too few", 12, u("I", len(sections) - 1)),
        ("more sections than the limit", 12, u("I", 65)),
        ("2^32 - 1 sections", 12, u("I", 2**32 - 1)),
        ("two sections that change places", rows[3], u("I", 4) + content[rows[3] + 4 : rows[4]] + u("I", 3)),
        ("a section that repeats", rows[Section.IMAGE_POSES], u("I", 3)),
        ("CHECKSUMS missing", rows[Section.CHECKSUMS], u("I", 0)),
        ("DESCRIPTORS missing, an unknown section in its place", rows[Section.DESCRIPTORS], u("I", 16)),
        ("an offset that leaves a hole", entry + 8, u("Q", offset + 64)),
        ("an offset that overlaps", entry + 8, u("Q", offset - 64)),
        ("an offset that is not a multiple of 64", entry + 8, u("Q", offset + 4)),
        ("an offset near 2^64", entry + 8, u("Q", 2**64 - 64)),
        ("a length near 2^64", entry + 16, u("Q", 2**64 - offset)),
        ("a length that is a landmark short", entry + 16, u("Q", length - 6)),
        ("a byte between sections", offset - 1, b"\1"),
        ("META without a table in it", at["META"], u("I", 2**31)),
        ("a local_dim of 0", meta["local_dim"], u("I", 0)),
        ("a local_dim above the limit", meta["local_dim"], u("I", 1041)),
        ("a global_dim above the extractor's", meta["global_dim"], u("I", 5)),
        ("an extractor_global_dim without GLOBAL_PROJECTION", meta["extractor_global_dim"], u("I", 5)),
        ("more images than the sections hold", meta["image_count"], u("I", 2**32 - 1)),
        ("fewer landmarks than the sections hold", meta["landmark_count"], u("I", 5)),
        ("another number of descriptors", meta["descriptor_count"], u("I", 2**32 - 1)),
        ("a codec that does not exist", codec, b"int9"),
        ("a control character in META", table.Indirect(meta["generator"]) + 4, b"\x1b"),
        ("a code_dim without PROJECTION", meta["code_dim"], u("I", 4)),
        ("a count_bits that does not exist", meta["count_bits"], b"\3"),
        ("count_bits 0 where numbers of landmarks and descriptors differ", meta["count_bits"], b"\0"),
        ("an origin that is not finite", meta["origin_y"], nan8),
        ("an origin that is too far", meta["origin_x"], struct.pack("<d", -1e15)),
        ("a name that is not UTF-8", names, b"\xff"),
        ("a name too many", names, b"\n"),
        ("a pose that is not finite", poses + 6 * 8, nan8),
        ("a quaternion that is not of unit length", poses, struct.pack("<d", 2.0)),
        ("a list that ends before it begins", offsets + 4, u("I", 2**32 - 1)),
        ("a list past the section's end", offsets + 12, u("I", 2**20)),
        ("a list that begins inside another", offsets, u("I", 1)),
        ("a list that ends inside another", offsets + 12, u("I", sections[Section.OBSERVATION_LISTS].length - 1)),
        ("a list of no landmarks", first_list, b"\0"),
        ("a list of more landmarks than its tiles have", first_list, b"\x81\x02\1"),
        ("a list of no tiles", first_list + 1, b"\0"),
        ("a list of more tiles than landmarks", first_list + 1, b"\x0f"),
        ("a number that does not end", first_list, b"\xff" * 6),
        ("a list without high parts", first_list + content[offsets + 4] - 2, b"\0\0"),
        ("a tile past the last", first_list + 2, b"\1"),
        ("a list that does not increase", first_list + 3, b"\xff"),
        ("a landmark past the last", first_list + 5, bytes([content[first_list + 5] & 0x0F | 0x60])),  # 5 becomes 6
        ("a tile whose origin is not finite", tiles, nan4),
        ("a tile whose step is not finite", tiles + 12, nan4),
        ("a tile whose descriptors lie past the last", tiles + 16, u("I", 2**32 - 1)),
        ("a tile of which one descriptor lies past the last", tiles + 16, u("I", 1)),
    ]  # fmt: skip
    with_right_checksums += (whole := [
        ("another number of observations", meta["observation_count"], u("I", 1)),
        ("a list that does not begin where the one before ends", offsets, u("I", 9)),
        ("a landmark with one descriptor fewer", counts, bytes([content[counts] - 1])),
    ])  # fmt: skip
    cases: list[dict[str, object]] = [{"why": "a truncated file", "bytes": len(content) - 1}]
    for why, where, new in plain:
        cases.append({"why": why, "edits": [[where, new.hex()]]})
    for case in with_right_checksums:
        cases.append(checksummed(content, *case))
        if case in whole:
            cases[-1]["check"] = "whole"
    return cases


def refused_calibrations(content: bytes) -> list[tuple[str, int, bytes]]:
    """Changes to a calibrated map, for `checksummed`."""
    sections = LocalizationMap.read(content).file.sections
    at = sections[Section.CALIBRATION].offset
    return [
        ("a slope of 0", at, struct.pack("<i", 0)),
        ("a slope below 0", at + 8, struct.pack("<i", -4096)),
        ("a slope above the limit", at, struct.pack("<i", 16385)),
        ("the largest slope of 32 bits", at + 8, struct.pack("<i", 2**31 - 1)),
        ("an offset above the limit", at + 4, struct.pack("<i", 14001)),
        ("an offset below the limit", at + 12, struct.pack("<i", -14001)),
        ("the least offset of 32 bits", at + 4, struct.pack("<i", -(2**31))),
        ("more images than the limit", at + 16, struct.pack("<I", 2**24 + 1)),
        ("2^32 - 1 images", at + 16, struct.pack("<I", 2**32 - 1)),
    ]


def refused_hypercolumns(content: bytes) -> list[tuple[str, int, bytes]]:
    """Changes to a map with hypercolumns in `pq`, for `checksummed`, that a reader which searches with them must
    refuse."""
    m = LocalizationMap.read(content)
    sections, d = m.file.sections, m.description
    table = schema.MapDescription.GetRootAs(content, sections[Section.META].offset)._tab
    dim, codec, code_dim, subspaces = (table.Pos + table.Offset(44 + 2 * i) for i in range(len(HYPERCOLUMN_FIELDS)))
    rows = {kind: HEADER.size + i * ENTRY.size for i, kind in enumerate(sections)}

    def u4(value: int) -> bytes:
        return struct.pack("<I", value)

    return [
        ("hypercolumns above the limit", dim, u4(1041)),
        ("hypercolumns of 2^32 - 1 dimensions", dim, u4(2**32 - 1)),
        ("hypercolumns of other dimensions than their projection", dim, u4(d.hypercolumnDim - 1)),
        ("a codec of hypercolumns that does not exist", table.Indirect(codec) + 4, b"pr"),
        ("no codec of hypercolumns", table.Indirect(codec), u4(0)),
        ("a code_dim of hypercolumns of 0", code_dim, u4(0)),
        ("a code_dim of hypercolumns above the limit", code_dim, u4(1041)),
        ("a code_dim of hypercolumns of 2^32 - 1", code_dim, u4(2**32 - 1)),
        ("another code_dim of hypercolumns than their tables'", code_dim, u4(2 * d.hypercolumnCodeDim)),
        ("no subspaces of hypercolumns", subspaces, u4(0)),
        ("subspaces that do not divide the code_dim of hypercolumns", subspaces, u4(4)),
        ("more subspaces of hypercolumns than dimensions", subspaces, u4(2 * d.hypercolumnCodeDim)),
        ("2^32 - 1 subspaces of hypercolumns", subspaces, u4(2**32 - 1)),
        ("another number of subspaces of hypercolumns than the rows have", subspaces, u4(2)),
        ("HYPERCOLUMNS missing, an unknown section in its place", rows[Section.HYPERCOLUMNS], u4(40)),
        (
            "HYPERCOLUMN_CODEBOOK missing, a section that is not called for in its place",
            rows[Section.HYPERCOLUMN_CODEBOOK],
            u4(25),
        ),
        (
            "HYPERCOLUMN_PROJECTION missing, a section that is not called for in its place",
            rows[Section.HYPERCOLUMN_PROJECTION],
            u4(25),
        ),
    ]


def refused_scene_trees(content: bytes) -> list[tuple[str, int, bytes]]:
    """Changes to a map with a scene tree of 4 x 3 labels, for `checksummed`, that a reader which runs its network must
    refuse."""
    sections = LocalizationMap.read(content).file.sections
    rows = {kind: HEADER.size + i * ENTRY.size for i, kind in enumerate(sections)}
    at, leaves = sections[Section.SCENE_TREE].offset, sections[Section.SCENE_LANDMARKS].offset

    def u4(value: int) -> bytes:
        return struct.pack("<I", value)

    return [
        ("a scene tree of no levels", at, u4(0)),
        ("a scene tree of five levels", at, u4(5)),
        ("a scene tree with labels below its last level", at, u4(1)),
        ("a level without labels", at + 4, u4(0)),
        ("a level of too many labels", at + 4, u4(1025)),
        ("a level of 2^32 - 1 labels", at + 8, u4(2**32 - 1)),
        ("another number of leaves than there are landmarks of them", at + 8, u4(4)),
        ("labels of a level that there is not", at + 16, u4(1)),
        ("a scene tree of another number of landmarks", at + 20, u4(11)),
        ("a hash that is not ASCII", at + 24, b"\xff"),
        ("a leaf past the last landmark", leaves, u4(10)),
        ("a leaf far past the last landmark", leaves + 44, u4(2**32 - 2)),
        ("SCENE_LANDMARKS missing, an unknown section in its place", rows[Section.SCENE_LANDMARKS], u4(40)),
    ]


def refused_georeferences(content: bytes) -> list[tuple[str, int, bytes]]:
    """Changes to a map with a georeference, for `checksummed`, that a reader which uses it must refuse."""
    at = LocalizationMap.read(content).file.sections[Section.GEOREFERENCE].offset

    def f8(*values: float) -> bytes:
        return struct.pack(f"<{len(values)}d", *values)

    return [
        ("a latitude beyond the pole", at, f8(90.5)),
        ("a longitude of 181 degrees", at + 8, f8(181.0)),
        ("a latitude that is NaN", at, f8(float("nan"))),
        ("an altitude among the stars", at + 16, f8(1e9)),
        ("a unit of no length", at + 24, f8(0.0)),
        ("a unit of negative length", at + 24, f8(-1.0)),
        ("a unit of a light year", at + 24, f8(1e16)),
        ("a rotation that is none", at + 32, f8(0, 0, 0, 0)),
        ("a translation without bound", at + 64, f8(float("inf"))),
        ("a negative residual", at + 88, f8(-0.5)),
    ]


def checksummed(content: bytes, why: str, where: int, new: bytes) -> dict[str, object]:
    """A case of `refused`: some bytes replaced, and the checksums that this changes."""
    changed = bytearray(content)
    changed[where : where + len(new)] = new
    final = _sealed_as_before(content, changed)
    starts = range(0, len(content), 4)
    edits = [[i, bytes(final[i : i + 4]).hex()] for i in starts if final[i : i + 4] != content[i : i + 4]]
    return {"why": why + " (checksums right)", "edits": edits}


def _sealed_as_before(content: bytes, changed: bytearray) -> bytes:
    """`sealed`, with the CHECKSUMS where they lay before ``changed`` said something else."""
    row = slice(HEADER.size, HEADER.size + ENTRY.size)
    claimed, changed[row] = bytes(changed[row]), content[row]
    again = bytearray(sealed(changed))
    again[row] = claimed
    start = aligned(sum(ENTRY.unpack_from(content, HEADER.size)[1:]))
    struct.pack_into("<I", again, CHECKSUM_AT, head_checksum(bytes(again[:start])))
    return bytes(again)
