"""A patch network: upright patches to descriptors that are real-valued and, by their signs, binary (paper 002).

Bit k of the binary descriptor is ``descriptors[:, k] >= 0``: rounding to int8 keeps the sign of the network's output.
"""

from __future__ import annotations

import numpy as np

from hfnet_edge.image.keypoints import quantize
from hfnet_edge.networks.description import PATCH_ROLE, PATCHES
from hfnet_edge.networks.network import Network


class PatchModel(Network):
    """A loaded patch network; arguments, errors and use by threads as of `hfnet_edge.networks.network.Network`.

    It runs in blocks of `batch` patches, the last one filled up, so that the interpreter plans its memory once. What a
    patch's descriptor is does not depend on the others.
    """

    kind = PATCHES
    batch = 128

    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """Descriptors of patches (N, 32, 32) uint8, as `hfnet_edge.image.patches.cut` makes them.

        Returns:
            (N, D) int8, unit length times 127, rounded; what is negative stays so: -0.3 becomes -1.
        """
        vectors = self.raw(patches)
        rounded = quantize(vectors)
        rounded[(rounded == 0) & (vectors < 0)] = -1
        return rounded

    def raw(self, patches: np.ndarray) -> np.ndarray:
        """What the network returns for patches (N, 32, 32) uint8: (N, D) float32."""
        size = self.description.input_size
        if patches.shape[1:] != size or patches.dtype != np.uint8:
            raise ValueError(f"expected (N, {size[0]}, {size[1]}) uint8, not {patches.shape} {patches.dtype}")
        out = np.empty((len(patches), self.description.local_dim), np.float32)
        block = np.zeros((self.batch, *size), np.uint8)
        for start in range(0, len(patches), self.batch):
            part = patches[start : start + self.batch]
            block[: len(part)] = part
            out[start : start + len(part)] = np.asarray(self.run(block)[PATCH_ROLE])[: len(part)]
        return out
