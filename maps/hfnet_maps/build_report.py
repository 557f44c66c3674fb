"""What `hfnet-map build` says of what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from hfnet_edge.geometry import Camera
from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.tables import show
from hfnet_maps.build.builder import MIN_AGREEMENT, BuildReport
from hfnet_maps.build.photos import Photos
from hfnet_maps.build.placement import Placed
from hfnet_maps.build.structure import SfmModel
from hfnet_maps.content import BuiltMap

if TYPE_CHECKING:
    from hfnet_maps.build.from_photos import PhotoMaps
    from hfnet_maps.tiles.places import LargePlace

MOST = 10  # photos without a pose that are named, with the reason
WORST = 5  # cameras whose place is shown
MOST_CAMERAS = 5  # that are printed


def devices(photos: Photos, model: SfmModel) -> Iterator[tuple[Camera, str]]:
    """The cameras of a model's photos with a remark each, that of most photos first."""
    rows = [photos.device_of[photo] for photo in model.poses]
    for device in sorted(set(rows), key=lambda d: (-rows.count(d), d)):
        yield (
            model.cameras[device],
            f"{rows.count(device)} of {len(rows)} photos, {photos.devices[device].label}",
        )


def what_came() -> Table:
    table = Table(title="What came of it", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    return table


def tell_map(table: Table, built: BuildReport) -> None:
    table.add_row("reference images", f"{built.images}")
    table.add_row("keypoints", f"{built.keypoints}")
    table.add_row("image pairs matched, agreeing with the poses", f"{built.pairs_tried}, {built.pairs_verified}")
    table.add_row("verified matches", f"{built.matches}")
    table.add_row("landmarks", f"{built.landmarks}")
    table.add_row("observations", f"{built.observations}, {built.mean_track_length:.1f} per landmark")
    table.add_row("median reprojection error", f"{built.median_error:.2f} network pixels")


def in_seconds(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{stage} {s:.1f}" for stage, s in seconds.items())


def tell_photos(made: PhotoMaps) -> None:
    """What SfM found, and the photos that it could not place, with the reason."""
    count = len(made.photos.names) + len(made.photos.left_out)
    registered = len({photo for model in made.models for photo in model.poses})
    table = what_came()
    table.add_row("photos, registered", f"{count}, {registered}")
    table.add_row("pairs of photos matched, of one geometry", f"{made.pairs_tried}, {made.pairs_verified}")
    tell_map(table, made.maps[0][1])
    seconds = dict(made.seconds)
    for _, report in made.maps:
        for stage, s in report.seconds.items():
            seconds[f"map: {stage}"] = seconds.get(f"map: {stage}", 0.0) + s
    table.add_row("seconds", in_seconds(seconds))
    show(table)
    for k, placed in enumerate(made.placed):
        tell_placed(k, placed)
    tell_cameras(list(devices(made.photos, made.models[0])))
    _tell_apart([len(model.poses) for model in made.models], "a map")
    tell_unregistered(made.unregistered, count)


def _tell_apart(sizes: Sequence[int], each: str) -> None:
    """That the photos fall into parts of such sizes, each of which has a map or tiles."""
    if len(sizes) > 1:
        told = ", ".join(map(str, sizes))
        print(
            f"the photos fall into {len(sizes)} parts that do not hold together, of {told} photos: "
            f"each has {each} and a model of its own, in a frame of its own; photos between them would join them"
        )


def tell_cameras(cameras: Sequence[tuple[Camera, str]]) -> None:
    """The first of them, with their remarks."""
    for camera, remark in cameras[:MOST_CAMERAS]:
        print(f"camera: {camera} ({remark})")
    if len(cameras) > MOST_CAMERAS:
        print(f"and {len(cameras) - MOST_CAMERAS} more cameras")


def tell_unregistered(unregistered: Mapping[str, str], count: int) -> None:
    """Photos that are in no map, with the reason, of so many."""
    if unregistered:
        print(f"{len(unregistered)} of {count} photos are in no map:")
        for name, why in list(unregistered.items())[:MOST]:
            print(f"  {printable(name)}: {printable(why)}")
        if len(unregistered) > MOST:
            print(f"  and {len(unregistered) - MOST} more")


def tell_place(made: LargePlace) -> None:
    """What came of a large place."""
    count = len(made.photos.names) + len(made.photos.left_out)
    tiles = [tile for part in made.parts for tile in part.report.tiles]
    table = what_came()
    if any(part.model is None for part in made.parts):
        table.add_row("photos", f"{count}")
    else:
        table.add_row(
            "photos, registered", f"{count}, {sum(len(part.model.poses) for part in made.parts if part.model)}"
        )
    table.add_row("pairs of photos matched, of one geometry", f"{made.pairs_tried}, {made.pairs_verified}")
    table.add_row("tiles, images of a tile with its halo", f"{len(tiles)}, {_range([tile.images for tile in tiles])}")
    table.add_row("matches between images of two tiles", f"{100 * made.parts[0].report.cut:.0f} %")
    table.add_row("landmarks of all tiles", f"{sum(tile.landmarks for tile in tiles)}")
    table.add_row("observations", f"{sum(tile.observations for tile in tiles)}")
    table.add_row("bytes", f"{sum(part.report.bytes for part in made.parts)}")
    table.add_row("seconds", in_seconds(made.seconds))
    show(table)
    _tell_apart([len(part.model.poses) for part in made.parts if part.model], "tiles")
    agreements = [tile.agreement for tile in tiles if not np.isnan(tile.agreement)]
    if agreements and min(agreements) < MIN_AGREEMENT:
        print(f"in a tile only {100 * min(agreements):.0f} % of the matches are within a pixel of the poses")
    blind = [name for part in made.parts for name in part.report.blind]
    if blind:
        print(
            f"{len(blind)} images see no landmark, first {printable(blind[0])}: is the pose wrong, or nothing shared?"
        )


def _range(sizes: Sequence[int]) -> str:
    return f"{min(sizes)} to {max(sizes)}"


def tell_placed(k: int, placed: Placed | None) -> None:
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


def tell_blind(source: BuiltMap) -> None:
    seeing = set(source.images.tolist())
    blind = [name for i, name in enumerate(source.names) if i not in seeing]
    if blind:
        first = printable(blind[0])
        print(f"{len(blind)} images see no landmark, first {first}: is the pose wrong, or nothing shared?")
