"""Prior retrieval: the reference images that look most like the query (HF-Net, section 3)."""

from __future__ import annotations

import numpy as np

from hfnet_edge.map.map_file import LocalizationMap

BLOCK = 512  # reference images at a time: the conversion stays in the cache


def prior_frames(
    map_: LocalizationMap, global_descriptor: np.ndarray, count: int, among: np.ndarray | None = None
) -> np.ndarray:
    """The reference images of a map that look most like a query, as `retrieve` returns them.

    Args:
        global_descriptor: (extractor's G,) int8. among: (M,) bool, those that may be retrieved; None: all.
    """
    query = map_.global_query(global_descriptor)
    if among is None:
        return retrieve(query, map_.global_descriptors, count)
    rows = np.flatnonzero(among)
    return rows[retrieve(query, map_.global_descriptors[rows], count)]


def likeness(map_: LocalizationMap, global_descriptor: np.ndarray) -> int:
    """How much the most similar reference image looks like a query: the product of their descriptors; 0 without any."""
    first = prior_frames(map_, global_descriptor, 1)
    query = map_.global_query(global_descriptor).astype(np.int64)
    return int((map_.global_descriptors[first].astype(np.int64) @ query).max(initial=0))


def retrieve(query: np.ndarray, references: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` nearest reference images by global descriptor, the prior frames.

    Args:
        query: (G,) int8. references: (M, G) int8. They are unit vectors times 127, so for G up to 4096
            sums of products stay below (127 + sqrt(G) / 2)**2 < 2**15, whatever their order: exact in float32.

    Returns:
        (min(count, M),) int64 indices, most similar first; equals by lower index.
    """
    similarity = np.empty(len(references), np.float32)
    for start in range(0, len(references), BLOCK):
        block = slice(start, start + BLOCK)
        similarity[block] = references[block].astype(np.float32) @ query.astype(np.float32)
    return np.argsort(-similarity, kind="stable")[:count]
