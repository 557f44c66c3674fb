"""Maps from photos alone against maps with given poses, and what of others' footage is registered.

    python benchmarks/from_photos.py --model hfnet_int8.tflite [--places castle herzjesu fox lund room]

castle, herzjesu (../shared/data/scenes, five folds): of each fold's map photos a map is built without their poses and
laid on the true camera positions by a similarity; its queries are localized with the camera that it was found with, and
in a map with the true poses and cameras of the same features. `around` lays the map on the true positions of the eight
cameras nearest to each query alone: what is left is no drift of the whole. fox, lund (../shared/data/footage) and the
map photos of room are registered whole: positions against transforms.json, GPS, and a headset. castle and room are
also reconstructed in parts that are folded, as large places are. Prints tables, and writes
benchmarks/results/from_photos.json; with --places it replaces these places there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import DATA, RESULTS, SCENES, load_scenes

from hfnet_edge.geometry import Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.shell.lists import read_names
from hfnet_maps.build import parts
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.from_photos import Looked, look, map_of_model, maps_from_photos
from hfnet_maps.build.georeference import Fixes, georeference, gps_of, up_of
from hfnet_maps.build.photos import find_photos
from hfnet_maps.build.reference import read_reference
from hfnet_maps.build.structure import SfmModel, reconstruct
from hfnet_maps.build.work_store import WorkStore
from hfnet_maps.evaluation.alignment import Similarity, align
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import full_sections, to_map
from hfnet_maps.tiles.places import place_from_photos

FOLDED = ("castle", "herzjesu")
AROUND = 8  # cameras about a query
WHOLE = ("fox", "lund", "room")
PARTED = {"castle": (12, 8), "room": (100, 50)}  # photos of a part, of its neighbours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--places", nargs="+", default=[*FOLDED, *WHOLE])
    options = parser.parse_args()
    model, path = Model(options.model), RESULTS / "from_photos.json"
    rows: dict[str, dict] = json.loads(path.read_text()) if path.is_file() else {}
    for place in options.places:
        rows[place] = folded(model, place) if place in FOLDED else whole(model, place)
        if place in PARTED:
            with TemporaryDirectory() as store:
                rows[place]["in_parts"] = parted(model, place, store)
        path.write_text(json.dumps(rows, indent=1) + "\n")
    show(rows)


def show(rows: Mapping[str, Mapping]) -> None:
    table = Table(title="Registered from photos alone", title_justify="left")
    columns = ("photos", "registered", "median off", "most off", "of the extent", "degrees", "focal, true", "seconds")
    for column in ("place", *columns):
        table.add_column(column, justify="right")
    for place, row in rows.items():
        known = f", {row['true_focal']:.0f}" if row.get("true_focal") else ""
        table.add_row(
            place,
            f"{row['photos']}",
            f"{row['registered']}",
            f"{row['median_off']:.4f}",
            f"{row['most_off']:.4f}",
            f"{100 * row['median_off'] / row['extent']:.3f} %",
            f"{row['degrees']:.2f}" if "degrees" in row else "",
            f"{row['focal']:.0f}{known}",
            f"{row['seconds']:.0f}",
        )
    Console(width=150).print(table)
    table = Table(title="Queries of five folds, in maps from photos and with given poses", title_justify="left")
    columns = ("queries", "localized", "median", "degrees", "around", "given", "degrees ", "ratio", "within 0.05 m")
    for column in ("place", *columns):
        table.add_column(column, justify="right")
    for place, row in rows.items():
        if "folds" in row:
            a, b = row["from_photos"], row["given"]
            table.add_row(
                place,
                f"{a['queries']}",
                f"{a['localized']}, {b['localized']}",
                f"{a['median']:.4f}",
                f"{a['median_degrees']:.3f}",
                f"{row['around']['median']:.4f}",
                f"{b['median']:.4f}",
                f"{b['median_degrees']:.3f}",
                f"{a['median'] / b['median']:.2f}",
                f"{100 * a['recall']:.0f}, {100 * b['recall']:.0f} %",
            )
    Console(width=150).print(table)
    for place, row in rows.items():
        if found := row.get("in_parts"):
            size, beside = found["photos_of_a_part_and_beside"]
            print(
                f"{place} in parts of {size} and {beside} beside: {found['registered']} in {found['parts']}, off by "
                f"{found['median_off']:.4f}, {found['degrees']:.2f} degrees"
            )
    print("lengths in metres, of fox in units of its transforms.json; lund against GPS, room against a headset's poses")


def folded(model: Model, place: str) -> dict:
    """All photos of a place registered, and its queries in maps of the others."""
    scene = next(scene for scene in load_scenes() if scene.name == place)
    start = time.perf_counter()
    networks = Networks(model)
    with TemporaryDirectory() as folder:
        looked = look(find_photos(scene.images, list(scene.poses)), networks, WorkStore(folder))
    photos, features, matches, geometries = looked.photos, looked.features, looked.matches, looked.geometries
    models = reconstruct(photos, features, geometries)
    row = positions(photos.names, models[0], scene.poses) | {
        "photos": len(photos.names),
        "models": len(models),
        "focal": models[0].cameras[0].focal[0],
        "true_focal": scene.cameras[photos.names[0]].focal[0],
        "seconds": time.perf_counter() - start,
        "folds": [],
    }
    found_errors, given_errors, local_errors = [], [], []
    with_truth = dict(zip(photos.names, features, strict=True))
    for split in scene.splits:
        kept = {i: k for k, i in enumerate(i for i, name in enumerate(photos.names) if name in set(split.map_names))}
        part = photos.take(list(kept), {})
        of_part = [features[i] for i in kept]
        inside = {(i, j) for i, j in matches if i in kept and j in kept}
        sfm = reconstruct(part, of_part, {(kept[i], kept[j]): geometries[i, j] for i, j in inside & set(geometries)})
        pairs = {(kept[i], kept[j]): matches[i, j] for i, j in sorted(inside)}
        built, _ = map_of_model(Looked(part, of_part, [], pairs, {}), sfm[0], networks)
        to_true = similarity(part.names, sfm[0], scene.poses)
        names = [n for n in photos.names if n in set(split.map_names)]
        given, _ = map_from_features(
            names,
            [scene.cameras[n] for n in names],
            [scene.poses[n] for n in names],
            of_part,
            model.description,
            known=pairs,
        )
        off = positions(part.names, sfm[0], scene.poses)
        row["folds"].append(off | {"photos": len(part.names)})
        for target, map_, camera, lay in (
            (found_errors, to_map(full_sections(built)), sfm[0].cameras[0], to_true.pose),
            (given_errors, to_map(full_sections(given)), None, lambda pose: pose),
        ):
            for name, stated in split.queries:
                pose = localize_features(map_, with_truth[name], camera or stated).pose
                target.append((np.inf, np.inf) if pose is None else pose_error(lay(pose), scene.poses[name]))
                if camera is not None:
                    here = around(scene.poses[name], part.names, sfm[0], scene.poses)
                    local_errors.append(target[-1] if pose is None else pose_error(here.pose(pose), scene.poses[name]))
    judged = {"from_photos": found_errors, "around": local_errors, "given": given_errors}
    return row | {name: figures(errors) for name, errors in judged.items()}


def around(query: Pose, names, model: SfmModel, true: Mapping[str, Pose]) -> Similarity:
    """The similarity of the cameras about a query."""
    near = sorted(model.poses, key=lambda i: float(np.linalg.norm(true[names[i]].center - query.center)))[:AROUND]
    return align({names[i]: model.poses[i] for i in near}, true, [names[i] for i in near])


def figures(errors: list) -> dict:
    e = np.array(errors)
    return {
        "queries": len(e),
        "localized": int(np.isfinite(e[:, 0]).sum()),
        "median": float(np.median(e[:, 0])),
        "median_degrees": float(np.median(e[:, 1])),
        "recall": float(((e[:, 0] <= 0.05) & (e[:, 1] <= 2)).mean()),
    }


def whole(model: Model, place: str) -> dict:
    """All photos of a place registered."""
    folder = SCENES / "room" / "images" if place == "room" else DATA / "footage" / place / "images"
    names = read_names(SCENES / "room" / "map.txt") if place == "room" else None
    start = time.perf_counter()
    with TemporaryDirectory() as store:
        made = maps_from_photos(folder, model, WorkStore(store), names)
    photos, sfm = made.photos, made.models[0]
    row = {
        "photos": len(photos.names) + len(photos.left_out),
        "models": len(made.models),
        "focal": sfm.cameras[0].focal[0],
        "seconds": time.perf_counter() - start,
        "stage_seconds": made.seconds,
        "pairs": [made.pairs_tried, made.pairs_verified],
        "in_all_models": len({photo for m in made.models for photo in m.poses}),
        "unregistered": made.unregistered,
        "reprojection": made.maps[0][1].median_error,
    }
    if place == "lund":
        fixes = {i: gps_of(folder / photos.names[i]) for i in sfm.poses}
        known = [i for i, fix in fixes.items() if fix is not None]
        given = Fixes(
            tuple(photos.names[i] for i in known),
            np.stack([sfm.poses[i].center for i in known]),
            np.array([fixes[i] for i in known]),
        )
        earth, off = georeference(given, up_of(list(sfm.poses.values())))
        extent = float(np.ptp(given.xyz @ earth.enu_from_map.rotation.T, axis=0).max() * earth.metres)
        return row | {
            "registered": len(sfm.poses),
            "median_off": float(np.median(off)),
            "most_off": float(off.max()),
            "extent": extent,
            "gps_residual": earth.residual,
        }
    true = fox() if place == "fox" else dict(read_reference(SCENES / "room" / "reference").poses)
    return row | positions(photos.names, sfm, true)


def parted(model: Model, place: str, store: str) -> dict:
    """All photos of a place registered in parts."""
    scene, (size, beside) = SCENES / place, PARTED[place]
    reference = dict(read_reference(scene / "reference").poses)
    names = read_names(scene / "map.txt") if place == "room" else list(reference)
    with mock.patch.multiple(parts, PART=size, OVERLAP=beside), TemporaryDirectory() as folder:
        made = place_from_photos(
            scene / "images", Networks(model), WorkStore(store), 100, Path(folder) / "t.tiles", names
        )
    return positions(made.photos.names, made.parts[0].model, reference) | {
        "photos_of_a_part_and_beside": [size, beside],
        "parts": len(made.parts),
    }


def fox() -> dict[str, Pose]:
    frames = json.loads((DATA / "footage" / "fox" / "transforms.json").read_text())["frames"]
    poses = {}
    for frame in frames:
        matrix = np.array(frame["transform_matrix"])
        rotation = (matrix[:3, :3] * (1, -1, -1)).T  # OpenGL's axes: y up, z backward
        poses[Path(frame["file_path"]).name] = Pose.from_matrix(rotation, -rotation @ matrix[:3, 3])
    return poses


def similarity(names, model: SfmModel, true: Mapping[str, Pose]) -> Similarity:
    found = {names[i]: pose for i, pose in model.poses.items()}
    return align(found, true, [name for name in found if name in true])


def positions(names, model: SfmModel, true: Mapping[str, Pose]) -> dict:
    """What the largest model's cameras are off after a similarity."""
    to_true = similarity(names, model, true)
    found = {names[i]: to_true.pose(pose) for i, pose in model.poses.items() if names[i] in true}
    errors = np.array([pose_error(pose, true[name]) for name, pose in found.items()])
    centers = np.stack([true[name].center for name in found])
    return {
        "registered": len(model.poses),
        "median_off": float(np.median(errors[:, 0])),
        "most_off": float(errors[:, 0].max()),
        "degrees": float(np.median(errors[:, 1])),
        "extent": float(np.ptp(centers, axis=0).max()),
    }


if __name__ == "__main__":
    main()
