"""`hfnet-map` and `hfnet-eval`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hfnet_edge.console import progress, reports_errors, run, size_text, wrote
from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.files import atomic_write, check_writable
from hfnet_edge.lists import read_names, read_poses
from hfnet_edge.map_file import LocalizationMap, map_bytes, read_table

main = typer.Typer(
    help="Build and look into maps for localization on the device.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
eval_main = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# The heavy imports (pycolmap, LiteRT, matplotlib) wait until the options have been checked.


@main.command()
@reports_errors
def build(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the names in --list are in.")],
    reference: Annotated[Path, typer.Option(metavar="COLMAP_MODEL", help="Folder with their cameras and poses.")],
    list_: Annotated[Path, typer.Option("--list", metavar="map.txt", help="Reference images, one name a line.")],
    model: Annotated[Path, typer.Option(metavar="M.tflite", help="The network, from `hfnet-export`.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="scene.hfmap", help="The map.")],
) -> None:
    """Build a map from images with known poses.

    Example:

        hfnet-map build --images photos --reference sparse/0 --list map.txt --model hfnet_int8.tflite -o scene.hfmap
    """
    check_writable(output, list_, model)
    if not images.is_dir():
        raise InputError(f"there is no folder {images}", "check --images")
    names = read_names(list_)
    from hfnet_edge.model import Model
    from hfnet_maps.build import build_map
    from hfnet_maps.writer import write_map

    with progress() as report:
        m, built = build_map(images, reference, names, Model(model), report)
    write_map(m, output)
    table = Table(title="What came of it", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("reference images", f"{built.images}")
    table.add_row("keypoints", f"{built.keypoints}")
    table.add_row("image pairs matched, agreeing with the poses", f"{built.pairs_tried}, {built.pairs_verified}")
    table.add_row("verified matches", f"{built.matches}")
    table.add_row("landmarks", f"{built.landmarks}")
    table.add_row("observations", f"{built.observations}, {built.mean_track_length:.1f} per landmark")
    table.add_row("median reprojection error", f"{built.median_error:.2f} network pixels")
    table.add_row("seconds", ", ".join(f"{stage} {s:.1f}" for stage, s in built.seconds.items()))
    Console().print(table)
    blind = [n for i, n in enumerate(m.image_names) if m.observations(i).start == m.observations(i).stop]
    if blind:
        print(f"{len(blind)} images see no landmark, first {blind[0]}: is the pose wrong, or nothing shared?")
    wrote(
        output,
        f"hfnet-localize --map {output} --model {model} --images {images} --queries LIST -o poses.txt",
    )


@main.command()
@reports_errors
def inspect(path: Annotated[Path, typer.Argument(metavar="MAP", help="From `hfnet-map build`.")]) -> None:
    """Show what a map holds and what its bytes are spent on.

    Example:

        hfnet-map inspect scene.hfmap
    """
    m = LocalizationMap.open(path)
    with map_bytes(path) as data:
        total = len(data)
        entries = read_table(memoryview(data).toreadonly(), str(path))
    d = m.description
    print(f"{path}: {size_text(total)}, made by {d.generator}")
    print(f"extractor: {d.architecture} ({d.precision}), weights {d.weightsHash}")
    print(f"descriptors: local {d.localDim}-D int8, global {d.globalDim}-D int8")
    print(f"{d.imageCount} images, {d.landmarkCount} landmarks, {d.observationCount} observations")
    table = Table()
    table.add_column("section")
    for heading in ("bytes", "share", "per landmark", "per image"):
        table.add_column(heading, justify="right")
    rest = total - sum(entry.length for entry in entries)
    for name, length in [*((e.name, e.length) for e in entries), ("header and padding", rest), ("in all", total)]:
        if name == "in all":
            table.add_section()
        per_landmark, per_image = (
            f"{length / count:.1f}" if count else "" for count in (d.landmarkCount, d.imageCount)
        )
        table.add_row(name, f"{length}", f"{100 * length / total:.1f} %", per_landmark, per_image)
    Console().print(table)
    print(f"next: hfnet-localize --map {path} --model M.tflite --images DIR --queries LIST -o poses.txt")


@main.command()
@reports_errors
def example(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A folder that is not there yet.")],
) -> None:
    """Draw a made place: photos, their true poses, and lists, to try everything on.

    Example:

        hfnet-map example -o place
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} is there already and not an empty folder", "name a new folder")
    check_writable(output.with_name(f"{output.name} "))  # the folder above
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    from hfnet_maps.made_place import write_place

    try:
        with progress() as report:
            write_place(unfinished, progress=lambda done, total: report("photographing", done, total))
        unfinished.replace(output)
    except OSError as e:
        raise OutputError(
            f"cannot write {output}: {e.strerror or e}", "check the folder, permissions, free space"
        ) from e
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    wrote(
        output,
        f"hfnet-map build --images {output}/images --reference {output}/reference --list {output}/map.txt "
        f"--model M.tflite -o {output}/map.hfmap",
    )


@eval_main.command()
@reports_errors
def evaluate(
    poses: Annotated[Path, typer.Argument(metavar="poses.txt", help="From `hfnet-localize`.")],
    reference: Annotated[Path, typer.Option(metavar="COLMAP_MODEL", help="Folder with the queries' true poses.")],
    queries: Annotated[Path, typer.Option(metavar="LIST", help="All queries, also those without a pose.")],
    thresholds: Annotated[
        str, typer.Option(metavar='"M,DEG ..."', help="Metres and degrees of each recall.")
    ] = "0.25,2 0.5,5 5,10",
    json_: Annotated[Path | None, typer.Option("--json", metavar="F", help="All numbers, per query too.")] = None,
    picture: Annotated[Path | None, typer.Option(metavar="F.png", help="The place from above.")] = None,
    map_: Annotated[Path | None, typer.Option("--map", metavar="M.hfmap", help="Its landmarks, in --picture.")] = None,
) -> None:
    """Measure poses against the true ones. A query without a pose counts as a miss.

    Example:

        hfnet-eval poses.txt --reference sparse/0 --queries queries_with_intrinsics.txt --picture above.png
    """
    from hfnet_maps.evaluation import draw_from_above, parse_thresholds
    from hfnet_maps.evaluation import evaluate as evaluate_poses
    from hfnet_maps.reference import read_reference

    if map_ is not None and picture is None:
        raise InputError("--map is only for the picture", "give --picture F.png too")
    inputs = (poses, queries, map_)
    if json_ is not None:
        check_writable(json_, *inputs)
    if picture is not None:
        check_writable(picture, *inputs, json_)
    if picture is not None and picture.suffix.lower() != ".png":
        raise InputError(f"--picture {picture} is not a .png", "give a name that ends in .png")
    limits = parse_thresholds(thresholds)
    m = None if map_ is None else LocalizationMap.open(map_)
    names = read_names(queries)  # of whichever list: intrinsics may follow
    found, true = read_poses(poses), read_reference(reference).poses
    evaluation = evaluate_poses(found, true, names, limits)

    table = Table(title=f"{len(names)} queries, {evaluation.abstentions} without a pose", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for threshold, recall in zip(limits, evaluation.recalls, strict=True):
        table.add_row(f"within {threshold}", f"{100 * recall:.1f} %")
    table.add_row("median error, no pose as infinite", _lengths(evaluation.median))
    if evaluation.abstentions:
        table.add_row("median error of the localized", _lengths(evaluation.median_localized))
    Console().print(table)
    if json_ is not None:
        with atomic_write(json_) as file:
            file.write((json.dumps(evaluation.as_dict(), indent=1) + "\n").encode())
        wrote(json_)
    if picture is not None:
        draw_from_above(evaluation, found, true, picture, m)
        wrote(picture)
    else:
        print(f"next: hfnet-eval {poses} --reference {reference} --queries {queries} --picture above.png")


def _lengths(errors: tuple[float, float]) -> str:
    return f"{errors[0]:.3f} m, {errors[1]:.3f}°"


def map_main() -> None:
    run(main)


def evaluate_main() -> None:
    run(eval_main)
