from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from conftest import CONFIG, SIZE
from hfnet_edge.errors import ModelError
from hfnet_edge.image.keypoints import sample_descriptors
from hfnet_edge.networks.description import HYPERCOLUMN_ROLE, LOCAL_ROLES, read_description
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.tensor import Tensor
from hfnet_export.networks.any_hfnet import FLOORS, HFNetFidelity, compare
from hfnet_export.networks.weights import hfnet_from_weights
from hfnet_export.tflite import checks, rounding
from hfnet_export.tflite.convert import parameter_count
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import FLOAT16_WEIGHTS, FLOAT32, INT8_WEIGHTS, Graph, Operator, name_of, pack
from hfnet_export.tflite.quantize import quantize
from hfnet_export.tflite.rules import ADDS_MAPS, ALL, RECIPES, Rule, bundled

PRECISIONS = list(RECIPES)
RULES = {precision: bundled(name) for precision, name in RECIPES.items()}


def scaled(exported) -> list[np.ndarray]:
    description = read_description(exported.described["none"], "test")
    return [description.scale(image) for image in exported.images]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_description_round_trip(exported, weights, precision):
    d = read_description(exported.described[precision], "test")
    assert (d.precision, d.input_size, d.local_dim, d.global_dim) == (precision, SIZE, 32, 12)
    assert d.weights_hash == hfnet_from_weights(weights, (64, 64))[1]  # whatever the precision and the input size
    assert any(line.startswith("tensorflow ") for line in d.toolchain)


def test_describing_again_replaces_the_description(exported):
    first = exported.described["int8"]
    changed = replace(read_description(first, "test"), nms_radius=7)
    again = embed(Graph.parse(first), changed)
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
    made = Graph.parse(exported.described[precision])
    checks.check_precisions(made, RULES[precision])
    checks.check_size(made, parameter_count(exported.network), exported.graph.operators, RULES[precision])
    checks.check_xnnpack(made.content)
    for other in PRECISIONS:
        if other != precision:
            with pytest.raises(ModelError, match="operators are not as"):
                checks.check_precisions(made, RULES[other])


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
        if node["op_name"] == "RESIZE_BILINEAR":
            assert types[node["inputs"][0]] == types[node["outputs"][0]] == np.int8
        if node["op_name"] in ("SOFTMAX", "RSQRT", "SQUARED_DIFFERENCE", "L2_NORMALIZATION", "BATCH_MATMUL"):
            assert types[node["outputs"][0]] == np.float32
    assert heavy == 71


def test_a_norm_in_int8_is_noticed(exported):
    careless = [replace(rule, scope=ALL) if rule.scope == ADDS_MAPS else rule for rule in RULES["int8"]]
    made = quantize(exported.graph, careless, scaled(exported)[:2])
    with pytest.raises(ModelError, match=r"ADD .*netvlad.* is .*, not float32"):
        checks.check_precisions(made, RULES["int8"])


def test_depthwise_off_xnnpack_is_noticed(exported):
    slow = (*RULES["dynamic"], Rule("DEPTHWISE_CONV_2D", INT8_WEIGHTS))
    made = quantize(exported.graph, slow, scaled(exported)[:1])
    with pytest.raises(ModelError, match="18 of 73 convolutions do not run on XNNPACK, first a DEPTHWISE_CONV_2D"):
        checks.check_xnnpack(made.content)


def test_strange_operators_are_noticed(exported):
    model = exported.graph.copy()
    (softmax,) = [c for c in model.operatorCodes if c.builtinCode == schema.BuiltinOperator.SOFTMAX]
    softmax.builtinCode = softmax.deprecatedBuiltinCode = schema.BuiltinOperator.COS
    with pytest.raises(ModelError, match="needs COS"):
        checks.check_operators(Graph.parse(pack(model)))
    softmax.builtinCode = softmax.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    softmax.customCode = b"FlexSoftmax"
    with pytest.raises(ModelError, match="needs FlexSoftmax"):
        checks.check_operators(Graph.parse(pack(model)))


def test_lost_weights_are_noticed(exported):
    model = exported.graph.copy()
    for buffer in model.buffers:
        buffer.data = None
    parameters, operators = parameter_count(exported.network), exported.graph.operators
    with pytest.raises(ModelError, match="weights were lost"):
        checks.check_size(Graph.parse(pack(model)), parameters, operators, RULES["none"])
    with pytest.raises(ModelError, match="not compressed"):
        checks.check_size(exported.graph, parameters, operators, RULES["int8"])


def test_the_size_follows_from_the_rules():
    """A million weights in int8, four million in float16, one million that no rule names."""
    million = 1_000_000
    kinds = {"CONV_2D": million, "FULLY_CONNECTED": 4 * million, "BATCH_MATMUL": million}
    graph = [Operator(kind, kind, FLOAT32, ("x",), ((1, 8, 8, 4),), weights) for kind, weights in kinds.items()]
    rules = (*RULES["int8"], Rule("FULLY_CONNECTED", FLOAT16_WEIGHTS))

    def of_size(size: int) -> Graph:
        return Graph(bytes(size), (), None)

    checks.check_size(of_size((1 + 8 + 4) * million), 6 * million, graph, rules)
    for wrong in ((1 + 4 + 4) * million, (1 + 16 + 4) * million):
        with pytest.raises(ModelError, match="its 6000000 weights need about 13000000"):
            checks.check_size(of_size(wrong), 6 * million, graph, rules)
    twice = [*graph, *graph]  # a layer that is applied twice has its weights once
    checks.check_size(of_size((1 + 8 + 4) * million), 6 * million, twice, rules)


def test_a_truncated_file_is_noticed(exported):
    content = exported.graph.content
    for size in (3, 100, len(content) // 3):
        with pytest.raises(ModelError, match="is damaged"):
            Graph.parse(content[:size])


def test_a_missing_signature_is_noticed(exported):
    shapes = {name: tuple(output.shape) for name, output in exported.network.output.items()}
    checks.check_signature(Graph.parse(exported.described["int8"]), shapes)
    with pytest.raises(ModelError, match="outputs are"):
        checks.check_signature(exported.graph, {**shapes, "global_descriptor": (1, 13)})
    model = exported.graph.copy()
    model.signatureDefs = None
    with pytest.raises(ModelError, match="no signature"):
        checks.check_signature(Graph.parse(pack(model)), shapes)


def test_outputs_are_those_of_keras(exported):
    model = Model("test", content=exported.described["none"])
    image = exported.images[0]
    outputs, reference = model.run(image[None]), exported.network(model.description.scale(image), training=False)
    checks.check_float(outputs, reference, 1e-3)
    for wrong in (0.01, np.nan):
        with pytest.raises(ModelError, match=r"local_descriptors .* off by"):
            off = {**reference, "local_descriptors": reference["local_descriptors"] + wrong}
            checks.check_float(outputs, off, 1e-3)


def test_dense_outputs_stay_int8(exported):
    """What they stand for is what LiteRT makes of them, to the bit; a file with float outputs does as well."""
    image, int8 = exported.images[0], Graph.parse(exported.described["int8"])
    assert all(op.kind != "DEQUANTIZE" or op.name not in int8.output_names() for op in int8.operators)
    raw = Model("test", content=exported.described["int8"])(image)
    dense = {role: output for role, output in vars(raw).items() if isinstance(output, Tensor)}
    assert set(dense) == {"keypoint_logits", *LOCAL_ROLES, HYPERCOLUMN_ROLE}, (
        "the global descriptor is computed in float"
    )
    again = Graph.parse(dequantized(int8))
    before = Model("test", content=embed(again, read_description(exported.described["int8"], "test")))(image)
    for role, output in dense.items():
        expected = getattr(before, role)
        assert expected.dtype == np.float32 and np.array_equal(np.asarray(output), expected)
    assert np.array_equal(raw.scores(), before.scores())
    xy = np.random.default_rng(0).uniform(0, (SIZE[1], SIZE[0]), (200, 2)).astype(np.float32)
    sampled = [sample_descriptors(o.descriptor_maps, xy) for o in (raw, before)]
    assert np.array_equal(*sampled) and len(np.unique(sampled[0], axis=0)) > 100


def dequantized(graph: Graph) -> bytes:
    """A file whose int8 outputs pass through one more DEQUANTIZE."""
    model = graph.copy()
    subgraph, (signature,) = model.subgraphs[0], model.signatureDefs
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2
    model.operatorCodes.append(code)
    for output in signature.outputs:
        tensor = subgraph.tensors[output.tensorIndex]
        if tensor.type == schema.TensorType.INT8:
            real = schema.TensorT()
            real.name, real.shape, real.type, real.buffer = tensor.name + b".real", tensor.shape, 0, 0
            subgraph.tensors.append(real)
            op = schema.OperatorT()
            op.opcodeIndex = len(model.operatorCodes) - 1
            op.inputs, op.outputs = [output.tensorIndex], [len(subgraph.tensors) - 1]
            subgraph.operators.append(op)
            outputs = list(subgraph.outputs)
            subgraph.outputs = [op.outputs[0] if i == output.tensorIndex else i for i in outputs]
            output.tensorIndex = op.outputs[0]
    return pack(model)


@pytest.mark.parametrize("scale", [np.nan, np.inf, -1.0])
def test_an_output_of_an_absurd_scale_is_refused(exported, scale):
    model = Graph.parse(exported.described["int8"]).copy()
    outputs = {o.name.decode(): o.tensorIndex for o in model.signatureDefs[0].outputs}
    model.subgraphs[0].tensors[outputs["keypoint_logits"]].quantization.scale = [scale]
    content = embed(Graph.parse(pack(model)), read_description(exported.described["int8"], "test"))
    with pytest.raises(ModelError, match="cannot be run"):
        Model("test", content=content)


def test_fidelity(exported):
    models = {p: Model("test", content=exported.described[p]) for p in PRECISIONS}
    reference = [models["none"](image) for image in exported.images]
    for precision, model in models.items():
        measured = compare([model(image) for image in exported.images], reference)
        checks.check_fidelity(measured, FLOORS[precision], precision)
    equal = compare(reference, reference)
    assert np.allclose([equal.keypoint_scores, equal.local_descriptors, equal.global_descriptor], 1)
    shuffled = compare(reference[::-1], reference)
    with pytest.raises(ModelError, match=r"keypoint_scores .* --calibration"):
        checks.check_fidelity(shuffled, FLOORS["int8"], "int8")
    with pytest.raises(ModelError):
        checks.check_fidelity(HFNetFidelity(1.0, float("nan"), 1.0), FLOORS["int8"], "int8")


def test_rounding_keeps_sums():
    kernels = np.random.default_rng(0).normal(size=(9, 200))
    steps = (kernels - kernels.mean(axis=0)) / np.abs(kernels - kernels.mean(axis=0)).max(axis=0) * 127
    rounded = rounding._round_keeping_sums(steps)
    assert np.array_equal(rounded, np.rint(rounded))
    assert np.abs(np.rint(steps).sum(axis=0)).max() > 1.5  # what it is for
    assert np.abs(rounded.sum(axis=0)).max() < 0.5
    assert np.abs(rounded - steps).max() < 1.5
    assert np.array_equal(np.abs(rounded).max(axis=0), np.full(200, 127))


def test_rounding_does_not_shift_the_mean(exported):
    """By hand for one layer, the linear 1x1 convolution of the first block."""

    def kernel_and_bias(made: Graph) -> list[np.ndarray]:
        model = made.model
        (graph,) = model.subgraphs
        (op,) = [op for op in graph.operators if "/b0.proj" in name_of(graph, op)]
        tensors = [graph.tensors[i] for i in op.inputs[1:]]
        return [np.frombuffer(bytes(model.buffers[t.buffer].data), np.float32).reshape(t.shape) for t in tensors]

    inputs = scaled(exported)
    layers = exported.network.get_layer("b0.dw.relu").output
    x = np.concatenate([keras.Model(exported.network.input, layers)(image) for image in inputs])
    rounded = Graph.parse(rounding.round_weights(exported.graph, RULES["int8"], inputs))
    (w, b), (w8, b8) = kernel_and_bias(exported.graph), kernel_and_bias(rounded)
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
