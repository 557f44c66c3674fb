"""Hierarchical scene coordinates (paper 003): predict ─> look up. No retrieval, no matching; the network is the map."""

from __future__ import annotations

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.errors import MismatchError
from hfnet_edge.features import Features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.scene_tree import MAX_BRANCHES, SceneTree
from hfnet_edge.methods.hierarchical import PRIOR_FRAMES
from hfnet_edge.methods.method import Candidates, LocalizationConfig, Method, Query
from hfnet_edge.methods.retrieval import prior_frames
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.description import SCENE_ROLE
from hfnet_edge.networks.scene import SceneModel
from hfnet_edge.result import Status


class SceneCoordinates(Method):
    """Asks a network that knows one place which landmark each keypoint is of: the whole place at once, in a time that
    does not depend on its size. A network that takes an image is asked with each of the prior frames, and what it says
    of landmarks that none of these observes is not believed (the paper's hybrid, section 4.5)."""

    search_stages = ("retrieve", "predict")
    by_features = False

    def __init__(self, map_: LocalizationMap, networks: Networks, config: LocalizationConfig):
        super().__init__(map_, networks, config)
        self.tree = map_.scene_tree  # raises
        network = networks[SCENE_ROLE]
        assert isinstance(network, SceneModel), "of that role"
        self.network = network

    @classmethod
    def roles(cls, map_: LocalizationMap) -> frozenset[str]:
        return super().roles(map_) | {SCENE_ROLE}

    def candidates(self, query: Query, clock: Clock) -> Candidates:
        features = query.features
        if features is None or not len(features.keypoints):
            return Candidates(abstention=Status.NO_KEYPOINTS)
        if not self.network.takes_image:
            found = self._matches(features, clock)
            return Candidates([found] if len(found) else ())
        with clock("retrieve"):
            count = self.config.prior_frame_count or PRIOR_FRAMES
            priors = prior_frames(self.map, features.global_descriptor, count, query.among)
            seen = self.map.observed_by(priors)
        return Candidates((self._matches(features, clock, seen, int(image)) for image in priors), priors)

    def _matches(self, features: Features, clock: Clock, seen: np.ndarray | None = None, image: int = 0) -> Match2D3D:
        with clock("predict"):
            found = landmarks_of(self.tree, self.network(features.descriptors, image))
            if seen is not None:
                found = np.where(np.isin(found, seen), found, -1)
            keypoints = np.flatnonzero(found >= 0)
            ids = found[keypoints]
            return Match2D3D(features.keypoints[keypoints], self.map.positions(ids), keypoints, ids)


def landmarks_of(tree: SceneTree, predicted: np.ndarray) -> np.ndarray:
    """(N,) int64 landmark of each keypoint, -1: none. Of keypoints with one landmark the one of highest score, equals
    by the lower index; none where the score says that the keypoint is of no landmark.

    Args:
        predicted: (N, levels + 1) float32, as `SceneModel` returns them.

    Raises:
        MismatchError: the tree has another number of levels.
    """
    levels = predicted.shape[1] - 1
    if levels != len(tree.branches):
        raise MismatchError(
            f"the scene network speaks of {levels} levels, the map's tree has {len(tree.branches)}",
            "localize with the network that `hfnet-map train` wrote for this map",
        )
    score = predicted[:, levels]
    spoken = np.clip(np.nan_to_num(predicted[:, :levels], nan=-1), -1, MAX_BRANCHES).astype(np.int64)
    landmarks = np.where(score > 0, tree.landmarks_of(spoken), -1)
    rows = np.flatnonzero(landmarks >= 0)
    rows = rows[np.lexsort((rows, -score[rows], landmarks[rows]))]
    first = np.concatenate([[True], landmarks[rows][1:] != landmarks[rows][:-1]])[: len(rows)]
    found = np.full(len(landmarks), -1, np.int64)
    found[rows[first]] = landmarks[rows[first]]
    return found
