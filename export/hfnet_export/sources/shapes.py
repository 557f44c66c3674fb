"""Images and outputs in the shapes that a network has them in, and in ours. ``library`` is numpy or TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hfnet_edge.networks.description import Description
from hfnet_edge.networks.network import output_shapes
from hfnet_export.sources.roles import COLOUR, GREY, Found, channel_axis


def fed(library: Any, image: Any, shape: Sequence[int]) -> Any:
    """A grey image (1, H, W, 1) in the shape of a network's input; three equal channels where that is in colour.
    ``library`` is numpy or TensorFlow."""
    axis = channel_axis(shape)
    grey = library.reshape(image, [GREY if i == axis else size for i, size in enumerate(shape)])
    return grey if shape[axis] == GREY else library.concat([grey] * COLOUR, axis)


def in_shape(library: Any, x: Any, f: Found, shape: tuple[int, ...]) -> Any:
    """An output in the shape of its role, channels last. ``library`` is numpy or TensorFlow."""
    if f.channels_first:
        _, h, w, d = shape
        x = library.transpose(library.reshape(x, (1, d, h, w)), (0, 2, 3, 1))
    return library.reshape(x, shape)


def shapes_of(description: Description) -> dict[str, tuple[int, ...]]:
    """The shapes of the outputs that a network has, by role."""
    return {role: shape for role, shape in output_shapes(description).items() if role in description.outputs}
