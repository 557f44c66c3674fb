"""Pairs of 480x640 images with a known homography: other viewpoints and other light made from held-out training images,
and two real HPatches sequences. Deterministic; pixel centres at (0.5, 0.5)."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scenes import DATA

from hfnet_export.tflite.calibration import image_files
from hfnet_export.training.distill import DistillConfig

SIZE = (480, 640)
GROUPS = ("viewpoint", "light", "real")
SEED = 0


@dataclass(frozen=True)
class Pair:
    """Two images, by index in `Pairs.images`, and the homography (3, 3) from the first's pixels to the second's."""

    group: str
    first: int
    second: int
    homography: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """All images, (480, 640, 3) uint8 RGB each, and the pairs among them."""

    images: list[np.ndarray]
    pairs: list[Pair]


def load_pairs(warps: int) -> Pairs:
    """The real pairs, and ``warps`` viewpoints and as many lights of each held-out training image."""
    if not (DATA / "train").is_dir() or not (DATA / "homography").is_dir():
        sys.exit(
            f"the images are not at {DATA}; set HFNET_SCENES to the folder `scenes` beside `train` and `homography`"
        )
    images: list[np.ndarray] = []
    pairs: list[Pair] = []

    def add(image: np.ndarray) -> int:
        images.append(image)
        return len(images) - 1

    for number, path in enumerate(held_out_files(image_files(DATA / "train"), DistillConfig())):
        image, _ = landscape(_read(path))
        first = add(image)
        for k in range(warps):
            rng = np.random.default_rng((SEED, number, k))
            homography = random_homography(rng)
            pairs.append(Pair("viewpoint", first, add(warp(image, homography)), homography))
            pairs.append(Pair("light", first, add(relight(image, rng)), np.eye(3)))
    for folder in sorted((DATA / "homography").iterdir()):
        image, frame = landscape(_read(folder / "1.jpg"))
        first = add(image)
        for i in range(2, 7):
            image, other = landscape(_read(folder / f"{i}.jpg"))
            homography = other @ np.loadtxt(folder / f"H_1_{i}.txt") @ np.linalg.inv(frame)
            pairs.append(Pair("real", first, add(image), homography))
    return Pairs(images, pairs)


def held_out_files(files: list[Path], config: DistillConfig) -> list[Path]:
    """The files that `hfnet-distill` does not train on: every n-th of the shuffled list."""
    files = list(files)
    random.Random(config.seed).shuffle(files)
    return files[config.held_out - 1 :: config.held_out]


def _read(path: Path) -> np.ndarray:
    return cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def landscape(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middle of an image (h, w, 3) at 480x640, portraits turned by 90 degrees, and the affine map (3, 3) from the
    image's pixels to the result's."""
    frame = np.eye(3)
    h, w = image.shape[:2]
    if h > w:
        image = np.ascontiguousarray(np.rot90(image))  # anticlockwise
        frame = np.array([[0.0, 1, 0], [-1, 0, w], [0, 0, 1]])
        h, w = w, h
    scale = max(SIZE[0] / h, SIZE[1] / w)
    ch, cw = round(SIZE[0] / scale), round(SIZE[1] / scale)
    top, left = (h - ch) // 2, (w - cw) // 2
    image = image[top : top + ch, left : left + cw]
    resized = cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    sx, sy = SIZE[1] / cw, SIZE[0] / ch
    return resized, np.array([[sx, 0, -sx * left], [0, sy, -sy * top], [0, 0, 1]]) @ frame


def random_homography(rng: np.random.Generator) -> np.ndarray:
    """The photo, taken as a plane, seen from elsewhere: tilted up to 40 degrees about any axis, rolled up to 25, 0.7 to
    1.4 times as large, moved by up to a tenth of the image; the focal length is the image's width."""
    h, w = SIZE
    axis, tilt = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(0, 40))
    roll = np.radians(rng.uniform(-25, 25))
    scale = np.exp(rng.uniform(np.log(0.7), np.log(1.4)))
    moved = rng.uniform(-0.1, 0.1, 2) * (w, h)
    rotation, _ = cv2.Rodrigues(tilt * np.array([np.cos(axis), np.sin(axis), 0]))
    plane = np.column_stack([rotation[:, 0], rotation[:, 1], [0, 0, w]])  # (x, y) on the plane to camera coordinates
    view = np.diag([w, w, 1]) @ plane
    turn = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    to_image = np.array([[*turn[0], w / 2 + moved[0]], [*turn[1], h / 2 + moved[1]], [0, 0, 1]])
    homography = to_image @ view @ _shift(-w / 2, -h / 2)
    return homography / homography[2, 2]


def warp(image: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """The image through a homography, mirrored beyond its edges; drawn at twice the size and averaged, so that what
    shrinks does not alias."""
    h, w = SIZE
    twice = np.diag([2, 2, 1]) @ homography
    opencv = _shift(-0.5, -0.5) @ twice @ _shift(0.5, 0.5)  # its top-left pixel's centre is (0, 0)
    large = cv2.warpPerspective(image, opencv, (2 * w, 2 * h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return cv2.resize(large, (w, h), interpolation=cv2.INTER_AREA)


def relight(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other light and another exposure: gamma, gain and bias, a vignette or the shadow of a polygon, blur, noise."""
    h, w = SIZE
    x = (image / np.float32(255)) ** np.float32(np.exp(rng.uniform(-0.7, 0.7)))
    x = x * np.float32(rng.uniform(0.6, 1.4)) + np.float32(rng.uniform(-0.12, 0.12))
    if rng.random() < 0.5:
        centre = rng.uniform(0.3, 0.7, 2) * (w, h)
        away = np.hypot(np.arange(w) + 0.5 - centre[0], np.arange(h)[:, None] + 0.5 - centre[1]) / np.hypot(w, h)
        shade = 1 / (1 + (rng.uniform(1, 3) * away) ** 2) ** 2
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, 6))
        corners = rng.uniform(100, 350, (6, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        corners += rng.uniform(0.2, 0.8, 2) * (w, h)
        mask = cv2.fillPoly(np.zeros(SIZE, np.float32), [corners.astype(np.int32)], 1.0)
        shade = 1 - rng.uniform(0.3, 0.7) * cv2.GaussianBlur(mask, (0, 0), rng.uniform(1, 12))
    x = x * shade[..., None].astype(np.float32)
    if rng.random() < 0.5:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.4, 1.2))
    x = x + rng.normal(0, rng.uniform(0.005, 0.03), x.shape)
    return np.clip(np.rint(x * 255), 0, 255).astype(np.uint8)


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])
