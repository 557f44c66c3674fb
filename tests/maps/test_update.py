"""New photos in a built map: what is in it stays, what they show is added, and what cannot be registered is said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import hfnet_maps.update
from hfnet_edge.geometry import Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.map_file import TILE_SIZE, LocalizationMap
from hfnet_edge.map_cameras import cameras_path, write_cameras
from hfnet_edge.result import Status
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.local_adjustment import Landmarks, adjust_new
from hfnet_maps.build.pairs import match_descriptors
from hfnet_maps.build.view import make_view
from hfnet_maps.cli import main
from hfnet_maps.content import content_of, read_content
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import (
    added_order,
    added_sections,
    built_sections,
    lay_out,
    spatial_order,
    to_map,
    write_map,
)
from hfnet_maps.update import NewPhoto, update
from photo_places import FakeModel, photograph
from synthetic import CAMERA, EXTRACTOR, Place, looking_at, place

IMAGES, OLD, NOISE = 12, 6, 0.1  # along a wall, the first ones are built; pixels


def wall() -> Place:
    """Landmarks along 28 m; every camera sees about 10 m of it, and stands 2 m from the next."""
    rng = np.random.default_rng(5)
    xyz = rng.uniform((-3, 6, -3), (25, 11, 3), (1800, 3)) + np.array([1000.0, -2000.0, 50.0])
    descriptors = rng.normal(size=(len(xyz), 32))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    centers = np.stack([np.linspace(0, 22, IMAGES), rng.uniform(-1, 1, IMAGES), np.zeros(IMAGES)], axis=1)
    centers += (1000.0, -2000.0, 50.0)
    looks = np.cumsum(rng.normal(size=(IMAGES, 16)), axis=0)  # neighbours look alike
    poses = [looking_at(center, center + np.array([0.0, 10.0, 0.0])) for center in centers]
    return Place(xyz, descriptors, poses, quantize(looks), rng)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Photos of the wall and one of elsewhere, and the map of the wall's first half."""
    p = wall()
    model = photograph(tmp_path / "all", {"w": p, "lost": place(9, images=1)}, monkeypatch, NOISE)
    old = [p.features(pose, NOISE, 20) for pose in p.poses[:OLD]]
    names = [f"w{i:02d}.png" for i in range(OLD)]
    built, _ = map_from_features(names, [CAMERA] * OLD, p.poses[:OLD], old, EXTRACTOR)
    source = tmp_path / "scene.hfmap"
    write_map(built_sections(built), source)
    write_cameras(source, [(CAMERA, "6 of 6 photos")])
    new = tmp_path / "new"
    new.mkdir()
    for i in range(OLD, IMAGES):
        shutil.copy(tmp_path / "all" / f"w{i:02d}.png", new)
    return SimpleNamespace(place=p, model=model, source=source, new=new, out=tmp_path / "out.hfmap", root=tmp_path)


def run(here, *options, images=None, source=None):
    given = ("update", source or here.source, "--images", images or here.new, "--model", here.model, "-o", here.out)
    return CliRunner().invoke(main, [str(a) for a in (*given, *options)])


def refused(result, here, *words):
    assert result.exit_code == 2 and result.stderr.startswith("error: "), result.output
    assert all(word in result.stderr for word in words), result.stderr
    assert not here.out.exists()


def test_the_old_stays_and_the_new_is_found(here):
    before = here.source.read_bytes()
    shutil.copy(here.root / "all" / "lost00.png", here.new)
    result = run(here)
    assert result.exit_code == 0, result.output
    assert here.source.read_bytes() == before
    old, new = read_content(here.source), read_content(here.out)

    # Old images and landmarks.
    assert new.names == (*old.names, *(f"w{i:02d}.png" for i in range(OLD, IMAGES)))
    for a, b in zip(old.poses, new.poses, strict=False):
        assert a.quaternion.tobytes() == b.quaternion.tobytes() and a.translation.tobytes() == b.translation.tobytes()
    whole = len(old.positions) // TILE_SIZE * TILE_SIZE
    assert 0 < whole < len(old.positions) < len(new.positions)
    assert old.positions[:whole].tobytes() == new.positions[:whole].tobytes()
    np.testing.assert_allclose(new.positions[: len(old.positions)], old.positions, atol=40 / 65535 / 2)
    mine = np.flatnonzero((new.images < OLD) & (new.landmarks < len(old.positions)))
    for part in ("landmarks", "images", "descriptors"):
        np.testing.assert_array_equal(getattr(new, part)[mine], getattr(old, part))
    np.testing.assert_array_equal(new.keypoints.observed[mine], old.keypoints.observed)
    by_new = np.unique(new.landmarks[new.images >= OLD])
    assert set(range(len(old.positions), len(new.positions))) <= set(by_new), "each new landmark is seen by a new photo"

    # New ones.
    assert max(pose_error(new.poses[i], here.place.poses[i])[0] for i in range(OLD, IMAGES)) < 0.01
    nearest = np.linalg.norm(new.positions[len(old.positions) :, None] - here.place.landmarks, axis=-1).min(axis=1)
    assert np.median(nearest) < 0.02
    assert (np.bincount(new.landmarks) >= 2).all()
    counts = [len(new.observed(i)) + int(np.diff(new.keypoints.other_offsets)[i]) for i in range(IMAGES)]
    assert all(count > 100 for count in counts), "no keypoint is lost"

    # A query that only the new part saw.
    features = here.place.features(here.place.poses[-2], NOISE, 20)
    assert localize_features(LocalizationMap.open(here.source), features, CAMERA).status is not Status.LOCALIZED
    found = localize_features(LocalizationMap.open(here.out), features, CAMERA)
    assert found.status is Status.LOCALIZED and pose_error(found.pose, here.place.poses[-2])[0] < 0.01

    # What is said.
    assert "new poses adjusted by, median, most" in result.stdout
    assert "photos taken in, left out" in result.stdout and "6, 1" in result.stdout
    assert "lost00.png: " in result.stdout and f"next: hfnet-map pack {here.out}" in result.stdout
    added = len(new.positions) - len(old.positions)
    more = int(((new.images >= OLD) & (new.landmarks < len(old.positions))).sum())
    assert f"{added}" in result.stdout and f"{more}" in result.stdout and more > 100
    assert cameras_path(here.out).read_bytes() == cameras_path(here.source).read_bytes()


def test_a_map_is_updated_again(here):
    for name in [f"w{i:02d}.png" for i in range(OLD + 1, IMAGES)]:
        (here.new / name).unlink()
    assert run(here).exit_code == 0
    once = read_content(here.out)
    again = here.root / "again.hfmap"
    shutil.copy(here.root / "all" / f"w{OLD + 1:02d}.png", here.new)
    given = ("update", here.out, "--images", here.new, "--model", here.model, "-o", again)
    result = CliRunner().invoke(main, [str(a) for a in given])
    assert result.exit_code == 0 and "photos that the map has already" in result.stdout, result.output
    twice = read_content(again)
    assert twice.names == (*once.names, f"w{OLD + 1:02d}.png") and len(twice.positions) > len(once.positions)


def test_new_poses_are_adjusted_among_old_ones(here):
    """They are nearer to the truth than localization alone put them; old images that saw a place alone help."""
    content, p = read_content(here.source), here.place
    features = [content.features(i) for i in range(OLD)] + [p.features(pose, NOISE, 20) for pose in p.poses[OLD:]]
    off = [Pose(pose.quaternion, pose.translation + p.rng.normal(0, 0.03, 3)) for pose in p.poses[OLD:]]
    views = [make_view(CAMERA, pose, f) for pose, f in zip([*content.poses, *off], features, strict=True)]
    rows = [content.observed(i) for i in range(OLD)]
    landmarks = Landmarks(
        content.positions,
        np.concatenate([content.landmarks[r] for r in rows]),
        np.repeat(np.arange(OLD), [len(r) for r in rows]),
        np.concatenate([np.arange(len(r)) for r in rows]),
    )
    matches = {
        (i, j): match_descriptors(features[i].descriptors, features[j].descriptors)
        for j in range(OLD, IMAGES)
        for i in range(j)
    }
    found = adjust_new(views, OLD, landmarks, matches)
    assert max(pose_error(a, b)[0] for a, b in zip(found.poses, p.poses[OLD:], strict=True)) < 0.01
    assert found.old.positions is content.positions and (found.old.images >= OLD).all() and len(found.old.images) > 100
    seen_by_old = np.unique(found.new.landmarks[found.new.images < OLD])
    assert 10 < len(seen_by_old) < len(found.new.positions)
    nearest = np.linalg.norm(found.new.positions[:, None] - p.landmarks, axis=-1).min(axis=1)
    assert np.median(nearest) < 0.02


def test_landmarks_that_no_matched_image_sees_hold_new_poses_too(monkeypatch):
    """In a large map a photo is matched with some old images, and localized by landmarks that others see."""
    p = wall()
    features = [p.features(pose, NOISE, 20) for pose in p.poses]
    names = [f"{i}.png" for i in range(IMAGES)]
    built, _ = map_from_features(names[:OLD], [CAMERA] * OLD, p.poses[:OLD], features[:OLD], EXTRACTOR)
    before = to_map(built_sections(built))
    photo = NewPhoto(names[OLD], CAMERA, False, features[OLD])
    monkeypatch.setattr(hfnet_maps.update, "select_pairs", lambda poses, looks: [])
    updated = update(before, content_of(before), [photo])
    assert updated.taken == (names[OLD],) and updated.observations > 100 and updated.landmarks == 0
    assert pose_error(updated.map.poses[-1], p.poses[OLD])[0] < 0.01


def test_nothing_new_is_said(here):
    for photo in here.new.iterdir():
        photo.unlink()
    refused(run(here), here, "there are no photos in")
    shutil.copy(here.root / "all" / "w00.png", here.new)
    refused(run(here), here, "nothing new", "1 photos are in", "names that the map does not have")


def test_photos_of_elsewhere_make_no_map(here):
    refused(run(here, images=_only(here, "lost00.png")), here, "none of 1 new photos", "lost00.png", "overlap")


def test_cameras_are_listed_stated_or_of_the_map(here):
    folder = _only(here, "w06.png", "w07.png")
    listed = here.root / "new.txt"
    listed.write_text(f"w06.png {CAMERA}\nw07.png\n")
    cameras_path(here.source).unlink()
    result = run(here, "--list", listed, images=folder)
    assert result.exit_code == 0 and "w07.png: the camera of" in result.stdout, result.output
    assert read_content(here.out).names[OLD:] == ("w06.png",)
    here.out.unlink()
    refused(run(here, "--camera", "of-map", images=folder), here, "no cameras beside it")
    assert run(here, "--camera", CAMERA, "--list", listed, images=folder).exit_code == 0
    assert read_content(here.out).names[OLD:] == ("w06.png", "w07.png")


def test_what_does_not_fit_is_refused(here, monkeypatch):
    refused(run(here, "-o", here.source), here, "another option names the same file")
    refused(run(here, images=here.root / "nowhere"), here, "no folder")
    packed = here.root / "packed.hfmap"
    write_map(Packer(read_content(here.source)).pack(Settings(CodecName.BINARY, 32, 0, 1, 16), 200), packed)
    refused(run(here, source=packed), here, "packed.hfmap is packed", "then pack the result")
    monkeypatch.setattr(FakeModel, "description", replace(EXTRACTOR, weights_hash="1" * 32))
    refused(run(here), here, "1" * 32)


def test_landmarks_that_fit_the_last_tile_move_nothing(here):
    before, content = LocalizationMap.open(here.source), read_content(here.source).without_keypoints()
    old = len(content.positions)
    room = -old % TILE_SIZE
    assert room
    far = content.positions[-1] + np.random.default_rng(0).uniform(100, 110, (600, 3))
    new = np.concatenate([far, np.repeat(content.positions[-1:], room, axis=0)])
    order = added_order(before, new)
    assert set(order[:room]) == set(range(600, 600 + room))
    np.testing.assert_array_equal(order[room:], spatial_order(far))
    grown = replace(
        content,
        positions=np.concatenate([content.positions, new[order]]),
        described=np.concatenate([content.described, old + np.arange(len(new))]),
        descriptors=np.concatenate([content.descriptors, np.zeros((len(new), 32), np.int8)]),
    )
    after = to_map(lay_out(grown, before))
    here_still = after.in_world(after.positions(np.arange(old)))
    assert here_still.tobytes() == content.positions.tobytes()


def test_new_landmarks_have_hypercolumns_too():
    p = wall()
    features = [p.features(pose, NOISE, 20) for pose in p.poses]
    rng = np.random.default_rng(0)
    dense = [rng.integers(-127, 127, (len(f.keypoints), 8)).astype(np.int8) for f in features]
    names = [f"{i}.png" for i in range(IMAGES)]
    built, _ = map_from_features(
        names[:OLD], [CAMERA] * OLD, p.poses[:OLD], features[:OLD], EXTRACTOR, hypercolumns=dense[:OLD]
    )
    before = to_map(built_sections(built))
    content = content_of(before)
    photos = [NewPhoto(names[i], CAMERA, False, features[i], dense[i]) for i in range(OLD, OLD + 3)]
    updated = update(before, content, photos)
    old, made = len(content.positions), updated.map
    assert updated.landmarks > 50 and made.hypercolumns.shape == (old + updated.landmarks, 8)
    np.testing.assert_array_equal(made.hypercolumns[:old], content.hypercolumns)
    for landmark in range(old, old + 20):
        rows = np.flatnonzero((made.landmarks == landmark) & (made.images >= OLD))  # the old images' are not kept
        assert len(rows)
        sums = np.zeros(8, np.int64)
        for row in rows:
            image = made.images[row]
            at = np.argmin(np.abs(features[image].keypoints - made.keypoints.observed[row]).sum(axis=1))
            sums += dense[image][at]
        np.testing.assert_array_equal(made.hypercolumns[landmark], quantize(sums[None])[0])


def test_trees_grow_anew_over_all_landmarks():
    p = wall()
    features = [p.features(pose, NOISE, 20) for pose in p.poses]
    patches = replace(EXTRACTOR, weights_hash="1" * 32, global_dim=0, outputs={"patch_descriptors": "out"})
    names = [f"{i}.png" for i in range(IMAGES)]
    built, _ = map_from_features(
        names[:OLD], [CAMERA] * OLD, p.poses[:OLD], features[:OLD], patches, retrieval=EXTRACTOR
    )
    before = to_map(built_sections(built))
    photos = [NewPhoto(names[i], CAMERA, False, features[i]) for i in range(OLD, OLD + 3)]
    updated = update(before, content_of(before), photos)
    after = to_map(added_sections(updated.map, before))
    assert len(updated.taken) == 3 and after.landmark_count > before.landmark_count
    assert set(after.trees.entries.tolist()) == set(range(after.landmark_count))


def _only(here, *names):
    folder = here.root / "some"
    folder.mkdir()
    for name in names:
        shutil.copy(here.root / "all" / name, folder)
    return folder
