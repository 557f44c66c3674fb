"""Runs a job on the machine that this is: `python -m hfnet_edge.record.runner JOB`. Workstation, emulator and device
all run this module, so that what they return can be compared.

    JOB/job.json       what to do: "task" and the fields of `RecordJob` or `hfnet_edge.record.bench.BenchJob`
    JOB/*.tflite       the networks, see `network_names`
    JOB/map.hfmap, JOB/images/, and the modules of a method that does not come with this package
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
from hfnet_edge.localizer import LocalizationConfig, Localizer
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.registry import method_name
from hfnet_edge.networks.by_role import open_network
from hfnet_edge.networks.description import KINDS, Description
from hfnet_edge.record.bench import BenchJob, bench
from hfnet_edge.record.recording import PREFIXES, QueryRecord, Recording, digest, record_query
from hfnet_edge.record.recording_file import camera_from_json, camera_to_json, to_bytes
from hfnet_edge.shell.console import EXIT_ERROR, error_line
from hfnet_edge.shell.quiet import own_process
from hfnet_edge.shell.reading import parse_json, read_bytes
from hfnet_edge.shell.writing import atomic_write

JOB, MODEL, PATCHES, MAP, IMAGES, OUT = "job.json", "model.tflite", "patches.tflite", "map.hfmap", "images", "out"
SCENE, RETRIEVAL = "scene.tflite", "retrieval.tflite"
NAMED = dict(zip(KINDS, (MODEL, PATCHES, SCENE, RETRIEVAL), strict=True))
RECORDING, BENCH = "recording.zip", "bench.json"

OnQuery = Callable[[int, int], None]


@dataclass(frozen=True)
class RecordJob:
    """Localizes queries and keeps every stage.

    Attributes:
        queries: name, file below IMAGES, camera.
        threads: of the networks.
        method: of localization.
    """

    queries: tuple[tuple[str, str, Camera], ...]
    threads: int = 2
    method: str = "hierarchical"

    def to_json(self) -> dict:
        """For job.json."""
        return {
            "task": "record",
            "threads": self.threads,
            "method": self.method,
            "queries": [[name, file, camera_to_json(camera)] for name, file, camera in self.queries],
        }

    @classmethod
    def from_json(cls, fields: dict) -> RecordJob:
        """Reads what `to_json` made."""
        queries = tuple((name, file, camera_from_json(camera)) for name, file, camera in fields["queries"])
        return cls(queries, fields["threads"], str(fields["method"]))


def record(folder: Path, job: RecordJob, on_query: OnQuery = lambda *_: None) -> Recording:
    """Localizes the queries of a job's folder on this machine.

    Raises:
        HFNetEdgeError: a file is missing or damaged, or they do not belong together.
    """
    files = networks_of(folder)
    localizer = Localizer(
        folder / MAP,
        *(open_network(file, job.threads) for file in files),
        config=LocalizationConfig(job.method),
    )
    queries = [(name, folder / IMAGES / file, camera) for name, file, camera in job.queries]
    return Recording(
        about(localizer, [read_bytes(file) for file in files], read_bytes(folder / MAP)),
        reference_poses(localizer.map),
        record_queries(localizer, queries, on_query),
    )


def networks_of(folder: Path) -> list[Path]:
    """The networks of a job's folder."""
    return sorted(folder.glob("*.tflite"))


def network_names(descriptions: Sequence[Description]) -> list[str]:
    """What networks are called in a job and in a bundle: `MODEL`, a patch network `PATCHES`, a scene network `SCENE`,
    a retrieval network `RETRIEVAL`, further ones numbered."""
    names: list[str] = []
    for description in descriptions:
        name = NAMED[description.kind]
        names.append(name if name not in names else f"{Path(name).stem}{len(names) + 1}.tflite")
    return names


def prefix_of(name: str) -> str:
    """What the keys of `about` start with that speak of the network of this name."""
    return dict(zip(NAMED.values(), PREFIXES, strict=True)).get(name, f"{Path(name).stem}_")


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
    localizer: Localizer, networks: Sequence[bytes], map_: bytes, processor: str = "CPU, LiteRT"
) -> dict[str, str]:
    """What ran where; ``networks`` are the files of the localizer's, in its order, ``map_`` the map's."""
    found = {
        "method": method_name(localizer.config.method),
        "processor": processor,
        "machine": platform.machine(),
        "solver": localizer.config.pose.solver,
        "map_hash": digest(map_),
    }
    names = network_names([network.description for network in localizer.networks])
    for network, content, name in zip(localizer.networks, networks, names, strict=True):
        prefix = prefix_of(name)
        found |= {
            f"{prefix}kernels": network.kernels,
            f"{prefix}precision": network.description.precision,
            f"{prefix}weights_hash": network.description.weights_hash,
            f"{prefix}model_hash": digest(content),
        }
    found |= {
        "numpy": np.__version__,
        "opencv": cv2.__version__,
    }
    for package in ("ai-edge-litert", "pillow"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def reference_poses(map_: LocalizationMap) -> dict[str, np.ndarray]:
    """Name of each reference image to its cam_from_world, (7,) float64."""
    return dict(zip(map_.image_names, np.array(map_.image_poses), strict=True))


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
        measured = bench(networks_of(folder), folder / MAP, folder / IMAGES, job, on_query)
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
