"""Features, matches and geometries of photos, computed where a store lacks them, by one process or several.

Tasks are a few photos or pairs each, and write what they found into the store. Which process does which does not change
a bit of it.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from hfnet_edge.errors import ImageError, InputError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.console import Report
from hfnet_maps.build.builder import features_of
from hfnet_maps.build.candidates import candidate_pairs
from hfnet_maps.build.pairs import Matches, match_descriptors
from hfnet_maps.build.photos import Photos
from hfnet_maps.build.structure import Geometries, network_cameras, verify_geometry
from hfnet_maps.build.work_store import FEATURES, MATCHES, WorkStore, key_of

PHOTOS, PAIRS = 8, 64  # of a task


@dataclass(frozen=True)
class _PhotoTask:
    store: Path
    folder: Path
    models: tuple[Path, ...]
    dense: bool
    photos: tuple[tuple[str, str, Camera], ...]  # key, name, camera


@dataclass(frozen=True)
class _PairTask:
    store: Path
    pairs: tuple[tuple[str, str, tuple[str, str], tuple[dict, dict], tuple[float, float]], ...]
    # key, group, keys of features, cameras, pixels


def extract_into(
    store: WorkStore, photos: Photos, networks: Networks, dense: bool, jobs: int, progress: Report
) -> tuple[Photos, list[Features], list[np.ndarray]]:
    """Features of the photos that decode, with their hypercolumns where they are wanted; the others are left out."""
    keys = feature_keys(photos, networks, dense)
    todo = [(key, name, photos.camera(i)) for i, (key, name) in enumerate(zip(keys, photos.names, strict=True))]
    todo = [one for one in todo if one[0] not in store]
    models = tuple(Path(network.path) for network in networks)
    tasks = [_PhotoTask(store.folder, photos.folder, models, dense, tuple(part)) for part in _parts(todo, PHOTOS)]
    failed: dict[str, str] = {}
    run = _extract if jobs > 1 else lambda task: _extract(task, networks)
    for done in _run(run, tasks, jobs, progress, "extract", len(keys) - len(todo), len(keys), lambda t: len(t.photos)):
        failed |= done
    store.look()
    kept = [i for i, key in enumerate(keys) if key in store]
    used = photos.take(kept, photos.left_out | failed)
    store.gather(FEATURES, [keys[i] for i in kept])
    found = [store.features(keys[i]) for i in kept]
    return used, [f for f, _ in found], [h for _, h in found if h is not None]


def match_into(
    store: WorkStore,
    photos: Photos,
    features: Sequence[Features],
    networks: Networks,
    dense: bool,
    jobs: int,
    progress: Report,
) -> tuple[Matches, Geometries]:
    """Matches and geometries of the pairs that `candidate_pairs` names."""
    of_photo = feature_keys(photos, networks, dense)
    cameras, pixels = network_cameras(photos, features)
    told = [{**camera.todict(), "model": camera.model_name, "params": list(camera.params)} for camera in cameras]
    pairs = candidate_pairs(np.stack([f.global_descriptor for f in features]))
    keys, todo = [], []
    for i, j in pairs:
        a, b = photos.device_of[i], photos.device_of[j]
        described = tuple((str(cameras[d]), cameras[d].has_prior_focal_length, pixels[d]) for d in (a, b))
        key = key_of("pair", of_photo[i], of_photo[j], described)
        keys.append(key)
        if key not in store:
            group = "/".join(photos.names[photo].replace("/", "-") for photo in (i, j))
            todo.append((key, group, (of_photo[i], of_photo[j]), (told[a], told[b]), (pixels[a], pixels[b])))
    tasks = [_PairTask(store.folder, tuple(part)) for part in _parts(todo, PAIRS)]
    run = _match if jobs > 1 else lambda task: _match(task, store)
    for _ in _run(run, tasks, jobs, progress, "match", len(keys) - len(todo), len(keys), lambda t: len(t.pairs)):
        pass
    store.look()
    store.gather(MATCHES, keys)
    found = dict(zip(pairs, store.pairs(keys), strict=True))
    matches = {pair: rows for pair, (rows, _) in found.items()}
    return matches, {pair: geometry for pair, (_, geometry) in found.items() if geometry is not None}


def feature_keys(photos: Photos, networks: Networks, dense: bool) -> list[str]:
    """Of each photo: what its features are made of, the file's content, the networks' files, and the camera's size."""
    models = [hashlib.sha256(Path(network.path).read_bytes()).hexdigest() for network in networks]
    of_models = [*models, dense]
    sizes = [(photos.camera(i).width, photos.camera(i).height) for i in range(len(photos.names))]
    return [
        key_of("features", name, content, size, *of_models)
        for name, content, size in zip(photos.names, photos.content, sizes, strict=True)
    ]


def _run(
    run: Callable[[Any], Any],
    tasks: Sequence[Any],
    jobs: int,
    progress: Report,
    what: str,
    done: int,
    total: int,
    size: Callable[[Any], int],
) -> Iterator[Any]:
    """What each task returns, in any order."""
    progress(what, done, total)
    if jobs <= 1:
        for task in tasks:
            yield run(task)
            done += size(task)
            progress(what, done, total)
        return
    if not tasks:
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(jobs, len(tasks)), spawn, initializer=_end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        running = {pool.submit(run, task): task for task in tasks}
        try:
            for future in as_completed(running):
                yield future.result()
                done += size(running[future])
                progress(what, done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent was killed, which would leave it waiting for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _extract(task: _PhotoTask, networks: Networks | None = None) -> dict[str, str]:
    """Writes a part; name to reason of what does not decode."""
    networks = networks or _networks(task.models)
    found, failed = {}, {}
    for key, name, camera in task.photos:
        try:
            found[key] = name, features_of(task.folder / name, camera, networks, task.dense)
        except ImageError as e:
            failed[name] = e.problem
    if found:
        _store(task.store).write_features(found)
    return failed


def _match(task: _PairTask, store: WorkStore | None = None) -> None:
    """Writes a part."""
    store = store or _store(task.store)
    found = {}
    for key, group, of_photos, of_cameras, pixels in task.pairs:
        a, b = (_features(store, key_of_photo) for key_of_photo in of_photos)
        rows = match_descriptors(a.descriptors, b.descriptors)
        cameras = [_camera(described) for described in of_cameras]
        xy = [f.keypoints / pixel for f, pixel in zip((a, b), pixels, strict=True)]
        geometry = verify_geometry(cameras[0], xy[0], cameras[1], xy[1], rows)
        found[key] = group, (rows, geometry), len(a.keypoints)
    store.write_pairs(found)


def _camera(described: dict) -> pycolmap.Camera:
    camera = pycolmap.Camera(
        model=described["model"], width=described["width"], height=described["height"], params=described["params"]
    )
    camera.has_prior_focal_length = described["has_prior_focal_length"]
    return camera


@lru_cache(maxsize=1)
def _networks(models: tuple[Path, ...]) -> Networks:
    return Networks(*models)


@lru_cache(maxsize=1)
def _store(folder: Path) -> WorkStore:
    return WorkStore(folder)


@lru_cache(maxsize=256)
def _features(store: WorkStore, key: str) -> Features:
    if key not in store:
        store.look()
    if key not in store:
        raise InputError(f"{store.folder} has changed while it was used", "run one build at a time into one output")
    return store.features(key)[0]


def _parts(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
