"""Images are parted by covisibility."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfnet_maps.build.partition import halo, partition


def chain(count):
    """Image i shares with the next one, and less with the one after."""
    pairs = [(i, i + 1) for i in range(count - 1)] + [(i, i + 2) for i in range(count - 2)]
    return np.array(pairs, np.int64).reshape(-1, 2), np.array([10] * (count - 1) + [3] * max(0, count - 2), np.int64)


def test_a_walk_is_cut_into_stretches():
    pairs, weights = chain(100)
    labels = partition(100, pairs, weights, 20)
    assert len(np.unique(labels)) == 5
    assert np.bincount(labels).min() >= 15 and np.bincount(labels).max() <= 25
    assert (np.diff(labels) != 0).sum() == 4  # each part is one stretch
    assert labels[0] == 0 and (np.diff([np.flatnonzero(labels == part)[0] for part in range(5)]) > 0).all()


def test_weak_links_are_cut():
    """Two rooms of 10 images and a door between."""
    room = [(i, j) for i in range(10) for j in range(i)]
    pairs = np.array([*room, *((a + 10, b + 10) for a, b in room), (9, 10)], np.int64)
    labels = partition(20, pairs, np.array([50] * 90 + [1], np.int64), 10)
    assert labels.tolist() == [0] * 10 + [1] * 10


def test_what_shares_nothing_is_not_parted():
    """Groups of 6, 4 and 6 connected images and four that are alone, in parts of 10."""
    groups = [range(0, 6), range(6, 10), range(10, 16)]
    pairs = np.array([(g[i], g[i + 1]) for g in groups for i in range(len(g) - 1)], np.int64)
    labels = partition(20, pairs, np.ones(len(pairs), np.int64), 10)
    assert all(len({int(labels[i]) for i in group}) == 1 for group in groups)
    assert np.bincount(labels).tolist() == [10, 10]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_small_place_is_one_part(count):
    pairs, weights = chain(count)
    assert partition(count, pairs, weights, 7).tolist() == [0] * count


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_any_graph(count, size, seed):
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.sort(rng.integers(0, count, (rng.integers(0, 3 * count), 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    weights = rng.integers(1, 1 << 40, len(pairs))
    labels = partition(count, pairs, weights, size)
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert np.array_equal(labels, partition(count, pairs, weights, size))
    assert np.bincount(labels).max() <= 2 * size + 1
    for part, around in enumerate(halo(labels, pairs, weights, 4)):
        beside = {int(b) for p in (pairs, pairs[:, ::-1]) for a, b in p if labels[a] == part != labels[b]}
        assert set(around.tolist()) <= beside and len(around) == min(4, len(beside))
        assert np.array_equal(around, np.unique(around))


def test_the_halo_is_what_shares_most():
    labels = np.array([0, 0, 1, 1, 1])
    pairs = np.array([[0, 2], [1, 2], [1, 3], [0, 4], [3, 4]])
    around = halo(labels, pairs, np.array([2, 2, 3, 5, 9]), 2)
    assert [a.tolist() for a in around] == [[2, 4], [0, 1]]
