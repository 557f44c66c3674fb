"""Where the made place is photographed from, and in what light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from hfnet_edge.geometry import Camera, Pose
from hfnet_maps.synthetic_town.textures import Array


@dataclass(frozen=True)
class Light:
    """The light of one view.

    Attributes:
        azimuth, elevation: direction to the sun, degrees from the x axis and from the ground.
        sun, sky: linear RGB of the direct and of the scattered light.
        exposure: factor on the linear image.
        noise: standard deviation of the sensor's noise, in 8-bit grey levels.
    """

    azimuth: float = 235.0
    elevation: float = 48.0
    sun: tuple[float, float, float] = (2.1, 1.96, 1.74)
    sky: tuple[float, float, float] = (0.72, 0.79, 0.92)
    exposure: float = 1.0
    noise: float = 1.0

    @property
    def direction(self) -> Array:
        """(3,) float64 unit vector to the sun."""
        a, e = np.deg2rad([self.azimuth, self.elevation])
        return np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])


@dataclass(frozen=True)
class PlaceView:
    """One picture to take: its file name, cam_from_world, PINHOLE camera, and light."""

    name: str
    pose: Pose
    camera: Camera
    is_query: bool
    light: Light


def camera_pose(position: Array, yaw: float, pitch: float, roll: float) -> Pose:
    """cam_from_world of a camera at the position (3,); yaw from the x axis, pitch upwards, radians."""
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    c, s = np.cos(roll), np.sin(roll)
    rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ [right, np.cross(forward, right), forward]
    return Pose.from_matrix(rotation, -rotation @ position)


def other_light(rng: Generator) -> Light:
    """Another hour of another day than the map's."""
    warm, bright = rng.uniform(-0.12, 0.18), rng.uniform(0.35, 1.1)
    return Light(
        azimuth=rng.uniform(170, 330),
        elevation=rng.uniform(28, 65),
        sun=tuple((np.array(Light.sun) * [1 + warm, 1, 1 - warm] * bright).tolist()),
        sky=tuple((np.array(Light.sky) * (1.5 - 0.5 * bright)).tolist()),
        exposure=rng.uniform(0.75, 1.25),
        noise=rng.uniform(1.0, 2.5),
    )


def walk(rng: Generator, half: Array, footprints: Array, counts: tuple[int, int], camera: Camera) -> list[PlaceView]:
    """Map views on two laps, the inner looking outwards and the outer across, then query views off both (counts)."""

    def free(position: Array) -> bool:
        return bool((np.hypot(*(footprints[:, :2] - position[:2]).T) > footprints[:, 2] + 0.8).all())

    views, stands = [], np.zeros((counts[0], 4))  # x, y, z, yaw
    hours = [other_light(rng) for _ in range(5)]
    for i in range(counts[0]):
        turn = 4 * np.pi * (i // 2) / counts[0]
        heading = np.array([np.cos(turn), np.sin(turn)]) * half
        position, target = rng.uniform(0.92, 1.08) * (0.40, 0.62)[i % 2] * heading, (1.5, -0.5)[i % 2] * heading
        while not free(position):  # between the laps nothing stands
            position = (1.03, 0.97)[i % 2] * position
        yaw = np.arctan2(*(target - position)[::-1]) + rng.normal(0, np.deg2rad(2))
        stands[i] = *position, rng.normal(1.6, 0.04), yaw
        pose = camera_pose(stands[i, :3], yaw, *rng.normal((0.05, 0), 0.025))
        views.append(PlaceView(f"map_{i:03d}.jpg", pose, camera, False, Light()))
    while len(views) < sum(counts):
        x, y, z, yaw = stands[rng.integers(counts[0])] + rng.normal(0, (0.6, 0.6, 0.06, 0))
        apart = np.hypot(*(stands[:, :2] - (x, y)).T).min()
        if free(np.array([x, y])) and 0.5 < apart < 1.5 and (np.abs((x, y)) < 0.68 * half).all():
            yaw += rng.choice([-1, 1]) * np.deg2rad(rng.uniform(5, 18))
            pose = camera_pose(np.array([x, y, z]), yaw, *rng.normal((0.05, 0), 0.05))
            number = len(views) - counts[0]
            views.append(PlaceView(f"query_{number:03d}.jpg", pose, camera, True, hours[number % len(hours)]))
    return views
