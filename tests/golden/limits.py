"""Equals, numbers that lie exactly on a limit, and vectors that have no direction."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.folder import Folder
from golden.matching import nearest_case, retrieval_case
from golden.network import keypoint_case
from golden.result import inlier_case
from hfnet_edge.features import MAX_KEYPOINTS
from hfnet_edge.image.keypoints import MIN_SCORE, quantize, sample_descriptors


def tie_cases(folder: Folder) -> None:
    """Equals, which int8 makes common, made by code: plateaus of scores, and vectors that repeat."""
    rng = np.random.default_rng(0)
    levels = np.kron(rng.integers(0, 5, (16, 22)), np.ones((3, 3), np.int64)) + (rng.random((48, 66)) < 0.05)
    scores = folder.array("ties/scores", levels.astype(np.float32) / np.float32(16), "keypoints", "plateaus of equals")
    keypoint_case(folder, "ties", scores, {"valid": (48, 62), "count": 40, "radius": 3, "threshold": 0.1, "border": 4})
    references = np.repeat(np.rint(rng.normal(0, 30, (300, 8))), 5, axis=0)[rng.permutation(1500)].astype(np.int8)
    queries = np.concatenate([references[::100], np.rint(rng.normal(0, 30, (9, 8))).astype(np.int8)])
    given: dict[str, Any] = {
        "queries": folder.array("ties/queries", queries, "nearest", "vectors"),
        "references": folder.array("ties/references", references, "nearest", "vectors, each five times"),
    }
    nearest_case(folder, "ties", given, queries, references)
    given = {
        "query": folder.array("ties/query", queries[0], "retrieval", "the first of the vectors"),
        "references": folder.array("ties/images", references[:200], "retrieval", "of these vectors"),
        "count": 30,
    }
    retrieval_case(folder, "ties", given, queries[0], references[:200], {})


def edge_cases(folder: Folder) -> None:
    """Numbers that lie exactly on a limit, and vectors that have no direction."""
    lowest, low, high = np.float32(MIN_SCORE), np.float32(0), np.float32(1)
    levels = np.zeros((24, 40), np.float32)
    levels[12, [8, 20, 32]] = np.nextafter(lowest, low), lowest, np.nextafter(lowest, high)
    levels[4, 14], levels[3, 26] = 0.5, 0.5
    scores = folder.array("edges/scores", levels, "keypoints", "peaks about the threshold, and at the border")
    limits = {"count": MAX_KEYPOINTS, "radius": 4, "threshold": MIN_SCORE, "border": 4}
    keypoint_case(folder, "edges", scores, {"valid": levels.shape, **limits})

    vectors = {  # numbers of four dimensions
        "zeros": (0, 0, 0, 0),
        "nan": (1, np.nan, 1, 1),
        "shorter": (3e-13, -4e-13, 0, 0),  # than 1e-12
        "longer": (3e-12, -4e-12, 0, 0),
        "halves": (125, -221, 7, 1),  # of length 254; rounded to even
    }
    dense = np.tile(np.array([1, 2, -3, 4], np.float32), (2, 2 * len(vectors), 1))
    for i, (name, numbers) in enumerate(vectors.items()):
        vector = np.array(numbers, np.float32)
        dense[0, 2 * i] = vector
        wide = folder.array(f"edges/{name}", vector, "global", f"a vector: {name}")
        rounded = folder.array(f"edges/{name}_rounded", quantize(vector[None])[0], "global", "of int8")
        folder.case("global", f"edges/{name}", {"global": wide}, {"global_descriptor": rounded})
    xy = np.stack(np.meshgrid(np.arange(0, 81, 4), np.arange(0, 17, 4)), axis=-1).reshape(-1, 2).astype(np.float32)
    given = {
        "local": folder.array("edges/local", dense, "descriptors", "the vectors, one in two cells of the first row"),
        "xy": folder.array("edges/xy", xy, "descriptors", "centres, sides and corners of all cells"),
    }
    sampled = folder.array("edges/sampled", sample_descriptors([dense], xy), "descriptors", "there")
    folder.case("descriptors", "edges", given, {"descriptors": sampled})
    inlier_case(folder)
