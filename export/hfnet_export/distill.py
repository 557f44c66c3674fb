"""Multi-task distillation: one student copies a local and a global teacher (section 4.2, equation 1).

Teachers see the clean crops once; their targets are kept on disk. The student sees the same crops with other light,
noise and blur. Three losses, and the weights that balance them are learned too.
"""

from __future__ import annotations

import csv
import json
import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import keras
import numpy as np
import tensorflow as tf

from hfnet_edge.console import Report, silent
from hfnet_edge.errors import HFNetEdgeError, InputError
from hfnet_edge.files import atomic_write
from hfnet_edge.keypoints import CELL
from hfnet_export.hfnet import (
    KEYPOINT_CHANNELS,
    HFNetConfig,
    build_hfnet,
    initialise_encoder,
    initialise_global_head,
)
from hfnet_export.teachers import LocalTeacher, PooledImageNet, Whitening
from hfnet_export.weights import save_weights


@dataclass(frozen=True)
class DistillConfig:
    """A training run. Together with the images and the teachers it decides the weights.

    Attributes:
        crop: side of the square training crops, pixels, a multiple of 32.
        crops_per_image: crops cut from each image; cut once, so that targets are computed once.
        keypoints: teacher keypoints per crop at which descriptors are taught.
        steps: optimiser steps; the learning rate follows a cosine over them.
        batch: crops per step.
        learning_rate: Adam's, at its peak after ``warmup`` steps (a tenth of short runs).
        held_out: every n-th image is kept for validation.
    """

    network: HFNetConfig = field(default_factory=HFNetConfig)
    crop: int = 320
    crops_per_image: int = 2
    keypoints: int = 400
    steps: int = 2400
    batch: int = 8
    learning_rate: float = 1e-3
    warmup: int = 100
    held_out: int = 50
    seed: int = 0


@dataclass(frozen=True)
class Targets:
    """Crops and what the teachers say of them, memory-mapped; N crops of side S, K keypoints each.

    Attributes:
        grey: (N, S, S) uint8, the clean crops.
        cells: (N, S/8, S/8, 65) uint8, soft keypoint labels x255.
        xy: (N, K, 2) float16, keypoints in pixels of the crop, pixel centres at 0.5; NaN where there are fewer.
        descriptors: (N, K, D) float16, the local teacher's, unit length.
        vectors: (N, G) float32, the global teacher's, whitened, unit length.
    """

    grey: np.ndarray
    cells: np.ndarray
    xy: np.ndarray
    descriptors: np.ndarray
    vectors: np.ndarray


def random_crops(image: np.ndarray, config: DistillConfig, rng: np.random.Generator) -> list[np.ndarray]:
    """Squares of random place and scale (up to 1.5x the crop), resized to the crop's side."""
    h, w = image.shape[:2]
    crops = []
    for _ in range(config.crops_per_image):
        side = int(min(h, w, rng.integers(config.crop, config.crop * 3 // 2 + 1)))
        y, x = rng.integers(h - side + 1), rng.integers(w - side + 1)
        crop = image[y : y + side, x : x + side]
        interpolation = cv2.INTER_AREA if side >= config.crop else cv2.INTER_CUBIC
        crops.append(cv2.resize(crop, (config.crop, config.crop), interpolation=interpolation))
    return crops


def keypoint_labels(scores: np.ndarray, radius: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Soft labels for the detector from a teacher's score map (H, W).

    Peaks (non-maximum suppression of ``radius``) are refined to sub-pixel by the soft-argmax of their window, then
    splatted on the four pixels around, so that the label's expectation is the sub-pixel position. A cell's 64 labels
    are the squared peaks normalised, times the cell's highest score; the 65th is the rest.

    Returns:
        cells (H/8, W/8, 65) float32 that sum to one, xy (M, 2) float32 with pixel centres at 0.5, peak scores (M,);
        peaks in order of decreasing score.
    """
    h, w = scores.shape
    window = 2 * radius + 1
    is_peak = (scores == cv2.dilate(scores, np.ones((window, window), np.uint8))) & (scores > 0.01)
    is_peak[:radius], is_peak[-radius:], is_peak[:, :radius], is_peak[:, -radius:] = False, False, False, False
    y, x = np.nonzero(is_peak)
    offsets = np.arange(-radius, radius + 1)
    patches = scores[y[:, None, None] + offsets[None, :, None], x[:, None, None] + offsets[None, None, :]]
    patches = np.exp((patches - patches.max(axis=(1, 2), keepdims=True)) / 0.1)
    patches /= patches.sum(axis=(1, 2), keepdims=True)
    px = x + (patches.sum(axis=1) * offsets).sum(axis=1)
    py = y + (patches.sum(axis=2) * offsets).sum(axis=1)
    peak = scores[y, x]

    splat, highest = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    x0, y0 = np.floor(px).astype(int), np.floor(py).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - np.abs(px - (x0 + dx))) * (1 - np.abs(py - (y0 + dy)))
            at = np.clip(y0 + dy, 0, h - 1), np.clip(x0 + dx, 0, w - 1)
            np.add.at(splat, at, weight * peak**2)
    np.maximum.at(highest, (np.round(py).astype(int), np.round(px).astype(int)), peak)
    cells = to_cells(splat)
    best = to_cells(highest).max(axis=-1, keepdims=True)
    total = cells.sum(axis=-1, keepdims=True)
    cells = np.divide(cells * best, total, out=np.zeros_like(cells), where=(total > 0) & (best > 0))
    cells = np.concatenate([cells, 1 - cells.sum(axis=-1, keepdims=True)], axis=-1)
    order = np.argsort(-peak, kind="stable")
    return cells, np.stack([px, py], axis=1)[order].astype(np.float32) + 0.5, peak[order]


def to_cells(image: np.ndarray) -> np.ndarray:
    """(H, W) to (H/8, W/8, 64), row-major inside a cell."""
    h, w = image.shape
    return image.reshape(h // CELL, CELL, w // CELL, CELL).transpose(0, 2, 1, 3).reshape(h // CELL, w // CELL, CELL**2)


def sample(dense: np.ndarray, xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear samples of a dense map (h, w, D) at pixels ``xy`` (M, 2) of an image of ``size`` (H, W), unit length."""
    h, w = dense.shape[:2]
    x = np.clip(xy[:, 0] * w / size[1] - 0.5, 0, w - 1)
    y = np.clip(xy[:, 1] * h / size[0] - 0.5, 0, h - 1)
    x0, y0 = np.minimum(x.astype(int), w - 2), np.minimum(y.astype(int), h - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = dense[y0, x0] * (1 - fx) + dense[y0, x0 + 1] * fx
    bottom = dense[y0 + 1, x0] * (1 - fx) + dense[y0 + 1, x0 + 1] * fx
    out = top * (1 - fy) + bottom * fy
    return out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-12)


def make_targets(
    paths: list[Path],
    local: LocalTeacher,
    global_: PooledImageNet,
    config: DistillConfig,
    folder: Path,
    progress: Report = silent,
) -> Targets:
    """Runs the teachers over all crops, or maps what an earlier run with the same configuration left in ``folder``.

    Raises:
        InputError: no images, one does not decode, or the teacher's width is not the network's.
    """
    if not paths:
        raise InputError("there are no training images", "give a folder of .jpg or .png files")
    if local.descriptor_dim != config.network.local_dim:
        raise InputError(
            f"{local.name} has {local.descriptor_dim}-D descriptors, the network {config.network.local_dim}-D",
            f"set the network's local_dim to {local.descriptor_dim}",
        )
    n, s, k = len(paths) * config.crops_per_image, config.crop, config.keypoints
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "grey": ((n, s, s), np.uint8),
        "cells": ((n, s // CELL, s // CELL, KEYPOINT_CHANNELS), np.uint8),
        "xy": ((n, k, 2), np.float16),
        "descriptors": ((n, k, local.descriptor_dim), np.float16),
        "vectors": ((n, config.network.global_dim), np.float32),
    }
    asked = [[p.name for p in paths], local.name, global_.name, config.crops_per_image, config.seed, shapes]
    key = json.dumps(asked, default=str)
    done = folder / "done.json"
    if not done.exists() or done.read_text() != key:
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        out = {
            name: np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)
            for name, (shape, dtype) in shapes.items()
        }
        pooled = np.empty((n, global_.dim), np.float32)
        rng = np.random.default_rng(config.seed)
        for i, path in enumerate(paths):
            image = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if image is None:
                raise InputError(f"{path} is not an image that OpenCV can read", "remove it from the folder")
            crops = np.stack(random_crops(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), config, rng))
            rows = slice(i * config.crops_per_image, (i + 1) * config.crops_per_image)
            scores, dense = local(crops)
            pooled[rows] = global_(crops)
            for row, crop, score, descriptors in zip(range(rows.start, rows.stop), crops, scores, dense, strict=True):
                cells, xy, _ = keypoint_labels(score)
                xy = xy[:k]
                out["grey"][row] = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
                out["cells"][row] = np.round(cells * 255)
                out["xy"][row] = np.nan
                out["xy"][row, : len(xy)] = xy
                out["descriptors"][row, : len(xy)] = sample(descriptors, xy, score.shape)
            progress("teachers", i + 1, len(paths))
        out["vectors"][:] = Whitening.fit(pooled, config.network.global_dim)(pooled)
        for array in out.values():
            array.flush()
        done.write_text(key)
    return Targets(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes})


def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise, motion blur, brightness and contrast, in random order (appendix A.2). (S, S) uint8 in and out."""
    x: np.ndarray = image.astype(np.float32)
    for change in rng.permutation(4):
        if change == 0:
            x = x + rng.normal(0, rng.uniform(0, 8), x.shape).astype(np.float32)
        elif change == 1 and rng.random() < 0.3:
            length, angle = rng.integers(2, 6), rng.uniform(0, math.pi)
            kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
            d = np.array([math.cos(angle), math.sin(angle)]) * length / 2
            a, b = np.round(length - d).astype(int), np.round(length + d).astype(int)
            cv2.line(kernel, tuple(map(int, a)), tuple(map(int, b)), 1.0)
            x = cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
        elif change == 2:
            x = x + rng.uniform(-50, 50)
        elif change == 3:
            x = (x - x.mean()) * np.exp(rng.uniform(-0.7, 0.5)) + x.mean()
    return np.clip(x, 0, 255).astype(np.uint8)


def batches(targets: Targets, rows: np.ndarray, config: DistillConfig, first_step: int) -> Iterator[tuple]:
    """Endless batches from step ``first_step`` on; step s of a run holds the same crops whether resumed or not."""
    epoch, per_epoch = -1, len(rows) // config.batch
    for step in range(first_step, config.steps):
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = np.random.default_rng((config.seed, epoch)).permutation(rows)
        pick = np.sort(order[step % per_epoch * config.batch :][: config.batch])
        rng = np.random.default_rng((config.seed, 1, step))
        yield tensors(targets, pick, [augment(targets.grey[i], rng) for i in pick])


def tensors(targets: Targets, pick: np.ndarray, images: list[np.ndarray] | np.ndarray) -> tuple:
    """A batch as the training step takes it."""
    xy = targets.xy[pick].astype(np.float32)
    return (
        np.stack(list(images)).astype(np.float32)[..., None] / 127.5 - 1,
        targets.cells[pick].astype(np.float32) / 255,
        np.nan_to_num(xy),
        np.isfinite(xy[..., 0]).astype(np.float32),
        targets.descriptors[pick].astype(np.float32),
        targets.vectors[pick],
    )


def distillation_losses(outputs: dict, batch: tuple) -> tf.Tensor:
    """The three terms of equation (1), unweighted: global, local, keypoints. (3,) float32."""
    _, cells, xy, valid, descriptors, vectors = batch
    global_loss = tf.reduce_mean(tf.reduce_sum(tf.square(outputs["global_descriptor"] - vectors), -1))
    sampled = tf.math.l2_normalize(_bilinear(outputs["local_descriptors"], xy / CELL - 0.5), axis=-1)
    distance = tf.reduce_sum(tf.square(sampled - descriptors), -1)
    local_loss = tf.reduce_sum(distance * valid) / (tf.reduce_sum(valid) + 1e-6)
    entropy = tf.nn.softmax_cross_entropy_with_logits(cells, outputs["keypoint_logits"])
    return tf.stack([global_loss, local_loss, tf.reduce_mean(entropy)])


def _bilinear(dense, at):
    """(N, h, w, D) sampled at (N, K, 2) positions in cells."""
    shape = tf.shape(dense)
    limit = tf.cast(tf.stack([shape[2] - 1, shape[1] - 1]), tf.float32)
    at = tf.clip_by_value(at, 0.0, limit)
    corner = tf.minimum(tf.floor(at), limit - 1)
    f = at - corner
    x, y = tf.unstack(tf.cast(corner, tf.int32), axis=-1)
    fx, fy = f[..., 0:1], f[..., 1:2]

    def get(dy, dx):
        return tf.gather_nd(dense, tf.stack([y + dy, x + dx], -1), batch_dims=1)

    return (get(0, 0) * (1 - fx) + get(0, 1) * fx) * (1 - fy) + (get(1, 0) * (1 - fx) + get(1, 1) * fx) * fy


def total_loss(losses, weights):
    """Equation (1): each term scaled by exp(-w), cross-entropy twice, plus the sum of the weights."""
    return tf.reduce_sum(tf.constant([1.0, 1.0, 2.0]) * tf.exp(-weights) * losses + weights)


def distill(
    targets: Targets,
    config: DistillConfig,
    folder: Path,
    imagenet: dict[str, np.ndarray],
    card: dict,
    progress: Report = silent,
    checkpoint_every: int = 200,
) -> Path:
    """Trains, or resumes from the last checkpoint in ``folder``.

    Leaves ``weights.npz`` (float16, what `hfnet-export` takes), ``losses.csv``, ``losses.png`` and checkpoints.
    """
    keras.utils.set_random_seed(config.seed)
    size = (config.crop, config.crop)
    n = len(targets.grey)
    image_of = np.arange(n) // config.crops_per_image
    held_out = image_of % config.held_out == config.held_out - 1
    rows, held_rows = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    if len(rows) < config.batch:
        raise InputError(f"{len(rows)} crops do not fill a batch of {config.batch}", "add images or lower --batch")

    model = build_hfnet(config.network, size)
    warmup = min(config.warmup, max(1, config.steps // 10))
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-5, config.steps - warmup, alpha=1e-3, warmup_target=config.learning_rate, warmup_steps=warmup
    )
    # The projection's 7680 inputs are small and correlated: at the full rate one step moves its output by its length.
    slow = keras.optimizers.schedules.CosineDecay(config.learning_rate / 10, config.steps, alpha=1e-3)
    projection = model.get_layer("projection").trainable_variables
    others = [v for v in model.trainable_variables if not any(v is p for p in projection)]
    balance = tf.Variable(tf.zeros(3), name="loss_weights")
    optimizer, projection_optimizer = keras.optimizers.Adam(schedule), keras.optimizers.Adam(slow)
    balance_optimizer = keras.optimizers.Adam(1e-2)
    parts = ((optimizer, others), (projection_optimizer, projection), (balance_optimizer, [balance]))
    for one, variables in parts:
        one.build(variables)
    done, seconds = tf.Variable(0, dtype=tf.int64), tf.Variable(0.0)
    checkpoint = tf.train.Checkpoint(
        model=model, balance=balance, done=done, seconds=seconds, optimizers=[one for one, _ in parts]
    )
    manager = tf.train.CheckpointManager(checkpoint, str(folder / "checkpoints"), max_to_keep=2)
    log = folder / "losses.csv"
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).expect_partial()
        kept = log.read_text().splitlines()[: 1 + int(done.numpy())] if log.exists() else []
        log.write_text("\n".join([*kept, ""]))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        some = rows[:: max(1, len(rows) // 1200)]
        images = np.stack([targets.grey[i] for i in some])[..., None].astype(np.float32) / 127.5 - 1
        initialise_encoder(model, imagenet, images[:: max(1, len(images) // 16)])
        initialise_global_head(model, images, targets.vectors[some])
        log.write_text("step,global,local,keypoints,held_global,held_local,held_keypoints\n")

    @tf.function
    def train_step(batch):
        with tf.GradientTape() as tape:
            losses = distillation_losses(model(batch[0], training=True), batch)
            loss = total_loss(losses, balance)
        gradients = tape.gradient(loss, [variables for _, variables in parts])
        for (one, variables), gradient in zip(parts, gradients, strict=True):
            one.apply_gradients(zip(gradient, variables, strict=True))
        return losses

    @tf.function
    def held_out_losses(batch):
        return distillation_losses(model(batch[0], training=False), batch)

    def validate() -> np.ndarray:
        parts = [held_rows[i : i + config.batch] for i in range(0, len(held_rows), config.batch)]
        return np.mean([held_out_losses(tensors(targets, p, targets.grey[p])).numpy() for p in parts], axis=0)

    start, clock = int(done.numpy()), time.monotonic() - float(seconds.numpy())
    stream = prefetch(batches(targets, rows, config, start))
    for step, batch in enumerate(stream, start + 1):
        losses = train_step(batch).numpy()
        if not np.isfinite(losses).all():
            raise HFNetEdgeError(
                f"the loss is not finite at step {step}", "train in a new folder, lower --learning-rate"
            )
        keep = step % checkpoint_every == 0 or step == config.steps
        held = validate() if keep and len(held_rows) else np.full(3, np.nan)
        with log.open("a") as f:
            csv.writer(f).writerow([step, *(f"{v:.5f}" for v in (*losses, *held))])
        if keep:
            done.assign(step)
            seconds.assign(time.monotonic() - clock)
            manager.save()
            plot_losses(log, folder / "losses.png")
            trained = {
                **card,
                "config": asdict(config),
                "steps_done": step,
                "hours": round(float(seconds.numpy()) / 3600, 3),
                "loss_weights": [round(float(w), 4) for w in balance.numpy()],
                "held_out_losses": [None if math.isnan(v) else round(float(v), 5) for v in held],
            }
            save_weights(folder / "weights.npz", model, config.network, trained)
        note = "global {:.3f}, local {:.3f}, keypoints {:.3f}".format(*losses)
        progress("training", step, config.steps, note=note)
    return folder / "weights.npz"


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


def plot_losses(log: Path, picture: Path) -> None:
    """Draws the three losses over the steps, training (smoothed) and held-out."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    table = np.genfromtxt(log, delimiter=",", skip_header=1, ndmin=2)
    if len(table) < 2:
        return
    window = max(1, min(50, len(table) // 5))
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.2))
    for k, (axis, name) in enumerate(zip(axes, ("global descriptor", "local descriptors", "keypoints"), strict=True)):
        smooth = np.convolve(table[:, 1 + k], np.ones(window) / window, "valid")
        axis.plot(table[window - 1 :, 0], smooth, lw=1, label=f"training (mean of {window})")
        held = np.isfinite(table[:, 4 + k])
        axis.plot(table[held, 0], table[held, 4 + k], "o-", ms=3, label="held-out images")
        axis.set(title=name, xlabel="step", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    fig.tight_layout()
    with atomic_write(picture) as f:
        fig.savefig(f, dpi=110, format="png")
    plt.close(fig)
