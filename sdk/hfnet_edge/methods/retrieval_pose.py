"""The pose of the most similar reference image: what DenserNet's paper evaluates (004, section IV). Coarse, never a
pose of the query: `hfnet_edge.result.Status.COARSE`."""

from __future__ import annotations

from hfnet_edge.clock import Clock
from hfnet_edge.methods.hierarchical import PRIOR_FRAMES
from hfnet_edge.methods.method import Candidates, Method, Query
from hfnet_edge.methods.retrieval import prior_frames
from hfnet_edge.result import Status


class RetrievalPose(Method):
    """Says near which reference image a query was taken, where there is anything to see in it. Seeks no landmark."""

    search_stages = ("retrieve",)

    def candidates(self, query: Query, clock: Clock) -> Candidates:
        features = query.features
        if features is None or not len(features.keypoints):
            return Candidates(abstention=Status.NO_KEYPOINTS)
        with clock("retrieve"):
            count = self.config.prior_frame_count or PRIOR_FRAMES
            frames = prior_frames(self.map, features.global_descriptor, count, query.among)
        return Candidates(prior_frames=frames, abstention=Status.COARSE if len(frames) else Status.NO_CANDIDATES)
