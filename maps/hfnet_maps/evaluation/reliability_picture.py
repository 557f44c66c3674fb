"""A picture of what probabilities are worth: the reliability diagram, and recall against wrong answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hfnet_maps.evaluation.errors import Threshold, plain
from hfnet_maps.evaluation.png import new_figure, save_png
from hfnet_maps.evaluation.reliability import BINS, LOW_WRONG_SHARE, OperatingPoint, Reliability, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PERCENT = (0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)  # ticks of the wrong answers
GREEN, ORANGE, GREY, LIGHT = "#1f6f50", "#d9822b", "#8a8f98", "#b9bec6"


def draw_reliability(
    reliability: Reliability,
    path: Path | str,
    tolerance: Threshold | None = None,
    rules: Mapping[str, OperatingPoint] | None = None,
) -> None:
    """Writes a PNG with two panels: the share of right answers against their probability, and recall against the share
    of wrong answers.

    Args:
        tolerance: within which an answer is right, for the title.
        rules: other ways to pick the answers that are given, by what they are called, for comparison.

    Raises:
        OutputError: the file cannot be written.
    """
    figure = new_figure(11, 5.6, "constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(4, 1))
    diagram = figure.add_subplot(grid[0, 0])
    counts = figure.add_subplot(grid[1, 0], sharex=diagram)
    _diagram(diagram, counts, reliability)
    _curve(figure.add_subplot(grid[:, 1]), reliability, rules or {})
    within = "" if tolerance is None else f" within {tolerance}"
    figure.suptitle(
        f"{reliability.queries} queries, {reliability.answers} with a pose, {reliability.right} of these right{within}",
        x=0.02,
        ha="left",
        fontsize=11,
    )
    save_png(figure, path)


def _diagram(axes: Axes, counts: Axes, reliability: Reliability) -> None:
    """The reliability diagram, and below it how many answers each bin has."""
    bins = reliability.bins
    held = bins.count > 0
    axes.plot((0, 1), (0, 1), "--", color=GREY, linewidth=1, label="as said")
    if held.any():
        axes.errorbar(
            bins.probability[held],
            bins.right[held],
            yerr=np.abs(np.array([bins.low, bins.high])[:, held] - bins.right[held]),
            fmt="o",
            color=GREEN,
            markersize=6,
            elinewidth=1.2,
            capsize=3,
            label="as found, 95 % interval",
        )
    else:
        axes.text(0.5, 0.25, "no answers", ha="center", color=GREY)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), ylabel="share of answers that are right")
    axes.set_title(f"expected calibration error {number_text(reliability.calibration_error)}", loc="left", fontsize=10)
    axes.tick_params(labelbottom=False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    _paper(axes)

    middles = (np.arange(BINS) + 0.5) / BINS
    counts.bar(middles, bins.count, 0.92 / BINS, color=LIGHT)
    for middle, count in zip(middles[held], bins.count[held], strict=True):
        counts.annotate(f"{count}", (middle, count), (0, 1.5), textcoords="offset points", ha="center", fontsize=7)
    counts.set(xlabel="probability", ylabel="answers", ylim=(0, 1.35 * max(bins.count.max(), 1)), yticks=[])
    counts.set_xticks(np.arange(0, BINS + 1, 2) / BINS)
    _paper(counts)


def _curve(axes: Axes, reliability: Reliability, rules: Mapping[str, OperatingPoint]) -> None:
    """Recall against the share of wrong answers, on a scale that is logarithmic above 0.1 %."""
    curve = reliability.curve
    order = np.argsort(curve.wrong_share, kind="stable")
    shares = np.array([0, *curve.wrong_share[order]])  # from no answers at all
    best = np.maximum.accumulate([0, *curve.recall[order]])
    shares, best = np.append(shares, max(shares[-1], LOW_WRONG_SHARE)), np.append(best, best[-1])
    axes.step(100 * shares, 100 * best, where="post", color=GREEN, linewidth=1.8, label="by probability")
    axes.axvline(100 * LOW_WRONG_SHARE, color=GREY, linestyle="--", linewidth=1)
    at = curve.recall_at(LOW_WRONG_SHARE)
    if np.isfinite(at):
        least = curve.probability_at(LOW_WRONG_SHARE)
        asked = f", probability ≥ {number_text(least)}" if np.isfinite(least) else ""
        axes.plot(
            100 * LOW_WRONG_SHARE, 100 * at, "o", color=GREEN, markersize=8,
            label=f"{100 * at:.1f} % at {plain(100 * LOW_WRONG_SHARE)} % wrong{asked}",
        )  # fmt: skip
    for (rule, point), marker in zip(rules.items(), "Ds^vPX" * len(rules), strict=False):
        axes.plot(
            100 * point.wrong_share, 100 * point.recall, marker, color=ORANGE, markersize=8,
            label=f"{rule}: {100 * point.recall:.1f} % at {plain(100 * point.wrong_share)} % wrong",
        )  # fmt: skip
    axes.set_xscale("symlog", linthresh=100 * LOW_WRONG_SHARE, linscale=0.4)
    axes.set_xticks(PERCENT, labels=[plain(tick) for tick in PERCENT])
    axes.minorticks_off()
    axes.set(xlim=(-0.015, 110), ylim=(-3, 103))
    axes.set(xlabel="wrong answers of those given [%]", ylabel="right answers of all queries: recall [%]")
    axes.set_title(f"area under the ROC {number_text(reliability.area_under_roc)}", loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="best")
    _paper(axes)


def _paper(axes: Axes) -> None:
    axes.grid(color="#e4e4e0", linewidth=0.6)
    axes.set_axisbelow(True)
