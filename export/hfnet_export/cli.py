"""`hfnet-export` and `hfnet-distill`. TensorFlow is imported only once the options are known to be good."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from hfnet_edge.console import progress, reports_errors, run, size_text, wrote
from hfnet_edge.errors import HFNetEdgeError, InputError
from hfnet_edge.files import check_writable
from hfnet_edge.quiet import quiet

if TYPE_CHECKING:
    from hfnet_export.export import ExportReport

export_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
distill_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@export_app.command()
@reports_errors
def export(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.tflite", help="The model to write.")],
    network: Annotated[
        str, typer.Argument(metavar="[hfnet | FILE]", help="`hfnet`, the bundled weights, or an .npz of hfnet-distill.")
    ] = "hfnet",
    quantize: Annotated[
        Literal["none", "fp16", "dynamic", "int8"],
        typer.Option(help="none: float32. fp16: half the size. dynamic: int8 weights. int8: for phones."),
    ] = "int8",
    input_size: Annotated[
        str, typer.Option(metavar="HEIGHTxWIDTH", help="Of the network's input, multiples of 32.")
    ] = "480x640",
    global_dim: Annotated[
        int | None, typer.Option(metavar="N", help="Keep N dimensions of the global descriptor.", min=1)
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photos of the place; without, images made by code.")
    ] = None,
) -> None:
    """Export HF-Net as a .tflite that is checked against the float network and timed.

    Example:

        hfnet-export --quantize int8 -o hfnet_int8.tflite

        hfnet-export run/weights.npz --quantize int8 --calibration photos --input-size 480x640 -o hfnet_int8.tflite
    """
    if not (size := re.fullmatch(r"(\d+)x(\d+)", input_size)):
        raise InputError(f"--input-size {input_size} is not HEIGHTxWIDTH", "write for example 480x640")
    if network != "hfnet" and Path(network).suffix != ".npz":
        raise InputError(
            f"cannot export {network}: this version exports HF-Net weights; Keras and ONNX files come in a later one",
            "give `hfnet` or an .npz that hfnet-distill wrote",
        )
    check_writable(output, network)
    with _export_extra():
        from hfnet_export.export import STEPS, export_hfnet
        from hfnet_export.weights import BUNDLED

    report = export_hfnet(
        BUNDLED if network == "hfnet" else Path(network),
        output,
        quantize,
        (int(size[1]), int(size[2])),
        global_dim,
        calibration,
        on_step=lambda number, what: print(f"{number}/{STEPS} {what}", flush=True),
    )
    _print_report(report, quantize)
    wrote(output, f"hfnet-map build --images DIR --reference COLMAP_MODEL --model {output} -o scene.hfmap")


def _print_report(report: ExportReport, precision: str) -> None:
    table = Table(title=f"against the float network, in {report.seconds:.0f} s", title_justify="left")
    table.add_column("")
    table.add_column("float32", justify="right")
    table.add_column(precision, justify="right")
    table.add_row("size", size_text(report.float_bytes), size_text(report.bytes))
    table.add_row(
        "milliseconds, 2 threads, this machine",
        f"{report.float_milliseconds:.1f}",
        f"{report.milliseconds:.1f} ({report.float_milliseconds / report.milliseconds:.1f}x)",
    )
    table.add_section()
    for how, count in report.operators.items():
        table.add_row(f"operators in {how}", "", str(count))
    table.add_section()
    table.add_row("keypoint scores, correlation", "1", f"{report.fidelity.keypoint_scores:.4f}")
    table.add_row("local descriptors, cosine", "1", f"{report.fidelity.local_descriptors:.4f}")
    table.add_row("global descriptor, cosine", "1", f"{report.fidelity.global_descriptor:.4f}")
    Console().print(table)


@distill_app.command()
@reports_errors
def distill(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Training images; no labels are needed.")],
    local_teacher: Annotated[
        Path, typer.Option(metavar="FILE", help="Detector and descriptor to copy: alike_n.npz, xfeat.onnx.")
    ],
    global_teacher: Annotated[
        Path, typer.Option(metavar="FILE", help="Image descriptor to copy: mobilenetv2_1.0_imagenet.npz.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN_DIR", help="Everything of this run.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps.", min=1)] = 2400,
    batch: Annotated[int, typer.Option(help="Crops per step.", min=1)] = 8,
    crop: Annotated[int, typer.Option(help="Side of the crops, pixels, a multiple of 32.")] = 320,
    crops_per_image: Annotated[int, typer.Option(help="Crops cut from each image.", min=1)] = 2,
    keypoints: Annotated[int, typer.Option(help="Keypoints per crop at which descriptors are taught.", min=1)] = 400,
    learning_rate: Annotated[float, typer.Option(help="Adam's, at its peak.", min=0)] = 1e-3,
    global_dim: Annotated[int, typer.Option(help="Width of the global descriptor.", min=1)] = 512,
    seed: Annotated[int, typer.Option(help="Of crops, order and augmentation.", min=0)] = 0,
) -> None:
    """Teach HF-Net from a local and a global teacher. The same command again resumes a run.

    Example:

        hfnet-distill --images photos --local-teacher alike_n.npz \\
            --global-teacher mobilenetv2_1.0_imagenet.npz -o run
    """
    with _export_extra():
        from hfnet_export.distill import DistillConfig
        from hfnet_export.hfnet import HFNetConfig
        from hfnet_export.runs import run_distillation

    config = DistillConfig(
        network=HFNetConfig(global_dim=global_dim),
        crop=crop,
        crops_per_image=crops_per_image,
        keypoints=keypoints,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
    )
    try:
        with progress() as report:
            weights = run_distillation(images, local_teacher, global_teacher, output, config, report)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint")
        raise typer.Exit(130) from None
    for name in ("losses.png", "losses.csv"):
        if (output / name).exists():
            wrote(output / name)
    wrote(weights, f"hfnet-export {weights} --quantize int8 --calibration {images} -o hfnet_int8.tflite")


@contextmanager
def _export_extra() -> Iterator[None]:
    """Around imports of TensorFlow: quiet, and a missing package is named with its remedy."""
    try:
        with quiet():
            yield
    except ModuleNotFoundError as e:
        raise HFNetEdgeError(f"{e.name} is not installed", "pip install 'hfnet-edge[export]'") from e


def export_main() -> None:
    run(export_app)


def distill_main() -> None:
    run(distill_app)
