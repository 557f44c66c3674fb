"""The map builder on a place without pictures: what went in is known, so what comes out can be measured."""

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import ImageError, InputError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.codecs import UNIT
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.matching import match
from hfnet_edge.pose.estimate import estimate_pose
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_maps.build import builder as build
from hfnet_maps.build import candidates
from hfnet_maps.build.builder import build_map, map_from_features
from hfnet_maps.build.candidates import select_pairs
from hfnet_maps.build.pairs import RATIO_PERCENT, agree_with_poses, match_descriptors
from hfnet_maps.build.reference import read_reference
from hfnet_maps.build.triangulation import MAX_REPROJECTION, MIN_ANGLE, triangulate
from hfnet_maps.build.view import make_view
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, to_map, write_map
from synthetic import CAMERA, EXTRACTOR, looking_at, place

DISTORTED = Camera("OPENCV", 640, 480, (500.0, 505.0, 321.0, 239.0, -0.3, 0.08, 0.002, -0.001))
OFFSET = np.array([1000.0, -2000.0, 50.0])
X, Y, UP = np.eye(3)


def build_place(p, camera=CAMERA, poses=None, features=None, noise=0.5, outliers=50):
    features = features or [p.features(pose, noise, outliers, camera) for pose in p.poses]
    poses = poses or p.poses
    names = [f"{i}.jpg" for i in range(len(poses))]
    return map_from_features(names, [camera] * len(names), poses, features, EXTRACTOR)


def distance_to_truth(p, m):
    """Of each landmark in the map to the nearest true one, and which that is."""
    distance = np.linalg.norm(m.positions[:, None] - p.landmarks[None], axis=-1)
    return distance.min(axis=1), distance.argmin(axis=1)


@pytest.fixture(scope="module")
def built():
    p = place(images=8)
    return p, *build_place(p)


def test_true_landmarks_are_recovered(built):
    p, m, report = built
    distance, nearest = distance_to_truth(p, m)
    # 0.5 pixels at f = 500 and 15 m are 1.5 cm.
    assert np.median(distance) < 0.015
    assert np.percentile(distance, 95) < 0.04
    assert len(set(nearest)) > 0.95 * len(p.landmarks)
    assert len(m.positions) < 1.05 * len(p.landmarks)
    assert report.landmarks == len(m.positions)


def test_reference_poses_are_as_given_to_the_last_bit(built):
    p, m, _ = built
    expected = [[*pose.quaternion, *pose.translation] for pose in p.poses]
    assert np.array_equal(to_map(full_sections(m)).image_poses, expected)


def test_an_observation_carries_the_descriptor_of_its_landmark(built):
    p, m, _ = built
    nearest = distance_to_truth(p, m)[1]
    true = p.descriptors[nearest[m.landmarks]]
    cosine = (m.descriptors.astype(float) * true).sum(axis=1) / UNIT
    assert cosine.min() > 0.95


def test_the_report_counts_what_is_in_the_map(built):
    _, m, report = built
    assert (report.images, report.pairs_tried) == (8, 28)
    assert report.observations == len(m.landmarks)
    assert report.mean_track_length == pytest.approx(report.observations / report.landmarks)
    assert 4 < report.mean_track_length < 8
    assert 0.3 < report.median_error < 0.7  # of 0.5 pixels of noise in each coordinate
    assert set(report.seconds) == {"match", "triangulate"}
    assert report.keypoints >= report.observations


def test_written_and_opened_it_localizes(built, tmp_path):
    p, m, _ = built
    size = write_map(full_sections(m), tmp_path / "a.hfmap")
    opened = LocalizationMap.open(tmp_path / "a.hfmap")
    assert (tmp_path / "a.hfmap").stat().st_size == size
    assert opened.landmark_count == len(m.positions) and opened.image_names == m.names
    truth = looking_at(OFFSET + 14 * np.array([np.cos(0.3), np.sin(0.3), 0.2]), OFFSET)
    query = p.features(truth, noise=0.5, outliers=100)
    estimate = estimate_pose(match(query, opened, np.arange(opened.landmark_count)), CAMERA, 8.0, PoseConfig())
    found = Pose(estimate.pose.quaternion, estimate.pose.translation - estimate.pose.rotation @ opened.origin)
    position, rotation = pose_error(found, truth)
    assert position < 0.02 and rotation < 0.1


def test_the_same_features_give_the_same_map(built):
    p = place(images=5, landmarks=200)
    features = [p.features(pose, 0.5, 20) for pose in p.poses]
    a, b = (build_place(p, features=features)[0] for _ in range(2))
    assert a.positions.tobytes() == b.positions.tobytes()
    assert a.descriptors.tobytes() == b.descriptors.tobytes()


def test_world_coordinates_may_be_as_far_as_utm():
    p = place(images=5, landmarks=200, offset=(500_000.0, 5_000_000.0, 300.0))
    m, _ = build_place(p)
    assert np.median(distance_to_truth(p, m)[0]) < 0.02


def test_distortion_is_taken_out():
    p = place(images=6)
    features = [p.features(pose, 0.1, 50, DISTORTED) for pose in p.poses]
    m, report = build_place(p, DISTORTED, features=features)
    distance, nearest = distance_to_truth(p, m)
    assert np.median(distance) < 0.004 and len(set(nearest)) > 0.95 * len(p.landmarks)
    assert report.median_error < 0.2
    # Taken for those of a camera without distortion, the same keypoints do not fit.
    m, report = build_place(p, CAMERA, features=features)
    assert np.median(distance_to_truth(p, m)[0]) > 0.008
    assert report.median_error > 0.4


def test_an_image_with_a_wrong_pose_observes_nothing():
    p = place(images=8)
    features = [p.features(pose, 0.5, 50) for pose in p.poses]
    poses = list(p.poses)
    poses[3] = looking_at(poses[3].center + UP * 4, OFFSET)
    m, _ = build_place(p, poses=poses, features=features)
    counts = np.bincount(m.images, minlength=8)
    assert counts[3] < 0.05 * np.median(counts)
    assert np.median(distance_to_truth(p, m)[0]) < 0.015


def test_poses_of_another_place_are_refused():
    p = place(images=6)
    rng = np.random.default_rng(5)
    strange = [looking_at(rng.uniform(-20, 20, 3), rng.uniform(-20, 20, 3)) for _ in p.poses]
    with pytest.raises(InputError, match="agree with the reference poses") as error:
        build_place(p, poses=strange, features=[p.features(pose, 0.5) for pose in p.poses])
    assert "of one place" in error.value.remedy


def test_cameras_that_only_turn_are_refused():
    p = place(images=3)
    poses = [looking_at(OFFSET - 15 * X, OFFSET + side * Y) for side in (-1.0, 0.0, 1.0)]
    with pytest.raises(InputError, match="in one place"):
        build_place(p, poses=poses, features=[p.features(pose, 0.5) for pose in poses])


def test_a_baseline_too_short_for_an_angle_is_refused():
    p = place(images=3)
    poses = [looking_at(OFFSET - 15 * X + side * Y, OFFSET) for side in (-0.05, 0.0, 0.05)]
    with pytest.raises(InputError, match=r"1\.5 degrees"):
        build_place(p, poses=poses, features=[p.features(pose, 0.1) for pose in poses])


def test_images_without_keypoints_take_part_but_observe_nothing():
    p = place(images=5)
    features = [p.features(pose, 0.5) for pose in p.poses]
    f = features[2]
    features[2] = Features(f.keypoints[:0], f.scores[:0], f.descriptors[:0], f.global_descriptor, 1.0)
    m, _ = build_place(p, features=features)
    assert 2 not in m.images and len(m.names) == 5
    with pytest.raises(InputError, match="at least two"):
        map_from_features(["a"], [CAMERA], p.poses[:1], features[:1], EXTRACTOR)


def test_thresholds_are_in_network_pixels():
    """The same place in images four times as large, with four times the noise, makes the same map."""
    p = place(images=6)
    small = [p.features(pose, 1.0) for pose in p.poses]
    large = [replace(f, keypoints=4 * f.keypoints, pixel=4.0) for f in small]
    camera = Camera("PINHOLE", 2560, 1920, tuple(4 * v for v in CAMERA.params))
    a, _ = build_place(p, features=small)
    b, report = build_place(p, camera, features=large)
    assert len(a.positions) == len(b.positions)
    assert np.abs(a.positions - b.positions).max() < 1e-4
    assert report.median_error < 1.2
    _, strict = build_place(p, camera, features=[replace(f, pixel=1.0) for f in large])
    assert strict.observations < 0.7 * report.observations


# --- the stages


def test_of_two_keypoints_on_one_landmark_the_nearer_stays():
    p = place(images=3, landmarks=1)
    point = p.landmarks[0]
    exact = [CAMERA.project(pose.transform(point[None])) for pose in p.poses]
    keypoints = [np.vstack([exact[0] + [2.0, 0], exact[0]]), exact[1], exact[2]]
    views = [
        make_view(CAMERA, pose, Features(xy, np.ones(len(xy)), np.zeros((len(xy), 32), np.int8), np.zeros(16), 1.0))
        for pose, xy in zip(p.poses, keypoints, strict=True)
    ]
    # Both keypoints of image 0 are matched: the wrong one with image 1, the right one with image 2.
    matches = {(0, 1): np.array([[0, 0]]), (0, 2): np.array([[1, 0]]), (1, 2): np.array([[0, 0]])}
    tracks = triangulate(views, matches)
    assert len(tracks.positions) == 1
    assert tracks.images.tolist() == [0, 1, 2]
    assert tracks.keypoints.tolist() == [1, 0, 0]
    assert np.linalg.norm(tracks.positions[0] - point) < 0.03


def test_tracks_fit_their_keypoints_best_and_within_the_thresholds():
    p = place(images=6)
    features = [p.features(pose, 2.0, 200) for pose in p.poses]  # much noise, so that the thresholds bite
    views = [make_view(CAMERA, pose, f) for pose, f in zip(p.poses, features, strict=True)]
    matches = {}
    for i, j in select_pairs(p.poses, p.globals_):
        rows = match_descriptors(features[i].descriptors, features[j].descriptors)
        matches[i, j] = rows[agree_with_poses(views[i], views[j], rows)]
    tracks = triangulate(views, matches)
    assert len(set(zip(tracks.landmarks.tolist(), tracks.images.tolist(), strict=True))) == len(tracks.landmarks)
    assert np.array_equal(np.unique(tracks.landmarks), np.arange(len(tracks.positions)))

    def errors(positions):
        result = np.empty((len(tracks.landmarks), 2))
        for i, pose in enumerate(p.poses):
            rows = np.flatnonzero(tracks.images == i)
            xy = CAMERA.project(pose.transform(positions[tracks.landmarks[rows]]))
            result[rows] = xy - features[i].keypoints[tracks.keypoints[rows]]
        return result

    here = errors(tracks.positions)
    assert np.allclose(np.linalg.norm(here, axis=1), tracks.errors, atol=1e-6)
    assert 3.5 < tracks.errors.max() < MAX_REPROJECTION
    for k in range(len(tracks.positions)):
        images = tracks.images[tracks.landmarks == k]
        rays = tracks.positions[k] - [p.poses[i].center for i in images]
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        assert len(images) >= 2 and np.degrees(np.arccos((rays @ rays.T).min())) > MIN_ANGLE
    # One more step of Gauss and Newton would hardly move a point.
    step = 1e-5
    jacobian = np.stack([(errors(tracks.positions + step * axis) - here) / step for axis in np.eye(3)], axis=2)
    moves = []
    for k in range(len(tracks.positions)):
        rows = tracks.landmarks == k
        moves.append(np.linalg.lstsq(jacobian[rows].reshape(-1, 3), here[rows].ravel(), rcond=None)[0])
    assert np.median(np.linalg.norm(moves, axis=1)) < 1e-4


def test_matches_are_mutual_and_distinct():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-25, 26, (n, 32)).astype(np.int8) for n in (150, 170))
    b[20:80] = a[:60] + rng.integers(-3, 4, (60, 32))
    b[100] = b[25]  # no longer distinct for a[5]
    a[130] = a[6]  # no longer distinct for b[26]

    distance = np.square(a[:, None].astype(int) - b[None]).sum(axis=2)
    expected = []
    for i in range(len(a)):
        j = int(distance[i].argmin())
        row, column = np.sort(distance[i]), np.sort(distance[:, j])
        if distance[:, j].argmin() == i and all(1e4 * s[0] < RATIO_PERCENT**2 * s[1] for s in (row, column)):
            expected.append((i, j))
    found = match_descriptors(a, b)
    assert found.tolist() == [list(pair) for pair in expected]
    assert {(i, i + 20) for i in range(60) if i not in (5, 6)} <= {tuple(pair) for pair in found.tolist()}
    assert not {5, 6, 130} & set(found[:, 0].tolist())


@pytest.mark.parametrize("sizes", [(0, 10), (10, 0), (1, 10), (10, 1)])
def test_one_descriptor_cannot_pass_a_ratio_test(sizes):
    a, b = (np.ones((n, 32), np.int8) for n in sizes)
    assert match_descriptors(a, b).shape == (0, 2)


def test_identical_descriptors_do_not_match_even_where_rounding_made_them_long():
    row = np.zeros(32, np.int8)
    row[:4] = 64  # norm 128
    same = np.stack([row, row])
    assert len(match_descriptors(same, same)) == 0


TWO = [looking_at(np.array([x, -10.0, 0]), np.zeros(3)) for x in (-2.0, 2.0)]


@pytest.mark.parametrize("pixel", [1.0, 2.0])
@pytest.mark.parametrize(("off", "agrees"), [(0.0, True), (2.5, True), (3.5, False)])
def test_epipolar_distance(off, agrees, pixel):
    points = np.random.default_rng(1).uniform(-2, 2, (50, 3))
    views = []
    for pose, shift in zip(TWO, (0.0, off * pixel), strict=True):  # the epipolar lines are nearly horizontal
        xy = CAMERA.project(pose.transform(points)) + np.array([0, shift])
        views.append(make_view(CAMERA, pose, Features(xy, np.ones(50), np.zeros((50, 32)), np.zeros(16), pixel)))
    rows = np.arange(50)
    assert (agree_with_poses(*views, np.stack([rows, rows], axis=1)) == agrees).mean() > 0.9


@pytest.mark.parametrize("zoomed", [0, 1])
def test_epipolar_distance_holds_in_both_images(zoomed):
    """2 pixels off in one image are 6 in the other, where that has three times the focal length."""
    points = np.random.default_rng(1).uniform(-2, 2, (50, 3))
    cameras = [replace(CAMERA, params=tuple(v * (3 if i == zoomed else 1) for v in CAMERA.params)) for i in (0, 1)]
    views = []
    for i, (camera, pose) in enumerate(zip(cameras, TWO, strict=True)):
        xy = camera.project(pose.transform(points)) + np.array([0, 0 if i == zoomed else 2.0])
        views.append(make_view(camera, pose, Features(xy, np.ones(50), np.zeros((50, 32)), np.zeros(16), 1.0)))
    assert not agree_with_poses(*views, np.stack([np.arange(50)] * 2, axis=1)).any()


def test_points_behind_the_cameras_do_not_agree():
    """Mirrored through both centres a point keeps its epipolar lines; only its depth tells."""
    front = np.random.default_rng(2).uniform(-1, 1, (20, 3))
    away = [looking_at(pose.center, pose.center - Y) for pose in TWO]
    pairs = np.stack([np.arange(20)] * 2, axis=1)

    def views(poses):
        result = []
        for pose in poses:
            camera_points = pose.transform(front)
            xy = camera_points[:, :2] / camera_points[:, 2:] * CAMERA.focal + CAMERA.matrix[:2, 2]  # also behind
            result.append(make_view(CAMERA, pose, Features(xy, np.ones(20), np.zeros((20, 32)), np.zeros(16), 1.0)))
        return result

    assert agree_with_poses(*views(TWO), pairs).all()
    assert not agree_with_poses(*views(away), pairs).any()


def test_all_pairs_of_few_images():
    p = place(images=12)
    assert len(select_pairs(p.poses, p.globals_)) == 66


def test_pairs_of_many_images(monkeypatch):
    monkeypatch.setattr(candidates, "SIMILAR", 2)
    monkeypatch.setattr(candidates, "NEAR", 4)
    centers = np.array([[x, 0.0, 0.0] for x in range(100)])
    centers[1] = centers[0]  # no baseline
    # Images 40 to 49 look the other way.
    poses = [looking_at(c, c + (-Y if 40 <= i < 50 else Y)) for i, c in enumerate(centers)]
    rng = np.random.default_rng(0)
    globals_ = rng.integers(-20, 21, (100, 16)).astype(np.int8)
    globals_[80] = globals_[7] = 31
    pairs = select_pairs(poses, globals_)
    assert pairs == sorted(set(pairs)) and all(i < j for i, j in pairs)
    assert (7, 80) in pairs  # far away, but they look alike
    assert {(20, 21), (20, 22), (44, 45)} <= set(pairs)
    assert (0, 1) not in pairs
    assert len(pairs) < 100 * (2 + 4)
    dots = globals_.astype(int) @ globals_.T.astype(int)
    np.fill_diagonal(dots, -(10**6))
    alike = {(min(i, j), max(i, j)) for i in range(100) for j in np.argsort(-dots[i], kind="stable")[:2].tolist()}
    opposite = {(i, j) for i, j in pairs if (40 <= i < 50) != (40 <= j < 50)}
    assert opposite <= alike  # only their looks can bring them together
    assert alike - {(0, 1)} <= set(pairs)


# --- from files


@pytest.fixture
def files(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    reference = tmp_path / "reference"
    reference.mkdir()
    p = place(images=5, landmarks=300)
    (reference / "cameras.txt").write_text(f"1 {CAMERA}\n")
    lines = []
    for i, pose in enumerate(p.poses):
        values = " ".join(f"{v:.17g}" for v in (*pose.quaternion, *pose.translation))
        lines.append(f"{i + 1} {values} 1 {i}.jpg\n\n")
        (images / f"{i}.jpg").write_bytes(b"not looked into")
    (reference / "images.txt").write_text("".join(lines))
    return p, images, reference


class NoNetwork:
    description = EXTRACTOR


@pytest.fixture
def features_by_name(files, monkeypatch):
    """Stands in for the network: the features that it would find."""
    p, _, _ = files
    monkeypatch.setattr(build, "load_photo", lambda path, size, camera: path)
    monkeypatch.setattr(build, "extract", lambda networks, path: p.features(p.poses[int(path.stem)], 0.5, 20))


def test_a_map_from_files(files, features_by_name):
    p, images, reference = files
    seen = []
    names = ["3.jpg", "0.jpg", "1.jpg"]
    m, report = build_map(images, reference, names, NoNetwork(), lambda *step: seen.append(step))
    assert m.names == tuple(names)
    assert np.median(distance_to_truth(p, m)[0]) < 0.03
    true = read_reference(reference)
    for i, name in enumerate(names):
        assert np.array_equal(m.poses[i].quaternion, true.pose(name).quaternion)
        assert np.array_equal(m.poses[i].translation, true.pose(name).translation)
    assert [step for step in seen if step[1] == step[2]] == [("extract", 3, 3), ("match", 3, 3), ("triangulate", 1, 1)]
    assert set(report.seconds) == {"extract", "match", "triangulate"}


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["0.jpg", "nowhere.jpg"], InputError, "no image nowhere.jpg"),
        (["0.jpg", "1.jpg", "0.jpg"], InputError, "0.jpg more than once"),
        (["0.jpg"], InputError, "at least two"),
    ],
)
def test_a_wrong_list_is_refused_by_name(files, features_by_name, names, error, message):
    _, images, reference = files
    with pytest.raises(error, match=message):
        build_map(images, reference, names, NoNetwork())


def test_a_missing_image_is_named_before_any_work(files, monkeypatch):
    _, images, reference = files
    (images / "4.jpg").unlink()
    monkeypatch.setattr(build, "extract", lambda *_: pytest.fail("worked before it checked"))
    with pytest.raises(ImageError, match=r"1 of 3 images are not in .*, first 4\.jpg"):
        build_map(images, reference, ["0.jpg", "1.jpg", "4.jpg"], NoNetwork())
