"""The last step of every solver and device: Newton on the inliers, with a Cauchy loss at the keypoint noise.

Whatever found the first pose, the same matches end in the same optimum. It takes float64, additions, multiplications,
divisions and square roots alone (and a logarithm that decides whether a step is taken), in a fixed order, so that a
port repeats it: sums run from the first match to the last, and the normal equations are solved by Cholesky's
decomposition below.

Tangent space: ``cam_from_world`` moves by ``exp(delta) @ cam_from_world``, from the left, where ``delta`` is
(rotation in radians, translation in the map's unit), both in the camera's frame. So the last three components are how
the camera's centre moves, with the opposite sign, along the camera's axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.pose.support import inliers_of, reprojection_errors

PRECISE = 1 / 32  # of the inlier threshold, what a well-located keypoint is off: a quarter of a network pixel
COARSE = 1 / 4  # of the inlier threshold, at first: else a poor pose is held fast by the few that are nearest to it
NOISE_FLOOR = 1 / 80  # of the inlier threshold: a tenth of a network pixel; nobody locates keypoints better
INFLATION = 1.4  # of standard deviations, measured on places: errors of neighbouring landmarks are alike
MAX_STEPS, MAX_ROUNDS = 30, 10
ORDINARY = 10  # bits: landmarks that spread over 2**-10 to 2**10 units are solved as they are
SMALL_STEP = 1e-8  # radians, and depths: a micrometre at a hundred metres
MEDIAN_OF_RAYLEIGH = math.sqrt(2 * math.log(2))


class Uncertain:
    """A pose with a covariance, None where it is not known; what that says in a person's units."""

    covariance: np.ndarray | None

    @property
    def position_std(self) -> float:
        """See `position_std`: map units."""
        return position_std(self.covariance)

    @property
    def rotation_std(self) -> float:
        """See `rotation_std`: degrees."""
        return rotation_std(self.covariance)


@dataclass(frozen=True)
class RefinedPose(Uncertain):
    """The optimum, and how certain it is; N matches.

    Attributes:
        pose: cam_from_world.
        inliers: (N,) bool.
        errors: (N,) float64 reprojection errors, pixels; inf behind the camera.
        noise: standard deviation of a keypoint's coordinate, pixels, from the inliers.
        covariance: (6, 6) float64 in the tangent space above, symmetric, finite; None where the inliers leave a
            direction open, and until `with_covariance`.
    """

    pose: Pose
    inliers: np.ndarray
    errors: np.ndarray
    noise: float
    covariance: np.ndarray | None = None


def position_std(covariance: np.ndarray | None) -> float:
    """Root of the expected squared distance of the camera's centre from the true one, map units; inf: unknown."""
    return math.inf if covariance is None else math.sqrt(np.diag(covariance)[3:].sum())


def rotation_std(covariance: np.ndarray | None) -> float:
    """Root of the expected squared angle from the true rotation, degrees; inf: unknown."""
    return math.inf if covariance is None else math.degrees(math.sqrt(np.diag(covariance)[:3].sum()))


def refine(pose: Pose, matches: Match2D3D, camera: Camera, max_error: float, rough: bool = False) -> RefinedPose:
    """The pose at which the inliers' reprojection errors are least, and these are the inliers of.

    Inliers and pose are found in turn until the inliers stay, `MAX_ROUNDS` times at most.

    Args:
        max_error: inlier threshold, pixels.
        rough: with a wider loss, and once; enough to look again from, and where a solver's pose has to begin.
    """
    inliers = inliers_of(pose, matches, camera, max_error)
    scale, rounds = (COARSE, 1) if rough else (PRECISE, MAX_ROUNDS)
    for _ in range(rounds):
        pose = _optimum(pose, matches.xyz[inliers], matches.xy[inliers], camera, scale * max_error)
        before, inliers = inliers, inliers_of(pose, matches, camera, max_error)
        if np.array_equal(before, inliers):
            break
    errors = reprojection_errors(pose, matches, camera)
    near = errors[inliers]
    noise = max(float(np.median(near)) / MEDIAN_OF_RAYLEIGH if len(near) else 0.0, NOISE_FLOOR * max_error)
    return RefinedPose(pose, inliers, errors, noise)


def with_covariance(refined: RefinedPose, matches: Match2D3D, camera: Camera) -> RefinedPose:
    """The pose with its covariance in the matches that it was refined on."""
    xyz, xy = matches.xyz[refined.inliers], matches.xy[refined.inliers]
    scale = scale_of(xyz)
    pose = Pose(refined.pose.quaternion, refined.pose.translation * scale)
    covariance = _covariance(pose, xyz * scale, xy, camera, refined.noise)
    if covariance is None:
        return refined
    units = np.array([1.0, 1.0, 1.0, *[1 / scale] * 3])
    return replace(refined, covariance=covariance * np.outer(units, units))


def scale_of(xyz: np.ndarray) -> float:
    """A power of two, so that nothing is rounded, by which landmarks (N, 3) become as large as rooms and towns are:
    solvers lose precision, or everything, far from there."""
    if not len(xyz):
        return 1.0
    distance = np.abs(xyz - np.median(xyz, axis=0)).max(axis=1)
    spread = float(np.median(distance) or distance.max())
    bits = math.frexp(spread)[1]
    return 1.0 if not spread or abs(bits) <= ORDINARY else math.ldexp(1.0, -bits)


def _optimum(pose: Pose, xyz: np.ndarray, xy: np.ndarray, camera: Camera, scale: float) -> Pose:
    """Minimises the sum of log(1 + (error / scale)^2).

    Newton's steps with the loss's own curvature, a handful where reweighted least squares take twenty; where that is
    not positive, reweighted least squares.
    """
    if len(xyz) < 3:
        return pose
    seen = pose.transform(xyz)
    units = units_of(seen)
    residuals = camera.project(seen) - xy
    cost, damping = _cost(residuals, scale), 1e-9
    moved = True
    for _ in range(MAX_STEPS):
        if moved:
            jacobian = pose_jacobian(camera, seen) * units
            weights = 1 / (1 + (residuals**2).sum(axis=1) / scale**2)
            along = (jacobian * residuals[:, :, None]).sum(axis=1)[:, None]  # (N, 1, 6)
            curved = np.concatenate([jacobian, along], axis=1)
            both = np.concatenate([np.stack([weights, weights], axis=1), -2 * (weights / scale)[:, None] ** 2], axis=1)
            newton, _ = normal_equations(curved, np.zeros(curved.shape[:2]), both)
            gradient = (along[:, 0] * weights[:, None]).sum(axis=0)
        factor = cholesky(newton + damping * np.diag(np.abs(np.diag(newton))))
        if factor is None:
            reweighted, _ = normal_equations(jacobian, residuals, weights[:, None])
            factor = cholesky(reweighted + damping * np.diag(np.diag(reweighted)))
        if factor is None:
            break
        step = -substitute(factor, gradient)
        there = retract(pose, step * units)
        seen_there = there.transform(xyz)
        residuals_there = camera.project(seen_there) - xy
        cost_there = _cost(residuals_there, scale)
        last = float(np.abs(step).max()) < SMALL_STEP  # is taken whatever rounding makes of its cost
        moved = last or cost_there <= cost
        if moved:
            pose, seen, residuals, cost = there, seen_there, residuals_there, cost_there
        damping = max(damping / 10, 1e-9) if moved else max(damping * 10, 1e-3)
        if last or damping > 1e6:
            break
    return pose


def units_of(seen: np.ndarray) -> np.ndarray:
    """(6,) by which the tangent space is measured, so that small and large places are alike: radians, and depths."""
    depth = float(np.median(np.abs(seen[:, 2]))) or 1.0
    return np.array([1.0, 1.0, 1.0, depth, depth, depth])


def _cost(residuals: np.ndarray, scale: float) -> float:
    """Cauchy's; inf where a landmark is behind the camera."""
    squared = (residuals**2).sum(axis=1) / scale**2
    return math.inf if np.isnan(squared).any() else float(np.log1p(squared).sum())


def _covariance(pose: Pose, xyz: np.ndarray, xy: np.ndarray, camera: Camera, noise: float) -> np.ndarray | None:
    """The inverse of the last normal matrix, times noise^2: what a match far from its landmark weighs, Cauchy says."""
    if len(xyz) < 3:
        return None
    seen = pose.transform(xyz)
    units = units_of(seen)
    residuals = camera.project(seen) - xy
    weights = 1 / (1 + (residuals**2).sum(axis=1) / noise**2)
    matrix, _ = normal_equations(pose_jacobian(camera, seen) * units, residuals, weights[:, None])
    factor = cholesky(matrix)
    if factor is None:
        return None
    inverse = np.stack([substitute(factor, column) for column in np.eye(6)])
    covariance = (inverse + inverse.T) / 2 * np.outer(units, units) * (INFLATION * noise) ** 2
    return covariance if np.isfinite(covariance).all() else None


def retract(pose: Pose, delta: np.ndarray) -> Pose:
    """``exp(delta) @ pose`` to second order, a rotation for any delta: the quaternion (1, delta / 2), normalised."""
    w, x, y, z = (float(v) for v in pose.quaternion)
    a, b, c = (float(v) / 2 for v in delta[:3])
    turned = np.array(
        [w - a * x - b * y - c * z, x + a * w + b * z - c * y, y + b * w + c * x - a * z, z + c * w + a * y - b * x]
    )
    turn = Pose(np.array([1.0, a, b, c]) / math.sqrt(1 + a * a + b * b + c * c), delta[3:])
    return Pose(turned / math.sqrt(float((turned**2).sum())), turn.transform(pose.translation[None])[0])


def pose_jacobian(camera: Camera, seen: np.ndarray) -> np.ndarray:
    """(N, 2, 6) derivatives of the pixels of points ``seen`` (N, 3) in the camera's frame by the tangent space."""
    by_point = camera.project_jacobian(seen)
    x, y, z = seen.T
    zero = np.zeros(len(seen))
    turned = np.stack([zero, z, -y, -z, zero, x, y, -x, zero], axis=1).reshape(-1, 3, 3)  # omega x p, by omega
    return np.concatenate([_product(by_point, turned), by_point], axis=2)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 2, 3) @ (N, 3, 3), summed in the order of the index."""
    return a[:, :, 0, None] * b[:, None, 0] + a[:, :, 1, None] * b[:, None, 1] + a[:, :, 2, None] * b[:, None, 2]


def normal_equations(jacobian: np.ndarray, residuals: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """J^T W J (K, K) and J^T W r (K,), summed from the first match to the last.

    Args:
        jacobian: (N, R, K). residuals: (N, R). weights: (N, R), or (N, 1) of all rows of a match.
    """
    k = jacobian.shape[2]
    rows, columns = _triangle(k)
    weighted = jacobian * weights[:, :, None]
    # numpy adds the rows of an array of C's order one after the other when it sums over them, on every machine.
    products = np.ascontiguousarray((weighted[:, :, rows] * jacobian[:, :, columns]).reshape(-1, len(rows))).sum(axis=0)
    matrix = np.zeros((k, k))
    matrix[rows, columns] = matrix[columns, rows] = products
    return matrix, np.ascontiguousarray((weighted * residuals[:, :, None]).reshape(-1, k)).sum(axis=0)


@cache
def _triangle(k: int) -> tuple[np.ndarray, np.ndarray]:
    return np.triu_indices(k)


def cholesky(matrix: np.ndarray) -> list[list[float]] | None:
    """The lower triangle L with L L^T = ``matrix`` (K, K), or None where it is not positive to 1 part in 10^12."""
    k, a = len(matrix), matrix.tolist()
    factor = [[0.0] * k for _ in range(k)]
    for i in range(k):
        for j in range(i + 1):
            value = a[i][j]
            for m in range(j):
                value -= factor[i][m] * factor[j][m]
            if i != j:
                factor[i][j] = value / factor[j][j]
            elif value > 1e-12 * a[i][i] > 0:  # NaN is not either
                factor[i][i] = math.sqrt(value)
            else:
                return None
    return factor


def substitute(factor: list[list[float]], right: np.ndarray) -> np.ndarray:
    """Solves L L^T x = ``right`` (K,)."""
    k, x = len(factor), [float(v) for v in right]
    for i in range(k):
        for m in range(i):
            x[i] -= factor[i][m] * x[m]
        x[i] /= factor[i][i]
    for i in reversed(range(k)):
        for m in range(i + 1, k):
            x[i] -= factor[m][i] * x[m]
        x[i] /= factor[i][i]
    return np.array(x)
