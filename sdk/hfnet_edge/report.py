"""What `hfnet-localize --report` says of one query: one JSON object, with the same fields however the query ended."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from hfnet_edge.errors import HFNetEdgeError, InputError
from hfnet_edge.geometry import Camera
from hfnet_edge.pose.intrinsics import IntrinsicsCheck
from hfnet_edge.result import LocalizationResult, Status

DIGITS = 6  # of probabilities, as many as they have


def report_line(
    name: str, result: LocalizationResult, image_names: tuple[str, ...] = (), stated: Camera | None = None
) -> dict[str, Any]:
    """A query that was localized, or why it was not. Lengths are in the map's unit, angles in degrees; what is not
    known, or without bound, is None.

    Args:
        image_names: of the map; of a place in tiles those of the result's tile, whose number is then said.
        stated: the camera that the query came with; where the pose is of another one, that is said.
    """
    pose, camera = result.pose, result.camera
    return _plain(
        {
            "query": name,
            "status": result.status.value,
            "qvec": None if pose is None else pose.quaternion,
            "tvec": None if pose is None else pose.translation,
            "coarse": None
            if result.coarse is None
            else {"qvec": result.coarse.quaternion, "tvec": result.coarse.translation},
            "probability": round(result.probability, DIGITS),
            "wrong": round(result.wrong, DIGITS),
            "tolerance": result.tolerance if any(result.tolerance) else None,
            "position_std": result.position_std,
            "rotation_std": result.rotation_std,
            "covariance": result.covariance,
            "reprojection_error": result.reprojection_error,
            "inliers": result.inliers,
            "first_inliers": result.first_inliers,
            "inlier_ratio": result.inlier_ratio,
            "image_spread": result.image_spread,
            "world_spread": result.world_spread,
            "evidence": None if result.evidence is None else dataclasses.asdict(result.evidence),
            "intrinsics": None if result.intrinsics is None else _intrinsics(result.intrinsics),
            "camera": None if camera is None or camera == stated else str(camera),
            "found_by": result.found_by or None,
            "matches": 0 if result.matches is None else len(result.matches),
            "rotation": result.rotation,
            "notes": list(result.notes),
            **({} if result.tile is None else {"tile": result.tile}),
            "retrieved": [image_names[i] for i in result.prior_frames],
            "milliseconds": {stage: round(ms, 3) for stage, ms in result.milliseconds.items()},
        }
    )


def failure_line(name: str, e: HFNetEdgeError) -> dict[str, Any]:
    """A query that has no result: a status of its own, and the error."""
    status = "UNREADABLE" if isinstance(e, InputError) else "FAILED"
    nothing = report_line(name, LocalizationResult(Status.NO_CANDIDATES))
    return {**nothing, "status": status, "error": e.problem}


def _intrinsics(check: IntrinsicsCheck) -> dict[str, Any]:
    return {
        "focal_error": check.focal,
        "focal_std": check.focal_std,
        "focal_is_off": check.focal_is_off,
        "principal_point_error": check.center,
        "principal_point_std": check.center_std,
        "center_is_off": check.center_is_off,
    }


def _plain(value: Any) -> Any:
    """For JSON, which has neither arrays nor NaN and infinity: these are None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
