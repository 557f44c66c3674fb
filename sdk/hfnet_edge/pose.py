"""Camera pose from 2D-3D matches: PnP in RANSAC, and the decision whether to believe it.

PoseLib where it is installed, else OpenCV's USAC (there is no PoseLib wheel for aarch64). Both are seeded, so that the
same matches give the same pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.matching import Match2D3D

try:
    import poselib
except ImportError:
    poselib = None

PRECISE = 1 / 16  # of the inlier threshold, what a well-located keypoint is off: half a network pixel
DEFAULT_SOLVER = "poselib" if poselib else "usac"
MIN_SAMPLE = 4  # three matches always fit a pose perfectly, the fourth tells something


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
        pose: cam_from_world, in the frame of the matches' landmarks.
        inliers: (N,) bool, over the matches.
    """

    pose: Pose
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
    pose = SOLVERS[config.solver](matches, camera, max_error, config)
    if pose is None or not np.isfinite([*pose.quaternion, *pose.translation]).all():
        return None
    # Counted here, the same way for both solvers.
    error = np.linalg.norm(camera.project(pose.transform(matches.xyz)) - matches.xy, axis=1)
    return PoseEstimate(pose, np.nan_to_num(error, nan=np.inf) < max_error)


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
