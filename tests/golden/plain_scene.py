"""`golden.plain` for scene coordinates: a network's input, and the landmarks of its labels."""

from __future__ import annotations

from operator import gt, lt

import numpy as np


def scene_rows(descriptors, image, lift=128, high_first=True):
    rows = (descriptors.astype(np.int64) + lift) % 256
    if image is not None:
        number = [image // 256, image % 256] if high_first else [image % 256, image // 256]
        rows = np.concatenate([rows, np.tile(number, (len(rows), 1))], axis=1)
    return {"rows": rows.astype(np.uint8)}


def scene_landmarks(branches, leaves, predicted, last_fastest=True, above=0, surer=gt, beyond=lt):
    best: dict = {}
    found = np.full(len(predicted), -1)
    for keypoint, (*labels, score) in enumerate(predicted.tolist()):
        if not score > above or any(
            not (label >= 0 and beyond(label, n)) for label, n in zip(labels, branches, strict=True)
        ):
            continue
        leaf = 0
        pairs = list(zip(labels, branches, strict=True))
        for label, n in pairs if last_fastest else pairs[::-1]:
            leaf = leaf * n + int(label)
        landmark = int(leaves[leaf % len(leaves)])
        if landmark >= 0 and (landmark not in best or surer(score, best[landmark][0])):
            best[landmark] = score, keypoint
    for landmark, (_, keypoint) in best.items():
        found[keypoint] = landmark
    return {"landmarks": found}


PLAIN_SCENE = {"scene_rows": scene_rows, "scene_landmarks": scene_landmarks}
