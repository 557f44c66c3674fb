"""Everything that the pipeline knows of one image once the network has seen it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.image.blobs import NO_BLOBS, combine, find_blobs
from hfnet_edge.image.hypercolumns import Hypercolumns
from hfnet_edge.image.keypoints import MIN_SCORE, detect, quantize, sample_descriptors
from hfnet_edge.image.patches import cut
from hfnet_edge.image.patches import detect as detect_patches
from hfnet_edge.image.photo import Photo
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.description import BLOBS, GLOBAL_ROLE, HYPERCOLUMN_ROLE
from hfnet_edge.networks.hfnet import RawOutputs
from hfnet_edge.networks.network import Network
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.tensor import Output

MAX_KEYPOINTS = 3000
MAX_PATCHES = 2000  # keypoints that a patch network describes


@dataclass(frozen=True)
class Features:
    """Keypoints and descriptors of one image; N keypoints, blobs first, then the network's, each highest score first.

    Attributes:
        keypoints: (N, 2) float64, pixels of the image that the camera describes.
        scores: (N,) float32: of blobs 1 more than their response in grey levels, of others the network's, at most 1.
        descriptors: (N, D) int8, unit length times 127.
        global_descriptor: (G,) int8, unit length times 127.
        pixel: size of one pixel of the network's input in pixels of the image; the unit of every pixel threshold.
        hypercolumns: of the whole image, where the network has them.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    descriptors: np.ndarray
    global_descriptor: np.ndarray
    pixel: float
    hypercolumns: Hypercolumns | None = None


def decode(
    raw: RawOutputs,
    photo: Photo,
    nms_radius: int,
    max_keypoints: int = MAX_KEYPOINTS,
    threshold: float = MIN_SCORE,
    detector: str = BLOBS,
) -> Features:
    """Keypoints of a photo, with the network's descriptors there.

    Args:
        max_keypoints: at most so many. threshold: the least score of the network's keypoints.
        detector: "network", or "blobs": up to two thirds are blobs, the others the network's.
    """
    blobs = find_blobs(photo.pixels, photo.valid, max_keypoints * 2 // 3) if detector == BLOBS else NO_BLOBS
    peaks = detect(raw.scores(), photo.valid, max_keypoints, nms_radius, threshold)
    xy, scores = combine(blobs, *peaks, max_keypoints)
    return Features(
        keypoints=photo.to_camera(xy),
        scores=scores,
        descriptors=sample_descriptors(raw.descriptor_maps, xy),
        global_descriptor=quantize(np.asarray(raw.global_descriptor)[None])[0],
        pixel=max(photo.scale),
        hypercolumns=None if raw.hypercolumns is None else Hypercolumns(raw.hypercolumns, photo),
    )


def look(
    networks: Networks, photo: Photo, clock: Clock | None = None, max_keypoints: int | None = None
) -> tuple[Features, dict[str, Output]]:
    """What networks make of a photo, and the outputs that went into it, by role.

    Where a patch network is among them it describes the keypoints, see `describe`, and of the other network only the
    global descriptor and the hypercolumns are used. A retrieval network's global descriptor is used in HF-Net's stead.
    There are `MAX_KEYPOINTS` at most, or `MAX_PATCHES`, where
    ``max_keypoints`` is None.
    """
    clock, model, patches = clock or Clock(), networks.image, networks.patches
    with clock("extract"):
        raw = model(photo.pixels)
        if networks.retrieval is not None:
            raw = replace(raw, global_descriptor=networks.retrieval(photo))
    if patches is not None:
        with clock("describe"):
            features = describe(patches, np.asarray(raw.global_descriptor), photo, max_keypoints or MAX_PATCHES)
        if raw.hypercolumns is None:
            return features, {GLOBAL_ROLE: raw.global_descriptor}
        features = replace(features, hypercolumns=Hypercolumns(raw.hypercolumns, photo))
        return features, {GLOBAL_ROLE: raw.global_descriptor, HYPERCOLUMN_ROLE: raw.hypercolumns}
    with clock("decode"):
        about = model.description
        features = decode(raw, photo, about.nms_radius, max_keypoints or MAX_KEYPOINTS, detector=about.detector)
    return features, {role: output for role, output in vars(raw).items() if output is not None}


def extract(networks: Networks | Network, photo: Photo, max_keypoints: int | None = None) -> Features:
    """The features alone, see `look`: ``extract(model, load_photo(path, model.description.input_size))``."""
    return look(Networks.of(networks), photo, None, max_keypoints)[0]


def describe(
    patch_model: PatchModel, global_descriptor: np.ndarray, photo: Photo, max_keypoints: int = MAX_PATCHES
) -> Features:
    """SIFT keypoints with the patch network's descriptors, and HF-Net's global descriptor (G,) float32.

    Keypoints whose patch leaves the image are not used (paper 002, section 5.1). Scores are the detector's responses.
    """
    image = photo.image
    found = detect_patches(image, max_keypoints)
    return Features(
        keypoints=photo.to_camera(found.xy),
        scores=found.scores,
        descriptors=patch_model(cut(image, found)),
        global_descriptor=quantize(global_descriptor[None])[0],
        pixel=max(photo.scale),
    )
