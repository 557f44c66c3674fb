"""Milliseconds on two threads: the network at int8 against float in LiteRT and ONNX Runtime, a whole query by stage;
and whether repeating a query or changing the number of threads changes anything.

    python benchmarks/speed.py

Everything is timed in one run, in turn, so the ratios hold where the machine's speed does not. Writes
benchmarks/results/speed.json.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx_hfnet import to_onnx
from rich.console import Console
from rich.table import Table
from scenes import RESULTS, load_scenes

from hfnet_edge.features import extract
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import Localizer
from hfnet_edge.networks.hfnet import Model
from hfnet_export.export import export_hfnet
from hfnet_export.networks.weights import BUNDLED, hfnet_from_weights
from hfnet_maps.build.builder import build_map
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.writer import write_map

ROUNDS = 40
SIZE = (480, 640)
BUDGET = 250_000  # bytes of the castle's map


def main() -> None:
    console = Console(width=120)
    castle = load_scenes()[0]
    split = castle.splits[2]
    with tempfile.TemporaryDirectory() as folder:
        paths = {p: export_hfnet(output=Path(folder) / f"{p}.tflite", quantize=p).file for p in ("int8", "none")}
        image = castle.images / split.queries[0][0]
        result = {
            "extraction": {f"{n} threads": extraction(paths, image, n, console) for n in (1, 2)},
            "query": whole_query(paths["int8"], castle, split, Path(folder), console),
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "speed.json").write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {RESULTS / 'speed.json'}")


def extraction(paths: dict[str, Path], image: Path, threads: int, console: Console) -> dict:
    """The network alone, all three in turn."""
    import onnxruntime

    photo = load_photo(image, SIZE)
    models = {name: Model(path, threads) for name, path in paths.items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it slows down what runs next
    session = onnxruntime.InferenceSession(
        to_onnx(hfnet_from_weights(BUNDLED, SIZE)[0]), options, providers=["CPUExecutionProvider"]
    )
    pixels = photo.pixels[None, :, :, None].astype(np.float32) / 127.5 - 1
    runs = {
        "LiteRT int8": lambda: models["int8"](photo.pixels),
        "LiteRT float": lambda: models["none"](photo.pixels),
        "ONNX Runtime float": lambda: session.run(None, {"image": pixels}),
    }
    outputs = dict(zip([o.name for o in session.get_outputs()], runs["ONNX Runtime float"](), strict=True))
    difference = np.abs(outputs["keypoint_logits"][0] - runs["LiteRT float"]().keypoint_logits).max()
    assert difference < 1e-2, f"not the same network: {difference}"
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    table = Table(title=f"network, 480x640, {threads} threads", title_justify="left")
    for column in ("", "median ms", "p95 ms", "against int8"):
        table.add_column(column, justify="right")
    rows = {}
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, times["LiteRT int8"], strict=True))
        rows[name] = {
            "median_ms": round(statistics.median(values), 2),
            "p95_ms": round(float(np.percentile(values, 95)), 2),
            "median_ratio_to_int8": round(ratio, 2),
        }
        table.add_row(name, *(str(v) for v in rows[name].values()))
    console.print(table)
    return rows


def whole_query(path: Path, castle, split, folder: Path, console: Console) -> dict:
    """All queries of castle's default fold, by stage, and the determinism of the answers."""
    model = Model(path, threads=2)
    reference = castle.images.parent / "reference"
    source, _ = build_map(castle.images, reference, split.map_names, model)
    write_map(choose(source, BUDGET)[0], folder / "castle.hfmap")
    localizer = Localizer(folder / "castle.hfmap", model)
    results = [localizer.localize(castle.images / n, c) for _ in range(6) for n, c in split.queries]
    stages = list(results[0].milliseconds)
    table = Table(title=f"whole query, castle, {len(results)} runs, 2 threads", title_justify="left")
    table.add_column("stage")
    table.add_column("median ms", justify="right")
    rows = {s: round(statistics.median(r.milliseconds[s] for r in results), 2) for s in stages}
    rows["total"] = round(statistics.median(sum(r.milliseconds.values()) for r in results), 2)
    for stage, ms in rows.items():
        table.add_row(stage, f"{ms:.2f}")
    console.print(table)

    one_thread = Model(path, threads=1)
    single = Localizer(folder / "castle.hfmap", one_thread)
    differences = {"repeated": 0, "1 against 2 threads": 0}
    for n, c in split.queries:
        first, again, alone = (one.localize(castle.images / n, c) for one in (localizer, localizer, single))
        photo = load_photo(castle.images / n, SIZE, c)
        a, b = extract(model, photo), extract(one_thread, photo)
        differences["repeated"] += not _same(first, again)
        differences["1 against 2 threads"] += not (_same(first, alone) and np.array_equal(a.keypoints, b.keypoints))
    console.print(f"queries that changed: {differences} of {len(split.queries)}")
    return {"stages_ms": rows, "queries": len(split.queries), "changed": differences}


def _same(a, b) -> bool:
    return (
        np.array_equal(a.matches.keypoints, b.matches.keypoints)
        and np.array_equal(a.matches.landmarks, b.matches.landmarks)
        and np.array_equal(a.pose.quaternion, b.pose.quaternion)
        and np.array_equal(a.pose.translation, b.pose.translation)
    )


if __name__ == "__main__":
    main()
