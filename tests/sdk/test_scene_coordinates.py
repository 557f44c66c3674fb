"""Scene coordinates: what labels lead to, in a place without pictures, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import MapFormatError, MismatchError
from hfnet_edge.localizer import localize_query
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.scene_tree import SceneTree
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.methods.scene_coordinates import SceneCoordinates, landmarks_of
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.description import SCENE_ROLE
from hfnet_edge.networks.scene import SceneModel, rows_of
from hfnet_edge.result import Status
from hfnet_maps.content import content_of
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import in_file_order, lay_out, to_map
from synthetic import CAMERA, EXTRACTOR, looking_at, place

TRUTH = looking_at(np.array([1013.0, -1996.0, 52.0]), np.array([1000.0, -2000.0, 50.0]))
HASH = "5" * 32
TREE = SceneTree((4, 3), np.array([3, 1, -1, 0, 2, 2, 4, 5, 6, 7, 8, 9]), HASH)


class Told(SceneModel):
    """A scene network that names the landmark of the nearest descriptor; told an image, only those that it sees."""

    def __init__(self, source, weights_hash=HASH, by_image=False):
        dim = source.networks.local_dim
        self.path, self.widths, self.source = "told.tflite", {SCENE_ROLE: 3}, source
        self.description = replace(
            EXTRACTOR, weights_hash=weights_hash, outputs={SCENE_ROLE: SCENE_ROLE},
            input_size=(1, dim + 2 * by_image), global_dim=0, nms_radius=0,
        )  # fmt: skip
        self.asked: list[int] = []

    def raw(self, rows):
        descriptors = (rows[:, 0, : self.description.local_dim].astype(np.int16) - 128).astype(np.float32)
        known = np.ones(len(self.source.descriptors), bool)
        if self.takes_image:
            image = int(rows[0, 0, -2]) << 8 | int(rows[0, 0, -1])
            self.asked.append(image)
            known = self.source.images == image
        similar = descriptors @ self.source.descriptors[known].astype(np.float32).T
        landmark = self.source.landmarks[known][similar.argmax(axis=1)]
        score = similar.max(axis=1) - 0.8 * 127 * 127
        return np.stack([*np.divmod(landmark, 32), score], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def town():
    p = place()
    source = in_file_order(p.source())
    leaves = np.pad(np.arange(len(p.landmarks)), (0, 20 * 32 - len(p.landmarks)), constant_values=-1)
    return p, replace(source, scene=SceneTree((20, 32), leaves, HASH))


def localize(town, network=None, map_=None, **of_query):
    p, source = town
    method = scene_method(map_ or to_map(lay_out(source)), network or Told(source))
    features = p.features(TRUTH, noise=0.3, outliers=100, **of_query)
    return localize_query(method, Query(1.0, features), CAMERA)


def scene_method(map_, network):
    """Opened without a network of features, which come from elsewhere here."""
    return SceneCoordinates(map_, Networks(network), LocalizationConfig("scene-coordinates", max_wrong=0.9))


def plain_landmarks_of(tree, predicted):
    """`landmarks_of`, keypoint by keypoint."""
    best, found = {}, [-1] * len(predicted)
    for keypoint, (*labels, score) in enumerate(predicted.tolist()):
        if not score > 0 or not all(0 <= label < n for label, n in zip(labels, tree.branches, strict=True)):
            continue
        landmark = int(tree.landmarks[int(labels[0]) * tree.branches[1] + int(labels[1])])
        if landmark >= 0 and (landmark not in best or score > best[landmark][0]):
            best[landmark] = score, keypoint
    for landmark, (_, keypoint) in best.items():
        found[keypoint] = landmark
    return found


def test_labels_lead_to_landmarks_as_plain_loops_find():
    rng = np.random.default_rng(0)
    predicted = np.concatenate([rng.integers(-1, 5, (300, 2)), rng.integers(-2, 4, (300, 1))], axis=1)
    predicted = predicted.astype(np.float32)
    predicted[7, 0], predicted[8, 1], predicted[9, 0], predicted[10, 2] = np.nan, np.inf, 1e30, np.nan
    assert landmarks_of(TREE, predicted).tolist() == plain_landmarks_of(TREE, predicted)
    assert {2} <= set(landmarks_of(TREE, predicted).tolist())
    assert landmarks_of(TREE, predicted[:0]).tolist() == []


def test_a_landmark_keeps_the_surest_keypoint_and_of_equals_the_first():
    predicted = np.array([[1, 1, 2], [1, 2, 3], [1, 1, 3], [0, 0, 0]], np.float32)  # 2, 2, 2; a score of 0
    assert landmarks_of(TREE, predicted).tolist() == [-1, 2, -1, -1]


def test_another_number_of_levels_is_refused():
    with pytest.raises(MismatchError, match="3 levels, the map's tree has 2"):
        landmarks_of(TREE, np.zeros((5, 4), np.float32))


def test_rows_hold_descriptors_and_images():
    descriptors = np.array([[-127, 0, 127], [-128, 1, -1]], np.int8)
    assert rows_of(descriptors).tolist() == [[[1, 128, 255]], [[0, 129, 127]]]
    assert rows_of(descriptors, np.array([3, 700])).tolist() == [[[1, 128, 255, 0, 3]], [[0, 129, 127, 2, 188]]]


def test_a_pose_is_found_without_retrieval(town):
    r = localize(town)
    assert r.status is Status.LOCALIZED and pose_error(r.pose, TRUTH)[0] < 0.02
    assert len(r.prior_frames) == 0 and "retrieve" not in r.milliseconds and "predict" in r.milliseconds


def test_a_network_that_takes_an_image_is_told_the_retrieved_ones(town):
    network = Told(town[1], by_image=True)
    r = localize(town, network)
    assert r.status is Status.LOCALIZED and pose_error(r.pose, TRUTH)[0] < 0.02
    assert network.asked == r.prior_frames[: len(network.asked)].tolist() and len(network.asked) >= 3


def test_a_packed_map_leads_nowhere_for_landmarks_that_it_lost(town):
    p, source = town
    kept = np.arange(0, len(p.landmarks), 2)
    small = to_map(lay_out(source.without_keypoints().take(kept)))
    tree = small.scene_tree
    assert (tree.landmarks >= 0).sum() == len(kept) and len(tree.landmarks) == 640
    at = np.flatnonzero(source.scene.landmarks >= 0)
    for leaf in at[::37]:
        old, new = source.scene.landmarks[leaf], tree.landmarks[leaf]
        assert (new >= 0) == (old in kept)
        if new >= 0:
            np.testing.assert_allclose(
                small.in_world(small.positions(np.array([new])))[0], source.positions[old], atol=1e-3
            )
    r = localize(town, map_=small)
    assert r.status is Status.LOCALIZED and pose_error(r.pose, TRUTH)[0] < 0.03
    assert set(r.matches.landmarks.tolist()) <= set(range(len(kept)))


def test_a_tree_is_written_and_read(town):
    _, source = town
    map_ = to_map(lay_out(source))
    assert map_.file.data[8:12].tobytes() == bytes([2, 0, 4, 0])
    again = content_of(map_).scene
    assert again.branches == (20, 32) and again.weights_hash == HASH
    assert np.array_equal(again.landmarks, source.scene.landmarks)


def test_networks_and_maps_that_do_not_belong_together_are_refused_by_name(town):
    p, source = town
    map_, config = to_map(lay_out(source)), LocalizationConfig("scene-coordinates")

    class Extractor:
        path, description = "hfnet.tflite", EXTRACTOR

    with pytest.raises(MismatchError, match=r"scene network.*--model scene.tflite"):
        open_method(map_, Networks(Extractor()), config)
    with pytest.raises(MismatchError, match=f"built with weights {HASH}, told.tflite has {'6' * 32}"):
        open_method(map_, Networks(Extractor(), Told(source, "6" * 32)), config)
    assert open_method(map_, Networks(Extractor(), Told(source)), config).stages[-5:] == (
        "retrieve", "predict", "pose", "second_look", "trust",
    )  # fmt: skip
    with pytest.raises(MismatchError, match=r"no scene tree.*hfnet-map train"):
        open_method(p.map(), Networks(Extractor(), Told(source)), config)
    with pytest.raises(MismatchError, match=r"--method scene-coordinates"):
        open_method(map_, Networks(Extractor(), Told(source)), LocalizationConfig())
    with pytest.raises(MismatchError, match=r"no network does not give scene_labels"):
        open_method(map_, None, config)


@pytest.mark.parametrize(
    ("field", "value"),
    [("levels", 0), ("levels", 5), ("levels", 1), ("branches", [20, 31, 0, 0]), ("branches", [1025, 32, 0, 0]),
     ("branches", [20, 32, 0, 1]), ("branches", [2**32 - 1] * 4), ("landmarks", 599), ("landmarks", 2**32 - 1)],
)  # fmt: skip
def test_a_hostile_tree_is_refused(town, field, value):
    sections = dict(lay_out(town[1]))
    head = sections[Section.SCENE_TREE].copy()
    head[field] = value
    map_ = to_map(sections | {Section.SCENE_TREE: head})
    with pytest.raises(MapFormatError, match=r"scene tree|SCENE_LANDMARKS"):
        _ = map_.scene_tree
    with pytest.raises(MapFormatError):
        map_.check_all()


def test_a_tree_without_leaves_or_leaves_without_a_tree_are_refused(town):
    sections = lay_out(town[1])
    for missing in (Section.SCENE_TREE, Section.SCENE_LANDMARKS):
        map_ = to_map({kind: part for kind, part in sections.items() if kind != missing})
        with pytest.raises(MapFormatError, match=r"scene tree|SCENE_LANDMARKS"):
            map_.check_all()
    leaves = sections[Section.SCENE_LANDMARKS].copy()
    leaves[5] = 600
    with pytest.raises(MapFormatError, match="past the last landmark"):
        _ = to_map({**sections, Section.SCENE_LANDMARKS: leaves}).scene_tree


def test_other_methods_do_not_read_a_tree(town):
    sections = dict(lay_out(town[1]))
    sections[Section.SCENE_TREE] = np.zeros(56, np.uint8)

    class Extractor:
        path, description = "hfnet.tflite", EXTRACTOR

    method = open_method(to_map(sections), Networks(Extractor()), LocalizationConfig())
    assert localize_query(method, Query(1.0, town[0].features(TRUTH)), CAMERA).status is Status.LOCALIZED


def test_no_keypoints(town):
    p, source = town
    empty = replace(p.features(TRUTH), keypoints=np.zeros((0, 2)), descriptors=np.zeros((0, 32), np.int8))
    r = localize_query(scene_method(to_map(lay_out(source)), Told(source)), Query(1.0, empty), CAMERA)
    assert r.status is Status.NO_KEYPOINTS
    nothing = Told(source)
    nothing.raw = lambda rows: np.full((len(rows), 3), -1, np.float32)
    r = localize_query(scene_method(to_map(lay_out(source)), nothing), Query(1.0, p.features(TRUTH)), CAMERA)
    assert r.status is Status.NO_CANDIDATES and r.pose is None


def test_maps_of_before_open_as_they_did(town):
    assert isinstance(town[0].map(), LocalizationMap) and town[0].map().file.data[10] == 0


def test_auto_asks_a_scene_network_where_there_is_one(town):
    p, source = town
    map_ = to_map(lay_out(source))

    class Extractor:
        path, description = "hfnet.tflite", EXTRACTOR

    for networks, names in ((Networks(Extractor()), False), (Networks(Extractor(), Told(source)), True)):
        auto = open_method(map_, networks, LocalizationConfig("auto"))
        assert ("predict" in auto.stages) is names
    features = p.features(TRUTH, noise=0.3, outliers=50)
    r = localize_query(auto, Query(1.0, features), CAMERA)
    assert r.status is Status.LOCALIZED and r.found_by == "hierarchical" and "predict" not in r.milliseconds
    blind = {**lay_out(source)}  # nobody observes anything, so retrieval leads nowhere
    blind[Section.OBSERVATION_OFFSETS], blind[Section.OBSERVATION_LISTS] = np.zeros(13, "<u4"), b""
    auto = open_method(to_map(blind), networks, LocalizationConfig("auto", max_wrong=0.9))
    r = localize_query(auto, Query(1.0, features), CAMERA)
    assert r.found_by == "scene-coordinates" and pose_error(r.pose, TRUTH)[0] < 0.05
    with pytest.raises(MismatchError, match="built with weights"):
        open_method(map_, Networks(Extractor(), Told(source, "6" * 32)), LocalizationConfig("auto"))
    with pytest.raises(MismatchError, match="not asked for"):
        open_method(p.map(), Networks(Extractor(), Told(source)), LocalizationConfig("auto"))


def test_a_thousand_damaged_trees_are_read_or_refused(town):
    sections, rng = lay_out(town[1]), np.random.default_rng(5)
    kinds = (Section.SCENE_TREE, Section.SCENE_LANDMARKS)
    read = 0
    for _ in range(1000):
        changed = dict(sections)
        kind = kinds[int(rng.random() < 0.4)]
        content = bytearray(np.asarray(sections[kind]).tobytes())
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(content)))
            content[at] = int(rng.choice([0, 1, 31, 32, 127, 255, rng.integers(256)]))
        if rng.random() < 0.1:
            del content[-int(rng.integers(1, 60)) :]
        changed[kind] = bytes(content)
        map_ = to_map(changed)
        try:
            tree = map_.scene_tree
        except MapFormatError:
            continue
        read += 1
        predicted = rng.integers(-2, 40, (50, len(tree.branches) + 1)).astype(np.float32)
        found = landmarks_of(tree, predicted)
        assert ((found >= -1) & (found < map_.landmark_count)).all()
    assert 100 < read < 900
