"""Fits the tables of `hfnet_edge.map.codecs` to a place's descriptors, and encodes with them."""

from __future__ import annotations

import numpy as np

from hfnet_edge.map.codecs import CENTROIDS, UNIT, Codec, CodecName, project, rounded

SAMPLE = 25_600  # descriptors that tables are fitted to: 100 for each of 256 centroids
MOVES = 12  # of k-means
TURNS = 30  # of iterative quantization
CHUNK = 1 << 16  # rows at a time
BLOCK = 512  # rows whose products with all centroids stay in the cache


def fit_codec(name: CodecName, descriptors: np.ndarray, dim: int, subspaces: int = 0) -> Codec:
    """A codec for descriptors like these.

    Args:
        descriptors: (R, D) int8.
        dim: K, at most D. With "int8" and K = D nothing is projected.
        subspaces: of "pq"; divides ``dim``.
    """
    rng = np.random.default_rng(0)
    d = descriptors.shape[1]
    if len(descriptors) > SAMPLE:
        descriptors = descriptors[np.sort(rng.choice(len(descriptors), SAMPLE, replace=False))]
    if name is CodecName.INT8 and dim == d:
        return Codec(name, dim)
    axes = principal_axes(descriptors)[:, :dim]  # (D, K)
    if name is CodecName.BINARY:
        axes = axes @ _balanced_turn((descriptors - descriptors.mean(axis=0)) @ axes, rng)
    elif name is CodecName.PQ:
        axes = axes[:, _balanced(np.var(descriptors @ axes, axis=0), subspaces)]
    projection = np.rint(UNIT * axes.T).astype(np.int8)
    if name is CodecName.INT8:
        return Codec(name, dim, projection)
    products = project(descriptors, projection)
    if name is CodecName.BINARY:
        return Codec(name, dim, projection, thresholds=np.rint(products.mean(axis=0)).astype(np.int32))
    parts = rounded(products).reshape(len(products), subspaces, dim // subspaces).astype(np.float32)
    codebook = np.stack([_centroids(parts[:, s], rng) for s in range(subspaces)])
    return Codec(name, dim, projection, codebook=np.rint(codebook).astype(np.int8))


def encode(codec: Codec, descriptors: np.ndarray) -> np.ndarray:
    """(R, D) int8 to (R, row_bytes) uint8."""
    out = np.empty((len(descriptors), codec.row_bytes), np.uint8)
    for start in range(0, len(descriptors), CHUNK):
        out[start : start + CHUNK] = _encode(codec, descriptors[start : start + CHUNK])
    return out


def _encode(codec: Codec, descriptors: np.ndarray) -> np.ndarray:
    vectors = codec.query(descriptors)
    if codec.name is CodecName.BINARY:
        return np.packbits(vectors > 0, axis=1, bitorder="little")
    if codec.codebook is None:
        return vectors.view(np.uint8)
    parts = vectors.reshape(len(vectors), len(codec.codebook), -1).astype(np.float32)
    return np.stack([_assigned(parts[:, s], c.astype(np.float32)) for s, c in enumerate(codec.codebook)], axis=1)


def principal_axes(vectors: np.ndarray, centered: bool = True) -> np.ndarray:
    """(D, D) float64 orthonormal columns, the direction of largest variance first; of (N, D) int8 vectors, or, not
    ``centered``, of their squared lengths."""
    products, total = np.zeros((vectors.shape[1],) * 2), np.zeros(vectors.shape[1])
    for start in range(0, len(vectors), CHUNK):
        rows = vectors[start : start + CHUNK].astype(np.float64)
        products += rows.T @ rows
        total += rows.sum(axis=0)
    if centered and len(vectors):
        products -= np.outer(total, total) / len(vectors)
    return np.linalg.eigh(products)[1][:, ::-1]


def _balanced(variance: np.ndarray, subspaces: int) -> np.ndarray:
    """An order of the axes in which consecutive groups have products of variance alike (Ge et al., PAMI 2014)."""
    size = len(variance) // subspaces
    groups: list[list[int]] = [[] for _ in range(subspaces)]
    product = np.zeros(subspaces)
    for axis in np.argsort(-variance, kind="stable"):
        free = [g for g in range(subspaces) if len(groups[g]) < size]
        group = min(free, key=lambda g: product[g])
        groups[group].append(int(axis))
        product[group] += np.log(max(variance[axis], 1e-9))
    return np.concatenate(groups).astype(np.int64)


def _balanced_turn(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(K, K) rotation after which signs lose least: iterative quantization (Gong et al., PAMI 2013)."""
    turn = np.linalg.qr(rng.normal(size=(vectors.shape[1],) * 2))[0]
    for _ in range(TURNS):
        u, _, v = np.linalg.svd(vectors.T @ np.where(vectors @ turn > 0, 1.0, -1.0))
        turn = u @ v
    return turn


def _centroids(vectors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """k-means: (256, d) float32 of (R, d) vectors; zeros fill up where there are fewer distinct ones."""
    distinct = _distinct(vectors)
    if len(distinct) <= CENTROIDS:
        return np.pad(distinct, ((0, CENTROIDS - len(distinct)), (0, 0)))
    centers = distinct[rng.choice(len(distinct), CENTROIDS, replace=False)]
    for _ in range(MOVES):
        nearest = _assigned(vectors, centers)
        counts = np.bincount(nearest, minlength=CENTROIDS)
        sums = np.stack([np.bincount(nearest, column, minlength=CENTROIDS) for column in vectors.T], axis=1)
        centers = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centers).astype(np.float32)
        empty = np.flatnonzero(counts == 0)
        centers[empty] = vectors[rng.choice(len(vectors), len(empty))]
    return centers


def _distinct(vectors: np.ndarray) -> np.ndarray:
    """The distinct rows of (R, d) float32 whole numbers from -127 to 127, sorted; rows of four as one number."""
    if vectors.shape[1] != 4:
        return np.unique(vectors, axis=0)
    keys = np.unique((vectors + 128).astype(np.uint8).view(">u4"))
    return keys.view(np.uint8).reshape(-1, 4).astype(np.float32) - 128


def _assigned(vectors: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """(R,) uint8, the nearest center of each vector, equals by lower number."""
    out = np.empty(len(vectors), np.uint8)
    turned, half = np.ascontiguousarray(centers.T), np.square(centers).sum(axis=1) / 2
    for start in range(0, len(vectors), BLOCK):
        products = vectors[start : start + BLOCK] @ turned
        products -= half
        out[start : start + BLOCK] = products.argmax(axis=1)
    return out
