"""Photos of places without pictures: files whose size and EXIF are looked at, and what a network would find in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hfnet_edge.errors import InputError
from hfnet_edge.networks import by_role
from hfnet_maps.build import builder
from synthetic import CAMERA, EXTRACTOR, Place


class FakeModel:
    """The network, replaced by what its file says of it."""

    description = EXTRACTOR

    def __init__(self, path, threads=2):
        self.path = path
        if not path.is_file():
            raise InputError(f"cannot read the model {path}", "export one")


def write_photo(path: Path, number: int, exif: Image.Exif | None = None) -> None:
    """A small file of the camera's size that no other number has."""
    pixels = np.zeros((CAMERA.height, CAMERA.width), np.uint8)
    pixels[0, :16] = [255 * (number >> bit & 1) for bit in range(16)]
    Image.fromarray(pixels).save(path, **({"exif": exif} if exif else {}))


def photograph(folder: Path, places: dict[str, Place], monkeypatch, noise: float = 0.3, exif=None) -> Path:
    """Photos of places, `PLACE0.png`, ..., and a model that finds their landmarks. Returns the model's file."""
    folder.mkdir()
    features = {}
    for k, (name, place) in enumerate(places.items()):
        for i, pose in enumerate(place.poses):
            write_photo(folder / f"{name}{i:02d}.png", 1000 * k + i, exif)
            features[f"{name}{i:02d}"] = place.features(pose, noise, 20)
    monkeypatch.setattr(by_role, "open_network", FakeModel)
    monkeypatch.setattr(builder, "load_photo", lambda path, size, camera: path)
    monkeypatch.setattr(builder, "extract", lambda networks, path: features[path.stem])
    model = folder.parent / "m.tflite"
    model.write_bytes(b"")
    return model
