from __future__ import annotations

import os
import subprocess
import sys

import cv2
import pytest
from typer.testing import CliRunner

from conftest import SIZE
from hfnet_edge.errors import InputError, ModelError, OutputError
from hfnet_edge.networks.hfnet import Model
from hfnet_export import trained
from hfnet_export.cli import distill_app, export_app
from hfnet_export.export import STEPS, export_hfnet
from hfnet_export.networks import any_hfnet
from hfnet_export.networks.any_hfnet import HFNetFidelity
from hfnet_export.tflite.calibration import built_in_images


@pytest.fixture
def fast(exported, monkeypatch):
    """Few images do."""
    monkeypatch.setattr(trained, "built_in_images", lambda size: exported.images[:4])


def run(*arguments) -> tuple[int, str, str]:
    result = CliRunner().invoke(export_app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("precision", ["none", "int8"])
def test_export(fast, weights, tmp_path, precision):
    steps = []
    path = tmp_path / "model.tflite"
    report = export_hfnet(weights, path, precision, SIZE, on_step=lambda number, _: steps.append(number))
    assert steps == list(range(1, STEPS + 1))
    assert report.bytes == path.stat().st_size and report.float_bytes > report.bytes / 1.01
    assert sum(report.operators.values()) == 108
    assert report.fidelity.local_descriptors > 0.97
    assert report.milliseconds > 0 and report.float_milliseconds > 0
    assert Model(path).description.precision == precision
    assert os.listdir(tmp_path) == ["model.tflite"]


def test_a_failed_export_leaves_nothing(fast, weights, tmp_path, monkeypatch):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"the old one")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            export_hfnet(weights, path, "none", SIZE)
    monkeypatch.setitem(any_hfnet.FLOORS, "none", HFNetFidelity(1.1, 1.1, 1.1))
    with pytest.raises(ModelError):
        export_hfnet(weights, path, "none", SIZE)
    assert os.listdir(tmp_path) == ["model.tflite"] and path.read_bytes() == b"the old one"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantize": "int4"}, "choose one of none, fp16, dynamic, int8"),
        ({"input_size": (480, 600)}, "multiples of 32"),
        ({"input_size": (32, 64)}, "from 64"),
        ({"global_dim": 13}, "these weights have 1 to 12"),
    ],
)
def test_wrong_arguments(weights, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        export_hfnet(weights, tmp_path / "model.tflite", **arguments)


def test_command(fast, weights, tmp_path):
    photos, model = tmp_path / "photos", tmp_path / "model.tflite"
    photos.mkdir()
    for i, image in enumerate(built_in_images(SIZE, 4, seed=5)):
        cv2.imwrite(str(photos / f"{i}.png"), image)
    size = "x".join(map(str, SIZE))
    code, out, _ = run(weights, "--input-size", size, "--calibration", photos, "-o", model)
    assert code == 0
    assert out.startswith(f"1/6 building HF-Net from {weights}") and "\n6/6 timing" in out
    for expected in ("operators in int8 ", "agreement of local descriptors", f"wrote {model}", f"--model {model}"):
        assert expected in out.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.pt"], "cannot export model.pt"),
        (["--input-size", "640"], "is not HEIGHTxWIDTH"),
        (["--input-size", "470x640"], "multiples of 32"),
        (["nowhere.npz"], "there are no weights at nowhere.npz"),
        (["--calibration", "nowhere", "WEIGHTS"], "there is no folder nowhere"),
    ],
)
def test_command_errors(fast, weights, tmp_path, arguments, message):
    arguments = [weights if a == "WEIGHTS" else a for a in arguments]
    size = [] if "--input-size" in arguments else ["--input-size", "96x128"]
    code, _, err = run(*arguments, *size, "-o", tmp_path / "model.tflite")
    assert code == 2 and err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not os.listdir(tmp_path)


def test_damaged_weights(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"PK\x03\x04 not weights")
    code, _, err = run(tmp_path / "weights.npz", "-o", tmp_path / "model.tflite")
    assert code == 2 and "does not hold HF-Net weights" in err


def test_output_is_checked_before_work(tmp_path):
    code, _, err = run("-o", tmp_path / "nowhere" / "model.tflite")
    assert code == 2 and "there is no folder" in err


def test_distill_errors(tmp_path):
    arguments = ["--images", "nowhere", "--local-teacher", "alike_n.npz", "--global-teacher", "g.npz", "-o", "run"]
    result = CliRunner().invoke(distill_app, arguments)
    assert result.exit_code == 2 and "there is no folder nowhere" in result.stderr


def test_help_does_not_import_tensorflow():
    code = "import sys, hfnet_export.cli; print({'tensorflow', 'keras', 'ai_edge_litert'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_missing_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['keras'] = None; from hfnet_export.cli import export_main;"
        f"sys.argv = ['hfnet-export', '-o', {str(tmp_path / 'm.tflite')!r}]; export_main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == 'error: keras is not installed; pip install "hfnet-edge[export]"\n'
