"""From an image to a pose: load ─> the method looks ─> and searches ─> for each of its candidates: pose ─> accept?

How landmarks are sought is the method's, see `hfnet_edge.methods`. Everything else is here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.errors import CameraError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import Photo, load_photo
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig, Method, Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.network import Network
from hfnet_edge.pose import PoseEstimate, estimate_pose
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell.one_thread import one_thread


@dataclass(frozen=True)
class Stages:
    """All that the pipeline makes of one photo, in order."""

    photo: Photo
    query: Query
    result: LocalizationResult


class Localizer:
    """Localizes photos in one map with the networks that made its features.

    Threads may share a localizer, a map and a network: every call answers for its own photo, with the bits that it gets
    alone. Networks then run in an interpreter for each call, see `hfnet_edge.networks.network.Network`.

    Args:
        map_: a `.hfmap` file or an open map.
        networks: `.tflite` files or loaded networks, in any order: HF-Net, and the patch network where one describes
            the landmarks.

    Raises:
        MapFormatError, ModelError: a file is missing or damaged.
        MismatchError: they do not belong together, or the map lacks what the method searches in.
        InputError: there is no such method.
    """

    def __init__(
        self,
        map_: LocalizationMap | Path | str,
        *networks: Network | Path | str,
        config: LocalizationConfig | None = None,
    ):
        self.networks = Networks(*networks)
        self.map = map_ if isinstance(map_, LocalizationMap) else LocalizationMap.open(map_)
        self.config = config or LocalizationConfig()
        self.method = open_method(self.map, self.networks, self.config)

    def localize(self, image: Path | str, camera: Camera) -> LocalizationResult:
        """The pose of one photo.

        Raises:
            ImageError, CameraError: the image cannot be read, or the camera is of another size.
            MapFormatError: the map is damaged where the query touches it. ModelError: a network fails.
        """
        return self.stages(image, camera).result

    def stages(self, image: Path | str, camera: Camera) -> Stages:
        """As `localize`, with what was made on the way."""
        if not isinstance(camera, Camera):
            raise CameraError(f"{camera!r} is not a Camera", 'write Camera.parse("PINHOLE width height fx fy cx cy")')
        clock = Clock()
        with one_thread():
            with clock("load"):
                photo = load_photo(image, self.method.input_size, camera)
            query = self.method.look(photo, clock)
            return Stages(photo, query, localize_query(self.method, query, camera, clock))


def localize_features(
    map_: LocalizationMap,
    features: Features,
    camera: Camera,
    config: LocalizationConfig | None = None,
) -> LocalizationResult:
    """The pose for features that are already there: everything after the networks.

    Raises:
        MapFormatError: the map is damaged where the query touches it.
        MismatchError: the map lacks what the method searches in.
    """
    method = open_method(map_, None, config or LocalizationConfig())
    return localize_query(method, Query(features.pixel, features), camera)


def localize_query(method: Method, query: Query, camera: Camera, clock: Clock | None = None) -> LocalizationResult:
    """The pose of a query that a method has looked at. Raises MapFormatError: the map is damaged where touched."""
    clock, config = clock or Clock(), method.config.pose
    candidates = method.candidates(query, clock)
    best = LocalizationResult(
        candidates.abstention, prior_frames=candidates.prior_frames, milliseconds=clock.milliseconds
    )
    for matches in candidates.matches:
        with clock("pose"):
            estimate = estimate_pose(matches, camera, config.max_error * query.pixel, config)
        result = _judged(method.map, matches, estimate, config.min_inliers)
        if best.matches is None or result.pose is not None or result.inliers > best.inliers:
            best = replace(result, prior_frames=candidates.prior_frames, milliseconds=clock.milliseconds)
        if best.status is Status.LOCALIZED:
            break
    return best


def _judged(
    map_: LocalizationMap, matches: Match2D3D, estimate: PoseEstimate | None, min_inliers: int
) -> LocalizationResult:
    """Accepts a pose by its inliers, and moves it and the matches from the landmarks' frame to the world."""
    matches = replace(matches, xyz=map_.in_world(matches.xyz))
    if estimate is None:
        return LocalizationResult(Status.TOO_FEW_MATCHES, matches=matches)
    inliers, pose = int(estimate.inliers.sum()), estimate.pose
    return LocalizationResult(
        Status.LOCALIZED if pose is not None and inliers >= min_inliers else Status.REJECTED,
        None if pose is None or inliers < min_inliers else map_.from_world(pose),
        inliers,
        0.0 if pose is None else 1 - 0.5 ** (inliers / min_inliers),
        matches=matches,
        inlier_mask=estimate.inliers,
    )
