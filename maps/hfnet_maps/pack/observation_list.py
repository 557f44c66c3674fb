"""Encodes what `hfnet_edge.map.observation_list` decodes."""

from __future__ import annotations

import numpy as np

from hfnet_edge.map.observation_list import TILE_SIZE, parameters


def encode(landmarks: np.ndarray) -> bytes:
    """The bytes of a list.

    Args:
        landmarks: (n,) integers, strictly increasing.
    """
    if not len(landmarks):
        return b""
    landmarks = np.asarray(landmarks, np.int64)
    tiles, rank = np.unique(landmarks // TILE_SIZE, return_inverse=True)
    n, t = len(landmarks), len(tiles)
    local = rank * TILE_SIZE + landmarks % TILE_SIZE
    k, high_bits = parameters(n, t)
    low = (local[:, None] >> np.arange(k) & 1).astype(np.uint8)
    high = np.zeros(high_bits, np.uint8)
    high[(local >> k) + np.arange(n)] = 1
    gaps = np.diff(tiles, prepend=-1) - 1
    return (
        b"".join(_varint(int(number)) for number in (n, t, *gaps))
        + np.packbits(low.ravel(), bitorder="little").tobytes()
        + np.packbits(high, bitorder="little").tobytes()
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
