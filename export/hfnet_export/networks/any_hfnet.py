"""What all HF-Nets share on their way to the device, ours and those of others: `AnyHFNet`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from hfnet_edge.errors import ModelError
from hfnet_edge.image.keypoints import detect, sample_descriptors
from hfnet_edge.networks.hfnet import Model, RawOutputs
from hfnet_edge.shell.quiet import quiet
from hfnet_export.tflite.rules import RECIPES
from hfnet_export.trained import THREADS, Converted, Outputs, Probes, Say, probes_of_images

NMS_RADIUS = 4


@dataclass(frozen=True)
class HFNetFidelity:
    """How close a model's outputs are to those of the float network, mean over images; 1 is equal.

    Attributes:
        keypoint_scores: correlation of the score maps.
        local_descriptors: cosine, at the float network's keypoints.
        global_descriptor: cosine.
    """

    keypoint_scores: float
    local_descriptors: float
    global_descriptor: float


FLOORS: dict[str, HFNetFidelity] = {
    "none": HFNetFidelity(0.9999, 0.9999, 0.9999),
    "fp16": HFNetFidelity(0.995, 0.995, 0.995),
    "dynamic": HFNetFidelity(0.95, 0.97, 0.9),
    "int8": HFNetFidelity(0.95, 0.97, 0.9),
}


@dataclass(frozen=True)
class AnyHFNet(ABC):
    """The part of a `hfnet_export.trained.TrainedNetwork` that does not depend on where an HF-Net comes from.

    Attributes:
        path: of its file or folder.
        input_size: height, width; multiples of 32.
    """

    path: Path
    input_size: tuple[int, int]

    recipes: ClassVar[Mapping[str, str]] = RECIPES
    floors: ClassVar[Mapping[str, HFNetFidelity]] = FLOORS

    @abstractmethod
    def convert(self, say: Say) -> Converted: ...

    def probe(self, calibration: Path | None, say: Say) -> Probes:
        return probes_of_images(calibration, self.input_size, say)

    def load(self, content: bytes) -> Callable[[np.ndarray], Outputs]:
        with quiet():
            model = Model("the new model", THREADS, content)
        return lambda image: {role: np.asarray(value) for role, value in model.run(image[None]).items()}

    def fidelity(self, outputs: Sequence[Outputs], reference: Sequence[Outputs]) -> HFNetFidelity:
        return compare([of_one_image(o) for o in outputs], [of_one_image(o) for o in reference])

    def say_converting(self, say: Say, parameters: int, how: str = "") -> None:
        """Says step 2."""
        size = f"{self.input_size[0]}x{self.input_size[1]}"
        say(2, f"converting {parameters / 1e6:.1f} M weights to float32 TFLite{how}, {size}")


def of_one_image(outputs: Outputs) -> RawOutputs:
    """The outputs of a batch of one."""
    return RawOutputs(**{role: value[0] for role, value in outputs.items()})


def check_values(outputs: Outputs) -> None:
    """The keypoint output holds what its role says. Raises ModelError."""
    logits, scores = outputs.get("keypoint_logits"), outputs.get("keypoint_scores")
    if logits is not None and logits.min() >= 0 and np.allclose(logits.sum(axis=-1), 1, atol=1e-3):
        raise ModelError(
            "the keypoint logits are probabilities already", "name the dense scores instead: --outputs scores=NAME"
        )
    if scores is not None and not (scores.min() >= -1e-3 and scores.max() <= 1 + 1e-3):
        raise ModelError(
            f"the keypoint scores lie between {scores.min():.3g} and {scores.max():.3g}, but are probabilities",
            "name the right output: --outputs scores=NAME, or export it after the softmax",
        )


def compare(outputs: Sequence[RawOutputs], reference: Sequence[RawOutputs]) -> HFNetFidelity:
    """Compares a model's outputs with the float network's, image by image."""
    correlations, local_cosines, global_cosines = [], [], []
    for ours, theirs in zip(outputs, reference, strict=True):
        scores = theirs.scores()
        correlations.append(np.corrcoef(_spread(ours.scores()).ravel(), _spread(scores).ravel())[0, 1])
        xy, _ = detect(scores, scores.shape, count=1000, threshold=1e-6)
        a, b = (sample_descriptors(o.descriptor_maps, xy).astype(np.float64) for o in (ours, theirs))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        local_cosines.append(np.mean((a * b).sum(axis=1) / np.maximum(lengths, 1.0)))
        a, b = (np.asarray(o.global_descriptor, np.float64) for o in (ours, theirs))
        global_cosines.append(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
    return HFNetFidelity(*(float(np.mean(values)) for values in (correlations, local_cosines, global_cosines)))


def _spread(scores: np.ndarray) -> np.ndarray:
    """A score map to compare. After suppression its peaks are widened to 5x5 pixels, for some move by one; as they are
    the bundled network at int8 correlates with itself in float to 0.928, widened 0.975, before suppression 0.994."""
    suppressed = np.count_nonzero(scores) < 0.1 * scores.size
    return cv2.dilate(scores, np.ones((5, 5), np.uint8)) if suppressed else scores
