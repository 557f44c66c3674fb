"""Cameras and poses as nerfstudio, OpenSfM and kapture write them, and files that make no sense."""

from __future__ import annotations

import copy
import json

import cv2
import numpy as np
import pytest

from hfnet_edge.errors import InputError
from hfnet_maps.build.reference import read_reference
from synthetic import place

PLACE = place(images=4, landmarks=10)
NAMES = [f"cam/{i}.jpg" for i in range(4)]


def check(reference, names=NAMES):
    assert list(reference.poses) == names
    for name, true in zip(names, PLACE.poses, strict=True):
        pose = reference.pose(name)
        assert pose.rotation == pytest.approx(true.rotation, abs=1e-9)
        assert pose.center == pytest.approx(true.center, abs=1e-6)
    return [reference.camera(name) for name in names]


def transforms(**more):
    frames = []
    for name, pose in zip(NAMES, PLACE.poses, strict=True):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = pose.rotation.T * (1, -1, -1), pose.center
        frames.append({"file_path": f"./images/{name}", "transform_matrix": matrix.tolist()})
    return {"w": 640, "h": 480, "fl_x": 500.0, "fl_y": 502.0, "cx": 321.0, "cy": 239.0, "frames": frames} | more


def written(folder, told):
    path = folder / "told.json"
    path.write_text(json.dumps(told))
    return path


def test_transforms(tmp_path):
    names = [name.removeprefix("cam/") for name in NAMES]  # all share the folders
    for camera in check(read_reference(written(tmp_path, transforms())), names):
        assert (camera.model, camera.params) == ("PINHOLE", (500.0, 502.0, 321.0, 239.0))
    told = transforms(k1=0.1, p2=-0.01)
    told["frames"][2] |= {"fl_x": 700.0, "w": 1280}
    cameras = check(read_reference(written(tmp_path, told)), names)
    assert cameras[0].model == "OPENCV" and cameras[0].params[4:] == (0.1, 0.0, 0.0, -0.01)
    assert cameras[2].focal[0] == 700 and cameras[2].width == 1280 and cameras[1].width == 640
    told = transforms(camera_angle_x=2 * np.arctan(0.5), is_fisheye=True, k3=0.2)
    del told["fl_x"], told["fl_y"]
    (camera, *_) = check(read_reference(written(tmp_path, told)), names)
    assert camera.model == "OPENCV_FISHEYE" and camera.focal == pytest.approx((640, 640)) and camera.params[6] == 0.2


def opensfm(**camera):
    camera = {"projection_type": "perspective", "width": 640, "height": 480, "focal": 0.8, "k1": 0.1} | camera
    shots = {
        name: {
            "camera": "phone",
            "rotation": cv2.Rodrigues(pose.rotation)[0][:, 0].tolist(),
            "translation": pose.translation.tolist(),
        }
        for name, pose in zip(NAMES, PLACE.poses, strict=True)
    }
    return [{"cameras": {}, "shots": {}}, {"cameras": {"phone": camera}, "shots": shots}]


def test_opensfm(tmp_path):
    (camera, *_) = check(read_reference(written(tmp_path, opensfm())))
    assert (camera.model, camera.params) == ("RADIAL", (512.0, 320.0, 240.0, 0.1, 0.0))
    told = opensfm(projection_type="brown", focal_x=0.8, focal_y=0.9, c_x=0.01, c_y=-0.01, p1=0.02)
    (camera, *_) = check(read_reference(written(tmp_path, told)))
    assert camera.focal == pytest.approx((512, 576)) and camera.center == pytest.approx((326.4, 233.6))
    (camera, *_) = check(read_reference(written(tmp_path, opensfm(projection_type="fisheye"))))
    assert camera.model == "OPENCV_FISHEYE" and camera.params[4] == 0.1


def test_kapture(tmp_path):
    kapture = pytest.importorskip("kapture", reason="hfnet-edge[kapture] is not installed")
    from kapture.io.csv import kapture_to_dir

    camera = kapture.Camera(kapture.CameraType.OPENCV, [640, 480, 500, 502, 321, 239, 0.1, 0, 0, 0])
    images, poses = kapture.RecordsCamera(), kapture.Trajectories()
    for when, (name, pose) in enumerate(zip(NAMES, PLACE.poses, strict=True)):
        images[when, "phone"] = name
        poses[when, "phone"] = kapture.PoseTransform(pose.quaternion, pose.translation)
    images[9, "phone"] = "no_pose.jpg"
    found = kapture.Kapture(sensors=kapture.Sensors(), records_camera=images, trajectories=poses)
    found.sensors["phone"] = camera
    kapture_to_dir(str(tmp_path), found)
    for read in check(read_reference(tmp_path)):
        assert (read.model, read.params) == ("OPENCV", (500.0, 502.0, 321.0, 239.0, 0.1, 0.0, 0.0, 0.0))
    (tmp_path / "sensors" / "trajectories.txt").write_text("1, phone, a, b, c\n")
    with pytest.raises(InputError, match="cannot read the kapture"):
        read_reference(tmp_path)


def broken(told, *path, value):
    told = copy.deepcopy(told)
    at = told
    for step in path[:-1]:
        at = at[step]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return told


@pytest.mark.parametrize(
    "told, words",
    [
        ({}, "neither"),
        ([], "neither"),
        ([1], "cannot read"),
        ({"frames": []}, "no images"),
        (broken(transforms(), "fl_x", value=None), "camera_angle_x"),
        (broken(transforms(), "w", value="wide"), "wide"),
        (broken(transforms(), "frames", 1, "transform_matrix", value=[[1]]), "is none"),
        (broken(transforms(), "frames", 1, "transform_matrix", 0, value=[float("nan")] * 4), "cannot read"),
        (broken(transforms(), "frames", 1, "transform_matrix", 0, value=[3, 0, 0, 0]), "no rotation"),
        (broken(opensfm(), 1, "shots", NAMES[0], "rotation", value=[1, 2]), "three numbers"),
        (broken(opensfm(), 1, "shots", NAMES[0], "camera", value="other"), "has no camera"),
        (broken(opensfm(), 1, "cameras", "phone", "projection_type", value="equirectangular"), "equirectangular"),
        (broken(opensfm(), 1, "shots", value=None), "shots"),
    ],
)
def test_what_makes_no_sense_is_said(tmp_path, told, words):
    with pytest.raises(InputError, match=words):
        read_reference(written(tmp_path, told))


def test_text_that_is_no_json_is_refused(tmp_path):
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100000):
        (tmp_path / "told.json").write_bytes(content)
        with pytest.raises(InputError):
            read_reference(tmp_path / "told.json")
