"""From evidence to a probability: additive tables in integers, so that every device that has the evidence agrees.

Each piece of evidence falls between two edges of its table, and adds that interval's points, thousandths of a logit.
The sum is moved by the map's own calibration, where it has one. What turns points into a probability is one function,
rounded to millionths. The tables are fitted by `benchmarks/fit_trust.py`, and stand in tables.json.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from hfnet_edge.map.calibration import LOGIT, Calibration
from hfnet_edge.pose.refinement import RefinedPose
from hfnet_edge.trust.evidence import Evidence


@dataclass(frozen=True)
class Table:
    """What one piece of evidence adds; E edges.

    Attributes:
        name: of `Evidence`. edges: E increasing values. points: E + 1 integers, the first below the first edge.
    """

    name: str
    edges: tuple[float, ...]
    points: tuple[int, ...]

    def of(self, value: float) -> int:
        """Points of a value: an edge belongs to the interval above it."""
        return self.points[int(np.searchsorted(self.edges, value, side="right"))]


@dataclass(frozen=True)
class InTolerance:
    """A pose's uncertainty, in tolerances.

    Attributes:
        position_in_tolerance, rotation_in_tolerance: standard deviations. focal_in_tolerance: how far a better focal
            length would move the camera, as far as it is certain.
    """

    position_in_tolerance: float
    rotation_in_tolerance: float
    focal_in_tolerance: float

    @classmethod
    def of(cls, refined: RefinedPose, shift: float, tolerance: tuple[float, float]) -> InTolerance:
        """Args: shift: see `hfnet_edge.pose.intrinsics.IntrinsicsCheck`. tolerance: map units and degrees."""
        position, rotation = tolerance
        return cls(
            min(refined.position_std / position, 1e6),
            min(refined.rotation_std / rotation, 1e6),
            min(shift / position, 1e6),
        )


@dataclass(frozen=True)
class Judge:
    """Two sums of tables: for a pose being right at all, and for it being within the tolerance where it is.

    Attributes:
        right, precise: the tables. bias_right, bias_precise: points, of no evidence.
    """

    right: tuple[Table, ...]
    precise: tuple[Table, ...]
    bias_right: int
    bias_precise: int

    def right_points(self, evidence: Evidence, calibration: Calibration) -> int:
        """For the pose not being wrong: within 5 % of the scene's depth and 10 degrees."""
        return calibration.right(self.bias_right + sum(t.of(getattr(evidence, t.name)) for t in self.right))

    def precise_points(self, evidence: Evidence, in_tolerance: InTolerance, calibration: Calibration) -> int:
        """For a right pose being within the tolerance."""
        values = {**vars(evidence), **vars(in_tolerance)}
        return calibration.precise(self.bias_precise + sum(t.of(values[t.name]) for t in self.precise))


def probability(points: int) -> float:
    """Of points, rounded to a millionth."""
    return round(1 / (1 + math.exp(-points / LOGIT)), 6)


def points_of(probability_: float) -> int:
    """The least points that have at least this probability, within (0, 1)."""
    return math.ceil(LOGIT * math.log(probability_ / (1 - probability_)))


@cache
def default_judge() -> Judge:
    """The bundled tables."""
    data = json.loads(files("hfnet_edge.trust").joinpath("tables.json").read_text())
    right, precise = (
        tuple(Table(t["name"], tuple(t["edges"]), tuple(t["points"])) for t in data[kind]["tables"])
        for kind in ("right", "precise")
    )
    return Judge(right, precise, data["right"]["bias"], data["precise"]["bias"])
