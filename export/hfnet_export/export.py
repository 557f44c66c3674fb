"""From a network to a .tflite that is checked, compared with the float network and timed: `export_hfnet`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.networks.model import Model
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.files import atomic_write, check_writable
from hfnet_edge.shell.quiet import quiet
from hfnet_export.networks.weights import BUNDLED
from hfnet_export.sources.foreign import check_input_size, read_source
from hfnet_export.tflite import convert
from hfnet_export.tflite.autopilot import Judge, Step, autopilot
from hfnet_export.tflite.calibration import BUILT_IN, MAX_PHOTOS, built_in_images, photos
from hfnet_export.tflite.quantization_recipe import calibration_hash, read_recipe, write_recipe

STEPS = 6
COMPARED = 16  # images for the comparison with the float network
THREADS = 2

OnStep = Callable[[int, str], None]
"""Called with (number from 1 to `STEPS`, what is done next)."""


@dataclass(frozen=True)
class ExportReport:
    """What `export_hfnet` wrote and measured.

    Attributes:
        file: the model.
        bytes: its size; ``float_bytes`` that of the same network in float32.
        operators: number of operators by how they compute.
        fidelity: its outputs against the float network's.
        milliseconds: of one image, median; ``float_milliseconds`` of the float network in the same run.
        seconds: for everything.
        recipe: the recipe that a gate asked for, None without one; ``steps`` what was tried for it.
    """

    file: Path
    bytes: int
    float_bytes: int
    operators: dict[str, int]
    fidelity: convert.Fidelity
    milliseconds: float
    float_milliseconds: float
    seconds: float
    recipe: Path | None = None
    steps: tuple[Step, ...] = ()


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
    on_step: OnStep = lambda *_: None,
    report: Report = silent,
) -> ExportReport:
    """Exports HF-Net for phones.

    Args:
        network: weights that `hfnet-distill` wrote, or another HF-Net: a Keras file (.keras, .h5), the folder of a
            SavedModel, or an .onnx file.
        output: the .tflite to write.
        quantize: "none" (float32), "fp16", "dynamic" or "int8", see `hfnet_export.tflite.convert.RECIPES`.
        input_size: height and width, multiples of 32.
        global_dim: keep this many dimensions of the global descriptor, the most important first; of weights only.
        pca: a folder of the map's reference photos, more than ``global_dim``: their PCA, folded into the projection,
            decides which dimensions are the most important.
        calibration: a folder of photos like those that will be localized; None: images made by code.
        input_range: what another HF-Net expects for grey levels 0 and 255.
        outputs: role to name of an output of another HF-Net, where `hfnet_export.sources.roles` cannot tell.
        gate: of an int8 model: operators move to float until it passes, see `hfnet_export.tflite.autopilot`. The
            recipe is written next to the model, `recipe_path`.
        recipe: a recipe file to repeat; the same network, input size and calibration give the same file.

    Raises:
        InputError: an argument, the network's file or a photo is not usable.
        ModelError: the network is not an HF-Net, or the conversion went wrong; nothing is written.
        MismatchError: the gate is of another network.
        GateError: no network with int8 in it passes the gate; nothing is written.
        InstallError: onnx2tf is needed and cannot be installed.
        OutputError: ``output`` cannot be written.
    """
    started = time.monotonic()
    check_writable(output)
    if quantize not in convert.RECIPES:
        raise InputError(f"--quantize {quantize} is not known", f"choose one of {', '.join(convert.RECIPES)}")
    check_input_size(input_size)
    if gate is not None and (quantize != "int8" or recipe is not None):
        raise InputError("--gate is for --quantize int8 without a --recipe", "leave one of them out")
    if gate is not None:
        check_writable(recipe_path(output))
    given = None if recipe is None else read_recipe(recipe)
    if given is not None and given.quantize != quantize:
        raise InputError(f"{recipe} is a recipe for {given.quantize}", f"say so: --quantize {given.quantize}")
    if pca is not None and global_dim is None:
        raise InputError("--pca needs a number of dimensions", "give --global-dim N too, less than the photos")
    source = read_source(network, input_size, global_dim, pca, input_range, outputs, on_step)
    description = source.description
    if gate is not None:
        gate.check(description)
    graph = convert.operators(source.content)
    rules = convert.RECIPES[quantize] if given is None else given.rules_for(graph, description, str(recipe))
    if not convert.deserves(quantize, graph, rules):
        raise ModelError(f"nothing of this network would be in {quantize}", "say what it is: --quantize none")
    float_model = _load(convert.embed(source.content, description))

    if calibration is None:
        on_step(3, f"making {BUILT_IN} images; photos of the place are better: --calibration DIR")
        images = built_in_images(input_size)
    else:
        on_step(3, f"reading up to {MAX_PHOTOS} photos from {calibration}")
        images = photos(calibration, input_size)
    inputs = [description.scale(image) for image in images]
    compared = images[:: max(1, len(images) // COMPARED)][:COMPARED]
    reference = [float_model(image) for image in compared]
    for result, image in list(zip(reference, compared, strict=True))[:2]:
        convert.check_float(result, source.reference(description.scale(image)))
        convert.check_values(result)

    description = replace(description, precision=quantize)
    steps: tuple[Step, ...] = ()

    def measure(content: bytes) -> convert.Fidelity:
        model = _load(content)
        return convert.fidelity([model(image) for image in compared], reference)

    if gate is not None:
        on_step(4, "quantizing to int8, and moving operators to float until the gate passes")
        found = autopilot(source.content, description, inputs, measure, gate, report)
        content, steps = found.content, found.steps
        rules = found.recipe.rules_for(graph, description)
    else:
        said = ", ".join(f"{rule.op} {rule.precision}" for rule in rules) or "all float32"
        if given is not None:
            said = f"as {recipe} says"
            if calibration_hash(inputs) != given.calibration:
                said += ", though it was found with other calibration images"
        on_step(4, f"quantizing: {said}")
        content = convert.embed(convert.quantize(source.content, rules, inputs), description)

    on_step(5, f"checking operators, size, XNNPACK, and outputs on {len(compared)} images")
    convert.check_precisions(content, rules)
    convert.check_size(content, source.parameters, graph, rules)
    convert.check_xnnpack(content)
    measured = measure(content)
    convert.check_fidelity(measured, quantize)

    on_step(6, f"timing it and the float network, {THREADS} threads")
    float_ms, ms = interleaved([float_model, _load(content)], images[0])
    with atomic_write(output) as file:
        file.write(content)
    if gate is not None:
        write_recipe(recipe_path(output), found.recipe, gate.about, [step.as_dict() for step in steps])
    counted = Counter(op.precision for op in convert.operators(content) if op.kind not in ("QUANTIZE", "DEQUANTIZE"))
    return ExportReport(
        file=output,
        bytes=len(content),
        float_bytes=len(source.content),
        operators=dict(counted.most_common()),
        fidelity=measured,
        milliseconds=ms,
        float_milliseconds=float_ms,
        seconds=time.monotonic() - started,
        recipe=None if gate is None else recipe_path(output),
        steps=steps,
    )


def recipe_path(output: Path) -> Path:
    """Where the recipe of a gated model is written: model.tflite has model.recipe.json."""
    return output.with_suffix(".recipe.json")


def _load(content: bytes) -> Model:
    with quiet():
        return Model("the new model", THREADS, content)


def interleaved(models: Sequence[Callable[[np.ndarray], object]], pixels: np.ndarray, rounds: int = 25) -> list[float]:
    """Median milliseconds of each model on these pixels, in turns so that other load falls on all of them alike."""
    times = np.empty((rounds + 3, len(models)))
    for row in times:
        for k, model in enumerate(models):
            start = time.perf_counter()
            model(pixels)
            row[k] = time.perf_counter() - start
    return [float(ms) for ms in np.median(times[3:], axis=0) * 1000]  # the first three warm up
