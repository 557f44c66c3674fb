"""Quantization recipes as files: what is written is what is repeated, and nothing else is taken."""

from __future__ import annotations

import json

import pytest

from conftest import SIZE
from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.model import read_description
from hfnet_export import convert
from hfnet_export.export import export_hfnet
from hfnet_export.quantization_recipe import Recipe, ScopedRule, read_recipe, write_recipe

HASH = "0123456789abcdef" * 2


def saved(path, recipe: Recipe, **changes) -> dict:
    write_recipe(path, recipe, [])
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(content))
    return content


@pytest.mark.parametrize("precision", list(convert.RECIPES))
def test_a_file_does_what_the_name_does(exported, tmp_path, precision):
    graph = convert.operators(exported.float_tflite)
    description = read_description(exported.described[precision], "test")
    write_recipe(tmp_path / "r.json", Recipe.of(precision, description.weights_hash, graph), [])
    recipe = read_recipe(tmp_path / "r.json")
    rules = recipe.rules_for(graph, description.weights_hash)
    assert recipe.quantize == precision and len(rules) == {"none": 0, "fp16": 3, "dynamic": 2, "int8": 4}[precision]
    inputs = [description.scale(image) for image in exported.images]
    content = convert.embed(convert.quantize(exported.float_tflite, rules, inputs), description)
    assert content == exported.described[precision]


def test_what_a_file_says(exported, tmp_path):
    graph = convert.operators(exported.float_tflite)
    (kept,) = [op.name for op in graph if op.kind == "CONV_2D" and "/b0.proj" in op.name]
    content = saved(tmp_path / "r.json", Recipe.of("int8", HASH, graph, [kept]))
    assert (content["format"], content["quantize"], content["weights_hash"]) == (1, "int8", HASH)
    first, *_, last = content["rules"]
    common = {"operator": "CONV_2D"}
    assert first == {"algorithm": "min_max_uniform_quantize", "scope": "all", "activations": 8, "weights": 8, **common}
    assert last == {"algorithm": "no_quantize", "scope": [kept], "activations": 32, "weights": 32, **common}
    (add,) = [rule for rule in content["rules"] if rule["operator"] == "ADD"]  # those of the encoder, by name
    assert len(add["scope"]) == 11 and not any("netvlad" in name for name in add["scope"])


def test_the_file_is_checked_against_its_recipe(exported):
    graph = convert.operators(exported.float_tflite)
    description = read_description(exported.described["int8"], "test")
    (kept,) = [op for op in graph if op.kind == "CONV_2D" and "/b0.proj" in op.name]
    rules = Recipe.of("int8", HASH, graph, [kept.name]).rules_for(graph, HASH)
    content = convert.quantize(exported.float_tflite, rules, [description.scale(exported.images[0])])
    (op,) = [op for op in convert.operators(content) if op.name == kept.name]
    assert op.precision == convert.FLOAT32
    convert.check_precisions(content, rules)
    convert.check_xnnpack(content)
    with pytest.raises(ModelError, match=r"1 operators are not as --quantize int8 says, first CONV_2D .* is float32"):
        convert.check_precisions(content, "int8")
    with pytest.raises(ModelError, match=r"1 operators are not as the recipe says, first CONV_2D .* is int8, not floa"):
        convert.check_precisions(exported.described["int8"], rules)
    assert convert.weights_in_float(graph, "int8", rules) == kept.weights > 100


def test_a_recipe_of_another_network(exported, weights, tmp_path):
    graph = convert.operators(exported.float_tflite)
    path = tmp_path / "r.json"
    recipe = Recipe("int8", HASH, (ScopedRule("CONV_2D", convert.FLOAT32, ("conv_of_mine",)),))
    with pytest.raises(InputError, match="names the CONV_2D conv_of_mine, which the network lacks"):
        recipe.rules_for(graph, HASH)
    (dense,) = [op.name for op in graph if op.kind == "FULLY_CONNECTED" and "projection" in op.name]
    with pytest.raises(InputError, match=r"names the CONV_2D .*projection"):  # the name is there, of another kind
        Recipe("int8", HASH, (ScopedRule("CONV_2D", convert.INT8, (dense,)),)).rules_for(graph, HASH)
    write_recipe(path, recipe, [])
    with pytest.raises(InputError, match=f"r.json is for the weights {HASH}, the network has"):
        export_hfnet(weights, tmp_path / "model.tflite", "int8", SIZE, recipe=path)
    with pytest.raises(InputError, match="is a recipe for int8; say so: --quantize int8"):
        export_hfnet(weights, tmp_path / "model.tflite", "fp16", SIZE, recipe=path)
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
        read_recipe(tmp_path / "r.json")


def test_no_recipe(tmp_path):
    with pytest.raises(InputError, match=r"cannot read the recipe .*nowhere.json: No such file"):
        read_recipe(tmp_path / "nowhere.json")


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
    good = Recipe("int8", HASH, (ScopedRule("CONV_2D", convert.INT8, ("a",)),))
    assert saved(tmp_path / "r.json", good)["rules"] == [GOOD] and read_recipe(tmp_path / "r.json") == good
    saved(tmp_path / "r.json", good, **changes)
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "r.json")


def test_a_rule_that_cannot_be_followed(exported):
    """A softmax in int8 is an operator that ai-edge-quantizer knows, with int8 weights only it is not."""
    graph = convert.operators(exported.float_tflite)
    rules = Recipe("int8", HASH, (ScopedRule("SOFTMAX", convert.INT8_WEIGHTS, None),)).rules_for(graph, HASH)
    with pytest.raises(ModelError):
        convert.quantize(exported.float_tflite, rules, [])
