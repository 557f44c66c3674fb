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
from hfnet_edge.errors import CameraError
from hfnet_edge.features import Features, decode
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image import Photo, load_photo
from hfnet_edge.map_file import LocalizationMap
from hfnet_edge.matching import Match2D3D, match
from hfnet_edge.model import Model, RawOutputs, check_match
from hfnet_edge.pose import PoseConfig, PoseEstimate, estimate_pose
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


@dataclass(frozen=True)
class Stages:
    """All that the pipeline makes of one photo, in order."""

    photo: Photo
    raw: RawOutputs
    features: Features
    result: LocalizationResult


@dataclass(frozen=True)
class LocalizationConfig:
    """Settings of the search.

    Attributes:
        prior_frames: reference images that are retrieved (appendix C.2: 10).
        pose: the solver's.
    """

    prior_frames: int = 10
    pose: PoseConfig = field(default_factory=PoseConfig)


class Localizer:
    """Localizes photos in one map with one model.

    Args:
        m: a `.hfmap` file or an open map. model: a `.tflite` file or a loaded model.

    Raises:
        MapFormatError, ModelError: a file is missing or damaged. MismatchError: they do not belong together.
    """

    def __init__(
        self,
        m: LocalizationMap | Path | str,
        model: Model | Path | str,
        config: LocalizationConfig | None = None,
    ):
        self.model = Model(model) if isinstance(model, str | Path) else model
        self.map = m if isinstance(m, LocalizationMap) else LocalizationMap.open(m)
        check_match(self.model.description, self.map)
        self.config = config or LocalizationConfig()

    def localize(self, image: Path | str, camera: Camera) -> LocalizationResult:
        """The pose of one photo.

        Raises:
            ImageError, CameraError: the image cannot be read, or the camera is of another size.
            MapFormatError: the map is damaged where the query touches it.
        """
        return self.stages(image, camera).result

    def stages(self, image: Path | str, camera: Camera) -> Stages:
        """As `localize`, with what each stage made on the way."""
        if not isinstance(camera, Camera):
            raise CameraError(f"{camera!r} is not a Camera", 'write Camera.parse("PINHOLE width height fx fy cx cy")')
        clock = Clock()
        with clock("load"):
            photo = load_photo(image, self.model.description.input_size, camera)
        with clock("extract"):
            raw = self.model(photo.pixels)
        with clock("decode"):
            features = decode(raw, photo, self.model.description.nms_radius)
        return Stages(photo, raw, features, localize_features(self.map, features, camera, self.config, clock))


def localize_features(
    m: LocalizationMap,
    query: Features,
    camera: Camera,
    config: LocalizationConfig | None = None,
    clock: Clock | None = None,
) -> LocalizationResult:
    """The pose for features that are already there: everything after the network.

    Raises:
        MapFormatError: the map is damaged where the query touches it.
    """
    config, clock = config or LocalizationConfig(), clock or Clock()
    if not len(query.keypoints):
        return LocalizationResult(Status.NO_KEYPOINTS, milliseconds=clock.milliseconds)
    with clock("retrieve"):
        priors = retrieve(m.global_query(query.global_descriptor), m.global_descriptors, config.prior_frames)
    with clock("cluster"):
        places = [place for place in cluster(m, priors) if len(place.landmarks)]

    best = LocalizationResult(Status.NO_CANDIDATES, prior_frames=priors, milliseconds=clock.milliseconds)
    for place in places:
        with clock("match"):
            matches = match(query, m, place.landmarks)
        with clock("pose"):
            estimate = estimate_pose(matches, camera, config.pose.max_error * query.pixel, config.pose)
        result = _judged(m, priors, matches, estimate, config.pose.min_inliers, clock)
        if best.matches is None or result.inliers > best.inliers:
            best = result
        if best.status is Status.LOCALIZED:
            break
    return best


def _judged(
    m: LocalizationMap,
    priors: np.ndarray,
    matches: Match2D3D,
    estimate: PoseEstimate | None,
    min_inliers: int,
    clock: Clock,
) -> LocalizationResult:
    """Accepts a pose by its inliers, and moves it from the landmarks' frame to the world."""
    if estimate is None:
        return LocalizationResult(Status.TOO_FEW_MATCHES, None, 0, 0.0, priors, matches, None, clock.milliseconds)
    inliers, pose = int(estimate.inliers.sum()), estimate.pose
    accepted = inliers >= min_inliers
    return LocalizationResult(
        Status.LOCALIZED if accepted else Status.REJECTED,
        Pose(pose.quaternion, pose.translation - pose.rotation @ m.origin) if accepted else None,
        inliers,
        1 - 0.5 ** (inliers / min_inliers),
        priors,
        matches,
        estimate.inliers,
        clock.milliseconds,
    )


class Clock:
    """Adds up the milliseconds that each stage takes."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
