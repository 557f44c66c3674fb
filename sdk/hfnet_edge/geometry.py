"""Cameras, poses and the pixel convention are defined here.

Pixels: COLMAP's convention everywhere, the centre of the top-left pixel is (0.5, 0.5), so that a point at ``x`` in an
image of width ``w`` lies at ``x * v / w`` after a resize to width ``v``. Array indices are pixels minus 0.5. This is
the one place that says so; `hfnet_edge.image.photo` and `hfnet_edge.image.keypoints` apply it.

Poses: ``cam_from_world``, OpenCV axes (x right, y down, z forward), quaternions (w, x, y, z), metres where the map is
metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hfnet_edge.camera_models import CAMERA_MODELS, PLAIN, STEP, CameraModel
from hfnet_edge.errors import CameraError, InputError

MAX_SIDE = 1 << 20  # pixels of an image's width or height
MAX_PARAM = 1e9  # of a camera: pixels, or a coefficient of its distortion
MAX_DISTANCE = 1e12  # metres from the world's origin; sums of squares of such stay finite, and are drawn


@dataclass(frozen=True)
class Camera:
    """Intrinsics as COLMAP and hloc write them.

    Attributes:
        model: a key of `hfnet_edge.camera_models.CAMERA_MODELS`.
        width, height: of the image, pixels.
        params: in COLMAP's order; focal lengths and centre in pixels.

    Raises:
        CameraError: unknown model, wrong number of parameters, or values that no camera has.
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]

    def __post_init__(self) -> None:
        try:  # numbers of numpy and JSON are welcome
            object.__setattr__(self, "width", int(self.width))
            object.__setattr__(self, "height", int(self.height))
            object.__setattr__(self, "params", tuple(float(value) for value in self.params))
        except (TypeError, ValueError, OverflowError) as e:
            raise CameraError(f"{self.width}, {self.height}, {self.params} are not numbers", "give w, h, (...)") from e
        if self.model not in CAMERA_MODELS:
            raise CameraError(
                f"the camera model {self.model!r} is not supported", f"use one of {', '.join(CAMERA_MODELS)}"
            )
        names = CAMERA_MODELS[self.model].names
        if len(self.params) != len(names):
            raise CameraError(
                f"{self.model} takes {len(names)} parameters, not {len(self.params)}",
                f"give {' '.join(names)}",
            )
        if self.width <= 0 or self.height <= 0:
            raise CameraError(f"the camera's size {self.width}x{self.height} is not positive", "give width and height")
        if max(self.width, self.height) > MAX_SIDE:
            raise CameraError(
                f"the camera's size {self.width}x{self.height} is beyond {MAX_SIDE} pixels", "give width and height"
            )
        if not max(map(abs, self.params)) < MAX_PARAM or not np.isfinite(self.params).all() or min(self.focal) <= 1e-3:
            raise CameraError(f"the camera's parameters {self.params} are not sensible", "focal lengths are positive")

    @classmethod
    def parse(cls, text: str) -> Camera:
        """Reads ``"PINHOLE 1024 683 919.8 921.8 507.0 335.9"``."""
        fields = text.split()
        if len(fields) < 4:
            raise CameraError(f"{text!r} is not a camera", 'write it as "PINHOLE width height fx fy cx cy"')
        try:
            return cls(fields[0], int(fields[1]), int(fields[2]), tuple(float(value) for value in fields[3:]))
        except ValueError as e:
            raise CameraError(f"{text!r} is not a camera: {e}", "write the model, then numbers") from e

    def __str__(self) -> str:
        return f"{self.model} {self.width} {self.height} {' '.join(f'{value:.6f}' for value in self.params)}"

    @property
    def about(self) -> CameraModel:
        """The model: what bends rays."""
        return CAMERA_MODELS[self.model]

    @property
    def is_plain(self) -> bool:
        """Whether the model takes additions, multiplications and divisions alone, so that machines agree on the bits,
        and solvers know it."""
        return self.model in PLAIN

    @property
    def focal(self) -> tuple[float, float]:
        """fx, fy in pixels."""
        return self.params[0], self.params[self.about.lengths - 1]

    @property
    def center(self) -> tuple[float, float]:
        """cx, cy in pixels."""
        at = self.about.lengths
        return self.params[at], self.params[at + 1]

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) float64 calibration matrix, without distortion."""
        (fx, fy), (cx, cy) = self.focal, self.center
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])

    @property
    def bending(self) -> tuple[float, ...]:
        """The parameters that are neither focal lengths nor centre."""
        return self.params[self.about.lengths + 2 :]

    @property
    def distortion(self) -> np.ndarray:
        """(4,) float64: k1, k2, p1, p2 of a plain model, as OpenCV orders them."""
        known = dict(zip(self.about.names, self.params, strict=True))
        return np.array([known.get("k1", known.get("k", 0.0)), *(known.get(k, 0.0) for k in ("k2", "p1", "p2"))])

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 3) points in the camera's frame to (N, 2) pixels; NaN behind the camera."""
        bent = self.about.bent(self.about.chart(np.asarray(xyz, np.float64)), self.bending)
        (fx, fy), (cx, cy) = self.focal, self.center
        return np.stack([fx * bent[:, 0] + cx, fy * bent[:, 1] + cy], axis=1)

    def rays(self, xy: np.ndarray) -> np.ndarray:
        """(N, 2) pixels to (N, 3) float64 directions in the camera's frame, z positive; NaN where the camera sees
        nothing, or beyond 90 degrees from its axis. The inverse of `project`."""
        at = (np.asarray(xy, np.float64).reshape(-1, 2) - self.center) / self.focal
        return self.about.rays(self.about.straightened(at, self.bending))

    def project_jacobian(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 2, 3) derivatives of `project` by the points (N, 3) in the camera's frame; not finite at depth 0."""
        xyz = np.asarray(xyz, np.float64)
        if not self.is_plain:
            return self._numerical_jacobian(xyz)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / xyz[:, 2]
            x, y = xyz[:, 0] * inverse, xyz[:, 1] * inverse
        k1, k2, p1, p2 = self.distortion
        r2 = x * x + y * y
        radial, slope = 1 + r2 * (k1 + r2 * k2), 2 * k1 + 4 * r2 * k2  # slope: of radial by r2 / 2
        fx, fy = self.focal
        across = x * y * slope + 2 * p1 * x + 2 * p2 * y
        xx = fx * (radial + x * x * slope + 2 * p1 * y + 6 * p2 * x)
        yy = fy * (radial + y * y * slope + 6 * p1 * y + 2 * p2 * x)
        xy, yx = fx * across, fy * across
        rows = [xx, xy, -(xx * x + xy * y), yx, yy, -(yx * x + yy * y)]
        return np.stack([row * inverse for row in rows], axis=1).reshape(-1, 2, 3)

    def _numerical_jacobian(self, xyz: np.ndarray) -> np.ndarray:
        """By differences, over a millionth of each point's distance."""
        step = STEP * np.sqrt(np.square(xyz).sum(axis=1, keepdims=True))
        columns = [(self.project(xyz + step * e) - self.project(xyz - step * e)) / (2 * step) for e in np.eye(3)]
        return np.stack(columns, axis=2)


@dataclass(frozen=True)
class Pose:
    """``cam_from_world``: maps world points to the camera's frame, ``R @ x + t``.

    Attributes:
        quaternion: (4,) float64, (w, x, y, z), unit length.
        translation: (3,) float64, in the world's unit (metres in a metric map).
    """

    quaternion: np.ndarray
    translation: np.ndarray

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) float64 rotation matrix."""
        q = np.asarray(self.quaternion, np.float64)
        w, x, y, z = q / np.sqrt(np.square(q).sum())
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )

    @property
    def center(self) -> np.ndarray:
        """(3,) float64, the camera's position in the world."""
        return -self.rotation.T @ self.translation

    @classmethod
    def from_values(cls, values: Sequence[float] | np.ndarray) -> Pose:
        """From qw, qx, qy, qz, tx, ty, tz as files have them: the quaternion is scaled to unit length.

        Raises:
            ValueError: not seven finite numbers, no rotation, or beyond every place (`MAX_DISTANCE`).
        """
        if len(values) != 7:
            raise ValueError(f"has {len(values)} numbers, not 7")
        row = np.array(values, np.float64)
        if not np.isfinite(row).all():
            raise ValueError("is not finite")
        if not 1e-6 < np.abs(row[:4]).max() < 1e6:
            raise ValueError("is no rotation")
        if not np.abs(row[4:]).max() < MAX_DISTANCE:
            raise ValueError(f"lies beyond {MAX_DISTANCE:g}")
        return cls(row[:4] / np.linalg.norm(row[:4]), row[4:])

    @classmethod
    def from_matrix(cls, rotation: np.ndarray, translation: np.ndarray) -> Pose:
        """From a (3, 3) rotation and a (3,) translation of cam_from_world."""
        r = np.asarray(rotation, np.float64)
        # Shepperd's method: divide by the largest of the four components.
        squares = np.array([r.trace(), *(2 * r[i, i] - r.trace() for i in range(3))]) + 1
        largest = int(np.argmax(squares))
        s = 2 * np.sqrt(squares[largest])
        if largest == 0:
            q = [s / 4, (r[2, 1] - r[1, 2]) / s, (r[0, 2] - r[2, 0]) / s, (r[1, 0] - r[0, 1]) / s]
        else:
            i = largest - 1
            j, k = (i + 1) % 3, (i + 2) % 3
            vector = np.zeros(3)
            vector[i], vector[j], vector[k] = s / 4, (r[j, i] + r[i, j]) / s, (r[k, i] + r[i, k]) / s
            q = [(r[k, j] - r[j, k]) / s, *vector]
        quaternion = np.array(q) * (1 if q[0] >= 0 else -1)
        return cls(quaternion / np.linalg.norm(quaternion), np.asarray(translation, np.float64))

    @property
    def inverse(self) -> Pose:
        """The way back: of ``cam_from_world`` ``world_from_cam``."""
        w, x, y, z = self.quaternion
        return Pose(np.array([w, -x, -y, -z]), self.center)

    def __matmul__(self, other: Pose) -> Pose:
        """First ``other``, then this: ``cam_from_rig @ rig_from_world`` is ``cam_from_world``."""
        a, (w, x, y, z) = self.quaternion, other.quaternion
        q = np.array(
            [
                a[0] * w - a[1] * x - a[2] * y - a[3] * z,
                a[0] * x + a[1] * w + a[2] * z - a[3] * y,
                a[0] * y - a[1] * z + a[2] * w + a[3] * x,
                a[0] * z + a[1] * y - a[2] * x + a[3] * w,
            ]
        )
        return Pose(q / np.sqrt(np.square(q).sum()), self.transform(other.translation[None])[0])

    def transform(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 3) world points to the camera's frame; sums in a fixed order, not BLAS's: machines agree on the bits."""
        x, y, z = np.asarray(xyz, np.float64).T[:, :, None]
        a, b, c = self.rotation.T
        return x * a + y * b + z * c + self.translation


def checked_pose(name: str, pose: Pose) -> Pose:
    """A pose of a caller's, of unit length. Raises InputError: the argument ``name`` is none, or not finite."""
    if not isinstance(pose, Pose):
        raise InputError(f"{name} is {pose!r:.60}", "give a hfnet_edge.geometry.Pose")
    try:
        return Pose.from_values([*pose.quaternion, *pose.translation])
    except (TypeError, ValueError) as e:
        raise InputError(f"{name} {e}", "give a rotation and a position") from e
