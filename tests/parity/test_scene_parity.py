"""Parity of scene coordinates: int8 networks against float ones, the same bits twice, and bench."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hfnet_edge.errors import MismatchError
from hfnet_edge.record.bench import BenchJob, bench
from hfnet_edge.record.recording_file import to_bytes
from hfnet_edge.record.runner import IMAGES, MAP, SCENE
from hfnet_edge.record.runner import record as run_record
from hfnet_export.training.scene_stage import SceneTraining
from hfnet_maps.build import scene_training
from hfnet_maps.build.reference import read_reference
from hfnet_maps.build.scene_training import train_scene
from hfnet_maps.cli import main as map_main
from hfnet_maps.content import read_content
from hfnet_maps.pack.writer import full_sections, lay_out, write_map
from hfnet_parity.bundle import Bundle
from hfnet_parity.record import load_network, record
from hfnet_parity.run import judge

METHOD, WIDTH, TRAINING = "scene-coordinates", 128, SceneTraining(steps=1500, batch=512)


@pytest.fixture(scope="module")
def scene(kit, tmp_path_factory) -> Path:
    """A folder: int8.tflite and float.tflite of one training, and the map with its labels."""
    folder, place = tmp_path_factory.mktemp("scene"), read_content(kit.map)
    with pytest.MonkeyPatch.context() as few:
        few.setattr(scene_training, "LANDMARKS", 1500)
        for quantize, name in (("int8", "int8"), ("none", "float")):
            output = folder / f"{name}.tflite"
            trained, _ = train_scene(place, output, folder / "run", WIDTH, training=TRAINING, quantize=quantize)
    write_map(full_sections(trained), folder / "scene.hfmap")
    return folder


@pytest.fixture(scope="module")
def bundle(kit, scene) -> Bundle:
    """What the float networks say."""
    path, place = scene / "ref.bundle", kit.root / "place"
    queries = [(q.name, q.camera) for q in kit.bundle.recording.queries]
    networks = [load_network(str(file)) for file in (kit.root / "float.tflite", scene / "float.tflite")]
    truth = dict(read_reference(place / "reference").poses)
    record(networks, scene / "scene.hfmap", place / "images", queries, path, truth, method=METHOD)
    return Bundle.read(path)


def job_of(kit, scene, folder):
    folder, job = kit.job(folder, map_=scene / "scene.hfmap")
    shutil.copy(scene / "int8.tflite", folder / SCENE)
    return folder, replace(job, method=METHOD)


@pytest.mark.slow
def test_int8_holds_against_float(kit, scene, bundle, tmp_path):
    recording = run_record(*job_of(kit, scene, tmp_path / "job"))
    verdict = judge(bundle, recording, scene / "scene.hfmap", "test")
    failed = [(v.measure.key, v.value, v.limit) for v in verdict.comparison.values if v.passed is False]
    assert verdict.passed, failed
    assert sum(q.pose is not None for q in recording.queries) >= 3
    assert recording.about["scene_precision"] == "int8" and recording.about["scene_weights_hash"]
    assert to_bytes(recording) == to_bytes(run_record(*job_of(kit, scene, tmp_path / "again"))), "the same bits"


@pytest.mark.slow
def test_a_bench_has_the_method_s_stages(kit, scene, tmp_path):
    folder, job = job_of(kit, scene, tmp_path / "job")
    networks = [folder / "model.tflite", folder / SCENE]
    run = bench(networks, folder / MAP, folder / IMAGES, BenchJob(job.queries, 1, METHOD))
    assert run.stages == ("load", "extract", "decode", "retrieve", "predict", "pose", "second_look", "trust")
    assert all(query.milliseconds["predict"] > 0 for query in run.queries)


def test_the_command_trains_what_localizes(kit, tmp_path):
    runner = CliRunner()
    output = tmp_path / "scene.tflite"
    made = runner.invoke(map_main, ["train", str(kit.map), "-o", str(output), "--width", "32", "--steps", "60"])
    assert made.exit_code == 0, made.output
    assert "left-out images that it names right" in made.output and "hfnet-map pack" in made.output
    assert output.stat().st_size < 120_000 and not (tmp_path / "scene.training").exists()
    seen = runner.invoke(map_main, ["inspect", str(tmp_path / "scene_map.hfmap")])
    assert "scene network: weights" in seen.output and "--method scene-coordinates" in seen.output
    packed, place = tmp_path / "packed.hfmap", read_content(tmp_path / "scene_map.hfmap")
    write_map(lay_out(place.without_keypoints()), packed)
    again = runner.invoke(map_main, ["train", str(packed), "-o", str(output)])
    assert again.exit_code == 2 and "is packed" in again.output
    wrong = runner.invoke(map_main, ["train", str(kit.map), "-o", str(output), "--width", "8"])
    assert wrong.exit_code == 2 and "--width 8" in wrong.output


@pytest.mark.slow
def test_another_map_s_network_is_refused(kit, scene, tmp_path):
    folder, job = job_of(kit, scene, tmp_path / "job")
    other, _ = train_scene(
        read_content(kit.map).without_images(np.arange(3)),
        tmp_path / "o.tflite",
        tmp_path / "run",
        32,
        training=replace(TRAINING, steps=20),
    )
    shutil.copy(tmp_path / "o.tflite", folder / SCENE)
    with pytest.raises(MismatchError, match="was built with weights"):
        run_record(folder, job)
    assert other.scene is not None
