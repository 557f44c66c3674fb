"""Writes `place`: a street in tiles, one of which looks like another, queries, and what the runtime makes of them.

    PYTHONPATH=tests python android_bridge/library/samples/write_place.py

The library's tests read it. There are no pictures: landmarks and descriptors are random, features those of a perfect
network. Poses are first found by OpenCV's solver, which the library has too.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from hfnet_edge.features import Features
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.pose.estimate import PoseConfig
from hfnet_edge.prior import Prior
from hfnet_maps.content import DescribedMap, MapNetworks
from hfnet_maps.pack.writer import full_sections
from hfnet_maps.tiles.cut import take_images
from hfnet_maps.tiles.writer import Tile, write_place
from synthetic import CAMERA, EXTRACTOR, Place, looking_at

FOLDER = Path(__file__).parent / "place"
CORES = (8, 8, 8, 6)  # images of the tiles' cores, along the street; the last tile is what the first six see, elsewhere
STEP = 2.0  # between cameras
APART = 500.0  # from what looks the same
HALO = 3  # images on each side
BASE = np.array([1000.0, -2000.0, 50.0])


def street() -> tuple[Place, DescribedMap]:
    """What queries see, and the map of it before it is cut."""
    rng = np.random.default_rng(3)
    x = STEP * np.array([*range(sum(CORES[:-1])), *range(CORES[-1])])
    away = np.repeat([0.0, APART], [sum(CORES[:-1]), CORES[-1]])
    length = STEP * sum(CORES[:-1])
    once = np.column_stack([rng.uniform(-6, length + 6, 700), rng.uniform(9, 12, 700), rng.uniform(-3, 3, 700)])
    described = rng.normal(size=(len(once), 32))
    again = once[:, 0] < STEP * CORES[-1] + 6
    landmarks = np.concatenate([once, once[again] + (APART, 0, 0)]) + BASE
    described = np.concatenate([described, described[again]])
    described /= np.linalg.norm(described, axis=1)[:, None]
    waves = quantize(np.cos(x[:, None] * rng.normal(0, 0.15, 16) + rng.uniform(0, 7, 16)))
    poses = [view(at, 0.0) for at in x + away]
    place = Place(landmarks, described, poses, waves, rng)
    seen = [seen_from(place, pose) for pose in poses]
    pairs = np.array(sorted((landmark, image) for image, ids in enumerate(seen) for landmark in ids))
    numbers = np.unique(pairs[:, 0])
    names = tuple(f"{'street' if not far else 'elsewhere'}/{i:02d}.jpg" for i, far in enumerate(away))
    return place, DescribedMap(
        MapNetworks.of(EXTRACTOR), names, tuple(poses), waves, landmarks[numbers],
        np.searchsorted(numbers, pairs[:, 0]), pairs[:, 1], np.arange(len(numbers)), quantize(described[numbers]),
    )  # fmt: skip


def view(x: float, aside: float):
    """A camera of the street, ``x`` along it, which stands and looks a little aside."""
    return looking_at(BASE + np.array([x, aside, 0.1 * aside]), BASE + np.array([x + aside, 10.0, 0.0]))


def seen_from(place: Place, pose) -> np.ndarray:
    xy = CAMERA.project(pose.transform(place.landmarks))
    return np.flatnonzero((xy > 0).all(1) & (xy < (CAMERA.width, CAMERA.height)).all(1))


def tiles(whole: DescribedMap):
    start, packed = 0, whole.encoded()
    for count in CORES:
        core = np.arange(start, start + count)
        images = np.arange(max(0, start - HALO), min(len(whole.names), start + count + HALO))
        own = take_images(packed, images, core)
        yield Tile(full_sections(own), [whole.names[i] for i in core])
        start += count


def main() -> None:
    place, whole = street()
    write_place(FOLDER, tiles(whole), 6)
    opened, config = TiledMap(FOLDER), LocalizationConfig(pose=replace(PoseConfig(), solver="usac"))
    at = {name: float((pose.center - BASE)[0]) for name, pose in zip(whole.names, whole.poses, strict=True)}
    end = max(x for name, x in at.items() if name.startswith("street"))
    seen = place.features(view(20.0, 0.4), outliers=40)
    start = place.features(view(4.0, 0.3), outliers=40)
    ahead = place.features(view(29.0, 0.2), outliers=40)
    rng = np.random.default_rng(4)
    nothing = replace(seen, descriptors=quantize(rng.normal(size=seen.descriptors.shape)))
    empty = Features(np.zeros((0, 2)), np.zeros(0, np.float32), np.zeros((0, 32), np.int8), seen.global_descriptor, 1.0)
    here, there = (tuple((BASE + np.array([x, 0.0, 0.0])).tolist()) for x in (4.0, APART + 4.0))
    queries = {
        "found": (seen, {}),
        "at a border": (place.features(view(15.0, -0.5), outliers=60), {}),
        "at the end": (place.features(view(end, 0.7), outliers=20), {}),
        "of two places": (start, {}),
        "here": (start, {"position": here, "radius": 5.0}),
        "there": (start, {"position": there, "radius": 5.0}),
        "there by name": (start, {"images": ("elsewhere/*",)}),
        "another place by name": (seen, {"images": ("elsewhere/*",)}),
        "far from its prior": (seen, {"position": there, "radius": 5.0}),
        "retrieved in another tile": (replace(seen, global_descriptor=whole.global_descriptors[20]), {}),
        "in a further tile": (replace(ahead, global_descriptor=whole.global_descriptors[1]), {}),
        "of names that a tile near it lacks": (start, {"position": there, "radius": 5.0, "images": ("street/0?.jpg",)}),
        "unlike anything": (nothing, {}),
        "empty": (empty, {}),
    }
    told, data = [], b""
    for name, (features, prior) in queries.items():
        r = localize_features(opened, features, CAMERA, config, Prior(**prior) if prior else None)
        for array, kind in (
            (features.keypoints, "<f8"),
            (features.descriptors, "i1"),
            (features.global_descriptor, "i1"),
        ):
            data += np.ascontiguousarray(array, kind).tobytes()
        found = {"status": r.status.name, "tile": r.tile, "notes": len(r.notes), "inliers": r.inliers}
        found |= {"prior_frames": r.prior_frames.tolist(), "probability": r.probability, "wrong": r.wrong}
        if r.pose is not None:
            found |= {"quaternion": r.pose.quaternion.tolist(), "translation": r.pose.translation.tolist()}
        told.append({"name": name, "keypoints": len(features.keypoints), "prior": prior, "found": found})
    (FOLDER / "queries.bin").write_bytes(data)
    lines = ",\n".join(f"  {json.dumps(query)}" for query in told)
    (FOLDER / "queries.json").write_text(f'{{\n "camera": "{CAMERA}",\n "queries": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
