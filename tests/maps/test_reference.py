"""COLMAP models as pycolmap writes them, and damaged."""

import shutil

import numpy as np
import pycolmap
import pytest

from hfnet_edge.errors import CameraError, InputError
from hfnet_maps.build.colmap_files import MODEL_IDS
from hfnet_maps.build.reference import read_reference


@pytest.fixture(scope="module")
def model():
    """Two rigs' cameras, three frames, a few points; so poses are composed and images hold keypoints."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2, num_cameras_per_rig=2, num_frames_per_rig=3, num_points3D=20, camera_model_id=2
    )
    return pycolmap.synthesize_dataset(options)


@pytest.fixture(params=["text", "binary"])
def folder(request, model, tmp_path):
    getattr(model, f"write_{request.param}")(str(tmp_path))
    return tmp_path


def test_cameras_and_poses_are_those_that_pycolmap_reads(folder):
    reference = read_reference(folder)
    expected = {image.name: image for image in pycolmap.Reconstruction(str(folder)).images.values()}
    assert list(reference.poses) == sorted(expected) and len(expected) == 12
    for name, image in expected.items():
        pose, camera = reference.pose(name), reference.camera(name)
        x, y, z, w = image.cam_from_world().rotation.quat
        assert np.allclose(pose.quaternion, [w, x, y, z], atol=1e-14, rtol=0)
        assert np.allclose(pose.translation, image.cam_from_world().translation, atol=1e-14, rtol=0)
        assert (camera.model, camera.width, camera.height) == ("SIMPLE_RADIAL", image.camera.width, image.camera.height)
        assert camera.params == tuple(image.camera.params)


def test_camera_models_have_colmaps_numbers_and_sizes():
    for name, number in pycolmap.CameraModelId.__members__.items():
        if name != "INVALID":
            camera = pycolmap.Camera.create_from_model_id(1, number, 500.0, 640, 480)
            assert MODEL_IDS[number.value] == (camera.model_name, len(camera.params))


def test_a_binary_model_truncated_anywhere_is_refused(model, tmp_path):
    model.write_binary(str(tmp_path))
    for part in ("images.bin", "cameras.bin"):
        whole = (tmp_path / part).read_bytes()
        for size in {*range(0, 200), *range(200, len(whole), 97), len(whole) - 1}:
            (tmp_path / part).write_bytes(whole[:size])
            with pytest.raises(InputError, match="is damaged") as error:
                read_reference(tmp_path)
            assert str(tmp_path) in error.value.problem and "cameras.bin" in error.value.remedy
        (tmp_path / part).write_bytes(whole)
    assert len(read_reference(tmp_path).poses) == 12


@pytest.mark.parametrize(
    ("part", "text", "reason"),
    [
        ("cameras.txt", "", "has no camera"),
        ("cameras.txt", "1 PINHOLE 640\n", "cameras.txt, line 1 is not a camera"),
        ("images.txt", "# nothing\n", "has no images"),
        ("images.txt", "1 1 0 0 0 0 0\n\n", "images.txt, line 1 is not an image"),
        ("images.txt", "1 1 0 0 nan 0 0 0 1 a.jpg\n\n", "pose of a.jpg is not finite"),
        ("images.txt", "1 0 0 0 0 0 0 0 1 a.jpg\n\n", "pose of a.jpg is no rotation"),
        ("images.txt", "1 1 0 0 0 0 0 0 9 a.jpg\n\n", "a.jpg has no camera"),
        ("images.txt", "1 1 0 0 0 0 0 0 1 a.jpg\n\n2 1 0 0 0 0 0 0 1 a.jpg\n\n", "a.jpg appears twice"),
        ("images.txt", "1 1 0 0 0 0 0 0 1 a.jpg\n2 1 0 0 0 0 0 0 1 b.jpg\n", "line 2 is not a list of keypoints"),
    ],
)
def test_a_damaged_text_model_is_refused_with_the_line(tmp_path, part, text, reason):
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 640 480 500 500 320 240\n")
    (tmp_path / "images.txt").write_text("1 2 0 0 0 1 2 3 1 a.jpg\n1.5 2.5 -1\n")
    assert read_reference(tmp_path).pose("a.jpg").quaternion.tolist() == [1, 0, 0, 0]  # scaled to unit length
    (tmp_path / part).write_text(text)
    with pytest.raises(InputError, match=reason):
        read_reference(tmp_path)


def test_text_that_is_no_text_is_refused(tmp_path):
    for part in ("cameras.txt", "images.txt"):
        (tmp_path / part).write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match="is damaged"):
        read_reference(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path, folder):
    with pytest.raises(InputError, match="there is no reference"):
        read_reference(tmp_path / "nowhere")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="not a COLMAP model"):
        read_reference(empty)
    shutil.copy(next(folder.glob("cameras.*")), empty)
    with pytest.raises(InputError, match="not a COLMAP model"):
        read_reference(empty)


def test_an_unsupported_camera_is_named_only_when_it_is_asked_for(tmp_path):
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 640 480 500 500 320 240\n2 EQUIRECTANGULAR 640 480 640 480\n")
    (tmp_path / "images.txt").write_text("1 1 0 0 0 1 2 3 1 a.jpg\n\n2 1 0 0 0 1 2 3 2 round.jpg\n\n")
    reference = read_reference(tmp_path)
    assert reference.camera("a.jpg").focal == (500.0, 500.0)
    assert reference.pose("round.jpg").translation.tolist() == [1, 2, 3]
    with pytest.raises(CameraError, match=r"round\.jpg.*EQUIRECTANGULAR") as error:
        reference.camera("round.jpg")
    assert "SIMPLE_RADIAL" in error.value.remedy
    for ask in (reference.pose, reference.camera):
        with pytest.raises(InputError, match=r"no image b\.jpg.*look like a\.jpg"):
            ask("b.jpg")
