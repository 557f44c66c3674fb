"""2D-3D correspondences: what every method returns, and every solver takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Match2D3D:
    """Points of a query and where they are in the place; N of them.

    Attributes:
        xy: (N, 2) float64, query pixels.
        xyz: (N, 3) float64: relative to the map's origin from a method, as the solver wants them; in the world in a
            `hfnet_edge.result.LocalizationResult`.
        keypoints: (N,) int64, rows of the query's `hfnet_edge.features.Features`, increasing. landmarks: (N,) int64,
            rows of the map's landmarks. None where the method has none: scene coordinates are of no landmark, and what
            is searched for in the whole image is found at no keypoint.
        found_by: name of the method, where several were asked; else "".
    """

    xy: np.ndarray
    xyz: np.ndarray
    keypoints: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    found_by: str = ""

    def __len__(self) -> int:
        return len(self.xy)

    def take(self, rows: np.ndarray) -> Match2D3D:
        """Those of ``rows``, indices or (N,) bool."""
        keypoints, landmarks = (None if part is None else part[rows] for part in (self.keypoints, self.landmarks))
        return Match2D3D(self.xy[rows], self.xyz[rows], keypoints, landmarks, self.found_by)

    def join(self, others: Match2D3D) -> Match2D3D:
        """These, then ``others``; both with rows."""
        assert self.keypoints is not None and others.keypoints is not None
        assert self.landmarks is not None and others.landmarks is not None
        return Match2D3D(
            np.concatenate([self.xy, others.xy]),
            np.concatenate([self.xyz, others.xyz]),
            np.concatenate([self.keypoints, others.keypoints]),
            np.concatenate([self.landmarks, others.landmarks]),
            self.found_by,
        )


def no_matches() -> Match2D3D:
    """None at all."""
    empty = np.zeros(0, np.int64)
    return Match2D3D(np.zeros((0, 2)), np.zeros((0, 3)), empty, empty)
