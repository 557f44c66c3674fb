"""Localization by every method, on clean queries and under stress: HF-Net's hierarchical one, and paper 002's:
retrieval alone (IR), random trees alone in both orders (RT, RT_AP), and both in parallel.

    python benchmarks/parallel.py [--parts validation scenes light viewpoint speed]

Castle and herzjesu are pooled over five folds. "joint" is one map of castle, herzjesu and reichstag; each scene
keeps its own frame in it. Light: the query is darkened, tinted, or its gamma changed (`LIGHT`), its global
descriptor with it. Viewpoint: retrieval is given wrong frames, those that look like an image of another scene, in
the joint map. Maps are of the clean images. Validation chooses the settings, on places that are no test scenes. Speed
is a whole query by stage, two threads, in castle's map as built; run it on a quiet machine.
Prints tables, writes benchmarks/results/parallel.json, where parts that were not asked for keep their figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from localization import THRESHOLDS
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import DATA, RESULTS, Scene, Split, exported, load_scenes
from stress import LEVELS, Change

import hfnet_edge.methods.matching
from hfnet_edge.features import MAX_PATCHES, Features, decode, describe
from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import Localizer, localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_export.export import export_crbnet
from hfnet_export.networks.weights import BUNDLED, BUNDLED_CRBNET
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.merge import merge
from hfnet_maps.build.reference import read_reference
from hfnet_maps.content import BuiltMap
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import built_sections, in_file_order, lay_out, to_map

NAMES = {
    "hierarchical": "HF-Net, hierarchical",
    "retrieval": "IR",
    "trees-absolute": "RT",
    "trees": "RT_AP",
    "parallel": "parallel",
}
LIGHT: dict[str, Change] = {
    **{name: LEVELS[name] for name in ("1/16 of the light", "warm")},
    "gamma 3": lambda image, _: np.rint(255 * (image / 255) ** (1 / 3)).astype(np.uint8),
}
PLACES = ("sceaux", "cyprus", "lund_door", "monstree", "fox")  # of train_scenes; CRBNet has not seen the first two
FOLDS = range(5)
STRESS_FOLDS = ("/0", "/1")


@dataclass(frozen=True)
class Both:
    """The features of one image: HF-Net's, and the patch network's."""

    hfnet: Features
    patches: Features

    def of(self, method: str) -> Features:
        """What a query by ``method`` has."""
        return self.hfnet if method == "hierarchical" else self.patches


@dataclass(frozen=True)
class Place:
    """Two maps of the same images, HF-Net's and the patch network's, with trees."""

    hfnet: LocalizationMap
    patches: LocalizationMap

    def localize(self, method: str, features: Both, camera: Camera, config: LocalizationConfig | None = None):
        m = self.hfnet if method == "hierarchical" else self.patches
        return localize_features(m, features.of(method), camera, config or LocalizationConfig(method))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument(
        "--patch-weights", type=Path, default=BUNDLED_CRBNET, help="of CRBNet; default: the bundled ones"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "parallel.json")
    options = parser.parse_args()
    console = Console(width=120)
    bench = Bench(console, options.patch_weights)
    result = json.loads(options.output.read_text()) if options.output.exists() else {}
    result |= {
        "weights": bench.model.description.weights_hash,
        "patch_weights": bench.patch_model.description.weights_hash,
    }
    options.output.parent.mkdir(exist_ok=True)
    for part in options.parts:
        result[part] = PARTS[part](bench)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        console.print(f"wrote {options.output}")


class Bench:
    """The networks, the scenes, and what was made of them so far."""

    def __init__(self, console: Console, patch_weights: Path):
        self.console = console
        self.model: Model = exported(BUNDLED, "int8")
        with tempfile.TemporaryDirectory() as folder:
            self.patch_model = PatchModel(export_crbnet(patch_weights, Path(folder) / "crbnet.tflite").file)
        self.scenes = load_scenes()
        self._features: dict[tuple[str, str], Both] = {}
        self._sources: dict[str, tuple[BuiltMap, BuiltMap]] = {}
        self._places: dict[str, Place] = {}

    def extract(self, path: Path, camera: Camera) -> Both:
        photo = load_photo(path, self.model.description.input_size, camera)
        raw = self.model(photo.pixels)
        return Both(
            decode(raw, photo, self.model.description.nms_radius),
            describe(self.patch_model, raw.global_descriptor, photo),
        )

    def features(self, s: Scene, image: str) -> Both:
        if (s.name, image) not in self._features:
            self._features[s.name, image] = self.extract(s.images / image, s.cameras[image])
        return self._features[s.name, image]

    def sources(self, s: Scene, split: Split) -> tuple[BuiltMap, BuiltMap]:
        if split.name not in self._sources:
            features = [self.features(s, name) for name in split.map_names]
            self._sources[split.name] = build_both(
                [f"{s.name}/{name}" for name in split.map_names],
                [s.cameras[name] for name in split.map_names],
                [s.poses[name] for name in split.map_names],
                features,
                self.model,
                self.patch_model,
            )
        return self._sources[split.name]

    def place(self, name: str, parts: list[tuple[Scene, Split]]) -> Place:
        """The map of one split, or the joint one of several."""
        if name not in self._places:
            sources = [self.sources(*part) for part in parts]
            labels = [split.name for _, split in parts]
            joined = [merge(kind, labels) if len(kind) > 1 else kind[0] for kind in zip(*sources, strict=True)]
            self._places[name] = place_of(*joined)
        return self._places[name]

    def own(self) -> list[tuple[str, Place, Scene, Split]]:
        """Each split with its own map."""
        return [(s.name, self.place(split.name, [(s, split)]), s, split) for s in self.scenes for split in s.splits]

    def joint(self) -> list[tuple[str, Place, Scene, Split]]:
        """Each split with the joint map of its fold. reichstag has one split, and is in all of them."""
        found = []
        for fold in FOLDS:
            parts = [(s, s.splits[min(fold, len(s.splits) - 1)]) for s in self.scenes]
            place = self.place(f"joint/{fold}", parts)
            found += [("joint", place, s, split) for s, split in parts if fold == 0 or len(s.splits) > 1]
        return found


def build_both(
    names, cameras, poses, features: list[Both], model: Model, patch_model: PatchModel
) -> tuple[BuiltMap, BuiltMap]:
    hfnet, _ = map_from_features(names, cameras, poses, [f.hfnet for f in features], model.description)
    patches, _ = map_from_features(
        names, cameras, poses, [f.patches for f in features], patch_model.description, retrieval=model.description
    )
    return hfnet, patches


def place_of(hfnet: BuiltMap, patches: BuiltMap) -> Place:
    return Place(to_map(lay_out(in_file_order(hfnet))), to_map(built_sections(patches)))


def summary(errors: list[tuple[float, float]], inliers: list[int]) -> dict:
    e = np.array(errors)
    return {
        "queries": len(e),
        "recall": [float(((e[:, 0] <= m) & (e[:, 1] <= d)).mean()) for m, d in THRESHOLDS],
        "thresholds": THRESHOLDS,
        "median_m": float(np.median(e[:, 0])),
        "median_deg": float(np.median(e[:, 1])),
        "no_pose": int(np.isinf(e[:, 0]).sum()),
        "median_inliers": float(np.median(inliers)),
    }


def accuracy(
    bench: Bench, cases: list[tuple[str, Place, Scene, Split]], query: Callable[[Scene, str], Both], what: str
) -> dict[str, dict[str, dict]]:
    """By group of cases and by method."""
    found: dict[tuple[str, str], tuple[list, list]] = {}
    for group, place, s, split in track(cases, what, console=bench.console, transient=True):
        for image, camera in split.queries:
            features = query(s, image)
            for method in NAMES:
                r = place.localize(method, features, camera)
                errors, inliers = found.setdefault((group, method), ([], []))
                errors.append((np.inf, np.inf) if r.pose is None else pose_error(r.pose, s.poses[image]))
                inliers.append(r.inliers)
    result: dict[str, dict[str, dict]] = {}
    for (group, method), values in found.items():
        result.setdefault(group, {})[NAMES[method]] = summary(*values)
    return result


def show(bench: Bench, title: str, result: dict[str, dict[str, dict]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in ("", "method"):
        table.add_column(column)
    for column in (*(f"{m:g} m" for m, _ in THRESHOLDS), "median m", "median °", "no pose", "inliers"):
        table.add_column(column, justify="right")
    for group, methods in result.items():
        for i, (method, row) in enumerate(methods.items()):
            table.add_row(
                f"{group} ({row['queries']})" if i == 0 else "", method, *(f"{100 * r:.0f}" for r in row["recall"]),
                f"{row['median_m']:.3f}", f"{row['median_deg']:.3f}", str(row["no_pose"]),
                f"{row['median_inliers']:.0f}",
            )  # fmt: skip
        table.add_section()
    bench.console.print(table)


def scenes(bench: Bench) -> dict:
    """Clean queries, each scene in its own map, and all in the joint one; and wrong places."""
    result = accuracy(bench, bench.own() + bench.joint(), bench.features, "scenes")
    show(bench, "recall in %, medians over all queries", result)
    maps = {
        name: {
            "landmarks": place.patches.landmark_count,
            "bytes": len(place.patches.file.data),
            "tree_bytes": sum(e.length for e in place.patches.file.sections.values() if "TREE" in e.name),
            "hfnet_landmarks": place.hfnet.landmark_count,
        }
        for name, place in bench._places.items()
    }
    wrong: dict[str, dict] = {}
    for method in NAMES:
        inliers, accepted = [], 0
        for name, place, _, split in bench.own():
            if split.name.endswith(("/0", "reichstag")):
                for s in bench.scenes:
                    for image, camera in (q for part in s.splits[:1] for q in part.queries if s.name != name):
                        r = place.localize(method, bench.features(s, image), camera)
                        accepted += r.pose is not None
                        inliers.append(r.inliers)
        wrong[NAMES[method]] = {"queries": len(inliers), "accepted": accepted, "most_inliers": max(inliers)}
    bench.console.print("in wrong places:", wrong)
    return {"accuracy": result, "maps": maps, "wrong_places": wrong}


def light(bench: Bench) -> dict:
    """Castle and herzjesu under other light, in the joint map; two folds."""
    cases = [case for case in bench.joint() if case[3].name.endswith(STRESS_FOLDS)]
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for level, change in LIGHT.items():

            def query(s: Scene, image: str, level=level, change=change) -> Both:
                path = Path(folder) / f"{s.name}_{image}.png"
                pixels = cv2.cvtColor(cv2.imread(str(s.images / image)), cv2.COLOR_BGR2RGB)
                changed = change(pixels, np.random.default_rng(sorted(s.cameras).index(image)))
                cv2.imwrite(str(path), cv2.cvtColor(changed, cv2.COLOR_RGB2BGR))
                return bench.extract(path, s.cameras[image])

            result[level] = accuracy(bench, cases, query, level)["joint"]
    show(bench, "other light, castle and herzjesu in the joint map: recall in %", result)
    return result


def viewpoint(bench: Bench) -> dict:
    """Retrieval is given wrong frames: the query's global descriptor is of another scene's image; two folds."""

    def query(s: Scene, image: str) -> Both:
        other = bench.scenes[(bench.scenes.index(s) + 1) % len(bench.scenes)]
        wrong = bench.features(other, other.splits[0].map_names[sorted(s.cameras).index(image) % 10]).hfnet
        both = bench.features(s, image)
        return Both(
            replace(both.hfnet, global_descriptor=wrong.global_descriptor),
            replace(both.patches, global_descriptor=wrong.global_descriptor),
        )

    cases = [case for case in bench.joint() if case[3].name.endswith((*STRESS_FOLDS, "reichstag"))]
    result = {"wrong frames": accuracy(bench, cases, query, "wrong frames")["joint"]}
    show(bench, "retrieval given wrong frames, all scenes in the joint map: recall in %", result)
    return result


@dataclass(frozen=True)
class Settings:
    """What validation varies; the defaults are the runtime's."""

    keypoints: int = MAX_PATCHES
    ratio_percent: int = hfnet_edge.methods.matching.RATIO_PERCENT
    max_error: float = PoseConfig().max_error
    leaves: int = LocalizationConfig().prior_leaf_count
    frames: int = 20


def validation(bench: Bench) -> dict:
    """Settings of the parallel method, on places that are no test scenes, in one joint map: every fifth image is a
    query. Position errors are in percent of the median distance between cameras and landmarks."""
    features: dict[tuple[str, str], Both] = {}
    cameras, poses, depths = {}, {}, {}
    sources = []
    for place in PLACES:
        root = DATA / "train_scenes" / place
        reference = read_reference(root / "model")
        names = sorted(reference.poses)
        for name in track(names, place, console=bench.console, transient=True):
            cameras[place, name], poses[place, name] = reference.camera(name), reference.poses[name]
            features[place, name] = bench.extract(root / "images" / name, reference.camera(name))
        kept = [(place, name) for i, name in enumerate(names) if i % 5 != 2]
        sources.append(
            build_both(
                ["/".join(k) for k in kept], [cameras[k] for k in kept], [poses[k] for k in kept],
                [features[k] for k in kept], bench.model, bench.patch_model,
            )
        )  # fmt: skip
        centers = np.stack([poses[k].center for k in kept])
        depths[place] = np.median(np.linalg.norm(centers[:, None] - sources[-1][1].positions[None, ::20], axis=2))
    joint = place_of(*(merge(kind, PLACES) for kind in zip(*sources, strict=True)))
    queries = [(p, n) for p in PLACES for i, n in enumerate(sorted(n for q, n in poses if q == p)) if i % 5 == 2]

    base = Settings()
    variants = {"default": base}
    variants |= {f"{k} keypoints": replace(base, keypoints=k) for k in (500, 1000)}
    variants |= {f"ratio {r / 100}": replace(base, ratio_percent=r) for r in (80, 85, 90, 100)}
    variants |= {f"max_error {e:g}": replace(base, max_error=e) for e in (4.0, 6.0, 12.0)}
    variants |= {f"{n} leaves": replace(base, leaves=n) for n in (50, 200)}
    variants |= {f"{n} frames": replace(base, frames=n) for n in (10, 40)}
    table = Table(title=f"parallel, {len(queries)} queries of {len(PLACES)} places in one map", title_justify="left")
    for column in ("", "localized", "within 0.3 %, 0.3°", "within 1 %, 1°", "median %", "median °", "inliers"):
        table.add_column(column, justify="right" if column else "left")
    result = {}
    for label, settings in variants.items():
        hfnet_edge.methods.matching.RATIO_PERCENT = settings.ratio_percent
        pose = PoseConfig(max_error=settings.max_error)
        config = LocalizationConfig("parallel", settings.frames, settings.leaves, pose)
        errors, inliers = [], []
        for place, name in queries:
            p = features[place, name].patches
            first = slice(settings.keypoints)
            query = replace(p, keypoints=p.keypoints[first], scores=p.scores[first], descriptors=p.descriptors[first])
            r = localize_features(joint.patches, query, cameras[place, name], config)
            metres, degrees = (np.inf, np.inf) if r.pose is None else pose_error(r.pose, poses[place, name])
            errors.append((100 * metres / depths[place], degrees))
            inliers.append(r.inliers)
        e = np.array(errors)
        result[label] = {
            "localized": int(np.isfinite(e[:, 0]).sum()),
            "recall_0.3": float(((e[:, 0] <= 0.3) & (e[:, 1] <= 0.3)).mean()),
            "recall_1": float(((e[:, 0] <= 1) & (e[:, 1] <= 1)).mean()),
            "median_percent": float(np.median(e[:, 0])),
            "median_deg": float(np.median(e[:, 1])),
            "median_inliers": float(np.median(inliers)),
        }
        table.add_row(label, *(f"{v:.3g}" for v in result[label].values()))
    hfnet_edge.methods.matching.RATIO_PERCENT = base.ratio_percent
    bench.console.print(table)
    return result


def speed(bench: Bench) -> dict:
    """Median milliseconds by stage and method, in the map of castle/0 as it was built."""
    s = bench.scenes[0]
    split = s.splits[0]
    place = bench.place(split.name, [(s, split)])
    result: dict[str, dict] = {}
    localizers = {
        method: Localizer(place.hfnet, bench.model)
        if method == "hierarchical"
        else Localizer(place.patches, bench.model, bench.patch_model, config=LocalizationConfig(method))
        for method in NAMES
    }
    times: dict[str, list[dict[str, float]]] = {method: [] for method in NAMES}
    for round_ in range(2):
        for image, camera in split.queries:
            for method, localizer in localizers.items():
                r = localizer.localize(s.images / image, camera)
                if round_:
                    times[method].append(r.milliseconds)
    for method, rows in times.items():
        m = localizers[method].map
        row = result[NAMES[method]] = {
            "stages": {stage: float(np.median([t.get(stage, 0.0) for t in rows])) for stage in rows[0]},
            "whole": float(np.median([sum(t.values()) for t in rows])),
            "landmarks": m.landmark_count,
            "descriptors": m.description.descriptorCount,
        }
        stages = ", ".join(f"{stage} {ms:.0f}" for stage, ms in row["stages"].items())
        bench.console.print(f"{NAMES[method]}: {row['whole']:.0f} ms, {row['landmarks']} landmarks: {stages}")
    return result


PARTS = {part.__name__: part for part in (validation, scenes, light, viewpoint, speed)}

if __name__ == "__main__":
    main()
