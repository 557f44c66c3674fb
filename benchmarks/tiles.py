"""Places in tiles over HTTP: bytes that queries fetch, and whether poses are those of the whole map.

    python benchmarks/tiles.py                    # all places; some ten minutes
    python benchmarks/tiles.py --places town

Prints tables, writes benchmarks/results/tiles.json. A place is built to a map, packed with one setting, cut into
tiles, each packed with the same setting, and served on loopback by a server that counts (`range_server.py`).

    town            the drawn town of `hfnet-map example`
    copies          the drawn town and a copy of it a kilometre away: nobody can tell where a query is
    city            a made town of features, 1,200 photos along streets
    scenes          castle and herzjesu, first fold, in one map; and the drawn town's queries, which are in none
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from drawn_places import features_of
from made_city import made_city
from range_server import RangeServer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import CACHE, RESULTS, exported, hfnet, load_scenes

from hfnet_edge import searches
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.result import LocalizationResult
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.merge import merge
from hfnet_maps.content import BuiltMap, MapContent, content_of
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import Sections, write_map
from hfnet_maps.synthetic_town.made_place import made_place
from hfnet_maps.tiles.cut import cut
from hfnet_maps.tiles.writer import rewrite_place, write_place

SETTINGS = Settings(CodecName.PQ, 64, 16, 4, 128)  # 16 bytes a descriptor, up to four of them a landmark
RIGHT = (0.25, 2.0)  # map units, degrees
FAR = 1000.0  # metres between towns
Query = tuple[Features, Camera, Pose | None]  # the pose: None where it is of no place in the map


@dataclass(frozen=True)
class Benchmark:
    """A place, and what is asked of it.

    Attributes:
        source: as built. images: of a tile.
    """

    source: BuiltMap
    images: int
    queries: Sequence[Query]


@dataclass(frozen=True)
class Town:
    """What a network sees in a drawn town."""

    source: BuiltMap
    queries: Sequence[Query]


@cache
def model() -> Model:
    from hfnet_export.networks.weights import BUNDLED  # brings TensorFlow

    return exported(BUNDLED, "int8")


def town(seed: int, views: int = 48, queries: int = 20) -> Town:
    """A drawn town's built map and queries, kept in the cache."""
    kept = CACHE / "tiles" / f"town_{seed}_{views}_{queries}.pkl"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    place = made_place(seed, views, queries)
    seen = []
    for view in track(place.views, f"town {seed}", transient=True):
        grey = np.rint(place.render(view) @ (0.299, 0.587, 0.114)).astype(np.uint8)
        seen.append(features_of(_Drawn(grey, view.camera), model()))  # type: ignore[arg-type]
    mapped = [i for i, view in enumerate(place.views) if not view.is_query]
    source, _ = map_from_features(
        *zip(*((place.views[i].name, place.views[i].camera, place.views[i].pose) for i in mapped), strict=True),
        [seen[i] for i in mapped],
        model().description,
    )
    found = Town(source, [(seen[i], v.camera, v.pose) for i, v in enumerate(place.views) if v.is_query])
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(pickle.dumps(found))
    return found


@dataclass(frozen=True)
class _Drawn:
    image: np.ndarray
    camera: Camera


def moved(there: Town, name: str, by: tuple[float, float, float]) -> Town:
    """A town elsewhere, its images under another name."""
    s, shift = there.source, np.array(by)

    def to(pose: Pose) -> Pose:
        return Pose(pose.quaternion, pose.translation - pose.rotation @ shift)

    source = replace(
        s,
        names=tuple(f"{name}/{n}" for n in s.names),
        poses=tuple(map(to, s.poses)),
        positions=s.positions + shift,
    )
    return Town(source, [(f, c, None if p is None else to(p)) for f, c, p in there.queries])


def the_town() -> Benchmark:
    here = town(7)
    return Benchmark(here.source, 12, here.queries)


def the_copies() -> Benchmark:
    places = [moved(town(7), f"{i}", (FAR * i, 0, 0)) for i in range(2)]
    return Benchmark(
        merge([p.source for p in places], ["0", "1"]), 24, [(f, c, None) for f, c, _ in town(7).queries[:10]]
    )


def the_city() -> Benchmark:
    city = made_city(1200, 190_000)
    return Benchmark(city.source, 120, city.queries(60))


def scene(name: str) -> Town:
    """A benchmark scene, its first fold."""
    there = next(s for s in load_scenes() if s.name == name)
    split, extract = there.splits[0], hfnet(model())
    seen = {n: extract(there.images / n, there.cameras[n]) for n in (*split.map_names, *dict(split.queries))}
    source, _ = map_from_features(
        *zip(*((n, there.cameras[n], there.poses[n]) for n in split.map_names), strict=True),
        [seen[n] for n in split.map_names],
        model().description,
    )
    return Town(source, [(seen[n], c, there.poses[n]) for n, c in split.queries])


def the_scenes() -> Benchmark:
    places = [moved(scene(name), name, (FAR * i, 0, 0)) for i, name in enumerate(("castle", "herzjesu"))]
    elsewhere: list[Query] = [(f, c, None) for f, c, _ in town(7).queries]
    source = merge([p.source for p in places], ["castle", "herzjesu"])
    return Benchmark(source, 8, [*(q for p in places for q in p.queries), *elsewhere])


PLACES: dict[str, Callable[[], Benchmark]] = {
    "town": the_town,
    "copies": the_copies,
    "city": the_city,
    "scenes": the_scenes,
}


def packed(content: MapContent) -> Sections:
    """With all landmarks."""
    return Packer(content).pack(SETTINGS, len(content.positions))


def measured(place: Benchmark, folder: Path) -> dict:
    """Bytes and poses of all queries, in the whole map, in tiles on disk and over HTTP."""
    whole_file = folder / "whole.hfmap"
    write_map(packed(place.source), whole_file)
    write_place(folder / "built", cut(place.source, place.images))
    built = TiledMap(folder / "built")
    tiles = (packed(content_of(built.tile(i))) for i in range(len(built.tiles)))
    rewrite_place(folder / "tiles", built.index, tiles)
    whole, here = LocalizationMap.open(whole_file), TiledMap(folder / "tiles")
    answers: dict[str, list[LocalizationResult]] = {"whole": [], "tiles": [], "http": [], "first tile": []}
    first_of: dict[str, list[int]] = {"cold": [], "warm": [], "again": [], "requests": [], "whole": []}
    seconds = {"whole": 0.0, "tiles": 0.0}
    with RangeServer(folder) as server:
        walk, cached = TiledMap(f"{server.url}/tiles"), folder / "cache"
        for features, camera, _ in track(place.queries, "asking", transient=True):
            for name, map_ in (("whole", whole), ("tiles", here)):
                start = time.process_time()
                answers[name].append(localize_features(map_, features, camera))
                seconds[name] += time.process_time() - start
            for name, opened in (
                ("warm", lambda: walk),
                ("cold", lambda: TiledMap(f"{server.url}/tiles", cached)),
                ("again", lambda: TiledMap(f"{server.url}/tiles", cached)),
                ("whole", lambda: LocalizationMap.open(f"{server.url}/whole.hfmap")),
            ):
                if name == "cold" and cached.exists():
                    for file in cached.iterdir():
                        file.unlink()
                server.reset()
                found = localize_features(opened(), features, camera)
                first_of[name].append(server.sent)
                if name == "cold":
                    answers["http"].append(found)
                    first_of["requests"].append(server.requests)
                assert same(found, answers["whole" if name == "whole" else "tiles"][-1]), "the bytes' way has no say"
    several, searches.LIKELY = searches.LIKELY, 1  # what it is worth to compare tiles that are as likely
    try:
        answers["first tile"] = [localize_features(here, f, c) for f, c, _ in place.queries]
    finally:
        searches.LIKELY = several
    return {
        "images": len(place.source.names),
        "queries": len(place.queries),
        "tiles": len(here.tiles),
        "bytes": {
            "whole map": whole_file.stat().st_size,
            "index": len(here.index.file.data),
            "tiles": sum(t.bytes for t in here.tiles),
            "largest tile": max(t.bytes for t in here.tiles),
        },
        "fetched": {name: spread(values) for name, values in first_of.items()},
        "given": {name: judged(found, place.queries) for name, found in answers.items()},
        "tiles_to_whole": apart(answers["tiles"], answers["whole"]),
        "time_ratio": round(seconds["tiles"] / seconds["whole"], 2),
    }


def same(a: LocalizationResult, b: LocalizationResult) -> bool:
    """Whether two answers have the same status, and every bit of the pose in common."""
    if a.pose is None or b.pose is None:
        return a.status is b.status and a.pose is b.pose
    return np.array_equal(a.pose.quaternion, b.pose.quaternion) and np.array_equal(
        a.pose.translation, b.pose.translation
    )


def spread(values: list[int]) -> dict[str, int]:
    first, median, p95 = values[0], np.median(values), np.percentile(values, 95)
    return {"first": int(first), "median": int(median), "p95": int(p95), "sum": int(sum(values))}


def judged(found: list[LocalizationResult], queries: Sequence[Query]) -> dict:
    """How many poses were given, how many of them are wrong, and how far off the others are in the median."""
    errors = []
    wrong = 0
    for result, (_, _, truth) in zip(found, queries, strict=True):
        if result.pose is None:
            continue
        error = (np.inf, np.inf) if truth is None else pose_error(result.pose, truth)
        wrong += not (error[0] <= RIGHT[0] and error[1] <= RIGHT[1])
        errors.append(error[0])
    median = None if not errors or not np.isfinite(np.median(errors)) else round(float(np.median(errors)), 5)
    return {"poses": len(errors), "wrong": wrong, "median": median}


def apart(a: list[LocalizationResult], b: list[LocalizationResult]) -> dict:
    """Where both give a pose, how far apart they are."""
    both = [pose_error(x.pose, y.pose)[0] for x, y in zip(a, b, strict=True) if x.pose and y.pose]
    if not both:
        return {"both": 0, "median": None, "most": None}
    return {"both": len(both), "median": round(float(np.median(both)), 6), "most": round(float(max(both)), 6)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--output", type=Path, default=RESULTS / "tiles.json")
    options = parser.parse_args()
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.places:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measured(PLACES[name](), Path(folder))
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    console = Console(width=150)
    console.print(bytes_table(results), poses_table(results))
    console.print(f"wrote {options.output}")


def bytes_table(results: dict) -> Table:
    table = Table(title="kB: of files; fetched for a query, the first, median, 95 %", title_justify="left")
    for heading in ("place", "images", "tiles", "whole map", "all tiles", "index", "cold", "requests", "warm", "again"):
        table.add_column(heading, justify="left" if heading == "place" else "right")
    table.add_column("of the whole map", justify="right")
    for name, r in results.items():
        sizes = [f"{r['bytes'][key] / 1000:.0f}" for key in ("whole map", "tiles", "index")]
        row = [name, str(r["images"]), str(r["tiles"]), *sizes]
        for key in ("cold", "requests", "warm", "again", "whole"):
            unit = 1 if key == "requests" else 1000
            row.append(", ".join(f"{r['fetched'][key][v] / unit:.0f}" for v in ("first", "median", "p95")))
        table.add_row(*row)
    return table


def poses_table(results: dict) -> Table:
    title = f"poses given, of them wrong by {RIGHT[0]:g} m or {RIGHT[1]:g}°; median error"
    table = Table(title=title, title_justify="left")
    for heading in ("place", "queries", "whole", "tiles", "http", "first tile", "tiles to whole: median, most", "time"):
        table.add_column(heading, justify="left" if heading == "place" else "right")
    for name, r in results.items():
        row = [name, str(r["queries"])]
        for key in ("whole", "tiles", "http", "first tile"):
            g = r["given"][key]
            off = "" if g["median"] is None else f"; {1000 * g['median']:.1f} mm"
            row.append(f"{g['poses']}, {g['wrong']}{off}")
        a = r["tiles_to_whole"]
        row.append("" if not a["both"] else f"{1000 * a['median']:.2f}, {1000 * a['most']:.1f} mm")
        table.add_row(*row, f"{r['time_ratio']:.2f}")
    return table


if __name__ == "__main__":
    main()
