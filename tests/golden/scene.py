"""Scene coordinates: what a scene network is given, and the landmarks that its labels lead to."""

from __future__ import annotations

import numpy as np

from golden.folder import Folder
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map.scene_tree import SceneTree
from hfnet_edge.methods.scene_coordinates import landmarks_of
from hfnet_edge.networks.scene import rows_of

BRANCHES, KEYPOINTS = (5, 4, 3), 200


def scene_cases(folder: Folder) -> None:
    """Descriptors with all bytes, numbers of images with two; labels beyond the tree, that lead nowhere and to one
    landmark; equal scores, and scores of 0."""
    rng = np.random.default_rng(2)
    descriptors = np.concatenate([quantize(rng.normal(size=(6, 16))), np.arange(-128, 128, 16).astype(np.int8)[None]])
    given = folder.array("scene/descriptors", descriptors, "scene_rows", "made by code")
    for name, image in (("alone", None), ("told", 0), ("told_far", 700)):
        images = None if image is None else np.full(len(descriptors), image)
        rows = folder.array(f"scene/{name}", rows_of(descriptors, images)[:, 0], "scene_rows", "a network's input")
        folder.case("scene_rows", f"scene/{name}", {"descriptors": given, "image": image}, {"rows": rows})
    leaves = np.where(rng.random(60) < 0.2, -1, rng.permutation(60))
    leaves[7] = leaves[11]
    labels = np.stack([rng.integers(-1, branches + 1, KEYPOINTS) for branches in BRANCHES], axis=1)
    within = np.stack([rng.integers(0, branches, KEYPOINTS) for branches in BRANCHES], axis=1)
    labels = np.where(rng.random((KEYPOINTS, 1)) < 0.8, within, labels)
    scores = np.round(rng.normal(0.5, 1, (KEYPOINTS, 1)), 0)
    predicted = np.concatenate([labels, scores], axis=1).astype(np.float32)
    found = landmarks_of(SceneTree(BRANCHES, leaves, "0" * 32), predicted)
    folder.case(
        "scene_landmarks",
        "scene/limits",
        {
            "branches": list(BRANCHES),
            "leaves": folder.array("scene/leaves", leaves, "scene_landmarks", "landmarks of leaves, -1: none"),
            "predicted": folder.array(
                "scene/predicted", predicted, "scene_landmarks", "labels and score, made by code"
            ),
        },
        {"landmarks": folder.array("scene/landmarks", found, "scene_landmarks", "of each keypoint, -1: none")},
    )
