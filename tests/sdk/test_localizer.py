"""The composed pipeline on a place without pictures; real pictures are in tests/test_end_to_end.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hfnet_edge import best
from hfnet_edge.errors import MismatchError
from hfnet_edge.features import Features
from hfnet_edge.localizer import Localizer, localize_features
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.result import Status
from hfnet_edge.trust.verdict import Verdict
from synthetic import CAMERA, EXTRACTOR, looking_at, place

OFFSET = np.array([1000.0, -2000.0, 50.0])


class NoNetwork(Model):
    """A model of which only the description is used."""

    def __init__(self, description=EXTRACTOR):
        self.path, self.description = Path("a.tflite"), description


@pytest.fixture(scope="module")
def here():
    p = place()
    return p, p.map()


def query_pose(angle=17.0):
    a = np.radians(angle)
    return looking_at(OFFSET + 14 * np.array([np.cos(a), np.sin(a), 0.2]), OFFSET)


@pytest.mark.parametrize("angle", [17.0, 100.0, 250.0])
def test_a_query_is_localized_in_world_coordinates(here, angle):
    p, m = here
    truth = query_pose(angle)
    result = localize_features(m, p.features(truth, noise=1.0, outliers=300), CAMERA)
    assert result.status is Status.LOCALIZED
    assert np.linalg.norm(result.pose.center - truth.center) < 0.05
    assert result.inliers > 100 and result.probability > 0.9 and result.wrong < 0.001
    assert result.inliers >= result.first_inliers > 0 and 0 < result.position_std < 0.05
    assert tuple(result.milliseconds) == ("retrieve", "cluster", "match", "pose", "second_look", "trust")


@pytest.mark.parametrize("refused", [False, True])
def test_matches_are_in_the_world_like_the_pose(here, refused, monkeypatch):
    p, m = here
    truth = query_pose()
    if refused:
        monkeypatch.setattr(best, "decide", lambda *_: Verdict(0.3, 0.6, accepted=False, ambiguous=False))
    result = localize_features(m, p.features(truth, noise=0.5), CAMERA)
    assert (result.pose is None) == refused
    matches = result.matches
    np.testing.assert_allclose(matches.xyz, p.landmarks[matches.landmarks], atol=1e-3)
    pose = result.pose or truth
    off = np.linalg.norm(CAMERA.project(pose.transform(matches.xyz)) - matches.xy, axis=1)
    assert np.median(off[result.inlier_mask]) < 2


def test_matches_without_a_pose_are_in_the_world_too(here):
    p, m = here
    features = p.features(query_pose(), noise=0.5)
    few = replace(features, keypoints=features.keypoints[:2], descriptors=features.descriptors[:2])
    result = localize_features(m, few, CAMERA)
    assert result.status is Status.TOO_FEW_MATCHES and len(result.matches) > 0
    np.testing.assert_allclose(result.matches.xyz, p.landmarks[result.matches.landmarks], atol=1e-3)


def test_the_answer_is_the_same_every_time(here):
    p, m = here
    features = p.features(query_pose(), noise=1.0, outliers=300)
    a, b = (localize_features(m, features, CAMERA) for _ in range(2))
    np.testing.assert_array_equal(a.pose.translation, b.pose.translation)
    np.testing.assert_array_equal(a.matches.landmarks, b.matches.landmarks)


def test_a_query_of_another_place_gets_no_pose(here):
    _, m = here
    other = place(seed=1)
    result = localize_features(m, other.features(query_pose(), outliers=500), CAMERA)
    assert result.pose is None and result.status in (Status.REJECTED, Status.TOO_FEW_MATCHES)
    assert result.probability < 0.5


def test_every_reason_has_its_status(here):
    p, m = here
    features = p.features(query_pose())
    empty = Features(
        np.zeros((0, 2)), np.zeros(0, np.float32), np.zeros((0, 32), np.int8), features.global_descriptor, 1.0
    )
    assert localize_features(m, empty, CAMERA).status is Status.NO_KEYPOINTS
    two = replace(
        features, keypoints=features.keypoints[:2], descriptors=features.descriptors[:2], scores=features.scores[:2]
    )
    assert localize_features(m, two, CAMERA).status is Status.TOO_FEW_MATCHES
    bare = place(landmarks=0).map()
    assert localize_features(bare, features, CAMERA).status is Status.NO_CANDIDATES


def test_a_model_with_other_weights_or_widths_is_refused_by_name(here):
    _, m = here
    Localizer(m, NoNetwork(replace(EXTRACTOR, precision="int8", input_size=(240, 320))))  # weights may differ in these
    for changed, word in [
        (replace(EXTRACTOR, weights_hash="f" * 32), "ffffffff"),
        (replace(EXTRACTOR, local_dim=64), "local"),
        (replace(EXTRACTOR, global_dim=8), "global"),
    ]:
        with pytest.raises(MismatchError, match=word):
            Localizer(m, NoNetwork(changed))
