"""Parts of a place become one by the photos that they share, and those that share nothing stay apart."""

from __future__ import annotations

import numpy as np
import pytest

from hfnet_edge.geometry import Pose
from hfnet_maps.build.fold import Part, fold
from hfnet_maps.evaluation.alignment import Similarity
from synthetic import looking_at


def ring(count=40):
    """Poses of a walk around a square, looking outwards."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    centers = np.stack([10 * np.cos(turn), 8 * np.sin(turn), 0.3 * np.sin(3 * turn)], axis=1)
    return [looking_at(c, c * (2, 2, 1) + (0, 0, 0.1 * i % 1)) for i, c in enumerate(centers)]


def similarity(rng) -> Similarity:
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return Similarity(float(rng.uniform(0.3, 3)), turn * np.sign(np.linalg.det(turn)), rng.normal(0, 20, 3), 0)


def part_of(poses, rows, rng, noise=0.0) -> Part:
    frame = similarity(rng)
    moved = {}
    for i in rows:
        pose = frame.pose(poses[i])
        moved[i] = Pose(pose.quaternion, pose.translation + rng.normal(0, noise * frame.scale, 3))
    return Part(moved, 5.0 * frame.scale)


def test_parts_in_frames_of_their_own_become_one():
    rng, poses = np.random.default_rng(0), ring()
    rows = [[i % 40 for i in range(start, start + 14)] for start in range(0, 40, 10)]
    parts = [part_of(poses, own, rng) for own in rows]
    (group,) = fold(parts)
    assert sorted(group.parts) == [0, 1, 2, 3] and group.off.max() < 1e-6 * parts[group.parts[0]].depth
    placed = {}
    for k, frame in zip(group.parts, group.frames, strict=True):
        placed |= {i: frame.pose(pose) for i, pose in parts[k].poses.items()}
    assert len(placed) == 40
    root = parts[group.parts[0]]
    scale = root.depth / 5
    apart = [np.linalg.norm(placed[i].center - placed[(i + 20) % 40].center) / scale for i in range(40)]
    true = [np.linalg.norm(poses[i].center - poses[(i + 20) % 40].center) for i in range(40)]
    assert apart == pytest.approx(true, rel=1e-6)


def test_a_ring_closes_better_at_once_than_along_a_tree():
    """Errors of each part's ends spread, where along the tree they pile up at the last link."""
    rng, poses = np.random.default_rng(1), ring()
    rows = [[i % 40 for i in range(start, start + 14)] for start in range(0, 40, 10)]
    parts = [part_of(poses, own, rng, noise=0.02) for own in rows]
    (group,) = fold(parts)
    scale = parts[group.parts[0]].depth / 5
    by_part = dict(zip(group.parts, group.frames, strict=True))
    ends = []
    for a, b in ((0, 1), (1, 2), (2, 3), (3, 0)):
        shared = parts[a].poses.keys() & parts[b].poses.keys()
        gaps = [by_part[a].pose(parts[a].poses[i]).center - by_part[b].pose(parts[b].poses[i]).center for i in shared]
        ends.append(np.median(np.linalg.norm(gaps, axis=1)) / scale)
    assert max(ends) < 0.1, "no link is torn"


def test_a_part_that_contradicts_or_shares_too_little_stays_apart():
    rng, poses = np.random.default_rng(2), ring()
    a, b = part_of(poses, range(0, 20), rng), part_of(poses, range(14, 34), rng)
    strange = Part({i: looking_at(rng.normal(0, 9, 3), rng.normal(0, 9, 3)) for i in range(2, 12)}, 5.0)
    two = part_of(poses, [32, 33, 34, 35], rng)
    groups = fold([a, b, strange, two])
    assert [sorted(group.parts) for group in groups] == [[0, 1], [2], [3]]
