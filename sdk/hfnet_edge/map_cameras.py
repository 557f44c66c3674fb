"""The cameras of the devices that a map's photos were taken with, in a text file beside the map.

A camera belongs to a device, not to a place, and whoever localizes with another device needs none of this: so it is no
part of the map's format. `scene.hfmap` has `scene.cameras.txt`, `MODEL width height params...` a line, as in hloc's
lists of queries, the device of most photos first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hfnet_edge.errors import CameraError, InputError, OutputError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.image_file import open_image
from hfnet_edge.shell.reading import read_text
from hfnet_edge.shell.writing import atomic_write

OF_MAP = "of-map"  # what --camera says to mean these
REMEDY = 'build the map from photos, or give --camera "PINHOLE width height fx fy cx cy"'


def cameras_path(map_: Path) -> Path:
    """Where the cameras of a map are."""
    return map_.with_name(f"{map_.stem}.cameras.txt")


@dataclass(frozen=True)
class MapCameras:
    """Cameras of pixels as they are stored in the photos' files.

    Attributes:
        path: of the file that says them.
    """

    path: Path
    cameras: tuple[Camera, ...]

    @classmethod
    def beside(cls, map_: Path) -> MapCameras:
        """Those of a map. Raises InputError, CameraError: there are none, or a line is no camera."""
        path = cameras_path(map_)
        try:
            lines = [line.partition("#")[0].strip() for line in read_text(path).splitlines()]
        except (OSError, UnicodeDecodeError) as e:
            raise InputError(f"the map has no cameras beside it: {path} cannot be read", REMEDY) from e
        cameras = tuple(Camera.parse(line) for line in lines if line)
        if not cameras:
            raise InputError(f"{path} has no cameras", REMEDY)
        return cls(path, cameras)

    def of(self, photo: Path) -> Camera:
        """The camera of a photo's size. Raises ImageError: the photo is not read; CameraError: none is of its size."""
        return self.of_size(*open_image(photo).stored, str(photo))

    def of_size(self, width: int, height: int, name: str) -> Camera:
        """The first camera of a size. Raises CameraError: there is none; ``name`` is whose size it is."""
        for camera in self.cameras:
            if (camera.width, camera.height) == (width, height):
                return camera
        known = ", ".join(sorted({f"{c.width}x{c.height}" for c in self.cameras}))
        raise CameraError(f"{name} is {width}x{height}, and the map's cameras are {known}", REMEDY)


def write_cameras(map_: Path, cameras: Iterable[tuple[Camera, str]]) -> Path:
    """Writes what `MapCameras` reads, each camera with a remark. Raises OutputError."""
    path = cameras_path(map_)
    with atomic_write(path) as file:
        for camera, remark in cameras:
            file.write(f"{camera}  # {' '.join(remark.split())}\n".encode())
    return path


def copy_cameras(source: Path, target: Path) -> None:
    """Gives a map the cameras of the one that it was made of, if that has any. Raises OutputError."""
    try:
        content = cameras_path(source).read_bytes()
    except OSError:
        return
    if cameras_path(source) == cameras_path(target):
        raise OutputError(f"cannot write {cameras_path(target)}: it is an input", "choose another name")
    with atomic_write(cameras_path(target)) as file:
        file.write(content)
