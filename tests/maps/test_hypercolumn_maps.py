"""Maps whose landmarks have hypercolumns: what writing, packing, merging and reading keep of them, and refuse."""

from dataclasses import replace

import flatbuffers
import numpy as np
import pytest

from hfnet_edge.errors import InputError, MapFormatError, MismatchError
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map.calibration import Calibration
from hfnet_edge.map.codecs import Codec, CodecName
from hfnet_edge.map.container import BLOCK, Section
from hfnet_edge.map.map_file import TILE, LocalizationMap
from hfnet_edge.schema.description_generated import MapDescription, MapDescriptionT
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.merge import merge
from hfnet_maps.content import BuiltMap, EncodedHypercolumns, content_of, read_content
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.codebooks import encode, fit_codec
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import ALL, Settings, all_settings
from hfnet_maps.pack.writer import (
    Counts,
    built_sections,
    expected_lengths,
    full_sections,
    in_file_order,
    lay_out,
    size_of,
    to_map,
    write_map,
)
from synthetic import CAMERA, EXTRACTOR, place

H = 64
KEPT = {
    "int8": Settings(CodecName.INT8, 32, 0, 1, 16),
    "int8 projected, each": Settings(CodecName.INT8, 24, 0, ALL, 8),
    "pq": Settings(CodecName.PQ, 32, 8, 1, 16),
    "pq x 1-4": Settings(CodecName.PQ, 24, 6, 4, 8),
    "binary": Settings(CodecName.BINARY, 32, 0, 1, 8),
}
BYTES = {"int8": 64, "int8 projected, each": 64, "pq": 8, "pq x 1-4": 6, "binary": 8}
HYPERCOLUMN_SECTIONS = {kind for kind in Section if kind.name.startswith("HYPERCOLUMN")}


@pytest.fixture(scope="module")
def source():
    return in_file_order(place().source(hypercolumns=H))


@pytest.fixture(scope="module")
def packer(source):
    return Packer(source)


@pytest.fixture(scope="module")
def plain():
    return in_file_order(place(1, landmarks=100, images=5).source())


@pytest.fixture(scope="module")
def dense(plain):
    """`plain` with hypercolumns."""
    return in_file_order(place(1, landmarks=100, images=5).source(hypercolumns=H))


def encoded(source, codec):
    return EncodedHypercolumns(source.hypercolumns.shape[1], codec, encode(codec, source.hypercolumns))


def all_of(map_):
    return map_.hypercolumns(np.arange(map_.landmark_count))


def version(sections):
    return tuple(to_map(sections).file.data[8:12:2])


# --- writing and reading


def test_a_built_map_is_read_back(tmp_path, source):
    path = tmp_path / "a.hfmap"
    write_map(full_sections(source), path)
    back = read_content(path)
    assert isinstance(back, BuiltMap)
    np.testing.assert_array_equal(back.hypercolumns, source.hypercolumns)
    m = LocalizationMap.open(path)
    d = m.description
    assert (d.hypercolumnDim, d.hypercolumnCodec, d.hypercolumnCodeDim, d.hypercolumnSubspaces) == (H, "int8", H, 0)
    some = np.array([599, 0, 300, 300])
    np.testing.assert_array_equal(m.hypercolumns(some), source.hypercolumns[some])
    assert m.hypercolumns(np.zeros(0, np.int64)).shape == (0, H)
    np.testing.assert_array_equal(m.hypercolumn_codec.query(source.hypercolumns), source.hypercolumns)


@pytest.mark.parametrize(
    ("name", "dim", "subspaces", "row"),
    [
        (CodecName.INT8, H, 0, H),
        (CodecName.INT8, 20, 0, 20),
        (CodecName.PQ, 32, 8, 8),
        (CodecName.PQ, 12, 6, 6),
        (CodecName.BINARY, 60, 0, 8),
    ],
)
def test_every_codec_is_read_back(tmp_path, dense, name, dim, subspaces, row):
    """Beside descriptors in another one."""
    codec = fit_codec(name, dense.hypercolumns, dim, subspaces)
    parts = encoded(dense, codec)
    write_map(lay_out(replace(dense.encoded(), hypercolumns=parts)), tmp_path / "a.hfmap")
    m = LocalizationMap.open(tmp_path / "a.hfmap")
    m.check_all()
    assert m.codec.name is CodecName.INT8 and m.hypercolumn_codec.name is name
    assert m.file.sections[Section.HYPERCOLUMNS].length == 100 * row
    np.testing.assert_array_equal(m.hypercolumn_codes, parts.codes)
    np.testing.assert_array_equal(all_of(m), codec.decode(parts.codes))
    np.testing.assert_array_equal(m.hypercolumn_codec.query(dense.hypercolumns), codec.query(dense.hypercolumns))
    again = content_of(m).hypercolumns
    assert again.dim == H and again.codec.dim == dim
    np.testing.assert_array_equal(again.codes, parts.codes)


def test_a_landmark_has_the_mean_of_its_observations():
    p = place(landmarks=200, images=6)
    features = [p.features(pose, 0.1) for pose in p.poses]
    names = [f"{i}.jpg" for i in range(6)]
    of_images = [f.descriptors for f in features]  # so that what comes of them stands in the map beside
    built, _ = map_from_features(names, [CAMERA] * 6, p.poses, features, EXTRACTOR, hypercolumns=of_images)
    sums = np.zeros((len(built.positions), 32))
    np.add.at(sums, built.landmarks, built.descriptors.astype(float))
    assert len(sums) > 100
    np.testing.assert_array_equal(built.hypercolumns, quantize(sums))


def test_a_map_has_the_lowest_version_that_has_all_it_holds(plain, dense):
    patches = replace(plain, networks=replace(plain.networks, global_weights_hash="1" * 32))
    assert version(full_sections(plain)) == version(lay_out(plain)) == (2, 0)
    assert version(built_sections(patches)) == (2, 1)
    assert version(lay_out(replace(plain.encoded(), calibration=Calibration()))) == (2, 2)
    assert version(full_sections(dense)) == version(lay_out(dense)) == (2, 3)
    assert version(lay_out(replace(dense.encoded(), calibration=Calibration()))) == (2, 3)
    assert not HYPERCOLUMN_SECTIONS & full_sections(plain).keys()
    without, with_ = (lay_out(one)[Section.META] for one in (plain, dense))
    assert len(without) < len(with_) and b"hyper" not in without
    assert MapDescription.GetRootAs(without, 0)._tab.Offset(44) == 0


def test_a_map_without_hypercolumns_says_how_to_get_them(plain):
    m = to_map(full_sections(plain))
    assert m.hypercolumn_codec is None and m.hypercolumn_codes.size == 0
    with pytest.raises(MismatchError, match="have no hypercolumns") as e:
        m.hypercolumns(np.zeros(0, np.int64))
    assert "--method sparse-to-dense" in e.value.remedy


# --- landmarks that are left out


def test_taking_landmarks_keeps_their_hypercolumns(source):
    wanted = np.array([599, 3, 41, 300])
    described = source.without_keypoints()
    np.testing.assert_array_equal(described.take(wanted).hypercolumns, source.hypercolumns[wanted])
    packed = described.encoded().take(wanted)
    np.testing.assert_array_equal(packed.hypercolumns.codes.view(np.int8), source.hypercolumns[wanted])
    turned = np.arange(600)[::-1]
    np.testing.assert_array_equal(source.take(turned).hypercolumns, source.hypercolumns[turned])


def test_left_out_images_take_their_landmarks_hypercolumns_along(source):
    rest = source.without_images(np.arange(10))
    assert 0 < len(rest.positions) < len(source.positions)
    rows = [int(np.flatnonzero((source.positions == xyz).all(axis=1))[0]) for xyz in rest.positions]
    np.testing.assert_array_equal(rest.hypercolumns, source.hypercolumns[rows])


# --- packing


@pytest.mark.parametrize("kept", KEPT)
def test_packing_keeps_the_rows_of_the_landmarks_that_stay(packer, source, kept):
    m = to_map(packer.pack(KEPT[kept], 150))
    m.check_all()
    rows = source.hypercolumns[np.sort(packer.order[:150])]
    codec = m.hypercolumn_codec
    assert (m.landmark_count, m.description.hypercolumnDim) == (150, H)
    assert (codec.name, codec.row_bytes) == (KEPT[kept].codec, BYTES[kept])
    if codec.name is CodecName.INT8:
        np.testing.assert_array_equal(all_of(m), rows)
    else:
        np.testing.assert_array_equal(m.hypercolumn_codes, encode(codec, rows))
    products = codec.query(rows).astype(int) @ all_of(m).astype(int).T
    assert (products.argmax(axis=1) == np.arange(150)).mean() > 0.95  # a cell that shows a landmark finds it


@pytest.mark.parametrize("count", [20, 599, 600])
@pytest.mark.parametrize("kept", KEPT)
def test_the_packer_says_beforehand_how_large_a_map_gets(packer, kept, count):
    settings = KEPT[kept]
    sections = packer.pack(settings, count)
    packed = packer.encoded(settings).take(np.sort(packer.order[:count]))
    numbers = (np.array([n]) for n in (count, len(packed.landmarks), len(packed.codes)))
    expected = expected_lengths(Counts(packed.names, *numbers, 32, 16, H), settings)
    for kind in HYPERCOLUMN_SECTIONS & sections.keys() - {Section.HYPERCOLUMN_THRESHOLDS}:
        assert sections[kind].nbytes == expected[kind], kind
    assert all(np.all(expected.get(kind, 0) == 0) for kind in HYPERCOLUMN_SECTIONS - sections.keys())
    lists = len(sections[Section.OBSERVATION_LISTS]) - expected[Section.OBSERVATION_LISTS][0]
    assert abs(packer.sizes(settings)[count - 1] + lists - size_of(sections)) < 700 + TILE.itemsize


@pytest.mark.parametrize("budget", [25_000, 45_000])
@pytest.mark.parametrize("codec", list(CodecName))
def test_a_budget_is_kept_and_filled(packer, budget, codec):
    settings = all_settings(packer.source, budget, codec)[0]
    count = packer.fit(settings, budget)
    sections = packer.pack(settings, count)
    assert size_of(sections) <= budget and (size_of(sections) >= 0.95 * budget or count == len(packer.order))
    assert HYPERCOLUMN_SECTIONS & sections.keys() >= {Section.HYPERCOLUMNS}
    to_map(sections).check_all()


def test_the_chosen_map_has_hypercolumns_and_can_be_packed_again():
    source = in_file_order(place(landmarks=250, images=6).source(hypercolumns=H))
    sections, (chosen, *_) = choose(source, 12_000)
    m = to_map(sections)
    assert size_of(sections) <= 12_000 and all_of(m).shape == (chosen.landmarks, m.hypercolumn_codec.dim)
    packed = content_of(m)
    sections, (again, *_) = choose(packed, 10_500)
    smaller = to_map(sections)
    assert size_of(sections) <= 10_500 and 0 < again.landmarks < chosen.landmarks
    before, after = (one.in_world(one.positions(np.arange(one.landmark_count))) for one in (m, smaller))
    distances = np.linalg.norm(after[:, None] - before, axis=2)
    assert distances.min(axis=1).max() < 1e-3
    np.testing.assert_array_equal(smaller.hypercolumn_codes, m.hypercolumn_codes[distances.argmin(axis=1)])


@pytest.mark.parametrize("dim", [1, 3, 7, 8, 9, 15])
@pytest.mark.parametrize("kept", KEPT)
def test_narrow_hypercolumns_are_packed_too(plain, dim, kept):
    rows = quantize(np.random.default_rng(dim).normal(size=(100, dim)))
    packer = Packer(replace(plain, hypercolumns=rows))
    m = to_map(packer.pack(KEPT[kept], 60))
    assert m.description.hypercolumnDim == dim and m.hypercolumn_codec.row_bytes <= max(dim, BYTES[kept])
    assert all_of(m).shape == (60, m.hypercolumn_codec.dim)


# --- merging


def test_merged_maps_keep_the_hypercolumns_of_both(dense, source):
    other = replace(dense, names=tuple(f"other/{name}" for name in dense.names))
    merged = merge([source, other], ["a", "b"])
    np.testing.assert_array_equal(merged.hypercolumns, np.concatenate([source.hypercolumns, other.hypercolumns]))
    m = to_map(full_sections(merged))
    np.testing.assert_array_equal(all_of(m), in_file_order(merged).hypercolumns)


def test_maps_with_and_without_hypercolumns_are_not_merged(plain, source, dense):
    other = replace(plain, names=tuple(f"other/{name}" for name in plain.names))
    for pair in ((source, other), (other, source)):
        with pytest.raises(InputError, match="one of a and b has hypercolumns, the other none") as e:
            merge(pair, ["a", "b"])
        assert "--method" in e.value.remedy
    other = replace(dense, names=other.names, hypercolumns=dense.hypercolumns[:, :32])
    with pytest.raises(MismatchError, match="a has 64-D hypercolumns, b 32-D"):
        merge([source, other], ["a", "b"])
    assert merge([plain, replace(plain, names=other.names)], ["a", "b"]).hypercolumns is None


# --- what is refused


def changed(sections, **fields):
    """With other fields of META."""
    d = MapDescriptionT.InitFromObj(MapDescription.GetRootAs(sections[Section.META], 0))
    for name, value in fields.items():
        setattr(d, name, value)
    builder = flatbuffers.Builder(1024)
    builder.Finish(d.Pack(builder))
    return {**sections, Section.META: bytes(builder.Output())}


@pytest.fixture(scope="module")
def laid_out(dense):
    """Sections by codec: of 12 dimensions in 3 subspaces, or of 12 bits, or of all dimensions."""
    codecs = {
        "int8": Codec(CodecName.INT8, H),
        "pq": fit_codec(CodecName.PQ, dense.hypercolumns, 12, 3),
        "binary": fit_codec(CodecName.BINARY, dense.hypercolumns, 12),
    }
    return {
        name: lay_out(replace(dense.encoded(), hypercolumns=encoded(dense, codec))) for name, codec in codecs.items()
    }


@pytest.mark.parametrize(
    ("codec", "fields", "message"),
    [
        ("int8", {"hypercolumnDim": 1041}, "hypercolumns of 1041 dimensions"),
        ("int8", {"hypercolumnDim": 2**32 - 1}, "hypercolumns of 4294967295 dimensions"),
        ("int8", {"hypercolumnDim": 63}, "HYPERCOLUMN_PROJECTION is missing"),
        ("int8", {"hypercolumnCodeDim": 0}, "codes of 0 dimensions"),
        ("int8", {"hypercolumnCodeDim": 2**32 - 1}, "codes of 4294967295 dimensions"),
        ("int8", {"hypercolumnCodeDim": 65}, "HYPERCOLUMN_PROJECTION is missing"),
        ("int8", {"hypercolumnCodec": "int9"}, "'int9' does not exist"),
        ("int8", {"hypercolumnCodec": None}, "'' does not exist"),
        ("int8", {"hypercolumnCodec": "in\x1bt"}, "not printable"),
        ("int8", {"hypercolumnCodec": "pq", "hypercolumnSubspaces": 16}, "HYPERCOLUMN_CODEBOOK is missing"),
        ("int8", {"hypercolumnCodec": "binary"}, "HYPERCOLUMN_PROJECTION is missing"),
        ("int8", {"hypercolumnDim": 65, "hypercolumnCodeDim": 65}, "HYPERCOLUMNS has 6400 bytes, META implies 6500"),
        ("pq", {"hypercolumnSubspaces": 0}, "12 dimensions do not split into 0"),
        ("pq", {"hypercolumnSubspaces": 5}, "12 dimensions do not split into 5"),
        ("pq", {"hypercolumnSubspaces": 24}, "12 dimensions do not split into 24"),
        ("pq", {"hypercolumnSubspaces": 2**32 - 1}, "do not split"),
        ("pq", {"hypercolumnSubspaces": 4}, "HYPERCOLUMNS has 300 bytes, META implies 400"),
        ("pq", {"hypercolumnCodeDim": 1040}, "HYPERCOLUMN_PROJECTION has 768 bytes, META implies 66560"),
        ("binary", {"hypercolumnCodeDim": 11}, "HYPERCOLUMN_PROJECTION has 768 bytes, META implies 704"),
    ],
)
def test_what_meta_says_of_hypercolumns_is_checked_on_opening(laid_out, codec, fields, message):
    with pytest.raises(MapFormatError, match=message):
        to_map(changed(laid_out[codec], **fields))


@pytest.mark.parametrize("codec", ["int8", "pq", "binary"])
def test_sections_of_another_length_are_refused_on_opening(laid_out, codec):
    sections = laid_out[codec]
    to_map(sections).check_all()
    needed = sorted(HYPERCOLUMN_SECTIONS & sections.keys())
    assert len(needed) == {"int8": 1, "pq": 3, "binary": 3}[codec]
    for kind in needed:
        whole = np.ascontiguousarray(sections[kind]).tobytes()
        for part in (whole[:-1], whole + b"\0", b"", whole * 2):
            with pytest.raises(MapFormatError, match=f"section {kind.name} has {len(part)} bytes"):
                to_map({**sections, kind: part})
        with pytest.raises(MapFormatError, match=f"section {kind.name} is missing"):
            to_map({other: part for other, part in sections.items() if other != kind})


def test_a_writer_refuses_what_no_reader_opens(tmp_path, dense):
    parts = replace(encoded(dense, Codec(CodecName.INT8, H)), codes=dense.hypercolumns[:-1].view(np.uint8))
    for hypercolumns in (parts, replace(parts, dim=1041), replace(parts, dim=65)):
        with pytest.raises(InputError, match="no reader would open the map"):
            write_map(lay_out(replace(dense.encoded(), hypercolumns=hypercolumns)), tmp_path / "a.hfmap")
    assert not list(tmp_path.iterdir())


def test_sections_that_meta_does_not_call_for_are_ignored(laid_out):
    m = to_map(changed(laid_out["pq"], hypercolumnDim=0))
    m.check_all()
    assert m.hypercolumn_codec is None and content_of(m).hypercolumns is None
    with pytest.raises(MismatchError):
        all_of(m)


def test_a_map_that_can_be_packed_keeps_its_hypercolumns_whole(dense, laid_out):
    tools = {kind: part for kind, part in full_sections(dense).items() if kind >= Section.SOURCE_IMAGES}
    assert isinstance(content_of(to_map({**laid_out["int8"], **tools})), BuiltMap)
    with pytest.raises(MapFormatError, match="SOURCE sections"):
        content_of(to_map({**laid_out["pq"], **tools}))


def test_damage_is_noticed_where_it_is_touched(source):
    data = bytearray(to_map(lay_out(source)).file.data)
    entry = LocalizationMap.read(bytes(data)).file.sections[Section.HYPERCOLUMNS]
    last = 600 - 1
    data[entry.offset + last * H + 5] ^= 1
    m = LocalizationMap.read(bytes(data))  # opens: nothing there has been used
    touched = m.file.touched
    np.testing.assert_array_equal(m.hypercolumns(np.arange(10)), source.hypercolumns[:10])
    assert m.file.touched <= touched + BLOCK
    with pytest.raises(MapFormatError, match="damaged"):
        m.hypercolumns(np.array([3, last]))
    with pytest.raises(MapFormatError, match="damaged"):
        m.check_all()


def test_a_damaged_table_is_noticed_on_opening(laid_out):
    data = bytearray(to_map(laid_out["pq"]).file.data)
    entry = LocalizationMap.read(bytes(data)).file.sections[Section.HYPERCOLUMN_CODEBOOK]
    data[entry.offset] ^= 1
    with pytest.raises(MapFormatError, match="damaged"):
        LocalizationMap.read(bytes(data))
