"""Reads a place as hloc leaves it: a COLMAP model and two HDF5 files of features (Sarlin et al., CVPR 2019).

    sfm ─> cameras, poses, keypoints, points;  features.h5 ─> descriptors;  global-feats.h5 ─> global descriptors

The model's keypoints are the rows of features.h5, in order, moved by half a pixel: hloc counts from the centre of the
first pixel, COLMAP and this project from its corner. Here they are the model's own, which its points were triangulated
from; so a model that was imported without the half pixel stays consistent with itself.

The model is parsed here, not by pycolmap, which hangs where a file is truncated and is slow to list keypoints.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError, MismatchError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.hloc import global_descriptor, local_features, network_pixel, open_features
from hfnet_edge.networks.description import Description
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.reading import read_bytes, read_text
from hfnet_maps.build.reference import read_reference
from hfnet_maps.content import BuiltMap, MapNetworks, ReferenceKeypoints

NO_POINT = -1  # what COLMAP writes as the point of a keypoint without one
_POINT = struct.Struct("<q3d11xQ")  # of points3D.bin: id, position, (colour, error), length of the track
_PointRow = tuple[int, tuple[float, float, float]]  # id, position
_ImageRow = tuple[str, np.ndarray, np.ndarray]  # name, (N, 2) float64 keypoints, (N,) int64 ids of their points


def read_hloc(
    sfm: Path,
    features: Path,
    global_features: Path,
    extractor: Description | None = None,
    progress: Report = silent,
) -> BuiltMap:
    """The place of an hloc model. A network's pixel is `network_pixel`.

    Args:
        sfm: folder of the COLMAP model, text or binary, that hloc triangulated.
        features, global_features: hloc's HDF5 files of all its images, and perhaps of others.
        extractor: of the network whose features they are; None: unknown.

    Raises:
        InputError: a file is missing or damaged, they are not of the same images and keypoints, or nothing is
            triangulated.
        CameraError: a camera's model is not supported.
        MismatchError: the features are not as wide as the extractor's.
    """
    reference = read_reference(sfm)
    names, poses = tuple(reference.poses), tuple(reference.poses.values())
    cameras = tuple(reference.camera(name) for name in names)
    ids, positions, keypoints = _read_model(sfm)
    if not len(ids):
        raise _no_landmarks(sfm)
    global_descriptors = _read_global(global_features, names)
    xy, points, descriptors = _read_local(features, names, keypoints, progress)
    starts = np.cumsum([0, *map(len, xy)])
    all_xy, landmark = np.concatenate(xy), _landmarks(sfm, ids, np.concatenate(points))

    observations, images = _observations(cameras, poses, all_xy, landmark, positions, starts)
    kept, landmarks = np.unique(landmark[observations], return_inverse=True)
    if not len(kept):
        raise _no_landmarks(sfm)
    others = np.delete(np.arange(len(all_xy)), observations)
    return BuiltMap(
        _networks(extractor, descriptors.shape[1], global_descriptors.shape[1]),
        names,
        poses,
        global_descriptors,
        positions[kept],
        landmarks,
        images,
        descriptors[observations],
        ReferenceKeypoints(
            cameras,
            np.array([network_pixel(camera) for camera in cameras]),
            all_xy[observations].astype(np.float32),
            np.searchsorted(others, starts),
            all_xy[others].astype(np.float32),
            descriptors[others],
        ),
    )


def _no_landmarks(sfm: Path) -> InputError:
    return InputError(f"the model {sfm} has no landmarks that two images see", "triangulate it with hloc.triangulation")


def _networks(model: Description | None, local_dim: int, global_dim: int) -> MapNetworks:
    """Those of the features, D and G wide. Raises MismatchError where the model's are not."""
    if model is None:
        return MapNetworks("hloc", "", "float", local_dim, global_dim)
    if (model.local_dim, model.global_dim) != (local_dim, global_dim):
        raise MismatchError(
            f"the features are {local_dim} (local) and {global_dim} (global) wide, those of {model.architecture} "
            f"{model.local_dim} and {model.global_dim}",
            "give the model that extracted them",
        )
    return MapNetworks.of(model)


def _observations(
    cameras: Sequence[Camera],
    poses: Sequence[Pose],
    xy: np.ndarray,
    landmark: np.ndarray,
    positions: np.ndarray,
    starts: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints of the landmarks that two images see or more, in order of landmark, then image; K keypoints, M images.

    Of two keypoints of an image on one landmark the nearer to its projection stays.

    Args:
        xy: (K, 2) float64 pixels.
        landmark: (K,) int64 rows of ``positions``, or `NO_POINT`.
        positions: (L, 3) float64 world.
        starts: (M + 1,) rows of the first two by image.

    Returns:
        (O,) int64 rows of the keypoints, (O,) int64 images.
    """
    rows = np.flatnonzero(landmark != NO_POINT)
    images = np.searchsorted(starts, rows, side="right") - 1
    errors = np.zeros(len(rows))
    bounds = np.searchsorted(rows, starts)
    for camera, pose, start, end in zip(cameras, poses, bounds[:-1], bounds[1:], strict=True):
        own = rows[start:end]
        with np.errstate(over="ignore", invalid="ignore"):  # of a pose or point that is nonsense
            projected = camera.project(pose.transform(positions[landmark[own]]))
            errors[start:end] = np.linalg.norm(projected - xy[own], axis=1)
    order = np.lexsort((errors, images, landmark[rows]))
    rows, images = rows[order], images[order]
    nearest = np.ones(len(rows), bool)
    nearest[1:] = (landmark[rows[1:]] != landmark[rows[:-1]]) | (images[1:] != images[:-1])
    rows, images = rows[nearest], images[nearest]
    seen_twice = (np.bincount(landmark[rows], minlength=len(positions)) >= 2)[landmark[rows]]
    return rows[seen_twice], images[seen_twice]


def _read_global(path: Path, names: Sequence[str]) -> np.ndarray:
    """(M, G) int8 global descriptors of the images. Raises InputError."""
    with open_features(path, names) as file:
        return _joined(path, names, [global_descriptor(file, name)[None] for name in names])


def _read_local(
    path: Path, names: Sequence[str], model: dict[str, tuple[np.ndarray, np.ndarray]], progress: Report
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """The keypoints' descriptors, and the keypoints with those of images that the model keeps none of, because COLMAP
    could match them with no other.

    Args:
        model: as `_read_model` returns its keypoints.

    Returns:
        (N, 2) float64 pixels and (N,) int64 points' ids or `NO_POINT`, by image; (K, D) int8 of all images.

    Raises:
        InputError: an image is missing, damaged, or has other keypoints than in the model.
    """
    xy, points, descriptors = [], [], []
    with open_features(path, names) as file:
        for i, name in enumerate(names):
            progress("read", i, len(names))
            found, rows = local_features(file, name)
            own, ids = model[name]
            if not len(own):
                own, ids = found.astype(np.float64) + 0.5, np.full(len(found), NO_POINT)
            _check_agree(path, name, found, own)
            xy.append(own)
            points.append(ids)
            descriptors.append(rows)
        progress("read", len(names), len(names))
    return xy, points, _joined(path, names, descriptors)


def _check_agree(path: Path, name: str, found: np.ndarray, own: np.ndarray) -> None:
    """Raises InputError where the keypoints of a file are not the model's, which lie half a pixel further or, imported
    without that, in the same place. hloc keeps, and moves, keypoints as float16: beyond 1024 pixels it rounds to whole
    pixels or worse, so that the half pixel itself cannot be told there."""
    remedy = "give the features that the model was triangulated with"
    if len(found) != len(own):
        raise InputError(f"{path} has {len(found)} keypoints of {name}, the model {len(own)}", remedy)
    off = own - found.astype(np.float64)
    if not (np.abs(off - 0.25) <= 0.5 + np.spacing(np.abs(found))).all():
        median = np.median(np.hypot(*off.T))
        raise InputError(f"the keypoints of {name} in {path} are {median:.3g} pixels from the model's (median)", remedy)


def _joined(path: Path, names: Sequence[str], rows: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of all images in one array. Raises InputError where they are not equally wide."""
    for name, own in zip(names, rows, strict=True):
        if own.shape[1] != rows[0].shape[1] or not own.shape[1]:
            raise InputError(
                f"{path} has descriptors of {name} that are {own.shape[1]} wide, of {names[0]} {rows[0].shape[1]}",
                "extract the features of all images with one network",
            )
    return np.concatenate(rows)


def _read_model(sfm: Path) -> tuple[np.ndarray, np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Points and keypoints of a COLMAP model that `read_reference` has read.

    Returns:
        (L,) int64 the points' ids, rising; (L, 3) float64 their positions; by name of image (N, 2) float64 pixels and
        (N,) int64 the ids of their points or `NO_POINT`.

    Raises:
        InputError: points3D is missing, or a file is damaged.
    """
    binary = (sfm / "cameras.bin").exists() and (sfm / "images.bin").exists()  # as read_reference chooses
    ending, points_of, keypoints_of = (
        (".bin", _binary_points, _binary_keypoints) if binary else (".txt", _text_points, _text_keypoints)
    )
    if not (sfm / f"points3D{ending}").exists():
        raise InputError(f"the model {sfm} has no points3D{ending}", "triangulate it with hloc.triangulation")
    try:
        table = np.fromiter(points_of(sfm / f"points3D{ending}"), [("id", np.int64), ("position", np.float64, 3)])
        ids, rows = np.unique(table["id"], return_index=True)
        positions = table["position"][rows]
        if len(ids) < len(table):
            raise ValueError("a point appears twice")
        if not np.isfinite(positions).all():
            raise ValueError("a point is not finite")
        keypoints = {name: (xy, points) for name, xy, points in keypoints_of(sfm / f"images{ending}")}
        for name, (xy, _) in keypoints.items():
            if not np.isfinite(xy).all():
                raise ValueError(f"a keypoint of {name} is not finite")
    except (OSError, ValueError, OverflowError) as e:
        raise _damaged(sfm, e) from e
    return ids, positions, keypoints


def _damaged(sfm: Path, why: object) -> InputError:
    return InputError(f"the model {sfm} is damaged: {why}", "triangulate it again with hloc.triangulation")


def _landmarks(sfm: Path, ids: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(K,) rows of ``ids`` of the keypoints' ``points``, or `NO_POINT`. Raises InputError where one is not there."""
    rows = np.minimum(np.searchsorted(ids, points), len(ids) - 1)
    lost = (ids[rows] != points) & (points != NO_POINT)
    if lost.any():
        raise _damaged(sfm, f"a keypoint is of point {points[lost][0]}, which is not there")
    return np.where(points == NO_POINT, NO_POINT, rows)


def _binary_points(path: Path) -> Iterator[_PointRow]:
    data, at = read_bytes(path), 8
    try:
        (count,) = struct.unpack_from("<Q", data)
        for _ in range(count):
            number, x, y, z, track = _POINT.unpack_from(data, at)
            at += _POINT.size + 8 * track
            yield number, (x, y, z)
        if at > len(data):
            raise ValueError(f"the last track of {path.name} is truncated")
    except struct.error as e:
        raise ValueError(f"{path.name} is truncated at {len(data)} bytes") from e


def _binary_keypoints(path: Path) -> Iterator[_ImageRow]:
    data = read_bytes(path)
    (count,), at = struct.unpack_from("<Q", data), 8
    for _ in range(count):
        start = at + struct.calcsize("<I7dI")  # id, pose, camera
        end = data.index(b"\0", start)
        (size,), at = struct.unpack_from("<Q", data, end + 1), end + 9
        table = np.frombuffer(data, "<f8", 3 * size, at).reshape(-1, 3)
        at += table.nbytes
        yield data[start:end].decode(), table[:, :2], table.view("<i8")[:, 2]


def _text_points(path: Path) -> Iterator[_PointRow]:
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            try:
                point, x, y, z, *_ = line.split(maxsplit=4)
                yield int(point), (float(x), float(y), float(z))
            except ValueError as e:
                raise ValueError(f"{path.name}, line {number} is not a point") from e


def _text_keypoints(path: Path) -> Iterator[_ImageRow]:
    lines = iter(read_text(path).splitlines())
    for line in lines:
        if line.strip() and not line.startswith("#"):
            name = line.split(maxsplit=9)[9].strip()
            table = np.array(next(lines, "").split(), np.float64)
            if len(table) % 3 or not (np.abs(table) < 2**53).all():
                raise ValueError(f"the keypoints of {name} are not x, y, point of each")
            table = table.reshape(-1, 3)
            yield name, table[:, :2], table[:, 2].astype(np.int64)
