"""The network and what is decoded of its outputs: scores, keypoints, descriptors, features."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from golden.dense import cell_cases
from golden.folder import Folder
from golden.loading import FIRST, INPUT_SIZE, SMALL
from hfnet_edge.errors import ModelError
from hfnet_edge.features import Features, decode
from hfnet_edge.image.blobs import Blobs, combine, find_blobs
from hfnet_edge.image.keypoints import MIN_SCORE, detect, quantize, sample_descriptors
from hfnet_edge.image.photo import Photo
from hfnet_edge.networks.description import HYPERCOLUMN_ROLE, LOCAL_ROLES
from hfnet_edge.networks.hfnet import Model, RawOutputs
from hfnet_edge.tensor import Tensor

COUNT = 320  # keypoints of an image: few, so that the folder stays small
PARTS = ("local", "quarter", "half")  # of the descriptors, as `LOCAL_ROLES` has them

WHAT = {
    "xy": "pixels of the network's input",
    "response": "grey levels, highest first",
    "scale": "pixels, standard deviation",
}


def command() -> str:
    """What exports the network."""
    return f"hfnet-export hfnet --quantize int8 --input-size {INPUT_SIZE[0]}x{INPUT_SIZE[1]}"


def export_network() -> bytes:
    """The network's file, by `command`."""
    from hfnet_export.export import export_hfnet

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hfnet.tflite"
        export_hfnet(output=path, quantize="int8", input_size=INPUT_SIZE)
        return path.read_bytes()


def keypoint_case(folder: Folder, name: str, scores: str, limits: Mapping[str, Any]) -> None:
    """The keypoints of an array of scores that is in the folder."""
    stored = np.frombuffer(folder.files[scores], "<f4").reshape(folder.arrays[scores]["shape"])
    xy, best = detect(stored, **limits)
    expected = {
        "xy": folder.array(f"{name}/detected_xy", xy, "keypoints", "pixels of the network's input"),
        "scores": folder.array(f"{name}/detected_scores", best, "keypoints", "highest first"),
    }
    folder.case("keypoints", name, {"scores": scores, **limits}, expected)


def blob_case(
    folder: Folder, name: str, pixels: str, image: np.ndarray, valid: tuple[int, int], count: int
) -> tuple[Blobs, dict[str, str]]:
    """The blobs of (H, W) uint8 in the file ``pixels``; returns these, and the files of their arrays."""
    found = find_blobs(image, valid, count)
    files = {key: folder.array(f"{name}/blob_{key}", getattr(found, key), "blobs", what) for key, what in WHAT.items()}
    folder.case("blobs", name, {"pixels": pixels, "valid": valid, "count": count}, files)
    return found, files


def filled_case(
    folder: Folder,
    name: str,
    blobs: Blobs,
    files: Mapping[str, str],
    peaks: tuple[np.ndarray, np.ndarray],
    count: int,
) -> tuple[np.ndarray, dict[str, str]]:
    """Blobs filled up with the network's keypoints ``peaks``, xy and scores; returns xy, and the files of both."""
    given = {
        "xy": files["xy"],
        "response": files["response"],
        "network_xy": folder.array(f"{name}/network_xy", peaks[0], "keypoints", WHAT["xy"]),
        "network_scores": folder.array(f"{name}/network_scores", peaks[1], "keypoints", "highest first"),
    }
    xy, scores = combine(blobs, *peaks, count)
    expected = {
        "xy": folder.array(f"{name}/xy", xy, "filled", f"keypoints, {WHAT['xy']}"),
        "scores": folder.array(f"{name}/keypoint_scores", scores, "filled", "of the keypoints"),
    }
    folder.case("filled", name, {**given, "count": count}, expected)
    return xy, expected


def feature_cases(
    folder: Folder, name: str, model: Model, photo: Photo, pixels: str
) -> tuple[Features, dict[str, Any]]:
    """All stages from a query's pixels to its features; returns these and what their arrays are called.

    Args:
        pixels: the file of the photo's.
    """
    raw = model(photo.pixels)

    def output(short: str, role: str) -> str:
        tensor = getattr(raw, role)
        if not isinstance(tensor, Tensor):
            raise ModelError(f"the network's {role} are not int8", "export it with --quantize int8")
        about = {"scale": tensor.scale, "zero_point": tensor.zero_point}
        return folder.array(f"{name}/{short}", tensor.values, "network", role, **about)

    made = {
        "logits": output("logits", "keypoint_logits"),
        **{short: output(short, role) for short, role in zip(PARTS, LOCAL_ROLES, strict=True)},
        "global": folder.array(f"{name}/global", np.asarray(raw.global_descriptor), "network", "global_descriptor"),
    }
    dense = output("hypercolumns", HYPERCOLUMN_ROLE)
    folder.case("network", name, {"pixels": pixels}, made | {"hypercolumns": dense})

    scores = raw.scores()
    expected = {"sha256": hashlib.sha256(scores.astype("<f4").tobytes()).hexdigest()}
    limits = {"count": COUNT, "radius": model.description.nms_radius, "threshold": MIN_SCORE}
    if name == FIRST:
        height, width = SMALL
        expected["scores"] = folder.array(
            f"{name}/scores", scores[:height, :width], "scores", "of each pixel of a part"
        )
        keypoint_case(folder, name, expected["scores"], {"valid": SMALL, **limits, "border": 4})
    folder.case("scores", name, {"logits": made["logits"], "part": SMALL}, expected)

    features, arrays = decoded_cases(folder, name, raw, photo, pixels, made, limits)
    cell_cases(folder, name, raw, photo, features.keypoints, dense)
    return features, arrays


def decoded_cases(
    folder: Folder,
    name: str,
    raw: RawOutputs,
    photo: Photo,
    pixels: str,
    made: Mapping[str, str],
    limits: Mapping[str, Any],
) -> tuple[Features, dict[str, Any]]:
    """Blobs, what fills them up, descriptors, and the features as a whole; returns these and what they are called.

    Args:
        pixels: the file of the photo's. made: those of the network's outputs.
    """
    count, radius, threshold = limits["count"], limits["radius"], limits["threshold"]
    features = decode(raw, photo, radius, count, threshold)
    blobs, found = blob_case(folder, name, pixels, photo.pixels, photo.valid, count * 2 // 3)
    peaks = detect(raw.scores(), photo.valid, count, radius, threshold)
    xy, filled = filled_case(folder, name, blobs, found, peaks, count)
    assert np.array_equal(sample_descriptors(raw.descriptor_maps, xy), features.descriptors)
    assert np.array_equal(quantize(np.asarray(raw.global_descriptor)[None])[0], features.global_descriptor)
    arrays: dict[str, Any] = {
        "keypoints": folder.array(f"{name}/keypoints", features.keypoints, "decode", "pixels of the camera's image"),
        "scores": filled["scores"],
        "descriptors": folder.array(f"{name}/descriptors", features.descriptors, "descriptors", "of the keypoints"),
        "global_descriptor": folder.array(
            f"{name}/global_descriptor", features.global_descriptor, "global", "of the image"
        ),
    }
    if len(xy):
        given = {part: made[part] for part in PARTS if part in made} | {"xy": filled["xy"]}
        folder.case("descriptors", name, given, {"descriptors": arrays["descriptors"]})
    folder.case("global", name, {"global": made["global"]}, {"global_descriptor": arrays["global_descriptor"]})
    arrays["pixel"] = features.pixel
    of_photo = {"pixels": pixels, "valid": photo.valid, "size": photo.size, "orientation": photo.orientation}
    folder.case("decode", name, {**made, **of_photo, **limits}, arrays)
    return features, arrays
