"""The same HF-Net or DenserNet in ONNX float32, so that ONNX Runtime can be timed against LiteRT.

Walks the Keras graph; batch normalisation is folded into the convolution before it, as TFLite's converter does.
"""

from __future__ import annotations

from functools import reduce

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Collects nodes and weights. Tensors are NCHW until NetVLAD."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, array) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op: str, *inputs: str, **attributes) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name


def to_onnx(model: keras.Model) -> bytes:
    """Serialised ONNX of a `build_hfnet` or `build_densernet`; input and outputs as the Keras model's, batch 1."""
    g, tensors = Graph(), {}
    norms = {layer.input.name: layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
    pads = {layer.output.name: layer for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)}

    def unit(x: str, axis: int = -1) -> str:
        return g.add("LpNormalization", x, axis=axis, p=2)

    for layer in model.layers:
        out = layer.output.name
        if isinstance(layer, keras.layers.InputLayer):
            tensors[out] = g.add("Transpose", "image", perm=(0, 3, 1, 2))
        elif isinstance(layer, (keras.layers.ZeroPadding2D, keras.layers.BatchNormalization)):
            tensors[out] = tensors[layer.input.name]
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            kernel = np.asarray(layer.kernel).transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
            bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(len(kernel), np.float32)
            if out in norms:
                n = norms[out]
                scale = np.asarray(n.gamma) / np.sqrt(np.asarray(n.moving_variance) + n.epsilon)
                bias = np.asarray(n.beta) + (bias - np.asarray(n.moving_mean)) * scale
                kernel = kernel * scale[:, None, None, None]
            size, stride = layer.kernel_size[0], layer.strides[0]
            same = size // 2
            padded = (0, 0, 1, 1) if layer.input.name in pads else (same,) * 4
            tensors[out] = g.add(
                "Conv", tensors[layer.input.name], g.constant(kernel), g.constant(bias), kernel_shape=(size, size),
                strides=(stride, stride), pads=padded, group=len(kernel) if depthwise else 1,
            )  # fmt: skip
        elif isinstance(layer, keras.layers.ReLU):
            limits = [g.constant(np.float32(limit)) for limit in (0, layer.max_value) if limit is not None]
            tensors[out] = g.add("Clip", tensors[layer.input.name], *limits)
        elif isinstance(layer, keras.layers.AveragePooling2D):
            size = layer.pool_size
            tensors[out] = g.add("AveragePool", tensors[layer.input.name], kernel_shape=size, strides=size)
        elif isinstance(layer, keras.layers.Concatenate):
            tensors[out] = g.add("Concat", *(tensors[t.name] for t in layer.input), axis=1)
        elif layer.name == "scores":
            x = tensors[layer.input.name]
            e = g.add("Exp", g.add("Sub", x, g.add("ReduceMax", x, axes=[1, 2, 3])))
            e = g.add("Add", e, g.constant(np.float32(1e-30)))
            means = g.add("AveragePool", e, kernel_shape=(3, 3), strides=(1, 1), pads=(1, 1, 1, 1))
            strongest = g.add("Cast", g.add("Equal", x, g.add("ReduceMax", x, axes=[1])), to=TensorProto.FLOAT)
            scores = g.add("ReduceMax", g.add("Div", g.add("Mul", strongest, e), means), axes=[1])
            total = g.add("ReduceSum", scores, g.constant(np.array([1, 2, 3])))
            tensors[out] = g.add("Div", scores, total)
        elif layer.name == "pooled":
            x, scores = (tensors[t.name] for t in layer.input)
            cells = g.constant(np.array([2, 3]))
            mean = g.add("ReduceSum", g.add("Mul", unit(x, 1), scores), cells, keepdims=0)
            square = g.add("ReduceSum", g.add("Mul", g.add("Mul", x, x), scores), cells, keepdims=0)
            tensors[out] = g.add("Concat", unit(mean), unit(g.add("Sqrt", square)), axis=1)
        elif isinstance(layer, keras.layers.Add):
            tensors[out] = reduce(lambda a, b: g.add("Add", a, b), (tensors[t.name] for t in layer.input))
        elif isinstance(layer, keras.layers.UpSampling2D):
            scales = g.constant(np.array([1, 1, *layer.size], np.float32))
            tensors[out] = g.add(
                "Resize", tensors[layer.input.name], "", scales, mode="linear",
                coordinate_transformation_mode="half_pixel",
            )  # fmt: skip
        elif isinstance(layer, keras.layers.Dense):
            weights = g.constant(np.asarray(layer.kernel)), g.constant(np.asarray(layer.bias))
            tensors[out] = g.add("Gemm", tensors[layer.input.name], *weights)
        elif layer.name == "netvlad":
            c = layer.input.shape[-1]
            x = g.add("Reshape", tensors[layer.input.name], g.constant(np.array([1, c, -1])))
            x = g.add("Transpose", x, perm=(0, 2, 1))
            a = g.add("MatMul", x, g.constant(np.asarray(layer.kernel)))
            a = g.add("Softmax", g.add("Add", a, g.constant(np.asarray(layer.bias))), axis=-1)
            residual = g.add("MatMul", g.add("Transpose", a, perm=(0, 2, 1)), x)
            mass = g.add("ReduceSum", a, g.constant(np.array([1])), keepdims=0)
            mass = g.add("Unsqueeze", mass, g.constant(np.array([2])))
            residual = g.add("Sub", residual, g.add("Mul", mass, g.constant(np.asarray(layer.centers))))
            flat = g.add("Reshape", unit(residual), g.constant(np.array([1, -1])))
            tensors[out] = unit(flat)
        elif layer.name == "global_descriptor":
            tensors[out] = unit(tensors[layer.input.name])
        else:
            raise NotImplementedError(layer)

    outputs = []
    for role, tensor in model.output.items():
        name = tensors[tensor.name]
        if len(tensor.shape) == 4:
            name = g.add("Transpose", name, perm=(0, 2, 3, 1))
        g.nodes.append(helper.make_node("Identity", [name], [role]))
        outputs.append(helper.make_tensor_value_info(role, TensorProto.FLOAT, (1, *tensor.shape[1:])))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, *model.input.shape[1:]))
    graph = helper.make_graph(g.nodes, model.name, [image], outputs, g.weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()
