"""One small HF-Net with random weights, converted once and quantized in every precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
import pytest

from hfnet_export import calibration, convert
from hfnet_export.hfnet import HFNetConfig, build_hfnet, initialise_global_head
from hfnet_export.weights import hfnet_from_weights, save_weights

SIZE = (96, 128)
CONFIG = HFNetConfig(local_dim=16, global_dim=12, head_width=32)


@dataclass(frozen=True)
class Exported:
    """A Keras network, its float .tflite as converted, and what `hfnet-export` would write in each precision."""

    network: keras.Model
    float_tflite: bytes
    described: dict[str, bytes]
    images: list[np.ndarray]


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    keras.utils.set_random_seed(3)
    model = build_hfnet(CONFIG, SIZE)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # one pass in training mode then measures the statistics
    images = np.stack(calibration.built_in_images(SIZE, 16, seed=1))[..., None] / np.float32(127.5) - 1
    model(images, training=True)
    vectors = 0.3 + np.random.default_rng(0).normal(0, 0.2, (len(images), CONFIG.global_dim))
    initialise_global_head(model, images, vectors)  # with random residuals, NetVLAD's normalisation shows only noise
    path = tmp_path_factory.mktemp("weights") / "random.npz"
    save_weights(path, model, CONFIG, {"made": "by code"})
    return path


@pytest.fixture(scope="session")
def exported(weights) -> Exported:
    network, weights_hash = hfnet_from_weights(weights, SIZE, batch=1)
    float_tflite = convert.to_float_tflite(network)
    description = convert.describe(CONFIG, weights_hash, "none", SIZE)
    images = calibration.built_in_images(SIZE, 12)
    inputs = [description.scale(image) for image in images]
    described = {
        precision: convert.embed(
            convert.quantize(float_tflite, precision, inputs), replace(description, precision=precision)
        )
        for precision in convert.RECIPES
    }
    return Exported(network, float_tflite, described, images)
