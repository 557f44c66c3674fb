"""Stage `densernet`: triplets of images, weakly supervised (paper 004, section III.F), beside what it began as.

Equations (7) and (8) compare two images cell by cell; which cells correspond is not known, so a cell is compared with
the most similar one of the other image. The same loss over the pooled vectors is what retrieval asks for, and the
pooled vector of the unchanged photograph by the network that training began with keeps what ImageNet knows: without it
the few places are learnt by heart. The projection follows in closed form, `learnt_projection`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from hfnet_export.networks.densernet import DenserNetConfig
from hfnet_export.networks.hfnet import network_input, unit
from hfnet_export.networks.pca import PCA
from hfnet_export.training.covisible import TURNED, Images, draw_triplet, from_aside
from hfnet_export.training.losses import Term
from hfnet_export.training.training_stage import TrainingStage
from hfnet_export.training.view_pairs import change_view

TERMS = (Term("cells", 2.0), Term("images", 2.0), Term("beginning", 1.0))
MARGIN = 0.1  # of equation (8)
KEPT = 10.0  # times as much as a triplet counts what is kept of the beginning
HELD_OUT = 8  # batches of held-out triplets
BLOCK = 16  # images that are embedded at a time
PAIRS = 6  # true positives of an image that the projection learns from


@dataclass(frozen=True)
class DenserNetTraining:
    """A training run. Together with the images it decides the weights.

    Attributes:
        steps: of the optimiser. triplets: per step. learning_rate: Adam's, at its peak.
        photographs: share of triplets whose positive is a homography; in the others it is a photograph of the place.
        input_size: height and width, multiples of 32.
        seed: of the triplets.
    """

    network: DenserNetConfig = field(default_factory=DenserNetConfig)
    steps: int = 700
    triplets: int = 4
    learning_rate: float = 1e-4
    photographs: float = 0.4
    input_size: tuple[int, int] = (384, 512)
    seed: int = 0


def densernet_stage(model: keras.Model, images: Images, held_out: Images, config: DenserNetTraining) -> TrainingStage:
    """Triplets of ``images``; their hard negatives and the vectors to keep are those of ``model`` as it is given.
    Batch normalisation keeps its statistics."""
    c = config
    taught = keras.Model(model.input, [model.get_layer(name).output for name in ("attention.relu", "scores", "pooled")])
    began = [embed(model, some.pixels) for some in (images, held_out)]

    def batch(of: Images, vectors: np.ndarray, rng: np.random.Generator) -> tuple:
        drawn = [draw_triplet(of, c.photographs, vectors, rng) for _ in range(c.triplets)]
        queries, positives, negatives = (np.array(column) for column in zip(*drawn, strict=True))
        aside = (queries == positives) | (rng.random(len(drawn)) < TURNED)
        views = [
            *(of.pixels[i] for i in queries),
            *(from_aside(of.pixels[i], rng) if a else of.pixels[i] for i, a in zip(positives, aside, strict=True)),
            *(of.pixels[i] for i in negatives),
        ]
        return network_input(np.stack([change_view(view, rng) for view in views])), vectors[queries]

    def batches(first: int) -> Iterator[tuple]:
        for step in range(first, c.steps):
            yield batch(images, began[0], np.random.default_rng((c.seed, 1, step)))

    def losses(step: tuple, training: bool):
        pixels, kept = step
        features, scores, pooled = taught(pixels, training=False)
        query, positive, negative = (
            (unit(f), s) for f, s in zip(tf.split(features, 3), tf.split(scores, 3), strict=True)
        )
        cells = tf.nn.relu(MARGIN + likeness(query, positive) - likeness(query, negative))
        q, p, n = (v / np.sqrt(2) for v in tf.split(pooled, 3))  # two parts of unit length
        near, far = tf.reduce_sum((q - p) ** 2, -1), tf.reduce_sum((q - n) ** 2, -1)
        moved = KEPT * tf.reduce_sum((q - kept) ** 2, -1)
        return tf.stack([tf.reduce_mean(t) for t in (cells, tf.nn.relu(MARGIN + near - far), moved)])

    rng = np.random.default_rng((c.seed, 2))
    clean = [batch(held_out, began[1], rng) for _ in range(HELD_OUT)]
    return TrainingStage("densernet", taught, TERMS, losses, batches, clean, c.steps, c.learning_rate, balanced=False)


def likeness(a: tuple, b: tuple):
    """Equation (7): (N,) mean distance of the cells of images ``a`` from the most similar ones of ``b``, weighted by
    both scores. Each is descriptors (N, h, w, C) of unit length and scores (N, h, w, 1)."""
    (fa, sa), (fb, sb) = (
        (tf.reshape(f, (tf.shape(f)[0], -1, f.shape[-1])), tf.reshape(s, (tf.shape(s)[0], -1))) for f, s in (a, b)
    )
    similar = tf.matmul(fa, fb, transpose_b=True)
    weights = sa * tf.gather(sb, tf.argmax(similar, -1), batch_dims=1)
    weights /= tf.reduce_sum(weights, -1, keepdims=True)
    return tf.reduce_sum(weights * tf.sqrt(tf.maximum(2 - 2 * tf.reduce_max(similar, -1), 1e-6)), -1)


def embed(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """(N, 2 C) float32 of unit length: what is pooled of images (N, H, W) uint8, before the projection."""
    pooled = keras.Model(model.input, model.get_layer("pooled").output)
    run = tf.function(lambda x: pooled(x, training=False) / np.sqrt(2), reduce_retracing=True)
    blocks = (pixels[k : k + BLOCK] for k in range(0, len(pixels), BLOCK))
    return np.concatenate([run(network_input(block)).numpy() for block in blocks])


def learnt_projection(model: keras.Model, images: Images, dim: int, seed: int) -> PCA:
    """Of vectors as they are pooled of images and of changed views of each, to the dimensions in which places differ
    most where views of one place differ least."""
    rng = np.random.default_rng((seed, 3))
    changed = np.stack([change_view(from_aside(pixels, rng), rng) for pixels in images.pixels])
    vectors = np.concatenate([embed(model, images.pixels), embed(model, changed)])
    n = len(images.pixels)
    same = np.stack([np.arange(n), n + np.arange(n)], axis=1)
    return PCA.fit_pairs(vectors, np.concatenate([same, images.pairs(PAIRS, rng)]), dim)


def mean_precision(vectors: np.ndarray, sources: Sequence[int], images: Images) -> float:
    """Mean average precision of the images of some ``sources`` that have positives, each against the others of its
    source; ``vectors`` (N, G) of all images, of unit length."""
    found = []
    for source in sources:
        rows = np.flatnonzero(images.source == source)
        similar = vectors[rows] @ vectors[rows].T
        for k, i in enumerate(rows):
            order = rows[np.argsort(-similar[k], kind="stable")]
            hits = np.flatnonzero(np.isin(order[order != i], images.positives(int(i)))) + 1
            if len(hits):
                found.append(float(np.mean(np.arange(1, len(hits) + 1) / hits)))
    return float(np.mean(found)) if found else float("nan")
