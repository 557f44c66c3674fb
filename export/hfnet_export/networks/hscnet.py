"""A hierarchical scene coordinate network in Keras 3, over a frozen encoder (paper 003, section 3, figure 2).

    descriptor (D) ─ dense, ReLU6, three times ─┬─> labels of level 1 ─argmax─┐
                                                ├─> visibility                 │
                          FiLM <── generator <──┼──────────────────────────────┤
                          dense, ReLU6, twice ──┴─> labels of level 2 ─argmax─┐│
                          FiLM <── generator <────────────────────────────────┴┘
                          dense, ReLU6, twice ────> labels of level 3 ...

A keypoint's score is a weighed sum of its visibility (is it of any landmark?) and of how far each level's label is
ahead of the next; the weights are found once the rest is taught (`HSCNet.weigh`), in images that it was not shown.

What the paper's network learns from pixels, HF-Net's encoder has learnt already and for every place; so only what is of
this place is here. All layers act on one keypoint alone, as the paper's do after the first conditioning. The generator
of a level takes the labels of all levels before it; in training the true ones, on the device the predicted ones. The
last level's labels are single landmarks (the paper's variant without regression, section 4.5). Where there are images,
each generator, and one more before the first labels, takes the number of a reference image too (section 4.5).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from hfnet_edge.networks.description import SCENE_ROLE
from hfnet_edge.networks.scene import LIFT, NUMBER

AHEAD, FAR = 20.0, 1e4  # the largest margin; more than any logit
TRUNK, TAIL = 3, 2  # dense layers before the first labels, and before those of each further level


@dataclass(frozen=True)
class HSCNetConfig:
    """Everything that decides the network's shape.

    Attributes:
        dim: D, of the descriptors. branches: labels of each level.
        images: reference images that one of is told with each keypoint; 0: none is.
        width: of its layers. generator: of the generators' hidden layer.
    """

    dim: int
    branches: tuple[int, ...]
    images: int = 0
    width: int = 256
    generator: int = 64

    def as_dict(self) -> dict:
        return asdict(self)


@keras.saving.register_keras_serializable("hfnet_edge")
class Word(layers.Layer):
    """A vector for each label: what a generator is told. (Keras' own converts to operators that TFLite lacks.)"""

    def __init__(self, labels: int, width: int, **kwargs):
        super().__init__(**kwargs)
        self.table = self.add_weight(shape=(labels, width), initializer="random_normal", name="table")

    def call(self, label):
        return tf.gather(self.table, label)


@keras.saving.register_keras_serializable("hfnet_edge")
class Chosen(layers.Layer):
    """The label of the largest logit, of equals the lowest: (N, B) to (N,) int32."""

    def call(self, logits):
        return tf.argmax(logits, axis=-1, output_type=tf.int32)


@keras.saving.register_keras_serializable("hfnet_edge")
class Margin(layers.Layer):
    """How far the largest logit is ahead of the next, at most `AHEAD`: (N, B) to (N, 1)."""

    def call(self, logits):
        top = tf.reduce_max(logits, axis=-1, keepdims=True)
        others = logits - FAR * tf.cast(tf.equal(logits, top), tf.float32)
        return tf.minimum(top - tf.reduce_max(others, axis=-1, keepdims=True), AHEAD)


@keras.saving.register_keras_serializable("hfnet_edge")
class Score(layers.Layer):
    """A weighed sum of evidence (N, E), and a constant: (N, 1)."""

    def __init__(self, count: int, **kwargs):
        super().__init__(**kwargs)
        self.weights_of = self.add_weight(shape=(count,), initializer="ones", trainable=False, name="weights")
        self.constant = self.add_weight(shape=(1,), initializer="zeros", trainable=False, name="constant")

    def call(self, evidence):
        return tf.reduce_sum(evidence * self.weights_of, axis=-1, keepdims=True) + self.constant


@keras.saving.register_keras_serializable("hfnet_edge")
class Told(layers.Layer):
    """Labels (N,) of each level and the score (N, 1), as one output."""

    def call(self, labels, score):
        return tf.concat([*(tf.expand_dims(tf.cast(label, tf.float32), 1) for label in labels), score], axis=-1)


@keras.saving.register_keras_serializable("hfnet_edge")
class Row(layers.Layer):
    """What a .tflite takes, (N, 1, D, 1) or (N, 1, D + `NUMBER`, 1), in parts: descriptors (N, D), images (N,) int32.

    An image's number is in two "grey levels", high and low.
    """

    def __init__(self, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim

    def call(self, rows):
        values = tf.squeeze(rows, axis=(1, 3))
        if values.shape[1] == self.dim:
            return values, tf.zeros_like(values[:, 0], tf.int32)
        levels = values[:, self.dim :] * 127.0 + LIFT
        return values[:, : self.dim], tf.cast(levels[:, 0] + 0.25, tf.int32) * 256 + tf.cast(
            levels[:, 1] + 0.25, tf.int32
        )


@dataclass(frozen=True)
class HSCNet:
    """The network three times, with the same weights.

    Attributes:
        taught: descriptors (N, D) float32 of unit length, images (N,) int32 and true labels (N, levels) int32 to the
            logits of each level, then the visibility (N, 1).
        asked: descriptors and images to the labels that are predicted, (N,) int32 of each level, and the evidence
            (N, 1 + levels) that the score is made of: visibility and margins.
        deployed: rows as a .tflite takes them, see `Row`, to (N, levels + 1): predicted labels, score.
    """

    taught: keras.Model
    asked: keras.Model
    deployed: keras.Model

    def weigh(self, weights: np.ndarray, constant: float) -> None:
        """Sets what the score is made of the evidence by, (1 + levels,)."""
        self.deployed.get_layer("score").set_weights([weights, np.array([constant])])


def build_hscnet(config: HSCNetConfig) -> HSCNet:
    """The models, with new weights."""
    levels = range(len(config.branches))
    relu = layers.ReLU(max_value=6.0, name="relu")

    def dense(count: int, name: str) -> list[layers.Dense]:
        return [layers.Dense(config.width, name=f"{name}.{i}") for i in range(count)]

    told_at = [level for level in levels if level or config.images]
    trunk = dense(TRUNK, "trunk")
    tails = {level: dense(TAIL, f"level{level}") for level in told_at}
    words = {
        (level, before): Word(config.branches[before], config.generator, name=f"word{level}.{before}")
        for level in levels
        for before in range(level)
    }
    pictures = {
        level: Word(config.images, config.generator, name=f"image{level}") for level in told_at if config.images
    }
    scales, shifts = (
        {level: layers.Dense(config.width, name=f"{name}{level}") for level in told_at} for name in ("scale", "shift")
    )
    heads = [layers.Dense(branches, name=f"labels{level}") for level, branches in enumerate(config.branches)]
    visible = layers.Dense(1, name="visibility")
    score = Score(1 + len(levels), name="score")

    def run(x, image, label_of):
        """Logits and labels of each level, and the visibility; ``label_of`` gives the labels, from the logits."""
        for layer in trunk:
            x = relu(layer(x))
        labels: list = []
        logits: list = []
        seen = visible(x)
        for level in levels:
            told = [words[level, before](label) for before, label in enumerate(labels)]
            if config.images:
                told.append(pictures[level](image))
            if told:
                known = relu(sum(told[1:], told[0]))
                x = relu(x * (scales[level](known) + 1.0) + shifts[level](known))
                for layer in tails[level]:
                    x = relu(layer(x))
            logits.append(heads[level](x))
            labels.append(label_of(level, logits[-1]))
        return logits, labels, seen

    vectors, image = layers.Input((config.dim,), name="descriptors"), layers.Input((), dtype="int32", name="images")
    true = layers.Input((len(levels),), dtype="int32", name="labels")
    logits, _, seen = run(vectors, image, lambda level, _: true[:, level])
    margins, labels, sure = run(vectors, image, lambda _, logits: Chosen()(logits))
    evidence = layers.Concatenate()([sure, *(Margin()(each) for each in margins)])
    rows = layers.Input((1, config.dim + NUMBER * bool(config.images), 1), name="image")
    parts = Row(config.dim)(rows)
    ahead, predicted, sure = run(parts[0], parts[1], lambda _, logits: Chosen()(logits))
    told = score(layers.Concatenate()([sure, *(Margin()(each) for each in ahead)]))
    return HSCNet(
        keras.Model([vectors, image, true], [*logits, seen], name="hscnet"),
        keras.Model([vectors, image], [*labels, evidence], name="hscnet"),
        keras.Model(rows, {SCENE_ROLE: Told()(predicted, told)}, name="hscnet"),
    )
