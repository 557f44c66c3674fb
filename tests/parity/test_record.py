"""The reference's network: on the CPU in LiteRT, on a GPU in the framework that it was made with."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from hfnet_edge.errors import ImageError, InputError
from hfnet_edge.shell.lists import read_queries
from hfnet_export.networks import processors
from hfnet_export.sources.saved_model import SavedModel
from hfnet_parity.bundle import Bundle
from hfnet_parity.cli import main
from hfnet_parity.compare import compare
from hfnet_parity.record import Original, load_network, record
from hfnet_parity.tolerances import read_tolerances


def test_a_network_on_a_gpu_runs_in_its_own_framework(kit, tmp_path, monkeypatch):
    """TensorFlow is told that it has a GPU; what it computes is what LiteRT does, up to float32's rounding."""
    monkeypatch.setattr(processors, "tensorflow_processor", lambda: "GPU, TensorFlow of the test")
    network = load_network("hfnet", (288, 384))
    assert isinstance(network.model, Original)
    place = kit.root / "place"
    queries = read_queries(place / "queries_with_intrinsics.txt")
    record([network], kit.map, place / "images", queries, tmp_path / "gpu.bundle")
    bundle = Bundle.read(tmp_path / "gpu.bundle")
    assert bundle.recording.about["processor"] == "GPU, TensorFlow of the test"
    limits = read_tolerances("quantized") | {"keypoints.repeated": 99, "matches.kept": 99, "tensor.snr": 60}
    comparison = compare(kit.bundle.recording, bundle.recording, {}, bundle.thresholds, limits, "quantized", "gpu")
    assert comparison.broken is None, [(v.measure.key, v.value) for v in comparison.values if v.passed is False]
    assert comparison.value("tensor.identical").value < 100, "it really was another framework"


def test_a_network_without_a_gpu_runs_in_litert(kit, monkeypatch):
    monkeypatch.setattr(processors, "tensorflow_processor", lambda: "CPU, TensorFlow")
    network = load_network("hfnet", (288, 384))
    assert network.processor == "CPU, LiteRT" and network.model.kernels == "XNNPACK"


@pytest.mark.parametrize(
    ("listed", "used", "processor"),
    [
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "CUDAExecutionProvider", "GPU, ONNX Runtime CUDA"),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], "CPUExecutionProvider", "CPU, ONNX Runtime CPU"),
        (["CPUExecutionProvider"], "CPUExecutionProvider", "CPU, ONNX Runtime CPU"),
    ],
)
def test_onnx_runtime_is_asked_what_it_really_uses(listed, used, processor):
    """A GPU that is listed but lacks its libraries falls back to the CPU without a word."""
    asked = []

    def session(path, providers):
        asked.extend(providers)
        return SimpleNamespace(get_providers=lambda: [used])

    runtime = SimpleNamespace(get_available_providers=lambda: listed, InferenceSession=session)
    assert processors.onnx_session("model.onnx", runtime)[1] == processor
    assert [provider for provider, _ in asked] == listed, "the fastest first, the CPU last"


def test_a_reference_is_float32_on_any_gpu():
    """Not TF32, with 10 bits of fraction, which recent GPUs take by default."""
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    asked = {}

    def session(path, providers):
        asked.update(providers)
        return SimpleNamespace(get_providers=lambda: list(asked))

    runtime = SimpleNamespace(
        get_available_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"], InferenceSession=session
    )
    processors.onnx_session("model.onnx", runtime)
    assert asked == {"CUDAExecutionProvider": {"use_tf32": 0}, "CPUExecutionProvider": {}}


def test_options_that_do_not_go_with_the_network(kit):
    file = str(kit.root / "float.tflite")
    with pytest.raises(InputError, match=r"--input-size 100x100 is not possible; .* multiples of 32"):
        load_network("hfnet", (100, 100))
    with pytest.raises(InputError, match="--outputs is not for HF-Net weights"):
        load_network("hfnet", (96, 128), outputs={"global_descriptor": "g"})
    with pytest.raises(InputError, match=r"--outputs is not for a \.tflite"):
        load_network(file, outputs={"global_descriptor": "g"})
    with pytest.raises(InputError, match=r"--input-range is not for a \.tflite"):
        load_network(file, input_range=(0, 255))


def test_the_outputs_of_another_network(tmp_path, monkeypatch):
    """They reach the reader of the network, by role."""
    read = []
    monkeypatch.setattr(SavedModel, "convert", lambda foreign, say: read.append(foreign) or 1 / 0)
    place, out = tmp_path / "place", tmp_path / "ref.bundle"
    (place / "saved_model").mkdir(parents=True)
    (place / "saved_model" / "saved_model.pb").touch()
    (place / "queries.txt").write_text("a.png PINHOLE 640 480 500 500 320 240\n")
    (place / "p.hfmap").touch()
    arguments = ["--images", place, "--queries", place / "queries.txt", "--map", place / "p.hfmap", "-o", out]
    arguments += ["--model", place / "saved_model", "--input-range", "0,255", "--outputs", "scores=a/b:0"]
    CliRunner().invoke(main, ["record", *map(str, arguments)])
    ((foreign),) = read
    assert foreign.outputs == {"keypoint_scores": "a/b:0"} and foreign.input_range == (0.0, 255.0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["record", "--model", "hfnet", "--images", ".", "--queries", "LIST", "--map", "p.hfmap", "-o", "OUT"],
    ],
)
def test_a_missing_extra_is_named(tmp_path, arguments):
    (tmp_path / "queries.txt").write_text("a.png PINHOLE 640 480 500 500 320 240\n")
    paths = {"OUT": str(tmp_path / "out"), "LIST": str(tmp_path / "queries.txt")}
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; from hfnet_parity.cli import parity_main;"
        f"sys.argv = {['hfnet-parity', *(paths.get(a, a) for a in arguments)]!r}; parity_main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == 'error: tensorflow, keras are not installed; pip install "hfnet-edge[export]"\n'
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(kit, tmp_path):
    place = kit.root / "place"
    queries = read_queries(place / "queries_with_intrinsics.txt")
    network = load_network(str(kit.root / "float.tflite"))
    with pytest.raises(ImageError, match=queries[0][0]):
        record([network], kit.map, tmp_path, queries, tmp_path / "x.bundle")
    with pytest.raises(InputError, match="no pose for 5 of 6 queries"):
        truth = {queries[0][0]: kit.bundle.truth[queries[0][0]]}
        record([network], kit.map, place / "images", queries, tmp_path / "x.bundle", truth)
    assert not (tmp_path / "x.bundle").exists()
