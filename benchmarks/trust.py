"""Whether poses can be bet on: test scenes, wrong places, images that no camera took, focal lengths that are off.

    python benchmarks/trust.py [--model hfnet_int8.tflite] [--only scenes solvers ...]

Nothing here is fitted or tuned: tables are fitted by `fit_trust.py` on other places. Prints tables and writes
benchmarks/results/trust.json.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from fit_trust import CHI2, squared_mahalanobis
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import CACHE, RESULTS, SCENES, Scene, Split, exported, load_scenes
from trust_places import CHANGES, changed_camera, changed_truth

from hfnet_edge.clock import Clock
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features, extract
from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig, Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.estimate import estimate_pose
from hfnet_edge.pose.intrinsics import with_focal
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.result import Status
from hfnet_edge.shell.lists import read_names, read_queries
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.reference import read_reference
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, to_map

THRESHOLDS = ((0.05, 1), (0.1, 2), (0.25, 2), (0.25, 5), (0.5, 5), (5, 10))
WRONG = (0.5, 10.0)  # metres, degrees
MAX_WRONG = (0.001, 0.01)  # the default, and ten times as much
FOCAL = (0.6, 0.8, 0.9, 0.95, 0.98, 1.0, 1.02)
SIMILAR = 1e-4, 1e-3  # metres and degrees between solvers
SPREAD = {"castle", "herzjesu"}  # whose truth is surveyed


@dataclass
class Ready:
    """A scene with its features and maps."""

    scene: Scene
    features: dict[str, Features]
    maps: list[tuple[Split, LocalizationMap]]

    def queries(self) -> list[tuple[LocalizationMap, str]]:
        return [(map_, name) for split, map_ in self.maps for name, _ in split.queries]


def room() -> Scene:
    """The office: a headset's walk as the map, another as queries."""
    root = SCENES / "room"
    reference = read_reference(root / "reference")
    split = Split("room", "room", read_names(root / "map.txt"), read_queries(root / "queries_with_intrinsics.txt"))
    names = [*split.map_names, *(name for name, _ in split.queries)]
    return Scene(
        "room",
        root / "images",
        {n: reference.camera(n) for n in names},
        {n: reference.poses[n] for n in names},
        [split],
    )


def made_ready(scene: Scene, model: Model, console: Console) -> Ready:
    """Extracts features and builds the maps."""
    size = model.description.input_size
    features = {
        name: extract(model, load_photo(scene.images / name, size, camera))
        for name, camera in track(scene.cameras.items(), scene.name, console=console, transient=True)
    }
    maps = []
    for split in scene.splits:
        names = split.map_names
        cameras, poses = [scene.cameras[n] for n in names], [scene.poses[n] for n in names]
        built, _ = map_from_features(names, cameras, poses, [features[n] for n in names], model.description)
        maps.append((split, to_map(full_sections(built))))
    return Ready(scene, features, maps)


def is_wrong(error: tuple[float, float]) -> bool:
    """By more than any use of a pose forgives."""
    return error[0] > WRONG[0] or error[1] > WRONG[1]


def scenes(ready: list[Ready], console: Console) -> dict:
    """Recall, medians, wrong answers; the median of the first look alone; and what covariances say."""
    table, result = Table(title="as mapped"), {}
    for column in (
        "scene",
        "at most wrong",
        "queries",
        "given",
        "wrong",
        *(f"{p:g} m {r:g}°" for p, r in THRESHOLDS),
        "median m",
        "first look",
        "median°",
        "50 %",
        "90 %",
    ):
        table.add_column(column, justify="right")
    for one, max_wrong in ((one, max_wrong) for one in ready for max_wrong in MAX_WRONG):
        config = LocalizationConfig(max_wrong=max_wrong)
        errors, first, statuses, inside = [], [], Counter(), []
        for map_, name in one.queries():
            features, camera, truth = one.features[name], one.scene.cameras[name], one.scene.poses[name]
            found = localize_features(map_, features, camera, config)
            statuses[found.status.value] += 1
            errors.append((np.inf, np.inf) if found.pose is None else pose_error(found.pose, truth))
            early = first_look(map_, features, camera, PoseConfig())
            first.append(np.inf if early is None else pose_error(map_.from_world(early.pose), truth)[0])
            if (distance := squared_mahalanobis(found, truth)) is not None:
                inside.append(distance)
        e, known = np.array(errors), np.array(inside)
        given = np.isfinite(e[:, 0])
        values = {
            "queries": len(e), "given": int(given.sum()), "wrong": int(sum(is_wrong(x) for x in e[given])),
            "recall": [round(float(((e[:, 0] <= p) & (e[:, 1] <= r)).mean()), 4) for p, r in THRESHOLDS],
            "median": float(np.median(e[:, 0])), "median_first_look": float(np.median(first)),
            "median_rotation": float(np.median(e[:, 1])), "statuses": dict(statuses),
            "inside": {str(level): float((known <= limit).mean()) for level, limit in CHI2.items()},
        }  # fmt: skip
        result[f"{one.scene.name} {max_wrong:g}"] = values
        table.add_row(
            one.scene.name, f"{100 * max_wrong:g} %", str(len(e)), str(values["given"]), str(values["wrong"]),
            *(f"{100 * v:.0f}" for v in values["recall"]),
            *(f"{values[key]:.4f}" for key in ("median", "median_first_look")),
            f"{values['median_rotation']:.3f}", *(f"{100 * v:.0f}" for v in values["inside"].values()),
        )  # fmt: skip
    console.print(table)
    return result


def first_look(map_: LocalizationMap, features: Features, camera: Camera, config: PoseConfig):
    """The pose of the first place's matches, refined, without a second look."""
    matches = first_matches(map_, features)
    return None if matches is None else estimate_pose(matches, camera, config.max_error * features.pixel, config)


def first_matches(map_: LocalizationMap, features: Features) -> Match2D3D | None:
    method = open_method(map_, None, LocalizationConfig())
    return next(iter(method.candidates(Query(features.pixel, features), Clock()).matches), None)


def solvers(ready: list[Ready], console: Console) -> dict:
    """How far PoseLib's poses and USAC's end from each other, on the same matches."""
    table, result = Table(title="PoseLib against USAC, after the refinement"), {}
    for column in ("scene", "poses", "within 0.1 mm, 0.001°", "largest mm", "largest°"):
        table.add_column(column, justify="right")
    for one in ready:
        apart = []
        for map_, name in one.queries():
            poses = [
                first_look(map_, one.features[name], one.scene.cameras[name], PoseConfig(solver=solver))
                for solver in ("poselib", "usac")
            ]
            if all(pose is not None and pose.inliers.sum() >= 25 for pose in poses):
                apart.append(pose_error(poses[0].pose, poses[1].pose))
        a = np.array(apart)
        close = float(((a[:, 0] <= SIMILAR[0]) & (a[:, 1] <= SIMILAR[1])).mean())
        result[one.scene.name] = {"poses": len(a), "close": close, "largest": [float(v) for v in a.max(axis=0)]}
        table.add_row(
            one.scene.name, str(len(a)), f"{100 * close:.1f} %", f"{1e3 * a[:, 0].max():.2g}", f"{a[:, 1].max():.2g}"
        )
    console.print(table)
    return result


def places(ready: list[Ready], console: Console) -> dict:
    """Every query of every scene in every other scene's map."""
    tried, accepted = 0, []
    for one in ready:
        for other in ready:
            if other is one:
                continue
            map_ = other.maps[0][1]
            for name in dict.fromkeys(name for _, name in one.queries()):
                found = localize_features(map_, one.features[name], one.scene.cameras[name])
                tried += 1
                if found.pose is not None:
                    accepted.append([one.scene.name, other.scene.name, name, found.inliers, found.wrong])
    console.print(f"wrong places: {len(accepted)} accepted of {tried}", accepted)
    return {"tried": tried, "accepted": accepted}


def changes(ready: list[Ready], model: Model, console: Console) -> dict:
    """Queries turned, mirrored, upside down, negative."""
    table, result = Table(title="images that no camera took, or that were turned"), {}
    for column in ("change", "queries", "given", "wrong", "AMBIGUOUS"):
        table.add_column(column, justify="right")
    for change in ("turned", "negative", "upside down", "mirrored"):
        given, wrong, ambiguous, tried, which = 0, 0, 0, 0, []
        for one in ready:
            if one.scene.name == "room":
                continue
            for map_, name in one.queries():
                camera = changed_camera(one.scene.cameras[name], change)
                truth = changed_truth(one.scene.poses[name], change)
                path = CACHE / "changed_query.png"
                cv2.imwrite(str(path), CHANGES[change](cv2.imread(str(one.scene.images / name))))
                features = extract(model, load_photo(path, model.description.input_size, camera))
                found = localize_features(map_, features, camera)
                tried += 1
                ambiguous += found.status is Status.AMBIGUOUS
                if found.pose is None:
                    continue
                given += 1
                error = (np.inf, np.inf) if truth is None else pose_error(found.pose, truth)
                if is_wrong(error):
                    wrong += 1
                    which.append(
                        [one.scene.name, name, round(min(error[0], 1e6), 3), found.first_inliers, found.probability]
                    )
        result[change] = {"queries": tried, "given": given, "wrong": wrong, "ambiguous": ambiguous, "which": which}
        table.add_row(change, *(str(v) for v in (tried, given, wrong, ambiguous)))
    console.print(table)
    return result


def focal(ready: list[Ready], console: Console) -> dict:
    """Focal lengths that are off: as stated, and found with the pose."""
    table, result = Table(title="focal length off"), {}
    for column in (
        "scene",
        "times",
        "given",
        "probable and out of tolerance",
        "median m",
        "said to be off",
        "found: given",
        "found: median m",
    ):
        table.add_column(column, justify="right")
    for one in ready:
        if one.scene.name == "room":
            continue
        for factor in FOCAL:
            errors, found_errors, given, betrayed, said, given_found = [], [], 0, 0, 0, 0
            for map_, name in one.queries():
                camera, truth = with_focal(one.scene.cameras[name], factor), one.scene.poses[name]
                as_stated = localize_features(map_, one.features[name], camera)
                error = (np.inf, np.inf) if as_stated.pose is None else pose_error(as_stated.pose, truth)
                errors.append(error[0])
                given += as_stated.pose is not None
                position, rotation = as_stated.tolerance
                out = error[0] > position or error[1] > rotation
                betrayed += as_stated.pose is not None and as_stated.probability > 0.5 and out
                said += as_stated.intrinsics is not None and as_stated.intrinsics.focal_is_off
                freed = localize_features(map_, one.features[name], camera, LocalizationConfig(refine_focal=True))
                given_found += freed.pose is not None
                found_errors.append(np.inf if freed.pose is None else pose_error(freed.pose, truth)[0])
            result[f"{one.scene.name} x{factor:g}"] = values = {
                "queries": len(errors), "given": given, "betrayed": betrayed,
                "median": float(np.median(errors)), "said": said,
                "given_found": given_found, "median_found": float(np.median(found_errors)),
            }  # fmt: skip
            table.add_row(
                one.scene.name,
                f"{factor:g}",
                str(given),
                str(betrayed),
                f"{values['median']:.3f}",
                str(said),
                str(given_found),
                f"{values['median_found']:.4f}",
            )
    console.print(table)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="int8 HF-Net; default: the bundled weights, exported")
    parser.add_argument("--only", nargs="+", default=["scenes", "solvers", "places", "changes", "focal"])
    parser.add_argument("--without-room", action="store_true", help="whose map takes minutes")
    options = parser.parse_args()
    console = Console(width=150)
    model = exported(BUNDLED, "int8") if options.model is None else Model(options.model)
    ready = [
        made_ready(scene, model, console) for scene in [*load_scenes(), *([] if options.without_room else [room()])]
    ]
    parts: dict[str, Callable[[], dict]] = {
        "scenes": lambda: scenes(ready, console),
        "solvers": lambda: solvers([one for one in ready if one.scene.name != "room"], console),
        "places": lambda: places(ready, console),
        "changes": lambda: changes(ready, model, console),
        "focal": lambda: focal(ready, console),
    }
    file = RESULTS / "trust.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    for name in options.only:
        result[name] = parts[name]()
        file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
