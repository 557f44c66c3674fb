"""A network to .tflite, and proof that the file is what it says.

    `sources` ──> float32 .tflite ──ai-edge-quantizer, `RECIPES`──> .tflite ──`embed`──> with its description
                                    or the rules of a `quantization_recipe`, which an `autopilot` may have found

Converters fail without a word: a file with half the weights, float layers where int8 was asked for, layers that the
fast kernels refuse. So each step is followed by checks, and each check raises `ModelError` and says what to do.
"""

from __future__ import annotations

import copy
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version

import cv2
import flatbuffers
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from ai_edge_quantizer import qtyping, quantizer

from hfnet_edge.errors import ModelError
from hfnet_edge.image.keypoints import detect, sample_descriptors
from hfnet_edge.networks.description import METADATA_NAME, UNSEALED, Description, read_description, sealed
from hfnet_edge.networks.model import RawOutputs
from hfnet_edge.schema.description_generated import ModelDescriptionT, OutputT
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks.hfnet import INPUT_RANGE, HFNetConfig

NMS_RADIUS = 4
SIGNATURE, INPUT = "serving_default", "image"
ALLOWED = {
    # our HF-Net
    "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "PAD", "FULLY_CONNECTED", "RESHAPE", "TRANSPOSE", "SOFTMAX", "SUM", "MUL",
    "SUB", "RSQRT", "MAXIMUM", "SQUARED_DIFFERENCE", "BATCH_MATMUL", "L2_NORMALIZATION", "QUANTIZE", "DEQUANTIZE",
    # other encoders: activations, pooling, skip connections at another resolution, squeeze and excitation
    "RELU", "RELU6", "LEAKY_RELU", "PRELU", "HARD_SWISH", "LOGISTIC", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN",
    "CONCATENATION", "SPLIT", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE_CONV", "PADV2",
    # norms and NetVLAD as other exporters write them
    "SQUARE", "SQRT", "DIV", "ABS", "POW", "EXP", "MINIMUM", "REDUCE_MAX", "EXPAND_DIMS", "SQUEEZE", "BROADCAST_TO",
    "TILE", "PACK", "UNPACK",
    # dense scores: without the dustbin, cells unfolded to pixels, suppressed by pooling and comparing
    "SLICE", "STRIDED_SLICE", "DEPTH_TO_SPACE", "EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL",
    "LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT", "SELECT", "SELECT_V2", "CAST", "ZEROS_LIKE", "FILL",
}  # fmt: skip
NO_PRECISION = {schema.TensorType.INT32, schema.TensorType.INT64, schema.TensorType.BOOL}  # of indices and comparisons
UPGRADE = "install the versions that hfnet-edge is tested with: pip install -U 'hfnet-edge[export]'"

# How an operator computes.
FLOAT32 = "float32"
FLOAT16_WEIGHTS = "float16 weights"  # turned back to float32 when the model is loaded
INT8_WEIGHTS = "int8 weights"  # activations are quantized as they come ("dynamic range")
INT8 = "int8"  # input, weights and output; bias int32; ranges from calibration


@dataclass(frozen=True)
class Operator:
    """One operator of a .tflite file.

    Attributes:
        kind: "CONV_2D", ...; custom and Flex operators go by their custom name.
        name: of the tensors that it writes.
        precision: how it computes, `INT8`, ... or "mixed".
        reads: names of the inputs that depend on the image; ``activations`` are their shapes.
        weights: number of values in the others.
    """

    kind: str
    name: str
    precision: str
    reads: tuple[str, ...]
    activations: tuple[tuple[int, ...], ...]
    weights: int


@dataclass(frozen=True)
class Rule:
    """Operators of kind ``op`` for which ``where`` holds compute in ``precision``; the last of several rules wins."""

    op: str
    precision: str
    where: Callable[[Operator], bool] = lambda op: True


def adds_maps(op: Operator) -> bool:
    """A shortcut of the encoder, not the "+ epsilon" of a norm, which int8 destroys."""
    return len(op.activations) == 2 and op.activations[0] == op.activations[1] and len(op.activations[0]) == 4


def is_large(op: Operator) -> bool:
    """The projection, 96 % of our float file, not the soft assignment of NetVLAD, which stays in float."""
    return len(op.activations) == 1 and op.weights >= 2**14


def named(names: Iterable[str]) -> Callable[[Operator], bool]:
    """The operators of these names."""
    chosen = frozenset(names)
    return lambda op: op.name in chosen


# What no rule names stays in float32: softmax, norms and NetVLAD's arithmetic. In "dynamic" so do the depthwise
# convolutions, because with int8 weights alone they do not reach XNNPACK, which makes the model slower than float.
RECIPES: dict[str, tuple[Rule, ...]] = {
    "none": (),
    "fp16": tuple(Rule(op, FLOAT16_WEIGHTS) for op in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")),
    "dynamic": (Rule("CONV_2D", INT8_WEIGHTS), Rule("FULLY_CONNECTED", INT8_WEIGHTS, is_large)),
    "int8": (
        Rule("CONV_2D", INT8),
        Rule("DEPTHWISE_CONV_2D", INT8),
        Rule("PAD", INT8),
        Rule("ADD", INT8, adds_maps),
        Rule("FULLY_CONNECTED", INT8_WEIGHTS, is_large),
    ),
}
MEANING = {"none": FLOAT32, "fp16": FLOAT16_WEIGHTS, "dynamic": INT8_WEIGHTS, "int8": INT8}
BYTES_PER_WEIGHT = {FLOAT32: 4, FLOAT16_WEIGHTS: 2, INT8_WEIGHTS: 1, INT8: 1}


@dataclass(frozen=True)
class Fidelity:
    """How close a model's outputs are to those of the float network, mean over images; 1 is equal.

    Attributes:
        keypoint_scores: correlation of the score maps.
        local_descriptors: cosine, at the float network's keypoints.
        global_descriptor: cosine.
    """

    keypoint_scores: float
    local_descriptors: float
    global_descriptor: float


FLOORS: dict[str, Fidelity] = {
    "none": Fidelity(0.9999, 0.9999, 0.9999),
    "fp16": Fidelity(0.995, 0.995, 0.995),
    "dynamic": Fidelity(0.95, 0.97, 0.9),
    "int8": Fidelity(0.95, 0.97, 0.9),
}


def to_float_tflite(model: keras.Model) -> bytes:
    """Converts a Keras model of fixed size, and checks the file. A batch that the model leaves open stays so: it is 1
    until the interpreter's input is resized.

    Raises:
        ModelError: the converter fails, or what it wrote is not this network.
    """
    try:
        with quiet():
            # not from_concrete_functions: that "succeeds" with a file that lacks the weights
            content = bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    except Exception as e:
        raise ModelError(f"TensorFlow cannot convert the network: {e}", UPGRADE) from e
    shapes = {name: tuple(n or 1 for n in output.shape) for name, output in model.output.items()}
    check_converted(content, parameter_count(model), shapes)
    return content


def function_to_float_tflite(function, parameters: int, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Converts a `tf.function` from `INPUT` to a dict of outputs, and checks the file.

    Args:
        function: with an input signature, and weights that are constants: variables could be lost without a word.
        parameters, shapes: see `check_converted`.

    Raises:
        ModelError: the converter fails, or what it wrote is not this network.
    """
    try:
        with quiet(), tempfile.TemporaryDirectory() as folder:
            tf.saved_model.save(tf.Module(), folder, signatures={SIGNATURE: function})
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[SIGNATURE])
            # what TFLite lacks shall become an operator that `check_operators` can name
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
            converter.allow_custom_ops = True
            content = bytes(converter.convert())
    except Exception as e:
        raise ModelError(f"TensorFlow cannot convert the network: {str(e)[:400]}", UPGRADE) from e
    check_converted(content, parameters, shapes)
    return content


def check_converted(content: bytes, parameters: int, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A float32 .tflite as the other steps need it: known operators, all weights, one image in, these outputs.

    Args:
        parameters: number of weights, see `check_size`. shapes: of each output, by name.

    Raises:
        ModelError: says what is not so.
    """
    check_operators(content)
    check_size(content, parameters, operators(content), "none")
    check_signature(content, shapes)
    check_precisions(content, "none")


def parameter_count(model: keras.Model) -> int:
    """Weights that are left once batch normalisation is folded into the convolutions."""
    folded = ("gamma", "moving_mean", "moving_variance")
    return sum(int(np.prod(v.shape)) for v in model.weights if v.path.rsplit("/", 1)[-1] not in folded)


def quantize(content: bytes, recipe: str | Sequence[Rule], inputs: Sequence[np.ndarray]) -> bytes:
    """Applies a recipe to a float32 .tflite and checks the result.

    Args:
        recipe: one of `RECIPES` by name, or rules.
        inputs: (N, H, W, 1) float32 network inputs, for calibration; N is 1 where the network's batch is.

    Raises:
        ModelError: the quantizer fails, or left an operator at another precision than the recipe says.
    """
    if all(expected_precision(op, recipe) == FLOAT32 for op in operators(content)):
        return content
    content = round_weights(content, recipe, inputs)
    try:
        with quiet():
            q = _quantizer(content, recipe)
            ranges = _ranges(q, inputs) if q.need_calibration else None
            quantized = bytes(
                q.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).quantized_model or b""
            )
    except Exception as e:
        raise ModelError(f"ai-edge-quantizer cannot quantize the network: {e}", UPGRADE) from e
    check_operators(quantized)
    check_precisions(quantized, recipe)
    return quantized


def _rules(recipe: str | Sequence[Rule]) -> Sequence[Rule]:
    return RECIPES[recipe] if isinstance(recipe, str) else recipe


def _quantizer(content: bytes, recipe: str | Sequence[Rule]) -> quantizer.Quantizer:
    q = quantizer.Quantizer(content)
    graph = operators(content)
    for kind, precision in dict.fromkeys((rule.op, rule.precision) for rule in _rules(recipe)):
        names = [re.escape(op.name) for op in graph if op.kind == kind and expected_precision(op, recipe) == precision]
        if not names or precision == FLOAT32:
            continue
        op, scope = qtyping.TFLOperationName(kind), f"^({'|'.join(names)});?$"
        if precision == INT8:
            q.add_static_config(scope, op, activation_num_bits=8, weight_num_bits=8)
        elif precision == INT8_WEIGHTS:
            q.add_dynamic_config(scope, op, num_bits=8)
        else:
            half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
            config = qtyping.OpQuantizationConfig(
                weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
            )
            q.update_quantization_recipe(scope, op, config, quantizer.AlgorithmName.FLOAT_CASTING)
    return q


def calibrate(
    content: bytes, recipe: str | Sequence[Rule], inputs: Sequence[np.ndarray]
) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each int8 tensor of the image, as `quantize` would use them, by its name.

    Raises:
        ModelError: the quantizer fails.
    """
    try:
        with quiet():
            ranges = _ranges(_quantizer(round_weights(content, recipe, inputs), recipe), inputs)
    except Exception as e:
        raise ModelError(f"ai-edge-quantizer cannot calibrate the network: {e}", UPGRADE) from e
    seen = {name: (np.ravel(r["min"]), np.ravel(r["max"])) for name, r in ranges.items() if r}
    return {name: (float(low[0]), float(high[0])) for name, (low, high) in seen.items() if low.size == 1}


def _ranges(q: quantizer.Quantizer, inputs: Sequence[np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Each tensor's lowest and highest value, image by image, and of these the 10th and 90th percentile.

    The quantizer's own moving average gives the first image most of the weight, and the plain extremes give the oddest
    image all of it.
    """
    each = [q.calibrate({SIGNATURE: [{INPUT: x}]}, num_threads=2) for x in inputs]
    return {
        name: {
            "min": np.percentile([ranges[name]["min"] for ranges in each], 10, axis=0),
            "max": np.percentile([ranges[name]["max"] for ranges in each], 90, axis=0),
        }
        if seen
        else {}
        for name, seen in each[0].items()
    }


def round_weights(content: bytes, recipe: str | Sequence[Rule], inputs: Sequence[np.ndarray]) -> bytes:
    """Rounds the kernels that become int8 so that rounding does not shift the layers' outputs.

    Inputs of a convolution are far from zero mean, so an error in the kernel's sum acts like an error of the bias, and
    near the image that costs more than all other rounding of the network together. Two remedies:

    - Many depthwise kernels are derivatives, whose nine taps cancel. Rounded tap by tap they answer to brightness. So
      where the sum of a kernel is off by n steps, the n taps that were nearest to rounding the other way do so.
    - What is left on average is taken off the bias (Nagel et al. 2019, section 4.2), with the mean of each input
      channel over the calibration images.

    Cosines of local and global descriptors on photos, bundled weights: 0.994 and 0.962 without either, 0.9984 and 0.995
    with the second, 0.9988 and 0.996 with both. Early in training the first alone did most of it (0.979 to 0.998).

    The quantizer, which scales each kernel by its largest tap, then finds nothing to round.
    """
    rounded = {op.name for op in operators(content) if expected_precision(op, recipe) in (INT8, INT8_WEIGHTS)}
    return round_kernels(content, rounded, channel_means(content, inputs)) if rounded else content


def round_kernels(content: bytes, names: Collection[str], means: Mapping[bytes, np.ndarray]) -> bytes:
    """`round_weights` of the operators of these names, with `channel_means`."""
    model = _parse(content)
    (graph,) = model.subgraphs
    shared = Counter(graph.tensors[i].buffer for op in graph.operators for i in op.inputs if i >= 0)
    for op in graph.operators:
        kind, name = flatbuffer_utils.opcode_to_name(model, op.opcodeIndex), _name(graph, op)
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D") or name not in names:
            continue
        x, weights, bias = (graph.tensors[i] for i in op.inputs)
        if x.shape[-1] != weights.shape[-1]:  # in groups, or several kernels a channel: not in any HF-Net
            continue
        kernel = np.frombuffer(bytes(model.buffers[weights.buffer].data), np.float32).astype(np.float64)
        kernel = kernel.reshape(weights.shape)  # OHWI; depthwise: 1HWO
        depthwise = kind == "DEPTHWISE_CONV_2D"
        columns = kernel.reshape(-1, kernel.shape[-1]) if depthwise else kernel.reshape(kernel.shape[0], -1).T
        scale = np.maximum(np.abs(columns).max(axis=0), 1e-12) / 127
        rounded = (_round_keeping_sums(columns / scale) if depthwise else np.rint(columns / scale)) * scale
        error = rounded - columns  # (taps, outputs)
        mean = means[x.name]
        shift = error.sum(axis=0) * mean if depthwise else np.tile(mean, kernel[0, ..., 0].size) @ error
        model.buffers[weights.buffer].data = (rounded if depthwise else rounded.T).astype(np.float32).tobytes()
        corrected = np.frombuffer(bytes(model.buffers[bias.buffer].data), np.float32) - shift
        if shared[bias.buffer] > 1:  # layers with equal biases share one
            bias = copy.copy(bias)
            bias.name, bias.buffer = f"{name}/bias".encode(), len(model.buffers)
            op.inputs = [*op.inputs[:2], len(graph.tensors)]
            graph.tensors.append(bias)
            model.buffers.append(schema.BufferT())
        model.buffers[bias.buffer].data = corrected.astype(np.float32).tobytes()
    return _pack(model)


def channel_means(content: bytes, inputs: Sequence[np.ndarray]) -> dict[bytes, np.ndarray]:
    """Mean of each channel of each 4-D tensor over images and pixels, by the tensor's name."""
    with quiet():
        interpreter = Interpreter(model_content=content, num_threads=2, experimental_preserve_all_tensors=True)
        interpreter.allocate_tensors()
    (image,) = interpreter.get_input_details()
    maps = {t["name"].encode(): t["index"] for t in interpreter.get_tensor_details() if len(t["shape"]) == 4}
    total: dict[bytes, np.ndarray] = {}
    for x in inputs:
        if tuple(image["shape"]) != x.shape:
            interpreter.resize_tensor_input(image["index"], x.shape)
            interpreter.allocate_tensors()
            (image,) = interpreter.get_input_details()
        interpreter.set_tensor(image["index"], x)
        interpreter.invoke()
        for name, index in maps.items():
            mean = interpreter.get_tensor(index).mean(axis=(0, 1, 2), dtype=np.float64)
            total[name] = total.get(name, 0) + mean / len(inputs)
    return total


def round_tensors(content: bytes, ranges: Mapping[str, tuple[float, float]]) -> bytes:
    """A float32 .tflite in which some tensors are rounded to int8 and back, and everything else is as it was.

    Args:
        ranges: lowest and highest value of each, by name; zero is always among the values.
    """
    model = _parse(content)
    (graph,) = model.subgraphs
    codes = {}
    for code in (schema.BuiltinOperator.QUANTIZE, schema.BuiltinOperator.DEQUANTIZE):
        codes[code] = len(model.operatorCodes)
        model.operatorCodes.append(schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, version=1))
    for i, tensor in enumerate(list(graph.tensors)):
        if tensor.name.decode() not in ranges:
            continue
        low, high = ranges[tensor.name.decode()]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32(max(high - low, 1e-9) / 255)
        rounded, back = copy.copy(tensor), copy.copy(tensor)
        rounded.type, rounded.buffer, back.buffer = schema.TensorType.INT8, 0, 0
        zero = int(np.clip(np.rint(-128 - low / scale), -128, 127))
        rounded.quantization = schema.QuantizationParametersT(
            scale=np.array([scale], np.float32), zeroPoint=np.array([zero], np.int64)
        )
        rounded.name, back.name = tensor.name + b"_rounded", tensor.name + b"_back"
        a, b = len(graph.tensors), len(graph.tensors) + 1
        graph.tensors += [rounded, back]
        writer = [k for k, op in enumerate(graph.operators) if i in op.outputs]  # none: the image
        for op in graph.operators:
            op.inputs = [b if j == i else j for j in op.inputs]
        for signature in model.signatureDefs or []:
            for output in signature.outputs:
                output.tensorIndex = b if output.tensorIndex == i else output.tensorIndex
        graph.outputs = [b if j == i else j for j in graph.outputs]
        at = writer[0] + 1 if writer else 0
        graph.operators[at:at] = [
            schema.OperatorT(opcodeIndex=codes[code], inputs=[x], outputs=[y])
            for code, x, y in ((schema.BuiltinOperator.QUANTIZE, i, a), (schema.BuiltinOperator.DEQUANTIZE, a, b))
        ]
    return _pack(model)


def _round_keeping_sums(steps: np.ndarray) -> np.ndarray:
    """Rounds (taps, kernels) to integers; a column's sum stays within half of what it was."""
    rounded = np.rint(steps)
    for k in range(steps.shape[1]):
        excess = int(np.rint(rounded[:, k].sum() - steps[:, k].sum()))
        gain = (rounded[:, k] - steps[:, k]) * np.sign(excess)
        gain[np.abs(rounded[:, k]) == 127] = -1  # the largest tap decides the scale
        rounded[np.argsort(-gain, kind="stable")[: abs(excess)], k] -= np.sign(excess)
    return rounded


def describe(config: HFNetConfig, weights_hash: str, precision: str, input_size: tuple[int, int]) -> Description:
    """The description of an HF-Net of this configuration, with the versions of the tools at hand."""
    return Description(
        architecture=f"hfnet-mobilenetv2-{config.width}",
        weights_hash=weights_hash,
        precision=precision,
        input_size=input_size,
        input_range=INPUT_RANGE,
        local_dim=config.local_dim,
        global_dim=config.global_dim,
        nms_radius=NMS_RADIUS,
        outputs={role: role for role in ("keypoint_logits", "local_descriptors", "global_descriptor")},
        toolchain=toolchain(),
    )


def toolchain() -> tuple[str, ...]:
    """``name version`` of everything that shapes a model file."""
    lines = [f"tensorflow {tf.__version__}", f"keras {keras.__version__}"]
    for name in ("ai-edge-quantizer", "ai-edge-litert", "hfnet-edge"):
        try:
            lines.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # run from a checkout
            continue
    return tuple(lines)


def embed(content: bytes, description: Description) -> bytes:
    """The same model with ``description`` as metadata and a checksum, as
    `hfnet_edge.networks.description.read_description` reads it.

    Raises:
        ModelError: a field is out of its bounds, or does not come back as it went in.
    """
    t = ModelDescriptionT()
    t.architecture, t.weightsHash, t.precision = (
        description.architecture,
        description.weights_hash,
        description.precision,
    )
    t.inputHeight, t.inputWidth = description.input_size
    t.inputLow, t.inputHigh = description.input_range
    t.localDim, t.globalDim, t.nmsRadius = description.local_dim, description.global_dim, description.nms_radius
    t.outputs = [OutputT(role, name) for role, name in description.outputs.items()]
    t.toolchain, t.checksum = list(description.toolchain), UNSEALED
    builder = flatbuffers.Builder()
    builder.Finish(t.Pack(builder))

    model = _parse(content)
    kept = [row for row in model.metadata or [] if row.name != METADATA_NAME.encode()]
    model.metadata = [*kept, schema.MetadataT(METADATA_NAME, len(model.buffers))]
    model.buffers.append(schema.BufferT(data=bytes(builder.Output())))
    described = sealed(_pack(model))
    if read_description(described, "the new model") != description:
        raise ModelError("the model's description does not read back", UPGRADE)
    return described


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data lies at a multiple of 16 bytes: TFLite's schema demands it, its Python code does not."""

    def __init__(self, buffer: schema.BufferT):
        super().__init__(data=buffer.data)

    def Pack(self, builder: flatbuffers.Builder) -> int:
        data = None
        if self.data is not None and len(self.data):
            raw = bytes(self.data)
            builder.StartVector(1, len(raw), 16)
            builder.head -= len(raw)
            builder.Bytes[builder.head : builder.head + len(raw)] = raw
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def _pack(model: schema.ModelT) -> bytes:
    model.buffers = [_AlignedBuffer(buffer) for buffer in model.buffers]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _parse(content: bytes) -> schema.ModelT:
    try:
        return flatbuffer_utils.read_model_from_bytearray(content)
    except Exception as e:  # flatbuffers for Python has no verifier: damage shows as any exception
        raise ModelError(f"the converted model is damaged ({type(e).__name__})", UPGRADE) from e


def operators(content: bytes) -> list[Operator]:
    """The operators of a .tflite file, in order of execution."""
    model = _parse(content)
    graph = model.subgraphs[0]  # others are the bodies of loops and branches, which `ALLOWED` lacks
    half = {  # tensors that are float16 weights turned to float32
        int(op.outputs[0]) for op in graph.operators if graph.tensors[op.inputs[0]].type == schema.TensorType.FLOAT16
    }
    constant = {
        i for i, t in enumerate(graph.tensors) if (data := model.buffers[t.buffer].data) is not None and len(data)
    }

    def precision(inputs: list[int], outputs: list[int]) -> str:
        used = [i for i in [*inputs, *outputs] if i >= 0]
        types = {graph.tensors[i].type for i in used} - NO_PRECISION
        activations = {graph.tensors[i].type for i in [inputs[0], *outputs]}
        if types == {schema.TensorType.INT8}:
            return INT8
        if activations == {schema.TensorType.FLOAT32} and len(inputs) > 1:
            if graph.tensors[inputs[1]].type == schema.TensorType.INT8:
                return INT8_WEIGHTS
            if inputs[1] in half:
                return FLOAT16_WEIGHTS
        return FLOAT32 if types <= {schema.TensorType.FLOAT32} else "mixed"

    def shape(i: int) -> tuple[int, ...]:
        return tuple(int(n) for n in graph.tensors[i].shape)

    found = []
    for op in graph.operators:
        code = model.operatorCodes[op.opcodeIndex]
        kind = (code.customCode or b"").decode() or flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)
        inputs, outputs = [int(i) for i in op.inputs], [int(i) for i in op.outputs]
        weights = [i for i in inputs if i in constant | half]
        read = [i for i in inputs if i >= 0 and i not in weights]
        reads = tuple(graph.tensors[i].name.decode() for i in read)
        size = sum(math.prod(shape(i)) for i in weights)
        how = precision(inputs, outputs)
        found.append(Operator(kind, _name(graph, op), how, reads, tuple(shape(i) for i in read), size))
    return found


def _name(graph: schema.SubGraphT, op: schema.OperatorT) -> str:
    return ";".join(graph.tensors[i].name.decode() for i in op.outputs)


def check_operators(content: bytes) -> None:
    """Only operators that every TFLite runtime has. Raises ModelError for custom, Flex and unexpected ones."""
    strange = sorted({op.kind for op in operators(content)} - ALLOWED)
    if strange:
        raise ModelError(
            f"the converted model needs {', '.join(strange)}, which hfnet-edge does not know from HF-Nets",
            "leave them out, keypoints are picked outside of the network; or " + UPGRADE,
        )


def check_size(content: bytes, parameters: int, graph: Sequence[Operator], recipe: str | Sequence[Rule]) -> None:
    """The file is as large as its weights, in the precisions that a recipe gives their operators.

    Args:
        parameters: number of weights.
        graph: of the network in float32.

    Raises:
        ModelError: it is smaller or larger.
    """
    weights = sum(op.weights for op in graph)
    compressed = sum(op.weights * BYTES_PER_WEIGHT[expected_precision(op, recipe)] for op in graph)
    expected = parameters * compressed // max(weights, 1)  # the mean of a weight: those that layers share count once
    low, high = 0.95 * expected, 1.1 * expected + 400_000  # the graph, scales of int8, weights left in float
    if not low <= len(content) <= high:
        raise ModelError(
            f"the converted model has {len(content)} bytes, its {parameters} weights need about {expected}",
            "weights were lost or not compressed; " + UPGRADE,
        )


def output_names(content: bytes) -> dict[str, str]:
    """The tensors that are outputs: the tensor's name to the output's in the default signature."""
    model = _parse(content)
    (signature,) = [s for s in model.signatureDefs if s.signatureKey.decode() == SIGNATURE]
    tensors = model.subgraphs[0].tensors
    return {tensors[o.tensorIndex].name.decode(): o.name.decode() for o in signature.outputs}


def check_signature(content: bytes, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """The default signature takes an image, and has these outputs by name and shape. Raises ModelError."""
    model = _parse(content)
    signatures = {s.signatureKey.decode(): s for s in model.signatureDefs or []}
    if SIGNATURE not in signatures:
        raise ModelError("the converted model has no signature", UPGRADE)
    tensors, signature = model.subgraphs[0].tensors, signatures[SIGNATURE]
    found = {o.name.decode(): tuple(int(n) for n in tensors[o.tensorIndex].shape) for o in signature.outputs}
    if found != dict(shapes) or [i.name.decode() for i in signature.inputs] != [INPUT]:
        raise ModelError(f"the converted model's outputs are {found}, not {shapes}", UPGRADE)


def check_precisions(content: bytes, recipe: str | Sequence[Rule]) -> None:
    """Every operator computes as the recipe says, those that it leaves alone in float32. Raises ModelError."""
    wrong = [
        f"{op.kind} {op.name.split(';')[-1]} is {op.precision}, not {expected}"
        for op in operators(content)
        if op.kind not in ("QUANTIZE", "DEQUANTIZE")
        for expected in [expected_precision(op, recipe)]
        if op.precision != expected
    ]
    if wrong:
        said = f"--quantize {recipe}" if isinstance(recipe, str) else "the recipe"
        raise ModelError(f"{len(wrong)} operators are not as {said} says, first {wrong[0]}", UPGRADE)


def expected_precision(op: Operator, recipe: str | Sequence[Rule]) -> str:
    """How the operator computes under this recipe, one of `RECIPES` by name, or rules."""
    matching = [rule.precision for rule in _rules(recipe) if rule.op == op.kind and rule.where(op)]
    return matching[-1] if matching else FLOAT32


def deserves(precision: str, graph: Iterable[Operator], recipe: str | Sequence[Rule]) -> bool:
    """Some operator computes as the name of the precision says. Else it names a float network."""
    return any(expected_precision(op, recipe) == MEANING[precision] for op in graph)


def check_xnnpack(content: bytes) -> None:
    """LiteRT hands every convolution and matrix product to XNNPACK, its fast kernels. Raises ModelError."""
    with quiet():
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        nodes = interpreter._get_ops_details()
    taken = {int(i) for node in nodes if node["op_name"] == "DELEGATE" for i in node["inputs"]}
    source = {int(n["outputs"][0]): int(n["inputs"][0]) for n in nodes if n["op_name"] == "DEQUANTIZE"}  # of float16
    heavy = [node for node in nodes if node["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")]
    left = [
        n["op_name"] for n in heavy for weights in [int(n["inputs"][1])] if not {weights, source.get(weights)} & taken
    ]
    if left:
        raise ModelError(
            f"{len(left)} of {len(heavy)} convolutions do not run on XNNPACK, first a {left[0]}",
            "the model would be slow; " + UPGRADE,
        )


def check_float(outputs: RawOutputs, reference: Mapping[str, np.ndarray], tolerance: float = 1e-3) -> None:
    """The float .tflite computes what the original does, within ``tolerance`` of the largest value.

    Of score maps one pixel in a thousand may differ more: suppression makes a hard choice between equals.

    Raises:
        ModelError: an output is off, or not a number.
    """
    for role, original in reference.items():
        ours, theirs = getattr(outputs, role), np.asarray(original)[0]
        difference = np.abs(ours - theirs)
        worst = float(np.quantile(difference, 0.999 if role == "keypoint_scores" else 1.0))
        error = worst / max(1.0, float(np.abs(theirs).max()))
        if not error <= tolerance:  # NaN is wrong too
            raise ModelError(f"{role} of the converted model is off by {error:.2g} from the original", UPGRADE)


def check_values(outputs: RawOutputs) -> None:
    """The keypoint output holds what its role says. Raises ModelError."""
    logits, scores = outputs.keypoint_logits, outputs.keypoint_scores
    if logits is not None and logits.min() >= 0 and np.allclose(logits.sum(axis=-1), 1, atol=1e-3):
        raise ModelError(
            "the keypoint logits are probabilities already", "name the dense scores instead: --outputs scores=NAME"
        )
    if scores is not None and not (scores.min() >= -1e-3 and scores.max() <= 1 + 1e-3):
        raise ModelError(
            f"the keypoint scores lie between {scores.min():.3g} and {scores.max():.3g}, but are probabilities",
            "name the right output: --outputs scores=NAME, or export it after the softmax",
        )


def fidelity(outputs: Sequence[RawOutputs], reference: Sequence[RawOutputs]) -> Fidelity:
    """Compares a model's outputs with the float network's, image by image."""
    correlations, local_cosines, global_cosines = [], [], []
    for ours, theirs in zip(outputs, reference, strict=True):
        scores = theirs.scores()
        correlations.append(np.corrcoef(_spread(ours.scores()).ravel(), _spread(scores).ravel())[0, 1])
        xy, _ = detect(scores, scores.shape, count=1000, threshold=1e-6)
        a, b = (sample_descriptors(o.local_descriptors, xy).astype(np.float64) for o in (ours, theirs))
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        local_cosines.append(np.mean((a * b).sum(axis=1) / np.maximum(lengths, 1.0)))
        a, b = (o.global_descriptor.astype(np.float64) for o in (ours, theirs))
        global_cosines.append(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
    return Fidelity(*(float(np.mean(values)) for values in (correlations, local_cosines, global_cosines)))


def _spread(scores: np.ndarray) -> np.ndarray:
    """A score map to compare. After suppression its peaks are widened to 5x5 pixels, for some move by one; as they are
    the bundled network at int8 correlates with itself in float to 0.928, widened 0.975, before suppression 0.994."""
    suppressed = np.count_nonzero(scores) < 0.1 * scores.size
    return cv2.dilate(scores, np.ones((5, 5), np.uint8)) if suppressed else scores


def check_fidelity(measured: Fidelity, precision: str) -> None:
    """Every output is as close to the float network's as this precision allows. Raises ModelError."""
    for field in fields(Fidelity):
        value, floor = getattr(measured, field.name), getattr(FLOORS[precision], field.name)
        if not value >= floor:  # NaN is too low
            raise ModelError(
                f"{field.name} of the {precision} model agree with the float network to {value:.4f}, below {floor}",
                "give photos of the place with --calibration, or a --gate, or use --quantize none",
            )
