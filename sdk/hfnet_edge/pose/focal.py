"""Poses of cameras whose focal length is only about known: it is found with the pose.

The first pose is sought at focal lengths from half to twice the stated one, by any solver; then steps of focal length
and pose together (`hfnet_edge.pose.intrinsics`) and refinements of the pose alternate until the focal length stays.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera
from hfnet_edge.pose.estimate import estimate_pose, refine_again
from hfnet_edge.pose.intrinsics import check_intrinsics, focal_covariance, with_focal
from hfnet_edge.pose.refinement import RefinedPose
from hfnet_edge.pose.solvers import PoseConfig

SCALES = tuple(2 ** (k / 4) for k in range(-4, 5))
PLAIN = 1 / 2  # of the matches: refining finds the focal length from here
ITERATIONS = 1000  # of RANSAC at each
MAX_STEPS = 30
SETTLED = 1e-7  # of the focal length
WIDEST, NARROWEST = 1 / 3, 3.0  # times the stated focal length


def estimate_pose_and_focal(
    matches: Match2D3D, camera: Camera, max_error: float, config: PoseConfig
) -> tuple[Camera, RefinedPose] | None:
    """The camera with the focal length at which most matches agree, and its pose; None where no pose was found."""
    found: tuple[int, Camera, RefinedPose] | None = None
    quick = replace(config, iterations=min(config.iterations, ITERATIONS))
    for scale in sorted(SCALES, key=lambda s: abs(math.log(s))):  # of equals the one nearest to what was stated
        tried = with_focal(camera, scale)
        pose = estimate_pose(matches, tried, max_error, quick)
        if pose is not None and (found is None or pose.inliers.sum() > found[0]):
            found = int(pose.inliers.sum()), tried, pose
        if found is not None and found[0] >= PLAIN * len(matches):
            break
    return None if found is None else refine_focal(found[2], matches, found[1], camera, max_error)


def refine_focal(
    refined: RefinedPose, matches: Match2D3D, camera: Camera, stated: Camera, max_error: float
) -> tuple[Camera, RefinedPose]:
    """The camera and pose at which matches agree best, from one that is near.

    Args:
        camera: that ``refined`` is the pose of. stated: whose focal length bounds the search.

    Returns:
        The camera, and its pose with the covariance that the freedom of the focal length leaves.
    """
    for _ in range(MAX_STEPS):
        check = check_intrinsics(refined, matches, camera)
        if check is None:
            break
        step = float(np.clip(math.log1p(check.focal), -0.2, 0.25))
        ratio = camera.focal[0] * math.exp(step) / stated.focal[0]
        if not WIDEST < ratio < NARROWEST:
            break
        camera = with_focal(camera, math.exp(step))
        refined = refine_again(refined.pose, matches, camera, max_error)
        if abs(step) < SETTLED:
            break
    return camera, replace(refined, covariance=focal_covariance(refined, matches, camera))
