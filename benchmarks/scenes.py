"""The benchmark scenes, and the features that go through the same map builder and solver."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.features import MAX_KEYPOINTS, Features, extract
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image import load_photo
from hfnet_edge.keypoints import quantize
from hfnet_edge.lists import read_names, read_queries
from hfnet_edge.model import Description, Model
from hfnet_maps.reference import read_reference

SCENES = Path(os.environ.get("HFNET_SCENES", Path(__file__).parents[2] / "shared" / "data" / "scenes"))
RESULTS = Path(__file__).parent / "results"


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


def rootsift(global_of: Extractor, longest: int = 640) -> Extractor:
    """RootSIFT (OpenCV) on the image at its longest side ``longest``: the yardstick. It has no global descriptor, so
    retrieval is that of ``global_of``."""
    sift = cv2.SIFT_create(nfeatures=MAX_KEYPOINTS, contrastThreshold=0.01)

    def run(path: Path, camera: Camera) -> Features:
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        h, w = grey.shape
        scale = max(h, w) / longest
        small = cv2.resize(grey, (round(w / scale), round(h / scale)), interpolation=cv2.INTER_AREA)
        points, descriptors = sift.detectAndCompute(small, None)
        order = np.argsort([-p.response for p in points], kind="stable")[:MAX_KEYPOINTS]
        xy = np.array([points[i].pt for i in order]) + 0.5  # OpenCV: the centre of the top-left pixel is (0, 0)
        root = np.sqrt(descriptors[order] / (descriptors[order].sum(axis=1, keepdims=True) + 1e-9))
        return Features(
            xy * (w / small.shape[1], h / small.shape[0]),
            np.array([points[i].response for i in order], np.float32),
            quantize(root),
            global_of(path, camera).global_descriptor,
            scale,
        )

    return run


def described(extractor: str, model: Description) -> Description:
    """The model's description, under another name where the local features are not the model's."""
    from dataclasses import replace

    return (
        model if extractor == "hfnet" else replace(model, architecture=extractor, weights_hash="0" * 32, local_dim=128)
    )
