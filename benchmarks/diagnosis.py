"""What limits the student: features with one thing changed at a time, its detector and descriptor swapped with those of
its teacher among them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from extractors import ANY_SCORE, KEYPOINTS, student
from feature_metrics import Local
from homography import SIZE

import hfnet_edge.image.keypoints
from hfnet_edge.image.keypoints import sample_descriptors
from hfnet_edge.map.codecs import UNIT
from hfnet_edge.networks.hfnet import Model
from hfnet_export.training.targets import sample
from hfnet_export.training.teachers import LocalTeacher

UPSCALED = (736, 960)  # holds the image at 1.5 times its size, in a multiple of 32
OWN = "student"


def variants(model: Model, upscaled: Model, teacher: LocalTeacher) -> Callable[[np.ndarray], dict[str, Local]]:
    """From an RGB image (480, 640, 3) to its features by name of what is changed.

    Args:
        model, upscaled: the student for inputs of 480x640 and of `UPSCALED`.
    """
    enlarged = student(upscaled)

    def run(image: np.ndarray) -> dict[str, Local]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        raw = model(grey)
        scores, maps = raw.scores(), raw.descriptor_maps
        (teacher_scores,), (teacher_dense,) = teacher(image[None])
        (grey_scores,), (grey_dense,) = teacher(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)[None])
        own, whole, theirs = keypoints(scores), keypoints(scores, refine=0), keypoints(teacher_scores)
        of_student = {
            OWN: own,
            "whole pixels": whole,
            "soft-argmax 3x3": keypoints(scores, refine=1),
            "soft-argmax 7x7": keypoints(scores, refine=3),
            "soft-argmax of the root": keypoints(np.sqrt(scores)),
            "soft-argmax of the square": keypoints(np.square(scores)),
            "quadratic fit": quadratic(scores, whole),
            **{f"NMS radius {r}": keypoints(scores, radius=r) for r in (2, 3, 6)},
            "blurred scores, sigma 0.7": keypoints(cv2.GaussianBlur(scores, (0, 0), 0.7)),
            "blurred scores, sigma 1.2": keypoints(cv2.GaussianBlur(scores, (0, 0), 1.2)),
            "teacher's keypoints": theirs,
        }
        of_teacher = {
            "teacher": theirs,
            "teacher: whole pixels": keypoints(teacher_scores, refine=0),
            "teacher: ALIKE's own soft-argmax": keypoints(np.exp(teacher_scores / 0.1)),  # a softmax, temperature 0.1
            "teacher: NMS radius 2": keypoints(teacher_scores, radius=2),
        }
        in_grey = keypoints(grey_scores)
        return {
            **{name: Local(xy, sample_descriptors(maps, xy) / UNIT) for name, xy in of_student.items()},
            "teacher's descriptors": Local(own, sample(teacher_dense, own, SIZE)),
            "image at 1.5 times its size": enlarged(image),
            **{name: Local(xy, sample(teacher_dense, xy, SIZE)) for name, xy in of_teacher.items()},
            "teacher: descriptors averaged to 1/4": Local(theirs, sample(averaged(teacher_dense, 4), theirs, SIZE)),
            "teacher: descriptors averaged to 1/8": Local(theirs, sample(averaged(teacher_dense, 8), theirs, SIZE)),
            "teacher: grey image": Local(in_grey, sample(grey_dense, in_grey, SIZE)),
        }

    return run


def keypoints(scores: np.ndarray, radius: int = 4, refine: int = hfnet_edge.image.keypoints.REFINE) -> np.ndarray:
    """(N, 2) by the runtime's decoder, with the soft-argmax over a window of radius ``refine``."""
    usual = hfnet_edge.image.keypoints.REFINE
    hfnet_edge.image.keypoints.REFINE = refine
    try:
        return hfnet_edge.image.keypoints.detect(scores, SIZE, KEYPOINTS, radius, ANY_SCORE)[0].astype(np.float64)
    finally:
        hfnet_edge.image.keypoints.REFINE = usual


def averaged(dense: np.ndarray, cell: int) -> np.ndarray:
    """A map (H, W, D) averaged over squares of ``cell`` pixels."""
    h, w, d = dense.shape
    return dense.reshape(h // cell, cell, w // cell, cell, d).mean(axis=(1, 3))


def quadratic(scores: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Keypoints in whole pixels, moved to the vertices of parabolas in x and y through the logarithm of the score."""
    x, y = (whole - 0.5).astype(int).T
    log = np.log(scores + 1e-6)
    moved = []
    for before, after in ((log[y, x - 1], log[y, x + 1]), (log[y - 1, x], log[y + 1, x])):
        bend = before + after - 2 * log[y, x]
        moved.append(np.where(bend < -1e-6, (before - after) / (2 * np.minimum(bend, -1e-6)), 0).clip(-0.5, 0.5))
    return whole + np.stack(moved, axis=1)
