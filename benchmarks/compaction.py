"""What packing costs: bytes against hloc's files, recall and medians of packed maps, each stage alone.

    python benchmarks/compaction.py [--scenes castle herzjesu]

Every map is packed to `BUDGET` of hloc's bytes and once more to `PER_LANDMARK` bytes a landmark, settings chosen by
left-out reference images. Queries are only measured. Prints tables, writes benchmarks/results/compaction.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from localization import THRESHOLDS
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import RESULTS, Scene, Split, exported, hfnet, load_scenes

from hfnet_edge.features import Features
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.content import BuiltMap
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.budget import choose
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import Sections, in_file_order, lay_out, to_map

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from hloc_files import write_hloc

BUDGET = 1 / 50  # of the bytes of hloc's files
PER_LANDMARK = 28  # bytes of each landmark of the source, so that those that are kept take 32 at most
HLOC_GLOBAL = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", nargs="+", default=["castle", "herzjesu", "reichstag"])
    parser.add_argument("--no-stages", action="store_true", help="leave the table of single stages out")
    parser.add_argument("--output", type=Path, default=RESULTS / "compaction.json")
    options = parser.parse_args()
    console = Console(width=150)
    model = exported(BUNDLED, "int8")
    extract = hfnet(model)
    scenes = [s for s in load_scenes() if s.name in options.scenes]
    places: list[tuple[Scene, Split, BuiltMap, dict[str, Features]]] = []
    for s in scenes:
        features = {
            n: extract(s.images / n, c) for n, c in track(s.cameras.items(), s.name, console=console, transient=True)
        }
        for split in s.splits:
            names = split.map_names
            source, _ = map_from_features(
                names,
                [s.cameras[n] for n in names],
                [s.poses[n] for n in names],
                [features[n] for n in names],
                model.description,
            )
            places.append((s, split, source, features))
    hloc = {split.name: hloc_bytes(source) for _, split, source, _ in places}

    def chosen(budget_of: Callable[[str, BuiltMap], float]) -> Callable[[str, BuiltMap], Sections]:
        return lambda name, source: choose(source, int(budget_of(name, source)))[0]

    rows = {
        "uncompacted": lambda name, source: lay_out(in_file_order(source)),
        "hloc / 50": chosen(lambda name, source: BUDGET * hloc[name]),
        "28 bytes a landmark": chosen(
            lambda name, source: PER_LANDMARK * len(source.positions) + source.global_descriptors.size
        ),
    }
    result: dict = {"weights": model.description.weights_hash, "packed": {}, "stages": {}}
    for label, pack in rows.items():
        result["packed"][label] = measure(label, places, pack, hloc, console)
    for label in list(rows)[1:]:
        compare(label, result["packed"]["uncompacted"], result["packed"][label], console)
    if not options.no_stages:
        for label, pack in stages().items():
            result["stages"][label] = measure(label, places, pack, hloc, console)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


def hloc_bytes(source: BuiltMap) -> int:
    """Bytes of hloc's files for the same images, keypoints and landmarks: float16 features, 4096-D float16 global
    descriptors, COLMAP's binary model."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_hloc(Path(folder), source, HLOC_GLOBAL)
        model = [files["sfm"] / f"{part}.bin" for part in ("cameras", "images", "points3D")]  # no rigs, no frames
        return sum(f.stat().st_size for f in (files["features"], files["globals"], *model))


def stages() -> dict[str, Callable[[str, BuiltMap], Sections]]:
    """One stage at a time, everything else as it is: int8, all landmarks, one descriptor an observation."""
    plain = Settings(CodecName.INT8, 128, 0, 1 << 16, 512)

    def of(settings: Settings, share: float = 1.0) -> Callable[[str, BuiltMap], Sections]:
        def pack(name: str, source: BuiltMap) -> Sections:
            packer = Packer(source)
            return packer.pack(settings, round(share * len(packer.order)))

        return pack

    found = {f"landmarks {100 * share:g} %": of(plain, share) for share in (0.5, 0.25, 0.1)}
    found |= {f"descriptors 1 to {n}": of(replace(plain, per_landmark=n)) for n in (16, 4, 1)}
    found |= {f"int8 {k} dimensions": of(replace(plain, dim=k)) for k in (64, 32)}
    found |= {f"pq {s} bytes": of(replace(plain, codec=CodecName.PQ, dim=4 * s, subspaces=s)) for s in (32, 16, 8)}
    found |= {"binary 128 bits": of(replace(plain, codec=CodecName.BINARY))}
    found |= {f"global {g} dimensions": of(replace(plain, global_dim=g)) for g in (128, 32)}
    return found


def measure(
    label: str, places, pack: Callable[[str, BuiltMap], Sections], hloc: dict[str, int], console: Console
) -> dict:
    """Packs every split and localizes its queries; pooled by scene."""
    by_scene: dict[str, dict] = {}
    for scene, split, source, features in track(places, label, console=console, transient=True):
        start = time.perf_counter()
        sections = pack(split.name, source)
        seconds = time.perf_counter() - start
        m = to_map(sections)
        row = by_scene.setdefault(scene.name, {"errors": [], "maps": [], "match_ms": [], "query_ms": []})
        row["maps"].append(map_figures(split.name, m, hloc[split.name], seconds))
        for image, camera in split.queries:
            r = localize_features(m, features[image], camera)
            row["errors"].append((np.inf, np.inf) if r.pose is None else pose_error(r.pose, scene.poses[image]))
            row["match_ms"].append(r.milliseconds.get("match", 0.0))
            row["query_ms"].append(sum(r.milliseconds.values()))
    table = Table(title=label, title_justify="left")
    for column in ("scene", "kB", "hloc /", "landmarks", "bytes each", *(f"{m:g} m {d:g}°" for m, d in THRESHOLDS)):
        table.add_column(column, justify="right")
    for column in ("median m", "median °", "match ms", "pack s"):
        table.add_column(column, justify="right")
    for name, row in by_scene.items():
        errors = np.array(row.pop("errors"))
        row["recall"] = [float(((errors[:, 0] <= m) & (errors[:, 1] <= d)).mean()) for m, d in THRESHOLDS]
        row["median_m"], row["median_deg"] = (float(v) for v in np.median(errors, axis=0))
        row["errors_m"] = [round(float(e), 4) for e in errors[:, 0]]
        row["match_ms"], row["query_ms"] = float(np.median(row["match_ms"])), float(np.median(row["query_ms"]))
        mean = {k: np.mean([f[k] for f in row["maps"]]) for k in row["maps"][0] if k not in ("map", "stored")}
        table.add_row(
            name, f"{mean['bytes'] / 1e3:.0f}", f"{mean['hloc_over_bytes']:.1f}", f"{mean['landmarks']:.0f}",
            f"{mean['bytes_per_landmark']:.1f}", *(f"{100 * r:.0f}" for r in row["recall"]),
            f"{row['median_m']:.4f}", f"{row['median_deg']:.4f}", f"{row['match_ms']:.1f}", f"{mean['seconds']:.1f}",
        )  # fmt: skip
    console.print(table)
    if label in ("hloc / 50", "28 bytes a landmark"):
        console.print("  " + "; ".join(f["stored"] for row in by_scene.values() for f in row["maps"]))
    return by_scene


def map_figures(name: str, m: LocalizationMap, hloc: int, seconds: float) -> dict:
    """Size of a map; bytes per landmark are those of the landmarks in it, global descriptors apart."""
    sizes = {kind: entry.length for kind, entry in m.file.sections.items()}
    globals_ = sum(sizes.get(kind, 0) for kind in (Section.GLOBAL_DESCRIPTORS, Section.GLOBAL_PROJECTION))
    total, d = len(m.file.data), m.description
    return {
        "map": name,
        "stored": f"{d.codec} {m.codec.row_bytes} x {d.descriptorCount / d.landmarkCount:.2f}, global {d.globalDim}",
        "bytes": total,
        "hloc_over_bytes": hloc / total,
        "landmarks": d.landmarkCount,
        "bytes_per_landmark": (total - globals_) / d.landmarkCount,
        "seconds": seconds,
    }


def compare(label: str, before: dict, after: dict, console: Console) -> None:
    """Points of recall lost and ratios of medians, by scene and with castle and herzjesu pooled."""
    table = Table(title=f"{label} against uncompacted", title_justify="left")
    for column in ("", *(f"{m:g} m {d:g}°" for m, d in THRESHOLDS), "median m", "median °"):
        table.add_column(column, justify="right")
    for name in before:
        lost = [100 * (b - a) for a, b in zip(before[name]["recall"], after[name]["recall"], strict=True)]
        ratios = [after[name][k] / before[name][k] for k in ("median_m", "median_deg")]
        table.add_row(name, *(f"{v:+.1f}" for v in lost), *(f"x {r:.2f}" for r in ratios))
    console.print(table)


if __name__ == "__main__":
    main()
