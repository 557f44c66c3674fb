"""Which patches show the same thing? CRBNet, real-valued and binary, against TFeat, RootSIFT, ORB and BRISK.

    python benchmarks/patches.py [--weights runs/x/weights.npz] [--ablation runs/n/weights.npz] [--parts error speed]

The error is FPR95: of pairs that do not match, the share that is as close as the 95 % closest that do. Positives are
all pairs of all tracks of the scenes that training held out, and of its held-out photographs under homographies,
reported apart; negatives, as many, are random pairs of the same scene, or of the photographs. Every method describes
the same pairs. Intervals hold 95 % of `RESAMPLED` draws of as many tracks; a negative goes with its first patch's.
Speed wants a quiet machine. Prints tables, writes benchmarks/results/patches.json, where parts that were not asked for
keep their figures if these are of the same weights and pairs.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from patch_baselines import BLUR, SETTINGS, blocks, brisk, orb, rootsift, tfeat
from rich.console import Console
from rich.table import Table
from scenes import CACHE, DATA, RESULTS

from hfnet_edge.image import patches as patches_module
from hfnet_edge.networks.patches import PatchModel
from hfnet_export.export import export_crbnet
from hfnet_export.networks.weights import BUNDLED_CRBNET, crbnet_from_weights, load_crbnet_weights, weights_hash
from hfnet_export.tflite.calibration import image_files
from hfnet_export.training import patch_tracks, views
from hfnet_export.training.crbnet_runs import EVERY, files_of
from hfnet_export.training.patch_tracks import PatchTracks, of_photographs, of_scene

RECALL = 0.95
RESAMPLED = 1000
PATCHES, ROUNDS = 512, 30  # of the timing
PRECISIONS = {"float": "none", "int8": "int8"}

Pairs = tuple[np.ndarray, np.ndarray]
"""Two patches of each pair, (P,) int64 each."""


@dataclass(frozen=True)
class Trial:
    """Patches (N, 32, 32) uint8, the track of each (N,), and pairs of them that match and that do not."""

    patches: np.ndarray
    track: np.ndarray
    positives: Pairs
    negatives: Pairs

    @property
    def key(self) -> str:
        """Hash of the patches and pairs."""
        digest = hashlib.sha256()
        for array in (self.patches, *self.positives, *self.negatives):
            digest.update(np.ascontiguousarray(array))
        return digest.hexdigest()[:16]


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
    weights = weights_hash(arrays)
    if before.get("weights") != weights:
        before = {}
    result = {**before, "weights": weights}
    with tempfile.TemporaryDirectory() as folder:
        models = {
            name: export_crbnet(options.weights, Path(folder) / f"{precision}.tflite", precision).file
            for name, precision in PRECISIONS.items()
        }
        if "error" in options.parts:
            if options.ablation is not None:
                result["ablation"] = weights_hash(load_crbnet_weights(options.ablation)[1])
                models["N"] = export_crbnet(options.ablation, Path(folder) / "n.tflite", "none").file
            for name, trial in trials(card["held_out_scenes"]).items():
                result[name] = error(name, trial, models, before.get(name, {}), console)
        if "speed" in options.parts:
            result["speed"] = {f"{n} threads": speed(options.weights, models, n, console) for n in (1, 2)}
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


def trials(scenes: Sequence[str]) -> dict[str, Trial]:
    """All pairs of the held-out scenes' tracks, and of the held-out photographs."""
    photographs = image_files(DATA / "train")[EVERY - 1 :: EVERY]
    folders = [DATA / "train_scenes" / scene for scene in scenes]
    tracks = [_cached(folder.name, files_of(folder), partial(of_scene, folder)) for folder in folders]
    held = _cached("held_photographs", photographs, partial(of_photographs, photographs, processes=2))
    return {"tracks": trial(tracks), "homographies": trial([held])}


def _cached(name: str, inputs: Sequence[Path], make: Callable[[], PatchTracks]) -> PatchTracks:
    """What ``make`` returns, kept as long as the inputs' names and sizes and the code that cuts are the same."""
    about = [(file.name, file.stat().st_size) for file in inputs]
    code = [inspect.getsource(module) for module in (patch_tracks, patches_module, views)]
    key = hashlib.sha256(repr((about, code)).encode()).hexdigest()[:16]
    file = CACHE / "patches" / f"{name}-{key}.npz"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        make().save(file)
    return PatchTracks.load(file)


def trial(sets: Sequence[PatchTracks]) -> Trial:
    """Each set gives all its pairs, and as many of two different tracks."""
    rng = np.random.default_rng(0)
    offset, count_of_tracks, positives, negatives, track_of = 0, 0, [], [], []
    for tracks in sets:
        count = np.diff(tracks.start)
        same = [np.stack(np.triu_indices(n, 1)) + a for n, (a, _) in zip(count, pairwise(tracks.start), strict=True)]
        positives.append(offset + np.concatenate(same, axis=1))
        track = np.repeat(np.arange(len(tracks)), count)
        drawn = rng.integers(len(track), size=(2, 2 * positives[-1].shape[1]))
        other = drawn[:, track[drawn[0]] != track[drawn[1]]]
        negatives.append(offset + other[:, : positives[-1].shape[1]])
        track_of.append(count_of_tracks + track)
        offset += len(tracks.patches)
        count_of_tracks += len(tracks)
    patches = np.concatenate([tracks.patches for tracks in sets])
    pairs = (tuple(np.concatenate(both, axis=1)) for both in (positives, negatives))
    return Trial(patches, np.concatenate(track_of), *pairs)


def methods(patches: np.ndarray, models: Mapping[str, Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and descriptors (N, K): real numbers to be compared by L2, or bits as bool."""
    for name, path in models.items():
        model = PatchModel(path)
        label = "CRBNet(N), float" if name == "N" else f"CRBNet, {name}"
        descriptors = (model(patches) if name == "int8" else model.raw(patches)).astype(np.float32)
        yield label, descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)
        yield f"{label}, bits", descriptors >= 0
    yield "TFeat", tfeat(DATA / "teachers" / "tfeat_liberty.npz", BLUR)(patches)
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
            parts.append(np.square(x.astype(np.float64) - y).sum(axis=1))
    return np.concatenate(parts)


def fpr95(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Share of the negatives that are no further apart than `RECALL` of the positives, %; both (P,) distances."""
    threshold = np.sort(positives)[int(np.ceil(RECALL * len(positives))) - 1]
    return 100 * float(np.mean(negatives <= threshold))


def interval(positives: np.ndarray, negatives: np.ndarray, t: Trial) -> list[float]:
    """`fpr95` when tracks are drawn anew: 2.5 % and 97.5 % of `RESAMPLED` draws."""
    order = np.argsort(positives)
    nearest, of_positive = positives[order], t.track[t.positives[0][order]]
    order = np.argsort(negatives)
    furthest, of_negative = negatives[order], t.track[t.negatives[0][order]]
    rng, count = np.random.default_rng(0), int(t.track[-1]) + 1
    drawn = []
    for _ in range(RESAMPLED):
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        found = np.cumsum(times[of_positive])
        threshold = nearest[np.searchsorted(found, RECALL * found[-1])]
        times = times[of_negative]
        drawn.append(100 * times[: np.searchsorted(furthest, threshold, "right")].sum() / times.sum())
    return [round(float(v), 3) for v in np.quantile(drawn, (0.025, 0.975))]


def error(name: str, t: Trial, models: Mapping[str, Path], before: dict, console: Console) -> dict:
    """FPR95 of every method, and how int8 agrees with float.

    Args:
        before: this part of older results; if of the same pairs, its rows of CRBNet(N) stay when none is measured now.
    """
    rows, intervals, bits, real = {}, {}, {}, {}
    for method, descriptors in methods(t.patches, models):
        positives, negatives = distances(descriptors, t.positives), distances(descriptors, t.negatives)
        rows[method] = round(fpr95(positives, negatives), 3)
        if descriptors.dtype != bool:
            intervals[method] = interval(positives, negatives, t)
        if method in ("CRBNet, float", "CRBNet, int8"):
            bits[method], real[method] = descriptors >= 0, descriptors
    if before.get("key") == t.key:
        for now, old in ((rows, before["fpr95"]), (intervals, before["intervals"])):
            now |= {method: value for method, value in old.items() if "(N)" in method and method not in now}
    a, b = real.values()
    flipped = 100 * float(np.mean(bits["CRBNet, float"] != bits["CRBNet, int8"]))
    cosine = float(np.einsum("nd,nd->n", a, b).mean())
    table = Table(title=f"{name}: FPR95, %, {len(t.positives[0])} pairs that match", title_justify="left")
    table.add_column("descriptor")
    for column in ("real-valued", "95 % of draws", "bits"):
        table.add_column(column, justify="right")
    for method in dict.fromkeys(method.removesuffix(", bits") for method in rows):
        real_valued, binary = (f"{rows[m]:.2f}" if m in rows else "" for m in (method, f"{method}, bits"))
        low_high = " to ".join(f"{value:.2f}" for value in intervals.get(method, ()))
        table.add_row(method, real_valued, low_high, binary)
    console.print(table)
    console.print(f"int8 against float: {flipped:.2f} % of the bits differ, cosine {cosine:.5f}")
    return {
        "pairs": len(t.positives[0]),
        "patches": len(t.patches),
        "key": t.key,
        "fpr95": rows,
        "intervals": intervals,
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
