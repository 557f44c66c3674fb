"""The second look: what is found again near where landmarks fall, against plain loops."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.methods.matching import match
from hfnet_edge.pose.estimate import refine_again
from hfnet_edge.pose.refinement import refine, retract, with_covariance
from hfnet_edge.trust.evidence import near_count
from hfnet_edge.trust.second_look import (
    VIEWS,
    Landmarks,
    guided_matches,
    look_again,
    nearest_views,
    pairs_within,
    without_second_look,
)
from synthetic import CAMERA, looking_at, place

MAX_ERROR = 8.0
TRUTH = looking_at(np.array([13.0, 4.0, 2.0]), np.zeros(3))


@cache
def here():
    p = place(offset=(0, 0, 0))
    return p, p.map()


def relative(pose, map_):
    """The pose among points relative to the map's origin."""
    return replace(pose, translation=pose.translation + pose.rotation @ map_.origin)


@pytest.fixture
def query():
    p, _ = here()
    return replace(p, rng=np.random.default_rng(5)).features(TRUTH, noise=1.0, outliers=300)


def pairs_by_loop(a, b, radius):
    return {(i, j) for i in range(len(a)) for j in range(len(b)) if ((a[i] - b[j]) ** 2).sum() < radius * radius}


@pytest.mark.parametrize("radius", [0.5, 8.0, 200.0, 5000.0])
@pytest.mark.parametrize(("first", "second"), [(60, 80), (1, 50), (50, 1), (0, 5), (5, 0)])
def test_pairs_within_is_brute_force(first, second, radius):
    rng = np.random.default_rng(first + second)
    a, b = rng.uniform(-50, 690, (first, 2)), rng.uniform(0, (640, 480), (second, 2))
    b[: min(first, second)][::3] = a[: min(first, second)][::3] + rng.normal(0, 0.3, a[: min(first, second)][::3].shape)
    rows, found = pairs_within(a, b, radius)
    pairs = list(zip(rows.tolist(), found.tolist(), strict=True))
    assert len(pairs) == len(set(pairs)) and set(pairs) == pairs_by_loop(a, b, radius)


def test_pairs_within_are_nearer_than_the_radius():
    """Not at it; and on the cells' edges none is lost."""
    grid = np.stack(np.meshgrid(np.arange(-3, 4), np.arange(-3, 4)), axis=-1).reshape(-1, 2) * 4.0
    for radius in (4.0, 8.0, 4.0 * 2**0.5, np.nextafter(4.0, 5)):
        rows, found = pairs_within(grid, grid, radius)
        assert set(zip(rows.tolist(), found.tolist(), strict=True)) == pairs_by_loop(grid, grid, radius)
    rows, _ = pairs_within(np.zeros((1, 2)), np.array([[4.0, 0], [0, np.nextafter(4, 0)]]), 4.0)
    assert len(rows) == 1


def guided_by_loop(features, pose, landmarks, described, window):
    """(keypoint, landmark, squared distance), as the docstrings have it."""
    xy = CAMERA.project(pose.transform(landmarks.positions))
    inside = [i for i, p in enumerate(xy) if (p > 0).all() and p[0] < CAMERA.width and p[1] < CAMERA.height]
    best = {}
    for i in inside:
        likeliest = None
        for k, keypoint in enumerate(features.keypoints):
            if ((keypoint - xy[i]) ** 2).sum() < window**2:
                rows = landmarks.descriptors[landmarks.owners == i].astype(int)
                distance = int(((rows - described[k].astype(int)) ** 2).sum(axis=1).min())
                if likeliest is None or (distance, k) < likeliest:
                    likeliest = distance, k
        if likeliest is not None:
            distance, k = likeliest
            if k not in best or (distance, i) < best[k]:
                best[k] = distance, i
    return [(k, int(landmarks.ids[i]), distance) for k, (distance, i) in sorted(best.items())], len(inside)


@pytest.mark.parametrize("ties", [False, True])
def test_guided_matches_are_those_of_a_double_loop(query, ties):
    _, m = here()
    few = query.keypoints[:, 0] < 250
    query = replace(query, keypoints=query.keypoints[few], descriptors=query.descriptors[few], scores=query.scores[few])
    if ties:  # of three kinds of descriptor all
        query = replace(query, descriptors=query.descriptors[np.arange(len(query.descriptors)) % 3])
    pose = relative(retract(TRUTH, np.full(6, 0.01)), m)
    landmarks = Landmarks.of(m, np.arange(0, m.landmark_count, 2))
    if ties:
        landmarks = replace(landmarks, descriptors=landmarks.descriptors[np.arange(len(landmarks.owners)) % 2])
    window = 40.0
    found, distances, expected = guided_matches(m, query, CAMERA, pose, landmarks, window)
    by_loop, inside = guided_by_loop(query, pose, landmarks, m.codec.query(query.descriptors), window)
    assert len(by_loop) > 30 and len(expected) == inside
    assert list(zip(found.keypoints.tolist(), found.landmarks.tolist(), distances.tolist(), strict=True)) == by_loop
    np.testing.assert_array_equal(found.xy, query.keypoints[found.keypoints])
    np.testing.assert_allclose(found.xyz, m.positions(found.landmarks))


def test_nothing_in_view_is_no_match(query):
    _, m = here()
    landmarks = Landmarks.of(m, np.arange(m.landmark_count))
    away = relative(looking_at(np.array([13.0, 4.0, 2.0]), np.array([100.0, 4.0, 2.0])), m)
    found, distances, expected = guided_matches(m, query, CAMERA, away, landmarks, MAX_ERROR)
    assert len(found) == len(distances) == len(expected) == 0


def test_taken_landmarks_keep_their_descriptors():
    _, m = here()
    landmarks = Landmarks.of(m, np.arange(0, m.landmark_count, 3))
    rows = np.random.default_rng(0).random(len(landmarks.ids)) < 0.4
    some, direct = landmarks.take(rows), Landmarks.of(m, landmarks.ids[rows])
    for one, other in zip(vars(some).values(), vars(direct).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def found_with(query, few):
    """A pose refined on ``few`` right matches in one corner of the image, among 60 wrong ones; and these matches."""
    _, m = here()
    every = match(query, m, np.arange(m.landmark_count))
    truth = relative(TRUTH, m)
    off = np.linalg.norm(CAMERA.project(truth.transform(every.xyz)) - every.xy, axis=1)
    right, wrong = off < 4, off > 40
    order = np.argsort(every.xy.sum(axis=1), kind="stable")
    kept = np.sort(np.concatenate([order[right[order]][:few], np.flatnonzero(wrong)[:60]]))
    return refine(truth, every.take(kept), CAMERA, MAX_ERROR), every.take(kept)


def look(query, first, matches):
    return look_again(here()[1], query, CAMERA, matches, first, MAX_ERROR)


def test_a_pose_of_few_inliers_gains_those_of_the_whole_image(query):
    first, matches = found_with(query, 12)
    assert first.inliers.sum() < 20
    seen = look(query, first, matches)
    again = refine_again(first.pose, seen.matches, CAMERA, MAX_ERROR)
    _, m = here()
    truth = relative(TRUTH, m)
    assert again.inliers.sum() > 5 * first.inliers.sum()
    assert np.linalg.norm(again.pose.center - truth.center) < 0.5 * np.linalg.norm(first.pose.center - truth.center)
    std, first_std = (
        with_covariance(one, on, CAMERA).position_std for one, on in ((again, seen.matches), (first, matches))
    )
    assert std < 0.5 * first_std
    assert len(np.unique(seen.matches.keypoints)) == len(np.unique(seen.matches.landmarks)) == len(seen.matches)
    spread = seen.matches.xy[again.inliers].std(axis=0)
    assert (spread > 2 * matches.xy[first.inliers].std(axis=0)).all()


def test_a_wrong_pose_gains_none(query):
    """A pose that a dozen matches agree on, elsewhere in the place: what chance puts near its landmarks is all."""
    _, m = here()
    gained, near = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        wrong = relative(looking_at(rng.normal([-9, 9, 2], 1), np.zeros(3)), m)
        in_view = np.flatnonzero(np.isfinite(CAMERA.project(wrong.transform(m.positions(np.arange(600))))).all(axis=1))
        landmarks = np.sort(rng.choice(in_view, 12, replace=False))
        keypoints = np.sort(rng.choice(len(query.keypoints), 12, replace=False))
        xyz = m.positions(landmarks)
        matches = Match2D3D(CAMERA.project(wrong.transform(xyz)), xyz, keypoints, landmarks)
        first = refine(wrong, matches, CAMERA, MAX_ERROR)
        seen = look(query, first, matches)
        again = refine_again(first.pose, seen.matches, CAMERA, MAX_ERROR)
        gained.append(int(again.inliers.sum()) - 12)
        near.append(near_count(refine_again(first.pose, seen.guided, CAMERA, MAX_ERROR).errors, MAX_ERROR))
    first, matches = found_with(query, 12)
    seen = look(query, first, matches)
    right = near_count(refine_again(first.pose, seen.guided, CAMERA, MAX_ERROR).errors, MAX_ERROR)
    assert max(near) < 0.15 * right and max(gained) < 0.3 * right, (near, gained, right)


def test_it_is_the_same_every_time(query):
    first, matches = found_with(query, 12)
    a, b = (look(query, first, matches) for _ in range(2))
    for one, other in ((a.matches, b.matches), (a.guided, b.guided)):
        for x, y in zip(vars(one).values(), vars(other).values(), strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(a.distances, b.distances)


def test_the_nearest_views_see_most_nearly_the_same():
    p, m = here()
    for i, pose in enumerate(p.poses):
        views, remote = nearest_views(m, relative(pose, m), 15.0)
        assert views[0] == i and remote < 1e-6 and len(views) == min(VIEWS, len(p.poses))
    between = looking_at(15 * np.array([np.cos(np.pi / 12), np.sin(np.pi / 12), 0.1]), np.zeros(3))
    views, remote = nearest_views(m, relative(between, m), 15.0)
    assert set(views[:2].tolist()) == {0, 1} and 0.4 < remote < 0.7  # 15 degrees, twice: moved and turned


def test_without_features_the_matches_are_all_that_was_expected(query):
    _, matches = found_with(query, 12)
    none = without_second_look(Match2D3D(matches.xy, matches.xyz))
    assert none.matches is none.guided and len(none.expected) == len(none.distances) == len(matches)
    assert none.remote == 0 and len(none.landmarks.ids) == 0
