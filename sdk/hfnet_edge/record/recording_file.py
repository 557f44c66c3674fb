"""A `Recording` as a file: a zip of `manifest.json` and of arrays in numpy's format, which any language can read.

manifest.json                 about, names of reference images, queries
references.npy                (M, 7) float64 cam_from_world of the reference images
0/thumbnail.npy               of the first query; so are outputs/ROLE, features/FIELD, matched/FIELD, covariance

A recording may come from anywhere, so its reader has limits, which the writer keeps too: 16 MiB of manifest, 16 MiB an
array, 4 GiB of arrays in all, which must not unfold to more than 16 times what they take in the file (64 MiB may); and
65,536 keypoints and as many matches a query. A query of 640 x 480 pixels has a megabyte of arrays.

Format 1 knew neither probability nor covariance, and its matches were those of before there was a second look: what it
recorded cannot be compared with what is recorded now.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from typing import Any

import numpy as np

from hfnet_edge.errors import CameraError, RecordingError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.methods.registry import METHODS
from hfnet_edge.record.recording import Matched, QueryRecord, Recording
from hfnet_edge.result import Status
from hfnet_edge.shell.archive import add, check_directory, member, open_archive

FORMAT = 2
REMEDY = "record it again"
MAX_MANIFEST = 1 << 24  # bytes
MAX_ARRAY = 1 << 24  # bytes
MAX_ARRAYS = 1 << 32  # bytes of all members together
MAX_ROWS = 1 << 16  # keypoints or matches of a query: parity compares each with each
FEATURES = {"keypoints": ("f8", 2), "scores": ("f4", 1), "descriptors": ("i1", 2), "global_descriptor": ("i1", 1)}
MATCHED = {"xyz": ("f8", 2), "inliers": ("b1", 1)}
ROWS = {"keypoints": ("i8", 1), "landmarks": ("i8", 1)}  # of the matches, where the method has them
WIDTHS = {"references": 7, "features/keypoints": 2, "matched/xyz": 3}  # of the last axis


def to_bytes(recording: Recording) -> bytes:
    """The file's bytes; the same recording gives the same bytes. Raises RecordingError: beyond the limits."""
    arrays = {"references": np.array(list(recording.reference_poses.values()), np.float64).reshape(-1, 7)}
    queries = []
    for i, q in enumerate(recording.queries):
        if q.thumbnail is not None:
            arrays[f"{i}/thumbnail"] = q.thumbnail
        arrays |= {f"{i}/outputs/{role}": rows for role, rows in q.outputs.items()}
        if q.features is not None:
            arrays |= {f"{i}/features/{key}": getattr(q.features, key) for key in FEATURES}
        if q.covariance is not None:
            arrays[f"{i}/covariance"] = q.covariance
        if q.matched is not None:
            fields = {key: getattr(q.matched, key) for key in (*ROWS, *MATCHED)}
            arrays |= {f"{i}/matched/{key}": value for key, value in fields.items() if value is not None}
        queries.append(
            {
                "name": q.name,
                "camera": camera_to_json(q.camera),
                "input_hash": q.input_hash,
                "output_hashes": q.output_hashes,
                "pixel": None if q.features is None else q.features.pixel,
                "prior_frames": None if q.prior_frames is None else list(q.prior_frames),
                "status": q.status,
                "pose": pose_to_json(q.pose),
                "probability": q.probability,
                "wrong": q.wrong,
            }
        )
    manifest = {
        "format": FORMAT,
        "about": recording.about,
        "references": list(recording.reference_poses),
        "queries": queries,
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        add(file, "manifest.json", json.dumps(manifest, indent=1).encode())
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            add(file, f"{name}.npy", content.getvalue())
        try:
            _check_sizes(file, buffer.tell())
            for name, array in arrays.items():
                _check_rows(name, array)
        except ValueError as e:
            raise RecordingError(f"a recording of {len(queries)} queries is too large ({e})", "split the list") from e
    return buffer.getvalue()


def _check_sizes(file: zipfile.ZipFile, end: int) -> None:
    """Raises ValueError where a file that is being written could not be read again."""
    check_directory(file.infolist(), end, MAX_ARRAYS)
    for entry in file.infolist():
        most = MAX_ARRAY if entry.filename.endswith(".npy") else MAX_MANIFEST
        if entry.file_size > most:
            raise ValueError(f"{entry.filename} has {entry.file_size} bytes, at most {most} are read")


def read_recording(content: bytes, where: str) -> Recording:
    """Reads what `to_bytes` made. Raises RecordingError: damaged, or of another format."""
    try:
        with open_archive(io.BytesIO(content), MAX_ARRAYS) as file:
            manifest = json.loads(member(file, "manifest.json", MAX_MANIFEST))
            if (found := int(manifest["format"])) != FORMAT:
                remedy = REMEDY if found < FORMAT else "update hfnet-edge"
                raise RecordingError(f"{where} is of format {found}, not {FORMAT}", remedy)
            names = set(file.namelist())

            def array(name: str, dtype: str, axes: int | None) -> np.ndarray:
                value = _array(member(file, f"{name}.npy", MAX_ARRAY), name, dtype, axes)
                if value.dtype.kind == "f" and "outputs/" not in name and not np.isfinite(value).all():
                    raise ValueError(f"{name} is not finite")
                if value.shape[-1] != WIDTHS.get(name.partition("/")[2] or name, value.shape[-1]):
                    raise ValueError(f"{name} is of shape {value.shape}")
                _check_rows(name, value)
                return value

            poses = array("references", "f8", 2)
            for row in poses.tolist():
                pose_from_json(row)  # raises
            references = dict(zip(map(str, manifest["references"]), poses, strict=True))
            queries = []
            for i, q in enumerate(manifest["queries"]):
                features = matched = thumbnail = covariance = None
                if f"{i}/features/keypoints.npy" in names:
                    parts = {key: array(f"{i}/features/{key}", *kind) for key, kind in FEATURES.items()}
                    features = Features(**parts, pixel=float(q["pixel"]), hypercolumns=None)
                    if not 0 < features.pixel < np.inf:
                        raise ValueError(f"a pixel of {q['name']} is of size {features.pixel}")
                    if not len(parts["keypoints"]) == len(parts["scores"]) == len(parts["descriptors"]):
                        raise ValueError(f"the features of {q['name']} are not of equal length")
                if f"{i}/matched/xyz.npy" in names:
                    there = MATCHED | {key: kind for key, kind in ROWS.items() if f"{i}/matched/{key}.npy" in names}
                    rows_of = {key: array(f"{i}/matched/{key}", *kind) for key, kind in there.items()}
                    keypoints, landmarks = (rows_of.get(key) for key in ROWS)
                    matched = Matched(keypoints, landmarks, rows_of["xyz"], rows_of["inliers"])
                    if len({len(value) for value in rows_of.values()}) != 1:
                        raise ValueError(f"the matches of {q['name']} are not of equal length")
                    count = 0 if features is None else len(features.keypoints)
                    if keypoints is not None and len(keypoints) and not 0 <= keypoints.min() <= keypoints.max() < count:
                        raise ValueError(f"the matches of {q['name']} are of keypoints that are not there")
                if f"{i}/thumbnail.npy" in names:
                    thumbnail = array(f"{i}/thumbnail", "u1", 2)
                if f"{i}/covariance.npy" in names:
                    covariance = _covariance(array(f"{i}/covariance", "f8", 2), str(q["name"]))
                queries.append(
                    QueryRecord(
                        str(q["name"]),
                        camera_from_json(q["camera"]),
                        str(q["input_hash"]),
                        thumbnail,
                        {str(role): str(value) for role, value in q["output_hashes"].items()},
                        {role: array(f"{i}/outputs/{role}", "f4", None) for role in q["output_hashes"]},
                        features,
                        None if q["prior_frames"] is None else tuple(str(name) for name in q["prior_frames"]),
                        matched,
                        Status(q["status"]).value,
                        pose_from_json(q["pose"]),
                        _probability(q["probability"]),
                        _probability(q["wrong"]),
                        covariance,
                    )
                )
        about = {str(key): str(value) for key, value in manifest["about"].items()}
        if (method := about.get("method", "hierarchical")) not in METHODS and ":" not in method:
            raise RecordingError(f"{where} is of the method {method}, not known here", "update hfnet-edge")
        if any((q.status == Status.LOCALIZED.value) != (q.pose is not None) for q in queries):
            raise ValueError("a query is localized without a pose, or has a pose and is not")
    except RecordingError:
        raise
    except Exception as e:  # damage shows as any exception of zipfile, json, numpy or ours
        raise RecordingError(f"{where} is damaged or not a recording ({type(e).__name__}: {e})", REMEDY) from e
    return Recording(about, references, tuple(queries))


def _probability(value: Any) -> float | None:
    """Raises ValueError: it is not one. TypeError: it is no number."""
    if value is None:
        return None
    if isinstance(value, bool | str) or not 0 <= value <= 1:  # NaN is not either
        raise ValueError(f"{value!r} is not a probability")
    return float(value)


def _covariance(value: np.ndarray, query: str) -> np.ndarray:
    """The same, if it may be one: symmetric, and with variances that are positive. Raises ValueError."""
    if value.shape != (6, 6) or not np.array_equal(value, value.T) or not (np.diag(value) > 0).all():
        raise ValueError(f"the covariance of {query}, {value.shape}, is not that of a pose")
    return value


def _check_rows(name: str, array: np.ndarray) -> None:
    """Raises ValueError: too many keypoints or matches."""
    if ("/features/" in name or "/matched/" in name) and len(array) > MAX_ROWS:
        raise ValueError(f"{name} has {len(array)} rows, at most {MAX_ROWS} are read")


def _array(content: bytes, name: str, dtype: str, axes: int | None) -> np.ndarray:
    """A read-only array of a file in numpy's format; ``axes`` None: one or two. Raises ValueError: not of this type, or
    not of this length."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, found = read_header(file)
    if found != np.dtype(dtype) or len(shape) not in ((1, 2) if axes is None else (axes,)) or fortran:
        raise ValueError(f"{name} is {len(shape)}-D {found}")
    if max(shape) > MAX_ARRAY or math.prod(shape) * found.itemsize != len(content) - file.tell():
        raise ValueError(f"{name} is of shape {shape} and has {len(content)} bytes")
    return np.frombuffer(content, found, offset=file.tell()).reshape(shape)


def camera_to_json(camera: Camera) -> list[Any]:
    """Model, width, height, parameters to the last digit."""
    return [camera.model, camera.width, camera.height, *camera.params]


def camera_from_json(values: list[Any]) -> Camera:
    """Reads what `camera_to_json` made. Raises CameraError."""
    try:
        model, width, height, *params = values
    except (TypeError, ValueError) as e:
        raise CameraError(f"{values!r} is not a camera", "write [model, width, height, ...]") from e
    return Camera(model, width, height, tuple(params))


def pose_to_json(pose: Pose | None) -> list[float] | None:
    """Quaternion and translation, or null."""
    return None if pose is None else [float(v) for v in (*pose.quaternion, *pose.translation)]


def pose_from_json(values: list[float] | None) -> Pose | None:
    """Reads what `pose_to_json` made. Raises ValueError."""
    if values is None:
        return None
    Pose.from_values(values)  # raises
    row = np.array(values, np.float64)  # the last digit of the quaternion stays
    if abs(np.linalg.norm(row[:4]) - 1) > 1e-6:
        raise ValueError("a pose is not one")
    return Pose(row[:4], row[4:])
