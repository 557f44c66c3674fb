from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from conftest import CONFIG, SIZE
from hfnet_edge.errors import ModelError
from hfnet_edge.networks.description import read_description
from hfnet_edge.networks.model import Model
from hfnet_export.networks.weights import hfnet_from_weights
from hfnet_export.tflite import convert
from hfnet_export.tflite.convert import FLOAT16_WEIGHTS, FLOAT32, INT8, INT8_WEIGHTS, RECIPES, Fidelity, Operator, Rule

PRECISIONS = list(RECIPES)


def scaled(exported) -> list[np.ndarray]:
    description = read_description(exported.described["none"], "test")
    return [description.scale(image) for image in exported.images]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_description_round_trip(exported, weights, precision):
    d = read_description(exported.described[precision], "test")
    assert (d.precision, d.input_size, d.local_dim, d.global_dim) == (precision, SIZE, 16, 12)
    assert d.weights_hash == hfnet_from_weights(weights, (64, 64))[1]  # whatever the precision and the input size
    assert any(line.startswith("tensorflow ") for line in d.toolchain)


def test_describing_again_replaces_the_description(exported):
    first = exported.described["int8"]
    changed = replace(read_description(first, "test"), nms_radius=7)
    again = convert.embed(first, changed)
    assert read_description(again, "test") == changed
    assert abs(len(again) - len(first)) < 1000


def test_buffers_are_aligned(exported):
    packed = schema.Model.GetRootAs(exported.described["int8"], 0)
    for i in range(packed.BuffersLength()):
        buffer = packed.Buffers(i)
        if not buffer.DataIsNone():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_operators_are_as_the_recipe_says(exported, precision):
    convert.check_precisions(exported.described[precision], precision)
    graph = convert.operators(exported.float_tflite)
    convert.check_size(exported.described[precision], convert.parameter_count(exported.network), graph, precision)
    convert.check_xnnpack(exported.described[precision])
    for other in PRECISIONS:
        if other != precision:
            with pytest.raises(ModelError, match="operators are not as"):
                convert.check_precisions(exported.described[precision], other)


def test_int8_is_int8(exported):
    """Independent of the check: the interpreter's own types."""
    interpreter = Interpreter(model_content=exported.described["int8"])
    interpreter.allocate_tensors()
    types = {t["index"]: t["dtype"] for t in interpreter.get_tensor_details()}
    heavy = 0
    for node in interpreter._get_ops_details():
        if node["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            heavy += 1
            assert [types[i] for i in (*node["inputs"][:2], node["outputs"][0])] == [np.int8] * 3
        if node["op_name"] in ("SOFTMAX", "RSQRT", "SQUARED_DIFFERENCE", "L2_NORMALIZATION", "BATCH_MATMUL"):
            assert types[node["outputs"][0]] == np.float32
    assert heavy == 56


def test_a_norm_in_int8_is_noticed(exported, monkeypatch):
    careless = (*RECIPES["int8"][:3], Rule("ADD", INT8), RECIPES["int8"][4])
    with monkeypatch.context() as patch:
        patch.setitem(RECIPES, "int8", careless)
        content = convert.quantize(exported.float_tflite, "int8", scaled(exported)[:2])
    with pytest.raises(ModelError, match=r"ADD .*netvlad.* is .*, not float32"):
        convert.check_precisions(content, "int8")


def test_depthwise_off_xnnpack_is_noticed(exported, monkeypatch):
    slow = (*RECIPES["dynamic"], Rule("DEPTHWISE_CONV_2D", INT8_WEIGHTS))
    monkeypatch.setitem(RECIPES, "dynamic", slow)
    content = convert.quantize(exported.float_tflite, "dynamic", scaled(exported)[:1])
    with pytest.raises(ModelError, match="17 of 58 convolutions do not run on XNNPACK, first a DEPTHWISE_CONV_2D"):
        convert.check_xnnpack(content)


def test_strange_operators_are_noticed(exported):
    model = convert._parse(exported.float_tflite)
    (softmax,) = [c for c in model.operatorCodes if c.builtinCode == schema.BuiltinOperator.SOFTMAX]
    softmax.builtinCode = softmax.deprecatedBuiltinCode = schema.BuiltinOperator.COS
    with pytest.raises(ModelError, match="needs COS"):
        convert.check_operators(convert._pack(model))
    softmax.builtinCode = softmax.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    softmax.customCode = b"FlexSoftmax"
    with pytest.raises(ModelError, match="needs FlexSoftmax"):
        convert.check_operators(convert._pack(model))


def test_lost_weights_are_noticed(exported):
    model = convert._parse(exported.float_tflite)
    for buffer in model.buffers:
        buffer.data = None
    graph, parameters = convert.operators(exported.float_tflite), convert.parameter_count(exported.network)
    with pytest.raises(ModelError, match="weights were lost"):
        convert.check_size(convert._pack(model), parameters, graph, "none")
    with pytest.raises(ModelError, match="not compressed"):
        convert.check_size(exported.float_tflite, parameters, graph, "int8")


def test_the_size_follows_from_the_rules():
    """A million weights in int8, four million in float16, one million that no rule names."""
    million = 1_000_000
    kinds = {"CONV_2D": million, "FULLY_CONNECTED": 4 * million, "BATCH_MATMUL": million}
    graph = [Operator(kind, kind, FLOAT32, ("x",), ((1, 8, 8, 4),), weights) for kind, weights in kinds.items()]
    rules = (*RECIPES["int8"], Rule("FULLY_CONNECTED", FLOAT16_WEIGHTS))
    convert.check_size(bytes((1 + 8 + 4) * million), 6 * million, graph, rules)
    for wrong in ((1 + 4 + 4) * million, (1 + 16 + 4) * million):
        with pytest.raises(ModelError, match="its 6000000 weights need about 13000000"):
            convert.check_size(bytes(wrong), 6 * million, graph, rules)
    twice = [*graph, *graph]  # a layer that is applied twice has its weights once
    convert.check_size(bytes((1 + 8 + 4) * million), 6 * million, twice, rules)


def test_a_truncated_file_is_noticed(exported):
    for size in (3, 100, len(exported.float_tflite) // 3):
        with pytest.raises(ModelError):
            convert.check_operators(exported.float_tflite[:size])


def test_a_missing_signature_is_noticed(exported):
    shapes = {name: tuple(output.shape) for name, output in exported.network.output.items()}
    convert.check_signature(exported.described["int8"], shapes)
    with pytest.raises(ModelError, match="outputs are"):
        convert.check_signature(exported.float_tflite, {**shapes, "global_descriptor": (1, 13)})
    model = convert._parse(exported.float_tflite)
    model.signatureDefs = None
    with pytest.raises(ModelError, match="no signature"):
        convert.check_signature(convert._pack(model), shapes)


def test_outputs_are_those_of_keras(exported):
    model = Model("test", content=exported.described["none"])
    image = exported.images[0]
    reference = exported.network(model.description.scale(image), training=False)
    convert.check_float(model(image), reference)
    for wrong in (0.01, np.nan):
        with pytest.raises(ModelError, match=r"local_descriptors .* off by"):
            convert.check_float(
                model(image), {**reference, "local_descriptors": reference["local_descriptors"] + wrong}
            )


def test_fidelity(exported):
    models = {p: Model("test", content=exported.described[p]) for p in PRECISIONS}
    reference = [models["none"](image) for image in exported.images]
    for precision, model in models.items():
        convert.check_fidelity(convert.fidelity([model(image) for image in exported.images], reference), precision)
    equal = convert.fidelity(reference, reference)
    assert np.allclose([equal.keypoint_scores, equal.local_descriptors, equal.global_descriptor], 1)
    shuffled = convert.fidelity(reference[::-1], reference)
    with pytest.raises(ModelError, match=r"keypoint_scores .* --calibration"):
        convert.check_fidelity(shuffled, "int8")
    with pytest.raises(ModelError):
        convert.check_fidelity(Fidelity(1.0, float("nan"), 1.0), "int8")


def test_rounding_keeps_sums():
    kernels = np.random.default_rng(0).normal(size=(9, 200))
    steps = (kernels - kernels.mean(axis=0)) / np.abs(kernels - kernels.mean(axis=0)).max(axis=0) * 127
    rounded = convert._round_keeping_sums(steps)
    assert np.array_equal(rounded, np.rint(rounded))
    assert np.abs(np.rint(steps).sum(axis=0)).max() > 1.5  # what it is for
    assert np.abs(rounded.sum(axis=0)).max() < 0.5
    assert np.abs(rounded - steps).max() < 1.5
    assert np.array_equal(np.abs(rounded).max(axis=0), np.full(200, 127))


def test_rounding_does_not_shift_the_mean(exported):
    """By hand for one layer, the linear 1x1 convolution of the first block."""

    def kernel_and_bias(content: bytes) -> list[np.ndarray]:
        model = convert._parse(content)
        (graph,) = model.subgraphs
        (op,) = [op for op in graph.operators if "/b0.proj" in convert._name(graph, op)]
        tensors = [graph.tensors[i] for i in op.inputs[1:]]
        return [np.frombuffer(bytes(model.buffers[t.buffer].data), np.float32).reshape(t.shape) for t in tensors]

    inputs = scaled(exported)
    layers = exported.network.get_layer("b0.dw.relu").output
    x = np.concatenate([keras.Model(exported.network.input, layers)(image) for image in inputs])
    (w, b), (w8, b8) = (
        kernel_and_bias(c)
        for c in (exported.float_tflite, convert.round_weights(exported.float_tflite, "int8", inputs))
    )
    mean = x.mean(axis=(0, 1, 2), dtype=np.float64)
    before, rounded, after = (k[:, 0, 0] @ mean + bias for k, bias in ((w, b), (w8, b), (w8, b8)))
    assert np.abs(rounded - before).max() > 1e-3
    np.testing.assert_allclose(after, before, atol=1e-4)
    steps = w8[:, 0, 0] / np.abs(w8[:, 0, 0]).max(axis=1, keepdims=True) * 127
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_fewer_global_dimensions_are_the_first_ones(exported, weights):
    narrow, narrow_hash = hfnet_from_weights(weights, SIZE, global_dim=5)
    x = scaled(exported)[0]
    full = np.asarray(exported.network(x, training=False)["global_descriptor"])[0]
    cut = np.asarray(narrow(x, training=False)["global_descriptor"])[0]
    assert np.allclose(cut, full[:5] / np.linalg.norm(full[:5]), atol=1e-5)
    assert narrow_hash == read_description(exported.described["none"], "test").weights_hash
    assert CONFIG.global_dim == 12
