"""A session: frames of one camera with the device's own motion, and where all of it is in the map.

The device knows how it moved (`session_from_cam`, its odometry), precisely and with a drift; the map knows where that
is. What a session seeks is the one thing between them, `map_from_session`, which hardly changes:

    lost ─> each frame is searched for in the whole map; together with the frames before it, as one rig
    found ─> landmarks are sought only near where the last pose puts them, which is several times cheaper; what the
             frames agree on moves `map_from_session`; between fixes its uncertainty grows as the odometry drifts,
             and one frame in `RETRY` is searched for in the whole map

A frame that contradicts the session does not move it, until `CONFIRMED` in a row agree on another place.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np

from hfnet_edge.clock import Clock
from hfnet_edge.errors import CameraError, HFNetEdgeError, InputError
from hfnet_edge.geometry import Camera, Pose, checked_pose
from hfnet_edge.image.frame import AnyImage, Colors, open_any
from hfnet_edge.image.photo import photo_of
from hfnet_edge.localizer import Localizer, track_query, view_of
from hfnet_edge.methods.method import Query
from hfnet_edge.pose.refinement import Uncertain, position_std, rotation_std
from hfnet_edge.result import LocalizationResult, Status
from hfnet_edge.rig import View, adjoint, localize_views, refine_views
from hfnet_edge.shell.one_thread import one_thread

CONFIRMED = 3  # fixes in a row that contradict the session and agree with each other, until it follows them
SMOOTHED = 150  # inliers of a frame that have a say in the next ones' poses, about
RETRY = 5  # frames that are not tracked, of which one is searched for in the whole map
CERTAIN = 3.0  # standard deviations between two poses that are one
SLACK_DEPTH, SLACK_DEGREES = 0.02, 1.0  # besides: of the scene's depth, and degrees
NARROWEST, WIDEST = 24.0, 64.0  # pixels of the network's input, about where a landmark should be
LOST_DEPTH, LOST_DEGREES = 0.1, 5.0  # standard deviations of a pose that is not given any more
FASTEST = 100.0  # metres between two frames: farther is a jump of the odometry, after which nothing is known

STATE = ("_fix", "_others", "_missed", "_last", "_way", "_time")  # of a session, beside its window
_HERE = Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))


@dataclass(frozen=True)
class Odometry:
    """How a device's own motion drifts, standard deviations.

    Attributes:
        distance: share of the way. rotation: degrees per metre. metres: of a unit of the map.
    """

    distance: float = 0.01
    rotation: float = 0.2
    metres: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (math.isfinite(value) and value >= 0) or (name == "metres" and not value):
                raise InputError(f"odometry's {name} is {value}", "give a number above 0")

    def drift(self, way: float) -> tuple[float, float]:
        """Over a way in map units: position, map units; rotation, radians."""
        return self.distance * way, math.radians(self.rotation * way * self.metres)


@dataclass(frozen=True)
class SessionPose(Uncertain):
    """What a session knows after a frame.

    Attributes:
        status: LOCALIZED where ``pose`` is given, otherwise that of the frame.
        pose: cam_from_world of the frame. map_from_session: to the world, None while nothing was found.
        covariance: (6, 6) of ``pose``, as `LocalizationResult.covariance`.
        probability, wrong: as of `LocalizationResult`; what the last fix had.
        way: map units since that fix.
        tracked: landmarks were sought only near where they were expected.
        frame: what the frame alone says.
        notes: why the frame was not followed, or what began anew.
    """

    status: Status
    pose: Pose | None
    map_from_session: Pose | None
    covariance: np.ndarray | None
    probability: float
    wrong: float
    way: float
    tracked: bool
    frame: LocalizationResult
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Seen:
    """A frame of the window: ``cam_from_session``, the odometer, and what the frame alone says."""

    query: Query
    camera: Camera
    cam_from_session: Pose
    way: float
    result: LocalizationResult
    view: View | None = None


@dataclass(frozen=True)
class _Fix:
    """Where a camera was, and so the session; ``cam_from_map`` is relative to the map's origin, ``covariance`` its."""

    cam_from_map: Pose
    cam_from_session: Pose
    covariance: np.ndarray
    probability: float
    wrong: float
    way: float
    depth: float

    @property
    def session_from_map(self) -> Pose:
        return self.cam_from_session.inverse @ self.cam_from_map

    def at(self, cam_from_session: Pose, drift: tuple[float, float]) -> tuple[Pose, np.ndarray]:
        """The pose of a later camera, and its covariance with the odometry's drift since."""
        moved = cam_from_session @ self.cam_from_session.inverse
        change = adjoint(moved)
        position, rotation = drift
        grown = np.diag([rotation**2 / 3] * 3 + [position**2 / 3] * 3)
        return moved @ self.cam_from_map, change @ self.covariance @ change.T + grown


class Session:
    """Localizes frames one after the other; for one thread, but for `submit`, which any may call.

    In a place in tiles landmarks are sought in the tile of the view nearest to the expected pose. Frames that say
    little alone are not taken together there.

    Args:
        localizer: of the map; sessions may share one.
        window: frames that are taken together, 1 to 100.
        odometry: how the device's own motion drifts.
        on_pose: called by the worker with what came of each frame that was submitted and taken; or with the error.

    Raises:
        InputError: ``window`` is out of its bounds.
    """

    def __init__(
        self,
        localizer: Localizer,
        window: int = 10,
        odometry: Odometry | None = None,
        on_pose: Callable[[SessionPose | HFNetEdgeError], None] | None = None,
    ):
        if not 1 <= window <= 100:
            raise InputError(f"window is {window}", "give 1 to 100 frames")
        self.localizer, self.odometry, self.on_pose = localizer, odometry or Odometry(), on_pose
        self._window: deque[_Seen] = deque(maxlen=window)
        self._turn = threading.Condition()
        self._waiting: tuple[tuple, dict] | None = None
        self._worker: threading.Thread | None = None
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Forgets everything: the next frame is the first."""
        self._window.clear()
        self._fix: _Fix | None = None
        self._others: list[_Fix] = []  # in a row, that contradict it and agree with each other
        self._missed = 0  # frames since the last tracked one
        self._last: Pose | None = None  # the last frame's cam_from_session
        self._way, self._time = 0.0, -math.inf

    def localize(
        self,
        image: AnyImage,
        camera: Camera,
        session_from_cam: Pose | None = None,
        *,
        time: float | None = None,
        colors: Colors | None = None,
        rotation: int | None = None,
    ) -> SessionPose:
        """What is known after one more frame. Where it raises, the session is as it was before.

        Args:
            image, camera, colors, rotation: see `Localizer.localize`.
            session_from_cam: the device's own pose, to the frame in which its odometry counts, lengths in map units.
                None: there is no odometry; landmarks are sought near where the last pose puts them, and nothing is
                carried on.
            time: seconds, increasing.

        Raises:
            InputError: the pose is none, or the time goes back; others as of `Localizer.localize`.
        """
        if not isinstance(camera, Camera):
            raise CameraError(f"{camera!r} is not a Camera", 'write Camera.parse("PINHOLE width height fx fy cx cy")')
        checked = None if session_from_cam is None else checked_pose("session_from_cam", session_from_cam)
        self._check_time(time)
        clock, method = Clock(), self.localizer.method
        with one_thread():
            with clock("load"):
                photo = photo_of(open_any(image, colors, rotation), method.input_size, camera)
            return self.localize_query(method.look(photo, clock), camera, checked, clock, time)

    def localize_query(
        self,
        query: Query,
        camera: Camera,
        session_from_cam: Pose | None,
        clock: Clock | None = None,
        time: float | None = None,
    ) -> SessionPose:
        """As `localize`, of a frame that the localizer's method has looked at."""
        self._check_time(time)
        before = {name: getattr(self, name) for name in STATE}
        window = list(self._window)
        try:
            return self._followed(query, camera, session_from_cam, clock or Clock(), time)
        except BaseException:
            vars(self).update(before)
            self._window.clear()
            self._window.extend(window)
            raise

    def _followed(
        self, query: Query, camera: Camera, session_from_cam: Pose | None, clock: Clock, time: float | None
    ) -> SessionPose:
        cam_from_session = None if session_from_cam is None else session_from_cam.inverse
        self._time = self._time if time is None else time
        notes = self._move(cam_from_session)
        localizer, tracked = self.localizer, False
        here = cam_from_session or _HERE
        result = None
        if self._fix is not None:
            expected, radius = self._fix.cam_from_map, WIDEST
            if cam_from_session is not None:
                expected, covariance = self._fix.at(here, self.odometry.drift(self._way - self._fix.way))
                radius = _radius(covariance, camera, self._fix.depth) / query.pixel
            radius = float(np.clip(radius, NARROWEST, WIDEST)) * query.pixel
            method, there = localizer.near(expected, self._fix.depth)
            near = track_query(method, query, camera, there, self._fix.depth, radius, clock)
            tracked = near.status is Status.LOCALIZED
            self._missed = 0 if tracked else self._missed + 1
            carried = cam_from_session is not None and not self._others and self._missed % RETRY != 1
            result = near if tracked or carried else None
        if result is None:
            result = localizer.localize_query(query, camera, clock=clock)
        result = replace(result, milliseconds=clock.milliseconds)
        seen = _Seen(query, camera, here, self._way, result)
        if cam_from_session is None:
            self._fix = self._fix_of(seen)
            return self._answer(seen, tracked, notes)
        if (found := self._fix_of(seen)) is not None:
            notes += self._follow(found, seen)
        else:
            self._window.append(self._with_view(seen))
            if self._fix is None and len(self._window) > 1:
                self._fix = self._together()
        return self._answer(seen, tracked, notes)

    # Between frames

    def _check_time(self, time: float | None) -> None:
        if time is not None and not (math.isfinite(time) and time > self._time):
            raise InputError(f"time is {time}, after {self._time}", "give seconds that increase, or none")

    def _move(self, cam_from_session: Pose | None) -> tuple[str, ...]:
        """Counts the way; where the odometry jumped, what was known before is of another session."""
        before, self._last = self._last, cam_from_session
        if cam_from_session is None or before is None:
            if cam_from_session is not None and self._fix is not None:  # it was found without odometry
                self._fix = None
            return ()
        way = float(np.linalg.norm((cam_from_session @ before.inverse).center))
        if way * self.odometry.metres > FASTEST:
            time, last = self._time, self._last
            self.reset()
            self._time, self._last = time, last
            return (f"the odometry jumped by {way:.0f}: the session begins anew",)
        self._way += way
        return ()

    def _fix_of(self, seen: _Seen) -> _Fix | None:
        r = seen.result
        if r.pose is None or r.covariance is None:
            return None
        at = r.pose @ Pose(_HERE.quaternion, self.localizer.map.origin)
        return _Fix(at, seen.cam_from_session, r.covariance, r.probability, r.wrong, seen.way, r.depth)

    def _with_view(self, seen: _Seen) -> _Seen:
        """With what the method finds in each candidate place: frames that say little alone may do so together."""
        if self._fix is not None or seen.query.features is None or not len(seen.query.features.keypoints):
            return seen
        if self.localizer.place is not None:  # a rig is sought in one map
            return seen
        return replace(seen, view=view_of(self.localizer.method, seen.query, seen.camera, seen.cam_from_session))

    def _follow(self, found: _Fix, seen: _Seen) -> tuple[str, ...]:
        """Takes a fix in, or keeps it in mind where it contradicts the session."""
        if self._fix is None or self._agree(self._fix, found):
            self._others = []
            self._window.append(seen)
            self._fix = self._smoothed(found)
            return ()
        last = self._others[-1] if self._others else found
        self._others = [*self._others, found] if self._agree(last, found) else [found]
        if len(self._others) < CONFIRMED:
            return ("this frame contradicts the session, which does not follow it yet",)
        self._others = []
        self._window.clear()
        self._window.append(seen)
        self._fix = found
        return (f"{CONFIRMED} frames contradict the session: it begins anew where they are",)

    def _agree(self, before: _Fix, found: _Fix) -> bool:
        """Whether a fix is where an earlier one and the odometry expect it."""
        pose, covariance = before.at(found.cam_from_session, self.odometry.drift(found.way - before.way))
        both = covariance + found.covariance
        turned = np.clip((np.trace(pose.rotation @ found.cam_from_map.rotation.T) - 1) / 2, -1, 1)
        away = float(np.linalg.norm(pose.center - found.cam_from_map.center))
        return bool(
            away <= CERTAIN * position_std(both) + SLACK_DEPTH * found.depth
            and math.degrees(math.acos(turned)) <= CERTAIN * rotation_std(both) + SLACK_DEGREES
        )

    def _smoothed(self, found: _Fix) -> _Fix:
        """A fix in which all localized frames of the window have a say, less the longer the way since."""
        kept = [s for s in self._window if s.result.pose is not None and s.result.matches is not None]
        if len(kept) < 2:
            return found
        origin, views, matches = self.localizer.map.origin, [], []
        for s in kept:
            r = s.result
            assert r.matches is not None and r.inlier_mask is not None
            inliers = r.matches.take(np.flatnonzero(r.inlier_mask)[:: max(1, r.inliers // SMOOTHED)])
            matches.append(replace(inliers, xyz=inliers.xyz - origin))
            assert s.query.features is not None, "it was localized by them"
            max_error = self.localizer.config.pose.max_error * s.query.pixel
            views.append(self._seen_from(found, s, View(s.query.features, s.camera, _HERE, (), max_error)))
        pose, _ = refine_views(found.cam_from_map, views, matches, found.depth)
        moved = replace(found, cam_from_map=pose)
        return moved if self._agree(found, moved) else found

    def _together(self) -> _Fix | None:
        """A fix by all frames of the window, none of which is localized alone."""
        newest = self._window[-1]
        views = [self._seen_from(newest, s, s.view) for s in self._window if s.view is not None]
        if len(views) < 2:
            return None
        r = localize_views(self.localizer.map, views, self.localizer.config)
        return self._fix_of(replace(newest, result=r))

    def _seen_from(self, to: _Seen | _Fix, seen: _Seen, view: View) -> View:
        """A frame's view as a camera of the rig whose frame is the camera of a later frame."""
        drift = self.odometry.drift(to.way - seen.way)
        return replace(view, cam_from_rig=seen.cam_from_session @ to.cam_from_session.inverse, drift=drift)

    def _answer(self, seen: _Seen, tracked: bool, notes: tuple[str, ...]) -> SessionPose:
        fix, r = self._fix, seen.result
        if fix is None:
            status = Status.REJECTED if r.status is Status.LOCALIZED else r.status
            return SessionPose(status, None, None, None, 0.0, 1.0, math.inf, False, r, notes)
        way = self._way - fix.way
        pose, covariance = fix.at(seen.cam_from_session, self.odometry.drift(way))
        if position_std(covariance) > LOST_DEPTH * fix.depth or rotation_std(covariance) > LOST_DEGREES:
            self._fix = None
            notes += (f"the last fix is {way:.3g} ago, too far to be sure",)
            return self._answer(seen, tracked, notes)
        tolerance = self.localizer.config.tolerance.at(fix.depth)
        within = _within(position_std(covariance), tolerance[0]) * _within(rotation_std(covariance), tolerance[1])
        to_world = Pose(_HERE.quaternion, -self.localizer.map.origin)
        return SessionPose(
            Status.LOCALIZED,
            pose @ to_world,
            (fix.session_from_map @ to_world).inverse,
            covariance,
            round(min(fix.probability, within), 6),
            fix.wrong,
            way,
            tracked,
            r,
            notes,
        )

    # Beside the camera's thread

    def submit(self, *frame: Any, **named: Any) -> None:
        """Takes a frame, as `localize` does, and returns at once. A worker localizes it and calls ``on_pose``; of
        frames that come while it works only the latest is kept. Pixels in memory are not copied: leave them as they are
        until they were taken, or give a copy.

        Raises:
            InputError: there is no ``on_pose``, or the session is closed.
        """
        if self.on_pose is None:
            raise InputError("the session has no on_pose", "give one, or call localize")
        with self._turn:
            if self._closed:
                raise InputError("the session is closed", "open another")
            self._waiting = frame, named
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="hfnet-session", daemon=True)
                self._worker.start()
            self._turn.notify()

    def close(self) -> None:
        """Ends the worker after the frame that it has; one that waits is dropped."""
        with self._turn:
            self._closed, self._waiting = True, None
            self._turn.notify()
        if self._worker is not None and self._worker is not threading.current_thread():
            self._worker.join()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        assert self.on_pose is not None
        while True:
            with self._turn:
                while self._waiting is None and not self._closed:
                    self._turn.wait()
                if self._waiting is None:
                    return
                (frame, named), self._waiting = self._waiting, None
            try:
                found: SessionPose | HFNetEdgeError = self.localize(*frame, **named)
            except HFNetEdgeError as e:
                found = e
            self.on_pose(found)


def _radius(covariance: np.ndarray, camera: Camera, depth: float) -> float:
    """Pixels of the image about where a landmark should be, in which it is."""
    angle = math.hypot(math.radians(rotation_std(covariance)), position_std(covariance) / depth)
    return CERTAIN * max(camera.focal) * angle


def _within(spread: float, tolerance: float) -> float:
    """The probability that three normal errors, of which ``spread`` is the root of the expected square, are within."""
    if spread <= 0:
        return 1.0
    x = tolerance / spread * math.sqrt(3)
    return math.erf(x / math.sqrt(2)) - math.sqrt(2 / math.pi) * x * math.exp(-x * x / 2)
