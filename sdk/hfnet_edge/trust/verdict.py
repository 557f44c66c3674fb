"""The verdict on a pose: how probably it is right, and whether that is enough."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hfnet_edge.map.calibration import Calibration
from hfnet_edge.trust.evidence import Evidence
from hfnet_edge.trust.probability import InTolerance, Judge, default_judge, points_of, probability

EQUAL = 0.9  # of a pose's support: a rival that has so much may as well be the right one, whatever else speaks for both


@dataclass(frozen=True)
class Verdict:
    """What is thought of a pose.

    Attributes:
        probability: that it is within the tolerance. wrong: that it is wrong altogether.
        accepted: it may be given. ambiguous: it may not, because of a rival or because it is free to move alone.
    """

    probability: float
    wrong: float
    accepted: bool
    ambiguous: bool


def decide(
    evidence: Evidence,
    in_tolerance: InTolerance,
    held: bool,
    max_wrong: float,
    calibration: Calibration,
    judge: Judge | None = None,
) -> Verdict:
    """Judges a pose.

    Args:
        in_tolerance: its uncertainty. held: whether its inliers hold it, see `hfnet_edge.pose.support.holds`.
        max_wrong: how probable it may be that an accepted pose is wrong.
        judge: the bundled one where None.
    """
    judge = judge or default_judge()
    enough = points_of(1 - max_wrong)
    right = judge.right_points(evidence, calibration)
    if evidence.rival >= EQUAL:
        right = min(right, points_of(0.5))
    precise = judge.precise_points(evidence, in_tolerance, calibration)
    accepted = held and right >= enough
    # Would it be accepted, were there no rival, and did its inliers hold it fast?
    alone = replace(evidence, rival=0.0, position=0.0, rotation=0.0, cells=1 << 10, found=1.0, uneven=0.0)
    return Verdict(
        round(probability(right) * probability(precise), 6) if held else 0.0,
        probability(-right) if held else 1.0,
        accepted,
        not accepted and judge.right_points(alone, calibration) >= enough,
    )
