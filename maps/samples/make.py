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
from dataclasses import replace
from pathlib import Path
from random import Random

import flatbuffers
import numpy as np
from place import expected_of_place, place_of, refused_places, write_sample
from refusals import (
    FIELDS,
    HYPERCOLUMN_FIELDS,
    checksummed,
    refused,
    refused_calibrations,
    refused_georeferences,
    refused_hypercolumns,
    refused_scene_trees,
    sealed,
)
from trees import expected_of_trees, refused_trees, trees_of

from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.calibration import Calibration
from hfnet_edge.map.codecs import Codec, CodecName, project
from hfnet_edge.map.container import CHECKSUM_AT, ENTRY, HEADER, Section
from hfnet_edge.map.georeference import Earth
from hfnet_edge.map.map_file import LOCAL, LocalizationMap
from hfnet_edge.map.scene_tree import SceneTree
from hfnet_edge.methods.matching import nearest_two
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.schema import description_generated as schema
from hfnet_maps.content import BuiltMap, DescribedMap, EncodedHypercolumns, MapNetworks, ReferenceKeypoints
from hfnet_maps.pack.codebooks import encode
from hfnet_maps.pack.writer import Sections, full_sections, lay_out, write_map

GENERATOR = "hfnet-edge samples"  # instead of the package's version
GLOBAL_HASH_SLOT = 19  # of the field that came with version 2.1
HYPERCOLUMN_SLOT = 20  # of the first of those that came with version 2.3
LOCAL_ROLE_SLOT = 24


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
    ) -> DescribedMap:
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
        return DescribedMap(
            MapNetworks("sample", "0123456789abcdef" * 2, "int8", d, g),
            tuple(f"sample/{i:02d}.jpg" for i in range(images)),
            tuple(self.pose() for _ in range(images)),
            self.vectors(images, g),
            np.array(xyz).reshape(-1, 3),
            np.array(of_landmark, np.int64),
            np.array(of_image, np.int64),
            np.array(described, np.int64),
            self.vectors(len(described), d),
        )

    def built(self, source: DescribedMap) -> BuiltMap:
        """The same with cameras and keypoints of the images, which can be packed later. It has a descriptor for each
        observation."""
        count, others = len(source.names), 3
        cameras = tuple(Camera("PINHOLE", 640, 480, (500.0 + i, 505.0, 320.0, 240.0)) for i in range(count))

        def keypoints(n: int) -> np.ndarray:
            return np.array([(self.integer(0, 5120) / 8, self.integer(0, 3840) / 8) for _ in range(n)], np.float32)

        s = source
        return BuiltMap(
            s.networks, s.names, s.poses, s.global_descriptors, s.positions, s.landmarks, s.images, s.descriptors,
            ReferenceKeypoints(
                cameras, np.full(count, 1.25), keypoints(len(s.images)), np.arange(count + 1) * others,
                keypoints(count * others), self.vectors(count * others, s.networks.local_dim),
            ),
        )  # fmt: skip


def samples() -> dict[str, Sections]:
    """The maps by name."""
    n = Numbers(1)
    minimal = n.source(3, 6, (8, 4), 60, (1, 2))
    minimal.descriptors[-1] = minimal.descriptors[0]  # two descriptors at the same distance from any query

    n = Numbers(2)
    described = n.source(12, 700, (24, 16), 60, (1, 3))
    codec = Codec(CodecName.PQ, 16, n.vectors(16, 24), codebook=n.table(4, 256, 4, most=55))
    pq = described.packed(codec, encode(codec, described.descriptors))

    n = Numbers(3)
    described = n.source(4, 300, (16, 8), 50)
    thresholds = np.array([n.integer(-2000, 2000) for _ in range(20)], np.int32)
    codec = Codec(CodecName.BINARY, 20, n.vectors(20, 16), thresholds=thresholds)
    binary = described.packed(codec, encode(codec, described.descriptors))

    n = Numbers(4)
    described = n.source(5, 40, (16, 12), 60, (1, 4))
    codec = Codec(CodecName.INT8, 6, n.vectors(6, 16))
    to = n.vectors(5, 12)
    projected = replace(
        described.packed(codec, encode(codec, described.descriptors)),
        global_descriptors=Codec(CodecName.INT8, 5, to).query(described.global_descriptors),
        global_projection=to,
    )

    n = Numbers(5)
    sources = n.built(n.source(6, 20, (16, 8), 90, None))

    n = Numbers(8)
    described = n.source(6, 40, (16, 8), 60, (1, 3))
    networks = replace(described.networks, global_weights_hash="fedcba9876543210" * 2)
    trees = trees_of(described.descriptors, described.described, networks.weights_hash, n.integer)
    codec = Codec(CodecName.INT8, 6, n.vectors(6, 16))
    grown = replace(described, networks=networks).packed(codec, encode(codec, described.descriptors))

    calibrated = Numbers(9).source(3, 6, (8, 4), 60).encoded()

    n = Numbers(10)
    described = n.source(4, 30, (8, 4), 60, (1, 2))
    codec = Codec(CodecName.PQ, 6, n.vectors(6, 12), codebook=n.table(3, 256, 2, most=73))
    rows = encode(codec, n.vectors(len(described.positions), 12))
    sought = replace(described.encoded(), hypercolumns=EncodedHypercolumns(12, codec, rows))

    named = Numbers(11).source(3, 10, (8, 4), 60).encoded()
    leaves = np.array([*range(10), -1, 4], np.int64)  # 4 branches of 3
    named = replace(named, scene=SceneTree((4, 3), leaves, "0f1e2d3c4b5a6978" * 2))

    placed = Numbers(12).source(2, 8, (8, 4), 60).encoded()
    turned = Pose(np.array([0.6, 0.0, 0.0, 0.8]), np.array([-3.5, 12.25, -1.5]))
    placed = replace(placed, earth=Earth(55.703, 13.191, 48.5, 1.25, turned, 2.5))

    retrieving = Numbers(13).source(2, 5, (8, 4), 60).encoded()
    two = replace(retrieving.networks, global_weights_hash="00112233445566778899aabbccddeeff", local_role=LOCAL)
    retrieving = replace(retrieving, networks=two)

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
        "random_trees": {**lay_out(grown), **trees},
        "calibrated": lay_out(replace(calibrated, calibration=Calibration(3867, 1059, 4368, -212, 23))),
        "hypercolumns": lay_out(sought),
        "scene_tree": lay_out(named),
        "georeference": lay_out(placed),
        "two_networks": lay_out(retrieving),
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
    global_hash, role = d.GlobalWeightsHash(), d.LocalRole()
    if global_hash:
        global_hash = builder.CreateString(global_hash)
    if role:
        role = builder.CreateString(role)
    hypercolumns = {camel: getattr(d, camel)() for camel in HYPERCOLUMN_FIELDS.values()} if d.HypercolumnDim() else {}
    if hypercolumns:
        hypercolumns["HypercolumnCodec"] = builder.CreateString(hypercolumns["HypercolumnCodec"])
        builder.StartObject(HYPERCOLUMN_SLOT + len(hypercolumns))
    elif role:
        builder.StartObject(LOCAL_ROLE_SLOT + 1)
    else:
        builder.StartObject(GLOBAL_HASH_SLOT + 1 if global_hash else len(FIELDS) + later_field)
    for camel, value in values.items():
        getattr(schema, f"MapDescriptionAdd{camel}")(builder, value)
    if global_hash:
        schema.MapDescriptionAddGlobalWeightsHash(builder, global_hash)
    if role:
        schema.MapDescriptionAddLocalRole(builder, role)
    for camel, value in hypercolumns.items():
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


def expected(map_: LocalizationMap, n: Numbers) -> dict[str, object]:
    """What a reader must find."""
    d = map_.description
    images = sorted({0, map_.image_count // 2, map_.image_count - 1})
    landmarks = sorted(
        {0, 1, map_.landmark_count // 3, map_.landmark_count * 2 // 3, map_.landmark_count - 1}
        & {*range(map_.landmark_count)}
    )
    found: dict[str, object] = {
        "bytes": len(map_.file.data),
        "version": list(struct.unpack_from("<HH", map_.file.data, 8)),
        "sections": {str(e.kind): [e.offset, e.length] for e in map_.file.sections.values()},
        "meta": {name: _plain(getattr(d, camel[0].lower() + camel[1:])) for name, camel in FIELDS.items()}
        | {"global_weights_hash": d.globalWeightsHash, "local_role": d.localRole},
        "names": list(map_.image_names),
        "poses": {i: map_.image_poses[i].tolist() for i in images},
        "observed": {i: map_.observed(i).tolist() for i in images},
        "positions": {i: map_.positions(np.array([i]))[0].tolist() for i in landmarks},
        "rows": {i: map_.descriptor_rows(np.array([i]))[0].tolist() for i in landmarks},
        "descriptors": {i: map_.descriptors(np.array([i]))[0].tolist() for i in landmarks},
    }
    vectors, owners = map_.descriptors(np.arange(map_.landmark_count))
    query = n.vectors(1, d.localDim)
    if map_.landmark_count and map_.codec.projection is None:
        query = np.clip(vectors[:1].astype(int) + n.table(1, d.localDim, most=4), -127, 127).astype(np.int8)
    compared = map_.codec.query(query)
    found["query"] = {"descriptor": query[0].tolist(), "compared": compared[0].tolist()}
    if len(vectors) > 1:
        first, second, d1, d2 = (int(v[0]) for v in nearest_two(compared, vectors))
        seen = [int(owners[first]), int(owners[second])]
        nearest = {"rows": [first, second], "landmarks": seen, "distances": [d1, d2]}
        found["query"] |= nearest  # type: ignore[operator]
    query = n.vectors(1, d.extractorGlobalDim)[0]
    compared = map_.global_query(query)
    ranking = retrieve(compared, map_.global_descriptors, map_.image_count)
    similarities = project(compared[None], map_.global_descriptors[ranking])[0]
    found["global_query"] = {
        "descriptor": query.tolist(),
        "compared": compared.tolist(),
        "ranking": ranking.tolist(),
        "similarities": similarities.tolist(),
    }
    if Section.RANDOM_TREES in map_.file.sections:
        queries = np.concatenate([n.vectors(2, d.localDim), n.table(2, d.localDim, most=1)])  # near 0 costs are equal
        found["trees"] = expected_of_trees(map_, queries, (5, 1000, 8, 20))
    if Section.CALIBRATION in map_.file.sections:
        c = map_.calibration
        moved = [[p, c.right(p), c.precise(p)] for p in (0, 1, -1, 10425, -7672, 14000, -14000, 10**6, -(10**6))]
        found["calibration"] = vars(c) | {"moved": moved}
    if map_.hypercolumn_codec is not None:
        found["meta"] |= {  # type: ignore[operator]
            name: _plain(getattr(d, camel[0].lower() + camel[1:])) for name, camel in HYPERCOLUMN_FIELDS.items()
        }
        found["hypercolumns"] = _expected_hypercolumns(map_, map_.hypercolumn_codec, landmarks, n)
    if Section.SCENE_TREE in map_.file.sections:
        tree = map_.scene_tree
        asked = [[0, 0], [1, 2], [3, 0], [3, 1], [3, 2], [0, 3], [4, 0], [-1, 0]]
        queries = zip(asked, tree.landmarks_of(np.array(asked)).tolist(), strict=True)
        found["scene_tree"] = {
            "levels": len(tree.branches),
            "branches": list(tree.branches),
            "landmarks": map_.landmark_count,
            "weights_hash": tree.weights_hash,
            "queries": [{"labels": labels, "landmark": landmark} for labels, landmark in queries],
        }
    if map_.earth is not None:
        e, points = map_.earth, [[0.0, 0.0, 0.0], [1.5, -2.0, 0.25]]
        found["georeference"] = {
            "origin": [e.latitude, e.longitude, e.altitude],
            "metres": e.metres,
            "enu_from_map": [*e.enu_from_map.quaternion.tolist(), *e.enu_from_map.translation.tolist()],
            "residual": e.residual,
            "points": points,
            "enu": e.to_enu(np.array(points)).tolist(),
            "up": e.up.tolist(),
        }
    return found


def _expected_hypercolumns(map_: LocalizationMap, codec: Codec, landmarks: list[int], n: Numbers) -> dict[str, object]:
    decoded = map_.hypercolumns(np.arange(map_.landmark_count))
    cells = n.vectors(2, map_.description.hypercolumnDim)
    compared = codec.query(cells)
    return {
        "decoded": {i: decoded[i].tolist() for i in landmarks},
        "queries": [
            {"cell": cell.tolist(), "compared": y.tolist(), "products": products.tolist()}
            for cell, y, products in zip(cells, compared, project(compared, decoded), strict=True)
        ],
    }


def _plain(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


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
    _write_cases(folder / "refused.json", "minimal.hfmap", refused((folder / "minimal.hfmap").read_bytes()))
    n = Numbers(14)
    place = place_of(n.source(36, 72, (8, 6), 60))
    write_sample(place, folder / "place", lambda sections: meta_of(sections, False))
    (folder / "place.json").write_text(_dump(expected_of_place(folder / "place", n.vectors(4, 6))))
    for name, check, refuse in (
        ("random_trees", "trees", refused_trees),
        ("calibrated", "calibration", refused_calibrations),
        ("hypercolumns", "hypercolumns", refused_hypercolumns),
        ("scene_tree", "scene_tree", refused_scene_trees),
        ("georeference", "georeference", refused_georeferences),
        ("place/index", "place", refused_places),
    ):
        content = (folder / f"{name}.hfmap").read_bytes()
        cases = [checksummed(content, *case) | {"check": check} for case in refuse(content)]
        _write_cases(folder / f"refused_{check}.json", f"{name}.hfmap", cases)


def _write_cases(path: Path, of: str, cases: list[dict[str, object]]) -> None:
    lines = ",\n".join(f"  {json.dumps(case)}" for case in cases)
    path.write_text(f'{{\n "of": "{of}",\n "cases": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
