"""One small HF-Net with random weights, converted once and quantized in every precision."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from hfnet_export.networks.hfnet import HFNetConfig, build_hfnet
from hfnet_export.networks.trained_hfnet import describe
from hfnet_export.networks.weights import hfnet_from_weights, save_weights
from hfnet_export.tflite import calibration, convert
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import Graph
from hfnet_export.tflite.quantize import quantize
from hfnet_export.tflite.rules import RECIPES, bundled

SIZE = (96, 128)
CONFIG = HFNetConfig(local_dim=32, global_dim=12, detector_width=32, descriptor_width=32)


@dataclass(frozen=True)
class Exported:
    """A Keras network, its float .tflite as converted, and what `hfnet-export` would write in each precision."""

    network: keras.Model
    graph: Graph
    described: dict[str, bytes]
    images: list[np.ndarray]


@pytest.fixture(scope="session", autouse=True)
def once(quick_exports):
    """All tests of the export convert a network once."""


def fit_global_head(model: keras.Model, images: np.ndarray, vectors: np.ndarray) -> None:
    """A global head that knows the images: with random residuals, NetVLAD's normalisation shows only noise."""
    vlad, projection = model.get_layer("netvlad"), model.get_layer("projection")
    features = keras.Model(model.input, vlad.input).predict(images, batch_size=16, verbose=0)
    rows = features.reshape(-1, features.shape[-1])
    rows = rows[:: max(1, len(rows) // 40_000)]
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, 30, 0.0)
    cv2.setRNGSeed(0)
    _, _, centers = cv2.kmeans(rows, vlad.clusters, np.zeros(0, np.int32), criteria, 1, cv2.KMEANS_PP_CENTERS)
    squared = ((rows[::10, None] - centers) ** 2).sum(axis=-1)
    nearest = np.sort(squared, axis=1)
    alpha = np.log(100) / 2 / (nearest[:, 1] - nearest[:, 0]).mean()
    vlad.set_weights([2 * alpha * centers.T, -alpha * (centers**2).sum(axis=1), centers])
    x = np.asarray(vlad(features)).astype(np.float64)
    mean, target = x.mean(axis=0), vectors.mean(axis=0)
    x -= mean
    gram = x @ x.T
    kernel = x.T @ np.linalg.solve(gram + gram.trace() / len(x) * np.eye(len(x)), vectors - target)
    projection.set_weights([kernel, target - mean @ kernel])


@pytest.fixture
def eager():
    """TensorFlow's functions run as Python: building the graph of a step takes longer than three steps."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    keras.utils.set_random_seed(3)
    model = build_hfnet(CONFIG, SIZE)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # one pass in training mode then measures the statistics
    images = np.stack(calibration.built_in_images(SIZE, 16, seed=1))[..., None] / np.float32(127.5) - 1
    model(images, training=True)
    fit_global_head(model, images, 0.3 + np.random.default_rng(0).normal(0, 0.2, (len(images), CONFIG.global_dim)))
    path = tmp_path_factory.mktemp("weights") / "random.npz"
    save_weights(path, model, CONFIG, {"made": "by code"})
    return path


@pytest.fixture(scope="session")
def exported(weights) -> Exported:
    network, hash_ = hfnet_from_weights(weights, SIZE, batch=1)
    graph = convert.to_float_tflite(network)
    description = describe(CONFIG, hash_, "none", SIZE)
    images = calibration.built_in_images(SIZE, 12)
    inputs = [description.scale(image) for image in images]
    described = {
        precision: embed(quantize(graph, bundled(recipe), inputs), replace(description, precision=precision))
        for precision, recipe in RECIPES.items()
    }
    return Exported(network, graph, described, images)
