"""Sparse-to-dense: cells of hypercolumns, and landmarks that are looked for in all of them."""

from __future__ import annotations

import numpy as np

from golden.folder import Folder
from hfnet_edge.image.hypercolumns import Hypercolumns
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.image.photo import Photo
from hfnet_edge.methods.dense_search import search
from hfnet_edge.networks.hfnet import RawOutputs
from hfnet_edge.tensor import Tensor

SEEN, UNSEEN = 120, 40  # landmarks of a case: at keypoints of the image, noise beside; made by code


def cell_cases(folder: Folder, name: str, raw: RawOutputs, photo: Photo, keypoints: np.ndarray, made: str) -> None:
    """Cells of an image, and a search for what lies at some of its keypoints.

    Args:
        keypoints: (N, 2) pixels of the camera's image. made: the file of the network's hypercolumns.
    """
    assert raw.hypercolumns is not None
    dense = Hypercolumns(raw.hypercolumns, photo)
    cells = folder.array(f"{name}/cells", dense.cells, "cells", "hypercolumns of the image's cells")
    folder.case("cells", name, {"hypercolumns": made, "valid": photo.valid}, {"cells": cells})
    if len(keypoints):
        rng = np.random.default_rng(0)
        there = dense.at(keypoints[:SEEN])
        there = quantize(there + rng.normal(0, 6, there.shape))
        elsewhere = quantize(rng.normal(size=(UNSEEN, there.shape[1])))
        search_case(folder, name, cells, dense.cells, np.concatenate([there, elsewhere]))


def search_case(folder: Folder, name: str, file: str, cells: np.ndarray, landmarks: np.ndarray) -> None:
    """Where landmarks (L, K) are found in cells (h, w, K), which are in ``file``."""
    found = search(cells, landmarks)
    given = {"cells": file, "landmarks": folder.array(f"{name}/sought", landmarks, "dense_search", "hypercolumns")}
    expected = {
        "rows": folder.array(f"{name}/found", found.rows, "dense_search", "rows of the landmarks"),
        "xy": folder.array(f"{name}/found_xy", found.xy, "dense_search", "pixels of the network's input"),
    }
    folder.case("dense_search", name, given, expected)


def dense_limits(folder: Folder) -> None:
    """Equals, borders, an image of one cell, landmarks that look like too much or like nothing, and cells that are only
    touched."""
    rng = np.random.default_rng(1)
    cells = quantize(rng.normal(size=(30 * 34, 16))).reshape(30, 34, 16)  # 1,020 cells: 7 may be alike
    landmarks = quantize(cells.reshape(-1, 16)[rng.permutation(1020)[:60]] + rng.normal(0, 10, (60, 16)))
    cells[0, 0] = cells[29, 33] = cells[12, 5] = landmarks[0]  # the first of equal cells, in a corner
    landmarks[2] = landmarks[1] = cells[7, 7]  # of equal landmarks in one cell the first
    landmarks[3] = cells[7, 7] // 2  # shorter, and as like
    landmarks[4] = 0
    cells[3, :7], landmarks[5] = landmarks[5], landmarks[5]  # 7 cells
    cells[4, :8] = landmarks[6]  # one too many
    file = folder.array("dense/cells", cells, "cells", "made by code")
    search_case(folder, "dense/limits", file, cells, landmarks)
    many = quantize(cells.reshape(-1, 16) + rng.normal(0, 4, (1020, 16)))  # more than are kept
    search_case(folder, "dense/many", file, cells, np.concatenate([many, many[::-1]]))
    one = np.full((1, 1, 16), 32, np.int8)
    file = folder.array("dense/one_cell", one, "cells", "made by code")
    search_case(folder, "dense/one", file, one, np.full((2, 16), 32, np.int8))
    values = rng.integers(-128, 128, (4, 5, 16)).astype(np.int8)
    values[1, 2] = -3  # no direction
    output = folder.array("dense/output", values, "cells", "made by code", scale=0.125, zero_point=-3)
    valid = 21, 33  # three rows of cells and five columns, the last of each in part
    made = Hypercolumns(Tensor(values, 0.125, -3), Photo(np.zeros((32, 40), np.uint8), valid, (33, 21))).cells
    part = folder.array("dense/part", made, "cells", "hypercolumns of the image's cells")
    folder.case("cells", "dense/part", {"hypercolumns": output, "valid": valid}, {"cells": part})
