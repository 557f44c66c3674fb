"""The reference's network: on the CPU in LiteRT, on a GPU in the framework that it was made with."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hfnet_edge.errors import ImageError, InputError
from hfnet_edge.lists import read_queries
from hfnet_export import sources
from hfnet_parity.bundle import Bundle
from hfnet_parity.compare import compare, read_tolerances
from hfnet_parity.record import Original, load_network, record


def test_a_network_on_a_gpu_runs_in_its_own_framework(kit, tmp_path, monkeypatch):
    """TensorFlow is told that it has a GPU; what it computes is what LiteRT does, up to float32's rounding."""
    monkeypatch.setattr(sources, "_tensorflow_processor", lambda: "GPU, TensorFlow of the test")
    network = load_network("hfnet", (288, 384))
    assert isinstance(network.model, Original)
    place = kit.root / "place"
    queries = read_queries(place / "queries_with_intrinsics.txt")
    record(network, kit.map, place / "images", queries, tmp_path / "gpu.bundle")
    bundle = Bundle.read(tmp_path / "gpu.bundle")
    assert bundle.recording.about["processor"] == "GPU, TensorFlow of the test"
    limits = read_tolerances("quantized") | {"keypoints.repeated": 99, "matches.kept": 99, "tensor.snr": 60}
    comparison = compare(kit.bundle.recording, bundle.recording, {}, bundle.thresholds, limits, "quantized", "gpu")
    assert comparison.broken is None, [(v.measure.key, v.value) for v in comparison.values if v.passed is False]
    assert comparison.value("tensor.identical").value < 100, "it really was another framework"


def test_a_network_without_a_gpu_runs_in_litert(monkeypatch):
    monkeypatch.setattr(sources, "_tensorflow_processor", lambda: "CPU, TensorFlow")
    network = load_network("hfnet", (96, 128))
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
    assert sources._onnx_session("model.onnx", runtime)[1] == processor
    assert asked == listed, "the fastest first, the CPU last"


def test_what_is_missing_is_named(kit, tmp_path):
    place = kit.root / "place"
    queries = read_queries(place / "queries_with_intrinsics.txt")
    network = load_network(str(kit.root / "float.tflite"))
    with pytest.raises(ImageError, match=queries[0][0]):
        record(network, kit.map, tmp_path, queries, tmp_path / "x.bundle")
    with pytest.raises(InputError, match="no pose for 5 of 6 queries"):
        truth = {queries[0][0]: kit.bundle.truth[queries[0][0]]}
        record(network, kit.map, place / "images", queries, tmp_path / "x.bundle", truth)
    assert not (tmp_path / "x.bundle").exists()
