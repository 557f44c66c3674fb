"""Parity of the methods of paper 002: two networks, SIFT's keypoints, trees. What goes wrong is caught and named."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_parity_cli import parity

from hfnet_edge.errors import MismatchError, RecordingError
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.image.photo import Photo
from hfnet_edge.localizer import Localizer, localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.record.bench import BenchJob, bench
from hfnet_edge.record.recording import Matched, digest
from hfnet_edge.record.recording_file import read_recording, to_bytes
from hfnet_edge.record.runner import IMAGES, record
from hfnet_export.tflite.embed import embed
from hfnet_export.tflite.graph import Graph
from hfnet_maps.evaluation.errors import pose_error
from hfnet_parity.compare import compare
from hfnet_parity.costs import costs
from hfnet_parity.gate import Gate
from hfnet_parity.html import write_html
from hfnet_parity.pairs import Pair
from hfnet_parity.report import print_report, to_json
from hfnet_parity.run import run_on
from hfnet_parity.tolerances import profile_of

PATCH_METHODS = ("retrieval", "trees", "trees-absolute", "parallel")


@pytest.fixture(scope="module")
def seen() -> dict[str, np.ndarray]:
    """What the patch networks returned, by network and patches."""
    return {}


@pytest.fixture
def network_once(seen, monkeypatch):
    """A patch network is not run again on patches that it has seen."""
    right = PatchModel.raw

    def raw(self, patches):
        key = self.description.weights_hash, self.description.precision, digest(patches.tobytes())
        if key not in seen:
            seen[key] = right(self, patches)
        return seen[key]

    monkeypatch.setattr(PatchModel, "raw", raw)


def test_the_honest_run_holds_at_every_stage(patch_kit, network_once, tmp_path):
    """Without this the others would prove nothing."""
    run = patch_kit.honest
    verdict = patch_kit.judge(run)
    value = verdict.comparison.value
    assert verdict.passed, [(v.measure.key, v.value) for v in verdict.comparison.values if v.passed is False]
    assert verdict.comparison.profile == "quantized" and verdict.costs
    assert sum(q.pose is not None for q in run.queries) == 4
    assert value("keypoints.identical").value == value("keypoints.repeated").value == 100, "both see the same photo"
    assert 0 < value("descriptors.flipped").value < 1, "int8 is not float"
    assert {v.measure.stage for v in verdict.comparison.values if v.passed} == {
        "map", "input", "tensor", "keypoints", "descriptors", "retrieval", "matches", "pose", "trust",
    }  # fmt: skip
    assert all(list(q.outputs) == ["global_descriptor"] for q in run.queries), "HF-Net's others are not used"

    console = Console(record=True, width=140, file=(tmp_path / "said").open("w"))
    print_report(verdict, (), console)
    digits = [run.about[key][:8] for key in ("model_hash", "patch_model_hash")]
    write_html(
        tmp_path / "r.html", patch_kit.bundle, [verdict], (), {"patch_model": patch_kit.patches}, datetime.now(UTC)
    )
    said, page = (tmp_path / "said").read_text(), (tmp_path / "r.html").read_text()
    assert f"parallel, int8 model {digits[0]}, int8 patch model {digits[1]}" in said
    assert "4 queries, parallel, quantized tolerances" in said
    assert "Method: parallel" in page and run.about["patch_model_hash"] in page
    assert to_json([verdict], ())["runs"][0]["method"] == "parallel"


def test_hierarchical_recordings_say_nothing_of_bits(kit):
    verdict = kit.judge(kit.honest)
    assert "descriptors.flipped" not in {v.measure.key for v in verdict.comparison.values}
    assert verdict.comparison.run.method == "hierarchical"


def queries_of(place: Path, count: int, folder: Path) -> Path:
    """A list of the first queries of a place."""
    lines = (place / "queries_with_intrinsics.txt").read_text().splitlines()
    (folder / "queries.txt").write_text("\n".join(lines[:count]) + "\n")
    return folder / "queries.txt"


@pytest.mark.slow
def test_the_commands_on_this_machine_give_the_same_twice(patch_kit, network_once, tmp_path):
    place = patch_kit.root / "place"
    networks = ("--model", patch_kit.int8, "--model", patch_kit.patches, "--map", patch_kit.map)
    said = parity(
        "record", "--method", "parallel", *networks, "--images", place / "images",
        "--queries", queries_of(place, 3, tmp_path), "-o", tmp_path / "ref.bundle",
    ).stdout  # fmt: skip
    assert "in int8 and int8, not in float" in said and "--model M.tflite --model P.tflite" in said
    said = parity("run", tmp_path / "ref.bundle", *networks, "--json", tmp_path / "r.json").stdout
    assert "All stages hold." in said and "identical tolerances" in said
    found = json.loads((tmp_path / "r.json").read_text())["runs"][0]
    assert found["profile"] == "identical" and found["run"]["patch_precision"] == "int8"
    numbers = {n["key"]: n["value"] for n in found["numbers"]}
    assert {numbers[key] for key in numbers if key.endswith(".identical")} == {100.0}
    assert numbers["descriptors.flipped"] == 0 and numbers["pose.same"] == numbers["trust.same"] == 100
    trees = parity("run", tmp_path / "ref.bundle", *networks, "--method", "trees", code=2).stderr
    assert "recorded with the method parallel, not trees" in trees
    bare = parity("run", tmp_path / "ref.bundle", "--model", patch_kit.int8, "--map", patch_kit.map, code=2).stderr
    assert "patch network" in bare and "name it too: --model" in bare


class Never:
    name = "never"

    def run(self, *_):
        raise AssertionError("it was sent")


def test_what_does_not_belong_together_is_refused_before_anything_is_sent(kit, patch_kit, tmp_path):
    other = tmp_path / "other.tflite"
    description = PatchModel(patch_kit.patches).description
    graph = Graph.parse(patch_kit.patches.read_bytes())
    other.write_bytes(embed(graph, replace(description, weights_hash="f" * 32)))
    asked = patch_kit.bundle, [patch_kit.int8, patch_kit.patches]
    with pytest.raises(MismatchError, match=f"{description.weights_hash}, .*other.tflite has {'f' * 32}"):
        run_on(Never(), patch_kit.bundle, [patch_kit.int8, other], patch_kit.map)
    with pytest.raises(MismatchError, match="recorded with the method parallel, not retrieval"):
        run_on(Never(), *asked, patch_kit.map, method="retrieval")
    with pytest.raises(MismatchError, match="patch_descriptors, which is not asked for"):
        run_on(Never(), *asked, kit.map, method="hierarchical")
    with pytest.raises(MismatchError, match="the method parallel, not hierarchical"):
        run_on(Never(), patch_kit.bundle, [patch_kit.int8], kit.map, method="hierarchical")
    with pytest.raises(MismatchError, match="no random trees"):
        run_on(Never(), patch_kit.bundle, [patch_kit.int8], kit.map)
    with pytest.raises(MismatchError, match=f"no patch network, the run has {description.weights_hash}"):
        run_on(Never(), kit.bundle, [patch_kit.int8, patch_kit.patches], patch_kit.map, method="hierarchical")
    recorded = patch_kit.bundle.recording
    elsewhere = replace(recorded, about=recorded.about | {"method": "trees"})
    with pytest.raises(MismatchError, match="the reference localized with the method trees, the run with parallel"):
        compare(elsewhere, recorded, {}, patch_kit.bundle.thresholds, {}, "quantized", "test")
    builtin = replace(recorded, about=recorded.about | {"patch_kernels": "builtin"})
    with pytest.raises(MismatchError, match="builtin kernels"):
        compare(recorded, builtin, {}, patch_kit.bundle.thresholds, {}, "quantized", "test")
    with pytest.raises(RecordingError, match=r"patches\.bundle is of the method parallel with a patch network"):
        Gate(patch_kit.root / "patches.bundle")


def test_recordings_of_before_are_hierarchical(kit):
    recorded = kit.bundle.recording
    assert recorded.about["method"] == "hierarchical"
    old = replace(recorded, about={key: value for key, value in recorded.about.items() if key != "method"})
    assert read_recording(to_bytes(old), "old").method == "hierarchical"
    assert profile_of(old, old) == "rounded", "float"
    later = replace(recorded, about=recorded.about | {"method": "dense"})
    with pytest.raises(RecordingError, match="of the method dense"):
        read_recording(to_bytes(later), "later")


def test_flipped_descriptors_of_the_patch_network(patch_kit, network_once, tmp_path, monkeypatch):
    honest = PatchModel.__call__
    signs = np.where(np.arange(256) % 16, 1, -1).astype(np.int8)
    monkeypatch.setattr(PatchModel, "__call__", lambda self, patches: honest(self, patches) * signs)
    verdict = patch_kit.judge(patch_kit.run(tmp_path / "job"))
    assert verdict.comparison.broken == "descriptors" and "patch network" in verdict.look_at
    assert 6 < verdict.comparison.value("descriptors.flipped").value < 7, "one of sixteen"


@pytest.mark.slow
def test_signs_that_rounding_loses(patch_kit, network_once, tmp_path, monkeypatch):
    """Small negatives become 0, which is a positive: the cosine does not notice, trees do."""
    monkeypatch.setattr(PatchModel, "__call__", lambda self, patches: quantize(self.raw(patches)))
    verdict = patch_kit.judge(patch_kit.run(tmp_path / "job"))
    value = verdict.comparison.value
    assert value("descriptors.local").passed and value("descriptors.local").value > 0.998
    assert value("descriptors.flipped").value > 2 and verdict.comparison.broken == "descriptors"
    assert "signs that rounding loses" in verdict.look_at


@pytest.mark.slow
def test_keypoints_aside_by_half_a_pixel(patch_kit, network_once, tmp_path, monkeypatch):
    honest = Photo.to_camera
    monkeypatch.setattr(Photo, "to_camera", lambda self, xy: honest(self, xy - np.float32(0.5)))
    verdict = patch_kit.judge(patch_kit.run(tmp_path / "job"))
    assert verdict.comparison.broken == "keypoints"
    assert "(-0.50, -0.50) network pixels aside" in verdict.look_at and "SIFT" in verdict.look_at


@pytest.mark.slow
def test_only_the_changed_stage_costs(patch_kit):
    """Costs localize again, by the recording's method and with the map's trees."""
    reference, m, rng = patch_kit.bundle.recording, LocalizationMap.open(patch_kit.map), np.random.default_rng(0)
    queries = []
    for q in reference.queries:
        vectors = q.features.descriptors + rng.normal(0, 6, q.features.descriptors.shape)
        features = replace(q.features, descriptors=quantize(vectors))
        result = localize_features(m, features, q.camera, LocalizationConfig("parallel"))
        found = result.matches
        matched = Matched(found.keypoints, found.landmarks, found.xyz, result.inlier_mask)
        queries.append(replace(q, features=features, matched=matched, pose=result.pose, status=result.status.value))
    run = replace(reference, queries=tuple(queries))
    comparison = compare(reference, run, {}, patch_kit.bundle.thresholds, {}, "quantized", "test")
    moved = np.array(
        [
            (0.0 if a.pose is b.pose else np.inf) if a.pose is None or b.pose is None else pose_error(b.pose, a.pose)[0]
            for a, b in zip(reference.queries, run.queries, strict=True)
        ]
    )
    assert (moved > 0).sum() >= 3, "the change changes something"
    for cost in costs(comparison, m):
        np.testing.assert_allclose(cost.each, moved if cost.step == "descriptors" else 0, atol=1e-9, err_msg=cost.step)


def test_methods_without_frames_leave_retrieval_out(patch_kit, network_once, tmp_path):
    folder, job = patch_kit.job(tmp_path / "job")
    trees = record(folder, replace(job, method="trees", queries=job.queries[:2]))
    comparison = compare(trees, trees, {}, patch_kit.bundle.thresholds, {}, "identical", "test")
    assert np.isnan(comparison.value("retrieval.identical").value)
    assert comparison.value("matches.identical").value == 100
    assert all(q.prior_frames == () and q.matched is not None for q in trees.queries)


@pytest.mark.parametrize("method", PATCH_METHODS)
def test_bench_by_method(patch_kit, network_once, tmp_path, method):
    folder, job = patch_kit.job(tmp_path / "job")
    measured = bench(
        [patch_kit.int8, patch_kit.patches], patch_kit.map, folder / IMAGES, BenchJob(job.queries[:2], 1, method)
    )
    search = {"retrieval": ("retrieve",), "parallel": ("retrieve", "trees")}.get(method, ("trees",))
    expected = ("load", "extract", "describe", *search, "match", "pose", "second_look", "trust")
    assert measured.method == method and measured.patch_precision == "int8" and measured.stages == expected
    assert measured.patch_bytes == patch_kit.patches.stat().st_size
    for query in measured.queries:
        assert tuple(query.milliseconds) == expected and query.whole >= sum(query.milliseconds.values())
    assert measured.queries[0].bytes["match"] > 0


def test_a_bench_of_the_parallel_method(patch_kit, tmp_path):
    from test_bench import bench as command

    place = patch_kit.root / "place"
    options = ("--model", patch_kit.int8, "--images", place / "images", "--method", "parallel")
    queries = queries_of(place, 1, tmp_path)
    patched = (*options, "--model", patch_kit.patches, "--queries", queries, "--map", patch_kit.map)
    said, _ = command(patch_kit.root, *patched, "--rounds", "1", "--json", tmp_path / "b.json")
    assert "method: parallel, patch network: patches_int8.tflite (int8)" in said and "│ trees" in said
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["method"] == "parallel" and found["patch_precision"] == "int8"
    for one in found["measured"]:
        search = ("retrieve", "trees", "match", "pose", "second_look", "trust")
        assert list(one["stages"])[:-1] == ["load", "extract", "describe", *search]
        sizes = sum(path.stat().st_size for path in (patch_kit.int8, patch_kit.patches))
        assert one["bytes_opened"] == sizes + one["rounds"][0]["map_bytes"]
    assert "described by the patch network" in command(patch_kit.root, *options, "--map", patch_kit.map, code=2)[1]


def test_the_stages_are_those_of_the_localizer(patch_kit, network_once):
    """Also of HF-Net's search among a patch network's landmarks."""
    query = patch_kit.bundle.recording.queries[1]
    photo = patch_kit.root / "place/images" / query.name
    model, patch_model = Model(patch_kit.int8), PatchModel(patch_kit.patches)
    m = LocalizationMap.open(patch_kit.map)
    for method in ("hierarchical", *PATCH_METHODS):
        localizer = Localizer(m, model, patch_model, config=LocalizationConfig(method))
        assert tuple(localizer.localize(photo, query.camera).milliseconds) == localizer.method.stages, method


def test_keypoints_of_one_place_are_paired_in_their_order(patch_kit):
    """SIFT has several orientations at some places. All keypoints of equal recordings are paired, each with itself."""
    for query in patch_kit.bundle.recording.queries:
        keypoints = query.features.keypoints
        assert len(np.unique(keypoints, axis=0)) < len(keypoints)
        rows = Pair(query, query, True).paired
        assert np.array_equal(rows, np.stack([np.arange(len(keypoints))] * 2, axis=1))
