"""All methods that a map and the networks allow, the cheapest first, until a pose is believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.hierarchical import Hierarchical
from hfnet_edge.methods.method import Candidates, LocalizationConfig, Method, Query
from hfnet_edge.methods.parallel import Parallel
from hfnet_edge.methods.scene_coordinates import SceneCoordinates
from hfnet_edge.methods.sparse_to_dense import SparseToDense
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.description import HYPERCOLUMN_ROLE, SCENE_ROLE


class Auto(Method):
    """Hierarchical; where none of its poses is accepted what the map and the networks allow: scene coordinates, in a
    map of a scene network; sparse-to-dense, in one of hypercolumns; parallel, in one with random trees. Of all poses
    the best is judged, and the result says which method found it."""

    search_stages: ClassVar[tuple[str, ...]] = (*Hierarchical.search_stages, "predict", "search", "trees")
    by_features = False

    def __init__(self, map_: LocalizationMap, networks: Networks, config: LocalizationConfig):
        super().__init__(map_, networks, config)
        self._methods: dict[str, Method] = {"hierarchical": Hierarchical(map_, networks, config)}
        if Section.SCENE_TREE in map_.file.sections and SCENE_ROLE in networks:
            self._methods["scene-coordinates"] = SceneCoordinates(map_, networks, config)
        if map_.hypercolumn_codec is not None and (not list(networks) or HYPERCOLUMN_ROLE in networks):
            self._methods["sparse-to-dense"] = SparseToDense(map_, networks, config)
        if Section.RANDOM_TREES in map_.file.sections:
            self._methods["parallel"] = Parallel(map_, networks, config)

    @classmethod
    def further_roles(cls, map_: LocalizationMap) -> frozenset[str]:
        return frozenset({SCENE_ROLE} if Section.SCENE_TREE in map_.file.sections else ())

    @property
    def stages(self) -> tuple[str, ...]:
        """Those of all its methods; a query that the first one finds has not all of them."""
        there = {stage for method in self._methods.values() for stage in method.stages}
        return tuple(stage for stage in super().stages if stage in there)

    def candidates(self, query: Query, clock: Clock) -> Candidates:
        first = self._methods["hierarchical"].candidates(query, clock)
        return replace(first, matches=_named(first.matches, "hierarchical"), further=self._further(first, query, clock))

    def _further(self, first: Candidates, query: Query, clock: Clock) -> Iterator[Match2D3D]:
        yield from _named(first.further, "hierarchical")
        for name, method in list(self._methods.items())[1:]:
            yield from _named(method.candidates(query, clock).matches, name)


def _named(candidates, name: str) -> Iterator[Match2D3D]:
    return (replace(matches, found_by=name) for matches in candidates)
