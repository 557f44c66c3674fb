"""Pairs of reference images: what matches in them, and what of it agrees with the poses.

"i) we perform 2D-2D matching between reference frames using our features and an initial filtering ratio test; ii) the
matches are further filtered within COLMAP using two-view geometry" (HF-Net, section 5.3). Step ii uses the known poses
in place of estimated geometry: nothing can be more exact. Estimated geometry judges poses that are not so exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pycolmap

from hfnet_edge.methods.matching import nearest_two
from hfnet_maps.build.view import View

RATIO_PERCENT = 95  # of the second nearest's distance; loose, because the poses filter better than any ratio
MAX_EPIPOLAR = 3.0  # network pixels, in both images
MIN_MATCHES = 15  # verified matches of a pair, as in COLMAP: a few wrong ones always lie on the epipolar line
TRIALS = 30, 500  # of an essential matrix, at least and at most
SEED = 0
SAMPLE = 100  # pairs whose agreement with the poses is judged, ...
SURE = 50  # ... where so many matches fit one geometry, ...
CLOSE = 1.0  # ... by how many are within so many network pixels: drift over a short baseline is no more


Matches = dict[tuple[int, int], np.ndarray]
"""(P, 2) int64 rows of keypoints, by the two images."""


def match_descriptors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mutual nearest neighbours that pass the ratio test in both directions; equals by lower index.

    Args:
        a: (N, D) int8. b: (K, D) int8.

    Returns:
        (P, 2) int64 rows of a and b, in order of a.
    """
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), np.int64)
    nearest, _, d1, d2 = nearest_two(a, b)
    rows = np.flatnonzero(_distinct(d1, d2))
    if not len(rows):
        return np.zeros((0, 2), np.int64)
    columns = np.unique(nearest[rows])  # only these can be mutual: a tenth of the work of the other direction
    back, _, d1, d2 = nearest_two(b[columns], a)
    at = np.searchsorted(columns, nearest[rows])
    mutual = (back[at] == rows) & _distinct(d1, d2)[at]
    return np.stack([rows[mutual], nearest[rows[mutual]]], axis=1)


def _distinct(d1: np.ndarray, d2: np.ndarray) -> np.ndarray:
    """The ratio test on squared distances."""
    return d1 * 100**2 < d2 * RATIO_PERCENT**2


def agree_with_poses(a: View, b: View, matches: np.ndarray, max_epipolar: float = MAX_EPIPOLAR) -> np.ndarray:
    """(P,) bool: both keypoints within ``max_epipolar`` of the other's epipolar line, the point before both cameras.

    Args:
        matches: (P, 2) int64 rows of the views' keypoints.
    """
    rotation = b.pose.rotation @ a.pose.rotation.T
    translation = b.pose.translation - rotation @ a.pose.translation
    tx, ty, tz = translation
    essential = np.array([[0, -tz, ty], [tz, 0, -tx], [-ty, tx, 0]]) @ rotation
    ones = np.ones((len(matches), 1))
    ray_a = np.hstack([a.xy[matches[:, 0]] / a.focal, ones])
    ray_b = np.hstack([b.xy[matches[:, 1]] / b.focal, ones])
    line_b, line_a = ray_a @ essential.T, ray_b @ essential
    off = np.abs((ray_b * line_b).sum(axis=1))
    # A line (l0, l1, l2) on normalised coordinates is (l0 / fx, l1 / fy, l2) on pixels.
    with np.errstate(divide="ignore", invalid="ignore"):
        distance_a = off / np.linalg.norm(line_a[:, :2] / a.focal, axis=1)
        distance_b = off / np.linalg.norm(line_b[:, :2] / b.focal, axis=1)
    # Depths of the point where the rays pass nearest: depth_b * ray_b = depth_a * turned + translation.
    turned = ray_a @ rotation.T
    aa, bb, ab = (turned**2).sum(axis=1), (ray_b**2).sum(axis=1), (turned * ray_b).sum(axis=1)
    at, bt = turned @ translation, ray_b @ translation
    in_front = (ab * bt - bb * at > 0) & (aa * bt - ab * at > 0)  # both over aa * bb - ab**2, which is positive
    return (distance_a < max_epipolar) & (distance_b < max_epipolar) & in_front


def agree_with_each_other(a: View, b: View, matches: np.ndarray) -> np.ndarray:
    """(P,) bool: within `MAX_EPIPOLAR` of the one two-view geometry that most matches fit; the poses do not matter.

    Args:
        matches: (P, 2) int64 rows of the views' keypoints.
    """
    if len(matches) < MIN_MATCHES:
        return np.zeros(len(matches), bool)
    found = pycolmap.estimate_essential_matrix(
        a.xy[matches[:, 0]],
        b.xy[matches[:, 1]],
        *(pycolmap.Camera(model="PINHOLE", width=1, height=1, params=[*view.focal, 0, 0]) for view in (a, b)),
        pycolmap.RANSACOptions(
            max_error=MAX_EPIPOLAR, min_num_trials=TRIALS[0], max_num_trials=TRIALS[1], random_seed=SEED
        ),
    )
    return np.zeros(len(matches), bool) if found is None else found["inlier_mask"]


def verify(
    views: Sequence[View], matches: Matches, agree: Callable[[View, View, np.ndarray], np.ndarray] = agree_with_poses
) -> Matches:
    """The matches that agree, of the pairs that keep `MIN_MATCHES`."""
    verified = {(i, j): rows[agree(views[i], views[j], rows)] for (i, j), rows in matches.items()}
    return {pair: rows for pair, rows in verified.items() if len(rows) >= MIN_MATCHES}


def agreement(views: Sequence[View], matches: Matches) -> float:
    """How many matches are `CLOSE` to where the poses put them, as a share of those that fit some geometry of their two
    views: the median over the pairs of a sample. NaN where no pair has `SURE` of them."""
    pairs = list(matches)
    sample = {pairs[k]: matches[pairs[k]] for k in np.linspace(0, len(pairs) - 1, min(SAMPLE, len(pairs))).astype(int)}
    fitting = verify(views, sample, agree_with_each_other)
    shares = [
        agree_with_poses(views[i], views[j], rows, CLOSE).mean()
        for (i, j), rows in fitting.items()
        if len(rows) >= SURE
    ]
    return float(np.median(shares)) if shares else float("nan")
