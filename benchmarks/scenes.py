"""The benchmark scenes, and the features that go through the same map builder and solver."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.features import Features, extract
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import detect, quantize
from hfnet_edge.image.photo import load_photo
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.shell.lists import read_names, read_queries
from hfnet_maps.build.reference import read_reference

SCENES = Path(os.environ.get("HFNET_SCENES", Path(__file__).parents[2] / "shared" / "data" / "scenes"))
DATA = SCENES.parent
RESULTS = Path(__file__).parent / "results"
CACHE = Path(__file__).parents[1] / ".cache"
LONGEST = 640  # side of the images that other features than HF-Net's see
ALIKE_NMS_RADIUS = 2  # its authors'
OF_OTHERS = 2000  # keypoints of other features than HF-Net's, which has two thousand blobs and a thousand of its own


@dataclass(frozen=True)
class Split:
    """One map and its queries."""

    scene: str
    name: str  # "castle/0", "reichstag"
    map_names: list[str]
    queries: list[tuple[str, Camera]]


@dataclass(frozen=True)
class Scene:
    """Images with ground truth, and the splits that pool to its figures."""

    name: str
    images: Path
    cameras: dict[str, Camera]
    poses: dict[str, Pose]
    splits: list[Split]


def load_scenes() -> list[Scene]:
    """castle, herzjesu (five folds each) and reichstag. Exits with a reason where the data is absent."""
    if not SCENES.is_dir():
        sys.exit(f"the benchmark scenes are not at {SCENES}; set HFNET_SCENES to their folder")
    scenes = []
    for name in ("castle", "herzjesu", "reichstag"):
        root = SCENES / name
        reference = read_reference(root / "reference")
        folders = sorted((root / "folds").iterdir()) if (root / "folds").is_dir() else [root]
        splits = [
            Split(
                name,
                name if folder == root else f"{name}/{folder.name}",
                read_names(folder / "map.txt"),
                read_queries(folder / "queries_with_intrinsics.txt"),
            )
            for folder in folders
        ]
        wanted = sorted({n for s in splits for n in (*s.map_names, *(q for q, _ in s.queries))})
        pairs = {n: (reference.camera(n), reference.poses[n]) for n in wanted}
        scenes.append(
            Scene(
                name,
                root / "images",
                {n: c for n, (c, _) in pairs.items()},
                {n: p for n, (_, p) in pairs.items()},
                splits,
            )
        )
    return scenes


Extractor = Callable[[Path, Camera], Features]


def hfnet(model: Model) -> Extractor:
    """HF-Net through the runtime."""
    return lambda path, camera: extract(model, load_photo(path, model.description.input_size, camera))


def rootsift(global_of: Extractor) -> Extractor:
    """RootSIFT (OpenCV), the yardstick."""
    sift = cv2.SIFT_create(OF_OTHERS, contrastThreshold=0.01, enable_precise_upscale=True)  # without: 1/4 px aside
    return opencv(sift, lambda d: np.sqrt(d / (d.sum(axis=1, keepdims=True) + 1e-9)), global_of)


def orb(global_of: Extractor) -> Extractor:
    """ORB (OpenCV). Its bits become signs, so that the dot product orders pairs as the Hamming distance does."""
    detector = cv2.ORB_create(OF_OTHERS, fastThreshold=5)
    return opencv(detector, lambda d: 2 * np.unpackbits(d, axis=1).astype(np.float32) - 1, global_of)


def opencv(detector: cv2.Feature2D, normalise: Callable[[np.ndarray], np.ndarray], global_of: Extractor) -> Extractor:
    """OpenCV's features on the image at its longest side `LONGEST`. They have no global descriptor, so retrieval is
    that of ``global_of``."""

    def run(path: Path, camera: Camera) -> Features:
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        small, scale = reduced(grey)
        points, descriptors = detector.detectAndCompute(small, None)
        order = np.argsort([-p.response for p in points], kind="stable")[:OF_OTHERS]
        xy = np.array([points[i].pt for i in order]) + 0.5  # OpenCV: the centre of the top-left pixel is (0, 0)
        return Features(
            xy * (grey.shape[1] / small.shape[1], grey.shape[0] / small.shape[0]),
            np.array([points[i].response for i in order], np.float32),
            quantize(normalise(descriptors[order])),
            global_of(path, camera).global_descriptor,
            scale,
        )

    return run


def alike(global_of: Extractor) -> Extractor:
    """ALIKE-n, the local teacher, on the image at its longest side `LONGEST`, decoded as the runtime decodes; retrieval
    is that of ``global_of``."""
    from hfnet_export.training.targets import sample
    from hfnet_export.training.teachers import STRIDE, local_teacher

    teacher = local_teacher(DATA / "teachers" / "alike_n.npz")

    def run(path: Path, camera: Camera) -> Features:
        rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        small, scale = reduced(rgb)
        h, w = small.shape[:2]
        padded = cv2.copyMakeBorder(small, 0, -h % STRIDE, 0, -w % STRIDE, cv2.BORDER_REFLECT_101)
        (scores,), (dense,) = teacher(padded[None])
        xy, best = detect(scores, (h, w), OF_OTHERS, ALIKE_NMS_RADIUS)
        return Features(
            xy.astype(np.float64) * (rgb.shape[1] / w, rgb.shape[0] / h),
            best,
            quantize(sample(dense, xy, scores.shape)),
            global_of(path, camera).global_descriptor,
            scale,
        )

    return run


def reduced(image: np.ndarray) -> tuple[np.ndarray, float]:
    """The image at its longest side `LONGEST`, and the size of one of its pixels in pixels of the image."""
    scale = max(image.shape) / LONGEST
    h, w = (round(side / scale) for side in image.shape[:2])
    return cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA), scale


OTHERS: dict[str, Callable[[Extractor], Extractor]] = {"rootsift": rootsift, "alike": alike, "orb": orb}
"""What HF-Net's local features are compared with, by name, each made of the extractor that retrieves for it."""


def exported(weights: Path, precision: str, size: tuple[int, int] = (480, 640)) -> Model:
    """HF-Net's weights at one of `hfnet_export.tflite.rules.RECIPES`, for images of ``size``: height, width."""
    from hfnet_export.export import export_hfnet

    with tempfile.TemporaryDirectory() as folder:
        return Model(export_hfnet(weights, Path(folder) / f"hfnet_{precision}.tflite", precision, size).file)


def described(extractor: str, model: Description) -> Description:
    """The model's description, under another name where the local features are not the model's."""
    if extractor.startswith("hfnet"):
        return model
    return replace(model, architecture=extractor, weights_hash="0" * 32, local_dim=256 if extractor == "orb" else 128)
