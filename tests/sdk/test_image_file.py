"""Which image files are read, and what those that were made to do harm can do."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import tracemalloc
import types
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from hfnet_edge.draw import draw_query
from hfnet_edge.errors import CameraError, ImageError
from hfnet_edge.geometry import Camera
from hfnet_edge.image import image_file
from hfnet_edge.image.image_file import open_image
from hfnet_edge.image.photo import load_photo

SIZE = (480, 640)
EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 640 480
%%EndComments
(/tmp/ghostscript_was_here) (w) file closefile
showpage
%%EOF
"""


def picture(width=640, height=480):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1).astype(np.uint8)


def encoded(array, kind, **options):
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind, **options)
    return file.getvalue()


def with_size(png, width, height):
    """A PNG whose header says another size."""
    head = png[12:16] + struct.pack(">2L", width, height) + png[24:29]
    return png[:12] + head + struct.pack(">L", zlib.crc32(head)) + png[33:]


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.eps"])
def test_no_program_is_started_for_a_photo(tmp_path, monkeypatch, name):
    """A Ghostscript that leaves a trace is the first on the path; Pillow itself starts it."""
    ghostscript, trace = tmp_path / "gs", tmp_path / "trace"
    ghostscript.write_text(f"#!/bin/sh\necho started >> {trace}\n")
    ghostscript.chmod(ghostscript.stat().st_mode | stat.S_IXUSR)
    (tmp_path / name).write_bytes(EPS)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def runs(code):
        subprocess.run([sys.executable, "-c", code, tmp_path / name], env=environment, capture_output=True, timeout=60)
        return trace.exists()

    ours = "import sys; from hfnet_edge.image.photo import load_photo; load_photo(sys.argv[1], (480, 640))"
    assert not runs(ours)
    assert runs("import sys; from PIL import Image; Image.open(sys.argv[1]).load()")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    camera = Camera("PINHOLE", 640, 480, (500, 500, 320, 240))
    for read in (lambda path: load_photo(path, SIZE), lambda path: draw_query(path, camera, None)):
        with pytest.raises(ImageError, match="it is PostScript"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "options", "apart"),
    [
        ("JPEG", {"quality": 95}, 6),
        ("MPO", {"quality": 95, "save_all": True, "append_images": [Image.new("L", (64, 64))]}, 6),
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_adobe_deflate"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("BMP", {}, 0),
        ("PPM", {}, 0),
    ],
)
def test_formats_that_are_read(tmp_path, kind, options, apart):
    """By what they are, whatever their name is."""
    (tmp_path / "photo.xyz").write_bytes(encoded(picture(), kind, **options))
    luma = np.asarray(Image.fromarray(picture()).convert("L")).astype(int)
    assert np.abs(load_photo(tmp_path / "photo.xyz", SIZE).pixels - luma).mean() <= apart
    assert np.abs(open_image(tmp_path / "photo.xyz").rgb().astype(int) - picture()).mean() <= apart


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (EPS, "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + EPS, "PostScript"),
        (encoded(picture()[..., 0], "GIF"), "a GIF"),
        (encoded(picture(), "JPEG2000"), "a JPEG 2000"),
        (encoded(picture(), "PDF"), "a PDF"),
        (b"8BPS\0\1" + bytes(100), "a Photoshop file"),
        (b"\0\0\0\x20ftypavif" + bytes(100), "an AVIF"),
        (b"P3 64 64 255\n" + b"0 " * 64 * 64 * 3, "a PPM in text"),
        (b"II+\0" + bytes(100), "a BigTIFF"),
        (b"<svg/>", "a text"),
        (encoded(picture(), "ICNS") if sys.platform == "darwin" else b"icns" + bytes(100), "no known format"),
        (b"P5 64 64 1023\n" + bytes(64 * 64 * 2), "PPM of a rare kind"),
        (encoded(picture(), "TIFF", save_all=True, append_images=[Image.new("L", (64, 64))]), "several images"),
        (encoded(picture(), "WEBP", save_all=True, append_images=[Image.new("L", (640, 480))]), "several images"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, content, what):
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=rf"photo\.jpg.* {what}") as e:
        load_photo(tmp_path / "photo.jpg", SIZE)
    assert e.value.remedy


def test_an_iphones_photo_asks_for_what_reads_it(tmp_path, monkeypatch):
    (tmp_path / "IMG_1.heic").write_bytes(b"\0\0\0\x24ftypheic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"IMG_1\.heic is a HEIC") as e:
        load_photo(tmp_path / "IMG_1.heic", SIZE)
    assert "pip install pillow-heif" in e.value.remedy


def test_pillow_heif_is_asked_where_it_is_installed(tmp_path, monkeypatch):
    """With a stand-in for it, whose HEIC is a PNG behind twelve bytes."""

    class Heif(Image.Image):
        format = "HEIF"

    def opened(file, name):
        inside = Image.open(io.BytesIO(file.read()[12:]))
        inside.load()
        inside.format = "HEIF"
        return inside

    def register_heif_opener():
        Image.register_open("HEIF", opened, lambda start: start[4:8] == b"ftyp")

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register_heif_opener))
    (tmp_path / "IMG_1.heic").write_bytes(b"\0\0\0\x24ftypheic" + encoded(picture(), "PNG"))
    np.testing.assert_array_equal(open_image(tmp_path / "IMG_1.heic").rgb(), picture())


def test_a_heic_is_read_with_pillow_heif(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(picture())).save(tmp_path / "a.heic", quality=90)
    luma = np.asarray(Image.fromarray(picture()).convert("L")).astype(int)
    assert np.abs(load_photo(tmp_path / "a.heic", SIZE).pixels - luma).mean() < 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_once(tmp_path, kind, orientation):
    """A TIFF was turned by Pillow, and again."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL transpose that stores the picture for a given orientation
    upright = Image.fromarray(picture())
    stored = upright if orientation == 1 else upright.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    path = tmp_path / "a.xyz"
    stored.save(path, kind, exif=exif, **lossless)
    apart = 6 if kind == "JPEG" else 0
    luma = np.asarray(upright.convert("L")).astype(int)
    photo = load_photo(path, SIZE)
    assert photo.size == (640, 480) and np.abs(photo.pixels - luma).max() <= apart
    assert np.abs(open_image(path).rgb().astype(int) - picture()).max() <= apart
    as_stored = Camera("PINHOLE", *stored.size, (500, 500, 300, 200))
    expected = np.asarray(stored if orientation in (5, 6, 7, 8) else upright).astype(int)
    assert np.abs(open_image(path).rgb(as_stored) - expected).max() <= apart
    with pytest.raises(CameraError, match="640x480"):
        open_image(path).rgb(Camera("PINHOLE", 64, 48, (50, 50, 30, 20)))


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    png = encoded(picture(), "PNG", exif=exif)
    at = png.index(b"eXIf") - 4
    length = 12 + int.from_bytes(png[at : at + 4], "big")
    end = png.index(b"IEND") - 4
    (tmp_path / "late.png").write_bytes(png[:at] + png[at + length : end] + png[at : at + length] + png[end:])
    assert load_photo(tmp_path / "late.png", SIZE).size == (480, 640)


def zeros(shape, kind="PNG", **options):
    return encoded(np.zeros(shape, np.uint8), kind, **options)


def jpeg_of(width, height, **options):
    """A JPEG that says another size than it has."""
    content = bytearray(zeros((64, 64, 3), "JPEG", **options))
    at = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    content[at + 5 : at + 9] = struct.pack(">2H", height, width)
    return bytes(content)


def tiff_tile(side):
    """A small compressed TIFF with one enormous tile."""
    tags = {256: 64, 257: 64, 258: 8, 259: 5, 262: 1, 277: 1, 322: side, 323: side, 324: 200, 325: 9}
    rows = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return (b"II*\0" + struct.pack("<LH", 8, len(tags)) + rows + bytes(4)).ljust(200, b"\0") + bytes(9)


BOMBS = {
    "colour.png": with_size(zeros((64, 64, 3)), 11000, 11000),
    "grey.png": with_size(zeros((64, 64)), 17000, 17000),
    "sixteen bits.png": with_size(encoded(np.zeros((64, 64), np.uint16), "PNG"), 14000, 14000),
    "strip.png": with_size(zeros((64, 64, 3)), 2**31 - 1, 40),
    "lossless.webp": zeros((6000, 6000, 3), "WEBP", lossless=True, method=0, quality=0),
    "baseline.jpg": jpeg_of(65500, 65500),
    "odd.jpg": jpeg_of(20001, 15001),
    "progressive.jpg": jpeg_of(16320, 12240, progressive=True),
    "tile.tif": tiff_tile(30000),
    "grey.bmp": b"BM" + struct.pack("<LLLLllHHLLllLL", 0, 0, 54, 40, 12000, 12000, 1, 24, 0, 0, 0, 0, 0, 0),
    "grey.ppm": b"P6 12000 12000 255\n",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(BOMBS[name])
    monkeypatch.setattr(Image.core, "new", lambda *_: pytest.fail("memory was taken"))
    monkeypatch.setattr(Image.core, "fill", lambda *_: pytest.fail("memory was taken"))
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="to decode; 268 Mpx and 537 MB are the most") as e:
            load_photo(tmp_path / name, SIZE)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert name in e.value.problem and e.value.remedy


def test_headers_of_endless_parts_are_refused(tmp_path):
    """Pillow reads each in Python: 100 MB of them take minutes, and gigabytes."""
    jpeg, png = zeros((64, 64), "JPEG"), zeros((64, 64))
    chunk = struct.pack(">L4sL", 0, b"teXt", zlib.crc32(b"teXt"))
    scans = zeros((64, 64), "JPEG", progressive=True)
    scan = scans[scans.rindex(b"\xff\xda") : -2]
    files = {
        "comments.jpg": jpeg[:2] + b"\xff\xfe\0\2" * 70_000 + jpeg[2:],
        "stray.jpg": jpeg[:20] + bytes(70_000) + jpeg[20:],
        "chunks.png": png[:33] + chunk * 70_000 + png[33:],
        "late.png": png + chunk * 70_000,
        "scans.jpg": scans[:-2] + scan * 80 + scans[-2:],
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=rf"{name} .*(65536 parts|64 scans)"):
            load_photo(tmp_path / name, SIZE)
    few = jpeg[:2] + b"\xff\xfe\0\2" * 1000 + jpeg[2:]
    (tmp_path / "few.jpg").write_bytes(few)
    assert load_photo(tmp_path / "few.jpg", SIZE).size == (64, 64)


def test_a_file_beyond_the_limit_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(zeros((64, 64)))
    monkeypatch.setattr(image_file, "MAX_FILE", 50)
    with pytest.raises(ImageError, match=r"a\.png"):
        load_photo(tmp_path / "a.png", SIZE)


PEAK = """
import resource, sys, time
import numpy as np
from hfnet_edge.image.photo import load_photo
load_photo(sys.argv[1], (480, 640))
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
photo = load_photo(sys.argv[2], (480, 640))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.process_time() - start)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("phone.jpg", (16320, 12240), {"quality": 60}),
        ("odd.jpg", (16319, 12239), {"quality": 60}),
        ("colour.png", (10000, 9900), {"compress_level": 1}),
        ("zeros.png", (10000, 9900), {"compress_level": 9}),
        ("strips.tif", (8000, 7000), {"compression": "tiff_adobe_deflate"}),
        ("lossless.webp", (5500, 5500), {"lossless": True, "method": 0, "quality": 0}),
        ("progressive.jpg", (10000, 10000), {"quality": 60, "progressive": True}),
    ],
)
def test_the_largest_photos_stay_within_the_limit(tmp_path, name, size, options):
    Image.fromarray(picture()).save(tmp_path / "small.jpg")
    plain = Image.new("RGB", size) if "zeros" in name else Image.fromarray(picture(500, 500)).resize(size)
    plain.save(tmp_path / name, **options)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "small.jpg", tmp_path / name], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    peak, seconds = done.stdout.split()
    assert int(peak) * 1024 < 1.1 * image_file.MAX_MEMORY
    assert float(seconds) < 6


def test_threads_leave_the_filters_of_warnings_as_they_were(tmp_path):
    """Each thread's decoding warns: of its palette's transparency, and of its EXIF."""
    indexed = Image.fromarray(picture(64, 64)).quantize(8)
    indexed.save(tmp_path / "a.png", transparency=bytes(range(8)), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            photos = list(pool.map(lambda _: load_photo(tmp_path / "a.png", SIZE).pixels, range(200)))
        assert warnings.filters == filters
    assert warnings.filters == before and not shown
    assert all(np.array_equal(pixels, photos[0]) for pixels in photos)
