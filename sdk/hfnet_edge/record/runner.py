"""Runs a job on the machine that this is: `python -m hfnet_edge.record.runner JOB`. Workstation, emulator and device
all run this module, so that what they return can be compared.

    JOB/job.json       what to do: "task" and the fields of `RecordJob` or `hfnet_edge.record.bench.BenchJob`
    JOB/model.tflite, JOB/map.hfmap, JOB/images/, and for some maps JOB/patches.tflite
    JOB/out/           what came of it

Prints ``done/total`` after each query. Exit code 2 and one line on stderr for an error that is ours.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.errors import HFNetEdgeError, InputError
from hfnet_edge.geometry import Camera
from hfnet_edge.localizer import LocalizationConfig, Localizer, Method
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.model import Model
from hfnet_edge.networks.patch_model import PatchModel
from hfnet_edge.pose import PoseConfig, solver_here
from hfnet_edge.record.bench import BenchJob, bench
from hfnet_edge.record.recording import QueryRecord, Recording, digest, record_query
from hfnet_edge.record.recording_file import camera_from_json, camera_to_json, to_bytes
from hfnet_edge.shell.console import EXIT_ERROR, error_line
from hfnet_edge.shell.files import atomic_write, parse_json, read_bytes
from hfnet_edge.shell.quiet import own_process

JOB, MODEL, PATCHES, MAP, IMAGES, OUT = "job.json", "model.tflite", "patches.tflite", "map.hfmap", "images", "out"
RECORDING, BENCH = "recording.zip", "bench.json"

OnQuery = Callable[[int, int], None]


@dataclass(frozen=True)
class RecordJob:
    """Localizes queries and keeps every stage.

    Attributes:
        queries: name, file below IMAGES, camera.
        solver: see `PoseConfig`; this machine's own where it is None or not there.
        threads: of the networks.
        method: of localization.
    """

    queries: tuple[tuple[str, str, Camera], ...]
    solver: str | None = None
    threads: int = 2
    method: Method = Method.HIERARCHICAL

    def to_json(self) -> dict:
        """For job.json."""
        return {
            "task": "record",
            "solver": self.solver,
            "threads": self.threads,
            "method": self.method,
            "queries": [[name, file, camera_to_json(camera)] for name, file, camera in self.queries],
        }

    @classmethod
    def from_json(cls, fields: dict) -> RecordJob:
        """Reads what `to_json` made."""
        queries = tuple((name, file, camera_from_json(camera)) for name, file, camera in fields["queries"])
        return cls(queries, fields["solver"], fields["threads"], Method(fields["method"]))


def record(folder: Path, job: RecordJob, on_query: OnQuery = lambda *_: None) -> Recording:
    """Localizes the queries of a job's folder on this machine.

    Raises:
        HFNetEdgeError: a file is missing or damaged, or they do not belong together.
    """
    patches = patches_of(folder)
    localizer = Localizer(
        folder / MAP,
        Model(folder / MODEL, job.threads),
        LocalizationConfig(job.method, pose=PoseConfig(solver=solver_here(job.solver))),
        patches and PatchModel(patches, job.threads),
    )
    queries = [(name, folder / IMAGES / file, camera) for name, file, camera in job.queries]
    return Recording(
        about(
            localizer,
            read_bytes(folder / MODEL),
            read_bytes(folder / MAP),
            patches=None if patches is None else read_bytes(patches),
        ),
        reference_poses(localizer.map),
        record_queries(localizer, queries, on_query),
    )


def patches_of(folder: Path) -> Path | None:
    """The patch network of a job's folder; None: it has none."""
    return folder / PATCHES if (folder / PATCHES).exists() else None


def record_queries(
    localizer: Localizer, queries: Sequence[tuple[str, Path, Camera]], on_query: OnQuery = lambda *_: None
) -> tuple[QueryRecord, ...]:
    """Localizes queries (name, image file, camera) and keeps every stage.

    Raises:
        ImageError, CameraError: of the first bad one. MapFormatError: the map is damaged where a query touches it.
    """
    records = []
    for done, (name, file, camera) in enumerate(queries, 1):
        records.append(record_query(name, camera, localizer.map, localizer.stages(file, camera)))
        on_query(done, len(queries))
    return tuple(records)


def about(
    localizer: Localizer, model: bytes, m: bytes, processor: str = "CPU, LiteRT", patches: bytes | None = None
) -> dict[str, str]:
    """What ran where; ``model``, ``m`` and ``patches`` are the files of HF-Net, the map and the patch network."""
    description = localizer.model.description
    found = {
        "method": str(localizer.config.method),
        "processor": processor,
        "machine": platform.machine(),
        "kernels": localizer.model.kernels,
        "solver": localizer.config.pose.solver,
        "precision": description.precision,
        "weights_hash": description.weights_hash,
        "model_hash": digest(model),
        "map_hash": digest(m),
    }
    if localizer.patch_model is not None and patches is not None:
        found |= {
            "patch_kernels": localizer.patch_model.kernels,
            "patch_precision": localizer.patch_model.description.precision,
            "patch_weights_hash": localizer.patch_model.description.weights_hash,
            "patch_model_hash": digest(patches),
        }
    found |= {
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    for package in ("ai-edge-litert", "pillow"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def reference_poses(m: LocalizationMap) -> dict[str, np.ndarray]:
    """Name of each reference image to its cam_from_world, (7,) float64."""
    return dict(zip(m.image_names, np.array(m.image_poses), strict=True))


def run(folder: Path, on_query: OnQuery = lambda *_: None) -> None:
    """Does what JOB/job.json says. Raises HFNetEdgeError."""
    try:
        fields = parse_json(read_bytes(folder / JOB))
        task = fields["task"]
        jobs: dict[str, type[RecordJob] | type[BenchJob]] = {"record": RecordJob, "bench": BenchJob}
        job = jobs[task].from_json(fields)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, AttributeError) as e:
        raise InputError(f"{folder / JOB} is not a job ({type(e).__name__}: {e})", "make it with hfnet-parity") from e
    (folder / OUT).mkdir(exist_ok=True)
    if isinstance(job, BenchJob):
        measured = bench(folder / MODEL, folder / MAP, folder / IMAGES, job, on_query, patches_of(folder))
        name, content = BENCH, json.dumps(measured.to_json()).encode()
    else:
        name, content = RECORDING, to_bytes(record(folder, job, on_query))
    with atomic_write(folder / OUT / name) as file:
        file.write(content)


def main() -> None:
    """The command line of the device."""
    own_process()
    try:
        run(Path(sys.argv[1]), lambda done, total: print(f"{done}/{total}", flush=True))
    except HFNetEdgeError as e:
        print(error_line(e), file=sys.stderr)
        raise SystemExit(EXIT_ERROR) from None


if __name__ == "__main__":
    main()
