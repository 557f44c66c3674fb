"""A map's place on Earth: the similarity from its frame to east, north and up at an origin (WGS 84).

Within 10 km of the origin, which a map is not larger than, the ellipsoid's curvature is that of two circles: a degree
of latitude and one of longitude have one length each, right to 1 part in 1,000, and 8 m of height at the rim.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hfnet_edge.geometry import Pose
from hfnet_edge.map.container import MapBytes, Section

EARTH = np.dtype(
    [
        ("origin", "<f8", 3),  # latitude, longitude in degrees, altitude in metres
        ("metres", "<f8"),  # of a unit of the map
        ("enu_from_map", "<f8", 7),  # quaternion wxyz, translation in metres
        ("residual", "<f8"),  # metres, root mean square of what it was found by
    ]
)
SEMI_MAJOR, FLATTENING = 6378137.0, 1 / 298.257223563
SMALLEST, LARGEST = 1e-6, 1e6  # metres of a unit
FARTHEST = 1e5  # metres from the origin


@dataclass(frozen=True)
class Earth:
    """Where a map is.

    Attributes:
        latitude, longitude: of the origin, degrees. altitude: metres above the ellipsoid, or above what GPS had.
        metres: of a unit of the map.
        enu_from_map: rotation, and translation in metres: ``metres * R @ x + t`` is east, north, up of the origin.
        residual: metres, root mean square over the images or points that it was found by.
    """

    latitude: float
    longitude: float
    altitude: float
    metres: float
    enu_from_map: Pose
    residual: float

    @property
    def up(self) -> np.ndarray:
        """(3,) unit, in the map's frame."""
        return self.enu_from_map.rotation[2]

    def to_enu(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 3) of the map's frame to metres east, north and up of the origin."""
        return self.enu_from_map.transform(self.metres * np.asarray(xyz, np.float64))

    def to_map(self, latitude: float, longitude: float, altitude: float | None = None) -> np.ndarray:
        """(3,) of the map's frame; at the origin's altitude where it is not given."""
        enu = enu_of(self.latitude, self.longitude, self.altitude, latitude, longitude, altitude)
        return self.enu_from_map.rotation.T @ (enu - self.enu_from_map.translation) / self.metres

    def to_wgs84(self, xyz: np.ndarray) -> tuple[float, float, float]:
        """Latitude, longitude and altitude of a point (3,) of the map's frame."""
        east, north, up = self.to_enu(np.asarray(xyz, np.float64)[None])[0]
        by_latitude, by_longitude = metres_per_degree(self.latitude)
        return self.latitude + north / by_latitude, self.longitude + east / by_longitude, self.altitude + up

    @staticmethod
    def read(file: MapBytes) -> Earth | None:
        """Of a map's file; None: it does not say. Raises MapFormatError: it is damaged."""
        if Section.GEOREFERENCE not in file.sections:
            return None
        row = file.array(Section.GEOREFERENCE, EARTH, 1)[0]
        latitude, longitude, altitude = (float(v) for v in row["origin"])
        metres, residual = float(row["metres"]), float(row["residual"])
        values = [latitude, longitude, altitude, metres, residual, *row["enu_from_map"]]
        if not np.isfinite(values).all() or abs(latitude) > 90 or abs(longitude) > 180:
            raise file.fail("its place on Earth is none")
        if not SMALLEST <= metres <= LARGEST or residual < 0 or abs(altitude) > FARTHEST:
            raise file.fail(f"a unit of it is {metres:g} m, by its place on Earth")
        try:
            pose = Pose.from_values(row["enu_from_map"])
        except ValueError as e:
            raise file.fail(f"its place on Earth {e}") from e
        return Earth(latitude, longitude, altitude, metres, pose, residual)

    def sections(self) -> dict[Section, np.ndarray]:
        """What `read` reads."""
        row = np.zeros(1, EARTH)
        row["origin"] = self.latitude, self.longitude, self.altitude
        row["metres"], row["residual"] = self.metres, self.residual
        row["enu_from_map"] = *self.enu_from_map.quaternion, *self.enu_from_map.translation
        return {Section.GEOREFERENCE: row}


def metres_per_degree(latitude: float) -> tuple[float, float]:
    """Of latitude and of longitude, at a latitude in degrees."""
    sine = math.sin(math.radians(latitude))
    e2 = FLATTENING * (2 - FLATTENING)
    across = SEMI_MAJOR / math.sqrt(1 - e2 * sine * sine)
    along = across * (1 - e2) / (1 - e2 * sine * sine)
    return math.radians(along), math.radians(across * math.cos(math.radians(latitude)))


def enu_of(
    latitude: float, longitude: float, altitude: float, there: float, along: float, height: float | None = None
) -> np.ndarray:
    """(3,) metres east, north and up of an origin, of another place: its latitude ``there``, longitude ``along``."""
    by_latitude, by_longitude = metres_per_degree(latitude)
    east = ((along - longitude + 180) % 360 - 180) * by_longitude
    return np.array([east, (there - latitude) * by_latitude, 0.0 if height is None else height - altitude])
