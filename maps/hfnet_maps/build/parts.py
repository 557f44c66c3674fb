"""Poses of more photos than one process reconstructs: SfM of parts of the place, then a fold.

    pairs ─> partition with overlap ─> SfM of each part ─> one camera a device ─> each part again ─> fold

Each part is a task, kept by key. Parts overlap by the photos at their borders, which the fold goes by.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pycolmap

from hfnet_edge.geometry import Camera
from hfnet_edge.shell.console import Report, silent
from hfnet_maps.build.choices import Mapper
from hfnet_maps.build.crew import Crew
from hfnet_maps.build.fold import Part, fold
from hfnet_maps.build.partition import halo, partition
from hfnet_maps.build.photos import Photos
from hfnet_maps.build.structure import SfmModel, posed_model, reconstruct, transformed, with_cameras
from hfnet_maps.build.work_files import Files
from hfnet_maps.build.work_store import At, key_of, read_features, read_pairs
from hfnet_maps.build.workers import KeptPhotos, files_of

PART = 300  # photos that are reconstructed together, ...
OVERLAP = 100  # ... with so many of other parts at most
MODELS = "models"  # folder of the store
TENTH = 10  # of a photo's points nearer than this: its depth, for what a turn moves


@dataclass(frozen=True)
class _PartTask:
    store: str
    target: str
    photos: Photos
    features: tuple[At, ...]
    pairs: tuple[tuple[int, int, At], ...]
    mapper: Mapper


@dataclass(frozen=True)
class _AgainTask:
    store: str
    source: str
    target: str
    cameras: tuple[tuple[int, Camera], ...]
    pixel: float


@dataclass(frozen=True)
class _Model:
    """What is needed of a part's model: by rows of all photos, and of the devices."""

    core: frozenset[int]
    part: Part
    cameras: dict[int, Camera]


def reconstruct_parts(
    kept: KeptPhotos,
    pairs: Sequence[tuple[int, int]],
    keys: Sequence[str],
    shared: np.ndarray,
    mapper: Mapper,
    crew: Crew,
    progress: Report = silent,
) -> list[SfmModel]:
    """Models of poses and cameras, without points; the one of most photos first.

    Args:
        pairs, keys: of photos, and of what the store has of them. shared: (P,) matches of one geometry.
    """
    files, held = kept.store.files, np.flatnonzero(shared)
    edges = np.array(pairs, np.int64).reshape(-1, 2)[held]
    labels = partition(len(kept.keys), edges, shared[held], PART)
    rows: list[np.ndarray] = []  # photos of each part, ...
    core: list[frozenset[int]] = []  # ... and which of them are no other's
    tasks: list[_PartTask] = []
    for part, beside in enumerate(halo(labels, edges, shared[held], OVERLAP)):
        own = np.flatnonzero(labels == part)
        photos = np.union1d(own, beside)
        inside = held[np.isin(edges, photos).all(axis=1)]
        if len(inside):
            rows.append(photos)
            core.append(frozenset(own.tolist()))
            tasks.append(_part_task(kept, photos, inside, pairs, keys, mapper))
    _do(_reconstruct, tasks, files, crew, progress, "sfm of parts")

    def models(targets: Iterable[_PartTask | _AgainTask]) -> list[_Model]:
        return [m for one in zip(targets, rows, core, strict=True) for m in _models(files, *one)]

    cameras = _common_cameras(models(tasks), kept.photos)
    told, pixel = tuple(sorted(cameras.items())), float(np.median(kept.pixels))
    again = [
        _AgainTask(files.where, task.target, f"{MODELS}/{key_of('again', task.target, told)}.zip", told, pixel)
        for task in tasks
    ]
    _do(_adjust, again, files, crew, progress, "adjust parts")
    return _folded(models(again), kept.photos, cameras)


def _part_task(
    kept: KeptPhotos,
    rows: np.ndarray,
    inside: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    keys: Sequence[str],
    mapper: Mapper,
) -> _PartTask:
    number = {photo: row for row, photo in enumerate(rows.tolist())}
    made_of = key_of("part", mapper, *(kept.keys[i] for i in rows), *(keys[k] for k in inside))
    return _PartTask(
        kept.store.files.where,
        f"{MODELS}/{made_of}.zip",
        kept.photos.take(rows.tolist(), {}),
        tuple(kept.store.at(kept.keys[i]) for i in rows),
        tuple((number[pairs[k][0]], number[pairs[k][1]], kept.store.at(keys[k])) for k in inside),
        mapper,
    )


def _do(
    function: Callable[[Any], None], tasks: Sequence[Any], files: Files, crew: Crew, progress: Report, what: str
) -> None:
    todo = [task for task in tasks if task.target not in files]
    for _ in crew.run(function, todo, progress, what, len(tasks) - len(todo), len(tasks)):
        pass


def _reconstruct(task: _PartTask) -> None:
    """Writes the models of a part."""
    files = files_of(task.store)
    features = [read_features(files, at)[0] for at in task.features]
    found = read_pairs(files, [at for _, _, at in task.pairs])
    geometries = {(i, j): g for (i, j, _), (_, g) in zip(task.pairs, found, strict=True) if g is not None}
    _write_models(files, task.target, reconstruct(task.photos, features, geometries, task.mapper))


def _adjust(task: _AgainTask) -> None:
    """Writes the models of a part, adjusted to the cameras of all parts."""
    files, cameras = files_of(task.store), dict(task.cameras)
    models = [with_cameras(model, cameras, task.pixel) for model in _read_models(files, task.source)]
    _write_models(files, task.target, models)


def _write_models(files: Files, target: str, models: Sequence[SfmModel]) -> None:
    """COLMAP's binary models in a zip archive, a folder each."""
    with files.write(target) as raw, zipfile.ZipFile(raw, "w") as archive:
        for k, model in enumerate(models):
            with TemporaryDirectory() as folder:
                model.reconstruction.write_binary(folder)
                for file in sorted(Path(folder).iterdir()):
                    archive.write(file, f"{k}/{file.name}")


def _read_models(files: Files, name: str) -> Iterator[SfmModel]:
    """One at a time, for together they are large."""
    with files.read(name) as raw, zipfile.ZipFile(io.BytesIO(raw.read())) as archive, TemporaryDirectory() as folder:
        archive.extractall(folder)
        for path in sorted(Path(folder).iterdir(), key=lambda path: int(path.name)):
            yield transformed(pycolmap.Reconstruction(str(path)), 1.0, np.eye(3), np.zeros(3))


def _models(files: Files, task: _PartTask | _AgainTask, rows: np.ndarray, core: frozenset[int]) -> Iterator[_Model]:
    for model in _read_models(files, task.target):
        poses = {int(rows[i]): pose for i, pose in model.poses.items()}
        yield _Model(core, Part(poses, _depth(model)), model.cameras)


def _depth(model: SfmModel) -> float:
    """At which a tenth of the points are seen, in the median camera: near ones are most of what it sees."""
    points = np.array([point.xyz for point in model.reconstruction.points3D.values()])
    some = points[:: max(1, len(points) // 10000)]
    away = (np.linalg.norm(some - pose.center, axis=1) for pose in model.poses.values())
    return float(np.median([np.percentile(one, 100 / TENTH) for one in away]))


def _common_cameras(models: Sequence[_Model], photos: Photos) -> dict[int, Camera]:
    """One camera of each device: of the model that most photos have, the median of each number, weighed by photos."""
    found: dict[int, list[Camera]] = {}
    for model in models:
        for photo in model.part.poses:
            device = photos.device_of[photo]
            found.setdefault(device, []).append(model.cameras[device])
    cameras = {}
    for device, of_photos in sorted(found.items()):
        kinds = [camera.model for camera in of_photos]
        kind = max(sorted(set(kinds)), key=kinds.count)
        params = np.median([camera.params for camera in of_photos if camera.model == kind], axis=0)
        first = of_photos[0]
        cameras[device] = Camera(kind, first.width, first.height, tuple(map(float, params)))
    return cameras


def _folded(models: Sequence[_Model], photos: Photos, cameras: dict[int, Camera]) -> list[SfmModel]:
    """A photo's pose is that of the part whose core it is, or else of the first that has it."""
    joined = []
    for group in fold([model.part for model in models]):
        poses = {}
        for of_core in (True, False):
            for k, frame in zip(group.parts, group.frames, strict=True):
                for i, pose in models[k].part.poses.items():
                    if i not in poses and (i in models[k].core or not of_core):
                        poses[i] = frame.pose(pose)
        devices = {photos.device_of[i] for i in poses}
        used = {device: camera for device, camera in cameras.items() if device in devices}
        joined.append(posed_model(photos, dict(sorted(poses.items())), used))
    return sorted(joined, key=lambda model: -len(model.poses))
