"""A `LocalizationMap` is read in place: reference images, landmarks, who observes what, and what landmarks look like.

Landmarks are numbered in tiles of 256 neighbours. All that a query asks of a landmark (position, number of
descriptors, descriptors) lies at a place that follows from its number, so a query touches the lists of the images that
it retrieves and the tiles that they see, and nothing else of the file. Checks come with the touch: checksums
(`hfnet_edge.map.container`), indices in range, finite numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from flatbuffers.number_types import UOffsetTFlags

from hfnet_edge.errors import MapFormatError, MismatchError
from hfnet_edge.geometry import Pose
from hfnet_edge.map import observation_list
from hfnet_edge.map.calibration import Calibration
from hfnet_edge.map.codecs import CENTROIDS, Codec, CodecName, project, rounded
from hfnet_edge.map.container import MapBytes, Section, open_file
from hfnet_edge.map.georeference import Earth
from hfnet_edge.map.observation_list import TILE_SIZE
from hfnet_edge.map.random_trees import RandomTrees
from hfnet_edge.map.remote import RemoteFile, is_url
from hfnet_edge.map.scene_tree import SceneTree
from hfnet_edge.schema.description_generated import MapDescription, MapDescriptionT

TILE = np.dtype([("origin", "<f4", 3), ("step", "<f4"), ("first_descriptor", "<u4")])
MAX_META = 1 << 16
KEPT = 64  # lists of observed landmarks: those of one query
MAX_LOCAL_DIM = 1040  # 127 * 127 * 1040 < 2**24: float32 sums of products stay exact
MAX_GLOBAL_DIM = 4096  # as wide as HF-Net's; see `hfnet_edge.methods.retrieval` for why sums stay exact
MAX_ORIGIN = 1e15  # metres; poses stay finite when they are moved there
MAX_SUBSPACE_DIM = 16  # bounds what a byte of a descriptor can unfold to
COUNT_BITS = (0, 2, 16)  # of an entry of DESCRIPTOR_COUNTS
NAMES = {  # of META that are text, and their slots
    "generator": 0, "architecture": 1, "weightsHash": 2, "precision": 3, "codec": 13, "globalWeightsHash": 19,
    "hypercolumnCodec": 21, "localRole": 24,
}  # fmt: skip
LOCAL, PATCH = LOCAL_ROLES = ("local_descriptors", "patch_descriptors")  # a network's output that landmarks have


@dataclass(frozen=True)
class LocalizationMap:
    """A place. Numbers of images and landmarks are their rows.

    Attributes:
        description: what META says (`weightsHash`, `localDim`, counts, ...).
        codec: of the landmarks' descriptors. hypercolumn_codec: of their hypercolumns, None where they have none.
        origin: (3,) float64, the world position of the landmarks' frame, applied by `in_world` and `from_world` alone.
        file: the sections.
        path: where it was read from, a file or a URL, or None.
    """

    description: MapDescriptionT
    codec: Codec
    origin: np.ndarray
    file: MapBytes
    path: Path | str | None = None
    hypercolumn_codec: Codec | None = None

    @classmethod
    def open(cls, path: Path | str) -> LocalizationMap:
        """Maps a file into memory after checking its structure. Its bulk is checked as it is used; `check_all` checks
        everything now. Of an http or https URL only what is used is fetched.

        Raises:
            MapFormatError: missing, truncated, damaged, or not a map. MapVersionError: another major version.
            RemoteError: what is behind the URL cannot be read.
        """
        if is_url(path):
            return cls.fetched(RemoteFile(str(path)))
        path = Path(path)
        return cls.read(open_file(path), path)

    @classmethod
    def fetched(cls, remote: RemoteFile) -> LocalizationMap:
        """Reads a map of which little has been fetched yet, otherwise as `open`."""
        return cls._of(MapBytes(remote.data, remote.url, remote.fetch), remote.url)

    @classmethod
    def read(cls, data: bytes | memoryview | mmap, path: Path | None = None) -> LocalizationMap:
        """Reads a map from memory, otherwise as `open`."""
        return cls._of(MapBytes(data, str(path or "the map")), path)

    @classmethod
    def _of(cls, file: MapBytes, path: Path | str | None) -> LocalizationMap:
        d = read_description(file)
        origin = np.array([d.originX, d.originY, d.originZ])
        m = cls(d, _local_codec(file, d), origin, file, path, _hypercolumn_codec(file, d))
        # Are there, and of the right length:
        _ = m._offsets, m._tiles, m._positions, m._counts, m.codes, m.hypercolumn_codes
        if Section.OBSERVATION_LISTS not in file.sections:
            raise file.fail("section OBSERVATION_LISTS is missing")
        return m

    @property
    def of_patches(self) -> bool:
        """Whether a patch network describes the landmarks."""
        return of_patches(self.description.localRole, self.description.globalWeightsHash)

    @property
    def image_count(self) -> int:
        """M."""
        return self.description.imageCount

    @property
    def landmark_count(self) -> int:
        """L."""
        return self.description.landmarkCount

    @cached_property
    def image_names(self) -> tuple[str, ...]:
        """M names."""
        try:
            names = self.file.bytes(Section.IMAGE_NAMES).decode().split("\n")
        except UnicodeDecodeError as e:
            raise self.file.fail(f"IMAGE_NAMES is not UTF-8: {e}") from e
        if len(names) != self.image_count + 1 or names[-1] != "":
            raise self.file.fail(f"IMAGE_NAMES holds {len(names) - 1} names, META says {self.image_count}")
        self._accepted(check_image_names, names[:-1])
        return tuple(names[:-1])

    @cached_property
    def image_poses(self) -> np.ndarray:
        """(M, 7) float64: quaternion wxyz and translation of cam_from_world."""
        poses = self.file.array(Section.IMAGE_POSES, "<f8", self.image_count, 7)
        self._accepted(check_image_poses, poses)
        return poses

    def pose(self, image: int) -> Pose:
        """cam_from_world of a reference image."""
        row = self.image_poses[image]
        return Pose(row[:4].copy(), row[4:].copy())

    @cached_property
    def views(self) -> tuple[np.ndarray, np.ndarray]:
        """Centres relative to `origin`, and viewing directions, of the reference images: twice (M, 3) float64."""
        poses = [self.pose(image) for image in range(self.image_count)]
        with np.errstate(over="ignore", invalid="ignore"):
            centers = np.array([pose.center for pose in poses]).reshape(-1, 3) - self.origin
        return centers, np.array([pose.rotation[2] for pose in poses]).reshape(-1, 3)

    @cached_property
    def calibration(self) -> Calibration:
        """What the map's own left-out images said of probabilities; the bundled tables as they are of a map without.
        Raises MapFormatError."""
        if Section.CALIBRATION not in self.file.sections:
            return Calibration()
        if self.file.sections[Section.CALIBRATION].length > MAX_META:
            raise self.file.fail("CALIBRATION is too long")
        try:
            return Calibration.from_bytes(bytes(self.file.bytes(Section.CALIBRATION)))
        except ValueError as e:
            raise self.file.fail(f"CALIBRATION {e}") from e

    @cached_property
    def trees(self) -> RandomTrees:
        """The random trees of a map that has some, all of them checked. Raises MismatchError, MapFormatError: see
        `RandomTrees.read`."""
        return RandomTrees.read(self.file, self.description)

    @cached_property
    def earth(self) -> Earth | None:
        """Where the map is on Earth; None: it does not say. Raises MapFormatError: it is damaged."""
        return Earth.read(self.file)

    @cached_property
    def scene_tree(self) -> SceneTree:
        """What the labels of the map's scene network mean. Raises MismatchError: there is none. MapFormatError: see
        `SceneTree.read`."""
        return SceneTree.read(self.file, self.landmark_count)

    @cached_property
    def global_descriptors(self) -> np.ndarray:
        """(M, G) int8."""
        return self.file.array(Section.GLOBAL_DESCRIPTORS, "i1", self.image_count, self.description.globalDim)

    def global_query(self, descriptor: np.ndarray) -> np.ndarray:
        """What a query's global descriptor is compared as: (extractor's G,) int8 to (G,) int8."""
        projection = self.global_projection
        return descriptor if projection is None else rounded(project(descriptor[None], projection))[0]

    def observed(self, image: int) -> np.ndarray:
        """The landmarks that a reference image observes, (N,) int64, increasing; kept of the images asked for last."""
        return self._observed(image)

    @cached_property
    def _observed(self) -> Callable[[int], np.ndarray]:
        return lru_cache(KEPT)(self._read_observed)  # which threads may share

    def _read_observed(self, image: int) -> np.ndarray:
        lists = self.file.sections[Section.OBSERVATION_LISTS]
        start, stop = (int(v) for v in self._offsets[image : image + 2])
        if not start <= stop <= lists.length:
            raise self.file.fail(f"the observations of image {image} lie outside OBSERVATION_LISTS")
        self.file.check(lists.offset + start, lists.offset + stop)
        data = np.frombuffer(self.file.data, np.uint8, stop - start, lists.offset + start)
        try:
            return observation_list.decode(data, self.landmark_count)
        except ValueError as e:
            raise self.file.fail(f"the observations of image {image} are damaged: {e}") from e

    def observed_by(self, images: np.ndarray) -> np.ndarray:
        """The landmarks that any of these reference images (K,) observes, (N,) int64, increasing. Raises
        MapFormatError."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *(self.observed(int(image)) for image in images)]))

    def positions(self, landmarks: np.ndarray) -> np.ndarray:
        """Where landmarks are, (N, 3) float64, relative to `origin`.

        A position is its tile's origin plus whole steps; the error is at most half a step on each axis.
        """
        landmarks = np.asarray(landmarks, np.int64)
        self.file.check_rows(Section.LANDMARK_POSITIONS, landmarks, 6)
        tiles = self._tiles_of(landmarks // TILE_SIZE)
        steps = self._positions[landmarks] * tiles["step"].astype(np.float64)[:, None]
        return tiles["origin"].astype(np.float64) + steps

    def in_world(self, xyz: np.ndarray) -> np.ndarray:
        """Points (N, 3) relative to `origin`, as `positions` returns them, in the world."""
        return xyz + self.origin

    def from_world(self, pose: Pose) -> Pose:
        """cam_from_world of a pose that was found among points relative to `origin`."""
        return Pose(pose.quaternion, pose.translation - pose.rotation @ self.origin)

    def descriptors(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What landmarks look like.

        Args:
            landmarks: (N,) increasing.

        Returns:
            (R, K) int8 descriptors in the codec's space, landmark by landmark, and (R,) int64 rows of ``landmarks``
            that they are of.
        """
        rows, owners = self.descriptor_rows(np.asarray(landmarks, np.int64))
        self.file.check_rows(Section.DESCRIPTORS, rows, self.codec.row_bytes)
        return self.codec.decode(self.codes[rows]), owners

    def hypercolumns(self, landmarks: np.ndarray) -> np.ndarray:
        """What landmarks look like to a search in whole images: (N, K) int8 in `hypercolumn_codec`'s space.

        Raises:
            MismatchError: the map has no hypercolumns. MapFormatError: it is damaged there.
        """
        codec, landmarks = self.hypercolumn_codec, np.asarray(landmarks, np.int64)
        if codec is None:
            raise MismatchError(
                f"the landmarks of {self.path or 'the map'} have no hypercolumns",
                "build it with a model that has them and `hfnet-map build --method sparse-to-dense`",
            )
        self.file.check_rows(Section.HYPERCOLUMNS, landmarks, codec.row_bytes)
        return codec.decode(self.hypercolumn_codes[landmarks])

    def descriptor_rows(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of DESCRIPTORS (R,) int64 of increasing ``landmarks``, and which of these they are of, (R,) int64."""
        if not self.description.countBits:
            return landmarks, np.arange(len(landmarks))
        tile, at = np.unique(landmarks // TILE_SIZE, return_inverse=True)
        counts = self._tile_counts(tile)
        ends = np.cumsum(counts, axis=1) + self._tiles_of(tile)["first_descriptor"].astype(np.int64)[:, None]
        if len(ends) and ends[:, -1].max() > self.description.descriptorCount:
            raise self.file.fail("a landmark's descriptors lie past the last")
        count, end = (values[at, landmarks % TILE_SIZE] for values in (counts, ends))
        if count.sum() > self.description.descriptorCount:
            raise self.file.fail("landmarks share descriptors")
        owners = np.repeat(np.arange(len(landmarks)), count)
        return np.arange(count.sum()) + np.repeat(end - np.cumsum(count), count), owners

    def _accepted(self, check: Callable[..., None], value: object) -> None:
        """What a ``check`` that writers share finds wrong with a section, as a MapFormatError."""
        try:
            check(value)
        except ValueError as e:
            raise self.file.fail(str(e)) from e

    def check_all(self) -> None:
        """Checks every byte and every index. Raises MapFormatError."""
        self.file.check(self.file.start, len(self.file.data))
        _ = self.image_names, self.image_poses, self.global_descriptors, self.global_projection, self.calibration
        if len(set(self.image_names)) != self.image_count:
            raise self.file.fail("image names repeat")
        if (np.diff(self._offsets.astype(np.int64)) < 0).any() or self._offsets[0] != 0:
            raise self.file.fail("OBSERVATION_OFFSETS does not rise from 0")
        if self._offsets[-1] != self.file.sections[Section.OBSERVATION_LISTS].length:
            raise self.file.fail("OBSERVATION_LISTS is longer than its last list")
        observations = sum(len(self.observed(image)) for image in range(self.image_count))
        if observations != self.description.observationCount:
            raise self.file.fail(f"{observations} observations, META says {self.description.observationCount}")
        total = 0
        for start in range(0, self.landmark_count, 1 << 16):
            landmarks = np.arange(start, min(start + (1 << 16), self.landmark_count))
            self.positions(landmarks)
            rows, _ = self.descriptor_rows(landmarks)
            if not np.array_equal(rows, np.arange(total, total + len(rows))):
                raise self.file.fail("descriptors overlap, or are of no landmark")
            total += len(rows)
        if total != self.description.descriptorCount:
            raise self.file.fail(f"{total} descriptors, META says {self.description.descriptorCount}")
        try:
            if any(Section.RANDOM_TREES <= kind <= Section.TREE_LANDMARKS for kind in self.file.sections):
                _ = self.trees
            if any(Section.SCENE_TREE <= kind <= Section.SCENE_LANDMARKS for kind in self.file.sections):
                _ = self.scene_tree
            _ = self.earth
        except MismatchError as e:  # trees of another map, or not all of one
            raise MapFormatError(e.problem, e.remedy) from e

    @cached_property
    def _offsets(self) -> np.ndarray:
        return self.file.array(Section.OBSERVATION_OFFSETS, "<u4", self.image_count + 1)

    @cached_property
    def _tiles(self) -> np.ndarray:
        return self.file.array(Section.TILES, TILE, -(-self.landmark_count // TILE_SIZE), checked=False)

    def _tiles_of(self, tiles: np.ndarray) -> np.ndarray:
        self.file.check_rows(Section.TILES, tiles, TILE.itemsize)
        found = self._tiles[tiles]
        if not (np.isfinite(found["origin"]).all() and np.isfinite(found["step"]).all()):
            raise self.file.fail("a tile's origin or step is not finite")
        return found

    @cached_property
    def _positions(self) -> np.ndarray:
        return self.file.array(Section.LANDMARK_POSITIONS, "<u2", self.landmark_count, 3, checked=False)

    @cached_property
    def _counts(self) -> np.ndarray:
        if not self.description.countBits:
            return np.zeros(0, np.uint8)
        size = (self.landmark_count * self.description.countBits + 7) // 8
        return self.file.array(Section.DESCRIPTOR_COUNTS, "u1", size, checked=False)

    def _tile_counts(self, tiles: np.ndarray) -> np.ndarray:
        """(T, 256) int64 numbers of descriptors; 0 past the last landmark."""
        bits = self.description.countBits
        size = TILE_SIZE * bits // 8
        at = tiles[:, None] * size + np.arange(size)
        there = at < len(self._counts)
        self.file.check_rows(Section.DESCRIPTOR_COUNTS, at[there], 1)
        data = np.where(there, self._counts[np.where(there, at, 0)], 0).astype(np.uint8)
        if bits == 16:
            counts = data.view("<u2").astype(np.int64)
        else:
            places = np.arange(0, 8, bits, dtype=np.uint8)
            counts = (data[:, :, None] >> places & (1 << bits) - 1).reshape(len(tiles), TILE_SIZE).astype(np.int64)
        return (counts + 1) * (tiles[:, None] * TILE_SIZE + np.arange(TILE_SIZE) < self.landmark_count)

    @cached_property
    def codes(self) -> np.ndarray:
        """(R, row_bytes) uint8, all descriptors as they are stored; unchecked until `check_all`."""
        shape = self.description.descriptorCount, self.codec.row_bytes
        return self.file.array(Section.DESCRIPTORS, "u1", *shape, checked=False)

    @cached_property
    def hypercolumn_codes(self) -> np.ndarray:
        """(L, row_bytes) uint8, as `codes`; no row where there are none."""
        if self.hypercolumn_codec is None:
            return np.zeros((0, 0), np.uint8)
        shape = self.landmark_count, self.hypercolumn_codec.row_bytes
        return self.file.array(Section.HYPERCOLUMNS, "u1", *shape, checked=False)

    @cached_property
    def global_projection(self) -> np.ndarray | None:
        """(G, extractor's G) int8, or None where all dimensions are kept."""
        d = self.description
        if Section.GLOBAL_PROJECTION not in self.file.sections:
            return None
        return self.file.array(Section.GLOBAL_PROJECTION, "i1", d.globalDim, d.extractorGlobalDim)


def read_description(file: MapBytes) -> MapDescriptionT:
    """Unpacks META and checks what it says. Python's flatbuffers has no verifier, so anything that it trips over
    becomes a MapFormatError."""
    if Section.META in file.sections and file.sections[Section.META].length > MAX_META:
        raise file.fail(f"META has {file.sections[Section.META].length} bytes")
    buffer = file.bytes(Section.META)
    try:
        root = MapDescription.GetRootAs(buffer, 0)
        d = MapDescriptionT.InitFromObj(root)
        for name, slot in NAMES.items():
            _check_text(root._tab, slot, len(buffer))
            value = getattr(d, name)
            setattr(d, name, (value or b"").decode() if isinstance(value, bytes | None) else str(value))
    except Exception as e:
        raise file.fail(f"META is damaged ({type(e).__name__})") from e
    try:
        check_description(d)
    except ValueError as e:
        raise file.fail(f"META is damaged: {e}") from e
    if (d.globalDim != d.extractorGlobalDim) != (Section.GLOBAL_PROJECTION in file.sections):
        raise file.fail("GLOBAL_PROJECTION is missing, or projects to as many dimensions")
    if not d.countBits and d.descriptorCount != d.landmarkCount:
        raise file.fail(f"{d.descriptorCount} descriptors of {d.landmarkCount} landmarks, and no DESCRIPTOR_COUNTS")
    return d


def of_patches(local_role: str, global_weights_hash: str) -> bool:
    """Whether the landmarks of a map are described by a patch network. What META leaves out is as in format 2.1, where
    nobody else could describe them but the network that retrieves."""
    return (local_role or (PATCH if global_weights_hash else LOCAL)) == PATCH


def _check_text(table: Any, slot: int, size: int) -> None:
    """A field that is text ends inside META: a slice of Python's would end there unasked. Raises ValueError."""
    offset = table.Offset(4 + 2 * slot)
    if offset:
        at = table.Pos + offset
        at += table.Get(UOffsetTFlags, at)
        if table.Get(UOffsetTFlags, at) > size - at - 4:
            raise ValueError("a text ends past META")


def check_description(d: MapDescriptionT) -> None:
    """Its names and numbers are within the format's bounds. Writers ask before they write. Raises ValueError."""
    for name in NAMES:
        text = getattr(d, name) or ""
        if not (text.isascii() and text.isprintable()):
            raise ValueError(f"{name} {text!r} is not printable ASCII")
    if not (1 <= d.localDim <= MAX_LOCAL_DIM and 1 <= d.globalDim <= d.extractorGlobalDim <= MAX_GLOBAL_DIM):
        raise ValueError(
            f"descriptors of {d.localDim} and {d.globalDim} of {d.extractorGlobalDim} dimensions; "
            f"at most {MAX_LOCAL_DIM} and {MAX_GLOBAL_DIM} are possible"
        )
    if not 0 <= d.hypercolumnDim <= MAX_LOCAL_DIM:
        raise ValueError(f"hypercolumns of {d.hypercolumnDim} dimensions; at most {MAX_LOCAL_DIM} are possible")
    for name in ("imageCount", "landmarkCount", "observationCount", "descriptorCount"):
        if not 0 <= getattr(d, name) < 1 << 32:
            raise ValueError(f"{name} {getattr(d, name)} is more than 32 bits hold")
    if (d.localRole or LOCAL) not in LOCAL_ROLES:
        raise ValueError(f"landmarks have {d.localRole!r}, not one of {', '.join(LOCAL_ROLES)}")
    if d.countBits not in COUNT_BITS:
        raise ValueError(f"{d.countBits} bits for a number of descriptors, not one of {COUNT_BITS}")
    if not all(abs(v) < MAX_ORIGIN for v in (d.originX, d.originY, d.originZ)):  # NaN is not, either
        raise ValueError("the origin is not finite, or beyond every place")


def check_image_names(names: Sequence[str]) -> None:
    """They can be written, and are no control characters. Writers ask before they write. Raises ValueError."""
    for name in names:
        name.encode()  # raises a ValueError where half a surrogate pair stands alone
        if any(ord(character) < 32 for character in name):
            raise ValueError(f"the image name {name!r} holds control characters")


def check_image_poses(poses: np.ndarray) -> None:
    """(M, 7) poses are finite, their quaternions of unit length. Writers ask before they write. Raises ValueError."""
    if not np.isfinite(poses).all():
        raise ValueError("the pose of a reference image is not finite")
    if len(poses) and np.abs(np.linalg.norm(np.clip(poses[:, :4], -2, 2), axis=1) - 1).max() > 1e-6:
        raise ValueError("a reference image's quaternion is not of unit length")


def _local_codec(file: MapBytes, d: MapDescriptionT) -> Codec:
    return _codec(
        file,
        (d.codec, d.localDim, d.codeDim, d.subspaces),
        (Section.PROJECTION, Section.THRESHOLDS, Section.CODEBOOK),
    )


def _hypercolumn_codec(file: MapBytes, d: MapDescriptionT) -> Codec | None:
    if not d.hypercolumnDim:
        return None
    return _codec(
        file,
        (d.hypercolumnCodec, d.hypercolumnDim, d.hypercolumnCodeDim, d.hypercolumnSubspaces),
        (Section.HYPERCOLUMN_PROJECTION, Section.HYPERCOLUMN_THRESHOLDS, Section.HYPERCOLUMN_CODEBOOK),
    )


def _codec(file: MapBytes, meta: tuple[str, int, int, int], tables: tuple[Section, Section, Section]) -> Codec:
    """A codec that META names by its name, D, K and number of subspaces, with its tables."""
    (given, dim, k, subspaces), (projections, limits, books) = meta, tables
    if given not in set(CodecName):
        raise file.fail(f"the codec {given!r} does not exist; there are {', '.join(CodecName)}")
    name = CodecName(given)
    if not 1 <= k <= MAX_LOCAL_DIM:
        raise file.fail(f"codes of {k} dimensions; at most {MAX_LOCAL_DIM} are possible")
    projection = thresholds = codebook = None
    if projections in file.sections:
        projection = file.array(projections, "i1", k, dim)
    elif k != dim or name is CodecName.BINARY:
        raise file.fail(f"section {projections.name} is missing")
    if name is CodecName.BINARY:
        thresholds = file.array(limits, "<i4", k)
    elif name is CodecName.PQ:
        if not 1 <= subspaces <= k <= MAX_SUBSPACE_DIM * subspaces or k % subspaces:
            raise file.fail(f"{k} dimensions do not split into {subspaces} subspaces")
        codebook = file.array(books, "i1", subspaces, CENTROIDS, k // subspaces)
    return Codec(name, k, projection, thresholds, codebook)
