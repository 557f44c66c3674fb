"""Hypercolumns: a descriptor of every cell of an image, of several depths of the network (paper 001, section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hfnet_edge.image.keypoints import CELL, quantize, sample_descriptors
from hfnet_edge.image.photo import Photo
from hfnet_edge.tensor import Output, Tensor


@dataclass(frozen=True, eq=False)
class Hypercolumns:
    """Those of one image, h x w cells of 8x8 pixels of the network's input.

    Attributes:
        output: (H / 8, W / 8, C), the network's, not normalised. photo: that it saw.
    """

    output: Output
    photo: Photo

    @cached_property
    def cells(self) -> np.ndarray:
        """(h, w, C) int8, unit length times 127: of the cells that the image touches."""
        h, w = (-(-side // CELL) for side in self.photo.valid)
        touched = np.asarray(self.output[:h, :w])
        return quantize(touched.reshape(h * w, -1)).reshape(touched.shape)

    def at(self, keypoints: np.ndarray) -> np.ndarray:
        """(N, C) int8, unit length times 127, bilinear between the cells at (N, 2) pixels of the camera's image."""
        xy = self.photo.from_camera(keypoints).astype(np.float32)
        return sample_descriptors([Tensor(self.cells, 1.0, 0)], xy)
