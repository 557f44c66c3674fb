"""The map file: what is written is read; damage, other versions and hostile bytes end in typed errors that name the
file. tests/attacks goes further."""

import os
import re
import struct

import numpy as np
import pytest

from attacks.tampering import (
    COUNT_AT,
    ENTRY,
    HEADER,
    VERSION_AT,
    assembled,
    find,
    overwritten,
    parts,
    resealed,
    row_at,
    table,
    with_entry,
    with_meta,
    with_row,
    with_sections,
)
from attacks.victims import KINDS, a_large_map, a_query, victim, written
from hfnet_edge.errors import HFNetEdgeError, MapFormatError, MapVersionError, OutputError
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.container import BLOCK, Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.observation_list import TILE_SIZE
from hfnet_edge.result import Status
from hfnet_maps.build.trees import tree_sections
from hfnet_maps.content import BuiltMap, PackedMap, read_content
from hfnet_maps.pack.writer import in_file_order, lay_out, size_of, to_map, write_map
from synthetic import CAMERA, place, toy_source


@pytest.fixture(scope="module")
def good():
    """With every section that localization can use, but the tables of "pq"."""
    return victim("int8 x all").content


def open_bytes(tmp_path, content):
    path = tmp_path / "m.hfmap"
    path.write_bytes(content)
    return LocalizationMap.open(path)


def some_landmarks(source, seed=0):
    """Nobody, everybody, one, and some."""
    count = len(source.positions)
    rng = np.random.default_rng(seed)
    yield from (np.arange(0), np.arange(count), np.array([count - 1]))
    for size in (1, 7, count // 2):
        yield np.sort(rng.choice(count, size, replace=False))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(tmp_path, kind):
    v = victim(kind)
    size = write_map(v.sections, tmp_path / "m.hfmap")
    assert size == size_of(v.sections) == len(v.content)
    assert (tmp_path / "m.hfmap").read_bytes() == v.content
    m, source = LocalizationMap.open(tmp_path / "m.hfmap"), v.source
    m.check_all()
    d, networks = m.description, source.networks
    assert d.architecture == networks.architecture and d.weightsHash == networks.weights_hash
    assert (d.precision, d.localDim, d.extractorGlobalDim) == ("none", 32, 16)
    assert (m.image_count, m.landmark_count, d.observationCount) == (5, len(source.positions), len(source.images))
    assert m.image_names == source.names
    for image, pose in enumerate(source.poses):
        np.testing.assert_array_equal(m.pose(image).quaternion, pose.quaternion)
        np.testing.assert_array_equal(m.pose(image).translation, pose.translation)
    np.testing.assert_array_equal(m.global_descriptors, source.global_descriptors)
    if source.global_projection is not None:
        np.testing.assert_array_equal(m.global_projection, source.global_projection)


@pytest.mark.parametrize("kind", KINDS)
def test_landmarks_are_those_of_the_source(kind):
    """Each question against a plain answer, computed from what was written."""
    m, source = victim(kind).read(), victim(kind).source
    for image in range(m.image_count):
        assert m.observed(image).tolist() == sorted(source.landmarks[source.images == image].tolist())
    stored = source.codec.decode(source.codes)
    for landmarks in some_landmarks(source):
        wanted = [(i, row) for i, landmark in enumerate(landmarks) for row in stored[source.described == landmark]]
        descriptors, owners = m.descriptors(landmarks)
        assert descriptors.dtype == np.int8 and descriptors.shape[1] == m.codec.dim
        assert owners.tolist() == [i for i, _ in wanted]
        assert descriptors.tolist() == [row.tolist() for _, row in wanted]
        rows, owners = m.descriptor_rows(landmarks)
        assert source.described[rows].tolist() == landmarks[owners].tolist()
        assert m.positions(landmarks).shape == (len(landmarks), 3)
        np.testing.assert_allclose(m.positions(landmarks) + m.origin, source.positions[landmarks], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_localized_in_and_read_for_packing(tmp_path, kind):
    v = victim(kind)
    (tmp_path / "m.hfmap").write_bytes(v.content)
    assert localize_features(v.read(), a_query(), CAMERA).status is Status.LOCALIZED
    back = read_content(tmp_path / "m.hfmap")
    for name in ("landmarks", "images", "described", "global_descriptors"):
        np.testing.assert_array_equal(getattr(back, name), getattr(v.source, name))
    assert back.encoded().codes.tobytes() == v.source.codes.tobytes()
    assert isinstance(back, BuiltMap if kind == "as built" else PackedMap)


@pytest.mark.parametrize("kind", KINDS)
def test_a_writer_of_another_hand_writes_the_same_file(kind):
    content = victim(kind).content
    assert assembled(parts(content)) == content


def test_a_map_of_nothing_is_a_map():
    for sections in (lay_out(place(landmarks=0).source()), lay_out(toy_source([[], []]))):
        m = written(sections, None).read()
        m.check_all()
        assert m.landmark_count == 0 and not any(len(m.observed(image)) for image in range(m.image_count))
        assert m.descriptors(np.arange(0))[0].shape == (0, 32) and m.positions(np.arange(0)).shape == (0, 3)
        assert localize_features(m, a_query(), CAMERA).status is Status.NO_CANDIDATES


@pytest.mark.parametrize("most", [1, 2, 4, 5, 255, 256, 257, 300])
def test_any_number_of_descriptors_a_landmark_is_read(most):
    """Numbers of descriptors around where the width of their field changes."""
    observed = [list(range(min(image, 3), 4)) for image in range(most)]  # landmark 0 has one
    rng = np.random.default_rng(most)
    source = in_file_order(toy_source(observed, [rng.integers(-127, 128, (len(ids), 32)) for ids in observed]))
    m = written(lay_out(source), source).read()
    m.check_all()
    for landmark in range(len(source.positions)):
        descriptors, _ = m.descriptors(np.array([landmark]))
        np.testing.assert_array_equal(descriptors, source.descriptors[source.described == landmark])


def test_arrays_are_read_only_views_of_the_file(tmp_path, good):
    m = open_bytes(tmp_path, good)
    for array in (m.image_poses, m.global_descriptors, m.codes):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
        assert array.base is not None


@pytest.mark.parametrize(("extent", "offset"), [(100.0, 0.0), (100.0, 5e6), (1.0, 0.0), (1e-3, 1e6)])
def test_a_position_is_off_by_half_a_step_at_most(extent, offset):
    """In a tile of 100 m less than 2 mm, wherever on Earth."""
    rng = np.random.default_rng(0)
    source = toy_source([list(range(1000))])
    positions = offset + rng.uniform(0, extent, (1000, 3)) * [1, 0.3, 0.01]
    positions[7] = positions[8]
    object.__setattr__(source, "positions", positions)
    source = in_file_order(source)
    v = written(lay_out(source), source)
    m, everybody = v.read(), np.arange(1000)
    step = v.sections[Section.TILES]["step"].astype(np.float64)[everybody // TILE_SIZE]
    error = np.abs(m.positions(everybody) + m.origin - source.positions)
    rounding = np.spacing(np.abs(source.positions).max()) * 4  # of float64 world coordinates
    assert (error <= step[:, None] * (0.5 + 1e-6) + rounding).all()
    assert step.max() <= extent / 65535 * 1.001 + 1e-9 * extent and error.max() < 2e-3


def test_every_flipped_byte_is_noticed(tmp_path):
    """By `check_all`, wherever it is; of the head, by opening."""
    for kind in KINDS:
        good = victim(kind).content
        offset, length = find(good, Section.CHECKSUMS)
        start = -(-(offset + length) // 64) * 64
        for at in [*range(0, start, 5), *range(start, len(good), 67), len(good) - 1]:
            damaged = overwritten(good, at, bytes([good[at] ^ 0x10]))
            if at < start:
                with pytest.raises(MapFormatError, match="the map"):
                    LocalizationMap.read(damaged)
            else:
                with pytest.raises(MapFormatError, match="the map"):
                    LocalizationMap.read(damaged).check_all()
    with pytest.raises(MapFormatError, match=r"m\.hfmap"):
        open_bytes(tmp_path, damaged).check_all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_that_a_query_touches_is_noticed_by_it(kind):
    good = victim(kind).content
    unused = {Section.IMAGE_NAMES, Section.IMAGE_POSES}  # by a query, unless they share a block with what it uses
    for section, offset, length in table(good):
        if section in unused or section >= 64 or not length:
            continue
        for at in {offset, offset + length // 2, offset + length - 1}:
            with pytest.raises(MapFormatError, match="damaged"):
                damaged = LocalizationMap.read(overwritten(good, at, bytes([good[at] ^ 0x80])))
                localize_features(damaged, a_query(), CAMERA)


def test_opening_touches_nothing_of_the_bulk(tmp_path):
    """Damage there is noticed when it is used, and by `check_all`."""
    v = a_large_map()
    good, source, inside = v.content, v.source, {}
    for kind in (Section.LANDMARK_POSITIONS, Section.DESCRIPTORS):
        offset, length = find(good, kind)
        inside[kind] = length // 2
        assert length > 4 * BLOCK  # so the middle shares no block with anything else
        good = overwritten(good, offset + inside[kind], bytes([good[offset + inside[kind]] ^ 1]))
    m = open_bytes(tmp_path, good)
    np.testing.assert_array_equal(m.observed(0), source.landmarks[source.images == 0])
    m.positions(np.arange(50))
    m.descriptors(np.arange(50))
    with pytest.raises(MapFormatError, match=r"m\.hfmap.*damaged"):
        m.positions(np.array([inside[Section.LANDMARK_POSITIONS] // 6]))
    with pytest.raises(MapFormatError, match=r"m\.hfmap.*damaged"):
        m.descriptors(source.described[[inside[Section.DESCRIPTORS] // 32]])
    with pytest.raises(MapFormatError, match=r"m\.hfmap.*damaged"):
        m.check_all()


def test_every_truncation_is_noticed(tmp_path, good):
    for length in [0, 1, 8, 63, 64, 100, 500, len(good) // 2, len(good) - 1]:
        with pytest.raises(MapFormatError, match=r"m\.hfmap"):
            open_bytes(tmp_path, good[:length])
    with pytest.raises(MapFormatError, match="truncated or padded"):
        open_bytes(tmp_path, good + b"\0")


def test_other_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.hfmap"):
        with pytest.raises(MapFormatError, match=re.escape(str(path))):
            LocalizationMap.open(path)
    for content in (b"PK\3\4" * 100, b"HFMAP\n\x1a" + bytes(100)):  # the second went through a text-mode copy
        with pytest.raises(MapFormatError, match="not an hfnet-edge map"):
            open_bytes(tmp_path, content)


def with_version(content, major, minor):
    return resealed(overwritten(content, VERSION_AT, struct.pack("<HH", major, minor)))


def test_another_major_version_is_refused_by_name_a_newer_minor_is_read(tmp_path, good):
    with pytest.raises(MapVersionError, match=r"m\.hfmap.*version 3\.1 map.*update"):
        open_bytes(tmp_path, with_version(good, 3, 1))
    with pytest.raises(MapVersionError, match=r"version 1\.0 map.*build it again"):
        open_bytes(tmp_path, with_version(good, 1, 0))
    m = open_bytes(tmp_path, with_version(good, 2, 9))
    m.check_all()
    assert m.image_names[0] == "000.jpg"


def test_sections_of_a_newer_minor_version_are_skipped(tmp_path, good):
    """Unknown ones between the known ones and after them do not disturb."""
    sections = parts(good) | {40: b"hello", 41: b"", 63: bytes(100), 200: bytes(BLOCK), 2**32 - 1: b"x"}
    m = open_bytes(tmp_path, assembled({kind: sections[kind] for kind in sorted(sections)}, version=(2, 1)))
    m.check_all()
    assert m.image_names[0] == "000.jpg" and m.file.sections[40].name == "UNKNOWN_40"
    assert localize_features(m, a_query(), CAMERA).status is Status.LOCALIZED


def test_hostile_tables_are_refused(tmp_path, good):
    offset, length = find(good, Section.LANDMARK_POSITIONS)
    for new_offset, new_length in [
        (offset - 64, length),  # overlap
        (offset + 64, length),  # hole
        (offset, 2**63),  # past the end
        (2**63, 64),
        (2**64 - 64, 128),  # wraps to 64
        (offset, length - 6),  # a landmark short
        (offset, 0),
        (offset + 4, length),  # not aligned
    ]:
        with pytest.raises(MapFormatError, match=r"m\.hfmap"):
            open_bytes(tmp_path, with_row(good, Section.LANDMARK_POSITIONS, new_offset, new_length))
    for count in (0, 1, 65, 2**32 - 1):
        with pytest.raises(MapFormatError, match="sections"):
            open_bytes(tmp_path, resealed(overwritten(good, COUNT_AT, struct.pack("<I", count))))
    for kind in (Section.META, Section.CHECKSUMS, 0):  # twice, out of order
        at = row_at(good, Section.TILES)
        with pytest.raises(MapFormatError, match="repeat or are out of order"):
            open_bytes(tmp_path, resealed(overwritten(good, at, struct.pack("<I", kind))))


def test_every_missing_section_is_noticed(good):
    for kind in (k for name in KINDS for k in parts(victim(name).content)):
        content = next(c for c in (victim(name).content for name in KINDS) if kind in parts(c))
        without = {k: part for k, part in parts(content).items() if k != kind}
        if kind < Section.SOURCE_IMAGES:
            with pytest.raises(MapFormatError, match="missing"):
                LocalizationMap.read(assembled(without)).check_all()
        else:
            LocalizationMap.read(assembled(without)).check_all()


TREE_PARTS = [kind for kind in Section if Section.RANDOM_TREES <= kind <= Section.TREE_LANDMARKS]


@pytest.fixture(scope="module")
def with_trees():
    """The file of a map with random trees, and those of another map."""
    files = []
    for landmarks in (400, 300):
        source = in_file_order(place(landmarks=landmarks, images=6).source())
        networks = source.networks
        trees = tree_sections(source.descriptors, source.described, len(source.positions), networks.weights_hash)
        files.append(bytes(to_map({**lay_out(source), **trees}).file.data))
    return files


def test_random_trees_are_checked_too(with_trees):
    good, other = with_trees
    LocalizationMap.read(good).check_all()
    for kind in TREE_PARTS:
        offset, length = find(good, kind)
        for damaged, word in (
            (overwritten(good, offset + length // 2, bytes([good[offset + length // 2] ^ 0x10])), "checksum"),
            (with_sections(good, **{kind.name: None}), "no random trees|is missing"),
            (with_sections(good, **{kind.name: parts(good)[kind][:-1]}), kind.name),
        ):
            with pytest.raises(MapFormatError, match=word):
                LocalizationMap.read(damaged).check_all()
    for damaged, word in (
        (with_entry(good, Section.TREE_LANDMARKS, 0, 400, "<u4"), "not among the map's 400"),
        (with_entry(good, Section.TREE_CHILDREN, 0, 0, "<u4"), "out of range or back"),
        (with_sections(good, **{kind.name: parts(other)[kind] for kind in TREE_PARTS}), "other landmarks than its own"),
    ):
        with pytest.raises(MapFormatError, match=word):
            LocalizationMap.read(damaged).check_all()
    LocalizationMap.read(with_sections(good, **dict.fromkeys([kind.name for kind in TREE_PARTS]))).check_all()


@pytest.mark.parametrize(
    ("kind", "dtype", "index", "value", "word"),
    [
        (Section.OBSERVATION_OFFSETS, "<u4", 1, 2**32 - 1, "OBSERVATION_OFFSETS"),
        (Section.OBSERVATION_OFFSETS, "<u4", 0, 1, "OBSERVATION_OFFSETS"),
        (Section.OBSERVATION_OFFSETS, "<u4", 5, 8, "OBSERVATION_OFFSETS"),
        (Section.OBSERVATION_LISTS, "u1", 0, 0x7F, "observations of image 0"),
        (Section.OBSERVATION_LISTS, "u1", 3, 0x7F, "past the last"),
        (Section.TILES, "<f4", 5, np.nan, "finite"),  # origin of the second tile
        (Section.TILES, "<f4", 3, np.inf, "finite"),  # step of the first
        (Section.TILES, "<u4", 9, 2**31, "past the last"),  # first descriptor of the second
        (Section.TILES, "<u4", 9, 3, "overlap"),
        (Section.DESCRIPTOR_COUNTS, "<u2", 0, 2**16 - 1, "past the last"),
        (Section.DESCRIPTOR_COUNTS, "<u2", 279, 0, "descriptors"),
        (Section.IMAGE_POSES, "<f8", 2, np.inf, "finite"),
        (Section.IMAGE_POSES, "<f8", 0, 7.0, "unit length"),
        (Section.IMAGE_NAMES, "u1", 0, 0xFF, "UTF-8"),
        (Section.IMAGE_NAMES, "u1", 2, ord("\n"), "names"),
    ],
)
def test_hostile_contents_are_refused(tmp_path, good, kind, dtype, index, value, word):
    with pytest.raises(MapFormatError, match=rf"m\.hfmap.*{word}"):
        open_bytes(tmp_path, with_entry(good, kind, index, value, dtype)).check_all()


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"localDim": 0}, "dimensions"),
        ({"localDim": 1041}, "dimensions"),
        ({"globalDim": 4097, "extractorGlobalDim": 4097}, "dimensions"),
        ({"codeDim": 16}, "PROJECTION"),
        ({"codec": "zip"}, "the codec 'zip' does not exist"),
        ({"countBits": 8}, "8 bits"),
        ({"countBits": 0}, "no DESCRIPTOR_COUNTS"),
        ({"countBits": 2}, "DESCRIPTOR_COUNTS"),
        ({"imageCount": 2**32 - 1}, "OBSERVATION_OFFSETS"),
        ({"landmarkCount": 2**32 - 1}, "META implies"),
        ({"descriptorCount": 2**32 - 1}, "DESCRIPTORS"),
        ({"observationCount": 7}, "META says 7"),
        ({"originY": np.nan}, "origin"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path, good, fields, word):
    with pytest.raises(MapFormatError, match=rf"m\.hfmap.*{word}"):
        open_bytes(tmp_path, with_meta(good, **fields)).check_all()


def test_a_hostile_description_is_refused_whatever_it_says(good):
    """Every byte of META replaced by several values, with right checksums: an error of ours or a map that answers."""
    offset, length = find(good, Section.META)
    for at in range(offset, offset + length):
        for value in (0, 0x7F, 0xFF):
            try:
                m = LocalizationMap.read(resealed(overwritten(good, at, bytes([value]))))
                m.check_all()
                m.descriptors(m.observed(0))
            except MapFormatError as e:
                assert "the map" in str(e)


def test_a_text_that_ends_past_meta_is_refused(good):
    """Where META is cut within its last text, nothing but the text's length is wrong."""
    sections = parts(good)
    whole = sections[Section.META]
    for end in range(1, 9):
        sections[Section.META] = whole.rstrip(b"\0")[:-end]
        with pytest.raises(MapFormatError, match="META"):
            LocalizationMap.read(assembled(sections))


def test_a_damaged_tool_section_does_not_disturb_a_query(tmp_path):
    content = with_sections(victim("as built").content, SOURCE_IMAGES=b"not a camera\n")
    assert localize_features(open_bytes(tmp_path, content), a_query(), CAMERA).status is Status.LOCALIZED
    with pytest.raises(HFNetEdgeError, match="SOURCE_IMAGES"):
        read_content(tmp_path / "m.hfmap")


def test_a_failed_write_leaves_the_old_map(tmp_path, monkeypatch):
    sections = victim("int8").sections
    write_map(sections, tmp_path / "m.hfmap")
    before = (tmp_path / "m.hfmap").read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_map(sections, tmp_path / "m.hfmap")
    assert (tmp_path / "m.hfmap").read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["m.hfmap"]
    with pytest.raises(OutputError, match="nowhere"):
        write_map(sections, tmp_path / "nowhere" / "m.hfmap")


def test_the_constants_of_the_format():
    """What other readers have built in."""
    assert HEADER.size == 64 and ENTRY.size == 24 and BLOCK == 16384 and TILE_SIZE == 256
