"""New photos in a built map: the second half of castle's photos into a map of the first half, with given poses.

    python benchmarks/update.py --model hfnet_int8.tflite

Fold 0 of ../shared/data/scenes/castle: of its map photos, in order of name, the first half is built with the
reference's poses, the second half is registered without them. New poses are held against the reference; the fold's
queries are localized before, after, and in a map that was built of all its photos with their given poses. Prints a
table, and writes benchmarks/results/update.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scenes import RESULTS, hfnet, load_scenes

from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.result import Status
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.content import content_of
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import added_sections, built_sections, size_of, to_map
from hfnet_maps.update import NewPhoto, update

NEAR = 0.25, 2.0  # metres and degrees of a query that counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    model = Model(parser.parse_args().model)
    scene = next(scene for scene in load_scenes() if scene.name == "castle")
    split = scene.splits[0]
    names, queries = sorted(split.map_names), [name for name, _ in split.queries]
    extract = hfnet(model)
    features = {name: extract(scene.images / name, scene.cameras[name]) for name in (*names, *queries)}

    def built(of: list[str]) -> LocalizationMap:
        cameras, poses = [scene.cameras[n] for n in of], [scene.poses[n] for n in of]
        content, _ = map_from_features(of, cameras, poses, [features[n] for n in of], model.description)
        return to_map(built_sections(content))

    def found(place: LocalizationMap) -> dict[str, float]:
        errors = []
        for name in queries:
            result = localize_features(place, features[name], scene.cameras[name])
            if result.status is Status.LOCALIZED and result.pose is not None:
                errors.append(pose_error(result.pose, scene.poses[name]))
        right = [e for e in errors if e[0] <= NEAR[0] and e[1] <= NEAR[1]]
        median = float(np.median([e[0] for e in errors])) if errors else float("nan")
        return {"queries": len(queries), "localized": len(errors), "right": len(right), "median_metres": median}

    half = len(names) // 2
    before = built(names[:half])
    photos = [NewPhoto(name, scene.cameras[name], False, features[name]) for name in names[half:]]
    start = time.perf_counter()
    updated = update(before, content_of(before), photos)
    sections = added_sections(updated.map, before)
    seconds = time.perf_counter() - start
    after, whole = to_map(sections), built(names)
    errors = np.array([pose_error(updated.map.poses[half + i], scene.poses[n]) for i, n in enumerate(updated.taken)])
    row = {
        "old_photos": half,
        "new_photos": len(photos),
        "taken_in": len(updated.taken),
        "left_out": updated.left_out,
        "new_poses_metres": {"median": float(np.median(errors[:, 0])), "most": float(errors[:, 0].max())},
        "new_poses_degrees": {"median": float(np.median(errors[:, 1])), "most": float(errors[:, 1].max())},
        "landmarks_before": before.landmark_count,
        "landmarks_added": updated.landmarks,
        "observations_added": updated.observations,
        "seconds": seconds,
        "bytes_before": len(before.file.data),
        "bytes_after": size_of(sections),
        "bytes_built_of_all": len(whole.file.data),
        "before": found(before),
        "after": found(after),
        "built_of_all": found(whole),
    }
    (RESULTS / "update.json").write_text(json.dumps(row, indent=1) + "\n")
    table = Table(title="New photos in a built map: castle", title_justify="left", show_header=False)
    for key, value in row.items():
        table.add_row(key.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else f"{value}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
