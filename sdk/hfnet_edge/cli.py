"""`hfnet-localize`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cv2
import typer

from hfnet_edge.errors import HFNetEdgeError, ImageError, InputError, OutputError
from hfnet_edge.geometry import Camera
from hfnet_edge.hloc import HlocLocalizer
from hfnet_edge.image.exif_camera import camera_of, check_fov
from hfnet_edge.image.frame import ANY
from hfnet_edge.localizer import Localizer
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.remote import is_url
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.map_cameras import OF_MAP, MapCameras
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.by_role import open_network
from hfnet_edge.outcome import Outcome, result_text
from hfnet_edge.prior import Gps, Prior
from hfnet_edge.report import failure_line, report_line
from hfnet_edge.result import LocalizationResult
from hfnet_edge.shell.command_files import CommandFiles, names_below
from hfnet_edge.shell.console import command, progress, reports_errors, run, wrote
from hfnet_edge.shell.extras import needs
from hfnet_edge.shell.lists import find_images, pose_line, read_photos
from hfnet_edge.shell.options import MaxWrongOption, MethodOption, RefineFocalOption, ToleranceOption, parse_share
from hfnet_edge.shell.writing import streamed_write
from hfnet_edge.trust.tolerance import Tolerance

PICTURES = "name another for --pictures"

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
@reports_errors
def localize(
    map_: Annotated[
        str,
        typer.Option(
            "--map",
            metavar="M.hfmap",
            help="The place, from `hfnet-map build`; or a folder of tiles; or the URL of either.",
        ),
    ],
    model: Annotated[
        list[Path] | None,
        typer.Option(metavar="M.tflite", help="A network of `hfnet-export`; again for each further. Or --features."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder that the names in --queries are in.")
    ] = None,
    queries: Annotated[
        Path | None,
        typer.Option(metavar="LIST", help="`name MODEL width height params...` a line, as in hloc; or a name alone."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="POSES.txt", help="Poses found; until the end, in POSES.txt.part."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="F.jsonl", help="One JSON line per query.")] = None,
    image: Annotated[Path | None, typer.Option(metavar="ONE.jpg", help="One photo instead of a list.")] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar='"PINHOLE w h fx fy cx cy"',
            help="The camera of --image; else by its EXIF. of-map: that of the device which the map's photos are of.",
        ),
    ] = None,
    fov: Annotated[
        float | None,
        typer.Option(
            metavar="DEGREES", help="Of the longer side, for photos without a camera whose EXIF says nothing."
        ),
    ] = None,
    rotation: Annotated[
        str | None,
        typer.Option(
            metavar="0|90|180|270|any",
            help="Degrees clockwise by which the stored pixels are upright; any: to be found. Default: by EXIF.",
        ),
    ] = None,
    near: Annotated[
        str | None, typer.Option(metavar='"x,y,z,RADIUS"', help="About where the camera is, in map units.")
    ] = None,
    gps: Annotated[
        str | None,
        typer.Option(metavar='"LAT,LON,METRES"', help="A fix and its accuracy, in a map of `hfnet-map georeference`."),
    ] = None,
    gravity: Annotated[
        str | None,
        typer.Option(metavar='"x,y,z"', help="Which way is down, in the stored image's axes: right, down, forward."),
    ] = None,
    among: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help='Retrieve these reference images alone, as "floor2/*"; may be repeated.'),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(metavar="V.mp4", help="Localize its frames, with --camera, in place of photos.")
    ] = None,
    odometry: Annotated[
        Path | None,
        typer.Option(metavar="TUM.txt", help="The device's own motion in the video: `time tx ty tz qx qy qz qw`."),
    ] = None,
    annotated: Annotated[
        Path | None, typer.Option(metavar="OUT.mp4", help="The video with what was found drawn into it.")
    ] = None,
    tolerance: ToleranceOption = "0.25,2",
    max_wrong: MaxWrongOption = "0.1%",
    refine_focal: RefineFocalOption = False,
    pictures: Annotated[Path | None, typer.Option(metavar="DIR", help="Draw each query with its inliers.")] = None,
    threads: Annotated[int, typer.Option(help="Of the network. The poses do not depend on it.", min=1, max=64)] = 2,
    method: MethodOption = "hierarchical",
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep there what is fetched of a place behind a URL.")
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
            --camera "PINHOLE 640 480 500 500 320 240" --tolerance "0.1,1"

        hfnet-localize --map scene.hfmap --model hfnet_int8.tflite --image phone.jpg --fov 65

        hfnet-localize --map scene.hfmap --model hfnet_int8.tflite --image a.jpg --camera of-map

        hfnet-localize --map scene.hfmap --model hfnet_int8.tflite --image phone.jpg --fov 65 \\
            --rotation any --near "12,3,1.5,5"

        hfnet-localize --map scene.hfmap --model hfnet_int8.tflite --video walk.mp4 --odometry tum.txt \\
            --camera "PINHOLE 640 480 500 500 320 240" -o poses.txt --annotated walk_localized.mp4

        hfnet-localize --method parallel --map scene.hfmap --model hfnet_int8.tflite --model crbnet_int8.tflite \\
            --images photos --queries q.txt -o poses.txt

        hfnet-localize --method auto --map scene.hfmap --model hfnet_int8.tflite --images photos --queries q.txt \\
            -o poses.txt

        hfnet-localize --map https://maps.example.org/town.tiles --cache cache --model hfnet_int8.tflite \\
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
    prior = prior_of(near, gps, gravity, tuple(among or ()))
    turn = rotation_of(rotation)
    if by_features and (turn is not None or (prior is not None and prior.gravity is not None)):
        raise InputError("--features come of images that were turned already", "leave --rotation and --gravity out")
    if video is None and (odometry is not None or annotated is not None):
        raise InputError("--odometry and --annotated are of a --video", "name it, or leave them out")
    where = map_ if is_url(map_) else Path(map_)
    if cache is not None and (by_features or not isinstance(where, str)):
        raise InputError("--cache is for a --map behind a URL, with --model", "leave it out")
    of_map = _cameras_beside(where) if camera == OF_MAP else None
    stated_camera = None if camera is None or of_map is not None else Camera.parse(camera)
    if video is not None:
        if by_features or image is not None or queries is not None or camera is None or prior is not None:
            raise InputError(
                "--video needs --camera, and takes neither photos nor priors",
                "leave out --image, --queries, --features, --near, --gps, --gravity, --among",
            )
        if isinstance(turn, str):
            raise InputError("--rotation any is not for videos", "give the degrees")
        config = LocalizationConfig(
            method, tolerance=Tolerance.parse(tolerance), max_wrong=parse_share("--max-wrong", max_wrong)
        )
        of_video = stated_camera or of_map_of_video(of_map, video)
        _video(where, networks, video, of_video, odometry, annotated, turn, output, report, threads, config)
        return
    if (image is None) == (queries is None):
        raise InputError("there is nothing to localize, or too much", "give either --queries and --images, or --image")
    if image is not None:
        if images is not None:
            raise InputError("--image needs no --images", "leave it out")
        if not os.path.isfile(image):
            raise ImageError(f"there is no image {image}", "check --image")
        todo: list[tuple[str, Camera | None]] = [(image.name, stated_camera)]
        folder = image.parent
    else:
        if (images is None and not by_features) or output is None or stated_camera is not None:
            raise InputError(
                "--queries needs --images and -o, without --camera, unless that is of-map",
                "give the folder of the queries and the file for the poses",
            )
        if images is not None and not os.path.isdir(images):
            raise InputError(f"there is no folder {images}", "check --images")
        todo, folder = read_photos(queries or Path()), images or Path()
    unknown = [name for name, one_camera in todo if one_camera is None and of_map is None]
    check_fov(fov)
    if fov is not None and not unknown:
        raise InputError("--fov is for photos without a camera, and all have one", "leave it out")
    if by_features and (unknown or of_map is not None):
        raise InputError(
            f"{(unknown or [todo[0][0]])[0]} has no camera, and --features has no EXIF",
            "add it to its line in --queries",
        )
    config = LocalizationConfig(
        method,
        tolerance=Tolerance.parse(tolerance),
        max_wrong=parse_share("--max-wrong", max_wrong),
        refine_focal=refine_focal,
    )
    files = CommandFiles(*_files_of(where), *networks, queries, features, global_features)
    if image is not None or images is not None:
        files.reads(*(folder / name for name, _ in todo))
    for path in (output, report):
        if path is not None:
            files.writes(path, streamed=True)
    if pictures is not None and os.path.realpath(pictures) == os.path.realpath(folder):
        raise InputError(f"--pictures {pictures} is the folder of the photos", "name another, or they are overwritten")
    drawn = {} if pictures is None else _pictures(pictures, [name for name, _ in todo], files)

    if by_features:
        needs("maps", "h5py")
    opened = [open_network(file, threads) for file in networks]
    localizers: dict[bool, Localizer | HlocLocalizer] = {}  # by whether the focal length is to be found
    place: Path | str | LocalizationMap | TiledMap = where
    hloc_map: LocalizationMap | None = None
    for seek in sorted({refine_focal or (one_camera is None and of_map is None) for _, one_camera in todo}):
        seeking = replace(config, refine_focal=seek)
        if features is not None and global_features is not None:
            by_hloc = HlocLocalizer(hloc_map or where, features, global_features, seeking)
            localizers[seek], hloc_map = by_hloc, by_hloc.map
        else:
            by_model = Localizer(place, *opened, config=seeking, cache=cache)
            localizers[seek], place = by_model, by_model.place or by_model.map

    def pose_of(name: str, stated: Camera, seek: bool) -> LocalizationResult:
        """Of one query, whichever way its features come."""
        localizer = localizers[seek]
        if isinstance(localizer, HlocLocalizer):
            return localizer.localize(name, stated, prior)
        return localizer.localize(folder / name, stated, rotation=turn, prior=prior)

    def names_of(result: LocalizationResult) -> tuple[str, ...]:
        """Of the images that a result speaks of."""
        localizer = next(iter(localizers.values()))
        map_ = localizer.map_of(result) if isinstance(localizer, Localizer) else localizer.map
        return map_.image_names

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
                    guessed = one_camera is None and of_map is None
                    stated = one_camera or (of_map.of(folder / name) if of_map else camera_of(folder / name, fov))
                    result = pose_of(name, stated, refine_focal or guessed)
                    names = () if report is None else names_of(result)
                except FAILURES as e:  # one query's failure is not the others'
                    outcome.failed.append(typed(e))
                    write_report(json.dumps(failure_line(name, outcome.failed[-1])))
                    continue
                outcome.add(result, stated, guessed)
                write_pose(*() if result.pose is None else (pose_line(name, result.pose),))
                if report is not None:
                    write_report(json.dumps(report_line(name, result, names, stated), allow_nan=False))
                if name in drawn:
                    try:
                        _draw(folder / name, stated, result, drawn[name])
                    except FAILURES as e:
                        outcome.undrawn.append(typed(e))
            bar("localizing", len(todo), len(todo))
        except KeyboardInterrupt:
            outcome.stopped = True

    if result is not None:
        if len(todo) == 1:
            print(result_text(todo[0][0], result, stated))
        outcome.print()
    for path in (report, pictures):
        if path is not None and os.path.exists(path):
            wrote(path)
    if output is not None and result is not None:
        wrote(output, command("hfnet-eval", output, "--reference", "COLMAP_MODEL", "--queries", queries or "LIST"))
    outcome.leave()
    if image is not None and not outcome.localized:
        raise typer.Exit(1)


def _cameras_beside(where: Path | str) -> MapCameras:
    """Those of a map. Raises InputError, CameraError."""
    if isinstance(where, str):
        raise InputError(f"the cameras beside {where} are not fetched", "state one with --camera")
    return MapCameras.beside(where)


def _files_of(where: Path | str) -> list[Path]:
    """The files of a map, which no output may replace."""
    if isinstance(where, str):
        return []
    return [where, *sorted(where.glob("*.hfmap"))] if os.path.isdir(where) else [where]


def prior_of(near: str | None, gps: str | None, gravity: str | None, among: tuple[str, ...]) -> Prior | None:
    """What the options say; None: nothing. Raises InputError."""
    if near is gps is gravity is None and not among:
        return None
    at = None if near is None else numbers("--near", near, 4)
    fix = None if gps is None else Gps(*numbers("--gps", gps, 3))
    down = None if gravity is None else numbers("--gravity", gravity, 3)
    return Prior(None if at is None else at[:3], None if at is None else at[3], fix, down, among)  # type: ignore[arg-type]


def numbers(option: str, text: str, count: int) -> tuple[float, ...]:
    """Reads "1,2.5,3". Raises InputError."""
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError as e:
        raise InputError(f"{option} {text!r} are no numbers", "write them with commas between") from e
    if len(found) != count:
        raise InputError(f"{option} {text!r} are {len(found)} numbers", f"give {count}")
    return found


def rotation_of(text: str | None) -> int | str | None:
    """Reads --rotation. Raises InputError."""
    if text is None or text == ANY:
        return text
    if text not in ("0", "90", "180", "270"):
        raise InputError(f"--rotation is {text!r}", "give 0, 90, 180, 270 or any")
    return int(text)


def of_map_of_video(of_map: MapCameras | None, video: Path) -> Camera:
    """The map's camera for frames of a video. Raises InputError, CameraError, ImageError."""
    from hfnet_edge.video import frames_of

    assert of_map is not None
    _, frame = next(frames_of(video))
    return of_map.of_size(frame.shape[1], frame.shape[0], str(video))


def _video(
    map_: Path | str,
    networks: Sequence[Path],
    video: Path,
    camera: Camera,
    odometry: Path | None,
    annotated: Path | None,
    rotation: int | None,
    output: Path | None,
    report: Path | None,
    threads: int,
    config: LocalizationConfig,
) -> None:
    from hfnet_edge.video import Trajectory, localize_video

    files = CommandFiles(*_files_of(map_), *networks, video, odometry)
    for path in (output, report):
        if path is not None:
            files.writes(path, streamed=True)
    if annotated is not None:
        files.writes(annotated)
        if annotated.suffix.lower() != ".mp4":
            raise InputError(f"--annotated {annotated} is no .mp4", "name one")
    motion = None if odometry is None else Trajectory.read(odometry)
    localizer = Localizer(map_, *(open_network(file, threads) for file in networks), config=config)
    with ExitStack() as streams, progress() as bar:
        write_pose, write_report = (
            ignore if path is None else streams.enter_context(streamed_write(path)) for path in (output, report)
        )
        found, count = localize_video(
            localizer, video, camera, motion, annotated, rotation, write_pose, write_report, bar
        )
    print(f"{found} of {count} frames localized")
    for path in (output, report, annotated):
        if path is not None:
            wrote(path)
    if not found:
        raise typer.Exit(1)


def ignore(*lines: str) -> None:
    """In place of a file that was not asked for."""


# What one query may end with. LiteRT raises RuntimeError, OpenCV its own.
FAILURES = (HFNetEdgeError, RuntimeError, MemoryError, ArithmeticError, ValueError, cv2.error)


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


def localize_main() -> None:
    run(app)
