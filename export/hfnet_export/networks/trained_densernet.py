"""DenserNet from weights of `hfnet-train-densernet`, to be exported.

What follows the attention filter is left in float: exponentials and norms over a few hundred cells, which int8 destroys
and which take no time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from hfnet_edge.networks.description import GLOBAL_ROLE, Description
from hfnet_edge.networks.retrieval import RetrievalModel
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks import processors
from hfnet_export.networks.hfnet import INPUT_RANGE
from hfnet_export.networks.weights import BUNDLED_DENSERNET, densernet_from_weights, load_densernet_weights
from hfnet_export.tflite import convert
from hfnet_export.tflite.embed import toolchain
from hfnet_export.tflite.rules import RECIPES
from hfnet_export.trained import THREADS, Converted, Outputs, Probes, Say, probes_of_images

DIM = 256  # of what is exported, unless it is said (section IV.D)


@dataclass(frozen=True)
class RetrievalFidelity:
    """How close a retrieval network is to the float network; 1 is equal.

    Attributes:
        global_descriptor: cosine, mean over images.
        order: share of all pairs of images that are in the same order by their likeness to a third.
    """

    global_descriptor: float
    order: float


@dataclass(frozen=True)
class TrainedDenserNet:
    """A `hfnet_export.trained.TrainedNetwork`.

    Attributes:
        path: of its weights.
        input_size: height, width; multiples of 32.
        global_dim: dimensions to keep, the most important first; None: `DIM`, or all where they are fewer.
    """

    path: Path
    input_size: tuple[int, int]
    global_dim: int | None = None

    recipes: ClassVar[Mapping[str, str]] = RECIPES
    floors: ClassVar[Mapping[str, RetrievalFidelity]] = {
        "none": RetrievalFidelity(0.9999, 0.995),
        "fp16": RetrievalFidelity(0.995, 0.95),
        "dynamic": RetrievalFidelity(0.9, 0.85),
        "int8": RetrievalFidelity(0.9, 0.85),
    }

    def convert(self, say: Say) -> Converted:
        config, _, _ = load_densernet_weights(self.path)
        dim = min(DIM, config.global_dim) if self.global_dim is None else self.global_dim
        say(
            1, f"building DenserNet from {'bundled weights' if self.path == BUNDLED_DENSERNET else self.path} ({dim}-D)"
        )
        network, weights_hash = densernet_from_weights(self.path, self.input_size, dim, batch=1)
        parameters = convert.parameter_count(network)
        size = f"{self.input_size[0]}x{self.input_size[1]}"
        say(2, f"converting {parameters / 1e6:.1f} M weights to float32 TFLite, {size}")
        return Converted(
            convert.to_float_tflite(network),
            describe(dim, weights_hash, self.input_size),
            parameters,
            lambda image: network(image, training=False),
            processors.tensorflow_processor(),
        )

    def probe(self, calibration: Path | None, say: Say) -> Probes:
        return probes_of_images(calibration, self.input_size, say)

    def load(self, content: bytes) -> Callable[[np.ndarray], Outputs]:
        with quiet():
            model = RetrievalModel("the new model", THREADS, content)
        return lambda image: {role: np.asarray(value) for role, value in model.run(image[None]).items()}

    def fidelity(self, outputs: Sequence[Outputs], reference: Sequence[Outputs]) -> RetrievalFidelity:
        ours, theirs = (
            np.concatenate([o[GLOBAL_ROLE] for o in some]).astype(np.float64) for some in (outputs, reference)
        )
        ours, theirs = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in (ours, theirs))
        return RetrievalFidelity(
            float((ours * theirs).sum(axis=1).mean()), same_order(ours @ ours.T, theirs @ theirs.T)
        )


def same_order(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the pairs of columns that each row of likenesses (N, N) orders alike, its own left out; 1 for N < 3."""
    alike = []
    for k in range(len(a)):
        x, y = np.delete(a[k], k), np.delete(b[k], k)
        i, j = np.triu_indices(len(x), 1)
        alike.append((x[i] > x[j]) == (y[i] > y[j]))
    found = np.concatenate(alike) if alike else np.zeros(0)
    return float(found.mean()) if len(found) else 1.0


def describe(dim: int, weights_hash: str, input_size: tuple[int, int]) -> Description:
    """The description of a DenserNet in float32, with the versions of the tools at hand."""
    return Description(
        architecture="densernet-mobilenetv2-1.0",
        weights_hash=weights_hash,
        precision="none",
        input_size=input_size,
        input_range=INPUT_RANGE,
        local_dim=0,
        global_dim=dim,
        nms_radius=0,
        outputs={GLOBAL_ROLE: GLOBAL_ROLE},
        toolchain=toolchain(),
    )
