"""This module finds a camera's pose from 2D-3D matches by PnP in RANSAC, and decides whether to believe it.

PoseLib where it is installed, else OpenCV's USAC (there is no PoseLib wheel for aarch64). Both are seeded, so that the
same matches give the same pose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera, Pose

try:
    import poselib
except ImportError:
    poselib = None

PRECISE = 1 / 16  # of the inlier threshold, what a well-located keypoint is off: half a network pixel
DEFAULT_SOLVER = "poselib" if poselib else "usac"
MIN_SAMPLE = 4  # three matches always fit a pose perfectly, the fourth tells something
ORDINARY = 10  # bits: landmarks that spread over 2**-10 to 2**10 units are solved as they are
OFF_LINE = 10  # such landmarks at least: about a line or a point, which hold no pose, chance finds 7 more inliers


@dataclass(frozen=True)
class PoseConfig:
    """The solver's settings.

    Attributes:
        max_error: inlier threshold, in pixels of the network's input (`Features.pixel` converts it). Generous, because
            blur moves keypoints; the refinement trusts the nearest inliers most.
        min_inliers: fewer are no proof: wrong places reach 17 by chance.
        iterations: of RANSAC, at most.
        solver: one of `available_solvers`; not the default where results are compared with a machine without PoseLib.
    """

    max_error: float = 8.0
    min_inliers: int = 25
    iterations: int = 10_000
    solver: str = DEFAULT_SOLVER

    def __post_init__(self) -> None:
        if self.solver not in available_solvers():
            raise InputError(f"there is no solver {self.solver} here", f"leave it out for {DEFAULT_SOLVER}")


@dataclass(frozen=True)
class PoseEstimate:
    """A pose and what supports it.

    Attributes:
        pose: cam_from_world, in the frame of the matches' landmarks; None where these hold no camera, see `holds`.
        inliers: (N,) bool, over the matches.
    """

    pose: Pose | None
    inliers: np.ndarray


def estimate_pose(matches: Match2D3D, camera: Camera, max_error: float, config: PoseConfig) -> PoseEstimate | None:
    """PnP in LO-RANSAC, refined on the inliers.

    Args:
        max_error: reprojection threshold in pixels of the camera's image.

    Returns:
        The best pose, or None where there are fewer than 4 matches or no model was found. Whether it is to be believed
        is for the caller: see `PoseConfig.min_inliers`.
    """
    if len(matches) < MIN_SAMPLE:
        return None
    scale = _scale(matches.xyz)
    pose = SOLVERS[config.solver](replace(matches, xyz=matches.xyz * scale), camera, max_error, config)
    if pose is None or not np.isfinite([*pose.quaternion, *pose.translation]).all():
        return None
    pose = Pose(pose.quaternion, pose.translation / scale)
    inliers = inliers_of(pose, matches, camera, max_error)
    seen = pose.transform(matches.xyz)[inliers]
    return PoseEstimate(pose if holds(seen, max_error / min(camera.focal)) else None, inliers)


def inliers_of(pose: Pose, matches: Match2D3D, camera: Camera, max_error: float) -> np.ndarray:
    """The matches that support a pose, (N,) bool, counted in the same way for every solver: their landmarks are in
    front of the camera and project nearer than ``max_error`` pixels to their keypoints."""
    error = np.linalg.norm(camera.project(pose.transform(matches.xyz)) - matches.xy, axis=1)
    return np.nan_to_num(error, nan=np.inf) < max_error


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


def _scale(xyz: np.ndarray) -> float:
    """A power of two, so that nothing is rounded, by which landmarks become as large as rooms and towns are: solvers
    lose precision, or everything, far from there."""
    distance = np.abs(xyz - np.median(xyz, axis=0)).max(axis=1)
    spread = float(np.median(distance) or distance.max())
    bits = math.frexp(spread)[1]
    return 1.0 if not spread or abs(bits) <= ORDINARY else math.ldexp(1.0, -bits)


def _poselib(matches: Match2D3D, camera: Camera, max_error: float, config: PoseConfig) -> Pose | None:
    options = {
        "max_reproj_error": max_error,
        "max_iterations": config.iterations,
        "min_iterations": 200,
        "success_prob": 0.9999,
        "seed": 0,
    }
    refinement = {"loss_type": "CAUCHY", "loss_scale": PRECISE * max_error}
    unknown = set(options) - set(poselib.RansacOptions().keys())  # PoseLib would ignore them without a word
    unknown |= set(refinement) - set(poselib.BundleOptions().keys())
    if unknown:
        raise TypeError(f"this PoseLib does not know the options {sorted(unknown)}")
    described = {
        "model": camera.model, "width": camera.width, "height": camera.height, "params": list(camera.params)
    }  # fmt: skip
    found, info = poselib.estimate_absolute_pose(matches.xy, matches.xyz, described, options, refinement)
    if not info["num_inliers"]:
        return None
    return Pose(np.array(found.q, np.float64), np.array(found.t, np.float64))


def _usac(matches: Match2D3D, camera: Camera, max_error: float, config: PoseConfig) -> Pose | None:
    parameters: Any = cv2.UsacParams()
    parameters.threshold = max_error / max(camera.focal)  # on normalised coordinates
    parameters.confidence = 0.9999
    parameters.maxIterations = config.iterations
    parameters.sampler = cv2.SAMPLING_UNIFORM
    parameters.score = cv2.SCORE_METHOD_MSAC  # MAGSAC loses the pose at 80 % outliers in OpenCV 5.0
    parameters.loMethod = cv2.LOCAL_OPTIM_INNER_LO
    parameters.loIterations, parameters.loSampleSize = 10, 50
    parameters.randomGeneratorState = 0
    normalised = cv2.undistortPoints(matches.xy[:, None], camera.matrix, camera.distortion)[:, 0]
    identity = np.eye(3)
    ok, _, rotation, translation, inliers = cv2.solvePnPRansac(
        matches.xyz, normalised, identity, None, params=parameters
    )
    if not ok or inliers is None or len(inliers) < MIN_SAMPLE:
        return None
    kept = inliers.ravel()
    for _ in range(2):  # on all inliers, then on the nearer half of the threshold: what a robust loss does elsewhere
        rotation, translation = cv2.solvePnPRefineLM(
            matches.xyz[kept], normalised[kept], identity, None, rotation, translation
        )
        projected = cv2.projectPoints(matches.xyz, rotation, translation, identity, None)[0][:, 0]
        near = np.flatnonzero(np.linalg.norm(projected - normalised, axis=1) < parameters.threshold / 2)
        if len(near) < config.min_inliers:
            break
        kept = near
    return Pose.from_matrix(cv2.Rodrigues(rotation)[0], translation.ravel())


def available_solvers() -> tuple[str, ...]:
    """Names of the solvers that this machine has, the default first."""
    return ("poselib", "usac") if poselib else ("usac",)


def solver_here(name: str | None) -> str:
    """The solver of this name where this machine has it, else this machine's best."""
    return name if name is not None and name in available_solvers() else DEFAULT_SOLVER


SOLVERS = {"poselib": _poselib, "usac": _usac}
