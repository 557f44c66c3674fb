"""Stages of the JVM library and of the runtime on one photo: the same keypoints and matches, and the time of each.

    python benchmarks/jvm_stages.py [--demo demo]

Least of some calls, each on one thread. The demo's folder is what `make demo` makes. Wants JDK 17 and Maven, and the
library built (`make android`). Prints a table, writes benchmarks/results/jvm_stages.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from jvm_reader import classpath
from rich.console import Console
from rich.table import Table
from scenes import RESULTS

from hfnet_edge.clock import Clock as QueryClock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import MAX_KEYPOINTS, Features
from hfnet_edge.geometry import Camera
from hfnet_edge.image.blobs import combine, find_blobs
from hfnet_edge.image.keypoints import detect, keypoint_scores, sample_descriptors
from hfnet_edge.image.photo import load_photo, shrink
from hfnet_edge.localizer import Localizer
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.covisibility import cluster
from hfnet_edge.methods.matching import match
from hfnet_edge.methods.retrieval import prior_frames
from hfnet_edge.shell.one_thread import one_thread

LARGE = 3  # times as many pixels in each direction, to be reduced
FRAMES = 10
T = TypeVar("T")


class Clock:
    """The least milliseconds of each stage."""

    def __init__(self) -> None:
        self.least: dict[str, float] = {}

    def __call__(self, stage: str, run: Callable[[], T], repeat: int = 12) -> T:
        for _ in range(repeat):
            start = time.perf_counter()
            result = run()
            took = (time.perf_counter() - start) * 1e3
            self.least[stage] = min(took, self.least.get(stage, took))
        return result


def record(demo: Path, folder: Path) -> dict[str, float]:
    """Runs the stages, and writes what the other side needs: arrays, and what they are."""
    clock = Clock()
    names = ["place", "packed"]
    name, *camera = (demo / "place" / "queries_with_intrinsics.txt").read_text().split("\n")[0].split()
    localizer = Localizer(demo / "place.hfmap", demo / "hfnet_int8.tflite")
    about = localizer.networks.image.description
    photo = load_photo(demo / "place" / "images" / name, about.input_size, Camera.parse(" ".join(camera)))
    assert photo.valid == photo.pixels.shape, "it fills the network's input"
    said: dict[str, object] = {"valid": photo.valid, "count": MAX_KEYPOINTS, "radius": about.nms_radius, "maps": names}

    def save(to: str, array: np.ndarray) -> None:
        np.ascontiguousarray(array).tofile(folder / f"{to}.bin")

    raw = localizer.networks.image(photo.pixels)
    for role, output in vars(raw).items():
        if output is None or role == "global_descriptor":
            continue
        stored = getattr(output, "values", output)
        save(role, stored)
        said[role] = {"dtype": str(stored.dtype), "shape": stored.shape}
        if stored.dtype == np.int8:
            said[role] |= {"scale": float(output.scale), "zero_point": int(output.zero_point)}  # type: ignore[operator]
    large = cv2.resize(photo.pixels, None, fx=LARGE, fy=LARGE)
    said["large"] = large.shape
    clock("reduce", lambda: shrink(large, photo.valid))
    blobs = clock("blobs", lambda: find_blobs(photo.pixels, photo.valid, MAX_KEYPOINTS * 2 // 3))
    scores = clock("scores", lambda: keypoint_scores(raw.keypoint_logits))
    peaks = clock("detect", lambda: detect(scores, photo.valid, MAX_KEYPOINTS, about.nms_radius))
    xy, _ = clock("combine", lambda: combine(blobs, *peaks, MAX_KEYPOINTS))
    descriptors = clock("descriptors", lambda: sample_descriptors(raw.descriptor_maps, xy))
    query = localizer.method.look(photo, QueryClock()).features
    assert query is not None and np.array_equal(query.descriptors, descriptors)
    for to, array in (("pixels", photo.pixels), ("large", large), ("xy", xy), ("descriptors", descriptors)):
        save(to, array)
    save("global", query.global_descriptor)
    for name in names:
        said[name] = str((demo / f"{name}.hfmap").resolve())
        matches = in_map(name, LocalizationMap.open(demo / f"{name}.hfmap"), query, clock)
        save(f"{name}.keypoints", matches.keypoints.astype(np.int32))
        save(f"{name}.landmarks", matches.landmarks.astype(np.int32))
    (folder / "about.json").write_text(json.dumps(said))
    return clock.least


def in_map(name: str, map_: LocalizationMap, query: Features, clock: Clock) -> Match2D3D:
    """Stages of a search in a map."""
    frames = clock(f"{name}: retrieve", lambda: prior_frames(map_, query.global_descriptor, 4 * FRAMES))
    place = clock(f"{name}: cluster", lambda: cluster(map_, frames[:FRAMES]))[0]
    clock(f"{name}: compared", lambda: map_.codec.query(query.descriptors))
    clock(f"{name}: decoded", lambda: map_.descriptors(place.landmarks))
    return clock(f"{name}: match", lambda: match(query, map_, place.landmarks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--output", type=Path, default=RESULTS / "jvm_stages.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with one_thread():
            ours = record(options.demo, Path(folder))
        run = ["java", "-cp", classpath(), "dev.hfnet.edge.StagesKt", folder]
        printed = subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = [line.split("\t") for line in printed.splitlines()]
    result = {
        stage: {"python_ms": ours[stage], "jvm_ms": float(ms), "allocated_bytes": int(allocated)}
        for stage, ms, allocated in rows
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    table = Table("stage", "Python ms", "JVM ms", "ratio", "bytes allocated")
    for stage, row in result.items():
        python, jvm = row["python_ms"], row["jvm_ms"]
        table.add_row(stage, f"{python:.2f}", f"{jvm:.2f}", f"{jvm / python:.2f}", str(row["allocated_bytes"]))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
