"""Small maps of every kind, and a query that each of them answers. The tests and the attacks share them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_maps.content import BuiltMap, PackedMap
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import ALL, Settings
from hfnet_maps.pack.writer import Sections, full_sections, in_file_order, lay_out, to_map
from synthetic import looking_at, place

LANDMARKS = 280  # two tiles, the second not full
KINDS: dict[str, Settings | None] = {
    "as built": None,  # with the sections for tools; a descriptor an observation, 16-bit counts
    "int8": Settings(CodecName.INT8, 32, 0, 1, 16),
    "int8 x 1-4": Settings(CodecName.INT8, 32, 0, 4, 16),  # 2-bit counts
    "int8 x all": Settings(CodecName.INT8, 32, 0, ALL, 8),  # 16-bit counts; projected global descriptors
    "int8 projected": Settings(CodecName.INT8, 24, 0, 1, 8),
    "pq": Settings(CodecName.PQ, 32, 8, 1, 16),
    "pq x 1-4": Settings(CodecName.PQ, 24, 6, 4, 8),
    "binary": Settings(CodecName.BINARY, 32, 0, 1, 16),
    "binary x 1-4": Settings(CodecName.BINARY, 28, 0, 4, 8),  # the last byte of a row half used
}


@dataclass(frozen=True)
class Victim:
    """A map.

    Attributes:
        content: the file.
        sections: what it was written from.
        source: the same, with the landmarks' numbers in the file.
    """

    content: bytes
    sections: Sections
    source: PackedMap

    def read(self) -> LocalizationMap:
        return LocalizationMap.read(self.content)


@cache
def victim(kind: str) -> Victim:
    """The map of one of `KINDS`."""
    settings, source = KINDS[kind], a_place()[0]
    if settings is None:
        return written(full_sections(source), in_file_order(source).encoded())
    packer = Packer(source)
    kept = packer.encoded(settings).take(np.sort(packer.order[:LANDMARKS]))
    return written(packer.pack(settings, LANDMARKS), kept)


def written(sections: Sections, source: PackedMap) -> Victim:
    return Victim(bytes(to_map(sections).file.data), sections, source)


def a_query() -> Features:
    """Seen from a place between the reference images."""
    return a_place()[1]


@cache
def a_place() -> tuple[BuiltMap, Features]:
    """Every third landmark looks different in every image."""
    p = place(landmarks=300, images=5)
    source, center = p.source(), np.array([1000.0, -2000.0, 50.0])
    seen = p.features(looking_at(center + np.array([13.0, 4.0, 2.0]), center), outliers=50)
    every = slice(None, None, 5)  # enough, and few enough for one thread
    query = replace(
        seen, keypoints=seen.keypoints[every], scores=seen.scores[every], descriptors=seen.descriptors[every]
    )
    changing = source.landmarks % 3 == 0
    descriptors = source.descriptors.copy()
    descriptors[changing] = quantize(p.rng.normal(size=(int(changing.sum()), 32)))
    return replace(source, descriptors=descriptors), query


@cache
def a_large_map() -> Victim:
    """Landmarks whose positions and descriptors fill many blocks of a checksum each."""
    source = in_file_order(place(landmarks=20_000, images=2).source().encoded())
    return written(lay_out(source), source)
