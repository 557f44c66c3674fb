"""`golden.plain` for sparse-to-dense: cells of hypercolumns, and the search for landmarks in all of them."""

from __future__ import annotations

from operator import gt

import numpy as np


def cells(hypercolumns, valid, up=True, rounded=np.rint):
    """``up``: cells that the image only touches are among them."""
    h, w = (-(-side // 8) if up else side // 8 for side in valid)
    wide = hypercolumns[:h, :w].astype(np.float64)
    length = np.sqrt(np.square(wide).sum(axis=-1, keepdims=True))
    return {"cells": rounded(np.divide(wide * 127, length, out=np.zeros_like(wide), where=length > 0)).astype(np.int8)}


def dense_search(
    cells, landmarks, alike=80, few=(6, 1000), more=gt, tie=1, one_each=True, most=1000, centre=0.5, between=True,
    length=True,
):  # fmt: skip
    """``tie``: 1: the first of equal cells, -1: the last. ``one_each``: one landmark a cell. ``length``: landmarks are
    compared by cosine."""
    h, w, _ = cells.shape
    flat = cells.reshape(h * w, -1).astype(np.int64)
    found: dict = {}
    for row, landmark in enumerate(landmarks.astype(np.int64)):
        scores = flat @ landmark
        best = int(np.flatnonzero(scores == scores.max())[0 if tie == 1 else -1])
        top = int(scores[best])
        if top <= 0 or more(100 * scores, alike * top).sum() > 1 + few[0] * h * w // few[1]:
            continue
        like = top * top / int(landmark @ landmark) / int(flat[best] @ flat[best]) if length else top
        key = best if one_each else row
        if key not in found or like > found[key][0]:
            found[key] = like, row, np.array(place(scores.reshape(h, w), best, centre, between))
    chosen = sorted(found.values(), key=lambda one: (-one[0], one[1]))[:most]
    chosen = sorted(chosen, key=lambda one: one[1])
    return {
        "rows": np.array([row for _, row, _ in chosen], np.int64),
        "xy": np.array([xy for *_, xy in chosen], np.float64).reshape(-1, 2),
    }


def place(scores, best, centre, between):
    """x and y of the maximum ``best``, pixels, between cells where it has neighbours on both sides."""
    h, w = scores.shape
    y, x = divmod(best, w)
    at = []
    for here, size, line in ((x, w, scores[y]), (y, h, scores[:, x])):
        aside = 0.0
        if between and 0 < here < size - 1:
            before, middle, after = (int(line[here + i]) for i in (-1, 0, 1))
            bend = 2 * middle - before - after
            aside = (after - before) / (2 * bend) if bend > 0 else 0.0
        at.append(8 * (here + centre + aside))
    return at


PLAIN_DENSE = {"cells": cells, "dense_search": dense_search}
