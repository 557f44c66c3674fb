"""What a query ends with: a pose and how far it is to be believed, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.intrinsics import IntrinsicsCheck
from hfnet_edge.pose.refinement import Uncertain
from hfnet_edge.trust.evidence import Evidence


class Status(Enum):
    """How a query ended."""

    LOCALIZED = "LOCALIZED"
    COARSE = (
        "COARSE"  # by the method retrieval-pose: a reference image that looks alike, and nothing of the query itself
    )
    NO_KEYPOINTS = "NO_KEYPOINTS"  # a black, blurred or overexposed image
    NO_CANDIDATES = "NO_CANDIDATES"  # no reference image, or none that sees a landmark
    TOO_FEW_MATCHES = "TOO_FEW_MATCHES"  # in every place
    REJECTED = "REJECTED"  # a pose was found, but what speaks for it is not enough
    AMBIGUOUS = "AMBIGUOUS"  # a pose is well supported, but so is another, or its inliers leave it free to move
    SEARCH_LIMIT = "SEARCH_LIMIT"  # the map's random trees ask for more work than any made in good faith


@dataclass(frozen=True)
class LocalizationResult(Uncertain):
    """A pose, or the reason why there is none; the retrieved image's pose is never given in its stead.

    What describes the best candidate is there also where it was refused.

    Attributes:
        status: LOCALIZED, or the reason.
        pose: cam_from_world, or None.
        probability: that the pose is within ``tolerance`` of the truth, 0 to 1.
        wrong: the probability that it is wrong altogether, by more than 5 % of the scene's depth or by 10 degrees; what
            `LocalizationConfig.max_wrong` bounds.
        tolerance: position, map units, and rotation, degrees.
        covariance: (6, 6) float64 of the pose; None without one, or where the inliers leave a direction open. In the
            tangent space of `hfnet_edge.pose.refinement`: rotation in radians, then translation in map units, along
            the camera's axes, from the left.
        reprojection_error: median over the inliers, pixels; NaN without.
        inliers: their number, after the second look.
        first_inliers: inliers of the method's own matches, before the second look. inlier_ratio: of these matches.
        depth: median distance of the inliers' landmarks along the line of sight, map units.
        image_spread: root mean squared distance of the inliers from their middle, over the image's longer side.
        world_spread: (3,) standard deviations of their landmarks along their principal axes, map units, largest first.
        evidence: what the probabilities were told from; None without a candidate.
        intrinsics: what the inliers say of the camera; None: nothing.
        camera: that the pose is of; not the stated one where its focal length was to be found.
        coarse: the pose of the most similar reference image, with COARSE alone; `pose` is then None.
        prior_frames: (K,) retrieved reference images, most similar first.
        tile: of a place in tiles, the number of the one that the best candidate is of; None: the map is of one file.
        matches: 2D-3D matches of the best candidate, ``xyz`` in the world as the pose is; None where none was tried.
        inlier_mask: (N,) bool, over the matches; None where no pose was found.
        rotation: degrees clockwise by which the frame was turned to be looked at, as it was stated or found.
        notes: what a caller should know of a prior that was contradicted or dropped.
        milliseconds: by stage.
    """

    status: Status
    pose: Pose | None = None
    probability: float = 0.0
    wrong: float = 1.0
    tolerance: tuple[float, float] = (0.0, 0.0)
    covariance: np.ndarray | None = None
    reprojection_error: float = math.nan
    inliers: int = 0
    first_inliers: int = 0
    depth: float = math.nan
    inlier_ratio: float = 0.0
    image_spread: float = 0.0
    world_spread: np.ndarray = field(default_factory=lambda: np.zeros(3))
    evidence: Evidence | None = None
    intrinsics: IntrinsicsCheck | None = None
    camera: Camera | None = None
    coarse: Pose | None = None
    prior_frames: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    tile: int | None = None
    matches: Match2D3D | None = None
    inlier_mask: np.ndarray | None = None
    rotation: int = 0
    notes: tuple[str, ...] = ()
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def found_by(self) -> str:
        """The method that found the best candidate, where several were asked (`auto`); else ""."""
        return "" if self.matches is None else self.matches.found_by
