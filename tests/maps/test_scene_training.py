"""Scene networks are trained from maps: they name what they were taught, go on where they were ended, and refuse."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.localizer import localize_query
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.methods.scene_coordinates import SceneCoordinates, landmarks_of
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.scene import SceneModel
from hfnet_edge.result import Status
from hfnet_export.training.scene_stage import SceneTraining
from hfnet_maps.build import scene_training
from hfnet_maps.build.scene_labels import BRANCHES, branches_of, label
from hfnet_maps.build.scene_training import BEST, STATE, left_out_images, observations_of, train_scene
from hfnet_maps.content import BuiltMap
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, in_file_order, to_map
from synthetic import CAMERA, looking_at, place

TRUTH = looking_at(np.array([1013.0, -1996.0, 52.0]), np.array([1000.0, -2000.0, 50.0]))
SHORT = SceneTraining(steps=700, batch=256)


@pytest.mark.parametrize("count", [1, 5, 37, 300, 2000])
def test_labels_are_parts_of_equal_size_that_lie_together(count):
    xyz = np.random.default_rng(count).normal(size=(count, 3)) * (10, 10, 1)
    branches = branches_of(count)
    labels = label(xyz, branches)
    assert len(branches) == 3 and max(branches[:2]) <= BRANCHES and np.prod(branches) < 2 * count + 8
    assert labels.min() >= 0 and (labels < branches).all()
    assert len(np.unique(labels, axis=0)) == count, "no two landmarks have the same labels"
    sizes = np.bincount(labels[:, 0])
    assert sizes.max() <= -(-count // branches[0])
    if count >= 300:
        spread = [xyz[labels[:, 0] == part].std(axis=0).mean() for part in range(branches[0])]
        assert np.mean(spread) < 0.6 * xyz.std(axis=0).mean()
    assert np.array_equal(labels, label(xyz, branches))


def test_landmarks_in_one_spot_have_labels_too():
    assert len(np.unique(label(np.zeros((100, 3)), branches_of(100)), axis=0)) == 100


@pytest.fixture(scope="module")
def town():
    p = place(landmarks=400)
    return p, in_file_order(p.source())


@pytest.fixture(scope="module")
def trained(town, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    source, told = train_scene(town[1], folder / "scene.tflite", folder / "run", width=64, training=SHORT)
    return folder, source, told


def test_a_trained_network_finds_new_views(town, trained):
    p, _ = town
    folder, source, told = trained
    assert told.landmarks == 400 and told.branches == branches_of(400) and told.left_out == len(left_out_images(12))
    assert told.held_out > 0.8 and told.export.fidelity.labels > 0.9
    map_ = to_map(full_sections(source))
    config = LocalizationConfig("scene-coordinates", max_wrong=0.9)
    method = SceneCoordinates(map_, Networks(folder / "scene.tflite"), config)
    r = localize_query(method, Query(1.0, p.features(TRUTH, noise=0.3, outliers=200)), CAMERA)
    assert r.status is Status.LOCALIZED and pose_error(r.pose, TRUTH)[0] < 0.03
    assert r.inliers > 200 and r.inlier_ratio > 0.6, "keypoints of nothing are known as such"


def test_each_keypoint_is_named_alone_and_always_alike(town, trained):
    network = SceneModel(trained[0] / "scene.tflite", threads=1)
    descriptors = town[1].descriptors[:700]  # more than a block
    all_at_once = network(descriptors)
    assert np.array_equal(network(descriptors[::-1]), all_at_once[::-1])
    assert np.array_equal(SceneModel(trained[0] / "scene.tflite", threads=2)(descriptors), all_at_once)
    assert network(descriptors[:0]).shape == (0, 4)
    named = landmarks_of(trained[1].scene, all_at_once)
    assert (named >= 0).sum() > 0.7 * len(np.unique(town[1].landmarks[:700]))
    with pytest.raises(ValueError, match="int8"):
        network(descriptors.astype(np.float32))


def test_a_run_that_was_ended_goes_on(town, tmp_path, monkeypatch):
    monkeypatch.setattr(scene_training, "CHECKPOINT", 20)
    training, steps = SceneTraining(steps=60, batch=64), []

    def ended(stage, done, total, note=""):
        steps.append(done)
        if done == 45 and stage.startswith("training"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_scene(town[1], tmp_path / "a.tflite", tmp_path / "run", 32, training=training, report=ended)
    assert not (tmp_path / "a.tflite").exists() and (tmp_path / "run" / STATE).exists()
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    steps.clear()
    train_scene(
        town[1],
        tmp_path / "a.tflite",
        tmp_path / "run",
        32,
        training=training,
        report=lambda *a, **k: steps.append(a[1]),
    )
    assert min(step for step in steps if step > 1) == 41, "from the last checkpoint"
    assert (tmp_path / "a.tflite").stat().st_size > 10_000
    with pytest.raises(InputError, match="another training"):
        train_scene(town[1], tmp_path / "b.tflite", tmp_path / "other", 48, training=training)
    (tmp_path / "other" / BEST).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match="damaged"):
        train_scene(town[1], tmp_path / "b.tflite", tmp_path / "other", 32, training=training)


def test_a_network_that_is_told_images(town, tmp_path):
    p, source = town
    training = SceneTraining(steps=250, batch=256)
    source, _ = train_scene(source, tmp_path / "s.tflite", tmp_path / "run", 48, by_image=True, training=training)
    network = SceneModel(tmp_path / "s.tflite")
    assert network.takes_image
    rows = source.observed(4)
    named = [landmarks_of(source.scene, network(source.descriptors[rows], image)) for image in (4, 4, 10)]
    assert np.array_equal(named[0], named[1]) and not np.array_equal(named[0], named[2])
    method = SceneCoordinates(
        to_map(full_sections(source)), Networks(network), LocalizationConfig("scene-coordinates", max_wrong=0.9)
    )
    r = localize_query(method, Query(1.0, p.features(TRUTH, noise=0.3)), CAMERA)
    assert r.status is Status.LOCALIZED and pose_error(r.pose, TRUTH)[0] < 0.05


def test_what_is_too_little_is_refused(town):
    _, source = town
    with pytest.raises(InputError, match="too few to teach"):
        observations_of(source.without_images(np.arange(2, 12)))
    with pytest.raises(InputError, match="too few to teach"):
        observations_of(_few(source, 5))


def _few(source: BuiltMap, landmarks: int) -> BuiltMap:
    rows = source.landmarks < landmarks
    return replace(
        source, positions=source.positions[:landmarks], landmarks=source.landmarks[rows], images=source.images[rows],
        descriptors=source.descriptors[rows],
        keypoints=replace(source.keypoints, observed=source.keypoints.observed[rows]),
    )  # fmt: skip


def test_left_out_images_are_spread():
    assert left_out_images(3).tolist() == [1] and left_out_images(24).tolist() == [8, 15]
    assert len(left_out_images(1000)) == 20


def test_the_map_is_the_same_but_for_the_tree(town, trained, tmp_path):
    path: Path = tmp_path / "m.hfmap"
    from hfnet_maps.pack.writer import write_map

    write_map(full_sections(trained[1]), path)
    m, before = LocalizationMap.open(path), to_map(full_sections(town[1]))
    assert {int(k) for k in m.file.sections} - {int(k) for k in before.file.sections} == {28, 29}
    for kind in before.file.sections:
        if kind not in (1,):
            assert m.file.bytes(kind) == before.file.bytes(kind)


def test_a_full_disk_is_said(town, tmp_path, monkeypatch):
    import tensorflow as tf

    def full(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.train.CheckpointManager, "save", full)
    with pytest.raises(OutputError, match=r"stopped: No space left.*the same command goes on"):
        train_scene(town[1], tmp_path / "a.tflite", tmp_path / "run", 32, training=SceneTraining(steps=2, batch=64))
    assert not (tmp_path / "a.tflite").exists()
