"""Builds maps from photos alone: poses by structure from motion, then the builder's own path.

    photos ─> extract ─> pairs that look alike ─> match ─> verify ─> SfM ─> a map of each model

A place whose photos fall into parts that share nothing gives a model and a map of each part, in frames of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.features import Features
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.network import Network
from hfnet_edge.shell.console import Report, silent
from hfnet_maps.build.builder import BuildReport, check_networks, described_by, map_from_features, timed
from hfnet_maps.build.choices import Mapper
from hfnet_maps.build.crew import ALONE, Crew
from hfnet_maps.build.pairs import MIN_MATCHES, Matches
from hfnet_maps.build.photos import Photos, find_photos
from hfnet_maps.build.placement import Place, Placed, placed
from hfnet_maps.build.structure import Geometries, SfmModel, reconstruct, why_unregistered
from hfnet_maps.build.work_store import FEATURES, MATCHES, WorkStore, read_pairs
from hfnet_maps.build.workers import choose_pairs, extract_into, match_into
from hfnet_maps.content import BuiltMap


@dataclass(frozen=True)
class PhotoMaps:
    """What came of photos.

    Attributes:
        photos: that were used. features: of each.
        models: the one of most photos first.
        maps: of each model, with what came of its build.
        placed: how each model came to its frame; None: it stands upright, in units of its own.
        unregistered: name to reason.
        pairs_tried, pairs_verified: of photos.
        seconds: by stage, without those of the maps.
    """

    photos: Photos
    features: list[Features]
    models: list[SfmModel]
    maps: list[tuple[BuiltMap, BuildReport]]
    placed: list[Placed | None]
    unregistered: dict[str, str]
    pairs_tried: int
    pairs_verified: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Looked:
    """Photos, what was found in them, and what of it matches; M photos.

    Attributes:
        photos: that decode. features, hypercolumns: of each; no hypercolumns where they are not wanted.
        matches, geometries: of the pairs that were tried, and of those that have a geometry.
    """

    photos: Photos
    features: list[Features]
    hypercolumns: list[np.ndarray]
    matches: Matches
    geometries: Geometries


def maps_from_photos(
    images: Path,
    networks: Networks | Network,
    store: WorkStore,
    names: Sequence[str] | None = None,
    mapper: Mapper = Mapper.INCREMENTAL,
    dense: bool = False,
    place: Place | None = None,
    progress: Report = silent,
    crew: Crew = ALONE,
) -> PhotoMaps:
    """Maps of the places that photos show.

    Args:
        images: folder of the photos. names: of those that are used; None: all.
        networks, dense: see `hfnet_maps.build.builder.build_map`. place: gives a model its frame; for parts that it
            knows too little of, they stay as they are.
        store: of results that need not be computed again. crew: who computes.

    Raises:
        MismatchError: the network has no hypercolumns.
        InputError: there are fewer than two photos, or none share anything. The message says at which stage it ended.
        BackendError: the crew is gone.
    """
    networks = Networks.of(networks)
    check_networks(networks, dense)
    seconds: dict[str, float] = {}
    found = find_photos(images, names)
    if place is not None:
        place.check(found)
    looked = look(found, networks, store, dense, progress, crew, seconds)
    photos, features, matches, geometries = looked.photos, looked.features, looked.matches, looked.geometries
    with timed(seconds, "sfm"):
        models = reconstruct(photos, features, geometries, mapper, progress) if geometries else []
    if not models:
        raise _no_model(len(photos.names), matches, geometries)
    in_frame = placed(place, photos, features, models)
    models = [model if p is None else p.model for model, p in zip(models, in_frame, strict=True)]
    maps = [map_of_model(looked, model, networks, progress) for model in models]
    for k, p in enumerate(in_frame):
        if p is not None and p.earth is not None:
            maps[k] = replace(maps[k][0], earth=p.earth), maps[k][1]
    shared = {pair: len(geometry.inlier_matches) for pair, geometry in geometries.items()}
    why = why_unregistered(photos, [len(f.keypoints) for f in features], shared, models)
    return PhotoMaps(photos, features, models, maps, in_frame, why, len(matches), len(geometries), seconds)


def look(
    photos: Photos,
    networks: Networks,
    store: WorkStore,
    dense: bool = False,
    progress: Report = silent,
    crew: Crew = ALONE,
    seconds: dict[str, float] | None = None,
) -> Looked:
    """What is in the photos, and matches; all of it is in hloc's files of the store afterwards."""
    seconds = {} if seconds is None else seconds
    with timed(seconds, "extract"):
        kept = extract_into(store, photos, networks, dense, crew, progress)
        store.gather(FEATURES, kept.keys)
        found = [kept.found(i) for i in range(len(kept.keys))]
    with timed(seconds, "match"):
        pairs = choose_pairs(kept, crew, progress)
        keys = match_into(kept, pairs, crew, progress)
        store.gather(MATCHES, keys)
        of_pairs = dict(zip(pairs, read_pairs(store.files, [store.at(key) for key in keys]), strict=True))
    return Looked(
        kept.photos,
        [features for features, _ in found],
        [hypercolumns for _, hypercolumns in found if hypercolumns is not None],
        {pair: rows for pair, (rows, _) in of_pairs.items()},
        {pair: geometry for pair, (_, geometry) in of_pairs.items() if geometry is not None},
    )


def map_of_model(
    looked: Looked, model: SfmModel, networks: Networks, progress: Report = silent
) -> tuple[BuiltMap, BuildReport]:
    """The map of the photos that a model has, with the model's poses."""
    photos, features, hypercolumns = looked.photos, looked.features, looked.hypercolumns
    rows = list(model.poses)
    row_of = {photo: row for row, photo in enumerate(rows)}
    known = {(row_of[i], row_of[j]): found for (i, j), found in looked.matches.items() if i in row_of and j in row_of}
    local, retrieval = described_by(networks)
    return map_from_features(
        [photos.names[i] for i in rows],
        [model.cameras[photos.device_of[i]] for i in rows],
        list(model.poses.values()),
        [features[i] for i in rows],
        local,
        progress,
        retrieval=retrieval,
        hypercolumns=[hypercolumns[i] for i in rows] if hypercolumns else None,
        known=known,
    )


def _no_model(count: int, matches: Matches, geometries: Geometries) -> InputError:
    best = max((len(g.inlier_matches) for g in geometries.values()), default=0)
    if not geometries:
        why = f"in none of {len(matches)} pairs do {MIN_MATCHES} matches fit one geometry: they do not overlap"
    else:
        why = f"{len(geometries)} pairs share up to {best} matches, too few or seen from one spot"
    return InputError(
        f"no two of {count} photos could be registered: {why}",
        "take photos that overlap by half, from places that stand apart",
    )
