"""After a first pose: refinement, guided matches, second look, evidence, probability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from golden.folder import Folder
from golden.matching import map_file
from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.calibration import Calibration
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.estimate import estimate_pose
from hfnet_edge.pose.intrinsics import IntrinsicsCheck
from hfnet_edge.pose.refinement import RefinedPose, refine, with_covariance
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.trust.evidence import Evidence
from hfnet_edge.trust.examine import Examined, evidence_of, examine, rival
from hfnet_edge.trust.probability import InTolerance, default_judge
from hfnet_edge.trust.second_look import look_again
from hfnet_edge.trust.tolerance import Tolerance
from hfnet_edge.trust.verdict import decide

TOLERANCE = "0.25,2"


def pose_numbers(pose: Pose) -> dict[str, Any]:
    """As a case has them."""
    return {"quaternion": pose.quaternion.tolist(), "translation": pose.translation.tolist()}


def refined_numbers(folder: Folder, name: str, refined: RefinedPose) -> dict[str, Any]:
    """As a case has them; of a covariance the deviations, too."""
    numbers: dict[str, Any] = {
        **pose_numbers(refined.pose),
        "inliers": folder.array(f"{name}/refined_inliers", refined.inliers, "refinement", "of the matches"),
        "noise": refined.noise,
        "covariance": None,
    }
    if refined.covariance is not None:
        what = "of rotation and translation"
        numbers["covariance"] = folder.array(f"{name}/covariance", refined.covariance, "refinement", what)
        numbers |= {"position_std": refined.position_std, "rotation_std": refined.rotation_std}
    return numbers


def refinement_case(
    folder: Folder, name: str, first: Pose, matches: Match2D3D, camera: Camera, max_error: float, **files: str
) -> RefinedPose:
    """A first pose, refined; ``files``: of xy and xyz, where they are there."""
    refined = with_covariance(refine(first, matches, camera, max_error), matches, camera)
    for key, values in (("xy", matches.xy), ("xyz", matches.xyz)):
        if key not in files:
            files[key] = folder.array(f"{name}/refined_{key}", values, "refinement", f"matches: {key}")
    given = {**pose_numbers(first), **files, "camera": str(camera), "max_error": max_error}
    folder.case("refinement", name, given, refined_numbers(folder, name, refined))
    return refined


def pair_rows(matches: Match2D3D) -> np.ndarray:
    """(2, N) rows of keypoints and landmarks."""
    assert matches.keypoints is not None and matches.landmarks is not None
    return np.stack([matches.keypoints, matches.landmarks])


def trust_cases(
    folder: Folder,
    name: str,
    map_name: str,
    m: LocalizationMap,
    camera: Camera,
    features: Features,
    arrays: Mapping[str, Any],
    matches: Match2D3D,
    max_error: float,
) -> None:
    """All that is thought of one place's pose, from the second look on, which begins at a rough pose."""
    first = estimate_pose(matches, camera, max_error, PoseConfig(), rough=True)
    assert first is not None
    look = look_again(m, features, camera, matches, first, max_error)
    shown: dict[str, Any] = {"map": map_file(map_name)}
    shown |= {"keypoints": arrays["keypoints"], "descriptors": arrays["descriptors"]}
    at = {**pose_numbers(first.pose), "camera": str(camera)}
    seen = folder.array(f"{name}/seen", look.landmarks.ids, "second_look", "landmarks of the nearest views")
    found = folder.array(f"{name}/second_look", pair_rows(look.matches), "second_look", "keypoints, landmarks")
    given = {**shown, **at, "matches": f"arrays/{name}/matches.bin", "max_error": max_error}
    folder.case("second_look", name, given, {"landmarks": seen, "remote": look.remote, "matches": found})
    guided = guided_numbers(folder, name, look.guided, look.distances, look.expected)
    folder.case("guided", name, {**shown, **at, "window": max_error, "landmarks": seen}, guided)
    one = examine(m, features, camera, matches, max_error, PoseConfig(), False, Clock())
    assert one is not None and np.array_equal(pair_rows(one.matches), pair_rows(look.matches))
    rival_ = rival(m, features, one, [one], max_error, PoseConfig())
    given = {
        **refined_numbers(folder, f"{name}/second", one.refined),
        "camera": str(camera),
        "max_error": max_error,
        **{key: shown[key] for key in ("map", "keypoints")},
        "matches": found,
        "guided": guided["matches"],
        **{key: guided[key] for key in ("distances", "expected")},
        "remote": look.remote,
    }
    evidence_case(folder, name, given, one, features, rival_, max_error)


def evidence_case(
    folder: Folder,
    name: str,
    given: Mapping[str, Any],
    one: Examined,
    features: Features,
    rival_: float,
    max_error: float,
    tolerance: str = TOLERANCE,
) -> Evidence:
    """Evidence, and what is told of the camera."""
    evidence, intrinsics = evidence_of(features, one, rival_, max_error)
    shift = 0.0 if intrinsics is None else intrinsics.shift
    in_tolerance = InTolerance.of(one.refined, shift, Tolerance.parse(tolerance).at(one.depth))
    given = {key: value for key, value in given.items() if not key.endswith("_std")}
    given |= {"first": [one.first_inliers, one.first_matches], "rival": rival_, "tolerance": tolerance}
    expected = {
        "evidence": plain_numbers(evidence),
        "in_tolerance": plain_numbers(in_tolerance),
        "intrinsics": intrinsics_numbers(intrinsics),
        "held": one.held,
    }
    folder.case("evidence", name, given, expected)
    probability_case(folder, name, evidence, in_tolerance, Calibration(), one.held)
    return evidence


def plain_numbers(values: Evidence | InTolerance) -> dict[str, Any]:
    """By name."""
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in vars(values).items()}


def intrinsics_numbers(check: IntrinsicsCheck | None) -> list[float | None] | None:
    """Focal length and its deviation, the principal point and its, which is None where it is infinite."""
    if check is None:
        return None
    numbers = [check.focal, check.focal_std, *check.center, check.center_std]
    return [float(v) if np.isfinite(v) else None for v in numbers]


def guided_numbers(
    folder: Folder, name: str, guided: Match2D3D, distances: np.ndarray, expected: np.ndarray
) -> dict[str, Any]:
    """As a case has them."""
    return {
        "matches": folder.array(f"{name}/guided", pair_rows(guided), "guided", "keypoints, landmarks"),
        "distances": folder.array(f"{name}/guided_distances", distances, "guided", "squared, of the matches"),
        "expected": folder.array(f"{name}/expected", expected, "guided", "pixels of the landmarks within the image"),
    }


def probability_case(
    folder: Folder,
    name: str,
    evidence: Evidence,
    in_tolerance: InTolerance,
    calibration: Calibration,
    held: bool = True,
    max_wrong: float = 0.001,
) -> None:
    """Points from the tables, and the verdict."""
    judge = default_judge()
    verdict = decide(evidence, in_tolerance, held, max_wrong, calibration)
    given = {
        "evidence": plain_numbers(evidence),
        "in_tolerance": plain_numbers(in_tolerance),
        "calibration": list(astuple(calibration)),
        "held": held,
        "max_wrong": max_wrong,
    }
    expected = {
        "right": judge.right_points(evidence, calibration),
        "precise": judge.precise_points(evidence, in_tolerance, calibration),
        **vars(verdict),
    }
    folder.case("probability", name, given, expected)


def edge_look(window: float) -> dict[str, np.ndarray]:
    """What a camera of focal length 64 at the origin sees, all of it exact: landmarks at depth 2, keypoints at whole
    pixels, for the limits of the window and the image, and equals.

    Landmark 0 has two equal keypoints; 1 and 2 the same one, as like both; 3 a keypoint just at the window's limit, 4
    one just within; 5 falls on the image's side, 6 in its corner pixel; 7 is behind the camera; 8 has a near keypoint
    that is unlike and a far one that is like; 9 two descriptors.
    """
    pixels = [(20, 20), (50, 20), (54, 20), (90, 20), (120, 20), (0, 30), (0.5, 47.5), (20, 40), (60, 44), (100, 44)]
    depths = np.full(len(pixels), 2.0)
    depths[7] = -2.0
    positions = np.array([(x / 64 * 2, y / 64 * 2, 0) for x, y in pixels]) + depths[:, None] * [0, 0, 1]
    at = [(22, 20), (18, 20), (52, 20), (90 + window, 20), (120 + window - 0.25, 20), (1, 30), (1.5, 47.5), (20, 40),
          (61, 44), (60 + window - 1, 44), (101, 44)]  # fmt: skip
    looks = np.zeros((len(at), 8), np.int8)
    looks[:, 0], looks[:, 1] = 40, [0, 0, 5, 0, 0, 0, 0, 0, 30, 10, 0]
    rows = np.zeros((11, 8), np.int8)
    rows[:, 0] = 40
    rows[1, 1], rows[2, 1], rows[8, 1], rows[9, 1] = 2, 8, 12, 60
    owners = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    return {
        "keypoints": np.array(at, np.float64), "descriptors": looks, "positions": positions, "rows": rows,
        "owners": owners,
    }  # fmt: skip
