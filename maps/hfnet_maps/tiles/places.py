"""Places too large for one map, from photos with poses or without: a folder of tiles.

    photos ─> extract ─> choose pairs ─> match ─> (SfM of parts) ─> tiles

All of it is tasks of a crew, kept in a store. `hfnet_maps.build.builder` and `hfnet_maps.build.from_photos` are the
same for what one process holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.shell.console import Report, silent
from hfnet_maps.build.builder import check_networks, timed
from hfnet_maps.build.choices import Mapper
from hfnet_maps.build.crew import ALONE, Crew
from hfnet_maps.build.parts import reconstruct_parts
from hfnet_maps.build.photos import Photos, find_photos, posed_photos
from hfnet_maps.build.placement import Place, Placed, placed
from hfnet_maps.build.reference import read_reference
from hfnet_maps.build.structure import SfmModel, why_unregistered
from hfnet_maps.build.work_store import WorkStore, read_counts
from hfnet_maps.build.workers import KeptPhotos, choose_pairs, extract_into, match_into
from hfnet_maps.tiles.triangulate import PlaceReport, Posed, write_tiles


@dataclass(frozen=True)
class TiledPart:
    """Photos that hold together, in tiles.

    Attributes:
        folder: of the tiles.
        model: the poses that were found, where none were given. placed: how it came to its frame, if it did.
        report: of the tiles.
    """

    folder: Path
    model: SfmModel | None
    placed: Placed | None
    report: PlaceReport


@dataclass(frozen=True)
class LargePlace:
    """What came of a large place.

    Attributes:
        photos: that were used.
        parts: that of most photos first.
        unregistered: name to reason.
        pairs_tried, pairs_verified: of photos.
        seconds: by stage.
    """

    photos: Photos
    parts: tuple[TiledPart, ...]
    unregistered: dict[str, str]
    pairs_tried: int
    pairs_verified: int
    seconds: dict[str, float]


def place_with_poses(
    images: Path,
    reference: Path,
    names: Sequence[str],
    networks: Networks,
    store: WorkStore,
    size: int,
    folder: Path,
    dense: bool = False,
    crew: Crew = ALONE,
    progress: Report = silent,
) -> LargePlace:
    """Tiles of images whose cameras and poses a COLMAP model says.

    Args:
        images, reference, names, networks, dense: see `hfnet_maps.build.builder.build_map`.
        store: of results that need not be computed again. crew: who computes.
        size, folder: see `hfnet_maps.tiles.triangulate.write_tiles`.

    Raises:
        HFNetEdgeError: what both of these raise.
    """
    check_networks(networks, dense)
    model = read_reference(reference)
    photos = posed_photos(images, {name: model.camera(name) for name in names})
    seconds: dict[str, float] = {}
    with timed(seconds, "extract"):
        kept = extract_into(store, photos, networks, dense, crew, progress)
    poses = [model.pose(name) for name in kept.photos.names]
    pairs, keys, shared = _matched(kept, poses, crew, progress, seconds)
    posed = Posed(
        kept,
        [kept.photos.camera(i) for i in range(len(poses))],
        poses,
        np.arange(len(poses)),
        pairs,
        keys,
        shared,
        chosen=True,
    )
    with timed(seconds, "tiles"):
        report = write_tiles(posed, networks, dense, size, folder, crew, progress)
    part = TiledPart(folder, None, None, report)
    return LargePlace(kept.photos, (part,), kept.photos.left_out, len(pairs), int((shared > 0).sum()), seconds)


def place_from_photos(
    images: Path,
    networks: Networks,
    store: WorkStore,
    size: int,
    folder: Path,
    names: Sequence[str] | None = None,
    mapper: Mapper = Mapper.INCREMENTAL,
    dense: bool = False,
    place: Place | None = None,
    crew: Crew = ALONE,
    progress: Report = silent,
) -> LargePlace:
    """Tiles of photos alone; those that do not hold together go into `town_2.tiles` beside `town.tiles`, and so on.

    Args:
        images, networks, names, mapper, dense, place: see `hfnet_maps.build.from_photos.maps_from_photos`.
        Others as of `place_with_poses`.

    Raises:
        HFNetEdgeError: what both of these raise.
    """
    check_networks(networks, dense)
    seconds: dict[str, float] = {}
    found = find_photos(images, names)
    if place is not None:
        place.check(found)
    with timed(seconds, "extract"):
        kept = extract_into(store, found, networks, dense, crew, progress)
    pairs, keys, shared = _matched(kept, None, crew, progress, seconds)
    with timed(seconds, "sfm"):
        models = reconstruct_parts(kept, pairs, keys, shared, mapper, crew, progress)
    if not models:
        raise InputError(
            f"no two of {len(kept.keys)} photos could be registered: {int((shared > 0).sum())} of {len(pairs)} pairs "
            "share matches of one geometry",
            "take photos that overlap by half, from places that stand apart",
        )
    parts = []
    for k, (model, in_frame) in enumerate(zip(models, placed(place, kept.photos, [], models), strict=True), 1):
        own = folder if k == 1 else folder.with_name(f"{folder.stem}_{k}{folder.suffix}")
        if in_frame is not None:
            model = in_frame.model
        rows = np.array(list(model.poses), np.int64)
        cameras = [model.cameras[kept.photos.device_of[i]] for i in rows]
        posed = Posed(kept, cameras, list(model.poses.values()), rows, pairs, keys, shared, chosen=False)
        earth = None if in_frame is None else in_frame.earth
        with timed(seconds, "tiles"):
            report = write_tiles(posed, networks, dense, size, own, crew, progress, earth)
        parts.append(TiledPart(own, model, in_frame, report))
    verified = {pairs[k]: int(shared[k]) for k in np.flatnonzero(shared)}
    why = why_unregistered(kept.photos, kept.counts.tolist(), verified, models)
    return LargePlace(kept.photos, tuple(parts), why, len(pairs), len(verified), seconds)


def _matched(
    kept: KeptPhotos, poses: Sequence[Pose] | None, crew: Crew, progress: Report, seconds: dict[str, float]
) -> tuple[list[tuple[int, int]], list[str], np.ndarray]:
    """Pairs, where the store has them, and their matches of one geometry."""
    with timed(seconds, "choose pairs"):
        pairs = choose_pairs(kept, crew, progress, poses)
    with timed(seconds, "match"):
        keys = match_into(kept, pairs, crew, progress, poses)
    return pairs, keys, read_counts(kept.store.files, [kept.store.at(key) for key in keys])
