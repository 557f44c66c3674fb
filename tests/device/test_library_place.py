"""What the library's tests of a place in tiles compare with is what the runtime finds."""

import json
from pathlib import Path

import numpy as np
import pytest

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.tiled_map import TiledMap
from hfnet_edge.methods.method import LocalizationConfig
from hfnet_edge.pose.estimate import PoseConfig
from hfnet_edge.prior import Prior

FOLDER = Path(__file__).parents[2] / "android_bridge" / "library" / "samples" / "place"
LOCAL, GLOBAL = 32, 16


def queries():
    told, data = json.loads((FOLDER / "queries.json").read_text()), (FOLDER / "queries.bin").read_bytes()
    camera, at = Camera.parse(told["camera"]), 0
    for query in told["queries"]:
        n = query["keypoints"]
        xy = np.frombuffer(data, "<f8", 2 * n, at).reshape(n, 2)
        local = np.frombuffer(data, "i1", LOCAL * n, at + 16 * n).reshape(n, LOCAL)
        image = np.frombuffer(data, "i1", GLOBAL, at + (16 + LOCAL) * n)
        at += (16 + LOCAL) * n + GLOBAL
        yield query, camera, Features(xy, np.zeros(n, np.float32), local, image, 1.0)
    assert at == len(data)


def test_the_runtime_finds_what_the_library_is_compared_with():
    place, config, kinds = TiledMap(FOLDER), LocalizationConfig(pose=PoseConfig(solver="usac")), set()
    for query, camera, features in queries():
        prior = {name: tuple(value) if name != "radius" else value for name, value in query["prior"].items()}
        r = localize_features(place, features, camera, config, Prior(**prior) if prior else None)
        found = query["found"]
        assert (r.status.name, r.tile, len(r.notes), r.inliers, r.prior_frames.tolist()) == (
            found["status"], found["tile"], found["notes"], found["inliers"], found["prior_frames"],
        ), query["name"]  # fmt: skip
        assert (r.probability, r.wrong) == pytest.approx((found["probability"], found["wrong"]), abs=1e-6)
        if r.pose is not None:
            assert r.pose.quaternion == pytest.approx(found["quaternion"], abs=1e-8)
            assert r.pose.translation == pytest.approx(found["translation"], abs=1e-6)
        kinds.add(found["status"])
    assert kinds == {"LOCALIZED", "AMBIGUOUS", "REJECTED", "TOO_FEW_MATCHES", "NO_KEYPOINTS"}
