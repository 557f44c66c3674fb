"""Random trees are grown as paper 002 says: tests that the tracks chose, each observation in the leaf of its bits."""

import math

import numpy as np
import pytest

import hfnet_maps.build.trees
from hfnet_edge.errors import InputError
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map.container import Section, version_of
from hfnet_edge.map.random_trees import LEAF, MAX_DEPTH, TREES, Order, RandomTrees
from hfnet_maps.build.trees import CANDIDATES, COST_STEPS, FEW, TREE_COUNT, Perturbation, tree_sections

HASH = "0123456789abcdef" * 2
DIMS = 48


def tracks(landmarks: int = 600, most: int = 5, noise: float = 0.05, seed: int = 0):
    """Descriptors (O, D) int8 and landmarks (O,) int64 of random landmarks, seen 1 to ``most`` times."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (landmarks, DIMS))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    ids = np.repeat(np.arange(landmarks), rng.integers(1, most + 1, landmarks))
    return quantize(centres[ids] + rng.normal(0, noise, (len(ids), DIMS))), ids


@pytest.fixture(scope="module")
def observed():
    return tracks()


@pytest.fixture(scope="module")
def sections(observed):
    return tree_sections(*observed, 600, HASH)


def head_of(sections):
    return np.frombuffer(sections[Section.RANDOM_TREES], TREES)[0]


def opened(sections) -> RandomTrees:
    head = head_of(sections)
    trees = RandomTrees(
        sections[Section.TREE_COSTS],
        sections[Section.TREE_ROOTS],
        sections[Section.TREE_TESTS],
        sections[Section.TREE_CHILDREN].view("<i4"),
        sections[Section.TREE_LEAVES],
        sections[Section.TREE_LANDMARKS],
    )
    assert trees._what_is_wrong(int(head["depth"]), int(head["dims"]), int(head["landmarks"])) == ""
    return trees


def leaf_of(trees: RandomTrees, root: int, descriptor: np.ndarray) -> tuple[int, int]:
    """The leaf that a descriptor's own bits lead to, and how deep it is."""
    node, depth = root, 0
    while trees.children[node] >= 0:
        node = int(trees.children[node]) if descriptor[trees.tests[node]] >= 0 else node + 1
        depth += 1
    return int(trees.children[node]) & LEAF, depth


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(np.asarray(a[k]), np.asarray(b[k])) for k in a)


# The trees


def test_a_leaf_holds_the_landmarks_whose_observations_lead_there(observed, sections):
    trees = opened(sections)
    assert len(trees.roots) == TREE_COUNT == 6
    held, depths = set(), []
    for d, landmark in zip(*observed, strict=True):
        for root in trees.roots:
            leaf, depth = leaf_of(trees, int(root), d)
            held.add((leaf, int(landmark)))
            depths.append(depth)
    leaf = np.repeat(np.arange(len(trees.offsets) - 1), np.diff(trees.offsets))
    assert set(zip(leaf.tolist(), trees.entries.tolist(), strict=True)) == held
    assert head_of(sections)["depth"] == max(depths) <= MAX_DEPTH


def test_every_landmark_is_in_every_tree(sections):
    trees = opened(sections)
    first = [int(trees.children[int(root) :][trees.children[int(root) :] < 0][0]) & LEAF for root in trees.roots]
    for start, stop in zip(first, [*first[1:], len(trees.offsets) - 1], strict=True):
        assert np.array_equal(np.unique(trees.entries[trees.offsets[start] : trees.offsets[stop]]), np.arange(600))


def test_leaves_hold_few_landmarks(sections):
    assert np.diff(opened(sections).offsets).max() <= FEW
    head = head_of(sections)
    assert head["nodes"] == 2 * head["leaves"] - 6 and head["dims"] == DIMS and head["landmarks"] == 600


def test_the_trees_differ(sections):
    trees = opened(sections)
    assert len(set(trees.tests[trees.roots].tolist())) > 2


def test_a_seed_decides_everything(observed, sections):
    assert same(tree_sections(*observed, 600, HASH), sections)
    assert not same(tree_sections(*observed, 600, HASH, seed=1), sections)


def test_the_order_of_landmarks_does_not_matter(observed, sections):
    descriptors, landmarks = observed
    shuffled = np.argsort(np.random.default_rng(0).permutation(600)[landmarks], kind="stable")
    assert same(tree_sections(descriptors[shuffled], landmarks[shuffled], 600, HASH), sections)


def test_blocks_change_nothing(observed, sections, monkeypatch):
    monkeypatch.setattr(hfnet_maps.build.trees, "BLOCK", 7)
    assert same(tree_sections(*observed, 600, HASH), sections)


def test_the_best_candidate_is_chosen(observed):
    """Against the definition, landmark by landmark."""
    descriptors, landmarks = observed
    soft = Perturbation.of(descriptors, landmarks).probabilities()[1].astype(np.float32)
    rows = np.arange(500, 560)
    rows = rows[np.lexsort((landmarks[rows], rows >= 530))]
    node = (rows >= 530).astype(np.int64)
    best = hfnet_maps.build.trees._best_tests(descriptors, landmarks, soft, rows, node, np.random.default_rng(4))
    candidates = np.random.default_rng(4).integers(DIMS, size=(2, CANDIDATES))

    def h(p):
        return -sum(v * math.log2(v) for v in (p, 1 - p) if v > 0)

    for k in range(2):
        scores = []
        for d in candidates[k]:
            mine = rows[node == k]
            p = [
                np.mean([soft[int(v) % 256] for v in descriptors[mine[landmarks[mine] == i], d]])
                for i in np.unique(landmarks[mine])
            ]
            scores.append(h(np.mean(p)) - np.mean([h(v) for v in p]))
        assert best[k] == candidates[k][np.argmax(scores)] and max(scores) > 0.1


def test_a_stable_bit_is_preferred_to_an_undecided_one():
    """Both halve the landmarks; one is as near to zero as views differ."""
    rng = np.random.default_rng(0)
    landmarks = np.repeat(np.arange(200), 4)
    descriptors = np.ones((800, 2), np.int8)
    descriptors[:, 0] = np.repeat(rng.choice([-60, 60], 200), 4)
    descriptors[:, 1] = np.repeat(rng.choice([-3, 3], 200), 4) + rng.integers(-5, 6, 800)
    trees = opened(tree_sections(descriptors, landmarks, 200, HASH))
    assert (trees.tests[trees.roots] == 0).all()


@pytest.mark.parametrize("landmarks", [1, FEW, 5 * FEW])
def test_descriptors_that_nothing_separates_stay_together(landmarks):
    d = np.tile(np.arange(-10, 10, dtype=np.int8), (2 * landmarks, 1))
    trees = opened(tree_sections(d, np.arange(2 * landmarks) // 2, landmarks, HASH))
    assert len(trees.children) == 6
    rows, found = trees.landmarks(trees.prior_leaves(d[:1]))
    assert found.tolist() == list(range(landmarks)) and not rows.any()


def test_depth_ends_at_23():
    """Each landmark differs from the last in one bit that no other has: a tree can only split them off one by one."""
    d = np.where(np.eye(200, dtype=bool), 50, -50).astype(np.int8)
    sections = tree_sections(d, np.arange(200), 200, HASH)
    trees = opened(sections)
    assert head_of(sections)["depth"] == MAX_DEPTH
    assert np.diff(trees.offsets).max() > 100 and set(trees.entries.tolist()) == set(range(200))


def test_no_observations_and_landmarks_that_nobody_saw():
    sections = tree_sections(np.zeros((0, DIMS), np.int8), np.zeros(0, np.int64), 3, HASH)
    trees = opened(sections)
    assert len(trees.children) == 6 and len(trees.entries) == 0
    assert (trees.prior_leaves(np.ones((1, DIMS), np.int8))[:, :6] == np.arange(6)).all()


def test_another_view_is_found_where_it_should_be(observed, sections):
    """Recall is far above the share visited, rises with the leaves, and the probability model has more of it."""
    trees = opened(sections)
    descriptors, landmarks = observed
    rng = np.random.default_rng(7)
    first = np.unique(landmarks, return_index=True)[1]
    query = quantize(descriptors[first] / 127 + rng.normal(0, 0.06, (600, DIMS)))
    recall = {}
    for order in Order:
        for count in (4, 12, 40):
            rows, found = trees.landmarks(trees.prior_leaves(query, count, order))
            recall[order, count] = (rows == found).mean() * len(rows) / 600
            if order is Order.PROBABILITY:
                assert recall[order, count] > 3 * len(rows) / 600 / 600 or count == 40
    assert recall[Order.PROBABILITY, 4] < recall[Order.PROBABILITY, 12] < recall[Order.PROBABILITY, 40]
    assert recall[Order.PROBABILITY, 40] > 0.9
    assert all(recall[Order.PROBABILITY, count] > recall[Order.ABSOLUTE, count] for count in (4, 12))


# The perturbation


def test_the_perturbation_is_that_between_observations():
    rng = np.random.default_rng(0)
    landmarks = np.repeat(np.arange(20_000), 2)
    d = np.repeat(rng.normal(0, 20, (20_000, 4)), 2, axis=0)
    d[1::2] += rng.normal(1.5, 6, (20_000, 4))
    p = Perturbation.of(np.clip(np.rint(d), -127, 127).astype(np.int8), landmarks)
    assert p.mu == pytest.approx(1.5, abs=0.1) and p.sigma == pytest.approx(6, rel=0.02)


def test_pairs_of_different_landmarks_do_not_count():
    assert Perturbation.of(np.array([[9], [-9], [9]], np.int8), np.arange(3)) == Perturbation(0.0, 1.0)
    assert Perturbation.of(np.array([[9], [9], [-90]], np.int8), np.array([0, 0, 1])) == Perturbation(0.0, 1.0)


def test_costs_are_those_of_equation_6():
    costs = Perturbation(0.5, 4.0).costs()
    assert costs.dtype == np.uint16 and costs.shape == (2, 256)
    for value in (-9, -1, 0, 3, 10):
        one = 1 - 0.5 * math.erfc((value + 0.5) / 4 / math.sqrt(2))
        assert costs[1, value % 256] == round(-math.log2(one) * COST_STEPS)
        assert costs[0, value % 256] == round(-math.log2(1 - one) * COST_STEPS)
    assert (np.diff(costs[0].view().astype(int)[:128]) >= 0).all() and costs[0, 127] == 65535 and costs[0, 128] == 0


# What does not go


def test_more_dimensions_than_a_node_can_name():
    with pytest.raises(InputError, match="257 dimensions; 256 are possible"):
        tree_sections(np.zeros((2, 257), np.int8), np.zeros(2, np.int64), 1, HASH)
    assert len(tree_sections(np.zeros((2, 256), np.int8), np.zeros(2, np.int64), 1, HASH)) == 7


@pytest.mark.parametrize("landmark", [-1, 5])
def test_a_landmark_that_is_none(landmark):
    with pytest.raises(InputError, match="not among the map's 5"):
        tree_sections(np.zeros((2, 8), np.int8), np.array([0, landmark]), 5, HASH)


def test_only_a_file_with_trees_needs_the_newer_version(sections):
    assert version_of(sections) == (2, 1) and version_of([kind for kind in Section if kind < 16]) == (2, 0)
    assert version_of([*sections, Section.CALIBRATION]) == (2, 2)


def test_progress_ends_where_it_says(observed):
    seen = []
    tree_sections(*observed, 600, HASH, progress=lambda what, done, total, note="": seen.append((done, total)))
    done = [d for d, _ in seen]
    assert done == sorted(done) and done[-1] == seen[-1][1] and len({t for _, t in seen}) == 1
