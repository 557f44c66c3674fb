"""COLMAP's two small files of cameras and poses, text or binary.

They are parsed here, because pycolmap 4.2 hangs or asks for all memory where a binary file is truncated. Models with
rigs need nothing more: COLMAP writes each image's composed cam_from_world as well.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfnet_edge.shell.reading import open_input, read_text

# COLMAP's numbers of camera models, with their names and numbers of parameters (colmap/sensor/models.h).
MODEL_IDS: dict[int, tuple[str, int]] = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    12: ("SIMPLE_DIVISION", 4),
    13: ("DIVISION", 5),
    14: ("SIMPLE_FISHEYE", 3),
    15: ("FISHEYE", 4),
    16: ("EUCM", 6),
    17: ("EQUIRECTANGULAR", 2),
}


@dataclass(frozen=True)
class Intrinsics:
    """A camera as COLMAP wrote it, perhaps of a model that `hfnet_edge.geometry` does not know."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]


Cameras = Iterator[tuple[int | str, Intrinsics]]
"""By id."""

Images = Iterator[tuple[str, np.ndarray, int | str]]
"""Name; quaternion wxyz and translation of cam_from_world; id of the camera."""


def read_model(folder: Path) -> tuple[Cameras, Images] | None:
    """The cameras and images of a folder with a model, which raise ValueError where they are damaged; None: there is
    none."""
    readers = {".bin": (_binary_cameras, _binary_images), ".txt": (_text_cameras, _text_images)}
    for ending, (cameras_of, images_of) in readers.items():
        cameras_file, images_file = folder / f"cameras{ending}", folder / f"images{ending}"
        if os.path.exists(cameras_file) and os.path.exists(images_file):
            return cameras_of(cameras_file), images_of(images_file)
    return None


def _text_cameras(path: Path) -> Iterator[tuple[int, Intrinsics]]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            fields = line.split()
            try:
                size = int(fields[2]), int(fields[3])
                yield int(fields[0]), Intrinsics(fields[1], *size, tuple(float(value) for value in fields[4:]))
            except (ValueError, IndexError) as e:
                raise ValueError(f"{path.name}, line {number} is not a camera") from e


def _text_images(path: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    """Two lines an image: pose, camera and name; then the keypoints, perhaps none."""
    lines = enumerate(read_text(path).splitlines(), 1)
    for number, line in lines:
        if line.strip() and not line.startswith("#"):
            fields = line.split(maxsplit=9)
            try:
                image = fields[9].strip(), np.array([float(value) for value in fields[1:8]]), int(fields[8])
            except (ValueError, IndexError) as e:
                raise ValueError(f"{path.name}, line {number} is not an image") from e
            number, line = next(lines, (number, ""))
            if len(line) < 1000 and len(line.split()) % 3:  # the next image, where its own line was left out
                raise ValueError(f"{path.name}, line {number} is not a list of keypoints (an empty line, where none)")
            yield image


class _Binary:
    """A binary file read from front to back. Raises ValueError past its end."""

    def __init__(self, path: Path):
        self.path, self.at = path, 0
        with open_input(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise ValueError(f"{path.name} is empty")
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def skip(self, size: int) -> int:
        """Moves on; returns where it was."""
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise ValueError(f"{self.path.name} is truncated at {len(self.data)} bytes")
        return start

    def read(self, layout: str) -> tuple:
        return struct.unpack_from(layout, self.data, self.skip(struct.calcsize(layout)))

    def name(self) -> str:
        end = self.data.find(b"\0", self.at)
        start = self.skip(end + 1 - self.at if end >= 0 else len(self.data) + 1)
        return self.data[start:end].decode()


def _binary_cameras(path: Path) -> Iterator[tuple[int, Intrinsics]]:
    file = _Binary(path)
    (count,) = file.read("<Q")
    for _ in range(count):
        camera_id, model_id, width, height = file.read("<IiQQ")
        if model_id not in MODEL_IDS:
            raise ValueError(f"{path.name} has the unknown camera model {model_id}")
        model, size = MODEL_IDS[model_id]
        yield camera_id, Intrinsics(model, width, height, file.read(f"<{size}d"))


def _binary_images(path: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    file = _Binary(path)
    (count,) = file.read("<Q")
    for _ in range(count):
        _, *values, camera_id = file.read("<I7dI")
        name = file.name()
        (keypoints,) = file.read("<Q")
        file.skip(24 * keypoints)
        yield name, np.array(values), camera_id
