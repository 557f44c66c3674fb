"""Pose errors and recalls that are known by hand."""

import json
import re

import cv2
import numpy as np
import pytest

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.geometry import Pose
from hfnet_maps.evaluation.alignment import align, differ_by_similarity
from hfnet_maps.evaluation.errors import Threshold, evaluate, parse_thresholds, plain, pose_error, pose_errors
from hfnet_maps.evaluation.ground_plane import ground_plane
from hfnet_maps.evaluation.pictures import draw_from_above, draw_map, log_ticks
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
    assert json.loads(text)["median_position"] is None


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


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0221, "0.0221"), (0.65, "0.65"), (1234.5, "1230"), (0.00001234, "0.0000123"), (0.0, "0"), (np.inf, "inf")],
)
def test_lengths_have_no_exponent(value, text):
    assert plain(value) == text


# --- alignment


def a_world_apart(poses, scale=0.037, seed=4):
    """The same cameras in a frame of another origin, orientation and scale."""
    rng = np.random.default_rng(seed)
    turn, shift = cv2.Rodrigues(rng.normal(size=3))[0], rng.normal(size=3) * 100
    moved = {}
    for name, pose in poses.items():
        rotation = pose.rotation @ turn.T
        moved[name] = Pose.from_matrix(rotation, -rotation @ (scale * turn @ pose.center + shift))
    return moved


@pytest.mark.parametrize(("scale", "count"), [(0.037, 12), (250.0, 12), (1.0, 3)])
def test_alignment_finds_the_similarity(scale, count):
    true = {f"{i}.jpg": pose for i, pose in enumerate(place(images=12).poses[:count])}
    found = a_world_apart(true, scale)
    queries = [*list(true)[:2], "not found.jpg", *list(true)[2:]]
    similarity = align(found | {"of no query.jpg": IDENTITY}, true, queries)
    assert similarity.scale == pytest.approx(1 / scale, rel=1e-9) and similarity.poses == count
    aligned = {name: similarity.pose(pose) for name, pose in found.items()}
    assert (pose_errors(aligned, true, list(true)) < 1e-5).all()  # the place lies 2,000 units from its origin
    centers = np.array([pose.center for pose in found.values()])
    assert np.allclose(similarity.points(centers), [pose.center for pose in true.values()], atol=1e-5)


def test_alignment_is_the_least_squares_one():
    """Of noisy centres: no small change of the seven numbers comes nearer."""
    rng = np.random.default_rng(0)
    true = {f"{i}.jpg": pose for i, pose in enumerate(place(images=12, offset=(1.0, 2.0, 3.0)).poses)}
    found = {
        name: Pose(p.quaternion, p.translation + rng.normal(0, 0.01, 3)) for name, p in a_world_apart(true).items()
    }
    a, b = (np.array([poses[name].center for name in true]) for poses in (found, true))
    best = align(found, true, list(true))
    assert np.linalg.det(best.rotation) == pytest.approx(1)
    error = np.square(best.points(a) - b).sum()
    middle = best.points(a).mean(axis=0)
    for axis in np.vstack([np.eye(3), -np.eye(3)]):
        turned_ = (best.points(a) - middle) @ cv2.Rodrigues(1e-4 * axis)[0].T + middle
        assert np.square(turned_ - b).sum() > error
        assert np.square(best.points(a) + 1e-4 * axis - b).sum() > error
    for factor in (0.9999, 1.0001):
        assert np.square((best.points(a) - middle) * factor + middle - b).sum() > error


def test_a_mirror_is_no_alignment():
    true = {f"{i}": turned(0.0, center=c) for i, c in enumerate(np.random.default_rng(1).normal(size=(8, 3)))}
    mirrored = {name: turned(0.0, center=pose.center * [1, 1, -1]) for name, pose in true.items()}
    best = align(mirrored, true, list(true))
    assert np.linalg.det(best.rotation) == pytest.approx(1)
    assert pose_errors({n: best.pose(p) for n, p in mirrored.items()}, true, list(true))[:, 0].max() > 0.1


@pytest.mark.parametrize(
    ("centers", "reason"),
    [
        (np.zeros((0, 3)), "0 poses do not tell"),
        (np.eye(3)[:2], "2 poses do not tell"),
        (np.arange(5)[:, None] * [1.0, 2.0, 3.0], "in a line or a point"),
        (np.ones((5, 3)), "in a line or a point"),
    ],
)
def test_too_little_to_align_by(centers, reason):
    poses = {f"{i}": turned(20.0 * i, center=c) for i, c in enumerate(centers)}
    with pytest.raises(InputError, match=reason):
        align(poses, poses, list(poses) or ["a"])


def test_a_similarity_between_the_frames_is_noticed():
    rng = np.random.default_rng(0)
    true = {f"{i}.jpg": pose for i, pose in enumerate(place(images=12).poses)}
    queries = list(true)

    def hint(found):
        return differ_by_similarity(evaluate(found, true, queries), found, true)

    noisy = {n: Pose(p.quaternion, p.translation + rng.normal(0, 0.01, 3)) for n, p in true.items()}
    far = a_world_apart(noisy, 0.5)
    said = hint(far)
    assert said is not None and 0.001 < float(said.split()[0]) < 0.05
    assert hint({name: far[name] for name in queries[:5]}) is not None  # the others abstained
    assert hint(noisy) is None  # there is nothing to align
    assert (
        hint({n: Pose(p.quaternion, p.translation + np.array([0.1, 0, 0])) for n, p in true.items()}) is None
    )  # bad, not apart
    scattered = {n: Pose(p.quaternion, p.translation + rng.normal(0, 20, 3)) for n, p in true.items()}
    assert hint(scattered) is None  # wrong poses, no frame
    spun = {n: Pose.from_matrix(np.diag([1.0, -1, -1]) @ p.rotation, np.diag([1.0, -1, -1]) @ p.translation)
            for n, p in far.items()}  # fmt: skip
    assert hint(spun) is None  # the centres agree, the axes of the cameras do not
    assert hint({name: far[name] for name in queries[:4]}) is None  # four may agree by chance
    assert hint({}) is None


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


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0)])
def test_the_worlds_coordinates_are_read_off_where_one_axis_is_upright(up):
    rng = np.random.default_rng(3)
    centers = np.column_stack([rng.uniform(-20, 20, 30), rng.uniform(-5, 5, 30), rng.uniform(1, 3, 30)])
    world = np.array([np.roll(up, 1), np.roll(up, 2), up], float).T  # columns: where x, y and z go
    world[:, 1] *= np.linalg.det(world)
    poses = [
        Pose.from_matrix(p.rotation @ world.T, p.translation) for p in (looking_at(c, np.zeros(3)) for c in centers)
    ]
    plane = ground_plane(poses)
    assert plane.in_world_axes and np.allclose(np.cross(*plane.axes), up)
    points = rng.normal(size=(5, 3)) * 1000
    read = plane.project(points)
    for label, coordinates in zip(plane.labels, read.T, strict=True):
        assert (coordinates == points[:, "xyz".index(label[0])]).all() and label.endswith("[units]")


def test_a_point_is_read_off_in_any_frame():
    """From the labels alone: the origin, and what the axes measure along."""
    rng = np.random.default_rng(3)
    world = cv2.Rodrigues(np.array([1.1, -0.4, 2.0]))[0]
    eyes = rng.uniform(-20, 20, (30, 3)) * [1, 0.3, 0]
    poses = [Pose.from_matrix(p.rotation @ world.T, p.translation - p.rotation @ [50, 0, 9])
             for p in (looking_at(c, np.zeros(3)) for c in eyes)]  # fmt: skip
    plane = ground_plane(poses)
    assert not plane.in_world_axes
    groups = re.findall(r"\(([^)]*)\)", " ".join(plane.labels))
    right, origin, up = (np.array([float(v) for v in group.split(",")]) for group in groups)
    for pose, (a, b) in zip(poses, plane.project([p.center for p in poses]), strict=True):
        assert np.linalg.norm(origin + a * right + b * up - pose.center) < 0.05  # the cameras are all of one height


def test_both_pictures_of_a_map_have_one_plane(tmp_path, monkeypatch):
    from hfnet_maps.evaluation import pictures

    drawn = []
    monkeypatch.setattr(pictures, "_figure", lambda *a, f=pictures._figure: drawn.append(a[2]) or f(*a))
    p = place(images=12)
    true = {f"{i}.jpg": pose for i, pose in enumerate([*p.poses, looking_at(np.array([5.0, 5, 5]), np.zeros(3))])}
    evaluation = evaluate(true, true, list(true)[-3:])
    draw_map(p.map(), tmp_path / "a.png")
    draw_from_above(evaluation, true, true, tmp_path / "b.png", p.map())
    assert (drawn[0].axes == drawn[1].axes).all() and (drawn[0].origin == drawn[1].origin).all()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.004, 0.3, [0.005, 0.01, 0.02, 0.05, 0.1, 0.2]), (1, 100, [1, 2, 5, 10, 20, 50, 100]),
     (1e-6, 1.0, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]), (0.021, 0.0215, [0.021, 0.0212, 0.0215]),
     (1, 2, [1, 2]), (0.0249, 0.152, [0.05, 0.1])],
)  # fmt: skip
def test_ticks_of_a_logarithmic_scale(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)


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
