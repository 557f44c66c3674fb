"""What each stage costs: one stage is changed, and only its step may move the camera, by what can be computed apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.record.recording import Matched, Recording
from hfnet_maps.evaluation.errors import pose_error
from hfnet_parity.compare import compare
from hfnet_parity.costs import costliest, costs


def other_image(features, rng):
    return replace(features, global_descriptor=quantize(rng.normal(size=(1, len(features.global_descriptor))))[0])


def half_of_them(features, rng):
    kept = np.s_[::2]
    return replace(
        features,
        keypoints=features.keypoints[kept],
        scores=features.scores[kept],
        descriptors=features.descriptors[kept],
    )


def aside(features, rng):
    offsets = rng.uniform(-0.4, 0.4, features.keypoints.shape) * features.pixel
    return replace(features, keypoints=features.keypoints + offsets)


def noisy(features, rng):
    vectors = features.descriptors + rng.normal(0, 6, features.descriptors.shape)
    return replace(features, descriptors=quantize(vectors))


def localized(kit, change) -> Recording:
    """The reference's queries with changed features, localized anew."""
    m, rng = LocalizationMap.open(kit.map), np.random.default_rng(0)
    queries = []
    for q in kit.bundle.recording.queries:
        features = change(q.features, rng)
        result = localize_features(m, features, q.camera)
        found = result.matches
        matched = None
        if found is not None:
            inliers = np.zeros(len(found), bool) if result.inlier_mask is None else result.inlier_mask
            matched = Matched(found.keypoints, found.landmarks, found.xyz, inliers)
        frames = tuple(m.image_names[i] for i in result.prior_frames)
        queries.append(
            replace(
                q, features=features, matched=matched, prior_frames=frames, pose=result.pose, status=result.status.value
            )
        )
    return replace(kit.bundle.recording, queries=tuple(queries))


@pytest.mark.parametrize(
    ("change", "step"),
    [(other_image, "retrieval"), (half_of_them, "detection"), (aside, "positions"), (noisy, "descriptors")],
)
def test_only_the_changed_stage_costs(kit, change, step):
    reference, run = kit.bundle.recording, localized(kit, change)
    comparison = compare(reference, run, {}, kit.bundle.thresholds, {}, "quantized", "test")
    found = {cost.step: cost for cost in costs(comparison, LocalizationMap.open(kit.map))}
    expected = np.array(
        [
            (0.0 if a.pose is b.pose else np.inf) if a.pose is None or b.pose is None else pose_error(b.pose, a.pose)[0]
            for a, b in zip(reference.queries, run.queries, strict=True)
        ]
    )
    assert (expected > 0).any(), "the change changes something"
    np.testing.assert_allclose(found[step].each, expected, atol=1e-9)
    finite = expected[np.isfinite(expected)]
    assert found[step].changed == len(expected) - len(finite)
    assert found[step].moved == pytest.approx(np.median(finite) if len(finite) else 0, abs=1e-9)
    inliers = [
        [q.matched.inliers.sum() for q in r.queries] for r in (reference, run) if all(q.matched for q in r.queries)
    ]
    if len(inliers) == 2:
        lost = 100 * np.mean([(a - b) / a for a, b in zip(*inliers, strict=True)])
        assert found[step].inliers == pytest.approx(lost)
    for other in found.values():
        if other.step != step:
            assert (other.each < 1e-9).all() and other.changed == 0 and other.inliers == 0, other.step
    assert costliest(tuple(found.values())).step == step


def test_poses_that_come_or_go_cost_more_than_centimetres(kit):
    reference = kit.bundle.recording
    one = next(q.name for q in reference.queries if q.pose is not None)
    lost = replace(reference, queries=tuple(replace(q, pose=None) if q.name == one else q for q in reference.queries))
    comparison = compare(reference, lost, {}, kit.bundle.thresholds, {}, "quantized", "test")
    found = costs(comparison, LocalizationMap.open(kit.map))
    assert costliest(found).step == "solver" and costliest(found).changed == 1 and costliest(found).moved < 1e-9


def test_recordings_without_features_have_no_costs(kit):
    reference = kit.bundle.recording
    bare = replace(reference, queries=tuple(replace(q, features=None) for q in reference.queries))
    comparison = compare(reference, bare, {}, kit.bundle.thresholds, {}, "hloc", "test")
    assert costs(comparison, LocalizationMap.open(kit.map)) == () and costliest(()) is None
