"""Which matches support a pose, and whether these hold a camera in place."""

from __future__ import annotations

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera, Pose

SAME_DEGREES, SAME_DEPTH = 5.0, 0.1  # between two poses that are one
OFF_LINE = 10  # such landmarks at least: about a line or a point, which hold no pose, chance finds 7 more inliers


def apart(a: Pose, b: Pose, depth: float) -> bool:
    """Whether two poses are not one, by `SAME_DEGREES` or by `SAME_DEPTH` of the scene's depth."""
    turned = np.clip((np.trace(a.rotation @ b.rotation.T) - 1) / 2, -1, 1)
    away = float(np.linalg.norm(a.center - b.center))
    return bool(np.degrees(np.arccos(turned)) > SAME_DEGREES or away > SAME_DEPTH * depth)


def reprojection_errors(pose: Pose, matches: Match2D3D, camera: Camera) -> np.ndarray:
    """(N,) float64 pixels between keypoints and where their landmarks fall; inf behind the camera."""
    off = camera.project(pose.transform(matches.xyz)) - matches.xy
    return np.nan_to_num(np.sqrt((off * off).sum(axis=1)), nan=np.inf)


def inliers_of(pose: Pose, matches: Match2D3D, camera: Camera, max_error: float) -> np.ndarray:
    """The matches that support a pose, (N,) bool, counted in the same way for every solver: their landmarks are in
    front of the camera and fall nearer than ``max_error`` pixels to their keypoints."""
    return reprojection_errors(pose, matches, camera) < max_error


def holds(xyz: np.ndarray, tolerance: float) -> bool:
    """Whether landmarks hold a camera in place: whether enough of them are seen off every line.

    The camera can turn about landmarks on one line, and all the more about one point, without seeing a difference. It
    is held weakly where landmarks lie in one plane with it, and by three points it can be in four places. In all these
    cases the landmarks are seen on one line, but for few places; of how many chance makes inliers, `OFF_LINE` says.

    Args:
        xyz: (N, 3) float64, the inliers' landmarks in the camera's frame. What is behind it is not seen.
        tolerance: how far from a line is off it, and from a place another place, at depth 1.
    """
    xyz = xyz[xyz[:, 2] > 0]
    rays = xyz[:, :2] / xyz[:, 2:]
    if len(rays) < 2:
        return False
    _, _, (axis, _) = np.linalg.svd(rays - rays.mean(axis=0), full_matrices=False)
    # Lines through pairs that are half of all apart along the axis: few enough outliers leave some pair on the line.
    order = np.argsort(rays @ axis, kind="stable")
    half = (len(rays) + 1) // 2
    first = np.unique(np.linspace(0, len(rays) - half - 1, 64).astype(int))
    a, b = rays[order[first]], rays[order[first + half]]
    normals = (b - a) @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    normals = np.divide(normals, length, out=np.tile([1.0, 0.0], (len(a), 1)), where=length > 0)
    off = np.abs(rays @ normals.T - (a * normals).sum(axis=1)) > tolerance  # (N, lines)
    rest = rays[off[:, off.sum(axis=0).argmin()]]
    needed = min(OFF_LINE, 0.4 * len(rays))
    if len(rest) < 0.1 * len(rays):  # of blurred lines
        return False
    places = 0
    while len(rest) and places < needed:
        places, rest = places + 1, rest[np.linalg.norm(rest - rest[0], axis=1) > tolerance]
    return places >= needed
