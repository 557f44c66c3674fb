"""Retrieval, covisibility clustering and matching."""

import numpy as np
import pytest

from hfnet_edge.features import Features
from hfnet_edge.methods.covisibility import cluster
from hfnet_edge.methods.matching import RATIO_PERCENT, match, nearest_two
from hfnet_edge.methods.retrieval import retrieve
from hfnet_maps.pack.writer import lay_out, to_map
from synthetic import place, toy_source


def toy_map(observed, descriptors=None):
    """A map whose image i observes the landmarks ``observed[i]``."""
    return to_map(lay_out(toy_source(observed, descriptors)))


def match_in(features, m, images):
    """Matches in the place that these images make."""
    return match(features, m, np.unique(np.concatenate([m.observed(image) for image in images])))


def query(descriptors):
    n = len(descriptors)
    xy = np.arange(2.0 * n).reshape(n, 2)
    return Features(xy, np.ones(n, np.float32), np.asarray(descriptors, np.int8), np.zeros(16, np.int8), 1.0)


def test_retrieval_ranks_by_integer_similarity_and_breaks_ties_by_index():
    references = np.array([[1, 0], [5, 0], [2, 0], [5, 0]], np.int8)
    assert retrieve(np.array([100, 3], np.int8), references, 3).tolist() == [1, 3, 2]
    assert len(retrieve(np.array([1, 0], np.int8), references, 10)) == 4
    assert len(retrieve(np.array([1, 0], np.int8), references[:0], 10)) == 0


def test_retrieval_is_exact_at_the_widest_descriptor():
    rng = np.random.default_rng(0)
    references = rng.integers(-127, 128, (500, 1040)).astype(np.int8)
    references[7] = references[123] = np.where(references[7] > 0, 127, -127)
    q = references[7]
    exact = np.argsort(-(references.astype(np.int64) @ q.astype(np.int64)), kind="stable")
    assert retrieve(q, references, 500).tolist() == exact.tolist()


def test_places_are_connected_components_largest_first():
    m = toy_map([[0, 1], [5], [1, 2], [2, 3], [5, 6], []])
    places = cluster(m, np.array([1, 3, 5, 0, 4, 2]))
    assert [p.images.tolist() for p in places] == [[3, 0, 2], [1, 4], [5]]
    assert [p.landmarks.tolist() for p in places] == [[0, 1, 2, 3], [5, 6], []]


def test_clustering_ignores_images_that_were_not_retrieved():
    m = toy_map([[0, 1], [1, 2], [2, 3]])
    assert [p.images.tolist() for p in cluster(m, np.array([2, 0]))] == [[2], [0]]  # image 1 would join them


@pytest.mark.parametrize("dim", [32, 128, 256])
def test_nearest_two_is_exact_integer_search(dim):
    rng = np.random.default_rng(dim)
    queries = rng.integers(-127, 128, (700, dim)).astype(np.int8)
    references = rng.integers(-127, 128, (2500, dim)).astype(np.int8)
    references[500:600] = references[1500:1600] = references[:100]  # ties, within a block and across
    queries[:100] = references[:100]
    q, r = queries.astype(np.int64), references.astype(np.int64)
    exact = (q**2).sum(1)[:, None] + (r**2).sum(1) - 2 * q @ r.T
    order = np.argsort(exact, axis=1, kind="stable")[:, :2]
    first, second, d1, d2 = nearest_two(queries, references)
    np.testing.assert_array_equal(np.stack([first, second], 1), order)
    np.testing.assert_array_equal(np.stack([d1, d2], 1), np.take_along_axis(exact, order, 1))


def unit(angle):
    """A descriptor at an angle (degrees) in a plane."""
    v = np.zeros(32)
    v[0], v[1] = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.rint(v * 127).astype(np.int8)


def test_the_ratio_test_applies_only_between_different_landmarks():
    # Both images see landmark 0 at almost the same descriptor; landmark 1 is far away.
    same = toy_map([[0], [0, 1]], [np.stack([unit(0)]), np.stack([unit(1), unit(90)])])
    assert match_in(query([unit(0.4)]), same, [0, 1]).landmarks.tolist() == [0]
    # The same two descriptors, now of different landmarks: ambiguous.
    different = toy_map([[0], [1, 2]], [np.stack([unit(0)]), np.stack([unit(1), unit(90)])])
    assert len(match_in(query([unit(0.4)]), different, [0, 1])) == 0


def test_the_ratio_is_of_distances():
    m = toy_map([[0, 1]], [np.stack([unit(0), unit(60)])])
    angles = np.array([20, 25, 28, 30])  # not at 29, where rounding decides
    chord = 2 * np.sin(np.radians(angles) / 2)
    other = 2 * np.sin(np.radians(60 - angles) / 2)
    for angle, near, far in zip(angles, chord, other, strict=True):
        assert (len(match_in(query([unit(angle)]), m, [0])) == 1) == (near < RATIO_PERCENT / 100 * far), angle


def test_a_landmark_keeps_its_nearest_keypoint():
    m = toy_map([[0, 1]], [np.stack([unit(0), unit(90)])])
    found = match_in(query([unit(10), unit(3), unit(3), unit(88)]), m, [0])
    assert found.keypoints.tolist() == [1, 3] and found.landmarks.tolist() == [0, 1]


def test_matching_needs_something_to_match():
    m = toy_map([[0, 1], []], [np.stack([unit(0), unit(90)]), np.zeros((0, 32), np.int8)])
    assert len(match_in(query(np.zeros((0, 32))), m, [0])) == 0
    assert len(match_in(query([unit(0)]), m, [1])) == 0


def test_matches_carry_the_positions_of_what_they_name():
    p = place()
    m = p.map()
    features = p.features(p.poses[3], noise=0)
    found = match_in(features, m, range(12))
    assert len(found) > 300
    np.testing.assert_array_equal(found.xy, features.keypoints[found.keypoints])
    np.testing.assert_allclose(found.xyz + m.origin, p.landmarks[found.landmarks], atol=1e-4)  # 10 m / 65535 / 2
