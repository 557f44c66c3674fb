"""Writes a place in tiles: one map after the other, then the index. The format: maps/SPEC.md.

A tile's file has the name of its content, and the index takes its name last. So whoever reads the folder, or stops
while it is written, has the old place or the new one, whole.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError, MismatchError, OutputError
from hfnet_edge.geometry import Pose
from hfnet_edge.map.codecs import project, rounded
from hfnet_edge.map.container import CHECKSUM_AT, Section
from hfnet_edge.map.georeference import Earth
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.place_index import INDEX, MAX_TILES, ROW, read_tiles
from hfnet_edge.shell.writing import CHECK
from hfnet_maps.content import DescribedMap, MapNetworks
from hfnet_maps.pack.packer import project_globals
from hfnet_maps.pack.writer import Sections, lay_out, write_map

REPRESENTATIVES = 64  # images of a tile that the index shows, at most
INDEX_DIM = 128  # of their global descriptors, along their principal axes, where that takes fewer bytes
NEW = "new-"  # before the name of a tile that has none yet
OURS = re.compile(r"([0-9a-f]{64}|new-[0-9a-f]{16})\.hfmap")


@dataclass(frozen=True)
class Tile:
    """A map that is to be a tile.

    Attributes:
        sections: what its file holds, as of `hfnet_maps.pack.writer.built_sections`.
        core: names of its images that are no other tile's core; the others are its halo.
    """

    sections: Sections
    core: Sequence[str]


@dataclass(frozen=True)
class _Indexed:
    """What the index will say of a tile that is written: ``row`` is its `ROW` without ``first``, N representatives."""

    row: np.ndarray
    networks: MapNetworks
    hypercolumn_dim: int
    earth: Earth | None
    core: tuple[str, ...]
    names: tuple[str, ...]
    poses: tuple[Pose, ...]
    descriptors: np.ndarray


def write_place(folder: Path | str, tiles: Iterable[Tile], representatives: int = REPRESENTATIVES) -> int:
    """Writes a place. The folder is made where it is not there; a place that it held stays until the new one is whole.

    Args:
        tiles: asked for one by one, so that one is in memory at a time.
        representatives: images of a tile that the index shows, at most.

    Returns:
        Bytes of all files.

    Raises:
        OutputError: it cannot be written. InputError, MismatchError: as of `index_place`.
    """
    folder = _made(folder)

    def written() -> Iterator[tuple[Path, Sequence[str]]]:
        for tile in tiles:
            path = _new(folder)
            write_map(tile.sections, path)
            yield path, tile.core

    return index_place(folder, written(), representatives)


def index_place(
    folder: Path | str, files: Iterable[tuple[Path, Sequence[str]]], representatives: int = REPRESENTATIVES
) -> int:
    """Makes a place of maps that are in its folder already: gives each the name of its content, writes the index, and
    removes what the index does not name any more (tiles, and maps that begin with `NEW`; nothing else).

    Args:
        files: maps in ``folder``, and the names of the images that are each one's core.
        representatives: as of `write_place`.

    Returns:
        Bytes of all files.

    Raises:
        InputError: there is no tile; an image is the core of two; a core is empty, or not in its map.
        MismatchError: the tiles are not of the same networks.
        MapFormatError: one is missing or damaged. OutputError: the folder cannot be written.
    """
    folder = Path(folder)
    indexed = [_named(folder, path, core, representatives) for path, core in files]
    if not indexed:
        raise InputError(f"there is no tile for {folder}", "name at least one map")
    if len(indexed) > MAX_TILES:
        raise InputError(f"{len(indexed)} tiles; at most {MAX_TILES} are possible", "make larger tiles")
    sections = _index_sections(indexed)
    return _finished(folder, sections, np.stack([tile.row for tile in indexed]))


def rewrite_place(folder: Path | str, index: LocalizationMap, tiles: Iterable[Sections]) -> int:
    """Writes a place of the same images as another has, in tiles of other bytes: packed ones.

    Args:
        index: of the other place. tiles: in its order, asked for one by one.

    Returns:
        Bytes of all files.

    Raises:
        OutputError: it cannot be written. InputError: a tile has other images than it had.
    """
    folder = _made(folder)
    rows = index.file.array(Section.PLACE_TILES, ROW, len(read_tiles(index))).copy()
    for row, sections in zip(rows, tiles, strict=True):
        path = _new(folder)
        write_map(sections, path)
        map_ = LocalizationMap.open(path)
        if map_.image_count != row["images"]:
            raise InputError(f"a tile has {map_.image_count} images, and had {row['images']}", "keep all images")
        _identify(row, map_)
        _rename(folder, path, row)
    known = [kind for kind in Section if kind in index.file.sections and kind != Section.CHECKSUMS]
    return _finished(folder, {**{kind: index.file.bytes(kind) for kind in known}, Section.PLACE_TILES: rows}, rows)


def _named(folder: Path, path: Path, core: Sequence[str], representatives: int) -> _Indexed:
    """A tile's row and representatives, its file renamed."""
    map_ = LocalizationMap.open(path)
    map_.check_all()
    number = {name: i for i, name in enumerate(map_.image_names)}
    missing = [name for name in core if name not in number]
    if missing or not core or len(set(core)) < len(core):
        raise InputError(
            f"the core of the tile {path} is empty or repeats"
            if not missing
            else f"{missing[0]} is not in the tile {path}, whose core it shall be",
            "a tile's core are images of its map, each once",
        )
    images = np.sort([number[name] for name in core])
    descriptors = map_.global_descriptors[images]
    if map_.global_projection is not None:  # back among the network's own dimensions
        descriptors = rounded(project(descriptors, map_.global_projection.T))
    shown = _spread(descriptors, representatives)
    centers = map_.views[0][images] + map_.origin
    row = np.zeros((), ROW)
    _identify(row, map_)
    row["core"] = len(images)
    row["low"], row["high"] = centers.min(axis=0), centers.max(axis=0)
    found = _Indexed(
        row,
        replace(MapNetworks.of_map(map_), precision=""),
        map_.description.hypercolumnDim,
        map_.earth,
        tuple(core),
        tuple(map_.image_names[i] for i in images[shown]),
        tuple(map_.pose(int(i)) for i in images[shown]),
        descriptors[shown],
    )
    _rename(folder, path, row)
    return found


def _made(folder: Path | str) -> Path:
    """The folder, made where it is not there. Raises OutputError."""
    try:
        Path(folder).mkdir(exist_ok=True)
    except OSError as e:
        raise OutputError(f"cannot make the folder {folder}: {e.strerror or e}", CHECK) from e
    return Path(folder)


def _new(folder: Path) -> Path:
    """Where a tile is written to."""
    return folder / f"{NEW}{secrets.token_hex(8)}.hfmap"


def _identify(row: np.ndarray, map_: LocalizationMap) -> None:
    """Says in a row which file a tile is."""
    data = map_.file.data
    row["sha256"] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
    row["bytes"], row["images"] = len(data), map_.image_count
    row["head_checksum"] = int.from_bytes(data[CHECKSUM_AT : CHECKSUM_AT + 4], "little")


def _name(row: np.ndarray) -> str:
    return f"{row['sha256'].tobytes().hex()}.hfmap"


def _rename(folder: Path, path: Path, row: np.ndarray) -> None:
    try:
        os.replace(path, folder / _name(row))
    except OSError as e:
        raise OutputError(f"cannot name the tile {path}: {e.strerror or e}", CHECK) from e


def _finished(folder: Path, index: Sections, rows: np.ndarray) -> int:
    """Writes the index of tiles that are there, then removes what it does not name. Returns bytes of all files."""
    size = write_map(index, folder / INDEX)
    named = {_name(row) for row in rows}
    for old in sorted(folder.iterdir()):
        if OURS.fullmatch(old.name) and old.name not in named:
            with suppress(OSError):  # another time
                old.unlink()
    return size + int(rows["bytes"].sum())


def _spread(descriptors: np.ndarray, most: int) -> np.ndarray:
    """Rows (K,) int64, increasing, of (N, G) int8 descriptors that are like all others: the one most like the rest,
    then each time the one least like those taken."""
    if len(descriptors) <= most:
        return np.arange(len(descriptors))
    alike = descriptors.astype(np.float32) @ descriptors.astype(np.float32).T  # exact, as in `retrieve`
    taken = [int(np.argmax(alike.sum(axis=0, dtype=np.float64)))]
    nearest = alike[taken[0]].copy()
    while len(taken) < most:
        nearest[taken] = np.inf
        taken.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, alike[taken[-1]])
    return np.sort(np.array(taken))


def _index_sections(tiles: Sequence[_Indexed]) -> Sections:
    """The index: a map of the representatives and of no landmarks, and `PLACE_TILES`."""
    first = tiles[0]
    cores: dict[str, int] = {}
    for i, tile in enumerate(tiles):
        if (tile.networks, tile.hypercolumn_dim) != (first.networks, first.hypercolumn_dim):
            raise MismatchError(
                f"one tile is of the weights {first.networks.weights_hash or 'unknown'}, another of "
                f"{tile.networks.weights_hash or 'unknown'}, or not of the same outputs",
                "build all with one model and method",
            )
        for name in tile.core:
            if cores.setdefault(name, i) != i:
                raise InputError(f"the image {name} is the core of two tiles", "let it be the halo of one of them")
    rows = np.stack([tile.row for tile in tiles])
    counts = [len(tile.names) for tile in tiles]
    rows["first"] = np.cumsum([0, *counts[:-1]])
    nothing = np.zeros(0, np.int64)
    described = DescribedMap(
        first.networks,
        tuple(name for tile in tiles for name in tile.names),
        tuple(pose for tile in tiles for pose in tile.poses),
        np.concatenate([tile.descriptors for tile in tiles]),
        np.zeros((0, 3)),
        nothing,
        nothing,
        nothing,
        np.zeros((0, first.networks.local_dim), np.int8),
        np.zeros((0, first.hypercolumn_dim), np.int8) if first.hypercolumn_dim else None,
        earth=next((tile.earth for tile in tiles if tile.earth is not None), None),
    )
    count, dim = described.global_descriptors.shape
    narrow = INDEX_DIM * (count + dim) < count * dim  # of few images the projection takes more than it saves
    descriptors, projection = project_globals(described.global_descriptors, INDEX_DIM if narrow else dim)
    packed = replace(described.encoded(), global_descriptors=descriptors, global_projection=projection)
    return {**lay_out(packed), Section.PLACE_TILES: rows}
