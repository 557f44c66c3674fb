"""Tolerances, points, verdicts and rivals: what a pose has to show before it is given."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.errors import InputError
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.calibration import LARGEST, UNIT, Calibration
from hfnet_edge.pose.refinement import refine, with_covariance
from hfnet_edge.result import Status
from hfnet_edge.trust.evidence import COHERENT_CELLS, Evidence, cells_of, coherence, near_count
from hfnet_edge.trust.probability import InTolerance, Judge, Table, default_judge, points_of, probability
from hfnet_edge.trust.rivals import alternatives, flip
from hfnet_edge.trust.second_look import Landmarks, guided_matches
from hfnet_edge.trust.tolerance import Tolerance
from hfnet_edge.trust.verdict import decide
from synthetic import CAMERA, Place, looking_at, place

MAX_ERROR = 8.0
BETTER = {"near", "hit", "sharp", "ratio", "cells", "found"}  # the more, the better
WORSE = {
    "likeness", "uneven", "coherence", "position", "rotation", "noise", "remote", "rival", "focal",
    "position_in_tolerance", "rotation_in_tolerance", "focal_in_tolerance",
}  # fmt: skip
GOOD = Evidence(
    near=250, hit=0.4, sharp=0.6, ratio=0.7, likeness=0.4, cells=40, found=0.9, uneven=0.0, coherence=0.01,
    position=0.0005, rotation=0.03, noise=0.07, remote=0.1, rival=0.05, focal=0.0,
)  # fmt: skip
POOR = replace(GOOD, near=9.0, hit=0.01, sharp=0.07, ratio=0.02, likeness=1.0, coherence=0.7, noise=0.6)
PRECISE = InTolerance(0.02, 0.02, 0.0)


def verdict(evidence, in_tolerance=PRECISE, held=True, max_wrong=0.001, calibration=None, judge=None):
    return decide(evidence, in_tolerance, held, max_wrong, calibration or Calibration(), judge)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("0.25,2", Tolerance(0.25, 2.0)),
        (" 0.05 , 0.5 ", Tolerance(0.05, 0.5)),
        ("1%,2", Tolerance(0.01, 2.0, relative=True)),
        ("0.5 %, 180", Tolerance(0.005, 180.0, relative=True)),
        ("1e-3,1e-3", Tolerance(1e-3, 1e-3)),
    ],
)
def test_tolerances_are_read_and_written(text, read):
    assert Tolerance.parse(text) == read == Tolerance.parse(str(read))


@pytest.mark.parametrize(
    "text", ["", "0.25", "0.25,2,3", "a,2", "0,2", "-1,2", "1,0", "1,181", "nan,2", "1,nan", "inf,2", "%,2", "2,1%"]
)
def test_what_is_no_tolerance_is_refused(text):
    with pytest.raises(InputError, match=r"is no tolerance; write"):
        Tolerance.parse(text)


def test_a_relative_tolerance_is_of_the_depth():
    assert Tolerance.parse("1%,2").at(30.0) == (pytest.approx(0.3), 2.0)
    assert Tolerance.parse("0.25,2").at(30.0) == (0.25, 2.0)


def test_the_bundled_tables_run_one_way():
    judge = default_judge()
    assert {t.name for t in judge.right} <= set(vars(GOOD)) and len(judge.right) > 5 and len(judge.precise) > 3
    for table in (*judge.right, *judge.precise):
        assert len(table.points) == len(table.edges) + 1 and list(table.edges) == sorted(set(table.edges)), table.name
        assert all(isinstance(p, int) for p in table.points)
        points = table.points if table.name in BETTER else table.points[::-1]
        assert table.name in BETTER | WORSE and list(points) == sorted(points), table.name


def test_an_edge_belongs_to_the_interval_above_it():
    table = Table("near", (1.0, 5.0), (-10, 0, 20))
    values = (-math.inf, 0.999, 1.0, 4.9, 5.0, math.inf)
    assert [table.of(v) for v in values] == [-10, -10, 0, 0, 20, 20]


def test_points_and_probabilities_are_inverse():
    for p in (1e-5, 0.001, 0.1, 0.5, 0.77, 0.99, 0.999, 1 - 1e-5):
        points = points_of(p)
        assert probability(points) >= p - 1e-6 and probability(points - 1) < p + 1e-6
        assert 1 / (1 + math.exp(-points / 1000)) >= p > 1 / (1 + math.exp(-(points - 1) / 1000))
    values = [probability(points) for points in range(-LARGEST, LARGEST + 1, 500)]
    assert values == sorted(values) and 0 <= values[0] < values[-1] <= 1
    assert probability(0) == 0.5


def test_good_evidence_is_accepted_and_poor_refused():
    good, poor = verdict(GOOD), verdict(POOR)
    assert good.accepted and not good.ambiguous and good.wrong < 0.001 and good.probability > 0.9
    assert not poor.accepted and not poor.ambiguous and poor.wrong > 0.5 and poor.probability < 0.5
    assert verdict(GOOD, InTolerance(9.0, 9.0, 0.0)).probability < 0.6 * good.probability


def test_wrong_is_the_rest_of_right():
    """Both rounded to a millionth, so that devices agree."""
    for evidence in (GOOD, POOR, replace(GOOD, rival=0.8, ratio=0.2)):
        found = verdict(evidence)
        assert found.wrong == round(found.wrong, 6) and 0 <= found.probability <= round(1 - found.wrong, 6)


@pytest.mark.parametrize("change", [{"rival": 1.0}, {"position": 0.3, "rotation": 20.0}, {"cells": 3, "found": 0.1}])
def test_what_only_a_rival_or_freedom_stands_against_is_ambiguous(change):
    """With tables of the test's own, where each of these is enough."""
    right = (
        Table("near", (100.0,), (0, 9000)),
        Table("rival", (0.5,), (3000, -9000)),
        Table("position", (0.1,), (0, -9000)),
        Table("cells", (6.0,), (-9000, 0)),
    )
    judge = Judge(right, (Table("position_in_tolerance", (1.0,), (5000, -5000)),), 0, 0)
    assert verdict(GOOD, judge=judge).accepted
    changed = verdict(replace(GOOD, **change), judge=judge)
    assert not changed.accepted and changed.ambiguous
    without = verdict(replace(GOOD, near=5.0, **change), judge=judge)
    assert not without.accepted and not without.ambiguous


def test_of_two_equals_neither_is_given():
    """Whatever else speaks for a pose, speaks for its equal too."""
    for rival in (0.95, 1.0, 3.0):
        found = verdict(replace(GOOD, rival=rival), calibration=Calibration(right_offset=LARGEST))
        assert not found.accepted and found.ambiguous and found.wrong >= 0.5


def test_what_holds_no_camera_is_never_given():
    loose = verdict(GOOD, held=False)
    assert not loose.accepted and loose.ambiguous and loose.probability == 0 and loose.wrong == 1
    assert not verdict(POOR, held=False).ambiguous


def test_max_wrong_is_what_decides():
    judge = Judge((Table("near", (100.0,), (0, 3000)),), (Table("hit", (0.1,), (0, 1000)),), 0, 0)
    wrong = verdict(GOOD, judge=judge).wrong
    assert wrong == probability(-3000)
    assert verdict(GOOD, max_wrong=wrong * 1.1, judge=judge).accepted
    assert not verdict(GOOD, max_wrong=wrong * 0.9, judge=judge).accepted


def test_a_maps_calibration_moves_the_verdict():
    assert not verdict(GOOD, calibration=Calibration(right_offset=-LARGEST)).accepted
    assert verdict(POOR, calibration=Calibration(right_offset=LARGEST, right_slope=UNIT // 100)).accepted
    less = verdict(GOOD, calibration=Calibration(precise_offset=-8000))
    assert less.accepted and less.probability < verdict(GOOD).probability


def test_chance_is_taken_off_the_near_ones():
    rng = np.random.default_rng(0)
    chance = MAX_ERROR * np.sqrt(rng.random(4000))  # as many on every area
    assert near_count(chance, MAX_ERROR) < 0.02 * len(chance)
    assert near_count(np.r_[chance, np.full(300, 0.5)], MAX_ERROR) == pytest.approx(300, abs=60)
    assert near_count(np.full(5, np.inf), MAX_ERROR) == near_count(np.zeros(0), MAX_ERROR) == 0


def test_cells_are_counted_once():
    xy = np.array([[1, 1], [79, 79], [81, 1], [639.9, 479.9], [1, 81.0]])
    assert len(cells_of(xy, CAMERA, 8)) == 4 and len(cells_of(np.zeros((0, 2)), CAMERA, 8)) == 0


def test_neighbours_that_err_alike_cohere():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, (640, 480), (1500, 2))
    noise = rng.normal(0, 1, (1500, 2))
    cell = np.floor(xy / (640 / COHERENT_CELLS)).astype(int)
    together = rng.normal(0, 2, (COHERENT_CELLS, COHERENT_CELLS, 2))[cell[:, 0], cell[:, 1]]
    assert coherence(xy, noise, CAMERA) < 0.05
    assert coherence(xy, noise + together, CAMERA) == pytest.approx(0.8, abs=0.07)  # 2^2 of 2^2 + 1^2
    assert coherence(xy, np.zeros((1500, 2)), CAMERA) == 0
    assert coherence(xy[:2], noise[:2], CAMERA) == coherence(xy[:0], noise[:0], CAMERA) == 0


def certain(truth, matches):
    return with_covariance(refine(truth, matches, CAMERA, MAX_ERROR), matches, CAMERA)


def plane(side, tilt, distance=9.0, count=60, noise=0.3):
    """A flat square seen at ``distance``, tilted by ``tilt`` degrees; its true pose and its matches."""
    rng = np.random.default_rng(0)
    truth = looking_at(np.array([distance, 0, 0.01]), np.zeros(3))
    a = math.radians(tilt)
    across = rng.uniform(-side / 2, side / 2, (count, 2))
    xyz = across[:, :1] * [math.sin(a), math.cos(a), 0] + across[:, 1:] * [0, 0, 1]
    return truth, Match2D3D(CAMERA.project(truth.transform(xyz)) + rng.normal(0, noise, (count, 2)), xyz)


@pytest.mark.parametrize("tilt", [20, 35])
def test_a_small_flat_support_has_its_flip_found(tilt):
    truth, matches = plane(0.3, tilt)
    refined = certain(truth, matches)
    other = flip(refined, matches, CAMERA, MAX_ERROR)
    angle = np.degrees(np.arccos((np.trace(other.pose.rotation @ refined.pose.rotation.T) - 1) / 2))
    assert angle == pytest.approx(2 * tilt, abs=15)
    assert other.inliers.all() and np.median(other.errors) < 2 * np.median(refined.errors)


def test_what_is_held_or_not_flat_has_no_flip():
    for truth, matches in (plane(6.0, 35, noise=0.3), plane(0.3, 35, noise=0.0, distance=0.6)):
        assert flip(certain(truth, matches), matches, CAMERA, MAX_ERROR) is None
    rng = np.random.default_rng(0)
    truth, xyz = looking_at(np.array([9.0, 0, 0.01]), np.zeros(3)), rng.uniform(-0.2, 0.2, (60, 3))
    matches = Match2D3D(CAMERA.project(truth.transform(xyz)) + rng.normal(0, 1, (60, 2)), xyz)
    assert flip(certain(truth, matches), matches, CAMERA, MAX_ERROR) is None


def twins(shared: float, seed: int = 0) -> Place:
    """Two places far apart that look alike from afar; of the landmarks of one ``shared`` stand in the other too."""
    one = place(seed, landmarks=300, images=5, offset=(0, 0, 0))
    away = np.array([0, 0, 500.0])
    same = one.rng.random(len(one.landmarks)) < shared
    other = place(seed + 100, landmarks=300, images=5, offset=away)
    xyz = np.where(same[:, None], one.landmarks + away, other.landmarks)
    descriptors = np.where(same[:, None], one.descriptors, other.descriptors)
    return Place(
        np.vstack([one.landmarks, xyz]), np.vstack([one.descriptors, descriptors]), [*one.poses, *other.poses],
        np.vstack([one.globals_, one.globals_]), one.rng,
    )  # fmt: skip


def test_what_looks_alike_elsewhere_is_a_rival():
    """Of landmarks that have a twin, the twins are found; without them there are none."""
    p = twins(1.0)
    m = p.map()
    world = looking_at(np.array([13.0, 4.0, 2.0]), np.zeros(3))
    truth, query = replace(world, translation=world.transform(m.origin[None])[0]), p.features(world, noise=0.5)
    own, every = Landmarks.of(m, np.arange(300)), Landmarks.of(m, np.arange(600))
    found, _, _ = guided_matches(m, query, CAMERA, truth, own, MAX_ERROR)
    refined = refine(truth, found, CAMERA, MAX_ERROR)
    other = alternatives(m, query, found, refined, CAMERA, MAX_ERROR, every)
    assert len(other) > 60
    np.testing.assert_array_equal(query.keypoints[other.keypoints], other.xy)
    of = dict(zip(found.keypoints.tolist(), found.landmarks.tolist(), strict=True))
    assert np.mean([of[k] + 300 == i for k, i in zip(other.keypoints, other.landmarks, strict=True)]) > 0.9
    for without in (own, own.take(np.zeros(300, bool))):
        assert alternatives(m, query, found, refined, CAMERA, MAX_ERROR, without).xy.size == 0


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_a_place_with_a_twin_gets_no_wrong_pose(shared):
    for seed in range(2):
        p = twins(shared, seed)
        m = p.map()
        for height in (0.0, 500.0):
            truth = looking_at(np.array([13.0, 4.0, 2.0 + height]), np.array([0, 0, height]))
            result = localize_features(m, p.features(truth, noise=1.0, outliers=100), CAMERA)
            if shared == 1:
                assert result.status is Status.AMBIGUOUS and result.evidence.rival > 0.9 and result.wrong >= 0.5
            elif result.status is Status.LOCALIZED:
                assert np.linalg.norm(result.pose.center - truth.center) < 0.2
            else:
                assert result.status is Status.AMBIGUOUS and shared > 0
            assert shared > 0 or result.status is Status.LOCALIZED
