"""Parallel search and its halves (paper 002, figure 3): retrieve, walk trees ─> match, among both at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.errors import SearchLimitError
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import Order
from hfnet_edge.methods.method import Candidates, LocalizationConfig, Method, Query
from hfnet_edge.methods.parallel_search import search, seen_by
from hfnet_edge.methods.retrieval import prior_frames
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.result import Status

PRIOR_FRAMES = 20  # reference images that are retrieved (section 4.3)


class Parallel(Method):
    """Seeks landmarks in prior leaves and prior frames (the paper's ParallelSearch)."""

    search_stages: ClassVar[tuple[str, ...]] = ("retrieve", "trees", "match")
    order: ClassVar[Order] = Order.PROBABILITY  # of the prior leaves

    def __init__(self, map_: LocalizationMap, networks: Networks, config: LocalizationConfig):
        super().__init__(map_, networks, config)
        if "trees" in self.search_stages:
            _ = map_.trees  # raises

    def candidates(self, query: Query, clock: Clock) -> Candidates:
        features = query.features
        if features is None or not len(features.keypoints):
            return Candidates(abstention=Status.NO_KEYPOINTS)
        priors = np.zeros(0, np.int64)
        if "retrieve" in self.search_stages:
            with clock("retrieve"):
                count = self.config.prior_frame_count or PRIOR_FRAMES
                priors = prior_frames(self.map, features.global_descriptor, count, query.among)
        own: Iterable[tuple[np.ndarray, np.ndarray]] = ()
        any_own = False
        try:
            if "trees" in self.search_stages:
                with clock("trees"):
                    trees = self.map.trees
                    leaves = trees.prior_leaves(features.descriptors, self.config.prior_leaf_count, self.order)
                    own, any_own = trees.blocks(leaves), bool(trees.held(leaves).any())
            with clock("match"):
                shared = seen_by(self.map, priors)
                matches = search(features, self.map, shared, own)
        except SearchLimitError:
            return Candidates((), priors, Status.SEARCH_LIMIT)
        return Candidates([matches] if len(shared) or any_own else (), priors)


class Retrieval(Parallel):
    """Seeks among all landmarks that the prior frames observe (the paper's IR)."""

    search_stages = ("retrieve", "match")


class Trees(Parallel):
    """Seeks in the prior leaves of random trees (the paper's RT_AP)."""

    search_stages = ("trees", "match")


class TreesAbsolute(Trees):
    """Seeks as `Trees`, with leaves in the order of absolute values (the paper's RT)."""

    order = Order.ABSOLUTE
