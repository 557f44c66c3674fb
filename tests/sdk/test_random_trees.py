"""Prior leaves are exactly the cheapest, and trees that are damaged, hostile or of another map are refused."""

import heapq
import itertools
import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import MapFormatError, MismatchError, SearchLimitError
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map import random_trees
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import (
    BLOCK,
    LEAF,
    MAX_DEPTH,
    MAX_DIMS,
    NEVER,
    ROW,
    TREES,
    Order,
    RandomTrees,
    cheapest_first,
)
from hfnet_maps.build.trees import tree_sections
from hfnet_maps.pack.writer import lay_out, to_map
from synthetic import EXTRACTOR, place

D = EXTRACTOR.local_dim
HASH = EXTRACTOR.weights_hash
PARTS = [kind for kind in Section if Section.RANDOM_TREES <= kind <= Section.TREE_LANDMARKS]


@pytest.fixture(scope="module")
def source():
    return place(landmarks=400, images=6).source()


@pytest.fixture(scope="module")
def sections(source):
    return lay_out(source)


@pytest.fixture(scope="module")
def parts(source):
    return tree_sections(source.descriptors, source.described, len(source.positions), HASH)


@pytest.fixture(scope="module")
def trees(sections, parts):
    return to_map({**sections, **parts}).trees


def best_first(trees: RandomTrees, descriptor: np.ndarray, count: int, order: Order) -> list[int]:
    """The definition, filled up with -1."""
    found = cheapest_first(trees, descriptor, count, order)
    return found + [-1] * (count - len(found))


def made(dims: int, observations: int, landmarks: int, seed: int = 0, spread: float = 8.0) -> RandomTrees:
    """Trees over random descriptors, without a map around them."""
    rng = np.random.default_rng(seed)
    descriptors = np.clip(np.rint(rng.normal(0, spread, (observations, dims))), -127, 127).astype(np.int8)
    return unpacked(tree_sections(descriptors, rng.integers(landmarks, size=observations), landmarks, HASH))


def unpacked(parts) -> RandomTrees:
    return RandomTrees(
        parts[Section.TREE_COSTS],
        parts[Section.TREE_ROOTS],
        parts[Section.TREE_TESTS],
        parts[Section.TREE_CHILDREN].view("<i4"),
        parts[Section.TREE_LEAVES],
        parts[Section.TREE_LANDMARKS],
    )


def complete(depth: int, tests: Callable[[tuple[int, ...]], int], costs: np.ndarray) -> RandomTrees:
    """One tree whose leaves all lie at ``depth``; ``tests`` says what the node at the end of a path tests."""
    dimensions, children, leaves = [], [], itertools.count()

    def grow(path: tuple[int, ...]) -> None:
        node = len(children)
        if len(path) == depth:
            dimensions.append(0)
            children.append(next(leaves) - (1 << 31))
            return
        dimensions.append(tests(path))
        children.append(0)
        grow((*path, 0))
        children[node] = len(children)
        grow((*path, 1))

    grow(())
    offsets, nothing = np.zeros((1 << depth) + 1, "<u4"), np.zeros(0, "<u4")
    arrays = np.array(dimensions, np.uint8), np.array(children, "<i4")
    return RandomTrees(costs, np.zeros(1, "<u4"), *arrays, offsets, nothing)


def peak_of(ask: Callable[[], object]) -> int:
    """The most bytes that are held at a time."""
    tracemalloc.start()
    try:
        ask()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def queries(dims: int, count: int, spread: float = 8.0) -> np.ndarray:
    return np.clip(np.rint(np.random.default_rng(9).normal(0, spread, (count, dims))), -127, 127).astype(np.int8)


# Prior leaves


@pytest.mark.parametrize("order", Order)
@pytest.mark.parametrize("count", [1, 5, 6, 100, 1000])
def test_prior_leaves_are_the_cheapest_in_order(order, count):
    trees = made(64, 6000, 2500)
    q = queries(64, 70)  # more than a block
    found = trees.prior_leaves(q, count, order)
    assert found.dtype == np.int32 and found.shape == (70, count)
    assert found.tolist() == [best_first(trees, d, count, order) for d in q]


@pytest.mark.parametrize("count", [7, 60, 300])
@pytest.mark.parametrize("highest", [0, 1, 3])
def test_equal_costs_rank_by_leaf(highest, count):
    trees = made(16, 3000, 1500)
    costs = np.random.default_rng(1).integers(highest + 1, size=(2, 256)).astype(np.uint16)  # most leaves cost the same
    trees, q = replace(trees, costs=costs), queries(16, 8)
    found = trees.prior_leaves(q, count)
    assert found.tolist() == [best_first(trees, d, count, Order.PROBABILITY) for d in q]


def dear_below() -> tuple[RandomTrees, np.ndarray]:
    """A tree whose root is dear on one side and costs nothing further down, and cheap on the other, dear further down;
    and a query."""
    trees = made(64, 6000, 2500)
    costs = np.zeros((2, 256), np.uint16)
    costs[:, 10] = 1, 40  # the root's own dimension: the other side is dear
    costs[:, 20] = 50, 50  # everything under the cheap side
    q = np.full((1, 64), 20, np.int8)
    q[0, trees.tests[trees.roots]] = 10
    return replace(trees, costs=costs), q


def test_what_the_beam_leaves_out_is_found():
    """A path that is dear at first and costs nothing further down, against many that are cheap at first."""
    trees, q = dear_below()
    assert trees.prior_leaves(q, 20).tolist() == [best_first(trees, q[0], 20, Order.PROBABILITY)]


@pytest.mark.parametrize(("at_once", "waiting"), [(1, 1), (7, 100), (300, 1 << 16)])
def test_however_few_nodes_are_followed_at_a_time(monkeypatch, at_once, waiting):
    monkeypatch.setattr(random_trees, "FEWEST_AT_ONCE", at_once)
    monkeypatch.setattr(random_trees, "WAITING", waiting)
    trees, q = dear_below()
    assert trees.prior_leaves(q, 20).tolist() == [best_first(trees, q[0], 20, Order.PROBABILITY)]
    trees, q = made(16, 3000, 1500), queries(16, 8)
    costs = np.random.default_rng(1).integers(4, size=(2, 256)).astype(np.uint16)
    for each in (trees, replace(trees, costs=costs)):
        assert each.prior_leaves(q, 30).tolist() == [best_first(each, d, 30, Order.PROBABILITY) for d in q]


def late() -> tuple[RandomTrees, np.ndarray]:
    """The beam ends at leaves of cost 300; what it left out at cost 1 leads to 16,384 leaves of that cost."""
    costs = np.zeros((2, 256), np.uint16)
    costs[:, 1] = 0, 1
    costs[:, 2] = 50, 50
    trees = complete(15, lambda path: (len(path) == 8) + 2 * (len(path) > 8 and path[8] == 0), costs)
    return trees, np.tile(np.arange(3, dtype=np.int8), (BLOCK, 1))


def flat(edges: tuple[int, int], depth: int = 15) -> tuple[RandomTrees, np.ndarray]:
    """A tree whose edges cost the same whatever a query's values are."""
    trees = complete(depth, len, np.repeat(np.array(edges, np.uint16)[:, None], 256, axis=1))
    return trees, np.zeros((BLOCK, depth), np.int8)


@pytest.mark.parametrize("hostile", [late, lambda: flat((0, 0)), lambda: flat((0, 1)), lambda: flat((1, 0))])
def test_a_hostile_tree_takes_little_memory(hostile):
    trees, q = hostile()
    size = sum(part.nbytes for part in (trees.tests, trees.children, trees.offsets))
    assert peak_of(lambda: trees.prior_leaves(q)) < 24 * size
    assert trees.prior_leaves(q[:1]).tolist() == [best_first(trees, q[0], 100, Order.PROBABILITY)]


# The limit


def taken(trees: RandomTrees, q: np.ndarray, count: int) -> int:
    """How many inner nodes `best_first` takes from its queue until it has all leaves."""
    total = 0
    for descriptor in q:
        queue, left = [(0, int(root)) for root in trees.roots], count
        heapq.heapify(queue)
        while queue and left:
            cost, node = heapq.heappop(queue)
            second = int(trees.children[node])
            if second < 0:
                left -= 1
                continue
            total += 1
            to = trees.costs[:, int(descriptor[trees.tests[node]]) % 256].tolist()
            heapq.heappush(queue, (cost + to[0], node + 1))
            heapq.heappush(queue, (cost + to[1], second))
    return total


@pytest.mark.parametrize(
    ("hostile", "count"),
    [
        (lambda: (made(64, 6000, 2500), queries(64, 70)), 40),
        (lambda: (made(32, 300, 100), queries(32, 5)), 1000),  # fewer leaves than that
        (dear_below, 20),
        (lambda: flat((1, 1), 10), 100),
        (lambda: flat((0, 1), 10), 100),
        (late, 5),
    ],
)
@pytest.mark.parametrize("waiting", [50, 1 << 16])
def test_the_walk_is_counted_as_a_queue_takes_nodes(monkeypatch, hostile, count, waiting):
    """Exactly so many nodes pass, and one fewer do not, in whatever order they are followed."""
    trees, q = hostile()
    monkeypatch.setattr(random_trees, "WAITING", waiting)
    monkeypatch.setattr(random_trees, "WALK", 0)
    monkeypatch.setattr(random_trees, "BESIDES", taken(trees, q, count))
    found = trees.prior_leaves(q, count)
    monkeypatch.setattr(random_trees, "BESIDES", random_trees.BESIDES - 1)
    with pytest.raises(SearchLimitError, match="nodes"):
        trees.prior_leaves(q, count)
    assert found[:2].tolist() == [best_first(trees, d, count, Order.PROBABILITY) for d in q[:2]]


def test_edges_that_all_cost_the_same_end_the_search():
    """A valid tree of 131,071 nodes: all inner ones are cheaper than any leaf. 2,000 keypoints would walk 131 million
    nodes; the walk ends at its limit."""
    trees, q = flat((1, 1), 16)
    q, asked, under = np.tile(q, (32, 1))[:2000], [0], RandomTrees._under
    most = random_trees.WALK * 2000 * 100 + random_trees.BESIDES

    class Counted(RandomTrees):
        def _under(self, keys, rows, costs):
            asked[0] += len(keys)
            return under(self, keys, rows, costs)

    with pytest.raises(SearchLimitError, match="too many nodes"):
        Counted(**vars(trees)).prior_leaves(q)
    assert asked[0] < 2.5 * most < 2000 * 65535 / 5, "once in any order, once exactly"


def test_the_orders_differ(trees):
    q = queries(D, 20)
    a, b = (trees.prior_leaves(q, 10, order) for order in Order)
    assert (a != b).any()


def test_fewer_leaves_than_asked_for():
    trees = made(32, 300, 100)
    leaves = len(trees.offsets) - 1
    found = trees.prior_leaves(queries(32, 3), leaves + 7)
    assert (np.sort(found[:, :leaves]) == np.arange(leaves)).all() and (found[:, leaves:] == -1).all()
    rows, landmarks = trees.landmarks(found)
    assert rows.tolist() == np.repeat(np.arange(3), 100 - missing(trees)).tolist()
    assert (landmarks.reshape(3, -1) == np.unique(trees.entries)).all()


def missing(trees) -> int:
    return 100 - len(np.unique(trees.entries))


def test_one_landmark():
    trees = made(8, 3, 1)
    assert trees.children.tolist() == [-(1 << 31) + i for i in range(6)]
    found = trees.prior_leaves(queries(8, 2), 100)
    assert found[:, :6].tolist() == [[0, 1, 2, 3, 4, 5]] * 2 and (found[:, 6:] == -1).all()
    assert [v.tolist() for v in trees.landmarks(found)] == [[0, 1], [0, 0]]


def test_no_queries(trees):
    found = trees.prior_leaves(np.zeros((0, D), np.int8))
    assert found.shape == (0, 100)
    assert [len(v) for v in trees.landmarks(found)] == [0, 0]


def test_landmarks_are_unique_and_sorted(trees):
    found = trees.prior_leaves(queries(D, 30), 12)
    rows, landmarks = trees.landmarks(found)
    expected = [
        (row, landmark)
        for row, leaves in enumerate(found)
        for landmark in sorted({int(v) for k in leaves for v in trees.entries[trees.offsets[k] : trees.offsets[k + 1]]})
    ]
    assert list(zip(rows.tolist(), landmarks.tolist(), strict=True)) == expected
    assert rows.dtype == landmarks.dtype == np.int64


@pytest.mark.parametrize("gathered", [0, 1, 50, 400, 1 << 20])
def test_blocks_are_all_landmarks_some_rows_after_the_others(trees, monkeypatch, gathered):
    monkeypatch.setattr(random_trees, "GATHERED", gathered)
    found = trees.prior_leaves(queries(D, 30), 12)
    found[4] = found[5:8] = -1  # none of their own
    blocks = list(trees.blocks(found))
    pairs = np.concatenate([rows << 32 | landmarks for rows, landmarks in blocks])
    rows, landmarks = trees.landmarks(found)
    assert np.array_equal(np.unique(pairs), rows << 32 | landmarks)
    held = trees.held(found)
    assert held.tolist() == [sum(int(trees.offsets[k + 1] - trees.offsets[k]) for k in row if k >= 0) for row in found]
    assert held.sum() == len(pairs)
    seen = [np.unique(rows).tolist() for rows, _ in blocks]
    assert all(a[-1] < b[0] for a, b in itertools.pairwise(seen) if a and b), "all of a row are in one block"
    for rows in seen:
        assert held[rows].sum() <= gathered or len(rows) == 1
    assert (len(blocks) > 20) == (gathered <= 50) and (len(blocks) == 1) == (gathered == 1 << 20)
    assert list(trees.blocks(found[:0])) == []


def full(landmarks: int, roots: int = 6) -> RandomTrees:
    """Trees of one leaf each, which holds everything."""
    return RandomTrees(
        np.zeros((2, 256), np.uint16), np.arange(roots, dtype="<u4"), np.zeros(roots, np.uint8),
        (np.arange(roots) - (1 << 31)).astype("<i4"), np.arange(roots + 1, dtype="<u4") * landmarks,
        np.tile(np.arange(landmarks, dtype="<u4"), roots),
    )  # fmt: skip


def test_leaves_that_hold_everything_take_little_memory(monkeypatch):
    """As identical descriptors make them. All pairs at once would take half a gigabyte."""
    monkeypatch.setattr(random_trees, "GATHERED", 1 << 18)
    landmarks, rows = 1000, 2000
    trees = full(landmarks)
    leaves = trees.prior_leaves(np.zeros((rows, 8), np.int8))
    counts = np.zeros(rows, np.int64)

    def gather() -> None:
        for block, _ in trees.blocks(leaves):
            counts[:] += np.bincount(block, minlength=rows)

    assert peak_of(gather) < 25e6
    assert (counts == 6 * landmarks).all()


def test_leaves_that_hold_too_much_end_the_search():
    trees = full(12_000)
    leaves = trees.prior_leaves(np.zeros((200, 8), np.int8))
    with pytest.raises(SearchLimitError, match="hold 14400000 landmarks, more than 2328576"):
        next(trees.blocks(leaves))
    assert peak_of(lambda: next(trees.blocks(leaves[:10]))) < 50e6, "what is within the limit is given"


def test_keys_keep_their_parts_apart():
    assert MAX_DEPTH * 65535 << 32 | 0xFFFFFFFF < NEVER
    assert NEVER | 0xFFFFFFFF < 1 << ROW and BLOCK << ROW < 1 << 63


def test_another_view_is_found_in_few_leaves(source, trees):
    p = place(landmarks=400, images=6)
    near = quantize(p.descriptors + np.random.default_rng(3).normal(0, 0.02, p.descriptors.shape))
    rows, landmarks = trees.landmarks(trees.prior_leaves(near, 12))
    seen = np.isin(np.arange(400), source.described)
    recall = (landmarks == rows).sum() / seen.sum()
    share = len(rows) / 400 / 400
    assert recall > 0.95 and share < 0.35, (recall, share)  # at random, recall would be the share


# What is refused


def opened(sections, parts, **changed) -> RandomTrees:
    """A map with some sections replaced, by name; None leaves one out."""
    new = {**sections, **parts, **{Section[name]: part for name, part in changed.items()}}
    return to_map({kind: part for kind, part in new.items() if part is not None}).trees


def with_head(parts, **fields):
    head = np.frombuffer(parts[Section.RANDOM_TREES], TREES)[0].copy()
    for name, value in fields.items():
        head[name] = value
    return head.tobytes()


def edited(parts, kind, index, value):
    part = parts[kind].copy()
    part[index] = value
    return {kind.name: part}


def test_a_map_without_trees(sections):
    with pytest.raises(MismatchError, match=r"no random trees; build .* --method parallel"):
        _ = to_map(sections).trees


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"weights_hash": b"f" * 32}, "weights"),
        ({"weights_hash": b"\x1b[31m"}, "weights"),
        ({"landmarks": 399}, "landmarks"),
        ({"landmarks": 401}, "landmarks"),
        ({"dims": D - 1}, "dimensions"),
        ({"dims": MAX_DIMS + 1}, "dimensions"),
    ],
)
def test_trees_of_something_else(sections, parts, fields, word):
    with pytest.raises(MismatchError, match=word) as e:
        opened(sections, parts, RANDOM_TREES=with_head(parts, **fields))
    assert str(e.value).isprintable() and "--method parallel" in e.value.remedy


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("how", ["missing", "empty", "shorter", "longer"])
def test_a_section_of_another_length(sections, parts, kind, how):
    content = parts[kind] if isinstance(parts[kind], bytes) else parts[kind].tobytes()
    new = {"missing": None, "empty": b"", "shorter": content[:-1], "longer": content + b"\0"}[how]
    expected = MismatchError if (kind, how) == (Section.RANDOM_TREES, "missing") else MapFormatError
    with pytest.raises(expected, match=r"no random trees" if expected is MismatchError else kind.name):
        opened(sections, parts, **{kind.name: new})


@pytest.mark.parametrize(
    "fields",
    [
        {"trees": 0},
        {"trees": 65},
        {"trees": 7},
        {"depth": MAX_DEPTH + 1},
        {"depth": 2},
        {"nodes": 1 << 31 | 5},
        {"leaves": 0},
        {"leaves": 0xFFFFFFFF},
        {"entries": 0xFFFFFFFF},
    ],
    ids=str,
)
def test_a_head_that_counts_something_else(sections, parts, fields):
    with pytest.raises(MapFormatError):
        opened(sections, parts, RANDOM_TREES=with_head(parts, **fields))


def inner_node(parts, of: int = 3) -> int:
    """A node that is no leaf, with another between its children."""
    children = parts[Section.TREE_CHILDREN].astype(np.int64)
    inner = np.flatnonzero((children <= LEAF) & (children > np.arange(len(children)) + 3))
    return int(inner[of])


def leaf_node(parts, of: int = 5) -> int:
    return int(np.flatnonzero(parts[Section.TREE_CHILDREN] > LEAF)[of])


@pytest.mark.parametrize(
    "child",
    [
        lambda at, parts: at,  # a node under itself
        lambda at, parts: at + 1,  # both children the same
        lambda at, parts: at - 1,
        lambda at, parts: 0,
        lambda at, parts: at + 2,  # another's child
        lambda at, parts: len(parts[Section.TREE_CHILDREN]),
        lambda at, parts: LEAF,
        lambda at, parts: int(parts[Section.TREE_ROOTS][2]),  # another tree
        lambda at, parts: 0x80000000,  # a leaf, a number twice
        lambda at, parts: 0xFFFFFFFF,
    ],
)
def test_a_child_that_leads_elsewhere(sections, parts, child):
    at = inner_node(parts)
    with pytest.raises(MapFormatError, match=r"leads out of range or back|under two others|not numbered"):
        opened(sections, parts, **edited(parts, Section.TREE_CHILDREN, at, child(at, parts)))


@pytest.mark.parametrize("number", [0x80000000, 0x80000007, 0xFFFFFFFF, 3, LEAF])
def test_a_leaf_of_another_number(sections, parts, number):
    with pytest.raises(MapFormatError, match=r"not numbered from 0"):
        opened(sections, parts, **edited(parts, Section.TREE_CHILDREN, leaf_node(parts), number))


def test_two_nodes_exchange_their_second_children(sections, parts):
    """Every node still has one parent and every path goes on, but the paths are others: as good a tree as any."""
    children = parts[Section.TREE_CHILDREN].copy()
    a = inner_node(parts)
    b = next(i for i in range(a + 1, int(children[a])) if i + 1 < children[i] <= LEAF)
    children[[a, b]] = children[[b, a]]
    trees = opened(sections, parts, TREE_CHILDREN=children, RANDOM_TREES=with_head(parts, depth=MAX_DEPTH))
    q = queries(D, 5)
    assert trees.prior_leaves(q, 30).tolist() == [best_first(trees, d, 30, Order.PROBABILITY) for d in q]


@pytest.mark.parametrize("root", [1, 0, 0xFFFFFFFF, "nodes"])
def test_a_root_elsewhere(sections, parts, root):
    root = len(parts[Section.TREE_CHILDREN]) if root == "nodes" else root
    with pytest.raises(MapFormatError, match=r"out of range|under two others"):
        opened(sections, parts, **edited(parts, Section.TREE_ROOTS, 2, root))


def test_a_chain_deeper_than_it_says(sections, parts):
    """4,000 nodes under one another would take 4,000 steps."""
    links = 2000
    children = np.empty(2 * links + 1, "<u4")
    children[0:-1:2] = np.arange(links) * 2 + 2
    children[1::2] = np.arange(links) | LEAF + 1
    children[-1] = links | LEAF + 1
    chain = {
        "TREE_ROOTS": np.zeros(1, "<u4"),
        "TREE_TESTS": np.zeros(len(children), np.uint8),
        "TREE_CHILDREN": children,
        "TREE_LEAVES": np.zeros(links + 2, "<u4"),
        "TREE_LANDMARKS": b"",
    }
    head = {"trees": 1, "nodes": len(children), "leaves": links + 1, "entries": 0}
    with pytest.raises(MapFormatError, match=r"deeper than 23"):
        opened(sections, parts, RANDOM_TREES=with_head(parts, **head, depth=23), **chain)


def test_a_test_of_no_dimension(sections, parts):
    with pytest.raises(MapFormatError, match=r"not among its 32"):
        opened(sections, parts, **edited(parts, Section.TREE_TESTS, inner_node(parts), D))


@pytest.mark.parametrize(("index", "value"), [(0, 1), (4, 0), (4, 0xFFFFFFFF), (-1, 0), (-1, 0xFFFFFFFF)])
def test_leaves_that_overlap_or_fall(sections, parts, index, value):
    assert parts[Section.TREE_LEAVES][3] > 0
    with pytest.raises(MapFormatError, match=r"TREE_LEAVES does not rise"):
        opened(sections, parts, **edited(parts, Section.TREE_LEAVES, index, value))


@pytest.mark.parametrize("landmark", [400, 0xFFFFFFFF])
def test_a_landmark_that_the_map_does_not_have(sections, parts, landmark):
    last_of_leaf = int(parts[Section.TREE_LEAVES][3]) - 1
    with pytest.raises(MapFormatError, match=r"not among the map's 400"):
        opened(sections, parts, **edited(parts, Section.TREE_LANDMARKS, last_of_leaf, landmark))


def test_a_landmark_twice_in_a_leaf(sections, parts):
    offsets = parts[Section.TREE_LEAVES]
    leaf = int(np.flatnonzero(np.diff(offsets.astype(int)) > 1)[0])
    first = int(offsets[leaf])
    value = parts[Section.TREE_LANDMARKS][first]
    with pytest.raises(MapFormatError, match=r"do not rise"):
        opened(sections, parts, **edited(parts, Section.TREE_LANDMARKS, first + 1, value))


@pytest.mark.parametrize("kind", PARTS, ids=lambda kind: kind.name)
def test_damaged_bytes_are_noticed(sections, parts, kind):
    content = bytearray(to_map({**sections, **parts}).file.data)
    m = LocalizationMap.read(bytes(content))
    content[m.file.sections[kind].offset] ^= 0x10
    with pytest.raises(MapFormatError, match="checksum"):
        _ = LocalizationMap.read(bytes(content)).trees


def test_any_number_anywhere_is_refused_or_harmless(sections, parts):
    """Every answer of trees that open is in range, whatever stands in them."""
    rng = np.random.default_rng(0)
    numbers = [0, 1, 5, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF]
    refused = 0
    for _ in range(150):
        kind = PARTS[1 + rng.integers(len(PARTS) - 1)]
        part = parts[kind].copy()
        part.reshape(-1)[rng.integers(part.size)] = rng.choice(numbers) & np.iinfo(part.dtype).max
        try:
            trees = opened(sections, parts, **{kind.name: part})
        except MapFormatError:
            refused += 1
            continue
        found = trees.prior_leaves(queries(D, 3), 40)
        _, landmarks = trees.landmarks(found)
        assert found.max() < len(trees.offsets) - 1 and landmarks.max() < 400
    assert 40 < refused < 150
