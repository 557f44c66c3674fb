"""Which operator computes how: rules, and the recipes of rules that come with the package, `recipes`/NAME.json.

A recipe's name says what a model is after it: ``w`` are the weights, ``a`` the activations, ``i8`` int8, ``fp16`` and
``fp32`` floats; static are ranges that calibration has measured, dynamic those that are measured as the model runs.

    wfp32_afp32                             nothing is changed
    wfp16_afp32                             weights take half the bytes
    dynamic_wi8_afp32                       int8 weights, in float where XNNPACK has no kernel for that: depthwise
                                            convolutions with int8 weights make the model slower than float
    static_wi8_ai8                          int8 throughout, in float softmax, norms and NetVLAD's arithmetic
    static_wi8_ai8_but_first_and_last_conv  the same, the first convolution in float and of the last only the weights

What no rule names stays in float32.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hfnet_edge.errors import InputError
from hfnet_export.tflite.graph import ALLOWED, FLOAT16_WEIGHTS, FLOAT32, INT8, INT8_WEIGHTS, Operator

# Scopes that are words; else it is a list of operators' names.
ALL = "all"  # of the rule's kind
ADDS_MAPS = "adds maps"  # a shortcut of the encoder, not the "+ epsilon" of a norm, which int8 destroys
LARGE = "large"  # the projection, 96 % of our float file, not the soft assignment of NetVLAD, which stays in float
FIRST, LAST = "first", "last"  # of the rule's kind
SCOPES = (ALL, ADDS_MAPS, LARGE, FIRST, LAST)
MANY_WEIGHTS = 2**14  # make a matrix `LARGE`

HOW = {  # ai-edge-quantizer's algorithm, bits of activations and of weights
    FLOAT32: ("no_quantize", 32, 32),
    FLOAT16_WEIGHTS: ("float_casting", 32, 16),
    INT8_WEIGHTS: ("min_max_uniform_quantize", 32, 8),
    INT8: ("min_max_uniform_quantize", 8, 8),
}
MEANING = {"none": FLOAT32, "fp16": FLOAT16_WEIGHTS, "dynamic": INT8_WEIGHTS, "int8": INT8}
RECIPES = {  # of --quantize, for a network that asks for nothing else
    "none": "wfp32_afp32",
    "fp16": "wfp16_afp32",
    "dynamic": "dynamic_wi8_afp32",
    "int8": "static_wi8_ai8",
}


@dataclass(frozen=True)
class Rule:
    """Operators of kind ``operator`` in ``scope`` compute in ``precision``; the last of several rules wins.

    Attributes:
        precision: of `hfnet_export.tflite.graph`, `INT8` for example.
        scope: one of `SCOPES`, or names of operators.
    """

    operator: str
    precision: str
    scope: str | tuple[str, ...] = ALL

    def __str__(self) -> str:
        where = f" ({self.scope})" if self.scope in (FIRST, LAST) else ""
        return f"{self.operator} {self.precision}{where}"

    def chosen(self, graph: Sequence[Operator]) -> list[Operator]:
        """The operators of a graph that it is about."""
        same = [op for op in graph if op.kind == self.operator]
        if self.scope == FIRST:
            return same[:1]
        if self.scope == LAST:
            return same[-1:]
        if self.scope == ADDS_MAPS:
            return [op for op in same if _adds_maps(op)]
        if self.scope == LARGE:
            return [op for op in same if len(op.activations) == 1 and op.weights >= MANY_WEIGHTS]
        return same if self.scope == ALL else [op for op in same if op.name in self.scope]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; `read_rule` reads it."""
        algorithm, activations, weights = HOW[self.precision]
        scope = self.scope if isinstance(self.scope, str) else list(self.scope)
        return {
            "algorithm": algorithm,
            "operator": self.operator,
            "scope": scope,
            "activations": activations,
            "weights": weights,
        }


def _adds_maps(op: Operator) -> bool:
    return len(op.activations) == 2 and op.activations[0] == op.activations[1] and len(op.activations[0]) == 4


def read_rule(where: str, content: Any, remedy: str) -> Rule:
    """A rule of a parsed JSON file. Raises InputError: it makes no sense; ``where`` and ``remedy`` are for its text."""
    keys = {"algorithm", "operator", "scope", "activations", "weights"}
    if not isinstance(content, dict) or set(content) != keys:
        raise InputError(f"{where} is not a table of {', '.join(sorted(keys))}", remedy)
    how = (content["algorithm"], content["activations"], content["weights"])
    if how not in HOW.values():
        known = "; ".join(f"{algorithm}, {a}, {w}" for algorithm, a, w in HOW.values())
        raise InputError(f"{where}: algorithm, activations, weights are {how!r}", f"possible are {known}")
    operator, scope = content["operator"], content["scope"]
    if not (isinstance(operator, str) and operator in ALLOWED):
        raise InputError(f"{where}: operator is {operator!r}", "write a TFLite operator, CONV_2D for example")
    named = isinstance(scope, list) and scope and all(isinstance(name, str) for name in scope)
    if not named and not (isinstance(scope, str) and scope in SCOPES):
        words = ", ".join(f'"{word}"' for word in SCOPES)
        raise InputError(f"{where}: scope is {scope!r}", f"write one of {words}, or a list of names of output tensors")
    precision = next(precision for precision, value in HOW.items() if value == how)
    return Rule(operator, precision, scope if isinstance(scope, str) else tuple(scope))


@cache
def bundled(name: str) -> tuple[Rule, ...]:
    """The rules of a recipe that comes with the package, by its name."""
    path = Path(__file__).parent / "recipes" / f"{name}.json"
    rules = json.loads(path.read_text())["rules"]
    return tuple(read_rule(f"{path}: rule {k}", rule, "install hfnet-edge again") for k, rule in enumerate(rules))


def precisions(rules: Sequence[Rule], graph: Sequence[Operator]) -> dict[str, str]:
    """How each operator of a graph shall compute under these rules, by its name."""
    found = dict.fromkeys((op.name for op in graph), FLOAT32)
    for rule in rules:
        found |= dict.fromkeys((op.name for op in rule.chosen(graph)), rule.precision)
    return found


def reaches(quantize: str, graph: Sequence[Operator], rules: Sequence[Rule]) -> bool:
    """Some operator computes as ``quantize`` says, a key of `MEANING`. Else it names a float network."""
    return MEANING[quantize] in precisions(rules, graph).values()
