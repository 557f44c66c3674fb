"""Keypoints with scale and orientation are found here, and upright patches cut around them (paper 002, section 5.1).

The detector is OpenCV's SIFT. A patch is a square of `PATCH_SCALE` times the keypoint's scale, turned by its
orientation, sampled to 32x32, with its light taken out: mean 128, standard deviation 42.

Positions are rounded to 1/65536 pixel; from there on cutting is integer arithmetic, so the same keypoints give the same
patches on every device.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hfnet_edge.errors import ImageError, InputError

SIDE = 32  # pixels of a patch
PATCH_SCALE = 13.0  # side of the square in units of the keypoint's scale (section 5.1: best at 13)
CONTRAST = 0.01  # the detector's threshold; OpenCV's default of 0.04 finds little in dark images
MAX_SIDE = 16384  # pixels of an image: positions in the atlas fit 32 bits
ANGLES = 4096  # steps of a turn
MEAN, DEVIATION = 128, 42  # of a patch's grey levels
_ONE = 16  # fractional bits of a position while a patch is cut
_STEP = 5  # fractional bits of an interpolation weight


@dataclass(frozen=True)
class PatchKeypoints:
    """Keypoints that patches are cut around; N of them.

    Attributes:
        xy: (N, 2) float32 pixels, pixel centres at 0.5.
        scale: (N,) float32 pixels, the standard deviation of the Gaussian that the keypoint was found with.
        angle: (N,) float32 radians, from the image's x axis towards its y axis.
        scores: (N,) float32, the detector's response.
    """

    xy: np.ndarray
    scale: np.ndarray
    angle: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.xy)

    def __getitem__(self, rows: np.ndarray) -> PatchKeypoints:
        return PatchKeypoints(self.xy[rows], self.scale[rows], self.angle[rows], self.scores[rows])

    def inside(self, size: tuple[int, int]) -> np.ndarray:
        """(N,) bool: the whole patch lies in an image of ``size`` (height, width), and there is one: scale > 0."""
        turned = np.abs(np.cos(self.angle)) + np.abs(np.sin(self.angle))
        reach = (self.scale * turned * np.float32(PATCH_SCALE / 2))[:, None]
        limit = np.array([size[1], size[0]], np.float32)
        return ((self.xy >= reach) & (self.xy <= limit - reach)).all(axis=1) & (self.scale > 0)


def detect(image: np.ndarray, count: int) -> PatchKeypoints:
    """The ``count`` strongest SIFT keypoints whose patches lie in the image, strongest first.

    OpenCV's angles differ by 1e-6 between x86 and ARM, its other numbers do not. So angles are rounded to 1/4096 turn.

    Args:
        image: (H, W) uint8.
    """
    detector = cv2.SIFT.create(contrastThreshold=CONTRAST, enable_precise_upscale=True)
    found = detector.detect(image)
    rows = np.array([(*k.pt, k.size, k.angle, k.response) for k in found], np.float32).reshape(-1, 5)
    turns = np.rint(rows[:, 3] * np.float32(ANGLES / 360)) % ANGLES
    angle = turns * np.float32(2 * np.pi / ANGLES)
    keypoints = PatchKeypoints(rows[:, :2] + np.float32(0.5), rows[:, 2] / 2, angle, rows[:, 4])
    keypoints = keypoints[keypoints.inside(image.shape)]
    order = np.lexsort((keypoints.angle, keypoints.xy[:, 0], keypoints.xy[:, 1], -keypoints.scores))
    return keypoints[order[:count]]


def cut(image: np.ndarray, keypoints: PatchKeypoints) -> np.ndarray:
    """The patches of all keypoints in one pass.

    A patch is sampled from the level of an image pyramid (each level halves the one before) at which its samples are
    0.7 to 1.4 pixels apart, or from the image itself where they are closer; bilinearly, with weights of 1/32. The
    pyramid lies in one atlas, so one gather reads it.

    Args:
        image: (H, W) uint8, at most `MAX_SIDE` pixels wide and high.

    Returns:
        (N, 32, 32) uint8, mean 128 and standard deviation 42; a patch without any contrast is 128 all over.

    Raises:
        ImageError: not a grey image, or too large. InputError: a patch leaves the image, or a keypoint is not finite.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or not image.size:
        raise ImageError(f"patches are cut from grey images, not {image.dtype} {image.shape}", "give (H, W) uint8")
    if max(image.shape) > MAX_SIDE:
        raise ImageError(f"patches are not cut from images of {image.shape[1]}x{image.shape[0]}", "reduce it")
    with np.errstate(invalid="ignore"):
        outside = ~keypoints.inside(image.shape)
    if outside.any():
        raise InputError(
            f"{int(outside.sum())} of {len(keypoints)} patches leave the image", "keep those that are inside() it"
        )
    step = keypoints.scale.astype(np.float64) * (PATCH_SCALE / SIDE)
    atlas, origin, levels = _atlas(image, step)
    shrink = 2.0**-levels
    x_axis = np.stack([np.cos(keypoints.angle, dtype=np.float64), np.sin(keypoints.angle, dtype=np.float64)], 1)
    x_axis *= (step * shrink)[:, None]
    corner = keypoints.xy * shrink[:, None] - 0.5 + origin[levels]
    corner -= (SIDE - 1) / 2 * (x_axis + np.stack([-x_axis[:, 1], x_axis[:, 0]], 1))
    (cos, sin), (x0, y0) = (np.rint(v.T * 2**_ONE).astype(np.int32)[..., None, None] for v in (x_axis, corner))
    across = np.arange(SIDE, dtype=np.int32)
    down = across[:, None]
    x = (x0 + across * cos - down * sin) >> (_ONE - _STEP)
    y = (y0 + across * sin + down * cos) >> (_ONE - _STEP)
    # Two 16-bit lanes, the upper and the lower pixel: one multiplication interpolates both.
    four = atlas.ravel().take((y >> _STEP) * atlas.shape[1] + (x >> _STEP))
    one, mask = np.uint32(1 << _STEP), np.uint32((1 << _STEP) - 1)
    fx, fy = x.view(np.uint32) & mask, y.view(np.uint32) & mask
    lanes = np.uint32(0x00FF00FF)
    pair = (four & lanes) * (one - fx) + (four >> np.uint32(8) & lanes) * fx
    sampled = (pair & np.uint32(0xFFFF)) * (one - fy) + (pair >> np.uint32(16)) * fy
    return _without_light(sampled.reshape(len(keypoints), SIDE * SIDE)).reshape(-1, SIDE, SIDE)


def _atlas(image: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pyramid as one image of 2x2 neighbourhoods: (h, w) uint32; where each level starts, (L, 2) in x and y; and
    the level of each patch, (N,)."""
    highest = max(0, int(np.log2(min(image.shape))))
    levels = np.clip(np.ceil(np.log2(np.maximum(step, 1e-6)) - 0.5), 0, highest).astype(np.int64)
    pyramid = [image]
    for _ in range(int(levels.max(initial=0))):
        pyramid.append(_halved(pyramid[-1]))
    height, width = image.shape
    beside = pyramid[1].shape[1] + 2 if len(pyramid) > 1 else 0
    canvas = np.zeros((height + 2 * len(pyramid), width + 2 + beside), np.uint8)
    origin = np.zeros((len(pyramid), 2))
    x = y = 0
    for level, pixels in enumerate(pyramid):  # each with a frame of one pixel: samples reach half a pixel outside
        h, w = pixels.shape
        origin[level] = x + 1, y + 1
        canvas[y : y + h + 2, x : x + w + 2] = np.pad(pixels, 1, "edge")
        x, y = (width + 2, 0) if level == 0 else (x, y + h + 2)
    wide = canvas.astype(np.uint32)
    four = wide.copy()
    four[:, :-1] |= wide[:, 1:] << np.uint32(8)
    four[:-1] |= four[1:] << np.uint32(16)
    return four, origin, levels


def _halved(image: np.ndarray) -> np.ndarray:
    """Each 2x2 pixels to their mean, a half rounded up; an odd last row or column counts twice."""
    even = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2)), "edge").astype(np.uint16)
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) >> 2).astype(np.uint8)


def _without_light(samples: np.ndarray) -> np.ndarray:
    """(N, P) uint32 in units of 1/1024 grey level to uint8 of mean 128 and standard deviation 42.

    Sums are integers; what follows is elementwise IEEE arithmetic, which every processor rounds alike.
    """
    n = samples.shape[1]
    total = samples.sum(axis=1, dtype=np.int64)
    squares = np.einsum("np,np->n", samples.astype(np.float64), samples.astype(np.float64))
    deviation = np.sqrt(np.maximum(squares / n - np.square(total / n), 0.0))
    gain = (DEVIATION / np.maximum(deviation, 1 << (2 * _STEP))).astype(np.float32)  # at least one grey level
    centred = samples.astype(np.float32) - (total / n).astype(np.float32)[:, None]
    return np.clip(np.rint(centred * gain[:, None]) + np.float32(MEAN), 0, 255).astype(np.uint8)
