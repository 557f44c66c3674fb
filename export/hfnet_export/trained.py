"""What differs from one network to the next where `hfnet_export.export` is concerned: `TrainedNetwork`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from hfnet_edge.networks.description import Description
from hfnet_export.tflite.calibration import BUILT_IN, MAX_PHOTOS, built_in_images, photos
from hfnet_export.tflite.checks import Fidelity
from hfnet_export.tflite.graph import Graph

THREADS = 2  # of an interpreter
COMPARED, CHECKED = 16, 2  # images: with the float network's outputs, and these with the original's

Outputs = Mapping[str, np.ndarray]
"""By role, float32, the batch first."""

Say = Callable[[int, str], None]
"""Called with the number of a step, from 1 on, and what is done next."""


def nothing_to_check(outputs: Outputs) -> None:
    """Any outputs will do."""


@dataclass(frozen=True)
class Converted:
    """A network in float32 TFLite.

    Attributes:
        graph: the .tflite, without its description.
        description: with precision "none".
        parameters: number of weights, for `hfnet_export.tflite.checks.check_size`.
        original: the network as it was, on one input, (N, H, W, 1) float32.
        processor: that the original runs on: "CPU, TensorFlow", "GPU, ONNX Runtime CUDA", ...
        tolerance: of `hfnet_export.tflite.checks.check_float`.
        check: raises ModelError for outputs that are not what their roles say.
    """

    graph: Graph
    description: Description
    parameters: int
    original: Callable[[np.ndarray], Outputs]
    processor: str
    tolerance: float = 1e-3
    check: Callable[[Outputs], None] = nothing_to_check


@dataclass(frozen=True)
class Probes:
    """What a network is shown on its way: pixels, uint8, each as the loaded network takes it.

    Attributes:
        calibration: to find the ranges of its layers; photos, or pieces of photos, of all kinds.
        compared: for the comparison with the float network.
        checked: few of them, for the comparison of the float network with the original.
        timed: what it is timed on.
        compares: said of ``compared``: "outputs on 16 images".
        unit: of what ``timed`` is made: "images"; ``count`` is how many.
    """

    calibration: Sequence[np.ndarray]
    compared: Sequence[np.ndarray]
    checked: Sequence[np.ndarray]
    timed: np.ndarray
    compares: str
    unit: str = "images"
    count: int = 1


def probes_of_images(calibration: Path | None, input_size: tuple[int, int], say: Say) -> Probes:
    """Those of a network that sees whole images; says step 3.

    Raises:
        InputError: no images in the folder; ImageError names the one that does not load.
    """
    if calibration is None:
        say(3, f"making {BUILT_IN} images; photos of the place are better: --calibration DIR")
        images = built_in_images(input_size)
    else:
        say(3, f"reading up to {MAX_PHOTOS} photos from {calibration}")
        images = photos(calibration, input_size)
    compared = images[:: max(1, len(images) // COMPARED)][:COMPARED]
    return Probes(images, compared, compared[:CHECKED], images[0], f"outputs on {len(compared)} images")


class TrainedNetwork(Protocol):
    """A network with its weights, to be exported."""

    @property
    def recipes(self) -> Mapping[str, str]:
        """What can be asked for, "none", "int8", ..., to the name of a recipe of `hfnet_export.tflite.rules`."""
        ...

    @property
    def floors(self) -> Mapping[str, Fidelity]:
        """What the fidelity has to reach, for each of them."""
        ...

    def convert(self, say: Say) -> Converted:
        """Builds it and converts it; says steps 1 and 2. Raises InputError, ModelError."""
        ...

    def probe(self, calibration: Path | None, say: Say) -> Probes:
        """Reads photos of a folder, or makes images by code; says step 3. Raises InputError."""
        ...

    def load(self, content: bytes) -> Callable[[np.ndarray], Outputs]:
        """The runtime's network for a .tflite with its description, on `THREADS` threads."""
        ...

    def fidelity(self, outputs: Sequence[Outputs], reference: Sequence[Outputs]) -> Fidelity:
        """Compares outputs with the float network's, probe by probe."""
        ...
