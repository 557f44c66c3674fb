"""From matches to a pose that is believed or not: pose, inliers, result, and what `golden.after_pose` has between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from golden.after_pose import pose_numbers, refinement_case, trust_cases
from golden.folder import Folder
from golden.loading import FIRST, Query
from golden.matching import MAPS, map_file, match_cases, search_cases
from golden.reader import pose_differences
from golden.stages import TOLERANCES
from golden.tracking import track_cases
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.pose.estimate import estimate_pose
from hfnet_edge.pose.refinement import RefinedPose, retract
from hfnet_edge.pose.solvers import PoseConfig, available_solvers
from hfnet_edge.result import Status
from hfnet_edge.trust.examine import LEAST

SOLVERS = available_solvers()
FIRST_ASIDE = np.array([0.004, -0.003, 0.002, 0.02, -0.01, 0.03])  # from the refined pose: as a solver's may be


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
    result_case(folder, name, map_name, m, query.camera, features, arrays)
    max_error = config.pose.max_error * features.pixel
    found = {solver: estimate_pose(matches, query.camera, max_error, PoseConfig(solver=solver)) for solver in SOLVERS}
    first = found[SOLVERS[0]]
    if first is None or not enough(first):
        return  # what a solver makes of wrong matches is chance
    given = {
        "xy": folder.array(f"{name}/matched_xy", matches.xy, "pose", "the keypoints, pixels of the camera's image"),
        "xyz": xyz,
        "camera": str(query.camera),
        "max_error": max_error,
    }
    expected = {solver: {**pose_numbers(one.pose), "inliers": one.inliers} for solver, one in found.items() if one}
    for solver, numbers in by_solver(expected):
        asked = {"solver": solver} if solver else {}
        label = "/".join([name, *asked.values()])
        inliers = folder.array(f"{label}/inliers", numbers["inliers"], "pose", "of the matches")
        folder.case("pose", label, {**given, **asked}, {**numbers, "inliers": inliers})
    if query.name != FIRST and map_name != next(iter(MAPS)):
        return  # which would show no more
    start = retract(first.pose, FIRST_ASIDE)
    files = {"xy": given["xy"], "xyz": xyz}
    refinement_case(folder, name, start, matches, query.camera, max_error, **files)
    trust_cases(folder, name, map_name, m, query.camera, features, arrays, matches, max_error)
    if query.name == FIRST:
        depth = float(np.median(first.pose.transform(matches.xyz[first.inliers])[:, 2]))
        track_cases(folder, name, map_name, m, query.camera, features, arrays, first.pose, depth)


def enough(refined: RefinedPose) -> bool:
    """Chance makes no such pose."""
    return int(refined.inliers.sum()) >= 2 * LEAST and refined.inliers.mean() > 1 / 4


def by_solver(ends: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What is expected of any solver (""); of each alone, where they end apart."""
    first, *others = ends.values()
    if any(pose_differences(end, first, TOLERANCES["pose"]) for end in others):
        return list(ends.items())
    return [("", first)]


def result_case(
    folder: Folder,
    name: str,
    map_name: str,
    m: LocalizationMap,
    camera: Camera,
    features: Features,
    arrays: Mapping[str, Any],
    counted: bool = False,
    method: str = "hierarchical",
) -> None:
    """How localization ends.

    Args:
        counted: a pose that is not accepted is not chance, so the number of its inliers is kept, too.
    """
    ends: dict[str, dict[str, Any]] = {}
    for solver in SOLVERS:
        result = localize_features(m, features, camera, LocalizationConfig(method, pose=PoseConfig(solver=solver)))
        ends[solver] = {"status": result.status.value}
        if result.pose is not None:
            ends[solver] |= {**pose_numbers(result.pose), "inliers": result.inliers}
        elif result.status in (Status.REJECTED, Status.AMBIGUOUS) and counted:
            ends[solver] |= {"inliers": result.inliers}
    given = {"map": map_file(map_name), **arrays, "camera": str(camera)}
    given |= {} if method == "hierarchical" else {"method": str(method)}
    for solver, expected in by_solver(ends):
        asked = {"solver": solver} if solver else {}
        folder.case("result", "/".join([name, *asked.values()]), {**given, **asked}, expected)


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
