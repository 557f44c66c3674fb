"""Frame and scale of a model of photos: by positions, device poses, GPS, one distance; and what is refused."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.map.georeference import metres_per_degree
from hfnet_maps.build.pairs import match_descriptors
from hfnet_maps.build.photos import find_photos
from hfnet_maps.build.placement import GPS, ByCameras, ByDistance, Distance
from hfnet_maps.build.structure import network_camera, reconstruct, verify_geometry
from hfnet_maps.evaluation.alignment import robust_similarity
from photo_places import write_photo
from synthetic import CAMERA, place

LATITUDE, LONGITUDE = 55.7, 13.19


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """Photos of a place, what a network finds in them, the models, and the place."""
    folder, p = tmp_path_factory.mktemp("photos"), place(3, landmarks=300, images=8, offset=(0.0, 0, 0))
    for i, pose in enumerate(p.poses):
        east, north, up = pose.center
        by_latitude, by_longitude = metres_per_degree(LATITUDE)
        exif = Image.Exif()
        exif[ExifTags.IFD.GPSInfo] = {
            1: "N", 2: (LATITUDE + north / by_latitude, 0.0, 0.0),
            3: "E", 4: (LONGITUDE + east / by_longitude, 0.0, 0.0),
            5: b"\0", 6: 40 + up,
        }  # fmt: skip
        write_photo(folder / f"{i:02d}.jpg", i, exif)
    photos = find_photos(folder)
    features = [p.features(pose, 0.2, 10) for pose in p.poses]
    camera, geometries = network_camera(photos.devices[0], 1.0), {}
    for i, j in combinations(range(len(features)), 2):
        rows = match_descriptors(features[i].descriptors, features[j].descriptors)
        geometries[i, j] = verify_geometry(camera, camera, features[i].keypoints, features[j].keypoints, rows)
    (model,) = reconstruct(photos, features, {pair: found for pair, found in geometries.items() if found is not None})
    return photos, features, model, p


def check(placed, p, by=0.05):
    for i, pose in enumerate(p.poses):
        assert placed.model.poses[i].center == pytest.approx(pose.center, abs=by)
    return placed


def write_csv(path: Path, p, wrong=()):
    rows = [pose.center + (50 if i in wrong else 0) for i, pose in enumerate(p.poses)]
    path.write_text("name,x,y,z\n" + "".join(f"{i:02d}.jpg,{x},{y},{z}\n" for i, (x, y, z) in enumerate(rows)))
    return str(path)


def test_positions_of_a_list_with_wrong_ones(registered, tmp_path):
    photos, features, model, p = registered
    placed = check(ByCameras(write_csv(tmp_path / "p.csv", p, wrong=(2, 5)))(photos, features, model), p)
    assert np.flatnonzero(~placed.agree).tolist() == [2, 5] and placed.off[2] > 80 and placed.unit == "units"
    assert np.median(placed.off) < 0.05


def test_device_poses_of_two_formats(registered, tmp_path):
    photos, features, model, p = registered
    frames = []
    for i, pose in enumerate(p.poses):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = pose.rotation.T * (1, -1, -1), pose.center
        frames.append({"file_path": f"./images/{i:02d}", "transform_matrix": matrix.tolist()})
    (tmp_path / "transforms.json").write_text(json.dumps({"frames": frames}))
    check(ByCameras(str(tmp_path / "transforms.json"))(photos, features, model), p)
    lines = [
        f"{i} {' '.join(map(str, pose.center))} {' '.join(map(str, np.roll(pose.inverse.quaternion, -1)))}\n"
        for i, pose in enumerate(p.poses)
    ]
    (tmp_path / "tum.txt").write_text("".join(lines))
    check(ByCameras(str(tmp_path / "tum.txt"))(photos, features, model), p)

    line = [np.array([3.0 * i, 0, 0]) for i in range(8)]  # all of them in a row: poses still say how it is turned
    assert turned_about_a_row(line) < 1e-6


def turned_about_a_row(centers):
    """Degrees that a row of cameras is turned wrongly about itself, where poses are known."""
    rng = np.random.default_rng(0)
    turns = [Pose(q / np.linalg.norm(q), np.zeros(3)) for q in rng.normal(size=(len(centers), 4))]
    poses = [Pose(t.quaternion, -t.rotation @ c) for t, c in zip(turns, centers, strict=True)]
    world = Pose(np.array([0.5, 0.5, -0.5, 0.5]), np.array([1.0, 2, 3]))
    known = [Pose(q.quaternion, 2 * q.translation) for q in (pose @ world.inverse for pose in poses)]
    similarity, _ = robust_similarity(poses, known, "x")
    assert similarity.scale == pytest.approx(2)
    left = similarity.rotation @ world.rotation.T
    return np.degrees(np.arccos(np.clip((np.trace(left) - 1) / 2, -1, 1)))


def test_gps_gives_metres_and_the_place_on_earth(registered):
    photos, features, model, p = registered
    placed = ByCameras(GPS)(photos, features, model)
    assert placed.unit == "m" and placed.off.max() < 0.05
    centers = np.stack([placed.model.poses[i].center for i in range(8)])
    true = np.stack([pose.center for pose in p.poses])
    assert centers - centers[0] == pytest.approx(true - true[0], abs=0.1)
    assert placed.earth.to_wgs84(centers[3])[0] == pytest.approx(LATITUDE + true[3, 1] / metres_per_degree(LATITUDE)[0])


def test_one_distance_gives_metres(registered):
    photos, features, model, p = registered
    a, b = p.landmarks[0], p.landmarks[1]
    ends = [
        f"{i:02d}.jpg:{','.join(map(str, CAMERA.project(p.poses[i].transform(x[None]))[0]))}"
        for i, x in ((0, a), (4, b))
    ]
    metres = float(np.linalg.norm(a - b))
    placed = ByDistance(Distance.parse(f"{ends[0]} {ends[1]} {100 * metres}cm"))(photos, features, model)
    apart = [
        np.linalg.norm(placed.model.poses[0].center - placed.model.poses[4].center),
        np.linalg.norm(p.poses[0].center - p.poses[4].center),
    ]
    assert apart[0] == pytest.approx(apart[1], rel=0.1) and placed.unit == "m"
    with pytest.raises(InputError, match="does not have"):
        ByDistance(Distance.parse("x.jpg:1,2 01.jpg:3,4 1m"))(photos, features, model)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.jpg:1,2 1m",
        "a.jpg:1,2 b.jpg:3 1m",
        "a.jpg:1,2 b.jpg:3,4 0m",
        "a.jpg:1,2 b.jpg:3,nan 1m",
        "a.jpg:1,2 b.jpg:3,4 1 mile",
    ],
)
def test_distances_that_are_none(text):
    with pytest.raises(InputError, match="--distance"):
        Distance.parse(text)


def test_what_places_nothing_is_refused(registered, tmp_path):
    photos, features, model, _ = registered
    for name, text, words in (
        ("a.csv", "name,x,y,z\n00.jpg,1,2,nan\n", "line 2"),
        ("b.csv", "image,x\n", "knows 0"),
        ("c.csv", "name,x,y,z\nother.jpg,1,2,3\n", "knows 0 of 8"),
        ("d.csv", "name,x,y,z\n" + "".join(f"{i:02d}.jpg,1,2,3\n" for i in range(8)), "one place"),
        ("e.csv", "name,x,y,z\n" + "".join(f"{i:02d}.jpg,{i},2,3\n" for i in range(8)), "in a line"),
        ("f.json", "{}", "lacks 'frames'"),
        ("g.json", '{"frames": [{"file_path": "00", "transform_matrix": [[NaN]]}]}', "pose of 00 is none"),
        (
            "h.json",
            json.dumps({"frames": [{"file_path": "00", "transform_matrix": np.zeros((4, 4)).tolist()}]}),
            "no rotation",
        ),
        ("i.txt", "not a trajectory\n", "line 1"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=words):
            ByCameras(str(tmp_path / name))(photos, features, model)
    with pytest.raises(InputError, match="knows 0 of 8"):
        ByCameras(str(tmp_path / "c.csv")).check(photos)  # before the work
    with pytest.raises(InputError, match="not among the photos"):
        ByDistance(Distance.parse("x.jpg:1,2 01.jpg:3,4 1m")).check(photos)
    with pytest.raises(InputError, match="cannot read"):
        ByCameras(str(tmp_path / "missing.csv"))(photos, features, model)
