"""Memory and time of building places in tiles, from hundreds of images to ten thousand.

    python benchmarks/scale.py --model hfnet_int8.tflite [--images 250 1000 10000] [--jobs 2]

A made town (`made_city.py`: geometry and descriptors with the statistics of Aachen, no pictures) is put into a store as
extraction would, by a process of its own; so all but extraction is measured. Then pairs are chosen, matched, and
triangulated in tiles with the known poses, by `--jobs` processes. What real photos take, of 2,600 keypoints where the
town's have 1,130, is measured on castle (../shared/data/scenes) by one process, in CPU seconds. Prints tables, with
what a million images would take by these figures, and writes benchmarks/results/scale.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from made_city import IMAGES, LANDMARKS, made_city
from rich.console import Console
from rich.table import Table
from scenes import RESULTS, SCENES

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.networks.by_role import Networks
from hfnet_maps.build.choices import Mapper
from hfnet_maps.build.crew import ALONE, crew
from hfnet_maps.build.parts import reconstruct_parts
from hfnet_maps.build.photos import Device, Photos, find_photos
from hfnet_maps.build.work_files import Files
from hfnet_maps.build.work_store import WorkStore, key_of, read_counts, read_looks, write_features
from hfnet_maps.build.workers import PHOTOS, KeptPhotos, choose_pairs, extract_into, match_into
from hfnet_maps.tiles.triangulate import Posed, write_tiles

TILE = 250  # images
MILLION = 10**6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=int, nargs="*", default=[250, 1000, 10000])
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    path = RESULTS / "scale.json"
    rows = json.loads(path.read_text()) if path.is_file() else {}
    if not options.images or "castle" not in rows:
        rows["castle"] = alone(photos_take, options.model)
    for count in options.images:
        with tempfile.TemporaryDirectory() as folder:
            alone(put_town, folder, count)
            rows[str(count)] = alone(build, folder, count, options.model, options.jobs)
            print(count, rows[str(count)], flush=True)
    in_order = sorted(rows.items(), key=lambda row: int(row[0]) if row[0].isdigit() else 0)
    path.write_text(json.dumps(dict(in_order), indent=1) + "\n")
    show({name: row for name, row in in_order if name.isdigit()})
    for what, value in rows["castle"].items():
        print(f"castle: {what.replace('_', ' ')} {value:.4g}")


def alone(function, *arguments):
    """What a function returns, called in a process of its own, so that memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def photos_take(model: Path) -> dict:
    """CPU seconds of each step on real photos, by one process without poses."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "store"

        def step(name, function):
            start = time.process_time()
            made = function()
            seconds[name] = time.process_time() - start
            return made

        networks, store = Networks(model), WorkStore(files)
        found = find_photos(SCENES / "castle" / "images")
        kept = step("extract", lambda: extract_into(store, found, networks, False, ALONE, quiet))
        features = sum(path.stat().st_size for path in files.rglob("*.h5"))
        pairs = choose_pairs(kept, ALONE, quiet)
        keys = step("match and verify", lambda: match_into(kept, pairs, ALONE, quiet))
        matches = sum(path.stat().st_size for path in files.rglob("*.h5")) - features
        shared = read_counts(store.files, [store.at(key) for key in keys])
        (model_,) = step(
            "reconstruct", lambda: reconstruct_parts(kept, pairs, keys, shared, Mapper.INCREMENTAL, ALONE, quiet)
        )
        rows = np.array(list(model_.poses))
        cameras = [model_.cameras[kept.photos.device_of[i]] for i in rows]
        posed = Posed(kept, cameras, list(model_.poses.values()), rows, pairs, keys, shared, chosen=False)
        place = Path(folder) / "t.tiles"
        report = step("tiles", lambda: write_tiles(posed, networks, False, TILE, place, ALONE, quiet))
    count = len(kept.keys)
    return {
        "photos": count,
        "keypoints": float(kept.counts.mean()),
        "extract_a_photo": seconds["extract"] / count,
        "match_and_verify_a_pair": seconds["match and verify"] / len(pairs),
        "reconstruct_a_photo": seconds["reconstruct"] / count,
        "triangulate_a_photo": seconds["tiles"] / count,
        "features_a_photo_kilobytes": features / count / 1e3,
        "matches_a_pair_kilobytes": matches / len(pairs) / 1e3,
        "map_a_photo_kilobytes": report.bytes / count / 1e3,
    }


def keys_of(count: int) -> list[str]:
    return [key_of("made", i) for i in range(count)]


def put_town(folder: str, count: int) -> None:
    """Features of a made town into a store, poses beside it."""
    source = made_city(count, round(LANDMARKS * count / IMAGES)).source
    files, keys, k = Files(Path(folder) / "store"), keys_of(count), source.keypoints
    order = np.argsort(source.images, kind="stable")
    starts = np.searchsorted(source.images[order], np.arange(count + 1))
    for first in range(0, count, PHOTOS):
        part = {}
        for i in range(first, min(first + PHOTOS, count)):
            rows, others = order[starts[i] : starts[i + 1]], slice(k.other_offsets[i], k.other_offsets[i + 1])
            keypoints = np.concatenate([k.observed[rows], k.others[others]]).astype(np.float64)
            descriptors = np.concatenate([source.descriptors[rows], k.other_descriptors[others]])
            features = Features(
                keypoints, np.ones(len(keypoints), np.float32), descriptors, source.global_descriptors[i],
                float(k.pixels[i]),
            )  # fmt: skip
            part[keys[i]] = source.names[i], (features, None)
        write_features(files, part)
    poses = np.stack([np.concatenate([pose.quaternion, pose.translation]) for pose in source.poses])
    np.savez(Path(folder) / "poses.npz", poses=poses, names=np.array(source.names), camera=str(k.cameras[0]))


def build(folder: str, count: int, model: Path, jobs: int) -> dict:
    """All but extraction, and what it took."""
    told = np.load(Path(folder) / "poses.npz")
    camera, seconds = Camera.parse(str(told["camera"])), {}
    poses = [Pose(row[:4], row[4:]) for row in told["poses"]]
    photos = Photos(
        Path(folder), tuple(map(str, told["names"])), ("",) * count, (1,) * count, (Device(camera, True, "made"),),
        (0,) * count, {},
    )  # fmt: skip
    networks, keys = Networks(model), tuple(keys_of(count))
    cpu = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with crew(jobs) as workers:

        def step(name, function):
            start = time.perf_counter()
            made = function()
            seconds[name] = time.perf_counter() - start
            return made

        def open_store():
            store = WorkStore(Path(folder) / "store")
            return KeptPhotos(store, photos, keys, *read_looks(store.files, [store.at(key) for key in keys]))

        kept = step("open the store", open_store)
        pairs = step("choose pairs", lambda: choose_pairs(kept, workers, quiet, poses))
        of_pairs = step("match", lambda: match_into(kept, pairs, workers, quiet, poses))
        shared = step("count", lambda: read_counts(kept.store.files, [kept.store.at(key) for key in of_pairs]))
        posed = Posed(kept, [camera] * count, poses, np.arange(count), pairs, of_pairs, shared, chosen=True)
        place = Path(folder) / "town.tiles"
        report = step("tiles", lambda: write_tiles(posed, networks, False, TILE, place, workers, quiet))
    work = sum(path.stat().st_size for path in (Path(folder) / "store").rglob("*") if path.is_file())
    row = {
        "images": count,
        "pairs": len(pairs),
        "pairs_verified": int((shared > 0).sum()),
        "tiles": len(report.tiles),
        "images_of_tiles_with_halo": sum(tile.images for tile in report.tiles),
        "landmarks": sum(tile.landmarks for tile in report.tiles),
        "bytes_of_tiles": report.bytes,
        "bytes_of_store": work,
        "jobs": jobs,
        "seconds": seconds,
        "cpu_seconds_of_the_first": resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu,
        "cpu_seconds_of_the_others": resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime,
        "peak_megabytes_of_the_first": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_megabytes_of_the_largest_other": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }
    shutil.rmtree(Path(folder) / "store")
    return row


def quiet(*_: object) -> None:
    """No progress."""


def show(rows: dict[str, dict]) -> None:
    table = Table(title="Places in tiles", title_justify="left")
    for name in ("images", "pairs, an image", "seconds", "of them matching", "CPU ms an image, this process",
                 "peak MB, this process", "largest other", "tiles", "store, tiles [GB]"):  # fmt: skip
        table.add_column(name, justify="right")
    for row in rows.values():
        table.add_row(
            f"{row['images']}",
            f"{row['pairs']}, {row['pairs'] / row['images']:.1f}",
            f"{sum(row['seconds'].values()):.0f}",
            f"{row['seconds']['match']:.0f}",
            f"{1000 * row['cpu_seconds_of_the_first'] / row['images']:.1f}",
            f"{row['peak_megabytes_of_the_first']:.0f}",
            f"{row['peak_megabytes_of_the_largest_other']:.0f}",
            f"{row['tiles']}",
            f"{row['bytes_of_store'] / 1e9:.2f}, {row['bytes_of_tiles'] / 1e9:.2f}",
        )
    Console(width=150).print(table)
    if len(rows) < 2:
        return
    small, large = list(rows.values())[-2:]
    more = (large["peak_megabytes_of_the_first"] - small["peak_megabytes_of_the_first"]) / (
        large["images"] - small["images"]
    )
    core = large["cpu_seconds_of_the_others"] / large["images"]
    print(
        f"a million images, by the last two rows: this process {more * MILLION / 1024:.0f} GB, "
        f"workers {core * MILLION / 3600:.0f} core hours besides extraction and the choice of pairs, which grows with "
        f"the square: {large['seconds']['choose pairs'] * (MILLION / large['images']) ** 2 * large['jobs'] / 3600:.0f}"
    )


if __name__ == "__main__":
    main()
