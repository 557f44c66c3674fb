"""What keeps the office's queries from a pose: keypoints, descriptors, retrieval, or the judge.

    python benchmarks/indoors.py --model hfnet_int8.tflite --model-name before

The map is of a headset's first walk, as built; the 48 queries are of a second one. Their sensor knows the depth of most
pixels, so a landmark is known to be *visible* where the true pose puts it into the photo at the depth that is measured
there, within `DEPTH`. A keypoint is *on* it within `NEAR` pixels of the photo, and a nearest descriptor or a match is
*right* where its landmark is visible and on the keypoint. Matches are those of the retrieved place that has most right
ones, at keypoints whose depth is known.

Read columns against each other, not as they stand: the headset's orientations are true to 2 to 4 degrees, and landmarks
are some pixels aside of where the photo shows them, hence so wide a `NEAR`. Within it lie keypoints that have nothing
to do with the landmark: how many are on landmarks by chance is told by keypoints moved by `ASIDE` pixels. It is no
chance where a landmark's most alike keypoint of the whole photo is on it.

A reference image is *near* that shares `SHARES` visible landmarks with the query, and sees them within `NEAR_ANGLE` and
at `NEAR_SCALE` times the distance at most, as the bins of `viewpoint.py` have it.

Each network has its column; one takes 5 minutes of CPU. Prints a table, writes benchmarks/results/indoors.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
from named_models import open_model, parse_models, read_results, write_results
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scenes import RESULTS, SCENES
from trust import is_wrong, made_ready, room
from viewpoint import Views

from hfnet_edge.clock import Clock
from hfnet_edge.features import Features
from hfnet_edge.geometry import Camera, Pose
from hfnet_edge.localizer import localize_features
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.methods.hierarchical import PRIOR_FRAMES
from hfnet_edge.methods.matching import nearest_two
from hfnet_edge.methods.method import Candidates, LocalizationConfig, Query
from hfnet_edge.methods.registry import open_method
from hfnet_edge.methods.retrieval import prior_frames
from hfnet_edge.networks.hfnet import Model
from hfnet_edge.pose.solvers import PoseConfig
from hfnet_edge.trust.examine import Examined, examine
from hfnet_maps.evaluation.errors import pose_error

NEAR = 8.0  # pixels of the photo
ASIDE = 40.0  # pixels, to either side: of what is there by chance
DEPTH = 0.05, 0.05  # share of the measured depth, and metres, that a landmark's may differ by
STEP = 4  # pixels between the sensor's values
SHARES = 20  # visible landmarks that make a reference image one of the same view
NEAR_ANGLE, NEAR_SCALE = 30.0, 1.5  # degrees, and times
RIGHT = 0.25, 5.0  # metres, degrees
JUDGES = {"default": LocalizationConfig(), "1 % wrong": LocalizationConfig(max_wrong=0.01)}


@dataclass(frozen=True)
class Visible:
    """What a query sees of a map.

    Attributes:
        landmarks: (V,) int64, increasing. xy: (L, 2) float64, where each landmark of the map is in the photo; NaN where
            it is not visible.
    """

    landmarks: np.ndarray
    xy: np.ndarray

    @classmethod
    def of(cls, positions: np.ndarray, pose: Pose, camera: Camera, depth: np.ndarray) -> Visible:
        """Of landmarks at (L, 3), world; ``depth`` is the sensor's, see `sensor_depth`."""
        seen = pose.transform(positions)
        xy = camera.project(seen)
        measured = depth_at(depth, xy)
        share, metres = DEPTH
        there = (measured > 0) & (np.abs(seen[:, 2] - measured) <= share * measured + metres)
        return cls(np.flatnonzero(there), np.where(there[:, None], xy, np.nan))

    def among(self, landmarks: np.ndarray) -> np.ndarray:
        """(W,) int64: those of ``landmarks``, increasing, that are visible."""
        return np.intersect1d(self.landmarks, landmarks, assume_unique=True)

    def on(self, keypoints: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(N,) bool: the keypoints (N, 2) that are on one of the visible ``landmarks``."""
        apart = np.linalg.norm(keypoints[:, None] - self.xy[landmarks][None], axis=2)
        return (apart <= NEAR).any(axis=1)

    def right(self, keypoints: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(N,) bool: whether each keypoint is on its own landmark, (N,) int64, and that is visible."""
        return np.linalg.norm(keypoints - self.xy[landmarks], axis=1) <= NEAR


def sensor_depth(name: str) -> np.ndarray:
    """(h, w) float64 metres of every `STEP`-th pixel of a photo of the office; 0: unknown."""
    values = cv2.imread(str(SCENES / "room" / "depth" / f"{name.removesuffix('.jpg')}.png"), cv2.IMREAD_UNCHANGED)
    return values / 1000.0


def depth_at(depth: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """(N,) metres at pixels (N, 2); 0 where unknown, NaN or outside."""
    h, w = depth.shape
    column, row = np.rint((np.nan_to_num(xy, nan=-1e6, posinf=-1e6, neginf=-1e6) - 0.5) / STEP).T
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    at = np.where(inside, row, 0).astype(int), np.where(inside, column, 0).astype(int)
    return np.where(inside, depth[at], 0.0)


def shared_views(map_: LocalizationMap, visible: Visible, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    """(M,) bool twice: the reference images that share enough with a query, and those of them that are near."""
    sharing, near = np.zeros((2, map_.image_count), bool)
    for image in range(map_.image_count):
        shared = visible.among(map_.observed(image))
        if len(shared) < SHARES:
            continue
        centers, xyz = np.stack([pose.center, map_.pose(image).center]), map_.in_world(map_.positions(shared))
        views = Views.of(centers, xyz, np.ones((2, len(shared)), bool))
        sharing[image] = True
        near[image] = views.angle[0, 1] < NEAR_ANGLE and views.magnification[0, 1] < NEAR_SCALE
    return sharing, near


def diagnose(
    map_: LocalizationMap, features: Features, visible: Visible, pose: Pose, depth: np.ndarray
) -> dict[str, float]:
    """The counts of one query, see `ROWS`; ``pose`` is the true one."""
    keypoints = features.keypoints
    everything = np.arange(map_.landmark_count)
    retrieved = prior_frames(map_, features.global_descriptor, PRIOR_FRAMES)
    of_retrieved = map_.observed_by(retrieved)
    sharing, near = shared_views(map_, visible, pose)
    on_any = visible.on(keypoints, visible.landmarks)
    on_retrieved = visible.on(keypoints, visible.among(of_retrieved))
    aside = [visible.on(keypoints + np.array([by, 0.0]), visible.landmarks).sum() for by in (-ASIDE, ASIDE)]
    counts = {
        "keypoints": len(keypoints),
        "visible": len(visible.landmarks),
        "on": int(on_any.sum()),
        "on_by_chance": float(np.mean(aside)),
        "nearest_of_all": nearest_right(map_, features, visible, np.flatnonzero(on_any), everything),
        "on_retrieved": int(on_retrieved.sum()),
        "nearest_of_retrieved": nearest_right(map_, features, visible, np.flatnonzero(on_retrieved), of_retrieved),
        "sharing_images": int(sharing.sum()),
        "sharing_retrieved": int(sharing[retrieved].sum()),
        "near_images": int(near.sum()),
        "near_retrieved": int(near[retrieved].sum()),
        "found": landmarks_found(map_, features, visible),
    }
    judged = [matches.take(depth_at(depth, matches.xy) > 0) for matches in candidates(map_, features).matches]
    right = [int(visible.right(matches.xy, matches.landmarks).sum()) for matches in judged]
    best = int(np.argmax(right)) if right else None
    return counts | {"matches": 0 if best is None else len(judged[best]), "right": 0 if best is None else right[best]}


def candidates(map_: LocalizationMap, features: Features) -> Candidates:
    """The places where the runtime seeks a query."""
    method = open_method(map_, None, LocalizationConfig())
    return method.candidates(Query(features.pixel, features), Clock())


def landmarks_found(map_: LocalizationMap, features: Features, visible: Visible) -> int:
    """Of the visible landmarks those whose most alike keypoint of the whole photo is on them."""
    descriptors, owners = map_.descriptors(visible.landmarks)
    if not len(descriptors) or len(features.keypoints) < 2:
        return 0
    keypoint, _, distance, _ = nearest_two(descriptors, map_.codec.query(features.descriptors))
    order = np.lexsort((distance, owners))
    _, first = np.unique(owners[order], return_index=True)
    return int(visible.right(features.keypoints[keypoint[order[first]]], visible.landmarks).sum())


def nearest_right(
    map_: LocalizationMap, features: Features, visible: Visible, rows: np.ndarray, landmarks: np.ndarray
) -> int:
    """Of the keypoints in ``rows`` those whose nearest descriptor, among those of ``landmarks``, is right."""
    descriptors, owners = map_.descriptors(landmarks)
    if not len(rows) or len(descriptors) < 2:
        return 0
    nearest, *_ = nearest_two(map_.codec.query(features.descriptors[rows]), descriptors)
    return int(visible.right(features.keypoints[rows], landmarks[owners[nearest]]).sum())


def best_pose(map_: LocalizationMap, features: Features, camera: Camera) -> Pose | None:
    """The pose that most speaks for, of all places that are tried, believed or not."""
    config, places = PoseConfig(), candidates(map_, features)
    examined = (
        examine(map_, features, camera, matches, config.max_error * features.pixel, config, False, Clock())
        for matches in chain(places.matches, places.further)
    )
    best = max((one for one in examined if one is not None), key=Examined.rank, default=None)
    return None if best is None else map_.from_world(best.refined.pose)


def evaluate(model: Model, name: str, console: Console) -> dict:
    """Every figure of one network: `ROWS`, and the queries' counts and errors in order."""
    ready = made_ready(room(), model, console)
    scene, map_ = ready.scene, ready.maps[0][1]
    positions = map_.in_world(map_.positions(np.arange(map_.landmark_count)))
    counts: list[dict[str, float]] = []
    errors: dict[str, list[tuple[float, float]]] = {judge: [] for judge in (*JUDGES, "best")}
    for _, query in track(ready.queries(), name, console=console, transient=True):
        features, camera, truth = ready.features[query], scene.cameras[query], scene.poses[query]
        depth = sensor_depth(query)
        counts.append(diagnose(map_, features, Visible.of(positions, truth, camera, depth), truth, depth))
        poses = {judge: localize_features(map_, features, camera, config).pose for judge, config in JUDGES.items()}
        for judge, pose in (poses | {"best": best_pose(map_, features, camera)}).items():
            errors[judge].append((np.inf, np.inf) if pose is None else pose_error(pose, truth))
    near = np.array([count["near_images"] > 0 for count in counts])
    return {
        "landmarks": map_.landmark_count,
        "poses": {judge: recall(np.array(found)) for judge, found in errors.items()}
        | {"best, near": recall(np.array(errors["best"])[near])},
        "queries": {key: [count[key] for count in counts] for key in counts[0]},
    }


def recall(errors: np.ndarray) -> dict:
    """Of (Q, 2) errors, metres and degrees, inf where there is no pose."""
    given = np.isfinite(errors[:, 0])
    return {
        "queries": len(errors),
        "given": int(given.sum()),
        "right": int(((errors[:, 0] <= RIGHT[0]) & (errors[:, 1] <= RIGHT[1])).sum()),
        "wrong": int(sum(is_wrong((float(metres), float(degrees))) for metres, degrees in errors[given])),
    }


def share(part: str, whole: str) -> Callable[[dict], str]:
    """Of a query's keypoints, landmarks or matches; the mean over the queries that have any."""

    def text(figures: dict) -> str:
        pairs = zip(figures["queries"][part], figures["queries"][whole], strict=True)
        return f"{np.mean([of / all_ for of, all_ in pairs if all_]):.1%}"

    return text


def median(count: str) -> Callable[[dict], str]:
    """Over queries."""
    return lambda figures: f"{np.median(figures['queries'][count]):.0f}"


def poses(judge: str) -> Callable[[dict], str]:
    """Given, right, and wrong."""
    return lambda figures: "{given}: {right} right, {wrong} wrong".format(**figures["poses"][judge])


def with_any(count: str) -> Callable[[dict], str]:
    """Queries that have one at least."""
    return lambda figures: f"{np.count_nonzero(figures['queries'][count])} of {len(figures['queries'][count])}"


ROWS: dict[str, Callable[[dict], str]] = {
    "landmarks in the map": lambda figures: str(figures["landmarks"]),
    "keypoints of a query, median": median("keypoints"),
    "visible landmarks, median": median("visible"),
    "  whose most alike keypoint is right": share("found", "visible"),
    "keypoints on a visible landmark": share("on", "keypoints"),
    "  by chance": share("on_by_chance", "keypoints"),
    "  their nearest of all descriptors is right": share("nearest_of_all", "on"),
    "keypoints on a visible landmark of the retrieved": share("on_retrieved", "keypoints"),
    "  their nearest of the retrieved's is right": share("nearest_of_retrieved", "on_retrieved"),
    f"queries that share {SHARES} visible landmarks with an image": with_any("sharing_images"),
    f"  with one of the {PRIOR_FRAMES} retrieved": with_any("sharing_retrieved"),
    "  retrieved ones that do, median": median("sharing_retrieved"),
    f"queries with an image within {NEAR_ANGLE:g}° and {NEAR_SCALE:g} times": with_any("near_images"),
    "  among the retrieved": with_any("near_retrieved"),
    "right matches after the ratio test, median": median("right"),
    "  of the matches": share("right", "matches"),
    "poses given": poses("default"),
    "poses given at 1 % wrong": poses("1 % wrong"),
    "poses at all": poses("best"),
    "  of queries with a near image": poses("best, near"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, paths = parse_models(parser)
    console, file = Console(width=120), RESULTS / "indoors.json"
    for name, path in paths.items():
        figures = evaluate(open_model(path), name, console)
        write_results(file, read_results(file) | {name: figures})
    results = read_results(file)
    table = Table(title="the office, 48 queries; poses within 0.25 m and 5° are right, beyond 0.5 m or 10° wrong")
    table.add_column("")
    for name in results:
        table.add_column(name, justify="right")
    for title, text in ROWS.items():
        table.add_row(title, *(text(figures) for figures in results.values()))
    console.print(table)


if __name__ == "__main__":
    main()
