"""What one machine made of a list of queries, stage by stage: the unit that parity compares.

    input ─> tensor ─> keypoints ─> descriptors ─> retrieval ─> matches ─> pose ─> trust

Where a patch network describes the landmarks, keypoints are SIFT's, the local descriptors are the patch network's, and
of HF-Net's outputs only the global descriptor is kept: the others are not used. Stages that a recording lacks (hloc
keeps neither network outputs nor matches) are None or empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import CELL
from hfnet_edge.image.photo import Photo
from hfnet_edge.localizer import LocalizationResult, Stages
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.result import Status
from hfnet_edge.tensor import Output

SKETCH = 8  # one cell of eight of the dense outputs is kept, on a lattice that meets every row and column
HASH_DIGITS = 32

PREFIXES = (
    "",
    "patch_",
    "scene_",
    "retrieval_",
)  # of what `Recording.about` says of a network, by `hfnet_edge.networks.description.KINDS`


@dataclass(frozen=True)
class Matched:
    """The matches that a pose is of: of the method's own those that the first pose fits, and what the second look adds.
    Where no pose was found they are the method's, all of them. N matches.

    Attributes:
        keypoints: (N,) int64 rows of the query's features, increasing: which of them were found first depends on the
            first pose, and says nothing. landmarks: (N,) int64 rows of the map's landmarks. None where the method has
            none.
        xyz: (N, 3) float64 points in the world. inliers: (N,) bool.
    """

    keypoints: np.ndarray | None
    landmarks: np.ndarray | None
    xyz: np.ndarray
    inliers: np.ndarray


@dataclass(frozen=True)
class QueryRecord:
    """One query.

    Attributes:
        name: as listed. camera: that its pose is of.
        input_hash: 32 hex digits over the network's input pixels, "" where unknown.
        thumbnail: (H / 8, W / 8) uint8, one pixel of each cell of the input.
        output_hashes: role to 32 hex digits over the float32 output, of those that the method uses.
        outputs: role to float32 rows of the `SKETCH`, or the global descriptor.
        features: None where there are none.
        prior_frames: names of the retrieved reference images, most similar first; None: not known.
        matched: None where nothing was matched, or it is not known.
        status: a name of `Status`. pose: cam_from_world or None.
        probability, wrong: see `hfnet_edge.result.LocalizationResult`; None: not known.
        covariance: (6, 6) float64, see there; None where there is none, or it is not known.
    """

    name: str
    camera: Camera
    input_hash: str = ""
    thumbnail: np.ndarray | None = None
    output_hashes: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    features: Features | None = None
    prior_frames: tuple[str, ...] | None = None
    matched: Matched | None = None
    status: str = Status.REJECTED.value
    pose: Pose | None = None
    probability: float | None = None
    wrong: float | None = None
    covariance: np.ndarray | None = None


@dataclass(frozen=True)
class Recording:
    """All queries on one machine.

    Attributes:
        about: what ran where: "method", "processor", "kernels", "solver", "model_hash" (of the file), "weights_hash",
            "precision", "map_hash" (of the file), versions; of a patch network "patch_kernels", "patch_model_hash",
            "patch_weights_hash", "patch_precision"; likewise of a scene or a retrieval network.
        reference_poses: name of each reference image of the map to its cam_from_world, (7,) float64.
        queries: in the order of the list.
    """

    about: dict[str, str]
    reference_poses: dict[str, np.ndarray]
    queries: tuple[QueryRecord, ...]

    @property
    def method(self) -> str:
        """How it localized; recordings of before there were several methods do not say."""
        return self.about.get("method", "hierarchical")

    @property
    def has_patch_network(self) -> bool:
        """A patch network made the local descriptors."""
        return "patch_weights_hash" in self.about


def record_query(name: str, camera: Camera, map_: LocalizationMap, stages: Stages) -> QueryRecord:
    """Keeps what parity needs of a localized query."""
    result, query = stages.result, stages.query
    return QueryRecord(
        name,
        camera,
        input_hash(stages.photo),
        stages.photo.pixels[CELL // 2 :: CELL, CELL // 2 :: CELL].copy(),
        *sketch(query.outputs),
        query.features,
        tuple(map_.image_names[i] for i in result.prior_frames),
        _matched(result),
        result.status.value,
        result.pose,
        result.probability,
        result.wrong,
        result.covariance,
    )


def _matched(result: LocalizationResult) -> Matched | None:
    matches, inliers = result.matches, result.inlier_mask
    if matches is None:
        return None
    inliers = np.zeros(len(matches), bool) if inliers is None else inliers
    if matches.keypoints is not None:
        order = np.argsort(matches.keypoints, kind="stable")
        matches, inliers = matches.take(order), inliers[order]
    return Matched(matches.keypoints, matches.landmarks, matches.xyz, inliers)


def input_hash(photo: Photo) -> str:
    """32 hex digits over the pixels that the network sees, and which of them are the image."""
    return digest(np.array([*photo.valid, *photo.pixels.shape], "<i4").tobytes() + photo.pixels.tobytes())


def sketch(outputs: Mapping[str, Output]) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Hashes of networks' outputs by role, and the rows that are kept of them."""
    real = {role: np.asarray(value, np.float32) for role, value in outputs.items()}
    hashes = {role: digest(np.ascontiguousarray(value, "<f4").tobytes()) for role, value in real.items()}
    return hashes, {role: _rows(value) for role, value in real.items()}


def _rows(output: np.ndarray) -> np.ndarray:
    """Cells of a dense output whose column + 3 row is a multiple of `SKETCH`, (N, channels); a vector whole."""
    if output.ndim == 1:
        return output.astype(np.float32)
    if output.ndim == 2:  # scores of pixels: the 64 of a cell are its channels
        h, w = (side // CELL for side in output.shape)
        output = output[: h * CELL, : w * CELL].reshape(h, CELL, w, CELL)
        output = output.transpose(0, 2, 1, 3).reshape(h, w, CELL * CELL)
    h, w = output.shape[:2]
    return output[(np.arange(w) + 3 * np.arange(h)[:, None]) % SKETCH == 0].astype(np.float32)


def digest(content: bytes) -> str:
    """32 hex digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:HASH_DIGITS]
