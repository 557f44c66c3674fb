"""A map of so many bytes: landmarks, descriptors and global descriptors, each made smaller by a stage of its own.

Source ─> select landmarks ─> summarise descriptors ─> encode them ─> project global descriptors ─> lay out
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.map.codecs import UNIT, Codec, CodecName, project, rounded
from hfnet_edge.map.map_file import TILE
from hfnet_edge.map.observation_list import TILE_SIZE
from hfnet_maps.pack.codebooks import encode, fit_codec, principal_axes
from hfnet_maps.pack.selection import rank
from hfnet_maps.pack.summary import summarise
from hfnet_maps.pack.writer import Sections, in_file_order, lay_out, size_of, trees_of
from hfnet_maps.source import Source

SEVERAL = {4: 0.9, 16: 0.97}  # descriptors a landmark at most, and how similar observations share one
ALL = 1 << 16  # of an observation each
GLOBAL_DIMS = (512, 256, 128, 64, 32)
GLOBAL_SHARE = 0.1  # of the budget, for global descriptors
FULL_ENOUGH = 0.98  # of the budget
TREES_FIXED = 1800  # bytes of random trees, however few the landmarks: costs, head, a place in the table


@dataclass(frozen=True)
class Settings:
    """How landmarks and images are described.

    Attributes:
        codec, dim, subspaces: see `hfnet_maps.pack.codebooks.fit_codec`.
        per_landmark: descriptors of a landmark, at most.
        global_dim: of the global descriptors.
    """

    codec: CodecName
    dim: int
    subspaces: int
    per_landmark: int
    global_dim: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one descriptor."""
        return self.subspaces or (self.dim // 8 if self.codec is CodecName.BINARY else self.dim)

    @property
    def local(self) -> str:
        """How landmarks are described, in words."""
        unit = "bits" if self.codec is CodecName.BINARY else "bytes"
        several = {1: "", ALL: " each"}.get(self.per_landmark, f" x 1-{self.per_landmark}")
        return f"{self.codec} {self.subspaces or self.dim} {unit}{several}"

    def __str__(self) -> str:
        return f"{self.local}, global {self.global_dim}"


def all_settings(source: Source, budget: int, codec: CodecName | None = None) -> list[Settings]:
    """All settings, of the smallest descriptors first.

    Args:
        budget: bytes of the file; it decides the width of the global descriptors.
        codec: only this one.

    Raises:
        InputError: descriptors are too narrow for the codec.
    """
    d, width = source.extractor.local_dim, global_dim(source, budget)
    tried = [(CodecName.PQ, 4 * s, s) for s in (8, 12, 16, 24, 32) if 4 * s <= d]
    tried += [(CodecName.BINARY, d // 8 * 8, 0)] if d >= 8 else []
    tried += [(CodecName.INT8, k, 0) for k in (48, d) if k <= d]
    settings = [Settings(name, k, s, per, width) for name, k, s in dict.fromkeys(tried) for per in (1, 4)]
    settings += [Settings(CodecName.INT8, d, 0, per, width) for per in (16, ALL)]
    found = [s for s in settings if codec is None or s.codec is codec]
    if not found:
        raise InputError(f"the codec {codec} needs wider descriptors than {d}-D", "leave --codec out")
    return sorted(found, key=lambda s: (s.row_bytes, s.per_landmark))


def global_dim(source: Source, budget: int) -> int:
    """The most dimensions that take at most `GLOBAL_SHARE` of the budget, or else the fewest bytes."""
    full = source.global_descriptors.shape[1]
    if source.global_projection is not None:
        return full
    sizes = global_sizes(source)
    return max((k for k, size in sizes.items() if size <= GLOBAL_SHARE * budget), default=min(sizes))


def global_sizes(source: Source) -> dict[int, int]:
    """Bytes that global descriptors take with their projection, by their dimensions, the most first; without those that
    take no fewer bytes than more dimensions do: of few images the projection costs more than it saves."""
    full = source.global_descriptors.shape[1]
    sizes = {full: len(source.names) * full}
    for k in GLOBAL_DIMS:
        if k < full and (size := (len(source.names) + full) * k) < min(sizes.values()):
            sizes[k] = size
    return sizes


class Packer:
    """A source and the intermediate results that several settings share. L landmarks.

    Attributes:
        source: its landmarks in the order of the file.
        order: (L,) int64, the most useful landmark first.
    """

    def __init__(self, source: Source):
        self.source = in_file_order(source)
        self.order = rank(self.source)
        self._summaries: dict[int, Source] = {}
        self._codecs: dict[tuple[CodecName, int, int], Codec] = {}
        self._encoded: dict[Settings, Source] = {}
        self._global: dict[int, Source] = {}
        self._packed: dict[tuple[Settings, int], int] = {}

    @cached_property
    def tree_bytes(self) -> float:
        """Bytes of the random trees for each landmark, about; 0 where there can be none: they are grown from all
        observations, of a patch network."""
        if not self.source.extractor.global_weights_hash or self.source.codec is not None:
            return 0.0
        return (size_of(trees_of(self.source)) - TREES_FIXED) / max(1, len(self.order))

    def pack(self, settings: Settings, count: int) -> Sections:
        """The sections of a map of the ``count`` most useful landmarks, without trees."""
        return lay_out(self.encoded(settings).take(np.sort(self.order[:count])))

    def trees(self, count: int) -> Sections:
        """The sections of the trees of that map, where it can have any."""
        return trees_of(self.source.take(np.sort(self.order[:count]))) if self.tree_bytes else {}

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
        s, n = self.source, len(self.order)
        images, width = len(s.names), s.global_descriptors.shape[1]
        rows = np.bincount(self.summary(settings.per_landmark).described, minlength=n)[self.order]
        observations = np.bincount(s.landmarks, minlength=n)[self.order]
        projected = settings.codec is not CodecName.INT8 or settings.dim < s.extractor.local_dim
        tables = settings.dim * (s.extractor.local_dim * projected + 256 * bool(settings.subspaces))
        global_bytes = settings.global_dim * (images + (width if settings.global_dim < width else 0))
        count_bytes = {1: 0.0, 4: 0.25}.get(settings.per_landmark, 2.0)
        each = (
            6
            + TILE.itemsize / TILE_SIZE
            + count_bytes
            + rows * settings.row_bytes
            + observations * 5.5 / 8
            + self.tree_bytes
        )
        names = sum(map(len, s.names))
        fixed = 900 + (TREES_FIXED if self.tree_bytes else 0)
        return fixed + images * 68 + names + tables + global_bytes + np.cumsum(each)

    def _codec(self, settings: Settings) -> Codec:
        """Fitted to one descriptor a landmark, however many are kept."""
        key = settings.codec, settings.dim, settings.subspaces
        if key not in self._codecs:
            if settings.codec is CodecName.INT8 and settings.dim == self.source.extractor.local_dim:
                self._codecs[key] = Codec(settings.codec, settings.dim)
            else:
                self._codecs[key] = fit_codec(
                    settings.codec, self.summary(1).descriptors, settings.dim, settings.subspaces
                )
        return self._codecs[key]

    def summary(self, per_landmark: int) -> Source:
        """With so many descriptors a landmark, at most."""
        if self.source.codec is not None:
            return self.source
        if per_landmark not in self._summaries:
            whole = replace(self.source, photos=None)
            kept = whole if per_landmark == ALL else summarise(whole, per_landmark, SEVERAL.get(per_landmark, -1.0))
            self._summaries[per_landmark] = kept
        return self._summaries[per_landmark]

    def encoded(self, settings: Settings) -> Source:
        """With all landmarks, their descriptors and the global ones encoded. What was made is kept."""
        local = replace(settings, global_dim=0)
        if local not in self._encoded:
            source = self.summary(settings.per_landmark)
            if source.codec is None:
                codec = self._codec(settings)
                source = replace(source, codec=codec, descriptors=encode(codec, source.descriptors))
            self._encoded[local] = source
        if settings.global_dim not in self._global:
            self._global[settings.global_dim] = project_globals(self.source, settings.global_dim)
        projected = self._global[settings.global_dim]
        return replace(
            self._encoded[local],
            global_descriptors=projected.global_descriptors,
            global_projection=projected.global_projection,
        )


def project_globals(source: Source, dim: int) -> Source:
    """Global descriptors along their ``dim`` principal axes (not centred: dot products rank them)."""
    full = source.global_descriptors.shape[1]
    if dim >= full or source.global_projection is not None:
        return source
    axes = principal_axes(source.global_descriptors, centered=False)
    projection = np.rint(UNIT * axes[:, :dim].T).astype(np.int8)
    return replace(
        source,
        global_descriptors=rounded(project(source.global_descriptors, projection)),
        global_projection=projection,
    )
