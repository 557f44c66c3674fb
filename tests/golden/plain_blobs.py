"""Blobs, and the keypoints that fill them up, written a second time, plainly: see `golden.plain`.

All is whole numbers until a position is divided out. Nothing is rounded there but by the division, and where the offset
is added to the pixel: who computes in float64 gets the same.
"""

from __future__ import annotations

from operator import ge

import numpy as np

KERNELS = (
    (1, 8, 14, 8, 1), (1, 2, 1), (1, 6, 15, 20, 15, 6, 1), (1, 0, 8, 0, 14, 0, 8, 0, 1),
    (1, 0, 6, 0, 15, 0, 20, 0, 15, 0, 6, 0, 1),
)  # fmt: skip
SCALES = {1: 2.25**0.5, 2: 4.5**0.5}  # of the differences that have blobs
MOST = 65535


def half_to_even(sums, total):
    down, rest = sums // total, sums % total
    return down + (2 * rest + down % 2 > total)


def blurred(image, kernel, rounded=half_to_even, mirrored="reflect", once=True):
    """Along columns, then along rows; ``once``: rounded after both."""
    side = len(kernel) // 2
    for _ in range(2):
        framed, rows = np.pad(image, [(side, side), (0, 0)], mirrored), len(image)
        image = sum(weight * framed[i : i + rows] for i, weight in enumerate(kernel)).T
        image = image if once else rounded(image, sum(kernel))
    return rounded(image, sum(kernel) ** 2) if once else image


def differences_of(image, octaves, border, blur):
    """The four differences of each octave."""
    planes: list[np.ndarray] = []
    level, found = blur(16 * image.astype(np.int64), KERNELS[0]), []
    for _ in range(octaves):
        if min(level.shape) <= 2 * border:
            break
        for kernel in KERNELS[len(planes) + 1 :]:
            before, level = level, blur(level, kernel)
            planes.append(level - before)
        found.append(np.array(planes))
        level, planes = level[::2, ::2], [plane[::2, ::2] for plane in planes[2:]]
    return found


def extrema(planes, contrast, border, enough, alone):
    """Difference, y and x of each in an octave. ``alone``: nothing around is as high, or as low."""
    _, h, w = planes.shape
    for k in SCALES:
        here = planes[k, border : h - border, border : w - border]
        cube = np.array(
            [
                planes[c, border + dy : h - border + dy, border + dx : w - border + dx]
                for c in (k - 1, k, k + 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
            ]
        )  # fmt: skip
        extreme = (here == cube.max(axis=0)) | (here == cube.min(axis=0))
        if alone:
            extreme &= (cube == here).sum(axis=0) == 1
        for y, x in np.argwhere(extreme & enough(abs(here), 16 * contrast)).tolist():
            yield k, y + border, x + border


def peak(planes, k, y, x, stretch, within):
    """Where the peak about an extremum is, in pixels of the octave to its right and below, or None."""
    cube = planes[k - 1 : k + 2, y - 1 : y + 2, x - 1 : x + 2].tolist()
    (_, (_, finer, _), _), ((nw, north, ne), (west, here, east), (sw, south, se)), (_, (_, coarser, _), _) = cube
    gx, gy, gs = (east - west) / 2, (south - north) / 2, (coarser - finer) / 2
    xx, yy, ss = east + west - 2 * here, south + north - 2 * here, coarser + finer - 2 * here
    xy = (se + nw - ne - sw) / 4
    xs = (cube[2][1][2] + cube[0][1][0] - cube[2][1][0] - cube[0][1][2]) / 4
    ys = (cube[2][2][1] + cube[0][0][1] - cube[2][0][1] - cube[0][2][1]) / 4
    if not (xx + yy) ** 2 * stretch < (stretch + 1) ** 2 * (xx * yy - xy * xy):
        return None
    a, b, c, d, e = yy * ss - ys * ys, xs * ys - xy * ss, xy * ys - yy * xs, xx * ss - xs * xs, xy * xs - xx * ys
    volume = xx * a + xy * b + xs * c
    if volume == 0:
        return None
    dx, dy = (a * gx + b * gy + c * gs) / -volume, (b * gx + d * gy + e * gs) / -volume
    return (dx, dy) if abs(dx) <= within and abs(dy) <= within else None


def blobs(
    pixels, valid, count, octaves=3, contrast=0.5, stretch=10, apart=3, border=4, within=1, centre=0.5, tie=1,
    enough=ge, alone=False, kept=False, fitted=True, unit=16, **blur,
):  # fmt: skip
    """``within``: pixels that a peak may be from its extremum. ``tie``: of equals the first, -1: the last. ``enough``:
    how strength compares with ``contrast``. ``kept``: only what is kept keeps others away. ``fitted``: to the peak.
    ``unit``: of the response. ``blur``: rules of `blurred`."""
    octave_planes = differences_of(
        pixels[: valid[0], : valid[1]], octaves, border, lambda image, kernel: blurred(image, kernel, **blur)
    )
    found = [
        (-abs(int(planes[k, y, x])), tie * (y << octave), tie * (x << octave), octave, k, y, x)
        for octave, planes in enumerate(octave_planes)
        for k, y, x in extrema(planes, contrast, border, enough, alone)
    ]
    found.sort()
    at, free = np.array([one[1:3] for one in found]).reshape(-1, 2), np.ones(len(found), bool)
    rows = []
    for i, (strength, _, _, octave, k, y, x) in enumerate(found[:MOST]):
        stronger = at[:i][free[:i]] if kept else at[:i]
        free[i] = not (abs(stronger - at[i]) <= apart).all(axis=1).any()
        if not free[i]:
            continue
        offset = peak(octave_planes[octave], k, y, x, stretch, within)
        if offset is not None:
            dx, dy = offset if fitted else (0, 0)
            place = ((v << octave) + centre + by * 2**octave for v, by in ((x, dx), (y, dy)))
            rows.append((*place, -strength / unit, SCALES[k] * 2**octave))
    x, y, response, scale = np.array(rows[:count], np.float32).reshape(-1, 4).T
    return {"xy": np.stack([x, y], axis=1), "response": response, "scale": scale}


def filled(xy, response, network_xy, network_scores, count, far=4, raised=1, whole=int, dropped=False):
    """``raised``: scores of blobs, over their responses. ``whole``: what is compared of a position. ``dropped``: blobs
    are, too, where they are more than ``count``."""
    places = [[whole(v) for v in place] for place in xy.tolist()]
    more = [
        row for row, (x, y) in enumerate(network_xy.tolist())
        if all(max(abs(whole(x) - bx), abs(whole(y) - by)) > far for bx, by in places)
    ][: max(0, count - len(xy))]  # fmt: skip
    end = count if dropped else None
    return {
        "xy": np.concatenate([xy, network_xy[more]])[:end],
        "scores": np.concatenate([response + np.float32(raised), network_scores[more]])[:end],
    }


PLAIN_BLOBS = {"blobs": blobs, "filled": filled}
