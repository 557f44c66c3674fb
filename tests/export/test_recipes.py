"""Quantization recipes as files: what is written is what is repeated, and nothing else is taken."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from conftest import SIZE
from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.networks.description import read_description
from hfnet_export.export import export_hfnet
from hfnet_export.tflite import checks
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import FLOAT32, INT8, INT8_WEIGHTS, Graph
from hfnet_export.tflite.quantization_recipe import (
    QuantizationRecipe,
    calibration_hash,
    read_quantization_recipe,
    write_quantization_recipe,
)
from hfnet_export.tflite.quantize import quantize
from hfnet_export.tflite.rules import RECIPES, Rule, bundled

HASH, IMAGES = "0123456789abcdef" * 2, "fedcba9876543210" * 2
INT8_RULES = bundled(RECIPES["int8"])
GATE = {"bundle": "07aa", "points": 1.0, "factor": 1.1}


def recipe_of(*rules: Rule) -> QuantizationRecipe:
    return QuantizationRecipe("int8", HASH, SIZE, IMAGES, rules)


def saved(path, recipe: QuantizationRecipe, **changes) -> dict:
    write_quantization_recipe(path, recipe, GATE, [])
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("precision", list(RECIPES))
def test_a_file_does_what_the_name_does(exported, tmp_path, precision):
    graph = exported.graph.operators
    description = read_description(exported.described[precision], "test")
    inputs = [description.scale(image) for image in exported.images]
    made = QuantizationRecipe.of(precision, description, calibration_hash(inputs), graph, bundled(RECIPES[precision]))
    write_quantization_recipe(tmp_path / "r.json", made, GATE, [])
    recipe = read_quantization_recipe(tmp_path / "r.json")
    assert recipe == made
    rules = recipe.rules_for(graph, description)
    assert recipe.quantize == precision and len(rules) == {"none": 0, "fp16": 3, "dynamic": 2, "int8": 5}[precision]
    content = embed(quantize(exported.graph, rules, inputs), description)
    assert content == exported.described[precision]


def test_what_a_file_says(exported, tmp_path):
    graph = exported.graph.operators
    (kept,) = [op.name for op in graph if op.kind == "CONV_2D" and "/b0.proj" in op.name]
    description = replace(read_description(exported.described["int8"], "test"), weights_hash=HASH)
    content = saved(tmp_path / "r.json", QuantizationRecipe.of("int8", description, IMAGES, graph, INT8_RULES, [kept]))
    assert (content["format"], content["quantize"], content["weights_hash"]) == (1, "int8", HASH)
    assert (content["input_size"], content["calibration"], content["gate"]) == (list(SIZE), IMAGES, GATE)
    first, *_, last = content["rules"]
    common = {"operator": "CONV_2D"}
    assert first == {"algorithm": "min_max_uniform_quantize", "scope": "all", "activations": 8, "weights": 8, **common}
    assert last == {"algorithm": "no_quantize", "scope": [kept], "activations": 32, "weights": 32, **common}
    (add,) = [rule for rule in content["rules"] if rule["operator"] == "ADD"]  # those of the encoder, by name
    assert len(add["scope"]) == 16 and not any("netvlad" in name for name in add["scope"])


def test_the_file_is_checked_against_its_recipe(exported):
    graph = exported.graph.operators
    description = read_description(exported.described["int8"], "test")
    (kept,) = [op for op in graph if op.kind == "CONV_2D" and "/b0.proj" in op.name]
    rules = QuantizationRecipe.of("int8", description, IMAGES, graph, INT8_RULES, [kept.name]).rules_for(
        graph, description
    )
    made = quantize(exported.graph, rules, [description.scale(exported.images[0])])
    (op,) = [op for op in made.operators if op.name == kept.name]
    assert op.precision == FLOAT32
    checks.check_precisions(made, rules)
    checks.check_xnnpack(made.content)
    with pytest.raises(ModelError, match=r"1 operators are not as the recipe says, first CONV_2D .* is float32"):
        checks.check_precisions(made, INT8_RULES)
    with pytest.raises(ModelError, match=r"1 operators are not as the recipe says, first CONV_2D .* is int8, not floa"):
        checks.check_precisions(Graph.parse(exported.described["int8"]), rules)


def test_a_recipe_of_another_network(exported, weights, tmp_path):
    graph = exported.graph.operators
    path = tmp_path / "r.json"
    description = replace(read_description(exported.described["int8"], "test"), weights_hash=HASH)
    recipe = recipe_of(Rule("CONV_2D", FLOAT32, ("conv_of_mine",)))
    with pytest.raises(InputError, match="names the CONV_2D conv_of_mine, which the network lacks"):
        recipe.rules_for(graph, description)
    with pytest.raises(InputError, match="is for an input of 96x128, the network has 96x160; give --input-size 96x128"):
        recipe.rules_for(graph, replace(description, input_size=(96, 160)))
    (dense,) = [op.name for op in graph if op.kind == "FULLY_CONNECTED" and "projection" in op.name]
    with pytest.raises(InputError, match=r"names the CONV_2D .*projection"):  # the name is there, of another kind
        recipe_of(Rule("CONV_2D", INT8, (dense,))).rules_for(graph, description)
    write_quantization_recipe(path, recipe, GATE, [])
    with pytest.raises(InputError, match=f"r.json is for the weights {HASH}, the network has"):
        export_hfnet(weights, tmp_path / "model.tflite", "int8", SIZE, recipe=path)
    with pytest.raises(InputError, match="is a recipe for int8; say so: --quantize int8"):
        export_hfnet(weights, tmp_path / "model.tflite", "fp16", SIZE, recipe=path)
    assert not (tmp_path / "model.tflite").exists()


def test_the_hash_of_the_calibration():
    images = [np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)]
    hashes = [calibration_hash(x) for x in (images, images[::-1], images[:1], [images[0], images[1] / 2])]
    assert len(set(hashes)) == 4 and all(len(h) == 32 for h in hashes)
    assert calibration_hash([image.copy() for image in images]) == hashes[0]


@pytest.mark.parametrize(
    "rules",
    [[], [{"algorithm": "float_casting", "operator": "CONV_2D", "scope": "all", "activations": 32, "weights": 16}]],
)
def test_int8_that_is_not(exported, weights, tmp_path, rules):
    """A recipe that leaves nothing in int8 is not called int8."""
    path, description = tmp_path / "r.json", read_description(exported.described["int8"], "test")
    saved(path, QuantizationRecipe("int8", description.weights_hash, SIZE, IMAGES, ()), rules=rules)
    with pytest.raises(ModelError, match=r"nothing of this network would be in int8; .* --quantize none"):
        export_hfnet(weights, tmp_path / "model.tflite", "int8", SIZE, recipe=path)
    assert not (tmp_path / "model.tflite").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a recipe of format 1"),
        (b'{"format": 2}', "is not a recipe of format 1"),
    ],
)
def test_not_a_recipe(tmp_path, content, message):
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_quantization_recipe(tmp_path / "r.json")


def test_no_recipe(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the recipe .*nowhere.json: No such file"):
        read_quantization_recipe(tmp_path / "nowhere.json")


GOOD = {
    "algorithm": "min_max_uniform_quantize",
    "operator": "CONV_2D",
    "scope": ["a"],
    "activations": 8,
    "weights": 8,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantize": "int4"}, "quantize is 'int4'; write one of none, fp16, dynamic, int8"),
        ({"quantize": ["int8"]}, "quantize is"),
        ({"weights_hash": 7}, "weights_hash is 7"),
        ({"calibration": None}, "calibration None"),
        ({"input_size": None}, "input_size is None"),
        ({"input_size": [96]}, r"input_size is \[96\]"),
        ({"input_size": ["96", True]}, "input_size is "),
        ({"rules": None}, "rules is not a list"),
        ({"rules": ["CONV_2D"]}, "rule 0 is not a table of activations, algorithm, operator, scope, weights"),
        ({"rules": [GOOD, {**GOOD, "bias": 32}]}, "rule 1 is not a table of"),
        ({"rules": [{**GOOD, "activations": 16}]}, "'min_max_uniform_quantize', 16, 8"),
        ({"rules": [{**GOOD, "weights": "8"}]}, "algorithm, activations, weights are"),
        ({"rules": [{**GOOD, "weights": [8]}]}, "algorithm, activations, weights are"),
        ({"rules": [{**GOOD, "algorithm": "octav"}]}, "algorithm, activations, weights are"),
        ({"rules": [{**GOOD, "operator": "COS"}]}, "operator is 'COS'"),
        ({"rules": [{**GOOD, "operator": None}]}, "operator is None"),
        ({"rules": [{**GOOD, "scope": ".*"}]}, r"scope is '\.\*'"),
        ({"rules": [{**GOOD, "scope": []}]}, r"scope is \[\]"),
        ({"rules": [{**GOOD, "scope": [1]}]}, r"scope is \[1\]"),
    ],
)
def test_a_wrong_recipe(tmp_path, changes, message):
    good = recipe_of(Rule("CONV_2D", INT8, ("a",)))
    assert saved(tmp_path / "r.json", good)["rules"] == [GOOD] and read_quantization_recipe(tmp_path / "r.json") == good
    saved(tmp_path / "r.json", good, **changes)
    with pytest.raises(InputError, match=message):
        read_quantization_recipe(tmp_path / "r.json")


def test_a_rule_that_cannot_be_followed(exported):
    """A softmax in int8 is an operator that ai-edge-quantizer knows, with int8 weights only it is not."""
    graph = exported.graph.operators
    description = replace(read_description(exported.described["int8"], "test"), weights_hash=HASH)
    rules = recipe_of(Rule("SOFTMAX", INT8_WEIGHTS)).rules_for(graph, description)
    with pytest.raises(ModelError):
        quantize(exported.graph, rules, [])
