"""`hfnet-localize`."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hfnet_edge.console import command, progress, reports_errors, run, wrote
from hfnet_edge.errors import HFNetEdgeError, ImageError, InputError, MapFormatError, OutputError
from hfnet_edge.files import atomic_write, check_writable
from hfnet_edge.geometry import Camera
from hfnet_edge.hloc import HlocLocalizer
from hfnet_edge.lists import find_images, read_queries, write_poses
from hfnet_edge.localizer import LocalizationConfig, LocalizationResult, Localizer, Method, Status
from hfnet_edge.model import Model
from hfnet_edge.patch_model import PatchModel

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@reports_errors
def localize(
    map_: Annotated[Path, typer.Option("--map", metavar="M.hfmap", help="The place, from `hfnet-map build`.")],
    model: Annotated[
        Path | None, typer.Option(metavar="M.tflite", help="The network, from `hfnet-export`; or --features.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that the names in --queries are in.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="`name MODEL width height params...` a line, as in hloc."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="POSES.txt", help="Poses found.")] = None,
    report: Annotated[Path | None, typer.Option(metavar="F.jsonl", help="One JSON line per query.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="ONE.jpg", help="One photo instead of a list.")] = None,
    camera: Annotated[
        str | None, typer.Option(metavar='"PINHOLE w h fx fy cx cy"', help="The camera of --image.")
    ] = None,
    pictures: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw each query with its inliers.")] = None,
    threads: Annotated[int, typer.Option(help="Of the network. The poses do not depend on it.", min=1, max=64)] = 2,
    method: Annotated[
        Method,
        typer.Option(help="Trees and parallel need a map of `hfnet-map build --method parallel`."),
    ] = Method.HIERARCHICAL,
    patch_model: Annotated[
        Path | None, typer.Option(metavar="P.tflite", help="The patch network that built such a map.")
    ] = None,
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

        hfnet-localize --method parallel --map scene.hfmap --model hfnet_int8.tflite --patch-model crbnet_int8.tflite \\
            --images photos --queries q.txt -o poses.txt

        hfnet-localize --map packed.hfmap --features features.h5 --global-features global-feats.h5 --queries q.txt \\
            -o poses.txt
    """
    by_features = features is not None or global_features is not None
    if by_features and (features is None or global_features is None or model is not None or patch_model is not None):
        raise InputError(
            "--features and --global-features go together, without --model and --patch-model",
            "give hloc's two files, or the networks",
        )
    if not by_features and model is None:
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
        if not image.is_file():
            raise ImageError(f"there is no image {image}", "check --image")
        todo, folder = [(image.name, Camera.parse(camera))], image.parent
    else:
        if (images is None and not by_features) or output is None or camera is not None:
            raise InputError(
                "--queries needs --images and -o, without --camera",
                "give the folder of the queries and the file for the poses",
            )
        if images is not None and not images.is_dir():
            raise InputError(f"there is no folder {images}", "check --images")
        todo, folder = read_queries(queries or Path()), images or Path()
    inputs = (map_, model, patch_model, queries, image, features, global_features)
    if output is not None:
        check_writable(output, *inputs)
    if report is not None:
        check_writable(report, *inputs, output)
    if pictures is not None and pictures.resolve() == folder.resolve():
        raise InputError(f"--pictures {pictures} is the folder of the photos", "name another, or they are overwritten")

    config = LocalizationConfig(method)
    localizer: Localizer | HlocLocalizer
    if features is not None and global_features is not None:
        localizer = HlocLocalizer(map_, features, global_features, config)
    else:
        assert model is not None
        patches = None if patch_model is None else PatchModel(patch_model, threads)
        localizer = Localizer(map_, Model(model, threads), config, patches)

    def pose_of(name: str, one_camera: Camera) -> LocalizationResult:
        """Of one query, whichever way its features come."""
        if isinstance(localizer, HlocLocalizer):
            return localizer.localize(name, one_camera)
        return localizer.localize(folder / name, one_camera)

    if images is not None:
        find_images(folder, (name for name, _ in todo))
    results: list[tuple[str, LocalizationResult]] = []
    unreadable: list[HFNetEdgeError] = []
    with progress() as bar:
        for done, (name, one_camera) in enumerate(todo, 1):
            try:
                result = pose_of(name, one_camera)
            except (InputError, MapFormatError) as e:  # a bad photo, or a damaged part of the map, does
                # not lose the others' poses
                if len(todo) == 1:
                    raise
                unreadable.append(e)
                continue
            results.append((name, result))
            if pictures is not None:
                _draw(
                    folder / name,
                    one_camera,
                    result,
                    pictures / (name if Path(name).suffix.lower() in (".jpg", ".png") else f"{name}.jpg"),
                )
            bar("localizing", done, len(todo))
    if not results:
        raise unreadable[0]

    if output is not None:
        write_poses(output, ((name, r.pose) for name, r in results if r.pose is not None))
    if report is not None:
        with atomic_write(report) as file:
            for name, r in results:
                file.write((json.dumps(report_line(name, r, localizer.map.image_names)) + "\n").encode())
    _print_summary(results, queries or "LIST", output, report, pictures)
    if unreadable:
        raise type(unreadable[0])(
            f"{len(unreadable)} of {len(todo)} queries were left out: {unreadable[0].problem}", unreadable[0].remedy
        )
    if image is not None and results[0][1].pose is None:
        raise typer.Exit(1)


def _draw(image: Path, camera: Camera, result: LocalizationResult, picture: Path) -> None:
    from hfnet_edge.draw import draw_query, write_picture

    try:
        picture.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(
            f"cannot make the folder {picture.parent}: {e.strerror}", "name another for --pictures"
        ) from e
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


def _print_summary(results, queries, output, report, pictures) -> None:
    if len(results) == 1:
        name, r = results[0]
        if r.pose is None:
            print(f"{name}: no pose, {r.status.value} ({r.inliers} inliers)")
        else:
            print(f"{name}: {r.inliers} inliers, confidence {r.confidence:.2f}")
            print("cam_from_world", *(f"{v:.6f}" for v in (*r.pose.quaternion, *r.pose.translation)))
            print("camera centre ", *(f"{v:.3f}" for v in r.pose.center))
    localized = sum(r.pose is not None for _, r in results)
    table = Table(title=f"{localized} of {len(results)} queries localized", title_justify="left")
    table.add_column("stage")
    table.add_column("median ms", justify="right")
    for stage in dict.fromkeys(stage for _, r in results for stage in r.milliseconds):
        values = [r.milliseconds[stage] for _, r in results if stage in r.milliseconds]
        table.add_row(stage, f"{median(values):.1f}")
    table.add_section()
    table.add_row("whole query", f"{median(sum(r.milliseconds.values()) for _, r in results):.1f}")
    Console().print(table)
    for status in Status:
        count = sum(r.status is status for _, r in results)
        if count and status is not Status.LOCALIZED:
            print(f"{count} without a pose: {status.value}")
    for path in (report, pictures):
        if path is not None:
            wrote(path)
    if output is not None:
        wrote(output, command("hfnet-eval", output, "--reference", "COLMAP_MODEL", "--queries", queries))


def localize_main() -> None:
    run(app)
