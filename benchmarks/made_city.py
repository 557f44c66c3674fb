"""A made town with the statistics of HF-Net's model of Aachen: geometry and descriptors, no pictures.

    python benchmarks/made_city.py                                  # Aachen's size, statistics only
    python benchmarks/made_city.py --images 300 --landmarks 47500 --queries 20

Someone walks along every street and photographs the facades left and right of the way ahead. A landmark is where a ray
of one photo, its anchor, meets a facade or the ground; the photos before and after it see it too. World: metres, z up,
the ground at z = 0.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, default_rng

from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.image.keypoints import quantize
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.codecs import UNIT
from hfnet_maps.content import BuiltMap, MapNetworks, ReferenceKeypoints
from hfnet_maps.pack.writer import full_sections, to_map

IMAGES, LANDMARKS, TRACK_LENGTH = 4328, 685_000, 5.87  # of Aachen
SIDE, BLOCK = 1000.0, 250.0  # metres: of the town, between parallel streets
CAMERA, PIXEL = Camera("PINHOLE", 1600, 1200, (1300.0, 1300.0, 800.0, 600.0)), 2.5
SIZE, BORDER = np.array([1600.0, 1200.0]), 4.0  # pixels; none so near the edge that noise takes it out of the image
REACH, RELIEF = 50.0, 0.5  # metres from a camera to a landmark; that a facade stands out
ASIDE = np.deg2rad(30)  # how far from the way ahead a photo looks
SIMILAR = np.cos(np.deg2rad(40))  # between rays to one landmark: beyond, no feature looks the same
ON_GROUND = 0.25  # of the rays that meet the ground find a landmark there
WINDOW = np.arange(-24, 25)  # photos of the walk, before and after the anchor, that may see its landmarks
LEFT = {0: 1.0, 16: 0.42, 32: 0.17, 48: 0.06, 64: 0.02, 96: 0.002, 128: 1e-4}  # variance after so many components
MEAN, NOISE = 0.63, 0.425  # so that the mean descriptor is 0.60 long, two of a landmark have a cosine of 0.90
PLACE, TURN = 15.0, 20.0  # metres that make a place look different; turning by a radian is like walking so many
CHUNK, ROWS = 1 << 14, 1 << 16  # rays, descriptors at a time


@dataclass(frozen=True)
class Streets:
    """S straight streets on a jittered grid.

    Attributes:
        starts, ahead, left: (S, 2) float64, where each begins; unit vectors along and across.
        half, heights: (S,) metres, half its width; of its facades.
    """

    starts: np.ndarray
    ahead: np.ndarray
    left: np.ndarray
    half: np.ndarray
    heights: np.ndarray

    @classmethod
    def lay(cls, rng: Generator, side: float) -> Streets:
        """In a square of ``side`` metres, each from one edge to the other."""
        n = max(1, round(side / BLOCK))
        across = (np.arange(n) + 0.5 + rng.uniform(-0.12, 0.12, (2, 2, n))) * side / n
        along = np.repeat([[0.0], [side]], n, axis=1)
        ends = np.concatenate([np.stack([along, across[0]], -1), np.stack([across[1], along], -1)], axis=1)
        starts, stops = np.where(rng.random((2 * n, 1)) < 0.5, ends, ends[::-1])
        ahead = (stops - starts) / np.linalg.norm(stops - starts, axis=1, keepdims=True)
        left = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
        return cls(starts, ahead, left, rng.uniform(4.5, 8, 2 * n), rng.uniform(8, 18, 2 * n))

    def meet(self, rng: Generator, streets: np.ndarray, centers: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Where (N, 3) rays from (N, 3) centers in (N,) streets find a landmark: (N, 3), NaN where there is none."""
        left, half = self.left[streets], self.half[streets]
        speed = (rays[:, :2] * left).sum(axis=1)
        wall = np.sign(speed) * (half - rng.uniform(0, RELIEF, len(rays)))
        to_wall = (wall - ((centers[:, :2] - self.starts[streets]) * left).sum(axis=1)) / speed
        to_ground = np.where(rays[:, 2] < 0, centers[:, 2] / np.maximum(-rays[:, 2], 1e-9), np.inf)
        points = centers + np.minimum(to_wall, to_ground)[:, None] * rays
        aside = np.abs(np.einsum("nsi,si->ns", points[:, None, :2] - self.starts, self.left))
        facade = (aside >= self.half - RELIEF).all(axis=1) & (points[:, 2] < self.heights[streets])  # on no crossing
        found = np.where(to_ground < to_wall, rng.random(len(rays)) < ON_GROUND, facade)
        return np.where(found[:, None], points, np.nan)


@dataclass(frozen=True)
class Walk:
    """M photos in the order in which they were taken.

    Attributes:
        streets: (M,) int64.
        centers: (M, 3) float64 world.
        angles: (M, 3) radians: heading from the x axis, counterclockwise; upwards; roll.
    """

    streets: np.ndarray
    centers: np.ndarray
    angles: np.ndarray

    @classmethod
    def through(cls, rng: Generator, streets: Streets, side: float, images: int) -> Walk:
        """Street by street, at about equal steps, looking left and right in turn."""
        at = (np.arange(images) + rng.uniform(0, 1, images)) * len(streets.half) / images
        street = at.astype(np.int64)
        ahead, left = streets.ahead[street], streets.left[street]
        aside = rng.uniform(-0.3, 0.3, images) * streets.half[street]
        xy = streets.starts[street] + (at % 1 * side)[:, None] * ahead + aside[:, None] * left
        angles = np.deg2rad(rng.normal((0, 6, 0), (7, 3, 1.5), (images, 3)))
        angles[:, 0] += np.arctan2(ahead[:, 1], ahead[:, 0]) + np.where(np.arange(images) % 2, ASIDE, -ASIDE)
        return cls(street, np.column_stack([xy, rng.normal(1.6, 0.05, images)]), angles)

    def near(self, image: int) -> np.ndarray:
        """Photos of the same street within 10 m that look a similar way, the image itself among them."""
        close = np.linalg.norm(self.centers - self.centers[image], axis=1) < 10
        alike = np.cos(self.angles[:, 0] - self.angles[image, 0]) > SIMILAR
        return np.flatnonzero(close & alike & (self.streets == self.streets[image]))


def rotations(angles: np.ndarray) -> np.ndarray:
    """(N, 3, 3) of cam_from_world for (N, 3) angles as in `Walk`."""
    heading, up, roll = angles.T
    forward = np.stack([np.cos(heading) * np.cos(up), np.sin(heading) * np.cos(up), np.sin(up)], axis=1)
    level = np.stack([np.sin(heading), -np.cos(heading), np.zeros(len(angles))], axis=1)
    right = level * np.cos(roll)[:, None] + np.cross(forward, level) * np.sin(roll)[:, None]
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def project(xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 2) of points in the camera's frame (N, 3), and which (N,) are in the image and near enough."""
    xy = CAMERA.project(xyz)
    return xy, ((xy > BORDER) & (xy < SIZE - BORDER)).all(axis=1) & (np.square(xyz).sum(axis=1) < REACH**2)


@dataclass(frozen=True)
class Look:
    """What things look like.

    Attributes:
        mean: (1, D) float32 of all landmarks' descriptors.
        axes: (D, D) float32, rows are principal axes times standard deviations.
        waves, phases: (4, G) and (G,) random Fourier features of where a photo is and where it looks.
    """

    mean: np.ndarray
    axes: np.ndarray
    waves: np.ndarray
    phases: np.ndarray

    @classmethod
    def invent(cls, rng: Generator, local_dim: int, global_dim: int) -> Look:
        left = np.exp(np.interp(np.linspace(0, 128, local_dim + 1), list(LEFT), np.log(list(LEFT.values()))))
        axes = np.linalg.qr(rng.normal(size=(local_dim, local_dim)))[0] * np.sqrt(-np.diff(left))[:, None]
        mean = rng.normal(size=(1, local_dim))
        waves, phases = rng.normal(0, 1 / PLACE, (4, global_dim)), rng.uniform(0, 2 * np.pi, global_dim)
        return cls(MEAN * mean / np.linalg.norm(mean), (np.sqrt(1 - MEAN**2) * axes).astype(np.float32), waves, phases)

    def landmarks(self, rng: Generator, count: int) -> np.ndarray:
        """(count, D) int8 of as many new landmarks, without noise."""
        return self.observed(rng, UNIT * self.mean, np.zeros(count, np.int64), 1.0)

    def observed(self, rng: Generator, vectors: np.ndarray, rows: np.ndarray, noise: float = NOISE) -> np.ndarray:
        """(N, D) int8 observations of the landmarks that ``rows`` (N,) of ``vectors`` describe."""
        out = np.empty((len(rows), vectors.shape[1]), np.int8)
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            spread = rng.standard_normal((len(part), len(self.axes)), np.float32) @ self.axes
            out[start : start + ROWS] = quantize(vectors[part] / np.float32(UNIT) + noise * spread)
        return out

    def of_place(self, rng: Generator, centers: np.ndarray, angles: np.ndarray) -> np.ndarray:
        """(N, G) int8 global descriptors of photos: the nearer and the more alike in heading, the more similar."""
        at = np.column_stack([centers[:, :2], TURN * np.cos(angles[:, 0]), TURN * np.sin(angles[:, 0])])
        waves = np.cos(at @ self.waves + self.phases)
        return quantize(waves + rng.normal(0, 0.2, waves.shape))


@dataclass(frozen=True)
class City:
    """A made town.

    Attributes:
        source: what a map is packed from; poses and positions are exact, keypoints to 0.5 px.
        walk, look, seed: what it was made of.
        vectors: (L, D) int8, the landmarks' descriptors without noise.
    """

    source: BuiltMap
    walk: Walk
    look: Look
    seed: int
    vectors: np.ndarray

    def queries(self, count: int, keypoints: int = 1000, outliers: int = 1000) -> list[tuple[Features, Camera, Pose]]:
        """Photos taken about a metre and a few degrees from reference photos, and their true poses.

        Args:
            keypoints: of landmarks that reference photos nearby observe, 1 px of noise; fewer where fewer are seen.
            outliers: keypoints anywhere with random descriptors.
        """
        rng, s = default_rng([self.seed, 1]), self.source
        queries = []
        for image in rng.integers(len(s.names), size=count):
            center = self.walk.centers[image] + rng.normal(0, (0.7, 0.7, 0.1))
            angles = self.walk.angles[image] + np.deg2rad(rng.normal(0, 3, 3))
            rotation = rotations(angles[None])[0]
            known = np.unique(np.concatenate([s.landmarks[s.observed(near)] for near in self.walk.near(image)]))
            xy, seen = project((s.positions[known] - center) @ rotation.T)
            chosen = rng.permutation(np.flatnonzero(seen))[:keypoints]
            places = np.concatenate(
                [xy[chosen] + rng.normal(0, 1, (len(chosen), 2)), rng.uniform(0, SIZE, (outliers, 2))]
            )
            looks = np.concatenate([self.vectors[known[chosen]], self.look.landmarks(rng, outliers)])
            mixed = rng.permutation(len(places))
            features = Features(
                places[mixed],
                np.ones(len(places), np.float32),
                self.look.observed(rng, looks, mixed),
                self.look.of_place(rng, center[None], angles[None])[0],
                PIXEL,
            )
            queries.append((features, CAMERA, Pose.from_matrix(rotation, -rotation @ center)))
        return queries


def made_city(
    images: int = IMAGES, landmarks: int = LANDMARKS, track_length: float = TRACK_LENGTH,
    local_dim: int = 128, global_dim: int = 512, others: int = 200, seed: int = 0,
) -> City:  # fmt: skip
    """A town with so many photos and landmarks, as dense as Aachen: with fewer photos it is smaller.

    Args:
        images: some dozens at least, or too few photos share a street.
        track_length: mean number of photos that observe a landmark, 2 at least.
        others: keypoints of each photo without a landmark. Aachen's have about 1,650 (of 2,576 a third is matched), as
            descriptors 0.9 GB that no packed map holds.
    """
    rng = default_rng([seed, 0])
    side = SIDE * np.sqrt(images / IMAGES)
    streets = Streets.lay(rng, side)
    walk, look = Walk.through(rng, streets, side, images), Look.invent(rng, local_dim, global_dim)
    positions, of, seen_in, keypoints = _observations(rng, streets, walk, landmarks, track_length)
    vectors = look.landmarks(rng, landmarks)
    other_keypoints = rng.uniform(0, SIZE, (images * others, 2)).astype(np.float32)
    other_descriptors = look.landmarks(rng, images * others)
    starts, pixels = np.arange(images + 1) * others, np.full(images, PIXEL)
    source = BuiltMap(
        MapNetworks("made", "0" * 32, "none", local_dim, global_dim),
        tuple(f"db/{i:04d}.jpg" for i in range(1, images + 1)),
        tuple(Pose.from_matrix(r, -r @ c) for r, c in zip(rotations(walk.angles), walk.centers, strict=True)),
        look.of_place(rng, walk.centers, walk.angles),
        positions,
        *(of, seen_in),
        look.observed(rng, vectors, of),
        ReferenceKeypoints((CAMERA,) * images, pixels, keypoints, starts, other_keypoints, other_descriptors),
    )
    return City(source, walk, look, seed, vectors)


def _observations(
    rng: Generator, streets: Streets, walk: Walk, count: int, track_length: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Positions (count, 3); of each observation, in order, landmark (O,), image (O,) and keypoint (O, 2) float32."""
    axes, images, itself = rotations(walk.angles), len(walk.streets), int(np.flatnonzero(WINDOW == 0)[0])
    rich = rng.gamma(4, size=images)  # some photos show more than others
    found: list[tuple[np.ndarray, ...]] = []
    made = 0
    while made < count:
        anchors = rng.choice(images, CHUNK, p=rich / rich.sum())
        pixels = rng.uniform(BORDER, SIZE - BORDER, (CHUNK, 2))
        rays = np.column_stack([pixels, np.ones(CHUNK)]) @ np.linalg.inv(CAMERA.matrix).T
        rays = np.einsum("ni,nij->nj", rays, axes[anchors])
        points = streets.meet(rng, walk.streets[anchors], walk.centers[anchors], rays)
        anchors, points = (part[np.isfinite(points[:, 0])] for part in (anchors, points))

        window = anchors[:, None] + WINDOW
        near = np.clip(window, 0, images - 1)
        rays = points[:, None] - walk.centers[near]
        xy, inside = project(np.einsum("nkij,nkj->nki", axes[near], rays).reshape(-1, 3))
        rays /= np.linalg.norm(rays, axis=2, keepdims=True)
        seen = inside.reshape(near.shape) & (near == window) & (walk.streets[near] == walk.streets[anchors, None])
        seen &= np.einsum("nki,ni->nk", rays, rays[:, itself]) > SIMILAR
        kept = np.flatnonzero(seen[:, itself] & (seen.sum(axis=1) >= 2))[: count - made]
        seen, near, xy = seen[kept], near[kept], xy.reshape(*near.shape, 2)[kept]

        # The anchor and those nearest to it observe the landmark, with gaps as detectors leave them.
        distance = np.where(seen, np.abs(WINDOW) + rng.uniform(0, 6, seen.shape) * (WINDOW != 0), np.inf)
        rank = distance.argsort(axis=1).argsort(axis=1)
        row, place = np.nonzero(rank < _track_lengths(rng, seen.sum(axis=1), track_length)[:, None])
        found.append((points[kept], made + row, near[row, place], xy[row, place]))
        made += len(kept)
    positions, of, seen_in, keypoints = (np.concatenate(part) for part in zip(*found, strict=True))
    return positions, of, seen_in, (keypoints + rng.normal(0, 0.5, keypoints.shape)).astype(np.float32)


def _track_lengths(rng: Generator, most: np.ndarray, mean: float) -> np.ndarray:
    """(N,) geometric from 2 on, cut at ``most`` (N,), and of this mean nevertheless."""
    reach = np.mean(most[:, None] >= np.arange(3, len(WINDOW) + 1), axis=0)  # how many could have 3, 4, ...
    stay = np.linspace(0, 0.999, 1000)
    means = 2 + stay[:, None] ** np.arange(1, len(reach) + 1) @ reach
    return np.minimum(1 + rng.geometric(1 - np.interp(mean, means, stay), len(most)), most)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--landmarks", type=int, default=LANDMARKS)
    parser.add_argument("--queries", type=int, default=0, help="localize so many in the map that packs nothing")
    args = parser.parse_args()
    start = time.perf_counter()
    city = made_city(args.images, args.landmarks)
    source, memory = city.source, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"made in {time.perf_counter() - start:.1f} s, {memory:.2f} GiB at most")
    print(f"{args.images} images, {len(source.positions)} landmarks, {len(source.images)} observations")
    for name, numbers in (("observations per image", source.images), ("track length", source.landmarks)):
        counts = np.bincount(numbers)
        print(f"{name}: mean {counts.mean():.2f}, deciles", *np.percentile(counts, range(0, 101, 10)).astype(int))
    if args.queries:
        m, errors = to_map(full_sections(source)), []
        for features, camera, pose in city.queries(args.queries):
            found = localize_features(m, features, camera).pose
            errors.append(float("inf") if found is None else float(np.linalg.norm(found.center - pose.center)))
        print(f"{np.isfinite(errors).sum()} of {len(errors)} queries found")
        print(f"error: {np.median(errors):.4f} m in the median, {max(errors):.4f} m at most")


if __name__ == "__main__":
    main()
