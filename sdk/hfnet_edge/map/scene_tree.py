"""The tree of labels that a scene network speaks in: its leaves are landmarks (paper 003, section 3).

A scene network says of a keypoint which part of the place it shows, which part of that, and so on: one label a level,
and the last leads to a landmark. So the network is the map, and this table says what its words mean. Maps that are
packed lose landmarks: their leaves then lead nowhere. The byte tables stand in maps/SPEC.md; trees are made by
`hfnet_maps.build.scene_labels`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.errors import MismatchError
from hfnet_edge.map.container import MapBytes, Section

MAX_LEVELS = 4
MAX_BRANCHES = 1024  # children of a node: a network has an output for each
MAX_LEAVES = 1 << 24
NOWHERE = 0xFFFFFFFF
SCENE_TREE = np.dtype(
    [
        ("levels", "<u4"),
        ("branches", "<u4", MAX_LEVELS),  # of a node of each level; 0 of those that there are not
        ("landmarks", "<u4"),  # of the map
        ("weights_hash", "S32"),  # of the scene network
    ]
)
REMEDY = "train a scene network for this map: `hfnet-map train`"


@dataclass(frozen=True)
class SceneTree:
    """What labels mean in one map.

    Attributes:
        branches: children of a node of each level, 1 to `MAX_LEVELS` of them; B is their product.
        landmarks: (B,) int64 landmark of each leaf, the last level's labels fastest; -1: none.
        weights_hash: of the scene network, 32 hex digits.
    """

    branches: tuple[int, ...]
    landmarks: np.ndarray
    weights_hash: str

    @staticmethod
    def read(file: MapBytes, landmark_count: int) -> SceneTree:
        """The tree of a map's file.

        Raises:
            MismatchError: the map has none. MapFormatError: it is damaged, or of other landmarks than the map's.
        """
        if Section.SCENE_TREE not in file.sections:
            raise MismatchError(f"{file.where} has no scene tree", REMEDY)
        head = file.array(Section.SCENE_TREE, SCENE_TREE, 1)[0]
        levels, branches = int(head["levels"]), [int(n) for n in head["branches"]]
        if not 1 <= levels <= MAX_LEVELS or any(branches[levels:]):
            raise file.fail(f"its scene tree has {levels} levels, or branches below the last")
        if not all(1 <= n <= MAX_BRANCHES for n in branches[:levels]):
            raise file.fail(f"a node of its scene tree has {branches[:levels]} children by level")
        leaves = math.prod(branches[:levels])
        if leaves > MAX_LEAVES or int(head["landmarks"]) != landmark_count:
            raise file.fail(f"its scene tree has {leaves} leaves and {head['landmarks']} landmarks")
        try:
            weights_hash = bytes(head["weights_hash"]).decode("ascii")
        except UnicodeDecodeError as e:
            raise file.fail("the hash in its scene tree is not ASCII") from e
        stored = file.array(Section.SCENE_LANDMARKS, "<u4", leaves)
        there = stored != NOWHERE
        if (stored[there] >= landmark_count).any():
            raise file.fail("a leaf of its scene tree leads past the last landmark")
        return SceneTree(tuple(branches[:levels]), np.where(there, stored.astype(np.int64), -1), weights_hash)

    def sections(self, landmark_count: int) -> dict[Section, np.ndarray]:
        """What `read` reads."""
        head = np.zeros(1, SCENE_TREE)
        head["levels"], head["landmarks"], head["weights_hash"] = len(self.branches), landmark_count, self.weights_hash
        head["branches"][0, : len(self.branches)] = self.branches
        stored = np.where(self.landmarks >= 0, self.landmarks, NOWHERE).astype("<u4")
        return {Section.SCENE_TREE: head, Section.SCENE_LANDMARKS: stored}

    def landmarks_of(self, labels: np.ndarray) -> np.ndarray:
        """(N,) int64 landmarks that labels (N, levels) int64 lead to; -1: none, or they are beyond the tree."""
        within = ((labels >= 0) & (labels < self.branches)).all(axis=1)
        leaf = np.zeros(len(labels), np.int64)
        for level, branches in enumerate(self.branches):
            leaf = leaf * branches + labels[:, level]
        return np.where(within, self.landmarks[np.where(within, leaf, 0)], -1)

    def renumbered(self, number: np.ndarray) -> SceneTree:
        """Of a map whose landmarks are numbered anew: ``number`` (L,) int64 of each that there was, -1: gone."""
        there = self.landmarks >= 0
        return replace(self, landmarks=np.where(there, number[np.where(there, self.landmarks, 0)], -1))
