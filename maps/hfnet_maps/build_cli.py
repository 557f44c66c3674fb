"""What `hfnet-map build` does once its options are read: with known poses, and from photos alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.map_cameras import cameras_path, write_cameras
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import Report, progress, wrote
from hfnet_edge.shell.tables import show
from hfnet_edge.shell.writing import CHECK, check_writable
from hfnet_maps.build.builder import build_map
from hfnet_maps.build.choices import BuildMethod, Mapper
from hfnet_maps.build.keyframes import LIST, write_keyframes
from hfnet_maps.build.placement import GPS, ByCameras, ByDistance, Distance, Place
from hfnet_maps.build.reference import model_files, read_reference
from hfnet_maps.build.structure import SfmModel, write_model
from hfnet_maps.build_report import (
    devices,
    in_seconds,
    tell_blind,
    tell_cameras,
    tell_map,
    tell_photos,
    tell_place,
    tell_placed,
    tell_unregistered,
    what_came,
)
from hfnet_maps.evaluation.pictures import draw_map, draw_tiles
from hfnet_maps.evaluation.png import check_png
from hfnet_maps.pack.writer import built_sections, to_map, write_map

if TYPE_CHECKING:
    from hfnet_maps.pack.writer import Sections

Next = Callable[[Path, "Sections"], str]  # the command that goes on with a map


def build_with_poses(
    images: Path,
    reference: Path,
    names: Sequence[str],
    list_: Path | None,
    model: Sequence[Path],
    output: Path,
    method: BuildMethod,
    refine_poses: bool,
    picture: Path | None,
    then: Next,
) -> None:
    """Builds a map of images with known poses, and says what came of it."""
    files = CommandFiles(list_, *model, *model_files(reference), *(images / name for name in names))
    files.writes(output)
    if picture is not None:
        check_png("--picture", picture, files)
    networks = _networks(model, method)
    with progress() as report:
        dense = method is BuildMethod.SPARSE_TO_DENSE
        source, built = build_map(images, reference, names, networks, report, refine_poses, dense)
        sections = built_sections(source, report)
    write_map(sections, output)
    table = what_came()
    tell_map(table, built)
    if not np.isnan(built.agreement):
        table.add_row("matches within a pixel of the given poses", f"{100 * built.agreement:.0f} %")
    if (refined := built.refinement) is not None:
        for what, values, unit in (("moved", refined.moved, ""), ("turned", refined.turned, " degrees")):
            table.add_row(f"poses {what} by, median, most", f"{np.median(values):.3g}, {values.max():.3g}{unit}")
        errors = f"{refined.error_before:.2f}, {refined.error_after:.2f} network pixels"
        table.add_row("median reprojection error with the given poses, the refined", errors)
    table.add_row("seconds", in_seconds(built.seconds))
    show(table)
    if built.contradicted and refined is None:
        print(
            f"the poses contradict the matches: of those that fit one geometry of their two images only "
            f"{100 * built.agreement:.0f} % are within a pixel of them; "
            "where these are a device's own, build with --refine-poses"
        )
    tell_blind(source)
    _draw(sections, picture)
    wrote(output, then(output, sections))


@dataclass(frozen=True)
class PhotoOptions:
    """What `hfnet-map build` is asked for photos; see its `--help`. Names are those of the list."""

    images: Path | None
    video: Path | None
    names: Sequence[str] | None
    list_: Path | None
    model: Sequence[Path]
    output: Path
    method: BuildMethod
    mapper: Mapper
    align: str | None
    distance: Distance | None
    jobs: int
    dask: str | None
    store: str | None

    @property
    def dense(self) -> bool:
        """Whether hypercolumns are wanted."""
        return self.method is BuildMethod.SPARSE_TO_DENSE

    @property
    def sfm(self) -> Path:
        """The folder beside the output."""
        return self.output.with_name(f"{self.output.stem}_sfm")

    @property
    def files(self) -> CommandFiles:
        """The inputs but the photos."""
        align = None if self.align in (None, GPS) else self.align
        return CommandFiles(self.list_, self.video, *self.model, align)

    @property
    def place(self) -> Place | None:
        """What gives models their frame."""
        if self.align is not None:
            return ByCameras(self.align)
        return None if self.distance is None else ByDistance(self.distance)


def build_tiles(
    options: PhotoOptions, reference: Path | None, size: int, picture: Path | None, then: Callable[[Path], str]
) -> None:
    """Builds a folder of tiles, and says what came of it."""
    from hfnet_maps.build.crew import crew
    from hfnet_maps.build.work_store import WorkStore
    from hfnet_maps.tiles.places import place_from_photos, place_with_poses

    output = options.output
    files = options.files
    check_writable(output, folder=True)
    files.writes(cameras_path(output))
    if options.store is None:
        check_writable(options.sfm, folder=True)
    if picture is not None:
        check_png("--picture", picture, files)
    networks = _networks(options.model, options.method)
    if networks.patches is not None:
        raise InputError("tiles have no random trees", "leave out --method parallel, or --tile-images")
    with progress() as report, crew(options.jobs, options.dask) as workers:
        store = WorkStore(options.store or options.sfm)
        images, names = _photos(options, files, report)
        if reference is not None:
            names = names or list(read_reference(reference).poses)
            made = place_with_poses(
                images, reference, names, networks, store, size, output, options.dense, workers, report
            )
        else:
            made = place_from_photos(
                images, networks, store, size, output, names, options.mapper, options.dense, options.place, workers,
                report,
            )  # fmt: skip
    tell_place(made)
    for k, part in enumerate(made.parts):
        if part.model is not None:
            tell_placed(k, part.placed)
    models = [part.model for part in made.parts if part.model is not None]
    if models:
        for path in _write_models(models, options.sfm, None):
            wrote(path)
        for part in made.parts:
            assert part.model is not None
            write_cameras(part.folder, devices(made.photos, part.model))
        cameras = list(devices(made.photos, models[0]))
        tell_cameras(cameras)
        wrote(cameras_path(output))
        tell_unregistered(made.unregistered, len(made.photos.names) + len(made.photos.left_out))
    if picture is not None:
        place = TiledMap(output)
        draw_tiles((place.tile(number) for number in range(len(place.tiles))), picture)
        wrote(picture)
    for part in made.parts[1:]:
        wrote(part.folder)
    wrote(output, then(output))


def _photos(options: PhotoOptions, files: CommandFiles, report: Report) -> tuple[Path, Sequence[str] | None]:
    """The folder of the photos, and their names; of a video, keyframes that are written beside the output."""
    images, names, frames = options.images, options.names, options.output.with_name(f"{options.output.stem}_frames")
    if images is None:
        assert options.video is not None
        check_writable(frames, folder=True)
        return frames, _keyframes(options.video, frames, report)
    if names is None:
        files.reads_pictures(images)
    else:
        files.reads(*(images / name for name in names))
    return images, names


def build_from_photos(options: PhotoOptions, picture: Path | None, then: Next) -> None:
    """Builds the maps of photos, writes COLMAP's models and the cameras beside them, and says what came of it."""
    from hfnet_maps.build.crew import crew
    from hfnet_maps.build.from_photos import maps_from_photos
    from hfnet_maps.build.work_store import WorkStore

    output, files = options.output, options.files
    files.writes(output)
    files.writes(cameras_path(output))
    check_writable(options.sfm, folder=True)
    if picture is not None:
        check_png("--picture", picture, files)
    networks = _networks(options.model, options.method)
    with progress() as report, crew(options.jobs, options.dask) as workers:
        images, names = _photos(options, files, report)
        store = WorkStore(options.store or options.sfm)
        made = maps_from_photos(
            images, networks, store, names, options.mapper, options.dense, options.place, report, workers
        )
        laid_out = [built_sections(built, report) for built, _ in made.maps]
        report("write models", 0, 1)
        models = _write_models(made.models, options.sfm, images)
        report("write models", 1, 1)
    outputs = [output, *(output.with_name(f"{output.stem}_{k}.hfmap") for k in range(2, len(laid_out) + 1))]
    for path in outputs[1:]:
        files.writes(path)
    for path, sections, sfm_model in zip(outputs, laid_out, made.models, strict=True):
        write_map(sections, path)
        write_cameras(path, devices(made.photos, sfm_model))
    tell_photos(made)
    for built, _ in made.maps:
        tell_blind(built)
    _draw(laid_out[0], picture)
    if options.video is not None:
        wrote(images)
    for folder in models:
        wrote(folder)
    for path in outputs[1:]:
        wrote(path)
    wrote(cameras_path(output))
    wrote(output, then(output, laid_out[0]))


def _keyframes(video: Path, folder: Path, report: Report) -> list[str]:
    """Writes them into a folder, over those of a run before. Raises ImageError, InputError, OutputError."""
    try:
        folder.mkdir(exist_ok=True)
        for left in folder.glob("frame_*_t*.jpg"):
            left.unlink()
    except OSError as e:
        raise OutputError(f"cannot write {folder}: {e.strerror or e}", CHECK) from e
    kept = write_keyframes(video, folder, report)
    print(f"{len(kept)} keyframes of {video}, listed in {folder / LIST}")
    return [one.name for one in kept]


def _networks(model: Sequence[Path], method: BuildMethod) -> Networks:
    """Those of a build. Raises InputError: they are not of the method."""
    networks = Networks(*model)
    if (method is BuildMethod.PARALLEL) != (networks.patches is not None):
        raise InputError(
            "--method parallel and a patch network go together",
            "give both, the network of `hfnet-export crbnet` with another --model; or neither",
        )
    return networks


def _write_models(models: Sequence[SfmModel], folder: Path, images: Path | None) -> list[Path]:
    """Writes COLMAP's models into numbered folders, over those of a run before; with colours, if it reads the photos.
    Raises OutputError."""
    written = []
    try:
        folder.mkdir(exist_ok=True)
        for k, model in enumerate(models):
            target = folder / str(k)
            target.mkdir(exist_ok=True)
            with TemporaryDirectory(dir=folder) as temporary:
                write_model(model, Path(temporary), images)
                for file in sorted(Path(temporary).iterdir()):
                    os.replace(file, target / file.name)
            written.append(target)
        for left in sorted(folder.glob("[0-9]*")):  # of a run with more parts
            if left.is_dir() and left not in written:
                for file in model_files(left):
                    file.unlink(missing_ok=True)
                with suppress(OSError):  # somebody else's files are in it
                    left.rmdir()
    except OSError as e:
        raise OutputError(
            f"cannot write {folder}: {e.strerror or e}", "check the folder, permissions, free space"
        ) from e
    return written


def _draw(sections: Sections, picture: Path | None) -> None:
    if picture is not None:
        draw_map(to_map(sections), picture)
        wrote(picture)
