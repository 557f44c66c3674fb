"""Finds the operators that must stay in float for a quantized network to pass a gate: `autopilot`.

    each tensor alone in int8 ──> ranked by what the outputs lose ──> worst to float ──> quantize ──> gate ──┐
                                                       ^── failed: the next ──────────────────────────────────┘

What moves is a group: all operators that write or read one tensor. Less would not help, since a tensor is int8 as long
as one of them is; and a channel with a huge range ruins the others there, and its consumer's weights.

Groups are ranked once, each with everything else in float. Taking one group at a time out of the int8 network would
rank them too, but where two of them each ruin the outputs, neither alone brings anything back.

They move to float and not to 16-bit activations, for which XNNPACK has no convolutions: two such layers of 56 make the
bundled network 9 to 13 times slower, while in float they cost a sixth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any, Protocol

import numpy as np

from hfnet_edge.errors import ModelError
from hfnet_edge.networks.description import Description, sealed
from hfnet_edge.shell.console import Report, silent
from hfnet_export.tflite.checks import Fidelity
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import FLOAT32, INT8, INT8_WEIGHTS, Graph, Operator, pack
from hfnet_export.tflite.quantization_recipe import QuantizationRecipe, calibration_hash
from hfnet_export.tflite.quantize import calibrate, quantize
from hfnet_export.tflite.rounding import channel_means, round_kernels, round_tensors
from hfnet_export.tflite.rules import Rule, precisions

NOTHING, EVERYTHING = "nothing", "everything"
SAME_VALUES = ("PAD",)  # both sides of it are one tensor to us


class Judgement(Protocol):
    """A gate's answer; ``str()`` of it is one line."""

    @property
    def passed(self) -> bool: ...

    @property
    def recalls(self) -> tuple[float, ...]:
        """Share of the queries that were localized, by threshold."""
        ...

    @property
    def median(self) -> tuple[float, float]:
        """Of the errors, in metres and degrees."""
        ...

    @property
    def lost(self) -> float:
        """Points of recall, against the reference."""
        ...

    @property
    def ratio(self) -> float:
        """Of the medians to the reference's."""
        ...

    @property
    def ratio_low(self) -> float:
        """Lower end of the ratio's confidence interval."""
        ...

    def as_dict(self) -> dict[str, Any]: ...


class Judge(Protocol):
    """A gate."""

    @property
    def about(self) -> dict[str, Any]:
        """What it compares with and its limits, for the recipe."""
        ...

    def check(self, description: Description) -> None:
        """Raises MismatchError: its reference is of another network."""
        ...

    def __call__(self, content: bytes) -> Judgement:
        """Judges a .tflite with its description."""
        ...


@dataclass(frozen=True)
class Group:
    """Operators that leave int8 together.

    Attributes:
        name: of the output or tensor that they write or read, for people.
        tensors: names of the int8 tensors that become float; none: only the operator's weights are int8.
        operators: their names.
    """

    name: str
    tensors: tuple[str, ...]
    operators: tuple[str, ...]


@dataclass(frozen=True)
class Attempt:
    """One network that the gate was asked about.

    Attributes:
        moved: name of the group that went to float in this step, `NOTHING` or `EVERYTHING`.
        operators: names of the operators that went with it.
        in_float: number of operators in float that the rules quantize.
        fidelity: against the float network; ``floor`` is what it has to reach.
        judgement: of the gate.
    """

    moved: str
    operators: tuple[str, ...]
    in_float: int
    fidelity: Fidelity
    floor: Fidelity
    judgement: Judgement

    @property
    def passed(self) -> bool:
        """No gate lets through what `hfnet_export.tflite.checks.check_fidelity` refuses."""
        return self.judgement.passed and self.is_faithful

    @property
    def is_faithful(self) -> bool:
        """No output is further from the float network's than the floor allows."""
        return all(x >= y for x, y in zip(astuple(self.fidelity), astuple(self.floor), strict=True))

    def as_dict(self) -> dict[str, Any]:
        return {
            "group": self.moved,
            "operators": list(self.operators),
            "operators_in_float": self.in_float,
            "fidelity": {name: None if math.isnan(x) else x for name, x in asdict(self.fidelity).items()},
            "gate": self.judgement.as_dict(),
            "passed": self.passed,
        }


class GateError(ModelError):
    """The network does not pass the gate, unless all of it stays in float or even then. ``steps``: what was tried."""

    def __init__(self, problem: str, remedy: str, steps: Sequence[Attempt]):
        super().__init__(problem, remedy)
        self.steps = tuple(steps)


@dataclass(frozen=True)
class Autopiloted:
    """What passed.

    Attributes:
        content: the .tflite, with its description.
        recipe: makes it again, see `hfnet_export.tflite.quantization_recipe`.
        steps: the last one passed.
    """

    content: bytes
    recipe: QuantizationRecipe
    steps: tuple[Attempt, ...]


def autopilot(
    graph: Graph,
    description: Description,
    rules: Sequence[Rule],
    inputs: Sequence[np.ndarray],
    measure: Callable[[bytes], Fidelity],
    floor: Fidelity,
    gate: Judge,
    report: Report = silent,
) -> Autopiloted:
    """Quantizes to int8, and moves one group after the other to float until the gate passes.

    Args:
        graph: a float32 .tflite.
        description: of the quantized model.
        rules: for int8, of which some operators will be excepted.
        inputs: (1, H, W, 1) float32 network inputs, for calibration.
        measure: compares the outputs of a .tflite, with its description, with the float network's.
        floor: what these have to reach.
        gate: judges it.

    Raises:
        GateError: not even the network in float passes, or nothing else does.
        ModelError: the conversion went wrong.
    """
    wanted = precisions(rules, graph.operators)
    calibration = calibration_hash(inputs)
    steps: list[Attempt] = []

    def attempt(moved: str, operators: Sequence[str], in_float: Sequence[str]) -> tuple[bytes, QuantizationRecipe]:
        recipe = QuantizationRecipe.of("int8", description, calibration, graph.operators, rules, in_float)
        model = embed(quantize(graph, recipe.rules, inputs), description)
        steps.append(Attempt(moved, tuple(operators), len(in_float), measure(model), floor, gate(model)))
        return model, recipe

    found = attempt(NOTHING, (), ())
    if steps[-1].passed:
        return Autopiloted(*found, tuple(steps))
    report("asking the gate about float", 0, 1)
    everything = [name for name, precision in wanted.items() if precision != FLOAT32]
    attempt(EVERYTHING, everything, everything)
    report("asking the gate about float", 1, 1)
    if not steps[-1].passed:
        raise GateError(
            f"the network does not pass the gate in float32 either: {steps[-1].judgement}",
            "record the gate's bundle with this network and input size, or allow more loss",
            steps,
        )
    groups = rank(graph, description, rules, inputs, measure, report)
    in_float: list[str] = []
    for k, group in enumerate(groups):
        moved = [name for name in group.operators if name not in in_float]
        if not moved:
            continue
        in_float += moved
        if INT8 not in (precision for name, precision in wanted.items() if name not in in_float):
            break
        report("moving to float", k, len(groups), group.name)
        found = attempt(group.name, moved, in_float)
        if steps[-1].passed:
            report("moving to float", len(groups), len(groups), f"{len(in_float)} operators")
            return Autopiloted(*found, tuple(steps))
    raise GateError(
        "the gate passes the network in float32 only, with any of it in int8 it does not",
        "export it with --quantize none, or allow more loss",
        steps,
    )


def rank(
    graph: Graph,
    description: Description,
    rules: Sequence[Rule],
    inputs: Sequence[np.ndarray],
    measure: Callable[[bytes], Fidelity],
    report: Report = silent,
) -> list[Group]:
    """The groups of a float32 .tflite, most harmful first: each alone is rounded to int8, tensor and weights."""
    groups = find_groups(graph.operators, graph.output_names(), rules)
    ranges = calibrate(graph, rules, inputs)
    means = channel_means(graph.content, inputs)
    graph = Graph.parse(embed(graph, description))
    harm = []
    for k, group in enumerate(groups):
        report("each tensor alone in int8", k, len(groups), group.name)
        if group.tensors:
            model = graph.copy()
            round_kernels(model, group.operators, means)
            round_tensors(model, {name: ranges[name] for name in group.tensors if name in ranges})
            alone = pack(model)
        else:
            (op,) = [op for op in graph.operators if op.name in group.operators]
            alone = quantize(graph, [Rule(op.kind, INT8_WEIGHTS, (op.name,))], inputs).content
        agreement = astuple(measure(sealed(alone)))
        harm.append(sum(1.0 if math.isnan(value) else 1 - value for value in agreement))
    report("each tensor alone in int8", len(groups), len(groups))
    order = sorted(range(len(groups)), key=lambda k: -harm[k])
    return [groups[k] for k in order]


def find_groups(graph: Sequence[Operator], outputs: dict[str, str], rules: Sequence[Rule]) -> list[Group]:
    """A group for each tensor that ``rules`` make int8, and for each operator with int8 weights only.

    Args:
        graph: of the float network.
        outputs: tensor to name of an output.
    """
    precision = precisions(rules, graph)
    source: dict[str, str] = {}  # of padded tensors, the one that was padded
    tensors: dict[str, list[str]] = {}
    operators: dict[str, list[str]] = {}
    for op in graph:
        if precision[op.name] != INT8:
            continue
        if op.kind in SAME_VALUES:
            source[op.name] = source.get(op.reads[0], op.reads[0])
        for tensor in (*op.reads, op.name):
            first = source.get(tensor, tensor)
            for members, name in ((tensors, tensor), (operators, op.name)):
                if name not in members.setdefault(first, []):
                    members[first].append(name)
    weights_only = [op.name for op in graph if precision[op.name] == INT8_WEIGHTS]
    labels = _labels([*tensors, *weights_only], outputs)
    return [
        *(Group(labels[name], tuple(tensors[name]), tuple(operators[name])) for name in tensors),
        *(Group(labels[name], (), (name,)) for name in weights_only),
    ]


def _labels(names: Sequence[str], outputs: dict[str, str]) -> dict[str, str]:
    """The converter names a tensor after all that it fused, as "hfnet/b0.proj.bn/add;hfnet/b0.proj/...". The layer of
    the first is enough where that tells them apart."""
    first = {name: outputs.get(name, name.split(";")[0]) for name in names}
    layers = {name: text.split("/")[1] if text.count("/") > 1 else text for name, text in first.items()}
    return layers if len(set(layers.values())) == len(names) else first
