"""From an image to a pose, by one of several methods.

hierarchical (HF-Net, figure 2):
    load ─> extract ─> decode ─> retrieve ─> cluster ─> for each place: match ─> pose ─> accept?
parallel (paper 002, figure 3), in a map whose landmarks a patch network describes:
    load ─> extract ─> describe ─> retrieve, walk trees ─> search ─> pose ─> accept?
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path

import numpy as np

from hfnet_edge.errors import CameraError, InputError, SearchLimitError
from hfnet_edge.features import Features, decode, extract_patches
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.photo import Photo, load_photo
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import Order, RandomTrees
from hfnet_edge.methods.covisibility import cluster
from hfnet_edge.methods.matching import Match2D3D, match
from hfnet_edge.methods.parallel_search import search, seen_by
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.networks.model import Model, RawOutputs, check_match
from hfnet_edge.networks.patch_model import PatchModel
from hfnet_edge.pose import PoseConfig, PoseEstimate, estimate_pose
from hfnet_edge.shell.one_thread import one_thread


class Method(StrEnum):
    """How landmarks are sought for a query's keypoints. The names in brackets are paper 002's."""

    HIERARCHICAL = "hierarchical"  # in the places that the prior frames show, one place at a time
    RETRIEVAL = "retrieval"  # among all landmarks that the prior frames observe (IR)
    TREES = "trees"  # in the prior leaves of random trees (RT_AP)
    TREES_ABSOLUTE = "trees-absolute"  # the same, leaves in the order of absolute values (RT)
    PARALLEL = "parallel"  # in prior leaves and prior frames (ParallelSearch)


WITH_TREES = {
    Method.TREES: Order.PROBABILITY,
    Method.TREES_ABSOLUTE: Order.ABSOLUTE,
    Method.PARALLEL: Order.PROBABILITY,
}
WITH_FRAMES = (Method.HIERARCHICAL, Method.RETRIEVAL, Method.PARALLEL)


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
        inliers: number of inliers of the best place, also when it was rejected.
        confidence: 0 without inliers or where they hold no pose, 0.5 at the least number that is accepted, towards 1
            above.
        prior_frames: (K,) retrieved reference images, most similar first.
        matches: 2D-3D matches of the best place, ``xyz`` in the world as the pose is; None where none was tried.
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
        method: see `Method`.
        prior_frame_count: reference images that are retrieved. None: as the papers have it, 10 for the hierarchical
            method (000, appendix C.2), 20 for the others (002, section 4.3).
        prior_leaf_count: leaves of the random trees that are searched for each keypoint (002, section 4.2: 100).
        pose: the solver's.
    """

    method: Method = Method.HIERARCHICAL
    prior_frame_count: int | None = None
    prior_leaf_count: int = 100
    pose: PoseConfig = field(default_factory=PoseConfig)

    def __post_init__(self) -> None:
        for name in ("prior_frame_count", "prior_leaf_count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}", "give 1 or more, or choose another method")

    @property
    def frames(self) -> int:
        """Reference images that are retrieved."""
        if self.prior_frame_count is not None:
            return self.prior_frame_count
        return 10 if self.method is Method.HIERARCHICAL else 20


class Localizer:
    """Localizes photos in one map with one model, or with two where a patch network describes the landmarks.

    Threads may share a localizer, a map and a model: every call answers for its own photo, with the bits that it gets
    alone. Networks then run in an interpreter for each call, see `hfnet_edge.networks.model.Network`.

    Args:
        m: a `.hfmap` file or an open map. model, patch_model: a `.tflite` file or a loaded model.

    Raises:
        MapFormatError, ModelError: a file is missing or damaged.
        MismatchError: they do not belong together, or the map lacks the trees that the method walks.
    """

    def __init__(
        self,
        m: LocalizationMap | Path | str,
        model: Model | Path | str,
        config: LocalizationConfig | None = None,
        patch_model: PatchModel | Path | str | None = None,
    ):
        self.model = Model(model) if isinstance(model, str | Path) else model
        self.patch_model = PatchModel(patch_model) if isinstance(patch_model, str | Path) else patch_model
        self.map = m if isinstance(m, LocalizationMap) else LocalizationMap.open(m)
        patches = None if self.patch_model is None else self.patch_model.description
        check_match(self.model.description, self.map, patches)
        self.config = config or LocalizationConfig()
        self.trees = RandomTrees.of(self.map) if self.config.method in WITH_TREES else None

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
        with one_thread():
            return self._stages(image, camera, Clock())

    def _stages(self, image: Path | str, camera: Camera, clock: Clock) -> Stages:
        with clock("load"):
            photo = load_photo(image, self.model.description.input_size, camera)
        with clock("extract"):
            raw = self.model(photo.pixels)
        if self.patch_model is None:
            with clock("decode"):
                features = decode(raw, photo, self.model.description.nms_radius)
        else:
            with clock("describe"):
                features = extract_patches(self.patch_model, raw, photo)
        result = localize_features(self.map, features, camera, self.config, clock, self.trees)
        return Stages(photo, raw, features, result)


def localize_features(
    m: LocalizationMap,
    query: Features,
    camera: Camera,
    config: LocalizationConfig | None = None,
    clock: Clock | None = None,
    trees: RandomTrees | None = None,
) -> LocalizationResult:
    """The pose for features that are already there: everything after the networks.

    Args:
        trees: of the map, if they are open already.

    Raises:
        MapFormatError: the map is damaged where the query touches it.
        MismatchError: the method walks trees, and the map has none that fit.
    """
    config, clock = config or LocalizationConfig(), clock or Clock()
    if not len(query.keypoints):
        return LocalizationResult(Status.NO_KEYPOINTS, milliseconds=clock.milliseconds)
    priors = np.zeros(0, np.int64)
    if config.method in WITH_FRAMES:
        with clock("retrieve"):
            priors = retrieve(m.global_query(query.global_descriptor), m.global_descriptors, config.frames)
    if config.method is Method.HIERARCHICAL:
        candidates = _places(m, query, priors, clock)
    else:
        try:
            candidates = _parallel(m, query, priors, config, clock, trees)
        except SearchLimitError:
            return LocalizationResult(Status.SEARCH_LIMIT, prior_frames=priors, milliseconds=clock.milliseconds)

    best = LocalizationResult(Status.NO_CANDIDATES, prior_frames=priors, milliseconds=clock.milliseconds)
    for matches in candidates:
        with clock("pose"):
            estimate = estimate_pose(matches, camera, config.pose.max_error * query.pixel, config.pose)
        result = _judged(m, priors, matches, estimate, config.pose.min_inliers, clock)
        if best.matches is None or result.pose is not None or result.inliers > best.inliers:
            best = result
        if best.status is Status.LOCALIZED:
            break
    return best


def _places(m: LocalizationMap, query: Features, priors: np.ndarray, clock: Clock) -> Iterator[Match2D3D]:
    """The matches in each place that the prior frames show, the largest place first."""
    with clock("cluster"):
        places = [place for place in cluster(m, priors) if len(place.landmarks)]
    for place in places:
        with clock("match"):
            matches = match(query, m, place.landmarks)
        yield matches


def _parallel(
    m: LocalizationMap,
    query: Features,
    priors: np.ndarray,
    config: LocalizationConfig,
    clock: Clock,
    trees: RandomTrees | None,
) -> Iterator[Match2D3D]:
    """The matches among the landmarks of prior leaves and prior frames, once; not at all where there are none.
    Raises SearchLimitError."""
    own: Iterable[tuple[np.ndarray, np.ndarray]] = ()
    any_own = False
    if config.method in WITH_TREES:
        with clock("trees"):
            trees = trees or RandomTrees.of(m)
            leaves = trees.prior_leaves(query.descriptors, config.prior_leaf_count, WITH_TREES[config.method])
            own, any_own = trees.blocks(leaves), bool(trees.held(leaves).any())
    with clock("match"):
        shared = seen_by(m, priors)
        matches = search(query, m, shared, own)
    return iter([matches] if len(shared) or any_own else [])


def _judged(
    m: LocalizationMap,
    priors: np.ndarray,
    matches: Match2D3D,
    estimate: PoseEstimate | None,
    min_inliers: int,
    clock: Clock,
) -> LocalizationResult:
    """Accepts a pose by its inliers, and moves it and the matches from the landmarks' frame to the world."""
    matches = replace(matches, xyz=matches.xyz + m.origin)
    if estimate is None:
        return LocalizationResult(Status.TOO_FEW_MATCHES, None, 0, 0.0, priors, matches, None, clock.milliseconds)
    inliers, pose = int(estimate.inliers.sum()), estimate.pose
    confidence = 0.0 if pose is None else 1 - 0.5 ** (inliers / min_inliers)
    if pose is not None:
        pose = Pose(pose.quaternion, pose.translation - pose.rotation @ m.origin) if inliers >= min_inliers else None
    return LocalizationResult(
        Status.REJECTED if pose is None else Status.LOCALIZED,
        pose,
        inliers,
        confidence,
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
        try:
            yield
        finally:
            self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
