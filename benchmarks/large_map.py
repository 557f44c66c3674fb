"""A map as large as Aachen's, made by code: packing, opening, memory and query time; the same at ten times the size;
and matching against OpenCV and numpy.

    python benchmarks/large_map.py

Prints tables, writes benchmarks/results/large_map.json. Every measured step runs in a process of its
own. Wants 7 GB of disk in `.cache/`.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from made_city import City, made_city
from rich.console import Console
from rich.table import Table
from scenes import CACHE, RESULTS

from hfnet_edge.geometry import Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.codecs import Codec, CodecName
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.matching import nearest_two
from hfnet_maps.content import PackedMap, read_content
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, lay_out, write_map

BUDGET = "24MB"
TIMES = 10
QUERIES = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4328)
    parser.add_argument("--landmarks", type=int, default=685_000)
    parser.add_argument("--budget", default=BUDGET)
    parser.add_argument("--step", choices=["make", "enlarge", "query", "match"], help="one step, in this process")
    parser.add_argument("--map", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS / "large_map.json")
    options = parser.parse_args()
    folder = CACHE / f"city_{options.images}"
    source, packed, large = (folder / name for name in ("source.hfmap", "packed.hfmap", "large.hfmap"))
    if options.step == "make":
        make(options.images, options.landmarks, folder, source)
    elif options.step == "enlarge":
        enlarge(packed, large)
    elif options.step == "query":
        print(json.dumps(query(options.map, folder)))
    elif options.step == "match":
        print(json.dumps(match_speed()))
    else:
        run_all(options, folder, source, packed, large)


def run_all(options: argparse.Namespace, folder: Path, source: Path, packed: Path, large: Path) -> None:
    console = Console(width=120)
    folder.mkdir(parents=True, exist_ok=True)
    this = [sys.executable, __file__, "--images", str(options.images), "--landmarks", str(options.landmarks)]
    if not source.exists():
        subprocess.run([*this, "--step", "make"], check=True)
    start = time.perf_counter()
    command = [Path(sys.executable).parent / "hfnet-map", "pack", source, "--budget", options.budget, "-o", packed]
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - start
    # Of all children so far, `make` included; that one needs less (see its own line).
    packing = {"seconds": seconds, "peak_rss_gb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6}
    subprocess.run([*this, "--step", "enlarge"], check=True)
    result = {"packing": packing}
    for name, path in (("1x", packed), (f"{TIMES}x", large)):
        output = subprocess.run(
            [*this, "--step", "query", "--map", str(path)], check=True, capture_output=True, text=True
        )
        result[name] = json.loads(output.stdout.splitlines()[-1])
    output = subprocess.run([*this, "--step", "match"], check=True, capture_output=True, text=True)
    result["matching_ms"] = json.loads(output.stdout.splitlines()[-1])
    table = Table(title=f"packing took {seconds:.0f} s and {packing['peak_rss_gb']:.2f} GB", title_justify="left")
    table.add_column("")
    for name in ("1x", f"{TIMES}x"):
        table.add_column(name, justify="right")
    for key in result["1x"]:
        table.add_row(key, *(f"{result[name][key]:.4g}" for name in ("1x", f"{TIMES}x")))
    console.print(table)
    table = Table(title="matching 1000 keypoints with 10,000 landmarks, ms", title_justify="left")
    table.add_column("")
    table.add_column("ms", justify="right")
    for key, value in result["matching_ms"].items():
        table.add_row(key, f"{value:.1f}")
    console.print(table)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


def make(images: int, landmarks: int, folder: Path, path: Path) -> None:
    """The uncompacted map of the city, with keypoints, and queries in it."""
    start = time.perf_counter()
    city: City = made_city(images, landmarks)
    write_map(full_sections(city.source), path)
    (folder / "queries.pkl").write_bytes(pickle.dumps(city.queries(QUERIES)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    s = city.source
    print(
        f"made {len(s.names)} images, {len(s.positions)} landmarks, {len(s.images)} observations, "
        f"{path.stat().st_size / 1e9:.2f} GB, in {time.perf_counter() - start:.0f} s and {peak:.2f} GB"
    )


def enlarge(packed: Path, large: Path) -> None:
    """`TIMES` copies of a packed map, each a kilometre or more from the others and with other global descriptors."""
    one = read_content(packed)
    assert isinstance(one, PackedMap)
    rng = np.random.default_rng(1)
    shift = np.ptp(one.positions, axis=0).max() + 1000
    parts: list[PackedMap] = []
    for copy in range(TIMES):
        offset = np.array([copy * shift, 0, 0])
        flips = np.where(rng.random(one.global_descriptors.shape[1]) < 0.5, -1, 1) if copy else 1
        parts.append(
            replace(
                one,
                names=tuple(f"{copy}/{name}" for name in one.names),
                poses=tuple(Pose(p.quaternion, p.translation - p.rotation @ offset) for p in one.poses),
                global_descriptors=(one.global_descriptors * flips).astype(np.int8),
                positions=one.positions + offset,
                landmarks=one.landmarks + copy * len(one.positions),
                images=one.images + copy * len(one.names),
                described=one.described + copy * len(one.positions),
            )
        )
    joined = replace(
        one,
        names=tuple(name for part in parts for name in part.names),
        poses=tuple(pose for part in parts for pose in part.poses),
        **{
            field: np.concatenate([getattr(part, field) for part in parts])
            for field in ("global_descriptors", "positions", "landmarks", "images", "described", "codes")
        },
    )
    write_map(lay_out(joined), large)


def query(path: Path, folder: Path) -> dict[str, float]:
    """Opens a map, localizes in it, and reports milliseconds and megabytes."""
    queries = pickle.loads((folder / "queries.pkl").read_bytes())
    model_mb = rss()
    os.posix_fadvise(os.open(path, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)  # as after a start
    start = time.perf_counter()
    m = LocalizationMap.open(path)
    opened = time.perf_counter() - start
    before = rss()
    first_start = time.perf_counter()
    localize_features(m, *queries[0][:2])
    first, after = time.perf_counter() - first_start, rss()
    times, errors, stages = [], [], []
    for features, camera, pose in queries:
        start = time.perf_counter()
        r = localize_features(m, features, camera)
        times.append(time.perf_counter() - start)
        stages.append(r.milliseconds)
        errors.append(np.inf if r.pose is None else pose_error(r.pose, pose)[0])
    total, d = path.stat().st_size, m.description
    return {
        "megabytes": total / 1e6,
        "images": m.image_count,
        "landmarks": m.landmark_count,
        "bytes per landmark, all in": total / m.landmark_count,
        "descriptors per landmark": d.descriptorCount / d.landmarkCount,
        "open ms": 1e3 * opened,
        "RSS before opening MB": model_mb,
        "RSS after opening MB": before,
        "RSS after the first query MB": after,
        f"RSS after {len(queries)} queries MB": rss(),
        "first query ms": 1e3 * first,
        "query ms, median": 1e3 * float(np.median(times)),
        **{
            f"{stage} ms": float(np.median([s.get(stage, 0.0) for s in stages]))
            for stage in ("retrieve", "cluster", "match", "pose")
        },
        "found within 0.25 m": float(np.mean(np.array(errors) < 0.25)),
        "median error m": float(np.median(errors)),
    }


def rss() -> float:
    """Megabytes of memory that the process holds, mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1e3
    return np.nan


def match_speed() -> dict[str, float]:
    """1000 keypoints with 10,000 landmarks of 128 dimensions, the best of several runs in turn; and that every codec's
    matches are those of exact integer search."""
    from hfnet_maps.pack.codebooks import encode, fit_codec

    rng = np.random.default_rng(0)
    spectrum = 0.93 ** np.arange(128)
    raw = rng.normal(size=(11_000, 128)) * spectrum
    raw[:1000] = raw[1000:2000] + 0.1 * raw[:1000]
    unit = np.rint(127 * raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.int8)
    queries, references = unit[:1000], unit[1000:]
    q32, r32 = queries.astype(np.float32), references.astype(np.float32)
    matcher = cv2.BFMatcher(cv2.NORM_L2)

    def numpy_float() -> None:
        distance = np.square(q32).sum(1)[:, None] + np.square(r32).sum(1) - 2 * q32 @ r32.T
        np.take_along_axis(distance, np.argpartition(distance, 2, axis=1)[:, :2], axis=1)

    ways = {"cv2.BFMatcher, float": lambda: matcher.knnMatch(q32, r32, k=2), "numpy, float": numpy_float}
    codecs = {
        "int8, 128 dimensions": fit_codec(CodecName.INT8, references, 128),
        "int8, 48 dimensions": fit_codec(CodecName.INT8, references, 48),
        "pq, 16 bytes": fit_codec(CodecName.PQ, references, 64, 16),
        "binary, 128 bits": fit_codec(CodecName.BINARY, references, 128),
    }
    for name, codec in codecs.items():
        codes = encode(codec, references)
        check_exact(codec, queries, codes)
        ways[f"ours, {name}"] = lambda codec=codec, codes=codes: nearest_two(codec.query(queries), codec.decode(codes))
    best = dict.fromkeys(ways, np.inf)
    for _ in range(9):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def check_exact(codec: Codec, queries: np.ndarray, codes: np.ndarray) -> None:
    """The two nearest, and their distances, are those of 64-bit integer search."""
    q, r = codec.query(queries).astype(np.int64), codec.decode(codes).astype(np.int64)
    exact = (q**2).sum(1)[:, None] + (r**2).sum(1) - 2 * q @ r.T
    order = np.argsort(exact, axis=1, kind="stable")[:, :2]
    first, second, d1, d2 = nearest_two(codec.query(queries), codec.decode(codes))
    rows = np.arange(len(q))
    assert (order[:, 0] == first).all() and (order[:, 1] == second).all()
    assert (exact[rows, first] == d1).all() and (exact[rows, second] == d2).all()


if __name__ == "__main__":
    main()
