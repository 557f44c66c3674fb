"""Pairs of views that show the same points: through homographies of a photograph, and true views of a place.

Descriptors are to be the same in both and to differ from those of everything else in the picture. A homography knows
where every pixel goes; only two photographs of a place know parallax, occlusion and what stands behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.image.patches import detect
from hfnet_edge.image.photo import load_photo
from hfnet_edge.shell.console import Report, silent
from hfnet_export.training.patch_tracks import open_model
from hfnet_export.training.targets import Targets
from hfnet_export.training.views import change_light, transform, warp

LONGEST = 640  # side of a place's photograph, pixels
MARGIN = 6  # pixels at a view's edge where nothing is taught
KEYPOINTS = 700  # detected in a photograph of a place: what its tracks must not be confused with
SHARED = 30  # points that two photographs of a place must share
ANGLES, SCALES = (5.0, 10.0, 20.0, 30.0, 45.0), (1.3, 1.7)  # bins of pairs, drawn alike: degrees; ratio of distances
LEAST = 12  # points in a pair
TRIES = 200  # for a pair
NOWHERE = -1000.0  # where a row holds no point
FULL_WELL = 6000.0  # electrons at white, of a small sensor's pixel
READ_NOISE = 2.3  # electrons, standard deviation


@dataclass(frozen=True)
class ViewPair:
    """Two square views and the points that both show.

    Attributes:
        views: two (S, S) uint8.
        shared: two (N, 2) float32 pixels, row by row the same points.
        others: two (M, 2), points of each view that the other need not show.
        source: names the photograph or place: points of different sources are never the same.
    """

    views: tuple[np.ndarray, np.ndarray]
    shared: tuple[np.ndarray, np.ndarray]
    others: tuple[np.ndarray, np.ndarray]
    source: int


@dataclass(frozen=True)
class Place:
    """The photographs of an SfM model, at most `LONGEST` pixels long.

    Attributes:
        grey: of each photograph, (h, w) uint8. keypoints: (K, 2) float32 pixels.
        xy: (P, 2) float32, where points of at least three photographs are seen. points: (P,) int64, which ones.
        pairs: (photograph, photograph, rows of the first, rows of the second).
        weights: (pairs,), how often each is drawn: pairs from afar as often as near ones.
    """

    grey: list[np.ndarray]
    keypoints: list[np.ndarray]
    xy: list[np.ndarray]
    pairs: list[tuple[int, int, np.ndarray, np.ndarray]]
    weights: np.ndarray


def read_place(folder: Path, progress: Report = silent) -> Place:
    """The place of a folder with `images/` and `model/`, a COLMAP model with tracks.

    Raises:
        InputError: no COLMAP model there, or no two photographs share `SHARED` points. ImageError: a damaged image.
    """
    model = open_model(folder)
    index = {k: i for i, (k, p) in enumerate(model.points3D.items()) if p.track.length() >= 3}
    xyz = np.array([p.xyz for p in model.points3D.values()]).reshape(-1, 3)
    grey, keypoints, xy, points, centers = [], [], [], [], []
    images = sorted(model.images.values(), key=lambda image: image.name)
    for done, image in enumerate(images, 1):
        camera = model.cameras[image.camera_id]
        seen = [(p.xy, index[p.point3D_id]) for p in image.points2D if p.has_point3D() and p.point3D_id in index]
        if len(seen) >= SHARED:
            scale = min(1.0, LONGEST / max(camera.width, camera.height))
            size = (round(camera.height * scale), round(camera.width * scale))
            photo = load_photo(folder / "images" / image.name, (-(-size[0] // 32) * 32, -(-size[1] // 32) * 32))
            grey.append(photo.image)
            keypoints.append(detect(photo.image, KEYPOINTS).xy)
            xy.append(np.array([p for p, _ in seen], np.float32) * np.float32(photo.image.shape[1] / camera.width))
            points.append(np.array([p for _, p in seen]))
            centers.append(image.projection_center())
        progress(f"reading {folder.name}", done, len(images))
    pairs, bins = _pairs(points, np.array(centers), xyz)
    if not pairs:
        raise InputError(f"no two photographs of {folder} share {SHARED} points", "give a model with more tracks")
    weights = np.array([min(len(rows), 60) for *_, rows in pairs]) / np.sqrt(np.bincount(bins)[bins])
    return Place(grey, keypoints, xy, pairs, weights / weights.sum())


def _pairs(points: list[np.ndarray], centers: np.ndarray, xyz: np.ndarray) -> tuple[list, np.ndarray]:
    """Pairs of photographs with `SHARED` points in common, and the bin (pairs,) of each, by angle and scale."""
    pairs, bins = [], []
    for i in range(len(points)):
        for j in range(i + 1, len(points)):
            shared, a, b = np.intersect1d(points[i], points[j], return_indices=True)
            if len(shared) < SHARED:
                continue
            rays = xyz[shared] - centers[i], xyz[shared] - centers[j]
            far = [np.linalg.norm(ray, axis=1) for ray in rays]
            angle = np.degrees(np.arccos(np.clip((rays[0] * rays[1]).sum(axis=1) / (far[0] * far[1]), -1, 1)))
            scale = np.exp(abs(np.log(np.median(far[0] / far[1]))))
            pairs.append((i, j, a, b))
            bins.append(np.digitize(np.median(angle), ANGLES) * (len(SCALES) + 1) + np.digitize(scale, SCALES))
    return pairs, np.array(bins, int)


def draw_pair(
    targets: Targets,
    photographs: np.ndarray,
    places: Sequence[Place],
    share: float,
    side: int,
    rng: np.random.Generator,
) -> ViewPair:
    """A pair of one of the ``photographs`` of ``targets`` for a ``share`` of draws, otherwise of one of the places.

    Raises:
        InputError: none of `TRIES` draws shows enough points in both views.
    """
    for _ in range(TRIES):
        if not places or rng.random() < share:
            found = of_photograph(targets, int(rng.choice(photographs)), side, rng)
        else:
            chances = np.sqrt([len(place.pairs) for place in places])
            place = int(rng.choice(len(places), p=chances / chances.sum()))
            found = of_place(places[place], -1 - place, side, rng)
        if found is not None:
            return found
    raise InputError("no two views share enough points", "give images with more to see, or larger ones")


def filled(xy: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) float32: the first ``count`` of (N, 2) points, and `NOWHERE`."""
    out = np.full((count, 2), NOWHERE, np.float32)
    out[: min(len(xy), count)] = xy[:count]
    return out


def of_photograph(targets: Targets, i: int, side: int, rng: np.random.Generator) -> ViewPair | None:
    """Two views of photograph ``i`` through homographies, up to 3 times nearer and from up to 60 degrees aside; None
    where they share too little."""
    image = targets.image(i)
    rows = slice(targets.peak_start[i], targets.peak_start[i + 1])
    points = rng.permutation(np.concatenate([targets.xy[rows][:KEYPOINTS], detect(image, KEYPOINTS).xy]))
    center = rng.uniform(0.2, 0.8, 2) * image.shape[::-1]
    warps = [_view(center, image.shape, side, rng, 1.7, 14, 0.18, 0.9) for _ in range(2)]
    ahead = np.all([np.c_[points, np.ones(len(points))] @ h[2] > 0.2 for h in warps], axis=0)
    seen = [transform(h, points[ahead]).astype(np.float32) for h in warps]
    inside = [_inside(xy, side) for xy in seen]
    both = inside[0] & inside[1]
    if both.sum() < LEAST:
        return None
    views = warp(image, warps[0], side), warp(image, warps[1], side)
    return ViewPair(views, (seen[0][both], seen[1][both]), (seen[0][inside[0] & ~both], seen[1][inside[1] & ~both]), i)


def of_place(place: Place, source: int, side: int, rng: np.random.Generator) -> ViewPair | None:
    """Two photographs of a place around a point that both show; None where the views share too little."""
    i, j, *rows = place.pairs[rng.choice(len(place.pairs), p=place.weights)]
    center = rng.integers(len(rows[0]))
    views, shared, others = [], [], []
    for image, of in zip((i, j), rows, strict=True):
        xy = place.xy[image][of]
        grey = place.grey[image]
        h = _view(xy[center], grey.shape, side, rng, 1.5, 8, 0.06, 0.25)
        views.append(warp(grey, h, side))
        shared.append(transform(h, xy).astype(np.float32))
        found = transform(h, place.keypoints[image]).astype(np.float32)
        others.append(rng.permutation(found[_inside(found, side)]))
    both = rng.permutation(np.flatnonzero(_inside(shared[0], side) & _inside(shared[1], side)))
    if len(both) < LEAST:
        return None
    order = (0, 1) if rng.random() < 0.5 else (1, 0)
    a, b = order
    return ViewPair((views[a], views[b]), (shared[a][both], shared[b][both]), (others[a], others[b]), source)


def change_view(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other light, sometimes out of focus, compressed, or at another gamma. (S, S) uint8 in and out."""
    view = change_light(view, rng)
    if rng.random() < 0.12:
        size = int(rng.integers(1, 6)) * 2 + 1
        view = cv2.blur(view, (size, size)) if rng.random() < 0.5 else cv2.GaussianBlur(view, (0, 0), size / 4)
    if rng.random() < 0.2:
        view = _compressed(view, int(rng.integers(25, 80)))
    if rng.random() < 0.1:
        view = _at_power(view, rng.choice([0.5, 0.7, 1.6, 2.2]))
    return view


def harsh_view(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In the dark, moved while the shutter was open, or out of focus; sometimes strongly compressed, or at a gamma of
    0.4 to 2.5. (S, S) uint8 in and out."""
    kind = rng.random()
    if kind < 0.35:
        view = _in_the_dark(view, rng)
    elif kind < 0.7:
        kernel = _line(rng.uniform(4, 22), rng.uniform(0, math.pi))
        view = _gamma(cv2.filter2D(_linear(view), -1, kernel, borderType=cv2.BORDER_REFLECT_101))
    elif kind < 0.85:
        view = np.asarray(cv2.GaussianBlur(view, (0, 0), rng.uniform(0.8, 4)))
    if rng.random() < 0.25:
        view = _compressed(view, int(rng.integers(8, 50)))
    if rng.random() < 0.2:
        view = _at_power(view, rng.uniform(0.4, 2.5))
    return view


def _in_the_dark(view: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """1/4 to 1/90 of the light, with photon and read noise; in 3 of 5 views gain then makes it bright again."""
    electrons = rng.poisson(_linear(view) * 2.0 ** -rng.uniform(2, 6.5) * FULL_WELL)
    view = _gamma((electrons + rng.normal(0, READ_NOISE, view.shape)) / FULL_WELL)
    if rng.random() < 0.6:
        gain = rng.uniform(150, 250) / max(4, np.percentile(view, 99))
        view = np.clip(view * gain, 0, 255).astype(np.uint8)
    return view


def _linear(view: np.ndarray) -> np.ndarray:
    """sRGB's grey levels (uint8) to linear light in [0, 1], float64 (IEC 61966-2-1)."""
    x = np.arange(256) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)[view]


def _gamma(light: np.ndarray) -> np.ndarray:
    """The inverse of `_linear`, clipped."""
    x = np.clip(light, 0, 1)
    return np.rint(255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)).astype(np.uint8)


def _line(length: float, angle: float) -> np.ndarray:
    """A kernel (n, n) float64, n odd, of sum one: points on a straight line of ``length`` pixels, at an angle in
    radians, shared by four pixels each."""
    radius = math.ceil(length / 2) + 1
    along = np.linspace(-length / 2, length / 2, 8 * radius)
    v, u = np.mgrid[-radius : radius + 1, -radius : radius + 1][..., None]
    x, y = u - along * math.cos(angle), v - along * math.sin(angle)
    kernel = (np.maximum(0, 1 - abs(x)) * np.maximum(0, 1 - abs(y))).sum(axis=-1)
    return kernel / kernel.sum()


def _compressed(view: np.ndarray, quality: int) -> np.ndarray:
    """A view as a JPEG of this quality shows it."""
    _, jpeg = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_GRAYSCALE))


def _at_power(view: np.ndarray, power: float) -> np.ndarray:
    """A view whose grey levels in [0, 1] are raised to a power."""
    return np.clip(255 * (view / 255.0) ** power, 0, 255).astype(np.uint8)


def _inside(xy: np.ndarray, side: int) -> np.ndarray:
    return np.all((xy > MARGIN) & (xy < side - MARGIN), axis=1)


def _view(
    center: np.ndarray,
    size: tuple[int, int],
    side: int,
    rng: np.random.Generator,
    scale: float,
    degrees: float,
    squeeze: float,
    tilt: float,
) -> np.ndarray:
    """(3, 3) to a square view around a point, a quarter of them windows of the image as it is.

    Args:
        scale: the view is at most so many times larger or smaller. degrees, squeeze: standard deviations of the turn
            and of the logarithm of the ratio of sides. tilt: largest of the perspective, over the view.
    """
    zoom, angle, ratio, away = 1.0, 0.0, 1.0, np.zeros(2)
    if rng.random() > 0.25:
        zoom = math.exp(rng.uniform(-math.log(scale), math.log(scale)))
        angle, ratio = math.radians(rng.normal(0, degrees)), math.exp(rng.normal(0, squeeze))
        away = rng.uniform(-tilt, tilt, 2) / side
    reach = side / 2 / zoom
    h, w = size
    at = [
        np.clip(c + rng.uniform(-60, 60), min(reach, n / 2), max(n - reach, n / 2))
        for c, n in zip(center, (w, h), strict=True)
    ]
    c, s = math.cos(angle), math.sin(angle)
    out = np.eye(3)
    out[:2, :2] = np.array([[c, -s], [s, c]]) * (zoom * ratio, zoom / ratio)
    out[:2, 2] = -out[:2, :2] @ at
    back = np.array([[1, 0, side / 2], [0, 1, side / 2], [0, 0, 1]])
    return back @ np.array([[1, 0, 0], [0, 1, 0], [*away, 1]]) @ out
