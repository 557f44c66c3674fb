"""The same CRBNet in ONNX float32, so that ONNX Runtime can be timed against LiteRT.

Walks the Keras graph; batch normalisation is folded into the convolution before it, as TFLite's converter does.
"""

from __future__ import annotations

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_hfnet import Graph

from hfnet_edge.image.patches import SIDE
from hfnet_edge.networks.description import PATCH_ROLE


def to_onnx(model: keras.Model) -> bytes:
    """Serialised ONNX of an `hfnet_export.networks.crbnet.build_crbnet` model: ``image`` (N, 32, 32, 1) to (N, D)."""
    g, tensors = Graph(), {}
    norms = {layer.input.name: layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
    for layer in model.layers:
        out = layer.output.name
        if isinstance(layer, keras.layers.InputLayer):
            tensors[out] = g.add("Reshape", "image", g.constant(np.array([-1, 1, SIDE, SIDE])))  # one channel
        elif isinstance(layer, (keras.layers.BatchNormalization, keras.layers.Dropout)):
            tensors[out] = tensors[layer.input.name]
        elif isinstance(layer, keras.layers.Conv2D):
            norm = norms[out]
            scale = 1 / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
            scale = scale * np.asarray(norm.gamma) if norm.scale else scale
            bias = (np.asarray(norm.beta) if norm.center else 0) - np.asarray(norm.moving_mean) * scale
            kernel = np.asarray(layer.kernel).transpose(3, 2, 0, 1) * scale[:, None, None, None]
            size, (_, rows, _, _), (_, out_rows, _, _) = layer.kernel_size[0], layer.input.shape, layer.output.shape
            # "same" as TensorFlow pads: what does not halve goes to the end. The last kernel sees the whole map.
            padding = 0 if out_rows == 1 else max(0, (out_rows - 1) * layer.strides[0] + size - rows)
            before, after = padding // 2, padding - padding // 2
            tensors[out] = g.add(
                "Conv", tensors[layer.input.name], g.constant(kernel), g.constant(bias), kernel_shape=(size, size),
                strides=layer.strides, pads=(before, before, after, after),
            )  # fmt: skip
        elif isinstance(layer, keras.layers.ReLU):
            tensors[out] = g.add("Relu", tensors[layer.input.name])
        elif isinstance(layer, keras.layers.Add):
            tensors[out] = g.add("Add", *(tensors[t.name] for t in layer.input))
        elif layer.name == "descriptor":
            flat = g.add("Reshape", tensors[model.get_layer("last.bn").output.name], g.constant(np.array([0, -1])))
            g.add("LpNormalization", flat, axis=-1, p=2)
    g.nodes[-1].output[0] = PATCH_ROLE
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ("n", SIDE, SIDE, 1))
    output = helper.make_tensor_value_info(PATCH_ROLE, TensorProto.FLOAT, ("n", model.output.shape[-1]))
    graph = helper.make_graph(g.nodes, "crbnet", [image], [output], g.weights)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()
