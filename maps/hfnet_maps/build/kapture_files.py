"""A kapture (https://github.com/naver/kapture): a folder of sensors, records and trajectories, read by its package."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError, InstallError
from hfnet_maps.build.colmap_files import MODEL_IDS, Cameras, Images, Intrinsics

SIZES = dict(MODEL_IDS.values())


def is_kapture(folder: Path) -> bool:
    """Whether a folder holds one."""
    return (folder / "sensors" / "sensors.txt").is_file()


def read_kapture(folder: Path) -> tuple[Cameras, Images]:
    """Cameras and images with poses. Raises InputError: it is damaged, or has none. InstallError."""
    try:
        import kapture
        from kapture.io.csv import kapture_from_dir
    except ImportError as e:
        raise InstallError("a kapture is read by its package", "install `hfnet-edge[kapture]`") from e
    logging.getLogger("kapture").setLevel(logging.ERROR)
    skipped = [kapture.Keypoints, kapture.Descriptors, kapture.GlobalFeatures, kapture.Matches, kapture.Points3d,
               kapture.Observations]  # fmt: skip
    try:
        found = kapture_from_dir(str(folder), skip_list=skipped)
        trajectories, records = found.trajectories, found.records_camera
        if trajectories is None or records is None:
            raise ValueError("it has no trajectories or no images")
        if found.rigs is not None:
            trajectories = kapture.rigs_remove(trajectories, found.rigs)
        cameras = [(name, _intrinsics(name, s)) for name, s in found.sensors.items() if s.sensor_type == "camera"]
        images = []
        for when, camera, image in kapture.flatten(records):
            pose = trajectories[when].get(camera) if when in trajectories else None
            if pose is not None and pose.r is not None and pose.t is not None:
                values = np.concatenate([pose.r_raw, pose.t_raw])
                images.append((str(image), values, camera))
    except Exception as e:  # the package raises whatever it likes
        raise InputError(f"cannot read the kapture {folder}: {e}", "see what `kapture_info` says of it") from e
    return iter(cameras), iter(images)


def _intrinsics(name: str, sensor) -> Intrinsics:
    kind, (width, height, *params) = sensor.camera_type.value, map(float, sensor.camera_params)
    if kind not in SIZES or len(params) != SIZES[kind]:
        raise ValueError(f"the camera {name} is of the model {kind}, with {len(params)} numbers")
    return Intrinsics(kind, int(width), int(height), tuple(params))
