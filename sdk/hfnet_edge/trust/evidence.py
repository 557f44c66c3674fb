"""Evidence: what a pose is judged by. Numbers without a unit, so that one judge suits rooms and towns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.geometry import Camera
from hfnet_edge.pose.intrinsics import IntrinsicsCheck
from hfnet_edge.pose.refinement import RefinedPose
from hfnet_edge.trust.second_look import NEAR, SecondLook

CELLS = 8  # of the image's longer side: what lies in one cell is counted once
OUTER = 1 / 2  # of the inlier threshold: beyond it chance rules
CHANCE = NEAR**2 / (1 - OUTER**2)  # of what chance puts there it puts so many near, by their areas
COHERENT_CELLS = 16  # of the longer side: inliers in one of them are neighbours
FEW = 3  # neighbours say nothing


@dataclass(frozen=True)
class Evidence:
    """What speaks for a pose and against it.

    Attributes:
        near: landmarks of the second look that fall near their keypoint, within a quarter of the threshold, less those
            that chance puts there.
        hit: near over the landmarks that are expected in the image, or the keypoints where these are fewer.
        sharp: near over all that was found within the threshold.
        ratio: inliers of the method's own matches over these matches; 1 where they are not known.
        likeness: squared descriptor distance of the near ones over that of those in the window's outer part, medians.
        cells: cells of the image, of 1/8 of its longer side, with a near one.
        found: of the cells with expected landmarks and keypoints, the share with a near one.
        uneven: share of these cells that have no near one, beyond those that an even spread would leave empty. Where a
            place is like another, some of it is found everywhere and the rest nowhere.
        coherence: share of the near ones' squared residuals that neighbours have in common: where the camera or the
            scene is another than supposed, residuals are alike.
        position: standard deviation of the position over the scene's depth. rotation: of the rotation, degrees.
        noise: of keypoints, over the inlier threshold.
        remote: how far the nearest reference view is: the distance of the centres in depths, plus the angle in radians.
        rival: support of the best other pose over the pose's own.
        focal: what a better focal length would move the camera by, over the scene's depth, as far as it is certain.
    """

    near: float
    hit: float
    sharp: float
    ratio: float
    likeness: float
    cells: int
    found: float
    uneven: float
    coherence: float
    position: float
    rotation: float
    noise: float
    remote: float
    rival: float
    focal: float


def gather(
    first_ratio: float,
    look: SecondLook,
    residuals: np.ndarray,
    refined: RefinedPose,
    intrinsics: IntrinsicsCheck | None,
    rival: float,
    keypoints: np.ndarray,
    camera: Camera,
    max_error: float,
    depth: float,
) -> Evidence:
    """Evidence for a pose.

    Args:
        first_ratio: see `Evidence.ratio`. rival: see `Evidence.rival`.
        residuals: (G, 2) float64 pixels, of the second look's guided matches at the pose; NaN behind the camera.
        keypoints: (N, 2) float64, of the query. depth: of the scene before the camera, map units.
    """
    errors = np.nan_to_num(np.linalg.norm(residuals, axis=1), nan=np.inf)
    near, outer = errors < NEAR * max_error, (errors >= OUTER * max_error) & (errors < max_error)
    count = near_count(errors, max_error)
    cells = cells_of(look.guided.xy[near], camera, CELLS)
    expected, landmarks = np.unique(_cell(look.expected, camera, CELLS), return_counts=True)
    seen = np.isin(expected, cells_of(keypoints, camera, CELLS))
    expected, landmarks = expected[seen], landmarks[seen]
    empty = ~np.isin(expected, cells)
    rate = min(1.0, float(near.sum()) / max(1, int(landmarks.sum())))
    likeness = 1.0
    if near.any() and outer.any():
        likeness = float(np.median(look.distances[near]) / max(1.0, float(np.median(look.distances[outer]))))
    return Evidence(
        near=count,
        hit=count / max(1, min(len(look.expected), len(keypoints))),
        sharp=float(near.sum()) / max(1, int((errors < max_error).sum())),
        ratio=first_ratio,
        likeness=likeness,
        cells=len(cells),
        found=float((~empty).sum()) / max(1, len(expected)),
        uneven=max(0.0, float(empty.sum()) - float(((1 - rate) ** landmarks).sum())) / max(1, len(expected)),
        coherence=coherence(look.guided.xy[near], residuals[near], camera),
        position=min(refined.position_std / depth, 1e6),
        rotation=min(refined.rotation_std, 360.0),
        noise=refined.noise / max_error,
        remote=look.remote,
        rival=rival,
        focal=0.0 if intrinsics is None else intrinsics.shift / depth,
    )


def near_count(errors: np.ndarray, max_error: float) -> float:
    """See `Evidence.near`; ``errors`` (G,) pixels."""
    near, outer = errors < NEAR * max_error, (errors >= OUTER * max_error) & (errors < max_error)
    return max(0.0, float(near.sum()) - CHANCE * float(outer.sum()))


def cells_of(xy: np.ndarray, camera: Camera, across: int) -> np.ndarray:
    """(C,) int64 distinct cells of the image, ``across`` on its longer side, that points (N, 2) lie in."""
    return np.unique(_cell(xy, camera, across))


def coherence(xy: np.ndarray, residuals: np.ndarray, camera: Camera) -> float:
    """See `Evidence.coherence`: the intraclass correlation of residuals (N, 2) at ``xy`` (N, 2), cells as classes;
    0 where there are too few neighbours."""
    _, cell, count = np.unique(_cell(xy, camera, COHERENT_CELLS), return_inverse=True, return_counts=True)
    kept = count[cell] >= FEW
    cell, residuals, size = cell[kept], residuals[kept], np.maximum(count, 1)
    cells, n = int((count >= FEW).sum()), len(residuals)
    if cells < 2 or n <= cells:
        return 0.0
    means = np.stack([np.bincount(cell, residuals[:, i], len(count)) for i in range(2)], axis=1) / size[:, None]
    within = float(np.square(residuals - means[cell]).sum()) / (n - cells)
    between = float((np.square(means).sum(axis=1) * count)[count >= FEW].sum()) / cells
    usual = n / cells
    whole = between + (usual - 1) * within
    return max(0.0, (between - within) / whole) if whole > 0 else 0.0


def _cell(xy: np.ndarray, camera: Camera, across: int) -> np.ndarray:
    side = max(camera.width, camera.height) / across
    cell = np.floor(np.asarray(xy, np.float64).reshape(-1, 2) / side).astype(np.int64)
    return cell[:, 1] * (across + 1) + cell[:, 0]
