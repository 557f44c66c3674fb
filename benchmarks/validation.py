"""Where the runtime's settings come from: recall on places that are no test scenes, one setting changed at a time.

    python benchmarks/validation.py --model hfnet_int8.tflite

Uses ../shared/data/train_scenes (COLMAP models of arbitrary scale): every fifth image is a query, the rest is the map.
Position errors are in percent of the median distance between cameras and landmarks. Prints a table, writes
benchmarks/results/validation.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import RESULTS, SCENES

import hfnet_edge.methods.matching
from hfnet_edge.features import Features, decode
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import localize_features
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.reference import read_reference
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import lay_out, to_map

PLACES = ("sceaux", "lund_door", "monstree", "fox")


@dataclass(frozen=True)
class Settings:
    """What is varied; the defaults are the runtime's."""

    max_keypoints: int = 2000
    threshold: float = 0.005
    max_error: float = 8.0
    ratio_percent: int = 95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--places", nargs="+", default=PLACES)
    options = parser.parse_args()
    model, console = Model(options.model), Console(width=120)
    base = Settings()
    variants = {"default": base}
    variants |= {f"threshold {t}": replace(base, threshold=t) for t in (0.0, 0.001, 0.015)}
    variants |= {f"{k} keypoints": replace(base, max_keypoints=k) for k in (1000, 3000)}
    variants |= {f"max_error {e}": replace(base, max_error=e) for e in (3.0, 5.0, 12.0)}
    variants |= {f"ratio {r / 100}": replace(base, ratio_percent=r) for r in (80, 90, 98, 100)}
    raw = {}
    for place in options.places:
        root = SCENES.parent / "train_scenes" / place
        reference = read_reference(root / "model")
        for name in sorted(reference.poses):
            camera = reference.camera(name)
            photo = load_photo(root / "images" / name, model.description.input_size, camera)
            raw[place, name] = (camera, reference.poses[name], photo, model(photo.pixels))
    table = Table(title="validation places pooled", title_justify="left")
    for column in (
        "",
        "queries",
        "localized",
        "within 1 %, 1°",
        "within 5 %, 5°",
        "median %",
        "median °",
        "wrong: most inliers",
    ):
        table.add_column(column, justify="right")
    rows, built = {}, {}
    for label, settings in variants.items():
        of_map = (settings.max_keypoints, settings.threshold)
        if of_map not in built:
            built[of_map] = build(raw, options.places, model, settings)
        rows[label] = evaluate(raw, *built[of_map], settings)
        table.add_row(label, *(f"{v:.3g}" for v in rows[label].values()))
    console.print(table)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "validation.json").write_text(json.dumps(rows, indent=1) + "\n")


def build(raw: dict, places, model: Model, settings: Settings) -> tuple[dict, dict]:
    """Features of all images, and for each place its map and the median distance of cameras and landmarks."""
    features: dict[tuple[str, str], Features] = {
        key: decode(outputs, photo, model.description.nms_radius, settings.max_keypoints, settings.threshold)
        for key, (_, _, photo, outputs) in raw.items()
    }
    maps = {}
    for place in places:
        kept = [name for i, name in enumerate(n for p, n in raw if p == place) if i % 5 != 2]
        cameras, poses, _, _ = zip(*(raw[place, n] for n in kept), strict=True)
        source, _ = map_from_features(kept, cameras, poses, [features[place, n] for n in kept], model.description)
        centers = np.stack([p.center for p in poses])
        depth = np.median(np.linalg.norm(centers[:, None] - source.positions[None, ::20], axis=2))
        maps[place] = (to_map(lay_out(source)), depth)
    return features, maps


def evaluate(raw: dict, features: dict, maps: dict, settings: Settings) -> dict:
    """Localizes every query in its own place, and in the others, where it should not be found."""
    hfnet_edge.methods.matching.RATIO_PERCENT = settings.ratio_percent
    config = LocalizationConfig(pose=PoseConfig(max_error=settings.max_error))
    queries = [(p, n) for place in maps for i, (p, n) in enumerate(k for k in raw if k[0] == place) if i % 5 == 2]
    errors, wrong = [], []
    for place, name in queries:
        camera, pose, _, _ = raw[place, name]
        for other, (m, depth) in maps.items():
            r = localize_features(m, features[place, name], camera, config)
            if other != place:
                wrong.append(r.inliers)
            elif r.pose is None:
                errors.append((np.inf, np.inf))
            else:
                metres, degrees = pose_error(r.pose, pose)
                errors.append((100 * metres / depth, degrees))
    e = np.array(errors)
    return {
        "queries": len(e),
        "localized": int(np.isfinite(e[:, 0]).sum()),
        "recall_1": float(((e[:, 0] <= 1) & (e[:, 1] <= 1)).mean()),
        "recall_5": float(((e[:, 0] <= 5) & (e[:, 1] <= 5)).mean()),
        "median_percent": float(np.median(e[:, 0])),
        "median_deg": float(np.median(e[:, 1])),
        "wrong_most_inliers": max(wrong),
    }


if __name__ == "__main__":
    main()
