"""A float32 .tflite to one that is quantized by rules, with ai-edge-quantizer."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_quantizer import qtyping, quantizer

from hfnet_edge.errors import ModelError
from hfnet_edge.shell.quiet import quiet
from hfnet_export.tflite.checks import check_operators, check_precisions
from hfnet_export.tflite.graph import (
    FLOAT32,
    INPUT,
    INT8,
    INT8_WEIGHTS,
    SIGNATURE,
    UPGRADE,
    Graph,
    kind_of,
    pack,
)
from hfnet_export.tflite.rounding import round_weights
from hfnet_export.tflite.rules import Rule, precisions


def quantize(graph: Graph, rules: Sequence[Rule], inputs: Sequence[np.ndarray]) -> Graph:
    """Applies rules to a float32 .tflite and checks the result.

    Args:
        inputs: (N, H, W, 1) float32 network inputs, for calibration; N is 1 where the network's batch is.

    Raises:
        ModelError: the quantizer fails, or left an operator at another precision than the rules say.
    """
    if set(precisions(rules, graph.operators).values()) == {FLOAT32}:
        return graph
    try:
        with quiet():
            q = _quantizer(graph, rules, inputs)
            ranges = _ranges(q, inputs) if q.need_calibration else None
            done = q.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    except Exception as e:
        raise ModelError(f"ai-edge-quantizer cannot quantize the network: {e}", UPGRADE) from e
    quantized = bare_outputs(Graph.parse(bytes(done.quantized_model or b"")))
    check_operators(quantized)
    check_precisions(quantized, rules)
    return quantized


def bare_outputs(graph: Graph) -> Graph:
    """Outputs that are int8 up to a last DEQUANTIZE stay int8: whoever reads a few values of a dense output converts
    those, see `hfnet_edge.tensor.Tensor`."""
    model = graph.copy()
    subgraph, (signature,) = model.subgraphs[0], model.signatureDefs
    int8 = {
        int(op.outputs[0]): op
        for op in subgraph.operators
        if kind_of(model, op) == "DEQUANTIZE" and subgraph.tensors[op.inputs[0]].type == schema.TensorType.INT8
    }
    read = {int(i) for op in subgraph.operators for i in op.inputs}
    for output in signature.outputs:
        op = int8.get(int(output.tensorIndex))
        if op is not None and output.tensorIndex not in read:
            subgraph.outputs[list(subgraph.outputs).index(output.tensorIndex)] = op.inputs[0]
            output.tensorIndex = op.inputs[0]
            subgraph.operators.remove(op)
    return Graph.parse(pack(model))


def calibrate(graph: Graph, rules: Sequence[Rule], inputs: Sequence[np.ndarray]) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each int8 tensor of the image, as `quantize` would use them, by its name.

    Raises:
        ModelError: the quantizer fails.
    """
    try:
        with quiet():
            ranges = _ranges(_quantizer(graph, rules, inputs), inputs)
    except Exception as e:
        raise ModelError(f"ai-edge-quantizer cannot calibrate the network: {e}", UPGRADE) from e
    seen = {name: (np.ravel(r["min"]), np.ravel(r["max"])) for name, r in ranges.items() if r}
    return {name: (float(low[0]), float(high[0])) for name, (low, high) in seen.items() if low.size == 1}


def _quantizer(graph: Graph, rules: Sequence[Rule], inputs: Sequence[np.ndarray]) -> quantizer.Quantizer:
    """Of the network with rounded weights, which has the same operators."""
    q = quantizer.Quantizer(round_weights(graph, rules, inputs))
    wanted = precisions(rules, graph.operators)
    for kind, precision in dict.fromkeys((rule.operator, rule.precision) for rule in rules):
        names = [re.escape(op.name) for op in graph.operators if op.kind == kind and wanted[op.name] == precision]
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
