"""Hierarchical localization, from an image to a pose (HF-Net, figure 2).

load ─> extract ─> decode ─> retrieve ─> cluster ─> for each place: match ─> pose ─> accept?
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import numpy as np

from hfnet_edge.covisibility import cluster
from hfnet_edge.features import Features, decode
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image import load_photo
from hfnet_edge.map_file import LocalizationMap
from hfnet_edge.matching import Match2D3D, match
from hfnet_edge.model import Model, check_match
from hfnet_edge.pose import PoseConfig, estimate_pose
from hfnet_edge.retrieval import retrieve


class Status(Enum):
    """How a query ended."""

    LOCALIZED = "LOCALIZED"
    NO_KEYPOINTS = "NO_KEYPOINTS"  # a black, blurred or overexposed image
    NO_CANDIDATES = "NO_CANDIDATES"  # no reference image, or none that sees a landmark
    TOO_FEW_MATCHES = "TOO_FEW_MATCHES"  # in every place
    REJECTED = "REJECTED"  # a pose was found, but too few inliers support it


@dataclass(frozen=True)
class LocalizationResult:
    """A pose, or the reason why there is none; never the retrieved image's pose in its stead.

    Attributes:
        status: LOCALIZED, or the reason.
        pose: cam_from_world, or None.
        inliers: number of inliers of the best place, also when it was rejected.
        confidence: 0 without inliers, 0.5 at the least number that is accepted, towards 1 above.
        prior_frames: (K,) retrieved reference images, most similar first.
        matches: 2D-3D matches of the best place, with ``inlier_mask`` (N,) bool; None where none was tried.
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


class Localizer:
    """Localizes photos in one map with one model.

    Args:
        m: a `.hfmap` file or an open map. model: a `.tflite` file or a loaded model.
        prior_frames: reference images that are retrieved (appendix C.2: 10).
        pose_config: the solver's settings.

    Raises:
        MapFormatError, ModelError: a file is missing or damaged. MismatchError: they do not belong together.
    """

    def __init__(
        self,
        m: LocalizationMap | Path | str,
        model: Model | Path | str,
        prior_frames: int = 10,
        pose_config: PoseConfig = PoseConfig(),  # noqa: B008 (frozen)
    ):
        self.model = model if isinstance(model, Model) else Model(model)
        self.map = m if isinstance(m, LocalizationMap) else LocalizationMap.open(m)
        check_match(self.model.description, self.map)
        self.prior_frames, self.pose_config = prior_frames, pose_config

    def localize(self, image: Path | str, camera: Camera) -> LocalizationResult:
        """The pose of one photo.

        Raises:
            ImageError, CameraError: the image cannot be read, or the camera is of another size.
        """
        clock = Clock()
        with clock("load"):
            photo = load_photo(image, self.model.description.input_size, camera)
        with clock("extract"):
            raw = self.model(photo.pixels)
        with clock("decode"):
            features = decode(raw, photo, self.model.description.nms_radius)
        return self.localize_features(features, camera, clock)

    def localize_features(self, features: Features, camera: Camera, clock: Clock | None = None) -> LocalizationResult:
        """The pose for features that are already there: everything after the network."""
        clock = clock or Clock()
        if not len(features.keypoints):
            return LocalizationResult(Status.NO_KEYPOINTS, milliseconds=clock.milliseconds)
        with clock("retrieve"):
            priors = retrieve(features.global_descriptor, self.map.global_descriptors, self.prior_frames)
        with clock("cluster"):
            places = cluster(self.map, priors)

        best = LocalizationResult(Status.NO_CANDIDATES, prior_frames=priors, milliseconds=clock.milliseconds)
        for place in places:
            with clock("match"):
                matches = match(features, self.map, place)
            with clock("pose"):
                max_error = self.pose_config.max_error * features.pixel
                estimate = estimate_pose(matches, camera, max_error, self.pose_config)
            result = self._judge(matches, estimate, priors, clock)
            if best.status is Status.NO_CANDIDATES or result.inliers > best.inliers:
                best = result
            if best.status is Status.LOCALIZED:
                break
        return best

    def _judge(self, matches, estimate, priors, clock) -> LocalizationResult:
        if estimate is None:
            status = (
                Status.TOO_FEW_MATCHES if len(matches) or len(self.map.landmark_positions) else Status.NO_CANDIDATES
            )
            return LocalizationResult(status, None, 0, 0.0, priors, matches, None, clock.milliseconds)
        inliers, least = int(estimate.inliers.sum()), self.pose_config.min_inliers
        accepted = inliers >= least
        return LocalizationResult(
            Status.LOCALIZED if accepted else Status.REJECTED,
            self._to_world(estimate.pose) if accepted else None,
            inliers,
            1 - 0.5 ** (inliers / least),
            priors,
            matches,
            estimate.inliers,
            clock.milliseconds,
        )

    def _to_world(self, pose: Pose) -> Pose:
        """From the frame of the landmarks (world minus the map's origin) to the world."""
        return Pose(pose.quaternion, pose.translation - pose.rotation @ self.map.origin)


class Clock:
    """Adds up the milliseconds that each stage takes."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
