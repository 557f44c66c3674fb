"""The stages: the function that specifies each, what a case of it gives and expects, and how near is near enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hfnet_edge.features import decode
from hfnet_edge.image.blobs import Blobs, combine, find_blobs
from hfnet_edge.image.hypercolumns import Hypercolumns
from hfnet_edge.image.keypoints import detect, keypoint_scores, quantize, sample_descriptors
from hfnet_edge.image.patches import cut
from hfnet_edge.image.photo import Photo, load_photo
from hfnet_edge.localizer import localize_features, track_query, view_of
from hfnet_edge.map.codecs import Codec
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import RandomTrees
from hfnet_edge.map.scene_tree import SceneTree
from hfnet_edge.methods.covisibility import cluster
from hfnet_edge.methods.dense_search import search as dense_search
from hfnet_edge.methods.matching import match, nearest_two
from hfnet_edge.methods.parallel_search import search, seen_by
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.methods.scene_coordinates import landmarks_of
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.networks.scene import rows_of
from hfnet_edge.pose.estimate import estimate_pose
from hfnet_edge.pose.intrinsics import check_intrinsics
from hfnet_edge.pose.refinement import RefinedPose, refine, with_covariance
from hfnet_edge.pose.support import holds, inliers_of
from hfnet_edge.prior import Known, Prior
from hfnet_edge.rig import localize_views
from hfnet_edge.session import Odometry, Session, SessionPose
from hfnet_edge.trust.evidence import Evidence
from hfnet_edge.trust.examine import evidence_of, examine, rival
from hfnet_edge.trust.probability import InTolerance, Judge
from hfnet_edge.trust.second_look import guided_matches, look_again, nearest_views
from hfnet_edge.trust.verdict import decide

TOLERANCES: dict[str, Any] = {
    "equal": "every number is the same, floats to the last bit",
    "network": {
        "what": "equal on XNNPACK for the same .tflite file (the global descriptor: on the same processor); else at "
        "most so many steps of int8 apart: the scale of the array, or 1/127 of the global descriptor",
        "steps": 4,  # 3 between two Xeons: ranges are calibrated in float, which rounds by processor
    },
    "near": {
        "what": "equal, but for floats: these differ by so much of the largest in their array at most",
        "relative": 1e-6,  # 1e-7 between two orders of summation, of which one takes the last small step
    },
    "pose": {
        "what": "whatever the solver, unless a case names one; distance of translations, angle between quaternions; "
        "other floats differ by so much of the largest in their array at most, all else is equal",
        "metres": 1e-6,
        "degrees": 1e-6,
        "relative": 1e-6,
    },
}


@dataclass(frozen=True)
class Stage:
    """What the README says of a stage.

    Attributes:
        specified_by: the functions and classes whose docstrings specify it. They are named without their modules, so
            that what moves inside the runtime leaves the vectors alone.
        given, expected: of its cases.
        tolerance: of `TOLERANCES`.
    """

    specified_by: tuple[Callable[..., Any], ...]
    given: str
    expected: str
    tolerance: str = "equal"

    @property
    def names(self) -> tuple[str, ...]:
        """Of what specifies it."""
        return tuple(function.__qualname__ for function in self.specified_by)


STAGES = {
    "load": Stage(
        (load_photo, Photo),
        "image, input_size (height, width), camera or null, xy: points of the network's input",
        "pixels, valid (height, width), size (width, height), orientation, camera_xy: the points in the camera's image",
    ),
    "scale": Stage((Description.scale,), "pixels: all grey levels, input_range", "input"),
    "network": Stage(
        (Model,), "pixels", "logits, local, quarter, half, global, hypercolumns: the roles keypoint_logits, "
        "local_descriptors, local_descriptors_quarter, local_descriptors_half, global_descriptor, hypercolumns",
        "network",
    ),
    "scores": Stage(
        (keypoint_scores,), "logits, part (height, width)", "sha256 of the float32 scores as a file would "
        "hold them; of one query, scores: their top left part",
    ),
    "keypoints": Stage((detect,), "scores, valid, count, radius, threshold, border", "xy, scores"),
    "blobs": Stage((find_blobs, Blobs), "pixels, valid, count", "xy, response, scale"),
    "filled": Stage(
        (combine, Blobs), "xy and response: of blobs; network_xy and network_scores: of the network's keypoints; count",
        "xy, scores",
    ),
    "descriptors": Stage(
        (sample_descriptors,), "local, and where the network has them quarter and half: the parts, in this order; xy",
        "descriptors",
    ),
    "global": Stage((quantize,), "global", "global_descriptor"),
    "decode": Stage(
        (decode,), "logits, local, quarter, half, global; pixels, valid, size, orientation of the photo; radius, "
        "count, threshold",
        "keypoints, scores, descriptors, global_descriptor, pixel",
    ),
    "cells": Stage((Hypercolumns,), "hypercolumns, valid (height, width)", "cells"),
    "dense_search": Stage(
        (dense_search,), "cells; landmarks: their hypercolumns", "rows: of the landmarks that are found; xy"
    ),
    "scene_rows": Stage(
        (rows_of,), "descriptors; image: the number of a reference image, or null", "rows: of the scene network's input"
    ),
    "scene_landmarks": Stage(
        (landmarks_of, SceneTree), "branches, leaves: of the tree; predicted: what the network returns", "landmarks"
    ),
    "retrieval": Stage(
        (LocalizationMap.global_query, retrieve),
        "map, global_descriptor, count; or query and references in place of a map",
        "compared: the query's descriptor, similarities: with each reference image, ranking",
    ),
    "places": Stage((cluster,), "map, ranking", "images and landmarks of each place, in order"),
    "compared": Stage((Codec.query,), "map, descriptors", "compared"),
    "nearest": Stage(
        (nearest_two,), "map, descriptors, landmarks; or queries and references in place of a map",
        "nearest: rows of first, second, and their squared distances",
    ),
    "matches": Stage(
        (match,), "map, descriptors, keypoints, landmarks",
        "matches: rows of keypoints and landmarks; xyz: the landmarks' positions",
    ),
    "patches": Stage(
        (cut,), "pixels and valid (height, width): the image is their top left part; xy, scale and angle of "
        "keypoints", "patches",
    ),
    "signs": Stage((PatchModel.__call__,), "vectors: what the patch network returns", "descriptors"),
    "leaves": Stage(
        (RandomTrees.prior_leaves,), "map, descriptors, count, order: probability or absolute", "leaves"
    ),
    "leaf_landmarks": Stage(
        (RandomTrees.landmarks,), "map, leaves", "pairs: rows of the leaves, and landmarks in them"
    ),
    "search": Stage(
        (seen_by, search),
        "map, descriptors, keypoints, frames: reference images, pairs: as from leaf_landmarks",
        "shared: the landmarks that the frames observe; matches: rows of keypoints and landmarks; xyz",
    ),
    "pose": Stage(
        (estimate_pose,), "xy, xyz, camera, max_error in pixels; solver, where solvers differ",
        "quaternion (w, x, y, z) and translation of cam_from_world, inliers", "pose",
    ),
    "inliers": Stage(
        (inliers_of,), "quaternion and translation: of a pose; xy, xyz, camera, max_error", "inliers"
    ),
    "refinement": Stage(
        (refine, with_covariance, RefinedPose),
        "quaternion and translation: of a first pose; xy, xyz, camera, max_error",
        "quaternion, translation, inliers, noise, covariance or null, position_std, rotation_std", "near",
    ),
    "second_look": Stage(
        (look_again, nearest_views),
        "map, keypoints, descriptors, matches: rows of keypoints and landmarks; camera, max_error; quaternion and "
        "translation: of a first pose",
        "landmarks: of the nearest views; remote; matches: those to refine on", "near",
    ),
    "guided": Stage(
        (guided_matches,),
        "quaternion, translation, camera, window in pixels, keypoints, descriptors, map, landmarks; or positions, "
        "rows: of descriptors, owners: of these, in place of a map",
        "matches: rows of keypoints and landmarks; distances, expected", "near",
    ),
    "evidence": Stage(
        (evidence_of, Evidence, InTolerance, check_intrinsics, holds),
        "of a refined pose: quaternion, translation, inliers, noise, covariance; camera, max_error, keypoints; "
        "matches: that it was refined on; guided, distances, expected, remote: of the second look; first: inliers of "
        "the method's matches, and their number; rival, tolerance; map, or xy and xyz in place of rows",
        "evidence, in_tolerance; intrinsics: focal, focal_std, center x and y, center_std, or null; held", "near",
    ),
    "probability": Stage(
        (Judge, decide), "evidence, in_tolerance, calibration: right_slope, right_offset, precise_slope, "
        "precise_offset, images; held, max_wrong",
        "right, precise: points; probability, wrong, accepted, ambiguous",
    ),
    "result": Stage(
        (localize_features, examine, rival),
        "map, keypoints, scores, descriptors, global_descriptor, pixel, camera; solver, where solvers differ; method, "
        "if it is not hierarchical",
        "status; where it is LOCALIZED, quaternion, translation (in the world) and the number of inliers; where it is "
        "REJECTED or AMBIGUOUS, their number unless it is chance", "pose",
    ),
    "track": Stage(
        (track_query,),
        "map, keypoints, descriptors, pixel, camera; quaternion and translation: of the expected pose, relative to the "
        "map's origin; depth; radius in pixels; solver, where solvers differ",
        "status, probability, wrong; where it is LOCALIZED, quaternion, translation (in the world), position_std, "
        "rotation_std, evidence and the number of inliers", "pose",
    ),
    "prior": Stage(
        (Prior, Known),
        "map; what is known: position, radius, gps (latitude, longitude, accuracy), gravity, images; poses: "
        "quaternion, translation, and position_std or null",
        "among: by reference image, whether it may be retrieved, or null; rotation or null; contradicted: by pose",
    ),
    "rig": Stage(
        (view_of, localize_views),
        "map; views: of each keypoints, descriptors, global_descriptor, pixel, camera, cam_from_rig, and drift "
        "(position, rotation in radians); solver, which is usac: there is no solver for all views at once",
        "as of track, and the covariance", "pose",
    ),
    "session": Stage(
        (Session, SessionPose, Odometry),
        "map, camera, pixel, window; odometry: distance, rotation, metres; frames: of each keypoints, descriptors, "
        "global_descriptor, and session_from_cam or null; solver, as of rig",
        "frames: of each as of track; map_from_session or null, way or null, tracked, the number of notes; frame: the "
        "status of it alone", "pose",
    ),
}  # fmt: skip
