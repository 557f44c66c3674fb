from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tensorflow as tf

from hfnet_edge.errors import HFNetEdgeError, InputError
from hfnet_export import runs
from hfnet_export.calibration import built_in_images
from hfnet_export.distill import (
    DistillConfig,
    augment,
    distillation_losses,
    keypoint_labels,
    sample,
    to_cells,
    total_loss,
)
from hfnet_export.hfnet import BOTTLENECKS, HFNetConfig, channels
from hfnet_export.weights import load_weights

CONFIG = DistillConfig(
    network=HFNetConfig(local_dim=8, global_dim=6, width=0.35, clusters=4, head_width=8),
    crop=64,
    crops_per_image=2,
    keypoints=16,
    steps=3,
    batch=4,
    warmup=1,
    held_out=6,
)


class FakeLocal:
    """Score: local contrast. Descriptors: fixed random functions of a cell's mean colour."""

    name, licence, descriptor_dim = "fake local", "none", 8

    def __call__(self, rgb):
        grey = rgb.mean(axis=-1).astype(np.float32) / 255
        scores = np.stack([np.abs(g - cv2.blur(g, (5, 5))) for g in grey])
        n, h, w = grey.shape
        cells = grey.reshape(n, h // 8, 8, w // 8, 8).mean(axis=(2, 4))[..., None]
        dense = np.cos(cells * np.arange(8, dtype=np.float32) * 3)
        return scores, dense / np.linalg.norm(dense, axis=-1, keepdims=True)


class FakeGlobal:
    """Random projections of a small copy of the crop, and MobileNetV2 x1.0 weights drawn at random."""

    name, licence, dim = "fake global", "none", 20

    def __init__(self):
        rng = np.random.default_rng(5)
        self.projection = rng.normal(size=(64, self.dim)).astype(np.float32)
        shapes, before, block = {"Conv1": (32, 3, 3, 3)}, 32, 0
        for expansion, base, repeats, _ in BOTTLENECKS:
            for _ in range(repeats):
                wide, after = before * expansion, channels(base, 1.0)
                if expansion > 1:
                    shapes[f"b{block}.exp"] = (wide, before, 1, 1)
                shapes[f"b{block}.dw"] = (wide, 1, 3, 3)
                shapes[f"b{block}.proj"] = (after, wide, 1, 1)
                before, block = after, block + 1
        self.weights = {}
        for name, shape in shapes.items():
            scale = np.sqrt(2 / np.prod(shape[1:]))
            self.weights[f"{name}.weight"] = rng.normal(0, scale, shape).astype(np.float32)
            self.weights[f"{name}.bias"] = np.zeros(shape[0], np.float32)

    def __call__(self, rgb):
        small = np.stack([cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).mean(axis=-1) for image in rgb])
        pooled = small.reshape(len(rgb), -1).astype(np.float32) / 255 @ self.projection
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def peak_at(x: float, y: float, height: float = 0.8, size: int = 32) -> np.ndarray:
    """A score map with one round peak; (x, y) with pixel centres at 0.5."""
    v, u = np.mgrid[:size, :size] + 0.5
    return (height * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 2)).astype(np.float32)


def test_labels_sum_to_one():
    scores = np.random.default_rng(0).random((48, 64)).astype(np.float32)
    cells, xy, peak = keypoint_labels(scores)
    assert cells.shape == (6, 8, 65) and (cells >= -1e-6).all()
    np.testing.assert_allclose(cells.sum(axis=-1), 1, atol=1e-6)
    assert (np.diff(peak) <= 0).all() and len(xy) == len(peak) > 0


def test_nothing_is_a_keypoint_in_a_flat_map():
    cells, xy, _ = keypoint_labels(np.full((16, 16), 0.005, np.float32))
    assert len(xy) == 0 and (cells[..., :64] == 0).all() and (cells[..., 64] == 1).all()


@pytest.mark.parametrize("position", [(12.5, 12.5), (12.7, 12.4), (11.9, 13.2)])
def test_expectation_of_labels_is_the_position(position):
    cells, xy, peak = keypoint_labels(peak_at(*position))
    assert len(xy) == 1
    np.testing.assert_allclose(xy[0], position, atol=0.2)  # soft-argmax of a 5x5 window
    cell = cells[1, 1]  # pixels 8 to 15
    assert cell[:64].sum() == pytest.approx(peak[0], rel=1e-5)
    v, u = np.mgrid[8:16, 8:16] + 0.5
    mean = (cell[:64].reshape(8, 8) * np.stack([u, v])).sum(axis=(1, 2)) / cell[:64].sum()
    np.testing.assert_allclose(mean, xy[0], atol=1e-4)


def test_cells_are_row_major():
    image = np.arange(16 * 24).reshape(16, 24)
    cells = to_cells(image)
    assert cells.shape == (2, 3, 64)
    assert cells[1, 2, 8 * 3 + 5] == image[8 + 3, 16 + 5]


def test_sample():
    dense = np.zeros((4, 6, 2), np.float32)
    dense[..., 0], dense[..., 1] = np.arange(6) + 1, 1  # linear in x
    out = sample(dense, np.array([[20.0, 12.0], [0.0, 0.0], [48.0, 32.0]]), (32, 48))
    expected = np.array([[1 + 20 / 8 - 0.5, 1], [1, 1], [6, 1]])  # outside the outermost centres it stays constant
    np.testing.assert_allclose(out, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)


def test_augment():
    (image,) = built_in_images((64, 64), 1)
    one, again, other = (augment(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == image.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_losses_of_perfect_outputs():
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(2, 6))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cells = np.zeros((2, 2, 2, 65), np.float32)
    cells[..., 7] = 1
    descriptor = np.array([0.6, 0.8], np.float32)
    batch = (
        None,
        cells,
        np.full((2, 3, 2), 8.0, np.float32),
        np.array([[1, 1, 0], [1, 0, 0]], np.float32),
        np.where(np.array([[1, 1, 0], [1, 0, 0]])[..., None], descriptor, 9).astype(np.float32),  # 9: not a keypoint
        unit.astype(np.float32),
    )
    outputs = {
        "global_descriptor": tf.constant(unit, tf.float32),
        "local_descriptors": tf.constant(np.tile(5 * descriptor, (2, 2, 2, 1))),  # the length does not matter
        "keypoint_logits": tf.constant(cells * 100),
    }
    np.testing.assert_allclose(distillation_losses(outputs, batch), 0, atol=1e-6)
    outputs["local_descriptors"] = -outputs["local_descriptors"]
    outputs["keypoint_logits"] = tf.zeros_like(cells)
    outputs["global_descriptor"] = -outputs["global_descriptor"]
    np.testing.assert_allclose(distillation_losses(outputs, batch), [4, 4, np.log(65)], rtol=1e-5)


def test_equation_1():
    losses, weights = np.array([0.5, 1.5, 3.0]), np.array([0.1, -0.2, 0.7])
    by_hand = (
        np.exp(-0.1) * 0.5 + 0.1  # global
        + np.exp(0.2) * 1.5 - 0.2  # local
        + 2 * np.exp(-0.7) * 3.0 + 0.7  # keypoints: a cross-entropy counts twice
    )  # fmt: skip
    w = tf.Variable(weights, dtype=tf.float32)
    with tf.GradientTape() as tape:
        total = total_loss(tf.constant(losses, tf.float32), w)
    assert float(total) == pytest.approx(by_hand, rel=1e-6)
    np.testing.assert_allclose(tape.gradient(total, w), 1 - np.array([1, 1, 2]) * np.exp(-weights) * losses, rtol=1e-5)


@pytest.fixture
def teachers(monkeypatch):
    monkeypatch.setattr(runs.teachers, "local_teacher", lambda path: FakeLocal())
    monkeypatch.setattr(runs.teachers, "PooledImageNet", lambda path: FakeGlobal())


@pytest.fixture
def eager():
    """Building the graph of a training step takes longer than the few steps of a test."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(built_in_images((96, 128), 12, seed=9)):
        cv2.imwrite(str(folder / f"{i:02}.png"), image)
    return folder


@pytest.mark.filterwarnings("ignore:Even though")  # tf.data does not run eagerly
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(teachers, eager, images, tmp_path):
    def power_cut(what, done, total, note=""):
        if what == "training" and done == 2:
            shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
            with (tmp_path / "resumed" / "losses.csv").open("a") as log:
                log.write("3,9,9,9,nan,nan,nan\n")  # a step that the last checkpoint does not hold

    def train(folder, *progress):
        return runs.run_distillation(
            images, "local", "global", tmp_path / folder, CONFIG, *progress, checkpoint_every=2
        )

    whole = train("whole", power_cut)
    resumed = train("resumed")
    (config, a, card), (_, b, _) = load_weights(whole), load_weights(resumed)
    assert config == CONFIG.network
    assert (card["local_teacher"], card["image_folder"], card["images"]) == ("fake local", "images", 12)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name].astype(float), b[name].astype(float), rtol=1e-2, atol=1e-3, err_msg=name)
    logs = [list(csv.reader((tmp_path / f / "losses.csv").open())) for f in ("whole", "resumed")]
    assert [row[0] for row in logs[0]] == [row[0] for row in logs[1]] == ["step", "1", "2", "3"]
    np.testing.assert_allclose(*(np.array([row[1:4] for row in log[1:]], float) for log in logs), rtol=1e-3)
    assert (tmp_path / "whole" / "losses.png").stat().st_size > 1000
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["--steps"] == 3

    with pytest.raises(InputError, match=r"started with --learning-rate 0\.001, not 0\.01; give the same options"):
        runs.run_distillation(images, "l", "g", tmp_path / "whole", replace(CONFIG, learning_rate=0.01))
    (images / "13.png").write_bytes((images / "00.png").read_bytes())
    with pytest.raises(InputError, match="started with images 12 images in images, not 13 images in images"):
        train("whole")


def test_unusable_training(teachers, images, tmp_path):
    with pytest.raises(InputError, match="--crop 70"):
        runs.run_distillation(images, "l", "g", tmp_path / "run", replace(CONFIG, crop=70))
    with pytest.raises(InputError, match="too few to whiten"):
        wide = replace(CONFIG, network=replace(CONFIG.network, global_dim=64))
        runs.run_distillation(images, "l", "g", tmp_path / "run", wide)
    with pytest.raises(InputError, match="do not fill a batch of 23"):
        runs.run_distillation(images, "l", "g", tmp_path / "run", replace(CONFIG, batch=23))
    with pytest.raises(HFNetEdgeError, match="cannot write"):
        (tmp_path / "file").write_text("")
        runs.run_distillation(images, "l", "g", tmp_path / "file" / "run", CONFIG)
