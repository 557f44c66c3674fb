"""CRBNet in Keras 3: a patch to one unit vector whose signs are a binary descriptor too (paper 002, section 3.1).

    patch (32, 32, 1) in [-1, 1]
      └ 3x3 convolution, 16 channels
          ├ stage 1, 2: residual, 16 and 32 channels at 32x32
          ├ stage 3, 4: residual, 64 and 128 channels, stride 2: 16x16, 8x8
          └ dropout 0.1, 8x8 convolution, batch norm ──> ``descriptor`` (D,), unit length

L2-Net (Tian et al. 2017) with a shortcut around each stage of two 3x3 convolutions; strides in the last two stages, so
that the patch keeps its resolution as long as possible. The paper leaves the stages' channels open; these make 2.4
million parameters, and the full resolution cheap enough for a phone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import keras
import tensorflow as tf
from keras import layers

from hfnet_edge.image.patches import SIDE
from hfnet_export.networks.hfnet import Unit

STAGES = ((1, 1), (2, 1), (4, 2), (8, 2))  # channels in units of the first layer's, stride


@dataclass(frozen=True)
class CRBNetConfig:
    """Everything that decides the network's shape.

    Attributes:
        dim: width of the descriptor, a multiple of 8.
        width: channels of the first layer and of stage 1; later stages have 2, 4 and 8 times as many.
    """

    dim: int = 256
    width: int = 16

    def as_dict(self) -> dict:
        return asdict(self)


@keras.saving.register_keras_serializable("hfnet_edge")
class FusedBatchNorm(layers.BatchNormalization):
    """Batch normalisation that trains through TensorFlow's fused kernel: the step is twice as fast.

    The same numbers but for the moving variance's n / (n - 1).
    """

    def call(self, inputs, training=None, mask=None):
        if not training:
            return super().call(inputs, training=False, mask=mask)
        gamma = self.gamma if self.scale else tf.ones(inputs.shape[-1])
        beta = self.beta if self.center else tf.zeros(inputs.shape[-1])
        none = tf.zeros(0)
        out, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(gamma),
            offset=tf.convert_to_tensor(beta),
            mean=none,
            variance=none,
            epsilon=self.epsilon,
            is_training=True,
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return out


def build_crbnet(config: CRBNetConfig, precision: str = "float32") -> keras.Model:
    """The network, (N, 32, 32, 1) in [-1, 1] to ``descriptor`` (N, D) float32, unit length.

    Args:
        precision: "float32", or "mixed_bfloat16" to train twice as fast where the processor has it.
    """

    def conv(x, filters: int, kernel: int, stride: int, name: str, relu: bool = True):
        x = layers.Conv2D(filters, kernel, stride, "same", use_bias=False, name=name, dtype=precision)(x)
        x = FusedBatchNorm(momentum=0.9, name=f"{name}.bn", dtype=precision)(x)
        return layers.ReLU(name=f"{name}.relu", dtype=precision)(x) if relu else x

    image = layers.Input((SIDE, SIDE, 1), name="image")
    x = conv(image, config.width, 3, 1, "first")
    for stage, (factor, stride) in enumerate(STAGES, 1):
        name, filters = f"s{stage}", factor * config.width
        y = conv(x, filters, 3, stride, f"{name}.a")
        y = conv(y, filters, 3, 1, f"{name}.b", relu=False)
        if x.shape[1:] != y.shape[1:]:
            x = conv(x, filters, 1, stride, f"{name}.shortcut", relu=False)
        x = layers.Add(name=f"{name}.add", dtype=precision)([x, y])
        x = layers.ReLU(name=f"{name}.relu", dtype=precision)(x)
    x = layers.Dropout(0.1, name="dropout", dtype=precision)(x)
    x = layers.Conv2D(config.dim, x.shape[1], use_bias=False, name="last", dtype=precision)(x)
    x = FusedBatchNorm(momentum=0.9, scale=False, center=False, name="last.bn", dtype=precision)(x)
    x = keras.ops.squeeze(x, axis=(1, 2))
    return keras.Model(image, Unit(name="descriptor", dtype="float32")(x), name="crbnet")
