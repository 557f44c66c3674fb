"""Blobs at the limits, in pictures made by code, and the network's keypoints at the limits of what they fill up."""

from __future__ import annotations

import numpy as np

from golden.folder import Folder
from golden.network import WHAT, blob_case, decoded_cases, filled_case
from hfnet_edge.image.blobs import FAR, MIN_CONTRAST, Blobs
from hfnet_edge.image.keypoints import MIN_SCORE
from hfnet_edge.image.photo import Photo
from hfnet_edge.networks.hfnet import RawOutputs


def textured(shape: tuple[int, int], seed: int, height: float = 20) -> np.ndarray:
    """(h, w) uint8: noise of three sizes, with a deviation of ``height`` each."""
    rng = np.random.default_rng(seed)
    h, w = shape
    sizes = [rng.normal(0, height, (-(-h // n), -(-w // n))).repeat(n, 0).repeat(n, 1)[:h, :w] for n in (1, 3, 8)]
    return np.clip(np.rint(sum(sizes) + 120), 0, 255).astype(np.uint8)


def equals(shape: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8: dark and light squares of two and four pixels, whose four middle pixels are equal extrema; single
    pixels in rows, two to five apart; and a pattern that repeats."""
    image = np.full(shape, 100, np.uint8)
    for i, side in enumerate((2, 4, 2, 4)):
        x = 10 + 16 * i
        image[10 : 10 + side, x : x + side] = 160 if i < 2 else 40
    x = 8
    for gap in (2, 3, 4, 5):
        image[26, [x, x + gap]] = image[[36, 36 + gap], x] = 200
        x += 16
    image[48:, :] = np.tile(textured((8, 8), 4), (shape[0] // 8, shape[1] // 8))[: shape[0] - 48]
    return image


def spots(shape: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8: a few spots of several sizes on even ground, one too long for a blob."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    image = np.full(shape, 90.0)
    for cx, cy, wide, high in ((12.3, 11.8, 2, 2), (30.0, 12.5, 1.5, 3), (50.5, 20.0, 4, 4), (20.0, 36.0, 1.5, 9)):
        away = ((x - cx) / wide) ** 2 + ((y - cy) / high) ** 2
        image += 80 * np.maximum(0, 1 - away / 4) ** 2  # by + and * alone, so that every machine draws the same
    return np.rint(image).astype(np.uint8)


def blob_cases(folder: Folder) -> None:
    """Pictures for the limits of blobs, and few blobs, which the network's keypoints fill up."""
    low = textured((48, 64), 2, 1.5)
    most = 1000
    made = {  # and the valid part
        "part": (textured((65, 97), 3), (51, 75), "of odd sizes, the rest not looked at"),
        "even": (np.full((24, 32), 127, np.uint8), (24, 32), "constant"),
        "small": (textured((8, 40), 0), (8, 40), "all border"),
        "row": (textured((9, 40), 1), (9, 40), "one row within the border"),
        "low": (low, low.shape, "contrasts about the least"),
        "equals": (equals((80, 80)), (80, 80), "equal neighbours"),
    }
    for name, (image, valid, what) in made.items():
        pixels = folder.array(f"blobs/{name}/pixels", image, "blobs", what)
        found, _ = blob_case(folder, f"blobs/{name}", pixels, image, valid, most)
        assert name != "low" or MIN_CONTRAST in found.response
        if name == "part":
            blob_case(folder, "blobs/few", pixels, image, image.shape, 20)
    fill_cases(folder)
    spot_case(folder)


def fill_cases(folder: Folder) -> None:
    """Keypoints at the distance that they keep from blobs, by their whole pixels, and more or less than are needed."""
    blobs = Blobs(
        np.array([[10.875, 20], [40, 20.5], [60.25, 60.75]], np.float32),
        np.array([9.0625, 3, 0.5], np.float32),
        np.ones(3, np.float32),
    )
    xy = [
        [10.875 + FAR, 30], [17, 20], [40 + FAR + 0.875, 20], [40 - FAR, 20.5], [40 - FAR - 0.125, 20.5], [40, 27],
        [60, 54.5], [60, 53.875], [67, 67], [66.5, 66.5], [80, 20], [81, 20],
    ]  # fmt: skip
    peaks = np.array(xy, np.float32), np.linspace(0.9, 0.1, len(xy), dtype=np.float32)
    none = Blobs(blobs.xy[:0], blobs.response[:0], blobs.scale[:0])
    for name, there, found, count in (
        ("far", blobs, peaks, 99), ("enough", blobs, peaks, 6), ("too_many", blobs, peaks, 2),
        ("no_blobs", none, peaks, 9), ("no_keypoints", blobs, (peaks[0][:0], peaks[1][:0]), 9),
    ):  # fmt: skip
        files = {
            key: folder.array(f"filled/{name}/blob_{key}", getattr(there, key), "blobs", WHAT[key])
            for key in ("xy", "response")
        }
        filled_case(folder, f"filled/{name}", there, files, found, count)


def spot_case(folder: Folder) -> None:
    """A photo of few blobs, and outputs of a network made by hand: from pixels to features."""
    name, count, step, rng = "spots", 24, 1 / 16, np.random.default_rng(6)
    image = spots((48, 64))
    photo = Photo(image, (46, 64), (128, 92))
    q = {
        "logits": np.rint(rng.normal(0, 30, (6, 8, 65))).clip(-128, 127).astype(np.int8),
        "local": np.rint(rng.normal(0, 40, (6, 8, 16))).clip(-128, 127).astype(np.int8),
    }
    direction = np.array([1, -2, 3, 4], np.float32)
    files = {
        key: folder.array(f"{name}/{key}", values, "network", "made by hand", scale=step, zero_point=0)
        for key, values in q.items()
    } | {"global": folder.array(f"{name}/global", direction, "network", "made by hand")}
    logits, local = (values.astype(np.float32) * np.float32(step) for values in q.values())
    raw, pixels = (
        RawOutputs(local, direction, keypoint_logits=logits),
        folder.array(f"{name}/pixels", image, "load", "spots"),
    )
    limits = {"count": count, "radius": 4, "threshold": MIN_SCORE}
    features, _ = decoded_cases(folder, name, raw, photo, pixels, files, limits)
    blobs = int((features.scores > 1).sum())
    assert 3 <= blobs < len(features.keypoints), "the network's keypoints fill up"
