from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from hfnet_edge.errors import CameraError, ImageError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import fit, load_photo, shrink

SIZE = (480, 640)


def scene(width=640, height=480):
    """A smooth colour picture without symmetry."""
    y, x = np.mgrid[:height, :width] / (height, width)[0]
    rgb = np.stack([x, y, (x + 2 * y) / 3], axis=-1)
    rgb = rgb / rgb.max()
    rgb[height // 8 : height // 4, width // 8 : width // 2] = 0.95
    return (rgb * 255).astype(np.uint8)


def save(path, array, **kwargs):
    Image.fromarray(array).save(path, **kwargs)
    return path


def test_a_photo_of_the_input_size_is_its_luma(tmp_path):
    rgb = scene()
    photo = load_photo(save(tmp_path / "a.png", rgb), SIZE)
    expected = rgb @ [0.299, 0.587, 0.114]
    assert np.abs(photo.pixels - expected).max() <= 1
    assert photo.valid == SIZE and photo.scale == (1.0, 1.0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_sideways_photo_is_seen_upright(tmp_path, orientation):
    upright = Image.fromarray(scene())
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL transpose that stores the picture for a given orientation
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "s.png", exif=exif)
    photo = load_photo(tmp_path / "s.png", SIZE)
    np.testing.assert_array_equal(photo.pixels, load_photo(save(tmp_path / "u.png", scene()), SIZE).pixels)

    # A camera that describes the stored picture gets its keypoints there: the grey value under a keypoint is the same.
    camera = Camera("PINHOLE", *stored.size, (500, 500, 300, 200))
    if orientation in (2, 3, 4):  # same size stored and upright: the camera is taken as upright
        return
    photo = load_photo(tmp_path / "s.png", SIZE, camera)
    xy = np.array([[100.5, 70.5], [400.5, 300.5], [10.5, 470.5]])
    x, y = np.floor(photo.to_camera(xy)).astype(int).T
    under_stored = np.asarray(stored.convert("L"))[y, x]
    np.testing.assert_array_equal(under_stored, photo.pixels[xy[:, 1].astype(int), xy[:, 0].astype(int)])


@pytest.mark.parametrize("size", [(1024, 683), (683, 1024), (4000, 3000), (2000, 400), (320, 240), (641, 479)])
def test_keypoints_return_to_full_resolution(tmp_path, size):
    """A dot drawn at a known sub-pixel place of the full image is found there."""
    w, h = size
    scale = max(w / 640, h / 480)
    cx, cy = w * 0.7, h * 0.6
    y, x = np.mgrid[:h, :w] + 0.5
    image = 255 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * (4 * scale) ** 2))
    photo = load_photo(save(tmp_path / "d.jpg", image.astype(np.uint8), quality=98), SIZE)
    weight = photo.pixels[: photo.valid[0], : photo.valid[1]].astype(float)
    weight[weight < 20] = 0
    y, x = np.mgrid[: photo.valid[0], : photo.valid[1]] + 0.5
    found = photo.to_camera(np.array([[(weight * x).sum(), (weight * y).sum()]]) / weight.sum())[0]
    np.testing.assert_allclose(found, [cx, cy], atol=0.05 * scale)


def test_fit_keeps_the_aspect_ratio_and_mirrors_the_rest():
    pixels, valid = fit(scene(600, 200)[..., 0], SIZE)
    assert valid == (213, 640)
    np.testing.assert_array_equal(pixels[213], pixels[211])
    pixels, valid = fit(np.full((32, 4000), 7, np.uint8), SIZE)
    assert valid == (5, 640) and (pixels == 7).all()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "I;16"])
def test_every_common_mode_becomes_the_same_grey(tmp_path, mode):
    base = Image.fromarray(scene()).convert("L")
    if mode == "I;16":
        Image.fromarray(np.asarray(base).astype(np.uint16) * 257).save(tmp_path / "m.png")
        name = "m.png"
    else:
        name = "m.jpg" if mode == "CMYK" else "m.png"
        image = base.convert("RGB").convert(mode) if mode in ("CMYK", "RGBA", "P") else base.convert(mode)
        image.save(tmp_path / name)
    pixels = load_photo(tmp_path / name, SIZE).pixels
    tolerance = {"P": 30, "CMYK": 6}.get(mode, 1)
    assert np.abs(pixels.astype(int) - np.asarray(base)).mean() <= tolerance
    assert np.corrcoef(pixels.ravel(), np.asarray(base).ravel())[0, 1] > 0.8


def test_a_black_image_is_no_error(tmp_path):
    assert not load_photo(save(tmp_path / "b.png", np.zeros((480, 640), np.uint8)), SIZE).pixels.any()


def bad_files(folder):
    good = folder / "good.jpg"
    save(good, scene())
    content = good.read_bytes()
    (folder / "truncated.jpg").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "folder.jpg").mkdir()
    save(folder / "one.png", np.zeros((1, 1), np.uint8))
    Image.fromarray(np.zeros((64, 64), np.float32)).save(folder / "float.tiff")
    # A header that promises 60000x60000 pixels in a few bytes.
    huge = bytearray(cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes())
    huge[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    huge[29:33] = zlib.crc32(bytes(huge[12:29])).to_bytes(4, "big")
    (folder / "huge.png").write_bytes(bytes(huge))


@pytest.mark.parametrize(
    "name",
    ["missing.jpg", "truncated.jpg", "empty.jpg", "text.jpg", "folder.jpg", "one.png", "float.tiff", "huge.png"],
)
def test_bad_images_are_named_with_a_remedy(tmp_path, name):
    bad_files(tmp_path)
    with pytest.raises(ImageError, match=name) as e:
        load_photo(tmp_path / name, SIZE)
    assert e.value.remedy


def test_a_camera_of_another_size_is_refused(tmp_path):
    with pytest.raises(CameraError, match=r"640x480.*800x600"):
        load_photo(save(tmp_path / "a.png", scene()), SIZE, Camera("PINHOLE", 800, 600, (500, 500, 400, 300)))


@pytest.mark.parametrize(
    ("size", "reduced"), [((37, 53), (20, 29)), ((64, 96), (32, 48)), ((41, 40), (17, 40)), ((9, 500), (9, 31))]
)
def test_an_image_is_reduced_by_exact_means_of_areas(size, reduced):
    """Against fractions, pixel by pixel: no processor may round another way."""
    grey = np.random.default_rng(0).integers(0, 256, size).astype(np.uint8)
    found = shrink(grey, reduced)

    def covers(length, count, i):
        start, stop = Fraction(i * length, count), Fraction((i + 1) * length, count)
        return [(j, min(stop, j + 1) - max(start, j)) for j in range(int(start), min(length, int(stop) + 1))]

    area = Fraction(size[0], reduced[0]) * Fraction(size[1], reduced[1])
    for y in range(reduced[0]):
        for x in range(0, reduced[1], 3):
            rows, columns = covers(size[0], reduced[0], y), covers(size[1], reduced[1], x)
            mean = sum(int(grey[j, i]) * a * b for j, a in rows for i, b in columns) / area
            assert found[y, x] == int(mean + Fraction(1, 2))


def test_a_large_image_does_not_overflow():
    white = np.full((3023, 4031), 255, np.uint8)
    assert (shrink(white, (480, 640)) == 255).all()
