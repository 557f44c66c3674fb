"""adb: devices that are not ready, without one; then whole runs against a real adbd in a network namespace."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from endpoint import SERIAL, Endpoint, need_tools
from prepare import ADBD_PATH, SKIP, prepared

from hfnet_device import adb
from hfnet_device.adb import Adb
from hfnet_device.backends import Host
from hfnet_edge.errors import BackendError

CHATTER = "adb server version (41) doesn't match this client (39); killing...\n* daemon started successfully"
GONE = r"check the cable and `adb devices`, and run the same command again"


def fake_adb(tmp_path: Path, monkeypatch, script: str) -> None:
    """An adb that answers as the script says."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    path = tmp_path / "bin/adb"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    "listed, serial, error",
    [
        ("", None, r"no device is connected; plug one in"),
        (r"a\tdevice\nb\tdevice\n", None, r"2 devices are connected: a, b; choose one with --device SERIAL"),
        (r"a\tdevice\nb\tdevice\n", "c", r"the device c is not connected, but a, b; check --device"),
        (r"a\tunauthorized\n", None, r"the device a is unauthorized; unlock its screen and allow"),
        (r"a\tdevice\nb\toffline\n", "b", r"the device b is offline; plug it in again"),
        (rf"{CHATTER}\na\tdevice\n", "b", r"the device b is not connected, but a; check --device"),
        (r"a\tno permissions (user not in plugdev group); see [...]\n", None, r"a is no permissions .*add a udev rule"),
    ],
)
def test_a_device_that_is_not_ready_is_told_with_what_to_do(monkeypatch, tmp_path, listed, serial, error):
    text = rf"{CHATTER}\nList of devices attached\n{listed}\n"
    fake_adb(tmp_path, monkeypatch, f'printf "{text}"')
    with pytest.raises(BackendError, match=error):
        Adb(serial, "python3")


def test_a_missing_adb_is_told_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match=r"adb not found; run `apt-get install adb`"):
        Adb()


def test_a_server_that_does_not_start_is_told(monkeypatch, tmp_path):
    fake_adb(tmp_path, monkeypatch, "echo 'error: cannot connect to daemon'; exit 1")
    with pytest.raises(BackendError, match=r"adb: cannot connect to daemon"):
        Adb()


def one_device(shell: str, push: str = "true") -> str:
    return f"""
    if [ $1 = devices ]; then printf 'List of devices attached\\nphone\\tdevice\\n'; exit; fi
    case $3 in
        shell) {shell} ;;
        push) {push} ;;
    esac"""


def test_only_arm64_devices_get_the_arm64_root(monkeypatch, tmp_path):
    monkeypatch.setattr(adb, "prepared", lambda: tmp_path)
    fake_adb(tmp_path, monkeypatch, one_device("printf 'armv7l\\narmeabi-v7a\\nexit 0\\n'"))
    with pytest.raises(BackendError, match=r"adb phone is armv7l armeabi-v7a, not aarch64; use a 64-bit ARM device"):
        Adb()
    fake_adb(tmp_path, monkeypatch, one_device("printf 'armv8l\\narm64-v8a,armeabi-v7a\\nexit 0\\n'"))
    assert Adb().name == "adb phone"  # a 32-bit shell on a 64-bit device


def test_a_full_device_and_a_broken_connection_are_told(monkeypatch, tmp_path, stand_in):
    full = "echo \"adb: error: failed to copy 'x': remote No space left on device\"; exit 1"
    fake_adb(tmp_path, monkeypatch, one_device("echo exit 0", full))
    with pytest.raises(BackendError, match=r"adb phone: the device is full; make 1 GB of room"):
        Adb(None, "python3").run(stand_in("echo"))
    fake_adb(tmp_path, monkeypatch, one_device("echo exit 0", "echo 'error: device not found'; exit 1"))
    with pytest.raises(BackendError, match=rf"adb phone: device not found; {GONE}"):
        Adb(None, "python3").run(stand_in("echo"))
    fake_adb(tmp_path, monkeypatch, one_device("echo something"))  # the script's end is not seen
    with pytest.raises(BackendError, match=rf"the connection was lost: something; {GONE}"):
        Adb(None, "python3").run(stand_in("echo"))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    need_tools()
    folder = prepared()
    if folder is None:
        pytest.skip(SKIP)
    root = folder / "host"
    libraries = [path for path in (*root.glob("lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu")) if path.is_dir()]
    libraries += [path / "android" for path in libraries]
    loader = next(path for path in (*root.glob("lib/*-linux-gnu/ld-linux-*"), *root.glob("lib/ld-linux-*")))
    command = [str(loader), "--library-path", ":".join(map(str, libraries)), str(root / ADBD_PATH)]
    endpoint = Endpoint(tmp_path_factory.mktemp("endpoint"), command)
    try:
        yield endpoint
    finally:
        endpoint.close()


@pytest.fixture
def device(endpoint, tmp_path, monkeypatch):
    """The endpoint with adbd running. This machine's disk is the device's: it keeps to a folder of the test."""
    monkeypatch.setattr(adb, "HOME", str(tmp_path / "on-device"))
    monkeypatch.setenv("PATH", f"{endpoint.bin}:{os.environ['PATH']}")
    endpoint.plug()
    yield endpoint
    endpoint.unplug()


def left_behind(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "on-device").iterdir())


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_round_trip_moves_the_job_and_brings_back_the_results(device, stand_in, tmp_path):
    job = stand_in("echo")
    seen = []
    backend = Adb(None, sys.executable)
    assert backend.name == f"adb {SERIAL}"
    transfer = backend.run(job, lambda what, done, total, note="": seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert re.fullmatch(r"pushed 1\.\d+ MB, pulled 1\.28 MB, [\d.e+-]+ s with the run", str(transfer))
    results = size_of(job / "out")
    assert transfer.bytes_pulled == results > 1_280_000
    assert transfer.bytes_pushed == size_of(job) - results > 1_280_000
    assert (job / "out/model.tflite").read_bytes() == (job / "model.tflite").read_bytes()[::-1]
    assert (job / "out/a photo.jpg").read_bytes() == b"otohp"
    environment = json.loads((job / "out/environment.json").read_text())
    assert environment["OPENBLAS_CORETYPE"] is None and environment["OPENBLAS_NUM_THREADS"] == "1"
    assert left_behind(tmp_path) == []


def test_a_device_gives_the_very_files_that_the_host_gives(device, real_job, tmp_path):
    job = tmp_path / "job"
    shutil.copytree(real_job, job)
    Host().run(job)
    expected = {path.name: path.read_bytes() for path in (job / "out").iterdir()}
    assert expected
    Adb(SERIAL, sys.executable).run(job)
    assert {path.name: path.read_bytes() for path in (job / "out").iterdir()} == expected


@pytest.mark.parametrize("tar", [True, False])
def test_a_root_is_pushed_once_and_replaces_older_and_broken_ones(device, stand_in, tmp_path, monkeypatch, tar):
    root = tmp_path / "arm64-0123456789ab"  # this machine's Python behind the loader's name
    (root / "lib").mkdir(parents=True)
    (root / "complete").touch()
    (root / "lib/real-loader").write_text(f'#!/bin/sh\nshift 3\nunset PYTHONHOME\nexec {sys.executable} "$@"\n')
    (root / "lib/real-loader").chmod(0o755)
    (root / adb.LOADER).symlink_to("real-loader")
    backend = Adb(None, sys.executable)
    backend._root = root
    if not tar:
        shell = backend._shell
        monkeypatch.setattr(backend, "_shell", lambda script: "" if script.startswith("command") else shell(script))
    there = tmp_path / "on-device"
    (there / root.name).mkdir(parents=True)
    (there / root.name / "half").touch()  # of a run that was killed
    (there / "arm64-of-old").mkdir()
    first = backend.run(stand_in("echo"))
    assert left_behind(tmp_path) == [root.name, f"{root.name}.ok"]
    assert not (there / root.name / "half").exists() and not (there / root.name / "root.tar").exists()
    assert os.access(there / root.name / adb.LOADER, os.X_OK)
    second = backend.run(stand_in("echo"))
    assert first.bytes_pushed > second.bytes_pushed and first.bytes_pulled == second.bytes_pulled > 1_280_000


@pytest.mark.parametrize(
    "task, python, error",
    [
        ("error", sys.executable, r"the map is stale; pack it again"),
        ("crash", sys.executable, r"the run failed with exit code 1: RuntimeError: out of ideas; try another backend"),
        ("seven", sys.executable, r"the run failed with exit code 7: it said nothing; try another backend"),
        ("killed", sys.executable, r"the run was ended by SIGKILL.*; free some memory there"),
        ("nothing", sys.executable, r"the run wrote no results: it said nothing; check the job"),
        ("echo", "no-such-python", r"the run failed with exit code 127: .*no-such-python.*; try another backend"),
    ],
)
def test_a_job_that_fails_on_the_device_is_one_error_and_leaves_nothing(
    device, stand_in, tmp_path, task, python, error
):
    job = stand_in(task)
    with pytest.raises(BackendError) as caught:
        Adb(None, python).run(job)
    assert re.fullmatch(f"adb {SERIAL}: {error}", str(caught.value))
    assert left_behind(tmp_path) == [] and not (job / "out").exists()


def test_a_device_that_goes_away_does_not_stand_in_the_way_of_the_next_run(device, stand_in, tmp_path, running):
    job = stand_in("wait")
    backend = Adb(None, sys.executable)
    with pytest.raises(BackendError, match=rf"connection was lost during the run.*; {GONE}"):
        backend.run(job, lambda *_, **__: device.unplug())
    assert not (job / "out").exists()
    (folder,) = left_behind(tmp_path)  # nobody could remove it
    runner = int((tmp_path / "on-device" / folder / "pid").read_text())
    assert runner in running(tmp_path / "on-device" / folder)  # nor end it
    with pytest.raises(BackendError, match=r"no device is connected|is offline"):
        Adb(None, sys.executable)
    other = tmp_path / "on-device/job-of-old"  # its process number is another process's by now
    other.mkdir()
    (other / "pid").write_text(f"{os.getpid()}\n")
    device.plug()
    backend.run(stand_in("echo"))
    assert left_behind(tmp_path) == [] and runner not in running(tmp_path)


def test_an_interrupted_run_is_ended_on_the_device_too(device, stand_in, tmp_path, running):
    seen = []

    def interrupt(*_, **__):
        seen.extend(running(tmp_path / "on-device"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Adb(None, sys.executable).run(stand_in("wait"), interrupt)
    assert left_behind(tmp_path) == []
    assert seen and running(tmp_path / "on-device") == []


def test_output_without_a_last_newline_is_no_lost_connection(device):
    backend = Adb(None, sys.executable)
    assert backend._shell("printf 'two\\nlines'") == "two\nlines"
    assert backend._shell("true") == ""
    with pytest.raises(BackendError, match=rf"adb {SERIAL}: why; "):
        backend._shell("printf why; false")
