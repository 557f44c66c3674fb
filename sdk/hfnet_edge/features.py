"""Everything that the pipeline knows of one image once the network has seen it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hfnet_edge.image.keypoints import MIN_SCORE, detect, quantize, sample_descriptors
from hfnet_edge.image.patches import cut
from hfnet_edge.image.patches import detect as detect_patches
from hfnet_edge.image.photo import Photo
from hfnet_edge.networks.model import Model, RawOutputs
from hfnet_edge.networks.patch_model import PatchModel

MAX_KEYPOINTS = 2000


@dataclass(frozen=True)
class Features:
    """Keypoints and descriptors of one image; N keypoints, highest score first.

    Attributes:
        keypoints: (N, 2) float64, pixels of the image that the camera describes.
        scores: (N,) float32, the detector's.
        descriptors: (N, D) int8, unit length times 127.
        global_descriptor: (G,) int8, unit length times 127.
        pixel: size of one pixel of the network's input in pixels of the image; the unit of every pixel threshold.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    descriptors: np.ndarray
    global_descriptor: np.ndarray
    pixel: float


def decode(
    raw: RawOutputs,
    photo: Photo,
    nms_radius: int,
    max_keypoints: int = MAX_KEYPOINTS,
    threshold: float = MIN_SCORE,
) -> Features:
    """The network's outputs for a photo as features: at most ``max_keypoints`` of at least the score ``threshold``."""
    xy, scores = detect(raw.scores(), photo.valid, max_keypoints, nms_radius, threshold)
    return Features(
        keypoints=photo.to_camera(xy),
        scores=scores,
        descriptors=sample_descriptors(raw.local_descriptors, xy),
        global_descriptor=quantize(raw.global_descriptor[None])[0],
        pixel=max(photo.scale),
    )


def extract(
    model: Model, photo: Photo, max_keypoints: int = MAX_KEYPOINTS, patch_model: PatchModel | None = None
) -> Features:
    """Runs the network and decodes: ``extract(model, load_photo(path, model.description.input_size))``.

    Args:
        patch_model: makes the local features in place of ``model``, see `extract_patches`.
    """
    raw = model(photo.pixels)
    if patch_model is not None:
        return extract_patches(patch_model, raw, photo, max_keypoints)
    return decode(raw, photo, model.description.nms_radius, max_keypoints)


def extract_patches(
    patch_model: PatchModel, raw: RawOutputs, photo: Photo, max_keypoints: int = MAX_KEYPOINTS
) -> Features:
    """Features of two networks: SIFT keypoints with the patch network's descriptors, and HF-Net's global descriptor.

    Keypoints whose patch leaves the image are not used (paper 002, section 5.1). Scores are the detector's responses.

    Args:
        raw: HF-Net's outputs for the photo.
    """
    image = photo.image
    found = detect_patches(image, max_keypoints)
    return Features(
        keypoints=photo.to_camera(found.xy),
        scores=found.scores,
        descriptors=patch_model(cut(image, found)),
        global_descriptor=quantize(raw.global_descriptor[None])[0],
        pixel=max(photo.scale),
    )
