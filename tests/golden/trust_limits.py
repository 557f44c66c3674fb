"""Refinement, second look, evidence and probability where they are at a limit, of matches made by code."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from golden.after_pose import (
    edge_look,
    evidence_case,
    guided_numbers,
    probability_case,
    refined_numbers,
    refinement_case,
)
from golden.folder import Folder
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.calibration import Calibration
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.refinement import refine, retract, with_covariance
from hfnet_edge.pose.support import holds, reprojection_errors
from hfnet_edge.trust.evidence import Evidence, near_count
from hfnet_edge.trust.examine import Examined
from hfnet_edge.trust.probability import InTolerance, Judge, Table, default_judge
from hfnet_edge.trust.second_look import Landmarks, SecondLook, guided_matches

SIZE = (640, 480)
CAMERAS = {
    "SIMPLE_PINHOLE": (500.0, 321.0, 239.0),
    "PINHOLE": (500.0, 505.0, 321.0, 239.0),
    "SIMPLE_RADIAL": (500.0, 321.0, 239.0, -0.12),
    "RADIAL": (500.0, 321.0, 239.0, -0.12, 0.03),
    "OPENCV": (500.0, 505.0, 321.0, 239.0, -0.12, 0.03, 0.002, -0.003),
}
TRUE = Pose(
    np.array([0.96, 0.08, -0.24, 0.12]) / np.sqrt(0.96**2 + 0.08**2 + 0.24**2 + 0.12**2), np.array([0.3, -0.2, 0.5])
)
ASIDE = np.array([0.01, -0.02, 0.015, 0.05, 0.03, -0.1])  # of the first pose
MAX_ERROR = 10.0
OUTLIERS = 10
NOISE = 0.7  # pixels


def pinhole(model: str = "PINHOLE") -> Camera:
    """A camera of a model."""
    return Camera(model, *SIZE, CAMERAS[model])


def scene(camera: Camera, seen: np.ndarray, noise: float = NOISE) -> Match2D3D:
    """Matches of points (N, 3) in the frame of a camera at `TRUE`; of what is behind it, where its opposite falls."""
    rng = np.random.default_rng(5)
    ahead = seen * np.sign(seen[:, 2:])
    xy = camera.project(ahead) + rng.normal(0, noise, (len(seen), 2))
    return Match2D3D(xy, (seen - TRUE.translation) @ TRUE.rotation)


def before(count: int = 40, nearest: float = 4.0) -> np.ndarray:
    """(N, 3) points before a camera."""
    return np.random.default_rng(6).uniform((-2, -1.5, nearest), (2, 1.5, 10), (count, 3))


def refinement_cases(folder: Folder) -> None:
    """All camera models; few and equal landmarks, far ones, and some behind the camera."""
    first = retract(TRUE, ASIDE)
    for model in CAMERAS:
        matches = scene(pinhole(model), before())
        xy = matches.xy.copy()
        xy[::4] += np.random.default_rng(7).uniform(-60, 60, (OUTLIERS, 2))
        refinement_case(folder, f"cameras/{model}", first, replace(matches, xy=xy), pinhole(model), MAX_ERROR)
    camera, far = pinhole(), np.array([1e6, -1e6, 1e6])
    usual = scene(camera, before(24))
    behind = before(24)
    behind[::3] *= -1
    close = scene(camera, before(24, 0.2) * [0.1, 0.1, 1.0])
    away = Pose(first.quaternion, first.translation - first.rotation @ far)
    near_scene = 40.0 * MAX_ERROR
    for name, pose, matches, threshold in (
        ("far", away, replace(usual, xyz=usual.xyz + far), MAX_ERROR),
        ("behind", first, scene(camera, behind), MAX_ERROR),
        ("close", retract(TRUE, 2 * ASIDE), close, near_scene),
        ("three", retract(TRUE, ASIDE / 10), usual.take(np.arange(3)), MAX_ERROR),
        ("two", retract(TRUE, ASIDE / 10), usual.take(np.arange(2)), MAX_ERROR),
        ("none", retract(TRUE, 20 * ASIDE), usual, MAX_ERROR / 8),
        ("one point", retract(TRUE, ASIDE / 10), usual.take(np.zeros(8, int)), MAX_ERROR),
        ("exact", first, scene(camera, before(24), 0.0), MAX_ERROR),
    ):
        refinement_case(folder, f"refinement/{name.replace(' ', '_')}", pose, matches, camera, threshold)


def guided_edge_case(folder: Folder) -> None:
    """Limits of the window and of the image, and equals."""
    window, camera = 8.0, Camera("PINHOLE", 128, 48, (64.0, 64.0, 0.0, 0.0))
    look = edge_look(window)
    query = Features(look["keypoints"], np.ones(11, np.float32), look["descriptors"], np.zeros(1, np.int8), 1.0)
    landmarks = Landmarks(np.arange(10), look["positions"], look["rows"], look["owners"])
    compares_as_is = cast(LocalizationMap, SimpleNamespace(codec=SimpleNamespace(query=lambda rows: rows)))
    pose = Pose(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3))
    found = guided_matches(compares_as_is, query, camera, pose, landmarks, window)
    given = {key: folder.array(f"edges/look/{key}", values, "guided", key) for key, values in look.items()}
    given |= {"quaternion": [1.0, 0.0, 0.0, 0.0], "translation": [0.0, 0.0, 0.0]}  # type: ignore[dict-item]
    given |= {"camera": str(camera), "window": window}  # type: ignore[dict-item]
    folder.case("guided", "edges", given, guided_numbers(folder, "edges/look", *found))


def evidence_cases(folder: Folder) -> None:
    """A camera whose focal length is off, so that neighbours' residuals are alike; and few landmarks."""
    rng = np.random.default_rng(8)
    middles = rng.uniform((-2, -1.5, 5), (2, 1.5, 10), (36, 3))
    seen = (middles[:, None] + rng.normal(0, 0.02, (36, 4, 3))).reshape(-1, 3)
    stated = pinhole("SIMPLE_RADIAL")
    other = replace(stated, params=(540.0, *stated.params[1:]))
    many, distances = scene(other, seen), rng.integers(100, 900, len(seen))
    many.xy[::9] += rng.uniform(-9, 9, many.xy[::9].shape)
    few = scene(pinhole(), before(7))
    for name, camera, matches, likeness, tolerance in (
        ("focal", stated, many, distances, "1%,1.5"),
        ("few", pinhole(), few, distances[:7], "0.25,2"),
    ):
        refined = with_covariance(refine(retract(TRUE, ASIDE / 10), matches, camera, MAX_ERROR), matches, camera)
        nothing = np.zeros(0, np.int64)
        expected = camera.project(TRUE.transform(matches.xyz))
        none = Landmarks(nothing, np.zeros((0, 3)), np.zeros((0, 0), np.int8), nothing)
        look = SecondLook(matches, matches, likeness, expected, none, 0.25)
        errors = reprojection_errors(refined.pose, matches, camera)
        ahead = refined.pose.transform(matches.xyz[refined.inliers])
        near, depth = near_count(errors, MAX_ERROR), float(np.median(ahead[:, 2]))
        held = holds(ahead, MAX_ERROR / min(camera.focal))
        one = Examined(camera, matches, refined, look, len(ahead), len(errors) + 5, near, depth, held)
        at = f"evidence/{name}"
        files = {
            key: folder.array(f"{at}/{key}", values, "evidence", f"matches: {key}")
            for key, values in (("xy", matches.xy), ("xyz", matches.xyz))
        }
        keypoints = folder.array(f"{at}/keypoints", matches.xy[::2], "evidence", "of the query")
        given: dict[str, Any] = {
            **refined_numbers(folder, at, refined),
            "camera": str(camera),
            "max_error": MAX_ERROR,
            "keypoints": keypoints,
            "matches": files,
            "guided": files,
            "distances": folder.array(f"{at}/distances", likeness, "evidence", "squared, of descriptors"),
            "expected": folder.array(f"{at}/expected", expected, "evidence", "pixels"),
            "remote": 0.25,
        }
        features = Features(matches.xy[::2], np.zeros(0, np.float32), np.zeros((0, 1)), np.zeros(0, np.int8), 1.25)
        evidence_case(folder, at, given, one, features, 0.5, MAX_ERROR, tolerance)


def probability_cases(folder: Folder) -> None:
    """Values on the edges of the tables and beside them; calibrations; and rivals."""
    judge = default_judge()
    for step in range(4):
        at_edges = edge_values(judge, step)
        below = {name: float(np.nextafter(value, -1.0)) for name, value in at_edges.items()}
        for name, values in (("edges", at_edges), ("below", below)):
            probability_case(folder, f"{name}/{step}", *as_evidence(values), Calibration(), max_wrong=0.01)
    best = {t.name: edge_of(t, int(np.argmax(t.points))) for t in judge.right + judge.precise}
    worst = {t.name: edge_of(t, int(np.argmin(t.points))) for t in judge.right + judge.precise}
    middle = edge_values(judge, 2)
    for name, values, calibration, held in (
        ("best", best, Calibration(), True),
        ("worst", worst, Calibration(), True),
        ("not held", best, Calibration(), False),
        ("rival", {**best, "rival": 1e3}, Calibration(), True),
        ("calibrated", worst, Calibration(1234, 777, 3210, -55, 40), True),
        ("calibrated middle", middle, Calibration(2047, -1, 5001, 3, 40), True),
        ("largest", best, Calibration(4 * 4096, 14_000, 4 * 4096, 14_000, 9), True),
        ("least", worst, Calibration(4 * 4096, -14_000, 4 * 4096, -14_000, 9), True),
    ):
        probability_case(folder, f"tables/{name}", *as_evidence(values), calibration, held)


def edge_of(table: Table, interval: int) -> float:
    """A value of an interval: its lower edge, or 0."""
    return 0.0 if interval == 0 else table.edges[interval - 1]


def edge_values(judge: Judge, step: int) -> dict[str, float]:
    """By name one edge of each table, another for each step."""
    tables = {table.name: table.edges for table in judge.right + judge.precise}
    return {name: edges[(5 * step + k) % len(edges)] for k, (name, edges) in enumerate(tables.items())}


def as_evidence(values: dict[str, float]) -> tuple[Evidence, InTolerance]:
    """Of values by name; the others are 0."""
    return tuple(  # type: ignore[return-value]
        cast(Any, kind)(**{name: values.get(name, 0.0) for name in kind.__dataclass_fields__})
        for kind in (Evidence, InTolerance)
    )


def limit_cases(folder: Folder) -> None:
    """All of these."""
    refinement_cases(folder)
    guided_edge_case(folder)
    evidence_cases(folder)
    probability_cases(folder)
