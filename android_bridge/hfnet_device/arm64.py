"""The runtime on an emulated 64-bit ARM processor: qemu runs an arm64 Python, program by program, without a chroot.

The arm64 root is made once, in the user's cache: Debian's Python and its libraries, and the wheels that the runtime
needs, at the versions that this machine has. A device without a Python of its own is given the same root.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from hfnet_device import debian
from hfnet_device.backends import ENVIRONMENT, RUNNER, ask, check, follow, stage
from hfnet_edge.errors import BackendError
from hfnet_edge.shell.cache import complete, kept, make_once
from hfnet_edge.shell.console import Report, silent

CPUS = {"max": "with dot product", "cortex-a53": "without"}  # what qemu calls them, and what XNNPACK then uses
QEMUS = ("qemu-aarch64-static", "qemu-aarch64")

SUITE = "bookworm"
DEBS = (
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libbz2-1.0",
    "libcrypt1",
    "libexpat1",
    "libffi8",
    "liblzma5",
    "libssl3",
    "libuuid1",
    "zlib1g",
)
PYTHON = "usr/bin/python3.11"
SITE = "site"  # the wheels, within the root
LIBRARIES = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
LOADER = "lib/ld-linux-aarch64.so.1"

LITERT = "ai-edge-litert==2.1.3"  # under qemu 7.2 newer ones compute nonsense on "max", or crash
AS_HERE = ("numpy", "opencv-python-headless", "pillow", "flatbuffers", "typer", "rich")
PLATFORMS = tuple(f"manylinux{name}_aarch64" for name in ("_2_35", "_2_28", "_2_27", "_2_17", "2014"))
NO_WHEEL = re.compile(r"No matching distribution found for ([\w.-]+)==")
IMPORTS = "import numpy, cv2, PIL.Image, flatbuffers, typer, rich, ai_edge_litert.interpreter"

PREPARE = "run `hfnet-device prepare-arm64`"


def pins() -> tuple[str, ...]:
    """The wheels of the root: LiteRT, and what this machine has of the rest, by version."""
    here = []
    for package in AS_HERE:
        try:
            here.append(f"{package}=={version(package)}")
        except PackageNotFoundError:  # opencv-python in place of its headless twin, for one
            here.append(package)
    return (LITERT, *here)


def root_path() -> Path:
    """Where the arm64 root is, or will be: one for each set of pins."""
    return kept("arm64", (SUITE, *DEBS, *pins()))


def prepared() -> Path:
    """The complete arm64 root. Raises BackendError."""
    path = root_path()
    if not complete(path):
        raise BackendError(f"there is no arm64 root for {', '.join(pins())}", PREPARE)
    return path


def qemu() -> str:
    """The emulator. Raises BackendError."""
    for name in QEMUS:
        if found := shutil.which(name):
            return found
    raise BackendError(f"{QEMUS[0]} not found", debian.install_line(["qemu-user-static"]))


def missing_tools() -> list[str]:
    """What is not installed of what `prepare` and `Arm64` need, by Debian package or name."""
    emulator = [] if any(shutil.which(name) for name in QEMUS) else ["qemu-user-static"]
    return emulator + debian.missing_tools()


def prepare(say: Callable[[str], None] = print) -> Path:
    """Makes the arm64 root, unless it is there, and tries it under qemu.

    Returns:
        The root's folder.

    Raises:
        BackendError: a tool is missing, Debian's or pip's servers are not reached, or its Python does not run.
        InstallError: the cache is full, or not writable.
    """
    if missing := missing_tools():
        raise BackendError(f"{', '.join(missing)} not found", debian.install_line(missing))
    emulator = qemu()

    def make(root: Path) -> None:
        say(f"making the arm64 root in {root}, once: 270 MB")
        say(f"Python 3.11 and {len(DEBS) - 3} libraries of Debian {SUITE} ...")
        debian.unpack(DEBS, "arm64", (SUITE,), root)
        _install(root / SITE, say)
        say("trying it under qemu ...")
        _try(emulator, root)

    return make_once(root_path(), make)


class Arm64:
    """An emulated processor: the runtime of this checkout under qemu.

    Args:
        cpu: one of `CPUS`.

    Raises:
        BackendError: there is no qemu or no arm64 root, or the processor is not known.
    """

    def __init__(self, cpu: str):
        if cpu not in CPUS:
            raise BackendError(f"there is no processor {cpu}", f"choose one of {', '.join(CPUS)}")
        self.name = f"arm64 {cpu}"
        emulator, self._root = qemu(), prepared()
        self._command = emulated(emulator, self._root, cpu)

    def run(self, job: Path, progress: Report = silent) -> None:
        """See `Backend.run`."""
        runtime = stage(job)
        command = [*self._command, *RUNNER, str(job.resolve())]
        code, said = follow(command, self.name, progress, _environment(runtime, self._root / SITE))
        check(self.name, job, code, said)


def emulated(emulator: str, root: Path, cpu: str) -> list[str]:
    """The start of a command line: the root's Python on an emulated processor."""
    return [emulator, "-cpu", cpu, "-L", str(root), str(root / PYTHON)]


def _environment(*search: Path) -> dict[str, str]:
    # qemu hands its own environment on: nothing of this machine's may reach the root.
    return ENVIRONMENT | {"PATH": "/usr/bin:/bin", "HOME": "/", "PYTHONPATH": ":".join(map(str, search))}


def _install(site: Path, say: Callable[[str], None]) -> None:
    """pip, for another platform than this. A pin without an arm64 wheel is let go, and named."""
    wanted = list(pins())
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    pip += ["--only-binary=:all:", "--no-compile", "--implementation", "cp", "--python-version", "3.11"]
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    while True:
        say(f"wheels: {', '.join(wanted)} ...")
        done = ask([*pip, *platforms, "--target", str(site), *wanted])
        if done.returncode == 0:
            return
        without = NO_WHEEL.search(done.stdout)
        pinned = [pin for pin in wanted if without and pin != LITERT and pin.split("==")[0] == without[1]]
        if not pinned or "==" not in pinned[0]:
            break
        say(f"there is no arm64 wheel of {pinned[0]}: another version is taken")
        wanted[wanted.index(pinned[0])] = pinned[0].split("==")[0]
    lines = [line for line in done.stdout.splitlines() if line.startswith("ERROR")] or done.stdout.splitlines()[-1:]
    if "No module named pip" in done.stdout:
        raise BackendError(f"{sys.executable} has no pip", "run `python -m ensurepip`")
    raise BackendError(
        f"pip cannot install the arm64 wheels: {' '.join(lines)[-debian.SAID :]}",
        "make 1 GB of room on the disk" if "No space left" in done.stdout else "check the network or pip's index",
    )


def _try(emulator: str, root: Path) -> None:
    done = ask([*emulated(emulator, root, "max"), "-c", IMPORTS], _environment(root / SITE))
    if done.returncode:
        said = " ".join(done.stdout.split())[-debian.SAID :]
        raise BackendError(
            f"the arm64 Python does not run under {emulator} (exit code {done.returncode}): {said}",
            "install qemu 7.2 or newer",
        )
