"""COLMAP's models that share photos become one; those that share too little stay apart."""

from __future__ import annotations

import copy
from itertools import combinations

import numpy as np
import pycolmap
import pytest

from hfnet_edge.geometry import Camera
from hfnet_maps.build.joining import join_models
from hfnet_maps.build.pairs import match_descriptors
from hfnet_maps.build.photos import Device, Photos
from hfnet_maps.build.structure import network_camera, reconstruct, verify_geometry
from hfnet_maps.build.triangulation import pose_of
from hfnet_maps.evaluation.alignment import align
from hfnet_maps.evaluation.errors import pose_error
from synthetic import place

COUNT = 14


@pytest.fixture(scope="module")
def street():
    """A place, the geometries of all pairs of photos of it, and COLMAP's model of them, in network pixels."""
    p = place(5, landmarks=400, images=COUNT)
    names = tuple(f"{i:02d}.png" for i in range(COUNT))
    device = Device(Camera("SIMPLE_RADIAL", 640, 480, (501.0, 320.0, 240.0, 0.0)), True, "phone")
    photos = Photos(None, names, names, (1,) * COUNT, (device,), (0,) * COUNT, {})
    features = [p.features(pose, 0.2, 10) for pose in p.poses]
    camera, geometries = network_camera(device, 1.0), {}
    for i, j in combinations(range(COUNT), 2):
        rows = match_descriptors(features[i].descriptors, features[j].descriptors)
        found = verify_geometry(camera, camera, features[i].keypoints, features[j].keypoints, rows)
        if found is not None:
            geometries[i, j] = found
    (model,) = reconstruct(photos, features, geometries)
    return p, geometries, model.reconstruction


def part(model: pycolmap.Reconstruction, rows, moved: bool, forgotten: bool) -> pycolmap.Reconstruction:
    """A model of some of the photos, in a frame of its own; the others are not registered, or not in it at all."""
    found = copy.deepcopy(model)
    for i in set(range(COUNT)) - set(rows):
        found.deregister_frame(found.image(i + 1).frame_id)
    if moved:
        turn = pycolmap.Rotation3d(np.array([0.1, -0.3, 0.2, 0.9]) / np.linalg.norm([0.1, -0.3, 0.2, 0.9]))
        found.transform(pycolmap.Sim3d(2.5, turn, np.array([1.0, 2, 3])))
    if not forgotten:
        return found
    alone = pycolmap.Reconstruction()
    alone.add_camera_with_trivial_rig(found.camera(1))
    for i in rows:
        theirs = found.image(i + 1)
        xy = np.array([point.xy for point in theirs.points2D])
        image = pycolmap.Image(name=theirs.name, keypoints=xy, camera_id=1, image_id=i + 1)
        alone.add_image_with_trivial_frame(image, theirs.cam_from_world())
    for point in found.points3D.values():
        alone.add_point3D(point.xyz, pycolmap.Track(point.track.elements))
    return alone


@pytest.mark.parametrize("forgotten", [False, True])
def test_models_that_share_photos_become_one(street, forgotten):
    p, geometries, model = street
    halves = part(model, range(0, 9), False, forgotten), part(model, range(5, COUNT), True, forgotten)
    (joined,) = join_models(halves, geometries)
    assert sorted(joined.reg_image_ids()) == list(range(1, COUNT + 1))
    found = {str(i): pose_of(joined, i + 1) for i in range(COUNT)}
    true = {str(i): pose for i, pose in enumerate(p.poses)}
    to_true = align(found, true, list(true))
    errors = np.array([pose_error(to_true.pose(found[n]), true[n]) for n in true])
    assert errors[:, 0].max() < 0.05, "of 15 m"
    assert joined.compute_mean_reprojection_error() < 1.05 * model.compute_mean_reprojection_error()
    seen = [{e.image_id - 1 for e in point.track.elements} for point in joined.points3D.values()]
    across = sum(min(images) < 5 and max(images) >= 9 for images in seen)
    assert across > 0.9 * sum(
        min(images) < 5 and max(images) >= 9
        for images in ({e.image_id - 1 for e in point.track.elements} for point in model.points3D.values())
    ), "landmarks go on over the seam"


def test_models_that_share_too_little_stay_apart(street):
    _, geometries, model = street
    halves = part(model, range(0, 7), False, False), part(model, range(5, COUNT), True, False)
    assert [m.num_reg_images() for m in join_models(halves, geometries)] == [9, 7]
    assert join_models([model], geometries) == [model]
