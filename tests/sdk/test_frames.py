"""Images in every form, and how they are turned: the same grey levels give the same bits."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from hfnet_edge.errors import CameraError, ImageError, InputError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.frame import open_any
from hfnet_edge.image.photo import load_photo

SIZE = (480, 640)


def colours(width=640, height=480, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def encoded(array, kind):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1000, 700), (320, 200)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_every_form_of_a_file_gives_the_same_bits(tmp_path, kind, width, height):
    content = encoded(colours(width, height), kind)
    path = tmp_path / "a"
    path.write_bytes(content)
    expected = load_photo(path, SIZE).pixels
    for form in (str(path), content, Image.open(path), Image.open(io.BytesIO(content))):
        np.testing.assert_array_equal(load_photo(form, SIZE).pixels, expected)


def test_arrays_and_decoded_pictures_give_the_bits_of_a_file_without_loss(tmp_path):
    rgb = colours(1000, 700)
    expected = load_photo(encoded(rgb, "PNG"), SIZE).pixels
    strided = np.zeros((700, 1100, 3), np.uint8)
    strided[:, :1000] = rgb
    decoded = Image.open(io.BytesIO(encoded(rgb, "PNG")))
    decoded.load()
    for form, colors in (
        (rgb, "rgb"),
        (rgb[..., ::-1], "bgr"),
        (np.ascontiguousarray(rgb[..., ::-1]), "bgr"),
        (strided[:, :1000], "rgb"),
        (np.asfortranarray(rgb), "rgb"),
        (Image.fromarray(rgb), None),
        (decoded, None),
        (np.asarray(Image.fromarray(rgb).convert("L")), None),
    ):
        np.testing.assert_array_equal(load_photo(form, SIZE, colors=colors).pixels, expected)


def test_a_plane_with_a_stride_is_used_as_it_is():
    plane = np.zeros((480, 700), np.uint8)
    plane[:, :640] = colours()[..., 1]
    frame = open_any(plane[:, :640])
    assert np.shares_memory(frame.grey(), plane)
    np.testing.assert_array_equal(load_photo(plane[:, :640], SIZE).pixels, plane[:, :640])


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_stated_rotation_shows_the_network_the_upright_image(degrees):
    upright = colours()[..., 0]
    stored = np.rot90(upright, degrees // 90)  # counterclockwise, so that clockwise undoes it
    camera = Camera("PINHOLE", stored.shape[1], stored.shape[0], (500, 500, 300, 200))
    photo = load_photo(stored, SIZE, camera, rotation=degrees)
    np.testing.assert_array_equal(photo.pixels, upright)
    xy = np.array([[100.5, 70.5], [600.5, 30.5]])
    x, y = np.floor(photo.to_camera(xy)).astype(int).T
    np.testing.assert_array_equal(stored[y, x], upright[xy[:, 1].astype(int), xy[:, 0].astype(int)])
    assert photo.from_camera(photo.to_camera(xy)) == pytest.approx(xy)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_stated_rotation_overrules_exif(kind, orientation, rotation):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    grey = Image.fromarray(colours(480, 480)[..., 0])
    grey.save(file, kind, exif=exif)
    stored = load_photo(file.getvalue(), (480, 480), rotation=0).pixels
    seen = load_photo(file.getvalue(), (480, 480), rotation=rotation).pixels
    np.testing.assert_array_equal(seen, np.rot90(stored, -rotation // 90))
    assert np.abs(stored.astype(int) - np.asarray(grey)).max() < 12  # JPEG


@pytest.mark.parametrize(
    ("array", "colors", "says"),
    [
        (np.zeros((480, 640), np.float32), None, "float32"),
        (np.zeros((480, 640), np.uint16), None, "uint16"),
        (np.full((480, 640), np.nan), None, "float64"),
        (np.zeros((480, 640, 3), np.uint8), None, "colors"),
        (np.zeros((480, 640), np.uint8), "rgb", "colors"),
        (np.zeros((480, 640, 4), np.uint8), "rgb", "(480, 640, 4)"),
        (np.zeros((1, 480, 640, 3), np.uint8), "rgb", "(1, 480, 640, 3)"),
        (np.zeros(0, np.uint8), None, "(0,)"),
        (np.zeros((0, 0), np.uint8), None, "0x0"),
        (np.zeros((480, 8), np.uint8), None, "8x480"),
        (np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1 << 15, 1 << 15), (0, 0)), None, "32768x32768"),
    ],
)
def test_arrays_that_are_no_frames_are_named(array, colors, says):
    with pytest.raises(ImageError) as error:
        load_photo(array, SIZE, colors=colors)
    assert says in error.value.problem and error.value.remedy


def test_other_arguments_are_named_too(tmp_path):
    grey = colours()[..., 0]
    with pytest.raises(InputError, match="colors"):
        load_photo(grey, SIZE, colors="yuv")
    with pytest.raises(InputError, match="colors is for arrays"):
        load_photo(encoded(grey, "PNG"), SIZE, colors="rgb")
    for wrong in (45, -90, 90.5, True, "90"):
        with pytest.raises(InputError, match="rotation"):
            load_photo(grey, SIZE, rotation=wrong)
    for size in ((639, 480), (480, 640)):
        with pytest.raises(CameraError, match="640x480"):
            load_photo(grey, SIZE, Camera("PINHOLE", *size, (500, 500, 300, 200)))
    with pytest.raises(CameraError):  # the camera describes the stored pixels where a rotation is stated
        load_photo(grey, SIZE, Camera("PINHOLE", 480, 640, (500, 500, 300, 200)), rotation=90)
    with pytest.raises(ImageError, match="not an image"):
        load_photo(3.5, SIZE)
    closed = Image.open(io.BytesIO(encoded(grey, "PNG")))
    closed.close()
    with pytest.raises(ImageError):
        load_photo(closed, SIZE)
