"""What a larger photo is worth: median errors against the time of network and decoding, by the network's input size.

    python benchmarks/input_size.py [--weights runs/x/weights.npz] [--quick]

The int8 network at each of `SIZES` maps and localizes castle and herzjesu, five folds pooled, as `localization.py`
does. Sides are multiples of 32, so 352x480 stands for 360x480 and 704x960 for 720x960: these photos of 3:2 fill the
width, and are 0.75, 1, 1.2 and 1.5 times as large. They have 1,024 pixels of width, so there is no more to see. There
are 2,000 keypoints at every size, and every threshold in pixels is in those of the network. Times are of two threads
and of one run, sizes in turn: their ratios hold on a busy machine.

Prints a table, writes benchmarks/results/input_size.json and docs/input_size.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

from localization import accuracy_of, build
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import RESULTS, Scene, exported, hfnet, load_scenes

from hfnet_edge.features import decode
from hfnet_edge.image.photo import load_photo
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.shell.writing import atomic_write
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.pack.writer import full_sections, to_map

SIZES = ((352, 480), (480, 640), (576, 768), (704, 960))  # height, width
USUAL = "480x640"  # that times are compared with
SCENES = ("castle", "herzjesu")
COLORS = {"castle": "#1f6f50", "herzjesu": "#d9822b"}
ROUNDS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="of HF-Net; default: the bundled ones")
    parser.add_argument("--quick", action="store_true", help="one fold of castle; writes nothing")
    options = parser.parse_args()
    console = Console(width=120)
    scenes = [scene for scene in load_scenes() if scene.name in SCENES]
    if options.quick:
        scenes = [one_fold(scenes[0])]
    models = {}
    for size in track(SIZES, "export", console=console, transient=True):
        models[f"{size[0]}x{size[1]}"] = exported(options.weights, "int8", size)
    result = {
        "weights": models[USUAL].description.weights_hash,
        "times": times(models, scenes[0]),
        "accuracy": {size: accuracy(model, scenes, size, console) for size, model in models.items()},
    }
    console.print(table_of(result))
    if not options.quick:
        (RESULTS / "input_size.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, Path(__file__).parents[1] / "docs" / "input_size.png")


def one_fold(scene: Scene) -> Scene:
    """The scene's first split alone, with its images."""
    split = scene.splits[0]
    names = [*split.map_names, *(name for name, _ in split.queries)]
    return replace(scene, cameras={name: scene.cameras[name] for name in names}, splits=[split])


def times(models: dict[str, Model], scene: Scene) -> dict[str, dict[str, float]]:
    """Median milliseconds of the network and of decoding, and of both the median ratio to `USUAL`, round by round."""
    image, camera = next(iter(scene.cameras.items()))
    photos = {
        size: load_photo(scene.images / image, model.description.input_size, camera) for size, model in models.items()
    }
    network: dict[str, list[float]] = {size: [] for size in models}
    decoding: dict[str, list[float]] = {size: [] for size in models}
    for _ in range(ROUNDS):
        for size, model in models.items():
            start = time.perf_counter()
            raw = model(photos[size].pixels)
            middle = time.perf_counter()
            decode(raw, photos[size], model.description.nms_radius)
            network[size].append(1e3 * (middle - start))
            decoding[size].append(1e3 * (time.perf_counter() - middle))
    both = {size: [a + b for a, b in zip(network[size], decoding[size], strict=True)] for size in models}
    return {
        size: {
            "network_ms": round(statistics.median(network[size]), 2),
            "decode_ms": round(statistics.median(decoding[size]), 2),
            "ratio": round(statistics.median(a / b for a, b in zip(both[size], both[USUAL], strict=True)), 3),
        }
        for size in models
    }


def accuracy(model: Model, scenes: list[Scene], size: str, console: Console) -> dict[str, dict]:
    """By scene, what `localization.py` says of it."""
    extract, description = hfnet(model), model.description
    features = {
        (scene.name, image): extract(scene.images / image, camera)
        for scene in scenes
        for image, camera in track(scene.cameras.items(), f"{size}: {scene.name}", console=console, transient=True)
    }
    maps = {
        split.name: to_map(full_sections(build(scene, split, features, description)[0]))
        for scene in scenes
        for split in scene.splits
    }
    return {scene.name: accuracy_of(scene, maps, features) for scene in scenes}


def table_of(result: dict) -> Table:
    scenes = list(result["accuracy"][USUAL])
    table = Table(title="by input size; medians over all queries, two threads", title_justify="left")
    columns = [f"{scene}: {what}" for scene in scenes for what in ("median m", "median °", "0.05 m, 2°")]
    for column in ("size", "network ms", "decode ms", f"time / {USUAL}", *columns):
        table.add_column(column, justify="right")
    for size, spent in result["times"].items():
        cells = []
        for figures in result["accuracy"][size].values():
            cells += [f"{figures['median_m']:.4f}", f"{figures['median_deg']:.3f}", f"{figures['recall'][0]:.0%}"]
        table.add_row(size, f"{spent['network_ms']:.1f}", f"{spent['decode_ms']:.1f}", f"{spent['ratio']:.2f}", *cells)
    return table


def draw(result: dict, path: Path) -> None:
    """Median error over time, a line for each scene."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    spent = [figures["ratio"] for figures in result["times"].values()]
    for scene in result["accuracy"][USUAL]:
        errors = [1e3 * of_size[scene]["median_m"] for of_size in result["accuracy"].values()]
        axes.plot(spent, errors, "o-", color=COLORS[scene], markersize=4, label=scene)
        for size, x, y in zip(result["times"], spent, errors, strict=True):
            axes.annotate(size, (x, y), (0, 6), textcoords="offset points", ha="center", size=7)
    axes.set(xlabel=f"time of network and decoding / that at {USUAL}", ylabel="median error [mm]")
    axes.margins(0.1)
    axes.set_ylim(bottom=0)
    axes.grid(color="#e4e4e0", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


if __name__ == "__main__":
    main()
