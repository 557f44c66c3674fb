"""Writes the sample maps of SPEC.md, and beside each what a reader must find in it. Every run writes the same bytes.

    python maps/samples/make.py [FOLDER]

All numbers come from Python's `random.Random.random`, whose sequence is guaranteed, and from integer arithmetic or
single IEEE operations; nothing is fitted, so no library's version shows in the files.
"""

from __future__ import annotations

import json
import math
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random

import flatbuffers
import numpy as np

from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.codecs import Codec, CodecName
from hfnet_edge.map.container import BLOCK, CHECKSUM_AT, ENTRY, HEADER, Section, aligned, head_checksum
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.matching import nearest_two
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.schema import description_generated as schema
from hfnet_maps.pack.codebooks import encode
from hfnet_maps.pack.packer import project
from hfnet_maps.pack.writer import Sections, full_sections, lay_out, write_map
from hfnet_maps.source import Extractor, Photos, Source

GENERATOR = "hfnet-edge samples"  # instead of the package's version
FIELDS = {
    "generator": "Generator", "architecture": "Architecture", "weights_hash": "WeightsHash", "precision": "Precision",
    "local_dim": "LocalDim", "global_dim": "GlobalDim", "image_count": "ImageCount", "landmark_count": "LandmarkCount",
    "observation_count": "ObservationCount", "origin_x": "OriginX", "origin_y": "OriginY", "origin_z": "OriginZ",
    "extractor_global_dim": "ExtractorGlobalDim", "codec": "Codec", "code_dim": "CodeDim", "subspaces": "Subspaces",
    "count_bits": "CountBits", "descriptor_count": "DescriptorCount",
}  # fmt: skip


class Numbers:
    """Seeded numbers that are the same everywhere."""

    def __init__(self, seed: int):
        self._random = Random(seed)

    def integer(self, low: int, high: int) -> int:
        """Of ``low`` to ``high``, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def table(self, *shape: int, most: int) -> np.ndarray:
        """int8 of -most to most."""
        return np.array([self.integer(-most, most) for _ in range(math.prod(shape))], np.int8).reshape(shape)

    def vectors(self, count: int, dim: int) -> np.ndarray:
        """(count, dim) int8 of a length of about 127."""
        return self.table(count, dim, most=int(127 * math.sqrt(3 / dim)))

    def pose(self) -> Pose:
        q = [self.integer(1, 9), *(self.integer(-9, 9) for _ in range(3))]
        length = math.sqrt(sum(v * v for v in q))
        return Pose(np.array([v / length for v in q]), np.array([self.integer(-80000, 80000) / 1024 for _ in range(3)]))

    def source(
        self,
        images: int,
        landmarks: int,
        dims: tuple[int, int],
        seen: int,
        descriptors: tuple[int, int] | None = (1, 1),
    ) -> Source:
        """A place of which each image sees ``seen`` percent of a stretch of landmarks.

        Args:
            dims: D, G.
            descriptors: of a landmark, least and most; None: one for each observation.
        """
        # Multiples of 1/1024: their sum, of which the origin is made, is exact.
        x = sorted(self.integer(0, 20480) for _ in range(landmarks))
        xyz = [
            (500000.5 + v / 1024, -1200 + self.integer(0, 9000) / 1024, 30 + self.integer(0, 3000) / 1024) for v in x
        ]
        observed = []
        for landmark in range(landmarks):
            stretch = landmark * images // landmarks
            near = [i for i in range(images) if abs(i - stretch) <= 2 and self.integer(1, 100) <= seen]
            observed.append(near if len(near) > 1 else sorted({stretch, (stretch + 1) % images}))
        of_image = [i for images_of in observed for i in images_of]
        of_landmark = [landmark for landmark, images_of in enumerate(observed) for _ in images_of]
        if descriptors is None:
            described = of_landmark
        else:
            described = [landmark for landmark in range(landmarks) for _ in range(self.integer(*descriptors))]
        d, g = dims
        return Source(
            Extractor("sample", "0123456789abcdef" * 2, "int8", d, g),
            tuple(f"sample/{i:02d}.jpg" for i in range(images)),
            tuple(self.pose() for _ in range(images)),
            self.vectors(images, g),
            np.array(xyz).reshape(-1, 3),
            np.array(of_landmark, np.int64),
            np.array(of_image, np.int64),
            np.array(described, np.int64),
            self.vectors(len(described), d),
        )

    def photos(self, source: Source) -> Photos:
        """Cameras and keypoints of the images, for a map that can be packed later."""
        count, others = len(source.names), 3
        cameras = tuple(Camera("PINHOLE", 640, 480, (500.0 + i, 505.0, 320.0, 240.0)) for i in range(count))

        def keypoints(n: int) -> np.ndarray:
            return np.array([(self.integer(0, 5120) / 8, self.integer(0, 3840) / 8) for _ in range(n)], np.float32)

        return Photos(
            cameras, np.full(count, 1.25), keypoints(len(source.images)), np.arange(count + 1) * others,
            keypoints(count * others), self.vectors(count * others, source.extractor.local_dim),
        )  # fmt: skip


def samples() -> dict[str, Sections]:
    """The maps by name."""
    n = Numbers(1)
    minimal = n.source(3, 6, (8, 4), 60, (1, 2))
    minimal.descriptors[-1] = minimal.descriptors[0]  # two descriptors at the same distance from any query

    n = Numbers(2)
    pq = n.source(12, 700, (24, 16), 60, (1, 3))
    codec = Codec(CodecName.PQ, 16, n.vectors(16, 24), codebook=n.table(4, 256, 4, most=55))
    pq = replace(pq, codec=codec, descriptors=encode(codec, pq.descriptors))

    n = Numbers(3)
    binary = n.source(4, 300, (16, 8), 50)
    thresholds = np.array([n.integer(-2000, 2000) for _ in range(20)], np.int32)
    codec = Codec(CodecName.BINARY, 20, n.vectors(20, 16), thresholds=thresholds)
    binary = replace(binary, codec=codec, descriptors=encode(codec, binary.descriptors))

    n = Numbers(4)
    projected = n.source(5, 40, (16, 12), 60, (1, 4))
    codec = Codec(CodecName.INT8, 6, n.vectors(6, 16))
    to = n.vectors(5, 12)
    projected = replace(
        projected,
        codec=codec,
        descriptors=encode(codec, projected.descriptors).view(np.int8),
        global_descriptors=Codec(CodecName.INT8, 5, to).query(projected.global_descriptors),
        global_projection=to,
    )

    n = Numbers(5)
    sources = n.source(6, 20, (16, 8), 90, None)
    sources = replace(sources, described=sources.landmarks)
    sources = replace(sources, photos=n.photos(sources))

    n = Numbers(6)
    newer = dict(lay_out(n.source(2, 5, (8, 4), 90)))
    newer |= {40: b"of a later version", 100: b"of a later tool"}  # type: ignore[dict-item]

    return {
        "minimal": lay_out(minimal),
        "pq": lay_out(pq),
        "binary": lay_out(binary),
        "int8_projected": lay_out(projected),
        "sources": full_sections(sources),
        "empty": lay_out(Numbers(7).source(2, 0, (8, 4), 0)),
        "newer_minor": newer,
    }


def meta_of(sections: Sections, later_field: bool) -> bytes:
    """META again, by `GENERATOR`, and with a field that version 2.0 does not have."""
    old = sections[Section.META]
    assert isinstance(old, bytes)
    d = schema.MapDescription.GetRootAs(old, 0)
    values = {camel: getattr(d, camel)() for camel in FIELDS.values()} | {"Generator": GENERATOR}
    builder = flatbuffers.Builder(512)
    for camel, value in values.items():
        if isinstance(value, bytes | str):
            values[camel] = builder.CreateString(value)
    builder.StartObject(len(FIELDS) + later_field)
    for camel, value in values.items():
        getattr(schema, f"MapDescriptionAdd{camel}")(builder, value)
    if later_field:
        builder.PrependUint32Slot(len(FIELDS), 12345, 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def of_a_newer_minor_version(content: bytes) -> bytes:
    """Version 2.7, with numbers in all reserved bytes of the header and of the section table."""
    changed = bytearray(content)
    struct.pack_into("<H", changed, 10, 7)
    changed[CHECKSUM_AT + 4 : HEADER.size] = bytes(range(1, HEADER.size - CHECKSUM_AT - 3))
    for i in range(HEADER.unpack_from(content)[3]):
        struct.pack_into("<I", changed, HEADER.size + i * ENTRY.size + 4, 99)
    return sealed(changed)


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


def expected(m: LocalizationMap, n: Numbers) -> dict[str, object]:
    """What a reader must find."""
    d = m.description
    images = sorted({0, m.image_count // 2, m.image_count - 1})
    landmarks = sorted(
        {0, 1, m.landmark_count // 3, m.landmark_count * 2 // 3, m.landmark_count - 1} & {*range(m.landmark_count)}
    )
    found: dict[str, object] = {
        "bytes": len(m.file.data),
        "version": list(struct.unpack_from("<HH", m.file.data, 8)),
        "sections": {str(e.kind): [e.offset, e.length] for e in m.file.sections.values()},
        "meta": {name: _plain(getattr(d, camel[0].lower() + camel[1:])) for name, camel in FIELDS.items()},
        "names": list(m.image_names),
        "poses": {i: m.image_poses[i].tolist() for i in images},
        "observed": {i: m.observed(i).tolist() for i in images},
        "positions": {i: m.positions(np.array([i]))[0].tolist() for i in landmarks},
        "rows": {i: m.descriptor_rows(np.array([i]))[0].tolist() for i in landmarks},
        "descriptors": {i: m.descriptors(np.array([i]))[0].tolist() for i in landmarks},
    }
    vectors, owners = m.descriptors(np.arange(m.landmark_count))
    query = n.vectors(1, d.localDim)
    if m.landmark_count and m.codec.projection is None:
        query = np.clip(vectors[:1].astype(int) + n.table(1, d.localDim, most=4), -127, 127).astype(np.int8)
    compared = m.codec.query(query)
    found["query"] = {"descriptor": query[0].tolist(), "compared": compared[0].tolist()}
    if len(vectors) > 1:
        first, second, d1, d2 = (int(v[0]) for v in nearest_two(compared, vectors))
        nearest = {
            "rows": [first, second],
            "landmarks": [int(owners[first]), int(owners[second])],
            "distances": [d1, d2],
        }
        found["query"] |= nearest  # type: ignore[operator]
    query = n.vectors(1, d.extractorGlobalDim)[0]
    compared = m.global_query(query)
    ranking = retrieve(compared, m.global_descriptors, m.image_count)
    similarities = project(compared[None], m.global_descriptors[ranking])[0]
    found["global_query"] = {
        "descriptor": query.tolist(),
        "compared": compared.tolist(),
        "ranking": ranking.tolist(),
        "similarities": similarities.tolist(),
    }
    return found


def _plain(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


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
    for why, where, new in with_right_checksums:
        changed = bytearray(content)
        changed[where : where + len(new)] = new
        final = _sealed_as_before(content, changed)
        edits = [
            [i, bytes(final[i : i + 4]).hex()]
            for i in range(0, len(content), 4)
            if final[i : i + 4] != content[i : i + 4]
        ]
        cases.append({"why": why + " (checksums right)", "edits": edits})
        if (why, where, new) in whole:
            cases[-1]["check"] = "whole"
    return cases


def _sealed_as_before(content: bytes, changed: bytearray) -> bytes:
    """`sealed`, with the CHECKSUMS where they lay before ``changed`` said something else."""
    row = slice(HEADER.size, HEADER.size + ENTRY.size)
    claimed, changed[row] = bytes(changed[row]), content[row]
    again = bytearray(sealed(changed))
    again[row] = claimed
    start = aligned(sum(ENTRY.unpack_from(content, HEADER.size)[1:]))
    struct.pack_into("<I", again, CHECKSUM_AT, head_checksum(bytes(again[:start])))
    return bytes(again)


def _dump(value: dict[str, object]) -> str:
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(part)}" for key, part in value.items()) + "\n}\n"


def make(folder: Path) -> None:
    """Writes all samples into a folder."""
    for i, (name, sections) in enumerate(samples().items()):
        later, path = name == "newer_minor", folder / f"{name}.hfmap"
        write_map({**sections, Section.META: meta_of(sections, later)}, path)
        if later:
            path.write_bytes(of_a_newer_minor_version(path.read_bytes()))
        m = LocalizationMap.read(path.read_bytes(), path)
        m.check_all()
        path.with_suffix(".json").write_text(_dump(expected(m, Numbers(100 + i))))
    cases = refused((folder / "minimal.hfmap").read_bytes())
    lines = ",\n".join(f"  {json.dumps(case)}" for case in cases)
    (folder / "refused.json").write_text(f'{{\n "of": "minimal.hfmap",\n "cases": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
