"""`hfnet-export crbnet`: the file, its figures, and what is refused."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from typer.testing import CliRunner

from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.networks.patches import PatchModel
from hfnet_export.cli import export_app
from hfnet_export.export import STEPS, export_crbnet
from hfnet_export.networks import trained_crbnet
from hfnet_export.networks.crbnet import CRBNetConfig
from hfnet_export.networks.trained_crbnet import FLOORS, PatchFidelity, compare, some_patches
from hfnet_export.networks.weights import (
    BUNDLED,
    BUNDLED_CRBNET,
    crbnet_from_weights,
    load_crbnet_weights,
    load_weights,
)
from hfnet_export.networks.weights_card import network_of
from hfnet_export.tflite.calibration import built_in_images
from hfnet_export.tflite.graph import Graph
from small_crbnet import CONFIG, unchecked


@pytest.fixture
def small(small_crbnet):
    return small_crbnet


@pytest.fixture
def fast(monkeypatch):
    unchecked(monkeypatch)
    images = built_in_images((160, 200), 4)
    monkeypatch.setattr(trained_crbnet, "built_in_images", lambda size: images)


def run(*arguments) -> tuple[int, str, str]:
    result = CliRunner().invoke(export_app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.stdout.split()), result.stderr


@pytest.fixture
def bundled(patch_kit):
    """The file of the bundled weights at int8, with the checks of a real export."""
    return patch_kit.patches


def test_the_bundled_network_at_int8(bundled, patch_kit):
    assert bundled.stat().st_size < 2.6e6 and (patch_kit.root / "patches_float.tflite").stat().st_size > 9e6
    network, config, _ = crbnet_from_weights(BUNDLED_CRBNET)
    model = PatchModel(bundled)
    assert model.description.local_dim == config.dim == 256 and model.kernels == "XNNPACK"
    # Of images that the calibration did not see, against Keras, through the runtime's rounding.
    patches = np.concatenate([some_patches(image) for image in built_in_images((240, 320), 6, seed=11)])
    reference = np.asarray(network(model.description.scale(patches), training=False))
    ours = model(patches)
    assert len(patches) > 200 and np.mean((ours >= 0) != (reference >= 0)) < 0.01
    assert compare(ours / np.linalg.norm(ours, axis=1, keepdims=True), reference).descriptors > 0.998
    raw = compare(model.raw(patches), reference)
    assert raw.flipped < 0.01 and raw.descriptors > 0.998
    ones = np.mean(reference >= 0, axis=0)
    assert ones.min() > 0.1 and ones.max() < 0.9  # every bit says something


def test_first_and_last_layer(bundled):
    graph = [op for op in Graph.parse(bundled.read_bytes()).operators if op.kind in ("CONV_2D", "ADD")]
    kinds = [(op.kind, op.precision) for op in graph]
    assert kinds[0] == ("CONV_2D", "float32") and kinds[-1] == ("CONV_2D", "int8 weights")
    assert len(kinds) == 17 and {precision for _, precision in kinds[1:-1]} == {"int8"}


def test_any_number_of_patches(bundled):
    interpreter = Interpreter(model_path=str(bundled))
    (image,) = interpreter.get_input_details()
    assert image["shape_signature"].tolist() == [-1, 32, 32, 1]
    for count in (1, 3, 70):
        interpreter.resize_tensor_input(image["index"], (count, 32, 32, 1))
        interpreter.allocate_tensors()
        interpreter.invoke()
        (output,) = interpreter.get_output_details()
        assert interpreter.get_tensor(output["index"]).shape == (count, 256)


@pytest.mark.parametrize("precision", ["none", "fp16", "dynamic", "int8"])
def test_export(fast, small, tmp_path, precision, monkeypatch):
    monkeypatch.setitem(FLOORS, "dynamic", FLOORS["int8"])
    steps = []
    path = tmp_path / "model.tflite"
    report = export_crbnet(small.weights, path, precision, on_step=lambda number, _: steps.append(number))
    assert steps == list(range(1, STEPS + 1)) and os.listdir(tmp_path) == ["model.tflite"]
    assert report.bytes == path.stat().st_size
    assert report.milliseconds > 0 and report.float_milliseconds > 0 and report.unit == "patches"
    d = PatchModel(path).description
    assert d.precision == precision and d.weights_hash == PatchModel(small.float_model).description.weights_hash
    if precision == "none":
        assert report.fidelity.flipped == 0 and report.fidelity.descriptors == pytest.approx(1)


def test_fidelity():
    a = np.array([[0.6, 0.8, 0.0, -0.0], [1.0, 0.0, 0.0, 0.0]], np.float32)
    b = a.copy()
    assert compare(b, a) == PatchFidelity(pytest.approx(1), 1)
    b[0, 1], b[1, 3] = -0.8, -1e-9
    assert (
        compare(b, a) == PatchFidelity(pytest.approx((0.36 - 0.64 + 1) / 2), 6 / 8) and compare(b, a).flipped == 2 / 8
    )


def test_a_bad_export_leaves_nothing(fast, small, tmp_path, monkeypatch):
    monkeypatch.setitem(FLOORS, "int8", PatchFidelity(0.0, 1.0))
    with pytest.raises(ModelError, match="bits of the int8 model agree"):
        export_crbnet(small.weights, tmp_path / "model.tflite")
    assert not os.listdir(tmp_path)


def test_command(fast, small, tmp_path):
    photos, model = tmp_path / "photos", tmp_path / "model.tflite"
    photos.mkdir()
    for i, image in enumerate(built_in_images((160, 200), 3, seed=5)):
        cv2.imwrite(str(photos / f"{i}.png"), image)
    code, out, err = run(small.weights, "--quantize", "int8", "--calibration", photos, "-o", model)
    assert code == 0, err
    assert out.startswith(f"1/6 building CRBNet from {small.weights}") and "6/6 timing" in out
    for expected in ("patches a second", "agreement of bits", "agreement of descriptors", f"wrote {model}"):
        assert expected in out
    assert (
        f"next: hfnet-map build --method parallel --images DIR --reference COLMAP_MODEL --model M.tflite "
        f"--model {model} -o scene.hfmap" in out
    )


@pytest.mark.parametrize(
    "options",
    [
        ("--input-size", "480x640"),
        ("--global-dim", "64"),
        ("--pca", "photos"),
        ("--input-range", "0,1"),
        ("--outputs", "scores=x"),
        ("--gate", "ref.bundle"),
        ("--max-loss", "1pt"),
        ("--recipe", "r.json"),
    ],
)
def test_options_of_hfnet_are_refused_by_name(small, tmp_path, options):
    for network in ("crbnet", small.weights):
        code, _, err = run(network, *options, "-o", tmp_path / "m.tflite")
        assert code == 2 and err == f"error: a patch network does not take {options[0]}; leave it out\n"


def test_unusable_calibration(fast, small, tmp_path):
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((100, 100), 9, np.uint8))
    with pytest.raises(InputError, match="no keypoints are found"):
        export_crbnet(small.weights, tmp_path / "m.tflite", calibration=tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        export_crbnet(small.weights, tmp_path / "m.tflite", calibration=tmp_path / "nowhere")
    with pytest.raises(InputError, match="choose one of none, fp16, dynamic, int8"):
        export_crbnet(small.weights, tmp_path / "m.tflite", "int4")


def test_weights_of_the_other_kind(small, tmp_path):
    assert network_of(small.weights) == network_of(BUNDLED_CRBNET) == "crbnet"
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 not weights")
    for other in (BUNDLED, tmp_path / "bad.npz", tmp_path / "nowhere.npz", tmp_path):
        assert network_of(other) == "hfnet"
    with pytest.raises(InputError, match=r"holds HF-Net weights, not those of CRBNet; .* hfnet-train-crbnet wrote"):
        export_crbnet(BUNDLED, tmp_path / "m.tflite")
    with pytest.raises(InputError, match=r"holds CRBNet weights, not those of HF-Net; .* hfnet-distill wrote"):
        load_weights(BUNDLED_CRBNET)
    with pytest.raises(InputError, match=r"does not hold CRBNet weights .* hfnet-train-crbnet wrote"):
        load_crbnet_weights(tmp_path / "bad.npz")
    with pytest.raises(InputError, match="train them with hfnet-train-crbnet"):
        load_crbnet_weights(tmp_path / "nowhere.npz")


def test_damaged_weights(small, tmp_path):
    with np.load(small.weights) as file:
        arrays = {name: file[name] for name in file.files}
    spoilt = {**arrays, "first/kernel": arrays["first/kernel"] * np.float16(np.nan)}
    lacking = {name: array for name, array in arrays.items() if name != "first/kernel"}
    for name, content, message in (("nan", spoilt, "is damaged"), ("lacking", lacking, "lacks first/kernel")):
        np.savez(tmp_path / f"{name}.npz", **content)
        with pytest.raises(InputError, match=message):
            crbnet_from_weights(tmp_path / f"{name}.npz")
    assert load_crbnet_weights(small.weights)[0] == CONFIG


def test_the_bundled_card():
    config, arrays, card = load_crbnet_weights(BUNDLED_CRBNET)
    assert config == CRBNetConfig() and all(array.dtype == np.float16 for array in arrays.values())
    assert card["scenes"] == ["fox", "lund_door", "monstree", "statue_liberty"]
    assert card["held_out_scenes"] == ["cyprus", "sceaux"]
    assert (card["photographs"], card["held_out_photographs"]) == (1396, 99)
    assert card["config"]["steps"] == card["stages"]["crbnet"]["steps"] == 2400
    assert set(card["sha256"]) == {"scenes", "photographs"} and card["toolchain"]
