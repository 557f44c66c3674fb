"""A place whose map no process holds: tiles of a covisibility partition, each triangulated by a task of its own.

    matches ─> partition, halo ─> triangulate each tile ─> a folder of tiles with an index

Poses are given, or come from `hfnet_maps.build.parts`. Whoever runs this holds numbers of pairs, and nothing of images.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.georeference import Earth
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.writing import CHECK
from hfnet_maps.build.builder import described_by, map_from_features
from hfnet_maps.build.crew import Crew
from hfnet_maps.build.partition import HALO, halo, partition
from hfnet_maps.build.work_store import At, key_of, read_features, read_pairs, told_pose
from hfnet_maps.build.workers import KeptPhotos, files_of, networks_of
from hfnet_maps.pack.writer import built_sections, write_into
from hfnet_maps.tiles.writer import NEW, index_place

TILES = "tiles"  # folder of the store


@dataclass(frozen=True)
class TileReport:
    """What came of a tile.

    Attributes:
        images: with the halo. landmarks, observations.
        agreement: see `hfnet_maps.build.builder.BuildReport`.
    """

    images: int
    landmarks: int
    observations: int
    agreement: float


@dataclass(frozen=True)
class PlaceReport:
    """What came of a place.

    Attributes:
        tiles: that it has. cut: share of the verified matches that lie between images of two tiles.
        blind: names of images that no tile has, for nothing can be triangulated with them.
        bytes: of all files.
    """

    tiles: tuple[TileReport, ...]
    cut: float
    blind: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class _TileTask:
    store: str
    target: str  # without its ending
    models: tuple[Path, ...]
    dense: bool
    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    poses: tuple[Pose, ...]
    features: tuple[At, ...]
    pairs: tuple[tuple[int, int, At], ...]
    chosen: bool  # the pairs are all that shall be matched
    earth: Earth | None


@dataclass(frozen=True)
class Posed:
    """Photos with poses, and what of them matches; M photos.

    Attributes:
        kept: their features. cameras, poses: of each; photos without a pose are not here.
        rows: (M,) int64 of ``kept``.
        pairs, keys, shared: of ``kept``'s photos: which were matched, where it is in the store, matches of one
            geometry.
        chosen: whether pairs were chosen by poses; else a tile matches some more.
    """

    kept: KeptPhotos
    cameras: Sequence[Camera]
    poses: Sequence[Pose]
    rows: np.ndarray
    pairs: Sequence[tuple[int, int]]
    keys: Sequence[str]
    shared: np.ndarray
    chosen: bool


def write_tiles(
    posed: Posed,
    networks: Networks,
    dense: bool,
    size: int,
    folder: Path,
    crew: Crew,
    progress: Report = silent,
    earth: Earth | None = None,
) -> PlaceReport:
    """Triangulates a place in tiles, and writes its folder.

    Args:
        size: images of a tile, about, without its halo. earth: where the place is.

    Raises:
        InputError: nothing can be triangulated. OutputError: the folder cannot be written.
        BackendError: the crew is gone.
    """
    number = np.full(len(posed.kept.keys), -1, np.int64)
    number[posed.rows] = np.arange(len(posed.rows))
    edges = number[np.array(posed.pairs, np.int64).reshape(-1, 2)]
    held = np.flatnonzero((posed.shared > 0) & (edges >= 0).all(axis=1))
    edges, weights = edges[held], posed.shared[held]
    if not len(held):
        raise InputError(
            f"nothing to triangulate: in none of {len(posed.pairs)} image pairs do the matches agree",
            "check that images, list and reference are of one place, and that the cameras stand apart",
        )
    labels = partition(len(posed.rows), edges, weights, size)
    linked, tasks, cores = np.unique(edges), [], []
    for part, beside in enumerate(halo(labels, edges, weights, round(HALO * size))):
        core = np.intersect1d(np.flatnonzero(labels == part), linked)
        images = np.union1d(core, beside)
        inside = np.flatnonzero(np.isin(edges, images).all(axis=1))
        if len(inside):
            tasks.append(_task(posed, images, held[inside], edges[inside], networks, dense, earth))
            cores.append(core)
    files = posed.kept.store.files
    todo = [task for task in tasks if f"{task.target}.json" not in files]
    run = _triangulate if crew.executor else lambda task: _triangulate(task, networks)
    for _ in crew.run(run, todo, progress, "triangulate tiles", len(tasks) - len(todo), len(tasks)):
        pass
    made = [_report(posed, task) for task in tasks]
    names = posed.kept.photos.names
    full = [k for k, report in enumerate(made) if report is not None]
    blind = set(range(len(posed.rows))) - {int(i) for k in full for i in cores[k]}

    def written() -> Iterator[tuple[Path, list[str]]]:
        for k in full:
            path = _brought(posed, tasks[k], folder)
            yield path, [names[posed.rows[i]] for i in cores[k]]

    try:
        folder.mkdir(exist_ok=True)
    except OSError as e:
        raise OutputError(f"cannot make the folder {folder}: {e.strerror or e}", CHECK) from e
    if not full:
        raise InputError("nothing to triangulate in any tile", "check the poses, and that the cameras stand apart")
    size_of_all = index_place(folder, written())
    between = labels[edges[:, 0]] != labels[edges[:, 1]]
    return PlaceReport(
        tuple(report for report in made if report is not None),
        float(weights[between].sum() / weights.sum()),
        tuple(names[posed.rows[i]] for i in sorted(blind)),
        size_of_all,
    )


def _task(
    posed: Posed,
    images: np.ndarray,
    inside: np.ndarray,
    edges: np.ndarray,
    networks: Networks,
    dense: bool,
    earth: Earth | None,
) -> _TileTask:
    """Of a tile of some images, ascending; ``inside`` are the pairs of them, ``edges`` these by image."""
    kept, rows = posed.kept, posed.rows[images]
    ends = np.searchsorted(images, edges).tolist()
    cameras, poses = [posed.cameras[i] for i in images], [posed.poses[i] for i in images]
    told = [f"{camera} {told_pose(pose)}" for camera, pose in zip(cameras, poses, strict=True)]
    made_of = key_of(
        "tile", *(kept.keys[i] for i in rows), *told, *(posed.keys[k] for k in inside), dense, posed.chosen, earth
    )
    return _TileTask(
        kept.store.files.where,
        f"{TILES}/{made_of}",
        tuple(Path(network.path) for network in networks),
        dense,
        tuple(kept.photos.names[i] for i in rows),
        tuple(cameras),
        tuple(poses),
        tuple(kept.store.at(kept.keys[i]) for i in rows),
        tuple((i, j, kept.store.at(posed.keys[k])) for (i, j), k in zip(ends, inside, strict=True)),
        posed.chosen,
        earth,
    )


def _triangulate(task: _TileTask, networks: Networks | None = None) -> None:
    """Writes a tile's map and then its report; a report of nothing where nothing can be triangulated."""
    files, networks = files_of(task.store), networks or networks_of(task.models)
    found = [read_features(files, at) for at in task.features]
    of_pairs = read_pairs(files, [at for _, _, at in task.pairs])
    known = {(i, j): rows for (i, j, _), (rows, _) in zip(task.pairs, of_pairs, strict=True)}
    local, retrieval = described_by(networks)
    try:
        built, report = map_from_features(
            task.names,
            task.cameras,
            task.poses,
            [features for features, _ in found],
            local,
            retrieval=retrieval,
            hypercolumns=[h for _, h in found if h is not None] or None,
            known=known,
            pairs=list(known) if task.chosen else None,
        )
    except InputError:
        told = None
    else:
        told = asdict(TileReport(report.images, report.landmarks, report.observations, report.agreement))
        with files.write(f"{task.target}.hfmap") as file:
            write_into(built_sections(replace(built, earth=task.earth)), file)
    with files.write(f"{task.target}.json") as file:
        file.write(json.dumps(told).encode())


def _report(posed: Posed, task: _TileTask) -> TileReport | None:
    with posed.kept.store.files.read(f"{task.target}.json") as file:
        told = json.loads(file.read())
    return None if told is None else TileReport(**told)


def _brought(posed: Posed, task: _TileTask, folder: Path) -> Path:
    """A tile's map, from the store into the place's folder, where it has no name yet."""
    path = folder / f"{NEW}{secrets.token_hex(8)}.hfmap"
    files = posed.kept.store.files
    try:
        if files.folder is not None:
            with suppress(OSError):  # another disk
                os.link(files.path(f"{task.target}.hfmap"), path)
                return path
        with files.read(f"{task.target}.hfmap") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
    except OSError as e:
        raise OutputError(f"cannot write {path}: {e.strerror or e}", CHECK) from e
    return path
