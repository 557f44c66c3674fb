"""`hfnet-bench`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from hfnet_edge.errors import InputError
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import progress, reports_errors, run, wrote
from hfnet_edge.shell.lists import find_images, read_queries
from hfnet_edge.shell.options import MethodOption
from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.tables import show
from hfnet_edge.shell.writing import atomic_write

app = typer.Typer(pretty_exceptions_enable=False)

# The heavy imports (LiteRT, OpenCV) wait until the options have been checked.


@app.command()
@reports_errors
def bench(
    model: Annotated[
        list[Path],
        typer.Option(
            metavar="M.tflite", help="Once or more; ratios are to the first. Networks of other kinds go with each."
        ),
    ],
    map_: Annotated[Path, typer.Option("--map", metavar="M.hfmap", help="The place.")],
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the queries.")],
    queries: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="`name MODEL width height params...` a line; default: all images."),
    ] = None,
    backend: Annotated[
        Literal["host", "adb", "arm64"],
        typer.Option(help="adb: a device. arm64, which is emulated, is refused."),
    ] = "host",
    device: Annotated[str | None, typer.Option(metavar="SERIAL", help="With adb, where there are several.")] = None,
    device_python: Annotated[
        str | None, typer.Option(metavar="CMD", help="With adb: a Python on the device that has the packages.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="How often each measurement is repeated.", min=1, max=1000)] = 3,
    json_: Annotated[Path | None, typer.Option("--json", metavar="F", help="All numbers, per query too.")] = None,
    method: MethodOption = "hierarchical",
) -> None:
    """Measure what a query costs: milliseconds and bytes read of each stage, and peak memory, on one and two threads.

    Examples:

        hfnet-bench --model hfnet_int8.tflite --model hfnet_float.tflite --map scene.hfmap --images photos \\
            --queries queries.txt

        hfnet-bench --model hfnet_int8.tflite --map scene.hfmap --images photos --backend adb

        hfnet-bench --method parallel --model hfnet_int8.tflite --model crbnet_int8.tflite --map scene.hfmap \\
            --images photos --queries queries.txt
    """
    if backend == "arm64":
        raise InputError(
            "--backend arm64 is emulated: its milliseconds would be the emulator's, not those of any ARM processor",
            "use --backend adb with a device, or hfnet-bench on the ARM machine itself",
        )
    if not os.path.isdir(images):
        raise InputError(f"there is no folder {images}", "check --images")
    from hfnet_device.machines import machines
    from hfnet_parity.bench import guess_cameras, is_busy, measure, tables, to_json

    listed = guess_cameras(images) if queries is None else read_queries(queries)
    files = find_images(images, (name for name, _ in listed))
    if json_ is not None:
        CommandFiles(*model, map_, queries, *files.values()).writes(json_)
    (machine,) = machines(backend, device, device_python)
    with progress() as report:
        todo = [(name, files[name], camera) for name, camera in listed]
        measured = measure(machine, model, map_, todo, rounds, report, method)
    first = measured[0].runs[0]
    print(printable(f"{machine.name}: {first.processor}, {first.cores} cores, {first.machine}"))
    kernels = printable(f"kernels: {first.kernels}, solver: {first.solver}")
    print(f"rounds: {rounds}, queries: {len(listed)}, {kernels}")
    if first.patch_precision:
        print(printable(f"method: {first.method}, patch network: {measured[0].patches} ({first.patch_precision})"))
    for table in tables(measured):
        show(table)
    print("a query is timed when it has been localized once: the map's blocks are in memory, and checked")
    if queries is None:
        print("cameras were guessed (focal length 1.2 times the longer side): poses mean nothing, give --queries")
    if is_busy(measured):
        print("the machine was busy (load average above its cores): ratios hold, milliseconds do not")
    if json_ is not None:
        with atomic_write(json_) as file:
            file.write((json.dumps(to_json(measured, machine.name, queries is None), indent=1) + "\n").encode())
        wrote(json_)


def bench_main() -> None:
    run(app)
