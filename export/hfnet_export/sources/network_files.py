"""Which files a network is made of. Needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path


def network_files(path: Path | str) -> list[Path]:
    """The file; of a SavedModel, all below its folder; of an ONNX file also those beside it that may hold its
    weights, which go by any name: it is not opened for that."""
    path = Path(path)
    try:
        if path.is_dir():
            return [file for file in path.rglob("*") if file.is_file()]
        if path.suffix.lower() == ".onnx":
            return [path, *(file for file in path.parent.iterdir() if file.suffix.lower() not in (".tflite", ".json"))]
    except OSError:  # its reader says what is wrong
        pass
    return [path]
