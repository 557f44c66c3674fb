"""Whether a quantized model may ship: what it loses against the reference, in recall and in medians, on a bundle.

    Gate(Path("scene.bundle"), "1pt, 1.1x")(content) -> GateResult

Recall is taken at its word. The ratio of medians fails only where its 95 % interval lies beyond the limit, as in the
report: moving operators to float until a few queries' medians agree by chance is not what a gate is for.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hfnet_device.backends import Host
from hfnet_edge.errors import InputError, MismatchError, RecordingError
from hfnet_edge.networks.description import Description
from hfnet_edge.record.recording import Recording, digest
from hfnet_edge.record.runner import MAP
from hfnet_edge.shell.reading import read_bytes
from hfnet_maps.evaluation.errors import Threshold
from hfnet_parity.bundle import Bundle
from hfnet_parity.compare import check_kernels, errors_of, interval, median_ratio, recall_lost, recalls_of
from hfnet_parity.run import run_on

FEW = 20  # queries, below which medians prove little


@dataclass(frozen=True)
class GateResult:
    """What a model loses.

    Attributes:
        passed: it loses no more than it may.
        recalls: share of the queries within each threshold; ``reference_recalls`` of the float network.
        median: of the errors, metres and degrees; ``reference_median`` of the float network.
        lost: points of recall, at the threshold that loses most.
        ratio: of the medians, the larger of the two; ``ratio_low`` the lower end of its 95 % interval.
        thresholds: of the recalls.
    """

    passed: bool
    recalls: tuple[float, ...]
    median: tuple[float, float]
    reference_recalls: tuple[float, ...]
    reference_median: tuple[float, float]
    lost: float
    ratio: float
    ratio_low: float
    thresholds: tuple[Threshold, ...]

    def __str__(self) -> str:
        recalls = ", ".join(f"{100 * r:.1f}" for r in self.recalls)
        return (
            f"{'passed' if self.passed else 'failed'}: recall {recalls} %, median {self.median[0]:.4f} m "
            f"{self.median[1]:.4f}°; loses {self.lost:.1f} pt, {self.ratio:.3f}x (at least {self.ratio_low:.3f}x)"
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
        RecordingError: the bundle is damaged, lacks true poses, the map or some query's pose, or is of another method.
    """

    def __init__(self, path: Path, max_loss: str = "1pt, 1.1x"):
        self.points, self.factor = parse_max_loss(max_loss)
        self.bundle = Bundle.read(path)
        recording = self.bundle.recording
        names, about = [q.name for q in recording.queries], recording.about
        if recording.has_patch_network or recording.method != "hierarchical":
            patches = " with a patch network" if recording.has_patch_network else ""
            raise RecordingError(
                f"{path} is of the method {recording.method}{patches}, a gate judges HF-Net alone",
                "record it with --method hierarchical, in a map that HF-Net alone describes",
            )
        if about.get("precision") != "none":
            raise RecordingError(
                f"{path} is of a network in {about.get('precision', 'unknown precision')}, a gate is of one in float",
                "record it with a float --model",
            )
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

    @property
    def about(self) -> dict[str, Any]:
        """The hash of the bundle, and what may be lost."""
        return {"bundle": digest(read_bytes(self.bundle.path)), "points": self.points, "factor": self.factor}

    def check(self, description: Description) -> None:
        """The bundle is of this network. Raises MismatchError."""
        recorded = self.bundle.recording.about["weights_hash"]
        if recorded != description.weights_hash:
            raise MismatchError(
                f"{self.bundle.path} was recorded with the weights {recorded}, the network has "
                f"{description.weights_hash}",
                "record it with this network, and with a map that was built with it",
            )

    def __call__(self, content: bytes) -> GateResult:
        """Judges a .tflite on this machine's XNNPACK. Raises ModelError, MismatchError, BackendError."""
        with tempfile.TemporaryDirectory() as folder:
            model, m = Path(folder) / "candidate.tflite", Path(folder) / MAP
            model.write_bytes(content)
            m.write_bytes(self.bundle.member(MAP))
            run = run_on(Host(), self.bundle, [model], m)
        return self.judge(run)

    def judge(self, run: Recording) -> GateResult:
        """What a run on the bundle's queries and map loses."""
        check_kernels(self.bundle.recording, run)
        errors, thresholds = errors_of(run, self.bundle.truth), self.bundle.thresholds
        before, after = (recalls_of(e, thresholds) for e in (self._reference, errors))
        lost = float(recall_lost(self._reference, errors, thresholds))
        ratio, ratio_low, _ = interval(len(errors), lambda rows: median_ratio(self._reference[rows], errors[rows]))
        return GateResult(
            bool(lost <= self.points and np.isfinite(ratio) and ratio_low <= self.factor),
            tuple(float(r) / 100 for r in after),
            _median(errors),
            tuple(float(r) / 100 for r in before),
            _median(self._reference),
            lost,
            ratio,
            ratio_low,
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
