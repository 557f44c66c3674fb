"""The sample place in tiles: what is written, what a reader must find in it, and what it must refuse.

Its tiles are cut by hand out of 36 images: three stretches of a street, and a fourth tile of six cameras far on both
sides of it, whose box holds the street.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.geometry import Pose
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.place_index import INDEX, ROW
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.prior import Prior
from hfnet_edge.searches import TileSearches
from hfnet_maps.content import DescribedMap
from hfnet_maps.pack.writer import Sections, full_sections, write_map
from hfnet_maps.tiles.cut import take_images
from hfnet_maps.tiles.writer import Tile, write_place

CORES = (12, 10, 8, 6)  # images of each tile's core, one after the other
HALO = 2  # images beside it on each side
SHOWN = 10  # of a core in the index, at most
START = np.array([500000.5, -1200.0, 30.0])
QUARTERS = ((1.0, 0.0, 0.0, 0.0), (0.5, 0.5, 0.5, 0.5))  # rotations that only swap axes: centres are exact


def place_of(source: DescribedMap) -> DescribedMap:
    """A place of 36 images as it is cut: where its cameras are; images of a tile look alike, and two of different tiles
    the same."""
    poses = []
    for image in range(sum(CORES)):
        aside = image - sum(CORES[:-1])  # of the street
        offset = [2.0 * image, 0.0, 0.0] if aside < 0 else [12.0 * aside, 3000.0 * (-1) ** aside, 1.0]
        turn = Pose(np.array(QUARTERS[image % 2]), np.zeros(3))
        poses.append(Pose(turn.quaternion, -turn.transform((START + offset)[None])[0]))
    first = np.repeat(np.cumsum((0, *CORES[:-1])), CORES)
    descriptors = source.global_descriptors // 2 + source.global_descriptors[first] // 2
    descriptors[25] = descriptors[3]
    return replace(source, poses=tuple(poses), global_descriptors=descriptors)


def write_sample(source: DescribedMap, folder: Path, described: Callable[[Sections], bytes]) -> None:
    """Writes the place's tiles and its index. ``described``: META again, which names no version of the package."""

    def tiles():
        whole, start = source.encoded(), 0
        for count in CORES:
            core = np.arange(start, start + count)
            images = np.arange(max(0, start - HALO), min(len(whole.names), start + count + HALO))
            sections = full_sections(take_images(whole, images, core))
            yield Tile({**sections, Section.META: described(sections)}, [whole.names[i] for i in core])
            start += count

    write_place(folder, tiles(), SHOWN)
    file = LocalizationMap.open(folder / INDEX).file
    sections = {kind: file.bytes(kind) for kind in Section if kind in file.sections and kind != Section.CHECKSUMS}
    sections[Section.META] = bytes(sections[Section.META])
    write_map({**sections, Section.META: described(sections)}, folder / INDEX)


def expected_of_place(folder: Path, descriptors: np.ndarray) -> dict[str, object]:
    """What a reader must find in a place, and which tiles the reference runtime asks for which queries.

    Args:
        descriptors: (4, G) int8, global ones of queries.
    """
    place = TiledMap(folder)
    here, away = ((START + np.array(offset)).tolist() for offset in ((4.0, 1.0, 0.0), (400.0, 0.0, 0.0)))
    shown = place.index.global_descriptors
    asked: list[tuple[np.ndarray, dict]] = [
        (shown[12], {}),
        (shown[3], {}),  # what an image of another tile looks like too
        (descriptors[0], {}),
        (descriptors[1], {}),
        (descriptors[2], {"position": here, "radius": 5.0}),
        (descriptors[2], {"position": here, "radius": 1000.0}),
        (descriptors[3], {"position": away, "radius": 5.0}),
        (descriptors[0], {"images": ["sample/2?.jpg", "sample/33.jpg"]}),
    ]
    return {
        "tiles": [
            {
                "name": tile.name,
                "bytes": tile.bytes,
                "head_checksum": tile.head_checksum,
                "images": tile.images,
                "core": tile.core,
                "representatives": [tile.representatives.start, tile.representatives.stop],
                "low": tile.low.tolist(),
                "high": tile.high.tolist(),
            }
            for tile in place.tiles
        ],
        "queries": [_query(place, descriptor, prior) for descriptor, prior in asked],
    }


def _query(place: TiledMap, descriptor: np.ndarray, prior: dict) -> dict[str, object]:
    known = None
    if prior:
        known = Prior(**{name: value if name == "radius" else tuple(value) for name, value in prior.items()})
    rounds = rounds_of(place, descriptor, known)
    told = {"compared": rounds[0], "further": [tile for later in rounds[1:] for tile in later]}
    return {"descriptor": descriptor.tolist(), "prior": prior, **told}


def rounds_of(place: TiledMap, descriptor: np.ndarray, prior: Prior | None) -> list[list[int]]:
    """The tiles that a query is sought in: those that are compared, then the others one by one."""
    one = np.zeros((1, place.index.description.localDim), np.int8)
    features = Features(np.zeros((1, 2)), np.zeros(1, np.float32), one, descriptor, 1.0)
    known = None if prior is None else prior.in_map(place.index)
    rounds = TileSearches(place, None, LocalizationConfig()).rounds(Query(1.0, features), known)
    return [[search.tile for search in searches if search.tile is not None] for searches in rounds]


def refused_places(content: bytes) -> list[tuple[str, int, bytes]]:
    """Changes to the index, for `checksummed`, that a reader which asks for its tiles must refuse."""
    file = LocalizationMap.read(content).file
    start, images = file.sections[Section.PLACE_TILES].offset, sum(min(SHOWN, core) for core in CORES)

    def at(row: int, field: str, axis: int = 0) -> int:
        return start + row * ROW.itemsize + ROW.fields[field][1] + 8 * axis  # type: ignore[index]

    def u4(value: int) -> bytes:
        return struct.pack("<I", value)

    def f8(value: float) -> bytes:
        return struct.pack("<d", value)

    last = len(CORES) - 1
    return [
        ("a first tile that does not begin at the first image", at(0, "first"), u4(1)),
        ("a tile without representatives", at(2, "first"), u4(SHOWN)),
        ("tiles whose representatives go back", at(2, "first"), u4(SHOWN - 1)),
        ("a last tile without representatives", at(last, "first"), u4(images)),
        ("representatives past the last image", at(last, "first"), u4(2**32 - 1)),
        ("a core of fewer images than the index shows", at(1, "core"), u4(SHOWN - 1)),
        ("a core of more images than the tile", at(1, "core"), u4(2**31)),
        ("a tile of fewer images than its core", at(3, "images"), u4(CORES[3] - 1)),
        ("a tile of 2^63 bytes", at(0, "bytes"), struct.pack("<Q", 2**63)),
        ("a tile of 2^64 - 1 bytes", at(last, "bytes"), struct.pack("<Q", 2**64 - 1)),
        ("a box inside out", at(1, "low", 2), f8(31.0)),
        ("a box without an end", at(2, "high", 0), f8(float("inf"))),
        ("a box of NaN", at(0, "low", 1), f8(float("nan"))),
        ("a tile that is there twice", at(last, "sha256"), content[at(0, "sha256") : at(0, "bytes")]),
    ]
