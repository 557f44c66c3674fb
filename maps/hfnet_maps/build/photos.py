"""Photos that nobody has posed: which of a folder are used, and what is known of the cameras that took them.

Photos of one device share their intrinsics: those that EXIF says are of one camera, at one focal length and size, and
without EXIF those of one folder and size. Cameras describe the stored pixels, of sideways photos too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image

from hfnet_edge.errors import CameraError, ImageError, InputError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.exif_camera import camera_of
from hfnet_edge.image.image_file import open_image
from hfnet_edge.shell.lists import find_images
from hfnet_edge.shell.reading import read_bytes

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".pgm", ".ppm", ".heic"}
GUESSED_FOCAL = 1.2  # longer sides, where EXIF does not say
LEAST = 2  # photos


@dataclass(frozen=True)
class Device:
    """What took some of the photos.

    Attributes:
        camera: SIMPLE_RADIAL, a first guess. from_exif: its focal length is EXIF's.
        label: for people.
    """

    camera: Camera
    from_exif: bool
    label: str


@dataclass(frozen=True)
class Photos:
    """The photos that are used, in order of their names; M of them.

    Attributes:
        folder: that the names are in. names: with `/` between folders.
        content: SHA-256 of each file, hexadecimal.
        orientations: EXIF's. devices: that took them. device_of: (M,) rows of them.
        left_out: name to reason, of photos that are not used.
    """

    folder: Path
    names: tuple[str, ...]
    content: tuple[str, ...]
    orientations: tuple[int, ...]
    devices: tuple[Device, ...]
    device_of: tuple[int, ...]
    left_out: dict[str, str]

    def camera(self, photo: int) -> Camera:
        """The first guess of a photo's camera."""
        return self.devices[self.device_of[photo]].camera

    def take(self, rows: Sequence[int], left_out: dict[str, str]) -> Photos:
        """Some of them. Raises InputError: too few."""
        if len(rows) < LEAST:
            raise InputError(f"{len(rows)} of {len(self.names)} photos decode", "give a folder of photos")
        return Photos(
            self.folder,
            tuple(self.names[i] for i in rows),
            tuple(self.content[i] for i in rows),
            tuple(self.orientations[i] for i in rows),
            self.devices,
            tuple(self.device_of[i] for i in rows),
            left_out,
        )


def find_photos(folder: Path, names: Sequence[str] | None = None) -> Photos:
    """The photos of a folder and the folders in it, or those of a list. Copies and what is no image are left out.

    Raises:
        InputError: there is no folder, or fewer than two photos. ImageError: some of the list are not there.
    """
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}", "check --images")
    if names is None:
        names = photo_names(folder)
    else:
        find_images(folder, names, "images")
    kept: list[str] = []
    first: dict[str, str] = {}  # photo of a content
    left_out: dict[str, str] = {}
    of_device: dict[tuple, Device] = {}
    device_of: list[int] = []
    orientations: list[int] = []
    for name in sorted(set(names)):
        try:
            identity, device, orientation = _device(folder, name)
            content = hashlib.sha256(read_bytes(folder / name)).hexdigest()
        except (ImageError, OSError) as e:
            left_out[name] = getattr(e, "problem", str(e))
            continue
        if content in first:
            left_out[name] = f"it is a copy of {first[content]}"
            continue
        first[content] = name
        of_device.setdefault(identity, device)
        kept.append(name)
        orientations.append(orientation)
        device_of.append(list(of_device).index(identity))
    if len(kept) < LEAST:
        raise InputError(
            f"{len(kept)} photos of {folder} can be used" + "".join(f"; {n}: {r}" for n, r in [*left_out.items()][:3]),
            "a map takes two photos at least, and twenty are better",
        )
    return Photos(
        folder, tuple(kept), tuple(first), tuple(orientations), tuple(of_device.values()), tuple(device_of), left_out
    )


def posed_photos(folder: Path, cameras: Mapping[str, Camera]) -> Photos:
    """Photos whose cameras are known, in order of name; each camera is a device. Raises ImageError: one is missing."""
    names = sorted(cameras)
    find_images(folder, names, "images")
    devices = {str(cameras[name]): Device(cameras[name], True, "the camera") for name in names}
    row = {told: k for k, told in enumerate(devices)}
    return Photos(
        folder,
        tuple(names),
        tuple(hashlib.sha256(read_bytes(folder / name)).hexdigest() for name in names),
        (1,) * len(names),
        tuple(devices.values()),
        tuple(row[str(cameras[name])] for name in names),
        {},
    )


def photo_names(folder: Path) -> list[str]:
    """What photos of a folder and the folders in it are called, in order."""
    paths = (Path(at, name) for at, _, found in os.walk(folder) for name in found)
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.suffix.lower() in ENDINGS)


def _device(folder: Path, name: str) -> tuple[tuple, Device, int]:
    """What tells one device from another, the device, and how it was held. Raises ImageError."""
    file = open_image(folder / name)
    width, height = file.stored
    try:
        focal, known = camera_of(folder / name).focal[0], True
    except CameraError:
        focal, known = GUESSED_FOCAL * max(width, height), False
    tags = _tags(file.image)
    of_exif = tuple(str(tags.get(tag, "")).strip(" \0") for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
    where = Path(name).parent.as_posix()
    told = " ".join(word for word in of_exif if word) if any(of_exif) else "" if where == "." else where
    camera = Camera("SIMPLE_RADIAL", width, height, (focal, width / 2, height / 2, 0.0))
    identity = (*of_exif, round(focal, 3)) if known else (where, *of_exif)
    return (*identity, width, height), Device(camera, known, told or "the camera"), file.orientation


def _tags(image: Image.Image) -> dict:
    """EXIF's main directory, empty where it is damaged."""
    try:
        return dict(Image.Image.getexif(image))
    except Exception:  # Pillow's readers raise whatever they like
        return {}
