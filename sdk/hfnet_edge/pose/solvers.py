"""First poses: PnP in RANSAC, by PoseLib where it is installed, else by OpenCV's USAC (PoseLib has no aarch64 wheel).

Both are seeded, so that the same matches give the same pose. What they find is refined in one way, see
`hfnet_edge.pose.refinement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.refinement import scale_of

try:
    import poselib
except ImportError:
    poselib = None

DEFAULT_SOLVER = "poselib" if poselib else "usac"
MIN_SAMPLE = 4  # three matches always fit a pose perfectly, the fourth tells something


@dataclass(frozen=True)
class PoseConfig:
    """The solver's settings.

    Attributes:
        max_error: inlier threshold, in pixels of the network's input (`Features.pixel` converts it). Generous, because
            blur moves keypoints; the refinement trusts the nearest inliers most.
        iterations: of RANSAC, at most.
        solver: one of `available_solvers`; not the default where results are compared with a machine without PoseLib.
    """

    max_error: float = 8.0
    iterations: int = 10_000
    solver: str = DEFAULT_SOLVER

    def __post_init__(self) -> None:
        if self.solver not in available_solvers():
            raise InputError(f"there is no solver {self.solver} here", f"leave it out for {DEFAULT_SOLVER}")


def _poselib(matches: Match2D3D, camera: Camera, max_error: float, config: PoseConfig) -> Pose | None:
    options = _options(max_error, config)
    refinement = {"loss_type": "CAUCHY", "loss_scale": max_error / 16}
    unknown = set(options) - set(poselib.RansacOptions().keys())  # PoseLib would ignore them without a word
    unknown |= set(refinement) - set(poselib.BundleOptions().keys())
    if unknown:
        raise TypeError(f"this PoseLib does not know the options {sorted(unknown)}")
    found, info = poselib.estimate_absolute_pose(matches.xy, matches.xyz, described(camera), options, refinement)
    if not info["num_inliers"]:
        return None
    return Pose(np.array(found.q, np.float64), np.array(found.t, np.float64))


def _options(max_error: float, config: PoseConfig) -> dict[str, Any]:
    """Of PoseLib's RANSAC."""
    return {
        "max_reproj_error": max_error,
        "max_iterations": config.iterations,
        "min_iterations": 200,
        "success_prob": 0.9999,
        "seed": 0,
    }


def described(camera: Camera) -> dict[str, Any]:
    """A plain camera as PoseLib has it."""
    return {"model": camera.model, "width": camera.width, "height": camera.height, "params": list(camera.params)}


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
    rays = camera.rays(matches.xy)
    seen = np.isfinite(rays).all(axis=1)
    if seen.sum() < MIN_SAMPLE:
        return None
    # In float32, which is all that OpenCV takes in Java: what is found is refined from the float64 matches.
    points, normalised = matches.xyz[seen].astype(np.float32), rays[seen, :2].astype(np.float32)
    identity = np.eye(3)
    ok, _, rotation, translation, inliers = cv2.solvePnPRansac(points, normalised, identity, None, params=parameters)
    if not ok or inliers is None or len(inliers) < MIN_SAMPLE:
        return None
    return Pose.from_matrix(cv2.Rodrigues(rotation)[0], translation.ravel())


def rig_pose(
    seen: Sequence[tuple[Match2D3D, Camera]], cams_from_rig: Sequence[Pose], max_error: float, config: PoseConfig
) -> Pose | None:
    """The pose of a rig (``rig_from_map``) in all its views' matches, by PoseLib's generalized solver; None without
    PoseLib, or where none is found.

    Args:
        seen: matches of each view, and a plain camera. max_error: inlier threshold, pixels.
    """
    if poselib is None or config.solver != "poselib" or sum(len(m) for m, _ in seen) < MIN_SAMPLE:
        return None
    scale = scale_of(np.concatenate([m.xyz for m, _ in seen]))
    extrinsics = []
    for pose in cams_from_rig:
        one = poselib.CameraPose()
        one.q, one.t = pose.quaternion, pose.translation * scale
        extrinsics.append(one)
    found, info = poselib.estimate_generalized_absolute_pose(
        [m.xy for m, _ in seen],
        [m.xyz * scale for m, _ in seen],
        extrinsics,
        [described(camera) for _, camera in seen],
        _options(max_error, config),
        {"loss_type": "CAUCHY", "loss_scale": max_error / 16},
    )
    if not info["num_inliers"] or not np.isfinite([*found.q, *found.t]).all():
        return None
    return Pose(np.array(found.q, np.float64), np.array(found.t, np.float64) / scale)


def available_solvers() -> tuple[str, ...]:
    """Names of the solvers that this machine has, the default first."""
    return ("poselib", "usac") if poselib else ("usac",)


SOLVERS = {"poselib": _poselib, "usac": _usac}
