"""What is in a map, at three points of its way to a device. Each is a type, so that nobody asks which it is of `None`s.

    BuiltMap ─> DescribedMap ─> PackedMap

A built map is what photos gave: every observation has its keypoint and its descriptor. A described map has as many
descriptors a landmark as are wanted. A packed map has them encoded, which is as maps are written: int8 is a codec too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from hfnet_edge.errors import CameraError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.calibration import Calibration
from hfnet_edge.map.codecs import Codec, CodecName
from hfnet_edge.map.container import Section
from hfnet_edge.map.georeference import Earth
from hfnet_edge.map.map_file import LocalizationMap, of_patches
from hfnet_edge.map.scene_tree import SceneTree
from hfnet_edge.networks.description import IMAGE, LOCAL_ROLE, Description


@dataclass(frozen=True)
class MapNetworks:
    """The networks that described a map; a query must come from the same weights.

    Attributes:
        architecture, weights_hash, precision: of the network of the local descriptors; the hash is 32 hex digits, or ""
            where it is not known.
        local_dim, global_dim: D and G.
        global_weights_hash: of the network of the global descriptors, where it is another one; else "".
        local_role: what the local descriptors are, as META has it; "" where that says it too.
    """

    architecture: str
    weights_hash: str
    precision: str
    local_dim: int
    global_dim: int
    global_weights_hash: str = ""
    local_role: str = ""

    @classmethod
    def of(cls, local: Description, retrieval: Description | None = None) -> MapNetworks:
        """Those of the network that describes the landmarks, and of the one that retrieves, if that is another."""
        return cls(
            local.architecture,
            local.weights_hash,
            local.precision,
            local.local_dim,
            (retrieval or local).global_dim,
            retrieval.weights_hash if retrieval else "",
            LOCAL_ROLE if retrieval and local.kind == IMAGE else "",
        )

    @classmethod
    def of_map(cls, map_: LocalizationMap) -> MapNetworks:
        """As META says."""
        d = map_.description
        return cls(
            d.architecture,
            d.weightsHash,
            d.precision,
            d.localDim,
            d.extractorGlobalDim,
            d.globalWeightsHash,
            d.localRole,
        )

    @property
    def of_patches(self) -> bool:
        """Whether a patch network describes the landmarks."""
        return of_patches(self.local_role, self.global_weights_hash)


@dataclass(frozen=True)
class ReferenceKeypoints:
    """All keypoints of the reference images, and the cameras that they were seen by: with the descriptors, what makes a
    query of each image. O observations, P other keypoints.

    Attributes:
        cameras: M of them.
        pixels: (M,) float64 `Features.pixel`, the size of the network's pixels.
        observed: (O, 2) float32 pixels, of the map's observations.
        other_offsets: (M + 1,) int64, rows of the next two by image.
        others: (P, 2) float32 pixels, without a landmark.
        other_descriptors: (P, D) int8.
    """

    cameras: tuple[Camera, ...]
    pixels: np.ndarray
    observed: np.ndarray
    other_offsets: np.ndarray
    others: np.ndarray
    other_descriptors: np.ndarray


@dataclass(frozen=True)
class Structure(ABC):
    """Images, landmarks, and who observes what. M images, L landmarks, O observations.

    Attributes:
        networks: of the descriptors.
        names, poses: of the images; poses are cam_from_world.
        global_descriptors: (M, G) int8.
        positions: (L, 3) float64 world.
        landmarks, images: (O,) int64, the observations in order of landmark, then image; no pair twice.
        scene: what the labels of the map's scene network mean; None: there is none.
        earth: where the map is on Earth; None: that is not known.
    """

    networks: MapNetworks
    names: tuple[str, ...]
    poses: tuple[Pose, ...]
    global_descriptors: np.ndarray
    positions: np.ndarray
    landmarks: np.ndarray
    images: np.ndarray
    scene: SceneTree | None = field(default=None, kw_only=True)
    earth: Earth | None = field(default=None, kw_only=True)

    @cached_property
    def by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Observations in order of image: (O,) rows, and (M + 1,) where each image's begin."""
        order = np.argsort(self.images, kind="stable")
        return order, np.searchsorted(self.images[order], np.arange(len(self.names) + 1))

    def observed(self, image: int) -> np.ndarray:
        """Rows of the observations of an image, in order of landmark."""
        order, starts = self.by_image
        return order[starts[image] : starts[image + 1]]

    @abstractmethod
    def take(self, landmarks: np.ndarray) -> Self:
        """Only these landmarks, in this order.

        Args:
            landmarks: rows of ``positions``, none twice.
        """

    @abstractmethod
    def encoded(self) -> PackedMap:
        """As it is written: descriptors that nothing has encoded are int8."""

    def _taken(self, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """The new number of each landmark, -1 where it goes; the observations that stay; and what they change."""
        number = np.full(len(self.positions), -1, np.int64)
        number[landmarks] = np.arange(len(landmarks))
        rows = _ordered(number[self.landmarks])
        changed = {
            "positions": self.positions[landmarks],
            "landmarks": number[self.landmarks[rows]],
            "images": self.images[rows],
            "scene": None if self.scene is None else self.scene.renumbered(number),
        }
        return number, rows, changed


@dataclass(frozen=True)
class BuiltMap(Structure):
    """A map as it was built from photos: each observation has a descriptor and a keypoint.

    Attributes:
        descriptors: (O, D) int8.
        keypoints: those of the observations, and those that observe nothing.
        hypercolumns: (L, H) int8, each landmark's mean over its observations; None: there are none.
    """

    descriptors: np.ndarray
    keypoints: ReferenceKeypoints
    hypercolumns: np.ndarray | None = None

    @property
    def described(self) -> np.ndarray:
        """(O,) int64, the landmark of each descriptor."""
        return self.landmarks

    def features(self, image: int) -> Features:
        """A reference image as a query. Keypoints with a landmark come first, not the best; scores are 1."""
        k, rows = self.keypoints, self.observed(image)
        others = slice(k.other_offsets[image], k.other_offsets[image + 1])
        keypoints = np.concatenate([k.observed[rows], k.others[others]]).astype(np.float64)
        return Features(
            keypoints,
            np.ones(len(keypoints), np.float32),
            np.concatenate([self.descriptors[rows], k.other_descriptors[others]]),
            self.global_descriptors[image],
            float(k.pixels[image]),
        )

    def take(self, landmarks: np.ndarray) -> BuiltMap:
        """All landmarks, in this order: were one left out, its keypoints would be missing from the images."""
        assert len(landmarks) == len(self.positions)
        _, rows, changed = self._taken(landmarks)
        keypoints = replace(self.keypoints, observed=self.keypoints.observed[rows])
        hypercolumns = None if self.hypercolumns is None else self.hypercolumns[landmarks]
        return replace(
            self, **changed, descriptors=self.descriptors[rows], keypoints=keypoints, hypercolumns=hypercolumns
        )

    def without_keypoints(self) -> DescribedMap:
        """Its landmarks, each described by all its observations."""
        return DescribedMap(
            self.networks,
            self.names,
            self.poses,
            self.global_descriptors,
            self.positions,
            self.landmarks,
            self.images,
            self.landmarks,
            self.descriptors,
            self.hypercolumns,
            scene=self.scene,
            earth=self.earth,
        )

    def encoded(self) -> PackedMap:
        return self.without_keypoints().encoded()

    def without_images(self, left_out: np.ndarray) -> BuiltMap:
        """Without some images and what only they, or one image besides, observed. Of the keypoints only those of the
        observations stay; hypercolumns stay as they are.

        Args:
            left_out: rows of the images.
        """
        stays = np.ones(len(self.names), bool)
        stays[left_out] = False
        observations = np.flatnonzero(stays[self.images])
        still = np.bincount(self.landmarks[observations], minlength=len(self.positions)) >= 2
        observations = observations[still[self.landmarks[observations]]]
        image_number, landmark_number = np.cumsum(stays) - 1, np.cumsum(still) - 1
        kept = np.flatnonzero(stays)
        return replace(
            self,
            names=tuple(self.names[i] for i in kept),
            poses=tuple(self.poses[i] for i in kept),
            global_descriptors=self.global_descriptors[kept],
            positions=self.positions[still],
            scene=None if self.scene is None else self.scene.renumbered(np.where(still, landmark_number, -1)),
            landmarks=landmark_number[self.landmarks[observations]],
            images=image_number[self.images[observations]],
            descriptors=self.descriptors[observations],
            hypercolumns=None if self.hypercolumns is None else self.hypercolumns[still],
            keypoints=ReferenceKeypoints(
                tuple(self.keypoints.cameras[i] for i in kept),
                self.keypoints.pixels[kept],
                self.keypoints.observed[observations],
                np.zeros(len(kept) + 1, np.int64),
                self.keypoints.others[:0],
                self.keypoints.other_descriptors[:0],
            ),
        )


@dataclass(frozen=True)
class DescribedMap(Structure):
    """A map whose landmarks have any number of descriptors, one at least. R descriptors.

    Attributes:
        described: (R,) int64 non-decreasing, the landmark of each descriptor.
        descriptors: (R, D) int8.
        hypercolumns: see `BuiltMap`.
    """

    described: np.ndarray
    descriptors: np.ndarray
    hypercolumns: np.ndarray | None = None

    def take(self, landmarks: np.ndarray) -> DescribedMap:
        number, _, changed = self._taken(landmarks)
        rows = _ordered(number[self.described])
        hypercolumns = None if self.hypercolumns is None else self.hypercolumns[landmarks]
        described, descriptors = number[self.described[rows]], self.descriptors[rows]
        return replace(self, **changed, described=described, descriptors=descriptors, hypercolumns=hypercolumns)

    def encoded(self) -> PackedMap:
        hypercolumns = None
        if self.hypercolumns is not None:
            codec = Codec(CodecName.INT8, self.hypercolumns.shape[1])
            hypercolumns = EncodedHypercolumns(codec.dim, codec, self.hypercolumns.view(np.uint8))
        codec = Codec(CodecName.INT8, self.networks.local_dim)
        return self.packed(codec, self.descriptors.view(np.uint8), hypercolumns)

    def packed(self, codec: Codec, codes: np.ndarray, hypercolumns: EncodedHypercolumns | None = None) -> PackedMap:
        """With its descriptors' codes, (R, row_bytes) uint8, in their place, and those of its hypercolumns."""
        return PackedMap(
            self.networks,
            self.names,
            self.poses,
            self.global_descriptors,
            self.positions,
            self.landmarks,
            self.images,
            self.described,
            codes,
            codec,
            hypercolumns=hypercolumns,
            scene=self.scene,
            earth=self.earth,
        )


@dataclass(frozen=True)
class EncodedHypercolumns:
    """Hypercolumns of landmarks, as they are written.

    Attributes:
        dim: of the network's. codec: of the codes. codes: (L, row_bytes) uint8.
    """

    dim: int
    codec: Codec
    codes: np.ndarray


@dataclass(frozen=True)
class PackedMap(Structure):
    """A map as it is written. What has been encoded stays so. R descriptors.

    Attributes:
        described: (R,) int64 non-decreasing, the landmark of each descriptor.
        codes: (R, row_bytes) uint8 by ``codec``.
        global_projection: what made ``global_descriptors`` of the network's own; None where they are these.
        calibration: of probabilities, by left-out images when the map was packed; None: there is none.
        hypercolumns: of the landmarks; None: there are none.
    """

    described: np.ndarray
    codes: np.ndarray
    codec: Codec
    global_projection: np.ndarray | None = None
    calibration: Calibration | None = None
    hypercolumns: EncodedHypercolumns | None = None

    def take(self, landmarks: np.ndarray) -> PackedMap:
        number, _, changed = self._taken(landmarks)
        rows = _ordered(number[self.described])
        hypercolumns = self.hypercolumns
        if hypercolumns is not None:
            hypercolumns = replace(hypercolumns, codes=hypercolumns.codes[landmarks])
        described, codes = number[self.described[rows]], self.codes[rows]
        return replace(self, **changed, described=described, codes=codes, hypercolumns=hypercolumns)

    def encoded(self) -> PackedMap:
        return self


MapContent = BuiltMap | DescribedMap | PackedMap


def _ordered(numbers: np.ndarray) -> np.ndarray:
    """Rows in order of their number, equals as they are; without those numbered -1."""
    order = np.argsort(numbers, kind="stable")
    return order[np.searchsorted(numbers[order], 0) :]


def read_content(path: Path | str) -> BuiltMap | PackedMap:
    """What is in a map file: of one that `hfnet-map build` wrote everything, of a packed one what is left.

    Raises:
        MapFormatError: the file is missing, damaged or not a map.
    """
    return content_of(LocalizationMap.open(path))


def content_of(map_: LocalizationMap) -> BuiltMap | PackedMap:
    """As `read_content`, of an open map. Raises MapFormatError."""
    map_.check_all()
    landmarks = np.arange(map_.landmark_count)
    _, described = map_.descriptor_rows(landmarks)
    observed = [map_.observed(image) for image in range(map_.image_count)]
    images = np.repeat(np.arange(map_.image_count), [len(ids) for ids in observed])
    seen = np.concatenate([*observed, np.zeros(0, np.int64)])
    order = np.argsort(seen, kind="stable")
    keypoints = _read_keypoints(map_, described, seen[order])
    packed = PackedMap(
        MapNetworks.of_map(map_),
        map_.image_names,
        tuple(map_.pose(image) for image in range(map_.image_count)),
        map_.global_descriptors,
        map_.in_world(map_.positions(landmarks)),
        seen[order],
        images[order],
        described,
        map_.codes,
        map_.codec,
        map_.global_projection,
        map_.calibration if Section.CALIBRATION in map_.file.sections else None,
        None
        if (codec := map_.hypercolumn_codec) is None
        else EncodedHypercolumns(map_.description.hypercolumnDim, codec, map_.hypercolumn_codes),
        scene=map_.scene_tree if Section.SCENE_TREE in map_.file.sections else None,
        earth=map_.earth,
    )
    if keypoints is None or packed.global_projection is not None:
        return packed
    return BuiltMap(
        packed.networks,
        packed.names,
        packed.poses,
        packed.global_descriptors,
        packed.positions,
        packed.landmarks,
        packed.images,
        packed.codes.view(np.int8),
        keypoints,
        None if packed.hypercolumns is None else packed.hypercolumns.codes.view(np.int8),
        scene=packed.scene,
        earth=packed.earth,
    )


def _read_keypoints(map_: LocalizationMap, described: np.ndarray, observed: np.ndarray) -> ReferenceKeypoints | None:
    """The sections for tools, where the map has them.

    Args:
        described: (R,) landmarks of the descriptors. observed: (O,) those of the observations; the same in such a map.
    """
    file, count, observations = map_.file, map_.image_count, len(observed)
    if not any(kind in file.sections for kind in Section if kind >= Section.SOURCE_IMAGES):
        return None
    codecs = [codec for codec in (map_.codec, map_.hypercolumn_codec) if codec is not None]
    whole = all(codec.name is CodecName.INT8 and codec.projection is None for codec in codecs)
    if not whole or not np.array_equal(described, observed):
        raise file.fail("a map with SOURCE sections keeps one int8 descriptor for each observation; this one does not")
    try:
        lines = [line.split(" ", 1) for line in file.bytes(Section.SOURCE_IMAGES).decode().splitlines()]
        pixels = np.array([float(pixel) for pixel, _ in lines])
        cameras = tuple(Camera.parse(camera) for _, camera in lines)
    except (ValueError, CameraError) as e:
        raise file.fail(f"SOURCE_IMAGES is damaged: {e}") from e
    if len(lines) != count or not (np.isfinite(pixels) & (pixels > 0)).all():
        raise file.fail(f"SOURCE_IMAGES has {len(lines)} lines, or a pixel that is none")
    offsets = file.array(Section.SOURCE_OTHER_OFFSETS, "<u4", count + 1).astype(np.int64)
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise file.fail("SOURCE_OTHER_OFFSETS does not rise from 0")
    keypoints = ReferenceKeypoints(
        cameras,
        pixels,
        file.array(Section.SOURCE_OBSERVED, "<f4", observations, 2),
        offsets,
        file.array(Section.SOURCE_OTHER_KEYPOINTS, "<f4", offsets[-1], 2),
        file.array(Section.SOURCE_OTHER_DESCRIPTORS, "i1", offsets[-1], map_.description.localDim),
    )
    if not (np.isfinite(keypoints.observed).all() and np.isfinite(keypoints.others).all()):
        raise file.fail("a keypoint is not finite")
    return keypoints
