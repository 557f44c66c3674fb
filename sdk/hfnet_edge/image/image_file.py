"""This module says which image files are read, how they are turned, and what decoding one may take.

JPEG, PNG, TIFF, WebP, BMP and binary PGM and PPM are read, and HEIC where pillow-heif is installed. A file is what its
first bytes say, whatever its name; no program outside is ever asked, as Pillow does with PostScript.

Files may come from anywhere, and a small one can hold a very large picture. So what decoding would take is told from
the header: `MAX_PIXELS` at most (268 Mpx), and `MAX_MEMORY` (537 MB) for the file, the decoder and its result. In grey,
as the network sees it, that is a JPEG of 268 Mpx (one whose sides are multiples of 8 decodes reduced, in a tenth of
that; a progressive one ends at 110), a PNG or BMP of 100 Mpx in colour and 260 in grey, a compressed TIFF of 60 in
colour, a WebP of 30.
"""

from __future__ import annotations

import importlib
import io
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from hfnet_edge.errors import CameraError, ImageError
from hfnet_edge.geometry import Camera
from hfnet_edge.shell.reading import read_bytes

MIN_SIDE = 32  # below this the encoder's last layer has no pixel of its own
MAX_PIXELS = 1 << 28
MAX_MEMORY = 1 << 29  # bytes
MAX_FILE = 1 << 28  # bytes
MAX_PARTS = 1 << 16  # segments of a JPEG, chunks of a PNG, and stray bytes between them: Pillow reads each in Python
MAX_SCANS = 64  # of a progressive JPEG, which has ten: each goes over all of the image
BAND = 1 << 20  # pixels that are converted at a time
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
BACK = {6: 8, 8: 6}  # the orientation that undoes one, where that is another
FORMATS = "give a JPEG, PNG, TIFF, WebP, BMP, PGM or PPM file"
HEIC = "pip install pillow-heif, or save it as JPEG"
BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # of a pixel in Pillow's memory, other modes: 4
DECODER = {"WEBP": 12, "HEIF": 5}  # bytes that the decoder keeps of a pixel besides, measured

_DECODERS: tuple[tuple[bytes, type], ...] = (
    (b"\xff\xd8\xff", JpegImageFile),  # of an MPO the first image
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
    (b"RIFF....WEBP", WebPImageFile),
    (b"BM", BmpImageFile),
    (b"P5", PpmImageFile),
    (b"P6", PpmImageFile),
)
_OTHERS = {
    b"GIF8": "a GIF",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "a PDF",
    b"II+\0": "a BigTIFF",
    b"MM\0+": "a BigTIFF",
    b"8BPS": "a Photoshop file",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"....ftypavi": "an AVIF",
    b"P1": "a PBM in text",
    b"P2": "a PGM in text",
    b"P3": "a PPM in text",
    b"P4": "a PBM",
    b"\0\0\1\0": "an icon",
    b"<": "a text",
}
_HEIC = tuple(b"....ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"))
_opening = threading.Lock()  # Python's filters of warnings are one for all threads


class Oriented:
    """Stored pixels, and how they are turned to be upright.

    Attributes:
        name: for messages.
        orientation: as EXIF says it, 1 to 8. stored: (width, height) before the image is turned by it.
        as_stored: cameras describe the stored pixels, also where the upright image has the same size.
    """

    name: str
    stored: tuple[int, int]
    orientation: int
    as_stored: bool

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright image."""
        return self.stored[::-1] if self.orientation in TURNED else self.stored

    def orientation_of(self, camera: Camera | None) -> int:
        """The orientation that pixels of the upright image are turned back by to be the camera's: 1 where it describes
        the upright image. Raises CameraError: it is of another size."""
        if camera is None or ((camera.width, camera.height) == self.size and not self.as_stored):
            return 1
        if (camera.width, camera.height) == self.stored:
            return self.orientation
        width, height = self.stored if self.as_stored else self.size
        raise CameraError(
            f"{self.name} is {width}x{height}, its camera {camera.width}x{camera.height}",
            "give the intrinsics for this size",
        )

    def turn_for(self, camera: Camera | None) -> int:
        """The orientation by which the stored image becomes the camera's."""
        return self.orientation if self.orientation_of(camera) == 1 else 1


@dataclass(frozen=True)
class ImageFile(Oriented):
    """An image file whose header has been read, and which decodes once.

    Attributes:
        content: of the file. image: Pillow's. kind: Pillow's name of the format.
        own: the orientation that the file's EXIF says.
        stored: (width, height) before the image is turned.
    """

    name: str
    content: bytes
    image: Image.Image
    kind: str
    own: int
    stored: tuple[int, int]
    orientation: int
    as_stored: bool = False

    def grey(self, camera: Camera | None = None, excess: float = 1.0) -> np.ndarray:
        """The image as a camera describes it, or upright, (H, W) uint8. 8 and 16 bit, grey, colour, palette, CMYK and
        alpha (ignored) become luma (Rec. 601).

        Args:
            excess: how many times larger than needed the image is: a JPEG is decoded at a half, quarter or eighth,
                where that is exact, so that the pixel convention holds to the last column.

        Raises:
            ImageError: damaged, of 32 bits, or beyond the limits. CameraError: see `orientation_of`.
        """
        return self._decode("L", self.turn_for(camera), excess)

    def rgb(self, camera: Camera | None = None, excess: float = 1.0) -> np.ndarray:
        """The same in colours, (H, W, 3) uint8."""
        return self._decode("RGB", self.turn_for(camera), excess)

    def _decode(self, mode: str, turn: int, excess: float) -> np.ndarray:
        """Pixels of a mode of Pillow's, turned as an orientation says."""
        image = self.image
        if excess > 1 and not any(side % 8 for side in self.stored):
            image.draft(mode, (int(self.stored[0] / excess), int(self.stored[1] / excess)))
        else:
            image.draft(mode, image.size)
        self._check(len(mode))
        try:
            image.load()
            image.info.pop("transparency", None)  # of a palette, of which Pillow would warn
            pixels = _pixels(image, mode)
        except Exception as e:  # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, ...
            raise ImageError(f"the image {self.name} does not decode: {e}", FORMATS) from e
        finally:
            image.close()
        if self.kind == "TIFF":  # Pillow has turned it upright
            pixels = turned(pixels, BACK.get(self.own, self.own))
        return np.ascontiguousarray(turned(pixels, turn))

    def _check(self, channels: int) -> None:
        """Raises ImageError: of a kind that is not read, or beyond the limits."""
        image, tags = self.image, getattr(self.image, "tag_v2", {})
        if self.kind in ("BMP", "PPM") and any(tile[0] != "raw" for tile in image.tile):  # type: ignore[attr-defined]
            raise ImageError(f"{self.name} is a {self.kind} of a rare kind", "save it with 8 bits, not compressed")
        if image.mode in ("I", "F"):
            raise ImageError(f"{self.name} has 32-bit pixels", "save it with 8 or 16 bits")
        if self.kind != "JPEG" and getattr(image, "is_animated", False):
            raise ImageError(f"{self.name} holds several images", "save the one that is meant")
        pixels = image.width * image.height
        cost = len(self.content) + pixels * (BYTES.get(image.mode, 4) + channels + DECODER.get(self.kind, 0))
        if self.kind == "JPEG":
            cost += self._coefficients()
        if tags.get(259, 1) != 1:  # a compressed TIFF: a strip or tile is decoded as a whole
            tile = int(tags.get(322, 0)) * int(tags.get(323, 0))
            cost += max(pixels, tile) * -(-sum(tags.get(258, (1,))) // 8)
        width, height = self.stored
        if width * height > MAX_PIXELS or cost > MAX_MEMORY:
            raise ImageError(
                f"{self.name} is {width}x{height}, {width * height / 1e6:.0f} Mpx, and would take {cost / 1e6:.0f} MB "
                f"to decode; {MAX_PIXELS / 1e6:.0f} Mpx and {MAX_MEMORY / 1e6:.0f} MB are the most",
                "reduce it",
            )

    def _coefficients(self) -> int:
        """Bytes of the coefficients of a JPEG that comes in several scans: libjpeg keeps all of them, at any reduction.
        Raises ImageError."""
        image = self.image
        assert isinstance(image, JpegImageFile) and image.fp is not None
        first = self.content.rfind(b"\xff\xda", 0, image.fp.tell())
        if not image.info.get("progressive") and self.content[first + 4] == len(image.layer):
            return 0
        if self.content.count(b"\xff\xda", first) > MAX_SCANS:
            raise ImageError(f"{self.name} is a JPEG of more than {MAX_SCANS} scans", "save it again")
        across, down = (max(layer[k] for layer in image.layer) for k in (1, 2))
        samples = sum(layer[1] * layer[2] for layer in image.layer) / (across * down)
        return int(2 * samples * self.stored[0] * self.stored[1])


def open_image(source: Path | str | bytes) -> ImageFile:
    """Reads the header of an image.

    Args:
        source: a file's name, or its bytes.

    Raises:
        ImageError: missing, empty, damaged, too small, or of a format that is not read.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else _content(source)
    if not content:
        raise ImageError(f"the image {name} is empty (0 bytes)", "copy it again")
    try:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on EXIF
            image = _opened(content, name)
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # a PNG's own would decode it
    except ImageError:
        raise
    except Exception as e:  # Pillow's readers raise whatever they like
        raise ImageError(f"the image {name} does not decode: {e}", FORMATS) from e
    orientation = orientation if orientation in range(1, 9) else 1
    kind = image.format or ""
    turned = kind == "TIFF" and orientation in TURNED  # Pillow says the size after it has turned it
    stored = image.size[::-1] if turned else image.size
    if min(stored) < MIN_SIDE:
        raise ImageError(f"{name} is {stored[0]}x{stored[1]}, below {MIN_SIDE} pixels", "give a larger image")
    return ImageFile(name, content, image, kind, orientation, stored, orientation)


def _content(path: Path | str) -> bytes:
    try:
        return read_bytes(path, MAX_FILE)
    except OSError as e:
        raise ImageError(f"cannot read the image {path}: {e.strerror}", "check the file's name") from e
    except TypeError as e:
        raise ImageError(
            f"a {type(path).__name__} is not an image",
            "give a file's name or bytes, a picture of Pillow's, or an array",
        ) from e


def _opened(content: bytes, name: str) -> Image.Image:
    """Pillow's image, by a decoder that is chosen here: `Image.open` would try all that it has."""
    for start, decoder in _DECODERS:
        if _begins(content, start):
            late = _check_parts(content, name)
            image = decoder(io.BytesIO(content))
            if late:
                image.info.setdefault("exif", late)
            return image
    if any(_begins(content, start) for start in _HEIC):
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as e:
            raise ImageError(f"{name} is a HEIC, which nothing installed reads", HEIC) from e
        return Image.open(io.BytesIO(content), formats=("HEIF",))
    for start, what in _OTHERS.items():
        if _begins(content, start):
            raise ImageError(f"the image {name} does not decode: it is {what}", FORMATS)
    raise ImageError(f"the image {name} does not decode: it is of no known format", FORMATS)


def _check_parts(content: bytes, name: str) -> bytes:
    """Counts the parts of a JPEG's or PNG's header before Pillow reads them. Raises ImageError.

    Returns:
        A PNG's EXIF, which may stand behind its pixels, or nothing.
    """
    at, parts, exif = 8, 0, b""
    if content[:1] == b"\x89":
        while at + 12 <= len(content) and (parts := parts + 1) <= MAX_PARTS:
            end = at + 8 + int.from_bytes(content[at : at + 4], "big")
            if content[at + 4 : at + 8] == b"eXIf":
                exif = content[at + 8 : end]
            at = end + 4
    elif content[:1] == b"\xff":
        at = 2
        while (found := content.find(b"\xff", at)) >= 0 and (parts := parts + 1 + found - at) <= MAX_PARTS:
            marker = content[found + 1 : found + 2]
            if marker == b"\xda":  # pixels follow
                break
            at = found + 1 + (marker != b"\xff")
            if not (marker in (b"", b"\0", b"\xff") or 0xD0 <= marker[0] <= 0xD9):  # the others say their length
                at += int.from_bytes(content[found + 2 : found + 4], "big")
    if parts > MAX_PARTS:
        raise ImageError(f"{name} has more than {MAX_PARTS} parts before its pixels", "save it again")
    return exif


def _begins(content: bytes, start: bytes) -> bool:
    """With these bytes, of which a dot is any."""
    return len(content) >= len(start) and all(a in (b, 0x2E) for a, b in zip(start, content, strict=False))


def _pixels(image: Image.Image, mode: str) -> np.ndarray:
    """Of a decoded image, band by band, so that no second copy of it is made in Pillow's memory."""
    shape = (image.height, image.width) if mode == "L" else (image.height, image.width, 3)
    pixels, rows = np.empty(shape, np.uint8), max(1, BAND // image.width)
    for start in range(0, image.height, rows):
        band = image.crop((0, start, image.width, min(image.height, start + rows)))
        if band.mode.startswith("I;16"):
            grey = (np.asarray(band).astype(np.uint16) >> 8).astype(np.uint8)
            pixels[start : start + rows] = grey if mode == "L" else grey[..., None]
        else:
            pixels[start : start + rows] = np.asarray(band.convert(mode))
    return pixels


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """A view that is upright where the stored pixels have an orientation (EXIF 2.3, tag 0x0112)."""
    if orientation in TURNED:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return pixels[::rows, ::columns]
