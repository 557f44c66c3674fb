"""`hfnet-localize`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated

import cv2
import typer
from rich.table import Table

from hfnet_edge.errors import HFNetEdgeError, ImageError, InputError, OutputError
from hfnet_edge.geometry import Camera
from hfnet_edge.hloc import HlocLocalizer
from hfnet_edge.localizer import Localizer
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.by_role import open_network
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell.command_files import CommandFiles, names_below
from hfnet_edge.shell.console import INTERRUPTED, command, progress, reports_errors, run, say, wrote
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.lists import find_images, pose_line, read_queries
from hfnet_edge.shell.options import MethodOption
from hfnet_edge.shell.tables import show
from hfnet_edge.shell.writing import streamed_write

PICTURES = "name another for --pictures"

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
@reports_errors
def localize(
    map_: Annotated[Path, typer.Option("--map", metavar="M.hfmap", help="The place, from `hfnet-map build`.")],
    model: Annotated[
        list[Path] | None,
        typer.Option(metavar="M.tflite", help="A network of `hfnet-export`; again for each further. Or --features."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that the names in --queries are in.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="`name MODEL width height params...` a line, as in hloc."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="POSES.txt", help="Poses found; until the end, in POSES.txt.part."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="F.jsonl", help="One JSON line per query.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="ONE.jpg", help="One photo instead of a list.")] = None,
    camera: Annotated[
        str | None, typer.Option(metavar='"PINHOLE w h fx fy cx cy"', help="The camera of --image.")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw each query with its inliers.")] = None,
    threads: Annotated[int, typer.Option(help="Of the network. The poses do not depend on it.", min=1, max=64)] = 2,
    method: MethodOption = "hierarchical",
    features: Annotated[
        Path | None, typer.Option(metavar="features.h5", help="In place of --model: hloc's local features, ...")
    ] = None,
    global_features: Annotated[
        Path | None, typer.Option(metavar="global-feats.h5", help="... and its global ones.")
    ] = None,
) -> None:
    """Find the camera's pose in a mapped place.

    Examples:

        hfnet-localize --map scene.hfmap --model hfnet_int8.tflite --images photos --queries q.txt -o poses.txt

        hfnet-localize --map scene.hfmap --model hfnet_int8.tflite --image a.jpg \\
            --camera "PINHOLE 640 480 500 500 320 240"

        hfnet-localize --method parallel --map scene.hfmap --model hfnet_int8.tflite --model crbnet_int8.tflite \\
            --images photos --queries q.txt -o poses.txt

        hfnet-localize --map packed.hfmap --features features.h5 --global-features global-feats.h5 --queries q.txt \\
            -o poses.txt
    """
    by_features = features is not None or global_features is not None
    networks = model or []
    if by_features and (features is None or global_features is None or networks):
        raise InputError(
            "--features and --global-features go together, without --model", "give hloc's two files, or the networks"
        )
    if not by_features and not networks:
        raise InputError("there is no --model", "name the network, or hloc's files with --features, --global-features")
    if by_features and (image is not None or (images is None) != (pictures is None)):
        raise InputError(
            "--features is for --queries, with --images only for --pictures", "leave --image or --images out"
        )
    if (image is None) == (queries is None):
        raise InputError("there is nothing to localize, or too much", "give either --queries and --images, or --image")
    if image is not None:
        if camera is None or images is not None:
            raise InputError("--image needs --camera alone", 'write --camera "PINHOLE width height fx fy cx cy"')
        if not os.path.isfile(image):
            raise ImageError(f"there is no image {image}", "check --image")
        todo, folder = [(image.name, Camera.parse(camera))], image.parent
    else:
        if (images is None and not by_features) or output is None or camera is not None:
            raise InputError(
                "--queries needs --images and -o, without --camera",
                "give the folder of the queries and the file for the poses",
            )
        if images is not None and not os.path.isdir(images):
            raise InputError(f"there is no folder {images}", "check --images")
        todo, folder = read_queries(queries or Path()), images or Path()
    files = CommandFiles(map_, *networks, queries, features, global_features)
    if image is not None or images is not None:
        files.reads(*(folder / name for name, _ in todo))
    for path in (output, report):
        if path is not None:
            files.writes(path, streamed=True)
    if pictures is not None and os.path.realpath(pictures) == os.path.realpath(folder):
        raise InputError(f"--pictures {pictures} is the folder of the photos", "name another, or they are overwritten")
    drawn = {} if pictures is None else _pictures(pictures, [name for name, _ in todo], files)

    config = LocalizationConfig(method)
    localizer: Localizer | HlocLocalizer
    if features is not None and global_features is not None:
        needs("maps", "h5py")
        localizer = HlocLocalizer(map_, features, global_features, config)
    else:
        localizer = Localizer(map_, *(open_network(file, threads) for file in networks), config=config)

    def pose_of(name: str, one_camera: Camera) -> LocalizationResult:
        """Of one query, whichever way its features come."""
        if isinstance(localizer, HlocLocalizer):
            return localizer.localize(name, one_camera)
        return localizer.localize(folder / name, one_camera)

    if image is not None or images is not None:
        find_images(folder, (name for name, _ in todo))
    outcome = Outcome(len(todo))
    result: LocalizationResult | None = None
    with ExitStack() as streams, progress() as bar:
        write_pose, write_report = (
            ignore if path is None else streams.enter_context(streamed_write(path)) for path in (output, report)
        )
        try:
            for done, (name, one_camera) in enumerate(todo):
                bar("localizing", done, len(todo))
                try:
                    result = pose_of(name, one_camera)
                except FAILURES as e:  # one query's failure is not the others'
                    outcome.failed.append(typed(e))
                    write_report(json.dumps(failure_line(name, outcome.failed[-1])))
                    continue
                outcome.statuses[result.status] += 1
                outcome.milliseconds.append(result.milliseconds)
                write_pose(*() if result.pose is None else (pose_line(name, result.pose),))
                write_report(json.dumps(report_line(name, result, localizer.map.image_names)))
                if name in drawn:
                    try:
                        _draw(folder / name, one_camera, result, drawn[name])
                    except FAILURES as e:
                        outcome.undrawn.append(typed(e))
            bar("localizing", len(todo), len(todo))
        except KeyboardInterrupt:
            outcome.stopped = True

    if result is not None:
        if len(todo) == 1:
            _print_result(todo[0][0], result)
        outcome.print()
    for path in (report, pictures):
        if path is not None and os.path.exists(path):
            wrote(path)
    if output is not None and result is not None:
        wrote(output, command("hfnet-eval", output, "--reference", "COLMAP_MODEL", "--queries", queries or "LIST"))
    outcome.leave()
    if image is not None and not outcome.localized:
        raise typer.Exit(1)


def ignore(*lines: str) -> None:
    """In place of a file that was not asked for."""


# What one query may end with. LiteRT raises RuntimeError, OpenCV its own.
FAILURES = (HFNetEdgeError, RuntimeError, MemoryError, ArithmeticError, ValueError, cv2.error)


@dataclass
class Outcome:
    """How a run of ``queries`` queries went.

    Attributes:
        statuses: how many queries ended with each.
        milliseconds: of each of these queries, by stage.
        failed: why the others have no result. undrawn: why pictures are missing.
        stopped: before the end, by the user.
    """

    queries: int
    statuses: Counter[Status] = field(default_factory=Counter)
    milliseconds: list[Mapping[str, float]] = field(default_factory=list)
    failed: list[HFNetEdgeError] = field(default_factory=list)
    undrawn: list[HFNetEdgeError] = field(default_factory=list)
    stopped: bool = False

    @property
    def localized(self) -> int:
        """Queries with a pose."""
        return self.statuses[Status.LOCALIZED]

    def __str__(self) -> str:
        unreadable = sum(isinstance(e, InputError) for e in self.failed)
        parts = [f"{self.localized} of {self.queries} queries localized"]
        if unreadable:
            parts.append(f"{unreadable} could not be read")
        if len(self.failed) > unreadable:
            parts.append(f"{len(self.failed) - unreadable} failed")
        if self.stopped:
            parts.append(f"stopped after {self.statuses.total() + len(self.failed)}")
        return ", ".join(parts)

    def print(self) -> None:
        """Prints the counts and the stages' times."""
        print(self)
        table = Table()
        table.add_column("stage")
        table.add_column("median ms", justify="right")
        for stage in dict.fromkeys(stage for one in self.milliseconds for stage in one):
            table.add_row(stage, f"{median(one[stage] for one in self.milliseconds if stage in one):.1f}")
        table.add_section()
        table.add_row("whole query", f"{median(sum(one.values()) for one in self.milliseconds):.1f}")
        show(table)
        for status in Status:
            if self.statuses[status] and status is not Status.LOCALIZED:
                print(f"{self.statuses[status]} without a pose: {status.value}")

    def leave(self) -> None:
        """Raises what the run ends with, if it is not whole: the interruption, or an HFNetEdgeError that counts the
        failures and names the first."""
        if self.stopped:
            say(str(self))
            raise typer.Exit(INTERRUPTED)
        for errors, what in ((self.failed, "queries were left out"), (self.undrawn, "pictures were not drawn")):
            if errors:
                counted = f"{len(errors)} of {self.queries} {what}: " if self.queries > 1 else ""
                raise type(errors[0])(f"{counted}{errors[0].problem}", errors[0].remedy)


def typed(e: Exception) -> HFNetEdgeError:
    """What a query failed with, without the frames that it came through: they hold the query's arrays."""
    if isinstance(e, HFNetEdgeError):
        return type(e)(e.problem, e.remedy)
    said = " ".join(f"{type(e).__name__}: {e}".split())
    return HFNetEdgeError(said, "try this photo alone with --image, and report it")


def _pictures(folder: Path, names: Sequence[str], files: CommandFiles) -> dict[str, Path]:
    """Where the picture of each query goes: inside the folder, whatever the names say. Raises OutputError: it cannot be
    written, or a picture would be an input."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not os.path.isdir(there) or not os.access(there, os.W_OK):
        raise OutputError(f"cannot make the folder {folder}: {there} is no folder that can be written", PICTURES)
    drawn = {name: folder / path for name, path in names_below(names, (".jpg", ".png"), ".jpg").items()}
    for path in drawn.values():
        files.writes_below(folder, path)
    return drawn


def _draw(image: Path, camera: Camera, result: LocalizationResult, picture: Path) -> None:
    from hfnet_edge.draw import draw_query, write_picture

    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"cannot make the folder {picture.parent}: {e.strerror}", PICTURES) from e
    write_picture(picture, draw_query(image, camera, result))


def report_line(name: str, result: LocalizationResult, image_names: tuple[str, ...]) -> dict:
    """What --report says of one query."""
    pose = result.pose
    return {
        "query": name,
        "status": result.status.value,
        "qvec": None if pose is None else [float(v) for v in pose.quaternion],
        "tvec": None if pose is None else [float(v) for v in pose.translation],
        "inliers": result.inliers,
        "matches": 0 if result.matches is None else len(result.matches),
        "confidence": round(result.confidence, 4),
        "retrieved": [image_names[i] for i in result.prior_frames],
        "milliseconds": {stage: round(ms, 3) for stage, ms in result.milliseconds.items()},
    }


def failure_line(name: str, e: HFNetEdgeError) -> dict:
    """What --report says of a query that has no result: a status of its own, and the error."""
    status = "UNREADABLE" if isinstance(e, InputError) else "FAILED"
    nothing: dict = {"qvec": None, "tvec": None, "inliers": 0, "matches": 0, "confidence": 0.0, "retrieved": []}
    return {"query": name, "status": status, **nothing, "milliseconds": {}, "error": e.problem}


def _print_result(name: str, r: LocalizationResult) -> None:
    if r.pose is None:
        print(f"{name}: no pose, {r.status.value} ({r.inliers} inliers)")
    else:
        print(f"{name}: {r.inliers} inliers, confidence {r.confidence:.2f}")
        print("cam_from_world", *(f"{v:.6f}" for v in (*r.pose.quaternion, *r.pose.translation)))
        print("camera centre ", *(f"{v:.3f}" for v in r.pose.center))


def localize_main() -> None:
    run(app)
