"""A network to a float32 .tflite, and proof that all of it is there."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from hfnet_edge.errors import ModelError
from hfnet_edge.shell.quiet import quiet
from hfnet_export.tflite.checks import check_operators, check_precisions, check_signature, check_size
from hfnet_export.tflite.graph import SIGNATURE, UPGRADE, Graph


def to_float_tflite(model: keras.Model) -> Graph:
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
    return check_converted(content, parameter_count(model), shapes)


def function_to_float_tflite(function, parameters: int, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
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
    return check_converted(content, parameters, shapes)


def check_converted(content: bytes, parameters: int, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """Parses a float32 .tflite, which is as the other steps need it: known operators, all weights, one image in, these
    outputs.

    Args:
        parameters: number of weights, see `check_size`. shapes: of each output, by name.

    Raises:
        ModelError: says what is not so.
    """
    graph = Graph.parse(content)
    check_operators(graph)
    check_size(graph, parameters, graph.operators, ())
    check_signature(graph, shapes)
    check_precisions(graph, ())
    return graph


def parameter_count(model: keras.Model) -> int:
    """Weights that are left once batch normalisation is folded into the convolutions."""
    folded = ("gamma", "moving_mean", "moving_variance")
    return sum(int(np.prod(v.shape)) for v in model.weights if v.path.rsplit("/", 1)[-1] not in folded)
