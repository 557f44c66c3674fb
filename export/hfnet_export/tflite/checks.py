"""Proof that a .tflite is what it says, and computes what the float network does.

Converters fail without a word: a file with half the weights, float layers where int8 was asked for, layers that the
fast kernels refuse. So each step is followed by checks, and each check raises `ModelError` and says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from hfnet_edge.errors import ModelError
from hfnet_edge.shell.quiet import quiet
from hfnet_export.tflite.graph import (
    ALLOWED,
    CONVERSIONS,
    FLOAT16_WEIGHTS,
    FLOAT32,
    INPUT,
    INT8,
    INT8_WEIGHTS,
    SIGNATURE,
    UPGRADE,
    Graph,
    Operator,
)
from hfnet_export.tflite.rules import Rule, precisions

Fidelity = Any
"""A frozen dataclass of floats: how close each kind of output is to the float network's, 1 is equal."""

BYTES_PER_WEIGHT = {FLOAT32: 4, FLOAT16_WEIGHTS: 2, INT8_WEIGHTS: 1, INT8: 1}


def check_operators(graph: Graph) -> None:
    """Only operators that every TFLite runtime has. Raises ModelError for custom, Flex and unexpected ones."""
    strange = sorted({op.kind for op in graph.operators} - ALLOWED)
    if strange:
        raise ModelError(
            f"the converted model needs {', '.join(strange)}, which hfnet-edge does not know from HF-Nets",
            "leave them out, keypoints are picked outside of the network; or " + UPGRADE,
        )


def check_size(made: Graph, parameters: int, operators: Sequence[Operator], rules: Sequence[Rule]) -> None:
    """The file is as large as its weights, in the precisions that rules give their operators.

    Args:
        parameters: number of weights.
        operators: of the network in float32.

    Raises:
        ModelError: it is smaller or larger.
    """
    wanted = precisions(rules, operators)
    weights = sum(op.weights for op in operators)
    compressed = sum(op.weights * BYTES_PER_WEIGHT[wanted[op.name]] for op in operators)
    expected = parameters * compressed // max(weights, 1)  # the mean of a weight: those that layers share count once
    low, high = 0.95 * expected, 1.1 * expected + 400_000  # the graph, scales of int8, weights left in float
    if not low <= len(made.content) <= high:
        raise ModelError(
            f"the converted model has {len(made.content)} bytes, its {parameters} weights need about {expected}",
            "weights were lost or not compressed; " + UPGRADE,
        )


def check_signature(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """The default signature takes an image, and has these outputs by name and shape. Raises ModelError."""
    model = graph.model
    signatures = {s.signatureKey.decode(): s for s in model.signatureDefs or []}
    if SIGNATURE not in signatures:
        raise ModelError("the converted model has no signature", UPGRADE)
    tensors, signature = model.subgraphs[0].tensors, signatures[SIGNATURE]
    found = {o.name.decode(): tuple(int(n) for n in tensors[o.tensorIndex].shape) for o in signature.outputs}
    if found != dict(shapes) or [i.name.decode() for i in signature.inputs] != [INPUT]:
        raise ModelError(f"the converted model's outputs are {found}, not {shapes}", UPGRADE)


def check_precisions(graph: Graph, rules: Sequence[Rule]) -> None:
    """Every operator computes as the rules say, those that they leave alone in float32. Raises ModelError."""
    wanted = precisions(rules, graph.operators)
    wrong = [
        f"{op.kind} {op.name.split(';')[-1]} is {op.precision}, not {wanted[op.name]}"
        for op in graph.operators
        if op.kind not in CONVERSIONS and op.precision != wanted[op.name]
    ]
    if wrong:
        raise ModelError(f"{len(wrong)} operators are not as the recipe says, first {wrong[0]}", UPGRADE)


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


def check_float(outputs: Mapping[str, np.ndarray], original: Mapping[str, np.ndarray], tolerance: float) -> None:
    """The float .tflite computes what the original does, within ``tolerance`` of the largest value, or of 1.

    Both are outputs by role for one input. Of score maps one pixel in a thousand may differ more: suppression makes a
    hard choice between equals.

    Raises:
        ModelError: an output is off, or not a number.
    """
    for role, values in original.items():
        theirs = np.asarray(values)
        difference = np.abs(outputs[role] - theirs)
        worst = float(np.quantile(difference, 0.999 if role == "keypoint_scores" else 1.0))
        error = worst / max(1.0, float(np.abs(theirs).max()))
        if not error <= tolerance:  # NaN is wrong too
            raise ModelError(f"{role} of the converted model is off by {error:.2g} from the original", UPGRADE)


def check_fidelity(measured: Fidelity, floor: Fidelity, precision: str) -> None:
    """Every figure is as high as asked for. Raises ModelError."""
    for (name, value), least in zip(asdict(measured).items(), asdict(floor).values(), strict=True):
        if not value >= least:  # NaN is too low
            raise ModelError(
                f"{name} of the {precision} model agree with the float network to {value:.4f}, below {least}",
                "give photos of the place with --calibration, or a --gate, or use --quantize none",
            )
