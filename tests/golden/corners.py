"""A map and queries made by hand, for the ends of the search that pictures rarely reach.

Three places, and images that see nothing. Landmarks look like words of a code, so that it is known which match; global
descriptors are unit vectors, so that a query's own says which images are retrieved, in which order.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from golden.after_pose import trust_cases
from golden.folder import Folder
from golden.matching import map_file, match_cases, search_cases
from golden.result import result_case
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.map.codecs import UNIT
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_maps.content import DescribedMap, MapNetworks
from hfnet_maps.pack.writer import lay_out, to_map

CAMERA = Camera("PINHOLE", 640, 480, (500.0, 505.0, 321.0, 239.0))
PIXEL = 1.25  # of the network's input, in pixels of the image
DIM = 16  # of a place's descriptors; the place's own dimensions of all
STEP = 32  # descriptors hold this or its negative: of length 128
LANDMARKS = 32  # of a place: a first-order Reed-Muller code has so many words, 8 signs apart at least
TWINS = (0, 3)  # landmarks of the first place that look the same, and have one descriptor each
SEEN = {  # by image, the place and its landmarks; the other images see nothing
    **{i: (0, range(6 * i, 6 * i + 14)) for i in range(4)},
    **{4 + i: (1, range(6 * i, 6 * i + 14)) for i in range(4)},
    8: (2, range(LANDMARKS)),
}
IMAGES = 20
FIRST, SECOND, THIRD, BLIND = range(4), range(4, 7), range(8, 9), range(9, IMAGES)


def word(place: int, landmark: int) -> np.ndarray:
    """(3 * DIM,) int8, what a query sees of a landmark."""
    if place == 0 and landmark in TWINS:
        landmark = TWINS[0]
    bits = [((landmark & (DIM | j)).bit_count()) % 2 for j in range(DIM)]
    row = np.zeros((3, DIM), np.int8)
    row[place] = STEP * (1 - 2 * np.array(bits))
    return row.ravel()


def flipped(row: np.ndarray, place: int, at: int) -> np.ndarray:
    """A word with one other sign."""
    changed = row.copy()
    changed[place * DIM + at % DIM] *= -1
    return changed


def described(place: int, landmark: int) -> list[np.ndarray]:
    """The map's one to three descriptors of a landmark, each one sign from its word and two from each other."""
    row, first = word(place, landmark), 0 if place == 0 and landmark in TWINS else landmark
    return [flipped(row, place, first + 5 * i) for i in range(1 + (landmark + place) % 3)]


def corner_map() -> LocalizationMap:
    """The map: 96 landmarks, those of a place beside each other; places 100 m apart."""
    rng = np.random.default_rng(0)
    near = rng.uniform((-2, -1.5, 5), (2, 1.5, 10), (3, LANDMARKS, 3))
    positions = (near + np.arange(3)[:, None, None] * [100, 0, 0]).reshape(-1, 3)
    rows = [described(place, landmark) for place in range(3) for landmark in range(LANDMARKS)]
    pairs = sorted((place * LANDMARKS + i, image) for image, (place, ids) in SEEN.items() for i in ids)
    landmarks, images = np.array(pairs, np.int64).T
    return to_map(
        lay_out(
            DescribedMap(
                MapNetworks("made by hand", "0" * 32, "none", 3 * DIM, IMAGES),
                tuple(f"{i:02d}.png" for i in range(IMAGES)),
                tuple(pose(SEEN[i][0] if i in SEEN else 0, 0.0) for i in range(IMAGES)),
                UNIT * np.eye(IMAGES, dtype=np.int8),
                positions,
                landmarks,
                images,
                np.repeat(np.arange(len(rows)), [len(of) for of in rows]),
                np.concatenate(rows).reshape(-1, 3 * DIM),
            )
        )
    )


def pose(place: int, angle: float) -> Pose:
    """A camera in a place, turned to the side by ``angle`` radians."""
    half = angle / 2
    turned = Pose(np.array([np.cos(half), 0.0, np.sin(half), 0.0]), np.zeros(3))
    return Pose(turned.quaternion, -turned.rotation @ [100.0 * place + angle, angle, -angle])


def corner_queries(m: LocalizationMap) -> dict[str, Features]:
    """The queries by name. Each place is seen from a pose of its own, without noise."""
    xyz = m.positions(np.arange(m.landmark_count)) + m.origin

    def sees(place: int, landmarks: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        ids = list(landmarks)
        xy = CAMERA.project(pose(place, 0.1 + 0.05 * place).transform(xyz[place * LANDMARKS + np.array(ids)]))
        return xy, np.array([word(place, i) for i in ids])

    def query(images: list[int], *parts: tuple[np.ndarray, np.ndarray]) -> Features:
        wanted = np.zeros(IMAGES, np.int8)
        wanted[images] = 40 - 2 * np.arange(len(images))
        xy, rows = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Features(xy, np.linspace(1, 0.5, len(xy), dtype=np.float32), rows, wanted, PIXEL)

    alone = [i for i in range(LANDMARKS) if i not in TWINS]
    xy, rows = sees(0, TWINS)
    twins = xy, np.array([described(0, TWINS[0])[0]] * 2)  # equal to two landmarks: matches neither
    # Landmarks that fall between a quarter and half of the window, and two signs off; and the twins, of which one is as
    # like as the others are, the other is not.
    xy, rows = sees(0, alone[8:24])
    unlike = (
        xy + 4 * np.array([[1, 0], [0, 1], [-1, 0], [0, -1]] * 4),
        np.array([flipped(flipped(row, 0, i + 1), 0, i + 2) for row, i in zip(rows, alone[8:24], strict=True)]),
    )
    like = flipped(twins[1][0], 0, 1)
    again = twins[0], np.array([like, flipped(like, 0, 2)])
    xy, rows = sees(1, [6])
    farther = xy + 90, flipped(rows[0], 1, 7)[None]  # of two keypoints on a landmark the nearer stays
    xy, rows = sees(1, [5])
    later = xy + 90, rows  # of equals the first
    nothing = np.array([[320.0, 240.0]]), np.zeros((1, 3 * DIM), np.int8)
    one, two, other = [*FIRST, *BLIND], [*FIRST, *SECOND, *BLIND], [*SECOND, *FIRST, *BLIND]
    return {
        "second_place": query(two, farther, sees(0, alone[:5]), sees(1, range(32)), later),
        "first_of_two": query(other, sees(0, alone), sees(1, range(32))),
        "equal_places": query([*FIRST, *THIRD, *BLIND], sees(0, alone), sees(2, range(30))),
        "twins": query(one, sees(0, alone), twins),
        "unlike": query(one, sees(0, alone[:8]), unlike, again),
        "better_first": query(two, sees(0, alone[:15]), sees(1, range(9))),
        "better_second": query(two, sees(0, alone[:9]), sees(1, range(15))),
        "1_keypoint": query(one, sees(0, alone[:1])),
        "5_matches": query(one, sees(0, alone[:5])),
        "6_matches": query(one, sees(0, alone[:6])),
        "3_matches": query(two, nothing, sees(0, alone[:3]), sees(2, range(LANDMARKS))),
        "tenth_image": query([*BLIND[:9], *THIRD], sees(2, range(LANDMARKS))),
        "eleventh_image": query([*BLIND[:10], *THIRD], sees(2, range(LANDMARKS))),
    }


def corner_cases(folder: Folder) -> None:
    """The search in a map made by hand: every status, and more than one place."""
    m = corner_map()
    folder.files[map_file("corners")] = bytes(m.file.data)
    for query, features in corner_queries(m).items():
        name = f"corners/{query}"
        arrays = {
            key: folder.array(f"{name}/{key}", getattr(features, key), "result", f"made by hand: {key}")
            for key in ("keypoints", "scores", "descriptors", "global_descriptor")
        } | {"pixel": features.pixel}
        for i, place in enumerate(search_cases(folder, name, "corners", m, features, arrays)):
            matches, _ = match_cases(folder, f"{name}/place{i}", "corners", m, features, arrays, *place)
            if query == "unlike":
                max_error = PoseConfig().max_error * PIXEL
                label = f"{name}/place{i}"
                trust_cases(folder, label, "corners", m, CAMERA, features, arrays, matches, max_error)
        result_case(folder, name, "corners", m, CAMERA, features, arrays, counted=True)
