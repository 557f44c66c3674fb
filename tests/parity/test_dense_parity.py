"""Parity of sparse-to-dense and of `auto`: int8 against the float network, and the same bits twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hfnet_edge.record.bench import BenchJob, bench
from hfnet_edge.record.recording_file import read_recording, to_bytes
from hfnet_edge.record.runner import IMAGES
from hfnet_edge.record.runner import record as run_record
from hfnet_maps.build.reference import read_reference
from hfnet_parity.bundle import Bundle
from hfnet_parity.record import load_network, record
from hfnet_parity.run import judge


@pytest.fixture(scope="module")
def bundle(kit, tmp_path_factory) -> Bundle:
    """What the float network says by sparse-to-dense."""
    path, place = tmp_path_factory.mktemp("dense") / "ref.bundle", kit.root / "place"
    queries = [(q.name, q.camera) for q in kit.bundle.recording.queries]
    float_network = load_network(str(kit.root / "float.tflite"))
    truth = dict(read_reference(place / "reference").poses)
    record([float_network], kit.map, place / "images", queries, path, truth, method="sparse-to-dense")
    return Bundle.read(path)


def run(kit, folder, method):
    folder, job = kit.job(folder)
    return run_record(folder, replace(job, method=method))


def test_int8_holds_against_float(kit, bundle, tmp_path):
    recording = run(kit, tmp_path / "job", "sparse-to-dense")
    assert all("hypercolumns" in query.outputs for query in recording.queries)
    verdict = judge(bundle, recording, kit.map, "test")
    failed = [(v.measure.key, v.value, v.limit) for v in verdict.comparison.values if v.passed is False]
    assert verdict.passed, failed
    localized = [q for q in recording.queries if q.pose is not None]
    assert len(localized) >= 3
    content = to_bytes(recording)
    assert content == to_bytes(run(kit, tmp_path / "again", "sparse-to-dense")), "the same bits"
    assert to_bytes(read_recording(content, "it")) == content


def test_auto_records_what_the_first_method_found(kit, tmp_path):
    auto = run(kit, tmp_path / "auto", "auto")
    for query, first in zip(auto.queries, kit.honest.queries, strict=True):
        assert "hypercolumns" not in query.outputs
        if first.pose is not None:
            assert np.array_equal(query.pose.translation, first.pose.translation)
            assert query.probability == first.probability


@pytest.mark.parametrize("method", ["sparse-to-dense", "auto"])
def test_bench(kit, tmp_path, method):
    folder, job = kit.job(tmp_path / "job")
    measured = bench([kit.int8], kit.map, folder / IMAGES, BenchJob(job.queries[:2], 1, method))
    search = ("match", "search") if method == "auto" else ("search",)
    assert measured.stages == (
        "load", "extract", "decode", "retrieve", "cluster", *search, "pose", "second_look", "trust"
    )  # fmt: skip
    assert all(set(query.milliseconds) <= set(measured.stages) for query in measured.queries)
