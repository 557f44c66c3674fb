"""Reads golden vectors and asks the runtime for the same: what a port to another language does, in Python.

    python tests/golden/reader.py golden [MODEL]

Exits 1 where something differs; the network's outputs are compared where its file is named. It needs the runtime
alone, so that it also runs on a device or in an emulator.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from hfnet_edge import features, localizer, rig, session
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image import blobs, keypoints, patches
from hfnet_edge.image import photo as image
from hfnet_edge.image.hypercolumns import Hypercolumns
from hfnet_edge.map import random_trees
from hfnet_edge.map.calibration import Calibration
from hfnet_edge.map.codecs import project
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.scene_tree import SceneTree
from hfnet_edge.methods import covisibility, dense_search, matching, parallel_search, retrieval, scene_coordinates
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.hfnet import Model, RawOutputs
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.networks.scene import rows_of
from hfnet_edge.pose import estimate, refinement, solvers, support
from hfnet_edge.prior import Gps, Prior
from hfnet_edge.trust import examine, second_look
from hfnet_edge.trust.evidence import Evidence
from hfnet_edge.trust.probability import InTolerance, default_judge
from hfnet_edge.trust.tolerance import Tolerance
from hfnet_edge.trust.verdict import decide

DTYPES = {"uint8": "u1", "int8": "i1", "int32": "<i4", "float32": "<f4", "float64": "<f8"}


class Golden:
    """The folder, and by stage the function that is asked for the same: given a case's values by name, it returns by
    name what is expected of it."""

    def __init__(self, folder, stages=None):
        self.folder = Path(folder)
        self.stages = STAGES if stages is None else stages
        self.manifest = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))

    def cases(self, stage):
        return [case for case in self.manifest["cases"] if case["stage"] == stage]

    def tolerance(self, stage):
        return self.manifest["stages"][stage]["tolerance"]

    def array(self, name):
        """As it is stored."""
        entry = self.manifest["arrays"][name]
        return np.fromfile(self.folder / name, DTYPES[entry["dtype"]]).reshape(entry["shape"])

    def value(self, value):
        """What a value of a case stands for."""
        if isinstance(value, list):
            return [self.value(v) for v in value]
        if isinstance(value, dict):
            return {key: self.value(v) for key, v in value.items()}
        if not isinstance(value, str) or not value.endswith((".bin", ".png", ".hfmap")):
            return value
        if not value.endswith(".bin"):
            return self.folder / value
        entry, array = self.manifest["arrays"][value], self.array(value)
        if "scale" in entry:
            array = (array.astype(np.float32) - np.float32(entry["zero_point"])) * np.float32(entry["scale"])
        return array

    def given(self, case):
        return {key: self.value(v) for key, v in case["given"].items()}

    def differences(self, case, given=None, expected=None):
        """What of a case the runtime gets wrong, as text."""
        expected = self.value(case["expected"] if expected is None else expected)
        found = self.stages[case["stage"]](**(self.given(case) if given is None else given))
        if self.tolerance(case["stage"]) == "pose":
            return pose_differences(found, expected, self.manifest["tolerances"]["pose"])
        assert set(expected) <= set(found), "the runtime does not return it"
        if self.tolerance(case["stage"]) == "near":
            relative = self.manifest["tolerances"]["near"]["relative"]
            return [key for key, value in expected.items() if not near(found[key], value, relative)]
        return [key for key, value in expected.items() if not equal(found[key], value)]


def equal(a, b):
    """Equal values; floats to the last bit."""
    if isinstance(b, list) and b and isinstance(b[0], dict):  # of each key
        return len(a) == len(b) and all(equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in y)
    if isinstance(b, str | None):
        return a == b
    a, b = np.asarray(a), np.asarray(b)
    if isinstance(b, np.ndarray) and b.dtype == np.float32 and a.dtype != np.float32:
        return False
    return a.shape == b.shape and (a.dtype.kind == "f") == (b.dtype.kind == "f") and np.array_equal(a, b)


def near(a, b, relative):
    """Equal values, but for floats, which differ by so much of the largest in their array at most."""
    if isinstance(b, dict):
        return set(a) == set(b) and all(near(a[key], b[key], relative) for key in b)
    if isinstance(b, str | bool | None) or a is None or np.asarray(b).dtype.kind in "uib":
        return equal(a, b)
    if isinstance(b, list):
        return len(a) == len(b) and all(near(x, y, relative) for x, y in zip(a, b, strict=True))
    a, b = np.asarray(a, float), np.asarray(b, float)
    return a.shape == b.shape and bool((np.abs(a - b) <= relative * np.abs(b).max(initial=0)).all())


def pose_differences(found, expected, tolerance):
    """What is beyond the tolerance, as text; of lists and tables, of each within."""
    if found.get("status") != expected.get("status"):
        return [f"status {found['status']}"]
    off = np.abs(np.asarray(found.get("inliers", 0), int) - np.asarray(expected.get("inliers", 0), int)).sum()
    wrong = [f"inliers {off}"] if "inliers" in expected and off else []
    for key in expected.keys() - {"status", "inliers", "quaternion", "translation"}:
        a, b = found.get(key), expected[key]
        if isinstance(b, dict):
            wrong += [f"{key}: {text}" for text in pose_differences(a or {}, b, tolerance)]
        elif isinstance(b, list) and b and isinstance(b[0], dict):
            for number, (x, y) in enumerate(zip(a, b, strict=True)):
                wrong += [f"{key} {number}: {text}" for text in pose_differences(x, y, tolerance)]
        elif not near(a, b, tolerance["relative"]):
            wrong.append(key)
    if "quaternion" not in expected:
        return wrong
    if "quaternion" not in found:
        return [*wrong, "no pose"]
    moved = Pose(np.array(found["quaternion"]), np.array(found["translation"]))
    truth = Pose(np.array(expected["quaternion"]), np.array(expected["translation"]))
    turn = moved.rotation @ truth.rotation.T
    axis = [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
    degrees = np.degrees(np.arctan2(np.linalg.norm(axis), turn.trace() - 1))
    metres = np.linalg.norm(moved.translation - truth.translation)
    return wrong + [
        f"{name} {value:.3g}"
        for name, value in (("metres", metres), ("degrees", degrees))
        if not value <= tolerance[name]
    ]


def load(image_, input_size, camera, xy):
    photo = image.load_photo(image_, tuple(input_size), camera and Camera.parse(camera))
    return {**vars(photo), "camera_xy": photo.to_camera(np.array(xy, np.float32))}


def described(input_range=(-1.0, 1.0), global_dim=1):
    return Description("", "", "int8", (1, 1), tuple(input_range), 1, global_dim, 4, {}, ())


def raw_outputs(logits, local, quarter=None, half=None, **given):
    return RawOutputs(local, given["global"], logits, None, quarter, half, given.get("hypercolumns"))


def in_order(local, quarter=None, half=None):
    return [part for part in (local, quarter, half) if part is not None]


def scores(logits, part):
    found = keypoints.keypoint_scores(logits)
    return {"scores": found[: part[0], : part[1]], "sha256": hashlib.sha256(found.astype("<f4").tobytes()).hexdigest()}


def named(found):
    return dict(zip(("xy", "scores"), found, strict=True))


def fill(xy, response, network_xy, network_scores, count):
    there = blobs.Blobs(xy, response, np.ones_like(response))
    return named(blobs.combine(there, network_xy, network_scores, count))


def decode(pixels, valid, size, orientation, radius, count, threshold, **outputs):
    photo = image.Photo(pixels, tuple(valid), tuple(size), orientation)
    return vars(features.decode(raw_outputs(**outputs), photo, radius, count, threshold))


def cells(hypercolumns, valid):
    photo = image.Photo(np.zeros((0, 0), np.uint8), tuple(valid), (1, 1))
    return {"cells": Hypercolumns(hypercolumns, photo).cells}


def scene_rows(descriptors, image):
    images = None if image is None else np.full(len(descriptors), image)
    return {"rows": rows_of(descriptors, images)[:, 0]}


def scene_landmarks(branches, leaves, predicted):
    tree = SceneTree(tuple(branches), leaves.astype(np.int64), "")
    return {"landmarks": scene_coordinates.landmarks_of(tree, predicted)}


def retrieve(count, map=None, global_descriptor=None, query=None, references=None):
    if map is not None:
        m = LocalizationMap.open(map)
        query, references = m.global_query(global_descriptor), m.global_descriptors
    ranking = retrieval.retrieve(query, references, count)
    return {"compared": query, "similarities": project(query[None], references)[0], "ranking": ranking}


def nearest(map=None, descriptors=None, landmarks=None, queries=None, references=None):
    if map is not None:
        m = LocalizationMap.open(map)
        queries, (references, _) = m.codec.query(descriptors), m.descriptors(landmarks.astype(np.int64))
    return {"nearest": np.stack(matching.nearest_two(queries, references))}


def places(map, ranking):
    found = covisibility.cluster(LocalizationMap.open(map), np.array(ranking))
    return {"places": [{"images": place.images, "landmarks": place.landmarks} for place in found]}


def match(map, descriptors, keypoints, landmarks):
    found = matching.match(query_of(keypoints, descriptors), LocalizationMap.open(map), landmarks.astype(np.int64))
    return {"matches": np.stack([found.keypoints, found.landmarks]), "xyz": found.xyz}


def cut(pixels, valid, xy, scale, angle):
    around = patches.PatchKeypoints(xy, scale, angle, np.ones(len(xy), np.float32))
    return {"patches": patches.cut(pixels[: valid[0], : valid[1]], around)}


class Answers(PatchModel):
    """A patch network that has returned these vectors."""

    def __init__(self, vectors):
        self.vectors = vectors

    def raw(self, patches):
        return self.vectors


def prior_leaves(map, descriptors, count, order):
    trees = LocalizationMap.open(map).trees
    return {"leaves": trees.prior_leaves(descriptors, count, random_trees.Order(order))}


def leaf_landmarks(map, leaves):
    return {"pairs": np.stack(LocalizationMap.open(map).trees.landmarks(leaves))}


def search(map, descriptors, keypoints, frames, pairs):
    m = LocalizationMap.open(map)
    shared = parallel_search.seen_by(m, np.array(frames, np.int64))
    found = parallel_search.search(query_of(keypoints, descriptors), m, shared, [tuple(pairs.astype(np.int64))])
    return {"shared": shared.tolist(), "matches": np.stack([found.keypoints, found.landmarks]), "xyz": found.xyz}


def posed(xy, xyz, camera, max_error, solver=None):
    rows = np.arange(len(xy))
    config = solvers.PoseConfig(solver=solver or solvers.DEFAULT_SOLVER)
    found = estimate.estimate_pose(Match2D3D(xy, xyz, rows, rows), Camera.parse(camera), max_error, config)
    return {"inliers": found.inliers, **vars(found.pose)}


def inliers(quaternion, translation, xy, xyz, camera, max_error):
    found = Pose(np.array(quaternion), np.array(translation))
    return {"inliers": support.inliers_of(found, Match2D3D(xy, xyz), Camera.parse(camera), max_error)}


def refine(quaternion, translation, xy, xyz, camera, max_error):
    first, matches, camera = Pose(np.array(quaternion), np.array(translation)), Match2D3D(xy, xyz), Camera.parse(camera)
    found = refinement.with_covariance(refinement.refine(first, matches, camera, max_error), matches, camera)
    about = ("inliers", "noise", "covariance", "position_std", "rotation_std")
    return {**vars(found.pose), **{key: getattr(found, key) for key in about}}


def query_of(keypoints, descriptors):
    return Features(keypoints, np.ones(len(keypoints), np.float32), descriptors, np.zeros(1, np.int8), 1.0)


def matched(m, keypoints, rows):
    """Matches of rows of keypoints and landmarks; of a map that there is not, pixels and points."""
    if m is None:
        return Match2D3D(rows["xy"], rows["xyz"])
    k, ids = rows.astype(np.int64)
    return Match2D3D(keypoints[k], m.positions(ids), k, ids)


def guide(
    quaternion, translation, camera, window, keypoints, descriptors, map=None, landmarks=None, positions=None,
    rows=None, owners=None,
):  # fmt: skip
    if map is not None:
        m = LocalizationMap.open(map)
        there = second_look.Landmarks.of(m, landmarks.astype(np.int64))
    else:
        m = SimpleNamespace(codec=SimpleNamespace(query=lambda compared: compared))
        there = second_look.Landmarks(np.arange(len(positions)), positions, rows, owners.astype(np.int64))
    at, query = Pose(np.array(quaternion), np.array(translation)), query_of(keypoints, descriptors)
    found, distances, expected = second_look.guided_matches(m, query, Camera.parse(camera), at, there, window)
    return {"matches": np.stack([found.keypoints, found.landmarks]), "distances": distances, "expected": expected}


def look_again(map, keypoints, descriptors, matches, camera, max_error, quaternion, translation):
    m, camera = LocalizationMap.open(map), Camera.parse(camera)
    given, at = matched(m, keypoints, matches), Pose(np.array(quaternion), np.array(translation))
    errors = support.reprojection_errors(at, given, camera)
    first = refinement.RefinedPose(at, errors < max_error, errors, 1.0, None)
    look = second_look.look_again(m, query_of(keypoints, descriptors), camera, given, first, max_error)
    return {
        "landmarks": look.landmarks.ids,
        "remote": look.remote,
        "matches": np.stack([look.matches.keypoints, look.matches.landmarks]),
    }


def gather(
    quaternion, translation, inliers, noise, covariance, camera, max_error, keypoints, matches, guided, distances,
    expected, remote, first, rival, tolerance, map=None,
):  # fmt: skip
    m, camera = map and LocalizationMap.open(map), Camera.parse(camera)
    at = Pose(np.array(quaternion), np.array(translation))
    matches, guided = matched(m, keypoints, matches), matched(m, keypoints, guided)
    errors = support.reprojection_errors(at, matches, camera)
    refined = refinement.RefinedPose(at, inliers.astype(bool), errors, noise, covariance)
    ahead = at.transform(matches.xyz[refined.inliers])
    depth, held = float(np.median(ahead[:, 2])), support.holds(ahead, max_error / min(camera.focal))
    look = second_look.SecondLook(matches, guided, distances, expected, None, remote)
    one = examine.Examined(camera, matches, refined, look, *first, 0.0, depth, held)
    query = query_of(keypoints, np.zeros((len(keypoints), 1), np.int8))
    found, told = examine.evidence_of(query, one, rival, max_error)
    allowed = InTolerance.of(refined, told.shift if told else 0.0, Tolerance.parse(tolerance).at(depth))
    numbers = told and [told.focal, told.focal_std, *told.center, told.center_std]
    return {
        "evidence": vars(found),
        "in_tolerance": vars(allowed),
        "intrinsics": numbers and [v if np.isfinite(v) else None for v in numbers],
        "held": held,
    }


def judge(evidence, in_tolerance, calibration, held, max_wrong):
    evidence, allowed, moved = Evidence(**evidence), InTolerance(**in_tolerance), Calibration(*calibration)
    points = {
        "right": default_judge().right_points(evidence, moved),
        "precise": default_judge().precise_points(evidence, allowed, moved),
    }
    return {**points, **vars(decide(evidence, allowed, held, max_wrong, moved))}


def result(map, camera, solver=None, method="hierarchical", **given):
    config = LocalizationConfig(method, pose=solvers.PoseConfig(solver=solver or solvers.DEFAULT_SOLVER))
    found = localizer.localize_features(LocalizationMap.open(map), Features(**given), Camera.parse(camera), config)
    return {"status": found.status.value, "inliers": found.inliers, **(vars(found.pose) if found.pose else {})}


def brief(value):
    """A float as JSON has it, ten digits of it; None where it is not finite."""
    return float(f"{value:.10g}") if math.isfinite(value) else None


def plain_pose(pose):
    return {"quaternion": [*map(brief, pose.quaternion)], "translation": [*map(brief, pose.translation)]}


def pose_of(told):
    return told and Pose(np.array(told["quaternion"]), np.array(told["translation"]))


def believed(found):
    """What a result says of its pose."""
    known = {"status": found.status.value, "probability": found.probability, "wrong": found.wrong}
    if found.pose is None:
        return known
    spread = {"position_std": brief(found.position_std), "rotation_std": brief(found.rotation_std)}
    return {**known, **spread, **plain_pose(found.pose)}


def counted(found):
    """And what a pose is judged by."""
    if found.pose is None:
        return believed(found)
    evidence = {name: brief(float(value)) for name, value in vars(found.evidence).items()}
    return {**believed(found), "inliers": found.inliers, "evidence": evidence}


def method_of(m, solver=None):
    config = LocalizationConfig(pose=solvers.PoseConfig(solver=solver or solvers.DEFAULT_SOLVER))
    return open_method(m, None, config)


def shown(keypoints, descriptors, global_descriptor, pixel):
    about = Features(keypoints, np.ones(len(keypoints), np.float32), descriptors, global_descriptor, pixel)
    return Query(pixel, about)


def tracked(m, keypoints, descriptors, pixel, quaternion, translation, depth, radius, camera, solver=None):
    query = shown(keypoints, descriptors, np.zeros(1, np.int8), pixel)
    told = Pose(np.array(quaternion), np.array(translation))
    found = localizer.track_query(method_of(m, solver), query, Camera.parse(camera), told, depth, radius)
    return counted(found)


def known_in(m, poses, position=None, radius=None, gps=None, gravity=None, images=()):
    prior = Prior(position, radius, gps and Gps(*gps), gravity, tuple(images))
    known = prior.in_map(m)
    stds = [math.inf if pose["position_std"] is None else pose["position_std"] for pose in poses]
    return {
        "among": None if known.among is None else [int(one) for one in known.among],
        "rotation": prior.rotation,
        "contradicted": [bool(known.contradiction(pose_of(p), s)) for p, s in zip(poses, stds, strict=True)],
    }


def localized_rig(m, views, solver=None):
    method, seen = method_of(m, solver), []
    for view in map(dict, views):
        camera, cam_from_rig, drift = (view.pop(key) for key in ("camera", "cam_from_rig", "drift"))
        one = localizer.view_of(method, shown(**view), Camera.parse(camera), pose_of(cam_from_rig))
        seen.append(replace(one, drift=tuple(drift)))
    found = rig.localize_views(m, seen, method.config)
    covariance = [] if found.covariance is None else [[*map(brief, row)] for row in found.covariance]
    return {**counted(found), **({} if found.pose is None else {"covariance": covariance})}


def walked(m, frames, camera, pixel, odometry, window, solver=None):
    method = method_of(m, solver)
    opened = SimpleNamespace(
        map=m,
        place=None,
        config=method.config,
        method=method,
        near=lambda expected, depth: (method, expected),
        localize_query=lambda query, camera, clock: localizer.localize_query(method, query, camera, clock),
    )
    walk, after = session.Session(opened, window, session.Odometry(*odometry)), []
    for frame in map(dict, frames):
        told = pose_of(frame.pop("session_from_cam"))
        found = walk.localize_query(shown(**frame, pixel=pixel), Camera.parse(camera), told)
        after.append(
            {
                **believed(found),
                "map_from_session": found.map_from_session and plain_pose(found.map_from_session),
                "way": brief(found.way),
                "tracked": found.tracked,
                "notes": len(found.notes),
                "frame": found.frame.status.value,
            }
        )
    return {"frames": after}


def in_map(function):
    """A stage whose map is opened for it."""
    return lambda map, **given: function(LocalizationMap.open(map), **given)


STAGES = {
    "load": lambda **given: load(given.pop("image"), **given),
    "scale": lambda pixels, input_range: {"input": described(input_range).scale(pixels)[0, :, :, 0]},
    "scores": scores,
    "keypoints": lambda **given: named(keypoints.detect(**given)),
    "blobs": lambda pixels, valid, count: vars(blobs.find_blobs(pixels, tuple(valid), count)),
    "filled": fill,
    "descriptors": lambda xy, **parts: {"descriptors": keypoints.sample_descriptors(in_order(**parts), xy)},
    "global": lambda **given: {"global_descriptor": keypoints.quantize(given["global"][None])[0]},
    "decode": decode,
    "cells": cells,
    "dense_search": lambda cells, landmarks: vars(dense_search.search(cells, landmarks)),
    "scene_rows": scene_rows,
    "scene_landmarks": scene_landmarks,
    "retrieval": retrieve,
    "places": places,
    "compared": lambda map, descriptors: {"compared": LocalizationMap.open(map).codec.query(descriptors)},
    "nearest": nearest,
    "matches": match,
    "patches": cut,
    "signs": lambda vectors: {"descriptors": Answers(vectors)(np.zeros((len(vectors), 32, 32), np.uint8))},
    "leaves": prior_leaves,
    "leaf_landmarks": leaf_landmarks,
    "search": search,
    "pose": posed,
    "inliers": inliers,
    "refinement": refine,
    "guided": guide,
    "second_look": look_again,
    "evidence": gather,
    "probability": judge,
    "result": result,
    "track": in_map(tracked),
    "prior": in_map(known_in),
    "rig": in_map(localized_rig),
    "session": in_map(walked),
}  # without "network", which needs a file that is not in the folder


def possible(case):
    """This machine has the solver that a case asks for; most ask for none."""
    return case["given"].get("solver", "usac") in solvers.available_solvers()


def network_differences(golden, network):
    """The largest difference of each output over all cases, in steps of int8; NaN where one is not a number."""
    largest = {}
    for case in golden.cases("network"):
        raw = network(golden.given(case)["pixels"])
        found = {"logits": raw.keypoint_logits, "global": raw.global_descriptor}
        found |= {"local": raw.local_descriptors, "quarter": raw.local_descriptors_quarter}
        found |= {"half": raw.local_descriptors_half, "hypercolumns": raw.hypercolumns}
        for key, name in case["expected"].items():
            step = golden.manifest["arrays"][name].get("scale", 1 / 127)
            off = float(np.abs(found[key] - golden.value(name)).max() / step)
            largest[key] = float(np.maximum(largest.get(key, 0.0), off))  # NaN stays
    return largest


def network_is_near(golden, steps):
    """The `network_differences` are within the tolerance of the class."""
    return bool(steps) and all(off <= golden.manifest["tolerances"]["network"]["steps"] for off in steps.values())


def check(golden, network=None):
    """Prints how each stage does, and the network, if there is one; returns how many things are wrong."""
    wrong = 0
    for stage in golden.stages:
        cases = [case for case in golden.cases(stage) if possible(case)]
        bad = {case["name"]: found for case in cases if (found := golden.differences(case))}
        print(f"{stage}: {len(cases) - len(bad)} of {len(cases)} as they should be", bad or "", flush=True)
        wrong += len(bad) or not cases
    if network is not None:
        steps = network_differences(golden, network)
        wrong += not network_is_near(golden, steps)
        print("network, steps of int8:", steps, flush=True)
    return wrong


def main(folder, network=None):
    return int(check(Golden(folder), network and Model(network)) > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
