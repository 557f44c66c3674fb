"""Stage `hypercolumns`: a point of one view is found among all cells of another, in the dark and in motion too.

The encoder stays as the other stages left it and runs as a float .tflite; the head of the hypercolumns is trained alone
and has no batch normalisation. Its convolutions are scaled once, on a first batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from hfnet_edge.networks.description import HYPERCOLUMN_ROLE
from hfnet_export.networks.hfnet import hypercolumn_inputs
from hfnet_export.training.descriptor_stage import HELD_OUT, Encoder
from hfnet_export.training.losses import CONTRAST, grid_contrast
from hfnet_export.training.targets import Targets
from hfnet_export.training.training_stage import TrainingStage
from hfnet_export.training.view_pairs import Place, ViewPair, change_view, draw_pair, filled, harsh_view

CHANGED, HARSH = 0.85, 0.75  # share of views that are changed at all, and of these, harshly
SUMS = (("deep", "context"), ("quarter", "local", "spread"))  # convolutions whose outputs are added


@dataclass(frozen=True)
class HypercolumnConfig:
    """Stage `hypercolumns`.

    Attributes:
        steps, learning_rate: as in `hfnet_export.training.distill.LocalConfig`.
        pairs: of views per step. side: of a square view, pixels, a multiple of 32.
        matches: points of a pair that both views show.
        photographs: share of pairs through homographies; the others are photographs of places.
    """

    steps: int = 3600
    pairs: int = 4
    side: int = 320
    matches: int = 256
    photographs: float = 0.45
    learning_rate: float = 1e-3


def hypercolumn_head_of(model: keras.Model) -> keras.Model:
    """The head of a model: from the outputs of `hfnet_export.networks.hfnet.HYPERCOLUMN_LAYERS` to hypercolumns
    (N, h, w, D), not normalised."""
    return keras.Model(hypercolumn_inputs(model), model.get_layer(HYPERCOLUMN_ROLE).output)


def scale_convolutions(model: keras.Model, maps: Sequence) -> None:
    """Scales the convolutions of a model's untrained head, so that on ``maps`` (N, h, w, C) each gives channels of unit
    standard deviation. Where outputs are added, their sum has it, and a mean of 0.5: more of it passes a ReLU6."""
    added = {f"{HYPERCOLUMN_ROLE}.{name}": len(names) for names in SUMS for name in names}
    inputs = hypercolumn_inputs(model)
    for layer in hypercolumn_head_of(model).layers:  # from the inputs on
        if isinstance(layer, keras.layers.Conv2D):
            found = keras.Model(inputs, layer.output)(maps).numpy()
            kernel, bias = layer.get_weights()
            deviation, parts = found.std(axis=(0, 1, 2)).mean(), added.get(layer.name, 1)
            bias[:] = 0.5 / parts if parts > 1 else 0
            layer.set_weights([kernel / (deviation * np.sqrt(parts)), bias])


def any_view(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As it is, in other light, or harshly changed, which most are. (S, S) uint8 in and out."""
    if rng.random() >= CHANGED:
        return view
    if rng.random() >= HARSH:
        return change_view(view, rng)
    return harsh_view(change_view(view, rng) if rng.random() < 0.7 else view, rng)


def hypercolumn_stage(
    model: keras.Model,
    targets: Targets,
    rows: tuple[np.ndarray, np.ndarray],
    places: Sequence[Place],
    held_out: Sequence[Place],
    config: HypercolumnConfig,
    seed: int,
) -> TrainingStage:
    """Contrast of a pair's points among all cells of a step's views. Scales the head's convolutions; a checkpoint
    overwrites that.

    Args:
        rows: photographs of ``targets`` to train on, and those held out. places, held_out: likewise.
    """
    c = config
    encoder = Encoder(model, hypercolumn_inputs(model), c.side)
    head = hypercolumn_head_of(model)

    def example(found: ViewPair, rng: np.random.Generator) -> tuple:
        views = [any_view(view, rng) for view in found.views]
        chosen = rng.permutation(len(found.shared[0]))[: c.matches]
        points = [filled(shared[chosen], c.matches) for shared in found.shared]
        maps = zip(*(encoder(view) for view in views), strict=True)
        return np.int64(found.source), np.stack(points), *(np.stack(of_views) for of_views in maps)

    def batch(rng: np.random.Generator, photographs: np.ndarray, of: Sequence[Place]) -> tuple:
        pairs = (draw_pair(targets, photographs, of, c.photographs, c.side, rng) for _ in range(c.pairs))
        return tuple(np.stack(column) for column in zip(*(example(found, rng) for found in pairs), strict=True))

    def batches(first: int) -> Iterator[tuple]:
        for step in range(first, c.steps):
            yield batch(np.random.default_rng((seed, 7, step)), rows[0], places)

    def contrast(step: tuple, training: bool):
        source, xy, *maps = step
        out = head(_of_views(maps), training=training)
        out = tf.reshape(out, (*xy.shape[:2], *out.shape[1:]))
        return tf.stack([grid_contrast(out[:, 0], out[:, 1], (xy[:, 0], xy[:, 1]), source)])

    _, _, *maps = next(batches(0))
    scale_convolutions(model, _of_views(maps))
    rng = np.random.default_rng((seed, 8))
    clean = [batch(rng, rows[1], held_out) for _ in range(HELD_OUT)]
    return TrainingStage(
        "hypercolumns", head, (CONTRAST,), contrast, batches, clean, c.steps, c.learning_rate, balanced=False
    )


def _of_views(maps: Sequence) -> list:
    """(P, 2, h, w, C) float16 of pairs to (2P, h, w, C) float32 of views."""
    return [tf.reshape(tf.cast(map_, tf.float32), (-1, *map_.shape[2:])) for map_ in maps]
