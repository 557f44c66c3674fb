"""Places in tiles, built by tasks: with poses and from photos alone, resumed, and by other processes."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map_cameras import MapCameras
from hfnet_edge.result import Status
from hfnet_maps.build import candidates, parts, workers
from hfnet_maps.cli import main
from hfnet_maps.content import read_content
from hfnet_maps.evaluation.alignment import align
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.tiles import triangulate
from photo_places import photograph
from synthetic import CAMERA, place


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def tiles_in(folder):
    return sorted(path for path in folder.glob("*.hfmap") if path.name != "index.hfmap")


@pytest.fixture
def street(tmp_path, monkeypatch):
    """Photos of a place, its model file, and the folder of its poses."""
    p = place(3, landmarks=400, images=12)
    model = photograph(tmp_path / "photos", {"a": p}, monkeypatch)
    reference = tmp_path / "reference"
    reference.mkdir()
    (reference / "cameras.txt").write_text(f"1 {CAMERA}\n")
    told = [(*pose.quaternion, *pose.translation) for pose in p.poses]
    lines = [f"{i + 1} {' '.join(map(repr, map(float, t)))} 1 a{i:02d}.png\n\n" for i, t in enumerate(told)]
    (reference / "images.txt").write_text("".join(lines))
    (reference / "points3D.txt").write_text("")
    return p, model


def built(tmp_path, model, output, *options):
    result = run("build", "--images", tmp_path / "photos", "--model", model, "-o", output, *options)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_tiles_of_given_poses_localize_as_the_whole_map(tmp_path, street):
    p, model = street
    said = built(tmp_path, model, tmp_path / "t", "--reference", tmp_path / "reference", "--tile-images", "5")
    built(tmp_path, model, tmp_path / "whole.hfmap", "--reference", tmp_path / "reference")
    assert "tiles, images of a tile" in said
    tiles = [LocalizationMap.open(path) for path in tiles_in(tmp_path / "t")]
    assert len(tiles) >= 2 and {name for tile in tiles for name in tile.image_names} == {
        f"a{i:02d}.png" for i in range(12)
    }
    whole = LocalizationMap.open(tmp_path / "whole.hfmap")
    for i, pose in enumerate(p.poses):
        query = p.features(pose, 0.3, 20)
        expected = localize_features(whole, query, CAMERA)
        assert expected.status is Status.LOCALIZED
        found = [localize_features(t, query, CAMERA) for t in tiles if f"a{i:02d}.png" in t.image_names]
        assert any(r.pose is not None and pose_error(r.pose, pose)[0] < 0.05 for r in found)


def test_tiles_become_one_map_like_that_of_all_images(tmp_path, street):
    p, model = street
    built(tmp_path, model, tmp_path / "t", "--reference", tmp_path / "reference", "--tile-images", "4")
    built(tmp_path, model, tmp_path / "whole.hfmap", "--reference", tmp_path / "reference")
    result = run("merge", tmp_path / "t", "-o", tmp_path / "joined.hfmap")
    assert result.exit_code == 0, result.output
    joined, whole = (read_content(tmp_path / f"{name}.hfmap") for name in ("joined", "whole"))
    assert joined.names == whole.names
    for a, b in zip(joined.poses, whole.poses, strict=True):
        assert np.array_equal(a.quaternion, b.quaternion) and np.array_equal(a.translation, b.translation)
    tiles = [read_content(path) for path in tiles_in(tmp_path / "t")]
    assert len(tiles) >= 3 and len(joined.positions) < 0.8 * sum(len(tile.positions) for tile in tiles)
    assert len(joined.positions) == pytest.approx(len(whole.positions), rel=0.1)
    assert len(joined.images) == pytest.approx(len(whole.images), rel=0.1)
    assert len(set(zip(joined.landmarks.tolist(), joined.images.tolist(), strict=True))) == len(joined.images)
    for i in range(12):
        mine, theirs = joined.features(i), whole.features(i)
        order = [np.lexsort(f.keypoints.T) for f in (mine, theirs)]
        assert np.array_equal(mine.keypoints[order[0]], theirs.keypoints[order[1]]), "each keypoint once"
        assert np.array_equal(mine.descriptors[order[0]], theirs.descriptors[order[1]])
    one = LocalizationMap.open(tmp_path / "joined.hfmap")
    for pose in p.poses[::3]:
        found = localize_features(one, p.features(pose, 0.3, 20), CAMERA)
        assert found.pose is not None and pose_error(found.pose, pose)[0] < 0.05


@pytest.mark.slow
def test_packed_tiles_are_not_joined(tmp_path, street):
    _, model = street
    built(tmp_path, model, tmp_path / "t", "--reference", tmp_path / "reference", "--tile-images", "4")
    assert run("pack", tmp_path / "t", "--budget", "30kB", "-o", tmp_path / "p").exit_code == 0
    refused = run("merge", tmp_path / "p", "-o", tmp_path / "none.hfmap")
    assert refused.exit_code == 2 and "are packed" in refused.stderr and not (tmp_path / "none.hfmap").exists()


def test_a_build_that_was_stopped_goes_on_and_blocks_change_nothing(tmp_path, street, monkeypatch):
    _, model = street
    options = ("--reference", tmp_path / "reference", "--tile-images", "5")
    built(tmp_path, model, tmp_path / "t", *options)
    names = [path.name for path in tiles_in(tmp_path / "t")]
    calls = []
    plain = triangulate.map_from_features
    monkeypatch.setattr(triangulate, "map_from_features", lambda *a, **k: calls.append(1) or plain(*a, **k))
    matched = []
    monkeypatch.setattr(workers, "match_descriptors", lambda a, b: matched.append(1) or np.zeros((0, 2), np.int64))
    built(tmp_path, model, tmp_path / "t", *options)
    assert not calls and not matched, "nothing is computed twice"
    one = next((tmp_path / "t_sfm" / "tiles").glob("*.json"))
    one.unlink()
    built(tmp_path, model, tmp_path / "t", *options)
    assert len(calls) == 1 and [path.name for path in tiles_in(tmp_path / "t")] == names
    monkeypatch.setattr(candidates, "ALL_PAIRS", 5)
    monkeypatch.setattr(candidates, "ROWS", 4)
    built(tmp_path, model, tmp_path / "t", *options)
    assert len(calls) == 1, "twelve photos have each other as partners, by blocks as at once"


def test_photos_alone_are_reconstructed_in_parts_and_folded(tmp_path, monkeypatch):
    p = place(0, landmarks=400, images=14)
    model = photograph(tmp_path / "photos", {"a": p}, monkeypatch)
    monkeypatch.setattr(parts, "PART", 5)
    monkeypatch.setattr(parts, "OVERLAP", 4)  # nine: too few for a principal point of their own
    said = built(tmp_path, model, tmp_path / "t", "--tile-images", "6", "--store", tmp_path / "store")
    assert "registered" in said and len(list((tmp_path / "store" / "models").glob("*.zip"))) >= 4
    tiles = [LocalizationMap.open(path) for path in tiles_in(tmp_path / "t")]
    found = {name: t.pose(i) for t in tiles for i, name in enumerate(t.image_names)}
    true = {f"a{i:02d}.png": pose for i, pose in enumerate(p.poses)}
    assert len(found) == 14
    to_true = align(found, true, list(found))
    errors = np.array([pose_error(to_true.pose(pose), true[name]) for name, pose in found.items()])
    assert np.median(errors[:, 0]) < 0.1 and errors[:, 1].max() < 0.5  # of 15 m


def test_photos_that_do_not_hold_together_go_into_places_of_their_own(tmp_path, monkeypatch):
    places = {"a": place(0, landmarks=400, images=8), "b": place(1, landmarks=400, images=6)}
    model = photograph(tmp_path / "photos", places | {"lost": place(2, images=1)}, monkeypatch)
    said = built(tmp_path, model, tmp_path / "t.tiles", "--tile-images", "9", "--picture", tmp_path / "t.png")
    assert (tmp_path / "t.png").stat().st_size > 10_000
    assert "fall into 2 parts that do not hold together, of 8, 6 photos" in said
    assert "lost00.png: it shares matches with no other photo" in said and "camera: SIMPLE_RADIAL 640 480" in said
    for folder, letter, count in (("t.tiles", "a", 8), ("t_2.tiles", "b", 6)):
        (tile,) = (LocalizationMap.open(path) for path in tiles_in(tmp_path / folder))
        assert len(tile.image_names) == count and {name[0] for name in tile.image_names} == {letter}
        assert MapCameras.beside(tmp_path / folder).cameras
    assert (tmp_path / "t_sfm" / "1" / "images.bin").is_file()


def test_a_store_under_a_url_does_as_well(tmp_path, street):
    _, model = street
    options = ("--reference", tmp_path / "reference", "--tile-images", "5")
    built(tmp_path, model, tmp_path / "t", *options)
    built(tmp_path, model, tmp_path / "u", *options, "--store", "memory://somewhere/deep")
    built(tmp_path, model, tmp_path / "u", *options, "--store", "memory://somewhere/deep")
    assert [path.name for path in tiles_in(tmp_path / "u")] == [path.name for path in tiles_in(tmp_path / "t")]


@pytest.mark.parametrize(
    "options, words",
    [
        (("--tile-images", "5", "--refine-poses"), "--refine-poses"),
        (("--tile-images", "5", "--store", "nowhere://x"), "nowhere"),
        (("--tile-images", "5", "--dask", "tcp://127.0.0.1:1"), "no Dask cluster"),
        (("--tile-images", "5", "--dask", "local:none"), "local:4"),
        (("--jobs", "2"), "--tile-images"),
    ],
)
def test_what_does_not_go_together_is_said(tmp_path, street, monkeypatch, options, words):
    from hfnet_maps.build import crew

    monkeypatch.setattr(crew, "CONNECT", 1)
    _, model = street
    given = ("--images", tmp_path / "photos", "--model", model, "--reference", tmp_path / "reference")
    result = run("build", *given, "-o", tmp_path / "t", *options)
    assert result.exit_code == 2 and words in result.stderr and not (tmp_path / "t").exists(), result.output
