"""How good local features are on two images related by a homography: the metrics of HF-Net's appendix B.1, which are
SuperPoint's, and the mean matching accuracy of D2-Net. Pixel centres at (0.5, 0.5); all are symmetric in the images."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

EPSILON = 3.0  # pixels within which a keypoint is correct
CORNER_ERRORS = (1.0, 3.0, 5.0)


@dataclass(frozen=True)
class Local:
    """Local features of one image: ``xy`` (N, 2) pixels, ``descriptors`` (N, D) of unit length."""

    xy: np.ndarray
    descriptors: np.ndarray


@dataclass(frozen=True)
class View:
    """The N keypoints of one image against the M of the other.

    Attributes:
        distance: (N, M) pixels of the other image, from each keypoint's reprojection to each keypoint there.
        visible: (N,) whether the reprojection lies inside the other image.
        nearest: (N,) index of the nearest neighbour by descriptor; similarity (N,) is their dot product.
    """

    distance: np.ndarray
    visible: np.ndarray
    nearest: np.ndarray
    similarity: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """(N,) whether some keypoint lies within epsilon of the reprojection."""
        return self.distance.min(axis=1) <= EPSILON

    @property
    def matched(self) -> np.ndarray:
        """(N,) whether the nearest neighbour by descriptor lies within epsilon of the reprojection."""
        return np.take_along_axis(self.distance, self.nearest[:, None], axis=1)[:, 0] <= EPSILON


Views = tuple[View, View]


def views(first: Local, second: Local, homography: np.ndarray, size: tuple[int, int]) -> Views:
    """Both directions of a pair; ``homography`` takes pixels of the first image to the second, ``size`` (height, width)
    is that of both. Neither may be without keypoints."""
    similarity = first.descriptors.astype(np.float32) @ second.descriptors.astype(np.float32).T
    directions = ((first, second, homography, similarity), (second, first, np.linalg.inv(homography), similarity.T))
    return tuple(_view(*d, size) for d in directions)  # type: ignore[return-value]


def _view(one: Local, other: Local, homography: np.ndarray, similarity: np.ndarray, size: tuple[int, int]) -> View:
    there = project(one.xy, homography)
    visible = ((there >= 0) & (there <= size[::-1])).all(axis=1)
    nearest = similarity.argmax(axis=1)
    distance = np.sqrt(sum((there[:, None, k] - other.xy[None, :, k]) ** 2 for k in range(2)))
    return View(distance, visible, nearest, similarity[np.arange(len(nearest)), nearest])


def project(xy: np.ndarray, homography: np.ndarray) -> np.ndarray:
    """(N, 2) through a homography (3, 3); what lies behind the camera goes to infinity."""
    x = xy @ homography[:, :2].T + homography[:, 2]
    return np.where(x[:, 2:] > 0, x[:, :2] / np.where(x[:, 2:] > 0, x[:, 2:], 1), np.inf)


def repeatability(pair: Views) -> float:
    """Share of the keypoints visible in the other image that are correct there; both images' pooled."""
    return _ratio(sum((v.correct & v.visible).sum() for v in pair), sum(v.visible.sum() for v in pair))


def localization_error(pair: Views) -> float:
    """Mean distance in pixels of the repeated keypoints to the nearest keypoint; NaN where none is repeated."""
    repeated = np.concatenate([v.distance.min(axis=1)[v.correct & v.visible] for v in pair])
    return float(repeated.mean()) if len(repeated) else np.nan


def matching_score(pair: Views) -> float:
    """Share of the visible keypoints whose nearest neighbour by descriptor is correct; mean of both directions."""
    return float(np.mean([_ratio((v.matched & v.visible).sum(), v.visible.sum()) for v in pair]))


def average_precision(pair: Views) -> float:
    """Area under precision over recall as the threshold on descriptor distance is raised; mean of both directions.

    Every keypoint has its nearest neighbour for a match. Recall is over the keypoints that have a correct one to find,
    precision is made monotonous from the right. The mean over pairs is the mAP.
    """
    return float(np.mean([_area(v.matched, v.similarity, int(v.correct.sum())) for v in pair]))


def _area(right: np.ndarray, similarity: np.ndarray, possible: int) -> float:
    right = right[np.argsort(-similarity, kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return _ratio(precision[right].sum(), possible)  # recall grows by 1 / possible with each right match


def mutual_matches(pair: Views) -> np.ndarray:
    """(K, 2) indices of the keypoints that are each other's nearest neighbour by descriptor."""
    first = np.arange(len(pair[0].nearest))
    mutual = pair[1].nearest[pair[0].nearest] == first
    return np.stack([first[mutual], pair[0].nearest[mutual]], axis=1)


def matching_accuracy(pair: Views) -> float:
    """Share of the mutual nearest neighbours that lie within epsilon in the second image (D2-Net). The mean over pairs
    is the mean matching accuracy."""
    i, j = mutual_matches(pair).T
    return _ratio((pair[0].distance[i, j] <= EPSILON).sum(), len(i))


def corner_error(first: Local, second: Local, pair: Views, homography: np.ndarray, size: tuple[int, int]) -> float:
    """Mean distance in pixels of the first image's corners through the homography that RANSAC finds from mutual nearest
    neighbours, and through the true one; infinite where it finds none."""
    i, j = mutual_matches(pair).T
    if len(i) < 4:
        return np.inf
    cv2.setRNGSeed(0)
    found, _ = cv2.findHomography(first.xy[i], second.xy[j], cv2.RANSAC, 3.0, maxIters=5000, confidence=0.9999)
    if found is None:
        return np.inf
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size[::-1]
    error = np.linalg.norm(project(corners, found) - project(corners, homography), axis=1).mean()
    return float(error) if np.isfinite(error) else np.inf


def evaluate(first: Local, second: Local, homography: np.ndarray, size: tuple[int, int]) -> dict[str, float]:
    """All metrics of one pair. An image without keypoints scores zero."""
    if min(len(first.xy), len(second.xy)) == 0:
        return dict.fromkeys(("repeatability", "matching accuracy", "matching score", "mAP"), 0.0) | {
            "localization error": np.nan, **{f"homography @{e:g}": 0.0 for e in CORNER_ERRORS}
        }  # fmt: skip
    pair = views(first, second, homography, size)
    error = corner_error(first, second, pair, homography, size)
    return {
        "repeatability": repeatability(pair),
        "localization error": localization_error(pair),
        "matching accuracy": matching_accuracy(pair),
        "matching score": matching_score(pair),
        "mAP": average_precision(pair),
        **{f"homography @{e:g}": float(error <= e) for e in CORNER_ERRORS},
    }


def bootstrap_ratio(a: np.ndarray, b: np.ndarray, rounds: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of ``a`` over mean of ``b``, both (pairs,) on the same pairs, NaNs left out, and its 95 % interval when the
    pairs are drawn anew."""
    picked = np.random.default_rng(seed).integers(len(a), size=(rounds, len(a)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nanmean(a[picked], axis=1) / np.nanmean(b[picked], axis=1)
        low, high = np.nanpercentile(ratios, [2.5, 97.5], method="nearest")
        return float(np.nanmean(a) / np.nanmean(b)), float(low), float(high)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
