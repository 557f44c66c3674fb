"""Reads the cameras and poses of a COLMAP model, text or binary.

The two small files are parsed here, because pycolmap 4.2 hangs or asks for all memory where a binary file is
truncated. Models with rigs need nothing more: COLMAP writes each image's composed cam_from_world as well.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfnet_edge.camera_models import CAMERA_MODELS
from hfnet_edge.errors import CameraError, InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.shell.reading import open_input, read_text

REMEDY = "give a folder with COLMAP's cameras.bin and images.bin, or cameras.txt and images.txt"

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


@dataclass(frozen=True)
class Reference:
    """The registered images of a COLMAP model.

    Attributes:
        path: the model's folder.
        poses: cam_from_world by image name.
        intrinsics: by image name.
    """

    path: Path
    poses: dict[str, Pose]
    intrinsics: dict[str, Intrinsics]

    def pose(self, name: str) -> Pose:
        """cam_from_world of an image. Raises InputError where the model has no such image."""
        if name not in self.poses:
            raise InputError(
                f"the reference {self.path} has no image {name}",
                f"its names look like {next(iter(self.poses))}: correct the list, or leave this image out",
            )
        return self.poses[name]

    def camera(self, name: str) -> Camera:
        """Intrinsics of an image.

        Raises:
            InputError: the model has no such image.
            CameraError: its camera model is not supported.
        """
        self.pose(name)
        i = self.intrinsics[name]
        try:
            return Camera(i.model, i.width, i.height, i.params)
        except CameraError as e:
            raise CameraError(
                f"the camera of {name} in {self.path}: {e.problem}",
                f"run `colmap image_undistorter`, or calibrate with {', '.join(CAMERA_MODELS)}",
            ) from e


def model_files(folder: Path | str) -> list[Path]:
    """The files of a COLMAP model, those too that this package does not read; not all need be there."""
    names = ("cameras", "images", "points3D", "rigs", "frames")
    return [Path(folder) / f"{name}{ending}" for name in names for ending in (".bin", ".txt", ".ply")]


def read_reference(folder: Path | str) -> Reference:
    """Reads a COLMAP model. Images come in the order of their names; quaternions are scaled to unit length.

    Raises:
        InputError: the folder is missing, holds no model, or a damaged or empty one.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise InputError(f"there is no reference folder {folder}", REMEDY)
    readers = {".bin": (_binary_cameras, _binary_images), ".txt": (_text_cameras, _text_images)}
    for ending, (cameras_of, images_of) in readers.items():
        cameras_file, images_file = folder / f"cameras{ending}", folder / f"images{ending}"
        if os.path.exists(cameras_file) and os.path.exists(images_file):
            return _assemble(folder, cameras_of(cameras_file), images_of(images_file))
    raise InputError(f"{folder} is not a COLMAP model", REMEDY)


def _assemble(
    folder: Path,
    cameras: Iterator[tuple[int, Intrinsics]],
    images: Iterator[tuple[str, np.ndarray, int]],
) -> Reference:
    """Cameras by id, and images as name, quaternion wxyz with translation, camera id."""
    poses: dict[str, Pose] = {}
    intrinsics: dict[str, Intrinsics] = {}
    try:
        camera_of = dict(cameras)
        for name, values, camera_id in sorted(images, key=lambda image: image[0]):
            if name in poses:
                raise ValueError(f"the image {name} appears twice")
            if camera_id not in camera_of:
                raise ValueError(f"the image {name} has no camera")
            try:
                poses[name] = Pose.from_values(values)
            except ValueError as e:
                raise ValueError(f"the pose of {name} {e}") from e
            intrinsics[name] = camera_of[camera_id]
    except (OSError, ValueError) as e:
        raise InputError(f"the reference {folder} is damaged: {e}", f"export it again; {REMEDY}") from e
    if not poses:
        raise InputError(f"the reference {folder} has no images", REMEDY)
    return Reference(folder, poses, intrinsics)


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
