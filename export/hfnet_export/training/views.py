"""Views: what the student sees of a training image. A random homography, then other light, noise and blur.

The teachers' answers on the clean image are carried along, so the student learns to see the same through both.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from hfnet_edge.image.keypoints import CELL


def random_homography(size: tuple[int, int], side: int, rng: np.random.Generator, warped: bool) -> np.ndarray:
    """(3, 3) from pixels of an image of ``size`` (H, W) to those of a square view, pixel centres at 0.5.

    Warped: 0.7 to 1.4 times as large, turned by up to 30 degrees, seen from up to about 40 degrees aside. Not warped: a
    window of the image as it is, where sub-pixel positions are learnt without resampling.
    """
    h, w = size
    if not warped:
        x, y = rng.integers(max(1, w - side + 1)), rng.integers(max(1, h - side + 1))
        return np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]], float)
    scale = math.exp(rng.uniform(math.log(0.7), math.log(1.4)))
    angle = math.radians(rng.normal(0, 12))
    squeeze = math.exp(rng.normal(0, 0.12))
    c, s = math.cos(angle), math.sin(angle)
    affine = np.array([[c, -s], [s, c]]) * (scale * squeeze, scale / squeeze)
    reach = side / 2 / scale
    centre = [rng.uniform(min(reach, length / 2), max(length - reach, length / 2)) for length in (w, h)]
    out = np.eye(3)
    out[:2, :2], out[:2, 2] = affine, -affine @ centre
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-0.3, 0.3, 2) / side
    back = np.array([[1, 0, side / 2], [0, 1, side / 2], [0, 0, 1]])
    return back @ tilt @ out


def transform(homography: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(N, 2) points through a homography."""
    mapped = np.concatenate([xy, np.ones((len(xy), 1))], axis=1) @ homography.T
    return mapped[:, :2] / mapped[:, 2:]


def warp(image: np.ndarray, homography: np.ndarray, side: int) -> np.ndarray:
    """The view (side, side) of an image; beyond its edges it is mirrored. OpenCV's pixel centres are at 0."""
    shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    matrix = np.linalg.inv(shift) @ homography @ shift
    return cv2.warpPerspective(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def cells_inside(homography: np.ndarray, size: tuple[int, int], side: int) -> np.ndarray:
    """(side / 8, side / 8) bool: cells of the view whose corners all lie in the image; elsewhere nothing is taught."""
    corners = np.stack(np.meshgrid(*[np.arange(0, side + 1, CELL)] * 2), axis=-1).reshape(-1, 2)
    x, y = transform(np.linalg.inv(homography), corners).T
    inside = ((x >= 0) & (y >= 0) & (x <= size[1]) & (y <= size[0])).reshape(side // CELL + 1, -1)
    return inside[:-1, :-1] & inside[1:, :-1] & inside[:-1, 1:] & inside[1:, 1:]


def keypoint_labels(xy: np.ndarray, scores: np.ndarray, side: int) -> np.ndarray:
    """Soft labels (side / 8, side / 8, 65) float32 that sum to one, from keypoints (M, 2) inside a view.

    A keypoint is splatted on the four pixels around it, so that the label's expectation is the sub-pixel position. A
    cell's 64 labels are its keypoints' squared scores normalised, times the highest score; the 65th is the rest.
    """
    splat, best = np.zeros(side * side), np.zeros((side // CELL) ** 2)
    px, py = (xy - 0.5).T
    x0, y0 = np.floor(px).astype(int), np.floor(py).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - np.abs(px - (x0 + dx))) * (1 - np.abs(py - (y0 + dy))) * scores**2
            at = np.clip(y0 + dy, 0, side - 1) * side + np.clip(x0 + dx, 0, side - 1)
            splat += np.bincount(at, weight, side * side)
    x, y = np.clip((xy // CELL).astype(int), 0, side // CELL - 1).T
    np.maximum.at(best, y * (side // CELL) + x, scores)
    cells = to_cells(splat.reshape(side, side))
    total = cells.sum(axis=-1, keepdims=True)
    best = best.reshape(*cells.shape[:2], 1)
    labels = np.zeros((*cells.shape[:2], CELL**2 + 1), np.float32)
    labels[..., :-1] = np.divide(cells * best, total, out=np.zeros_like(cells), where=(total > 0) & (best > 0))
    labels[..., -1] = 1 - labels[..., :-1].sum(axis=-1)
    return labels


def to_cells(image: np.ndarray) -> np.ndarray:
    """(H, W) to (H/8, W/8, 64), row-major inside a cell."""
    h, w = image.shape
    return image.reshape(h // CELL, CELL, w // CELL, CELL).transpose(0, 2, 1, 3).reshape(h // CELL, w // CELL, CELL**2)


def change_light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise, motion blur, brightness and contrast in random order (appendix A.2), and in one view of four a dark
    exposure with a sensor's noise. (H, W) uint8 in and out."""
    x: np.ndarray = image.astype(np.float32)
    for change in rng.permutation(5):
        if change == 0:
            x = x + rng.uniform(0, 8) * rng.standard_normal(x.shape, np.float32)
        elif change == 1 and rng.random() < 0.3:
            x = _motion_blur(x, rng)
        elif change == 2:
            x = x + rng.uniform(-50, 50)
        elif change == 3:
            x = (x - x.mean()) * np.exp(rng.uniform(-0.7, 0.5)) + x.mean()
        elif change == 4 and rng.random() < 0.25:
            x = _dark(x, rng)
    return np.clip(x, 0, 255).astype(np.uint8)


def _motion_blur(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    length, angle = rng.integers(2, 8), rng.uniform(0, math.pi)
    kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
    d = np.array([math.cos(angle), math.sin(angle)]) * length / 2
    a, b = np.round(length - d).astype(int), np.round(length + d).astype(int)
    cv2.line(kernel, tuple(map(int, a)), tuple(map(int, b)), 1.0)
    return cv2.filter2D(x, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def _dark(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A short exposure: 1/2 to 1/32 of the light, shot and read noise, eight bits."""
    light = (np.clip(x, 0, 255) / np.float32(255)) ** np.float32(2.2) * np.float32(2.0 ** -rng.uniform(1, 5))
    full_well = np.float32(2.0 ** rng.uniform(10, 13))  # electrons of a white pixel
    electrons = light * full_well
    electrons += np.sqrt(electrons + rng.uniform(2, 8) ** 2) * rng.standard_normal(x.shape, np.float32)
    return np.rint(255 * np.maximum(electrons / full_well, 0) ** np.float32(1 / 2.2)).astype(np.float32)
