"""Local features on homography pairs: teachers, student in float and int8, RootSIFT and ORB, 1,000 keypoints each.

    python benchmarks/features.py [--weights runs/x/weights.npz] [--methods alike_n student_int8] [--quick] [--diagnose]

Prints a table for each group of pairs and writes benchmarks/results/features.json. The features of the methods that
training does not change are kept in .cache.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from diagnosis import OWN, UPSCALED, variants
from extractors import Extractor, alike, cached, orb, rootsift, student
from feature_metrics import Local, bootstrap_ratio, evaluate
from homography import GROUPS, SIZE, Pairs, load_pairs
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import DATA, RESULTS, exported

from hfnet_export.networks.weights import BUNDLED, load_weights, weights_hash
from hfnet_export.training.teachers import local_teacher

WARPS = 3  # viewpoints, and lights, of each held-out image
TEACHERS = ("alike_n", "alike_l")
STUDENTS = {"student_float": "none", "student_int8": "int8"}
METHODS = (*TEACHERS, *STUDENTS, "rootsift", "orb")
LOWER_IS_BETTER = "localization error"
MADE = "viewpoint and light"

Figures = dict[str, dict[str, np.ndarray]]
"""For each group of pairs, for each metric: its values (pairs,)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="of the student; default: the bundled ones")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--quick", action="store_true", help="a third of the made pairs; writes nothing")
    parser.add_argument("--diagnose", action="store_true", help="what limits the student; writes nothing")
    parser.add_argument("--output", type=Path, default=RESULTS / "features.json")
    options = parser.parse_args()
    console = Console(width=180)
    pairs = load_pairs(1 if options.quick else WARPS)
    if options.diagnose:
        diagnose(options.weights, pairs, console)
        return
    figures = {}
    for name in options.methods:
        extract = extractor(name, options.weights)
        features = [extract(image) for image in track(pairs.images, name, console=console, transient=True)]
        figures[name] = figures_of(pairs, features)
    result = {
        "weights": weights_hash(load_weights(options.weights)[1]),
        **compare(figures, load_weights(options.weights)[2]["local_teacher"], console),
    }
    if not options.quick:
        options.output.parent.mkdir(exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"wrote {options.output}")


def extractor(name: str, weights: Path) -> Extractor:
    if name in STUDENTS:
        return student(exported(weights, STUDENTS[name]))
    if name in TEACHERS:
        return cached(alike, DATA / "teachers" / f"{name}.npz")
    return cached({"rootsift": rootsift, "orb": orb}[name])


def figures_of(pairs: Pairs, features: list[Local]) -> Figures:
    """Every metric of every pair, from the features of each image."""
    rows: dict[str, list[dict[str, float]]] = {group: [] for group in GROUPS}
    for p in pairs.pairs:
        first, second = features[p.first], features[p.second]
        row = evaluate(first, second, p.homography, SIZE)
        rows[p.group].append({"keypoints": (len(first.xy) + len(second.xy)) / 2, **row})
    return {group: {m: np.array([row[m] for row in all_]) for m in all_[0]} for group, all_ in rows.items()}


def compare(figures: dict[str, Figures], own_teacher: str, console: Console) -> dict:
    """Prints a table for each group, and for both made ones together, and returns the same figures."""
    result = {}
    figures = {name: f | {MADE: together(f["viewpoint"], f["light"])} for name, f in figures.items()}
    teachers = [name for name in TEACHERS if name in figures]
    ratios = [("student_int8", own_teacher), ("student_int8", "student_float")]
    ratios += [("student_int8", "best teacher")] * bool(teachers)
    ratios = [(a, b) for a, b in ratios if a in figures and (b in figures or b not in METHODS)]
    for group in (MADE, *GROUPS):
        count = len(next(iter(figures.values()))[group]["keypoints"])
        table = Table(title=f"{group}: {count} pairs; ratios with 95 % intervals", title_justify="left")
        for column in ("", *figures, *(f"{a} / {b}" for a, b in ratios)):
            table.add_column(column, justify="right")
        rows: dict = {}
        for metric in next(iter(figures.values()))[group]:
            values = {name: f[group][metric] for name, f in figures.items()}
            row: dict = {name: round(float(np.nanmean(v)), 4) for name, v in values.items()}
            best = (min if metric == LOWER_IS_BETTER else max)(teachers, key=row.get, default=None)
            for a, b in ratios:
                ratio = bootstrap_ratio(values[a], values[best if b == "best teacher" else b])
                row[f"{a} / {b}"] = [round(x, 3) if np.isfinite(x) else None for x in ratio]
            table.add_row(metric, *(_text(v) for v in row.values()))
            rows[metric] = row
        console.print(table)
        result[group] = {"pairs": count, **rows}
    return result


def together(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {metric: np.concatenate([a[metric], b[metric]]) for metric in a}


def diagnose(weights: Path, pairs: Pairs, console: Console) -> None:
    """Prints the figures of every variant of the int8 student and of its teacher."""
    teacher = local_teacher(DATA / "teachers" / f"{load_weights(weights)[2]['local_teacher']}.npz")
    extract = variants(exported(weights, "int8"), exported(weights, "int8", UPSCALED), teacher)
    features = [extract(image) for image in track(pairs.images, "variants", console=console, transient=True)]
    figures = {name: figures_of(pairs, [f[name] for f in features]) for name in features[0]}
    for group in GROUPS:
        table = Table(title=f"{group}: int8 student, one thing changed, and its teacher", title_justify="left")
        for column in ("", *figures[OWN][group]):
            table.add_column(column, justify="right", no_wrap=not column)
        for name, f in figures.items():
            table.add_row(name, *(_text(float(np.nanmean(v))) for v in f[group].values()))
        console.print(table)


def _text(value: float | list[float | None]) -> str:
    if isinstance(value, list):
        return "{} ({} to {})".format(*("-" if v is None else f"{v:.2f}" for v in value))
    return f"{value:.0f}" if value > 10 else f"{value:.3f}"


if __name__ == "__main__":
    main()
