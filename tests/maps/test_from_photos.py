"""Maps from photos alone: poses by SfM, parts that share nothing, photos that are left out, and the cameras beside."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import ExifTags, Image
from typer.testing import CliRunner

from hfnet_edge.errors import CameraError, InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map_cameras import MapCameras, cameras_path
from hfnet_maps.build.candidates import SEQUENCE, SIMILAR, candidate_pairs
from hfnet_maps.build.choices import Mapper
from hfnet_maps.build.from_photos import maps_from_photos
from hfnet_maps.build.photos import find_photos
from hfnet_maps.build.reference import read_reference
from hfnet_maps.build.structure import HELD
from hfnet_maps.build.work_store import WorkStore
from hfnet_maps.cli import main
from hfnet_maps.evaluation.alignment import align
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.evaluation.ground_plane import upright
from photo_places import FakeModel, photograph, write_photo
from synthetic import CAMERA, place


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def exif_of(focal):
    """Of a phone, in 35 mm equivalent."""
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "Phone"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = focal
    return exif


def dense_place(seed=0, images=12):
    return place(seed, landmarks=400, images=images)


def test_poses_and_camera_are_found_from_photos(tmp_path, monkeypatch):
    p = dense_place()
    model = photograph(tmp_path / "photos", {"a": p}, monkeypatch)
    out = tmp_path / "scene.hfmap"
    result = run("build", "--images", tmp_path / "photos", "--model", model, "-o", out)
    assert result.exit_code == 0, result.output
    assert "photos, registered" in result.stdout and "camera: RADIAL 640 480" in result.stdout
    built = LocalizationMap.open(out)
    built.check_all()
    assert list(built.image_names) == [f"a{i:02d}.png" for i in range(12)]
    found = {str(i): built.pose(i) for i in range(12)}
    true = {str(i): pose for i, pose in enumerate(p.poses)}
    to_true = align(found, true, list(true))
    errors = np.array([pose_error(to_true.pose(found[n]), true[n]) for n in true])
    assert errors[:, 0].max() < 0.05 and errors[:, 1].max() < 0.2  # of 15 m
    assert upright(list(found.values())) == pytest.approx([0, 0, 1], abs=0.02)

    (camera,) = MapCameras.beside(out).cameras
    assert camera.focal == pytest.approx((502, 502), rel=0.02) and camera.center == pytest.approx((321, 239), abs=4)
    model_of_it = read_reference(tmp_path / "scene_sfm" / "0")
    assert model_of_it.poses["a03.png"].center == pytest.approx(built.pose(3).center)
    assert model_of_it.camera("a03.png").params == pytest.approx(camera.params, abs=1e-6)
    before = out.read_bytes()
    assert run("build", "--images", tmp_path / "photos", "--model", model, "-o", out).exit_code == 0
    assert out.read_bytes() == before, "the same photos give the same map"


def test_parts_are_kept_and_what_is_left_out_is_said(tmp_path, monkeypatch):
    parts = {"a": dense_place(0, 8), "b": dense_place(1, 6), "lost": dense_place(2, 1)}
    model = photograph(tmp_path / "photos", parts, monkeypatch)
    shutil.copy(tmp_path / "photos" / "a00.png", tmp_path / "photos" / "copy.png")
    (tmp_path / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    out = tmp_path / "scene.hfmap"
    result = run("build", "--images", tmp_path / "photos", "--model", model, "-o", out)
    assert result.exit_code == 0, result.output
    assert "the photos fall into 2 parts that do not hold together, of 8, 6 photos" in result.stdout
    assert "copy.png: it is a copy of a00.png" in result.stdout and "torn.jpg: the image" in result.stdout
    assert "lost00.png: it shares matches with no other photo" in result.stdout
    for path, letter, count in ((out, "a", 8), (tmp_path / "scene_2.hfmap", "b", 6)):
        names = LocalizationMap.open(path).image_names
        assert len(names) == count and {name[0] for name in names} == {letter}
    assert (tmp_path / "scene_sfm" / "1" / "images.bin").is_file()


def test_what_makes_no_map_is_refused(tmp_path, monkeypatch):
    model = photograph(tmp_path / "photos", {k: dense_place(i, 1) for i, k in enumerate("abc")}, monkeypatch)
    for options, words in (
        (("--list", tmp_path / "one.txt"), "1 photos"),
        ((), "do not overlap"),
        (("--refine-poses",), "--refine-poses"),
        (("--images", tmp_path / "nowhere"), "no folder"),
    ):
        (tmp_path / "one.txt").write_text("a00.png\n")
        given = ("--images", tmp_path / "photos", "--model", model, "-o", tmp_path / "s.hfmap", *options)
        result = run("build", *given)
        assert result.exit_code == 2 and words in result.stderr and result.stderr.startswith("error: "), result.output
    assert not list(tmp_path.glob("*.hfmap")), "no map is written"


def test_the_global_mapper_finds_the_same(tmp_path, monkeypatch):
    p = dense_place(images=10)
    # Cameras around a point that all look at it leave the focal length open to it, so EXIF says it.
    model = photograph(tmp_path / "photos", {"a": p}, monkeypatch, exif=exif_of(27))
    store = WorkStore(tmp_path / "store")
    (found,) = maps_from_photos(tmp_path / "photos", FakeModel(model), store, mapper=Mapper.GLOBAL).models
    assert len(found.poses) == 10
    poses = {str(i): pose for i, pose in found.poses.items()}
    true = {str(i): pose for i, pose in enumerate(p.poses)}
    to_true = align(poses, true, list(true))
    assert max(pose_error(to_true.pose(poses[n]), true[n])[0] for n in true) < 0.1


def test_devices_are_told_apart_by_exif_and_by_folder(tmp_path):
    exif = exif_of(26)
    for k, (name, tags) in enumerate({"a.png": None, "b.jpg": exif, "c.jpg": exif, "sub/d.png": None}.items()):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_photo(tmp_path / name, k, tags)
    photos = find_photos(tmp_path)
    assert photos.names == ("a.png", "b.jpg", "c.jpg", "sub/d.png") and photos.device_of == (0, 1, 1, 2)
    assert [d.from_exif for d in photos.devices] == [False, True, False] and photos.devices[1].label == "Phone"
    assert photos.camera(0).focal[0] == 1.2 * 640
    assert photos.camera(1).focal[0] == pytest.approx(26 / np.hypot(36, 24) * 800)


def test_pairs_grow_with_the_photos():
    rng = np.random.default_rng(0)
    rows = rng.integers(-20, 20, (1100, 16)).astype(np.int8)
    pairs = candidate_pairs(rows)
    assert pairs == sorted(set(pairs)) and all(i < j for i, j in pairs)
    assert len(pairs) <= 1100 * (SIMILAR + SEQUENCE)
    likeness = (rows.astype(int) @ rows.T.astype(int)).astype(float)
    np.fill_diagonal(likeness, -np.inf)
    nearest = np.argsort(-likeness[700], kind="stable")[:SIMILAR]
    assert {(min(700, j), max(700, j)) for j in nearest.tolist()} <= set(pairs)
    assert {(700, 700 + k) for k in range(1, SEQUENCE + 1)} <= set(pairs)
    assert candidate_pairs(rows[:4]) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_up_is_where_photos_were_held(orientation):
    """A stored pixel is turned as `Photo` turns it."""
    from hfnet_edge.image.photo import Photo

    photo = Photo(np.zeros((4, 4), np.uint8), (100, 80), (80, 100), orientation)
    at, right, down = photo.to_camera(np.array([[40, 50], [41, 50], [40, 51]]))
    turn = HELD[orientation].rotation
    assert turn[0, :2] == pytest.approx(right - at) and turn[1, :2] == pytest.approx(down - at)


def test_cameras_beside_a_map_are_by_size(tmp_path):
    map_ = tmp_path / "m.hfmap"
    with pytest.raises(InputError, match="no cameras beside it"):
        MapCameras.beside(map_)
    cameras_path(map_).write_text(f"{CAMERA}  # 3 of 4 photos\nPINHOLE 100 50 9 9 5 5 # one\n")
    found = MapCameras.beside(map_)
    assert found.of_size(100, 50, "x").focal == (9, 9)
    write_photo(tmp_path / "q.png", 1)
    assert found.of(tmp_path / "q.png") == Camera.parse(str(CAMERA))
    with pytest.raises(CameraError, match="640x480"):
        found.of_size(640, 481, "x")
    cameras_path(map_).write_text("PINHOLE 0 50 9 9 5 5\n")
    with pytest.raises(CameraError):
        MapCameras.beside(map_)


def test_a_level_camera_is_level():
    assert upright([Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))] * 3) == pytest.approx([0, -1, 0])
