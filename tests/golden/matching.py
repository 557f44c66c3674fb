"""From features to 2D-3D matches in a map: retrieval, places, compared, nearest, matches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from golden.folder import Folder
from golden.loading import INPUT_SIZE, grey
from golden.network import COUNT
from hfnet_edge.correspondences import Match2D3D
from hfnet_edge.features import Features, extract
from hfnet_edge.image.photo import Photo
from hfnet_edge.map.codecs import CodecName, project
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.covisibility import cluster
from hfnet_edge.methods.hierarchical import PRIOR_FRAMES
from hfnet_edge.methods.matching import match, nearest_two
from hfnet_edge.methods.retrieval import retrieve
from hfnet_edge.networks.hfnet import Model
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.pack.packer import Packer, Settings
from hfnet_maps.pack.writer import to_map
from hfnet_maps.synthetic_town.made_place import MadePlace

MAP_VIEWS = 16
ALL = 1 << 16  # landmarks: as many as there are
MAPS = {
    "int8": Settings(CodecName.INT8, 128, 0, 4, 512),  # nothing is projected
    "pq": Settings(CodecName.PQ, 64, 16, 4, 64),  # both are
    "binary": Settings(CodecName.BINARY, 128, 0, 4, 512),
}


def make_maps(folder: Folder, place: MadePlace, model: Model) -> dict[str, LocalizationMap]:
    """The place's map by each codec."""
    views = [view for view in place.views if not view.is_query]
    photos = [Photo(grey(place.render(v)), INPUT_SIZE, INPUT_SIZE[::-1]) for v in views]
    source, _ = map_from_features(
        [view.name for view in views],
        [view.camera for view in views],
        [view.pose for view in views],
        [extract(model, photo, COUNT) for photo in photos],
        model.description,
    )
    packer, maps = Packer(source), {}
    for name, settings in MAPS.items():
        maps[name] = to_map(packer.pack(settings, ALL))
        folder.files[map_file(name)] = bytes(maps[name].file.data)
    return maps


def map_file(name: str) -> str:
    """Where a map is in the folder."""
    return f"maps/{name}.hfmap"


def search_cases(
    folder: Folder, name: str, map_name: str, m: LocalizationMap, features: Features, arrays: Mapping[str, Any]
) -> list[tuple[np.ndarray, str]]:
    """Retrieval and places; returns the landmarks of each place that has some, and their file."""
    file = map_file(map_name)
    compared = m.global_query(features.global_descriptor)
    given: dict[str, Any] = {
        "map": file,
        "global_descriptor": arrays["global_descriptor"],
        "count": PRIOR_FRAMES,
    }
    expected = {"compared": folder.array(f"{name}/global_compared", compared, "retrieval", "global descriptor")}
    ranking = retrieval_case(folder, name, given, compared, m.global_descriptors, expected)
    places = cluster(m, ranking)
    files = [
        folder.array(f"{name}/place{i}", place.landmarks, "places", "landmarks of a place")
        if len(place.landmarks)
        else folder.nothing("places", "landmarks of a place that has none")
        for i, place in enumerate(places)
    ]
    found = [{"images": p.images.tolist(), "landmarks": listed} for p, listed in zip(places, files, strict=True)]
    folder.case("places", name, {"map": file, "ranking": ranking.tolist()}, {"places": found})
    return [(p.landmarks, listed) for p, listed in zip(places, files, strict=True) if len(p.landmarks)]


def match_cases(
    folder: Folder,
    name: str,
    map_name: str,
    m: LocalizationMap,
    features: Features,
    arrays: Mapping[str, Any],
    landmarks: np.ndarray,
    listed: str,
) -> tuple[Match2D3D, str]:
    """The nearest and the matches among the landmarks of one place; returns these, and the file of their positions."""
    given = {"map": map_file(map_name), "descriptors": arrays["descriptors"], "landmarks": listed}
    nearest_case(folder, name, given, m.codec.query(features.descriptors), m.descriptors(landmarks)[0])
    matches = match(features, m, landmarks)
    assert matches.keypoints is not None and matches.landmarks is not None
    rows = np.stack([matches.keypoints, matches.landmarks])
    expected = {
        "matches": folder.array(f"{name}/matches", rows, "matches", "keypoints, landmarks"),
        "xyz": folder.array(f"{name}/xyz", matches.xyz, "matches", "the landmarks, from the map's origin"),
    }
    folder.case("matches", name, {**given, "keypoints": arrays["keypoints"]}, expected)
    return matches, expected["xyz"]


def retrieval_case(
    folder: Folder,
    name: str,
    given: Mapping[str, Any],
    query: np.ndarray,
    references: np.ndarray,
    expected: Mapping[str, Any],
) -> np.ndarray:
    """The ranking of reference images, which is returned; ``expected``: what else is."""
    ranking = retrieve(query, references, given["count"])
    similarities = project(query[None], references)[0]
    expected = {**expected, "similarities": similarities.tolist(), "ranking": ranking.tolist()}
    folder.case("retrieval", name, given, expected)
    return ranking


def nearest_case(
    folder: Folder, name: str, given: Mapping[str, Any], queries: np.ndarray, references: np.ndarray
) -> None:
    """The two nearest references of each query."""
    nearest = np.stack(nearest_two(queries, references))
    what = "rows: the nearest, the second, the squared distance of each"
    folder.case("nearest", name, given, {"nearest": folder.array(f"{name}/nearest", nearest, "nearest", what)})
