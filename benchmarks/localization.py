"""Recall and median errors on real scenes, abstention on wrong places: HF-Net in int8 and float, the RootSIFT
yardstick, and ALIKE-n, the local teacher, all through the same map builder, retrieval and solver.

    python benchmarks/localization.py [--weights runs/x/weights.npz] [--features hfnet alike] [--quantize int8]

Prints tables and writes benchmarks/results/localization.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import OTHERS, RESULTS, Extractor, Scene, Split, described, exported, hfnet, load_scenes

from hfnet_edge.features import Features
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.hfnet import Model
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import BuildReport, map_from_features
from hfnet_maps.content import BuiltMap
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import in_file_order, lay_out, write_map

STUDENTS = {"int8": "hfnet", "none": "hfnet_float"}  # precision to the name in the result
THRESHOLDS = [(0.05, 2.0), (0.1, 2.0), (0.25, 2.0), (0.5, 5.0), (5.0, 10.0)]

ByImage = dict[tuple[str, str], Features]
"""By scene and image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="of HF-Net; default: the bundled ones")
    parser.add_argument("--features", nargs="+", default=["hfnet", *OTHERS], choices=["hfnet", *OTHERS])
    parser.add_argument(
        "--quantize", nargs="+", default=list(STUDENTS), choices=STUDENTS, help="HF-Net's; the first retrieves for all"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "localization.json")
    options = parser.parse_args()
    console = Console(width=120)
    scenes = load_scenes()
    models = {STUDENTS[precision]: exported(options.weights, precision) for precision in options.quantize}
    first = next(iter(models.values()))
    extractors = {name: hfnet(model) for name, model in models.items()} if "hfnet" in options.features else {}
    extractors |= {name: OTHERS[name](hfnet(first)) for name in options.features if name in OTHERS}
    result: dict = {"weights": first.description.weights_hash}
    with tempfile.TemporaryDirectory() as folder:
        for name, extract in extractors.items():
            result[name] = evaluate(name, extract, models.get(name, first), scenes, Path(folder), console)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


def evaluate(name: str, extract: Extractor, model: Model, scenes: list[Scene], folder: Path, console: Console) -> dict:
    features = {
        (s.name, image): extract(s.images / image, camera)
        for s in scenes
        for image, camera in track(s.cameras.items(), f"{name}: {s.name}", console=console, transient=True)
    }
    maps: dict[str, LocalizationMap] = {}
    builds = []
    for s in scenes:
        for split in s.splits:
            start = time.perf_counter()
            source, report = build(s, split, features, described(name, model.description))
            path = folder / f"{name}_{split.name.replace('/', '_')}.hfmap"
            size = write_map(lay_out(in_file_order(source)), path)
            maps[split.name] = LocalizationMap.open(path)
            builds.append((split.name, report.landmarks, report.mean_track_length, size, time.perf_counter() - start))
    accuracy = {s.name: accuracy_of(s, maps, features) for s in scenes}
    wrong = abstention(scenes, maps, features)

    table = Table(title=f"{name}: recall in %, medians over all queries", title_justify="left")
    for column in ("scene", "queries", *(f"{m:g} m {d:g}°" for m, d in THRESHOLDS), "median m", "median °", "no pose"):
        table.add_column(column, justify="right")
    for scene, row in accuracy.items():
        table.add_row(
            scene, str(row["queries"]), *(f"{100 * r:.0f}" for r in row["recall"]),
            f"{row['median_m']:.3f}", f"{row['median_deg']:.3f}", str(row["abstained"]),
        )  # fmt: skip
    console.print(table)
    console.print(
        f"{name}: {wrong['accepted']} of {wrong['queries']} queries accepted in a wrong place; most inliers there "
        f"{wrong['most_inliers']}, fewest inliers of a pose within 5 m, 10° in the right place {wrong['fewest_right']}"
    )
    for split, landmarks, track_length, size, seconds in builds:
        console.print(
            f"  map {split}: {landmarks} landmarks, track {track_length:.2f}, {size / 1e6:.2f} MB, {seconds:.1f} s"
        )
    return {
        "accuracy": accuracy,
        "abstention": wrong,
        "maps": [dict(zip(("split", "landmarks", "track_length", "bytes", "seconds"), b, strict=True)) for b in builds],
    }


def build(s: Scene, split: Split, features: ByImage, description: Description) -> tuple[BuiltMap, BuildReport]:
    names = split.map_names
    return map_from_features(
        names,
        [s.cameras[n] for n in names],
        [s.poses[n] for n in names],
        [features[s.name, n] for n in names],
        description,
    )


def accuracy_of(s: Scene, maps: dict[str, LocalizationMap], features: ByImage) -> dict:
    """Recall and errors of a scene's queries, each in the map of its split."""
    errors, inliers = [], []
    for split in s.splits:
        for image, camera in split.queries:
            r = localize_features(maps[split.name], features[s.name, image], camera)
            errors.append((np.inf, np.inf) if r.pose is None else pose_error(r.pose, s.poses[image]))
            inliers.append(r.inliers)
    errors_ = np.array(errors)
    return {
        "queries": len(errors),
        "recall": [float(((errors_[:, 0] <= m) & (errors_[:, 1] <= d)).mean()) for m, d in THRESHOLDS],
        "thresholds": THRESHOLDS,
        "median_m": float(np.median(errors_[:, 0])),
        "median_deg": float(np.median(errors_[:, 1])),
        "abstained": int(np.isinf(errors_[:, 0]).sum()),
        "inliers": inliers,
        "errors_m": [round(float(e), 4) for e in errors_[:, 0]],
        "errors_deg": [round(float(e), 4) for e in errors_[:, 1]],
    }


def abstention(scenes: list[Scene], maps: dict[str, LocalizationMap], features: ByImage) -> dict:
    """Every query of every scene against every map of the other scenes."""
    inliers, accepted = [], 0
    right = []
    for s in scenes:
        queries = {image: camera for split in s.splits for image, camera in split.queries}
        for other in scenes:
            if other.name == s.name:
                continue
            for split in other.splits:
                for image, camera in queries.items():
                    r = localize_features(maps[split.name], features[s.name, image], camera)
                    accepted += r.pose is not None
                    inliers.append(r.inliers)
        for split in s.splits:
            for image, camera in split.queries:
                r = localize_features(maps[split.name], features[s.name, image], camera)
                if r.pose is not None:
                    m, d = pose_error(r.pose, s.poses[image])
                    if m <= 5 and d <= 10:
                        right.append(r.inliers)
    return {
        "queries": len(inliers),
        "accepted": accepted,
        "most_inliers": max(inliers),
        "fewest_right": min(right, default=0),
    }


if __name__ == "__main__":
    main()
