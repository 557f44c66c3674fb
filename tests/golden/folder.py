"""The folder of golden vectors: arrays, cases, and how it replaces one that is there."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hfnet_edge.errors import OutputError
from hfnet_edge.shell.reading import parse_json, read_bytes
from hfnet_edge.shell.writing import atomic_folder, atomic_write, check_writable

MANIFEST, ABOUT = "manifest.json", "README.md"
KIND = "hfnet-edge golden vectors"
DTYPES = {"b1": "uint8", "u1": "uint8", "i1": "int8", "i4": "int32", "i8": "int32", "f4": "float32", "f8": "float64"}


@dataclass
class Folder:
    """The folder in memory.

    Attributes:
        files: by name below the folder.
        arrays, cases: of the manifest.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    arrays: dict[str, dict[str, Any]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def array(self, name: str, value: np.ndarray, stage: str, what: str, **quantization: float) -> str:
        """Adds an array, int64 as int32 and bool as uint8, and returns the name of its file."""
        dtype = np.dtype(DTYPES[value.dtype.str[1:]])
        stored = value.astype(dtype)
        assert np.array_equal(stored, value, equal_nan=True)
        file = f"arrays/{name}.bin"
        assert file not in self.files
        self.files[file] = np.ascontiguousarray(stored, dtype.newbyteorder("<")).tobytes()
        self.arrays[file] = {
            "dtype": dtype.name,
            "shape": list(value.shape),
            "stage": stage,
            "what": what,
            **quantization,
        }
        return file

    def nothing(self, stage: str, what: str) -> str:
        """An array of no indices, one for all who need it."""
        file = "arrays/nothing.bin"
        return file if file in self.files else self.array("nothing", np.zeros(0, np.int64), stage, what)

    def case(self, stage: str, name: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Adds a case: the stage, given this, returns that."""
        self.cases.append({"stage": stage, "name": name, "given": dict(given), "expected": dict(expected)})


def check_folder(output: Path) -> None:
    """``output`` may be written: it is not there, or empty, or holds golden vectors. Raises OutputError."""
    check_writable(output.resolve(), folder=True)
    if output.is_dir() and any(output.iterdir()):
        try:
            kind = parse_json(read_bytes(output / MANIFEST))["kind"]
        except (OSError, ValueError, KeyError, TypeError):
            kind = ""
        if kind != KIND:
            raise OutputError(f"{output} holds something else than golden vectors", "name a new or empty folder")


def replace_folder(output: Path, files: Mapping[str, bytes]) -> None:
    """Writes the files to a folder beside ``output``, and puts it in its place. Raises OutputError."""
    output = output.resolve()
    old = output.with_name(f".{output.name[:100]}.{secrets.token_hex(8)}.old")  # what a killed run leaves is kept
    try:
        with atomic_folder(output) as new:
            for name, content in files.items():
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(new / name) as file:
                    file.write(content)
            if output.exists():
                output.rename(old)
    finally:
        if old.exists() and not output.exists():
            old.rename(output)
        shutil.rmtree(old, ignore_errors=True)
