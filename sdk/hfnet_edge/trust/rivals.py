"""Rivals: other poses that explain a query as well as the one that was found.

A repeated structure (equal tiles, two posters) has one for each repetition, a small flat one has its flip. Neither can
be told by counting the inliers of the pose that was found; so the rival is looked for, and its support is counted.
"""

from __future__ import annotations

import numpy as np

from hfnet_edge.correspondences import Match2D3D, no_matches
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.refinement import RefinedPose, refine
from hfnet_edge.trust.second_look import Landmarks

SAMPLE = 96  # inliers that are asked for other landmarks that look like theirs
ALTERNATIVES = 4  # of each
ALIKE_PERCENT = 150  # of the squared distance to the inlier's own landmark
APART = 4  # inlier thresholds: nearer landmarks are the same thing
FIRM = 0.3  # degrees of standard deviation: perspective tells a pose held so well from its flip
FEW = 16  # inliers of the sample with an alternative: below, there is no rival


def alternatives(
    map_: LocalizationMap,
    query: Features,
    one: Match2D3D,
    refined: RefinedPose,
    camera: Camera,
    max_error: float,
    landmarks: Landmarks,
) -> Match2D3D:
    """What a sample of the inliers also looks like, elsewhere; none where that is nothing much.

    Args:
        one: the matches that ``refined`` is the pose of, with rows. landmarks: of the place.
    """
    assert one.keypoints is not None and one.landmarks is not None
    inliers = np.flatnonzero(refined.inliers)
    if len(inliers) < FEW or not len(landmarks.ids):
        return no_matches()
    rows = inliers[np.unique(np.linspace(0, len(inliers) - 1, SAMPLE).astype(int))]
    # Of each landmark one descriptor. Float32 is exact here, see `hfnet_edge.methods.matching.nearest_two`.
    first = np.searchsorted(landmarks.owners, np.arange(len(landmarks.ids)))
    b = landmarks.descriptors[first].astype(np.float32)
    a = map_.codec.query(query.descriptors[one.keypoints[rows]]).astype(np.float32)
    squared = np.einsum("rk,rk->r", b, b) - 2 * (a @ b.T) + np.einsum("rk,rk->r", a, a)[:, None]
    at = np.minimum(np.searchsorted(landmarks.ids, one.landmarks[rows]), len(landmarks.ids) - 1)
    own = np.where(landmarks.ids[at] == one.landmarks[rows], squared[np.arange(len(rows)), at], np.inf)
    own = np.where(np.isfinite(own), own, squared.min(axis=1))
    which, found = np.nonzero(squared * 100 < own[:, None] * ALIKE_PERCENT)
    falls = camera.project(refined.pose.transform(landmarks.positions[found]))
    far = ~(np.square(falls - one.xy[rows[which]]).sum(axis=1) < (APART * max_error) ** 2)  # NaN: behind the camera
    which, found = which[far], found[far]
    order = np.lexsort((found, squared[which, found], which))
    which, found = which[order], found[order]
    kept = np.arange(len(which)) - np.searchsorted(which, which) < ALTERNATIVES
    which, found = which[kept], found[kept]
    if len(np.unique(which)) < FEW:
        return no_matches()
    rows = rows[which]
    return Match2D3D(one.xy[rows], landmarks.positions[found], one.keypoints[rows], landmarks.ids[found])


def flip(refined: RefinedPose, matches: Match2D3D, camera: Camera, max_error: float) -> RefinedPose | None:
    """The other pose of a flat support: its plane seen from the other side of the line of sight, refined.

    None where the refinement returns to the pose that it is the flip of, or the support is not flat or holds it well.
    """
    xyz = matches.xyz[refined.inliers]
    if len(xyz) < 4 or refined.rotation_std < FIRM:
        return None
    rotation, seen = refined.pose.rotation, refined.pose.transform(xyz)
    middle = seen.mean(axis=0)
    _, spread, axes = np.linalg.svd(seen - middle, full_matrices=False)
    if not spread[2] < 0.2 * spread[1]:
        return None
    sight = middle / np.linalg.norm(middle)
    a, b = (axis - 2 * (sight @ axis) * sight for axis in axes[:2])
    turned = np.stack([a, b, np.cross(a, b)]).T @ np.stack([axes[0], axes[1], np.cross(axes[0], axes[1])])
    start = Pose.from_matrix(turned @ rotation, middle - turned @ (middle - refined.pose.translation))
    own = Match2D3D(matches.xy[refined.inliers], xyz)
    other = refine(start, own, camera, max_error)
    angle = np.linalg.norm(other.pose.rotation - rotation)
    return other if angle > 0.05 else None
