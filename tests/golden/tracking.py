"""Queries whose pose is about known: landmarks are sought near where they should be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from golden import reader
from golden.folder import Folder
from golden.matching import map_file
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.refinement import retract

ASIDE = np.array([0.01, -0.008, 0.004, 0.1, -0.05, 0.05])  # of the expected pose
WINDOWS = {"tight": 9.0, "narrow": 24.0, "wide": 64.0, "widest": 400.0}  # pixels of the network's input


def track_cases(
    folder: Folder,
    name: str,
    map_name: str,
    m: LocalizationMap,
    camera: Camera,
    features: Features,
    arrays: Mapping[str, Any],
    pose: Pose,
    depth: float,
) -> None:
    """By windows of several widths, of which the widest leaves landmarks out.

    Args:
        pose: relative to the map's origin. depth: of the scene.
    """
    files = {key: arrays[key] for key in ("keypoints", "descriptors", "pixel")}
    for label, pixels in WINDOWS.items():
        about = {
            **reader.plain_pose(retract(pose, ASIDE)),
            "depth": depth,
            "radius": pixels * features.pixel,
            "camera": str(camera),
            "solver": "usac",
        }
        found = reader.tracked(m, features.keypoints, features.descriptors, features.pixel, **about)
        folder.case("track", f"{name}/{label}", {"map": map_file(map_name), **files, **about}, found)
