"""New photos in a built map, and what a device that has the old one downloads.

    python benchmarks/update.py --model hfnet_int8.tflite [--places office]

- castle: of each of the five folds the first half of the map's photos is built with the reference's poses, the second
  half registered without them.
- castle + 2: of the first fold, all but the last two photos, and these.
- drawn + 2: 46 photos of the place that `make demo` draws, and two more.
- office: the headset's first walk without every sixth frame, and every other frame of its second walk.

Queries are those of the folds, or of the place; old ones have the nearest camera of the map's photos among the old
ones. In the office old queries are the left-out frames of the first walk, new ones the other frames of the second. Each
is localized in the old map, in the updated one, and, but for the office, in one built of all photos with given poses.

The old map is packed into its photos' share of `BUDGETS`, the updated one into the budget, anew and onto the packed old
one (`hfnet-map pack --onto`). Seconds are of the update without the network. Prints a table, and writes
benchmarks/results/update.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import RESULTS, Extractor, hfnet, load_scenes
from trust import is_wrong, room

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.delta import make_delta
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.shell.lists import read_names, read_queries
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.reference import read_reference
from hfnet_maps.content import content_of
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.onto import pack_onto
from hfnet_maps.pack.writer import added_sections, built_sections, to_map
from hfnet_maps.synthetic_town.made_place import write_place
from hfnet_maps.update import NewPhoto, update

FIGURES = RESULTS / "update.json"
BUDGETS = {"castle": 200_000, "drawn": 150_000}
LEFT_OUT = 6  # of the office's first walk each so many-th frame is an old query


@dataclass(frozen=True)
class Case:
    """Photos and queries of a place, by name.

    Attributes:
        old, new: photos. queries, new_queries: by whether old photos are nearest.
        right: metres and degrees of a query that counts.
        budget: of the packed map; None: it is not packed.
    """

    cameras: dict[str, Camera]
    poses: dict[str, Pose]
    features: dict[str, Features]
    old: list[str]
    new: list[str]
    old_queries: list[str]
    new_queries: list[str]
    right: tuple[float, float]
    budget: int | None

    @classmethod
    def split(
        cls, cameras: dict[str, Camera], poses: dict[str, Pose], features: dict[str, Features], names: list[str],
        count: int, queries: list[str], budget: int,
    ) -> Case:  # fmt: skip
        """The first ``count`` photos are old."""
        centers = np.stack([poses[name].center for name in names])
        nearest = [np.linalg.norm(centers - poses[q].center, axis=1).argmin() for q in queries]
        old = [q for q, at in zip(queries, nearest, strict=True) if at < count]
        rest = [q for q in queries if q not in old]
        return cls(cameras, poses, features, names[:count], names[count:], old, rest, (0.25, 2.0), budget)


@dataclass
class Tally:
    """What came of the cases of a place, pooled."""

    numbers: dict[str, float] = field(default_factory=dict)
    new_poses: list[tuple[float, float]] = field(default_factory=list)
    found: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, key: str, value: float) -> None:
        self.numbers[key] = self.numbers.get(key, 0) + value

    def row(self, right: tuple[float, float]) -> dict[str, object]:
        """The figures by name."""
        errors = np.array(self.new_poses)
        figures: dict[str, object] = {key: round(value, 1) for key, value in self.numbers.items()}
        figures["new poses off by, median and most, m"] = [np.median(errors[:, 0]), errors[:, 0].max()]
        figures["new poses turned by, median and most, degrees"] = [np.median(errors[:, 1]), errors[:, 1].max()]
        for key, found in self.found.items():
            given = [e for e in found if np.isfinite(e[0])]
            figures[key] = {
                "queries": len(found),
                "given": len(given),
                "right": sum(e[0] <= right[0] and e[1] <= right[1] for e in given),
                "wrong": sum(map(is_wrong, given)),
                "median_metres": float(np.median([e[0] for e in given])) if given else None,
            }
        before, after = (np.array(self.found[f"old queries, {when}"])[:, 0] for when in ("before", "after"))
        both = np.isfinite(before) & np.isfinite(after)
        change = (after - before)[both]
        figures["old queries' change, median and worst, m"] = [np.median(change), change.max()]
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES), help="others keep their figures")
    options = parser.parse_args()
    model = Model(options.model)
    for name in options.places:
        tally, cases = Tally(), PLACES[name](hfnet(model))
        for case in cases:
            run(case, model.description, tally)
        known = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
        known[name] = tally.row(cases[0].right)
        FIGURES.write_text(json.dumps({name: known[name] for name in PLACES if name in known}, indent=1) + "\n")
    results = json.loads(FIGURES.read_text())
    table = Table(title="New photos in a built map", title_justify="left")
    for column in ("", *results):
        table.add_column(column)
    for key in dict.fromkeys(key for row in results.values() for key in row):
        table.add_row(key, *(text(row.get(key)) for row in results.values()))
    Console(width=160).print(table)


def text(value: object) -> str:
    """A figure for people."""
    if isinstance(value, dict):
        median = value["median_metres"]
        off = "" if median is None else f", {median:.4f} m"
        return f"{value['given']} of {value['queries']}, {value['right']} right, {value['wrong']} wrong{off}"
    if isinstance(value, list):
        return ", ".join(f"{v:.4f}" for v in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) and value < 1e5 else f"{value:.0f}"


def castles(keep: Callable[[int], int], folds: int) -> Callable[[Extractor], list[Case]]:
    """Castle's first folds, of whose photos so many are old."""

    def make(extract: Extractor) -> list[Case]:
        scene = next(scene for scene in load_scenes() if scene.name == "castle")
        features = {name: extract(scene.images / name, camera) for name, camera in scene.cameras.items()}
        cases = []
        for split in scene.splits[:folds]:
            names, queries = sorted(split.map_names), [name for name, _ in split.queries]
            count, budget = keep(len(names)), BUDGETS["castle"]
            cases.append(Case.split(scene.cameras, scene.poses, features, names, count, queries, budget))
        return cases

    return make


def drawn(extract: Extractor) -> list[Case]:
    """The demo's place."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        write_place(root)
        reference = read_reference(root / "reference")
        names = read_names(root / "map.txt")
        queries = [name for name, _ in read_queries(root / "queries_with_intrinsics.txt")]
        cameras = {name: reference.camera(name) for name in (*names, *queries)}
        features = {name: extract(root / "images" / name, camera) for name, camera in cameras.items()}
    poses = {name: reference.poses[name] for name in cameras}
    return [Case.split(cameras, poses, features, names, len(names) - 2, queries, BUDGETS["drawn"])]


def office(extract: Extractor) -> list[Case]:
    """Two walks of a headset."""
    scene = room()
    split = scene.splits[0]
    first, second = sorted(split.map_names), [name for name, _ in split.queries]
    left_out = first[LEFT_OUT // 2 :: LEFT_OUT]
    features = {name: extract(scene.images / name, camera) for name, camera in scene.cameras.items()}
    old = [name for name in first if name not in set(left_out)]
    right = (0.25, 5.0)
    return [
        Case(scene.cameras, scene.poses, features, old, second[::2], left_out, second[1::2], right, None),
    ]


PLACES = {
    "castle, half": castles(lambda count: count // 2, 5),
    "castle + 2": castles(lambda count: count - 2, 1),
    "drawn + 2": drawn,
    "office": office,
}


def run(case: Case, description: Description, tally: Tally) -> None:
    """Updates a map, and adds what came of it."""

    def built(names: list[str]) -> LocalizationMap:
        columns = ([of[name] for name in names] for of in (case.cameras, case.poses, case.features))
        return to_map(built_sections(map_from_features(names, *columns, description)[0]))

    def localize(when: str, place: LocalizationMap) -> None:
        for which, queries in (("old", case.old_queries), ("new", case.new_queries)):
            found = tally.found.setdefault(f"{which} queries, {when}", [])
            for name in queries:
                pose = localize_features(place, case.features[name], case.cameras[name]).pose
                found.append((np.inf, np.inf) if pose is None else pose_error(pose, case.poses[name]))

    before = built(case.old)
    photos = [NewPhoto(name, case.cameras[name], False, case.features[name]) for name in case.new]
    start = time.perf_counter()
    updated = update(before, content_of(before), photos)
    after = to_map(added_sections(updated.map, before))
    seconds = time.perf_counter() - start
    new_poses = updated.map.poses[len(case.old) :]
    tally.new_poses += [pose_error(a, case.poses[n]) for n, a in zip(updated.taken, new_poses, strict=True)]
    for key, value in {
        "old photos": len(case.old),
        "new photos": len(photos),
        "taken in": len(updated.taken),
        "landmarks before": before.landmark_count,
        "landmarks added": updated.landmarks,
        "observations added to old landmarks": updated.observations,
        "seconds": seconds,
        "bytes before": len(before.file.data),
        "bytes after": len(after.file.data),
        "delta": delta(before, after),
    }.items():
        tally.add(key, value)
    localize("before", before)
    localize("after", after)
    if case.budget is None:
        return
    localize("built of all", built([*case.old, *case.new]))
    share = case.budget * len(case.old) // (len(case.old) + len(case.new))
    base = to_map(choose(content_of(before), share)[0])
    anew = to_map(choose(content_of(after), case.budget)[0])
    onto = to_map(pack_onto(content_of(after), base, case.budget).sections)
    localize("packed before", base)
    for how, packed in (("anew", anew), ("onto", onto)):
        tally.add(f"packed {how}, bytes", len(packed.file.data))
        tally.add(f"packed {how}, delta", delta(base, packed))
        localize(f"packed {how}", packed)
    tally.add("packed before, bytes", len(base.file.data))


def delta(old: LocalizationMap, new: LocalizationMap) -> int:
    """Bytes of the delta between two maps."""
    return len(make_delta(bytes(old.file.data), bytes(new.file.data)))


if __name__ == "__main__":
    main()
