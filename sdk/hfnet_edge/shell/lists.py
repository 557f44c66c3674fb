"""This module reads and writes the text lists of hloc and of the visual localization benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hfnet_edge.camera_models import CAMERA_MODELS
from hfnet_edge.errors import CameraError, ImageError, InputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.shell.reading import read_text
from hfnet_edge.shell.writing import atomic_write

QUERY_LINE = "`name MODEL width height params...`"


def read_names(path: Path | str) -> list[str]:
    """Image names, one a line; anything after the first blank is ignored. Raises InputError."""
    names = [line.split()[0] for _, line in _lines(path)]
    if not names:
        raise InputError(f"{path} lists no images", "write one image name per line")
    return names


def read_queries(path: Path | str) -> list[tuple[str, Camera]]:
    """hloc's queries with intrinsics: ``name MODEL width height params...`` a line. Raises InputError."""
    queries = []
    for number, name, camera in _queries(path):
        if camera is None:
            raise InputError(f"{path}, line {number}: {name} has no camera", f"write {QUERY_LINE}")
        queries.append((name, camera))
    return queries


def read_photos(path: Path | str) -> list[tuple[str, Camera | None]]:
    """The same, and lines of a name alone: of these photos nobody knows the camera. Raises InputError."""
    return [(name, camera) for _, name, camera in _queries(path)]


def _queries(path: Path | str) -> list[tuple[int, str, Camera | None]]:
    """Number of the line, name, and camera if there is one. Raises InputError."""
    queries: dict[str, tuple[int, str, Camera | None]] = {}
    for number, line in _lines(path):
        name, *fields = line.split()
        if len(fields) > 1 and fields[0] not in CAMERA_MODELS and set(fields) & set(CAMERA_MODELS):
            raise InputError(f"{path}, line {number}: the image's name holds a blank", "rename the file")
        if name in queries:
            raise InputError(f"{path}, line {number}: {name} appears twice", "keep one line per query")
        try:
            queries[name] = number, name, Camera.parse(" ".join(fields)) if fields else None
        except CameraError as e:
            raise InputError(f"{path}, line {number}: {e.problem}", e.remedy or f"write {QUERY_LINE}") from e
    if not queries:
        raise InputError(f"{path} lists no queries", f"write {QUERY_LINE} per line")
    return list(queries.values())


def find_images(folder: Path, names: Iterable[str], what: str = "queries") -> dict[str, Path]:
    """Name to image file. Raises ImageError: some of ``what`` are not there."""
    files = {name: folder / name for name in names}
    missing = [name for name, file in files.items() if not os.path.isfile(file)]  # False for impossible names too
    if missing:
        raise ImageError(
            f"{len(missing)} of {len(files)} {what} are not in {folder}, first {missing[0]}", "check --images"
        )
    return files


def read_poses(path: Path | str) -> dict[str, Pose]:
    """``name qw qx qy qz tx ty tz`` a line: cam_from_world. Raises InputError."""
    poses: dict[str, Pose] = {}
    for number, line in _lines(path):
        name, *fields = line.split()
        if name in poses:
            raise InputError(f"{path}, line {number}: {name} appears twice", "keep one pose per image")
        try:
            poses[name] = Pose.from_values([float(field) for field in fields])
        except ValueError as e:
            raise InputError(f"{path}, line {number} is not a pose ({e})", "write `name qw qx qy qz tx ty tz`") from e
    return poses


def write_poses(path: Path | str, poses: Iterable[tuple[str, Pose]]) -> None:
    """Writes what `read_poses` reads, atomically. Raises OutputError."""
    with atomic_write(path) as file:
        for name, pose in poses:
            file.write(f"{pose_line(name, pose)}\n".encode())


def pose_line(name: str, pose: Pose) -> str:
    """A line of `read_poses`."""
    return " ".join((name, *(f"{value:.12g}" for value in (*pose.quaternion, *pose.translation))))


def _lines(path: Path | str) -> list[tuple[int, str]]:
    """Numbered lines that are not empty and not comments."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not text"
        raise InputError(f"cannot read {path}: {reason}", "check the file's name") from e
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [(number, line) for number, line in lines if line and not line.startswith("#")]
