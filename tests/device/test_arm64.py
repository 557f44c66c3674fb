"""The runtime on an emulated arm64: processor by processor, and as a whole device over adb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import prepare
import pytest
from endpoint import Endpoint, need_tools

from hfnet_device import arm64
from hfnet_device.adb import HOME, Adb
from hfnet_device.arm64 import CPUS, Arm64
from hfnet_device.backends import Host
from hfnet_edge.errors import BackendError
from hfnet_edge.record.recording import Recording
from hfnet_edge.record.recording_file import read_recording

BINFMT = Path("/proc/sys/fs/binfmt_misc")
NAME = "hfnet-edge-test-arm64"
# The start of a 64-bit little-endian ELF program for AArch64 (machine 0xb7), executable or shared.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


@pytest.fixture(scope="module")
def root() -> Path:
    try:
        arm64.qemu()
        return arm64.prepared()
    except BackendError as e:
        pytest.skip(str(e))


def recording(job: Path) -> Recording:
    (content,) = results(job).values()
    return read_recording(content, "a test")


def results(job: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (job / "out").iterdir()}


@pytest.mark.parametrize("cpu", CPUS)
def test_int8_on_arm64_gives_the_network_outputs_of_this_machine(root, real_job, tmp_path, cpu):
    job = tmp_path / "job"
    shutil.copytree(real_job, job)
    Host().run(job)
    here = recording(job)
    seen = []
    Arm64(cpu).run(job, lambda what, done, total, note="": seen.append((what, done, total)))
    there = recording(job)
    assert seen == [(f"arm64 {cpu}", 1, 2), (f"arm64 {cpu}", 2, 2)]
    assert there.about["machine"] == "aarch64"
    assert [there.about[name] for name in ("numpy", "opencv")] == [here.about[name] for name in ("numpy", "opencv")]
    for a, b in zip(here.queries, there.queries, strict=True):
        assert a.input_hash == b.input_hash != ""
        for role in ("keypoint_logits", "local_descriptors"):  # int8 to the end; the global head is float
            assert a.output_hashes[role] == b.output_hashes[role] != ""
        np.testing.assert_array_equal(a.features.keypoints, b.features.keypoints)
        np.testing.assert_array_equal(a.features.descriptors, b.features.descriptors)
        assert a.prior_frames == b.prior_frames and a.status == b.status


def test_a_broken_model_is_one_error_on_arm64_too(root, real_job, tmp_path):
    job = tmp_path / "job"
    shutil.copytree(real_job, job)
    (job / "model.tflite").write_bytes(b"nothing")
    with pytest.raises(BackendError, match=r"arm64 cortex-a53: .*model\.tflite is not a TFLite model; export one"):
        Arm64("cortex-a53").run(job)
    assert not (job / "out").exists()


@contextmanager
def programs_of_arm64(emulator: str):
    """Lets the kernel start arm64 programs through qemu, also in another root, while it lasts."""
    if not (BINFMT / "register").exists():
        pytest.skip(f"binfmt_misc is not mounted at {BINFMT}")
    with suppress(OSError):
        (BINFMT / NAME).write_text("-1")  # of a run that was killed
    (BINFMT / "register").write_text(f":{NAME}:M::{MAGIC}:{MASK}:{emulator}:PF")
    try:
        yield
    finally:
        (BINFMT / NAME).write_text("-1")


@pytest.fixture
def device(root, tmp_path, monkeypatch):
    """An arm64 device: a root of its own in which every program is arm64, and adbd."""
    need_tools()
    folder = prepare.prepared()
    if folder is None:
        pytest.skip(prepare.SKIP)
    emulator = arm64.qemu()
    if subprocess.run(["ldd", emulator], capture_output=True).stdout.count(b"=>"):
        pytest.skip(f"{emulator} is not static, and cannot run in another root")
    disk = tmp_path / "disk"
    shutil.copytree(folder / "arm64", disk, symlinks=True)
    start = (
        f"mount --bind /dev {disk}/dev && mount -t proc proc {disk}/proc && mount --rbind /sys {disk}/sys && "
        f"exec chroot {disk} /{prepare.ADBD_PATH}"
    )
    # Its mounts and processes end with it.
    adbd = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", start]
    with programs_of_arm64(emulator):
        endpoint = Endpoint(tmp_path / "endpoint", adbd)
        monkeypatch.setenv("PATH", f"{endpoint.bin}:{os.environ['PATH']}")
        try:
            endpoint.plug()
            yield disk
        finally:
            endpoint.close()


@pytest.mark.slow
def test_a_whole_arm64_device_needs_no_python_of_its_own(device, root, real_job, tmp_path):
    job = tmp_path / "job"
    shutil.copytree(real_job, job)
    Arm64("max").run(job)
    expected = results(job)
    backend = Adb()
    first = backend.run(job)
    assert results(job) == expected, "the same root, processor and code give the same bytes"
    assert first.bytes_pushed > 200_000_000, "the root went with it"
    names = sorted(path.name for path in (device / HOME[1:]).iterdir())
    assert names == [root.name, f"{root.name}.ok"], "the job is gone, the root stays"
    second = backend.run(job)
    assert results(job) == expected
    assert second.bytes_pushed < 20_000_000
    (job / "job.json").write_text(json.dumps({"task": "dance"}))
    with pytest.raises(BackendError, match=r"adb 127.0.0.1:5555: .*job\.json is not a job"):
        backend.run(job)
    assert sorted(path.name for path in (device / HOME[1:]).iterdir()) == names
