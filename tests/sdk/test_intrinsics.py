"""What inliers say of a camera: its focal length and principal point, where they can know."""

from __future__ import annotations

import numpy as np
import pytest

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera
from hfnet_edge.pose.estimate import estimate_pose
from hfnet_edge.pose.focal import estimate_pose_and_focal
from hfnet_edge.pose.intrinsics import check_intrinsics, with_focal
from hfnet_edge.pose.refinement import refine, with_covariance
from hfnet_edge.pose.solvers import PoseConfig, available_solvers
from synthetic import looking_at

CAMERA = Camera("PINHOLE", 640, 480, (500.0, 505.0, 321.0, 239.0))
OPENCV = Camera("OPENCV", 640, 480, (500, 505, 321, 239, -0.08, 0.02, 0.002, -0.001))
SIMPLE = Camera("SIMPLE_RADIAL", 640, 480, (500, 321, 239, -0.05))
TRUTH = looking_at(np.array([9.0, 2.0, 1.0]), np.zeros(3))
MAX_ERROR = 8.0


def cloud(rng, count):
    return rng.uniform(-3.5, 3.5, (count, 3))


def facade(rng, count):
    """Flat, and across the line of sight: whether it is near or large cannot be seen."""
    across, up = TRUTH.rotation[0], TRUTH.rotation[1]
    return rng.uniform(-3, 3, (count, 1)) * across + rng.uniform(-3, 3, (count, 1)) * up


def far(rng, count):
    """Of the size of a fist, at 9 m."""
    return rng.uniform(-0.05, 0.05, (count, 3))


def seen(shape=cloud, camera=CAMERA, count=300, noise=0.7, outliers=0, seed=0):
    """What a camera sees that is truly ``camera``, with outliers."""
    rng = np.random.default_rng(seed)
    xyz = shape(rng, count)
    xy = camera.project(TRUTH.transform(xyz)) + rng.normal(0, noise, (count, 2))
    kept = np.flatnonzero(((xy > 0) & (xy < (640, 480))).all(axis=1))
    wrong = rng.random(len(kept)) < outliers
    xy = xy[kept]
    xy[wrong] = rng.uniform(0, (640, 480), (wrong.sum(), 2))
    return Match2D3D(xy, xyz[kept])


def check(matches, camera):
    return check_intrinsics(refine(TRUTH, matches, camera, MAX_ERROR), matches, camera)


@pytest.mark.parametrize("camera", [CAMERA, OPENCV, SIMPLE], ids=lambda c: c.model)
def test_a_right_camera_is_not_contradicted(camera):
    for seed in range(5):
        found = check(seen(camera=camera, seed=seed), camera)
        assert not found.focal_is_off and not found.center_is_off and found.shift == 0
        assert abs(found.focal) < 4 * found.focal_std < 0.02


@pytest.mark.parametrize("camera", [CAMERA, OPENCV, SIMPLE], ids=lambda c: c.model)
@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_it_says_by_how_much_a_focal_length_is_off(camera, factor):
    """The stated one is the true one times ``factor``."""
    found = check(seen(camera=camera), with_focal(camera, factor))
    assert found.focal_is_off and found.focal == pytest.approx(1 / factor - 1, abs=0.003)
    assert found.shift == pytest.approx(0.02 * 9, abs=0.06)


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_focal_length_far_off_is_told_too(factor):
    stated = with_focal(CAMERA, factor)
    matches = seen()
    refined = estimate_pose(matches, stated, MAX_ERROR, PoseConfig())
    found = check_intrinsics(refined, matches, stated)
    assert found.focal_is_off and found.focal == pytest.approx(1 / factor - 1, abs=0.02)
    assert found.shift > 0.3


def test_it_says_where_the_principal_point_is():
    stated = Camera("PINHOLE", 640, 480, (500, 505, 321 + 12, 239 - 9))
    matches = seen()
    found = check_intrinsics(estimate_pose(matches, stated, MAX_ERROR, PoseConfig()), matches, stated)
    assert found.center_is_off
    np.testing.assert_allclose(found.center, [-12, 9], atol=4 * found.center_std)


@pytest.mark.parametrize("shape", [facade, far])
@pytest.mark.parametrize("factor", [1.0, 0.98, 1.2])
def test_it_says_nothing_of_what_cannot_be_seen(shape, factor):
    """A flat place, or a far one, is seen alike by a longer lens from farther away."""
    for seed in range(3):
        matches, stated = seen(shape, seed=seed), with_focal(CAMERA, factor)
        refined = estimate_pose(matches, stated, MAX_ERROR, PoseConfig())
        found = check_intrinsics(refined, matches, stated)
        assert found is None or (not found.focal_is_off and not found.center_is_off and found.shift == 0)


def test_few_inliers_say_nothing():
    assert check(seen(count=10), CAMERA) is None
    assert check(Match2D3D(np.zeros((0, 2)), np.zeros((0, 3))), CAMERA) is None
    same = Match2D3D(np.tile([321.0, 239], (40, 1)), np.zeros((40, 3)))
    assert check(same, CAMERA) is None


def test_with_focal_scales_lengths_alone():
    for camera, lengths in [(CAMERA, 2), (OPENCV, 2), (SIMPLE, 1)]:
        longer = with_focal(camera, 2.0)
        assert longer.params == (*(2 * f for f in camera.params[:lengths]), *camera.params[lengths:])


@pytest.mark.parametrize("solver", available_solvers())
@pytest.mark.parametrize("factor", [0.6, 0.8, 1.0, 1.25, 1.4])
def test_the_focal_length_is_found_with_the_pose(solver, factor):
    matches = seen(outliers=0.4, count=250)
    camera, refined = estimate_pose_and_focal(
        matches, with_focal(CAMERA, factor), MAX_ERROR, PoseConfig(solver=solver, iterations=300)
    )
    assert camera.focal[0] / CAMERA.focal[0] == pytest.approx(1, abs=0.01)
    assert camera.focal[0] / camera.focal[1] == pytest.approx(CAMERA.focal[0] / CAMERA.focal[1], rel=1e-9)
    assert np.linalg.norm(refined.pose.center - TRUTH.center) < 0.1
    assert refined.inliers.mean() > 0.55
    # Where the focal length is free, the camera is less certain along its axis.
    known = estimate_pose(matches, CAMERA, MAX_ERROR, PoseConfig(solver=solver))
    assert refined.position_std > with_covariance(known, matches, CAMERA).position_std


def test_the_same_focal_length_from_every_stated_one():
    found = [
        estimate_pose_and_focal(seen(), with_focal(CAMERA, f), MAX_ERROR, PoseConfig(iterations=200))[0].focal[0]
        for f in (0.7, 1.0, 1.3)
    ]
    np.testing.assert_allclose(found, found[0], rtol=1e-5)


def test_matches_of_no_pose_have_no_focal_length():
    nothing = Match2D3D(np.zeros((3, 2)), np.zeros((3, 3)))
    assert estimate_pose_and_focal(nothing, CAMERA, MAX_ERROR, PoseConfig()) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [facade, far, lambda rng, count: np.zeros((count, 3))])
def test_a_focal_length_that_cannot_be_seen_stays_finite(shape):
    found = estimate_pose_and_focal(seen(shape), CAMERA, MAX_ERROR, PoseConfig(iterations=200))
    if found is not None:
        camera, refined = found
        assert 500 / 3.5 < camera.focal[0] < 500 * 3.5
        assert np.isfinite([*refined.pose.quaternion, *refined.pose.translation]).all()
        assert refined.covariance is None or np.isfinite(refined.covariance).all()
