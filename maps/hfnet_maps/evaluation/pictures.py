"""Pictures of a place from above."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Pose
from hfnet_edge.map.map_file import LocalizationMap
from hfnet_maps.evaluation.alignment import Similarity
from hfnet_maps.evaluation.errors import Evaluation, plain
from hfnet_maps.evaluation.ground_plane import WORLD, GroundPlane, ground_plane
from hfnet_maps.evaluation.png import new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE, LEAST_SIDE = 9.0, 3.5  # inches
OF_TILE = 20000  # landmarks that are drawn, at most


def draw_from_above(
    evaluation: Evaluation,
    found: Mapping[str, Pose],
    true: Mapping[str, Pose],
    path: Path | str,
    map_: LocalizationMap | None = None,
    alignment: Similarity | None = None,
) -> None:
    """Writes a PNG of the place from above: true and found cameras, the errors between them, who abstained.

    Args:
        true: poses of the queries and of the reference images around them.
        map_: its landmarks are drawn, where given, as `draw_map` draws them; else the other cameras of ``true``.
        alignment: from the map's world to that of ``true``, which ``found`` is in.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.colors import LogNorm

    plane, background = ground_plane(list(true.values())), np.zeros((0, 2))
    if map_ is not None:
        poses, landmarks = _reference_poses(map_), map_.in_world(map_.positions(np.arange(map_.landmark_count)))
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
    save_png(figure, path)


def draw_map(map_: LocalizationMap, path: Path | str) -> None:
    """Writes a PNG of a map from above: reference cameras, and landmarks by how many images observe them.

    Raises:
        OutputError: the file cannot be written. MapFormatError: the map is damaged. InputError: it has no images.
    """
    from matplotlib.colors import LogNorm

    poses = _reference_poses(map_)
    plane = ground_plane(poses)
    cameras, directions = _arrows(plane, poses)
    landmarks = plane.project(map_.in_world(map_.positions(np.arange(map_.landmark_count))))
    observed = np.concatenate([map_.observed(image) for image in range(map_.image_count)])
    tracks = np.bincount(observed, minlength=map_.landmark_count)
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
    _title(figure, f"{map_.image_count} reference images, {map_.landmark_count} landmarks from above")
    save_png(figure, path)


def draw_tiles(tiles: Iterable[LocalizationMap], path: Path | str) -> None:
    """Writes a PNG of a place in tiles from above: reference cameras and landmarks, in a colour of each tile.

    Args:
        tiles: asked for one by one, so that one is open at a time.

    Raises:
        OutputError: the file cannot be written. MapFormatError: a tile is damaged. InputError: one has no images.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    poses: list[list[Pose]] = []
    landmarks = []
    for tile in tiles:
        poses.append(_reference_poses(tile))
        some = np.unique(np.linspace(0, tile.landmark_count - 1, min(tile.landmark_count, OF_TILE)).astype(np.int64))
        landmarks.append(tile.in_world(tile.positions(some)))
    plane = ground_plane([pose for own in poses for pose in own])
    seen = [plane.project(xyz) for xyz in landmarks]
    low, high = _frame(plane.project(np.stack([p.center for own in poses for p in own])), np.concatenate(seen))
    figure, axes = _figure(low, high, plane)
    for k, (own, points) in enumerate(zip(poses, seen, strict=True)):
        colour = to_hex(colormaps["tab10"](k % 10))
        axes.scatter(points[:, 0], points[:, 1], s=1.2, color=colour, alpha=0.5, linewidths=0)
        cameras, directions = _arrows(plane, own)
        _quiver(axes, cameras, directions * 0.02 * max(high - low), colour)
        axes.scatter(cameras[:, 0], cameras[:, 1], s=8, color=colour, edgecolors="#333333", linewidths=0.3, zorder=4)
    images = sum(map(len, poses))
    _title(figure, f"{len(poses)} tiles from above, {images} images, those at borders in each")
    save_png(figure, path)


def _reference_poses(map_: LocalizationMap) -> list[Pose]:
    """Of a map's images. Raises InputError: it has none."""
    if not map_.image_count:
        raise InputError("the map has no images", "there is nothing to draw")
    return [map_.pose(image) for image in range(map_.image_count)]


def _figure(low: np.ndarray, high: np.ndarray, plane: GroundPlane) -> tuple[Figure, Axes]:
    """An empty picture of the ground between two corners (2,)."""
    width, height = high - low
    size = np.clip(SIDE * np.array([width, height]) / max(width, height), LEAST_SIDE, SIDE)
    figure = new_figure(size[0] + 1.6, size[1] + 1.6, "compressed")
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
