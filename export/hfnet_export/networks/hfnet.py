"""HF-Net in Keras 3: one MobileNetV2 encoder, three heads (Sarlin et al. 2019, section 4.1 and appendix A.1).

    image (H, W, 1) in [-1, 1]
      └ MobileNetV2 x0.75, layers 1-7 ─────────── 24 channels at 1/8
          ├ detector head    3x3x128, 1x1x65 ───> ``keypoint_logits``    (H/8, W/8, 65)
          ├ descriptor heads, whose outputs at a point are one descriptor, not normalised
          │   ├ layer 2      3x3x24, 1x1 ───────> ``local_descriptors_half``     (H/2, W/2, 24)
          │   ├ layer 4      3x3x48, 1x1 ───────> ``local_descriptors_quarter``  (H/4, W/4, 40)
          │   └ layer 7      one more block, 3x3x256 + context of layer 14 at 1/16,
          │                  1x1 ───────────────> ``local_descriptors``          (H/8, W/8, 64)
          ├ layers 8-18 ───────────────────────── 240 channels at 1/32
          │   └ NetVLAD, 32 clusters, projection > ``global_descriptor``  (G,), unit length
          └ layers 4, 7, 14, 18 on one grid ─────> ``hypercolumns``       (H/8, W/8, 64), not normalised

Keypoints are decoded on the host (`hfnet_edge.image.keypoints`): faster there, and int8 inside the decode destroys it.
Most are not even the network's: `hfnet_edge.image.blobs` finds more precise ones, at which its descriptors are sampled.
ReLU6 throughout, because hard-swish loses accuracy in int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import keras
import numpy as np
from keras import layers, ops

from hfnet_edge.image.keypoints import CELL
from hfnet_edge.networks.description import FINER_ROLES, GLOBAL_ROLE, HYPERCOLUMN_ROLE, LOCAL_ROLE

QUARTER_ROLE, HALF_ROLE = FINER_ROLES
# Channels of the finer parts' 3x3 convolution, and how many sixteenths of a descriptor they are.
FINE_PARTS = {QUARTER_ROLE: (48, 5), HALF_ROLE: (24, 3)}
KEYPOINT_CHANNELS = CELL * CELL + 1  # one per pixel of a cell, the last one says "no keypoint here"
INPUT_RANGE = (-1.0, 1.0)
LOCAL_LAYER = 7
DESCRIPTOR_LAYERS = 2, 4, LOCAL_LAYER, 14  # those at 1/2, 1/4, 1/8 and 1/16 that descriptors are made of
HYPERCOLUMN_LAYERS = 4, LOCAL_LAYER, 14, 18  # at 1/4, 1/8, 1/16 and 1/32

# MobileNetV2, Sandler et al. 2018, table 2: expansion, channels, repeats, stride of the first block.
BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass(frozen=True)
class HFNetConfig:
    """Everything that decides the network's shape.

    Attributes:
        local_dim: width of the local descriptors, all parts together; follows the local teacher (ALIKE: 128).
        global_dim: width of the global descriptor. The projection's columns are ordered by importance (PCA),
            so an export may keep the first few of them.
        width: MobileNetV2's depth multiplier.
        detector_width, descriptor_width: channels of the 3x3 convolution in the local heads at 1/8.
        clusters: of NetVLAD.
        hypercolumn_dim, hypercolumn_width: of the hypercolumns, and channels of the convolutions that make them.
    """

    local_dim: int = 128
    global_dim: int = 512
    width: float = 0.75
    detector_width: int = 128
    descriptor_width: int = 256
    clusters: int = 32
    hypercolumn_dim: int = 64
    hypercolumn_width: int = 96

    def as_dict(self) -> dict:
        return asdict(self)


def channels(base: int, width: float) -> int:
    """Channels of a layer at a depth multiplier: rounded to 8, never down by more than 10 % (MobileNetV2)."""
    rounded = max(8, int(base * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * base * width else rounded


def _conv_bn(x, filters: int, kernel: int, stride: int, name: str, activation: bool = True, depthwise: bool = False):
    if stride == 2:  # pad by hand: the same pixels as Keras' ImageNet weights on even sizes
        x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}.pad")(x)
    padding = "valid" if stride == 2 else "same"
    if depthwise:
        x = layers.DepthwiseConv2D(kernel, stride, padding, use_bias=False, name=name)(x)
    else:
        x = layers.Conv2D(filters, kernel, stride, padding, use_bias=False, name=name)(x)
    x = layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{name}.bn")(x)
    return layers.ReLU(6.0, name=f"{name}.relu")(x) if activation else x


def mobilenet_v2(x, width: float) -> list:
    """The encoder. Returns the 18 layer outputs; ``outputs[k - 1]`` is the paper's layer k."""
    x = _conv_bn(x, channels(32, width), 3, 2, "Conv1")
    outputs = [x]
    for expansion, base, repeats, first_stride in BOTTLENECKS:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            x = _bottleneck(x, expansion, channels(base, width), stride, f"b{len(outputs) - 1}")
            outputs.append(x)
    return outputs


def _bottleneck(x, expansion: int, filters: int, stride: int, name: str):
    """MobileNetV2's block."""
    shortcut = x
    if expansion > 1:
        x = _conv_bn(x, shortcut.shape[-1] * expansion, 1, 1, f"{name}.exp")
    x = _conv_bn(x, x.shape[-1], 3, stride, f"{name}.dw", depthwise=True)
    x = _conv_bn(x, filters, 1, 1, f"{name}.proj", activation=False)
    if stride == 1 and filters == shortcut.shape[-1]:
        x = layers.Add(name=f"{name}.add")([shortcut, x])
    return x


@keras.saving.register_keras_serializable("hfnet_edge")
class NetVLAD(layers.Layer):
    """Soft-assigns features to clusters and sums the residuals (Arandjelovic et al. 2016, equation 4).

    (N, H, W, C) to (N, clusters * C), unit length, each cluster's residual normalised first.
    """

    def __init__(self, clusters: int, **kwargs):
        super().__init__(**kwargs)
        self.clusters = clusters

    def build(self, input_shape):
        dim = input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(dim, self.clusters), initializer="glorot_uniform")
        self.bias = self.add_weight(name="bias", shape=(self.clusters,), initializer="zeros")
        self.centers = self.add_weight(name="centers", shape=(self.clusters, dim), initializer="random_normal")

    def call(self, x):
        _, h, w, dim = ops.shape(x)
        x = ops.reshape(x, (-1, h * w, dim))
        assignment = ops.softmax(ops.matmul(x, self.kernel) + self.bias, axis=-1)  # (N, HW, K)
        residual = ops.matmul(ops.transpose(assignment, (0, 2, 1)), x)  # (N, K, C)
        residual = residual - ops.expand_dims(ops.sum(assignment, axis=1), -1) * self.centers
        residual = ops.reshape(unit(residual), (-1, self.clusters * dim))
        return unit(residual)

    def get_config(self):
        return {**super().get_config(), "clusters": self.clusters}


def unit(x):
    """Divides by the L2 norm over the last axis; zero stays zero."""
    return x * ops.rsqrt(ops.sum(ops.square(x), axis=-1, keepdims=True) + 1e-12)


@keras.saving.register_keras_serializable("hfnet_edge")
class Unit(layers.Layer):
    """`unit` as a layer."""

    def call(self, x):
        return unit(x)


def descriptor_heads(outputs: Sequence, config: HFNetConfig) -> dict:
    """The parts of the descriptors, not normalised, by role, from the outputs of `DESCRIPTOR_LAYERS`."""
    half, quarter, local, context = outputs
    return {
        LOCAL_ROLE: _coarse_head(local, context, config),
        QUARTER_ROLE: _fine_head(quarter, config.local_dim, QUARTER_ROLE),
        HALF_ROLE: _fine_head(half, config.local_dim, HALF_ROLE),
    }


def _coarse_head(local, context, config: HFNetConfig):
    local = _bottleneck(local, 6, local.shape[-1], 1, "descriptor.block")
    local = _conv_bn(local, config.descriptor_width, 3, 1, "descriptor", activation=False)
    context = layers.Conv2D(config.descriptor_width, 1, kernel_initializer="zeros", name="descriptor.context")(context)
    context = _up(context, "descriptor.context")
    x = layers.ReLU(6.0, name="descriptor.relu")(layers.Add(name="descriptor.add")([local, context]))
    dim = config.local_dim - sum(config.local_dim * part // 16 for _, part in FINE_PARTS.values())
    return layers.Conv2D(dim, 1, name=LOCAL_ROLE)(x)


def _fine_head(x, local_dim: int, role: str):
    width, part = FINE_PARTS[role]
    return layers.Conv2D(local_dim * part // 16, 1, name=role)(_conv_bn(x, width, 3, 1, f"{role}.conv"))


def hypercolumn_head(outputs: Sequence, config: HFNetConfig):
    """Hypercolumns (Germain et al. 2019, section 4) from the outputs of `HYPERCOLUMN_LAYERS`.

    The paper brings layers to one grid, concatenates and projects them. A sum of projections is the same, and lets the
    deep ones be projected on their own, coarser grids, where a wide convolution costs little.
    """
    quarter, local, context, deep = outputs
    width, name = config.hypercolumn_width, HYPERCOLUMN_ROLE
    x = layers.Add(name=f"{name}.far.add")(
        [
            layers.Conv2D(width, 1, name=f"{name}.context")(context),
            _up(layers.Conv2D(width, 1, name=f"{name}.deep")(deep), f"{name}.deep"),
        ]
    )
    x = layers.Conv2D(width, 3, padding="same", name=f"{name}.wide")(layers.ReLU(6.0, name=f"{name}.far.relu")(x))
    x = layers.Conv2D(width, 1, name=f"{name}.spread")(layers.ReLU(6.0, name=f"{name}.wide.relu")(x))
    fine = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}.quarter.pad")(quarter)
    x = layers.Add(name=f"{name}.add")(
        [
            layers.Conv2D(width, 3, 2, name=f"{name}.quarter")(fine),
            layers.Conv2D(width, 3, padding="same", name=f"{name}.local")(local),
            _up(x, f"{name}.spread"),
        ]
    )
    x = layers.ReLU(6.0, name=f"{name}.relu")(x)
    return layers.Conv2D(config.hypercolumn_dim, 3, padding="same", name=name)(x)


def _up(x, name: str):
    return layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}.up")(x)


def build_hfnet(
    config: HFNetConfig, input_size: tuple[int | None, int | None], batch: int | None = None
) -> keras.Model:
    """The network for one input size (height, width), both multiples of 32; None: for any.

    Raises:
        ValueError: a side is not a multiple of 32.
    """
    if any(side is not None and (side % 32 or side <= 0) for side in input_size):
        raise ValueError(f"the input size {input_size[0]}x{input_size[1]} must have sides that are multiples of 32")
    image = layers.Input((*input_size, 1), batch_size=batch, name="image")
    encoder = mobilenet_v2(image, config.width)
    local = encoder[LOCAL_LAYER - 1]
    fine = _conv_bn(encoder[4 - 1], config.detector_width, 3, 2, "detector.fine", activation=False)
    coarse = _conv_bn(local, config.detector_width, 3, 1, "detector", activation=False)
    logits = layers.ReLU(6.0, name="detector.relu")(layers.Add(name="detector.add")([fine, coarse]))
    logits = layers.Conv2D(KEYPOINT_CHANNELS, 1, name="keypoint_logits")(logits)
    descriptors = descriptor_heads([encoder[layer - 1] for layer in DESCRIPTOR_LAYERS], config)
    vlad = NetVLAD(config.clusters, name="netvlad")(encoder[18 - 1])
    projected = layers.Dense(config.global_dim, name="projection")(vlad)
    return keras.Model(
        image,
        {
            "keypoint_logits": logits,
            **descriptors,
            HYPERCOLUMN_ROLE: hypercolumn_head([encoder[layer - 1] for layer in HYPERCOLUMN_LAYERS], config),
            GLOBAL_ROLE: Unit(name="global_descriptor")(projected),
        },
        name="hfnet",
    )


def network_input(pixels: np.ndarray) -> np.ndarray:
    """(N, H, W) uint8 grey levels to a network's input (N, H, W, 1) float32 in `INPUT_RANGE`."""
    low, high = INPUT_RANGE
    return (pixels.astype(np.float32) * np.float32((high - low) / 255) + np.float32(low))[..., None]


def descriptor_inputs(model: keras.Model) -> list:
    """The outputs of `DESCRIPTOR_LAYERS` in a `build_hfnet`."""
    first = (f"{HALF_ROLE}.conv", f"{QUARTER_ROLE}.conv", "descriptor.block.exp", "descriptor.context")
    return [model.get_layer(name).input for name in first]


def hypercolumn_inputs(model: keras.Model) -> list:
    """The outputs of `HYPERCOLUMN_LAYERS` in a `build_hfnet`."""
    first = ("quarter.pad", "local", "context", "deep")
    return [model.get_layer(f"{HYPERCOLUMN_ROLE}.{name}").input for name in first]


def initialise_encoder(model: keras.Model, imagenet: dict[str, np.ndarray], images: np.ndarray) -> None:
    """Starts the encoder from ImageNet's MobileNetV2 x1.0, whatever the model's width (appendix A.2).

    Where a layer is narrower than ImageNet's, the output channels with the largest kernels are kept; RGB kernels are
    summed to grey. ImageNet's weights come with batch normalisation folded in, so the statistics of each layer are
    measured on ``images`` and put back: the function computed stays the same, and training starts well scaled.

    Args:
        imagenet: OIHW kernels and biases (`Conv1.weight`, `b3.dw.bias`, ...).
        images: (N, H, W, 1) float32 in [-1, 1].
    """
    names = [layer.name for layer in model.layers if f"{layer.name}.weight" in imagenet]
    kept_in = np.arange(3)
    residual_kept: dict[int, np.ndarray] = {}
    for name in names:
        layer, kernel, bias = model.get_layer(name), imagenet[f"{name}.weight"], imagenet[f"{name}.bias"]
        kernel = kernel.transpose(2, 3, 1, 0)  # to HWIO; depthwise: I == 1
        if isinstance(layer, layers.DepthwiseConv2D):
            kernel = kernel.transpose(0, 1, 3, 2)[:, :, kept_in]
            kept = kept_in
        else:
            kernel = kernel.sum(axis=2, keepdims=True) if name == "Conv1" else kernel[:, :, kept_in]
            count, block = layer.filters, name.split(".")[0]
            strength = np.abs(kernel).sum(axis=(0, 1, 2))
            kept = np.sort(np.argsort(-strength, kind="stable")[:count])
            if name.endswith(".proj") and f"{block}.add" in {other.name for other in model.layers}:
                kept = residual_kept[count]  # a residual adds like to like
            if name.endswith(".proj"):
                residual_kept[count] = kept
            kernel = kernel[..., kept]
        layer.set_weights([kernel])
        norm = model.get_layer(f"{name}.bn")
        ones = np.ones(len(kept), np.float32)
        norm.set_weights([ones, bias[kept], 0 * ones, ones - norm.epsilon])
        kept_in = kept
    probe = keras.Model(model.input, [model.get_layer(name).output for name in names])
    for name, output in zip(names, probe.predict(images, verbose=0), strict=True):
        norm = model.get_layer(f"{name}.bn")
        mean, var = output.mean(axis=(0, 1, 2)), output.var(axis=(0, 1, 2))
        _, beta, _, _ = norm.get_weights()
        norm.set_weights([np.sqrt(var + norm.epsilon), beta + mean, mean, var])
