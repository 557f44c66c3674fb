"""The parts of a run that need no device: staging, progress, and what becomes of each way to fail."""

from __future__ import annotations

import json
import os
from subprocess import CompletedProcess

import pytest
from typer.testing import CliRunner

from hfnet_device import arm64, cli, debian
from hfnet_device.arm64 import Arm64
from hfnet_device.backends import Host, follow
from hfnet_edge.errors import BackendError, InstallError
from hfnet_edge.shell.cache import complete, kept, make_once


def test_the_host_runs_the_code_of_this_checkout_in_an_environment_of_its_own(stand_in, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Nehalem")  # which would choose other kernels
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    job = stand_in("echo")
    (job / "out").mkdir()
    (job / "out/stale.json").touch()
    seen = []
    Host().run(job, lambda what, done, total, note="": seen.append((what, done, total)))
    assert seen == [("host", 1, 2), ("host", 2, 2)]
    assert sorted(path.name for path in (job / "out").iterdir()) == ["a photo.jpg", "environment.json", "model.tflite"]
    assert (job / "out/a photo.jpg").read_bytes() == b"otohp"
    assert json.loads((job / "out/environment.json").read_text()) == {
        "OPENBLAS_CORETYPE": None,
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": str(job / "runtime"),
    }
    assert sorted(path.name for path in (job / "runtime/hfnet_edge").iterdir()) == ["__init__.py", "record"]


@pytest.mark.parametrize(
    "task, problem, remedy",
    [
        ("error", "host: the map is stale", "pack it again"),
        ("crash", "host: the run failed with exit code 1: RuntimeError: out of ideas", "try another backend"),
        ("module", "host: its Python has no a_module_that_is_not_there", "install hfnet-edge's requirements there"),
        ("killed", "host: the run was ended by SIGKILL: it said nothing", "free some memory there"),
        ("nothing", "host: the run wrote no results: it said nothing", "check the job"),
    ],
)
def test_each_way_to_fail_is_one_error_and_leaves_no_results(stand_in, task, problem, remedy):
    job = stand_in(task)
    (job / "out").mkdir()
    (job / "out/stale.json").touch()
    with pytest.raises(BackendError) as caught:
        Host().run(job)
    assert (caught.value.problem, caught.value.remedy) == (problem, remedy)
    assert not (job / "out").exists()


def test_an_interruption_does_not_leave_the_run_behind(stand_in, running):
    job = stand_in("wait")
    seen = []

    def interrupt(what, done, total, note=""):
        seen.extend(running(job))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Host().run(job, interrupt)
    assert len(seen) == 1 and running(job) == []


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(BackendError, match=r"cannot start /nowhere/qemu: No such file"):
        follow(["/nowhere/qemu"], "x", lambda *_: None)


def test_what_arm64_lacks_is_named_with_the_line_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(debian, "KEYRING", tmp_path / "debian-archive-keyring.gpg")
    line = r"run `apt-get install apt debian-archive-keyring dpkg qemu-user-static` as root"
    with pytest.raises(BackendError, match=line) as caught:
        arm64.prepare(lambda _: None)
    assert "qemu-user-static, apt-get, dpkg-deb" in caught.value.problem
    with pytest.raises(BackendError, match=r"qemu-aarch64-static not found; run `apt-get install qemu-user-static`"):
        Arm64("max")
    (tmp_path / "qemu-aarch64").write_text("#!/bin/sh\n")
    (tmp_path / "qemu-aarch64").chmod(0o755)
    with pytest.raises(BackendError, match=r"no arm64 root for ai-edge-litert==.*; run `hfnet-device prepare-arm64`"):
        Arm64("max")
    with pytest.raises(BackendError, match=r"no processor pentium; choose one of max, cortex-a53"):
        Arm64("pentium")


def test_an_emulator_that_fails_is_told_from_the_runtime(monkeypatch, tmp_path, stand_in):
    root = tmp_path / "root"
    monkeypatch.setattr(arm64, "prepared", lambda: root)
    (tmp_path / "bin").mkdir()
    qemu = tmp_path / "bin/qemu-aarch64-static"
    qemu.write_text("#!/bin/sh\necho 'qemu: uncaught target signal 11 (Segmentation fault)' >&2\nkill -SEGV $$\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(BackendError, match=r"arm64 max: the run was ended by SIGSEGV: qemu: uncaught"):
        Arm64("max").run(stand_in("echo"))


def test_the_root_belongs_to_the_versions_that_are_installed(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = arm64.root_path()
    assert before.parent == tmp_path / "hfnet-edge" and before == arm64.root_path()
    versions = dict.fromkeys(arm64.AS_HERE, "9.9")
    monkeypatch.setattr(arm64, "version", versions.__getitem__)
    assert "numpy==9.9" in arm64.pins() and arm64.root_path() != before


def test_a_pin_without_an_arm64_wheel_is_let_go_by_name(monkeypatch, tmp_path):
    asked, said = [], []

    def pip(command):
        asked.append(command[-len(arm64.pins()) :])
        lacking = any(pin.startswith("numpy==") for pin in asked[-1])
        error = "ERROR: No matching distribution found for numpy==9.9\n" if lacking else ""
        return CompletedProcess(command, int(lacking), error)

    monkeypatch.setattr(arm64, "ask", pip)
    arm64._install(tmp_path, said.append)
    assert len(asked) == 2 and "numpy" in asked[1] and asked[1][0] == arm64.LITERT
    assert any("there is no arm64 wheel of numpy==" in line for line in said)
    lost = CompletedProcess([], 1, f"ERROR: No matching distribution found for {arm64.LITERT}\n")
    monkeypatch.setattr(arm64, "ask", lambda command: lost)
    with pytest.raises(BackendError, match=r"pip cannot install the arm64 wheels: .*check the network or pip's index"):
        arm64._install(tmp_path, said.append)


def test_the_list_says_what_each_backend_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    lines = CliRunner().invoke(cli.main, ["list"]).output.splitlines()
    assert any("host" in line and "ready" in line for line in lines)
    assert any("arm64" in line and "qemu-user-static" in line and "apt-get install" in line for line in lines)
    assert any("adb" in line and "adb not found; run `apt-get install adb` as root" in line for line in lines)


def test_a_folder_of_the_cache_is_made_once_and_again_after_a_kill(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = kept("thing", ["a==1"])
    assert path != kept("thing", ["a==2"])
    path.mkdir(parents=True)
    (path / "half").touch()  # of a run that was killed: there is no marker
    calls = []

    def make(folder):
        calls.append(sorted(folder.iterdir()))
        (folder / "whole").touch()

    assert make_once(path, make) == make_once(path, make) == path
    assert calls == [[]] and complete(path) and not (path / "half").exists()

    def fail(folder):
        raise BackendError("no network", "find one")

    other = kept("thing", ["a==3"])
    with pytest.raises(BackendError, match="no network"):
        make_once(other, fail)
    assert not other.exists()

    def full(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(InstallError, match=r"No space left on device; .* set XDG_CACHE_HOME"):
        make_once(other, full)
    assert not other.exists()


def test_links_of_a_root_stay_inside_it(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "etc/site.py").write_text("ours")
    (tmp_path / "usr/lib/site.py").symlink_to("/etc/site.py")
    (tmp_path / "usr/lib/passwd").symlink_to("/etc/passwd")  # of this machine: not in the root
    (tmp_path / "usr/lib/loader").symlink_to("../../etc/site.py")
    debian._keep_links_inside(tmp_path)
    assert (tmp_path / "usr/lib/site.py").readlink().parts[0] == ".."
    assert (tmp_path / "usr/lib/site.py").read_text() == (tmp_path / "usr/lib/loader").read_text() == "ours"
    assert not (tmp_path / "usr/lib/passwd").is_symlink()
