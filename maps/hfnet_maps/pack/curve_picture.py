"""A picture of what a budget costs: accuracy against size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hfnet_edge.shell.console import size_text
from hfnet_maps.evaluation.png import new_figure, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hfnet_maps.pack.jury import Choice

TICKS = ((1,), (1, 2, 5), (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8))  # leading digits, the first of them that give enough
FEWEST_TICKS = 4
FAR_APART = 3  # times as much


def draw_curve(frontier: Sequence[Choice], chosen: Choice, path: Path | str) -> None:
    """Writes a PNG of accuracy against size: recall and median error of left-out images, the chosen map marked.

    Args:
        frontier: the best at each size, the uncompacted map last.

    Raises:
        OutputError: the file cannot be written.
    """
    figure = new_figure(8, 6, "constrained")
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
    save_png(figure, path)


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
