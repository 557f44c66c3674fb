"""Recordings and bundles that were made to exhaust the reader: refused by name, in little memory."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from test_compare import a_recording, changed

from hfnet_edge.errors import RecordingError
from hfnet_edge.record import recording_file
from hfnet_edge.record.recording_file import MAX_ARRAY, MAX_ROWS, read_recording, to_bytes
from hfnet_edge.shell import archive
from hfnet_parity import bundle as bundles
from hfnet_parity.bundle import Bundle, write_bundle

MEMORY = 32 << 20  # bytes that a refusal may take, at most


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name) for name in file.namelist()}


def zipped(members, spoil=lambda entries: None, compression=zipfile.ZIP_DEFLATED):
    """A zip, after ``spoil`` has changed what its directory says."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that repeat
        for name, content in members:
            file.writestr(name, content)
        spoil({entry.filename: entry for entry in file.filelist})
    return buffer.getvalue()


def refused(content, match):
    """The reader refuses, and takes little memory to find out."""
    tracemalloc.start()
    try:
        with pytest.raises(RecordingError, match=match) as e:
            read_recording(content, "it")
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    assert e.value.remedy


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def header(shape, descr="<f8", fortran=False):
    """A file of numpy's format that has nothing but its header."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def test_an_honest_recording_is_read_and_its_arrays_cannot_be_changed():
    content = to_bytes(a_recording())
    again = read_recording(content, "it")
    assert to_bytes(again) == content
    with pytest.raises(ValueError):
        again.queries[0].features.keypoints[0] = 0


def test_recordings_that_unfold_to_much_more_than_they_store():
    """320 MB of zeros in 320 kB."""
    dark = {role: np.zeros(2 << 20, np.float32) for role in "abcdefgh"}
    outputs = changed(a_recording(5), outputs=lambda _: dark, output_hashes=lambda _: {role: "0" * 32 for role in dark})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "MAX_RATIO", 1 << 20)  # the writer keeps the limits too
        content = to_bytes(outputs)
    assert len(content) < 2 << 20
    refused(content, "unfold")
    with pytest.raises(RecordingError, match="too large"):
        to_bytes(outputs)


def test_what_a_black_image_gives_is_read_at_any_ratio():
    dark = changed(a_recording(5), outputs=lambda _: {"global_descriptor": np.zeros(1 << 20, np.float32)})
    content = to_bytes(dark)
    assert len(content) < 1 << 18
    assert not read_recording(content, "it").queries[4].outputs["global_descriptor"].any()


def test_a_member_that_unfolds_to_more_than_it_says():
    members = members_of(to_bytes(a_recording()))
    members["0/thumbnail.npy"] = b"\0" * (200 << 20)

    def understate(entries):
        entries["0/thumbnail.npy"].file_size = 1000

    refused(zipped(members.items(), understate), "thumbnail|CRC")


def test_a_member_that_says_more_than_it_has():
    members = members_of(to_bytes(a_recording()))

    def overstate(entries):
        entries["0/thumbnail.npy"].file_size += 1000

    refused(zipped(members.items(), overstate), "thumbnail")


def test_members_that_lie_in_the_same_bytes():
    members = members_of(to_bytes(a_recording()))

    def overlap(entries):
        entries["1/thumbnail.npy"].header_offset = entries["0/thumbnail.npy"].header_offset

    refused(zipped(members.items(), overlap), "overlaps")


def test_members_of_one_name():
    members = list(members_of(to_bytes(a_recording())).items())
    refused(zipped([*members, members[1]]), "one name")


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_only_stored_and_deflated_members_are_read(compression):
    """lzma's dictionary may ask for gigabytes."""
    refused(zipped(members_of(to_bytes(a_recording())).items(), compression=compression), "neither stored nor deflated")


def test_a_directory_that_is_all_of_the_file():
    size = archive.MAX_DIRECTORY + (1 << 20)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, size, 0, 0)
    refused(b"PK\1\2" + bytes(size - 4) + end, "directory")
    end_64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1 << 20, 1 << 20, size, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    refused(b"PK\1\2" + bytes(size - 4) + end_64 + locator + end, "directory")


def test_a_large_zip_of_64_bits_is_read(tmp_path):
    """65,536 members and more have their number in another record."""
    content = zipped(((str(i), b"") for i in range(65_600)), compression=zipfile.ZIP_STORED)
    assert b"PK\6\7" in content[-100:]
    with archive.open_archive(io.BytesIO(content), 1) as file:
        assert len(file.namelist()) == 65_600


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("features/keypoints", header((10**15, 2))),
        ("features/keypoints", header((80, 2))),
        ("features/keypoints", header((-4, -40))),
        ("features/keypoints", header((0, 10**15))),
        ("features/keypoints", header((80, 2), fortran=True) + bytes(80 * 2 * 8)),
        ("features/descriptors", header((80, 32), "|O") + bytes(80 * 32 * 8)),
        ("features/descriptors", header((80, 32), [("a", "|i1")]) + bytes(80 * 32)),
        ("thumbnail", header((10**9, 10**9), "|u1")),
        ("thumbnail", b"\x93NUMPY\x02\x00\xff\xff\xff\xff"),
        ("thumbnail", npy(np.zeros((4097, 4097), np.uint8))),
        ("covariance", header((10**9, 10**9))),
    ],
)
def test_arrays_that_claim_more_than_they_have(name, content):
    members = members_of(to_bytes(a_recording())) | {f"0/{name}.npy": content}
    refused(zipped(members.items()), "it is damaged")


def test_keypoints_beyond_what_can_be_compared():
    count = MAX_ROWS + 1
    many = {"keypoints": np.zeros((count, 2)), "scores": np.zeros(count, np.float32)}
    many["descriptors"] = np.zeros((count, 1), np.int8)
    recording = changed(a_recording(1), features=lambda f: replace(f, **many), matched=lambda _: None)
    with pytest.raises(RecordingError, match="65537 rows"):
        to_bytes(recording)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recording_file, "MAX_ROWS", count)
        content = to_bytes(recording)
    with pytest.raises(RecordingError, match="65537 rows"):
        read_recording(content, "it")


@pytest.mark.parametrize(
    "manifest",
    [
        b"[" * 200_000,
        b'{"format": 2, "about": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
        b'{"format": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"format": 1e999}',
        b'{"format": 2, "about": {}, "references": [], "queries": [' + b"[]," * 6_000_000 + b"[]]}",
    ],
    ids=["deep", "deep about", "deep format", "infinite", "18 MB"],
)
def test_hostile_manifests_of_a_recording(manifest):
    members = members_of(to_bytes(a_recording())) | {"manifest.json": manifest}
    refused(zipped(members.items()), "it is damaged")


@pytest.mark.parametrize(("format_", "remedy"), [(1, "record it again"), (3, "update hfnet-edge")])
def test_recordings_of_another_format(format_, remedy):
    members = members_of(to_bytes(a_recording(1)))
    members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | {"format": format_}).encode()
    with pytest.raises(RecordingError, match=f"it is of format {format_}, not 2") as e:
        read_recording(zipped(members.items()), "it")
    assert e.value.remedy == remedy


def test_a_writer_writes_nothing_that_cannot_be_read():
    large = changed(a_recording(1), thumbnail=lambda _: np.zeros((1, MAX_ARRAY), np.uint8))
    with pytest.raises(RecordingError, match="too large"):
        to_bytes(large)


@pytest.fixture
def bundle(tmp_path):
    """A small one, without a network."""
    recording, images = a_recording(3), {}
    for i, q in enumerate(recording.queries):
        images[q.name] = tmp_path / q.name
        images[q.name].write_bytes(bytes([i]) * 1000)
    write_bundle(tmp_path / "a.bundle", recording, images, {"model.tflite": b"model"}, b"map", {})
    return tmp_path / "a.bundle"


def rezipped(path, change, compressed=()):
    """A copy of a bundle with other members, of which some are compressed."""
    members = members_of(path.read_bytes())
    change(members)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            archive.add(file, name, content, name in compressed)


@pytest.mark.parametrize("name", ["images/000001.jpg", "model.tflite", "map.hfmap", "recording.zip"])
def test_a_bundle_unfolds_to_no_more_than_its_size(bundle, name):
    """A map of 8 GB fits into 8 MB."""
    assert Bundle.read(bundle).member("map.hfmap") == b"map"
    rezipped(bundle, lambda members: None, (name,))
    with pytest.raises(RecordingError, match=rf"a\.bundle.*{name} is compressed"):
        Bundle.read(bundle)


def test_a_bundle_that_was_changed_after_it_was_opened(bundle):
    opened = Bundle.read(bundle)
    rezipped(bundle, lambda members: members.update({"map.hfmap": bytes(1 << 20)}), ("map.hfmap",))
    with pytest.raises(RecordingError, match=r"map\.hfmap"):
        opened.member("map.hfmap")


def test_an_image_of_a_bundle_is_no_larger_than_one_that_can_be_read(bundle, tmp_path, monkeypatch):
    opened = Bundle.read(bundle)
    assert opened.image("1.jpg") == b"\1" * 1000
    monkeypatch.setattr(bundles, "MAX_FILE", 999)
    for read in (lambda: opened.image("1.jpg"), lambda: opened.unpack_images(tmp_path / "images")):
        with pytest.raises(RecordingError, match="1000 bytes, at most 999"):
            read()


@pytest.mark.parametrize("manifest", [b"[" * 200_000, b" " * (17 << 20), json.dumps({"format": [1]}).encode()])
def test_hostile_manifests_of_a_bundle(bundle, manifest):
    rezipped(bundle, lambda members: members.update({"reference.json": manifest}), ("reference.json",))
    with pytest.raises(RecordingError, match=r"a\.bundle is damaged"):
        Bundle.read(bundle)
