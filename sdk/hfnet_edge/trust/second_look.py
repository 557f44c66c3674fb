"""The second look: with a first pose, landmarks are projected into the query and matched again near where they fall.

A right pose gains inliers all over the image, away from those it was found by: six can become a hundred. A wrong one is
told where the landmarks of its place should be, and finds there what chance puts there. Descriptors are compared in
integers, and equals are decided by the lower index, as in `hfnet_edge.methods.matching`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.estimate import refine_again
from hfnet_edge.pose.refinement import RefinedPose
from hfnet_edge.pose.support import inliers_of, reprojection_errors

VIEWS = 12  # reference images nearest to the pose, whose landmarks are expected
BLOCK = 1 << 13  # pairs of descriptors that are compared at once
REMOTEST = 1e6  # farther is as far
BLURRED = 0.15  # of the inlier threshold: noise of keypoints beyond which cells are asked as well
FEW = 12  # keypoints in which a pose that was found without them is refined
NEAR = 1 / 4  # of the inlier threshold: where a right pose's landmarks fall


@dataclass(frozen=True)
class Landmarks:
    """L landmarks of a place, and their R descriptors.

    Attributes:
        ids: (L,) int64, increasing. positions: (L, 3) float64, relative to the map's origin.
        descriptors: (R, K) int8. owners: (R,) int64 rows of ``ids``.
    """

    ids: np.ndarray
    positions: np.ndarray
    descriptors: np.ndarray
    owners: np.ndarray

    @classmethod
    def of(cls, map_: LocalizationMap, ids: np.ndarray) -> Landmarks:
        """Raises MapFormatError: the map is damaged there."""
        return cls(ids, map_.positions(ids), *map_.descriptors(ids))

    def take(self, rows: Any) -> Landmarks:
        """Those of (L,) bool ``rows``."""
        described = rows[self.owners]
        number = np.cumsum(rows) - 1
        return Landmarks(
            self.ids[rows], self.positions[rows], self.descriptors[described], number[self.owners[described]]
        )


@dataclass(frozen=True)
class SecondLook:
    """What was expected at a pose, and what was there.

    Attributes:
        matches: the first pose's inliers, and beside them landmarks whose keypoint is as like them as it is at those
            that fall near theirs.
        guided: all that were found near where they fall, however unlike. distances: (G,) int64, squared, of these.
        expected: (E, 2) float64 pixels where landmarks fall within the image.
        landmarks: of the views that are nearest to the pose. remote: how far the nearest one is, see `nearest_views`.
    """

    matches: Match2D3D
    guided: Match2D3D
    distances: np.ndarray
    expected: np.ndarray
    landmarks: Landmarks
    remote: float


def look_again(
    map_: LocalizationMap,
    query: Features,
    camera: Camera,
    matches: Match2D3D,
    first: RefinedPose,
    max_error: float,
    depth: float | None = None,
) -> SecondLook:
    """Matches the landmarks of the views nearest to a pose with the keypoints within ``max_error`` pixels of where they
    fall.

    Args:
        matches: with rows of keypoints and landmarks. first: the pose that was found in them.
        depth: of the scene, map units, where there may be no inliers; None: theirs.

    Raises:
        MapFormatError: the map is damaged there.
    """
    inliers = matches.take(first.inliers)
    assert inliers.keypoints is not None and inliers.landmarks is not None
    depth = depth or float(np.median(first.pose.transform(inliers.xyz)[:, 2]))
    views, remote = nearest_views(map_, first.pose, depth)
    landmarks = Landmarks.of(map_, map_.observed_by(views))
    guided, distances, expected = guided_matches(map_, query, camera, first.pose, landmarks, max_error)
    assert guided.keypoints is not None and guided.landmarks is not None
    near = reprojection_errors(first.pose, guided, camera) < NEAR * max_error
    like = distances <= np.median(distances[near]) if near.any() else near
    new = ~np.isin(guided.keypoints, inliers.keypoints) & ~np.isin(guided.landmarks, inliers.landmarks)
    return SecondLook(inliers.join(guided.take(new & like)), guided, distances, expected, landmarks, remote)


def at_keypoints(
    map_: LocalizationMap, query: Features, camera: Camera, matches: Match2D3D, first: RefinedPose, max_error: float
) -> tuple[Match2D3D, RefinedPose]:
    """Coarse to fine: a pose whose matches are at no keypoints, and these; or where the query has `FEW` keypoints that
    look like the landmarks which fall there, those keypoints and the pose in them.

    Args:
        matches: with rows of landmarks. first: the pose that was found in them, good to a few pixels.

    Raises:
        MapFormatError: the map is damaged there.
    """
    depth = float(np.median(first.pose.transform(matches.xyz[first.inliers])[:, 2]))
    views, _ = nearest_views(map_, first.pose, depth)
    landmarks = Landmarks.of(map_, map_.observed_by(views))
    guided, distances, _ = guided_matches(map_, query, camera, first.pose, landmarks, max_error)
    fine = replace(guided.take(distances <= np.median(distances)), found_by=matches.found_by) if len(guided) else guided
    if len(fine) < FEW:
        return matches, first
    pose = refine_again(first.pose, fine, camera, max_error, rough=True)
    return (fine, pose) if pose.inliers.sum() >= FEW else (matches, first)


def beside_cells(
    refined: RefinedPose, matches: Match2D3D, cells: Match2D3D, camera: Camera, max_error: float
) -> RefinedPose:
    """Where keypoints are hardly more certain than cells, as in a photo that was moved, the pose at which both agree.

    Args:
        matches: at keypoints, that the pose was refined in. cells: inliers that were found without keypoints.
    """
    if refined.noise <= BLURRED * max_error:
        return refined
    xy, xyz = np.concatenate([matches.xy, cells.xy]), np.concatenate([matches.xyz, cells.xyz])
    pose = refine_again(refined.pose, Match2D3D(xy, xyz), camera, max_error, rough=True).pose
    errors, inliers = reprojection_errors(pose, matches, camera), inliers_of(pose, matches, camera, max_error)
    return replace(refined, pose=pose, errors=errors, inliers=inliers)


def without_second_look(matches: Match2D3D) -> SecondLook:
    """In its place where there are no features to look among: the method's matches are all that was expected."""
    nothing = np.zeros(0, np.int64)
    none = Landmarks(nothing, np.zeros((0, 3)), np.zeros((0, 0), np.int8), nothing)
    return SecondLook(matches, matches, np.ones(len(matches), np.int64), matches.xy, none, 0.0)


def nearest_views(map_: LocalizationMap, pose: Pose, depth: float) -> tuple[np.ndarray, float]:
    """(K,) int64 reference images that see most nearly what a camera at ``pose`` sees, nearest first, and how far the
    first one is.

    Two views differ by the distance of their centres, in depths of the scene, plus the angle between their axes, in
    radians.

    Args:
        pose: among points relative to the map's origin. depth: of the scene before it, map units.
    """
    centers, axes = map_.views
    with np.errstate(over="ignore", invalid="ignore"):  # the map's poses are finite, and may be anywhere
        apart = np.linalg.norm(centers - pose.center, axis=1) / depth
        far = np.nan_to_num(apart + np.arccos(np.clip(axes @ pose.rotation[2], -1, 1)), nan=REMOTEST, posinf=REMOTEST)
    views = np.argsort(far, kind="stable")[:VIEWS]
    return views, min(float(far[views[0]]), REMOTEST)


def guided_matches(
    map_: LocalizationMap, query: Features, camera: Camera, pose: Pose, landmarks: Landmarks, window: float
) -> tuple[Match2D3D, np.ndarray, np.ndarray]:
    """Of each landmark the most alike keypoint nearer than ``window`` pixels; of landmarks with one keypoint the most
    alike.

    Returns:
        The matches in order of keypoint; their (N,) int64 squared distances; (E, 2) float64 pixels of the landmarks
        that fall within the image.
    """
    xy = camera.project(pose.transform(landmarks.positions))
    inside = (xy > 0).all(axis=1) & (xy < (camera.width, camera.height)).all(axis=1)  # NaN behind the camera is not
    landmarks, xy = landmarks.take(inside), xy[inside]
    rows, keypoint = pairs_within(xy[landmarks.owners], query.keypoints, window)
    distance = _squared_distances(map_.codec.query(query.descriptors), keypoint, landmarks.descriptors, rows)
    landmark = landmarks.owners[rows]
    order = np.lexsort((keypoint, distance, landmark))
    order = order[_first(landmark[order])]  # the keypoint that is most like each landmark
    order = order[np.lexsort((landmark[order], distance[order], keypoint[order]))]
    order = order[_first(keypoint[order])]  # of the landmarks of one keypoint the most alike
    keypoint, landmark = keypoint[order], landmark[order]
    found = Match2D3D(query.keypoints[keypoint], landmarks.positions[landmark], keypoint, landmarks.ids[landmark])
    return found, distance[order], xy


def pairs_within(a: np.ndarray, b: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """(P,) int64 rows of points ``a`` (R, 2) and of ``b`` (N, 2) that are nearer than ``radius`` to each other.

    The points b are sorted into cells of that width, so those near a point of a are in three runs of three cells.
    """
    if not len(a) or not len(b):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    low = np.minimum(a.min(axis=0), b.min(axis=0)) - radius
    cell_a, cell_b = (((points - low) / radius).astype(np.int64) for points in (a, b))
    width = int(max(cell_a[:, 0].max(), cell_b[:, 0].max())) + 2
    key = cell_b[:, 1] * width + cell_b[:, 0]
    order = np.argsort(key, kind="stable")
    runs = ((cell_a[:, 1, None] + (-1, 0, 1)) * width + cell_a[:, 0, None] - 1).ravel()
    first, last = (np.searchsorted(key[order], edge) for edge in (runs, runs + 3))
    count = last - first
    rows = np.repeat(np.arange(len(runs)) // 3, count)
    found = order[np.arange(count.sum()) + np.repeat(last - np.cumsum(count), count)]
    near = np.square(a[rows] - b[found]).sum(axis=1) < radius * radius
    return rows[near], found[near]


def _squared_distances(a: np.ndarray, of: np.ndarray, b: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(P,) int64, of descriptors ``a[of]`` to ``b[rows]``, a block at a time: at a pose from which all is seen in one
    spot there are many pairs."""
    squared = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        difference = a[of[block]].astype(np.float32) - b[rows[block]]  # exact, as in `nearest_two`
        squared[block] = np.einsum("pk,pk->p", difference, difference)
    return squared


def _first(values: np.ndarray) -> np.ndarray:
    """Rows at which a run of equal values begins."""
    return np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
