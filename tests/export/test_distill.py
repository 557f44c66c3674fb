from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from hfnet_edge.errors import HFNetEdgeError, InputError
from hfnet_export.networks.hfnet import BOTTLENECKS, HFNetConfig, channels
from hfnet_export.networks.weights import load_weights
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.training import descriptor_stage, hypercolumn_stage, losses, runs
from hfnet_export.training.distill import DistillConfig, GlobalConfig, LocalConfig, split
from hfnet_export.training.targets import Targets, find_peaks, make_targets, sample
from hfnet_export.training.training_recipe import BUNDLED_RECIPE, read_training_recipe
from hfnet_export.training.views import (
    cells_inside,
    change_light,
    keypoint_labels,
    random_homography,
    to_cells,
    transform,
    warp,
)

RECIPE = """
held_out = 6
[network]
global_dim = 6
width = 0.35
clusters = 4
detector_width = 8
descriptor_width = 8
hypercolumn_dim = 8
hypercolumn_width = 8
[local]
steps = 3
batch = 4
side = 64
keypoints = 16
[global]
steps = 2
batch = 4
window = [64, 96]
[descriptors]
steps = 2
pairs = 2
side = 64
matches = 16
others = 8
[hypercolumns]
steps = 2
pairs = 2
side = 64
matches = 16
"""


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
    """Features: random functions of a small copy of the image. Weights: a MobileNetV2 x1.0 drawn at random."""

    name, licence = "fake global", "none"

    def __init__(self):
        rng = np.random.default_rng(5)
        self.projection = rng.normal(size=(16, 320)).astype(np.float32)
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

    def features(self, rgb):
        n, h, w, _ = rgb.shape
        cells = rgb.mean(axis=-1).reshape(n, h // 32, 4, 8, w // 32, 4, 8).mean(axis=(3, 6)).transpose(0, 1, 3, 2, 4)
        return cells.reshape(n, h // 32, w // 32, 16).astype(np.float32) / 255 @ self.projection


def peak_at(x: float, y: float, height: float = 0.8, size: int = 32) -> np.ndarray:
    """A score map with one round peak; (x, y) with pixel centres at 0.5."""
    v, u = np.mgrid[:size, :size] + 0.5
    return (height * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 2)).astype(np.float32)


def test_labels_sum_to_one():
    xy, scores = find_peaks(np.random.default_rng(0).random((64, 64)).astype(np.float32))
    labels = keypoint_labels(xy, scores, 64)
    assert labels.shape == (8, 8, 65) and (labels >= -1e-6).all()
    np.testing.assert_allclose(labels.sum(axis=-1), 1, atol=1e-6)
    assert (np.diff(scores) <= 0).all() and len(xy) > 0


def test_nothing_is_a_keypoint_in_a_flat_map():
    xy, scores = find_peaks(np.full((16, 16), 0.005, np.float32))
    labels = keypoint_labels(xy, scores, 16)
    assert len(xy) == 0 and (labels[..., :64] == 0).all() and (labels[..., 64] == 1).all()


@pytest.mark.parametrize("position", [(12.5, 12.5), (12.7, 12.4), (11.9, 13.2)])
def test_expectation_of_labels_is_the_position(position):
    xy, scores = find_peaks(peak_at(*position))
    assert len(xy) == 1
    np.testing.assert_allclose(xy[0], position, atol=0.2)  # soft-argmax of a 5x5 window
    cell = keypoint_labels(xy, scores, 32)[1, 1]  # pixels 8 to 15
    assert cell[:64].sum() == pytest.approx(scores[0], rel=1e-5)
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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("warped", [False, True])
def test_a_point_lies_where_the_view_shows_it(seed, warped):
    rng = np.random.default_rng(seed)
    size, side = (200, 300), 128
    homography = random_homography(size, side, rng, warped)
    inside = cells_inside(homography, size, side)
    assert inside.mean() > 0.5
    y, x = np.argwhere(inside).mean(axis=0) * 8 + 4.0
    point = transform(np.linalg.inv(homography), np.array([[x, y]]))[0]
    v, u = np.mgrid[: size[0], : size[1]] + 0.5
    image = 255 * np.exp(-((u - point[0]) ** 2 + (v - point[1]) ** 2) / 18)
    view = warp(image.astype(np.float32), homography, side)
    v, u = np.mgrid[:side, :side] + 0.5
    seen = np.array([(u * view).sum(), (v * view).sum()]) / view.sum()
    np.testing.assert_allclose(seen, [x, y], atol=0.15)


def test_cells_beyond_the_image_are_not_taught():
    beside = np.array([[1, 0, -16.0], [0, 1, 0], [0, 0, 1]])  # the view begins at column 16
    inside = cells_inside(beside, (64, 48), 64)
    np.testing.assert_array_equal(inside, np.tile(np.arange(8) < 4, (8, 1)))


def test_changed_light():
    (image,) = built_in_images((64, 64), 1)
    one, again, other = (change_light(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one.shape == image.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_losses_of_perfect_and_of_opposite_outputs():
    labels = np.zeros((2, 2, 2, 65), np.float32)
    labels[..., 8 * 3 + 4] = 1  # row 3, column 4: the pixel centre is at (4.5, 3.5)
    xy = np.array([[[4.5, 3.5], [12.5, 11.5], [0, 0]], [[4.5, 11.5], [0, 0], [0, 0]]], np.float32)
    valid = np.array([[1, 1, 0], [1, 0, 0]], np.float32)
    dense = np.zeros((2, 2, 2, 4), np.float32)
    dense[:, 0, 0, 0] = dense[:, 1, 1, 1] = dense[:, 1, 0, 2] = dense[:, 0, 1, 3] = 1
    descriptors = np.array(tf.math.l2_normalize(losses.bilinear(dense, xy / 8 - 0.5), -1))
    descriptors[valid == 0] = 9  # not a keypoint
    everywhere = np.ones((2, 2, 2), np.float32)
    assert float(losses.keypoint_loss(tf.constant(labels * 100), labels, everywhere)) == pytest.approx(0, abs=1e-6)
    assert float(losses.keypoint_loss(tf.zeros_like(labels), labels, everywhere)) == pytest.approx(np.log(65))
    assert float(losses.keypoint_loss(tf.zeros_like(labels), labels, 0 * everywhere)) == 0
    distance, contrast = losses.descriptor_losses({"local_descriptors": tf.constant(5 * dense)}, xy, valid, descriptors)
    assert float(distance) == pytest.approx(0, abs=1e-5) and float(contrast) < 0.1
    distance, contrast = losses.descriptor_losses({"local_descriptors": tf.constant(-dense)}, xy, valid, descriptors)
    assert float(distance) == pytest.approx(4, rel=1e-4) and float(contrast) > 1


def test_equation_1():
    values, weights = np.array([0.5, 1.5, 3.0]), np.array([0.1, -0.2, 0.7])
    by_hand = (
        np.exp(-0.1) * 0.5 + 0.1  # a regression
        + np.exp(0.2) * 1.5 - 0.2  # a regression
        + 2 * np.exp(-0.7) * 3.0 + 0.7  # a cross-entropy counts twice
    )  # fmt: skip
    w = tf.Variable(weights, dtype=tf.float32)
    with tf.GradientTape() as tape:
        total = losses.total_loss(tf.constant(values, tf.float32), w, tf.constant([1.0, 1.0, 2.0]))
    assert float(total) == pytest.approx(by_hand, rel=1e-6)
    np.testing.assert_allclose(tape.gradient(total, w), 1 - np.array([1, 1, 2]) * np.exp(-weights) * values, rtol=1e-5)


@pytest.fixture
def teachers(monkeypatch):
    monkeypatch.setattr(runs.teachers, "local_teacher", lambda path: FakeLocal())
    monkeypatch.setattr(runs.teachers, "ImageNet", lambda path: FakeGlobal())


@pytest.fixture
def eager():
    """Building the graph of a training step takes longer than the few steps of a test."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class KerasEncoder:
    """`hfnet_export.training.descriptor_stage.Encoder` without a conversion, which takes longer than a test's views."""

    def __init__(self, model, outputs, side):
        self.maps = keras.Model(model.input, list(outputs))

    def __call__(self, view):
        found = self.maps(view[None, ..., None] / np.float32(127.5) - 1)
        return [map_.numpy()[0].astype(np.float16) for map_ in found]


@pytest.fixture
def short_stages(monkeypatch):
    """Stages on pairs of views that convert nothing, and judge themselves on one batch."""
    for stage in (descriptor_stage, hypercolumn_stage):
        monkeypatch.setattr(stage, "Encoder", KerasEncoder)
        monkeypatch.setattr(stage, "HELD_OUT", 1)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(built_in_images((128, 160), 12, seed=9)):
        cv2.imwrite(str(folder / f"{i:02}.png"), image[: 128 - 8 * (i % 2)])  # not all of one size
    return folder


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_targets_belong_to_their_images(images, tmp_path):
    paths = sorted(images.iterdir())
    targets = make_targets(paths, FakeLocal(), FakeGlobal(), tmp_path / "targets")
    assert isinstance(targets, Targets) and len(targets.sizes) == 12
    for i in (0, 5, 11):
        grey = cv2.imread(str(paths[i]), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(targets.image(i), grey)
        rows = slice(targets.peak_start[i], targets.peak_start[i + 1])
        assert len(targets.xy[rows]) > 5 and (targets.xy[rows] < grey.shape[::-1]).all()
        np.testing.assert_allclose(np.linalg.norm(targets.descriptors[rows].astype(float), axis=1), 127, rtol=0.03)
        assert targets.feature_map(i).shape == (grey.shape[0] // 32, grey.shape[1] // 32, 320)
    paths[3].unlink()
    with pytest.raises(InputError, match="no training images"):
        make_targets([], FakeLocal(), FakeGlobal(), tmp_path / "targets")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Even though")  # tf.data does not run eagerly
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(teachers, eager, short_stages, images, recipe, tmp_path):
    def power_cut(what, done, total, note=""):
        if what == "training, local" and done == 2:
            shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
            with (tmp_path / "resumed" / "local.csv").open("a") as log:
                log.write("3,9,9,9,nan,nan,nan\n")  # a step that the last checkpoint does not hold

    def train(folder, *progress):
        return runs.run_distillation(
            images, images / "00.png", images / "01.png", tmp_path / folder, recipe, *progress, checkpoint_every=2
        )

    whole = train("whole", power_cut)
    resumed = train("resumed")
    (config, a, card), (_, b, _) = load_weights(whole), load_weights(resumed)
    assert config == replace(read_training_recipe(recipe).network, local_dim=8)
    assert (card["local_teacher"], card["image_folder"], card["images"]) == ("fake local", "images", 12)
    stages = {"local": 3, "global": 2, "descriptors": 2, "hypercolumns": 2}
    assert {name: stage["steps"] for name, stage in card["stages"].items()} == stages
    assert all((tmp_path / "whole" / f"{name}.csv").exists() for name in stages)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name].astype(float), b[name].astype(float), rtol=1e-2, atol=2e-3, err_msg=name)
    logs = [list(csv.reader((tmp_path / f / "local.csv").open())) for f in ("whole", "resumed")]
    assert [row[0] for row in logs[0]] == [row[0] for row in logs[1]] == ["step", "1", "2", "3"]
    np.testing.assert_allclose(*(np.array([row[1:4] for row in log[1:]], float) for log in logs), rtol=1e-3)
    assert (tmp_path / "whole" / "losses.png").stat().st_size > 1000
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["recipe"]["local"]["steps"] == 3

    recipe.write_text(RECIPE.replace("side = 64", "side = 96", 1))
    with pytest.raises(InputError, match=r"started with recipe\.local\.side 64, not 96; give the same"):
        train("whole")
    recipe.write_text(RECIPE)
    (images / "13.png").write_bytes((images / "00.png").read_bytes())
    with pytest.raises(InputError, match=r"started with images [0-9a-f]{64}, not [0-9a-f]{64}"):
        train("whole")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("local.step = 3", r"local\.step is not known; known here: steps, batch"),
        ("local.steps = 0", r"local\.steps = 0; give something like 8000"),
        ("local.side = 70", r"local\.side has 70; give multiples of 32"),
        ("hypercolumns.side = 80", r"hypercolumns\.side has 80; give multiples of 32"),
        ("hypercolumns.matches = 0", r"hypercolumns\.matches = 0; give something like 256"),
        ("hypercolumns.others = 8", r"hypercolumns\.others is not known; known here: steps, pairs"),
        ('hypercolumns.photographs = "half"', r"hypercolumns\.photographs = 'half'; give something like 0\.45"),
        ('local.terms = ["luck"]', r"local\.terms has luck; known: keypoints"),
        ('seed = "x"', "seed = 'x'; give something like 0"),
        ("network = 3", "network = 3"),
        ("[", "is not TOML"),
        ("a = " + "[" * 20_000, "is not TOML: it is nested too deeply"),
        ("seed = 1" + "0" * 400, "seed = 1000"),
        ("local.rate = 1" + "0" * 400, r"local\.rate"),
    ],
)
def test_a_wrong_recipe_is_named(change, message, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(change)
    with pytest.raises(InputError, match=message):
        read_training_recipe(path)


def test_the_bundled_recipe_and_the_defaults_are_one():
    assert read_training_recipe(BUNDLED_RECIPE) == DistillConfig(HFNetConfig(), LocalConfig(), GlobalConfig())


def test_unusable_training(teachers, images, recipe, tmp_path):
    def train(output):
        runs.run_distillation(images, images / "00.png", images / "01.png", output, recipe)

    recipe.write_text(RECIPE.replace("batch = 4", "batch = 23", 1))
    with pytest.raises(InputError, match="do not fill a batch of 23"):
        train(tmp_path / "run")
    with pytest.raises(HFNetEdgeError, match="cannot write"):
        (tmp_path / "file").write_text("")
        train(tmp_path / "file" / "run")


def test_every_nth_image_is_held_out():
    train, held = split(12, 6)
    assert held.tolist() == [5, 11] and sorted([*train, *held]) == list(range(12))
