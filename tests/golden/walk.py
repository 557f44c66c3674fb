"""A small place that a device walks through, drawn by code: priors, rigs, and sessions.

Landmarks in a box, cameras on a circle around it. A frame's features are where landmarks fall, with some noise, or
nothing of the place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from golden import reader
from golden.folder import Folder
from golden.matching import map_file
from golden.tracking import track_cases
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.map.georeference import Earth
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.refinement import retract
from hfnet_maps.content import DescribedMap, MapNetworks
from hfnet_maps.pack.writer import lay_out, to_map

CAMERA = Camera("PINHOLE", 640, 480, (500.0, 505.0, 321.0, 239.0))
WIDE = Camera("SIMPLE_RADIAL", 640, 480, (400.0, 320.0, 240.0, -0.1))
PIXEL = 1.25  # of the network's input, in pixels of the image
LANDMARKS, IMAGES, DIM = 64, 40, 32
GONE, SAW = 336, range(24, 29)  # landmarks that are there no more, which only these images saw
CROWD = 230.0  # degrees of the circle, where those are expected
MIDDLE = np.array([30.0, -20.0, 5.0])
RADIUS = 12.0
STEP = 1.5  # degrees of the circle from frame to frame: 0.3 map units
NOISE = 0.6  # pixels
TOO_FEW = 5  # keypoints, with which no frame is localized alone whatever chance makes of them
TILTED = np.array([0.9, 0.1, 0.3, -0.2]) / np.sqrt(0.95)
EARTH = Earth(55.7, 13.19, 40.0, 2.5, Pose(TILTED, np.array([-100.0, 200.0, -5.0])), 1.0)
HERE = Pose(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3))


def at(degrees: float) -> Pose:
    """A camera on the circle that looks at its middle; z is up."""
    angle = np.radians(degrees)
    forward = np.array([-np.cos(angle), -np.sin(angle), -0.1])
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return Pose.from_matrix(rotation, -rotation @ (MIDDLE - RADIUS * forward))


def turned(axis: int, degrees: float, translation: Sequence[float] = (0.0, 0.0, 0.0)) -> Pose:
    """A turn about one of the camera's axes, and a step."""
    half = np.radians(degrees) / 2
    return Pose(np.array([np.cos(half), *(np.sin(half) * np.eye(3)[axis])]), np.array(translation))


def looks() -> np.ndarray:
    """(L, D) float64 of unit length, what landmarks look like."""
    rows = np.random.default_rng(20).normal(size=(LANDMARKS + GONE, DIM))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def globals_() -> np.ndarray:
    """(M, 16) int8."""
    return quantize(np.random.default_rng(21).normal(size=(IMAGES, 16)))


def walk_map() -> LocalizationMap:
    """The map: every image sees all landmarks that fall into it."""
    xyz = np.random.default_rng(22).uniform(-4, 4, (LANDMARKS + GONE, 3)) + MIDDLE
    poses = [at(9.0 * i) for i in range(IMAGES)]
    pairs = sorted(
        (int(i), image) for image, pose in enumerate(poses) for i in np.flatnonzero(within(pose, xyz))
        if i < LANDMARKS or image in SAW
    )  # fmt: skip
    landmarks, images = np.array(pairs, np.int64).T
    names = tuple(f"{'north' if i < 30 else 'south'}/{i:02d}.jpg" for i in range(IMAGES))
    content = DescribedMap(
        MapNetworks("made by code", "0" * 32, "none", DIM, 16), names, tuple(poses), globals_(), xyz, landmarks,
        images, np.arange(LANDMARKS + GONE), quantize(looks()), earth=EARTH,
    )  # fmt: skip
    return to_map(lay_out(content))


def within(pose: Pose, xyz: np.ndarray, camera: Camera = CAMERA) -> np.ndarray:
    """(L,) bool: what falls into the image."""
    xy = camera.project(pose.transform(xyz))
    return np.asarray(((xy > 0) & (xy < (camera.width, camera.height))).all(axis=1))


class Frames:
    """Draws what frames show, and keeps it in the folder, each once.

    Args:
        m: the map, whose landmarks they show.
    """

    def __init__(self, folder: Folder, m: LocalizationMap):
        self.folder, self.m = folder, m
        self.xyz = m.positions(np.arange(LANDMARKS)) + m.origin
        self.files: dict[str, dict[str, Any]] = {}
        self.shown: dict[str, dict[str, Any]] = {}

    def draw(self, name: str, pose: Pose, some: int = LANDMARKS, others: int = 6, camera: Camera = CAMERA) -> str:
        """A frame at ``pose`` with so many landmarks, and keypoints of nothing; its name."""
        if name not in self.files:
            rng = np.random.default_rng(100 + len(self.files))
            seen = np.sort(rng.permutation(np.flatnonzero(within(pose, self.xyz, camera)))[:some])
            xy = camera.project(pose.transform(self.xyz[seen])) + rng.normal(0, NOISE, (len(seen), 2))
            size = camera.width, camera.height
            near = looks()[seen] + rng.normal(0, 0.03, (len(seen), DIM))
            image = np.argmin([np.linalg.norm(self.m.pose(i).center - pose.center) for i in range(IMAGES)])
            keypoints = np.vstack([xy, rng.uniform(0, size, (others, 2))])
            self.keep(name, keypoints, quantize(np.vstack([near, rng.normal(size=(others, DIM))])), globals_()[image])
        return name

    def keep(self, name: str, keypoints: np.ndarray, descriptors: np.ndarray, global_descriptor: np.ndarray) -> None:
        self.shown[name] = {
            "keypoints": keypoints, "descriptors": descriptors, "global_descriptor": global_descriptor
        }  # fmt: skip
        self.files[name] = {
            key: self.folder.array(f"walk/{name}/{key}", value, "session", f"drawn by code: {key}")
            for key, value in self.shown[name].items()
        }

    def given(self, frames: Sequence[str], told: Sequence[Mapping[str, Any]]) -> tuple[list[Any], list[Any]]:
        """Frames and what is told of each, with arrays as names of files, and as they are."""
        both = list(zip(frames, told, strict=True))
        return [{**self.files[f], **t} for f, t in both], [{**self.shown[f], **t} for f, t in both]


def walk_cases(folder: Folder) -> None:
    """The map, and all stages in it."""
    m = walk_map()
    folder.files[map_file("walk")] = bytes(m.file.data)
    frames = Frames(folder, m)
    pose = at(CROWD)
    name = frames.draw("crowd", pose)
    session_cases(frames)
    rig_cases(frames)
    prior_cases(frames)
    features = reader.shown(**frames.shown[name], pixel=PIXEL).features
    near = pose @ Pose(HERE.quaternion, m.origin)
    arrays = {**frames.files[name], "pixel": PIXEL}
    track_cases(folder, f"walk/{name}", "walk", m, CAMERA, features, arrays, near, RADIUS)


def numbers(pose: Pose | None) -> dict[str, Any] | None:
    """As a case has them."""
    return None if pose is None else reader.plain_pose(pose)


def motion(poses: Sequence[Pose], drift: Sequence[float] = (1e-4, -2e-4, 1e-4, 2e-3, -1e-3, 1e-3)) -> list[Pose]:
    """session_from_cam of an odometry that is off by ``drift`` a frame; the session's frame is somewhere."""
    start = turned(1, 40, (3.0, -1.0, 2.0))
    return [retract(start @ poses[0] @ pose.inverse, i * np.array(drift)) for i, pose in enumerate(poses)]


def session_case(
    frames: Frames,
    name: str,
    shown: Sequence[str],
    told: Sequence[Pose | None],
    odometry: Sequence[float] = (0.01, 0.2, 1.0),
    window: int = 10,
    pixel: float = PIXEL,
) -> None:
    """A session of frames, and what is known after each."""
    stored, known = frames.given(shown, [{"session_from_cam": numbers(pose)} for pose in told])
    how = {"camera": str(CAMERA), "pixel": pixel, "odometry": list(odometry), "window": window, "solver": "usac"}
    expected = reader.walked(frames.m, frames=known, **how)
    given = {"map": map_file("walk"), **how, "frames": stored}
    frames.folder.case("session", f"session/{name}", given, expected)


def session_cases(frames: Frames) -> None:
    """Found, tracked, carried, contradicted, lost; without odometry, and with one that jumps."""
    poses = [at(STEP * i) for i in range(24)]
    seen = [frames.draw(f"seen{i}", poses[i]) for i in range(6)]
    later = [frames.draw(f"seen{i}", poses[i]) for i in (14, 15)]
    elsewhere = [frames.draw(f"elsewhere{i}", at(150 + STEP * i)) for i in range(4)]
    nothing = [frames.draw(f"nothing{i}", at(80.0), 0, TOO_FEW) for i in range(2)]
    few = [frames.draw(f"few{i}", poses[i], TOO_FEW, 0) for i in range(5)]
    empty = "empty"
    frames.keep(empty, np.zeros((0, 2)), np.zeros((0, DIM), np.int8), globals_()[0])
    moved = motion(poses)
    blank = [nothing[i % 2] for i in range(8)]
    session_case(frames, "carried", [*seen, *blank, *later], moved[:16], window=4)
    session_case(frames, "empty", [empty, seen[1], empty, empty, seen[4]], moved[:5], window=2)
    session_case(frames, "moved_away", [*seen[:3], *elsewhere, elsewhere[1]], moved[:8])
    session_case(frames, "disagreeing", [*seen[:3], elsewhere[0], seen[4], *elsewhere[1:]], moved[:8])
    session_case(frames, "few_together", [*few, *seen[5:6]], moved[:6])
    session_case(frames, "few_then_seen", [*few[:2], seen[2], few[3], few[4]], moved[:5])
    alone = [*seen[:3], nothing[0], *seen[4:6]]
    session_case(frames, "without_odometry", alone, [None] * 6)
    session_case(frames, "odometry_later", seen, [None, None, *moved[2:5], None])
    strides = motion([at(6.0 * i) for i in range(9)])
    lost = [seen[0], *blank[:6], elsewhere[0], elsewhere[1]]
    session_case(frames, "lost", lost, strides, odometry=(0.2, 3.0, 1.0))
    session_case(frames, "turned_too_far", lost[:7], strides[:7], odometry=(0.01, 3.0, 2.5))
    session_case(frames, "feet", [*seen[:2], *blank[:3], seen[5]], moved[:6], odometry=(0.05, 1.0, 0.3048), pixel=1.0)
    far = turned(0, 0, (200.0, 0.0, 0.0))
    jumped = [*moved[:3], far @ moved[3], far @ moved[4]]
    before = [*seen[:3], nothing[0], seen[4]]
    session_case(frames, "jumped", before, jumped, odometry=(0.001, 0.01, 1.0))
    session_case(frames, "jumped_feet", before, jumped, odometry=(0.001, 0.01, 0.3048))
    behind = [moved[0], *(pose @ turned(1, 180) for pose in moved[1:7])]  # where tracking expects no landmark
    session_case(frames, "retried", [seen[0], nothing[0], *seen[1:]], behind)


def rig_case(frames: Frames, name: str, shown: Sequence[str], told: Sequence[Mapping[str, Any]]) -> None:
    """Views of a rig, and what they say together."""
    stored, known = frames.given(shown, told)
    expected = reader.localized_rig(frames.m, known, "usac")
    frames.folder.case(
        "rig", f"rig/{name}", {"map": map_file("walk"), "views": stored, "solver": "usac"}, expected
    )  # fmt: skip


def rig_cases(frames: Frames) -> None:
    """Cameras that see too little alone, that disagree, of several kinds, and poses of them that drift."""
    rig = at(100.0)
    cams = [HERE, turned(1, 12, (0.2, 0.0, 0.0)), turned(1, -12, (-0.2, 0.0, 0.1)), turned(0, 10, (0.0, 0.1, 0.0))]
    lenses = [CAMERA, CAMERA, WIDE, CAMERA]

    def view(cam: Pose, camera: Camera = CAMERA, drift: Sequence[float] = (0.0, 0.0), pixel: float = PIXEL):
        return {"camera": str(camera), "pixel": pixel, "cam_from_rig": numbers(cam), "drift": list(drift)}

    few = [frames.draw(f"rig{i}", cams[i] @ rig, TOO_FEW, 0, lenses[i]) for i in range(4)]
    told = [view(cam, lens) for cam, lens in zip(cams, lenses, strict=True)]
    for i in range(2):
        rig_case(frames, f"alone{i}", few[i : i + 1], told[i : i + 1])
    rig_case(frames, "together", few, told)
    drifting = [view(c, lens, (0.01 * i, 0.001 * i)) for i, (c, lens) in enumerate(zip(cams, lenses, strict=True))]
    rig_case(frames, "drifting", few, drifting)
    off = retract(cams[1], np.array([0.0, 0.02, 0.0, 0.1, 0.0, 0.0]))
    rig_case(frames, "far_drift", few[:2], [told[0], view(off, CAMERA, (0.1, 0.02))])
    halves = [view(cam, lens, pixel=0.5) for cam, lens in zip(cams[:3], lenses[:3], strict=True)]
    rig_case(frames, "pixels", few[:3], halves)
    many = ["seen0", "elsewhere0"]
    rig_case(frames, "disagreeing", many, [view(HERE), view(turned(1, 30))])
    rig_case(frames, "one_sees", ["seen0", "nothing0", "empty"], [view(HERE), view(turned(1, 30)), view(turned(1, 60))])
    noise = [frames.draw("noise", at(60.0), 0, 70)] * 5
    around = [view(turned(1, angle)) for angle in (0, 4, -4, 8, -8, 12)]
    rig_case(frames, "one_of_six", ["seen0", *noise], around)
    rig_case(frames, "one", ["crowd"], [view(turned(1, 20, (0.5, 0.0, 0.0)))])
    rig_case(frames, "nothing", ["nothing0", "nothing1"], [view(HERE), view(turned(1, 30))])
    rig_case(frames, "empty", ["empty"], [view(HERE)])


def prior_case(frames: Frames, name: str, poses: Sequence[Mapping[str, Any]] = (), **known: Any) -> None:
    """What is known, in the map, and whether poses contradict it."""
    given = {**known, "poses": list(poses)}
    expected = reader.known_in(frames.m, **given)
    frames.folder.case("prior", f"prior/{name}", {"map": map_file("walk"), **given}, expected)


def prior_cases(frames: Frames) -> None:
    """Positions, GPS, gravity and names, alone and together."""

    def near(pose: Pose, std: float | None) -> dict[str, Any]:
        return {**reader.plain_pose(pose), "position_std": std}

    def upright(pose: Pose) -> list[float]:
        """Which way gravity points in the camera, by the place on Earth."""
        return [float(v) for v in -9.81 * pose.rotation @ EARTH.up]

    def beside(pose: Pose, step: Sequence[float] | np.ndarray) -> Pose:
        return pose @ Pose(HERE.quaternion, -np.array(step))

    home = at(10.0)
    up, across = EARTH.up, np.cross(EARTH.up, [1.0, 0.0, 0.0])
    across /= np.linalg.norm(across)
    here = [float(v) for v in home.center]
    tried = [
        near(beside(home, [step, 0.0, 0.0]), std)
        for step in (0.0, 1.9, 2.1, 4.0) for std in (0.0, 0.1, 1.0, None)
    ]  # fmt: skip
    prior_case(frames, "position", tried, position=here, radius=2.0)
    prior_case(frames, "wide_position", position=here, radius=8.0)
    prior_case(frames, "far_position", tried[:2], position=[1e4, 0.0, 0.0], radius=1.0)
    latitude, longitude, _ = EARTH.to_wgs84(home.center)
    raised = [near(beside(home, 50 * up), 0.0), near(beside(home, 3.0 * across), 0.0)]
    raised += [near(beside(home, 7.5 * across), std) for std in (0.0, 1.0)]
    prior_case(frames, "gps", [*tried, *raised], gps=[latitude, longitude, 5.0])
    prior_case(frames, "wide_gps", raised, gps=[latitude + 1e-4, longitude, 12.5])
    prior_case(frames, "names", tried[:2], images=["south/*", "north/0[!1-8].jpg"])
    prior_case(frames, "one_name", images=["north/07.jpg"])
    prior_case(frames, "names_and_position", position=here, radius=2.0, images=["north/0?.jpg", "south/3[0-4].jpg"])
    prior_case(frames, "names_elsewhere", position=here, radius=2.0, images=["north/2*"])
    tilted = [retract(home, np.radians([angle, 0.0, 0.0, 0.0, 0.0, 0.0])) for angle in (0.0, 8.0, -8.0, 12.0, -12.0)]
    prior_case(frames, "gravity", [near(pose, 0.0) for pose in tilted], gravity=upright(home))
    for name, down in (
        ("upright", (0.0, 1.0, 0.0)), ("sideways", (9.0, 2.0, 3.0)), ("upside_down", (1.0, -9.0, 1.0)),
        ("other_side", (-9.0, 2.0, 3.0)), ("downwards", (1.0, 2.0, 9.0)),
    ):  # fmt: skip
        prior_case(frames, name, gravity=list(down))
