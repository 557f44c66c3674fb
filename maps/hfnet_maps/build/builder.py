"""Builds a map from reference images with known poses (HF-Net, section 5.3, "large scale model construction").

    extract ─> select pairs ─> match ─> verify ─> triangulate ─> Source

"i) we perform 2D-2D matching between reference frames using our features and an initial filtering ratio test; ii) the
matches are further filtered within COLMAP using two-view geometry; iii) 3D points are triangulated using the provided
ground truth reference poses." Step ii uses the known poses in place of estimated geometry: nothing can be more exact.

From `View` on every length in an image is in *network pixels* (`Features.pixel`), without distortion and relative to
the principal point, so that one threshold suits images of all sizes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap

from hfnet_edge.errors import InputError
from hfnet_edge.features import Features, extract
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.photo import load_photo
from hfnet_edge.map.random_trees import MAX_DIMS
from hfnet_edge.methods.matching import nearest_two
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.model import Model
from hfnet_edge.networks.patch_model import PatchModel
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.lists import find_images
from hfnet_maps.build.reference import read_reference
from hfnet_maps.source import Extractor, Photos, Source

ALL_PAIRS = 60  # up to so many images every pair is matched: 1770 pairs, minutes
SIMILAR = 20  # beyond: partners by global descriptor, ...
NEAR = 20  # ... and by pose
MAX_TURN = 60.0  # degrees between the viewing directions of partners by pose
RATIO_PERCENT = 95  # of the second nearest's distance; loose, because the poses filter better than any ratio
MAX_EPIPOLAR = 3.0  # network pixels, in both images
MIN_MATCHES = 15  # verified matches of a pair, as in COLMAP: a few wrong ones always lie on the epipolar line
MAX_REPROJECTION = 4.0  # network pixels
MIN_ANGLE = 1.5  # degrees between the two rays of a track that differ most
ROUNDS = 3  # of adjustment and filtering
SEED = 0


@dataclass(frozen=True)
class View:
    """What triangulation needs of a reference image.

    Attributes:
        pose: cam_from_world.
        xy: (N, 2) float64 keypoints in network pixels, without distortion, from the principal point.
        focal: (2,) float64, network pixels. A point (x, y, z) of the camera's frame is seen at focal * (x, y) / z.
    """

    pose: Pose
    xy: np.ndarray
    focal: np.ndarray


@dataclass(frozen=True)
class Tracks:
    """Landmarks and who observes them; L landmarks, O observations, each image at most once per landmark.

    Attributes:
        positions: (L, 3) float64, world.
        landmarks: (O,) int64, non-decreasing rows of ``positions``.
        images: (O,) int64.
        keypoints: (O,) int64, rows of that image's keypoints.
        errors: (O,) float64 reprojection errors, network pixels.
    """

    positions: np.ndarray
    landmarks: np.ndarray
    images: np.ndarray
    keypoints: np.ndarray
    errors: np.ndarray


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
        seconds: by stage.
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
    seconds: dict[str, float]


def build_map(
    images: Path,
    reference: Path,
    names: Sequence[str],
    model: Model,
    progress: Report = silent,
    patch_model: PatchModel | None = None,
) -> tuple[Source, BuildReport]:
    """What a map is written from: the named images with the network's features and the reference's cameras and poses.

    Args:
        images: folder that the names are in.
        reference: folder of a COLMAP model.
        names: reference images.
        patch_model: describes the landmarks in place of ``model``, which then does the retrieval alone.

    Raises:
        InputError: the reference is missing or damaged, a name repeats or is not in it, or nothing can be triangulated.
        CameraError: a camera's model is not supported, or of another size than its image.
        ImageError: an image is missing or does not decode.
    """
    if patch_model is not None and patch_model.description.local_dim > MAX_DIMS:
        raise InputError(
            f"{patch_model.path} describes patches by {patch_model.description.local_dim} numbers",
            f"random trees take {MAX_DIMS} at most",
        )
    model_of_place = read_reference(reference)
    repeated = {name for name in names if list(names).count(name) > 1}
    if repeated:
        raise InputError(f"the list names {min(repeated)} more than once", "keep one line per image")
    poses = [model_of_place.pose(name) for name in names]
    cameras = [model_of_place.camera(name) for name in names]
    find_images(images, names, "images")
    seconds: dict[str, float] = {}
    features = []
    with _timed(seconds, "extract"):
        for i, (name, camera) in enumerate(zip(names, cameras, strict=True)):
            progress("extract", i, len(names))
            photo = load_photo(images / name, model.description.input_size, camera)
            features.append(extract(model, photo, patch_model=patch_model))
        progress("extract", len(names), len(names))
    patches = None if patch_model is None else patch_model.description
    return map_from_features(names, cameras, poses, features, model.description, progress, seconds, patches)


def map_from_features(
    names: Sequence[str],
    cameras: Sequence[Camera],
    poses: Sequence[Pose],
    features: Sequence[Features],
    description: Description,
    progress: Report = silent,
    seconds: dict[str, float] | None = None,
    patches: Description | None = None,
) -> tuple[Source, BuildReport]:
    """The same from features of any kind that is int8; M images.

    Args:
        names, cameras, poses, features: of each reference image.
        description: of the extractor, for the map's own description.
        seconds: of the stages before this one.
        patches: of the patch network, where it made the local descriptors.

    Raises:
        InputError: nothing can be triangulated. The message says at which stage the matches went.
    """
    seconds = {} if seconds is None else seconds
    if len(names) < 2:
        raise InputError(f"{len(names)} image cannot be triangulated", "list at least two reference images")
    views = [make_view(c, p, f) for c, p, f in zip(cameras, poses, features, strict=True)]
    with _timed(seconds, "match"):
        pairs = select_pairs(poses, np.stack([f.global_descriptor for f in features]))
        if not pairs:
            raise InputError(
                "the reference cameras all stand in one place", "triangulation needs cameras that stand apart"
            )
        verified: dict[tuple[int, int], np.ndarray] = {}
        proposed = 0
        for k, (i, j) in enumerate(pairs):
            progress("match", k, len(pairs))
            matches = match_descriptors(features[i].descriptors, features[j].descriptors)
            proposed += len(matches)
            matches = matches[agree_with_poses(views[i], views[j], matches)]
            if len(matches) >= MIN_MATCHES:
                verified[i, j] = matches
        progress("match", len(pairs), len(pairs))
    if not verified:
        raise InputError(
            f"nothing to triangulate: in none of {len(pairs)} image pairs do {MIN_MATCHES} matches agree with the "
            f"reference poses ({proposed} matches in all)",
            "check that images, list and reference are of one place, and that the cameras stand apart",
        )
    with _timed(seconds, "triangulate"):
        progress("triangulate", 0, 1)
        tracks = triangulate(views, verified)
        progress("triangulate", 1, 1)
    if not len(tracks.positions):
        raise InputError(
            f"nothing to triangulate: no landmark is seen under {MIN_ANGLE} degrees within {MAX_REPROJECTION:g} pixels",
            "check the reference's poses, and that the cameras stand apart",
        )
    source = _to_source(names, cameras, poses, features, tracks, Extractor.of(description, patches))
    return source, BuildReport(
        images=len(names),
        keypoints=sum(len(f.keypoints) for f in features),
        pairs_tried=len(pairs),
        pairs_verified=len(verified),
        matches=sum(len(matches) for matches in verified.values()),
        landmarks=len(tracks.positions),
        observations=len(tracks.landmarks),
        mean_track_length=len(tracks.landmarks) / len(tracks.positions),
        median_error=float(np.median(tracks.errors)),
        seconds=seconds,
    )


def make_view(camera: Camera, pose: Pose, features: Features) -> View:
    """Takes distortion and image size out of an image's keypoints."""
    described = pycolmap.Camera(
        model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
    )
    focal = np.array(camera.focal) / features.pixel
    xy = np.asarray(described.cam_from_img(features.keypoints.reshape(-1, 2))).reshape(-1, 2) * focal
    return View(pose, xy, focal)


def select_pairs(poses: Sequence[Pose], global_descriptors: np.ndarray) -> list[tuple[int, int]]:
    """Image pairs to match, i < j, in order.

    All of them up to `ALL_PAIRS` images; beyond, each image with its `SIMILAR` nearest by global descriptor and its
    `NEAR` nearest by position that look the same way. Equals by lower index. Pairs without a baseline are left out.

    Args:
        global_descriptors: (M, G) int8.
    """
    n = len(poses)
    centers = np.stack([p.center for p in poses])
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    if n <= ALL_PAIRS:
        chosen = np.ones((n, n), bool)
    else:
        directions = np.stack([p.rotation[2] for p in poses])
        turned = directions @ directions.T < np.cos(np.radians(MAX_TURN))
        rows = global_descriptors.astype(np.float32)
        unlike = -(rows @ rows.T)
        chosen = _smallest(unlike, SIMILAR) | _smallest(np.where(turned, np.inf, distance), NEAR)
        chosen |= chosen.T
    chosen &= distance > max(1e-6 * distance.max(), 1e-9 * np.abs(centers).max())  # more than rounding
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(chosen, 1))]


def _smallest(cost: np.ndarray, count: int) -> np.ndarray:
    """(M, M) bool: the ``count`` smallest finite entries of each row, without the diagonal."""
    cost = cost.astype(np.float64)
    np.fill_diagonal(cost, np.inf)
    nearest = np.argsort(cost, axis=1, kind="stable")[:, :count]
    chosen = np.zeros(cost.shape, bool)
    np.put_along_axis(chosen, nearest, True, axis=1)
    return chosen & np.isfinite(cost)


def match_descriptors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mutual nearest neighbours that pass the ratio test in both directions; equals by lower index.

    Args:
        a: (N, D) int8. b: (K, D) int8.

    Returns:
        (P, 2) int64 rows of a and b, in order of a.
    """
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), np.int64)
    nearest, _, d1, d2 = nearest_two(a, b)
    rows = np.flatnonzero(_distinct(d1, d2))
    if not len(rows):
        return np.zeros((0, 2), np.int64)
    columns = np.unique(nearest[rows])  # only these can be mutual: a tenth of the work of the other direction
    back, _, d1, d2 = nearest_two(b[columns], a)
    at = np.searchsorted(columns, nearest[rows])
    mutual = (back[at] == rows) & _distinct(d1, d2)[at]
    return np.stack([rows[mutual], nearest[rows[mutual]]], axis=1)


def _distinct(d1: np.ndarray, d2: np.ndarray) -> np.ndarray:
    """The ratio test on squared distances."""
    return d1 * 100**2 < d2 * RATIO_PERCENT**2


def agree_with_poses(a: View, b: View, matches: np.ndarray) -> np.ndarray:
    """(P,) bool: both keypoints within `MAX_EPIPOLAR` of the other's epipolar line, the point before both cameras.

    Args:
        matches: (P, 2) int64 rows of the views' keypoints.
    """
    rotation = b.pose.rotation @ a.pose.rotation.T
    translation = b.pose.translation - rotation @ a.pose.translation
    tx, ty, tz = translation
    essential = np.array([[0, -tz, ty], [tz, 0, -tx], [-ty, tx, 0]]) @ rotation
    ones = np.ones((len(matches), 1))
    ray_a = np.hstack([a.xy[matches[:, 0]] / a.focal, ones])
    ray_b = np.hstack([b.xy[matches[:, 1]] / b.focal, ones])
    line_b, line_a = ray_a @ essential.T, ray_b @ essential
    off = np.abs((ray_b * line_b).sum(axis=1))
    # A line (l0, l1, l2) on normalised coordinates is (l0 / fx, l1 / fy, l2) on pixels.
    with np.errstate(divide="ignore", invalid="ignore"):
        distance_a = off / np.linalg.norm(line_a[:, :2] / a.focal, axis=1)
        distance_b = off / np.linalg.norm(line_b[:, :2] / b.focal, axis=1)
    # Depths of the point where the rays pass nearest: depth_b * ray_b = depth_a * turned + translation.
    turned = ray_a @ rotation.T
    aa, bb, ab = (turned**2).sum(axis=1), (ray_b**2).sum(axis=1), (turned * ray_b).sum(axis=1)
    at, bt = turned @ translation, ray_b @ translation
    in_front = (ab * bt - bb * at > 0) & (aa * bt - ab * at > 0)  # both over aa * bb - ab**2, which is positive
    return (distance_a < MAX_EPIPOLAR) & (distance_b < MAX_EPIPOLAR) & in_front


def triangulate(views: Sequence[View], matches: dict[tuple[int, int], np.ndarray]) -> Tracks:
    """COLMAP's triangulation with fixed poses and intrinsics; then the points alone are adjusted and filtered.

    Args:
        matches: (P, 2) rows of keypoints by image pair.

    Returns:
        Tracks with reprojection errors below `MAX_REPROJECTION`, seen by two images or more under `MIN_ANGLE` or more.
    """
    model = _colmap_model(views)
    graph = pycolmap.CorrespondenceGraph()
    for i, view in enumerate(views):
        graph.add_image(i, len(view.xy))
    for (i, j), rows in matches.items():
        graph.add_two_view_geometry(i, j, pycolmap.TwoViewGeometry(inlier_matches=rows.astype(np.uint32)))
    graph.finalize()

    observations = pycolmap.ObservationManager(model, graph)
    triangulator = pycolmap.IncrementalTriangulator(graph, model, observations)
    options = pycolmap.IncrementalTriangulatorOptions(
        ignore_two_view_tracks=False,
        min_angle=MIN_ANGLE,
        complete_max_reproj_error=MAX_REPROJECTION,
        merge_max_reproj_error=MAX_REPROJECTION,
        min_focal_length_ratio=0.0,  # the intrinsics are given, not to be judged
        max_focal_length_ratio=np.inf,
        random_seed=SEED,
    )
    for i in range(len(views)):
        triangulator.triangulate_image(options, i)
    triangulator.complete_all_tracks(options)
    triangulator.merge_all_tracks(options)

    for _ in range(ROUNDS):
        observations.filter_all_points3D(MAX_REPROJECTION, MIN_ANGLE)
        if model.num_points3D():
            _adjust_points(model)
    observations.filter_all_points3D(MAX_REPROJECTION, MIN_ANGLE)
    return _tracks(model, views)


def _adjust_points(model: pycolmap.Reconstruction) -> None:
    """Bundle adjustment of the points alone, on one thread so that every run gives the same map."""
    options = pycolmap.BundleAdjustmentOptions(
        refine_focal_length=False,
        refine_principal_point=False,
        refine_extra_params=False,
        refine_rig_from_world=False,
        refine_sensor_from_rig=False,
        print_summary=False,
    )
    options.ceres.min_num_residuals_for_cpu_multi_threading = 2**31 - 1
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.images:
        config.add_image(image_id)
    # Unlike pycolmap.bundle_adjustment this does not log, which no option silences in pycolmap 4.2.
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()


def _colmap_model(views: Sequence[View]) -> pycolmap.Reconstruction:
    """The views as COLMAP's images, with their indices as ids."""
    model = pycolmap.Reconstruction()
    for i, view in enumerate(views):
        half = float(np.ceil(np.nanmax(np.abs(view.xy), initial=1.0)))  # COLMAP counts pixels from a corner
        camera = pycolmap.Camera(
            camera_id=i, model="PINHOLE", width=int(2 * half), height=int(2 * half), params=[*view.focal, half, half]
        )
        model.add_camera_with_trivial_rig(camera)
        w, x, y, z = view.pose.quaternion
        cam_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([x, y, z, w])), view.pose.translation)
        image = pycolmap.Image(name=str(i), keypoints=view.xy + half, camera_id=i, image_id=i)
        model.add_image_with_trivial_frame(image, cam_from_world)
    return model


def _tracks(model: pycolmap.Reconstruction, views: Sequence[View]) -> Tracks:
    """Reads the points in order of their ids; of two keypoints of an image on one landmark the nearer stays."""
    points = [point for _, point in sorted(model.points3D.items())]
    positions = np.array([point.xyz for point in points]).reshape(-1, 3)
    elements = np.array(
        [(k, e.image_id, e.point2D_idx) for k, point in enumerate(points) for e in point.track.elements], np.int64
    ).reshape(-1, 3)
    errors = np.zeros(len(elements))
    for i, view in enumerate(views):
        rows = np.flatnonzero(elements[:, 1] == i)
        seen = view.pose.transform(positions[elements[rows, 0]])
        errors[rows] = np.linalg.norm(seen[:, :2] / seen[:, 2:] * view.focal - view.xy[elements[rows, 2]], axis=1)
    order = np.lexsort((elements[:, 2], errors, elements[:, 1], elements[:, 0]))
    elements, errors = elements[order], errors[order]
    first = np.ones(len(elements), bool)
    first[1:] = (elements[1:, :2] != elements[:-1, :2]).any(axis=1)
    elements, errors = elements[first], errors[first]

    kept, landmarks = np.unique(elements[:, 0], return_inverse=True)
    return Tracks(positions[kept], landmarks, elements[:, 1], elements[:, 2], errors)


def _to_source(names, cameras, poses, features, tracks: Tracks, extractor: Extractor) -> Source:
    keypoints = np.zeros((len(tracks.landmarks), 2), np.float32)
    descriptors = np.zeros((len(tracks.landmarks), extractor.local_dim), np.int8)
    others = []
    for i, f in enumerate(features):
        rows = np.flatnonzero(tracks.images == i)
        seen = tracks.keypoints[rows]
        keypoints[rows], descriptors[rows] = f.keypoints[seen], f.descriptors[seen]
        others.append(np.setdiff1d(np.arange(len(f.keypoints)), seen))
    photos = Photos(
        tuple(cameras),
        np.array([f.pixel for f in features], np.float64),
        keypoints,
        np.cumsum([0, *map(len, others)]),
        np.concatenate([f.keypoints[rows] for f, rows in zip(features, others, strict=True)]).astype(np.float32),
        np.concatenate([f.descriptors[rows] for f, rows in zip(features, others, strict=True)]),
    )
    return Source(
        extractor,
        tuple(names),
        tuple(poses),
        np.stack([f.global_descriptor for f in features]),
        tracks.positions,
        tracks.landmarks,
        tracks.images,
        tracks.landmarks,
        descriptors,
        photos,
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
