"""The one optimum that every first pose ends in, and how certain it is."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.estimate import estimate_pose, refine_again
from hfnet_edge.pose.refinement import (
    INFLATION,
    cholesky,
    normal_equations,
    pose_jacobian,
    refine,
    retract,
    substitute,
    with_covariance,
)
from hfnet_edge.pose.solvers import PoseConfig, available_solvers
from hfnet_edge.pose.support import inliers_of
from synthetic import CAMERA, looking_at

CAMERAS = [
    Camera("SIMPLE_PINHOLE", 640, 480, (500, 321, 239)),
    CAMERA,
    Camera("SIMPLE_RADIAL", 640, 480, (500, 321, 239, -0.1)),
    Camera("RADIAL", 640, 480, (500, 321, 239, -0.1, 0.03)),
    Camera("OPENCV", 640, 480, (500, 505, 321, 239, -0.08, 0.02, 0.002, -0.001)),
]
TRUTH = looking_at(np.array([15.0, 3.0, 1.0]), np.zeros(3))
MAX_ERROR = 8.0


def made(count=200, noise=0.5, outliers=0, seed=0, camera=CAMERA, xyz=None):
    """Matches of landmarks seen from `TRUTH`; the last ``outliers`` are of keypoints anywhere."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-4, 4, (count, 3)) if xyz is None else xyz
    xy = camera.project(TRUTH.transform(xyz)) + rng.normal(0, noise, (len(xyz), 2))
    xy[len(xy) - outliers :] = rng.uniform(0, (camera.width, camera.height), (outliers, 2))
    return Match2D3D(xy, xyz)


def off_by(found: Pose, truth: Pose) -> np.ndarray:
    """(6,) delta with ``found = exp(delta) @ truth``, to second order."""
    turn = found.rotation @ truth.rotation.T
    omega = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]) / 2
    return np.concatenate([omega, found.translation - turn @ truth.translation])


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)
def test_the_jacobian_is_that_of_small_steps(camera):
    xyz = np.random.default_rng(0).uniform(-3, 3, (50, 3))
    h = 1e-6
    ahead, behind = (
        [camera.project(retract(TRUTH, sign * h * axis).transform(xyz)) for axis in np.eye(6)] for sign in (1, -1)
    )
    by_differences = np.stack([(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)], axis=2)
    np.testing.assert_allclose(pose_jacobian(camera, TRUTH.transform(xyz)), by_differences, atol=1e-5, rtol=1e-6)


def test_the_tangent_space_is_the_cameras_frame_from_the_left():
    moved = retract(TRUTH, np.array([0, 0, 0, 0.1, -0.2, 0.3]))
    np.testing.assert_allclose(moved.rotation, TRUTH.rotation, atol=1e-15)
    np.testing.assert_allclose(TRUTH.rotation @ (moved.center - TRUTH.center), [-0.1, 0.2, -0.3], atol=1e-14)
    turned = retract(TRUTH, np.array([0.01, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(turned.center, TRUTH.center, atol=1e-13)
    np.testing.assert_allclose(off_by(turned, TRUTH), [0.01, 0, 0, 0, 0, 0], atol=1e-6)
    for delta in np.random.default_rng(0).normal(0, 10, (20, 6)):  # a rotation, however far
        q = retract(TRUTH, delta).quaternion
        assert math.isclose(float(q @ q), 1, rel_tol=1e-14)


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)
def test_every_first_pose_ends_in_the_same_optimum(camera):
    matches = made(300, noise=0.7, outliers=120, camera=camera)
    starts = [retract(TRUTH, delta) for delta in np.random.default_rng(1).normal(0, 0.01, (4, 6))]
    found = [refine(start, matches, camera, MAX_ERROR) for start in starts]
    found += [estimate_pose(matches, camera, MAX_ERROR, PoseConfig(solver=name)) for name in available_solvers()]
    found = [with_covariance(one, matches, camera) for one in found]
    for other in found[1:]:
        np.testing.assert_array_equal(other.inliers, found[0].inliers)
        assert np.abs(off_by(other.pose, found[0].pose)).max() < 1e-6
        np.testing.assert_allclose(other.covariance, found[0].covariance, rtol=1e-4, atol=1e-12)


def test_the_optimum_is_one():
    """Every small step from it costs more, in the loss that is documented."""
    matches = made(150, noise=1.0, outliers=40)
    found = estimate_pose(matches, CAMERA, MAX_ERROR, PoseConfig())

    def cost(pose):
        off = CAMERA.project(pose.transform(matches.xyz[found.inliers])) - matches.xy[found.inliers]
        return np.log1p(np.square(off).sum(axis=1) / (MAX_ERROR / 32) ** 2).sum()

    for axis in np.vstack([np.eye(6), -np.eye(6)]):
        assert cost(retract(found.pose, axis * 1e-4)) > cost(found.pose)


def test_its_inliers_are_those_of_its_pose():
    matches = made(150, noise=1.0, outliers=60)
    found = estimate_pose(matches, CAMERA, MAX_ERROR, PoseConfig())
    np.testing.assert_array_equal(found.inliers, inliers_of(found.pose, matches, CAMERA, MAX_ERROR))
    np.testing.assert_array_equal(found.inliers, found.errors < MAX_ERROR)
    assert found.noise == pytest.approx(1.0, abs=0.25)


def test_sums_run_from_the_first_match_to_the_last():
    rng = np.random.default_rng(0)
    for n, rows, k in [(1, 2, 6), (137, 2, 6), (1000, 3, 6), (64, 2, 9)]:
        jacobian, residuals = rng.normal(0, 100, (n, rows, k)), rng.normal(0, 3, (n, rows))
        weights = rng.random((n, rows if rows == 3 else 1))
        matrix, gradient = normal_equations(jacobian, residuals, weights)
        expected, along = [[0.0] * k for _ in range(k)], [0.0] * k
        for i in range(n):
            for r in range(rows):
                weight = float(weights[i, min(r, weights.shape[1] - 1)])
                weighted = [float(jacobian[i, r, a]) * weight for a in range(k)]
                for a in range(k):
                    along[a] += weighted[a] * float(residuals[i, r])
                    for b in range(a, k):
                        expected[a][b] += weighted[a] * float(jacobian[i, r, b])
        upper = np.triu_indices(k)
        np.testing.assert_array_equal(matrix[upper], np.array(expected)[upper])  # the same bits
        np.testing.assert_array_equal(matrix, matrix.T)
        np.testing.assert_array_equal(gradient, along)


BITS = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.refinement import refine, with_covariance
given = np.load({file!r})
for camera in {cameras!r}:
    camera = Camera.parse(camera)
    start = Pose(given["quaternion"], given["translation"])
    matches = Match2D3D(given[camera.model], given["xyz"])
    found = with_covariance(refine(start, matches, camera, {max_error}), matches, camera)
    for part in (found.pose.quaternion, found.pose.translation, found.covariance):
        print(part.tobytes().hex())
"""


def test_every_blas_gives_the_same_bits(tmp_path):
    """Kernels with fused multiply-add and without."""
    given = {camera.model: made(300, noise=0.7, outliers=120, camera=camera).xy for camera in CAMERAS}
    np.savez(tmp_path / "given.npz", xyz=made(300, outliers=120).xyz, **vars(TRUTH), **given)
    file, cameras = str(tmp_path / "given.npz"), [str(camera) for camera in CAMERAS]
    code = BITS.format(path=sys.path, file=file, cameras=cameras, max_error=MAX_ERROR)
    with_fma, without = (
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | kernel, capture_output=True, text=True, check=True
        )
        for kernel in ({}, {"OPENBLAS_CORETYPE": "Nehalem"})
    )
    assert with_fma.stdout == without.stdout and with_fma.stdout.count("\n") == 3 * len(CAMERAS)


def test_cholesky_solves_and_refuses_what_is_open():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    matrix, right = root @ root.T, rng.normal(size=6)
    np.testing.assert_allclose(substitute(cholesky(matrix), right), np.linalg.solve(matrix, right), rtol=1e-9)
    for bad in (np.zeros((3, 3)), -np.eye(3), np.full((3, 3), np.nan), np.ones((3, 3)), np.diag([1, 1, np.inf])):
        assert cholesky(bad) is None


def deviations(shape, noise, seeds, **kwargs):
    """Mahalanobis distances squared of the poses found to the true one."""
    found = []
    for seed in range(seeds):
        matches = made(noise=noise, seed=seed, xyz=shape(np.random.default_rng(seed)), **kwargs)
        refined = with_covariance(refine(TRUTH, matches, CAMERA, MAX_ERROR), matches, CAMERA)
        delta = off_by(refined.pose, TRUTH)
        found.append(delta @ np.linalg.solve(refined.covariance / INFLATION**2, delta))  # of independent errors
    return np.array(found)


def facade(rng):
    return rng.uniform(-4, 4, (80, 3)) * [0.05, 1, 1]


def cube(rng):
    return rng.uniform(-4, 4, (120, 3))


@pytest.mark.parametrize("shape", [cube, facade])
@pytest.mark.parametrize(
    ("noise", "half", "most"),
    [(0.15, (0.6, 0.95), 0.95), (0.5, (0.4, 0.75), 0.8), (0.75, (0.25, 0.6), 0.7)],
)
def test_the_covariance_is_calibrated(shape, noise, half, most):
    """The share of true poses inside the ellipsoids of 50 % and of 90 %, by the noise in pixels of a threshold of 8.
    The less noise, the more cautious."""
    distances = deviations(shape, noise, 40)
    within = [(distances < limit).mean() for limit in (5.348, 10.645)]  # chi-square of 6 degrees of freedom
    assert half[0] < within[0] < half[1] and most < within[1]


def test_uncertainty_is_in_the_unit_of_the_landmarks():
    matches = made(150, noise=0.7)
    metres = with_covariance(estimate_pose(matches, CAMERA, MAX_ERROR, PoseConfig()), matches, CAMERA)
    assert 0 < metres.position_std < 0.05 and 0 < metres.rotation_std < 0.2
    for unit in (1e-9, 1e-4, 1e4, 1e9):
        scaled = replace(matches, xyz=matches.xyz * unit)
        other = with_covariance(estimate_pose(scaled, CAMERA, MAX_ERROR, PoseConfig()), scaled, CAMERA)
        assert other.position_std == pytest.approx(metres.position_std * unit, rel=1e-3)
        assert other.rotation_std == pytest.approx(metres.rotation_std, rel=1e-3)


def line(rng, count):
    return rng.uniform(-3, 3, (count, 1)) * [0.3, 0.8, 0.5]


def point(rng, count):
    return np.tile([0.5, -0.3, 0.2], (count, 1))


def three(rng, count):
    return np.array([[0, -3, 2], [1, 3, 2], [-2, 0, -3.0]])


def four(rng, count):
    return np.array([[0, -3, 2], [1, 3, 2], [-2, 0, -3.0], [2, 1, 1]])


def cloud(rng, count):
    return rng.uniform(-3, 3, (count, 3))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("solver", available_solvers())
@pytest.mark.parametrize("shape", [line, point, three, four, cloud])
@pytest.mark.parametrize(("unit", "away"), [(1, 0), (1e-4, 0), (1e4, 0), (1, 1e6), (1e-4, 1e2), (1, 1e9)])
def test_nothing_is_ever_nan(solver, shape, unit, away):
    """Finite, or None: of degenerate landmarks, in tiny and huge units, however far the place is from the origin."""
    for seed in range(2):
        matches = made(noise=0.5, seed=seed, xyz=shape(np.random.default_rng(seed), 40))
        matches = replace(matches, xyz=matches.xyz * unit + away)
        start = Pose(TRUTH.quaternion, (TRUTH.translation - TRUTH.rotation @ np.full(3, away / unit)) * unit)
        for found in (
            estimate_pose(matches, CAMERA, MAX_ERROR, PoseConfig(solver=solver, iterations=300)),
            refine_again(start, matches, CAMERA, MAX_ERROR),
            refine(start, matches, CAMERA, MAX_ERROR),
        ):
            if found is None:
                continue
            found = with_covariance(found, matches, CAMERA)
            assert np.isfinite([*found.pose.quaternion, *found.pose.translation, found.noise]).all()
            assert not np.isnan(found.errors).any() and found.inliers.shape == (len(matches),)
            assert found.covariance is None or np.isfinite(found.covariance).all()
            assert found.position_std > 0 and found.rotation_std > 0


def test_a_pose_from_no_inliers_is_the_pose_as_it_was():
    behind = Pose(TRUTH.quaternion, -TRUTH.translation)
    found = refine(behind, made(30), CAMERA, MAX_ERROR)
    assert not found.inliers.any() and np.isinf(found.errors).all()
    assert found.covariance is None and found.position_std == math.inf
    np.testing.assert_array_equal(found.pose.translation, behind.translation)
