"""How far the poses that were found are from the true ones: the visual localization benchmarks' measures.

A query without a pose counts against the recall and as an infinite error in the medians, so that abstaining never
improves a number. Lengths are in the unit of the true poses: metres where those are metric, which nothing here knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose


@dataclass(frozen=True)
class Threshold:
    """A query is localized within it when both of its errors are at most: ``position``, a length, and ``rotation``,
    degrees."""

    position: float
    rotation: float

    def __str__(self) -> str:
        return errors_text(self.position, self.rotation)


# The Aachen benchmark's for day (HF-Net, table 3).
THRESHOLDS = (Threshold(0.25, 2), Threshold(0.5, 5), Threshold(5, 10))


@dataclass(frozen=True)
class Evaluation:
    """Errors of a list of queries; Q queries.

    Attributes:
        names: Q names.
        position_errors: (Q,) float64 distances between the camera centres; inf where there is no pose.
        rotation_errors: (Q,) float64 angles, degrees; inf where there is no pose.
        thresholds: T of them.
        recalls: T fractions of all queries that are within the threshold.
    """

    names: tuple[str, ...]
    position_errors: np.ndarray
    rotation_errors: np.ndarray
    thresholds: tuple[Threshold, ...]
    recalls: tuple[float, ...]

    @property
    def localized(self) -> np.ndarray:
        """(Q,) bool."""
        return np.isfinite(self.position_errors)

    @property
    def abstentions(self) -> int:
        """Queries without a pose."""
        return int((~self.localized).sum())

    @property
    def median(self) -> tuple[float, float]:
        """Length and degrees over all queries, those without a pose as infinite."""
        return float(np.median(self.position_errors)), float(np.median(self.rotation_errors))

    @property
    def median_localized(self) -> tuple[float, float]:
        """Length and degrees over the queries with a pose; inf where there are none."""
        if not self.localized.any():
            return np.inf, np.inf
        return (
            float(np.median(self.position_errors[self.localized])),
            float(np.median(self.rotation_errors[self.localized])),
        )

    def as_dict(self) -> dict:
        """For JSON, which has no infinity: null in its place."""

        def number(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return {
            "queries": len(self.names),
            "abstentions": self.abstentions,
            "recalls": [
                {"position": t.position, "rotation_deg": t.rotation, "recall": r}
                for t, r in zip(self.thresholds, self.recalls, strict=True)
            ],
            "median_position": number(self.median[0]),
            "median_rotation_deg": number(self.median[1]),
            "median_localized_position": number(self.median_localized[0]),
            "median_localized_rotation_deg": number(self.median_localized[1]),
            "errors": {
                name: {"position": number(p), "rotation_deg": number(r)}
                for name, p, r in zip(self.names, self.position_errors, self.rotation_errors, strict=True)
            },
        }


def plain(value: float, digits: int = 3) -> str:
    """A length without an exponent, to as many significant digits: "0.022", "1230", "inf"."""
    return np.format_float_positional(value, precision=digits, fractional=False, trim="-")


def errors_text(position: float, rotation: float) -> str:
    """For people: "0.022 units, 0.035°"."""
    return f"{plain(position)} units, {plain(rotation)}°"


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """Reads ``"0.25,2 0.5,5 5,10"``: lengths, degrees. Raises InputError."""
    thresholds = []
    for pair in text.split():
        try:
            position, rotation = (float(value) for value in pair.split(","))
        except ValueError:
            position = rotation = np.nan
        if not (0 < position < np.inf and 0 < rotation < np.inf):
            raise InputError(f"{pair!r} is not a threshold", 'write length,degrees like "0.25,2 0.5,5 5,10"')
        thresholds.append(Threshold(position, rotation))
    if not thresholds:
        raise InputError("there are no thresholds", 'write length,degrees like "0.25,2 0.5,5 5,10"')
    return tuple(thresholds)


def pose_error(found: Pose, true: Pose) -> tuple[float, float]:
    """Distance of the camera centres, and angle between the rotations in degrees.

    The angle comes from atan2 of the relative quaternion, which unlike the trace's arccos keeps its digits below 1e-6
    degrees.
    """
    a, b = (np.asarray(p.quaternion, np.float64) / np.linalg.norm(p.quaternion) for p in (found, true))
    scalar = a @ b
    vector = b[0] * a[1:] - a[0] * b[1:] - np.cross(a[1:], b[1:])  # of found * conjugate(true)
    angle = 2 * np.degrees(np.arctan2(np.linalg.norm(vector), abs(scalar)))
    return float(np.linalg.norm(found.center - true.center)), float(angle)


def pose_errors(found: Mapping[str, Pose], true: Mapping[str, Pose], queries: Sequence[str]) -> np.ndarray:
    """(Q, 2) float64 lengths and degrees; infinite where no pose was found."""
    return np.array([pose_error(found[name], true[name]) if name in found else (np.inf, np.inf) for name in queries])


def within(errors: np.ndarray, thresholds: Sequence[Threshold]) -> np.ndarray:
    """(T, ...) int64 how many of (..., Q, 2) errors are within each threshold."""
    return np.array([(errors <= (t.position, t.rotation)).all(axis=-1).sum(axis=-1) for t in thresholds])


def evaluate(
    found: Mapping[str, Pose],
    true: Mapping[str, Pose],
    queries: Sequence[str],
    thresholds: Sequence[Threshold] = THRESHOLDS,
) -> Evaluation:
    """Errors and recalls of all ``queries``; poses of other images are ignored.

    Raises:
        InputError: no or repeated queries, a query has no true pose, or the poses are all of other images.
    """
    if not queries:
        raise InputError("there are no queries to evaluate", "list them, one a line")
    if len(set(queries)) != len(queries):
        repeated = sorted(name for name in set(queries) if list(queries).count(name) > 1)
        raise InputError(f"the query {repeated[0]} is listed twice", "keep one line per query")
    unknown = [name for name in queries if name not in true]
    if unknown:
        raise InputError(
            f"the reference has no pose for {len(unknown)} of {len(queries)} queries, first {unknown[0]}",
            f"its names look like {next(iter(true), 'nothing')}: correct --queries or --reference",
        )
    if found and not set(found) & set(queries):
        raise InputError(
            f"none of the {len(found)} poses is of a query: they are of {next(iter(found))} and so on",
            "give the list that was localized",
        )
    errors = pose_errors(found, true, queries)
    position, rotation = errors.T
    recalls = tuple(float(count) / len(queries) for count in within(errors, thresholds))
    return Evaluation(tuple(queries), position, rotation, tuple(thresholds), recalls)
