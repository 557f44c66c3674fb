"""Cameras and poses of images that somebody else has found: a COLMAP model, or what other tools write.

COLMAP | transforms.json (nerfstudio, instant-ngp, Polycam) | kapture | OpenSfM ─> Reference
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hfnet_edge.camera_models import CAMERA_MODELS
from hfnet_edge.errors import CameraError, InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.shell.reading import parse_json, read_text
from hfnet_maps.build import kapture_files, opensfm_files, transforms_files
from hfnet_maps.build.colmap_files import Cameras, Images, Intrinsics, read_model

REMEDY = (
    "give a folder with COLMAP's cameras.bin and images.bin, or cameras.txt and images.txt; a kapture; a "
    "transforms.json; or OpenSfM's reconstruction.json"
)


@dataclass(frozen=True)
class Reference:
    """Images with cameras and poses.

    Attributes:
        path: of the model, a folder or a file.
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
    """The files of a model, those too that this package does not read; not all need be there."""
    if os.path.isfile(folder):
        return [Path(folder)]
    names = ("cameras", "images", "points3D", "rigs", "frames")
    return [Path(folder) / f"{name}{ending}" for name in names for ending in (".bin", ".txt", ".ply")]


def read_reference(path: Path | str) -> Reference:
    """Reads a model. Images come in the order of their names; quaternions are scaled to unit length.

    Args:
        path: folder of a COLMAP model or of a kapture, or a JSON file.

    Raises:
        InputError: it is missing, holds no model, or a damaged or empty one. InstallError: a kapture needs its package.
    """
    path = Path(path)
    if os.path.isfile(path):
        return _from_json(path)
    if not os.path.isdir(path):
        raise InputError(f"there is no reference {path}", REMEDY)
    if (found := read_model(path)) is not None:
        return _assemble(path, *found)
    if kapture_files.is_kapture(path):
        return _assemble(path, *kapture_files.read_kapture(path))
    raise InputError(f"{path} is not a COLMAP model", REMEDY)


def _from_json(path: Path) -> Reference:
    try:
        told = parse_json(read_text(path))
        reads = transforms_files if isinstance(told, dict) and "frames" in told else opensfm_files
        return _assemble(path, *reads.read(told))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, IndexError, AttributeError) as e:
        why = f"it lacks {e}" if isinstance(e, KeyError) else e.strerror if isinstance(e, OSError) else e
        raise InputError(f"cannot read the reference {path}: {why}", REMEDY) from e


def _assemble(folder: Path, cameras: Cameras, images: Images) -> Reference:
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
