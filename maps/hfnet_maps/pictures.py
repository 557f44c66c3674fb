"""Pictures of a place from above, and of what a budget costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.files import atomic_write
from hfnet_edge.geometry import Pose
from hfnet_edge.map_file import LocalizationMap
from hfnet_maps.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hfnet_maps.budget import Choice


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
    from matplotlib.colors import LogNorm

    plane = ground_plane(list(true.values()))
    others = [name for name in true if name not in set(evaluation.names)]
    truth = plane.project(np.stack([true[name].center for name in evaluation.names]))
    located = [i for i, name in enumerate(evaluation.names) if name in found]
    spots = plane.project(np.array([found[evaluation.names[i]].center for i in located]).reshape(-1, 3))
    background = (
        plane.project(m.positions(np.arange(m.landmark_count)) + m.origin) if m is not None else np.zeros((0, 2))
    )

    # A few landmarks lie at the horizon, and wrong poses anywhere: the true cameras and the bulk of the landmarks
    # frame the picture.
    low, high = _frame(plane.project(np.stack([pose.center for pose in true.values()])), background)
    arrow = 0.04 * max(high - low)
    figure, axes = _figure(low, high)
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
    recalls = "   ".join(
        f"{100 * r:.0f} % within {t}" for t, r in zip(evaluation.thresholds, evaluation.recalls, strict=True)
    )
    axes.set_title(f"{len(evaluation.names)} queries from above\n{recalls}", loc="left", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=5, frameon=False, fontsize=8, columnspacing=1.2)
    _save(figure, path)


def draw_map(m: LocalizationMap, path: Path | str) -> None:
    """Writes a PNG of a map from above: reference cameras, and landmarks by how many images observe them.

    Raises:
        OutputError: the file cannot be written. MapFormatError: the map is damaged. InputError: it has no images.
    """
    from matplotlib.colors import LogNorm

    if not m.image_count:
        raise InputError("the map has no images", "there is nothing to draw")
    poses = [m.pose(image) for image in range(m.image_count)]
    plane = ground_plane(poses)
    cameras, directions = _arrows(plane, poses)
    landmarks = plane.project(m.positions(np.arange(m.landmark_count)) + m.origin)
    observed = np.concatenate([m.observed(image) for image in range(m.image_count)])
    tracks = np.bincount(observed, minlength=m.landmark_count)
    low, high = _frame(cameras, landmarks)
    figure, axes = _figure(low, high)
    if len(landmarks):
        order = np.argsort(tracks, kind="stable")
        dots = axes.scatter(
            landmarks[order, 0],
            landmarks[order, 1],
            s=float(np.clip(3e4 / len(landmarks), 0.2, 4)),
            c=np.maximum(tracks[order], 1),
            cmap="viridis_r",
            norm=LogNorm(1, max(2, tracks.max())),
            linewidths=0,
        )
        figure.colorbar(dots, ax=axes, label="images that observe a landmark", shrink=0.7, aspect=35, pad=0.02)
    _quiver(axes, cameras, directions * 0.03 * max(high - low), "#c0392b")
    axes.scatter(cameras[:, 0], cameras[:, 1], s=5, c="#c0392b", linewidths=0, zorder=4)
    axes.set_title(
        f"{m.image_count} reference images, {m.landmark_count} landmarks from above", loc="left", fontsize=10
    )
    _save(figure, path)


def draw_curve(frontier: Sequence[Choice], chosen: Choice, path: Path | str) -> None:
    """Writes a PNG of accuracy against megabytes: recall and median error of left-out images, the chosen map marked.

    Args:
        frontier: the best at each size, the uncompacted map last.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    *packed, full = frontier
    size = [c.size / 1e6 for c in packed]
    values: list[tuple[Axes, str, Callable[[Choice], float]]] = [
        (upper, "recall [%]", lambda c: 100 * c.precise),
        (lower, "median position error", lambda c: c.median[0]),
    ]
    upper.plot(size, [100 * c.localized for c in packed], "o:", color="#b9bec6", markersize=3, label="localized at all")
    upper.set_ylim(-3, 103)
    for axes, label, value in values:
        axes.axhline(value(full), color="#8a8f98", linestyle="--", label=f"everything, {full.size / 1e6:.3g} MB")
        axes.plot(size, [value(c) for c in packed], "o-", color="#1f6f50", markersize=4, label="best at each size")
        axes.plot(
            chosen.size / 1e6, value(chosen), "o", color="#d9822b", markersize=9, label=f"chosen: {chosen.settings}"
        )
        axes.set(ylabel=label, xscale="log")
        axes.grid(color="#e4e4e0", linewidth=0.6)
    if all(np.isfinite(c.median[0]) for c in frontier):
        lower.set_yscale("log")
    lower.set_xlabel("megabytes")
    lower.legend(frameon=False, fontsize=8)
    upper.legend(frameon=False, fontsize=8, loc="lower right")
    upper.set_title(
        "Reference images left out of the map: recall within twice the uncompacted map's median error",
        loc="left",
        fontsize=10,
    )
    _save(figure, path)


def _figure(low: np.ndarray, high: np.ndarray) -> tuple[Figure, Axes]:
    """An empty picture of the ground between two corners (2,)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = high - low
    figure = Figure(figsize=(9, float(np.clip(9 * height / width, 3.5, 9)) + 1.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("#fbfbf9")
    axes.grid(color="#e4e4e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="metres", ylabel="metres", aspect="equal")
    return figure, axes


def _save(figure: Figure, path: Path | str) -> None:
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
