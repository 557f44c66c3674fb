"""What left-out reference images say of a packed map's probabilities.

Each is localized in the map without it: as it is, sought where it was not taken, and with its keypoints thrown about.
The last two make wrong poses, whose points only this map can tell: chance finds more where landmarks are dense or
alike. By all of them points are moved (Platt scaling), as far as so few images can be believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.calibration import LOGIT, MAX_OFFSET, MAX_SLOPE, UNIT, Calibration
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.trust.probability import InTolerance, default_judge, probability
from hfnet_edge.trust.tolerance import RIGHT, Tolerance
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.evaluation.reliability import Reliability, measure_reliability, number_text
from hfnet_maps.pack.folds import LeftOut

WHATEVER = 1 - 1e-7  # `LocalizationConfig.max_wrong`: poses are wanted whatever they are worth
BORDERLINE = 2.0  # a pose is wrong beyond so many `RIGHT`; between one and these it is neither
TOLERANCES = tuple(Tolerance(0.0125 * s, 2.0 * s, relative=True) for s in (0.05, 0.1, 0.2, 0.4, 1.0, 2.0))
SABOTAGED = 0.5  # weight of a sabotaged image's pose, of which there are two
PRIOR = np.array([0.15, 0.7])  # standard deviations of the slope, and of the offset in logits: few images move little
STEPS = 50


@dataclass(frozen=True)
class Trial:
    """A pose that a left-out image got; T tolerances.

    Attributes:
        image: its number. sabotaged: the pose had to be wrong.
        error: of the pose, in `RIGHT`; 1 is the limit.
        right: points, without a calibration, of it being right.
        precise: (T,) int64 points of it being within each of `TOLERANCES` where it is right.
        within: (T,) bool, whether it is.
    """

    image: int
    sabotaged: bool
    error: float
    right: int
    precise: np.ndarray
    within: np.ndarray


@dataclass(frozen=True)
class Calibrated:
    """A map's calibration, and what probabilities are worth without it and with it.

    Attributes:
        right: images that got a pose that is right, of `Calibration.images`.
        before, after: of each left-out image in each of `TOLERANCES`. After: each image by what the others say.
    """

    calibration: Calibration
    right: int
    before: Reliability
    after: Reliability

    def __str__(self) -> str:
        was, now = (number_text(r.calibration_error) for r in (self.before, self.after))
        return (
            f"calibrated on {self.calibration.images} left-out images, {self.right} of them right: the error of "
            f"probabilities goes from {was} to {now}"
        )


def calibrate(
    maps: Iterable[tuple[LocalizationMap, Sequence[LeftOut]]],
    images: int,
    config: LocalizationConfig,
    progress: Report = silent,
) -> Calibrated:
    """Localizes left-out images, and moves points as their poses say.

    Args:
        maps: and of each the images that it lacks. images: their number in all.
        config: of the search; its ``max_wrong`` is not asked.
    """
    trials: list[Trial] = []
    done = 0
    for map_, queries in maps:
        for query in queries:
            progress("calibrating", done, images)
            trials += try_out(map_, query, done, config)
            done += 1
    progress("calibrating", done, images)
    fitted = replace(calibration_of(trials), images=images)
    plain = [t for t in trials if not t.sabotaged]
    others = {t.image: calibration_of([o for o in trials if o.image != t.image]) for t in plain}
    within = np.array([t.within for t in plain], bool).ravel()
    before, after = (
        measure_reliability(
            np.array([_probabilities(t, by(t)) for t in plain]).ravel(), within, images * len(TOLERANCES)
        )
        for by in (lambda _: Calibration(), lambda t: others[t.image])
    )
    return Calibrated(fitted, sum(t.error <= 1 for t in plain), before, after)


def try_out(map_: LocalizationMap, query: LeftOut, image: int, config: LocalizationConfig) -> Iterator[Trial]:
    """The pose of an image in a map without it, and the wrong ones that it gets sabotaged; none that is not found."""
    if not np.isfinite(query.depth):
        return
    config, features = replace(config, max_wrong=WHATEVER), query.features
    for sabotaged, seen in ((False, features), (True, elsewhere(features)), (True, scattered(features))):
        trial = _trial(map_, replace(query, features=seen), image, sabotaged, config)
        # Where the place is found all the same, that is the same pose again.
        if trial is not None and (not sabotaged or trial.error > BORDERLINE):
            yield trial


def elsewhere(features: Features) -> Features:
    """The query, sought among the reference images that are least like it."""
    return replace(features, global_descriptor=np.negative(features.global_descriptor))


def scattered(features: Features) -> Features:
    """The query with its keypoints in each other's places: what is found in it is chance."""
    order = np.random.default_rng(0).permutation(len(features.keypoints))
    return replace(features, keypoints=features.keypoints[order])


def calibration_of(trials: Sequence[Trial]) -> Calibration:
    """How points are to be moved; hardly, where there are few trials."""
    clear = [t for t in trials if t.error <= 1 or t.error > BORDERLINE]
    right_slope, right_offset = fit(
        np.array([t.right for t in clear]),
        np.array([t.error <= 1 for t in clear]),
        np.array([SABOTAGED if t.sabotaged else 1.0 for t in clear]),
    )
    found = [t for t in trials if t.error <= BORDERLINE]
    precise = np.array([t.precise for t in found]).ravel()
    within = np.array([t.within for t in found], bool).ravel()
    precise_slope, precise_offset = fit(precise, within, np.full(len(precise), 1 / len(TOLERANCES)))
    return Calibration(right_slope, right_offset, precise_slope, precise_offset)


def fit(points: np.ndarray, hit: np.ndarray, weights: np.ndarray) -> tuple[int, int]:
    """Slope and offset that move points to what they are worth: logistic regression, drawn to slope 1 and offset 0 by a
    normal distribution of `PRIOR`; the maximum of the posterior, by Newton's method.

    Args:
        points: (N,) int. hit: (N,) bool. weights: (N,) of each.

    Returns:
        As `hfnet_edge.map.calibration.Calibration` has them.
    """
    x = np.stack([points / LOGIT, np.ones(len(points))], axis=1)
    side, unmoved, drawn = np.where(hit, 1.0, -1.0), np.array([1.0, 0.0]), 1 / np.square(PRIOR)

    def loss(p: np.ndarray) -> float:
        return float(weights @ np.logaddexp(0, -side * (x @ p)) + 0.5 * drawn @ np.square(p - unmoved))

    p = unmoved
    for _ in range(STEPS):
        missed = np.exp(-np.logaddexp(0, side * (x @ p)))  # probability of what did not happen
        slope = drawn * (p - unmoved) - x.T @ (weights * side * missed)
        step = np.linalg.solve((x.T * (weights * missed * (1 - missed))) @ x + np.diag(drawn), slope)
        while loss(p - step) > loss(p) and np.abs(step).max() > 1e-9:
            step = step / 2
        p = p - step
        if np.abs(step).max() < 1e-6:
            break
    slope_, offset = round(UNIT * p[0]), round(LOGIT * p[1])
    return min(max(slope_, 1), MAX_SLOPE), min(max(offset, -MAX_OFFSET), MAX_OFFSET)


def _trial(
    map_: LocalizationMap, query: LeftOut, image: int, sabotaged: bool, config: LocalizationConfig
) -> Trial | None:
    result = localize_features(map_, query.features, query.camera, config)
    if result.pose is None or result.evidence is None:
        return None
    position, rotation = pose_error(result.pose, query.pose)
    shift, judge = 0.0 if result.intrinsics is None else result.intrinsics.shift, default_judge()
    points, within = [], []
    for near, turned in (tolerance.at(query.depth) for tolerance in TOLERANCES):
        spread = InTolerance(result.position_std / near, result.rotation_std / turned, shift / near)
        points.append(judge.precise_points(result.evidence, spread, Calibration()))
        within.append(position <= near and rotation <= turned)
    far, awry = RIGHT.at(query.depth)
    error = max(position / far, rotation / awry)
    right = judge.right_points(result.evidence, Calibration())
    return Trial(image, sabotaged, error, right, np.array(points), np.array(within))


def _probabilities(trial: Trial, calibration: Calibration) -> list[float]:
    """Of the pose being within each of `TOLERANCES`."""
    right = probability(calibration.right(trial.right))
    return [right * probability(calibration.precise(int(points))) for points in trial.precise]
