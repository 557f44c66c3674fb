"""A codec is how a map keeps its landmarks' descriptors. Every one decodes to int8 vectors, compared by squared
distance.

    int8     the vectors themselves, projected to fewer dimensions or not
    pq       product quantization (Jegou et al., PAMI 2011): one of 256 sub-vectors in each subspace, a byte each
    binary   signs of projections; half of a squared distance of vectors of -1 and 1 is twice the Hamming distance

All of it is integer arithmetic, so every device ranks the same. A reader that sums tables of the query's products with
the sub-vectors (asymmetric distances), or counts differing bits, gets the same integers as this one, which decodes the
landmarks of a place once and multiplies matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

UNIT = 127  # descriptors are unit vectors times 127, rounded
CENTROIDS = 256  # sub-vectors of a subspace


class CodecName(StrEnum):
    """The codecs, as META names them."""

    INT8 = "int8"
    PQ = "pq"
    BINARY = "binary"


@dataclass(frozen=True)
class Codec:
    """A codec with its tables. D: the extractor's dimensions, K: those that are kept.

    Attributes:
        name: which.
        dim: K.
        projection: (K, D) int8, rows of unit length times 127; None: K = D, nothing is projected.
        thresholds: (K,) int32 of "binary", else None. A bit is set where the product with its row exceeds it.
        codebook: (S, 256, K / S) int8 of "pq", else None.
    """

    name: CodecName
    dim: int
    projection: np.ndarray | None = None
    thresholds: np.ndarray | None = None
    codebook: np.ndarray | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored descriptor."""
        if self.codebook is not None:
            return len(self.codebook)
        return -(-self.dim // 8) if self.name is CodecName.BINARY else self.dim

    def query(self, descriptors: np.ndarray) -> np.ndarray:
        """What a query's descriptors are compared as: (N, D) int8 to (N, K) int8.

        Projected: ``floor((P q + 63) / 127)``, cut to -127...127. Binary: -1 or 1.
        """
        if self.projection is None:
            return descriptors
        products = project(descriptors, self.projection)
        if self.thresholds is not None:
            return np.where(products > self.thresholds, 1, -1).astype(np.int8)
        return rounded(products)

    def decode(self, rows: np.ndarray) -> np.ndarray:
        """Stored descriptors (R, row_bytes) uint8 to (R, K) int8."""
        if self.codebook is not None:
            return self.codebook[np.arange(len(self.codebook)), rows].reshape(len(rows), self.dim)
        if self.name is CodecName.BINARY:
            bits = np.unpackbits(rows, axis=1, count=self.dim, bitorder="little")
            return (2 * bits.astype(np.int8) - 1).astype(np.int8)
        return rows.view(np.int8)


def project(vectors: np.ndarray, projection: np.ndarray) -> np.ndarray:
    """(N, D) int8 times the rows of (K, D) int8: (N, K) int32. Exact in float32: for D up to 1040 in any case, beyond
    because both are of about unit length times 127."""
    return (vectors.astype(np.float32) @ projection.astype(np.float32).T).astype(np.int32)


def rounded(products: np.ndarray) -> np.ndarray:
    """Products with rows of length 127, back to the vectors' own scale: int8."""
    return np.clip((products + UNIT // 2) // UNIT, -UNIT, UNIT).astype(np.int8)
