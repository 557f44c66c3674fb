"""What a query ends with: a pose, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Pose


class Status(Enum):
    """How a query ended."""

    LOCALIZED = "LOCALIZED"
    NO_KEYPOINTS = "NO_KEYPOINTS"  # a black, blurred or overexposed image
    NO_CANDIDATES = "NO_CANDIDATES"  # no reference image, or none that sees a landmark
    TOO_FEW_MATCHES = "TOO_FEW_MATCHES"  # in every place
    REJECTED = "REJECTED"  # a pose was found, but too few inliers support it, or they do not hold it
    SEARCH_LIMIT = "SEARCH_LIMIT"  # the map's random trees ask for more work than any made in good faith


@dataclass(frozen=True)
class LocalizationResult:
    """A pose, or the reason why there is none; never the retrieved image's pose in its stead.

    Attributes:
        status: LOCALIZED, or the reason.
        pose: cam_from_world, or None.
        inliers: number of inliers of the best candidates, also when they were rejected.
        confidence: 0 without inliers or where they hold no pose, 0.5 at the least number that is accepted, towards 1
            above.
        prior_frames: (K,) retrieved reference images, most similar first.
        matches: 2D-3D matches of the best candidates, ``xyz`` in the world as the pose is; None where none was tried.
        inlier_mask: (N,) bool, over the matches; None where no pose was found.
        milliseconds: by stage.
    """

    status: Status
    pose: Pose | None = None
    inliers: int = 0
    confidence: float = 0.0
    prior_frames: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    matches: Match2D3D | None = None
    inlier_mask: np.ndarray | None = None
    milliseconds: dict[str, float] = field(default_factory=dict)
