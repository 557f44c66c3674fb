"""Patches that show the same thing: on the tracks of SfM models, and through homographies of photographs.

Positives are pairs of a track. A keypoint belongs to a track where it was detected: nothing is cut around a position
that the detector did not find, and what the detector finds differs a little in place, scale and angle from view to
view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np

from hfnet_edge.errors import CameraError, InputError
from hfnet_edge.image.patches import SIDE, PatchKeypoints, cut, detect
from hfnet_edge.image.photo import load_photo
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.reading import open_input
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.training.views import change_light, random_homography, transform, warp

WITHIN = 1.5  # pixels between a track's point and a detected keypoint
OCTAVES, ANGLE = 0.5, np.radians(25)  # how far scale and angle may be from what the views' geometry says
VIEWS, VIEW_SIDE = 3, 448  # of a photograph, beside itself; pixels
KEYPOINTS = 1500  # detected in a view of a photograph
PER_IMAGE = 300  # tracks that are kept of one photograph
APART = 6  # pixels: side of the cells of which a photograph gives one keypoint each
BLOCK = 1024  # points whose distances to all keypoints are held at once


@dataclass(frozen=True)
class PatchTracks:
    """Patches of N observations in T tracks.

    Attributes:
        patches: (N, 32, 32) uint8, as `hfnet_edge.image.patches.cut` makes them, a track's observations one after
            the other.
        start: (T + 1,) int64: track t has the patches ``start[t]`` to ``start[t + 1]``, two at least.
    """

    patches: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.start) - 1

    def save(self, path: Path) -> None:
        """Writes one .npz, atomically."""
        with atomic_write(path) as f:
            np.savez(f, patches=self.patches, start=self.start)  # type: ignore[arg-type]

    @staticmethod
    def load(path: Path) -> PatchTracks:
        """Reads what `save` wrote.

        Raises:
            InputError: the file is missing or damaged.
        """
        try:
            with open_input(path) as opened, np.load(opened) as file:
                return PatchTracks(file["patches"], file["start"])
        except (OSError, ValueError, KeyError, BadZipFile) as e:
            raise InputError(f"{path} does not hold patches ({e})", "cut them again") from e

    @staticmethod
    def join(parts: Sequence[PatchTracks]) -> PatchTracks:
        """All tracks of several sets, in order."""
        offsets = np.cumsum([0, *(len(p.patches) for p in parts)])
        starts = [p.start[:-1] + offset for p, offset in zip(parts, offsets, strict=False)]
        return PatchTracks(np.concatenate([p.patches for p in parts]), np.concatenate([*starts, offsets[-1:]]))


def open_model(folder: Path):
    """The COLMAP model (a pycolmap.Reconstruction) of a scene's folder. Raises InputError: there is none."""
    import pycolmap

    try:
        return pycolmap.Reconstruction(folder / "model")
    except Exception as e:
        raise InputError(
            f"{folder / 'model'} is not a COLMAP model ({e})", "give a folder with images/ and model/"
        ) from e


def of_scene(folder: Path, progress: Report = silent) -> PatchTracks:
    """The tracks of a COLMAP model: ``folder`` holds `images/` and `model/`.

    COLMAP's models keep no scale and no angle, so keypoints are detected anew and taken where they lie within `WITHIN`
    of a track's point. Where several do, those are kept that agree in scale (times depth over focal length) and in
    angle (turned by the cameras' rotations) with as many other observations as possible; the rest is not used.

    Raises:
        InputError: no COLMAP model there, or it has no track. ImageError: an image is missing or damaged.
        CameraError: an image is of another size than its camera.
    """
    model = open_model(folder)
    rows: list[np.ndarray] = []
    patches: list[np.ndarray] = []
    images = sorted(model.images.values(), key=lambda image: image.name)
    for done, image in enumerate(images):
        camera = model.cameras[image.camera_id]
        photo = load_photo(folder / "images" / image.name, (camera.height, camera.width))
        if photo.size != (camera.width, camera.height):  # of any camera model, not only those that queries may have
            raise CameraError(
                f"{folder / 'images' / image.name} is {photo.size[0]}x{photo.size[1]}, its camera "
                f"{camera.width}x{camera.height}",
                "give the images that the model was made of",
            )
        grey = photo.pixels
        keypoints = detect(grey, 20000)
        points = [p for p in image.points2D if p.has_point3D()]
        if points and len(keypoints):
            xy = np.array([p.xy for p in points], np.float32)
            point, keypoint = _near(xy, keypoints.xy)
            ids = np.array([p.point3D_id for p in points])[point]
            world = np.array([model.points3D[i].xyz for i in ids]).reshape(-1, 3)
            rotation = image.cam_from_world().rotation.matrix()
            depth = (world @ rotation.T + image.cam_from_world().translation)[:, 2]
            angle = keypoints.angle[keypoint]
            direction = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], 1) @ rotation
            size = np.log2(keypoints.scale[keypoint] * np.maximum(depth, 1e-9) / camera.mean_focal_length())
            order = len(patches) + np.arange(len(ids))
            rows.append(np.column_stack([ids, np.full(len(ids), done), order, size, direction]))
            patches.extend(cut(grey, keypoints[keypoint]))
        progress("cutting patches", done + 1, len(images), note=folder.name)
    table = np.concatenate([np.zeros((0, 7)), *rows])
    table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
    rotations = [image.cam_from_world().rotation.matrix() for image in images]
    bounds = np.flatnonzero(np.diff(table[:, 0], prepend=-1, append=-1))
    chosen = [_agreeing(table[a:b], rotations) for a, b in pairwise(bounds)]
    tracks = [c for c in chosen if len(c) >= 2]
    if not tracks:
        raise InputError(
            f"no track of {folder} has keypoints in two images",
            "give a model with points and the images it was made of",
        )
    return _gather(np.array(patches, np.uint8), tracks)


def _agreeing(rows: np.ndarray, rotations: list[np.ndarray]) -> np.ndarray:
    """Of a track's candidates (id, image, patch, log2 of size, direction) one patch per image, those that agree."""
    image = rows[:, 1].astype(int)
    if len(np.unique(image)) < 2:
        return np.zeros(0, int)
    seen = np.einsum(
        "nij,mj->nmi", np.stack([rotations[i] for i in image]), rows[:, 4:7]
    )  # m's direction in n's camera
    angle = np.arctan2(seen[..., 1], seen[..., 0])
    turn = np.abs(np.angle(np.exp(1j * (angle - np.diag(angle)[:, None]))))
    octaves = np.abs(rows[:, 3][:, None] - rows[:, 3])
    agree = (turn < ANGLE) & (octaves < OCTAVES)
    badness = np.where(agree, turn / ANGLE + octaves / OCTAVES, np.inf)
    images = np.unique(image)
    per_image = np.stack([badness[image == i].min(axis=0) for i in images])  # (I, N): the best towards each candidate
    reference = np.lexsort((np.where(np.isfinite(per_image), per_image, 9).sum(0), -np.isfinite(per_image).sum(0)))[0]
    chosen = []
    for i in images[np.isfinite(per_image[:, reference])]:
        members = np.flatnonzero(image == i)
        chosen.append(int(rows[members[badness[members, reference].argmin()], 2]))
    return np.array(chosen)


def of_photographs(paths: Sequence[Path], seed: int = 0, processes: int = 1, progress: Report = silent) -> PatchTracks:
    """The tracks of `VIEWS` homographic views of each photograph, in other light, and of the photograph itself.

    Raises:
        ImageError: an image is missing or damaged.
    """
    one = partial(of_photograph, seed=seed)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:  # a fork of TensorFlow's threads may hang
        results: Iterator[PatchTracks] = (
            pool.map(one, range(len(paths)), paths) if processes > 1 else map(one, range(len(paths)), paths)
        )
        parts = []
        for done, part in enumerate(results, 1):
            parts.append(part)
            progress("cutting patches", done, len(paths), note="photographs")
    return PatchTracks.join(parts)


def of_photograph(index: int, path: Path, seed: int) -> PatchTracks:
    """The tracks of one photograph, the ``index``-th."""
    cv2.setNumThreads(1)
    rng = np.random.default_rng((seed, index))
    photo = load_photo(path, (640, 640))
    grey = photo.image
    first = detect(grey, KEYPOINTS)
    cell = (first.xy // APART).astype(np.int64) @ np.array([1, 1 << 20])
    first = first[np.sort(np.unique(cell, return_index=True)[1])]
    patches = [cut(grey, first)]
    rows = [np.column_stack([np.arange(len(first)), np.arange(len(first))])]  # track, patch
    count = len(first)
    for _ in range(VIEWS):
        homography = random_homography(grey.shape, VIEW_SIDE, rng, True)
        view = change_light(warp(grey, homography, VIEW_SIDE), rng)
        found = detect(view, KEYPOINTS)
        if not len(found) or not len(first):
            continue
        track, keypoint = same_keypoints(first, found, homography)
        patches.append(cut(view, found[keypoint]))
        rows.append(np.column_stack([track, count + np.arange(len(track))]))
        count += len(track)
    table = np.concatenate(rows)
    table = table[np.lexsort((table[:, 1], table[:, 0]))]
    bounds = np.flatnonzero(np.diff(table[:, 0], prepend=-1, append=-1))
    tracks = [table[a:b, 1] for a, b in pairwise(bounds) if b - a >= 2]
    kept = [tracks[i] for i in np.sort(rng.permutation(len(tracks))[:PER_IMAGE])]
    return _gather(np.concatenate(patches), kept)


def same_keypoints(
    first: PatchKeypoints, second: PatchKeypoints, homography: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which keypoints of a view are those of the first, through ``homography`` (3, 3), pixel centres at 0.5.

    Returns:
        Rows of both, (K,) int64 each; a keypoint appears once at most on either side.
    """
    expected = transform(homography, first.xy)
    ahead = np.stack([np.cos(first.angle), np.sin(first.angle)], 1)
    step = transform(homography, first.xy + ahead) - expected
    aside = transform(homography, first.xy + np.stack([-ahead[:, 1], ahead[:, 0]], 1)) - expected
    area = np.abs(step[:, 0] * aside[:, 1] - step[:, 1] * aside[:, 0])
    squared = _squared_distances(expected.astype(np.float32), second.xy)
    a, b = np.nonzero(squared < WITHIN**2)
    octaves = np.abs(np.log2(second.scale[b] / (first.scale[a] * np.sqrt(area[a]))))
    turn = np.abs(np.angle(np.exp(1j * (second.angle[b] - np.arctan2(step[a, 1], step[a, 0])))))
    agree = (octaves < OCTAVES) & (turn < ANGLE)
    a, b = a[agree], b[agree]
    order = np.argsort(squared[a, b] + (octaves / OCTAVES + turn / ANGLE)[agree], kind="stable")
    a, b = a[order], b[order]
    keep = np.zeros(len(a), bool)
    keep[np.unique(a, return_index=True)[1]] = True
    a, b = a[keep], b[keep]
    keep = np.unique(b, return_index=True)[1]
    return a[keep], b[keep]


def _near(points: np.ndarray, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all points (N, 2) and keypoints (M, 2) less than `WITHIN` apart, (K,) int64 each, in order."""
    blocks = range(0, len(points), BLOCK)
    found = [np.nonzero(_squared_distances(points[i : i + BLOCK], keypoints) < WITHIN**2) for i in blocks]
    point = np.concatenate([i + rows for i, (rows, _) in zip(blocks, found, strict=True)])
    return point, np.concatenate([columns for _, columns in found])


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, 2) and (M, 2) to (N, M)."""
    return np.square(a[:, None, 0] - b[None, :, 0]) + np.square(a[:, None, 1] - b[None, :, 1])


def _gather(patches: np.ndarray, tracks: list[np.ndarray]) -> PatchTracks:
    start = np.cumsum([0, *(len(t) for t in tracks)])
    index = np.concatenate([np.zeros(0, int), *tracks]).astype(int)
    return PatchTracks(patches.reshape(-1, SIDE, SIDE)[index], start)
