"""The features that `features.py` compares: teachers, HF-Net through the runtime, RootSIFT and ORB."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from feature_metrics import Local
from homography import SIZE
from scenes import CACHE

from hfnet_edge.features import decode
from hfnet_edge.image.keypoints import detect
from hfnet_edge.image.photo import Photo, fit
from hfnet_edge.networks.hfnet import Model
from hfnet_export.training.targets import sample
from hfnet_export.training.teachers import local_teacher

KEYPOINTS = 1000
ANY_SCORE = 1e-30  # no threshold, so that all have as many keypoints, but nothing where the score is zero

Extractor = Callable[[np.ndarray], Local]
"""From an RGB image (480, 640, 3) uint8 to its local features."""


def alike(weights: Path) -> Extractor:
    """A teacher through the runtime's decoder, whose soft-argmax does better than ALIKE's own and than whole pixels
    (`diagnosis.py`)."""
    teacher = local_teacher(weights)

    def run(image: np.ndarray) -> Local:
        (scores,), (dense,) = teacher(image[None])
        xy, _ = detect(scores, SIZE, KEYPOINTS, threshold=0)
        return Local(xy.astype(np.float64), sample(dense, xy, SIZE))

    return run


def student(model: Model) -> Extractor:
    """HF-Net through the runtime, as the device has it but for the threshold on the score."""

    def run(image: np.ndarray) -> Local:
        pixels, valid = fit(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), model.description.input_size)
        photo = Photo(pixels, valid, SIZE[::-1])
        features = decode(model(pixels), photo, model.description.nms_radius, KEYPOINTS, ANY_SCORE)
        return Local(features.keypoints, unit(features.descriptors.astype(np.float32)))

    return run


def rootsift() -> Extractor:
    """SIFT (OpenCV), the strongest; descriptors L1-normalised, then square-rooted."""
    sift = cv2.SIFT_create(contrastThreshold=0.001, enable_precise_upscale=True)

    def run(image: np.ndarray) -> Local:
        found, descriptors = sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        order = np.argsort([-k.response for k in found], kind="stable")[:KEYPOINTS]
        return Local(np.array([found[i].pt for i in order]) + 0.5, unit(np.sqrt(descriptors[order])))

    return run


def orb() -> Extractor:
    """ORB (OpenCV). Its bits become signs, so that the dot product orders pairs as the Hamming distance does."""
    detector = cv2.ORB_create(KEYPOINTS, fastThreshold=5)

    def run(image: np.ndarray) -> Local:
        found, descriptors = detector.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
        signs = 2 * np.unpackbits(descriptors, axis=1).astype(np.float32) - 1
        return Local(np.array([k.pt for k in found]) + 0.5, unit(signs))

    return run


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9)


def cached(make: Callable[..., Extractor], *files: Path) -> Extractor:
    """The extractor ``make(*files)``, which is made and runs only on images whose features are not kept yet; they are
    kept by the source of ``make``, the content of ``files``, and the pixels."""
    identity = hashlib.sha256(inspect.getsource(make).encode())
    for file in files:
        identity.update(file.read_bytes())
    extract: list[Extractor] = []

    def run(image: np.ndarray) -> Local:
        key = identity.copy()
        key.update(image.tobytes())
        path = CACHE / "features" / f"{key.hexdigest()}.npz"
        if path.exists():
            with np.load(path) as kept:
                return Local(kept["xy"], kept["descriptors"])
        if not extract:
            extract.append(make(*files))
        features = extract[0](image)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, xy=features.xy, descriptors=features.descriptors.astype(np.float32))
        return features

    return run
