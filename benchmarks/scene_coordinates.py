"""Scene coordinates (paper 003) beside the hierarchical method: a network is trained for each place, on this machine.

    python benchmarks/scene_coordinates.py [--tables scenes widths ...]

Tables: `scenes`, poses in every split, the map packed to 16 bytes a descriptor; `widths`, networks of four sizes and
packed maps of the same bytes; `ablations`, levels and conditioning; `float`, int8 against float; `wrong`, queries of
other places; `joint`, one network of all places: recall, and time as a place grows. Networks learn from maps alone and
are chosen by left-out map images; queries are only measured. Writes benchmarks/results/scene_coordinates.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from localization import ByImage
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import RESULTS, Scene, Split, exported, hfnet, load_scenes
from trust import room

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_query
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig, Method, Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.methods.scene_coordinates import SceneCoordinates
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.networks.scene import SceneModel
from hfnet_edge.shell.one_thread import one_thread
from hfnet_export.networks import hscnet
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.merge import merge
from hfnet_maps.build.scene_training import train_scene
from hfnet_maps.content import BuiltMap
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import to_map

THRESHOLDS = ((0.05, 2.0), (0.25, 2.0), (0.25, 5.0))  # metres, degrees
WRONG = 0.5, 10.0
ANY = 0.9  # of `LocalizationConfig.max_wrong`: the best pose is given, whatever is thought of it
PACKED = Settings(CodecName.PQ, 64, 16, 1, 64)  # 16 bytes a landmark, 64 an image
WIDTHS = (64, 128, 256, 384)
TABLES = ("scenes", "widths", "ablations", "float", "wrong", "joint")

Asked = Sequence[tuple[Features, Camera, Pose]]


@dataclass(frozen=True)
class Place:
    """A map and its queries."""

    scene: str
    name: str
    source: BuiltMap
    queries: Asked


@dataclass(frozen=True)
class Trained:
    """A scene network, the map that it was trained for, and how long that took."""

    network: SceneModel
    source: BuiltMap
    seconds: float

    @property
    def bytes(self) -> int:
        return len(self.network._content)


def places(model: Model, names: Sequence[str], console: Console) -> list[Place]:
    """All splits of some scenes."""
    found = []
    for s in [*load_scenes(), room()]:
        if s.name not in names:
            continue
        extract = hfnet(model)
        features: ByImage = {
            (s.name, n): replace(extract(s.images / n, c), hypercolumns=None)
            for n, c in track(s.cameras.items(), s.name, console=console, transient=True)
        }
        found += [place_of(s, split, features, model) for split in s.splits]
    return found


def place_of(s: Scene, split: Split, features: ByImage, model: Model) -> Place:
    names = split.map_names
    source, _ = map_from_features(
        names,
        [s.cameras[n] for n in names],
        [s.poses[n] for n in names],
        [features[s.name, n] for n in names],
        model.description,
    )
    return Place(s.name, split.name, source, [(features[s.name, n], c, s.poses[n]) for n, c in split.queries])


def trained(place: Place, folder: Path, **how) -> Trained:
    start = time.monotonic()
    file = folder / f"{place.name.replace('/', '_')}_{len(list(folder.iterdir()))}.tflite"
    source, _ = train_scene(place.source, file, file.with_suffix(".training"), **how)
    return Trained(SceneModel(file), source, time.monotonic() - start)


def packed(source: BuiltMap, settings: Settings = PACKED, budget: int | None = None) -> LocalizationMap:
    """All landmarks by these settings, or as many as fit."""
    packer = Packer(source)
    count = len(packer.order) if budget is None else packer.fit(settings, budget)
    return to_map(packer.pack(settings, count))


def scene_method(map_: LocalizationMap, network: SceneModel, max_wrong: float) -> Method:
    return SceneCoordinates(map_, Networks(network), LocalizationConfig("scene-coordinates", max_wrong=max_wrong))


def hierarchical(map_: LocalizationMap, max_wrong: float) -> Method:
    return open_method(map_, None, LocalizationConfig(max_wrong=max_wrong))


def errors_of(asked: Asked, opened: Callable[[float], Method]) -> dict:
    """Errors of the poses that are given and of the best ones, (N, 2) each, and milliseconds after extraction."""
    usual, any_ = opened(LocalizationConfig().max_wrong), opened(ANY)
    given, best, spent = [], [], []
    for features, camera, truth in asked:
        query = Query(features.pixel, features)
        with one_thread():
            r = localize_query(usual, query, camera)
            likeliest = r if r.pose is not None else localize_query(any_, query, camera)
        spent.append(sum(r.milliseconds.values()))
        for errors, pose in ((given, r.pose), (best, likeliest.pose)):
            errors.append((np.inf, np.inf) if pose is None else pose_error(pose, truth))
    return {"given": given, "best": best, "milliseconds": spent}


def figures(found: Sequence[dict]) -> dict:
    """Of `errors_of` several splits together."""
    result = {"queries": sum(len(f["given"]) for f in found)}
    for kind in ("given", "best"):
        errors = np.array([e for f in found for e in f[kind]])
        there = np.isfinite(errors[:, 0])
        result[kind] = {
            "recall": [float(((errors[:, 0] <= m) & (errors[:, 1] <= d)).mean()) for m, d in THRESHOLDS],
            "poses": float(there.mean()),
            "wrong": int((there & ((errors[:, 0] > WRONG[0]) | (errors[:, 1] > WRONG[1]))).sum()),
            "median_m": float(np.median(errors[:, 0])),
        }
    result["milliseconds"] = float(np.median([ms for f in found for ms in f["milliseconds"]]))
    return result


def table_of(title: str, rows: dict[str, dict], console: Console) -> None:
    table = Table(title=title, title_justify="left")
    columns = (*(f"{m:g} m {d:g}°" for m, d in THRESHOLDS), "given", "wrong", "best 0.25 m", "best median m", "ms")
    for column in ("", "kB", *columns, "train s"):
        table.add_column(column, justify="right" if column else "left")
    for name, row in rows.items():
        given, best = row["given"], row["best"]
        table.add_row(
            name, f"{row['bytes'] / 1e3:.0f}", *(f"{100 * r:.0f}" for r in given["recall"]),
            f"{100 * given['poses']:.0f}", str(given["wrong"]), f"{100 * best['recall'][2]:.0f}",
            f"{best['median_m']:.4f}", f"{row['milliseconds']:.0f}", f"{row.get('seconds', 0):.0f}",
        )  # fmt: skip
    console.print(table)


def scene_table(all_: Sequence[Place], folder: Path, console: Console) -> dict:
    """Every scene: the network, told images and not, in a packed map; the hierarchical method in the same map."""
    result: dict = {}
    for scene in dict.fromkeys(p.scene for p in all_):
        of_scene = [p for p in all_ if p.scene == scene]
        rows: dict[str, list] = {"scene coordinates": [], "told images": [], "hierarchical": []}
        sizes: dict[str, list] = {name: [] for name in rows}
        seconds: dict[str, list] = {name: [] for name in rows}
        for place in track(of_scene, f"{scene}: training", console=console, transient=True):
            for name, by_image in (("scene coordinates", False), ("told images", True)):
                if by_image and place is not of_scene[0]:
                    continue  # of one split
                t = trained(place, folder, by_image=by_image)
                map_ = packed(t.source)
                rows[name].append(errors_of(place.queries, lambda w, m=map_, t=t: scene_method(m, t.network, w)))
                sizes[name].append(len(map_.file.data) + t.bytes)
                seconds[name].append(t.seconds)
            map_ = packed(place.source)
            rows["hierarchical"].append(errors_of(place.queries, lambda w, m=map_: hierarchical(m, w)))
            sizes["hierarchical"].append(len(map_.file.data))
        result[scene] = {
            name: {
                **figures(found),
                "bytes": float(np.mean(sizes[name])),
                "seconds": float(np.mean(seconds[name] or [0])),
            }
            for name, found in rows.items()
        }
        table_of(f"{scene}: poses given, and the best poses", result[scene], console)
    return result


def width_table(place: Place, folder: Path, console: Console) -> dict:
    """Networks of four sizes in maps of 8 bytes a descriptor, and packed maps alone of the same bytes."""
    rows: dict[str, dict] = {}
    least = Settings(CodecName.PQ, 32, 8, 1, 32)
    for width in track(WIDTHS, "widths", console=console, transient=True):
        t = trained(place, folder, width=width)
        map_ = packed(t.source, least)
        size = len(map_.file.data) + t.bytes
        found = errors_of(place.queries, lambda w, m=map_, t=t: scene_method(m, t.network, w))
        rows[f"network of width {width}"] = {**figures([found]), "bytes": size, "seconds": t.seconds}
        for settings in (least, PACKED, Settings(CodecName.PQ, 128, 32, 1, 64)):
            alone = packed(place.source, settings, size)
            found = errors_of(place.queries, lambda w, m=alone: hierarchical(m, w))
            name = f"packed alone, {settings.subspaces} bytes, {alone.landmark_count} landmarks"
            rows[name] = {**figures([found]), "bytes": len(alone.file.data)}
    table_of(f"{place.name}: bytes against recall", rows, console)
    return rows


def draw(rows: dict[str, dict], path: Path) -> None:
    """Bytes against poses within 0.25 m and against the median error, networks beside packed maps."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for label, start, marker in (("scene network and map", "network", "o"), ("packed map alone", "packed", "s")):
        found = sorted((row["bytes"] / 1e3, row) for name, row in rows.items() if name.startswith(start))
        for axis, value in zip(
            axes, (lambda r: 100 * r["given"]["recall"][2], lambda r: 1000 * r["best"]["median_m"]), strict=True
        ):
            axis.plot([kb for kb, _ in found], [value(row) for _, row in found], marker=marker, label=label)
    for axis, what in zip(axes, ("poses given within 0.25 m, %", "median error, mm"), strict=True):
        axis.set(xlabel="kB", ylabel=what)
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
        axis.grid(alpha=0.3)
    axes[0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)


class Silent(hscnet.Word):
    """A generator that is told nothing: no conditioning."""

    def call(self, label):
        return 0.0 * super().call(label)


def ablations(place: Place, folder: Path, console: Console) -> dict:
    """Two to four levels, and no conditioning. (The network sees keypoints alone: no receptive field to vary.)"""
    count = len(place.source.positions)
    root, fourth = int(np.ceil(count**0.5)), int(np.ceil(count**0.25))
    rows: dict[str, dict] = {}

    def add(name: str, **how) -> None:
        t = trained(place, folder, **how)
        map_ = packed(t.source)
        found = errors_of(place.queries, lambda w: scene_method(map_, t.network, w))
        rows[name] = {**figures([found]), "bytes": len(map_.file.data) + t.bytes, "seconds": t.seconds}

    add("three levels")
    word = hscnet.Word
    hscnet.Word = Silent  # type: ignore[misc]
    try:
        add("three levels, no conditioning, float", quantize="none")  # its constants have no range for int8
    finally:
        hscnet.Word = word  # type: ignore[misc]
    add("two levels", branches=(root, root))
    add("four levels", branches=(fourth,) * 4)
    table_of(f"{place.name}: ablations", rows, console)
    return rows


def float_table(place: Place, folder: Path, console: Console) -> dict:
    """One training, int8 and float."""
    rows = {}
    for quantize in ("int8", "none"):
        t = trained(place, folder, quantize=quantize)
        map_ = packed(t.source)
        found = errors_of(place.queries, lambda w, m=map_, t=t: scene_method(m, t.network, w))
        rows[quantize] = {**figures([found]), "bytes": len(map_.file.data) + t.bytes, "seconds": t.seconds}
    table_of(f"{place.name}: int8 and float", rows, console)
    return rows


def wrong_places(all_: Sequence[Place], folder: Path, console: Console) -> dict:
    """Queries of other scenes in a place's network: what is given."""
    first = {p.scene: p for p in reversed(all_)}
    asked = accepted = 0
    for place in first.values():
        t = trained(place, folder)
        method = scene_method(packed(t.source), t.network, LocalizationConfig().max_wrong)
        for other in all_:
            if other.scene == place.scene:
                continue
            for features, camera, _ in other.queries:
                with one_thread():
                    r = localize_query(method, Query(features.pixel, features), camera)
                asked, accepted = asked + 1, accepted + (r.pose is not None)
    console.print(f"queries of other places: {asked}, accepted {accepted}")
    return {"asked": asked, "accepted": accepted}


def joint(all_: Sequence[Place], folder: Path, console: Console) -> dict:
    """One network of a split of every scene, asked each scene's queries, beside castle's alone: recall and time as a
    place grows."""
    places = _apart(all_)
    castle = next(p for p in places if p.scene == "castle")
    whole = merge([p.source for p in places], [p.scene for p in places])
    rows = {}
    for of, source, asked in (("castle alone", castle.source, [castle]), ("all", whole, places)):
        t = trained(replace(castle, source=source, name=of.replace(" ", "_")), folder)
        map_ = packed(t.source)
        console.print(f"{of}: {len(source.positions)} landmarks, {len(source.names)} images")
        for place in asked:
            found = errors_of(place.queries, lambda w, m=map_, t=t: scene_method(m, t.network, w))
            plain = errors_of(place.queries, lambda w, m=map_: hierarchical(m, w))
            size = len(map_.file.data)
            rows[f"{of}: {place.scene}"] = {**figures([found]), "bytes": size + t.bytes, "seconds": t.seconds}
            rows[f"{of}: {place.scene}, hierarchical"] = {**figures([plain]), "bytes": size}
    table_of("one network of all places", rows, console)
    return rows


def _apart(all_: Sequence[Place]) -> list[Place]:
    """One split of each scene, moved aside, its images renamed."""
    found = []
    for i, place in enumerate({p.scene: p for p in reversed(all_)}.values()):
        s, by = place.source, np.array([1000.0 * i, 0, 0])
        moved = replace(
            s,
            names=tuple(f"{place.scene}/{n}" for n in s.names),
            poses=tuple(_moved(p, by) for p in s.poses),
            positions=s.positions + by,
        )
        found.append(replace(place, source=moved, queries=[(f, c, _moved(p, by)) for f, c, p in place.queries]))
    return found


def _moved(pose: Pose, by: np.ndarray) -> Pose:
    return Pose(pose.quaternion, pose.translation - pose.rotation @ by)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", default=["castle", "herzjesu", "reichstag", "room"])
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--plot", type=Path, metavar="F.png", help="draw the widths of the result file, and end")
    parser.add_argument("--output", type=Path, default=RESULTS / "scene_coordinates.json")
    options = parser.parse_args()
    if options.plot is not None:
        draw(json.loads(options.output.read_text())["widths"], options.plot)
        return
    console = Console(width=140)
    model = exported(BUNDLED, "int8")
    all_ = places(model, options.scenes, console)
    result = json.loads(options.output.read_text()) if options.output.exists() else {}
    if result.get("weights") != model.description.weights_hash:
        result = {"weights": model.description.weights_hash}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables: dict[str, Callable[[], dict]] = {
            "scenes": lambda: {**result.get("scenes", {}), **scene_table(all_, folder, console)},
            "widths": lambda: width_table(all_[0], folder, console),
            "ablations": lambda: ablations(all_[0], folder, console),
            "float": lambda: float_table(all_[0], folder, console),
            "wrong": lambda: wrong_places(all_, folder, console),
            "joint": lambda: joint(all_, folder, console),
        }
        for table in options.tables:
            result[table] = tables[table]()
            options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
