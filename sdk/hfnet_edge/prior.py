"""What is known of a query beforehand: about where it was taken, which way is down, in which part of the map.

A prior decides which reference images are retrieved, all or nothing for each, so that devices agree; and a pose that
contradicts it is not given. It may be wrong itself: where nothing is found with it, the query is searched for without,
and the result says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.map.georeference import Earth
from hfnet_edge.map.map_file import LocalizationMap

NEAREST = 20  # reference images that are retrieved from in any case: those nearest to a position
REACH = 2.0  # times the radius: a query sees what images farther away saw
CERTAIN = 3.0  # standard deviations
GRAVITY_TOLERANCE = 10.0  # degrees: sensors are right to one, poses of close landmarks to a few
LEVEL = 0.35  # of gravity in the image's plane, below which the camera looks down or up and no side is upright


@dataclass(frozen=True)
class Gps:
    """A fix: degrees of WGS 84, and its accuracy as receivers state it, metres (68 % are nearer)."""

    latitude: float
    longitude: float
    accuracy: float = 10.0

    def __post_init__(self) -> None:
        _check_finite("gps", (self.latitude, self.longitude, self.accuracy))
        if abs(self.latitude) > 90 or abs(self.longitude) > 180 or self.accuracy <= 0:
            raise InputError(
                f"gps is {self.latitude}, {self.longitude} within {self.accuracy} m", "give degrees, and metres above 0"
            )


@dataclass(frozen=True)
class Prior:
    """What is known of one query; each may be left out.

    Attributes:
        position: about where the camera is, in the map's frame, as the last pose's `Pose.center`. radius: how far it
            is off at most, map units.
        gps: about where it is on Earth, in a map of `hfnet-map georeference`.
        gravity: the direction of gravity in the axes of the camera as the frame is stored (x right, y down, z forward),
            of any length. It turns the frame upright, and in a map of `hfnet-map georeference` the pose is checked.
        images: names of reference images, or patterns of them as in a shell: floors, or parts of a merged map.

    Raises:
        InputError: a value is not finite, or out of its bounds.
    """

    position: tuple[float, float, float] | None = None
    radius: float | None = None
    gps: Gps | None = None
    gravity: tuple[float, float, float] | None = None
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("position", "gravity"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _check_finite(name, value, 3))
        if (self.position is None) != (self.radius is None):
            raise InputError("position and radius go together", "give both: where the camera is, and how far off")
        if self.radius is not None and not (math.isfinite(self.radius) and self.radius > 0):
            raise InputError(f"radius is {self.radius}", "give map units above 0")
        if self.gravity is not None and not any(self.gravity):
            raise InputError("gravity is zero", "give the direction in which things fall, in the camera's axes")
        if isinstance(self.images, str):
            raise InputError(f"images is the text {self.images!r:.40}", "give a tuple of names or patterns")

    @property
    def rotation(self) -> int | None:
        """Degrees clockwise by which the frame is upright, by gravity; None: it does not say."""
        if self.gravity is None:
            return None
        x, y, _ = self.gravity
        if math.hypot(x, y) < LEVEL * math.hypot(*self.gravity):
            return None
        return round(math.degrees(math.atan2(x, y)) / 90) % 4 * 90

    def in_map(self, map_: LocalizationMap) -> Known:
        """What it means there.

        Raises:
            InputError: ``images`` fits none, or the map's place on Earth is not known.
            MapFormatError: the map is damaged there.
        """
        earth = map_.earth
        where = map_.path or "the map"
        if self.gps is not None and earth is None:
            raise InputError(f"{where} does not know its place on Earth", "say it with `hfnet-map georeference`")
        among = None
        if self.images:
            names = map_.image_names
            among = np.array([any(fnmatchcase(name, pattern) for pattern in self.images) for name in names])
            if not among.any():
                raise InputError(
                    f"no reference image of {where} is called {', '.join(self.images)}", f"names look like {names[0]}"
                )
        disks = []
        if self.position is not None and self.radius is not None:
            disks.append(Disk("position", np.array(self.position), self.radius))
        if self.gps is not None and earth is not None:
            at = earth.to_map(self.gps.latitude, self.gps.longitude)
            disks.append(Disk("GPS", at, CERTAIN * self.gps.accuracy / earth.metres, earth.up))
        centers = map_.views[0] + map_.origin
        for disk in disks:
            near = disk.images(centers)
            among = near if among is None else among & near if (among & near).any() else among
        gravity = None if self.gravity is None else np.array(self.gravity) / math.hypot(*self.gravity)
        return Known(among, tuple(disks), gravity, earth, self)


@dataclass(frozen=True)
class Disk:
    """A position, and how far it is off at most.

    Attributes:
        name: for messages. center: (3,) float64, world. radius: map units.
        up: (3,) unit; distances are then measured across it, since the height is not known.
    """

    name: str
    center: np.ndarray
    radius: float
    up: np.ndarray | None = None

    def distances(self, points: np.ndarray) -> np.ndarray:
        """(N,) of (N, 3) world points."""
        with np.errstate(over="ignore", invalid="ignore"):
            apart = points - self.center
            if self.up is not None:
                apart = apart - (apart * self.up).sum(axis=1, keepdims=True) * self.up
            return np.nan_to_num(np.sqrt(np.square(apart).sum(axis=1)), nan=np.inf)

    def images(self, centers: np.ndarray) -> np.ndarray:
        """(M,) bool: reference images with ``centers`` (M, 3) that may see what is seen from there."""
        distances = self.distances(centers)
        near = distances <= REACH * self.radius
        near[np.argsort(distances, kind="stable")[:NEAREST]] = True
        return near


@dataclass(frozen=True)
class Known:
    """A prior in one map.

    Attributes:
        among: (M,) bool reference images that may be retrieved; None: all.
        disks: where the camera is. gravity: (3,) unit, in the camera's axes. earth: the map's, which says what is up.
        prior: what it was told by, for another map.
    """

    among: np.ndarray | None
    disks: tuple[Disk, ...]
    gravity: np.ndarray | None
    earth: Earth | None
    prior: Prior

    def contradiction(self, pose: Pose, position_std: float) -> str:
        """What of it a pose (cam_from_world) contradicts, for people; "" where nothing.

        Args:
            position_std: of the pose, map units; inf: unknown.
        """
        spread = CERTAIN * position_std
        for disk in self.disks:
            away = float(disk.distances(pose.center[None])[0])
            if away > disk.radius + (spread if math.isfinite(spread) else 0.0):
                return f"the pose is {away:.3g} from the stated {disk.name}, which is within {disk.radius:.3g}"
        if self.gravity is not None and self.earth is not None:
            down = -(pose.rotation @ self.earth.up)
            angle = math.degrees(math.acos(float(np.clip(down @ self.gravity, -1, 1))))
            if angle > GRAVITY_TOLERANCE:
                return f"the pose's down is {angle:.0f} degrees from the stated gravity"
        return ""


def _check_finite(name: str, values, count: int | None = None) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError) as e:
        raise InputError(f"{name} is {values!r:.60}", "give numbers") from e
    if not all(map(math.isfinite, found)) or (count is not None and len(found) != count):
        raise InputError(f"{name} is {found}", f"give {count or len(found)} finite numbers")
    return found
