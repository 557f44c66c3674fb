"""A device over adb: pushes the job, runs it there, pulls the results.

Everything on the device is below `HOME`, and needs neither root rights nor an app:

    HOME/arm64-HASH/     the arm64 root with its own Python, pushed once, started through its own loader
    HOME/arm64-HASH.ok   written when the whole root is there
    HOME/job-ID/         one run: models, map, images, runtime and results; removed at its end, or by the next run
    HOME/job-ID/pid      the process number of its runner

Old devices do not return the exit code of `adb shell`, and a connection that breaks returns any. So each script says
its exit code itself, last, on a line of its own.
"""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import tarfile
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hfnet_device import debian
from hfnet_device.arm64 import LIBRARIES, LOADER, PYTHON, SITE, prepared
from hfnet_device.backends import ENVIRONMENT, OUT, RUNNER, RUNTIME, Transfer, ask, check, follow, stage
from hfnet_edge.errors import BackendError
from hfnet_edge.shell.cache import MARKER, locked
from hfnet_edge.shell.console import Report, silent

HOME = "/data/local/tmp/hfnet-edge"
READY = "device"  # as `adb devices` calls it
STATES = {
    "unauthorized": "unlock its screen and allow debugging by this computer",
    "offline": "plug it in again, or run `adb reconnect`",
    "no permissions": "add a udev rule for it (Debian: android-sdk-platform-tools-common), and plug it in again",
}
LOST = "check the cable and `adb devices`, and run the same command again"
EXIT = re.compile(r"exit (\d+)")
HEADING = "List of devices attached\n"
SAY_CODE = 'code=$?; echo; echo "exit $code"'
# A number in a pid file may be another process's by now: the runner names its folder in its command line.
REMOVE = """for file in {folders}/pid; do
    if [ -f $file ] && read -r pid <$file; then
        case "$(cat /proc/$pid/cmdline 2>/dev/null)" in *"${{file%/pid}}"*) kill -9 $pid ;; esac
    fi
done; rm -rf {folders}"""


@dataclass(frozen=True)
class Device:
    """A line of `adb devices`: the serial number, and "device" where it is ready."""

    serial: str
    state: str

    @property
    def remedy(self) -> str:
        """What to do where it is not ready."""
        return next((text for state, text in STATES.items() if self.state.startswith(state)), "start it normally")


def devices() -> list[Device]:
    """What is connected. Raises BackendError."""
    _, _, listed = _adb("devices").partition(HEADING)
    found = (re.fullmatch(r"(\S+)\t(.+)", line) for line in listed.splitlines())
    return [Device(match[1], match[2].strip()) for match in found if match]


def choose(serial: str | None) -> str:
    """The serial number of the device: the one that is named, or the only one. Raises BackendError."""
    there = devices()
    if not there:
        raise BackendError("no device is connected", "plug one in with USB debugging on; see `adb devices`")
    names = ", ".join(device.serial for device in there)
    if serial is None and len(there) > 1:
        raise BackendError(f"{len(there)} devices are connected: {names}", "choose one with --device SERIAL")
    device = next((device for device in there if serial in (None, device.serial)), None)
    if device is None:
        raise BackendError(f"the device {serial} is not connected, but {names}", "check --device")
    if device.state != READY:
        raise BackendError(f"the device {device.serial} is {device.state}", device.remedy)
    return device.serial


class Adb:
    """A device. It runs the prepared arm64 root, or a Python of its own.

    Args:
        serial: as `adb devices` names it; None where only one is connected.
        python: a command on the device, with its arguments, that starts a Python with the runtime's requirements. None:
            the arm64 root.

    Raises:
        BackendError: no adb, no such device, not authorised, not arm64, or no arm64 root.
    """

    def __init__(self, serial: str | None = None, python: str | None = None):
        self.serial = choose(serial)
        self.name = f"adb {self.serial}"
        self._python = python
        self._root = None
        if python is None:
            self._root = prepared()
            machine = self._shell("uname -m; getprop ro.product.cpu.abilist 2>/dev/null || true")
            if not ("aarch64" in machine or "arm64-v8a" in machine):
                raise BackendError(
                    f"{self.name} is {' '.join(machine.split())}, not aarch64",
                    "use a 64-bit ARM device, or name a Python on this one",
                )

    def run(self, job: Path, progress: Report = silent) -> Transfer:
        """See `Backend.run`."""
        stage(job)
        started = time.monotonic()
        try:
            with locked("adb-" + re.sub(r"\W", "_", self.serial)):  # runs on one device follow each other
                self._shell(f"mkdir -p {HOME}; {REMOVE.format(folders=f'{HOME}/job-*')}")
                pushed = self._push_root()
                folder = f"{HOME}/job-{secrets.token_hex(4)}"
                try:
                    self._shell(f"mkdir {folder}")
                    parts = sorted(part for part in job.iterdir() if part.name != OUT)
                    self._run("push", *map(str, parts), f"{folder}/")
                    pushed += sum(_size(part) for part in parts)
                    code, said = self._start(folder, progress)
                    if code == 0 and self._there(f"{folder}/{OUT}"):
                        self._run("pull", f"{folder}/{OUT}", str(job.resolve()))
                except BaseException:
                    shutil.rmtree(job / OUT, ignore_errors=True)  # half of a result is none
                    raise
                finally:
                    self._remove(folder)
        except OSError as e:
            raise BackendError(f"{self.name}: {e.strerror or e}", "check permissions and free space here") from e
        check(self.name, job, code, said)
        return Transfer(pushed, _size(job / OUT), time.monotonic() - started)

    def _start(self, folder: str, progress: Report) -> tuple[int, list[str]]:
        """Runs the runner on the device. Returns its exit code and last lines."""
        variables = ENVIRONMENT | {"PYTHONPATH": f"{folder}/{RUNTIME}", "TMPDIR": folder}
        if self._root is None:
            command = str(self._python)
        else:
            root = f"{HOME}/{self._root.name}"
            libraries = ":".join(f"{root}/{path}" for path in LIBRARIES)
            command = f"{root}/{LOADER} --library-path {libraries} {root}/{PYTHON}"
            variables["PYTHONHOME"] = f"{root}/usr"
            variables["PYTHONPATH"] += f":{root}/{SITE}"
        settings = " ".join(f"{name}={value}" for name, value in variables.items())
        script = (
            f'cd {folder}; env -i PATH="$PATH" HOME="${{HOME:-{folder}}}" {settings} '
            f"{command} {' '.join(RUNNER)} {folder} 2>&1 & echo $! >pid; wait $!; {SAY_CODE}"
        )
        codes: list[int] = []

        def on_line(line: str) -> bool:
            if ended := EXIT.fullmatch(line):
                codes.append(int(ended[1]))
            return bool(ended)

        adb = [_tool(), "-s", self.serial, "shell", script]
        _, said = follow(adb, self.name, progress, on_line=on_line)
        if not codes:
            raise BackendError(f"{self.name}: the connection was lost during the run: {_end(said)}", LOST)
        return codes[-1], said

    def _push_root(self) -> int:
        """Puts the arm64 root on the device, unless it is there. Returns the bytes pushed."""
        if self._root is None:
            return 0
        root = f"{HOME}/{self._root.name}"
        if self._there(f"{root}.ok"):
            return 0
        self._shell(f"rm -rf {HOME}/arm64-*; mkdir {root}")  # of other versions, or half of this one
        try:
            if self._shell("command -v tar || true"):
                with tempfile.TemporaryDirectory() as name:
                    archive = Path(name) / "root.tar"
                    with tarfile.open(archive, "w") as tar:
                        tar.add(self._root, ".", filter=_plain)
                    self._run("push", str(archive), f"{root}/root.tar")
                    pushed = archive.stat().st_size
                self._shell(f"cd {root} && tar -xf root.tar && rm root.tar")
            else:
                self._run("push", str(self._root), HOME)
                pushed = _size(self._root)
            self._shell(f"touch {root}.ok")
        except BaseException:
            self._remove(root)
            raise
        return pushed

    def _there(self, path: str) -> bool:
        return self._shell(f"[ -e {path} ] && echo there || true") == "there"

    def _remove(self, folder: str) -> None:
        """Ends what still runs there and removes its folder; the next run does it where the device is away."""
        with suppress(BackendError):
            self._shell(REMOVE.format(folders=folder))

    def _shell(self, script: str) -> str:
        """What a script prints on the device. Raises BackendError where it fails."""
        said = self._run("shell", f"{script}; {SAY_CODE}")
        text, _, last = said.strip().rpartition("\n")
        code = EXIT.fullmatch(last.strip())
        if code is None:
            raise BackendError(f"{self.name}: the connection was lost: {_end(said.splitlines())}", LOST)
        if int(code[1]):
            raise _failure(self.name, text)
        return text.strip()

    def _run(self, *arguments: str) -> str:
        return _adb("-s", self.serial, *arguments, where=self.name)


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return None if entry.name == f"./{MARKER}" else entry


def _tool() -> str:
    if found := shutil.which("adb"):
        return found
    raise BackendError("adb not found", debian.install_line(["adb"]))


def _adb(*arguments: str, where: str = "adb") -> str:
    """What adb prints. Raises BackendError."""
    done = ask([_tool(), *arguments])
    if done.returncode:
        raise _failure(where, done.stdout)
    return done.stdout


def _failure(where: str, said: str) -> BackendError:
    if "No space left" in said:
        return BackendError(f"{where}: the device is full", f"make 1 GB of room there, in {shlex.quote(HOME)}")
    return BackendError(f"{where}: {_end(said.splitlines())}", LOST)


def _end(said: list[str]) -> str:
    """The last line that tells something, without adb's prefix."""
    lines = [line.strip() for line in said if line.strip() and not line.startswith("*")]
    return lines[-1].removeprefix("adb: ").removeprefix("error: ")[-debian.SAID :] if lines else "it said nothing"


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file() and not f.is_symlink()]
    return sum(f.stat().st_size for f in files)
