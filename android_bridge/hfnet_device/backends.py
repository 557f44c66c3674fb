"""Where a job runs. A job is a folder that `hfnet_edge.record.runner` understands: job.json, networks, map.hfmap,
images/.

    Backend.run(JOB)    puts the runtime package of this checkout in JOB/runtime, runs it there or on a device, and
                        leaves what it wrote in JOB/out

Every machine starts it with the same environment and without the user's, so that no setting of a shell decides which
kernels compute.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import hfnet_edge
from hfnet_edge.errors import BackendError, OutputError
from hfnet_edge.methods.registry import method_file
from hfnet_edge.record.runner import JOB
from hfnet_edge.shell.console import Report, silent, size_text
from hfnet_edge.shell.reading import parse_json, read_bytes

RUNTIME, OUT = "runtime", "out"
RUNNER = ("-m", "hfnet_edge.record.runner")
ENVIRONMENT = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUTF8": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
SYSTEM = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")  # what a program needs of this machine's environment
KEPT = 20  # last lines of what a program said
PROGRESS = re.compile(r"(\d+)/(\d+)\s*")
NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '(\w+)")


@dataclass(frozen=True)
class Transfer:
    """What a run on a device moved.

    Attributes:
        bytes_pushed, bytes_pulled: of files, both ways.
        seconds: from the first push to the last pull, the run included.
    """

    bytes_pushed: int
    bytes_pulled: int
    seconds: float

    def __str__(self) -> str:
        moved = f"pushed {size_text(self.bytes_pushed)}, pulled {size_text(self.bytes_pulled)}"
        return f"{moved}, {self.seconds:.3g} s with the run"


class Backend(Protocol):
    """A machine that runs jobs. ``name`` is for people: "host", "arm64 cortex-a53", "adb SERIAL"."""

    name: str

    def run(self, job: Path, progress: Report = silent) -> Transfer | None:
        """Runs a job; its results are in JOB/out afterwards, and nothing of an earlier run.

        Returns:
            What was moved, where the job ran on another machine.

        Raises:
            BackendError: what failed, and what to install or do.
        """


class Host:
    """This machine, with the Python that runs now."""

    name = "host"

    def run(self, job: Path, progress: Report = silent) -> None:
        """See `Backend.run`."""
        environment = {name: os.environ[name] for name in SYSTEM if name in os.environ} | ENVIRONMENT
        environment["PYTHONPATH"] = str(stage(job))
        code, said = follow([sys.executable, *RUNNER, str(job)], self.name, progress, environment)
        check(self.name, job, code, said)


def stage(job: Path) -> Path:
    """Puts the runtime package in the job, with the module of a method that does not come with it, and removes earlier
    results. Returns the folder for PYTHONPATH.

    Raises:
        OutputError: it cannot be written. InputError: there is no such method.
    """
    package = Path(hfnet_edge.__file__).parent
    runtime = job.resolve() / RUNTIME
    try:
        for old in (runtime, job / OUT):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(package, runtime / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        own = method_file(_method(job))
        if own is not None and own.is_dir():
            shutil.copytree(own, runtime / own.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif own is not None:
            shutil.copy(own, runtime)
    except OSError as e:
        raise OutputError(f"cannot write {runtime}: {e.strerror or e}", "check permissions and free space") from e
    return runtime


def _method(job: Path) -> str:
    """The method that a job asks for. Of a job that is not one, that is for the runner to say."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(parse_json(read_bytes(job / JOB))["method"])
    return "hierarchical"


def follow(
    command: Sequence[str],
    what: str,
    progress: Report,
    environment: dict[str, str] | None = None,
    on_line: Callable[[str], bool] = lambda line: False,
) -> tuple[int, list[str]]:
    """Runs a command and reports its ``done/total`` lines as they come.

    Args:
        on_line: is shown every other line, and returns whether it has dealt with it.

    Returns:
        The exit code (negative: the signal that ended it) and the last lines of what it said.

    Raises:
        BackendError: it cannot be started.
    """
    said: deque[str] = deque(maxlen=KEPT)
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as e:
        raise BackendError(f"cannot start {command[0]}: {e.strerror}", "check that it is installed") from e
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if counts := PROGRESS.fullmatch(line):
                    progress(what, int(counts[1]), int(counts[2]))
                elif line.strip() and not on_line(line.strip()):
                    said.append(line.strip())
        except BaseException:
            process.kill()  # an interruption does not leave it running
            raise
    return process.returncode, list(said)


def ask(
    command: Sequence[str], environment: dict[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; ``stdout`` has all that it said. Raises BackendError where it cannot be started."""
    try:
        return subprocess.run(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except OSError as e:
        raise BackendError(f"cannot start {command[0]}: {e.strerror}", "check that it is installed") from e


def check(where: str, job: Path, code: int, said: list[str]) -> None:
    """Turns the end of a run into a BackendError, unless all went well and there are results."""
    if code == 0 and (job / OUT).is_dir() and any((job / OUT).iterdir()):
        return
    shutil.rmtree(job / OUT, ignore_errors=True)  # half of a result is none
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    last = said[-1] if said else "it said nothing"
    if code == 0:
        raise BackendError(f"{where}: the run wrote no results: {last}", "check the job")
    if errors:
        problem, _, remedy = errors[-1].partition("; ")
        raise BackendError(f"{where}: {problem}", remedy)
    if missing := next((found for line in said if (found := NO_MODULE.search(line))), None):
        raise BackendError(f"{where}: its Python has no {missing[1]}", "install hfnet-edge's requirements there")
    number = -code if code < 0 else code - 128  # a shell adds 128
    if number in {s.value for s in signal.Signals}:
        name = signal.Signals(number).name
        remedy = "free some memory there" if number == signal.SIGKILL else "try another backend"
        raise BackendError(f"{where}: the run was ended by {name}: {last}", remedy)
    raise BackendError(f"{where}: the run failed with exit code {code}: {last}", "try another backend")
