"""Builds a map from reference images with known poses (HF-Net, section 5.3, "large scale model construction").

    extract ─> select pairs ─> match ─> (refine poses) ─> verify ─> triangulate ─> BuiltMap

From `View` on every length in an image is in *network pixels* (`Features.pixel`), without distortion and relative to
the principal point, so that one threshold suits images of all sizes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.features import Features, extract
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.image.photo import load_photo
from hfnet_edge.map.random_trees import MAX_DIMS
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.description import HYPERCOLUMN_ROLE, Description
from hfnet_edge.networks.network import Network
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.lists import find_images
from hfnet_maps.build.candidates import select_pairs
from hfnet_maps.build.pairs import MIN_MATCHES, Matches, agreement, match_descriptors, verify
from hfnet_maps.build.pose_refinement import Refinement, refine_poses
from hfnet_maps.build.reference import read_reference
from hfnet_maps.build.triangulation import MAX_REPROJECTION, MIN_ANGLE, Tracks, triangulate
from hfnet_maps.build.view import make_view
from hfnet_maps.content import BuiltMap, MapNetworks, ReferenceKeypoints

MIN_AGREEMENT = 0.5  # of matches with the poses: those of SfM reach 0.55 to 0.82, a headset's 0.40


@dataclass(frozen=True)
class BuildReport:
    """What came of a build.

    Attributes:
        images, keypoints: that went in.
        pairs_tried, pairs_verified: of images; verified ones have `MIN_MATCHES` matches that agree with the poses.
        matches: verified 2D-2D matches.
        landmarks, observations: in the map.
        mean_track_length: observations per landmark.
        median_error: of the reprojection, network pixels.
        agreement: of the matches that fit one geometry of their two images, the share within a network pixel of where
            the given poses put them, in the median pair; NaN where no sampled pair has enough of them.
        seconds: by stage.
        refinement: of the poses, where it was asked for.
    """

    images: int
    keypoints: int
    pairs_tried: int
    pairs_verified: int
    matches: int
    landmarks: int
    observations: int
    mean_track_length: float
    median_error: float
    agreement: float
    seconds: dict[str, float]
    refinement: Refinement | None = None

    @property
    def contradicted(self) -> bool:
        """Whether the matches say that the given poses are not exact."""
        return self.agreement < MIN_AGREEMENT


def build_map(
    images: Path,
    reference: Path,
    names: Sequence[str],
    networks: Networks | Network,
    progress: Report = silent,
    refine: bool = False,
    dense: bool = False,
) -> tuple[BuiltMap, BuildReport]:
    """What a map is written from: the named images with the network's features and the reference's cameras and poses.

    Args:
        images: folder that the names are in.
        reference: folder of a COLMAP model.
        names: reference images.
        networks: HF-Net; with a patch network, that describes the landmarks, and HF-Net does the retrieval alone; with
            a retrieval network, that does the retrieval.
        refine: adjust the reference's poses as well; the map then has the adjusted ones.
        dense: give the landmarks hypercolumns, for sparse-to-dense.

    Raises:
        MismatchError: the network has no hypercolumns.
        InputError: the reference is missing or damaged, a name repeats or is not in it, or nothing can be triangulated.
        CameraError: a camera's model is not supported, or of another size than its image.
        ImageError: an image is missing or does not decode.
    """
    networks = Networks.of(networks)
    check_networks(networks, dense)
    model_of_place = read_reference(reference)
    repeated = {name for name in names if list(names).count(name) > 1}
    if repeated:
        raise InputError(f"the list names {min(repeated)} more than once", "keep one line per image")
    poses = [model_of_place.pose(name) for name in names]
    cameras = [model_of_place.camera(name) for name in names]
    find_images(images, names, "images")
    seconds: dict[str, float] = {}
    features = []
    hypercolumns: list[np.ndarray] = []  # of each image, row by row of its keypoints
    with timed(seconds, "extract"):
        for i, (name, camera) in enumerate(zip(names, cameras, strict=True)):
            progress("extract", i, len(names))
            found, dense_ones = features_of(images / name, camera, networks, dense)
            features.append(found)
            if dense_ones is not None:
                hypercolumns.append(dense_ones)
        progress("extract", len(names), len(names))
    local, retrieval = described_by(networks)
    return map_from_features(
        names, cameras, poses, features, local, progress, seconds, retrieval, refine, hypercolumns or None
    )


def check_networks(networks: Networks, dense: bool) -> None:
    """Raises InputError, MismatchError: what a map is not built with."""
    patches = networks.patches
    if patches is not None and patches.description.local_dim > MAX_DIMS:
        raise InputError(
            f"{patches.path} describes patches by {patches.description.local_dim} numbers",
            f"random trees take {MAX_DIMS} at most",
        )
    if dense:
        _ = networks[HYPERCOLUMN_ROLE]  # raises


def described_by(networks: Networks) -> tuple[Description, Description | None]:
    """The network of the local descriptors, and the one of the global descriptors where that is another."""
    local, global_ = (
        (networks.patches or networks.image).description,
        (networks.retrieval or networks.image).description,
    )
    return local, None if global_ is local else global_


def features_of(path: Path, camera: Camera, networks: Networks, dense: bool) -> tuple[Features, np.ndarray | None]:
    """Of an image, and the hypercolumns at its keypoints (N, H) int8, if they are wanted. Raises ImageError,
    CameraError."""
    found = extract(networks, load_photo(path, networks.image.description.input_size, camera))
    dense_ones = found.hypercolumns.at(found.keypoints) if dense and found.hypercolumns is not None else None
    return replace(found, hypercolumns=None), dense_ones


def map_from_features(
    names: Sequence[str],
    cameras: Sequence[Camera],
    poses: Sequence[Pose],
    features: Sequence[Features],
    description: Description,
    progress: Report = silent,
    seconds: dict[str, float] | None = None,
    retrieval: Description | None = None,
    refine: bool = False,
    hypercolumns: Sequence[np.ndarray] | None = None,
    known: Matches | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> tuple[BuiltMap, BuildReport]:
    """The same from features of any kind that is int8; M images.

    Args:
        names, cameras, poses, features: of each reference image.
        description: of the network that describes the landmarks, for the map's own description.
        seconds: of the stages before this one.
        retrieval: of the network that made the global descriptors, where that is another.
        refine: adjust the poses as well.
        hypercolumns: (N, H) int8 at the keypoints of each image.
        known: matches of pairs that need not be matched again.
        pairs: that are matched, i < j; None: those that `select_pairs` names.

    Raises:
        InputError: nothing can be triangulated. The message says at which stage the matches went.
    """
    seconds = {} if seconds is None else seconds
    if len(names) < 2:
        raise InputError(f"{len(names)} image cannot be triangulated", "list at least two reference images")
    views = [make_view(c, p, f) for c, p, f in zip(cameras, poses, features, strict=True)]
    with timed(seconds, "match"):
        if pairs is None:
            pairs = select_pairs(poses, np.stack([f.global_descriptor for f in features]))
        if not pairs:
            raise InputError(
                "the reference cameras all stand in one place", "triangulation needs cameras that stand apart"
            )
        matches: Matches = {}
        for k, (i, j) in enumerate(pairs):
            progress("match", k, len(pairs))
            if known is not None and (i, j) in known:
                matches[i, j] = known[i, j]
            else:
                matches[i, j] = match_descriptors(features[i].descriptors, features[j].descriptors)
        progress("match", len(pairs), len(pairs))
        agreeing = agreement(views, matches)
    refinement = None
    if refine:
        with timed(seconds, "refine poses"):
            refinement = refine_poses(views, matches, progress)
        poses = refinement.poses
        views = [replace(view, pose=pose) for view, pose in zip(views, poses, strict=True)]
    verified = verify(views, matches)
    if not verified:
        raise InputError(
            f"nothing to triangulate: in none of {len(pairs)} image pairs do {MIN_MATCHES} matches agree with the "
            f"reference poses ({sum(map(len, matches.values()))} matches in all)",
            "check that images, list and reference are of one place, and that the cameras stand apart; poses that are "
            "only about right are refined with --refine-poses",
        )
    with timed(seconds, "triangulate"):
        progress("triangulate", 0, 1)
        tracks = triangulate(views, verified)
        progress("triangulate", 1, 1)
    if not len(tracks.positions):
        raise InputError(
            f"nothing to triangulate: no landmark is seen under {MIN_ANGLE} degrees within {MAX_REPROJECTION:g} pixels",
            "check the reference's poses, and that the cameras stand apart",
        )
    built = _to_built(names, cameras, poses, features, tracks, MapNetworks.of(description, retrieval))
    if hypercolumns is not None:
        built = replace(built, hypercolumns=mean_hypercolumns(hypercolumns, tracks))
    return built, BuildReport(
        images=len(names),
        keypoints=sum(len(f.keypoints) for f in features),
        pairs_tried=len(pairs),
        pairs_verified=len(verified),
        matches=sum(map(len, verified.values())),
        landmarks=len(tracks.positions),
        observations=len(tracks.landmarks),
        mean_track_length=len(tracks.landmarks) / len(tracks.positions),
        median_error=float(np.median(tracks.errors)),
        agreement=agreeing,
        seconds=seconds,
        refinement=refinement,
    )


def _to_built(names, cameras, poses, features, tracks: Tracks, networks: MapNetworks) -> BuiltMap:
    observed = np.zeros((len(tracks.landmarks), 2), np.float32)
    descriptors = np.zeros((len(tracks.landmarks), networks.local_dim), np.int8)
    others = []
    for i, f in enumerate(features):
        rows = np.flatnonzero(tracks.images == i)
        seen = tracks.keypoints[rows]
        observed[rows], descriptors[rows] = f.keypoints[seen], f.descriptors[seen]
        others.append(np.setdiff1d(np.arange(len(f.keypoints)), seen))
    keypoints = ReferenceKeypoints(
        tuple(cameras),
        np.array([f.pixel for f in features], np.float64),
        observed,
        np.cumsum([0, *map(len, others)]),
        np.concatenate([f.keypoints[rows] for f, rows in zip(features, others, strict=True)]).astype(np.float32),
        np.concatenate([f.descriptors[rows] for f, rows in zip(features, others, strict=True)]),
    )
    return BuiltMap(
        networks,
        tuple(names),
        tuple(poses),
        np.stack([f.global_descriptor for f in features]),
        tracks.positions,
        tracks.landmarks,
        tracks.images,
        descriptors,
        keypoints,
    )


def mean_hypercolumns(hypercolumns: Sequence[np.ndarray], tracks: Tracks) -> np.ndarray:
    """(L, H) int8: the mean of each landmark's, at all keypoints that observe it."""
    sums = np.zeros((len(tracks.positions), hypercolumns[0].shape[1]), np.int64)
    for image, rows in enumerate(hypercolumns):
        seen = tracks.images == image
        np.add.at(sums, tracks.landmarks[seen], rows[tracks.keypoints[seen]])
    return quantize(sums)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Adds what a stage takes."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
