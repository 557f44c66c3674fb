"""Photographs as a retrieval network sees them, and which of them show the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.image.photo import load_photo
from hfnet_edge.shell.console import Report, silent
from hfnet_export.training.patch_tracks import open_model

SHARED = 30  # points that two photographs of a place must both see to be of one view
STRANGERS = 5  # points that two photographs may share, and yet be taken for strangers
ALIKE = 300  # images among which the most alike stranger is sought
FARTHEST = 0.75  # share of an image's positives that are drawn: those that share least
TURNED = 0.3  # share of true views that are seen from aside, too


@dataclass(frozen=True)
class Photographs:
    """N images of a source: of a place, or single ones.

    Attributes:
        pixels: (N, H, W) uint8, the network's input size.
        shared: (N, N) int64 points that two of them both see, 0 on the diagonal; None: each is alone.
    """

    pixels: np.ndarray
    shared: np.ndarray | None = None


@dataclass(frozen=True)
class Images:
    """All images of several sources, in one row.

    Attributes:
        pixels: (N, H, W) uint8. source: (N,) int64, which of the sources. row: (N,) int64, in its source.
        sources: as they were given.
    """

    pixels: np.ndarray
    source: np.ndarray
    row: np.ndarray
    sources: tuple[Photographs, ...]

    @classmethod
    def of(cls, sources: Sequence[Photographs]) -> Images:
        counts = [len(s.pixels) for s in sources]
        return cls(
            np.concatenate([s.pixels for s in sources]),
            np.repeat(np.arange(len(sources)), counts),
            np.concatenate([np.arange(n) for n in counts]),
            tuple(sources),
        )

    def positives(self, i: int) -> np.ndarray:
        """(P,) int64 images that show what ``i`` does, those first that share least."""
        of_source = self.sources[self.source[i]].shared
        if of_source is None:
            return np.zeros(0, np.int64)
        shared = of_source[self.row[i]]
        found = np.flatnonzero(shared >= SHARED)
        return self._first(i) + found[np.argsort(shared[found], kind="stable")]

    def strangers(self, i: int) -> np.ndarray:
        """(N,) bool: images that show something else."""
        out = np.arange(len(self.pixels)) != i
        of_source = self.sources[self.source[i]].shared
        if of_source is not None:
            out[self.source == self.source[i]] = of_source[self.row[i]] <= STRANGERS
            out[i] = False
        return out

    def pairs(self, each: int, rng: np.random.Generator) -> np.ndarray:
        """(P, 2) int64: up to ``each`` positives of every image, in random order."""
        found = [(i, j) for i in range(len(self.pixels)) for j in rng.permutation(self.positives(i))[:each]]
        return np.array(found, np.int64).reshape(-1, 2)

    def _first(self, i: int) -> int:
        return i - int(self.row[i])


def read_photographs(paths: Sequence[Path], input_size: tuple[int, int], progress: Report = silent) -> Photographs:
    """Single images. Raises ImageError: one does not load."""
    pixels = np.empty((len(paths), *input_size), np.uint8)
    for k, path in enumerate(paths):
        pixels[k] = load_photo(path, input_size).pixels
        progress("reading photographs", k + 1, len(paths))
    return Photographs(pixels)


def read_covisible(folder: Path, input_size: tuple[int, int], progress: Report = silent) -> Photographs:
    """A place: a folder with `images/` and `model/`, a COLMAP model with tracks.

    Raises:
        InputError: no COLMAP model there, or no two photographs share `SHARED` points. ImageError: a damaged image.
    """
    model = open_model(folder)
    images = sorted(model.images.values(), key=lambda image: image.name)
    row = {image.image_id: k for k, image in enumerate(images)}
    sees = np.zeros((len(images), model.num_points3D()), np.float32)
    for column, point in enumerate(model.points3D.values()):
        sees[[row[element.image_id] for element in point.track.elements], column] = 1
    shared = (sees @ sees.T).astype(np.int64)
    np.fill_diagonal(shared, 0)
    if not (shared >= SHARED).any():
        raise InputError(f"no two photographs of {folder} share {SHARED} points", "give a model with more tracks")
    paths = [folder / "images" / image.name for image in images]
    return Photographs(read_photographs(paths, input_size, progress).pixels, shared)


def draw_triplet(
    images: Images, photographs: float, vectors: np.ndarray, rng: np.random.Generator
) -> tuple[int, int, int]:
    """A query, an image that shows the same (the query itself where it is single), and a stranger that looks alike.

    Args:
        photographs: share of queries that are single.
        vectors: (N, C) of unit length: how alike images look.
    """
    single = np.array([s.shared is None for s in images.sources])[images.source]
    wanted = single if (rng.random() < photographs and single.any()) or single.all() else ~single
    rows = np.flatnonzero(wanted)
    query = int(rows[rng.integers(len(rows))])
    positives = images.positives(query)
    far = positives[: max(1, int(FARTHEST * len(positives)))]
    positive = int(far[rng.integers(len(far))]) if len(far) else query
    among = rng.permutation(np.flatnonzero(images.strangers(query)))[:ALIKE]
    alike = among[np.argsort(-(vectors[among] @ vectors[query]), kind="stable")]
    return query, positive, int(alike[min(int(rng.integers(3)), len(alike) - 1)])


def from_aside(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A photograph (H, W) uint8 through a random homography: 0.8 to 2 times as large, turned, seen from aside."""
    h, w = pixels.shape
    scale, angle = np.exp(rng.uniform(-0.2, 0.7)), np.radians(rng.normal(0, 10))
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    at = rng.uniform(0.3, 0.7, 2) * (w, h)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    turn[:2, 2] = np.array([w / 2, h / 2]) - turn[:2, :2] @ at
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-0.4, 0.4, 2) / w
    middle = np.array([[1, 0, w / 2], [0, 1, h / 2], [0, 0, 1]])
    matrix = middle @ tilt @ np.linalg.inv(middle) @ turn
    return np.asarray(
        cv2.warpPerspective(pixels, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    )
