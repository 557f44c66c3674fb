"""Training CRBNet: pairs of patches from tracks, one stage, equation (4) of paper 002."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from hfnet_edge.shell.console import Report, silent
from hfnet_export.networks.crbnet import CRBNetConfig, build_crbnet
from hfnet_export.training.losses import Term
from hfnet_export.training.patch_losses import crbnet_losses
from hfnet_export.training.patch_tracks import PatchTracks
from hfnet_export.training.training_stage import Progress, TrainingStage, train

RUN = 8  # half of a batch's tracks are drawn in runs of neighbours, which are harder to tell apart


@dataclass(frozen=True)
class CRBNetTraining:
    """A training run. Together with the tracks it decides the weights, up to dropout after a resume.

    Attributes:
        steps: of the optimiser. batch: pairs per step.
        learning_rate: Adam's, at its peak.
        hamming: with the weighted Hamming term; without it, the paper's CRBNet(N).
        seed: of the weights and of the order of pairs.
    """

    network: CRBNetConfig = field(default_factory=CRBNetConfig)
    steps: int = 2400
    batch: int = 512
    learning_rate: float = 5e-3
    hamming: bool = True
    seed: int = 0

    @property
    def name(self) -> str:
        """Of the run's log and checkpoints."""
        return "crbnet" if self.hamming else "crbnet_without_hamming"


def pairs(
    sets: Sequence[PatchTracks], batch: int, rng: np.random.Generator, turned: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One batch: as many tracks of each set, two observations of each; ``turned``: both mirrored and turned by
    right angles alike, at random.

    Returns:
        Two (batch, 32, 32, 1) float32 in [-1, 1].
    """
    a, b = [], []
    for share, tracks in zip(np.array_split(np.arange(batch), len(sets)), sets, strict=True):
        runs = len(share) // 2 // RUN
        starts = rng.integers(max(1, len(tracks) - RUN), size=runs)
        lonely = rng.integers(len(tracks), size=len(share) - runs * RUN)
        chosen = np.concatenate([(starts[:, None] + np.arange(RUN)).ravel(), lonely])
        count = tracks.start[chosen + 1] - tracks.start[chosen]
        first = rng.integers(count)
        second = (first + rng.integers(1, count)) % count
        a.append(tracks.patches[tracks.start[chosen] + first])
        b.append(tracks.patches[tracks.start[chosen] + second])
    x, y = np.concatenate(a), np.concatenate(b)
    if turned:
        kind = rng.integers(8, size=batch)
        for k in range(8):
            rows = np.flatnonzero(kind == k)
            for patches in (x, y):
                part = np.rot90(patches[rows], k % 4, (1, 2))
                patches[rows] = part[:, :, ::-1] if k >= 4 else part
    scale = np.float32(1 / 127.5)
    return tuple(v[..., None].astype(np.float32) * scale - np.float32(1) for v in (x, y))  # type: ignore[return-value]


def train_crbnet(
    config: CRBNetTraining,
    training: Sequence[PatchTracks],
    held_out: Sequence[PatchTracks],
    folder: Path,
    progress: Report = silent,
    checkpoint_every: int = 100,
    keep: Callable[[keras.Model, Progress], None] = lambda *_: None,
) -> tuple[keras.Model, Progress]:
    """Trains, from the last checkpoint in ``folder`` if there is one.

    Args:
        training, held_out: sets that every batch draws from in equal shares.
        keep: called after each checkpoint with the network (float32) and how far it is.

    Returns:
        The network (float32) and how far it came.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tf.keras.utils.set_random_seed(config.seed)
    model = build_crbnet(config.network, "mixed_bfloat16")
    names = ["triplet", "second_order", *(["hamming"] if config.hamming else [])]

    def losses(batch, is_training):
        x, y = batch
        both = model(tf.concat([x, y], axis=0), training=is_training)
        x, y = tf.split(both, 2)
        return crbnet_losses(x, y, config.hamming)

    def batches(first_step: int) -> Iterator[tuple]:
        for step in range(first_step, config.steps):
            yield pairs(training, config.batch, np.random.default_rng((config.seed, step)))

    rng = np.random.default_rng((config.seed, 1 << 40))
    stage = TrainingStage(
        name=config.name,
        model=model,
        terms=tuple(Term(name, 1.0) for name in names),
        losses=losses,
        batches=batches,
        held_out=[pairs(held_out, config.batch, rng, turned=False) for _ in range(4)],
        steps=config.steps,
        learning_rate=config.learning_rate,
        balanced=False,
    )
    network = build_crbnet(config.network)

    def keep_network(now: Progress) -> None:
        network.set_weights(model.get_weights())
        keep(network, now)

    done = train(stage, folder, progress, checkpoint_every, keep_network)
    return network, done
