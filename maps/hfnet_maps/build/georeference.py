"""Where on Earth a map is, by GPS of its photos or by surveyed points: a similarity in which up is up.

GPS along a street says nothing of how a map is turned about the street, so up is taken from the photos: people hold
cameras level, and their right-hand axes lie in one plane. What is left is a similarity in that plane, on which most
fixes agree, and a height.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.image.image_file import open_image
from hfnet_edge.map.georeference import FARTHEST, LARGEST, SMALLEST, Earth, enu_of
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.shell.reading import read_text

LEAST = 3  # fixes
TRIALS = 500  # pairs of fixes that are tried
PLACE_FIELDS = ("latitude", "longitude", "altitude")


@dataclass(frozen=True)
class Fixes:
    """Points of a map and where they are; N of them.

    Attributes:
        names: for people. xyz: (N, 3) of the map's frame. wgs84: (N, 3) latitude, longitude, altitude, the last NaN
            where it is not known.
    """

    names: tuple[str, ...]
    xyz: np.ndarray
    wgs84: np.ndarray


def exif_fixes(map_: LocalizationMap, folder: Path) -> Fixes:
    """Of reference images whose files have GPS in their EXIF.

    Raises:
        InputError: fewer than `LEAST` have. ImageError: a file does not decode; missing ones are left out.
    """
    names, rows, centers = [], [], map_.views[0] + map_.origin
    for i, name in enumerate(map_.image_names):
        if not (folder / name).is_file():
            continue
        fix = gps_of(folder / name)
        if fix is not None:
            names.append((name, i))
            rows.append(fix)
    if len(rows) < LEAST:
        raise InputError(
            f"{len(rows)} of {map_.image_count} reference images have GPS in {folder}",
            "name the folder of the photos, or give --points",
        )
    return Fixes(tuple(n for n, _ in names), centers[[i for _, i in names]], np.array(rows))


def gps_of(path: Path) -> tuple[float, float, float] | None:
    """Latitude, longitude and altitude (NaN: unknown) of a photo; None: it has none. Raises ImageError."""
    tags = open_image(path).image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    try:
        degrees = [
            (1 if str(tags[reference]).upper() in ("N", "E") else -1)
            * sum(float(part) / 60**k for k, part in enumerate(tags[value]))
            for reference, value in ((1, 2), (3, 4))
        ]
        height = float(tags[6]) * (-1 if tags.get(5) in (1, b"\1") else 1) if 6 in tags else math.nan
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not all(map(math.isfinite, degrees)) or abs(degrees[0]) > 90 or abs(degrees[1]) > 180 or not any(degrees):
        return None
    return degrees[0], degrees[1], height


def listed_fixes(map_: LocalizationMap, path: Path) -> Fixes:
    """Of a CSV file with a head: ``image,latitude,longitude,altitude`` of reference images' cameras, or
    ``x,y,z,latitude,longitude,altitude`` of points in the map's frame. Altitudes may be empty.

    Raises:
        InputError: the file is missing, or a line makes no sense.
    """
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise InputError(f"cannot read {path}: {e}", "give a CSV file in UTF-8") from e
    head = set(rows[0]) if rows else set()
    if not {"latitude", "longitude"} <= head or not ({"image"} <= head or {"x", "y", "z"} <= head):
        raise InputError(
            f"{path} has no head, or another", "begin it with image,latitude,longitude,altitude, or x,y,z,latitude,..."
        )
    centers = dict(zip(map_.image_names, map_.views[0] + map_.origin, strict=True))
    names, xyz, wgs84 = [], [], []
    for line, row in enumerate(rows, 2):
        try:
            name = row.get("image") or f"line {line}"
            at = centers[row["image"]] if "image" in head else [float(row[axis]) for axis in "xyz"]
            place = [float(row[f]) if row.get(f) else math.nan for f in PLACE_FIELDS]
            if not np.isfinite([*at, *place[:2]]).all() or abs(place[0]) > 90 or abs(place[1]) > 180:
                raise ValueError("is out of bounds")
        except KeyError as e:
            raise InputError(f"{path}, line {line}: the map has no image {e}", "correct the list") from e
        except (TypeError, ValueError) as e:
            raise InputError(f"{path}, line {line}: {e}", "write numbers, with a point") from e
        names.append(name)
        xyz.append(at)
        wgs84.append(place)
    return Fixes(tuple(names), np.array(xyz), np.array(wgs84))


def up_of(poses: Sequence[Pose]) -> np.ndarray:
    """(3,) unit: across the right-hand axes of cameras that are held level, and away from what is below them."""
    right = np.stack([pose.rotation[0] for pose in poses])
    _, _, axes = np.linalg.svd(right)
    below = np.mean([pose.rotation[1] for pose in poses], axis=0)
    return axes[2] * (-1 if axes[2] @ below > 0 else 1)


def georeference(fixes: Fixes, up: np.ndarray) -> tuple[Earth, np.ndarray]:
    """The place on Earth on which most fixes agree.

    Args:
        up: (3,) unit, of the map's frame.

    Returns:
        It, and (N,) float64 metres that each fix is off, across.

    Raises:
        InputError: fewer than `LEAST` fixes, all in one place, or not of one region.
    """
    if len(fixes.names) < LEAST:
        raise InputError(f"{len(fixes.names)} fixes do not say where the map is", f"give {LEAST} or more, well apart")
    latitude, longitude = np.median(fixes.wgs84[:, :2], axis=0)
    heights = fixes.wgs84[:, 2]
    altitude = float(np.nanmedian(heights)) if np.isfinite(heights).any() else 0.0
    enu = np.stack([enu_of(latitude, longitude, altitude, *row) for row in fixes.wgs84.tolist()])
    if np.abs(enu[:, :2]).max() > FARTHEST:
        raise InputError(f"the fixes are {np.abs(enu).max() / 1e3:.0f} km apart", "a map is of one place")
    east = np.cross(up, [0.0, 0, 1] if abs(up[2]) < 0.9 else [0.0, 1, 0])
    east /= np.linalg.norm(east)
    level = np.stack([east, np.cross(up, east), up])  # rows: two level axes of the map, and up
    at = fixes.xyz @ level.T
    a, b = at[:, 0] + 1j * at[:, 1], enu[:, 0] + 1j * enu[:, 1]
    turn, shift = _similarity(a, b)
    off = np.abs(turn * a + shift - b)
    metres, angle = abs(turn), np.angle(turn)
    if not SMALLEST <= metres <= LARGEST:
        raise InputError("the fixes are all in one place, or the map's cameras are", "give fixes that stand apart")
    flat = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    there = np.isfinite(heights)
    rises = (enu[:, 2] - metres * at[:, 2])[there] if there.any() else -metres * at[:, 2]
    pose = Pose.from_matrix(flat @ level, np.array([shift.real, shift.imag, np.median(rises)]))
    residual = float(np.sqrt(np.mean(np.square(off[off <= 3 * np.median(off) + 1e-9]))))
    return Earth(float(latitude), float(longitude), altitude, float(metres), pose, residual), off


def _similarity(a: np.ndarray, b: np.ndarray) -> tuple[complex, complex]:
    """``turn * a + shift`` nearest to ``b``, complex (N,): by the pair of points on which most agree, then by all that
    are within three times the median."""
    rng, best = np.random.default_rng(0), (math.inf, 0j, 0j)
    for _ in range(TRIALS):
        i, j = rng.choice(len(a), 2, replace=False)
        if a[i] == a[j]:
            continue
        turn = (b[i] - b[j]) / (a[i] - a[j])
        shift = np.median((b - turn * a).real) + 1j * np.median((b - turn * a).imag)
        best = min(best, (float(np.median(np.abs(turn * a + shift - b))), turn, shift), key=lambda one: one[0])
    off = np.abs(best[1] * a + best[2] - b)
    kept = off <= 3 * best[0] + 1e-9
    x, y = a[kept] - a[kept].mean(), b[kept] - b[kept].mean()
    spread = float(np.square(np.abs(x)).sum())
    turn = complex((x.conj() * y).sum() / spread) if spread > 0 else 0j
    return turn, complex(b[kept].mean() - turn * a[kept].mean())
