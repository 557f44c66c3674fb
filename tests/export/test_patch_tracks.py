"""Patches that are said to show the same thing do."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("pycolmap")

from colmap_scene import SHIFTS, write_scene
from hfnet_edge.errors import CameraError, InputError
from hfnet_edge.image.patches import PatchKeypoints, detect
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.training import patch_tracks
from hfnet_export.training.patch_tracks import PatchTracks, of_photographs, of_scene, same_keypoints


def agreement(tracks: PatchTracks) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of the first two patches of each track, and of a track's first with the next track's."""
    flat = tracks.patches.reshape(len(tracks.patches), -1).astype(float)
    flat = (flat - flat.mean(1, keepdims=True)) / np.maximum(flat.std(1, keepdims=True), 1)
    first, second = flat[tracks.start[:-1]], flat[tracks.start[:-1] + 1]
    return (first * second).mean(1), (first * np.roll(first, 5, axis=0)).mean(1)


def test_tracks_of_a_scene(tmp_path):
    write_scene(tmp_path / "scene", seed=4)
    steps = []
    tracks = of_scene(tmp_path / "scene", lambda what, done, total, note="": steps.append((done, total, note)))
    count = np.diff(tracks.start)
    assert len(tracks) > 60 and count.min() >= 2 and count.max() == len(SHIFTS)
    assert tracks.patches.shape == (tracks.start[-1], 32, 32) and tracks.patches.dtype == np.uint8
    same, others = agreement(tracks)
    assert np.quantile(same, 0.05) > 0.95 and np.median(np.abs(others)) < 0.5
    assert steps == [(i + 1, 3, "scene") for i in range(3)]


def test_no_scene(tmp_path):
    with pytest.raises(InputError, match="is not a COLMAP model"):
        of_scene(tmp_path)


def test_keypoints_are_found_in_blocks(tmp_path, monkeypatch):
    write_scene(tmp_path / "scene", seed=4)
    whole = of_scene(tmp_path / "scene")
    monkeypatch.setattr(patch_tracks, "BLOCK", 7)
    again = of_scene(tmp_path / "scene")
    np.testing.assert_array_equal(again.patches, whole.patches)
    np.testing.assert_array_equal(again.start, whole.start)


def test_an_image_of_another_size_than_its_camera(tmp_path):
    write_scene(tmp_path / "scene", seed=4)
    path = tmp_path / "scene" / "images" / "2.png"
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (128, 96)))
    with pytest.raises(CameraError, match=r"2\.png is 128x96, its camera 256x192; give the images"):
        of_scene(tmp_path / "scene")


def test_a_camera_that_queries_may_not_have(tmp_path):
    write_scene(tmp_path / "scene", seed=4)
    cameras = tmp_path / "scene" / "model" / "cameras.txt"
    words = cameras.read_text().split()
    cameras.write_text(" ".join([words[0], "FULL_OPENCV", *words[2:], *["0"] * 8]) + "\n")
    assert len(of_scene(tmp_path / "scene")) > 60


@pytest.mark.parametrize("blank", ["1 2 3", "2 3"])
def test_a_scene_without_tracks(tmp_path, blank):
    write_scene(tmp_path / "scene", seed=4)
    for name in blank.split():  # nothing is detected there
        cv2.imwrite(str(tmp_path / "scene" / "images" / f"{name}.png"), np.full((192, 256), 128, np.uint8))
    with pytest.raises(InputError, match=r"no track of .*scene has keypoints in two images"):
        of_scene(tmp_path / "scene")


@pytest.fixture
def photographs(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, built_in_images((320, 400), 3, seed=3), strict=True):
        cv2.imwrite(str(path), image)
    return paths


def test_tracks_of_photographs(photographs):
    tracks = of_photographs(photographs)
    assert len(tracks) > 60 and np.diff(tracks.start).min() >= 2
    same, others = agreement(tracks)
    assert np.median(same) > 0.7 and np.median(np.abs(others)) < 0.4
    again = of_photographs(photographs, processes=2)
    np.testing.assert_array_equal(again.patches, tracks.patches)
    np.testing.assert_array_equal(again.start, tracks.start)


def test_processes_that_cut_patches_load_no_tensorflow():
    code = "import sys, hfnet_export.training.patch_tracks; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_same_keypoints_of_a_turned_and_enlarged_view():
    (image,) = built_in_images((240, 320), 1, seed=6)
    h, w = image.shape
    first = detect(image, 200)
    angle, scale = np.radians(30), 1.5
    a = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([w / 2, h / 2])
    homography = np.eye(3)
    homography[:2, :2], homography[:2, 2] = a, centre - a @ centre
    rng = np.random.default_rng(0)
    order = rng.permutation(len(first))
    true = PatchKeypoints(
        (first.xy @ a.T + homography[:2, 2]).astype(np.float32)[order],
        first.scale[order] * np.float32(scale),
        ((first.angle[order] + angle) % (2 * np.pi)).astype(np.float32),
        first.scores[order],
    )
    i, j = same_keypoints(first, true, homography)
    assert len(i) == len(np.unique(i)) == len(np.unique(j)) > 0.9 * len(first)
    right = order[j] == i
    np.testing.assert_allclose(first.xy[order[j]], first.xy[i], atol=1.1)  # two keypoints may share a place
    assert right.mean() > 0.9
    for wrong in (
        PatchKeypoints(true.xy, true.scale * 2, true.angle, true.scores),
        PatchKeypoints(true.xy, true.scale, (true.angle + np.float32(1)) % (2 * np.pi), true.scores),
        PatchKeypoints(true.xy + np.float32(500), true.scale, true.angle, true.scores),
    ):
        assert len(same_keypoints(first, wrong, homography)[0]) < 0.2 * len(first)


def test_files(tmp_path):
    rng = np.random.default_rng(0)
    a = PatchTracks(rng.integers(0, 256, (5, 32, 32)).astype(np.uint8), np.array([0, 2, 5]))
    b = PatchTracks(rng.integers(0, 256, (4, 32, 32)).astype(np.uint8), np.array([0, 4]))
    a.save(tmp_path / "a.npz")
    joined = PatchTracks.join([PatchTracks.load(tmp_path / "a.npz"), b])
    np.testing.assert_array_equal(joined.patches, np.concatenate([a.patches, b.patches]))
    assert joined.start.tolist() == [0, 2, 5, 9] and len(joined) == 3
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    for name in ("b.npz", "nowhere.npz"):
        with pytest.raises(InputError, match="does not hold patches"):
            PatchTracks.load(tmp_path / name)
