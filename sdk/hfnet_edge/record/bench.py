"""What a query costs on the machine that this is: milliseconds of each stage, bytes that it reads, peak memory.

One process measures one model on one number of threads, so that its peak memory is theirs alone.
`hfnet_edge.record.runner` runs it, `hfnet-bench` arranges the runs and compares them.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfnet_edge.clock import Clock
from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import LocalizationConfig, Localizer, localize_query
from hfnet_edge.map.container import MapBytes
from hfnet_edge.networks.by_role import open_network
from hfnet_edge.record.recording_file import camera_from_json, camera_to_json

PROCESSOR_KEYS = ("model name", "hardware", "model")  # of /proc/cpuinfo: x86, Android, Raspberry Pi


@dataclass(frozen=True)
class BenchJob:
    """Localizes queries twice: to warm up and to count bytes, then to time.

    Attributes:
        queries: name, file in the job's folder of images, camera.
        threads: of the networks.
        method: of localization.
    """

    queries: tuple[tuple[str, str, Camera], ...]
    threads: int
    method: str = "hierarchical"

    def to_json(self) -> dict:
        """For job.json."""
        return {
            "task": "bench",
            "threads": self.threads,
            "method": self.method,
            "queries": [[name, file, camera_to_json(camera)] for name, file, camera in self.queries],
        }

    @classmethod
    def from_json(cls, fields: dict) -> BenchJob:
        """Reads what `to_json` made."""
        queries = tuple((name, file, camera_from_json(camera)) for name, file, camera in fields["queries"])
        return cls(queries, fields["threads"], str(fields["method"]))


@dataclass(frozen=True)
class QueryCost:
    """What one query took.

    Attributes:
        name, status: of the query; status as in `hfnet_edge.result.Status`.
        milliseconds: by stage, of those that it came to, with all blocks of the map checked before.
        whole: milliseconds of the query, what lies between the stages included.
        bytes: by stage: the size of the image's file, and of the map's blocks that no earlier query touched.
    """

    name: str
    status: str
    milliseconds: dict[str, float]
    whole: float
    bytes: dict[str, int]


@dataclass(frozen=True)
class BenchRun:
    """What one process measured.

    Attributes:
        processor, machine: name and architecture. cores: of it.
        load: average number of programs that wanted a core in the minute before; None where that is not told.
        precision, kernels, solver: see `Description`, `Network.kernels` and `PoseConfig`.
        threads: of the networks.
        model_bytes: of the file. map_bytes: that opening the map reads, its trees included where the method walks them.
        peak_rss: bytes, of the whole process with Python and its libraries.
        queries: in the order of the job.
        method: that localized. stages: of a query that becomes a pose, in order.
        patch_precision, patch_bytes: of the patch network's file; "" and 0 where there is none.
    """

    processor: str
    machine: str
    cores: int
    load: float | None
    precision: str
    kernels: str
    solver: str
    threads: int
    model_bytes: int
    map_bytes: int
    peak_rss: int
    queries: tuple[QueryCost, ...]
    method: str
    stages: tuple[str, ...]
    patch_precision: str = ""
    patch_bytes: int = 0

    def to_json(self) -> dict:
        """For bench.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> BenchRun:
        """Reads what `to_json` made. Raises KeyError or TypeError: it is something else."""
        queries = tuple(QueryCost(**query) for query in fields["queries"])
        return cls(**fields | {"queries": queries, "stages": tuple(str(stage) for stage in fields["stages"])})


class ReadingClock(Clock):
    """Also adds up the bytes of the map that each stage touches first."""

    def __init__(self, file: MapBytes) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}
        self._file = file

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        before = self._file.touched
        with super().__call__(stage):
            yield
        self.bytes[stage] = self.bytes.get(stage, 0) + self._file.touched - before


def bench(
    networks: Sequence[Path],
    map_: Path,
    images: Path,
    job: BenchJob,
    on_query: Callable[[int, int], None] = lambda *_: None,
) -> BenchRun:
    """Measures on this machine. It must be the only one of its process.

    Args:
        networks, map_: the .tflite files and the .hfmap. images: folder of the job's files.
        on_query: called with the number of localized queries and of all; each counts twice.

    Raises:
        HFNetEdgeError: a file is missing or damaged, or they do not belong together.
    """
    load = _load_average()
    config = LocalizationConfig(job.method)
    localizer = Localizer(map_, *(open_network(file, job.threads) for file in networks), config=config)
    map_bytes = localizer.map.file.touched
    steps = 2 * len(job.queries)
    reads: list[dict[str, int]] = []
    for _, file, camera in job.queries:
        reads.append(_bytes_read(localizer, images / file, camera))
        on_query(len(reads), steps)
    costs: list[QueryCost] = []
    for (name, file, camera), read in zip(job.queries, reads, strict=True):
        start = time.perf_counter()
        result = localizer.localize(images / file, camera)
        whole = (time.perf_counter() - start) * 1e3
        costs.append(QueryCost(name, result.status.value, result.milliseconds, whole, read))
        on_query(len(reads) + len(costs), steps)
    patches = localizer.networks.patches
    others = [network for network in localizer.networks if network is not patches]
    return BenchRun(
        _processor(),
        platform.machine(),
        os.cpu_count() or 1,
        load,
        " and ".join(network.description.precision for network in others),
        " and ".join(dict.fromkeys(network.kernels for network in localizer.networks)),
        config.pose.solver,
        job.threads,
        sum(network.path.stat().st_size for network in others),
        map_bytes,
        peak_rss(),
        tuple(costs),
        job.method,
        localizer.method.stages,
        "" if patches is None else patches.description.precision,
        0 if patches is None else patches.path.stat().st_size,
    )


def peak_rss() -> int:
    """The most memory that this process has held, bytes."""
    with suppress(OSError, StopIteration), open("/proc/self/status") as status:
        # Not ru_maxrss, which a process inherits from the one that started it.
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _bytes_read(localizer: Localizer, file: Path, camera: Camera) -> dict[str, int]:
    """By stage, of one query."""
    method = localizer.method
    query = method.look(load_photo(file, method.input_size, camera), Clock())
    clock = ReadingClock(localizer.map.file)
    localize_query(method, query, camera, clock)
    return {"load": file.stat().st_size, **clock.bytes}


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo") as file:
        known = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in file)}
        for key in PROCESSOR_KEYS:
            if known.get(key, "").strip("0123456789"):  # "model" is a number on x86
                return known[key]
    return platform.processor() or platform.machine()


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # Android hides it from apps, Windows has none
        return None
