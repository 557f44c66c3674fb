"""CRBNet from weights of `hfnet-train-crbnet`, to be exported.

The file takes any number of patches at once. In "int8" two of its layers are not: the first convolution, 0.3 % of the
work, because eight bits with a zero among them cannot hold the 256 grey levels exactly, and the output of the last,
whose signs are the binary descriptor. Share of flipped bits, bundled weights, 1,024 patches of photos, calibrated with
images made by code: 1.02 % with all in int8, 0.85 % with the last convolution like this, 0.75 % with the first, 0.47 %
with both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import keras
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.image.patches import SIDE, cut, detect
from hfnet_edge.image.photo import load_photo
from hfnet_edge.networks.description import PATCH_ROLE, Description
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks import processors
from hfnet_export.networks.crbnet import CRBNetConfig
from hfnet_export.networks.hfnet import INPUT_RANGE
from hfnet_export.networks.weights import BUNDLED_CRBNET, crbnet_from_weights
from hfnet_export.tflite import convert
from hfnet_export.tflite.calibration import BUILT_IN, MAX_PHOTOS, built_in_images, evenly, image_files
from hfnet_export.tflite.embed import toolchain
from hfnet_export.tflite.rules import RECIPES
from hfnet_export.trained import THREADS, Converted, Outputs, Probes, Say

IMAGE_SIZE = (480, 640)  # of the images made by code
PHOTO_SIDE = 640  # pixels
DETECTED = 500  # keypoints of an image
PER_IMAGE = 64  # of them, strong and weak, whose patches are used: half to calibrate, half to compare
CHECKED = 64  # patches
TIMED = 128  # patches


@dataclass(frozen=True)
class PatchFidelity:
    """How close a network's descriptors are to the float network's; 1 is equal.

    Attributes:
        descriptors: mean of the cosines.
        bits: share of those that are equal.
    """

    descriptors: float
    bits: float

    @property
    def flipped(self) -> float:
        """Share of the bits that differ."""
        return 1 - self.bits


FLOORS: dict[str, PatchFidelity] = {
    "none": PatchFidelity(0.9999, 1 - 0.0005),
    "fp16": PatchFidelity(0.999, 1 - 0.002),
    "dynamic": PatchFidelity(0.995, 1 - 0.01),
    "int8": PatchFidelity(0.995, 1 - 0.01),
}


@dataclass(frozen=True)
class TrainedCRBNet:
    """A `hfnet_export.trained.TrainedNetwork`; ``path`` is that of its weights."""

    path: Path = BUNDLED_CRBNET

    recipes: ClassVar[Mapping[str, str]] = {**RECIPES, "int8": "static_wi8_ai8_but_first_and_last_conv"}
    floors: ClassVar[Mapping[str, PatchFidelity]] = FLOORS

    def convert(self, say: Say) -> Converted:
        origin = "bundled weights" if self.path == BUNDLED_CRBNET else str(self.path)
        say(1, f"building CRBNet from {origin}")
        network, config, weights_hash = crbnet_from_weights(self.path)
        parameters = convert.parameter_count(network)
        say(2, f"converting {parameters / 1e6:.1f} M weights to float32 TFLite, {config.dim}-D, any number of patches")
        return Converted(
            convert.to_float_tflite(keras.Model(network.input, {PATCH_ROLE: network.output}, name=network.name)),
            describe(config, weights_hash, "none"),
            parameters,
            lambda patches: {PATCH_ROLE: network(patches, training=False)},
            processors.tensorflow_processor(),
            tolerance=1e-4,
        )

    def probe(self, calibration: Path | None, say: Say) -> Probes:
        if calibration is None:
            say(3, f"cutting patches from {BUILT_IN} images; photos of the place are better: --calibration DIR")
            images = built_in_images(IMAGE_SIZE)
        else:
            say(3, f"cutting patches from up to {MAX_PHOTOS} photos of {calibration}")
            images = _photos(calibration)
        by_image = [patches for patches in map(some_patches, images) if len(patches) >= 2]
        if not by_image:
            raise InputError(f"no keypoints are found in the photos of {calibration}", "give photos of the place")
        compared = np.concatenate([patches[1::2] for patches in by_image])
        return Probes(
            calibration=[patches[::2] for patches in by_image],
            compared=[compared],
            checked=[compared[:CHECKED]],
            timed=np.resize(compared, (TIMED, SIDE, SIDE)),
            compares=f"descriptors of {len(compared)} patches",
            unit="patches",
            count=TIMED,
        )

    def load(self, content: bytes) -> Callable[[np.ndarray], Outputs]:
        with quiet():
            model = PatchModel("the new model", THREADS, content)
        return lambda patches: {PATCH_ROLE: model.raw(patches)}

    def fidelity(self, outputs: Sequence[Outputs], reference: Sequence[Outputs]) -> PatchFidelity:
        ours, theirs = (np.concatenate([o[PATCH_ROLE] for o in some]) for some in (outputs, reference))
        return compare(ours, theirs)


def describe(config: CRBNetConfig, weights_hash: str, precision: str) -> Description:
    """The description of a CRBNet of this configuration, with the versions of the tools at hand."""
    return Description(
        architecture=f"crbnet-{config.width}",
        weights_hash=weights_hash,
        precision=precision,
        input_size=(SIDE, SIDE),
        input_range=INPUT_RANGE,
        local_dim=config.dim,
        global_dim=0,
        nms_radius=0,
        outputs={PATCH_ROLE: PATCH_ROLE},
        toolchain=toolchain(),
    )


def some_patches(image: np.ndarray) -> np.ndarray:
    """Up to `PER_IMAGE` patches of an image (H, W) uint8, evenly picked from its strong and weak keypoints."""
    found = detect(image, DETECTED)
    return cut(image, found[evenly(len(found), PER_IMAGE)])


def compare(ours: np.ndarray, reference: np.ndarray) -> PatchFidelity:
    """Compares descriptors (N, D) float32 of unit length with the float network's."""
    cosine = np.einsum("nd,nd->n", ours.astype(np.float64), reference.astype(np.float64)).mean()
    return PatchFidelity(float(cosine), float(np.mean((ours >= 0) == (reference >= 0))))


def _photos(folder: Path) -> list[np.ndarray]:
    """Up to `MAX_PHOTOS` photos, evenly picked by name: (h, w) uint8 each, without the padding."""
    files = image_files(folder)
    return [load_photo(files[i], (PHOTO_SIDE, PHOTO_SIDE)).image for i in evenly(len(files), MAX_PHOTOS)]
