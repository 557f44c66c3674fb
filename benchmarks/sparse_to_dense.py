"""The four cells of paper 001's table 3: landmarks sought at keypoints or everywhere, by local descriptors or by
hypercolumns; beside them `auto` and RootSIFT. The maps are of clean photos, the queries are changed.

The office (`room`) is asked as it is, with `hierarchical`, `sparse-to-dense` and `auto`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from localization import ByImage
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import RESULTS, Scene, Split, described, exported, load_scenes, rootsift
from stress import Change, dark, moved
from trust import room

from hfnet_edge.features import Features, decode
from hfnet_edge.geometry import Camera
from hfnet_edge.image.hypercolumns import Hypercolumns
from hfnet_edge.image.keypoints import CELL, sample_descriptors
from hfnet_edge.image.photo import load_photo
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.codecs import CodecName
from hfnet_edge.map.container import Section
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.shell.one_thread import one_thread
from hfnet_edge.tensor import Tensor
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.packer import Packer
from hfnet_maps.pack.settings import Settings
from hfnet_maps.pack.writer import in_file_order, lay_out, to_map

THRESHOLDS = ((0.05, 2.0), (0.25, 2.0), (0.25, 5.0))  # metres, degrees
WRONG = 0.5, 10.0
ANY = 0.9  # of `LocalizationConfig.max_wrong`: the best pose is given, whatever is thought of it


def curved(exponent: float) -> Change:
    """Grey levels to a power."""
    return lambda image, _: np.rint(255 * (image / 255) ** exponent).astype(np.uint8)


def compressed(image: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """JPEG of quality 10."""
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 10])
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))


LEVELS: dict[str, Change | None] = {
    "sharp": None,
    "1/16 of the light": dark(1 / 16),
    "1/32 of the light": dark(1 / 32),
    "1/64 of the light": dark(1 / 64),
    "gamma 2.2": curved(2.2),
    "gamma 0.45": curved(0.45),
    "blur 9": moved(9),
    "blur 15": moved(15),
    "JPEG 10": compressed,
}


@dataclass(frozen=True)
class Cell:
    """How landmarks are sought: by which method, in features that ``kind`` of `Seen` has."""

    method: str
    kind: str


CELLS = {
    "S-S local": Cell("hierarchical", "ours"),
    "S-S hypercolumns": Cell("hierarchical", "hypercolumns"),
    "S-D local": Cell("sparse-to-dense", "dense local"),
    "S-D hypercolumns": Cell("sparse-to-dense", "ours"),
    "auto": Cell("auto", "ours"),
    "RootSIFT": Cell("hierarchical", "rootsift"),
}


def seen(model: Model, path: Path, camera: Camera) -> dict[str, Features]:
    """An image's features, as each cell has them."""
    photo = load_photo(path, model.description.input_size, camera)
    raw = model(photo.pixels)
    ours = decode(raw, photo, model.description.nms_radius, detector=model.description.detector)
    assert ours.hypercolumns is not None, "the network has hypercolumns"
    h, w = raw.local_descriptors.shape[:2]
    y, x = np.mgrid[:h, :w]
    middles = ((np.stack([x, y], axis=-1) + 0.5) * CELL).reshape(-1, 2).astype(np.float32)
    dense = sample_descriptors(raw.descriptor_maps, middles).reshape(h, w, -1)
    return {
        "ours": ours,
        "hypercolumns": replace(ours, descriptors=ours.hypercolumns.at(ours.keypoints)),
        "dense local": replace(ours, hypercolumns=Hypercolumns(Tensor(dense, 1.0, 0), photo)),
    }


def map_of(s: Scene, split: Split, features: ByImage, description: Description, row_bytes: int = 0) -> LocalizationMap:
    """A split's map; with ``row_bytes`` packed to so many a descriptor and a hypercolumn, all landmarks."""
    of_images = [features[s.name, name] for name in split.map_names]
    dense = [f.hypercolumns.at(f.keypoints) for f in of_images if f.hypercolumns is not None]
    built, _ = map_from_features(
        split.map_names,
        [s.cameras[name] for name in split.map_names],
        [s.poses[name] for name in split.map_names],
        of_images,
        replace(description, local_dim=of_images[0].descriptors.shape[1]),
        hypercolumns=dense or None,
    )
    if row_bytes:
        packer = Packer(built)
        map_ = to_map(packer.pack(Settings(CodecName.PQ, 4 * row_bytes, row_bytes, 1, 64), len(packer.order)))
        globals_ = map_.file.sections[Section.GLOBAL_DESCRIPTORS].length
        each = (len(map_.file.data) - globals_) / map_.landmark_count
        print(f"{split.name}: {map_.landmark_count} landmarks, {each:.1f} bytes each, tables included")
        return map_
    return to_map(lay_out(in_file_order(built)))


def accuracy(s: Scene, maps: Mapping[str, LocalizationMap], features: ByImage, method: str) -> dict:
    """Recall and errors of the poses that are given, and of the best poses, given or not; each query in the map of its
    split."""
    given, best, by = [], [], []
    for split in s.splits:
        for image, camera in split.queries:
            query = maps[split.name], features[s.name, image], camera
            with one_thread():
                r = localize_features(*query, LocalizationConfig(method=method))
                likeliest = (
                    r if r.pose is not None else localize_features(*query, LocalizationConfig(method, max_wrong=ANY))
                )
            for errors, pose in ((given, r.pose), (best, likeliest.pose)):
                errors.append((np.inf, np.inf) if pose is None else pose_error(pose, s.poses[image]))
            by.append(r.found_by)
    return {
        "queries": len(given),
        "given": figures(np.array(given)),
        "best": figures(np.array(best)),
        "found_by": {name: by.count(name) for name in sorted(set(by))},
    }


def figures(errors: np.ndarray) -> dict:
    """Of (N, 2) errors in metres and degrees; inf where there is no pose."""
    there = np.isfinite(errors[:, 0])
    return {
        "recall": [float(((errors[:, 0] <= m) & (errors[:, 1] <= d)).mean()) for m, d in THRESHOLDS],
        "poses": float(there.mean()),
        "wrong": int((there & ((errors[:, 0] > WRONG[0]) | (errors[:, 1] > WRONG[1]))).sum()),
        "median_m": float(np.median(errors[:, 0])),
        "median_deg": float(np.median(errors[:, 1])),
    }


def evaluate(
    s: Scene, model: Model, cells: list[str], levels: list[str], folder: Path, console: Console, row_bytes: int
) -> dict:
    kinds = {CELLS[cell].kind for cell in cells}
    sift = rootsift(lambda path, camera: seen(model, path, camera)["ours"])
    result: dict = {}
    maps: dict[tuple[str, str], LocalizationMap] = {}
    queries = {name for split in s.splits for name, _ in split.queries}
    for level in levels:
        change = LEVELS[level]
        features: dict[str, ByImage] = {kind: {} for kind in kinds}
        shown = track(s.cameras.items(), f"{s.name}: {level}", console=console, transient=True)
        for i, (name, camera) in enumerate(shown):
            path = s.images / name
            if change is not None:
                if name not in queries:
                    continue
                path = folder / "query.png"
                image = cv2.cvtColor(cv2.imread(str(s.images / name)), cv2.COLOR_BGR2RGB)
                cv2.imwrite(str(path), cv2.cvtColor(change(image, np.random.default_rng(i)), cv2.COLOR_RGB2BGR))
            of_image = seen(model, path, camera)
            if "rootsift" in kinds:
                of_image["rootsift"] = sift(path, camera)
            for kind in kinds:
                features[kind][s.name, name] = of_image[kind]
        if change is None:
            for kind in kinds:
                about = described("rootsift" if kind == "rootsift" else "hfnet", model.description)
                maps |= {(kind, split.name): map_of(s, split, features[kind], about, row_bytes) for split in s.splits}
        result[level] = {}
        for cell in cells:
            method, kind = CELLS[cell].method, CELLS[cell].kind
            of_kind = {split.name: maps[kind, split.name] for split in s.splits}
            result[level][cell] = accuracy(s, of_kind, features[kind], method)
    return result


def report(name: str, result: dict, console: Console) -> None:
    title = f"{name}: poses given, within m and degrees, %; of the best poses, given or not, recall and median m"
    table = Table(title=title, title_justify="left")
    table.add_column("queries")
    table.add_column("landmarks sought")
    for column in (*(f"{m:g} m {d:g}°" for m, d in THRESHOLDS), "given", "wrong", "best 0.25 m", "median"):
        table.add_column(column, justify="right")
    for level, cells in result.items():
        for i, (cell, row) in enumerate(cells.items()):
            given, best = row["given"], row["best"]
            table.add_row(
                level if i == 0 else "", cell, *(f"{100 * r:.0f}" for r in given["recall"]),
                f"{100 * given['poses']:.0f}", str(given["wrong"]), f"{100 * best['recall'][2]:.0f}",
                f"{best['median_m']:.4f}", end_section=i == len(cells) - 1,
            )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="of HF-Net; default: the bundled ones")
    parser.add_argument("--precision", default="int8", help="of the network; default: int8")
    parser.add_argument("--scenes", nargs="+", default=["castle", "herzjesu", "reichstag", "room"])
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), choices=LEVELS)
    parser.add_argument("--row-bytes", type=int, default=0, help="pack the maps; default: as built")
    parser.add_argument("--output", type=Path, default=RESULTS / "sparse_to_dense.json")
    options = parser.parse_args()
    console = Console(width=120)
    model = exported(options.weights, options.precision)
    result: dict = {"weights": model.description.weights_hash, "precision": options.precision}
    options.output.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for s in [*load_scenes(), room()]:
            if s.name not in options.scenes:
                continue
            in_room = s.name == "room"
            cells = [c for c in options.cells if not in_room or CELLS[c].kind == "ours"]
            levels = ["sharp"] if in_room else options.levels
            result[s.name] = evaluate(s, model, cells, levels, Path(folder), console, options.row_bytes)
            report(s.name, result[s.name], console)
            options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
