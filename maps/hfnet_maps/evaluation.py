"""How far the poses that were found are from the true ones: the visual localization benchmarks' measures.

A query without a pose counts against the recall and as an infinite error in the medians, so that abstaining never
improves a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.files import atomic_write
from hfnet_edge.geometry import Pose
from hfnet_edge.map_file import LocalizationMap


@dataclass(frozen=True)
class Threshold:
    """A query is localized within it when both of its errors are at most: ``position`` metres, ``rotation`` degrees."""

    position: float
    rotation: float

    def __str__(self) -> str:
        return f"{self.position:g} m, {self.rotation:g}°"


# The Aachen benchmark's for day (HF-Net, table 3).
THRESHOLDS = (Threshold(0.25, 2), Threshold(0.5, 5), Threshold(5, 10))


@dataclass(frozen=True)
class Evaluation:
    """Errors of a list of queries; Q queries.

    Attributes:
        names: Q names.
        position_errors: (Q,) float64 distances between the camera centres, metres; inf where there is no pose.
        rotation_errors: (Q,) float64 angles, degrees; inf where there is no pose.
        thresholds: T of them.
        recalls: T fractions of all queries that are within the threshold.
    """

    names: tuple[str, ...]
    position_errors: np.ndarray
    rotation_errors: np.ndarray
    thresholds: tuple[Threshold, ...]
    recalls: tuple[float, ...]

    @property
    def localized(self) -> np.ndarray:
        """(Q,) bool."""
        return np.isfinite(self.position_errors)

    @property
    def abstentions(self) -> int:
        """Queries without a pose."""
        return int((~self.localized).sum())

    @property
    def median(self) -> tuple[float, float]:
        """Metres and degrees over all queries, those without a pose as infinite."""
        return float(np.median(self.position_errors)), float(np.median(self.rotation_errors))

    @property
    def median_localized(self) -> tuple[float, float]:
        """Metres and degrees over the queries with a pose; inf where there are none."""
        if not self.localized.any():
            return np.inf, np.inf
        return (
            float(np.median(self.position_errors[self.localized])),
            float(np.median(self.rotation_errors[self.localized])),
        )

    def as_dict(self) -> dict:
        """For JSON, which has no infinity: null in its place."""

        def number(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        return {
            "queries": len(self.names),
            "abstentions": self.abstentions,
            "recalls": [
                {"position_m": t.position, "rotation_deg": t.rotation, "recall": r}
                for t, r in zip(self.thresholds, self.recalls, strict=True)
            ],
            "median_position_m": number(self.median[0]),
            "median_rotation_deg": number(self.median[1]),
            "median_localized_position_m": number(self.median_localized[0]),
            "median_localized_rotation_deg": number(self.median_localized[1]),
            "errors": {
                name: {"position_m": number(p), "rotation_deg": number(r)}
                for name, p, r in zip(self.names, self.position_errors, self.rotation_errors, strict=True)
            },
        }


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """Reads ``"0.25,2 0.5,5 5,10"``: metres, degrees. Raises InputError."""
    thresholds = []
    for pair in text.split():
        try:
            position, rotation = (float(value) for value in pair.split(","))
        except ValueError:
            position = rotation = np.nan
        if not (0 < position < np.inf and 0 < rotation < np.inf):
            raise InputError(f"{pair!r} is not a threshold", 'write metres,degrees like "0.25,2 0.5,5 5,10"')
        thresholds.append(Threshold(position, rotation))
    if not thresholds:
        raise InputError("there are no thresholds", 'write metres,degrees like "0.25,2 0.5,5 5,10"')
    return tuple(thresholds)


def pose_error(found: Pose, true: Pose) -> tuple[float, float]:
    """Distance of the camera centres in metres, and angle between the rotations in degrees.

    The angle comes from atan2 of the relative quaternion, which unlike the trace's arccos keeps its digits below 1e-6
    degrees.
    """
    a, b = (np.asarray(p.quaternion, np.float64) / np.linalg.norm(p.quaternion) for p in (found, true))
    scalar = a @ b
    vector = b[0] * a[1:] - a[0] * b[1:] - np.cross(a[1:], b[1:])  # of found * conjugate(true)
    angle = 2 * np.degrees(np.arctan2(np.linalg.norm(vector), abs(scalar)))
    return float(np.linalg.norm(found.center - true.center)), float(angle)


def evaluate(
    found: Mapping[str, Pose],
    true: Mapping[str, Pose],
    queries: Sequence[str],
    thresholds: Sequence[Threshold] = THRESHOLDS,
) -> Evaluation:
    """Errors and recalls of all ``queries``; poses of other images are ignored.

    Raises:
        InputError: no or repeated queries, a query has no true pose, or the poses are all of other images.
    """
    if not queries:
        raise InputError("there are no queries to evaluate", "list them, one a line")
    if len(set(queries)) != len(queries):
        repeated = sorted(name for name in set(queries) if list(queries).count(name) > 1)
        raise InputError(f"the query {repeated[0]} is listed twice", "keep one line per query")
    unknown = [name for name in queries if name not in true]
    if unknown:
        raise InputError(
            f"the reference has no pose for {len(unknown)} of {len(queries)} queries, first {unknown[0]}",
            f"its names look like {next(iter(true), 'nothing')}: correct --queries or --reference",
        )
    if found and not set(found) & set(queries):
        raise InputError(
            f"none of the {len(found)} poses is of a query: they are of {next(iter(found))} and so on",
            "give the list that was localized",
        )
    errors = np.array([pose_error(found[name], true[name]) if name in found else (np.inf, np.inf) for name in queries])
    position, rotation = errors.T
    recalls = tuple(float(np.mean((position <= t.position) & (rotation <= t.rotation))) for t in thresholds)
    return Evaluation(tuple(queries), position, rotation, tuple(thresholds), recalls)


@dataclass(frozen=True)
class GroundPlane:
    """The place seen from above.

    Attributes:
        axes: (2, 3) float64, world directions that point right and up on the picture.
        origin: (3,) float64, the world point at (0, 0).
    """

    axes: np.ndarray
    origin: np.ndarray

    def project(self, xyz: np.ndarray) -> np.ndarray:
        """(N, 3) world points to (N, 2) metres on the picture."""
        return (np.asarray(xyz, np.float64) - self.origin) @ self.axes.T


def ground_plane(poses: Sequence[Pose]) -> GroundPlane:
    """The plane that people stand on, whatever the world's axes.

    Cameras are held level: their x axes are horizontal, and their y axes point down on average. Up is the direction
    least along the x axes, with a tenth of the weight on the mean y axis, which decides where all cameras look the same
    way. The cameras spread most from left to right.
    """
    right = np.stack([p.rotation[0] for p in poses])
    down = np.mean([p.rotation[1] for p in poses], axis=0)
    down /= max(np.linalg.norm(down), 1e-9)
    along_x = right.T @ right / len(poses) + 0.1 * (np.eye(3) - np.outer(down, down))
    up = np.linalg.eigh(along_x)[1][:, 0]
    up *= -1 if up @ down > 0 else 1
    centers = np.stack([p.center for p in poses])
    origin = centers.mean(axis=0)
    flat = (centers - origin) @ (np.eye(3) - np.outer(up, up))
    horizontal = np.linalg.svd(np.vstack([flat, 1e-9 * right]))[2][0]
    horizontal -= up * (horizontal @ up)
    horizontal /= np.linalg.norm(horizontal)
    return GroundPlane(np.stack([horizontal, np.cross(up, horizontal)]), origin)


def draw_from_above(
    evaluation: Evaluation,
    found: Mapping[str, Pose],
    true: Mapping[str, Pose],
    path: Path | str,
    m: LocalizationMap | None = None,
) -> None:
    """Writes a PNG of the place from above: true and found cameras, the errors between them, who abstained.

    Args:
        true: poses of the queries and of the reference images around them.
        m: its landmarks are drawn, where given; else the other cameras of ``true``.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    plane = ground_plane(list(true.values()))
    others = [name for name in true if name not in set(evaluation.names)]
    truth = plane.project(np.stack([true[name].center for name in evaluation.names]))
    located = [i for i, name in enumerate(evaluation.names) if name in found]
    spots = plane.project(np.array([found[evaluation.names[i]].center for i in located]).reshape(-1, 3))
    background = plane.project(m.landmark_positions + m.origin) if m is not None else np.zeros((0, 2))

    # A few landmarks lie at the horizon, and wrong poses anywhere: the true cameras and the bulk of the landmarks
    # frame the picture.
    low, high = _frame(plane.project(np.stack([pose.center for pose in true.values()])), background)
    width, height = high - low
    arrow = 0.04 * max(width, height)

    figure = Figure(figsize=(9, float(np.clip(9 * height / width, 3.5, 9)) + 1.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("#fbfbf9")
    axes.grid(color="#e4e4e0", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(background):
        axes.scatter(
            background[:, 0],
            background[:, 1],
            s=1.6,
            c="#8a8f98",
            alpha=0.5,
            linewidths=0,
            label=f"{len(background)} landmarks",
        )
    if others:
        centers, directions = _arrows(plane, [true[name] for name in others])
        _quiver(axes, centers, directions * arrow * 0.6, "#b9bec6")
        axes.scatter(centers[:, 0], centers[:, 1], s=9, c="#b9bec6", label=f"{len(others)} reference images", zorder=2)

    _, directions = _arrows(plane, [true[name] for name in evaluation.names])
    _quiver(axes, truth, directions * arrow, "#1f6f50")
    axes.scatter(
        truth[:, 0],
        truth[:, 1],
        s=46,
        facecolors="none",
        edgecolors="#1f6f50",
        linewidths=1.3,
        label="true query cameras",
        zorder=4,
    )
    missing = truth[~evaluation.localized]
    if len(missing):
        axes.scatter(
            missing[:, 0],
            missing[:, 1],
            s=70,
            marker="x",
            c="#c0392b",
            linewidths=2,
            label=f"{len(missing)} abstained",
            zorder=6,
        )
    if located:
        errors = evaluation.position_errors[located]
        _, directions = _arrows(plane, [found[evaluation.names[i]] for i in located])
        _quiver(axes, spots, directions * arrow, "#d9822b")
        for a, b in zip(truth[located], spots, strict=True):
            axes.plot((a[0], b[0]), (a[1], b[1]), color="#c0392b", linewidth=1, zorder=3)
        floor = max(errors.max() * 1e-3, 1e-6)
        dots = axes.scatter(
            spots[:, 0],
            spots[:, 1],
            s=20,
            c=np.maximum(errors, floor),
            cmap="plasma_r",
            norm=LogNorm(max(errors.min(), floor) * 0.999, max(errors.max(), floor) * 1.001),
            edgecolors="#333333",
            linewidths=0.4,
            label=f"{len(located)} found",
            zorder=5,
        )
        figure.colorbar(dots, ax=axes, label="position error [m]", shrink=0.7, aspect=35, pad=0.02)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="metres", ylabel="metres", aspect="equal")
    recalls = "   ".join(
        f"{100 * r:.0f} % within {t}" for t, r in zip(evaluation.thresholds, evaluation.recalls, strict=True)
    )
    axes.set_title(f"{len(evaluation.names)} queries from above\n{recalls}", loc="left", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=5, frameon=False, fontsize=8, columnspacing=1.2)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", bbox_inches="tight", pad_inches=0.15)


def _arrows(plane: GroundPlane, poses: Sequence[Pose]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and viewing directions on the picture, (N, 2) each; shorter where a camera looks up or down."""
    return plane.project(np.stack([p.center for p in poses])), np.stack([p.rotation[2] for p in poses]) @ plane.axes.T


def _quiver(axes, at: np.ndarray, along: np.ndarray, color: str) -> None:
    axes.quiver(
        at[:, 0],
        at[:, 1],
        along[:, 0],
        along[:, 1],
        angles="xy",
        scale_units="xy",
        scale=1,
        color=color,
        width=0.0025,
        headwidth=4,
        zorder=3,
    )


def _frame(cameras: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper corner (2,) of what the picture shows, with a margin."""
    corners = [cameras.min(axis=0), cameras.max(axis=0)]
    if len(landmarks):
        corners += list(np.percentile(landmarks, (2, 98), axis=0))
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    size = max(*(high - low), 1e-3)
    middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.15 * size) + 0.06 * size
    return middle - half, middle + half
