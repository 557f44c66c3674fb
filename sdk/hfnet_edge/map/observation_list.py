"""A list says which landmarks a reference image observes, in four to five bits each.

Landmarks are numbered so that neighbours in space are neighbours in number, in tiles of 256. An image sees few tiles,
and many landmarks of each. So a list is

    count n       varint       observed landmarks
    tiles t       varint       tiles that hold them
    tile gaps     t varints    the first tile; then the difference to the one before, less one
    low parts     n k bits     \\ Elias-Fano code of the local numbers: 256 times the rank of the
    high parts    n + h bits   / tile in this list, plus the landmark's place in its tile

with k = floor(log2(256 t / n)), which is not stored, and h = floor((256 t - 1) / 2**k). The low part of a local number
is its last k bits. The high parts are unary: for each local number as many zeros as its high part exceeds the one
before, then a one; zeros follow up to n + h bits. Varints are LEB128; bits fill bytes from the lowest; each of the last
two fields starts at a byte. (Elias 1974, Fano 1971.)
"""

from __future__ import annotations

import numpy as np

TILE_SIZE = 256
MAX_VARINT = 5  # bytes: 32 bits and a little


def decode(data: np.ndarray, landmarks: int = 1 << 32) -> np.ndarray:
    """The landmarks of a list.

    Args:
        data: (B,) uint8, all bytes of the list.
        landmarks: how many the map has.

    Returns:
        (n,) int64, strictly increasing.

    Raises:
        ValueError: the bytes are no list, or it goes past the last landmark. Nothing larger than a small multiple of
            ``data`` is allocated.
    """
    if not len(data):
        return np.zeros(0, np.int64)
    head, at = _varints(data, 0, 2)
    n, t = int(head[0]), int(head[1])
    if not 1 <= t <= n <= min(TILE_SIZE * t, landmarks, 8 * len(data)):
        raise ValueError(f"{n} landmarks in {t} tiles")
    gaps, at = _varints(data, at, t)
    tiles = np.cumsum(gaps + 1) - 1
    if max(gaps.max(), tiles[-1]) > (landmarks - 1) // TILE_SIZE:  # the sum of large gaps may have wrapped
        raise ValueError("a tile past the last landmark")
    k, high_bits = parameters(n, t)
    low_end = at + (n * k + 7) // 8
    if low_end + (high_bits + 7) // 8 != len(data):
        raise ValueError("a list of another length than its numbers need")
    high = np.flatnonzero(np.unpackbits(data[low_end:], bitorder="little"))
    if len(high) != n or high[-1] >= high_bits:
        raise ValueError("a list with more or fewer high parts than landmarks")
    local = high - np.arange(n)
    if k:
        bits = np.unpackbits(data[at:low_end], bitorder="little")
        if bits[n * k :].any():
            raise ValueError("bits after the low parts")
        local = (local << k) | (bits[: n * k].reshape(n, k) @ (1 << np.arange(k)))
    if (np.diff(local) <= 0).any():
        raise ValueError("a list that does not increase")
    rank = local // TILE_SIZE
    if rank[0] != 0 or rank[-1] != t - 1 or (np.diff(rank) > 1).any():
        raise ValueError("a tile without a landmark")
    found = tiles[rank] * TILE_SIZE + local % TILE_SIZE
    if found[-1] >= landmarks:
        raise ValueError("a landmark past the last")
    return found


def parameters(n: int, t: int) -> tuple[int, int]:
    """Bits of a low part, and bits of all high parts together."""
    k = (TILE_SIZE * t // n).bit_length() - 1
    return k, n + ((TILE_SIZE * t - 1) >> k)


def _varints(data: np.ndarray, start: int, count: int) -> tuple[np.ndarray, int]:
    """``count`` LEB128 numbers from ``start``, and where they end."""
    window = data[start : start + MAX_VARINT * count]
    ends = np.flatnonzero(window < 128)[:count]
    if len(ends) < count:
        raise ValueError("a number that does not end")
    starts = np.concatenate([[0], ends[:-1] + 1])
    if (ends - starts).max() >= MAX_VARINT:
        raise ValueError("a number of more than five bytes")
    if ((window[ends] == 0) & (ends > starts)).any():
        raise ValueError("a number with a needless byte")
    window = window[: ends[-1] + 1].astype(np.int64) & 127
    place = np.arange(len(window)) - np.repeat(starts, ends - starts + 1)
    return np.add.reduceat(window << (7 * place), starts), start + int(ends[-1]) + 1
