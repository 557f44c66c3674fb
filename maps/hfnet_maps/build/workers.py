"""Features, matches and geometries of photos, computed where a store lacks them, by a crew.

Tasks are a few photos or pairs each, name what they read, and write what they found into the store. Who does which does
not change a bit of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from hfnet_edge.errors import ImageError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.console import Report
from hfnet_edge.shell.one_thread import one_thread
from hfnet_maps.build import candidates
from hfnet_maps.build.builder import features_of
from hfnet_maps.build.candidates import (
    alike,
    apart,
    as_tuples,
    candidate_pairs,
    centers_and_axes,
    in_sequence,
    joined,
    near,
    select_pairs,
)
from hfnet_maps.build.crew import Crew
from hfnet_maps.build.pairs import MIN_MATCHES, agree_with_poses, match_descriptors
from hfnet_maps.build.photos import Device, Photos
from hfnet_maps.build.structure import network_camera, verify_geometry
from hfnet_maps.build.view import make_view
from hfnet_maps.build.work_files import Files
from hfnet_maps.build.work_store import (
    At,
    Found,
    Pair,
    WorkStore,
    key_of,
    read_features,
    read_looks,
    told_pose,
    write_features,
    write_pairs,
)

PHOTOS, PAIRS = 8, 64  # of a task
NEIGHBOURS = 16  # photos in a row, whose pairs with as many others come one after the other: they share features


@dataclass(frozen=True)
class KeptPhotos:
    """Photos whose features are in a store; M of them.

    Attributes:
        store: that has them. photos: whose they are.
        keys: (M,) of the features.
        counts: (M,) int64 keypoints.
        pixels: (M,) float64 `Features.pixel`.
        looks: (M, G) int8 global descriptors.
    """

    store: WorkStore
    photos: Photos
    keys: tuple[str, ...]
    counts: np.ndarray
    pixels: np.ndarray
    looks: np.ndarray

    def found(self, photo: int) -> Found:
        """A photo's features, and its hypercolumns."""
        return read_features(self.store.files, self.store.at(self.keys[photo]))

    def shot(self, photo: int, pose: Pose | None = None) -> Shot:
        """What a task is told of a photo."""
        of = self.photos.devices[self.photos.device_of[photo]]
        return Shot(self.keys[photo], self.store.at(self.keys[photo]), of, float(self.pixels[photo]), pose)


@dataclass(frozen=True)
class Shot:
    """A photo, as a task is told of it.

    Attributes:
        key, at: of its features, and where they are. device: that took it. pixel: `Features.pixel`.
        pose: cam_from_world, where it is known; the device's camera is then the true one.
    """

    key: str
    at: At
    device: Device
    pixel: float
    pose: Pose | None = None

    def described(self) -> str:
        """What the geometry of its pairs is made of."""
        pose = None if self.pose is None else told_pose(self.pose)
        return f"{self.key} {self.device.camera} {self.device.from_exif} {self.pixel} {pose}"


@dataclass(frozen=True)
class _PhotoTask:
    store: str
    folder: Path
    models: tuple[Path, ...]
    dense: bool
    photos: tuple[tuple[str, str, Camera], ...]  # key, name, camera


@dataclass(frozen=True)
class _PairTask:
    store: str
    shots: tuple[Shot, ...]
    pairs: tuple[tuple[str, str, int, int], ...]  # key, group, rows of the shots


@dataclass(frozen=True)
class _BlockTask:
    store: str
    source: str
    start: int
    stop: int


def extract_into(
    store: WorkStore, photos: Photos, networks: Networks, dense: bool, crew: Crew, progress: Report
) -> KeptPhotos:
    """Keeps the features of the photos that decode, with their hypercolumns where they are wanted."""
    keys = feature_keys(photos, networks, dense)
    todo = [(key, name, photos.camera(i)) for i, (key, name) in enumerate(zip(keys, photos.names, strict=True))]
    todo = [one for one in todo if one[0] not in store]
    models = tuple(Path(network.path) for network in networks)
    tasks = (_PhotoTask(store.files.where, photos.folder, models, dense, part) for part in _parts(todo, PHOTOS))
    failed: dict[str, str] = {}
    run = _extract if crew.executor else lambda task: _extract(task, networks)
    done = len(keys) - len(todo)
    for _, damaged in crew.run(run, tasks, progress, "extract", done, len(keys), lambda task: len(task.photos)):
        failed |= damaged
    store.look()
    kept = [i for i, key in enumerate(keys) if key in store]
    used = photos.take(kept, photos.left_out | failed)
    left = tuple(keys[i] for i in kept)
    return KeptPhotos(store, used, left, *read_looks(store.files, [store.at(key) for key in left]))


def choose_pairs(
    kept: KeptPhotos, crew: Crew, progress: Report, poses: Sequence[Pose] | None = None
) -> list[tuple[int, int]]:
    """The pairs of photos that `candidate_pairs` names, or with poses `select_pairs`; of many photos by blocks."""
    count = len(kept.keys)
    if count <= candidates.ALL_PAIRS:
        return candidate_pairs(kept.looks) if poses is None else select_pairs(poses, kept.looks)
    centers, axes = (None, None) if poses is None else centers_and_axes(poses)
    files = kept.store.files
    target = f"pairs/{key_of('looks', *kept.keys, poses is None)}.npz"
    told = {"looks": kept.looks} | ({} if centers is None or axes is None else {"centers": centers, "axes": axes})
    with files.write(target) as file:
        np.savez(file, allow_pickle=False, **told)
    tasks = [
        _BlockTask(files.where, target, start, min(start + candidates.ROWS, count))
        for start in range(0, count, candidates.ROWS)
    ]
    parts = [found for _, found in crew.run(_partners, tasks, progress, "choose pairs", 0, len(tasks))]
    files.remove(target)
    if centers is None:
        return as_tuples(joined(count, *parts, in_sequence(count)))
    return as_tuples(apart(joined(count, *parts), centers))


def match_into(
    kept: KeptPhotos,
    pairs: Sequence[tuple[int, int]],
    crew: Crew,
    progress: Report,
    poses: Sequence[Pose] | None = None,
) -> list[str]:
    """Keeps the matches and geometries of pairs; their keys.

    Args:
        poses: of the photos, where they are known; the matches then have to agree with them.
    """
    store, names = kept.store, [name.replace("/", "-") for name in kept.photos.names]
    shots = [kept.shot(i, None if poses is None else poses[i]) for i in range(len(names))]
    described = [shot.described() for shot in shots]
    keys = [key_of("pair", described[i], described[j]) for i, j in pairs]
    todo = [(key, pair) for key, pair in zip(keys, pairs, strict=True) if key not in store]
    todo.sort(key=lambda one: (one[1][0] // NEIGHBOURS, one[1][1] // NEIGHBOURS, one[1]))

    def tasks() -> Iterator[_PairTask]:
        for part in _parts(todo, PAIRS):
            used = sorted({photo for _, pair in part for photo in pair})
            row = {photo: k for k, photo in enumerate(used)}
            told = tuple((key, f"{names[i]}/{names[j]}", row[i], row[j]) for key, (i, j) in part)
            yield _PairTask(store.files.where, tuple(shots[photo] for photo in used), told)

    done = len(keys) - len(todo)
    for _ in crew.run(_match, tasks(), progress, "match", done, len(keys), lambda task: len(task.pairs)):
        pass
    store.look()
    return keys


def feature_keys(photos: Photos, networks: Networks, dense: bool) -> list[str]:
    """Of each photo: what its features are made of, the file's content, the networks' files, and the camera's size."""
    models = [hashlib.sha256(Path(network.path).read_bytes()).hexdigest() for network in networks]
    of_models = [*models, dense]
    sizes = [(photos.camera(i).width, photos.camera(i).height) for i in range(len(photos.names))]
    return [
        key_of("features", name, content, size, *of_models)
        for name, content, size in zip(photos.names, photos.content, sizes, strict=True)
    ]


def _extract(task: _PhotoTask, networks: Networks | None = None) -> dict[str, str]:
    """Writes a part; name to reason of what does not decode."""
    networks = networks or networks_of(task.models)
    found, failed = {}, {}
    for key, name, camera in task.photos:
        try:
            found[key] = name, features_of(task.folder / name, camera, networks, task.dense)
        except ImageError as e:
            failed[name] = e.problem
    if found:
        write_features(files_of(task.store), found)
    return failed


def _partners(task: _BlockTask) -> np.ndarray:
    """(P, 2) int64: photos of a block with their partners."""
    with files_of(task.store).read(task.source) as file, np.load(file) as told, one_thread():
        rows = slice(task.start, task.stop)
        found = [alike(told["looks"], rows)]
        if "centers" in told:
            found.append(near(told["centers"], told["axes"], rows))
        return np.concatenate(found)


def _match(task: _PairTask) -> None:
    """Writes a part."""
    found = {}
    with one_thread():
        for key, group, i, j in task.pairs:
            a, b = task.shots[i], task.shots[j]
            of_a, of_b = (_features(task.store, shot.at, shot.key) for shot in (a, b))
            found[key] = group, _pair(a, of_a, b, of_b), len(of_a.keypoints)
    write_pairs(files_of(task.store), found)


def _pair(a: Shot, of_a: Features, b: Shot, of_b: Features) -> Pair:
    """The matches of two photos, and what of them fits one geometry: that of the poses, or one that is found."""
    rows = match_descriptors(of_a.descriptors, of_b.descriptors)
    if a.pose is None or b.pose is None:
        camera_a, camera_b = (network_camera(shot.device, shot.pixel) for shot in (a, b))
        return rows, verify_geometry(camera_a, camera_b, of_a.keypoints / a.pixel, of_b.keypoints / b.pixel, rows)
    views = make_view(a.device.camera, a.pose, of_a), make_view(b.device.camera, b.pose, of_b)
    agreeing = rows[agree_with_poses(*views, rows)]
    enough = len(agreeing) >= MIN_MATCHES
    return rows, pycolmap.TwoViewGeometry(inlier_matches=agreeing.astype(np.uint32)) if enough else None


@lru_cache(maxsize=1)
def networks_of(models: tuple[Path, ...]) -> Networks:
    return Networks(*models)


@lru_cache(maxsize=256)
def _features(where: str, at: At, key: str) -> Features:
    """Those of the key, for the file at ``at`` may become another."""
    return read_features(files_of(where), at)[0]


@lru_cache(maxsize=4)
def files_of(where: str) -> Files:
    return Files(where)


def _parts(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    left = iter(items)
    while part := tuple(islice(left, size)):
        yield part
