"""Numbers of the report, on recordings made by code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import InputError, MismatchError, RecordingError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.record.recording import Matched, QueryRecord, Recording
from hfnet_edge.record.recording_file import read_recording, to_bytes
from hfnet_maps.evaluation.errors import THRESHOLDS
from hfnet_parity.compare import compare, recall_lost
from hfnet_parity.measures import MEASURES
from hfnet_parity.tolerances import BUILT_IN, profile_of, read_tolerances
from synthetic import CAMERA, looking_at

ABOUT = {
    "processor": "CPU, LiteRT",
    "kernels": "XNNPACK",
    "solver": "usac",
    "precision": "int8",
    "model_hash": "a",
    "map_hash": "b",
}


def a_recording(queries: int = 5, seed: int = 0) -> Recording:
    rng = np.random.default_rng(seed)
    records = []
    for i in range(queries):
        pose = looking_at(np.array([15.0, i, 1.0]), np.zeros(3))
        xyz = rng.uniform(-4, 4, (80, 3))
        xy = CAMERA.project(pose.transform(xyz))
        descriptors = quantize(rng.normal(size=(80, 32)))
        records.append(
            QueryRecord(
                f"{i}.jpg",
                CAMERA,
                f"{i}",
                rng.integers(0, 256, (6, 8)).astype(np.uint8),
                {"global_descriptor": f"{i}"},
                {"global_descriptor": rng.normal(size=16).astype(np.float32)},
                Features(xy, np.ones(80, np.float32), descriptors, quantize(rng.normal(size=(1, 16)))[0], 1.5),
                ("a.jpg", "b.jpg", "c.jpg", "d.jpg"),
                Matched(np.arange(60), np.arange(60) + 7, xyz[:60], np.arange(60) < 40),
                "LOCALIZED",
                pose,
                0.97,
                0.01,
                np.diag([1e-6, 1e-6, 1e-6, 4e-4, 4e-4, 1e-4]),
            )
        )
    return Recording(dict(ABOUT), {"a.jpg": np.array([1.0, 0, 0, 0, 1, 2, 3])}, tuple(records))


def changed(recording: Recording, **fields) -> Recording:
    """With a function of each query's old value for each field."""
    queries = tuple(
        replace(q, **{key: change(getattr(q, key)) for key, change in fields.items()}) for q in recording.queries
    )
    return replace(recording, queries=queries)


def compared(a: Recording, b: Recording, truth=None, profile="identical"):
    return compare(a, b, truth or {}, THRESHOLDS, read_tolerances(profile), profile, "test")


def test_a_recording_comes_back_from_its_file():
    recording = a_recording()
    content = to_bytes(recording)
    again = read_recording(content, "it")
    assert to_bytes(again) == content == to_bytes(recording)
    assert compared(recording, again).broken is None
    a, b = recording.queries[2], again.queries[2]
    np.testing.assert_array_equal(a.pose.translation, b.pose.translation)
    np.testing.assert_array_equal(a.features.keypoints, b.features.keypoints)
    np.testing.assert_array_equal(a.covariance, b.covariance)
    for name in ("camera", "prior_frames", "status", "probability", "wrong"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.features.pixel == b.features.pixel


def test_missing_stages_come_back_as_missing():
    fields = ("features", "matched", "prior_frames", "pose", "thumbnail", "probability", "wrong", "covariance")
    none = dict.fromkeys(fields, lambda _: None)
    empty = {"output_hashes": lambda _: {}, "outputs": lambda _: {}, "input_hash": lambda _: ""}
    bare = changed(a_recording(), **none, **empty)
    again = read_recording(
        to_bytes(replace(bare, queries=tuple(replace(q, status="REJECTED") for q in bare.queries))), "it"
    )
    assert all(getattr(q, name) is None for q in again.queries for name in fields)
    comparison = compared(a_recording(), again)
    recorded = {v.measure.key for v in comparison.values if not np.isnan(v.value)}
    assert recorded == {
        "map.references", "matches.kept", "pose.inliers", "pose.lost", "pose.moved", "pose.turned", "pose.same",
    }  # fmt: skip
    assert comparison.broken == "pose", "all poses are lost"


@pytest.mark.parametrize("about", [{}, {"patch_weights_hash": "c"}])
def test_equal_recordings_are_equal_to_the_last_digit(about):
    recording = replace(a_recording(), about=ABOUT | about)
    truth = {q.name: q.pose for q in recording.queries}
    measures = [m for m in MEASURES if about or not m.patches_only]
    expected = {m.key: 100.0 if m.unit == "%" and m.at_least else 0.0 for m in measures}
    expected |= {"descriptors.local": 1.0, "descriptors.global": 1.0, "pose.median": 1.0, "tensor.snr": 99.0}
    comparison = compared(recording, replace(a_recording(), about=ABOUT | about), truth)
    assert {v.measure.key: v.value for v in comparison.values} == expected
    assert {v.measure.key: (v.low, v.high) for v in comparison.values} == {k: (v, v) for k, v in expected.items()}


@pytest.mark.parametrize(
    ("fields", "stage", "key", "value"),
    [
        ({"input_hash": lambda h: h + "x"}, "input", "input.identical", 0),
        ({"thumbnail": lambda t: t ^ 1}, None, "input.difference", 1),
        ({"outputs": lambda o: {k: v * 1.1 for k, v in o.items()}}, "tensor", "tensor.snr", 20),
        ({"outputs": lambda o: {k: v[:8] for k, v in o.items()}}, "tensor", "tensor.snr", -99),
        ({"features": lambda f: replace(f, keypoints=f.keypoints + np.array([0.6, -0.8]))},
         "keypoints", "keypoints.shift", 2 / 3),
        ({"features": lambda f: replace(f, scores=f.scores / 2)}, "keypoints", "keypoints.identical", 0),
        ({"features": lambda f: replace(f, keypoints=np.delete(f.keypoints, np.s_[::4], 0),
          scores=f.scores[:60], descriptors=np.delete(f.descriptors, np.s_[::4], 0))},
         "keypoints", "keypoints.repeated", 75),
        ({"features": lambda f: replace(f, descriptors=-f.descriptors)}, "descriptors", "descriptors.local", -1),
        ({"features": lambda f: replace(f, global_descriptor=-f.global_descriptor)},
         "descriptors", "descriptors.global", -1),
        ({"prior_frames": lambda p: ("a.jpg", "x", "y", "c.jpg")}, "retrieval", "retrieval.kept", 50),
        ({"prior_frames": lambda p: (p[1], p[0], *p[2:])}, "retrieval", "retrieval.first", 0),
        ({"prior_frames": lambda p: (*p[:2], p[3], p[2])}, "retrieval", "retrieval.identical", 0),
        ({"prior_frames": lambda p: (*p, "e.jpg")}, "retrieval", "retrieval.identical", 0),
        ({"matched": lambda m: replace(m, landmarks=np.where(np.arange(60) < 10, 1000, m.landmarks))},
         "matches", "matches.kept", 75),
        ({"matched": lambda m: None}, "matches", "matches.kept", 0),
        ({"matched": lambda m: replace(m, inliers=np.arange(60) < 20)}, None, "pose.inliers", 50),
        ({"pose": lambda p: Pose(p.quaternion, p.translation + np.array([0.03, 0, 0.04]))}, "pose", "pose.moved", 0.05),
        ({"pose": lambda p: None}, "pose", "pose.lost", 100),
        ({"probability": lambda p: p - 0.2}, "trust", "trust.probability", 0.2),
        ({"wrong": lambda p: p + 0.03}, "trust", "trust.probability", 0.03),
        ({"covariance": lambda c: c * np.outer(*2 * [[1, 1, 1, 1.1, 1.1, 1.1]])}, "trust", "trust.position", 10),
        ({"covariance": lambda c: c * np.outer(*2 * [[0.9, 0.9, 0.9, 1, 1, 1]])}, "trust", "trust.rotation", 10),
        ({"covariance": lambda c: c * (1 + 1e-5)}, "trust", "trust.same", 0),
        ({"covariance": lambda c: c * (1 + 1e-9)}, None, "trust.same", 100),
        ({"covariance": lambda c: None}, "trust", "trust.position", np.inf),
    ],
)  # fmt: skip
def test_each_stage_answers_for_its_own_change(fields, stage, key, value):
    a = a_recording()
    comparison = compared(a, changed(a, **fields))
    assert comparison.broken == stage
    assert comparison.value(key).value == pytest.approx(value, abs=0.01)


def test_recall_and_medians_against_the_truth():
    a = a_recording(10)
    truth = {q.name: q.pose for q in a.queries}

    def off(by):
        queries = [
            replace(q, pose=Pose(q.pose.quaternion, q.pose.translation - q.pose.rotation @ [d, 0, 0]))
            for q, d in zip(a.queries, by, strict=True)
        ]
        return replace(a, queries=tuple(queries))

    reference, run = off([0.1] * 10), off([0.12] * 7 + [0.3] * 2 + [9])
    comparison = compared(reference, run, truth, "quantized")
    assert comparison.value("pose.recall").value == pytest.approx(30), "at 0.25 m, the worst of the three"
    assert comparison.value("pose.median").value == pytest.approx(1.2)
    low, high = comparison.value("pose.recall").low, comparison.value("pose.recall").high
    assert 0 <= low < 30 < high <= 70


def test_another_map_is_compared_by_where_its_landmarks_are():
    a = a_recording()
    renumbered = changed(a, matched=lambda m: replace(m, landmarks=m.landmarks[::-1].copy()))
    renumbered = replace(renumbered, about=ABOUT | {"map_hash": "other"})
    assert profile_of(a, renumbered) == "packed"
    assert compared(a, renumbered, profile="packed").value("matches.kept").value == 100
    moved = changed(renumbered, matched=lambda m: replace(m, xyz=m.xyz + np.array([0.0, 0.5, 0.0])))
    assert compared(a, moved, profile="packed").value("matches.kept").value == 0
    assert compared(a, moved, profile="packed").broken == "matches"


def test_a_packed_map_may_lack_landmarks():
    """Ten of forty inliers are left, all of them right."""
    a = a_recording()
    fewer = changed(
        a, matched=lambda m: Matched(*(getattr(m, f)[::4] for f in ("keypoints", "landmarks", "xyz", "inliers")))
    )
    fewer = replace(fewer, about=ABOUT | {"map_hash": "other"})
    comparison = compared(a, fewer, profile="packed")
    assert comparison.value("matches.kept").value == 25 and comparison.value("matches.agree").value == 100
    assert comparison.broken is None


def test_without_the_references_pose_landmarks_of_another_map_are_not_compared():
    """A query that the reference rejected keeps its matches, which are chance."""
    a = a_recording()
    rejected = replace(a, queries=(replace(a.queries[0], pose=None, status="REJECTED"), *a.queries[1:]))
    other = replace(rejected, about=ABOUT | {"map_hash": "other"})
    comparison = compared(rejected, other, profile="packed")
    assert comparison.value("matches.kept").value == comparison.value("matches.agree").value == 100
    nothing = replace(rejected, queries=rejected.queries[:1])
    assert np.isnan(compared(nothing, replace(other, queries=other.queries[:1])).value("matches.agree").value)


def test_what_a_refused_pose_had_is_not_compared():
    """Another solver finds another one in matches that agree on nothing."""
    a = a_recording(4)
    refused = {"pose": None, "status": "REJECTED", "probability": 0.02, "wrong": 0.9}
    reference = one_of(a, "1.jpg", **refused)
    matched = replace(a.queries[1].matched, landmarks=np.arange(60) + 99, inliers=np.arange(60) > 40)
    run = one_of(a, "1.jpg", **refused | {"probability": 0.2}, matched=matched, covariance=None)
    comparison = compared(reference, run)
    assert comparison.broken is None
    assert np.isnan([comparison.value(key).of_queries[1] for key in ("matches.identical", "trust.same")]).all()


def test_a_status_that_differs_is_out():
    a = a_recording(4)
    reference = one_of(a, "1.jpg", pose=None, status="REJECTED")
    comparison = compared(reference, one_of(a, "1.jpg", pose=None, status="AMBIGUOUS"))
    assert comparison.broken == "trust" and comparison.value("trust.status").value == 75
    assert comparison.value("trust.status") in comparison.shown


def test_one_pose_of_a_hundred_may_be_another_optimum():
    a = a_recording(100)
    pose = a.queries[3].pose
    other = {"pose": Pose(pose.quaternion, pose.translation + 0.01), "covariance": 2 * a.queries[3].covariance}
    once = one_of(a, "3.jpg", **other)
    assert compared(a, once).broken is None
    assert compared(a, one_of(once, "5.jpg", **other)).broken == "pose"


def test_a_map_in_another_frame_is_stale():
    a = a_recording()
    moved = replace(a, reference_poses={"a.jpg": np.array([1.0, 0, 0, 0, 1, 2, 3.01])})
    assert compared(a, moved, profile="quantized").broken == "map"
    assert compared(a, replace(a, reference_poses={}), profile="quantized").broken == "map"


def test_the_worst_queries_come_first():
    a = a_recording()
    shifts = {"1.jpg": 0.2, "3.jpg": 0.5}
    queries = [
        replace(q, pose=None if q.name == "4.jpg" else
                Pose(q.pose.quaternion, q.pose.translation + np.array([shifts.get(q.name, 0), 0, 0])))
        for q in a.queries
    ]  # fmt: skip
    worst = compared(a, replace(a, queries=tuple(queries))).worst
    assert [pair.run.name for pair in worst[:3]] == ["4.jpg", "3.jpg", "1.jpg"]


def one_of(recording: Recording, name: str, **fields) -> Recording:
    """With other fields of one query."""
    queries = (replace(q, **fields) if q.name == name else q for q in recording.queries)
    return replace(recording, queries=tuple(queries))


def test_one_pose_of_ten_that_is_aside_is_out_where_all_have_to_be_equal():
    a = a_recording(10)
    pose = a.queries[3].pose
    aside = one_of(a, "3.jpg", pose=Pose(pose.quaternion, pose.translation + np.array([0.0002, 0, 0])))
    comparison = compared(a, aside)
    assert comparison.value("pose.moved").value == 0, "the median does not see it"
    assert comparison.broken == "pose" and comparison.value("pose.same").value == 90


@pytest.mark.parametrize("profile", ["identical", "rounded", "quantized", "hloc"])
def test_a_lost_pose_is_out_in_every_profile(profile):
    a = a_recording(10)
    comparison = compared(a, one_of(a, "3.jpg", pose=None), {q.name: q.pose for q in a.queries}, profile)
    assert comparison.broken == "pose" and comparison.value("pose.lost").value == 10


def test_a_run_that_finds_more_than_the_reference_is_not_out():
    a = a_recording(10)
    weak = one_of(one_of(a, "3.jpg", pose=None), "5.jpg", pose=None)
    comparison = compared(weak, a, {q.name: q.pose for q in a.queries}, "quantized")
    assert comparison.broken is None
    assert comparison.value("pose.recall").value == -20 and np.isnan(comparison.value("pose.moved").of_queries[3])


def test_queries_that_gain_inliers_do_not_make_up_for_those_that_lose_them():
    a = a_recording(10)
    few = one_of(a, "0.jpg", matched=replace(a.queries[0].matched, inliers=np.arange(60) < 1))
    run = changed(a, matched=lambda m: replace(m, inliers=np.arange(60) < 4))
    assert compared(few, run, profile="quantized").value("pose.inliers").value == pytest.approx((100 + 9 * 10) / 10)


def test_one_query_of_a_hundred_is_one_point():
    """55 less 54 of 100, which floats make 1.000000000000007."""
    errors = np.full((100, 2), np.inf)
    a, b = errors.copy(), errors.copy()
    a[:55], b[:54] = 0, 0
    assert recall_lost(a, b, THRESHOLDS) == 1.0


def test_an_infinite_ratio_is_never_within_chance():
    a = a_recording(4)
    truth = {q.name: q.pose for q in a.queries}
    lost = one_of(one_of(one_of(a, "1.jpg", pose=None), "2.jpg", pose=None), "3.jpg", pose=None)
    value = compared(a, lost, truth, "quantized").value("pose.median")
    assert value.value == np.inf and value.passed is False


def test_the_worst_output_decides():
    a = changed(a_recording(), outputs=lambda o: o | {"local_descriptors": np.ones((5, 4), np.float32)})
    a = changed(a, output_hashes=lambda h: h | {"local_descriptors": ""})
    b = changed(a, outputs=lambda o: o | {"local_descriptors": np.full((5, 4), 1.1, np.float32)})
    assert compared(a, b).value("tensor.snr").value == pytest.approx(20, abs=0.01)


def test_a_reference_image_that_is_turned_is_another_map():
    a = a_recording()
    turned = replace(a, reference_poses={"a.jpg": np.array([np.cos(0.01), np.sin(0.01), 0, 0, 0, 0, 0])})
    level = replace(a, reference_poses={"a.jpg": np.array([1.0, 0, 0, 0, 0, 0, 0])})
    assert compared(level, turned, profile="quantized").broken == "map", "the camera stays where it is"


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: replace(r, reference_poses={"a": np.zeros(7)}),
        lambda r: one_of(r, "1.jpg", pose=None),
        lambda r: changed(r, features=lambda f: replace(f, pixel=0.0)),
        lambda r: changed(r, features=lambda f: replace(f, keypoints=np.zeros((80, 3)))),
        lambda r: changed(r, features=lambda f: replace(f, scores=f.scores[:5])),
        lambda r: changed(r, matched=lambda m: replace(m, keypoints=m.keypoints + 10**9)),
        lambda r: changed(r, matched=lambda m: replace(m, xyz=m.xyz[:, :2])),
        lambda r: changed(r, matched=lambda m: replace(m, xyz=m.xyz * np.nan)),
        lambda r: changed(r, covariance=lambda c: c * np.nan),
        lambda r: changed(r, covariance=lambda c: c[:5, :5].copy()),
        lambda r: changed(r, covariance=lambda c: c[:, :3].copy()),
        lambda r: changed(r, covariance=lambda c: c.astype(np.float32)),
        lambda r: changed(r, covariance=lambda c: c + np.eye(6, k=1)),
        lambda r: changed(r, covariance=lambda c: -c),
        lambda r: changed(r, probability=lambda _: 1.5),
        lambda r: changed(r, probability=lambda _: np.nan),
        lambda r: changed(r, wrong=lambda _: -0.1),
        lambda r: changed(r, wrong=lambda _: "1"),
        lambda r: changed(r, wrong=lambda _: [0.5]),
    ],
)
def test_recordings_that_cannot_be_are_refused(damage):
    with pytest.raises(RecordingError, match="it is damaged"):
        read_recording(to_bytes(damage(a_recording())), "it")


def test_other_kernels_are_never_compared():
    a = a_recording()
    with pytest.raises(MismatchError, match="builtin kernels"):
        compared(a, replace(a, about=ABOUT | {"kernels": "builtin"}))


def test_other_queries_are_refused():
    a = a_recording()
    with pytest.raises(RecordingError, match="queries"):
        compared(a, replace(a, queries=a.queries[1:]))


def test_which_tolerances_apply():
    a = a_recording()
    assert profile_of(a, a) == "identical"
    in_float = replace(a, about=ABOUT | {"precision": "none"})
    assert profile_of(in_float, in_float) == "rounded"
    assert profile_of(a, replace(a, about=ABOUT | {"model_hash": "c"})) == "quantized"
    assert profile_of(replace(a, about={"processor": "hloc"}), a) == "hloc"


def test_own_tolerances(tmp_path):
    own = tmp_path / "t.toml"
    own.write_text("[pose]\nmoved = 0.02\n")
    limits = read_tolerances("quantized", own)
    assert limits["pose.moved"] == 0.02 and limits["pose.turned"] == read_tolerances("quantized")["pose.turned"]
    own.write_text(BUILT_IN.read_text().replace("moved = 0.1\n", "moved = 0.3\n"))
    assert read_tolerances("quantized", own)["pose.moved"] == 0.3, "a changed copy of the built-in file"
    for text in (
        "[pose]\nmooved = 1",
        "pose = 3",
        "[pose]\nmoved = 'x'",
        "[pose",
        "[pose]\nmoved = true",
        "[pose]\nmoved = nan",
    ):
        own.write_text(text)
        with pytest.raises(InputError, match=r"t\.toml"):
            read_tolerances("quantized", own)
    with pytest.raises(InputError, match=r"none\.toml"):
        read_tolerances("quantized", tmp_path / "none.toml")
