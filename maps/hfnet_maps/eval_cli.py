"""`hfnet-eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from hfnet_maps.evaluation.reliability import LOW_WRONG_SHARE, number_text

if TYPE_CHECKING:
    from hfnet_maps.evaluation.report import Judgement

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
    report: Annotated[
        Path | None, typer.Option(metavar="F.jsonl", help="Of the same run; its probabilities are judged too.")
    ] = None,
    reliability: Annotated[
        Path | None, typer.Option(metavar="F.png", help="Calibration, and recall against wrong answers, of --report.")
    ] = None,
) -> None:
    """Measure poses against the true ones. A query without a pose counts as a miss.

    Lengths are in the reference's unit: metres where it is metric.

    Examples:

        hfnet-eval poses.txt --reference sparse/0 --queries queries_with_intrinsics.txt --picture above.png

        hfnet-eval poses.txt --reference sparse/0 --queries q.txt \\
            --report results.jsonl --reliability reliability.png
    """
    from hfnet_maps.build.reference import read_reference
    from hfnet_maps.evaluation.alignment import align as fit
    from hfnet_maps.evaluation.alignment import differ_by_similarity
    from hfnet_maps.evaluation.errors import errors_text, parse_thresholds, plain
    from hfnet_maps.evaluation.errors import evaluate as evaluate_poses
    from hfnet_maps.evaluation.pictures import draw_from_above
    from hfnet_maps.evaluation.reliability_picture import draw_reliability
    from hfnet_maps.evaluation.report import judge, read_report

    if map_ is not None and picture is None:
        raise InputError("--map is only for the picture", "give --picture F.png too")
    if reliability is not None and report is None:
        raise InputError("--reliability draws what --report says", "give --report results.jsonl too")
    files = CommandFiles(poses, queries, map_, report, *model_files(reference))
    if json_ is not None:
        files.writes(json_)
    if picture is not None:
        check_png("--picture", picture, files)
    if reliability is not None:
        check_png("--reliability", reliability, files)
    limits = parse_thresholds(thresholds)
    landmarks = None if map_ is None else LocalizationMap.open(map_)
    names = read_names(queries)  # of whichever list: intrinsics may follow
    found, true = read_poses(poses), read_reference(reference).poses
    evaluation = evaluate_poses(found, true, names, limits)
    said = None if report is None else read_report(report)
    if said is not None:
        said.check(found, names)
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
    judged = None
    if said is not None:
        judged = judge(said, evaluation, 1.0 if alignment is None else alignment.scale)
        show(_reliability_table(judged))
    print("lengths are in the reference's unit: metres where it is metric")
    if json_ is not None:
        fitted = None if alignment is None else {"scale": alignment.scale, "poses": alignment.poses}
        with atomic_write(json_) as file:
            numbers = {"alignment": fitted, **evaluation.as_dict()}
            if judged is not None:
                numbers["reliability"] = judged.as_dict()
            file.write((json.dumps(numbers, indent=1) + "\n").encode())
        wrote(json_)
    if picture is not None:
        draw_from_above(evaluation, found, true, picture, landmarks, alignment)
        wrote(picture)
    if judged is not None and reliability is not None:
        draw_reliability(judged.reliability, reliability, judged.tolerance, judged.rules)
        wrote(reliability)
    again = command("hfnet-eval", poses, "--reference", reference, "--queries", queries, "--thresholds", thresholds)
    if report is not None:
        again += f" {command('--report', report)}"
    closer = None if align else differ_by_similarity(evaluation, found, true)
    drawn = "" if picture is not None else " --picture above.png"
    if report is not None and reliability is None:
        drawn += " --reliability reliability.png"
    if closer is not None:
        print(f"the poses are in another frame or scale than the reference: aligned, their median error is {closer}")
        print(f"next: {again} --align")
    elif drawn:
        print(f"next: {again}{' --align' if align else ''}{drawn}")


def _reliability_table(judged: Judgement) -> Table:
    """What the probabilities were worth, for people."""
    r = judged.reliability
    table = Table(title=f"the probabilities of {r.answers} poses", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("right" if judged.tolerance is None else f"right: within {judged.tolerance}", f"{r.right}")
    table.add_row("expected calibration error", number_text(r.calibration_error))
    table.add_row("area under the ROC", number_text(r.area_under_roc))
    table.add_row(f"recall at {100 * LOW_WRONG_SHARE:g} % wrong answers", f"{100 * r.recall_at(LOW_WRONG_SHARE):.1f} %")
    table.add_row("the least probability there", number_text(r.curve.probability_at(LOW_WRONG_SHARE)))
    for rule, point in judged.rules.items():
        table.add_row(f"recall with {rule}", f"{100 * point.recall:.1f} %")
        table.add_row("wrong answers there", f"{100 * point.wrong_share:.1f} %")
    return table


def evaluate_main() -> None:
    run(main)
