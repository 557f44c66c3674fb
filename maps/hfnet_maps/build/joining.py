"""Models of COLMAP's that share photos become one.

The mapper gives a place up where the next photo does not register well, and begins another model elsewhere, which may
come to photos of the first one. Where these say how the two lie to each other, both are one model.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import pycolmap

from hfnet_maps.build.fold import Folded, Part, fold
from hfnet_maps.build.triangulation import adjustment, pose_of, rigid, triangulation, triangulation_options

ROUNDS = 3  # of adjustment and filtering at a seam
LOOSE, CLOSE = 16.0, 4.0  # network pixels that an observation is off at most, before the seam is adjusted and after


def join_models(
    found: Sequence[pycolmap.Reconstruction], geometries: Mapping[tuple[int, int], pycolmap.TwoViewGeometry]
) -> list[pycolmap.Reconstruction]:
    """The models, those that hold together joined; as they are where nothing does.

    Args:
        found: in network pixels; image i + 1 is photo i. geometries: by two photos.
    """
    if len(found) < 2:
        return list(found)
    parts = [Part({i: pose_of(model, i) for i in model.reg_image_ids()}, _depth(model)) for model in found]
    return [
        found[group.parts[0]] if len(group.parts) == 1 else _joined(found, parts, group, geometries)
        for group in fold(parts)
    ]


def _depth(model: pycolmap.Reconstruction) -> float:
    """Of the points, in the median, before their first camera."""
    firsts = ((point.xyz, point.track.elements[0].image_id) for point in model.points3D.values())
    depths = [float((model.image(i).cam_from_world() * xyz)[2]) for xyz, i in firsts]
    return float(np.median(depths)) if depths else 1.0


def _joined(
    found: Sequence[pycolmap.Reconstruction],
    parts: Sequence[Part],
    group: Folded,
    geometries: Mapping[tuple[int, int], pycolmap.TwoViewGeometry],
) -> pycolmap.Reconstruction:
    model = copy.deepcopy(found[group.parts[0]])
    new = []
    for k, frame in zip(group.parts[1:], group.frames[1:], strict=True):
        for i, pose in parts[k].poses.items():
            if model.exists_image(i) and model.image(i).has_pose:
                continue
            new.append(i)
            if model.exists_image(i):
                image = model.image(i)
                image.frame.set_cam_from_world(image.camera_id, rigid(frame.pose(pose)))
                model.register_frame(image.frame_id)
            else:
                theirs = found[k].image(i)
                xy = np.array([point.xy for point in theirs.points2D]).reshape(-1, 2)
                if not model.exists_camera(theirs.camera_id):
                    model.add_camera_with_trivial_rig(found[k].camera(theirs.camera_id))
                image = pycolmap.Image(name=theirs.name, keypoints=xy, camera_id=theirs.camera_id, image_id=i)
                model.add_image_with_trivial_frame(image, rigid(frame.pose(pose)))
    of_images = {(i + 1, j + 1): geometry for (i, j), geometry in geometries.items()}
    inside = {ij: geometry for ij, geometry in of_images.items() if all(map(model.exists_image, ij))}
    observations, triangulator = triangulation(model, inside)
    focal = float(np.median([camera.mean_focal_length() for camera in model.cameras.values()]))
    for bound in (LOOSE, *[CLOSE] * ROUNDS):
        options = triangulation_options(bound, focal)
        for i in sorted(new):
            triangulator.triangulate_image(options, i)
        triangulator.complete_all_tracks(options)
        triangulator.merge_all_tracks(options)
        pycolmap.create_default_bundle_adjuster(*_adjustment(model), model).solve()
        observations.filter_all_points3D(bound, options.min_angle)
    return model


def _adjustment(
    model: pycolmap.Reconstruction,
) -> tuple[pycolmap.BundleAdjustmentOptions, pycolmap.BundleAdjustmentConfig]:
    """Of poses and points, the first two cameras held."""
    options, config = adjustment(model, poses=True)
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    return options, config
