"""What to look at where a stage leaves its tolerance: tries the mistakes that are made again and again, and says which
of them the numbers look like."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import cv2
import numpy as np
from PIL import Image

from hfnet_edge.image.image_file import open_image
from hfnet_edge.image.keypoints import CELL
from hfnet_edge.image.photo import fit
from hfnet_parity.bundle import Bundle
from hfnet_parity.compare import Comparison

TRIED = 3  # queries whose images are prepared wrongly on purpose
EXPLAINED = 0.25  # of the difference may be left
VISIBLE = 0.05  # network pixels; keypoints that are aside by less are aside by chance

LOOK_AT = {
    "map": "the map is not of the reconstruction that the bundle was recorded with: pack it again from that one",
    "input": "the image is read, made grey, turned or resized in another way than the reference's",
    "tensor": "the network computes something else: other weights, a broken scale, other kernels, or too few bits",
    "keypoints": "the network's outputs agree, their decoding does not: softmax, suppression, top-k, or the half pixel",
    "descriptors": "keypoints agree, descriptors do not: sampling, normalisation, or the descriptor heads' precision",
    "retrieval": "descriptors agree, the ranking does not: the map's global descriptors, or ties that break otherwise",
    "matches": "the ranking agrees, matches do not: the map's landmarks or descriptors, the ratio test, or the first "
    "pose and the camera, by which the second look projects landmarks",
    "pose": "what leads to it agrees, the pose does not: principal point, focal length, distortion, or the solver",
    "trust": "poses agree, what is thought of them does not: the second look, the rivals, the evidence, its tables, or "
    "the map's calibration",
}

PATCHES_LOOK_AT = {  # where a patch network describes SIFT's keypoints
    "tensor": "HF-Net computes something else: other weights, a broken scale, other kernels, or too few bits",
    "keypoints": "the image agrees, SIFT's keypoints do not: another OpenCV or its floating point, or the half pixel",
    "descriptors": "keypoints agree, descriptors do not: SIFT's angles, how patches are cut, the patch network's "
    "weights, scale or bits, signs that rounding loses; or HF-Net's global descriptor",
    "matches": "what is sought with agrees, matches do not: the trees' leaves, the map's landmarks or descriptors, "
    "the ratio test, or the first pose and the camera, by which the second look projects landmarks",
}


def _grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def _half_pixel(rgb: np.ndarray) -> np.ndarray:
    """Shifted by half a pixel of the image, as where pixel centres are taken for corners."""
    grey = _grey(rgb)
    return cv2.warpAffine(grey, np.array([[1, 0, 0.5], [0, 1, 0.5]]), grey.shape[::-1], borderMode=cv2.BORDER_REPLICATE)


Prepare = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
MISTAKES: dict[str, Prepare] = {
    "red and blue are swapped": lambda rgb, size: fit(_grey(rgb[..., ::-1].copy()), size)[0],
    "grey is the mean of the channels": lambda rgb, size: fit(rgb.mean(axis=2).round().astype(np.uint8), size)[0],
    "grey is one channel, green": lambda rgb, size: fit(rgb[..., 1].copy(), size)[0],
    "the image is shifted by half a pixel": lambda rgb, size: fit(_half_pixel(rgb), size)[0],
    "the aspect ratio is not kept": lambda rgb, size: cv2.resize(_grey(rgb), size[::-1], interpolation=cv2.INTER_AREA),
    "the image is upside down": lambda rgb, size: fit(_grey(rgb)[::-1].copy(), size)[0],
    "the image is mirrored": lambda rgb, size: fit(_grey(rgb)[:, ::-1].copy(), size)[0],
    "the image is on its side": lambda rgb, size: fit(np.rot90(_grey(rgb)).copy(), size)[0],
    "light and dark are inverted": lambda rgb, size: 255 - fit(_grey(rgb), size)[0],
}


def explain(comparison: Comparison, bundle: Bundle | None = None) -> str:
    """A sentence on the first stage that leaves its tolerance, "" where none does."""
    stage = comparison.broken
    if stage is None:
        return ""
    found = ""
    if stage == "input" and bundle is not None:
        found = _wrong_input(comparison, bundle)
    elif stage == "keypoints":
        offsets = np.array([p.offset for p in comparison.pairs if p.run.features is not None])
        dx, dy = np.nanmean(offsets, axis=0) if np.isfinite(offsets).any() else (0.0, 0.0)
        if np.hypot(dx, dy) > VISIBLE:
            found = f"all keypoints are ({dx:+.2f}, {dy:+.2f}) network pixels aside"
    elif stage in ("pose", "trust") or (stage == "matches" and all(p.same_map for p in comparison.pairs)):
        shifts = np.array([p.shift for p in comparison.pairs])
        shifts = shifts[np.isfinite(shifts).all(axis=1)]
        if len(shifts):
            dx, dy = np.median(shifts, axis=0)
            if np.hypot(dx, dy) > 3 * np.median(np.hypot(*(shifts - (dx, dy)).T)) and np.hypot(dx, dy) > 0.1:
                found = f"it looks as if the principal point were off by ({-dx:+.1f}, {-dy:+.1f}) pixels"
    look_at = (LOOK_AT | (PATCHES_LOOK_AT if comparison.run.has_patch_network else {}))[stage]
    return f"{found}; {look_at}" if found else look_at


def _wrong_input(comparison: Comparison, bundle: Bundle) -> str:
    """The mistake that makes the run's pixels of the bundle's images, "" where none explains them."""
    left: dict[str, list[float]] = {name: [] for name in MISTAKES}
    differences = []
    each = comparison.value("input.identical").of_queries
    differing = [p for p, same in zip(comparison.pairs, each if each is not None else (), strict=False) if same == 0]
    for pair in differing[:TRIED]:
        a, b = pair.reference.thumbnail, pair.run.thumbnail
        if a is None or b is None or a.shape != b.shape:
            continue
        differences.append(float(np.abs(a.astype(float) - b).mean()))
        rgb = open_image(bundle.image(pair.reference.name)).rgb()
        for name, prepare in MISTAKES.items():
            error = np.inf
            with suppress(ValueError, cv2.error):  # an image that is too small for it
                wrong = prepare(rgb, (b.shape[0] * CELL, b.shape[1] * CELL))[CELL // 2 :: CELL, CELL // 2 :: CELL]
                error = float(np.abs(wrong.astype(float) - b).mean())
            left[name].append(error)
    if not differences:
        return ""
    best = min(left, key=lambda name: np.mean(left[name]))
    return f"it looks as if {best}" if np.mean(left[best]) < EXPLAINED * np.mean(differences) else ""
