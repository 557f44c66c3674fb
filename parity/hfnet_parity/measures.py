"""The numbers of the report: what each says of one query, and how the queries' values become one.

For each stage whether it is the same bits, which another processor has to give, and by how much it differs, which a
quantized network may. Which of them have limits is for `hfnet_parity.tolerances`.

From the matches on, only queries count of which the reference has a pose: what another solver samples from matches that
agree on nothing is chance, and so is what the second look finds there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfnet_edge.pose.refinement import position_std, rotation_std
from hfnet_maps.evaluation.errors import pose_error
from hfnet_parity.pairs import MissingStage, Pair

STAGES = ("map", "input", "tensor", "keypoints", "descriptors", "retrieval", "matches", "pose", "trust")
SAME_LANDMARK = 0.5  # network pixels between the projections of two maps' landmarks that are the same
EQUAL_BITS = 99.0  # dB, in place of infinity
SAME_METRES, SAME_DEGREES = 1e-4, 1e-3  # poses of the same matches are nearer, whichever solver found the first of them
SAME_SPREAD = 1e-6  # standard deviations that are equal, relatively: sums round in another order
SAME_PROBABILITY = 1e-3  # probabilities that are equal: rivals are sampled too


@dataclass(frozen=True)
class Measure:
    """A number of the report.

    Attributes:
        stage: one of `STAGES`. name: within the stage.
        sentence: explains it to people. unit: for people. digits: after the point.
        at_least: whether its limit is the least, else the most.
        of_query: its value for one query, may raise MissingStage; None: it is not made of queries.
        combine: of the queries' values along an axis, to the report's.
        proven: whether it is out of tolerance only where its interval's better end is: on a few queries, a ratio of
            medians jumps by more than a quantized network changes it.
        patches_only: it is only of recordings where a patch network describes the landmarks.
    """

    stage: str
    name: str
    sentence: str
    unit: str
    digits: int
    at_least: bool
    of_query: Callable[[Pair], float] | None = None
    combine: Callable[..., Any] = np.mean
    proven: bool = False
    patches_only: bool = False

    @property
    def key(self) -> str:
        return f"{self.stage}.{self.name}"

    def text(self, value: float) -> str:
        """A value for people."""
        return "–" if np.isnan(value) else f"{value:.{self.digits}f} {self.unit}".rstrip()


def _same_input(pair: Pair) -> float:
    a, b = pair.reference.input_hash, pair.run.input_hash
    if not a or not b:
        raise MissingStage
    return 100.0 * (a == b)


def _difference(pair: Pair) -> float:
    a, b = pair.reference.thumbnail, pair.run.thumbnail
    if a is None or b is None:
        raise MissingStage
    if a.shape != b.shape:
        return 255.0
    return float(np.abs(a.astype(float) - b).mean())


def _same_tensors(pair: Pair) -> float:
    a, b = pair.reference.output_hashes, pair.run.output_hashes
    if not a or not b:
        raise MissingStage
    return 100.0 * (a == b)


def signal_to_noise(pair: Pair) -> dict[str, float]:
    """dB by role, `EQUAL_BITS` at most. Raises MissingStage."""
    found = {}
    if not pair.reference.outputs or not pair.run.outputs or _nothing_seen(pair):
        raise MissingStage
    for role, a in pair.reference.outputs.items():
        b = pair.run.outputs.get(role, np.zeros(0))
        if a.shape != b.shape:
            found[role] = -EQUAL_BITS
            continue
        signal, noise = np.square(a, dtype=np.float64).sum(), np.square(np.subtract(a, b, dtype=np.float64)).sum()
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = 10 * np.log10(signal / noise)
        found[role] = (
            EQUAL_BITS if noise == 0 else float(np.clip(np.nan_to_num(snr, nan=-EQUAL_BITS), -EQUAL_BITS, EQUAL_BITS))
        )
    return found


def _nothing_seen(pair: Pair) -> bool:
    """Both found no keypoint, as in a black image, whose outputs are noise."""
    a, b = pair.reference.features, pair.run.features
    return a is not None and b is not None and not len(a.keypoints) and not len(b.keypoints)


def _same(pair: Pair, part: str, *names: str) -> float:
    """100 where these arrays of a part of the records are equal, else 0."""
    a, b = getattr(pair.reference, part), getattr(pair.run, part)
    if a is None or b is None:
        raise MissingStage
    return 100.0 * all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


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


def _flipped(pair: Pair) -> float:
    rows, a, b = pair.paired, pair.reference.features, pair.run.features
    assert a is not None and b is not None, "`paired` has asked"
    if not len(rows) or a.descriptors.shape[1] != b.descriptors.shape[1]:
        raise MissingStage
    return 100.0 * float(((a.descriptors[rows[:, 0]] >= 0) != (b.descriptors[rows[:, 1]] >= 0)).mean())


def _global(pair: Pair) -> float:
    a, b = pair.reference.features, pair.run.features
    if a is None or b is None or len(a.global_descriptor) != len(b.global_descriptor):
        raise MissingStage
    return float(_cosines(a.global_descriptor[None], b.global_descriptor[None])[0])


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) of (N, D) int8 rows; equal rows give exactly 1."""
    aa, ab, bb = (np.einsum("nd,nd->n", *rows, dtype=np.int64) for rows in ((a, a), (a, b), (b, b)))
    length = np.sqrt(aa * bb.astype(np.float64))
    return np.where((a == b).all(axis=1), 1.0, ab / np.maximum(length, 1))


def _kept_frames(pair: Pair) -> float:
    a, b = _frames(pair)
    return 100.0 * len(set(a) & set(b)) / len(a) if a else 100.0


def _first_frame(pair: Pair) -> float:
    a, b = _frames(pair)
    return 100.0 * (a[:1] == b[:1])


def _same_frames(pair: Pair) -> float:
    a, b = _frames(pair)
    return 100.0 * (a == b)


def _frames(pair: Pair) -> tuple[tuple[str, ...], tuple[str, ...]]:
    a, b = pair.reference.prior_frames, pair.run.prior_frames
    if a is None or b is None or not (a or b):  # not known, or the method does not ask for frames
        raise MissingStage
    return a, b


def _kept_matches(pair: Pair) -> float:
    same, _ = _inlier_matches(pair)
    return 100.0 * float(same.mean())


def _agreeing_matches(pair: Pair) -> float:
    same, both = _inlier_matches(pair)
    if not both.any():
        raise MissingStage
    return 100.0 * float(same[both].mean())


def _inlier_matches(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """For each of the reference's N > 0 inlier matches, (N,) bool whether the run matches its keypoint with the same
    landmark, and (N,) bool whether its keypoint is an inlier of the run too. Landmarks of two maps are told apart from
    where the reference's camera is. Raises MissingStage: the reference has no pose or no matches."""
    a, b, pose = pair.reference.matched, pair.run.matched, pair.reference.pose
    if a is None or not a.inliers.any() or pose is None or a.keypoints is None:
        raise MissingStage
    inliers = np.flatnonzero(a.inliers)
    nothing = np.zeros(len(inliers), bool)
    if b is None or b.keypoints is None:
        return nothing, nothing
    partner = dict(pair.paired.tolist())
    row_of = {int(k): i for i, k in enumerate(b.keypoints)}
    rows = np.array([row_of.get(partner.get(int(a.keypoints[i]), -1), -1) for i in inliers])
    matched, same, both = rows >= 0, nothing.copy(), nothing.copy()
    both[matched] = b.inliers[rows[matched]]
    if pair.same_map and a.landmarks is not None and b.landmarks is not None:
        same[matched] = a.landmarks[inliers[matched]] == b.landmarks[rows[matched]]
    elif matched.any():
        project = pair.reference.camera.project
        pixel = pair.reference.features.pixel if pair.reference.features else 1.0
        gap = project(pose.transform(a.xyz[inliers[matched]])) - project(pose.transform(b.xyz[rows[matched]]))
        same[matched] = np.linalg.norm(gap, axis=1) <= SAME_LANDMARK * pixel
    return same, both


def _same_matches(pair: Pair) -> float:
    a, b = pair.reference, pair.run
    if a.pose is None:
        raise MissingStage
    if a.matched is not None and b.matched is None and b.prior_frames is not None:
        return 0.0
    return _same(pair, "matched", "keypoints", "landmarks", "xyz")


def _inliers(pair: Pair) -> float:
    """At most 100: a query that gains inliers does not make up for one that loses them."""
    a, b = pair.reference.matched, pair.run.matched
    if a is None or not a.inliers.any() or pair.reference.pose is None:
        raise MissingStage
    return min(100.0, 100.0 * (0 if b is None else int(b.inliers.sum())) / int(a.inliers.sum()))


def _lost(pair: Pair) -> float:
    if pair.reference.pose is None:
        raise MissingStage
    return 100.0 * (pair.run.pose is None)


def _moved(pair: Pair) -> float:
    return _poses_apart(pair)[0]


def _turned(pair: Pair) -> float:
    return _poses_apart(pair)[1]


def _same_pose(pair: Pair) -> float:
    metres, degrees = _poses_apart(pair)
    return 100.0 * (metres <= SAME_METRES and degrees <= SAME_DEGREES)


def _poses_apart(pair: Pair) -> tuple[float, float]:
    """Metres and degrees; infinite where the run has lost the pose. Raises MissingStage: the reference has none."""
    a, b = pair.reference.pose, pair.run.pose
    if a is None:
        raise MissingStage
    return (np.inf, np.inf) if b is None else pose_error(b, a)


def _same_trust(pair: Pair) -> float:
    off = _probability_off(pair)
    apart = max(_apart(pair, spread) for spread in (position_std, rotation_std))
    return 100.0 * (off <= SAME_PROBABILITY and apart <= SAME_SPREAD)


def _same_status(pair: Pair) -> float:
    if pair.reference.probability is None or pair.run.probability is None:  # of hloc's it is not known why
        raise MissingStage
    return 100.0 * (pair.reference.status == pair.run.status)


def _probability_off(pair: Pair) -> float:
    """Of both probabilities the one that differs more. Raises MissingStage: the reference has no pose, or one does not
    know them."""
    a, b = pair.reference, pair.run
    if a.pose is None or a.probability is None or a.wrong is None or b.probability is None or b.wrong is None:
        raise MissingStage
    return max(abs(b.probability - a.probability), abs(b.wrong - a.wrong))


def _spread_off(pair: Pair, spread: Callable[[np.ndarray | None], float]) -> float:
    """% of the reference's standard deviation. Raises MissingStage: one of them has no pose, or does not know it."""
    if pair.run.pose is None:
        raise MissingStage
    _probability_off(pair)
    return 100 * _apart(pair, spread)


def _apart(pair: Pair, spread: Callable[[np.ndarray | None], float]) -> float:
    """Between standard deviations, relative; infinite where one alone is free to move."""
    a, b = (spread(record.covariance) for record in (pair.reference, pair.run))
    return 0.0 if a == b else abs(b - a) / a if math.isfinite(a) else math.inf


REFERENCES = Measure("map", "references", "reference images that this map has at the same pose", "%", 1, True)
RECALL = Measure("pose", "recall", "points of recall lost, at the threshold that loses most", "pt", 1, False)
MEDIAN = Measure(
    "pose", "median", "median error, of the reference's; of position or rotation the worse", "x", 3, False, proven=True
)
STATUS = Measure("trust", "status", "queries that end with the reference's status", "%", 1, True, _same_status)
MEASURES = (
    REFERENCES,
    Measure("input", "identical", "queries of which the network sees the same pixels", "%", 1, True, _same_input),
    Measure("input", "difference", "grey levels between the pixels that it sees, mean", "", 2, False, _difference),
    Measure("tensor", "identical", "queries of which it returns the same bits", "%", 1, True, _same_tensors),
    Measure(
        "tensor", "snr", "signal to noise of the worst output; 20 dB: a tenth is noise", "dB", 1, True,
        lambda pair: min(signal_to_noise(pair).values()),
    ),
    Measure(
        "keypoints", "identical", "queries of which keypoints and scores are the same bits", "%", 1, True,
        lambda pair: _same(pair, "features", "keypoints", "scores"),
    ),
    Measure(
        "keypoints", "repeated", "the reference's keypoints that the run has within a pixel", "%", 1, True, _repeated
    ),
    Measure(
        "keypoints", "shift", "network pixels that the keypoints are aside as a whole", "px", 3, False, _offset
    ),
    Measure(
        "descriptors", "identical", "queries of which all descriptors are the same bits", "%", 1, True,
        lambda pair: _same(pair, "features", "descriptors", "global_descriptor"),
    ),
    Measure("descriptors", "local", "cosine of the descriptors of the same keypoint", "", 4, True, _local),
    Measure(
        "descriptors", "flipped", "bits that differ in the descriptors of the same keypoint, which trees test", "%", 2,
        False, _flipped, patches_only=True,
    ),
    Measure("descriptors", "global", "cosine of the whole image's descriptors", "", 4, True, _global),
    Measure("retrieval", "identical", "queries of which the ranking is the same", "%", 1, True, _same_frames),
    Measure("retrieval", "kept", "the reference's prior frames that the run has too", "%", 1, True, _kept_frames),
    Measure(
        "retrieval", "first", "queries of which the most similar image is the same", "%", 1, True, _first_frame
    ),
    Measure("matches", "identical", "queries of which the matches are the same", "%", 1, True, _same_matches),
    Measure("matches", "kept", "the reference's inlier matches that the run finds too", "%", 1, True, _kept_matches),
    Measure(
        "matches", "agree", "inliers of both that are of the same landmark", "%", 1, True,
        _agreeing_matches,
    ),
    Measure("pose", "inliers", "the reference's number of inliers that the run reaches", "%", 1, True, _inliers),
    Measure("pose", "lost", "the reference's poses that the run does not find", "%", 1, False, _lost),
    Measure("pose", "moved", "metres between the camera's positions, median", "m", 4, False, _moved, np.median),
    Measure("pose", "turned", "degrees between its orientations, median", "°", 4, False, _turned, np.median),
    Measure("pose", "same", "the reference's poses that it has to 0.1 mm and 0.001°", "%", 1, True, _same_pose),
    RECALL,
    MEDIAN,
    Measure(
        "trust", "same", "poses with the same probability, to 0.001, and standard deviations, to a millionth", "%", 1,
        True, _same_trust,
    ),
    STATUS,
    Measure(
        "trust", "probability", "between probabilities, to be in tolerance and to be wrong, mean of the larger", "", 4,
        False, _probability_off,
    ),
    Measure(
        "trust", "position", "between standard deviations of the position, median", "%", 2, False,
        lambda pair: _spread_off(pair, position_std), np.median,
    ),
    Measure(
        "trust", "rotation", "between standard deviations of the rotation, median", "%", 2, False,
        lambda pair: _spread_off(pair, rotation_std), np.median,
    ),
)  # fmt: skip
