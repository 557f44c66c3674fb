"""A .tflite file as its operators, parsed once: what the checks, the quantizer and the autopilot look at.

A file is opened with `Graph.parse`, which is the only place that parses. Who changes a file takes `Graph.copy`, changes
the objects and writes them with `pack`.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from hfnet_edge.errors import ModelError

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
    # labels, and what is told by them
    "ARG_MAX", "GATHER",
}  # fmt: skip
NO_PRECISION = {schema.TensorType.INT32, schema.TensorType.INT64, schema.TensorType.BOOL}  # of indices and comparisons
UPGRADE = "install the versions that hfnet-edge is tested with: pip install -U 'hfnet-edge[export]'"

# How an operator computes.
FLOAT32 = "float32"
FLOAT16_WEIGHTS = "float16 weights"  # turned back to float32 when the model is loaded
INT8_WEIGHTS = "int8 weights"  # activations are quantized as they come ("dynamic range")
INT8 = "int8"  # input, weights and output; bias int32; ranges from calibration
CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")  # operators between two precisions, which have none


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
class Graph:
    """A .tflite file that was parsed.

    Attributes:
        content: the file.
        operators: in order of execution.
        model: its objects, which are for reading; `copy` gives some to change.
    """

    content: bytes
    operators: tuple[Operator, ...]
    model: schema.ModelT = field(repr=False, compare=False)

    @classmethod
    def parse(cls, content: bytes) -> Graph:
        """Parses a file. Raises ModelError: it is damaged."""
        try:
            model = flatbuffer_utils.read_model_from_bytearray(content)
            return cls(content, tuple(_operators(model)), model)
        except Exception as e:  # flatbuffers for Python has no verifier: damage shows as any exception
            raise ModelError(f"the converted model is damaged ({type(e).__name__})", UPGRADE) from e

    def copy(self) -> schema.ModelT:
        """Its objects, to change and `pack`. The bytes of the constants are shared: they are replaced, not written
        to."""
        shared = {id(buffer.data): buffer.data for buffer in self.model.buffers}
        return copy.deepcopy(self.model, shared)

    def output_names(self) -> dict[str, str]:
        """The tensors that are outputs: the tensor's name to the output's in the default signature."""
        (signature,) = [s for s in self.model.signatureDefs if s.signatureKey.decode() == SIGNATURE]
        tensors = self.model.subgraphs[0].tensors
        return {tensors[o.tensorIndex].name.decode(): o.name.decode() for o in signature.outputs}


def pack(model: schema.ModelT) -> bytes:
    """Writes a file's objects. Constants lie at multiples of 16 bytes: TFLite's schema demands it, its Python code
    does not do it."""
    model.buffers = [_AlignedBuffer(buffer) for buffer in model.buffers]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


class _AlignedBuffer(schema.BufferT):
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


def kind_of(model: schema.ModelT, op: schema.OperatorT) -> str:
    """`Operator.kind` of one of a file's objects."""
    code = model.operatorCodes[op.opcodeIndex]
    return (code.customCode or b"").decode() or flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)


def name_of(graph: schema.SubGraphT, op: schema.OperatorT) -> str:
    """`Operator.name` of one of a file's objects."""
    return ";".join(graph.tensors[i].name.decode() for i in op.outputs)


def _operators(model: schema.ModelT) -> list[Operator]:
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
        inputs, outputs = [int(i) for i in op.inputs], [int(i) for i in op.outputs]
        weights = [i for i in inputs if i in constant | half]
        read = [i for i in inputs if i >= 0 and i not in weights]
        reads = tuple(graph.tensors[i].name.decode() for i in read)
        size = sum(math.prod(shape(i)) for i in weights)
        how = precision(inputs, outputs)
        found.append(Operator(kind_of(model, op), name_of(graph, op), how, reads, tuple(map(shape, read)), size))
    return found
