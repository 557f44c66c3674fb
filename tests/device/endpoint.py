"""An adb endpoint that nothing outside can reach: adbd, the adb server and its client in one network namespace.

Virtual machines' sockets (vsock) have no namespaces, so adbd is kept from opening any.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

SERIAL = "127.0.0.1:5555"
PATIENCE = 60  # seconds

SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
AF_VSOCK, EAFNOSUPPORT = 40, 97
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2


class Endpoint:
    """A network namespace with adbd in it, and an ``adb`` command that works there.

    Args:
        folder: for the command, logs and adb's keys.
        adbd: the command line that starts adbd.
    """

    def __init__(self, folder: Path, adbd: list[str]):
        self.bin = folder / "bin"
        self._folder, self._adbd, self._daemon = folder, adbd, None
        self.bin.mkdir(parents=True)
        ready = "ip link set lo up && echo ready && exec sleep infinity"
        self._namespace = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", ready], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._namespace.stdout is not None
        if self._namespace.stdout.readline() != "ready\n":
            self._namespace.wait()
            pytest.skip("network namespaces cannot be made here")
        self._enter = ["nsenter", f"--net=/proc/{self._namespace.pid}/ns/net"]
        script = self.bin / "adb"
        script.write_text(
            f'#!/bin/sh\nHOME={folder} ADB_VENDOR_KEYS= exec {" ".join(self._enter)} {shutil.which("adb")} "$@"\n'
        )
        script.chmod(0o755)
        self.adb("start-server")
        time.sleep(0.5)  # it looks for emulators on port 5555 when it starts, and would list adbd twice

    def plug(self) -> None:
        """Starts adbd and waits until adb sees it."""
        with (self._folder / "adbd.log").open("a") as log:
            command = [*self._enter, *self._adbd]
            self._daemon = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=refuse_vsock)
        end = time.monotonic() + PATIENCE
        while not re.search(rf"{SERIAL}\s+device\b", self.adb("connect", SERIAL) and self.adb("devices")):
            assert time.monotonic() < end, (self._folder / "adbd.log").read_text()
            assert self._daemon.poll() is None, (self._folder / "adbd.log").read_text()
            time.sleep(0.2)

    def unplug(self) -> None:
        """Ends adbd as if the cable were pulled."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def adb(self, *arguments: str) -> str:
        """What adb prints."""
        done = subprocess.run([self.bin / "adb", *arguments], capture_output=True, text=True, timeout=PATIENCE)
        return done.stdout

    def close(self) -> None:
        """Leaves nothing running."""
        self.unplug()
        self.adb("kill-server")
        self._namespace.kill()
        self._namespace.wait()


def refuse_vsock() -> None:
    """Lets no program from here on open a vsock: a seccomp filter, which every child inherits."""

    def step(code: int, yes: int, no: int, value: int) -> bytes:
        return struct.pack("HBBI", code, yes, no, value)

    load, equal, give = 0x20, 0x15, 0x06
    steps = [
        step(load, 0, 0, 0),  # the system call's number
        step(equal, 0, 3, SOCKET_CALL[platform.machine()]),
        step(load, 0, 0, 16),  # its first argument
        step(equal, 0, 1, AF_VSOCK),
        step(give, 0, 0, 0x00050000 | EAFNOSUPPORT),
        step(give, 0, 0, 0x7FFF0000),  # allow
    ]
    code = ctypes.create_string_buffer(b"".join(steps))
    program = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def need_tools() -> None:
    """Skips the test where namespaces or adb are missing."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root here")
    for tool in ("adb", "unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
