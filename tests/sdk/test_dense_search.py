"""Sparse-to-dense search: against plain loops, in a place without pictures, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hfnet_edge.errors import MismatchError
from hfnet_edge.features import Features
from hfnet_edge.image.hypercolumns import Hypercolumns
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.image.photo import Photo
from hfnet_edge.localizer import localize_features
from hfnet_edge.methods import dense_search
from hfnet_edge.methods.dense_search import ALIKE_PERCENT, FEW, search
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.methods.registry import open_method
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.result import Status
from hfnet_edge.tensor import Tensor
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import in_file_order, lay_out, to_map
from synthetic import CAMERA, EXTRACTOR, looking_at, place

TRUTH = looking_at(np.array([1013.0, -1996.0, 52.0]), np.array([1000.0, -2000.0, 50.0]))
PHOTO = Photo(np.zeros((480, 640), np.uint8), (480, 640), (640, 480))
ANY = 0.9  # a pose is given whatever is thought of it
WIDTH = 24


def plain_search(cells, landmarks, most):
    """`search`, landmark by landmark and in whole numbers."""
    h, w, _ = cells.shape
    found = {}
    for row, landmark in enumerate(landmarks.tolist()):
        scores = [[sum(a * b for a, b in zip(cell, landmark, strict=True)) for cell in line] for line in cells.tolist()]
        flat = [score for line in scores for score in line]
        best = flat.index(max(flat))
        if flat[best] <= 0 or sum(100 * s > ALIKE_PERCENT * flat[best] for s in flat) > 1 + int(FEW * h * w):
            continue
        y, x = divmod(best, w)
        cell = cells[y, x].tolist()
        cosine = flat[best] ** 2 / (sum(v * v for v in landmark) * sum(v * v for v in cell))
        other = found.get(best)
        if other is None or cosine > other[0]:
            aside = []
            for before, after in (
                (scores[y][x - 1], scores[y][x + 1]) if 0 < x < w - 1 else (0, 0),
                (scores[y - 1][x], scores[y + 1][x]) if 0 < y < h - 1 else (0, 0),
            ):
                bend = 2 * flat[best] - before - after
                aside.append((after - before) / (2 * bend) if (before or after) and bend > 0 else 0.0)
            found[best] = cosine, row, (8 * (x + 0.5 + aside[0]), 8 * (y + 0.5 + aside[1]))
    chosen = sorted(found.values(), key=lambda one: (-one[0], one[1]))[:most]
    return sorted((row, xy) for _, row, xy in chosen)


@pytest.mark.parametrize("most", [4, 1000])
@pytest.mark.parametrize("block", [0, 7, 128])
def test_search_is_what_plain_loops_find(block, most, monkeypatch):
    monkeypatch.setattr(dense_search, "BLOCK", 9 * 12 * block)
    monkeypatch.setattr(dense_search, "MOST", most)
    rng = np.random.default_rng(0)
    cells = quantize(rng.normal(size=(9 * 12, 8))).reshape(9, 12, 8)
    landmarks = quantize(cells[rng.integers(0, 9, 40), rng.integers(0, 12, 40)] + rng.normal(0, 12, (40, 8)))
    landmarks[5] = 0  # none
    landmarks[7] = landmarks[6] = cells[0, 0]  # equals, at the border
    cells[8, 11] = cells[4, 4] = landmarks[8]  # one landmark twice in the image
    found = search(cells, landmarks)
    expected = plain_search(cells, landmarks, most)
    assert found.rows.tolist() == [row for row, _ in expected] and len(expected) >= 4
    assert np.array_equal(found.xy, [xy for _, xy in expected])
    assert 7 not in found.rows, "of two landmarks in one cell the first stays"
    if most == 1000:
        assert 6 in found.rows and len(found.rows) < 40


def test_a_landmark_that_looks_like_many_cells_is_not_found():
    rng = np.random.default_rng(1)
    cells = quantize(rng.normal(size=(60 * 80, 16))).reshape(60, 80, 16)
    landmark = cells[30, 40:41]
    assert search(cells, landmark).rows.tolist() == [0]
    cells[:1, :40] = landmark  # 40 more of 4,800: more than 0.6 %
    assert not len(search(cells, landmark).rows)


def test_nothing_is_found_in_nothing():
    assert len(search(np.zeros((3, 4, 8), np.int8), np.ones((5, 8), np.int8)).rows) == 0
    assert len(search(np.ones((3, 4, 8), np.int8), np.zeros((0, 8), np.int8)).rows) == 0
    one = search(np.full((1, 1, 8), 40, np.int8), np.full((2, 8), 40, np.int8))
    assert one.rows.tolist() == [0] and one.xy.tolist() == [[4.0, 4.0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_hypercolumns_lie_where_keypoints_are(orientation):
    size = (300, 400) if orientation < 5 else (400, 300)
    photo = Photo(np.zeros((96, 128), np.uint8), (96, 72), size, orientation)
    xy = np.random.default_rng(0).uniform(1, (71, 95), (50, 2))
    np.testing.assert_allclose(photo.from_camera(photo.to_camera(xy)), xy, atol=1e-9)
    values = np.random.default_rng(1).integers(-128, 128, (12, 16, 8)).astype(np.int8)
    dense = Hypercolumns(Tensor(values, 0.5, 3), photo)
    assert dense.cells.shape == (12, 9, 8), "cells beyond the image are left out"
    middle = np.array([[4 * 8 + 4.0, 7 * 8 + 4.0]])
    assert np.array_equal(dense.at(photo.to_camera(middle))[0], dense.cells[7, 4])


@pytest.fixture(scope="module")
def town():
    """A place, what its landmarks look like from afar, and its map."""
    p = place()
    looks = p.rng.normal(size=(len(p.landmarks), WIDTH))
    source = replace(p.source(), hypercolumns=quantize(looks))
    return p, looks, to_map(lay_out(source))


def query(p, looks, keypoints=True, descriptors=True):
    """Features at `TRUTH`, with hypercolumns of what is there."""
    features = p.features(TRUTH, noise=0.3, outliers=200)
    xy = CAMERA.project(TRUTH.transform(p.landmarks))
    seen = (xy > 0).all(axis=1) & (xy < (640, 480)).all(axis=1)
    dense = np.random.default_rng(3).normal(0, 0.3, (60, 80, WIDTH))
    for at, look in zip(xy[seen] / 8 - 0.5, looks[seen], strict=True):
        x, y = np.floor(at).astype(int)
        for i, j in ((x, y), (x + 1, y), (x, y + 1), (x + 1, y + 1)):
            if 0 <= i < 80 and 0 <= j < 60:
                dense[j, i] += look * (1 - abs(at[0] - i)) * (1 - abs(at[1] - j))
    if not keypoints:
        features = Features(
            features.keypoints[:0], features.scores[:0], features.descriptors[:0], features.global_descriptor, 1.0
        )
    if not descriptors:
        features = replace(
            features, descriptors=quantize(np.random.default_rng(4).normal(size=(len(features.keypoints), 32)))
        )
    return replace(features, hypercolumns=Hypercolumns(dense.astype(np.float32), PHOTO))


def localize(town, method, max_wrong=ANY, **of_query):
    p, looks, map_ = town
    r = localize_features(map_, query(p, looks, **of_query), CAMERA, LocalizationConfig(method, max_wrong=max_wrong))
    return r, (np.inf, np.inf) if r.pose is None else pose_error(r.pose, TRUTH)


def test_landmarks_are_found_without_keypoints_and_refined_with_them(town):
    without, coarse = localize(town, "sparse-to-dense", keypoints=False)
    assert without.status is Status.LOCALIZED and without.matches.keypoints is None
    assert coarse[0] < 0.3 and coarse[1] < 1.0
    with_, fine = localize(town, "sparse-to-dense", max_wrong=0.001)
    assert with_.status is Status.LOCALIZED and with_.matches.keypoints is not None
    assert fine[0] < 0.02 and fine[0] < coarse[0] / 3
    assert set(with_.milliseconds) >= {"retrieve", "cluster", "search", "pose", "second_look", "trust"}


def test_keypoints_that_look_like_nothing_leave_the_pose_as_it_is(town):
    _, coarse = localize(town, "sparse-to-dense", keypoints=False)
    _, same = localize(town, "sparse-to-dense", descriptors=False)
    assert same == pytest.approx(coarse, rel=0.5)


def test_auto_says_which_method_found_the_pose(town):
    r, error = localize(town, "auto", max_wrong=0.001)
    assert r.found_by == "hierarchical" and error[0] < 0.02 and "search" not in r.milliseconds
    r, error = localize(town, "auto", descriptors=False)
    assert r.found_by == "sparse-to-dense" and error[0] < 0.3 and "search" in r.milliseconds


def test_auto_in_a_map_without_hypercolumns_is_hierarchical(town):
    p, looks, _ = town
    r = localize_features(p.map(), query(p, looks), CAMERA, LocalizationConfig("auto"))
    assert r.found_by == "hierarchical" and pose_error(r.pose, TRUTH)[0] < 0.02


@pytest.mark.parametrize("codec", ["pq", "binary", "int8"])
def test_encoded_hypercolumns_are_found_too(town, codec):
    from hfnet_edge.map.codecs import CodecName
    from hfnet_maps.pack.packer import Packer
    from hfnet_maps.pack.settings import Settings

    p, looks, _ = town
    source = in_file_order(replace(p.source(), hypercolumns=quantize(looks)))
    settings = Settings(CodecName(codec), 32, 8 if codec == "pq" else 0, 1, 16)
    small = to_map(Packer(source).pack(settings, len(p.landmarks)))
    assert small.hypercolumn_codec.row_bytes == {"pq": 6, "binary": 3, "int8": WIDTH}[codec]
    r = localize_features(
        small, query(p, looks, keypoints=False), CAMERA, LocalizationConfig("sparse-to-dense", max_wrong=ANY)
    )
    assert r.status is Status.LOCALIZED and pose_error(r.pose, TRUTH)[0] < 0.5


def test_what_lacks_hypercolumns_is_refused_by_name(town):
    p, looks, map_ = town
    with pytest.raises(MismatchError, match=r"no hypercolumns.*--method sparse-to-dense"):
        localize_features(p.map(), query(p, looks), CAMERA, LocalizationConfig("sparse-to-dense"))
    network = SimpleNamespace(path="old.tflite", description=EXTRACTOR)
    with pytest.raises(MismatchError, match=r"old\.tflite does not give hypercolumns"):
        open_method(map_, Networks(network), LocalizationConfig("sparse-to-dense"))
    features = replace(query(p, looks), hypercolumns=None)
    r = localize_features(map_, features, CAMERA, LocalizationConfig("sparse-to-dense"))
    assert r.status is Status.NO_CANDIDATES and r.pose is None
