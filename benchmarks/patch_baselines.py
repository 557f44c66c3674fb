"""What CRBNet is compared with: descriptors of the same 32x32 patches by other means.

RootSIFT, ORB and BRISK are OpenCV's at a keypoint in the patch's centre, upright, as the patch is. Patches lie enlarged
in a mosaic, each continued beyond its border as a mirror; enlargement and keypoint size are those of `SETTINGS`, which
had the lowest error of several on patches of the training scene fox. TFeat gets a blur for
the noise that it was not trained on: with 1.2 the same on fox, and worse on training photographs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.image.patches import PATCH_SCALE, SIDE

SETTINGS = {"RootSIFT": (2, 0.85), "ORB": (1, 1.0), "BRISK": (1, 1.0)}  # enlargement, size of what is described
BLUR = 1.6  # pixels, sigma, of what TFeat sees; 0, 0.8, 1.2, 1.6, 2 and 2.5 were tried
MARGIN = SIDE // 2  # pixels of the patch that are continued on each side
COLUMNS = 32  # patches of a mosaic: a square of these
OPENCV4 = Path(__file__).parents[1] / ".cache" / "opencv4"  # OpenCV 5 has no BRISK


def tfeat(weights: Path, blur: float) -> Callable[[np.ndarray], np.ndarray]:
    """TFeat (Balntas et al. 2016), trained on Liberty: (N, 128) float32, not of unit length.

    Args:
        weights: with PyTorch's names and layouts.
        blur: sigma of the Gaussian that patches are smoothed with, pixels; 0: none.
    """
    import tensorflow as tf

    with np.load(weights) as file:
        w = {name: tf.constant(file[name]) for name in file.files}
    kernels = [tf.transpose(w[f"features.{i}.weight"], (2, 3, 1, 0)) for i in (1, 4)]

    @tf.function(reduce_retracing=True)
    def run(patches):
        x = tf.cast(patches, tf.float32)[..., None]
        mean, variance = tf.nn.moments(x, (1, 2), keepdims=True)
        x = (x - mean) / tf.sqrt(variance + 1e-5)
        x = tf.tanh(tf.nn.conv2d(x, kernels[0], 1, "VALID") + w["features.1.bias"])
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
        x = tf.tanh(tf.nn.conv2d(x, kernels[1], 1, "VALID") + w["features.4.bias"])
        x = tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (tf.shape(x)[0], -1))
        return tf.tanh(tf.matmul(x, w["descr.0.weight"], transpose_b=True) + w["descr.0.bias"])

    def smooth(patches: np.ndarray) -> np.ndarray:
        return np.stack([cv2.GaussianBlur(p.astype(np.float32), (0, 0), blur) for p in patches]) if blur else patches

    return lambda patches: np.concatenate([run(smooth(part)).numpy() for part in blocks(patches, 1024)])


def rootsift(patches: np.ndarray, enlarged: int, size: float) -> np.ndarray:
    """(N, 128) float32 of unit length; with ``size`` 1 the keypoint's scale is that which the patch was cut with."""
    d = opencv(cv2.SIFT_create(), patches, enlarged, 2 * size * enlarged * SIDE / PATCH_SCALE, _sift_octave)
    return np.sqrt(d / (d.sum(axis=1, keepdims=True) + 1e-9))


def orb(patches: np.ndarray, enlarged: int, size: float) -> np.ndarray:
    """(N, 256) bool; with ``size`` 1 the pattern, 31 pixels wide, covers the patch."""
    scale = size * enlarged * SIDE / 31
    detector = cv2.ORB_create(edgeThreshold=0, nlevels=1)
    shrunk = enlarged / scale  # ORB has one size, so the mosaic gets another
    return np.unpackbits(opencv(detector, patches, shrunk, 31.0), axis=1).astype(bool)


def brisk(patches: np.ndarray, enlarged: int, size: float) -> np.ndarray:
    """(N, 512) bool; with ``size`` 1 the pattern, about 2.6 keypoint sizes wide, covers the patch."""
    if not hasattr(cv2, "BRISK_create"):
        return with_opencv4(patches, enlarged, size)
    radii = [0.85 * radius for radius in (0.0, 2.9, 4.9, 7.4, 10.8)]  # BRISK's own pattern, but no pair of points is
    pattern = cv2.BRISK_create(radii, [1, 10, 14, 15, 20], 5.85, 1e3)  # far enough apart to turn it
    return np.unpackbits(opencv(pattern, patches, enlarged, size * enlarged * SIDE / 2.6), axis=1).astype(bool)


def with_opencv4(patches: np.ndarray, enlarged: int, size: float) -> np.ndarray:
    """`brisk` in a process that has OpenCV 4."""
    if not OPENCV4.exists():
        sys.exit(f"BRISK needs OpenCV 4: pip install --no-deps --target {OPENCV4} 'opencv-python-headless<5'")
    with tempfile.TemporaryDirectory() as folder:
        patches_file, bits_file = Path(folder) / "patches.npy", Path(folder) / "bits.npy"
        np.save(patches_file, patches)
        command = [sys.executable, __file__, str(patches_file), str(bits_file), str(enlarged), str(size)]
        subprocess.run(command, env={**os.environ, "PYTHONPATH": str(OPENCV4)}, check=True)
        return np.load(bits_file)


def opencv(
    detector: cv2.Feature2D,
    patches: np.ndarray,
    enlarged: float,
    size: float,
    octave: Callable[[float], int] = lambda size: 0,
) -> np.ndarray:
    """Descriptors (N, K) of the centres of patches (N, 32, 32), as the detector computes them.

    Args:
        size: of the keypoints, pixels of the enlarged patch.
    """
    found = []
    cell = round((SIDE + 2 * MARGIN) * enlarged)
    for part in blocks(patches, COLUMNS * COLUMNS):
        mosaic = np.full((COLUMNS * cell, COLUMNS * cell), 128, np.uint8)
        keypoints = []
        for i, patch in enumerate(part):
            wide = cv2.copyMakeBorder(patch, MARGIN, MARGIN, MARGIN, MARGIN, cv2.BORDER_REFLECT_101)
            y, x = (cell * k for k in divmod(i, COLUMNS))
            mosaic[y : y + cell, x : x + cell] = cv2.resize(wide, (cell, cell), interpolation=cv2.INTER_CUBIC)
            centre = (cell - 1) / 2
            keypoints.append(cv2.KeyPoint(x + centre, y + centre, size, 0.0, 1.0, octave(size), i))
        kept, descriptors = detector.compute(mosaic, keypoints)
        assert [k.class_id for k in kept] == list(range(len(part))), "a patch was left out"
        found.append(descriptors)
    return np.concatenate(found)


def _sift_octave(size: float) -> int:
    """The level of SIFT's pyramid that a keypoint of this size comes from, packed as OpenCV does."""
    level = max(-2, round(3 * np.log2(size / 2 / 1.6)))
    octave, layer = divmod(level - 1, 3)
    return (octave & 255) | (layer + 1) << 8


def blocks(rows: np.ndarray, count: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), count):
        yield rows[start : start + count]


if __name__ == "__main__":
    read, write, *numbers = sys.argv[1:]
    np.save(write, brisk(np.load(read), *map(float, numbers)))
