"""A network that the package has never heard of goes through the export: what it takes is in this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import pytest

from hfnet_edge.errors import ModelError
from hfnet_edge.networks.description import PATCH_ROLE, Description
from hfnet_edge.networks.patches import PatchModel
from hfnet_export.export import STEPS, export
from hfnet_export.tflite import convert
from hfnet_export.tflite.graph import Graph
from hfnet_export.tflite.rules import RECIPES
from hfnet_export.trained import Converted, Probes


@dataclass(frozen=True)
class Agreement:
    cosine: float


class Own:
    """Two convolutions and a mean: patches (N, 32, 32, 1) to 16 numbers each."""

    recipes: ClassVar = {precision: RECIPES[precision] for precision in ("none", "int8")}
    floors: ClassVar = {"none": Agreement(0.9999), "int8": Agreement(0.99)}

    def __init__(self):
        keras.utils.set_random_seed(0)
        image = keras.Input((32, 32, 1), name="image")
        x = keras.layers.Conv2D(8, 3, 2, activation="relu")(image)
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(16, 3, 2)(x))
        self.keras = keras.Model(image, {PATCH_ROLE: x}, name="own")

    def convert(self, say):
        say(1, "building a network of one's own"), say(2, "converting it")
        about = Description("own", "0" * 32, "none", (32, 32), (0.0, 1.0), 16, 0, 0, {PATCH_ROLE: PATCH_ROLE}, ())
        parameters = convert.parameter_count(self.keras)
        return Converted(convert.to_float_tflite(self.keras), about, parameters, self.keras, "CPU, TensorFlow")

    def probe(self, calibration, say):
        say(3, "drawing patches")
        patches = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 32), np.uint8)
        return Probes(patches, patches, patches[:1], patches[0], "numbers of 128 patches", "patches", 32)

    def load(self, content):
        model = PatchModel("own", content=content)
        return lambda patches: {PATCH_ROLE: model.raw(patches)}

    def fidelity(self, outputs, reference):
        a, b = (np.concatenate([o[PATCH_ROLE] for o in some]).ravel() for some in (outputs, reference))
        return Agreement(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


def test_it_is_exported_and_runs(tmp_path):
    steps, own, path = [], Own(), tmp_path / "own.tflite"
    report = export(own, path, "int8", on_step=lambda number, _: steps.append(number))
    assert steps == list(range(1, STEPS + 1))
    assert report.operators["int8"] == 2 and 0.99 < report.fidelity.cosine < 1
    model = PatchModel(path)
    assert model.description.architecture == "own" and model.kernels == "XNNPACK"
    patches = np.random.default_rng(1).integers(0, 256, (200, 32, 32), np.uint8)
    expected = np.asarray(own.keras(model.description.scale(patches))[PATCH_ROLE])
    assert np.corrcoef(model.raw(patches).ravel(), expected.ravel())[0, 1] > 0.99


def test_what_is_checked_of_every_network_is_checked_of_it(tmp_path):
    own = Own()
    own.floors = {"int8": Agreement(1.1)}
    with pytest.raises(ModelError, match="cosine of the int8 model agree with the float network to"):
        export(own, tmp_path / "own.tflite", "int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("precision", "files"), [("none", 2), ("int8", 4)])
def test_a_file_is_parsed_once(tmp_path, monkeypatch, precision, files):
    """The converted one, the quantized one, that with bare outputs, and the one that is written, with a description."""
    parsed, parse = [], Graph.parse
    monkeypatch.setattr(Graph, "parse", lambda content: parsed.append(content) or parse(content))
    export(Own(), tmp_path / "own.tflite", precision)
    assert len(parsed) == len(set(parsed)) == files
