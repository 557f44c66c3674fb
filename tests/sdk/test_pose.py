from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import localize_features, localize_query
from hfnet_edge.methods.method import Candidates, LocalizationConfig, Method, Query
from hfnet_edge.pose import solvers
from hfnet_edge.pose.estimate import estimate_pose
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.result import Status
from hfnet_maps.pack.writer import lay_out, to_map
from synthetic import CAMERA, looking_at, place

CAMERAS = [CAMERA, Camera("OPENCV", 640, 480, (500, 505, 321, 239, -0.08, 0.02, 0.001, -0.001))]


@pytest.fixture(params=["poselib", "usac"])
def solver(request):
    if request.param == "poselib":
        pytest.importorskip("poselib")
    return request.param


def made_matches(count=400, outliers=0.5, noise=1.0, camera=CAMERA, seed=0):
    rng = np.random.default_rng(seed)
    truth = looking_at(np.array([15.0, 3.0, 1.0]), np.zeros(3))
    xyz = rng.uniform(-4, 4, (count, 3))
    xy = camera.project(truth.transform(xyz)) + rng.normal(0, noise, (count, 2))
    wrong = rng.random(count) < outliers
    xy[wrong] = rng.uniform(0, (640, 480), (wrong.sum(), 2))
    index = np.arange(count)
    return truth, wrong, Match2D3D(xy, xyz, index, index)


class Given(Method):
    """A method of points alone, as scene coordinates are: no keypoints, no landmarks, no second look."""

    search_stages = ()
    places: tuple[Match2D3D, ...]

    def candidates(self, query, clock):
        return Candidates([Match2D3D(one.xy, one.xyz) for one in self.places])


@cache
def small_map():
    return place(landmarks=20, images=3, offset=(0, 0, 0)).map()


def result_of(*places, camera=CAMERA, **config):
    """What the pipeline says of the matches of places."""
    method = Given(small_map(), None, LocalizationConfig(Given, pose=PoseConfig(**config)))
    method.places = places
    return localize_query(method, Query(1.0), camera)


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)
@pytest.mark.parametrize("outliers", [0.0, 0.5, 0.8])
def test_the_pose_is_found_among_outliers(solver, camera, outliers):
    truth, wrong, matches = made_matches(outliers=outliers, camera=camera)
    estimate = estimate_pose(matches, camera, 8.0, PoseConfig(solver=solver))
    assert np.linalg.norm(estimate.pose.center - truth.center) < 0.06
    assert (estimate.inliers == ~wrong).mean() > 0.97


def test_the_same_matches_give_the_same_pose(solver):
    _, _, matches = made_matches(outliers=0.7)
    a, b = (estimate_pose(matches, CAMERA, 8.0, PoseConfig(solver=solver)) for _ in range(2))
    np.testing.assert_array_equal(a.pose.quaternion, b.pose.quaternion)
    np.testing.assert_array_equal(a.pose.translation, b.pose.translation)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_three_matches_prove_nothing(solver, count):
    _, _, matches = made_matches(count=count, outliers=0)
    assert estimate_pose(matches, CAMERA, 8.0, PoseConfig(solver=solver)) is None


def test_wrong_matches_give_no_pose(solver):
    for seed in range(5):
        _, _, matches = made_matches(count=600, outliers=1.0, seed=seed)
        assert result_of(matches, solver=solver).pose is None


def test_an_option_that_poselib_does_not_know_is_not_ignored(monkeypatch):
    poselib = pytest.importorskip("poselib")

    class OldPoseLib:
        RansacOptions = staticmethod(lambda: {k: v for k, v in poselib.RansacOptions().items() if k != "seed"})
        BundleOptions = poselib.BundleOptions
        estimate_absolute_pose = poselib.estimate_absolute_pose

    monkeypatch.setattr(solvers, "poselib", OldPoseLib)
    with pytest.raises(TypeError, match="seed"):
        estimate_pose(made_matches()[2], CAMERA, 8.0, PoseConfig())


def matches_of(xyz, camera=CAMERA, outliers=0, noise=0.7, seed=0):
    """Of landmarks with noisy keypoints, and of ``outliers`` besides."""
    rng = np.random.default_rng(seed)
    truth = looking_at(np.array([15.0, 3.0, 1.0]), np.zeros(3))
    xy = camera.project(truth.transform(xyz)) + rng.normal(0, noise, (len(xyz), 2))
    xy = np.vstack([xy, rng.uniform(0, (640, 480), (outliers, 2))])
    xyz = np.vstack([xyz, rng.uniform(-4, 4, (outliers, 3))])
    index = np.arange(len(xyz))
    return truth, Match2D3D(xy, xyz, index, index)


@pytest.mark.parametrize("exponent", [-9, -7, -3, 0, 3, 6, 9])
def test_every_unit_of_length_gives_the_same_pose(solver, exponent):
    for seed in range(3):
        truth, _, matches = made_matches(outliers=0.6, seed=seed)
        scaled = replace(matches, xyz=matches.xyz * 10.0**exponent)
        one, other = (estimate_pose(m, CAMERA, 8.0, PoseConfig(solver=solver)) for m in (matches, scaled))
        center = other.pose.center / 10.0**exponent
        assert np.linalg.norm(center - truth.center) < 0.06
        np.testing.assert_allclose(center, one.pose.center, atol=2e-3)
        np.testing.assert_array_equal(other.inliers, one.inliers)


def line(rng, count):
    return rng.uniform(-4, 4, (count, 1)) * [0.3, 0.8, 0.5] + [0.5, -0.3, 0.2]


def nearly_a_line(rng, count):
    """1 cm off, a third of a pixel."""
    return line(rng, count) + rng.normal(0, 0.01, (count, 3))


def point(rng, count):
    return np.tile([0.5, -0.3, 0.2], (count, 1))


def three_points(rng, count):
    return np.array([[0, -3, 2], [1, 3, 2], [-2, 0, -3.0]])[np.arange(count) % 3]


def plane_through_the_camera(rng, count):
    """Seen edge-on, as a floor on which the camera lies."""
    far = rng.uniform([-6, -4], [4, 4], (count, 2))
    return np.stack([far[:, 0], far[:, 1], 1 / 5 * far[:, 1] + (far[:, 0] - 15) * 0.05 + 0.4], axis=1)


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda c: c.model)
@pytest.mark.parametrize("shape", [line, nearly_a_line, point, three_points, plane_through_the_camera])
def test_landmarks_that_do_not_hold_a_camera_give_no_pose(solver, shape, camera):
    for count, outliers, exponent in [(12, 0, 0), (12, 0, -9), (60, 0, 0), (100, 300, 0), (100, 1500, 3)]:
        for seed in range(2):
            _, matches = matches_of(shape(np.random.default_rng(seed), count), camera, outliers, seed=seed)
            matches = replace(matches, xyz=matches.xyz * 10.0**exponent)
            result = result_of(matches, camera=camera, solver=solver)
            assert result.pose is None and result.probability == 0, (count, outliers, exponent)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [line, point, three_points, plane_through_the_camera])
@pytest.mark.parametrize(("unit", "away"), [(1e-4, 0), (1, 1e6), (1e6, 1e6)])
def test_what_is_refused_has_finite_evidence(shape, unit, away):
    """Of degenerate landmarks in every unit, and far from the origin: with focal length given, and sought."""
    _, matches = matches_of(shape(np.random.default_rng(0), 40), outliers=20)
    matches = replace(matches, xyz=matches.xyz * unit + away)
    for seek in (False, True):
        method = Given(small_map(), None, LocalizationConfig(Given, pose=PoseConfig(iterations=200), refine_focal=seek))
        method.places = (matches,)
        result = localize_query(method, Query(1.0), CAMERA)
        assert result.pose is None and result.probability <= 0.5 <= result.wrong
        if result.evidence is not None:
            assert np.isfinite(list(vars(result.evidence).values())).all()
            assert result.covariance is None or np.isfinite(result.covariance).all()


def facade(rng, count):
    return rng.uniform(-4, 4, (count, 3)) * [0, 1, 1]


def edge_and_some(rng, count):
    """Four in five along an edge, the others beside it."""
    xyz = rng.uniform(-4, 4, (count, 3))
    xyz[: count * 4 // 5] = line(rng, count * 4 // 5)
    return xyz


def narrow(rng, count):
    """A column: 1 m, 33 pixels wide."""
    return rng.uniform(-1, 1, (count, 3)) * [0.5, 0.5, 4]


@pytest.mark.parametrize(("shape", "error"), [(facade, 0.15), (edge_and_some, 0.1), (narrow, 0.6)])
def test_landmarks_that_hold_a_camera_give_its_pose(solver, shape, error):
    for outliers in (0, 150):
        for seed in range(3):
            truth, matches = matches_of(shape(np.random.default_rng(seed), 150), outliers=outliers, seed=seed)
            estimate = estimate_pose(matches, CAMERA, 8.0, PoseConfig(solver=solver))
            assert np.linalg.norm(estimate.pose.center - truth.center) < error
            assert estimate.inliers[:150].mean() > 0.95


def test_a_query_of_one_line_is_rejected(solver):
    p = place()
    source = p.source()
    seen = replace(source, positions=source.positions * [1, 0, 0] + [0, -2000.0, 50])
    m = to_map(lay_out(seen))
    features = Features(
        CAMERA.project(p.poses[0].transform(seen.positions)), np.ones(600, np.float32), quantize(p.descriptors),
        p.globals_[0], 1.0,
    )  # fmt: skip
    config = LocalizationConfig(pose=PoseConfig(solver=solver, iterations=1000))
    result = localize_features(m, features, CAMERA, config)
    assert result.pose is None and len(result.matches) > 400
    assert result.probability == 0 and result.wrong == 1
    assert result.status is not Status.LOCALIZED


def test_a_place_on_a_line_does_not_hide_the_right_one():
    truth, matches = matches_of(facade(np.random.default_rng(0), 60))
    _, on_a_line = matches_of(nearly_a_line(np.random.default_rng(0), 200))
    result = result_of(on_a_line, matches)
    assert result.status is Status.LOCALIZED
    assert np.linalg.norm(result.pose.center - small_map().origin - truth.center) < 0.3
