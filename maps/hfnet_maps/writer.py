"""Writes map files. The format stands in `hfnet_edge.map_file`."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import flatbuffers
import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.files import atomic_write
from hfnet_edge.geometry import Pose
from hfnet_edge.map_file import (
    ENTRY,
    HEADER,
    MAGIC,
    VERSION,
    LocalizationMap,
    Section,
    aligned,
    check_contents,
    table_checksum,
)
from hfnet_edge.model import Description
from hfnet_edge.schema.description_generated import MapDescriptionT


def make_map(
    extractor: Description,
    names: Sequence[str],
    poses: Sequence[Pose],
    global_descriptors: np.ndarray,
    landmarks: np.ndarray,
    observations: Sequence[tuple[np.ndarray, np.ndarray]],
) -> LocalizationMap:
    """Puts a map together in memory.

    Args:
        extractor: description of the model that extracted the features.
        names, poses: M reference images and their cam_from_world.
        global_descriptors: (M, G) int8.
        landmarks: (L, 3) float64 world positions.
        observations: for each image, the landmarks that it observes (K,) and the descriptors there (K, D) int8,
            in any order, each landmark at most once.

    Raises:
        InputError: the parts do not fit together.
    """
    origin = landmarks.mean(axis=0) if len(landmarks) else np.zeros(3)
    ordered = [(ids[order], descriptors[order]) for ids, descriptors in observations for order in [np.argsort(ids)]]
    counts = [len(ids) for ids, _ in ordered]
    d = MapDescriptionT()
    d.generator = f"hfnet-edge {version('hfnet-edge')}"
    d.architecture, d.weightsHash, d.precision = extractor.architecture, extractor.weights_hash, extractor.precision
    d.localDim, d.globalDim = extractor.local_dim, extractor.global_dim
    d.imageCount, d.landmarkCount, d.observationCount = len(names), len(landmarks), sum(counts)
    d.originX, d.originY, d.originZ = (float(v) for v in origin)
    if any("\n" in name for name in names) or len(set(names)) != len(names):
        raise InputError("image names repeat or hold line breaks", "rename the reference images")
    result = LocalizationMap(
        description=d,
        image_names=tuple(names),
        image_poses=np.array([[*p.quaternion, *p.translation] for p in poses], "<f8").reshape(-1, 7),
        global_descriptors=global_descriptors.astype("i1", casting="no"),
        landmark_positions=(landmarks - origin).astype("<f4"),
        observation_offsets=np.concatenate([[0], np.cumsum(counts)]).astype("<u4"),
        observation_landmarks=np.concatenate([np.zeros(0, "<u4"), *(ids for ids, _ in ordered)]).astype("<u4"),
        observation_descriptors=np.concatenate(
            [np.zeros((0, extractor.local_dim), "i1"), *(rows for _, rows in ordered)]
        ).astype("i1", casting="no"),
        origin=origin,
    )
    check_contents(result, lambda what: InputError(f"the map would be invalid: {what}"))
    return result


def write_map(m: LocalizationMap, path: Path | str) -> int:
    """Writes the map atomically and returns its size in bytes. Raises OutputError."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(m.description.Pack(builder))
    parts: dict[Section, bytes] = {
        Section.META: bytes(builder.Output()),
        Section.IMAGE_NAMES: "".join(f"{name}\n" for name in m.image_names).encode(),
        Section.IMAGE_POSES: m.image_poses.tobytes(),
        Section.GLOBAL_DESCRIPTORS: m.global_descriptors.tobytes(),
        Section.LANDMARK_POSITIONS: m.landmark_positions.tobytes(),
        Section.OBSERVATION_OFFSETS: m.observation_offsets.tobytes(),
        Section.OBSERVATION_LANDMARKS: m.observation_landmarks.tobytes(),
        Section.OBSERVATION_DESCRIPTORS: m.observation_descriptors.tobytes(),
    }
    table, offset = b"", HEADER.size + len(parts) * ENTRY.size
    for kind, part in sorted(parts.items()):
        offset = aligned(offset)
        table += ENTRY.pack(kind, zlib.crc32(part), offset, len(part))
        offset += len(part)
    head = HEADER.pack(MAGIC, *VERSION, len(parts), offset, 0)
    head = HEADER.pack(MAGIC, *VERSION, len(parts), offset, table_checksum(head + table)) + table
    with atomic_write(path) as file:
        file.write(head)
        for _, part in sorted(parts.items()):
            file.write(b"\0" * (aligned(file.tell()) - file.tell()))
            file.write(part)
    return offset
