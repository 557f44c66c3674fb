"""What a map is packed from: images, landmarks, who observes what, and what it looked like.

Every stage of packing takes a source and returns a smaller one, so each can be measured alone:

    read ─> Source ─> select landmarks ─> summarise descriptors ─> encode ─> write
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hfnet_edge.errors import CameraError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.codecs import Codec, CodecName
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.description import Description


@dataclass(frozen=True)
class Extractor:
    """The network whose features they are; a query must come from the same weights.

    Attributes:
        weights_hash: 32 hex digits, or "" where it is not known.
        local_dim, global_dim: D and G.
        global_weights_hash: of the network of the global descriptors, where the local ones are a patch network's, which
            the other attributes but ``global_dim`` describe; else "".
    """

    architecture: str
    weights_hash: str
    precision: str
    local_dim: int
    global_dim: int
    global_weights_hash: str = ""

    @classmethod
    def of(cls, model: Description, patches: Description | None = None) -> Extractor:
        """That of a model file, and of a patch network's if there is one."""
        local = patches or model
        return cls(
            local.architecture,
            local.weights_hash,
            local.precision,
            local.local_dim,
            model.global_dim,
            model.weights_hash if patches else "",
        )


@dataclass(frozen=True)
class Photos:
    """What makes a query of a reference image: its camera and all its keypoints. O observations, P other keypoints.

    Attributes:
        cameras: M of them.
        pixels: (M,) float64 `Features.pixel`, the size of the network's pixels.
        keypoints: (O, 2) float32 pixels, of the source's observations.
        other_offsets: (M + 1,) int64, rows of the next two by image.
        other_keypoints: (P, 2) float32 pixels, without a landmark.
        other_descriptors: (P, D) int8.
    """

    cameras: tuple[Camera, ...]
    pixels: np.ndarray
    keypoints: np.ndarray
    other_offsets: np.ndarray
    other_keypoints: np.ndarray
    other_descriptors: np.ndarray


@dataclass(frozen=True)
class Source:
    """A place. M images, L landmarks, O observations, R descriptors.

    Attributes:
        extractor: of the descriptors.
        names, poses: of the images; poses are cam_from_world.
        global_descriptors: (M, G) int8.
        positions: (L, 3) float64 world.
        landmarks, images: (O,) int64, the observations in order of landmark, then image; no pair twice.
        described: (R,) int64 non-decreasing, the landmark of each descriptor; every landmark has one at least.
        descriptors: (R, D) int8, see ``codec``.
        photos: the reference images as queries. Where it is there, every observation has its own descriptor: R is O and
            ``described`` is ``landmarks``. None once descriptors have been summarised.
        codec: None where ``descriptors`` are the extractor's own. Else they are (R, row_bytes) uint8 by this codec, of
            a packed map, and stay so.
        global_projection: None where ``global_descriptors`` are the extractor's own; else what made them.
    """

    extractor: Extractor
    names: tuple[str, ...]
    poses: tuple[Pose, ...]
    global_descriptors: np.ndarray
    positions: np.ndarray
    landmarks: np.ndarray
    images: np.ndarray
    described: np.ndarray
    descriptors: np.ndarray
    photos: Photos | None = None
    codec: Codec | None = None
    global_projection: np.ndarray | None = None

    @cached_property
    def by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Observations in order of image: (O,) rows, and (M + 1,) where each image's begin."""
        order = np.argsort(self.images, kind="stable")
        return order, np.searchsorted(self.images[order], np.arange(len(self.names) + 1))

    def observed(self, image: int) -> np.ndarray:
        """Rows of the observations of an image, in order of landmark."""
        order, starts = self.by_image
        return order[starts[image] : starts[image + 1]]

    def features(self, image: int) -> Features:
        """A reference image as a query. Needs ``photos``. Keypoints with a landmark come first, not the best; scores
        are 1."""
        assert self.photos is not None
        p, rows = self.photos, self.observed(image)
        others = slice(p.other_offsets[image], p.other_offsets[image + 1])
        keypoints = np.concatenate([p.keypoints[rows], p.other_keypoints[others]]).astype(np.float64)
        return Features(
            keypoints,
            np.ones(len(keypoints), np.float32),
            np.concatenate([self.descriptors[rows], p.other_descriptors[others]]),
            self.global_descriptors[image],
            float(p.pixels[image]),
        )

    def take(self, landmarks: np.ndarray) -> Source:
        """Only these landmarks, in this order. ``photos`` stay where all are taken.

        Args:
            landmarks: rows of ``positions``, none twice.
        """
        number = np.full(len(self.positions), -1, np.int64)
        number[landmarks] = np.arange(len(landmarks))
        observations = _ordered(number[self.landmarks])
        rows = observations if self.described is self.landmarks else _ordered(number[self.described])
        renumbered = number[self.landmarks[observations]]
        return replace(
            self,
            positions=self.positions[landmarks],
            landmarks=renumbered,
            images=self.images[observations],
            described=renumbered if rows is observations else number[self.described[rows]],
            descriptors=self.descriptors[rows],
            photos=replace(self.photos, keypoints=self.photos.keypoints[observations])
            if self.photos is not None and len(landmarks) == len(self.positions)
            else None,
        )

    def without_images(self, left_out: np.ndarray) -> Source:
        """Without some images and what only they, or one image besides, observed. Needs ``photos``, and keeps those of
        the observations.

        Args:
            left_out: rows of the images.
        """
        assert self.photos is not None
        stays = np.ones(len(self.names), bool)
        stays[left_out] = False
        observations = np.flatnonzero(stays[self.images])
        still = np.bincount(self.landmarks[observations], minlength=len(self.positions)) >= 2
        observations = observations[still[self.landmarks[observations]]]
        image_number, landmark_number = np.cumsum(stays) - 1, np.cumsum(still) - 1
        landmarks = landmark_number[self.landmarks[observations]]
        kept = np.flatnonzero(stays)
        return replace(
            self,
            names=tuple(self.names[i] for i in kept),
            poses=tuple(self.poses[i] for i in kept),
            global_descriptors=self.global_descriptors[kept],
            positions=self.positions[still],
            landmarks=landmarks,
            images=image_number[self.images[observations]],
            described=landmarks,
            descriptors=self.descriptors[observations],
            photos=replace(
                self.photos,
                cameras=tuple(self.photos.cameras[i] for i in kept),
                pixels=self.photos.pixels[kept],
                keypoints=self.photos.keypoints[observations],
                other_offsets=np.zeros(len(kept) + 1, np.int64),
                other_keypoints=self.photos.other_keypoints[:0],
                other_descriptors=self.photos.other_descriptors[:0],
            ),
        )


def _ordered(numbers: np.ndarray) -> np.ndarray:
    """Rows in order of their number, equals as they are; without those numbered -1."""
    order = np.argsort(numbers, kind="stable")
    return order[np.searchsorted(numbers[order], 0) :]


def read_source(path: Path | str) -> Source:
    """The source in a map file: of one that `hfnet-map build` wrote everything, of a packed one what is left.

    Raises:
        MapFormatError: the file is missing, damaged or not a map.
    """
    return source_of(LocalizationMap.open(path))


def source_of(m: LocalizationMap) -> Source:
    """As `read_source`, of an open map. Raises MapFormatError."""
    m.check_all()
    d, landmarks = m.description, np.arange(m.landmark_count)
    _, described = m.descriptor_rows(landmarks)
    observed = [m.observed(image) for image in range(m.image_count)]
    images = np.repeat(np.arange(m.image_count), [len(ids) for ids in observed])
    seen = np.concatenate([*observed, np.zeros(0, np.int64)])
    order = np.argsort(seen, kind="stable")
    photos = _read_photos(m, described, seen[order])
    return Source(
        Extractor(d.architecture, d.weightsHash, d.precision, d.localDim, d.extractorGlobalDim, d.globalWeightsHash),
        m.image_names,
        tuple(m.pose(image) for image in range(m.image_count)),
        m.global_descriptors,
        m.positions(landmarks) + m.origin,
        seen[order],
        images[order],
        seen[order] if photos is not None else described,
        m.codes.view(np.int8) if photos is not None else m.codes,
        photos,
        None if photos is not None else m.codec,
        m.global_projection,
    )


def _read_photos(m: LocalizationMap, described: np.ndarray, observed: np.ndarray) -> Photos | None:
    """The sections for tools, where the map has them.

    Args:
        described: (R,) landmarks of the descriptors. observed: (O,) those of the observations; the same in such a map.
    """
    file, count, observations = m.file, m.image_count, len(observed)
    if not any(kind in file.sections for kind in Section if kind >= Section.SOURCE_IMAGES):
        return None
    if m.codec.name is not CodecName.INT8 or m.codec.projection is not None or not np.array_equal(described, observed):
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
    photos = Photos(
        cameras,
        pixels,
        file.array(Section.SOURCE_OBSERVED, "<f4", observations, 2),
        offsets,
        file.array(Section.SOURCE_OTHER_KEYPOINTS, "<f4", offsets[-1], 2),
        file.array(Section.SOURCE_OTHER_DESCRIPTORS, "i1", offsets[-1], m.description.localDim),
    )
    if not (np.isfinite(photos.keypoints).all() and np.isfinite(photos.other_keypoints).all()):
        raise file.fail("a keypoint is not finite")
    return photos
