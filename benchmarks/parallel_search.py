"""How long the parallel method seeks matches, stage by stage, in one map or several, and whether they stay the same.

    python benchmarks/parallel_search.py --before ../older-checkout [--map room.hfmap --images DIR --queries LIST]...
        --model hfnet_int8.tflite --model crbnet_int8.tflite

`--before` names another checkout: its `sdk/` runs each query too, one after the other with this one, in a process of
its own, and has to find the same leaves and the same matches. Ratios are of sums over all queries; processor time
besides wall time, because a shared machine changes its speed. "search" is all of it, "own" the part among each
keypoint's own candidates. Memory is the most that numpy holds during a search. The maps are built by `hfnet-map build
--method parallel`. Also: how near queries come to the limits of maps/SPEC.md, section 10.3. Prints a table, writes
benchmarks/results/parallel_search.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hfnet_edge.features import Features, extract
from hfnet_edge.image.photo import load_photo
from hfnet_edge.map import random_trees
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods import parallel_search
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.lists import read_queries

STAGES, KINDS = ("trees", "own", "search"), ("wall_ms", "cpu_ms")
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("map", "images", "queries"):
        parser.add_argument(f"--{name}", type=Path, action="append", required=True)
    parser.add_argument("--model", type=Path, action="append", required=True, help="twice: HF-Net, the patch network")
    parser.add_argument("--before", type=Path, help="another checkout of this repository")
    parser.add_argument("--every", type=int, default=6, help="of the queries one in so many")
    parser.add_argument("--output", type=Path, default=RESULTS / "parallel_search.json")
    options = parser.parse_args()
    networks = Networks(*options.model)
    checkouts = {"before": options.before} if options.before else {}
    checkouts["after"] = Path(__file__).parents[1]
    result = {}
    for map_, images, queries in zip(options.map, options.images, options.queries, strict=True):
        sides = {name: Side(checkout, map_) for name, checkout in checkouts.items()}
        rows: dict[str, list[dict]] = {name: [] for name in sides}
        for i, (name, camera) in enumerate(read_queries(queries)[:: options.every]):
            photo = load_photo(images / name, networks.image.description.input_size, camera)
            features = vars(extract(networks, photo))
            for side in list(sides) * (2 if i == 0 else 1):  # the first time reads the map from the disk
                rows[side] = [*rows[side][:i], sides[side].ask(features)]
        for side in sides.values():
            side.close()
        result[map_.stem] = summary(rows)
        show(map_.stem, result[map_.stem])
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {options.output}")


class Side:
    """A checkout that searches one map, in a process of its own."""

    def __init__(self, checkout: Path, map_: Path):
        environment = dict(os.environ, PYTHONPATH=str(checkout.resolve() / "sdk"))
        command = [sys.executable, __file__, "--serve", str(map_)]
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, features: dict) -> dict:
        """The figures of a query, see `searched`."""
        assert self._process.stdin and self._process.stdout
        pickle.dump(features, self._process.stdin)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def close(self) -> None:
        self._process.communicate()


def serve(map_: str) -> None:
    """What `Side` talks to."""
    m = LocalizationMap.open(map_)
    trees = m.trees
    with suppress(EOFError):
        while True:
            pickle.dump(searched(m, trees, Features(**pickle.load(sys.stdin.buffer))), sys.stdout.buffer)
            sys.stdout.flush()


def searched(m: LocalizationMap, trees: random_trees.RandomTrees, query: Features) -> dict:
    """Seconds of wall and processor time by stage, bytes, what was found, and how much of the limits it took."""
    figures: dict = {"keypoints": len(query.keypoints)}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter(), time.process_time()
        found = work()
        figures[stage] = time.perf_counter() - start[0], time.process_time() - start[1]
        return found

    frames = retrieve(m.global_query(query.global_descriptor), m.global_descriptors, 20)
    shared, asked = parallel_search.seen_by(m, frames), m.codec.query(query.descriptors)
    leaves = timed("trees", lambda: trees.prior_leaves(query.descriptors))
    matches = timed("search", lambda: parallel_search.search(query, m, shared, trees.blocks(leaves)))
    timed("own", lambda: parallel_search._nearest_own(asked, m, shared, trees.blocks(leaves)))
    tracemalloc.start()
    parallel_search.search(query, m, shared, trees.blocks(leaves))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    parts = leaves, matches.keypoints, matches.landmarks
    figures |= {
        "same": hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest(),
        "matches": len(matches), "shared": len(shared), "held": int(trees.held(leaves).sum()), "leaves": leaves.size,
        "landmarks": m.landmark_count, "descriptors": m.description.descriptorCount, "peak": peak,
    }  # fmt: skip
    if hasattr(random_trees, "WALK"):
        costs = trees._edge_costs(random_trees.Order.PROBABILITY)[query.descriptors.view(np.uint8)]
        starts = range(0, len(leaves), random_trees.BLOCK)
        walks = (trees._cheapest(costs[i : i + random_trees.BLOCK], leaves.shape[1], 1 << 40, True) for i in starts)
        figures["walked"] = sum(taken for _, taken in walks)
    return figures


def summary(rows: dict[str, list[dict]]) -> dict:
    """Means over queries, and how many the sides agree on."""
    last = rows["after"]
    found: dict = {key: last[0][key] for key in ("landmarks", "descriptors")} | {
        "queries": len(last),
        "keypoints": mean(last, "keypoints"),
        "shared_landmarks": mean(last, "shared"),
        "held_landmarks": mean(last, "held"),
        "nodes_a_leaf": max(r["walked"] / r["leaves"] for r in last),
        "landmarks_a_leaf": max(r["held"] / r["leaves"] for r in last),
    }
    for side, answers in rows.items():
        found[side] = {
            **{stage: {"wall_ms": mean(answers, stage, 0), "cpu_ms": mean(answers, stage, 1)} for stage in STAGES},
            "peak_mb": round(max(r["peak"] for r in answers) / 1e6, 1),
        }
    if "before" in rows:
        found["identical"] = sum(a["same"] == b["same"] for a, b in zip(*rows.values(), strict=True))
        found["ratio"] = {
            stage: {kind: round(found["before"][stage][kind] / found["after"][stage][kind], 2) for kind in KINDS}
            for stage in STAGES
        }
    return found


def mean(rows: list[dict], key: str, part: int | None = None) -> float:
    """Of a figure; ``part`` 0 or 1: of its wall or processor time, in milliseconds."""
    values = [row[key] if part is None else 1e3 * row[key][part] for row in rows]
    return round(sum(values) / len(values), 1)


def show(name: str, found: dict) -> None:
    print(
        f"{name}: {found['queries']} queries of {found['keypoints']:.0f} keypoints, {found['landmarks']} landmarks, "
        f"{found['descriptors']} descriptors; at most {found['nodes_a_leaf']:.1f} nodes and "
        f"{found['landmarks_a_leaf']:.1f} landmarks a prior leaf"
    )
    sides = [side for side in ("before", "after") if side in found]
    for stage in STAGES:
        for kind in KINDS:
            values = "  ".join(f"{side} {found[side][stage][kind]:8.0f}" for side in sides)
            ratio = f"  {found['ratio'][stage][kind]:.2f}x" if "ratio" in found else ""
            print(f"  {stage:7} {kind:8} {values}{ratio}")
    print("  peak MB ", "  ".join(f"{side} {found[side]['peak_mb']:.0f}" for side in sides))
    if "identical" in found:
        print(f"  leaves and matches identical: {found['identical']} of {found['queries']}")


if __name__ == "__main__":
    serve(*sys.argv[2:]) if sys.argv[1:2] == ["--serve"] else main()
