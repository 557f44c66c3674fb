"""Global descriptors made of the ImageNet network: what a global teacher could be, compared by `retrieval.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track
from scenes import CACHE, DATA

from hfnet_export.networks.pca import PCA
from hfnet_export.tflite.calibration import image_files
from hfnet_export.training.teachers import STRIDE, ImageNet

SIDES = (640, 448, 320)  # longest sides of the image
POWERS = (1, 2, 3, 5, np.inf)  # of the generalised mean: from the average to the maximum
NETVLAD_SIDE = 448
KMEANS_ROWS = 40_000

Maps = list[np.ndarray]
"""A feature map for each image, (cells, 320) float16."""


def candidates(paths: list[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Names, and descriptors (N, G) float32 of the images ``paths``. What has to be learnt (PCA, clusters) is learnt on
    the training images."""
    network = ImageNet(DATA / "teachers" / "mobilenetv2_1.0_imagenet.npz")
    training = image_files(DATA / "train")
    maps = {side: (feature_maps(network, training, side), feature_maps(network, paths, side)) for side in SIDES}

    def gem(power: float, *sides: int) -> tuple[np.ndarray, np.ndarray]:
        learnt_on, described = (
            unit(sum(pooled(network, maps[side][k], power) for side in sides)) for k in (0, 1)
        )  # fmt: skip
        return learnt_on, described

    def whitened(name: str, learnt_on: np.ndarray, described: np.ndarray, dims: tuple[int, ...], *whitenings: float):
        for whitening in whitenings:
            pca = PCA.fit(learnt_on, max(dims), whitening)
            x = (described - pca.mean) @ pca.components
            yield from ((f"{name}, whitening {whitening:g}, {dim}", x[:, :dim]) for dim in dims)

    for power in POWERS:
        name, both = f"GeM {power:g} at {SIDES[0]}", gem(power, SIDES[0])
        yield f"{name}, raw, 1280", both[1]
        yield from whitened(name, *both, (1280, 512, 256, 128) if power == 3 else (512,), 0.5)
        if power == 3:
            yield from whitened(name, *both, (512, 256, 128), 0, 1)
    for side in SIDES[1:]:
        yield from whitened(f"GeM 3 at {side}", *gem(3, side), (512,), 0.5)
    name, both = "GeM 3 at {}+{}+{}".format(*SIDES), gem(3, *SIDES)
    yield f"{name}, raw, 1280", both[1]
    yield from whitened(name, *both, (512, 256, 128, 64, 32), 0.5)
    yield from whitened(name, *both, (512, 256, 128), 1)
    for clusters in (32, 64):
        both = vlad(*maps[NETVLAD_SIDE], clusters, soft=True)
        yield f"NetVLAD {clusters} at {NETVLAD_SIDE}, raw, {both[1].shape[1]}", both[1]
        yield from whitened(f"NetVLAD {clusters} at {NETVLAD_SIDE}", *both, (1024, 512, 256, 128), 0.5, 1)
        both = vlad(*maps[NETVLAD_SIDE], clusters, soft=False)
        yield from whitened(f"VLAD {clusters} at {NETVLAD_SIDE}", *both, (1024, 512), 0.5)


def feature_maps(network: ImageNet, paths: list[Path], longest: int) -> Maps:
    """The network's last block of images at their longest side ``longest``, both sides rounded to whole cells."""
    key = hashlib.sha256("".join(f"{p.parent}{p.name}{p.stat().st_size}" for p in paths).encode()).hexdigest()[:12]
    file = CACHE / f"imagenet_{longest}_{key}.npz"
    if not file.exists():
        maps = []
        for path in track(paths, f"ImageNet at {longest}", transient=True):
            rgb = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
            scale = longest / max(rgb.shape)
            h, w = (max(1, round(side * scale / STRIDE)) * STRIDE for side in rgb.shape[:2])
            resized = cv2.resize(rgb, (w, h), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
            features = network.features(resized[None])
            maps.append(features.reshape(-1, features.shape[-1]).astype(np.float16))
        CACHE.mkdir(exist_ok=True)
        np.savez(file, cells=np.concatenate(maps), ends=np.cumsum([len(m) for m in maps]))
    with np.load(file) as kept:
        return np.split(kept["cells"], kept["ends"][:-1])


def pooled(network: ImageNet, maps: Maps, power: float) -> np.ndarray:
    """Generalised mean of the 1280 channels that the network's last layer makes of each map, (N, 1280) float32."""
    kernel, bias = network.weights["Conv_1.weight"][:, :, 0, 0].T, network.weights["Conv_1.bias"]
    rows = []
    for cells in maps:
        x = np.clip(cells.astype(np.float32) @ kernel + bias, 0, 6)
        rows.append(x.max(axis=0) if np.isinf(power) else np.mean(x**power, axis=0) ** (1 / power))
    return unit(np.stack(rows))


def vlad(training: Maps, maps: Maps, clusters: int, soft: bool) -> tuple[np.ndarray, np.ndarray]:
    """Residuals to k-means centres of the training maps, (., clusters * 320), for training and other images.

    ``soft``: assigned as HF-Net's NetVLAD starts, the nearest of two centres getting most of a feature. Otherwise as
    VLAD: features of unit length, assigned to the nearest centre, square roots of the residuals.
    """
    prepare = (lambda m: m.astype(np.float32)) if soft else (lambda m: unit(m.astype(np.float32)))
    rng = np.random.default_rng(0)
    rows = np.concatenate([prepare(m[rng.permutation(len(m))[: KMEANS_ROWS // len(training) + 1]]) for m in training])
    criteria = (cv2.TERM_CRITERIA_MAX_ITER, 30, 0.0)
    cv2.setRNGSeed(0)
    _, _, centers = cv2.kmeans(rows, clusters, np.zeros(0, np.int32), criteria, 1, cv2.KMEANS_PP_CENTERS)
    nearest = np.sort(((rows[::20, None] - centers) ** 2).sum(axis=-1), axis=1)
    sharpness = np.log(100) / (nearest[:, 1] - nearest[:, 0]).mean() if soft else 1e6

    def describe(m: np.ndarray) -> np.ndarray:
        x = prepare(m)
        closeness = sharpness * (x @ centers.T - (centers**2).sum(axis=1) / 2)
        assignment = np.exp(closeness - closeness.max(axis=1, keepdims=True))
        assignment /= assignment.sum(axis=1, keepdims=True)
        residual = unit(assignment.T @ x - assignment.sum(axis=0)[:, None] * centers).ravel()
        return residual if soft else np.sign(residual) * np.sqrt(np.abs(residual))

    learnt_on, described = (unit(np.stack([describe(m) for m in some])) for some in (training, maps))
    return learnt_on, described


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + 1e-12)
