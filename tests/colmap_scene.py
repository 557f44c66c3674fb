"""A scene for training on patches: a picture on a plane, seen by cameras that move along it, as a COLMAP text model."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.image.patches import detect
from hfnet_export.tflite.calibration import built_in_images

FOCAL, DEPTH = 200.0, 10.0
HEIGHT, WIDTH = 192, 256
SHIFTS = ((0, 0), (16, 8), (32, 0))  # of a camera's view in the picture, pixels


def write_scene(folder: Path, seed: int) -> np.ndarray:
    """Writes `images/` and `model/`; returns the picture. Views are windows of it, so patches of a track are equal."""
    (picture,) = built_in_images((HEIGHT + 8, WIDTH + 32), 1, seed)
    (folder / "images").mkdir(parents=True)
    (folder / "model").mkdir()
    points = np.unique(detect(picture, 400).xy, axis=0)
    seen: list[list[str]] = [[] for _ in points]
    images = []
    for i, (x, y) in enumerate(SHIFTS, 1):
        cv2.imwrite(str(folder / "images" / f"{i}.png"), picture[y : y + HEIGHT, x : x + WIDTH])
        xy = points - (x, y)
        inside = np.flatnonzero(((xy > 0) & (xy < (WIDTH, HEIGHT))).all(axis=1))
        for row, k in enumerate(inside):
            seen[k] += [str(i), str(row)]
        images.append(f"{i} 1 0 0 0 {-x * DEPTH / FOCAL} {-y * DEPTH / FOCAL} 0 1 {i}.png")
        images.append(" ".join(f"{xy[k, 0]} {xy[k, 1]} {k + 1}" for k in inside))
    world = np.column_stack([(points - (WIDTH / 2, HEIGHT / 2)) * DEPTH / FOCAL, np.full(len(points), DEPTH)])
    lines = [f"{k + 1} {' '.join(map(str, p))} 0 0 0 0.5 {' '.join(seen[k])}" for k, p in enumerate(world) if seen[k]]
    model = folder / "model"
    (model / "cameras.txt").write_text(f"1 PINHOLE {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {WIDTH / 2} {HEIGHT / 2}\n")
    (model / "images.txt").write_text("\n".join([*images, ""]))
    (model / "points3D.txt").write_text("\n".join([*lines, ""]))
    return picture
