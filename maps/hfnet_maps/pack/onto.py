"""Packs a map that has grown onto the packed map that devices have, so that the delta between the two is small.

    packed map as it is ─┐
    what is new ─> rank ─┴> encode by the packed map's tables ─> append ─> lay out

Its images, landmarks and codes keep their bytes and their numbers. What the budget has room for besides is filled with
the most useful of the other landmarks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.map.codecs import project, rounded
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.shell.console import size_text
from hfnet_maps.content import BuiltMap, EncodedHypercolumns, MapContent, PackedMap, content_of
from hfnet_maps.pack.codebooks import encode
from hfnet_maps.pack.packer import SEVERAL, summarised
from hfnet_maps.pack.selection import rank
from hfnet_maps.pack.settings import ALL
from hfnet_maps.pack.writer import Sections, added_order, lay_out, size_of, steps_of

FOUND = 0.9  # of the packed landmarks, that the source has too: else it is another place, or was built anew
NEAR = 8.0  # steps of a packed landmark's tile that it is off by at most, where the source's tile is a larger one


@dataclass(frozen=True)
class PackedOnto:
    """What came of it.

    Attributes:
        kept, added: landmarks.
    """

    sections: Sections
    kept: int
    added: int


def pack_onto(source: MapContent, base: LocalizationMap, budget: int) -> PackedOnto:
    """A map of at most ``budget`` bytes that begins as ``base``.

    Args:
        source: what ``base`` was packed from, with what has been added since, by `hfnet-map update`.

    Raises:
        MismatchError: they are of other networks.
        InputError: the source is not what the base was packed from; one of them is not of the right kind; the budget is
            too small.
    """
    grown = _Grown(source, base)
    low, high = 0, len(grown.order)
    if (least := size_of(grown.sections(0))) > budget:
        raise InputError(
            f"a budget of {budget} bytes is too small: {base.file.where} with {len(grown.source.names)} images takes "
            f"{least} without a new landmark",
            f"give a larger --budget, {size_text(least + least // 4)} for example, or pack without --onto",
        )
    while low < high:
        count = (low + high + 1) // 2
        low, high = (count, high) if size_of(grown.sections(count)) <= budget else (low, count - 1)
    return PackedOnto(grown.sections(low), base.landmark_count, low)


class _Grown:
    """A packed map, and what can be appended to it.

    Attributes:
        order: (N,) int64 landmarks of the source that the packed map lacks, the most useful first.
    """

    def __init__(self, source: MapContent, base: LocalizationMap):
        if Section.RANDOM_TREES in base.file.sections:
            raise InputError(
                f"{base.file.where} has random trees, which grow anew over all landmarks: little would be saved",
                "pack without --onto",
            )
        packed = content_of(base)
        self.source, self._packed = _checked(source, packed, base.file.where)
        self._rows = _same_landmarks(self.source, self._packed, steps_of(base))
        if (self._rows >= 0).mean() < FOUND:
            raise InputError(
                f"{base.file.where} was not packed from an earlier state of the source: its landmarks are others",
                "give the map that it was packed from, updated; or pack without --onto",
            )
        self.order = rank(self.source, self._rows[self._rows >= 0])
        most = int(np.bincount(self._packed.described).max(initial=1))
        self._summary = summarised(
            self.source.without_keypoints(), next(per for per in (1, *SEVERAL, ALL) if per >= most)
        )
        self._codes = encode(self._packed.codec, self._summary.descriptors)
        self._before = base

    def sections(self, count: int) -> Sections:
        """Of the packed map and the ``count`` most useful others."""
        base, source, old = self._packed, self.source, len(self._packed.names)
        new = self.order[:count]
        new = new[added_order(self._before, source.positions[new])]
        number = np.full(len(source.positions), -1, np.int64)
        number[self._rows[self._rows >= 0]] = np.flatnonzero(self._rows >= 0)
        number[new] = len(base.positions) + np.arange(count)
        landmark = number[source.landmarks]
        seen = np.flatnonzero((landmark >= len(base.positions)) | ((landmark >= 0) & (source.images >= old)))
        landmarks = np.concatenate([base.landmarks, landmark[seen]])
        images = np.concatenate([base.images, source.images[seen]])
        rows = np.lexsort((images, landmarks))
        described = number[self._summary.described]
        encoded = np.flatnonzero(described >= len(base.positions))
        encoded = encoded[np.argsort(described[encoded], kind="stable")]
        hypercolumns = base.hypercolumns
        if hypercolumns is not None:
            assert source.hypercolumns is not None
            codes = encode(hypercolumns.codec, source.hypercolumns[new])
            hypercolumns = EncodedHypercolumns(
                hypercolumns.dim, hypercolumns.codec, np.concatenate([hypercolumns.codes, codes])
            )
        looks = source.global_descriptors[old:]
        if base.global_projection is not None:
            looks = rounded(project(looks, base.global_projection))
        grown = replace(
            base,
            names=source.names,
            poses=source.poses,
            global_descriptors=np.concatenate([base.global_descriptors, looks]),
            positions=np.concatenate([base.positions, source.positions[new]]),
            landmarks=landmarks[rows],
            images=images[rows],
            described=np.concatenate([base.described, described[encoded]]),
            codes=np.concatenate([base.codes, self._codes[encoded]]),
            hypercolumns=hypercolumns,
            earth=source.earth,
        )
        return lay_out(grown, self._before)


def _checked(source: MapContent, base: MapContent, where: str) -> tuple[BuiltMap, PackedMap]:
    """Both, if one can be packed onto the other. Raises InputError, MismatchError."""
    if not isinstance(source, BuiltMap):
        raise InputError("the source is packed", "give the map that `hfnet-map update` wrote")
    if not isinstance(base, PackedMap):
        raise InputError(f"{where} is not packed", "give --onto the packed map that devices have")
    ours, theirs = source.networks, base.networks
    for part in ("weights_hash", "global_weights_hash", "local_role", "local_dim", "global_dim"):
        if getattr(ours, part) != getattr(theirs, part):
            raise MismatchError(
                f"{where} is of other networks than the source: {part} {getattr(theirs, part) or 'none'}, the source's "
                f"is {getattr(ours, part) or 'none'}",
                "pack without --onto",
            )
    if (base.hypercolumns is None) != (source.hypercolumns is None):
        has, lacks = (where, "the source") if source.hypercolumns is None else ("the source", where)
        raise MismatchError(f"{has} has hypercolumns, and {lacks} has none", "pack without --onto")
    same = all(
        np.array_equal(a.quaternion, b.quaternion) and np.array_equal(a.translation, b.translation)
        for a, b in zip(source.poses, base.poses, strict=False)
    )
    if source.names[: len(base.names)] != base.names or not same:
        raise InputError(
            f"{where} was not packed from an earlier state of the source: its images are not the source's first ones",
            "give the map that it was packed from, updated; or pack without --onto",
        )
    return source, base


def _same_landmarks(source: BuiltMap, base: PackedMap, steps: np.ndarray) -> np.ndarray:
    """(L,) int64 landmark of the source that each packed one is, -1 where there is none: the nearest of those that the
    same old images observe.

    Args:
        steps: (L,) resolution of the packed positions.
    """
    image_hash = np.random.default_rng(0).integers(0, 1 << 63, len(base.names), np.uint64)
    old = source.images < len(base.names)
    ours = _hashes(source.landmarks[old], image_hash[source.images[old]], len(source.positions))
    theirs = _hashes(base.landmarks, image_hash[base.images], len(base.positions))
    order = np.argsort(ours, kind="stable")
    starts, stops = (np.searchsorted(ours[order], theirs, side) for side in ("left", "right"))
    rows, distance = np.full(len(theirs), -1, np.int64), np.full(len(theirs), np.inf)
    for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        if start < stop:
            candidates = order[start:stop]
            away = np.linalg.norm(source.positions[candidates] - base.positions[k], axis=1)
            rows[k], distance[k] = candidates[away.argmin()], away.min()
    rows[distance > NEAR * steps] = -1
    by_distance = np.lexsort((distance, rows))
    again = np.zeros(len(rows), bool)  # two packed landmarks are not one
    again[by_distance[1:]] = np.diff(rows[by_distance]) == 0
    return np.where(again, -1, rows)


def _hashes(landmarks: np.ndarray, image_hashes: np.ndarray, count: int) -> np.ndarray:
    """(``count``,) uint64: a number for each set of images."""
    sums = np.zeros(count, np.uint64)
    np.add.at(sums, landmarks, image_hashes)
    return sums
