"""Is a truly co-visible image among the first retrieved? The student by width, and what a global teacher could be.

    python benchmarks/retrieval.py [--weights runs/x/weights.npz] [--methods student teachers]

Several places share one map, so a query can also be taken for another place. Co-visible are two images that see enough
common landmarks: in the validation places (../shared/data/train_scenes) those of their COLMAP models, in the test
scenes those that RootSIFT and the map builder triangulate over all images with the true poses. Validation chooses
the teacher and the width; the test scenes are only reported. Prints tables, writes benchmarks/results/retrieval.json,
where methods that were not asked for keep their figures.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import CACHE, DATA, RESULTS, Scene, described, exported, hfnet, load_scenes, rootsift

from hfnet_edge.image.keypoints import quantize
from hfnet_edge.image.photo import load_photo
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.networks.hfnet import Model
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import map_from_features

PLACES = ("sceaux", "lund_door", "cyprus", "monstree", "fox", "statue_liberty")
FOLDS = 5
COVISIBLE = {"validation": 20, "test": 30}  # common landmarks
COUNTS = (1, 5, 10)
WIDTHS = (512, 256, 128, 64, 32)
FIRST_COLUMN = "global descriptor, dimensions = bytes"
PRECISIONS = {"int8": "int8", "float": "none"}

Splits = list[tuple[np.ndarray, np.ndarray]]
"""Queries (Q,) and reference images (R,), by index; a query never finds itself."""


@dataclass(frozen=True)
class Images:
    """N images of several places.

    Attributes:
        paths: N files.
        places: (N,) str, the place that each is of.
        covisible: (N, N) bool.
        splits: by name of the protocol.
    """

    paths: list[Path]
    places: np.ndarray
    covisible: np.ndarray
    splits: dict[str, Splits]


@dataclass(frozen=True)
class Ranking:
    """How a descriptor ranks the references of each query; Q queries over all splits.

    Attributes:
        queries: (Q,) index of the image.
        first: (Q,) rank of the first co-visible image, from 1.
        precision: (Q,) average precision over all co-visible images.
    """

    queries: np.ndarray
    first: np.ndarray
    precision: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=BUNDLED, help="of the student; default: the bundled ones")
    parser.add_argument("--methods", nargs="+", default=["student", "teachers"], choices=["student", "teachers"])
    parser.add_argument("--output", type=Path, default=RESULTS / "retrieval.json")
    options = parser.parse_args()
    console = Console(width=150)
    models = {name: exported(options.weights, precision) for name, precision in PRECISIONS.items()}
    before = json.loads(options.output.read_text()) if options.output.exists() else {}
    result: dict = {"weights": models["int8"].description.weights_hash, "covisible_landmarks": COVISIBLE}
    sets = (validation_images(), test_images(load_scenes(), models["int8"]))
    rankings: list[dict[str, dict[str, Ranking]]] = [{protocol: {} for protocol in images.splits} for images in sets]
    paths = [path for images in sets for path in images.paths]
    for method, descriptors in descriptors_of(options.methods, paths, models):
        parts = np.split(quantize(descriptors), [len(sets[0].paths)])
        for images, part, by_protocol in zip(sets, parts, rankings, strict=True):
            for protocol, splits in images.splits.items():
                by_protocol[protocol][method] = rank(part, images.covisible, splits)
    for images, by_protocol in zip(sets, rankings, strict=True):
        for protocol, by_method in by_protocol.items():
            result[protocol] = before.get(protocol, {}) | report(protocol, by_method, images.places, console)
            if "student" in options.methods:
                failures(by_method[f"student int8, {models['int8'].description.global_dim}"], images, console)
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {options.output}")


def validation_images() -> Images:
    """Places that are no test scenes: each image against all others, and every fifth against the rest."""
    paths, places, blocks = [], [], []
    for place in PLACES:
        model = pycolmap.Reconstruction(str(DATA / "train_scenes" / place / "model"))
        names = sorted(image.name for image in model.images.values())
        row = {image_id: names.index(image.name) for image_id, image in model.images.items()}
        sees = np.zeros((len(names), model.num_points3D()), np.float32)
        for column, point in enumerate(model.points3D.values()):
            sees[[row[e.image_id] for e in point.track.elements], column] = 1
        paths += [DATA / "train_scenes" / place / "images" / name for name in names]
        places += [place] * len(names)
        blocks.append(sees @ sees.T >= COVISIBLE["validation"])
    index = np.arange(len(paths))
    fold = np.concatenate([np.arange(len(block)) % FOLDS for block in blocks])
    splits = {
        "validation, each against all others": [(index, index)],
        "validation, five folds": [(index[fold == k], index[fold != k]) for k in range(FOLDS)],
    }
    return Images(paths, np.array(places), block_diagonal(blocks), splits)


def test_images(scenes: list[Scene], model: Model) -> Images:
    """The test scenes: fold k of each, and the one split of a scene that has no folds, in one map."""
    paths = [s.images / name for s in scenes for name in s.cameras]
    keys = [(s.name, name) for s in scenes for name in s.cameras]
    at = {key: i for i, key in enumerate(keys)}
    splits = []
    for k in range(FOLDS):
        parts = [s.splits[k % len(s.splits)] for s in scenes]
        queries = np.array([at[p.scene, name] for p in parts for name, _ in p.queries])
        splits.append((queries, np.array([at[p.scene, name] for p in parts for name in p.map_names])))
    covisible = block_diagonal([common_landmarks(s, model) >= COVISIBLE["test"] for s in scenes])
    return Images(paths, np.array([scene for scene, _ in keys]), covisible, {"test scenes, five folds": splits})


def common_landmarks(s: Scene, model: Model) -> np.ndarray:
    """(N, N) int64 landmarks that two images of a scene both see, by RootSIFT. Only the truth of this benchmark comes
    from it, no method sees it; ``model`` has no part in it either, since of so few images all pairs are matched."""
    file = CACHE / f"covisible_{s.name}.npy"
    if not file.exists():
        extract = rootsift(hfnet(model))
        features = [extract(s.images / name, camera) for name, camera in track(s.cameras.items(), s.name)]
        names, cameras, poses = list(s.cameras), list(s.cameras.values()), list(s.poses.values())
        place, _ = map_from_features(names, cameras, poses, features, described("rootsift", model.description))
        sees = np.zeros((len(names), len(place.positions)), np.float32)
        sees[place.images, place.landmarks] = 1
        CACHE.mkdir(exist_ok=True)
        np.save(file, (sees @ sees.T).astype(np.int64))
    return np.load(file)


def block_diagonal(blocks: list[np.ndarray]) -> np.ndarray:
    """Square blocks along the diagonal, False elsewhere."""
    n = sum(len(block) for block in blocks)
    out, start = np.zeros((n, n), bool), 0
    for block in blocks:
        out[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return out


def descriptors_of(methods: list[str], paths: list[Path], models: dict[str, Model]) -> Iterator[tuple[str, np.ndarray]]:
    """Names of methods, and their descriptors (N, G) float32 of the images."""
    if "student" in methods:
        for name, model in models.items():
            size = model.description.input_size
            photos = (load_photo(path, size) for path in track(paths, f"student {name}", transient=True))
            vectors = np.stack([model(photo.pixels).global_descriptor for photo in photos])
            yield from ((f"student {name}, {w}", vectors[:, :w]) for w in WIDTHS if w <= vectors.shape[1])
    if "teachers" in methods:
        from global_teachers import candidates

        yield from candidates(paths)


def rank(descriptors: np.ndarray, covisible: np.ndarray, splits: Splits) -> Ranking:
    """Retrieves as the runtime does, from descriptors (N, G) int8. Queries that nothing is co-visible with are left
    out."""
    rows = []
    for queries, references in splits:
        for query in queries:
            others = references[references != query]
            order = retrieve(descriptors[query], descriptors[others], len(others))
            hits = np.flatnonzero(covisible[query, others[order]]) + 1
            if len(hits):
                rows.append((query, hits[0], np.mean(np.arange(1, len(hits) + 1) / hits)))
    queries, first, precision = (np.array(column) for column in zip(*rows, strict=True))
    return Ranking(queries, first, precision)


def report(protocol: str, rankings: dict[str, Ranking], places: np.ndarray, console: Console) -> dict:
    """Prints recall and mean average precision of each method, and returns them; means over places, then by place."""
    names = list(dict.fromkeys(places))
    table = Table(title=f"{protocol}: recall and mAP in %, mean of the places; mAP of each place", title_justify="left")
    for column in (FIRST_COLUMN, *(f"R@{n}" for n in COUNTS), "mAP", *names):
        table.add_column(column, justify="left" if column == FIRST_COLUMN else "right")
    result = {}
    for method, r in rankings.items():
        by_place = {}
        for name in names:
            of_place = places[r.queries] == name
            recall = [float(np.mean(r.first[of_place] <= n)) for n in COUNTS]
            precision = float(r.precision[of_place].mean())
            by_place[name] = {"queries": int(of_place.sum()), "recall": recall, "map": precision}
        means = [float(np.mean([row["recall"][k] for row in by_place.values()])) for k in range(len(COUNTS))]
        mean_precision = float(np.mean([row["map"] for row in by_place.values()]))
        result[method] = rounded({"recall": means, "map": mean_precision, "places": by_place})
        shown = [*means, mean_precision, *(row["map"] for row in by_place.values())]
        table.add_row(method, *(f"{100 * value:.1f}" for value in shown))
    console.print(table)
    return result


def failures(r: Ranking, images: Images, console: Console) -> None:
    """Prints the queries whose first retrieved image is not co-visible."""
    for query, first in zip(r.queries, r.first, strict=True):
        if first > 1:
            name = images.paths[query].name
            console.print(f"  {images.places[query]} {name}: the first co-visible image has rank {first}")


def rounded(tree):
    """Floats to four digits, in dictionaries and lists."""
    if isinstance(tree, dict):
        return {key: rounded(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [rounded(value) for value in tree]
    return round(tree, 4) if isinstance(tree, float) else tree


if __name__ == "__main__":
    main()
