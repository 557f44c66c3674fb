"""The networks that HF-Net learns from, each behind one small interface.

A local teacher maps RGB crops to a score map and dense descriptors, a global teacher maps them to one vector each.
Their weights are third-party files that the user points at; none is shipped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from hfnet_edge.errors import InputError
from hfnet_edge.shell.reading import open_input
from hfnet_export.networks.hfnet import mobilenet_v2

STRIDE = 32  # pixels of the image per cell of a global teacher's feature map


class LocalTeacher(Protocol):
    """Detector and descriptor.

    Calling it with ``rgb`` (N, H, W, 3) uint8, sides divisible by 32, gives

    - scores (N, H, W) float32 in [0, 1], before any non-maximum suppression;
    - descriptors (N, h, w, D) float32, unit length, covering the same area (pixel (x, y) of the image lies at
      ``x * w / W, y * h / H``, pixel centres at 0.5).
    """

    name: str
    licence: str
    descriptor_dim: int

    def __call__(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class GlobalTeacher(Protocol):
    """A network trained to tell images apart, of which the feature map is used: ``features`` takes ``rgb`` (N, H, W, 3)
    uint8, sides divisible by 32, and gives (N, H / 32, W / 32, C) float32. Its ``weights`` start the student's."""

    name: str
    licence: str
    weights: dict[str, np.ndarray]

    def features(self, rgb: np.ndarray) -> np.ndarray: ...


class Alike:
    """ALIKE-n or ALIKE-l (Zhao et al. 2022), from a file of PyTorch-named arrays."""

    licence = "BSD-3-Clause"

    def __init__(self, path: Path):
        self.weights = {name: tf.constant(array) for name, array in _arrays(path).items()}
        self.name = Path(path).stem
        if "convhead2.weight" not in self.weights:
            raise InputError(f"{path} does not hold ALIKE's weights", "give an .npz of arrays with PyTorch's names")
        self.descriptor_dim = self.weights["convhead2.weight"].shape[0] - 1
        self._network = tf.function(self._forward, reduce_retracing=True)

    def __call__(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, descriptors = self._network(tf.constant(rgb))
        return scores.numpy(), descriptors.numpy()

    def _conv(self, x, name: str):
        x = tf.nn.conv2d(x, tf.transpose(self.weights[f"{name}.weight"], (2, 3, 1, 0)), 1, "SAME")
        return x + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else x

    def _conv_bn(self, x, block: str, k: int):
        p = {s: self.weights[f"{block}.bn{k}.{s}"] for s in ("weight", "bias", "running_mean", "running_var")}
        x = self._conv(x, f"{block}.conv{k}")
        return tf.nn.batch_normalization(x, p["running_mean"], p["running_var"], p["bias"], p["weight"], 1e-5)

    def _forward(self, rgb):
        x = tf.cast(rgb, tf.float32) / 255.0
        size = tf.shape(x)[1:3]
        x = tf.nn.relu(self._conv_bn(tf.nn.relu(self._conv_bn(x, "block1", 1)), "block1", 2))
        levels = [x]
        for block, pool in (("block2", 2), ("block3", 4), ("block4", 4)):
            x = tf.nn.max_pool2d(x, pool, pool, "VALID")
            shortcut = self._conv(x, f"{block}.downsample")
            x = tf.nn.relu(self._conv_bn(x, block, 1))
            x = tf.nn.relu(self._conv_bn(x, block, 2) + shortcut)
            levels.append(x)
        full = [tf.nn.relu(self._conv(level, f"conv{k}")) for k, level in enumerate(levels, 1)]
        full = [tf.compat.v1.image.resize_bilinear(level, size, align_corners=True) for level in full]
        x = tf.concat(full, axis=-1)
        if "convhead1.weight" in self.weights:
            x = tf.nn.relu(self._conv(x, "convhead1"))
        x = self._conv(x, "convhead2")
        return tf.sigmoid(x[..., -1]), tf.math.l2_normalize(x[..., :-1], axis=-1)


class XFeat:
    """XFeat (Potje et al. 2024) through ONNX Runtime: 64-D descriptors at 1/8, keypoints decoded from cells."""

    licence = "Apache-2.0"
    descriptor_dim = 64
    side = 640  # the file's input size is fixed

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as e:
            raise InputError(f"ONNX Runtime cannot load {path}: {str(e).splitlines()[0]}", "give xfeat.onnx") from e
        self.name = Path(path).stem

    def __call__(self, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pairs = [self._one(image) for image in rgb]
        return np.stack([s for s, _ in pairs]), np.stack([d for _, d in pairs])

    def _one(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        h, w = image.shape[:2]
        padded = np.pad(image, ((0, self.side - h), (0, self.side - w), (0, 0)), mode="symmetric")
        dense, logits, reliability = self.session.run(
            ["output", "1266", "266"], {"input": padded.transpose(2, 0, 1)[None].astype(np.float32)}
        )
        cells = np.exp(logits[0] - logits[0].max(axis=0))
        cells = (cells / cells.sum(axis=0))[:64].reshape(8, 8, 80, 80).transpose(2, 0, 3, 1).reshape(640, 640)
        scores = cells * np.kron(reliability[0, 0], np.ones((8, 8), np.float32))
        dense = dense[0, :, : h // 8, : w // 8].transpose(1, 2, 0)
        return scores[:h, :w], dense / np.linalg.norm(dense, axis=-1, keepdims=True)


class ImageNet:
    """Keras' MobileNetV2 x1.0 trained on ImageNet, up to the last block (320 channels, before `Conv_1`)."""

    licence = "Apache-2.0 (Keras applications)"

    def __init__(self, path: Path):
        self.name = Path(path).stem
        self.weights = _arrays(path)
        if "b16.proj.weight" not in self.weights:
            raise InputError(f"{path} does not hold MobileNetV2's weights", "give mobilenetv2_1.0_imagenet.npz")
        image = keras.layers.Input((None, None, 3))
        model = keras.Model(image, mobilenet_v2(image, 1.0)[-1])
        for layer in model.layers:
            if f"{layer.name}.weight" not in self.weights:
                continue
            kernel, bias = self.weights[f"{layer.name}.weight"], self.weights[f"{layer.name}.bias"]
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            layer.set_weights([kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))])
            ones = np.ones_like(bias)
            model.get_layer(f"{layer.name}.bn").set_weights([ones, bias, 0 * ones, ones - 1e-3])
        self._network = tf.function(lambda x: model(x, training=False), reduce_retracing=True)

    def features(self, rgb: np.ndarray) -> np.ndarray:
        return self._network(tf.constant(rgb.astype(np.float32) / 127.5 - 1)).numpy()


LOCAL_TEACHERS: dict[str, Callable[[Path], LocalTeacher]] = {"alike": Alike, "xfeat": XFeat}


def local_teacher(path: Path) -> LocalTeacher:
    """The teacher whose name the file's name starts with (`alike_n.npz`, `xfeat.onnx`)."""
    for prefix, teacher in LOCAL_TEACHERS.items():
        if Path(path).name.startswith(prefix):
            return teacher(path)
    raise InputError(f"no local teacher is known for {path}", f"file names start with {', '.join(LOCAL_TEACHERS)}")


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with open_input(path) as opened, np.load(opened) as file:
            return {name: file[name] for name in file.files}
    except Exception as e:  # numpy raises BadZipFile, EOFError, ValueError, ...
        raise InputError(f"cannot read the teacher's weights {path}: {e}", "give an .npz file of arrays") from e
