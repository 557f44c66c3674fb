"""One candidate examined: pose ─> second look ─> pose again ─> rivals ─> evidence.

A method's matches of one place go in; the pose that the place supports, and what it is to be judged by, come out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.estimate import estimate_pose, first_pose, refine_again
from hfnet_edge.pose.focal import estimate_pose_and_focal, refine_focal
from hfnet_edge.pose.intrinsics import IntrinsicsCheck, check_intrinsics
from hfnet_edge.pose.refinement import RefinedPose, with_covariance
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.pose.support import apart, holds, inliers_of, reprojection_errors
from hfnet_edge.trust.evidence import Evidence, gather, near_count
from hfnet_edge.trust.rivals import FEW, alternatives, flip
from hfnet_edge.trust.second_look import (
    SecondLook,
    at_keypoints,
    beside_cells,
    guided_matches,
    look_again,
    without_second_look,
)

LEAST = 6  # inliers that a second look is worth; fewer fit any camera
RIVAL_ITERATIONS = 1000  # of RANSAC: a rival worth the name has a quarter of the matches


@dataclass(frozen=True)
class Examined:
    """A pose that a place supports.

    Attributes:
        camera: that the pose is of; not the stated one where its focal length was to be found.
        matches: of the second look; of the method, where there was none.
        refined: the pose, relative to the map's origin, in these matches.
        look: what was expected, and seen.
        first_inliers, first_matches: inliers of the method's matches, and the number of these.
        near: see `hfnet_edge.trust.evidence.Evidence`. depth: median, of the inliers, map units.
        held: the inliers hold a camera in place, see `hfnet_edge.pose.support.holds`.
    """

    camera: Camera
    matches: Match2D3D
    refined: RefinedPose
    look: SecondLook
    first_inliers: int
    first_matches: int
    near: float
    depth: float
    held: bool

    def rank(self) -> tuple[bool, float]:
        """Places are compared by whether they hold a camera, which a line never does however many matches agree on it;
        then by their near landmarks, in standard deviations of what chance makes of those expected."""
        return self.held, self.near / math.sqrt(len(self.look.expected) + 100)

    def moved(self, by: np.ndarray) -> Examined:
        """The same relative to another origin, which lies ``by`` (3,) before this one; of one map it is itself."""
        if not by.any():
            return self
        pose = self.refined.pose
        moved = replace(self.refined, pose=Pose(pose.quaternion, pose.translation - pose.rotation @ by))
        return replace(self, refined=moved, matches=replace(self.matches, xyz=self.matches.xyz + by))

    def is_another_than(self, pose: Pose) -> bool:
        """Whether a pose is not this one, see `hfnet_edge.pose.support.apart`."""
        return apart(self.refined.pose, pose, self.depth)

    def is_contradicted_by(self, other: Examined, max_error: float) -> bool:
        """Whether what supports another place does not fit this pose. Inliers that hold no camera are asked, for their
        pose is one of many."""
        if other.held or not self.is_another_than(other.refined.pose):
            return self.is_another_than(other.refined.pose)
        own = other.matches.take(other.refined.inliers)
        return bool(inliers_of(self.refined.pose, own, self.camera, max_error).mean() < 0.5)


def examine(
    map_: LocalizationMap,
    query: Features | None,
    camera: Camera,
    matches: Match2D3D,
    max_error: float,
    config: PoseConfig,
    seek_focal: bool,
    clock: Clock,
) -> Examined | None:
    """The pose of a place's matches after a second look, or None where fewer than `LEAST` matches agree on one.

    Args:
        query: None where the method has no features; then there is no second look. max_error: pixels.
        seek_focal: find the camera's focal length too.

    Raises:
        MapFormatError: the map is damaged where it is touched.
    """
    again = query is not None and len(query.keypoints) > 0 and matches.landmarks is not None
    count = len(matches)
    stated = camera
    with clock("pose"):
        first = None
        if not seek_focal:
            first = estimate_pose(matches, camera, max_error, config, rough=again)
        elif (both := estimate_pose_and_focal(matches, camera, max_error, config)) is not None:
            camera, first = both
    if first is None or first.inliers.sum() < LEAST:
        return None
    first_inliers = int(first.inliers.sum())
    cells = None
    if again and query is not None and matches.keypoints is None:
        with clock("second_look"):
            cells = matches.take(first.inliers)
            matches, first = at_keypoints(map_, query, camera, matches, first, max_error)
    refined, look = first, without_second_look(matches)
    if again and query is not None and matches.keypoints is not None:
        with clock("second_look"):
            look = look_again(map_, query, camera, matches, first, max_error)
            refined = refine_again(first.pose, look.matches, camera, max_error)
            if cells is not None:
                refined = beside_cells(refined, look.matches, cells, camera, max_error)
            if seek_focal:
                camera, refined = refine_focal(refined, look.matches, camera, stated, max_error)
    if not seek_focal:
        refined = with_covariance(refined, look.matches, camera)
    seen = refined.pose.transform(look.matches.xyz[refined.inliers])
    if len(seen) < LEAST:
        return None
    errors = reprojection_errors(refined.pose, look.guided, camera)
    return Examined(
        camera,
        look.matches,
        refined,
        look,
        first_inliers,
        count,
        near_count(errors, max_error),
        float(np.median(seen[:, 2])),
        holds(seen, max_error / min(camera.focal)),
    )


def rival(
    map_: LocalizationMap,
    query: Features | None,
    one: Examined,
    others: list[Examined],
    max_error: float,
    config: PoseConfig,
) -> float:
    """Support of the best other pose over that of ``one``: of ``others``, of what its landmarks are taken for, or of
    its flip.

    Raises:
        MapFormatError: the map is damaged where it is touched.
    """
    camera = one.camera
    supports = [other.near for other in others if one.is_contradicted_by(other, max_error)]
    if query is not None and one.matches.landmarks is not None and one.matches.keypoints is not None:
        elsewhere = alternatives(map_, query, one.matches, one.refined, camera, max_error, one.look.landmarks)
        quick = replace(config, iterations=min(config.iterations, RIVAL_ITERATIONS))
        found = first_pose(elsewhere, camera, max_error, quick)
        agreeing = 0 if found is None else int(inliers_of(found, elsewhere, camera, max_error).sum())
        if found is not None and agreeing >= FEW and one.is_another_than(found):
            guided, _, _ = guided_matches(map_, query, camera, found, one.look.landmarks, max_error)
            supports.append(near_count(refine_again(found, guided, camera, max_error).errors, max_error))
    strongest = max(supports, default=0.0) / max(1.0, one.near)
    flipped = flip(one.refined, one.matches, camera, max_error)
    if flipped is not None and one.is_another_than(flipped.pose):
        own = near_count(one.refined.errors[one.refined.inliers], max_error)
        strongest = max(strongest, near_count(flipped.errors, max_error) / max(1.0, own))
    return strongest


def evidence_of(
    query: Features | None, one: Examined, rival_: float, max_error: float, chance: float = 0.0
) -> tuple[Evidence, IntrinsicsCheck | None]:
    """What a pose is judged by, and what its inliers say of the camera.

    Args:
        chance: see `hfnet_edge.methods.method.Candidates`; of the share of inliers only what is beyond it counts.
    """
    guided, camera = one.look.guided, one.camera
    intrinsics = check_intrinsics(one.refined, one.matches, camera)
    evidence = gather(
        max(0.0, one.first_inliers / one.first_matches - chance) / (1 - chance),
        one.look,
        camera.project(one.refined.pose.transform(guided.xyz)) - guided.xy,
        one.refined,
        intrinsics,
        rival_,
        guided.xy if query is None else query.keypoints,
        camera,
        max_error,
        one.depth,
    )
    return evidence, intrinsics
