"""The ways to describe landmarks and images that packing chooses from."""

from __future__ import annotations

from dataclasses import dataclass

from hfnet_edge.errors import InputError
from hfnet_edge.map.codecs import CodecName
from hfnet_maps.content import MapContent, PackedMap

ALL = 1 << 16  # descriptors of a landmark: of an observation each
GLOBAL_DIMS = (512, 256, 128, 64, 32)
SUBSPACE = 4  # dimensions of a descriptor that a byte of "pq" stands for
GLOBAL_SHARE = 0.1  # of the budget, for global descriptors


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

    def projects(self, local_dim: int) -> bool:
        """Whether the codec keeps a projection of descriptors of so many dimensions."""
        return self.codec is not CodecName.INT8 or self.dim < local_dim

    def of_hypercolumns(self, dim: int) -> Settings:
        """How hypercolumns of so many dimensions are described beside such descriptors: by the same codec, in as many
        bytes, as far as they are wide enough; those of less than a byte's bits as they are."""
        if dim < 8:
            return Settings(CodecName.INT8, dim, 0, 1, 0)
        subspaces = min(self.subspaces, dim // SUBSPACE)
        width = {CodecName.PQ: SUBSPACE * subspaces, CodecName.BINARY: dim // 8 * 8, CodecName.INT8: dim}[self.codec]
        return Settings(self.codec, width, subspaces, 1, 0)

    @property
    def local(self) -> str:
        """How landmarks are described, in words."""
        unit = "bits" if self.codec is CodecName.BINARY else "bytes"
        several = {1: "", ALL: " each"}.get(self.per_landmark, f" x 1-{self.per_landmark}")
        return f"{self.codec} {self.subspaces or self.dim} {unit}{several}"

    def __str__(self) -> str:
        return f"{self.local}, global {self.global_dim}"


def all_settings(source: MapContent, budget: int, codec: CodecName | None = None) -> list[Settings]:
    """All settings, of the smallest descriptors first.

    Args:
        budget: bytes of the file; it decides the width of the global descriptors.
        codec: only this one.

    Raises:
        InputError: descriptors are too narrow for the codec.
    """
    d, width = source.networks.local_dim, global_dim(source, budget)
    tried = [(CodecName.PQ, SUBSPACE * s, s) for s in (8, 12, 16, 24, 32) if SUBSPACE * s <= d]
    tried += [(CodecName.BINARY, d // 8 * 8, 0)] if d >= 8 else []
    tried += [(CodecName.INT8, k, 0) for k in (48, d) if k <= d]
    settings = [Settings(name, k, s, per, width) for name, k, s in dict.fromkeys(tried) for per in (1, 4)]
    settings += [Settings(CodecName.INT8, d, 0, per, width) for per in (16, ALL)]
    found = [s for s in settings if codec is None or s.codec is codec]
    if not found:
        raise InputError(f"the codec {codec} needs wider descriptors than {d}-D", "leave --codec out")
    return sorted(found, key=lambda s: (s.row_bytes, s.per_landmark))


def global_dim(source: MapContent, budget: int) -> int:
    """The most dimensions that take at most `GLOBAL_SHARE` of the budget, or else the fewest bytes."""
    full = source.global_descriptors.shape[1]
    if isinstance(source, PackedMap) and source.global_projection is not None:
        return full
    sizes = global_sizes(source)
    return max((k for k, size in sizes.items() if size <= GLOBAL_SHARE * budget), default=min(sizes))


def global_sizes(source: MapContent) -> dict[int, int]:
    """Bytes that global descriptors take with their projection, by their dimensions, the most first; without those that
    take no fewer bytes than more dimensions do: of few images the projection costs more than it saves."""
    full = source.global_descriptors.shape[1]
    sizes = {full: len(source.names) * full}
    for k in GLOBAL_DIMS:
        if k < full and (size := (len(source.names) + full) * k) < min(sizes.values()):
            sizes[k] = size
    return sizes
