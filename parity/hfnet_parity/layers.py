"""The layers that quantization hurts most, by ai-edge-quantizer's validation, which compares the tensors of the same
name of the float network and of the quantized one."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfnet_edge.networks.description import read_description
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.quiet import quiet

LISTED = 10
NO_NOISE = 99.0  # dB, in place of infinity
THREADS = 2
# They move values and compute none, so they only repeat the noise of the layer before them.
MOVES = frozenset({"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PAD", "PADV2", "QUANTIZE", "DEQUANTIZE"})


@dataclass(frozen=True)
class Layer:
    """An operator of the network and the noise in what it writes, that of the operators before it included.

    Attributes:
        name: of the tensor that it writes, as in the file and in recipes. label: short, for people.
        operator: of TFLite, "CONV_2D".
        snr_db: 10 log10(signal power / noise power), mean over images; `NO_NOISE` at most.
    """

    name: str
    label: str
    operator: str
    snr_db: float


def layer_noise(float_model: bytes, model: bytes, images: Sequence[np.ndarray]) -> tuple[Layer, ...]:
    """The layers with the lowest signal-to-noise, the lowest first, at most `LISTED`.

    Args:
        float_model, model: .tflite files of the same network, the first in float, ``model`` quantized.
        images: (H, W) uint8 grey levels of the networks' input size.

    Returns:
        Layers; none where the first is not in float or ``model`` is, there is no image, or the two are not the same
        network.

    Raises:
        ModelError: one of them is not a model. InstallError: ai-edge-quantizer is missing.
    """
    before, after = read_description(float_model, "the float model"), read_description(model, "the model")
    in_float = before.precision == "none", after.precision == "none"
    if in_float != (True, False) or not images or before.weights_hash != after.weights_hash:
        return ()
    needs("export", "ai_edge_quantizer")
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import model_validator
    from ai_edge_quantizer.utils.validation_utils import ValidationErrorMetric

    with quiet():
        interpreter = Interpreter(model_content=float_model)
        operators = _operators(interpreter)
        if not _shapes(interpreter, operators) <= _shapes(Interpreter(model_content=model), operators):
            return ()
        ((signature, names),) = interpreter.get_signature_list().items()
        (key,) = names["inputs"]
        compared = model_validator.compare_model(
            float_model,
            model,
            {signature: [{key: before.scale(image)} for image in images]},
            [ValidationErrorMetric.SNR],
            [_decibels],
            num_threads=THREADS,
        ).get_signature_comparison_result(signature)
        runner = interpreter.get_signature_runner(signature)
        outputs = {detail["name"]: name for name, detail in runner.get_output_details().items()}
    found = [
        Layer(name, f"{outputs[name]} (output)" if name in outputs else label(name), operators[name], numbers["snr"])
        for name, numbers in (compared.intermediate_tensors | compared.output_tensors).items()
        if operators.get(name, "DEQUANTIZE") not in MOVES
    ]
    return tuple(sorted(found, key=lambda layer: layer.snr_db)[:LISTED])


def label(name: str) -> str:
    """The name of a tensor for people: ``hfnet_1/b2.proj.bn_1/add_1;hfnet_1/b2.proj_1/convolution`` is "b2.proj".

    A tensor that several layers were fused into lists them all; the shortest is the one that the others belong to.
    """
    scopes = [part.split("/") for part in name.split(";") if part]
    layers = [re.sub(r"_\d+$", "", scope[1] if len(scope) > 1 else scope[0]) for scope in scopes]
    return min(layers, key=len, default=name)


def _operators(interpreter: Any) -> dict[str, str]:
    """Name of each tensor that an operator writes to the operator's; of an interpreter without delegates yet."""
    tensors = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    return {tensors[i]: op["op_name"] for op in interpreter._get_ops_details() for i in op["outputs"] if i in tensors}


def _shapes(interpreter: Any, names: Collection[str]) -> set[tuple[str, tuple[int, ...]]]:
    """Name and shape of the tensors of these names."""
    return {(t["name"], tuple(t["shape"])) for t in interpreter.get_tensor_details() if t["name"] in names}


def _decibels(noisy: np.ndarray, signal: np.ndarray) -> float:
    noisy, signal = (np.asarray(values, np.float64).ravel() for values in (noisy, signal))
    power, noise = np.square(signal).sum(), np.square(noisy - signal).sum()
    if noise == 0:
        return NO_NOISE
    return float(np.clip(10 * np.log10(max(power, 1e-30) / noise), -NO_NOISE, NO_NOISE))
