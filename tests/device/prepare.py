"""Fetches what the tests of adb run against: Debian's adbd for this machine, and a small emulated arm64 device.

    python tests/device/prepare.py

Both are unpacked into the user's cache (70 MB) and run in network namespaces of their own only: adbd listens on all
interfaces and asks nobody.
"""

from __future__ import annotations

import platform
from pathlib import Path

from hfnet_device.debian import unpack
from hfnet_edge.shell.cache import complete, kept, make_once
from hfnet_edge.shell.console import reports_errors, wrote

SUITES = ("bookworm", "bookworm-backports")
BACKPORTED = ("adbd", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog")
LIBRARIES = """libbrotli1 libbsd0 libc6 libcap2 libgcc-s1 libgcrypt20 libgpg-error0 liblz4-1 liblzma5 libmd0
    libprotobuf32 libstdc++6 libsystemd0 libzstd1 zlib1g"""
ADBD = (*(f"{name}/bookworm-backports" for name in BACKPORTED), *LIBRARIES.split())
ADBD_PATH = "usr/lib/android-sdk/platform-tools/adbd"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
APPLETS = ("sh", "cat", "env", "ls", "mkdir", "rm", "tar", "touch", "uname")  # what Android's toybox has too
SKIP = "the test devices are not there: run `make devices`"


def devices_path() -> Path:
    """host/ has adbd for this machine, arm64/ the whole root of a device."""
    return kept("test-devices", (*SUITES, *ADBD, *APPLETS, platform.machine()))


def prepared() -> Path | None:
    """The folder, where it was made."""
    return devices_path() if complete(devices_path()) else None


def make(folder: Path) -> None:
    (folder / "host").mkdir()
    (folder / "arm64").mkdir()
    unpack(ADBD, ARCHITECTURES[platform.machine()], SUITES, folder / "host")
    root = folder / "arm64"
    unpack((*ADBD, "busybox-static"), "arm64", SUITES, root)
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for mount in ("proc", "sys", "dev", "data/local/tmp", "tmp"):
        (root / mount).mkdir(parents=True)


@reports_errors
def main() -> None:
    wrote(make_once(devices_path(), make), "pytest -m 'slow or not slow' tests/device")


if __name__ == "__main__":
    main()
