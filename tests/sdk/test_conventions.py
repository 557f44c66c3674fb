"""Frames of reference of others: numbers that can be checked by hand, and round trips."""

import re
from pathlib import Path

import numpy as np
import pytest

from hfnet_edge.conventions import CONVENTIONS, Z_UP_TO_Y_UP, from_matrix, to_matrix, turned
from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera, Pose

PAGE = Path(__file__).parents[2] / "docs" / "frames.md"


def any_pose(seed):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=4)
    return Pose(q / np.linalg.norm(q), rng.normal(size=3))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_poses_survive_the_way_there_and_back(name):
    for seed in range(20):
        pose = any_pose(seed)
        back = from_matrix(to_matrix(pose, name), name)
        assert back.rotation == pytest.approx(pose.rotation) and back.translation == pytest.approx(pose.translation)


# A camera at (1, 2, 3) of a world with z up that looks along x, held level.
LEVEL = Pose.from_matrix(
    np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), -np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]) @ [1, 2, 3]
)


@pytest.mark.parametrize(
    ("name", "pose", "position", "forward", "up"),
    [
        ("opencv", LEVEL, [1, 2, 3], (2, 1), (1, -1)),
        ("opengl", LEVEL, [1, 2, 3], (2, -1), (1, 1)),
        ("ros_body", LEVEL, [1, 2, 3], (0, 1), (2, 1)),
        ("unreal", LEVEL, [100, -200, 300], (0, 1), (2, 1)),
    ],
)
def test_axes_point_where_the_convention_says(name, pose, position, forward, up):
    """Which column of the matrix, and with which sign, is forward (along x) and up (along z)."""
    matrix = to_matrix(pose, name)
    assert matrix[:3, 3] == pytest.approx(position)
    assert forward[1] * matrix[:3, forward[0]] == pytest.approx([1, 0, 0], abs=1e-12)
    assert up[1] * matrix[:3, up[0]] == pytest.approx([0, 0, 1], abs=1e-12)


def test_unity_stands_on_a_world_with_y_up():
    y_up = LEVEL @ Z_UP_TO_Y_UP.inverse
    assert y_up.center == pytest.approx([1, 3, -2])
    matrix = to_matrix(y_up, "unity")
    assert matrix[:3, 3] == pytest.approx([1, 3, 2])
    assert matrix[:3, 2] == pytest.approx([1, 0, 0], abs=1e-12) and matrix[:3, 1] == pytest.approx([0, 1, 0], abs=1e-12)


def test_a_turned_camera_sees_the_turned_image():
    camera, pose = Camera("PINHOLE", 640, 480, (500, 510, 322, 238)), any_pose(3)
    points = pose.inverse.transform(np.array([[0.2, -0.1, 2.0], [-0.4, 0.3, 3.0]]))
    x, y = camera.project(pose.transform(points)).T
    sideways = Camera("PINHOLE", 480, 640, (510, 500, 480 - 238, 322))
    assert sideways.project(turned(pose, 90).transform(points)) == pytest.approx(np.stack([480 - y, x], axis=1))


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.eye(3), np.full((4, 4), np.nan), np.diag([2.0, 2, 2, 1]), np.diag([1.0, 1, -1, 1])]
)
def test_what_is_no_pose_is_refused(matrix):
    with pytest.raises(InputError):
        from_matrix(matrix, "arkit")
    with pytest.raises(InputError, match="opengl"):
        to_matrix(any_pose(0), "directx")


def test_the_numbers_of_the_page():
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert {name for name, *_ in rows} == CONVENTIONS.keys()
    for name, position, forward in rows:
        pose = LEVEL @ Z_UP_TO_Y_UP.inverse if name in ("unity", "arkit", "arcore", "opengl") else LEVEL
        matrix = to_matrix(pose, name)
        assert matrix[:3, 3] == pytest.approx([float(v) for v in position.split(", ")])
        sign, column = re.match(r"([+-])column (\d)", forward).groups()
        assert float(f"{sign}1") * matrix[:3, int(column) - 1] == pytest.approx([1, 0, 0], abs=1e-12)
