"""A map of so many bytes: landmarks, descriptors and global descriptors, each made smaller by a stage of its own.

select landmarks ─> summarise descriptors ─> encode them ─> project global descriptors ─> lay out
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.map.calibration import Calibration
from hfnet_edge.map.codecs import UNIT, Codec, CodecName, project, rounded
from hfnet_maps.content import BuiltMap, DescribedMap, EncodedHypercolumns, MapContent, PackedMap
from hfnet_maps.pack.codebooks import encode, fit_codec, principal_axes
from hfnet_maps.pack.selection import rank
from hfnet_maps.pack.settings import ALL, Settings
from hfnet_maps.pack.summary import summarise
from hfnet_maps.pack.writer import Counts, Sections, expected_size, in_file_order, lay_out, size_of, trees_of

SEVERAL = {4: 0.9, 16: 0.97}  # descriptors a landmark at most, and how similar observations share one
FULL_ENOUGH = 0.98  # of the budget
TREES_FIXED = 1800  # bytes of random trees, however few the landmarks: costs, head, a place in the table


class Packer:
    """A source and the intermediate results that several settings share. L landmarks.

    Args:
        calibrated: its maps get a calibration, for which there is room; until it is known, one that changes nothing.

    Attributes:
        source: its landmarks in the order of the file.
        order: (L,) int64, the most useful landmark first.
    """

    def __init__(self, source: MapContent, calibrated: bool = False):
        self.source, self._calibrated = in_file_order(source), calibrated
        self.order = rank(self.source)
        self._described = self.source.without_keypoints() if isinstance(self.source, BuiltMap) else self.source
        self._summaries: dict[int, DescribedMap] = {}
        self._codecs: dict[tuple[CodecName, int, int], Codec] = {}
        self._hypercolumn_codecs: dict[Settings, Codec] = {}
        self._encoded: dict[Settings, PackedMap] = {}
        self._global: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        self._packed: dict[tuple[Settings, int], int] = {}

    @cached_property
    def tree_bytes(self) -> float:
        """Bytes of the random trees for each landmark, about; 0 where there can be none: they are grown from all
        observations, of a patch network."""
        if not self.source.networks.of_patches or isinstance(self._described, PackedMap):
            return 0.0
        return (size_of(trees_of(self._described)) - TREES_FIXED) / max(1, len(self.order))

    def pack(self, settings: Settings, count: int) -> Sections:
        """The sections of a map of the ``count`` most useful landmarks, without trees."""
        return lay_out(self.encoded(settings).take(np.sort(self.order[:count])))

    def trees(self, count: int) -> Sections:
        """The sections of the trees of that map, where it can have any."""
        if not self.tree_bytes or isinstance(self._described, PackedMap):
            return {}
        return trees_of(self._described.take(np.sort(self.order[:count])))

    def size(self, settings: Settings, count: int) -> int:
        """Bytes of that map, about where it has trees."""
        if (settings, count) not in self._packed:
            trees = TREES_FIXED + round(self.tree_bytes * count) if self.tree_bytes else 0
            self._packed[settings, count] = size_of(self.pack(settings, count)) + trees
        return self._packed[settings, count]

    def fit(self, settings: Settings, budget: int) -> int:
        """How many landmarks fill at least 98 % of ``budget`` bytes, or all.

        Raises:
            InputError: not even a map of one landmark is so small.
        """
        count, high = self.estimate(settings, budget), len(self.order)
        if FULL_ENOUGH * budget <= (size := self.size(settings, count)) <= budget or (count == high and size <= budget):
            return count
        low, low_size = 1, self.size(settings, 1)
        if low_size > budget:
            raise InputError(
                f"a budget of {budget} bytes is too small: images and tables alone take {low_size}",
                "give a larger --budget, or list fewer images",
            )
        while low < high:
            size = self.size(settings, count)
            if size > budget:
                high = count - 1
            else:
                low, low_size = count, size
            if low_size >= FULL_ENOUGH * budget:
                break
            slope = (size - low_size) / (count - low) if count != low else low_size / low
            guess = low + int((0.995 * budget - low_size) / slope) if slope > 0 else (low + high + 1) // 2
            count = min(max(guess, low + 1), high)
        return low

    def estimate(self, settings: Settings, budget: int) -> int:
        """About how many landmarks fit, at least one, without encoding anything."""
        return max(1, int(np.searchsorted(self.sizes(settings), budget)))

    def sizes(self, settings: Settings) -> np.ndarray:
        """(L,) about how many bytes the map of each prefix of ``order`` takes."""
        source, n = self.source, len(self.order)
        described = self.summary(settings.per_landmark).described
        counts = Counts(
            source.names,
            np.arange(1, n + 1),
            np.cumsum(np.bincount(source.landmarks, minlength=n)[self.order]),
            np.cumsum(np.bincount(described, minlength=n)[self.order]),
            source.networks.local_dim,
            source.networks.global_dim,
            hypercolumn_dim(self._described),
            0 if source.scene is None else len(source.scene.landmarks),
        )
        trees = TREES_FIXED + self.tree_bytes * counts.landmarks if self.tree_bytes else 0
        return expected_size(counts, settings) + trees

    def _codec(self, settings: Settings) -> Codec:
        """Fitted to one descriptor a landmark, however many are kept."""
        key = settings.codec, settings.dim, settings.subspaces
        if key not in self._codecs:
            if settings.projects(self.source.networks.local_dim):
                one = self.summary(1)
                assert isinstance(one, DescribedMap)
                self._codecs[key] = fit_codec(settings.codec, one.descriptors, settings.dim, settings.subspaces)
            else:
                self._codecs[key] = Codec(settings.codec, settings.dim)
        return self._codecs[key]

    def summary(self, per_landmark: int) -> DescribedMap | PackedMap:
        """With so many descriptors a landmark, at most; a packed map keeps those that it has."""
        whole = self._described
        if isinstance(whole, PackedMap):
            return whole
        if per_landmark not in self._summaries:
            self._summaries[per_landmark] = summarised(whole, per_landmark)
        return self._summaries[per_landmark]

    def _hypercolumns(self, settings: Settings) -> EncodedHypercolumns | None:
        vectors = self._described.hypercolumns
        if not isinstance(vectors, np.ndarray):
            return None
        dim = vectors.shape[1]
        s = settings.of_hypercolumns(dim)
        if s not in self._hypercolumn_codecs:
            self._hypercolumn_codecs[s] = fit_codec(s.codec, vectors, s.dim, s.subspaces)
        codec = self._hypercolumn_codecs[s]
        return EncodedHypercolumns(dim, codec, encode(codec, vectors))

    def encoded(self, settings: Settings) -> PackedMap:
        """With all landmarks, their descriptors and the global ones encoded. What was made is kept."""
        local = replace(settings, global_dim=0)
        if local not in self._encoded:
            kept = self.summary(settings.per_landmark)
            if isinstance(kept, DescribedMap):
                codec = self._codec(settings)
                kept = kept.packed(codec, encode(codec, kept.descriptors), self._hypercolumns(settings))
                kept = replace(kept, calibration=Calibration() if self._calibrated else None)
            self._encoded[local] = kept
        packed = self._encoded[local]
        if packed.global_projection is not None:
            return packed
        if settings.global_dim not in self._global:
            self._global[settings.global_dim] = project_globals(self.source.global_descriptors, settings.global_dim)
        rows, projection = self._global[settings.global_dim]
        return replace(packed, global_descriptors=rows, global_projection=projection)


def summarised(source: DescribedMap, per_landmark: int) -> DescribedMap:
    """With as many descriptors a landmark as `Settings.per_landmark` says."""
    return source if per_landmark == ALL else summarise(source, per_landmark, SEVERAL.get(per_landmark, -1.0))


def hypercolumn_dim(source: MapContent) -> int:
    """Dimensions of the network's hypercolumns; 0: the map has none."""
    hypercolumns = source.hypercolumns
    if isinstance(hypercolumns, np.ndarray):
        return hypercolumns.shape[1]
    return 0 if hypercolumns is None else hypercolumns.dim


def project_globals(descriptors: np.ndarray, dim: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Global descriptors (M, G) int8 along their ``dim`` principal axes (not centred: dot products rank them).

    Returns:
        (M, ``dim``) int8, and the projection (``dim``, G) int8; the descriptors as they are, and None, where they have
        no more dimensions.
    """
    if dim >= descriptors.shape[1]:
        return descriptors, None
    axes = principal_axes(descriptors, centered=False)
    projection = np.rint(UNIT * axes[:, :dim].T).astype(np.int8)
    return rounded(project(descriptors, projection)), projection
