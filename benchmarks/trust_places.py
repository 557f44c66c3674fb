"""Validation places for trust: query-map pairs, right and wrong, none of them of the test scenes.

Ten places of `train_scenes/` and `train_views/` (these reconstructed here by pycolmap, once, into .cache/). Each is
mapped several times: without blocks of neighbours, without every third image, with a fifth of the images alone, without
everything near a view (so that its queries come from afar), and from poses that drift as a device's do. Queries are the
images left out, also darkened, blurred, turned and mirrored, or with a focal length that is off; and images of other
places.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from scenes import CACHE, DATA

from hfnet_edge.errors import InputError
from hfnet_edge.features import Features, extract
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.photo import load_photo
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.intrinsics import with_focal
from hfnet_edge.pose.refinement import retract
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.reference import read_reference
from hfnet_maps.pack.writer import full_sections, to_map

# Median distance of what is seen, metres, as places of their kind have it: their models have no scale.
DEPTHS = {
    "sceaux": 40, "lund_door": 8, "cyprus": 15, "monstree": 3, "fox": 1, "statue_liberty": 150,
    "corridor": 4, "south": 20, "gerrard": 25, "bonsai": 2,
}  # fmt: skip
THINNED = {"bonsai": 3, "gerrard": 2}  # every so-many-th image: maps of all would take an hour
SEQUENCES = ("corridor", "bonsai")  # of train_views: neighbours in the list are neighbours
FOCAL = (0.6, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.01, 1.02, 1.03, 1.05, 1.1, 1.25)
FEW = 20  # images, below which a place is mapped in one way
QUERIES = 20  # of each map
FOREIGN = 12  # queries from other places, of each map
HALF_TURN = np.diag([-1.0, -1.0, 1.0])
CHANGES = {
    "turned": lambda image: image[::-1, ::-1],
    "upside down": lambda image: image[::-1],
    "mirrored": lambda image: image[:, ::-1],
    "negative": lambda image: 255 - image,
    "blurred": lambda image: cv2.blur(image, (15, 15)),
    "dark": lambda image: np.clip(np.random.default_rng(0).normal(image * 0.12, 3), 0, 255).astype(np.uint8),
}


@dataclass(frozen=True)
class Pair:
    """A query in a map.

    Attributes:
        place, split: of the map. query_place, query, change: of the query; ``change`` one of `CHANGES` or "".
        focal: what its focal length is multiplied by.
        map: the map. features, camera: of the query.
        truth: cam_from_world; None where the query shows no place of the map.
        depth: of the place, metres.
    """

    place: str
    split: str
    query_place: str
    query: str
    change: str
    focal: float
    map: LocalizationMap
    features: Features
    camera: Camera
    truth: Pose | None
    depth: float


class Place:
    """One place, scaled to metres."""

    def __init__(self, name: str, model: Model):
        self.name, self.model, self.depth = name, model, float(DEPTHS[name])
        known = DATA / "train_scenes" / name
        self.images = known / "images" if known.is_dir() else DATA / "train_views" / name
        self.folder = known / "model" if known.is_dir() else reconstructed(name)
        reference = read_reference(self.folder)
        self.names = sorted(reference.poses)[:: THINNED.get(name, 1)]
        self.cameras = {name: reference.camera(name) for name in self.names}
        scale = self.depth / self._depth(reference.poses)
        self.poses = {n: Pose(p.quaternion, p.translation * scale) for n, p in reference.poses.items()}
        self._features: dict[tuple[str, str], Features] = {}

    def _depth(self, poses: dict[str, Pose]) -> float:
        xyz = np.array([point.xyz for point in pycolmap.Reconstruction(self.folder).points3D.values()])
        depths = []
        for name in self.names:
            seen, camera = poses[name].transform(xyz), self.cameras[name]
            xy = camera.project(seen)
            inside = (xy > 0).all(axis=1) & (xy < (camera.width, camera.height)).all(axis=1)
            if inside.any():
                depths.append(np.median(seen[inside, 2]))
        return float(np.median(depths))

    def features(self, name: str, change: str = "") -> Features:
        """Of an image, or of what a change makes of it."""
        if (name, change) not in self._features:
            path, camera = self.images / name, self.camera(name, change)
            if change:
                image = CHANGES[change](cv2.imread(str(path)))
                path = CACHE / f"changed_{self.name}.png"
                cv2.imwrite(str(path), image)
            photo = load_photo(path, self.model.description.input_size, camera)
            self._features[name, change] = extract(self.model, photo)
        return self._features[name, change]

    def camera(self, name: str, change: str = "") -> Camera:
        """Of an image, or of what a change makes of it."""
        return changed_camera(self.cameras[name], change)

    def map_without(self, left_out: list[str], poses: dict[str, Pose] | None = None) -> LocalizationMap:
        """Raises InputError: too little is left."""
        names = [name for name in self.names if name not in set(left_out)]
        poses = poses or self.poses
        built, _ = map_from_features(
            names,
            [self.cameras[name] for name in names],
            [poses[name] for name in names],
            [self.features(name) for name in names],
            self.model.description,
        )
        return to_map(full_sections(built))

    @cached_property
    def far(self) -> np.ndarray:
        """(N, N) how far views are from each other, see `hfnet_edge.trust.second_look.nearest_views`."""
        centers = np.stack([self.poses[name].center for name in self.names])
        axes = np.stack([self.poses[name].rotation[2] for name in self.names])
        apart = np.linalg.norm(centers[:, None] - centers[None], axis=2) / self.depth
        return apart + np.arccos(np.clip(axes @ axes.T, -1, 1))

    def drifting(self) -> dict[str, Pose]:
        """Poses that are off by up to a few degrees and hundredths of the depth, smoothly along the list."""
        rng, at = np.random.default_rng(1), np.linspace(0, 1, len(self.names))[:, None]

        def smooth(size: float) -> np.ndarray:
            waves = [rng.normal(size=3) * np.sin(2 * np.pi * (k * at + rng.uniform(size=3))) for k in (1, 2, 4, 8)]
            return size * np.sum(waves, axis=0) / np.sqrt(6)

        turns, moves, poses = smooth(np.radians(1.5)), smooth(0.01 * self.depth), {}
        for name, turn, move in zip(self.names, turns, moves, strict=True):
            turned = retract(Pose(self.poses[name].quaternion, np.zeros(3)), np.concatenate([turn, np.zeros(3)]))
            poses[name] = Pose(turned.quaternion, -turned.rotation @ (self.poses[name].center + move))
        return poses

    def splits(self) -> Iterator[tuple[str, list[str], dict[str, Pose] | None]]:
        """Name, images left out, and the poses of the map."""
        third = self.names[::3]
        blocks = [name for i, name in enumerate(self.names) if (i // 6) % 3 == 2]
        yield "third", third, None
        if len(self.names) < FEW:
            yield "another third", self.names[1::3], None
            yield "last third", self.names[2::3], None
            return
        yield "blocks", blocks, None
        yield "sparse", [name for i, name in enumerate(self.names) if i % 5], None
        yield "drifting", blocks, self.drifting()
        rng = np.random.default_rng(2)
        for k in range(3):
            near = self.far[rng.integers(len(self.names))] < (0.4, 0.6, 0.8)[k]
            if near.sum() <= len(self.names) * 0.7:
                yield f"far {k}", [name for name, out in zip(self.names, near, strict=True) if out], None

    def pairs(self, others: list[Place]) -> Iterator[Pair]:
        """All pairs of this place's maps."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        for split, left_out, poses in self.splits():
            try:
                map_ = self.map_without(left_out, poses)
            except InputError:
                continue
            rows = np.unique(np.linspace(0, len(left_out) - 1, QUERIES).astype(int))
            for name in (left_out[i] for i in rows):
                of_query = (self.name, split, self.name, name)
                truth, camera = self.poses[name], self.cameras[name]
                yield Pair(*of_query, "", 1.0, map_, self.features(name), camera, truth, self.depth)
                if rng.uniform() < 0.5:
                    focal = float(rng.choice(FOCAL))
                    yield Pair(
                        *of_query, "", focal, map_, self.features(name), with_focal(camera, focal), truth, self.depth
                    )
                few = len(self.names) < FEW
                for change in list(CHANGES) if few else rng.choice(list(CHANGES), 2, replace=False):
                    changed, of = self.features(name, change), self.camera(name, change)
                    yield Pair(*of_query, change, 1.0, map_, changed, of, changed_truth(truth, change), self.depth)
            for other in (others[i] for i in rng.integers(0, len(others), FOREIGN) if others):
                name = str(rng.choice(other.names))
                of_query = (self.name, split, other.name, name)
                features, camera = other.features(name), other.cameras[name]
                yield Pair(*of_query, "", 1.0, map_, features, camera, None, self.depth)


def changed_camera(camera: Camera, change: str) -> Camera:
    """The camera that took what a change makes of an image."""
    params, at = list(camera.params), 2 if camera.model in ("PINHOLE", "OPENCV") else 1
    if change in ("turned", "mirrored"):
        params[at] = camera.width - params[at]
    if change in ("turned", "upside down"):
        params[at + 1] = camera.height - params[at + 1]
    return replace(camera, params=tuple(params))


def changed_truth(pose: Pose, change: str) -> Pose | None:
    """The pose of what a change makes of an image; None: no camera takes that."""
    if change in ("mirrored", "upside down"):
        return None
    if change == "turned":
        return Pose.from_matrix(HALF_TURN @ pose.rotation, HALF_TURN @ pose.translation)
    return pose


def reconstructed(name: str) -> Path:
    """The folder of a place's model, by SIFT and pycolmap; minutes, the first time."""
    folder = CACHE / "train_views" / name
    if (folder / "model" / "images.txt").exists():
        return folder / "model"
    folder.mkdir(parents=True, exist_ok=True)
    pycolmap.logging.minloglevel = 2
    images, database = DATA / "train_views" / name, folder / "database.db"
    database.unlink(missing_ok=True)
    options = pycolmap.FeatureExtractionOptions(use_gpu=False)
    options.sift.max_num_features = 3000
    pycolmap.extract_features(database, images, camera_mode=pycolmap.CameraMode.SINGLE, extraction_options=options)
    matching = pycolmap.FeatureMatchingOptions(use_gpu=False)
    if name in SEQUENCES[:1]:
        pycolmap.match_sequential(database, matching_options=matching)
    else:
        pycolmap.match_exhaustive(database, matching_options=matching)
    found = pycolmap.incremental_mapping(database, images, folder)
    (folder / "model").mkdir()
    max(found.values(), key=lambda model: model.num_reg_images()).write_text(folder / "model")
    return folder / "model"
