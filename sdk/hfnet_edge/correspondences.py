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
            rows of the map's landmarks. None where the method has none: scene coordinates are of no landmark.
    """

    xy: np.ndarray
    xyz: np.ndarray
    keypoints: np.ndarray | None = None
    landmarks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.xy)
