"""The library for the JVM: `hfnet-edge.jar`, which `make android` builds, on this machine or on an emulated 64-bit ARM
processor with Debian's Java.

The arm64 root is made once, in the user's cache: Java and its libraries, and the natives that the jar's libraries have
for ARM, at the versions that they have here.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from hfnet_device import debian
from hfnet_device.arm64 import CPUS, SUITE, missing_tools, qemu
from hfnet_device.backends import OUT, SYSTEM, ask, check, follow
from hfnet_edge.errors import BackendError
from hfnet_edge.shell.cache import complete, kept, make_once
from hfnet_edge.shell.console import Report, silent

JAR, LIBRARIES, NATIVES = "hfnet-edge.jar", "lib", "natives"
NAMED_BY = "HFNET_EDGE_JAR"  # the jar, where it is not in its checkout
BUILT = Path(__file__).parents[1] / "library" / "app" / "target" / JAR
MAIN = "dev.hfnet.edge.app.MainKt"
JOB = "job"  # the command that runs one
SETTINGS = ("-Dfile.encoding=UTF-8", "-Duser.language=en")
DEBS = ("openjdk-17-jre-headless", "libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libjpeg62-turbo", "liblcms2-2")
JAVA = "usr/lib/jvm/java-17-openjdk-arm64/bin/java"
# One compiler, which an emulator has time for, and no vectors of a length that qemu chooses.
EMULATED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
WITHOUT_SVE = {"max": ("-XX:UseSVE=0",)}
OF_A_MACHINE = re.compile(r"([a-z-]+)-(\d[\w.-]*)-(linux|macosx|windows)-\w+\.jar")
PREPARE = "run `hfnet-device prepare-jvm-arm64`"


def jar() -> Path:
    """The runnable jar, with its libraries in ``lib`` beside it. Raises BackendError: there is none."""
    path = Path(os.environ.get(NAMED_BY, BUILT))
    if not path.is_file():
        raise BackendError(f"there is no {path}", f"build it with `make android`, or name it in {NAMED_BY}")
    return path


class Jvm:
    """The desktop JVM. Raises BackendError: there is no Java, or no jar."""

    name = "jvm"

    def __init__(self) -> None:
        java = shutil.which("java")
        if java is None:
            raise BackendError("java not found", "install a Java runtime of version 11 or newer")
        self._command = [java, *SETTINGS, "-jar", str(jar()), JOB]

    def run(self, job: Path, progress: Report = silent) -> None:
        """See `hfnet_device.backends.Backend.run`."""
        environment = {name: os.environ[name] for name in SYSTEM if name in os.environ}
        _run(self.name, self._command, job, progress, environment)


class JvmArm64:
    """The JVM on an emulated processor.

    Args:
        cpu: one of `hfnet_device.arm64.CPUS`.

    Raises:
        BackendError: there is no qemu, no jar or no arm64 root, or the processor is not known.
    """

    def __init__(self, cpu: str):
        if cpu not in CPUS:
            raise BackendError(f"there is no processor {cpu}", f"choose one of {', '.join(CPUS)}")
        self.name = f"jvm-arm64 {cpu}"
        path, root = jar(), prepared()
        shared = [file for file in sorted((path.parent / LIBRARIES).iterdir()) if not OF_A_MACHINE.fullmatch(file.name)]
        classes = [path, *shared, *sorted((root / NATIVES).glob("*.jar"))]
        self._command = [
            *(qemu(), "-cpu", cpu, "-L", str(root), str(root / JAVA), *SETTINGS, *EMULATED, *WITHOUT_SVE.get(cpu, ())),
            *(f"-Dorg.bytedeco.javacpp.cachedir={root / 'unpacked'}", "-cp", ":".join(map(str, classes)), MAIN, JOB),
        ]

    def run(self, job: Path, progress: Report = silent) -> None:
        """See `hfnet_device.backends.Backend.run`."""
        _run(self.name, self._command, job.resolve(), progress, {"PATH": "/usr/bin:/bin", "HOME": "/"})


def _run(name: str, command: list[str], job: Path, progress: Report, environment: dict[str, str]) -> None:
    shutil.rmtree(job / OUT, ignore_errors=True)
    code, said = follow([*command, str(job)], name, progress, environment)
    check(name, job, code, said)


def natives() -> list[tuple[str, str]]:
    """Artifact and version of the libraries that differ between machines. Raises BackendError: there is no jar."""
    named = (OF_A_MACHINE.fullmatch(file.name) for file in (jar().parent / LIBRARIES).iterdir())
    return sorted({(found[1], found[2]) for found in named if found})


def root_path() -> Path:
    """Where the arm64 root is, or will be: one for each set of versions."""
    return kept("jvm-arm64", (SUITE, *DEBS, *(f"{name}:{version}" for name, version in natives())))


def prepared() -> Path:
    """The complete arm64 root. Raises BackendError."""
    path = root_path()
    if not complete(path):
        raise BackendError("there is no arm64 root with Java", PREPARE)
    return path


def prepare(say: Callable[[str], None] = print) -> Path:
    """Makes the arm64 root, unless it is there, and tries its Java under qemu.

    Returns:
        The root's folder.

    Raises:
        BackendError: a tool or the jar is missing, Debian's or Maven's servers are not reached, or Java does not run.
        InstallError: the cache is full, or not writable.
    """
    missing = missing_tools() + ([] if shutil.which("mvn") else ["maven"])
    if missing:
        raise BackendError(f"{', '.join(missing)} not found", debian.install_line(missing))

    def make(root: Path) -> None:
        say(f"making the arm64 root with Java in {root}, once: 300 MB")
        debian.unpack(DEBS, "arm64", (SUITE,), root)
        for name, version in natives():
            say(f"{name} {version} ...")
            artifact = f"-Dartifact=org.bytedeco:{name}:{version}:jar:linux-arm64"
            done = ask(
                ["mvn", "-q", "-B", "dependency:copy", artifact, f"-DoutputDirectory={root / NATIVES}"],
                dict(os.environ),
            )
            if done.returncode:
                raise BackendError(f"Maven cannot fetch {name} {version} for ARM", "check the network")
        say("trying it under qemu ...")
        done = ask([qemu(), "-cpu", "max", "-L", str(root), str(root / JAVA), "-XX:UseSVE=0", "-version"])
        if done.returncode:
            raise BackendError(
                f"Java does not run under qemu: {done.stdout[-debian.SAID :]}", "install qemu 7.2 or newer"
            )

    return make_once(root_path(), make)
