"""From an image to a pose: load ─> the method looks ─> and searches ─> for each of its candidates: pose ─> second look
─> accept?

How landmarks are sought is the method's, see `hfnet_edge.methods`. Everything else is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.errors import CameraError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import Photo, load_photo
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import Candidates, LocalizationConfig, Method, Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.network import Network
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell.one_thread import one_thread
from hfnet_edge.trust.examine import Examined, evidence_of, examine, rival
from hfnet_edge.trust.probability import InTolerance
from hfnet_edge.trust.verdict import decide

PLACES = 3  # candidates that are compared, however good the first is


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
    """The pose of a query that a method has looked at. Raises MapFormatError: the map is damaged where touched.

    The first `PLACES` candidates are compared; further ones are tried until a pose is accepted.
    """
    clock, config, map_ = clock or Clock(), method.config, method.map
    max_error = config.pose.max_error * query.pixel
    candidates = method.candidates(query, clock)
    best = LocalizationResult(candidates.abstention)
    examined: list[Examined] = []
    leader: Examined | None = None
    for batch in _batches(candidates):
        newest: Examined | None = None
        for matches in batch:
            if best.matches is None:
                in_world = replace(matches, xyz=map_.in_world(matches.xyz))
                best = LocalizationResult(Status.TOO_FEW_MATCHES, matches=in_world)
            one = examine(map_, query.features, camera, matches, max_error, config.pose, config.refine_focal, clock)
            if one is not None:
                newest = one
                examined.append(one)
        ahead = max(examined, key=Examined.rank, default=None)
        if ahead is not None and ahead is not leader:
            leader, best = ahead, _judged(method, query, ahead, examined, max_error, clock)
        elif newest is not None and leader is not None and newest.matches.found_by != leader.matches.found_by:
            # Of another method: it may have more to say for a pose that keypoints say less for.
            other = _judged(method, query, newest, examined, max_error, clock)
            best = min(best, other, key=lambda result: result.wrong)
        if best.status is Status.LOCALIZED:
            break
    return replace(best, prior_frames=candidates.prior_frames, milliseconds=clock.milliseconds)


def _batches(candidates: Candidates) -> Iterator[Iterable[Match2D3D]]:
    """Candidates that are compared with each other before a pose is given: the first `PLACES`, then one by one."""
    likely = iter(candidates.matches)
    yield islice(likely, PLACES)
    for matches in chain(likely, candidates.further):
        yield (matches,)


def _judged(
    method: Method, query: Query, one: Examined, examined: list[Examined], max_error: float, clock: Clock
) -> LocalizationResult:
    """Accepts a pose or not, and moves it and its matches from the landmarks' frame to the world."""
    map_, config, refined = method.map, method.config, one.refined
    with clock("trust"):
        rival_ = rival(map_, query.features, one, examined, max_error, config.pose)
        evidence, intrinsics = evidence_of(query.features, one, rival_, max_error)
        tolerance = config.tolerance.at(one.depth)
        in_tolerance = InTolerance.of(refined, 0.0 if intrinsics is None else intrinsics.shift, tolerance)
        verdict = decide(evidence, in_tolerance, one.held, config.max_wrong, map_.calibration)
    inliers, camera = refined.inliers, one.camera
    landmarks, pixels = one.matches.xyz[inliers], one.matches.xy[inliers]
    refused = Status.AMBIGUOUS if verdict.ambiguous else Status.REJECTED
    return LocalizationResult(
        Status.LOCALIZED if verdict.accepted else refused,
        map_.from_world(refined.pose) if verdict.accepted else None,
        verdict.probability,
        verdict.wrong,
        tolerance,
        refined.covariance,
        float(np.median(refined.errors[inliers])),
        int(inliers.sum()),
        one.first_inliers,
        one.depth,
        one.first_inliers / one.first_matches,
        float(np.sqrt(np.square(pixels - pixels.mean(axis=0)).sum(axis=1).mean())) / max(camera.width, camera.height),
        np.linalg.svd(landmarks - landmarks.mean(axis=0), compute_uv=False) / np.sqrt(len(landmarks)),
        evidence,
        intrinsics,
        camera,
        matches=replace(one.matches, xyz=map_.in_world(one.matches.xyz)),
        inlier_mask=inliers,
    )
