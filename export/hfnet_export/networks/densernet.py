"""DenserNet in Keras 3: one image to one vector, from three depths of MobileNetV2 (paper 004, section III).

    image (H, W, 1) in [-1, 1]
      └ MobileNetV2 x1.0
          ├ layer 4   mean over 8x8, 1x1 to  72 channels ─┐
          ├ layer 11  mean over 2x2, 1x1 to  96 channels ─┼ concatenated at 1/32: 520 channels
          └ layer 18                 1x1 to 352 channels ─┘
              └ attention filter (1) ─> descriptors f (2) and scores s (3), (4), (5) of 1/32
                  └ mean of f and root mean square of the filtered features, weighted by s
                      └ projection ─────> ``global_descriptor`` (G,), unit length

The paper brings the branches to half the input's resolution; here the deepest layer's is kept, which a phone can pay:
what is pooled over the whole image loses little by it (docs/decisions.md).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import keras
import numpy as np
from keras import layers, ops

from hfnet_edge.networks.description import GLOBAL_ROLE
from hfnet_export.networks.hfnet import Unit, mobilenet_v2, unit

BRANCHES = {4: 3.0, 11: 1.5, 18: 1.1}  # layer to channels of its branch, in units of its own (section III.B)
STRIDE = 32  # pixels of the input to a cell of the features
FOLLOWS = {4: "b3.exp", 11: "b10.exp", 18: "Conv_1"}  # ImageNet's expansions of these layers, which branches begin as


@dataclass(frozen=True)
class DenserNetConfig:
    """Everything that decides the network's shape.

    Attributes:
        global_dim: width of the global descriptor. The projection's columns are ordered by importance, so an export may
            keep the first few of them.
    """

    global_dim: int = 512

    def as_dict(self) -> dict:
        return asdict(self)


@keras.saving.register_keras_serializable("hfnet_edge")
class LocalScores(layers.Layer):
    """Detection scores of features (N, h, w, C): (N, h, w, 1) that sum to 1 over an image (equations 3 to 5).

    In the channel where a cell is strongest, its exponential over the mean of those of the 3x3 cells about it, at an
    edge of those that there are: a sum would prefer edges. Of the exponentials' arguments the image's largest is taken
    off, which changes nothing and keeps them finite.
    """

    def call(self, x):
        e = ops.exp(x - ops.max(x, axis=(1, 2, 3), keepdims=True)) + 1e-30
        strongest = ops.cast(ops.equal(x, ops.max(x, axis=-1, keepdims=True)), "float32")
        scores = ops.max(strongest * e / ops.average_pool(e, 3, 1, "same"), axis=-1, keepdims=True)
        return scores / ops.sum(scores, axis=(1, 2), keepdims=True)


@keras.saving.register_keras_serializable("hfnet_edge")
class Moments(layers.Layer):
    """Features (N, h, w, C) and their scores to (N, 2 C): the mean of the unit descriptors and the root mean square of
    the features, each of unit length."""

    def call(self, features, scores):
        mean = ops.sum(unit(features) * scores, axis=(1, 2))
        square = ops.sum(ops.square(features) * scores, axis=(1, 2))
        return ops.concatenate([unit(mean), unit(ops.sqrt(square + 1e-9))], axis=-1)


def build_densernet(config: DenserNetConfig, input_size: tuple[int, int], batch: int | None = None) -> keras.Model:
    """The network for one input size (height, width), both multiples of 32.

    Raises:
        ValueError: a side is not a multiple of 32.
    """
    if any(side % STRIDE or side <= 0 for side in input_size):
        raise ValueError(f"the input size {input_size[0]}x{input_size[1]} must have sides that are multiples of 32")
    image = layers.Input((*input_size, 1), batch_size=batch, name="image")
    encoder = mobilenet_v2(image, 1.0)
    dense = layers.Concatenate(name="dense")([_branch(encoder[k - 1], k, input_size) for k in BRANCHES])
    attention = layers.Conv2D(dense.shape[-1], 1, use_bias=False, name="attention")(dense)
    attention = layers.ReLU(name="attention.relu")(attention)
    pooled = Moments(name="pooled")(attention, LocalScores(name="scores")(attention))
    projected = layers.Dense(config.global_dim, name="projection")(pooled)
    return keras.Model(image, {GLOBAL_ROLE: Unit(name=GLOBAL_ROLE)(projected)}, name="densernet")


def _branch(x, layer: int, input_size: tuple[int, int]):
    fold = x.shape[1] * STRIDE // input_size[0]
    if fold > 1:
        x = layers.AveragePooling2D(fold, name=f"branch{layer}.pool")(x)
    x = layers.Conv2D(int(x.shape[-1] * BRANCHES[layer]), 1, name=f"branch{layer}")(x)
    return layers.ReLU(6.0, name=f"branch{layer}.relu")(x)


def initialise_branches(model: keras.Model, imagenet: dict[str, np.ndarray], images: np.ndarray) -> None:
    """Starts branches from ImageNet's own expansions of their layers: of each the channels that vary most on
    ``images``, (N, H, W, 1) float32; the attention filter then makes all channels vary alike."""
    scales: list[np.ndarray] = []
    for layer in BRANCHES:
        branch, name = model.get_layer(f"branch{layer}"), FOLLOWS[layer]
        kernel, bias = imagenet[f"{name}.weight"].transpose(2, 3, 1, 0), imagenet[f"{name}.bias"]
        cells = keras.Model(model.input, branch.input).predict(images, verbose=0)
        spread = np.clip(cells.reshape(-1, cells.shape[-1]) @ kernel[0, 0] + bias, 0, 6).std(axis=0)
        kept = np.sort(np.argsort(-spread, kind="stable")[: branch.filters])
        branch.set_weights([kernel[..., kept], bias[kept]])
        scales.append(1 / (spread[kept] + 0.05))
    model.get_layer("attention").set_weights([np.diag(np.concatenate(scales))[None, None].astype(np.float32)])
