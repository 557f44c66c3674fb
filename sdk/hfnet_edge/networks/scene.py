"""A scene network: descriptors of keypoints to the labels of landmarks of one map (paper 003), a small .tflite.

It sees no image: the encoder of HF-Net, frozen and shared, has seen it. Its input is one row of "grey levels" a
keypoint, the components of an int8 descriptor raised by 128, so that it is loaded, quantized and checked as any other.
"""

from __future__ import annotations

import numpy as np

from hfnet_edge.networks.description import SCENE, SCENE_ROLE
from hfnet_edge.networks.network import Network

LIFT = 128  # grey level of a component that is 0
NUMBER = 2  # grey levels that an image's number takes, high and low


class SceneModel(Network):
    """A loaded scene network; arguments, errors and use by threads as of `hfnet_edge.networks.network.Network`.

    What it says of a keypoint does not depend on the others of the block of `batch` that they run in.
    """

    kind = SCENE
    batch = 512

    @property
    def takes_image(self) -> bool:
        """Whether it is told with each keypoint a reference image that was retrieved (section 4.5)."""
        return self.description.input_size[1] > self.description.local_dim

    def __call__(self, descriptors: np.ndarray, image: int = 0) -> np.ndarray:
        """What the network says of keypoints that look like this.

        Args:
            descriptors: (N, D) int8. image: the number of a reference image, where it takes one.

        Returns:
            (N, levels + 1) float32. Whole numbers, the label of each level; last a score: above 0 the keypoint is
            thought to be of this landmark.
        """
        if descriptors.ndim != 2 or descriptors.shape[1] != self.description.local_dim or descriptors.dtype != np.int8:
            raise ValueError(f"expected (N, {self.description.local_dim}) int8, not {descriptors.shape}")
        return self.raw(rows_of(descriptors, np.full(len(descriptors), image) if self.takes_image else None))

    def raw(self, rows: np.ndarray) -> np.ndarray:
        """As a call, of the network's inputs, (N, 1, D) or (N, 1, D + `NUMBER`) uint8, see `rows_of`."""
        out = np.empty((len(rows), self.widths[SCENE_ROLE]), np.float32)
        block = np.zeros((self.batch, *rows.shape[1:]), np.uint8)
        for start in range(0, len(rows), self.batch):
            part = rows[start : start + self.batch]
            block[: len(part)] = part
            out[start : start + len(part)] = np.asarray(self.run(block)[SCENE_ROLE])[: len(part)]
        return out


def rows_of(descriptors: np.ndarray, images: np.ndarray | None = None) -> np.ndarray:
    """The network's input, (N, 1, D) uint8, of descriptors (N, D) int8; with images (N,) two more columns."""
    rows = (descriptors.astype(np.int16) + LIFT).astype(np.uint8)
    if images is not None:
        rows = np.concatenate([rows, np.stack([images >> 8, images & 255], axis=1).astype(np.uint8)], axis=1)
    return rows[:, None]
