"""The index of a place in tiles: which map files it is of, where each lies, and what it looks like.

A place in tiles is a folder of ordinary maps in one frame, its tiles, and `INDEX`, a map too: of few images of each
tile and of no landmarks. What names the tiles of a query is therefore what names the reference images of a query in any
map: retrieval, and `hfnet_edge.prior`. One section more says which tile the images are of. The format: maps/SPEC.md.

(The tiles of 256 landmarks inside of a map are something else.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.errors import MismatchError
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap

INDEX = "index.hfmap"
MAX_TILES = 1 << 16  # bounds what a hostile index can make the reader do
ROW = np.dtype(
    [
        ("sha256", "u1", 32),  # of the tile's file, whose name it is
        ("bytes", "<u8"),  # of the file
        ("head_checksum", "<u4"),  # that its header holds
        ("images", "<u4"),  # of the file, core and halo
        ("core", "<u4"),  # images that no other tile has at its core
        ("first", "<u4"),  # image of the index that is the tile's; they go on to the next tile's
        ("low", "<f8", 3),  # corners of the box of the core's camera centres, world
        ("high", "<f8", 3),
    ]
)


@dataclass(frozen=True)
class TileEntry:
    """What the index says of a tile.

    Attributes:
        sha256: of its file, 64 hex digits. bytes: of the file. head_checksum: that its header holds.
        images: of the file, core and halo. core: of these, images that are the tile's own.
        low, high: (3,) float64 world, corners of the box of the core's camera centres.
        representatives: images of the index that are of the tile's core.
    """

    sha256: str
    bytes: int
    head_checksum: int
    images: int
    core: int
    low: np.ndarray
    high: np.ndarray
    representatives: range

    @property
    def name(self) -> str:
        """Of the file, by its content: another version has another name."""
        return f"{self.sha256}.hfmap"


def is_index(map_: LocalizationMap) -> bool:
    """Whether a map is the index of a place in tiles."""
    return Section.PLACE_TILES in map_.file.sections


def read_tiles(index: LocalizationMap) -> tuple[TileEntry, ...]:
    """The tiles of a place.

    Raises:
        MismatchError: the map is of one file. MapFormatError: the index is damaged.
    """
    file = index.file
    if not is_index(index):
        raise MismatchError(f"{file.where} is a map, and no index of tiles", "name the folder that holds index.hfmap")
    length = file.sections[Section.PLACE_TILES].length
    if not 0 < length <= MAX_TILES * ROW.itemsize or length % ROW.itemsize:
        raise file.fail(f"PLACE_TILES has {length} bytes")
    rows = file.array(Section.PLACE_TILES, ROW, length // ROW.itemsize)
    first = np.append(rows["first"].astype(np.int64), index.image_count)
    if first[0] != 0 or (np.diff(first) <= 0).any():
        raise file.fail("a tile of PLACE_TILES has no images in the index")
    if not (np.isfinite(rows["low"]) & np.isfinite(rows["high"]) & (rows["low"] <= rows["high"])).all():
        raise file.fail("the box of a tile in PLACE_TILES is none")
    if (rows["core"] < np.diff(first)).any() or (rows["images"] < rows["core"]).any():
        raise file.fail("a tile of PLACE_TILES has fewer images than the index shows of it")
    if (rows["bytes"] >= 1 << 63).any() or len(np.unique(rows["sha256"], axis=0)) != len(rows):
        raise file.fail("PLACE_TILES names a tile twice, or one of impossible size")
    return tuple(
        TileEntry(
            row["sha256"].tobytes().hex(),
            int(row["bytes"]),
            int(row["head_checksum"]),
            int(row["images"]),
            int(row["core"]),
            row["low"].copy(),
            row["high"].copy(),
            range(int(start), int(stop)),
        )
        for row, start, stop in zip(rows, first[:-1], first[1:], strict=True)
    )
