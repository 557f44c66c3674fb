"""Adjusts reference poses that are only about right, such as a device's own, together with the landmarks.

    matches that fit one geometry of their two views ─> triangulate ─> adjust poses and points ─┐
                  matches that fit the adjusted poses ──────^───────────────────────────────────┘ with a tighter bound

The given positions are priors, so the map stays in the frame and at the scale of the given poses, and an image without
matches stays where it was. Their deviation needs no unit: it is what the poses are found to move by.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pycolmap

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.shell.console import Report, silent
from hfnet_maps.build.pairs import SEED, Matches, agree_with_each_other, agree_with_poses, verify
from hfnet_maps.build.triangulation import (
    MAX_REPROJECTION,
    adjust_points,
    adjustment,
    of_rigid,
    pose_of,
    read_tracks,
    rigid,
    triangulated_model,
)
from hfnet_maps.build.view import View
from hfnet_maps.evaluation.errors import pose_error

MAX_OFF = 10.0  # degrees that the given poses move a match off its epipolar line by, at most
BOUNDS = (5.0, 2.5, 1.2, 0.0, 0.0)  # degrees of reprojection error, one round each; never below `MAX_REPROJECTION`
FIRST_DEVIATION = 0.05  # of the given positions, in median distances between landmarks and cameras; then as found
LEAST_DEVIATION = 1e-4  # in the same distances
SPREAD = 1.538  # median length of a vector of three standard normal numbers
ROBUST = 2.0  # network pixels: beyond, an observation pulls less
STEPS = 50  # of one adjustment
TOLERANCE = 1e-5  # an adjustment ends where a step gains less, as a share of the cost


@dataclass(frozen=True)
class Refinement:
    """Adjusted poses, and what changed; M images.

    Attributes:
        poses: cam_from_world of each image.
        moved: (M,) float64, in the world's unit.
        turned: (M,) float64, degrees.
        error_before, error_after: median reprojection error of the same observations, network pixels: with the given
            poses, and the landmarks where these see them best; and adjusted.
    """

    poses: tuple[Pose, ...]
    moved: np.ndarray
    turned: np.ndarray
    error_before: float
    error_after: float


def refine_poses(views: Sequence[View], matches: Matches, progress: Report = silent) -> Refinement:
    """Bundle adjustment of poses and landmarks, in as many rounds as there are `BOUNDS`.

    Args:
        views: with the given poses, right to some degrees.
        matches: not verified.

    Raises:
        InputError: nothing can be triangulated.
    """
    centre = np.mean([view.pose.center for view in views], axis=0)  # coordinates may be as large as UTM's
    given = refined = [view.seen_from(centre) for view in views]
    distance = deviation = 0.0
    for k, bound in enumerate(BOUNDS):
        progress("refine poses", k, len(BOUNDS))
        verified = verify(refined, matches, agree_with_poses if k else _agree_roughly)
        model = triangulated_model(refined, verified, max(_pixels(bound, *refined), MAX_REPROJECTION))
        if not model.num_points3D():
            raise InputError(
                f"there is nothing to refine poses by: of {len(matches)} image pairs {len(verified)} have matches that "
                "fit one geometry near the reference poses, and no landmark comes of them",
                "check that images, list and reference are of one place",
            )
        if not k:
            distance = _median_distance(model, refined)
            deviation = FIRST_DEVIATION * distance
        _adjust(model, [view.pose.center for view in given], deviation)
        adjusted = [replace(v, pose=pose_of(model, i)) for i, v in enumerate(refined)]
        refined = _laid_on(given, adjusted, verified, distance)
        moved, turned = _changes(given, refined)
        deviation = max(float(np.median(moved)) / SPREAD, LEAST_DEVIATION * distance)
    progress("refine poses", len(BOUNDS), len(BOUNDS))
    after = _median_error(model, adjusted)
    for i, view in enumerate(given):
        model.frame(model.image(i).frame_id).rig_from_world = rigid(view.pose)
    adjust_points(model)
    poses = tuple(view.seen_from(-centre).pose for view in refined)
    return Refinement(poses, moved, turned, _median_error(model, given), after)


def _agree_roughly(a: View, b: View, matches: np.ndarray) -> np.ndarray:
    """(P,) bool: matches that fit one geometry of the two views, and up to `MAX_OFF` their poses."""
    near = np.flatnonzero(agree_with_poses(a, b, matches, _pixels(MAX_OFF, a, b)))
    agree = np.zeros(len(matches), bool)
    agree[near[agree_with_each_other(a, b, matches[near])]] = True
    return agree


def _pixels(degrees: float, *views: View) -> float:
    """Network pixels that an angle takes up in the middle of the views."""
    return float(np.median([view.focal for view in views]) * np.tan(np.radians(degrees)))


def _adjust(model: pycolmap.Reconstruction, positions: Sequence[np.ndarray], deviation: float) -> None:
    """Bundle adjustment of poses and points, with a prior on each image's position."""
    options, config = adjustment(model, poses=True)
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = ROBUST
    options.ceres.solver_options.max_num_iterations = STEPS
    options.ceres.solver_options.function_tolerance = TOLERANCE
    prior_options = pycolmap.PosePriorBundleAdjustmentOptions()
    prior_options.alignment_ransac.random_seed = SEED
    prior_options.ceres.prior_position_loss_function_type = pycolmap.LossFunctionType.CAUCHY
    priors = [
        pycolmap.PosePrior(
            pose_prior_id=i,
            corr_data_id=model.image(i).data_id,
            position=position,
            position_covariance=deviation**2 * np.eye(3),
            coordinate_system=pycolmap.PosePriorCoordinateSystem.CARTESIAN,
        )
        for i, position in enumerate(positions)
    ]
    level, pycolmap.logging.minloglevel = pycolmap.logging.minloglevel, pycolmap.logging.ERROR
    try:  # the solver logs each step that it takes back, to no one's use
        pycolmap.create_pose_prior_bundle_adjuster(options, prior_options, config, priors, model).solve()
    finally:
        pycolmap.logging.minloglevel = level


def _laid_on(
    given: Sequence[View], views: Sequence[View], pairs: Iterable[tuple[int, int]], distance: float
) -> list[View]:
    """The views, each group of those that ``pairs`` connect turned and shifted as one onto the given ones.

    A turn counts as much as what it moves a landmark at ``distance`` by. By its positions alone, which the adjustment
    holds it by, a group could roll about the line that its cameras stand on, or turn freely where they stand close.
    """
    laid = list(views)
    for group in _groups(len(views), pairs):
        to_given = pycolmap.estimate_rigid3d(*(_ends([v[i] for i in group], distance) for v in (views, given)))
        if to_given is not None:
            for i in group:
                laid[i] = replace(views[i], pose=of_rigid(rigid(views[i].pose) * to_given.inverse()))
    return laid


def _groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[np.ndarray]:
    """Images that pairs connect, directly or through others."""
    group = np.arange(count)
    for i, j in pairs:
        group[group == group[j]] = group[i]
    return [np.flatnonzero(group == g) for g in np.unique(group)]


def _ends(views: Sequence[View], distance: float) -> np.ndarray:
    """(6M, 3): the points at a distance before and behind each camera, to its sides, above and below it."""
    axes = distance * np.vstack([np.eye(3), -np.eye(3)])
    return np.concatenate([v.pose.center + axes @ v.pose.rotation for v in views])


def _changes(a: Sequence[View], b: Sequence[View]) -> tuple[np.ndarray, np.ndarray]:
    """(M,) distances between the cameras' positions, (M,) degrees between their orientations."""
    errors = np.array([pose_error(v.pose, w.pose) for v, w in zip(a, b, strict=True)])
    return errors[:, 0], errors[:, 1]


def _median_error(model: pycolmap.Reconstruction, views: Sequence[View]) -> float:
    """Of the reprojection, network pixels."""
    return float(np.median(read_tracks(model, views).errors))


def _median_distance(model: pycolmap.Reconstruction, views: Sequence[View]) -> float:
    """Between landmarks and the cameras that see them."""
    tracks = read_tracks(model, views)
    centers = np.stack([view.pose.center for view in views])
    return float(np.median(np.linalg.norm(tracks.positions[tracks.landmarks] - centers[tracks.images], axis=1)))
