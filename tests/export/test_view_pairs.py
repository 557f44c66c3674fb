"""Pairs of views show the same points, and contrast pays for telling them apart."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("pycolmap")
pytest.importorskip("tensorflow")

from colmap_scene import write_scene
from hfnet_edge.errors import InputError
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.training import view_pairs
from hfnet_export.training.losses import pair_contrast
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
    first = rng.normal(size=(2, 8, 8, 6)).astype(np.float32)
    xy = np.stack([np.stack(np.meshgrid([12.0, 28, 44], [12.0, 28, 44]), -1).reshape(-1, 2)] * 2).astype(np.float32)
    none, sources = np.full((2, 1, 2), -1000.0, np.float32), np.array([3, 4])
    equal = float(pair_contrast(first, first, (xy, xy), (none, none), sources))
    mixed = float(pair_contrast(first, first, (xy, xy[:, ::-1]), (none, none), sources))
    assert 0 <= equal < 0.05 < 1 < mixed
    swapped = first[::-1].copy()
    # points of the other pair are wrong, unless it is of the same source
    both = np.concatenate([first, swapped], axis=2)[:, :, :8]
    assert float(pair_contrast(both, both, (xy, xy), (none, none), np.array([3, 3]))) <= equal
    # the same descriptor a pixel beside the right one is not wrong, far from it is
    beside = xy[:, :1] + np.float32([0.5, 0])
    assert float(pair_contrast(first, first, (xy, xy), (none, beside), sources)) < equal + 0.01
    copied = first.copy()
    copied[:, 7, 7] = copied[:, 1, 1]
    far = np.full((2, 1, 2), 60.0, np.float32)
    assert float(pair_contrast(first, copied, (xy, xy), (none, far), sources)) > equal + 0.02
