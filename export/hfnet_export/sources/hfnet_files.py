"""What `hfnet-export` takes: our weights, or an HF-Net of somebody else as Keras file, SavedModel or ONNX file.

Each format has a class that converts it: the network as a float32 .tflite with one input, `image` (1, H, W, 1), and one
output for each role, named by it and in its shape. The steps after that are the same for all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hfnet_edge.errors import InputError
from hfnet_export.networks.any_hfnet import AnyHFNet
from hfnet_export.networks.trained_hfnet import TrainedHFNet
from hfnet_export.sources.foreign import ForeignHFNet
from hfnet_export.sources.keras_file import KerasFile
from hfnet_export.sources.onnx_file import OnnxFile
from hfnet_export.sources.saved_model import SavedModel

KERAS, SAVED_MODEL, ONNX, WEIGHTS = "Keras file", "SavedModel", "ONNX file", "weights"
SUFFIXES = {".npz": WEIGHTS, ".keras": KERAS, ".h5": KERAS, ".hdf5": KERAS, ".onnx": ONNX}
FOREIGN: dict[str, type[ForeignHFNet]] = {KERAS: KerasFile, SAVED_MODEL: SavedModel, ONNX: OnnxFile}
MIN_SIDE, MAX_SIDE = 64, 4096  # of an input


def kind_of(path: Path) -> str:
    """`KERAS`, `SAVED_MODEL`, `ONNX` or `WEIGHTS`, by suffix. Raises InputError: none of them, or not there."""
    if os.path.isdir(path):
        if (path / "saved_model.pb").is_file():
            return SAVED_MODEL
        raise InputError(f"{path} is a folder without a saved_model.pb", "give the folder of a TensorFlow SavedModel")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"cannot export {path}: its format is not known",
            "give `hfnet`, an .npz of hfnet-distill, a .keras, .h5 or .onnx file, or a SavedModel folder",
        )
    kind = SUFFIXES[path.suffix.lower()]
    if kind != WEIGHTS and not os.path.isfile(path):  # nor a pipe
        raise InputError(f"there is no file {path}", "check its name")
    return kind


def hfnet_of_file(
    path: Path,
    input_size: tuple[int, int],
    global_dim: int | None = None,
    references: Path | None = None,
    input_range: tuple[float, float] | None = None,
    outputs: Mapping[str, str] | None = None,
) -> AnyHFNet:
    """The network of a file or folder, to be exported; it is read when it is converted.

    Args:
        path: our weights (.npz), a Keras file (.keras, .h5), a SavedModel folder or an .onnx file.
        input_size: height, width; multiples of 32 from 64 to 4096.
        global_dim: dimensions of the global descriptor to keep; of our weights only.
        references: folder of photos, more than ``global_dim``, whose PCA decides these dimensions.
        input_range: grey levels 0 and 255 as the network expects them; of the other formats, which do not tell.
        outputs: role to name of an output; of the other formats, where `hfnet_export.sources.roles` cannot tell.

    Raises:
        InputError: the file is missing or of no known format, or an option does not go with it.
    """
    check_input_size(input_size)
    kind = kind_of(path)
    if kind == WEIGHTS:
        if input_range is not None or outputs:
            option = "--outputs" if input_range is None else "--input-range"
            raise InputError(f"{option} is not for HF-Net weights", "leave it out: these weights have only one")
        if references is not None and global_dim is None:
            raise InputError("--pca needs a number of dimensions", "give --global-dim N too, less than the photos")
        return TrainedHFNet(path, input_size, global_dim, references)
    if input_range is None:
        raise InputError(
            f"the grey range that {path} was trained with is not in the file",
            "give it: --input-range 0,255 for the public HF-Net, else 0,1 or -1,1",
        )
    if global_dim is not None or references is not None:
        raise InputError(
            f"--global-dim and --pca are not for {path}: only hfnet-distill's weights have the best dimensions first",
            "leave it out",
        )
    return FOREIGN[kind](path, input_size, input_range, outputs or {})


def check_input_size(input_size: tuple[int, int]) -> None:
    """The network can have an input of this height and width. Raises InputError."""
    if any(side % 32 or not MIN_SIDE <= side <= MAX_SIDE for side in input_size):
        raise InputError(
            f"--input-size {input_size[0]}x{input_size[1]} is not possible",
            f"give HEIGHTxWIDTH, multiples of 32 from {MIN_SIDE} to {MAX_SIDE}",
        )
