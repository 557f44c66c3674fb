"""Which patches show the same thing? CRBNet, real-valued and binary, against TFeat, RootSIFT, ORB and BRISK.

    python benchmarks/patches.py [--weights runs/x/weights.npz] [--ablation runs/n/weights.npz] [--parts error speed]

The error is FPR95: of pairs that do not match, the share that is as close as the 95 % closest that do. Positives are
all pairs of all tracks of the scenes that training held out, and of its held-out photographs under homographies,
reported apart; negatives, as many, are random pairs of the same scene, or of the photographs. Every method describes
the same pairs. Speed wants a quiet machine. Prints tables, writes benchmarks/results/patches.json, where parts that
were not asked for keep their figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from patch_baselines import SETTINGS, blocks, brisk, orb, rootsift, tfeat
from rich.console import Console
from rich.table import Table
from scenes import CACHE, DATA, RESULTS

from hfnet_edge.patch_model import PatchModel
from hfnet_export.calibration import image_files
from hfnet_export.crbnet_export import export_crbnet
from hfnet_export.crbnet_runs import EVERY
from hfnet_export.patch_tracks import PatchTracks, of_photographs, of_scene
from hfnet_export.weights import BUNDLED_CRBNET, crbnet_from_weights, load_crbnet_weights, weights_hash

RECALL = 0.95
PATCHES, ROUNDS = 512, 30  # of the timing
PRECISIONS = {"float": "none", "int8": "int8"}

Pairs = tuple[np.ndarray, np.ndarray]
"""Two patches of each pair, (P,) int64 each."""


@dataclass(frozen=True)
class Trial:
    """Patches (N, 32, 32) uint8, and pairs of them that match and that do not."""

    patches: np.ndarray
    positives: Pairs
    negatives: Pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=BUNDLED_CRBNET, help="of CRBNet; default: the bundled ones")
    parser.add_argument("--ablation", type=Path, help="of CRBNet(N), trained without the weighted Hamming term")
    parser.add_argument("--parts", nargs="+", default=["error", "speed"], choices=["error", "speed"])
    parser.add_argument("--output", type=Path, default=RESULTS / "patches.json")
    options = parser.parse_args()
    console = Console(width=120)
    _, arrays, card = load_crbnet_weights(options.weights)
    before = json.loads(options.output.read_text()) if options.output.exists() else {}
    result = {**before, "weights": weights_hash(arrays)}
    with tempfile.TemporaryDirectory() as folder:
        models = {
            name: export_crbnet(options.weights, Path(folder) / f"{precision}.tflite", precision).file
            for name, precision in PRECISIONS.items()
        }
        if "error" in options.parts:
            if options.ablation is not None:
                models["N"] = export_crbnet(options.ablation, Path(folder) / "n.tflite", "none").file
            for name, trial in trials(card["held_out_scenes"]).items():
                result[name] = before.get(name, {}) | error(name, trial, models, console)
        if "speed" in options.parts:
            result["speed"] = {f"{n} threads": speed(options.weights, models, n, console) for n in (1, 2)}
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


def trials(scenes: Sequence[str]) -> dict[str, Trial]:
    """All pairs of the held-out scenes' tracks, and of the held-out photographs."""
    photographs = image_files(DATA / "train")[EVERY - 1 :: EVERY]
    tracks = [_cached(scene, lambda scene=scene: of_scene(DATA / "train_scenes" / scene)) for scene in scenes]
    views = _cached("held_photographs", lambda: of_photographs(photographs, processes=2))
    return {"tracks": trial(tracks), "homographies": trial([views])}


def _cached(name: str, make: Callable[[], PatchTracks]) -> PatchTracks:
    file = CACHE / "patches" / f"{name}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        make().save(file)
    return PatchTracks.load(file)


def trial(sets: Sequence[PatchTracks]) -> Trial:
    """Each set gives all its pairs, and as many of two different tracks."""
    rng = np.random.default_rng(0)
    offset, positives, negatives = 0, [], []
    for tracks in sets:
        count = np.diff(tracks.start)
        same = [np.stack(np.triu_indices(n, 1)) + a for n, (a, _) in zip(count, pairwise(tracks.start), strict=True)]
        positives.append(offset + np.concatenate(same, axis=1))
        track = np.repeat(np.arange(len(tracks)), count)
        drawn = rng.integers(len(track), size=(2, 2 * positives[-1].shape[1]))
        other = drawn[:, track[drawn[0]] != track[drawn[1]]]
        negatives.append(offset + other[:, : positives[-1].shape[1]])
        offset += len(tracks.patches)
    patches = np.concatenate([tracks.patches for tracks in sets])
    return Trial(patches, tuple(np.concatenate(positives, axis=1)), tuple(np.concatenate(negatives, axis=1)))


def methods(patches: np.ndarray, models: Mapping[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and descriptors (N, K): real numbers, or bits as bool."""
    for name, path in models.items():
        model = PatchModel(path)
        label = "CRBNet(N), float" if name == "N" else f"CRBNet, {name}"
        descriptors = model(patches) if name == "int8" else model.raw(patches)
        yield label, descriptors
        yield f"{label}, bits", descriptors >= 0
    yield "TFeat", tfeat(DATA / "teachers" / "tfeat_liberty.npz")(patches)
    yield "RootSIFT", rootsift(patches, *SETTINGS["RootSIFT"])
    yield "ORB, bits", orb(patches, *SETTINGS["ORB"])
    yield "BRISK, bits", brisk(patches, *SETTINGS["BRISK"])


def distances(descriptors: np.ndarray, pairs: Pairs) -> np.ndarray:
    """(P,) squared L2 or Hamming distances of pairs."""
    parts = []
    for a, b in zip(*(blocks(side, 8192) for side in pairs), strict=True):
        x, y = descriptors[a], descriptors[b]
        if descriptors.dtype == bool:
            parts.append(np.count_nonzero(x != y, axis=1))
        else:
            x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x.astype(np.float64), y.astype(np.float64)))
            parts.append(np.square(x - y).sum(axis=1))
    return np.concatenate(parts)


def fpr95(descriptors: np.ndarray, t: Trial) -> float:
    """Share of the negatives that are no further apart than `RECALL` of the positives, %."""
    positives = np.sort(distances(descriptors, t.positives))
    threshold = positives[int(np.ceil(RECALL * len(positives))) - 1]
    return 100 * float(np.mean(distances(descriptors, t.negatives) <= threshold))


def error(name: str, t: Trial, models: Mapping[str, Path], console: Console) -> dict:
    """FPR95 of every method, and how int8 agrees with float."""
    rows, bits, real = {}, {}, {}
    for method, descriptors in methods(t.patches, models):
        rows[method] = round(fpr95(descriptors, t), 3)
        if method in ("CRBNet, float", "CRBNet, int8"):
            bits[method], real[method] = descriptors >= 0, descriptors.astype(np.float32)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in real.values())
    flipped = 100 * float(np.mean(bits["CRBNet, float"] != bits["CRBNet, int8"]))
    cosine = float(np.einsum("nd,nd->n", a, b).mean())
    table = Table(title=f"{name}: FPR95, %, {len(t.positives[0])} pairs that match", title_justify="left")
    table.add_column("descriptor")
    for column in ("real-valued", "bits"):
        table.add_column(column, justify="right")
    for method in dict.fromkeys(method.removesuffix(", bits") for method in rows):
        values = (rows.get(m) for m in (method, f"{method}, bits"))
        table.add_row(method, *("" if value is None else f"{value:.2f}" for value in values))
    console.print(table)
    console.print(f"int8 against float: {flipped:.2f} % of the bits differ, cosine {cosine:.5f}")
    return {
        "pairs": len(t.positives[0]),
        "patches": len(t.patches),
        "fpr95": rows,
        "flipped_bits": round(flipped, 3),
        "cosine": round(cosine, 5),
    }


def speed(weights: Path, models: Mapping[str, Path], threads: int, console: Console) -> dict:
    """Patches a second, all three in turn, each in the blocks that suit it."""
    import onnxruntime
    from onnx_crbnet import to_onnx

    patches = np.random.default_rng(0).integers(0, 256, (PATCHES, 32, 32)).astype(np.uint8)
    litert = {name: PatchModel(models[name], threads) for name in PRECISIONS}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it slows down what runs next
    session = onnxruntime.InferenceSession(
        to_onnx(crbnet_from_weights(weights)[0]), options, providers=["CPUExecutionProvider"]
    )
    scaled = litert["float"].description.scale(patches)

    def onnx_in_blocks(size: int) -> Callable[[], np.ndarray]:
        return lambda: np.concatenate([session.run(None, {"image": part})[0] for part in blocks(scaled, size)])

    runs: dict[str, Callable[[], np.ndarray]] = {
        "LiteRT int8": lambda: litert["int8"].raw(patches),
        "LiteRT float": lambda: litert["float"].raw(patches),
        **{f"ONNX Runtime float, blocks of {size}": onnx_in_blocks(size) for size in (32, 128, PATCHES)},
    }
    outputs = {name: run() for name, run in runs.items()}
    for name, output in outputs.items():
        difference = float(np.abs(output - outputs["LiteRT float"]).max())
        assert name == "LiteRT int8" or difference < 1e-4, f"{name} is another network: {difference}"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    table = Table(title=f"patches a second, {threads} threads", title_justify="left")
    for column in ("", "median", "int8 is faster by"):
        table.add_column(column, justify="right")
    rows = {}
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds["LiteRT int8"], strict=True))
        rows[name] = {"patches_per_second": round(PATCHES / statistics.median(values)), "int8_faster": round(ratio, 2)}
        table.add_row(name, str(rows[name]["patches_per_second"]), f"{ratio:.2f}x")
    console.print(table)
    return rows


if __name__ == "__main__":
    main()
