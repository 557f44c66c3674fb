"""Whether the device's answer is the reference's, on the benchmark scenes.

    python benchmarks/parity.py int8         int8 against the float network, this machine
    python benchmarks/parity.py arm64        the same int8 file under qemu with and without dot product, against x86
    python benchmarks/parity.py autopilot    a network made to fail int8, and the bundled one, through the gate
    python benchmarks/parity.py              all three

int8 and arm64: all folds of castle and herzjesu, each in a packed map of its own; queries are pooled. arm64 needs
`hfnet-device prepare-arm64` and takes a quarter of an hour. autopilot: the place drawn by code, 20 queries. Writes
benchmarks/results/parity_*.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import RESULTS, Scene, load_scenes

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from fragile import write_fragile_weights
from hfnet_device.arm64 import CPUS, Arm64
from hfnet_device.backends import Host
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.record.recording import Recording
from hfnet_edge.shell.lists import read_names, read_queries
from hfnet_export.export import export_hfnet
from hfnet_export.networks.weights import BUNDLED
from hfnet_export.tflite.graph import Graph
from hfnet_maps.build.builder import build_map
from hfnet_maps.build.reference import read_reference
from hfnet_maps.evaluation.errors import Threshold
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.writer import write_map
from hfnet_maps.synthetic_town.made_place import write_place
from hfnet_parity.bundle import Bundle
from hfnet_parity.compare import Comparison, compare, errors_of, recalls_of
from hfnet_parity.costs import STEPS, costs
from hfnet_parity.gate import Gate
from hfnet_parity.record import load_network, record
from hfnet_parity.run import run_on
from hfnet_parity.tolerances import read_tolerances

BUDGET = 245_000  # bytes of a map: a fiftieth of hloc's files of these scenes
THRESHOLDS = (Threshold(0.05, 1), Threshold(0.1, 1), Threshold(0.25, 2))
ROLES = ("keypoint_logits", "local_descriptors", "global_descriptor")


def main() -> None:
    console = Console(width=120)
    parts = sys.argv[1:] or ["int8", "arm64", "autopilot"]
    if "autopilot" in parts:
        save("autopilot", through_the_gate(console))
    if not {"int8", "arm64"} & set(parts):
        return
    scenes = [scene for scene in load_scenes() if scene.name in ("castle", "herzjesu")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for precision in ("none", "int8"):
            export_hfnet(output=folder / f"{precision}.tflite", quantize=precision)
        maps = {split.name: make_map(folder, scene, split) for scene in scenes for split in scene.splits}
        if "int8" in parts:
            save("int8", {scene.name: int8(folder, scene, maps, console) for scene in scenes})
        if "arm64" in parts:
            save("arm64", {scene.name: arm64(folder, scene, maps, console) for scene in scenes})


def save(part: str, result: dict) -> None:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"parity_{part}.json").write_text(json.dumps(result, indent=1) + "\n")


def make_map(folder: Path, scene: Scene, split) -> Path:
    """A packed map of the float network's features."""
    reference = scene.images.parent / "reference"
    source, _ = build_map(scene.images, reference, split.map_names, Model(folder / "none.tflite"))
    path = folder / f"{split.name.replace('/', '_')}.hfmap"
    write_map(choose(source, BUDGET)[0], path)
    return path


def bundle_of(folder: Path, scene: Scene, split, m: Path, model: str, solver: str | None = None) -> Bundle:
    truth = {name: scene.poses[name] for name, _ in split.queries}
    path = folder / "ref.bundle"
    network = load_network(str(folder / f"{model}.tflite"))
    record([network], m, scene.images, split.queries, path, truth, THRESHOLDS, solver)
    return Bundle.read(path)


def pooled(recordings: list[Recording]) -> Recording:
    """Queries of all folds; the maps of a fold are the same in reference and run."""
    return replace(recordings[0], reference_poses={}, queries=tuple(q for r in recordings for q in r.queries))


def int8(folder: Path, scene: Scene, maps: dict[str, Path], console: Console) -> dict:
    """Float reference against int8, every number of the report over the pooled queries, and what each stage costs."""
    references, runs, moved = [], [], []
    for split in scene.splits:
        bundle = bundle_of(folder, scene, split, maps[split.name], "none")
        run = run_on(Host(), bundle, [folder / "int8.tflite"], maps[split.name])
        references.append(bundle.recording)
        runs.append(run)
        one = compare(bundle.recording, run, bundle.truth, THRESHOLDS, {}, "quantized", "host")
        with_map = costs(one, open_map(maps[split.name]))
        moved.append(np.stack([cost.each for cost in with_map], axis=1))
    truth = {name: scene.poses[name] for split in scene.splits for name, _ in split.queries}
    reference, run = pooled(references), pooled(runs)
    comparison = compare(reference, run, truth, THRESHOLDS, read_tolerances("quantized"), "quantized", "host")
    rows = report(f"{scene.name}: int8 against float, {len(reference.queries)} queries", comparison, console)
    stages = dict(zip(STEPS, np.median(np.concatenate(moved), axis=0).tolist(), strict=True))
    errors = {name: errors_of(recording, truth) for name, recording in (("float", reference), ("int8", run))}
    rows |= {
        "recalls": {name: recalls_of(e, THRESHOLDS).tolist() for name, e in errors.items()},
        "medians": {name: np.median(e, axis=0).tolist() for name, e in errors.items()},
        "camera moved by stage, m": stages,
        "costliest": max(stages, key=lambda stage: stages[stage]),
        "first stage out of tolerance": comparison.broken,
    }
    for key in ("recalls", "medians", "camera moved by stage, m", "costliest", "first stage out of tolerance"):
        console.print(f"  {key}: {rows[key]}")
    return rows


def arm64(folder: Path, scene: Scene, maps: dict[str, Path], console: Console) -> dict:
    """int8 on x86 against the same file on emulated ARM, both with OpenCV's solver."""
    references: list[Recording] = []
    runs: dict[str, list[Recording]] = {cpu: [] for cpu in CPUS}
    for split in scene.splits:
        bundle = bundle_of(folder, scene, split, maps[split.name], "int8", "usac")
        references.append(bundle.recording)
        for cpu in CPUS:
            runs[cpu].append(run_on(Arm64(cpu), bundle, [folder / "int8.tflite"], maps[split.name]))
            print(f"{split.name} on {cpu}", flush=True)
    result = {}
    for cpu, recordings in runs.items():
        reference, run = pooled(references), pooled(recordings)
        comparison = compare(reference, run, {}, THRESHOLDS, read_tolerances("identical"), "identical", cpu)
        title = f"{scene.name}: x86 against {cpu}, {len(reference.queries)} queries"
        result[cpu] = report(title, comparison, console) | outputs(comparison) | {"about": run.about}
        result[cpu]["largest, of all queries"] = {
            key: float(np.max(comparison.value(key).of_queries)) for key in ("pose.moved", "pose.turned")
        }
        console.print(f"  {outputs(comparison)}\n  {result[cpu]['largest, of all queries']}")
    return result


def through_the_gate(console: Console) -> dict:
    """What `hfnet-export --gate` does with the bundled network, and with the same function made to fail int8."""
    result = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = folder / "place"
        write_place(place)
        write_fragile_weights(folder / "fragile.npz")
        truth = dict(read_reference(place / "reference").poses)
        queries = read_queries(place / "queries_with_intrinsics.txt")
        for which, weights in (("bundled", BUNDLED), ("made to fail", folder / "fragile.npz")):
            model, m, bundle = folder / "float.tflite", folder / "place.hfmap", folder / "ref.bundle"
            export_hfnet(weights, model, "none")
            names = read_names(place / "map.txt")
            source, _ = build_map(place / "images", place / "reference", names, Model(model))
            write_map(choose(source, 150_000)[0], m)
            record([load_network(str(model))], m, place / "images", queries, bundle, truth, THRESHOLDS)
            export = export_hfnet(weights, folder / "gated.tflite", "int8", gate=Gate(bundle, "1pt, 1.1x"))
            kinds = ("CONV_2D", "DEPTHWISE_CONV_2D")
            in_float = [
                op.name.split(";")[-1]
                for op in Graph.parse(export.file.read_bytes()).operators
                if op.kind in kinds and op.precision == "float32"
            ]
            result[which] = {
                "steps": [step.as_dict() for step in export.steps],
                "convolutions in float": in_float,
                "milliseconds": export.milliseconds,
                "float milliseconds": export.float_milliseconds,
                "seconds": export.seconds,
            }
            console.print(f"{which}: {len(in_float)} convolutions in float: {in_float}, {export.seconds:.0f} s")
            for step in result[which]["steps"]:
                console.print(step)
    return result


def outputs(comparison: Comparison) -> dict:
    """Where the network's outputs differ: queries, and the largest difference in steps of int8 (1 / 127 of the
    largest value) over the rows that recordings keep."""
    found: dict[str, dict] = {}
    for role in ROLES:
        differing = [p for p in comparison.pairs if p.reference.output_hashes[role] != p.run.output_hashes[role]]
        steps = [
            float(
                np.abs(p.reference.outputs[role] - p.run.outputs[role]).max() * 127 / np.abs(p.run.outputs[role]).max()
            )
            for p in differing
        ]
        found[role] = {"queries that differ": len(differing), "largest difference, steps": max(steps, default=0.0)}
    return {"outputs": found}


def report(title: str, comparison: Comparison, console: Console) -> dict:
    table = Table(title=title, title_justify="left")
    for column in ("number", "value", "95 % interval", "limit", ""):
        table.add_column(column, justify="right")
    rows = {}
    for v in comparison.values:
        if np.isnan(v.value):
            continue
        rows[v.measure.key] = {"value": v.value, "low": v.low, "high": v.high, "limit": v.limit, "passed": v.passed}
        text = v.measure.text
        limit = "" if v.limit is None else text(v.limit)
        passed = {True: "ok", False: "OUT", None: ""}[v.passed]
        table.add_row(v.measure.key, text(v.value), f"{text(v.low)} to {text(v.high)}", limit, passed)
    console.print(table)
    return rows


def open_map(path: Path):
    from hfnet_edge.map.map_file import LocalizationMap

    return LocalizationMap.open(path)


if __name__ == "__main__":
    main()
