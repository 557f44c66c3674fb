"""The frames of a video that a map is built from: sharp ones, as far apart as the picture has moved.

Corners are followed from frame to frame. When the picture has moved far enough since the last keyframe, or too few
corners are left to tell, the sharpest frame of the second half of the way is the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.errors import InputError, OutputError
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.writing import atomic_write
from hfnet_edge.video import frame_count, frames_of

LONGEST = 480  # pixels of the side that sharpness and motion are measured on
MOVED = 0.06  # of the longer side, between keyframes
CORNERS = 200
LEFT = 0.4  # of the corners: below, the picture has moved whatever the rest says
QUALITY = 95  # of the JPEGs
LIST = "keyframes.csv"


@dataclass(frozen=True)
class Keyframe:
    """A frame that is kept.

    Attributes:
        name: of its file. number: of the frame, from 0. seconds: from the first frame.
        sharpness: variance of the picture's Laplacian, grey levels. moved: since the last one, of the longer side.
    """

    name: str
    number: int
    seconds: float
    sharpness: float
    moved: float


def write_keyframes(video: Path, folder: Path, progress: Report = silent) -> list[Keyframe]:
    """Writes the keyframes of a video into a folder that is there, and their list beside them.

    Raises:
        ImageError: the video does not decode. InputError: it gives fewer than two keyframes: the camera stands still.
        OutputError: they cannot be written.
    """
    total, kept = frame_count(video), list[Keyframe]()
    best: tuple[Keyframe, np.ndarray] | None = None
    window = _Window()
    k = -1
    for k, (seconds, frame) in enumerate(frames_of(video)):
        progress("keyframes", k, max(total, k + 1))
        grey = _reduced(frame)
        sharpness = float(cv2.Laplacian(grey, cv2.CV_64F).var())
        moved = window.moved(grey)
        now = Keyframe(f"frame_{k:06d}_t{seconds:.6f}.jpg", k, seconds, sharpness, moved)
        if not kept:
            kept.append(_written(folder, now, frame))
            continue
        if moved >= MOVED / 2 and (best is None or sharpness > best[0].sharpness):
            best = now, frame
        if moved >= MOVED and best is not None:
            kept.append(_written(folder, *best))
            best, window = None, _Window()
            window.moved(grey)
    progress("keyframes", k + 1, k + 1)
    if best is not None:
        kept.append(_written(folder, *best))
    if len(kept) < 2:
        raise InputError(f"nothing moves in {video}", "walk through the place while filming")
    with atomic_write(folder / LIST) as file:
        file.write(b"name,frame,seconds,sharpness,moved\n")
        for one in kept:
            file.write(f"{one.name},{one.number},{one.seconds:.6f},{one.sharpness:.1f},{one.moved:.4f}\n".encode())
    return kept


class _Window:
    """How far the picture has moved since the first frame that it was given."""

    def __init__(self) -> None:
        self._first: np.ndarray = np.zeros((0, 1, 2), np.float32)
        self._points: np.ndarray = self._first
        self._last: np.ndarray | None = None
        self._count = 0

    def moved(self, grey: np.ndarray) -> float:
        """Median way of the corners, as a share of the longer side; 1 where too few are left."""
        if self._last is None:
            found = cv2.goodFeaturesToTrack(grey, CORNERS, 0.01, 7)
            self._first = self._points = np.zeros((0, 1, 2), np.float32) if found is None else np.asarray(found)
            self._last, self._count = grey, len(self._points)
            return 0.0
        if len(self._points):
            there, ok, _ = cv2.calcOpticalFlowPyrLK(self._last, grey, self._points, None)  # type: ignore[call-overload]
            followed = ok.ravel() == 1
            self._points, self._first = there[followed], self._first[followed]
        self._last = grey
        if len(self._points) < max(8, LEFT * self._count):
            return 1.0
        return float(np.median(np.linalg.norm(self._points - self._first, axis=2)) / max(grey.shape))


def _reduced(frame: np.ndarray) -> np.ndarray:
    """Grey, its longer side `LONGEST` at most."""
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = min(1.0, LONGEST / max(grey.shape))
    return cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else grey


def _written(folder: Path, keyframe: Keyframe, frame: np.ndarray) -> Keyframe:
    good, content = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not good:
        raise OutputError(f"cannot write {keyframe.name}", "check the video's frame size")
    with atomic_write(folder / keyframe.name) as file:
        file.write(content.tobytes())
    return keyframe
