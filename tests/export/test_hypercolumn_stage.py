"""Contrast among all cells pays for the right ones, and a few steps of the stage make it fall."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pycolmap")
pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

from hfnet_edge.networks.description import HYPERCOLUMN_ROLE
from hfnet_export.networks.hfnet import HFNetConfig, build_hfnet, hypercolumn_inputs
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.training import hypercolumn_stage as stages
from hfnet_export.training.descriptor_stage import Encoder
from hfnet_export.training.hypercolumn_stage import (
    SUMS,
    HypercolumnConfig,
    any_view,
    hypercolumn_head_of,
    hypercolumn_stage,
    scale_convolutions,
)
from hfnet_export.training.losses import TEMPERATURE, grid_contrast
from hfnet_export.training.targets import Targets
from hfnet_export.training.training_stage import train
from hfnet_export.training.view_pairs import NOWHERE, filled, harsh_view

SIDE = 64
CELLS = np.stack(np.meshgrid(*[np.arange(4, 32, 8)] * 2), -1).reshape(-1, 2).astype(np.float32)  # centres of 4 x 4


def one_hot(maps: int = 1) -> np.ndarray:
    """(maps, 4, 4, 16 * maps) float32: every cell differs from every other."""
    return np.eye(16 * maps, dtype=np.float32).reshape(maps, 4, 4, 16 * maps)


def contrast(first, second, here, there, sources=(1,)) -> float:
    """`grid_contrast` of points (K, 2), the same in all pairs."""
    xy = [tf.constant(np.stack([points] * len(sources)), tf.float32) for points in (here, there)]
    return float(grid_contrast(tf.constant(first), tf.constant(second), xy, tf.constant(sources)))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    config = HFNetConfig(
        width=0.35, descriptor_width=8, detector_width=8, clusters=4, global_dim=8, hypercolumn_dim=16,
        hypercolumn_width=16,
    )  # fmt: skip
    model = build_hfnet(config, (None, None))
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the statistics of one batch, so that no layer is all but silent
    model(np.stack(built_in_images((SIDE, SIDE))[:4])[..., None] / np.float32(127.5) - 1, training=True)
    return model


@pytest.fixture(scope="module")
def encoder(model) -> Encoder:
    return Encoder(model, hypercolumn_inputs(model), SIDE)


@pytest.fixture
def quick(encoder, monkeypatch):
    """Converting an encoder and building the graph of a step take longer than the steps of a test."""
    monkeypatch.setattr(stages, "Encoder", lambda *_: encoder)
    monkeypatch.setattr(stages, "HELD_OUT", 2)
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_equal_views_cost_nothing():
    unlike = one_hot(2)
    assert 0 <= contrast(7 * unlike, unlike, CELLS, CELLS, (1, 2)) < 1e-3
    assert contrast(unlike, unlike[:, ::-1], CELLS, CELLS, (1, 2)) == pytest.approx(1 / TEMPERATURE, rel=1e-3)
    moved = np.roll(unlike, 1, axis=2)[:, :, 1:]  # seen one cell farther right, on a grid of 4 x 3
    kept = CELLS[CELLS[:, 0] < 24]
    assert contrast(unlike[:, :, :3], moved, kept, kept, (1, 2)) < 1e-3


@pytest.mark.parametrize("point", [(12.0, 20.0), (14.0, 21.0), (17.9, 7.0), (1.0, 30.5)])
def test_a_point_is_the_four_cells_around_it(point):
    rng = np.random.default_rng(0)
    dense, here, there = rng.normal(size=(2, 4, 4, 8)).astype(np.float32), (12.0, 12.0), np.array(point)
    column, row = np.clip(there / 8 - 0.5, 0, 3)  # beyond the outermost centres, the outermost cells alone
    label = np.zeros((4, 4))
    for y in range(4):
        for x in range(4):
            label[y, x] = max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
    assert label.sum() == pytest.approx(1) and (label > 0).sum() <= 4
    unit = dense / np.linalg.norm(dense, axis=-1, keepdims=True)
    between = (label[..., None] * dense[1]).sum(axis=(0, 1))
    costs = []
    for grid, wanted, right in (
        (unit[1], unit[0, 1, 1], label),
        (unit[0], between / np.linalg.norm(between), np.eye(4)[1][:, None] * np.eye(4)[1]),
    ):
        similarity = grid @ wanted / TEMPERATURE
        costs.append(np.log(np.exp(similarity).sum()) - (right * similarity).sum())
    loss = contrast(dense[:1], dense[1:], [here], [point])
    assert loss == pytest.approx(np.mean(costs), rel=1e-4)


def test_points_outside_do_not_count():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 1, 4, 4, 8)).astype(np.float32)
    few = contrast(first, second, CELLS[:5], CELLS[2:7])
    assert contrast(first, second, filled(CELLS[:5], 9), filled(CELLS[2:7], 9)) == pytest.approx(few, rel=1e-5)
    assert (filled(CELLS[:5], 9)[5:] == NOWHERE).all()


def test_views_of_one_source_are_not_compared():
    same = np.concatenate([one_hot()] * 2)  # both pairs show the same
    alone = contrast(one_hot(), one_hot(), CELLS, CELLS)
    assert contrast(same, same, CELLS, CELLS, (3, 3)) == pytest.approx(alone, abs=1e-5)
    assert contrast(same, same, CELLS, CELLS, (3, 4)) == pytest.approx(np.log(2), abs=1e-3)


@pytest.mark.parametrize("change", [harsh_view, any_view])
def test_changed_views(change):
    view = built_in_images((96, 96))[3]
    made = []
    for seed in range(40):
        one, again = (change(view.copy(), np.random.default_rng(seed)) for _ in range(2))
        assert one.shape == view.shape and one.dtype == np.uint8
        np.testing.assert_array_equal(one, again)
        made.append(one)
    changed = sum((one != view).any() for one in made)
    assert 0.6 * len(made) < changed < len(made)  # some stay as they are
    assert min(one.mean() for one in made) < 0.2 * view.mean()  # some are dark


def test_the_head_is_that_of_the_network(model, encoder):
    view = built_in_images((SIDE, SIDE))[1]
    maps = [map_[None].astype(np.float32) for map_ in encoder(view)]
    assert [map_.shape[1] for map_ in maps] == [16, 8, 4, 2]
    found = hypercolumn_head_of(model)(maps).numpy()
    whole = model(view[None, ..., None] / np.float32(127.5) - 1)[HYPERCOLUMN_ROLE].numpy()
    assert found.shape == (1, SIDE // 8, SIDE // 8, 16)
    length = np.linalg.norm(whole, axis=-1, keepdims=True)
    np.testing.assert_allclose(found / length, whole / length, atol=1e-3)  # between the two, maps are in float16


def test_every_convolution_starts_with_unit_variance(model, encoder):
    views = [encoder(view) for view in built_in_images((SIDE, SIDE))[:4]]
    maps = [np.stack(scale).astype(np.float32) for scale in zip(*views, strict=True)]
    scale_convolutions(model, maps)
    added = {f"{HYPERCOLUMN_ROLE}.{name}": len(names) for names in SUMS for name in names}
    layers = [layer for layer in hypercolumn_head_of(model).layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(layers) == 7 and set(added) < {layer.name for layer in layers}
    for layer in layers:
        found = keras.Model(hypercolumn_inputs(model), layer.output)(maps).numpy()
        parts = added.get(layer.name, 1)
        assert found.std(axis=(0, 1, 2)).mean() == pytest.approx(parts**-0.5, rel=1e-3), layer.name
        np.testing.assert_allclose(layer.get_weights()[1], 0.5 / parts if parts > 1 else 0)


def test_the_stage_teaches_the_head_alone(model, quick, tmp_path):
    images = built_in_images((128, 160), 4, seed=9)
    none, start = np.zeros(0), np.zeros(5, int)
    targets = Targets(
        np.array([image.shape for image in images]), np.arange(5) * images[0].size,
        np.concatenate([image.ravel() for image in images]), start, np.zeros((0, 2), np.float32), none, none, start,
        none,
    )  # fmt: skip
    before = {weight.path: weight.numpy() for weight in model.weights}
    config = HypercolumnConfig(steps=20, pairs=2, side=SIDE, matches=32)
    stage = hypercolumn_stage(model, targets, (np.arange(3), np.array([3])), (), (), config, seed=0)
    first, again = (next(stage.batches(7)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    held_before = np.mean([stage.losses(batch, False) for batch in stage.held_out])
    now = train(stage, tmp_path, lambda *_, **__: None, 20, lambda _: None)
    losses = np.genfromtxt(tmp_path / "hypercolumns.csv", delimiter=",", names=True)["contrast"]
    assert len(losses) == 20 and losses[-5:].mean() < losses[:5].mean()
    assert now.held_out[0] < min(held_before, np.log(2 * (SIDE // 8) ** 2))  # better than chance, among two views
    changed = {weight.path for weight in model.weights if (weight.numpy() != before[weight.path]).any()}
    assert changed and all(path.startswith(HYPERCOLUMN_ROLE) for path in changed)
