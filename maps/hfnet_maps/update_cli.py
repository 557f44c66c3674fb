"""What `hfnet-map update` does once its options are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from hfnet_edge.errors import CameraError, InputError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.exif_camera import camera_of
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map_cameras import OF_MAP, MapCameras, cameras_path, copy_cameras
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.methods.registry import open_method
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.command_files import CommandFiles
from hfnet_edge.shell.console import progress, size_text, wrote
from hfnet_edge.shell.lists import find_images, read_photos
from hfnet_edge.shell.printing import printable
from hfnet_edge.shell.tables import show
from hfnet_maps.build.builder import check_networks
from hfnet_maps.build.photos import photo_names
from hfnet_maps.content import BuiltMap, content_of
from hfnet_maps.pack.writer import added_sections, write_map
from hfnet_maps.update import UpdatedMap, extract_new, update

CameraOf = Callable[[str], tuple[Camera, bool]]


def update_map(
    source: Path, images: Path, list_: Path | None, camera: str | None, model: Sequence[Path], output: Path, then: str
) -> None:
    """Registers the new photos of a folder into a map, and says what came of it."""
    listed: dict[str, Camera | None]
    listed = dict(read_photos(list_)) if list_ is not None else dict.fromkeys(photo_names(images))
    find_images(images, listed, "photos")
    files = CommandFiles(source, list_, *model, cameras_path(source), *(images / name for name in listed))
    files.writes(output)
    files.writes(cameras_path(output))
    before = LocalizationMap.open(source)
    content = content_of(before)
    if not isinstance(content, BuiltMap):
        raise InputError(
            f"{source} is packed, and no longer holds what its images observed",
            "update the map that `hfnet-map build` wrote, then pack the result",
        )
    new = [name for name in listed if name not in set(content.names)]
    if not new:
        raise InputError(
            f"there is nothing new: all {len(listed)} photos are in {source} already"
            if listed
            else f"there are no photos in {images}",
            "give new photos, with names that the map does not have",
        )
    camera_of_name = _cameras(source, images, listed, camera)
    networks = Networks(*model)
    dense = content.hypercolumns is not None
    check_networks(networks, dense)
    open_method(before, networks, LocalizationConfig())  # says what does not belong to the map
    with progress() as report:
        photos, unusable = extract_new(images, new, camera_of_name, networks, dense, report)
        updated = update(before, content, photos, report)
        left_out = unusable | updated.left_out
        if not updated.taken:
            name, why = next(iter(left_out.items()))
            raise InputError(
                f"none of {len(new)} new photos can be registered; {printable(name)}: {printable(why)}",
                "take photos that overlap with those of the map; a camera that is not known is stated with --camera",
            )
        sections = added_sections(updated.map, before, report)
    write_map(sections, output)
    copy_cameras(source, output)
    _tell(updated, len(listed) - len(new), left_out, source, output)
    if content.scene is not None:
        print("the scene network knows the old landmarks alone: train one anew with `hfnet-map train`")
    wrote(output, then)


def _cameras(source: Path, images: Path, listed: dict[str, Camera | None], camera: str | None) -> CameraOf:
    """How a photo's camera is known: by its line in the list, by what is stated, or else by the map's cameras of its
    size, or else by EXIF. Raises InputError, CameraError: what is stated is none."""
    stated = None if camera in (None, OF_MAP) else Camera.parse(camera)
    of_map = None
    if camera == OF_MAP or (camera is None and os.path.isfile(cameras_path(source))):
        of_map = MapCameras.beside(source)

    def of(name: str) -> tuple[Camera, bool]:
        known = listed[name] or stated
        if known is not None:
            return known, False
        if of_map is not None:
            try:
                return of_map.of(images / name), False
            except CameraError:
                if camera == OF_MAP:
                    raise
        return camera_of(images / name), True

    return of


def _tell(updated: UpdatedMap, known: int, left_out: dict[str, str], source: Path, output: Path) -> None:
    """What was taken in, and what was not and why."""
    table = Table(title="What came of it", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("photos taken in, left out", f"{len(updated.taken)}, {len(left_out)}")
    if known:
        table.add_row("photos that the map has already", f"{known}")
    table.add_row("landmarks added", f"{updated.landmarks}")
    table.add_row("observations added to old landmarks", f"{updated.observations}")
    moved = f"{np.median(updated.moved):.3g}, {updated.moved.max():.3g}"
    table.add_row("new poses adjusted by, median, most", moved)
    table.add_row("size before, after", ", ".join(size_text(os.path.getsize(path)) for path in (source, output)))
    table.add_row("seconds", ", ".join(f"{stage} {s:.1f}" for stage, s in updated.seconds.items()))
    show(table)
    if left_out:
        print("left out:")
        for name, why in left_out.items():
            print(f"  {printable(name)}: {printable(why)}")
