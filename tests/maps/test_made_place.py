"""The embedded place: its pictures obey its poses, its files read back, and it suits feature matching."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest

from hfnet_edge.geometry import Camera, Pose
from hfnet_maps.synthetic_town.made_place import MadePlace, PlaceView, made_place, write_place


@pytest.fixture(scope="module")
def place() -> MadePlace:
    return made_place(seed=7, map_views=16, query_views=4, size=(240, 320))


@pytest.fixture(scope="module")
def other_place() -> MadePlace:
    return made_place(seed=8, map_views=16, query_views=4, size=(240, 320))


def rolled(view: PlaceView, shift: tuple[float, float, float]) -> PlaceView:
    """The view with its camera moved by the shift (right, down, forward) in metres, then rolled by 90 degrees.

    Had pictures or depth a constant offset against the camera's pixels, the roll would turn it, and it would show.
    """
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    pose = Pose.from_matrix(turn @ view.pose.rotation, turn @ (view.pose.translation - shift))
    return replace(view, name="rolled.jpg", pose=pose)


def seen_from(place: MadePlace, source: PlaceView, target: PlaceView) -> tuple[np.ndarray, np.ndarray]:
    """The source's picture as the target sees it (H, W) float32 grey, and where both see the same surface."""
    depth, camera = place.depth(target).astype(np.float64), target.camera
    y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], axis=2) @ np.linalg.inv(camera.matrix).T
    finite = np.isfinite(depth)
    world = (
        (rays * np.where(finite, depth, 1)[..., None]).reshape(-1, 3) - target.pose.translation
    ) @ target.pose.rotation
    local = source.pose.transform(world)
    at = (source.camera.project(local).reshape(*depth.shape, 2) - 0.5).astype(np.float32)
    grey = cv2.cvtColor(place.render(source), cv2.COLOR_RGB2GRAY).astype(np.float32)
    warped = cv2.remap(grey, at[..., 0], at[..., 1], cv2.INTER_CUBIC)
    expected = cv2.remap(place.depth(source), at[..., 0], at[..., 1], cv2.INTER_NEAREST, borderValue=-1)
    same = finite & (np.abs(expected / local[:, 2].reshape(depth.shape) - 1) < 0.01)
    return warped, cv2.erode(same.astype(np.uint8), np.ones((3, 3))) > 0


def image_shift(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(2,) float64 pixels by which b is displaced against a: one Lucas-Kanade step over the whole image."""
    mean = cv2.GaussianBlur((a + b) / 2, None, 1)
    difference = cv2.GaussianBlur(a - b, None, 1)
    gradient = np.stack([np.gradient(mean, axis=1)[where], np.gradient(mean, axis=0)[where]], axis=1)
    keep = np.abs(difference[where]) < 20  # what glints, or stands at an edge of depth, says nothing
    return np.linalg.lstsq(gradient[keep], difference[where][keep], rcond=None)[0]


@pytest.mark.parametrize("index", [0, 1, 6])
def test_pictures_agree_with_depth_and_poses(place: MadePlace, index: int) -> None:
    target = place.views[index]
    source = rolled(target, (0.25, -0.1, 0.15))
    picture = cv2.cvtColor(place.render(target), cv2.COLOR_RGB2GRAY).astype(np.float32)
    warped, same = seen_from(place, source, target)
    assert same.mean() > 0.4
    assert np.median(np.abs(warped - picture)[same]) < 4
    assert np.abs(image_shift(picture, warped, same)).max() < 0.05
    moved = cv2.warpAffine(warped, np.float32([[1, 0, 0.5], [0, 1, 0.5]]), picture.shape[::-1])
    assert np.abs(image_shift(picture, moved, same)).min() > 0.2  # the test would see half a pixel


def test_views_stand_well(place: MadePlace) -> None:
    centers = np.array([view.pose.center for view in place.views])
    taken = centers[[not view.is_query for view in place.views]]
    for view, center in zip(place.views, centers, strict=True):
        depth = place.depth(view)
        assert np.isinf(depth).mean() < 0.35
        assert np.median(depth) > 2.5
        assert np.percentile(depth, 2) > 0.8
        assert 1.3 < center[2] < 1.9
        if view.is_query:
            assert 0.5 < np.linalg.norm(taken[:, :2] - center[:2], axis=1).min() < 1.5


def test_features_match_within_the_place_only(place: MadePlace, other_place: MadePlace) -> None:
    sift = cv2.SIFT_create(1500)

    @cache
    def describe(place: MadePlace, index: int) -> np.ndarray:
        grey = cv2.cvtColor(place.render(place.views[index]), cv2.COLOR_RGB2GRAY)
        return sift.detectAndCompute(grey, None)[1]

    def matches(a: np.ndarray, b: np.ndarray) -> int:
        return sum(m.distance < 0.7 * n.distance for m, n in cv2.BFMatcher().knnMatch(a, b, k=2))

    for number in (16, 18):
        rotation = place.views[number].pose.rotation
        alike = np.argsort([-np.trace(view.pose.rotation @ rotation.T) for view in place.views[:16]])[:4]
        query, foreign = describe(place, number), np.concatenate([describe(other_place, i) for i in (0, 5)])
        assert len(query) > 250
        assert max(matches(query, describe(place, i)) for i in alike) > 3 * matches(query, foreign)


def test_files_are_true_and_the_same_for_a_seed(place: MadePlace, tmp_path: Path) -> None:
    again = made_place(seed=7, map_views=16, query_views=4, size=(240, 320))
    calls: list[tuple[int, int]] = []
    for folder, made in (("once", place), ("again", again)):
        few = replace(made, views=made.views[14:17])
        write_place(tmp_path / folder, few, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)] * 2
    once = tmp_path / "once"
    for file in (path for path in once.rglob("*") if path.is_file()):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(once)).read_bytes()

    model = pycolmap.Reconstruction(str(once / "reference"))
    assert model.num_reg_images() == 3 and model.num_points3D() == 0
    for view in place.views[14:17]:
        image = model.find_image_with_name(view.name)
        expected = np.column_stack([view.pose.rotation, view.pose.translation])
        np.testing.assert_allclose(image.cam_from_world().matrix(), expected, atol=1e-9)
        np.testing.assert_allclose(image.camera.params, view.camera.params, atol=1e-9)
        assert cv2.imread(str(once / "images" / view.name)).shape == (240, 320, 3)
    assert (once / "map.txt").read_text() == "map_014.jpg\nmap_015.jpg\n"
    name, camera = (once / "queries_with_intrinsics.txt").read_text().strip().split(maxsplit=1)
    assert name == "query_000.jpg"
    np.testing.assert_allclose(Camera.parse(camera).params, place.views[16].camera.params, atol=1e-6)


def test_another_seed_is_another_place(place: MadePlace, other_place: MadePlace) -> None:
    a, b = (p.depth(p.views[0]) for p in (place, other_place))
    assert np.mean(np.abs(a - b) > 0.3) > 0.3
