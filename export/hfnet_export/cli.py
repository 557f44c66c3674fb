"""`hfnet-export`, `hfnet-distill`, `hfnet-train-crbnet` and `hfnet-train-densernet`.

TensorFlow is imported only once the options are known to be good.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hfnet_edge.errors import InputError, InstallError
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import INTERRUPTED, Report, command, progress, reports_errors, run, size_text, wrote
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.tables import show
from hfnet_export.extra import export_extra, readers_of
from hfnet_export.networks.weights_card import network_of
from hfnet_export.sources.network_files import network_files
from hfnet_export.sources.roles import parse_outputs

if TYPE_CHECKING:
    from hfnet_export.export import ExportReport
    from hfnet_export.tflite.autopilot import Attempt, Judge

OpenGate = Callable[[Path, str], "Judge"]
"""From a bundle and what may be lost to a gate. Raises HFNetEdgeError."""

MAX_LOSS = "1pt, 1.1x"
INPUT_SIZE = "480x640"

OF_KIND = {"hfnet": "HF-Net", "crbnet": "a patch network", "densernet": "a retrieval network"}

export_app = typer.Typer(pretty_exceptions_enable=False)
distill_app = typer.Typer(pretty_exceptions_enable=False)
train_crbnet_app = typer.Typer(pretty_exceptions_enable=False)
train_densernet_app = typer.Typer(pretty_exceptions_enable=False)


@export_app.command()
@reports_errors
def export(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.tflite", help="The model to write.")],
    network: Annotated[
        str,
        typer.Argument(
            metavar="[hfnet | crbnet | densernet | FILE]",
            help="`hfnet`, `crbnet` or `densernet`, the bundled weights; an .npz of hfnet-distill, hfnet-train-crbnet "
            "or hfnet-train-densernet; a .keras, .h5, .onnx or SavedModel of an HF-Net.",
        ),
    ] = "hfnet",
    quantize: Annotated[
        Literal["none", "fp16", "dynamic", "int8"],
        typer.Option(help="none: float32. fp16: half the size. dynamic: int8 weights. int8: for phones."),
    ] = "int8",
    input_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help=f"Of the network's input, multiples of 32; default {INPUT_SIZE}.",
        ),
    ] = None,
    global_dim: Annotated[
        int | None, typer.Option(metavar="N", help="Keep N dimensions of the global descriptor.", min=1)
    ] = None,
    pca: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Reference photos of the place, whose PCA decides the N.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Photos of the place; without, images made by code.")
    ] = None,
    input_range: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="What your HF-Net takes for black and white: 0,255 or 0,1 or -1,1."),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE=NAME,...",
            help="Outputs of your HF-Net: scores, logits, local_descriptors, global_descriptor.",
        ),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE",
            help="Keep in float what int8 needs to pass this reference (hfnet-parity record); writes OUT.recipe.json.",
        ),
    ] = None,
    max_loss: Annotated[
        str | None,
        typer.Option(
            metavar="LOSS", help=f'Against the reference: points of recall, factor of medians; default "{MAX_LOSS}".'
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Repeat OUT.recipe.json: the same network, size and calibration."),
    ] = None,
) -> None:
    """Export HF-Net, the patch network CRBNet or the retrieval network DenserNet as a .tflite that is checked against
    the float network and timed.

    Example:

        hfnet-export --quantize int8 -o hfnet_int8.tflite

        hfnet-export run/weights.npz --quantize int8 --calibration photos --input-size 480x640 -o hfnet_int8.tflite

        hfnet-export mine.onnx --input-range 0,255 --quantize int8 --calibration photos -o mine_int8.tflite

        hfnet-export --quantize int8 --gate scene.bundle --max-loss "1pt, 1.1x" -o hfnet_int8.tflite

        hfnet-export --quantize int8 --recipe hfnet_int8.recipe.json -o again_int8.tflite

        hfnet-export crbnet --quantize int8 -o crbnet_int8.tflite

        hfnet-export densernet --quantize int8 --global-dim 256 -o densernet_int8.tflite
    """
    kind = network if network in OF_KIND else network_of(Path(network))
    of_image = {"--input-size": input_size, "--global-dim": global_dim}
    of_hfnet = {
        "--pca": pca, "--input-range": input_range, "--outputs": outputs,
        "--gate": gate, "--max-loss": max_loss, "--recipe": recipe,
    }  # fmt: skip
    refused = {"hfnet": (), "densernet": (of_hfnet,), "crbnet": (of_image, of_hfnet)}[kind]
    if given := [option for options in refused for option, value in options.items() if value is not None]:
        raise InputError(f"{OF_KIND[kind]} does not take {', '.join(given)}", "leave it out")
    size = parse_size(input_size or INPUT_SIZE)
    if kind != "hfnet":
        _export_beside(kind, network, output, quantize, size, global_dim, calibration)
        return
    grey = None if input_range is None else parse_range(input_range)
    named = None if outputs is None else parse_outputs(outputs)
    if max_loss is not None and gate is None:
        raise InputError("--max-loss needs a --gate", "record one: hfnet-parity record")
    files = CommandFiles(gate, recipe, *network_files(network))
    for folder in (pca, calibration):
        files.reads_pictures(folder)
    files.writes(output)
    with export_extra(*readers_of(network)):
        from hfnet_export.export import export_hfnet, recipe_path
        from hfnet_export.networks.weights import BUNDLED
        from hfnet_export.tflite.autopilot import GateError

    if gate is not None:
        files.writes(recipe_path(output))
    judge = None if gate is None else _open_gate(context.obj, gate, max_loss or MAX_LOSS)
    try:
        with progress() as show:
            report = export_hfnet(
                BUNDLED if network == "hfnet" else Path(network),
                output,
                quantize,
                size,
                global_dim,
                pca,
                calibration,
                grey,
                named,
                judge,
                recipe,
                on_step=_say_step,
                report=show,
            )
    except GateError as e:
        _print_steps(e.steps)
        raise
    _print_steps(report.steps)
    _print_report(report, quantize)
    if report.recipe is not None:
        wrote(report.recipe)
    inputs = ("--images", "DIR", "--reference", "COLMAP_MODEL", "--model", output)
    wrote(output, command("hfnet-map", "build", *inputs, "-o", "scene.hfmap"))


def parse_size(text: str) -> tuple[int, int]:
    """Of --input-size. Raises InputError."""
    if not (size := re.fullmatch(r"(\d+)x(\d+)", text)):
        raise InputError(f"--input-size {text} is not HEIGHTxWIDTH", "write for example 480x640")
    return int(size[1]), int(size[2])


def _say_step(number: int, what: str) -> None:
    from hfnet_export.export import STEPS

    print(f"{number}/{STEPS} {what}", flush=True)


def _export_beside(
    kind: str,
    network: str,
    output: Path,
    quantize: str,
    size: tuple[int, int],
    global_dim: int | None,
    calibration: Path | None,
) -> None:
    """A network that goes with an HF-Net."""
    files = CommandFiles(*network_files(network))
    files.reads_pictures(calibration)
    files.writes(output)
    with export_extra():
        from hfnet_export.export import export_crbnet, export_densernet
        from hfnet_export.networks.weights import BUNDLED_CRBNET, BUNDLED_DENSERNET

    if kind == "crbnet":
        source = BUNDLED_CRBNET if network == kind else Path(network)
        report = export_crbnet(source, output, quantize, calibration, on_step=_say_step)
    else:
        source = BUNDLED_DENSERNET if network == kind else Path(network)
        report = export_densernet(source, output, quantize, size, global_dim, calibration, on_step=_say_step)
    _print_report(report, quantize)
    method = ("--method", "parallel") if kind == "crbnet" else ()
    inputs = ("--images", "DIR", "--reference", "COLMAP_MODEL", "--model", "M.tflite", "--model", output)
    wrote(output, command("hfnet-map", "build", *method, *inputs, "-o", "scene.hfmap"))


def _open_gate(open_gate: OpenGate | None, bundle: Path, max_loss: str) -> Judge:
    """Who starts the command gives it what opens a gate, as the context's object: the gate looks at the whole pipeline,
    which this package does not know."""
    if open_gate is None:
        raise InstallError("hfnet-parity, which judges a --gate, is not installed", 'pip install "hfnet-edge[parity]"')
    return open_gate(bundle, max_loss)


def _print_steps(steps: Sequence[Attempt]) -> None:
    if not steps:
        return
    table = Table(title="what the gate said (mm: 1/1000 of the map's unit)", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("moved to float", overflow="fold")
    for name in ("agree-\nment", "recall, %", "loses,\npt", "median", "medians,\nx"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", min_width=6)
    for step in steps:
        metres, degrees = step.judgement.median
        table.add_row(
            step.moved,
            f"{min(vars(step.fidelity).values()):.3f}",  # of the output that is worst off
            "\n".join(f"{100 * recall:.1f}" for recall in step.judgement.recalls),
            f"{step.judgement.lost:.1f}",
            f"{1000 * metres:.1f} mm\n{degrees:.3f}°",
            f"{step.judgement.ratio:.3f}\n≥ {step.judgement.ratio_low:.3f}",
            "passed" if step.passed else "too far off" if step.judgement.passed else "failed",
        )
    show(table)


def parse_range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not (math.isfinite(high - low) and low < high):
        raise InputError(f"--input-range {text} is not LOW,HIGH", "write 0,255 or 0,1 or -1,1")
    return low, high


def _print_report(report: ExportReport, precision: str) -> None:
    table = Table(title=f"against the float network, in {report.seconds:.0f} s", title_justify="left")
    table.add_column("")
    table.add_column("float32", justify="right")
    table.add_column(precision, justify="right")
    table.add_row("size", size_text(report.float_bytes), size_text(report.bytes))
    ratio = f"({report.float_milliseconds / report.milliseconds:.1f}x)"
    if report.timed == 1:
        what, before, now = "milliseconds", f"{report.float_milliseconds:.1f}", f"{report.milliseconds:.1f}"
    else:
        rates = (1000 * report.timed / ms for ms in (report.float_milliseconds, report.milliseconds))
        what, before, now = f"{report.unit} a second", *(f"{rate:.0f}" for rate in rates)
    table.add_row(f"{what}, 2 threads, this machine", before, f"{now} {ratio}")
    table.add_section()
    for how, count in report.operators.items():
        table.add_row(f"operators in {how}", "", str(count))
    table.add_section()
    for name, value in asdict(report.fidelity).items():
        table.add_row(f"agreement of {name.replace('_', ' ')}", "1", f"{value:.4f}")
    show(table)


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
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Steps, rates, losses (TOML); default: the bundled weights'.")
    ] = None,
    places: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folders of images/ and model/, a COLMAP model: true views of places."),
    ] = None,
    hold_out: Annotated[str, typer.Option(metavar="PLACE,...", help="Places that are never trained on.")] = "",
) -> None:
    """Teach HF-Net from a local and a global teacher, and its descriptors and hypercolumns from views of the same. The
    same command again resumes a run.

    Example:

        hfnet-distill --images photos --local-teacher alike_n.npz \\
            --global-teacher mobilenetv2_1.0_imagenet.npz --places places -o run
    """
    if places is not None:
        needs("maps", "pycolmap")
    with export_extra("matplotlib", *readers_of(local_teacher)):
        from hfnet_export.training.runs import run_distillation
        from hfnet_export.training.training_recipe import BUNDLED_RECIPE

    with _resumable() as report:
        weights = run_distillation(
            images,
            local_teacher,
            global_teacher,
            output,
            recipe or BUNDLED_RECIPE,
            report,
            places=places,
            hold_out=_names(hold_out),
        )
    for name in ("losses.png", "local.csv", "global.csv", "descriptors.csv", "hypercolumns.csv"):
        wrote(output / name)
    wrote(weights, _export_of(weights, images, "hfnet_int8.tflite"))


@train_crbnet_app.command()
@reports_errors
def train_crbnet(
    scenes: Annotated[Path, typer.Option(metavar="DIR", help="Folders of images/ and model/, a COLMAP model.")],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Photographs, for pairs through homographies.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN_DIR", help="Everything of this run.")],
    hold_out: Annotated[str, typer.Option(metavar="SCENE,...", help="Scenes that are never trained on.")],
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Steps, rate, widths (TOML); default: the bundled weights'.")
    ] = None,
) -> None:
    """Train CRBNet on patches of SfM tracks and of photographs. The same command again resumes a run.

    Example:

        hfnet-train-crbnet --scenes places --images photos --hold-out castle,bridge -o run
    """
    needs("maps", "pycolmap")
    with export_extra("matplotlib"):
        from hfnet_export.training.crbnet_runs import run_crbnet
        from hfnet_export.training.training_recipe import BUNDLED_CRBNET_RECIPE

    names = _names(hold_out)
    with _resumable() as report:
        weights = run_crbnet(scenes, images, names, output, recipe or BUNDLED_CRBNET_RECIPE, report)
    for path in (output / "losses.png", *output.glob("*.csv")):
        wrote(path)
    wrote(weights, _export_of(weights, images, "crbnet_int8.tflite"))


@train_densernet_app.command()
@reports_errors
def train_densernet(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Photographs, for pairs through homographies.")],
    places: Annotated[Path, typer.Option(metavar="DIR", help="Folders of images/ and model/, a COLMAP model.")],
    hold_out: Annotated[str, typer.Option(metavar="PLACE,...", help="Places that are never trained on.")],
    encoder: Annotated[Path, typer.Option(metavar="FILE", help="What it begins as: mobilenetv2_1.0_imagenet.npz.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN_DIR", help="Everything of this run.")],
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Steps, rate, widths (TOML); default: the bundled weights'.")
    ] = None,
) -> None:
    """Train DenserNet, which retrieves, on which photographs show the same. The same command again resumes a run.

    Example:

        hfnet-train-densernet --images photos --places places --hold-out bridge \\
            --encoder mobilenetv2_1.0_imagenet.npz -o run
    """
    needs("maps", "pycolmap")
    with export_extra("matplotlib"):
        from hfnet_export.training.densernet_runs import run_densernet
        from hfnet_export.training.training_recipe import BUNDLED_DENSERNET_RECIPE

    with _resumable() as report:
        weights = run_densernet(
            images, places, _names(hold_out), encoder, output, recipe or BUNDLED_DENSERNET_RECIPE, report
        )
    for path in (output / "losses.png", *output.glob("*.csv")):
        wrote(path)
    wrote(weights, _export_of(weights, images, "densernet_int8.tflite"))


@contextmanager
def _resumable() -> Iterator[Report]:
    """The progress of a training run, which Ctrl-C ends with a word on how it goes on."""
    try:
        with progress() as report:
            yield report
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint")
        raise typer.Exit(INTERRUPTED) from None


def _names(listed: str) -> list[str]:
    """Of a list with commas."""
    return [name.strip() for name in listed.split(",") if name.strip()]


def _export_of(weights: Path, images: Path, model: str) -> str:
    """The command that exports what was trained."""
    return command("hfnet-export", weights, "--quantize", "int8", "--calibration", images, "-o", model)


def export_main(open_gate: OpenGate | None = None) -> None:
    """Runs `hfnet-export`; ``open_gate`` is for its option --gate."""
    run(export_app, open_gate)


def distill_main() -> None:
    run(distill_app)


def train_crbnet_main() -> None:
    run(train_crbnet_app)


def train_densernet_main() -> None:
    run(train_densernet_app)
