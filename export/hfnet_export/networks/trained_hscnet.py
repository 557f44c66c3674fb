"""A scene network that was trained for a map, to be exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from hfnet_edge.networks.description import SCENE_ROLE, Description
from hfnet_edge.networks.scene import LIFT, SceneModel, rows_of
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks import processors
from hfnet_export.networks.hscnet import HSCNet, HSCNetConfig
from hfnet_export.networks.weights import weights_hash
from hfnet_export.tflite import convert
from hfnet_export.tflite.embed import toolchain
from hfnet_export.trained import THREADS, Converted, Outputs, Probes, Say

CALIBRATED, COMPARED, CHECKED, TIMED = 8, 4096, 256, 2048  # blocks of descriptors; descriptors
# A descriptor then has unit length. In float32, as the description has it.
INPUT_RANGE = float(np.float32(-LIFT / 127)), float(np.float32((255 - LIFT) / 127))


@dataclass(frozen=True)
class SceneFidelity:
    """How close a scene network is to the float network; 1 is equal.

    Attributes:
        labels: share of the keypoints with all labels as the float network's.
    """

    labels: float


@dataclass(frozen=True)
class TrainedHSCNet:
    """A `hfnet_export.trained.TrainedNetwork`.

    Attributes:
        network, config: with its weights.
        descriptors, images: (N, D) int8 of the map's keypoints with a landmark, and (N,) the images that they are in.
    """

    network: HSCNet
    config: HSCNetConfig
    descriptors: np.ndarray
    images: np.ndarray

    recipes: ClassVar[Mapping[str, str]] = {"none": "wfp32_afp32", "int8": "static_wi8_ai8_matrices"}
    floors: ClassVar[Mapping[str, SceneFidelity]] = {"none": SceneFidelity(0.999), "int8": SceneFidelity(0.5)}

    @property
    def weights_hash(self) -> str:
        """Of the float weights."""
        return weights_hash({variable.path: np.asarray(variable) for variable in self.network.deployed.weights})

    def convert(self, say: Say) -> Converted:
        model = self.network.deployed
        parameters = convert.parameter_count(model)
        say(1, f"a scene network of {' x '.join(map(str, self.config.branches))} labels, width {self.config.width}")
        say(2, f"converting {parameters / 1e6:.2f} M weights to float32 TFLite")
        about = Description(
            architecture=f"hscnet-{self.config.width}",
            weights_hash=self.weights_hash,
            precision="none",
            input_size=(1, model.input.shape[2]),
            input_range=INPUT_RANGE,
            local_dim=self.config.dim,
            global_dim=0,
            nms_radius=0,
            outputs={SCENE_ROLE: SCENE_ROLE},
            toolchain=toolchain(),
        )
        return Converted(
            convert.to_float_tflite(model),
            about,
            parameters,
            lambda rows: model(rows, training=False),
            processors.tensorflow_processor(),
        )

    def probe(self, calibration: Path | None, say: Say) -> Probes:
        say(3, "taking descriptors of the map's reference images")
        order = np.random.default_rng(0).permutation(len(self.descriptors))
        rows = rows_of(self.descriptors[order], self.images[order] if self.config.images else None)
        return Probes(
            calibration=np.array_split(rows[: CALIBRATED * SceneModel.batch], CALIBRATED),
            compared=[rows[:COMPARED]],
            checked=[rows[:CHECKED]],
            timed=np.resize(rows, (TIMED, *rows.shape[1:])),
            compares=f"labels of {min(COMPARED, len(rows))} keypoints",
            unit="keypoints",
            count=TIMED,
        )

    def load(self, content: bytes) -> Callable[[np.ndarray], Outputs]:
        with quiet():
            model = SceneModel("the new model", THREADS, content)
        return lambda rows: {SCENE_ROLE: model.raw(rows)}

    def fidelity(self, outputs: Sequence[Outputs], reference: Sequence[Outputs]) -> SceneFidelity:
        ours, theirs = (np.concatenate([o[SCENE_ROLE][:, :-1] for o in some]) for some in (outputs, reference))
        return SceneFidelity(float((ours == theirs).all(axis=1).mean()))
