"""One query, twice: in the reference and in the run, with the keypoints that are the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from hfnet_edge.record.recording import QueryRecord

NEAR = 1.0  # network pixels within which two keypoints are the same


class MissingStage(Exception):
    """One of the recordings lacks what a number is made of."""


@dataclass(frozen=True)
class Pair:
    """One query in the reference and in the run.

    Attributes:
        same_map: the landmarks' numbers mean the same in both.
    """

    reference: QueryRecord
    run: QueryRecord
    same_map: bool

    @cached_property
    def paired(self) -> np.ndarray:
        """(P, 2) int64: keypoints of the reference and of the run that are each other's nearest, within `NEAR`. Of
        keypoints at one place, which SIFT has where there are several orientations, the first is paired with the first,
        and so on."""
        a, b = self.reference.features, self.run.features
        if a is None or b is None:
            raise MissingStage
        if not len(a.keypoints) or not len(b.keypoints):
            return np.zeros((0, 2), np.int64)
        limit = NEAR * a.pixel
        apart = [np.column_stack([f.keypoints, 2 * limit * _turn(f.keypoints)]).astype(np.float32) for f in (a, b)]
        near = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(*apart)
        rows = [(m.queryIdx, m.trainIdx) for m in near if m.distance <= limit]
        return np.array(rows, np.int64).reshape(-1, 2)

    @cached_property
    def offset(self) -> np.ndarray:
        """(2,) mean offset of the paired keypoints, run less reference, in network pixels; NaN without pairs."""
        a, b = self.reference.features, self.run.features
        rows = self.paired
        assert a is not None and b is not None, "`paired` has asked"
        if not len(rows):
            return np.full(2, np.nan)
        return (b.keypoints[rows[:, 1]] - a.keypoints[rows[:, 0]]).mean(axis=0) / a.pixel

    @cached_property
    def shift(self) -> np.ndarray:
        """(2,) pixels, median over the reference's inliers: where the run's pose sees their landmarks, less where the
        reference's pose does. A wrong principal point shows as a constant. NaN where either has no pose."""
        m, a, b = self.reference.matched, self.reference.pose, self.run.pose
        if m is None or a is None or b is None or not m.inliers.any():
            return np.full(2, np.nan)
        xyz, camera = m.xyz[m.inliers], self.reference.camera
        return np.median(camera.project(b.transform(xyz)) - camera.project(a.transform(xyz)), axis=0)


def _turn(keypoints: np.ndarray) -> np.ndarray:
    """(N,) int64: how many of the rows before it are equal to a row of (N, 2)."""
    _, place, count = np.unique(keypoints, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(place.ravel(), kind="stable")
    turn = np.empty(len(keypoints), np.int64)
    turn[order] = np.arange(len(keypoints)) - np.repeat(np.cumsum(count) - count, count)
    return turn
