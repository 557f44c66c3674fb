"""Sparse-to-dense hypercolumn matching (paper 001): retrieve ─> cluster ─> for each place: search.

Nothing is detected in the query to find a first pose: every landmark of a place is looked for everywhere in it. That
pose is good to a few pixels; the second look then refines it with keypoints, where the query has them.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.errors import MismatchError
from hfnet_edge.image.hypercolumns import Hypercolumns
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.covisibility import in_each_place
from hfnet_edge.methods.dense_search import search
from hfnet_edge.methods.hierarchical import PRIOR_FRAMES
from hfnet_edge.methods.method import Candidates, LocalizationConfig, Method, Query
from hfnet_edge.methods.retrieval import prior_frames
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.description import HYPERCOLUMN_ROLE


class SparseToDense(Method):
    """Seeks the landmarks of the places that the prior frames show in the whole query, the largest place first."""

    search_stages = ("retrieve", "cluster", "search")
    by_features = False

    def __init__(self, map_: LocalizationMap, networks: Networks, config: LocalizationConfig):
        super().__init__(map_, networks, config)
        _ = map_.hypercolumns(np.zeros(0, np.int64))  # raises

    @classmethod
    def roles(cls, map_: LocalizationMap) -> frozenset[str]:
        return super().roles(map_) | {HYPERCOLUMN_ROLE}

    def candidates(self, query: Query, clock: Clock) -> Candidates:
        features = query.features
        if features is None or features.hypercolumns is None:
            return Candidates()
        with clock("retrieve"):
            count = self.config.prior_frame_count or PRIOR_FRAMES
            priors = prior_frames(self.map, features.global_descriptor, count, query.among)
        search = partial(self._search, features.hypercolumns)
        return Candidates(in_each_place(self.map, priors, clock, "search", search), priors)

    def _search(self, image: Hypercolumns, landmarks: np.ndarray) -> Match2D3D:
        codec = self.map.hypercolumn_codec
        assert codec is not None, "checked when the method was opened"
        if image.cells.shape[2] != (dim := self.map.description.hypercolumnDim):
            raise MismatchError(
                f"{self.map.path or 'the map'} has {dim}-D hypercolumns, the network {image.cells.shape[2]}-D",
                "localize with the model that built the map, or build the map again with this one",
            )
        cells = codec.query(image.cells.reshape(-1, image.cells.shape[2]))
        found = search(cells.reshape(*image.cells.shape[:2], -1), self.map.hypercolumns(landmarks))
        ids = landmarks[found.rows]
        return Match2D3D(image.photo.to_camera(found.xy), self.map.positions(ids), None, ids)
