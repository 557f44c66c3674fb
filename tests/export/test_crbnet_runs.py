"""`hfnet-train-crbnet`: a run of a few steps on a made scene, its resumption, and what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf

pytest.importorskip("pycolmap")

from typer.testing import CliRunner

from colmap_scene import write_scene
from hfnet_edge.errors import InputError, OutputError
from hfnet_export.cli import train_crbnet_app
from hfnet_export.networks.crbnet import CRBNetConfig
from hfnet_export.networks.weights import crbnet_from_weights, load_crbnet_weights
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.training import crbnet_runs
from hfnet_export.training.crbnet_training import CRBNetTraining
from hfnet_export.training.training_recipe import BUNDLED_CRBNET_RECIPE, read_crbnet_training_recipe

RECIPE = """
steps = 3
batch = 32
[network]
dim = 16
width = 4
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(("here", "there")):
        write_scene(root / "scenes" / name, seed + 4)
    (root / "images").mkdir()
    for i, image in enumerate(built_in_images((200, 240), 15, seed=9)):
        cv2.imwrite(str(root / "images" / f"{i:02}.png"), image)
    (root / "recipe.toml").write_text(RECIPE)
    return root


@pytest.fixture
def small(monkeypatch, eager):
    monkeypatch.setattr(crbnet_runs, "MIN_TRACKS", 12)
    monkeypatch.setattr(crbnet_runs.os, "cpu_count", lambda: 1)


@pytest.mark.filterwarnings("ignore:Even though")  # tf.data does not run eagerly
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(small, data, tmp_path):
    def power_cut(what, done, total, note=""):
        if what == "training, crbnet" and done == 2:
            shutil.copytree(tmp_path / "whole", tmp_path / "resumed")
            with (tmp_path / "resumed" / "crbnet.csv").open("a") as log:
                log.write("3,9,9,9,nan,nan,nan\n")  # a step that the last checkpoint does not hold

    def train(folder, *progress, hold_out=("there",)):
        return crbnet_runs.run_crbnet(
            data / "scenes", data / "images", hold_out, tmp_path / folder, data / "recipe.toml", *progress,
            checkpoint_every=2,
        )  # fmt: skip

    whole = train("whole", power_cut)
    patches = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "resumed" / "patches").rglob("*.npz")}
    assert {name.rpartition("-")[0] for name in patches} == {"here", "there", "photographs", "held_photographs"}
    resumed = train("resumed")
    for path in (tmp_path / "resumed" / "patches").rglob("*.npz"):
        assert path.stat().st_mtime_ns == patches[path.name]  # cut once
    (config, a, card), (_, b, _) = load_crbnet_weights(whole), load_crbnet_weights(resumed)
    assert config == CRBNetConfig(16, 4)
    assert (card["scenes"], card["held_out_scenes"]) == (["here"], ["there"])
    assert (card["photographs"], card["held_out_photographs"]) == (15, 1)
    assert card["stages"]["crbnet"]["steps"] == 3 and len(card["stages"]["crbnet"]["held_out"]) == 3
    assert card["config"]["batch"] == 32 and card["sha256"]["scenes"] != card["sha256"]["photographs"]
    assert a.keys() == b.keys()
    for name in a:  # but for what the dropout of the last step left out
        np.testing.assert_allclose(a[name].astype(float), b[name].astype(float), rtol=5e-2, atol=5e-2, err_msg=name)
    crbnet_from_weights(whole)
    logs = [list(csv.reader((tmp_path / f / "crbnet.csv").open())) for f in ("whole", "resumed")]
    assert [row[0] for row in logs[0]] == [row[0] for row in logs[1]] == ["step", "1", "2", "3"]
    losses = [np.array([row[1:4] for row in log[1:]], float) for log in logs]
    np.testing.assert_array_equal(losses[0][:2], losses[1][:2])
    np.testing.assert_allclose(*losses, rtol=0.1)
    assert (tmp_path / "whole" / "losses.png").stat().st_size > 1000
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["recipe"]["steps"] == 3
    with pytest.raises(InputError, match="was started with"):
        train("whole", hold_out=("here",))


def test_the_bundled_recipe_and_the_defaults_are_one():
    assert read_crbnet_training_recipe(BUNDLED_CRBNET_RECIPE) == CRBNetTraining()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("step = 3", "step is not known; known here: steps, batch"),
        ("steps = 0", "steps = 0; give something like 2400"),
        ("hamming = 1", "hamming = 1; give something like True"),
        ("batch = 8", "batch is 8; give at least 16"),
        ("[network]\ndim = 12", r"network\.dim is 12; give a multiple of 8"),
        ("[network]\ndepth = 12", r"network\.depth is not known"),
        ("[", "is not TOML"),
    ],
)
def test_a_wrong_recipe_is_named(change, message, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(change)
    with pytest.raises(InputError, match=message):
        read_crbnet_training_recipe(path)


def test_an_ablation_is_a_line_of_the_recipe(tmp_path):
    (tmp_path / "r.toml").write_text("hamming = false")
    assert read_crbnet_training_recipe(tmp_path / "r.toml") == CRBNetTraining(hamming=False)


@pytest.mark.parametrize(
    ("scenes", "hold_out", "message"),
    [
        ("nowhere", "there", "there is no folder"),
        ("scenes", "elsewhere", "has no scene elsewhere; it has here, there"),
        ("scenes", "here,there,", "is left to train on"),
        ("scenes", " ,", "no scene is held out; name at least one with --hold-out"),
        ("images", "there", "has no scene there; it has none"),
    ],
)
def test_command_errors(data, tmp_path, scenes, hold_out, message):
    arguments = ["--scenes", data / scenes, "--images", data / "images", "--hold-out", hold_out, "-o", tmp_path / "run"]
    result = CliRunner().invoke(train_crbnet_app, [str(a) for a in arguments])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_too_little_to_train_on(data, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(data / "images" / "00.png", few)
    with pytest.raises(InputError, match=r"1 photographs in .* are too few; give at least 14"):
        crbnet_runs.run_crbnet(data / "scenes", few, ["there"], tmp_path / "run", data / "recipe.toml")
    with pytest.raises(InputError, match=r"tracks of patches, of 100000 needed"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(crbnet_runs, "MIN_TRACKS", 100_000)
        patch.setattr(crbnet_runs.os, "cpu_count", lambda: 1)
        crbnet_runs.run_crbnet(data / "scenes", data / "images", ["there"], tmp_path / "run", data / "recipe.toml")


def test_patches_of_other_inputs_are_cut_anew(small, data, tmp_path, monkeypatch):
    """A run that stopped before its first checkpoint may be started again with other photographs or scenes."""
    seen = []
    monkeypatch.setattr(crbnet_runs, "train_crbnet", lambda config, training, held_out, *_: seen.append(training))
    for folder in ("images", "scenes"):
        shutil.copytree(data / folder, tmp_path / folder)

    def start():
        crbnet_runs.run_crbnet(
            tmp_path / "scenes", tmp_path / "images", ["there"], tmp_path / "run", data / "recipe.toml"
        )
        return seen[-1]

    first = start()
    cv2.imwrite(str(tmp_path / "images" / "00.png"), built_in_images((200, 240), 1, seed=77)[0])
    second = start()
    image = tmp_path / "scenes" / "here" / "images" / "1.png"
    cv2.imwrite(str(image), 255 - cv2.imread(str(image), cv2.IMREAD_GRAYSCALE))
    third = start()
    np.testing.assert_array_equal(first[0].patches, second[0].patches)
    assert not np.array_equal(first[1].patches, second[1].patches)
    np.testing.assert_array_equal(second[1].patches, third[1].patches)
    assert not np.array_equal(second[0].patches, third[0].patches)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), tf.errors.DataLossError(None, None, "No space left on device")]
)
def test_a_full_disk(small, data, monkeypatch, error):
    def full(*_):
        raise error

    monkeypatch.setattr(crbnet_runs, "train_crbnet", full)
    run = data / "full"  # of both errors: patches are cut once
    with pytest.raises(OutputError, match=r"the run in .* stopped: .*No space left on device; check the folder"):
        crbnet_runs.run_crbnet(data / "scenes", data / "images", ["there"], run, data / "recipe.toml")


def test_stopped(data, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(crbnet_runs, "run_crbnet", interrupted)
    arguments = ["--scenes", data, "--images", data, "--hold-out", "there", "-o", tmp_path / "run"]
    result = CliRunner().invoke(train_crbnet_app, [str(a) for a in arguments])
    assert result.exit_code == 130 and "goes on from the last checkpoint" in result.stdout
