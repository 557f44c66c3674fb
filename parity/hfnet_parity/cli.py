"""`hfnet-parity`."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hfnet_edge.errors import InputError, InstallError
from hfnet_edge.geometry import Pose
from hfnet_edge.record.recording import PREFIXES
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import command, progress, reports_errors, run, wrote
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.lists import read_poses, read_queries
from hfnet_edge.shell.options import MethodOption
from hfnet_edge.shell.tables import PrintableConsole
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.sources.network_files import network_files
from hfnet_maps.build.reference import model_files

if TYPE_CHECKING:
    from hfnet_parity.layers import Layer

main = typer.Typer(
    help="Prove that the device's answer is the reference's, stage by stage, in centimetres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

# The heavy imports (LiteRT, matplotlib, TensorFlow) wait until the options have been checked.


@main.command()
@reports_errors
def record(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the names in --queries are in.")],
    queries: Annotated[Path, typer.Option(metavar="LIST", help="`name MODEL width height params...` a line.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="ref.bundle", help="The bundle, one file.")],
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FLOAT",
            help="A float .tflite; or `hfnet`, an .npz, .keras, .onnx: on a GPU where there is one. "
            "Again for a patch network.",
        ),
    ] = None,
    map_: Annotated[Path | None, typer.Option("--map", metavar="M.hfmap", help="The place.")] = None,
    from_hloc: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="In place of --model and --map: hloc's features, global features, poses."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="MODEL|POSES.txt", help="True poses: the report then has recall and medians.")
    ] = None,
    thresholds: Annotated[
        str,
        typer.Option(metavar='"M,DEG ..."', help="Of each recall: metres, the map's unit taken for one, and degrees."),
    ] = "0.25,2 0.5,5 5,10",
    input_size: Annotated[
        str | None,
        typer.Option(metavar="HEIGHTxWIDTH", help="Of a network that is not a .tflite; default 480x640."),
    ] = None,
    input_range: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="As in hfnet-export, of other networks than hfnet's.")
    ] = None,
    outputs: Annotated[
        str | None, typer.Option(metavar="ROLE=NAME,...", help="As in hfnet-export, of other networks than hfnet's.")
    ] = None,
    method: MethodOption = "hierarchical",
) -> None:
    """Record what the reference makes of each query, for runs elsewhere to be compared with.

    Example:

        hfnet-parity record --model hfnet_float.tflite --map scene.hfmap --images photos --queries queries.txt \\
            --reference sparse/0 -o ref.bundle

        hfnet-parity record --from-hloc outputs --images photos --queries queries.txt -o ref.bundle

        hfnet-parity record --method parallel --model hfnet_float.tflite --model crbnet_float.tflite \\
            --map scene.hfmap --images photos --queries queries.txt -o ref.bundle
    """
    models = model or []
    if (from_hloc is None) == (not models) or (not models) != (map_ is None):
        raise InputError("the reference is not named", "give either --model and --map, or --from-hloc")
    if not os.path.isdir(images):
        raise InputError(f"there is no folder {images}", "check --images")
    own = (input_size, input_range, outputs)
    if from_hloc is not None and any(option is not None for option in own):
        raise InputError("--input-size, --input-range and --outputs are not for --from-hloc", "leave them out")
    size = None if input_size is None else re.fullmatch(r"(\d+)x(\d+)", input_size)
    if input_size is not None and size is None:
        raise InputError(f"--input-size {input_size} is not HEIGHTxWIDTH", "write for example 480x640")
    if from_hloc is not None:
        needs("maps", "h5py")
    listed = read_queries(queries)
    files = CommandFiles(queries, map_, reference, *(images / name for name, _ in listed))
    for name in models:
        files.reads(*network_files(name))
    if reference is not None:
        files.reads(*model_files(reference))
    if from_hloc is not None:
        from hfnet_parity.hloc_results import result_files

        files.reads(*result_files(from_hloc))
    files.writes(output)
    from hfnet_export.cli import parse_range
    from hfnet_export.sources.roles import parse_outputs
    from hfnet_maps.evaluation.errors import parse_thresholds
    from hfnet_parity.record import load_network, record_hloc
    from hfnet_parity.record import record as record_bundle

    limits = parse_thresholds(thresholds)
    truth = None if reference is None else _true_poses(reference)
    if from_hloc is not None:
        recording = record_hloc(from_hloc, images, listed, output, truth, limits)
    else:
        assert map_ is not None
        low_high = None if input_range is None else parse_range(input_range)
        named = None if outputs is None else parse_outputs(outputs)
        pixels = None if size is None else (int(size[1]), int(size[2]))
        networks = [load_network(name, pixels, low_high, named) for name in models]
        with progress() as report:
            recording = record_bundle(networks, map_, images, listed, output, truth, limits, report, method)
    localized = sum(q.pose is not None for q in recording.queries)
    print(f"{localized} of {len(recording.queries)} queries localized on {recording.about['processor']}")
    precisions = [value for key, value in recording.about.items() if key.endswith("precision")]
    if set(precisions) != {"none"}:
        print(f"this reference is in {' and '.join(precisions)}, not in float: for the same model on other machines")
    if truth is None:
        print("without --reference the report has no recall and no medians, and the bundle is no gate for hfnet-export")
    named = {"": "M.tflite", "patch_": "P.tflite", "scene_": "scene.tflite"}
    letters = [named[of] for of in PREFIXES if f"{of}weights_hash" in recording.about]
    ships = (*(part for letter in letters for part in ("--model", letter)), "--map", map_ or "M.hfmap")
    wrote(output, command("hfnet-parity", "run", output, *ships, "--html", "report.html"))


@main.command("run")
@reports_errors
def run_(
    bundle: Annotated[Path, typer.Argument(metavar="ref.bundle", help="From `hfnet-parity record`.")],
    model: Annotated[
        list[Path], typer.Option(metavar="M.tflite", help="The network that ships; again for each further.")
    ],
    map_: Annotated[Path, typer.Option("--map", metavar="M.hfmap", help="The map that ships.")],
    backend: Annotated[
        Literal["host", "arm64", "jvm", "jvm-arm64", "adb"],
        typer.Option(
            help="arm64: emulated, with and without dot-product instructions. jvm: the library for the JVM, on this "
            "machine; jvm-arm64: emulated. adb: a device."
        ),
    ] = "host",
    device: Annotated[str | None, typer.Option(metavar="SERIAL", help="With adb, where there are several.")] = None,
    device_python: Annotated[
        str | None, typer.Option(metavar="CMD", help="With adb: a Python on the device that has the packages.")
    ] = None,
    tolerances: Annotated[
        Path | None, typer.Option(metavar="F.toml", help="Replaces limits of the built-in tolerances.toml.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="F.html", help="The report as one file, with pictures.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="F", help="All numbers, per query too.")] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the bundle's, which it has to be.")
    ] = None,
) -> None:
    """Run the bundle's queries somewhere, and say at which stage the result leaves its tolerance.

    Exit code 0: all stages hold. 1: one does not, as a gate in a CI needs it. 2: it could not be run.

    Example:

        hfnet-parity run ref.bundle --model hfnet_int8.tflite --map packed.hfmap --html report.html

        hfnet-parity run ref.bundle --model hfnet_int8.tflite --map packed.hfmap --backend arm64

        hfnet-parity run ref.bundle --model hfnet_int8.tflite --model crbnet_int8.tflite --map scene.hfmap
    """
    files = CommandFiles(bundle, *model, map_, tolerances)
    for path in (html, json_):
        if path is not None:
            files.writes(path)
    if html is not None:
        needs("parity", "jinja2")
    from hfnet_device.machines import machines
    from hfnet_parity.bundle import Bundle
    from hfnet_parity.report import print_report, to_json
    from hfnet_parity.run import judge, layers_of, run_on
    from hfnet_parity.tolerances import read_tolerances

    available = machines(backend, device, device_python)
    read_tolerances("quantized", tolerances)  # a bad file is found before the run
    reference = Bundle.read(bundle)
    verdicts, when = [], datetime.now(UTC)
    with progress() as report:
        for machine in available:
            recording = run_on(machine, reference, model, map_, report, method)
            verdicts.append(judge(reference, recording, map_, machine.name, tolerances))
    layers: tuple[Layer, ...] = ()
    try:
        layers = layers_of(reference, model)
    except InstallError as e:
        print(f"without the layers' signal to noise: {e}")
    console = PrintableConsole()
    for verdict in verdicts:
        print_report(verdict, layers, console)
    if json_ is not None:
        with atomic_write(json_) as file:
            file.write((json.dumps(to_json(verdicts, layers), indent=1) + "\n").encode())
        wrote(json_)
    if html is not None:
        from hfnet_edge.networks.network import description_of
        from hfnet_edge.record.runner import network_names, prefix_of
        from hfnet_parity.html import write_html

        names = network_names([description_of(file) for file in model])
        shipped = {f"{prefix_of(name)}model": file for name, file in zip(names, model, strict=True)} | {"map": map_}
        write_html(html, reference, verdicts, layers, shipped, when)
        wrote(html)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(1)


def _true_poses(path: Path) -> dict[str, Pose]:
    """Of a COLMAP model's folder, or of a list of poses. Raises InputError."""
    if os.path.isdir(path):
        from hfnet_maps.build.reference import read_reference

        return dict(read_reference(path).poses)
    return read_poses(path)


def parity_main() -> None:
    run(main)
