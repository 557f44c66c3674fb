"""The camera of a photo that nobody calibrated, by EXIF that Pillow writes here."""

import math

import pytest
from PIL import ExifTags, Image

from hfnet_edge.errors import CameraError, ImageError
from hfnet_edge.image.exif_camera import camera_of
from hfnet_edge.image.photo import load_photo

E = ExifTags.Base


def photo(folder, tags=(), orientation=1, size=(640, 480), name="a.jpg"):
    """A photo with these tags of EXIF's own directory."""
    exif = Image.Exif()
    exif[E.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif).update(tags)
    Image.new("L", size, 99).save(folder / name, exif=exif)
    return folder / name


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_the_focal_length_in_35_mm(tmp_path, name):
    camera = camera_of(photo(tmp_path, {E.FocalLengthIn35mmFilm: 27, E.FocalLength: 4.25}, name=name))
    assert (camera.model, camera.width, camera.height) == ("SIMPLE_PINHOLE", 640, 480)
    assert camera.params == pytest.approx((27 / 43.2666 * 800, 320, 240), rel=1e-5)  # 800 px is the diagonal


@pytest.mark.parametrize("unit", [(2, 25.4), (3, 10.0), (4, 1.0), (None, 25.4)])
def test_the_focal_length_of_a_sensor_of_known_resolution(tmp_path, unit):
    """24 mm before 5184 pixels on 22.3 mm, and the photo was reduced to an eighth since."""
    number, millimetres = unit
    tags = {E.FocalLength: 24.0, E.FocalPlaneXResolution: 5184 / 22.3 * millimetres}
    tags |= {E.ExifImageWidth: 5184, E.ExifImageHeight: 3456}
    tags |= {} if number is None else {E.FocalPlaneResolutionUnit: number}
    camera = camera_of(photo(tmp_path, tags, size=(648, 432)))
    assert camera.focal[0] == pytest.approx(24 / 22.3 * 648, rel=1e-4)
    sideways = camera_of(photo(tmp_path, tags, size=(432, 648)))  # turned by a program that left the tags
    assert sideways.focal == pytest.approx(camera.focal)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_camera_describes_the_stored_pixels(tmp_path, orientation):
    path = photo(tmp_path, {E.FocalLengthIn35mmFilm: 27}, orientation)
    camera = camera_of(path)
    assert (camera.width, camera.height, *camera.params[1:]) == (640, 480, 320, 240)
    turned_back = load_photo(path, (480, 640), camera).orientation
    assert turned_back == (1 if orientation == 3 else orientation), "upside down it is the same camera"


def test_a_field_of_view_stands_in(tmp_path):
    for size in ((640, 480), (480, 640)):
        camera = camera_of(photo(tmp_path, size=size), fov=60)
        assert camera.params == pytest.approx((320 / math.tan(math.pi / 6), size[0] / 2, size[1] / 2))
    said = photo(tmp_path, {E.FocalLengthIn35mmFilm: 27}, name="said.jpg")
    assert camera_of(said, fov=60) == camera_of(said), "EXIF of the photo before what is said of all"


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {E.FocalLength: 4.25},
        {E.FocalLengthIn35mmFilm: 0},
        {E.FocalLengthIn35mmFilm: 65535},
        {E.FocalLength: 0.0, E.FocalPlaneXResolution: 3000.0},
        {E.FocalLength: 24.0, E.FocalPlaneXResolution: 5900.0, E.FocalPlaneResolutionUnit: 1},
        {E.FocalLength: 24.0, E.FocalPlaneXResolution: 1e-3},
    ],
)
def test_what_exif_does_not_say_has_to_be_given(tmp_path, tags):
    path = photo(tmp_path, tags)
    with pytest.raises(CameraError, match=r"a\.jpg is not known.*--camera.*--fov"):
        camera_of(path)
    assert camera_of(path, fov=65).focal[0] == pytest.approx(320 / math.tan(math.radians(32.5)))


def test_damaged_exif_says_nothing(tmp_path, recwarn):
    path = photo(tmp_path, {E.FocalLengthIn35mmFilm: 27})
    content = path.read_bytes()
    at = content.index(b"Exif\0\0") + 6
    for end in (at + 12, at + 30, at + 40):
        path.write_bytes(content[:at] + content[at:end] + b"\xee" * (content.index(b"\xff\xdb") - end)
                         + content[content.index(b"\xff\xdb") :])  # fmt: skip
        with pytest.raises(CameraError, match="is not known"):
            camera_of(path)
    assert not recwarn.list


@pytest.mark.parametrize("fov", [0, -60, 180, math.nan, math.inf])
def test_fields_of_view_that_are_none(tmp_path, fov):
    with pytest.raises(CameraError, match="no field of view"):
        camera_of(photo(tmp_path), fov)


def test_a_photo_that_cannot_be_read(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError):
        camera_of(tmp_path / "a.jpg", 60)
