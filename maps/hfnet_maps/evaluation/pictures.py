"""Pictures of a place from above, and of what a budget costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_edge.shell.console import size_text
from hfnet_edge.shell.files import atomic_write
from hfnet_maps.evaluation.alignment import Similarity
from hfnet_maps.evaluation.errors import Evaluation, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hfnet_maps.pack.budget import Choice


SIDE, LEAST_SIDE = 9.0, 3.5  # inches
LEVEL = 10.0  # degrees: a world axis that is as near to upright is taken for upright
WORLD = "xyz"
TICKS = ((1,), (1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8))  # leading digits, the first of them that give enough
FEWEST_TICKS = 4
FAR_APART = 3  # times as much


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
        """(N, 3) world points to (N, 2) on the picture, in the world's unit."""
        return (np.asarray(xyz, np.float64) - self.origin) @ self.axes.T

    @property
    def in_world_axes(self) -> bool:
        """Whether the picture's coordinates are two of the world's."""
        return bool((self.axes.max(axis=1) == 1).all() and not self.origin.any())

    @property
    def labels(self) -> tuple[str, str]:
        """What the picture's axes measure, so that a point can be read off as the world has it."""
        if self.in_world_axes:
            right, up = (WORLD[axis.argmax()] for axis in self.axes)
            return f"{right} [units]", f"{up} [units]"
        right, up = (f"({', '.join(f'{v + 0.0:.3f}' for v in axis)})" for axis in self.axes)
        origin = ", ".join(plain(v, 8) for v in self.origin)
        return f"units along {right}; 0, 0 is at ({origin})", f"units along {up}"


def ground_plane(poses: Sequence[Pose]) -> GroundPlane:
    """The plane that people stand on, whatever the world's axes.

    Cameras are held level: their x axes are horizontal, and their y axes point down on average. Up is the direction
    least along the x axes, with a tenth of the weight on the mean y axis, which decides where all cameras look the same
    way. Where a world axis is upright, the picture's axes are the other two; else the cameras spread most from left to
    right.
    """
    right = np.stack([p.rotation[0] for p in poses])
    down = np.mean([p.rotation[1] for p in poses], axis=0)
    down /= max(np.linalg.norm(down), 1e-9)
    along_x = right.T @ right / len(poses) + 0.1 * (np.eye(3) - np.outer(down, down))
    up = np.linalg.eigh(along_x)[1][:, 0]
    up *= -1 if up @ down > 0 else 1
    vertical = int(np.abs(up).argmax())
    if abs(up[vertical]) > np.cos(np.radians(LEVEL)):
        turn = 1 if up[vertical] > 0 else 2  # seen from below, the two others change places
        return GroundPlane(np.eye(3)[[(vertical + turn) % 3, (vertical - turn) % 3]], np.zeros(3))
    centers = np.stack([p.center for p in poses])
    origin = centers.mean(axis=0)
    flat = (centers - origin) @ (np.eye(3) - np.outer(up, up))
    horizontal = np.linalg.svd(np.vstack([flat, 1e-9 * right]))[2][0]
    horizontal -= up * (horizontal @ up)
    horizontal /= np.linalg.norm(horizontal) * np.sign(horizontal[np.abs(horizontal).argmax()])
    return GroundPlane(np.stack([horizontal, np.cross(up, horizontal)]), origin)


def draw_from_above(
    evaluation: Evaluation,
    found: Mapping[str, Pose],
    true: Mapping[str, Pose],
    path: Path | str,
    m: LocalizationMap | None = None,
    alignment: Similarity | None = None,
) -> None:
    """Writes a PNG of the place from above: true and found cameras, the errors between them, who abstained.

    Args:
        true: poses of the queries and of the reference images around them.
        m: its landmarks are drawn, where given, as `draw_map` draws them; else the other cameras of ``true``.
        alignment: from the map's world to that of ``true``, which ``found`` is in.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.colors import LogNorm

    plane, background = ground_plane(list(true.values())), np.zeros((0, 2))
    if m is not None:
        poses, landmarks = _reference_poses(m), m.positions(np.arange(m.landmark_count)) + m.origin
        if alignment is not None:
            poses, landmarks = [alignment.pose(pose) for pose in poses], alignment.points(landmarks)
        plane = ground_plane(poses)
        background = plane.project(landmarks)
    others = [name for name in true if name not in set(evaluation.names)]
    truth = plane.project(np.stack([true[name].center for name in evaluation.names]))
    located = [i for i, name in enumerate(evaluation.names) if name in found]
    spots = plane.project(np.array([found[evaluation.names[i]].center for i in located]).reshape(-1, 3))

    # A few landmarks lie at the horizon, and wrong poses anywhere: the true cameras and the bulk of the landmarks
    # frame the picture.
    low, high = _frame(plane.project(np.stack([pose.center for pose in true.values()])), background)
    arrow = 0.04 * max(high - low)
    figure, axes = _figure(low, high, plane)
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
        _colour_bar(figure, axes, dots, "position error [units]")
    recalls = "   ".join(
        f"{100 * r:.0f} % within {t}" for t, r in zip(evaluation.thresholds, evaluation.recalls, strict=True)
    )
    aligned = "" if alignment is None else f", aligned with the reference (scale {plain(alignment.scale, 5)})"
    _title(figure, f"{len(evaluation.names)} queries from above{aligned}\n{recalls}")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, columnspacing=1.2)
    _save(figure, path)


def draw_map(m: LocalizationMap, path: Path | str) -> None:
    """Writes a PNG of a map from above: reference cameras, and landmarks by how many images observe them.

    Raises:
        OutputError: the file cannot be written. MapFormatError: the map is damaged. InputError: it has no images.
    """
    from matplotlib.colors import LogNorm

    poses = _reference_poses(m)
    plane = ground_plane(poses)
    cameras, directions = _arrows(plane, poses)
    landmarks = plane.project(m.positions(np.arange(m.landmark_count)) + m.origin)
    observed = np.concatenate([m.observed(image) for image in range(m.image_count)])
    tracks = np.bincount(observed, minlength=m.landmark_count)
    low, high = _frame(cameras, landmarks)
    figure, axes = _figure(low, high, plane)
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
        _colour_bar(figure, axes, dots, "images that observe a landmark")
    _quiver(axes, cameras, directions * 0.03 * max(high - low), "#c0392b")
    axes.scatter(cameras[:, 0], cameras[:, 1], s=5, c="#c0392b", linewidths=0, zorder=4)
    _title(figure, f"{m.image_count} reference images, {m.landmark_count} landmarks from above")
    _save(figure, path)


def _reference_poses(m: LocalizationMap) -> list[Pose]:
    """Of a map's images. Raises InputError: it has none."""
    if not m.image_count:
        raise InputError("the map has no images", "there is nothing to draw")
    return [m.pose(image) for image in range(m.image_count)]


def draw_curve(frontier: Sequence[Choice], chosen: Choice, path: Path | str) -> None:
    """Writes a PNG of accuracy against size: recall and median error of left-out images, the chosen map marked.

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
    unit, name = (1e6, "MB") if max(c.size for c in packed) >= 1e7 else (1e3, "kB")
    size = [c.size / unit for c in packed]
    values: list[tuple[Axes, str, Callable[[Choice], float]]] = [
        (upper, "left-out images [%]", lambda c: 100 * c.precise),
        (lower, "median position error [map's unit]", lambda c: c.median[0]),
    ]
    upper.plot(size, [100 * c.localized for c in packed], "o:", color="#b9bec6", markersize=3, label="localized at all")
    upper.set_ylim(-3, 103)
    for axes, label, value in values:
        axes.axhline(value(full), color="#8a8f98", linestyle="--", label=f"everything, {size_text(full.size)}")
        axes.plot(size, [value(c) for c in packed], "o-", color="#1f6f50", markersize=4, label="best at each size")
        axes.plot(
            chosen.size / unit, value(chosen), "o", color="#d9822b", markersize=9, label=f"chosen: {chosen.settings}"
        )
        axes.set(ylabel=label)
        axes.grid(color="#e4e4e0", linewidth=0.6)
    _decimal(lower, "x", [*size, chosen.size / unit])
    medians = [c.median[0] for c in (*frontier, chosen)]
    if np.isfinite(medians).all():
        _decimal(lower, "y", medians)
    lower.set_xlabel(f"size of the map [{name}]")
    lower.legend(frameon=False, fontsize=8)
    upper.legend(frameon=False, fontsize=8, loc="lower right")
    upper.set_title(
        "Reference images left out of the map: those within twice the uncompacted map's median error",
        loc="left",
        fontsize=10,
    )
    _save(figure, path)


def _decimal(axes: Axes, name: Literal["x", "y"], values: Sequence[float]) -> None:
    """An axis with plain decimal ticks, logarithmic where the positive ``values`` are far apart."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    low, high = 0.97 * min(values), 1.03 * max(values)
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(6))
    if low > 0 and high > FAR_APART * low:
        axes.set(xscale="log") if name == "x" else axes.set(yscale="log")
        powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        for digits in TICKS:
            ticks = [d * 10.0**power for power in powers for d in digits if low <= d * 10.0**power <= high]
            if len(ticks) >= FEWEST_TICKS:
                break
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())
    axes.set(xlim=(low, high)) if name == "x" else axes.set(ylim=(low, high))
    axis.set_major_formatter(
        FuncFormatter(lambda tick, _: np.format_float_positional(tick, 4, fractional=False, trim="-"))
    )


def _figure(low: np.ndarray, high: np.ndarray, plane: GroundPlane) -> tuple[Figure, Axes]:
    """An empty picture of the ground between two corners (2,)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height = high - low
    size = np.clip(SIDE * np.array([width, height]) / max(width, height), LEAST_SIDE, SIDE)
    figure = Figure(figsize=(size[0] + 1.6, size[1] + 1.6), dpi=150, layout="compressed")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("#fbfbf9")
    axes.grid(color="#e4e4e0", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.locator_params("x", nbins=max(3, round(float(size[0]))))
    axes.locator_params("y", nbins=max(3, round(float(size[1]))))
    right, up = plane.labels
    axes.set_xlabel(right, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    if not plane.in_world_axes:
        _world_arrows(axes, plane)
    return figure, axes


def _world_arrows(axes: Axes, plane: GroundPlane) -> None:
    """The directions of the world's axes in a corner; short where one points at the viewer or away."""
    compass = axes.inset_axes((0.01, 0.01, 0.14, 0.14), xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", zorder=8)
    compass.set_axis_off()
    for name, (right, up) in zip(WORLD, plane.axes.T, strict=True):
        compass.annotate("", (right, up), (0, 0), arrowprops={"arrowstyle": "->", "color": "#1c2733", "shrinkA": 0})
        length = max(float(np.hypot(right, up)), 0.05)
        compass.text(
            right * (1 + 0.3 / length), up * (1 + 0.3 / length), name, fontsize=8, ha="center", va="center",
            color="#1c2733", fontweight="bold",
        )  # fmt: skip


def _colour_bar(figure: Figure, axes: Axes, dots, label: str) -> None:
    """Of a logarithmic scale, with plain decimals at it."""
    bar = figure.colorbar(dots, ax=axes, label=label, shrink=0.7, aspect=35, pad=0.02)
    bar.ax.minorticks_off()
    ticks = log_ticks(dots.norm.vmin, dots.norm.vmax)
    bar.set_ticks(ticks, labels=[plain(tick) for tick in ticks])


def log_ticks(low: float, high: float) -> list[float]:
    """Two to eight numbers from ``low`` to ``high``: of 1, 2, 5 times powers of ten, the powers alone where those
    are too many, and three even steps where there are none."""
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for steps in ((1, 2, 5), (1,)):
        ticks = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if len(ticks) <= 8:
            break
    return ticks if len(ticks) > 1 else [float(f"{v:.3g}") for v in np.geomspace(low, high, 3)]


def _title(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.02, ha="left", fontsize=10)


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
