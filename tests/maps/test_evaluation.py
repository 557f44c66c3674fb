"""Pose errors and recalls that are known by hand."""

import json

import cv2
import numpy as np
import pytest

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.geometry import Pose
from hfnet_maps.evaluation import (
    Threshold,
    evaluate,
    parse_thresholds,
    pose_error,
)
from hfnet_maps.pictures import draw_from_above, ground_plane
from synthetic import looking_at, place

IDENTITY = Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))


def turned(degrees: float, axis=(0, 1, 0), center=(0, 0, 0)) -> Pose:
    half = np.radians(degrees) / 2
    quaternion = np.array([np.cos(half), *(np.sin(half) * np.array(axis))])
    return Pose(quaternion, -Pose(quaternion, np.zeros(3)).rotation @ np.array(center, float))


@pytest.mark.parametrize("degrees", [1e-12, 1e-7, 0.01, 90.0, 179.999])
def test_the_angle_keeps_its_digits(degrees):
    assert pose_error(turned(degrees), IDENTITY)[1] == pytest.approx(degrees, rel=1e-9)
    assert pose_error(IDENTITY, turned(degrees))[1] == pytest.approx(degrees, rel=1e-9)
    base = turned(70.0, (0.6, 0, 0.8))
    product = cv2.Rodrigues(np.radians(degrees) * np.array([0.0, 0.6, 0.8]))[0] @ base.rotation
    if degrees > 1e-3:
        assert pose_error(Pose.from_matrix(product, np.zeros(3)), base)[1] == pytest.approx(degrees, rel=1e-6)


def test_the_sign_of_a_quaternion_means_nothing():
    pose = turned(30.0)
    assert pose_error(Pose(-pose.quaternion, pose.translation), pose) == (0.0, 0.0)


def test_position_is_that_of_the_camera_not_of_the_translation():
    a, b = turned(40.0, center=(1, 2, 3)), turned(-60.0, center=(1, 2, 7))
    position, rotation = pose_error(a, b)
    assert position == pytest.approx(4.0) and rotation == pytest.approx(100.0)
    assert not np.isclose(np.linalg.norm(a.translation - b.translation), 4.0)


def test_abstentions_count_as_misses_and_as_infinite():
    true = {name: IDENTITY for name in "abcd"}
    found = {
        "a": turned(1.0, center=(0.1, 0, 0)),
        "b": turned(3.0, center=(0, 0.4, 0)),
        "x": turned(0.0, center=(9, 9, 9)),  # of another image
    }
    e = evaluate(found, true, list("abcd"), parse_thresholds("0.25,2 0.5,5 0.5,2"))
    assert e.recalls == (0.25, 0.5, 0.25)
    assert e.abstentions == 2 and e.localized.tolist() == [True, True, False, False]
    assert e.median == (np.inf, np.inf)
    assert e.median_localized == pytest.approx((0.25, 2.0))

    e = evaluate({**found, "c": IDENTITY}, true, list("abcd"))
    assert e.median == pytest.approx((0.25, 2.0))  # of 0, 0.1, 0.4, inf
    assert e.median_localized == pytest.approx((0.1, 1.0))

    e = evaluate({}, true, list("abcd"))
    assert e.recalls == (0, 0, 0) and e.abstentions == 4 and e.median_localized == (np.inf, np.inf)
    text = json.dumps(e.as_dict(), allow_nan=False)
    assert json.loads(text)["median_position_m"] is None


def test_a_threshold_includes_its_border():
    true, found = {"a": IDENTITY}, {"a": turned(0.0, center=(0.25, 0, 0))}
    assert evaluate(found, true, ["a"], [Threshold(0.25, 2)]).recalls == (1.0,)
    assert evaluate(found, true, ["a"], [Threshold(0.2499, 2)]).recalls == (0.0,)


@pytest.mark.parametrize(
    ("found", "queries", "reason"),
    [
        ({"a": IDENTITY}, ["a", "z"], "no pose for 1 of 2 queries, first z"),
        ({"a": IDENTITY}, ["a", "a"], "a is listed twice"),
        ({"a": IDENTITY}, [], "no queries"),
        ({"a": IDENTITY}, ["b"], "none of the 1 poses is of a query"),
    ],
)
def test_lists_that_do_not_belong_together_are_refused(found, queries, reason):
    with pytest.raises(InputError, match=reason):
        evaluate(found, {"a": IDENTITY, "b": IDENTITY}, queries)


def test_thresholds_are_read():
    assert parse_thresholds(" 0.25,2  5,10 ") == (Threshold(0.25, 2), Threshold(5, 10))


@pytest.mark.parametrize("text", ["", "0.25", "0.25,2,3", "a,b", "0,2", "-1,2", "nan,2", "1,inf", "0.25, 2"])
def test_bad_thresholds_are_refused(text):
    with pytest.raises(InputError, match="threshold"):
        parse_thresholds(text)


# --- the picture


@pytest.mark.parametrize("facing", ["inwards", "one way"])
def test_from_above_is_from_above_whatever_the_worlds_axes(facing):
    rng = np.random.default_rng(3)
    centers = np.column_stack([rng.uniform(-20, 20, 30), rng.uniform(-5, 5, 30), rng.uniform(1, 3, 30)])
    target = np.zeros((30, 3)) if facing == "inwards" else centers + np.array([3, 40, 6])  # looking up a little
    upright = [looking_at(c, t) for c, t in zip(centers, target, strict=True)]
    world = cv2.Rodrigues(np.array([1.1, -0.4, 2.0]))[0]  # another frame, and far away
    poses = [Pose.from_matrix(p.rotation @ world.T, p.translation - p.rotation @ [50, 0, 9]) for p in upright]
    plane = ground_plane(poses)

    right, up_on_paper = plane.axes
    up = np.cross(right, up_on_paper)
    assert np.degrees(np.arccos(up @ world @ [0, 0, 1.0])) < (1 if facing == "inwards" else 9)
    assert np.allclose(plane.axes @ plane.axes.T, np.eye(2))
    flat = plane.project([p.center for p in poses])
    assert np.ptp(flat[:, 0]) > np.ptp(flat[:, 1])  # the long side lies across
    if facing == "inwards":
        between = np.linalg.norm(centers[:, None, :2] - centers[None, :, :2], axis=-1)
        assert np.allclose(np.linalg.norm(flat[:, None] - flat[None], axis=-1), between, atol=0.3)


def test_one_camera_is_a_place_too():
    plane = ground_plane([looking_at(np.array([1.0, 2, 3]), np.array([4.0, 2, 3]))])
    assert np.allclose(np.cross(*plane.axes), [0, 0, 1])


@pytest.mark.parametrize(("with_map", "count"), [(True, 0), (False, 4), (True, 6)])
def test_a_picture_is_drawn(tmp_path, with_map, count):
    p = place(images=12)
    true = {f"{i}.jpg": pose for i, pose in enumerate(p.poses)}
    queries = list(true)[:6]
    found = {
        n: Pose(true[n].quaternion, true[n].translation + np.array([0.1 * i, 0, 0]))
        for i, n in enumerate(queries[:count])
    }
    path = tmp_path / "above.png"
    draw_from_above(evaluate(found, true, queries), found, true, path, p.map() if with_map else None)
    picture = cv2.imread(str(path))
    assert picture.shape[1] > 900 and 400 < picture.shape[0] < 2500
    red = (np.abs(picture.astype(int) - [0x2B, 0x39, 0xC0]).max(axis=2) < 10).sum()
    assert (red > 200) == (count < 6)  # the crosses of those that abstained


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path):
    true = {"a": IDENTITY}
    with pytest.raises(OutputError):
        draw_from_above(evaluate(true, true, ["a"]), true, true, tmp_path / "nowhere" / "a.png")
    assert list(tmp_path.iterdir()) == []
