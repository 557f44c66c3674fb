"""A small CRBNet with random weights, and pictures whose patches it describes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

from hfnet_export.export import export_crbnet
from hfnet_export.networks import trained_crbnet
from hfnet_export.networks.crbnet import CRBNetConfig, FusedBatchNorm, build_crbnet
from hfnet_export.networks.trained_crbnet import FLOORS, PatchFidelity, some_patches
from hfnet_export.networks.weights import crbnet_from_weights, save_weights
from hfnet_export.tflite.calibration import built_in_images

CONFIG = CRBNetConfig(dim=16, width=4)


@dataclass(frozen=True)
class SmallCRBNet:
    """Weights, their network, its exported file at each of two precisions, and patches (N, 32, 32) uint8."""

    weights: Path
    network: keras.Model
    float_model: Path
    int8_model: Path
    patches: np.ndarray


def unchecked(patch: pytest.MonkeyPatch) -> None:
    """Random weights lose more in int8 than trained ones; small images calibrate them."""
    patch.setitem(FLOORS, "int8", PatchFidelity(0.9, 0.85))
    patch.setattr(trained_crbnet, "IMAGE_SIZE", (240, 320))


def make_small_crbnet(root: Path) -> SmallCRBNet:
    keras.utils.set_random_seed(1)
    network = build_crbnet(CONFIG)
    for layer in network.layers:
        if isinstance(layer, FusedBatchNorm):
            layer.momentum = 0.0  # one pass in training mode then measures the statistics
    patches = np.concatenate([some_patches(image) for image in built_in_images((240, 320), 8, seed=2)])
    network(patches[..., None] / np.float32(127.5) - 1, training=True)
    save_weights(root / "weights.npz", network, CONFIG, {"made": "by code"})
    network, _, _ = crbnet_from_weights(root / "weights.npz")  # as float16 has them
    with pytest.MonkeyPatch.context() as patch:
        unchecked(patch)
        files = [
            export_crbnet(root / "weights.npz", root / f"{precision}.tflite", precision).file
            for precision in ("none", "int8")
        ]
    return SmallCRBNet(root / "weights.npz", network, *files, patches)
