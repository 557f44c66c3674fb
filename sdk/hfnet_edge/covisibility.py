"""Covisibility clustering: prior frames that see common landmarks form a place (HF-Net, section 3)."""

from __future__ import annotations

import numpy as np

from hfnet_edge.map_file import LocalizationMap


def cluster(m: LocalizationMap, prior_frames: np.ndarray) -> list[np.ndarray]:
    """Connected components of the prior frames in the covisibility graph.

    Args:
        prior_frames: (K,) indices of reference images, most similar first.

    Returns:
        Places, each an array of reference images in their order in ``prior_frames``; larger places first, equals by
        their best-ranked image.
    """
    observed = [m.observation_landmarks[m.observations(int(image))] for image in prior_frames]
    landmarks = np.concatenate([*observed, np.zeros(0, np.uint32)])
    frames = np.repeat(np.arange(len(prior_frames)), [len(ids) for ids in observed])
    order = np.argsort(landmarks, kind="stable")
    same = landmarks[order][1:] == landmarks[order][:-1]
    pairs = np.unique(np.stack([frames[order][:-1][same], frames[order][1:][same]], axis=1), axis=0)
    label = np.arange(len(prior_frames))
    for a, b in pairs:
        label[label == max(label[a], label[b])] = min(label[a], label[b])
    places = [prior_frames[label == first] for first in np.unique(label)]
    return sorted(places, key=len, reverse=True)  # stable: equals keep the order of their best-ranked image
