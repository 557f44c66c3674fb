"""Grows random trees over the bits of a map's local descriptors (paper 002, section 3.2.3, after Feng et al. 2015).

A node tests one bit. Which one is learned from the map's tracks: of some bits drawn at random, so that the trees
differ, the one that tells most about which landmark an observation is of. Observations of one landmark then fall into
one leaf, and landmarks spread over all leaves.

A value near zero is a bit that the next photograph may turn. So a bit counts as the probability that it is one, by the
normal model of equation (6), and a test that cuts through the values of a landmark tells little about it.

All nodes of a level are tested at once. Reading and walking the trees: `hfnet_edge.map.random_trees`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import erfc, log2, sqrt

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.map.container import Section
from hfnet_edge.map.random_trees import LEAF, MAX_DEPTH, MAX_DIMS, MAX_NODES, TREES
from hfnet_edge.shell.console import Report, silent

TREE_COUNT = 6
FEW = 16  # landmarks: a node of no more is a leaf
CANDIDATES = 16  # bits that a node chooses from
SAMPLES = 100_000  # pairs of observations that the perturbation is estimated from
COST_STEPS = 1024  # of a cost, to a bit of information
MAX_COST = 65535
BLOCK = 1 << 17  # observations that are scored at a time


@dataclass(frozen=True)
class Perturbation:
    """What another view does to a component of a descriptor: it adds a normal variable (equation 6).

    Attributes:
        mu, sigma: in units of the int8 descriptor, the same for all components.
    """

    mu: float
    sigma: float

    @staticmethod
    def of(descriptors: np.ndarray, landmarks: np.ndarray) -> Perturbation:
        """That of neighbouring observations of a landmark, `SAMPLES` of them at regular steps.

        The paper averages over ten components drawn at random, this over all. Sigma is at least 1, a step of int8; that
        is also what a map without tracks gets.

        Args:
            descriptors: (O, D) int8. landmarks: (O,) int64, increasing.
        """
        pairs = np.flatnonzero(landmarks[1:] == landmarks[:-1])
        if not len(pairs):
            return Perturbation(0.0, 1.0)
        pairs = pairs[:: -(-len(pairs) // SAMPLES)]
        change = descriptors[pairs + 1].astype(np.float32) - descriptors[pairs]
        mu, sigma = (f(change, axis=0, dtype=np.float64).mean() for f in (np.mean, np.std))
        return Perturbation(float(mu), max(float(sigma), 1.0))

    def probabilities(self) -> np.ndarray:
        """(2, 256) float64: that another view's bit is 0, and that it is 1, by int8 value in the order of its byte."""
        values = np.arange(256, dtype=np.uint8).view(np.int8)
        z = [(float(value) + self.mu) / (self.sigma * sqrt(2)) for value in values]
        return np.array([[0.5 * erfc(sign * v) for v in z] for sign in (1, -1)])

    def costs(self) -> np.ndarray:
        """TREE_COSTS, (2, 256) uint16: minus the binary logarithm of `probabilities` in steps of 1 / `COST_STEPS`."""
        cost = [[-log2(max(p, 2.0**-1000)) * COST_STEPS for p in row] for row in self.probabilities()]
        return np.minimum(np.rint(cost), MAX_COST).astype("<u2")


def tree_sections(
    descriptors: np.ndarray,
    landmarks: np.ndarray,
    landmark_count: int,
    weights_hash: str,
    seed: int = 0,
    progress: Report = silent,
) -> dict[Section, np.ndarray | bytes]:
    """The sections of a map file that hold its random trees.

    Args:
        descriptors: (O, D) int8, of all observations; a value that was negative is below 0.
        landmarks: (O,) int64, the landmark of each. One without observations is in no leaf.
        weights_hash: of the network of the descriptors.

    Raises:
        InputError: descriptors of more dimensions than a node can name, or landmarks that the map does not have.
    """
    dims = descriptors.shape[1]
    if not 1 <= dims <= MAX_DIMS:
        raise InputError(
            f"random trees over descriptors of {dims} dimensions; {MAX_DIMS} are possible", "use a patch network"
        )
    if len(landmarks) and not 0 <= landmarks.min() <= landmarks.max() < landmark_count:
        raise InputError(
            f"observations of landmarks that are not among the map's {landmark_count}", "give all landmarks"
        )
    order = np.argsort(landmarks, kind="stable")
    descriptors, landmarks = np.ascontiguousarray(descriptors[order]), np.asarray(landmarks, np.int64)[order]
    perturbation = Perturbation.of(descriptors, landmarks)
    soft = perturbation.probabilities()[1].astype(np.float32)
    trees = []
    for tree in range(TREE_COUNT):
        rng = np.random.default_rng((seed, tree))

        def report(level: int, tree: int = tree) -> None:
            progress("growing trees", tree * MAX_DEPTH + level, TREE_COUNT * MAX_DEPTH)

        trees.append(_grow(descriptors, landmarks, soft, rng, report))
        report(MAX_DEPTH)
    return _packed(trees, landmark_count, dims, weights_hash, perturbation)


@dataclass(frozen=True)
class _Tree:
    """One tree, depth first: a node's first child is the next node.

    Attributes:
        tests: (N,) uint8. second: (N,) int64 second child, -1: a leaf.
        leaves, landmarks: (E,) int64 each: which leaf, counted from 0, and a landmark in it; in order of both.
        depth: edges from the root to the deepest leaf.
    """

    tests: np.ndarray
    second: np.ndarray
    leaves: np.ndarray
    landmarks: np.ndarray
    depth: int


def _grow(
    descriptors: np.ndarray,
    landmarks: np.ndarray,
    soft: np.ndarray,
    rng: np.random.Generator,
    report: Callable[[int], None],
) -> _Tree:
    """Splits level by level.

    Args:
        descriptors: (O, D) int8. landmarks: (O,) int64, not falling.
        soft: (256,) float32 probability of bit 1 by the byte of a value.
        report: is told each level.
    """
    rows = np.arange(len(landmarks))  # observations in nodes that may be split, by node, then by landmark
    node = np.zeros(len(landmarks), np.int64)  # of each, among the level's nodes
    resting: list[tuple[int, np.ndarray, np.ndarray]] = []  # level, node and observation, of those in leaves
    levels: list[tuple[np.ndarray, np.ndarray]] = []  # test, first child on the next level (-1: leaf), of each node
    count = 1
    for level in range(MAX_DEPTH + 1):
        report(level)
        test = np.full(count, -1)
        if level < MAX_DEPTH:
            split = np.flatnonzero(_landmarks_of(node, landmarks[rows], count) > FEW)
            chosen = np.isin(node, split)
            best = _best_tests(descriptors, landmarks, soft, rows[chosen], np.searchsorted(split, node[chosen]), rng)
            test[split] = best
        first_child = np.where(test >= 0, 2 * np.cumsum(test >= 0) - 2, -1)
        levels.append((test, first_child))
        inner = test[node] >= 0
        resting.append((level, node[~inner], rows[~inner]))
        rows, node = rows[inner], node[inner]
        if not len(rows):
            break
        node = first_child[node] + (descriptors[rows, test[node]] >= 0)
        order = np.argsort(node, kind="stable")
        rows, node = rows[order], node[order]
        count = 2 * int((test >= 0).sum())
    return _depth_first(levels, resting, landmarks)


def _landmarks_of(node: np.ndarray, landmarks: np.ndarray, count: int) -> np.ndarray:
    """(count,) landmarks of each node, from its observations in order of node and landmark."""
    return np.bincount(node[_starts(node, landmarks)], minlength=count)


def _starts(*keys: np.ndarray) -> np.ndarray:
    """Where a run of equal keys begins."""
    new = np.zeros(len(keys[0]), bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)


def _best_tests(
    descriptors: np.ndarray,
    landmarks: np.ndarray,
    soft: np.ndarray,
    rows: np.ndarray,
    node: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """The bit that each node tests: of its candidates the one with the largest mutual information between the bit and
    the landmark.

    All landmarks of a node count alike, however often they were observed: H(mean of p) - mean of H(p) over landmarks,
    where p is the mean of ``soft`` over a landmark's observations in the node.

    Args:
        rows: (R,) observations in order of node and landmark. node: (R,) int64 of each, no number left out.

    Returns:
        (nodes,) int64, -1 where no candidate separates anything.
    """
    count = int(node[-1]) + 1 if len(node) else 0
    candidates = rng.integers(descriptors.shape[1], size=(count, CANDIDATES))
    each = _starts(node, landmarks[rows])  # a landmark in a node
    sums = np.zeros((3, count, CANDIDATES))  # of p, of its entropy, of hard ones: over landmarks
    ends = np.append(each, len(rows))
    at = 0
    while at < len(each):
        to = max(at + 1, int(np.searchsorted(ends, ends[at] + BLOCK, side="right")) - 1)
        part = slice(ends[at], ends[to])
        local = each[at:to] - ends[at]
        number = np.diff(ends[at : to + 1])[:, None]
        values = descriptors[rows[part][:, None], candidates[node[part]]]
        p = np.add.reduceat(soft[values.view(np.uint8)], local, axis=0) / number
        ones = np.add.reduceat((values >= 0).astype(np.float32), local, axis=0) / number
        owner = node[each[at:to]]
        own = _starts(owner)
        for total, term in zip(sums, (p, _entropy(p), ones), strict=True):
            total[owner[own]] += np.add.reduceat(term, own, axis=0)
        at = to
    number = np.bincount(node[each], minlength=count)[:, None]
    mean, undecided, ones = sums / number
    score = np.where((ones > 0) & (ones < 1), _entropy(mean) - undecided, -1)
    best = score.argmax(axis=1)
    every = np.arange(count)
    return np.where(score[every, best] > 0, candidates[every, best], -1)


def _entropy(p: np.ndarray) -> np.ndarray:
    """Of a bit that is one with probability p, in bits."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def _depth_first(
    levels: list[tuple[np.ndarray, np.ndarray]],
    resting: list[tuple[int, np.ndarray, np.ndarray]],
    landmarks: np.ndarray,
) -> _Tree:
    """Numbers the nodes so that the first child of a node is the next one. Args as in `_grow`."""
    sizes: list[np.ndarray] = []  # nodes of the subtree, by level from the last
    for test, first in reversed(levels):
        size, inner = np.ones(len(test), np.int64), first >= 0
        if sizes:
            size[inner] += sizes[-1][first[inner]] + sizes[-1][first[inner] + 1]
        sizes.append(size)
    sizes.reverse()
    total = int(sizes[0][0])
    tests, second = np.zeros(total, np.uint8), np.full(total, -1)
    places = [np.zeros(1, np.int64)]
    for level, (test, first) in enumerate(levels):
        place, inner = places[-1], first >= 0
        tests[place[inner]] = test[inner]
        if inner.any():
            below = np.zeros(len(sizes[level + 1]), np.int64)
            below[first[inner]] = place[inner] + 1
            below[first[inner] + 1] = place[inner] + 1 + sizes[level + 1][first[inner]]
            second[place[inner]] = below[first[inner] + 1]
            places.append(below)
    number = np.cumsum(second < 0) - 1
    leaf = np.concatenate([number[places[level][node]] for level, node, _ in resting])
    landmark = landmarks[np.concatenate([rows for _, _, rows in resting])]
    pairs = np.unique(leaf << 32 | landmark)
    return _Tree(tests, second, pairs >> 32, pairs & 0xFFFFFFFF, len(levels) - 1)


def _packed(
    trees: list[_Tree], landmark_count: int, dims: int, weights_hash: str, perturbation: Perturbation
) -> dict[Section, np.ndarray | bytes]:
    """All trees one after the other."""
    children, leaves, roots = [], [], []
    nodes = leaf_count = 0
    for tree in trees:
        is_leaf = tree.second < 0
        roots.append(nodes)
        number = leaf_count + np.cumsum(is_leaf) - 1
        children.append(np.where(is_leaf, number | LEAF + 1, tree.second + nodes))
        leaves.append(tree.leaves + leaf_count)
        nodes, leaf_count = nodes + len(is_leaf), leaf_count + int(is_leaf.sum())
    ids = np.concatenate([tree.landmarks for tree in trees])
    if nodes > MAX_NODES or len(ids) >= 1 << 32:
        raise InputError(f"random trees of {nodes} nodes and {len(ids)} entries", "split the map")
    head = np.zeros((), TREES)
    for name, value in {
        "trees": len(trees),
        "depth": max(tree.depth for tree in trees),
        "dims": dims,
        "nodes": nodes,
        "leaves": leaf_count,
        "entries": len(ids),
        "landmarks": landmark_count,
        "cost_steps": COST_STEPS,
        "weights_hash": weights_hash.encode(),
        "mu": perturbation.mu,
        "sigma": perturbation.sigma,
    }.items():
        head[name] = value
    return {
        Section.RANDOM_TREES: head.tobytes(),
        Section.TREE_COSTS: perturbation.costs(),
        Section.TREE_ROOTS: np.array(roots, "<u4"),
        Section.TREE_TESTS: np.concatenate([tree.tests for tree in trees]),
        Section.TREE_CHILDREN: np.concatenate(children).astype("<u4"),
        Section.TREE_LEAVES: np.searchsorted(np.concatenate(leaves), np.arange(leaf_count + 1)).astype("<u4"),
        Section.TREE_LANDMARKS: ids.astype("<u4"),
    }
