"""From a network to a .tflite that is checked, compared with the float network and timed: `export`, for every network.

    convert ──> float32 .tflite ──the recipe's rules, or those that an `autopilot` finds──> .tflite with its description

What differs between networks is a `hfnet_export.trained.TrainedNetwork`. `export_hfnet`, `export_crbnet` and
`export_densernet` are `export` of those that there are.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.writing import atomic_write, check_writable
from hfnet_export.networks.trained_crbnet import TrainedCRBNet
from hfnet_export.networks.trained_densernet import TrainedDenserNet
from hfnet_export.networks.weights import BUNDLED, BUNDLED_CRBNET, BUNDLED_DENSERNET
from hfnet_export.sources.hfnet_files import check_input_size, hfnet_of_file
from hfnet_export.tflite import checks
from hfnet_export.tflite.autopilot import Attempt, Judge, autopilot
from hfnet_export.tflite.checks import Fidelity
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import CONVERSIONS, Graph
from hfnet_export.tflite.quantization_recipe import (
    calibration_hash,
    read_quantization_recipe,
    write_quantization_recipe,
)
from hfnet_export.tflite.quantize import quantize as apply_rules
from hfnet_export.tflite.rules import bundled, reaches
from hfnet_export.trained import THREADS, Say, TrainedNetwork

STEPS = 6
WARM_UP, ROUNDS = 3, 25  # of the timing


@dataclass(frozen=True)
class ExportReport:
    """What `export` wrote and measured.

    Attributes:
        file: the model.
        bytes: its size; ``float_bytes`` that of the same network in float32.
        operators: number of operators by how they compute.
        fidelity: its outputs against the float network's, of the network's own kind.
        milliseconds: of ``timed`` images or patches (``unit``), median; ``float_milliseconds`` of the float network in
            the same run.
        seconds: for everything.
        recipe: the recipe that a gate asked for, None without one; ``steps`` what was tried for it.
    """

    file: Path
    bytes: int
    float_bytes: int
    operators: dict[str, int]
    fidelity: Fidelity
    milliseconds: float
    float_milliseconds: float
    timed: int
    unit: str
    seconds: float
    recipe: Path | None = None
    steps: tuple[Attempt, ...] = ()


def export(
    network: TrainedNetwork,
    output: Path,
    quantize: str = "int8",
    calibration: Path | None = None,
    gate: Judge | None = None,
    recipe: Path | None = None,
    on_step: Say = lambda *_: None,
    report: Report = silent,
) -> ExportReport:
    """Exports a network for phones.

    Args:
        output: the .tflite to write.
        quantize: "none" (float32), "fp16", "dynamic" or "int8", see `hfnet_export.tflite.rules`.
        calibration: a folder of photos like those that will be localized; None: images made by code.
        gate: of an int8 model: operators move to float until it passes, see `hfnet_export.tflite.autopilot`. The
            recipe is written next to the model, `recipe_path`.
        recipe: a recipe file to repeat; the same network, input size and calibration give the same file.
        on_step: called with a number from 1 to `STEPS` and what is done next.

    Raises:
        InputError: an argument, the network's file or a photo is not usable.
        ModelError: the conversion went wrong; nothing is written.
        MismatchError: the gate is of another network.
        GateError: no network with int8 in it passes the gate; nothing is written.
        OutputError: ``output`` cannot be written.
    """
    started = time.monotonic()
    check_writable(output)
    if quantize not in network.recipes:
        raise InputError(f"--quantize {quantize} is not known", f"choose one of {', '.join(network.recipes)}")
    if gate is not None and (quantize != "int8" or recipe is not None):
        raise InputError("--gate is for --quantize int8 without a --recipe", "leave one of them out")
    if gate is not None:
        check_writable(recipe_path(output))
    given = None if recipe is None else read_quantization_recipe(recipe)
    if given is not None and given.quantize != quantize:
        raise InputError(f"{recipe} is a recipe for {given.quantize}", f"say so: --quantize {given.quantize}")
    converted = network.convert(on_step)
    graph, description = converted.graph, converted.description
    if gate is not None:
        gate.check(description)
    rules = bundled(network.recipes[quantize])
    if given is not None:
        rules = given.rules_for(graph.operators, description, str(recipe))
    if not reaches(quantize, graph.operators, rules):
        raise ModelError(f"nothing of this network would be in {quantize}", "say what it is: --quantize none")
    float_model = network.load(embed(graph, description))

    probes = network.probe(calibration, on_step)
    inputs = [description.scale(pixels) for pixels in probes.calibration]
    reference = [float_model(pixels) for pixels in probes.compared]
    for pixels in probes.checked:
        outputs = float_model(pixels)
        checks.check_float(outputs, converted.original(description.scale(pixels)), converted.tolerance)
        converted.check(outputs)

    description, floor = replace(description, precision=quantize), network.floors[quantize]

    def measure(content: bytes) -> Fidelity:
        model = network.load(content)
        return network.fidelity([model(pixels) for pixels in probes.compared], reference)

    found = None
    if gate is not None:
        on_step(4, "quantizing to int8, and moving operators to float until the gate passes")
        found = autopilot(graph, description, rules, inputs, measure, floor, gate, report)
        content, rules = found.content, found.recipe.rules
    else:
        said = ", ".join(map(str, rules)) or "all float32"
        if given is not None:
            said = f"as {recipe} says"
            if calibration_hash(inputs) != given.calibration:
                said += ", though it was found with other calibration images"
        on_step(4, f"quantizing: {said}")
        content = embed(apply_rules(graph, rules, inputs), description)

    on_step(5, f"checking operators, size, XNNPACK, and {probes.compares}")
    made = Graph.parse(content)
    checks.check_precisions(made, rules)
    checks.check_size(made, converted.parameters, graph.operators, rules)
    checks.check_xnnpack(content)
    measured = measure(content)
    checks.check_fidelity(measured, floor, quantize)

    on_step(6, f"timing it and the float network, {THREADS} threads")
    float_ms, ms = interleaved([float_model, network.load(content)], probes.timed)
    with atomic_write(output) as file:
        file.write(content)
    if found is not None and gate is not None:
        tried = [step.as_dict() for step in found.steps]
        write_quantization_recipe(recipe_path(output), found.recipe, gate.about, tried)
    counted = Counter(op.precision for op in made.operators if op.kind not in CONVERSIONS)
    return ExportReport(
        file=output,
        bytes=len(content),
        float_bytes=len(graph.content),
        operators=dict(counted.most_common()),
        fidelity=measured,
        milliseconds=ms,
        float_milliseconds=float_ms,
        timed=probes.count,
        unit=probes.unit,
        seconds=time.monotonic() - started,
        recipe=None if found is None else recipe_path(output),
        steps=() if found is None else found.steps,
    )


def export_hfnet(
    network: Path = BUNDLED,
    output: Path = Path("hfnet.tflite"),
    quantize: str = "int8",
    input_size: tuple[int, int] = (480, 640),
    global_dim: int | None = None,
    pca: Path | None = None,
    calibration: Path | None = None,
    input_range: tuple[float, float] | None = None,
    outputs: Mapping[str, str] | None = None,
    gate: Judge | None = None,
    recipe: Path | None = None,
    on_step: Say = lambda *_: None,
    report: Report = silent,
) -> ExportReport:
    """Exports an HF-Net: weights that `hfnet-distill` wrote, or another's Keras file, SavedModel or .onnx file.

    Args:
        input_size, global_dim, input_range, outputs: see `hfnet_export.sources.hfnet_files.hfnet_of_file`; ``pca`` is
            its ``references``.
        output, quantize, calibration, gate, recipe, on_step: see `export`.

    Raises:
        InstallError: onnx2tf is needed and cannot be installed. Else see `export`.
    """
    check_writable(output)
    source = hfnet_of_file(network, input_size, global_dim, pca, input_range, outputs)
    return export(source, output, quantize, calibration, gate, recipe, on_step, report)


def export_crbnet(
    network: Path = BUNDLED_CRBNET,
    output: Path = Path("crbnet.tflite"),
    quantize: str = "int8",
    calibration: Path | None = None,
    on_step: Say = lambda *_: None,
) -> ExportReport:
    """Exports a CRBNet, weights that `hfnet-train-crbnet` wrote. Arguments and errors as of `export`."""
    return export(TrainedCRBNet(network), output, quantize, calibration, on_step=on_step)


def export_densernet(
    network: Path = BUNDLED_DENSERNET,
    output: Path = Path("densernet.tflite"),
    quantize: str = "int8",
    input_size: tuple[int, int] = (480, 640),
    global_dim: int | None = None,
    calibration: Path | None = None,
    on_step: Say = lambda *_: None,
) -> ExportReport:
    """Exports a DenserNet, weights that `hfnet-train-densernet` wrote. Arguments and errors as of `export_hfnet`."""
    check_input_size(input_size)
    source = TrainedDenserNet(network, input_size, global_dim)
    return export(source, output, quantize, calibration, on_step=on_step)


def recipe_path(output: Path) -> Path:
    """Where the recipe of a gated model is written: model.tflite has model.recipe.json."""
    return output.with_suffix(".recipe.json")


def interleaved(models: Sequence[Callable[[np.ndarray], object]], pixels: np.ndarray) -> list[float]:
    """Median milliseconds of each model on these pixels, in turns so that other load falls on all of them alike."""
    times = np.empty((WARM_UP + ROUNDS, len(models)))
    for row in times:
        for k, model in enumerate(models):
            start = time.perf_counter()
            model(pixels)
            row[k] = time.perf_counter() - start
    return [float(ms) for ms in np.median(times[WARM_UP:], axis=0) * 1000]
