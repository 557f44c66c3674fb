"""From CRBNet's weights to a .tflite that is checked, compared with the float network and timed: `export_crbnet`.

The file takes any number of patches at once. In "int8" two of its layers are not: the first convolution, 0.3 % of the
work, because eight bits with a zero among them cannot hold the 256 grey levels exactly, and the output of the last,
whose signs are the binary descriptor.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from hfnet_edge.errors import InputError, ModelError
from hfnet_edge.image.patches import SIDE, cut, detect
from hfnet_edge.image.photo import load_photo
from hfnet_edge.networks.description import PATCH_ROLE, Description
from hfnet_edge.networks.patch_model import PatchModel
from hfnet_edge.shell.files import atomic_write, check_writable
from hfnet_edge.shell.quiet import quiet
from hfnet_export.export import THREADS, OnStep, interleaved
from hfnet_export.networks.crbnet import CRBNetConfig
from hfnet_export.networks.hfnet import INPUT_RANGE
from hfnet_export.networks.weights import BUNDLED_CRBNET, crbnet_from_weights
from hfnet_export.tflite import convert
from hfnet_export.tflite.calibration import BUILT_IN, MAX_PHOTOS, built_in_images, evenly, image_files
from hfnet_export.tflite.convert import FLOAT32, INT8_WEIGHTS, Operator, Rule, named

IMAGE_SIZE = (480, 640)  # of the images made by code
PHOTO_SIDE = 640  # pixels
DETECTED = 500  # keypoints of an image
PER_IMAGE = 64  # of them, strong and weak, whose patches are used: half to calibrate, half to compare
TIMED = 512  # patches
SAID = {
    "none": "all stays float32",
    "fp16": "float16 weights",
    "dynamic": "int8 weights",
    "int8": "all int8 but the first convolution and the output of the last",
}

MIN_COSINE = {"none": 0.9999, "fp16": 0.999, "dynamic": 0.995, "int8": 0.995}
MAX_FLIPPED = {"none": 0.0005, "fp16": 0.002, "dynamic": 0.01, "int8": 0.01}


@dataclass(frozen=True)
class PatchFidelity:
    """How close a network's descriptors are to the float network's.

    Attributes:
        cosine: mean. flipped: share of bits that differ.
    """

    cosine: float
    flipped: float


@dataclass(frozen=True)
class CRBNetReport:
    """What `export_crbnet` wrote and measured.

    Attributes:
        file: the model.
        bytes: its size; ``float_bytes`` that of the same network in float32.
        operators: number of operators by how they compute.
        fidelity: its descriptors against the float network's, on ``compared`` patches.
        patches_per_second: on `export.THREADS` threads; ``float_patches_per_second`` of the float network, same run.
        seconds: for everything.
    """

    file: Path
    bytes: int
    float_bytes: int
    operators: dict[str, int]
    fidelity: PatchFidelity
    compared: int
    patches_per_second: float
    float_patches_per_second: float
    seconds: float


def export_crbnet(
    network: Path = BUNDLED_CRBNET,
    output: Path = Path("crbnet.tflite"),
    quantize: str = "int8",
    calibration: Path | None = None,
    on_step: OnStep = lambda *_: None,
) -> CRBNetReport:
    """Exports CRBNet for phones.

    Args:
        network: weights that `hfnet-train-crbnet` wrote.
        output: the .tflite to write.
        quantize: "none" (float32), "fp16", "dynamic" or "int8", see `rules`.
        calibration: a folder of photos like those whose patches will be described; None: images made by code.

    Raises:
        InputError: an argument, the weights or a photo is not usable.
        ModelError: the conversion went wrong; nothing is written.
        OutputError: ``output`` cannot be written.
    """
    started = time.monotonic()
    check_writable(output)
    if quantize not in convert.RECIPES:
        raise InputError(f"--quantize {quantize} is not known", f"choose one of {', '.join(convert.RECIPES)}")
    origin = "bundled weights" if network == BUNDLED_CRBNET else str(network)
    on_step(1, f"building CRBNet from {origin}")
    model, config, weights_hash = crbnet_from_weights(network)
    parameters = convert.parameter_count(model)
    on_step(2, f"converting {parameters / 1e6:.1f} M weights to float32 TFLite, {config.dim}-D, any number of patches")
    float_content = convert.to_float_tflite(keras.Model(model.input, {PATCH_ROLE: model.output}, name=model.name))
    description = describe(config, weights_hash, "none")
    float_model = _load(convert.embed(float_content, description))

    if calibration is None:
        on_step(3, f"cutting patches from {BUILT_IN} images; photos of the place are better: --calibration DIR")
        images = built_in_images(IMAGE_SIZE)
    else:
        on_step(3, f"cutting patches from up to {MAX_PHOTOS} photos of {calibration}")
        images = _photos(calibration)
    by_image = [patches for patches in map(some_patches, images) if len(patches) >= 2]
    if not by_image:
        raise InputError(f"no keypoints are found in the photos of {calibration}", "give photos of the place")
    inputs = [description.scale(patches[::2]) for patches in by_image]
    compared = np.concatenate([patches[1::2] for patches in by_image])
    reference = float_model.raw(compared)
    original = np.asarray(model(description.scale(compared[:64]), training=False))
    if not np.abs(reference[:64] - original).max() <= 1e-4:  # NaN is wrong too
        raise ModelError("the converted network computes something else than the original", convert.UPGRADE)

    graph = convert.operators(float_content)
    recipe = rules(quantize, graph)
    on_step(4, f"quantizing: {SAID[quantize]}")
    quantized = convert.quantize(float_content, recipe, inputs)
    content = convert.embed(quantized, replace(description, precision=quantize))

    on_step(5, f"checking operators, size, XNNPACK, and descriptors of {len(compared)} patches")
    convert.check_precisions(content, recipe)
    convert.check_size(content, parameters, graph, recipe)
    convert.check_xnnpack(content)
    exported = _load(content)
    measured = fidelity(exported.raw(compared), reference)
    _check_fidelity(measured, quantize)

    on_step(6, f"timing it and the float network, {THREADS} threads")
    timed = np.resize(compared, (TIMED, SIDE, SIDE))
    float_ms, ms = interleaved([float_model, exported], timed)
    with atomic_write(output) as file:
        file.write(content)
    counted = Counter(op.precision for op in convert.operators(content) if op.kind not in ("QUANTIZE", "DEQUANTIZE"))
    return CRBNetReport(
        file=output,
        bytes=len(content),
        float_bytes=len(float_content),
        operators=dict(counted.most_common()),
        fidelity=measured,
        compared=len(compared),
        patches_per_second=1000 * TIMED / ms,
        float_patches_per_second=1000 * TIMED / float_ms,
        seconds=time.monotonic() - started,
    )


def rules(quantize: str, graph: Sequence[Operator]) -> tuple[Rule, ...]:
    """`convert.RECIPES`, in "int8" without the first convolution and with only the weights of the last.

    Share of flipped bits, bundled weights, 1,024 patches of photos, calibrated with images made by code: 1.02 % with
    all in int8, 0.85 % with the last convolution like this, 0.75 % with the first, 0.47 % with both.
    """
    if quantize != "int8":
        return convert.RECIPES[quantize]
    convolutions = [op.name for op in graph if op.kind == "CONV_2D"]
    return (
        *convert.RECIPES["int8"],
        Rule("CONV_2D", FLOAT32, named(convolutions[:1])),
        Rule("CONV_2D", INT8_WEIGHTS, named(convolutions[-1:])),
    )


def describe(config: CRBNetConfig, weights_hash: str, precision: str) -> Description:
    """The description of a CRBNet of this configuration, with the versions of the tools at hand."""
    return Description(
        architecture=f"crbnet-{config.width}",
        weights_hash=weights_hash,
        precision=precision,
        input_size=(SIDE, SIDE),
        input_range=INPUT_RANGE,
        local_dim=config.dim,
        global_dim=0,
        nms_radius=0,
        outputs={PATCH_ROLE: PATCH_ROLE},
        toolchain=convert.toolchain(),
    )


def some_patches(image: np.ndarray) -> np.ndarray:
    """Up to `PER_IMAGE` patches of an image (H, W) uint8, evenly picked from its strong and weak keypoints."""
    found = detect(image, DETECTED)
    return cut(image, found[evenly(len(found), PER_IMAGE)])


def fidelity(ours: np.ndarray, reference: np.ndarray) -> PatchFidelity:
    """Compares descriptors (N, D) float32 of unit length with the float network's."""
    cosine = np.einsum("nd,nd->n", ours.astype(np.float64), reference.astype(np.float64)).mean()
    return PatchFidelity(float(cosine), float(np.mean((ours >= 0) != (reference >= 0))))


def _check_fidelity(measured: PatchFidelity, precision: str) -> None:
    if not (measured.cosine >= MIN_COSINE[precision] and measured.flipped <= MAX_FLIPPED[precision]):
        raise ModelError(
            f"descriptors of the {precision} model agree with the float network to {measured.cosine:.4f}, and "
            f"{100 * measured.flipped:.2f} % of their bits differ; at least {MIN_COSINE[precision]} and at most "
            f"{100 * MAX_FLIPPED[precision]:.2f} % are asked for",
            "give photos of the place with --calibration, or use --quantize none",
        )


def _photos(folder: Path) -> list[np.ndarray]:
    """Up to `MAX_PHOTOS` photos, evenly picked by name: (h, w) uint8 each, without the padding."""
    files = image_files(folder)
    return [load_photo(files[i], (PHOTO_SIDE, PHOTO_SIDE)).image for i in evenly(len(files), MAX_PHOTOS)]


def _load(content: bytes) -> PatchModel:
    with quiet():
        return PatchModel("the new model", THREADS, content)
