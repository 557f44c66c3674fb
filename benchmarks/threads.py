"""One localizer shared by threads: wrong answers, and queries a second against one thread.

Castle's queries in its maps as built, by every method, int8. An answer is wrong where anything of it (status, prior
frames, matches, pose) differs by a bit from what one thread gets. Rates are taken in turns, so that other load falls on
all of them alike; beside them the cores that were busy, which bound what threads can add.

    python benchmarks/threads.py                       8 threads x 200 calls, then rates; half an hour
    python benchmarks/threads.py --calls 20            fewer calls
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import RESULTS, load_scenes

from hfnet_edge.localizer import LocalizationConfig, LocalizationResult, Localizer, Method
from hfnet_edge.model import Model
from hfnet_edge.patch_model import PatchModel
from hfnet_export.crbnet_export import export_crbnet
from hfnet_export.export import export_hfnet
from hfnet_export.weights import BUNDLED, BUNDLED_CRBNET
from hfnet_maps.build import build_map
from hfnet_maps.writer import built_sections, to_map

SHARERS = 8  # threads of the test for wrong answers
COUNTS = (1, 2)  # threads of the rates
ROUNDS = 5
QUERIES = 12  # of a round, each thread its share

Call = Callable[[int], LocalizationResult]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200, help="of each of the 8 threads")
    parser.add_argument("--methods", nargs="+", type=Method, default=list(Method), help="default: all")
    options = parser.parse_args()
    calls = options.calls
    scene = load_scenes()[0]
    split = next(s for s in scene.splits if s.name.endswith("/2"))
    queries = [(scene.images / name, camera) for name, camera in split.queries]
    with tempfile.TemporaryDirectory() as folder:
        hfnet = export_hfnet(BUNDLED, Path(folder) / "hfnet.tflite").file
        crbnet = export_crbnet(BUNDLED_CRBNET, Path(folder) / "crbnet.tflite").file
        maps = []
        for patches in (None, PatchModel(crbnet)):
            reference = scene.images.parent / "reference"
            source, _ = build_map(scene.images, reference, split.map_names, Model(hfnet), patch_model=patches)
            maps.append(to_map(built_sections(source)))

        def localizer(method: Method, threads: int) -> Localizer:
            by_patches = method is not Method.HIERARCHICAL
            patches = PatchModel(crbnet, threads) if by_patches else None
            return Localizer(maps[by_patches], Model(hfnet, threads), LocalizationConfig(method), patches)

        rows = []
        for method in options.methods:
            row: dict = {"method": str(method)}
            shared = localizer(method, 2)
            alone = [shared.localize(*query) for query in queries]
            wrong = _wrong(lambda i, shared=shared: shared.localize(*queries[i]), alone, calls)
            row |= {"calls": SHARERS * calls, "wrong": wrong}
            for threads in (1, 2):
                row[f"network_threads_{threads}"] = _rates(localizer(method, threads), queries)
            rows.append(row)
            print(json.dumps(row), flush=True)
    table = Table(title=f"castle, {os.cpu_count()} cores: one localizer, 2 threads against 1", title_justify="left")
    for heading in ("method", "wrong", "1 net thread", "busy cores 1, 2", "2 net threads", "busy cores 1, 2"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for row in rows:
        cells = [row["method"], f"{row['wrong']} of {row['calls']}"]
        for threads in (1, 2):
            r = row[f"network_threads_{threads}"]
            cells += [f"{r['ratio']:.2f}x", " ".join(f"{cores:.2f}" for cores in r["busy_cores"])]
        table.add_row(*cells)
    Console().print(table)
    (RESULTS / "threads.json").write_text(json.dumps(rows, indent=1) + "\n")


def _wrong(call: Call, alone: list[LocalizationResult], calls: int) -> int:
    """Answers that differ from those of one thread, of `SHARERS` threads with so many calls each."""

    def one(thread: int) -> int:
        order = np.random.default_rng(thread).integers(0, len(alone), calls)
        return sum(not _same(call(int(i)), alone[i]) for i in order)

    with ThreadPoolExecutor(SHARERS) as pool:
        return sum(pool.map(one, range(SHARERS)))


def _same(a: LocalizationResult, b: LocalizationResult) -> bool:
    def parts(r: LocalizationResult) -> list[np.ndarray]:
        pose = [] if r.pose is None else [r.pose.quaternion, r.pose.translation]
        found = [] if r.matches is None else [r.matches.keypoints, r.matches.landmarks]
        return [r.prior_frames, *found, *pose]

    return (
        a.status is b.status
        and len(parts(a)) == len(parts(b))
        and all(np.array_equal(x, y) for x, y in zip(parts(a), parts(b), strict=True))
    )


def _rates(localizer: Localizer, queries: list) -> dict:
    """Queries a second by number of threads, medians of `ROUNDS` in turns, and the cores that were busy."""
    rates: dict[int, list[float]] = {count: [] for count in COUNTS}
    cores: dict[int, list[float]] = {count: [] for count in COUNTS}
    for warm in range(ROUNDS + 1):
        for count in COUNTS:
            before, start = os.times(), time.perf_counter()
            with ThreadPoolExecutor(count) as pool:
                list(pool.map(lambda i: localizer.localize(*queries[i % len(queries)]), range(QUERIES)))
            seconds, after = time.perf_counter() - start, os.times()
            if warm:
                rates[count].append(QUERIES / seconds)
                cores[count].append((after.user + after.system - before.user - before.system) / seconds)
    return {
        "queries_per_second": [median(rates[count]) for count in COUNTS],
        "ratio": median(b / a for a, b in zip(rates[COUNTS[0]], rates[COUNTS[1]], strict=True)),
        "busy_cores": [median(cores[count]) for count in COUNTS],
    }


if __name__ == "__main__":
    main()
