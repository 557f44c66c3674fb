"""Whether a quantized model may ship: what it loses against the reference, in recall and in medians, on a bundle.

Gate(Path("scene.bundle"), "1pt, 1.1x")(content) -> GateResult
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfnet_device.backends import Host
from hfnet_edge.errors import InputError, RecordingError
from hfnet_edge.recording import Recording
from hfnet_edge.runner import MAP
from hfnet_maps.evaluation import Threshold
from hfnet_parity.bundle import Bundle
from hfnet_parity.compare import check_kernels, errors_of, median_ratio, recalls_of
from hfnet_parity.run import run_on

FEW = 20  # queries, below which recall and medians jump


@dataclass(frozen=True)
class GateResult:
    """What a model loses.

    Attributes:
        passed: it loses no more than it may.
        recalls: share of the queries within each threshold; ``reference_recalls`` of the float network.
        median: of the errors, metres and degrees; ``reference_median`` of the float network.
        lost: points of recall, at the threshold that loses most.
        ratio: of the medians, the larger of the two.
        thresholds: of the recalls.
    """

    passed: bool
    recalls: tuple[float, ...]
    median: tuple[float, float]
    reference_recalls: tuple[float, ...]
    reference_median: tuple[float, float]
    lost: float
    ratio: float
    thresholds: tuple[Threshold, ...]

    def __str__(self) -> str:
        recalls = ", ".join(f"{100 * r:.1f}" for r in self.recalls)
        return (
            f"{'passed' if self.passed else 'failed'}: recall {recalls} %, median {self.median[0]:.4f} m "
            f"{self.median[1]:.4f}°; loses {self.lost:.1f} pt, {self.ratio:.3f}x"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON, infinity as null."""

        def number(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return [number(v) for v in value]
            return None if isinstance(value, float) and not np.isfinite(value) else value

        fields = {name: number(value) for name, value in asdict(self).items() if name != "thresholds"}
        return fields | {"thresholds": [[t.position, t.rotation] for t in self.thresholds]}


class Gate:
    """A bundle with true poses and a map, and what may be lost.

    Raises:
        InputError: ``max_loss`` is not one, or the float network localizes too little to lose anything.
        RecordingError: the bundle is damaged, or lacks true poses, the map or some query's pose.
    """

    def __init__(self, path: Path, max_loss: str = "1pt, 1.1x"):
        self.points, self.factor = parse_max_loss(max_loss)
        self.bundle = Bundle.read(path)
        names = [q.name for q in self.bundle.recording.queries]
        if MAP not in self.bundle.members or set(names) - set(self.bundle.truth):
            raise RecordingError(
                f"{path} has no {'map' if MAP not in self.bundle.members else 'true poses'}, so nothing can be gated",
                "record it with --model, --map and --reference",
            )
        self._reference = errors_of(self.bundle.recording, self.bundle.truth)
        if not np.isfinite(np.median(self._reference, axis=0)).all():
            raise InputError(
                f"the float network of {path} localizes less than half of the queries", "record another list of queries"
            )

    def __call__(self, content: bytes) -> GateResult:
        """Judges a .tflite on this machine's XNNPACK. Raises ModelError, MismatchError, BackendError."""
        with tempfile.TemporaryDirectory() as folder:
            model, m = Path(folder) / "candidate.tflite", Path(folder) / MAP
            model.write_bytes(content)
            m.write_bytes(self.bundle.member(MAP))
            run = run_on(Host(), self.bundle, model, m)
        return self.judge(run)

    def judge(self, run: Recording) -> GateResult:
        """What a run on the bundle's queries and map loses."""
        check_kernels(self.bundle.recording, run)
        errors, thresholds = errors_of(run, self.bundle.truth), self.bundle.thresholds
        before, after = (recalls_of(e, thresholds) for e in (self._reference, errors))
        lost, ratio = float((before - after).max()), median_ratio(self._reference, errors)
        return GateResult(
            lost <= self.points and ratio <= self.factor,
            tuple(float(r) / 100 for r in after),
            _median(errors),
            tuple(float(r) / 100 for r in before),
            _median(self._reference),
            lost,
            ratio,
            thresholds,
        )


def _median(errors: np.ndarray) -> tuple[float, float]:
    position, rotation = np.median(errors, axis=0)
    return float(position), float(rotation)


def parse_max_loss(text: str) -> tuple[float, float]:
    """Points of recall and factor of the medians: ``"1pt, 1.1x"``. Raises InputError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*pt\s*,\s*(\d+(?:\.\d+)?)\s*x\s*", text)
    if not found or float(found[2]) < 1:
        raise InputError(f"--max-loss {text!r} is not one", 'write points of recall and a factor: "1pt, 1.1x"')
    return float(found[1]), float(found[2])
