"""Random trees over the bits of local descriptors: which landmarks may a keypoint show (paper 002, section 3.2.3).

A node tests one bit (value >= 0), a leaf holds landmarks. The leaf that a query falls into need not be the right one: a
value near zero turns its bit in the next photograph. So every edge costs minus the logarithm of the probability that a
perturbed query takes it (equation 6), a leaf costs the sum along its path (equation 5), and a query's prior leaves are
the cheapest of all trees together.

Costs are small integers from a table in the map, so every device finds the same leaves. Trees are grown by
`hfnet_maps.build.trees`; the byte tables stand in maps/SPEC.md.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from hfnet_edge.errors import MismatchError, SearchLimitError
from hfnet_edge.map.container import MapBytes, Section
from hfnet_edge.schema.description_generated import MapDescriptionT

TREES = np.dtype(
    [
        ("trees", "<u4"),
        ("depth", "<u4"),  # edges from a root to the deepest leaf
        ("dims", "<u4"),  # of a descriptor
        ("nodes", "<u4"),
        ("leaves", "<u4"),
        ("entries", "<u4"),  # landmarks of all leaves
        ("landmarks", "<u4"),  # of the map
        ("cost_steps", "<u4"),  # of a cost, to a bit; for people, as are mu and sigma
        ("weights_hash", "S32"),  # of the network of the descriptors
        ("mu", "<f8"),
        ("sigma", "<f8"),
    ]
)
MAX_TREES = 64
MAX_DEPTH = 23
MAX_DIMS = 256  # a node names its dimension in a byte
MAX_NODES = 1 << 31
LEAF = 0x7FFFFFFF  # the bits of a child that hold the number of a leaf; the top bit says that it is one
COUNT = 100  # prior leaves of a query
BLOCK = 64  # queries at a time: what they walk stays in the cache
FEWEST_AT_ONCE, SHARE_AT_ONCE = 64, 16  # nodes of a query that are followed together, and one in so many that wait
WAITING = 1 << 16  # nodes: if more wait, fewer queries are followed at a time
WALK, HELD = 32, 64  # inner nodes on the way to a prior leaf, and landmarks in it; in the mean of a query, at most
BESIDES = 1 << 20  # of each that a query may have beyond that
REMEDY = "build the map again with `hfnet-map build --method parallel`"
GATHERED = 1 << 22  # landmarks that `RandomTrees.blocks` gathers at a time, unless one query has more
NODE = 0xFFFFFFFF  # the bits of a key that hold a node or a landmark; above them a cost, or a row
NEVER = 1 << 54  # added to a key: costs more than any path
ROW = 55  # from this bit on a key may hold its query's row in a block


class Order(StrEnum):
    """What an edge of a tree costs, and so which leaves come first."""

    PROBABILITY = "probability"  # minus the logarithm of the probability of equation (6)
    ABSOLUTE = "absolute"  # the query's own bit nothing, the other one the value's size (the paper's RT)


def cheapest_first(trees: RandomTrees, descriptor: np.ndarray, count: int, order: Order) -> list[int]:
    """The definition of prior leaves, as SPEC.md has it: a queue of nodes, cheapest first, equals by lower number.

    `RandomTrees.prior_leaves` finds the same for many descriptors at once, a level at a time.

    Args:
        descriptor: (D,) int8.

    Returns:
        ``count`` numbers of leaves, or as many as the trees have.
    """
    zero, one = trees.edge_costs(order).tolist()
    queue = [(0, int(root)) for root in trees.roots]
    found: list[int] = []
    heapq.heapify(queue)
    while queue and len(found) < count:
        cost, node = heapq.heappop(queue)
        second = int(trees.children[node])
        if second < 0:
            found.append(second & LEAF)
            continue
        byte = int(descriptor[trees.tests[node]]) & 0xFF
        heapq.heappush(queue, (cost + zero[byte], node + 1))
        heapq.heappush(queue, (cost + one[byte], second))
    return found


@dataclass(frozen=True)
class RandomTrees:
    """The trees of a map of L landmarks: N nodes, K leaves, E entries. Arrays are those of the file, checked.

    A node's first child is the next node. So a node's number is below those of all nodes under it, and leaves, counted
    from 0, rise with nodes.

    Attributes:
        costs: (2, 256) uint16 of bit 0 and bit 1, by the byte of the query's value.
        roots: (T,) uint32. tests: (N,) uint8.
        children: (N,) int32 second child; negative: a leaf, with its number in the lower 31 bits.
        offsets: (K + 1,) uint32 into ``entries``: (E,) uint32 landmarks.
    """

    costs: np.ndarray
    roots: np.ndarray
    tests: np.ndarray
    children: np.ndarray
    offsets: np.ndarray
    entries: np.ndarray

    @staticmethod
    def read(file: MapBytes, description: MapDescriptionT) -> RandomTrees:
        """Opens the trees of a map's file and checks all of them.

        Raises:
            MismatchError: the map has none, or they are of other descriptors or landmarks than the map's.
            MapFormatError: they are truncated, damaged, or lead out of range or back.
        """
        where, build = file.where, REMEDY
        if Section.RANDOM_TREES not in file.sections:
            raise MismatchError(f"{where} has no random trees", build)
        head = file.array(Section.RANDOM_TREES, TREES, 1)[0]
        for what, ours, theirs in (
            ("weights", bytes(head["weights_hash"]), description.weightsHash.encode()),
            ("landmarks", int(head["landmarks"]), description.landmarkCount),
            ("dimensions", int(head["dims"]), description.localDim),
        ):
            if ours != theirs:
                raise MismatchError(
                    f"{where} has random trees of other {what} than its own: {ours!r}, {theirs!r}", build
                )
        trees, depth, dims, nodes, leaves, entries = head.item()[:6]
        if not (1 <= trees <= MAX_TREES and depth <= MAX_DEPTH and dims <= MAX_DIMS and nodes <= MAX_NODES):
            raise file.fail(f"{trees} random trees of depth {depth}, {dims} dimensions and {nodes} nodes")
        opened = RandomTrees(
            file.array(Section.TREE_COSTS, "<u2", 2, 256),
            file.array(Section.TREE_ROOTS, "<u4", trees),
            file.array(Section.TREE_TESTS, "u1", nodes),
            file.array(Section.TREE_CHILDREN, "<i4", nodes),
            file.array(Section.TREE_LEAVES, "<u4", leaves + 1),
            file.array(Section.TREE_LANDMARKS, "<u4", entries),
        )
        wrong = opened._what_is_wrong(depth, dims, description.landmarkCount)
        if wrong:
            raise file.fail(wrong)
        return opened

    def prior_leaves(self, descriptors: np.ndarray, count: int = COUNT, order: Order = Order.PROBABILITY) -> np.ndarray:
        """The leaves that most likely hold a query's landmark: the ``count`` of least cost, equals by lower number.

        Args:
            descriptors: (Q, D) int8.

        Returns:
            (Q, count) int32 numbers of leaves, cheapest first; -1 where the trees have no more.

        Raises:
            SearchLimitError: a queue of nodes would give more than `WALK` Q count + `BESIDES` inner nodes before the
                last of these leaves, over all descriptors.
        """
        try:
            return self._prior_leaves(descriptors, count, order, exact=False)
        except SearchLimitError:  # nodes that a queue would not give are among those that were followed
            return self._prior_leaves(descriptors, count, order, exact=True)

    def _prior_leaves(self, descriptors: np.ndarray, count: int, order: Order, exact: bool) -> np.ndarray:
        """As `prior_leaves`; not ``exact``: all nodes that are followed count, which is faster."""
        zero, one = self.edge_costs(order).astype(np.uint32)
        costs = zero | one << np.uint32(16)  # of both bits in one number
        found = np.full((len(descriptors), count), -1, np.int32)
        left = WALK * found.size + BESIDES
        for start in range(0, len(descriptors), BLOCK):
            block = slice(start, start + BLOCK)
            keys, taken = self._cheapest(costs[descriptors[block].view(np.uint8)], count, left, exact)
            found[block, : keys.shape[1]] = np.where(keys < NEVER, self.children[keys & NODE] & LEAF, -1)
            left -= taken
        return found

    def landmarks(self, leaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What leaves hold.

        Args:
            leaves: (Q, count) int32, as `prior_leaves` returns them.

        Returns:
            (P,) int64 rows of ``leaves`` and (P,) int64 landmarks in them; in order of both, no pair twice.
        """
        rows, landmarks = self._held_by(leaves)
        pairs = rows << 32 | landmarks
        pairs.sort()
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        return pairs >> 32, pairs & NODE

    def held(self, leaves: np.ndarray) -> np.ndarray:
        """How many landmarks leaves hold, (Q, count) int32 to (Q,) int64; one in two leaves counts twice."""
        size = self.offsets[leaves + 1].astype(np.int64) - self.offsets[leaves]
        return np.where(leaves >= 0, size, 0).sum(axis=1)

    def blocks(self, leaves: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """As `landmarks`, but in any order, and pairs repeat; some rows after the other: so many that they hold at most
        `GATHERED`, or a single one.

        Raises:
            SearchLimitError: the leaves hold more than `HELD` Q count + `BESIDES` landmarks.
        """
        held = self.held(leaves)
        most = HELD * leaves.size + BESIDES
        if held.sum() > most:
            raise SearchLimitError(f"a query's prior leaves hold {held.sum()} landmarks, more than {most}", REMEDY)
        before = np.cumsum(held) - held
        start = 0
        while start < len(leaves):
            stop = max(start + 1, int(np.searchsorted(before + held, before[start] + GATHERED, side="right")))
            yield self._held_by(leaves[start:stop], start)
            start = stop

    def _held_by(self, leaves: np.ndarray, row: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """As `landmarks`, leaf by leaf: pairs repeat. Rows are counted from ``row``."""
        rows, columns = np.nonzero(leaves >= 0)
        leaf = leaves[rows, columns]
        start, stop = (self.offsets[leaf + i].astype(np.int64) for i in (0, 1))
        size = stop - start
        at = np.repeat(stop - np.cumsum(size), size) + np.arange(size.sum())
        return np.repeat(rows + row, size), self.entries[at].astype(np.int64)

    def edge_costs(self, order: Order) -> np.ndarray:
        """(2, 256) int64 of bit 0 and bit 1, by the byte of a query's value."""
        if order is Order.PROBABILITY:
            return self.costs.astype(np.int64)
        values = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int64)
        return np.stack([np.maximum(values, 0), np.maximum(-values, 0)])

    def _cheapest(self, costs: np.ndarray, count: int, most: int, exact: bool) -> tuple[np.ndarray, int]:
        """The ``count`` cheapest leaves of each query as keys in order, (Q, up to ``count``) int64, and how many inner
        nodes come before the last of them; not ``exact``: how many were followed.

        A key is a node's cost, then its number in 32 bits; so no node under it has a lower one. First a beam goes down:
        the ``count`` cheapest of all nodes and leaves that it has come to, at each step. It ends at leaves, the last of
        which is a bound. Then what the beam left out below the bound is followed too.

        Args:
            costs: (Q, D) uint32 of each value: of bit 0, and in the upper 16 bits of bit 1.

        Raises:
            SearchLimitError: there are more than ``most``.
        """
        never = NEVER | len(self.children) - 1  # the last node is a leaf: it leads nowhere
        keys = np.tile(self.roots.astype(np.int64), (len(costs), 1))
        left_out, taken, followed = [np.zeros((len(costs), 0), np.int64)], [np.zeros(0, np.int64)], 0
        while len(inner := np.flatnonzero(self.children.take(keys & NODE) >= 0)):
            parents, rows = keys.take(inner), inner // keys.shape[1]
            first, second = self._under(parents, rows, costs)
            followed += len(inner)
            if exact:
                taken.append(parents + (rows << ROW))
            new = np.full_like(keys, never)
            np.put(keys, inner, first)
            np.put(new, inner, second)
            keys = np.concatenate([keys, new], axis=1)
            if keys.shape[1] > count:
                keys.partition(count - 1, axis=1)
                left_out.append(keys[:, count:])
                keys = keys[:, :count]
        keys.sort(axis=1)
        rest, row = np.concatenate(left_out, axis=1), np.arange(len(keys))[:, None] << ROW
        below = rest < keys[:, -1:]
        counted = np.concatenate(taken) if exact else None
        best, more = self._followed(keys + row, (rest + row)[below], counted, costs, most if exact else most - followed)
        return best - row, more if exact else followed + more

    def _followed(
        self, best: np.ndarray, waiting: np.ndarray, taken: np.ndarray | None, costs: np.ndarray, most: int
    ) -> tuple[np.ndarray, int]:
        """The cheapest leaves of each query among some, and those at or under some nodes.

        Keys also hold their query, in the bits from `ROW` on. The cheapest of the nodes that wait are followed
        together, and what is not below its query's bound is dropped: the last of the cheapest leaves so far. A node
        that was taken is counted once it is below all that wait: then nothing cheaper can come to light.

        Args:
            best: (Q, count) int64 leaves in order. waiting: (P,) int64 nodes. costs: (Q, D) uint32.
            taken: (I,) int64 inner nodes that were followed before; None: all that are followed here count.

        Returns:
            (Q, count) int64, cheapest first, and how many inner nodes come before the last of them.

        Raises:
            SearchLimitError: there are more than ``most``.
        """
        count, starts, before = best.shape[1], np.arange(len(best)) << ROW, 0
        bound, waiting = best[:, -1], np.sort(waiting)
        while True:
            begin = np.searchsorted(waiting, np.append(starts, len(best) << ROW))
            number = np.diff(begin)
            if taken is not None:
                limit = np.where(number > 0, np.append(waiting, 0)[begin[:-1]], bound)
                rows = taken >> ROW
                sure = taken < limit[rows]
                before += int(sure.sum())
                taken = taken[~sure & (taken < bound[rows])]
            if before > most:
                raise SearchLimitError("too many nodes of the random trees lie before a query's prior leaves", REMEDY)
            if not len(waiting):
                return best, before
            if len(waiting) > WAITING and len(best) > 1:
                return self._halves(best, waiting, taken, costs, most, before)
            rows = waiting >> ROW
            chosen = np.arange(len(waiting)) - begin[rows] < (FEWEST_AT_ONCE + number // SHARE_AT_ONCE)[rows]
            keys, waiting = waiting[chosen], waiting[~chosen]
            inner = self.children.take(keys & NODE) >= 0
            keys, leaves = keys[inner], keys[~inner]
            if len(leaves):
                found = np.sort(np.concatenate([best.ravel(), leaves]))
                best = found[np.searchsorted(found, starts)[:, None] + np.arange(count)]
                bound = best[:, -1]
            if taken is None:
                before += len(keys)
            else:
                taken = np.concatenate([taken, keys])
            waiting = np.concatenate([waiting, *self._under(keys, keys >> ROW, costs)])
            waiting = np.sort(waiting[waiting < bound[waiting >> ROW]])

    def _halves(
        self, best: np.ndarray, waiting: np.ndarray, taken: np.ndarray | None, costs: np.ndarray, most: int, before: int
    ) -> tuple[np.ndarray, int]:
        """`_followed` for one half of the queries after the other. Of all, ``before`` nodes were counted so far."""
        middle = len(best) // 2
        found = []
        for part, low, high in ((slice(middle), 0, middle), (slice(middle, None), middle, len(best))):

            def mine(keys: np.ndarray, low: int = low, high: int = high) -> np.ndarray:
                return keys[(keys >> ROW >= low) & (keys >> ROW < high)] - (low << ROW)

            took = None if taken is None else mine(taken)
            half, more = self._followed(best[part] - (low << ROW), mine(waiting), took, costs[part], most - before)
            found.append(half + (low << ROW))
            before += more
        return np.concatenate(found), before

    def _under(self, keys: np.ndarray, rows: np.ndarray, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The two children of nodes, as keys.

        Args:
            keys: (P,) int64 of nodes that are no leaves. rows: (P,) int64 of ``costs``, (Q, D) uint32.
        """
        node = keys & NODE
        cost = costs.ravel().take(rows * costs.shape[1] + self.tests.take(node)).astype(np.int64)
        first = keys + ((cost & 0xFFFF) << 32) + 1
        second = keys - node + (cost >> 16 << 32) + self.children.take(node)
        return first, second

    def _what_is_wrong(self, depth: int, dims: int, landmarks: int) -> str:
        """What a damaged or hostile file has wrong; "" where nothing is."""
        nodes, inner = len(self.children), np.flatnonzero(self.children >= 0)
        leaves = self.children[self.children < 0] & LEAF
        if not np.array_equal(leaves, np.arange(len(self.offsets) - 1)):
            return "the leaves of the random trees are not numbered from 0 in order"
        if (self.tests[inner] >= dims).any():
            return f"a random tree tests a dimension that is not among its {dims}"
        second = self.children[inner]
        if (second <= inner + 1).any() or (second >= nodes).any() or (self.roots >= nodes).any():
            return "a random tree leads out of range or back"
        parents = np.bincount(np.concatenate([inner + 1, second, self.roots.astype(np.int64)]), minlength=nodes)
        if (parents != 1).any():
            return "a node of the random trees is under two others, or under none"
        level = self.roots.astype(np.int64)
        for _ in range(depth):
            level = level[self.children[level] >= 0]
            level = np.concatenate([level + 1, self.children[level]])
        if (self.children[level] >= 0).any():
            return f"a random tree is deeper than {depth}"
        offsets = self.offsets.astype(np.int64)
        if offsets[0] or offsets[-1] != len(self.entries) or (np.diff(offsets) < 0).any():
            return "TREE_LEAVES does not rise from 0 to the end of TREE_LANDMARKS"
        if len(self.entries) and self.entries.max() >= landmarks:
            return f"a random tree holds a landmark that is not among the map's {landmarks}"
        falls = np.flatnonzero(self.entries[1:] <= self.entries[:-1]) + 1
        if not np.isin(falls, offsets).all():
            return "the landmarks of a leaf of the random trees do not rise"
        return ""
