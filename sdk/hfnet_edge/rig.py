"""Several views as one query: cameras of a rig, or frames of a session that odometry ties together.

Each view's matches vote for where the rig is; the pose that most agree on is refined in all of them, every view looks
again where landmarks should be, and one verdict is passed on what all of them saw. A view that shows a white wall then
has a pose as good as its neighbours', and a poster that hangs in two rooms is seen with what is beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.correspondences import Match2D3D, no_matches
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.pose.estimate import first_pose, straightened
from hfnet_edge.pose.refinement import (
    COARSE,
    INFLATION,
    MEDIAN_OF_RAYLEIGH,
    NOISE_FLOOR,
    PRECISE,
    RefinedPose,
    cholesky,
    normal_equations,
    pose_jacobian,
    retract,
    substitute,
)
from hfnet_edge.pose.solvers import PoseConfig, rig_pose
from hfnet_edge.pose.support import apart, holds, inliers_of, reprojection_errors
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.trust.evidence import Evidence, gather
from hfnet_edge.trust.probability import InTolerance
from hfnet_edge.trust.second_look import SecondLook, look_again
from hfnet_edge.trust.verdict import Verdict, decide

LEAST = 6  # inliers, of all views
STEPS = 12
SMALL_STEP = 1e-6  # radians, and depths
RANSAC_ITERATIONS = 2000  # of one view


@dataclass(frozen=True)
class View:
    """What one camera contributes.

    Attributes:
        features: of its image. camera: of it. cam_from_rig: where the camera is in the rig.
        places: matches of each candidate place, ``xyz`` relative to the map's origin.
        max_error: inlier threshold, pixels.
        own: the poses that these places support alone, cam_from_map.
        drift: (position in map units, rotation in radians), standard deviations of ``cam_from_rig``.
    """

    features: Features
    camera: Camera
    cam_from_rig: Pose
    places: tuple[Match2D3D, ...]
    max_error: float
    own: tuple[Pose, ...] = ()
    drift: tuple[float, float] = (0.0, 0.0)

    def noise(self, depth: float) -> float:
        """Pixels by which the drift moves what is seen at a depth."""
        position, rotation = self.drift
        return max(self.camera.focal) * math.hypot(rotation, position / max(depth, 1e-9))


@dataclass(frozen=True)
class Hypothesis:
    """A pose of the rig, and what agrees on it.

    Attributes:
        rig_from_map: relative to the map's origin. matches: the inliers of each view.
    """

    rig_from_map: Pose
    matches: tuple[Match2D3D, ...]

    @property
    def support(self) -> int:
        """Inliers of all views."""
        return sum(map(len, self.matches))

    def depth(self, views: Sequence[View]) -> float:
        """Median of the inliers' depths, map units."""
        seen = [
            (view.cam_from_rig @ self.rig_from_map).transform(m.xyz)[:, 2]
            for view, m in zip(views, self.matches, strict=True)
        ]
        found = np.concatenate(seen)
        return float(np.median(found)) if len(found) else 1.0


def localize_views(map_: LocalizationMap, views: Sequence[View], config: LocalizationConfig) -> LocalizationResult:
    """The pose of a rig (``rig_from_world``), judged by what all its views see.

    Raises:
        MapFormatError: the map is damaged where it is touched.
    """
    ranked = sorted(hypotheses(views, config.pose), key=lambda h: -h.support)
    if not ranked or ranked[0].support < LEAST:
        found = any(len(m) for view in views for m in view.places)
        return LocalizationResult(Status.TOO_FEW_MATCHES if found else Status.NO_CANDIDATES)
    best = ranked[0]
    depth = best.depth(views)
    rivals = [h.support for h in ranked[1:] if apart(h.rig_from_map, best.rig_from_map, depth)]
    pose, _ = refine_views(best.rig_from_map, views, best.matches, depth)
    looks = [_look(map_, view, pose, m, depth) for view, m in zip(views, _best_inliers(views, pose), strict=True)]
    pose, noise = refine_views(pose, views, [look.matches for look in looks], depth)
    found_ = [_refined(view, look, pose, noise) for view, look in zip(views, looks, strict=True)]
    inliers = [look.matches.take(one.inliers) for look, one in zip(looks, found_, strict=True)]
    covariance = _covariance(pose, views, inliers, noise, depth)
    found_ = [replace(one, covariance=covariance) for one in found_]
    each = _evidence(views, looks, found_, best, max(rivals, default=0) / best.support, depth)
    rays = np.concatenate([m.xyz for m in inliers])
    tolerance = config.tolerance.at(depth)
    joint = RefinedPose(pose, np.ones(len(rays), bool), np.zeros(len(rays)), noise, covariance)
    held = any(
        holds(one.pose.transform(m.xyz), view.max_error / min(view.camera.focal))
        for view, one, m in zip(views, found_, inliers, strict=True)
    )
    in_tolerance = InTolerance.of(joint, 0.0, tolerance)

    def verdict_on(evidence: Evidence, max_wrong: float) -> Verdict:
        return decide(evidence, in_tolerance, held, max_wrong, map_.calibration)

    evidence = _pooled(views, looks, each, best)
    verdict = verdict_on(evidence, config.max_wrong)
    if not verdict.accepted:
        # One view that is sure enough of where all put it; there are as many chances as views.
        sure = min(each, key=lambda one: verdict_on(one, config.max_wrong).wrong)
        alone = verdict_on(sure, config.max_wrong / len(views))
        if alone.accepted:
            evidence, verdict = sure, replace(alone, wrong=min(1.0, alone.wrong * len(views)))
    errors = [one.errors[one.inliers] for one in found_]
    return LocalizationResult(
        Status.LOCALIZED if verdict.accepted else Status.AMBIGUOUS if verdict.ambiguous else Status.REJECTED,
        map_.from_world(pose) if verdict.accepted else None,
        verdict.probability,
        verdict.wrong,
        tolerance,
        covariance,
        float(np.median(np.concatenate(errors))) if len(rays) else math.nan,
        len(rays),
        best.support,
        depth,
        evidence.ratio,
        evidence=evidence,
        camera=views[0].camera,
    )


def own_poses(places: Sequence[Match2D3D], camera: Camera, max_error: float, config: PoseConfig) -> tuple[Pose, ...]:
    """The poses (cam_from_map) that places support, each alone."""
    quick = replace(config, iterations=min(config.iterations, RANSAC_ITERATIONS))
    found = (first_pose(matches, camera, max_error, quick) for matches in places)
    return tuple(pose for pose in found if pose is not None)


def hypotheses(views: Sequence[View], config: PoseConfig) -> list[Hypothesis]:
    """Poses that single views and all together vote for, each with all that agrees on it."""
    poses = [view.cam_from_rig.inverse @ pose for view in views for pose in view.own]
    together = [max(view.places, key=len) for view in views if view.places]
    cameras = [view for view in views if view.places]
    if len(cameras) > 1:
        straight = [straightened(m, view.camera) for m, view in zip(together, cameras, strict=True)]
        error = max(view.max_error for view in cameras)
        joint = rig_pose(straight, [view.cam_from_rig for view in cameras], error, config)
        if joint is not None:
            poses.append(joint)
    return [Hypothesis(pose, _best_inliers(views, pose)) for pose in poses]


def refine_views(
    rig_from_map: Pose, views: Sequence[View], matches: Sequence[Match2D3D], depth: float
) -> tuple[Pose, float]:
    """The pose at which all views' matches agree best, by reweighted least squares with a Cauchy loss; and the noise of
    keypoints over the inlier threshold."""
    pose = rig_from_map
    for share in (COARSE, PRECISE):
        for _ in range(STEPS):
            matrix, gradient = np.zeros((6, 6)), np.zeros(6)
            for view, m in zip(views, matches, strict=True):
                if len(m):
                    scale = math.hypot(share * view.max_error, view.noise(depth))
                    a, b = _equations(pose, view, m, scale)
                    matrix, gradient = matrix + a, gradient + b
            units = np.array([1.0, 1.0, 1.0, depth, depth, depth])
            factor = cholesky(matrix * np.outer(units, units) + 1e-12 * np.eye(6))
            if factor is None:
                break
            step = -substitute(factor, gradient * units)
            pose = retract(pose, step * units)
            if float(np.abs(step).max()) < SMALL_STEP:
                break
    errors = [
        reprojection_errors(view.cam_from_rig @ pose, m, view.camera) / view.max_error
        for view, m in zip(views, matches, strict=True)
    ]
    near = np.concatenate([*errors, np.zeros(0)])
    near = near[near < 1]
    return pose, max(float(np.median(near)) / MEDIAN_OF_RAYLEIGH if len(near) else 0.0, NOISE_FLOOR)


def adjoint(pose: Pose) -> np.ndarray:
    """(6, 6) what a small motion of the rig, from the left, is of a camera at ``pose`` (cam_from_rig)."""
    r, t = pose.rotation, pose.translation
    across = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    return np.block([[r, np.zeros((3, 3))], [across @ r, r]])


def _equations(pose: Pose, view: View, matches: Match2D3D, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of a view's matches in the rig's tangent space, Cauchy's weights at ``scale`` pixels."""
    seen = (view.cam_from_rig @ pose).transform(matches.xyz)
    residuals = view.camera.project(seen) - matches.xy
    there = np.isfinite(residuals).all(axis=1)
    jacobian = pose_jacobian(view.camera, seen[there])
    weights = 1 / (scale**2 + (residuals[there] ** 2).sum(axis=1))
    matrix, gradient = normal_equations(jacobian, residuals[there], weights[:, None])
    change = adjoint(view.cam_from_rig)
    return change.T @ matrix @ change, change.T @ gradient


def _best_inliers(views: Sequence[View], pose: Pose) -> tuple[Match2D3D, ...]:
    """Of each view the inliers in that place of which most agree."""
    found = []
    for view in views:
        cam = view.cam_from_rig @ pose
        in_places = [m.take(inliers_of(cam, m, view.camera, view.max_error)) for m in view.places if len(m)]
        best = max(in_places, key=len, default=None)
        if best is None:
            best = no_matches()
        elif len(best):
            depth = float(np.median(cam.transform(best.xyz)[:, 2]))
            wider = view.max_error + view.noise(depth)
            if wider > 1.1 * view.max_error:
                in_places = [m.take(inliers_of(cam, m, view.camera, wider)) for m in view.places if len(m)]
                best = max(in_places, key=len)
        found.append(best)
    return tuple(found)


def _look(map_: LocalizationMap, view: View, pose: Pose, matches: Match2D3D, depth: float) -> SecondLook:
    """The second look of a view at the rig's pose."""
    cam = view.cam_from_rig @ pose
    errors = reprojection_errors(cam, matches, view.camera)
    first = RefinedPose(cam, np.ones(len(matches), bool), errors, 0.0)
    return look_again(map_, view.features, view.camera, matches, first, view.max_error, depth)


def _refined(view: View, look: SecondLook, pose: Pose, noise: float) -> RefinedPose:
    cam = view.cam_from_rig @ pose
    errors = reprojection_errors(cam, look.matches, view.camera)
    return RefinedPose(cam, errors < view.max_error, errors, noise * view.max_error)


def _covariance(
    pose: Pose, views: Sequence[View], matches: Sequence[Match2D3D], noise: float, depth: float
) -> np.ndarray | None:
    """(6, 6) of the rig's pose, as `hfnet_edge.pose.refinement.RefinedPose.covariance`; a view's drift, which all its
    matches share, counts once."""
    matrix = np.zeros((6, 6))
    for view, m in zip(views, matches, strict=True):
        if len(m) < 3:
            continue
        a, _ = _equations(pose, view, m, noise * view.max_error)
        a = a / INFLATION**2
        position, rotation = view.drift
        if position > 0 or rotation > 0:
            change = np.linalg.inv(adjoint(view.cam_from_rig))
            drift = change @ np.diag([rotation**2] * 3 + [position**2] * 3) @ change.T
            a = np.linalg.inv(np.linalg.pinv(a, hermitian=True) + drift + 1e-18 * np.eye(6))
        matrix += (a + a.T) / 2
    units = np.array([1.0, 1.0, 1.0, depth, depth, depth])
    factor = cholesky(matrix * np.outer(units, units))
    if factor is None:
        return None
    inverse = np.stack([substitute(factor, column) for column in np.eye(6)]) * np.outer(units, units)
    return (inverse + inverse.T) / 2 if np.isfinite(inverse).all() else None


def _evidence(
    views: Sequence[View],
    looks: Sequence[SecondLook],
    refined: Sequence[RefinedPose],
    best: Hypothesis,
    rival: float,
    depth: float,
) -> list[Evidence]:
    """What each view says of the pose."""
    each = []
    for view, look, one, inliers in zip(views, looks, refined, best.matches, strict=True):
        residuals = view.camera.project(one.pose.transform(look.guided.xyz)) - look.guided.xy
        ratio = len(inliers) / max(1, max((len(m) for m in view.places), default=0))
        keypoints, error = view.features.keypoints, view.max_error
        each.append(gather(ratio, look, residuals, one, None, rival, keypoints, view.camera, error, depth))
    return each


def _pooled(views: Sequence[View], looks: Sequence[SecondLook], each: Sequence[Evidence], best: Hypothesis) -> Evidence:
    """One piece of evidence of all views: shares over all of them; counts over the root of the number of views, for
    neighbouring views see the same things."""
    expected = np.array(
        [max(1, min(len(k.expected), len(v.features.keypoints))) for k, v in zip(looks, views, strict=True)]
    )
    near = np.array([e.near for e in each])
    root = math.sqrt(max(1, int((expected > 1).sum())))
    tried = sum(max((len(m) for m in view.places), default=0) for view in views)

    def mean(name: str, weights: np.ndarray) -> float:
        values = np.array([getattr(e, name) for e in each])
        return float((values * weights).sum() / max(1e-9, weights.sum()))

    return Evidence(
        near=float(near.sum()) / root,
        hit=float(near.sum()) / float(expected.sum()),
        sharp=mean("sharp", expected),
        ratio=best.support / max(1, tried),
        likeness=mean("likeness", near + 1e-6),
        cells=round(sum(e.cells for e in each) / root),
        found=mean("found", expected),
        uneven=mean("uneven", expected),
        coherence=mean("coherence", near + 1e-6),
        position=each[0].position,
        rotation=each[0].rotation,
        noise=each[0].noise,
        remote=float(np.median([e.remote for e in each])),
        rival=each[0].rival,
        focal=0.0,
    )
