"""The reader against damaged and hostile files. Every refusal is a typed error that names the file."""

import struct
import zlib

import numpy as np
import pytest

from hfnet_edge.errors import MapFormatError, MapVersionError, OutputError
from hfnet_edge.map_file import ENTRY, HEADER, LocalizationMap, Section, table_checksum
from hfnet_maps.writer import write_map
from synthetic import place


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("map") / "good.hfmap"
    write_map(place(landmarks=60, images=4).map(), path)
    return path.read_bytes()


def open_bytes(tmp_path, content):
    path = tmp_path / "m.hfmap"
    path.write_bytes(content)
    return LocalizationMap.open(path)


def entry(content, kind):
    for i in range(HEADER.unpack_from(content)[3]):
        at = HEADER.size + i * ENTRY.size
        found, _checksum, offset, length = ENTRY.unpack_from(content, at)
        if found == kind:
            return at, offset, length
    raise KeyError(kind)


def resealed(content, **header):
    """The same bytes with all checksums made right again, as a hostile writer would."""
    content = bytearray(content)
    count = HEADER.unpack_from(content)[3]
    for i in range(count):
        at = HEADER.size + i * ENTRY.size
        kind, _, offset, length = ENTRY.unpack_from(content, at)
        ENTRY.pack_into(content, at, kind, zlib.crc32(content[offset : offset + length]), offset, length)
    head = content[: HEADER.size + count * ENTRY.size]
    struct.pack_into("<I", content, 24, table_checksum(bytes(head)))
    return bytes(content)


def test_what_is_written_is_read(tmp_path):
    m = place(landmarks=60, images=4).map()
    size = write_map(m, tmp_path / "m.hfmap")
    back = LocalizationMap.open(tmp_path / "m.hfmap")
    assert size == (tmp_path / "m.hfmap").stat().st_size
    assert back.image_names == m.image_names and back.description.weightsHash == m.description.weightsHash
    for name in (
        "image_poses",
        "global_descriptors",
        "landmark_positions",
        "observation_offsets",
        "observation_landmarks",
        "observation_descriptors",
        "origin",
    ):
        np.testing.assert_array_equal(getattr(back, name), getattr(m, name))


def test_arrays_are_read_only_views_of_the_file(tmp_path, good):
    m = open_bytes(tmp_path, good)
    with pytest.raises(ValueError, match="read-only"):
        m.landmark_positions[0] = 0
    assert m.observation_descriptors.base is not None


def test_every_flipped_byte_is_noticed(tmp_path, good):
    for at in range(0, len(good), 7):
        damaged = bytearray(good)
        damaged[at] ^= 0x10
        with pytest.raises(MapFormatError, match=r"m\.hfmap"):
            open_bytes(tmp_path, bytes(damaged))


def test_every_truncation_is_noticed(tmp_path, good):
    for length in [0, 1, 8, 63, 64, 100, 500, len(good) // 2, len(good) - 1]:
        with pytest.raises(MapFormatError, match=r"m\.hfmap"):
            open_bytes(tmp_path, good[:length])
    with pytest.raises(MapFormatError):
        open_bytes(tmp_path, good + b"\0")


def test_other_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.hfmap"):
        with pytest.raises(MapFormatError, match=str(path)):
            LocalizationMap.open(path)
    with pytest.raises(MapFormatError, match="not an hfnet-edge map"):
        open_bytes(tmp_path, b"PK\3\4" * 100)


def with_version(content, major, minor):
    content = bytearray(content)
    struct.pack_into("<HH", content, 8, major, minor)
    return resealed(content)


def test_a_newer_major_version_is_refused_by_name_a_newer_minor_is_read(tmp_path, good):
    with pytest.raises(MapVersionError, match=r"version 2\.0"):
        open_bytes(tmp_path, with_version(good, 2, 0))
    assert open_bytes(tmp_path, with_version(good, 1, 9)).image_names[0] == "000.jpg"


def test_sections_of_a_newer_minor_version_are_skipped(tmp_path, good):
    """An unknown section after the known ones does not disturb."""
    count = HEADER.unpack_from(good)[3]
    table_end = HEADER.size + count * ENTRY.size
    assert table_end % 64 == 0  # so one more entry shifts everything by a whole 64
    entries = [list(ENTRY.unpack_from(good, HEADER.size + i * ENTRY.size)) for i in range(count)]
    content = bytearray(good[:table_end])
    body = good[table_end:]
    shift = 64
    for i, (kind, checksum, offset, length) in enumerate(entries):
        ENTRY.pack_into(content, HEADER.size + i * ENTRY.size, kind, checksum, offset + shift, length)
    end = len(good) + shift
    offset = -(-end // 64) * 64
    content += ENTRY.pack(200, 0, offset, 5) + bytes(32) + body + bytes(offset - end) + b"hello"
    struct.pack_into("<HHIQ", content, 8, 1, 1, count + 1, len(content))
    assert open_bytes(tmp_path, resealed(content)).image_names[0] == "000.jpg"


def test_hostile_tables_are_refused(tmp_path, good):
    at, offset, length = entry(good, Section.LANDMARK_POSITIONS)
    for new_offset, new_length in [
        (offset - 64, length),  # overlap
        (offset + 64, length),  # hole
        (offset, 2**63),  # past the end
        (2**63, 64),
        (offset, length - 12),  # a landmark short
        (offset + 4, length),  # not aligned
    ]:
        content = bytearray(good)
        kind, checksum, _, _ = ENTRY.unpack_from(content, at)
        ENTRY.pack_into(content, at, kind, checksum, new_offset, new_length)
        with pytest.raises(MapFormatError, match=r"m\.hfmap"):
            open_bytes(tmp_path, resealed(content))
    for count in (0, 65, 2**32 - 1):
        content = bytearray(good)
        struct.pack_into("<I", content, 12, count)
        with pytest.raises(MapFormatError, match="sections"):
            open_bytes(tmp_path, bytes(content))


@pytest.mark.parametrize(
    ("kind", "dtype", "index", "value", "word"),
    [
        (Section.OBSERVATION_OFFSETS, "<u4", 1, 2**32 - 1, "OFFSETS"),
        (Section.OBSERVATION_OFFSETS, "<u4", 0, 1, "OFFSETS"),
        (Section.OBSERVATION_LANDMARKS, "<u4", 3, 10**6, "past the last landmark"),
        (Section.OBSERVATION_LANDMARKS, "<u4", 1, 0, "increasing"),
        (Section.LANDMARK_POSITIONS, "<f4", 5, np.nan, "finite"),
        (Section.IMAGE_POSES, "<f8", 2, np.inf, "finite"),
        (Section.IMAGE_POSES, "<f8", 0, 7.0, "unit length"),
        (Section.IMAGE_NAMES, "u1", 0, 0xFF, "UTF-8"),
        (Section.IMAGE_NAMES, "u1", 2, ord("\n"), "names"),
    ],
)
def test_hostile_contents_are_refused(tmp_path, good, kind, dtype, index, value, word):
    _, offset, _ = entry(good, kind)
    content = bytearray(good)
    itemsize = np.dtype(dtype).itemsize
    content[offset + index * itemsize : offset + (index + 1) * itemsize] = np.array(value, dtype).tobytes()
    with pytest.raises(MapFormatError, match=word):
        open_bytes(tmp_path, resealed(content))


def test_a_hostile_description_is_refused_whatever_it_says(tmp_path, good):
    """Every byte of META replaced by several values, with right checksums: an error of ours or a readable map."""
    _, offset, length = entry(good, Section.META)
    for at in range(length):
        for value in (0, 0x7F, 0xFF):
            content = bytearray(good)
            content[offset + at] = value
            try:
                open_bytes(tmp_path, resealed(content))
            except MapFormatError as e:
                assert "m.hfmap" in str(e)


def test_a_failed_write_leaves_the_old_map(tmp_path, monkeypatch):
    m = place(landmarks=60, images=4).map()
    write_map(m, tmp_path / "m.hfmap")
    before = (tmp_path / "m.hfmap").read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hfnet_edge.files.os.fsync", full_disk)
    with pytest.raises(OutputError, match="No space left"):
        write_map(m, tmp_path / "m.hfmap")
    assert (tmp_path / "m.hfmap").read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["m.hfmap"]
    with pytest.raises(OutputError, match="nowhere"):
        write_map(m, tmp_path / "nowhere" / "m.hfmap")
