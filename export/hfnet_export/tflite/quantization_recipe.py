"""A quantization as data: which operator computes how, in a JSON file that `hfnet-export --recipe` repeats.

    {"format": 1, "quantize": "int8", "weights_hash": "35d1...", "input_size": [480, 640], "calibration": "9be0...",
     "rules": [{"algorithm": "min_max_uniform_quantize", "operator": "CONV_2D", "scope": "all",
                "activations": 8, "weights": 8},
               {"algorithm": "no_quantize", "operator": "CONV_2D", "scope": ["hfnet_1/b1.proj..."],
                "activations": 32, "weights": 32}],
     "gate": {"bundle": "07aa...", "points": 1.0, "factor": 1.1}, "steps": [...]}

The algorithms are ai-edge-quantizer's. A scope lists operators by the name of their output tensor, or is a word of
`hfnet_export.tflite.rules.SCOPES`: "all" are those of the kind. The last rule for an operator wins. What passed the
gate is that network at that input size, calibrated with images of that hash. Gate and steps, which the autopilot tried,
are for people.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.networks.description import Description
from hfnet_edge.shell.reading import MAX_SETTINGS, parse_json, read_bytes
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.tflite.graph import FLOAT32, Operator
from hfnet_export.tflite.rules import ALL, MEANING, Rule, read_rule

FORMAT = 1
REMEDY = "have one written: hfnet-export --gate BUNDLE"


@dataclass(frozen=True)
class QuantizationRecipe:
    """What a recipe file says, without its gate and steps.

    Attributes:
        quantize: the precision that the model is said to have, a key of `hfnet_export.tflite.rules.MEANING`.
        weights_hash, input_size: of the network that it is for; height, width.
        calibration: `calibration_hash` of the images that it was calibrated with.
        rules: the last that names an operator wins.
    """

    quantize: str
    weights_hash: str
    input_size: tuple[int, int]
    calibration: str
    rules: tuple[Rule, ...]

    @classmethod
    def of(
        cls,
        quantize: str,
        description: Description,
        calibration: str,
        graph: Sequence[Operator],
        general: Sequence[Rule],
        in_float: Sequence[str] = (),
    ) -> QuantizationRecipe:
        """``general`` rules spelled out for a network, except that some operators stay in float32."""
        rules = []
        for rule in general:
            chosen = tuple(op.name for op in rule.chosen(graph))
            whole = len(chosen) == sum(op.kind == rule.operator for op in graph)
            if chosen:
                rules.append(replace(rule, scope=ALL if whole else chosen))
        kept = [op for op in graph if op.name in in_float]
        for kind in dict.fromkeys(op.kind for op in kept):
            rules.append(Rule(kind, FLOAT32, tuple(op.name for op in kept if op.kind == kind)))
        return cls(quantize, description.weights_hash, description.input_size, calibration, tuple(rules))

    def rules_for(
        self, graph: Sequence[Operator], description: Description, where: str = "the recipe"
    ) -> tuple[Rule, ...]:
        """The rules for `hfnet_export.tflite.quantize.quantize`.

        Raises:
            InputError: the recipe is for other weights or another input size, or names an operator that the network
                does not have.
        """
        if description.weights_hash != self.weights_hash:
            raise InputError(
                f"{where} is for the weights {self.weights_hash}, the network has {description.weights_hash}", REMEDY
            )
        if description.input_size != self.input_size:
            size, other = ("x".join(map(str, size)) for size in (self.input_size, description.input_size))
            raise InputError(f"{where} is for an input of {size}, the network has {other}", f"give --input-size {size}")
        there = {(op.kind, op.name) for op in graph}
        for rule in self.rules:
            for name in rule.scope if isinstance(rule.scope, tuple) else ():
                if (rule.operator, name) not in there:
                    raise InputError(f"{where} names the {rule.operator} {name}, which the network lacks", REMEDY)
        return self.rules


def calibration_hash(inputs: Sequence[np.ndarray]) -> str:
    """32 hex digits over the network inputs that a model is calibrated with."""
    digest = hashlib.sha256()
    for x in inputs:
        digest.update(np.ascontiguousarray(x))
    return digest.hexdigest()[:32]


def write_quantization_recipe(
    path: Path, recipe: QuantizationRecipe, gate: dict[str, Any], steps: Sequence[dict[str, Any]]
) -> None:
    """Writes a recipe, what it passed and what was tried to find it, atomically. Raises OutputError."""
    content = {
        "format": FORMAT,
        "quantize": recipe.quantize,
        "weights_hash": recipe.weights_hash,
        "input_size": list(recipe.input_size),
        "calibration": recipe.calibration,
        "rules": [rule.as_dict() for rule in recipe.rules],
        "gate": gate,
        "steps": list(steps),
    }
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def read_quantization_recipe(path: Path) -> QuantizationRecipe:
    """Reads what `write_quantization_recipe` wrote, or what somebody wrote by hand.

    Raises:
        InputError: missing, not JSON, of another format, or a rule that makes no sense.
    """
    try:
        content = parse_json(read_bytes(path, MAX_SETTINGS))
    except OSError as e:
        raise InputError(f"cannot read the recipe {path}: {e.strerror}", "check its name") from e
    except ValueError as e:
        raise InputError(f"{path} is not JSON ({e})", REMEDY) from e
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a recipe of format {FORMAT}", REMEDY)
    keys = ("quantize", "weights_hash", "input_size", "calibration", "rules")
    quantize, weights_hash, size, calibration, rules = (content.get(key) for key in keys)
    if not (isinstance(quantize, str) and quantize in MEANING):
        raise InputError(f"{path}: quantize is {quantize!r}", f"write one of {', '.join(MEANING)}")
    if not (isinstance(weights_hash, str) and isinstance(calibration, str)):
        raise InputError(f"{path}: weights_hash is {weights_hash!r}, calibration {calibration!r}", REMEDY)
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise InputError(f"{path}: input_size is {size!r}", "write height and width of the network's input")
    if not isinstance(rules, list):
        raise InputError(f"{path}: rules is not a list", REMEDY)
    scoped = tuple(read_rule(f"{path}: rule {k}", rule, REMEDY) for k, rule in enumerate(rules))
    return QuantizationRecipe(quantize, weights_hash, (size[0], size[1]), calibration, scoped)
