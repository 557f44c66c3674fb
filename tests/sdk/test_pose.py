import numpy as np
import pytest

import hfnet_edge.pose as pose_module
from hfnet_edge.geometry import Camera
from hfnet_edge.matching import Match2D3D
from hfnet_edge.pose import PoseConfig, estimate_pose
from synthetic import CAMERA, looking_at

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
    return truth, wrong, Match2D3D(index, index, xy, xyz)


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


def test_wrong_matches_never_reach_the_acceptance_threshold(solver):
    for seed in range(5):
        _, _, matches = made_matches(count=600, outliers=1.0, seed=seed)
        estimate = estimate_pose(matches, CAMERA, 8.0, PoseConfig(solver=solver))
        assert estimate is None or estimate.inliers.sum() < PoseConfig(solver=solver).min_inliers


def test_an_option_that_poselib_does_not_know_is_not_ignored(monkeypatch):
    poselib = pytest.importorskip("poselib")

    class OldPoseLib:
        RansacOptions = staticmethod(lambda: {k: v for k, v in poselib.RansacOptions().items() if k != "seed"})
        BundleOptions = poselib.BundleOptions
        estimate_absolute_pose = poselib.estimate_absolute_pose

    monkeypatch.setattr(pose_module, "poselib", OldPoseLib)
    with pytest.raises(TypeError, match="seed"):
        estimate_pose(made_matches()[2], CAMERA, 8.0, PoseConfig())
