"""Numbers of the report, on recordings made by code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.errors import InputError, MismatchError, RecordingError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Pose
from hfnet_edge.keypoints import quantize
from hfnet_edge.recording import Matched, QueryRecord, Recording
from hfnet_edge.recording_file import read_recording, to_bytes
from hfnet_maps.evaluation import THRESHOLDS
from hfnet_parity.compare import ALL, compare, profile_of, read_tolerances
from synthetic import CAMERA, looking_at

ABOUT = {"processor": "CPU, LiteRT", "kernels": "XNNPACK", "solver": "usac", "model_hash": "a", "map_hash": "b"}


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
    assert (a.camera, a.prior_frames, a.features.pixel) == (b.camera, b.prior_frames, b.features.pixel)


def test_missing_stages_come_back_as_missing():
    none = dict.fromkeys(("features", "matched", "prior_frames", "pose", "thumbnail"), lambda _: None)
    empty = {"output_hashes": lambda _: {}, "outputs": lambda _: {}, "input_hash": lambda _: ""}
    bare = changed(a_recording(), **none, **empty)
    again = read_recording(to_bytes(bare), "it")
    assert all(q.features is q.matched is q.prior_frames is q.pose is q.thumbnail is None for q in again.queries)
    comparison = compared(a_recording(), again)
    missing = {v.measure.key for v in comparison.values if np.isnan(v.value)}
    assert missing == {measure.key for measure in ALL} - {
        "map.references", "matches.kept", "matches.inliers", "pose.moved", "pose.turned", "pose.recall", "pose.median",
    }  # fmt: skip
    assert comparison.broken == "matches", "a run without matches has lost them"


def test_equal_recordings_are_equal_to_the_last_digit():
    recording = a_recording()
    truth = {q.name: q.pose for q in recording.queries}
    expected = {measure.key: 100.0 if measure.unit == "%" else 0.0 for measure in ALL}
    expected |= {"descriptors.local": 1.0, "descriptors.global": 1.0, "pose.median": 1.0, "tensor.snr": 99.0}
    comparison = compared(recording, a_recording(), truth)
    assert {v.measure.key: v.value for v in comparison.values} == expected
    assert {v.measure.key: (v.low, v.high) for v in comparison.values} == {k: (v, v) for k, v in expected.items()}


@pytest.mark.parametrize(
    ("fields", "stage", "key", "value"),
    [
        ({"input_hash": lambda h: h + "x"}, "input", "input.identical", 0),
        ({"thumbnail": lambda t: t ^ 1}, None, "input.difference", 1),
        ({"outputs": lambda o: {k: v * 1.1 for k, v in o.items()}}, "tensor", "tensor.snr", 20),
        ({"features": lambda f: replace(f, keypoints=f.keypoints + np.array([0.6, -0.8]))},
         "keypoints", "keypoints.shift", 2 / 3),
        ({"features": lambda f: replace(f, keypoints=np.delete(f.keypoints, np.s_[::4], 0),
          scores=f.scores[:60], descriptors=np.delete(f.descriptors, np.s_[::4], 0))},
         "keypoints", "keypoints.repeated", 75),
        ({"features": lambda f: replace(f, descriptors=-f.descriptors)}, "descriptors", "descriptors.local", -1),
        ({"prior_frames": lambda p: ("a.jpg", "x", "y", "c.jpg")}, "retrieval", "retrieval.kept", 50),
        ({"prior_frames": lambda p: (p[1], p[0], *p[2:])}, "retrieval", "retrieval.first", 0),
        ({"matched": lambda m: replace(m, landmarks=np.where(np.arange(60) < 10, 1000, m.landmarks))},
         "matches", "matches.kept", 75),
        ({"matched": lambda m: replace(m, inliers=np.arange(60) < 20)}, "matches", "matches.inliers", 50),
        ({"matched": lambda m: None}, "matches", "matches.kept", 0),
        ({"pose": lambda p: Pose(p.quaternion, p.translation + np.array([0.03, 0, 0.04]))}, "pose", "pose.moved", 0.05),
        ({"pose": lambda p: None}, "pose", "pose.moved", np.inf),
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
    assert compared(a, renumbered, profile="quantized").value("matches.kept").value == 100
    moved = changed(renumbered, matched=lambda m: replace(m, xyz=m.xyz + np.array([0.0, 0.5, 0.0])))
    assert compared(a, moved, profile="quantized").value("matches.kept").value == 0


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
    assert profile_of(a, replace(a, about=ABOUT | {"model_hash": "c"})) == "quantized"
    assert profile_of(replace(a, about={"processor": "hloc"}), a) == "hloc"


def test_own_tolerances(tmp_path):
    own = tmp_path / "t.toml"
    own.write_text("[pose]\nmoved = 0.02\n")
    limits = read_tolerances("quantized", own)
    assert limits["pose.moved"] == 0.02 and limits["pose.turned"] == read_tolerances("quantized")["pose.turned"]
    for text in ("[pose]\nmooved = 1", "pose = 3", "[pose]\nmoved = 'x'", "[pose", "[pose]\nmoved = true"):
        own.write_text(text)
        with pytest.raises(InputError, match=r"t\.toml"):
            read_tolerances("quantized", own)
    with pytest.raises(InputError, match=r"none\.toml"):
        read_tolerances("quantized", tmp_path / "none.toml")


def test_poses_of_another_solver_have_wider_limits():
    assert read_tolerances("identical", same_solver=True)["pose.moved"] == 0.001
    assert read_tolerances("identical", same_solver=False)["pose.moved"] > 0.001
