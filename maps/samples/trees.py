"""The random trees of the samples: grown by plain integer rules, so that no library's version shows in the files."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import LEAF, TREES

Case = tuple[str, int, bytes]
"""Why a reader has to refuse the map, an offset, and the bytes that are written there."""

TREE_COUNT, DEPTH, FEW = 3, 5, 3  # a node of no more than `FEW` landmarks is a leaf
COST_STEPS, SIGMA = 64, 8


def trees_of(
    descriptors: np.ndarray, described: np.ndarray, weights_hash: str, integer: Callable[[int, int], int]
) -> dict[Section, np.ndarray | bytes]:
    """The sections of `TREE_COUNT` trees whose nodes test bits drawn by chance.

    Args:
        descriptors: (R, D) int8, before any codec. described: (R,) their landmarks.
        integer: draws a number between two, both included.
    """
    dims = descriptors.shape[1]
    tests: list[int] = []
    children: list[int] = []
    leaves: list[list[int]] = []
    roots: list[int] = []

    def grow(rows: list[int], depth: int) -> None:
        node, landmarks = len(children), sorted({int(described[row]) for row in rows})
        if depth == DEPTH or len(landmarks) <= FEW:
            tests.append(0)
            children.append(LEAF + 1 | len(leaves))
            leaves.append(landmarks)
            return
        test = integer(0, dims - 1)
        tests.append(test)
        children.append(0)
        grow([row for row in rows if descriptors[row, test] < 0], depth + 1)
        children[node] = len(children)
        grow([row for row in rows if descriptors[row, test] >= 0], depth + 1)

    for _ in range(TREE_COUNT):
        roots.append(len(children))
        grow(list(range(len(descriptors))), 0)
    entries = [landmark for leaf in leaves for landmark in leaf]
    head = np.zeros((), TREES)
    for name, value in {
        "trees": TREE_COUNT,
        "depth": DEPTH,
        "dims": dims,
        "nodes": len(children),
        "leaves": len(leaves),
        "entries": len(entries),
        "landmarks": int(described[-1]) + 1,
        "cost_steps": COST_STEPS,
        "weights_hash": weights_hash.encode(),
        "sigma": SIGMA,
    }.items():
        head[name] = value
    values = np.arange(256, dtype=np.uint8).view(np.int8).astype(int)
    costs = [COST_STEPS * np.maximum(SIGMA + sign * values, 0) for sign in (1, -1)]
    return {
        Section.RANDOM_TREES: head.tobytes(),
        Section.TREE_COSTS: np.array(costs, "<u2"),
        Section.TREE_ROOTS: np.array(roots, "<u4"),
        Section.TREE_TESTS: np.array(tests, np.uint8),
        Section.TREE_CHILDREN: np.array(children, "<u4"),
        Section.TREE_LEAVES: np.cumsum([0, *map(len, leaves)]).astype("<u4"),
        Section.TREE_LANDMARKS: np.array(entries, "<u4"),
    }


def expected_of_trees(m: LocalizationMap, queries: np.ndarray, counts: tuple[int, ...]) -> dict[str, object]:
    """What a reader must find in the trees of a map: the fields of RANDOM_TREES, and prior leaves of queries.

    Args:
        queries: (Q, D) int8. counts: how many leaves of each.
    """
    trees = m.trees
    head = np.frombuffer(m.file.bytes(Section.RANDOM_TREES), TREES)[0]
    found = []
    for query, count in zip(queries, counts, strict=True):
        leaves = trees.prior_leaves(query[None], count)
        found.append(
            {
                "descriptor": query.tolist(),
                "count": count,
                "leaves": leaves[leaves >= 0].tolist(),
                "landmarks": trees.landmarks(leaves)[1].tolist(),
            }
        )
    fields = {name: head[name].item() for name in TREES.names or ()}
    return {"head": fields | {"weights_hash": fields["weights_hash"].decode()}, "queries": found}


def refused_trees(content: bytes) -> list[Case]:
    """Changes to a map with trees that a reader which searches with them must refuse."""
    m = LocalizationMap.read(content)
    trees = m.trees
    at = {kind.name: m.file.sections[kind].offset for kind in Section if kind in m.file.sections}
    head = {name: at["RANDOM_TREES"] + TREES.fields[name][1] for name in TREES.names or ()}  # type: ignore[index]
    inner = np.flatnonzero(trees.children >= 0)
    node, leaf = int(inner[1]), int(np.flatnonzero(trees.children < 0)[1])
    child, tests = at["TREE_CHILDREN"] + 4 * node, at["TREE_TESTS"]
    nodes, leaves, entries = len(trees.children), len(trees.offsets) - 1, len(trees.entries)
    several = int(np.flatnonzero(np.diff(trees.offsets.astype(int)) > 1)[0])  # a leaf of more than one landmark
    landmark = at["TREE_LANDMARKS"] + 4 * int(trees.offsets[several])

    def u4(value: int) -> bytes:
        return struct.pack("<I", value)

    return [
        ("no trees", head["trees"], u4(0)),
        ("more trees than the limit", head["trees"], u4(65)),
        ("more trees than roots", head["trees"], u4(TREE_COUNT + 1)),
        ("a depth above the limit", head["depth"], u4(24)),
        ("a leaf that is deeper than the depth", head["depth"], u4(DEPTH - 1)),
        ("trees over other dimensions", head["dims"], u4(m.description.localDim - 1)),
        ("more nodes than the sections hold", head["nodes"], u4(nodes + 1)),
        ("2^32 - 1 nodes", head["nodes"], u4(2**32 - 1)),
        ("fewer leaves than the sections hold", head["leaves"], u4(leaves - 1)),
        ("more entries than the sections hold", head["entries"], u4(2**32 - 1)),
        ("trees over other landmarks", head["landmarks"], u4(m.landmark_count + 1)),
        ("trees of another network", head["weights_hash"], b"f"),
        ("a root that is another tree's node", at["TREE_ROOTS"] + 4, u4(int(trees.roots[1]) + 1)),
        ("a root past the last node", at["TREE_ROOTS"] + 4, u4(nodes)),
        ("a test of a bit that is not there", tests + node, bytes([m.description.localDim])),
        ("a node under itself", child, u4(node)),
        ("a node with one child twice", child, u4(node + 1)),
        ("a child that is under another node", child, u4(node + 2)),
        ("a child past the last node", child, u4(nodes)),
        ("leaves that are not numbered in order", at["TREE_CHILDREN"] + 4 * leaf, u4(LEAF + 1)),
        ("a leaf in the place of an inner node", child, u4(LEAF + 1)),
        ("leaves that do not begin at 0", at["TREE_LEAVES"], u4(1)),
        ("leaves that do not end with the landmarks", at["TREE_LEAVES"] + 4 * leaves, u4(entries - 1)),
        ("a leaf that ends before it begins", at["TREE_LEAVES"] + 4, u4(2**32 - 1)),
        ("a landmark past the last in a leaf", landmark + 4, u4(m.landmark_count)),
        ("a landmark twice in a leaf", landmark + 4, u4(int(trees.entries[trees.offsets[several]]))),
    ]
