"""Pairs of views show the same points, and contrast pays for telling them apart."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pycolmap")
pytest.importorskip("tensorflow")

import tensorflow as tf

from colmap_scene import write_scene
from hfnet_edge.errors import InputError
from hfnet_edge.image.keypoints import sample_descriptors
from hfnet_edge.networks.description import LOCAL_ROLES
from hfnet_export.networks.hfnet import HFNetConfig, build_hfnet, descriptor_inputs
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.training import view_pairs
from hfnet_export.training.descriptor_stage import Encoder, Heads
from hfnet_export.training.losses import pair_contrast, sampled
from hfnet_export.training.runs import place_folders
from hfnet_export.training.targets import Targets
from hfnet_export.training.view_pairs import of_photograph, of_place, read_place

SIDE = 160


def photograph() -> Targets:
    """One image without a teacher's answers."""
    image = built_in_images((256, 320))[3]
    none, start = np.zeros(0), np.array([0, 0])
    return Targets(
        np.array([image.shape]), np.array([0, image.size]), image.ravel(), start, np.zeros((0, 2), np.float32),
        none, none, start, none,
    )  # fmt: skip


def alike(pair: view_pairs.ViewPair) -> tuple[float, float]:
    """Mean grey difference of 5x5 pixels around the same points, and around different ones."""
    around = []
    for view, xy in zip(pair.views, pair.shared, strict=True):
        x, y = np.floor(xy).astype(int).T
        patches = np.stack([view[y + dy, x + dx] for dy in range(-2, 3) for dx in range(-2, 3)], 1).astype(float)
        around.append(patches - patches.mean(axis=1, keepdims=True))
    return tuple(float(np.abs(around[0] - other).mean()) for other in (around[1], np.roll(around[1], 3, axis=0)))


def test_homographies_show_the_same_points():
    pairs = [of_photograph(photograph(), 0, SIDE, np.random.default_rng(k)) for k in range(6)]
    found = [pair for pair in pairs if pair is not None]
    assert len(found) >= 4
    for pair in found:
        assert all(view.shape == (SIDE, SIDE) and view.dtype == np.uint8 for view in pair.views)
        assert all(((xy > 0) & (xy < SIDE)).all() for xy in (*pair.shared, *pair.others))
        assert len(pair.shared[0]) == len(pair.shared[1]) >= view_pairs.LEAST and pair.source == 0
    same, others = np.mean([alike(pair) for pair in found], axis=0)
    assert same < 0.6 * others


def test_photographs_of_a_place_show_the_same_points(tmp_path):
    write_scene(tmp_path / "scene", seed=4)
    place = read_place(tmp_path / "scene")
    assert len(place.grey) == 3 and len(place.pairs) == 3 and place.weights.sum() == pytest.approx(1)
    pairs = [of_place(place, -1, SIDE, np.random.default_rng(k)) for k in range(6)]
    found = [pair for pair in pairs if pair is not None]
    assert len(found) >= 3 and {pair.source for pair in found} == {-1}
    same, others = np.mean([alike(pair) for pair in found], axis=0)
    assert same < 0.6 * others


def test_what_is_no_place(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="is not a COLMAP model"):
        read_place(tmp_path)
    with pytest.raises(InputError, match="holds no place"):
        place_folders(tmp_path, [])
    with pytest.raises(InputError, match="no place castle to hold out; places: none"):
        place_folders(None, ["castle"])
    write_scene(tmp_path / "scene", seed=4)
    with pytest.raises(InputError, match="every place is held out"):
        place_folders(tmp_path, ["scene"])
    monkeypatch.setattr(view_pairs, "SHARED", 100_000)
    with pytest.raises(InputError, match="share 100000 points"):
        read_place(tmp_path / "scene")


def test_contrast_pays_for_the_right_point_alone():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(2, 10, 24)).astype(np.float32)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    xy = np.stack([np.stack(np.meshgrid([12.0, 28, 44], [12.0, 28, 44]), -1).reshape(-1, 2)] * 2).astype(np.float32)
    none = np.concatenate([xy, np.full((2, 1, 2), -1000.0, np.float32)], axis=1)  # a tenth row of no point

    def contrast(second, at=none, sources=(3, 4)):
        return float(pair_contrast(tf.constant(points), tf.constant(second), (none, at), 9, tf.constant(sources)))

    equal = contrast(points)
    assert 0 <= equal < 0.05 < 1 < contrast(points[:, ::-1].copy(), none[:, ::-1].copy())
    # points of the other pair are wrong, unless it is of the same source
    both = np.stack([points[0], points[0]])
    assert contrast(both, sources=(3, 3)) < contrast(both)
    # the same descriptor beside the right point is not wrong, far from it is
    copied = points.copy()
    copied[:, 9] = copied[:, 0]
    beside, far = (np.concatenate([xy, xy[:, :1] + np.float32(by)], axis=1) for by in (0.5, 40))
    assert contrast(copied, beside) < equal + 0.01
    assert contrast(copied, far) > equal + 0.02


def test_heads_around_points_are_the_heads_of_whole_views():
    config = HFNetConfig(width=0.35, descriptor_width=16, detector_width=8)
    model = build_hfnet(config, (None, None))
    view = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    xy = np.array([[[0.2, 0.4], [63.9, 63.1], [17.3, 40.0], [31.5, 8.2], [-1000, -1000]]], np.float32)
    encoder = Encoder(model, descriptor_inputs(model), 64)
    maps = [tf.constant(map_[None].astype(np.float32)) for map_ in encoder(view)]
    around = Heads(model)(maps, tf.constant(xy)).numpy()
    whole = model(view[None, ..., None] / np.float32(127.5) - 1)
    expected = sampled({role: whole[role] for role in LOCAL_ROLES}, xy).numpy()
    np.testing.assert_allclose(around, expected, atol=3e-3)  # between the two, maps are in float16
    runtime = sample_descriptors([whole[role].numpy()[0] for role in LOCAL_ROLES], xy[0])
    np.testing.assert_allclose(runtime / 127, expected[0], atol=0.006)
