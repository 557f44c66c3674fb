"""PCA of global descriptors, folded into the projection before them.

A descriptor is ``unit(W x + b)``. The PCA is learnt on ``W x + b``, before the norm, because only there are projection
and PCA one affine map: ``unit(P' (W x + b - mean)) = unit((W P)' x + (b - mean) P)``. Learnt after the norm it could
not be folded, since the length that the norm divides by differs from image to image while the mean does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import InputError


@dataclass(frozen=True)
class PCA:
    """Directions of largest variance, in that order.

    Attributes:
        mean: (D,) float32. components: (D, K) float32, scaled by the whitening.
    """

    mean: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, dim: int, whitening: float = 0.0) -> PCA:
        """Learns from (N, D) vectors, N > ``dim``.

        Args:
            whitening: components are divided by their standard deviation to this power: 0 leaves lengths and angles as
                they are, 1 makes all components equally important.

        Raises:
            InputError: there are too few vectors.
        """
        n, d = vectors.shape
        if not 1 <= dim <= min(n - 1, d):
            raise InputError(
                f"{n} descriptors of {d} dimensions have no PCA to {dim}",
                f"give more images, or at most {min(n - 1, d)} dimensions",
            )
        mean = vectors.mean(axis=0, dtype=np.float64)
        centred = vectors - mean
        if n < d:  # the same directions from the smaller matrix of products
            values, left = np.linalg.eigh(centred @ centred.T)
            order = np.argsort(-values)[:dim]
            components = centred.T @ left[:, order] / np.sqrt(np.maximum(values[order], 1e-12 * values.max()))
        else:
            values, axes = np.linalg.eigh(centred.T @ centred)
            order = np.argsort(-values)[:dim]
            components = axes[:, order]
        deviation = np.sqrt(np.maximum(values[order], 1e-6 * values.max()) / n)
        return cls(mean.astype(np.float32), (components / deviation**whitening).astype(np.float32))

    @classmethod
    def fit_pairs(cls, vectors: np.ndarray, pairs: np.ndarray, dim: int, floor: float = 0.01) -> PCA:
        """Whitened by how vectors of the same place differ, then the directions of largest variance (Radenovic et al.
        2019, section 3.4).

        Args:
            vectors: (N, D). pairs: (P, 2) int64, rows of one place. floor: added to the variances of the differences,
                in units of the largest: what no pair shows is not known to be exact.

        Raises:
            InputError: there are too few vectors, or no pairs.
        """
        n, d = vectors.shape
        if not (1 <= dim <= min(n - 1, d) and len(pairs)):
            raise InputError(
                f"{n} descriptors of {d} dimensions and {len(pairs)} pairs have no projection to {dim}",
                f"give more images of one place, or at most {min(n - 1, d)} dimensions",
            )
        differences = vectors[pairs[:, 0]].astype(np.float64) - vectors[pairs[:, 1]]
        variances, axes = np.linalg.eigh(differences.T @ differences / len(pairs))
        whitened = axes / np.sqrt(np.maximum(variances, 0) + floor * variances.max())
        mean = vectors.mean(axis=0, dtype=np.float64)
        spread = (vectors - mean) @ whitened
        values, axes = np.linalg.eigh(spread.T @ spread)
        components = whitened @ axes[:, np.argsort(-values)[:dim]]
        return cls(mean.astype(np.float32), components.astype(np.float32))

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(N, D) to (N, K), unit length."""
        x = (vectors - self.mean) @ self.components
        return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-12)

    def fold(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A projection (F, D), (D,) and this PCA as one projection (F, K), (K,)."""
        return kernel @ self.components, (bias - self.mean) @ self.components
