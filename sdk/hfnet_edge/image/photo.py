"""A `Photo` leads from an image file to the pixels that the network sees, and back.

An image is turned upright by its EXIF orientation, made grey, resized to fit the network's input with its aspect ratio
kept, and mirrored into what is left. `Photo.to_camera` takes keypoints back to the pixels that the camera describes, so
intrinsics are never changed. Which files are read, and how large they may be, stands in `hfnet_edge.image.image_file`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from hfnet_edge.geometry import Camera
from hfnet_edge.image.frame import AnyImage, Colors, Frame, open_any
from hfnet_edge.image.image_file import TURNED, ImageFile

BAND = 1 << 20  # pixels that are reduced at a time


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

    def from_camera(self, xy: np.ndarray) -> np.ndarray:
        """The inverse of `to_camera`: (N, 2) float64."""
        x, y = np.asarray(xy, np.float64).T
        w, h = self.size
        there = {
            1: (x, y), 2: (w - x, y), 3: (w - x, h - y), 4: (x, h - y),
            5: (y, x), 6: (w - y, x), 7: (w - y, h - x), 8: (y, h - x),
        }  # fmt: skip
        return np.stack(there[self.orientation], axis=1) / self.scale


def load_photo(
    image: AnyImage,
    input_size: tuple[int, int],
    camera: Camera | None = None,
    colors: Colors | None = None,
    rotation: int | None = None,
) -> Photo:
    """Reads an image for a network of ``input_size`` (height, width).

    8 and 16 bit, grey, colour, palette, CMYK and alpha (ignored) become 8-bit grey (Rec. 601 luma). A sideways image
    is turned upright for the network. If ``camera`` has the stored (sideways) size, keypoints are turned back, so that
    the pose is that of the camera as described.

    Args:
        image, colors, rotation: see `hfnet_edge.image.frame.open_any`.

    Raises:
        ImageError: missing, empty, damaged, too small, too large, or of a format that is not read.
        CameraError: the camera's size is neither the upright nor the stored size.
        InputError: see `hfnet_edge.image.frame.open_any`.
    """
    return photo_of(open_any(image, colors, rotation), input_size, camera)


def photo_of(file: ImageFile | Frame, input_size: tuple[int, int], camera: Camera | None = None) -> Photo:
    """The same of an image that is open."""
    turned_back_by = file.orientation_of(camera)
    need = input_size[::-1] if file.orientation in TURNED else input_size
    grey = file.grey(excess=max(1.0, file.stored[0] / need[1], file.stored[1] / need[0]))
    pixels, valid = fit(grey, input_size)
    return Photo(pixels, valid, file.size, turned_back_by)


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
    reduced, step = np.empty(size, np.uint8), max(1, BAND // grey.shape[1])
    for start in range(0, size[0], step):
        band = [(pixel[start : start + step], weight[start : start + step]) for pixel, weight in rows]
        sums = _weighted(_weighted(grey, band, wide).T.copy(), columns, wide).T
        reduced[start : start + step] = (2 * sums + area) // (2 * area)
    return reduced


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


def _weighted(image: np.ndarray, taps: list[tuple[np.ndarray, np.ndarray]], wide: type) -> np.ndarray:
    """Sums of weighted rows."""
    return sum(image[pixel] * weight[:, None].astype(wide) for pixel, weight in taps)  # type: ignore[return-value]
