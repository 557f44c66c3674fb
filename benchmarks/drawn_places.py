"""Places drawn so that what is seen fits more than one pose, with exact truth: does the runtime accept a wrong one?

    python benchmarks/drawn_places.py [--model hfnet_int8.tflite] [--pictures DIR]

A facade of equal tiles, without and with a mark; and a room of plain walls whose only texture is one small poster, seen
small, aslant, twice, or filling the image. World: metres, z up. The runtime's settings are as they are. Prints a table,
writes benchmarks/results/drawn_places.json; `--pictures` writes every place as `hfnet-map example` does.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import RESULTS, exported

from hfnet_edge.features import Features, extract
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.photo import Photo, fit
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.result import LocalizationResult
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.evaluation.errors import Threshold, pose_error, within
from hfnet_maps.pack.writer import full_sections, to_map
from hfnet_maps.synthetic_town.made_place import write_place
from hfnet_maps.synthetic_town.textures import STONE, WHITE, glazing, masonry, paste, poster, shape_of
from hfnet_maps.synthetic_town.views import camera_pose

CAMERA = Camera("PINHOLE", 640, 480, (554.3, 554.3, 322.75, 238.5))
LONG = Camera("PINHOLE", 640, 480, (4000.0, 4000.0, 322.75, 238.5))  # so long a lens sees almost in parallel
OVERSAMPLING = 2  # rays per pixel in x and in y
NEAR = 1e-3  # metres before the camera's centre, where drawing begins
SKY = 215.0  # grey level where there is no sheet
TILE, COLUMNS, ROWS = np.array([2.0, 2.5]), 12, 3  # of the facade: metres, width and height of a tile
POSTER = np.array([0.6, 0.4])  # metres, width and height of the one in the room
EYES = 1.5  # metres above the floor: the poster's centre, and nearly the camera
RIGHT = Threshold(0.25, 2.0)  # metres, degrees


@dataclass(frozen=True, eq=False)
class Sheet:
    """A textured parallelogram.

    Attributes:
        corner, across, down: (3,) float64 upper left corner, and edges from there as seen from the side that shows.
        levels: the texture (h, w) float32 of grey levels, and the same reduced to a half, a quarter, ...
    """

    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray
    levels: tuple[np.ndarray, ...] = field(repr=False)

    @property
    def corners(self) -> np.ndarray:
        """(4, 3) float64, row by row from the upper left."""
        return self.corner + np.array([0 * self.across, self.across, self.down, self.across + self.down])

    @classmethod
    def of(cls, corner: ArrayLike, across: ArrayLike, down: ArrayLike, texture: np.ndarray) -> Sheet:
        """With the texture (h, w) in any number type."""
        levels: list[np.ndarray] = [texture.astype(np.float32)]
        while min(levels[-1].shape) > 16:
            levels.append(cv2.resize(levels[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        return cls(np.array(corner, float), np.array(across, float), np.array(down, float), tuple(levels))


@dataclass(frozen=True, eq=False)
class Photograph:
    """One picture of a place: (H, W) uint8 grey, and the true camera and ``cam_from_world`` that it was taken with."""

    name: str
    image: np.ndarray = field(repr=False)
    camera: Camera
    pose: Pose
    is_query: bool


@dataclass(frozen=True, eq=False)
class DrawnPlace:
    """What its map is built from, and what is to be localized there. A pose is right only if it is near the truth, also
    where the place looks the same from elsewhere."""

    name: str
    references: tuple[Photograph, ...]
    queries: tuple[Photograph, ...]


Stand = tuple[Camera, Pose]  # where and with what a photograph is taken


def render(sheets: Sequence[Sheet], camera: Camera, pose: Pose) -> np.ndarray:
    """(H, W) float32 grey levels, without noise. Later sheets cover earlier ones."""
    height, width = camera.height * OVERSAMPLING, camera.width * OVERSAMPLING
    canvas, matrix = np.full((height, width), SKY, np.float32), np.diag([OVERSAMPLING, OVERSAMPLING, 1]) @ camera.matrix
    for sheet in sheets:
        to_camera = pose.rotation @ np.column_stack([sheet.across, sheet.down, sheet.corner])  # of (s, t, 1)
        to_camera[:, 2] += pose.translation
        corners = pose.transform(sheet.corners).T
        if (corners[2] <= NEAR).all():
            continue
        xy = np.array([(0, 0), (width, height)])
        if (corners[2] > NEAR).all():  # else the corners do not say what it covers
            xy = OVERSAMPLING * camera.project(corners.T)
        left, top = np.clip(np.floor(xy.min(axis=0)), 0, (width, height)).astype(int)
        right, bottom = np.clip(np.ceil(xy.max(axis=0)), 0, (width, height)).astype(int)
        h, w = sheet.levels[0].shape
        inverse = np.diag([w, h, 1]) @ np.linalg.inv(matrix @ to_camera)  # pixels to (u, v, 1) / depth
        x, y = np.arange(left, right) + 0.5, np.arange(top, bottom)[:, None] + 0.5
        u, v, nearness = ((a * x).astype(np.float32) + (b * y + c).astype(np.float32) for a, b, c in inverse)
        ahead = (nearness > 0) & (nearness < 1 / NEAR)
        depth = np.divide(1, nearness, out=np.full_like(nearness, np.nan), where=ahead)
        u, v = u * depth, v * depth
        inside = (u > 0) & (u < w) & (v > 0) & (v < h)  # nowhere where NaN
        if not inside.any():
            continue
        texels = np.sqrt(abs(np.linalg.det(inverse)) * np.median(depth[inside]) ** 3)  # along a side of a ray's square
        level = int(np.clip(np.rint(np.log2(texels)), 0, len(sheet.levels) - 1))
        texture = sheet.levels[level]
        u, v = u * (texture.shape[1] / w) - 0.5, v * (texture.shape[0] / h) - 0.5
        colours = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        np.copyto(canvas[top:bottom, left:right], colours, where=inside)
    return cv2.resize(canvas, (camera.width, camera.height), interpolation=cv2.INTER_AREA)


def draw(name: str, sheets: Sequence[Sheet], references: Sequence[Stand], queries: Sequence[Stand]) -> DrawnPlace:
    """A place photographed from where one stands, each time with an exposure, a blur and a noise of its own. Repeated,
    the pictures are the same."""
    rng, photographs = default_rng([2, *name.encode()]), []
    for number, stand in enumerate([*references, *queries]):
        exposure, blur, noise = rng.uniform((0.9, 0.4, 1.5), (1.1, 0.8, 2.5))
        image = cv2.GaussianBlur(render(sheets, *stand) * exposure, (0, 0), blur)
        image = np.clip(np.rint(image + rng.normal(0, noise, image.shape)), 0, 255).astype(np.uint8)
        asked = number - len(references)
        file = f"map_{number:03d}.jpg" if asked < 0 else f"query_{asked:03d}.jpg"
        photographs.append(Photograph(file, image, *stand, asked >= 0))
    return DrawnPlace(name, tuple(photographs[: len(references)]), tuple(photographs[len(references) :]))


def collage(rng: Generator, width: float, height: float) -> np.ndarray:
    """(h, w) uint8: a poster (the made town's metres) full of small pictures, no two alike."""
    rows = [[poster(rng, width / 6, height / 4) for _ in range(6)] for _ in range(4)]
    return cv2.cvtColor(np.vstack([np.hstack(row) for row in rows]), cv2.COLOR_RGB2GRAY)


def aimed(rng: Generator, position: np.ndarray, target: np.ndarray, camera: Camera = CAMERA) -> Stand:
    """A camera at the position (3,) that looks at the target (3,), held almost straight."""
    x, y, z = target - position
    return camera, camera_pose(position, np.arctan2(y, x), np.arctan2(z, np.hypot(x, y)), rng.normal(0, 0.03))


def in_image(stand: Stand, points: np.ndarray) -> np.ndarray:
    """(N,) bool: which points (N, 3) of the world are in the image; what is in their way is not looked at."""
    camera, pose = stand
    xy = camera.project(pose.transform(points))
    with np.errstate(invalid="ignore"):
        return np.all((xy > 0) & (xy < (camera.width, camera.height)), axis=1)


def facade() -> list[Sheet]:
    """Tiles that are the same pixels, on plain ground."""
    rng, (width, height) = default_rng(11), TILE * (COLUMNS, ROWS)
    tile = masonry(rng, shape_of(*(2 * TILE)), 0.3, 0.7, STONE)  # painted twice as fine as it is looked at
    paste(tile, glazing(rng, 2.2, 2.8, WHITE), 100, 120)
    tile = cv2.cvtColor(tile, cv2.COLOR_RGB2GRAY)
    ground = Sheet.of((-50, 0, 0), (width + 100, 0, 0), (0, -60, 0), np.full((8, 8), 120))
    front = Sheet.of((0, 0, height), (width, 0, 0), (0, 0, -height), np.tile(tile, (ROWS, COLUMNS)))
    return [ground, front]


def before_facade(rng: Generator, x: float, distance: float) -> Stand:
    """Somebody who walks along and looks at the facade."""
    position = np.array([x, -distance, rng.uniform(1.2, 2.2)])
    aside, up = np.tan(rng.uniform((-0.25, 0.0), (0.25, 0.2)))
    return aimed(rng, position, position + np.array([aside, 1, up]))


def walk_past() -> list[Stand]:
    """The reference images of the facade, from one end to the other at two distances."""
    rng = default_rng(12)
    xs = np.linspace(0.5, COLUMNS * TILE[0] - 0.5, 24)
    return [before_facade(rng, x, (5.0, 7.5)[i % 2]) for i, x in enumerate(xs)]


def along_facade(seed: int) -> list[Stand]:
    """Places for queries, more than enough."""
    rng = default_rng(seed)
    return [before_facade(rng, rng.uniform(1, COLUMNS * TILE[0] - 1), rng.uniform(4.5, 8)) for _ in range(200)]


def tiles() -> DrawnPlace:
    """Of 24 queries 18 see nothing but equal tiles, the last 6 see an end of the facade."""
    width, height = TILE * (COLUMNS, ROWS)
    ends = np.array([(x, 0, z) for x in (0, width) for z in np.linspace(0, height, 40)])
    asked = along_facade(13)
    at_end = np.array([in_image(stand, ends).any() for stand in asked])
    chosen = [*np.flatnonzero(~at_end)[:18], *np.flatnonzero(at_end)[:6]]
    return draw("tiles", facade(), walk_past(), [asked[i] for i in chosen])


def tiles_marked() -> DrawnPlace:
    """Queries that see all of the one poster on the facade, so that there is a right answer."""
    width, height = 1.5, 1.0
    mark = Sheet.of((10.25, 0, 2.4), (width, 0, 0), (0, 0, -height), collage(default_rng(14), 4 * width, 4 * height))
    seen = [stand for stand in along_facade(15) if in_image(stand, mark.corners).all()]
    return draw("tiles_marked", [*facade(), mark], walk_past(), seen[:24])


def quarter_turns(turns: int) -> np.ndarray:
    """(3, 3) rotation about z, clockwise from above: from the far wall, y > 0, to the right one, x > 0."""
    return np.linalg.matrix_power(np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]]), turns)


def room(side: float, posters: int = 1) -> list[Sheet]:
    """A square room about the origin, 3 m high; its four walls are alike, but for equal posters in the middle of the
    far wall and, if there are two, of the right one."""
    half, arc = side / 2, np.linspace(-1, 1, 64)
    shade = 1 - 0.12 * np.maximum(arc[:, None] ** 2, arc**2)  # darker towards the edges
    picture = collage(default_rng(24), *(8 * POSTER))  # fine enough to be looked at from nearby
    floor = Sheet.of((-half, half, 0), (side, 0, 0), (0, -side, 0), 120 * shade)
    ceiling = Sheet.of((-half, -half, 3), (side, 0, 0), (0, side, 0), 210 * shade)

    def on_wall(turn: np.ndarray, width: float, height: float, top: float, texture: np.ndarray) -> Sheet:
        return Sheet.of(turn @ (-width / 2, half, top), turn @ (width, 0, 0), (0, 0, -height), texture)

    walls = [on_wall(quarter_turns(i), side, 3, 3, 175 * shade) for i in range(4)]
    hung = [on_wall(quarter_turns(i), POSTER[0], POSTER[1], EYES + POSTER[1] / 2, picture) for i in range(posters)]
    return [floor, ceiling, *walls, *hung]


def before_poster(
    rng: Generator, side: float, metres: np.ndarray, degrees: np.ndarray, camera: Camera = CAMERA, turns: int = 0
) -> list[Stand]:
    """Cameras at distances (N,) of a poster's centre and at angles (N,) to its normal, to the right of it if positive;
    the poster is not always in the middle of the image."""
    centre, turn, stands = np.array([0, side / 2, EYES]), quarter_turns(turns), []
    for distance, angle in zip(metres, np.deg2rad(degrees), strict=True):
        position = centre + distance * np.array([np.sin(angle), -np.cos(angle), rng.uniform(-0.1, 0.1)])
        slack = np.clip((camera.width, camera.height) - POSTER * camera.focal / distance, 50, 320)  # pixels
        x, y = rng.uniform(-0.5, 0.5, 2) * slack / camera.focal
        target = centre + distance * np.array([x * np.cos(angle), x * np.sin(angle), y])
        stands.append(aimed(rng, turn @ position, turn @ target, camera))
    return stands


def poster_small() -> DrawnPlace:
    """The poster spans 40 to 100 pixels."""
    rng, side = default_rng(31), 12.0
    references = before_poster(rng, side, rng.uniform(0.8, 3.5, 24), np.linspace(-50, 50, 24))
    metres = POSTER[0] * CAMERA.focal[0] / np.linspace(40, 100, 24)
    return draw("poster_small", room(side), references, before_poster(rng, side, metres, rng.uniform(-40, 40, 24)))


def poster_oblique() -> DrawnPlace:
    """The poster from 60 to 75 degrees aside; and through a long lens, where a tilt and its mirror image look alike."""
    rng, side, signs = default_rng(41), 40.0, np.tile([-1, 1], 6)
    references = before_poster(rng, side, rng.uniform(0.7, 2, 24), np.linspace(-65, 65, 24))
    aslant = before_poster(rng, side, rng.uniform(1, 2.2, 12), signs * rng.uniform(60, 75, 12))
    parallel = before_poster(rng, side, rng.uniform(10, 16, 12), signs * rng.uniform(5, 35, 12), LONG)
    return draw("poster_oblique", room(side), references, aslant + parallel)


def poster_twice() -> DrawnPlace:
    """Of 24 queries 20 see one of two equal posters, ten each, and the last 4 see both."""
    rng, side = default_rng(51), 5.0
    references, queries = [], []
    for turns in (0, 1):
        references += before_poster(rng, side, rng.uniform(0.8, 2.5, 12), np.linspace(-45, 45, 12), turns=turns)
        queries += before_poster(rng, side, rng.uniform(0.9, 2, 10), rng.uniform(-40, 40, 10), turns=turns)
    corner = np.array([side / 2, side / 2, EYES])
    queries += [aimed(rng, np.array([*rng.uniform(-1.9, -1.5, 2), EYES]), corner) for _ in range(4)]
    return draw("poster_twice", room(side, 2), references, queries)


def poster_large() -> DrawnPlace:
    """The poster fills the image: here a right answer is easy."""
    rng, side = default_rng(61), 6.0
    references = before_poster(rng, side, rng.uniform(0.4, 0.9, 16), np.linspace(-40, 40, 16))
    queries = before_poster(rng, side, rng.uniform(0.42, 0.6, 24), rng.uniform(-30, 30, 24))
    return draw("poster_large", room(side), references, queries)


PLACES: dict[str, Callable[[], DrawnPlace]] = {
    make.__name__: make for make in (tiles, tiles_marked, poster_small, poster_oblique, poster_twice, poster_large)
}
"""What draws a place, by its name."""


def write(place: DrawnPlace, folder: Path) -> None:
    """Writes a place as `hfnet-map example` does: images, COLMAP's text model, the list of the map, that of queries."""
    asked = SimpleNamespace(views=place.references + place.queries, render=lambda view: cv2.merge([view.image] * 3))
    write_place(folder, asked)  # type: ignore[arg-type]


def features_of(view: Photograph, model: Model) -> Features:
    """What the network sees in a picture, which goes to no file and so not through JPEG."""
    pixels, valid = fit(view.image, model.description.input_size)
    return extract(model, Photo(pixels, valid, (view.camera.width, view.camera.height)))


def build(place: DrawnPlace, model: Model) -> LocalizationMap:
    """The place's map, in memory, with the true poses. Raises InputError: nothing can be triangulated."""
    names, cameras, poses = zip(*((v.name, v.camera, v.pose) for v in place.references), strict=True)
    features = [features_of(v, model) for v in track(place.references, place.name, transient=True)]
    return to_map(full_sections(map_from_features(names, cameras, poses, features, model.description)[0]))


def is_right(result: LocalizationResult, truth: Pose) -> bool:
    """Whether there is a pose, within `RIGHT` of the truth."""
    return result.pose is not None and bool(within(np.array(pose_error(result.pose, truth)), [RIGHT])[0])


def judged(place: DrawnPlace, model: Model) -> dict:
    """What the runtime answers to every query, and counts of that."""
    m = build(place, model)
    rows: list[dict] = []
    for view in place.queries:
        r = localize_features(m, features_of(view, model), view.camera)
        error = (None, None) if r.pose is None else (round(e, 4) for e in pose_error(r.pose, view.pose))
        row = (view.name, r.status.value, r.inliers, *error, is_right(r, view.pose))
        rows.append(dict(zip(("query", "status", "inliers", "error_m", "error_deg", "right"), row, strict=True)))
    accepted, right = sum(row["error_m"] is not None for row in rows), sum(row["right"] for row in rows)
    counts = {"landmarks": m.landmark_count, "queries": len(rows), "accepted": accepted, "right": right}
    statuses = dict(Counter(row["status"] for row in rows))
    return {**counts, "wrong": accepted - right, "statuses": statuses, "answers": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="HF-Net; default: the bundled weights at int8")
    parser.add_argument("--pictures", type=Path, help="folder for the places' images, cameras and poses")
    options = parser.parse_args()
    from hfnet_export.networks.weights import BUNDLED  # brings TensorFlow, which drawing does without

    model, output = Model(options.model) if options.model else exported(BUNDLED, "int8"), RESULTS / "drawn_places.json"
    result: dict = {"weights": model.description.weights_hash, "places": {}}
    for name, make in PLACES.items():
        place = make()
        if options.pictures:
            write(place, options.pictures / name)
        result["places"][name] = judged(place, model)
    console = Console(width=120)
    console.print(table_of(result["places"]))
    output.write_text(json.dumps(result, indent=1) + "\n")
    console.print(f"wrote {output}")


def table_of(places: dict[str, dict]) -> Table:
    """Counts by place."""
    counts = ("landmarks", "queries", "accepted", "right", "wrong")
    statuses = sorted({status for row in places.values() for status in row["statuses"]})
    table = Table(title=f"right: within {RIGHT.position:g} m, {RIGHT.rotation:g}°", title_justify="left")
    table.add_column("place")
    for column in (*counts, *statuses):
        table.add_column(column, justify="right")
    for name, row in places.items():
        table.add_row(name, *(str(row[c]) for c in counts), *(str(row["statuses"].get(s, 0)) for s in statuses))
    return table


if __name__ == "__main__":
    main()
