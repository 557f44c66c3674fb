"""How far a query may stand from the nearest reference image: by the angle between them, and by their scales.

    python benchmarks/viewpoint.py --model hfnet_int8.tflite --model-name before

The places of `HELD_OUT`, which no network is trained on. Pairs of a query and a reference image are drawn into bins by
what they share of the place's own landmarks: `ANGLES` between their viewing rays, `SCALES` of their distances. A place
is mapped `FOLDS` times, without a third of its images, and these are the queries. Of the map a query is given what the
pair's reference image observes, and those of its neighbours that are no nearer to the query; landmarks lie where all
reference images put them. Matcher and solver are the runtime's. Nothing is retrieved, and no pose is judged: neither is
what is compared. A pose is right within `RIGHT_DEPTH` of the place's depth and `RIGHT_DEGREES`, a match within
`RIGHT_PIXELS` of where the true pose puts its landmark.

Each network has its column beside ALIKE-n and RootSIFT, which are measured where the file does not have them. Prints
tables, writes benchmarks/results/viewpoint.json. Pairs follow from the places' models, so all columns are of the same;
a file of other pairs is not added to, but replaced.
The bundled HF-Net sees portrait photos (corridor) at an input size of its own, 640x480; a --model sees them at three
quarters of the size that the others see them at.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pycolmap
from named_models import open_model, parse_models, read_results, write_results
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import OTHERS, RESULTS, Extractor, described, exported, hfnet
from trust_places import Place

from hfnet_edge.features import Features
from hfnet_edge.methods.matching import match
from hfnet_edge.networks.description import Description
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.estimate import estimate_pose
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_export.networks.weights import BUNDLED
from hfnet_maps.build.builder import map_from_features
from hfnet_maps.content import BuiltMap, DescribedMap
from hfnet_maps.evaluation.errors import pose_error
from hfnet_maps.pack.writer import in_file_order, lay_out, to_map

HELD_OUT = ("sceaux", "cyprus", "south", "corridor")
THINNED = {"corridor": 3}  # every so-many-th image, so that all takes minutes
YARDSTICKS = ("alike", "rootsift")
ANGLES = (0.0, 10.0, 20.0, 30.0, 45.0, 180.0)  # degrees; edges of bins, as the next
SCALES = (1.0, 1.25, 1.5, 2.0, np.inf)  # the larger distance over the smaller
MAX_SCALE, MAX_ANGLE = 1.5, 20.0  # of pairs that are binned by the other
LEAST_SHARED = 15  # landmarks of the place's model, or two images have no angle
PAIRS = 25  # of a bin, at most
FOLDS = 3
RIGHT_DEPTH, RIGHT_DEGREES = 0.05, 5.0
RIGHT_PIXELS = 5 / 640  # of the image's longest side
PORTRAIT = (640, 480)  # height, width
SEED = 0


@dataclass(frozen=True)
class Views:
    """How the M images of a place see what they share; NaN where that is too little, and of an image with itself.

    Attributes:
        angle: (M, M) degrees between the rays to a shared landmark, in the median.
        scale: (M, M) the row's distance to a shared landmark over the column's, in the median.
    """

    angle: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, centers: np.ndarray, xyz: np.ndarray, seen: np.ndarray) -> Views:
        """From the cameras' centres (M, 3), the landmarks (L, 3), and which image observes which, (M, L) bool."""
        rays = xyz[None] - centers[:, None]
        distance = np.linalg.norm(rays, axis=2)
        rays /= distance[..., None]
        angle, scale = np.full((2, len(centers), len(centers)), np.nan)
        for i, j in np.argwhere(~np.eye(len(centers), dtype=bool)):
            shared = seen[i] & seen[j]
            if shared.sum() >= LEAST_SHARED:
                cosine = np.clip((rays[i, shared] * rays[j, shared]).sum(axis=1), -1, 1)
                angle[i, j] = np.degrees(np.arccos(np.median(cosine)))
                scale[i, j] = np.exp(np.median(np.log(distance[i, shared] / distance[j, shared])))
        return cls(angle, scale)

    @cached_property
    def shares(self) -> np.ndarray:
        """(M, M) bool: enough is shared, or it is the image itself."""
        return ~np.isnan(self.angle) | np.eye(len(self.angle), dtype=bool)

    @cached_property
    def magnification(self) -> np.ndarray:
        """(M, M) the larger distance over the smaller."""
        return np.maximum(self.scale, 1 / self.scale)


@dataclass(frozen=True)
class Bin:
    """Pairs from ``low`` to below ``high``, by angle, or by scale."""

    by_scale: bool
    low: float
    high: float

    def __str__(self) -> str:
        if self.by_scale:
            return f"{self.low:g} to {self.high:g} times" if np.isfinite(self.high) else f"{self.low:g} times or more"
        return f"{self.low:g} to {self.high:g}°" if self.high < ANGLES[-1] else f"{self.low:g}° or more"

    def holds(self, views: Views) -> np.ndarray:
        """(M, M) bool: the pairs of query and reference image that are in the bin."""
        binned, other, most = (
            (views.magnification, views.angle, MAX_ANGLE)
            if self.by_scale
            else (views.angle, views.magnification, MAX_SCALE)
        )
        return (self.low <= binned) & (binned < self.high) & (other < most)

    def no_nearer(self, views: Views, query: int, reference: int) -> np.ndarray:
        """(M,) bool: the reference image, and those that share landmarks with both and are not nearer to the query;
        by scale, none on the other side either."""
        if self.by_scale:
            scale = np.log(views.scale[query])
            far = scale * np.sign(scale[reference]) >= abs(scale[reference])
        else:
            far = views.angle[query] >= views.angle[query, reference]
        return far & views.shares[query] & views.shares[reference]


BINS = [
    Bin(by_scale, low, high) for by_scale, edges in ((False, ANGLES), (True, SCALES)) for low, high in pairwise(edges)
]


@dataclass(frozen=True)
class Site:
    """A place, the images of it that are used, and how they see it."""

    place: Place
    names: list[str]
    views: Views

    @classmethod
    def load(cls, name: str, model: Model) -> Site:
        place = Place(name, model)
        names = place.names[:: THINNED.get(name, 1)]
        reconstruction = pycolmap.Reconstruction(place.folder)
        row = {
            image.image_id: names.index(image.name) for image in reconstruction.images.values() if image.name in names
        }
        points = list(reconstruction.points3D.values())
        seen = np.zeros((len(names), len(points)), bool)
        for k, point in enumerate(points):
            seen[[row[e.image_id] for e in point.track.elements if e.image_id in row], k] = True
        centers = [reconstruction.find_image_with_name(name).projection_center() for name in names]
        return cls(place, names, Views.of(np.array(centers), np.array([point.xyz for point in points]), seen))


@dataclass(frozen=True)
class Pair:
    """A query and its nearest reference image, by row of the site's images."""

    site: Site
    bin: Bin
    query: int
    reference: int

    def __str__(self) -> str:
        names, at, views = self.site.names, (self.query, self.reference), self.site.views
        seen = f"{views.angle[at]:.1f}° {views.scale[at]:.2f}"
        return f"{self.site.place.name}: {names[self.query]} by {names[self.reference]}, {seen}"


@dataclass(frozen=True)
class Outcome:
    """What became of a pair.

    Attributes:
        position: of the pose that was found, its distance from the true one in depths of the place. rotation: degrees.
            Both are inf where none was found.
        right: matches that are. matches: all of them.
    """

    position: float
    rotation: float
    right: int
    matches: int

    @property
    def localized(self) -> bool:
        """Whether the pose is right."""
        return self.position <= RIGHT_DEPTH and self.rotation <= RIGHT_DEGREES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, paths = parse_models(parser)
    console, file = Console(width=120), RESULTS / "viewpoint.json"
    models = {name: open_model(path) for name, path in paths.items()}
    first = next(iter(models.values()))
    sites = [Site.load(name, first) for name in HELD_OUT]
    pairs = [pair for bin_ in BINS for pair in drawn(sites, bin_)]
    listed = {str(bin_): [str(pair) for pair in pairs if pair.bin is bin_] for bin_ in BINS}
    results = read_results(file)
    if results.get("pairs") != listed:
        results = {"pairs": listed}
    extractors = {name: (either_way(paths[name], model), model.description) for name, model in models.items()}
    for name in YARDSTICKS:
        if name not in results:
            extractors[name] = (OTHERS[name](hfnet(first)), described(name, first.description))
    for name, (extract, description) in extractors.items():
        started = time.process_time()
        outcomes = evaluate(sites, pairs, extract, description, name, console)
        results[name] = {str(b): figures([o for p, o in zip(pairs, outcomes, strict=True) if p.bin is b]) for b in BINS}
        console.print(f"{name}: {time.process_time() - started:.0f} s of CPU")
        write_results(file, results)
    show(results, console)


def either_way(path: Path | None, model: Model) -> Extractor:
    """HF-Net that sees portrait photos as large as others: at another input size, where it is the bundled network."""
    if path is not None:
        return hfnet(model)
    landscape, portrait = hfnet(model), hfnet(exported(BUNDLED, "int8", PORTRAIT))
    return lambda file, camera: (landscape if camera.width >= camera.height else portrait)(file, camera)


def drawn(sites: Sequence[Site], bin_: Bin) -> list[Pair]:
    """At most `PAIRS` of the bin, places and queries of a place in turns; query and reference image of other folds."""
    candidates = [
        Pair(site, bin_, int(query), int(reference))
        for site in sites
        for query, reference in np.argwhere(bin_.holds(site.views))
        if query % FOLDS != reference % FOLDS
    ]
    candidates = [candidates[i] for i in np.random.default_rng(SEED).permutation(len(candidates))]
    by_query = in_turns(candidates, [(pair.site.place.name, pair.query) for pair in candidates])
    return in_turns(by_query, [pair.site.place.name for pair in by_query])[:PAIRS]


def in_turns(pairs: Sequence[Pair], keys: Sequence[Hashable]) -> list[Pair]:
    """The first of each key, then the second of each, ..., otherwise in order."""
    met: Counter[Hashable] = Counter()
    turns = []
    for key in keys:
        turns.append(met[key])
        met[key] += 1
    return [pairs[i] for i in np.argsort(turns, kind="stable")]


def evaluate(
    sites: Sequence[Site],
    pairs: Sequence[Pair],
    extract: Extractor,
    description: Description,
    name: str,
    console: Console,
) -> list[Outcome]:
    """The outcome of every pair with one kind of features."""
    found: dict[int, Outcome] = {}
    for site in sites:
        place, about = site.place, f"{name}: {site.place.name}"
        features = {
            image: extract(place.images / image, place.cameras[image])
            for image in track(site.names, about, console=console, transient=True)
        }
        for fold in range(FOLDS):
            of_fold = [(k, pair) for k, pair in enumerate(pairs) if pair.site is site and pair.query % FOLDS == fold]
            names = [image for i, image in enumerate(site.names) if i % FOLDS != fold]
            if not of_fold:
                continue
            cameras, poses = [place.cameras[n] for n in names], [place.poses[n] for n in names]
            built, _ = map_from_features(names, cameras, poses, [features[n] for n in names], description)
            for k, pair in of_fold:
                found[k] = outcome(pair, built, features[site.names[pair.query]])
    return [found[k] for k in range(len(pairs))]


def outcome(pair: Pair, built: BuiltMap, features: Features) -> Outcome:
    """Localizes a query among what the far images of its pair observe."""
    site, place, query = pair.site, pair.site.place, pair.site.names[pair.query]
    far = {site.names[i] for i in np.flatnonzero(pair.bin.no_nearer(site.views, pair.query, pair.reference))}
    map_ = to_map(lay_out(in_file_order(seen_by(built, [i for i, n in enumerate(built.names) if n in far]))))
    matches = match(features, map_, np.arange(map_.landmark_count))
    camera, truth, config = place.cameras[query], place.poses[query], PoseConfig()
    errors = np.linalg.norm(camera.project(truth.transform(map_.in_world(matches.xyz))) - matches.xy, axis=1)
    right = int((errors <= RIGHT_PIXELS * max(camera.width, camera.height)).sum())
    refined = estimate_pose(matches, camera, config.max_error * features.pixel, config)
    position, rotation = np.inf, np.inf
    if refined is not None:
        position, rotation = pose_error(map_.from_world(refined.pose), truth)
    return Outcome(position / place.depth, rotation, right, len(matches))


def seen_by(built: BuiltMap, images: Sequence[int]) -> DescribedMap:
    """What some images observe, as they describe it; landmarks stay where they are, also those of one image."""
    rows = np.flatnonzero(np.isin(built.images, images))
    kept, landmarks = np.unique(built.landmarks[rows], return_inverse=True)
    return DescribedMap(
        built.networks,
        built.names,
        built.poses,
        built.global_descriptors,
        built.positions[kept],
        landmarks,
        built.images[rows],
        landmarks,
        built.descriptors[rows],
    )


def figures(outcomes: Sequence[Outcome]) -> dict:
    """Of a bin: the share of the pairs that are localized, the median distance from the true pose (% of the depth), the
    median number of right matches, the share of matches that are right (mean over pairs), and which pairs are lost, by
    row of the bin's. Nothing but the count where the bin is empty."""
    if not outcomes:
        return {"pairs": 0}
    error = float(np.median([o.position for o in outcomes]))
    return {
        "pairs": len(outcomes),
        "localized": round(float(np.mean([o.localized for o in outcomes])), 4),
        "error_percent": round(100 * error, 3) if np.isfinite(error) else None,
        "right": float(np.median([o.right for o in outcomes])),
        "precision": round(float(np.mean([o.right / max(o.matches, 1) for o in outcomes])), 4),
        "lost": [i for i, o in enumerate(outcomes) if not o.localized],
    }


def show(results: dict, console: Console) -> None:
    """A table of each figure: bins down, features across."""
    names = [name for name in results if name != "pairs"]
    for title, figure, form in (
        (f"localized within {RIGHT_DEPTH:.0%} of the depth and {RIGHT_DEGREES:g}°", "localized", ".0%"),
        ("distance from the true pose, % of the depth, median", "error_percent", ".2f"),
        ("right matches, median", "right", ".0f"),
        ("matches that are right", "precision", ".0%"),
    ):
        table = Table(title=title, title_justify="left")
        table.add_column("nearest reference image")
        for column in ("pairs", *names):
            table.add_column(column, justify="right")
        for bin_ in map(str, BINS):
            values = [results[name][bin_].get(figure) for name in names]
            texts = ("-" if value is None else format(value, form) for value in values)
            table.add_row(bin_, str(len(results["pairs"][bin_])), *texts)
        console.print(table)
    console.print(f"by angle at scales below {MAX_SCALE:g}, by scale at angles below {MAX_ANGLE:g}°")


if __name__ == "__main__":
    main()
