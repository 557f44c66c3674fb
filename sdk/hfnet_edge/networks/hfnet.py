"""HF-Net on the device: one image to keypoint scores and descriptors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.image.keypoints import keypoint_scores
from hfnet_edge.networks.description import LOCAL_ROLES
from hfnet_edge.networks.network import Network
from hfnet_edge.tensor import Output


@dataclass(frozen=True)
class RawOutputs:
    """What the network returns for one image; h = H / 8, w = W / 8. ``np.asarray`` of an output is float32.

    Attributes:
        keypoint_logits: (h, w, 65), or None where the network returns ``keypoint_scores``: (H, W) in [0, 1], before
            or after non-maximum suppression.
        local_descriptors: (h, w, D), not normalised.
        global_descriptor: (G,), normalised or not.
        local_descriptors_quarter, local_descriptors_half: (H / 4, W / 4, D') and (H / 2, W / 2, D"), further parts of
            the local descriptors, or None.
        hypercolumns: (h, w, C), not normalised, or None.
    """

    local_descriptors: Output
    global_descriptor: Output
    keypoint_logits: Output | None = None
    keypoint_scores: Output | None = None
    local_descriptors_quarter: Output | None = None
    local_descriptors_half: Output | None = None
    hypercolumns: Output | None = None

    def scores(self) -> np.ndarray:
        """(H, W) float32 keypoint scores, whichever of the two the network returns."""
        if self.keypoint_logits is not None:
            return keypoint_scores(self.keypoint_logits)
        assert self.keypoint_scores is not None, "read_description demands one of them"
        return np.asarray(self.keypoint_scores)

    @property
    def descriptor_maps(self) -> tuple[Output, ...]:
        """The parts of the local descriptors, the coarsest first."""
        parts = (getattr(self, role) for role in LOCAL_ROLES)
        return tuple(part for part in parts if part is not None)


class Model(Network):
    """A loaded HF-Net; arguments, errors and use by threads as of `Network`."""

    def __call__(self, pixels: np.ndarray) -> RawOutputs:
        """Runs the network on one grey image (H, W) uint8 of the model's input size."""
        if pixels.shape != self.description.input_size or pixels.dtype != np.uint8:
            raise ValueError(f"expected {self.description.input_size} uint8, not {pixels.shape} {pixels.dtype}")
        return RawOutputs(**{role: value[0] for role, value in self.run(pixels[None]).items()})
