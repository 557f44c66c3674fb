"""Refinement of poses that were moved off the truth, on a place without pictures: the truth is known."""

from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from typer.testing import CliRunner

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks import by_role
from hfnet_maps.build import builder
from hfnet_maps.build.builder import MIN_AGREEMENT, map_from_features
from hfnet_maps.cli import main
from hfnet_maps.evaluation.errors import pose_error
from synthetic import CAMERA, EXTRACTOR, place


def drifted(poses, degrees, length, seed=1):
    """Poses off by smooth drift and a little noise; ``degrees`` and ``length`` are root mean squares."""
    rng = np.random.default_rng(seed)
    phase = 2 * np.pi * np.arange(len(poses))[:, None] / len(poses)
    turns, shifts = (np.sin(phase + rng.uniform(0, 7, 3)) + 0.1 * rng.normal(size=(len(poses), 3)) for _ in range(2))
    turns *= np.radians(degrees) / np.sqrt((turns**2).sum(axis=1).mean())
    shifts *= length / np.sqrt((shifts**2).sum(axis=1).mean())
    off = []
    for pose, turn, shift in zip(poses, turns, shifts, strict=True):
        angle = np.linalg.norm(turn)
        turned = pycolmap.Rotation3d(np.append(np.sin(angle / 2) * turn / angle, np.cos(angle / 2))).matrix()
        rotation = turned @ pose.rotation
        off.append(Pose.from_matrix(rotation, -rotation @ (pose.center + shift)))
    return off


def errors(poses, truth):
    """(M,) positions and (M,) degrees off, where all poses are laid on the true ones as one, at their scale."""
    to_true = pycolmap.estimate_sim3d(*(np.stack([p.center for p in each]) for each in (poses, truth)))
    assert to_true.scale == pytest.approx(1, abs=0.02)
    turn = to_true.rotation.matrix()
    laid = []
    for pose in poses:
        rotation = pose.rotation @ turn.T
        center = to_true.scale * turn @ pose.center + to_true.translation
        laid.append(Pose.from_matrix(rotation, -rotation @ center))
    return np.array([pose_error(p, t) for p, t in zip(laid, truth, strict=True)]).T


def build(p, poses, features=None, refine=True):
    features = features or [p.features(pose, 0.5, 50) for pose in p.poses]
    names = [f"{i}.jpg" for i in range(len(poses))]
    return map_from_features(names, [CAMERA] * len(names), poses, features, EXTRACTOR, refine=refine)


@pytest.fixture(scope="module")
def refined():
    p = place(images=8, landmarks=200)
    off = drifted(p.poses, 3.0, 0.3)
    features = [p.features(pose, 0.5, 20) for pose in p.poses]
    return p, off, features, *build(p, off, features)


def test_poses_that_were_off_are_found(refined):
    p, off, _, built, _ = refined
    position, rotation = errors(off, p.poses)
    assert np.median(position) > 0.09 and np.median(rotation) > 2
    position, rotation = errors(built.poses, p.poses)
    assert position.max() < 0.03 and rotation.max() < 0.15


def test_the_map_stays_in_the_given_frame(refined):
    _, off, _, built, _ = refined
    centers = [np.mean([p.center for p in poses], axis=0) for poses in (off, built.poses)]
    assert np.linalg.norm(centers[0] - centers[1]) < 0.02
    spreads = [np.std([p.center for p in poses], axis=0) for poses in (off, built.poses)]
    assert spreads[1] == pytest.approx(spreads[0], rel=0.02, abs=0.1)


def test_landmarks_agree_with_the_refined_poses(refined):
    _, _, _, built, report = refined
    assert report.median_error < 0.8
    assert report.observations > 1.5 * build_as_given(refined).observations
    xy = np.concatenate([CAMERA.project(p.transform(built.positions)) for p in built.poses]).reshape(8, -1, 2)
    seen = np.linalg.norm(xy[built.images, built.landmarks] - built.keypoints.observed, axis=1)
    assert np.median(seen) == pytest.approx(report.median_error, rel=0.05)


def build_as_given(refined):
    p, off, features, _, _ = refined
    return build(p, off, features, refine=False)[1]


def test_the_report_says_how_far_poses_moved_and_what_came_of_it(refined):
    _, off, _, built, report = refined
    moved = [pose_error(a, b) for a, b in zip(off, built.poses, strict=True)]
    assert np.allclose(np.stack([report.refinement.moved, report.refinement.turned], axis=1), moved)
    assert report.refinement.error_before > 5 > 0.8 > report.refinement.error_after
    assert "refine poses" in report.seconds


def test_only_poses_that_are_off_are_said_to_contradict_the_matches(refined):
    p, _, features, _, report = refined
    assert report.contradicted and report.agreement < 0.3
    exact = build(p, p.poses, features, refine=False)[1]
    assert not exact.contradicted and exact.agreement > 0.7 > MIN_AGREEMENT
    assert exact.refinement is None


def test_exact_poses_stay_where_they_are():
    p = place(images=5, landmarks=200)
    built, report = build(p, p.poses)
    assert report.refinement.moved.max() < 0.03 and report.refinement.turned.max() < 0.15
    assert errors(built.poses, p.poses)[0].max() < 0.03


def test_the_same_input_gives_the_same_poses():
    p = place(images=4, landmarks=120)
    features = [p.features(pose, 0.5, 20) for pose in p.poses]
    off = drifted(p.poses, 2.0, 0.2)
    a, b = (build(p, off, features)[0] for _ in range(2))
    assert [x.translation.tobytes() for x in a.poses] == [x.translation.tobytes() for x in b.poses]
    assert a.positions.tobytes() == b.positions.tobytes()


def test_an_image_without_matches_stays_where_it_was_even_as_far_as_utm():
    p = place(images=6, landmarks=150, offset=(500_000.0, 5_000_000.0, 300.0))
    features = [p.features(pose, 0.5, 20) for pose in p.poses]
    strange = p.rng.integers(-60, 60, features[3].descriptors.shape, dtype=np.int8)
    features[3] = replace(features[3], descriptors=strange)
    off = drifted(p.poses, 2.0, 0.2)
    built, report = build(p, off, features)
    assert report.refinement.moved[3] < 1e-9 and report.refinement.turned[3] < 1e-5
    others = [0, 1, 2, 4, 5]
    position, rotation = errors([built.poses[i] for i in others], [p.poses[i] for i in others])
    assert position.max() < 0.1 and rotation.max() < 0.5


def test_cameras_on_a_line_do_not_roll_about_it():
    p = place(images=2, landmarks=200)
    first = p.poses[0]
    along = [Pose(first.quaternion, first.translation - np.array([x, 0, 0])) for x in np.linspace(-4, 4, 5)]
    features = [p.features(pose, 0.5, 20) for pose in along]
    _, report = build(p, drifted(along, 2.0, 0.2), features)
    assert report.refinement.turned.max() < 6


def test_images_that_share_nothing_are_refused():
    p = place(images=4, landmarks=200)
    features = [p.features(pose, 0.5) for pose in p.poses]
    features = [replace(f, descriptors=p.rng.integers(-60, 60, f.descriptors.shape, dtype=np.int8)) for f in features]
    with pytest.raises(InputError, match="nothing to refine poses by"):
        build(p, p.poses, features)


@pytest.fixture
def build_command(refined, tmp_path, monkeypatch):
    """`hfnet-map build` on the drifted poses, with the network replaced by what it would find."""
    _, off, features, _, _ = refined

    class FakeModel:
        description = EXTRACTOR

        def __init__(self, path, threads=2):
            self.path = path

    monkeypatch.setattr(by_role, "open_network", FakeModel)
    monkeypatch.setattr(builder, "load_photo", lambda path, size, camera: path)
    monkeypatch.setattr(builder, "extract", lambda networks, path: features[int(path.stem)])
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "cameras.txt").write_text(f"1 {CAMERA}\n")
    lines = []
    for i, pose in enumerate(off):
        values = " ".join(f"{v:.17g}" for v in (*pose.quaternion, *pose.translation))
        lines.append(f"{i + 1} {values} 1 {i}.jpg\n\n")
        (tmp_path / f"{i}.jpg").write_bytes(b"not looked into")
    (tmp_path / "reference" / "images.txt").write_text("".join(lines))
    (tmp_path / "m.tflite").write_bytes(b"")
    options = ["--images", tmp_path, "--reference", tmp_path / "reference", "--model", tmp_path / "m.tflite"]
    options += ["-o", tmp_path / "a.hfmap"]
    return lambda *more: CliRunner().invoke(main, ["build", *map(str, options), *more])


def test_the_command_names_the_remedy_until_it_is_taken(build_command, refined, tmp_path):
    as_given = build_command()
    assert as_given.exit_code == 0, as_given.output
    assert "the poses contradict the matches" in as_given.stdout and "--refine-poses" in as_given.stdout
    result = build_command("--refine-poses")
    assert result.exit_code == 0, result.output
    assert "contradict" not in result.stdout
    refinement = refined[4].refinement
    for words in ("moved by", "turned by", "degrees", f"{refinement.error_before:.2f}, {refinement.error_after:.2f}"):
        assert words in result.stdout
    poses = LocalizationMap.open(tmp_path / "a.hfmap").image_poses
    assert np.allclose(poses, [[*pose.quaternion, *pose.translation] for pose in refined[3].poses], atol=1e-6)
