"""A map with random trees, a query, patches and vectors made by code, for the methods of paper 002."""

from __future__ import annotations

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.image.patches import PATCH_SCALE, SIDE, PatchKeypoints
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_maps.pack.writer import built_sections, to_map
from hfnet_maps.source import Extractor, Source

CAMERA = Camera("PINHOLE", 640, 480, (500.0, 505.0, 321.0, 239.0))
PIXEL = 1.25  # of the network's input, in pixels of the image
LANDMARKS, IMAGES, DIM = 80, 40, 32
VIEWS = 3  # of each landmark, by images that follow each other
NOISE = 0.05  # of a component of a unit vector, from view to view
SHOWN, OTHERS = 32, 8  # keypoints of the query: of landmarks, and of nothing


def tree_map() -> LocalizationMap:
    """Landmarks before the cameras, described by a patch network that there is not."""
    rng = np.random.default_rng(0)
    looks = rng.normal(size=(LANDMARKS, DIM))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    seen = (np.arange(LANDMARKS)[:, None] * IMAGES // LANDMARKS + np.arange(VIEWS)) % IMAGES
    views = looks.repeat(VIEWS, axis=0) + rng.normal(0, NOISE, (LANDMARKS * VIEWS, DIM))
    landmarks = np.arange(LANDMARKS).repeat(VIEWS)
    images = np.sort(seen, axis=1).ravel()
    extractor = Extractor("made by code", "0" * 32, "none", DIM, IMAGES, global_weights_hash="1" * 32)
    return to_map(
        built_sections(
            Source(
                extractor,
                tuple(f"{i:02d}.png" for i in range(IMAGES)),
                (Pose(np.array([1.0, 0, 0, 0]), np.zeros(3)),) * IMAGES,
                quantize(np.eye(IMAGES)),
                rng.uniform((-3, -2, 5), (3, 2, 10), (LANDMARKS, 3)),
                landmarks,
                images,
                landmarks,
                quantize(views),
            )
        )
    )


def tree_query(m: LocalizationMap) -> Features:
    """A view of some landmarks of the map, from a pose of its own and with noise, and keypoints of nothing: two of them
    without a direction and of extreme values."""
    rng = np.random.default_rng(1)
    shown = np.sort(rng.permutation(m.landmark_count)[:SHOWN])
    first = np.searchsorted(m.descriptors(np.arange(m.landmark_count))[1], shown)
    looks = m.descriptors(np.arange(m.landmark_count))[0][first] / 127
    pose = Pose(np.array([np.cos(0.05), 0.0, np.sin(0.05), 0.0]), np.array([0.4, -0.1, 0.2]))
    xy = CAMERA.project(pose.transform(m.positions(shown) + m.origin))
    rows = quantize(looks + rng.normal(0, NOISE, looks.shape))
    other = quantize(rng.normal(size=(OTHERS, DIM)))
    other[0], other[1] = 0, np.where(np.arange(DIM) % 2, 127, -128)
    return Features(
        np.concatenate([xy, rng.uniform((0, 0), (640, 480), (OTHERS, 2))]),
        np.linspace(1, 0.5, SHOWN + OTHERS, dtype=np.float32),
        np.concatenate([rows, other]),
        rng.permutation(IMAGES).astype(np.int8),  # no two images are as similar
        PIXEL,
    )


def patch_keypoints(size: tuple[int, int], count: int = 20) -> PatchKeypoints:
    """Keypoints of all scales and angles whose patches lie in an image of ``size`` (height, width), the largest first;
    the last four are turned by multiples of a right angle."""
    rng = np.random.default_rng(2)
    many = 50 * count
    found = PatchKeypoints(
        rng.uniform((0, 0), size[::-1], (many, 2)).astype(np.float32),
        np.exp(rng.uniform(np.log(0.5), np.log(min(size) / PATCH_SCALE), many)).astype(np.float32),
        rng.uniform(0, 2 * np.pi, many).astype(np.float32),
        np.ones(many, np.float32),
    )
    found = found[found.inside(size)]
    found = found[np.argsort(-found.scale, kind="stable")]
    found = found[(np.linspace(0, 1, count) ** 2 * (len(found) - 1)).astype(int)]  # large ones are rarely inside
    found.angle[-4:] = np.arange(4) * np.float32(np.pi / 2)
    return found


def light() -> tuple[np.ndarray, PatchKeypoints]:
    """An image of patches side by side whose samples are its pixels: flat, of one grey level's difference, dark, of all
    contrast, a ramp, and noise. Returns it and their keypoints."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIDE, :SIDE]
    tiles = [
        np.full((SIDE, SIDE), 100),
        100 + ((x == 5) & (y == 7)),
        (x + y) // 16,
        255 * ((x + y) % 2),
        4 * x + 3 * y,
        rng.integers(0, 256, (SIDE, SIDE)),
    ]
    image = np.concatenate([np.pad(tile, 1) for tile in tiles], axis=1).astype(np.uint8)
    n, pitch = len(tiles), SIDE + 2
    xy = np.stack([np.arange(n) * pitch + pitch / 2, np.full(n, pitch / 2)], axis=1).astype(np.float32)
    scale, zeros = np.full(n, SIDE / PATCH_SCALE, np.float32), np.zeros(n, np.float32)
    return image, PatchKeypoints(xy, scale, zeros, np.ones(n, np.float32))


def signed_vectors() -> np.ndarray:
    """(N, 8) float32: what a patch network might return, with numbers that round to 0 on either side of it."""
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(6, 8)).astype(np.float32)
    rows[:, :4] *= np.float32(1e-3)
    special = np.zeros((4, 8), np.float32)  # no length
    special[1, :2] = -1, -0.0
    special[2, :3] = -3e-13, 4e-13, 0  # too short for a direction
    special[3, :4] = 1, np.nan, -1, -1e-6
    return np.concatenate([rows, special])
