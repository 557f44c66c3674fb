"""Do the random trees find the nearest landmark, and at how many landmarks do they look for it?

    python benchmarks/trees.py [--weights runs/x/weights.npz]

One map of more than 100,000 landmarks: the SfM tracks of all training scenes, and tracks through homographies of
photographs. One observation of each landmark with three or more is kept out of the map; some of these are the queries.
Recall: the nearest landmark by exhaustive search over all other observations is in the prior leaves, whether it is the
right one or not. Descriptors are the int8 network's. Queries on scenes that it was trained on are reported apart from
those on scenes and photographs that it has not seen; photographs that it was trained on give landmarks, no queries.

Prints a table, writes benchmarks/results/trees.json and docs/trees.png. Patches are kept in .cache.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import CACHE, DATA, RESULTS

from hfnet_edge.geometry import Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.map.random_trees import COUNT, Order, RandomTrees
from hfnet_edge.methods.matching import nearest_two
from hfnet_edge.networks.patches import PatchModel
from hfnet_edge.shell.console import progress
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.export import export_crbnet
from hfnet_export.networks.weights import BUNDLED_CRBNET
from hfnet_export.tflite.calibration import image_files
from hfnet_export.training.crbnet_runs import EVERY
from hfnet_export.training.patch_tracks import PatchTracks, of_photographs, of_scene
from hfnet_maps.content import DescribedMap, MapNetworks
from hfnet_maps.pack.writer import Sections, lay_out, size_of, to_map, trees_of

HELD_OUT, TRAINED = ("sceaux", "cyprus"), ("fox", "lund_door", "monstree", "statue_liberty")
SOME = 240  # photographs that it was trained on
HELD_PHOTOGRAPHS, SOME_PHOTOGRAPHS = "held_photographs", f"{SOME}_photographs"
GROUPS = {
    "SfM, scenes not trained on": HELD_OUT,
    "SfM, scenes trained on": TRAINED,
    "homographies, photographs not trained on": (HELD_PHOTOGRAPHS,),
}
BUDGETS = (10, 20, 50, 100, 200, 400)  # prior leaves
QUERIES = 6000  # of a group, at most
BLOCK = 500  # queries at a time
TIMED = 1000  # queries
NAMES = {Order.PROBABILITY: "probability model (RT_AP)", Order.ABSOLUTE: "absolute value (RT)"}
COLORS = {Order.PROBABILITY: "#1f6f50", Order.ABSOLUTE: "#d9822b"}


@dataclass(frozen=True)
class Observations:
    """What landmarks look like. O observations of L landmarks in S sets.

    Attributes:
        descriptors: (O, D) int8. landmarks: (O,) int64, not falling.
        sets: names of the sets. of_set: (L,) int64.
    """

    descriptors: np.ndarray
    landmarks: np.ndarray
    sets: list[str]
    of_set: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=BUNDLED_CRBNET, help="of CRBNet; default: the bundled ones")
    parser.add_argument("--output", type=Path, default=RESULTS / "trees.json")
    parser.add_argument("--picture", type=Path, default=Path(__file__).parents[1] / "docs" / "trees.png")
    options = parser.parse_args()
    console = Console(width=150)
    tracks = patches()  # first, in processes of their own: those do not start beside TensorFlow's threads
    with tempfile.TemporaryDirectory() as folder:
        model = PatchModel(export_crbnet(options.weights, Path(folder) / "crbnet.tflite").file)
    everything = described(model, tracks)
    held, kept = hold_out(everything)
    started = time.process_time()
    m, sections, tree_bytes = grown(model, everything, kept)
    seconds = time.process_time() - started
    trees = m.trees
    landmarks = m.landmark_count
    result: dict = {
        "weights": model.description.weights_hash,
        "landmarks": landmarks,
        "observations": int(kept.sum()),
        "by_set": dict(zip(everything.sets, np.bincount(everything.of_set).tolist(), strict=True)),
        "leaves": len(trees.offsets) - 1,
        "landmarks_per_leaf": round(len(trees.entries) / (len(trees.offsets) - 1), 1),
        "tree_bytes_per_landmark": round(tree_bytes / landmarks, 1),
        "map_bytes_per_landmark": round(size_of(sections) / landmarks, 1),
        "growing_s": round(seconds, 1),
        "ms_per_1000_queries": timed(trees, everything.descriptors[held]),
        "groups": {},
    }
    rng = np.random.default_rng(1)
    for group, names in GROUPS.items():
        of_group = held[
            np.isin(everything.of_set[everything.landmarks[held]], [everything.sets.index(n) for n in names])
        ]
        queries = np.sort(rng.permutation(of_group)[:QUERIES])
        result["groups"][group] = measured(trees, everything, kept, queries)
    console.print(table_of(result))
    draw(result, options.picture)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(
        f"{landmarks} landmarks, {result['tree_bytes_per_landmark']} bytes of trees each; wrote {options.output}"
    )


def patches() -> dict[str, PatchTracks]:
    """Tracks by name of their set, cut now or before."""
    photographs = image_files(DATA / "train")
    held = photographs[EVERY - 1 :: EVERY]
    others = [path for path in photographs if path not in set(held)][:SOME]
    processes = os.cpu_count() or 1
    with progress() as report:
        sets: dict[str, Callable[[], PatchTracks]] = {
            name: lambda name=name: of_scene(DATA / "train_scenes" / name, report)  # type: ignore[misc]
            for name in (*HELD_OUT, *TRAINED)
        }
        sets[HELD_PHOTOGRAPHS] = lambda: of_photographs(held, 0, processes, report)
        sets[SOME_PHOTOGRAPHS] = lambda: of_photographs(others, 0, processes, report)
        for name, cut in sets.items():
            file = CACHE / "patches" / f"{name}.npz"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                cut().save(file)
    return {name: PatchTracks.load(CACHE / "patches" / f"{name}.npz") for name in sets}


def described(model: PatchModel, sets: dict[str, PatchTracks]) -> Observations:
    """The network's descriptors of all patches."""
    descriptors = []
    with progress() as report:
        total = sum(len(tracks.patches) for tracks in sets.values())
        for name, tracks in sets.items():
            for start in range(0, len(tracks.patches), 4096):
                descriptors.append(model(tracks.patches[start : start + 4096]))
                report("describing", sum(map(len, descriptors)), total, note=name)
    lengths = np.concatenate([np.diff(tracks.start) for tracks in sets.values()])
    of_set = np.repeat(np.arange(len(sets)), [len(tracks) for tracks in sets.values()])
    return Observations(np.concatenate(descriptors), np.repeat(np.arange(len(lengths)), lengths), list(sets), of_set)


def hold_out(o: Observations) -> tuple[np.ndarray, np.ndarray]:
    """One observation, at random, of each landmark with three or more: (H,) rows; and (O,) bool, what is left."""
    count = np.bincount(o.landmarks)
    often = np.flatnonzero(count >= 3)
    held = (np.cumsum(count) - count)[often] + np.random.default_rng(0).integers(count[often])
    kept = np.ones(len(o.landmarks), bool)
    kept[held] = False
    return held, kept


def grown(model: PatchModel, o: Observations, kept: np.ndarray) -> tuple[LocalizationMap, Sections, int]:
    """The map of some observations, its sections, and how many bytes of them are trees. Positions and images are none
    that mean anything."""
    landmarks, descriptors = o.landmarks[kept], o.descriptors[kept]
    images = np.arange(len(landmarks)) - np.searchsorted(landmarks, landmarks)  # a track's observations in order
    names = tuple(f"{i}.jpg" for i in range(images.max() + 1))
    d = model.description
    source = DescribedMap(
        MapNetworks(d.architecture, d.weights_hash, d.precision, d.local_dim, 1, d.weights_hash),
        names,
        (Pose(np.array([1.0, 0, 0, 0]), np.zeros(3)),) * len(names),
        np.ones((len(names), 1), np.int8),
        np.zeros((len(o.of_set), 3)),
        landmarks,
        images,
        landmarks,
        descriptors,
    )
    with progress() as report:
        trees = trees_of(source, report)
    sections = {**lay_out(source), **trees}
    return to_map(sections), sections, sum(memoryview(part).nbytes for part in trees.values())


def measured(trees: RandomTrees, o: Observations, kept: np.ndarray, queries: np.ndarray) -> dict:
    """Recall and share of the landmarks that are visited, in percent, by order and number of leaves."""
    landmarks, q = o.landmarks[kept], o.descriptors[queries]
    nearest = np.concatenate(
        [landmarks[nearest_two(q[i : i + BLOCK], o.descriptors[kept])[0]] for i in range(0, len(q), BLOCK)]
    )
    result: dict = {
        "queries": len(q),
        "exhaustive_search_is_right": percent((nearest == o.landmarks[queries]).mean()),
    }
    for order in Order:
        found, visited = np.zeros(len(BUDGETS)), np.zeros(len(BUDGETS))
        for i in range(0, len(q), BLOCK):
            leaves = trees.prior_leaves(q[i : i + BLOCK], max(BUDGETS), order)
            for k, budget in enumerate(BUDGETS):
                rows, candidates = trees.landmarks(leaves[:, :budget])
                found[k] += (candidates == nearest[i : i + BLOCK][rows]).sum()
                visited[k] += len(rows)
        result[order.value] = {
            str(budget): {
                "recall": percent(found[k] / len(q)),
                "visited": percent(visited[k] / len(q) / len(o.of_set)),
            }
            for k, budget in enumerate(BUDGETS)
        }
    return result


def timed(trees: RandomTrees, queries: np.ndarray) -> dict[str, float]:
    """Milliseconds of one processor, the least of five runs."""
    some = queries[np.random.default_rng(2).permutation(len(queries))[:TIMED]]
    least = {"prior leaves": np.inf, "their landmarks": np.inf}
    for _ in range(5):
        start = time.process_time()
        leaves = trees.prior_leaves(some, COUNT)
        middle = time.process_time()
        trees.landmarks(leaves)
        for name, ms in zip(least, (1e3 * (middle - start), 1e3 * (time.process_time() - middle)), strict=True):
            least[name] = min(least[name], round(ms, 1))
    return least


def percent(share: float) -> float:
    return round(100 * float(share), 2)


def table_of(result: dict) -> Table:
    table = Table(title=f"recall of the nearest landmark, % (of {result['landmarks']} landmarks visited, %)")
    table.add_column("queries")
    table.add_column("order")
    for budget in BUDGETS:
        table.add_column(f"{budget} leaves", justify="right")
    for group, figures in result["groups"].items():
        for order in Order:
            cells = [f"{f['recall']:.1f} ({f['visited']:.2f})" for f in figures[order.value].values()]
            table.add_row(f"{group} ({figures['queries']})", NAMES[order], *cells)
    return table


def draw(result: dict, path: Path) -> None:
    """Recall over the share that is visited, a panel for each group."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(GROUPS), 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    lowest = min(f["recall"] for g in result["groups"].values() for order in Order for f in g[order.value].values())
    for axes, (group, figures) in zip(
        figure.subplots(1, len(GROUPS), sharey=True), result["groups"].items(), strict=True
    ):
        for order in Order:
            points = figures[order.value]
            visited, recall = ([f[name] for f in points.values()] for name in ("visited", "recall"))
            axes.plot(visited, recall, "o-", color=COLORS[order], markersize=4, label=NAMES[order])
            for budget, x, y in zip(points, visited, recall, strict=True):
                above = order is Order.PROBABILITY
                axes.annotate(budget, (x, y), (0, 6 if above else -13), textcoords="offset points", ha="center", size=7)
        axes.axhline(90, color="#8a8f98", linestyle="--", linewidth=0.8)
        axes.axvline(3, color="#8a8f98", linestyle="--", linewidth=0.8)
        axes.set(xscale="log", xlabel="landmarks visited [%]", ylim=(lowest - 3, 101))
        axes.set_title(f"{group}\n{figures['queries']} queries", fontsize=9, loc="left")
        axes.set_xticks([0.1, 0.3, 1, 3], ["0.1", "0.3", "1", "3"])
        axes.grid(color="#e4e4e0", linewidth=0.6)
    first = figure.axes[0]
    first.set_ylabel("the nearest landmark is among them [%]")
    first.legend(frameon=False, fontsize=8, loc="lower right", title="numbers: prior leaves", title_fontsize=7)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    main()
