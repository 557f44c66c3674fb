"""A pose from matches: first pose ─> refinement."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.refinement import RefinedPose, refine, scale_of
from hfnet_edge.pose.solvers import MIN_SAMPLE, SOLVERS, PoseConfig

WIDEST = 5.0  # tangent of the angle from the axis: 79 degrees


def estimate_pose(
    matches: Match2D3D, camera: Camera, max_error: float, config: PoseConfig, rough: bool = False
) -> RefinedPose | None:
    """PnP in RANSAC, refined on the inliers.

    Args:
        max_error: reprojection threshold in pixels of the camera's image. rough: see `refine`.

    Returns:
        The best pose, or None where there are fewer than 4 matches or no model was found. Whether it is to be believed
        is for the caller.
    """
    first = first_pose(matches, camera, max_error, config)
    if first is None:
        return None
    found = refine_again(first, matches, camera, max_error, rough=True)
    return found if rough else refine_again(found.pose, matches, camera, max_error)


def first_pose(matches: Match2D3D, camera: Camera, max_error: float, config: PoseConfig) -> Pose | None:
    """The solver's pose as it is; otherwise as `estimate_pose`."""
    scale = scale_of(matches.xyz)
    if not camera.is_plain:
        matches, camera = straightened(matches, camera)
    if len(matches) < MIN_SAMPLE:
        return None
    pose = SOLVERS[config.solver](replace(matches, xyz=matches.xyz * scale), camera, max_error, config)
    if pose is None or not np.isfinite([*pose.quaternion, *pose.translation]).all():
        return None
    return Pose(pose.quaternion, pose.translation / scale)


def pinhole_shows(rays: np.ndarray) -> np.ndarray:
    """(N,) bool: rays (N, 3) no farther from the axis than `WIDEST`; NaN is not."""
    return (np.abs(rays[:, :2]) < WIDEST * rays[:, 2:]).all(axis=1)


def straightened(matches: Match2D3D, camera: Camera) -> tuple[Match2D3D, Camera]:
    """Matches as a pinhole would see them, and this pinhole: for solvers, which know plain models alone. What lies
    farther from the axis than a pinhole shows well (`WIDEST`) is left out."""
    focal, (cx, cy) = min(camera.focal), camera.center
    rays = camera.rays(matches.xy)
    seen = pinhole_shows(rays)
    pinhole = Camera("SIMPLE_PINHOLE", camera.width, camera.height, (focal, cx, cy))
    return replace(matches.take(seen), xy=pinhole.project(rays[seen])), pinhole


def refine_again(pose: Pose, matches: Match2D3D, camera: Camera, max_error: float, rough: bool = False) -> RefinedPose:
    """The pose at which matches agree, from one that is near; see `refine`."""
    scale = scale_of(matches.xyz)
    near = Pose(pose.quaternion, pose.translation * scale)
    refined = refine(near, replace(matches, xyz=matches.xyz * scale), camera, max_error, rough)
    return replace(refined, pose=Pose(refined.pose.quaternion, refined.pose.translation / scale))
