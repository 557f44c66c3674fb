"""Builds maps from photos alone: poses by structure from motion, then the builder's own path.

    photos ─> extract ─> pairs that look alike ─> match ─> verify ─> SfM ─> a map of each model

A place whose photos fall into parts that share nothing gives a model and a map of each part, in frames of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hfnet_edge.errors import ImageError, InputError
from hfnet_edge.features import Features
from hfnet_edge.networks.by_role import Networks
from hfnet_edge.networks.network import Network
from hfnet_edge.shell.console import Report, silent
from hfnet_maps.build.builder import BuildReport, check_networks, described_by, features_of, map_from_features, timed
from hfnet_maps.build.candidates import candidate_pairs
from hfnet_maps.build.choices import Mapper
from hfnet_maps.build.pairs import MIN_MATCHES, Matches, match_descriptors
from hfnet_maps.build.photos import Photos, find_photos
from hfnet_maps.build.placement import Place, Placed
from hfnet_maps.build.structure import (
    Geometries,
    SfmModel,
    reconstruct,
    verify_pairs,
    why_unregistered,
)
from hfnet_maps.build.work_store import WorkStore
from hfnet_maps.build.workers import extract_into, match_into
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


def maps_from_photos(
    images: Path,
    networks: Networks | Network,
    names: Sequence[str] | None = None,
    mapper: Mapper = Mapper.INCREMENTAL,
    dense: bool = False,
    place: Place | None = None,
    progress: Report = silent,
    store: WorkStore | None = None,
    jobs: int = 1,
) -> PhotoMaps:
    """Maps of the places that photos show.

    Args:
        images: folder of the photos. names: of those that are used; None: all.
        networks, dense: see `hfnet_maps.build.builder.build_map`. place: gives a model its frame; for parts that it
            knows too little of, they stay as they are.
        store: of results that need not be computed again. jobs: processes; more than one need a store.

    Raises:
        MismatchError: the network has no hypercolumns.
        InputError: there are fewer than two photos, or none share anything. The message says at which stage it ended.
    """
    networks = Networks.of(networks)
    check_networks(networks, dense)
    seconds: dict[str, float] = {}
    found = find_photos(images, names)
    if place is not None:
        place.check(found)
    with timed(seconds, "extract"):
        if store is None:
            photos, features, hypercolumns = extract_photos(found, networks, dense, progress)
        else:
            photos, features, hypercolumns = extract_into(store, found, networks, dense, jobs, progress)
    with timed(seconds, "match"):
        if store is None:
            matches = match_photos(features, progress)
            geometries = verify_pairs(photos, features, matches, progress)
        else:
            matches, geometries = match_into(store, photos, features, networks, dense, jobs, progress)
    with timed(seconds, "sfm"):
        models = reconstruct(photos, features, geometries, mapper, progress) if geometries else []
    if not models:
        raise _no_model(len(photos.names), matches, geometries)
    placed = [None if place is None else _placed(place, photos, features, m, k > 0) for k, m in enumerate(models)]
    models = [model if p is None else p.model for model, p in zip(models, placed, strict=True)]
    maps = [map_of_model(photos, features, model, matches, networks, hypercolumns, progress) for model in models]
    for k, p in enumerate(placed):
        if p is not None and p.earth is not None:
            maps[k] = replace(maps[k][0], earth=p.earth), maps[k][1]
    why = why_unregistered(photos, features, geometries, models)
    return PhotoMaps(photos, features, models, maps, placed, why, len(matches), len(geometries), seconds)


def _placed(
    place: Place, photos: Photos, features: Sequence[Features], model: SfmModel, may_fail: bool
) -> Placed | None:
    try:
        return place(photos, features, model)
    except InputError:
        if may_fail:
            return None
        raise


def match_photos(features: Sequence[Features], progress: Report = silent) -> Matches:
    """Matches of all pairs that `candidate_pairs` names."""
    matches: Matches = {}
    pairs = candidate_pairs(np.stack([f.global_descriptor for f in features]))
    for k, (i, j) in enumerate(pairs):
        progress("match", k, len(pairs))
        matches[i, j] = match_descriptors(features[i].descriptors, features[j].descriptors)
    progress("match", len(pairs), len(pairs))
    return matches


def map_of_model(
    photos: Photos,
    features: Sequence[Features],
    model: SfmModel,
    matches: Matches,
    networks: Networks,
    hypercolumns: Sequence[np.ndarray] = (),
    progress: Report = silent,
) -> tuple[BuiltMap, BuildReport]:
    """The map of the photos that a model has, with the model's poses. Args as elsewhere here, of all photos."""
    rows = list(model.poses)
    row_of = {photo: row for row, photo in enumerate(rows)}
    known = {(row_of[i], row_of[j]): found for (i, j), found in matches.items() if i in row_of and j in row_of}
    local, retrieval = described_by(networks)
    return map_from_features(
        [photos.names[i] for i in rows],
        [model.cameras[photos.device_of[i]] for i in rows],
        list(model.poses.values()),
        [features[i] for i in rows],
        local,
        progress,
        retrieval=retrieval,
        hypercolumns=[hypercolumns[i] for i in rows] if len(hypercolumns) else None,
        known=known,
    )


def extract_photos(
    photos: Photos, networks: Networks, dense: bool = False, progress: Report = silent
) -> tuple[Photos, list[Features], list[np.ndarray]]:
    """Features of the photos that decode, with their hypercolumns where they are wanted; the others are left out."""
    kept, features, hypercolumns, damaged = [], [], [], dict(photos.left_out)
    for i, name in enumerate(photos.names):
        progress("extract", i, len(photos.names))
        try:
            found, dense_ones = features_of(photos.folder / name, photos.camera(i), networks, dense)
        except ImageError as e:
            damaged[name] = e.problem
            continue
        kept.append(i)
        features.append(found)
        if dense_ones is not None:
            hypercolumns.append(dense_ones)
    progress("extract", len(photos.names), len(photos.names))
    used = photos.take(kept, damaged)
    return used, features, hypercolumns


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
