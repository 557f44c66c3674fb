"""maps/SPEC.md says what the code does: its samples, its numbers and its tables, and a reader written from it alone."""

import io
import json
import math
import re
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from spec_reader import (
    FIELDS,
    Calibration,
    Georeference,
    Hypercolumns,
    Place,
    Reader,
    SceneTree,
    Trees,
    decode_list,
    read_delta,
)

from hfnet_edge.errors import MapFormatError
from hfnet_edge.map import (
    calibration,
    codecs,
    container,
    delta,
    georeference,
    map_file,
    observation_list,
    place_index,
    random_trees,
    scene_tree,
)
from hfnet_edge.map.container import ENTRY, HEADER, Section
from hfnet_edge.map.map_file import TILE, LocalizationMap
from hfnet_edge.map.place_index import INDEX
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.schema import description_generated
from hfnet_maps.content import EncodedHypercolumns
from hfnet_maps.pack.codebooks import encode as encode_rows
from hfnet_maps.pack.observation_list import encode
from hfnet_maps.pack.writer import lay_out, to_map

MAPS = Path(__file__).parents[2] / "maps"
SAMPLES = MAPS / "samples"
NAMES = (
    "minimal", "pq", "binary", "int8_projected", "sources", "empty", "newer_minor", "random_trees", "calibrated",
    "hypercolumns", "scene_tree", "georeference", "two_networks",
)  # fmt: skip
SPEC = (MAPS / "SPEC.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def make():
    """The module that makes the samples."""
    sys.path.insert(0, str(SAMPLES))
    try:
        import make

        return make
    finally:
        sys.path.remove(str(SAMPLES))


def fenced(language):
    """All lines of the code blocks of a language."""
    return [
        line for block in re.findall(rf"```{language}\n(.*?)```", SPEC, re.S) for line in block.splitlines() if line
    ]


def table(*header):
    """Rows of the tables with these first columns, as lists of cells."""
    rows, inside = [], False
    for line in SPEC.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if cells[: len(header)] == list(header):
            inside = True
        elif not cells:
            inside = False
        elif inside and not set(cells[0]) <= {"-"}:
            rows.append(cells)
    return rows


def sample(name):
    return (SAMPLES / f"{name}.hfmap").read_bytes(), json.loads((SAMPLES / f"{name}.json").read_text())


# The samples


def test_the_samples_are_made_by_code_byte_for_byte(tmp_path):
    subprocess.run([sys.executable, SAMPLES / "make.py", tmp_path], check=True)

    def files(folder):
        return {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*") if f.suffix in (".hfmap", ".json")}

    made = files(tmp_path)
    assert made == files(SAMPLES)
    assert max(map(len, made.values())) < 20_000 and sum(map(len, made.values())) < 130_000
    alone = {path.stem for path in made if path.suffix == ".hfmap" and path.parent == Path()}
    assert {*NAMES} == alone


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_written_from_the_document_finds_what_the_sample_says(name):
    content, found = sample(name)
    r = Reader(content)
    r.check_whole()
    assert (len(content), [*r.version], r.names()) == (found["bytes"], found["version"], found["names"])
    assert {field: r.meta[field] for field in found["meta"]} == found["meta"]
    assert {str(kind): [*where] for kind, where in r.sections.items()} == found["sections"]
    for image, pose in found["poses"].items():
        assert [*r.pose(int(image))] == pose
    for image, landmarks in found["observed"].items():
        assert r.observed(int(image)) == landmarks
    for landmark, position in found["positions"].items():
        assert r.position(int(landmark)) == pytest.approx(position, abs=1e-9, rel=0)
        assert [*r.rows(int(landmark))] == found["rows"][landmark]
        assert [r.descriptor(row) for row in r.rows(int(landmark))] == found["descriptors"][landmark]
    query = found["query"]
    y = r.compared(query["descriptor"])
    assert y == query["compared"]
    distances = [r.distance(y, row) for row in range(r.R)]
    assert distances == [sum((a - b) ** 2 for a, b in zip(y, r.descriptor(row), strict=True)) for row in range(r.R)]
    nearest = sorted(range(r.R), key=lambda row: distances[row])[:2]  # stable: equals by lower row
    if r.R > 1:
        owner = {row: landmark for landmark in range(r.L) for row in r.rows(landmark)}
        assert (nearest, [distances[row] for row in nearest]) == (query["rows"], query["distances"])
        assert [owner[row] for row in nearest] == query["landmarks"]
    query = found["global_query"]
    y = r.global_compared(query["descriptor"])
    similarity = [sum(a * b for a, b in zip(y, r.global_descriptor(i), strict=True)) for i in range(r.M)]
    ranking = sorted(range(r.M), key=lambda image: -similarity[image])
    assert (y, ranking, [similarity[i] for i in ranking]) == (
        query["compared"],
        query["ranking"],
        query["similarities"],
    )


@pytest.mark.parametrize("name", NAMES)
def test_both_readers_agree_on_everything(name):
    content, _ = sample(name)
    m, r = LocalizationMap.read(content), Reader(content)
    m.check_all()
    everything = np.arange(r.L)
    rows, owners = m.descriptor_rows(everything)
    vectors, _ = m.descriptors(everything)
    assert [*m.image_names] == r.names() and [m.observed(i).tolist() for i in range(r.M)] == [
        r.observed(i) for i in range(r.M)
    ]
    assert m.image_poses.tolist() == [[*r.pose(i)] for i in range(r.M)]
    assert m.global_descriptors.tolist() == [[*r.global_descriptor(i)] for i in range(r.M)]
    assert m.positions(everything).tolist() == [r.position(i) for i in range(r.L)]
    assert rows.tolist() == [row for i in range(r.L) for row in r.rows(i)]
    assert owners.tolist() == [i for i in range(r.L) for _ in r.rows(i)]
    assert vectors.tolist() == [r.descriptor(row) for row in range(r.R)]
    queries = np.random.default_rng(0).integers(-127, 128, (5, r.D)).astype(np.int8)
    assert m.codec.query(queries).tolist() == [r.compared(q) for q in queries.tolist()]
    globals_ = np.random.default_rng(1).integers(-40, 41, (5, r.E)).astype(np.int8)
    assert [m.global_query(q).tolist() for q in globals_] == [r.global_compared(q) for q in globals_.tolist()]


def test_both_readers_walk_the_same_trees():
    content, found = sample("random_trees")
    trees, theirs = Trees(Reader(content)), LocalizationMap.read(content).trees
    assert trees.head == found["trees"]["head"]
    for query in found["trees"]["queries"]:
        leaves = trees.prior_leaves(query["descriptor"], query["count"])
        assert leaves == query["leaves"]
        assert sorted({one for leaf in leaves for one in trees.held(leaf)}) == query["landmarks"]
    queries = np.random.default_rng(2).integers(-127, 128, (50, 16)).astype(np.int8)
    for count in (1, 7, 100):
        leaves = theirs.prior_leaves(queries, count)
        assert [row[row >= 0].tolist() for row in leaves] == [trees.prior_leaves(q, count) for q in queries.tolist()]


def test_both_readers_move_points_alike():
    content, found = sample("calibrated")
    theirs, ours = Calibration(Reader(content)), LocalizationMap.read(content).calibration
    assert {name: found["calibration"][name] for name in theirs.fields} == theirs.fields == vars(ours)
    for points, right, precise in found["calibration"]["moved"]:
        assert (theirs.moved("right", points), theirs.moved("precise", points)) == (right, precise)
    for points in range(-100_000, 100_001, 997):
        assert theirs.moved("right", points) == ours.right(points)
        assert theirs.moved("precise", points) == ours.precise(points)


def test_both_readers_find_the_same_hypercolumns():
    content, found = sample("hypercolumns")
    theirs, ours = Hypercolumns(Reader(content)), LocalizationMap.read(content)
    everything, codec = range(ours.landmark_count), ours.hypercolumn_codec
    assert ours.hypercolumns(np.array(everything)).tolist() == [theirs.of(i) for i in everything]
    for landmark, vector in found["hypercolumns"]["decoded"].items():
        assert theirs.of(int(landmark)) == vector
    for query in found["hypercolumns"]["queries"]:
        y = theirs.compared(query["cell"])
        assert y == query["compared"] and [theirs.product(y, i) for i in everything] == query["products"]
    cells = np.random.default_rng(3).integers(-127, 128, (20, theirs.H)).astype(np.int8)
    assert codec.query(cells).tolist() == [theirs.compared(cell) for cell in cells.tolist()]


def test_readers_agree_on_hypercolumns_of_every_codec(make):
    n = make.Numbers(11)
    source = n.source(2, 9, (8, 4), 60)
    for codec in (
        codecs.Codec(codecs.CodecName.INT8, 10),
        codecs.Codec(codecs.CodecName.INT8, 5, n.vectors(5, 10)),
        codecs.Codec(codecs.CodecName.PQ, 10, codebook=n.table(2, 256, 5, most=50)),
        codecs.Codec(codecs.CodecName.BINARY, 11, n.vectors(11, 10), np.arange(-5, 6, dtype=np.int32) * 100),
    ):
        rows = encode_rows(codec, n.vectors(9, 10))
        m = to_map(lay_out(replace(source.encoded(), hypercolumns=EncodedHypercolumns(10, codec, rows))))
        theirs = Hypercolumns(Reader(bytes(m.file.data)))
        assert (codec.row_bytes, codec.dim) == (theirs.C, theirs.K)
        assert m.hypercolumns(np.arange(9)).tolist() == [theirs.of(i) for i in range(9)]
        cells = n.vectors(6, 10)
        assert m.hypercolumn_codec.query(cells).tolist() == [theirs.compared(cell) for cell in cells.tolist()]


def test_both_readers_follow_labels_to_the_same_landmarks():
    content, found = sample("scene_tree")
    theirs, ours, told = SceneTree(Reader(content)), LocalizationMap.read(content).scene_tree, found["scene_tree"]
    assert tuple(theirs.branches) == ours.branches == tuple(told["branches"]) and told["levels"] == len(ours.branches)
    assert theirs.weights_hash == ours.weights_hash == told["weights_hash"]
    for query in told["queries"]:
        assert theirs.landmark(query["labels"]) == query["landmark"]
    asked = np.random.default_rng(4).integers(-1, 6, (200, 2))
    assert ours.landmarks_of(asked).tolist() == [theirs.landmark(labels) for labels in asked.tolist()]
    assert ours.landmarks_of(np.array([[2**62, 2**62]])).tolist() == [-1]


def test_both_readers_put_a_map_in_the_same_place():
    content, found = sample("georeference")
    theirs, ours, told = Georeference(Reader(content)), LocalizationMap.read(content).earth, found["georeference"]
    assert (ours.latitude, ours.longitude, ours.altitude) == theirs.origin == tuple(told["origin"])
    assert ours.metres == theirs.metres == told["metres"] and ours.residual == theirs.residual == told["residual"]
    assert ours.up == pytest.approx(theirs.rotation[2]) and ours.up == pytest.approx(told["up"])
    for point, enu in zip(told["points"], told["enu"], strict=True):
        assert theirs.enu(point) == pytest.approx(enu) and ours.to_enu(np.array([point]))[0] == pytest.approx(enu)
    there = ours.to_wgs84(np.array(told["points"][1]))
    assert ours.to_map(*there) == pytest.approx(told["points"][1], abs=1e-6)


def place_sample():
    return (SAMPLES / "place" / INDEX).read_bytes(), json.loads((SAMPLES / "place.json").read_text())


def test_both_readers_find_the_same_tiles():
    content, found = place_sample()
    theirs, ours = Place(Reader(content)), TiledMap(SAMPLES / "place")
    assert theirs.tiles == found["tiles"] and theirs.reader.version == (2, 6)
    for i, (entry, told) in enumerate(zip(ours.tiles, found["tiles"], strict=True)):
        assert [entry.name, entry.bytes, entry.head_checksum, entry.images, entry.core] == [
            told[name] for name in ("name", "bytes", "head_checksum", "images", "core")
        ]
        assert [entry.representatives.start, entry.representatives.stop] == told["representatives"]
        assert (entry.low.tolist(), entry.high.tolist()) == (told["low"], told["high"])
        file = (SAMPLES / "place" / told["name"]).read_bytes()
        theirs.check(i, file)
        assert ours.tile(i).image_count == told["images"]
        with pytest.raises(ValueError):
            theirs.check(i - 1, file)
    cores = [{*ours.index.image_names[slice(*tile["representatives"])]} for tile in found["tiles"]]
    assert all(core <= {*ours.tile(i).image_names} for i, core in enumerate(cores))
    assert any(len(core) < tile["core"] for core, tile in zip(cores, found["tiles"], strict=True))


def test_both_readers_ask_the_same_tiles(make):
    from place import rounds_of  # beside `make`

    content, found = place_sample()
    theirs, ours = Place(Reader(content)), TiledMap(SAMPLES / "place")
    names, asked = ours.index.image_names, []
    for query in found["queries"]:
        near, prior = {*range(len(theirs.tiles))}, query["prior"]
        if "position" in prior:
            near = theirs.near(prior["position"], prior["radius"])
        if "images" in prior:
            named = {i for i, name in enumerate(names) if any(fnmatchcase(name, one) for one in prior["images"])}
            near = {i for i, tile in enumerate(theirs.tiles) if named & {*range(*tile["representatives"])}}
        assert theirs.asked(query["descriptor"], near) == (query["compared"], query["further"])
        asked.append((len(near), len(query["compared"]), len(query["further"])))
    assert {one[0] for one in asked} == {3, 4} and {one[1] for one in asked} == {1, 2, 3}
    assert max(one[1] + one[2] for one in asked) == 3 < len(theirs.tiles)
    for descriptor in make.Numbers(20).vectors(40, 6):
        compared, *further = rounds_of(ours, descriptor, None)
        assert theirs.asked(descriptor.tolist(), {0, 1, 2, 3}) == (compared, [tile for (tile,) in further])


def test_the_samples_have_what_the_document_says():
    read = {name: Reader(sample(name)[0]) for name in NAMES}
    assert {row[0].strip("`") for row in table("map", "what it has")} == set(NAMES)
    assert (
        read["pq"].T == 3 and (len(read["pq"].file) - read["pq"].start) > container.BLOCK and 12 in read["pq"].sections
    )
    assert (
        read["binary"].K == 20 and read["binary"].C == 3 and read["binary"].T == 2 and 11 not in read["binary"].sections
    )
    assert {5, 12} <= read["int8_projected"].sections.keys()
    assert {64, 65, 66, 67, 68} <= read["sources"].sections.keys() and read["sources"].meta["count_bits"] == 16
    assert read["empty"].L == 0 and read["empty"].sections[15] == (len(read["empty"].file), 0)
    assert read["random_trees"].version == (2, 1) and read["minimal"].version == (2, 0)
    assert read["calibrated"].version == (2, 2) and 16 not in read["calibrated"].sections
    assert read["hypercolumns"].version == (2, 3) and not {12, *range(16, 24)} & read["hypercolumns"].sections.keys()
    assert [kind for kind in read["hypercolumns"].sections if 24 <= kind < 64] == [24, 26, 27]
    assert not any(r.meta["hypercolumn_dim"] for name, r in read.items() if name != "hypercolumns")
    named = SceneTree(read["scene_tree"])
    assert read["scene_tree"].version == (2, 4) and named.landmarks.count(2**32 - 1) == 1
    assert len(set(named.landmarks)) == len(named.landmarks) - 1 and 27 not in read["scene_tree"].sections
    assert read["georeference"].version == (2, 5) and 28 not in read["georeference"].sections
    assert read["two_networks"].version == (2, 0) and read["two_networks"].meta["local_role"] == "local_descriptors"
    assert not any(r.meta["local_role"] for name, r in read.items() if name != "two_networks")
    moved = sample("calibrated")[1]["calibration"]["moved"]
    assert {abs(points) for _, *both in moved for points in both} > {calibration.LARGEST}
    trees, (_, found) = Trees(read["random_trees"]), sample("random_trees")
    assert {5, 12} & read["random_trees"].sections.keys() == {12} and read["random_trees"].meta["global_weights_hash"]
    assert any(not trees.held(leaf) for leaf in range(trees.head["leaves"]))
    assert found["trees"]["queries"][1]["count"] > trees.head["leaves"]
    assert read["newer_minor"].version == (2, 7) and {40, 100} <= read["newer_minor"].sections.keys()
    assert any(max(r.observed(i), default=0) // 256 for r in read.values() for i in range(r.M))
    _, found = sample("minimal")
    assert found["query"]["distances"][0] == found["query"]["distances"][1]


USERS = {
    "trees": Trees,
    "calibration": Calibration,
    "hypercolumns": Hypercolumns,
    "scene_tree": SceneTree,
    "georeference": Georeference,
    "place": Place,
}
CASES = [
    case | {"of": listed["of"]}
    for listed in (
        json.loads((SAMPLES / f"{name}.json").read_text())
        for name in (
            "refused",
            "refused_trees",
            "refused_calibration",
            "refused_hypercolumns",
            "refused_scene_tree",
            "refused_georeference",
            "refused_place",
        )
    )
    for case in listed["cases"]
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["why"])
def test_both_readers_refuse_what_the_document_refuses(case):
    content = bytearray((SAMPLES / case["of"]).read_bytes())
    for at, new in case.get("edits", []):
        content[at : at + len(new) // 2] = bytes.fromhex(new)
    content = bytes(content[: case.get("bytes")])
    with pytest.raises(MapFormatError):
        m = LocalizationMap.read(content)
        m.check_all()
        if case.get("check") == "place":  # of which a map's own check knows nothing
            place_index.read_tiles(m)
    if case.get("check") == "whole":
        Reader(content).check_parts()
        with pytest.raises(ValueError):
            Reader(content).check_whole()
    elif case.get("check") in USERS:
        Reader(content).check_whole()
        with pytest.raises(ValueError):
            USERS[case["check"]](Reader(content))
    else:
        with pytest.raises(ValueError):
            Reader(content).check_parts()


def test_sections_for_tools_lie_as_the_document_says(make):
    r = Reader(sample("sources")[0])
    lines = r.use(64).decode().split("\n")
    assert len(lines) == r.M + 1 and lines[0].startswith("1.25 PINHOLE 640 480 500.0")
    offsets = struct.unpack(f"<{r.M + 1}I", r.use(66))
    assert offsets[0] == 0 and r.meta["observation_count"] == r.R
    assert [len(r.use(kind)) for kind in (65, 67, 68)] == [8 * r.R, 8 * offsets[-1], r.D * offsets[-1]]
    seen_by = [sum(landmark in r.observed(image) for image in range(r.M)) for landmark in range(r.L)]
    assert [len(r.rows(landmark)) for landmark in range(r.L)] == seen_by


# Deltas


def delta_sample():
    """The delta, its base and its result."""
    names = "calibrated_to_georeference.hfdelta", "calibrated.hfmap", "georeference.hfmap"
    return [(SAMPLES / name).read_bytes() for name in names]


def test_a_delta_is_read_from_the_document_alone():
    content, base, result = delta_sample()
    found, signed, signature = read_delta(content, base)
    assert found == result and signed + signature == content and len(signature) == delta.SIGNATURE
    skipped = [
        row[1]
        for row in delta.COPY.iter_unpack(zlib.decompress(content[112 : 112 + delta.HEADER.unpack_from(content)[9]]))
    ]
    assert min(skipped) < 0 < max(skipped), "it copies forwards and backwards"
    for changed in (content[:-1], bytes([content[0] ^ 1]) + content[1:], content[:200] + b"!" + content[201:]):
        with pytest.raises(ValueError):
            read_delta(changed, base)
    with pytest.raises(ValueError, match="another base"):
        read_delta(content, result)
    out = io.BytesIO()
    delta.apply_delta(base, content, out)
    assert out.getvalue() == result
    written = delta.make_delta(base, result)
    assert read_delta(written, base) == (result, written, b"")


def test_the_delta_of_the_samples_is_signed_with_the_key_that_the_document_names():
    ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    content, base, _ = delta_sample()
    _, signed, signature = read_delta(content, base)
    public = re.search(r"public half is `([0-9a-f]{64})`", SPEC)[1]
    ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, signed)


# The document


def test_the_hex_dump_is_the_sample(make):
    content, _ = sample("minimal")
    end = 0
    for line in fenced("hex"):
        at, rest = line[:4], line[6:54]
        zeros = re.match(r"00 x (\d+)", rest)
        part = bytes(int(zeros[1])) if zeros else bytes.fromhex(rest)
        assert int(at, 16) == end and part == content[end : end + len(part)], line
        end += len(part)
    assert end == len(content)
    dumped = subprocess.run([sys.executable, SAMPLES / "dump.py"], check=True, capture_output=True, text=True).stdout
    assert "\n".join(fenced("hex")) == dumped.strip(), "paste what `python maps/samples/dump.py` prints into SPEC.md"


def test_worked_numbers_are_right():
    names = {"floor": math.floor, "sqrt": math.sqrt, "log2": math.log2, "crc32": lambda text: zlib.crc32(text.encode())}
    lines = fenced("worked")
    assert "32 p + 2^20" in SPEC and random_trees.WALK == 32 and random_trees.BESIDES == 1 << 20
    assert "64 p + 2^20" in SPEC and random_trees.HELD == 64
    for line in lines:
        assert eval(line.replace(" = ", " == "), names), line
    assert len(lines) > 15


def test_the_worked_list_is_right():
    words = {line[:10].strip(): line[10:].split() for line in fenced("list")}
    landmarks, local = ([int(word) for word in words[row]] for row in ("landmarks", "local"))
    data = bytes.fromhex("".join(words["bytes"]))
    assert encode(np.array(landmarks)) == data and decode_list(data, 1069) == landmarks
    assert observation_list.decode(np.frombuffer(data, np.uint8)).tolist() == landmarks
    n, t, k = data[0], data[1], 7
    assert observation_list.parameters(n, t) == (k, n + 3) and len(data) == 2 + t + (n * k + 7) // 8 + 1
    assert [int(word) for word in words["tiles"]] == [v // 256 for v in landmarks]
    assert [int(word) * 256 + v % 256 for word, v in zip(words["rank"], landmarks, strict=True)] == local
    assert [int(word) for word in words["low"]] == [v % 128 for v in local]
    assert [int(word) for word in words["high"]] == [v // 128 for v in local]
    for row, field in (("low bits", data[4:8]), ("high bits", data[8:])):
        assert int("".join(words[row])[::-1], 2) == int.from_bytes(field, "little"), row
    assert [int(word[::-1], 2) for word in words["low bits"]] == [v % 128 for v in local]


def test_kinds_are_those_of_the_code():
    rows = table("kind", "name")
    assert [(int(kind), name) for kind, name, *_ in rows] == [(kind.value, kind.name) for kind in Section]


def test_byte_tables_have_no_holes_and_the_sizes_of_the_code():
    sizes, end = [], None
    for offset, length, *_ in table("offset", "bytes"):
        if int(offset) == 0 and end is not None:
            sizes.append(end)
        assert int(offset) in (0, end)
        end = int(offset) + int(length)
    tree, earth = scene_tree.SCENE_TREE.itemsize, georeference.EARTH.itemsize
    of_maps = [HEADER.size, ENTRY.size, 56, TILE.itemsize, calibration.SECTION.size, tree, earth]
    of_others = [place_index.ROW.itemsize, delta.HEADER.size, delta.COPY.size]
    assert [*sizes, end] == [*of_maps, *of_others]
    fields = {row[3]: int(row[0]) for row in table("offset", "bytes")}
    assert fields["checksum"] == container.CHECKSUM_AT
    assert {name: TILE.fields[name][1] for name in TILE.names} == {name: fields[name] for name in TILE.names}
    told = {row[3].strip("`"): int(row[0]) for row in table("offset", "bytes")}
    assert {name: told[name] for name in place_index.ROW.names} == {n: f[1] for n, f in place_index.ROW.fields.items()}
    assert (
        f"`{container.MAGIC.hex(' ')}`" in SPEC and f"version {container.VERSION[0]}.{container.VERSION[1]}\n" in SPEC
    )


def test_the_fields_of_random_trees_are_those_of_the_code():
    fields = [(name, row[1]) for row in table("field", "type") for name in re.findall(r"`(\w+)`", row[0])]
    letters = {"u4": "<u4", "32 bytes": "S32", "f8 each": "<f8"}
    assert [(name, letters[kind]) for name, kind in fields] == [
        (name, kind.removeprefix("|")) for name, kind, *_ in random_trees.TREES.descr
    ]


def test_limits_are_those_of_the_code():
    limits = {row[0]: row[1] for row in table("limit", "value")}
    for name, value in (
        ("alignment", container.ALIGNMENT),
        ("block", container.BLOCK),
        ("sections", container.MAX_SECTIONS),
        ("bytes of META", map_file.MAX_META),
        ("D, K, H and K'", map_file.MAX_LOCAL_DIM),
        ("E", map_file.MAX_GLOBAL_DIM),
        ("landmarks of a tile", observation_list.TILE_SIZE),
        ("vectors of a subspace", codecs.CENTROIDS),
        ("count_bits", ", ".join(map(str, map_file.COUNT_BITS))),
        ("K / S and K' / S'", map_file.MAX_SUBSPACE_DIM),
        ("origin", f"10^{math.log10(map_file.MAX_ORIGIN):.0f}"),
        ("levels of a scene tree", scene_tree.MAX_LEVELS),
        ("labels of a level", scene_tree.MAX_BRANCHES),
        ("leaves of a scene tree", f"2^{scene_tree.MAX_LEAVES.bit_length() - 1}"),
        ("bytes of a varint", observation_list.MAX_VARINT),
        ("slope of a calibration", calibration.MAX_SLOPE),
        ("points", calibration.LARGEST),
        ("trees", random_trees.MAX_TREES),
        ("depth of a tree", random_trees.MAX_DEPTH),
        ("D of a map with trees", random_trees.MAX_DIMS),
        ("tiles of a place", place_index.MAX_TILES),
        ("nodes", f"2^{math.log2(random_trees.MAX_NODES):.0f}"),
    ):
        assert limits[name] == str(value), name
    assert [row[0].strip("`") for row in table("codec", "C")] == list(codecs.CodecName)


def test_meta_is_that_of_the_schema():
    schema = (Path(description_generated.__file__).parent / "description.fbs").read_text()
    declared = re.findall(r"(\w+): (\w+);", schema.split("table MapDescription {")[1].split("}")[0])
    assert [tuple(re.findall(r"\w+", line)) for line in fenced("fbs")[1:-1]] == declared
    letters = {"string": "s", "uint": "I", "double": "d", "ubyte": "B"}
    assert [(name, letters[kind]) for name, kind in declared] == list(FIELDS)
    described = {}
    for names, numbers, *_ in table("field", "number"):
        described |= dict(zip(re.findall(r"`(\w+)`", names), map(int, numbers.split(", ")), strict=True))
    assert described == {name: i for i, (name, _) in enumerate(declared)}


def test_positions_are_off_by_half_a_step_at_most(make):
    source = make.Numbers(8).source(6, 700, (8, 4), 50)
    m = to_map(lay_out(source))
    r = Reader(bytes(m.file.data))
    for i in range(r.L):
        step = r.tile(i)[3]
        for a, b in zip(r.position(i), source.positions[i] - m.origin, strict=True):
            assert abs(a - b) <= step / 2 * (1 + 1e-6)


def test_links_lead_somewhere():
    headings = {
        re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in SPEC.splitlines()
        if line[:1] == "#"
    }
    for target in re.findall(r"\]\(([^)]+)\)", SPEC):
        assert target.startswith("https://") or target.lstrip("#") in headings or (MAPS / target).exists(), target
