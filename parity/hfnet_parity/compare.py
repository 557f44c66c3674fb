"""Two recordings of the same queries, stage by stage: the numbers, how sure they are, and which leave their tolerance.

Pair (one query, twice) ─> Measure.of_query ─> Value (over queries, with its interval and limit) ─> Comparison
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.errors import InputError, MismatchError, RecordingError
from hfnet_edge.geometry import Pose
from hfnet_edge.recording import QueryRecord, Recording
from hfnet_maps.evaluation import Threshold, pose_error

STAGES = ("map", "input", "tensor", "keypoints", "descriptors", "retrieval", "matches", "pose")
BUILT_IN = Path(__file__).parent / "tolerances.toml"
NEAR = 1.0  # network pixels within which two keypoints are the same
SAME_LANDMARK = 0.5  # network pixels between the projections of two maps' landmarks that are the same
SAME_POSE = (0.001, 0.01)  # metres and degrees, of reference images
EQUAL_BITS = 99.0  # dB, in place of infinity
RESAMPLES = 1000
CONFIDENCE = 95  # %


@dataclass(frozen=True)
class Pair:
    """One query in the reference and in the run.

    Attributes:
        same_map: the landmarks' numbers mean the same in both.
    """

    reference: QueryRecord
    run: QueryRecord
    same_map: bool

    @cached_property
    def paired(self) -> np.ndarray:
        """(P, 2) int64: keypoints of the reference and of the run that are each other's nearest, within `NEAR`."""
        a, b = self.reference.features, self.run.features
        if a is None or b is None:
            raise MissingStage
        if not len(a.keypoints) or not len(b.keypoints):
            return np.zeros((0, 2), np.int64)
        matcher = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True)
        near = matcher.match(a.keypoints.astype(np.float32), b.keypoints.astype(np.float32))
        limit = NEAR * a.pixel
        rows = [(m.queryIdx, m.trainIdx) for m in near if m.distance <= limit]
        return np.array(rows, np.int64).reshape(-1, 2)

    @cached_property
    def offset(self) -> np.ndarray:
        """(2,) mean offset of the paired keypoints, run less reference, in network pixels; NaN without pairs."""
        a, b = self.reference.features, self.run.features
        rows = self.paired
        assert a is not None and b is not None, "`paired` has asked"
        if not len(rows):
            return np.full(2, np.nan)
        return (b.keypoints[rows[:, 1]] - a.keypoints[rows[:, 0]]).mean(axis=0) / a.pixel

    @cached_property
    def shift(self) -> np.ndarray:
        """(2,) pixels, median over the reference's inliers: where the run's pose sees their landmarks, less where the
        reference's pose does. A wrong principal point shows as a constant. NaN where either has no pose."""
        m, a, b = self.reference.matched, self.reference.pose, self.run.pose
        if m is None or a is None or b is None or not m.inliers.any():
            return np.full(2, np.nan)
        xyz, camera = m.xyz[m.inliers], self.reference.camera
        return np.median(camera.project(b.transform(xyz)) - camera.project(a.transform(xyz)), axis=0)


class MissingStage(Exception):
    """One of the recordings lacks what a number is made of."""


@dataclass(frozen=True)
class Measure:
    """A number of the report.

    Attributes:
        stage: one of `STAGES`. name: within the stage.
        sentence: explains it to people. unit: for people. digits: after the point.
        at_least: whether its limit is the least, else the most.
        proven: whether it is out of tolerance only where its interval's better end is: a few queries move recall and
            medians by more than a quantized network does.
    """

    stage: str
    name: str
    sentence: str
    unit: str
    digits: int
    at_least: bool
    proven: bool = False

    @property
    def key(self) -> str:
        return f"{self.stage}.{self.name}"

    def text(self, value: float) -> str:
        """A value for people."""
        return "–" if np.isnan(value) else f"{value:.{self.digits}f} {self.unit}".rstrip()


def _input_identical(pair: Pair) -> float:
    a, b = pair.reference.input_hash, pair.run.input_hash
    if not a or not b:
        raise MissingStage
    return 100.0 * (a == b)


def _input_difference(pair: Pair) -> float:
    a, b = pair.reference.thumbnail, pair.run.thumbnail
    if a is None or b is None:
        raise MissingStage
    if a.shape != b.shape:
        return 255.0
    return float(np.abs(a.astype(float) - b).mean())


def _tensor_identical(pair: Pair) -> float:
    a, b = pair.reference.output_hashes, pair.run.output_hashes
    if not a or not b:
        raise MissingStage
    return 100.0 * (a == b)


def signal_to_noise(pair: Pair) -> dict[str, float]:
    """dB by role, `EQUAL_BITS` at most. Raises MissingStage."""
    found = {}
    for role, a in pair.reference.outputs.items():
        b = pair.run.outputs.get(role)
        if b is None or a.shape != b.shape:
            continue
        signal, noise = np.square(a, dtype=np.float64).sum(), np.square(np.subtract(a, b, dtype=np.float64)).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = 10 * np.log10(signal / noise)
        found[role] = EQUAL_BITS if noise == 0 else float(np.clip(np.nan_to_num(snr, nan=-99), -99, EQUAL_BITS))
    if not found:
        raise MissingStage
    return found


def _repeated(pair: Pair) -> float:
    a = pair.reference.features
    rows = pair.paired
    assert a is not None, "`paired` has asked"
    return 100.0 * len(rows) / len(a.keypoints) if len(a.keypoints) else 100.0


def _offset(pair: Pair) -> float:
    return float(np.hypot(*pair.offset))


def _local(pair: Pair) -> float:
    rows, a, b = pair.paired, pair.reference.features, pair.run.features
    assert a is not None and b is not None, "`paired` has asked"
    if not len(rows) or a.descriptors.shape[1] != b.descriptors.shape[1]:
        raise MissingStage
    return float(_cosines(a.descriptors[rows[:, 0]], b.descriptors[rows[:, 1]]).mean())


def _global(pair: Pair) -> float:
    a, b = pair.reference.features, pair.run.features
    if a is None or b is None or len(a.global_descriptor) != len(b.global_descriptor):
        raise MissingStage
    return float(_cosines(a.global_descriptor[None], b.global_descriptor[None])[0])


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) of (N, D) int8 rows; equal rows give exactly 1."""
    a, b = a.astype(np.int64), b.astype(np.int64)
    length = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1).astype(np.float64))
    return np.where((a == b).all(axis=1), 1.0, (a * b).sum(axis=1) / np.maximum(length, 1))


def _kept_frames(pair: Pair) -> float:
    a, b = _frames(pair)
    return 100.0 * len(set(a) & set(b)) / len(a) if a else 100.0


def _first_frame(pair: Pair) -> float:
    a, b = _frames(pair)
    return 100.0 * (a[:1] == b[:1])


def _frames(pair: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
    a, b = pair.reference.prior_frames, pair.run.prior_frames
    if a is None or b is None:
        raise MissingStage
    return a, b


def _kept_matches(pair: Pair) -> float:
    """The reference's inlier matches that the run has: the same keypoint and the same landmark."""
    a, b = pair.reference.matched, pair.run.matched
    if a is None or not a.inliers.any():
        raise MissingStage
    if b is None:
        return 0.0
    inliers = np.flatnonzero(a.inliers)
    partner = dict(pair.paired.tolist())
    row_of = {int(k): i for i, k in enumerate(b.keypoints)}
    rows = np.array([row_of.get(partner.get(int(a.keypoints[i]), -1), -1) for i in inliers])
    found = rows >= 0
    if pair.same_map:
        found[found] = a.landmarks[inliers[found]] == b.landmarks[rows[found]]
    elif pair.reference.pose is not None and found.any():
        project = pair.reference.camera.project
        pose, pixel = pair.reference.pose, pair.reference.features.pixel if pair.reference.features else 1.0
        gap = project(pose.transform(a.xyz[inliers[found]])) - project(pose.transform(b.xyz[rows[found]]))
        found[found] = np.linalg.norm(gap, axis=1) <= SAME_LANDMARK * pixel
    return 100.0 * float(found.mean())


def _inliers(pair: Pair) -> float:
    a, b = pair.reference.matched, pair.run.matched
    if a is None or not a.inliers.any():
        raise MissingStage
    return 100.0 * (0 if b is None else int(b.inliers.sum())) / int(a.inliers.sum())


def _moved(pair: Pair) -> float:
    return _poses_apart(pair)[0]


def _turned(pair: Pair) -> float:
    return _poses_apart(pair)[1]


def _poses_apart(pair: Pair) -> tuple[float, float]:
    """Metres and degrees; infinite where only one has a pose."""
    a, b = pair.reference.pose, pair.run.pose
    if a is None or b is None:
        return (0.0, 0.0) if a is b else (np.inf, np.inf)
    return pose_error(b, a)


MEASURES: tuple[tuple[Measure, Callable[[Pair], float], Callable[[np.ndarray], float]], ...] = (
    (
        Measure("input", "identical", "queries of which the network sees the same pixels, bit for bit", "%", 1, True),
        _input_identical,
        np.mean,
    ),
    (
        Measure("input", "difference", "grey levels between the pixels that the network is shown, mean", "", 2, False),
        _input_difference,
        np.mean,
    ),
    (
        Measure("tensor", "identical", "queries of which the network returns the same bits", "%", 1, True),
        _tensor_identical,
        np.mean,
    ),
    (
        Measure("tensor", "snr", "signal to noise of the worst output; 20 dB: a tenth is noise", "dB", 1, True),
        lambda pair: min(signal_to_noise(pair).values()),
        np.mean,
    ),
    (
        Measure("keypoints", "repeated", "reference's keypoints that the run has within a network pixel", "%", 1, True),
        _repeated,
        np.mean,
    ),
    (
        Measure("keypoints", "shift", "network pixels that the keypoints are aside as a whole", "px", 3, False),
        _offset,
        np.mean,
    ),
    (
        Measure("descriptors", "local", "cosine of the descriptors of the same keypoint; 1 is equal", "", 4, True),
        _local,
        np.mean,
    ),
    (
        Measure("descriptors", "global", "cosine of the whole image's descriptors; 1 is equal", "", 4, True),
        _global,
        np.mean,
    ),
    (
        Measure("retrieval", "kept", "the reference's prior frames that the run retrieves too", "%", 1, True),
        _kept_frames,
        np.mean,
    ),
    (
        Measure("retrieval", "first", "queries of which the most similar reference image is the same", "%", 1, True),
        _first_frame,
        np.mean,
    ),
    (
        Measure("matches", "kept", "the reference's inlier matches that the run finds too", "%", 1, True),
        _kept_matches,
        np.mean,
    ),
    (
        Measure("matches", "inliers", "inliers of the run, of the reference's", "%", 1, True),
        _inliers,
        np.mean,
    ),
    (
        Measure("pose", "moved", "metres between the camera's positions, median", "m", 4, False),
        _moved,
        np.median,
    ),
    (
        Measure("pose", "turned", "degrees between the camera's orientations, median", "°", 4, False),
        _turned,
        np.median,
    ),
)  # fmt: skip
REFERENCES = Measure("map", "references", "reference images that this map has at the same pose", "%", 1, True)
RECALL = Measure("pose", "recall", "points of recall lost, at the threshold that loses most", "pt", 1, False, True)
MEDIAN = Measure(
    "pose", "median", "median error, of the reference's; of position or rotation the worse", "x", 3, False, True
)
ALL = (REFERENCES, *(measure for measure, _, _ in MEASURES), RECALL, MEDIAN)


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
        if self.measure.proven:
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

    def value(self, key: str) -> Value:
        """By its measure's key, "pose.moved". Raises KeyError."""
        return {v.measure.key: v for v in self.values}[key]

    @property
    def worst(self) -> tuple[Pair, ...]:
        """Pairs by the distance of their poses, then by the inliers lost; the worst first."""
        moved, inliers = (self.value(key).of_queries for key in ("pose.moved", "matches.inliers"))
        assert moved is not None and inliers is not None, "they are made of queries"
        inliers = np.nan_to_num(inliers, nan=100.0)
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
        MismatchError: one ran on other kernels than XNNPACK, which would be compared by accident.
    """
    names = [q.name for q in reference.queries]
    if [q.name for q in run.queries] != names:
        raise RecordingError("the run is not of the reference's queries", "run it again on this bundle")
    check_kernels(reference, run)
    same_map = reference.about.get("map_hash") == run.about.get("map_hash")
    pairs = tuple(Pair(a, b, same_map) for a, b in zip(reference.queries, run.queries, strict=True))
    limit = tolerances.get
    values = [_map_value(reference, run, limit(REFERENCES.key))]
    for measure, of_query, combine in MEASURES:
        each = np.array([_value(of_query, pair) for pair in pairs])
        known = each[~np.isnan(each)]
        values.append(Value(measure, *_interval(len(known), _of(known, combine)), each, limit(measure.key)))
    if all(name in truth for name in names):
        a, b = (errors_of(recording, truth) for recording in (reference, run))
        lost = _interval(
            len(names), lambda rows: float((recalls_of(a[rows], thresholds) - recalls_of(b[rows], thresholds)).max())
        )
        ratio = _interval(len(names), lambda rows: median_ratio(a[rows], b[rows]))
        values += [Value(RECALL, *lost, None, limit(RECALL.key)), Value(MEDIAN, *ratio, None, limit(MEDIAN.key))]
    return Comparison(backend, profile, reference, run, pairs, tuple(values))


def check_kernels(reference: Recording, run: Recording) -> None:
    """Both ran on XNNPACK, where that is known. Raises MismatchError."""
    for which, recording in (("reference", reference), ("run", run)):
        kernels = recording.about.get("kernels", "")
        if kernels == "builtin":
            raise MismatchError(
                f"the {which} ran on LiteRT's builtin kernels, whose int8 differs from XNNPACK's by two steps",
                "install ai-edge-litert with XNNPACK there",
            )


def _value(of_query: Callable[[Pair], float], pair: Pair) -> float:
    try:
        return of_query(pair)
    except MissingStage:
        return np.nan


def _of(values: np.ndarray, combine: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    return lambda rows: float(combine(values[rows]))


def _interval(count: int, statistic: Callable[[np.ndarray], float]) -> tuple[float, float, float]:
    """A statistic of rows, and its interval over resamples of them; the same every time."""
    if not count:
        return np.nan, np.nan, np.nan
    rng = np.random.default_rng(0)
    resampled = [statistic(rng.integers(0, count, count)) for _ in range(RESAMPLES)]
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail], method="nearest")  # infinities do not interpolate
    return statistic(np.arange(count)), float(low), float(high)


def _map_value(reference: Recording, run: Recording, limit: float | None) -> Value:
    """Reference images of the bundle's map that the run's map has at the same pose."""
    theirs = reference.reference_poses
    if not theirs:
        return Value(REFERENCES, np.nan, np.nan, np.nan, None, limit)
    same = 0
    for name, row in theirs.items():
        own = run.reference_poses.get(name)
        if own is not None:
            off = pose_error(Pose(own[:4], own[4:]), Pose(row[:4], row[4:]))
            same += off[0] <= SAME_POSE[0] and off[1] <= SAME_POSE[1]
    share = 100.0 * same / len(theirs)
    return Value(REFERENCES, share, share, share, None, limit)


def errors_of(recording: Recording, truth: Mapping[str, Pose]) -> np.ndarray:
    """(Q, 2) metres and degrees, infinite without a pose."""
    return np.array(
        [(np.inf, np.inf) if q.pose is None else pose_error(q.pose, truth[q.name]) for q in recording.queries]
    )


def recalls_of(errors: np.ndarray, thresholds: Sequence[Threshold]) -> np.ndarray:
    """(T,) % of (Q, 2) errors within each threshold."""
    return np.array([100 * np.mean((errors <= (t.position, t.rotation)).all(axis=1)) for t in thresholds])


def median_ratio(a: np.ndarray, b: np.ndarray) -> float:
    """Of (Q, 2) errors b to a, of metres or degrees the larger. Two infinite medians are equal."""
    before, after = (np.clip(np.median(errors, axis=0), 1e-9, 1e9) for errors in (a, b))
    ratio = after / before
    return np.inf if (ratio > 1e6).any() else float(ratio.max())


def profile_of(reference: Recording, run: Recording) -> str:
    """Which tolerances apply: "identical" for the same model and map files, "hloc" for hloc's results, "quantized"."""
    if reference.about.get("processor") == "hloc":
        return "hloc"
    same = all(reference.about.get(key) == run.about.get(key) for key in ("model_hash", "map_hash"))
    return "identical" if same and reference.about.get("processor") == run.about.get("processor") else "quantized"


def same_solver(reference: Recording, run: Recording) -> bool:
    """Whether poses come from one solver. Two of them differ by millimetres on the same matches."""
    return reference.about.get("solver") == run.about.get("solver")


def read_tolerances(profile: str, path: Path | None = None, same_solver: bool = True) -> dict[str, float]:
    """Limits by key of a measure: the built-in ones of a profile, replaced by those of a file.

    Args:
        same_solver: if not, poses have the limits of a quantized model at best.

    Raises:
        InputError: the file is missing, not TOML, or names what is not measured.
    """
    built_in = tomllib.loads(BUILT_IN.read_text())
    limits = _limits(built_in[profile], BUILT_IN)
    if profile == "identical" and not same_solver:
        limits |= _limits({"pose": built_in["quantized"]["pose"]}, BUILT_IN)
    if path is None:
        return limits
    try:
        own = tomllib.loads(path.read_text())
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else str(e)
        raise InputError(f"cannot read the tolerances {path}: {reason}", f"copy {BUILT_IN} and change it") from e
    return limits | _limits(own, path)


def _limits(tables: Mapping, path: Path) -> dict[str, float]:
    known = {measure.key for measure in ALL}
    found = {}
    for stage, limits in tables.items():
        for name, limit in limits.items() if isinstance(limits, dict) else [("", limits)]:
            key = f"{stage}.{name}".rstrip(".")
            if key not in known or isinstance(limit, bool) or not isinstance(limit, int | float):
                raise InputError(
                    f"{path}: {key} = {limit!r} is not a tolerance", f"known are {', '.join(sorted(known))}"
                )
            found[key] = float(limit)
    return found
