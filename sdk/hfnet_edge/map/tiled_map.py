"""A place in tiles at work: its index is read, and tiles are opened as queries need them.

    query ─> the index's images that look like it, near its prior ─> their tiles ─> at most `OPEN` are kept open

The index: `hfnet_edge.map.place_index`.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from hfnet_edge.errors import MapFormatError
from hfnet_edge.map.container import CHECKSUM_AT
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.place_index import INDEX, is_index, read_tiles
from hfnet_edge.map.remote import RemoteFile, Server, is_url

OPEN = 8  # tiles that stay open: those of a walk
ANEW = "open the place again; if that does not help, make it again with `hfnet-map tile`"


class TiledMap:
    """A place whose tiles are opened as they are asked for. Threads may share it.

    Args:
        where: the folder, its index, or the URL of either.
        cache: folder in which what was fetched stays; None: what was fetched goes with its tile.

    Attributes:
        index: a map of few images of each tile, without landmarks. tiles: what it says of each.

    Raises:
        MapFormatError: the index is missing or damaged. MismatchError: it is a map of one file.
        RemoteError: the URL cannot be read.
    """

    def __init__(self, where: Path | str, cache: Path | str | None = None):
        self._cache = None if cache is None else Path(cache)
        self._server: Server | None = None
        name = index_of(where)
        self._folder = name[: -len(INDEX)] if isinstance(name, str) else name.parent
        if isinstance(name, str):
            remote = _remote(name, self._cache)
            self._server = remote.server
            self.index = LocalizationMap.fetched(remote)
        elif name.parent.is_dir() and not os.path.lexists(name):
            raise MapFormatError(
                f"{name.parent} is a folder without {INDEX}, so no place in tiles",
                "make one with `hfnet-map tile`, or name a map's file",
            )
        else:
            self.index = LocalizationMap.open(name)
        self.tiles = read_tiles(self.index)
        self._tile_of = np.repeat(np.arange(len(self.tiles)), [len(tile.representatives) for tile in self.tiles])
        self._open: OrderedDict[int, LocalizationMap] = OrderedDict()
        self._turn = threading.Lock()

    def tile(self, number: int) -> LocalizationMap:
        """A tile's map, opened where it is not yet; the one used longest ago goes.

        Raises:
            MapFormatError: it is missing, damaged, or not the one that the index names. RemoteError: its URL cannot be
                read.
        """
        with self._turn:
            if number not in self._open:
                self._open[number] = self._opened(number)
                if len(self._open) > OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return self._open[number]

    def ranked(self, descriptor: np.ndarray, among: np.ndarray | None = None) -> list[tuple[int, int]]:
        """The tiles that a query may show, likeliest first: each with the rank of the first of its images among all of
        the index, by global descriptor.

        Args:
            descriptor: (extractor's G,) int8. among: (M,) bool images of the index that may be; None: all.
        """
        query = self.index.global_query(descriptor).astype(np.float32)
        rows = np.arange(self.index.image_count) if among is None else np.flatnonzero(among)
        alike = self.index.global_descriptors[rows].astype(np.float32) @ query  # exact, as in `retrieve`
        tiles = self._tile_of[rows[np.argsort(-alike, kind="stable")]]
        found, ranks = np.unique(tiles, return_index=True)
        return [(int(found[i]), int(ranks[i])) for i in np.argsort(ranks)]

    def tile_of(self, image: int) -> int:
        """The tile whose core an image of the index is at."""
        return int(self._tile_of[image])

    def _opened(self, number: int) -> LocalizationMap:
        entry = self.tiles[number]
        if isinstance(self._folder, str):
            url = self._folder + entry.name
            map_ = LocalizationMap.fetched(RemoteFile(url, self._server, entry.bytes, self._cache, entry.sha256))
        else:
            path = self._folder / entry.name
            if not os.path.lexists(path):
                raise MapFormatError(f"the tile {path} is missing, which the index names", ANEW)
            map_ = LocalizationMap.open(path)
        head = int.from_bytes(map_.file.data[CHECKSUM_AT : CHECKSUM_AT + 4], "little")
        if (head, len(map_.file.data), map_.image_count) != (entry.head_checksum, entry.bytes, entry.images):
            raise MapFormatError(f"the tile {map_.path} is not the one that the index names, but another version", ANEW)
        return map_


def index_of(where: Path | str) -> Path | str:
    """The index of a place, by its folder, itself, or the URL of either."""
    if is_url(where):
        url = str(where)
        return url if url.endswith("/" + INDEX) else url.rstrip("/") + "/" + INDEX
    path = Path(where)
    return path if path.name == INDEX else path / INDEX


def open_place(where: Path | str, cache: Path | str | None = None) -> LocalizationMap | TiledMap:
    """A map of one file, or a place in tiles, by what is there: a file; a folder; the URL of a file that ends in
    ``.hfmap``, or else of a folder.

    Raises:
        MapFormatError, RemoteError: as of either.
    """
    if is_url(where) and not str(where).lower().endswith(".hfmap"):
        return TiledMap(where, cache)
    if not is_url(where) and os.path.isdir(where):
        return TiledMap(where)
    map_ = LocalizationMap.fetched(_remote(str(where), cache)) if is_url(where) else LocalizationMap.open(where)
    return TiledMap(where, cache) if is_index(map_) else map_


def _remote(url: str, cache: Path | str | None) -> RemoteFile:
    """A file whose version only its server knows: its head is fetched anew each time."""
    key = hashlib.sha256(url.encode()).hexdigest()[:32]
    return RemoteFile(url, cache=None if cache is None else Path(cache), name=f"url-{key}")
