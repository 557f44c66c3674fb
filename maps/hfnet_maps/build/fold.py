"""Parts of a place that were reconstructed apart become one, by the photos that they share.

    models of parts ─> a similarity of each two that share photos ─> a tree of the surest ─> all of them at once

Each part has a frame and a scale of its own. What is fitted is one similarity a part; inside they stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np

from hfnet_edge.geometry import Pose
from hfnet_maps.evaluation.alignment import LEAST, Similarity

TURNED = 5.0  # degrees between the rotations of a photo in two parts, at most, where it agrees
OFF = 0.2  # of how far the shared photos lie apart, that one is off at most, where it agrees
HOLDING = 0.5  # of the photos that two parts share, those that agree on how the parts lie
STEPS = 20  # of weighing anew


@dataclass(frozen=True)
class Part:
    """A model of some of the photos.

    Attributes:
        poses: cam_from_part by row of the photos.
        depth: at which its points are seen, median, in its unit.
    """

    poses: dict[int, Pose]
    depth: float


@dataclass(frozen=True)
class Folded:
    """Parts that hold together.

    Attributes:
        parts: their rows, the one whose frame this is first.
        frames: from each part to that frame.
        off: (N,) what each shared photo is off between two parts, in the unit of the first.
    """

    parts: tuple[int, ...]
    frames: tuple[Similarity, ...]
    off: np.ndarray


def fold(parts: Sequence[Part]) -> list[Folded]:
    """Groups of parts that hold together by shared photos, that of most photos first."""
    links = {}
    for a, b in combinations(range(len(parts)), 2):
        link = _link(parts[a], parts[b])
        if link is not None:
            links[a, b] = link
    left, groups = set(range(len(parts))), []
    while left:
        root = min(left, key=lambda k: (-len(parts[k].poses), k))
        frames = _tree(root, links)
        left -= frames.keys()
        groups.append(_together(parts, frames, {ab: link for ab, link in links.items() if ab[0] in frames}))
    return sorted(groups, key=lambda g: -len({photo for k in g.parts for photo in parts[k].poses}))


@dataclass(frozen=True)
class _Link:
    """From part b to part a, and the photos that agree on it."""

    a_from_b: Similarity
    photos: tuple[int, ...]


def _link(a: Part, b: Part) -> _Link | None:
    """How two parts lie to each other; None where too little says it, or speaks against."""
    shared = sorted(a.poses.keys() & b.poses.keys())
    if len(shared) < LEAST:
        return None
    in_a, in_b = [a.poses[i] for i in shared], [b.poses[i] for i in shared]
    found = _fitted(in_b, in_a)
    if found is None:
        return None
    centers = np.stack([pose.center for pose in in_a])
    off = np.linalg.norm(found.points(np.stack([pose.center for pose in in_b])) - centers, axis=1)
    turned = np.array([_angle(x, found.pose(y)) for x, y in zip(in_a, in_b, strict=True)])
    spread = float(np.linalg.norm(centers - np.median(centers, axis=0), axis=1).mean())
    agree = (off <= OFF * spread) & (turned <= TURNED)
    if agree.sum() < max(LEAST, HOLDING * len(shared)):
        return None
    return _Link(found, tuple(photo for photo, kept in zip(shared, agree, strict=True) if kept))


def _fitted(source: Sequence[Pose], target: Sequence[Pose]) -> Similarity | None:
    """Brings poses nearest to others, by least absolute errors. Cameras of a border stand nearly in a line, so that
    their rotations say best how the parts are turned, and their positions the rest. None: they stand in one spot."""
    turns = np.stack([t.rotation.T @ s.rotation for s, t in zip(source, target, strict=True)])
    weights = np.ones(len(turns))
    for _ in range(STEPS):
        u, _, vt = np.linalg.svd((weights[:, None, None] * turns).sum(axis=0))
        turn = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        weights = 1 / np.maximum(np.linalg.norm(turns - turn, axis=(1, 2)), 1e-9)
    a, b = (np.stack([pose.center for pose in poses]) for poses in (source, target))
    a, weights = a @ turn.T, np.ones(len(a))
    for _ in range(STEPS):
        w = weights / weights.sum()
        middle_a, middle_b = w @ a, w @ b
        spread = float(w @ np.square(a - middle_a).sum(axis=1))
        if not spread > 0:
            return None
        scale = float(w @ ((a - middle_a) * (b - middle_b)).sum(axis=1)) / spread
        shift = middle_b - scale * middle_a
        off = np.linalg.norm(scale * a + shift - b, axis=1)
        weights = 1 / np.maximum(off, 1e-9 * max(1.0, float(np.abs(b).max())))
    return Similarity(scale, turn, shift, len(source)) if scale > 0 else None


def _tree(root: int, links: dict[tuple[int, int], _Link]) -> dict[int, Similarity]:
    """From each part that is linked to the root to its frame, along the links of most photos."""
    frames = {root: Similarity(1.0, np.eye(3), np.zeros(3), 0)}
    while True:
        leading = [(len(link.photos), ab) for ab, link in links.items() if (ab[0] in frames) != (ab[1] in frames)]
        if not leading:
            return frames
        a, b = max(leading, key=lambda one: (one[0], -one[1][0], -one[1][1]))[1]
        found = links[a, b].a_from_b
        if a in frames:
            frames[b] = frames[a].after(found)
        else:
            frames[a] = frames[b].after(found.inverse)


def _together(parts: Sequence[Part], frames: dict[int, Similarity], links: dict[tuple[int, int], _Link]) -> Folded:
    """All frames but the first adjusted at once, so that shared photos agree; few wrong ones pull little."""
    order = list(frames)
    row = {k: at for at, k in enumerate(order)}
    a, b = (np.array([row[ab[end]] for ab, link in links.items() for _ in link.photos], np.int64) for end in (0, 1))
    if not len(a):
        return Folded((order[0],), (frames[order[0]],), np.zeros(0))
    ends = []  # where each shared photo is by both parts, and how it is turned, in the frame as far as that is known
    for end in (0, 1):
        poses = [frames[ab[end]].pose(parts[ab[end]].poses[i]) for ab, link in links.items() for i in link.photos]
        ends.append((np.stack([pose.center for pose in poses]), np.stack([pose.rotation for pose in poses])))
    middles = np.zeros((len(order), 3))
    for at in range(len(order)):
        middles[at] = np.concatenate([ends[0][0][a == at], ends[1][0][b == at]]).mean(axis=0)
    depths = np.array([frames[k].scale * parts[k].depth for k in order])
    unit = float(np.median(depths))

    def residuals(x: np.ndarray) -> np.ndarray:
        """(N, 6): of positions, and of what a turn moves at the depth of the points."""
        changes = _changes(x, unit)
        at_a, at_b = ((rows, *changes, middles) for rows in (a, b))
        between = np.einsum("nij,nkj->nik", _turned(ends[0][1], *at_a[:3]), _turned(ends[1][1], *at_b[:3]))
        skew = between - np.swapaxes(between, 1, 2)
        turned = np.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], axis=1) / 2
        return np.concatenate([_moved(ends[0][0], *at_a) - _moved(ends[1][0], *at_b), depths[a, None] * turned], axis=1)

    start = np.zeros(7 * (len(order) - 1))
    size = max(float(np.median(np.abs(residuals(start)))), 1e-9 * unit)
    found = _solved(lambda x: residuals(x).ravel() / size, start, a, b, len(order))
    solved = []
    for k, scale, turn, shift, middle in zip(order, *_changes(found, unit), middles, strict=True):
        change = Similarity(float(scale), turn, middle + shift - scale * turn @ middle, 0)
        solved.append(change.after(frames[k]))
    return Folded(tuple(order), tuple(solved), np.linalg.norm(residuals(found)[:, :3], axis=1))


def _changes(x: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each part scale, rotation (3, 3) and shift about its middle; the first keeps its frame."""
    rows = x.reshape(-1, 7)
    turns = [np.eye(3), *(cv2.Rodrigues(row[1:4])[0] for row in rows)]
    shifts = np.concatenate([np.zeros((1, 3)), unit * rows[:, 4:]])
    return np.exp(np.concatenate([[0.0], rows[:, 0]])), np.stack(turns), shifts


def _moved(points, rows, scales, turns, shifts, middles) -> np.ndarray:
    away = points - middles[rows]
    return scales[rows, None] * np.einsum("nij,nj->ni", turns[rows], away) + middles[rows] + shifts[rows]


def _turned(rotations, rows, scales, turns) -> np.ndarray:
    """(N, 3, 3) of cameras whose world is turned."""
    return np.einsum("nij,nkj->nik", rotations, turns[rows])


def _solved(residuals, start: np.ndarray, a: np.ndarray, b: np.ndarray, parts: int) -> np.ndarray:
    """Least squares under a soft L1 loss; each residual depends on two parts."""
    from scipy.optimize import least_squares
    from scipy.sparse import csr_matrix

    rows, columns = [], []
    for end in (a, b):
        of = np.flatnonzero(end > 0)
        grid = np.broadcast_arrays(
            6 * of[:, None, None] + np.arange(6)[:, None], 7 * (end[of, None, None] - 1) + np.arange(7)
        )
        rows.append(grid[0].ravel())
        columns.append(grid[1].ravel())
    at = np.concatenate(rows), np.concatenate(columns)
    pattern = csr_matrix((np.ones(len(at[0]), np.int8), at), shape=(6 * len(a), 7 * (parts - 1)))
    return least_squares(residuals, start, jac_sparsity=pattern, loss="soft_l1", max_nfev=STEPS).x


def _angle(a: Pose, b: Pose) -> float:
    """Degrees between two rotations."""
    return float(np.degrees(np.arccos(np.clip((np.trace(a.rotation @ b.rotation.T) - 1) / 2, -1, 1))))
