"""What the probabilities of poses are worth: whether nine of ten poses with 0.9 are right, and how well they tell right
poses from wrong ones.

Answers are the queries that got a pose; A of them, of Q queries. An abstention has no pose that could be right or
wrong: it is in no bin and in no pair of the ROC, and counts against every recall.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from hfnet_edge.errors import InputError

BINS = 10  # of equal width
LOW_WRONG_SHARE = 0.001  # of the answers: what one recall is reported at
NORMAL_95 = 1.959964  # standard deviations that hold 95 % of a normal distribution


@dataclass(frozen=True)
class CalibrationBins:
    """The reliability diagram: answers by their probability, in `BINS` bins of equal width from 0 to 1. A bin has its
    lower edge; the last one has 1 as well.

    Attributes:
        count: (BINS,) int64 answers.
        probability: (BINS,) float64 mean of their probabilities; NaN where there are none, as below.
        right: (BINS,) float64 the share of them that is right.
        low, high: (BINS,) float64 its 95 % interval (Wilson, 1927), as if the answers were independent of each other.
    """

    count: np.ndarray
    probability: np.ndarray
    right: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class OperatingPoint:
    """What becomes of the queries where a rule picks the answers that are given.

    Attributes:
        wrong_share: the wrong answers as a share of those given; 0 where none is given.
        recall: the right answers given as a share of all queries; NaN without queries.
    """

    wrong_share: float
    recall: float


@dataclass(frozen=True)
class RecallCurve:
    """What becomes of the queries where the answers of at least some probability are given: one operating point for
    each of the T distinct probabilities, the highest first.

    Attributes:
        probability: (T,) float64, descending. Answers of equal probability are given together.
        wrong_share: (T,) float64, wrong answers given / answers given. It may fall as well as rise.
        recall: (T,) float64, right answers given / queries. It never falls.
        queries: Q.
    """

    probability: np.ndarray
    wrong_share: np.ndarray
    recall: np.ndarray
    queries: int

    def recall_at(self, wrong_share: float) -> float:
        """The highest recall of a point with at most this share of wrong answers; 0 where there is no such point, and
        NaN without queries."""
        index = self._best(wrong_share)
        if index is None:
            return 0.0 if self.queries else np.nan
        return float(self.recall[index])

    def probability_at(self, wrong_share: float) -> float:
        """The least probability to ask for at that point; NaN where there is none."""
        index = self._best(wrong_share)
        return np.nan if index is None else float(self.probability[index])

    def _best(self, wrong_share: float) -> int | None:
        """Of the points with the highest recall that of the fewest answers."""
        enough = self.wrong_share <= wrong_share
        return int(np.argmax(np.where(enough, self.recall, -1))) if enough.any() else None


@dataclass(frozen=True)
class Reliability:
    """What the probabilities of a list of queries were worth.

    Attributes:
        queries: Q. answers: A. right: how many of these are right.
        calibration_error: `calibration_error`. area_under_roc: `area_under_roc`.
        bins: `calibration_bins`. curve: `recall_curve`.
    """

    queries: int
    answers: int
    right: int
    calibration_error: float
    area_under_roc: float
    bins: CalibrationBins
    curve: RecallCurve

    def recall_at(self, wrong_share: float) -> float:
        """`RecallCurve.recall_at`."""
        return self.curve.recall_at(wrong_share)

    def as_dict(self) -> dict:
        """For JSON, which has no NaN: null in its place."""

        def plain(value):
            if isinstance(value, dict):
                return {name: plain(v) for name, v in value.items()}
            if isinstance(value, np.ndarray):
                return [plain(v) for v in value.tolist()]
            return None if value != value else value

        at = {
            "wrong_share": LOW_WRONG_SHARE,
            "recall": self.recall_at(LOW_WRONG_SHARE),
            "probability": self.curve.probability_at(LOW_WRONG_SHARE),
        }
        return plain({**asdict(self), "at_low_wrong_share": at})


def measure_reliability(probability: np.ndarray, right: np.ndarray, queries: int | None = None) -> Reliability:
    """Everything of this module at once.

    Args:
        probability: (A,) float, of each answer to be right.
        right: (A,) bool, whether it is.
        queries: Q, of which the others abstained; A by default.

    Raises:
        InputError: a probability is not in [0, 1], the arrays are not of one length, or there are more answers than
            queries. Any other input is measured, none at all as well.
    """
    probability, right = np.asarray(probability, np.float64), np.asarray(right, bool)
    queries = probability.size if queries is None else queries
    if probability.ndim != 1 or probability.shape != right.shape or probability.size > queries:
        raise InputError(
            f"{probability.shape} probabilities, {right.shape} verdicts and {queries} queries do not fit",
            "give one of each for every answer, and no more answers than queries",
        )
    outside = probability[~((probability >= 0) & (probability <= 1))]
    if len(outside):
        raise InputError(f"the probability {outside[0]:g} is not in [0, 1]", "give those of a calibrated localizer")
    return Reliability(
        queries,
        len(probability),
        int(right.sum()),
        calibration_error(probability, right),
        area_under_roc(probability, right),
        calibration_bins(probability, right),
        recall_curve(probability, right, queries),
    )


def calibration_bins(probability: np.ndarray, right: np.ndarray) -> CalibrationBins:
    """The reliability diagram of (A,) probabilities in [0, 1] and (A,) bool verdicts."""
    edges = np.arange(1, BINS) / BINS
    which = np.searchsorted(edges, probability, side="right")
    count = np.bincount(which, minlength=BINS)
    hits = np.bincount(which, weights=right, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(which, weights=probability, minlength=BINS) / count
        share = hits / count
    low, high = binomial_interval(hits, count)
    return CalibrationBins(count, mean, share, low, high)


def binomial_interval(hits: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper ends of the 95 % intervals of the shares ``hits / count`` (Wilson, 1927), which hold also where
    all or none hit; NaN where ``count`` is 0."""
    z2 = NORMAL_95**2
    with np.errstate(invalid="ignore"):
        share = hits / count
        middle = (hits + z2 / 2) / (count + z2)
        half = NORMAL_95 * np.sqrt(share * (1 - share) * count + z2 / 4) / (count + z2)
    return np.minimum(middle - half, share).clip(0, 1), np.maximum(middle + half, share).clip(0, 1)


def calibration_error(probability: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error: the mean over all answers of the distance between the mean probability of their
    bin and the share of it that is right. The bins are the ten of equal width of `calibration_bins`, as in Guo et al.
    (2017).

    It is NaN without answers. Few answers scatter: also the error of true probabilities is above 0.
    """
    bins = calibration_bins(probability, right)
    if not bins.count.sum():
        return np.nan
    return float(np.nansum(bins.count * np.abs(bins.probability - bins.right)) / bins.count.sum())


def area_under_roc(probability: np.ndarray, right: np.ndarray) -> float:
    """The chance that a right answer has a higher probability than a wrong one: the share of all pairs of a right and a
    wrong answer in which it has, where a pair of equal probabilities counts one half. Counted in integers.

    It is NaN where no answer is right or none is wrong.
    """
    hits, misses = _by_probability(probability, right)
    pairs = int(hits.sum()) * int(misses.sum())
    if not pairs:
        return np.nan
    below = misses.sum() - np.cumsum(misses)
    return int((hits * (2 * below + misses)).sum()) / (2 * pairs)


def recall_curve(probability: np.ndarray, right: np.ndarray, queries: int) -> RecallCurve:
    """Recall against the share of wrong answers, of (A,) probabilities and (A,) bool verdicts of Q ``queries``."""
    hits, misses = (np.cumsum(counts) for counts in _by_probability(probability, right))
    thresholds = np.unique(probability)[::-1]
    return RecallCurve(thresholds, misses / (hits + misses), hits / max(queries, 1), queries)


def operating_point(right: np.ndarray, given: np.ndarray, queries: int) -> OperatingPoint:
    """What a rule comes to that gives those of the (A,) answers where ``given``, (A,) bool, is set."""
    answers, hits = int(np.sum(given)), int(np.sum(right & given))
    return OperatingPoint((answers - hits) / max(answers, 1), hits / queries if queries else np.nan)


def number_text(value: float) -> str:
    """A probability, or a measure of them, for people: "0.9951", or a dash for NaN."""
    return f"{value:.4f}" if np.isfinite(value) else "-"


def _by_probability(probability: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) int64 right and wrong answers of each distinct probability, the highest first."""
    distinct, which = np.unique(probability, return_inverse=True)
    hits = np.bincount(which, weights=right, minlength=len(distinct)).astype(np.int64)
    return hits[::-1], (np.bincount(which, minlength=len(distinct)) - hits)[::-1]
