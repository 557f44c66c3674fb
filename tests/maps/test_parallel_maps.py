"""Maps whose landmarks a patch network describes: what building, merging and packing keep of them."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.container import Section
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.methods.registry import open_method
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.result import Status
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.merge import merge
from hfnet_maps.content import MapNetworks, content_of
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.ladder import Ladder
from hfnet_maps.pack.writer import built_sections, size_of, to_map
from synthetic import CAMERA, EXTRACTOR, place

PATCHES = replace(
    EXTRACTOR, architecture="patches", weights_hash="1" * 32, global_dim=0, outputs={"patch_descriptors": "out"}
)
PARALLEL = LocalizationConfig("parallel")


def patch_source(seed=0, prefix=""):
    source = place(seed).source()
    names = tuple(f"{prefix}{name}" for name in source.names)
    return replace(source, networks=MapNetworks.of(PATCHES, EXTRACTOR), names=names)


def check(model, map_, patches):
    """Whether a method opens in the map with networks of these descriptions."""
    networks = [SimpleNamespace(description=d, path="a.tflite") for d in (model, patches) if d is not None]
    open_method(map_, Networks(*networks), LocalizationConfig())


def test_a_map_of_two_networks_knows_both():
    p = place()
    features = [p.features(pose) for pose in p.poses]
    source, _ = map_from_features(
        [str(i) for i in range(len(features))],
        [CAMERA] * len(features),
        p.poses,
        features,
        PATCHES,
        retrieval=EXTRACTOR,
    )
    m = to_map(built_sections(source))
    assert (m.description.weightsHash, m.description.globalWeightsHash) == ("1" * 32, "0" * 32)
    assert content_of(m).networks == source.networks
    check(EXTRACTOR, m, PATCHES)
    other = "2" * 32
    for model, patches, said in (
        (EXTRACTOR, None, "patch network"),
        (replace(EXTRACTOR, weights_hash=other), PATCHES, "has 22222222"),
        (EXTRACTOR, replace(PATCHES, weights_hash=other), "has 22222222"),
        (EXTRACTOR, replace(PATCHES, local_dim=16), "32-D local"),
    ):
        with pytest.raises(MismatchError, match=said):
            check(model, m, patches)
    with pytest.raises(MismatchError, match="not asked for"):
        check(EXTRACTOR, to_map(built_sections(replace(source, networks=MapNetworks.of(EXTRACTOR)))), PATCHES)


def test_a_map_of_one_network_gets_no_trees():
    assert Section.RANDOM_TREES not in built_sections(place().source())
    assert Section.RANDOM_TREES in built_sections(patch_source())


def test_merging_grows_the_trees_anew():
    a, b = patch_source(0, "a/"), patch_source(1, "b/")
    m = to_map(built_sections(merge([a, b], ["a", "b"])))
    assert m.landmark_count == len(a.positions) + len(b.positions)
    assert set(m.trees.entries.tolist()) == set(range(m.landmark_count))
    for seed in (0, 1):
        p = place(seed)
        r = localize_features(m, p.features(p.poses[2]), CAMERA, PARALLEL)
        assert r.status is Status.LOCALIZED and np.linalg.norm(r.pose.center - p.poses[2].center) < 0.05
    with pytest.raises(MismatchError, match="weights"):
        merge([a, replace(b, networks=MapNetworks.of(EXTRACTOR))], ["a", "b"])


@pytest.fixture(scope="module")
def ladder():
    """Of `patch_source`; what a budget gets does not depend on who climbed it before."""
    return Ladder(patch_source())


def test_packing_keeps_trees_within_the_budget(ladder):
    source = patch_source()
    whole = built_sections(source)
    without = size_of({kind: part for kind, part in whole.items() if kind < Section.SOURCE_IMAGES})
    budget = without // 2
    sections, (chosen, *_) = choose(source, budget, ladder=ladder)
    assert size_of(sections) <= budget
    m = to_map(sections)
    assert m.landmark_count == chosen.landmarks < len(source.positions)
    assert set(m.trees.entries.tolist()) == set(range(m.landmark_count))
    p = place()
    r = localize_features(m, p.features(p.poses[4]), CAMERA, PARALLEL)
    assert r.status is Status.LOCALIZED and np.linalg.norm(r.pose.center - p.poses[4].center) < 0.1


def test_a_packed_map_loses_its_trees_when_packed_again(ladder):
    sections, _ = choose(patch_source(), 60_000, ladder=ladder)
    again, _ = choose(content_of(to_map(sections)), 40_000)
    assert Section.RANDOM_TREES in sections and Section.RANDOM_TREES not in again
    with pytest.raises(MismatchError, match="tree"):
        _ = to_map(again).trees


@pytest.mark.parametrize("budget", [2300, 3000, 5000, 9000, 20_000])
def test_packing_never_takes_more_than_the_budget(ladder, budget):
    try:
        sections, _ = choose(patch_source(), budget, ladder=ladder)
    except InputError as e:
        assert "too small" in e.problem and budget < 6000
    else:
        assert size_of(sections) <= budget
