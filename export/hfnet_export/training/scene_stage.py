"""Teaches a scene network the place of one map, from what its reference images observed (paper 003, section 3).

The labels of each level are told apart by cross-entropy (equation 3), the generators see the true ones. Visibility
is taught by keypoints that are of no landmark. A keypoint is what its landmark looked like in two images, mixed:
between two views lie others. Single observations alone are learnt by heart, and new views of them are not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from hfnet_export.networks.hscnet import HSCNet
from hfnet_export.training.losses import Term
from hfnet_export.training.training_stage import TrainingStage

UNIT = 127
NOISE = 0.03  # standard deviation of a component, as other views have it


@dataclass(frozen=True)
class SceneObservations:
    """Keypoints of reference images; O with a landmark, P without.

    Attributes:
        descriptors: (O, D) int8, landmark by landmark. landmarks: (O,) int64, rows of ``labels``, increasing.
        images: (O,) int64 that they are in. others, other_images: (P, D) int8, (P,) int64.
        labels: (L, levels) int32 of each landmark.
    """

    descriptors: np.ndarray
    landmarks: np.ndarray
    images: np.ndarray
    others: np.ndarray
    other_images: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray, others: np.ndarray) -> SceneObservations:
        """Those of ``rows`` (O,) and ``others`` (P,), both bool."""
        return SceneObservations(
            self.descriptors[rows], self.landmarks[rows], self.images[rows], self.others[others],
            self.other_images[others], self.labels,
        )  # fmt: skip

    def without(self, images: np.ndarray) -> tuple[SceneObservations, SceneObservations]:
        """Those of other images, and those of ``images``: (K,) int64, but without landmarks that only these observe.
        Held out observations are told as of one of the other images that observe the landmark."""
        out = np.isin(self.images, images)
        others = np.isin(self.other_images, images)
        known, first = np.unique(self.landmarks[~out], return_index=True)
        if not len(known):
            return self.take(~out, ~others), self.take(np.zeros(len(out), bool), others)
        at = np.minimum(np.searchsorted(known, self.landmarks), len(known) - 1)
        replaced = replace(self, images=np.where(out, self.images[~out][first[at]], self.images))
        return self.take(~out, ~others), replaced.take(out & (known[at] == self.landmarks), others)


@dataclass(frozen=True)
class SceneTraining:
    """How a scene network is taught.

    Attributes:
        steps: of the optimiser, of ``batch`` keypoints each. others: share of these that are of no landmark.
    """

    steps: int = 2500
    batch: int = 1024
    others: float = 0.25
    learning_rate: float = 2e-3


def scene_stage(
    network: HSCNet, seen: SceneObservations, held_out: SceneObservations, config: SceneTraining, seed: int
) -> TrainingStage:
    """Labels of each level, and visibility.

    Args:
        held_out: of reference images that are not trained on; at least one observation.
    """
    levels = seen.labels.shape[1]
    known, first, count = np.unique(seen.landmarks, return_index=True, return_counts=True)
    negatives = round(config.others * config.batch) if len(seen.others) else 0

    def batches(start: int) -> Iterator[tuple]:
        for step in range(start, config.steps):
            rng = np.random.default_rng((seed, step))
            at = rng.integers(len(known), size=config.batch - negatives)
            a, b, c = (first[at] + rng.integers(count[at]) for _ in range(3))
            other = rng.integers(max(1, len(seen.others)), size=negatives)
            share = rng.random((len(at), 1), np.float32)
            mixed = share * seen.descriptors[a].astype(np.float32) + (1 - share) * seen.descriptors[b]
            vectors = np.concatenate([mixed, seen.others[other]])
            noise = rng.standard_normal(vectors.shape, np.float32) * (NOISE * UNIT)
            images = np.concatenate([seen.images[c], seen.other_images[other]])
            yield _example(vectors + noise, images, seen.labels[known[at]])

    def losses(step: tuple, training: bool):
        vectors, images, labels, there = step
        *logits, visibility = network.taught([vectors, images, labels], training=training)
        of_landmarks = tf.reduce_sum(there)
        entropies = [
            tf.reduce_sum(there * tf.nn.sparse_softmax_cross_entropy_with_logits(labels[:, level], logits[level]))
            / of_landmarks
            for level in range(levels)
        ]
        return tf.stack([*entropies, tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(there, visibility[:, 0]))])

    clean = _example(
        np.concatenate([held_out.descriptors, held_out.others]).astype(np.float32),
        np.concatenate([held_out.images, held_out.other_images]),
        held_out.labels[held_out.landmarks],
    )
    terms = (*(Term(f"level{level + 1}", 2.0) for level in range(levels)), Term("visibility", 2.0))
    return TrainingStage(
        "scene", network.taught, terms, losses, batches, [clean], config.steps, config.learning_rate, balanced=False
    )


def _example(vectors: np.ndarray, images: np.ndarray, labels: np.ndarray) -> tuple:
    """Descriptors (N, D) of unit length, images (N,), labels (N, levels), which only the first have, and (N,) 1 where
    there are labels. All as the network is trained on them."""
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    missing = len(vectors) - len(labels)
    return (
        (vectors / length).astype(np.float32),
        images.astype(np.int32),
        np.pad(labels, ((0, missing), (0, 0))).astype(np.int32),
        np.pad(np.ones(len(labels), np.float32), (0, missing)),
    )
