"""What `hfnet-map build` does once its options are read: with known poses, and from photos alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.map_cameras import cameras_path, write_cameras
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import Report, progress, wrote
from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.tables import show
from hfnet_edge.shell.writing import CHECK, check_writable
from hfnet_maps.build.builder import MIN_AGREEMENT, BuildReport, build_map
from hfnet_maps.build.choices import BuildMethod, Mapper
from hfnet_maps.build.keyframes import LIST, write_keyframes
from hfnet_maps.build.placement import GPS, ByCameras, ByDistance, Distance, Place, Placed
from hfnet_maps.build.reference import model_files, read_reference
from hfnet_maps.build.structure import SfmModel, write_model
from hfnet_maps.content import BuiltMap
from hfnet_maps.evaluation.pictures import draw_map
from hfnet_maps.evaluation.png import check_png
from hfnet_maps.pack.writer import built_sections, to_map, write_map

if TYPE_CHECKING:
    from hfnet_maps.build.from_photos import PhotoMaps
    from hfnet_maps.pack.writer import Sections
    from hfnet_maps.tiles.places import LargePlace
    from hfnet_maps.tiles.triangulate import TileReport

MOST = 10  # photos without a pose that are named, with the reason
WORST = 5  # cameras whose place is shown
MOST_CAMERAS = 5  # that are printed


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
    table = _table()
    _tell_map(table, built)
    if not np.isnan(built.agreement):
        table.add_row("matches within a pixel of the given poses", f"{100 * built.agreement:.0f} %")
    if (refined := built.refinement) is not None:
        for what, values, unit in (("moved", refined.moved, ""), ("turned", refined.turned, " degrees")):
            table.add_row(f"poses {what} by, median, most", f"{np.median(values):.3g}, {values.max():.3g}{unit}")
        errors = f"{refined.error_before:.2f}, {refined.error_after:.2f} network pixels"
        table.add_row("median reprojection error with the given poses, the refined", errors)
    table.add_row("seconds", _seconds(built.seconds))
    show(table)
    if built.contradicted and refined is None:
        print(
            f"the poses contradict the matches: of those that fit one geometry of their two images only "
            f"{100 * built.agreement:.0f} % are within a pixel of them; "
            "where these are a device's own, build with --refine-poses"
        )
    _tell_blind(source)
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
    def place(self) -> Place | None:
        """What gives models their frame."""
        if self.align is not None:
            return ByCameras(self.align)
        return None if self.distance is None else ByDistance(self.distance)


def build_tiles(options: PhotoOptions, reference: Path | None, size: int, then: Callable[[Path], str]) -> None:
    """Builds a folder of tiles, and says what came of it."""
    from hfnet_maps.build.crew import crew
    from hfnet_maps.build.work_store import WorkStore
    from hfnet_maps.tiles.places import place_from_photos, place_with_poses

    images, output, names = options.images, options.output, options.names
    assert images is not None
    files = CommandFiles(options.list_, *options.model, None if options.align in (None, GPS) else options.align)
    if names is None:
        files.reads_pictures(images)
    check_writable(output, folder=True)
    if options.store is None:
        check_writable(options.sfm, folder=True)
    networks = _networks(options.model, options.method)
    if networks.patches is not None:
        raise InputError("tiles have no random trees", "leave out --method parallel, or --tile-images")
    with progress() as report, crew(options.jobs, options.dask) as workers:
        store = WorkStore(options.store or options.sfm)
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
    _tell_place(made)
    if made.model is not None:
        target = options.sfm / "0"
        try:
            target.mkdir(parents=True, exist_ok=True)
            write_model(made.model, target)
        except OSError as e:
            raise OutputError(f"cannot write {target}: {e.strerror or e}", CHECK) from e
        wrote(target)
    wrote(output, then(output))


def build_from_photos(options: PhotoOptions, picture: Path | None, then: Next) -> None:
    """Builds the maps of photos, writes COLMAP's models and the cameras beside them, and says what came of it."""
    from hfnet_maps.build.crew import crew
    from hfnet_maps.build.from_photos import maps_from_photos
    from hfnet_maps.build.work_store import WorkStore

    images, video, names, output, align = (
        options.images,
        options.video,
        options.names,
        options.output,
        options.align,
    )
    files = CommandFiles(options.list_, video, *options.model, None if align in (None, GPS) else align)
    frames = output.with_name(f"{output.stem}_frames")
    if images is None:
        check_writable(frames, folder=True)
    elif names is None:
        files.reads_pictures(images)
    else:
        files.reads(*(images / name for name in names))
    sfm = options.sfm
    files.writes(output)
    files.writes(cameras_path(output))
    check_writable(sfm, folder=True)
    if picture is not None:
        check_png("--picture", picture, files)
    networks = _networks(options.model, options.method)
    with progress() as report:
        if images is None:
            assert video is not None
            names, images = _keyframes(video, frames, report), frames
        store = WorkStore(options.store or sfm)
        with crew(options.jobs, options.dask) as workers:
            made = maps_from_photos(
                images, networks, store, names, options.mapper, options.dense, options.place, report, workers
            )
        laid_out = [built_sections(built, report) for built, _ in made.maps]
        report("write models", 0, 1)
        models = _write_models(made, sfm, images)
        report("write models", 1, 1)
    outputs = [output, *(output.with_name(f"{output.stem}_{k}.hfmap") for k in range(2, len(laid_out) + 1))]
    for path in outputs[1:]:
        files.writes(path)
    for path, sections, (built, _), sfm_model in zip(outputs, laid_out, made.maps, made.models, strict=True):
        write_map(sections, path)
        write_cameras(path, _devices(made, built, sfm_model))
    _tell_photos(made)
    for built, _ in made.maps:
        _tell_blind(built)
    _draw(laid_out[0], picture)
    if video is not None:
        wrote(frames)
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


def _write_models(made: PhotoMaps, folder: Path, images: Path) -> list[Path]:
    """Writes COLMAP's models into numbered folders, over those of a run before. Raises OutputError."""
    written = []
    try:
        folder.mkdir(exist_ok=True)
        for k, model in enumerate(made.models):
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


def _devices(made: PhotoMaps, built: BuiltMap, model: SfmModel):
    """The cameras of a map's photos with a remark each, that of most photos first."""
    rows = [made.photos.device_of[photo] for photo in model.poses]
    for device in sorted(set(rows), key=lambda d: (-rows.count(d), d)):
        yield (
            model.cameras[device],
            f"{rows.count(device)} of {len(built.names)} photos, {made.photos.devices[device].label}",
        )


def _table() -> Table:
    table = Table(title="What came of it", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    return table


def _tell_map(table: Table, built: BuildReport) -> None:
    table.add_row("reference images", f"{built.images}")
    table.add_row("keypoints", f"{built.keypoints}")
    table.add_row("image pairs matched, agreeing with the poses", f"{built.pairs_tried}, {built.pairs_verified}")
    table.add_row("verified matches", f"{built.matches}")
    table.add_row("landmarks", f"{built.landmarks}")
    table.add_row("observations", f"{built.observations}, {built.mean_track_length:.1f} per landmark")
    table.add_row("median reprojection error", f"{built.median_error:.2f} network pixels")


def _seconds(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {s:.1f}" for stage, s in seconds.items())


def _tell_photos(made: PhotoMaps) -> None:
    """What SfM found, and the photos that it could not place, with the reason."""
    count = len(made.photos.names) + len(made.photos.left_out)
    registered = len({photo for model in made.models for photo in model.poses})
    table = _table()
    table.add_row("photos, registered", f"{count}, {registered}")
    table.add_row("pairs of photos matched, of one geometry", f"{made.pairs_tried}, {made.pairs_verified}")
    _tell_map(table, made.maps[0][1])
    seconds = dict(made.seconds)
    for _, report in made.maps:
        for stage, s in report.seconds.items():
            seconds[f"map: {stage}"] = seconds.get(f"map: {stage}", 0.0) + s
    table.add_row("seconds", _seconds(seconds))
    show(table)
    for k, placed in enumerate(made.placed):
        _tell_placed(k, placed)
    cameras = list(_devices(made, made.maps[0][0], made.models[0]))
    for camera, remark in cameras[:MOST_CAMERAS]:
        print(f"camera: {camera} ({remark})")
    if len(cameras) > MOST_CAMERAS:
        print(f"and {len(cameras) - MOST_CAMERAS} more cameras")
    if len(made.models) > 1:
        sizes = ", ".join(f"{len(model.poses)}" for model in made.models)
        print(
            f"the photos fall into {len(made.models)} parts that do not hold together, of {sizes} photos: "
            "each has a map and a model of its own, in a frame of its own; photos between them would join them"
        )
    if made.unregistered:
        print(f"{len(made.unregistered)} of {count} photos are in no map:")
        for name, why in list(made.unregistered.items())[:MOST]:
            print(f"  {printable(name)}: {printable(why)}")
        if len(made.unregistered) > MOST:
            print(f"  and {len(made.unregistered) - MOST} more")


def _tell_place(made: LargePlace) -> None:
    """What came of a large place."""
    count, report = len(made.photos.names) + len(made.photos.left_out), made.report
    table = _table()
    table.add_row("photos", f"{count}")
    if made.model is not None:
        table.add_row("registered", f"{len(made.model.poses)}")
    table.add_row("pairs of photos matched, of one geometry", f"{made.pairs_tried}, {made.pairs_verified}")
    table.add_row("tiles, images of a tile with its halo", f"{len(report.tiles)}, {_range(report.tiles)}")
    table.add_row("matches between images of two tiles", f"{100 * report.cut:.0f} %")
    table.add_row("landmarks of all tiles", f"{sum(tile.landmarks for tile in report.tiles)}")
    table.add_row("observations", f"{sum(tile.observations for tile in report.tiles)}")
    table.add_row("bytes", f"{report.bytes}")
    table.add_row("seconds", _seconds(made.seconds))
    show(table)
    if made.model is not None:
        _tell_placed(0, made.placed)
    if made.apart:
        sizes = ", ".join(map(str, made.apart[:MOST]))
        print(f"other photos hold together apart from these: {sizes}; they are in no tile, name them in a --list")
    agreements = [tile.agreement for tile in report.tiles if not np.isnan(tile.agreement)]
    if agreements and min(agreements) < MIN_AGREEMENT:
        print(f"in a tile only {100 * min(agreements):.0f} % of the matches are within a pixel of the poses")
    for what, names in (("see no landmark", report.blind), ("cannot be read", tuple(made.photos.left_out))):
        if names:
            print(f"{len(names)} photos {what}, first {printable(names[0])}")


def _range(tiles: Sequence[TileReport]) -> str:
    sizes = [tile.images for tile in tiles]
    return f"{min(sizes)} to {max(sizes)}"


def _tell_placed(k: int, placed: Placed | None) -> None:
    """How a model came to its frame, and what the cameras are off, the worst first."""
    of = "the map" if k == 0 else f"map {k + 1}"
    if placed is None:
        print(f"{of} stands upright, and is in units of its own: --align and --distance give it scale")
        return
    unit = placed.unit
    if len(placed.off):
        table = Table(title=f"What cameras of {of} are off, the worst first", title_justify="left")
        table.add_column("photo")
        table.add_column(f"off [{unit}]", justify="right")
        for i in (-placed.off).argsort(kind="stable")[:WORST]:
            table.add_row(placed.names[i], f"{placed.off[i]:.4g}")
        show(table)
        rms = float(np.sqrt(np.square(placed.off[placed.agree]).mean()))
        print(
            f"{len(placed.off)} cameras known: median {np.median(placed.off):.4g} {unit}, root mean square of the "
            f"{int(placed.agree.sum())} that agree {rms:.4g} {unit}"
        )
    print(f"a unit of SfM's is {placed.scale:.6g} {unit}")


def _tell_blind(source: BuiltMap) -> None:
    seeing = set(source.images.tolist())
    blind = [name for i, name in enumerate(source.names) if i not in seeing]
    if blind:
        first = printable(blind[0])
        print(f"{len(blind)} images see no landmark, first {first}: is the pose wrong, or nothing shared?")


def _draw(sections: Sections, picture: Path | None) -> None:
    if picture is not None:
        draw_map(to_map(sections), picture)
        wrote(picture)
