"""What the writer accepts, the reader accepts: whatever the names and numbers, there is a map that opens or no file."""

from copy import copy
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hfnet_edge.errors import CameraError, InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.map_file import LocalizationMap, check_description
from hfnet_maps.content import read_content
from hfnet_maps.pack.writer import built_sections, full_sections, to_map, write_map
from synthetic import CAMERA, place

ODD_TEXT = st.one_of(
    st.sampled_from(
        ["größe", "模型", "\ud800", "a\nb", "\x7f", "\x85", "", " ", "\0", "n" * 70_000, "a b.jpg", "\u2028"]
    ),
    st.text(st.characters(), max_size=8),
)
ODD_FLOATS = st.one_of(
    st.sampled_from([np.nan, np.inf, -np.inf, 1e15, -1e15, 1e16, 1e300, 1.8e308, 5e-324, 1e-45, -0.0, 0.0, 3e38, 4e38]),
    st.floats(),
)
ODD_INTEGERS = st.one_of(
    st.sampled_from([0, -1, 1, 15, 16, 17, 32, 33, 1040, 1041, 4096, 4097, 65536, 2**31, 2**32 - 1, 2**32, 2**64]),
    st.integers(-5, 5000),
)
BASE = place(images=3, landmarks=20).source()


@st.composite
def odd_sources(draw):
    """A good source with one or two odd values."""
    source = BASE
    for _ in range(draw(st.integers(1, 2))):
        source = draw(st.sampled_from(CHANGES))(draw, source)
    return source


def _text(draw, source):
    name = draw(st.sampled_from(["architecture", "weights_hash", "precision", "global_weights_hash"]))
    return replace(source, networks=replace(source.networks, **{name: draw(ODD_TEXT)}))


def _dimension(draw, source):
    name = draw(st.sampled_from(["local_dim", "global_dim"]))
    return replace(source, networks=replace(source.networks, **{name: draw(ODD_INTEGERS)}))


def _image_name(draw, source):
    return replace(source, names=(draw(ODD_TEXT), *source.names[1:]))


def _pose(draw, source):
    values = np.concatenate([source.poses[0].quaternion, source.poses[0].translation])
    values[draw(st.integers(0, 6))] = draw(ODD_FLOATS)
    return replace(source, poses=(Pose(values[:4], values[4:]), *source.poses[1:]))


def _with(values, draw, odd):
    values = values.copy()
    with np.errstate(all="ignore"):
        values.reshape(-1)[draw(st.integers(0, values.size - 1))] = draw(odd)
    return values


def _position(draw, source):
    return replace(source, positions=_with(source.positions, draw, ODD_FLOATS))


def _photo(draw, source):
    key = draw(st.sampled_from(["pixels", "observed", "others"]))
    return replace(
        source, keypoints=replace(source.keypoints, **{key: _with(getattr(source.keypoints, key), draw, ODD_FLOATS)})
    )


def _offset(draw, source):
    offsets = _with(source.keypoints.other_offsets, draw, st.integers(-5, 2**40))
    return replace(source, keypoints=replace(source.keypoints, other_offsets=offsets))


def _camera(draw, source):
    params = [draw(ODD_FLOATS), *CAMERA.params[1:]]
    try:
        camera = Camera("PINHOLE", max(1, draw(ODD_INTEGERS)), 480, params)
    except CameraError:
        return source
    return replace(source, keypoints=replace(source.keypoints, cameras=(camera, *source.keypoints.cameras[1:])))


CHANGES = [_text, _dimension, _image_name, _pose, _position, _photo, _offset, _camera]
WITH_NAMES = replace(BASE, names=("größe.jpg", "模 型", "b" * 300))
FEW = replace(BASE.networks, global_dim=15)


def with_keypoints(**changed):
    return replace(BASE, keypoints=replace(BASE.keypoints, **changed))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd_sources())
@example(replace(BASE, networks=replace(BASE.networks, architecture="custom-größe")))
@example(replace(BASE, networks=replace(BASE.networks, global_weights_hash="0" * 32)))
@example(replace(BASE, networks=FEW))
@example(WITH_NAMES)
def test_there_is_a_map_that_opens_or_none(tmp_path, source):
    path = tmp_path / "odd.hfmap"
    path.unlink(missing_ok=True)
    try:
        write_map(built_sections(source), path)
    except InputError as e:
        assert e.remedy and not list(tmp_path.iterdir())
        return
    assert [file.name for file in tmp_path.iterdir()] == ["odd.hfmap"]
    LocalizationMap.open(path).check_all()
    found = read_content(path)
    assert found.names == source.names and found.networks == source.networks
    for field in fields(found.keypoints):
        if field.name != "cameras":  # written with 6 digits
            np.testing.assert_array_equal(
                np.sort(getattr(found.keypoints, field.name), axis=0),
                np.sort(getattr(source.keypoints, field.name), axis=0),
            )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (replace(BASE, networks=replace(BASE.networks, architecture="größe")), "architecture 'größe' is not print"),
        (replace(BASE, networks=replace(BASE.networks, weights_hash="a\tb")), "weightsHash 'a.*' is not print"),
        (replace(BASE, networks=replace(BASE.networks, precision="n" * 70_000)), r"META has 70\d+ bytes"),
        (replace(BASE, networks=replace(BASE.networks, local_dim=1041)), "descriptors of 1041 and 16"),
        (replace(BASE, networks=replace(BASE.networks, local_dim=31)), "DESCRIPTORS has"),
        (replace(BASE, names=("a\n", "b", "c")), "the image name 'a.*' holds control characters"),
        (replace(BASE, names=("a", "a", "c")), "image names repeat"),
        (replace(BASE, names=("\ud800", "b", "c")), "surrogates not allowed"),
        (replace(BASE, poses=(Pose(np.ones(4), np.zeros(3)), *BASE.poses[1:])), "not of unit length"),
        (replace(BASE, poses=(Pose(BASE.poses[0].quaternion, np.full(3, np.nan)), *BASE.poses[1:])), "not finite"),
        (replace(BASE, positions=BASE.positions * 1e15), "1e.15 units or more"),
        (with_keypoints(pixels=np.zeros(3)), "a pixel that is none"),
        (
            replace(BASE, keypoints=replace(BASE.keypoints, observed=BASE.keypoints.observed * np.inf)),
            "keypoint is not fini",
        ),
        (
            replace(BASE, keypoints=replace(BASE.keypoints, other_offsets=np.array([0, 30, 60, 2**32 + 90]))),
            "SOURCE_OTHER",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path, source, message):
    old = tmp_path / "a.hfmap"
    old.write_bytes(b"the old one")
    with pytest.raises(InputError, match=message):
        write_map(full_sections(source), old)
    assert old.read_bytes() == b"the old one" and len(list(tmp_path.iterdir())) == 1


def test_counts_beyond_the_format():
    d = to_map(full_sections(BASE)).description
    check_description(d)
    for name in ("imageCount", "landmarkCount", "observationCount", "descriptorCount"):
        with pytest.raises(ValueError, match=f"{name} 4294967296"):
            check_description(changed(d, name, 1 << 32))


def changed(description, name, value):
    other = copy(description)
    setattr(other, name, value)
    return other
