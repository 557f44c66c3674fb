"""Landmarks from verified matches: COLMAP's triangulation with the poses and intrinsics as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pycolmap

from hfnet_edge.geometry import Pose
from hfnet_maps.build.pairs import SEED, Matches
from hfnet_maps.build.view import View

MAX_REPROJECTION = 4.0  # network pixels
MIN_ANGLE = 1.5  # degrees between the two rays of a track that differ most
ROUNDS = 3  # of adjustment and filtering
ROBUST = 0.25  # network pixels, about what a keypoint is off: beyond, an observation pulls less in a robust adjustment
TOLERANCE = 1e-6  # a robust adjustment ends where a step gains less, as a share of the cost


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


def triangulate(views: Sequence[View], matches: Matches) -> Tracks:
    """COLMAP's triangulation with fixed poses and intrinsics; then the points alone are adjusted and filtered.

    Returns:
        Tracks with reprojection errors below `MAX_REPROJECTION`, seen by two images or more under `MIN_ANGLE` or more.
    """
    return read_tracks(triangulated_model(views, matches), views)


def triangulated_model(
    views: Sequence[View], matches: Matches, max_error: float = MAX_REPROJECTION
) -> pycolmap.Reconstruction:
    """`triangulate` up to reprojection errors of ``max_error`` network pixels; image i has the id i."""
    model = colmap_model(views)
    observations, triangulator = triangulation(model, as_geometries(matches))
    options = triangulation_options(max_error, median_focal(views))
    for i in range(len(views)):
        triangulator.triangulate_image(options, i)
    triangulator.complete_all_tracks(options)
    triangulator.merge_all_tracks(options)

    for _ in range(ROUNDS):
        observations.filter_all_points3D(max_error, MIN_ANGLE)
        if model.num_points3D():
            adjust_points(model)
    observations.filter_all_points3D(max_error, MIN_ANGLE)
    return model


def triangulation(
    model: pycolmap.Reconstruction, geometries: Mapping[tuple[int, int], pycolmap.TwoViewGeometry]
) -> tuple[pycolmap.ObservationManager, pycolmap.IncrementalTriangulator]:
    """What filters and what triangulates the points of a model. Args: geometries: by the ids of two of its images."""
    graph = pycolmap.CorrespondenceGraph()
    for i, image in sorted(model.images.items()):
        graph.add_image(i, image.num_points2D())
    for (i, j), geometry in geometries.items():
        graph.add_two_view_geometry(i, j, geometry)
    graph.finalize()
    observations = pycolmap.ObservationManager(model, graph)
    return observations, pycolmap.IncrementalTriangulator(graph, model, observations)


def as_geometries(matches: Matches) -> dict[tuple[int, int], pycolmap.TwoViewGeometry]:
    """Verified matches as COLMAP takes them."""
    return {pair: pycolmap.TwoViewGeometry(inlier_matches=rows.astype(np.uint32)) for pair, rows in matches.items()}


def triangulation_options(max_error: float, focal: float) -> pycolmap.IncrementalTriangulatorOptions:
    """Of tracks up to reprojection errors of ``max_error``. Args: both in network pixels."""
    max_angle = max(2.0, float(np.degrees(np.arctan(max_error / focal))))
    return pycolmap.IncrementalTriangulatorOptions(
        ignore_two_view_tracks=False,
        min_angle=MIN_ANGLE,
        create_max_angle_error=max_angle,
        continue_max_angle_error=max_angle,
        complete_max_reproj_error=max_error,
        merge_max_reproj_error=max_error,
        min_focal_length_ratio=0.0,  # the intrinsics are given, not to be judged
        max_focal_length_ratio=np.inf,
        random_seed=SEED,
    )


def median_focal(views: Sequence[View]) -> float:
    """Focal length of views, network pixels."""
    return float(np.median([view.focal for view in views]))


def adjust_points(model: pycolmap.Reconstruction) -> None:
    """Bundle adjustment of the points alone."""
    # Unlike pycolmap.bundle_adjustment this does not log, which no option silences in pycolmap 4.2.
    pycolmap.create_default_bundle_adjuster(*adjustment(model, poses=False), model).solve()


def adjustment(
    model: pycolmap.Reconstruction, poses: bool
) -> tuple[pycolmap.BundleAdjustmentOptions, pycolmap.BundleAdjustmentConfig]:
    """Of all images' points, and of their ``poses`` or not, on one thread so that every run gives the same map."""
    options = pycolmap.BundleAdjustmentOptions(
        refine_focal_length=False,
        refine_principal_point=False,
        refine_extra_params=False,
        refine_rig_from_world=poses,
        refine_sensor_from_rig=False,
        print_summary=False,
    )
    options.ceres.min_num_residuals_for_cpu_multi_threading = 2**31 - 1
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.images:
        config.add_image(image_id)
    return options, config


def make_robust(options: pycolmap.BundleAdjustmentOptions, pixel: float, steps: int) -> None:
    """Observations pull less beyond `ROBUST`, and an adjustment ends after so many ``steps`` or where one gains little.

    Args:
        pixel: of the network, in pixels of the model.
    """
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = ROBUST * pixel
    options.ceres.solver_options.max_num_iterations = steps
    options.ceres.solver_options.function_tolerance = TOLERANCE
    options.ceres.solver_options.num_threads = 1


def colmap_model(views: Sequence[View]) -> pycolmap.Reconstruction:
    """The views as COLMAP's images, with their indices as ids."""
    model = pycolmap.Reconstruction()
    for i, view in enumerate(views):
        half = float(np.ceil(np.nanmax(np.abs(view.xy), initial=1.0)))  # COLMAP counts pixels from a corner
        camera = pycolmap.Camera(
            camera_id=i, model="PINHOLE", width=int(2 * half), height=int(2 * half), params=[*view.focal, half, half]
        )
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=str(i), keypoints=view.xy + half, camera_id=i, image_id=i)
        model.add_image_with_trivial_frame(image, rigid(view.pose))
    return model


def rigid(pose: Pose) -> pycolmap.Rigid3d:
    """The pose as COLMAP has it."""
    w, x, y, z = pose.quaternion
    return pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([x, y, z, w])), pose.translation)


def of_rigid(transform: pycolmap.Rigid3d) -> Pose:
    """What COLMAP has as our pose."""
    return Pose.from_matrix(transform.rotation.matrix(), transform.translation)


def pose_of(model: pycolmap.Reconstruction, image_id: int) -> Pose:
    """cam_from_world of an image."""
    return of_rigid(model.image(image_id).cam_from_world())


def read_tracks(model: pycolmap.Reconstruction, views: Sequence[View]) -> Tracks:
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
