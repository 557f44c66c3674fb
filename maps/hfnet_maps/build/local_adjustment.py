"""Poses and landmarks of new images among old ones that stay as they are.

    matches that fit the poses ─> old landmarks seen by new images, and new ones ─> adjust what is new ─┐
                 ^──────────────────────────────────────────────────────────────────────────────────────┘

New images hang on old landmarks, and on landmarks that are triangulated between their keypoints and those of old images
that belong to no landmark yet. Old poses and landmarks are constants of the adjustment, not of great weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pycolmap

from hfnet_edge.geometry import Pose
from hfnet_maps.build.pairs import Matches, verify
from hfnet_maps.build.triangulation import (
    MAX_REPROJECTION,
    MIN_ANGLE,
    Tracks,
    adjustment,
    as_geometries,
    colmap_model,
    make_robust,
    median_focal,
    pose_of,
    read_tracks,
    triangulation,
    triangulation_options,
)
from hfnet_maps.build.view import View

ROUNDS = 3  # of verification, triangulation and adjustment
STEPS = 50  # of one adjustment


@dataclass(frozen=True)
class Landmarks:
    """Old landmarks and what is known to observe them; L landmarks, O observations. One that a single view observes is
    left out.

    Attributes:
        positions: (L, 3) float64, world.
        landmarks, images, keypoints: (O,) int64 rows of the positions, of the views, and of these views' keypoints; no
            keypoint twice.
    """

    positions: np.ndarray
    landmarks: np.ndarray
    images: np.ndarray
    keypoints: np.ndarray


@dataclass(frozen=True)
class Adjusted:
    """What came of it.

    Attributes:
        poses: of the new views.
        old: observations of old landmarks by new views; positions as they were.
        new: new landmarks, each observed by one new view at least. No view observes one landmark by two keypoints.
    """

    poses: tuple[Pose, ...]
    old: Tracks
    new: Tracks


def adjust_new(views: Sequence[View], first_new: int, landmarks: Landmarks, matches: Matches) -> Adjusted:
    """Adjusts the views from ``first_new`` on, and new landmarks; earlier views and old landmarks stay.

    Args:
        matches: not verified, each with a new view.
    """
    centre = np.mean([view.pose.center for view in views], axis=0)  # coordinates may be as large as UTM's
    here = [view.seen_from(centre) for view in views]
    positions = landmarks.positions - centre
    for _ in range(ROUNDS):
        model = _adjusted_model(here, first_new, replace(landmarks, positions=positions), matches)
        for i in range(first_new, len(here)):
            here[i] = replace(here[i], pose=pose_of(model, i))
    tracks = read_tracks(model, here)
    ids = np.array(sorted(model.points3D), np.int64)
    known = ids <= len(positions)  # ids count from 1, old landmarks first
    kept = known[tracks.landmarks] & (tracks.images >= first_new) & (tracks.errors < MAX_REPROJECTION)
    old = Tracks(
        landmarks.positions,
        ids[tracks.landmarks[kept]] - 1,
        tracks.images[kept],
        tracks.keypoints[kept],
        tracks.errors[kept],
    )
    made = ~known[tracks.landmarks]
    new = Tracks(
        tracks.positions[~known] + centre,
        tracks.landmarks[made] - int(known.sum()),
        tracks.images[made],
        tracks.keypoints[made],
        tracks.errors[made],
    )
    return Adjusted(tuple(view.seen_from(-centre).pose for view in here[first_new:]), old, new)


def _adjusted_model(
    views: Sequence[View], first_new: int, landmarks: Landmarks, matches: Matches
) -> pycolmap.Reconstruction:
    """Image i has the id i, old landmark k the id k + 1."""
    model = colmap_model(views)
    order = np.argsort(landmarks.landmarks, kind="stable")
    starts = np.searchsorted(landmarks.landmarks[order], np.arange(len(landmarks.positions) + 1))
    for k, xyz in enumerate(landmarks.positions):
        track = pycolmap.Track()
        for row in order[starts[k] : starts[k + 1]]:
            track.add_element(int(landmarks.images[row]), int(landmarks.keypoints[row]))
        model.add_point3D(xyz, track)
    old = set(model.points3D)
    observations, triangulator = triangulation(model, as_geometries(verify(views, matches)))
    options = triangulation_options(MAX_REPROJECTION, median_focal(views))
    for i in range(first_new, len(views)):
        triangulator.triangulate_image(options, i)
    triangulator.complete_tracks(options, set(model.points3D) - old)
    _filter(model, observations, old)
    _adjust(model, first_new, old)
    _filter(model, observations, old)
    return model


def _filter(model: pycolmap.Reconstruction, observations: pycolmap.ObservationManager, old: set[int]) -> None:
    """Old landmarks may be seen from anywhere: their angles are not judged."""
    observations.filter_points3D_with_large_reprojection_error(MAX_REPROJECTION, old & set(model.points3D))
    observations.filter_points3D(MAX_REPROJECTION, MIN_ANGLE, set(model.points3D) - old)


def _adjust(model: pycolmap.Reconstruction, first_new: int, old: set[int]) -> None:
    options, config = adjustment(model, poses=True)
    for i, image in model.images.items():
        if i < first_new:
            config.set_constant_rig_from_world_pose(image.frame_id)
    for k in old & set(model.points3D):
        config.add_constant_point(k)
    make_robust(options, 1.0, STEPS)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
