"""Frames, turned phones, what is known beforehand, rigs, sessions: how often, how precise, how fast.

    python benchmarks/live.py [--tables turned session tracking video priors rigs fisheye frames]

`turned`: queries turned by a quarter, rotation unknown and known. `session`: the office's queries with the device's own
motion and seeded drift, over windows and drifts, begun at each eighth frame too. `tracking`: the same without odometry.
`video`: 300 drawn frames, tracked and searched for. `priors`: all scenes in one map. `rigs` and `fisheye`: the drawn
place. `frames`: what an array costs beside its file. Nothing is chosen here. Writes benchmarks/results/live.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from scenes import RESULTS, Scene, exported, hfnet, load_scenes
from trust import room

from hfnet_edge.clock import Clock
from hfnet_edge.features import Features, extract
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import Localizer, RigFrame, localize_query
from hfnet_edge.methods.method import Query
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.refinement import retract
from hfnet_edge.prior import Prior
from hfnet_edge.session import Odometry, Session
from hfnet_edge.shell.one_thread import one_thread
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.merge import merge
from hfnet_maps.content import BuiltMap
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, to_map
from hfnet_maps.synthetic_town.made_place import MadePlace, made_place
from hfnet_maps.synthetic_town.views import Light, PlaceView, camera_pose

NEAR, DEGREES = 0.25, (2.0, 5.0)  # metres; degrees of the other scenes, and of the office
WRONG = 0.5, 10.0
DRIFTS = ((0.01, 0.2), (0.03, 0.6), (0.1, 2.0))  # share of the way; degrees a metre
WINDOWS = (1, 5, 10, 20)
TABLES = ("turned", "session", "tracking", "video", "priors", "rigs", "fisheye", "frames")
Seen = tuple[Features, Camera, Pose]


def built(s: Scene, model: Model, split: int = 0) -> tuple[BuiltMap, list[Seen]]:
    """The map of a split, and its queries' features."""
    extract, part = hfnet(model), s.splits[split]
    names = [*part.map_names, *(n for n, _ in part.queries)]
    found = {n: replace(extract(s.images / n, s.cameras[n]), hypercolumns=None) for n in track(names, s.name)}
    maps = part.map_names
    source, _ = map_from_features(
        maps, [s.cameras[n] for n in maps], [s.poses[n] for n in maps], [found[n] for n in maps], model.description
    )
    return source, [(found[n], c, s.poses[n]) for n, c in part.queries]


def summary(errors: Sequence[tuple[float, float]], degrees: float) -> dict:
    """Recall, wrong ones and the median of what was given."""
    e = np.array(errors)
    given = np.isfinite(e[:, 0])
    return {
        "queries": len(e),
        "recall": float(((e[:, 0] <= NEAR) & (e[:, 1] <= degrees)).mean()),
        "given": float(given.mean()),
        "wrong": int((given & ((e[:, 0] > WRONG[0]) | (e[:, 1] > WRONG[1]))).sum()),
        "median_m": float(np.median(e[given, 0])) if given.any() else None,
    }


def error_of(pose: Pose | None, truth: Pose) -> tuple[float, float]:
    return (np.inf, np.inf) if pose is None else pose_error(pose, truth)


def turned_camera(c: Camera, degrees: int) -> Camera:
    """A PINHOLE whose image, turned clockwise by so many degrees, is that of ``c``."""
    (fx, fy), (cx, cy), w, h = c.focal, c.center, c.width, c.height
    return {
        90: lambda: Camera("PINHOLE", h, w, (fy, fx, cy, w - cx)),
        180: lambda: Camera("PINHOLE", w, h, (fx, fy, w - cx, h - cy)),
        270: lambda: Camera("PINHOLE", h, w, (fy, fx, h - cy, cx)),
    }[degrees]()


def spin(degrees: int) -> Pose:
    """From the camera of an image to that of the image turned counterclockwise by ``degrees``."""
    half = -np.radians(degrees) / 2
    return Pose(np.array([np.cos(half), 0, 0, np.sin(half)]), np.zeros(3))


def luma(path: Path) -> np.ndarray:
    image = Image.open(path)
    image.draft("L", image.size)
    return np.asarray(image.convert("L"))


def turned(model: Model, console: Console) -> dict:
    rows: dict = {}
    for s in [*load_scenes(), room()]:
        source, _ = built(s, model)
        localizer = Localizer(to_map(full_sections(source)), model)
        errors: dict[str, list] = {
            "upright": [],
            "turned, known": [],
            "turned, to be found": [],
            "turned, as it is": [],
        }
        apart, times = [], {"upright": [], "turned, to be found": []}
        for name, c in track(s.splits[0].queries, f"{s.name}: turned"):
            if c.model not in ("PINHOLE", "SIMPLE_PINHOLE"):
                continue
            grey, truth = luma(s.images / name), s.poses[name]
            upright = localizer.localize(grey, c)
            errors["upright"].append(error_of(upright.pose, truth))
            times["upright"].append(sum(upright.milliseconds.values()))
            for degrees in (90, 180, 270):
                frame, camera = np.rot90(grey, degrees // 90), turned_camera(c, degrees)
                for kind, rotation in (
                    ("turned, known", degrees), ("turned, to be found", "any"), ("turned, as it is", 0)
                ):  # fmt: skip
                    r = localizer.localize(frame, camera, rotation=rotation)
                    errors[kind].append(error_of(r.pose, spin(degrees) @ truth))
                    if kind == "turned, known" and r.pose is not None and upright.pose is not None:
                        apart.append(float(np.linalg.norm(r.pose.center - upright.pose.center)))
                    if kind in times:
                        times[kind].append(sum(r.milliseconds.values()))
        degrees = DEGREES[s.name == "room"]
        rows[s.name] = {kind: summary(found, degrees) for kind, found in errors.items()}
        rows[s.name]["known against upright, largest distance, m"] = max(apart, default=0.0)
        rows[s.name]["milliseconds"] = {kind: float(np.median(found)) for kind, found in times.items()}
        console.print(s.name, rows[s.name])
    return rows


def walked(queries: Sequence[Seen], distance: float, rotation: float, seed: int) -> list[Pose]:
    """cam_from_session: the device's own motion, with drift of these standard deviations."""
    rng = np.random.default_rng(seed)
    poses = [Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))]
    for (_, _, a), (_, _, b) in pairwise(queries):
        step = b @ a.inverse
        way = float(np.linalg.norm(step.center))
        noise = rng.normal(size=6) / np.sqrt(3)
        off = np.concatenate([noise[:3] * np.radians(rotation) * way, noise[3:] * distance * way])
        poses.append(retract(step, off) @ poses[-1])
    return poses


def in_session(
    localizer: Localizer, queries: Sequence[Seen], poses: Sequence[Pose] | None, window: int, odometry: Odometry
) -> dict:
    """What a session says after each frame."""
    session, errors, spent, ways = Session(localizer, window, odometry), [], [], 0
    for i, (features, camera, truth) in enumerate(queries):
        start = time.monotonic()
        with one_thread():
            r = session.localize_query(
                Query(features.pixel, features), camera, None if poses is None else poses[i].inverse
            )
        spent.append(1e3 * (time.monotonic() - start))
        errors.append(error_of(r.pose, truth))
        ways += r.tracked
    return {**summary(errors, DEGREES[1]), "tracked": ways / len(queries), "milliseconds": float(np.median(spent))}


def session(model: Model, console: Console) -> dict:
    source, queries = built(room(), model)
    localizer = Localizer(to_map(full_sections(source)), model)
    rows: dict = {"single frames": _single(localizer, queries)}
    for distance, rotation in DRIFTS:
        poses = walked(queries, distance, rotation, 0)
        for window in WINDOWS if (distance, rotation) == DRIFTS[0] else (10,):
            name = f"window {window}, drift {100 * distance:g} % and {rotation:g} degrees a metre"
            rows[name] = in_session(localizer, queries, poses, window, Odometry(distance, rotation))
            console.print(name, rows[name])
    poses = walked(queries, *DRIFTS[0], 0)
    for first in range(8, 48, 8):
        name = f"window 10, begun at frame {first}"
        rows[name] = in_session(localizer, queries[first:], poses[first:], 10, Odometry())
        console.print(name, rows[name])
    return rows


def _single(localizer: Localizer, queries: Sequence[Seen]) -> dict:
    errors, spent = [], []
    for features, camera, truth in queries:
        with one_thread():
            r = localize_query(localizer.method, Query(features.pixel, features), camera, Clock())
        errors.append(error_of(r.pose, truth))
        spent.append(sum(r.milliseconds.values()))
    return {**summary(errors, DEGREES[1]), "milliseconds": float(np.median(spent))}


def tracking(model: Model, console: Console) -> dict:
    source, queries = built(room(), model)
    localizer = Localizer(to_map(full_sections(source)), model)
    rows = {
        "single frames": _single(localizer, queries),
        "tracked from the last pose, no odometry": in_session(localizer, queries, None, 10, Odometry()),
    }
    console.print(rows)
    return rows


def drawn(model: Model) -> tuple[MadePlace, BuiltMap]:
    """The demo's place, and its map."""
    place = made_place()
    views = [v for v in place.views if not v.is_query]
    found = [features_of(model, place.render(v), v.camera) for v in track(views, "drawn place: map")]
    source, _ = map_from_features(
        [v.name for v in views],
        [v.camera for v in views],
        [v.pose for v in views],
        found,
        model.description,
    )
    return place, source


def features_of(model: Model, rgb: np.ndarray, camera: Camera) -> Features:
    photo = load_photo(rgb, model.description.input_size, camera, colors="rgb")
    return replace(extract(model, photo), hypercolumns=None)


def video(model: Model, console: Console) -> dict:
    place, source = drawn(model)
    localizer = Localizer(to_map(full_sections(source)), model)
    camera = next(v.camera for v in place.views)
    seen: list[Seen] = []
    for i in track(range(300), "drawn place: video"):
        at = np.radians(i / 3)
        eye = np.array([2.5 * np.cos(at), 2.5 * np.sin(at), 1.6])
        pose = camera_pose(eye, at + 0.4, 0.05, 0.0)
        view = PlaceView(f"video_{i:03d}.jpg", pose, camera, True, Light())
        seen.append((features_of(model, place.render(view), camera), camera, pose))
    poses = walked(seen, *DRIFTS[0], 0)
    rows = {
        "searched for in the whole map": _single(localizer, seen),
        "tracked, no odometry": in_session(localizer, seen, None, 10, Odometry()),
        "session, window 10": in_session(localizer, seen, poses, 10, Odometry()),
    }
    console.print(rows)
    return rows


def priors(model: Model, console: Console) -> dict:
    """Positions within 5 m, and 1,000 m off, in one map of all scenes that stand 1,000 m apart."""
    sources, asked = [], []
    for k, s in enumerate([*load_scenes(), room()]):
        source, queries = built(s, model)
        by = np.array([1000.0 * k, 0, 0])
        sources.append(
            replace(
                source,
                names=tuple(f"{s.name}/{n}" for n in source.names),
                poses=tuple(Pose(p.quaternion, p.translation - p.rotation @ by) for p in source.poses),
                positions=source.positions + by,
            )
        )
        asked += [(s.name, f, c, Pose(p.quaternion, p.translation - p.rotation @ by)) for f, c, p in queries]
    map_ = to_map(full_sections(merge(sources, [str(k) for k in range(len(sources))])))
    localizer, rng, rows = Localizer(map_, model), np.random.default_rng(0), {}
    for kind, off in (("none", None), ("within 5 m", 5.0), ("1,000 m off", 1000.0)):
        errors, outside, spent, dropped = [], 0, [], 0
        for scene, features, camera, truth in track(asked, f"prior: {kind}"):
            known = None
            if off is not None:
                way = rng.normal(size=3)
                known = Prior(position=tuple(truth.center + off * way / np.linalg.norm(way)), radius=6.0).in_map(map_)
            start = time.monotonic()
            with one_thread():
                r = localize_query(localizer.method, Query(features.pixel, features), camera, Clock(), known)
            spent.append(time.monotonic() - start)
            errors.append(error_of(r.pose, truth))
            dropped += bool(r.notes)
            outside += any(not map_.image_names[i].startswith(scene) for i in r.prior_frames)
        rows[kind] = {
            **summary(errors, DEGREES[1]),
            "retrieved from elsewhere": outside,
            "dropped": dropped,
            "queries_per_second": len(asked) / sum(spent),
        }
        console.print(kind, rows[kind])
    return rows


def rigs(model: Model, console: Console) -> dict:
    """Cameras that look apart by a right angle, at the demo's query positions, at dusk."""
    place, source = drawn(model)
    localizer = Localizer(to_map(full_sections(source)), model)
    rows = {}
    found: dict[int, list] = {1: [], 2: [], 3: [], 4: []}
    for v in track([v for v in place.views if v.is_query], "drawn place: rigs"):
        frames = []
        for k in range(4):
            half = np.pi * k / 4
            turn = Pose(np.array([np.cos(half), 0, np.sin(half), 0]), np.array([0.0, 0, 0.1]))
            view = replace(
                v, name=f"rig{k}_{v.name}", pose=turn @ v.pose, light=replace(v.light, exposure=0.15, noise=4)
            )
            frames.append(RigFrame(place.render(view), v.camera, turn, colors="rgb"))
        first = localizer.localize(frames[0].image, v.camera, colors="rgb")
        found[1].append(error_of(first.pose, frames[0].cam_from_rig @ v.pose))
        for count in (2, 3, 4):
            found[count].append(error_of(localizer.localize_rig(frames[:count]).pose, v.pose))
    for count, errors in found.items():
        rows[f"{count} cameras"] = summary(errors, DEGREES[0])
    console.print(rows)
    return rows


def fisheye(model: Model, console: Console) -> dict:
    """The demo's queries through a lens of 120 degrees, drawn by way of a larger and wider pinhole."""
    place, source = drawn(model)
    localizer = Localizer(to_map(full_sections(source)), model)
    lens = Camera("OPENCV_FISHEYE", 640, 480, (330.0, 330.0, 321.0, 239.0, 0.02, -0.01, 0.004, -0.001))
    wide = Camera("PINHOLE", 2400, 1800, (620.0, 620.0, 1200.0, 900.0))
    y, x = np.mgrid[:480, :640] + 0.5
    source_xy = wide.project(lens.rays(np.stack([x.ravel(), y.ravel()], axis=1))).astype(np.float32) - 0.5
    at = source_xy.reshape(480, 640, 2)
    errors: dict[str, list] = {"pinhole, 60 degrees": [], "OPENCV_FISHEYE, 111 degrees": []}
    for v in track([v for v in place.views if v.is_query], "drawn place: fisheye"):
        r = localizer.localize(place.render(v), v.camera, colors="rgb")
        errors["pinhole, 60 degrees"].append(error_of(r.pose, v.pose))
        large = cv2.GaussianBlur(place.render(replace(v, camera=wide)), (0, 0), 0.8)
        seen = cv2.remap(large, at[..., 0], at[..., 1], cv2.INTER_LINEAR)
        r = localizer.localize(seen, lens, colors="rgb")
        errors["OPENCV_FISHEYE, 111 degrees"].append(error_of(r.pose, v.pose))
    rows = {kind: summary(e, DEGREES[0]) for kind, e in errors.items()}
    console.print(rows)
    return rows


def frames(model: Model, console: Console) -> dict:
    """Milliseconds from an array in memory to what the network is given, median of 40, alternating."""
    s = next(s for s in load_scenes() if s.name == "castle")
    source, _ = built(s, model)
    localizer = Localizer(to_map(full_sections(source)), model)
    name, camera = s.splits[0].queries[0]
    grey = np.ascontiguousarray(cv2.resize(luma(s.images / name), (640, 427), interpolation=cv2.INTER_AREA))
    rgb = np.repeat(grey[..., None], 3, axis=2)
    small = Camera("PINHOLE", 640, 427, tuple(np.array(camera.params) * 640 / camera.width))
    rows: dict[str, list] = {"grey": [], "rgb": [], "bgr": [], "turned by 90": []}
    ways: dict[str, Callable] = {
        "grey": lambda: localizer.stages(grey, small),
        "rgb": lambda: localizer.stages(rgb, small, colors="rgb"),
        "bgr": lambda: localizer.stages(rgb, small, colors="bgr"),
        "turned by 90": lambda: localizer.stages(np.rot90(grey), turned_camera(small, 90), rotation=90),
    }
    for _ in track(range(40), "frames"):
        for kind, ask in ways.items():
            rows[kind].append(ask().result.milliseconds["load"])
    result = {kind: float(np.median(found)) for kind, found in rows.items()}
    console.print("milliseconds before the network", result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--output", type=Path, default=RESULTS / "live.json")
    options = parser.parse_args()
    console = Console(width=150)
    model = exported(BUNDLED, "int8")
    result = json.loads(options.output.read_text()) if options.output.exists() else {}
    if result.get("weights") != model.description.weights_hash:
        result = {"weights": model.description.weights_hash}
    for name in options.tables:
        result[name] = globals()[name](model, console)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
