"""HF-Nets in folders of TensorFlow's SavedModel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.shell.quiet import quiet
from hfnet_export.sources.foreign import ForeignHFNet, short
from hfnet_export.sources.roles import Tensor
from hfnet_export.sources.tf_function import convert_function, static_shape
from hfnet_export.tflite.graph import SIGNATURE
from hfnet_export.trained import Converted, Say


@dataclass(frozen=True)
class SavedModel(ForeignHFNet):
    """A folder with a saved_model.pb. Of several signatures it is the first that is an HF-Net."""

    def convert(self, say: Say) -> Converted:
        say(1, f"reading {self.path}")
        path = self.path
        try:
            with quiet():
                loaded = tf.saved_model.load(str(path))
                signatures = dict(loaded.signatures)
        except Exception as e:
            raise InputError(
                f"{path} is not a SavedModel that TensorFlow {tf.__version__} can read: {short(e)}", "save it again"
            ) from e
        if not signatures:
            raise ModelError(f"{path} has no signature", "save it with model.export(FOLDER)")
        order = sorted(signatures, key=lambda key: (key != SIGNATURE, key))
        first_error: ModelError | None = None
        for key in order:  # the first that is an HF-Net
            signature = signatures[key]
            inputs = [
                Tensor(name, static_shape(spec.shape)) for name, spec in signature.structured_input_signature[1].items()
            ]

            def call(image: tf.Tensor, signature: Any = signature) -> dict[str, tf.Tensor]:
                (name,) = signature.structured_input_signature[1]
                return signature(**{name: image})

            try:
                return convert_function(self, inputs, call, f"signature {key} of {path}", say)
            except ModelError as e:
                first_error = first_error or e
        assert first_error is not None
        raise first_error
