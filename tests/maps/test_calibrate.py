"""Probabilities are calibrated by left-out reference images: the fit by itself, and in a packed map."""

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.map.calibration import LOGIT, MAX_OFFSET, UNIT, Calibration
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_maps.content import content_of
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.calibrate import (
    BORDERLINE,
    PRIOR,
    TOLERANCES,
    Trial,
    calibrate,
    calibration_of,
    elsewhere,
    fit,
    scattered,
    try_out,
)
from hfnet_maps.pack.folds import folds_of
from hfnet_maps.pack.writer import full_sections, size_of, to_map
from synthetic import place


def posterior(points, hit, weights, slope, offset):
    """Minus its logarithm, straight from its definition."""
    right = 1 / (1 + np.exp(-(points / LOGIT * slope + offset)))
    likelihood = (weights * np.log(np.where(hit, right, 1 - right))).sum()
    return 0.5 * (((slope - 1) / PRIOR[0]) ** 2 + (offset / PRIOR[1]) ** 2) - likelihood


def drawn(count, slope, offset, seed=0):
    """Points, and hits as probable as they are once moved."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-6 * LOGIT, 6 * LOGIT, count).astype(np.int64)
    return points, rng.random(count) < 1 / (1 + np.exp(-(slope * points / LOGIT + offset)))


# --- the fit


def test_nothing_to_learn_from_moves_nothing():
    assert fit(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0)) == (UNIT, 0)
    assert calibration_of([]) == Calibration()


@pytest.mark.parametrize(("slope", "offset"), [(1.0, 0.0), (0.6, 1.5), (1.5, -2.0)])
def test_many_images_say_what_points_are_worth(slope, offset):
    points, hit = drawn(20_000, slope, offset)
    found = fit(points, hit, np.ones(len(points)))
    assert found[0] / UNIT == pytest.approx(slope, abs=0.05) and found[1] / LOGIT == pytest.approx(offset, abs=0.1)


def test_few_images_move_points_less_than_many():
    points, hit = np.full(200, -LOGIT), np.ones(200, bool)
    moved = [abs(Calibration(*fit(points[:n], hit[:n], np.ones(n))).right(-LOGIT) + LOGIT) for n in (1, 5, 25, 200)]
    assert moved == sorted(moved) and moved[0] < 0.4 * LOGIT and moved[-1] > 2 * LOGIT


@pytest.mark.parametrize(
    ("points", "hit"),
    [
        (drawn(40, 0.5, 1.0)),
        (np.full(3, 14 * LOGIT), np.zeros(3, bool)),  # sure, and always wrong
        (np.full(3, -14 * LOGIT), np.ones(3, bool)),
        (np.array([9000, 10_000, -9000, -12_000]), np.array([True, True, False, False])),  # as it should be
    ],
)
def test_the_fit_is_the_posteriors_maximum(points, hit):
    weights = np.linspace(0.5, 1.5, len(points))
    slope, offset = (value / unit for value, unit in zip(fit(points, hit, weights), (UNIT, LOGIT), strict=True))
    best = posterior(points, hit, weights, slope, offset)
    for s, o in ((0.01, 0), (-0.01, 0), (0, 0.02), (0, -0.02)):
        assert posterior(points, hit, weights, slope + s, offset + o) > best - 1e-4


def test_what_is_fitted_can_be_written():
    wrong = [Trial(i, False, 9.0, 14 * LOGIT, np.zeros(6, np.int64), np.zeros(6, bool)) for i in range(10_000)]
    fitted = calibration_of(wrong)
    assert Calibration.from_bytes(fitted.to_bytes()) == fitted
    assert 1 <= fitted.right_slope < UNIT and -MAX_OFFSET <= fitted.right_offset < 0


def test_poses_that_are_neither_right_nor_wrong_say_nothing_of_being_right():
    between = Trial(0, False, (1 + BORDERLINE) / 2, 5 * LOGIT, np.full(6, -3 * LOGIT), np.ones(6, bool))
    fitted = calibration_of([between] * 20)
    assert (fitted.right_slope, fitted.right_offset) == (UNIT, 0)
    assert fitted.precise(-3 * LOGIT) > -3 * LOGIT  # of being near enough they do


# --- left-out images


@pytest.fixture(scope="module")
def source():
    return place(landmarks=400, images=6).source(noise=0.5)


def test_sabotage_leaves_a_query_that_is_one(source):
    features = source.features(0)
    assert (elsewhere(features).global_descriptor == -features.global_descriptor).all()
    thrown = scattered(features)
    assert sorted(map(tuple, thrown.keypoints)) == sorted(map(tuple, features.keypoints))
    assert (thrown.keypoints != features.keypoints).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(thrown.descriptors, features.descriptors)


def test_a_left_out_image_is_right_and_sabotaged_wrong(source):
    rest, (query, *_) = folds_of(source)[0]
    trials = [*try_out(to_map(full_sections(rest)), query, 7, LocalizationConfig())]
    plain, *sabotaged = trials
    assert plain.error < 0.1 and not plain.sabotaged and {trial.image for trial in trials} == {7}
    assert all(trial.sabotaged and trial.error > BORDERLINE and trial.right < plain.right for trial in sabotaged)
    assert plain.within[-1] and (np.diff(plain.within.astype(int)) >= 0).all()
    assert len(plain.precise) == len(TOLERANCES) and (np.diff(plain.precise) >= 0).all()


def test_an_image_that_observes_nothing_is_no_query(source):
    rest, (query, *_) = folds_of(source)[0]
    nothing = replace(query, depth=float("nan"))
    found = calibrate([(to_map(full_sections(rest)), [nothing])], 1, LocalizationConfig())
    assert found.calibration == Calibration(images=1) and found.after.answers == 0


def test_a_packed_map_is_calibrated_and_stays_so(source):
    sections, choices = choose(source, 14_000)
    m = LocalizationMap.read(bytes(to_map(sections).file.data))
    m.check_all()
    assert len(m.file.data) == size_of(sections) == choices[0].size <= 14_000
    assert bytes(m.file.data[8:12]) == b"\2\0\2\0"  # version 2.2
    told = choices[0].calibrated
    assert m.calibration == told.calibration and m.calibration.images == len(source.names)
    assert told.after.queries == len(source.names) * len(TOLERANCES) and told.right == len(source.names)
    again, _ = choose(content_of(m), 12_000)
    assert again[Section.CALIBRATION] == sections[Section.CALIBRATION]


def test_what_nothing_was_left_out_of_is_not_calibrated(source):
    assert Section.CALIBRATION not in full_sections(source)
    bare, _ = choose(source.without_keypoints().encoded(), 14_000)
    few, _ = choose(place(landmarks=100, images=2).source(), 14_000)
    assert Section.CALIBRATION not in bare and Section.CALIBRATION not in few
