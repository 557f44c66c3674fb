"""What refining reference poses does: to poses that were moved off the truth, to exact ones, and to a headset's own.

    python benchmarks/refine_poses.py --model hfnet_int8.tflite [--places fox room]

Places of ../shared/data/train_scenes (COLMAP models, of arbitrary scale): the poses of a model, exact or moved by
smooth drift and noise of `DEGREES` and `SHARE` of the median distance between cameras (root mean squares), refined, and
measured against the model's own after a rigid alignment. The room of ../shared/data/scenes has a headset's poses, which
are all the truth there is: its map as built and its refined one localize the same queries. Of the other test scenes and
the made place (`hfnet-map example`), exact all of them, the agreement of matches with poses is measured alone. Prints
tables, and writes benchmarks/results/refine_poses.json; with --places it replaces these places there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pycolmap
from rich.console import Console
from rich.table import Table
from scenes import DATA, RESULTS, SCENES, hfnet

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.shell.lists import read_names, read_queries
from hfnet_maps.build.builder import MIN_AGREEMENT, map_from_features
from hfnet_maps.build.candidates import select_pairs
from hfnet_maps.build.pairs import SAMPLE, agreement, match_descriptors
from hfnet_maps.build.reference import Reference, read_reference
from hfnet_maps.build.view import make_view
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, to_map
from hfnet_maps.synthetic_town.made_place import write_place

MOVED = ("monstree", "fox", "statue_liberty")
EXACT = ("castle", "herzjesu", "reichstag", "made place")
DEGREES, SHARE = 3.0, 0.05
RIGHT, WRONG = (0.25, 5.0), (0.5, 10.0)  # metres, degrees
WAVES = (0.5, 1, 2)  # of drift over the images in order
NOISE = 0.15  # of the amplitude of a wave

Place = tuple[list[str], list[Camera], list[Pose], list[Features]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--places", nargs="+", default=[*MOVED, *EXACT, "room"])
    options = parser.parse_args()
    model, path = Model(options.model), RESULTS / "refine_poses.json"
    rows: dict[str, dict[str, dict]] = json.loads(path.read_text()) if path.is_file() else {}
    for place in options.places:
        if place in MOVED:
            found = moved_place(model, place)
        else:
            found = room(model) if place == "room" else {"exact": exact_place(model, place)}
        rows[place] = found
        path.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)


def show(rows: dict[str, dict[str, dict]]) -> None:
    table = Table(title="Poses that were refined", title_justify="left")
    columns = {
        "agreement": ".2f",
        "off_before": ".4f",
        "off_after": ".4f",
        "degrees_before": ".2f",
        "degrees_after": ".2f",
        "moved": ".4f",
        "turned": ".2f",
        "error_before": ".2f",
        "error_after": ".2f",
        "refine_seconds": ".0f",
        "recall": ".3f",
        "wrong": "d",
    }
    for column in ("place", "poses", *(name.replace("_", " ") for name in columns)):
        table.add_column(column, justify="right")
    for place, cases in rows.items():
        for poses, row in cases.items():
            table.add_row(place, poses, *(f"{row[c]:{form}}" if c in row else "" for c, form in columns.items()))
    Console(width=160).print(table)
    print("medians; lengths of moved places as a share of the median distance between cameras, of the room in metres")


def read_place(model: Model, reference: Reference, images: Path, names: Sequence[str]) -> Place:
    cameras = [reference.camera(name) for name in names]
    features = [hfnet(model)(images / name, camera) for name, camera in zip(names, cameras, strict=True)]
    return list(names), cameras, [reference.pose(name) for name in names], features


def moved_place(model: Model, place: str) -> dict[str, dict]:
    """Exact poses, and the same moved."""
    root = DATA / "train_scenes" / place
    reference = read_reference(root / "model")
    names, cameras, poses, features = read_place(model, reference, root / "images", list(reference.poses))
    centers = np.stack([pose.center for pose in poses])
    unit = float(np.median(np.linalg.norm(centers[:, None] - centers, axis=2)))
    rows = {}
    for case, given in {"exact": poses, "moved": drifted(poses, np.radians(DEGREES), SHARE * unit)}.items():
        built, report = map_from_features(names, cameras, given, features, model.description, refine=True)
        assert report.refinement is not None
        before, after = off(given, poses), off(built.poses, poses)
        rows[case] = refined_row(report, unit) | {
            "off_before": float(np.median(before[0]) / unit),
            "off_after": float(np.median(after[0]) / unit),
            "most_off_before": float(before[0].max() / unit),
            "most_off_after": float(after[0].max() / unit),
            "degrees_before": float(np.median(before[1])),
            "degrees_after": float(np.median(after[1])),
            "most_degrees_before": float(before[1].max()),
            "most_degrees_after": float(after[1].max()),
        }
    return rows


def refined_row(report, unit: float) -> dict:
    """What the report says, lengths in ``unit``."""
    r = report.refinement
    return {
        "images": report.images,
        "agreement": report.agreement,
        "moved": float(np.median(r.moved) / unit),
        "most_moved": float(r.moved.max() / unit),
        "turned": float(np.median(r.turned)),
        "most_turned": float(r.turned.max()),
        "error_before": r.error_before,
        "error_after": r.error_after,
        "refine_seconds": report.seconds["refine poses"],
        "landmarks": report.landmarks,
        "observations": report.observations,
    }


def exact_place(model: Model, place: str) -> dict:
    """The agreement of exact poses with the matches of the pairs that a build judges them by."""
    with tempfile.TemporaryDirectory() as folder:
        root = SCENES / place
        if place == "made place":
            root = Path(folder) / "place"
            root.mkdir()
            write_place(root)
        names = read_names(root / "map.txt")
        reference = read_reference(root / "reference")
        _, cameras, poses, features = read_place(model, reference, root / "images", names)
    pairs = select_pairs(poses, np.stack([f.global_descriptor for f in features]))
    sample = [pairs[k] for k in np.linspace(0, len(pairs) - 1, min(SAMPLE, len(pairs))).astype(int)]
    matches = {(i, j): match_descriptors(features[i].descriptors, features[j].descriptors) for i, j in sample}
    views = [make_view(c, p, f) for c, p, f in zip(cameras, poses, features, strict=True)]
    share = agreement(views, matches)
    return {"images": len(names), "agreement": share, "contradicted": share < MIN_AGREEMENT}


def room(model: Model) -> dict[str, dict]:
    """A headset's poses as they are, and refined; and the queries in both maps."""
    root = SCENES / "room"
    reference = read_reference(root / "reference")
    place = read_place(model, reference, root / "images", read_names(root / "map.txt"))
    queries = read_queries(root / "queries_with_intrinsics.txt")
    seen = [(camera, reference.pose(name), hfnet(model)(root / "images" / name, camera)) for name, camera in queries]
    rows = {}
    for case in ("refined", "as given"):
        start = time.perf_counter()
        built, report = map_from_features(*place, model.description, refine=case == "refined")
        seconds = time.perf_counter() - start
        sections = full_sections(built)
        figures = localized(to_map(sections), seen)
        rows[case] = {"build_seconds": seconds, "stage_seconds": report.seconds} | figures
        if report.refinement is not None:
            rows[case] |= refined_row(report, 1.0)
        else:
            counts = {"images": report.images, "landmarks": report.landmarks, "observations": report.observations}
            rows[case] |= counts | {"agreement": report.agreement, "error_after": report.median_error}
    return rows


def localized(map_, queries: Sequence[tuple[Camera, Pose, Features]]) -> dict:
    errors = []
    for camera, truth, features in queries:
        pose = localize_features(map_, features, camera).pose
        errors.append((np.inf, np.inf) if pose is None else pose_error(pose, truth))
    e = np.array(errors)
    found = np.isfinite(e[:, 0])
    return {
        "queries": len(e),
        "localized": int(found.sum()),
        "recall": float(((e[:, 0] <= RIGHT[0]) & (e[:, 1] <= RIGHT[1])).mean()),
        "wrong": int((found & ((e[:, 0] > WRONG[0]) | (e[:, 1] > WRONG[1]))).sum()),
        "median_metres": float(np.median(e[:, 0])),
        "median_degrees": float(np.median(e[:, 1])),
    }


def drifted(poses: Sequence[Pose], turn: float, shift: float) -> list[Pose]:
    """Poses off by smooth drift over their order and by some noise, of these root mean squares (radians, length)."""
    rng, n = np.random.default_rng(0), len(poses)
    along = np.arange(n)[:, None] / n

    def errors(size: float) -> np.ndarray:
        drift = sum(rng.normal(size=(1, 3)) * np.sin(2 * np.pi * (w * along + rng.uniform(size=(1, 3)))) for w in WAVES)
        off = drift + NOISE * rng.normal(size=(n, 3))
        return off * size / np.sqrt((off**2).sum(axis=1).mean())

    moved = []
    for pose, angles, by in zip(poses, errors(turn), errors(shift), strict=True):
        angle = np.linalg.norm(angles)
        turned = pycolmap.Rotation3d(np.append(np.sin(angle / 2) * angles / angle, np.cos(angle / 2)))
        rotation = turned.matrix() @ pose.rotation
        moved.append(Pose.from_matrix(rotation, -rotation @ (pose.center + by)))
    return moved


def off(poses: Sequence[Pose], truth: Sequence[Pose]) -> tuple[np.ndarray, np.ndarray]:
    """(M,) distances and (M,) degrees to the true poses, laid on them as one by their positions."""
    to_true = pycolmap.estimate_rigid3d(*(np.stack([p.center for p in each]) for each in (poses, truth)))
    turn, by = to_true.rotation.matrix(), to_true.translation
    rotations = [p.rotation @ turn.T for p in poses]
    laid = [Pose.from_matrix(r, p.translation - r @ by) for r, p in zip(rotations, poses, strict=True)]
    errors = np.array([pose_error(p, t) for p, t in zip(laid, truth, strict=True)])
    return errors[:, 0], errors[:, 1]


if __name__ == "__main__":
    main()
