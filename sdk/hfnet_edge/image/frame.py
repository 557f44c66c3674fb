"""Images as callers have them: a file, its bytes, a picture of Pillow's, or a frame in memory, as a camera delivers it.

All come down to one thing: stored pixels, and how they are to be turned to be upright. Of a JPEG the network sees the
luma that is stored in it; colours in memory become luma as Pillow makes it, in whole numbers. So the same grey levels
give the same bits in whatever form they come, and a phone's Y plane is used as it is.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image

from hfnet_edge.errors import ImageError, InputError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.image_file import MAX_PIXELS, MIN_SIDE, ImageFile, Oriented, open_image, turned

Colors = Literal["rgb", "bgr"]
Rotation = Literal[0, 90, 180, 270]
ROTATIONS: dict[int, int] = {0: 1, 90: 6, 180: 3, 270: 8}  # degrees clockwise to EXIF's orientation
ANY = "any"  # rotation: to be found
AnyImage = Path | str | bytes | Image.Image | np.ndarray
ARRAY = (
    "give a (H, W) uint8 array of grey levels (a Y plane may have a stride), or (H, W, 3) with colors='rgb' or 'bgr'"
)


@dataclass(frozen=True)
class Frame(Oriented):
    """Pixels in memory.

    Attributes:
        pixels: (H, W) uint8 grey, of any strides, or (H, W, 3). colors: "rgb" or "bgr"; None: they are grey.
        stored: W, H.
    """

    name: str
    pixels: np.ndarray
    colors: Colors | None
    stored: tuple[int, int]
    orientation: int = 1
    as_stored: bool = False

    def grey(self, camera: Camera | None = None, excess: float = 1.0) -> np.ndarray:
        """As of `hfnet_edge.image.image_file.ImageFile`, of which ``excess`` is not used. No copy where it is grey."""
        return turned(_luma(self.pixels, self.colors), self.turn_for(camera))

    def rgb(self, camera: Camera | None = None, excess: float = 1.0) -> np.ndarray:
        """The same in colours, (H, W, 3) uint8."""
        pixels = self.pixels
        if self.colors is None:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        elif self.colors == "bgr":
            pixels = pixels[..., ::-1]
        return np.ascontiguousarray(turned(pixels, self.turn_for(camera)))


def open_any(image: AnyImage, colors: Colors | None = None, rotation: int | None = None) -> ImageFile | Frame:
    """An image in whatever form it is.

    Args:
        image: a file's name or bytes, a picture of Pillow's, (H, W) uint8 grey levels of any strides, or (H, W, 3).
        colors: the order of an array's channels; there is none to assume.
        rotation: degrees clockwise, 0, 90, 180 or 270, by which the stored pixels must be turned to be upright, as
            Android's `ImageProxy` and sensors say it. EXIF is then not asked, and the camera describes the stored
            pixels. None: as EXIF says; arrays are upright.

    Raises:
        ImageError: it does not decode, or is no image. InputError: ``colors`` or ``rotation`` is not one of these.
    """
    if colors not in (None, "rgb", "bgr"):
        raise InputError(f"colors is {colors!r:.40}", "give 'rgb' or 'bgr'")
    if rotation is not None and (isinstance(rotation, bool) or rotation not in ROTATIONS):
        raise InputError(f"rotation is {rotation!r:.40}", "give 0, 90, 180 or 270 degrees clockwise")
    if isinstance(image, np.ndarray):
        found: ImageFile | Frame = _of_array(image, colors)
    elif colors is not None:
        raise InputError("colors is for arrays", "leave it out: files say it themselves")
    else:
        found = _of_pillow(image) if isinstance(image, Image.Image) else open_image(image)
    return found if rotation is None else turned_by(found, rotation)


def as_described(image: ImageFile | Frame, camera: Camera) -> tuple[Frame, int]:
    """An image decoded as a camera describes it, grey, and the degrees clockwise by which it is upright by EXIF.

    Raises: ImageError, CameraError: see `ImageFile.grey`.
    """
    turns = {orientation: degrees for degrees, orientation in ROTATIONS.items()}
    grey = image.grey(camera)
    frame = Frame(image.name, grey, None, (grey.shape[1], grey.shape[0]), as_stored=True)
    return frame, turns.get(image.orientation_of(camera), 0)


def turned_by(image: ImageFile | Frame, rotation: int) -> ImageFile | Frame:
    """An image that is upright when its stored pixels are turned by so many degrees clockwise."""
    return replace(image, orientation=ROTATIONS[rotation], as_stored=True)


def _of_array(pixels: np.ndarray, colors: Colors | None) -> Frame:
    name = "the array"
    shown = f"{name} is {pixels.dtype} of shape {pixels.shape}"
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise ImageError(shown, ARRAY)
    if (pixels.ndim == 3) != (colors is not None):
        raise ImageError(f"{shown}, and colors is {colors!r}", ARRAY)
    if min(pixels.shape[:2]) < MIN_SIDE or pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise ImageError(
            f"{name} is {pixels.shape[1]}x{pixels.shape[0]}",
            f"sides are {MIN_SIDE} pixels at least, and {MAX_PIXELS >> 20} Mpx the most",
        )
    return Frame(name, pixels, colors, (pixels.shape[1], pixels.shape[0]))


def _of_pillow(image: Any) -> ImageFile | Frame:
    """A picture that is not decoded yet is read as its file."""
    name = str(getattr(image, "filename", "") or "the picture")
    file = getattr(image, "fp", None)
    if file is not None and getattr(image, "tile", None) and hasattr(file, "seek"):
        try:
            at = file.tell()
            file.seek(0)
            content = file.read()
            file.seek(at)
            return replace(open_image(content), name=name)
        except (OSError, ValueError, io.UnsupportedOperation) as e:
            raise ImageError(f"{name} cannot be read: {e}", "open it again") from e
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        grey = image.mode in ("1", "L", "I;16", "I;16B", "I;16L")
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("L" if grey else "RGB"))
    except Exception as e:  # Pillow raises whatever it likes
        raise ImageError(f"{name} does not decode: {e}", "give a picture of mode L or RGB") from e
    frame = _of_array(pixels, None if pixels.ndim == 2 else "rgb")
    return replace(frame, name=name, orientation=orientation if orientation in range(1, 9) else 1)


def _luma(pixels: np.ndarray, colors: Colors | None) -> np.ndarray:
    """(H, W) uint8: Rec. 601 in whole numbers, as Pillow has it."""
    if colors is None:
        return pixels
    height, width = pixels.shape[:2]
    order = "RGB" if colors == "rgb" else "BGR"
    if pixels.strides[1:] == (3, 1) and pixels.strides[0] >= 3 * width and pixels.flags.c_contiguous:
        image = Image.frombuffer("RGB", (width, height), pixels, "raw", order, 0, 1)
    else:
        image = Image.frombytes("RGB", (width, height), pixels.tobytes(), "raw", order, 0, 1)
    return np.asarray(image.convert("L"))
