"""This module draws a localization: the query with its inliers."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.geometry import Camera
from hfnet_edge.image.image_file import open_image
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell.writing import atomic_write

DRAWABLE = 1e5  # pixels from the image's corner; OpenCV draws with 32 bits
MAX_PIXELS = 1 << 25  # above which a JPEG is drawn on at a half, quarter or eighth
FAR, NEAR = np.array([200, 120, 40]), np.array([60, 200, 255])  # BGR, by depth


def draw_query(image: Path, camera: Camera, result: LocalizationResult) -> np.ndarray:
    """The query (in the camera's orientation) with inliers coloured by depth, a line to where the pose projects their
    landmarks, rejected matches as faint dots, and a caption. (H, W, 3) uint8 BGR.

    Raises:
        ImageError, CameraError: see `hfnet_edge.image.photo.load_photo`.
    """
    file = open_image(image)
    picture = cv2.cvtColor(file.rgb(camera, math.sqrt(camera.width * camera.height / MAX_PIXELS)), cv2.COLOR_RGB2BGR)
    scale = picture.shape[1] / camera.width

    def at(x: float, y: float) -> tuple[int, int]:
        return round(scale * x), round(scale * y)

    size = max(1.0, max(picture.shape[:2]) / 640)
    radius, line = round(2.5 * size), max(1, round(size))
    picture = cv2.addWeighted(
        picture, 0.75, cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), 0.25, 0
    )
    if result.matches is not None and len(result.matches):
        inliers = np.zeros(len(result.matches), bool) if result.inlier_mask is None else result.inlier_mask
        for x, y in result.matches.xy[~inliers]:
            cv2.circle(picture, at(x, y), max(1, radius // 2), (150, 150, 150), -1, cv2.LINE_AA)
        if result.pose is not None and inliers.any():
            xyz = result.pose.transform(result.matches.xyz[inliers])
            depth = np.argsort(np.argsort(-xyz[:, 2])) / max(1, len(xyz) - 1)
            for (x, y), (u, v), near in zip(result.matches.xy[inliers], camera.project(xyz), depth, strict=True):
                if not (abs(u) < DRAWABLE and abs(v) < DRAWABLE):  # behind the camera, where it is NaN, too
                    continue
                color = tuple(float(c) for c in FAR + near * (NEAR - FAR))
                cv2.line(picture, at(x, y), at(u, v), (80, 80, 255), line, cv2.LINE_AA)
                cv2.circle(picture, at(x, y), radius, color, -1, cv2.LINE_AA)
    if result.status is Status.LOCALIZED:
        took = sum(result.milliseconds.values())
        caption = f"{result.inliers} inliers of {len(result.matches or ())} matches, {took:.0f} ms"
    else:
        caption = f"no pose: {result.status.value}, {result.inliers} inliers"
    height = round(26 * size)
    bar = np.full((height, picture.shape[1], 3), 32, np.uint8)
    cv2.putText(
        bar, f"{image.name}   {caption}", (round(8 * size), round(18 * size)), cv2.FONT_HERSHEY_SIMPLEX, 0.48 * size,
        (235, 235, 235), line, cv2.LINE_AA,
    )  # fmt: skip
    return np.vstack([picture, bar])


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a JPEG or PNG atomically. Raises OutputError."""
    with atomic_write(path) as file:
        file.write(cv2.imencode(path.suffix, picture)[1].tobytes())
