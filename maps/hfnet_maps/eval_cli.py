"""`hfnet-eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hfnet_edge.errors import InputError
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import command, reports_errors, run, wrote
from hfnet_edge.shell.lists import read_names, read_poses
from hfnet_edge.shell.tables import show
from hfnet_edge.shell.writing import atomic_write
from hfnet_maps.build.reference import model_files
from hfnet_maps.evaluation.png import check_png

main = typer.Typer(pretty_exceptions_enable=False)


@main.command()
@reports_errors
def evaluate(
    poses: Annotated[Path, typer.Argument(metavar="poses.txt", help="From `hfnet-localize`.")],
    reference: Annotated[Path, typer.Option(metavar="COLMAP_MODEL", help="Folder with the queries' true poses.")],
    queries: Annotated[Path, typer.Option(metavar="LIST", help="All queries, also those without a pose.")],
    thresholds: Annotated[
        str, typer.Option(metavar='"LENGTH,DEG ..."', help="Of each recall; lengths in the reference's unit.")
    ] = "0.25,2 0.5,5 5,10",
    json_: Annotated[Path | None, typer.Option("--json", metavar="F", help="All numbers, per query too.")] = None,
    picture: Annotated[Path | None, typer.Option(metavar="F.png", help="The place from above.")] = None,
    map_: Annotated[Path | None, typer.Option("--map", metavar="M.hfmap", help="Its landmarks, in --picture.")] = None,
    align: Annotated[
        bool, typer.Option("--align", help="First fit a similarity: the map has another frame or scale.")
    ] = False,
) -> None:
    """Measure poses against the true ones. A query without a pose counts as a miss.

    Lengths are in the reference's unit: metres where it is metric.

    Example:

        hfnet-eval poses.txt --reference sparse/0 --queries queries_with_intrinsics.txt --picture above.png
    """
    from hfnet_maps.build.reference import read_reference
    from hfnet_maps.evaluation.alignment import align as fit
    from hfnet_maps.evaluation.alignment import differ_by_similarity
    from hfnet_maps.evaluation.errors import errors_text, parse_thresholds, plain
    from hfnet_maps.evaluation.errors import evaluate as evaluate_poses
    from hfnet_maps.evaluation.pictures import draw_from_above

    if map_ is not None and picture is None:
        raise InputError("--map is only for the picture", "give --picture F.png too")
    files = CommandFiles(poses, queries, map_, *model_files(reference))
    if json_ is not None:
        files.writes(json_)
    if picture is not None:
        check_png("--picture", picture, files)
    limits = parse_thresholds(thresholds)
    landmarks = None if map_ is None else LocalizationMap.open(map_)
    names = read_names(queries)  # of whichever list: intrinsics may follow
    found, true = read_poses(poses), read_reference(reference).poses
    evaluation = evaluate_poses(found, true, names, limits)
    alignment = None
    if align:
        alignment = fit(found, true, names)
        found = {name: alignment.pose(pose) for name, pose in found.items()}
        evaluation = evaluate_poses(found, true, names, limits)
        print(f"aligned with the reference by {alignment.poses} poses: scale {plain(alignment.scale, 6)}")

    table = Table(title=f"{len(names)} queries, {evaluation.abstentions} without a pose", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for threshold, recall in zip(limits, evaluation.recalls, strict=True):
        table.add_row(f"within {threshold}", f"{100 * recall:.1f} %")
    table.add_row("median error, no pose as infinite", errors_text(*evaluation.median))
    if evaluation.abstentions:
        table.add_row("median error of the localized", errors_text(*evaluation.median_localized))
    show(table)
    print("lengths are in the reference's unit: metres where it is metric")
    if json_ is not None:
        fitted = None if alignment is None else {"scale": alignment.scale, "poses": alignment.poses}
        with atomic_write(json_) as file:
            file.write((json.dumps({"alignment": fitted, **evaluation.as_dict()}, indent=1) + "\n").encode())
        wrote(json_)
    if picture is not None:
        draw_from_above(evaluation, found, true, picture, landmarks, alignment)
        wrote(picture)
    again = command("hfnet-eval", poses, "--reference", reference, "--queries", queries, "--thresholds", thresholds)
    closer = None if align else differ_by_similarity(evaluation, found, true)
    if closer is not None:
        print(f"the poses are in another frame or scale than the reference: aligned, their median error is {closer}")
        print(f"next: {again} --align")
    elif picture is None:
        print(f"next: {again}{' --align' if align else ''} --picture above.png")


def evaluate_main() -> None:
    run(main)
