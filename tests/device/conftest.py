"""Jobs: small ones for a stand-in runner, and a real one with the bundled network on a place drawn by code."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hfnet_device import backends

STAND_IN = """
import json, os, sys, time
from pathlib import Path
job = Path(sys.argv[1])
what = json.loads((job / "job.json").read_text())["task"]
print("1/2", flush=True)
if what == "error":
    print("error: the map is stale; pack it again", file=sys.stderr)
    sys.exit(2)
if what == "crash":
    raise RuntimeError("out of ideas")
if what == "module":
    import a_module_that_is_not_there
if what == "killed":
    os.kill(os.getpid(), 9)
if what == "wait":
    time.sleep(60)
if what == "seven":
    sys.exit(7)
if what == "nothing":
    sys.exit()
(job / "out").mkdir(exist_ok=True)
for path in [job / "model.tflite", *(job / "images").rglob("*")]:
    if path.is_file():
        (job / "out" / path.name).write_bytes(path.read_bytes()[::-1])
environment = {name: os.environ.get(name) for name in ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "PYTHONPATH")}
(job / "out" / "environment.json").write_text(json.dumps(environment))
print("2/2", flush=True)
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Makes jobs for a runner that does what the job says, in place of ours. Returns what makes them."""
    package = tmp_path / "stand-in" / "hfnet_edge"
    (package / "record").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "record" / "runner.py").write_text(STAND_IN)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "runner.pyc").touch()
    monkeypatch.setattr(backends, "hfnet_edge", SimpleNamespace(__file__=str(package / "__init__.py")))

    def make(task: str) -> Path:
        job = tmp_path / "job"
        shutil.rmtree(job, ignore_errors=True)
        (job / "images" / "left side").mkdir(parents=True)
        (job / "job.json").write_text(json.dumps({"task": task}))
        (job / "model.tflite").write_bytes(bytes(range(256)) * 5000)
        (job / "map.hfmap").write_bytes(b"map")
        (job / "images" / "left side" / "a photo.jpg").write_bytes(b"photo")
        return job

    return make


@pytest.fixture
def running():
    """Finds the processes of this machine that have a path in their command line, by number."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("there is no /proc to look for processes in")

    def find(path: Path) -> list[int]:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if str(path).encode() in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
        return found

    return find


@pytest.fixture(scope="session")
def real_job(tmp_path_factory, kit) -> Path:
    """A job of two queries for the bundled network in int8. Tests copy it."""
    from hfnet_edge.record.runner import JOB

    folder, task = kit.job(tmp_path_factory.mktemp("real") / "job")
    task = replace(task, queries=task.queries[:2])
    (folder / JOB).write_text(json.dumps(task.to_json()))
    return folder
