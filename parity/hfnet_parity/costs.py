"""What each stage costs in centimetres: the reference's features become the run's step by step, and after each step the
query is localized again. What a step moves the pose is what its stage costs.

    reference's pose ─map─> ─retrieval─> ─detection─> ─positions─> ─descriptors─> ─solver─> run's pose
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.geometry import Pose
from hfnet_edge.localizer import localize_query
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.methods.registry import method_class, open_method
from hfnet_edge.record.recording import QueryRecord
from hfnet_edge.result import LocalizationResult
from hfnet_maps.evaluation.errors import pose_error
from hfnet_parity.compare import Comparison
from hfnet_parity.pairs import Pair

ROUNDING = 1e-5  # metres or degrees: what two solvers leave between poses of the same optimum, a hundred times over
STEPS = {
    "map": "the reference's features, in the run's map",
    "retrieval": "the global descriptor becomes the run's",
    "detection": "keypoints that only one of them has go or come",
    "positions": "keypoints that both have move to where the run has them",
    "descriptors": "their descriptors become the run's",
    "solver": "the run's machine and solver, and its camera",
}


@dataclass(frozen=True)
class Cost:
    """What one step does, over all queries.

    Attributes:
        step: a key of `STEPS`.
        changed: queries whose pose comes or goes.
        moved: metres that it moves the camera, median over the others.
        inliers: that it loses, in % of the reference's, mean; negative: gains.
        each: (Q,) float64 metres; infinite where the pose comes or goes.
    """

    step: str
    changed: int
    moved: float
    inliers: float
    each: np.ndarray


def costs(comparison: Comparison, map_: LocalizationMap) -> tuple[Cost, ...]:
    """The cost of each step; none where a recording lacks features, or they are of different widths, or the method
    sees more than these.

    Args:
        map_: of the run.

    Raises:
        MapFormatError: the map is damaged where a query touches it.
    """
    if not method_class(comparison.run.method).by_features:
        return ()
    width, dims = map_.description.localDim, map_.description.extractorGlobalDim
    for pair in comparison.pairs:
        for f in (pair.reference.features, pair.run.features):
            if f is None or f.descriptors.shape[1] != width or len(f.global_descriptor) != dims:
                return ()
    method = open_method(map_, None, LocalizationConfig(comparison.run.method))
    moved, lost = np.zeros((len(comparison.pairs), len(STEPS))), np.zeros((len(comparison.pairs), len(STEPS)))
    for i, pair in enumerate(comparison.pairs):
        here: list[LocalizationResult] = []
        before: Features | None = None
        for features in _steps(pair):
            if before is not None and _equal(before, features):
                here.append(here[-1])  # the step changes nothing
            else:
                here.append(localize_query(method, Query(features.pixel, features), pair.reference.camera))
            before = features
        chain = [_of(pair.reference), *((result.pose, result.inliers) for result in here), _of(pair.run)]
        most = max(1, here[0].inliers if chain[0][1] is None else chain[0][1])
        for k, ((pose, inliers), (next_pose, next_inliers)) in enumerate(itertools.pairwise(chain)):
            moved[i, k] = _distance(pose, next_pose)
            lost[i, k] = 0 if inliers is None or next_inliers is None else 100 * (inliers - next_inliers) / most
    return tuple(
        Cost(step, *_median_of_finite(moved[:, k]), float(lost[:, k].mean()), moved[:, k])
        for k, step in enumerate(STEPS)
    )


def _median_of_finite(metres: np.ndarray) -> tuple[int, float]:
    """How many are not finite, and the median of the others."""
    finite = metres[np.isfinite(metres)]
    return len(metres) - len(finite), float(np.median(finite)) if len(finite) else 0.0


def _steps(pair: Pair) -> Iterator[Features]:
    """The reference's features, and those after each step from "retrieval" to "descriptors"."""
    a, b = pair.reference.features, pair.run.features
    assert a is not None and b is not None, "`costs` has asked"
    yield a
    a = replace(a, global_descriptor=b.global_descriptor)
    yield a
    in_a, in_b = pair.paired.T
    keypoints, descriptors = b.keypoints.copy(), b.descriptors.copy()
    keypoints[in_b], descriptors[in_b] = a.keypoints[in_a], a.descriptors[in_a]
    yield replace(b, keypoints=keypoints, descriptors=descriptors)
    yield replace(b, descriptors=descriptors)
    yield b


def _equal(a: Features, b: Features) -> bool:
    """What localization uses of them is the same."""
    names = ("keypoints", "descriptors", "global_descriptor", "pixel")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def _of(query: QueryRecord) -> tuple[Pose | None, int | None]:
    """A recorded pose, and the inliers that it has, if that is known."""
    return query.pose, None if query.matched is None else int(query.matched.inliers.sum())


def _distance(a: Pose | None, b: Pose | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else np.inf
    return pose_error(b, a)[0]


def costliest(found: tuple[Cost, ...]) -> Cost | None:
    """The step where most poses come or go, equals by how far it moves them beyond `ROUNDING`, then by the inliers that
    it loses; None where none does anything."""

    def cost(one: Cost) -> tuple[int, float, float]:
        return one.changed, one.moved if one.moved > ROUNDING else 0.0, one.inliers

    best = max(found, key=cost, default=None)
    return best if best is not None and max(cost(best)) > 0 else None
