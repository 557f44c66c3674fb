"""The embedded default place: a small town square made entirely by code, so that everything runs without any data.

World: metres, right-handed, z up, the ground at z = 0, the middle of the square at the origin. Pixels and poses as in
`hfnet_edge.geometry`.

    textures ─> scene ─> town;  views;  drawing ─> MadePlace ─> pictures and their poses in a folder
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.random import default_rng

from hfnet_edge.errors import OutputError
from hfnet_edge.geometry import Camera
from hfnet_maps.synthetic_town.drawing import SUN_MAP, draw, pack, sample, sun_matrix, view_matrix
from hfnet_maps.synthetic_town.textures import Array, noise
from hfnet_maps.synthetic_town.town import town
from hfnet_maps.synthetic_town.views import Light, PlaceView, walk

OVERSAMPLING = 2  # rays per pixel in x and in y


@dataclass(frozen=True, eq=False)
class MadePlace:
    """A place that can be photographed.

    Attributes:
        views: map views, then query views.
        seed: of the place; also of its clouds and of the sensor's noise.
        quads: (N, 3, 3) float64 corner and two edges per surface, world.
        patches: (N, 4) float64 piece (x, y, w, h) of the atlas that each surface shows, texels.
        atlas: all textures in one picture (h, w, 3) uint8, and its mip levels.
    """

    views: tuple[PlaceView, ...]
    seed: int
    quads: Array = field(repr=False)
    patches: Array = field(repr=False)
    atlas: tuple[Array, ...] = field(repr=False)

    def depth(self, view: PlaceView) -> Array:
        """(H, W) float32 z-depth at the pixels' centres, metres; inf where the sky is."""
        key, index, _ = draw(view_matrix(view, 1), self.quads, (view.camera.height, view.camera.width))
        return np.where(index < len(self.quads), 1 / key, np.inf).astype(np.float32)

    def render(self, view: PlaceView) -> Array:
        """(H, W, 3) uint8 RGB."""
        width, height, light = view.camera.width, view.camera.height, view.light
        h, w = height * OVERSAMPLING, width * OVERSAMPLING
        key, index, inverse = draw(view_matrix(view, OVERSAMPLING), self.quads, (h, w))
        shade, rows = self._shader(view, inverse), 32000 // w  # cv2.remap takes at most 32767 at a time
        strips = [shade(key[r : r + rows], index[r : r + rows], r) for r in range(0, h, rows)]
        linear = cv2.resize(np.concatenate(strips), (width, height), interpolation=cv2.INTER_AREA)
        grey = 255 * np.sqrt(1 - np.exp(-1.2 * light.exposure * linear))  # gamma 2 with a shoulder
        grain = default_rng([self.seed, *view.name.encode()]).standard_normal(grey.shape, np.float32)
        return np.clip(np.rint(grey + light.noise * grain), 0, 255).astype(np.uint8)

    def _shader(self, view: PlaceView, inverse: Array) -> Callable[[Array, Array, int], Array]:
        """A function of a strip (its key, index and first row) that returns its linear light (h, w, 3) float32."""
        light, sky = view.light, len(self.quads)
        normals = np.cross(self.quads[:, 2], self.quads[:, 1])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        facing = np.append(normals @ light.direction, 0).clip(0).astype(np.float32)
        openness = np.append(0.62 + 0.38 * normals[:, 2], 0).astype(np.float32)
        slack = 0.03 + 0.03 * np.sqrt(1 - facing**2) / np.maximum(facing, 0.1)  # metres, of the shadow map
        to_texel = np.zeros((sky + 1, 3, 3), np.float32)  # (x, y, 1) to (u, v, 1) / z
        to_texel[:-1] = inverse
        to_texel[:-1, :2] = self.patches[:, 2:, None] * inverse[:, :2] + self.patches[:, :2, None] * inverse[:, 2:]
        table = np.ascontiguousarray(to_texel.reshape(-1, 9)[:, :8].T)
        to_world = np.linalg.inv(view_matrix(view, OVERSAMPLING)).astype(np.float32)  # (x z, y z, z, 1) to the world
        to_sun, shadow = sun_matrix(light).astype(np.float32) @ to_world, self._shadow(light)
        clouds = noise(default_rng([self.seed, round(light.azimuth)]), (512, 512), 0, 0.7)

        def shade(key: Array, index: Array, first: int) -> Array:
            h, w = index.shape
            x = np.tile(np.arange(w, dtype=np.float32) + 0.5, h)
            y = np.repeat(np.arange(first, first + h, dtype=np.float32) + 0.5, w)
            i, z = index.ravel(), 1 / key.ravel()
            ux, uy, u1, vx, vy, v1, wx, wy = (row[i] for row in table)
            u, v = (ux * x + uy * y + u1) * z, (vx * x + vy * y + v1) * z
            ux, uy, vx, vy = (ux - u * wx) * z, (uy - u * wy) * z, (vx - v * wx) * z, (vy - v * wy) * z  # derivatives
            longest = np.maximum(np.hypot(ux, vx), np.hypot(uy, vy))
            texels = np.maximum(0.6 * longest, np.sqrt(np.abs(ux * vy - uy * vx)))  # per ray; slanted, a compromise
            lod = np.log2(np.maximum(texels, 1)).clip(0, len(self.atlas) - 1)
            albedo = (sample(self.atlas, u, v, lod) / 255) ** 2
            sun_x, sun_y, _, height = ((a * x + b * y + c) * z + d for a, b, c, d in to_sun)
            lit = np.zeros_like(x)
            for dx, dy in ((-0.8, -0.3), (0.3, -0.8), (0.8, 0.3), (-0.3, 0.8)):
                column, row = (np.clip(p, 0, SUN_MAP - 1).astype(np.intp) for p in (sun_x + dx, sun_y + dy))
                lit += shadow[row, column] - slack[i] < height
            colour = albedo * np.outer(facing[i] * lit / 4, np.array(light.sun, np.float32))
            colour += albedo * np.outer(openness[i], np.array(light.sky, np.float32))
            above = np.flatnonzero(i == sky)
            if len(above):
                rx, ry, rz = (a * x[above] + b * y[above] + c for a, b, c, _ in to_world[:3])
                up = np.maximum(rz / np.sqrt(rx**2 + ry**2 + rz**2), 0.02)
                east, north = ((60 * r / np.maximum(rz, 0.05))[None] for r in (rx, ry))
                cover = cv2.remap(clouds, east, north, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT).T
                cover = np.clip(cover * 0.5 + 0.2, 0, 1)
                blue = np.array([0.28, 0.45, 0.80]) + np.outer((1 - up) ** 4, [0.5, 0.42, 0.2])
                colour[above] = (blue + cover * (0.95 - blue)) * light.sky * 1.1
            return colour.reshape(h, w, 3)

        return shade

    @lru_cache(maxsize=6)  # noqa: B019
    def _shadow(self, light: Light) -> Array:
        """(SUN_MAP, SUN_MAP) float32: the key of the surface that the sun meets first."""
        return draw(sun_matrix(light), self.quads, (SUN_MAP, SUN_MAP))[0]


def made_place(
    seed: int = 7, map_views: int = 48, query_views: int = 20, size: tuple[int, int] = (480, 640)
) -> MadePlace:
    """Makes a place; another seed makes another place, with other houses in other colours.

    Args:
        size: (height, width) of the pictures, pixels.
    """
    scene, half = town(default_rng(seed))
    height, width = size
    focal = width / 2 / np.tan(np.deg2rad(30))
    camera = Camera("PINHOLE", width, height, (focal, focal, width / 2 + 2.75, height / 2 - 1.5))
    views = walk(default_rng([seed, 1]), half, np.array(scene.footprints), (map_views, query_views), camera)
    atlas, corners = pack(scene.pictures)
    quads, skins, pieces = zip(*scene.quads, strict=True)
    patches = np.array(pieces) + np.pad(corners[list(skins)], ((0, 0), (0, 2)))
    return MadePlace(tuple(views), seed, np.stack(quads), patches, atlas)


def write_place(
    directory: Path, place: MadePlace | None = None, progress: Callable[[int, int], None] | None = None
) -> None:
    """Photographs a place, by default ``made_place()``, into a folder.

    The folder gets ``images/*.jpg``; ``reference/``, COLMAP's text model with the true camera and pose of every image
    and no points; ``map.txt``, the map images' names; and ``queries_with_intrinsics.txt`` as hloc writes it.

    Args:
        progress: called after each picture with the number of pictures written and of all.
    """
    import pycolmap

    place, directory = place or made_place(), Path(directory)
    for folder in ("images", "reference"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    model = pycolmap.Reconstruction()
    for number, view in enumerate(place.views, 1):
        picture = cv2.cvtColor(place.render(view), cv2.COLOR_RGB2BGR)
        path = directory / "images" / view.name
        if not cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise OutputError(f"cannot write {path}", "check the folder, permissions, free space")
        c, pose = view.camera, view.pose
        camera = pycolmap.Camera(camera_id=number, model=c.model, width=c.width, height=c.height, params=c.params)
        image = pycolmap.Image(name=view.name, camera_id=number, image_id=number)
        rotation = pycolmap.Rotation3d(np.roll(pose.quaternion, -1))  # x, y, z, w
        model.add_camera_with_trivial_rig(camera)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(rotation, pose.translation))
        if progress:
            progress(number, len(place.views))
    model.write_text(str(directory / "reference"))
    maps = [f"{view.name}\n" for view in place.views if not view.is_query]
    queries = [f"{view.name} {view.camera}\n" for view in place.views if view.is_query]
    (directory / "map.txt").write_text("".join(maps))
    (directory / "queries_with_intrinsics.txt").write_text("".join(queries))
