"""From matches to a pose that is believed or not: pose, inliers, result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from golden.folder import Folder
from golden.loading import FIRST, Query
from golden.matching import map_file, match_cases, search_cases
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.pose import PoseConfig, available_solvers, estimate_pose
from hfnet_edge.result import Status


def map_cases(
    folder: Folder,
    query: Query,
    map_name: str,
    m: LocalizationMap,
    features: Features,
    arrays: Mapping[str, Any],
) -> None:
    """All that happens between a query's features and its pose in one map; all its landmarks are of one place."""
    name, config = f"{query.name}/{map_name}", LocalizationConfig()
    ((landmarks, listed),) = search_cases(folder, name, map_name, m, features, arrays)
    queries = m.codec.query(features.descriptors)
    if query.name == FIRST and queries is not features.descriptors:
        shown = folder.array(f"{name}/compared", queries, "compared", "descriptors as the codec compares them")
        given = {"map": map_file(map_name), "descriptors": arrays["descriptors"]}
        folder.case("compared", name, given, {"compared": shown})
    matches, xyz = match_cases(folder, name, map_name, m, features, arrays, landmarks, listed)
    poses = {
        solver: result_case(folder, name, map_name, m, query.camera, features, arrays, solver)
        for solver in available_solvers()
    }
    if None in poses.values():
        return  # what a solver makes of wrong matches is chance
    given = {
        "xy": folder.array(f"{name}/matched_xy", matches.xy, "pose", "the keypoints, pixels of the camera's image"),
        "xyz": xyz,
        "camera": str(query.camera),
        "max_error": config.pose.max_error * features.pixel,
    }
    for solver in poses:
        estimate = estimate_pose(matches, query.camera, given["max_error"], PoseConfig(solver=solver))
        assert estimate is not None and estimate.pose is not None
        inliers = folder.array(f"{name}/inliers_{solver}", estimate.inliers, "pose", f"of the matches, by {solver}")
        folder.case(
            "pose", f"{name}/{solver}", {**given, "solver": solver}, {**pose_numbers(estimate.pose), "inliers": inliers}
        )


def result_case(
    folder: Folder,
    name: str,
    map_name: str,
    m: LocalizationMap,
    camera: Camera,
    features: Features,
    arrays: Mapping[str, Any],
    solver: str,
    rejected: bool = False,
    method: str = "hierarchical",
) -> Pose | None:
    """How localization ends, and its pose, which is returned.

    Args:
        rejected: a rejected pose is not chance, so its inliers are kept, too.
    """
    result = localize_features(m, features, camera, LocalizationConfig(method, pose=PoseConfig(solver=solver)))
    expected: dict[str, Any] = {"status": result.status.value}
    if result.status is Status.LOCALIZED:
        assert result.pose is not None
        expected |= {**pose_numbers(result.pose), "inliers": result.inliers}
    elif result.status is Status.REJECTED and rejected:
        expected["inliers"] = result.inliers
    given = {"map": map_file(map_name), **arrays, "camera": str(camera), "solver": solver}
    given |= {} if method == "hierarchical" else {"method": str(method)}
    folder.case("result", f"{name}/{solver}", given, expected)
    return result.pose


def inlier_case(folder: Folder) -> None:
    """Errors of exactly 10 pixels, and points that are not in front of the camera."""
    inside, outside = np.nextafter(10.0, [0.0, 11.0])
    off = np.array([[0, 0], [inside, 0], [10, 0], [0, -10], [6, 8], [-8, 6], [outside, 0], [0, 0], [0, 0]])
    xyz = np.array([[0.0, 0.0, 2.0]] * 7 + [[0.0, 0.0, 0.0], [0.0, 0.0, -2.0]])
    camera = Camera("PINHOLE", 64, 48, (64.0, 64.0, 0.0, 0.0))  # all of it is exact
    pose = Pose(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3))
    given = {
        **pose_numbers(pose),
        "xy": folder.array("edges/matched_xy", off, "inliers", "pixels"),
        "xyz": folder.array("edges/xyz", xyz, "inliers", "landmarks"),
        "camera": str(camera),
        "max_error": 10.0,
    }
    expected = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0], np.uint8)
    folder.case("inliers", "edges", given, {"inliers": folder.array("edges/inliers", expected, "inliers", "by match")})


def pose_numbers(pose: Pose) -> dict[str, Any]:
    """As a case has them."""
    return {"quaternion": pose.quaternion.tolist(), "translation": pose.translation.tolist()}
