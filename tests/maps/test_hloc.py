"""hloc's files, as `hloc_files` writes them, read back; and damaged."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pycolmap
import pytest

from hfnet_edge.errors import CameraError, InputError, MismatchError
from hfnet_edge.geometry import Camera
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.build.hloc import read_hloc
from hfnet_maps.content import MapNetworks
from hloc_files import write_hloc
from synthetic import CAMERA, EXTRACTOR, place

NAMES = ("db/a/1.jpg", "db/a/2.jpg", "db/b.jpg", "top.jpg")
OTHERS = 20  # keypoints of nothing, in each image


@pytest.fixture(scope="module")
def source():
    p = place(images=len(NAMES), landmarks=80)
    features = [p.features(pose, outliers=OTHERS) for pose in p.poses]
    return map_from_features(NAMES, [CAMERA] * len(NAMES), p.poses, features, EXTRACTOR)[0]


@pytest.fixture(scope="module")
def written(source, tmp_path_factory):
    return write_hloc(tmp_path_factory.mktemp("hloc"), source)


@pytest.fixture
def hloc(written, tmp_path):
    """A copy to damage."""
    shutil.copytree(written["sfm"].parent, tmp_path, dirs_exist_ok=True)
    return {key: tmp_path / path.name for key, path in written.items()}


@pytest.fixture
def text(hloc):
    """A copy to damage, the model as text; the model of hloc must be one that pycolmap reads."""
    model = pycolmap.Reconstruction(str(hloc["sfm"]))
    shutil.rmtree(hloc["sfm"])
    hloc["sfm"].mkdir()
    model.write_text(str(hloc["sfm"]))
    return hloc


def read(files, extractor=None):
    return read_hloc(files["sfm"], files["features"], files["globals"], extractor)


def change(path, dataset, to):
    """Replaces a dataset by what ``to`` makes of its values."""
    with h5py.File(path, "r+") as file:
        values = file[dataset][()]
        del file[dataset]
        file[dataset] = to(values)


def change_lines(path, to):
    """``to`` changes a text file's lines that are no comments, in place."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    to(lines)
    path.write_text("\n".join(lines) + "\n")


def keypoint_lines(path):
    """Number of the line of each image's keypoints in images.txt, without comments, by name."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {line.split()[9]: i + 1 for i, line in enumerate(lines) if i % 2 == 0}


@pytest.mark.parametrize("kind", ["hloc", "text"])
def test_what_hloc_wrote_is_read_up_to_its_rounding(kind, source, request):
    found = read(request.getfixturevalue(kind))
    assert found.names == NAMES and found.keypoints.cameras == source.keypoints.cameras
    for a, b in zip(found.poses, source.poses, strict=True):
        assert np.allclose(a.quaternion, b.quaternion, atol=1e-12)
        assert np.allclose(a.translation, b.translation, atol=1e-9)
    assert np.allclose(found.positions, source.positions, rtol=0, atol=1e-9)
    assert len(source.positions) == 80
    for field in ("landmarks", "images"):
        assert np.array_equal(getattr(found, field), getattr(source, field))
        assert getattr(found, field).dtype == np.int64
    assert np.array_equal(found.keypoints.other_offsets, source.keypoints.other_offsets)
    for field in ("observed", "others"):  # float16 of 512 and more counts halves
        mine, theirs = getattr(found.keypoints, field), getattr(source.keypoints, field)
        assert mine.dtype == np.float32 and np.abs(mine - theirs).max() <= 0.5
        assert abs((mine - theirs).mean()) < 0.02  # half a pixel was added back
    for mine, theirs in (
        (found.descriptors, source.descriptors),
        (found.keypoints.other_descriptors, source.keypoints.other_descriptors),
        (found.global_descriptors, source.global_descriptors),
    ):
        assert mine.dtype == np.int8 and mine.shape == theirs.shape
        assert np.abs(mine.astype(int) - theirs).max() <= 1
    assert found.keypoints.pixels.tolist() == [1.0] * len(NAMES)
    assert found.networks == MapNetworks("hloc", "", "float", 32, 16)


def test_the_written_model_is_one_of_colmap(written, source):
    model = pycolmap.Reconstruction(str(written["sfm"]))
    model.update_point_3d_errors()
    assert model.num_points3D() == len(source.positions)
    assert model.compute_num_observations() == len(source.landmarks)
    assert model.compute_mean_reprojection_error() < 1.0


def test_global_descriptors_may_be_padded(source, tmp_path):
    found = read(write_hloc(tmp_path, source, global_dim=100)).global_descriptors
    assert found.shape == (len(NAMES), 100) and not found[:, 16:].any()
    assert np.abs(found[:, :16].astype(int) - source.global_descriptors).max() <= 1


def test_the_extractor_must_be_as_wide_as_the_features(hloc):
    assert read(hloc, EXTRACTOR).networks == MapNetworks.of(EXTRACTOR)
    for other in (replace(EXTRACTOR, local_dim=256), replace(EXTRACTOR, global_dim=4096)):
        with pytest.raises(MismatchError, match=r"32 \(local\) and 16 \(global\).*synthetic") as error:
            read(hloc, other)
        assert f"{other.local_dim} and {other.global_dim}" in error.value.problem


def test_a_model_without_the_half_pixel_keeps_its_own_keypoints(hloc):
    expected = read(hloc).keypoints
    for name in NAMES:
        change(hloc["features"], f"{name}/keypoints", lambda xy: xy.astype(np.float32) + 0.5)
    found = read(hloc).keypoints
    assert np.array_equal(found.observed, expected.observed)
    assert np.array_equal(found.others, expected.others)


@pytest.mark.parametrize("shift", [-0.8, 1.3])
def test_keypoints_elsewhere_are_refused(hloc, shift):
    for name in NAMES[1:]:
        change(hloc["features"], f"{name}/keypoints", lambda xy: xy.astype(np.float32) + np.float32(shift))
    with pytest.raises(InputError, match=r"keypoints of db/a/2\.jpg .* pixels from the model's"):
        read(hloc)


def test_large_images_round_by_whole_pixels(source, tmp_path):
    large = Camera("PINHOLE", 3200, 2400, tuple(5 * value for value in CAMERA.params))
    scaled = replace(
        source.keypoints,
        cameras=(large,) * len(NAMES),
        observed=source.keypoints.observed * 5,
        others=source.keypoints.others * 5,
    )
    found = read(write_hloc(tmp_path, replace(source, keypoints=scaled))).keypoints
    assert 0.5 < np.abs(found.observed - scaled.observed).max() <= 2
    assert found.pixels.tolist() == [3200 / 1024] * len(NAMES)


@pytest.mark.parametrize("binary", [False, True])
def test_an_image_that_colmap_matched_with_none_keeps_its_features(text, binary):
    def empty(lines):
        lines[at] = ""

    name, expected = NAMES[-1], read(text)
    at = keypoint_lines(text["sfm"] / "images.txt")[name]
    change_lines(text["sfm"] / "images.txt", empty)
    if binary:
        points = text["sfm"] / "points3D.txt"  # without tracks, which name the lost keypoints
        points.write_text("\n".join(" ".join(line.split()[:8]) for line in points.read_text().splitlines()))
        pycolmap.Reconstruction(str(text["sfm"])).write_binary(str(text["sfm"]))
    found = read(text)
    assert len(found.observed(3)) == 0 and len(found.observed(1)) > 50
    own = slice(*found.keypoints.other_offsets[3:5])
    difference = found.keypoints.others[own] - expected.features(3).keypoints
    assert np.abs(difference).max() < 0.3  # float16's rounding
    assert np.array_equal(found.keypoints.other_descriptors[own], expected.features(3).descriptors)


def test_of_two_keypoints_on_a_landmark_the_nearer_stays_and_of_one_image_none(text):
    """The first image's first keypoint without a landmark gets the first landmark; the second landmark is seen once."""
    expected = read(text)
    path = text["sfm"] / "images.txt"

    def also_far(lines):
        for name, at in keypoint_lines(path).items():
            fields = lines[at].split()
            if name == NAMES[0]:
                fields[3 * len(expected.observed(0)) + 2] = "1"
            else:
                fields[2::3] = ["-1" if point == "2" else point for point in fields[2::3]]
            lines[at] = " ".join(fields)

    assert (expected.landmarks[0], expected.images[0]) == (0, 0)
    change_lines(path, also_far)
    found = read(text)
    assert len(found.positions) == len(expected.positions) - 1
    assert np.array_equal(found.positions, np.delete(expected.positions, 1, axis=0))
    kept = expected.landmarks != 1
    assert np.array_equal(found.images, expected.images[kept])
    assert np.array_equal(found.landmarks, expected.landmarks[kept] - (expected.landmarks[kept] > 1))
    assert np.array_equal(found.keypoints.observed, expected.keypoints.observed[kept])
    assert np.array_equal(found.descriptors, expected.descriptors[kept])
    assert len(found.keypoints.others) == OTHERS * len(NAMES) + (~kept).sum()


@pytest.mark.parametrize(
    ("key", "dataset", "to", "words"),
    [
        ("features", "top.jpg/descriptors", lambda d: np.where(np.arange(d.shape[1]) == 3, np.nan, d), "not finite"),
        ("features", "top.jpg/keypoints", lambda xy: np.where(xy > 300, np.inf, xy), "keypoints of top.jpg .* finite"),
        ("features", "top.jpg/descriptors", lambda d: d[:16], "16 wide, of db/a/1.jpg 32"),
        ("features", "top.jpg/descriptors", lambda d: d[:, :-1], r"descriptors of top\.jpg with keypoints of shape"),
        ("features", "top.jpg/descriptors", lambda d: d.T, r"32 descriptors of top\.jpg with"),
        ("features", "top.jpg/descriptors", lambda d: d.astype("S4"), r"no descriptors of top\.jpg"),
        ("features", "top.jpg/keypoints", lambda xy: xy.ravel(), r"no keypoints of top\.jpg"),
        ("features", "top.jpg/keypoints", lambda xy: xy[::-1], r"keypoints of top\.jpg .* pixels from the model's"),
        ("globals", "db/b.jpg/global_descriptor", lambda g: g * np.nan, r"global_descriptor of db/b\.jpg .* finite"),
        ("globals", "db/b.jpg/global_descriptor", lambda g: g[:3], "3 wide, of db/a/1.jpg 16"),
        ("globals", "db/b.jpg/global_descriptor", lambda g: g[None], r"no global_descriptor of db/b\.jpg"),
    ],
)
def test_bad_features_are_refused_with_the_image(hloc, key, dataset, to, words):
    change(hloc[key], dataset, to)
    with pytest.raises(InputError, match=words) as error:
        read(hloc)
    assert str(hloc[key]) in error.value.problem and error.value.remedy


def test_another_number_of_keypoints_is_refused(hloc):
    change(hloc["features"], "db/b.jpg/keypoints", lambda xy: xy[:-2])
    change(hloc["features"], "db/b.jpg/descriptors", lambda d: d[:, :-2])
    with pytest.raises(InputError, match=r"has \d+ keypoints of db/b\.jpg, the model \d+"):
        read(hloc)


@pytest.mark.parametrize("key", ["features", "globals"])
def test_missing_images_and_datasets_are_named(hloc, key):
    with h5py.File(hloc[key], "r+") as file:
        del file["db/a"]
    with pytest.raises(InputError, match=r"lacks 2 of the 4 images, first db/a/1\.jpg") as error:
        read(hloc)
    assert str(hloc[key]) in error.value.problem
    with h5py.File(hloc[key], "r+") as file:
        file["db/a/1.jpg"], file["db/a/2.jpg"] = np.zeros(3), h5py.SoftLink("/nowhere")  # a dataset is no group
    with pytest.raises(InputError, match=r"no \w+ of db/a/1\.jpg"):
        read(hloc)


def test_values_that_no_image_has_are_refused_before_they_unfold(hloc):
    """A dataset of 8 TB that was never written takes nothing in the file."""
    with h5py.File(hloc["features"], "r+") as file:
        del file["db/a/1.jpg/descriptors"]
        file["db/a/1.jpg"].create_dataset("descriptors", (1 << 20, 1 << 20), "f8", chunks=(1024, 1024))
    with pytest.raises(InputError, match=r"no descriptors of db/a/1\.jpg"):
        read(hloc)


@pytest.mark.parametrize("key", ["features", "globals"])
def test_a_damaged_file_of_features_is_refused_wherever_it_is_cut(hloc, key):
    whole = hloc[key].read_bytes()
    for size in range(0, len(whole), len(whole) // 50):
        hloc[key].write_bytes(whole[:size])
        with pytest.raises(InputError, match="is damaged or not HDF5") as error:
            read(hloc)
        assert str(hloc[key]) in error.value.problem
    hloc[key].write_bytes(b"no HDF5 at all")
    with pytest.raises(InputError, match="is damaged or not HDF5"):
        read(hloc)
    hloc[key].unlink()
    with pytest.raises(InputError, match="there is no file"):
        read(hloc)


def test_damage_within_a_file_of_features_is_refused_or_read(hloc):
    rng = np.random.default_rng(0)
    whole, outcomes = hloc["features"].read_bytes(), set()
    for at in rng.integers(0, len(whole), 150):
        hloc["features"].write_bytes(whole[:at] + bytes([255]) + whole[at + 1 :])
        try:
            read(hloc)
            outcomes.add("read")
        except InputError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}  # HDF5 has no checksum of values


def test_a_binary_model_truncated_anywhere_is_refused(hloc):
    for part in ("points3D.bin", "images.bin"):
        whole = (hloc["sfm"] / part).read_bytes()
        for size in (*range(70), *range(70, len(whole), 197), len(whole) - 1):
            (hloc["sfm"] / part).write_bytes(whole[:size])
            with pytest.raises(InputError, match=r"is damaged: .*(truncated|empty)"):
                read(hloc)
        (hloc["sfm"] / part).write_bytes(whole)
    assert len(read(hloc).positions) == 80


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "has no landmarks"),
        (["1 0 0"], r"points3D\.txt, line 1 is not a point"),
        (["1 0 0 zero 0 0 0 0"], r"points3D\.txt, line 1 is not a point"),
        (["1 0 0 nan 0 0 0 0"], "a point is not finite"),
        (["1 0 0 0 0 0 0 0", "1 0 0 0 0 0 0 0"], "a point appears twice"),
        (["99999999999999999999 0 0 0 0 0 0 0"], "is damaged"),
        (["1 0 0 0 0 0 0 0"], "is of point 2, which is not there"),
    ],
)
def test_damaged_points_are_refused(text, lines, words):
    (text["sfm"] / "points3D.txt").write_text("\n".join(lines))
    with pytest.raises(InputError, match=words):
        read(text)


@pytest.mark.parametrize("line", ["1 2 x", "1 2 nan", "nan 2 -1", "1 2", "1 2 1e30"])
def test_damaged_keypoints_are_refused(text, line):
    def damage(lines):
        lines[1] = line

    change_lines(text["sfm"] / "images.txt", damage)
    with pytest.raises(InputError, match="is damaged"):
        read(text)


def test_a_model_without_landmarks_is_refused(text):
    path = text["sfm"] / "images.txt"

    def unmatched(lines):
        for at in keypoint_lines(path).values():
            fields = lines[at].split()
            fields[2::3] = ["-1"] * (len(fields) // 3)
            lines[at] = " ".join(fields)

    change_lines(path, unmatched)
    with pytest.raises(InputError, match="has no landmarks") as error:
        read(text)
    assert "hloc.triangulation" in error.value.remedy
    (text["sfm"] / "points3D.txt").write_text("")
    with pytest.raises(InputError, match="has no landmarks"):
        read(text)
    (text["sfm"] / "points3D.txt").unlink()
    with pytest.raises(InputError, match=r"has no points3D\.txt"):
        read(text)


def test_a_missing_model_and_its_unsupported_cameras_are_refused(text):
    with pytest.raises(InputError, match=r"there is no reference .*nowhere; "):
        read({**text, "sfm": text["sfm"] / "nowhere"})

    def fisheye(lines):
        lines[0] = "1 EQUIRECTANGULAR 640 480 640 480"

    change_lines(text["sfm"] / "cameras.txt", fisheye)
    with pytest.raises(CameraError, match=r"db/a/1\.jpg.*EQUIRECTANGULAR"):
        read(text)
