"""What the teachers say of whole training images, computed once and memory-mapped.

A training step cuts a view out of an image and carries the teachers' answers along with it, so that every view is new
and no teacher runs beside the training.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.image.image_file import open_image
from hfnet_edge.map.codecs import UNIT
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.training.teachers import STRIDE, GlobalTeacher, LocalTeacher

MAX_PEAKS = 3000  # of an image
PEAK_RADIUS = 2  # non-maximum suppression of the teacher's score map
PEAK_SCORE = 0.01


@dataclass(frozen=True)
class Targets:
    """N images and what the teachers say of them, flat; image i owns rows ``*_start[i]`` to ``*_start[i + 1]``.

    Attributes:
        sizes: (N, 2) int64, height and width.
        pixel_start: (N + 1,) int64. grey: (sum of h * w,) uint8.
        peak_start: (N + 1,) int64. xy: (P, 2) float32, the local teacher's keypoints to a fraction of a pixel, pixel
            centres at 0.5, best first in each image. scores: (P,) float32. descriptors: (P, D) int8, unit length x127.
        cell_start: (N + 1,) int64. features: (sum of h // 32 * w // 32, C) float16, the global teacher's feature map.
    """

    sizes: np.ndarray
    pixel_start: np.ndarray
    grey: np.ndarray
    peak_start: np.ndarray
    xy: np.ndarray
    scores: np.ndarray
    descriptors: np.ndarray
    cell_start: np.ndarray
    features: np.ndarray

    def image(self, i: int) -> np.ndarray:
        """(H, W) uint8."""
        return self.grey[self.pixel_start[i] : self.pixel_start[i + 1]].reshape(self.sizes[i])

    def feature_map(self, i: int) -> np.ndarray:
        """(H // 32, W // 32, C) float16."""
        h, w = self.sizes[i] // STRIDE
        return self.features[self.cell_start[i] : self.cell_start[i + 1]].reshape(h, w, -1)


def find_peaks(scores: np.ndarray, radius: int = PEAK_RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """Peaks of a teacher's score map (H, W), refined to sub-pixel by the soft-argmax of their window.

    Returns:
        xy (M, 2) float32 with pixel centres at 0.5, and scores (M,) float32, highest first.
    """
    window = 2 * radius + 1
    is_peak = (scores == cv2.dilate(scores, np.ones((window, window), np.uint8))) & (scores > PEAK_SCORE)
    is_peak[:radius], is_peak[-radius:], is_peak[:, :radius], is_peak[:, -radius:] = False, False, False, False
    y, x = np.nonzero(is_peak)
    offsets = np.arange(-radius, radius + 1)
    patches = scores[y[:, None, None] + offsets[None, :, None], x[:, None, None] + offsets[None, None, :]]
    patches = np.exp((patches - patches.max(axis=(1, 2), keepdims=True)) / 0.1)
    patches /= patches.sum(axis=(1, 2), keepdims=True)
    px = x + (patches.sum(axis=1) * offsets).sum(axis=1)
    py = y + (patches.sum(axis=2) * offsets).sum(axis=1)
    order = np.argsort(-scores[y, x], kind="stable")
    return np.stack([px, py], axis=1)[order].astype(np.float32) + 0.5, scores[y, x][order]


def sample(dense: np.ndarray, xy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear samples of a dense map (h, w, D) at pixels ``xy`` (M, 2) of an image of ``size`` (H, W), unit length."""
    h, w = dense.shape[:2]
    x = np.clip(xy[:, 0] * w / size[1] - 0.5, 0, w - 1)
    y = np.clip(xy[:, 1] * h / size[0] - 0.5, 0, h - 1)
    x0, y0 = np.minimum(x.astype(int), w - 2), np.minimum(y.astype(int), h - 2)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    top = dense[y0, x0] * (1 - fx) + dense[y0, x0 + 1] * fx
    bottom = dense[y0 + 1, x0] * (1 - fx) + dense[y0 + 1, x0 + 1] * fx
    out = top * (1 - fy) + bottom * fy
    return out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-12)


def make_targets(
    paths: list[Path], local: LocalTeacher, global_: GlobalTeacher, folder: Path, progress: Report = silent
) -> Targets:
    """Runs the teachers over all images, or maps what an earlier run on the same images left in ``folder``.

    Raises:
        InputError: no images, or one does not decode or is too small.
        OutputError: ``folder`` cannot be written.
    """
    if not paths:
        raise InputError("there are no training images", "give a folder of .jpg or .png files")
    digest = hashlib.sha256("".join(f"{p.name}{p.stat().st_size}" for p in paths).encode())
    key = json.dumps([digest.hexdigest(), len(paths), local.name, global_.name])
    done, names = folder / "done.json", [field.name for field in fields(Targets)]
    if not done.exists() or done.read_text() != key:
        folder.mkdir(parents=True, exist_ok=True)
        done.unlink(missing_ok=True)
        columns: dict[str, list] = {name: [] for name in ("sizes", "grey", "xy", "scores", "descriptors", "features")}
        for i, path in enumerate(paths):
            for name, array in _one_image(path, local, global_).items():
                columns[name].append(array)
            progress("teachers", i + 1, len(paths))
        starts = {
            "pixel_start": columns["grey"],
            "peak_start": columns["xy"],
            "cell_start": columns["features"],
        }
        arrays = {name: np.concatenate(parts) for name, parts in columns.items() if name != "sizes"}
        arrays |= {name: np.cumsum([0, *map(len, parts)]) for name, parts in starts.items()}
        arrays["sizes"] = np.stack(columns["sizes"])
        for name, array in arrays.items():
            with atomic_write(folder / f"{name}.npy") as file:
                np.save(file, array)
        with atomic_write(done) as file:
            file.write(key.encode())
    return Targets(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names})


def _one_image(path: Path, local: LocalTeacher, global_: GlobalTeacher) -> dict[str, np.ndarray]:
    rgb = open_image(path).rgb()
    h, w = rgb.shape[:2]
    if min(h, w) < 64:
        raise InputError(f"{path} has {w}x{h} pixels, too few to learn from", "remove it from the folder")
    padded = cv2.copyMakeBorder(rgb, 0, -h % STRIDE, 0, -w % STRIDE, cv2.BORDER_REFLECT_101)
    scores, dense = (output[0] for output in local(padded[None]))
    xy, peaks = find_peaks(scores[:h, :w])
    xy, peaks = xy[:MAX_PEAKS], peaks[:MAX_PEAKS]
    features = global_.features(padded[None])[0, : h // STRIDE, : w // STRIDE]
    return {
        "sizes": np.array([h, w]),
        "grey": cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).ravel(),
        "xy": xy,
        "scores": peaks,
        "descriptors": np.rint(sample(dense, xy, scores.shape) * UNIT).astype(np.int8),
        "features": features.reshape(-1, features.shape[-1]).astype(np.float16),
    }
