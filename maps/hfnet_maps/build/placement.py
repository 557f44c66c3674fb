"""The frame and the scale of a model of photos, which SfM leaves open, by what is known of its cameras or one distance.

    GPS in EXIF | positions in a CSV | a device's poses | a distance ─> robust similarity ─> the model in that frame

What is known is never taken as truth: one similarity, on which most cameras agree, is all that is fitted to it.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.features import Features
from hfnet_edge.geometry import Pose
from hfnet_edge.map.georeference import Earth
from hfnet_edge.shell.reading import parse_json, read_text
from hfnet_edge.video import Trajectory
from hfnet_maps.build.georeference import Fixes, georeference, gps_of
from hfnet_maps.build.photos import Photos
from hfnet_maps.build.structure import SfmModel, transformed
from hfnet_maps.build.transforms_files import frame_poses
from hfnet_maps.evaluation.alignment import AGREE, LEAST, center_of, robust_similarity

GPS = "gps"  # what --align says to mean EXIF's
CLOSE = 4.0  # network pixels between a marked point and a landmark that is taken for it
NEAR = 24.0  # else between it and landmarks that say how far it is, ...
NEIGHBOURS = 5  # ... so many at most
UNITS = {"mm": 0.001, "cm": 0.01, "m": 1.0, "km": 1000.0, "in": 0.0254, "ft": 0.3048}


@dataclass(frozen=True)
class Placed:
    """How a model came to its frame.

    Attributes:
        model: in the frame. earth: where that is on Earth, by GPS.
        names, off: of the cameras that were known, and how far each is from where it is said to be, in ``unit``.
        agree: (N,) bool, those that the similarity was fitted to.
        unit: "m" where the source is metric, else "units".
        scale: of the model before, in the new unit.
    """

    model: SfmModel
    names: tuple[str, ...]
    off: np.ndarray
    agree: np.ndarray
    unit: str
    scale: float
    earth: Earth | None = None


@dataclass(frozen=True)
class Distance:
    """A measured distance between two marked points.

    Attributes:
        ends: name of a photo, and the pixel where it shows the point; two of them. metres: between the points.
    """

    ends: tuple[tuple[str, tuple[float, float]], ...]
    metres: float

    @classmethod
    def parse(cls, text: str) -> Distance:
        """Reads ``"a.jpg:120,300 b.jpg:500,310 1.20m"``. Raises InputError."""
        found = re.fullmatch(r"\s*(.+):([^:\s]+)\s+(.+):([^:\s]+)\s+([0-9.eE+-]+)\s*([a-z]*)\s*", text)
        try:
            if found is None:
                raise ValueError("two points and a length are wanted")
            a, at_a, b, at_b, length, unit = found.groups()
            points = [tuple(float(v) for v in at.split(",")) for at in (at_a, at_b)]
            metres = float(length) * UNITS[unit or "m"]
            if any(len(p) != 2 for p in points) or not np.isfinite(points).all() or not 0 < metres < math.inf:
                raise ValueError("a point has two numbers, and a length is above 0")
        except (ValueError, KeyError) as e:
            raise InputError(f"--distance {text!r}: {e}", 'write it as "a.jpg:120,300 b.jpg:500,310 1.20m"') from e
        return cls(((a, points[0]), (b, points[1])), metres)  # type: ignore[arg-type]


Known = dict[int, np.ndarray | Pose]
"""Where cameras are said to be, by row of the photos: positions (3,), or poses."""


class ByCameras:
    """What is known of cameras.

    Args:
        source: `GPS`, a .csv of ``name,x,y,z``, a ``transforms.json``, or a trajectory in TUM's format.
    """

    def __init__(self, source: str):
        self.source = source

    def check(self, photos: Photos) -> None:
        """Raises InputError, before the work: it is missing, makes no sense, or knows too few of the photos."""
        known = self._gps(photos) if self.source == GPS else _read(Path(self.source), photos)
        self._enough(len(known), len(photos.names))

    def __call__(self, photos: Photos, features: Sequence[Features], model: SfmModel) -> Placed:
        """The model in the frame of what is known. Raises InputError: it knows too few of the model's photos, or they
        leave the frame open."""
        if self.source == GPS:
            fixes = {i: fix for i, fix in self._gps(photos).items() if i in model.poses}
            self._enough(len(fixes), len(model.poses))
            return _by_gps(fixes, photos, model)
        path = Path(self.source)
        known = _read(path, photos)
        rows = [i for i in model.poses if i in known]
        self._enough(len(rows), len(model.poses))
        to_known, agree = robust_similarity([model.poses[i] for i in rows], [known[i] for i in rows], str(path))
        found = to_known.points(np.stack([model.poses[i].center for i in rows]))
        off = np.linalg.norm(found - np.stack([center_of(known[i]) for i in rows]), axis=1)
        placed = transformed(model.reconstruction, to_known.scale, to_known.rotation, to_known.translation)
        return Placed(placed, tuple(photos.names[i] for i in rows), off, agree, "units", to_known.scale)

    def _gps(self, photos: Photos) -> dict[int, tuple[float, float, float]]:
        fixes = ((i, gps_of(photos.folder / name)) for i, name in enumerate(photos.names))
        return {i: fix for i, fix in fixes if fix is not None}

    def _enough(self, count: int, of: int) -> None:
        if count >= LEAST:
            return
        if self.source == GPS:
            raise InputError(
                f"{count} of {of} photos have GPS in their EXIF", "give --align a file, or --distance, or leave it out"
            )
        raise InputError(f"{self.source} knows {count} of {of} photos", "its names must be the photos'")


class ByDistance:
    """One measured distance, which gives metres."""

    def __init__(self, distance: Distance):
        self.distance = distance

    def check(self, photos: Photos) -> None:
        """Raises InputError, before the work: it is of other photos."""
        for name, _ in self.distance.ends:
            if name not in photos.names:
                raise InputError(f"--distance names {name}, which is not among the photos", "check the name")

    def __call__(self, photos: Photos, features: Sequence[Features], model: SfmModel) -> Placed:
        """The model in metres. Raises InputError: a photo is not in it, or nothing is known near a point."""
        a, b = (_marked(name, at, photos, features, model) for name, at in self.distance.ends)
        apart = float(np.linalg.norm(a - b))
        if apart <= 0:
            raise InputError("the two points of --distance are one", "mark points that lie apart")
        scale = self.distance.metres / apart
        placed = transformed(model.reconstruction, scale, np.eye(3), np.zeros(3))
        return Placed(placed, (), np.zeros(0), np.zeros(0, bool), "m", scale)


Place = ByCameras | ByDistance


def placed(
    place: Place | None, photos: Photos, features: Sequence[Features], models: Sequence[SfmModel]
) -> list[Placed | None]:
    """How each model comes to its frame; None where nothing is known, or too little of a smaller model.

    Raises:
        InputError: too little is known of the first.
    """
    found: list[Placed | None] = []
    for k, model in enumerate(models):
        try:
            found.append(None if place is None else place(photos, features, model))
        except InputError:
            if k == 0:
                raise
            found.append(None)
    return found


def _marked(
    name: str, at: tuple[float, float], photos: Photos, features: Sequence[Features], model: SfmModel
) -> np.ndarray:
    """(3,) the world point at a pixel of a photo, as far as the landmarks around it are."""
    if name not in photos.names or photos.names.index(name) not in model.poses:
        raise InputError(f"--distance names {name}, which the model does not have", "mark the point in another photo")
    i = photos.names.index(name)
    image, pose, camera = model.reconstruction.image(i + 1), model.poses[i], model.cameras[photos.device_of[i]]
    seen = [(p.xy, model.reconstruction.point3D(p.point3D_id).xyz) for p in image.points2D if p.has_point3D()]
    away = np.linalg.norm(np.array([xy for xy, _ in seen]).reshape(-1, 2) - at, axis=1) / features[i].pixel
    near = [k for k in np.argsort(away, kind="stable")[:NEIGHBOURS] if away[k] <= NEAR]
    if not near:
        raise InputError(
            f"no landmark is within {NEAR:g} network pixels of {at[0]:g},{at[1]:g} in {name}",
            "mark corners on textured surfaces, or see where landmarks are with a COLMAP viewer",
        )
    near = near[:1] if away[near[0]] <= CLOSE else near
    depth = float(np.median(pose.transform(np.array([seen[k][1] for k in near]))[:, 2]))
    ray = camera.rays(np.array([at]))[0]
    return pose.inverse.transform((ray / ray[2] * depth)[None])[0]


def _by_gps(fixes: dict[int, tuple[float, float, float]], photos: Photos, model: SfmModel) -> Placed:
    """East, north, up in metres at the middle of the fixes."""
    names = tuple(photos.names[i] for i in fixes)
    given = Fixes(names, np.stack([model.poses[i].center for i in fixes]), np.array(list(fixes.values())))
    earth, off = georeference(given, np.array([0.0, 0, 1]))  # models stand upright
    rotation, translation = earth.enu_from_map.rotation, earth.enu_from_map.translation
    placed = transformed(model.reconstruction, earth.metres, rotation, translation)
    here = replace(earth, metres=1.0, enu_from_map=Pose(np.array([1.0, 0, 0, 0]), np.zeros(3)))
    agree = off <= AGREE * np.median(off) + 1e-9
    return Placed(placed, names, off, agree, "m", earth.metres, here)


def _read(path: Path, photos: Photos) -> Known:
    """What a file says of the photos' cameras. Raises InputError."""
    try:
        if path.suffix.lower() == ".json":
            return _transforms(path, photos)
        if path.suffix.lower() == ".csv":
            return _positions(path, photos)
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, KeyError, TypeError) as e:
        said = f"it lacks {e}" if isinstance(e, KeyError) else e.strerror if isinstance(e, OSError) else e
        raise InputError(
            f"cannot read {path}: {said}", "give gps, a .csv of name,x,y,z, a transforms.json, or TUM's trajectory"
        ) from e
    return _trajectory(path, photos)


def _positions(path: Path, photos: Photos) -> Known:
    rows = list(csv.DictReader(read_text(path).splitlines()))
    row_of = {name: i for i, name in enumerate(photos.names)}
    known: Known = {}
    for line, row in enumerate(rows, 2):
        at = np.array([float(row[axis] or "nan") for axis in "xyz"])
        if not np.isfinite(at).all():
            raise ValueError(f"line {line} has no three numbers")
        if row["name"] in row_of:
            known[row_of[row["name"]]] = at
    return known


def _transforms(path: Path, photos: Photos) -> Known:
    """Of nerfstudio, instant-ngp, Polycam: world_from_camera with OpenGL's camera axes."""
    known: Known = {}
    for file, pose in frame_poses(parse_json(read_text(path))):
        row = _row_of(file, photos)
        if row is not None:
            known[row] = pose
    return known


def _row_of(file: str, photos: Photos) -> int | None:
    """The photo that a path with other folders before it means, if it is one."""
    parts = PurePosixPath(file.replace("\\", "/")).parts
    for start in range(len(parts)):
        name = "/".join(parts[start:])
        if name in photos.names:
            return photos.names.index(name)
    stems = [i for i, name in enumerate(photos.names) if PurePosixPath(name).stem == PurePosixPath(file).name]
    return stems[0] if len(stems) == 1 else None  # instant-ngp leaves endings out


def _trajectory(path: Path, photos: Photos) -> Known:
    """Of photos whose names are times, or frames of `hfnet-map build --video`."""
    motion = Trajectory.read(path)
    known: Known = {}
    for i, name in enumerate(photos.names):
        found = re.search(r"(_t)?([0-9]+(\.[0-9]+)?)$", PurePosixPath(name).stem)
        start = motion.times[0] if found and found.group(1) else 0.0  # a video begins where its trajectory does
        pose = None if found is None else motion.at(start + float(found.group(2)))
        if pose is not None:
            known[i] = pose.inverse
    return known
