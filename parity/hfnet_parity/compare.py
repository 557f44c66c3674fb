"""Two recordings of the same queries: each measure over all queries, how sure it is, and what leaves its tolerance.

Pair (one query, twice) ─> Measure.of_query ─> Value (over queries, with its interval and limit) ─> Comparison
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import MismatchError, RecordingError
from hfnet_edge.geometry import Pose
from hfnet_edge.record.recording import Recording
from hfnet_maps.evaluation.errors import Threshold, pose_error, pose_errors, within
from hfnet_parity.measures import MEASURES, MEDIAN, RECALL, REFERENCES, STATUS, Measure
from hfnet_parity.pairs import MissingStage, Pair
from hfnet_parity.tolerances import HLOC

SAME_POSE = (0.001, 0.01)  # metres and degrees, of reference images
RESAMPLES = 1000
ROWS_AT_ONCE = 1 << 18  # of all resamples: some MB
CONFIDENCE = 95  # %


@dataclass(frozen=True)
class Value:
    """A measure over all queries.

    Attributes:
        value: it; NaN where a recording lacks what it is made of.
        low, high: 95 % interval, by bootstrap over queries.
        of_queries: (Q,) float64, NaN where not recorded; None where it is not made of queries.
        limit: the tolerance, or None.
    """

    measure: Measure
    value: float
    low: float
    high: float
    of_queries: np.ndarray | None
    limit: float | None

    @property
    def passed(self) -> bool | None:
        """None where there is no limit or no value."""
        if self.limit is None or np.isnan(self.value):
            return None
        if self.measure.proven and np.isfinite(self.value):
            return bool(self.high >= self.limit if self.measure.at_least else self.low <= self.limit)
        return bool(self.value >= self.limit if self.measure.at_least else self.value <= self.limit)


@dataclass(frozen=True)
class Comparison:
    """A run against the reference.

    Attributes:
        backend: where it ran, for people.
        profile: name of the tolerances that applied.
        reference, run: what was compared.
        pairs: by query.
        values: by stage, in order.
    """

    backend: str
    profile: str
    reference: Recording
    run: Recording
    pairs: tuple[Pair, ...]
    values: tuple[Value, ...]

    @property
    def broken(self) -> str | None:
        """The first stage at which the result leaves its tolerance."""
        return next((v.measure.stage for v in self.values if v.passed is False), None)

    @property
    def shown(self) -> tuple[Value, ...]:
        """Values for people: those with a limit, recall, medians and statuses, and all of stages where nothing has a
        limit."""
        limited = {v.measure.stage for v in self.values if v.limit is not None}
        always = (RECALL.key, MEDIAN.key, STATUS.key)
        return tuple(
            v for v in self.values if v.limit is not None or v.measure.stage not in limited or v.measure.key in always
        )

    def value(self, key: str) -> Value:
        """By its measure's key, "pose.moved". Raises KeyError."""
        return {v.measure.key: v for v in self.values}[key]

    @property
    def worst(self) -> tuple[Pair, ...]:
        """Pairs by the distance of their poses, then by the inliers lost; the worst first."""
        moved, inliers = (self.value(key).of_queries for key in ("pose.moved", "pose.inliers"))
        assert moved is not None and inliers is not None, "they are made of queries"
        moved, inliers = np.where(np.isnan(moved), 0, moved), np.nan_to_num(inliers, nan=100.0)
        return tuple(self.pairs[i] for i in np.lexsort((inliers, -moved)))


def compare(
    reference: Recording,
    run: Recording,
    truth: Mapping[str, Pose],
    thresholds: Sequence[Threshold],
    tolerances: Mapping[str, float],
    profile: str,
    backend: str,
) -> Comparison:
    """Measures a run against the reference.

    Args:
        truth: true poses by query; where it lacks one, recall and medians are not measured.
        tolerances: limits by key of a measure.

    Raises:
        RecordingError: they are not of the same queries.
        MismatchError: one ran on other kernels than XNNPACK, which would be compared by accident; or they localized by
            different methods.
    """
    names = [q.name for q in reference.queries]
    if [q.name for q in run.queries] != names:
        raise RecordingError("the run is not of the reference's queries", "run it again on this bundle")
    check_kernels(reference, run)
    if reference.about.get("processor") != HLOC and reference.method != run.method:
        raise MismatchError(
            f"the reference localized with the method {reference.method}, the run with {run.method}",
            f"run it with --method {reference.method}",
        )
    same_map = reference.about.get("map_hash") == run.about.get("map_hash")
    pairs = tuple(Pair(a, b, same_map) for a, b in zip(reference.queries, run.queries, strict=True))
    known = all(name in truth for name in names)
    errors = [errors_of(recording, truth) for recording in (reference, run)] if known else []
    values = []
    for measure in MEASURES:
        if measure.patches_only and not run.has_patch_network:
            continue
        limit, each = tolerances.get(measure.key), None
        if measure.of_query is not None:
            each = np.array([_value(measure.of_query, pair) for pair in pairs])
            found = _of_queries(each[~np.isnan(each)], measure)
        elif measure is REFERENCES:
            found = (_references(reference, run),) * 3
        elif not known:
            continue
        else:
            found = _of_errors(errors[0], errors[1], measure, thresholds)
        values.append(Value(measure, *found, each, limit))
    return Comparison(backend, profile, reference, run, pairs, tuple(values))


def check_kernels(reference: Recording, run: Recording) -> None:
    """Both ran on XNNPACK, where that is known. Raises MismatchError."""
    for which, recording in (("reference", reference), ("run", run)):
        if "builtin" in (recording.about.get("kernels"), recording.about.get("patch_kernels")):
            raise MismatchError(
                f"the {which} ran on LiteRT's builtin kernels, whose int8 differs from XNNPACK's by two steps",
                "install ai-edge-litert with XNNPACK there",
            )


def _value(of_query: Callable[[Pair], float], pair: Pair) -> float:
    try:
        return of_query(pair)
    except MissingStage:
        return np.nan


def _of_queries(values: np.ndarray, measure: Measure) -> tuple[float, float, float]:
    return interval(len(values), lambda rows: measure.combine(values[rows], axis=-1))


def _of_errors(
    a: np.ndarray, b: np.ndarray, measure: Measure, thresholds: Sequence[Threshold]
) -> tuple[float, float, float]:
    """Recall lost or the ratio of medians, of (Q, 2) errors of the reference and of the run."""
    if measure is MEDIAN:
        return interval(len(a), lambda rows: median_ratio(a[rows], b[rows]))
    return interval(len(a), lambda rows: recall_lost(a[rows], b[rows], thresholds))


def interval(count: int, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float, float]:
    """A statistic of rows out of ``count``, and its 95 % interval over resamples of them; the same every time.

    Args:
        statistic: of (..., N) int64 rows, (...) float64.
    """
    if not count:
        return np.nan, np.nan, np.nan
    rng, at_once = np.random.default_rng(0), max(1, ROWS_AT_ONCE // count)
    sizes = [min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)]
    resampled = np.concatenate([statistic(rng.integers(0, count, (size, count))) for size in sizes])
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail], method="nearest")  # infinities do not interpolate
    return float(statistic(np.arange(count))), float(low), float(high)


def _references(reference: Recording, run: Recording) -> float:
    """% of the reference images of the bundle's map that the run's map has at the same pose; NaN: it has none."""
    theirs = reference.reference_poses
    same = 0
    for name, row in theirs.items():
        own = run.reference_poses.get(name)
        if own is not None:
            metres, degrees = pose_error(Pose(own[:4], own[4:]), Pose(row[:4], row[4:]))
            same += metres <= SAME_POSE[0] and degrees <= SAME_POSE[1]
    return 100.0 * same / len(theirs) if theirs else np.nan


def errors_of(recording: Recording, truth: Mapping[str, Pose]) -> np.ndarray:
    """(Q, 2) metres and degrees, infinite without a pose."""
    found = {q.name: q.pose for q in recording.queries if q.pose is not None}
    return pose_errors(found, truth, [q.name for q in recording.queries])


def recalls_of(errors: np.ndarray, thresholds: Sequence[Threshold]) -> np.ndarray:
    """(T,) % of (Q, 2) errors within each threshold."""
    return 100 * within(errors, thresholds) / max(1, len(errors))


def recall_lost(a: np.ndarray, b: np.ndarray, thresholds: Sequence[Threshold]) -> np.ndarray:
    """Points of recall that (..., Q, 2) errors b lose against a, (...) at the threshold that loses most. Queries are
    counted before they are divided: 55 less 54 of 100 is one point and not a rounding error more."""
    return 100 * (within(a, thresholds) - within(b, thresholds)).max(axis=0) / max(1, a.shape[-2])


def median_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of (..., Q, 2) errors b to a, (...), of metres or degrees the larger. Two infinite medians are equal."""
    before, after = (np.clip(np.median(errors, axis=-2), 1e-9, 1e9) for errors in (a, b))
    ratio = (after / before).max(axis=-1)
    return np.where(ratio > 1e6, np.inf, ratio)
