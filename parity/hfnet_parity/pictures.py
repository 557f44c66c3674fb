"""The pictures of the HTML report, as SVG that stands in the page: plots, and queries with the fate of inliers."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image

from hfnet_edge.errors import InputError
from hfnet_edge.geometry import Camera
from hfnet_edge.image.image_file import open_image
from hfnet_edge.shell.printing import printable
from hfnet_parity.compare import Comparison, Value
from hfnet_parity.pairs import MissingStage, Pair
from hfnet_parity.report import distance, inlier_count, inliers_text, of_query, remark, value_text

INK, MUTED, LINE = "#1c2733", "#66727f", "#dfe4e8"
GOOD, BAD, OTHER, DOUBT, LOST = "#1f7a4d", "#c0392b", "#2b6cb0", "#b7791f", "#d35400"
BAD_SIDE = "#fbe4e1"
SAME = 1e-6  # metres
PHOTO_SIDE, PHOTO_QUALITY = 900, 75
ARROWS = 250  # at most
ARROW_SHARE = 0.01  # of the image's width: short arrows are drawn longer, ten times or a hundred times
LEAST_ASIDE = 0.05  # pixels that arrows are drawn from
LONGEST_ARROW = 0.1  # of the image's width


def whisker(value: Value) -> Markup:
    """A value and its interval against its limit: the shaded side is out of tolerance, right is better. "" where there
    is no limit or no value."""
    if value.limit is None or math.isnan(value.value):
        return Markup("")
    sign = 1 if value.measure.at_least else -1
    at, low, high, limit = (sign * v for v in (value.value, value.low, value.high, value.limit))
    known = [v for v in (at, low, high, limit) if math.isfinite(v)]
    start, span = min(known), max(known) - min(known) or 1.0

    def x(v: float) -> float:
        return float(np.clip(24 + 112 * (v - start) / span, 4, 156))

    color = BAD if value.passed is False else DOUBT if remark(value) else GOOD
    middle = f'<rect width="{x(limit):.1f}" height="20" fill="{BAD_SIDE}"/>'
    middle += f'<path d="M{x(limit):.1f} 0v20" stroke="{BAD}" stroke-width="1.5"/>'
    middle += f'<path d="M{x(low):.1f} 10H{x(high):.1f}" stroke="{INK}" stroke-width="2" stroke-linecap="round"/>'
    middle += f'<circle cx="{x(at):.1f}" cy="10" r="4" fill="{color}"/>'
    text = f"{value_text(value.measure, value.value)}, limit {value.limit:g}"
    return Markup('<svg class="whisker" viewBox="0 0 160 20" role="img"><title>{}</title>{}</svg>').format(
        text, Markup(middle)
    )


def bar(share: float, color: str) -> Markup:
    """A bar of a table; ``share`` of its width, in [0, 1]."""
    width = 160 * float(np.clip(share, 0, 1))
    return Markup(
        '<svg class="bar" viewBox="0 0 160 12" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="160" height="12" fill="{LINE}"/><rect width="{width:.1f}" height="12" fill="{color}"/></svg>'
    )


def query_plot(comparison: Comparison) -> Markup:
    """How far the poses of each query are apart, the worst first, on a logarithmic scale, and below it the inliers."""
    value = comparison.value("pose.moved")
    rows = [(of_query(comparison, pair), pair) for pair in comparison.worst]
    rows = [(numbers, pair) for numbers, pair in rows if not math.isnan(numbers["pose.moved"])]
    moved = np.array([numbers["pose.moved"] for numbers, _ in rows])
    some = moved[np.isfinite(moved) & (moved > SAME)]
    limit = value.limit if value.limit is not None and value.limit > 0 else None
    shown = [*some, *([limit] if limit else [])] or [1e-3]
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown) * 1.05))
    high = max(high, low + 1)
    left, width, top, height = 74, 640, 26, 170
    step = width / max(1, len(rows))
    radius = float(np.clip(step / 2.5, 1.5, 4))

    def y(metres: float) -> float:
        if not math.isfinite(metres):
            return top - 14
        if metres <= SAME:
            return top + height + 16
        return top + height * (1 - (math.log10(metres) - low) / (high - low))

    parts = [
        _tick(left, width, y(10.0**power), _decade(power))
        for power in range(low, high + 1, max(1, math.ceil((high - low) / 5)))
    ]
    if (moved <= SAME).any():
        parts.append(_tick(left, width, y(0), "0"))
    if not np.isfinite(moved).all():
        parts.append(_tick(left, width, y(math.inf), "no pose"))
    if limit:
        parts.append(
            f'<path d="M{left} {y(limit):.1f}h{width}" stroke="{BAD}" stroke-dasharray="5 4"/><text x="{left + width}" '
            f'y="{y(limit) - 5:.1f}" text-anchor="end" fill="{BAD}">limit of the median, {distance(limit)}</text>'
        )
    names = [
        f"{pair.reference.name}: {distance(m)}, inliers {inliers_text(pair)}"
        for m, (_, pair) in zip(moved, rows, strict=True)
    ]
    dots: list[Markup] = []
    for i, metres in enumerate(moved):
        color = BAD if not math.isfinite(metres) or (limit and metres > limit) else OTHER
        dots.append(_dot(left + step * (i + 0.5), y(metres), radius, f'fill="{color}"', names[i]))

    base, tall = top + height + 58, 110
    counts = [(inlier_count(pair.reference), inlier_count(pair.run)) for _, pair in rows]
    most = max((count for both in counts for count in both if count is not None), default=0)
    if most:
        parts += [_tick(left, width, base + tall * (1 - k / 2), f"{most * k / 2:.0f}") for k in range(3)]
        parts.append(f'<text x="{left}" y="{base - 14}" fill="{INK}">inliers: ring reference, dot run</text>')
        for i, both in enumerate(counts):
            at = [None if count is None else base + tall * (1 - count / most) for count in both]
            x = left + step * (i + 0.5)
            if at[0] is not None and at[1] is not None:
                parts.append(f'<path d="M{x:.1f} {at[0]:.1f}V{at[1]:.1f}" stroke="{MUTED}"/>')
            if at[0] is not None:
                dots.append(_dot(x, at[0], radius, f'fill="#fff" stroke="{MUTED}"', names[i]))
            if at[1] is not None:
                dots.append(_dot(x, at[1], radius * 0.8, f'fill="{OTHER}"', names[i]))
    end = base + tall + 12 if most else base - 26
    return Markup('<svg class="plot" viewBox="0 0 730 {}" role="img"><title>{}</title>{}{}</svg>').format(
        end, "Distance between the poses, and inliers, by query", Markup("".join(parts)), Markup("").join(dots)
    )


def _dot(x: float, y: float, radius: float, style: str, name: str) -> Markup:
    """A dot that says its name when one points at it."""
    dot = Markup(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {style}>')
    return dot + Markup("<title>{}</title></circle>").format(printable(name))


def _decade(power: int) -> str:
    """10**power metres."""
    return (
        f"{10 ** (power + 3):g} mm" if power < -2 else f"{10 ** (power + 2):g} cm" if power < 0 else f"{10**power:g} m"
    )


def _tick(left: float, width: float, y: float, text: str) -> str:
    return (
        f'<path d="M{left} {y:.1f}h{width}" stroke="{LINE}"/>'
        f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{MUTED}">{text}</text>'
    )


@dataclass(frozen=True)
class Photo:
    """A query with what became of its inliers.

    Attributes:
        svg: the picture.
        what: "inliers", or "keypoints" where the reference has no matches.
        kept, lost, new: how many of the reference's the run has and has not, and those that only the run has.
        aside: where the run's pose sees the reference's landmarks, less where the reference's pose does; median length
            in pixels, NaN where one has no pose. times: as many times longer the arrows are.
    """

    svg: Markup
    what: str
    kept: int
    lost: int
    new: int
    aside: float
    times: int


def photo(content: bytes, pair: Pair) -> Photo:
    """Draws a query.

    Args:
        content: its image file; a grey area where it does not decode.
    """
    camera = pair.reference.camera
    what, kept, lost, new = _fates(pair)
    start, end = _seen(pair)
    lengths = np.linalg.norm(end - start, axis=1)
    aside = float(np.median(lengths)) if len(lengths) else math.nan
    times = next((t for t in (1, 10) if t * aside >= ARROW_SHARE * camera.width), 100) if aside >= LEAST_ASIDE else 1
    few = slice(None, None, max(1, -(-len(start) // ARROWS))) if aside >= LEAST_ASIDE else slice(0)
    arrows = times * (end - start)
    arrows /= np.maximum(1, np.linalg.norm(arrows, axis=1, keepdims=True) / (LONGEST_ARROW * camera.width))
    r = camera.width / 180
    parts = [
        _background(content, camera),
        _path(start[few], lambda i, p: _line(p, arrows[few][i]), INK, r * 0.35),
        _path(kept, lambda i, p: f"M{p[0]:.0f} {p[1]:.0f}h0", GOOD, r * 1.2),
        _path(new, lambda i, p: _ring(p, r), OTHER, r * 0.5),
        _path(lost, lambda i, p: _cross(p, r), LOST, r * 0.5),
    ]
    svg = Markup('<svg class="photo" viewBox="0 0 {} {}" role="img"><title>{}</title>{}</svg>').format(
        camera.width, camera.height, printable(pair.reference.name), Markup("".join(parts))
    )
    return Photo(svg, what, len(kept), len(lost), len(new), aside, times)


def _fates(pair: Pair) -> tuple[str, np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn, and (N, 2) pixels of the kept, the lost and the new ones."""
    none = np.zeros((0, 2))
    try:
        partner = dict(pair.paired.tolist())
    except MissingStage:
        return "keypoints", none, none, none
    a, b = pair.reference, pair.run
    assert a.features is not None and b.features is not None, "`paired` has asked"
    if any(m is not None and (m.keypoints is None or m.landmarks is None) for m in (a.matched, b.matched)):
        return "keypoints", none, none, none
    if a.matched is None and b.matched is not None and a.pose is not None:
        what, before, after = "keypoints", _rows(len(a.features.keypoints)), _rows(len(b.features.keypoints))
    else:
        what = "inliers"
        before, after = (
            {}
            if m is None or m.keypoints is None or m.landmarks is None
            else dict(zip(m.keypoints[m.inliers].tolist(), m.landmarks[m.inliers].tolist(), strict=True))
            for m in (a.matched, b.matched)
        )
    same = what == "inliers" and pair.same_map
    kept = [
        k for k, landmark in before.items() if partner.get(k) in after and (not same or after[partner[k]] == landmark)
    ]
    lost = sorted(set(before) - set(kept))
    new = sorted(set(after) - {partner[k] for k in kept})
    return what, a.features.keypoints[kept], a.features.keypoints[lost], b.features.keypoints[new]


def _rows(count: int) -> dict[int, int]:
    return dict.fromkeys(range(count), 0)


def _seen(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) pixels at which the reference's pose and the run's see the landmarks of the reference's inliers."""
    m, a, b = pair.reference.matched, pair.reference.pose, pair.run.pose
    if m is None or a is None or b is None:
        return np.zeros((0, 2)), np.zeros((0, 2))
    camera, xyz = pair.reference.camera, m.xyz[m.inliers]
    start, end = camera.project(a.transform(xyz)), camera.project(b.transform(xyz))
    known = np.isfinite(start).all(axis=1) & np.isfinite(end).all(axis=1)
    return start[known], end[known]


def _background(content: bytes, camera: Camera) -> str:
    """The image in the camera's orientation, grey and light so that marks stand out."""
    try:
        image = open_image(content)
        picture = Image.fromarray(image.grey(camera, max(1.0, max(camera.width, camera.height) / PHOTO_SIDE)))
    except InputError:
        return f'<rect width="{camera.width}" height="{camera.height}" fill="#e9ecef"/>'
    picture.thumbnail((PHOTO_SIDE, PHOTO_SIDE))
    file = io.BytesIO()
    picture.point(lambda grey: 105 + grey * 0.58).save(file, "JPEG", quality=PHOTO_QUALITY)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<image width="{camera.width}" height="{camera.height}" preserveAspectRatio="none" '
        f'href="data:image/jpeg;base64,{data}"/>'
    )


def _path(points: Iterable[np.ndarray], mark: Callable[[int, np.ndarray], str], color: str, width: float) -> str:
    drawn = "".join(mark(i, point) for i, point in enumerate(points))
    if not drawn:
        return ""
    return f'<path d="{drawn}" fill="none" stroke="{color}" stroke-width="{width:.1f}" stroke-linecap="round"/>'


def _line(p: np.ndarray, along: np.ndarray) -> str:
    return f"M{p[0]:.0f} {p[1]:.0f}l{along[0]:.1f} {along[1]:.1f}"


def _ring(p: np.ndarray, r: float) -> str:
    return f"M{p[0] - r:.1f} {p[1]:.1f}a{r:.1f} {r:.1f} 0 1 0 {2 * r:.1f} 0a{r:.1f} {r:.1f} 0 1 0 {-2 * r:.1f} 0"


def _cross(p: np.ndarray, r: float) -> str:
    return f"M{p[0] - r:.1f} {p[1] - r:.1f}l{2 * r:.1f} {2 * r:.1f}m0 {-2 * r:.1f}l{-2 * r:.1f} {2 * r:.1f}"
