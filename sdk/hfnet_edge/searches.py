"""The maps in which a query is sought: one, or those tiles of a place that it may show, likeliest first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.methods.auto import Auto
from hfnet_edge.methods.hierarchical import Hierarchical
from hfnet_edge.methods.method import LocalizationConfig, Method, Query
from hfnet_edge.methods.registry import METHODS, method_class, open_method
from hfnet_edge.methods.sparse_to_dense import SparseToDense
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.prior import REACH, Known, Prior

TILES = 3  # that are asked for a query, at most
LIKELY = 5  # most similar images of the index, whose tiles are as likely as each other: their poses are compared
BY_RETRIEVAL = (Hierarchical, SparseToDense, Auto)  # the methods that seek in retrieved images alone


@dataclass(frozen=True)
class Search:
    """A map in which a query is sought.

    Attributes:
        method: of the map. known: a prior there; None: there is none.
        tile: its number in the place; None: the map is of one file.
    """

    method: Method
    known: Known | None = None
    tile: int | None = None


class TileSearches:
    """The searches of queries in a place in tiles. Threads may share it.

    Raises:
        MismatchError: the networks do not belong to the place, or the method does not seek by retrieval alone. No tile
            has been asked for then.
    """

    def __init__(self, place: TiledMap, networks: Networks | None, config: LocalizationConfig):
        self.place, self._networks, self._config = place, networks, config
        kind = method_class(config.method)
        if kind in METHODS.values() and kind not in BY_RETRIEVAL:
            raise MismatchError(
                f"the method {config.method} does not search in tiles",
                "take hierarchical, sparse-to-dense or auto, or a map in one file",
            )
        self.looking = open_method(place.index, networks, config)  # which finds nothing there

    def rounds(self, query: Query, known: Known | None) -> Iterator[Sequence[Search]]:
        """Tiles that are as likely as each other, then the others one by one, opened as they are asked for.

        Args:
            known: a prior in the index.

        Raises:
            MapFormatError, RemoteError: as of `TiledMap.tile`.
        """
        features = query.features
        if features is None or not len(features.keypoints):
            yield (Search(self.looking),)  # says so
            return
        among = None if known is None else self._near(known)
        prior = None if known is None else known.prior
        ranked = self.place.ranked(features.global_descriptor, among)[:TILES]
        likely = [tile for tile, rank in ranked if rank < LIKELY]
        yield [search for tile in likely for search in self._of(tile, prior)]
        for tile, _ in ranked[len(likely) :]:
            yield tuple(self._of(tile, prior))

    def _of(self, tile: int, prior: Prior | None) -> Iterator[Search]:
        """The search in a tile; none where it has no image of those that the prior names."""
        map_ = self.place.tile(tile)
        method = self._method(map_)
        if prior is None:
            yield Search(method, None, tile)
            return
        with suppress(InputError):
            yield Search(method, prior.in_map(map_), tile)

    def method_of(self, image: int) -> Method:
        """The method in the tile of an image of the index. Raises MapFormatError, RemoteError: as of `rounds`."""
        return self._method(self.place.tile(self.place.tile_of(image)))

    def _method(self, map_: LocalizationMap) -> Method:
        return open_method(map_, self._networks, self._config)

    def _near(self, known: Known) -> np.ndarray | None:
        """(M,) bool images of the index whose tiles may show what a prior allows: those of tiles with an image that it
        allows, or that reach near where it says."""
        if known.among is None:
            return None
        near = np.zeros(self.place.index.image_count, bool)
        for tile in self.place.tiles:
            shown = slice(tile.representatives.start, tile.representatives.stop)
            reached = [
                disk.distances(np.clip(disk.center, tile.low, tile.high)[None])[0] <= REACH * disk.radius
                for disk in known.disks
            ]
            near[shown] = known.among[shown].any() or (bool(reached) and all(reached))
        return near
