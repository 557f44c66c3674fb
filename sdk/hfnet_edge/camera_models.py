"""COLMAP's camera models: how each bends a ray's coordinates before focal length and centre make pixels of them.

Perspective models bend (x / z, y / z), fisheyes the angle from the axis, along the direction from it:
(theta cos phi, theta sin phi). All see what lies before the camera, at less than 90 degrees from its axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Bend = Callable[..., tuple[np.ndarray, np.ndarray]]
"""Coordinates x, y (N,) each and the model's parameters, to bent coordinates."""

STEP = 1e-6  # of numerical derivatives
ROUNDS = 50  # of the search for what bends to a point
CLOSE = 1e-12  # to that point


@dataclass(frozen=True)
class CameraModel:
    """A model.

    Attributes:
        names: of its parameters: f or fx, fy; cx, cy; then those of ``bend``, in COLMAP's order.
        bend: see `Bend`.
        fisheye: which coordinates it bends.
    """

    names: tuple[str, ...]
    bend: Bend
    fisheye: bool = False

    @property
    def lengths(self) -> int:
        """Number of focal lengths."""
        return 2 if self.names[0] == "fx" else 1

    def chart(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 2) coordinates of rays (N, 3) in the camera's frame that are bent; NaN behind the camera."""
        before = xyz[:, 2:] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            if not self.fisheye:
                return np.where(before, xyz[:, :2] / xyz[:, 2:], np.nan)
            radius = np.sqrt(np.square(xyz[:, :2]).sum(axis=1, keepdims=True))
            angle = np.arctan2(radius, xyz[:, 2:])
            return np.where(before, xyz[:, :2] * np.where(radius > 0, angle / radius, 1 / xyz[:, 2:]), np.nan)

    def rays(self, chart: np.ndarray) -> np.ndarray:
        """(N, 3) rays of unit depth, or of unit length for a fisheye; NaN beyond 90 degrees. The inverse of `chart`."""
        if not self.fisheye:
            return np.concatenate([chart, np.ones((len(chart), 1))], axis=1)
        angle = np.sqrt(np.square(chart).sum(axis=1, keepdims=True))
        rays = np.concatenate([chart * np.sinc(angle / np.pi), np.cos(angle)], axis=1)
        return np.where(angle < np.pi / 2, rays, np.nan)

    def bent(self, chart: np.ndarray, params: tuple[float, ...]) -> np.ndarray:
        """(N, 2) of coordinates (N, 2)."""
        with np.errstate(all="ignore"):  # of NaN, and of coordinates that no ray of this camera has
            return np.stack(self.bend(chart[:, 0], chart[:, 1], *params), axis=1)

    def straightened(self, bent: np.ndarray, params: tuple[float, ...]) -> np.ndarray:
        """The inverse of `bent`, by Newton's method from the coordinates themselves; NaN where none is found."""
        at = bent.copy()
        for _ in range(ROUNDS):
            off = bent - self.bent(at, params)
            (a, c), (b, d) = (
                ((self.bent(at + step, params) - self.bent(at - step, params)) / (2 * STEP)).T
                for step in (np.array([STEP, 0]), np.array([0, STEP]))
            )
            with np.errstate(all="ignore"):
                step = np.stack([d * off[:, 0] - b * off[:, 1], a * off[:, 1] - c * off[:, 0]], axis=1)
                step /= (a * d - b * c)[:, None]
                length = np.sqrt(np.square(step).sum(axis=1, keepdims=True))
                at = at + step * np.minimum(1, 0.5 / length, where=length > 0, out=np.ones_like(length))
            if np.nanmax(length, initial=0.0) < CLOSE:
                break
        found = np.square(bent - self.bent(at, params)).sum(axis=1, keepdims=True) < 1e-16
        return np.where(found, at, np.nan)


def _none(x, y):
    return x, y


def _radial(x, y, k1, k2=0.0):
    r2 = x * x + y * y
    factor = 1 + r2 * (k1 + r2 * k2)
    return x * factor, y * factor


def _tangential(x, y, p1, p2):
    r2 = x * x + y * y
    return 2 * p1 * x * y + p2 * (r2 + 2 * x * x), 2 * p2 * x * y + p1 * (r2 + 2 * y * y)


def _opencv(x, y, k1, k2, p1, p2):
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * k2)
    xb = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yb = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    return xb, yb


def _full_opencv(x, y, k1, k2, p1, p2, k3, k4, k5, k6):
    r2 = x * x + y * y
    factor = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    xt, yt = _tangential(x, y, p1, p2)
    return x * factor + xt, y * factor + yt


def _fov(x, y, omega):
    r = np.sqrt(x * x + y * y)
    if abs(omega) < 1e-6:
        return x, y
    factor = np.where(r > 1e-9, np.arctan(2 * r * np.tan(omega / 2)) / (r * omega), 2 * np.tan(omega / 2) / omega)
    return x * factor, y * factor


def _division(x, y, k):
    factor = 2 / (1 + np.sqrt(1 - 4 * k * (x * x + y * y)))
    return x * factor, y * factor


def _eucm(x, y, alpha, beta):
    depth = alpha * np.sqrt(beta * (x * x + y * y) + 1) + 1 - alpha
    return x / depth, y / depth


def _kannala_brandt(x, y, *k):
    r2 = x * x + y * y
    factor = np.ones_like(r2)
    power = np.ones_like(r2)
    for coefficient in k:
        power = power * r2
        factor = factor + coefficient * power
    return x * factor, y * factor


def _thin_prism(x, y, k1, k2, p1, p2, k3, k4, sx1, sy1):
    r2 = x * x + y * y
    (xr, yr), (xt, yt) = _kannala_brandt(x, y, k1, k2, k3, k4), _tangential(x, y, p1, p2)
    return xr + xt + sx1 * r2, yr + yt + sy1 * r2


def _rad_tan_thin_prism(x, y, k0, k1, k2, k3, k4, k5, p0, p1, s0, s1, s2, s3):
    x, y = _kannala_brandt(x, y, k0, k1, k2, k3, k4, k5)
    r2 = x * x + y * y
    xt, yt = _tangential(x, y, p1, p0)
    return x + xt + r2 * (s0 + r2 * s1), y + yt + r2 * (s2 + r2 * s3)


ONE, TWO = ("f", "cx", "cy"), ("fx", "fy", "cx", "cy")
PLAIN = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")  # additions and multiplications alone
CAMERA_MODELS: dict[str, CameraModel] = {
    "SIMPLE_PINHOLE": CameraModel(ONE, _none),
    "PINHOLE": CameraModel(TWO, _none),
    "SIMPLE_RADIAL": CameraModel((*ONE, "k"), _radial),
    "RADIAL": CameraModel((*ONE, "k1", "k2"), _radial),
    "OPENCV": CameraModel((*TWO, "k1", "k2", "p1", "p2"), _opencv),
    "FULL_OPENCV": CameraModel((*TWO, "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"), _full_opencv),
    "FOV": CameraModel((*TWO, "omega"), _fov),
    "SIMPLE_DIVISION": CameraModel((*ONE, "k"), _division),
    "DIVISION": CameraModel((*TWO, "k"), _division),
    "EUCM": CameraModel((*TWO, "alpha", "beta"), _eucm),
    "SIMPLE_FISHEYE": CameraModel(ONE, _none, True),
    "FISHEYE": CameraModel(TWO, _none, True),
    "SIMPLE_RADIAL_FISHEYE": CameraModel((*ONE, "k"), _radial, True),
    "RADIAL_FISHEYE": CameraModel((*ONE, "k1", "k2"), _radial, True),
    "OPENCV_FISHEYE": CameraModel((*TWO, "k1", "k2", "k3", "k4"), _kannala_brandt, True),
    "THIN_PRISM_FISHEYE": CameraModel((*TWO, "k1", "k2", "p1", "p2", "k3", "k4", "sx1", "sy1"), _thin_prism, True),
    "RAD_TAN_THIN_PRISM_FISHEYE": CameraModel(
        (*TWO, "k0", "k1", "k2", "k3", "k4", "k5", "p0", "p1", "s0", "s1", "s2", "s3"), _rad_tan_thin_prism, True
    ),
}
