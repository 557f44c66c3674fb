"""Colour networks that get one channel in place of three equal ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hfnet_export.sources.roles import COLOUR


def sum_colours(graph: Any, image: str) -> bool:
    """Gives an ONNX network one channel in place of three equal ones: kernels of the first convolution are summed.

    That is exact where nothing but scaling, the same for all channels, comes before it: padding is then the same in all
    three. It saves the device two thirds of the first layer. Elsewhere nothing is changed, and False returned.
    """
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    made: list[str] = []  # tensors that lose two channels
    x = image
    while True:
        users = [node for node in graph.node if x in node.input]
        if len(users) != 1 or x in {output.name for output in graph.output}:
            return False
        (node,) = users
        others = [name for name in node.input if name != x]
        if node.op_type == "Conv" and node.input[0] == x:
            break
        plain = node.op_type in ("Transpose", "Identity", "Cast")
        scaling = node.op_type in ("Mul", "Div", "Add", "Sub") and len(others) == 1 and others[0] in constants
        if not plain and not (scaling and math.prod(constants[others[0]].dims) == 1):
            return False
        x = node.output[0]
        made.append(x)
    if node.input[1] not in constants:
        return False
    kernels = numpy_helper.to_array(constants[node.input[1]])
    if kernels.ndim != 4 or kernels.shape[1] != COLOUR:  # in groups, for one
        return False
    node.input[1] = f"{node.input[1]}/summed"
    summed = kernels.sum(axis=1, keepdims=True, dtype=np.float64).astype(kernels.dtype)
    graph.initializer.append(numpy_helper.from_array(summed, node.input[1]))
    stale = [value for value in graph.value_info if value.name in made]
    for value in stale:
        graph.value_info.remove(value)
    return True
