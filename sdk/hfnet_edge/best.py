"""The best of all candidates: each is examined, the leading one is judged, and a pose is given or refused.

candidates ─> pose, second look ─> the leader ─> its rivals ─> verdict ─> LocalizationResult
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.geometry import Camera
from hfnet_edge.methods.method import Candidates, Query
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.searches import Search
from hfnet_edge.trust.examine import Examined, evidence_of, examine, rival
from hfnet_edge.trust.probability import InTolerance
from hfnet_edge.trust.verdict import decide

PLACES = 3  # candidates of a map that are compared, however good the first is


@dataclass(frozen=True)
class Found:
    """What a search found."""

    search: Search
    candidates: Candidates


def best_of(rounds: Iterable[Sequence[Found]], query: Query, camera: Camera, clock: Clock) -> LocalizationResult:
    """The first `PLACES` candidates of each map of a round are compared; further ones, and then those of the next
    round, are tried until a pose is accepted, and agrees with what is known."""
    best = LocalizationResult(Status.NO_CANDIDATES)
    of: Found | None = None  # what is best
    leader: Examined | None = None
    examined: list[tuple[Found, Examined]] = []
    agreeing: list[tuple[Found, Examined]] = []
    against = ""
    for founds in rounds:
        if of is None and founds:
            of, best = founds[0], LocalizationResult(founds[0].candidates.abstention)
        for batch in _batches(founds):
            newest: tuple[Found, Examined] | None = None
            for found, matches in batch:
                search, map_ = found.search, found.search.method.map
                config, max_error = search.method.config, search.method.config.pose.max_error * query.pixel
                if best.matches is None:
                    in_world = replace(matches, xyz=map_.in_world(matches.xyz))
                    of, best = found, LocalizationResult(Status.TOO_FEW_MATCHES, matches=in_world)
                one = examine(map_, query.features, camera, matches, max_error, config.pose, config.refine_focal, clock)
                if one is None:
                    continue
                examined.append((found, one))  # also as a rival, for what is known may be wrong
                pose, known = map_.from_world(one.refined.pose), search.known
                contradiction = known and known.contradiction(pose, one.refined.position_std)
                against = against or contradiction or ""
                if not contradiction:
                    newest = found, one
                    agreeing.append(newest)
            ahead = max(agreeing, key=lambda both: both[1].rank(), default=None)
            if ahead is not None and ahead[1] is not leader:
                (of, leader), best = ahead, _judged(*ahead, query, examined, clock)
            elif newest is not None and leader is not None and newest[1].matches.found_by != leader.matches.found_by:
                # Of another method: it may have more to say for a pose that keypoints say less for.
                other = _judged(*newest, query, examined, clock)
                of, best = min((of, best), (newest[0], other), key=lambda both: both[1].wrong)
            if best.status is Status.LOCALIZED:
                break
        if best.status is Status.LOCALIZED:
            break
    if leader is None and against:
        best = replace(best, status=Status.REJECTED, notes=(against,))
    if of is None:
        return replace(best, milliseconds=clock.milliseconds)
    frames = of.candidates.prior_frames
    coarse = of.search.method.map.pose(int(frames[0])) if best.status is Status.COARSE else None
    return replace(best, prior_frames=frames, coarse=coarse, tile=of.search.tile, milliseconds=clock.milliseconds)


def _batches(founds: Sequence[Found]) -> Iterator[Iterable[tuple[Found, Match2D3D]]]:
    """Candidates that are compared with each other before a pose is given: the first `PLACES` of each map, then one by
    one."""
    likely = [(found, iter(found.candidates.matches)) for found in founds]
    yield ((found, matches) for found, first in likely for matches in islice(first, PLACES))
    for found, rest in likely:
        for matches in chain(rest, found.candidates.further):
            yield ((found, matches),)


def _judged(
    found: Found, one: Examined, query: Query, examined: list[tuple[Found, Examined]], clock: Clock
) -> LocalizationResult:
    """Accepts a pose or not, and moves it and its matches from the landmarks' frame to the world.

    Args:
        examined: all places so far, each in its map's frame, ``one`` among them.
    """
    method, refined = found.search.method, one.refined
    map_, config, chance = method.map, method.config, found.candidates.chance
    max_error = config.pose.max_error * query.pixel
    places = [e.moved(f.search.method.map.origin - map_.origin) for f, e in examined if e is not one]
    with clock("trust"):
        rival_ = rival(map_, query.features, one, places, max_error, config.pose)
        evidence, intrinsics = evidence_of(query.features, one, rival_, max_error, chance)
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
