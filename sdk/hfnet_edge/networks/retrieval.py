"""A retrieval network: one image to its global descriptor, and nothing else (DenserNet, paper 004)."""

from __future__ import annotations

from hfnet_edge.image.photo import Photo, fit
from hfnet_edge.networks.description import GLOBAL_ROLE, RETRIEVAL
from hfnet_edge.networks.network import Network
from hfnet_edge.tensor import Output


class RetrievalModel(Network):
    """A loaded retrieval network; arguments, errors and use by threads as of `Network`."""

    kind = RETRIEVAL

    def __call__(self, photo: Photo) -> Output:
        """The global descriptor (G,) of a photo, which may be of another network's input size."""
        pixels, size = photo.pixels, self.description.input_size
        if pixels.shape != size:
            pixels, _ = fit(photo.image, size)
        return self.run(pixels[None])[GLOBAL_ROLE][0]
