"""Stage `descriptors`: descriptors that are the same in both views of a pair and differ from all others.

The encoder stays as the other stages left it, so neither keypoints nor retrieval change. Its layers run as a float
.tflite, six times as fast on a CPU as in the training framework; only the descriptor heads are trained, with the
statistics of their batch normalisation as they are. The heads of the finer parts are computed around a view's points
alone, a fifteenth of their maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from hfnet_edge.networks.description import LOCAL_ROLE, LOCAL_ROLES
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks.hfnet import HALF_ROLE, QUARTER_ROLE, descriptor_inputs, network_input
from hfnet_export.training.losses import CONTRAST, bilinear, cells, joined, pair_contrast
from hfnet_export.training.targets import Targets
from hfnet_export.training.training_stage import TrainingStage
from hfnet_export.training.view_pairs import Place, ViewPair, change_view, draw_pair, filled

HELD_OUT = 8  # batches
REACH = 1  # points that the convolutions of a finer part's head see to each side


@dataclass(frozen=True)
class DescriptorConfig:
    """Stage `descriptors`.

    Attributes:
        steps, learning_rate: as in `hfnet_export.training.distill.LocalConfig`.
        pairs: of views per step. side: of a square view, pixels, a multiple of 32.
        matches, others: points of a pair that both views show, and of each view that the other need not show.
        photographs: share of pairs through homographies; the others are photographs of places.
    """

    steps: int = 10200
    pairs: int = 4
    side: int = 320
    matches: int = 256
    others: int = 160
    photographs: float = 0.4
    learning_rate: float = 1e-3


class Encoder:
    """The outputs of layers of a model, from grey views (S, S) uint8: (h, w, C) float16 each, the finest first.

    ``outputs`` are those of the model's layers, each at another scale; ``side`` is S.
    """

    def __init__(self, model: keras.Model, outputs: Sequence, side: int):
        image = keras.layers.Input((side, side, 1), batch_size=1)
        maps = keras.Model(model.input, list(outputs))
        with quiet():
            content = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, maps(image))).convert()
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()

    def __call__(self, view: np.ndarray) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._interpreter.get_input_details()[0]["index"], network_input(view[None]))
        self._interpreter.invoke()
        outputs = [self._interpreter.get_tensor(o["index"])[0] for o in self._interpreter.get_output_details()]
        return [output.astype(np.float16) for output in sorted(outputs, key=len, reverse=True)]


class Heads:
    """The descriptor heads of a model, each from one layer of the encoder, the coarse one from two."""

    def __init__(self, model: keras.Model):
        half, quarter, *coarse = descriptor_inputs(model)
        self._coarse = keras.Model(coarse, model.get_layer(LOCAL_ROLE).output)
        outputs = {HALF_ROLE: half, QUARTER_ROLE: quarter}
        self._fine = {r: keras.Model(x, model.get_layer(r).output) for r, x in outputs.items()}
        self.model = keras.Model([half, quarter, *coarse], [model.get_layer(role).output for role in LOCAL_ROLES])

    def __call__(self, maps: Sequence, xy):
        """Unit descriptors (N, K, D) at pixels (N, K, 2) of views with `Encoder`'s ``maps`` (N, h, w, C)."""
        half, quarter, local, context = maps
        parts = [bilinear(self._coarse([local, context], training=False), cells(xy, LOCAL_ROLE))]
        for role, map_ in ((QUARTER_ROLE, quarter), (HALF_ROLE, half)):
            parts.append(_around(self._fine[role], map_, cells(xy, role)))
        return joined(parts)


def _around(head: keras.Model, map_, at):
    """What `bilinear` finds at positions (N, K, 2) of a head's output (N, h, w, D), computed from its input in windows:
    the four points that each position lies between, and `REACH` more on all sides, which is what the head sees."""
    dx, dy = tf.meshgrid(*[tf.range(2 * REACH + 2)] * 2)
    limit = tf.cast(tf.stack([tf.shape(map_)[2], tf.shape(map_)[1]]), tf.float32) - 1
    at = tf.clip_by_value(at, 0.0, limit)
    corner = tf.minimum(tf.floor(at), limit - 1)
    x, y = (c[..., None, None] for c in tf.unstack(tf.cast(corner, tf.int32), axis=-1))
    padded = tf.pad(map_, ((0, 0), (REACH, REACH), (REACH, REACH), (0, 0)))
    windows = tf.gather_nd(padded, tf.stack([y + dy, x + dx], axis=-1), batch_dims=1)
    out = head(tf.reshape(windows, (-1, *windows.shape[2:])), training=False)
    found = bilinear(out, tf.reshape(at - corner, (-1, 1, 2)) + REACH)
    return tf.reshape(found, (*tf.unstack(tf.shape(at)[:2]), out.shape[-1]))


def descriptor_stage(
    model: keras.Model,
    targets: Targets,
    rows: tuple[np.ndarray, np.ndarray],
    places: Sequence[Place],
    held_out: Sequence[Place],
    config: DescriptorConfig,
    seed: int,
) -> TrainingStage:
    """Contrast among all points of a step's pairs.

    Args:
        rows: photographs of ``targets`` to train on, and those held out. places, held_out: likewise.
    """
    c = config
    encoder = Encoder(model, descriptor_inputs(model), c.side)
    heads = Heads(model)

    def example(found: ViewPair, rng: np.random.Generator) -> tuple:
        views = [change_view(view, rng) if rng.random() < 0.85 else view for view in found.views]
        chosen = rng.permutation(len(found.shared[0]))[: c.matches]
        points = [
            np.concatenate([filled(shared[chosen], c.matches), filled(others, c.others)])
            for shared, others in zip(found.shared, found.others, strict=True)
        ]
        maps = zip(*(encoder(view) for view in views), strict=True)
        return np.int64(found.source), np.stack(points), *(np.stack(of_views) for of_views in maps)

    def batch(rng: np.random.Generator, photographs: np.ndarray, of: Sequence[Place]) -> tuple:
        pairs = (draw_pair(targets, photographs, of, c.photographs, c.side, rng) for _ in range(c.pairs))
        return tuple(np.stack(column) for column in zip(*(example(found, rng) for found in pairs), strict=True))

    def batches(first: int) -> Iterator[tuple]:
        for step in range(first, c.steps):
            yield batch(np.random.default_rng((seed, 5, step)), rows[0], places)

    def contrast(step: tuple, training: bool):
        source, xy, *maps = step
        views = [[tf.cast(map_[:, i], tf.float32) for map_ in maps] for i in (0, 1)]
        first, second = (heads(view, xy[:, i]) for i, view in enumerate(views))
        return tf.stack([pair_contrast(first, second, (xy[:, 0], xy[:, 1]), c.matches, source)])

    rng = np.random.default_rng((seed, 6))
    clean = [batch(rng, rows[1], held_out) for _ in range(HELD_OUT)]
    return TrainingStage(
        "descriptors", heads.model, (CONTRAST,), contrast, batches, clean, c.steps, c.learning_rate, balanced=False
    )
