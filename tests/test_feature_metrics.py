"""The metrics of `benchmarks/features.py` on cases whose values are known by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import feature_metrics as metrics
from feature_metrics import Local

SIZE = (100, 200)
IDENTITY = np.eye(3)


@pytest.fixture
def grid() -> np.ndarray:
    """(50, 2) keypoints 20 pixels apart, all at least 10 pixels from the edge."""
    x, y = np.meshgrid(np.arange(10, 200, 20.0), np.arange(10, 100, 20.0))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def local(xy: np.ndarray, labels: np.ndarray | None = None) -> Local:
    """Keypoints with descriptors that are all alike, or equal where the labels are and else orthogonal."""
    descriptors = np.ones((len(xy), 1)) if labels is None else np.eye(200)[labels]
    return Local(xy, descriptors.astype(np.float32))


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def test_identical_features_are_perfect(grid):
    features = local(grid, np.arange(50))
    figures = metrics.evaluate(features, features, IDENTITY, SIZE)
    assert figures.pop("localization error") == 0
    assert set(figures.values()) == {1.0}


def test_keypoints_moved_by_two_pixels_are_repeated_with_that_error(grid):
    pair = metrics.views(local(grid), local(metrics.project(grid, shift(2, 0))), IDENTITY, SIZE)
    assert metrics.repeatability(pair) == 1
    assert metrics.localization_error(pair) == pytest.approx(2)


def test_keypoints_moved_by_more_than_epsilon_are_not_repeated(grid):
    pair = metrics.views(local(grid), local(metrics.project(grid, shift(4, 0))), IDENTITY, SIZE)
    assert metrics.repeatability(pair) == 0
    assert np.isnan(metrics.localization_error(pair))


def test_repeatability_pools_the_keypoints_of_both_images(grid):
    pair = metrics.views(local(grid), local(grid[:25]), IDENTITY, SIZE)
    assert metrics.repeatability(pair) == pytest.approx((25 + 25) / (50 + 25))


def test_only_keypoints_in_the_overlap_count(grid):
    homography = shift(100, 0)  # the right half of the first image is beyond the second's edge
    moved = metrics.project(grid, shift(100, 0))
    second = np.concatenate([moved[moved[:, 0] < 200], grid[grid[:, 0] < 100]])  # and the left half there is new
    labels = np.concatenate([np.flatnonzero(moved[:, 0] < 200), np.arange(100, 125)])
    pair = metrics.views(local(grid, np.arange(50)), local(second, labels), homography, SIZE)
    assert [v.visible.sum() for v in pair] == [25, 25]
    assert metrics.repeatability(pair) == 1
    assert metrics.localization_error(pair) == pytest.approx(0)
    assert metrics.matching_score(pair) == 1


def test_the_error_is_measured_in_the_image_where_the_keypoint_arrives(grid):
    homography = np.diag([2.0, 2.0, 1.0])
    inside = grid[(grid < (95, 45)).all(axis=1)]
    pair = metrics.views(local(inside), local(metrics.project(2 * inside, shift(1, 0))), homography, SIZE)
    assert metrics.localization_error(pair) == pytest.approx((1 + 0.5) / 2), "one pixel there, half a pixel back"


def test_what_a_homography_puts_behind_the_camera_is_not_visible():
    homography = np.array([[1.0, 0, 0], [0, 1, 0], [-1 / 100, 0, 1]])
    xy = np.array([[50.0, 40], [150, 40]])
    assert metrics.project(xy, homography)[0] == pytest.approx([100, 80])
    assert metrics.views(local(xy), local(xy), homography, SIZE)[0].visible.tolist() == [True, False]


def test_matching_score_and_accuracy_with_swapped_descriptors(grid):
    labels = np.arange(50)
    labels[:10] = np.roll(labels[:10], 1)
    pair = metrics.views(local(grid, np.arange(50)), local(grid, labels), IDENTITY, SIZE)
    assert metrics.matching_score(pair) == pytest.approx(0.8)
    assert metrics.matching_accuracy(pair) == pytest.approx(0.8)


def test_only_mutual_nearest_neighbours_are_matches(grid):
    pair = metrics.views(local(grid[:3], np.array([7, 7, 8])), local(grid[:2], np.array([7, 8])), IDENTITY, SIZE)
    assert metrics.mutual_matches(pair).tolist() == [[0, 0], [2, 1]]
    assert metrics.matching_accuracy(pair) == 0.5


def test_average_precision_of_a_ranking():
    """Three right matches of four possible, ranked first, second and fourth: (1 + 1 + 3/4) / 4."""
    distance = np.full((5, 5), 50.0)
    distance[[0, 1, 3], [0, 1, 3]] = 0  # right
    distance[2, 3] = 0  # correct, but its nearest neighbour by descriptor is another
    view = metrics.View(distance, np.ones(5, bool), np.arange(5), np.array([0.9, 0.8, 0.7, 0.6, 0.5]))
    assert metrics.average_precision((view, view)) == pytest.approx(2.75 / 4)


def test_average_precision_of_a_random_matcher_is_next_to_nothing(grid):
    rng = np.random.default_rng(0)
    first, second = (Local(grid, rng.normal(size=(50, 64)).astype(np.float32)) for _ in range(2))
    assert metrics.average_precision(metrics.views(first, second, IDENTITY, SIZE)) < 0.05


def test_corner_error_is_that_of_the_keypoints_and_ignores_outliers(grid):
    labels = np.arange(50)
    labels[:10] = np.roll(labels[:10], 1)
    first, second = local(grid, np.arange(50)), local(metrics.project(grid, shift(0, 2)), labels)
    pair = metrics.views(first, second, IDENTITY, SIZE)
    assert metrics.corner_error(first, second, pair, IDENTITY, SIZE) == pytest.approx(2, abs=1e-3)
    figures = metrics.evaluate(first, second, IDENTITY, SIZE)
    assert [figures[f"homography @{e}"] for e in (1, 3, 5)] == [0, 1, 1]


def test_too_few_matches_give_no_homography(grid):
    few = local(grid[:3], np.arange(3))
    assert metrics.corner_error(few, few, metrics.views(few, few, IDENTITY, SIZE), IDENTITY, SIZE) == np.inf


def test_an_image_without_keypoints_scores_zero(grid):
    none = Local(np.zeros((0, 2)), np.zeros((0, 200), np.float32))
    figures = metrics.evaluate(none, local(grid, np.arange(50)), IDENTITY, SIZE)
    assert figures.keys() == metrics.evaluate(*2 * [local(grid, np.arange(50))], IDENTITY, SIZE).keys()
    assert np.nansum(list(figures.values())) == 0 and np.isnan(figures["localization error"])


def test_bootstrap_of_a_ratio_is_paired():
    b = np.random.default_rng(0).uniform(0.1, 1, 100)
    assert metrics.bootstrap_ratio(0.9 * b, b) == pytest.approx((0.9, 0.9, 0.9))
    ratio, low, high = metrics.bootstrap_ratio(np.where(np.arange(100) < 10, np.nan, b[::-1]), b)
    assert low < ratio < high and high - low > 0.05
