"""Registers new photos into a built map, whose images and landmarks stay where they are.

new photos ─> extract ─> localize in the map ─> match ─> adjust what is new ─> BuiltMap
                             ^────────── those that were not found ────┘
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
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
from hfnet_maps.appended import NewImage, appended
from hfnet_maps.build.builder import features_of, timed
from hfnet_maps.build.candidates import select_pairs
from hfnet_maps.build.local_adjustment import Adjusted, Landmarks, adjust_new
from hfnet_maps.build.pairs import Matches, match_descriptors
from hfnet_maps.build.triangulation import MAX_REPROJECTION
from hfnet_maps.build.view import View, make_view
from hfnet_maps.content import BuiltMap
from hfnet_maps.pack.writer import lay_out, to_map

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

    @property
    def image(self) -> NewImage:
        """As it is appended."""
        return NewImage(self.photo.name, self.camera, self.pose, self.photo.features, self.photo.hypercolumns)

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
        moved: (N,) by how much the adjustment moved the poses of the taken from where localization had put them, in the
            map's unit.
        seconds: by stage.
    """

    map: BuiltMap
    taken: tuple[str, ...]
    left_out: dict[str, str]
    landmarks: int
    observations: int
    moved: np.ndarray
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
    seconds = {"localize": 0.0, "match": 0.0, "adjust": 0.0}
    taken: dict[str, Registered] = {}
    why: dict[str, str] = {}
    surroundings, localized = _Surroundings(content), dict[str, Pose]()
    updated, added, observations, place = content, 0, 0, before
    for _ in range(ROUNDS):
        with timed(seconds, "localize"):
            waiting = [photo for photo in photos if photo.name not in taken]
            found = _localized(place, len(content.positions), waiting, why, progress)
        if not found:
            break
        taken |= found
        localized |= {name: one.pose for name, one in found.items()}
        registered = [taken[photo.name] for photo in photos if photo.name in taken]
        with timed(seconds, "match"):
            matches = surroundings.matches(registered, progress)
        with timed(seconds, "adjust"):
            adjusted = surroundings.adjust(registered, matches, progress)
            registered = [replace(one, pose=pose) for one, pose in zip(registered, adjusted.poses, strict=True)]
            taken = {one.photo.name: one for one in registered}
            added, observations = len(adjusted.new.positions), len(adjusted.old.landmarks)
            updated = appended(before, content, [one.image for one in registered], adjusted.old, adjusted.new)
        if len(taken) == len(photos):
            break
        place = to_map(lay_out(updated, before))
    left_out = {name: reason for name, reason in why.items() if name not in taken}
    moved = np.array([np.linalg.norm(one.pose.center - localized[name].center) for name, one in taken.items()])
    return UpdatedMap(updated, tuple(taken), left_out, added, observations, moved, seconds)


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


class _Surroundings:
    """What is around new photos in a map: the old images that they are matched with. Matches are kept."""

    def __init__(self, content: BuiltMap):
        self._content = content
        self._features = cache(content.features)
        self._views = cache(lambda i: make_view(content.keypoints.cameras[i], content.poses[i], self._features(i)))
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def matches(self, registered: Sequence[Registered], progress: Report) -> Matches:
        """Of new photos with old images and with each other; rows of the content's images, then of the photos."""
        c = self._content
        old = len(c.names)
        poses = [*c.poses, *(one.pose for one in registered)]
        looks = np.concatenate([c.global_descriptors, [one.photo.features.global_descriptor for one in registered]])
        names = [*c.names, *(one.photo.name for one in registered)]
        pairs = [(i, j) for i, j in select_pairs(poses, looks) if j >= old]
        found: Matches = {}
        for k, (i, j) in enumerate(pairs):
            progress("match", k, len(pairs))
            if (names[i], names[j]) not in self._known:
                a = self._features(i) if i < old else registered[i - old].photo.features
                rows = match_descriptors(a.descriptors, registered[j - old].photo.features.descriptors)
                self._known[names[i], names[j]] = rows
            found[i, j] = self._known[names[i], names[j]]
        progress("match", len(pairs), len(pairs))
        return found

    def adjust(self, registered: Sequence[Registered], matches: Matches, progress: Report) -> Adjusted:
        """Of the photos, among the old images that they have matches with; rows as those of the matches."""
        progress("adjust", 0, 1)
        c, old = self._content, len(self._content.names)
        near = self._near({i for i, _ in matches if i < old}, registered)
        row = {image: k for k, image in enumerate(near)} | {old + k: len(near) + k for k in range(len(registered))}
        seen = [(k, c.landmarks[c.observed(image)]) for k, image in enumerate(near)]
        observations = [(ids, np.full(len(ids), k), np.arange(len(ids))) for k, ids in seen]
        for k, one in enumerate(registered, len(near)):
            keypoints = np.flatnonzero(one.landmarks >= 0)
            observations.append((one.landmarks[keypoints], np.full(len(keypoints), k), keypoints))
        landmarks, images, keypoints = (np.concatenate(column) for column in zip(*observations, strict=True))
        ids, of = np.unique(landmarks, return_inverse=True)
        found = adjust_new(
            [*map(self._views, near), *(one.view() for one in registered)],
            len(near),
            Landmarks(c.positions[ids], of, images, keypoints),
            {(row[i], row[j]): rows for (i, j), rows in matches.items()},
        )
        rows_of = np.array([*near, *(old + k for k in range(len(registered)))], np.int64)
        progress("adjust", 1, 1)
        return replace(
            found,
            old=replace(found.old, landmarks=ids[found.old.landmarks], images=rows_of[found.old.images]),
            new=replace(found.new, images=rows_of[found.new.images]),
        )

    def _near(self, matched: set[int], registered: Sequence[Registered]) -> list[int]:
        """The old images that photos are matched with, and of each landmark that only others see, the first one."""
        c = self._content
        found = np.unique(np.concatenate([one.landmarks for one in registered]))
        seen = c.landmarks[np.isin(c.images, list(matched))]
        lacking = np.setdiff1d(found[found >= 0], seen)
        return sorted(matched | set(c.images[np.searchsorted(c.landmarks, lacking)].tolist()))
