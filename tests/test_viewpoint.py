"""`benchmarks/viewpoint.py`: angles and scales between views, and the bins of pairs."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from viewpoint import BINS, LEAST_SHARED, Views, in_turns

WALL = np.array([0, 0, 4]) + np.random.default_rng(0).uniform(-0.01, 0.01, (LEAST_SHARED, 3))


def views(*centers, seen=None) -> Views:
    all_ = np.ones((len(centers), len(WALL)), bool)
    return Views.of(np.array(centers, float), WALL, all_ if seen is None else seen)


def test_angles_are_between_rays_and_scales_between_distances():
    found = views((0, 0, 0), (4, 0, 4), (0, 0, 2))
    assert found.angle[0, 1] == pytest.approx(90, abs=0.5) and found.scale[0, 1] == pytest.approx(1, abs=0.01)
    assert found.angle[0, 2] == pytest.approx(0, abs=0.5) and found.scale[0, 2] == pytest.approx(2, abs=0.01)
    assert found.scale[2, 0] == pytest.approx(0.5, abs=0.01) and found.magnification[2, 0] == pytest.approx(2, abs=0.01)


def test_images_that_share_too_little_are_in_no_bin():
    seen = np.ones((2, len(WALL)), bool)
    seen[1, 0] = False
    found = views((0, 0, 0), (0.2, 0, 0), seen=seen)
    assert np.isnan(found.angle).all() and not any(bin_.holds(found).any() for bin_ in BINS)


def test_a_pair_is_in_one_bin_of_each_kind_at_most():
    found = views((0, 0, 0), (0.2, 0, 0), (1, 0, 0), (2.5, 0, 1), (0, 0, 1.5), (0, 0, 2.5))
    by_angle, by_scale = (sum(b.holds(found).astype(int) for b in BINS if b.by_scale is kind) for kind in (False, True))
    assert by_angle.max() == by_scale.max() == 1
    assert BINS[1].holds(found)[0, 2] and BINS[3].holds(found)[0, 3]  # 14 and 40 degrees
    assert by_angle[0, 4] == 0 and by_scale[0, 4] == 1  # 1.6 times as far


def test_what_is_nearer_than_the_reference_image_is_left_out():
    found = views((0, 0, 0), (0.5, 0, 0), (-1, 0, 0), (2.2, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, -8))
    assert np.flatnonzero(BINS[1].no_nearer(found, 0, 2)).tolist() == [2, 3]
    assert np.flatnonzero(BINS[-2].no_nearer(found, 0, 4)).tolist() == [4, 5]  # not the one from farther away


def test_keys_take_turns():
    assert in_turns("abcdef", "xxxyyz") == ["a", "d", "f", "b", "e", "c"]
