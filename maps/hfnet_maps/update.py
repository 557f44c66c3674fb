"""Registers new photos into a built map, whose images and landmarks stay where they are.

    new photos ─> extract ─> localize in the map ─> match ─> verify ─> triangulate ─> BuiltMap
                                 ^────────── those that were not found ──────┘

The poses of new photos are those that localization gives; nothing is adjusted but the new landmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hfnet_edge.errors import CameraError, ImageError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.one_thread import one_thread
from hfnet_maps.build.builder import features_of, mean_hypercolumns, timed
from hfnet_maps.build.candidates import select_pairs
from hfnet_maps.build.pairs import Matches, match_descriptors, verify
from hfnet_maps.build.triangulation import MAX_REPROJECTION, Tracks, triangulate
from hfnet_maps.build.view import View, make_view
from hfnet_maps.content import BuiltMap, ReferenceKeypoints
from hfnet_maps.pack.writer import added_order, lay_out, to_map

ROUNDS = 4  # of localization: photos that others lead to are found in the next one
WHY = {
    Status.NO_KEYPOINTS: "nothing is found in it: it is dark, blurred or overexposed",
    Status.NO_CANDIDATES: "no image of the map is like it",
    Status.TOO_FEW_MATCHES: "it shares too little with the map",
    Status.REJECTED: "it was not localized: what speaks for a pose is not enough",
    Status.AMBIGUOUS: "it was not localized: more than one pose fits it",
}


@dataclass(frozen=True)
class NewPhoto:
    """A photo that is to be registered; N keypoints.

    Attributes:
        name: that the map will know it by.
        camera: of the stored pixels. guessed: its focal length is to be found with the pose.
        hypercolumns: (N, H) int8 at the keypoints, where the map has them.
    """

    name: str
    camera: Camera
    guessed: bool
    features: Features
    hypercolumns: np.ndarray | None = None


@dataclass(frozen=True)
class Registered:
    """A photo that was localized.

    Attributes:
        camera: the photo's, with the focal length that was found.
        pose: cam_from_world.
        landmarks: (N,) int64 old landmark of each keypoint; -1: it observes none.
    """

    photo: NewPhoto
    camera: Camera
    pose: Pose
    landmarks: np.ndarray

    def view(self) -> View:
        """As triangulation sees it."""
        return make_view(self.camera, self.pose, self.photo.features)


@dataclass(frozen=True)
class UpdatedMap:
    """What came of an update.

    Attributes:
        map: the old images and landmarks as they were, then the new ones.
        taken: names of the photos that are in it now, in order. left_out: name to reason.
        landmarks: new ones. observations: new ones of old landmarks.
        seconds: by stage.
    """

    map: BuiltMap
    taken: tuple[str, ...]
    left_out: dict[str, str]
    landmarks: int
    observations: int
    seconds: dict[str, float] = field(default_factory=dict)


def extract_new(
    folder: Path,
    names: Sequence[str],
    camera_of: Callable[[str], tuple[Camera, bool]],
    networks: Networks,
    dense: bool = False,
    progress: Report = silent,
) -> tuple[list[NewPhoto], dict[str, str]]:
    """Features of new photos, and the photos that cannot be used, with the reason.

    Args:
        camera_of: the camera of a name, and whether it is a guess; raises CameraError, ImageError.
        dense: take hypercolumns as well.
    """
    photos, unusable = [], {}
    for i, name in enumerate(names):
        progress("extract", i, len(names))
        try:
            camera, guessed = camera_of(name)
            photos.append(NewPhoto(name, camera, guessed, *features_of(folder / name, camera, networks, dense)))
        except (CameraError, ImageError) as e:
            unusable[name] = e.problem
    progress("extract", len(names), len(names))
    return photos, unusable


def update(
    before: LocalizationMap, content: BuiltMap, photos: Sequence[NewPhoto], progress: Report = silent
) -> UpdatedMap:
    """Registers photos into a map.

    Args:
        before: the map. content: what is in it.
        photos: whose names are not in the map, with features of the map's networks.
    """
    seconds = {"localize": 0.0, "triangulate": 0.0}
    taken: dict[str, Registered] = {}
    why: dict[str, str] = {}
    known: dict[tuple[str, str], np.ndarray] = {}
    updated, added, place = content, 0, before
    for _ in range(ROUNDS):
        with timed(seconds, "localize"):
            waiting = [photo for photo in photos if photo.name not in taken]
            found = _localized(place, len(content.positions), waiting, why, progress)
        if not found:
            break
        taken |= found
        registered = [taken[photo.name] for photo in photos if photo.name in taken]
        with timed(seconds, "triangulate"):
            tracks = _new_landmarks(registered, known, progress)
            added = len(tracks.positions)
            updated = _joined(before, content, registered, tracks)
        if len(taken) == len(photos):
            break
        place = to_map(lay_out(updated, before))
    in_order = tuple(photo.name for photo in photos if photo.name in taken)
    observations = sum(int((r.landmarks >= 0).sum()) for r in taken.values())
    left_out = {name: reason for name, reason in why.items() if name not in taken}
    return UpdatedMap(updated, in_order, left_out, added, observations, seconds)


def _localized(
    place: LocalizationMap, old: int, photos: Sequence[NewPhoto], why: dict[str, str], progress: Report
) -> dict[str, Registered]:
    """Those of the photos that are found in a map, whose first ``old`` landmarks are the old ones; says of the others
    ``why`` not."""
    found = {}
    for i, photo in enumerate(photos):
        progress("localize", i, len(photos))
        with one_thread():
            config = LocalizationConfig(refine_focal=photo.guessed)
            result = localize_features(place, photo.features, photo.camera, config)
        if result.status is Status.LOCALIZED:
            found[photo.name] = _registered(photo, result, old)
        else:
            why[photo.name] = WHY.get(result.status, result.status.value)
    progress("localize", len(photos), len(photos))
    return found


def _registered(photo: NewPhoto, result: LocalizationResult, old: int) -> Registered:
    """With the inlier matches of old landmarks that are as near as a map's observations are."""
    matches, camera = result.matches, result.camera or photo.camera
    assert result.pose is not None and result.inlier_mask is not None and matches is not None
    inliers = matches.take(result.inlier_mask)
    assert inliers.keypoints is not None and inliers.landmarks is not None
    view = make_view(camera, result.pose, photo.features)
    seen = result.pose.transform(inliers.xyz)
    errors = np.linalg.norm(seen[:, :2] / seen[:, 2:] * view.focal - view.xy[inliers.keypoints], axis=1)
    order = np.argsort(errors, kind="stable")  # of two keypoints on one landmark the nearer stays
    order = order[(inliers.landmarks[order] < old) & (errors[order] < MAX_REPROJECTION)]
    ids, first = np.unique(inliers.landmarks[order], return_index=True)
    landmarks = np.full(len(photo.features.keypoints), -1, np.int64)
    landmarks[inliers.keypoints[order[first]]] = ids
    return Registered(photo, camera, result.pose, landmarks)


def _new_landmarks(
    registered: Sequence[Registered], known: dict[tuple[str, str], np.ndarray], progress: Report
) -> Tracks:
    """Landmarks of the keypoints that observe no old one.

    Args:
        known: matches by the names of two photos; new ones are added.
    """
    views = [one.view() for one in registered]
    descriptors = [one.photo.features.descriptors for one in registered]
    looks = np.stack([one.photo.features.global_descriptor for one in registered])
    pairs = select_pairs([one.pose for one in registered], looks)
    matches: Matches = {}
    for k, (i, j) in enumerate(pairs):
        progress("match", k, len(pairs))
        names = registered[i].photo.name, registered[j].photo.name
        if names not in known:
            known[names] = match_descriptors(descriptors[i], descriptors[j])
        matches[i, j] = known[names]
    progress("match", len(pairs), len(pairs))
    free = {
        (i, j): rows[(registered[i].landmarks[rows[:, 0]] < 0) & (registered[j].landmarks[rows[:, 1]] < 0)]
        for (i, j), rows in verify(views, matches).items()
    }
    free = {pair: rows for pair, rows in free.items() if len(rows)}
    if not free:
        none = np.zeros(0, np.int64)
        return Tracks(np.zeros((0, 3)), none, none, none, np.zeros(0))
    return triangulate(views, free)


def _joined(before: LocalizationMap, content: BuiltMap, registered: Sequence[Registered], tracks: Tracks) -> BuiltMap:
    """The content with new images and landmarks at its end."""
    images, old, k = len(content.names), len(content.positions), content.keypoints
    order = added_order(before, tracks.positions)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    parts: list[tuple[np.ndarray, ...]] = [(content.landmarks, content.images, k.observed, content.descriptors)]
    others = []
    for i, one in enumerate(registered):
        f, landmarks = one.photo.features, one.landmarks.copy()
        own = tracks.images == i
        landmarks[tracks.keypoints[own]] = old + number[tracks.landmarks[own]]
        seen = np.flatnonzero(landmarks >= 0)
        image = np.full(len(seen), images + i)
        parts.append((landmarks[seen], image, f.keypoints[seen].astype(np.float32), f.descriptors[seen]))
        others.append(np.flatnonzero(landmarks < 0))
    landmarks, image_of, observed, descriptors = (np.concatenate(column) for column in zip(*parts, strict=True))
    rows = np.lexsort((image_of, landmarks))
    features = [one.photo.features for one in registered]
    keypoints = ReferenceKeypoints(
        (*k.cameras, *(one.camera for one in registered)),
        np.array([*k.pixels, *(f.pixel for f in features)], np.float64),
        observed[rows],
        np.concatenate([k.other_offsets, k.other_offsets[-1] + np.cumsum([len(other) for other in others])]),
        np.concatenate([k.others, *(f.keypoints[o] for f, o in zip(features, others, strict=True))]).astype(np.float32),
        np.concatenate([k.other_descriptors, *(f.descriptors[o] for f, o in zip(features, others, strict=True))]),
    )
    hypercolumns = content.hypercolumns
    if hypercolumns is not None:
        of_keypoints = [one.photo.hypercolumns for one in registered if one.photo.hypercolumns is not None]
        hypercolumns = np.concatenate([hypercolumns, mean_hypercolumns(of_keypoints, tracks)[order]])
    return replace(
        content,
        names=(*content.names, *(one.photo.name for one in registered)),
        poses=(*content.poses, *(one.pose for one in registered)),
        global_descriptors=np.concatenate([content.global_descriptors, [f.global_descriptor for f in features]]),
        positions=np.concatenate([content.positions, tracks.positions[order]]),
        landmarks=landmarks[rows],
        images=image_of[rows],
        descriptors=descriptors[rows],
        keypoints=keypoints,
        hypercolumns=hypercolumns,
    )
