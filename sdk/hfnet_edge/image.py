"""From an image file to the pixels that the network sees, and back.

An image is turned upright by its EXIF orientation, made grey, resized to fit the network's input with its aspect ratio
kept, and mirrored into what is left. `Photo.to_camera` takes keypoints back to the pixels that the camera describes, so
intrinsics are never changed.
"""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image

from hfnet_edge.errors import CameraError, ImageError
from hfnet_edge.files import read_bytes
from hfnet_edge.geometry import Camera

MIN_SIDE = 32  # below this the encoder's last layer has no pixel of its own
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)  # where Pillow takes an image for a decompression bomb
MAX_FILE = 1 << 28  # bytes
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height

# EXIF orientation to what brings the stored image upright (EXIF 2.3, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Photo:
    """An image as the network sees it.

    Attributes:
        pixels: (H, W) uint8 grey, the network's input size; the image lies at the top left, the rest mirrors it.
        valid: (height, width) of the image inside ``pixels``.
        size: (width, height) of the upright image in full resolution.
        orientation: EXIF orientation that keypoints are turned back by; 1 when the camera describes the upright image.
    """

    pixels: np.ndarray
    valid: tuple[int, int]
    size: tuple[int, int]
    orientation: int = 1

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels of the full image per pixel of the network's input, in x and y."""
        return self.size[0] / self.valid[1], self.size[1] / self.valid[0]

    @property
    def image(self) -> np.ndarray:
        """(height, width) uint8: the image alone, without what mirrors it."""
        return np.ascontiguousarray(self.pixels[: self.valid[0], : self.valid[1]])

    def to_camera(self, xy: np.ndarray) -> np.ndarray:
        """(N, 2) pixels of the network's input to (N, 2) float64 pixels of the image that the camera describes."""
        x, y = (np.asarray(xy, np.float64) * self.scale).T
        w, h = self.size
        back = {
            1: (x, y), 2: (w - x, y), 3: (w - x, h - y), 4: (x, h - y),
            5: (y, x), 6: (y, w - x), 7: (h - y, w - x), 8: (h - y, x),
        }  # fmt: skip
        return np.stack(back[self.orientation], axis=1)


def load_photo(path: Path | str, input_size: tuple[int, int], camera: Camera | None = None) -> Photo:
    """Reads an image file for a network of ``input_size`` (height, width).

    8 and 16 bit, grey, colour, palette, CMYK and alpha (ignored) become 8-bit grey (Rec. 601 luma). A sideways image
    is turned upright for the network. If ``camera`` has the stored (sideways) size, keypoints are turned back, so that
    the pose is that of the camera as described.

    Raises:
        ImageError: missing, empty, damaged, too small or too large.
        CameraError: the camera's size is neither the upright nor the stored size.
    """
    grey, orientation, stored = _decode(path, input_size)
    size = stored[::-1] if orientation in TURNED else stored
    if camera is not None:
        if (camera.width, camera.height) == size:
            orientation = 1
        elif (camera.width, camera.height) != stored:
            raise CameraError(
                f"{path} is {size[0]}x{size[1]}, its camera {camera.width}x{camera.height}",
                "give the intrinsics for this size",
            )
    else:
        orientation = 1
    pixels, valid = fit(grey, input_size)
    return Photo(pixels, valid, size, orientation)


def fit(grey: np.ndarray, input_size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Resizes (h, w) uint8 into (H, W), aspect ratio kept up to a pixel, and mirrors the image into the rest.

    OpenCV's INTER_AREA and INTER_LINEAR round differently on x86 and ARM, and one grey level in 2000 pixels moves poses
    by millimetres. So images are reduced by `shrink`, and enlarged by OpenCV's INTER_LINEAR_EXACT.

    Returns the pixels and the (height, width) that the image takes.
    """
    h, w = grey.shape
    scale = min(input_size[0] / h, input_size[1] / w)
    valid = (max(1, min(input_size[0], round(h * scale))), max(1, min(input_size[1], round(w * scale))))
    if scale < 1:
        grey = shrink(grey, valid)
    elif valid != (h, w):
        grey = cv2.resize(grey, valid[::-1], interpolation=cv2.INTER_LINEAR_EXACT)
    bottom, right = input_size[0] - valid[0], input_size[1] - valid[1]
    return cv2.copyMakeBorder(grey, 0, bottom, 0, right, cv2.BORDER_REFLECT_101), valid


def shrink(grey: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduces (h, w) uint8 to ``size`` (height, width): each pixel is the mean of the area that it covers, in integers,
    a half rounded up.

    Along an axis of h pixels that become H, in units of 1 / H of a pixel, a pixel spans H and a reduced one h: weights
    are whole numbers.
    """
    (rows, height), (columns, width) = (_spans(*lengths) for lengths in zip(grey.shape, size, strict=True))
    area = height * width
    wide = np.int32 if 511 * area < 2**31 else np.int64
    sums = _weighted(_weighted(grey.astype(wide), rows).T.copy(), columns).T
    return ((2 * sums + area) // (2 * area)).astype(np.uint8)


def _spans(length: int, reduced: int) -> tuple[list[tuple[np.ndarray, np.ndarray]], int]:
    """Which pixels of an axis the reduced ones cover: pairs of index and weight, (reduced,) int64 each; their sum."""
    common = math.gcd(length, reduced)
    covered, unit = length // common, reduced // common
    start = np.arange(reduced) * covered
    taps = []
    for k in range(-(-covered // unit) + 1):
        pixel = start // unit + k
        weight = np.minimum((pixel + 1) * unit, start + covered) - np.maximum(pixel * unit, start)
        taps.append((np.minimum(pixel, length - 1), np.maximum(weight, 0)))
    return taps, covered


def _weighted(image: np.ndarray, taps: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Sums of weighted rows."""
    return sum(image[pixel] * weight[:, None].astype(image.dtype) for pixel, weight in taps)  # type: ignore[return-value]


def _decode(path: Path | str, input_size: tuple[int, int]) -> tuple[np.ndarray, int, tuple[int, int]]:
    """Upright grey pixels (perhaps already reduced), the EXIF orientation, and the stored (width, height)."""
    try:
        content = read_bytes(path)
    except OSError as e:
        raise ImageError(f"cannot read the image {path}: {e.strerror}", "check the file's name") from e
    except TypeError as e:
        raise ImageError(f"a {type(path).__name__} is not the path of an image", "give a file name") from e
    if not content:
        raise ImageError(f"the image {path} is empty (0 bytes)", "copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on palettes and EXIF
            image = Image.open(io.BytesIO(content))
            stored = image.size
            if min(stored) < MIN_SIDE:
                raise ImageError(f"{path} is {stored[0]}x{stored[1]}, below {MIN_SIDE} pixels", "give a larger image")
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
            orientation = orientation if orientation in _UPRIGHT else 1
            # A JPEG decodes straight to grey and, where it is much larger than needed, at a half, quarter or eighth:
            # only where that is exact, so that the pixel convention holds to the last column.
            turned = input_size[::-1] if orientation in TURNED else input_size
            excess = max(1.0, stored[0] / turned[1], stored[1] / turned[0]) if not any(s % 8 for s in stored) else 1.0
            image.draft("L", (int(stored[0] / excess), int(stored[1] / excess)))
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
            elif image.mode in ("I", "F"):
                raise ImageError(f"{path} has 32-bit pixels", "save it with 8 or 16 bits")
            else:
                grey = np.asarray(image.convert("L"))
            if orientation != 1:
                grey = np.asarray(Image.fromarray(grey).transpose(_UPRIGHT[orientation]))
    except ImageError:
        raise
    except Image.DecompressionBombError as e:
        raise ImageError(f"{path} is more than {MAX_PIXELS // 10**6} Mpx", "reduce it") from e
    except Exception as e:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
        raise ImageError(f"the image {path} does not decode: {e}", "give a JPEG, PNG, TIFF or WebP file") from e
    return np.ascontiguousarray(grey), orientation, stored
