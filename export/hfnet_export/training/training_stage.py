"""One stage of a training run: an optimiser, learned loss weights, checkpoints, a log. It resumes by itself."""

from __future__ import annotations

import csv
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from hfnet_edge.errors import HFNetEdgeError, OutputError
from hfnet_edge.shell.console import Report
from hfnet_export.training.losses import Term, total_loss

WARMUP = 200  # steps to the full learning rate; a tenth of short stages


@dataclass(frozen=True)
class TrainingStage:
    """What a stage trains on what.

    Attributes:
        name: names its log and its checkpoints.
        model: what is trained: its trainable variables.
        terms: the losses, in the order in which ``losses`` returns them.
        losses: from a batch and whether it is training to (T,) float32.
        batches: from the first step (0-based) to the batches from there on; step s gets the same batch always.
        held_out: batches of images that are never trained on.
        steps: of the optimiser; ``learning_rate`` rises for `WARMUP` of them and then falls to nothing in a cosine.
        balanced: the terms are weighed by learned weights; otherwise they are summed.
    """

    name: str
    model: keras.Model
    terms: tuple[Term, ...]
    losses: Callable[[tuple, bool], tf.Tensor]
    batches: Callable[[int], Iterator[tuple]]
    held_out: list[tuple]
    steps: int
    learning_rate: float
    balanced: bool = True


@dataclass(frozen=True)
class Progress:
    """How far a stage is: steps done, hours, (T,) learned weights, (T,) held-out losses."""

    steps: int
    hours: float
    weights: list[float]
    held_out: list[float]


def train(
    stage: TrainingStage, folder: Path, progress: Report, checkpoint_every: int, keep: Callable[[Progress], None]
) -> Progress:
    """Trains a stage to its end, from its last checkpoint in ``folder`` if there is one.

    Args:
        keep: called after each checkpoint, and once if there was nothing left to do.

    Raises:
        HFNetEdgeError: a loss is not finite.
    """
    variables = stage.model.trainable_variables
    warmup = min(WARMUP, max(1, stage.steps // 10))
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, max(1, stage.steps - warmup), alpha=1e-3, warmup_target=stage.learning_rate, warmup_steps=warmup
    )
    balance = tf.Variable(tf.zeros(len(stage.terms)), name="loss_weights")
    factors = tf.constant([term.factor for term in stage.terms])
    optimizers = [keras.optimizers.Adam(schedule), keras.optimizers.Adam(1e-2)]
    optimizers[0].build(variables)
    optimizers[1].build([balance])
    done, seconds = tf.Variable(0, dtype=tf.int64), tf.Variable(0.0)
    checkpoint = tf.train.Checkpoint(
        model=stage.model, balance=balance, done=done, seconds=seconds, optimizers=optimizers
    )
    manager = tf.train.CheckpointManager(checkpoint, str(folder / "checkpoints" / stage.name), max_to_keep=2)
    log = folder / f"{stage.name}.csv"
    names = [term.name for term in stage.terms]
    header = ",".join(["step", *names, *(f"held_{name}" for name in names)])
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched()
        rows = log.read_text().splitlines()[1 : 1 + int(done.numpy())] if log.exists() else []
    else:
        rows = []
    log.write_text("\n".join([header, *rows, ""]))

    @tf.function
    def train_step(batch):
        with tf.GradientTape() as tape:
            losses = stage.losses(batch, True)
            loss = total_loss(losses, balance, factors) if stage.balanced else tf.reduce_sum(losses)
        gradients, of_balance = tape.gradient(loss, [variables, [balance]])
        optimizers[0].apply_gradients(zip(gradients, variables, strict=True))
        if stage.balanced:
            optimizers[1].apply_gradients(zip(of_balance, [balance], strict=True))
        return losses

    @tf.function
    def held_out_losses(batch):
        return stage.losses(batch, False)

    def state(held: np.ndarray) -> Progress:
        weights = [round(float(w), 4) for w in balance.numpy()]
        return Progress(int(done.numpy()), float(seconds.numpy()) / 3600, weights, [round(float(v), 5) for v in held])

    def validate() -> np.ndarray:
        return np.mean([held_out_losses(batch).numpy() for batch in stage.held_out], axis=0)

    start = int(done.numpy())
    if start >= stage.steps:
        now = state(validate())
        keep(now)
        return now
    clock = time.monotonic() - float(seconds.numpy())
    for step, batch in enumerate(prefetch(stage.batches(start)), start + 1):
        losses = train_step(batch).numpy()
        if not np.isfinite(losses).all():
            raise HFNetEdgeError(f"the loss is not finite at step {step}", "lower learning_rate, train in a new folder")
        due = step % checkpoint_every == 0 or step == stage.steps
        held = validate() if due else np.full(len(names), np.nan)
        with log.open("a") as f:
            csv.writer(f).writerow([step, *(f"{v:.5f}" for v in (*losses, *held))])
        if due:
            done.assign(step)
            seconds.assign(time.monotonic() - clock)
            manager.save()
            now = state(held)
            keep(now)
        note = ", ".join(f"{name} {loss:.3f}" for name, loss in zip(names, losses, strict=True))
        progress(f"training, {stage.name}", step, stage.steps, note=note)
    return now


def prefetch(items: Iterator, depth: int = 4) -> Iterator:
    """Makes the next items in a thread while this one is used. An exception in the thread is raised here."""
    waiting: queue.Queue = queue.Queue(depth)
    end = object()

    def fill():
        try:
            for item in items:
                waiting.put(item)
            waiting.put(end)
        except Exception as e:
            waiting.put(e)

    threading.Thread(target=fill, daemon=True).start()
    while (item := waiting.get()) is not end:
        if isinstance(item, Exception):
            raise item
        yield item


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """TensorFlow's and the system's errors in the block become an OutputError."""
    try:
        yield
    except (OSError, tf.errors.OpError) as e:
        why = (str(e).splitlines() or [type(e).__name__])[0]
        raise OutputError(
            f"the run in {folder} stopped: {why}", "check the folder, permissions, free space; the same command goes on"
        ) from e
