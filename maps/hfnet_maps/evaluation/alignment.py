"""Poses that were found in one frame, brought into the frame of the true ones.

SfM knows no scale, and its frame is any. Where poses and reference come from two reconstructions of a place, a
similarity lies between them, and errors mean something once it is taken out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_maps.evaluation.errors import Evaluation, errors_text, pose_errors

LEAST = 3  # cameras that tell a similarity
TRIALS = 500  # triples of cameras that are tried
NARROW = 0.05  # of the length of a row of cameras, its width: below, known rotations turn it better than positions
AGREE = 3.0  # medians of the error, that a camera which agrees is off at most
FLAT = 1e-3  # of the length of a row of cameras, its width: as good as a line
ROUNDING = 1e-9  # of the coordinates: as good as a point
# Five poses have twice as many numbers as a similarity; by chance it does not bring them ten times nearer.
TELLING, NEARER, TURNED = 5, 0.1, 5.0  # poses, factor, degrees
FAR = 0.1  # of how far the true cameras lie apart: an error beyond it is no inaccuracy


@dataclass(frozen=True)
class Similarity:
    """From one world to another: a point x lies at ``scale * rotation @ x + translation``.

    Attributes:
        rotation: (3, 3) float64. translation: (3,) float64, in the target's unit.
        poses: how many it was fitted to.
    """

    scale: float
    rotation: np.ndarray
    translation: np.ndarray
    poses: int

    def points(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 3) points in the target."""
        return self.scale * np.asarray(xyz, np.float64) @ self.rotation.T + self.translation

    def after(self, first: Similarity) -> Similarity:
        """This one, of what another one gives."""
        translation = self.points(first.translation[None])[0]
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, translation, self.poses)

    @property
    def inverse(self) -> Similarity:
        """The way back."""
        scale, rotation = 1 / self.scale, self.rotation.T
        return Similarity(scale, rotation, -scale * rotation @ self.translation, self.poses)

    def pose(self, pose: Pose) -> Pose:
        """cam_from_world of the same camera in the target."""
        rotation = pose.rotation @ self.rotation.T
        return Pose.from_matrix(rotation, -rotation @ self.points(pose.center))


def align(found: Mapping[str, Pose], true: Mapping[str, Pose], queries: Sequence[str]) -> Similarity:
    """The similarity that brings the camera centres of the queries that were found nearest to the true ones.

    Raises:
        InputError: fewer than three poses, or cameras in a line, whose rotation about it nothing tells.
    """
    names = [name for name in queries if name in found]
    if len(names) < 3:
        raise InputError(
            f"{len(names)} poses do not tell how the frames lie", "give three or more, or leave out --align"
        )
    source, target = (np.array([poses[name].center for name in names]) for poses in (found, true))
    for what, centers in (("found", source), ("true", target)):
        if in_line(centers):
            raise InputError(
                f"the {len(names)} {what} camera centres lie in a line or a point, which leaves the alignment open",
                "give poses that lie apart, or leave out --align",
            )
    return fitted(source, target)


def in_line(points: np.ndarray) -> bool:
    """Whether points (N, 3) lie in a line or a point, as good as."""
    length, width, _ = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return not width > max(FLAT * length, ROUNDING * np.abs(points).max())


def fitted(source: np.ndarray, target: np.ndarray) -> Similarity:
    """The similarity that brings points (N, 3) nearest to others, by least squares, in closed form (Umeyama, 1991)."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, stretch, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.linalg.det(u) * np.linalg.det(vt)])
    rotation = (u * sign) @ vt
    scale = float(stretch @ sign / np.square(a).sum())
    return Similarity(scale, rotation, target.mean(axis=0) - scale * rotation @ source.mean(axis=0), len(source))


def robust_similarity(
    found: Sequence[Pose], known: Sequence[np.ndarray | Pose], of: str
) -> tuple[Similarity, np.ndarray]:
    """From the cameras' world to the known one, and (N,) bool of those that agree: by the triple on which most agree,
    then by all that do. Where cameras stand in a line, known poses say how the line is turned.

    Args:
        known: poses, or positions (3,), in the target. of: whose cameras these are, for messages.

    Raises:
        InputError: the cameras leave it open.
    """
    a, b = np.stack([p.center for p in found]), np.stack([center_of(k) for k in known])
    if np.ptp(b, axis=0).max() <= 0:
        raise InputError(f"the cameras of {of} all stand in one place", "give positions that lie apart")
    turn = None
    if in_line(a) or in_line(b) or (isinstance(known[0], Pose) and min(_width(a), _width(b)) < NARROW):
        poses = [k for k in known if isinstance(k, Pose)]
        if len(poses) < len(known):
            raise InputError(
                f"the cameras of {of} stand in a line, which leaves open how the place is turned about it",
                "give poses, or positions that lie apart",
            )
        u, _, vt = np.linalg.svd(sum(k.rotation.T @ p.rotation for k, p in zip(poses, found, strict=True)))
        turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt

    def fit(rows: np.ndarray) -> Similarity | None:
        if turn is None:
            return None if in_line(a[rows]) or in_line(b[rows]) else fitted(a[rows], b[rows])
        x, y = (a[rows] - a[rows].mean(axis=0)) @ turn.T, b[rows] - b[rows].mean(axis=0)
        scale = float((x * y).sum() / max(np.square(x).sum(), 1e-300))
        shift = b[rows].mean(axis=0) - scale * turn @ a[rows].mean(axis=0)
        return Similarity(scale, turn, shift, len(rows)) if scale > 0 else None

    def off(s: Similarity) -> np.ndarray:
        return np.linalg.norm(s.points(a) - b, axis=1)

    rng, best, least = np.random.default_rng(0), None, math.inf
    for _ in range(TRIALS):
        tried = fit(rng.choice(len(a), LEAST, replace=False))
        if tried is not None and (median := float(np.median(off(tried)))) < least:
            best, least = tried, median
    if best is None:
        raise InputError(f"no similarity lays the photos on the cameras of {of}", "check that it is of these photos")
    agree = off(best) <= AGREE * least + 1e-9 * np.abs(b).max()
    return fit(np.flatnonzero(agree)) or best, agree


def _width(points: np.ndarray) -> float:
    """Of a row of points (N, 3), over its length."""
    length, width, _ = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return float(width / length)


def center_of(known: np.ndarray | Pose) -> np.ndarray:
    return known.center if isinstance(known, Pose) else known


def differ_by_similarity(evaluation: Evaluation, found: Mapping[str, Pose], true: Mapping[str, Pose]) -> str | None:
    """The median error of the localized queries once they are aligned, for people, where a similarity is what lies
    between the poses and the true ones; else None."""
    names = [name for name in evaluation.names if name in found]
    if len(names) < TELLING:
        return None
    try:
        similarity = align(found, true, names)
    except InputError:
        return None
    aligned = pose_errors({name: similarity.pose(found[name]) for name in names}, true, names)
    position, rotation = np.median(aligned, axis=0)
    centers, before = np.array([true[name].center for name in names]), evaluation.median_localized[0]
    apart = float(np.linalg.norm(centers - centers.mean(axis=0), axis=1).mean())
    if before < FAR * apart or position > NEARER * before or rotation > TURNED:
        return None
    return errors_text(position, rotation)
