"""A video file as a session: frames by OpenCV's decoder, the device's motion from a file, an annotated copy."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from hfnet_edge.draw import draw_query
from hfnet_edge.errors import ImageError, InputError, OutputError
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import Localizer
from hfnet_edge.report import report_line
from hfnet_edge.session import Session, SessionPose
from hfnet_edge.shell.console import Report, silent
from hfnet_edge.shell.lists import pose_line
from hfnet_edge.shell.reading import read_text

SIDE = 960  # pixels of the annotated video's longer side, at most
TUM_LINE = "`timestamp tx ty tz qx qy qz qw`"


@dataclass(frozen=True)
class Trajectory:
    """A device's own motion; N poses.

    Attributes:
        times: (N,) float64 seconds, increasing. poses: ``session_from_cam`` at each.
    """

    times: np.ndarray
    poses: tuple[Pose, ...]

    @classmethod
    def read(cls, path: Path | str) -> Trajectory:
        """A trajectory in TUM's format, `TUM_LINE` a line, of the camera.

        Raises:
            InputError: it is missing, a line is no pose, or time goes back.
        """
        try:
            lines = read_text(path).splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise InputError(f"cannot read {path}: {e}", f"write {TUM_LINE} a line") from e
        times: list[float] = []
        poses: list[Pose] = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                time, *rest = (float(field) for field in line.split())
                tx, ty, tz, qx, qy, qz, qw = rest
                pose = Pose.from_values([qw, qx, qy, qz, tx, ty, tz])
            except ValueError as e:
                raise InputError(f"{path}, line {number} is not a pose ({e})", f"write {TUM_LINE}") from e
            if not math.isfinite(time) or (times and time <= times[-1]):
                raise InputError(f"{path}, line {number}: time goes from {times[-1:]} to {time}", "sort it by time")
            times.append(time)
            poses.append(pose)
        if not poses:
            raise InputError(f"{path} holds no poses", f"write {TUM_LINE} a line")
        return cls(np.array(times), tuple(poses))

    def at(self, time: float) -> Pose | None:
        """Between the two poses about a time; None outside."""
        after = int(np.searchsorted(self.times, time, side="left"))
        if after == len(self.times) or (after == 0 and time < self.times[0]):
            return None
        b = self.poses[after]
        if self.times[after] == time or after == 0:
            return b
        a = self.poses[after - 1]
        share = (time - self.times[after - 1]) / (self.times[after] - self.times[after - 1])
        sign = 1 if a.quaternion @ b.quaternion >= 0 else -1
        q = (1 - share) * a.quaternion + share * sign * b.quaternion  # of neighbours, which are nearly alike
        return Pose(q / np.linalg.norm(q), (1 - share) * a.translation + share * b.translation)


def frames_of(path: Path | str) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds from the first frame, and (H, W, 3) uint8 BGR, as the decoder gives them.

    Raises:
        ImageError: OpenCV does not read it, or it has no frames.
    """
    if not os.path.isfile(path):
        raise ImageError(f"there is no video {path}", "check the file's name")
    video = cv2.VideoCapture(str(path))
    try:
        rate, count = video.get(cv2.CAP_PROP_FPS), 0
        rate = rate if math.isfinite(rate) and rate > 0 else 30.0
        while True:
            there, frame = video.read()
            if not there:
                break
            yield count / rate, frame
            count += 1
    finally:
        video.release()
    if not count:
        raise ImageError(f"the video {path} does not decode", "give a file that OpenCV reads, as MP4 with H.264")


def frame_count(path: Path | str) -> int:
    """As the file's head says it, for progress; 0 where it does not."""
    video = cv2.VideoCapture(str(path))
    count = video.get(cv2.CAP_PROP_FRAME_COUNT)
    video.release()
    return int(count) if math.isfinite(count) and 0 < count < 1e9 else 0


def localize_video(
    localizer: Localizer,
    video: Path,
    camera: Camera,
    odometry: Trajectory | None = None,
    annotated: Path | None = None,
    rotation: int | None = None,
    write_pose: Callable[[str], None] = lambda _: None,
    write_report: Callable[[str], None] = lambda _: None,
    progress: Report = silent,
) -> tuple[int, int]:
    """Localizes a video's frames one after the other.

    Args:
        odometry: its first time is the video's first frame's. annotated: a video to be written. rotation: of the
            frames, see `Localizer.localize`.
        write_pose, write_report: given a line each.

    Returns:
        The frames that got a pose, and all.

    Raises:
        ImageError: the video does not decode. CameraError: it is of another size. OutputError: ``annotated`` cannot be
            written; what there was before is left.
    """
    session, done, found = Session(localizer), 0, 0
    total = frame_count(video)
    start = 0.0 if odometry is None else float(odometry.times[0])
    with _Copy(annotated) as copy:
        for time, frame in frames_of(video):
            progress("localizing", done, max(total, done + 1))
            pose = None if odometry is None else odometry.at(start + time)
            r = session.localize(frame, camera, pose, time=time, colors="bgr", rotation=rotation)
            name = f"frame_{done:06d}"
            if r.pose is not None:
                write_pose(pose_line(name, r.pose))
                found += 1
            write_report(json.dumps(frame_line(name, r, localizer.map.image_names, camera), allow_nan=False))
            if annotated is not None:
                shown = replace(r.frame, status=r.status, pose=r.pose, probability=r.probability)
                copy.add(draw_query(frame, camera, shown, "bgr", f"{name}, {how(r)}"))
            done += 1
        progress("localizing", done, done)
    return found, done


def how(r: SessionPose) -> str:
    """How a frame came to its pose, in a word."""
    if r.pose is None:
        return "lost"
    return "tracked" if r.tracked else "found" if r.way == 0 else f"carried over {r.way:.2g}"


def frame_line(name: str, r: SessionPose, image_names: tuple[str, ...], camera: Camera) -> dict:
    """A frame of a session, as `hfnet_edge.report.report_line` says one of its own."""
    line = report_line(name, r.frame, image_names, camera)
    known = None if not math.isfinite(r.way) else r.way
    of_session = {
        "status": r.status.value,
        "qvec": None if r.pose is None else r.pose.quaternion.tolist(),
        "tvec": None if r.pose is None else r.pose.translation.tolist(),
        "probability": r.probability,
        "wrong": r.wrong,
        "position_std": r.position_std if math.isfinite(r.position_std) else None,
        "rotation_std": r.rotation_std if math.isfinite(r.rotation_std) else None,
        "covariance": None if r.covariance is None else r.covariance.tolist(),
        "how": how(r),
        "way": known,
        "notes": list(r.notes),
    }
    return {**line, "frame_status": line["status"], **of_session}


class _Copy:
    """A video that is written beside its place, and moved there when it is whole."""

    def __init__(self, path: Path | None):
        self.path = path
        self._part = None if path is None else path.with_name(f"{path.stem}.part{path.suffix}")
        self._writer: cv2.VideoWriter | None = None

    def add(self, picture: np.ndarray) -> None:
        """One more frame, (H, W, 3) uint8 BGR, all of one size."""
        scale = min(1.0, SIDE / max(picture.shape[:2]))
        size = tuple(int(side * scale) // 2 * 2 for side in picture.shape[1::-1])
        if self._writer is None:
            self._writer = cv2.VideoWriter(str(self._part), cv2.VideoWriter.fourcc(*"mp4v"), 30.0, size)  # type: ignore[arg-type]
            if not self._writer.isOpened():
                raise OutputError(f"cannot write the video {self.path}", "name an .mp4 in a folder that can be written")
        self._writer.write(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))

    def __enter__(self) -> _Copy:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._writer is None or self._part is None or self.path is None:
            return
        self._writer.release()
        if kind is not None:
            with suppress(OSError):
                os.remove(self._part)
            return
        try:
            os.replace(self._part, self.path)
        except OSError as e:
            raise OutputError(f"cannot write {self.path}: {e.strerror}", "name another file") from e
