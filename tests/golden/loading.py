"""Loading and scaling: images made by code, and the pixels that the network is given."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass, replace

import numpy as np
from PIL import ExifTags, Image

from golden.folder import Folder
from hfnet_edge.geometry import Camera
from hfnet_edge.image.photo import Photo, load_photo
from hfnet_edge.networks.hfnet import Model
from hfnet_maps.synthetic_town.made_place import MadePlace, PlaceView, made_place

INPUT_SIZE = (160, 224)  # of the network: as small as localizes
SMALL = (64, 96)  # of the input where only loading is shown, and of the part of an image that is kept of its scores
ELSEWHERE_SEED = 11
FIRST = "colour"  # the query whose bulky stages are kept whole, too
POINTS = ((0.5, 0.5), (10.25, 3.5), (33.0, 20.75))  # of the network's input, to be taken to the camera


@dataclass(frozen=True)
class Query:
    """A query: its file below the folder, its bytes, and its camera."""

    name: str
    file: str
    content: bytes
    camera: Camera


def png(pixels: np.ndarray, orientation: int = 1) -> bytes:
    """(h, w) uint8 or uint16, or (h, w, 3) uint8 as a PNG file; its EXIF says the orientation unless it is 1."""
    exif = Image.Exif()
    if orientation != 1:
        exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True, **({"exif": exif} if orientation != 1 else {}))
    return file.getvalue()


def grey(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 to (h, w) uint8 luma."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def loading_cases(folder: Folder, place: MadePlace) -> None:
    """All that loading has to get right."""
    picture = place.render(place.views[-1])[16:144, 20:140]
    level = grey(picture)
    wide = level[:40].astype(np.uint16)
    pictures = {
        "luma": (png(picture[:64, :96]), "colour, of the input's size"),
        "grey16": (png(wide * 257 - wide[::-1]), "16 bits"),
        "reduced": (png(level[:, :93]), "reduced to 64x46.5, which is rounded to even; the rest is mirrored twice"),
        "enlarged": (png(level[:40, :56]), "enlarged"),
        "wide": (png(level[:40, :120]), "reduced; the rest below is mirrored"),
    }
    pictures |= {
        f"exif{o}": (png(level[:45, :64], o), f"EXIF orientation {o}, with the stored image's camera")
        for o in range(2, 9)
    }
    for name, (content, what) in pictures.items():
        width, height = Image.open(io.BytesIO(content)).size
        described = Camera("SIMPLE_PINHOLE", width, height, (60.0, width / 2, height / 2))
        for camera in (described, None) if name == "exif6" else (described,):
            label = name if camera else f"{name} upright"
            load_case(folder, label, f"images/{name}.png", content, what, SMALL, camera)


def load_case(
    folder: Folder,
    name: str,
    file: str,
    content: bytes,
    what: str,
    input_size: tuple[int, int],
    camera: Camera | None,
) -> tuple[Photo, str]:
    """Adds the image and its case; returns the photo and the name of its pixels."""
    folder.files[file] = content
    with tempfile.NamedTemporaryFile(suffix=".png") as image:
        image.write(content)
        image.flush()
        photo = load_photo(image.name, input_size, camera)
    pixels = folder.array(f"{name.replace(' ', '_')}/pixels", photo.pixels, "load", f"network input: {what}")
    given = {"image": file, "input_size": input_size, "camera": camera and str(camera), "xy": POINTS}
    expected = {
        "pixels": pixels,
        "valid": photo.valid,
        "size": photo.size,
        "orientation": photo.orientation,
        "camera_xy": photo.to_camera(np.array(POINTS, np.float32)).tolist(),
    }
    folder.case("load", name, given, expected)
    return photo, pixels


def make_queries(folder: Folder, place: MadePlace) -> list[Query]:
    """Three views of the place, one of another, and a black image."""
    views = [view for view in place.views if view.is_query]
    elsewhere = made_place(ELSEWHERE_SEED, map_views=2, query_views=2, size=INPUT_SIZE)
    height, width = INPUT_SIZE

    def at(view: PlaceView, size: tuple[int, int]) -> PlaceView:
        fx, fy, cx, cy = view.camera.params
        sx, sy = size[0] / width, size[1] / height
        camera = Camera("PINHOLE", *size, (fx * sx, fy * sy, cx * sx, cy * sy))
        return replace(view, camera=Camera.parse(str(camera)))

    upright = at(views[4], (width, height))
    fx, fy, cx, cy = upright.camera.params
    stored = Camera.parse(str(Camera("PINHOLE", height, width, (fy, fx, cy, width - cx))))
    odd, other = at(views[3], (335, 239)), at(elsewhere.views[3], (width, height))
    seen = at(views[0], (width, height))
    made = [
        (FIRST, png(place.render(seen)), seen.camera),
        ("odd", png(grey(place.render(odd))), odd.camera),
        ("sideways", png(np.rot90(grey(place.render(upright))), 6), stored),
        ("elsewhere", png(grey(elsewhere.render(other))), other.camera),
        ("black", png(np.zeros(INPUT_SIZE, np.uint8)), seen.camera),
    ]
    return [Query(name, f"images/{name}.png", content, camera) for name, content, camera in made]


def scale_case(folder: Folder, model: Model) -> None:
    """The network's input for all grey levels."""
    levels = np.arange(256, dtype=np.uint8)[None]
    inputs = model.description.scale(levels)[0, :, :, 0]
    given = {
        "pixels": folder.array("levels/pixels", levels, "scale", "all grey levels"),
        "input_range": model.description.input_range,
    }
    what = "what the network is given for them"
    folder.case("scale", "levels", given, {"input": folder.array("levels/input", inputs, "scale", what)})
