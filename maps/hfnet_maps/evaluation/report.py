"""What `hfnet-localize --report` said of its queries, for comparison with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.shell.reading import parse_json, read_text
from hfnet_maps.evaluation.errors import Evaluation, Threshold
from hfnet_maps.evaluation.reliability import OperatingPoint, Reliability, measure_reliability, operating_point

AGAIN = "localize again, with -o and --report of one run"
INLIERS = 25  # asked for by the rule that probabilities are compared with
ROUNDING = 1e-9  # relative: pose lists have twelve digits


@dataclass(frozen=True)
class ReportedAnswer:
    """A pose, and what speaks for it.

    Attributes:
        pose: cam_from_world, in the map's unit.
        probability: that it is within the report's tolerance, 0 to 1.
        inliers: how many of the method's own matches support it; of all matches in a report that does not tell them
            apart.
    """

    pose: Pose
    probability: float
    inliers: int


@dataclass(frozen=True)
class Report:
    """A report as it was read.

    Attributes:
        path: of the file.
        answers: by query; None for those without a pose, for whatever reason.
        tolerance: within which the probabilities say that the poses are, in the map's unit; None without answers.
    """

    path: Path
    answers: dict[str, ReportedAnswer | None]
    tolerance: Threshold | None

    def check(self, found: Mapping[str, Pose], queries: Sequence[str]) -> None:
        """Whether the report tells of these queries, and of these poses of them.

        Raises:
            InputError: it lacks a query, or has other poses than ``found``, which is cam_from_world by name.
        """
        lacking = [name for name in queries if name not in self.answers]
        if lacking:
            raise InputError(f"{self.path} lacks {len(lacking)} of {len(queries)} queries, first {lacking[0]}", AGAIN)
        for name in queries:
            pose, answer = found.get(name), self.answers[name]
            if (pose is None) != (answer is None) or (pose and answer and not _same(pose, answer.pose)):
                raise InputError(f"{self.path} has another answer to {name} than the list of poses", AGAIN)


@dataclass(frozen=True)
class Judgement:
    """What a report's probabilities were worth.

    Attributes:
        reliability: of the answers.
        tolerance: within which an answer is right, in the true poses' unit; None without answers.
        rules: what other ways to pick answers come to, by what they are called.
    """

    reliability: Reliability
    tolerance: Threshold | None
    rules: dict[str, OperatingPoint]

    def as_dict(self) -> dict:
        """For JSON."""
        tolerance = None if self.tolerance is None else [self.tolerance.position, self.tolerance.rotation]
        return {
            "tolerance": tolerance,
            **self.reliability.as_dict(),
            "rules": {
                rule: {"wrong_share": point.wrong_share, "recall": point.recall} for rule, point in self.rules.items()
            },
        }


def judge(report: Report, evaluation: Evaluation, scale: float = 1.0) -> Judgement:
    """Compares what a report says of the queries of ``evaluation``, which `Report.check` has seen, with their errors.

    Rules are judged by the answers that the report has: what the localizer rejected, no rule brings back.

    Args:
        scale: how long the map's unit is in that of ``evaluation``.
    """
    tolerance = (
        None if report.tolerance is None else replace(report.tolerance, position=scale * report.tolerance.position)
    )
    rows = [(row, answer) for row, name in enumerate(evaluation.names) if (answer := report.answers[name]) is not None]
    which = [row for row, _ in rows]
    right = np.zeros(len(rows), bool)
    if tolerance is not None:
        right = evaluation.position_errors[which] <= tolerance.position
        right &= evaluation.rotation_errors[which] <= tolerance.rotation
    queries = len(evaluation.names)
    enough = np.array([answer.inliers >= INLIERS for _, answer in rows], bool)
    return Judgement(
        measure_reliability(np.array([answer.probability for _, answer in rows]), right, queries),
        tolerance,
        {f"{INLIERS} inliers or more": operating_point(right, enough, queries)},
    )


def read_report(path: Path | str) -> Report:
    """Reads the JSON lines of a report; of fields that it does not know it takes no notice.

    Raises:
        InputError: a line is missing, malformed, or of a version that knew no probabilities; a query has two lines, or
            the lines have several tolerances.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not text"
        raise InputError(f"cannot read {path}: {reason}", "check the file's name") from e
    answers: dict[str, ReportedAnswer | None] = {}
    tolerances: set[Threshold] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            name, answer, tolerance = _parse(line)
            if name in answers:
                raise ValueError(f"{name} has a line already")
        except _OlderVersionError as e:
            raise InputError(
                f"{path}, line {number}: there is no probability: an older version wrote it", "localize again"
            ) from e
        except ValueError as e:
            raise InputError(f"{path}, line {number} is no line of a report ({e})", AGAIN) from e
        answers[name] = answer
        if tolerance is not None:
            tolerances.add(tolerance)
    if not answers:
        raise InputError(f"{path} tells of no query", "give what `hfnet-localize --report` wrote")
    if len(tolerances) > 1:
        several = " and ".join(sorted(str(t) for t in tolerances)[:2])
        raise InputError(f"{path} has probabilities of several tolerances: {several}", "localize all in one run")
    return Report(Path(path), answers, next(iter(tolerances), None))


class _OlderVersionError(Exception):
    """A line has a pose without a probability."""


def _parse(line: str) -> tuple[str, ReportedAnswer | None, Threshold | None]:
    """Query, answer, and tolerance of the answer. Raises ValueError, and `_OlderVersionError`."""
    fields = parse_json(line)
    if not isinstance(fields, dict) or not isinstance(fields.get("query"), str):
        raise ValueError("it is no JSON object with a query")
    if fields.get("probability") is not None:
        _probability(fields)
    if fields.get("qvec") is None:
        return fields["query"], None, None
    if "probability" not in fields:
        raise _OlderVersionError
    probability = _probability(fields)
    pose = Pose.from_values([*_numbers("qvec", fields["qvec"], 4), *_numbers("tvec", fields.get("tvec"), 3)])
    position, rotation = _numbers("tolerance", fields.get("tolerance"), 2)
    if not (0 < position < np.inf and 0 < rotation < np.inf):
        raise ValueError("the tolerance is not a length and an angle")
    (inliers,) = _numbers("inliers", [fields.get("first_inliers", fields.get("inliers"))], 1)
    if not 0 <= inliers < np.inf or inliers != int(inliers):
        raise ValueError("the inliers are not a number of matches")
    return fields["query"], ReportedAnswer(pose, probability, int(inliers)), Threshold(position, rotation)


def _probability(fields: dict[str, Any]) -> float:
    """Raises ValueError."""
    (probability,) = _numbers("probability", [fields["probability"]], 1)
    if not 0 <= probability <= 1:
        raise ValueError(f"the probability {probability:g} is not in [0, 1]")
    return probability


def _numbers(what: str, values: Any, count: int) -> list[float]:
    """Raises ValueError where ``values`` is not so many numbers."""
    if isinstance(values, list) and len(values) == count and all(type(v) in (int, float) for v in values):
        try:
            return [float(v) for v in values]
        except OverflowError:
            pass
    raise ValueError(f"{what} is missing or malformed")


def _same(a: Pose, b: Pose) -> bool:
    """Whether two files have one pose, but for their digits."""
    turned = a.quaternion if a.quaternion @ b.quaternion >= 0 else -a.quaternion
    apart = np.abs(a.translation - b.translation).max() / max(1.0, np.abs(b.translation).max())
    return bool(apart < ROUNDING and np.abs(turned - b.quaternion).max() < ROUNDING)
