"""Stage `descriptors`: descriptors that are the same in both views of a pair and differ from all others.

The encoder stays as the other stages left it, so neither keypoints nor retrieval change. Its layers run as a float
.tflite, six times as fast on a CPU as in the training framework; only the descriptor head is trained, with the
statistics of its batch normalisation as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from hfnet_edge.errors import InputError
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks.hfnet import INPUT_RANGE, descriptor_inputs
from hfnet_export.training.losses import CONTRAST, pair_contrast
from hfnet_export.training.targets import Targets
from hfnet_export.training.training_stage import TrainingStage
from hfnet_export.training.view_pairs import Place, ViewPair, change_view, of_photograph, of_place

NOWHERE = -1000.0  # where a row holds no point
HELD_OUT = 8  # batches
TRIES = 200  # for a pair


@dataclass(frozen=True)
class DescriptorConfig:
    """Stage `descriptors`.

    Attributes:
        steps, learning_rate: as in `hfnet_export.training.distill.LocalConfig`.
        pairs: of views per step. side: of a square view, pixels, a multiple of 32.
        matches, others: points of a pair that both views show, and of each view that the other need not show.
        photographs: share of pairs through homographies; the others are photographs of places.
    """

    steps: int = 4500
    pairs: int = 4
    side: int = 320
    matches: int = 256
    others: int = 160
    photographs: float = 0.4
    learning_rate: float = 1e-3


class Encoder:
    """The two maps that descriptors are made of, from grey views (S, S) uint8: float16, at 1/8 and 1/16."""

    def __init__(self, model: keras.Model, side: int):
        image = keras.layers.Input((side, side, 1), batch_size=1)
        maps = keras.Model(model.input, descriptor_inputs(model))
        with quiet():
            content = tf.lite.TFLiteConverter.from_keras_model(keras.Model(image, maps(image))).convert()
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()

    def __call__(self, view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        low, high = INPUT_RANGE
        grey = view[None, ..., None].astype(np.float32) * np.float32((high - low) / 255) + np.float32(low)
        self._interpreter.set_tensor(self._interpreter.get_input_details()[0]["index"], grey)
        self._interpreter.invoke()
        outputs = [self._interpreter.get_tensor(o["index"])[0] for o in self._interpreter.get_output_details()]
        fine, coarse = sorted(outputs, key=lambda output: -output.shape[0])
        return fine.astype(np.float16), coarse.astype(np.float16)


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
    encoder = Encoder(model, c.side)
    head = keras.Model(descriptor_inputs(model), model.get_layer("local_descriptors").output)

    def pair(rng: np.random.Generator, photographs: np.ndarray, of: Sequence[Place]) -> tuple:
        for _ in range(TRIES):
            if not of or rng.random() < c.photographs:
                found = of_photograph(targets, int(rng.choice(photographs)), c.side, rng)
            else:
                chances = np.sqrt([len(place.pairs) for place in of])
                place = int(rng.choice(len(of), p=chances / chances.sum()))
                found = of_place(of[place], -1 - place, c.side, rng)
            if found is not None:
                return example(found, rng)
        raise InputError("no two views share enough points", "give images with more to see, or larger ones")

    def example(found: ViewPair, rng: np.random.Generator) -> tuple:
        views = [change_view(view, rng) if rng.random() < 0.85 else view for view in found.views]
        chosen = rng.permutation(len(found.shared[0]))[: c.matches]
        points = [_filled(xy[chosen], c.matches) for xy in found.shared]
        points += [_filled(xy, c.others) for xy in found.others]
        fine, coarse = zip(*(encoder(view) for view in views), strict=True)
        return np.stack(fine), np.stack(coarse), *points, np.int64(found.source)

    def batch(rng: np.random.Generator, photographs: np.ndarray, of: Sequence[Place]) -> tuple:
        columns = zip(*(pair(rng, photographs, of) for _ in range(c.pairs)), strict=True)
        return tuple(np.stack(column) for column in columns)

    def batches(first: int) -> Iterator[tuple]:
        for step in range(first, c.steps):
            yield batch(np.random.default_rng((seed, 5, step)), rows[0], places)

    def contrast(step: tuple, training: bool):
        fine, coarse, a, b, others_a, others_b, source = step
        first = head([tf.cast(m[:, 0], tf.float32) for m in (fine, coarse)], training=False)
        second = head([tf.cast(m[:, 1], tf.float32) for m in (fine, coarse)], training=False)
        return tf.stack([pair_contrast(first, second, (a, b), (others_a, others_b), source)])

    rng = np.random.default_rng((seed, 6))
    clean = [batch(rng, rows[1], held_out) for _ in range(HELD_OUT)]
    return TrainingStage(
        "descriptors", head, (CONTRAST,), contrast, batches, clean, c.steps, c.learning_rate, balanced=False
    )


def _filled(xy: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) float32: the first ``count`` of (N, 2) points, and `NOWHERE`."""
    out = np.full((count, 2), NOWHERE, np.float32)
    out[: min(len(xy), count)] = xy[:count]
    return out
