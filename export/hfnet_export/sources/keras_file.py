"""HF-Nets in Keras files: .keras, .h5."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from hfnet_edge.errors import InputError
from hfnet_edge.shell.quiet import quiet
from hfnet_export.sources.foreign import ForeignHFNet, short
from hfnet_export.sources.roles import Tensor
from hfnet_export.sources.tf_function import convert_function
from hfnet_export.trained import Converted, Say


@dataclass(frozen=True)
class KerasFile(ForeignHFNet):
    """A .keras, .h5 or .hdf5 file."""

    def convert(self, say: Say) -> Converted:
        say(1, f"reading {self.path}")
        path = self.path
        try:
            with quiet():
                model = keras.saving.load_model(path, compile=False)
                inputs = [Tensor(t.name, tuple(t.shape)) for t in model.inputs]
                output = model.output
                names = model.output_names
        except Exception as e:  # Keras raises whatever it likes
            raise InputError(
                f"{path} is not a Keras model that can be read here: {short(e)}",
                "save it with Keras 3 and layers of Keras only, or with model.export(FOLDER) as SavedModel",
            ) from e

        def call(image: tf.Tensor) -> dict[str, tf.Tensor]:
            result = model(image, training=False)
            return dict(result) if isinstance(output, dict) else dict(zip(names, tf.nest.flatten(result), strict=True))

        return convert_function(self, inputs, call, str(path), say)
