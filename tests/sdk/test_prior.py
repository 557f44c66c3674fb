"""What is known beforehand: where it leads, and that it is dropped where it is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.georeference import Earth
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.prior import NEAREST, Gps, Prior
from hfnet_edge.result import Status
from hfnet_maps.content import BuiltMap
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import lay_out, to_map
from synthetic import CAMERA, looking_at, place

OFFSET = np.array([1000.0, -2000.0, 50.0])
TRUTH = looking_at(OFFSET + np.array([13.0, 3.0, 1.0]), OFFSET)


def twins(apart: float = 500.0) -> tuple[LocalizationMap, BuiltMap]:
    """A place, and a copy of it farther along x that looks the same: only a prior tells them apart."""
    source = place(images=24).source()
    by = np.array([apart, 0, 0])
    count, images = len(source.positions), len(source.names)
    k = source.keypoints
    twice = replace(
        source,
        names=tuple(f"{part}/{name}" for part in "ab" for name in source.names),
        poses=(*source.poses, *(Pose(p.quaternion, p.translation - p.rotation @ by) for p in source.poses)),
        global_descriptors=np.concatenate([source.global_descriptors] * 2),
        positions=np.concatenate([source.positions, source.positions + by]),
        landmarks=np.concatenate([source.landmarks, source.landmarks + count]),
        images=np.concatenate([source.images, source.images + images]),
        descriptors=np.concatenate([source.descriptors] * 2),
        keypoints=replace(
            k,
            cameras=k.cameras * 2,
            pixels=np.concatenate([k.pixels] * 2),
            observed=np.concatenate([k.observed] * 2),
            other_offsets=np.concatenate([k.other_offsets, k.other_offsets[1:] + k.other_offsets[-1]]),
            others=np.concatenate([k.others] * 2),
            other_descriptors=np.concatenate([k.other_descriptors] * 2),
        ),
    )
    return to_map(lay_out(twice)), twice


@pytest.fixture(scope="module")
def town():
    return twins()[0], place(images=24).features(TRUTH)


def test_a_position_tells_twins_apart(town):
    map_, features = town
    for part, x in (("a", 0.0), ("b", 500.0)):
        near = Prior(position=tuple(TRUTH.center + np.array([x + 2, -1, 0])), radius=5.0)
        r = localize_features(map_, features, CAMERA, prior=near)
        assert r.status is Status.LOCALIZED and not r.notes
        assert np.linalg.norm(r.pose.center - TRUTH.center - [x, 0, 0]) < 0.1
        assert {map_.image_names[i][0] for i in r.prior_frames} == {part}
        named = localize_features(map_, features, CAMERA, prior=Prior(images=(f"{part}/*",)))
        assert {map_.image_names[i][0] for i in named.prior_frames} == {part}
        assert np.linalg.norm(named.pose.center - r.pose.center) < 0.1


def test_a_wrong_position_is_dropped_with_a_note():
    p = place()
    map_, features = p.map(), p.features(TRUTH)
    for off, radius in (([1000.0, 0, 0], 5.0), ([0, 0, 1e9], 1.0), ([40.0, 0, 0], 2.0)):
        r = localize_features(map_, features, CAMERA, prior=Prior(tuple(TRUTH.center + off), radius))
        assert r.status is Status.LOCALIZED and pose_error(r.pose, TRUTH)[0] < 0.1
        assert len(r.notes) == 1 and "the prior was dropped" in r.notes[0] and "position" in r.notes[0]
    elsewhere = p.features(TRUTH)
    elsewhere = replace(elsewhere, descriptors=np.roll(elsewhere.descriptors, 7, axis=0))
    r = localize_features(map_, elsewhere, CAMERA, prior=Prior(tuple(TRUTH.center), 5.0))
    assert r.pose is None and r.status is not Status.LOCALIZED


def test_the_nearest_images_may_always_be_retrieved():
    map_, _ = twins()
    known = Prior((1e6, 0.0, 0.0), 1.0).in_map(map_)
    assert known.among.sum() == NEAREST and all(map_.image_names[i][0] == "b" for i in np.flatnonzero(known.among))


EARTH = Earth(55.7, 13.19, 40.0, 1.0, Pose(np.array([1.0, 0, 0, 0]), np.array([-1000.0, 2000.0, -50.0])), 1.0)


def placed(earth: Earth) -> LocalizationMap:
    return to_map(lay_out(replace(place().source(), earth=earth)))


def test_gps_is_a_position_across():
    map_, features = placed(EARTH), place().features(TRUTH)
    latitude, longitude, _ = map_.earth.to_wgs84(TRUTH.center)
    r = localize_features(map_, features, CAMERA, prior=Prior(gps=Gps(latitude, longitude, 5.0)))
    assert r.status is Status.LOCALIZED and not r.notes
    r = localize_features(map_, features, CAMERA, prior=Prior(gps=Gps(latitude + 0.01, longitude, 5.0)))
    assert r.status is Status.LOCALIZED and "GPS" in r.notes[0]
    with pytest.raises(InputError, match="georeference"):
        localize_features(place().map(), features, CAMERA, prior=Prior(gps=Gps(latitude, longitude)))


def test_gravity_checks_a_pose():
    map_, features = placed(EARTH), place().features(TRUTH)
    down = TRUTH.rotation @ [0.0, 0, -1]
    r = localize_features(map_, features, CAMERA, prior=Prior(gravity=tuple(9.81 * down)))
    assert r.status is Status.LOCALIZED and not r.notes
    r = localize_features(map_, features, CAMERA, prior=Prior(gravity=tuple(-down)))
    assert r.status is Status.LOCALIZED and "180 degrees from the stated gravity" in r.notes[0]


@pytest.mark.parametrize(
    ("gravity", "rotation"),
    [
        ((0, 1, 0), 0),
        ((1, 0, 0), 90),
        ((0, -1, 0.2), 180),
        ((-1, 0.3, 0), 270),
        ((0.1, 0.2, 1), None),
        ((0, 0, -1), None),
    ],
)
def test_gravity_says_which_side_is_up(gravity, rotation):
    assert Prior(gravity=gravity).rotation == rotation


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"position": (1, 2, 3)}, "radius"),
        ({"radius": 1.0}, "position"),
        ({"position": (1, 2, np.nan), "radius": 1.0}, "position"),
        ({"position": (1, 2), "radius": 1.0}, "position"),
        ({"position": "here", "radius": 1.0}, "position"),
        ({"position": (1, 2, 3), "radius": -1.0}, "radius"),
        ({"gravity": (0, 0, 0)}, "gravity"),
        ({"gravity": (0, np.inf, 0)}, "gravity"),
        ({"images": "floor"}, "images"),
    ],
)
def test_priors_that_make_no_sense_name_the_argument(fields, named):
    with pytest.raises(InputError, match=named):
        Prior(**fields)
    for bad in ((91, 0, 1), (0, 181, 1), (0, 0, 0), (np.nan, 0, 1)):
        with pytest.raises(InputError, match="gps"):
            Gps(*bad)
    with pytest.raises(InputError, match="called"):
        Prior(images=("nowhere/*",)).in_map(place().map())


def test_a_fisheye_is_localized_as_precisely_as_a_pinhole():
    p = place()
    lens = Camera("OPENCV_FISHEYE", 640, 480, (400, 400, 321, 239, 0.03, -0.01, 0.004, -0.001))
    features = replace(p, rng=np.random.default_rng(3)).features(TRUTH, 0.5, 100, lens)
    for solver in ("poselib", "usac"):
        from hfnet_edge.methods.method import LocalizationConfig
        from hfnet_edge.pose.solvers import PoseConfig, available_solvers

        if solver in available_solvers():
            r = localize_features(p.map(), features, lens, LocalizationConfig(pose=PoseConfig(solver=solver)))
            assert r.status is Status.LOCALIZED and pose_error(r.pose, TRUTH)[0] < 0.03
