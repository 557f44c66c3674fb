"""The hierarchical method (HF-Net, figure 2): retrieve ─> cluster ─> for each place: match."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features
from hfnet_edge.methods.covisibility import in_each_place
from hfnet_edge.methods.matching import match
from hfnet_edge.methods.method import Candidates, Method, Query
from hfnet_edge.methods.retrieval import prior_frames
from hfnet_edge.result import Status

PRIOR_FRAMES = 10  # reference images that are retrieved (appendix C.2)
FURTHER = 3  # times as many more, where the pose is in none of their places


class Hierarchical(Method):
    """Seeks landmarks in the places that the prior frames show, one place at a time, the largest first; where no pose
    is accepted there, in those of the next most similar reference images.
    """

    search_stages = ("retrieve", "cluster", "match")

    def candidates(self, query: Query, clock: Clock) -> Candidates:
        features = query.features
        if features is None or not len(features.keypoints):
            return Candidates(abstention=Status.NO_KEYPOINTS)
        with clock("retrieve"):
            count = self.config.prior_frame_count or PRIOR_FRAMES
            ranked = prior_frames(self.map, features.global_descriptor, count * (1 + FURTHER), query.among)
        first, further = (self._matches(features, frames, clock) for frames in (ranked[:count], ranked[count:]))
        return Candidates(first, ranked[:count], further=further)

    def _matches(self, features: Features, frames: np.ndarray, clock: Clock) -> Iterator[Match2D3D]:
        return in_each_place(self.map, frames, clock, "match", lambda ids: match(features, self.map, ids))
