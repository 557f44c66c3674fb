"""HF-Nets as TensorFlow functions of an image, which Keras files and SavedModels are both read as."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from hfnet_edge.errors import ModelError
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks import processors
from hfnet_export.networks.any_hfnet import check_values
from hfnet_export.sources.foreign import ForeignHFNet, short
from hfnet_export.sources.roles import Tensor, find_roles, image_shape
from hfnet_export.sources.shapes import fed, in_shape, shapes_of
from hfnet_export.tflite import convert
from hfnet_export.tflite.graph import INPUT
from hfnet_export.trained import Converted, Outputs, Say


def convert_function(
    network: ForeignHFNet,
    inputs: Sequence[Tensor],
    call: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    where: str,
    say: Say,
) -> Converted:
    """Converts a function of an image, in the network's own shape, to outputs by name; says step 2.

    Args:
        inputs: that the network has.
        where: what it is called in errors.

    Raises:
        ModelError: it does not take an image, is not an HF-Net, or cannot be converted.
    """
    shape = image_shape(inputs, network.input_size, where)
    grey = tf.TensorSpec((1, *network.input_size, 1), tf.float32, INPUT)
    try:
        with quiet():
            original = tf.function(lambda image: call(fed(tf, image, shape)), input_signature=[grey])
            traced = original.get_concrete_function()
            # Constants instead of variables, which the converter may lose. Sizes follow from that of the image.
            frozen = convert_variables_to_constants_v2(traced)
    except Exception as e:
        raise ModelError(f"{where} does not take an image of {shape}: {short(e)}", "export it again") from e
    tensors = dict(zip(sorted(traced.structured_outputs), frozen.outputs, strict=True))
    listed = [Tensor(name, static_shape(tensor.shape)) for name, tensor in tensors.items()]
    found = find_roles(listed, network.input_size, where, network.outputs)
    description = network.describe(found)
    shapes = shapes_of(description)
    pruned = frozen.prune(frozen.inputs, [tensors[f.name] for f in found.values()])

    @tf.function(input_signature=[grey])
    def needed(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            role: in_shape(tf, tensor, found[role], shapes[role])
            for role, tensor in zip(found, pruned(image), strict=True)
        }

    used = nodes_behind(pruned.graph.as_graph_def(), [tensor.op.name for tensor in pruned.outputs])
    constants = [node.attr["value"].tensor for node in used if node.op == "Const"]
    parameters = sum(
        math.prod(d.size for d in t.tensor_shape.dim)
        for t in constants
        if t.dtype == tf.float32.as_datatype_enum and len(t.tensor_shape.dim) > 1
    )
    network.say_converting(say, parameters)
    graph = convert.function_to_float_tflite(needed, parameters, shapes)

    def run_original(image: np.ndarray) -> Outputs:
        outputs = traced(tf.constant(image))
        return {role: in_shape(np, outputs[f.name].numpy(), f, shapes[role]) for role, f in found.items()}

    return Converted(
        graph, description, parameters, run_original, processors.tensorflow_processor(), check=check_values
    )


def nodes_behind(graph: Any, outputs: Sequence[str]) -> list[Any]:
    """The nodes of a GraphDef that outputs are computed from; not those that they only wait for, of which pruning keeps
    the weights of every other output."""
    nodes, wanted = {node.name: node for node in graph.node}, list(outputs)
    found: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += [given.split(":")[0] for given in nodes[name].input if not given.startswith("^")]
    return [nodes[name] for name in found]


def static_shape(shape: tf.TensorShape) -> tuple[int | None, ...]:
    """The sizes of a tensor, None where one is not fixed."""
    return (None,) if shape.rank is None else tuple(shape.as_list())
