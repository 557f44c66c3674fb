"""This module draws a localization: the query with its inliers."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.geometry import Camera
from hfnet_edge.image.frame import AnyImage, Colors, open_any
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.shell.writing import atomic_write

DRAWABLE = 1e5  # pixels from the image's corner; OpenCV draws with 32 bits
MAX_PIXELS = 1 << 25  # above which a JPEG is drawn on at a half, quarter or eighth
RIGHT, MIDDLE, WRONG = (np.array(color) for color in ((80, 200, 60), (40, 210, 240), (50, 60, 230)))  # BGR, by error
GREY, LIGHT, DARK = (150, 150, 150), (235, 235, 235), (32, 32, 32)


def draw_query(
    image: AnyImage, camera: Camera, result: LocalizationResult, colors: Colors | None = None, name: str = ""
) -> np.ndarray:
    """The query (in the camera's orientation) with inliers coloured by reprojection error, a line to where the pose
    projects their landmarks, rejected matches as faint dots, and below it the scale of the colours and how far the pose
    can be trusted. Of a pose that was refused the inliers are rings. (H, W, 3) uint8 BGR.

    Args:
        image, colors: see `hfnet_edge.localizer.Localizer.localize`.
        camera: of the query as it was stated; the pose is drawn with ``result.camera``.
        name: that is written below; the file's where there is none.

    Raises:
        ImageError, CameraError: see `hfnet_edge.image.photo.load_photo`.
    """
    file = open_any(image, colors)
    picture = cv2.cvtColor(file.rgb(camera, math.sqrt(camera.width * camera.height / MAX_PIXELS)), cv2.COLOR_RGB2BGR)
    scale = picture.shape[1] / camera.width

    def at(x: float, y: float) -> tuple[int, int]:
        return round(scale * x), round(scale * y)

    size = max(1.0, max(picture.shape[:2]) / 640)
    radius, line = round(2.5 * size), max(1, round(size))
    picture = cv2.addWeighted(
        picture, 0.75, cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), 0.25, 0
    )
    worst = math.nan
    if result.matches is not None and len(result.matches):
        inliers = np.zeros(len(result.matches), bool) if result.inlier_mask is None else result.inlier_mask
        for x, y in result.matches.xy[~inliers]:
            cv2.circle(picture, at(x, y), max(1, radius // 2), GREY, -1, cv2.LINE_AA)
        if result.pose is None:
            for x, y in result.matches.xy[inliers]:
                cv2.circle(picture, at(x, y), radius, LIGHT, line, cv2.LINE_AA)
        elif inliers.any():
            seen = result.matches.xy[inliers]
            falls = (result.camera or camera).project(result.pose.transform(result.matches.xyz[inliers]))
            errors = np.linalg.norm(falls - seen, axis=1)
            drawn = np.abs(falls).max(axis=1) < DRAWABLE  # not behind the camera, where it is NaN
            worst = max(float(errors[drawn].max(initial=0.0)), 1e-9)
            for row in np.flatnonzero(drawn)[np.argsort(errors[drawn])]:  # the worst on top
                cv2.line(picture, at(*seen[row]), at(*falls[row]), LIGHT, line, cv2.LINE_AA)
                cv2.circle(picture, at(*seen[row]), radius, error_color(errors[row] / worst), -1, cv2.LINE_AA)
    return np.vstack(
        [picture, _caption(f"{name or Path(file.name).name}   {caption(result)}", worst, picture.shape[1], size, line)]
    )


def caption(result: LocalizationResult) -> str:
    """The line below the picture."""
    if result.status is not Status.LOCALIZED:
        return f"no pose: {result.status.value}, {result.inliers} inliers"
    return (
        f"probability {result.probability:.3f}   +- {result.position_std:.2g} units, {result.rotation_std:.2g} deg   "
        f"{result.inliers} inliers"
    )


def error_color(share: float) -> tuple[float, ...]:
    """BGR of a reprojection error, as a share of the largest: from green by yellow to red."""
    low, high, at = (RIGHT, MIDDLE, 2 * share) if share < 0.5 else (MIDDLE, WRONG, 2 * share - 1)
    return tuple(float(c) for c in low + at * (high - low))


def _caption(text: str, worst: float, width: int, size: float, line: int) -> np.ndarray:
    """A bar with a text, and at its right the scale of the colours, to ``worst`` pixels; NaN: no scale."""
    bar = np.full((round(26 * size), width, 3), DARK, np.uint8)

    def write(words: str, x: float, room: float) -> None:
        font, height = cv2.FONT_HERSHEY_SIMPLEX, 0.48 * size
        wide = cv2.getTextSize(words, font, height, line)[0][0]
        height *= min(1.0, max(room, 1.0) / max(wide, 1))
        cv2.putText(bar, words, (round(x), round(18 * size)), font, height, LIGHT, line, cv2.LINE_AA)

    scale, label = 60 * size, 52 * size
    if math.isnan(worst) or width < 4 * (scale + label):
        write(text, 8 * size, width - 16 * size)
        return bar
    left = width - scale - label
    for x in range(round(scale)):
        cv2.line(bar, (round(left) + x, round(9 * size)), (round(left) + x, round(17 * size)), error_color(x / scale))
    write(f"{worst:.2g} px", width - label + 4 * size, label - 8 * size)
    write(text, 8 * size, left - 20 * size)
    return bar


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes a JPEG or PNG atomically. Raises OutputError."""
    with atomic_write(path) as file:
        file.write(cv2.imencode(path.suffix, picture)[1].tobytes())
