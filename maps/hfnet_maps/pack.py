"""A map of so many bytes: landmarks, descriptors and global descriptors, each made smaller by a stage of its own.

Source ─> select landmarks ─> summarise descriptors ─> encode them ─> project global descriptors ─> lay out
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hfnet_edge.codecs import UNIT, CodecName, project, rounded
from hfnet_edge.errors import InputError
from hfnet_edge.map_file import TILE
from hfnet_edge.observation_list import TILE_SIZE
from hfnet_maps.codebooks import encode, fit_codec, principal_axes
from hfnet_maps.selection import rank
from hfnet_maps.source import Source
from hfnet_maps.summary import summarise
from hfnet_maps.writer import Sections, in_file_order, lay_out, size_of, trees_of

SEVERAL = {4: 0.9, 16: 0.97}  # descriptors a landmark at most, and how similar observations share one
ALL = 1 << 16  # of an observation each
GLOBAL_DIMS = (512, 256, 128, 64, 32)
GLOBAL_SHARE = 0.1  # of the budget, for global descriptors
FULL_ENOUGH = 0.98  # of the budget
FEWEST = 0.25  # of the landmarks that the smallest descriptors leave room for: settings that keep fewer are hopeless
TREES_FIXED = 1800  # bytes of random trees, however few the landmarks: costs, head, a place in the table
FITTING = 0.97  # of the budget: settings that cannot use so much of it are not considered


@dataclass(frozen=True)
class Settings:
    """How landmarks and images are described.

    Attributes:
        codec, dim, subspaces: see `hfnet_maps.codebooks.fit_codec`.
        per_landmark: descriptors of a landmark, at most.
        global_dim: of the global descriptors.
    """

    codec: CodecName
    dim: int
    subspaces: int
    per_landmark: int
    global_dim: int

    def __str__(self) -> str:
        unit = "bits" if self.codec is CodecName.BINARY else "bytes"
        size = f"{self.subspaces or self.dim} {unit}"
        several = {1: "", ALL: " an observation"}.get(self.per_landmark, f" x 1-{self.per_landmark}")
        return f"{self.codec} {size}{several}, global {self.global_dim}"


def all_settings(source: Source, budget: int, codec: CodecName | None = None) -> list[Settings]:
    """All settings, of the smallest descriptors first.

    Args:
        budget: bytes of the file; it decides the width of the global descriptors.
        codec: only this one.
    """
    d, width = source.extractor.local_dim, global_dim(source, budget)
    tried = [(CodecName.PQ, 4 * s, s) for s in (8, 12, 16, 24, 32) if 4 * s <= d]
    tried += [(CodecName.BINARY, d // 8 * 8, 0)] if d >= 8 else []
    tried += [(CodecName.INT8, k, 0) for k in (48, d) if k <= d]
    settings = [Settings(name, k, s, per, width) for name, k, s in dict.fromkeys(tried) for per in (1, 4)]
    settings += [Settings(CodecName.INT8, d, 0, per, width) for per in (16, ALL)]
    return [s for s in settings if codec is None or s.codec is codec]


def global_dim(source: Source, budget: int) -> int:
    """The most dimensions that take at most `GLOBAL_SHARE` of the budget, or else the fewest bytes."""
    full = source.global_descriptors.shape[1]
    if source.global_projection is not None:
        return full
    sizes = {full: len(source.names) * full}
    sizes |= {k: (len(source.names) + full) * k for k in GLOBAL_DIMS if k < full}
    fitting = [k for k, size in sizes.items() if size <= GLOBAL_SHARE * budget]
    return max(fitting, default=min(sizes, key=lambda k: sizes[k]))


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
        self._encoded: dict[Settings, Source] = {}
        self._global: dict[int, Source] = {}

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
        """Bytes of that map, about, with its trees."""
        trees = TREES_FIXED + round(self.tree_bytes * count) if self.tree_bytes else 0
        return size_of(self.pack(settings, count)) + trees

    def fit(self, settings: Settings, budget: int) -> int:
        """How many landmarks fill at least 98 % of ``budget`` bytes, or all.

        Raises:
            InputError: not even a map of one landmark is so small.
        """
        low, low_size = 1, self.size(settings, 1)
        if low_size > budget:
            raise InputError(
                f"a budget of {budget} bytes is too small: images and tables alone take {low_size}",
                "give a larger --budget, or list fewer images",
            )
        count, high = self.estimate(settings, budget), len(self.order)
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

    def candidates(self, budget: int, codec: CodecName | None = None) -> list[Settings]:
        """Settings that can use the budget, and leave room for landmarks; where none can, the largest."""
        settings = all_settings(self.source, budget, codec)
        if not settings:
            raise InputError(
                f"the codec {codec} needs wider descriptors than {self.source.extractor.local_dim}-D",
                "leave --codec out",
            )
        found: dict[Settings, int] = {}
        hopeless: Settings | None = None
        for s in settings:
            if hopeless is not None and (s.codec, s.dim) == (hopeless.codec, hopeless.dim):
                continue  # more descriptors a landmark leave room for fewer yet
            sizes = self._sizes(s)
            if sizes[-1] >= FITTING * budget:
                count = int(np.searchsorted(sizes, budget))
                found[s] = count
                hopeless = s if count < FEWEST * max(found.values()) else None
        most = max(found.values(), default=0)
        return [s for s, count in found.items() if count >= FEWEST * most] or settings[-1:]

    def estimate(self, settings: Settings, budget: int) -> int:
        """About how many landmarks fit, at least one, without encoding anything."""
        return max(1, int(np.searchsorted(self._sizes(settings), budget)))

    def _sizes(self, settings: Settings) -> np.ndarray:
        """(L,) about how many bytes the map of each prefix of ``order`` takes."""
        s, n = self.source, len(self.order)
        images, width = len(s.names), s.global_descriptors.shape[1]
        rows = np.bincount(self.summary(settings.per_landmark).described, minlength=n)[self.order]
        observations = np.bincount(s.landmarks, minlength=n)[self.order]
        projected = settings.codec is not CodecName.INT8 or settings.dim < s.extractor.local_dim
        tables = settings.dim * (s.extractor.local_dim * projected + 256 * bool(settings.subspaces))
        global_bytes = settings.global_dim * (images + (width if settings.global_dim < width else 0))
        row = settings.subspaces or (settings.dim // 8 if settings.codec is CodecName.BINARY else settings.dim)
        count_bytes = {1: 0.0, 4: 0.25}.get(settings.per_landmark, 2.0)
        each = 6 + TILE.itemsize / TILE_SIZE + count_bytes + rows * row + observations * 5.5 / 8 + self.tree_bytes
        names = sum(map(len, s.names))
        fixed = 900 + (TREES_FIXED if self.tree_bytes else 0)
        return fixed + images * 68 + names + tables + global_bytes + np.cumsum(each)

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
                codec = fit_codec(settings.codec, source.descriptors, settings.dim, settings.subspaces)
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
