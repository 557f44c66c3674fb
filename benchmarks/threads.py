"""One localizer shared by threads: wrong answers, and queries a second of two threads against one.

An answer is wrong where anything of it (status, prior frames, matches, pose) differs by a bit from what a thread gets
alone. Rates are taken in turns, so that other load falls on both alike; beside them the cores that were busy, which
bound what threads can add.

    python benchmarks/threads.py --map castle.hfmap --model hfnet_int8.tflite --images DIR --queries LIST
    python benchmarks/threads.py --map room.hfmap --model hfnet_int8.tflite --model crbnet_int8.tflite \\
        --methods parallel trees --images DIR --queries LIST --calls 20
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import RESULTS

from hfnet_edge.localizer import Localizer
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.methods.registry import METHODS
from hfnet_edge.networks.by_role import open_network
from hfnet_edge.result import LocalizationResult
from hfnet_edge.shell.lists import read_queries

SHARERS = 8  # threads of the test for wrong answers
COUNTS = (1, 2)  # threads of the rates
ROUNDS = 3
QUERIES = 12  # of a round, each thread its share

Call = Callable[[int], LocalizationResult]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("map", "images", "queries"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--model", type=Path, action="append", required=True, help="again for a patch network")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["hierarchical"])
    parser.add_argument("--calls", type=int, default=200, help=f"of each of {SHARERS} threads")
    options = parser.parse_args()
    queries = [(options.images / name, camera) for name, camera in read_queries(options.queries)]
    place = LocalizationMap.open(options.map)

    def localizer(method: str, threads: int) -> Localizer:
        return Localizer(
            place, *(open_network(file, threads) for file in options.model), config=LocalizationConfig(method)
        )

    rows = []
    for method in options.methods:
        row: dict = {"map": options.map.stem, "method": method}
        for threads in (1, 2):
            row[f"network_threads_{threads}"] = _rates(localizer(method, threads), queries)
        shared = localizer(method, 2)
        alone = [shared.localize(*query) for query in queries]
        wrong = _wrong(lambda i, shared=shared: shared.localize(*queries[i]), alone, options.calls)
        rows.append(row | {"calls": SHARERS * options.calls, "wrong": wrong})
    table = Table(title=f"{os.cpu_count()} cores: one localizer, 2 threads against 1", title_justify="left")
    for heading in ("map", "method", "wrong", "1 net thread", "busy cores", "2 net threads", "busy cores"):
        table.add_column(heading, justify="left" if heading in ("map", "method") else "right")
    for row in rows:
        cells = [row["map"], row["method"], f"{row['wrong']} of {row['calls']}"]
        for threads in (1, 2):
            r = row[f"network_threads_{threads}"]
            cells += [f"{r['ratio']:.2f}x", " ".join(f"{cores:.2f}" for cores in r["busy_cores"])]
        table.add_row(*cells)
    Console().print(table)
    results = RESULTS / "threads.json"
    before = json.loads(results.read_text()) if results.exists() else []
    known = {(row["map"], row["method"]): row for row in [*before, *rows]}
    results.write_text(json.dumps(list(known.values()), indent=1) + "\n")


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
