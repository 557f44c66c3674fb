"""Writes a place as hloc leaves it, for tests of the reader and for benchmarks that compare sizes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pycolmap

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera
from hfnet_edge.map.codecs import UNIT
from hfnet_maps.content import BuiltMap


def write_hloc(folder: Path, source: BuiltMap, global_dim: int | None = None) -> dict[str, Path]:
    """What `hloc.extract_features` and `hloc.triangulation` would have written of a built map.

    Keypoints are float16, as hloc's; so the model's are rounded too. Those of an image's landmarks come first.

    Args:
        folder: where to; made where it is not there.
        global_dim: zeros are appended to the global descriptors up to this many (NetVLAD has 4096); None: none.

    Returns:
        The paths of "sfm" (a folder), "features" and "globals".
    """
    paths = {"sfm": folder / "sfm", "features": folder / "features.h5", "globals": folder / "global-feats.h5"}
    paths["sfm"].mkdir(parents=True, exist_ok=True)
    model = pycolmap.Reconstruction()
    index = np.zeros(len(source.landmarks), np.int64)  # of each observation among its image's keypoints
    with (
        h5py.File(paths["features"], "w", libver="latest") as features,
        h5py.File(paths["globals"], "w", libver="latest") as globals_,
    ):
        for i, (name, camera) in enumerate(zip(source.names, source.keypoints.cameras, strict=True)):
            rows = source.observed(i)
            index[rows] = np.arange(len(rows))
            keypoints = write_features(features, globals_, name, source.features(i), camera, global_dim)
            _add_image(model, source, i, keypoints + np.float16(0.5))
    starts = np.searchsorted(source.landmarks, np.arange(len(source.positions) + 1))
    for position, start, end in zip(source.positions, starts[:-1], starts[1:], strict=True):
        seen = zip(source.images[start:end], index[start:end], strict=True)
        track = pycolmap.Track([pycolmap.TrackElement(int(image) + 1, int(keypoint)) for image, keypoint in seen])
        model.add_point3D(position, track, np.zeros(3, np.uint8))
    model.write_binary(str(paths["sfm"]))
    return paths


def write_features(
    features: h5py.File, globals_: h5py.File, name: str, own: Features, camera: Camera, global_dim: int | None = None
) -> np.ndarray:
    """Adds what `hloc.extract_features` would have written of an image; returns its (N, 2) float16 keypoints."""
    keypoints = (own.keypoints - 0.5).astype(np.float16)
    size = np.array([camera.width, camera.height])
    group = features.create_group(name)
    group["keypoints"] = keypoints
    group["descriptors"] = np.ascontiguousarray((own.descriptors.T / UNIT).astype(np.float16))
    group["scores"] = own.scores.astype(np.float16)
    group["image_size"] = size
    group["keypoints"].attrs["uncertainty"] = 1.0
    vector = np.zeros(max(global_dim or 0, len(own.global_descriptor)), np.float16)
    vector[: len(own.global_descriptor)] = own.global_descriptor / UNIT
    group = globals_.create_group(name)
    group["global_descriptor"] = vector
    group["image_size"] = size
    return keypoints


def _add_image(model: pycolmap.Reconstruction, source: BuiltMap, i: int, keypoints: np.ndarray) -> None:
    """Image i with a camera of its own, both with the id i + 1."""
    camera, pose = source.keypoints.cameras[i], source.poses[i]
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(
            camera_id=i + 1, model=camera.model, width=camera.width, height=camera.height, params=list(camera.params)
        )
    )
    w, x, y, z = pose.quaternion
    image = pycolmap.Image(
        name=source.names[i], keypoints=keypoints.astype(np.float64), camera_id=i + 1, image_id=i + 1
    )
    cam_from_world = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([x, y, z, w])), pose.translation)
    model.add_image_with_trivial_frame(image, cam_from_world)
