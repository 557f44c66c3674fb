"""Candidates from leaves and frames, searched linearly: against a search that compares everything, one by one."""

import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import Localizer, localize_features
from hfnet_edge.map import random_trees
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.methods import parallel_search
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.methods.parallel_search import search, seen_by
from hfnet_edge.result import Status
from hfnet_maps.build.merge import merge
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import built_sections, in_file_order, lay_out, to_map, trees_of
from synthetic import CAMERA, place

NONE = np.zeros(0, np.int64)


def patch_source(p, prefix=""):
    """A place as if a patch network had described its landmarks."""
    source = p.source()
    networks = replace(source.networks, global_weights_hash="1" * 32)
    return replace(source, networks=networks, names=tuple(f"{prefix}{name}" for name in source.names))


def patch_map(p, trees=True):
    """The map of such a place."""
    source = patch_source(p)
    return to_map(built_sections(source) if trees else lay_out(in_file_order(source)))


def slow_search(query, m, shared, rows, landmarks):
    """What `search` promises, one keypoint after the other: {keypoint: landmark}."""
    everything, owners = m.descriptors(np.arange(m.landmark_count))
    found = {}
    for i, descriptor in enumerate(m.codec.query(query.descriptors).astype(int)):
        candidates = sorted({*shared.tolist(), *landmarks[rows == i].tolist()})
        near = sorted(
            (int(((everything[r].astype(int) - descriptor) ** 2).sum()), c)
            for c in candidates
            for r in np.flatnonzero(owners == c)
        )[:2]
        if len(near) == 2 and (near[0][1] == near[1][1] or near[0][0] * 100**2 < near[1][0] * 95**2):
            found[i] = near[0]
    best = {}
    for i, (distance, landmark) in found.items():
        best.setdefault(landmark, []).append((distance, i))
    return {min(claims)[1]: landmark for landmark, claims in best.items()}


@pytest.mark.parametrize(("frames", "per_keypoint"), [(0, 12), (3, 0), (2, 12), (0, 1), (1, 1)])
def test_search_equals_the_slow_one(frames, per_keypoint):
    p = place(landmarks=120)
    m = patch_map(p, trees=False)
    query = p.features(p.poses[0], outliers=20)
    shared = seen_by(m, np.arange(frames))[:40]
    rng = np.random.default_rng(1)
    pairs = [
        (i, c) for i in range(len(query.keypoints)) for c in np.sort(rng.permutation(m.landmark_count)[:per_keypoint])
    ]
    rows, landmarks = np.array(pairs, np.int64).reshape(-1, 2).T
    expected = slow_search(query, m, shared, rows, landmarks)
    assert expected or per_keypoint == 1  # a single candidate of its own need not be the right one
    cut = np.searchsorted(rows, [0, 1, 30, 31, 31, 90, len(query.keypoints)])
    for blocks in ([(rows, landmarks)], [(rows[a:b], landmarks[a:b]) for a, b in pairwise(cut)]):
        matches = search(query, m, shared, blocks)
        assert dict(zip(matches.keypoints.tolist(), matches.landmarks.tolist(), strict=True)) == expected
        assert np.array_equal(matches.xy, query.keypoints[matches.keypoints])


@pytest.mark.parametrize("descriptors", ["one", "several"])
@pytest.mark.parametrize("shared", [5, 7])
def test_a_single_shared_landmark_is_a_candidate_too(shared, descriptors):
    """Once, even where it is among a keypoint's own."""
    p = place(landmarks=120)
    source = in_file_order(p.source())
    if descriptors == "one":
        source = Packer(source).pack(Settings(CodecName.INT8, 32, 0, 1, 16), 120)
    m = patch_map(p, trees=False) if descriptors == "several" else to_map(source)
    assert (len(m.descriptors(np.array([shared]))[0]) == 1) == (descriptors == "one")
    query = p.features(p.poses[0], outliers=40)
    found = 0
    for i in range(len(query.keypoints)):  # one at a time, or the landmark's own keypoint would hide wrong ones
        one = replace(query, keypoints=query.keypoints[i : i + 1], descriptors=query.descriptors[i : i + 1])
        rows, landmarks = np.zeros(2, np.int64), np.array([7, 9])
        matches = search(one, m, np.array([shared]), [(rows, landmarks)])
        expected = slow_search(one, m, np.array([shared]), rows, landmarks)
        assert dict(zip(matches.keypoints.tolist(), matches.landmarks.tolist(), strict=True)) == expected
        found += len(expected)
    assert 10 < found < len(query.keypoints)


def test_candidates_of_frames_are_those_that_they_observe():
    m = patch_map(place(landmarks=120), trees=False)
    expected = sorted(set(m.observed(2).tolist()) | set(m.observed(7).tolist()))
    assert seen_by(m, np.array([7, 2])).tolist() == expected
    assert seen_by(m, NONE).tolist() == []


@pytest.mark.parametrize("method", ["retrieval", "trees", "trees-absolute", "parallel"])
def test_every_method_finds_the_pose(method):
    p = place()
    m = patch_map(p)
    pose = p.poses[3]
    r = localize_features(m, p.features(pose, outliers=50), CAMERA, LocalizationConfig(method))
    assert r.status is Status.LOCALIZED
    assert np.linalg.norm(r.pose.center - pose.center) < 0.05
    assert (len(r.prior_frames) > 0) == (method in ("retrieval", "parallel"))


def test_parallel_survives_wrong_frames_and_retrieval_does_not():
    """Two places in one map, and frames of the other one: they see nothing of what the query sees."""
    places = [place(seed) for seed in (0, 1)]
    sources = [patch_source(p, f"{i}/") for i, p in enumerate(places)]
    m = to_map(built_sections(merge(sources, ["a", "b"])))
    pose = places[0].poses[3]
    query = places[0].features(pose)
    found = {}
    for method in ("retrieval", "parallel"):
        for frames, descriptor in (("right", query.global_descriptor), ("wrong", places[1].globals_[3])):
            asked, config = (
                replace(query, global_descriptor=descriptor),
                LocalizationConfig(method, prior_frame_count=2),
            )
            found[method, frames] = localize_features(m, asked, CAMERA, config)
            first = m.image_names[found[method, frames].prior_frames[0]]
            assert first.startswith("0/" if frames == "right" else "1/")
    wrong = found.pop(("retrieval", "wrong"))
    assert wrong.status in (Status.REJECTED, Status.TOO_FEW_MATCHES) and wrong.pose is None
    for r in found.values():
        assert r.status is Status.LOCALIZED and np.linalg.norm(r.pose.center - pose.center) < 0.05


@pytest.mark.parametrize("method", ["trees", "parallel"])
def test_blocks_do_not_change_the_result(monkeypatch, method):
    p = place()
    m, query = patch_map(p), p.features(p.poses[3], outliers=50)
    found = [localize_features(m, query, CAMERA, LocalizationConfig(method))]
    monkeypatch.setattr(random_trees, "GATHERED", 1)
    found += [localize_features(m, query, CAMERA, LocalizationConfig(method))]
    assert found[0].status is Status.LOCALIZED
    assert len({(r.matches.keypoints.tobytes(), r.matches.landmarks.tobytes()) for r in found}) == 1


def test_nothing_to_search_in():
    p = place()
    m = patch_map(p)
    query = p.features(p.poses[0])
    config = LocalizationConfig("parallel")
    none = replace(query, keypoints=query.keypoints[:0], scores=query.scores[:0], descriptors=query.descriptors[:0])
    assert localize_features(m, none, CAMERA, config).status is Status.NO_KEYPOINTS
    few = replace(query, keypoints=query.keypoints[:3], scores=query.scores[:3], descriptors=query.descriptors[:3])
    assert localize_features(m, few, CAMERA, config).status is Status.TOO_FEW_MATCHES


@pytest.mark.parametrize(
    "sizes",
    [{}, {"BATCH": 1}, {"ASKING": 1}, {"ASKING": 5, "BATCH": 2000}, {"PRODUCT": 1}, {"PRODUCT": 700, "FEW": 2}],
    ids=str,
)
def test_keypoints_that_share_leaves(monkeypatch, sizes):
    """A landmark in several of a keypoint's leaves counts once; however the work is cut."""
    p = place(landmarks=60)
    m, query = patch_map(p), p.features(p.poses[0], outliers=20)
    trees = m.trees
    leaves = trees.prior_leaves(query.descriptors, 9)
    leaves[5], leaves[6, 3:] = -1, -1
    pairs = trees.landmarks(leaves)
    for name, size in sizes.items():
        monkeypatch.setattr(parallel_search, name, size)
    found = 0
    for shared in (NONE, seen_by(m, np.arange(1))[:20]):
        expected = slow_search(query, m, shared, *pairs)
        matches = search(query, m, shared, trees.blocks(leaves))
        assert dict(zip(matches.keypoints.tolist(), matches.landmarks.tolist(), strict=True)) == expected
        found += len(expected)
    assert found > 20


@pytest.mark.parametrize("codec", [CodecName.INT8, CodecName.PQ, CodecName.BINARY])
@pytest.mark.parametrize("per_landmark", [1, 4])
def test_codecs_are_searched_alike(codec, per_landmark):
    p = place(landmarks=100)
    source = in_file_order(patch_source(p))
    settings = Settings(codec, 32, 8 if codec is CodecName.PQ else 0, per_landmark, 16)
    m = to_map({**Packer(source).pack(settings, 100), **trees_of(source)})
    query = p.features(p.poses[0], outliers=20)
    trees = m.trees
    leaves = trees.prior_leaves(query.descriptors, 5)
    expected = slow_search(query, m, NONE, *trees.landmarks(leaves))
    matches = search(query, m, NONE, trees.blocks(leaves))
    assert dict(zip(matches.keypoints.tolist(), matches.landmarks.tolist(), strict=True)) == expected
    assert len(expected) > 10


def test_equals_rank_by_landmark_across_leaves():
    """Everything looks the same: the nearest two are of the lowest landmark, which a second leaf does not repeat."""
    p = place(landmarks=60)
    source = p.source()
    m = to_map(lay_out(replace(source, descriptors=np.tile(source.descriptors[:1], (len(source.descriptors), 1)))))
    query = p.features(p.poses[0])
    one = replace(query, keypoints=query.keypoints[:1], descriptors=source.descriptors[:1])
    assert len(m.descriptors(np.array([3]))[0]) >= 2
    for landmarks in ([8, 9, 3, 11, 3], [3, 9, 3, 8, 3]):
        assert search(one, m, NONE, [(np.zeros(5, np.int64), np.array(landmarks))]).landmarks.tolist() == [3]
    single = to_map(Packer(in_file_order(source)).pack(Settings(CodecName.INT8, 32, 0, 1, 16), 60))
    twice = [(np.zeros(2, np.int64), np.array([3, 3]))]
    assert len(search(one, single, NONE, twice)) == 0, "one descriptor, in two leaves, is no second nearest"


def test_a_landmark_of_many_descriptors_takes_little_memory():
    """20,000 descriptors of one landmark, which 2,000 keypoints may show, all compared at once would take 160 MB."""
    p = place(landmarks=60)
    source, rng = p.source().without_keypoints(), np.random.default_rng(0)
    many = quantize(rng.normal(size=(20_000, 32)))
    source = replace(
        source, descriptors=np.concatenate([many, source.descriptors]),
        described=np.concatenate([np.zeros(20_000, np.int64), source.described]),
    )  # fmt: skip
    m, query = to_map(lay_out(source)), p.features(p.poses[0], outliers=1960)
    rows = np.arange(len(query.keypoints))
    tracemalloc.start()
    try:
        matches = search(query, m, NONE, [(rows, np.zeros(len(rows), np.int64))])
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()
    assert matches.landmarks.tolist() == [0], "the nearest two are of one landmark, and the nearest keypoint keeps it"


def test_a_map_without_trees_is_refused():
    p = place()
    m = patch_map(p, trees=False)
    with pytest.raises(MismatchError, match="tree") as e:
        localize_features(m, p.features(p.poses[0]), CAMERA, LocalizationConfig("trees"))
    assert "--method parallel" in e.value.remedy


def test_models_and_maps_that_do_not_belong_together(kit):
    p = place()
    with pytest.raises(MismatchError, match="patch network"):
        Localizer(patch_map(p), kit.int8)


@pytest.mark.parametrize(
    "wrong", [{"prior_leaf_count": 0}, {"prior_leaf_count": -1}, {"prior_frame_count": 0}, {"prior_frame_count": -3}]
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        LocalizationConfig("parallel", **wrong)


@pytest.mark.parametrize("what", ["nodes", "landmarks"])
@pytest.mark.parametrize("method", ["trees", "parallel"])
def test_a_map_that_asks_too_much_is_given_up(monkeypatch, what, method):
    """By name, and at once; the same map within the limit, and without trees, is searched."""
    p = place()
    m, query = patch_map(p), p.features(p.poses[3], outliers=50)
    config = LocalizationConfig(method)
    assert localize_features(m, query, CAMERA, config).status is Status.LOCALIZED
    monkeypatch.setattr(random_trees, "BESIDES", 0)
    monkeypatch.setattr(random_trees, {"nodes": "WALK", "landmarks": "HELD"}[what], 0)
    r = localize_features(m, query, CAMERA, config)
    assert r.status is Status.SEARCH_LIMIT and r.pose is None and r.matches is None
    assert len(r.prior_frames) == (12 if method == "parallel" else 0) and "trees" in r.milliseconds
    assert localize_features(m, query, CAMERA, LocalizationConfig("retrieval")).status is Status.LOCALIZED
