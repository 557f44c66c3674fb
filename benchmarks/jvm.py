"""The library for the JVM against the Python runtime, from JPEG to pose: castle and herzjesu, five folds each.

    python benchmarks/jvm.py [--quick] [--backend jvm jvm-arm64]

Both take the same files and OpenCV's solver. Every stage is compared bit by bit, poses by distance and angle; then the
same queries are timed in both, warm, two threads in the network. Wants the library built (`make android`). Prints
tables, writes benchmarks/results/jvm.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from localization import build
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import RESULTS, Scene, hfnet, load_scenes

from hfnet_device.machines import machines
from hfnet_edge.localizer import LocalizationConfig, Localizer
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.record.recording import QueryRecord
from hfnet_edge.record.recording_file import read_recording
from hfnet_edge.record.runner import IMAGES, JOB, MAP, MODEL, OUT, RECORDING, RecordJob, record_queries
from hfnet_export.export import export_hfnet
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import in_file_order, lay_out, write_map

CONFIG = LocalizationConfig(pose=PoseConfig(solver="usac"))
THRESHOLDS = [(0.05, 2.0), (0.25, 2.0)]
WARM = 3  # rounds over all queries, after one that is not counted

SAME: dict[str, Callable[[QueryRecord], object]] = {
    "input": lambda q: q.input_hash,
    "network": lambda q: q.output_hashes,
    "keypoints": lambda q: [q.features.keypoints, q.features.scores],  # type: ignore[union-attr]
    "descriptors": lambda q: [q.features.descriptors, q.features.global_descriptor],  # type: ignore[union-attr]
    "retrieval": lambda q: q.prior_frames,
    "matches": lambda q: None if q.matched is None else [q.matched.keypoints, q.matched.landmarks, q.matched.inliers],
    "status": lambda q: q.status,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one fold of castle; writes nothing")
    parser.add_argument("--backend", nargs="+", default=["jvm"], choices=["jvm", "jvm-arm64"])
    parser.add_argument("--no-times", action="store_true", help="where other programs run beside it")
    parser.add_argument("--output", type=Path, default=RESULTS / "jvm.json")
    options = parser.parse_args()
    console = Console(width=150)
    scenes = [s for s in load_scenes() if s.name != "reichstag"]
    if options.quick:
        scenes = [replace(scenes[0], splits=scenes[0].splits[:1])]
    result: dict = {"scenes": {}, "time": None}
    with tempfile.TemporaryDirectory() as folder:
        model = Model(export_hfnet(BUNDLED, Path(folder) / MODEL, "int8", (480, 640)).file)
        result["weights"] = model.description.weights_hash
        jobs = [job for s in scenes for job in prepare(s, model, Path(folder), console)]
        for name in options.backend:
            for s in scenes:
                key = s.name if name == "jvm" else f"{s.name}, {name}"
                result["scenes"][key] = compare(name, s, [job for job in jobs if job.name.startswith(s.name)], console)
        if "jvm" in options.backend and not options.no_times:
            result["time"] = times(jobs[0], console)
    show(result, console)
    if not options.quick:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"wrote {options.output}")


def prepare(s: Scene, model: Model, folder: Path, console: Console) -> list[Path]:
    """A job's folder for each fold: network, map, images, queries."""
    extract, network = hfnet(model), model.path.read_bytes()
    features = {
        (s.name, image): extract(s.images / image, camera)
        for image, camera in track(s.cameras.items(), f"{s.name}: features", console=console, transient=True)
    }
    jobs = []
    for split in s.splits:
        source, _ = build(s, split, features, model.description)
        job = folder / split.name.replace("/", "_")
        (job / IMAGES).mkdir(parents=True)
        write_map(lay_out(in_file_order(source)), job / MAP)
        (job / MODEL).write_bytes(network)
        for image, _ in split.queries:
            (job / IMAGES / image).parent.mkdir(parents=True, exist_ok=True)
            (job / IMAGES / image).write_bytes((s.images / image).read_bytes())
        fields = RecordJob(tuple((name, name, camera) for name, camera in split.queries)).to_json()
        (job / JOB).write_text(json.dumps(fields))
        jobs.append(job)
    return jobs


def localizer_of(job: Path) -> Localizer:
    return Localizer(job / MAP, job / MODEL, config=CONFIG)


def queries_of(job: Path) -> list:
    fields = RecordJob.from_json(json.loads((job / JOB).read_text()))
    return [(name, job / IMAGES / file, camera) for name, file, camera in fields.queries]


def compare(backend: str, s: Scene, jobs: list[Path], console: Console) -> dict:
    """A scene's queries on both."""
    machine = machines(backend)[-1]  # of emulated processors the one without dot products
    same, roles = dict.fromkeys(SAME, 0), Counter[str]()
    moved, turned, errors = [], [], []
    for job in track(jobs, f"{s.name}: {backend}", console=console, transient=True):
        here = record_queries(localizer_of(job), queries_of(job))
        machine.run(job)
        there = read_recording((job / OUT / RECORDING).read_bytes(), backend).queries
        for a, b in zip(here, there, strict=True):
            for stage, of in SAME.items():
                same[stage] += _equal(of(a), of(b))
            roles.update(role for role, found in a.output_hashes.items() if b.output_hashes.get(role) == found)
            if a.pose is not None and b.pose is not None:
                metres, degrees = pose_error(a.pose, b.pose)
                moved.append(metres)
                turned.append(degrees)
            errors.append([(np.inf, np.inf) if q.pose is None else pose_error(q.pose, s.poses[q.name]) for q in (a, b)])
    of_both = np.array(errors)
    return {
        "queries": len(errors),
        "same": same,
        "same_outputs": dict(roles),
        "moved_m": float(max(moved)),
        "turned_deg": float(max(turned)),
        "beyond_1e-6": int((np.array(moved) > 1e-6).sum()),
        "recall": [
            [float(((of_both[:, i, 0] <= m) & (of_both[:, i, 1] <= d)).mean()) for m, d in THRESHOLDS] for i in (0, 1)
        ],
        "median_m": [float(np.median(of_both[:, i, 0])) for i in (0, 1)],
    }


def _equal(a: object, b: object) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return all(_equal(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return a == b


def times(job: Path, console: Console) -> dict:
    """A fold's queries, warm, alternately in both: medians of milliseconds, by stage and in all."""
    localizer, queries = localizer_of(job), queries_of(job)
    (machine,) = machines("jvm")
    fields = json.loads((job / JOB).read_text())
    (job / JOB).write_text(json.dumps({**fields, "task": "bench"}))
    python: list[dict[str, float]] = []
    java: list[dict] = []
    for turn in track(range(2), "times", console=console, transient=True):
        for round_ in range(1 + WARM):
            for _, image, camera in queries:
                start = time.perf_counter()
                found = localizer.localize(image, camera)
                whole = (time.perf_counter() - start) * 1e3
                if round_ or turn:
                    python.append({**found.milliseconds, "whole": whole})
        machine.run(job)
        measured = json.loads((job / OUT / "bench.json").read_text())["queries"]
        java += [{**q["milliseconds"], "whole": q["whole"], "allocated": q["allocated"],
                  "load": q["milliseconds"]["load"] + q["decode_file"]}
                 for q in measured if q["round"] >= 2]  # fmt: skip
    stages = [*dict.fromkeys(stage for q in python for stage in q)]
    return {
        "python_ms": {stage: float(np.median([q.get(stage, 0.0) for q in python])) for stage in stages},
        "jvm_ms": {stage: float(np.median([q.get(stage, 0.0) for q in java])) for stage in stages},
        "allocated_bytes": float(np.median([q["allocated"] for q in java])),
    }


def show(result: dict, console: Console) -> None:
    table = Table(title="JVM against Python, both with OpenCV's solver: queries of which a stage has the same bits",
                  title_justify="left")  # fmt: skip
    for column in ("scene", "queries", *SAME, "moved m", "turned °", "recall", "Python's"):
        table.add_column(column, justify="right")
    for name, row in result["scenes"].items():
        python, java = (" ".join(f"{100 * r:.1f}" for r in recall) for recall in row["recall"])
        table.add_row(name, str(row["queries"]), *(str(row["same"][stage]) for stage in SAME), f"{row['moved_m']:.1e}",
                      f"{row['turned_deg']:.1e}", java, python)  # fmt: skip
    console.print(table)
    if result["time"]:
        t = result["time"]
        table = Table(title="a query, warm, medians", title_justify="left")
        for column in ("stage", "Python ms", "JVM ms", "ratio"):
            table.add_column(column, justify="right")
        for stage, ms in t["python_ms"].items():
            java = t["jvm_ms"][stage]
            table.add_row(stage, f"{ms:.1f}", f"{java:.1f}", f"{java / ms:.2f}" if ms else "")
        console.print(table)
        console.print(f"the JVM allocates {t['allocated_bytes'] / 1e3:.0f} kB a query, beside the file")


if __name__ == "__main__":
    main()
