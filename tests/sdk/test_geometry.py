import numpy as np
import pytest

from hfnet_edge.camera_models import CAMERA_MODELS
from hfnet_edge.errors import CameraError, InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.record.recording_file import pose_from_json
from hfnet_edge.shell.lists import read_poses


def random_pose(rng):
    q = rng.normal(size=4)
    return Pose(q / np.linalg.norm(q), rng.normal(size=3))


def test_a_pose_maps_its_centre_to_the_origin():
    pose = random_pose(np.random.default_rng(0))
    np.testing.assert_allclose(pose.transform(pose.center[None]), np.zeros((1, 3)), atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_quaternions_survive_the_matrix(seed):
    pose = random_pose(np.random.default_rng(seed))
    back = Pose.from_matrix(pose.rotation, pose.translation)
    assert abs(back.quaternion @ pose.quaternion) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_have_no_singularity(axis):
    q = np.zeros(4)
    q[axis + 1] = 1
    back = Pose.from_matrix(Pose(q, np.zeros(3)).rotation, np.zeros(3))
    assert abs(back.quaternion @ q) == pytest.approx(1, abs=1e-12)


def test_rotation_follows_the_wxyz_convention():
    quarter_turn_about_z = Pose(np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)]), np.zeros(3))
    np.testing.assert_allclose(quarter_turn_about_z.transform(np.array([[1.0, 0, 0]])), [[0, 1, 0]], atol=1e-12)


def any_camera(model, seed=1):
    """Of a model, with distortion."""
    rng, about = np.random.default_rng(seed), CAMERA_MODELS[model]
    usual = {"omega": 0.8, "alpha": 0.55, "beta": 1.1}
    bending = [usual.get(name, rng.uniform(-0.02, 0.02)) for name in about.names[about.lengths + 2 :]]
    return Camera(model, 640, 480, (*(500.0, 510.0)[: about.lengths], 322.0, 238.0, *bending))


@pytest.mark.parametrize("model", CAMERA_MODELS)
def test_every_camera_model_is_pycolmaps(model):
    pycolmap = pytest.importorskip("pycolmap")
    camera = any_camera(model)
    theirs = pycolmap.Camera(model=model, width=640, height=480, params=camera.params)
    wide = 1.2 if camera.about.fisheye else 0.6
    rng = np.random.default_rng(1)
    points = np.column_stack([rng.uniform(-wide, wide, (80, 2)), np.ones(80)]) * rng.uniform(1, 3, (80, 1))
    seen = camera.project(points)
    np.testing.assert_allclose(seen, theirs.img_from_cam(points), atol=1e-9)
    rays = camera.rays(seen)
    np.testing.assert_allclose(rays / rays[:, 2:], points / points[:, 2:], atol=1e-8)


def test_every_model_of_pycolmap_is_known_but_the_whole_sphere():
    pycolmap = pytest.importorskip("pycolmap")
    assert pycolmap.CameraModelId.__members__.keys() - {"INVALID", "EQUIRECTANGULAR"} == CAMERA_MODELS.keys()


@pytest.mark.parametrize("model", CAMERA_MODELS)
def test_the_jacobian_is_that_of_the_projection(model):
    camera, rng = any_camera(model), np.random.default_rng(2)
    points = np.column_stack([rng.uniform(-0.8, 0.8, (30, 2)), rng.uniform(1, 3, 30)])
    found = camera.project_jacobian(points)
    for axis, step in enumerate(1e-5 * np.eye(3)):
        by_difference = (camera.project(points + step) - camera.project(points - step)) / 2e-5
        np.testing.assert_allclose(found[:, :, axis], by_difference, rtol=1e-5, atol=1e-4)


def test_points_behind_the_camera_project_to_nan():
    camera = Camera("PINHOLE", 640, 480, (500, 500, 320, 240))
    assert np.isnan(camera.project(np.array([[0.0, 0, -1], [0, 0, 0]]))).all()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("EQUIRECTANGULAR 640 480 640 480", "EQUIRECTANGULAR"),
        ("PINHOLE 640 480 500 320 240", "4 parameters"),
        ("PINHOLE 640 480 nan 500 320 240", "sensible"),
        ("PINHOLE 640 480 -500 500 320 240", "sensible"),
        ("PINHOLE 0 480 500 500 320 240", "0x480"),
        ("PINHOLE 2147483648 480 500 500 320 240", "beyond 1048576"),
        ("PINHOLE 640 480 500 500 1e300 240", "sensible"),
        ("OPENCV 640 480 500 500 320 240 inf 0 0 0", "sensible"),
        ("OPENCV 640 480 500 500 320 240 0 -1e300 0 0", "sensible"),
        ("PINHOLE a b c d e f", "not a camera"),
        ("", "not a camera"),
    ],
)
def test_bad_cameras_are_named(text, word):
    with pytest.raises(CameraError, match=word):
        Camera.parse(text)


def test_sizes_that_no_image_has_are_refused():
    for width in (float("inf"), float("nan"), 10**400, 2**31):
        with pytest.raises(CameraError):
            Camera("PINHOLE", width, 480, (500, 500, 320, 240))


@pytest.mark.parametrize(
    "values",
    [
        [1, 0, 0, 0, 1e300, 0, 0],
        [1e300, 0, 0, 0, 0, 0, 0],
        [1e200, 1e200, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, float("inf")],
        [1, 0, 0, 0, 0, 0],
    ],
)
def test_poses_that_no_place_has_are_refused(values, tmp_path):
    with pytest.raises(ValueError, match=r"numbers|rotation|finite|beyond"):
        Pose.from_values(values)
    (tmp_path / "poses.txt").write_text(f"a.jpg {' '.join(map(str, values))}\n")
    with pytest.raises(InputError, match="line 1"):
        read_poses(tmp_path / "poses.txt")
    with pytest.raises(ValueError):
        pose_from_json(values)


def test_a_pose_is_scaled_to_unit_length():
    pose = Pose.from_values([0, 3, 0, -4, 1, 2, 3])
    np.testing.assert_allclose(pose.quaternion, [0, 0.6, 0, -0.8], atol=1e-15)
    np.testing.assert_array_equal(pose.translation, [1, 2, 3])


def test_a_camera_survives_its_text():
    camera = Camera("RADIAL", 1024, 683, (919.5, 507.25, 335.5, 0.125, -0.25))
    assert Camera.parse(str(camera)) == camera


def test_numbers_of_numpy_and_json_are_welcome_words_are_not():
    camera = Camera("PINHOLE", np.float64(640), 480.0, np.array([500, 500, 320, 240]))
    assert camera == Camera("PINHOLE", 640, 480, (500.0, 500.0, 320.0, 240.0))
    with pytest.raises(CameraError, match="not numbers"):
        Camera("PINHOLE", 640, 480, 500)
