"""The library for the JVM as a backend: what is missing is named; where it is built, it gives the runtime's results."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hfnet_device import jvm
from hfnet_device.jvm import Jvm, JvmArm64
from hfnet_edge.errors import BackendError
from hfnet_edge.localizer import LocalizationConfig, Localizer
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.record.recording_file import read_recording
from hfnet_edge.record.runner import IMAGES, JOB, MAP, RecordJob, networks_of, record_queries
from hfnet_edge.report import report_line
from hfnet_edge.shell.reading import parse_json


def test_what_the_jvm_lacks_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(jvm.NAMED_BY, str(tmp_path / "hfnet-edge.jar"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(BackendError, match=r"no processor pentium; choose one of max, cortex-a53"):
        JvmArm64("pentium")
    with pytest.raises(BackendError, match=r"there is no .*hfnet-edge\.jar; build it with `make android`"):
        JvmArm64("max")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match=r"java not found; install a Java runtime"):
        Jvm()
    with pytest.raises(BackendError, match=r"maven.* not found; run `apt-get install"):
        jvm.prepare(lambda _: None)
    (tmp_path / "hfnet-edge.jar").touch()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/opencv-4.13.0-1.5.13-linux-x86_64.jar").touch()
    (tmp_path / "lib/opencv-4.13.0-1.5.13.jar").touch()
    assert jvm.natives() == [("opencv", "4.13.0-1.5.13")]
    with pytest.raises(BackendError, match=r"no arm64 root with Java; run `hfnet-device prepare-jvm-arm64`"):
        jvm.prepared()


@pytest.fixture
def machine() -> Jvm:
    try:
        return Jvm()
    except BackendError as e:
        pytest.skip(str(e))


def test_the_jvm_records_what_this_runtime_does(machine, real_job, tmp_path):
    job = tmp_path / "job"
    shutil.copytree(real_job, job)
    seen = []
    machine.run(job, lambda what, done, total, note="": seen.append((what, done, total)))
    there = read_recording((job / "out/recording.zip").read_bytes(), "a test").queries
    queries = RecordJob.from_json(parse_json((job / JOB).read_bytes())).queries
    assert seen == [("jvm", i + 1, len(queries)) for i in range(len(queries))]
    localizer = Localizer(job / MAP, *networks_of(job), config=LocalizationConfig(pose=PoseConfig(solver="usac")))
    here = record_queries(localizer, [(name, job / IMAGES / file, camera) for name, file, camera in queries])
    for a, b in zip(here, there, strict=True):
        assert (a.name, a.camera, a.input_hash, a.status) == (b.name, b.camera, b.input_hash, b.status)
        assert a.output_hashes == b.output_hashes and a.prior_frames == b.prior_frames
        for field in ("keypoints", "scores", "descriptors", "global_descriptor"):
            np.testing.assert_array_equal(getattr(a.features, field), getattr(b.features, field))
        for field in ("keypoints", "landmarks", "inliers", "xyz"):
            np.testing.assert_array_equal(getattr(a.matched, field), getattr(b.matched, field))
        assert a.pose is not None and b.pose is not None
        np.testing.assert_allclose(b.pose.center, a.pose.center, atol=1e-6)
        assert b.probability == pytest.approx(a.probability, abs=1e-6)
        for role, rows in a.outputs.items():
            np.testing.assert_array_equal(b.outputs[role], rows)


def test_a_job_that_is_none_is_one_error(machine, tmp_path):
    with pytest.raises(BackendError, match=r"jvm: cannot read .*job\.json"):
        machine.run(tmp_path)
    (tmp_path / JOB).write_text('{"task": "record"')
    with pytest.raises(BackendError, match=r"jvm: .*job\.json is not a job .*make it with hfnet-parity"):
        machine.run(tmp_path)


def test_the_jar_says_what_hfnet_localize_says(machine, real_job):
    queries = RecordJob.from_json(parse_json((real_job / JOB).read_bytes())).queries
    _, file, camera = queries[0]
    networks = [part for network in networks_of(real_job) for part in ("--model", str(network))]
    command = [shutil.which("java"), "-jar", str(jvm.jar()), "localize", "--map", str(real_job / MAP), *networks]
    command += ["--image", str(real_job / IMAGES / file), "--camera", str(camera)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    there = json.loads(done.stdout)
    localizer = Localizer(
        real_job / MAP, *networks_of(real_job), config=LocalizationConfig(pose=PoseConfig(solver="usac"))
    )
    result = localizer.localize(real_job / IMAGES / file, camera)
    here = json.loads(json.dumps(report_line(Path(file).name, result, localizer.map.image_names, camera)))
    assert list(there) == list(here) and there["status"] == "LOCALIZED"
    assert there.pop("milliseconds").keys() == here.pop("milliseconds").keys()
    if there["qvec"][0] * here["qvec"][0] < 0:  # the same rotation
        there["qvec"] = [-value for value in there["qvec"]]
    assert alike(there, here)
    command[command.index("--map") + 1] = "nowhere.hfmap"
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stdout == ""
    assert "error: cannot read the map nowhere.hfmap" in failed.stderr.splitlines()[-1]


def alike(a: object, b: object) -> bool:
    """The same but for the last digits of floats."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(value, b[key]) for key, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float) and isinstance(b, float | int):
        return a == pytest.approx(b, rel=1e-6, abs=1e-9)
    return a == b
