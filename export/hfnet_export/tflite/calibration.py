"""Images that show the quantizer which values each layer takes: the user's photos, or a set made by code.

Pixels only; `Description.scale` turns them into the network's input, here as on the phone.
"""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.image.photo import load_photo
from hfnet_edge.shell.command_files import PICTURES

MAX_PHOTOS = 64
BUILT_IN = 24


def image_files(folder: Path) -> list[Path]:
    """Every image below a folder, sorted by name. Raises InputError: no such folder, or no image in it."""
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}", "check its name")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not files:
        raise InputError(f"there are no images in {folder}", f"give a folder of {', '.join(sorted(PICTURES))} files")
    return files


def photos(folder: Path, input_size: tuple[int, int], count: int = MAX_PHOTOS) -> list[np.ndarray]:
    """Up to ``count`` photos of a folder, evenly picked by name, as the network sees them: (H, W) uint8 each.

    Raises:
        InputError: no images; ImageError names the one that does not load.
    """
    files = image_files(folder)
    return [load_photo(files[i], input_size).pixels for i in evenly(len(files), count)]


def evenly(total: int, count: int) -> np.ndarray:
    """Up to ``count`` indices below ``total``, the first and the last among them, at even distances."""
    return np.unique(np.linspace(0, max(total - 1, 0), min(count, total)).round().astype(int))


def built_in_images(input_size: tuple[int, int], count: int = BUILT_IN, seed: int = 0) -> list[np.ndarray]:
    """Grey images with what photos have: 1/f texture, edges at all angles, repeated structure, text, blur, noise,
    and exposures from night to glare. (H, W) uint8 each; the same ones every time."""
    rng = np.random.default_rng(seed)
    exposures = rng.permutation(np.linspace(0, 1, count))
    return [_scene(input_size, exposure, rng) for exposure in exposures]


def _scene(size: tuple[int, int], exposure: float, rng: np.random.Generator) -> np.ndarray:
    """One image; ``exposure`` 0 is dark, 1 is bright."""
    h, w = size
    image = 128 + 40 * _noise(size, rng.uniform(1.0, 1.6), rng)
    image += np.linspace(-1, 1, h)[:, None] * rng.uniform(-50, 50)  # sky above ground, or a lit floor
    image = image.astype(np.float32)
    for _ in range(rng.integers(12, 30)):
        _surface(image, rng)
    for _ in range(rng.integers(1, 4)):
        _facade(image, rng)
    drawn = np.clip(image, 0, 255).astype(np.uint8)  # OpenCV draws smooth lines and text on 8 bits only
    for _ in range(rng.integers(5, 15)):
        a, b = rng.integers(0, (w, h), (2, 2)).tolist()
        cv2.line(drawn, a, b, int(rng.integers(256)), int(rng.integers(1, 4)), cv2.LINE_AA)
    for _ in range(rng.integers(2, 6)):
        text = "".join(map(chr, rng.integers(ord("0"), ord("z"), rng.integers(3, 9))))
        at, scale = rng.integers(0, (w, h)).tolist(), rng.uniform(0.4, 2.0)
        cv2.putText(drawn, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, int(rng.integers(256)), 2, cv2.LINE_AA)
    image = drawn.astype(np.float32)
    image += 8 * _noise(size, rng.uniform(0.3, 0.8), rng)  # fine texture on all surfaces
    if rng.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 2.0))
    image = (np.clip(image, 0, 255) / 255) ** np.float32(2.0 ** (1.2 - 2.4 * exposure))
    contrast = rng.uniform(0.4, 1.3)
    image = (image - 0.5) * contrast + 0.5 + (exposure - 0.5) * 0.4
    image += rng.normal(0, rng.uniform(0, 0.03), size)
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


def _noise(size: tuple[int, int], power: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise with amplitude 1 / frequency**power, zero mean, unit variance."""
    frequency = np.hypot(np.fft.fftfreq(size[0])[:, None], np.fft.rfftfreq(size[1])[None])
    frequency[0, 0] = np.inf
    x = np.fft.irfft2(np.fft.rfft2(rng.normal(size=size)) / frequency**power, s=size)
    return x / x.std()


def _surface(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draws a polygon with its own brightness, shading and texture."""
    h, w = image.shape
    centre = rng.uniform(0, (w, h))
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
    radii = rng.uniform(0.03, 0.35) * min(h, w) * rng.uniform(0.5, 1.0, len(angles))
    corners = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mask = np.zeros(image.shape, np.uint8)
    cv2.fillPoly(mask, [corners.astype(np.int32)], 255, cv2.LINE_AA)
    x, y = (
        np.arange(w, dtype=np.float32) - np.float32(centre[0]),
        np.arange(h, dtype=np.float32)[:, None] - np.float32(centre[1]),
    )
    level, across, down, opacity = rng.uniform((0, -0.5, -0.5, 0.6), (255, 0.5, 0.5, 1.0)).astype(np.float32)
    shade = level + across * x + down * y
    alpha = mask * (opacity / np.float32(255))
    image += alpha * (shade - image)


def _facade(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draws a grid of windows seen at an angle."""
    h, w = image.shape
    rows, columns, cell = rng.integers(3, 8), rng.integers(3, 10), 24
    flat = np.full((rows * cell, columns * cell), rng.uniform(40, 220), np.float32)
    for row in range(rows):
        for column in range(columns):
            y, x = row * cell + 5, column * cell + 6
            flat[y : y + 15, x : x + 12] = rng.uniform(0, 255)
    unit_square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    source = (unit_square * flat.shape[::-1]).astype(np.float32)
    corner, extent = rng.uniform(-0.1, 0.6, 2) * (w, h), rng.uniform(0.2, 0.6, 2) * (w, h)
    target = (corner + (unit_square + rng.uniform(-0.15, 0.15, (4, 2))) * extent).astype(np.float32)
    homography = cv2.getPerspectiveTransform(source, target)
    drawn = cv2.warpPerspective(flat, homography, (w, h))
    mask = cv2.warpPerspective(np.ones_like(flat), homography, (w, h))
    image += mask * (drawn - image)
