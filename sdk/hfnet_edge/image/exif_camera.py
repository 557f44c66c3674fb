"""The camera of a photo that nobody calibrated: what its EXIF says of the focal length, or a stated field of view.

Either is a guess, good to some percent: whoever takes it finds the focal length with the pose
(`hfnet_edge.methods.method.LocalizationConfig.refine_focal`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from hfnet_edge.errors import CameraError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.image_file import ImageFile, open_image

FILM_DIAGONAL = math.hypot(36, 24)  # mm; equivalent focal lengths see as much along the diagonal
UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of the focal plane's resolution, by EXIF's number
WIDEST, NARROWEST = 0.2, 50.0  # focal lengths over the longer side that EXIF is believed: 136 and 1 degrees


def camera_of(path: Path | str, fov: float | None = None) -> Camera:
    """The camera of a photo by its EXIF: by the focal length in 35 mm equivalent, or else by that in millimetres where
    the resolution of the focal plane is known. Where EXIF does not say, by ``fov``.

    Args:
        fov: field of view of the image's longer side, degrees.

    Returns:
        A SIMPLE_PINHOLE of the stored pixels, sideways ones too, with the principal point in the middle.

    Raises:
        ImageError: it cannot be read. CameraError: neither says the focal length, or ``fov`` is none.
    """
    check_fov(fov)
    file = open_image(path)
    width, height = file.stored
    longer = max(width, height)
    focal = _focal(_tags(file), width, height)
    if focal is None and fov is not None:
        focal = longer / 2 / math.tan(math.radians(fov) / 2)
    if focal is None:
        raise CameraError(
            f"the camera of {file.name} is not known: its EXIF has no focal length",
            'give --camera "PINHOLE width height fx fy cx cy" or, of its longer side, --fov DEGREES',
        )
    return Camera("SIMPLE_PINHOLE", width, height, (focal, width / 2, height / 2))


def check_fov(fov: float | None) -> None:
    """Raises CameraError: a field of view that no camera has."""
    if fov is not None and not 1 <= fov <= 170:
        raise CameraError(f"{fov:g} degrees are no field of view of a photo", "give --fov from 1 to 170, as 65")


def _focal(tags: Mapping[int, Any], width: int, height: int) -> float | None:
    """Pixels, as EXIF has it, or None where it does not say or cannot be believed."""
    guesses = []
    if (equivalent := _number(tags, ExifTags.Base.FocalLengthIn35mmFilm)) is not None:
        guesses.append(equivalent / FILM_DIAGONAL * math.hypot(width, height))
    millimetres = _number(tags, ExifTags.Base.FocalLength)
    resolution = _number(tags, ExifTags.Base.FocalPlaneXResolution)
    unit = UNIT_MM.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    if millimetres is not None and resolution is not None and unit is not None:
        taken = [_number(tags, tag) or 0.0 for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight)]
        reduced = max(width, height) / max(taken) if all(taken) else 1.0  # since it was taken
        guesses.append(millimetres / unit * resolution * reduced)
    believed = (focal for focal in guesses if WIDEST < focal / max(width, height) < NARROWEST)
    return next(believed, None)


def _tags(file: ImageFile) -> Mapping[int, Any]:
    """EXIF's own directory of a photo, empty where there is none or it is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on EXIF
            return Image.Image.getexif(file.image).get_ifd(ExifTags.IFD.Exif)
    except Exception:  # Pillow's readers raise whatever they like
        return {}


def _number(tags: Mapping[int, Any], tag: int) -> float | None:
    """A positive number, or None."""
    try:
        value = float(tags[tag])
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None
    return value if 0 < value < math.inf else None
